"""The same probability for every row."""

from __future__ import annotations

from ..prediction import Prediction
from .coin import threshold_of
from .decision import RANDOM, Decision, Sampler, share


class Random(Sampler):
    """Every row with probability `rate`, whatever it is: `decision` and `threshold` are always the same."""

    def __init__(self, rate: float) -> None:
        self.rate = share("rate", rate)
        self.decision = Decision(self.rate, RANDOM)
        self.threshold = threshold_of(self.rate)

    def __call__(self, prediction: Prediction) -> Decision:  # noqa: ARG002  # the same for every call
        return self.decision

    def __repr__(self) -> str:
        return f"Random({self.rate})"
