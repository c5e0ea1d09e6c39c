"""Assigning users to variants."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scipy.stats import chi2_contingency, chisquare

from otel_ml import ConfigurationError, assign_variant

UNITS = range(20_000)
EVEN = {"champion": 1.0, "challenger": 1.0}


def test_shares_are_those_of_the_weights() -> None:
    """Over many units each variant gets its share, whatever the weights sum to."""
    weights = {"a": 7, "b": 2, "c": 1}
    chosen = [assign_variant(unit, weights, experiment="shares") for unit in UNITS]
    counts = [chosen.count(name) for name in weights]
    assert chisquare(counts, [0.7 * 20_000, 0.2 * 20_000, 0.1 * 20_000]).pvalue > 0.001


def test_another_process_agrees() -> None:
    """The assignment does not depend on the process, its hash seed or the order of the weights."""
    program = "from otel_ml import assign_variant as a; print([a(u, {'x': 1, 'y': 2}) for u in range(50)])"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str([assign_variant(unit, {"y": 2, "x": 1}) for unit in range(50)])


def test_a_larger_share_takes_and_never_gives() -> None:
    """When one variant's weight grows, units only move to it; none moves between the others."""
    before = [assign_variant(unit, {"a": 1, "b": 1, "c": 0.2}) for unit in UNITS]
    after = [assign_variant(unit, {"a": 1, "b": 1, "c": 0.5}) for unit in UNITS]
    moved = {(then, now) for then, now in zip(before, after, strict=True) if then != now}
    assert moved == {("a", "c"), ("b", "c")}


def test_experiments_are_independent() -> None:
    """Knowing a unit's variant in one experiment says nothing about the other."""
    pairs = [
        (assign_variant(u, EVEN, experiment="one"), assign_variant(u, EVEN, experiment="two")) for u in UNITS
    ]
    table = [[pairs.count((a, b)) for b in EVEN] for a in EVEN]
    assert chi2_contingency(table).pvalue > 0.001


def test_a_weight_of_zero_is_never_chosen() -> None:
    """A variant that is switched off gets nobody."""
    assert {assign_variant(unit, {"on": 0.1, "off": 0}) for unit in range(1000)} == {"on"}


@pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1, "b": 1}, {"a": float("nan")}, {"a": "1"}])
def test_weights_that_cannot_be_right_are_refused(weights: dict[str, float]) -> None:
    """Weights without a positive share, negative ones and what is no number are errors."""
    with pytest.raises(ConfigurationError, match=r"weight"):
        assign_variant("user", weights)


def test_a_unit_is_an_id() -> None:
    """None, which would put everybody without an id into one variant, is refused."""
    with pytest.raises(ConfigurationError, match="stable id"):
        assign_variant(None, EVEN)  # type: ignore[arg-type]
