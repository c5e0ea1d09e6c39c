"""The state of an engine as plain data, so that it can be written down and taken up again.

Plain are None, bool, int, float, str, numpy arrays, lists and dicts with string keys. Everything else is a dict of one
entry, whose key says what it is: `tuple`, `set`, `map` (of keys that are no strings), `floats` (a tuple of them, as
bounds are), or the name of one of `CLASSES` with its fields. Only these are ever made again: data that was tampered
with can be wrong, but runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Protocol

import numpy as np

from .baselines import Latest, OverWire
from .evaluation import Activity, Bins, Evaluation, ModelKey, Target, TargetEvaluation
from .groups import Exponentials, Group, Monitored, Slot
from .layouts import Exponential
from .reference import ReferenceTarget
from .streams import Points
from .verdict import Held, Slow

SCHEMA = 1
Plain = Any
"""None, bool, int, float, str, a numpy array, or a list or dict of these."""

CLASSES: Mapping[str, type[Any]] = {
    known.__name__: known
    for known in (
        Activity, Bins, Evaluation, Exponential, Exponentials, Group, Held, Latest, ModelKey, Monitored, OverWire,
        Points, ReferenceTarget, Slot, Slow, Target, TargetEvaluation,
    )
}  # fmt: skip
_FEW = 4
"""A tuple of no more floats than these is not worth an array."""


class Part(Protocol):
    """A part of the engine that has a state."""

    def state(self) -> dict[str, object]:
        """What `restore` needs, as it is: it is packed before anything moves on."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as when `state` was taken; `state` is the part's own from now on."""


def pack(value: Any) -> Plain:
    """`value` as plain data that shares nothing with it. Raises `TypeError` for what is not known."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list):
        return [pack(one) for one in value]
    if isinstance(value, Mapping):
        return _pack_map(value)
    if isinstance(value, tuple):
        return _pack_tuple(value)
    if isinstance(value, set):
        return {"set": [pack(one) for one in sorted(value)]}
    known = type(value)
    if CLASSES.get(known.__name__) is not known:
        raise TypeError(f"a snapshot cannot hold {known}; add it to snapshot.CLASSES")
    return {known.__name__: {field.name: pack(getattr(value, field.name)) for field in fields(known)}}


def _pack_map(value: Mapping[Any, Any]) -> Plain:
    if all(type(key) is str for key in value) and len(value) != 1:
        return {key: pack(one) for key, one in value.items()}
    return {"map": [[pack(key) for key in value], [pack(one) for one in value.values()]]}


def _pack_tuple(value: tuple[Any, ...]) -> Plain:
    if len(value) > _FEW and all(type(one) is float for one in value):
        return {"floats": np.array(value, np.float64)}
    return {"tuple": [pack(one) for one in value]}


def unpack(plain: Plain) -> Any:
    """What `pack` was given. Raises `KeyError`, `TypeError` or `ValueError` for what `pack` cannot have made."""
    if isinstance(plain, np.ndarray):
        return plain.copy()
    if isinstance(plain, list):
        return [unpack(one) for one in plain]
    if not isinstance(plain, dict):
        return plain
    if len(plain) != 1:
        return {key: unpack(one) for key, one in plain.items()}
    ((name, content),) = plain.items()
    if name == "map":
        return dict(zip(*map(_all, content), strict=True))
    if name == "floats":
        return tuple(content.tolist())
    if name in ("tuple", "set"):
        return (tuple if name == "tuple" else set)(_all(content))
    return CLASSES[name](**{key: unpack(one) for key, one in content.items()})


def _all(plain: Iterable[Plain]) -> list[Any]:
    return [unpack(one) for one in plain]
