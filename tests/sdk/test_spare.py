"""Memory used again: copies stay right, blocks come back, and not too many are kept."""

from __future__ import annotations

import numpy as np
import pytest

from otel_ml._spare import LARGE, Spare
from otel_ml.model import Model
from otel_ml.observer import Observer
from otel_ml.recording import Recording


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_copy_has_the_bytes_in_row_order(dtype, order):
    """A copy, in a block that another matrix used before, is the matrix in row order."""
    spare = Spare(limit=10_000)
    spare.copy(np.ones((20, 5), dtype=dtype))
    rows = np.arange(100).reshape(20, 5).astype(dtype, order=order)
    assert bytes(spare.copy(rows).block) == rows.tobytes()


def test_block_is_used_again_when_its_lease_ends():
    """A block serves the next matrix of its size, and only one at a time."""
    spare, rows = Spare(limit=10_000), np.zeros((20, 5))
    lease = spare.copy(rows)
    block = lease.block
    assert spare.copy(rows).block is not block
    del lease
    first, second = spare.copy(rows), spare.copy(rows)
    assert [first.block is block, second.block is block] == [True, False]


def test_kept_memory_is_bounded():
    """Blocks beyond the limit push out those that wait."""
    spare, rows = Spare(limit=2_000), np.zeros((20, 5))
    leases = [spare.copy(rows) for _ in range(3)]
    blocks = [lease.block for lease in leases]
    while leases:
        del leases[0]
    again = [spare.copy(rows) for _ in range(3)]
    assert [any(lease.block is old for old in blocks) for lease in again] == [True, False, False]


def test_a_block_larger_than_the_limit_is_not_kept():
    """One huge batch does not pin its size for the life of the process."""
    spare, rows = Spare(limit=100), np.zeros((20, 5))
    lease = spare.copy(rows)
    block = lease.block
    del lease
    assert spare.copy(rows).block is not block


def test_large_calls_of_changing_content_are_all_counted(collect, baseline):
    """Blocks that are used again between drains mix no call with another."""
    observer = Observer(Model("churn", "3", baseline=baseline), recording=Recording("off"))
    rows = LARGE // (3 * 8) + 1
    for value in (0.0, np.nan, np.inf, np.nan):
        X = np.full((rows, 3), value)
        observer.call(lambda X: None, (X,), {}, X)
        X[:] = 1.0
        if not np.isfinite(value):
            collect()
    states = {
        point.attributes["ml.feature.state"]: point.value
        for point in collect()["ml.feature.observations"]
        if point.attributes["ml.feature.name"] == "a"
    }
    assert (states["missing"], states["non_finite"], sum(states.values())) == (2 * rows, rows, 4 * rows)
