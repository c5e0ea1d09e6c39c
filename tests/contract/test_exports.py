"""What is public, and which way imports point."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import otel_ml

ROOT = Path(otel_ml.__file__).parents[1]
SDK = sorted((ROOT / "otel_ml").rglob("*.py"))
COLLECTOR = sorted((ROOT / "collector" / "otel_ml_collector").rglob("*.py"))
SHARED = {"semconv", "errors", "binning", "histogram", "baseline", "summary", "_version"}
FLOORS = [
    ["errors", "semconv", "_version", "_spare", "uncertainty"],
    [
        "config",
        "_guard",
        "ids",
        "binning",
        "histogram",
        "columns",
        "_frames",
        "reservoir",
        "datafile",
        "ending",
        "forking",
        "identity",
    ],
    ["summary"],
    ["training", "fitting", "running", "batches", "untrusted", "baseline_file", "baseline"],
    ["model", "variants", "segment"],
    ["rows", "prediction", "sketches", "kernel", "snapshot"],
    ["projection"],
    [
        "tally",
        "feature",
        "segmentation",
        "wire",
        "telemetry",
        "truths",
        "capture",
        "sampling",
        "events",
        "readers",
    ],
    ["producer"],
    ["console", "pipeline", "_memory"],
    ["recording", "library"],
    ["observer"],
    ["registry", "patch", "wrap", "feedback", "testing"],
    ["instrument"],
    ["cli"],
]
"""The floors of the SDK, from the ground up: a module imports from its own floor and those below."""


def imports(path: Path) -> set[str]:
    """Modules that a file imports, with relative ones made absolute; those for type checkers only left out."""
    package = path.relative_to(ROOT).with_suffix("").parts
    tree = ast.parse(path.read_text())
    hidden = {
        inner for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" for inner in ast.walk(node)
    }  # fmt: skip
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def part(module: str) -> str:
    """`otel_ml.cli.demo.run` → `cli`."""
    return module.split(".")[1]


def test_all_names_what_is_public() -> None:
    """`__all__` is sorted and holds just the public names of the package."""
    modules = {path.stem for path in SDK} | {"instrument", "cli"}
    public = {name for name in vars(otel_ml) if not name.startswith("_") and name not in modules}
    functions = {
        "feedback",
        "instrument",
        "register",
        "observe",
    }  # share their name with a module or are re-exported from one
    assert set(otel_ml.__all__) == public | functions | {"__version__"}
    assert otel_ml.__all__ == sorted(otel_ml.__all__)


def test_samplers_are_public_and_what_they_are_made_of_is_not() -> None:
    """`sampling.__all__` is sorted and holds the names that its page uses, none of the inner ones."""
    modules = {path.stem for path in SDK if path.parent.name == "sampling"}
    public = {name for name in vars(otel_ml.sampling) if not name.startswith("_") and name not in modules}
    assert set(otel_ml.sampling.__all__) == public
    assert otel_ml.sampling.__all__ == sorted(otel_ml.sampling.__all__)
    inner = {"COIN", "Coin", "Kept", "check", "decided", "keep", "override", "select"}
    assert inner & public == set()


def test_sdk_never_imports_the_collector() -> None:
    """Dependencies point one way."""
    offenders = {
        path.name
        for path in SDK
        if "cli" not in path.parts
        for m in imports(path)
        if "otel_ml_collector" in m
    }
    assert offenders == set()


def test_collector_imports_only_the_shared_ground() -> None:
    """The collector uses names, errors, binning, histograms and baselines of the SDK, nothing else of it."""
    used = {part(m) for path in COLLECTOR for m in imports(path) if m.startswith("otel_ml.")}
    assert used - SHARED == set()


@pytest.mark.parametrize("path", SDK, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_downwards(path: Path) -> None:
    """Each module of the SDK stands on a floor and imports nothing from above."""
    own = path.relative_to(ROOT / "otel_ml").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    level = {module: i for i, floor in enumerate(FLOORS) for module in floor}
    assert own in level, f"{own} stands on no floor"
    above = {m for m in imports(path) if m.startswith("otel_ml.") and level.get(part(m), 0) > level[own]}
    assert above == set()


def test_import_is_light() -> None:
    """`import otel_ml` loads no scipy, scikit-learn, grpc, pandas, narwhals, typer or collector."""
    program = "import otel_ml, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {
        "scipy",
        "sklearn",
        "grpc",
        "pandas",
        "narwhals",
        "typer",
        "rich",
        "otel_ml_collector",
        "prometheus_client",
    }
    assert heavy & set(done.stdout.split()) == set()


def test_version_is_that_of_the_distribution() -> None:
    """The version in the code is the one that pip knows."""
    assert otel_ml.__version__ == version("otel-ml")


def test_entry_points_load() -> None:
    """The hooks of opentelemetry-instrument and the two commands are there."""
    wanted = {
        "opentelemetry_instrumentor": "otel_ml_sklearn",
        "opentelemetry_post_instrument": "otel_ml",
        "console_scripts": "otel-ml",
    }
    for group, name in wanted.items():
        (entry,) = entry_points(group=group, name=name)
        assert callable(entry.load())


def test_no_name_is_spelled_out_twice() -> None:
    """Telemetry names stand in semconv.py alone."""
    spelled = [
        (path.name, node.lineno, node.value)
        for path in [*SDK, *COLLECTOR] if path.name != "semconv.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(("ml.", "otel_ml."))
        and " " not in node.value and not node.value.endswith(".")
    ]  # fmt: skip
    assert spelled == []
