"""Signatures of webhooks, and the keys of their configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_ml.errors import ConfigurationError
from otel_ml_collector import config
from otel_ml_collector.printing import effective
from otel_ml_collector.retraining import Webhook, key
from otel_ml_collector.webhook import signature, signing

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENDPOINT = "endpoint: https://airflow.example.com/retrain"
CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {}}
exporters: {webhook: {BODY}}
service: {pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [webhook]}}}
"""


def parsed(body: str) -> config.Config:
    return config.parse(CONFIG.replace("BODY", body), source="test", environ={})


def webhook(body: str) -> Webhook:
    """The settings of a webhook with this body."""
    found = parsed(body).exporters["webhook"]
    assert isinstance(found, Webhook)
    return found


def problem(body: str) -> str:
    """What is wrong with such a webhook, when it is one thing."""
    with pytest.raises(ConfigurationError) as caught:
        parsed(body)
    head, line = str(caught.value).splitlines()
    assert head == "test: 1 problem"
    return line.strip()


def test_a_signature_is_that_of_the_standard() -> None:
    """The example that the reference libraries of Standard Webhooks are tested with."""
    made = signature([key(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_every_secret_of_a_file_signs_and_the_file_is_read_again(tmp_path: Path) -> None:
    """So that a receiver can change to another one without missing a trigger."""
    file = tmp_path / "secrets"
    file.write_text(SECRET + "\n")
    keys = signing(webhook(f"{ENDPOINT}, secret_file: {file}"))
    assert keys() == (key(SECRET),)
    other = "whsec_" + "A" * 32
    file.write_text(f"{other}\n{SECRET}\n")
    assert keys() == (key(other), key(SECRET))
    file.write_text("nothing of the kind")
    assert keys() == (key(other), key(SECRET))
    assert len(signature(keys(), "id", 1, b"").split()) == 2


def test_a_webhook_without_more_is_for_drift() -> None:
    """One target drifted, an hour between triggers, a day of attempts."""
    settings = webhook(f"{ENDPOINT}, secret: {SECRET}")
    assert settings.triggers.model_dump(mode="json") == {
        "drift": {"status": "drifted", "targets": 1, "lasting": "0ms"}
    }
    assert (settings.min_interval, settings.retry_on_failure.max_elapsed_time) == (3600, 86_400)


def test_a_trigger_without_a_body_is_on_and_others_are_off() -> None:
    """As with the protocols of a receiver."""
    triggers = webhook(f"{ENDPOINT}, secret: {SECRET}, triggers: {{drift: , rows: 1000}}").triggers
    assert (triggers.drift is not None, triggers.rows, triggers.baseline_age) == (True, 1000, None)
    assert webhook(f"{ENDPOINT}, secret: {SECRET}, triggers: {{rows: 1000}}").triggers.drift is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            f"endpoint: http://airflow.example.com, secret: {SECRET}",
            "exporters.webhook.endpoint (line 4): would be spoken to in clear; write https://, or tls: "
            "{insecure: true}",
        ),
        (
            f"endpoint: ftp://airflow.example.com, secret: {SECRET}",
            "exporters.webhook.endpoint (line 4): must be an https:// URL, like "
            "https://airflow.example.com/hooks/retrain, got 'ftp://airflow.example.com'",
        ),
        (
            f"endpoint: 'https://me:secret@airflow.example.com', secret: {SECRET}",
            "exporters.webhook.endpoint (line 4): must not hold a name and password; use basicauth, or headers, "
            "got 'https://[masked]@airflow.example.com'",
        ),
        (
            f"endpoint: 'https://airflow.example.com/?code=hidden#x', secret: {SECRET}",
            "exporters.webhook.endpoint (line 4): must be an https:// URL, like "
            "https://airflow.example.com/hooks/retrain, got 'https://airflow.example.com/?[masked]'",
        ),
        (
            ENDPOINT,
            "exporters.webhook.secret (line 4): is missing, and so are secret_file, auth and headers; the endpoint "
            "could not know us",
        ),
        (
            f"{ENDPOINT}, secret: {SECRET}, secret_file: {__file__}",
            "exporters.webhook.secret_file (line 4): does not go with secret; keep one of them",
        ),
        (
            f"{ENDPOINT}, secret_file: /nowhere/secret",
            "exporters.webhook.secret_file (line 4): /nowhere/secret cannot be read: No such file or directory",
        ),
        (
            f"{ENDPOINT}, secret: {SECRET}, triggers: {{}}",
            "exporters.webhook.triggers (line 4): has none; name drift, baseline_age or rows, or leave it out for "
            "drift",
        ),
        (
            f"{ENDPOINT}, secret: {SECRET}, triggers: {{baseline_age: 30d}}",
            "exporters.webhook.triggers.baseline_age (line 4): must be a duration with its unit, like 24h, 1h30m, "
            "60s or 500ms, got '30d'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_way_out(body: str, expected: str) -> None:
    """At the key that is wrong, and without secrets."""
    assert problem(body) == expected


@pytest.mark.parametrize("endpoint", ["http://localhost:9/x", "http://127.0.0.1:9", "http://[::1]:9"])
def test_this_machine_may_be_spoken_to_in_clear(endpoint: str) -> None:
    """And another one if that is said."""
    assert webhook(f"endpoint: '{endpoint}', secret: {SECRET}").endpoint == endpoint
    inside = f"endpoint: 'http://argo:12000/retrain', secret: {SECRET}, tls: {{insecure: true}}"
    assert webhook(inside).tls.insecure


@pytest.mark.parametrize("secret", ["hunter2", "whsec_hunter2", "whsec_aHVudGVyMg==", "whsec_" + "A" * 100])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret: str) -> None:
    """24 to 64 random bytes, in the form of the standard; the message says how to make one."""
    said = problem(f"{ENDPOINT}, secret: {secret}")
    assert "must be whsec_ and the base64 of 24 to 64 random bytes; make one with: echo" in said
    assert secret.removeprefix("whsec_") not in said


def test_print_config_masks_what_is_secret_and_what_it_prints_is_a_configuration() -> None:
    """The secret, headers, and the query of the endpoint."""
    body = (
        f"endpoint: 'https://x.example.com/run?code=hidden', secret: {SECRET}, headers: {{authorization: hidden}}, "
        "triggers: {rows: 5}, envelope: {under: variables, beside: {token: hidden, ref: main}}"
    )
    printed = effective(parsed(body))
    assert "hidden" not in printed
    assert SECRET not in printed
    again = printed.replace("'**********'", SECRET)
    assert config.parse(again, source="printed", environ={}).exporters["webhook"] == webhook(
        body.replace("code=hidden", "[masked]").replace(": hidden", f": {SECRET}")
    )
