"""How tests read what came out of a reader."""

from __future__ import annotations

from typing import Any

Points = dict[str, list[Any]]


def by_name(data: Any) -> Points:
    """Data points by metric name."""
    points: Points = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points.setdefault(metric.name, []).extend(metric.data.data_points)
    return points


def select(points: list[Any], **attributes: str) -> list[Any]:
    """The points that carry these attributes; write dots as two underscores."""
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}
    return [p for p in points if all(p.attributes.get(key) == value for key, value in wanted.items())]
