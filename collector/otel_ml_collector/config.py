"""A configuration file as checked settings, or every problem it has at once, each with its key's path."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from otel_ml.errors import ConfigurationError

from . import document
from .document import Document, Path, Problem
from .fields import Address, Section
from .settings import (
    PAST,
    TYPES,
    BaselineSources,
    Exporter,
    HealthCheck,
    MlDrift,
    Otlp,
    OtlpHttp,
    OtlpReceiver,
    Pipeline,
    ServiceSection,
)

DEFAULT = """\
extensions: {health_check: {endpoint: localhost:13133}}
receivers: {otlp: {protocols: {grpc: {endpoint: localhost:4317}, http: {endpoint: localhost:4318}}}}
processors: {ml_drift: {}}
exporters: {debug: {}, prometheus: {endpoint: localhost:9464}}
service:
  extensions: [health_check]
  pipelines: {metrics: {receivers: [otlp], processors: [ml_drift], exporters: [debug, prometheus]}}
"""
"""What runs when no file is given."""

_TOP = (*TYPES, "service")


@dataclass(frozen=True, slots=True)
class Config:
    """What the service runs: the components its pipeline and its extensions name, checked."""

    receivers: Mapping[str, OtlpReceiver]
    drift_id: str
    drift: MlDrift
    exporters: Mapping[str, Exporter]
    extensions: Mapping[str, HealthCheck]
    telemetry: Address | None
    """Where the service's own metrics are served, None: only beside the drift."""


# --- reading ----------------------------------------------------------------------------------------------


