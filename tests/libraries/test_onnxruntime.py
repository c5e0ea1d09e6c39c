"""Recorded ONNX Runtime: what each form of input and output is read as, who a session is, and nothing else changed."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from instrumented import Spans, run
from integration import test_examples
from integration.sink import Sink
from numpy.testing import assert_array_equal
from opentelemetry.sdk.trace import ReadableSpan
from pages import assert_shows
from support import Points, select

import otel_ml
from otel_ml import Baseline
from otel_ml.instrument import onnxruntime as ours

ort = pytest.importorskip("onnxruntime", reason="make libraries")
onnx = pytest.importorskip("onnx", reason="make libraries")
skl2onnx = pytest.importorskip("skl2onnx", reason="make libraries")

import pandas as pd  # noqa: E402  # after what may be absent
from sklearn.base import BaseEstimator  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.ensemble import IsolationForest  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:skl2onnx|onnx")

X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
y = (X[:, 0] + X[:, 1] > 0).astype(int)
FRAME = pd.DataFrame({"age": X[:, 0], "income": X[:, 1], "plan": np.where(X[:, 2] > 0, "basic", "family")})


def session(model: Any, example: Any = None, **options: Any) -> Any:
    """A session of the model in ONNX form; `options` are those of `to_onnx`."""
    opset = {"": 15, "ai.onnx.ml": 3}
    made = skl2onnx.to_onnx(model, X[:1] if example is None else example, target_opset=opset, **options)
    return ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])


def classifier(labels: Any = y, **options: Any) -> Any:
    return session(LogisticRegression().fit(X, labels), options={"zipmap": False, **options})


def of_frame() -> Any:
    """A session of a Pipeline on columns: its inputs are named as they are."""
    encode = make_column_transformer((StandardScaler(), ["age", "income"]), (OneHotEncoder(), ["plan"]))
    model = make_pipeline(encode, LogisticRegression()).fit(FRAME, y)
    return session(model, FRAME[:1], options={"zipmap": False})


def graph(
    *outputs: tuple[str, str], shape: Any = ("n", 3), name: str = "net", version: int | None = None
) -> Any:
    """A session of a graph with one input x; `outputs` are names and operators on it."""
    kind = onnx.TensorProto.FLOAT
    nodes = [onnx.helper.make_node(operator, ["x"], [out]) for out, operator in outputs]
    infos = [onnx.helper.make_tensor_value_info(out, kind, shape) for out, _ in outputs]
    made = onnx.helper.make_graph(nodes, name, [onnx.helper.make_tensor_value_info("x", kind, shape)], infos)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8)
    if version is not None:
        model.model_version = version
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def counts(points: Points, metric: str, key: str) -> dict[Any, int]:
    """Counts of a metric's series by one of their attributes."""
    found: dict[Any, int] = {}
    for point in points.get(metric, []):
        name = point.attributes.get(key)
        found[name] = found.get(name, 0) + (point.count if hasattr(point, "count") else point.value)
    return found


def only(spans: Spans) -> ReadableSpan:
    [span] = spans.take()
    return span


# --- outputs ----------------------------------------------------------------------------------------------

OUTPUTS: dict[str, tuple[Callable[[], Any], list[str] | None, str | None, str | None]] = {
    "label and probabilities": (classifier, None, "probability", "1"),
    "label and a ZipMap": (lambda: session(LogisticRegression().fit(X, y)), None, "probability", "1"),
    "label and a column per class": (lambda: classifier(zipmap="columns"), None, "probability", "1"),
    "labels of text": (lambda: classifier(np.where(y, "yes", "no")), None, "probability", "yes"),
    "probabilities alone": (classifier, ["probabilities"], "probability", None),
    "labels alone": (classifier, ["label"], None, "1"),
    "the other way round": (classifier, ["probabilities", "label"], "probability", "1"),
    "regression": (lambda: session(LinearRegression().fit(X, X[:, 0])), None, "value", None),
    "outliers": (
        lambda: session(IsolationForest(n_estimators=3, random_state=0).fit(X)),
        None,
        "anomaly",
        "1",
    ),
    "softmax, which names no labels": (lambda: graph(("p", "Softmax")), None, "probability", "0"),
    "logits": (lambda: graph(("z", "Identity")), None, None, None),
    "several outputs": (lambda: graph(("p", "Softmax"), ("h", "Relu")), None, "probability", "0"),
}


