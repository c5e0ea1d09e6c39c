"""One of every sampler and composition, and the calls that they decide on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from otel_ml import sampling
from otel_ml.model import Model
from otel_ml.prediction import NOTHING, Outcome, Prediction
from otel_ml.rows import Rows
from otel_ml.sampling import Sampler

MODEL = Model(
    "churn", "3", task="classification", classes=("no", "yes"), feature_names=("region", "age", "income")
)
REGIONS = ("north", "south", "east", "west")


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Calls:
    """Rows of a service, cut into calls of growing size, at so many rows a second."""

    regions: NDArray[np.int64]
    scores: NDArray[np.float64]
    sizes: tuple[int, ...] = (1, 7, 64, 500)
    clock: Clock = field(default_factory=Clock)
    rows_per_second: float = 100.0
    slow: float = 0.02

    def __iter__(self) -> Iterator[Prediction]:
        n, done, i = len(self.scores), 0, 0
        share = max(n // len(self.sizes), 1)
        while done < n:
            size = min(self.sizes[min(done // share, len(self.sizes) - 1)], n - done)
            rows = slice(done, done + size)
            self.clock.now = done / self.rows_per_second
            yield prediction(self.scores[rows], self.regions[rows], seconds=1.0 if i % 50 == 0 else 0.001)
            done, i = done + size, i + 1

    def probabilities(self, sampler: Callable[[Prediction], sampling.Decision]) -> NDArray[np.float64]:
        """(n,) of what the sampler gives each row; the same whatever the coins show."""
        return np.concatenate([np.broadcast_to(sampler(call).probability, call.rows) for call in self])


def prediction(
    scores: NDArray[np.float64],
    regions: NDArray[np.int64] | None = None,
    *,
    model: Model = MODEL,
    error: str | None = None,
    seconds: float = 0.001,
    probabilities: bool = True,
) -> Prediction:
    """One call of a binary classifier; `regions` are positions in `REGIONS`."""
    n = len(scores)
    regions = np.zeros(n, dtype=int) if regions is None else regions
    ages = np.where(scores < 0.01, np.nan, 40.0)
    taken = {"region": np.array(REGIONS, dtype=object)[regions], "age": ages, "income": np.full(n, 1.0)}
    p = np.column_stack([1 - scores, scores])
    outcome = Outcome(
        scores, "probability" if probabilities else "margin",
        np.where(scores > 0.5, "yes", "no"), p if probabilities else None,
    )  # fmt: skip
    if error is not None:
        outcome = NOTHING
    return Prediction(
        model, "predict_proba", n, outcome, 0, round(seconds * 1e9), error, Rows(taken, model, n)
    )


def everything(prediction: Prediction) -> NDArray[np.bool_]:
    """A rule that is true of every row."""
    return np.ones(prediction.rows, dtype=bool)


def every_sampler(clock: Callable[[], float]) -> dict[str, Sampler]:
    """A fresh one of each, by name."""
    s = sampling
    random, unsure = s.Random(0.04), s.Uncertainty("margin", rate=0.04, floor=0.008)
    return {
        "Random": s.Random(0.05),
        "Stratified rate": s.Stratified("region", rate=0.02, rates={"west": 0.3, "east": 0.1}),
        "Stratified label": s.Stratified("label", rate=0.02, rates={"yes": 0.2}),
        "Stratified per minute": s.Stratified("region", per_minute=40, clock=clock),
        "Uncertainty margin": s.Uncertainty("margin", rate=0.05, floor=0.01),
        "Uncertainty entropy": s.Uncertainty("entropy", rate=0.05, floor=0.01),
        "Uncertainty least confidence": s.Uncertainty("least_confidence", rate=0.05, floor=0.01),
        "When": s.When(everything),
        "any_of two": s.any_of(s.When(s.slower_than(0.5)), random),
        "any_of three": s.any_of(unsure, s.Stratified("region", rate=0.02, rates={"west": 0.3}), random),
        "limit": s.limit(s.Random(0.5), per_second=5, clock=clock),
        "limit of any_of": s.limit(
            s.any_of(s.When(s.missing("age")), s.Random(0.1)), per_minute=300, per_call=40, clock=clock
        ),
        "hard limit": s.limit(s.Random(0.5), per_second=5, hard=True, clock=clock),
    }
