"""When a retraining is asked for: once for each cause, and what the payload says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from evaluations import AGE, EVALUATION

from otel_ml_collector.evaluation import Evaluation, Target, TargetEvaluation
from otel_ml_collector.retraining import Envelope, Webhook
from otel_ml_collector.snapshot import pack, unpack
from otel_ml_collector.triggers import MAX_TARGETS, MAX_WAITING, Retraining

S = 1_000_000_000
HOUR = 3600 * S
START = EVALUATION.window_end


def rules(min_interval: str = "0s", **triggers: object) -> Webhook:
    """A webhook with these triggers."""
    return Webhook.model_validate(
        {"endpoint": "https://example.com", "min_interval": min_interval, "triggers": triggers}
    )


DRIFT = rules(drift={})


def targets(
    *statuses: int, segment: tuple[str, ...] = (), reason: str = "psi"
) -> tuple[TargetEvaluation, ...]:
    """Targets with these statuses."""
    return tuple(
        replace(AGE, target=Target("feature", f"x{i}", segment), status=status, reason=reason)
        for i, status in enumerate(statuses)
    )


def at(hour: int, *statuses: int, **changes: Any) -> Evaluation:
    """The evaluation of an hour in which targets have these statuses."""
    evaluation = replace(EVALUATION, window_end=START + hour * HOUR, targets=targets(*statuses))
    return replace(evaluation, **changes)


def fired(retraining: Retraining, *hours: Evaluation | Sequence[Evaluation]) -> list[dict[str, Any]]:
    """The payloads of an hour each with these evaluations."""
    found = []
    for hour, evaluations in enumerate(hours):
        before = set(retraining.waiting)
        several = [evaluations] if isinstance(evaluations, Evaluation) else evaluations
        retraining.update(several, START + hour * HOUR + 60 * S)
        found += [json.loads(body) for message, body in retraining.waiting.items() if message not in before]
    return found


def new(ruled: Webhook = DRIFT) -> Retraining:
    return Retraining("webhook", ruled)


def test_drift_that_lasts_is_one_trigger_and_one_that_comes_again_another() -> None:
    """It is armed again by going back to ok, not by going down to a warning."""
    first, second = fired(
        new(), at(0, 0, 0), at(1, 2, 0), at(2, 2, 2), at(3, 1, 0), at(4, 2, 0), at(5, 0, 0), at(6, 0, 2)
    )
    assert first["id"] != second["id"]
    assert [target["name"] for target in first["data"]["targets"]] == ["x0"]
    assert first["data"]["reason"] == "1 of 2 targets drifted: x0"


def test_a_status_held_from_the_baseline_before_is_no_drift_from_the_new_one() -> None:
    """Who has just trained and shipped a baseline is not asked again, unless rows differ from that one, too."""

    def shipped(hour: int, *statuses: int, reason: str) -> Evaluation:
        return at(hour, targets=targets(*statuses, reason=reason), baseline_id="b2")

    retraining = new(rules(drift={"lasting": "1h"}))
    assert len(fired(retraining, at(0, 2), at(1, 2))) == 1
    held = [shipped(hour, 2, reason="held") for hour in (2, 3, 4)]
    assert fired(retraining, *held, shipped(5, 2, reason="psi")) == []
    (found,) = fired(retraining, shipped(6, 2, reason="held"))
    assert found["data"]["baseline"]["id"] == "b2"
    assert fired(new(), *held, shipped(5, 0, reason="ok")) == []


def test_what_a_drift_leaves_in_the_cumulative_sum_does_not_keep_it_from_being_armed() -> None:
    """Such a warning stays for long after everything is as it was."""
    slow = at(2, targets=targets(1, reason="slow"))
    assert len(fired(new(), at(0, 2), at(1, targets=targets(1, reason="slow")), slow, at(3, 2))) == 2


def test_segments_do_not_count() -> None:
    """The rule is about all rows, as `ml.drift.features` is."""
    assert fired(new(), at(0, targets=targets(2, segment=("region", "eu")))) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"status": "warning"}, 1),
        ({"targets": 2}, 2),
        ({"lasting": "2h"}, 3),
        ({"targets": 3}, None),
    ],
)
def test_a_rule_says_how_many_how_bad_and_for_how_long(rule: dict[str, object], expected: int | None) -> None:
    """The hour in which it is fired."""
    retraining = new(rules(drift=rule))
    hours = [at(0, 0, 0), at(1, 1 + ("status" not in rule), 0), at(2, 2, 2), at(3, 2, 2), at(4, 2, 2)]
    when = [
        hour
        for hour, one in enumerate(hours)
        if fired(retraining, replace(one, window_end=START + hour * HOUR))
    ]
    assert when == ([] if expected is None else [expected])


def test_drift_has_to_last_without_a_break() -> None:
    """An hour below the limit begins it anew."""
    ruled = rules(drift={"lasting": "2h"})
    assert fired(new(ruled), at(0, 2), at(1, 2), at(2, 1), at(3, 2), at(4, 2)) == []
    assert len(fired(new(ruled), at(0, 2), at(1, 2), at(2, 2))) == 1


def test_the_age_of_a_baseline_is_one_trigger_until_there_is_another_baseline() -> None:
    """From the time it was made; one from the past has no such time."""
    ruled = rules(baseline_age="720h")
    old, older = START - 720 * HOUR, START - 800 * HOUR
    (first,) = fired(new(ruled), at(0, 0, baseline_created=old), at(1, 2, baseline_created=old))
    assert (first["data"]["trigger"], first["data"]["baseline"]["age_seconds"]) == (
        "baseline_age",
        720 * 3600 + 60,
    )
    assert first["data"]["reason"] == "the baseline is 30.0 days old, 720h is the limit"
    again = fired(
        new(ruled), at(0, 0, baseline_created=old), at(1, 0, baseline_id="b2", baseline_created=older)
    )
    assert [one["data"]["baseline"]["id"] for one in again] == ["abc", "b2"]
    assert fired(new(ruled), at(0, 0, baseline_created=0), at(1, 0, baseline_created=START)) == []


def test_rows_of_all_services_and_variants_of_a_version_add_up() -> None:
    """Served since its baseline is in use; other versions do not count."""
    ruled = rules(rows=1000)
    one, other, canary = (
        replace(EVALUATION.model, service_name="batch"), replace(EVALUATION.model, version="4"),
        replace(EVALUATION.model, variant="b", role="canary"),
    )  # fmt: skip
    few = [
        at(0, 0, rows_served=600),
        at(0, 0, model=other, rows_served=900),
        at(0, 0, model=one, rows_served=399),
    ]
    assert fired(new(ruled), few) == []
    (found,) = fired(new(ruled), [*few, at(0, 0, model=canary, rows_served=1)], few, few)
    assert (found["data"]["rows_since_baseline"], found["data"]["model"]["version"]) == (1000, "3")


def test_services_of_one_version_are_triggered_together_and_armed_when_it_is_over_for_all() -> None:
    """A second pod's drift is no second training."""
    batch = replace(EVALUATION.model, service_name="batch")

    def both(hour: int, api: int, other: int) -> list[Evaluation]:
        return [at(hour, api), at(hour, other, model=batch)]

    assert len(fired(new(), both(0, 2, 0), both(1, 2, 2), both(2, 0, 2), both(3, 2, 2))) == 1
    assert len(fired(new(), both(0, 2, 0), both(1, 2, 2), both(2, 0, 0), both(3, 0, 2))) == 2
    staging = replace(EVALUATION.model, environment="staging")
    assert len(fired(new(), [at(0, 2), at(0, 2, model=staging)])) == 2


