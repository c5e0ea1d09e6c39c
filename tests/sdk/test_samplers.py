"""What each sampler, rule and composition decides, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from samplers import MODEL, REGIONS, Clock, prediction

from otel_ml import ConfigurationError, _guard, sampling
from otel_ml.baseline import Baseline
from otel_ml.model import Model
from otel_ml.prediction import Prediction
from otel_ml.recording import Recording
from otel_ml.rows import Rows
from otel_ml.sampling import Decision
from otel_ml.sampling.coin import select
from otel_ml.sampling.composition import override
from otel_ml.sampling.decision import check
from otel_ml.sampling.strata import MAX_STRATA

REGRESSOR = Model("price", "1", task="regression")


def scores(*values: float):
    return prediction(np.array(values))


def of_regions(*names: str):
    return prediction(np.full(len(names), 0.5), np.array([REGIONS.index(name) for name in names]))


def p(decision: Decision, n: int) -> list[float]:
    return np.broadcast_to(decision.probability, n).tolist()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: sampling.Random(1.5), "rate=1.5 is not a share of rows; give a number from 0 to 1"),
        (lambda: sampling.Random(math.nan), "rate=nan is not a share"),
        (lambda: sampling.Stratified("region"), "give either rate, a share, or per_minute"),
        (lambda: sampling.Stratified("region", rate=0.1, per_minute=3), "give either rate, a share, or per_minute"),
        (lambda: sampling.Stratified("region", per_minute=0), "per_minute=0 is not a number above 0"),
        (lambda: sampling.Stratified("region", rate=0.1, rates={"eu": 2}), r"rates\['eu'\]=2 is not a share"),
        (lambda: sampling.Uncertainty("doubt", rate=0.1), "is none of least_confidence, margin, entropy"),
        (lambda: sampling.Uncertainty(rate=0.0), "rate=0.0 must be above 0"),
        (lambda: sampling.Uncertainty(rate=1.0), r"rate=1.0 must be above 0 and below 1"),
        (lambda: sampling.Uncertainty(rate=0.1, floor=0.2), "and not below floor=0.2"),
        (lambda: sampling.When(True), r"When\(True\): a rule is a function of the prediction"),
        (lambda: sampling.slower_than(0), "seconds=0 is not a number above 0"),
        (lambda: sampling.any_of(sampling.Random(0.1)), "any_of needs two samplers or more, not 1"),
        (lambda: sampling.limit(sampling.Random(0.1)), "limit without a number"),
        (lambda: sampling.limit(sampling.Random(0.1), per_minute=1, per_second=1), "both per_minute and per_second"),
        (lambda: sampling.limit(sampling.Random(0.1), per_call=-1), "per_call=-1 is not a number above 0"),
        (lambda: sampling.limit(sampling.Random(0.1), per_second=0.5, hard=True), "'per_second': 0.5} keeps no row"),
        (lambda: sampling.limit(0.1, per_call=1), "in limit 0.1 is no sampler"),
        (lambda: sampling.any_of(sampling.Random, sampling.Random(0.1)), "in any_of .*Random'> is no sampler"),
        (lambda: sampling.using(None).__enter__(), "None is no sampler; give it one"),
        (lambda: sampling.Random("0.1"), "rate='0.1' is not a share of rows; give a number from 0 to 1"),
        (lambda: sampling.Stratified("region", per_minute="3"), "per_minute='3' is not a number above 0"),
        (lambda: sampling.Stratified(["region", "age"], rate=0.1), "give the name of one feature"),
        (lambda: sampling.missing(["region", "age"]), "are not all names of features; write"),
        (lambda: sampling.When(sampling.missing), r"or what sampling.missing\(\)"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(make, said: str) -> None:
    """The message names the argument, the value and what it should be."""
    with pytest.raises(ConfigurationError, match=said):
        make()


@pytest.mark.parametrize(
    ("sampler", "model", "said"),
    [
        (
            sampling.Uncertainty(rate=0.1),
            REGRESSOR,
            "model price does regression and gives no class probabilities",
        ),
        (
            sampling.Stratified("town", rate=0.1),
            MODEL,
            "model churn has no such feature; it has region, age, income",
        ),
        (
            sampling.When(sampling.missing("town", "age")),
            MODEL,
            "model churn has no feature town that this rule",
        ),
        (sampling.When(sampling.out_of_range()), MODEL, "model churn has no baseline with numbers"),
    ],
    ids=["uncertainty", "stratified", "missing", "out of range"],
)
def test_samplers_are_checked_against_the_model(sampler, model: Model, said: str) -> None:
    """What cannot work with a model is said when it is configured, however deep inside a composition."""
    deep = sampling.limit(sampling.any_of(sampling.Random(0.1), sampler), per_second=1)
    for one in (sampler, deep):
        with pytest.raises(ConfigurationError, match=said):
            check(one, model)


def test_what_suits_the_model_passes_the_check(baseline: Baseline) -> None:
    """So does a function, and whatever asks for features of a model of which nothing is known."""
    known = Model("m", "1", baseline=baseline)
    for rule in (
        sampling.missing(),
        sampling.missing("a"),
        sampling.out_of_range(),
        sampling.out_of_range("b"),
    ):
        check(sampling.When(rule), known)
    for sampler in (
        sampling.Stratified("anything", rate=0.1), sampling.Stratified("label", rate=0.1),
        sampling.Uncertainty(rate=0.1), sampling.When(sampling.failed), lambda _: Decision(0.1, "random"),
    ):  # fmt: skip
        check(sampler, Model("m", "1"))


# --- strata -----------------------------------------------------------------------------------------------


def test_rate_of_a_stratum() -> None:
    """A stratum that `rates` names has its own, the others share `rate`."""
    sampler = sampling.Stratified("region", rate=0.1, rates={"west": 0.5})
    decision = sampler(of_regions("north", "west", "east"))
    assert p(decision, 3) == [0.1, 0.5, 0.1]
    assert (decision.reason, decision.stratum.tolist()) == ("stratum", ["north", "west", "east"])
    one = sampler(of_regions("west"))
    assert (one.probability, one.stratum) == (0.5, "west")


@pytest.mark.parametrize("n", [1, 3])
def test_strata_come_from_anywhere(n: int) -> None:
    """From a feature, the label, or a function; where there is no value the stratum says so."""
    call = prediction(np.full(n, 0.9), np.zeros(n, dtype=int))

    def stratum(by, given=call):
        found = sampling.Stratified(by, rate=0.1)(given).stratum
        return [found] * n if isinstance(found, str) else found.tolist()

    assert stratum("region") == ["north"] * n
    assert stratum("label") == ["yes"] * n
    assert stratum(lambda call: [i < 5 for i in range(call.rows)]) == ["true"] * n
    assert stratum("age") == ["40"] * n
    assert stratum("town") == ["__missing__"] * n
    assert stratum("label", prediction(np.full(n, 0.9), error="ValueError")) == ["__missing__"] * n
    assert stratum(lambda call: [None] * call.rows) == ["__missing__"] * n


def test_kinds_of_values_stay_apart() -> None:
    """True and 1 are equal to a dict and different strata; what cannot be a key has a text."""
    given = [True, 1, 1.0, "1", None, math.nan, [2], True]
    found = sampling.Stratified(lambda _: given, rate=0.1)(scores(*[0.5] * 8)).stratum
    assert found.tolist() == ["true", "1", "1", "1", "__missing__", "__missing__", "[2]", "true"]


def test_a_column_that_is_not_there_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A name nobody could check makes one stratum of all rows, and that does not go unnoticed."""
    sampler = sampling.Stratified("regoin", rate=0.1)
    for n in (1, 3):
        found = prediction(np.full(n, 0.5))
        assert p(sampler(found), n) == [0.1] * n
    assert [record.getMessage() for record in caplog.records] == [
        "model churn: its input has no column 'regoin' to take strata from; its rows are all in __missing__"
    ]


