"""Feature counts equal a count by hand for every kind of input, in every precision.

The count by hand is plain Python over plain rows: it shares no code with otel_ml, and reads of the baseline only its
bounds.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, namedtuple
from collections.abc import Callable, Iterable
from dataclasses import make_dataclass
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from support import by_name

from otel_ml import Baseline, observe, pipeline
from otel_ml.baseline import NumericSummary

NAMES = ["amount", "age", "plan"]
ALLOWED = {"amount": (-60.0, 60.0), "age": (0.0, 120.0)}
PLANS = {"0", "1", "2", "3"}

Row = tuple[float, float, float]
Counted = dict[str, Any]
Form = Callable[[list[Row]], Any]


def _trained() -> Baseline:
    rng = np.random.default_rng(7)
    amounts = np.round(rng.normal(0, 20, 3000)).clip(-60, 60)
    amounts[:600] = 0.0
    X = np.column_stack([amounts, rng.integers(18, 80, 3000), rng.integers(0, 4, 3000)])
    return Baseline.fit(
        X, model="churn", version="3", features=NAMES, categorical=["plan"], allowed=ALLOWED, quantiles=False,
        projections=False,
    )  # fmt: skip


def bounds_of(baseline: Baseline, name: str) -> list[float]:
    """The upper edges of a feature's buckets."""
    summary = baseline.features[name]
    assert isinstance(summary, NumericSummary)
    bounds: list[float] = summary.bounds.tolist()
    return bounds


BASELINE = _trained()
BOUNDS = {name: bounds_of(BASELINE, name) for name in NAMES[:2]}


def by_hand(rows: list[Row]) -> Counted:
    """States, buckets and categories of rows, one value at a time."""
    states: dict[str, Counter[str]] = {name: Counter() for name in NAMES}
    buckets = {name: [0] * (len(bounds) + 1) for name, bounds in BOUNDS.items()}
    plans: Counter[str] = Counter()
    for row in rows:
        for name, value in zip(NAMES[:2], row, strict=False):
            low, high = ALLOWED[name]
            if math.isnan(value):
                states[name]["missing"] += 1
                continue
            if math.isinf(value):
                states[name]["non_finite"] += 1
                continue
            states[name]["ok" if low <= value <= high else "out_of_range"] += 1
            place = 0
            while place < len(BOUNDS[name]) and value > BOUNDS[name][place]:
                place += 1
            buckets[name][place] += 1
        if math.isnan(row[2]):
            states["plan"]["missing"] += 1
            continue
        known = str(int(row[2])) in PLANS
        states["plan"]["ok" if known else "unseen"] += 1
        plans[str(int(row[2])) if known else "__unseen__"] += 1
    return {"rows": len(rows), "states": states, "buckets": buckets, "plans": plans}


def counted(inputs: Iterable[Any], baseline: Baseline | None = BASELINE, **options: Any) -> Counted:
    """What a service exports after it was given `inputs`, call by call."""
    pipeline.reset()
    reader = InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    predict: Any = observe("churn", "3", baseline=baseline, spans="off", **options)(lambda X: None)
    for x in inputs:
        predict(x)
    points = by_name(reader.get_metrics_data())
    states: dict[str, Counter[str]] = {name: Counter() for name in NAMES}
    for p in points.get("ml.feature.observations", []):
        if p.value:
            name = p.attributes["ml.feature.name"]
            states.setdefault(name, Counter())[p.attributes["ml.feature.state"]] = p.value
    return {
        "rows": sum(p.value for p in points["ml.inference.rows"]),
        "states": states,
        "buckets": {
            p.attributes["ml.feature.name"]: list(getattr(p, "bucket_counts", [p.count]))
            for p in points.get("ml.feature.value", [])
        },
        "plans": Counter(
            {
                p.attributes["ml.feature.category"]: p.value
                for p in points.get("ml.feature.categories", [])
                if p.value
            }
        ),
    }


# --- the kinds of input -----------------------------------------------------------------------------------


def array(rows: list[Row]) -> Any:
    """Rows as float64, n × 3."""
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def as_dtype(dtype: str) -> Form:
    """Rows as an array of another type."""
    return lambda rows: array(rows).astype(dtype)


def read_only(rows: list[Row]) -> Any:
    """An array that cannot be written to."""
    x = array(rows)
    x.flags.writeable = False
    return x