@pytest.mark.parametrize("form", OUTPUTS)
def test_outputs_are_read(form: str, spans: Spans) -> None:
    """Score and label of a row stand on its span, of whatever form the output is."""
    make, names, score_type, label = OUTPUTS[form]
    made = make()
    row = X[np.argmax(X[:, 0] + X[:, 1])][None]
    answer = made.run(names, {made.get_inputs()[0].name: row})
    attributes = only(spans).attributes or {}
    assert attributes.get("ml.prediction.score.type") == score_type
    assert attributes.get("ml.prediction.label") == label
    if score_type == "probability":
        given = [np.ravel(list(v[0].values()) if isinstance(v, list) else v) for v in answer]
        p = np.concatenate([values for values in given if values.dtype.kind == "f"])
        expected = p[1] if len(p) == 2 else p[:3].max()
        assert attributes["ml.prediction.score.value"] == pytest.approx(expected)


def test_counts_of_a_batch(collect: Callable[[], Points]) -> None:
    """Rows, features, scores and labels of a call are all counted, once."""
    made = classifier()
    labels, _ = made.run(None, {"X": X})
    points = collect()
    assert counts(points, "ml.inference.rows", "ml.operation.name") == {"run": 80}
    assert counts(points, "ml.feature.value", "ml.feature.name") == {"x0": 80, "x1": 80, "x2": 80}
    assert counts(points, "ml.prediction.score", "ml.prediction.score.type") == {"probability": 80}
    ones = int(labels.sum())
    assert counts(points, "ml.predictions", "ml.prediction.label") == {"0": 80 - ones, "1": ones}


def test_outputs_of_another_length_say_nothing(spans: Spans) -> None:
    """Boxes and their classes, many for one picture, are no predictions of its row."""
    kind = onnx.TensorProto
    nodes = [
        onnx.helper.make_node("NonZero", ["x"], ["classes"]),
        onnx.helper.make_node("Relu", ["x"], ["boxes"]),
    ]
    made = onnx.helper.make_graph(
        nodes, "detector", [onnx.helper.make_tensor_value_info("x", kind.FLOAT, ["n", 3])],
        [onnx.helper.make_tensor_value_info("classes", kind.INT64, [2, "m"])],
    )  # fmt: skip
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8)
    ort.InferenceSession(model.SerializeToString()).run(None, {"x": X[:1]})
    assert "ml.prediction.label" not in (only(spans).attributes or {})


# --- inputs -----------------------------------------------------------------------------------------------


def test_several_inputs_are_columns(collect: Callable[[], Points]) -> None:
    """Inputs of one column each are features under their names, numbers and texts alike."""
    made = of_frame()
    made.run(None, {name: FRAME[[name]].to_numpy() for name in FRAME})
    points = collect()
    assert counts(points, "ml.feature.observations", "ml.feature.name") == {
        "age": 80,
        "income": 80,
        "plan": 80,
    }
    assert counts(points, "ml.feature.value", "ml.feature.name") == {"age": 80, "income": 80}


def two_inputs(shape: Any, second: Any = None) -> Any:
    """A session that adds two matrices of this shape, or to one something of another."""
    kind = onnx.TensorProto.FLOAT
    nodes = [onnx.helper.make_node("Add", ["a", "b"], ["c"])]
    shapes = (shape, second or shape, shape)
    infos = zip("abc", shapes, strict=True)
    a, b, c = (onnx.helper.make_tensor_value_info(name, kind, form) for name, form in infos)
    made = onnx.helper.make_graph(nodes, "sum", [a, b], [c])
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 15)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_inputs_of_several_columns_are_numbered(collect: Callable[[], Points]) -> None:
    """Columns of an input of a fixed width stand under its name with their places, in the order of the inputs."""
    two_inputs(["n", 2]).run(None, {"b": X[:, :2] + 9, "a": X[:, :2]})
    points = collect()["ml.feature.value"]
    found = {p.attributes["ml.feature.name"]: p for p in points}
    assert sorted(found) == ["a.0", "a.1", "b.0", "b.1"]