def test_wrong_number_of_strata_is_refused() -> None:
    """A function that gives too few says how many."""
    with pytest.raises(ValueError, match="gave 1 strata for 2 rows"):
        sampling.Stratified(lambda _: ["eu"], rate=0.1)(scores(0.5, 0.5))


@pytest.mark.parametrize("how", [{"rate": 0.1}, {"per_minute": 5}])
def test_strata_are_bounded(how) -> None:
    """After a hundred the others are one, also for their quota; strata with a rate of their own come on top."""
    sampler = sampling.Stratified(lambda call: call.outcome.scores, rates={"0.25": 1.0}, clock=Clock(), **how)
    many = np.arange(2.0, 2.0 + MAX_STRATA + 50)
    decision = sampler(prediction(np.concatenate([many, [0.25]])))
    expected = [str(i) for i in range(2, 2 + MAX_STRATA)] + ["__other__"] * 50 + ["0.25"]
    assert decision.stratum.tolist() == expected
    assert sampler(scores(1e6)).stratum == "__other__"
    if "per_minute" in how:
        wanted = 5 + 1.65 * math.sqrt(5) + 1.5
        assert p(decision, 151) == pytest.approx([1.0] * MAX_STRATA + [wanted / 50] * 50 + [1.0])


def test_quota_follows_the_minutes() -> None:
    """p = h·Q/max(N̂, seen): N̂ is the smallest of the last three minutes that had rows."""
    clock = Clock()
    sampler = sampling.Stratified("region", per_minute=10, clock=clock)
    wanted = 10 + 1.65 * math.sqrt(10) + 1.5
    found = []
    for minute, rows in [(0, 100), (1, 50), (1, 100), (5, 400), (6, 20), (7, 20), (8, 20), (9, 20)]:
        clock.now = 60.0 * minute + 1
        found.append(p(sampler(of_regions(*["north"] * rows)), rows)[0])
    expected = [100, 100, 150, 400, 100, 20, 20, 20]  # what the minute has, or is expected to
    assert found == pytest.approx([min(1.0, wanted / n) for n in expected])


