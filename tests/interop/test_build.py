"""What the tests that need a built program say where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from interop import build


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Somebody's machine, where nothing is built."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("INTEROP", raising=False)
    monkeypatch.setattr(build, "CACHE", tmp_path)


def test_without_go_a_test_is_skipped_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what is missing, where to get it, and what to do then."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.skip.Exception, match=r"Go is not installed: https://go.dev/dl .*make interop"):
        build.collector("core")


def test_on_ci_a_missing_collector_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """But only the one that CI builds."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match="Go is not installed"):
        build.collector("core")
    with pytest.raises(pytest.skip.Exception, match="make interop"):
        build.collector("full")


def test_in_make_interop_every_missing_collector_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """`INTEROP=all` is what it sets."""
    monkeypatch.setenv("INTEROP", "all")
    monkeypatch.setenv("PATH", "")
    for name in ("core", "full"):
        with pytest.raises(pytest.fail.Exception, match="Go is not installed"):
            build.collector(name)


def test_the_full_collector_has_what_the_core_one_has() -> None:
    """In the same versions."""
    core, full = (
        {
            part["gomod"]
            for kind in ("receivers", "processors", "exporters", "extensions")
            for part in yaml.safe_load((build.MANIFESTS / f"{name}.yaml").read_text())[kind]
        }
        for name in ("core", "full")
    )
    assert core < full
    assert {gomod.split()[1] for gomod in full} == {build.BUILDER[1]}
