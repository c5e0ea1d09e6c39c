"""What the service tells others of its own accord: changes of status as events, and triggers of retrainings.

The changes that wait for the next export and the memory of every webhook are a state: what was said before a restart is
not said again, and what was not delivered still is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from . import events
from .changes import Change, changes
from .config import Config
from .evaluation import Evaluation
from .parts import Parts
from .queue import Item
from .retraining import Webhook
from .snapshot import pack, unpack
from .triggers import Retraining
from .webhook import WebhookExporter

_LOG = logging.getLogger(__name__)

MAX_CHANGES = 5000
"""Changes that wait for an export; those that come then are left out, counted and said."""


class Alerts:
    """Changes and triggers of a service, on their way to the parts that send them."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._parts = parts
        self._changes: list[Change] = []
        self._retraining: dict[str, Retraining] = {}
        self.left_out = 0
        """Changes that there was no room for."""
        self.use(config)

    def use(self, config: Config) -> None:
        """Go by another configuration; webhooks of the same name go on from where they were."""
        self._events = config.drift.events
        webhooks = {name: one for name, one in config.exporters.items() if isinstance(one, Webhook)}
        before = self._retraining
        self._retraining = {name: before.get(name) or Retraining(name, one) for name, one in webhooks.items()}
        for name, one in webhooks.items():
            self._retraining[name].rules = one

    def take(self, evaluation: Evaluation) -> None:
        """Note what changed with an evaluation, each of which is to be given once."""
        if not self._events:
            return
        found = sorted(changes(evaluation), key=lambda change: -change.status)
        room = MAX_CHANGES - len(self._changes)
        self._changes += found[:room]
        if len(found) > room:
            if not self.left_out:
                _LOG.warning(
                    "more than %d statuses changed at once; events tell of so many, gauges of all",
                    MAX_CHANGES,
                )
            self.left_out += len(found) - room

    def look(self, current: Sequence[Evaluation], now: int) -> None:
        """Fire the triggers that the newest evaluations ask for, at `now` (Unix ns)."""
        for retraining in self._retraining.values():
            retraining.update(current, now)

    def send(self, resource: Mapping[str, str], now: int) -> None:
        """Hand over what changed, and what was fired, at `now` (Unix ns)."""
        waiting, self._changes = self._changes, []
        if self._parts.event_queues:
            for request, records in events.requests(waiting, resource, now):
                data = request.SerializeToString()
                for queue in self._parts.event_queues:
                    queue.offer(Item(data, records))
        for name, webhook in self._parts.of(WebhookExporter).items():
            if name in self._retraining:
                webhook.offer(self._retraining[name].waiting)

    def delivered(self, name: str, trigger: str) -> None:
        """The webhook of that name delivered it."""
        if name in self._retraining:
            self._retraining[name].delivered(trigger)

    def state(self) -> dict[str, Any]:
        """For `restore`, as plain data that later calls leave alone."""
        webhooks = {name: one.state() for name, one in self._retraining.items()}
        made: dict[str, Any] = pack({"changes": self._changes, "webhooks": webhooks})
        return made

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken; to be called before all else."""
        found = unpack(dict(state))
        self._changes = found["changes"]
        for name, one in found["webhooks"].items():
            if name in self._retraining:
                self._retraining[name].restore(one)