# --- uncertainty ------------------------------------------------------------------------------------------


def test_unsure_rows_are_likelier() -> None:
    """A row in doubt has a larger probability than a certain one, which has no less than the floor."""
    sampler = sampling.Uncertainty("margin", rate=0.05, floor=0.004)
    call = prediction(np.tile([0.0, 0.25, 0.5], 200))
    found = p(sampler(call), 600)
    assert found[0] >= 0.004
    assert found[0] < found[1] < found[2] <= 1
    assert np.mean(found) == pytest.approx(0.05)


def test_unknown_uncertainty_is_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """An output without probabilities is kept at the floor; a call that raised is nothing to talk about."""
    sampler = sampling.Uncertainty("margin", rate=0.05, floor=0.004)
    for n in (1, 100):
        assert p(sampler(prediction(np.full(n, 0.5), probabilities=False)), n) == [0.004] * n
        assert p(sampler(prediction(np.full(n, 0.5), error="ValueError")), n) == [0.004] * n
    [record] = caplog.records
    assert record.getMessage() == (
        "model churn: predict_proba gives no class probabilities, so that its uncertainty is not known; its rows are "
        "kept with probability 0.004. Observe predict_proba, or give observe() a score= that is one"
    )
    assert _guard.collect(_guard.dropped) == {"unknown_uncertainty": 101}
    assert p(sampler(scores(0.5)), 1) == [0.05]  # they left no debt behind


# --- rules ------------------------------------------------------------------------------------------------


