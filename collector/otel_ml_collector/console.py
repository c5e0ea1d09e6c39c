"""Evaluations as lines for a person at a console: what the debug exporter prints."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from queue import Full, Queue
from typing import Literal, TextIO

import numpy as np
from numpy.typing import NDArray

from otel_ml.semconv import STATUSES

from .emit import Judged
from .evaluation import Evaluation, TargetEvaluation

Verbosity = Literal["basic", "normal", "detailed"]

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = ("psi", "ks")
_DRIFT = ("psi", "ks", "spike", "slow", "state")
"""Reasons that stand for drift."""
_NAMED = 3
"""Targets without a baseline that a headline names."""
_WAITING = 16
"""Exports that may wait for a console that does not read."""


class ConsoleExporter:
    """Prints evaluations from a thread of its own: a pipe that nobody reads must not hold up the service."""

    def __init__(self, verbosity: Verbosity, out: TextIO) -> None:
        self._verbosity, self._out = verbosity, out
        self._texts: Queue[str | None] = Queue(_WAITING)
        self._thread = threading.Thread(target=self._print, name="console", daemon=True)
        self._thread.start()

    def export(self, evaluations: Iterable[Evaluation], held: Collection[Judged] = ()) -> None:
        """Print these evaluations when their turn comes; they are left out when too much waits already."""
        text = "\n".join(_printable(line) for line in lines(evaluations, self._verbosity, held))
        if text:
            with contextlib.suppress(Full):
                self._texts.put_nowait(text)

    def stop(self, grace: float) -> None:
        """Print what waits, for up to `grace` seconds."""
        with contextlib.suppress(Full):
            self._texts.put_nowait(None)
        self._thread.join(grace)

    def _print(self) -> None:
        # OSError: the reader of the pipe is gone; ValueError: the file is closed.
        with contextlib.suppress(OSError, ValueError):
            while (text := self._texts.get()) is not None:
                print(text, file=self._out, flush=True)


def _printable(line: str) -> str:
    """The line without what would move the cursor: names come from senders."""
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


def lines(
    evaluations: Iterable[Evaluation], verbosity: Verbosity, held: Collection[Judged] = ()
) -> list[str]:
    """One line a model, and below it one a target: each that is not ok or about not to be (normal), or all (detailed).

    `held` are targets that had a verdict before: theirs is shown while the window is too small for a new one.
    """
    return [line for evaluation in evaluations for line in _of_evaluation(evaluation, verbosity, held)]


def _of_evaluation(evaluation: Evaluation, verbosity: Verbosity, held: Collection[Judged]) -> Iterator[str]:
    judged = [
        (target, _status(evaluation, target, held))
        for target in sorted(evaluation.targets, key=lambda one: (-one.status, one.target))
    ]
    yield _headline(evaluation, judged)
    for target, status in judged:
        if verbosity == "detailed" or (verbosity == "normal" and (target.status > 0 or _moves(target))):
            yield _row(target, status)


def _moves(target: TargetEvaluation) -> bool:
    """Whether a target that is ok would not be, had the verdict its turn; its detail says when that is."""
    return target.evaluated and target.reason.partition(":")[0] in _DRIFT


def _status(evaluation: Evaluation, target: TargetEvaluation, held: Collection[Judged]) -> str:
    known = target.evaluated or (evaluation.model, evaluation.window_name, target.target) in held
    return STATUSES[target.status] if known or target.status else "waiting"


def _headline(evaluation: Evaluation, judged: Sequence[tuple[TargetEvaluation, str]]) -> str:
    key, statuses = evaluation.model, [status for _, status in judged]
    counted = [f"{statuses.count(name)} {name}" for name in reversed(STATUSES) if name in statuses]
    if "waiting" in statuses:
        reasons = {target.reason for target, status in judged if status == "waiting"}
        said = ", ".join(reason + _without_baseline(judged, reason) for reason in sorted(reasons))
        counted.append(f"{statuses.count('waiting')} waiting ({said})")
    where = "/".join(part for part in (key.service_namespace, key.service_name) if part)
    variant = f" [{key.variant or key.role}]" if key.variant or key.role != "live" else ""
    return (
        f"{key.model} {key.version}{variant}{f' in {where}' if where else ''}: "
        f"{_time(evaluation.window_start)} to {_time(evaluation.window_end)} UTC, {evaluation.rows} rows, "
        f"{', '.join(counted) or 'nothing to compare'}{_activity(evaluation)}"
    )


def _without_baseline(judged: Sequence[tuple[TargetEvaluation, str]], reason: str) -> str:
    """Of targets that wait for a baseline the first few names: somebody has to send one."""
    if reason != "no_baseline":
        return ""
    waiting = [one for one, status in judged if status == "waiting" and one.reason == reason]
    more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
    return f": {', '.join(map(_name, waiting[:_NAMED]))}{more}"


def _activity(evaluation: Evaluation) -> str:
    """What is wrong with the rows of a model, for its headline."""
    activity = evaluation.activity
    if activity is None:
        return ""
    said = [activity.detail] if activity.status else []
    said += [f"{target.name} is not sent any more" for target in activity.vanished]
    return "".join(f"; {one}" for one in said)


def _row(target: TargetEvaluation, status: str) -> str:
    numbers = "  ".join(f"{key} {target.statistics[key]:.3f}" for key in _SHOWN if key in target.statistics)
    parts = [
        f"  {status:<8} {_name(target):<28}",
        f"{numbers:<21}",
        _both(target),
        target.detail or target.reason,
    ]
    return "  ".join(part for part in parts if part).rstrip()


def _name(target: TargetEvaluation) -> str:
    name = f"{target.target.kind} {target.target.name}".strip()
    return f"{name} [{'='.join(target.target.segment)}]" if target.target.segment else name


def _both(target: TargetEvaluation) -> str:
    if target.bins is None:
        return ""
    top = max(float(target.bins.reference.max(initial=0)), float(target.bins.current.max(initial=0)))
    return f"{bars(target.bins.reference, top)} → {bars(target.bins.current, top)}"


def bars(shares: NDArray[np.float64], top: float) -> str:
    """One bar a share, `top` the full height."""
    if not top > 0:
        return _BARS[0] * len(shares)
    heights = np.ceil(np.clip(shares / top, 0, 1) * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights)


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
