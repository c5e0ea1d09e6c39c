"""A service that goes on from what another one left on disk, on an injected clock."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import re
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.kills import CUMULATIVE, DELTA, FEATURES, Pod
from pointbatches import T0, S

from otel_ml.errors import ConfigurationError
from otel_ml_collector import config, recovery
from otel_ml_collector.decode import Decoder
from otel_ml_collector.journal import Record, packed, read
from otel_ml_collector.recovery import Recovery
from otel_ml_collector.service import Service

CONFIG = """
extensions: {file_storage: {directory: STATE}}
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors:
  ml_drift:
    window: {length: 4s, step: 1s, lateness: 1s, max_age: 60s, min_rows: 1}
    interval: 500ms
    storage: file_storage
    checkpoint_interval: 2s
    wal: WAL
exporters: {debug: {verbosity: basic}}
service:
  extensions: [file_storage]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [debug]}}
"""
PLACE = "processors.ml_drift"
LOGGER = "otel_ml_collector.recovery"


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> int:
        return self.now


class Quiet:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing."""


def parsed(state: Path, *, wal: bool) -> config.Config:
    text = CONFIG.replace("STATE", str(state)).replace("WAL", str(wal).lower())
    return config.parse(text, source="test", environ={})


@contextlib.asynccontextmanager
async def running(state: Path | config.Config, clock: Clock, *, wal: bool = True) -> AsyncIterator[Service]:
    """A service, which at the end is gone as after SIGKILL: nothing more is written."""
    of = parsed(state, wal=wal) if isinstance(state, Path) else state
    made = Service(of, clock=clock, out=Quiet())  # type: ignore[arg-type]
    try:
        await made.start()
        yield made
    finally:
        await made._parts.stop(0)


def keeper(service: Service) -> Recovery:
    (found,) = service._parts.of(Recovery).values()
    return found


def state(service: Service) -> str:
    """All that is kept but what was said to people and where in memory things lie, as text."""
    kept = service._capture()()
    del kept["engine"]["notices"], kept["alerts"]
    streams = kept["engine"]["streams"]
    places = zip(
        streams["columns"].pop("_offset").tolist(), streams["columns"]["_length"].tolist(), strict=True
    )
    streams["values"] = [streams["values"][first : first + length] for first, length in places]
    return json.dumps(kept, default=lambda one: [one.dtype.str, one.tolist()])


PODS = [Pod(f"m{k % 3}", f"pod-{k}", DELTA if k % 2 else CUMULATIVE, k) for k in range(6)]


