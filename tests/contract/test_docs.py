"""What the documents say is so: code runs, configurations are valid, links lead somewhere, messages are verbatim."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from integration.collector import Collector, traffic
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_ml
from otel_ml import Baseline, pipeline, sampling, semconv, testing

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "collector" / "README.md"]
DOCUMENTS = [
    *PAGES,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "dashboards").rglob("*.md")),
]
TROUBLESHOOTING, QUICKSTART = ROOT / "docs" / "troubleshooting.md", ROOT / "docs" / "quickstart.md"
ANYTHING = "…"
"""What stands in the documents for text that differs from run to run."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its info string, text without indentation, and line in its document."""

    info: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    """Every fenced block of a document, in order."""
    text = path.read_text(encoding="utf-8")
    fenced = re.finditer(r"^( *)```([^\n`]*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [
        Block(found[2].strip(), textwrap.dedent(found[3]), text[: found.start()].count("\n") + 2)
        for found in fenced
    ]


def name(path: Path) -> str:
    """A document as a test's id."""
    return str(path.relative_to(ROOT))


def run(program: str, directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own in `directory`, where nothing of OpenTelemetry is set but `environment`."""
    (directory / "program.py").write_text(program, encoding="utf-8")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "program.py"], cwd=directory, env={**clean, **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def says(quoted: str, text: str) -> bool:
    """Whether `text` holds the quoted lines, in which `…` stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in quoted.strip("\n").split(ANYTHING))
    return re.search(pattern, text, re.DOTALL) is not None


# --- code and configurations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [page for page in PAGES if page != TROUBLESHOOTING and any(b.info == "python" for b in blocks(page))],
    ids=name,
)
def test_python_blocks_run(path: Path, tmp_path: Path) -> None:
    """The blocks of a page run in order, as one session of a reader who types them in; we fail nowhere."""
    parts = [block for block in blocks(path) if block.info == "python"]
    program = "".join(f"exec(compile({b.text!r}, {f'{name(path)}:{b.line}'!r}, 'exec'))\n" for b in parts)
    done = run(program, tmp_path, OTEL_PYTHON_ML_RAISE="1")
    assert (done.returncode, done.stderr) == (0, "")


