"""Configuration files: what they may say, and everything that is wrong with one said at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_ml.errors import ConfigurationError
from otel_ml_collector import build
from otel_ml_collector.config import DEFAULT, Config, Route, load, parse
from otel_ml_collector.fields import Address
from otel_ml_collector.printing import effective
from otel_ml_collector.settings import Debug, Otlp, OtlpHttp, Prometheus

EXAMPLE = Path(__file__).parents[2] / "collector" / "config.example.yaml"

MINIMAL = """
receivers: {otlp: {protocols: {grpc: }}}
processors: {ml_drift: }
exporters: {debug: }
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [debug]}}}
"""


def read(text: str, **environ: str) -> Config:
    return parse(text, source="f.yaml", environ=environ)


def problems(text: str, **environ: str) -> dict[str, str]:
    """The problems of a text, by key path."""
    with pytest.raises(ConfigurationError) as caught:
        read(text, **environ)
    head, *rest = str(caught.value).splitlines()
    assert head == f"f.yaml: {len(rest)} problem{'s' if len(rest) != 1 else ''}"
    return {line.split(" (line")[0].split(":")[0].strip(): line for line in rest}


def with_drift(body: str) -> str:
    return MINIMAL.replace("ml_drift: }", f"ml_drift: {body}}}")


def with_exporter(body: str) -> str:
    return MINIMAL.replace("{debug: }", f"{{{body}}}").replace("[debug]", f"[{body.split(':')[0]}]")


def test_the_default_listens_on_this_machine_and_shows_drift_on_the_console_and_a_scrape_page():
    """Without a file the collector is reachable from this machine only."""
    config = read(DEFAULT)
    (receiver,) = config.receivers.values()
    assert receiver.protocols.grpc is not None
    assert receiver.protocols.http is not None
    assert receiver.protocols.grpc.endpoint == Address("localhost", 4317)
    assert receiver.protocols.http.endpoint == Address("localhost", 4318)
    assert config.exporters == {
        "debug": Debug(),
        "prometheus": Prometheus(endpoint=Address("localhost", 9464)),
    }
    assert [health.endpoint for health in config.extensions.values()] == [Address("localhost", 13133)]
    assert config.telemetry is None


def test_the_example_file_is_valid():
    """The example that ships can be run as it is."""
    config = load([str(EXAMPLE)], {})
    assert isinstance(config.exporters["otlp"], Otlp)


def test_the_configurations_in_the_readme_are_valid():
    """What the collector's README shows can be copied."""
    blocks = re.findall(r"```yaml\n(.*?)```", (EXAMPLE.parent / "README.md").read_text(), re.DOTALL)
    whole = [read(block) for block in blocks if "ml_drift" in block]
    assert [len(config.routes) for config in whole] == [0, 3, 0]


def test_a_protocol_without_a_body_is_on_and_one_that_is_not_named_is_off():
    """`grpc:` alone switches gRPC on, as in the OpenTelemetry Collector."""
    (receiver,) = read(MINIMAL).receivers.values()
    assert receiver.protocols.grpc is not None
    assert receiver.protocols.http is None


def test_every_problem_is_said_at_once_with_its_key_path():
    """One run shows all there is to mend: types, ranges, spelling, names that lead nowhere."""
    found = problems("""
receivers:
  otlp: {protocols: {grpc: , http: {endpoint: nowhere, keepalive: 3}}}
  kafka: {}
processors:
  ml_drift/a:
    window: {lenght: 3h, length: 30, step: -1s, type: session}
    thresholds: {psi: [0.3, 0.1], ks: 3}
    alpha: 1
    statistics: [psi, foo]
exporters:
  otlp: {tls: {insecure: maybe}, endpoint: "${env:NOT_SET}"}
  otlphttp: {endpoint: "foo:80"}
typo: 1
service:
  extensions: [health_check]
  pipelines:
    metrics: {receivers: [otlp, other], exporters: [otlp]}
    spans: {receivers: [otlp], exporters: [otlp]}
""")
    assert set(found) == {
        "receivers.otlp.protocols.http.endpoint",
        "receivers.otlp.protocols.http.keepalive",
        "receivers.kafka",
        "processors.ml_drift/a.window.lenght",
        "processors.ml_drift/a.window.length",
        "processors.ml_drift/a.window.step",
        "processors.ml_drift/a.window.type",
        "processors.ml_drift/a.thresholds.psi",
        "processors.ml_drift/a.thresholds.ks",
        "processors.ml_drift/a.alpha",
        "processors.ml_drift/a.statistics.1",
        "exporters.otlp.tls.insecure",
        "exporters.otlp.endpoint",
        "exporters.otlphttp.endpoint",
        "typo",
        "service.extensions.0",
        "service.pipelines.metrics.receivers.1",
        "service.pipelines.metrics.processors",
        "service.pipelines.spans",
    }
    assert "did you mean length?" in found["processors.ml_drift/a.window.lenght"]
    assert "(line 7)" in found["processors.ml_drift/a.window.lenght"]
    assert "got 30" in found["processors.ml_drift/a.window.length"]
    assert "unknown type; known here: otlp" in found["receivers.kafka"]