class Traffic:
    """What six processes send: three models, cumulative and delta, some of it late, some of it twice."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._totals = {pod.name: dict.fromkeys(FEATURES, np.zeros(4, np.int64)) for pod in PODS}
        self._decoder, self._last = Decoder(), b""

    def to(self, service: Service, now: int) -> None:
        """One request."""
        pod = PODS[int(self._rng.integers(len(PODS)))]
        at = now - int(self._rng.integers(0, 3)) * S // 2
        counts = {name: self._rng.integers(1, 40, 4) for name in FEATURES}
        totals = self._totals[pod.name]
        for name, more in counts.items():
            totals[name] = totals[name] + more
        delta = pod.temporality == DELTA
        again = self._last and self._rng.random() < 0.1
        body = self._last if again else pod.request(counts if delta else totals, at - S if delta else T0, at)
        service._consume(self._decoder.decode(body).batch, body)
        self._last = body


def copy(source: Path, to: Path) -> None:
    """What is on disk at one moment, while checkpoints come and go there."""
    while True:
        before = sorted(source.rglob("*"))
        with contextlib.suppress(shutil.Error):
            shutil.copytree(source, to)
            if sorted(source.rglob("*")) == before:
                return
        shutil.rmtree(to)


# --- exactness --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_the_journal_brings_back_the_very_state(tmp_path: Path, seed: int) -> None:
    """Killed at any moment, also amid an evaluation and while a checkpoint is written: every array, bit by bit."""
    clock, traffic, rng = Clock(), Traffic(seed), np.random.default_rng(seed)
    amid = 0
    async with running(tmp_path / "0", clock) as service:
        for k in range(1, 25):
            clock.now = T0 + k * S // 2 + int(rng.integers(S // 4))
            for _ in range(3):
                traffic.to(service, clock.now)
            ticking = asyncio.create_task(service.tick())
            for _ in range(int(rng.integers(0, 8))):
                await asyncio.sleep(0)
                if rng.random() < 0.3:
                    traffic.to(service, clock.now)
            amid += keeper(service)._taken > 0
            # What is on disk at this moment is all that the next one has.
            copy(tmp_path / "0", tmp_path / str(k))
            await ticking
            expected = state(service)
            async with running(tmp_path / str(k), clock) as other:
                await other.tick()  # the one that was killed may not have come to it
                assert state(other) == expected
            shutil.rmtree(tmp_path / str(k))
    assert amid >= 2


async def test_without_a_journal_it_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    """Which was made before the last evaluation went out."""
    clock, traffic = Clock(), Traffic()
    async with running(tmp_path, clock, wal=False) as service:
        for k in range(1, 12):
            clock.now = T0 + k * S
            traffic.to(service, clock.now)
            await service.tick()
        expected = state(service)
        traffic.to(service, clock.now)
    async with running(tmp_path, clock, wal=False) as service:
        assert keeper(service).resumed
        assert state(service) == expected
    assert list((tmp_path / PLACE).glob("*.journal")) == []


async def test_what_was_evaluated_is_on_disk_before_it_goes_out(tmp_path: Path, monkeypatch) -> None:
    """So no window is said to be something else after a restart."""
    clock, traffic, order = Clock(), Traffic(), list[str]()
    async with running(tmp_path, clock, wal=False) as service:
        await _ticks(service, clock, traffic, 2)
        written = Recovery._write
        monkeypatch.setattr(Recovery, "_write", lambda *given: order.append("written") or written(*given))
        monkeypatch.setattr(service, "_export", lambda now: _noted(order))
        await _ticks(service, clock, traffic, 5)
    assert order == ["written", "exported"] * 5


async def _noted(order: list[str]) -> None:
    order.append("exported")


async def test_a_stop_keeps_what_waits_and_evaluates_nothing(tmp_path: Path) -> None:
    """The next one goes on as if there had been a pause."""
    clock, traffic = Clock(), Traffic()
    async with running(tmp_path, clock) as service:
        for _ in range(5):
            traffic.to(service, clock.now)
        clock.now += 2 * S
        await service.tick()
        for _ in range(5):
            traffic.to(service, clock.now)
        expected = state(service)
        await service.stop(5)
    async with running(tmp_path, clock) as service:
        assert state(service) == expected
        assert service._engine.stats()["pending"] > 0


async def broken_off(service: Service, clock: Clock) -> None:
    """A stop comes while the first of three models is evaluated."""
    traffic = Traffic()
    for _ in range(20):
        traffic.to(service, clock.now)
    clock.now += 3 * S
    service._hurry = lambda: True
    await service.tick()
    assert keeper(service)._taken == 1


async def test_an_evaluation_that_a_stop_broke_off_is_finished_and_kept(tmp_path: Path) -> None:
    """Without a journal nothing else has what came since the checkpoint before."""
    clock = Clock()
    async with running(tmp_path, clock, wal=False) as service:
        await broken_off(service, clock)
        await service.stop(5)
        expected = state(service)
    async with running(tmp_path, clock, wal=False) as service:
        assert state(service) == expected
        assert len(service._engine.current(clock.now)) == 3


async def test_an_evaluation_that_there_is_no_time_for_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one makes it anew, from the checkpoint before and the journal; it is said."""
    clock = Clock()
    async with running(tmp_path, clock) as service:
        before = keeper(service).saved
        await broken_off(service, clock)
        await service.stop(0)
        assert keeper(service).saved == before
    assert "there was no time to evaluate all models" in caplog.text
    async with running(tmp_path, clock) as service:
        assert len(service._engine.current(clock.now)) == 3


