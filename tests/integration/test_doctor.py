"""`otel-ml doctor`: what docs/howto/doctor.md shows, and what it must never do, in processes as a user has them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import certifi
import pytest
import trustme
from contract.test_docs import blocks, says
from integration.collector import Collector
from integration.sink import Sink

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "doctor.md"
GOOD, *_ = TITLES = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
OLD = "A version that is not instrumented"


@dataclass(frozen=True, slots=True)
class Section:
    """A set-up on the page."""

    program: str
    command: str
    output: str


def sections() -> dict[str, Section]:
    """Every set-up of the page by its heading; one without a program has that of the one before."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    titles = {number: line[3:] for number, line in enumerate(lines, 1) if line.startswith("## ")}
    found: dict[str, dict[str, str]] = {title: {} for title in titles.values()}
    for block in blocks(PAGE):
        above = [titles[number] for number in titles if number < block.line]
        if above:
            found[above[-1]][block.info] = block.text
    made, program = {}, ""
    for title, said in found.items():
        program = said.get("python app.py", program)
        made[title] = Section(program, said["sh"].strip(), said["text"])
    return made


SECTIONS = sections()


def clean(**more: str) -> dict[str, str]:
    """Nothing of OpenTelemetry but `more`."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("OTEL_") and "CA_BUNDLE" not in name
    }  # fmt: skip
    return {**kept, "NO_COLOR": "1", "COLUMNS": "300", **more}


def doctor(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The command, in a directory."""
    return subprocess.run(
        [sys.executable, "-m", "otel_ml.cli", "doctor", *arguments], cwd=cwd, env=clean(**more),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def doctors(*environments: dict[str, str], cwd: Path) -> list[subprocess.CompletedProcess[str]]:
    """The command in each environment, at the same time: where it waits, it does so once."""
    with ThreadPoolExecutor(len(environments)) as pool:
        return list(pool.map(lambda more: doctor(cwd=cwd, **more), environments))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's first program has made its baselines, beside a scikit-learn that says it is 1.4.2."""
    made = tmp_path_factory.mktemp("doctor")
    [train] = [block.text for block in blocks(PAGE) if block.info == "python train.py"]
    (made / "train.py").write_text(train, encoding="utf-8")
    subprocess.run([sys.executable, "train.py"], cwd=made, check=True, timeout=60)
    old = made / "old" / "scikit_learn-1.4.2.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: scikit-learn\nVersion: 1.4.2\n")
    return made


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    """A backend that takes everything."""
    with Sink(tmp_path_factory.mktemp("sink")) as made:
        yield made


def test_page_shows_a_good_set_up_and_six_broken_ones() -> None:
    """The tests below have something to look at."""
    assert len(SECTIONS) == 7


@pytest.mark.parametrize("title", SECTIONS)
def test_output_is_what_the_page_shows(title: str, place: Path, sink: Sink) -> None:
    """The page's command, on the page's program, prints what the page prints; 1 when something is broken."""
    section = SECTIONS[title]
    (place / "app.py").write_text(section.program, encoding="utf-8")
    variables, _, arguments = section.command.partition("otel-ml doctor")
    more = dict(variable.split("=", 1) for variable in variables.split())
    port = sink.grpc_endpoint.rpartition(":")[2]
    more = {name: value.replace("4317", port) for name, value in more.items()}
    if title == OLD:
        more["PYTHONPATH"] = str(place / "old")
    done = doctor(*arguments.split(), cwd=place, **more)
    assert done.returncode == (0 if title == GOOD else 1), done
    assert says(section.output, done.stdout.replace(port, "4317")), done.stdout


