"""Tokens and passwords, and the files they are in."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from pathlib import Path

import pytest

from otel_ml.errors import ConfigurationError
from otel_ml_collector.auth import BasicClient, BasicServer, BearerToken
from otel_ml_collector.limiter import Overloaded
from otel_ml_collector.refusals import Unauthenticated, authorize


def basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


async def test_each_token_lets_in_and_the_first_is_shown() -> None:
    """A server has old and new ones while they are changed."""
    auth = BearerToken(tokens=["new", "old"])

    assert [await auth.allows(f"Bearer {token}") for token in ("new", "old", "ne", "newer", "")] == [
        True,
        True,
    ] + [False] * 3
    assert auth.headers() == {"authorization": "Bearer new"}


async def test_header_and_scheme_can_be_others() -> None:
    """As some backends ask for; without a scheme the token stands alone."""
    auth = BearerToken(tokens=["key"], header="X-Api-Key", scheme="")

    assert (auth.header, auth.headers()) == ("x-api-key", {"x-api-key": "key"})
    assert await auth.allows("key")
    assert not await auth.allows(" key")


async def test_the_scheme_has_no_case() -> None:
    """RFC 9110; the token has."""
    auth = BearerToken(tokens=["Key"])

    assert [await auth.allows(value) for value in ("bearer Key", "BEARER Key", "Bearer key", "Bearer", "Key")] == [
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


async def test_tokens_of_a_file_are_renewed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is in the file counts, an empty or missing one leaves what was there."""
    file = tmp_path / "tokens"
    file.write_text("one\n\n two \n")
    auth = BearerToken(filename=str(file))
    assert await auth.allows("Bearer two")

    file.write_text("three\n")
    assert (await auth.allows("Bearer one"), await auth.allows("Bearer three")) == (False, True)
    file.write_text("\n")
    assert await auth.allows("Bearer three")
    file.unlink()
    assert await auth.allows("Bearer three")
    assert "three" not in caplog.text
    assert caplog.text.count("what was read before stays in use") == 2


async def test_passwords_in_clear_and_hashed() -> None:
    """Lines as htpasswd writes them; the hash is what OpenSSL makes of the password."""
    digest = subprocess.run(
        ["openssl", "dgst", "-sha1", "-binary"], input=b"s3cret", capture_output=True, check=True
    )
    auth = BasicServer(
        inline=f"# users\nanna:s3cret\n\nbert:{{SHA}}{base64.b64encode(digest.stdout).decode()}\n"
    )

    assert await auth.allows(basic("anna:s3cret"))
    assert await auth.allows(basic("bert:s3cret").replace("Basic", "basic"))
    wrong = ("anna:secret", "bert:", "carl:s3cret", ":", "anna", "anna:s3cret:more")
    assert [await auth.allows(basic(pair)) for pair in wrong] == [False] * len(wrong)


async def test_what_a_client_sends_lets_it_in() -> None:
    """Also with a colon in the password, and with letters beyond ASCII."""
    client = BasicClient("änne", "pass:wörd")
    server = BasicServer(inline="änne:pass:wörd")

    assert await server.allows(client.headers()["authorization"])


@pytest.mark.parametrize("inline", ["anna", ":x", "anna:", "# nobody", "anna:$apr1$x$y"])
def test_lines_that_are_not_read_are_refused(inline: str) -> None:
    """At the start, with the line."""
    with pytest.raises(ConfigurationError, match=r"htpasswd.inline (line 1|has no user)"):
        BasicServer(inline=inline)


# --- bcrypt -----------------------------------------------------------------------------------------------

HASH = "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
"""Of `U*U`: a test vector of crypt_blowfish, in the form that htpasswd -B writes."""


async def test_passwords_hashed_with_bcrypt() -> None:
    """Beside others; a second time as well, and no more of a password than bcrypt looks at."""
    auth = BasicServer(inline=f"anna:{HASH}\nbert:s3cret")

    for _ in range(2):
        assert await auth.allows(basic("anna:U*U"))
        assert await auth.allows(basic("bert:s3cret"))
        wrong = (
            "anna:U*V",
            "anna:",
            f"anna:{HASH}",
            "bert:U*U",
            "carl:U*U",
            "anna:U*U\0",
            f"anna:{'x' * 100}",
        )
        assert [await auth.allows(basic(pair)) for pair in wrong] == [False] * len(wrong)


async def test_who_guesses_does_not_hold_up_who_is_known() -> None:
    """A few wait for the thread that checks, the others are told to come back; a known password does not wait."""
    auth = BasicServer(inline=f"anna:{HASH}")
    assert await auth.allows(basic("anna:U*U"))
    guesses = [asyncio.create_task(auth.allows(basic(f"anna:{i}"))) for i in range(9)]
    await asyncio.sleep(0)

    assert await auth.allows(basic("anna:U*U"))
    assert not any(guess.done() and not guess.exception() for guess in guesses)
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    assert answers[:8] == [False] * 8
    assert isinstance(answers[8], Overloaded)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (HASH.replace("$05$", "$15$"), "line 1 has a bcrypt hash of cost 15, more than 12"),
        (HASH[:-1], "line 1 has a hash that is not read here"),
        (HASH.replace("$2y$", "$1$"), "line 1 has a hash that is not read here"),
        ("{SSHA}CCCCCCCCCCCCCCCCCCCCCCCCCCC=", "line 1 has a hash that is not read here"),
        ("{SHA}CCCC", "line 1 has a hash that is not read here"),
    ],
)
def test_hashes_that_are_not_read_are_refused(stored: str, message: str) -> None:
    """At the start, with the line and the way out, and without the hash."""
    with pytest.raises(ConfigurationError) as caught:
        BasicServer(inline=f"anna:{stored}")
    assert message in str(caught.value)
    assert "CCCC" not in str(caught.value)


def test_bcrypt_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exact command."""
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    with pytest.raises(ConfigurationError, match=r"install it with: pip install 'otel-ml\[bcrypt\]'"):
        BasicServer(inline=f"anna:{HASH}")


@pytest.mark.parametrize(("given", "said"), [("Bearer guess", "not known here"), ("", "must give Bearer")])
async def test_a_wrong_token_and_none_are_told_apart(given: str, said: str) -> None:
    """The sender learns that what it gave is not known, or that it has to give something."""
    with pytest.raises(Unauthenticated, match=said) as caught:
        await authorize(BearerToken(tokens=["t0ken"]), given)
    assert ("not known" in str(caught.value)) == bool(given)