async def test_a_stop_does_not_wait_longer_for_the_disk_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that is not written in time is said."""
    clock, go = Clock(), threading.Event()
    written = recovery.Checkpoints.write
    async with running(tmp_path, clock) as service:
        monkeypatch.setattr(recovery.Checkpoints, "write", lambda *given: go.wait() and written(*given))
        await asyncio.wait_for(service.stop(0.2), 5)
        assert "the checkpoint cannot be written: it is not written after 0." in caplog.text
        go.set()


# --- another configuration, another clock -----------------------------------------------------------------


def changed(directory: Path, *changes: tuple[str, str]) -> config.Config:
    """The configuration with other text in it."""
    text = CONFIG.replace("STATE", str(directory)).replace("WAL", "true")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return config.parse(text, source="test", environ={})


HOURS = ("window: {length: 4s, step: 1s", "window: {length: 4h, step: 1h"), ("max_age: 60s", "max_age: 8h")


@pytest.mark.parametrize("interval", ["100ms", "5s"])
async def test_numbers_are_refreshed_after_a_restart_with_another_interval(
    tmp_path: Path, interval: str
) -> None:
    """What was counted in intervals of the one before is no reason to wait for as many of these."""
    clock, traffic = Clock(), Traffic()
    async with running(changed(tmp_path, *HOURS), clock) as service:
        await _ticks(service, clock, traffic, 5)
        before = service._engine.current(clock.now)[0].window_end
    async with running(
        changed(tmp_path, *HOURS, ("interval: 500ms", f"interval: {interval}")), clock
    ) as service:
        await _ticks(service, clock, traffic, 10)
        assert service._engine.current(clock.now)[0].window_end > before


async def test_baselines_from_the_wire_are_forgotten_with_their_source(tmp_path: Path) -> None:
    """A restart without `wire` among the sources compares with files only."""
    clock, traffic, path = Clock(), Traffic(), tmp_path / "baselines"
    path.mkdir()
    async with running(tmp_path / "state", clock) as service:
        await _ticks(service, clock, traffic, 5)
        assert service._engine.stats()["baselines"] > 0
    files = ("wal:", f"baseline: {{sources: [file], path: {path}}}\n    wal:")
    async with running(changed(tmp_path / "state", files), clock) as service:
        assert service._engine.stats()["baselines"] == 0
        await _ticks(service, clock, traffic, 5)
        assert service._engine.stats()["baselines"] == 0


async def test_a_clock_that_was_set_back_keeps_no_checkpoint_from_being_made(tmp_path: Path) -> None:
    """Nor anything from going out."""
    clock, traffic = Clock(), Traffic()
    clock.now += 24 * 3600 * S
    async with running(tmp_path, clock) as service:
        await _ticks(service, clock, traffic, 3)
        clock.now = T0
        await _ticks(service, clock, traffic, 1)
        assert keeper(service).saved == service._exported == clock.now


# --- what goes wrong --------------------------------------------------------------------------------------


async def filled(directory: Path, clock: Clock, requests: int = 6) -> list[str]:
    """States after each of some requests that are in the journal only."""
    traffic, states = Traffic(), []
    async with running(directory, clock) as service:
        states.append(state(service))
        for _ in range(requests):
            traffic.to(service, clock.now)
            states.append(state(service))
    return states


async def test_damage_in_the_journal_ends_it_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What came before it counts, the file is kept for people, and it is said."""
    clock = Clock()
    states = await filled(tmp_path, clock)
    (path,) = (tmp_path / PLACE).glob("*.journal")
    content = bytearray(path.read_bytes())
    third = 8 + sum(len(packed(record)) for record in list(read(path))[:3])
    content[third + 40] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.INFO, LOGGER):
        async with running(tmp_path, clock) as service:
            assert state(service) == states[3]
            assert keeper(service).failures["journal_unreadable"] == 1
    assert f"damaged at byte {third}; 3 requests before it count, none behind it does" in caplog.text
    assert len(list((tmp_path / PLACE).glob("*.journal.corrupt-*"))) == 1


