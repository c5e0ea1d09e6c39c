"""Estimates from kept rows: worked values, the plain ones as a special case, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from otel_ml import sampling

Z = 1.959963984540054
RNG = np.random.default_rng(2)


def test_total_by_hand() -> None:
    """Two rows kept with 1/2 and 1/4, values 3 and 5: 3·2 + 5·4, variance 1/2·36 + 3/4·400."""
    found = sampling.total([3.0, 5.0], [0.5, 0.25])
    assert (found.value, found.standard_error) == pytest.approx((26.0, math.sqrt(18 + 300)))
    assert found.interval == pytest.approx((26 - Z * math.sqrt(318), 26 + Z * math.sqrt(318)))
    assert sampling.total([1, 1], [0.5, 0.25]).value == 6
    assert sampling.total([], []).value == 0


def test_mean_by_hand() -> None:
    """The same rows: 26/6, linearised variance (1/2·(2·(3 - 13/3))² + 3/4·(4·(5 - 13/3))²)/6²."""
    found = sampling.mean([3.0, 5.0], [0.5, 0.25])
    assert found.value == pytest.approx(26 / 6)
    assert found.standard_error == pytest.approx(math.sqrt((0.5 * (8 / 3) ** 2 + 0.75 * (8 / 3) ** 2) / 36))


def test_equal_probabilities_are_the_textbook() -> None:
    """Then the mean is the plain one, with the plain error times √(1 - p), and nothing is unsure when all are kept."""
    y = RNG.normal(size=500)
    found = sampling.mean(y, np.full(500, 0.1))
    assert (found.value, found.standard_error) == pytest.approx(
        (y.mean(), y.std() / math.sqrt(500) * math.sqrt(0.9))
    )
    assert sampling.mean(y, np.ones(500)).standard_error == 0.0


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (3, 2000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_proportion_is_wilson(k: int, n: int, level: float) -> None:
    """With equal weights the interval is Wilson's, as scipy has it; it has a width also where nothing was found."""
    found = sampling.proportion(np.arange(n) < k, np.full(n, 0.2), level=level)
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert found.value == pytest.approx(k / n)
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_unequal_weights_are_fewer_rows() -> None:
    """Kish: weights 1 and 9 in equal numbers are worth 100·(1 + 9)²/(2·(1 + 81)) of 100 rows."""
    p = np.tile([1.0, 1 / 9], 50)
    found = sampling.proportion(np.zeros(100, dtype=bool), p)
    n = 100 * 10**2 / (2 * 82)
    assert found.interval == pytest.approx((0.0, Z**2 / (n + Z**2)))


@pytest.mark.parametrize("q", [0.01, 0.3, 0.5, 0.99])
def test_quantile_of_equal_weights(q: float) -> None:
    """It is the plain one, between the ends of its interval, which narrow with the level."""
    y = RNG.normal(size=400)
    wide, narrow = (sampling.quantile(y, q, np.full(400, 0.3), level=level) for level in (0.95, 0.5))
    assert wide.value == np.quantile(y, q, method="inverted_cdf")
    assert wide.interval[0] <= narrow.interval[0] <= wide.value <= narrow.interval[1] <= wide.interval[1]
    assert wide.standard_error == pytest.approx((wide.interval[1] - wide.interval[0]) / (2 * Z))


def test_quantile_counts_weights() -> None:
    """A row that stands for nine counts as nine."""
    assert sampling.quantile([1.0, 2.0], 0.5, [1.0, 1 / 9]).value == 2.0
    assert sampling.quantile([1.0, 2.0], 0.5, [1 / 9, 1.0]).value == 1.0
    assert sampling.quantile([7.0], 0.5, [0.1]).interval == (7.0, 7.0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: sampling.mean([], []), "no row was kept"),
        (lambda: sampling.mean([1.0, 2.0], [0.1]), r"shape \(2,\) and probabilities of shape \(1,\)"),
        (lambda: sampling.mean([math.nan], [0.1]), "a value is missing or infinite"),
        (lambda: sampling.mean([1.0], [0.0]), "a probability is not above 0"),
        (lambda: sampling.mean([1.0], [math.nan]), "rows kept under a hard limit have none"),
        (lambda: sampling.mean([1.0], [0.1], level=95), "level=95 is not between 0 and 1"),
        (lambda: sampling.quantile([1.0], 50, [0.1]), "q=50 is not between 0 and 1"),
        (lambda: sampling.proportion([], []), "no row was kept"),
        (lambda: sampling.proportion([1.0, math.nan], [0.1, 0.1]), "chosen holds more than booleans"),
        (lambda: sampling.proportion(["yes", "no"], [0.1, 0.1]), "compare first: labels == 'yes'"),
        (lambda: sampling.proportion([True, None], [0.1, 0.1]), "chosen holds more than booleans"),
    ],
)
def test_what_cannot_be_estimated_is_refused(call, said: str) -> None:
    """The message says what is wrong with the rows."""
    with pytest.raises(ValueError, match=said):
        call()
