"""Instrumented scikit-learn: one emission per call of a user, none while fitting, and nothing that breaks."""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import otel_ml
import pandas as pd
import pytest
import sklearn
from joblib._parallel_backends import ThreadingBackend
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_ml import Baseline, config, registry
from otel_ml.instrument import estimators
from otel_ml.instrument.sklearn import SklearnInstrumentor, describe
from otel_ml.observer import suppressed
from sklearn import ensemble, model_selection, multiclass, multioutput, neighbors, svm
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.metaestimators import available_if
from sklearn.utils.parallel import Parallel, delayed

X = np.random.default_rng(0).normal(size=(80, 3))
y = (X[:, 0] + X[:, 1] > 0).astype(int)


class Spans:
    """The spans that were made since the last look."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def take(self) -> list[Any]:
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans

    def names(self) -> list[str]:
        return [span.name for span in self.take()]


@pytest.fixture
def spans() -> Iterator[Spans]:
    """scikit-learn instrumented for the time of the test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    otel_ml.instrument(tracer_provider=provider)
    yield Spans(exporter)
    otel_ml.uninstrument()


def fitted(**parameters: Any) -> LogisticRegression:
    return LogisticRegression(**parameters).fit(X, y)


def run(program: str, *arguments: str) -> str:
    """What a program in a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- one emission per call --------------------------------------------------------------------------------


def test_a_prediction_says_which_model_made_it(spans: Spans) -> None:
    """The span carries class, automatic version, library, task and number of rows."""
    fitted().predict(X)
    [span] = spans.take()
    attributes = dict(span.attributes)
    assert attributes.pop("ml.model.version").startswith("auto-")
    assert attributes == {
        "ml.model.name": "LogisticRegression",
        "ml.model.type": "LogisticRegression",
        "ml.operation.name": "predict",
        "ml.system.name": "sklearn",
        "ml.task.type": "classification",
        "ml.batch.size": 80,
    }


@pytest.mark.parametrize("operation", ["predict", "predict_proba", "decision_function"])
def test_each_operation_is_recorded_under_its_name(operation: str, spans: Spans) -> None:
    """The operation is the name of the method, with the input by position or by name."""
    model = fitted()
    getattr(model, operation)(X)
    getattr(model, operation)(X=X)
    seen = spans.take()
    assert [span.name for span in seen] == [f"{operation} LogisticRegression"] * 2
    assert [span.attributes["ml.batch.size"] for span in seen] == [80, 80]


def test_scores_of_samples_are_predictions_of_outlier_detectors_only(spans: Spans) -> None:
    """An anomaly score is a prediction, a density is not."""
    ensemble.IsolationForest(n_estimators=5).fit(X).score_samples(X)
    neighbors.KernelDensity().fit(X).score_samples(X)
    PCA().fit(X).score_samples(X)
    assert spans.names() == ["score_samples IsolationForest"]


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


class KMeansLike(ClassifierMixin, BaseEstimator):
    """A classifier of a user."""

    def fit(self, X: Any, y: Any) -> KMeansLike:
        self.classes_ = np.unique(y)
        self.predict(X)  # a look at its own work while it fits
        return self

    def predict(self, X: Any) -> Any:
        return np.where(np.asarray(X)[:, 0] > 0, self.classes_[1], self.classes_[0])


class MultiOutput(multioutput.MultiOutputClassifier):
    """Two outputs from one."""

    def __init__(self) -> None:
        super().__init__(LogisticRegression(), n_jobs=None)

    def fit(self, X: Any, y: Any) -> MultiOutput:
        super().fit(X, np.c_[y, 1 - y])
        return self

    def predict(self, X: Any) -> Any:
        return super().predict(X)


@pytest.mark.parametrize("kind", COMPOSITES)
def test_every_call_is_one_emission_and_a_fit_is_none(kind: str, spans: Spans) -> None:
    """However many estimators take part, one call of the user is one prediction; fitting is none."""
    model = COMPOSITES[kind]()
    model.fit(X, y)
    assert spans.names() == []
    for operation in ("predict", "predict_proba", "decision_function"):
        if hasattr(model, operation):
            getattr(model, operation)(X)
            assert [name.partition(" ")[0] for name in spans.names()] == [operation]


def test_tasks_in_processes_belong_to_the_call_that_made_them(spans: Spans) -> None:
    """An instrumented worker process knows that its task is part of a call that is recorded elsewhere."""
    with joblib.parallel_config("loky", n_jobs=2):
        assert Parallel()(delayed(suppressed)() for _ in range(2)) == [False, False]
        with otel_ml.suppress():
            assert Parallel()(delayed(suppressed)() for _ in range(2)) == [True, True]
        ensemble.BaggingClassifier(LogisticRegression(), n_estimators=4, n_jobs=2).fit(X, y).predict(X)
    assert spans.names() == ["predict BaggingClassifier"]


class Elsewhere(ThreadingBackend):
    """A backend that might run its tasks on another machine."""


def test_tasks_for_another_machine_are_left_alone(spans: Spans) -> None:
    """What a foreign backend sends away needs nothing of ours where it arrives."""
    joblib.register_parallel_backend("elsewhere", Elsewhere)
    with joblib.parallel_config("elsewhere", n_jobs=2), otel_ml.suppress():
        assert Parallel()(delayed(suppressed)() for _ in range(2)) == [False, False]


def test_evaluation_is_no_prediction(spans: Spans) -> None:
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
    assert spans.names() == []


def test_nothing_is_recorded_while_suppressed(spans: Spans) -> None:
    """Inside `suppress()` scikit-learn is as it was."""
    model = fitted()
    with otel_ml.suppress():
        model.predict(X)
    assert spans.names() == []


def test_rows_and_features_reach_the_metrics(spans: Spans) -> None:
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


# --- decorated functions ----------------------------------------------------------------------------------


def test_a_decorated_function_owns_the_call_of_an_unregistered_model(spans: Spans) -> None:
    """The estimator inside is part of the function's prediction."""
    model = make_pipeline(StandardScaler(), fitted()).fit(X, y)

    @otel_ml.observe("churn", "3")
    def predict(X: Any) -> Any:
        return model.predict_proba(X)[:, 1]

    predict(X)
    assert spans.names() == ["predict churn"]