async def test_what_is_good_in_a_damaged_journal_outlives_a_start_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is not set aside before there is a checkpoint with what was in it."""
    clock = Clock()
    states = await filled(tmp_path, clock)
    (path,) = (tmp_path / PLACE).glob("*.journal")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with monkeypatch.context() as context:
        context.setattr(recovery.Checkpoints, "write", _no_space)
        async with running(tmp_path, clock) as service:
            assert state(service) == states[-2]
    async with running(tmp_path, clock) as service:
        assert state(service) == states[-2]
    assert not path.exists()


def _no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_journal_that_is_done_again_is_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a long one would be killed by who looks for that, time and again; it is not ready meanwhile."""
    told: list[str] = []
    monkeypatch.setattr(recovery, "_TELL", 0.0)
    monkeypatch.setattr("otel_ml_collector.supervisor._tell", lambda *lines: told.extend(lines))
    clock, traffic = Clock(), Traffic()
    async with running(tmp_path, clock) as service:
        await service.tick()
        traffic.to(service, clock.now)
    service = Service(parsed(tmp_path, wal=True), clock=clock, out=Quiet())  # type: ignore[arg-type]
    service._beat = float("-inf")
    with caplog.at_level(logging.INFO, LOGGER):
        await service._parts.change(service._config)
    assert "1 requests of" in caplog.text
    assert "EXTEND_TIMEOUT_USEC=60000000" in told
    assert service._parts._supply.alive()
    assert not service._parts._supply.ready()
    await service._parts.stop(0)


async def test_a_start_can_be_broken_off_and_leaves_all_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal may be long, and who stops it must not wait for the end."""
    clock, began, go = Clock(), threading.Event(), threading.Event()
    states = await filled(tmp_path, clock)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again, done = Recovery._again, list[Record]()

    def slow(self: Recovery, record: Record) -> None:
        began.set()
        go.wait()
        done.append(record)
        again(self, record)

    monkeypatch.setattr(Recovery, "_again", slow)
    service = Service(parsed(tmp_path, wal=True), clock=clock, out=Quiet())  # type: ignore[arg-type]
    starting = asyncio.create_task(service.start())
    await asyncio.to_thread(began.wait)
    starting.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await service.stop(5)
    assert len(done) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    async with running(tmp_path, clock) as service:
        assert state(service) == states[-1]


async def test_a_record_that_is_cut_off_is_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a request that was never answered."""
    clock = Clock()
    states = await filled(tmp_path, clock)
    (path,) = (tmp_path / PLACE).glob("*.journal")
    path.write_bytes(path.read_bytes()[:-5])
    async with running(tmp_path, clock) as service:
        assert state(service) == states[-2]
        assert not +keeper(service).failures
    assert "cannot be used" not in caplog.text


async def test_a_record_that_cannot_be_done_again_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    """The others are, and it is counted."""
    clock = Clock()
    states = await filled(tmp_path, clock)
    (path,) = (tmp_path / PLACE).glob("*.journal")
    first, *others = map(packed, read(path))
    path.write_bytes(path.read_bytes()[:8] + first + packed(Record(1, T0, 0, b"\xff")) + b"".join(others))
    async with running(tmp_path, clock) as service:
        assert state(service) == states[-1]
        assert keeper(service).failures["journal_unreadable"] == 1


async def test_a_checkpoint_with_a_right_checksum_and_no_state_is_set_aside(tmp_path: Path) -> None:
    """Whatever is in it, there is a start: from the one before it."""
    clock = Clock()
    states = await filled(tmp_path, clock)
    for k, nonsense in enumerate([[], {"saved": 1, "state": {"engine": {"schema": 1}}}, {"saved": "x"}]):
        recovery.Checkpoints(tmp_path / PLACE).write(90 + k, nonsense)
        async with running(tmp_path, clock) as service:
            assert state(service) == states[-1]
            assert keeper(service).failures["checkpoint_unreadable"] == 1


