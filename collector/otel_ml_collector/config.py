"""A configuration file as checked settings, or every problem it has at once, each with its key's path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path as FilePath
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from otel_ml.errors import ConfigurationError

from . import document
from .components import TYPES, Exporter
from .conflicts import conflicts, unusable, uses_of_auth, uses_of_storage
from .document import Document, Path, Problem
from .fields import SECRETS, Address, Section
from .settings import (
    BasicAuth,
    BearerTokenAuth,
    Extension,
    FileStorage,
    MemoryLimiter,
    MlDrift,
    Otlp,
    OtlpHttp,
    OtlpReceiver,
    Pipeline,
    ServiceSection,
)
from .signals import SIGNALS

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
class Route:
    """One signal that is passed on, byte for byte, from receivers to exporters."""

    signal: str
    receivers: tuple[str, ...]
    exporters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """What the service runs: the components its pipelines and its extensions name, checked."""

    receivers: Mapping[str, OtlpReceiver]
    drift_receivers: tuple[str, ...]
    """Those whose metrics are looked at for drift."""
    drift_id: str
    drift: MlDrift
    memory: MemoryLimiter | None
    exporters: Mapping[str, Exporter]
    drift_exporters: tuple[str, ...]
    """Those that the drift goes to."""
    routes: tuple[Route, ...]
    extensions: Mapping[str, Extension]
    telemetry: Address | None
    """Where the service's own metrics are served, None: only beside the drift."""
    components: Mapping[str, Mapping[str, Section]]
    """The same once more, by section and id."""
    service: ServiceSection


# --- reading ----------------------------------------------------------------------------------------------


def load(paths: Sequence[str], environ: Mapping[str, str], assignments: Sequence[str] = ()) -> Config:
    """The configuration in the files at `paths`, later ones over earlier ones, `key=value` over all of them.

    Without a path it is the default. `ConfigurationError` names all that is wrong.
    """
    parts = [document.read(_text(path), environ, source=path) for path in paths]
    if not parts:
        parts = [document.read(DEFAULT, {}, source="the default configuration")]
    return _config(document.merged([*parts, *(document.assignment(one, environ) for one in assignments)]))


def parse(text: str, *, source: str, environ: Mapping[str, str]) -> Config:
    """The configuration in `text`; `source` is what the messages of `ConfigurationError` call it."""
    return _config(document.read(text, environ, source=source))


