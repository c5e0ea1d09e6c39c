"""A segment: which column, or function of the input, cuts the rows of a model into a few named slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _guard, semconv
from .baseline import Baseline
from .columns import Column, category, is_missing, series
from .errors import ConfigurationError
from .semconv import OTHER
from .summary import CategoricalSummary

MAX_VALUES = 10
"""Values of a segment that have series of their own, beside `__other__`."""
MAX_FEATURES = 20
"""Features that are counted by segment: each has the series of one feature for every value."""
_MAX_KEY = 64

Codes = int | NDArray[np.intp]
"""Places in `Segment.names`: one for all rows, or (n,) one a row when they differ."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Counts the rows of a model by the value of a column as well: `Segment("region", values=("eu", "us"))`.

    by: name of a column of the input, also one that is no feature; or a function that gets the input of a call and
        gives one value for all its rows, or (n,) values. It runs inside the call.
    key: the attribute is `ml.segment.<key>`; by default the name of the column.
    values: the 1 to 10 values that are told apart. All others, missing ones too, are `__other__`. By default the
        categories that the baseline names of this column, the most frequent ones first.
    features: the at most 20 features to count by segment; by default the baseline's most important ones, or the
        first ones of the input.

    Raises `ConfigurationError` on an argument that cannot be right.
    """

    by: str | Callable[[Any], Any]
    key: str = field(default="", kw_only=True)
    values: Sequence[object] = field(default=(), kw_only=True)
    features: Sequence[str] = field(default=(), kw_only=True)
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _key(self.by, self.key))
        object.__setattr__(self, "values", _values(self.values))
        object.__setattr__(self, "features", _features(self.features))
        object.__setattr__(self, "_places", self._found_at())

    def _found_at(self) -> dict[str, int]:
        places = {name: place for place, name in enumerate(self.names)}
        if places.keys() <= {"true", "false", OTHER}:  # booleans are 1 and 0 in a matrix of numbers
            places |= {alias: places[name] for alias, name in _ALIAS.items() if name in places}
        return places

    @property
    def attribute(self) -> str:
        """Name of the attribute that series, spans and events carry."""
        return semconv.SEGMENT_PREFIX + self.key

    @property
    def names(self) -> tuple[str, ...]:
        """Every value that the attribute can have."""
        return (*map(str, self.values), OTHER)

    @property
    def other(self) -> int:
        """The code of `__other__`."""
        return len(self.values)

    def listed(self, baseline: Baseline | None) -> frozenset[str] | None:
        """Names of the features that are counted by segment; None means the first `MAX_FEATURES` that come."""
        if self.features or baseline is None:
            return frozenset(self.features) or None
        ranked = sorted(baseline.features.items(), key=lambda item: -(item[1].importance or 0.0))
        return frozenset(name for name, _ in ranked[:MAX_FEATURES])

    def code(self, value: object) -> int:
        """Which of `names` a value is."""
        if is_missing(value):
            return self.other
        return self._places.get(category(value), self.other)

    def codes(self, column: Column) -> Codes:
        """Which of `names` each value of a column is."""
        if len(column) < 2:
            return self.code(column[0]) if len(column) else self.other
        if column.dtype.kind in "iufb":
            distinct, which = np.unique(column, return_inverse=True)
            found = np.array([self.code(value) for value in distinct], dtype=np.intp)[which]
        else:
            found = np.fromiter(map(self._code, column.tolist()), dtype=np.intp, count=len(column))
        return int(found[0]) if (found == found[0]).all() else found

    def _code(self, value: Any) -> int:
        """As `code`, in a tenth of the time for a text that is listed."""
        place = self._places.get(value) if type(value) is str else None
        return self.code(value) if place is None else place

    def asked(self, rows: object, number: int) -> Codes:
        """What the function `by` says of the `number` rows of a call. `ValueError` when it gives too many or few."""
        assert not isinstance(self.by, str)
        given = self.by(rows)
        if not _is_column(given):
            return self.code(given.item() if isinstance(given, np.ndarray) else given)
        column = series(given)
        if len(column) != number:
            raise ValueError(f"the segment {self.key!r} has {len(column)} values for {number} rows")
        return self.codes(column)


class Cut:
    """A snapshot of the input of a call, and which segments its rows are in."""

    __slots__ = ("codes", "nbytes", "taken")

    def __init__(self, taken: Any, codes: Codes | None, nbytes: int = 0) -> None:
        self.taken = taken
        self.codes = codes
        """None until they are read from `taken`."""
        self.nbytes = nbytes


def bare(taken: Any) -> Any:
    """A snapshot without what a segment adds to it."""
    return taken.taken if type(taken) is Cut else taken


def resolve(
    given: Segment | str | None,
    *,
    model: str,
    baseline: Baseline | None,
    unread: bool = False,
    names: Sequence[str] | None = None,
) -> Segment | None:
    """The segment of a model, with its values. `unread` says that the model's baseline cannot be read.

    Raises `ConfigurationError` when nobody says which values there are, or when it names an unknown feature.
    """
    if given is None:
        return None
    if not isinstance(given, (Segment, str)):
        raise ConfigurationError(f"segment={given!r} is no Segment and no name of a column")
    segment = Segment(given) if isinstance(given, str) else given
    known = tuple(baseline.features) if baseline is not None else names
    unknown = [name for name in segment.features if known is not None and name not in known]
    if unknown:
        raise ConfigurationError(
            f"segment {segment.key!r}: model {model} has no feature {unknown[0]!r}; list some of {_some(known or ())}"
        )
    if segment.values:
        return segment
    if unread:  # said once already; a lost file must not end the program
        _guard.say_once(f"segment:{model}", "model %s: without its baseline it has no segments", model)
        return None
    return replace(segment, values=_named(segment, model, baseline))


def _named(segment: Segment, model: str, baseline: Baseline | None) -> tuple[str, ...]:
    """The most frequent categories that the baseline names of the segment's column."""
    by = segment.by
    summary = baseline.features.get(by) if baseline is not None and isinstance(by, str) else None
    if not isinstance(summary, CategoricalSummary) or not summary.categories:
        raise ConfigurationError(
            f"segment {segment.key!r}: the baseline of model {model} names no categories of it; list them: "
            f"Segment({by!r}, values=('…', '…'))"
        )
    ranked = sorted(summary.categories.items(), key=lambda item: (-item[1], item[0]))
    return tuple(name for name, _ in ranked[:MAX_VALUES])


