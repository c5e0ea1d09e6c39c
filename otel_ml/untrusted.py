"""A value in a JSON file from elsewhere: checked as it is read, with errors that name its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np

from .errors import BaselineError
from .summary import Counts, Floats

LONGEST_TEXT = 4_096
LARGEST_COUNT = 2**53
WAY_OUT = "load an unchanged copy, or make it again with Baseline.fit"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node:
    """A value in the file, with its place."""

    value: Any
    key: str
    source: str

    def fail(self, problem: str) -> NoReturn:
        """Raise the error that names the file, the key and the way out."""
        where = f": {self.key}" if self.key else ""
        raise BaselineError(f"baseline {self.source!r}{where} {problem}; {WAY_OUT}")

    def child(self, key: str) -> Node:
        """The value under `key`, which must be there."""
        if key not in self.value:
            self.fail(f"has no {key!r}")
        return Node(self.value[key], f"{self.key}.{key}".lstrip("."), self.source)

    def get(self, key: str, read: Callable[[Node], T]) -> T | None:
        """What `read` makes of the value under `key`; None when it is not there."""
        return read(self.child(key)) if self.value.get(key) is not None else None

    def object(self, most: int, known: frozenset[str] | None = None) -> Node:
        """This node, which must be an object of at most `most` keys, all of them `known`."""
        if not isinstance(self.value, dict):
            self.fail(f"must be an object, not {show(self.value)}")
        if len(self.value) > most:
            self.fail(f"has {len(self.value)} keys, more than {most}")
        if known is not None and (unknown := sorted(set(self.value) - known)):
            self.fail(f"has the unknown key {unknown[0][:80]!r} (known are {', '.join(sorted(known))})")
        return self

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of an object."""
        for key in self.value:
            if len(key) > LONGEST_TEXT:
                self.fail(f"has a key of {len(key)} characters, more than {LONGEST_TEXT}")
            yield key, self.child(key)

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str) or not 0 < len(self.value) <= LONGEST_TEXT:
            self.fail(f"must be a text of 1 to {LONGEST_TEXT} characters, not {show(self.value)}")
        return self.value

    def integer(self) -> int:
        """A count."""
        if not _is_count(self.value):
            self.fail(f"must be a count, 0 or more, not {show(self.value)}")
        return int(self.value)

    def number(self) -> float:
        """A finite number."""
        if not _is_finite(self.value):
            self.fail(f"must be a finite number, not {show(self.value)}")
        return float(self.value)

    def listed(self, most: int) -> list[Any]:
        """A list of at most `most` values."""
        if not isinstance(self.value, list):
            self.fail(f"must be a list, not {show(self.value)}")
        if len(self.value) > most:
            self.fail(f"has {len(self.value)} values, more than {most}")
        return self.value

    def numbers(self, most: int, *, exactly: int | None = None) -> Floats:
        """A list of finite numbers."""
        values = self._all(most, exactly, _is_finite, "a finite number")
        return np.array(values, dtype=np.float64)

    def counts(self, most: int, *, exactly: int) -> Counts:
        """A list of counts."""
        return np.array(self._all(most, exactly, _is_count, "a count, 0 or more"), dtype=np.int64)

    def _all(self, most: int, exactly: int | None, valid: Callable[[Any], bool], what: str) -> list[Any]:
        values = self.listed(most)
        for place, value in enumerate(values):
            if not valid(value):
                self.fail(f"must hold {what} at position {place}, not {show(value)}")
        if exactly is not None and len(values) != exactly:
            self.fail(f"must hold {exactly} values, not {len(values)}")
        return values


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= 1.7976931348623157e308 and math.isfinite(value)


def show(value: object) -> str:
    """A value for an error message, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
