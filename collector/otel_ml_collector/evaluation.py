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
    """What is compared: `kind` is one of `semconv.TARGETS`, `name` the feature's (empty for score and prediction)."""

    kind: str
    name: str = ""


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
    """A short code: ok, effect_below, not_significant, rows_low, reference_small, psi, ks, spike, fast (the short
    window raised it), state:<state>, held; or why there is no comparison: no_baseline, bounds_differ, error."""
    detail: str
    """The reason in words, for people."""
    statistics: Mapping[str, float]
    """psi, psi.excess, ks, ks.upper, … : only those that could be computed; all finite."""
    p_value: float | None
    """After correction."""
    state_shares: Mapping[str, float]
    """Share of each of `semconv.STATES` in the current window (empty for score and prediction)."""
    state_effects: Mapping[str, float]
    """Cohen's h of each state against the baseline."""
    bins: Bins | None


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
