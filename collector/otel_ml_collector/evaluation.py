"""What the engine says about one model and one window; `emit` turns it into telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class ModelKey:
    """A monitored model: the service it runs in, its identity and its variant. Empty string = not given."""

    service_namespace: str
    service_name: str
    environment: str
    model: str
    version: str
    variant: str = ""
    role: str = "live"


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What is compared: `kind` is one of `semconv.TARGETS`, `name` the feature's (empty for outputs)."""

    kind: str
    name: str = ""
    segment: tuple[str, ...] = ()
    """Key and value of the segment its rows are of; empty for all rows."""


@dataclass(frozen=True, slots=True)
class Bins:
    """Shares of both sides on the PSI cells, for bars; labels are the cells' names in order."""

    labels: tuple[str, ...]
    reference: NDArray[np.float64]
    current: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TargetEvaluation:
    """Numbers and verdict of one target in one window."""

    target: Target
    rows: int
    """Rows of the current window, all states."""
    evaluated: bool
    status: int
    """Index into `semconv.STATUSES`; the last held one when not evaluated."""
    reason: str
    """A short code: ok, effect_below, not_significant, rows_low, reference_small, psi, ks, spike, slow, fast (the
    short window raised it), state:<state>, held; or why there is no comparison: no_baseline, bounds_differ,
    other_direction, error; or why there is no verdict on a projection: features_drift."""
    detail: str
    """The reason in words, for people."""
    statistics: Mapping[str, float]
    """psi, psi.excess, ks, ks.upper, … : only those that could be computed; all finite."""
    p_value: float | None
    """After correction."""
    state_shares: Mapping[str, float]
    """Share of each of `semconv.STATES` in the current window (empty for outputs)."""
    state_effects: Mapping[str, float]
    """Cohen's h of each state against the baseline."""
    bins: Bins | None
    foreign_bounds: bool = False
    """True when it was counted on bounds that do not nest with the reference's, so that its numbers are close and
    not exact. Without drift PSI is within 0.002 and KS within 0.003 where the baseline's file, and so its
    quantiles, is known (2,000 training rows or more). From the wire both are within 0.007 where values lie close
    together, and off by up to the share of a cell, 0.05, at an edge in a gap of the baseline. With drift PSI is as
    uncertain as the shares it divides by: of 0.25 by about 0.03."""
    previous: int | None = None
    """The status of the verdict before this one; None when there was none."""

    @property
    def changed(self) -> bool:
        """Whether this verdict differs from the one before; the first one does when it is not ok."""
        return self.evaluated and self.status != (self.previous or 0)


@dataclass(frozen=True, slots=True)
class Activity:
    """Whether the rows of a model keep coming as they use to."""

    age: float
    """Seconds since its newest row."""
    rows: int
    """Rows of the last full hour."""
    usual: float | None
    """Rows that are usual then; None while that is not known."""
    status: int
    """Index into `semconv.STATUSES`."""
    reason: str
    """ok, no_history, silent, volume_low, volume_high."""
    detail: str
    """The reason in words, for people."""
    vanished: tuple[Target, ...]
    """Features that are not sent any more, while the model has rows."""
    previous: int | None = None
    """The status before this one; None when there was none."""

    @property
    def changed(self) -> bool:
        """Whether the status differs from the one before; the first one does when it is not ok."""
        return self.status != (self.previous or 0)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model, one window."""

    model: ModelKey
    window_name: str
    """Empty for the only window."""
    window_start: int
    window_end: int
    """Unix nanoseconds."""
    rows: int
    final: bool
    """True at a step of the window; False for a refresh of the window so far."""
    baseline_id: str
    baseline_created: int
    """Unix nanoseconds."""
    baseline_rows: int
    targets: tuple[TargetEvaluation, ...]
    activity: Activity | None = None
    """None when the service does not count the rows of the model."""
    rows_served: int = 0
    """Rows that the model reported since the baseline is its baseline, as far as the collector saw them."""
