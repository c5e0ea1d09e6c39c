"""XGBoost, LightGBM and CatBoost, native and of scikit-learn's kind: what holds for every one of them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import catboost
import joblib
import lightgbm
import numpy as np
import pytest
import xgboost
from boosters import FORMS, FRAME, NAMES, ROWS, Form, X, y
from instrumented import Spans, run
from opentelemetry.instrumentation.dependencies import get_dependency_conflicts
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support import Points

import otel_ml
from otel_ml import Baseline

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:X does not have valid feature names:UserWarning"
    ),  # of LightGBM, to NumPy
    pytest.mark.filterwarnings(
        "ignore:.*Python 3.14 will, by default, filter extracted tar:DeprecationWarning"
    ),
]
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
Collect = Callable[[], Points]


def untouched(form: Form, model: Any) -> Any:
    """What the model answers when nothing is recorded."""
    with otel_ml.suppress():
        return form.ask(model, FRAME)


@each_form
def test_a_call_is_one_emission_and_training_is_none(form: Form, spans: Spans) -> None:
    """The span says which model answered, of which library and task, for how many rows, with what score."""
    model = form.train()
    assert spans.names() == []
    form.ask(model, FRAME)
    [span] = spans.take()
    assert span.name == f"{form.operation} {form.name}"
    attributes = span.attributes
    assert attributes["ml.system.name"] == form.system
    assert attributes["ml.model.type"] == form.name
    assert attributes.get("ml.task.type") == form.task
    assert attributes["ml.batch.size"] == ROWS
    assert attributes.get("ml.prediction.score.type") == form.score


@each_form
def test_the_answer_is_what_it_was(form: Form, collect: Collect) -> None:
    """Bit by bit, in its type and its shape, and the rows given are left as they were."""
    given, model = FRAME.copy(), form.train()
    answer = form.ask(model, given)
    otel_ml.uninstrument()
    expected = form.ask(model, FRAME)
    assert (type(answer), answer.dtype, answer.shape) == (type(expected), expected.dtype, expected.shape)
    assert answer.tobytes() == expected.tobytes()
    assert given.equals(FRAME)


@each_form
def test_scores_are_those_of_the_answer(form: Form, spans: Spans) -> None:
    """Probability of the second class, margin or value, of each row."""
    model = form.train()
    form.ask(model, FRAME)
    [span] = spans.take()
    if form.score is None:
        assert "ml.prediction.score.min" not in span.attributes
        return
    with otel_ml.suppress():
        answer = model.predict_proba(FRAME) if form.name.endswith("Classifier") else form.ask(model, FRAME)
    scores = answer[:, 1] if answer.ndim == 2 else answer
    said = [span.attributes[f"ml.prediction.score.{name}"] for name in ("min", "max", "mean")]
    assert said == pytest.approx([scores.min(), scores.max(), scores.mean()], rel=1e-6, abs=1e-6)


@each_form
def test_features_are_counted_by_name(form: Form, collect: Collect) -> None:
    """Every row once, under the names that the training data had, on the bounds of a registered baseline."""
    model = form.train()
    baseline = Baseline.fit(FRAME, model="churn", version="3")
    otel_ml.register(model, name="churn", version="3", baseline=baseline)
    form.ask(model, FRAME)
    points = collect()
    served, training = (_counts(points[name]) for name in ("ml.feature.value", "ml.baseline.value"))
    assert {name: sum(counts) for name, counts in served.items()} == dict.fromkeys(NAMES, ROWS)
    assert served == training


def _counts(points: list[Any]) -> dict[str, list[int]]:
    named = {p.attributes.get("ml.feature.name"): list(p.bucket_counts) for p in points}
    return {name: named[name] for name in NAMES}


@each_form
def test_unnamed_columns_go_by_position(form: Form, collect: Collect) -> None:
    """A matrix has the names that the model was trained with."""
    model = form.train()
    if "Booster" in form.name and form.system == "xgboost":
        model.feature_names = None  # it refuses a matrix otherwise
        otel_ml.register(
            model, name="churn", version="3", baseline=Baseline.fit(FRAME, model="churn", version="3")
        )
    form.ask(model, X)
    named = {p.attributes["ml.feature.name"] for p in collect()["ml.feature.observations"]}
    assert named == set(NAMES)


@each_form
def test_a_registered_model_is_found_by_its_copies(form: Form, spans: Spans, tmp_path: Path) -> None:
    """Pickled, with joblib, copied or written to a file of its library and read again: still churn 3, same answers."""
    model = form.train()
    otel_ml.register(model, name="churn", version="3")
    expected = untouched(form, model)
    joblib.dump(model, tmp_path / "model.joblib")
    copies = [
        pickle.loads(pickle.dumps(model)), copy.deepcopy(model), joblib.load(tmp_path / "model.joblib"),
        *([] if form.store is None else [form.store(model, tmp_path)]),
    ]  # fmt: skip
    for made in copies:
        assert form.ask(made, FRAME).tobytes() == expected.tobytes()
    assert spans.names() == [f"{form.operation} churn"] * len(copies)


def test_automatic_versions_are_those_of_the_content(spans: Spans, tmp_path: Path) -> None:
    """Equal in another process, and of a model trained again on the same rows."""
    models = [form.train() for form in FORMS.values()]
    for form, model in zip(FORMS.values(), models, strict=True):
        form.ask(model, FRAME)
        form.ask(form.train(), FRAME)
    versions = [span.attributes["ml.model.version"] for span in spans.take()]
    assert versions[::2] == versions[1::2]
    (tmp_path / "models").write_bytes(pickle.dumps(models))
    program = (
        "import pickle, sys; from otel_ml.instrument.sklearn import describe;"
        "print([describe(model).version for model in pickle.load(open(sys.argv[1], 'rb'))])"
    )
    assert run(program, str(tmp_path / "models")) == str(versions[::2])


@pytest.mark.parametrize(
    "name", ["xgboost Booster", "lightgbm Booster", "CatBoost", "XGBRegressor", "LGBMRegressor"]
)
def test_models_of_other_rows_have_other_versions(name: str, spans: Spans) -> None:
    """Parameters and names alone would not tell them apart."""
    import boosters

    other = {
        "xgboost Booster": lambda: boosters.xgb(1 - y), "lightgbm Booster": lambda: boosters.lgb(1 - y),
        "CatBoost": lambda: boosters.cat(target=1 - y),
        "XGBRegressor": lambda: xgboost.XGBRegressor(**boosters.SMALL).fit(FRAME, X[:, 1]),
        "LGBMRegressor": lambda: lightgbm.LGBMRegressor(**boosters.SMALL, verbose=-1).fit(FRAME, X[:, 1]),
    }[name]()  # fmt: skip
    for model in (FORMS[name].train(), other):
        FORMS[name].ask(model, FRAME)
    assert len({span.attributes["ml.model.version"] for span in spans.take()}) == 2


@each_form
def test_an_exception_passes_through(form: Form, spans: Spans) -> None:
    """What the library raises arrives as it was, and stands on the span."""
    model = form.train()
    wrong = np.zeros((2, 2))
    if form.operation == "inplace_predict":
        model.feature_names = None  # for otherwise XGBoost only misses the names
    with otel_ml.suppress(), pytest.raises(Exception) as expected:  # noqa: PT011  # whatever it is
        form.ask(model, wrong)
    with pytest.raises(type(expected.value)):
        form.ask(model, wrong)
    [span] = spans.take()
    assert span.attributes["error.type"].rpartition(".")[2] == type(expected.value).__name__


@each_form
def test_threads_share_a_model(form: Form, collect: Collect) -> None:
    """Each call is counted, none twice, and each gets its own answer."""
    model = form.train()
    expected = untouched(form, model)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: form.ask(model, FRAME), range(12)))
    assert all(answer.tobytes() == expected.tobytes() for answer in answers)
    [rows] = collect()["ml.inference.rows"]
    assert rows.value == 12 * ROWS


@each_form
def test_a_decorated_function_owns_the_call_inside(form: Form, spans: Spans) -> None:
    """The model is part of the function's prediction."""
    model = form.train()
    otel_ml.observe("churn", "3")(lambda data: form.ask(model, data))(FRAME)
    assert spans.names() == ["predict churn"]


