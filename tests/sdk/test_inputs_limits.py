"""What is beyond a limit is counted where a person can see it and said once; no raw value leaves."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from support import select

from otel_ml import Baseline, observe

SECRET = "Jane Doe, born 1980, jane@example.org"


def observed(function: Any = lambda X: None, baseline: Baseline | None = None) -> Any:
    """A function that is recorded."""
    return observe("churn", "3", baseline=baseline, spans="off")(function)


def dropped(points: Any) -> dict[str, int]:
    """Rows by reason."""
    return {p.attributes["reason"]: p.value for p in points.get("otel_ml.dropped", [])}


def violations(points: Any) -> dict[tuple[str, str], int]:
    """Rows by reason and column."""
    return {
        (p.attributes["reason"], p.attributes.get("ml.feature.name", "")): p.value
        for p in points.get("otel_ml.schema.violations", [])
    }


def wide(rows: int, width: int) -> Any:
    """A frame of many columns."""
    return pd.DataFrame(np.zeros((rows, width)), columns=[f"f{i}" for i in range(width)])


@pytest.mark.parametrize("form", [lambda X: X, lambda X: X.to_numpy(), lambda X: X.to_dict("records")])
def test_features_beyond_the_limit_are_counted(
    form: Any, collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The first 200 are recorded; the rows that had more are in `otel_ml.dropped`, at every call."""
    predict = observed()
    for _ in range(3):
        predict(form(wide(2, 201)))
    points = collect()
    assert len(points["ml.feature.value"]) == 200
    assert dropped(points) == {"feature_limit": 6}
    assert caplog.messages == [
        "model churn version 3: the input has more than 200 features; the first ones are recorded"
    ]