@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        ("{window: {length: 1h, step: 2h}}", "window.step", "must not be longer than"),
        ("{window: {length: 1h, step: 7m}}", "window.step", "whole number of times"),
        ("{window: {type: tumbling, length: 2h, step: 1h}}", "window.step", "type: sliding"),
        ("{window: {max_age: 1h}}", "window.max_age", "must not be shorter"),
        ("{window: {length: 10m}, fast: {length: 1h}}", "fast.length", "must not be longer"),
        ("{window: {length: 0s}}", "window.length", "1ms or longer"),
        ("{baseline: {sources: [file]}}", "baseline.path", "is missing"),
        ("{baseline: {sources: [file], path: /does/not/exist}}", "baseline.path", "does not exist"),
        ("{baseline: {path: .}}", "baseline.sources", "[wire, file]"),
        ("{fast: {psi: .inf}}", "fast.psi", "finite"),
        ("{wal: true}", "wal", "goes with storage only"),
        ("{checkpoint_interval: 10s}", "checkpoint_interval", "goes with storage only"),
        ("{storage: disk}", "storage", "is not among service.extensions"),
        ("[]", "", "got a list"),
    ],
)  # fmt: skip
def test_keys_that_contradict_each_other_are_refused(body, path, words):
    """What one key asks of another is checked before anything starts."""
    found = problems(with_drift(body))
    (key,) = found
    assert key == f"processors.ml_drift.{path}".rstrip(".")
    assert words in found[key]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400.0), ("1h30m", 5400.0), ("500ms", 0.5), ("1.5s", 1.5), ("2500us", 0.0025), ("1s", 1.0)],
)
def test_durations_are_read_as_go_writes_them(text, seconds):
    """Numbers with their units, one after another."""
    assert read(with_drift(f"{{interval: {text}}}")).drift.interval == seconds


@pytest.mark.parametrize("text", ["10", "1 h", "h", "1d", "1h30", "-1s", "1e3s", "true"])
def test_a_duration_without_a_known_unit_is_refused(text):
    """A bare number could be seconds or milliseconds, so it is neither."""
    assert list(problems(with_drift(f"{{interval: {text}}}"))) == ["processors.ml_drift.interval"]


def test_the_step_of_a_window_follows_from_its_type_and_length():
    """An hour for long sliding windows, the length for short and for tumbling ones."""
    assert read(MINIMAL).drift.window.steps() == 3600.0
    assert read(with_drift("{window: {length: 10m}}")).drift.window.steps() == 600.0
    assert read(with_drift("{window: {type: tumbling, length: 6h}}")).drift.window.steps() == 6 * 3600.0


def shown(headers):
    return {name: value.get_secret_value() for name, value in headers.items()}


def test_variables_of_the_environment_are_filled_in_with_the_type_they_read_as():
    """A plain number from a variable is a number, a quoted one is text, `$$` is a dollar."""
    config = read(
        MINIMAL.replace("[debug]", "[otlp]").replace(
            "exporters: {debug: }",
            """
exporters:
  otlp:
    endpoint: ${env:HOST}:${env:PORT:-14317}
    headers: {a: "${env:N}", b: "$${env:N}"}
    sending_queue:
      queue_size: ${env:N}
""",
        ),
        HOST="backend",
        N="12",
    )
    exporter = config.exporters["otlp"]
    assert isinstance(exporter, Otlp)
    assert exporter.endpoint.target == "backend:14317"
    assert shown(exporter.headers) == {"a": "12", "b": "${env:N}"}
    assert exporter.sending_queue.queue_size == 12


