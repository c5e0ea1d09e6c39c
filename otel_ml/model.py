"""The identity of a model, computed once and stamped on everything it emits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import semconv

if TYPE_CHECKING:
    from .baseline import Baseline
    from .segment import Segment
    from .summary import Summary

MAX_FEATURES = 200
"""Features that are recorded of a model, at most."""

Task = Literal["classification", "regression", "outlier", "clustering"]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Who answers a call: name, version and what is known about it before the first prediction."""

    name: str
    version: str
    type: str | None = None
    """Class of the estimator, for people."""
    system: str | None = None
    """The library: sklearn, xgboost, …"""
    task: Task | None = None
    classes: tuple[object, ...] | None = None
    """Labels in the order of the columns of predict_proba."""
    feature_names: tuple[str, ...] | None = None
    """Names of the input's columns in order, when the model knows them."""
    baseline: Baseline | None = None
    variant: str | None = None
    role: str = "live"
    segment: Segment | None = None
    """What its rows are counted by besides; not part of `attributes`, for it differs from row to row."""

    def attributes(self) -> dict[str, str]:
        """Attributes that every span, metric and event of this model carries."""
        attributes = {semconv.MODEL_NAME: self.name, semconv.MODEL_VERSION: self.version}
        if self.variant is not None:
            attributes[semconv.VARIANT_NAME] = self.variant
        if self.variant is not None or self.role != "live":
            attributes[semconv.VARIANT_ROLE] = self.role
        return attributes

    def features(self) -> dict[str, Summary]:
        """The baseline's features that are recorded: the most important ones, then column order, so that all
        pods agree."""
        items = [] if self.baseline is None else list(self.baseline.features.items())
        if len(items) > MAX_FEATURES:
            items.sort(key=lambda item: -(item[1].importance or 0.0))
        return dict(items[:MAX_FEATURES])

    @property
    def width(self) -> int | None:
        """Number of input columns, when it is known: it tells a row from a column."""
        if self.feature_names is not None:
            return len(self.feature_names)
        return len(self.baseline.columns) if self.baseline is not None else None
