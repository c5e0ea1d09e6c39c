"""The units that ship: the configuration they run is valid, and they agree with it and with each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_ml import semconv
from otel_ml_collector import cli
from otel_ml_collector.config import Config, parse
from otel_ml_collector.scrape import prometheus_name
from otel_ml_collector.settings import HealthCheck, Prometheus

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "collector" / "deploy"
CONFIG = DEPLOY / "collector.yaml"
UNIT = DEPLOY / "systemd" / "otel-ml-collector.service"
DOCKERFILE = DEPLOY / "Dockerfile"
EXPOSURE = 1.5
"""The most that the unit may have, as `systemd-analyze security` counts it: 0 is shut in, 10 is exposed."""
GIB = 1024

systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: apt-get install systemd"
)


def config(**environ: str) -> Config:
    return parse(CONFIG.read_text(), source=CONFIG.name, environ=environ)


def ports() -> dict[str, int]:
    """The ports that the configuration listens on."""
    read = config()
    (receiver,) = read.receivers.values()
    assert receiver.protocols.grpc is not None
    assert receiver.protocols.http is not None
    assert read.telemetry is not None
    (health,) = [one for one in read.extensions.values() if isinstance(one, HealthCheck)]
    (drift,) = [one for one in read.exporters.values() if isinstance(one, Prometheus)]
    return {
        "otlp-grpc": receiver.protocols.grpc.endpoint.port, "otlp-http": receiver.protocols.http.endpoint.port,
        "drift": drift.endpoint.port, "own-metrics": read.telemetry.port, "health": health.endpoint.port,
    }  # fmt: skip


def test_the_configuration_listens_where_it_is_told() -> None:
    """On this machine unless the environment says otherwise."""
    for listen, host in (
        (None, "localhost"), ("0.0.0.0", "0.0.0.0"), ("[10.0.0.7]", "10.0.0.7"), ("[fd00::7]", "fd00::7"),
    ):  # fmt: skip
        environ = {} if listen is None else {"OTEL_ML_LISTEN": listen}
        (receiver,) = config(**environ).receivers.values()
        assert receiver.protocols.grpc is not None
        assert receiver.protocols.grpc.endpoint.host == host


@pytest.mark.parametrize("page", ["docs/operations.md", "collector/README.md"])
def test_pages_name_metrics_that_there_are(page: str) -> None:
    """As the page to scrape spells them."""
    declared = [value for value in vars(semconv).values() if isinstance(value, semconv.Metric)]
    known = {prometheus_name(one) + ("_total" if one.kind == "counter" else "") for one in declared}
    named = set(re.findall(r"\b(?:otelcol|otel_ml)_[a-z_]+\b", (ROOT / page).read_text()))
    assert len(named) > 5
    assert {one for one in named if not one.startswith("otel_ml_collector")} - known - {"otelcol_"} == set()


# --- systemd ----------------------------------------------------------------------------------------------


def unit() -> dict[str, list[str]]:
    """Values by key."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a program that is there."""
    program = Path(sys.executable).with_name("otel-ml-collector")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/otel-ml/bin/otel-ml-collector", str(program)))
    return copy


