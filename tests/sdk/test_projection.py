"""Rows counted on the projections of a baseline."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from otel_ml import semconv
from otel_ml.baseline import Baseline
from otel_ml.columns import table
from otel_ml.model import Model
from otel_ml.projection import ALL_ROWS, LONGEST_RUN
from otel_ml.sketches import Buckets, Ledger
from otel_ml.tally import Tally

NAMES = tuple(f"x{i}" for i in range(6))


def correlated(rows: int, *, seed: int, rho: float = 0.9, width: int = 6) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    common = random.normal(size=(rows, 1))
    X: NDArray[np.float64] = rho**0.5 * common + (1 - rho) ** 0.5 * random.normal(size=(rows, width))
    return X


BASELINE = Baseline.fit(correlated(4000, seed=0), model="m", version="1", features=NAMES)


def model(baseline: Baseline = BASELINE, **given: object) -> Model:
    return Model("m", "1", baseline=baseline, **given)  # type: ignore[arg-type]


class Counted:
    """A tally, and what it counted on projections."""

    def __init__(self, of: Model | None = None) -> None:
        self._ledger = Ledger(0)
        self.tally = Tally(of or model(), self._ledger)

    def matrices(self, *parts: NDArray[np.generic]) -> Counted:
        self.tally.add_matrices(parts)
        return self

    def table(self, rows: object) -> Counted:
        self.tally.add_table(table(rows))
        return self

    @property
    def counts(self) -> dict[str, list[int]]:
        return {
            series.attributes[semconv.FEATURE_NAME]: series.sketch.counts.tolist()
            for series in self._ledger
            if isinstance(series.sketch, Buckets)
            and series.attributes.get(semconv.DRIFT_TARGET) == "projection"
        }


def expected(X: NDArray[np.generic], baseline: Baseline = BASELINE) -> dict[str, list[int]]:
    """Counts by the definition: value after value, on the bounds of the file."""
    made = {}
    for projection in baseline.projections:
        standard = (np.asarray(X, float) - projection.centre) / projection.scale
        along = [round(float(sum(np.clip(z, -5, 5) * projection.loadings)), 5) for z in standard]
        inside = [sum(bound < value for bound in projection.summary.bounds) for value in along]
        made[projection.summary.name] = [
            inside.count(i) for i in range(len(projection.summary.bucket_counts))
        ]
    return made


def test_rows_are_counted_where_they_lie_on_each_projection() -> None:
    """Standardised as in the baseline, weighted with the loadings, on the bounds of the projection."""
    X = correlated(300, seed=1)
    assert Counted().matrices(X).counts == expected(X)
    assert list(expected(X)) == ["pc1", "pc2", "pc3", "pc4", "pc5", "pc6"]


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.int32])
def test_every_type_of_matrix_is_counted(kind: type) -> None:
    """As the float64 that its values are."""
    X: NDArray[np.generic] = (4 * correlated(300, seed=1)).astype(kind)
    assert Counted().matrices(X).counts == expected(X)


def test_a_table_and_a_matrix_give_the_same() -> None:
    """Whatever the order of its columns, and with columns that are not projected."""
    X = correlated(300, seed=1)
    columns: dict[str, object] = {name: X[:, i] for i, name in reversed(list(enumerate(NAMES)))}
    columns["more"] = ["text"] * 300
    assert Counted().table(columns).counts == expected(X)


def test_rows_of_several_matrices_add_up() -> None:
    """As those of one."""
    X = correlated(300, seed=1)
    assert Counted().matrices(X[:1], X[1:200], X[200:]).counts == expected(X)
    assert Counted().matrices(X[:120]).matrices(X[120:]).counts == expected(X)


def test_of_many_rows_each_run_is_counted_by_one_of_it() -> None:
    """As often as the run is long: runs of one kind all count as that kind."""
    run = 7
    kinds = correlated(ALL_ROWS - 3, seed=1)
    X = np.repeat(kinds, run, axis=0)
    assert Counted().matrices(X[:1000], X[1000:]).counts == {
        name: [run * count for count in counts] for name, counts in expected(kinds).items()
    }


@pytest.mark.parametrize("rows", [ALL_ROWS, ALL_ROWS + 1, 5000, ALL_ROWS * LONGEST_RUN * 3 + 1])
def test_so_many_rows_are_counted_as_came(rows: int) -> None:
    """But for less than the last run."""
    (total,) = {sum(counts) for counts in Counted().matrices(correlated(rows, seed=1)).counts.values()}
    assert 0 <= rows + LONGEST_RUN - total <= 2 * LONGEST_RUN
    assert total == rows or rows > ALL_ROWS


def test_what_repeats_within_runs_is_no_blind_spot() -> None:
    """Rows that alternate between two kinds are counted half and half."""
    X = np.tile(np.array([[-3.0] * 6, [3.0] * 6]), (2000, 1))
    counts = Counted().matrices(X).counts["pc1"]
    assert sum(counts) == 4000
    assert counts[0] + counts[-1] == 4000
    assert 1500 < counts[0] < 2500  # 500 draws: 11 standard deviations


def test_what_is_missing_is_at_the_centre() -> None:
    """A row of nothing but missing values lies where a row of centres does."""
    centre = BASELINE.projections[0].centre[None]
    missing = np.full((1, 6), np.nan)
    assert Counted().matrices(missing).counts == Counted().matrices(centre).counts


@pytest.mark.parametrize("value", [1e6, 1e308, np.inf])
def test_an_outlier_moves_a_row_no_further_than_the_cut(value: float) -> None:
    """Infinite or not, it counts as five standard deviations."""
    at, beyond = np.zeros((1, 6)), np.zeros((1, 6))
    first = BASELINE.projections[0]
    at[0, 2], beyond[0, 2] = first.centre[2] + 5 * first.scale[2], value
    assert Counted().matrices(beyond).counts == Counted().matrices(at).counts


def test_one_outlier_of_training_owns_no_projection() -> None:
    """With a value of 1e6 in it the directions are those without."""
    X = correlated(4000, seed=0)
    X[100, 3] = 1e6
    spoilt = Baseline.fit(X, model="m", version="1", features=NAMES)
    for with_it, without in zip(spoilt.projections, BASELINE.projections, strict=True):
        if without.summary.name == "pc1":  # the others have equal variances, and so no direction of their own
            assert with_it.loadings == pytest.approx(without.loadings, abs=0.01)
        assert with_it.summary.std == pytest.approx(without.summary.std, rel=0.05)


def test_rows_without_one_of_the_features_are_not_projected() -> None:
    """An absent column is said elsewhere; taken for missing it would look like joint drift."""
    X = correlated(10, seed=1)
    assert Counted().table({name: X[:, i] for i, name in enumerate(NAMES[:5])}).counts == {}
    assert Counted().matrices(X[:, :5]).counts == {}


def test_without_projections_nothing_is_counted() -> None:
    """A baseline can do without them, and a model without a baseline has none."""
    X = correlated(600, seed=0)
    without = Baseline.fit(X, model="m", version="1", features=NAMES, projections=False)
    assert without.projections == ()
    assert Counted(model(without)).matrices(X).counts == {}
    assert Counted(Model("m", "1")).matrices(X).counts == {}


@pytest.mark.parametrize("seed", range(5))
def test_tied_features_count_the_same_in_either_precision(seed: int) -> None:
    """Of few values, which are no float32, there are few sums, and no bound is near one."""
    random = np.random.default_rng(seed)
    X = np.column_stack([
        random.choice([0.1, 0.2, 0.7], size=3000),
        random.choice([19.99, 4.99], size=3000),
        random.integers(0, 3, size=3000) / 3,
    ])  # fmt: skip
    baseline = Baseline.fit(X, model="m", version="1", features=["a", "b", "c"])
    trained_short = Baseline.fit(X.astype(np.float32), model="m", version="1", features=["a", "b", "c"])
    for one in (baseline, trained_short):
        doubles = Counted(model(one)).matrices(X[:500]).counts
        assert Counted(model(one)).matrices(X[:500].astype(np.float32)).counts == doubles
        assert all(sum(count > 0 for count in counts) > 2 for counts in doubles.values())


def test_directions_are_found_on_other_rows_than_are_counted() -> None:
    """Else the smallest components of few rows look smaller than they are, and every later row drifted."""
    X = np.random.default_rng(0).normal(size=(1000, 100))
    baseline = Baseline.fit(X, model="m", version="1", features=[f"x{i}" for i in range(100)])
    later = np.random.default_rng(1).normal(size=(5000, 100))
    for projection in baseline.projections:
        assert projection.summary.n == 500
        assert projection.summary.std == pytest.approx(projection.values(later).std(), rel=0.12)


def test_a_rare_value_is_no_spread() -> None:
    """A feature of which more than 98 % are one value is in no projection."""
    X = correlated(1000, seed=0)
    X[:, 0] = 0
    X[::200, 0] = 1
    (first, *_) = Baseline.fit(X, model="m", version="1", features=NAMES).projections
    assert first.features == NAMES[1:]


def test_rows_that_alternate_are_in_both_halves() -> None:
    """A table in which each row of one kind is followed by one of another has both kinds in its counts."""
    X = correlated(2000, seed=0)
    X[::2] += 20
    (first, *_) = Baseline.fit(X, model="m", version="1", features=NAMES).projections
    high = first.summary.bucket_counts[len(first.summary.bucket_counts) // 2 :].sum()
    assert 450 < high < 550


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_row_or_two_have_no_direction(rows: int) -> None:
    """Nor is there anything to be said of one."""
    with pytest.warns(UserWarning, match=f"has {rows} rows"):
        made = Baseline.fit(np.eye(rows, 3), model="m", version="1", features=list("abc")).projections
    assert len(made) <= 2


def test_where_half_of_the_rows_is_missing_there_may_be_no_direction() -> None:
    """The rows that find it can be those that have nothing."""
    X = np.full((600, 3), np.nan)
    counted = np.random.default_rng(0).permutation(600) % 2 == 1
    X[counted] = np.random.default_rng(1).normal(size=(300, 3))
    assert Baseline.fit(X, model="m", version="1", features=list("abc")).projections == ()


def test_a_file_keeps_projections_and_one_without_them_is_read() -> None:
    """The id covers them."""
    again = Baseline.from_json(BASELINE.to_json())
    assert again.id == BASELINE.id
    X = correlated(50, seed=3)
    assert Counted(model(again)).matrices(X).counts == expected(X)
    without = Baseline.fit(
        correlated(4000, seed=0), model="m", version="1", features=NAMES, projections=False,
        created_at=BASELINE.created_at,
    )  # fmt: skip
    assert Baseline.from_json(without.to_json()).projections == ()
    assert without.id != BASELINE.id
