"""A baseline, and what differs between two, as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..baseline import LARGEST_KS_ERROR, ROWS_FOR_A_VERDICT, Baseline
from ..summary import CategoricalSummary, NumericSummary, Summary
from .comparison import Change, statistics
from .screen import bars

_BARS = 12
_NAMED = 3
_STYLES = {
    "ok": "green",
    "warning": "yellow",
    "drifted": "bold red",
    "new": "cyan",
    "gone": "magenta",
    "retyped": "magenta",
}


def print_baseline(console: Console, baseline: Baseline) -> None:
    """Head, a line a feature and output, and what to look out for."""
    made = f"made {baseline.created_at:%Y-%m-%d %H:%M} UTC"
    console.print(f"[bold]{escape(baseline.model)}[/bold] {escape(baseline.version)}", highlight=False)
    console.print(f"{baseline.rows:,} rows, {made}, id {baseline.id}", highlight=False)
    for key in ("owner", "description", "intended_use"):
        if text := getattr(baseline, key):
            console.print(f"{key.replace('_', ' ')}: {escape(text)}", highlight=False, soft_wrap=True)
    console.print()
    console.print(_summaries(baseline))
    if baseline.projections:
        console.print(
            f"{len(baseline.projections)} projections for joint drift", style="dim", highlight=False
        )
    for line in _warnings(baseline):
        console.print(f"warning: {escape(line)}", style="yellow", soft_wrap=True, highlight=False)


def print_comparison(console: Console, a: Baseline, b: Baseline, changes: Sequence[Change]) -> None:
    """A line a feature and output, and what the marks mean."""
    for label, side in (("reference", a), ("current", b)):
        name = f"{escape(side.model)} {escape(side.version)}"
        console.print(f"{label:<9} [bold]{name}[/bold], {side.rows:,} rows, id {side.id}", highlight=False)
    console.print()
    console.print(_changes(changes))
    for line in _notes(changes):
        console.print(line, style="dim", soft_wrap=True, highlight=False)


def _table(*titles: str, right: Iterable[str]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    to_the_right = set(right)
    for title in titles:
        made.add_column(
            title, justify="right" if title in to_the_right else "left", no_wrap=title == "feature"
        )
    return made


def _summaries(baseline: Baseline) -> Table:
    made = _table("feature", "kind", "missing", "mean", "range", "shape", "", right=("missing", "mean"))
    for name, summary in baseline.features.items():
        made.add_row(escape(name), *_described(summary))
    left_out = [name for name in baseline.columns if name not in baseline.features]
    for name in left_out:
        made.add_row(escape(name), "excluded", *[""] * 5, style="dim")
    for key in ("scores", "predictions", "outcomes", "uncertainty"):
        if summary := getattr(baseline, key):
            made.add_row(f"<{key}>", *_described(summary), style="italic")
    return made


def _described(summary: Summary) -> tuple[str, ...]:
    missing = _share(summary.missing / max(summary.n, 1))
    if isinstance(summary, NumericSummary):
        span = f"{_number(summary.min)} … {_number(summary.max)}"
        return "numeric", missing, _number(summary.mean), span, bars(shape(summary)), _remark(summary)
    if isinstance(summary, CategoricalSummary):
        more = "" if summary.complete else " + others"
        return (
            "categorical",
            missing,
            "",
            f"{len(summary.categories)}{more}",
            _category_bars(summary),
            _top(summary),
        )
    return "opaque", missing, "", "", "", ""


def shape(summary: NumericSummary) -> list[float]:
    """Rows in cells of equal width, those of a bucket spread evenly over it.

    Buckets hold about equal numbers of rows, so their counts show no shape. The cells reach from the smallest to
    the largest value, but not far beyond the outer bounds: a few outliers would squeeze everything into one.
    """
    low, high, bounds = summary.min, summary.max, summary.bounds
    if low == high:
        return [1.0]
    if len(bounds) and (span := bounds[-1] / 4 - bounds[0] / 4) > 0:
        low, high = max(low, float(bounds[0] - span)), min(high, float(bounds[-1] + span))
    known = np.concatenate([[summary.min], np.clip(bounds, summary.min, summary.max), [summary.max]])
    below = np.concatenate([[0], np.cumsum(summary.bucket_counts)])
    return [float(rows) for rows in np.diff(np.interp(np.linspace(low, high, _BARS + 1), known, below))]


def _category_bars(summary: CategoricalSummary) -> str:
    return bars([*map(float, summary.categories.values()), float(summary.other)][:_BARS])


def _top(summary: CategoricalSummary) -> str:
    present = max(summary.n - summary.missing, 1)
    listed = list(summary.categories.items())[:_NAMED]
    return escape(", ".join(f"{name} {_share(rows / present)}" for name, rows in listed))


def _remark(summary: NumericSummary) -> str:
    return f"[yellow]ks_error {summary.ks_error:.3f}[/yellow]" if summary.ks_error > LARGEST_KS_ERROR else ""


def _warnings(baseline: Baseline) -> Iterable[str]:
    if baseline.rows < ROWS_FOR_A_VERDICT:
        yield f"{baseline.rows} rows; drift verdicts need {ROWS_FOR_A_VERDICT}, about 5000 make them reliable"
    numeric = [
        s
        for s in (*baseline.features.values(), baseline.scores, baseline.uncertainty)
        if isinstance(s, NumericSummary)
    ]
    if any(summary.ks_error > LARGEST_KS_ERROR for summary in numeric):
        yield (
            f"where ks_error is above {LARGEST_KS_ERROR} one bucket holds that share of the rows, and a change "
            "within it is not seen; make the baseline with resolution fine"
        )


def _changes(changes: Iterable[Change]) -> Table:
    made = _table("feature", "kind", "PSI", "KS", "mean", "missing", "status", right=("PSI", "KS", "mean"))
    for change in changes:
        style = _STYLES[change.status]
        made.add_row(escape(change.name), *_numbers(change), f"[{style}]{change.status}[/{style}]")
    return made


def _numbers(change: Change) -> tuple[str, ...]:
    before, after = change.before, change.after
    if before is None or after is None or before.kind != after.kind:
        kinds = [summary.kind for summary in (before, after) if summary is not None]
        return (" → ".join(kinds), "", "", "", "")
    psi = "–" if change.psi is None else f"{change.psi:.3f}"
    ks = "–" if change.ks is None else f"{'≥ ' if change.at_least else ''}{change.ks:.3f}"
    shift = "" if change.shift is None else f"{change.shift:+.2f} σ"
    return before.kind, psi, ks, shift, _arrow(*map(_share, change.missing))


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _notes(changes: Iterable[Change]) -> Iterable[str]:
    changes = list(changes)
    if any(change.at_least for change in changes):
        yield (
            "≥: the two baselines have their own bounds, so this is the least KS can be. To compare exactly, count "
            "the newer rows on the older bounds: Baseline.load(…).count(X)"
        )
    if statistics() is None:
        yield "PSI needs the collector's statistics: pip install 'otel-ml[collector]'"


def _share(share: float) -> str:
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share else "0%"


def _number(value: float) -> str:
    return f"{value:.4g}"