def test_features_beyond_the_limit_of_a_baseline_are_counted(
    collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The most important ones are recorded."""
    X = wide(600, 201) + np.arange(600.0)[:, None]
    baseline = Baseline.fit(X, model="churn", version="3", projections=False)
    predict = observed(baseline=baseline)
    predict(X)
    predict(X.to_numpy())
    points = collect()
    assert len(points["ml.feature.value"]) == 200
    assert dropped(points) == {"feature_limit": 1200}
    assert caplog.messages == [
        "model churn version 3: the baseline has more than 200 features; the most important are recorded"
    ]


def test_just_as_many_features_as_there_may_be(collect: Any) -> None:
    """Nothing is beyond the limit."""
    observed()(wide(2, 200))
    assert dropped(collect()) == {}


def test_labels_beyond_the_limit_are_counted_together(collect: Any, caplog: pytest.LogCaptureFixture) -> None:
    """20 have a series of their own."""
    observed(lambda X: [f"label {i}" for i in range(25)])(np.zeros((25, 1)))
    counts = {p.attributes["ml.prediction.label"]: p.value for p in collect()["ml.predictions"]}
    assert counts == {f"label {i}": 1 for i in range(20)} | {"__other__": 5}
    assert caplog.messages == [
        "model churn version 3: more than 20 different labels; the others count as __other__"
    ]


def test_error_types_beyond_the_limit_are_counted_together(
    collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """20 have a series of their own."""

    def fails(kind: type[Exception]) -> None:
        raise kind

    predict = observe("churn", "3", input=lambda kind: None, spans="off")(fails)
    for i in range(25):
        with suppress(Exception):
            predict(type(f"Error{i}", (Exception,), {"__module__": "builtins"}))
    counts = {p.attributes["error.type"]: p.count for p in collect()["ml.inference.duration"]}
    assert counts == {f"Error{i}": 1 for i in range(20)} | {"__other__": 5}
    assert [m for m in caplog.messages if "more than" in m] == [
        "model churn version 3: more than 20 error types; the others count as __other__"
    ]


def test_unknown_columns_beyond_the_limit_are_counted_together(
    baseline: Baseline, collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """20 are named, here and in the log."""
    known = {"a": 0.0, "b": -50.0, "c": 1}
    predict = observed(baseline=baseline)
    predict([{**known, **{f"k{i}": 0 for i in range(25)}}] * 2)
    assert violations(collect()) == {("extra", f"k{i}"): 2 for i in range(20)} | {("extra", "__other__"): 10}
    assert caplog.messages[-1] == (
        "model churn version 3: more than 20 of the input's columns are not in the baseline; the others count as "
        "'__other__'"
    )
    assert len(caplog.messages) == 21


def test_categories_beyond_the_limit_are_counted_together(collect: Any) -> None:
    """Those that the baseline does not name."""
    values = [f"c{i:02}" for i in range(30) for _ in range(20)]
    observed(baseline=Baseline.fit({"k": values}, model="churn", version="3"))({"k": values})
    counts = {p.attributes["ml.feature.category"]: p.value for p in collect()["ml.feature.categories"]}
    assert counts == {f"c{i:02}": 20 for i in range(20)} | {"__other__": 200}


def test_a_declared_feature_that_is_not_given_is_missing(
    collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a baseline the names alone say which features there should be."""
    observe("churn", "3", features=["a", "b"], spans="off")(lambda X: None)([{"a": 1.0}, {"a": 2.0}])
    points = collect()
    (point,) = select(points["ml.feature.observations"], ml__feature__name="b", ml__feature__state="missing")
    assert point.value == 2
    assert violations(points) == {("missing", "b"): 2}
    assert len(caplog.messages) == 1


# --- privacy ----------------------------------------------------------------------------------------------


def sent(reader: Any, spans: Any) -> str:
    """Everything that leaves the process, as text."""
    metrics = encode_metrics(reader.get_metrics_data())
    return str(metrics) + "".join(span.to_json() for span in spans.get_finished_spans())


@pytest.mark.parametrize(
    "given",
    [
        {"note": SECRET, "age": 41.5},
        {"note": [SECRET] * 30, "age": [41.5] * 30},
        [[SECRET, 41.5]],
        [SECRET] * 40,
        pd.DataFrame({"note": pd.Categorical([SECRET] * 30), "age": 41.5}),
        {"note": SECRET.encode(), "age": 41.5},
    ],
    ids=["row", "columns", "list", "documents", "pandas", "bytes"],
)
def test_texts_never_leave_without_a_baseline(given: Any, reader: Any, spans: Any) -> None:
    """However often they occur; neither on metrics nor on spans."""
    observe("churn", "3")(lambda X: 0.5)(given)
    assert "Jane" not in sent(reader, spans)
    assert "churn" in sent(reader, spans)


def test_what_the_baseline_does_not_name_never_leaves(reader: Any, spans: Any) -> None:
    """Rare categories, identifiers and documents: they are neither in the file nor on the wire."""
    X = {
        "city": ["Oslo"] * 595 + [SECRET] * 5,
        "id": [f"{SECRET} {i}" for i in range(600)],
        "note": [f"{SECRET} {i % 400}" for i in range(600)],
    }
    baseline = Baseline.fit(X, model="churn", version="3")
    observe("churn", "3", baseline=baseline)(lambda X: 0.5)(
        {name: values[-20:] for name, values in X.items()}
    )
    assert "Jane" not in baseline.to_json()
    assert "Jane" not in sent(reader, spans)
    assert "Oslo" in sent(reader, spans)


def test_rows_never_leave(reader: Any, spans: Any, baseline: Baseline) -> None:
    """Of a call with many rows no value of a feature, of one with a baseline neither; a number is in a bucket."""
    observe("churn", "3", baseline=baseline)(lambda X: 0.5)({"a": 0.1234567, "b": -51.7654321, "c": 1})
    assert "1234567" not in sent(reader, spans)
    assert "7654321" not in sent(reader, spans)


def test_long_names_are_cut(reader: Any, spans: Any, baseline: Baseline) -> None:
    """A text that is used as the name of a column leaves no more than its first 48 characters."""
    name = SECRET * 10
    cut = f"{name[:48]}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    for known in (None, baseline):
        observe("churn", "3", baseline=known)(lambda X: 0.5)({name: 1.0})
    text = sent(reader, spans)
    assert name not in text
    assert cut in text


def test_labels_leave_and_are_cut(reader: Any, spans: Any) -> None:
    """A function that returns free text sends the beginning of it: that is documented."""
    observe("churn", "3")(lambda X: SECRET * 10)([[0.0]])
    text = sent(reader, spans)
    assert SECRET * 2 not in text
    assert SECRET in text


def test_the_message_of_an_exception_is_on_the_span_only(reader: Any, spans: Any) -> None:
    """Metrics have its type; without spans the message stays where it is."""

    def fails(X: Any) -> None:
        raise KeyError(SECRET)

    for mode in ("all", "off"):
        with pytest.raises(KeyError):
            observe("churn", "3", spans=mode)(fails)([[0.0]])
    assert "Jane" not in str(encode_metrics(reader.get_metrics_data()))
    assert [
        json.loads(span.to_json())["attributes"]["error.type"] for span in spans.get_finished_spans()
    ] == ["KeyError"]
    assert SECRET in "".join(span.to_json() for span in spans.get_finished_spans())
