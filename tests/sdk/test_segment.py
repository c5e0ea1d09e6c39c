"""Segments: which slice a row is in, and that the slices of every series add up to all rows."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sklearn.linear_model import LogisticRegression
from support import Points, by_name, select

import otel_ml
from otel_ml import Baseline, ConfigurationError, Segment, pipeline, sampling, wire

REGIONS = ("eu", "us", "asia", "moon", None)
COLUMNS = ("age", "income", "region", "plan")
REGION = "ml.segment.region"


def customers(rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows with missing values, infinities and regions that nobody listed."""
    random = np.random.default_rng(seed)
    age, income = random.normal(40, 10, rows), random.lognormal(3, 1, rows)
    age[::7], income[::11] = np.nan, np.inf
    region = np.array(REGIONS, dtype=object)[random.integers(0, len(REGIONS), rows)]
    plan = np.array(["basic", "family", "gold"], dtype=object)[random.integers(0, 3, rows)]
    return pd.DataFrame(dict(zip(COLUMNS, (age, income, region, plan), strict=True)))


BASELINE = Baseline.fit(
    customers(2000, 1), model="churn", version="3", exclude=["region"], scores=np.linspace(0, 1, 2000)
)
SEGMENT = Segment("region", values=("eu", "us"), features=("age", "plan"))


def record(calls: list[Any], *, score: Any = None, **options: Any) -> Points:
    """Points after a decorated function was given each of `calls`."""
    reader = InMemoryMetricReader()
    pipeline.reset()
    pipeline.use(meter_provider=MeterProvider([reader]))
    answer = score or (lambda rows: np.linspace(0, 1, len(rows["age"] if isinstance(rows, dict) else rows)))
    options = {"baseline": BASELINE, **options}
    predict = otel_ml.observe(model="churn", version="3", spans="off", **options)(answer)
    for rows in calls:
        predict(rows)
    return by_name(reader.get_metrics_data())


def total(points: Points, *, without: str = "") -> dict[Any, Any]:
    """Counts of every series but the baseline's and our own, added up over the values of one attribute."""
    found: dict[Any, Any] = {}
    for name, several in points.items():
        for point in several if name.startswith("ml.") and not name.startswith("ml.baseline") else ():
            if name == "ml.inference.duration":
                continue
            key = name, frozenset((k, v) for k, v in point.attributes.items() if k != without)
            counts = np.array(getattr(point, "bucket_counts", getattr(point, "value", 0)))
            found[key] = found.get(key, 0) + counts
    return {key: counts.tolist() for key, counts in found.items() if counts.any()}


def by_segment(points: Points, metric: str, **attributes: str) -> dict[str | None, int]:
    """Rows of a series by the value of the segment."""
    rows: Counter[str | None] = Counter()
    for point in select(points.get(metric, []), **attributes):
        rows[point.attributes.get(REGION)] += getattr(point, "count", None) or getattr(point, "value", 0)
    return {name: number for name, number in rows.items() if number}


def regions(rows: pd.DataFrame) -> dict[str, int]:
    """Rows of each region, one by one."""
    return dict(Counter(value if value in ("eu", "us") else "__other__" for value in rows["region"]))


# --- the sum is the whole -----------------------------------------------------------------------------------

FORMS = {
    "pandas": lambda frame: frame,
    "polars": lambda frame: pl.from_pandas(frame.assign(income=frame["income"])),
    "dict of columns": lambda frame: {name: frame[name].to_numpy() for name in COLUMNS},
    "list of dicts": lambda frame: frame.to_dict("records"),
    "array of objects": lambda frame: frame.to_numpy(dtype=object),
    "list of rows": lambda frame: frame.to_numpy(dtype=object).tolist(),
}


