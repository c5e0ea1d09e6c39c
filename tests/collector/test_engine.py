"""The engine from points to evaluations, on an injected clock."""

from __future__ import annotations

from typing import Any

import pytest
from pointbatches import (
    BOUNDS,
    EVEN,
    HOUR,
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
    the,
)

from otel_ml import semconv
from otel_ml_collector.engine import COUNTERS, Limits
from otel_ml_collector.groups import CELLS
from otel_ml_collector.points import CUMULATIVE, DELTA
from otel_ml_collector.streams import MAX_WAITING
from otel_ml_collector.window import WindowSpec


def test_cumulative_and_delta_give_the_same_windows() -> None:
    """The temporality of a sender does not show in what is evaluated."""
    runs = []
    for temporality in (CUMULATIVE, DELTA):
        e = engine()
        send(e, reference(EVEN, T0), now=T0)
        runs.append(serve(e, Service(T0, temporality), T0, T0 + 14 * S, (4, 1, 1, 1, 1, 2)))
    cumulative, delta = ([(x.window_end, x.rows, target(x).statistics) for x in run] for run in runs)
    assert len(delta) > 20
    assert delta == cumulative


def test_senders_of_a_model_add_up() -> None:
    """Two pods of one service are one group, whatever their temporality."""
    e = engine()
    pods = [Service(T0, CUMULATIVE, {"pod": "a"}), Service(T0, DELTA, {"pod": "b"})]
    for pod, values in zip(pods, [(10, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 30)], strict=True):
        pod.rows(values)
        send(e, pod.report(T0 + S), now=T0 + S)
    send(e, reference(EVEN, T0), now=T0 + S)
    evaluation = the(finals(e, T0 + 3 * S, since=T0 + S))
    assert evaluation.rows == 40
    bins = target(evaluation).bins
    assert bins is not None
    assert bins.current.tolist() == [0.25, 0.0, 0.0, 0.0, 0.0, 0.75]


def test_services_versions_variants_and_roles_are_told_apart() -> None:
    """Each combination is a monitored model of its own."""
    e = engine()
    identities: list[dict[str, str]] = [
        {}, {"version": "4"}, {"service": "batch"}, {"variant_name": "b"}, {"variant_role": "shadow"},
    ]  # fmt: skip
    for identity in identities:
        service = Service(T0, identity=identity)
        service.rows(EVEN)
        send(e, service.report(T0 + S), now=T0 + S)
    keys = {x.model for x in finals(e, T0 + 3 * S, since=T0 + S)}
    assert {(k.service_name, k.version, k.variant, k.role) for k in keys} == {
        ("api", "3", "", "live"),
        ("api", "4", "", "live"),
        ("batch", "3", "", "live"),
        ("api", "3", "b", "live"),
        ("api", "3", "", "shadow"),
    }


