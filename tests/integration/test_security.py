"""TLS, mutual TLS, tokens and passwords, on the way in and on the way out, with certificates made for the test."""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from integration.collector import Collector
from integration.exchange import PROTOBUF, Answer, Reply, call, eventually, metrics, service, traces
from integration.sink import Sink

RECEIVING = """
extensions:
  bearertokenauth: {filename: DIR/token}
  basicauth/server: {htpasswd: {inline: "anna:s3cret"}}
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:0", tls: {cert_file: DIR/cert.pem, key_file: DIR/key.pem CLIENT_CA}, auth: {authenticator: bearertokenauth}}
      http: {endpoint: "127.0.0.1:0", tls: {cert_file: DIR/cert.pem, key_file: DIR/key.pem CLIENT_CA, min_version: "1.3"}, auth: {authenticator: basicauth/server}}
processors: {ml_drift: {}}
exporters: {prometheus: {endpoint: "127.0.0.1:0"}}
service:
  extensions: [bearertokenauth, basicauth/server]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [prometheus]}}
"""  # noqa: E501 - a configuration
BASIC = {"Authorization": f"Basic {base64.b64encode(b'anna:s3cret').decode()}"}


class Certificates:
    """An authority, and a certificate of it, as files in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(directory / "ca.pem"))

    @property
    def ca(self) -> bytes:
        return self.authority.cert_pem.bytes()

    def issue(self, cert: str = "cert.pem", key: str = "key.pem", name: str = "127.0.0.1") -> None:
        """A new certificate over the old one, all at once, as those who renew them do."""
        made = self.authority.issue_cert(name)
        for file, content in ((key, made.private_key_pem.bytes()), (cert, made.cert_chain_pems[0].bytes())):
            part = self.directory / f"{file}.part"
            part.write_bytes(content)
            os.replace(part, self.directory / file)

    def client(self) -> tuple[bytes, bytes]:
        """Key and certificate of a client."""
        self.issue("client.pem", "client.key", "client")
        return (self.directory / "client.key").read_bytes(), (self.directory / "client.pem").read_bytes()

    def context(self, *, client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca.decode())
        if client:
            self.client()
            context.load_cert_chain(self.directory / "client.pem", self.directory / "client.key")
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.issue()
    (made.directory / "token").write_text("t0ken\n")
    return made


def receiving(certificates: Certificates, client_ca: bool = False) -> str:
    ca = f", client_ca_file: {certificates.directory}/ca.pem" if client_ca else ""
    return RECEIVING.replace("DIR", str(certificates.directory)).replace(" CLIENT_CA", ca)


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Collector]:
    with service(tmp_path_factory.mktemp("tls") / "service", receiving(certificates)) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Collector]:
    with service(tmp_path_factory.mktemp("mtls") / "service", receiving(certificates, True)) as running:
        yield running


def over_grpc(
    collector: Collector, credentials: grpc.ChannelCredentials, token: str = "Bearer t0ken"
) -> Reply:
    metadata = [("authorization", token)] if token else []
    return call(collector, metrics(1).SerializeToString(), credentials=credentials, metadata=metadata)


def over_http(collector: Collector, context: ssl.SSLContext, headers: dict[str, str] = BASIC) -> Answer:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", collector.ports["http"], timeout=10, context=context
    )
    try:
        data = metrics(1).SerializeToString()
        connection.request("POST", "/v1/metrics", data, {**PROTOBUF, **headers})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
    finally:
        connection.close()


# --- on the way in ----------------------------------------------------------------------------------------


def test_tls_over_both_protocols(collector: Collector, certificates: Certificates) -> None:
    """Senders that trust the authority and show the right secret are served."""
    assert over_grpc(collector, grpc.ssl_channel_credentials(certificates.ca)).code is grpc.StatusCode.OK
    assert over_http(collector, certificates.context()).status == 200


def test_clear_text_is_not_understood(collector: Collector) -> None:
    """Who speaks no TLS gets no answer."""
    data = metrics(1).SerializeToString()

    assert call(collector, data).code is grpc.StatusCode.UNAVAILABLE
    with pytest.raises((http.client.HTTPException, ConnectionError, urllib.error.URLError)):
        urllib.request.urlopen(f"http://127.0.0.1:{collector.ports['http']}/v1/metrics", data, timeout=5)


def test_versions_below_the_minimum_are_refused(collector: Collector, certificates: Certificates) -> None:
    """min_version is what HTTP asks for."""
    context = certificates.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(ssl.SSLError):
        over_http(collector, context)


@pytest.mark.parametrize("token", ["", "t0ken", "Bearer wrong", "Bearer t0ken2", "Basic t0ken", "Bearer é"])
def test_wrong_tokens_are_unauthenticated(
    collector: Collector, certificates: Certificates, token: str
) -> None:
    """Over gRPC with the code for it, before the message is read."""
    if not token.isascii():
        token = token.encode().decode("ascii", "replace").replace("�", "?")
    reply = over_grpc(collector, grpc.ssl_channel_credentials(certificates.ca), token)

    assert reply.code is grpc.StatusCode.UNAUTHENTICATED
    assert "t0ken" not in reply.message


@pytest.mark.parametrize(
    "value",
    ["", "Basic", "Basic !", "Basic é", "Bearer YW5uYTpzM2NyZXQ=",
     *(f"Basic {base64.b64encode(pair).decode()}" for pair in
     (b"anna:wrong", b"anna", b"bert:s3cret", b"anna:", b":s3cret", b"\xff:\xff"))],
)  # fmt: skip
def test_wrong_passwords_are_a_401(collector: Collector, certificates: Certificates, value: str) -> None:
    """Over HTTP with a challenge that says what is asked for."""
    answer = over_http(collector, certificates.context(), {"Authorization": value})

    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="otel-ml-collector"'


def test_refused_credentials_are_counted_and_said_once_a_minute(
    tmp_path: Path, certificates: Certificates
) -> None:
    """By transport and by what is wrong; the log has the address, and never what was shown."""
    credentials = grpc.ssl_channel_credentials(certificates.ca)
    with service(tmp_path / "service", receiving(certificates)) as running:
        for _ in range(3):
            over_grpc(running, credentials, "Bearer guess1234")
            over_http(running, certificates.context(), {"Authorization": "Basic guess1234"})
        over_grpc(running, credentials, "")
        name, lines = "otel_ml_receiver_refused_requests_total", Path(running.directory / "collector.stderr")

        def refused() -> dict[str, str]:
            page = running.get("prometheus").splitlines()
            return dict(line.removeprefix(name).split() for line in page if line.startswith(f"{name}{{"))

        eventually(lambda: len(refused()) == 3)
        assert refused() == {
            '{reason="credentials_wrong",receiver="otlp",transport="grpc"}': "3.0",
            '{reason="credentials_missing",receiver="otlp",transport="grpc"}': "1.0",
            '{reason="credentials_wrong",receiver="otlp",transport="http"}': "3.0",
        }
        said = [line for line in lines.read_text().splitlines() if "credentials" in line]
    assert len(said) == 2
    assert all("the last one from 127.0.0.1 with wrong ones" in line for line in said)
    assert all(
        '"otelcol.component.kind": "receiver", "otelcol.component.id": "otlp"' in line for line in said
    )
    assert "guess1234" not in running.stderr


def test_failed_handshakes_are_counted_over_http_and_fill_no_log(
    tmp_path: Path, certificates: Certificates
) -> None:
    """Clients without a certificate, and without TLS: gRPC does not tell of them, and writes nothing either."""
    with service(tmp_path / "service", receiving(certificates, client_ca=True)) as running:
        for _ in range(3):
            for port in ("grpc", "http"):
                with socket.create_connection(("127.0.0.1", running.ports[port])) as plain:
                    plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                over_http(running, certificates.context())
        name = (
            'otel_ml_receiver_refused_requests_total{reason="tls_handshake",receiver="otlp",transport="http"}'
        )
        eventually(lambda: f"{name} 6.0" in running.get("prometheus"))
    assert {line.split("\t")[1] for line in running.stderr.splitlines()} == {"info"}


def test_grpc_health_asks_for_tls_and_for_no_token(collector: Collector, certificates: Certificates) -> None:
    """A probe has no credentials; what it learns is no more than a connection tells it."""
    credentials = grpc.ssl_channel_credentials(certificates.ca)
    with grpc.secure_channel(f"127.0.0.1:{collector.ports['grpc']}", credentials) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_mutual_tls_asks_for_a_certificate(mutual: Collector, certificates: Certificates) -> None:
    """With client_ca_file only clients of that authority come in."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        over_http(mutual, certificates.context())
    assert over_http(mutual, certificates.context(client=True)).status == 200

    anybody = grpc.ssl_channel_credentials(certificates.ca)
    ours = grpc.ssl_channel_credentials(certificates.ca, *certificates.client())
    assert over_grpc(mutual, anybody).code is grpc.StatusCode.UNAVAILABLE
    assert over_grpc(mutual, ours).code is grpc.StatusCode.OK