async def test_a_checkpoint_from_the_future_is_not_gone_on_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing would count until the clock got there."""
    clock = Clock()
    clock.now += 2 * 3600 * S
    await filled(tmp_path, clock)
    clock.now = T0
    async with running(tmp_path, clock) as service:
        assert not keeper(service).resumed
    assert "ahead of this machine's clock; set the clock, or start empty" in caplog.text


async def test_a_disk_that_does_not_answer_does_not_hold_up_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once; the next checkpoint waits until the one before is written, and then it is said as well."""
    clock, traffic, go = Clock(), Traffic(), asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(recovery, "_PATIENCE", 0.01)
    async with running(tmp_path, clock) as service:
        written = recovery.Checkpoints.write

        def slow(*given: Any) -> int:
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
            return written(*given)

        monkeypatch.setattr(recovery.Checkpoints, "write", slow)
        await _ticks(service, clock, traffic, 6)
        assert keeper(service).failures["checkpoint"] >= 2
        assert caplog.text.count("the checkpoint cannot be written") == 1
        assert service._gauges
        go.set()
        monkeypatch.setattr(recovery, "_PATIENCE", 10.0)
        await keeper(service)._writing  # type: ignore[misc]
        await _ticks(service, clock, traffic, 3)
        assert keeper(service).saved > T0


async def _ticks(service: Service, clock: Clock, traffic: Traffic, times: int) -> None:
    for _ in range(times):
        clock.now += S
        traffic.to(service, clock.now)
        await service.tick()


@pytest.mark.parametrize("suffix", ["partial", "journal"])
async def test_a_full_disk_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    """ENOSPC from the system itself: requests are answered, and nothing half written is left."""
    clock, traffic = Clock(), Traffic()
    async with running(tmp_path, clock) as service:
        place = tmp_path / PLACE
        number = keeper(service)._number
        for k in (1, 2):
            (place / f"{number + k:012d}.{suffix}").symlink_to("/dev/full")
        await _ticks(service, clock, traffic, 8)
        what = "checkpoint" if suffix == "partial" else "journal"
        assert keeper(service).failures[what] >= 2
        assert keeper(service).saved > T0
        expected = state(service)
    assert caplog.text.count(f"the {what} cannot be written: [Errno 28]") == 1
    async with running(tmp_path, clock) as service:
        assert state(service) == expected


async def test_a_long_journal_is_cut_by_an_early_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where no checkpoint can be made, it does not grow for ever."""
    clock, traffic = Clock(), Traffic()
    monkeypatch.setattr(recovery, "SEGMENT", 5000)
    monkeypatch.setattr(recovery, "_MOST", 20_000)
    async with running(tmp_path, clock) as service:
        kept = keeper(service)
        while kept._journal is not None and kept._journal.size <= 5000:
            traffic.to(service, clock.now)
        saved = kept._number
        await service.tick()
        assert kept._number == saved + 1
        for _ in range(40):
            traffic.to(service, clock.now)
        assert kept.failures["journal"] > 0
        size = sum(path.stat().st_size for path in (tmp_path / PLACE).glob("*.journal"))
        assert size < 35_000


async def test_a_place_that_cannot_be_had_is_no_reason_not_to_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is asked for again, and used once it is there."""
    clock, traffic = Clock(), Traffic()
    (tmp_path / PLACE).write_text("in the way")
    async with running(tmp_path, clock) as service:
        await _ticks(service, clock, traffic, 3)
        assert "the checkpoint cannot be written" in caplog.text
        (tmp_path / PLACE).unlink()
        await _ticks(service, clock, traffic, 3)
        assert keeper(service).saved > T0
        expected = state(service)
    async with running(tmp_path, clock) as service:
        assert state(service) == expected


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"wal": False}, "wal"),
        ({"state": "elsewhere"}, "extensions.file_storage"),
        ({"name": "ml_drift/other"}, "its name (ml_drift before)"),
    ],
    ids=["wal", "directory", "name"],
)
async def test_how_the_state_is_kept_cannot_change_while_it_runs(
    tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    """It would be taken up anew, over what is counted already."""
    clock, traffic = Clock(), Traffic()
    async with running(tmp_path / "state", clock) as service:
        traffic.to(service, clock.now)
        expected = state(service)
        other = changed(
            tmp_path / change.get("state", "state"),
            ("wal: true", f"wal: {str(change.get('wal', True)).lower()}"),
            ("ml_drift", change.get("name", "ml_drift")),
        )
        with pytest.raises(
            ConfigurationError, match=re.escape(f": {what} cannot change while counts are kept")
        ):
            await service.reload(other)
        assert state(service) == expected
        await service.reload(parsed(tmp_path / "state", wal=True))
        assert state(service) == expected
