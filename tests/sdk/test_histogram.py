"""Histograms add up and collapse exactly, or say why not."""

from __future__ import annotations

import numpy as np
import pytest

from otel_ml.errors import BoundsMismatch
from otel_ml.histogram import Histogram


def histogram(bounds: list[float], counts: list[int]) -> Histogram:
    return Histogram(np.array(bounds), np.array(counts))


def test_counts_add_up() -> None:
    """Two histograms on the same bounds are one of all the values."""
    total = histogram([0, 1], [1, 2, 3]) + histogram([0, 1], [10, 0, 5])
    assert histogram([0, 1], [11, 2, 8]) == total
    assert total.total == 21


def test_other_bounds_do_not_add_up_and_both_are_named() -> None:
    """The message holds the bounds of both sides."""
    with pytest.raises(BoundsMismatch, match=r"\[0, 1\] and \[0, 2\]"):
        histogram([0, 1], [1, 2, 3]) + histogram([0, 2], [1, 2, 3])


def test_counts_must_fit_the_bounds() -> None:
    """Two bounds make three buckets."""
    with pytest.raises(BoundsMismatch, match="2 bounds need 3 counts, not 2"):
        histogram([0, 1], [1, 2])


def test_the_cdf_is_the_share_at_or_below_each_bound() -> None:
    """The last bucket has no bound and is not in it; nothing counted gives zeros."""
    assert histogram([0, 1], [1, 2, 1]).cdf.tolist() == [0.25, 0.75]
    assert histogram([0, 1], [0, 0, 0]).cdf.tolist() == [0.0, 0.0]


def test_collapsing_onto_fewer_bounds_keeps_every_value() -> None:
    """Neighbouring buckets are added; no bounds at all leave the total."""
    fine = histogram([0, 1, 2, 3], [1, 2, 3, 4, 5])
    assert histogram([1, 3], [3, 7, 5]) == fine.collapse(np.array([1.0, 3.0]))
    assert fine.collapse(np.empty(0)).counts.tolist() == [15]


def test_collapsing_onto_a_bound_that_is_not_there_names_it() -> None:
    """Values between two bounds cannot be told apart afterwards."""
    with pytest.raises(BoundsMismatch, match=r"1\.5 is no bound"):
        histogram([0, 1, 2], [1, 2, 3, 4]).collapse(np.array([1.5]))