def test_certificates_and_tokens_are_read_again(collector: Collector, certificates: Certificates) -> None:
    """New files count without a restart; broken ones leave the old in place and say so."""
    before = ssl.get_server_certificate(("127.0.0.1", collector.ports["grpc"]))
    certificates.issue()
    new = (certificates.directory / "cert.pem").read_text()
    for port in ("grpc", "http"):
        address = ("127.0.0.1", collector.ports[port])
        eventually(lambda address=address: ssl.get_server_certificate(address).split() == new.split())
    assert new.split() != before.split()

    credentials = grpc.ssl_channel_credentials(certificates.ca)
    (certificates.directory / "token").write_text("newer\n")
    eventually(lambda: over_grpc(collector, credentials, "Bearer newer").code is grpc.StatusCode.OK)
    assert over_grpc(collector, credentials).code is grpc.StatusCode.UNAUTHENTICATED

    (certificates.directory / "token").write_text("\n")
    (certificates.directory / "cert.pem").write_text("broken")
    eventually(lambda: "PEM certificate" in (collector.directory / "collector.stderr").read_text())
    assert over_grpc(collector, credentials, "Bearer newer").code is grpc.StatusCode.OK
    assert over_http(collector, certificates.context()).status == 200
    log = (collector.directory / "collector.stderr").read_text()
    assert "has no token; write one a line; what was read before stays in use" in log
    assert "newer" not in log
    (certificates.directory / "token").write_text("t0ken\n")
    certificates.issue()