# --- on and off ---------------------------------------------------------------------------------------------

PATCHED = {
    "xgboost": [xgboost.Booster, xgboost.XGBModel, xgboost.XGBClassifier, xgboost.XGBRanker,
                xgboost.callback.CallbackContainer],
    "lightgbm": [lightgbm.Booster, lightgbm.LGBMModel, lightgbm.LGBMClassifier, lightgbm, lightgbm.engine,
                 lightgbm.sklearn],
    "catboost": [catboost.CatBoost, catboost.CatBoostClassifier, catboost.CatBoostRegressor, catboost.CatBoostRanker],
}  # fmt: skip


@pytest.mark.parametrize("library", PATCHED)
def test_uninstrument_restores_the_very_objects(library: str) -> None:
    """Classes and modules hold what they held."""
    before = [_held(holder) for holder in PATCHED[library]]
    otel_ml.instrument()
    assert [_held(holder) for holder in PATCHED[library]] != before
    otel_ml.uninstrument()
    assert [_held(holder) for holder in PATCHED[library]] == before


def _held(holder: Any) -> dict[str, int]:
    return {name: id(value) for name, value in vars(holder).items()}


@pytest.mark.parametrize("library", PATCHED)
def test_opentelemetry_finds_the_instrumentor(library: str) -> None:
    """By its entry point, and content with the version that is installed here."""
    (entry,) = entry_points(group="opentelemetry_instrumentor", name=f"otel_ml_{library}")
    assert get_dependency_conflicts(entry.load()().instrumentation_dependencies()) is None


