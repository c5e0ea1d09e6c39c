"""What the kept rows say of all rows is true as often as it claims, whatever the sampler."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from samplers import Calls, Clock, every_sampler, prediction

from otel_ml import sampling
from otel_ml.sampling import Decision
from otel_ml.sampling.coin import Coin, Selection, select

REPETITIONS = 1000
ROWS = 24_000
NAMES = [name for name, sampler in every_sampler(Clock()).items() if not sampler.hard]
EQUAL = {"Random", "When"}
"""Samplers of which a plain mean is right, too."""


@lru_cache(maxsize=1)
def rows() -> tuple[Calls, NDArray[np.float64]]:
    """Calls of a model that is mostly certain, and a value that depends on score, region, time and slowness."""
    rng = np.random.default_rng(3)
    regions = rng.choice(4, ROWS, p=[0.6, 0.25, 0.12, 0.03])
    scores = rng.beta(0.7, 3, ROWS)
    calls = Calls(regions, scores)
    slow = np.concatenate([np.full(call.rows, call.duration > 5e8) for call in calls])
    values = 1 + 3 * scores + 0.5 * regions + np.linspace(2, 0, ROWS) + slow + rng.normal(0, 0.5, ROWS)
    return calls, values


@lru_cache(maxsize=32)
def probabilities(name: str) -> NDArray[np.float64]:
    calls, _ = rows()
    return calls.probabilities(every_sampler(calls.clock)[name])


def selections(p: NDArray[np.float64], seed: int) -> list[Selection]:
    """A thousand times the same rows, each time with other coins."""
    coin = Coin(seed)
    made = [select(Decision(p, "random"), len(p), coin) for _ in range(REPETITIONS)]
    return [one for one in made if one is not None]


def covers(estimate: sampling.Estimate, truth: float) -> bool:
    low, high = estimate.interval
    return low <= truth <= high


@pytest.mark.parametrize("name", NAMES)
def test_interval_of_the_mean_covers_the_truth(name: str) -> None:
    """The 95 % interval of the weighted mean holds that of all rows in 93 to 97 of 100 cases; on average both agree."""
    values, p = rows()[1], probabilities(name)
    if name == "When":  # keeps every row that it speaks of
        assert p.min() == 1.0
        p = p * 0.05
    found = [sampling.mean(values[one.indices], one.probabilities) for one in selections(p, 1)]
    assert 0.93 <= np.mean([covers(one, values.mean()) for one in found]) <= 0.97
    middle = np.mean([one.value for one in found])
    scatter = np.std([one.value for one in found])
    assert abs(middle - values.mean()) < 4 * scatter / np.sqrt(REPETITIONS)
    assert np.mean([one.standard_error for one in found]) == pytest.approx(scatter, rel=0.1)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in EQUAL])
def test_plain_mean_is_wrong(name: str) -> None:
    """Without the weights, the mean of the kept rows is not that of all: its interval misses most of the time."""
    values, p = rows()[1], probabilities(name)
    hit = []
    for one in selections(p, 2):
        kept = values[one.indices]
        hit.append(abs(kept.mean() - values.mean()) <= 1.96 * kept.std() / np.sqrt(len(kept)))
    assert np.mean(hit) < 0.75


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["anywhere", "where unsure"])
def test_interval_of_a_rare_share_covers_the_truth(name: str, where: str) -> None:
    """The 95 % interval of an error rate of 0.2 % holds it in 93 of 100 cases or more."""
    calls, _ = rows()
    rng = np.random.default_rng(8)
    weight = np.ones(ROWS) if where == "anywhere" else 0.05 + np.minimum(calls.scores, 1 - calls.scores)
    wrong = np.zeros(ROWS, dtype=bool)
    wrong[rng.choice(ROWS, 48, replace=False, p=weight / weight.sum())] = True
    p = probabilities(name) * (0.05 if name == "When" else 1.0)
    hits = [
        covers(sampling.proportion(wrong[one.indices], one.probabilities), 0.002) for one in selections(p, 4)
    ]
    assert np.mean(hits) >= 0.93


@pytest.mark.parametrize("name", ["Random", "Stratified rate", "Uncertainty margin", "limit"])
@pytest.mark.parametrize("q", [0.5, 0.9])
def test_interval_of_a_quantile_covers_the_truth(name: str, q: float) -> None:
    """The 95 % interval of a quantile holds that of all rows in 93 of 100 cases or more."""
    values, p = rows()[1], probabilities(name)
    truth = float(np.quantile(values, q, method="inverted_cdf"))
    found = [sampling.quantile(values[one.indices], q, one.probabilities) for one in selections(p, 5)]
    assert np.mean([covers(one, truth) for one in found]) >= 0.93


@pytest.mark.parametrize("name", NAMES)
def test_counts_survive_a_sampler_downstream(name: str) -> None:
    """A sampler at 10 % that keeps iff randomness >= max(its threshold, the event's) leaves every count unbiased."""
    calls, p = rows()[0], probabilities(name) * (0.2 if name == "When" else 1.0)
    ten_percent = int("e6666666666666", 16)
    counts = []
    for one in selections(p, 6):
        threshold = np.maximum(one.thresholds, ten_percent)
        kept = one.randomness >= threshold
        weights = 2.0**56 / (2**56 - threshold[kept])
        counts.append(np.bincount(calls.regions[one.indices[kept]], weights, minlength=4))
    truth = np.bincount(calls.regions, minlength=4)
    error = np.std(counts, axis=0) / np.sqrt(REPETITIONS)
    assert (np.abs(np.mean(counts, axis=0) - truth) < 4 * error).all()


def streams(n: int) -> dict[str, NDArray[np.float64]]:
    """Uncertainties that change in ways that throw a rate off."""
    rng, time = np.random.default_rng(7), np.linspace(0, 1, n)
    burst = np.arange(n) // 500 % 20 == 0
    return {
        "drifting": rng.beta(2, 2, n) * (0.1 + 0.9 * time),
        "jumping up": np.where(time < 0.5, rng.beta(1, 1000, n), rng.beta(5, 1, n)),
        "jumping down": np.where(time < 0.5, rng.beta(5, 1, n), rng.beta(1, 1000, n)),
        "bursty": np.where(burst, rng.beta(8, 2, n), rng.beta(1, 50, n)),
        "mostly certain": np.where(rng.random(n) < 0.003, rng.random(n), 0.0),
        "all certain": np.zeros(n),
        "heavy-tailed": np.minimum(rng.exponential(1, n) ** 8 * 1e-4, 1),
    }


@pytest.mark.parametrize(
    ("size", "n"), [(1, 30_000), (10, 50_000), (64, 100_000), (1000, 200_000), (100_000, 400_000)]
)
@pytest.mark.parametrize("stream", list(streams(1)))
def test_uncertainty_holds_its_rate(stream: str, size: int, n: int) -> None:
    """Kept rows are within 5 % of the budget and expected ones within 1 %, whatever the stream and the calls."""
    sampler, rate, coin = sampling.Uncertainty("margin", rate=0.1, floor=0.001), 0.1, Coin(9)
    scores = streams(n)[stream] / 2
    kept = expected = 0.0
    for start in range(0, n, size):
        part = scores[start : start + size]
        decision = sampler(prediction(part))
        selection = select(decision, len(part), coin)
        kept += 0 if selection is None else len(selection.indices)
        expected += float(np.sum(np.broadcast_to(decision.probability, len(part))))
    assert expected == pytest.approx(rate * n, rel=0.01)
    assert kept == pytest.approx(rate * n, rel=0.05)


@pytest.mark.parametrize("size", [1, 50])
@pytest.mark.parametrize("quota", [5, 20])
def test_strata_meet_their_quota(quota: int, size: int) -> None:
    """A stratum has fewer than its quota of kept rows in at most 5 % of minutes; a smaller one is kept whole."""
    minutes, means = (150, (quota / 2, 200, 60)) if size == 1 else (600, (quota / 2, 500, 100))
    clock, coin, rng = Clock(), Coin(10), np.random.default_rng(11)
    sampler = sampling.Stratified("region", per_minute=quota, clock=clock)
    missed, whole = np.zeros(3), []
    for minute in range(minutes):
        regions = rng.permutation(np.repeat(np.arange(3), rng.poisson(means)))
        kept = np.zeros(3, dtype=int)
        for start in range(0, len(regions), size):
            clock.now = 60 * (minute + start / len(regions))
            part = regions[start : start + size]
            selection = select(sampler(prediction(np.full(len(part), 0.5), part)), len(part), coin)
            if selection is not None:
                kept += np.bincount(part[selection.indices], minlength=3)
        there = np.bincount(regions, minlength=3)
        missed += kept < np.minimum(there, quota)
        whole.append(kept[0] == there[0] or there[0] > quota)
    assert (missed / minutes <= 0.05).all(), missed
    assert all(whole)