def test_a_variable_cannot_bring_structure_into_the_file():
    """What a variable holds stays one value, whatever it looks like."""
    config = read(
        with_exporter("otlphttp: {endpoint: 'http://b:1', headers: {key: '${env:X}'}}"), X="{a: [b]}"
    )
    exporter = config.exporters["otlphttp"]
    assert isinstance(exporter, OtlpHttp)
    assert shown(exporter.headers) == {"key": "{a: [b]}"}


def test_a_reference_that_is_not_one_to_the_environment_is_refused():
    """Only variables of the environment are read."""
    found = problems(with_exporter("otlphttp: {endpoint: '${file:/etc/passwd}'}"))
    assert "write ${env:NAME}" in found["exporters.otlphttp.endpoint"]


def test_the_value_of_a_header_is_not_shown():
    """A token that ended up in a wrong place does not end up in a log as well."""
    with pytest.raises(ConfigurationError) as caught:
        read(with_exporter("otlphttp: {endpoint: 'http://b:1', headers: {authorization: [s3cret]}}"))
    assert "exporters.otlphttp.headers.authorization" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("exporter", "said"),
    [
        ("otlphttp: {endpoint: 'http://anna:s3cret@b:1'}", "use basicauth, or headers"),
        ("otlphttp: {endpoint: 'http://anna:pa/s3cret@b:1'}", "must be an http:// or https:// URL"),
        ("otlphttp: {endpoint: 'http://anna:p@s3cret@b:1'}", "use basicauth, or headers"),
        ("otlp: {endpoint: 'https://anna:s3cret@b:1'}", "must be host:port"),
        ("otlp: {endpoint: 's3cret@b:1'}", "must be host:port"),
    ],
)
def test_a_url_with_a_password_is_refused_without_it(exporter, said):
    """It would be shown wherever the endpoint is."""
    with pytest.raises(ConfigurationError) as caught:
        read(with_exporter(exporter))
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "insecure", "secure"),
    [
        ("b:1", "true", False),
        ("b:1", "false", True),
        ("http://b:1", "false", False),
        ("https://b:1", "true", True),
    ],
)
def test_tls_is_on_unless_the_endpoint_or_the_key_says_otherwise(endpoint, insecure, secure):
    """The scheme decides where there is one, as in the OpenTelemetry Collector."""
    exporter = read(
        with_exporter(f"otlp: {{endpoint: '{endpoint}', tls: {{insecure: {insecure}}}}}")
    ).exporters["otlp"]
    assert isinstance(exporter, Otlp)
    assert exporter.secure() is secure


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_ca_file_must_hold_certificates(tmp_path, content):
    """Found out at the start, not when the first request is sent."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    found = problems(with_exporter(f"otlp: {{endpoint: 'b:1', tls: {{ca_file: {path}}}}}"))
    expected = "cannot be read" if content is None else "holds no certificates"
    assert f"{path} {expected}" in found["exporters.otlp.tls"]


@pytest.mark.parametrize("endpoint", ["b", "b:0", ":4317", "ftp://b:1", "b:99999", "b:1/path"])
def test_an_exporter_must_have_somewhere_to_send_to(endpoint):
    """A host and a port above 0."""
    assert list(problems(with_exporter(f"otlp: {{endpoint: '{endpoint}'}}"))) == ["exporters.otlp.endpoint"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML: line 1, column 5"),
        ("[" * 3000, "nested deeper"),
        ("a: &a [*a]", "nested deeper"),
        ("a: 1\n---\nb: 2", "another document"),
        ("x" * 300_000, "bytes are more than"),
        ("- a", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_text_that_is_not_a_configuration_is_refused_in_one_line(text, words):
    """Not YAML, too big, too deep, not a mapping."""
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    assert words in str(caught.value).splitlines()[1]


def test_an_alias_bomb_is_refused_before_it_is_built():
    """Ten aliases of ten aliases, eight times: a hundred million values in half a kilobyte."""
    levels = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefg", "bcdefgh", strict=True):
        levels.append(f"{name}: &{name} [{', '.join(['*' + before] * 10)}]")
    with pytest.raises(ConfigurationError, match="once its aliases are written out"):
        read("\n".join(levels))


def test_a_tag_makes_no_object():
    """A tag is not followed; what it stands on is text."""
    found = problems("receivers: !!python/object/apply:os.system [ls]\n" + MINIMAL.split("\n", 2)[2])
    assert "receivers" in found


def test_a_key_that_is_given_twice_is_refused():
    """YAML would keep the last one silently."""
    found = problems(MINIMAL + "\nservice: {}")
    assert "is given twice" in found["service"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    """The path and the way out."""
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read: No such file"):
        load([str(tmp_path / "none.yaml")], {})


def test_two_components_of_a_type_are_told_apart_by_their_names():
    """`otlp/a` and `otlp/b` are two exporters."""
    config = read(
        MINIMAL.replace("{debug: }", "{otlp/a: {endpoint: 'a:1'}, otlp/b: {endpoint: 'b:1'}}").replace(
            "[debug]", "[otlp/a, otlp/b]"
        )
    )
    assert list(config.exporters) == ["otlp/a", "otlp/b"]


@pytest.mark.parametrize(
    ("drift", "path", "said"),
    [
        ("{window: {type: count}}", "window.rows", "is missing; say how many rows end a window"),
        ("{window: {rows: 100}}", "window.rows", "goes with type: count only"),
        ("{window: {type: decayed, max_age: 72h}}", "window.max_age", "does not go with type: decayed"),
        (
            "{baseline: {sources: [previous, seasonal]}}",
            "baseline.sources",
            "has previous and seasonal; one of",
        ),
        ("{baseline: {span: 48h}}", "baseline.span", "goes with rolling only"),
        ("{baseline: {sources: [wire], learn_rows: 9}}", "baseline.learn_rows", "goes with learned only"),
        (
            "{consecutive: 2, baseline: {sources: [wire, previous]}}",
            "consecutive",
            "must be 1 with the previous",
        ),
    ],
)
def test_windows_and_baselines_that_do_not_go_together_are_named(drift, path, said):
    """Each key that asks for another one says which."""
    found = problems(with_drift(drift))
    assert list(found) == [f"processors.ml_drift.{path}"]
    assert said in found[f"processors.ml_drift.{path}"]


# --- pipelines of other signals ---------------------------------------------------------------------------

PIPELINES = """
receivers: {otlp: {protocols: {grpc: }}, otlp/b: {protocols: {http: {endpoint: "localhost:5000"}}}}
processors: {ml_drift: {forward: FORWARD}, memory_limiter: {limit_mib: 100}}
exporters: {otlp: {endpoint: "b:1"}, otlphttp: {endpoint: "http://b:1"}, debug: {}}
service:
  pipelines:
    metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlp, debug]}
    OTHERS