def test_a_model_that_is_gone_is_armed_again() -> None:
    """Nothing is kept for it."""
    assert len(fired(new(), at(0, 2), [], at(2, 2))) == 2


def test_the_interval_between_two_triggers_postpones_the_second() -> None:
    """Of whatever kind: it comes when the time is over, if there is still a reason."""
    ruled = rules("2h", drift={}, baseline_age="1h")
    hours = [at(hour, 2) for hour in range(5)]
    retraining = new(ruled)
    kinds = [
        [one["data"]["trigger"] for one in fired_at(retraining, hour, one)] for hour, one in enumerate(hours)
    ]
    assert kinds == [["drift"], [], ["baseline_age"], [], []]
    long = rules("3h", drift={})
    assert len(fired(new(long), at(0, 2), at(1, 0), at(2, 2), at(3, 2))) == 2
    assert len(fired(new(long), at(0, 2), at(1, 0), at(2, 2), at(3, 0), at(4, 0))) == 1


def fired_at(retraining: Retraining, hour: int, evaluation: Evaluation) -> list[dict[str, Any]]:
    before = set(retraining.waiting)
    retraining.update([evaluation], START + hour * HOUR)
    return [json.loads(body) for message, body in retraining.waiting.items() if message not in before]


def test_only_named_models_are_looked_at() -> None:
    """One webhook a pipeline, where models have pipelines of their own."""
    assert fired(new(DRIFT.model_copy(update={"models": ("fraud",)})), at(0, 2)) == []
    assert len(fired(new(DRIFT.model_copy(update={"models": ("fraud", "churn")})), at(0, 2))) == 1