CONFIGURATIONS = [
    pytest.param(block.text, id=f"{name(path)}:{block.line}")
    for path in PAGES
    for block in blocks(path)
    if block.info == "yaml" and "ml_drift" in block.text
]


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_collector_configurations_are_valid(text: str, tmp_path: Path) -> None:
    """`otel-ml-collector validate` accepts every configuration of ours that a page shows."""
    path = tmp_path / "collector.yaml"
    path.write_text(text)
    command = [sys.executable, "-m", "otel_ml_collector", "validate", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_pages_show_configurations() -> None:
    """The test above has something to look at, and every other YAML block is YAML."""
    assert len(CONFIGURATIONS) >= 3
    for path in PAGES:
        for block in blocks(path):
            if block.info == "yaml":
                assert isinstance(yaml.safe_load(block.text), dict), (path, block.line)


# --- links and names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    """Every relative link is a file of the repository; one with an anchor, a heading of it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def declared() -> set[str]:
    """Names that a document may use: metrics, attributes, scopes, our modules, and prefixes of these."""
    names = {value.name for value in vars(semconv).values() if isinstance(value, semconv.Metric)}
    names |= {value for key, value in vars(semconv).items() if key.isupper() and isinstance(value, str)}
    names |= {f"otel_ml.{public}" for public in otel_ml.__all__}
    names |= {f"otel_ml.sampling.{public}" for public in sampling.__all__}
    names |= {f"otel_ml.testing.{public}" for public in testing.__all__}
    names |= {f"otel_ml.{module.stem}" for module in (ROOT / "otel_ml").glob("*.py")}
    return {".".join(one.split(".")[:parts]) for one in names for parts in range(1, 9)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_metric_names_exist(path: Path) -> None:
    """Every `ml.…` and `otel_ml.…` that a document names is declared, in Prometheus' spelling too."""
    text, known = path.read_text(encoding="utf-8"), declared()
    spelled = set(re.findall(r"(?<![\w./])((?:otel_)?ml\.[a-z_]+(?:\.[a-z_]+)*)", text))
    assert {one for one in spelled - known if not one.startswith(semconv.SEGMENT_PREFIX)} == set()
    flat = {one.replace(".", "_") for one in known}
    for scraped in re.findall(r"(?<![\w./])ml_[a-z_]+", text):
        assert re.sub(r"(_seconds)?(_total|_bucket|_count|_sum|_)?$", "", scraped) in flat, scraped


def test_generated_pages_are_current() -> None:
    """docs/generate.py would write what is there."""
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_attribute_is_described() -> None:
    """Attributes in our namespace that a metric, the span or an event declares have a description."""
    used = {
        attribute for value in vars(semconv).values() if isinstance(value, semconv.Metric)
        for attribute in value.attributes
    } | {
        *semconv.SPAN_ATTRIBUTES, *semconv.EVENT_ATTRIBUTES, *semconv.FEEDBACK_ATTRIBUTES,
        *semconv.STATE_CHANGE_ATTRIBUTES,
    }  # fmt: skip
    assert {one for one in used if one.startswith("ml.")} - set(semconv.ATTRIBUTES) == set()
    assert set(semconv.ATTRIBUTES) - used == set()


# --- troubleshooting --------------------------------------------------------------------------------------


def episodes() -> Iterator[tuple[Block, dict[str, str]]]:
    """Each program of the page, with the blocks below it by their info string."""
    program, said = None, dict[str, str]()
    for block in [*blocks(TROUBLESHOOTING), Block("python", "", 0)]:
        if block.info != "python":
            said[block.info] = block.text
            continue
        if program is not None:
            yield program, said
        program, said = block, {}


(FIRST, _), *EPISODES = episodes()
QUOTES = {info: text for _, said in EPISODES for info, text in said.items()}


@contextmanager
def listening(directory: Path, program: str) -> Iterator[str]:
    """The program with the address of a real collector in it, where it speaks of one."""
    if "localhost:4317" not in program:
        yield program
        return
    grpc = 'receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}}}}'
    rest = "exporters: {debug: {}}\nprocessors: {ml_drift: {}}"
    pipe = "service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [debug]}}}"
    with Collector(directory, "\n".join([grpc, rest, pipe])) as collector:
        yield program.replace("4317", str(collector.ports["grpc"]))


@pytest.fixture(scope="module")
def baseline_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The baseline that the first program of the page makes."""
    directory = tmp_path_factory.mktemp("baseline")
    assert run(FIRST.text, directory).returncode == 0
    return directory / "churn.baseline.json"


@pytest.mark.parametrize(("block", "said"), EPISODES, ids=[f"line {block.line}" for block, _ in EPISODES])
def test_messages_are_verbatim(
    block: Block, said: dict[str, str], baseline_file: Path, tmp_path: Path
) -> None:
    """Each program on the page says on standard error what stands below it, and nothing before or after."""
    shutil.copy(baseline_file, tmp_path)
    with listening(tmp_path, block.text) as program:
        done = run(program, tmp_path)
    stderr = re.sub(r"localhost:\d{2,}", "localhost:4317", done.stderr)
    quoted = said["text"].strip("\n")
    assert says(quoted, stderr), done.stderr
    assert stderr.splitlines()[0].startswith(quoted.splitlines()[0].split(ANYTHING)[0])
    if ANYTHING not in quoted.replace("Baseline.fit(…).save(…)", ""):
        assert stderr.splitlines() == quoted.splitlines()
    assert says(said.get("text stdout", ""), done.stdout)


def test_message_without_a_provider(caplog: pytest.LogCaptureFixture) -> None:
    """A minute without a collection, and a queue half full: it says what the page quotes."""
    now = [0]
    pipeline.reset()
    pipeline._producer = pipeline.Producer(
        queue_bytes=65536, meter_provider=MeterProvider(), clock=lambda: now[0]
    )
    predict = otel_ml.observe(model="churn", version="3")(lambda X: X[:, 0])
    now[0] = 61 * 10**9
    for _ in range(3):
        predict(np.zeros((1000, 3)))
    assert [record.getMessage() for record in caplog.records] == [QUOTES["text idle"].strip()]


CONSOLE = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {window: {lateness: 2s}, interval: 100ms}}
exporters: {debug: {verbosity: detailed}}
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [debug]}}}
"""


@pytest.mark.parametrize("baseline", [True, False])
def test_collector_says_why_it_waits(baseline: bool, tmp_path: Path) -> None:
    """Few rows, or no baseline: the console gives the reason that the page quotes."""
    reason = QUOTES["text collector"] if baseline else "no baseline is known for it"
    assert reason in TROUBLESHOOTING.read_text(encoding="utf-8")
    with Collector(tmp_path, CONSOLE) as collector:
        collector.send(traffic((20, 30, 30, 20), baseline=baseline))
        assert says(reason, printed(collector, reason))


def printed(collector: Collector, quoted: str, seconds: float = 20) -> str:
    """What the collector has printed, as soon as it says `quoted`, or after `seconds`."""
    path, deadline = collector.directory / "collector.stdout", time.monotonic() + seconds
    while not says(quoted, text := path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return text


# --- the quickstart and privacy ---------------------------------------------------------------------------


def test_quickstart_finds_the_mistake(tmp_path: Path) -> None:
    """Followed step by step, in processes as there, every output is the one that the page shows."""
    found = blocks(QUICKSTART)
    train, serve = [block.text for block in found if block.info == "python"]
    alone, verdict = [block.text for block in found if block.info == "text"]
    [configuration] = [block.text for block in found if block.info == "yaml"]
    assert run(train, tmp_path).returncode == 0
    printed_alone = run(serve, tmp_path)
    assert says(alone, printed_alone.stdout), printed_alone

    quick = configuration.replace("localhost:4317", "127.0.0.1:0").replace("interval: 5s", "interval: 200ms")
    with Collector(tmp_path, quick) as collector:
        endpoint = f"http://127.0.0.1:{collector.ports['grpc']}"
        done = run(serve, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_TRACES_EXPORTER="none")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        text = printed(collector, verdict)
    assert says(verdict, text), text


def test_values_stay_in_the_process() -> None:
    """Nothing that docs/privacy.md promises to keep is in the metrics, spans or events."""
    rows = 1000
    secret = {
        "salary": np.full(rows, 73_519.25), "email": [f"user{i}@secret.example" for i in range(rows)],
        "town": ["Secretville"] * rows, "plan": ["basic", "family"] * (rows // 2),
    }  # fmt: skip
    trained = pd.DataFrame({**secret, "town": "Springfield", "salary": np.linspace(20_000, 60_000, rows)})
    baseline = Baseline.fit(trained, model="churn", version="3", exclude=["email"])
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    events, loggers = InMemoryLogRecordExporter(), LoggerProvider(shutdown_on_exit=False)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(events))
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    pipeline.use(meter_provider=MeterProvider([reader]), tracer_provider=tracers, logger_provider=loggers)
    for given in (baseline, None):
        version = "3" if given else "none"
        predict = otel_ml.observe(
            model="churn", version=version, baseline=given, sampler=sampling.Random(1.0),
            capture_features=["plan"] if given else (),
        )(lambda X: np.full(len(X), 0.5))  # fmt: skip
        predict(pd.DataFrame(secret))
    made = events.get_finished_logs()
    assert len(made) == 2 * rows
    left = "".join(item.to_json() for item in (*exporter.get_finished_spans(), *made))
    left += str(reader.get_metrics_data())
    assert "family" in left  # a category that the baseline names
    # with its fraction: the ids and coins of events are so many hexadecimal digits that some hold any five
    assert [word for word in ("73519.25", "secret.example", "Secretville") if word in left] == []