def test_rules_about_the_call() -> None:
    """Failed and slow calls, all of their rows."""
    failed, slow = sampling.When(sampling.failed), sampling.When(sampling.slower_than(0.5), rate=0.3)
    call = scores(0.1, 0.2)
    assert (p(failed(call), 2), p(slow(call), 2)) == ([0, 0], [0, 0])
    assert p(failed(prediction(np.zeros(2), error="ValueError")), 2) == [1, 1]
    assert p(slow(prediction(np.zeros(2), seconds=0.6)), 2) == [0.3, 0.3]


FEATURES = Model("m", "1", feature_names=("a", "b", "c"))


def rows_of(values, model: Model = FEATURES, *, plain: bool = True):
    matrix = np.array(values, dtype=np.float64)
    taken = (
        (matrix.tobytes(), matrix.shape, matrix.dtype) if plain else dict(zip("abc", matrix.T, strict=True))
    )
    return replace(prediction(np.full(len(matrix), 0.5), model=model), input=Rows(taken, model, len(matrix)))


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4", object])
def test_a_row_alone_counts_as_it_does_among_others(dtype) -> None:
    """A call of one row goes shorter ways to the same decision: the same rules hold, and it is in the same stratum."""
    values = [
        [1, 0.1, 1e300],
        [0.0, -0.0, math.inf],
        [-math.inf, 2**53, 7],
        [math.nan, 0.5, -1],
        [math.nan] * 3,
    ]
    with np.errstate(over="ignore"):
        matrix = np.array(values if dtype not in ("i8", "i4") else [[1, 0, -7], [2**31 - 1, 5, 3]]).astype(
            dtype
        )

    def call(rows) -> Prediction:
        columns = dict(zip("abc", rows.T, strict=True))
        taken = columns if dtype is object else (rows.tobytes(), rows.shape, rows.dtype)
        return replace(
            prediction(np.full(len(rows), 0.5), model=FEATURES), input=Rows(taken, FEATURES, len(rows))
        )

    rules = [sampling.missing(), *map(sampling.missing, ("a", "b", "c", "nowhere"))]
    together = [p(sampling.When(rule)(call(matrix)), len(matrix)) for rule in rules]
    alone = [[p(sampling.When(rule)(call(row[None])), 1)[0] for row in matrix] for rule in rules]
    assert alone == together
    for name in ("a", "b", "nowhere"):
        by = sampling.Stratified(name, rate=0.5)
        many = np.broadcast_to(np.asarray(by(call(matrix)).stratum, dtype=object), len(matrix)).tolist()
        assert [by(call(row[None])).stratum for row in matrix] == many


@pytest.mark.parametrize("plain", [True, False])
def test_missing_features(plain: bool) -> None:
    """Rows without a value of one of the named features, or of any."""
    call = rows_of([[1, 2, 3], [np.nan, 2, 3], [1, 2, np.nan]], plain=plain)
    assert p(sampling.When(sampling.missing("a"))(call), 3) == [0, 1, 0]
    assert p(sampling.When(sampling.missing("a", "b"))(call), 3) == [0, 1, 0]
    assert p(sampling.When(sampling.missing())(call), 3) == [0, 1, 1]
    assert p(sampling.When(sampling.missing("nowhere"))(call), 3) == [1, 1, 1]
    assert p(sampling.When(sampling.missing("a"))(rows_of([[np.nan, 1, 2]], plain=plain)), 1) == [1]
    assert p(sampling.When(sampling.missing())(replace(call, input=None)), 3) == [0, 0, 0]


def test_missing_text() -> None:
    """None in a column of objects is missing, empty text is not."""
    taken = {"region": ["eu", None, ""]}
    call = replace(scores(0.5, 0.5, 0.5), input=Rows(taken, MODEL, 3))
    assert p(sampling.When(sampling.missing("region"))(call), 3) == [0, 1, 0]


