"""Certificates of servers and clients, read again when their files change."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from otel_ml.errors import ConfigurationError

from .files import Changes

_LOG = logging.getLogger(__name__)
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class ServerTls:
    """A server's certificate and key, and the authorities whose clients it takes (None: any client)."""

    cert_file: str
    key_file: str
    client_ca_file: str | None = None
    min_version: str = "1.2"

    def files(self) -> tuple[str, ...]:
        """Every file that is read."""
        client_ca = (self.client_ca_file,) if self.client_ca_file is not None else ()
        return (self.cert_file, self.key_file, *client_ca)

    def check(self) -> None:
        """Raises ConfigurationError, naming the file, when they cannot be used."""
        self.context()

    def context(self) -> ssl.SSLContext:
        """For HTTP/1.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self.min_version]
        context.set_alpn_protocols(["http/1.1"])
        load_pair(context, self.cert_file, self.key_file)
        if self.client_ca_file is not None:
            load_authorities(context, self.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For gRPC, which speaks TLS 1.2 and 1.3 and asks for the files before each handshake."""
        changes = Changes(self.files())
        changes.seen()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            if not changes.seen():
                return None
            try:
                self.check()
            except ConfigurationError as error:
                _LOG.warning("%s; the certificate read before stays in use", error)
                return None
            _LOG.info("certificate %s was read again", self.cert_file)
            return self._grpc_configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._grpc_configuration(),
            renewed,  # type: ignore[arg-type]  # None is for what has not changed; the stubs do not know
            require_client_authentication=self.client_ca_file is not None,
        )

    def _grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (Path(self.key_file).read_bytes(), Path(self.cert_file).read_bytes())
        client_ca = Path(self.client_ca_file).read_bytes() if self.client_ca_file is not None else None
        return grpc.ssl_server_certificate_configuration([pair], client_ca)


class RenewedContext:
    """A server's context that follows its files: `renew` before a handshake, from any thread.

    Open connections keep the certificate they began with. An authority taken out of `client_ca_file` is
    trusted until the server is started anew.
    """

    def __init__(self, tls: ServerTls, failed: Callable[[], None] = lambda: None) -> None:
        """`failed` is called after a handshake that failed."""
        self._tls = tls
        self._changes = Changes(tls.files())
        self._changes.seen()
        self.context = tls.context()
        self.context.sslobject_class = _watched(failed)

    def renew(self) -> None:
        """Use the files as they are now; files that cannot be used change nothing, and it is said."""
        if not self._changes.seen():
            return
        try:
            self._tls.check()
        except ConfigurationError as error:
            _LOG.warning("%s; the certificate read before stays in use", error)
            return
        load_pair(self.context, self._tls.cert_file, self._tls.key_file)
        if self._tls.client_ca_file is not None:
            load_authorities(self.context, self._tls.client_ca_file)
        _LOG.info("certificate %s was read again", self._tls.cert_file)


def _watched(failed: Callable[[], None]) -> type[ssl.SSLObject]:
    """The server's side of a connection, which tells when its handshake failed: asyncio does not."""

    class Watched(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError:
                failed()
                raise

    return Watched


class _ClientContext(ssl.SSLContext):
    """Expects another name than that of the URL, when there is one."""

    expected: str | None = None

    def wrap_socket(
        self, sock: socket.socket, *args: Any, server_hostname: Any = None, **options: Any
    ) -> ssl.SSLSocket:
        return super().wrap_socket(
            sock, *args, **{**options, "server_hostname": self.expected or server_hostname}
        )


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What a client trusts and shows: authorities (None: the system's), its own certificate, the name it expects."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    verify: bool = True
    min_version: str = "1.2"

    def files(self) -> tuple[str, ...]:
        """Every file that is read."""
        return tuple(file for file in (self.ca_file, self.cert_file, self.key_file) if file is not None)

    def context(self) -> ssl.SSLContext:
        """For HTTP. Raises ConfigurationError, naming the file that cannot be used."""
        context = _ClientContext(ssl.PROTOCOL_TLS_CLIENT)
        context.expected = self.server_name
        context.minimum_version = _VERSIONS[self.min_version]
        if self.ca_file is not None:
            load_authorities(context, self.ca_file)
        else:
            context.load_default_certs()
        if self.cert_file is not None and self.key_file is not None:
            load_pair(context, self.cert_file, self.key_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def grpc_credentials(self) -> grpc.ChannelCredentials:
        """For gRPC."""
        files = (self.ca_file, self.key_file, self.cert_file)
        return grpc.ssl_channel_credentials(*(Path(file).read_bytes() if file else None for file in files))


def load_pair(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    """Give the context a certificate and its key; ConfigurationError names what cannot be used."""
    for file in (cert_file, key_file):
        _readable(file)
    try:
        # An empty password: a key with one is an error, not a question on the terminal.
        context.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{cert_file} and {key_file} are not a PEM certificate and its key without a password ({error})"
        ) from error


def load_authorities(context: ssl.SSLContext, file: str) -> None:
    """Trust the certificates in a file; ConfigurationError when it has none."""
    _readable(file)
    try:
        context.load_verify_locations(file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} holds no certificates; give the path of a PEM file") from error


def _readable(file: str) -> None:
    try:
        Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
