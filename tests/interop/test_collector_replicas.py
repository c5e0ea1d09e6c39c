"""Replicas of otel-ml-collector behind the load-balancing exporter of two OpenTelemetry Collectors.

The Collectors are those of collector/examples/two-tier. Replicas have addresses of their own in 127.0.0.0/8 and one
name, as with a headless Service. It stands in a hosts file that only the Collectors see, in a mount namespace.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from integration.collector import CUMULATIVE, DELTA, Collector, traffic
from integration.sink import Sink
from interop.examples import pair, ported, ports_for
from interop.otelcol import OpenTelemetryCollector, export, free_ports
from interop.prometheus import eventually
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_ml import semconv

SERVICES = [f"api-{i}" for i in range(12)]
PODS = 2
INTERVAL = 0.5
"""Seconds between the exports of a pod."""
ROWS = 100
"""Of each export."""
NAME = "replicas.test"
NEW = "127.0.0.9"
"""The replica that is added."""
QUICK = ("--set", "processors.ml_drift.interval=500ms", "--set", "processors.ml_drift.window.lateness=15s")


class Replica:
    """An otel-ml-collector of the example at an address of its own, with a backend of its own to tell it by."""

    def __init__(self, directory: Path, address: str, port: int) -> None:
        (directory / address).mkdir()
        text = pair("two-tier")[1].replace("0.0.0.0:13133", f"{address}:0")
        text = text.replace("${env:POD_IP:-localhost}:14317", f"{address}:{port}")
        self.address = address
        with ExitStack() as stack:
            self._sink = stack.enter_context(Sink(directory / address / "sink"))
            text = text.replace("${env:BACKEND}", self._sink.grpc_endpoint)
            self._collector = stack.enter_context(Collector(directory / address, text, *QUICK))
            self._stack = stack.pop_all()

    def kill(self) -> None:
        """End it without leave; its backend stays."""
        self._collector.stop(number=signal.SIGKILL)

    def close(self) -> None:
        """End it and its backend."""
        self._stack.close()

    def gauges(self, name: str) -> dict[str, float]:
        """By service: the last value of the gauge `name` of the feature."""
        return {
            attributes[semconv.MONITORED_SERVICE_NAME]: point.as_double
            for request in self._sink.metrics()
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.gauge.data_points
            for attributes in [{a.key: a.value.string_value for a in point.attributes}]
            if attributes.get(semconv.FEATURE_NAME) == "age"
        }

    def rows(self) -> dict[str, float]:
        """By service: rows of the window."""
        return self.gauges(semconv.DRIFT_WINDOW_ROWS.name)


class Pods:
    """Two pods of every service; each exports through a Collector of its own."""

    def __init__(self, temporality: int, ports: list[int]) -> None:
        self._temporality, self._ports = temporality, ports
        self._rng = np.random.default_rng(17)
        self._started = time.time_ns()
        self._last = dict.fromkeys(((s, p) for s in SERVICES for p in range(PODS)), self._started)
        self._counted = {pod: np.zeros(4, dtype=np.int64) for pod in self._last}
        self.sent = Counter[str]()

    def run(self, exports: int) -> None:
        """Let every pod export that often."""
        for _ in range(exports):
            for service, pod in self._last:
                export(self._ports[pod], self._request(service, pod))
            time.sleep(INTERVAL)  # the interval is the point

    def _request(self, service: str, pod: int) -> ExportMetricsServiceRequest:
        request = traffic()
        resource = request.resource_metrics[0]
        for attribute, value in zip(resource.resource.attributes, (service, f"{service}-{pod}"), strict=True):
            attribute.value.string_value = value
        counts = self._rng.multinomial(ROWS, [0.2, 0.3, 0.3, 0.2])
        self._counted[service, pod] += counts
        self.sent[service] += ROWS
        cumulative = self._temporality == CUMULATIVE
        histogram = resource.scope_metrics[0].metrics[0].histogram
        histogram.aggregation_temporality = self._temporality  # type: ignore[assignment]
        point = histogram.data_points[0]
        point.bucket_counts[:] = (self._counted[service, pod] if cumulative else counts).tolist()
        point.count = sum(point.bucket_counts)
        point.start_time_unix_nano = self._started if cumulative else self._last[service, pod]
        self._last[service, pod] = point.time_unix_nano
        return request


class Tiers:
    """Two Collectors that know the replicas by name, and one replica that gets everything, to compare with."""

    def __init__(self, hosts: Path, one: Replica, ports: list[int], directory: Path, port: int) -> None:
        self.one, self.ports = one, ports
        self._hosts, self._directory, self._port = hosts, directory, port
        self.replicas: dict[str, Replica] = {}
        self._gone: list[Replica] = []

    def add(self, *addresses: str) -> None:
        """Start replicas there, and give them the name."""
        for address in addresses:
            self.replicas[address] = Replica(self._directory, address, self._port)
        self._name()

    def kill(self, address: str) -> Replica:
        """End the replica there, and take the name from it."""
        gone = self.replicas.pop(address)
        gone.kill()
        self._gone.append(gone)
        self._name()
        return gone

    def close(self) -> None:
        """End all replicas."""
        for replica in (*self.replicas.values(), *self._gone):
            replica.close()

    def rows(self) -> dict[str, dict[str, float]]:
        """By service and address: rows of the window, of the replicas that run."""
        found: dict[str, dict[str, float]] = {}
        for address, replica in self.replicas.items():
            for service, rows in replica.rows().items():
                found.setdefault(service, {})[address] = rows
        return found

    def _name(self) -> None:
        lines = ["127.0.0.1 localhost", *(f"{address} {NAME}" for address in self.replicas)]
        self._hosts.write_text("\n".join(lines) + "\n")


@contextmanager
def tiers(executable: Path, directory: Path, addresses: list[str]) -> Iterator[Tiers]:
    """The first tier, with replicas at these addresses."""
    one_port, port = free_ports(2)
    hosts = directory / "hosts"
    with ExitStack() as stack:
        one = Replica(directory, "127.0.0.1", one_port)
        stack.callback(one.close)
        system = Tiers(hosts, one, [], directory, port)
        stack.callback(system.close)
        system.add(*addresses)
        for name in ("first", "second"):
            text = pair("two-tier")[0]
            ports = ports_for(text)
            config = yaml.safe_load(ported(ports, text))
            balanced = config["exporters"]["load_balancing"]
            balanced["resolver"]["dns"] = {"hostname": NAME, "port": str(port), "interval": "500ms"}
            config["processors"]["batch/drift"]["timeout"] = "100ms"
            config["exporters"]["otlp_grpc/one"] = {
                "endpoint": f"127.0.0.1:{one_port}",
                "tls": {"insecure": True},
            }
            config["service"]["pipelines"]["metrics"]["exporters"].append("otlp_grpc/one")
            otelcol = OpenTelemetryCollector(executable, directory / name, config, prefix=seeing(hosts))
            stack.enter_context(otelcol)
            system.ports.append(ports[4317])
        yield system


def seeing(hosts: Path) -> list[str]:
    """Words in front of a command that make `hosts` its /etc/hosts; skips where that needs rights we do not have."""
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    words = [*unshare, "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
    works = shutil.which("unshare") and subprocess.run([*words, "true"], check=False, capture_output=True)
    if not works or works.returncode != 0:
        pytest.skip("replicas need a mount namespace: run as root, or allow unprivileged user namespaces")
    return words


CASES = [("cumulative", 2), ("cumulative", 3), ("delta", 3)]


@pytest.mark.parametrize(("temporality", "replicas"), CASES)
def test_replicas_come_and_go(temporality: str, replicas: int, otelcol_full: Path, tmp_path: Path) -> None:
    """No row counts twice. What the one that ended had counted is lost of deltas, not of totals.

    Where a service moves to a replica that is new, the rows of one interval are missing at most.
    """
    addresses = [f"127.0.0.{2 + i}" for i in range(replicas)]
    with tiers(otelcol_full, tmp_path, addresses) as system:
        pods = Pods({"cumulative": CUMULATIVE, "delta": DELTA}[temporality], system.ports)
        pods.run(8)
        eventually(
            lambda: merged(system) == pods.sent, what="every row in one replica of each service", timeout=60
        )
        assert all(len(places) == 1 for places in system.rows().values())
        services = Counter(place for places in system.rows().values() for place in places)
        assert len(services) > 1
        eventually(lambda: system.one.rows() == pods.sent, what="every row in the one replica")
        for name in (semconv.DRIFT_PSI.name, semconv.DRIFT_KS.name):
            together = {s: v for replica in system.replicas.values() for s, v in replica.gauges(name).items()}
            assert together == system.one.gauges(name)

        held = system.kill(max(services, key=services.__getitem__)).rows()
        pods.run(16)
        system.add(NEW)
        pods.run(24)
        eventually(lambda: system.one.rows() == pods.sent, what="every row in the one replica", timeout=60)
        ended = held if temporality == "delta" else {}
        eventually(
            lambda: settled(system.rows(), lost(system, pods, ended)),
            what="all but an interval's rows of services that moved, and those that ended with the replica",
            timeout=60,
        )
        found, left = system.rows(), lost(system, pods, ended)
    print(f"\n{temporality}, {replicas} replicas, one killed and one added:")
    for service in SERVICES:
        had = f", {held[service]:.0f} with the one killed" if service in held else ""
        print(
            f"  {service}: sent {pods.sent[service]}, in {found[service]}{had}: {left[service]:.0f} missing"
        )
    assert min(left.values()) >= 0
    assert settled(found, left)
    assert any(NEW in places for places in found.values())


def merged(system: Tiers) -> dict[str, float]:
    """By service: rows of all replicas that run."""
    return {service: sum(places.values()) for service, places in system.rows().items()}


def settled(found: dict[str, dict[str, float]], left: dict[str, float]) -> bool:
    """Whether nothing is missing but the rows of one interval of services that are at the new replica now."""
    return all(rows <= (PODS * ROWS if NEW in found.get(s, ()) else 0) for s, rows in left.items())


def lost(system: Tiers, pods: Pods, ended: dict[str, float]) -> dict[str, float]:
    """By service: rows that no replica has, but for those that `ended` with one; below 0 if some count twice."""
    have = merged(system)
    return {s: sent - have.get(s, 0) - ended.get(s, 0) for s, sent in pods.sent.items()}
