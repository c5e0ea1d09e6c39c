"""Backends written in Go, built from their modules, once.

    cd tests && python -m interop.programs

What is built stays in `$XDG_CACHE_HOME/otel-ml` (`~/.cache/otel-ml`) until its version or Go is another.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from interop.build import CACHE
from interop.prometheus import eventually


@dataclass(frozen=True, slots=True)
class Program:
    """A main package of a Go module."""

    name: str
    module: str
    version: str
    package: str
    tags: str = ""

    @property
    def path(self) -> Path:
        """Where it is once it is built."""
        go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True)
        return CACHE / f"{self.name}-{self.version}-{go.stdout.strip()}"


PROMETHEUS = Program(
    "prometheus", "github.com/prometheus/prometheus", "v0.315.0", "./cmd/prometheus", tags="remove_all_sd"
)
"""Prometheus 3.15; its modules say 0.315."""
JAEGER = Program("jaeger", "github.com/jaegertracing/jaeger", "v1.76.0", "./cmd/jaeger")
"""Jaeger 2.13; its modules go by the version of the last 1.x, which was released with it."""
VICTORIA_METRICS = Program(
    "victoria-metrics", "github.com/VictoriaMetrics/VictoriaMetrics", "v1.131.0", "./app/victoria-metrics"
)
VICTORIA_LOGS = Program(
    "victoria-logs", "github.com/VictoriaMetrics/VictoriaMetrics", "v1.121.0", "./app/victoria-logs"
)
"""Of the last releases that had it in one module with VictoriaMetrics: its own is not on every module proxy."""

FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w")
PROGRAMS = (PROMETHEUS, JAEGER, VICTORIA_METRICS, VICTORIA_LOGS)


def built(program: Program) -> Path:
    """The program. It is for `make interop` (`INTEROP=all`), where it is a failure that it is not built; else the test
    is skipped, for all of them take minutes."""
    if os.environ.get("INTEROP") != "all":
        pytest.skip("takes minutes; run it with: make interop")
    if shutil.which("go") is None:
        pytest.fail("Go is not installed: https://go.dev/dl or apt-get install golang-go; then: make interop")
    if not program.path.exists():
        pytest.fail(
            f"{program.name} {program.version} is not built; build it from Go modules with: make interop"
        )
    return program.path


def build(program: Program) -> Path:
    """The program; built when it is not there, which takes minutes.

    It is built where the module lies, as `go install` refuses modules that replace others.
    """
    if not program.path.exists():
        print(f"building {program.name} {program.version}, once: minutes", flush=True)
        module = f"{program.module}@{program.version}"
        downloaded = _go("mod", "download", "-json", module, cwd=Path.cwd())
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            made = Path(directory) / program.name
            where = Path(json.loads(downloaded)["Dir"])
            _go("build", *FLAGS, f"-tags={program.tags}", "-o", str(made), program.package, cwd=where)
            made.replace(program.path)
    return program.path


def _go(*arguments: str, cwd: Path) -> str:
    proxies = subprocess.run(["go", "env", "GOPROXY"], capture_output=True, text=True, check=True).stdout
    # a module that a proxy lacks is an error at once, and no clone of its repository
    environment = {**os.environ, "GOPROXY": proxies.strip().removesuffix(",direct"), "GOWORK": "off"}
    done = subprocess.run(["go", *arguments], cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"go {' '.join(arguments)} failed: {done.stdout}")
    return done.stdout


@contextmanager
def running(command: list[str], *, ready: str, log: Path) -> Iterator[None]:
    """A program that runs while the `with` lasts, from when `ready`, a URL, answers with success."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        eventually(lambda: process.poll() is not None or answers(ready), what=f"{ready} answers")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(request: str | Request) -> bool:
    """Whether somebody answers this request with success."""
    try:
        with urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    if shutil.which("go") is None:
        sys.exit("Go is not installed: https://go.dev/dl or apt-get install golang-go")
    for _program in PROGRAMS:
        print(build(_program))
