"""An engine that goes on from a snapshot says what the one would have said that it was taken of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pointbatches import (
    AGE,
    BOUNDS,
    EVEN,
    POLICY,
    SHORT,
    T0,
    P,
    S,
    batch,
    engine,
    exponential,
    reference,
    series,
)

from otel_ml import Baseline, semconv
from otel_ml.errors import ConfigurationError
from otel_ml_collector.engine import Engine, Limits
from otel_ml_collector.snapshot import CLASSES, pack, unpack
from otel_ml_collector.verdict import Held
from otel_ml_collector.window import HOUR, WindowSpec

PLAIN = (bool, int, float, str, type(None), np.ndarray)
TUMBLING = WindowSpec(type="tumbling", length=4, lateness=1, max_age=8, refresh=0.5, fast_length=1)
HOURLY = WindowSpec(length=4 * 3600, step=3600, lateness=60, max_age=8 * 3600, refresh=600, fast_length=3600)
PASTS: list[tuple[WindowSpec, dict[str, Any]]] = [
    (SHORT, {}),
    (TUMBLING, {"past": "previous"}),
    (replace(SHORT, history=20.0), {"past": "rolling"}),
    (SHORT, {"past": "learned", "learn_rows": 500}),
    (HOURLY, {"past": "seasonal"}),
    (replace(SHORT, type="decayed", length=4), {}),
    (replace(SHORT, type="count", rows=700), {"limits": Limits(max_streams=30, max_groups=12)}),
]


def text(value: object) -> str:
    """Everything there is in evaluations or a snapshot, as text."""
    return json.dumps(pack(value), default=lambda one: [one.dtype.str, one.tolist()])


def traffic(rng: np.random.Generator, k: int, unit: int) -> list[P]:
    """Points of interval `k`: pods that come, restart and go, segments, categories, exponentials; some late."""
    now, points = T0 + k * unit, []
    for pod in range(4):
        born = T0 + (pod * 15 + (k - pod * 15) // 25 * 25) * unit  # one starts anew every 25 intervals
        if k < pod * 15 or (pod == 2 and k > 50):
            continue
        age, shift = (k * unit + T0 - born) // unit + 1, (k > 40) * 8
        grown = (10 + shift * np.arange(6)) * age
        late = int(rng.integers(0, 3)) * unit // 2
        for region in ("eu", "us"):
            at = series(semconv.FEATURE_VALUE, feature_name="age", pod=str(pod))
            cut = tuple(sorted([*at.attributes, (semconv.SEGMENT_PREFIX + "region", region)]))
            points.append(P(replace(at, attributes=cut), born, now - late, tuple(grown.tolist()), BOUNDS))
        layout, filled = exponential(rng.normal(shift, 1 + k % 3, 20), 30)
        income = series(semconv.FEATURE_VALUE, feature_name="income", pod=str(pod))
        points.append(P(income, now - unit, now, tuple(filled.tolist()), layout, 1))
        for name, rows in (("basic", 40 * age), (f"new{k % 7}", 5)):
            plan = series(
                semconv.FEATURE_CATEGORIES, feature_name="plan", feature_category=name, pod=str(pod)
            )
            points.append(P(plan, born, now, (rows,)))
        points.append(P(series(semconv.INFERENCE_ROWS, pod=str(pod)), born, now, (int(grown.sum()),)))
    return points + (reference(EVEN, now) if k % 20 == 3 else [])


def run(made: Callable[[], Engine], unit: int, *, anew: Sequence[int], steps: int = 64) -> list[str]:
    """What an engine says at every interval; after those of `anew` another goes on from its snapshot."""
    into, rng, said = made(), np.random.default_rng(7), []
    for k in range(steps):
        now = T0 + k * unit + unit // 4
        rejected = dict(into.ingest(batch(traffic(rng, k, unit)), now))
        found = into.advance(now)
        if k in anew:
            taken, into = into.snapshot(), made()
            into.restore(taken)
        said.append(
            text([rejected, found, list(into.current(now)), into.messages(), into.counters(), into.stats()])
        )
    return said


@pytest.mark.parametrize(("window", "more"), PASTS, ids=lambda one: getattr(one, "type", None))
def test_nothing_changes_when_another_engine_goes_on(window: WindowSpec, more: dict[str, Any]) -> None:
    """Streams, panes, verdicts, sums, baselines and references of the past: at every interval, or now and then."""
    unit = HOUR if window is HOURLY else S // 2
    steps = 24 * 9 if window is HOURLY else 64

    def made() -> Engine:
        return engine(window, POLICY, **more)

    expected = run(made, unit, anew=(), steps=steps)
    assert any('"status": 2' in one for one in expected)
    every = range(0, steps, 40 if window is HOURLY else 1 if window is SHORT and not more else 5)
    assert run(made, unit, anew=every, steps=steps) == expected


def walk(plain: object) -> None:
    """Fail on what is not plain."""
    if isinstance(plain, dict):
        assert all(type(key) is str for key in plain)
        for one in plain.values():
            walk(one)
    elif isinstance(plain, list):
        for one in plain:
            walk(one)
    else:
        assert type(plain) in PLAIN


def test_a_snapshot_is_plain_and_stays_as_it_is() -> None:
    """No object of ours is in it, and what the engine does afterwards, or one that was restored, does not reach it."""
    into, rng = engine(), np.random.default_rng(1)
    for k in range(30):
        into.ingest(batch(traffic(rng, k, S)), T0 + k * S)
        into.advance(T0 + k * S)
    taken = into.snapshot()
    walk(taken)
    before = text(taken)
    other = engine()
    other.restore(taken)
    for k in range(30, 50):
        points = batch(traffic(rng, k, S))
        for one in (into, other):
            one.ingest(points, T0 + k * S)
            one.advance(T0 + k * S)
    assert text(taken) == before
    assert text(into.snapshot()) == text(other.snapshot()) != before


@pytest.mark.parametrize(("window", "more"), PASTS, ids=lambda one: getattr(one, "type", None))
def test_what_was_captured_stays_as_it_is(window: WindowSpec, more: dict[str, Any]) -> None:
    """It is written down in another thread, while the engine goes on to count, to add panes up and to expire."""
    unit = HOUR if window is HOURLY else S // 2
    into, rng, taken = engine(window, POLICY, **more), np.random.default_rng(7), []
    for k in range(24 * 9 if window is HOURLY else 64):
        now = T0 + k * unit + unit // 4
        into.ingest(batch(traffic(rng, k, unit)), now)
        if k % 14 == 3:  # with points that wait
            taken.append((captured := into.capture(), text(captured)))
        into.advance(now)
        if k % 14 == 10:
            taken.append((captured := into.capture(), text(captured)))
    assert len({before for _, before in taken}) == len(taken) > 8
    assert all(text(captured) == before for captured, before in taken)


def test_windows_that_were_evaluated_are_not_evaluated_again() -> None:
    """The ends up to which windows were closed are part of the state."""
    into = engine()
    into.ingest(batch(reference(EVEN, T0)), T0)
    into.ingest(batch(traffic(np.random.default_rng(1), 5, S)), T0 + 5 * S)
    ends = [one.window_end for one in into.advance(T0 + 9 * S) if one.final]
    other = engine()
    other.restore(into.snapshot())
    again = [one.window_end for one in other.advance(T0 + 12 * S) if one.final]
    assert ends
    assert min(again) > max(ends)


def test_files_are_not_part_of_it() -> None:
    """An engine that goes on compares with the baselines of its own files."""
    values = np.repeat([-2.0, -0.7, -0.2, 0.3, 0.8, 40.0], 100)
    known = Baseline.fit({"age": values}, model="churn", version="3")
    into, other = engine(baselines=[known]), engine()
    points = traffic(np.random.default_rng(1), 5, S)
    into.ingest(batch(points), T0 + 5 * S)
    other.restore(into.snapshot())
    (found,) = [one for one in into.advance(T0 + 7 * S + S // 2) if one.final][-1:]
    (without,) = [one for one in other.advance(T0 + 7 * S + S // 2) if one.final][-1:]
    assert {t.target: t.reason for t in without.targets}[AGE] == "no_baseline"
    assert {t.target: t.evaluated for t in found.targets}[AGE]


def test_references_of_another_kind_of_past_are_made_anew() -> None:
    """What was learned is no previous window."""
    into = engine(TUMBLING, POLICY, past="learned", learn_rows=100)
    for k in range(4, 16):  # no baseline is sent then
        into.ingest(batch(traffic(np.random.default_rng(1), k, S)), T0 + k * S)
        into.advance(T0 + k * S)
    other = engine(TUMBLING, POLICY, past="previous")
    other.restore(into.snapshot())
    assert {one.baseline_id for one in other.advance(T0 + 18 * S)} == {"previous"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "the snapshot has schema 99, this version reads 1; start empty"),
        (
            {"panes": replace(SHORT, length=60)},
            "the snapshot has panes of 0.0400 and 2 s, this window needs 0.04 and 0.4 s; "
            "keep length and step of the window, or start empty",
        ),
    ],
    ids=["schema", "width"],
)
def test_a_snapshot_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    """With the way out; and the engine is as it was."""
    taken = engine(change["panes"]).snapshot() if "panes" in change else {**engine().snapshot(), **change}
    into = engine()
    with pytest.raises(ConfigurationError) as raised:
        into.restore(taken)
    assert str(raised.value) == message.replace("0.0400", "0.04")
    assert into.stats() == engine().stats()


def test_values_are_what_they_were() -> None:
    """Tuples, keys that are no strings, maps of one entry, floats to the last bit."""
    values: list[Any] = [
        (1, "a", None, True, 0.1), tuple(np.random.default_rng(1).normal(size=9).tolist()), {}, {"x": 1},
        {"a": 1, "b": (2,)}, {(1.5, "k"): {3: 4}}, {("a", "b")}, [(), []], Held(1, 2, 3), {"tuple": 5}, {"map": 1},
    ]  # fmt: skip
    assert unpack(pack(values)) == values
    assert [type(one) for one in unpack(pack(values))] == [type(one) for one in values]


def test_only_what_is_known_is_packed_and_made() -> None:
    """Anything else is an error of ours, or no snapshot."""
    with pytest.raises(TypeError, match=r"a snapshot cannot hold .*; add it to snapshot\.CLASSES"):
        pack([object()])
    with pytest.raises(KeyError):
        unpack({"Popen": {"args": "true"}})
    assert all(name == known.__name__ for name, known in CLASSES.items())