def load(path: str, environ: Mapping[str, str]) -> Config:
    """The configuration in the file at `path`; `ConfigurationError` names all that is wrong with it."""
    try:
        text = FilePath(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(
            f"{path}: cannot be read: {reason}; give the path of a YAML file to --config"
        ) from error
    return parse(text, source=path, environ=environ)


def parse(text: str, *, source: str, environ: Mapping[str, str]) -> Config:
    """The configuration in `text`; `source` is what the messages of `ConfigurationError` call it."""
    read = document.read(text, environ)
    config = None
    if not read.problems or read.data is not None:
        config = _Reading(read).config()
    if read.problems or config is None:
        raise ConfigurationError(_report(read, source))
    return config


def _report(read: Document, source: str) -> str:
    count = len(read.problems)
    head = f"{source}: {count} problem{'s' if count != 1 else ''}"
    return "\n".join([head, *(f"  {_line(read, problem)}" for problem in read.problems)])


def _line(read: Document, problem: Problem) -> str:
    line = read.line(problem.path)
    where = f" (line {line})" if line is not None else ""
    return f"{'.'.join(map(str, problem.path)) or 'the file'}{where}: {problem.message}"


class _Reading:
    """One pass over a document that gathers its problems instead of stopping at the first."""

    def __init__(self, read: Document) -> None:
        self.problems = read.problems
        self.known_bad = {problem.path for problem in read.problems}
        self.data: dict[str, Any] = {}
        if isinstance(read.data, dict):
            self.data = read.data
        else:
            self.problem((), f"must be a mapping with the keys {', '.join(_TOP)}")

    def config(self) -> Config | None:
        for key in self.data:
            if key not in _TOP:
                self.problem((key,), _unknown(key, _TOP))
        components = {section: self.components(section) for section in TYPES}
        service = self.service()
        if service is None:
            return None
        pipeline = self.pipeline(service)
        if pipeline is None:
            return None
        chosen = self.chosen(service, *pipeline)
        self.relations(components, chosen)
        if self.problems:
            return None
        return _assemble(components, chosen, service)

    def components(self, section: str) -> dict[str, Section]:
        """The components of a section by id, those with problems left out."""
        bodies = self.data.get(section) or {}
        if not isinstance(bodies, dict):
            self.problem(
                (section,), f"must be a mapping from component to its settings, not {_shown(bodies)}"
            )
            return {}
        read = {id_: self.component(section, id_, body) for id_, body in bodies.items()}
        return {id_: component for id_, component in read.items() if component is not None}

    def component(self, section: str, id_: str, body: object) -> Section | None:
        type_, slash, name = id_.partition("/")
        model = TYPES[section].get(type_)
        if model is None:
            self.problem((section, id_), _unknown(type_, TYPES[section], what="type"))
            return None
        if slash and not name:
            self.problem((section, id_), f"has no name after the slash; write {type_} or {type_}/name")
            return None
        return self.validated(model, body, (section, id_))

    def service(self) -> ServiceSection | None:
        if "service" not in self.data:
            self.problem(
                ("service",),
                "is missing; say what runs: service.pipelines.metrics with receivers and exporters",
            )
            return None
        section = self.validated(ServiceSection, self.data["service"], ("service",))
        return section if isinstance(section, ServiceSection) else None

    def validated(self, model: type[Section], body: object, path: Path) -> Section | None:
        try:
            return model.model_validate(body)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False):
                self.problem((*path, *detail["loc"]), _message(model, detail))
            return None

    def pipeline(self, service: ServiceSection) -> tuple[str, Pipeline] | None:
        base: Path = ("service", "pipelines")
        for name in service.pipelines:
            if name.partition("/")[0] != "metrics":
                self.problem((*base, name), "is not a metrics pipeline; drift is found in metrics only")
        names = [name for name in service.pipelines if name.partition("/")[0] == "metrics"]
        for name in names[1:]:
            self.problem((*base, name), f"one metrics pipeline can run; put it together with {names[0]}")
        return (names[0], service.pipelines[names[0]]) if names else None

    def chosen(self, service: ServiceSection, name: str, pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
        """Component ids that run, by section; ids that are not declared are problems."""
        base: Path = ("service", "pipelines", name)
        chosen = {section: getattr(pipeline, section) for section in ("receivers", "processors", "exporters")}
        for section, ids in chosen.items():
            self.declared(section, ids, (*base, section))
        self.declared("extensions", service.extensions, ("service", "extensions"))
        if len(pipeline.processors) != 1:
            self.problem((*base, "processors"), "must name one ml_drift processor, like [ml_drift]")
        return {**chosen, "extensions": service.extensions}

    def declared(self, section: str, ids: tuple[str, ...], path: Path) -> None:
        declared = self.data.get(section)
        known = declared if isinstance(declared, dict) else {}
        for i, id_ in enumerate(ids):
            if id_ not in known:
                self.problem((*path, i), f"{id_!r} is not among {section}; add it there or take it out here")
            elif id_ in ids[:i]:
                self.problem((*path, i), f"{id_!r} is named twice; keep one")

    def relations(
        self, components: Mapping[str, Mapping[str, Section]], chosen: Mapping[str, tuple[str, ...]]
    ) -> None:
        """What one key asks of another."""
        for section, ids in chosen.items():
            for id_ in ids:
                component = components[section].get(id_)
                for path, message in _conflicts(component):
                    self.problem((section, id_, *path), message)

    def problem(self, path: Path, message: str) -> None:
        if path not in self.known_bad:
            self.problems.append(Problem(path, message))


def _assemble(
    components: Mapping[str, Mapping[str, Section]],
    chosen: Mapping[str, tuple[str, ...]],
    service: ServiceSection,
) -> Config:
    picked: dict[str, Any] = {
        section: {id_: components[section][id_] for id_ in ids} for section, ids in chosen.items()
    }
    ((drift_id, drift),) = picked["processors"].items()
    return Config(
        receivers=picked["receivers"],
        drift_id=drift_id,
        drift=drift,
        exporters=picked["exporters"],
        extensions=picked["extensions"],
        telemetry=service.telemetry.metrics.address,
    )


# --- what one key asks of another -------------------------------------------------------------------------


def _conflicts(component: Section | None) -> Iterator[tuple[Path, str]]:
    if isinstance(component, OtlpReceiver):
        yield from _receiver_conflicts(component)
    elif isinstance(component, MlDrift):
        yield from _window_conflicts(component)
        yield from _baseline_conflicts(component.baseline)
        yield from _past_conflicts(component)
    elif isinstance(component, Otlp | OtlpHttp):
        yield from _exporter_conflicts(component)


def _receiver_conflicts(receiver: OtlpReceiver) -> Iterator[tuple[Path, str]]:
    grpc, http = receiver.protocols.grpc, receiver.protocols.http
    if grpc is None and http is None:
        yield ("protocols",), "must have grpc, http or both"
    elif grpc and http and grpc.endpoint == http.endpoint and grpc.endpoint.port:
        yield ("protocols", "http", "endpoint"), f"is {grpc.endpoint}, where grpc listens; take another port"


def _window_conflicts(drift: MlDrift) -> Iterator[tuple[Path, str]]:
    window, fast = drift.window, drift.fast.length
    length = f"the length of the window, {window.length:g}s"
    if (window.type == "count") != (window.rows is not None):
        said = (
            "is missing; say how many rows end a window"
            if window.rows is None
            else "goes with type: count only"
        )
        yield ("window", "rows"), said
    if window.steps() > window.length:
        yield ("window", "step"), f"must not be longer than {length}"
    elif window.type == "tumbling" and window.steps() != window.length:
        yield ("window", "step"), f"must be {length}, or left out; a window with steps has type: sliding"
    elif not window.multiple(window.length):
        yield ("window", "step"), f"must go a whole number of times into {length}"
    if window.max_age is not None and window.type in ("decayed", "count"):
        yield (
            ("window", "max_age"),
            f"does not go with type: {window.type}, which does not grow; leave it out",
        )
    elif window.oldest() < window.length:
        yield ("window", "max_age"), f"must not be shorter than {length}"
    if fast is not None and fast > window.length:
        yield ("fast", "length"), f"must not be longer than {length}"


def _baseline_conflicts(baseline: BaselineSources) -> Iterator[tuple[Path, str]]:
    if "file" in baseline.sources:
        if baseline.path is None:
            yield ("baseline", "path"), "is missing; name the directory with the *.baseline.json files"
        elif not FilePath(baseline.path).exists():
            yield (
                ("baseline", "path"),
                f"{baseline.path} does not exist; make it, or take file out of sources",
            )
    elif baseline.path is not None:
        yield (
            ("baseline", "sources"),
            "does not have file, so path would be ignored; write sources: [wire, file]",
        )


def _past_conflicts(drift: MlDrift) -> Iterator[tuple[Path, str]]:
    baseline = drift.baseline
    made = [source for source in baseline.sources if source in PAST]
    if len(made) > 1:
        yield ("baseline", "sources"), f"has {' and '.join(made)}; one of these at most"
    for key, source in (("span", "rolling"), ("learn_rows", "learned")):
        if getattr(baseline, key) is not None and source not in made:
            yield ("baseline", key), f"goes with {source} only; add it to sources, or leave {key} out"
    if "previous" in made and drift.consecutive not in (None, 1):
        yield (
            ("consecutive",),
            "must be 1 with the previous window as baseline: a change shows in one window only",
        )


def _exporter_conflicts(exporter: Otlp | OtlpHttp) -> Iterator[tuple[Path, str]]:
    if exporter.tls.ca_file is not None and not _holds_certificates(exporter.tls.ca_file):
        yield ("tls", "ca_file"), f"{exporter.tls.ca_file} holds no certificates; give the path of a PEM file"
    retry = exporter.retry_on_failure
    if retry.initial_interval > retry.max_interval:
        yield (
            ("retry_on_failure", "initial_interval"),
            f"must not be longer than max_interval, {retry.max_interval:g}s",
        )


def _holds_certificates(path: str) -> bool:
    try:
        ssl.create_default_context(cafile=path)
    except OSError:
        return False
    return True


# --- messages ---------------------------------------------------------------------------------------------


def _unknown(key: str, known: Mapping[str, Any] | tuple[str, ...], *, what: str = "key") -> str:
    close = get_close_matches(key, list(known), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown {what}; {hint}known here: {', '.join(known)}"


_LIST_ERRORS = ("tuple_type", "too_short", "too_long")


def _message(model: type[Section], detail: ErrorDetails) -> str:
    kind, loc = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        return _unknown(str(loc[-1]), _known_keys(model, loc[:-1]))
    if kind == "missing":
        return "is missing and has no default"
    message = detail["msg"].removeprefix("Value error, ")
    if kind in _LIST_ERRORS:
        pair = "thresholds" in loc
        message = (
            "must be two numbers, [warning, drifted]" if pair else "must be a list with one entry or more"
        )
    elif kind != "value_error":
        message = message.replace("Input should be", "must be").replace("Dictionary should", "must")
    shown = "" if "headers" in loc else f", got {_shown(detail['input'])}"
    return message + shown


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if any(isinstance(item, dict | list) for item in value) else repr(value)[:80]
    return repr(value)[:80]


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, ...]:
    for key in loc:
        field = model.model_fields.get(str(key))
        below = _section_in(field.annotation) if field is not None else None
        if below is not None:
            model = below
    return tuple(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_in(part) for part in get_args(annotation))
    return next((model for model in found if model is not None), None)
