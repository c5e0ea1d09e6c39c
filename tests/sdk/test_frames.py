"""Short pandas frames that look alike are read together, and all others as they came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from otel_ml._frames import joined
from otel_ml.columns import Table


def row(**values: Any) -> pd.DataFrame:
    """A frame of one row."""
    made: pd.DataFrame = pd.DataFrame({name: [value] for name, value in values.items()})
    return made


def test_a_run_of_one_layout_is_one_table() -> None:
    """With every row, in its order, and every column in its type."""
    made = list(joined([row(a=1.5, b="x", c=True), row(a=2.5, b="y", c=False), row(a=3.5, b="z", c=True)]))
    assert len(made) == 1
    assert isinstance(made[0], Table)
    assert (made[0].names, made[0].rows) == (("a", "b", "c"), 3)
    columns = [column.tolist() for column in made[0].columns]
    assert columns == [[1.5, 2.5, 3.5], ["x", "y", "z"], [True, False, True]]


@pytest.mark.parametrize(
    "other",
    [
        row(b=2.5, a="y"), row(a="y", b=2.5), row(a=2, b="y"), row(a=np.float32(2.5), b="y"), row(a=2.5),
        row(a=2.5, c="y"), pd.concat([row(a=2.5, b="y")] * 100), row(a=2.5, b="y")[:0],
        row(a=2.5, b="y").astype({"a": "Float64"}), [[2.5, "y"]], pd.Series([2.5, "y"]), None,
    ],
)  # fmt: skip
def test_what_differs_stays_apart(other: Any) -> None:
    """Other names, another order or type, a long frame, an empty one, and what is no frame."""
    first, last = row(a=1.5, b="x"), row(a=3.5, b="z")
    made = list(joined([first, other, last]))
    assert [id(first), id(other), id(last)] == list(map(id, made))


def test_categories_are_joined_only_when_all_of_them_are_equal() -> None:
    """A list of categories is a type of its own."""
    kinds = [pd.CategoricalDtype(names) for names in (["x", "y"], ["x", "y"], ["x"])]
    frames = [row(a="x", b=1.5).astype({"a": kind}) for kind in kinds]
    first, second = joined(frames)
    assert first.columns[0].tolist() == ["x", "x"]
    assert second is frames[2]


@pytest.mark.parametrize("names", [[[1, 2], [1.0, 2.0]], [[1, "a"], [1.0, "a"]], [[("a", 1)], [("a", 1.0)]]])
def test_names_that_are_equal_but_read_otherwise_stay_apart(names: list[list[Any]]) -> None:
    """The column 1 is not the column 1.0."""
    frames = [pd.DataFrame([range(len(found))], columns=found) for found in names]
    assert list(map(id, frames)) == list(map(id, joined(frames)))


def test_frames_that_cannot_be_joined_are_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pandas raises then costs nothing."""
    frames = [row(a=1.5, b="x"), row(a=2.5, b="y")]

    def fails(*_: Any, **__: Any) -> None:
        raise TypeError

    monkeypatch.setattr(pd, "concat", fails)
    assert list(map(id, frames)) == list(map(id, joined(frames)))