def test_a_baseline_names_the_columns_of_inputs_by_place(collect: Callable[[], Points]) -> None:
    """As many columns under other names are the baseline's, in order."""
    made = two_inputs(["n", 1])
    trained = np.random.default_rng(1).normal(size=(1000, 2)) * [1, 5]
    baseline = Baseline.fit(trained, model="sum", version="2", features=["left", "right"])
    otel_ml.register(made, name="sum", version="2", baseline=baseline)
    made.run(None, {"b": X[:, 1:2] * 5, "a": X[:, :1]})
    found = counts(collect(), "ml.feature.value", "ml.feature.name")
    assert (found["left"], found["right"]) == (80, 80)


@pytest.mark.parametrize(
    "made", [lambda: two_inputs(["n", "m"]), lambda: graph(("h", "Relu"), shape=("n", 3, 4))]
)
def test_what_is_no_table_is_counted(
    made: Callable[[], Any], collect: Callable[[], Points], caplog: pytest.LogCaptureFixture
) -> None:
    """Sequences and pictures: calls and rows count, features are not made up, and it is said once."""
    runs = made()
    shape = (5, 3, 4)[: len(runs.get_inputs()[0].shape)]
    for _ in range(2):
        runs.run(None, {node.name: np.zeros(shape, np.float32) for node in runs.get_inputs()})
    points = collect()
    assert counts(points, "ml.inference.rows", "ml.operation.name") == {"run": 10}
    assert points.get("ml.feature.value") is None
    assert [
        r.getMessage().count("are not rows × features") for r in caplog.records if r.name == "otel_ml"
    ] == [1]


@pytest.mark.parametrize("order", ["xt", "tx"])
def test_a_setting_beside_the_rows_is_no_row(order: str, collect: Callable[[], Points]) -> None:
    """Whichever of them the feed has first."""
    made = two_inputs(["n", 3], second=[1])
    feed = {"a": X, "b": np.ones(1, np.float32)}
    made.run(None, {name: feed[name] for name in ("ab" if order == "xt" else "ba")})
    points = collect()
    assert counts(points, "ml.inference.rows", "ml.operation.name") == {"run": 80}


def test_ort_values(collect: Callable[[], Points]) -> None:
    """`run_with_ort_values` is read as `run` is."""
    made = classifier()
    value = ort.OrtValue.ortvalue_from_numpy(X)
    label, _ = made.run_with_ort_values(None, {"X": value})
    assert_array_equal(label.numpy(), made.run(None, {"X": value})[0])
    points = collect()
    assert counts(points, "ml.inference.rows", "ml.operation.name") == {"run": 160}
    assert counts(points, "ml.feature.value", "ml.feature.name") == {"x0": 160, "x1": 160, "x2": 160}
    assert counts(points, "ml.prediction.score", "ml.prediction.score.type") == {"probability": 160}


@pytest.mark.parametrize("way", ["cpu_input", "ortvalue_input", "input"])
def test_bound_inputs(way: str, collect: Callable[[], Points]) -> None:
    """Of an IOBinding the arrays that were bound are read when it runs; of an address, the number of rows."""
    made, rows = classifier(), X[:10].copy()
    binding, value = made.io_binding(), ort.OrtValue.ortvalue_from_numpy(rows)
    if way == "cpu_input":
        binding.bind_cpu_input("X", rows)
    elif way == "ortvalue_input":
        binding.bind_ortvalue_input("X", value)
    else:
        binding.bind_input("X", "cpu", 0, np.float32, (10, 3), value.data_ptr())
    for name in ("label", "probabilities"):
        binding.bind_output(name)
    made.run_with_iobinding(binding)
    assert len(binding.copy_outputs_to_cpu()[0]) == 10
    points = collect()
    assert counts(points, "ml.inference.rows", "ml.operation.name") == {"run": 10}
    assert counts(points, "ml.prediction.score", "ml.prediction.score.type") == {"probability": 10}
    read = {} if way == "input" else {"x0": 10, "x1": 10, "x2": 10}
    assert counts(points, "ml.feature.value", "ml.feature.name") == read


