"""A real Prometheus server for tests.

with Prometheus(["127.0.0.1:9464"]) as prometheus:
    prometheus.query("up")
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

T = TypeVar("T")


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`. Missing: the test is skipped, on CI (`CI=true`) it fails."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed; install it with: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


def eventually(ask: Callable[[], T | None], *, what: str, timeout: float = 30.0) -> T:
    """The first answer that is not None, False or empty; after `timeout` seconds an error naming `what`."""
    deadline = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}; last answer: {answer!r}"
        time.sleep(0.1)  # the other side is a program with a clock of its own


class Prometheus:
    """A Prometheus that scrapes `targets` (host:port, path /metrics) once a second while the `with` lasts.

    The targets are those of the scrape job `job`; further jobs come as `jobs`, name to targets. `rules` are
    rule files, evaluated once a second. Data lives in a temporary directory. `executable` is the program, if not the
    one that is installed; `flags` are further ones of its command line, `config` further sections of its file.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        job: str = "otel-ml",
        jobs: Mapping[str, Sequence[str]] | None = None,
        rules: Sequence[Path] = (),
        executable: Path | None = None,
        flags: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._executable, self._flags, self._config = executable, flags, config or {}
        self._jobs = {job: targets, **(jobs or {})}
        self._rules = rules
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        executable = str(self._executable or program("prometheus"))
        self._directory = tempfile.TemporaryDirectory(prefix="prometheus-")
        self._home = Path(self._directory.name)
        (self._home / "prometheus.yml").write_text(yaml.safe_dump(self._configuration()))
        try:
            self._start(executable, _free_port())
            eventually(self._ready, what="Prometheus is ready")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector of `expr` now: dicts with `metric` (labels) and `value` ([time, text])."""
        data = self._get("query", query=expr)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        vector: list[dict[str, Any]] = data["result"]
        return vector

    def query_range(self, expr: str, *, seconds: float = 60, step: float = 1) -> list[dict[str, Any]]:
        """Series of `expr` over the last `seconds`: dicts with `metric` and `values` [[time, text], …]."""
        end = time.time()
        data = self._get("query_range", query=expr, start=end - seconds, end=end, step=step)
        matrix: list[dict[str, Any]] = data["result"]
        return matrix

    def series(self, *selectors: str) -> list[dict[str, str]]:
        """Labels, `__name__` included, of every series that one of `selectors` matches."""
        found: list[dict[str, str]] = self._get("series", **{"match[]": list(selectors)})
        return found

    def exemplars(self, expr: str, *, seconds: float = 300) -> list[dict[str, Any]]:
        """Exemplars of the series that `expr` uses: dicts with `seriesLabels` and `exemplars`."""
        end = time.time()
        found: list[dict[str, Any]] = self._get("query_exemplars", query=expr, start=end - seconds, end=end)
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts that are pending or firing, from the rule files."""
        alerts: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return alerts

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health and last error."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _configuration(self) -> dict[str, Any]:
        return {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path.resolve()) for path in self._rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(targets)}]}
                for job, targets in self._jobs.items()
            ],
            **self._config,
        }

    def _start(self, executable: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        arguments = {
            "config.file": self._home / "prometheus.yml",
            "storage.tsdb.path": self._home / "data",
            "web.listen-address": f"127.0.0.1:{port}",
            "log.level": "warn",
        }
        with (self._home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [executable, *(f"--{name}={value}" for name, value in arguments.items()), *self._flags],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(
                f"Prometheus ended with {self._process.returncode}: {(self._home / 'log').read_text()}"
            )
        try:
            with urlopen(f"{self.url}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except (URLError, ConnectionError):
            return False

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._directory.cleanup()

    def _get(self, endpoint: str, **parameters: object) -> Any:
        body = urlencode(parameters, doseq=True)
        try:
            with urlopen(f"{self.url}/api/v1/{endpoint}?{body}", timeout=30) as response:
                return json.load(response)["data"]
        except URLError as error:
            answer = error.read().decode() if hasattr(error, "read") else str(error.reason)
            raise AssertionError(f"Prometheus refused {endpoint} {parameters}: {answer}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
