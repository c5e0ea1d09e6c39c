"""What is wrong with what was seen inside a program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...baseline import Baseline
from ...model import Model
from .environment import Library, unsupported
from .finding import Finding, amount
from .inside import Inside, Seen


def check(
    seen: Inside, models: Sequence[Model], libraries: Sequence[Library], said: Sequence[str]
) -> Iterator[Finding]:
    """Every problem of the program, the ones that explain others first."""
    used = {state.name for state in seen.libraries if state.imported}
    wrong = [library for library in libraries if library.name in used and not library.supported]
    yield from map(unsupported, wrong)
    if not seen.models:
        yield from [] if wrong else [_nothing(seen)]
        return
    yield from _providers(seen)
    for shown, model in zip(seen.models, models, strict=True):
        yield from _model(shown, model, seen)
    yield from map(_logged, dict.fromkeys(said))
    if seen.calls == 0 and seen.workers:
        yield _workers(seen.workers)
    elif seen.calls == 0:
        yield Finding(
            "no prediction was made",
            "so only what is known before the first one was looked at",
            "send the service some requests meanwhile, with a larger --seconds, or name a script that predicts",
            broken=False,
        )


_LOGGED = (
    (r"input's column|the feature '|columns, expected|is a number in the baseline",
     "give the model the columns it was trained on, or make a new baseline from those it gets"),
    (r"\d+ models are recorded", "give models a lasting name and version with otel_ml.register"),
)  # fmt: skip


def _logged(message: str) -> Finding:
    """A warning of otel-ml: what happened, and behind the first semicolon what comes of it or what to do."""
    what, _, rest = message.partition("; ")
    for pattern, todo in _LOGGED:
        if re.search(pattern, what):
            return Finding(what, rest or "otel-ml logged this while the program ran", todo)
    return Finding(
        what, "otel-ml logged this while the program ran", rest or "look it up in docs/troubleshooting.md"
    )


def _workers(who: str) -> Finding:
    return Finding(
        f"the workers that {who} starts are not seen",
        "they are processes of their own, and nothing was observed in the one that starts them",
        "look into one process: otel-ml doctor -m uvicorn -- service:app, or a small script that predicts",
        broken=False,
    )


def _nothing(seen: Inside) -> Finding:
    there = [state.name for state in seen.libraries if state.imported and not state.instrumented]
    active = [state.name for state in seen.libraries if state.instrumented and state.imported]
    if seen.workers and (seen.workers == "gunicorn" or not there):
        return _workers(seen.workers)
    if active:
        return Finding(
            "no prediction was made", f"{', '.join(active)} is instrumented, and nothing was asked of a model",
            "name a script that predicts, or send the service requests meanwhile", broken=False,
        )  # fmt: skip
    why = (
        f"{', '.join(there)} is imported and not instrumented"
        if there
        else "it imports no library otel-ml knows"
    )
    return Finding(
        "nothing in this program is observed",
        f"{why}, and no function is decorated",
        "call otel_ml.instrument() when it starts, decorate the function that predicts with otel_ml.observe, or run "
        "it with opentelemetry-instrument (doctor --auto)",
    )


def _providers(seen: Inside) -> Iterator[Finding]:
    if seen.providers["metrics"] is None:
        yield Finding(
            "no MeterProvider is set",
            f"{amount(seen.calls, 'prediction')} counted, and nobody collects the counts: nothing leaves the process",
            "call otel_ml.configure() once when the program starts, or set up a MeterProvider with a reader",
        )
    elif not seen.readers:
        yield Finding(
            f"the MeterProvider ({seen.providers['metrics']}) has no reader",
            "otel-ml hands its counts to readers, so nothing leaves the process",
            "give it one: MeterProvider(metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())])",
        )
    if seen.providers["traces"] is None and seen.providers["metrics"] is not None:
        yield Finding(
            "no TracerProvider is set", "predictions have no spans", "otel_ml.configure() sets one up", broken=False
        )  # fmt: skip


def _model(shown: Seen, model: Model, seen: Inside) -> Iterator[Finding]:
    name = f"{shown.name} {shown.version}"
    if not shown.registered:
        yield Finding(
            f"nobody registered {name}",
            f"it is named after its class, its version after its parameters: every {shown.name} looks like this one",
            "otel_ml.register(model, name='…', version='…', baseline='….baseline.json') before it predicts",
        )
    if model.baseline is not None:
        yield from _baseline(name, model, model.baseline)
    scraped = [prometheus for _, prometheus in seen.readers]
    if any(scraped) and model.baseline is None:
        yield Finding(
            f"the Prometheus page has no features of {name}",
            "without a baseline they are exponential histograms, and one of these would fail the whole scrape",
            "give the model a baseline (otel-ml baseline create …), or export over OTLP",
        )
    elif model.baseline is None:
        yield Finding(
            f"{name} has no baseline", "its features are recorded, and there is nothing to compare them with",
            "make one from training data: otel-ml baseline create, or Baseline.fit(…).save(…)", broken=False,
        )  # fmt: skip
    elif scraped and all(scraped):
        yield Finding(
            f"the baseline of {name} does not leave by Prometheus", "a scrape cannot carry it",
            "give otel-ml-collector the file: ml_drift: {baseline: {path: …}}", broken=False,
        )  # fmt: skip


def _baseline(name: str, model: Model, baseline: Baseline) -> Iterator[Finding]:
    given = f"{baseline.model} {baseline.version}"
    automatic = model.version.startswith("auto-")
    if not automatic and (baseline.model, baseline.version) != (model.name, model.version):
        yield Finding(
            f"the baseline of {name} is one of {given}", f"its file says so (id {baseline.id})",
            f"name the baseline of {name}, or make it from that version's training data",
        )  # fmt: skip
    names = model.feature_names
    if names is not None and set(names) != set(baseline.columns):
        missing = [one for one in names if one not in baseline.columns]
        extra = [one for one in baseline.columns if one not in names]
        differ = "; ".join(
            f"{title} {', '.join(map(repr, some[:5]))}"
            for title, some in (("only the model has", missing), ("only the baseline has", extra))
            if some
        )
        yield Finding(
            f"the baseline of {name} is of other columns than the model",
            differ,
            "make it from the table that the model was fitted on: otel-ml baseline create …",
        )


_SENT = (("traces", r"ailed to export (traces|span)"), ("logs", r"ailed to export logs"))


def sent(seen: Inside, said: Sequence[str]) -> list[str] | None:
    """Signals besides metrics of which something was refused, or will be; None when too little was seen to say."""
    if not seen.calls:
        return None
    refused = [signal for signal, pattern in _SENT if any(re.search(pattern, message) for message in said)]
    return refused if not seen.samples or "logs" in refused else [*refused, "logs"]


def check_exports(said: Sequence[str], flushed: bool) -> Iterator[Finding]:
    """What exporters complained of."""
    failed = [message for message in dict.fromkeys(said) if "ailed to export" in message or "rror" in message]
    if failed:
        yield Finding(
            "an export of this program failed", failed[0],
            "see where its exporters send to; docs/troubleshooting.md has the common messages",
        )  # fmt: skip
    elif not flushed:
        yield Finding(
            "the last export did not end in time",
            "whoever it goes to does not answer",
            "see where it is sent to",
        )


def check_end(error: str | None) -> Iterator[Finding]:
    """A program that failed, whatever it had recorded before."""
    if error is not None:
        yield Finding("the program failed", error, "run it by itself and see what it says")
