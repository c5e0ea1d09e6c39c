"""Tokens and passwords, and the files they are in."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from otel_ml.errors import ConfigurationError
from otel_ml_collector.auth import BasicClient, BasicServer, BearerToken


def basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def test_each_token_lets_in_and_the_first_is_shown() -> None:
    """A server has old and new ones while they are changed."""
    auth = BearerToken(tokens=["new", "old"])

    assert [auth.allows(f"Bearer {token}") for token in ("new", "old", "ne", "newer", "")] == [True, True] + [
        False
    ] * 3
    assert auth.headers() == {"authorization": "Bearer new"}


def test_header_and_scheme_can_be_others() -> None:
    """As some backends ask for; without a scheme the token stands alone."""
    auth = BearerToken(tokens=["key"], header="X-Api-Key", scheme="")

    assert (auth.header, auth.headers()) == ("x-api-key", {"x-api-key": "key"})
    assert auth.allows("key")
    assert not auth.allows(" key")


def test_the_scheme_has_no_case() -> None:
    """RFC 9110; the token has."""
    auth = BearerToken(tokens=["Key"])

    assert [auth.allows(value) for value in ("bearer Key", "BEARER Key", "Bearer key", "Bearer", "Key")] == [
        True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("token", ["", " ", "s3cret\n", "s3cret\x07", "s3crét"])
def test_tokens_that_a_header_cannot_carry_are_refused(tmp_path: Path, token: str) -> None:
    """At the start, and without the token: a client would fail at every request, and log what it tried."""
    with pytest.raises(ConfigurationError, match="characters that a header cannot carry") as caught:
        BearerToken(tokens=["good", token])
    assert "s3cr" not in str(caught.value)
    (tmp_path / "tokens").write_text("good\ns3cr\x07et\n")
    with pytest.raises(ConfigurationError, match="characters that a header cannot carry") as caught:
        BearerToken(filename=str(tmp_path / "tokens"))
    assert "s3cr" not in str(caught.value)


def test_tokens_of_a_file_are_renewed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is in the file counts, an empty or missing one leaves what was there."""
    file = tmp_path / "tokens"
    file.write_text("one\n\n two \n")
    auth = BearerToken(filename=str(file))
    assert auth.allows("Bearer two")

    file.write_text("three\n")
    assert (auth.allows("Bearer one"), auth.allows("Bearer three")) == (False, True)
    file.write_text("\n")
    assert auth.allows("Bearer three")
    file.unlink()
    assert auth.allows("Bearer three")
    assert "three" not in caplog.text
    assert caplog.text.count("what was read before stays in use") == 2


def test_passwords_in_clear_and_hashed() -> None:
    """Lines as htpasswd writes them; the hash is what OpenSSL makes of the password."""
    digest = subprocess.run(
        ["openssl", "dgst", "-sha1", "-binary"], input=b"s3cret", capture_output=True, check=True
    )
    auth = BasicServer(
        inline=f"# users\nanna:s3cret\n\nbert:{{SHA}}{base64.b64encode(digest.stdout).decode()}\n"
    )

    assert auth.allows(basic("anna:s3cret"))
    assert auth.allows(basic("bert:s3cret").replace("Basic", "basic"))
    wrong = ("anna:secret", "bert:", "carl:s3cret", ":", "anna", "anna:s3cret:more")
    assert [auth.allows(basic(pair)) for pair in wrong] == [False] * len(wrong)


def test_what_a_client_sends_lets_it_in() -> None:
    """Also with a colon in the password, and with letters beyond ASCII."""
    client = BasicClient("änne", "pass:wörd")
    server = BasicServer(inline="änne:pass:wörd")

    assert server.allows(client.headers()["authorization"])


@pytest.mark.parametrize("inline", ["anna", ":x", "anna:", "# nobody", "anna:$apr1$x$y"])
def test_lines_that_are_not_read_are_refused(inline: str) -> None:
    """At the start, with the line."""
    with pytest.raises(ConfigurationError, match=r"htpasswd.inline (line 1|has no user)"):
        BasicServer(inline=inline)
