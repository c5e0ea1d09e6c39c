"""Every key of the configuration: its type, its default and its range.

Keys are the OpenTelemetry Collector's own where it has them. A key that is not known is refused.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from .fields import (
    MAX_INT,
    Address,
    Count,
    Duration,
    Effect,
    Limits,
    Listen,
    PositiveDuration,
    Probability,
    Section,
    Target,
    Url,
)


def _on(value: object) -> object:
    """A key without a body switches its part on, as in the Collector."""
    return {} if value is None else value


# --- receivers --------------------------------------------------------------------------------------------


class ServerTls(Section):
    cert_file: str
    key_file: str
    client_ca_file: str | None = None
    """With it, clients must show a certificate of this authority."""
    min_version: Literal["1.2", "1.3"] = "1.2"


class GrpcServerTls(ServerTls):
    min_version: Literal["1.2"] = "1.2"
    """gRPC offers 1.2 and 1.3, and does not let itself be told otherwise."""


class Auth(Section):
    authenticator: str


class ServerParameters(Section):
    max_connection_idle: PositiveDuration | None = None
    """None: for ever."""
    max_connection_age: PositiveDuration | None = None
    """None: for ever. Senders behind a balancer that knows connections only are spread anew after it."""
    max_connection_age_grace: PositiveDuration | None = None
    """None: for ever."""
    time: PositiveDuration = 7200.0
    """Of silence, until a connection is asked whether it is still there."""
    timeout: PositiveDuration = 20.0
    """For the answer to that."""


class EnforcementPolicy(Section):
    min_time: PositiveDuration = 10.0
    """Between two pings of a client; one that sends more, three times over, is cut off."""
    permit_without_stream: bool = False


class ServerKeepalive(Section):
    server_parameters: ServerParameters = ServerParameters()
    enforcement_policy: EnforcementPolicy = EnforcementPolicy()


class Grpc(Section):
    endpoint: Listen = Address("localhost", 4317)
    max_recv_msg_size_mib: Annotated[int, Field(ge=1, le=1024)] = 16
    max_concurrent_streams: Annotated[int, Field(ge=1, le=MAX_INT)] = 100
    keepalive: ServerKeepalive = ServerKeepalive()
    tls: GrpcServerTls | None = None
    auth: Auth | None = None


class Http(Section):
    endpoint: Listen = Address("localhost", 4318)
    max_request_body_size: Annotated[int, Field(ge=1024, le=1024**3)] = 64 * 1024 * 1024
    read_timeout: PositiveDuration = 30.0
    idle_timeout: PositiveDuration = 60.0
    tls: ServerTls | None = None
    auth: Auth | None = None


class Protocols(Section):
    grpc: Annotated[Grpc | None, BeforeValidator(_on)] = None
    http: Annotated[Http | None, BeforeValidator(_on)] = None

    @model_serializer(mode="wrap")
    def _running(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A key without a body would switch the protocol on.
        return {name: body for name, body in written(self).items() if body is not None}


class OtlpReceiver(Section):
    protocols: Protocols


# --- the processor ----------------------------------------------------------------------------------------


class Window(Section):
    type: Literal["sliding", "tumbling", "decayed", "count"] = "sliding"
    length: PositiveDuration = 24 * 3600.0
    """Of a decayed window the time after which a row weighs half; of one by count the longest."""
    rows: Count | None = None
    """Of a window by count, and only of one."""
    step: PositiveDuration | None = None
    """None: an hour (or the length, when that is shorter); ten minutes by count; the length when tumbling."""
    lateness: Duration = 120.0
    min_rows: Count = 200
    max_age: PositiveDuration | None = None
    """None: three times the length. Only sliding and tumbling windows grow."""
    initial_max_age: Duration = 600.0

    def steps(self) -> float:
        """Seconds between two ends of the window."""
        if self.step is not None:
            return self.step
        if self.type == "tumbling":
            return self.length
        return min(600.0 if self.type == "count" else 3600.0, self.length)

    def oldest(self) -> float:
        """Seconds to which a window with too few rows may grow backwards."""
        return 3 * self.length if self.max_age is None else self.max_age

    def multiple(self, seconds: float) -> bool:
        """Whether `seconds` is a whole number of steps, to the millisecond."""
        return round(seconds * 1000) % round(self.steps() * 1000) == 0


class Thresholds(Section):
    psi: Limits = (0.1, 0.25)
    ks: Limits = (0.1, 0.2)
    states: Limits = (0.2, 0.5)


class Fast(Section):
    length: PositiveDuration | None = None
    """None: an hour, or the window's length when that is shorter."""
    psi: Effect = 2.0
    p: Probability = 1e-6


