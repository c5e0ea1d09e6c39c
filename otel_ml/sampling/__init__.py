"""Which rows become events, with what probability, and what the kept ones say of all.

    sampling.Random(0.01)
    sampling.Stratified("region", per_minute=20)
    sampling.Uncertainty("margin", rate=0.02)
    sampling.any_of(sampling.When(sampling.failed), sampling.Random(0.01))
    sampling.limit(…, per_second=100)

A sampler gives every row of a call its probability and a reason; `select` flips one coin a row. `mean`, `proportion`,
`quantile` and `total` weight the kept rows by their probabilities.
"""

from .budget import Uncertainty
from .coin import COIN, Coin, Selection, decided, randomness_text, select, threshold_text
from .composition import any_of, limit, override, using
from .decision import Decision, Sampler, SamplerLike, check
from .estimate import Estimate, mean, proportion, quantile, total
from .keeping import Kept, keep, keep_row
from .rules import When, failed, missing, out_of_range, slower_than
from .strata import Stratified
from .uniform import Random

__all__ = [
    "COIN",
    "Coin",
    "Decision",
    "Estimate",
    "Kept",
    "Random",
    "Sampler",
    "SamplerLike",
    "Selection",
    "Stratified",
    "Uncertainty",
    "When",
    "any_of",
    "check",
    "decided",
    "failed",
    "keep",
    "keep_row",
    "limit",
    "mean",
    "missing",
    "out_of_range",
    "override",
    "proportion",
    "quantile",
    "randomness_text",
    "select",
    "slower_than",
    "threshold_text",
    "total",
    "using",
]