"""


def pipelines(others: str = "", forward: str = "false") -> str:
    return PIPELINES.replace("OTHERS", others).replace("FORWARD", forward)


def test_what_is_passed_on_follows_from_the_pipelines():
    """Traces and logs by their own pipelines, metrics with forward: true, each to its exporters."""
    config = read(pipelines("logs/x: {receivers: [otlp, otlp/b], exporters: [otlphttp]}", forward="true"))

    assert config.routes == (
        Route("metrics", ("otlp",), ("otlp",)),
        Route("logs", ("otlp", "otlp/b"), ("otlphttp",)),
    )
    assert (config.drift_receivers, config.drift_exporters) == (("otlp",), ("otlp", "debug"))
    assert list(config.exporters) == ["otlp", "debug", "otlphttp"]


def test_without_forward_metrics_end_here():
    """Drift goes out, the metrics it is made of do not."""
    assert read(pipelines()).routes == ()


@pytest.mark.parametrize(
    ("others", "path", "words"),
    [
        (
            "traces: {receivers: [otlp], processors: [ml_drift], exporters: [otlp]}",
            "traces.processors",
            "metrics only",
        ),
        ("traces: {receivers: [otlp], exporters: [debug]}", "traces.exporters.0", "otlp or otlphttp"),
        ("metrics/b: {receivers: [otlp], exporters: [otlp]}", "metrics/b", "one metrics pipeline"),
        ("metric: {receivers: [otlp], exporters: [otlp]}", "metric", "did you mean metrics?"),
    ],
)
def test_pipelines_that_cannot_run_are_refused(others, path, words):
    """With the path of the key and the way out."""
    assert words in problems(pipelines(others))[f"service.pipelines.{path}"]


def test_forward_needs_somewhere_to_pass_on_to():
    """The console shows drift, it takes no metrics."""
    text = pipelines(forward="true").replace("exporters: [otlp, debug]", "exporters: [debug]")
    assert "forward: true" in problems(text)["service.pipelines.metrics.exporters"]


def test_memory_limiter_comes_first():
    """It refuses before anything is read; so the Collector's documentation asks for it, too."""
    good = pipelines().replace("processors: [ml_drift]", "processors: [memory_limiter, ml_drift]")
    bad = pipelines().replace("processors: [ml_drift]", "processors: [ml_drift, memory_limiter]")

    memory = read(good).memory
    assert memory is not None
    assert (memory.limit_mib, memory.spike()) == (100, 20)
    assert "must come first" in problems(bad)["service.pipelines.metrics.processors"]
    spiky = good.replace("limit_mib: 100", "limit_mib: 100, spike_limit_mib: 100")
    assert "must be below limit_mib" in problems(spiky)["processors.memory_limiter.spike_limit_mib"]