@pytest.mark.parametrize("plain", [True, False])
def test_features_out_of_range(baseline: Baseline, plain: bool) -> None:
    """Beyond the baseline's limits of one of the named features, or of any; infinities are, missing values are not."""
    model = Model("m", "1", baseline=baseline)
    call = rows_of([[0, -50, 1], [99, -50, 1], [0, 5000, 1], [np.nan, -np.inf, 1]], model, plain=plain)
    assert p(sampling.When(sampling.out_of_range("a"))(call), 4) == [0, 1, 0, 0]
    assert p(sampling.When(sampling.out_of_range("b"))(call), 4) == [0, 0, 1, 1]
    assert p(sampling.When(sampling.out_of_range())(call), 4) == [0, 1, 1, 1]
    assert p(sampling.When(sampling.out_of_range())(replace(call, model=FEATURES)), 4) == [0, 0, 0, 0]


def test_own_rules() -> None:
    """A function gives one answer for the call or one a row; another number of them is refused."""
    assert p(sampling.When(lambda call: call.rows > 1)(scores(0.1, 0.9)), 2) == [1, 1]
    rule = sampling.When(lambda call: call.outcome.scores > 0.5, rate=0.5)
    assert p(rule(scores(0.1, 0.9)), 2) == [0, 0.5]
    assert rule(scores(0.9)).probability == 0.5
    with pytest.raises(ValueError, match=r"gave shape \(1,\) for 2 rows"):
        sampling.When(lambda call: [True])(scores(0.1, 0.9))


# --- compositions -----------------------------------------------------------------------------------------


def test_any_of_is_the_largest_probability() -> None:
    """One coin serves all: p is the largest, and the reason is that of the sampler that gave it."""
    both = sampling.any_of(
        sampling.Stratified("region", rate=0.1, rates={"west": 0.7}), sampling.Random(0.2),
        sampling.When(lambda call: call.outcome.scores > 0.8),
    )  # fmt: skip
    call = prediction(np.array([0.1, 0.1, 0.9]), np.array([0, 3, 3]))
    decision = both(call)
    assert p(decision, 3) == [0.2, 0.7, 1.0]
    assert decision.reason.tolist() == [0, 1, 3]
    assert decision.stratum.tolist() == ["north", "west", "west"]
    one = both(prediction(np.array([0.1]), np.array([3])))
    assert one == Decision(0.7, "stratum", "west")
    assert sampling.any_of(sampling.Random(0.3), lambda _: Decision(0.3, "rule"))(call).reason == "random"


def test_limit_leaves_alone_what_is_below() -> None:
    """Under the number nothing changes."""
    clock = Clock()
    sampler = sampling.limit(sampling.Random(0.1), per_second=10, clock=clock)
    for i in range(200):
        clock.now = i / 20  # 2 expected rows a second
        assert sampler(scores(0.5)).probability == 0.1


