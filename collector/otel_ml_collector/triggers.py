"""When a model should be trained again, and what is told about it. No I/O, and a clock that it is given.

A trigger is fired once for (environment, model, version, kind, baseline). It is armed again when its condition is
over: for drift when fewer targets than it takes are other than ok, for all kinds when the model is gone.
Services and variants of one version are one: they fire together, and are armed again when it is over for all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from otel_ml import semconv

from .changes import deciding
from .evaluation import Evaluation, ModelKey, TargetEvaluation
from .events import status_name, time_text, uid
from .fields import written
from .retraining import DriftTrigger, Webhook

_LOG = logging.getLogger(__name__)

SCHEMA_VERSION = 1
MAX_TARGETS = 50
"""Targets in a payload, the worst first."""
MAX_TEXT = 256
"""Characters of a name or of a reason in a payload: names come from senders."""
MAX_WAITING = 1000
"""Triggers that wait for their delivery."""
_S = 1_000_000_000


class Key(NamedTuple):
    """What is triggered once."""

    environment: str
    model: str
    version: str
    kind: str
    baseline_id: str


class Retraining:
    """The triggers of one webhook. `waiting` are those that were fired and not delivered: bodies by id."""

    def __init__(self, name: str, rules: Webhook) -> None:
        self.name = name
        self.rules = rules
        self.waiting: dict[str, str] = {}
        self._fired: dict[Key, set[ModelKey]] = {}
        """For which models the condition holds on."""
        self._since: dict[tuple[ModelKey, str], int] = {}
        """End of the first window with enough drift from a baseline, Unix ns."""
        self._last: dict[tuple[str, str], int] = {}
        """When a model, by environment and name, was last triggered, Unix ns."""

    def update(self, evaluations: Sequence[Evaluation], now: int) -> None:
        """Look at the newest evaluation of every model that is there at `now` (Unix ns)."""
        seen = [one for one in evaluations if not self.rules.models or one.model.model in self.rules.models]
        rows = _rows_served(seen)
        # Older ones stand in nobody's way, and names come from senders.
        self._last = {model: last for model, last in self._last.items() if self._recent(last, now)}
        on: dict[Key, list[Evaluation]] = {}
        held: dict[Key, set[ModelKey]] = {}
        for one in seen:
            for key, state in self._states(one, rows[_version(one)], now):
                if state is not False:
                    held.setdefault(key, set()).add(one.model)
                if state:
                    on.setdefault(key, []).append(one)
        self._fired = {
            key: kept for key, models in self._fired.items() if (kept := models & held.get(key, set()))
        }
        for key, causes in on.items():
            if key in self._fired or self._fire(key, causes, rows[_version(causes[0])], now):
                self._fired.setdefault(key, set()).update(one.model for one in causes)
        there = {(one.model, one.baseline_id) for one in seen}
        self._since = {which: since for which, since in self._since.items() if which in there}

    def delivered(self, trigger: str) -> None:
        """It needs not wait any more."""
        self.waiting.pop(trigger, None)

    def state(self) -> dict[str, object]:
        """For `restore`."""
        fired = {tuple(key): models for key, models in self._fired.items()}
        return {"waiting": self.waiting, "fired": fired, "since": self._since, "last": self._last}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as when `state` was taken: what was fired is not fired again, what was not delivered waits."""
        self.waiting, self._since, self._last = state["waiting"], state["since"], state["last"]
        self._fired = {Key(*key): models for key, models in state["fired"].items()}

    # --- conditions ---------------------------------------------------------------------------------------

    def _states(self, one: Evaluation, rows: int, now: int) -> Iterator[tuple[Key, bool | None]]:
        """Whether each condition holds; None: it neither holds nor is it over."""
        triggers = self.rules.triggers
        if triggers.drift is not None:
            yield _key(one, "drift"), self._drift(one, triggers.drift)
        if triggers.baseline_age is not None and one.baseline_created > 0:
            yield _key(one, "baseline_age"), now - one.baseline_created >= triggers.baseline_age * _S
        if triggers.rows is not None and one.baseline_id:
            yield _key(one, "rows"), rows >= triggers.rows

    def _drift(self, one: Evaluation, rule: DriftTrigger) -> bool | None:
        limit, which = semconv.STATUSES.index(rule.status), (one.model, one.baseline_id)
        whole = [target for target in one.targets if not target.target.segment]
        bad = [target for target in whole if target.status >= limit]
        # What is only held may be left from the baseline before, and says nothing of this one.
        if sum(target.evaluated and target.reason != "held" for target in bad) >= rule.targets:
            self._since.setdefault(which, one.window_end)
        if len(bad) >= rule.targets:
            since = self._since.get(which)
            return True if since is not None and one.window_end - since >= rule.lasting * _S else None
        self._since.pop(which, None)
        # A warning of the cumulative sum alone is what a drift leaves behind for a long time after it.
        left = sum(target.status > 0 and target.reason != "slow" for target in whole)
        return None if left >= rule.targets else False

    def _recent(self, last: int, now: int) -> bool:
        return now - last < self.rules.min_interval * _S

    # --- what is told -------------------------------------------------------------------------------------

    def _fire(self, key: Key, causes: Sequence[Evaluation], rows: int, now: int) -> bool:
        """Whether the time has come."""
        of_model = (key.environment, key.model)
        if of_model in self._last and self._recent(self._last[of_model], now):
            return False
        # The age of a baseline comes once; drift comes and goes.
        episode = self._since[causes[0].model, causes[0].baseline_id] if key.kind == "drift" else 0
        trigger_id = uid(*key, episode)
        self._last[of_model] = now
        self.waiting[trigger_id] = json.dumps(self._body(trigger_id, key, causes[0], rows, now))
        _LOG.info(
            "exporter %s: asks for a retraining of %s %s: %s", self.name, key.model, key.version, key.kind
        )
        while len(self.waiting) > MAX_WAITING:
            lost = next(iter(self.waiting))
            del self.waiting[lost]
            _LOG.error("exporter %s: trigger %s is lost: more than %d wait", self.name, lost, MAX_WAITING)
        return True

    def _body(self, trigger_id: str, key: Key, one: Evaluation, rows: int, now: int) -> dict[str, Any]:
        moved = sorted(
            (t for t in one.targets if t.status), key=lambda t: (-t.status, bool(t.target.segment), t.target)
        )
        data: dict[str, Any] = {
            "trigger": key.kind,
            "reason": self._reason(key.kind, one, rows, now),
            "model": _model(one.model),
            "baseline": _baseline(one, now),
            "rows_since_baseline": rows,
            "window": {
                "start": time_text(one.window_start), "end": time_text(one.window_end), "rows": one.rows,
            },
            "targets": [_target(target) for target in moved[:MAX_TARGETS]],
            "targets_left_out": max(0, len(moved) - MAX_TARGETS),
        }  # fmt: skip
        if self.rules.runbook is not None:
            data["runbook"] = self.rules.runbook
        payload: dict[str, Any] = {
            "type": semconv.RETRAINING_EVENT,
            "schema_version": SCHEMA_VERSION,
            "id": trigger_id,
            "timestamp": time_text(now),
            "data": data,
        }
        envelope = self.rules.envelope
        return payload if envelope is None else {**envelope.beside, envelope.under: payload}

    def _reason(self, kind: str, one: Evaluation, rows: int, now: int) -> str:
        """The reason in words, for people."""
        triggers = self.rules.triggers
        if kind == "rows":
            return f"{rows:,} rows were served since the baseline is in use, {triggers.rows:,} is the limit"
        if kind == "baseline_age" and triggers.baseline_age is not None:
            days = (now - one.baseline_created) / _S / 86_400
            return f"the baseline is {days:.1f} days old, {written(triggers.baseline_age)} is the limit"
        whole = [target for target in one.targets if not target.target.segment]
        limit = semconv.STATUSES.index(triggers.drift.status if triggers.drift else "drifted")
        bad = [target for target in whole if target.status >= limit]
        named = ", ".join(_cut(target.target.name or target.target.kind) for target in bad[:3])
        status = "drifted" if limit == len(semconv.STATUSES) - 1 else "moved"
        return f"{len(bad)} of {len(whole)} targets {status}: {named}{', …' if len(bad) > 3 else ''}"