# --- authenticators ---------------------------------------------------------------------------------------

GUARDED = """
extensions:
  bearertokenauth: {token: "${env:TOKEN:-s3cret}"}
  basicauth/server: {htpasswd: {inline: "anna:s3cret"}}
  basicauth/client: {client_auth: {username: anna, password: s3cret}}
  health_check: {}
receivers: {otlp: {protocols: {grpc: {auth: {authenticator: RECEIVER}}}}}
processors: {ml_drift: {}}
exporters: {otlp: {endpoint: "b:1", auth: {authenticator: EXPORTER}}}
service:
  extensions: [bearertokenauth, basicauth/server, basicauth/client, health_check]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [otlp]}}
"""


def guarded(receiver: str, exporter: str) -> str:
    return GUARDED.replace("RECEIVER", receiver).replace("EXPORTER", exporter)


def test_receivers_and_exporters_name_their_authenticator():
    """By the id of an extension that runs, as in the Collector; no secret shows in what was read."""
    config = read(guarded("basicauth/server", "bearertokenauth"))

    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("receiver", "exporter", "path", "words"),
    [
        ("basicauth/client", "bearertokenauth", "receivers.otlp.protocols.grpc", "has no htpasswd"),
        ("bearertokenauth", "basicauth/server", "exporters.otlp", "has no client_auth"),
        ("health_check", "bearertokenauth", "receivers.otlp.protocols.grpc", "is no authenticator"),
        ("nobody", "bearertokenauth", "receivers.otlp.protocols.grpc", "not among service.extensions"),
    ],
)
def test_authenticators_that_do_not_suit_are_refused(receiver, exporter, path, words):
    """The one that names it is told."""
    assert words in problems(guarded(receiver, exporter))[f"{path}.auth.authenticator"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("bearertokenauth: {}", "either token (or tokens) or filename"),
        ("bearertokenauth: {token: a, filename: b}", "either token (or tokens) or filename"),
        ("bearertokenauth: {token: [s3cret]}", "must be text; write it in quotes"),
        ("bearertokenauth: {filename: /does/not/exist}", "cannot be read"),
        ("basicauth: {}", "needs htpasswd"),
        ("basicauth: {htpasswd: {inline: s3cret}}", "line 1 is not name:password"),
        ("basicauth: {htpasswd: {inline: 'anna:$2y$05$s3cret'}}", "htpasswd -s"),
        ("basicauth: {client_auth: {username: anna, passwrod: s3cret}}", "did you mean password?"),
        ("basicauth: {client_auth: {username: anna, password: {a: s3cret}}}", "must be text"),
        ("basicauth: {client_auth: 'anna:s3cret'}", "must be a mapping, got one value"),
        ("basicauth: {htpasswd: [anna, s3cret]}", "must be a mapping, got a list"),
        ("bearertokenauth: s3cret", "must be a mapping, got one value"),
        ("bearertokenauth: {token: 'a${s3cret}'}", "${…} is not a reference"),
        ("bearertokenauth: {token: *s3cret}", "needs quotes"),
    ],
)
def test_authenticators_that_cannot_work_are_refused_without_their_secrets(body, words):
    """The message says what is wrong, and never shows a secret."""
    name = body.partition(":")[0]
    text = MINIMAL.replace("service: {", f"extensions: {{{body}}}\nservice: {{extensions: [{name}], ")
    with pytest.raises(ConfigurationError) as caught:
        read(text)

    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_missing_token_file_is_said_once():
    """Where it is named, and not again where the authenticator is used."""
    text = guarded("bearertokenauth", "bearertokenauth").replace(
        'bearertokenauth: {token: "${env:TOKEN:-s3cret}"}', "bearertokenauth: {filename: /does/not/exist}"
    )
    found = problems(text)
    assert list(found) == ["extensions.bearertokenauth"]
    assert "/does/not/exist cannot be read" in found["extensions.bearertokenauth"]


