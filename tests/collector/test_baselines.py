"""Baselines from files and from the wire, and which of them is the reference."""

from __future__ import annotations

import numpy as np
from pointbatches import BOUNDS, P, S, reference, series

from otel_ml import semconv
from otel_ml.baseline import Baseline
from otel_ml_collector.baselines import Baselines, Reference, from_file
from otel_ml_collector.evaluation import ModelKey, Target
from otel_ml_collector.groups import resolve
from otel_ml_collector.points import DELTA

MODEL = ModelKey("", "api", "", "churn", "3")
AGE = Target("feature", "age")


def baselines(*files: Baseline, max_targets: int = 100, max_buckets: int = 100) -> Baselines:
    return Baselines(files, max_targets=max_targets, max_buckets=max_buckets)


def observe(into: Baselines, points: list[P], now: int = 0) -> list[str | None]:
    reasons = []
    for p in points:
        about = resolve(p.series)
        assert about is not None
        reasons.append(
            into.observe(
                about,
                np.array(p.values),
                p.bounds,
                start=p.start,
                time=p.time,
                temporality=p.temporality,
                now=now,
            )
        )
    return reasons


def known(into: Baselines, model: ModelKey = MODEL, ids: tuple[str, ...] = ()) -> Reference:
    found = into.reference(model, ids)
    assert found is not None
    return found


def churn(seed: int = 0, n: int = 600) -> Baseline:
    rng = np.random.default_rng(seed)
    columns = {
        "age": [None, *rng.normal(size=n - 1)],
        "plan": rng.choice(["basic", "plus"], n),
        "id": [f"customer {i}" for i in range(n)],
    }
    return Baseline.fit(
        columns, model="churn", version="3", scores=rng.random(n), predictions=rng.choice(["a", "b"], n),
        uncertainty=rng.random(n),
    )  # fmt: skip


def test_totals_are_never_differenced() -> None:
    """The newest value counts, whatever order the points come in; an older one changes nothing."""
    into = baselines()
    observe(into, reference((1, 2, 3, 4, 5, 6), 20 * S))
    observe(into, reference((9, 9, 9, 9, 9, 9), 10 * S))
    found = known(into)
    assert found.targets[AGE].counts is not None
    assert found.targets[AGE].counts.tolist() == [1, 2, 3, 4, 5, 6]
    assert (found.id, found.created, found.rows) == ("b1", 1, 21)
    observe(into, reference((9, 9, 9, 9, 9, 9), 30 * S))
    assert known(into).rows == 54


def test_the_parts_of_a_baseline_come_together() -> None:
    """Bounds, states and categories, each from points of its own."""
    into = baselines()
    observe(into, reference((1, 1, 1, 1, 1, 1), S))
    plan = {"drift_target": "feature", "feature_name": "plan", "baseline_id": "b1"}
    for name, count in (("basic", 4), (semconv.OTHER, 2)):
        observe(into, [P(series(semconv.BASELINE_CATEGORIES, feature_category=name, **plan), 1, S, (count,))])
    missing = series(semconv.BASELINE_OBSERVATIONS, feature_state="missing", **plan)
    observe(into, [P(missing, 1, S, (3,))])
    targets = known(into).targets
    assert targets[AGE].bounds == BOUNDS
    assert targets[Target("feature", "plan")].categories == {"basic": 4, semconv.OTHER: 2}
    states = targets[Target("feature", "plan")].states
    assert states is not None
    assert dict(zip(semconv.STATES, states.tolist(), strict=True))["missing"] == 3


def test_what_cannot_be_used_is_refused_with_its_reason() -> None:
    """Delta points, and histograms without a value; a count of none is no news."""
    into = baselines()
    assert observe(into, reference((1,) * 6, S, temporality=DELTA)) == ["baseline_delta"] * 2
    assert observe(into, reference((0,) * 6, S)) == ["baseline_empty", None]
    assert into.reference(MODEL, ()) is None


def test_limits_hold_for_targets_and_categories() -> None:
    """What goes beyond is refused, what is known can still be renewed."""
    into = baselines(max_targets=2, max_buckets=6)
    assert observe(into, reference((1,) * 6, S)) == [None, None]
    assert observe(into, reference((1,) * 7, S, bounds=(*BOUNDS, 9.0))) == ["limit", None]
    at = {"drift_target": "prediction", "baseline_id": "b1"}
    labels = [
        P(series(semconv.BASELINE_CATEGORIES, feature_category=str(i), **at), 1, S, (1,)) for i in range(7)
    ]
    assert observe(into, labels) == [None] * 6 + ["limit"]
    assert observe(into, labels[:6]) == [None] * 6
    assert observe(into, reference((1,) * 6, S, feature="income")) == ["limit", "limit"]