@pytest.mark.parametrize("size", [1, 100, 10_000])
@pytest.mark.parametrize(("how", "seconds"), [("per_second", 1.0), ("per_minute", 60.0)])
def test_limit_holds_the_expected_number(size: int, how: str, seconds: float) -> None:
    """At a steady demand the expected rows of each window are the number, from the second one on."""
    clock = Clock()
    sampler = sampling.limit(sampling.Random(0.5), **{how: 20}, clock=clock)
    call, expected = prediction(np.full(size, 0.5)), np.zeros(10)
    calls = 10_000 // size * 2
    for i in range(10 * calls):
        clock.now = (i + 0.5) / calls * seconds
        expected[i // calls] += sampler(call).probability * size
    assert expected[1:] == pytest.approx(np.full(9, 20.0))
    assert expected[0] < 20 * (1 + math.log(20_000 * 0.5 / 20) + 0.1)


def test_limit_leaves_every_row_of_a_burst_its_chance() -> None:
    """Ten times the usual traffic: all of it is seen, by 1 + ln 10 times the number."""
    clock = Clock()
    sampler = sampling.limit(sampling.Random(1.0), per_second=20, clock=clock)
    call, found = prediction(np.full(10, 0.5)), []
    for second, calls in enumerate([100, 100, 100, 1000]):
        clock.now = float(second)
        found = [sampler(call).probability for _ in range(calls)]
    assert sum(found) * 10 == pytest.approx(20 * (1 + math.log(10)), rel=0.01)
    assert min(found) == pytest.approx(20 / 10_000)


def test_limit_of_a_call() -> None:
    """The rows of one call are scaled together, so that ratios stay."""
    decision = sampling.limit(sampling.When(lambda c: c.outcome.scores > 0.5), per_call=2)(
        scores(*[0.9] * 8, 0.1)
    )
    assert p(decision, 9) == [0.25] * 8 + [0.0]


@pytest.mark.parametrize("one", [1, 1.0, np.float32(1.0), np.array([1.0] * 8, dtype=np.float32)])
def test_limit_of_a_sampler_of_ones_own(one) -> None:
    """Probabilities of whatever type a function gives are scaled alike."""
    sampler = sampling.limit(lambda _: Decision(one, "rule"), per_call=2)
    assert p(sampler(scores(*[0.5] * 8)), 8) == [0.25] * 8


def test_measure_of_a_composition() -> None:
    """The measure that events record is that of the `Uncertainty` inside, however deep it is."""
    doubt = sampling.any_of(sampling.When(sampling.failed), sampling.Uncertainty("entropy", rate=0.1))
    assert Recording(sampler=sampling.limit(doubt, per_call=5)).measure == "entropy"
    assert Recording(sampler=sampling.limit(sampling.Random(0.1), per_call=5)).measure == "margin"


def test_limit_inside_a_limit() -> None:
    """Two numbers are two limits."""
    clock = Clock()
    inner = sampling.limit(sampling.Random(1.0), per_second=10, clock=clock)
    both = sampling.limit(inner, per_minute=12, clock=clock)
    found = [0.0, 0.0]
    for second in range(2):
        clock.now = float(second)
        found[second] = float(np.sum(p(both(prediction(np.full(1000, 0.5))), 1000)))
    assert found == pytest.approx([10.0, 10.0 * 12 / 20])


def test_hard_limit_marks_what_it_keeps() -> None:
    """Never more than the number, and nothing that is kept has a probability."""
    clock = Clock()
    sampler = sampling.limit(sampling.Random(0.5), per_second=5, per_call=3, hard=True, clock=clock)
    call, kept = prediction(np.full(1000, 0.5)), []
    for i in range(4):
        clock.now = i // 3
        selection = select(sampler(call), 1000)
        kept.append(0 if selection is None else len(selection.indices))
        if selection is not None:
            assert not selection.adjustable
            assert np.isnan(selection.probabilities).all()
            with pytest.raises(ValueError, match="rows kept under a hard limit have none"):
                sampling.total(np.ones(kept[-1]), selection.probabilities)
    assert kept == [3, 2, 0, 3]
    with pytest.raises(ConfigurationError, match="put it around"):
        sampling.any_of(sampler, sampling.Random(0.1))
    with pytest.raises(ConfigurationError, match="put it outermost"):
        sampling.limit(sampler, per_second=1)


def test_another_sampler_for_a_while() -> None:
    """Inside `using` its sampler is the one that counts, the innermost if there are several."""
    outer, inner = sampling.Random(1.0), sampling.Random(0.0)
    assert override.get() is None
    with sampling.using(outer):
        with sampling.using(inner):
            assert override.get() is inner
        assert override.get() is outer
    assert override.get() is None


def test_uncertainty_without_a_rate_says_what_to_write():
    """The one argument that it cannot do without is named, with an example."""
    with pytest.raises(
        ConfigurationError, match=r"^Uncertainty\('entropy'\) needs the share of rows to keep; write "
    ):
        sampling.Uncertainty("entropy")
