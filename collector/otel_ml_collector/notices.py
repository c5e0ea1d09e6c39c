"""What an engine has to say to people: each thing once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 1000
"""Things that are said at most, so that hostile names cannot fill the memory."""

SHARED_IDENTITY = (
    "two senders of service {service!r} share one identity, so that their counts cannot be told apart; "
    "give every process a service.instance.id of its own (seen in {metric} of model {model!r})"
)
RELAID = (
    "{metric} of model {model!r} came on other bounds without a new start time, and what was counted before "
    "cannot be said on them: one interval of it is not counted (reset); senders that change their bounds "
    "have to start the series anew"
)
FOREIGN = (
    "{target} of model {model!r} is counted on other bounds than its baseline's: it is compared on the nearest "
    "ones, which is not exact; give the service the same baseline, or at least the collector its file (without "
    "drift PSI is then within 0.002 and KS within 0.003; from the wire alone within 0.05, where values have gaps)"
)
DELTA_BASELINE = (
    "the baseline of model {model!r} arrives as delta and cannot be used: a cumulative-to-delta processor "
    "stands in front of this collector. Leave the baseline out of it: "
    "processors: {{cumulativetodelta: {{exclude: {{match_type: regexp, metrics: ['ml\\.baseline\\..*']}}}}}}"
)
FAILED = "the comparison of {target} failed: {error}"


class Notices:
    """What was said, and what waits to be fetched."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()
        self._waiting: list[str] = []

    def say(self, text: str, *, once: str = "", **values: str) -> None:
        """Say `text` with these values, unless it was said with them, or for `once`, before."""
        key = (text, once or repr(sorted(values.items())))
        if key not in self._said and len(self._said) < MOST:
            self._said.add(key)
            self._waiting.append(text.format(**values))

    def take(self) -> list[str]:
        """What was not fetched yet."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def state(self) -> dict[str, object]:
        """For `restore`."""
        return {"said": sorted(self._said), "waiting": self._waiting}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as when `state` was taken."""
        self._said, self._waiting = set(state["said"]), state["waiting"]