@pytest.mark.parametrize("type_", ["batch", "batch/small"])
def test_a_pipeline_with_a_type_that_there_is_not_is_told_the_types(type_):
    """At once: to add it to the section would only lead to the next problem."""
    found = problems(MINIMAL.replace("[ml_drift]", f"[{type_}, ml_drift]"))
    said = found["service.pipelines.metrics.processors.0"]
    assert f"{type_!r} is of an unknown type; known here: ml_drift, memory_limiter" in said


def test_a_switch_must_be_true_or_false():
    """In the words of YAML."""
    said = problems(with_drift("{events: maybe}"))["processors.ml_drift.events"]
    assert said.endswith("must be true or false, got 'maybe'")


# --- single values ------------------------------------------------------------------------------------------


def test_problems_of_single_values_name_their_key_and_show_no_secret(tmp_path):
    """Whatever is wrong with them: the text, the type, a variable, the key itself."""
    file = tmp_path / "f.yaml"
    file.write_text(MINIMAL.replace("{debug: }", "{debug: {}, otlp: {endpoint: 'b:1'}}"))
    key = "exporters.otlp.headers.authorization"
    for value, said in (
        ("!!int s3cret", f"{key} (--set {key}): cannot be read as int"),
        ("[s3cret", f"{key} (--set {key}): not valid YAML"),
        ("{a: s3cret}", f"{key} (--set {key}): must be text"),
        ("${env:NOPE}", f"{key} (--set {key}): environment variable NOPE is not set"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load([str(file)], {}, [f"{key}={value}"])
        assert said in str(caught.value)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="1 problem") as caught:
        load([str(file)], {}, ["exporters..otlp=s3cret"])
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["a b", "x-bin", "Trace-Bin", "a:b", ""])
def test_names_that_a_header_with_text_cannot_have_are_refused(name):
    """In gRPC a name that ends in -bin is for bytes; every request would fail."""
    said = problems(with_exporter(f"otlp: {{endpoint: 'b:1', headers: {{{name!r}: v}}}}"))
    assert "cannot be the name of a header with text" in said["exporters.otlp.headers"]


def test_what_is_printed_leaves_off_what_is_off_and_keeps_schemes():
    """A protocol that is off stays off when it is read again, and TLS by the endpoint stays on."""
    text = MINIMAL.replace("{debug: }", "{otlp: {endpoint: 'https://b:1'}}").replace("[debug]", "[otlp]")
    printed = effective(read(text))
    again = read(printed)

    assert again.receivers["otlp"].protocols.http is None
    assert (again.exporters["otlp"].secure(), effective(again)) == (True, printed)


@pytest.mark.parametrize("path", ["ready", "", "/livez", "/{name}", "/a b"])
def test_readiness_has_a_path_of_its_own(path: str) -> None:
    """Not that of liveness, and nothing that a server would read as a pattern."""
    extensions = f"extensions: {{health_check: {{path: '{path}'}}}}\n"
    text = extensions + MINIMAL.replace("service: {", "service: {extensions: [health_check], ")
    assert "must be a path like /ready" in problems(text)["extensions.health_check.path"]


def test_the_servers_keepalive_is_read_whole() -> None:
    """Times of both sections reach the receiver, with the names that they have there."""
    keepalive = "{server_parameters: {max_connection_idle: 15m}, enforcement_policy: {min_time: 1m}}"
    config = read(MINIMAL.replace("{grpc: }", f"{{grpc: {{keepalive: {keepalive}}}}}"))
    grpc = config.receivers["otlp"].protocols.grpc
    assert grpc is not None
    found = build.keepalive(grpc.keepalive)
    assert (found.max_connection_idle, found.min_time, found.timeout) == (900.0, 60.0, 20.0)