@pytest.mark.parametrize("library", PATCHED)
def test_instrument_imports_nothing_and_finds_what_comes_later(library: str) -> None:
    """Whether the library comes before or after, and each by its own instrumentor, without scikit-learn's, too."""
    program = """
import sys, otel_ml
otel_ml.instrument()
library = sys.argv[1]
print(library in sys.modules, "sklearn" in sys.modules, end=" ")
module = __import__(library)
cls = getattr(module, "Booster", None) or module.CatBoost
patched = type(vars(cls)["predict"]).__name__
otel_ml.uninstrument()
trains = [vars(holder).get("train") for holder in (module, getattr(module, "engine", module))]
print(patched, type(vars(cls)["predict"]).__name__, [t for t in trains if t and "otel_ml" in t.__code__.co_filename])
"""
    assert run(program, library) == "False False Method function []"


@pytest.mark.parametrize("name", ["XGBClassifier", "LGBMClassifier", "CatBoostClassifier"])
def test_classes_of_scikit_learns_kind_need_no_instrumentor_of_scikit_learn(name: str) -> None:
    """With scikit-learn's switched off it is the classifier that answers, not the Booster inside."""
    form = FORMS[name]
    program = """
import sys, importlib, numpy as np
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_ml.instrument import xgboost, lightgbm, catboost
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
for kind in (xgboost.XGBoostInstrumentor, lightgbm.LightGBMInstrumentor, catboost.CatBoostInstrumentor):
    kind().instrument(tracer_provider=provider)
library, name = sys.argv[1:]
X = np.random.default_rng(0).normal(size=(60, 3))
quiet = {"xgboost": {}, "lightgbm": {"verbose": -1}, "catboost": {"verbose": 0, "allow_writing_files": False}}
model = getattr(importlib.import_module(library), name)(n_estimators=2, **quiet[library]).fit(X, X[:, 0] > 0)
model.predict_proba(X)
print([span.name for span in exporter.get_finished_spans()])
"""
    assert run(program, form.system, name) == f"['predict_proba {name}']"


def test_a_stand_in_for_a_library_is_no_failure() -> None:
    """An application's tests may put a module of their own in its place."""
    program = """
import sys, types, otel_ml
sys.modules["catboost"] = types.ModuleType("catboost")
otel_ml.instrument()
otel_ml.uninstrument()
print("fine")
"""
    assert run(program) == "fine"


# --- inside scikit-learn ------------------------------------------------------------------------------------

CLASSIFIERS = [name for name in FORMS if name.endswith("Classifier")]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_pipeline_around_it_is_one_emission(name: str, spans: Spans) -> None:
    """The last step gives it its name, and its score where it computes one."""
    model = make_pipeline(StandardScaler().set_output(transform="pandas"), FORMS[name].train()).fit(FRAME, y)
    model.predict(FRAME)
    model.predict_proba(FRAME)
    first, second = spans.take()
    assert [first.name, second.name] == [f"predict {name}", f"predict_proba {name}"]
    assert first.attributes.get("ml.prediction.score.type") == FORMS[name].score
    assert second.attributes["ml.system.name"] == FORMS[name].system


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_searches_and_evaluations_are_none(name: str, spans: Spans) -> None:
    """Neither GridSearchCV's fit nor cross validation nor score predicts for anybody; the found model does."""
    model = FORMS[name].train()
    search = GridSearchCV(model, {"learning_rate": [0.1, 0.2]}, cv=2).fit(FRAME, y)
    cross_val_predict(model, FRAME, y, cv=2, method="predict_proba")
    model.score(FRAME, y)
    assert spans.names() == []
    search.predict(FRAME)
    assert len(spans.names()) == 1


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_second_question_about_the_same_rows_counts_their_features_once(
    name: str, collect: Collect
) -> None:
    """Labels and probabilities of one frame are one prediction of its rows."""
    model = FORMS[name].train()
    model.predict(FRAME)
    model.predict_proba(FRAME)
    observed = collect()["ml.feature.observations"]
    assert {p.attributes["ml.feature.name"]: p.value for p in observed} == dict.fromkeys(NAMES, ROWS)
