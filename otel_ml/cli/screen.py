"""What the demo shows: a table that is redrawn on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import semconv
from .scrape import Verdict

_BARS = " ▁▂▃▄▅▆▇█"
_STYLES = ("green", "yellow", "bold red")


def bars(shares: Sequence[float]) -> str:
    """Shares as a row of small bars, the tallest at full height."""
    top = max(shares, default=0.0)
    if top <= 0:
        return ""
    return "".join(_BARS[max(1, round(share / top * 8)) if share > 0 else 0] for share in shares)


def number(value: float | None, form: str = ".3f") -> str:
    """A number, or a dash for one that is not known yet."""
    return "–" if value is None else format(value, form)


def status(verdict: Verdict) -> Text:
    """The status in its colour, with the reason's code."""
    if verdict.status is None:
        return Text(f"waiting ({verdict.reason})" if verdict.reason else "waiting", style="dim")
    name = semconv.STATUSES[verdict.status]
    shown = name if verdict.reason in ("", "ok") else f"{name} ({verdict.reason})"
    return Text(shown, style=_STYLES[verdict.status])


def table(verdicts: Mapping[str, Verdict], reference: Mapping[str, Sequence[float]]) -> Table:
    """One line a feature: reference and current as bars, PSI, KS, missing, status."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "reference", "current"):
        made.add_column(title)
    for title in ("PSI", "KS", "missing"):
        made.add_column(title, justify="right")
    made.add_column("status")
    for name in [*reference, *(name for name in verdicts if name not in reference)]:
        verdict = verdicts.get(name, Verdict())
        missing = "" if verdict.missing is None else format(verdict.missing, ".0%")
        before = bars(verdict.bins.get("baseline", reference.get(name, ())))
        current = bars(verdict.bins.get("current", ()))
        made.add_row(name, before, current, number(verdict.psi), number(verdict.ks), missing, status(verdict))
    return made


class Screen:
    """Shows the demo's progress. On a terminal the table is live; elsewhere every change of status is a line."""

    def __init__(self, console: Console, hours: int, reference: Mapping[str, Sequence[float]]) -> None:
        self._console = console
        self._hours = hours
        self._reference = reference
        self._live = (
            Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, hour: float, rows: int, verdicts: Mapping[str, Verdict]) -> None:
        """Redraw; without a terminal nothing is said here."""
        if self._live is not None:
            head = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=self._hours, completed=hour, width=30)
            head.add_row(bar, f"hour {hour:2.0f} of {self._hours}   {rows:,} predictions")
            self._live.update(Group(head, table(verdicts, self._reference)))

    def progress(self, hour: float, rows: int) -> None:
        """One line of progress where nothing is redrawn."""
        if self._live is None:
            self._console.print(f"hour {hour:2.0f} of {self._hours}  {rows:,} predictions", style="dim")

    def tell(self, hour: float, text: str) -> None:
        """A line of the story."""
        self._console.print(f"hour {hour:2.0f}  {text}", style="italic", soft_wrap=True)

    def turned(self, hour: float, name: str, verdict: Verdict) -> None:
        """Say that the status of a target changed, with both sides as bars where there are any."""
        line = Text(f"hour {hour:2.0f}  {name:<6} ").append_text(status(verdict))
        line.append(f"  PSI {number(verdict.psi)}  KS {number(verdict.ks)}")
        if verdict.missing:
            line.append(f"  missing {verdict.missing:.0%}")
        self._console.print(line, soft_wrap=True)
        if verdict.status:
            for side, label in (("baseline", "reference"), ("current", "current")):
                if side in verdict.bins:
                    self._console.print(f"         {label:<10} {bars(verdict.bins[side])}", style="dim")
