"""What an ONNX model is given and what it answers, in the terms of everything else: columns, labels, scores.

Of one input the tensor is the matrix of features. Several inputs are columns by their names, `name.0`, `name.1`, …
where one is a few columns wide. Outputs are told apart by what they hold:

| output | read as |
|---|---|
| integers, booleans or strings, one a row | labels |
| floats (n, k) beside labels; a ZipMap, as a list of dicts; several (n,) beside labels | probabilities, if they are |
| floats (n,) or (n, 1) beside labels | anomaly when its name says score, else margin |
| floats without labels | as of any function |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..prediction import Answer
from ..snapshot import Unread

_UNREAD = "its tensors are not rows × features; its calls, rows and outcomes are recorded"
_LABELS = frozenset("iubUSO")


def columns_of(inputs: Sequence[Any]) -> tuple[str, ...] | None:
    """Names of the columns that several inputs (`NodeArg`s) make; None of one input, and of what is no table."""
    widths = [_width(node.shape) for node in inputs]
    if len(inputs) < 2 or None in widths:
        return None
    return tuple(
        node.name if width == 1 else f"{node.name}.{place}"
        for node, width in zip(inputs, widths, strict=True)
        for place in range(width or 0)
    )


def _width(shape: Sequence[Any]) -> int | None:
    """Columns of a tensor; None where it has more than two dimensions or, as a sequence of tokens, any length."""
    if len(shape) == 1:
        return 1
    return shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None


def labelled(outputs: Sequence[Any]) -> bool:
    """Whether a model names labels itself, so that the place of a probability is not one."""
    return any(node.type in ("tensor(int64)", "tensor(int32)", "tensor(string)") for node in outputs)


def read_feed(feed: Mapping[str, Any], inputs: Sequence[str], columns: Sequence[str] | None) -> Any:
    """The rows in a feed: a matrix, or columns by name; `Unread` of tensors that are no table.

    `inputs` are the names of the model's inputs, `columns` those of the columns that they make together.
    """
    values = [tensor(feed[name]) for name in inputs if name in feed]
    if len(inputs) == 1 and values:
        value = values[0]
        if value is None or value.ndim not in (1, 2):
            return _unread(feed)
        # a tensor has a dimension for the rows; of texts one column is documents
        return value.reshape(-1, 1) if value.ndim == 1 and value.dtype.kind not in "OUS" else value
    if columns is None or any(value is None or value.ndim not in (1, 2) for value in values):
        return _unread(feed)
    parts = [value.reshape(len(value), -1) for value in values if value is not None]
    if sum(part.shape[1] for part in parts) != len(columns) or len({len(part) for part in parts}) != 1:
        return _unread(feed)
    if len({part.dtype for part in parts}) == 1:
        return np.concatenate(parts, axis=1)
    return dict(zip(columns, (column for part in parts for column in part.T), strict=True))


def tensor(value: Any) -> NDArray[Any] | None:
    """A value given to or by a model as an array; None of one that is none, or lies on another device."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list):
        return _zipped(value) if value and isinstance(value[0], dict) else np.asarray(value)
    if type(value).__name__ == "OrtValue" and value.is_tensor() and value.device_name() == "cpu":
        return np.asarray(value.numpy())
    return None


def _zipped(rows: list[dict[Any, float]]) -> NDArray[Any]:
    """A ZipMap: the probability of each class, one dict a row."""
    return np.array([list(row.values()) for row in rows])


def _unread(feed: Mapping[str, Any]) -> Unread:
    return Unread("tensor", length(feed.values()), _UNREAD)


def length(values: Any) -> int:
    """Rows that tensors hold, by the first that has columns, else by the first that tells; 1 when none does.

    A line of numbers beside rows with columns is a setting, such as a threshold.
    """
    told = None
    for value in values:
        shape = getattr(value, "shape", None)
        shape = shape() if callable(shape) else shape  # an OrtValue's is a method
        rows = shape[0] if shape else len(value) if isinstance(value, list) else None
        if shape and len(shape) > 1:
            return int(shape[0])
        told = rows if told is None else told
    return 1 if told is None else int(told)


def read_outputs(outputs: Sequence[Any], names: Callable[[], Sequence[str]], rows: int) -> Any:
    """What the outputs of a call say about its `rows`, by the table above; None when they say nothing.

    `names` gives those of the outputs, in their order; it is seldom asked.
    """
    labels = None
    floats: list[tuple[int, NDArray[Any]]] = []
    for place, output in enumerate(outputs):
        value = output if type(output) is np.ndarray else tensor(output)
        if value is None or not 0 < value.ndim < 3 or len(value) != rows:
            continue
        kind = value.dtype.kind
        if kind == "f":
            floats.append((place, value))
        elif labels is None and kind in _LABELS and value.size == rows:
            labels = value
    if labels is None or not floats:
        return labels if labels is not None else floats[0][1] if floats else None
    place, scores = floats[0]
    if len(floats) > 1 and all(value.ndim == 1 for _, value in floats):
        return Answer(labels, "predict_proba", np.column_stack([value for _, value in floats]))
    if scores.size > rows:
        return Answer(labels, "predict_proba", scores)
    told = "score_samples" if "score" in names()[place] else "decision_function"
    return Answer(labels, told, scores.reshape(rows))