def test_a_registered_model_inside_a_decorated_function_is_a_child(spans: Spans) -> None:
    """Both are recorded, the model under the function."""
    model = fitted()
    registry.register(model, name="stage-1", version="7", spans="all")

    @otel_ml.observe("churn", "3")
    def predict(X: Any) -> Any:
        return model.predict_proba(X)[:, 1]

    predict(X)
    inner, outer = spans.take()
    assert [inner.name, outer.name] == ["predict_proba stage-1", "predict churn"]
    assert inner.parent.span_id == outer.context.span_id


def test_a_registered_step_of_a_pipeline_is_part_of_the_pipelines_call(spans: Spans) -> None:
    """Only a decorated function lets others speak: in an estimator's own call every part is folded in."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    registry.register(pipeline[-1], name="last", version="1")
    pipeline.predict(X)
    assert spans.names() == ["predict LogisticRegression"]


def test_a_decorated_method_of_an_estimator_is_recorded_once(spans: Spans) -> None:
    """The decorator's identity stands; instrumentation leaves the method alone."""

    class Decorated(KMeansLike):
        @otel_ml.observe("mine", "1")
        def predict(self, X: Any) -> Any:
            return super().predict(X)

    model = Decorated().fit(X, y)
    assert spans.names() == []
    model.predict(X)
    assert spans.names() == ["predict mine"]


# --- identity ---------------------------------------------------------------------------------------------