# --- on the way out ---------------------------------------------------------------------------------------

SENDING = """
extensions:
  bearertokenauth: {token: t0ken}
  basicauth/client: {client_auth: {username: anna, password: s3cret}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}}}}
processors: {ml_drift: {forward: true}}
exporters: {NAME: {endpoint: "TO", tls: {TLS}, auth: {authenticator: AUTH}}}
service:
  extensions: [bearertokenauth, basicauth/client]
  pipelines:
    metrics: {receivers: [otlp], processors: [ml_drift], exporters: [NAME]}
    traces: {receivers: [otlp], exporters: [NAME]}
"""
TOKEN, PASSWORD = "bearertokenauth", "basicauth/client"


def sending(name: str, to: str, tls: str, auth: str) -> str:
    values = {"NAME": name, "TO": to, "TLS": tls, "AUTH": auth}
    text = SENDING
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def accepted(collector: Collector, protocol: str) -> float:
    """Points that came in over a protocol."""
    name = f'otelcol_receiver_accepted_metric_points_total{{receiver="otlp",transport="{protocol}"}}'
    lines = (line for line in collector.get("prometheus").splitlines() if line.startswith(name))
    return sum(float(line.split()[-1]) for line in lines)


def arrives(directory: Path, text: str, backend: Collector, protocol: str) -> str:
    """What a collector logged while points went through it to the backend."""
    before = accepted(backend, protocol)
    with service(directory, text) as sender:
        assert call(sender, metrics(1, 2, 3).SerializeToString()).code is grpc.StatusCode.OK
        eventually(lambda: accepted(backend, protocol) >= before + 3)
    return sender.stderr


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_exporters_show_certificate_and_secret(
    tmp_path: Path, mutual: Collector, certificates: Certificates, protocol: str
) -> None:
    """One collector sends to another that asks for both, and is taken; no secret is logged."""
    certificates.client()
    files = "ca_file: DIR/ca.pem, cert_file: DIR/client.pem, key_file: DIR/client.key"
    tls, port = files.replace("DIR", str(certificates.directory)), mutual.ports[protocol]
    text = (
        sending("otlp", f"127.0.0.1:{port}", tls, TOKEN)
        if protocol == "grpc"
        else sending("otlphttp", f"https://127.0.0.1:{port}", tls, PASSWORD)
    )

    log = arrives(tmp_path / "sender", text, mutual, protocol)

    assert "s3cret" not in log
    assert "t0ken" not in log