@pytest.mark.parametrize("form", FORMS)
def test_segments_add_up_to_what_is_counted_without(form: str) -> None:
    """Whatever the form of the input, the series of all values together are the series without a segment."""
    frame = customers(300)
    calls = [FORMS[form](frame[a:b]) for a, b in ((0, 1), (1, 2), (2, 40), (40, 300))]
    cut = record(calls, segment=SEGMENT)
    assert total(cut, without=REGION) == total(record(calls))
    assert by_segment(cut, "ml.feature.observations", ml__feature__name="age") == regions(frame)
    assert by_segment(cut, "ml.feature.observations", ml__feature__name="income") == {None: 300}
    assert by_segment(cut, "ml.prediction.score") == regions(frame)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(["f8", "f4", "i8"]),
    asked=st.booleans(),
    known=st.booleans(),
)
def test_segments_of_matrices_add_up(
    sizes: list[int], seed: int, dtype: str, asked: bool, known: bool
) -> None:
    """One row or many, floats or integers, by column or function, with a baseline or none: nothing lost or doubled."""
    names = [f"f{i}" for i in range(25)]
    random = np.random.default_rng(seed)
    train = random.normal(0, 3, (500, 25)).round(1)
    baseline = Baseline.fit(train, model="churn", version="3", features=names) if known else None
    calls = [random.integers(-3, 4, (n, 25)).astype(dtype) for n in sizes]
    if dtype != "i8":
        calls[0][:, 3] = np.nan
    segment = Segment(lambda X: X[:, 3] if asked else None, key="f3", values=(-1, 0, 1))
    if not asked:
        segment = Segment("f3", values=(-1, 0, 1))
    label = {"score": lambda rows: rows[:, 0].astype(str)}
    options = {"baseline": baseline, "features": names, **label}
    cut = record(calls, segment=segment, **options)
    if known:
        assert total(cut, without="ml.segment.f3") == total(record(calls, **options))
    for name in ("f0", "f19", "f24"):
        expected = Counter[str | None]()
        for value in np.concatenate([X[:, 3] for X in calls]):
            value = str(int(value)) if value in (-1, 0, 1) else "__other__"
            expected[value if name != "f24" else None] += 1
        found: Counter[str | None] = Counter()
        for point in select(cut["ml.feature.observations"], ml__feature__name=name):
            found[point.attributes.get("ml.segment.f3")] += point.value
        assert found == expected
    assert sum(point.value for point in cut["ml.predictions"]) == sum(sizes)


def test_labels_of_a_batch_go_to_their_segments() -> None:
    """The label of each row is counted in that row's segment."""
    frame = customers(200)
    points = record([frame], segment=SEGMENT, score=lambda rows: rows["plan"].to_numpy())
    expected = Counter(
        (region if region in ("eu", "us") else "__other__", plan)
        for region, plan in zip(frame["region"], frame["plan"], strict=True)
    )
    found = {
        (p.attributes[REGION], p.attributes["ml.prediction.label"]): p.value for p in points["ml.predictions"]
    }
    assert found == expected


def test_scores_of_another_number_of_rows_count_as_other() -> None:
    """Output that cannot be laid beside the rows is counted once, as `__other__`; of one segment's rows, as theirs."""
    frame = customers(200)
    one = frame[frame["region"] == "eu"]
    score = lambda rows: np.full(7, 0.5)  # noqa: E731
    assert by_segment(record([frame], segment=SEGMENT, score=score), "ml.prediction.score") == {
        "__other__": 7
    }
    assert by_segment(record([one], segment=SEGMENT, score=score), "ml.prediction.score") == {"eu": 7}


def test_predict_then_predict_proba_keeps_the_segments() -> None:
    """The second question about the same rows adds its scores to the segments of the rows, and no features."""
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 3))
    X[:, 2] = random.integers(0, 3, 300)
    model = LogisticRegression().fit(X, X[:, 0] > 0)
    otel_ml.register(model, name="churn", version="3", spans="off", segment=Segment("x2", values=(0, 1)))
    reader = InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider([reader]))
    otel_ml.instrument()
    try:
        for rows in (X, X[:1]):
            model.predict(rows)
            model.predict_proba(rows)
    finally:
        otel_ml.uninstrument()
    points = by_name(reader.get_metrics_data())
    expected = Counter("__other__" if v == 2 else str(int(v)) for v in [*X[:, 2], X[0, 2]])
    probabilities = select(points["ml.prediction.score"], ml__prediction__score__type="probability")
    for told in (probabilities, points["ml.predictions"]):
        found = Counter[str]()
        for point in told:
            found[point.attributes["ml.segment.x2"]] += getattr(point, "count", None) or point.value
        assert found == expected
    assert sum(p.value for p in select(points["ml.feature.observations"], ml__feature__name="x0")) == 301


# --- which segment ------------------------------------------------------------------------------------------


def test_values_come_from_the_baseline() -> None:
    """A column that the baseline has categories of needs no list: its most frequent ones are the values."""
    frame = customers(500)
    baseline = Baseline.fit(frame, model="churn", version="3")
    points = record([frame], baseline=baseline, segment="region")
    found = by_segment(points, "ml.feature.observations", ml__feature__name="age")
    assert found == {**Counter(frame["region"].dropna()), "__other__": int(frame["region"].isna().sum())}


