"""How the calls of a model are recorded: what its owner chooses, once, for every operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from . import sampling
from .errors import ConfigurationError
from .events import Redact, check_content
from .model import Model
from .sampling.decision import check, usable

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
            check(self.sampler, model)

    def check_captured(self, model: Model) -> None:
        """`ConfigurationError` when an event is to carry a feature that `model`, as it is configured, cannot have.

        Says nothing of a model of which no column is known. A column that is no feature can be captured when the
        baseline or the segment names it.
        """
        columns = () if model.baseline is None else model.baseline.columns
        known = [*columns, *(model.feature_names or ())]
        if model.segment is not None and isinstance(model.segment.by, str):
            known.append(model.segment.by)
        for name in self.capture_features if columns or model.feature_names else ():
            if name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, known[:10]))}"
                raise ConfigurationError(
                    f"capture_features names {name!r}, which model {model.name} does not have; {hint} (a column that "
                    f"is no feature can be captured when the baseline knows it: Baseline.fit(…, exclude=[{name!r}]))"
                )
