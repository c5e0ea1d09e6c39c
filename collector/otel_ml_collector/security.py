"""From settings to certificates and authenticators. Each raises ConfigurationError for files it cannot use."""

from __future__ import annotations

from dataclasses import replace

from otel_ml.errors import ConfigurationError

from .access import ServerAuth
from .auth import BasicClient, BasicServer, BearerToken, ClientAuth
from .settings import Authenticator, BearerTokenAuth, HttpTls, Tls
from .settings import ServerTls as ServerTlsSettings
from .tls import ClientTls, ServerTls


def server_tls(settings: ServerTlsSettings | None) -> ServerTls | None:
    """The certificate of a server; None: clear text."""
    if settings is None:
        return None
    return ServerTls(settings.cert_file, settings.key_file, settings.client_ca_file, settings.min_version)


def client_tls(settings: Tls | HttpTls) -> ClientTls:
    """What an exporter trusts and shows."""
    given = ClientTls(settings.ca_file, settings.cert_file, settings.key_file, settings.server_name_override)
    if isinstance(settings, HttpTls):
        return replace(given, verify=not settings.insecure_skip_verify, min_version=settings.min_version)
    return given


def server_auth(settings: Authenticator) -> ServerAuth:
    """Who may come in."""
    if isinstance(settings, BearerTokenAuth):
        return _bearer_token(settings)
    htpasswd = settings.htpasswd
    if htpasswd is None or (htpasswd.file is None and htpasswd.inline is None):
        raise ConfigurationError("has no htpasswd with a file or inline, which a receiver needs")
    inline = htpasswd.inline.get_secret_value() if htpasswd.inline is not None else ""
    return BasicServer(inline=inline, file=htpasswd.file)


def client_auth(settings: Authenticator) -> ClientAuth:
    """Who we are."""
    if isinstance(settings, BearerTokenAuth):
        return _bearer_token(settings)
    if settings.client_auth is None:
        raise ConfigurationError("has no client_auth with username and password, which an exporter needs")
    return BasicClient(settings.client_auth.username, settings.client_auth.password.get_secret_value())


def check(settings: Authenticator) -> None:
    """Raises ConfigurationError when it can be neither."""
    if isinstance(settings, BearerTokenAuth):
        _bearer_token(settings)
    elif settings.htpasswd is None and settings.client_auth is None:
        raise ConfigurationError("needs htpasswd, for a receiver, or client_auth, for an exporter")
    elif settings.htpasswd is not None:
        server_auth(settings)


def _bearer_token(settings: BearerTokenAuth) -> BearerToken:
    given = [secret for secret in (settings.token, *settings.tokens) if secret is not None]
    tokens = [secret.get_secret_value() for secret in given]
    if bool(tokens) == (settings.filename is not None):
        raise ConfigurationError("needs either token (or tokens) or filename")
    return BearerToken(
        tokens=tokens, filename=settings.filename, scheme=settings.scheme, header=settings.header
    )