def structured(rows: list[Row]) -> Any:
    """One field a column, of three types."""
    kinds = [("amount", "f4"), ("age", "f8"), ("plan", "f2")]
    return np.array([tuple(row) for row in rows], dtype=kinds)


def with_none(value: float) -> float | None:
    """None for a missing value, as records from JSON have it."""
    return None if math.isnan(value) else value


def records(rows: list[Row]) -> list[dict[str, Any]]:
    """One dict a row; what is missing has no key."""
    return [{name: v for name, v in zip(NAMES, row, strict=True) if v == v} or {"plan": None} for row in rows]


def frame(rows: list[Row]) -> Any:
    """A pandas frame of floats."""
    return pd.DataFrame(array(rows), columns=NAMES)


def nullable(rows: list[Row]) -> Any:
    """A pandas frame of nullable types."""
    plans = pd.array([pd.NA if v != v else int(v) for *_, v in rows], dtype="Int16")
    amounts = pd.array([with_none(row[0]) for row in rows], dtype="Float32")
    ages = pd.array([with_none(row[1]) for row in rows], dtype="Float64")
    return pd.DataFrame({"plan": plans, "amount": amounts, "age": ages})


def mixed(rows: list[Row]) -> Any:
    """A pandas frame of a category, objects and float32, in another order and with a second column of one name."""
    x = array(rows)
    columns = {"plan": pd.Categorical(x[:, 2]), "age": [with_none(v) for v in x[:, 1].tolist()]}
    made = pd.DataFrame(columns).assign(amount=x[:, 0].astype("f4"))
    made["age"] = made["age"].astype(object)
    return pd.concat([made, pd.DataFrame({"amount": np.full(len(x), 5.0)})], axis=1)


def categorical(rows: list[Row]) -> Any:
    """A pandas frame of a category with all that it can be, whole numbers where all are, and float32."""
    made = pd.DataFrame(array(rows).astype("f4"), columns=NAMES)
    kind = pd.CategoricalDtype([float(plan) for plan in range(7)])
    age = array(rows)[:, 1] if np.isnan(array(rows)[:, 1]).any() else array(rows)[:, 1].astype(int)
    return made.assign(plan=pd.Series(array(rows)[:, 2]).astype(kind), age=age)


def columns_of(rows: list[Row]) -> dict[str, list[float | None]]:
    """A dict of columns with None for what is missing."""
    return {name: [with_none(row[j]) for row in rows] for j, name in enumerate(NAMES)}


def polars(rows: list[Row]) -> Any:
    """A polars frame with nulls and a categorical column."""
    plans = [None if v != v else str(int(v)) for *_, v in rows]
    numbers = {name: pl.Series(columns_of(rows)[name], dtype=pl.Float64) for name in ("age", "amount")}
    return pl.DataFrame({"plan": pl.Series(plans, dtype=pl.Categorical), **numbers})


def arrow(rows: list[Row]) -> Any:
    """A pyarrow table with nulls."""
    return pa.table({name: pa.array(values, pa.float64()) for name, values in columns_of(rows).items()})


def masked(rows: list[Row]) -> Any:
    """A masked array: what is missing has 5 behind its mask."""
    x = array(rows)
    return np.ma.MaskedArray(np.where(np.isnan(x), 5.0, x), mask=np.isnan(x))


def in_halves(rows: list[Row]) -> Any:
    """A sparse matrix that holds each entry as two of half its size."""
    x = array(rows)
    i, j = np.indices(x.shape).reshape(2, -1)
    return sp.coo_array((np.tile(x.ravel() / 2, 2), (np.tile(i, 2), np.tile(j, 2))), shape=x.shape)


NamedRow = namedtuple("NamedRow", ["plan", "amount", "age"])
DataRow = make_dataclass("DataRow", ["age", "plan", "amount"])


def fields(row: Row) -> dict[str, Any]:
    """A row by name, None for what is missing."""
    return {name: with_none(value) for name, value in zip(NAMES, row, strict=True)}