def test_a_registered_model_and_its_copies_speak_under_its_name(spans: Spans) -> None:
    """register() names the object, its deep copies and what was pickled; a refit keeps the name."""
    model = fitted()
    model.predict(X)
    registry.register(model, name="churn", version="3", variant="b", role="canary")
    model.predict(X)
    copy.deepcopy(model).predict(X)
    pickle.loads(pickle.dumps(model)).predict(X)
    model.fit(X, y + 1).predict(X)
    copy.deepcopy(model).predict(X)
    seen = spans.take()
    assert [span.name for span in seen] == ["predict LogisticRegression", *["predict churn"] * 5]
    assert {span.attributes["ml.variant.name"] for span in seen[1:]} == {"b"}


def test_a_copy_that_could_be_two_models_is_unregistered(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    """Rather no name than the wrong version, said once."""
    one, two = fitted(), fitted()
    registry.register(one, name="churn", version="3")
    registry.register(two, name="churn", version="4")
    with caplog.at_level(logging.WARNING, "otel_ml"):
        copy.deepcopy(one).predict(X)
        copy.deepcopy(two).predict(X)
    assert spans.names() == ["predict LogisticRegression"] * 2
    assert len(caplog.records) == 1


def test_spans_of_a_registered_model_can_be_switched_off(spans: Spans) -> None:
    """`spans="off"` leaves the metrics only."""
    model = fitted()
    registry.register(model, name="churn", version="3", spans="off")
    model.predict(X)
    assert spans.names() == []


def test_an_estimator_is_described_by_what_it_knows() -> None:
    """Name and type of the last step, task, classes and feature names of the whole."""
    frame = pd.DataFrame(X, columns=["age", "income", "tenure"])
    pipeline = Pipeline([("scale", StandardScaler()), ("inner", make_pipeline(LogisticRegression()))])
    model = describe(pipeline.fit(frame, np.where(y, "churned", "stayed")))
    assert (model.name, model.type, model.system, model.task) == (
        "LogisticRegression", "LogisticRegression", "sklearn", "classification",
    )  # fmt: skip
    assert model.classes == ("churned", "stayed")
    assert model.feature_names == ("age", "income", "tenure")


@pytest.mark.parametrize(
    ("estimator", "task"),
    [
        (LinearRegression(), "regression"),
        (ensemble.IsolationForest(n_estimators=2), "outlier"),
        (KMeans(2), "clustering"),
        (StandardScaler(), None),
        (Pipeline([("scale", StandardScaler()), ("last", "passthrough")]), None),
    ],
)
def test_the_task_is_scikit_learns_own_word(estimator: Any, task: str | None) -> None:
    """Regression, outlier, clustering, or nothing for what predicts nothing."""
    assert describe(estimator).task == task


def test_the_automatic_version_tells_models_apart_and_copies_together() -> None:
    """Equal for clones fitted on the same classes and names, different for other parameters or classes."""
    version = describe(fitted()).version
    assert version == describe(clone(fitted()).fit(X, y)).version
    assert version != describe(fitted(C=2.0)).version
    assert version != describe(LogisticRegression().fit(X, y + 1)).version


def test_a_fit_drops_what_was_known(spans: Spans) -> None:
    """After a refit on other classes the next call has their version and labels."""
    model = fitted()
    model.predict(X)
    model.fit(X, y + 1)
    model.predict(X)
    first, second = spans.take()
    assert first.attributes["ml.model.version"] != second.attributes["ml.model.version"]
    assert describe(model).classes == (1, 2)


def test_what_is_known_goes_with_the_object(spans: Spans) -> None:
    """A model that is gone leaves nothing behind, and instrumentation does not keep it alive."""
    model = fitted()
    model.predict(X)
    number, reference = id(model), weakref.ref(model)
    assert number in estimators._known
    del model
    gc.collect()
    assert reference() is None
    assert number not in estimators._known


@pytest.fixture
def baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory that OTEL_PYTHON_ML_BASELINES names."""
    monkeypatch.setenv("OTEL_PYTHON_ML_BASELINES", str(tmp_path))
    config.settings.cache_clear()
    estimators.reset()
    yield tmp_path
    estimators.reset()


def _baseline(name: str, columns: list[str]) -> Baseline:
    rows = np.random.default_rng(0).normal(size=(600, len(columns)))
    return Baseline.fit(rows, model=name, version="1", features=columns)


def test_a_baseline_in_the_directory_is_found_by_columns_or_by_name(baselines: Path) -> None:
    """A model nobody registered gets the one baseline that has its columns, or else its name."""
    columns, named = _baseline("churn", ["a", "b", "c"]), _baseline("LinearRegression", ["d"])
    columns.save(baselines / "churn.baseline.json")
    named.save(baselines / "linear.baseline.json")
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    assert describe(LogisticRegression().fit(frame, y)).baseline == columns
    assert describe(LinearRegression().fit(X, y)).baseline == named
    assert describe(LogisticRegression().fit(X, y)).baseline is None


def test_of_several_fitting_baselines_none_is_taken(
    baselines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A guess could compare with the wrong reference: it is said instead, with the way out."""
    for name in ("churn", "fraud"):
        _baseline(name, ["a", "b", "c"]).save(baselines / f"{name}.json")
    model = LogisticRegression().fit(pd.DataFrame(X, columns=["a", "b", "c"]), y)
    with caplog.at_level(logging.WARNING, "otel_ml"):
        assert describe(model).baseline is None
    assert "2 baselines" in caplog.text
    assert "otel_ml.register" in caplog.text


# --- nothing breaks ---------------------------------------------------------------------------------------


class Conditional(ClassifierMixin, BaseEstimator):
    """A user's class with a method that only some instances have."""

    def __init__(self, probabilities: bool = True) -> None:
        self.probabilities = probabilities

    def fit(self, X: Any, y: Any) -> Conditional:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any, *, sample_weight: Any = None) -> Any:
        return self.classes_[(np.asarray(X)[:, 0] > 0).astype(int)]

    @available_if(lambda self: self.probabilities)
    def predict_proba(self, X: Any) -> Any:
        """Chances."""
        return np.full((len(X), 2), 0.5)


