"""The pieces of a Grafana dashboard: queries, panels, and how statuses and limits look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from _promql import FEATURE, TARGET

from otel_ml import semconv

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TARGET_LEGEND = f"{{{{{TARGET}}}}} {{{{{FEATURE}}}}}"
FEATURE_LEGEND = f"{{{{{FEATURE}}}}}"
COLORS = ("green", "yellow", "red")


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are shown."""

    expr: str
    legend: str = ""
    instant: bool = False
    format: Literal["time_series", "heatmap", "table"] = "time_series"

    def to_json(self, index: int) -> Json:
        """The query as a Grafana target; the first has refId A."""
        return {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "format": self.format,
            "instant": self.instant,
            "legendFormat": self.legend or "__auto",
            "range": not self.instant,
            "refId": chr(ord("A") + index),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. `id` is written out, so that links to a panel survive a change of order."""

    id: int
    title: str
    description: str
    kind: str
    queries: tuple[Query, ...]
    width: int
    height: int = 8
    unit: str = "short"
    defaults: Json = field(default_factory=dict)
    overrides: tuple[Json, ...] = ()
    options: Json = field(default_factory=dict)
    transformations: tuple[Json, ...] = ()

    def to_json(self, x: int, y: int) -> Json:
        """The panel as Grafana stores it, its upper left corner at (x, y) of the 24 column grid."""
        return {
            "datasource": DATASOURCE,
            "description": self.description,
            "fieldConfig": {
                "defaults": {"unit": self.unit, **self.defaults},
                "overrides": list(self.overrides),
            },
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "id": self.id,
            "options": self.options,
            "targets": [query.to_json(index) for index, query in enumerate(self.queries)],
            "title": self.title,
            "transformations": list(self.transformations),
            "type": self.kind,
        }


_LINES: Json = {"custom": {"drawStyle": "line", "fillOpacity": 0, "lineWidth": 1, "showPoints": "auto"}}
LIST_LEGEND: Json = {
    "legend": {"calcs": ["lastNotNull"], "displayMode": "table", "placement": "right", "showLegend": True,
               "sortBy": "Last *", "sortDesc": True},
    "tooltip": {"mode": "multi", "sort": "desc"},
}  # fmt: skip
SHORT_LEGEND: Json = {
    "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
    "tooltip": {"mode": "multi", "sort": "desc"},
}


def timeseries(*, legend: Json = SHORT_LEGEND, defaults: Json | None = None, **panel: Any) -> Panel:
    """A panel of lines."""
    return Panel(kind="timeseries", options=legend, defaults={**_LINES, **(defaults or {})}, **panel)


def stat(*, steps: Sequence[tuple[float | None, str]] = ((None, "blue"),), **panel: Any) -> Panel:
    """A panel with one number. `steps` are (from this value on, colour)."""
    options = {
        "colorMode": "value",
        "graphMode": "area",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value",
    }
    thresholds = {"mode": "absolute", "steps": [{"color": color, "value": value} for value, color in steps]}
    defaults = {"color": {"mode": "thresholds"}, "thresholds": thresholds, "noValue": "no data"}
    return Panel(kind="stat", width=4, height=4, options=options, defaults=defaults, **panel)


def override(matcher: str, options: str, **properties: Any) -> Json:
    """Properties for the fields that `matcher` (byName, byRegexp, byFrameRefID) finds."""
    return {
        "matcher": {"id": matcher, "options": options},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def limit_lines() -> tuple[Json, ...]:
    """Limits as dashed lines, in the colour of the status they lead to."""
    return tuple(
        override(
            "byName",
            f"limit: {status}",
            color={"fixedColor": color, "mode": "fixed"},
            custom__lineStyle={"dash": [10, 10], "fill": "dash"},
            custom__lineWidth=2,
        )
        for status, color in list(zip(semconv.STATUSES, COLORS, strict=True))[1:]
    )


def status_mapping() -> list[Json]:
    """The numbers of a status shown as words."""
    words = zip(semconv.STATUSES, COLORS, strict=True)
    options = {
        str(i): {"color": color, "index": i, "text": status} for i, (status, color) in enumerate(words)
    }
    return [{"type": "value", "options": options}]


def dashed(ref: str) -> Json:
    """Dashed lines for the series of one query."""
    return override("byFrameRefID", ref, custom__lineStyle={"dash": [4, 6], "fill": "dash"})