BATCHES: dict[str, Form] = {
    "float64": array,
    "float32": as_dtype("f4"),
    "float16": as_dtype("f2"),
    "longdouble": as_dtype("g"),
    "big-endian": as_dtype(">f8"),
    "object": as_dtype("O"),
    "column by column": lambda rows: np.asfortranarray(array(rows)),
    "every other column": lambda rows: np.repeat(array(rows), 2, axis=1)[:, ::2],
    "backwards": lambda rows: np.ascontiguousarray(array(rows)[::-1, ::-1])[::-1, ::-1],
    "read-only": read_only,
    "masked": masked,
    "structured": structured,
    "record array": lambda rows: structured(rows).view(np.recarray),
    "list of lists": lambda rows: [list(row) for row in rows],
    "list of lists with None": lambda rows: [[with_none(v) for v in row] for row in rows],
    "tuple of tuples": lambda rows: tuple(map(tuple, rows)),
    "list of arrays": lambda rows: list(array(rows)),
    "records": records,
    "named tuples": lambda rows: [NamedRow(**fields(row)) for row in rows],
    "dataclasses": lambda rows: [DataRow(**fields(row)) for row in rows],
    "dict of lists": columns_of,
    "dict of arrays": lambda rows: {name: array(rows)[:, j] for j, name in enumerate(NAMES)},
    "dict of pandas series": lambda rows: dict(frame(rows).items()),
    "pandas": frame,
    "pandas, other order": lambda rows: frame(rows)[["plan", "age", "amount"]],
    "pandas, no names": lambda rows: pd.DataFrame(array(rows)),
    "pandas, nullable": nullable,
    "pandas, arrow types": lambda rows: arrow(rows).to_pandas(types_mapper=pd.ArrowDtype),
    "pandas, mixed": mixed,
    "pandas, categorical": categorical,
    "pandas, sparse": lambda rows: frame(rows).astype(pd.SparseDtype("f8", 0.0)),
    "polars": polars,
    "pyarrow": arrow,
    "pyarrow batch": lambda rows: arrow(rows).to_batches()[0],
    "csr": lambda rows: sp.csr_matrix(array(rows)),
    "csc": lambda rows: sp.csc_array(array(rows)),
    "coo, entries given in halves": in_halves,
    "lil": lambda rows: sp.lil_array(array(rows)),
    "dok": lambda rows: sp.dok_matrix(array(rows)),
}
"""How n rows can be given."""

SINGLE: dict[str, Callable[[Row], Any]] = {
    "array": lambda row: np.array(row),
    "n x 1": lambda row: np.array([row], dtype="f4"),
    "list": list,
    "tuple with None": lambda row: tuple(map(with_none, row)),
    "dict": fields,
    "named tuple": lambda row: NamedRow(**fields(row)),
    "dataclass": lambda row: DataRow(**fields(row)),
    "frame": lambda row: frame([row]),
    "frame, nullable": lambda row: nullable([row]),
    "frame, mixed": lambda row: mixed([row]),
    "frame, categorical": lambda row: categorical([row]),
    "frame, arrow types": lambda row: arrow([row]).to_pandas(types_mapper=pd.ArrowDtype),
    "row of a frame": lambda row: frame([row])[["age", "plan", "amount"]].iloc[0],
    "polars series": lambda row: pl.Series(row),
    "pyarrow array": lambda row: pa.array(row),
    "structured": lambda row: structured([row])[0],
    "masked": lambda row: masked([row])[0],
    "sparse": lambda row: sp.csr_array(array([row])),
}
"""How one row can be given."""