PICKLED: dict[str, Callable[[], Any]] = {
    "model": fitted,
    "bound method": lambda: fitted().predict,
    "method of a pipeline": lambda: (
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y).predict_proba
    ),
    "method of a class": lambda: LogisticRegression.predict,
}


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
@pytest.mark.parametrize("kind", PICKLED)
def test_models_and_their_methods_pickle_and_need_nothing_of_ours(
    kind: str, dumps: Any, spans: Spans
) -> None:
    """What was pickled here can be read where otel-ml is not installed, and does the same."""
    thing = PICKLED[kind]()
    data = dumps(thing)
    assert b"otel_ml" not in data
    again = pickle.loads(data)
    call = {"model": lambda m: m.predict(X), "method of a class": lambda m: m(fitted(), X)}.get(
        kind, lambda m: m(X)
    )
    np.testing.assert_array_equal(call(again), call(thing))


def test_a_class_pickled_by_value_is_whole_and_is_observed_where_it_arrives(
    spans: Spans, tmp_path: Path
) -> None:
    """A notebook's class with conditional methods arrives in another process and is instrumented there."""

    class Notebook(Conditional):
        def predict(self, X: Any) -> Any:
            return super().predict(X)

        @available_if(lambda self: self.probabilities)
        def predict_proba(self, X: Any) -> Any:
            return np.full((len(X), 2), 0.25)

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        data = cloudpickle.dumps([Notebook(True).fit(X, y), Notebook(False).fit(X, y), Notebook.predict])
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    (tmp_path / "models").write_bytes(data)
    program = """
import pickle, sys
import numpy as np
import otel_ml
from otel_ml.observer import Observer
calls, call = [], Observer.call
def spy(self, function, args, kwargs, rows):
    calls.append(self.operation)
    return call(self, function, args, kwargs, rows)
Observer.call = spy
otel_ml.instrument()
one, two, predict = pickle.load(open(sys.argv[1], 'rb'))
one.predict(np.ones((2, 3))); one.predict_proba(np.ones((2, 3))); two.predict(np.ones((2, 3)))
print(calls, hasattr(one, 'predict_proba'), hasattr(two, 'predict_proba'))
"""
    assert run(program, str(tmp_path / "models")) == "['predict', 'predict_proba', 'predict'] True False"