def test_booleans_are_the_same_as_column_and_in_a_matrix() -> None:
    """True in a frame is 1 in a matrix of numbers, and one value of the segment."""
    segment = Segment("vip", values=(True, False))
    column = np.array([1.0, 0.0, np.nan, 2.0])
    assert np.asarray(segment.codes(column)).tolist() == [0, 1, 2, 2]
    assert np.asarray(segment.codes(np.array([True, False, True]))).tolist() == [0, 1, 0]


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, "", "unknown", ["a"], {"a": 1}])
def test_everything_else_is_other(missing: object) -> None:
    """Missing, unknown and odd values are `__other__`: a value that is not listed makes no series."""
    segment = Segment("region", values=("eu",))
    assert segment.names[segment.code(missing)] == "__other__"


def test_input_without_the_column_is_other(caplog: pytest.LogCaptureFixture) -> None:
    """Rows without the column all count as `__other__`, and it is said once."""
    frame = customers(10).drop(columns="region")
    with caplog.at_level(logging.WARNING):
        points = record([frame, frame], segment=SEGMENT)
    assert by_segment(points, "ml.prediction.score") == {"__other__": 20}
    assert [record.getMessage() for record in caplog.records] == [
        "model churn: its input has no column 'region', which its segment is by; its rows count as __other__"
    ]


def test_a_function_can_know_more_than_the_rows() -> None:
    """A function runs inside the call and may give one value for all rows, as that of the tenant who asks."""
    tenant = ["acme"]
    segment = Segment(lambda rows: tenant[0], key="region", values=("acme", "umbrella"))
    reader = InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider([reader]))
    predict = otel_ml.observe(model="churn", version="3", spans="off", segment=segment)(lambda X: X[:, 0])
    for name in ("acme", "umbrella", "hooli"):
        tenant[0] = name
        predict(np.zeros((5, 2)))
    points = by_name(reader.get_metrics_data())
    found = by_segment(points, "ml.feature.observations", ml__feature__name="x1")
    assert found == {"acme": 5, "umbrella": 5, "__other__": 5}