Source = Literal["wire", "file", "previous", "rolling", "seasonal", "learned"]
PAST = ("previous", "rolling", "seasonal", "learned")
"""Sources that the collector makes itself of what it counted before."""


class BaselineSources(Section):
    sources: Annotated[tuple[Source, ...], Field(min_length=1)] = ("wire",)
    path: str | None = None
    span: PositiveDuration | None = None
    """Of a rolling baseline; None: seven times the length of the window."""
    learn_rows: Count | None = None
    """Of a learned baseline; None: 5000."""

    def past(self) -> Literal["previous", "rolling", "seasonal", "learned"] | None:
        """The source that is made of the past, if there is one."""
        for source in self.sources:
            if source != "wire" and source != "file":
                return source
        return None


class EngineLimits(Section):
    max_streams: Count = 100_000
    max_groups: Count = 20_000
    max_buckets: Annotated[int, Field(ge=2)] = 512
    max_data_points_per_request: Count = 200_000


Statistic = Literal[
    "psi", "ks", "js", "hellinger", "total_variation", "wasserstein", "mean_shift", "quantile_shift",
    "distinct", "chi_square",
]  # fmt: skip


class MlDrift(Section):
    window: Window = Window()
    interval: PositiveDuration = 60.0
    statistics: Annotated[tuple[Statistic, ...], Field(min_length=1)] = ("psi", "ks", "js")
    thresholds: Thresholds = Thresholds()
    min_reference_rows: Count = 500
    alpha: Probability | None = None
    """None: 0.001 for sliding windows, 0.01 for tumbling ones."""
    correction: Literal["bh", "bonferroni", "none"] = "bh"
    consecutive: Annotated[int, Field(ge=1, le=100)] | None = None
    """None: 2 for tumbling windows, 1 for others and where the previous window is the baseline."""
    fast: Fast = Fast()
    baseline: BaselineSources = BaselineSources()
    limits: EngineLimits = EngineLimits()
    storage: str | None = None
    """A file_storage that the state is kept in; None: a restart starts empty."""
    checkpoint_interval: PositiveDuration = 30.0
    wal: bool = False
    """True: requests are kept, too, so that a restart loses none that was answered."""
    events: bool = True
    """Changes of status go to the otlp and otlphttp exporters as log records."""
    forward: bool = False


class MemoryLimiter(Section):
    limit_mib: Count
    spike_limit_mib: Count | None = None
    """None: a fifth of the limit."""
    check_interval: Duration = 1.0

    def spike(self) -> int:
        """MiB below the limit at which requests are refused."""
        return self.limit_mib // 5 if self.spike_limit_mib is None else self.spike_limit_mib


# --- exporters --------------------------------------------------------------------------------------------


class SendingQueue(Section):
    enabled: bool = True
    queue_size: Count = 1000
    """In the unit of the sizer."""
    sizer: Literal["requests", "items", "bytes"] = "requests"
    storage: str | None = None
    """A file_storage; None: memory."""


class RetryOnFailure(Section):
    enabled: bool = True
    initial_interval: PositiveDuration = 5.0
    randomization_factor: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    multiplier: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.5
    max_interval: PositiveDuration = 30.0
    max_elapsed_time: Duration = 300.0
    """0s: for ever."""


class HttpTls(Section):
    ca_file: str | None = None
    """None: the system's authorities."""
    cert_file: str | None = None
    key_file: str | None = None
    server_name_override: str | None = None
    insecure_skip_verify: bool = False
    min_version: Literal["1.2", "1.3"] = "1.2"


class Tls(Section):
    insecure: bool = False
    ca_file: str | None = None
    """None: the system's authorities."""
    cert_file: str | None = None
    key_file: str | None = None
    server_name_override: str | None = None


