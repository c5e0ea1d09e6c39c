"""Instrumented scikit-learn: one emission per call of a user, none while fitting; on and off."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from instrumented import KMeansLike, Spans, X, fitted, run, y
from joblib._parallel_backends import ThreadingBackend
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sklearn import ensemble, model_selection, multiclass, multioutput, neighbors, svm
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.parallel import Parallel, delayed

import otel_ml
from otel_ml import config, registry
from otel_ml.instrument.sklearn import SklearnInstrumentor
from otel_ml.observer import suppressed

# --- one emission per call ----------------------------------------------------------------------------------


def test_a_prediction_says_which_model_made_it(instrumented: Spans) -> None:
    """The span carries class, automatic version, library, task and number of rows."""
    model = fitted()
    model.predict(X)
    [span] = instrumented.take()
    attributes = dict(span.attributes)
    assert attributes.pop("ml.model.version").startswith("auto-")
    with otel_ml.suppress():
        margins = model.decision_function(X)
    for name, value in (("min", margins.min()), ("max", margins.max()), ("mean", margins.mean())):
        assert attributes.pop(f"ml.prediction.score.{name}") == pytest.approx(value)
    assert attributes == {
        "ml.model.name": "LogisticRegression",
        "ml.model.type": "LogisticRegression",
        "ml.operation.name": "predict",
        "ml.system.name": "sklearn",
        "ml.task.type": "classification",
        "ml.batch.size": 80,
        "ml.prediction.score.type": "margin",
    }


@pytest.mark.parametrize("operation", ["predict", "predict_proba", "decision_function"])
def test_each_operation_is_recorded_under_its_name(operation: str, instrumented: Spans) -> None:
    """The operation is the name of the method, with the input by position or by name."""
    model = fitted()
    getattr(model, operation)(X)
    getattr(model, operation)(X=X)
    seen = instrumented.take()
    assert [span.name for span in seen] == [f"{operation} LogisticRegression"] * 2
    assert [span.attributes["ml.batch.size"] for span in seen] == [80, 80]


def test_scores_of_samples_are_predictions_of_outlier_detectors_only(instrumented: Spans) -> None:
    """An anomaly score is a prediction, a density is not."""
    ensemble.IsolationForest(n_estimators=5).fit(X).score_samples(X)
    neighbors.KernelDensity().fit(X).score_samples(X)
    PCA().fit(X).score_samples(X)
    assert instrumented.names() == ["score_samples IsolationForest"]


COMPOSITES: dict[str, Callable[[], Any]] = {
    "forest in threads": lambda: ensemble.RandomForestClassifier(20, n_jobs=2),
    "isolation forest": lambda: ensemble.IsolationForest(n_estimators=5, n_jobs=2),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "pipeline in a pipeline": lambda: make_pipeline(StandardScaler(), make_pipeline(LogisticRegression())),
    "grid search": lambda: model_selection.GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    "grid search with a scorer": lambda: model_selection.GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()),
        {"logisticregression__C": [1.0]},
        scoring="roc_auc",
        cv=2,
    ),
    "stacking": lambda: ensemble.StackingClassifier([("a", LogisticRegression()), ("b", svm.SVC())], cv=2),
    "voting": lambda: ensemble.VotingClassifier([("a", LogisticRegression()), ("b", KMeansLike())]),
    "calibrated": lambda: CalibratedClassifierCV(svm.LinearSVC(), cv=2),
    "bagging": lambda: ensemble.BaggingClassifier(LogisticRegression(), n_estimators=3),
    "boosting": lambda: ensemble.AdaBoostClassifier(n_estimators=3),
    "gradient boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=3, early_stopping=True),
    "one against the rest": lambda: multiclass.OneVsRestClassifier(LogisticRegression()),
    "several outputs": lambda: MultiOutput(),
    "threshold": lambda: model_selection.TunedThresholdClassifierCV(LogisticRegression(), cv=2),
    "clusters": lambda: KMeans(2, n_init=1),
    "neighbours": lambda: neighbors.KNeighborsClassifier(n_jobs=2),
}


class MultiOutput(multioutput.MultiOutputClassifier):
    """Two outputs from one."""

    def __init__(self) -> None:
        super().__init__(LogisticRegression(), n_jobs=None)

    def fit(self, X: Any, y: Any) -> MultiOutput:
        super().fit(X, np.c_[y, 1 - y])
        return self

    def predict(self, X: Any) -> Any:
        return super().predict(X)


@pytest.mark.filterwarnings("ignore:The SAMME.R algorithm:FutureWarning")  # scikit-learn 1.5
@pytest.mark.parametrize("kind", COMPOSITES)
def test_every_call_is_one_emission_and_a_fit_is_none(kind: str, instrumented: Spans) -> None:
    """However many estimators take part, one call of the user is one prediction; fitting is none."""
    model = COMPOSITES[kind]()
    model.fit(X, y)
    assert instrumented.names() == []
    for operation in ("predict", "predict_proba", "decision_function"):
        if hasattr(model, operation):
            getattr(model, operation)(X)
            assert [name.partition(" ")[0] for name in instrumented.names()] == [operation]


def test_tasks_in_processes_belong_to_the_call_that_made_them(instrumented: Spans) -> None:
    """An instrumented worker process knows that its task is part of a call that is recorded elsewhere."""
    with joblib.parallel_config("loky", n_jobs=2):
        assert Parallel()(delayed(suppressed)() for _ in range(2)) == [False, False]
        with otel_ml.suppress():
            assert Parallel()(delayed(suppressed)() for _ in range(2)) == [True, True]
        ensemble.BaggingClassifier(LogisticRegression(), n_estimators=4, n_jobs=2).fit(X, y).predict(X)
    assert instrumented.names() == ["predict BaggingClassifier"]


class Elsewhere(ThreadingBackend):
    """A backend that might run its tasks on another machine."""


def test_tasks_for_another_machine_are_left_alone(instrumented: Spans) -> None:
    """What a foreign backend sends away needs nothing of ours where it arrives."""
    joblib.register_parallel_backend("elsewhere", Elsewhere)
    with joblib.parallel_config("elsewhere", n_jobs=2), otel_ml.suppress():
        assert Parallel()(delayed(suppressed)() for _ in range(2)) == [False, False]


def test_evaluation_is_no_prediction(instrumented: Spans) -> None:
    """score, cross validation and scorers count nothing, though their names were imported before us."""
    model = fitted()
    model.score(X, y)
    cross_val_predict(LogisticRegression(), X, y, cv=2)
    cross_val_predict(LogisticRegression(), X, y, cv=2, method="predict_proba")
    cross_val_score(LogisticRegression(), X, y, cv=2, scoring="roc_auc")
    cross_val_score(LogisticRegression(), X, y, cv=2, scoring=lambda model, X, y: model.predict(X).mean())
    permutation_importance(model, X, y, n_repeats=1, scoring=["accuracy", "roc_auc"])
    sklearn.metrics.get_scorer("neg_log_loss")(model, X, y)
    KMeans(2, n_init=1).fit_predict(X)
    SGDClassifier().partial_fit(X, y, classes=[0, 1])
    assert instrumented.names() == []


def test_nothing_is_recorded_while_suppressed(instrumented: Spans) -> None:
    """Inside `suppress()` scikit-learn is as it was."""
    model = fitted()
    with otel_ml.suppress():
        model.predict(X)
    assert instrumented.names() == []


def test_rows_and_features_reach_the_metrics(instrumented: Spans) -> None:
    """Every row of an instrumented call is counted, under the names of the DataFrame it was fitted on."""
    frame = pd.DataFrame(X, columns=["age", "income", "tenure"])
    model = LogisticRegression().fit(frame, y)
    reader = InMemoryMetricReader()
    otel_ml.instrument(meter_provider=MeterProvider(metric_readers=[reader]))
    model.predict(frame)
    data = reader.get_metrics_data()
    metrics = {m.name: m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}
    assert [point.value for point in metrics["ml.inference.rows"].data.data_points] == [80]
    named = {
        point.attributes["ml.feature.name"] for point in metrics["ml.feature.observations"].data.data_points
    }
    assert named == {"age", "income", "tenure"}


# --- decorated functions ------------------------------------------------------------------------------------


def test_a_decorated_function_owns_the_call_of_an_unregistered_model(instrumented: Spans) -> None:
    """The estimator inside is part of the function's prediction."""
    model = make_pipeline(StandardScaler(), fitted()).fit(X, y)

    @otel_ml.observe("churn", "3")
    def predict(X: Any) -> Any:
        return model.predict_proba(X)[:, 1]

    predict(X)
    assert instrumented.names() == ["predict churn"]


