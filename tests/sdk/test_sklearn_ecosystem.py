"""Instrumented scikit-learn among its neighbours: processes, threads, its own checks, and mlflow's autolog."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
from instrumented import KMeansLike, Spans, X, run, y
from sklearn import (
    calibration,
    cluster,
    ensemble,
    linear_model,
    model_selection,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    svm,
    tree,
)
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.metaestimators import available_if

import otel_ml

TWO = np.c_[y, 1 - y]


def _forest() -> Any:
    return ensemble.RandomForestClassifier(8, n_jobs=2, random_state=0)


def _scaled(final: Any) -> Any:
    return make_pipeline(StandardScaler(), final)


# --- processes ----------------------------------------------------------------------------------------------

MODELS: dict[str, Callable[[], Any]] = {
    "classifier": LogisticRegression,
    "pipeline": lambda: _scaled(LogisticRegression()),
    "grid search": lambda: model_selection.GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    "forest, two jobs": _forest,
    "support vectors": lambda: svm.SVC(random_state=0),
}
METHODS = [(name, method) for name in MODELS for method in ("predict", "predict_proba")][:-1]


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("way", ["spawn", "fork"])
def test_bound_methods_go_to_a_process_pool(way: str, instrumented: Spans) -> None:
    """What `submit(model.predict, X)` answers is what the model answers here, for every sort of method."""
    methods = [getattr(MODELS[name]().fit(X, y), method) for name, method in METHODS]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(way)) as pool:
        answers = [pool.submit(method, X).result(timeout=120) for method in methods]
    assert instrumented.names() == []  # the calls are those processes' own
    for method, answer in zip(methods, answers, strict=True):
        assert np.array_equal(method(X), answer)


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_bound_methods_go_to_joblibs_workers(backend: str, instrumented: Spans) -> None:
    """As with a process pool; in threads each task of the user is a call and is recorded."""
    methods = [getattr(MODELS[name]().fit(X, y), method) for name, method in METHODS]
    with joblib.parallel_config(backend, n_jobs=2):
        answers = joblib.Parallel()(joblib.delayed(method)(X) for method in methods)
    expected = [method for _, method in METHODS] if backend == "threading" else []
    assert sorted(name.partition(" ")[0] for name in instrumented.names()) == sorted(expected)
    for method, answer in zip(methods, answers, strict=True):
        assert np.array_equal(method(X), answer)


def test_a_conditional_method_sent_by_cloudpickle_is_recorded_where_it_arrives(instrumented: Spans) -> None:
    """Spark, Ray and Dask send `pipeline.predict` this way: the pipeline answers there, not its last step."""
    model = _scaled(LogisticRegression()).fit(X, y)
    otel_ml.register(model, name="churn", version="3")
    pickle.loads(cloudpickle.dumps(model.predict))(X)
    pickle.loads(cloudpickle.dumps(model.predict_proba))(X)
    assert instrumented.names() == ["predict churn", "predict_proba churn"]


class Sometimes(ClassifierMixin, BaseEstimator):
    """A user's class whose module travels by value."""

    def fit(self, X: Any, y: Any) -> Sometimes:
        self.classes_ = np.unique(y)
        return self

    @available_if(lambda self: True)
    def predict(self, X: Any) -> Any:
        return self.classes_[(np.asarray(X)[:, 0] > 0).astype(int)]


def test_a_class_that_travels_by_value_takes_its_conditional_methods_along(
    instrumented: Spans, tmp_path: Path
) -> None:
    """A look-up would find the class unfinished: its methods go with it, whole or bound, to where it is not known."""
    model = Sometimes().fit(X, y)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        (tmp_path / "sent").write_bytes(cloudpickle.dumps([model.predict, model, type(model)]))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    program = """
import pickle, sys
method, model, cls = pickle.load(open(sys.argv[1], "rb"))
rows = [[-1.0], [1.0]]
print(method(rows), model.predict(rows), cls.predict(model, rows), "otel_ml" in sys.modules)
"""
    assert run(program, str(tmp_path / "sent")) == "[0 1] [0 1] [0 1] False"


def test_a_notebooks_class_goes_to_loky() -> None:
    """A class of `__main__` with a conditional method, its bound method in joblib's processes."""
    program = """
import joblib, numpy as np, otel_ml
otel_ml.instrument()
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
class Mine(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        return self
    @available_if(lambda self: True)
    def predict(self, X):
        return [int(row[0] > 0) for row in X]
model = Mine().fit([[0.0], [1.0]], [0, 1])
print(joblib.Parallel(n_jobs=2)(joblib.delayed(model.predict)([[v]]) for v in (-1.0, 1.0)))
"""
    assert run(program) == "[[0], [1]]"


