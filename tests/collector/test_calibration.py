"""The verdict is quiet where nothing drifts and finds what does: a seeded part of `make calibration`.

Limits leave room for the few repetitions; the full tables are in docs/statistics.md.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import calibration
from benchmarks._month import Month
from benchmarks._worlds import KINDS, STEADY, Drift, Kind, world
from benchmarks.calibration import Effort

FEW = Effort(worlds=4, windows=3, feature_days=500)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "rows"), [(500, 10_000), (1_000, 500)])
def test_windows_without_drift_raise_no_alarm(kind: Kind, n: int, rows: int) -> None:
    """No alarm among 50 features, warnings included, in 12 windows against 4 small baselines."""
    assert sum(seen.alarm for seen in calibration.windows(kind, n, rows, FEW)) == 0


def test_the_fixed_rule_alarms_where_ours_does_not() -> None:
    """PSI ≥ 0.1 is noise in windows of 200 rows: the comparison is with a rule that fails."""
    seen = list(calibration.windows("equal", 500, 200, FEW))
    assert all(one.fixed for one in seen)
    assert not any(one.alarm for one in seen)


@pytest.mark.parametrize("kind", ["equal", "zipf"])
def test_sessions_raise_no_alarm(kind: Kind) -> None:
    """Rows in sessions of 50 that are alike alarm in no more than one of 12 windows."""
    seen = calibration.windows(kind, 1_000, 20_000, FEW, session=50)
    assert sum(one.alarm for one in seen) <= 1


@pytest.mark.parametrize(("drift", "rows"), [case[1:] for case in calibration.POWER], ids=str)
def test_one_drifting_feature_of_fifty_is_found(drift: Drift, rows: int) -> None:
    """In 9 of 12 windows at least, against baselines of 1,000 rows."""
    seen = calibration.windows("equal", 1_000, rows, FEW, drift)
    assert sum(one.first for one in seen) >= 9


def test_the_cumulative_sum_is_quiet_without_drift() -> None:
    """No alarm in 500 feature-days."""
    assert calibration.undrifted_alarms(5_000, 200, FEW) == 0


def test_the_cumulative_sum_finds_a_fifth_of_a_deviation() -> None:
    """0.2 σ, which no single window shows, within 150 windows of 200 rows."""
    rng = np.random.default_rng(1)
    model = world("equal", rng, 5_000, features=1)
    (when,) = calibration.detections(model, rng, 200, Drift(shift=0.2), 150, 1)
    assert when is not None


def test_days_of_default_windows_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four days of hourly evaluations of ten features in the engine, no episode."""
    monkeypatch.setattr("benchmarks._month.DAYS", 4)
    statuses = Month(504, 5_000, 1, features=10, drift=STEADY).statuses()
    assert statuses.shape == (96, 10)
    assert statuses.max() == 0


def test_a_constant_drift_does_not_flap(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.35 σ by day and night traffic goes up once and stays, for a week."""
    monkeypatch.setattr("benchmarks._month.DAYS", 7)
    month = Month(1_000, 5_000, 1, features=2, drift=Drift(shift=0.35), cycle=True)
    status = month.statuses()[:, 0]
    assert np.count_nonzero(np.diff(np.append(0, status))) <= 2
    assert status[-1] >= 1
