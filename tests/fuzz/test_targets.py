"""Every decoder on honest inputs, on all that a fuzzer ever found, and on changes of honest inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.targets import TARGETS, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

_FINDINGS = Path(__file__).with_name("findings")


@pytest.mark.parametrize("target", TARGETS)
def test_honest_inputs_and_findings_are_read_or_refused(target: str) -> None:
    """Nothing but the errors that a decoder documents comes out of it."""
    found = sorted((_FINDINGS / target).glob("*"))
    for data in [*seeds(target), *(file.read_bytes() for file in found)]:
        TARGETS[target](data)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("target", TARGETS)
def test_changed_inputs_are_read_or_refused(target: str, data: st.DataObject) -> None:
    """The same for honest inputs that are cut, joined and overwritten."""
    made = bytearray(data.draw(st.sampled_from(list(seeds(target)))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(made)))
        end = data.draw(st.integers(at, min(len(made), at + 20)))
        made[at:end] = data.draw(st.binary(max_size=20))

    TARGETS[target](bytes(made))
