"""Which variant of a model answers whom: the same in every process and at every time, with nothing stored.

Weighted rendezvous hashing: each variant draws a number for the unit from a hash of both, and the smallest
-ln(u) / weight wins, which happens with probability weight / sum of the weights. When a weight changes, units only
move to or from that variant. Source: Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from .errors import ConfigurationError

_SCALE = 2.0**-53


def assign_variant(unit: str | int, weights: Mapping[str, float], *, experiment: str = "") -> str:
    """The variant of `unit` (a user, an account, a session), chosen in proportion to `weights`.

    weights: name of each variant to its share, positive or zero, of any sum: {"champion": 0.9, "challenger": 0.1}.
        Their order does not matter.
    experiment: another name draws anew, so that two experiments divide the same users independently.

    Raises `ConfigurationError` when no weight is positive, or one is negative or no number.
    """
    if not isinstance(unit, (str, int)):
        raise ConfigurationError(
            f"a unit is a string or an integer, not {unit!r}; give it a stable id of the user"
        )
    shares = {name: _share(name, weight) for name, weight in weights.items()}
    candidates = [name for name, share in shares.items() if share > 0]
    if not candidates:
        raise ConfigurationError(f"weights {dict(weights)!r} give no variant a positive share")
    return min(candidates, key=lambda name: (-math.log(_draw(experiment, unit, name)) / shares[name], name))


def _share(name: str, weight: float) -> float:
    if not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise ConfigurationError(f"the weight of variant {name!r} is a number of at least 0, not {weight!r}")
    return float(weight)


def _draw(experiment: str, unit: str | int, name: str) -> float:
    """A number in (0, 1], uniform over units; lengths keep ("a", "bc") and ("ab", "c") apart."""
    digest = hashlib.sha256()
    for part in (experiment, str(unit), name):
        text = part.encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "big") + text)
    return ((int.from_bytes(digest.digest()[:8], "big") >> 11) + 1) * _SCALE