def test_json_is_for_machines(place: Path, sink: Sink) -> None:
    """The same as values, on standard output alone; what the program prints goes elsewhere."""
    (place / "app.py").write_text(SECTIONS[GOOD].program + 'print("mine")\n', encoding="utf-8")
    done = doctor(
        "--json", "--baselines", ".", "app.py", cwd=place, OTEL_EXPORTER_OTLP_ENDPOINT=sink.http_endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"], told["findings"]) == (0, True, [])
    assert done.stderr == "mine\n"
    assert [one["url"] for one in told["destinations"]] == [
        f"{sink.http_endpoint}/v1/{name}" for name in ("metrics", "traces", "logs")
    ]
    assert [one["path"] for one in told["baselines"]] == ["churn.baseline.json", "fraud.baseline.json"]
    [model] = told["program"]["models"]
    assert (model["name"], model["version"], model["calls"], model["registered"]) == ("churn", "3", 50, True)
    assert told["versions"]["otel-ml"] == __import__("otel_ml").__version__


def test_requests_of_the_check_are_empty(place: Path, tmp_path: Path) -> None:
    """Both protocols send one request a signal with nothing in it."""
    with Sink(tmp_path / "alone") as alone:
        for protocol, endpoint in (("grpc", alone.grpc_endpoint), ("http/protobuf", alone.http_endpoint)):
            url = endpoint if "://" in endpoint else f"http://{endpoint}"
            done = doctor(cwd=place, OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
            assert done.returncode == 0, done.stdout
        arrived = [path.name.split("-")[1:] for path in alone.files()]
        assert [path.stat().st_size for path in alone.files()] == [0] * 6
    signals = ("metrics", "traces", "logs")
    assert sorted(arrived) == sorted([s, f"{p}.pb"] for s in signals for p in ("grpc", "http"))


class _Refuses(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b"no such token: hunter2hunter2 of correcthorse"
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not on standard error."""


def test_secrets_are_sent_and_never_printed(place: Path) -> None:
    """The header goes out with its value; neither page nor JSON has it, not even in what the backend answers."""
    server = HTTPServer(("127.0.0.1", 0), _Refuses)
    server.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:correcthorse@127.0.0.1:{server.server_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=hunter2hunter2,x-tenant=shop-eu-1",
    }
    try:
        shown, told = doctor(cwd=place, **variables), doctor("--json", cwd=place, **variables)
    finally:
        server.shutdown()
        server.server_close()
    sent = {(headers["api-key"], headers["x-tenant"]) for headers in server.seen}  # type: ignore[attr-defined]
    assert sent == {("hunter2hunter2", "shop-eu-1")}
    assert {shown.returncode, told.returncode} == {1}
    for done in (shown, told):
        for secret in ("hunter2", "shop-eu-1", "correcthorse"):
            assert secret not in done.stdout + done.stderr
    assert "headers api-key=****, x-tenant=****" in shown.stdout
    assert "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20…" in shown.stdout


def test_certificates_are_those_of_the_environment(place: Path, tmp_path: Path) -> None:
    """A receiver behind TLS is refused until its authority is named, and told so."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = _Quiet(("127.0.0.1", 0), _Takes)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{server.server_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    named = {**variables, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.pem")}
    try:
        refused, taken, hidden = doctors(
            variables, named, {**named, "REQUESTS_CA_BUNDLE": certifi.where()}, cwd=place
        )
    finally:
        server.shutdown()
        server.server_close()
    assert taken.returncode == 0, taken.stdout
    assert refused.returncode == 1
    assert "do:  name the authority that signed the receiver's certificate" in refused.stdout
    assert "do:  unset REQUESTS_CA_BUNDLE, which the HTTP exporter obeys before" in hidden.stdout


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that the client breaks off is what is tested."""


class _Takes(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Not on standard error."""


@pytest.mark.parametrize(("asked", "other"), [("grpc", "http/protobuf"), ("http/protobuf", "grpc")])
def test_the_other_protocol_is_named(asked: str, other: str, place: Path, sink: Sink) -> None:
    """An address for gRPC that is given HTTP, and the other way round, is told with the variable that mends it."""
    endpoint = sink.http_endpoint if asked == "grpc" else f"http://{_host(sink)}"
    done = doctor(cwd=place, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=asked)
    assert done.returncode == 1
    assert f"set OTEL_EXPORTER_OTLP_PROTOCOL={other} " in done.stdout, done.stdout


def test_silence_is_bounded(place: Path) -> None:
    """An endpoint that takes the connection and never answers is given up on, for both protocols."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        protocols = [{**endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": name} for name in ("grpc", "http/protobuf")]
        for done in doctors(*protocols, cwd=place):  # each ends before `doctor` loses its patience
            assert done.returncode == 1
            assert "does not take them" in done.stdout


SERVER = """
import http.server, os, pathlib
import otel_ml
otel_ml.configure()
@otel_ml.observe(model="churn", version="3", baseline="churn.baseline.json")
def predict(X):
    return [0.5] * len(X)
pathlib.Path("pid").write_text(str(os.getpid()))
http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler).serve_forever()
"""


def test_a_server_is_stopped(place: Path, sink: Sink) -> None:
    """One that serves for ever is looked into and ended when time is up; that nobody asked it is no fault."""
    (place / "server.py").write_text(SERVER, encoding="utf-8")
    done = doctor(
        "--seconds", "4", "server.py", cwd=place, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{_host(sink)}"
    )
    assert done.returncode == 0, done
    assert re.search(r"0 predictions in \d+ s, then time was up", done.stdout)
    assert "baseline churn 3" in done.stdout
    assert "• no prediction was made" in done.stdout
    with pytest.raises(ProcessLookupError):
        os.kill(int((place / "pid").read_text()), 0)


def _host(sink: Sink) -> str:
    return sink.grpc_endpoint.removeprefix("http://")


def test_enough_predictions_end_it(place: Path, sink: Sink) -> None:
    """A program that predicts for ever is ended after so many predictions."""
    program = SECTIONS[GOOD].program.replace("for age in range(20, 70):", "while age := 30:")
    (place / "forever.py").write_text(program, encoding="utf-8")
    done = doctor(
        "--calls", "20", "forever.py", cwd=place, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{_host(sink)}"
    )
    assert done.returncode == 0, done
    assert "which was enough" in done.stdout


def test_a_program_that_fails_is_broken(place: Path) -> None:
    """Its own traceback is there, and the report says that it failed."""
    (place / "fails.py").write_text("raise RuntimeError('no model file')", encoding="utf-8")
    done = doctor("fails.py", cwd=place, OTEL_TRACES_EXPORTER="none")
    assert done.returncode == 1
    assert "✗ it failed: RuntimeError: no model file" in done.stdout
    assert "Traceback" in done.stderr


LATE = (
    SERVER.rpartition("\npathlib")[0]
    + """