def _header(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name.lower().endswith("-bin"):
        raise ValueError(f"{name!r} cannot be the name of a header with text")
    return name


def _headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, secret in headers.items():
        value = secret.get_secret_value()
        _header(name)
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of {name!r} has characters that a header cannot carry")
    return headers


Headers = Annotated[dict[str, SecretStr], AfterValidator(_headers)]


Compression = Literal["gzip", "none"]


class ClientKeepalive(Section):
    time: PositiveDuration = 10.0
    """Of silence, until the backend is asked whether it is still there."""
    timeout: PositiveDuration = 10.0
    permit_without_stream: bool = False


class Otlp(Section):
    endpoint: Target
    tls: Tls = Tls()
    auth: Auth | None = None
    headers: Headers = Field(default_factory=dict)
    compression: Compression = "gzip"
    keepalive: ClientKeepalive | None = None
    wait_for_ready: bool = False
    """True: a request waits for a connection, up to its timeout, before it counts as failed."""
    timeout: PositiveDuration = 5.0
    sending_queue: SendingQueue = SendingQueue()
    retry_on_failure: RetryOnFailure = RetryOnFailure()

    def secure(self) -> bool:
        """Whether TLS is spoken: the scheme of the endpoint decides, else `tls.insecure`."""
        return not self.tls.insecure if self.endpoint.secure is None else self.endpoint.secure


class OtlpHttp(Section):
    endpoint: Url
    tls: HttpTls = HttpTls()
    auth: Auth | None = None
    headers: Headers = Field(default_factory=dict)
    compression: Compression = "gzip"
    timeout: PositiveDuration = 30.0
    sending_queue: SendingQueue = SendingQueue()
    retry_on_failure: RetryOnFailure = RetryOnFailure()


class Prometheus(Section):
    endpoint: Listen = Address("localhost", 9464)


class Debug(Section):
    verbosity: Literal["basic", "normal", "detailed"] = "normal"


# --- extensions and the service ---------------------------------------------------------------------------


class ResponseBody(Section):
    healthy: str = ""
    unhealthy: str = ""


def _readiness_path(path: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9_./-]*", path) or path == "/livez":
        raise ValueError("must be a path like /ready, and not /livez, where liveness is")
    return path


class HealthCheck(Section):
    endpoint: Listen = Address("localhost", 13133)
    path: Annotated[str, AfterValidator(_readiness_path)] = "/"
    """Of readiness; liveness is at /livez."""
    response_body: ResponseBody | None = None
    """None: the state and since when, as JSON."""


class BearerTokenAuth(Section):
    scheme: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = "Bearer"
    header: Annotated[str, AfterValidator(_header)] = "Authorization"
    token: SecretStr | None = None
    tokens: tuple[SecretStr, ...] = ()
    """Of a server."""
    filename: str | None = None
    """One token a line; read again when it changes."""


class Htpasswd(Section):
    file: str | None = None
    inline: SecretStr | None = None


class Credentials(Section):
    username: str
    password: SecretStr


class BasicAuth(Section):
    htpasswd: Htpasswd | None = None
    """Of a server."""
    client_auth: Credentials | None = None
    """Of an exporter."""


class FileStorage(Section):
    directory: str
    create_directory: bool = True
    fsync: bool = False


Authenticator = BearerTokenAuth | BasicAuth
Extension = HealthCheck | BearerTokenAuth | BasicAuth | FileStorage


class TelemetryMetrics(Section):
    address: Listen | None = None


class TelemetryLogs(Section):
    level: Literal["debug", "info", "warn", "error"] = "info"
    encoding: Literal["console", "json"] = "console"


class Telemetry(Section):
    logs: TelemetryLogs = TelemetryLogs()
    metrics: TelemetryMetrics = TelemetryMetrics()


class Pipeline(Section):
    receivers: Annotated[tuple[str, ...], Field(min_length=1)]
    processors: tuple[str, ...] = ()
    exporters: Annotated[tuple[str, ...], Field(min_length=1)]


class ServiceSection(Section):
    extensions: tuple[str, ...] = ()
    pipelines: Annotated[dict[str, Pipeline], Field(min_length=1)]
    telemetry: Telemetry = Telemetry()