def test_conditional_methods_stay_conditional(spans: Spans) -> None:
    """hasattr says of an instance what it said before, with scikit-learn's own error."""
    with_probabilities = make_pipeline(StandardScaler(), LogisticRegression())
    without = make_pipeline(StandardScaler(), svm.LinearSVC())
    assert [hasattr(p, "predict_proba") for p in (with_probabilities, without)] == [True, False]
    assert [hasattr(Conditional(flag), "predict_proba") for flag in (True, False)] == [True, False]
    with pytest.raises(AttributeError, match="has no attribute 'predict_proba'"):
        without.predict_proba  # noqa: B018
    assert Conditional.predict_proba.__doc__ == "Chances."


def test_clones_and_deep_copies_are_made_as_before(spans: Spans) -> None:
    """clone gives an unfitted twin, deepcopy a fitted one."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=2.0)).fit(X, y)
    np.testing.assert_array_equal(copy.deepcopy(model).predict(X), model.predict(X))
    assert clone(model).get_params()["logisticregression__C"] == 2.0
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    assert copy.deepcopy(LogisticRegression.predict) == LogisticRegression.predict


def test_methods_look_like_the_functions_they_are() -> None:
    """Signature, name, documentation, kind and metadata routing are those of the bare methods."""

    def looks() -> list[object]:
        methods = [LogisticRegression.predict, fitted().predict, Conditional(True).predict_proba]
        return [
            [inspect.signature(method) for method in methods],
            [(method.__name__, method.__qualname__, method.__doc__, method.__module__) for method in methods],
            [inspect.isfunction(methods[0]), inspect.ismethod(methods[1]), inspect.getsource(methods[1])],
            repr(Conditional().get_metadata_routing()),
            Conditional.set_predict_request.__doc__,
        ]

    bare = looks()
    otel_ml.instrument()
    try:
        assert looks() == bare
    finally:
        otel_ml.uninstrument()


def test_classes_written_after_us_ask_for_metadata_as_before(spans: Spans) -> None:
    """A late class gets the set_*_request methods that scikit-learn derives from its signatures."""

    class Late(Conditional):
        def predict(self, X: Any, *, groups: Any = None) -> Any:
            return super().predict(X)

    with sklearn.config_context(enable_metadata_routing=True):
        routed = Late().set_predict_request(groups=True)
        assert routed.get_metadata_routing().predict.requests == {"groups": True}


def test_late_classes_their_mixins_and_their_super_calls_are_one_emission(spans: Spans) -> None:
    """A class written after us is observed where it defines the method, in a mixin too, once a call."""

    class Mixin:
        def predict(self, X: Any) -> Any:
            return super().predict(X)  # type: ignore[misc]

    class Late(Mixin, KMeansLike):
        def predict(self, X: Any) -> Any:
            return super().predict(X)

    class Inheriting(Mixin, KMeansLike):
        pass

    Late().fit(X, y).predict(X)
    Inheriting().fit(X, y).predict(X)
    assert spans.names() == ["predict Late", "predict Inheriting"]


def test_a_mixin_in_a_class_that_is_no_estimator_is_not_observed(spans: Spans) -> None:
    """Only estimators make predictions."""

    class Mixin:
        def predict(self, X: Any) -> Any:
            return len(X)

    class Estimator(Mixin, BaseEstimator):
        pass

    class Plain(Mixin):
        pass

    assert [Plain().predict(X), Estimator().predict(X)] == [80, 80]
    assert spans.names() == ["predict Estimator"]


def test_odd_things_named_predict_are_left_alone(spans: Spans) -> None:
    """Properties, static methods, nested classes and coroutine functions stay what they are."""

    class Odd(BaseEstimator):
        class predict:  # noqa: N801
            pass

        predict_proba = property(lambda self: lambda X: "probabilities")

        @staticmethod
        def decision_function(X: Any) -> str:
            return "decision"

        async def score_samples(self, X: Any) -> str:
            return "later"

    assert isinstance(Odd().predict(), Odd.predict)
    assert [Odd().predict_proba(X), Odd().decision_function(X)] == ["probabilities", "decision"]
    assert inspect.iscoroutinefunction(Odd.score_samples)
    assert spans.names() == []


def test_an_abstract_method_stays_abstract(spans: Spans) -> None:
    """A late abstract class can still not be instantiated."""
    from abc import ABC, abstractmethod

    class Abstract(BaseEstimator, ABC):
        @abstractmethod
        def predict(self, X: Any) -> Any: ...

    with pytest.raises(TypeError, match="abstract"):
        Abstract()


def test_an_exception_passes_untouched_and_is_recorded(spans: Spans) -> None:
    """The caller gets scikit-learn's own exception, the span its type."""
    with pytest.raises(NotFittedError, match="not fitted yet"):
        LogisticRegression().predict(X)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'X'"):
        fitted().predict()
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        LogisticRegression.predict()
    seen = spans.take()
    assert [span.attributes["error.type"].rpartition(".")[2] for span in seen] == [
        "NotFittedError",
        "TypeError",
    ]


