"""Several operations on one input: calls are counted each, features and labels once."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from instrumented import KMeansLike, Spans, X, fitted, y
from scipy import sparse
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from support import Points, by_name

import otel_ml
from otel_ml import pipeline, registry
from otel_ml._spare import LARGE
from otel_ml.instrument import repeats

pytestmark = pytest.mark.usefixtures("instrumented")

Collect = Callable[[], Points]
NAMES = ["a", "b", "c"]


def features(points: Points) -> list[int]:
    """Rows counted of each feature, all the same."""
    counts: Counter[str] = Counter()
    for point in points.get("ml.feature.observations", []):
        counts[point.attributes["ml.feature.name"]] += point.value
    return sorted(set(counts.values()))


def rows(points: Points) -> dict[str, int]:
    return {p.attributes["ml.operation.name"]: p.value for p in points["ml.inference.rows"]}


def labels(points: Points) -> dict[str, int]:
    return {p.attributes["ml.prediction.label"]: p.value for p in points["ml.predictions"]}


def scores(points: Points) -> dict[str, int]:
    return {p.attributes["ml.prediction.score.type"]: p.count for p in points["ml.prediction.score"]}


def batch(n: int = 80) -> Any:
    return np.random.default_rng(n).normal(size=(n, 3))


INPUTS: dict[str, Callable[[], Any]] = {
    "one row": lambda: batch(1),
    "float64": batch,
    "float32": lambda: batch().astype("f4"),
    "integers": lambda: (10 * batch()).astype("i8"),
    "columns first": lambda: np.asfortranarray(batch()),
    "not contiguous": lambda: batch(160)[::2],
    "read-only": lambda: np.frombuffer(batch().tobytes()).reshape(80, 3),
    "float16": lambda: batch().astype("f2"),
    "objects": lambda: batch().astype(object),
    "large": lambda: batch(LARGE // 24 + 1),
    "large, columns first": lambda: np.asfortranarray(batch(LARGE // 24 + 1)),
    "pandas": lambda: pd.DataFrame(batch(), columns=NAMES),
    "pandas, mixed": lambda: pd.DataFrame(batch(), columns=NAMES).astype({"b": "f4", "c": object}),
}


@pytest.mark.parametrize("order", [("predict", "predict_proba"), ("predict_proba", "predict")])
@pytest.mark.parametrize("kind", INPUTS)
def test_features_and_labels_of_an_input_are_counted_once(
    kind: str, order: tuple[str, str], collect: Collect, instrumented: Spans
) -> None:
    """Rows, duration and span belong to each call; features and labels to the rows."""
    given = INPUTS[kind]()
    named = isinstance(given, pd.DataFrame)
    model = LogisticRegression().fit(pd.DataFrame(X, columns=NAMES) if named else X, y)
    for operation in order:
        getattr(model, operation)(given)
    points, n = collect(), len(given)
    assert rows(points) == dict.fromkeys(order, n)
    assert {
        p.attributes["ml.operation.name"]: p.count for p in points["ml.inference.duration"]
    } == dict.fromkeys(order, 1)
    assert instrumented.names() == [f"{operation} LogisticRegression" for operation in order]
    assert features(points) == [n]
    assert sum(labels(points).values()) == n
    assert scores(points) == {"margin": n, "probability": n}


def test_a_polars_frame_is_known_again(collect: Collect) -> None:
    """A frame that nobody can change is the same as long as it is the same object, and is not kept alive."""
    polars = pytest.importorskip("polars", reason="pip install polars")
    frame = polars.DataFrame(batch(), schema=NAMES)
    model = LogisticRegression().fit(polars.DataFrame(X, schema=NAMES), y)
    model.predict(frame)
    model.predict_proba(frame)
    assert features(collect()) == [80]
    gone = weakref.ref(frame)
    del frame
    gc.collect()
    assert gone() is None


def test_a_sparse_input_is_known_again(collect: Collect, baseline: otel_ml.Baseline) -> None:
    """Its declared columns are counted once; a change of one value makes it a new batch."""
    given = sparse.csr_matrix(batch())
    model = fitted()
    registry.register(model, name="m", version="1", baseline=baseline)
    model.predict(given)
    model.predict_proba(given)
    given.data[0] += 1.0
    model.decision_function(given)
    assert features(collect()) == [160]


def test_nan_is_the_same_as_nan(collect: Collect) -> None:
    """Missing values do not make an input a new one."""

    class Tolerant(KMeansLike):
        def predict_proba(self, X: Any) -> Any:
            return np.full((len(X), 2), 0.5)

    model = Tolerant().fit(X, y)
    for given in (np.full((4, 3), np.nan), pd.DataFrame(np.full((4, 3), np.nan), columns=["x0", "x1", "x2"])):
        model.predict(given)
        model.predict_proba(given)
    assert features(collect()) == [8]


@pytest.mark.parametrize("kind", sorted(INPUTS.keys() - {"read-only"}))
def test_a_buffer_that_was_filled_anew_is_a_new_batch(kind: str, collect: Collect) -> None:
    """The object is the same, its content is not: everything is counted."""
    given = INPUTS[kind]()
    named = isinstance(given, pd.DataFrame)
    model = LogisticRegression().fit(pd.DataFrame(X, columns=NAMES) if named else X, y)
    model.predict(given)
    if named:
        given.iloc[0, 1] = 7.0
    else:
        given[0, 1] = 7
    model.predict_proba(given)
    points = collect()
    assert features(points) == [2 * len(given)]
    assert sum(labels(points).values()) == 2 * len(given)


def test_another_object_of_the_same_content_is_a_new_batch(collect: Collect) -> None:
    """Two requests can hold the same row."""
    model = fitted()
    model.predict(X)
    model.predict_proba(X.copy())
    assert features(collect()) == [160]


def test_three_operations_are_one_batch(collect: Collect) -> None:
    """A third operation adds what the first two did not tell: scores of one type are counted once."""
    model = fitted()
    model.predict_log_proba(X)
    model.predict_proba(X)
    model.predict(X)
    points = collect()
    assert rows(points) == {"predict_log_proba": 80, "predict_proba": 80, "predict": 80}
    assert features(points) == [80]
    assert sum(labels(points).values()) == 80
    assert scores(points) == {"probability": 80, "margin": 80}


def test_what_the_second_operation_told_is_known_to_the_third(collect: Collect) -> None:
    """Probabilities and their logarithms are one score, whichever operations came before."""
    model = DecisionTreeClassifier(max_depth=1).fit(X, y)
    for operation in ("predict", "predict_proba", "predict_log_proba"):
        getattr(model, operation)(X)
    assert scores(collect()) == {"probability": 80}


def test_of_a_model_only_the_last_input_is_remembered(collect: Collect) -> None:
    """Models asked in turn do not push each other out."""
    one, other, kept = fitted(), fitted(C=2.0), [X[i : i + 1] for i in range(2 * repeats.MODELS)]
    for row in kept:
        one.predict(row)
        other.predict(row)
    assert [asked() is kept[-1] for asked in repeats._recent.get()] == [True, True]


def test_scores_of_one_type_are_counted_once(collect: Collect) -> None:
    """The margin that predict computed is not counted again when it is asked for."""
    model = fitted()
    model.predict(X)
    model.decision_function(X)
    assert scores(collect()) == {"margin": 80}


def test_the_same_operation_twice_is_two_predictions(collect: Collect) -> None:
    """Each call of one operation begins anew; what follows belongs to the last."""
    model = fitted()
    for operation in ("predict", "predict", "predict_proba", "predict"):
        getattr(model, operation)(X)
    points = collect()
    assert features(points) == [240]
    assert sum(labels(points).values()) == 240


def test_models_asked_in_turn_are_kept_apart(collect: Collect) -> None:
    """Another model in between changes nothing, and counts its own features."""
    one, other = fitted(), LinearRegression().fit(X, y)
    one.predict(X)
    other.predict(X)
    one.predict_proba(X)
    points = collect()
    by_model: Counter[str] = Counter()
    for point in points["ml.feature.observations"]:
        by_model[point.attributes["ml.model.name"], point.attributes["ml.feature.name"]] += point.value
    assert set(by_model.values()) == {80}


def test_a_copy_of_a_model_is_another_one(collect: Collect) -> None:
    """Two models that go by one name are asked one operation each: that is two predictions."""
    fitted().predict(X)
    fitted().predict_proba(X)
    assert features(collect()) == [160]


def test_more_models_than_are_remembered_are_counted_in_full(collect: Collect) -> None:
    """What is remembered is bounded; beyond it rows count as new ones."""
    models = [fitted(C=1.0 + i) for i in range(repeats.MODELS + 1)]
    for operation in ("predict", "predict_proba"):
        for model in models:
            getattr(model, operation)(X)
    assert len(repeats._recent.get()) == repeats.MODELS
    assert sum(p.value for p in collect()["ml.feature.observations"]) == 3 * 80 * 2 * len(models)


@pytest.mark.parametrize("where", ["here", "in another thread"])
def test_a_fit_in_between_makes_it_another_model(where: str, collect: Collect) -> None:
    """After a fit the rows are asked of a model that never saw them."""
    model = fitted()
    model.predict(X)
    if where == "here":
        model.fit(X, y)
    else:
        _in_thread(lambda: model.fit(X, y))
    model.predict_proba(X)
    assert features(collect()) == [160]


def test_a_call_that_raises_counts_nothing_and_forgets_nothing(collect: Collect) -> None:
    """An operation that failed and is tried again is still about rows that were counted."""

    class Flaky(KMeansLike):
        fails = True

        def predict_proba(self, X: Any) -> Any:
            if self.fails:
                raise RuntimeError
            return np.full((len(X), 2), 0.5)

    model = Flaky().fit(X, y)
    model.predict(X)
    with pytest.raises(RuntimeError):
        model.predict_proba(X)
    model.fails = False
    model.predict_proba(X)
    assert features(collect()) == [80]
    fresh = X.copy()
    model.fails = True
    with pytest.raises(RuntimeError):
        model.predict_proba(fresh)
    model.predict(fresh)
    assert features(collect()) == [160]


def test_a_model_that_changes_its_input_counts_what_it_was_given(collect: Collect) -> None:
    """The second operation is given other values than the first."""

    class Scaling(KMeansLike):
        def predict(self, X: Any) -> Any:
            X *= 2.0
            return super().predict(X)

        def predict_proba(self, X: Any) -> Any:
            return np.full((len(X), 2), 0.5)

    model = Scaling().fit(X.copy(), y)
    given = X.copy()
    model.predict(given)
    model.predict_proba(given)
    assert features(collect()) == [160]


# --- threads, tasks, processes ------------------------------------------------------------------------------


def _in_thread(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_another_thread_has_rounds_of_its_own(collect: Collect) -> None:
    """One thread's predict and another's predict_proba are two predictions."""
    model = fitted()
    model.predict(X)
    _in_thread(lambda: model.predict_proba(X))
    assert features(collect()) == [160]


def test_threads_that_ask_at_once_lose_and_double_nothing(collect: Collect) -> None:
    """Each thread's pairs of calls are one batch, whatever the others do, and drains in between change nothing."""
    model = fitted()

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for i in range(50):
            given = rng.normal(size=(3 if i % 10 else LARGE // 24 + 1, 3))
            model.predict(given)
            if i % 7 == 0:
                pipeline.producer().drain()
            model.predict_proba(given)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = 4 * (45 * 3 + 5 * (LARGE // 24 + 1))
    points = collect()
    assert rows(points) == {"predict": expected, "predict_proba": expected}
    assert features(points) == [expected]
    assert sum(labels(points).values()) == expected


def test_tasks_of_an_event_loop_are_kept_apart(collect: Collect) -> None:
    """Between the two calls of a task others ask the same model."""
    model = fitted()

    async def request(given: Any) -> None:
        model.predict(given)
        await asyncio.sleep(0)
        model.predict_proba(given)

    async def serve() -> None:
        await asyncio.gather(*(request(X[i : i + 10].copy()) for i in range(0, 80, 10)))

    asyncio.run(serve())
    assert features(collect()) == [80]


def test_of_two_copies_of_a_context_one_repeats(collect: Collect) -> None:
    """Two tasks that were started after predict both ask for probabilities: the second asks anew."""
    model = fitted()
    model.predict(X)
    for _ in range(2):
        contextvars.copy_context().run(model.predict_proba, X)
    assert features(collect()) == [160]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_clean(reader: Any) -> None:
    """What the parent counted is not in the child's counts: there the rows are new."""
    model = fitted()
    model.predict(X)
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            model.predict_proba(X)
            os.write(into, repr(features(by_name(reader.get_metrics_data()))).encode())
        finally:
            os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    assert os.read(out, 100) == b"[80]"
    os.close(out)
    assert features(by_name(reader.get_metrics_data())) == [80]


# --- memory -------------------------------------------------------------------------------------------------


def test_the_snapshot_goes_with_its_input(collect: Collect) -> None:
    """An input that the caller lets go of is gone, and its copy with it, whose memory is used again."""
    model, given = fitted(), batch(LARGE // 24 + 1)
    model.predict(given)
    collect()
    (asked,) = repeats._recent.get()
    block, reference = asked.entry[0][0].block, weakref.ref(given)
    spare = pipeline.producer()._pending.spare
    assert spare._blocks == {}
    del given
    assert reference() is None
    assert asked.entry is None
    assert spare._blocks[len(block)][0] is block


def test_a_remembered_block_is_not_used_again_under_us(collect: Collect) -> None:
    """A drain between two operations hands out no block that is still compared with."""
    model, given = fitted(), batch(LARGE // 24 + 1)
    model.predict(given)
    collect()
    fitted(C=2.0).predict(batch(LARGE // 24 + 1) + 1.0)
    collect()
    model.predict_proba(given)
    points = [p for p in collect()["ml.feature.observations"] if p.attributes["ml.feature.name"] == "x0"]
    assert sorted(p.value for p in points) == [len(given)] * 2


def test_a_huge_input_is_not_remembered(collect: Collect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy would stay for as long as the input: its features count with each operation."""
    monkeypatch.setattr(repeats, "LIMIT", X.nbytes - 1)
    model = fitted()
    model.predict(X)
    model.predict_proba(X)
    assert features(collect()) == [160]


def test_lists_count_each_time(collect: Collect) -> None:
    """A list cannot be referred to weakly: it is not remembered."""
    model, given = fitted(), X.tolist()
    model.predict(given)
    model.predict_proba(given)
    assert features(collect()) == [160]


def test_nothing_is_left_out_after_counts_were_only_skipped(collect: Collect) -> None:
    """A call that was not counted, for nobody collected, is no reason to leave the next one out."""
    model = fitted()
    pipeline.producer()._pending.idle = True
    model.predict(X)
    pipeline.producer()._pending.idle = False
    model.predict_proba(X)
    assert features(collect()) == [80]


def test_outlier_detectors_count_each_score_once(collect: Collect) -> None:
    """All three operations of a detector give one anomaly score a row."""
    model = IsolationForest(n_estimators=3, random_state=0).fit(X)
    for operation in ("predict", "decision_function", "score_samples"):
        getattr(model, operation)(X)
    points = collect()
    assert scores(points) == {"anomaly": 80}
    assert features(points) == [80]


def test_decorated_functions_count_every_call(collect: Collect) -> None:
    """Only estimators have operations that belong together."""
    one = otel_ml.observe("m", "1", operation="predict")(lambda X: X[:, 0])
    other = otel_ml.observe("m", "1", operation="predict_proba")(lambda X: X[:, 0])
    one(X)
    other(X)
    assert features(collect()) == [160]