predict([[30.0, 1.0]])
raise RuntimeError("the token hunter2hunter2 was refused")
"""
)


def test_a_program_that_fails_after_it_has_predicted_is_broken(place: Path) -> None:
    """Exit code and JSON say so when all else is well; a secret in its message stays one, and `true` is not one."""
    (place / "late.py").write_text(LATE, encoding="utf-8")
    done = doctor(
        "--json", "late.py", cwd=place, OTEL_METRICS_EXPORTER="console", OTEL_TRACES_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none", OTEL_EXPORTER_OTLP_HEADERS="api-key=hunter2hunter2,x-verbose=true,x-kind=model",
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"]) == (1, False)
    assert told["program"]["error"] == "RuntimeError: the token **** was refused"
    assert [one["what"] for one in told["findings"] if one["broken"]] == ["the program failed"]
    assert [model["calls"] for model in told["program"]["models"]] == [1]


def test_a_query_of_the_endpoint_is_a_secret(place: Path) -> None:
    """Some backends take their key there."""
    done = doctor(
        cwd=place, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9/in?key=hunter2/hunter2",
    )  # fmt: skip
    assert done.returncode == 1
    assert "http://127.0.0.1:9/in?****" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_what_it_runs_does_not_outlive_it(place: Path) -> None:
    """Stopped by SIGTERM, as a CI job is that takes too long, it ends the program first."""
    (place / "server.py").write_text(SERVER, encoding="utf-8")
    (place / "pid").unlink(missing_ok=True)
    command = [sys.executable, "-m", "otel_ml.cli", "doctor", "--seconds", "60", "server.py"]
    process = subprocess.Popen(
        command, cwd=place, env=clean(OTEL_METRICS_EXPORTER="none"), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not ((place / "pid").exists() and (place / "pid").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((place / "pid").read_text()), 0)


def test_a_package_is_found_where_python_finds_it(tmp_path: Path) -> None:
    """`-m package` beside it, also for the installed command, which is not run from there; and nothing else is."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__main__.py").write_text("import sys\nprint(sys.path[:2])\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "app.py").write_text("import sys\nprint(sys.path[:2])\n")
    command = str(Path(sys.executable).with_name("otel-ml"))
    for arguments, first in ((["-m", "mine"], tmp_path), (["other/app.py"], tmp_path / "other")):
        done = subprocess.run(
            [command, "doctor", *arguments], cwd=tmp_path, env=clean(OTEL_TRACES_EXPORTER="none"), timeout=120,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "then it ended" in done.stdout, done
        [shown] = [line for line in done.stderr.splitlines() if line.startswith("[")]
        assert shown.startswith(f"[{str(first)!r}, ")
        assert f"{str(tmp_path)!r}" not in shown.partition(", ")[2]


def test_untouched_programs(place: Path, sink: Sink) -> None:
    """A program without a word of otel-ml is not observed; run as opentelemetry-instrument does, it is."""
    lines = SECTIONS["A model that nobody registered"].program.splitlines()
    (place / "plain.py").write_text(
        "\n".join(line for line in lines if "otel_ml" not in line), encoding="utf-8"
    )
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{_host(sink)}"}
    plain = doctor("plain.py", cwd=place, **endpoint)
    assert plain.returncode == 1
    assert "✗ nothing in this program is observed" in plain.stdout
    assert "scikit-learn is imported and not instrumented" in plain.stdout
    auto = doctor("--auto", "-m", "plain", "--", "--flag", cwd=place, **endpoint)
    assert "inside -m plain --flag" in auto.stdout
    assert "LogisticRegression auto-" in auto.stdout
    assert "PeriodicExportingMetricReader" in auto.stdout


def test_variables_and_baselines(place: Path, tmp_path: Path) -> None:
    """A mistyped variable, a wrong value, a broken file and two baselines of one model are each told."""
    for name in ("a", "b"):
        text = (place / "churn.baseline.json").read_text(encoding="utf-8")
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    (tmp_path / "c.json").write_text("{", encoding="utf-8")
    done = doctor(
        cwd=tmp_path, OTEL_PYTHON_ML_BASELINES=".", OTEL_PYTHON_ML_QUEU_BYTES="1", OTEL_PYTHON_ML_RAISE="maybe"
    )  # fmt: skip
    assert done.returncode == 1
    for told in (
        "do:  did you mean OTEL_PYTHON_ML_QUEUE_BYTES?",
        "✗ OTEL_PYTHON_ML_RAISE='maybe' is not valid: expected true or false",
        "✗ c.json is not used",
        "• 2 baselines here are of churn: a.json, b.json",
        "a.json: churn 3, 2 features; at most 24 series over OTLP, 7 of them the baseline's, 95 for Prometheus",
        "in sum: at most 48 series over OTLP, 14 of them the baseline's, 190 for Prometheus",
    ):
        assert told in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.py"], "there is no program 'nowhere.py'"),
        (["-m", "nowhere"], "there is no module 'nowhere' here"),
        (["--calls", "0"], "--calls"),
        (["--unknown"], "No such option"),
    ],
)
def test_wrong_commands_exit_with_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    """What is wrong is on standard error."""
    done = doctor(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """An otel-ml-collector, which takes metrics alone."""
    config = """
receivers: {otlp: {protocols: {grpc: {endpoint: 127.0.0.1:0}, http: {endpoint: 127.0.0.1:0}}}}
processors: {ml_drift: {}}
exporters: {debug: {}}
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [debug]}}}
"""
    with Collector(tmp_path_factory.mktemp("collector"), config) as made:
        yield made


def _to(collector: Collector, protocol: str) -> dict[str, str]:
    port = collector.ports["grpc" if protocol == "grpc" else "http"]
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_signals_that_nobody_sends_may_be_refused(place: Path, collector: Collector, protocol: str) -> None:
    """otel-ml-collector takes no events: a note for a program without a sampler, and where no program is given."""
    (place / "app.py").write_text(SECTIONS[GOOD].program, encoding="utf-8")
    variables = {**_to(collector, protocol), "OTEL_TRACES_EXPORTER": "none"}
    for done in (doctor("app.py", cwd=place, **variables), doctor(cwd=place, **variables)):
        assert done.returncode == 0, done.stdout
        assert "• logs do not get through to" in done.stdout
        assert "do:  where nobody sends any, OTEL_LOGS_EXPORTER=none; else" in done.stdout
        assert re.search(r"• logs: .* does not take them", done.stdout)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_signals_that_are_sent_and_refused_are_one_problem(
    place: Path, collector: Collector, protocol: str
) -> None:
    """Spans and sampled rows are lost; the reason is the message of the first of both, never of another."""
    program = SECTIONS[GOOD].program.replace("@otel_ml.observe(", "@otel_ml.observe(sampler=Random(1.0), ")
    (place / "app.py").write_text(f"from otel_ml.sampling import Random\n{program}", encoding="utf-8")
    done = doctor("app.py", cwd=place, **_to(collector, protocol))
    assert done.returncode == 1, done.stdout
    assert "\n1 problem\n  ✗ traces, logs do not get through to" in done.stdout
    assert re.search(r"why: Failed to export (traces|span)", done.stdout), done.stdout
    assert (
        "do:  it takes no traces and no logs: send them elsewhere with OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and "
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT, or not at all with OTEL_TRACES_EXPORTER=none OTEL_LOGS_EXPORTER=none"
    ) in done.stdout


def test_spans_are_sent_and_events_are_not(place: Path, collector: Collector) -> None:
    """The one is a problem, the other a note, each with its own message."""
    (place / "app.py").write_text(SECTIONS[GOOD].program, encoding="utf-8")
    done = doctor("--json", "app.py", cwd=place, **_to(collector, "grpc"))
    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    assert [(one["what"].split()[0], one["why"].split()[3], one["broken"]) for one in findings] == [
        ("traces", "traces", True), ("logs", "logs", False)
    ]  # fmt: skip


def test_a_receiver_that_takes_nothing_is_broken(place: Path, collector: Collector) -> None:
    """Without a program, nothing gets through: that is no note."""
    done = doctor(cwd=place, OTEL_METRICS_EXPORTER="none", **_to(collector, "grpc"))
    assert done.returncode == 1
    assert "✗ traces, logs do not get through to" in done.stdout


def test_workers_are_not_seen(place: Path, sink: Sink) -> None:
    """A program that gunicorn serves, or that forks by itself, is not told to instrument what it has instrumented."""
    (place / "service.py").write_text(
        f"{SERVER.partition('pathlib.Path')[0]}\ndef app(environ, start_response):\n    return []\n"
    )
    (place / "forks.py").write_text("import os, time\nos.fork()\ntime.sleep(60)\n", encoding="utf-8")
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{_host(sink)}", "HOME": str(place)}
    gunicorn = ("-m", "gunicorn", "--", "--bind", "127.0.0.1:0", "--workers", "2")
    for who, arguments in (
        ("gunicorn", (*gunicorn, "service:app")),
        ("gunicorn", (*gunicorn, "--preload", "service:app")),
        ("it", ("forks.py",)),
    ):
        done = doctor("--seconds", "4", *arguments, cwd=place, **more)
        assert done.returncode == 0, done
        assert f"• the workers that {who} starts are not seen" in done.stdout
        assert "otel-ml doctor -m uvicorn -- service:app, or a small script" in done.stdout
        assert "no library" not in done.stdout
        assert "no prediction was made" not in done.stdout


def test_plain_words_to_tls(place: Path) -> None:
    """http:// to a port of TLS: that comes first of what to do, for both protocols."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = _Quiet(("127.0.0.1", 0), _Takes)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://localhost:{server.server_port}"}
    protocols = [{**endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": name} for name in ("grpc", "http/protobuf")]
    try:
        answers = doctors(*protocols, cwd=place)
    finally:
        server.shutdown()
        server.server_close()
    for done in answers:
        assert done.returncode == 1
        assert (
            "do:  if the receiver speaks TLS, say https:// and name its authority in OTEL_EXPORTER_OTLP_CERTIFICATE"
        ) in done.stdout, done.stdout
