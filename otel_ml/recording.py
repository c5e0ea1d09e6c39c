"""How the calls of a model are recorded: what its owner chooses, once, for every operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from . import sampling
from .errors import ConfigurationError
from .events import Redact, check_content
from .model import Model
from .sampling.decision import usable

SpanMode = Literal["all", "sampled", "off"]
SPAN_MODES = ("all", "sampled", "off")


@dataclass(frozen=True, slots=True)
class Recording:
    """Which calls get a span, which rows an event, and what an event may hold.

    Raises `ConfigurationError` on a value that cannot be right.
    """

    spans: SpanMode = "all"
    """"all" makes a span that is current during the call, "sampled" one after it, when its score is known, for the
    calls of which a row is kept (all when there is no sampler), "off" none."""
    sampler: sampling.SamplerLike | None = None
    """Which rows are kept as events; None: none is."""
    capture_features: Sequence[str] = ()
    """Features whose values events carry."""
    redact: Redact | None = None
    """Sees those values before they leave and returns what may."""

    def __post_init__(self) -> None:
        if self.spans not in SPAN_MODES:
            raise ConfigurationError(f"spans={self.spans!r} is not known; use one of {', '.join(SPAN_MODES)}")
        if self.sampler is not None:
            usable("sampler=", self.sampler)
        object.__setattr__(self, "capture_features", check_content(self.capture_features, self.redact))

    @property
    def measure(self) -> str:
        """The measure of uncertainty that events record: the sampler's, if it has one."""
        return getattr(self.sampler, "measure", None) or "margin"

    def check(self, model: Model) -> None:
        """`ConfigurationError` when the sampler can say nothing about `model`."""
        if self.sampler is not None:
            sampling.check(self.sampler, model)
