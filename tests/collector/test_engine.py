"""The engine from points to evaluations, on an injected clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from otel_ml import semconv
from otel_ml.baseline import Baseline
from pointbatches import BOUNDS, HOUR, P, S, Service, batch, reference, series

from otel_ml_collector.drift import Policy, Side, compare
from otel_ml_collector.engine import COUNTERS, Engine, Limits
from otel_ml_collector.evaluation import Evaluation, Target, TargetEvaluation
from otel_ml_collector.points import CUMULATIVE, DELTA
from otel_ml_collector.window import WindowSpec

T0 = 500_000 * HOUR
"""A whole hour and a whole day."""
SPEC = WindowSpec(length=24 * 3600, step=3600, lateness=120)
SHORT = WindowSpec(length=10, step=2, lateness=1, max_age=20, refresh=0.5, fast_length=1, initial_max_age=600)
POLICY = Policy(min_rows=20, min_reference_rows=100)
EVEN = (100, 100, 100, 100, 100, 100)
SHIFTED = (0, 0, 0, 0, 0, 100)
AGE = Target("feature", "age")


def engine(
    window: WindowSpec = SHORT, policy: Policy = POLICY, limits: Limits | None = None, **more: object
) -> Engine:
    return Engine(window, policy, limits, started=T0, **more)  # type: ignore[arg-type]


def send(into: Engine, *points: Sequence[P], now: int) -> dict[str, int]:
    return dict(into.ingest(batch([p for group in points for p in group]), now))


def the(evaluations: Sequence[Evaluation]) -> Evaluation:
    assert len(evaluations) == 1
    return evaluations[0]


def target(evaluation: Evaluation, which: Target = AGE) -> TargetEvaluation:
    return next(t for t in evaluation.targets if t.target == which)


def finals(into: Engine, until: int, *, since: int, every: int = S // 5) -> list[Evaluation]:
    """Final evaluations while the clock runs."""
    found = []
    for now in range(since, until + 1, every):
        found += [e for e in into.advance(now) if e.final]
    return found


def serve(
    into: Engine,
    service: Service,
    since: int,
    until: int,
    values: Sequence[int] = EVEN,
    *,
    every: int = S // 5,
) -> list[Evaluation]:
    """Evaluations while a service answers `values` rows an interval and reports on time."""
    found: list[Evaluation] = []
    for now in range(since + every, until + 1, every):
        service.rows(values)
        send(into, service.report(now), now=now)
        found += into.advance(now)
    return found


def test_a_window_holds_what_was_reported_in_it() -> None:
    """Rows, counts and statistics of a window are those of the points that end in it."""
    e = engine()
    service = Service(T0)
    send(e, reference(EVEN, T0), now=T0)
    evaluation = [x for x in serve(e, service, T0, T0 + 12 * S, (4, 1, 1, 1, 1, 2)) if x.final][-1]

    counted = np.array([4, 1, 1, 1, 1, 2]) * 50
    expected = compare(
        Side(np.array(EVEN), bounds=np.array(BOUNDS)),
        Side(counted, bounds=np.array(BOUNDS), panes=np.array([[4, 1, 1, 1, 1, 2]] * 24)),
        POLICY,
    )
    assert evaluation.window_start == T0
    assert evaluation.window_end == T0 + 10 * S
    assert evaluation.rows == 500
    assert target(evaluation).rows == 500
    assert target(evaluation).statistics["psi"] == pytest.approx(expected.statistics["psi"], abs=1e-12)
    assert target(evaluation).statistics["ks"] == pytest.approx(expected.statistics["ks"], abs=1e-12)
    assert target(evaluation).state_shares["ok"] == 1.0


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


@pytest.mark.parametrize("first", ["data", "baseline"])
def test_the_order_of_baseline_and_data_does_not_matter(first: str) -> None:
    """A baseline may come before its data or after it."""
    e = engine()
    service = Service(T0)
    service.rows(EVEN)
    points = [service.report(T0 + S), reference(EVEN, T0 + S)]
    for part in points if first == "data" else points[::-1]:
        send(e, part, now=T0 + S)
    evaluation = the(finals(e, T0 + 3 * S, since=T0 + S))
    assert (evaluation.baseline_id, evaluation.baseline_created, evaluation.baseline_rows) == ("b1", 1, 600)
    assert target(evaluation).evaluated


def test_without_a_baseline_nothing_is_said_but_the_rows() -> None:
    """A target no baseline describes is not evaluated, and the reason says so."""
    e = engine()
    service = Service(T0)
    service.rows(EVEN)
    service.state("missing", 200)
    send(e, service.report(T0 + S), now=T0 + S)
    found = target(the(finals(e, T0 + 3 * S, since=T0 + S)))
    assert (found.evaluated, found.reason, found.status, found.statistics) == (False, "no_baseline", 0, {})
    assert (found.rows, found.state_shares["missing"]) == (800, 0.25)


def test_a_baseline_file_serves_as_reference() -> None:
    """Numeric, categorical and opaque features, scores and predictions are compared with those of a file."""
    rng = np.random.default_rng(0)
    n = 1000
    baseline = Baseline.fit(
        {"age": rng.normal(size=n), "plan": rng.choice(["basic", "plus"], n)},
        model="churn",
        version="3",
        scores=rng.random(n),
        predictions=rng.choice(["no", "yes"], n),
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )
    e = engine(baselines=[baseline])
    age, score = baseline.features["age"], baseline.scores
    service = Service(T0)
    service.rows(age.bucket_counts.tolist(), bounds=tuple(age.bounds.tolist()))  # type: ignore[union-attr]
    for name, rows in (("basic", 900), ("plus", 50), (semconv.UNSEEN, 50)):
        service.category(name, rows)
    service.count(semconv.PREDICTION_SCORES, score.bucket_counts, tuple(score.bounds.tolist()))  # type: ignore[union-attr]
    service.count(semconv.PREDICTIONS, [n], prediction_label="yes")
    send(e, service.report(T0 + S), now=T0 + S)
    evaluation = the(finals(e, T0 + 3 * S, since=T0 + S))
    assert (evaluation.baseline_id, evaluation.baseline_rows) == (baseline.id, n)
    assert evaluation.baseline_created == int(baseline.created_at.timestamp() * 1e9)
    assert {t.target: t.status for t in evaluation.targets} == {
        AGE: 0,
        Target("feature", "plan"): 2,
        Target("prediction"): 2,
        Target("score"): 0,
    }
    assert target(evaluation).statistics["psi"] == 0.0


def test_categories_and_labels_from_the_wire_are_compared() -> None:
    """The category of a baseline point stands in ml.feature.category, for predictions, too."""
    e = engine()
    service = Service(T0)
    service.category("basic", 100)
    service.count(semconv.PREDICTIONS, [100], prediction_label="yes")
    at = {"baseline_id": "b1", "feature_category": "basic"}
    wire = [
        P(
            series(semconv.BASELINE_CATEGORIES, drift_target="feature", feature_name="plan", **at),
            1,
            T0,
            (500,),
        ),
        P(
            series(
                semconv.BASELINE_CATEGORIES, drift_target="prediction", **{**at, "feature_category": "yes"}
            ),
            1,
            T0,
            (400,),
        ),
        P(
            series(
                semconv.BASELINE_CATEGORIES, drift_target="prediction", **{**at, "feature_category": "no"}
            ),
            1,
            T0,
            (100,),
        ),
    ]
    send(e, wire, service.report(T0 + S), now=T0 + S)
    evaluation = the(finals(e, T0 + 3 * S, since=T0 + S))
    plan, labels = target(evaluation, Target("feature", "plan")), target(evaluation, Target("prediction"))
    assert (plan.evaluated, plan.statistics["psi"]) == (True, 0.0)
    assert labels.bins is not None
    assert dict(zip(labels.bins.labels, labels.bins.reference.tolist(), strict=True)) == {
        "yes": 0.8,
        "no": 0.2,
    }
    assert dict(zip(labels.bins.labels, labels.bins.current.tolist(), strict=True)) == {"yes": 1.0, "no": 0.0}


def test_bounds_that_nest_are_collapsed_exactly() -> None:
    """Counts on finer bounds than the reference's, or on coarser ones, compare as if they were on the common ones."""
    for known, current in (
        ((200, 200, 200), (100, 100, 100, 100, 100, 100)),
        ((100, 100, 100, 100, 100, 100), (200, 200, 200)),
    ):
        e = engine()
        service = Service(T0)
        service.rows(current, bounds=BOUNDS if len(current) == 6 else (-0.5, 0.5))
        bounds = BOUNDS if len(known) == 6 else (-0.5, 0.5)
        send(e, reference(known, T0, bounds=bounds), service.report(T0 + S), now=T0 + S)
        found = target(the(finals(e, T0 + 3 * S, since=T0 + S)))
        assert found.evaluated
        assert found.bins is not None
        assert found.bins.current.tolist() == pytest.approx([1 / 3] * 3)
        assert found.statistics["psi"] == 0.0