@pytest.mark.parametrize(("kind", "length", "step"), [("sliding", 6, 2), ("tumbling", 4, 4)])
def test_windows_end_on_multiples_of_their_step(kind: Any, length: int, step: int) -> None:
    """Windows are aligned to the epoch and hold exactly the reports that end inside them."""
    spec = WindowSpec(type=kind, length=length, step=step, lateness=1, max_age=20, refresh=60, fast_length=1)
    found = [x for x in serve(engine(spec), Service(T0), T0, T0 + 9 * S + 4 * S // 5) if x.final]
    ends = [T0 + k * step * S for k in range(1, 1 + 8 // step)]
    assert [(x.window_start, x.window_end) for x in found] == [(end - length * S, end) for end in ends]
    assert [x.rows for x in found] == [600 * 5 * min(length, (end - T0) // S) for end in ends]


def test_a_point_at_the_end_of_a_window_belongs_to_it() -> None:
    """A window is open at its start and closed at its end."""
    spec = WindowSpec(type="tumbling", length=2, lateness=1, max_age=2, refresh=60, fast_length=1)
    e = engine(spec)
    service = Service(T0)
    service.rows(EVEN)
    send(e, service.report(T0 + 2 * S), now=T0 + 2 * S)
    service.rows(SHIFTED)
    send(e, service.report(T0 + 2 * S + 1), now=T0 + 2 * S + 1)
    assert [x.rows for x in finals(e, T0 + 5 * S, since=T0 + 2 * S)] == [600, 100]


def test_a_window_closes_when_the_watermark_passes_its_end() -> None:
    """Nothing is final before the lateness is over; then it is."""
    e = engine()
    service = Service(T0)
    service.rows(EVEN)
    send(e, service.report(T0 + S), now=T0 + S)
    assert [x for x in e.advance(T0 + 3 * S - 1) if x.final] == []
    assert [x.window_end for x in e.advance(T0 + 3 * S) if x.final] == [T0 + 2 * S]


def test_a_retired_version_disappears() -> None:
    """2 × window + max_age after its last row a model is gone, with its streams, groups and cells."""
    e = engine()
    old, new = Service(T0, identity={"version": "1"}), Service(T0, identity={"version": "2"})
    send(e, reference(EVEN, T0, version="1"), reference(EVEN, T0, version="2"), now=T0)
    serve(e, old, T0, T0 + 2 * S)
    serve(e, new, T0 + 2 * S, T0 + 41 * S)
    assert {x.model.version for x in e.current(T0 + 41 * S)} == {"1", "2"}
    found = serve(e, new, T0 + 41 * S, T0 + 50 * S)
    assert {x.model.version for x in e.current(T0 + 50 * S)} == {"2"}
    assert (
        found[-1].rows == 600 * 50 - 600 * 5 * (found[-1].window_start - found[-1].window_end + 10 * S) // S
    )
    assert (e.stats()["models"], e.stats()["groups"]) == (1, 1)
    for now in range(T0 + 50 * S, T0 + 800 * S, S):
        e.advance(now)
    assert {name: size for name, size in e.stats().items() if name != "baselines"} == {
        "streams": 0, "groups": 0, "models": 0, "pending": 0, "panes": 0,
    }  # fmt: skip


def test_an_idle_target_of_a_live_model_disappears() -> None:
    """A feature that is no longer sent goes, the model and its other features stay."""
    e = engine()
    service = Service(T0)
    service.rows(EVEN, feature="income")
    serve(e, service, T0, T0 + 50 * S)
    (evaluation,) = e.current(T0 + 50 * S)
    assert [t.target.name for t in evaluation.targets] == ["age"]
    assert evaluation.rows == 600 * 5 * (evaluation.window_end - evaluation.window_start) // S


def test_a_sender_that_returns_after_its_stream_was_forgotten_is_itself() -> None:
    """Another sender has its old place by then; their counts stay apart."""
    e = engine()
    one = Service(T0, DELTA, {"service": "one"})
    two = Service(T0, DELTA, {"service": "two"})
    serve(e, one, T0, T0 + S)
    for now in range(T0 + S, T0 + 700 * S, S):
        e.advance(now)
    assert e.stats()["streams"] == 0
    serve(e, two, T0 + 700 * S, T0 + 701 * S, (1, 0, 0, 0, 0, 0))
    serve(e, one, T0 + 701 * S, T0 + 702 * S, (0, 0, 0, 0, 0, 5))
    rows = {x.model.service_name: x.rows for x in finals(e, T0 + 704 * S, since=T0 + 702 * S)}
    assert rows == {"one": 25, "two": 5}


def test_a_group_that_comes_back_after_it_expired_is_counted_anew() -> None:
    """A stream outlives its idle group and finds its new cells."""
    e = engine()
    service = Service(T0)
    send(e, reference(EVEN, T0), now=T0)
    serve(e, service, T0, T0 + 2 * S)
    serve(e, service, T0 + 2 * S, T0 + 60 * S, (0,) * 6)
    assert e.stats()["groups"] == 0
    found = serve(e, service, T0 + 60 * S, T0 + 63 * S, (1, 2, 3, 4, 5, 6))
    assert [x.rows for x in found if x.final][-1] == 21 * 10


def test_rows_from_before_the_collector_are_not_counted() -> None:
    """A cumulative series that began before us counts from its second point on; its rows are shown."""
    e = engine()
    service = Service(T0 - HOUR)
    service.rows(EVEN)
    send(e, service.report(T0 + S // 2), now=T0 + S)
    service.rows((1, 1, 1, 1, 1, 1))
    send(e, service.report(T0 + S), now=T0 + S)
    assert the(finals(e, T0 + 3 * S, since=T0 + S)).rows == 6
    assert e.counters()["initial_rows"] == 600
    assert e.counters()["initial"] == 3


def test_points_that_come_too_late_are_refused_and_counted() -> None:
    """What the watermark has passed is late; what a clock ahead of ours stamped is future."""
    e = engine()
    one, two = Service(T0), Service(T0, identity={"pod": "b"})
    for service in (one, two):
        service.rows(EVEN)
    assert send(e, one.report(T0 + S), now=T0 + S) == {}
    e.advance(T0 + 3 * S)
    assert send(e, two.report(T0 + 2 * S), now=T0 + 3 * S) == {"late": 3}
    assert send(e, two.report(T0 + 100 * S), now=T0 + 3 * S) == {"future": 3}
    assert send(e, one.report(T0 + S), now=T0 + 3 * S) == {}
    counters = e.counters()
    assert (counters["late"], counters["future"], counters["duplicate"]) == (3, 3, 3)


def test_limits_refuse_what_goes_beyond_them() -> None:
    """Streams, groups and buckets are bounded, and what is refused is counted."""
    e = engine(limits=Limits(max_streams=3, max_groups=1, max_buckets=6))
    service = Service(T0)
    service.rows(EVEN)
    service.count(semconv.FEATURE_VALUE, (1,) * 7, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), feature_name="wide")
    assert send(e, service.report(T0 + S), now=T0 + S) == {"limit": 1}
    e = engine(limits=Limits(max_groups=1, max_buckets=6))
    service.rows(EVEN, feature="income")
    assert send(e, service.report(T0 + S), now=T0 + S) == {"limit": 1}
    evaluation = the(finals(e, T0 + 3 * S, since=T0 + S))
    assert [t.target.name for t in evaluation.targets] == ["age"]
    assert e.counters()["rejected_limit"] == 3


def test_our_own_gauges_and_strangers_are_not_taken() -> None:
    """The scope of our output and metrics we do not know are counted, never refused."""
    e = engine()
    loop = series(semconv.FEATURE_VALUE, scope=semconv.DRIFT_SCOPE, feature_name="age")
    stranger = series(semconv.COLLECTIONS)
    nameless = series(semconv.FEATURE_VALUE)
    other_sdk = series(semconv.INFERENCE_ROWS, scope="somebody.else")
    points = [
        P(loop, T0, T0 + S, EVEN, BOUNDS),
        P(stranger, T0, T0 + S, (1,)),
        P(nameless, T0, T0 + S, EVEN, BOUNDS),
        P(other_sdk, T0, T0 + S, (7,)),
    ]
    assert send(e, points, now=T0 + S) == {}
    assert (e.counters()["loop"], e.counters()["ignored"], e.stats()["streams"]) == (1, 2, 1)
    assert the(finals(e, T0 + 3 * S, since=T0 + S)).rows == 7


def test_points_that_contradict_themselves_are_malformed() -> None:
    """Bounds that do not fit the counts, and negative counts."""
    e = engine()
    at = series(semconv.FEATURE_VALUE, feature_name="age")
    points = [P(at, T0, T0 + S, (1, 2), BOUNDS), P(at, T0, T0 + S, (1, 1, 1, 1, 1, -1), BOUNDS)]
    assert send(e, points, now=T0 + S) == {"malformed": 2}


def test_a_baseline_that_arrives_as_delta_is_refused_and_explained_once() -> None:
    """The message names the processor that does it and the setting that leaves baselines out."""
    e = engine()
    for now in (T0, T0 + S):
        assert send(e, reference(EVEN, now, temporality=DELTA), now=now) == {"baseline_delta": 2}
    (message,) = e.messages()
    assert "cumulativetodelta" in message
    assert "ml\\.baseline\\..*" in message
    assert e.messages() == []


def test_an_empty_baseline_histogram_is_refused() -> None:
    """A reference without a value says nothing to compare with."""
    e = engine()
    assert send(e, reference((0,) * 6, T0), now=T0) == {"baseline_empty": 1}


def test_two_writers_with_one_identity_are_named() -> None:
    """Their points are counted as overlap, and the way out is said once."""
    e = engine()
    one, two = Service(T0), Service(T0 + S // 2)
    for now in range(T0 + S, T0 + 6 * S, S):
        for service in (one, two):
            service.rows(EVEN)
            send(e, service.report(now), now=now)
        e.advance(now)
    assert e.counters()["overlap"] > 0
    (message,) = e.messages()
    assert "service.instance.id" in message
    assert "'api'" in message


def test_a_clock_that_leaps_gives_every_window_once() -> None:
    """After a pause all windows that ended are evaluated, each with its own rows."""
    e = engine()
    service = Service(T0)
    serve(e, service, T0, T0 + 2 * S)
    found = [x for x in e.advance(T0 + 9 * S) if x.final]
    assert [(x.window_end - T0) // S for x in found] == [2, 4, 6, 8]
    assert e.advance(T0 + 9 * S) == []


def test_counters_start_at_zero_and_are_all_there() -> None:
    """A counter exists before its first event, so that its rate can be computed."""
    assert engine().counters() == dict.fromkeys(COUNTERS, 0)


def test_memory_stays_bounded_while_time_passes() -> None:
    """Panes do not grow in number, however long the engine runs."""
    e = engine()
    service = Service(T0)
    sizes = []
    for k in range(10):
        serve(e, service, T0 + 20 * k * S, T0 + 20 * (k + 1) * S)
        sizes.append(e.stats()["panes"])
    assert max(sizes[3:]) <= max(sizes[:3]) + 1


def test_one_stream_cannot_fill_the_reorder_buffer() -> None:
    """A sender that floods one series is refused beyond its share; the others go on."""
    e = engine()
    rows, other = series(semconv.INFERENCE_ROWS), series(semconv.INFERENCE_ROWS, pod="b")
    for _ in range(2):
        flood = [P(rows, T0 + i, T0 + i + 1, (1,), (), DELTA) for i in range(MAX_WAITING - 100)]
        refused = send(e, flood, [P(other, T0, T0 + S, (7,), (), DELTA)], now=T0 + S)
    assert refused == {"crowded": MAX_WAITING - 200}
    assert e.stats()["pending"] == MAX_WAITING + 2
    assert the(finals(e, T0 + 3 * S, since=T0 + S)).rows == MAX_WAITING - 100 + 7
    assert send(e, [P(rows, T0 + 4 * S, T0 + 5 * S, (1,), (), DELTA)], now=T0 + 5 * S) == {}


def test_bounds_that_keep_changing_are_forgotten() -> None:
    """A sender with new bounds in every report does not make the engine grow."""
    e = engine()
    at = series(semconv.FEATURE_VALUE, feature_name="age")
    for k in range(1, 3000):
        now = T0 + k * S
        send(e, [P(at, T0, now, (1, 2), (float(k),))], now=now)
        e.advance(now)
    assert len(e._shapes) < 1100


def test_pods_that_come_and_go_do_not_use_up_the_streams() -> None:
    """When room gets scarce the series of processes that went silent an hour ago make way."""
    e = engine(WindowSpec(), limits=Limits(max_streams=60))
    for pod in range(40):
        now = T0 + 2 * pod * HOUR + 60 * S
        service = Service(now - 50 * S, identity={"pod": f"p{pod}"})
        service.rows(EVEN)
        assert send(e, service.report(now), now=now) == {}
        e.advance(now + HOUR)
    assert e.stats()["streams"] <= 33


def test_the_cells_of_all_groups_are_bounded() -> None:
    """Every pane is as long as all cells, so that wide targets share what there is."""
    e = engine(limits=Limits(max_groups=10, max_buckets=100))
    service = Service(T0)
    for feature in range(10):
        for k in range(150):
            service.category(f"c{k}", 1, feature=f"f{feature}")
    send(e, service.report(T0 + S), now=T0 + S)
    e.advance(T0 + 3 * S)
    assert e._groups._cells == 10 * CELLS + 4 * 100
    assert e.counters()["rejected_limit"] > 0
