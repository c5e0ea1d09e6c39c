"""Recorded MLflow: one prediction a call whatever is inside, MLflow's own identities, and nothing else changed."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from instrumented import Spans, run
from integration.test_examples import EXAMPLES, environment
from numpy.testing import assert_array_equal
from pages import assert_shows
from support import Points

import otel_ml
from otel_ml import Baseline
from otel_ml.instrument import mlflow as ours

mlflow = pytest.importorskip("mlflow", reason="make libraries")

import pandas as pd  # noqa: E402  # after what may be absent
from mlflow.models import infer_signature  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

# mlflow warns of so much that changes from release to release
pytestmark = pytest.mark.filterwarnings("ignore")

X = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 3)), columns=["age", "income", "tenure"])
y = (X["age"] + X["income"] > 0).astype(int).to_numpy()
FRAME = infer_signature(X, y)
TENSOR = infer_signature(X.to_numpy(), y)


def doubled() -> Any:
    """A model in plain Python, with one of scikit-learn in it."""

    class Doubled(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # has no types
        def __init__(self) -> None:
            self.model = LinearRegression().fit(X.to_numpy(), X["age"])

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # mlflow reads hints
            return 2 * self.model.predict(np.asarray(model_input))

    return Doubled()


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and models in a directory of the test's own."""
    monkeypatch.setenv(
        "MLFLOW_ALLOW_FILE_STORE", "true"
    )  # needs no database, which mlflow-skinny does not have
    monkeypatch.chdir(tmp_path)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(f"file:{tmp_path}/runs")
    ours._loaded.clear()


def saved(model: Any, path: str = "saved", **options: Any) -> str:
    """The path of a model saved as MLflow does."""
    if isinstance(model, mlflow.pyfunc.PythonModel):
        mlflow.pyfunc.save_model(path, python_model=model, pip_requirements=[], **options)
    else:
        mlflow.sklearn.save_model(
            model, path, serialization_format="cloudpickle", pip_requirements=[], **options
        )
    return path


def loaded(model: Any, **options: Any) -> Any:
    return mlflow.pyfunc.load_model(saved(model, **options))


def logged(model: Any, name: str, **options: Any) -> Any:
    """What MLflow says of a model that was logged in a run."""
    parameters = inspect.signature(mlflow.sklearn.log_model).parameters
    place = {"name" if "name" in parameters else "artifact_path": name}
    with mlflow.start_run() as done:
        info = mlflow.sklearn.log_model(
            model, serialization_format="cloudpickle", pip_requirements=[], **place, **options
        )
    return info, done.info.run_id


def classifier() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)


def counts(points: Points, metric: str, key: str) -> dict[Any, int]:
    """Counts of a metric's series by one of their attributes."""
    return {
        p.attributes.get(key): p.count if hasattr(p, "count") else p.value for p in points.get(metric, [])
    }


def only(spans: Spans) -> tuple[str, dict[str, Any]]:
    [span] = spans.take()
    return span.name, dict(span.attributes or {})


# --- what is counted --------------------------------------------------------------------------------------


def test_a_call_is_one_prediction(collect: Callable[[], Points]) -> None:
    """Rows, features, labels and the score that the model inside computes on its way are counted, once."""
    model = loaded(classifier(), signature=FRAME)
    labels = model.predict(X)
    points = collect()
    assert counts(points, "ml.inference.rows", "ml.operation.name") == {"predict": 80}
    assert counts(points, "ml.feature.value", "ml.feature.name") == {"age": 80, "income": 80, "tenure": 80}
    assert counts(points, "ml.predictions", "ml.prediction.label") == {
        "0": 80 - labels.sum(),
        "1": labels.sum(),
    }
    assert counts(points, "ml.prediction.score", "ml.prediction.score.type") == {"margin": 80}


MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, Any]]] = {
    "pipeline": (classifier, {}, {"name": "LogisticRegression", "score": "margin", "label": True}),
    "forest": (
        lambda: RandomForestClassifier(5, random_state=0).fit(X, y), {},
        {"name": "RandomForestClassifier", "score": "probability", "label": True},
    ),
    "probabilities": (
        classifier, {"pyfunc_predict_fn": "predict_proba"},
        {"name": "LogisticRegression", "score": "probability", "label": True},
    ),
    "regression": (
        lambda: LinearRegression().fit(X, X["age"]), {},
        {"name": "LinearRegression", "score": "value", "label": False},
    ),
    "python": (doubled, {}, {"name": "Doubled", "score": "value", "label": False}),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_what_the_answer_means_the_model_inside_says(kind: str, spans: Spans) -> None:
    """Class, score and label of a row stand on the one span of its call, which changes neither input nor output."""
    make, options, expected = MODELS[kind]
    fitted = make()
    model, given = loaded(fitted, **options), X[:1].copy()
    observed = model.predict(given)
    name, attributes = only(spans)
    assert name == f"predict {expected['name']}"
    assert attributes["ml.model.type"] == ("PyFuncModel" if kind == "python" else expected["name"])
    assert attributes["ml.system.name"] == ("mlflow" if kind == "python" else "sklearn")
    assert attributes["ml.prediction.score.type"] == expected["score"]
    assert ("ml.prediction.label" in attributes) == expected["label"]
    with otel_ml.suppress():
        score = {
            "margin": lambda: fitted.decision_function(X[:1])[0],
            "probability": lambda: fitted.predict_proba(X[:1])[0, 1],
            "value": lambda: observed[0],
        }[expected["score"]]()
        bare = model.predict(X[:1])
    assert attributes["ml.prediction.score.value"] == pytest.approx(score)
    assert type(observed) is type(bare)
    assert_array_equal(observed, bare)
    pd.testing.assert_frame_equal(given, X[:1])


INPUTS: dict[str, tuple[Any, Any]] = {
    "frame": (FRAME, X[:4]),
    "frame in another order": (FRAME, X[:4][["tenure", "age", "income"]]),
    "dict of lists": (FRAME, X[:4].to_dict("list")),
    "list of records": (FRAME, X[:4].to_dict("records")),
    "matrix": (TENSOR, X[:4].to_numpy()),
    "matrix without a signature": (None, X[:4].to_numpy()),
    "frame without a signature": (None, X[:4]),
}


@pytest.mark.parametrize("form", INPUTS)
def test_inputs(form: str, collect: Callable[[], Points]) -> None:
    """Every form of input that a signature lets in has its columns by their names."""
    signature, given = INPUTS[form]
    loaded(classifier(), signature=signature).predict(given)
    points = collect()
    assert counts(points, "ml.inference.rows", "ml.operation.name") == {"predict": 4}
    assert counts(points, "ml.feature.value", "ml.feature.name") == {"age": 4, "income": 4, "tenure": 4}


def test_an_onnx_model_inside(collect: Callable[[], Points]) -> None:
    """Its dict of outputs is read as a session's outputs are."""
    skl2onnx = pytest.importorskip("skl2onnx", reason="make libraries")
    import mlflow.onnx

    rows = X.to_numpy(np.float32)
    made = skl2onnx.to_onnx(LogisticRegression().fit(rows, y), rows[:1], options={"zipmap": False})
    mlflow.onnx.save_model(made, "onnx")
    answer = mlflow.pyfunc.load_model("onnx").predict(rows)
    points = collect()
    assert counts(points, "ml.inference.rows", "ml.operation.name") == {"predict": 80}
    assert counts(points, "ml.prediction.score", "ml.prediction.score.type") == {"probability": 80}
    ones = int(answer["label"].sum())
    assert counts(points, "ml.predictions", "ml.prediction.label") == {"0": 80 - ones, "1": ones}


def test_an_onnx_model_has_the_name_of_its_graph(spans: Spans) -> None:
    """As it has without MLflow, where the address says nothing."""
    skl2onnx = pytest.importorskip("skl2onnx", reason="make libraries")
    import mlflow.onnx

    rows = X.to_numpy(np.float32)
    mlflow.onnx.save_model(skl2onnx.to_onnx(LinearRegression().fit(rows, rows[:, 0]), rows[:1]), "onnx")
    mlflow.pyfunc.load_model("onnx").predict(rows)
    assert spans.names() == ["predict LinearRegression"]


# --- who a model is ---------------------------------------------------------------------------------------


def test_a_registered_model_is_called_as_in_the_registry(spans: Spans) -> None:
    """Name and version of the registry are its name and version; where the address has none, the id tells it apart."""
    info, run_id = logged(classifier(), "tumour_model", registered_model_name="churn")
    mlflow.MlflowClient().set_registered_model_alias("churn", "champion", 1)
    own = getattr(info, "model_id", None) or run_id
    fetched = mlflow.artifacts.download_artifacts("models:/churn/1", dst_path="fetched")
    addresses = ("models:/churn/1", fetched, "models:/churn@champion", f"runs:/{run_id}/tumour_model")
    for address in addresses:
        mlflow.pyfunc.load_model(address).predict(X)
        ours._loaded.clear()
        otel_ml.uninstrument()  # each on its own: they are one model
        otel_ml.instrument()
    found = [(s.attributes["ml.model.name"], s.attributes["ml.model.version"]) for s in spans.take()]
    assert found == [("churn", "1"), ("churn", "1"), ("churn", own), ("tumour_model", own)]


def test_a_version_once_known_stays(spans: Spans) -> None:
    """The same model, loaded by its alias as well, stays one model."""
    logged(classifier(), "model", registered_model_name="churn")
    mlflow.MlflowClient().set_registered_model_alias("churn", "champion", 1)
    mlflow.pyfunc.load_model("models:/churn/1")
    mlflow.pyfunc.load_model("models:/churn@champion").predict(X)
    name, attributes = only(spans)
    assert (name, attributes["ml.model.version"]) == ("predict churn", "1")


def test_another_process_says_the_same(spans: Spans) -> None:
    """An unregistered model has one name and version everywhere, another model another version; MLflow comes late."""
    path = saved(classifier())
    program = """
import sys, warnings; warnings.simplefilter("ignore")
import otel_ml
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
otel_ml.instrument(tracer_provider=provider)
print("mlflow" in sys.modules)
from mlflow.pyfunc import load_model
load_model(sys.argv[1]).predict([[0.0, 0.0, 0.0]])
for span in exporter.get_finished_spans():
    print(span.attributes["ml.model.name"], span.attributes["ml.model.version"])
"""
    mlflow.pyfunc.load_model(path).predict(X)
    mlflow.pyfunc.load_model(saved(classifier(), "other")).predict(X)
    first, other = ((s.attributes["ml.model.name"], s.attributes["ml.model.version"]) for s in spans.take())
    assert run(program, os.path.abspath(path)).split() == ["False", *first]
    assert first[0] == other[0] == "LogisticRegression"
    assert first[1] != other[1]


def test_register(spans: Spans, collect: Callable[[], Points]) -> None:
    """A model has the identity and the baseline it was given, its unpickled copies too; another one has not."""
    trained = pd.DataFrame(np.random.default_rng(1).normal(size=(1000, 3)), columns=list(X))
    baseline = Baseline.fit(trained, model="churn", version="3")
    model, other = loaded(classifier()), mlflow.pyfunc.load_model(saved(classifier(), "other"))
    otel_ml.register(model, name="churn", version="3", baseline=baseline)
    model.predict(X)
    pickle.loads(pickle.dumps(model)).predict(X)
    other.predict(X)
    assert spans.names() == ["predict churn", "predict churn", "predict LogisticRegression"]
    found = {
        point.attributes["ml.feature.name"]: point.count
        for point in collect()["ml.feature.value"] if point.attributes["ml.model.name"] == "churn"
    }  # fmt: skip
    assert found["age"] == 160


def test_in_a_decorated_function(spans: Spans) -> None:
    """An unregistered model is part of the function's call; a registered one makes a child."""
    model = loaded(classifier())

    @otel_ml.observe(model="churn", version="3")
    def predict(rows: Any) -> Any:
        return model.predict(rows)

    predict(X)
    assert spans.names() == ["predict churn"]
    otel_ml.register(model, name="inner", version="1")
    predict(X)
    assert spans.names() == ["predict inner", "predict churn"]


# --- nothing else changes ---------------------------------------------------------------------------------


def test_errors_pass_through(spans: Spans) -> None:
    """What MLflow says of a wrong input is what the caller gets."""
    model = loaded(classifier(), signature=FRAME)
    with pytest.raises(mlflow.exceptions.MlflowException, match="missing inputs"):
        model.predict(X[["age"]])
    name, attributes = only(spans)
    assert name == "predict LogisticRegression"
    assert attributes["error.type"] == "mlflow.exceptions.MlflowException"


def test_what_mlflow_predicts_for_itself_is_no_prediction(spans: Spans) -> None:
    """An input example has the model asked for its signature, and log_model can ask it once more."""
    logged(classifier(), "model", input_example=X[:5])
    assert spans.names() == []


def test_threads(collect: Callable[[], Points]) -> None:
    """Many threads on one model: every call counts once, every answer is right."""
    model = loaded(classifier())
    with otel_ml.suppress():
        expected = model.predict(X)
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(10):
            answer = model.predict(X)
            if not np.array_equal(answer, expected):
                wrong.append(answer)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert counts(collect(), "ml.inference.rows", "ml.operation.name") == {"predict": 4 * 10 * 80}


def test_undo_and_redo() -> None:
    """Afterwards class and module have the very functions that they had; a second time works as the first."""
    import mlflow.models.evaluation.base as evaluation
    import mlflow.models.signature as signature

    def found() -> list[Any]:
        return [
            vars(mlflow.pyfunc.PyFuncModel)["predict"], mlflow.pyfunc.load_model,
            vars(mlflow.models.Model)["log"], signature._infer_signature_from_input_example, evaluation._evaluate,
        ]  # fmt: skip

    before = found()
    for _ in range(2):
        otel_ml.instrument()
        during = found()
        otel_ml.uninstrument()
        assert all(now is not then for now, then in zip(during, before, strict=True))
        assert all(now is then for now, then in zip(found(), before, strict=True))


# --- example ----------------------------------------------------------------------------------------------


def test_the_page_shows_the_example(tmp_path: Path) -> None:
    """docs/howto/mlflow.md quotes the example and what it prints, under the version that the registry gave."""
    assert_shows("mlflow.md", "mlflow_model.py", example_run("mlflow_model.py", tmp_path))


def example_run(example: str, directory: Path) -> str:
    """What the example printed; mlflow itself complains of much."""
    store = {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": f"file:{directory}/example"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example)],
        env=environment(**store), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
