"""The report for people: what there is first, what is wrong last, each with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from .endpoints import Destination
from .finding import Finding, amount
from .report import Report

GOOD, BAD, NOTE = "[green]✓[/green]", "[red]✗[/red]", "[yellow]•[/yellow]"
_SHOWN = ("otel-ml", "python", "opentelemetry-sdk", "numpy")


def show(console: Console, report: Report) -> None:
    """Everything, to `console`."""
    line = _line(console)
    line("  ".join(f"{name} {report.versions[name]}" for name in _SHOWN if name in report.versions))
    _libraries(console, report)
    _destinations(console, report.destinations)
    _baselines(console, report)
    if report.program is not None:
        _program(console, report.program)
    _findings(console, report.findings)


def _line(console: Console) -> Any:
    def line(text: str, mark: str = "", indent: int = 0) -> None:
        shown = " " * indent + (f"{mark} " if mark else "") + escape(text)
        console.print(shown, highlight=False, soft_wrap=True)

    return line


def _title(console: Console, text: str) -> None:
    console.print(f"\n[bold]{escape(text)}[/bold]", highlight=False, soft_wrap=True)


def _libraries(console: Console, report: Report) -> None:
    line = _line(console)
    _title(console, "libraries")
    inside = (
        {} if report.program is None else {one["name"]: one for one in report.program.get("libraries", ())}
    )
    for library in report.libraries:
        if library.version is None:
            line(f"{library.name}: not installed", "–", 2)
        elif not library.supported:
            line(f"{library.name} {library.version}: not instrumented, otel-ml needs {library.wish}", BAD, 2)
        else:
            state = inside.get(library.name)
            line(f"{library.name} {library.version}: {_state(state)}", _mark(state), 2)


def _state(state: Mapping[str, Any] | None) -> str:
    if state is None:
        return "supported"
    if not state["imported"]:
        return "not imported by the program"
    return (
        "instrumented" if state["instrumented"] else "not instrumented: otel_ml.instrument() was not called"
    )


def _mark(state: Mapping[str, Any] | None) -> str:
    return GOOD if state is None or (state["imported"] and state["instrumented"]) else "–"


def _destinations(console: Console, destinations: Iterable[Destination]) -> None:
    line = _line(console)
    _title(console, "where the environment sends telemetry")
    for one in destinations:
        if one.url is None:
            kind = (
                "printed to the console" if one.exporter == "friendly_console" else f"exporter {one.exporter}"
            )
            line(f"{one.signal}: {kind}", "–", 2)
            continue
        headers = f", headers {', '.join(f'{name}=****' for name in one.headers)}" if one.headers else ""
        answer = "takes them" if one.ok else "does not take them"
        line(
            f"{one.signal}: {one.url} ({one.protocol}{headers}) {answer}",
            BAD if one.broken else GOOD if one.ok else NOTE,
            2,
        )


def _baselines(console: Console, report: Report) -> None:
    if report.directory is None:
        return
    line = _line(console)
    _title(console, f"baselines in {report.directory}")
    for file in report.baselines:
        head = f"{file.path}: {file.model} {file.version}, {amount(file.features, 'feature')}"
        line(f"{head}; {_at_most(asdict(file.series))}", GOOD, 2)
    _in_sum(console, [asdict(file.series) for file in report.baselines])


def _at_most(series: Mapping[str, int]) -> str:
    return (
        f"at most {series['otlp']:,} series over OTLP, {series['baseline']:,} of them the baseline's, "
        f"{series['prometheus']:,} for Prometheus"
    )


def _in_sum(console: Console, series: Sequence[Mapping[str, int]]) -> None:
    if len(series) > 1:
        total = {where: sum(one[where] for one in series) for where in series[0]}
        _line(console)(f"in sum: {_at_most(total)}", "", 2)


def _program(console: Console, told: Mapping[str, Any]) -> None:
    line = _line(console)
    _title(console, f"inside {told['name']}")
    if told["ended"] == "failed":
        line(f"it failed: {told['error']}", BAD, 2)
    else:
        made = amount(told["calls"], "prediction")
        line(f"{made} in {told['seconds']:.0f} s, {_ENDS[told['ended']]}", GOOD if told["calls"] else "–", 2)
    for signal, provider in told.get("providers", {}).items():
        readers = ", ".join(name for name, _ in told["readers"]) if signal == "metrics" else ""
        kind = "no provider" if provider is None else provider.rpartition(".")[2]
        line(f"{signal}: {kind}{f' with {readers}' if readers else ''}", GOOD if provider else "–", 2)
    _models(console, told)


_ENDS = {"finished": "then it ended", "predictions": "which was enough", "time": "then time was up"}


def _models(console: Console, told: Mapping[str, Any]) -> None:
    line = _line(console)
    models = told.get("models", ())
    for one in models:
        variant = f" variant {one['variant']}" if one["variant"] else ""
        made = ", ".join([*one["operations"], amount(one["calls"], "call"), amount(one["rows"], "row")])
        line(f"{one['name']} {one['version']}{variant}: {made}", GOOD, 2)
        line(f"baseline {one['baseline'] or 'none'}", "", 4)
        line(f"{one['now']:,} series now, {_at_most(one['series'])}", "", 4)
    _in_sum(console, [one["series"] for one in models])


def _findings(console: Console, findings: Iterable[Finding]) -> None:
    line = _line(console)
    findings = sorted(findings, key=lambda one: not one.broken)
    broken = sum(one.broken for one in findings)
    _title(console, amount(broken, "problem") if broken else "nothing is broken")
    for one in findings:
        line(one.what, BAD if one.broken else NOTE, 2)
        line(f"why: {one.why}", "", 4)
        line(f"do:  {one.todo}", "", 4)
