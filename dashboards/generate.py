"""Writes grafana/model.json, the Grafana dashboard for one model.

    python dashboards/generate.py           write it
    python dashboards/generate.py --check   exit 1 when the file is not what this script would write

Names come from `otel_ml.semconv` by way of `_promql`; `_panels` says what is shown, `_grafana` how it looks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import _promql as q
from _grafana import DATASOURCE, Json, Panel
from _panels import SECTIONS

OUTPUT = Path(__file__).parent / "grafana" / "model.json"
UID = "otel-ml-model"
SCHEMA_VERSION = 39
"""The oldest schema that has everything used here: newer Grafana releases migrate upwards on load."""
COLUMNS = 24


def layout() -> list[Json]:
    """All panels, left to right and then down, each section under its heading."""
    laid: list[Json] = []
    y = 0
    for index, (title, panels) in enumerate(SECTIONS.items()):
        if title:
            laid.append(heading(100 + index, title, y))
            y += 1
        y = _place(panels(), y, laid)
    return laid


def heading(id: int, title: str, y: int) -> Json:
    """A collapsible heading across the page."""
    grid = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
    return {"collapsed": False, "gridPos": grid, "id": id, "panels": [], "title": title, "type": "row"}


def _place(panels: Sequence[Panel], y: int, laid: list[Json]) -> int:
    """Append the panels to `laid` from line `y` on; the first line below them."""
    x = bottom = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y = 0, bottom
        laid.append(panel.to_json(x, y))
        x, bottom = x + panel.width, y + panel.height
    return bottom


def variable(name: str, title: str, query: str, **settings: object) -> Json:
    """A variable whose values come from Prometheus."""
    return {
        "datasource": DATASOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": False,
        "label": title,
        "multi": False,
        "name": name,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "type": "query",
        **settings,
    }


def role() -> Json:
    """Live, shadow or canary: one of them, for their numbers do not add up."""
    names = [one.partition(" : ")[::2] for one in q.roles().split(", ")]
    options = [{"selected": not at, "text": text, "value": value} for at, (text, value) in enumerate(names)]
    return {
        "current": options[0],
        "hide": 0,
        "includeAll": False,
        "label": "Role",
        "multi": False,
        "name": "role",
        "options": options,
        "query": q.roles(),
        "type": "custom",
    }


def variables() -> list[Json]:
    """What the reader chooses; each list depends on the choices before it."""
    everything = {"allValue": ".*", "current": {"text": "All", "value": "$__all"}, "includeAll": True}
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
    }
    model = f'{q.MODEL}="$model"'
    return [
        source,
        variable("service", "Service", q.services(), regex='/service="([^"]+)"/', **everything),
        variable("model", "Model", f"label_values({q.any_model()}, {q.MODEL})"),
        variable("version", "Version", f"label_values({q.any_model(model)}, {q.VERSION})", sort=4),
        variable(
            "variant",
            "Variant",
            f"label_values({q.any_model(model)}, {q.VARIANT})",
            **everything,
        ),
        role(),
        variable("feature", "Feature", q.features(), **{**everything, "multi": True}),
    ]


def dashboard() -> Json:
    """The whole dashboard as Grafana imports it."""
    return {
        "annotations": {"list": []},
        "description": "One model: traffic, scores, and drift against its training baseline.",
        "editable": True,
        "graphTooltip": 1,
        "id": None,
        "links": [],
        "panels": layout(),
        "refresh": "1m",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["otel-ml", "machine-learning"],
        "templating": {"list": variables()},
        "time": {"from": "now-24h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": "Model",
        "uid": UID,
        "version": 1,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the dashboard, or with --check compare; the exit code."""
    parser = argparse.ArgumentParser(description="Writes the Grafana dashboard for one model.")
    parser.add_argument("--check", action="store_true", help="only compare, exit 1 when the file is stale")
    check = parser.parse_args(arguments).check
    text = json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"
    if not check:
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(text, encoding="utf-8")
    elif not OUTPUT.exists() or OUTPUT.read_text(encoding="utf-8") != text:
        print(f"{OUTPUT} is stale; write it again with: python {sys.argv[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