def test_bound_addresses_of_a_model_with_a_baseline(collect: Callable[[], Points]) -> None:
    """What cannot be read is no column of the baseline either; rows are counted all the same."""
    made, value = two_inputs(["n", 1]), ort.OrtValue.ortvalue_from_numpy(X[:10, :1])
    trained = np.random.default_rng(1).normal(size=(1000, 2))
    baseline = Baseline.fit(trained, model="sum", version="2", features=["left", "right"])
    otel_ml.register(made, name="sum", version="2", baseline=baseline)
    binding = made.io_binding()
    for name in "ab":
        binding.bind_input(name, "cpu", 0, np.float32, (10, 1), value.data_ptr())
    binding.bind_output("c")
    made.run_with_iobinding(binding)
    points = collect()
    assert counts(points, "ml.inference.rows", "ml.operation.name") == {"run": 10}
    assert set(counts(points, "ml.feature.value", "ml.feature.name").values()) == {0}


# --- who a session is -------------------------------------------------------------------------------------


def test_unregistered_sessions_have_one_name_and_version_everywhere(spans: Spans, tmp_path: Path) -> None:
    """Another process that loads the same file says the same of it; another model says something else."""
    path = tmp_path / "model.onnx"
    made = skl2onnx.to_onnx(LogisticRegression().fit(X, y), X[:1], options={"zipmap": False})
    path.write_bytes(made.SerializeToString())
    program = """
import sys, onnxruntime
from otel_ml.instrument.estimators import describe
model = describe(onnxruntime.InferenceSession(sys.argv[1]))
print(model.name, model.version)
"""
    ort.InferenceSession(str(path)).run(None, {"X": X})
    ort.InferenceSession(path.read_bytes()).run(None, {"X": X})
    of_frame().run(None, {name: FRAME[[name]].to_numpy() for name in FRAME})
    first, same, other = (
        (s.attributes["ml.model.name"], s.attributes["ml.model.version"]) for s in spans.take()
    )
    assert first == same == tuple(run(program, str(path)).split())
    assert first[0] == "LogisticRegression"
    assert first[1].startswith("auto-")
    assert other[1] != first[1]


