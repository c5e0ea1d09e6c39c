"""What a sampler decides, what the coin makes of it, and what every sampler has in common."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from samplers import Clock, every_sampler, prediction

from otel_ml import sampling, semconv
from otel_ml.sampling import Decision
from otel_ml.sampling.coin import COIN, Coin, decided, randomness_text, select, threshold_text

NAMES = list(every_sampler(Clock()))
RNG = np.random.default_rng(5)


def probabilities(decision: Decision, n: int) -> list[float]:
    return np.broadcast_to(decision.probability, n).tolist()


def well_formed(decision: Decision, n: int) -> None:
    """Probabilities in [0, 1], reasons that exist, strata that are text: one for all rows, or n."""
    p, reason, stratum = decision.probability, decision.reason, decision.stratum
    assert isinstance(p, float) or (p.dtype == np.float64 and p.shape == (n,))
    assert np.all((np.asarray(p) >= 0) & (np.asarray(p) <= 1))
    if isinstance(reason, str):
        assert reason in semconv.SAMPLING_REASONS
    else:
        assert reason.shape == (n,)
        assert set(reason.tolist()) <= set(range(len(semconv.SAMPLING_REASONS)))
    assert stratum is None or isinstance(stratum, str) or [type(one) for one in stratum] == [str] * n


def fresh(name: str) -> sampling.Sampler:
    return every_sampler(Clock())[name]


# --- what holds for every sampler -------------------------------------------------------------------------


def kinds(kind: type = sampling.Sampler) -> Iterator[type]:
    """Every class of sampler that can be made."""
    for one in kind.__subclasses__():
        yield from kinds(one)
        if one.__module__.startswith("otel_ml.") and not getattr(one, "__abstractmethods__", None):
            yield one


def test_every_sampler_is_tested() -> None:
    """A sampler that is missing from tests/samplers.py fails here."""
    assert {type(one) for one in every_sampler(Clock()).values()} == set(kinds())


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_decisions_are_well_formed(name: str, n: int) -> None:
    """Whatever the rows, and also the second time."""
    sampler = fresh(name)
    for _ in range(2):
        given = prediction(RNG.random(n), RNG.integers(0, 4, n), seconds=1.0)
        well_formed(sampler(given), n)


@pytest.mark.parametrize("name", NAMES)
def test_failed_calls_and_unknown_uncertainty(name: str) -> None:
    """A call that raised has no outcome, and an output can tell no probabilities: both are decided on."""
    sampler = fresh(name)
    for n in (1, 5, 100):
        scores = RNG.random(n)
        well_formed(sampler(prediction(scores, error="ValueError")), n)
        well_formed(sampler(prediction(scores, probabilities=False)), n)
        broken = np.where(np.arange(n) % 2 == 0, np.nan, scores)
        well_formed(sampler(prediction(broken)), n)


@pytest.mark.parametrize("name", NAMES)
def test_same_past_gives_the_same_probabilities(name: str) -> None:
    """Nothing but the calls decides: no coin, no clock of its own; a pickled one goes on as it was."""
    calls = [prediction(RNG.random(n), RNG.integers(0, 4, n)) for n in (1, 1, 10, 100, 1, 500, 3)]
    one, other = fresh(name), fresh(name)
    for call in calls:
        assert probabilities(one(call), call.rows) == probabilities(other(call), call.rows)
    again = pickle.loads(pickle.dumps(one))
    assert probabilities(again(calls[2]), 10) == probabilities(one(calls[2]), 10)


@pytest.mark.parametrize("name", NAMES)
def test_threads_lose_nothing(name: str) -> None:
    """Calls from eight threads end in the state that the same calls from one thread would."""
    sampler, single = fresh(name), fresh(name)
    call = prediction(np.full(3, 0.3), np.array([0, 1, 3]))
    with ThreadPoolExecutor(8) as pool:
        for decision in pool.map(lambda _: sampler(call), range(400)):
            well_formed(decision, 3)
    for _ in range(400):
        single(call)
    assert probabilities(sampler(call), 3) == pytest.approx(probabilities(single(call), 3))


# --- the coin ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "text"),  # from the probability sampling of OpenTelemetry's specification: 1 - p in hexadecimal
    [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.1, "e6666666666666"), (0.01, "fd70a3d70a3d71"),
     (2**-56, "ffffffffffffff")],
)  # fmt: skip
def test_threshold_of_a_probability(p: float, text: str) -> None:
    """OpenTelemetry's threshold of p, and the p that is recorded is that of the threshold."""
    one = select(Decision(p, "random"), 1, Forced(2**56 - 1))
    assert one is not None
    [threshold] = one.thresholds.tolist()
    assert threshold_text(threshold) == text
    assert int(text.ljust(14, "0"), 16) == threshold
    assert one.probabilities.tolist() == [(2**56 - threshold) / 2**56] == pytest.approx([p], rel=1e-12)


class Forced(Coin):
    """A coin that always shows the same."""

    def __init__(self, shown: int) -> None:
        super().__init__(0)
        self.shown = shown
        self.flip = lambda bits: shown

    def flips(self, n):
        """(n,) times the same."""
        return np.full(n, self.shown)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("form", ["one for all", "one a row"])
