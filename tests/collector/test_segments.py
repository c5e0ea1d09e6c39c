"""Segments: the sum over all of them, and each on its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pointbatches import (
    AGE,
    BOUNDS,
    EVEN,
    POLICY,
    SHIFTED,
    T0,
    P,
    S,
    Service,
    engine,
    finals,
    reference,
    send,
    series,
    serve,
    target,
)

from otel_ml import semconv
from otel_ml_collector import emit
from otel_ml_collector.engine import Engine
from otel_ml_collector.evaluation import Evaluation, Target
from otel_ml_collector.groups import MAX_SEGMENTS, resolve, segments
from otel_ml_collector.points import Series

EU, US = Target("feature", "age", ("region", "eu")), Target("feature", "age", ("region", "us"))


def within(at: Series, **named: str) -> Series:
    """The same series, of these segments."""
    added = [(semconv.SEGMENT_PREFIX + key, value) for key, value in named.items()]
    return Series(at.resource, at.scope, at.metric, tuple(sorted([*at.attributes, *added])), at.kind)


def known(values: Sequence[int], **named: str) -> list[P]:
    """A baseline of a segment over the wire."""
    return [P(within(p.series, **named), p.start, p.time, p.values, p.bounds) for p in reference(values, T0)]


def run(e: Engine, until: int, *parts: tuple[str, NDArray[np.int64]], since: int = T0) -> list[Evaluation]:
    """A service that counts its rows by region."""
    service, found = Service(since), []
    for now in range(since + S // 5, until + 1, S // 5):
        for region, values in parts:
            at = within(series(semconv.FEATURE_VALUE, feature_name="age"), region=region)
            key = (at, BOUNDS)
            service.totals[key] = service.totals.get(key, 0) + values
        send(e, service.report(now), now=now)
        found += e.advance(now)
    return found


FEW, SOME = np.array((4, 4, 4, 4, 4, 4)), np.array((0, 0, 0, 0, 0, 24))


def test_all_segments_are_the_sum_and_each_stands_alone() -> None:
    """Rows of a target are those of its segments together; a segment has its own numbers."""
    e = engine()
    send(e, reference(EVEN, T0), known(EVEN, region="eu"), known(EVEN, region="us"), now=T0)
    last = run(e, T0 + 12 * S, ("eu", FEW), ("us", 2 * FEW))[-1]
    assert [t.target for t in last.targets] == [AGE, EU, US]
    rows = {t.target: t.rows for t in last.targets}
    assert rows[AGE] == rows[EU] + rows[US] == 3 * rows[EU]


def test_drift_in_one_segment_is_found_though_the_whole_hides_it() -> None:
    """A tenth of the rows that changes completely moves the whole by little."""
    e = engine()
    send(e, reference(EVEN, T0), known(EVEN, region="eu"), known(EVEN, region="us"), now=T0)
    last = run(e, T0 + 14 * S, ("eu", 50 * FEW), ("us", SOME))[-1]
    assert {t.target: t.status for t in last.targets} == {AGE: 0, EU: 0, US: 2}


def test_a_segment_that_the_baseline_does_not_know_is_compared_with_its_own_past() -> None:
    """Another mix than the whole's is no drift of it; a change of its own is."""
    e = engine()
    send(e, reference(EVEN, T0), now=T0)
    found = run(e, T0 + 26 * S, ("eu", 9 * FEW), ("us", SOME))
    first, last = found[0], found[-1]
    assert target(first, US).reason == "no_baseline"
    assert target(first, US).detail == (
        "the baseline does not know this segment, and it has no window of its own before this one yet"
    )
    assert (target(last, US).evaluated, target(last, US).status) == (True, 0)
    assert target(last, US).detail.endswith(
        "; the baseline does not know this segment, it is compared with its own previous window"
    )
    assert "segment" not in target(last).detail
    e = engine()
    send(e, reference(EVEN, T0), now=T0)
    service_found = run(e, T0 + 22 * S, ("us", 5 * FEW))
    assert target(service_found[-1], US).status == 0
    later = run(e, T0 + 34 * S, ("us", 5 * SOME), since=T0 + 22 * S)
    assert target(later[-1], US).status == 2


def test_a_series_of_two_segments_counts_in_both() -> None:
    """Each key is a cut of its own; combinations are not."""
    both = within(series(semconv.FEATURE_VALUE, feature_name="age"), region="eu", tier="gold")
    destination = resolve(both)
    assert destination is not None
    found = [one.target for one in segments(destination, both)]
    assert found == [Target("feature", "age", ("region", "eu")), Target("feature", "age", ("tier", "gold"))]
    e = engine()
    send(e, [P(both, T0, T0 + S, EVEN, BOUNDS)], now=T0 + S)
    (evaluation,) = finals(e, T0 + 3 * S, since=T0 + S)
    assert [t.rows for t in evaluation.targets] == [600, 600, 600]
    assert evaluation.rows == 600


def test_segments_beyond_the_cap_count_over_all_rows_only() -> None:
    """They are refused and counted; the whole is complete."""
    e = engine()
    at = series(semconv.FEATURE_VALUE, feature_name="age")
    points = [P(within(at, user=f"u{k}"), T0, T0 + S, EVEN, BOUNDS) for k in range(MAX_SEGMENTS + 5)]
    send(e, points, now=T0 + S)
    (evaluation,) = finals(e, T0 + 3 * S, since=T0 + S)
    assert len(evaluation.targets) == MAX_SEGMENTS + 1
    assert target(evaluation).rows == 600 * (MAX_SEGMENTS + 5)
    assert e.counters()["rejected_limit"] == 5


def test_gauges_of_a_segment_carry_its_attribute() -> None:
    """And are not among the numbers of targets of the model."""
    e = engine()
    send(e, reference(EVEN, T0), known(EVEN, region="eu"), now=T0)
    last = run(e, T0 + 12 * S, ("eu", FEW))[-1]
    gauges = emit.gauges([last], POLICY, T0 + 12 * S)
    regions = {
        sample.attributes.get("ml.segment.region")
        for sample in gauges
        if sample.metric == semconv.DRIFT_STATUS
    }
    assert regions == {None, "eu"}
    features = [s.value for s in gauges if s.metric == semconv.DRIFT_FEATURES]
    assert sum(features) == 1


def test_streams_without_segments_are_untouched_by_those_with() -> None:
    """Both kinds in one request each find their place."""
    e = engine()
    plain = Service(T0, identity={"pod": "b"})
    plain.rows(SHIFTED)
    at = within(series(semconv.FEATURE_VALUE, feature_name="age"), region="eu")
    send(e, [P(at, T0, T0 + S, EVEN, BOUNDS)], plain.report(T0 + S), now=T0 + S)
    (evaluation,) = finals(e, T0 + 3 * S, since=T0 + S)
    assert {t.target: t.rows for t in evaluation.targets} == {AGE: 700, EU: 600}
    assert serve(e, plain, T0 + 3 * S, T0 + 4 * S, SHIFTED)