amounts = st.one_of(
    st.floats(-80, 80, width=16), st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 60.0, -60.0])
)
ages = st.one_of(st.integers(-5, 130).map(float), st.just(math.nan))
plans = st.one_of(st.integers(0, 6).map(float), st.just(math.nan))
tables = st.lists(st.tuples(amounts, ages, plans), min_size=1, max_size=25)
whole = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 127), st.integers(0, 6)), min_size=1, max_size=25
)
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def parts(rows: list[Row], calls: int) -> list[list[Row]]:
    """The rows in up to `calls` calls."""
    size = -(-len(rows) // calls)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@pytest.mark.parametrize("form", BATCHES.values(), ids=BATCHES.keys())
@few
@given(rows=tables, calls=st.integers(1, 3))
def test_every_kind_of_batch_is_counted_exactly(form: Form, rows: list[Row], calls: int) -> None:
    """States, buckets and categories, in one call or several."""
    assert counted(map(form, parts(rows, calls))) == by_hand(rows)


@pytest.mark.parametrize("form", SINGLE.values(), ids=SINGLE.keys())
@few
@given(rows=tables)
def test_every_kind_of_single_row_is_counted_exactly(form: Callable[[Row], Any], rows: list[Row]) -> None:
    """A call for each row."""
    assert counted(map(form, rows)) == by_hand(rows)


def test_calls_of_every_kind_can_follow_each_other() -> None:
    """What one call looks like does not change how another is counted."""
    rows: list[Row] = [(1.5, 20.0, 1.0), (math.nan, 30.0, 5.0), (70.0, math.nan, math.nan)]
    given = [form(rows) for form in BATCHES.values()] + [
        form(row) for form in SINGLE.values() for row in rows
    ]
    assert counted(given) == by_hand(rows * (len(BATCHES) + len(SINGLE)))


INTEGERS = ["i1", "u1", "i2", "i4", "i8", "u8", ">i4", "f2", "f4", "f8", "g", "O"]
CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "array": lambda x: x,
    "pandas": lambda x: pd.DataFrame(x, columns=NAMES),
    "dict": lambda x: {name: x[:, j] for j, name in enumerate(NAMES)},
    "list": lambda x: x.tolist(),
    "sparse": lambda x: sp.csc_matrix(x if x.dtype.kind in "iu" else x.astype(float)),
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS.keys())
@few
@given(rows=whole)
def test_whole_numbers_count_the_same_in_every_type(
    container: Callable[[Any], Any], rows: list[tuple[int, int, int]]
) -> None:
    """Signed, unsigned, half, single, double and extended precision, and Python's own."""
    expected = by_hand([(float(a), float(b), float(c)) for a, b, c in rows])
    for dtype in INTEGERS:
        kind = np.dtype(dtype)
        if kind.byteorder == ">" and container is CONTAINERS["sparse"]:
            continue  # scipy has no such matrices
        assert counted([container(np.array(rows).astype(kind))]) == expected, dtype


@few
@given(cents=st.lists(st.integers(-900, 900), min_size=30, max_size=80))
def test_decimals_count_the_same_in_single_and_double(cents: list[int]) -> None:
    """Whichever was trained on, and whatever they come in; a category 0.1 of a float32 is the category 0.1."""
    double = np.column_stack([np.array(cents) / 100, np.resize([0.1, 0.7], len(cents))])
    single = double.astype(np.float32)
    served = [
        made
        for x in (double, single)
        for made in (
            x, np.asfortranarray(x), pd.DataFrame(x, columns=["v", "k"]), {"v": x[:, 0], "k": x[:, 1]},
            pl.DataFrame({"v": x[:, 0], "k": x[:, 1]}), pa.table({"k": x[:, 1], "v": x[:, 0]}), sp.csr_array(x),
            np.ma.MaskedArray(x, mask=False), list(x),
        )
    ]  # fmt: skip
    for trained in (double, single):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            baseline = Baseline.fit(
                trained, model="m", version="1", features=["v", "k"], categorical=["k"], resolution="standard"
            )
        bounds = bounds_of(baseline, "v")
        expected = [0] * (len(bounds) + 1)
        for value in double[:, 0].tolist():
            expected[sum(value > bound for bound in bounds)] += 1
        for x in served:
            made = counted([x], baseline)
            assert made["buckets"] == {"v": expected}
            assert made["states"]["v"] == made["states"]["k"] == {"ok": len(cents)}
        together = counted(served, baseline)
        assert together["buckets"] == {"v": [len(served) * n for n in expected]}
        assert together["states"]["k"] == {"ok": len(served) * len(cents)}


def loosely(rows: list[Row]) -> dict[str, Counter[str]]:
    """States without a baseline: nothing is out of range or unseen."""
    found = {name: Counter[str]() for name in NAMES}
    for row in rows:
        for name, value in zip(NAMES, row, strict=True):
            state = "missing" if math.isnan(value) else "non_finite" if math.isinf(value) else "ok"
            found[name][state] += 1
    return found


NUMERIC_PLANS = {
    name: form
    for name, form in BATCHES.items()
    if name not in ("polars", "pandas, mixed", "pandas, categorical")
}