def test_a_baseline_belongs_to_one_service_model_and_version() -> None:
    """All variants and roles of a version share it, other versions and services do not."""
    into = baselines()
    observe(into, reference((1,) * 6, S))
    assert into.reference(ModelKey("", "api", "", "churn", "3", "b", "shadow"), ()) is not None
    assert into.reference(ModelKey("", "api", "", "churn", "4"), ()) is None
    assert into.reference(ModelKey("", "other", "", "churn", "3"), ()) is None


def test_the_newest_named_baseline_is_the_reference() -> None:
    """What the data name goes first; without a name the newest one of the version serves."""
    into = baselines()
    for name, created in (("old", 1), ("new", 5), ("newest", 9)):
        observe(into, reference((1,) * 6, S, baseline=name, created=created))
    assert known(into).id == "newest"
    assert known(into, ids=("old", "new")).id == "new"
    assert known(into, ids=("unheard of",)).id == "newest"


def test_a_file_is_converted_completely() -> None:
    """Bounds, counts, categories and states as in the file; outputs without states."""
    baseline = churn()
    made = from_file(baseline)
    assert (made.id, made.rows) == (baseline.id, 600)
    assert made.created == int(baseline.created_at.timestamp() * 1e9)
    age, plan = made.targets[AGE], made.targets[Target("feature", "plan")]
    assert age.counts is not None
    assert age.states is not None
    assert age.bounds == tuple(baseline.features["age"].bounds.tolist())  # type: ignore[union-attr]
    assert (int(age.counts.sum()), age.states.tolist()) == (599, [599, 1, 0, 0, 0, 0])
    assert plan.categories == dict(baseline.features["plan"].categories)  # type: ignore[union-attr]
    opaque = made.targets[Target("feature", "id")]
    assert (opaque.bounds, opaque.categories, opaque.rows) == (None, None, 600)
    assert made.targets[Target("score")].states is None
    assert sum((made.targets[Target("prediction")].categories or {}).values()) == 600
    unsure = made.targets[Target("uncertainty")]
    assert unsure.states is None
    assert unsure.bounds == tuple(baseline.uncertainty.bounds.tolist())  # type: ignore[union-attr]


def test_a_file_serves_every_service_that_runs_its_version() -> None:
    """Files know no service: model and version decide, or the id that the data name."""
    baseline = churn()
    into = baselines(baseline)
    assert known(into).id == baseline.id
    assert known(into, ModelKey("", "else", "", "churn", "3")).id == baseline.id
    assert into.reference(ModelKey("", "api", "", "churn", "4"), ()) is None
    assert known(into, ModelKey("", "api", "", "churn", "4"), (baseline.id,)).id == baseline.id


def test_baselines_of_models_that_are_gone_expire() -> None:
    """Those of live models stay, however long ago they came."""
    into = baselines()
    observe(into, reference((1,) * 6, S), now=10)
    into.expire(11, {MODEL: ()})
    assert len(into) == 1
    into.expire(10, {})
    assert len(into) == 1
    into.expire(11, {})
    assert len(into) == 0
    assert into.reference(MODEL, ()) is None


def test_a_baseline_that_is_refused_leaves_no_trace() -> None:
    """Ids that keep changing do not make it grow beyond its limit."""
    into = baselines(max_targets=1)
    assert observe(into, reference((1,) * 6, S)) == [None, None]
    for k in range(10):
        assert observe(into, reference((1,) * 6, S, baseline=f"other{k}")) == ["limit", "limit"]
    assert len(into) == 1


def test_old_baselines_of_a_live_model_make_room() -> None:
    """A version whose baseline is made anew every night keeps those its data name, and the newest."""
    into = baselines()
    for created, name in enumerate(("b1", "b2", "b3", "b4"), start=1):
        observe(into, reference((1,) * 6, S, baseline=name, created=created), now=10)
    into.expire(11, {MODEL: ("b2",)})
    assert {one.id for one in into._over_wire(MODEL)} == {"b2", "b4"}
