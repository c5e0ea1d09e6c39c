"""What the collector's scrape page says of each feature."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from .. import semconv


@dataclass(slots=True)
class Verdict:
    """The latest numbers of one target; None where nothing was said yet."""

    psi: float | None = None
    ks: float | None = None
    missing: float | None = None
    status: int | None = None
    reason: str = ""
    rows: int = 0
    bins: dict[str, list[float]] = field(default_factory=dict)
    """Shares of the cells by side, in order; only for targets that are not ok."""


def read(url: str) -> dict[str, Verdict]:
    """Verdicts by feature; the score and the prediction stand under those words."""
    with urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    verdicts: dict[str, Verdict] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            target = sample.labels.get(_label(semconv.DRIFT_TARGET))
            if target is not None:
                name = sample.labels.get(_label(semconv.FEATURE_NAME)) or target
                _note(verdicts.setdefault(name, Verdict()), sample.name, sample.labels, sample.value)
    return verdicts


def _note(verdict: Verdict, name: str, labels: dict[str, str], value: float) -> None:
    if name == _label(semconv.DRIFT_PSI.name):
        verdict.psi = value
    elif name == _label(semconv.DRIFT_KS.name):
        verdict.ks = value
    elif name == _label(semconv.DRIFT_STATUS.name):
        verdict.status = int(value)
    elif name == _label(semconv.DRIFT_WINDOW_ROWS.name):
        verdict.rows = int(value)
    elif name == _label(semconv.DRIFT_REASON.name):
        verdict.reason = labels[_label(semconv.DRIFT_REASON_CODE)]
    elif (
        name == _label(semconv.DRIFT_STATE_SHARE.name) and labels[_label(semconv.FEATURE_STATE)] == "missing"
    ):
        verdict.missing = value
    elif name == _label(semconv.DRIFT_BIN_SHARE.name):
        verdict.bins.setdefault(labels[_label(semconv.DRIFT_SIDE)], []).append(value)


def _label(name: str) -> str:
    return name.replace(".", "_")