def test_a_failure_of_ours_costs_only_the_record(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An estimator that cannot be described still predicts, with one log line."""

    class Broken(KMeansLike):
        def get_params(self, deep: bool = True) -> dict[str, Any]:
            raise RuntimeError("no parameters today")

    monkeypatch.setenv("OTEL_PYTHON_ML_RAISE", "0")
    config.settings.cache_clear()
    model = Broken().fit(X, y)
    with caplog.at_level(logging.ERROR, "otel_ml"):
        assert len(model.predict(X)) == len(model.predict(X)) == 80
    assert len(caplog.records) == 1


def test_a_class_of_the_user_can_be_collected(spans: Spans) -> None:
    """Patching a class does not keep it alive."""

    def make() -> weakref.ref[type]:
        class Short(KMeansLike):
            def predict(self, X: Any) -> Any:
                return super().predict(X)

        Short().fit(X, y).predict(X)
        return weakref.ref(Short)

    reference = make()
    gc.collect()
    assert reference() is None


# --- on and off -------------------------------------------------------------------------------------------


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


def test_instrumenting_again_works_and_instrumenting_twice_does_not_count_twice(spans: Spans) -> None:
    """On, on, off, on: one emission a call."""
    otel_ml.instrument()
    otel_ml.uninstrument()
    otel_ml.uninstrument()
    model = fitted()
    model.predict(X)
    otel_ml.instrument()
    model.predict(X)
    assert spans.names() == ["predict LogisticRegression"]


def test_a_method_taken_before_uninstrument_goes_on_without_us(spans: Spans) -> None:
    """A bound method that somebody kept still predicts and records nothing."""
    predict = fitted().predict
    otel_ml.uninstrument()
    assert len(predict(X)) == 80
    assert spans.names() == []


def test_what_somebody_patched_over_ours_stays(spans: Spans) -> None:
    """Another tool's patch on top keeps working after uninstrument, and ours inside it is silent."""

    class Patched(KMeansLike):
        def predict(self, X: Any) -> Any:
            return super().predict(X)

    inner = Patched.predict
    Patched.predict = lambda self, X: inner(self, X) + 10  # type: ignore[method-assign]
    model = Patched().fit(X, y)
    assert set(model.predict(X)) == {10, 11}
    assert spans.names() == ["predict Patched"]
    otel_ml.uninstrument()
    assert set(model.predict(X)) == {10, 11}
    assert spans.names() == []


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
