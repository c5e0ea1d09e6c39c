"""Which rows become events, with what probability, and what the kept ones say of all.

    sampling.Random(0.01)
    sampling.Stratified("region", per_minute=20)
    sampling.Uncertainty("margin", rate=0.02)
    sampling.any_of(sampling.When(sampling.failed), sampling.Random(0.01))
    sampling.limit(…, per_second=100)

A sampler gives every row of a call its probability and a reason; one coin a row does the rest. `mean`, `proportion`,
`quantile` and `total` weight the kept rows by their probabilities.
"""

from .budget import Uncertainty
from .composition import any_of, limit, using
from .decision import Decision, Sampler, SamplerLike
from .estimate import Estimate, mean, proportion, quantile, total
from .rules import When, failed, missing, out_of_range, slower_than
from .strata import Stratified
from .uniform import Random

__all__ = [
    "Decision",
    "Estimate",
    "Random",
    "Sampler",
    "SamplerLike",
    "Stratified",
    "Uncertainty",
    "When",
    "any_of",
    "failed",
    "limit",
    "mean",
    "missing",
    "out_of_range",
    "proportion",
    "quantile",
    "slower_than",
    "total",
    "using",
]
