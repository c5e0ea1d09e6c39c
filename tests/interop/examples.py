"""The configurations in collector/examples, moved to ports that are free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from interop.otelcol import free_ports

NAMED = r"(?:localhost|0\.0\.0\.0):(\d+)"
EXAMPLES = Path(__file__).parents[2] / "collector" / "examples"


def ported(ports: Mapping[int, int], text: str) -> str:
    """The configuration with these ports in place of those it names, all on 127.0.0.1."""
    return re.sub(NAMED, lambda found: f"127.0.0.1:{ports[int(found[1])]}", text)


def ports_for(*texts: str) -> dict[int, int]:
    """A free port for each that the configurations name."""
    named = sorted({int(port) for text in texts for port in re.findall(NAMED, text)})
    return dict(zip(named, free_ports(len(named)), strict=True))


def pair(name: str) -> tuple[str, str]:
    """The texts of an example: that of the OpenTelemetry Collector, and that of otel-ml-collector."""
    directory = EXAMPLES / name
    if (pod := directory / "pod.yaml").exists():
        config, *_ = yaml.safe_load_all(pod.read_text())
        return config["data"]["collector.yaml"], config["data"]["otel-ml-collector.yaml"]
    return (directory / "collector.yaml").read_text(), (directory / "otel-ml-collector.yaml").read_text()
