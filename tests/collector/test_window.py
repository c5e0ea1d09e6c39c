"""Windows: how they are cut and what lies in their panes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pointbatches import HOUR, S

from otel_ml.errors import ConfigurationError
from otel_ml_collector.window import PANES, Panes, WindowSpec, condense, steps_between


def add(panes: Panes, time: int, *counts: int) -> None:
    panes.add(np.full(len(counts), time), np.arange(len(counts)), np.array(counts))


def total(panes: Panes, start: int, end: int, cells: int = 1) -> list[int]:
    _, matrix = panes.gather(np.arange(cells), start, end, width=1)
    return matrix.sum(axis=0).tolist()  # type: ignore[no-any-return]


def test_default_windows_have_hourly_panes() -> None:
    """24 h by 1 h: hours for the window, 24 parts of an hour for the fast lane, three days kept."""
    spec = WindowSpec()
    assert (spec.coarse_ns, spec.fine_ns, spec.reach_ns) == (HOUR, 150 * S, 72 * HOUR)
    assert spec.expiry_ns == 120 * HOUR


@pytest.mark.parametrize(
    ("length", "step", "fast"),
    [(2, 0.5, 0.5), (86400, 86400, 3600), (7, 1, 3), (0.007, 0.007, 0.001), (720, 24, 1e6)],
)
def test_panes_divide_windows_of_any_size(length: float, step: float, fast: float) -> None:
    """Steps are whole coarse panes, these are whole fine ones, and a window has enough of them."""
    spec = WindowSpec(length=length, step=step, fast_length=fast)
    assert spec.step_ns % spec.coarse_ns == 0
    assert spec.coarse_ns % spec.fine_ns == 0
    assert spec.length_ns // spec.coarse_ns >= PANES
    assert spec.length_ns // spec.coarse_ns < 4 * PANES or spec.coarse_ns == spec.step_ns
    assert spec.fine_ns * PANES <= fast * 1e9 or spec.fine_ns == spec.coarse_ns


def test_a_fast_lane_longer_than_the_window_costs_nothing() -> None:
    """It has no effect, so no fine panes are kept for it."""
    spec = WindowSpec(length=2, step=0.5, fast_length=3600)
    assert (spec.fast_ns, spec.fine_ns) == (0, spec.coarse_ns)
    panes = Panes(spec)
    for k in range(1, 2000):
        add(panes, k * S // 5, 1)
        panes.roll(k * S // 5)
    assert len(panes) < spec.reach_ns // spec.coarse_ns + 100


def test_a_tumbling_window_steps_by_its_length() -> None:
    """Its step need not be given and cannot differ."""
    assert WindowSpec(type="tumbling", length=7200).step == 7200


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"type": "hopping"}, "window type 'hopping' is not known"),
        ({"length": 5400.0}, "window length 5400 s is not a whole number of steps of 3600 s"),
        ({"length": 0.0}, "window length is 0.0 s; it must be at least 0.001 s"),
        ({"step": float("nan")}, "window step is nan s"),
        ({"lateness": -1.0}, "window lateness is -1.0; it cannot be negative"),
    ],
)
def test_a_window_that_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    """The message names the value and what would do."""
    with pytest.raises(ConfigurationError) as error:
        WindowSpec(**given)
    assert said in str(error.value)


def test_growth_is_bounded_in_steps() -> None:
    """Half-second steps do not keep three days of panes."""
    assert WindowSpec(length=2, step=0.5).reach_ns == 84 * S


def test_steps_are_multiples_of_the_step() -> None:
    """Counted from the epoch, without the left end and with the right one."""
    assert list(steps_between(3, 9, 3)) == [6, 9]
    assert list(steps_between(0, 2, 3)) == []


def test_a_window_is_open_at_its_start_and_closed_at_its_end() -> None:
    """Counts at both ends, just inside and just outside."""
    panes = Panes(WindowSpec(length=24, step=1, fast_length=24))
    for time, count in ((10 * S, 1), (10 * S + 1, 10), (34 * S, 100), (34 * S + 1, 1000)):
        add(panes, time, count)
    assert total(panes, 10 * S, 34 * S) == [110]


def test_panes_sum_what_was_added_however_often_they_roll() -> None:
    """Windows of random counts equal a sum over the list of all of them."""
    rng = np.random.default_rng(1)
    spec = WindowSpec(length=12, step=2, lateness=0, max_age=16, fast_length=1)
    panes = Panes(spec)
    times = np.sort(rng.integers(1, 60 * S, 3000))
    cells, counts = rng.integers(0, 5, 3000), rng.integers(1, 9, 3000)
    for now in range(2 * S, 60 * S, 2 * S):
        new = (times > now - 2 * S) & (times <= now)
        panes.add(times[new], cells[new], counts[new])
        panes.roll(now)
        for length in (2, 12, 16):
            inside = (times > now - length * S) & (times <= now)
            expected = np.bincount(cells[inside], counts[inside], 5).astype(int).tolist()
            assert total(panes, now - length * S, now, 5) == expected
    assert len(panes) < 80


def test_gathered_panes_are_in_the_order_of_time() -> None:
    """Coarse ones first, each with its start."""
    panes = Panes(WindowSpec(length=24, step=1, max_age=24, fast_length=1))
    for second in range(20):
        add(panes, second * S + 1, second)
    panes.roll(20 * S)
    starts, matrix = panes.gather(np.array([0]), 0, 20 * S, width=S)
    assert (starts // S).tolist() == matrix[:, 0].tolist() == list(range(20))


def test_fine_panes_are_gathered_as_wide_as_coarse_ones() -> None:
    """How finely the newest rows are kept does not show in a window's panes."""
    spec = WindowSpec(length=24, step=1, max_age=24, fast_length=1)
    panes = Panes(spec)
    for k in range(240):
        add(panes, k * S // 10 + 1, 1)
    panes.roll(24 * S)
    starts, matrix = panes.gather(np.array([0]), 0, 24 * S, width=spec.coarse_ns)
    assert (starts // S).tolist() == list(range(24))
    assert matrix[:, 0].tolist() == [10] * 24
    assert len(panes.gather(np.array([0]), 23 * S, 24 * S, width=spec.fine_ns)[0]) == 10


def test_keeping_cells_renumbers_them_in_every_pane() -> None:
    """What is not kept is forgotten, the order may change."""
    panes = Panes(WindowSpec(length=24, step=1, max_age=24, fast_length=1))
    add(panes, 1, 1, 2, 3)
    panes.roll(10 * S)
    add(panes, 10 * S, 10, 20)
    panes.keep(np.array([2, 0]))
    assert total(panes, 0, 10 * S, 2) == [3, 11]


def test_counts_of_any_size_are_kept_exactly() -> None:
    """Panes at rest are kept in 32 bits where these are enough, and hold what is added later all the same."""
    spec = WindowSpec(length=24, step=1, fast_length=1, max_age=24)
    panes = Panes(spec)
    most = 2**31 - 1
    add(panes, T := 1000 * S, most, 1, 2**40)
    add(panes, T + S, most, 2, 0)
    panes.roll(T + 5 * S)
    add(panes, T, 1, 3)  # late
    add(panes, T + S, most, 0, 7)
    panes.roll(T + 7 * S)
    assert total(panes, T - S, T, 3) == [most + 1, 4, 2**40]
    assert total(panes, T, T + S, 3) == [2 * most, 2, 7]
    panes.keep(np.array([2, 0]))
    add(panes, T + S, 5)
    assert total(panes, T - S, T + S, 2) == [2**40 + 12, 3 * most + 1]


def test_condensed_panes_keep_their_counts() -> None:
    """Up to 47 panes stay; more are added up in neighbouring groups."""
    few, many = np.arange(94).reshape(47, 2), np.arange(1000).reshape(500, 2)
    assert condense(few) is few
    assert PANES <= len(condense(many)) < 2 * PANES
    assert condense(many).sum(axis=0).tolist() == many.sum(axis=0).tolist()