def test_exporters_can_be_told_what_name_to_expect(tmp_path: Path, certificates: Certificates) -> None:
    """server_name_override is what the certificate must be for; insecure_skip_verify asks for nothing."""
    certificates.issue("other.pem", "other.key", "backend.example.com")
    named = f"ca_file: {certificates.directory}/ca.pem, server_name_override: backend.example.com"
    receiver = receiving(certificates).replace("cert.pem", "other.pem").replace("key.pem", "other.key")
    with service(tmp_path / "receiver", receiver) as backend:
        rpc, url = (f"127.0.0.1:{backend.ports['grpc']}", f"https://127.0.0.1:{backend.ports['http']}")
        arrives(tmp_path / "grpc", sending("otlp", rpc, named, TOKEN), backend, "grpc")
        arrives(tmp_path / "http", sending("otlphttp", url, named, PASSWORD), backend, "http")
        anybody = sending("otlphttp", url, "insecure_skip_verify: true", PASSWORD)
        arrives(tmp_path / "anybody", anybody, backend, "http")
        wrong = sending("otlphttp", url, f"ca_file: {certificates.directory}/ca.pem", PASSWORD)
        with service(tmp_path / "wrong", wrong) as sender:
            call(sender, metrics(1).SerializeToString())
            log = sender.directory / "collector.stderr"
            eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in log.read_text())


def test_an_open_endpoint_without_authentication_is_warned_of(
    tmp_path: Path, certificates: Certificates
) -> None:
    """Listening on every interface, for everybody, is said once for each protocol."""
    text = receiving(certificates).replace('endpoint: "127.0.0.1:0"', 'endpoint: "0.0.0.0:0"')
    open_text = text.replace(", auth: {authenticator: bearertokenauth}", "")
    with service(tmp_path / "open", open_text) as running:
        pass

    (line,) = [line for line in running.stderr.splitlines() if "without authentication" in line]
    assert "receivers.otlp.protocols.grpc" in line


def test_traces_pass_with_authentication(tmp_path: Path) -> None:
    """Headers of the exporter go with every signal."""
    with Sink(tmp_path / "sink") as sink:
        text = sending("otlp", sink.grpc_endpoint, "insecure: true", TOKEN)
        with service(tmp_path / "sender", text) as sender:
            assert call(sender, traces(2).SerializeToString(), "traces").code is grpc.StatusCode.OK
            eventually(lambda: len(sink.traces()) == 1)