@systemd
def test_systemd_has_nothing_against_the_unit(installed: Path) -> None:
    """`systemd-analyze verify` is silent."""
    command = ["systemd-analyze", "verify", "--man=no", str(installed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@systemd
def test_the_unit_is_shut_in(installed: Path) -> None:
    """`systemd-analyze security` says so; newer releases look at more."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(installed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE


def test_the_unit_knows_what_the_service_does() -> None:
    """It hears when it is ready, waits for the stop, reloads by SIGHUP, and has more memory than the limiter."""
    keys = unit()
    (memory,), (stop,), (state,) = keys["MemoryMax"], keys["TimeoutStopSec"], keys["StateDirectory"]
    limiter = config().memory
    assert limiter is not None
    assert keys["Type"] == ["notify"]
    assert keys["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert float(stop.removesuffix("s")) > cli.GRACE
    assert memory == "1G"
    assert limiter.limit_mib < GIB
    assert f"/var/lib/{state}" in CONFIG.read_text()


# --- the image --------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile in order, continuation lines put together."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def values(word: str) -> list[str]:
    return [rest for one, rest in instructions() if one == word]


def test_the_image_has_what_it_copies() -> None:
    """Sources are in the repository, and the ignore file lets them through."""
    rules = [
        line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] != "#"
    ]
    copied = [rest.split()[:-1] for rest in values("COPY") if "--from" not in rest]
    sources = [source for line in copied for source in line]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in rules, source
    assert rules[0] == "*"
    kept = [rule for rule in rules if fnmatch("otel_ml/__pycache__", rule.replace("**/", "*"))]
    assert kept[-1] == "**/__pycache__"


def test_the_image_runs_as_nobody_in_particular() -> None:
    """Not as root, with a pinned base, without a shell between the runtime and the process."""
    assert re.fullmatch(r"PYTHON=\d+\.\d+\.\d+", values("ARG")[0])
    assert {one.split()[0] for one in values("FROM")} == {"python:${PYTHON}-slim-bookworm"}
    assert values("USER") == ["10001:10001"]
    command = json.loads(values("ENTRYPOINT")[0]) + json.loads(values("CMD")[0])
    assert command == ["otel-ml-collector", "--config", "/etc/otel-ml/collector.yaml"]
    assert any(rest.endswith(" /etc/otel-ml/collector.yaml") for rest in values("COPY"))


def test_the_image_exposes_the_ports_and_asks_for_health() -> None:
    """Those of the configuration; the health check is a command there is, which asks the port by default."""
    assert sorted(map(int, values("EXPOSE")[0].split())) == sorted(ports().values())
    (check,) = values("HEALTHCHECK")
    assert json.loads(check.partition("CMD ")[2]) == ["otel-ml-collector", "health"]
    assert f"http://localhost:{ports()['health']}/" == cli.HEALTH


# --- Kubernetes -------------------------------------------------------------------------------------------

MANIFEST = {
    one["kind"]: one
    for one in yaml.safe_load_all((DEPLOY / "kubernetes" / "otel-ml-collector.yaml").read_text())
}
POD: dict[str, Any] = MANIFEST["StatefulSet"]["spec"]["template"]
CONTAINER: dict[str, Any] = POD["spec"]["containers"][0]


def test_the_config_map_is_the_configuration() -> None:
    """The one beside it, word for word."""
    assert MANIFEST["ConfigMap"]["data"] == {"collector.yaml": CONFIG.read_text()}


def test_ports_agree() -> None:
    """Container, Service, probes and NetworkPolicy name the ports of the configuration."""
    named = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert named == ports()
    for port in MANIFEST["Service"]["spec"]["ports"]:
        assert named[port["targetPort"]] == port["port"]
    probes = [CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert [(one["path"], one["port"]) for one in probes] == [
        ("/", "health"),
        ("/", "health"),
        ("/livez", "health"),
    ]
    allowed = [
        port["port"] for rule in MANIFEST["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]
    ]
    assert sorted(allowed) == sorted(named)


def test_a_pod_listens_on_its_own_address() -> None:
    """Of either family: in brackets, which the configuration takes for both."""
    env = {one["name"]: one for one in CONTAINER["env"]}
    assert list(env)[:2] == ["POD_IP", "OTEL_ML_LISTEN"]  # only what comes before can be referred to
    assert env["POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert env["OTEL_ML_LISTEN"]["value"] == "[$(POD_IP)]"


def test_selectors_find_the_pod() -> None:
    """Of the StatefulSet, the Service, the budget and the policy; and names of accounts and maps are there."""
    spec = MANIFEST["StatefulSet"]["spec"]
    selectors = [
        spec["selector"]["matchLabels"],
        MANIFEST["Service"]["spec"]["selector"],
        MANIFEST["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        MANIFEST["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= POD["metadata"]["labels"].items()
    assert spec["serviceName"] == MANIFEST["Service"]["metadata"]["name"]
    assert POD["spec"]["serviceAccountName"] == MANIFEST["ServiceAccount"]["metadata"]["name"]
    assert POD["spec"]["volumes"][0]["configMap"]["name"] == MANIFEST["ConfigMap"]["metadata"]["name"]
    assert spec["replicas"] == 1


def test_mounts_are_where_the_service_looks() -> None:
    """The configuration, the state, and a place for files of the moment."""
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    claims = [claim["metadata"]["name"] for claim in MANIFEST["StatefulSet"]["spec"]["volumeClaimTemplates"]]
    assert sorted(mounts) == sorted([volume["name"] for volume in POD["spec"]["volumes"]] + claims)
    assert CONTAINER["args"] == ["--config", f"{mounts['config']}/collector.yaml"]
    assert f"STATE_DIRECTORY:-{mounts['state']}}}" in CONFIG.read_text()


def test_the_pod_has_no_more_rights_than_it_needs() -> None:
    """The restricted standard, a read-only root, no token, and memory above the limiter's."""
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert MANIFEST["ServiceAccount"]["automountServiceAccountToken"] is False
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert POD["spec"]["securityContext"]["runAsUser"] == int(values("USER")[0].partition(":")[0])
    assert POD["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert CONTAINER["resources"]["limits"] == {"memory": "1Gi"}
    assert POD["spec"]["terminationGracePeriodSeconds"] > cli.GRACE
