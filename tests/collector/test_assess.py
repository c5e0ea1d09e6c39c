"""What a window is compared with, and when its status moves."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest
from pointbatches import (
    AGE,
    BOUNDS,
    EVEN,
    HOUR,
    POLICY,
    SHIFTED,
    SHORT,
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
from otel_ml.baseline import Baseline
from otel_ml_collector.drift import Policy, Side, compare
from otel_ml_collector.evaluation import Target
from otel_ml_collector.window import WindowSpec


def test_a_window_holds_what_was_reported_in_it() -> None:
    """Rows, statistics and p-value of a window are those of the points that end in it, pane by pane."""
    spec = WindowSpec(length=24, step=1, lateness=1, max_age=24, refresh=60, fast_length=1)
    e = engine(spec)
    service = Service(T0)
    send(e, reference(EVEN, T0), now=T0)
    rows = [np.roll((9, 4, 1, 1, 1, 2), k % 3) for k in range(24)]
    for k in range(24):
        serve(e, service, T0 + k * S, T0 + (k + 1) * S, rows[k].tolist(), every=S // 5)
    (evaluation,) = serve(e, service, T0 + 24 * S, T0 + 25 * S, every=S)

    expected = compare(
        Side(np.array(EVEN), bounds=np.array(BOUNDS)),
        Side(5 * sum(rows), bounds=np.array(BOUNDS), panes=5 * np.array(rows)),
        POLICY,
    )
    assert (evaluation.window_start, evaluation.window_end) == (T0, T0 + 24 * S)
    assert (evaluation.rows, target(evaluation).rows) == (18 * 5 * 24, 18 * 5 * 24)
    found = dict(target(evaluation).statistics)
    assert found.pop("cusum") > 0  # of the windows so far that share no row
    assert found == expected.statistics
    assert expected.phi > 2
    assert target(evaluation).p_value == expected.p_value
    assert target(evaluation).state_shares["ok"] == 1.0


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
    """Counts on finer bounds than the reference's, or on coarser ones, compare on the common ones."""
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


def test_foreign_bounds_are_compared_on_the_nearest_ones_and_flagged() -> None:
    """Without drift there is no alarm, the result and a message say what was done."""
    e = engine()
    service = Service(T0)
    known = (-0.8, -0.4, 0.0, 0.4, 0.8)
    service.rows((120, 120, 120, 120, 120, 0), bounds=(-0.6, -0.2, 0.2, 0.6, 1.0))
    send(e, reference(EVEN, T0, bounds=known), service.report(T0 + S), now=T0 + S)
    found = target(the(finals(e, T0 + 3 * S, since=T0 + S)))
    assert (found.evaluated, found.foreign_bounds) == (True, True)
    assert "counted on other bounds than the baseline's" in found.detail
    (message,) = e.messages()
    assert "'churn'" in message
    assert "other bounds than its baseline's" in message


def test_counts_on_two_layouts_are_compared_together() -> None:
    """While pods change from one baseline to the next, the rows of both count."""
    e = engine()
    one, two = Service(T0), Service(T0, identity={"pod": "b"})
    one.rows(EVEN)
    two.rows((200, 200, 200), bounds=(-0.5, 0.5))
    send(e, reference(EVEN, T0), one.report(T0 + S), two.report(T0 + S), now=T0 + S)
    found = target(the(finals(e, T0 + 3 * S, since=T0 + S)))
    assert (found.rows, found.foreign_bounds) == (1200, False)
    assert found.statistics["psi"] == 0.0


def test_bounds_that_do_not_nest_are_not_compared() -> None:
    """Counts of which no bound lies where the reference has values give no number, and the reason says why."""
    e = engine()
    service = Service(T0)
    service.rows(EVEN, bounds=(1.5, 2.0, 3.0, 4.0, 5.0))
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


def test_a_window_with_too_few_rows_grows_backwards() -> None:
    """By whole steps until it has min_rows, and not beyond max_age."""
    e = engine(SHORT, Policy(min_rows=1000, min_reference_rows=100))
    service = Service(T0)
    send(e, reference(EVEN, T0), now=T0)
    serve(e, service, T0 + S, T0 + 2 * S)  # 3000 rows in the second second, none later
    found = finals(e, T0 + 24 * S, since=T0 + 2 * S)
    reach = {(x.window_end - T0) // S: ((x.window_end - x.window_start) // S, x.rows) for x in found}
    assert reach[10] == (10, 3000)
    assert reach[12] == (12, 3000)
    assert reach[20] == (20, 3000)
    assert reach[22] == (10, 0)
    assert (target(found[-1]).evaluated, target(found[-1]).reason) == (False, "rows_low")


def test_a_refresh_renews_the_numbers_and_leaves_the_status() -> None:
    """Between two steps the numbers follow the data; the status waits for the step."""
    spec = WindowSpec(length=48, step=24, lateness=0, max_age=48, refresh=2, fast_length=49)
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
    found = serve(e, service, start + 22 * S, start + 24 * S, SHIFTED, every=S)
    assert [(x.final, target(x).status) for x in found] == [(True, 2)]


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