def test_what_was_fired_is_not_fired_by_the_process_that_goes_on() -> None:
    """And what was not delivered waits there, with its id; the state is plain data."""
    first, second = new(), new()
    (payload,) = fired(first, at(0, 2))
    second.restore(unpack(pack(first.state())))
    assert (fired(second, at(1, 2)), list(second.waiting)) == ([], [payload["id"]])
    second.delivered(payload["id"])
    assert second.waiting == {}
    assert len(fired(second, at(2, 0), at(3, 2))) == 1


def test_a_process_that_knows_nothing_asks_with_the_same_id() -> None:
    """What comes once has an id made of what it is about; drift also of when it began."""
    ruled = rules(drift={}, baseline_age="1h")
    assert list(_waiting(ruled, at(0, 2))) == list(_waiting(ruled, at(0, 2, 2)))
    assert len({*_waiting(ruled, at(0, 2)), *_waiting(ruled, at(1, 2))}) == 3


def _waiting(ruled: Webhook, evaluation: Evaluation) -> dict[str, str]:
    retraining = new(ruled)
    fired(retraining, evaluation)
    return retraining.waiting


def test_the_payload_is_what_the_documents_say() -> None:
    """Version 1 of its schema, in full."""
    (payload,) = fired(
        new(DRIFT.model_copy(update={"runbook": "https://wiki/drift"})), at(0, 2, rows_served=7)
    )
    message = payload.pop("id")
    assert payload == {
        "type": "ml.retraining.requested",
        "schema_version": 1,
        "timestamp": payload["timestamp"],
        "data": {
            "trigger": "drift",
            "reason": "1 of 1 targets drifted: x0",
            "model": {
                "name": "churn", "version": "3", "role": "live", "service": "churn-api", "namespace": "shop",
                "environment": "prod",
            },
            "baseline": {
                "id": "abc", "rows": 5000, "created": payload["data"]["baseline"]["created"], "age_seconds": 8660,
            },
            "rows_since_baseline": 7,
            "window": {**payload["data"]["window"], "rows": 1000},
            "targets": [
                {
                    "target": "feature", "name": "x0", "status": "drifted", "reason": "psi",
                    "detail": "PSI excess 0.31 ≥ 0.25", "rows": 1000,
                    "statistics": {"psi.excess": 0.31, "ks": 0.2, "p_value": 1e-9},
                }
            ],
            "targets_left_out": 0,
            "runbook": "https://wiki/drift",
        },
    }  # fmt: skip
    assert len(message) == 36


def test_a_payload_is_bounded() -> None:
    """The worst targets, in few words, whatever senders call them."""
    many = tuple(
        replace(AGE, target=Target("feature", "n" * 10_000 + str(i)), status=1 + i % 2, detail="d" * 10_000)
        for i in range(500)
    )
    (payload,) = fired(new(), at(0, targets=many))
    data = payload["data"]
    assert (len(data["targets"]), data["targets_left_out"]) == (MAX_TARGETS, 500 - MAX_TARGETS)
    assert {target["status"] for target in data["targets"]} == {"drifted"}
    assert len(json.dumps(payload)) < 64 * 1024


def test_an_envelope_is_what_the_receiver_asks_for() -> None:
    """The payload under a key, beside what is given."""
    envelope = Envelope(under="client_payload", beside={"event_type": "retrain"})
    (body,) = fired(new(DRIFT.model_copy(update={"envelope": envelope})), at(0, 2))
    assert (body["event_type"], body["client_payload"]["data"]["trigger"]) == ("retrain", "drift")
    assert len(body["client_payload"]) <= 10  # what GitHub takes


def test_triggers_that_wait_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """The oldest go, and it is said."""
    models = [replace(EVALUATION.model, version=str(i)) for i in range(MAX_WAITING + 5)]
    retraining = new()
    retraining.update([at(0, 2, model=model) for model in models], START)
    assert len(retraining.waiting) == MAX_WAITING
    assert caplog.text.count("is lost") == 5
