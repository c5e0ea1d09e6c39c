"""What became known later, reduced to counts: true labels, and how long they took to arrive."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

import numpy as np

from . import semconv
from .semconv import OTHER
from .sketches import Buckets, Ledger

MAX_LABELS = 20
"""Labels that are counted by name for each model."""
MAX_SOURCES = 20
MAX_MODELS = 1000
"""Models that are told apart; the truths of others count as those of `__other__`."""
N = TypeVar("N", bound=Hashable)
_DELAYS = np.array(semconv.FEEDBACK_DELAY_BOUNDS)


class Truths:
    """Counts truths of every model in `ledger`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._named: dict[Hashable, set[Hashable]] = {}

    def add(
        self,
        model: Mapping[str, str],
        source: str | None,
        labels: Mapping[str | None, int],
        delays: Iterable[float],
    ) -> None:
        """Count truths that arrived together.

        model: name and version as attributes, as far as they are known. labels: how many truths by label, None
        for those that are values. delays: seconds since the prediction, where they are known.
        """
        attributes = self._identity(model)
        if source is not None:
            attributes[semconv.FEEDBACK_SOURCE] = self._name("sources", source, MAX_SOURCES)
        for label, amount in labels.items():
            named = {} if label is None else {semconv.FEEDBACK_LABEL: self._label(attributes, label)}
            self._ledger.count(semconv.FEEDBACK_LABELS, {**attributes, **named}, amount)
        known = np.fromiter(delays, dtype=np.float64)
        if known.size:
            empty = Buckets(_DELAYS, with_sum=True)
            self._ledger.get(semconv.FEEDBACK_DELAY, attributes, empty).sketch.add(known)

    def _identity(self, model: Mapping[str, str]) -> dict[str, str]:
        key = tuple(model.items())
        return dict(model) if self._name("models", key, MAX_MODELS) == key else dict.fromkeys(model, OTHER)

    def _label(self, attributes: Mapping[str, str], label: str) -> str:
        identity = tuple(attributes.get(name) for name in (semconv.MODEL_NAME, semconv.MODEL_VERSION))
        return self._name(("labels", identity), label, MAX_LABELS)

    def _name(self, group: Hashable, name: N, most: int) -> N | str:
        """`name`, or `__other__` when its group already has `most` names."""
        known = self._named.setdefault(group, set())
        if name not in known and len(known) >= most:
            return OTHER
        known.add(name)
        return name