def _text(path: str) -> str:
    try:
        return FilePath(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(
            f"{path}: cannot be read: {reason}; give the path of a YAML file to --config"
        ) from error


def _config(read: Document) -> Config:
    config = None
    if not read.problems or read.data is not None:
        config = _Reading(read).config()
    if read.problems or config is None:
        raise ConfigurationError(_report(read))
    return config


def _report(read: Document) -> str:
    count = len(read.problems)
    head = f"{read.source}: {count} problem{'s' if count != 1 else ''}"
    return "\n".join([head, *(f"  {_line(read, problem)}" for problem in read.problems)])


def _line(read: Document, problem: Problem) -> str:
    name = ".".join(map(str, problem.path)) or "the file"
    return f"{name}{read.where(problem.path)}: {problem.message}"


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
        pipelines = self.pipelines(service)
        chosen = self.chosen(service, pipelines)
        for signal, (id_, pipeline) in pipelines.items():
            self.order(signal, id_, pipeline)
            self.destinations(components, signal, id_, pipeline)
        self.relations(components, chosen)
        if self.problems:
            return None
        return _assemble(components, chosen, pipelines, service)

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

    def pipelines(self, service: ServiceSection) -> dict[str, tuple[str, Pipeline]]:
        """By signal: the id of its pipeline, and the pipeline."""
        base: Path = ("service", "pipelines")
        found: dict[str, tuple[str, Pipeline]] = {}
        for id_, pipeline in service.pipelines.items():
            signal = id_.partition("/")[0]
            if signal not in SIGNALS:
                self.problem((*base, id_), _unknown(signal, tuple(SIGNALS), what="signal"))
            elif signal in found:
                self.problem(
                    (*base, id_), f"one {signal} pipeline can run; put it together with {found[signal][0]}"
                )
            else:
                found[signal] = id_, pipeline
        if not found.get("metrics") and not self.problems:
            self.problem(base, "has no metrics pipeline; drift is found in metrics")
        return found

    def chosen(
        self, service: ServiceSection, pipelines: Mapping[str, tuple[str, Pipeline]]
    ) -> dict[str, tuple[str, ...]]:
        """Component ids that run, by section; ids that are not declared are problems."""
        chosen: dict[str, dict[str, None]] = {section: {} for section in TYPES}
        for id_, pipeline in pipelines.values():
            for section in ("receivers", "processors", "exporters"):
                ids = getattr(pipeline, section)
                self.declared(section, ids, ("service", "pipelines", id_, section))
                chosen[section].update(dict.fromkeys(ids))
        self.declared("extensions", service.extensions, ("service", "extensions"))
        chosen["extensions"].update(dict.fromkeys(service.extensions))
        return {section: tuple(ids) for section, ids in chosen.items()}

    def order(self, signal: str, id_: str, pipeline: Pipeline) -> None:
        """Processors that a pipeline must and may have."""
        path: Path = ("service", "pipelines", id_, "processors")
        types = [name.partition("/")[0] for name in pipeline.processors]
        if "memory_limiter" in types[1:]:
            self.problem(path, "memory_limiter must come first, and once: it refuses before anything is read")
        drifts = types.count("ml_drift")
        if signal == "metrics" and drifts != 1:
            self.problem(path, "must name one ml_drift processor, like [ml_drift]")
        elif signal != "metrics" and drifts:
            self.problem(path, f"ml_drift reads metrics only; {signal} are passed on as they are")

    def destinations(
        self, components: Mapping[str, Mapping[str, Section]], signal: str, id_: str, pipeline: Pipeline
    ) -> None:
        """Exporters that what is passed on can go to."""
        path: Path = ("service", "pipelines", id_, "exporters")
        exporters = components["exporters"]
        drift = next(
            (
                one
                for name in pipeline.processors
                if isinstance(one := components["processors"].get(name), MlDrift)
            ),
            None,
        )
        senders = [name for name in pipeline.exporters if isinstance(exporters.get(name), Otlp | OtlpHttp)]
        if signal == "metrics":
            if (
                drift is not None
                and drift.forward
                and not senders
                and set(pipeline.exporters) <= set(exporters)
            ):
                self.problem(
                    path, "has no otlp or otlphttp exporter, which forward: true passes metrics on to"
                )
            return
        for i, name in enumerate(pipeline.exporters):
            if name in exporters and name not in senders:
                self.problem((*path, i), f"{name!r} shows drift only; {signal} go to otlp or otlphttp")

    def declared(self, section: str, ids: tuple[str, ...], path: Path) -> None:
        declared = self.data.get(section)
        known = declared if isinstance(declared, dict) else {}
        for i, id_ in enumerate(ids):
            type_ = id_.partition("/")[0]
            if id_ not in known and type_ not in TYPES[section]:
                self.problem((*path, i), f"{id_!r} is of an {_unknown(type_, TYPES[section], what='type')}")
            elif id_ not in known:
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
                for path, message in conflicts(component):
                    self.problem((section, id_, *path), message)
                self.authenticators(section, id_, component, components, chosen)
                self.storages((section, id_), component, components, chosen)

    def authenticators(
        self,
        section: str,
        id_: str,
        component: Section | None,
        components: Mapping[str, Mapping[str, Section]],
        chosen: Mapping[str, tuple[str, ...]],
    ) -> None:
        """That what a component names as its authenticator is one, runs, and suits it."""
        for path, auth, make in uses_of_auth(component):
            at, name = (section, id_, *path, "authenticator"), auth.authenticator
            found = components["extensions"].get(name)
            if name not in chosen["extensions"]:
                self.problem(at, f"{name!r} is not among service.extensions; add it there")
            elif not isinstance(found, BearerTokenAuth | BasicAuth):
                if found is not None:
                    self.problem(at, f"{name!r} is no authenticator; bearertokenauth and basicauth are")
            elif not any(conflicts(found)):  # what it has is said where it stands, and once
                for _, message in unusable((), partial(make, found)):
                    self.problem(at, f"{name!r} {message}")

    def storages(
        self,
        path: Path,
        component: Section | None,
        components: Mapping[str, Mapping[str, Section]],
        chosen: Mapping[str, tuple[str, ...]],
    ) -> None:
        """That what a component names as its storage is one, and runs."""
        for below, name in uses_of_storage(component):
            found = components["extensions"].get(name)
            if name not in chosen["extensions"]:
                self.problem((*path, *below), f"{name!r} is not among service.extensions; add it there")
            elif found is not None and not isinstance(found, FileStorage):
                self.problem((*path, *below), f"{name!r} is no file_storage; name one")

    def problem(self, path: Path, message: str) -> None:
        if path not in self.known_bad:
            self.problems.append(Problem(path, message))


def _assemble(
    components: Mapping[str, Mapping[str, Section]],
    chosen: Mapping[str, tuple[str, ...]],
    pipelines: Mapping[str, tuple[str, Pipeline]],
    service: ServiceSection,
) -> Config:
    picked: dict[str, Any] = {
        section: {id_: components[section][id_] for id_ in ids} for section, ids in chosen.items()
    }
    processors = picked["processors"]
    drift_id, drift = next((id_, one) for id_, one in processors.items() if isinstance(one, MlDrift))
    metrics = pipelines["metrics"][1]
    return Config(
        receivers=picked["receivers"],
        drift_receivers=metrics.receivers,
        drift_id=drift_id,
        drift=drift,
        memory=next((one for one in processors.values() if isinstance(one, MemoryLimiter)), None),
        exporters=picked["exporters"],
        drift_exporters=metrics.exporters,
        routes=tuple(
            Route(signal, pipeline.receivers, _senders(pipeline, picked["exporters"]))
            for signal, (_, pipeline) in pipelines.items()
            if signal != "metrics" or drift.forward
        ),
        extensions=picked["extensions"],
        telemetry=service.telemetry.metrics.address,
        components=picked,
        service=service,
    )


def _senders(pipeline: Pipeline, exporters: Mapping[str, Exporter]) -> tuple[str, ...]:
    return tuple(name for name in pipeline.exporters if isinstance(exporters[name], Otlp | OtlpHttp))


# --- messages ---------------------------------------------------------------------------------------------


def _unknown(key: str, known: Mapping[str, Any] | tuple[str, ...], *, what: str = "key") -> str:
    close = get_close_matches(key, list(known), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown {what}; {hint}known here: {', '.join(known)}"


_LIST_ERRORS = ("tuple_type", "too_short", "too_long")
_MAPPING_ERRORS = ("model_type", "dict_type")


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
    elif kind in _MAPPING_ERRORS:
        # What stands there instead may be a secret that belongs below.
        return f"must be a mapping, got {'a list' if isinstance(detail['input'], list) else 'one value'}"
    elif kind in ("bool_parsing", "bool_type"):
        message = "must be true or false"
    elif kind == "string_type":
        message = "must be text; write it in quotes"
    elif kind != "value_error":
        message = re.sub("^(Input|Dictionary|String) should", "must", message)
    shown = "" if SECRETS.intersection(loc) else f", got {_shown(detail['input'])}"
    return message + shown


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if any(isinstance(item, dict | list) for item in value) else _written(value)
    return _written(value)


def _written(value: object) -> str:
    text = re.sub("^(['\"])(.*//)?.*@", r"\1\2[masked]@", repr(value))
    return re.sub(r"(://[^?]*\?).*", r"\1[masked]'", text)[:80]


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