@pytest.mark.parametrize("size", [3, 3000])
@pytest.mark.parametrize("form", ["bytes", "file"])
def test_retrained_models_of_one_graph_have_other_versions(
    form: str, size: int, spans: Spans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights tell them apart, of a large file those at its ends; so a retrained one is not the registered one."""
    monkeypatch.setattr(ours, "_HASHED", 1000)
    rows = np.random.default_rng(0).normal(size=(4, size)).astype(np.float32)

    def made(weight: float) -> Any:
        model = LinearRegression().fit(rows, rows[:, 0])
        model.coef_ = np.full(size, weight)
        content = skl2onnx.to_onnx(model, rows[:1]).SerializeToString()
        assert (len(content) > 2 * 1000) == (size == 3000)
        if form == "bytes":
            return ort.InferenceSession(content)
        (tmp_path / f"{weight}.onnx").write_bytes(content)
        return ort.InferenceSession(str(tmp_path / f"{weight}.onnx"))

    first, retrained = made(0.25), made(0.5)
    otel_ml.register(first, name="churn", version="3")
    for session in (first, made(0.25), retrained):
        session.run(None, {"X": rows})
    assert spans.names() == ["run churn", "run churn", "run LinearRegression"]


def test_a_file_that_is_gone_is_no_failure(spans: Spans, tmp_path: Path) -> None:
    """Then the version is made of what the session itself tells."""
    file = tmp_path / "churn.onnx"
    file.write_bytes(graph(("p", "Softmax"))._model_bytes)
    made = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    file.unlink()
    made.run(None, {"x": X})
    assert only(spans).attributes["ml.model.version"].startswith("auto-")


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        ("churn", "model.onnx", "churn"), ("main_graph", "churn.onnx", "churn"), ("0" * 32, "churn.onnx", "churn"),
        ("main_graph", "model.onnx", "InferenceSession"), ("main_graph", None, "InferenceSession"),
    ],
)  # fmt: skip
def test_names(name: str, file: str | None, expected: str, spans: Spans, tmp_path: Path) -> None:
    """A session is called as its graph, else as its file, unless exporters call every model so."""
    made = graph(("p", "Softmax"), name=name)
    if file is not None:
        (tmp_path / file).write_bytes(made._model_bytes)
        made = ort.InferenceSession(str(tmp_path / file), providers=["CPUExecutionProvider"])
    made.run(None, {"x": X})
    assert only(spans).name == f"run {expected}"


def test_a_declared_version_is_the_version(spans: Spans) -> None:
    """The `model_version` of the file stands in `ml.model.version`; none at all, and 0, are none."""
    for version in (7, 0, None):
        graph(("p", "Softmax"), version=version).run(None, {"x": X})
    versions = [span.attributes["ml.model.version"] for span in spans.take()]
    assert versions[0] == "7"
    assert all(version.startswith("auto-") for version in versions[1:])


def test_registered(spans: Spans, collect: Callable[[], Points]) -> None:
    """A session has the identity and the baseline it was given; one of another model has not."""
    trained = np.random.default_rng(1).normal(size=(1000, 3))
    baseline = Baseline.fit(trained, model="churn", version="3", features=["a", "b", "c"])
    made, other = classifier(), of_frame()
    otel_ml.register(made, name="churn", version="3", baseline=baseline)
    made.run(None, {"X": X})
    other.run(None, {name: FRAME[[name]].to_numpy() for name in FRAME})
    first, second = spans.take()
    assert (first.name, first.attributes["ml.model.version"]) == ("run churn", "3")
    assert first.attributes["ml.system.name"] == "onnxruntime"
    assert first.attributes["ml.model.type"] == "InferenceSession"
    assert second.name == "run Pipeline"
    mine = select(collect()["ml.feature.value"], ml__model__name="churn")
    assert {p.attributes["ml.feature.name"]: p.count for p in mine}["a"] == 80


def test_in_a_decorated_function(spans: Spans) -> None:
    """An unregistered session is part of the function's call; a registered one makes a child."""
    made = classifier()

    @otel_ml.observe(model="churn", version="3")
    def predict(rows: Any) -> Any:
        return made.run(["probabilities"], {"X": rows})[0][:, 1]

    predict(X)
    assert spans.names() == ["predict churn"]
    otel_ml.register(made, name="inner", version="1")
    predict(X)
    assert spans.names() == ["run inner", "predict churn"]


class Served(BaseEstimator):
    """An estimator of a user's around a session."""

    def __init__(self, made: Any = None) -> None:
        self.made = made

    def predict(self, rows: Any) -> Any:
        return self.made.run(["label"], {"X": rows})[0]


def test_in_an_estimator(spans: Spans) -> None:
    """The outermost call is the one that is recorded."""
    Served(classifier()).predict(X)
    assert spans.names() == ["predict Served"]


# --- nothing else changes ---------------------------------------------------------------------------------


def test_results_and_inputs_are_untouched(spans: Spans) -> None:
    """The very objects that ONNX Runtime returns, and a feed as it was."""
    made, given = classifier(), X.copy()
    answer = made.run(None, {"X": given})
    with otel_ml.suppress():
        bare = made.run(None, {"X": given})
    assert [type(value) for value in answer] == [type(value) for value in bare] == [np.ndarray, np.ndarray]
    for observed, expected in zip(answer, bare, strict=True):
        assert_array_equal(observed, expected)
    assert_array_equal(given, X)
    assert spans.names() == ["run LogisticRegression"]


def test_keywords(spans: Spans) -> None:
    """Arguments by name are found as well."""
    made = classifier()
    made.run(output_names=["label"], input_feed={"X": X})
    made.run_with_ort_values(None, input_dict_ort_values={"X": ort.OrtValue.ortvalue_from_numpy(X)})
    assert [span.attributes["ml.batch.size"] for span in spans.take()] == [80, 80]


@pytest.mark.parametrize("feed", [{}, {"X": X[:, :2]}, {"Y": X}, {"X": X.astype(int)}, None])
def test_errors_pass_through(feed: Any, spans: Spans) -> None:
    """What ONNX Runtime raises is what the caller gets, and what the span says."""
    made = classifier()
    with otel_ml.suppress():
        bare = raised(made, feed)
    observed = raised(made, feed)
    assert (type(observed), str(observed)) == (type(bare), str(bare))
    assert only(spans).attributes["error.type"].endswith(type(bare).__qualname__)


def raised(made: Any, feed: Any) -> Exception:
    """What a run raises."""
    try:
        made.run(None, feed)
    except Exception as error:
        return error
    raise AssertionError(f"{feed} is accepted")


def test_a_class_that_pickles_its_sessions_still_does(spans: Spans) -> None:
    """Copies work as before, and so does the usual way around pickling."""
    made = Pickled(skl2onnx.to_onnx(LogisticRegression().fit(X, y), X[:1]).SerializeToString())
    otel_ml.register(made, name="churn", version="3")
    again = pickle.loads(pickle.dumps(made))
    assert_array_equal(again.run(None, {"X": X})[0], copy.copy(made).run(None, {"X": X})[0])
    assert spans.names() == ["run churn", "run churn"]


class Pickled(ort.InferenceSession):  # type: ignore[misc]  # has no types
    """A session that travels as its file."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content, providers=["CPUExecutionProvider"])
        self.content = content

    def __reduce__(self) -> Any:
        return Pickled, (self.content,)


def test_threads(collect: Callable[[], Points]) -> None:
    """Many threads on one session: every call counts once, every answer is right."""
    made = classifier()
    with otel_ml.suppress():
        expected = made.run(["label"], {"X": X})[0]
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(50):
            answer = made.run(["label"], {"X": X})[0]
            if not np.array_equal(answer, expected):
                wrong.append(answer)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert counts(collect(), "ml.inference.rows", "ml.operation.name") == {"run": 4 * 50 * 80}


PATCHED = {
    "Session": ("run", "run_with_ort_values", "run_with_iobinding"),
    "IOBinding": ("bind_cpu_input", "bind_input", "bind_ortvalue_input", "clear_binding_inputs"),
}


def test_undo_and_redo() -> None:
    """Afterwards the classes have the very functions that they had; a second time works as the first."""
    from onnxruntime.capi import onnxruntime_inference_collection as module

    def found() -> list[Any]:
        return [vars(getattr(module, kind))[name] for kind, names in PATCHED.items() for name in names]

    before = found()
    for _ in range(2):
        otel_ml.instrument()
        during = found()
        otel_ml.uninstrument()
        assert all(now is not then for now, then in zip(during, before, strict=True))
        assert all(now is then for now, then in zip(found(), before, strict=True))


def test_imported_later() -> None:
    """ONNX Runtime is not imported for being instrumented, and recorded when it comes."""
    program = """
import sys, otel_ml
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
otel_ml.instrument(tracer_provider=provider)
print("onnxruntime" in sys.modules)
import onnxruntime, numpy
made = onnxruntime.InferenceSession(bytes.fromhex(sys.argv[1]))
made.run(None, {"x": numpy.zeros((2, 3), "f4")})
print([span.name for span in exporter.get_finished_spans()])
"""
    assert run(program, graph(("p", "Softmax"))._model_bytes.hex()).split("\n") == ["False", "['run net']"]


# --- example ----------------------------------------------------------------------------------------------


def test_the_example_sends_its_calls_and_its_baseline(tmp_path: Path) -> None:
    """Two calls under the registered name, with the features and the score on the baseline's bounds."""
    with Sink(tmp_path) as sink:
        assert test_examples.run("onnx_model.py", endpoint=sink.http_endpoint) == ""
        arrived, sent = sink.metrics(), test_examples.spans(sink)
    assert [(name, attributes["ml.batch.size"]) for name, attributes in sent] == [
        ("run tumour", 1),
        ("run tumour", 57),
    ]
    features = test_examples.last(arrived, "ml.feature.value", "ml.feature.name")
    assert (len(features), set(features.values())) == (30 + 8, {58})
    assert test_examples.last(arrived, "ml.prediction.score", "ml.prediction.score.type") == {
        "probability": 58
    }
    test_examples.assert_declared(arrived, sent)


def test_the_page_shows_the_example() -> None:
    """docs/howto/onnx.md quotes the example and what it prints."""
    assert_shows("onnx.md", "onnx_model.py", test_examples.run("onnx_model.py"))
