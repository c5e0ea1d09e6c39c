"""The webhook exporter against a real endpoint: what arrives, and what each kind of answer leads to."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from integration.hooks import SECRET, Hooks, hooks

from otel_ml_collector.retraining import Webhook
from otel_ml_collector.webhook import WebhookExporter

BODY = {"one": json.dumps({"id": "one", "words": "größer"})}


class Delivering(WebhookExporter):
    """A webhook that is tried again at once, and remembers what it delivered."""

    def __init__(self, endpoint: str, **more: Any) -> None:
        self.taken: list[str] = []
        retry = {"initial_interval": "1ms", "max_interval": "2ms"}
        settings = {"endpoint": endpoint, "secret": SECRET, "retry_on_failure": retry, **more}
        super().__init__("webhook", Webhook.model_validate(settings), self.taken.append)


async def sent(webhook: Delivering, *waiting: dict[str, str]) -> list[str]:
    """The ids that were delivered until the queue was empty."""
    await webhook.start()
    for one in waiting:
        webhook.offer(one)
        while len(webhook.queue):
            await asyncio.sleep(0.01)
    await webhook.stop(5)
    return webhook.taken


async def test_a_trigger_arrives_signed_as_it_was_offered(tmp_path: Path) -> None:
    """JSON at the path of the endpoint, with the headers that are given; a secret of a file signs as well."""
    file = tmp_path / "secrets"
    file.write_text(SECRET)
    with hooks() as endpoint:
        url = f"{endpoint.url}/dags/retrain?code=1"
        assert await sent(
            Delivering(url, secret=None, secret_file=str(file), headers={"X-Team": "ml"}), BODY
        ) == ["one"]
        (hook,) = endpoint.seen
    assert (hook.path, hook.body.decode()) == ("/dags/retrain?code=1", BODY["one"])
    assert (hook.id, hook.headers["content-type"], hook.headers["x-team"]) == (
        "one",
        "application/json",
        "ml",
    )
    assert hook.signed_with(SECRET)
    assert not hook.signed_with(SECRET[:-4] + "AAA=")


async def test_without_a_secret_there_is_no_signature() -> None:
    """Where an endpoint knows us by other means."""
    with hooks() as endpoint:
        await sent(Delivering(endpoint.url, secret=None, headers={"authorization": "Bearer x"}), BODY)
    assert "webhook-signature" not in endpoint.seen[0].headers
    assert endpoint.seen[0].headers["authorization"] == "Bearer x"


async def test_each_attempt_is_signed_at_its_own_time() -> None:
    """Receivers refuse old timestamps; the id stays."""
    times = iter([1000.0, 2000.5])
    with hooks(status=lambda number: 200 if number else 503) as endpoint:
        webhook = Delivering(endpoint.url)
        webhook._clock = lambda: next(times)
        assert await sent(webhook, BODY) == ["one"]
    assert [hook.headers["webhook-timestamp"] for hook in endpoint.seen] == ["1000", "2000"]
    assert [(hook.id, hook.signed_with(SECRET)) for hook in endpoint.seen] == [("one", True)] * 2


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_an_endpoint_that_is_in_trouble_is_tried_again(status: int) -> None:
    """Until it takes the trigger, which counts once."""
    with hooks(status=lambda number: 202 if number == 2 else status) as endpoint:
        webhook = Delivering(endpoint.url)
        assert await sent(webhook, BODY) == ["one"]
    assert (len(endpoint.seen), webhook.queue.counts.sent, webhook.queue.counts.failed) == (3, 1, 0)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "answered 400 Bad Request"),
        (401, "answered 401 Unauthorized"),
        (404, "answered 404 Not Found"),
        (302, "answered 302 Found; redirects are not followed, give the URL that it leads to"),
    ],
)
async def test_an_endpoint_that_refuses_is_not_tried_again(
    status: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is lost, and said; the next one is another matter. The query of the URL is not shown."""
    with hooks() as other, hooks(status=lambda _: status, headers={"Location": other.url}) as endpoint:
        webhook = Delivering(f"{endpoint.url}/x?key=hidden")
        assert await sent(webhook, BODY, {**BODY, "two": "{}"}) == []
    assert ([hook.id for hook in endpoint.seen], other.seen) == (["one", "two"], [])
    assert webhook.queue.counts.failed == 2
    assert f"1 triggers are lost: {endpoint.url}/x?[masked] {said}" in caplog.text
    assert "hidden" not in caplog.text


async def test_an_endpoint_that_is_gone_gets_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """410 is how a receiver says that it wants no more."""
    with hooks(status=lambda _: 410) as endpoint:
        webhook = Delivering(endpoint.url)
        assert await sent(webhook, BODY, {**BODY, "two": "{}"}) == []
    assert len(endpoint.seen) == 1
    assert "answered 410 Gone: it wants no more, and gets none until a restart" in caplog.text


async def test_a_trigger_is_offered_once_while_it_waits() -> None:
    """Every export offers all that waits."""
    with hooks() as endpoint:
        assert await sent(Delivering(endpoint.url), BODY, BODY, {**BODY, "two": "{}"}) == ["one", "two"]
        assert _ids(endpoint) == ["one", "two"]


async def test_a_trigger_that_finds_no_room_is_taken_later() -> None:
    """Every export offers what waits, in order, so that none is forgotten."""
    waiting = dict.fromkeys(("one", "two", "three", "four", "five"), "{}")
    with hooks() as endpoint:
        webhook = Delivering(endpoint.url)
        webhook.queue.capacity = 2
        assert await sent(webhook, waiting, waiting, waiting) == list(waiting)
    assert _ids(endpoint) == list(waiting)
    assert webhook.queue.counts.refused == 0


async def test_a_trigger_that_was_given_up_is_not_sent() -> None:
    """It was said to be lost, and counts as failed."""
    waiting = {"one": "{}", "two": "{}"}
    with hooks() as endpoint:
        webhook = Delivering(endpoint.url)
        webhook.offer(waiting)
        del waiting["one"]
        assert await sent(webhook, waiting) == ["two"]
    assert (_ids(endpoint), webhook.queue.counts.failed) == (["two"], 1)


def _ids(endpoint: Hooks) -> list[str]:
    return [hook.id for hook in endpoint.seen]


async def test_an_answer_is_not_read_without_end() -> None:
    """Success is in its first line."""
    done = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while not reader.at_eof():
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            done.set()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await asyncio.wait_for(sent(Delivering(f"http://127.0.0.1:{port}"), BODY), 10) == ["one"]
    server.close()
    await asyncio.wait_for(done.wait(), 10)


async def test_the_verification_in_the_documents_knows_our_requests_from_others() -> None:
    """What a reader copies takes what arrives, and nothing that was changed, is old, or has another secret."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "retraining.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shown: dict[str, Any] = {}
    exec(snippet, shown)
    with hooks() as endpoint:
        await sent(Delivering(endpoint.url), BODY)
        (hook,) = endpoint.seen
    verify = shown["verify"]
    verify(hook.headers, hook.body, SECRET)
    other = "whsec_" + "A" * 44
    for headers, body, secret, tolerance in (
        (hook.headers, hook.body + b" ", SECRET, 300),
        (hook.headers, hook.body, other, 300),
        ({**hook.headers, "webhook-id": "two"}, hook.body, SECRET, 300),
        ({}, hook.body, SECRET, 300),
        (hook.headers, hook.body, SECRET, -1),
    ):
        with pytest.raises(ValueError, match=r"not ours|not signed|old"):
            verify(headers, body, secret, tolerance)
