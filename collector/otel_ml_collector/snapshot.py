"""The state of an engine as plain data, so that it can be written down and taken up again.

Plain are None, bool, int, float, str, numpy arrays, lists and dicts with string keys. Everything else is a dict of one
entry, whose key says what it is: `tuple`, `set`, `map` (of keys that are no strings), `floats` (a tuple of them, as
bounds are), `float` and `int` (of those that JSON cannot say), or the name of one of `CLASSES` with its fields. Only
these are ever made again: data that was tampered with can be wrong, but runs nothing.

It takes two steps. `freeze` copies what can change, and must be done before anything moves on. `pack` makes plain data
of that; it takes longer, and can be done in another thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from functools import partial
from math import isfinite
from typing import Any, NamedTuple, Protocol

import numpy as np

from .baselines import Latest, OverWire
from .changes import Change
from .evaluation import Activity, Bins, Evaluation, ModelKey, Target, TargetEvaluation
from .groups import Exponentials, Group, Monitored, Slot
from .layouts import Exponential
from .ragged import Points
from .reference import ReferenceTarget
from .verdict import Held, Slow

SCHEMA = 1
Plain = Any
"""None, bool, int, float, str, a numpy array, or a list or dict of these."""

CLASSES: Mapping[str, type[Any]] = {
    known.__name__: known
    for known in (
        Activity, Bins, Change, Evaluation, Exponential, Exponentials, Group, Held, Latest, ModelKey, Monitored,
        OverWire, Points, ReferenceTarget, Slot, Slow, Target, TargetEvaluation,
    )
}  # fmt: skip
_FEW = 4
"""A tuple of no more floats than these is not worth an array."""
_NAMES = {known: tuple(field.name for field in fields(known)) for known in CLASSES.values()}
_STILL = {
    type(None), bool, int, float, str, tuple, partial,
    *(known for known in CLASSES.values() if known.__dataclass_params__.frozen),
}  # fmt: skip
"""What does not change once it is made, arrays and mappings inside it included."""


class Part(Protocol):
    """A part of the engine that has a state."""

    def state(self) -> dict[str, object]:
        """What `restore` needs, as it is: it is frozen before anything moves on.

        Arrays that are read-only stay as they are. A partial is called, by `pack`, for what it makes.
        """

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as when `state` was taken; `state` is the part's own from now on."""


class _Pairs(NamedTuple):
    """A dict that was taken apart: to hash its keys again would be most of the work."""

    keys: list[Any]
    values: list[Any]


def freeze(value: Any) -> Any:
    """`value` as it is now, for `pack`. Raises `TypeError` for what is not known."""
    kind = type(value)
    if kind in _STILL:
        return value
    if kind is np.ndarray:
        return value.copy() if value.flags.writeable else value
    if kind is list:
        return value.copy() if _all_still(value) else [freeze(one) for one in value]
    if kind is dict or kind is Counter:
        whole = _all_still(value.values())
        return value.copy() if whole else _Pairs(list(value), [freeze(one) for one in value.values()])
    if kind is set:
        return value.copy()
    if kind not in _NAMES:
        raise TypeError(f"a snapshot cannot hold {kind}; add it to snapshot.CLASSES")
    return kind(*[freeze(getattr(value, name)) for name in _NAMES[kind]])


def _all_still(values: Collection[Any]) -> bool:
    return _STILL.issuperset(map(type, values))


def pack(value: Any) -> Plain:
    """`value` as plain data; its arrays are the same ones. Raises `TypeError` for what is not known."""
    kind = type(value)
    if value is None or kind is str or kind is bool or kind is np.ndarray:
        return value
    if kind is int or kind is float:
        return _pack_number(value)
    if kind is _Pairs:
        return _pack_map(*value)
    if kind is list:
        return [pack(one) for one in value]
    if kind is tuple:
        return _pack_tuple(value)
    return _pack_other(value, kind)


def _pack_number(value: float) -> Plain:
    plain = -(2**63) <= value < 2**63 if type(value) is int else isfinite(value)
    return value if plain else {type(value).__name__: str(value)}


def _pack_other(value: Any, kind: type[Any]) -> Plain:
    if isinstance(value, Mapping):
        return _pack_map(list(value), list(value.values()))
    if kind is partial:
        return pack(value())
    if kind is set:
        return {"set": [pack(one) for one in sorted(value)]}
    if isinstance(value, np.generic):
        return pack(value.item())
    if kind not in _NAMES:
        raise TypeError(f"a snapshot cannot hold {kind}; add it to snapshot.CLASSES")
    return {kind.__name__: {name: pack(getattr(value, name)) for name in _NAMES[kind]}}


def _pack_map(keys: list[Any], values: list[Any]) -> Plain:
    if len(keys) != 1 and all(type(key) is str for key in keys):
        return {key: pack(one) for key, one in zip(keys, values, strict=True)}
    return {"map": [[pack(key) for key in keys], [pack(one) for one in values]]}


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
    if name in ("float", "int"):
        return float(content) if name == "float" else int(content)
    if name in ("tuple", "set"):
        return (tuple if name == "tuple" else set)(_all(content))
    return CLASSES[name](**{key: unpack(one) for key, one in content.items()})


def _all(plain: Iterable[Plain]) -> list[Any]:
    return [unpack(one) for one in plain]