# --- meta-estimators, jobs and threads ----------------------------------------------------------------------

COMPOSITES: dict[str, tuple[Callable[[], Any], Any]] = {
    "forest": (_forest, y),
    "extra trees": (lambda: ensemble.ExtraTreesRegressor(8, n_jobs=2, random_state=0), y),
    "isolation forest": (lambda: ensemble.IsolationForest(n_estimators=8, n_jobs=2, random_state=0), y),
    "neighbours": (lambda: neighbors.KNeighborsClassifier(n_jobs=2), y),
    "pipeline": (lambda: make_pipeline(StandardScaler(), PCA(2), _forest()), y),
    "grid search": (
        lambda: model_selection.GridSearchCV(
            _scaled(LogisticRegression()),
            {"logisticregression__C": [0.1, 1.0]},
            cv=2,
            n_jobs=2,
            scoring="roc_auc",
        ),
        y,
    ),
    "randomised search": (
        lambda: model_selection.RandomizedSearchCV(
            tree.DecisionTreeClassifier(random_state=0),
            {"max_depth": [1, 2]},
            n_iter=2,
            cv=2,
            n_jobs=2,
            random_state=0,
        ),
        y,
    ),
    "stacking": (
        lambda: ensemble.StackingClassifier(
            [("a", _scaled(LogisticRegression())), ("b", _forest()), ("c", svm.LinearSVC(random_state=0))],
            cv=2,
            n_jobs=2,
        ),
        y,
    ),
    "stacking in voting": (
        lambda: ensemble.VotingRegressor(
            [
                ("a", ensemble.StackingRegressor([("i", linear_model.Ridge())], cv=2)),
                ("b", linear_model.Ridge()),
            ]
        ),
        y,
    ),
    "voting": (
        lambda: ensemble.VotingClassifier(
            [("a", LogisticRegression()), ("b", naive_bayes.GaussianNB())], voting="soft", n_jobs=2
        ),
        y,
    ),
    "calibrated": (
        lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(random_state=0), cv=2, n_jobs=2),
        y,
    ),
    "calibrated in a search": (
        lambda: model_selection.GridSearchCV(
            calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=2), {"ensemble": [True]}, cv=2
        ),
        y,
    ),
    "several outputs": (lambda: multioutput.MultiOutputClassifier(LogisticRegression(), n_jobs=2), TWO),
    "several values": (lambda: multioutput.MultiOutputRegressor(linear_model.Ridge(), n_jobs=2), TWO),
    "chain": (lambda: multioutput.ClassifierChain(LogisticRegression(), cv=2), TWO),
    "bagging": (
        lambda: ensemble.BaggingClassifier(
            _scaled(LogisticRegression()), n_estimators=4, n_jobs=2, random_state=0
        ),
        y,
    ),
    "early stopping of boosting": (
        lambda: ensemble.HistGradientBoostingClassifier(
            max_iter=10, early_stopping=True, scoring="accuracy", random_state=0
        ),
        y,
    ),
    "early stopping of gradient boosting": (
        lambda: ensemble.GradientBoostingClassifier(n_estimators=10, n_iter_no_change=2, random_state=0),
        y,
    ),
    "early stopping of a network": (
        lambda: neural_network.MLPClassifier(max_iter=5, early_stopping=True, random_state=0),
        y,
    ),
    "early stopping of descent": (
        lambda: linear_model.SGDClassifier(early_stopping=True, max_iter=20, random_state=0, n_jobs=2),
        y,
    ),
    "clusters": (lambda: cluster.KMeans(2, n_init=1, random_state=0), y),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("backend", [None, "threading"])
@pytest.mark.parametrize("kind", COMPOSITES)
def test_however_many_take_part_a_call_is_one_emission(
    kind: str, backend: str | None, instrumented: Spans
) -> None:
    """None while it is trained, one for each operation, and the answers of the library alone."""
    make, target = COMPOSITES[kind]
    with joblib.parallel_config(backend) if backend else warnings.catch_warnings():
        model = make().fit(X, target)
        assert instrumented.names() == []
        answers = {}
        for name in ("predict", "predict_proba", "decision_function"):
            if not hasattr(model, name):
                continue
            answers[name] = getattr(model, name)(X)
            assert [said.partition(" ")[0] for said in instrumented.names()] == [name]
        if hasattr(model, "score"):
            model.score(X, target)
        assert instrumented.names() == []
        otel_ml.uninstrument()
        alone = make().fit(X, target)
        for name, answer in answers.items():
            assert np.array_equal(answer, getattr(alone, name)(X))