def test_kept_iff_randomness_reaches_the_threshold(n: int, form: str) -> None:
    """At the threshold a row is kept, one below it is not."""
    decision = Decision(0.25 if form == "one for all" else np.full(n, 0.25), "random", "eu")
    at = 3 * 2**54
    assert select(decision, n, Forced(at - 1)) is None
    kept = select(decision, n, Forced(at))
    assert kept is not None
    assert kept.indices.tolist() == list(range(n))
    assert kept.probabilities.tolist() == [0.25] * n
    assert (kept.reasons.tolist(), kept.strata.tolist()) == (["random"] * n, ["eu"] * n)
    assert kept.randomness.tolist() == kept.thresholds.tolist() == [at] * n
    assert [randomness_text(r) for r in kept.randomness.tolist()] == ["c0000000000000"] * n


def test_ends() -> None:
    """Nothing is kept with probability 0, everything with 1; there is nothing to keep of no rows."""
    for n in (1, 1000):
        assert select(Decision(0.0, "random"), n) is None
        kept = select(Decision(np.ones(n), "random"), n)
        assert kept is not None
        assert kept.indices.tolist() == list(range(n))
    assert select(Decision(1.0, "random"), 0) is None
    assert select(Decision(np.empty(0), "random"), 0) is None


def test_columns_of_a_selection_belong_together() -> None:
    """Probability, reason and stratum of a kept row are those that the sampler gave it."""
    p = np.tile([0.2, 0.6, 0.0, 1.0], 500)
    decision = Decision(
        p, np.tile(np.array([0, 1, 2, 3], dtype=np.int8), 500), np.tile(np.array([*"abcd"], object), 500)
    )
    kept = select(decision, 2000, Coin(1))
    assert kept is not None
    place = kept.indices % 4
    assert kept.probabilities == pytest.approx(p[kept.indices])
    assert kept.reasons.tolist() == [semconv.SAMPLING_REASONS[i] for i in place]
    assert kept.strata.tolist() == ["abcd"[i] for i in place]
    shares = np.bincount(place, minlength=4) / 500
    assert shares.tolist() == pytest.approx([0.2, 0.6, 0.0, 1.0], abs=0.06)
    first, second = (int((place == i).sum()) for i in (0, 1))
    assert decided(decision, 2000, kept) == {
        ("random", True): first, ("random", False): 500 - first,
        ("stratum", True): second, ("stratum", False): 500 - second,
        ("uncertainty", False): 500, ("rule", True): 500,
    }  # fmt: skip


def test_decisions_are_counted() -> None:
    """Rows by reason and by whether they were kept; nothing is counted that did not happen."""
    decision = Decision(0.5, "rule")
    assert decided(decision, 3, None) == {("rule", False): 3}
    assert decided(decision, 1, select(decision, 1, Forced(2**56 - 1))) == {("rule", True): 1}
    assert decided(decision, 0, None) == {}


def test_reasons_of_ones_own_are_refused() -> None:
    """A reason is an attribute of a counter, so that one that names a row would be a series each."""
    with pytest.raises(ValueError, match="a sampler gave the reason 'order 17'; use one of random, stratum"):
        select(Decision(1.0, "order 17"), 1)


@pytest.mark.parametrize(
    "p", [-0.1, 1.1, float("nan"), np.array([0.5, np.nan]), np.array([0.5, 2.0]), np.array([0.5])]
)
def test_what_is_no_probability_is_refused(p) -> None:
    """A sampler of the user's that gives nonsense fails loudly, not by keeping wrong rows."""
    with pytest.raises(ValueError, match=r"a sampler gave prob|a sampler gave the prob"):
        select(Decision(p, "random"), 2)


def test_seeded_coins_repeat_and_others_do_not() -> None:
    """A seed is for tests."""
    assert Coin(3).flips(5).tolist() == Coin(3).flips(5).tolist()
    assert Coin(3).flip(56) == Coin(3).flip(56)
    assert Coin().flips(5).tolist() != Coin().flips(5).tolist()


def test_application_seeds_are_left_alone() -> None:
    """A coin neither follows random.seed and numpy.random.seed nor uses up what they give."""
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = [COIN.flip(56), *COIN.flips(3).tolist()]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(1)
    np.random.seed(1)
    assert [COIN.flip(56), *COIN.flips(3).tolist()] != first


FORKS = """
import os, threading
from otel_ml.sampling import Uncertainty
from otel_ml.sampling.coin import COIN
COIN.flip(56)
sampler = Uncertainty(rate=.1)

def child():
    print(COIN.flip(56), *COIN.flips(2), sampler._lock.acquire(timeout=5))

for _ in range(2):
    sampler._lock.acquire()
    if os.fork() == 0:
        thread = threading.Thread(target=child)
        thread.start()
        thread.join()
        os._exit(0)
    sampler._lock.release()
    os.wait()
print(COIN.flip(56), *COIN.flips(2), True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_children_flip_their_own() -> None:
    """Parent and children keep different rows, and a lock that the parent held does not stop a child."""
    command = [sys.executable, "-W", "ignore", "-u", "-c", FORKS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *shown, held = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    assert [len(set(one)) for one in shown] == [3, 3, 3], done
    assert held == ("True", "True", "True")