def test_a_registered_model_inside_a_decorated_function_is_a_child(instrumented: Spans) -> None:
    """Both are recorded, the model under the function."""
    model = fitted()
    registry.register(model, name="stage-1", version="7", spans="all")

    @otel_ml.observe("churn", "3")
    def predict(X: Any) -> Any:
        return model.predict_proba(X)[:, 1]

    predict(X)
    inner, outer = instrumented.take()
    assert [inner.name, outer.name] == ["predict_proba stage-1", "predict churn"]
    assert inner.parent.span_id == outer.context.span_id


def test_a_function_and_its_model_under_one_identity_are_one_prediction(instrumented: Spans) -> None:
    """A model that is registered as what the function is decorated as is not counted twice."""
    model = fitted()
    registry.register(model, name="churn", version="3")
    otel_ml.observe("churn", "3")(lambda X: model.predict(X))(X)
    assert instrumented.names() == ["predict churn"]


def test_a_registered_step_of_a_pipeline_is_part_of_the_pipelines_call(instrumented: Spans) -> None:
    """Only a decorated function lets others speak: in an estimator's own call every part is folded in."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    registry.register(pipeline[-1], name="last", version="1")
    pipeline.predict(X)
    assert instrumented.names() == ["predict LogisticRegression"]


def test_a_decorated_method_of_an_estimator_is_recorded_once(instrumented: Spans) -> None:
    """The decorator's identity stands; instrumentation leaves the method alone."""

    class Decorated(KMeansLike):
        @otel_ml.observe("mine", "1")
        def predict(self, X: Any) -> Any:
            return super().predict(X)

    model = Decorated().fit(X, y)
    assert instrumented.names() == []
    model.predict(X)
    assert instrumented.names() == ["predict mine"]