def test_bounds_that_do_not_nest_are_not_compared() -> None:
    """Counts on foreign bounds give no number, and the reason says why."""
    e = engine()
    service = Service(T0)
    service.rows(EVEN, bounds=(1.0, 2.0, 3.0, 4.0, 5.0))
    send(e, reference(EVEN, T0), service.report(T0 + S), now=T0 + S)
    found = target(the(finals(e, T0 + 3 * S, since=T0 + S)))
    assert (found.evaluated, found.reason, found.statistics) == (False, "bounds_differ", {})


def test_the_newest_baseline_that_the_data_name_is_the_reference() -> None:
    """Of two baselines of one version, the id on the data decides, then the time of creation."""
    e = engine()
    service = Service(T0)
    service.count(semconv.FEATURE_VALUE, EVEN, BOUNDS, feature_name="age", baseline_id="old")
    send(e, reference(EVEN, T0, baseline="old", created=5), now=T0)
    send(e, reference(EVEN, T0, baseline="new", created=9), service.report(T0 + S), now=T0 + S)
    assert the(finals(e, T0 + 3 * S, since=T0 + S)).baseline_id == "old"
    service.count(semconv.FEATURE_VALUE, EVEN, BOUNDS, feature_name="age", baseline_id="new")
    send(e, service.report(T0 + 3 * S), now=T0 + 3 * S)
    assert finals(e, T0 + 5 * S, since=T0 + 3 * S)[-1].baseline_id == "new"


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