# --- reading the arguments --------------------------------------------------------------------------------

_ALIAS = {"1": "true", "0": "false"}


def _key(by: object, key: object) -> str:
    if not isinstance(by, str) and (isinstance(by, type) or not callable(by)):
        raise ConfigurationError(f"a segment is by the name of a column or by a function, not by {by!r}")
    key = by if key == "" and isinstance(by, str) else key
    if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY or not key.isprintable():
        raise ConfigurationError(
            f"a segment has a key of 1 to {_MAX_KEY} characters, not {key!r}; write Segment({by!r}, key='region')"
        )
    return key


def _values(given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or any(map(is_missing, given)):
        raise ConfigurationError(f"values={given!r} is no list of values; write values=('eu', 'us')")
    values = tuple(dict.fromkeys(map(category, given)))
    if len(values) > MAX_VALUES:
        raise ConfigurationError(
            f"a segment has at most {MAX_VALUES} values, not {len(values)}; list the ones that matter, all others "
            f"count as {OTHER}"
        )
    return tuple(value for value in values if value != OTHER)


def _features(given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not all(isinstance(name, str) for name in given):
        raise ConfigurationError(f"features={given!r} is no list of names; write features=('age', 'income')")
    names = tuple(dict.fromkeys(given))
    if len(names) > MAX_FEATURES:
        raise ConfigurationError(
            f"at most {MAX_FEATURES} features are counted by segment, not {len(names)}; list the ones that matter"
        )
    return names


def _is_column(value: object) -> bool:
    if isinstance(value, (str, bytes, dict)):
        return False
    return isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) >= 1 or hasattr(value, "to_numpy")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
