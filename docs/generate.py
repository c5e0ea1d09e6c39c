"""Writes docs/telemetry.md, docs/api.md and docs/settings.md from the code.

python docs/generate.py           write them
python docs/generate.py --check   exit 1 when a file is not what this script would write
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import _api

from otel_ml import semconv
from otel_ml.semconv import Metric

DOCS = Path(__file__).parent

INTRODUCTION = """\
# Telemetry

Everything otel-ml emits. `otel_ml/semconv.py` holds these names, and this page is made from it.

The `ml.*` names are not part of OpenTelemetry's semantic conventions, which have none for this yet. An
attribute without a value is left out. Prometheus shows dots as underscores, adds `_total` to counters and the
unit to what has one: `ml.inference.duration` is `ml_inference_duration_seconds` there.
"""

SECTIONS = {
    "Metrics of a service": "Scope `otel_ml`. Every row counts; nothing is sampled.",
    "Feedback": "Scope `otel_ml`. Every truth counts, with or without an event.",
    "The baseline over the wire": """\
Scope `otel_ml`. The training data's own counts, cumulative since the baseline was made, on the first three
collections and then every five minutes. A Prometheus reader gets none.""",
    "otel-ml about itself": "Scope `otel_ml`.",
    "Drift": """\
Scope `otel_ml.drift`, from the collector. [statistics.md](statistics.md) has the formulas. The resource is
the collector; the service it watches stands in `ml.service.*`.""",
    "The collector about itself": "On its Prometheus page.",
}


EVENTS = {*semconv.EVENT_ATTRIBUTES, *semconv.FEEDBACK_ATTRIBUTES, *semconv.STATE_CHANGE_ATTRIBUTES}
"""Attributes that an event can carry."""


def section_of(metric: Metric) -> str:
    """The heading that a metric stands under."""
    name = metric.name
    if name.startswith(
        (
            "otelcol_",
            "otel_ml.receiver.",
            "otel_ml.engine.",
            "otel_ml.process.",
            "otel_ml.exporter.",
            "otel_ml.checkpoint.",
        )
    ):
        return "The collector about itself"
    if name.startswith("otel_ml."):
        return "otel-ml about itself"
    if name.startswith("ml.feedback."):
        return "Feedback"
    if metric.kind == "gauge":
        return "Drift"
    return "The baseline over the wire" if name.startswith("ml.baseline.") else "Metrics of a service"


def metrics() -> list[Metric]:
    """Every metric, in the order of `semconv`."""
    return [value for value in vars(semconv).values() if isinstance(value, Metric)]


def telemetry() -> str:
    """The text of docs/telemetry.md."""
    parts = [INTRODUCTION, "## Span", "", *_span(), "", "## Events", "", *_events()]
    for title, text in SECTIONS.items():
        parts += ["", f"## {title}", "", text]
        parts += _metric_table([one for one in metrics() if section_of(one) == title])
    parts += ["", "## Attributes", "", *_attribute_table(), "", "## States of a value", "", *_states()]
    return "\n".join(parts) + "\n"


def _span() -> Iterator[str]:
    yield "One a call, kind INTERNAL, named `{ml.operation.name} {ml.model.name}`: `predict churn`. Status"
    yield "and `error.type` are set on failure only; the exception is recorded, and raised again untouched."
    yield ""
    yield f"Attributes: {_names(semconv.SPAN_ATTRIBUTES)}."


def _events() -> Iterator[str]:
    yield "Log records with an event name and no body. [events.md](events.md) says more."
    yield ""
    yield f"`{semconv.PREDICTION_EVENT}`, one for each row that a sampler kept. Attributes:"
    yield f"{_names(semconv.EVENT_ATTRIBUTES)}, and `{semconv.FEATURE_VALUE.name}.<name>` for listed features."
    yield ""
    yield f"`{semconv.FEEDBACK_EVENT}`, one for each truth. Attributes: {_names(semconv.FEEDBACK_ATTRIBUTES)}."
    yield ""
    yield f"`{semconv.STATE_CHANGE_EVENT}`, one for each status that changed, from the collector and so in no trace."
    yield f"Attributes: {_names(semconv.STATE_CHANGE_ATTRIBUTES)}; and the numbers behind it, named as their metrics:"
    yield f"{_names(one.name for one in semconv.STATE_CHANGE_NUMBERS)}."


def _metric_table(chosen: Sequence[Metric]) -> Iterator[str]:
    shared = [name for name in chosen[0].attributes if all(name in one.attributes for one in chosen)]
    if shared:
        yield f"All have {_names(shared)}."
    yield ""
    yield from _row(
        "metric", "kind", "unit", "what it says", "further attributes" if shared else "attributes"
    )
    yield from _row(*["---"] * 5)
    for one in chosen:
        further = _names(name for name in one.attributes if name not in shared)
        unit = f"`{one.unit}`" if one.unit else ""
        yield from _row(f"`{one.name}`", one.kind.replace("_", " "), unit, one.description, further)


def _names(attributes: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in attributes)


def _attribute_table() -> Iterator[str]:
    yield from _row("attribute", "on", "what it says")
    yield from _row(*["---"] * 3)
    measured = {name for one in metrics() for name in one.attributes}
    for name, description in semconv.ATTRIBUTES.items():
        places = [
            ("span", name in semconv.SPAN_ATTRIBUTES), ("metrics", name in measured),
            ("events", name in EVENTS),
        ]  # fmt: skip
        yield from _row(f"`{name}`", ", ".join(place for place, found in places if found), description)


def _states() -> Iterator[str]:
    yield f"A value is in exactly one: {_names(semconv.STATES)}."
    yield "[baseline.md](baseline.md) says when it is in which. Every finite number is in a bucket, whatever"
    yield "its state."


def _row(*cells: str) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with --check compare; the exit code."""
    parser = argparse.ArgumentParser(
        description="Writes docs/telemetry.md, docs/api.md and docs/settings.md."
    )
    parser.add_argument("--check", action="store_true", help="only compare, exit 1 when a file is stale")
    check = parser.parse_args(arguments).check
    stale = []
    pages = {"telemetry.md": telemetry(), "api.md": _api.api(), "settings.md": _api.settings()}
    for name, text in pages.items():
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"stale: {', '.join(stale)}; write again with: python docs/generate.py", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
