"""Whether rows keep coming as they use to: a model gone silent, a feature that vanished, an unusual volume.

The usual volume of an hour is what the same hour of the week had in up to `WEEKS` past weeks, or, before there are
two of these, the same hour of the day in the past week. An hour is unusual only when it lies beyond *all* of them
by a factor, by more than they differ among themselves, and beyond what chance does to a count: volumes differ from
week to week far more than Poisson's law allows. It is a warning when two hours in a row are. Silence is judged by what
should have come in it, so that a model that sleeps at night is not silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import median

from otel_ml import semconv

from .evaluation import Activity, Target
from .groups import Monitored
from .window import HOUR

WEEKS = 4
FACTORS = (2.0, 10.0)
"""How far from every past hour of its kind an hour is a warning, and drifted."""
MIN_ROWS = 20
"""Rows that should have come for their absence to mean something: chance leaves out as many in e⁻²⁰."""
VANISHED = HOUR
"""How long (ns) a feature may be missing while its model has rows."""

_DAY, _WEEK = 24, 168
_WARNING, _DRIFTED = (semconv.STATUSES.index(name) for name in ("warning", "drifted"))


def activity(model: Monitored, now: int) -> Activity | None:
    """What the rows of a model say at `now` (Unix ns, up to which all have come); None when it counts none."""
    if not model.hours:
        return None
    rows, past = _last_hour(model.hours, now)
    usual = float(median(past)) if past else None
    status, reason, detail = _silence(model, now) or _volume(model.hours, now // HOUR - 1)
    return Activity(
        age=max(0.0, (now - model.last) / 1e9),
        rows=rows,
        usual=usual,
        status=status,
        reason=reason,
        detail=detail,
        vanished=_vanished(model),
    )


def forget(model: Monitored, now: int) -> None:
    """Let go of hours that are no longer usual."""
    oldest = now // HOUR - (WEEKS + 1) * _WEEK
    for hour in [hour for hour in model.hours if hour < oldest]:
        del model.hours[hour]


def _last_hour(hours: Mapping[int, int], now: int) -> tuple[int, list[int]]:
    """Rows of the last full hour, and of those like it."""
    hour = now // HOUR - 1
    return hours.get(hour, 0), _like(hours, hour)


def _like(hours: Mapping[int, int], hour: int) -> list[int]:
    """Rows of past hours of the same kind, since the first hour there is."""
    first = min(hours)
    weekly = [hours.get(hour - k * _WEEK, 0) for k in range(1, WEEKS + 1) if hour - k * _WEEK > first]
    if len(weekly) >= 2:
        return weekly
    daily = [hours.get(hour - k * _DAY, 0) for k in range(1, 8) if hour - k * _DAY > first]
    return daily if len(daily) >= 3 else []


def _silence(model: Monitored, now: int) -> tuple[int, str, str] | None:
    """Status, reason and words of a model that should have had rows and has none."""
    quiet = range((model.last - 1) // HOUR + 1, now // HOUR)  # full hours without a row
    missed = sum(_expected(model, hour) for hour in quiet)
    if missed < MIN_ROWS:
        return None
    hours = (now - model.last) / HOUR
    return _DRIFTED, "silent", f"no rows for {hours:.1f} h in which about {missed:,.0f} would be usual"


def _expected(model: Monitored, hour: int) -> float:
    """Rows that are usual at an hour: the median of those like it, else the smallest of the day before silence."""
    past = _like(model.hours, hour)
    if past:
        return float(median(past))
    last = (model.last - 1) // HOUR
    # The hours at both ends may be cut.
    full = range(max(min(model.hours) + 1, last - _DAY), last)
    return float(min((model.hours.get(one, 0) for one in full), default=0))


def _volume(hours: Mapping[int, int], hour: int) -> tuple[int, str, str]:
    """Status, reason and words of an hour: a warning when the one before it was like that, too."""
    rows, past = hours.get(hour, 0), _like(hours, hour)
    if not past:
        return 0, "no_history", "not yet known what is usual at this hour"
    low, high, usual = min(past), max(past), float(median(past))
    words = f"{rows:,} rows in the last full hour, usual are {usual:,.0f} ({low:,} to {high:,})"
    status, reason = _unusual(rows, past)
    if status == _WARNING and _unusual(hours.get(hour - 1, 0), _like(hours, hour - 1))[1] != reason:
        return 0, "ok", words
    return status, reason, words


def _unusual(rows: int, past: Sequence[int]) -> tuple[int, str]:
    """How far an hour is from all of its kind."""
    if not past:
        return 0, "ok"
    low, high, usual = min(past), max(past), float(median(past))
    if max(rows, usual) < MIN_ROWS or abs(rows - usual) < 5 * sqrt(max(rows, usual)):
        return 0, "ok"
    # Where the same hour differs by much from day to day, it has to differ by more than that.
    ratio = high / max(1, low)
    for status, factor in ((_DRIFTED, max(FACTORS[1], ratio)), (_WARNING, max(FACTORS[0], ratio))):
        if rows * factor < low:
            return status, "volume_low"
        if rows > factor * high:
            return status, "volume_high"
    return 0, "ok"


def _vanished(model: Monitored) -> tuple[Target, ...]:
    return tuple(
        sorted(
            target
            for target, group in model.groups.items()
            if target.kind == "feature" and not target.segment and model.last - group.last > VANISHED
        )
    )
