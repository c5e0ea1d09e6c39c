"""What is in dashboards/: the queries as a reader's browser would send them, and the names they use."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

DIRECTORY = Path(__file__).parents[2] / "dashboards"
MODEL = DIRECTORY / "grafana" / "model.json"
RULES = DIRECTORY / "prometheus" / "rules.yaml"


def load(name: str) -> ModuleType:
    """A module of dashboards/, which is a directory of scripts and no package."""
    spec = importlib.util.spec_from_file_location(name, DIRECTORY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dashboard() -> dict[str, Any]:
    """The Grafana dashboard for one model."""
    loaded: dict[str, Any] = json.loads(MODEL.read_text(encoding="utf-8"))
    return loaded


def rules() -> list[dict[str, Any]]:
    """Every recording and alerting rule, in order."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The alerting rules, in order."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard_queries(
    *,
    model: str = "churn",
    version: str = "3",
    service: str = ".*",
    variant: str = ".*",
    role: str = "|live",
    feature: str = ".*",
    rate_interval: str = "10s",
    range_: str = "1h",
) -> list[tuple[str, str]]:
    """(panel title, PromQL) of every query, with Grafana's variables filled in; `.*` is the choice All."""
    values = {
        "__rate_interval": rate_interval,
        "__range": range_,
        "model": model,
        "version": version,
        "service": service,
        "variant": variant,
        "role": role,
        "feature": feature,
    }
    return [
        (panel["title"], substitute(target["expr"], values))
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def substitute(expr: str, values: dict[str, str]) -> str:
    """`expr` with each `$name` replaced; a KeyError for a variable that has no value."""
    return re.sub(r"\$(?!\d)(\w+)", lambda match: values[match[1]], expr)


_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_WORDS = {"and", "or", "unless", "bool", "offset", "Inf", "NaN"}


def names(expr: str) -> tuple[set[str], set[str]]:
    """(metric names, label names) that a PromQL expression uses."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)
    labels = {label for group in _GROUPING.findall(bare) for label in re.findall(r"\w+", group)}
    labels |= {
        label for braces in re.findall(r"{([^}]*)}", bare) for label in re.findall(r"(\w+)\s*[=!]", braces)
    }
    rest = re.sub(r"{[^}]*}|\[[^]]*\]|offset \w+", " ", _GROUPING.sub(" ", bare))
    metrics = set(re.findall(r"(?<![\w.:])[a-zA-Z_][\w:]*(?![\w:]|\s*\()", rest)) - _WORDS
    return metrics, labels - {"__name__"}