def test_threads_that_share_a_model_record_every_call(instrumented: Spans) -> None:
    """A call of each task, none lost and none doubled, with a model that uses threads itself."""
    model = _forest().fit(X, y)
    joblib.Parallel(n_jobs=4, backend="threading")(joblib.delayed(model.predict)(X) for _ in range(40))
    assert instrumented.names() == ["predict RandomForestClassifier"] * 40


# --- scikit-learn's own checks ------------------------------------------------------------------------------

CHECKED: dict[str, Callable[[], Any]] = {
    "SGDClassifier": lambda: linear_model.SGDClassifier(max_iter=5),
    "Ridge": linear_model.Ridge,
    "GaussianNB": naive_bayes.GaussianNB,
    "DecisionTreeClassifier": lambda: tree.DecisionTreeClassifier(max_depth=2),
    "KNeighborsRegressor": neighbors.KNeighborsRegressor,
    "LinearSVC": svm.LinearSVC,
    "KMeans": lambda: cluster.KMeans(n_clusters=2, n_init=1, max_iter=5),
    "OneClassSVM": svm.OneClassSVM,
    "BaggingClassifier": lambda: ensemble.BaggingClassifier(n_estimators=3),
    "a user's class that fails some": KMeansLike,
}


def _checks(estimator: Any) -> Iterator[tuple[Any, Any]]:
    generator = getattr(estimator_checks, "estimator_checks_generator", None)  # since 1.6
    if generator is not None:
        return generator(estimator)  # type: ignore[no-any-return]
    return estimator_checks.check_estimator(estimator, generate_only=True)  # type: ignore[no-any-return]


def _outcomes(make: Callable[[], Any]) -> list[tuple[str, str]]:
    """What becomes of every check; an error by its type."""
    outcomes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for estimator, check in _checks(make()):
            name = getattr(check, "func", check).__name__
            try:
                check(estimator)
                outcomes.append((name, "passed"))
            except Exception as error:
                outcomes.append((name, type(error).__name__))
    return outcomes


@pytest.mark.parametrize("name", CHECKED)
def test_scikit_learns_checks_see_no_difference(name: str) -> None:
    """check_estimator's checks pass, fail and skip exactly as they do without instrumentation."""
    alone = _outcomes(CHECKED[name])
    otel_ml.instrument()
    try:
        observed = _outcomes(CHECKED[name])
    finally:
        otel_ml.uninstrument()
    assert len(alone) > 30
    assert observed == alone


# --- mlflow -------------------------------------------------------------------------------------------------

MLFLOW = """
import logging, os, sys, tempfile, warnings
warnings.simplefilter("ignore")
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # needs no database, which mlflow-skinny does not have
import mlflow, numpy as np, otel_ml
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
logging.getLogger("mlflow").setLevel(logging.ERROR)
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
os.chdir(tempfile.mkdtemp())
mlflow.set_tracking_uri("file:" + os.path.join(os.getcwd(), "runs"))
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
before = LogisticRegression.__dict__["fit"]
steps = {
    "mlflow": lambda: mlflow.sklearn.autolog(silent=True),
    "otel-ml": lambda: otel_ml.instrument(tracer_provider=provider),
}
for step in sys.argv[1].split(","):
    steps[step]()
X = np.random.default_rng(0).normal(size=(80, 3))
y = (X[:, 0] > 0).astype(int)
def spans():
    said = [span.name for span in exporter.get_finished_spans()]
    exporter.clear()
    return said
with mlflow.start_run() as run:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(X, y)
print(spans())
print(mlflow.get_run(run.info.run_id).data.params["logisticregression__C"])
print(sorted(mlflow.get_run(run.info.run_id).data.metrics)[:2])
model.predict(X), model.predict_proba(X)
print(spans())
otel_ml.uninstrument()
model.predict(X)
with mlflow.start_run() as run:
    LogisticRegression(C=0.25).fit(X, y)
print(mlflow.get_run(run.info.run_id).data.params["C"], spans())
mlflow.sklearn.autolog(disable=True)
LogisticRegression().fit(X, y).predict(X)
print(spans())
"""

MLFLOW_SAYS = """[]
0.5
['training_accuracy_score', 'training_f1_score']
['predict LogisticRegression', 'predict_proba LogisticRegression']
0.25 []
[]"""


@pytest.mark.parametrize("order", ["mlflow,otel-ml", "otel-ml,mlflow", "otel-ml,mlflow,otel-ml"])
def test_mlflows_autolog_works_before_and_after_us(order: str) -> None:
    """Both see what they are there for, whichever came first, and ours goes without taking theirs along."""
    pytest.importorskip(
        "mlflow", reason="python -m venv V && V/bin/pip install mlflow -e . scikit-learn pytest"
    )
    assert run(MLFLOW, order) == MLFLOW_SAYS