@pytest.mark.parametrize("form", NUMERIC_PLANS.values(), ids=NUMERIC_PLANS.keys())
@few
@given(rows=tables, calls=st.integers(1, 3))
def test_states_without_a_baseline(form: Form, rows: list[Row], calls: int) -> None:
    """Declared names are enough: every finite number is in the histogram, every value has its state."""
    made = counted(map(form, parts(rows, calls)), None, features=NAMES)
    assert made["states"] == loosely(rows)
    finite = {name: sum(map(math.isfinite, values)) for name, *values in zip(NAMES, *rows, strict=True)}
    assert {name: sum(counts) for name, counts in made["buckets"].items()} == {
        name: finite[name] for name in made["buckets"]
    }


documents = st.lists(st.one_of(st.text(max_size=12), st.none()), min_size=1, max_size=20).filter(any)
DOCUMENTS: dict[str, Callable[[list[str | None]], Any]] = {
    "list": list,
    "array": lambda texts: np.array(texts, dtype=object),
    "pandas": pd.Series,
    "pandas, named": lambda texts: pd.Series(texts, name="body"),
    "polars": lambda texts: pl.Series("body", texts, dtype=pl.String),
}


@pytest.mark.parametrize("form", DOCUMENTS.values(), ids=DOCUMENTS.keys())
@few
@given(texts=documents)
def test_documents_are_one_opaque_feature(form: Callable[[list[str | None]], Any], texts: list[Any]) -> None:
    """With a baseline of documents in another form, and without one; no text leaves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        baseline = Baseline.fit(["ok"] * 600, model="m", version="1")
    missing = sum(text is None for text in texts)
    expected = Counter(ok=len(texts) - missing, missing=missing)
    for known in (baseline, None):
        made = counted([form(texts)], known)
        ((_, states),) = [(name, states) for name, states in made["states"].items() if states]
        assert (made["rows"], states, made["plans"], made["buckets"]) == (len(texts), +expected, {}, {})


# --- what the counts are good for -------------------------------------------------------------------------


def distance(reference: list[float], current: list[float]) -> float:
    """The Kolmogorov-Smirnov distance, by its definition."""
    return max(
        abs(sum(v <= x for v in reference) / len(reference) - sum(v <= x for v in current) / len(current))
        for x in {*reference, *current}
    )


numbers = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
SERVED: dict[str, Callable[[list[float]], Any]] = {
    "array": lambda values: np.array(values)[:, None],
    "single": lambda values: np.array(values, dtype="f4")[:, None],
    "dict": lambda values: {"amount": values},
}


def neighbours(bound: float) -> list[float]:
    """The float32 at a bound and those beside it; what float32 has no normal number for is zero."""
    at = np.float32(bound)
    found = [
        float(v) for v in (np.nextafter(at, np.float32(-np.inf)), at, np.nextafter(at, np.float32(np.inf)))
    ]
    return [v if abs(v) >= float(np.finfo(np.float32).tiny) else 0.0 for v in found]


@pytest.mark.parametrize("form", SERVED.values(), ids=SERVED.keys())
@few
@given(data=st.data(), reference=st.lists(numbers, min_size=20, max_size=60), tied=st.booleans())
def test_exported_counts_bracket_the_exact_distance(
    form: Callable[[list[float]], Any], data: st.DataObject, reference: list[float], tied: bool
) -> None:
    """KS of the exported buckets <= KS <= that + 1/20 + 1/n, for values on, just beside and far from the bounds."""
    reference = [*reference, *[0.0] * len(reference)] if tied else reference
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        baseline = Baseline.fit({"amount": reference}, model="m", version="1")
    summary = baseline.features["amount"]
    assert isinstance(summary, NumericSummary)
    hard = [v for bound in summary.bounds.tolist() for v in neighbours(bound)]
    current = data.draw(st.lists(st.one_of(st.sampled_from([*hard, *reference]), numbers), min_size=1))
    served = counted([form(current)], baseline)["buckets"]["amount"]
    binned = 0.0
    theirs = mine = 0
    for a, b in zip(summary.bucket_counts.tolist(), served, strict=True):
        theirs, mine = theirs + a, mine + b
        binned = max(binned, abs(theirs / len(reference) - mine / len(current)))
    exact = distance(reference, current)
    assert binned <= exact + 1e-12
    assert exact <= binned + 1 / 20 + 1 / len(reference) + 1e-12