def _version(one: Evaluation) -> tuple[str, str, str, str]:
    return one.model.environment, one.model.model, one.model.version, one.baseline_id


def _key(one: Evaluation, kind: str) -> Key:
    return Key(one.model.environment, one.model.model, one.model.version, kind, one.baseline_id)


def _rows_served(evaluations: Sequence[Evaluation]) -> dict[tuple[str, str, str, str], int]:
    """Rows of each version with its baseline, in all services and variants that serve it."""
    total: dict[tuple[str, str, str, str], int] = {}
    for one in evaluations:
        total[_version(one)] = total.get(_version(one), 0) + one.rows_served
    return total


def _cut(text: str) -> str:
    return text[:MAX_TEXT]


def _model(key: ModelKey) -> dict[str, str]:
    given = {
        "name": key.model,
        "version": key.version,
        "variant": key.variant,
        "role": key.role,
        "service": key.service_name,
        "namespace": key.service_namespace,
        "environment": key.environment,
    }
    return {name: _cut(value) for name, value in given.items() if value}


def _baseline(one: Evaluation, now: int) -> dict[str, str | int] | None:
    if not one.baseline_id:
        return None
    about: dict[str, str | int] = {"id": _cut(one.baseline_id), "rows": one.baseline_rows}
    if one.baseline_created > 0:
        about["created"] = time_text(one.baseline_created)
        about["age_seconds"] = max(0, (now - one.baseline_created) // _S)
    return about


def _target(one: TargetEvaluation) -> dict[str, Any]:
    about: dict[str, Any] = {
        "target": one.target.kind,
        "status": status_name(one.status),
        "reason": one.reason,
        "detail": _cut(one.detail),
        "rows": one.rows,
        "statistics": deciding(one),
    }
    if one.target.name:
        about["name"] = _cut(one.target.name)
    if one.target.segment:
        about["segment"] = {_cut(one.target.segment[0]): _cut(one.target.segment[1])}
    return about