# --- on and off ---------------------------------------------------------------------------------------------


def _methods() -> dict[tuple[str, str], object]:
    """Everything that stands in the classes and functions that are patched."""
    from sklearn.metrics import _scorer
    from sklearn.model_selection import _validation

    found: dict[tuple[str, str], object] = {}
    waiting: list[type] = [BaseEstimator, Parallel, _scorer._BaseScorer, _scorer._MultimetricScorer]
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        for part in cls.__mro__[:-1]:
            found |= {
                (f"{part.__module__}.{part.__qualname__}", name): vars(part)[name]
                for name in list(vars(part))
            }
    found |= {("validation", name): value for name, value in vars(_validation).items()}
    return {
        key: value
        for key, value in found.items()
        if not key[1].startswith(("_abc", "__slotnames", "__weakref"))
    }


def test_uninstrument_restores_the_very_objects() -> None:
    """After it every class and function has what it had before, and nothing new."""
    gc.collect()
    before = _methods()
    otel_ml.instrument()
    during = _methods()
    otel_ml.uninstrument()
    after = _methods()
    changed = {key for key in before if during[key] is not before[key]}
    assert len(changed) > 200
    assert {key for key in before if after.get(key) is not before[key]} == set()
    assert after.keys() == before.keys()


def test_instrumenting_again_works_and_instrumenting_twice_does_not_count_twice(instrumented: Spans) -> None:
    """On, on, off, on: one emission a call."""
    otel_ml.instrument()
    otel_ml.uninstrument()
    otel_ml.uninstrument()
    model = fitted()
    model.predict(X)
    otel_ml.instrument()
    model.predict(X)
    assert instrumented.names() == ["predict LogisticRegression"]


def test_a_method_taken_before_uninstrument_goes_on_without_us(instrumented: Spans) -> None:
    """A bound method that somebody kept still predicts and records nothing."""
    predict = fitted().predict
    otel_ml.uninstrument()
    assert len(predict(X)) == 80
    assert instrumented.names() == []


def test_what_somebody_patched_over_ours_stays(instrumented: Spans) -> None:
    """Another tool's patch on top keeps working after uninstrument, and ours inside it is silent."""

    class Patched(KMeansLike):
        def predict(self, X: Any) -> Any:
            return super().predict(X)

    inner = Patched.predict
    Patched.predict = lambda self, X: inner(self, X) + 10  # type: ignore[method-assign]
    model = Patched().fit(X, y)
    assert set(model.predict(X)) == {10, 11}
    assert instrumented.names() == ["predict Patched"]
    otel_ml.uninstrument()
    assert set(model.predict(X)) == {10, 11}
    assert instrumented.names() == []


def test_a_class_that_cannot_be_patched_leaves_the_others_observed(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class that takes no attributes, as those of extension modules, stays as it is; the ones after it do not."""
    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()

    sealed = [
        True
    ]  # a class stays among its base's subclasses until it is collected: it must not stay sealed

    class Sealed(type):
        def __setattr__(cls, name: str, value: object) -> None:
            if sealed:
                raise TypeError("immutable")
            super().__setattr__(name, value)

    class Immutable(BaseEstimator, metaclass=Sealed):
        def predict(self, X: Any) -> Any:
            return X

    class After(BaseEstimator):
        def predict(self, X: Any) -> Any:
            return X

    otel_ml.instrument()
    try:
        assert Immutable().predict(X) is After().predict(X) is X
    finally:
        otel_ml.uninstrument()
        sealed.clear()
    assert Spans(spans).names() == ["predict After"]


def test_instrumenting_imports_nothing_and_reaches_what_is_imported_later() -> None:
    """scikit-learn is not imported by us, and is observed when the program imports it."""
    program = """
import sys
import otel_ml
otel_ml.instrument()
print([name for name in ('sklearn', 'scipy', 'pandas', 'grpc', 'joblib') if name in sys.modules])
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
otel_ml.instrument(tracer_provider=provider)
from sklearn.ensemble import RandomForestRegressor
RandomForestRegressor(10, n_jobs=2).fit([[0.0], [1.0]], [0.0, 1.0]).predict([[0.5]])
print([span.name for span in exporter.get_finished_spans()])
"""
    assert run(program) == "[]\n['predict RandomForestRegressor']"


def test_the_instrumentor_is_found_by_its_entry_point_and_names_its_versions() -> None:
    """`opentelemetry-instrument` finds it under a name of ours."""
    from importlib.metadata import entry_points

    [entry] = entry_points(group="opentelemetry_instrumentor", name="otel_ml_sklearn")
    assert entry.load() is SklearnInstrumentor
    assert SklearnInstrumentor().instrumentation_dependencies() == ("scikit-learn >= 1.5",)
