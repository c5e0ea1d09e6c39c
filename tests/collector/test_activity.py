"""Verdicts on the rows themselves: silence, features that vanish, unusual volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pointbatches import AGE, HOUR, POLICY, T0, S, Service, engine, send

from otel_ml import semconv
from otel_ml_collector import emit
from otel_ml_collector.activity import activity
from otel_ml_collector.console import lines
from otel_ml_collector.engine import Engine
from otel_ml_collector.evaluation import Activity, Evaluation, ModelKey
from otel_ml_collector.groups import Monitored
from otel_ml_collector.window import WindowSpec

WEEK, DAY = 168, 24
START = T0 // HOUR
SPEC = WindowSpec(length=3 * 3600, step=3600, lateness=60, refresh=600)


def model(hours: int, rows: Callable[[int], int]) -> Monitored:
    """A model that reported for this many hours from START on."""
    made = Monitored(ModelKey("", "api", "", "churn", "3"))
    made.hours = {START + hour: rows(hour) for hour in range(hours) if rows(hour)}
    made.last = (max(made.hours) + 1) * HOUR
    return made


def after(made: Monitored, hours: int) -> Activity:
    """What is said when this many hours have passed since START."""
    found = activity(made, (START + hours) * HOUR)
    assert found is not None
    return found


def by_day(hour: int) -> int:
    """Busy by day, asleep at night and on the weekend."""
    return 500 if 8 <= hour % DAY < 20 and hour // DAY % 7 < 5 else 0


def test_a_model_that_sleeps_at_night_is_not_silent() -> None:
    """Where no rows are usual, none are missed; on a working day they are, after the first hour."""
    made = model(3 * WEEK, by_day)
    assert {after(made, 3 * WEEK + hour).status for hour in range(9)} == {0}
    silent = after(made, 3 * WEEK + 10)
    assert (silent.status, silent.reason) == (2, "silent")
    assert "in which about 1,000 would be usual" in silent.detail


def test_silence_is_known_on_the_first_day() -> None:
    """Without a past, the quietest hour so far says what to expect."""
    made = model(5, lambda hour: 100)
    assert after(made, 5).status == 0
    assert after(made, 6).reason == "silent"
    assert after(model(1, lambda hour: 100), 9).reason == "no_history"


@pytest.mark.parametrize(
    ("rows", "status", "reason"),
    [(500, 0, "ok"), (300, 0, "ok"), (200, 1, "volume_low"), (20, 2, "volume_low"), (1200, 1, "volume_high"),
     (6000, 2, "volume_high")],
)  # fmt: skip
def test_volume_is_compared_with_the_same_hour_of_past_weeks(rows: int, status: int, reason: str) -> None:
    """By a factor beyond all of them: two, twice in a row, is a warning, ten is drifted."""
    hours = 3 * WEEK + 10
    made = model(hours, lambda hour: rows if hour >= hours - 2 else by_day(hour))
    found = after(made, hours)
    assert (found.rows, found.usual, found.status, found.reason) == (rows, 500.0, status, reason)


@pytest.mark.parametrize(("rows", "status"), [(200, 0), (1200, 0), (20, 2), (6000, 2)])
def test_one_unusual_hour_is_none_unless_it_is_far_off(rows: int, status: int) -> None:
    """Bursts of an hour are no reason to look."""
    hours = 3 * WEEK + 10
    assert (
        after(model(hours, lambda hour: rows if hour == hours - 1 else by_day(hour)), hours).status == status
    )


def test_hours_that_differ_from_week_to_week_have_to_differ_by_more() -> None:
    """Where past weeks had 200 to 1,000 rows, 4,000 are not unusual, and 6,000 are."""
    hours = 3 * WEEK + 10

    def wild(rows: int) -> Callable[[int], int]:
        return lambda hour: rows if hour >= hours - 2 else (200, 600, 1000, 600)[hour // WEEK]

    assert after(model(hours, wild(4000)), hours).status == 0
    assert after(model(hours, wild(6000)), hours).reason == "volume_high"


def test_undrifted_traffic_gives_no_verdict_in_a_month() -> None:
    """Poisson rows whose mean varies by a quarter from day to day, day and night."""
    rng = np.random.default_rng(0)
    means = (
        200
        * (1.2 + np.sin(np.arange(5 * WEEK) * 2 * np.pi / DAY))
        * np.repeat(rng.lognormal(0, 0.2, 35), DAY)
    )
    rows = rng.poisson(means).tolist()
    made = model(5 * WEEK, lambda hour: int(rows[hour]))
    found = []
    for hour in range(WEEK, 5 * WEEK):
        made.last = (START + hour) * HOUR
        found.append(after(made, hour).status)
    assert sum(map(bool, found)) == 0


def drive(e: Engine, service: Service, since: int, until: int, *features: str) -> list[Evaluation]:
    """A report every ten minutes, of rows of these features."""
    found = []
    for now in range(since + HOUR // 6, until + 1, HOUR // 6):
        if features:
            service.count(semconv.INFERENCE_ROWS, [50])
            for feature in features:
                service.count(
                    semconv.FEATURE_VALUE, [10] * 6, (-1.0, -0.5, 0.0, 0.5, 1.0), feature_name=feature
                )
            send(e, service.report(now), now=now)
        found += e.advance(now)
    return found


def test_a_feature_that_is_not_sent_any_more_is_named() -> None:
    """While the model has rows, after an hour, in the gauges and on the console."""
    e, service = engine(SPEC), Service(T0)
    assert drive(e, service, T0, T0 + 2 * HOUR, "age", "income")[-1].activity.vanished == ()  # type: ignore[union-attr]
    last = drive(e, Service(T0 + 2 * HOUR, identity={"pod": "b"}), T0 + 2 * HOUR, T0 + 4 * HOUR, "income")[-1]
    assert last.activity is not None
    assert last.activity.vanished == (AGE,)
    gauges = emit.gauges([last], POLICY, last.window_end)
    assert {g.attributes["ml.feature.name"]: g.value for g in gauges if g.metric == semconv.ACTIVITY_VANISHED} == {
        "age": 1, "income": 0,
    }  # fmt: skip
    assert "age is not sent any more" in lines([last], "basic")[0]


def test_a_model_gone_silent_is_said_until_it_is_forgotten() -> None:
    """Its status, its age and the words for people come with every evaluation."""
    e, service = engine(SPEC), Service(T0)
    assert drive(e, service, T0, T0 + 5 * HOUR, "age")[-1].activity.status == 0  # type: ignore[union-attr]
    last = drive(e, service, T0 + 5 * HOUR, T0 + 8 * HOUR)[-1]
    gauges = {g.metric.name: g for g in emit.gauges([last], POLICY, last.window_end + 30 * S)}
    assert gauges["ml.activity.status"].value == 2
    assert gauges["ml.activity.reason"].attributes["ml.drift.reason.code"] == "silent"
    assert gauges["ml.activity.age"].value == (last.window_end - T0) / S - 5 * 3600 + 30
    assert gauges["ml.activity.rows"].value == 0
    assert "no rows for" in lines([last], "basic")[0]


def test_a_model_that_does_not_count_its_rows_has_no_verdict_on_them() -> None:
    """Nothing is made up of what features have."""
    e = engine(SPEC)
    service = Service(T0)
    service.count(semconv.FEATURE_VALUE, [10] * 6, (-1.0, -0.5, 0.0, 0.5, 1.0), feature_name="age")
    send(e, service.report(T0 + S), now=T0 + S)
    (evaluation,) = [x for x in e.advance(T0 + HOUR + 100 * S) if x.final]
    assert evaluation.activity is None