def test_a_window_with_too_few_rows_grows_backwards() -> None:
    """By whole steps until it has min_rows, and not beyond max_age."""
    e = engine(SHORT, Policy(min_rows=1000, min_reference_rows=100))
    service = Service(T0)
    send(e, reference(EVEN, T0), now=T0)
    serve(e, service, T0, T0 + S)  # 3000 rows in the first second, none later
    found = finals(e, T0 + 24 * S, since=T0 + S)
    reach = {(x.window_end - T0) // S: ((x.window_end - x.window_start) // S, x.rows) for x in found}
    assert reach[10] == (10, 3000)
    assert reach[12] == (12, 3000)
    assert reach[20] == (20, 3000)
    assert reach[22] == (10, 0)
    assert (target(found[-1]).evaluated, target(found[-1]).reason) == (False, "rows_low")


def test_a_refresh_renews_the_numbers_and_leaves_the_status() -> None:
    """Between two steps the numbers follow the data; the status waits for the step."""
    spec = WindowSpec(length=48, step=24, lateness=0, max_age=48, refresh=2, fast_length=48)
    e = engine(spec)
    service = Service(T0)
    send(e, reference(EVEN, T0), now=T0)
    start = T0 // (24 * S) * 24 * S + 24 * S
    found = serve(e, service, start, start + 22 * S, SHIFTED, every=S)
    assert {x.final for x in found} == {False}
    assert [(x.window_end - start) // S for x in found] == list(range(2, 23, 2))
    assert {target(x).status for x in found} == {0}
    assert target(found[-1]).statistics["psi"] > 1
    assert e.current(start + 22 * S) == (found[-1],)
    assert (
        target(
            [x for x in serve(e, service, start + 22 * S, start + 24 * S, SHIFTED, every=S) if x.final][0]
        ).status
        == 2
    )


def test_a_change_of_unit_raises_through_the_fast_lane() -> None:
    """One short window far off raises the status long before the step."""
    spec = WindowSpec(length=24 * 3600, step=3600, lateness=120, fast_length=600)
    e = engine(spec, Policy())
    service = Service(T0)
    send(e, reference((1000,) * 6, T0), now=T0)
    minute = 60 * S
    before = serve(e, service, T0, T0 + HOUR + 10 * minute, (10,) * 6, every=minute)
    assert {target(x).status for x in before} == {0}
    after = serve(
        e, service, T0 + HOUR + 10 * minute, T0 + HOUR + 30 * minute, (0, 0, 0, 0, 0, 60), every=minute
    )
    assert [x.final for x in after] == [False] * len(after)
    raised = [x.window_end for x in after if target(x).status == 2]
    assert raised[0] <= T0 + HOUR + 22 * minute
    assert raised == [x.window_end for x in after if x.window_end >= raised[0]]


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
    """A cumulative series that began before us is counted from its second point on, and its rows are shown."""
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


def test_a_failing_comparison_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One target that cannot be computed is said, counted and left out."""
    from otel_ml_collector import assess

    def fails(known: Side, current: Side, policy: Policy) -> object:
        if len(current.counts) == 3:
            raise ArithmeticError("no")
        return compare(known, current, policy)

    monkeypatch.setattr(assess, "compare", fails)
    e = engine()
    service = Service(T0)
    service.rows(EVEN)
    service.rows((200, 200, 200), feature="odd", bounds=(1.0, 2.0))
    odd = reference((200, 200, 200), T0, feature="odd", bounds=(1.0, 2.0))
    send(e, reference(EVEN, T0), odd, service.report(T0 + S), now=T0 + S)
    evaluation = the(finals(e, T0 + 3 * S, since=T0 + S))
    assert {t.target.name: (t.evaluated, t.reason) for t in evaluation.targets} == {
        "age": (True, "ok"),
        "odd": (False, "error"),
    }
    assert e.counters()["errors"] > 0
    assert len(e.messages()) == 1


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
