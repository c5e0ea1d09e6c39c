"""What waits to be counted: bounded in bytes, out of reach of the caller, and no reason to keep his objects alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import select

from otel_ml import observe, pipeline


def observed(function: Callable[[Any], Any], baseline: Any = None) -> Callable[[Any], Any]:
    return observe("churn", "3", baseline=baseline, spans="off")(function)


def waiting() -> int:
    return pipeline.producer()._pending.bytes


def rows(points: Any) -> list[int]:
    return [point.value for point in points["ml.inference.rows"]]


@pytest.mark.parametrize(
    ("given", "least"),
    [
        (np.zeros((100, 10)), 8_000),
        ([[float(i) for i in range(1_000)]] * 10, 80_000),
        ({"a": [float(i) for i in range(1_000)], "b": ["x"] * 1_000}, 16_000),
        ([{"text": "x" * 10_000}] * 10, 100_000),
        (pd.DataFrame(np.zeros((100, 10))), 8_000),
    ],
    ids=["array", "lists", "columns", "records of text", "pandas"],
)
def test_the_bytes_of_an_input_are_counted_whatever_its_form(reader: Any, given: Any, least: int) -> None:
    """The queue's limit holds for wide lists, columns and texts as for arrays."""
    observed(lambda X: None)(given)
    assert least <= waiting() < 20 * least


def test_the_bytes_of_an_output_are_counted(reader: Any) -> None:
    """A small input with a large answer takes its room in the queue."""
    observed(lambda X: np.zeros((1, 10_000)))(np.zeros((1, 3)))
    assert waiting() > 80_000


def test_failed_calls_are_bounded_too(monkeypatch: pytest.MonkeyPatch, collect_factory: Any) -> None:
    """A model that always raises, with nobody collecting, does not fill the memory; every failure is counted."""
    monkeypatch.setenv("OTEL_PYTHON_ML_QUEUE_BYTES", "65536")
    collect = collect_factory()

    def fails(X: Any) -> Any:
        raise KeyError

    predict = observed(fails)
    most = 0
    for _ in range(1_000):
        with pytest.raises(KeyError):
            predict(1)
        most = max(most, waiting())
    assert most <= 65_536
    assert [p.count for p in collect()["ml.inference.duration"]] == [1_000]


@pytest.mark.parametrize("role", ["input", "output"])
def test_an_object_that_is_no_table_is_not_kept_alive(role: str, collect: Any) -> None:
    """An image or a request is counted as a call and let go at once."""

    class Image:
        pass

    made: list[Any] = [Image()]
    reference = weakref.ref(made[0])
    observed(lambda X: made.pop() if role == "output" else None)(made.pop() if role == "input" else [[0.0]])
    gc.collect()
    assert reference() is None
    assert rows(collect()) == [1]


class Tensor:
    """An array of another library."""

    def __init__(self, values: Any) -> None:
        self.values = np.array(values)
        self.shape = self.values.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.values


class Lazy(Tensor):
    """A collection whose values have yet to be computed."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise AssertionError("computed")

    def __dask_graph__(self) -> object:
        return {}


class Dataset:
    """A sequence that loads a row when it is asked for it."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, row: int) -> Any:
        raise AssertionError("loaded")


def test_a_tensor_is_read_as_it_was_at_the_call(collect: Any, baseline: Any) -> None:
    """A buffer that is used again after the call does not change what was counted."""
    tensor = Tensor([[0.0, -50.0, 1.0]])
    answer = pd.Series([0.5])
    observed(lambda X: answer, baseline)(tensor)
    tensor.values[:] = 1e9
    answer[:] = 1e9
    points = collect()
    states = {p.attributes["ml.feature.state"]: p.value for p in points["ml.feature.observations"] if p.value}
    assert states == {"ok": 1}
    assert sum(points["ml.prediction.score"][0].bucket_counts[:-1]) == 1


@pytest.mark.parametrize("lazy", [Lazy(np.zeros((7, 3))), Dataset()], ids=["lazy collection", "data set"])
def test_what_would_have_to_be_computed_is_only_counted(lazy: Any, collect: Any, spans: Any) -> None:
    """Neither as input nor as output does a lazy collection do its work because it is observed."""
    assert observe("churn", "3")(lambda X: X)(lazy) is lazy
    assert rows(collect()) == [7]


def test_an_output_of_bytes_and_numbers_is_no_matrix_of_ours(collect: Any) -> None:
    """A tuple that begins with bytes costs nobody his rows."""
    predict = observed(lambda X: (b"x", 1, 2.0))
    predict(np.zeros((1, 3)))
    predict(np.zeros((2, 3)))
    assert rows(collect()) == [3]


def test_an_empty_batch_is_nothing_to_talk_about(collect: Any, caplog: pytest.LogCaptureFixture) -> None:
    """No rows and no columns: the call is counted, without a word."""
    predict = observed(lambda X: np.zeros(len(X)))
    for empty in ([], np.zeros((0, 3)), pd.DataFrame({"a": []})):
        predict(empty)
    predict(np.zeros((4, 0)))
    points = collect()
    assert rows(points) == [4]
    assert [p.count for p in points["ml.inference.duration"]] == [4]
    assert "otel_ml.dropped" not in points
    assert caplog.messages == []


def test_a_mapping_that_is_no_dict_is_a_row(collect: Any, baseline: Any) -> None:
    """Any mapping of scalars is read by its names."""
    observed(lambda X: None, baseline)(MappingProxyType({"a": 0.0, "b": -50.0, "c": 1}))
    assert [p.count for p in select(collect()["ml.feature.value"], ml__feature__name="a")] == [1]