@pytest.mark.parametrize(
    "by",
    [lambda rows: 1 / 0, lambda rows: ["eu"], lambda rows: np.zeros((2, 2))],
    ids=["fails", "short", "2-d"],
)
def test_a_function_that_fails_costs_no_rows(by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is answered, its rows are `__other__`, and the failure is counted."""
    monkeypatch.delenv("OTEL_PYTHON_ML_RAISE")
    segment = Segment(by, key="region", values=("eu",))
    points = record([np.zeros((5, 4))], segment=segment, baseline=None)
    assert by_segment(points, "ml.feature.observations", ml__feature__name="x0") == {"__other__": 5}
    (errors,) = points["otel_ml.errors"]
    assert (errors.attributes["reason"], errors.value) == ("segment", 1)


def test_models_with_and_without_a_segment_are_counted_apart() -> None:
    """The segment is part of what tells models apart: one with another segment has series of its own."""
    reader = InMemoryMetricReader()
    pipeline.use(meter_provider=MeterProvider([reader]))
    for segment in (None, Segment("x0", values=(0,)), Segment("x1", values=(0,))):
        predict = otel_ml.observe(model="churn", version="3", spans="off", segment=segment)(lambda X: X[:, 0])
        predict(np.zeros((5, 2)))
    points = by_name(reader.get_metrics_data())
    found = select(points["ml.feature.observations"], ml__feature__name="x0")
    assert sorted(sorted(k for k in p.attributes if k.startswith("ml.segment")) for p in found) == [
        [], ["ml.segment.x0"], ["ml.segment.x1"],
    ]  # fmt: skip
    assert {p.value for p in found} == {5}


# --- spans and events ---------------------------------------------------------------------------------------


def test_spans_of_one_row_and_every_event_carry_the_segment(spans: Any, logs: Any) -> None:
    """The span of one row says its segment, that of a batch none; each event says that of its row."""
    predict = otel_ml.observe(
        model="churn", version="3", baseline=BASELINE, segment=SEGMENT, sampler=sampling.Random(1.0)
    )(lambda rows: np.full(len(rows), 0.5))
    frame = customers(20)
    predict(frame[:1])
    predict(frame)
    one, many = spans.get_finished_spans()
    named = [value if value in ("eu", "us") else "__other__" for value in frame["region"]]
    assert one.attributes[REGION] == named[0]
    assert REGION not in many.attributes
    events = [item.log_record.attributes[REGION] for item in logs.get_finished_logs()]
    assert events == [named[0], *named]


def test_shadow_is_marked_everywhere(spans: Any, logs: Any, collect: Any) -> None:
    """Spans, events and every metric about the model say that it is a shadow."""
    predict = otel_ml.observe(
        model="churn", version="4", baseline=BASELINE, variant="challenger", role="shadow", segment=SEGMENT,
        sampler=sampling.Random(1.0),
    )(lambda rows: np.full(len(rows), 0.5))  # fmt: skip
    predict(customers(5))
    with pytest.raises(TypeError):
        predict(None)
    marks = {"ml.variant.name": "challenger", "ml.variant.role": "shadow"}
    emitted = [item.log_record.attributes for item in logs.get_finished_logs()]
    emitted += [span.attributes for span in spans.get_finished_spans()]
    points = collect()
    for name, several in points.items():
        if name.startswith("ml.") and not name.startswith("ml.baseline"):
            emitted += [point.attributes for point in several]
    assert {metric for metric in points if metric.startswith("ml.")} >= {
        "ml.feature.value", "ml.feature.categories", "ml.inference.rows", "ml.sampling.decisions",
    }  # fmt: skip
    assert [attributes for attributes in emitted if not marks.items() <= attributes.items()] == []


# --- limits and errors --------------------------------------------------------------------------------------


def test_series_are_bounded() -> None:
    """At most 20 features by at most 11 values are counted by segment, whatever comes; the rest as without one."""
    names = [f"f{i:02}" for i in range(40)]
    X = np.random.default_rng(0).integers(0, 1000, (5000, 40)).astype(float)
    baseline = Baseline.fit(X, model="churn", version="3", features=names, projections=False)
    points = record([X], baseline=baseline, segment=Segment("f00", values=tuple(range(10))))
    per_feature = Counter(p.attributes["ml.feature.name"] for p in points["ml.feature.value"])
    assert per_feature == {name: 11 if i < 20 else 1 for i, name in enumerate(names)}


def test_prometheus_counts_segments_and_never_sends_a_part() -> None:
    """A feature by segment is as many as it has segments; one that does not fit is left out with all of them."""
    names = [f"f{i:02}" for i in range(40)]
    X = np.random.default_rng(0).integers(0, 4, (200, 40)).astype(float)
    baseline = Baseline.fit(
        np.random.default_rng(1).normal(size=(500, 40)), model="churn", version="3", features=names
    )
    record([X], baseline=baseline, segment=Segment("f00", values=(0, 1, 2)))
    ledger = pipeline.producer()._ledger
    points = [wire.Point(s, s.sketch, s.start, 0, 2) for s in ledger]  # type: ignore[arg-type]
    for metric in wire.metrics(points, prometheus=True):
        if metric.name == "ml.feature.value":
            found = Counter(p.attributes["ml.feature.name"] for p in metric.data.data_points)
    assert set(found.values()) == {4, 1}
    assert sum(found.values()) == wire.PROMETHEUS_FEATURES


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Segment("r", values=range(11)), "at most 10 values, not 11"),
        (lambda: Segment("r", values="eu"), "no list of values"),
        (lambda: Segment("r", values=("eu", None)), "no list of values"),
        (lambda: Segment("r", values=("eu",), features=[f"f{i}" for i in range(21)]), "at most 20 features"),
        (lambda: Segment("r", values=("eu",), features="age"), "no list of names"),
        (lambda: Segment(len), "a segment has a key"),
        (lambda: Segment(3), "not by 3"),  # type: ignore[arg-type]
        (lambda: Segment("r\n"), "a segment has a key"),
        (lambda: record([], segment="region"), "names no categories of it; list them"),
        (lambda: record([], segment=Segment("region", values=("eu",), features=("agee",))), "no feature 'agee'"),
        (lambda: record([], segment=7), "segment=7 is no Segment"),
        (lambda: record([], segment=Segment(len, key="n")), "list them"),
        (lambda: otel_ml.register(object(), name="m", version="1", segment="r"), "list them"),
    ],
)  # fmt: skip
def test_errors_say_the_way_out(make: Any, said: str) -> None:
    """What cannot be right is refused where it is written, with the value seen and what to write instead."""
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_a_lost_baseline_does_not_end_the_program(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the file that would say the values the model is observed, without segments; it is said."""
    monkeypatch.delenv("OTEL_PYTHON_ML_RAISE")
    points = record([customers(5)], baseline=tmp_path / "lost.json", segment="plan")
    assert by_segment(points, "ml.feature.observations", ml__feature__name="plan") == {None: 5}
    assert "model churn: without its baseline it has no segments" in caplog.messages
