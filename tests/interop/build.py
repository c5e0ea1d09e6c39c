"""The OpenTelemetry Collector, built from Go modules with the Collector's own builder, once.

    cd tests && python -m interop.build core full

Each manifest in manifests/ is one build. What is built stays in `$XDG_CACHE_HOME/otel-ml` (`~/.cache/otel-ml`) until
its manifest, the builder or Go is another.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

BUILDER = "go.opentelemetry.io/collector/cmd/builder", "v0.161.0"
MANIFESTS = Path(__file__).with_name("manifests")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-ml"


def collector(name: str) -> Path:
    """The Collector of the manifest `name`, if it is built. If not, the test is skipped.

    It fails instead where the build belongs to the run: `core` on CI (`CI=true`), all of them in `make interop`
    (`INTEROP=all`). Only there are any others but `core` used: their tests take minutes.
    """
    everything = os.environ.get("INTEROP") == "all"
    if name != "core" and not everything:
        pytest.skip("takes minutes; run it with: make interop")
    missing = _missing(name)
    if missing is None:
        return _binary(name)
    if everything or os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


def build(name: str) -> Path:
    """The Collector of the manifest `name`; built when it is not there, which takes minutes."""
    binary = _binary(name)
    if not binary.exists():
        print(f"building the OpenTelemetry Collector of manifests/{name}.yaml, once: minutes", flush=True)
        builder = install(*BUILDER)
        with tempfile.TemporaryDirectory(prefix="otelcol-") as directory:
            manifest = yaml.safe_load(_manifest(name).read_text())
            manifest["dist"]["output_path"] = directory
            config = Path(directory) / "manifest.yaml"
            config.write_text(yaml.safe_dump(manifest))
            subprocess.run([builder, "--config", str(config)], env=_environment(), check=True)
            _keep(Path(directory) / manifest["dist"]["name"], binary)
    return binary


def install(package: str, version: str) -> Path:
    """The program of a Go package, as `go install` makes it."""
    program = CACHE / f"{package.rpartition('/')[2]}-{version}-{_go_version()}"
    if not program.exists():
        with tempfile.TemporaryDirectory(prefix="go-install-") as directory:
            environment = {**_environment(), "GOBIN": directory}
            subprocess.run(["go", "install", f"{package}@{version}"], env=environment, check=True)
            _keep(next(Path(directory).iterdir()), program)
    return program


def _missing(name: str) -> str | None:
    """What is to be done before the Collector of the manifest `name` can be run; None when it can."""
    if shutil.which("go") is None:
        return "Go is not installed: https://go.dev/dl or apt-get install golang-go; then: make interop"
    if not _binary(name).exists():
        return (
            f"the OpenTelemetry Collector of manifests/{name}.yaml is not built; build it with: make interop"
        )
    return None


def _manifest(name: str) -> Path:
    return MANIFESTS / f"{name}.yaml"


def _binary(name: str) -> Path:
    made_of = f"{_manifest(name).read_text()}\n{BUILDER}\n{_go_version()}"
    return CACHE / f"otelcol-{name}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"


def _keep(made: Path, place: Path) -> None:
    """Move what was made to its place, whole: two runs may build at the same time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f"{place.name}.{os.getpid()}")
    shutil.copy2(made, beside)
    beside.replace(place)


def _environment() -> dict[str, str]:
    """A module that a proxy lacks is an error at once, and no clone of its repository."""
    return {**os.environ, "GOPROXY": _go_env("GOPROXY").removesuffix(",direct"), "CGO_ENABLED": "0"}


@functools.cache
def _go_env(name: str) -> str:
    return subprocess.run(["go", "env", name], capture_output=True, text=True, check=True).stdout.strip()


def _go_version() -> str:
    return _go_env("GOVERSION")


if __name__ == "__main__":
    if shutil.which("go") is None:
        sys.exit("Go is not installed: https://go.dev/dl or apt-get install golang-go")
    try:
        for _name in sys.argv[1:]:
            print(build(_name), flush=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"not built: {error}")
