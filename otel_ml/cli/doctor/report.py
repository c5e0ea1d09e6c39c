"""All that doctor found, as one value: for people by `page`, for machines by `as_json`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import baselines, endpoints, environment
from .baselines import File
from .endpoints import Destination
from .environment import Library
from .finding import Finding
from .program import Program, run

TIMEOUT = 3.0
"""Seconds for a connection, and for the answer to a request."""


@dataclass(slots=True)
class Report:
    """What there is, and what is wrong with it."""

    versions: dict[str, str]
    libraries: list[Library]
    destinations: list[Destination]
    directory: str | None = None
    baselines: list[File] = field(default_factory=list)
    program: dict[str, Any] | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return not any(one.broken for one in self.findings)


def examine(directory: Path | None, program: Program | None) -> Report:
    """Look at the environment, at a directory of baselines and, from inside, at a program."""
    planned, findings = endpoints.planned()
    report = Report(environment.versions(), environment.libraries(), endpoints.reach(planned, TIMEOUT))
    report.findings = [*findings, *environment.check()]
    if directory is not None:
        report.directory = str(directory)
        report.baselines, more = baselines.look(directory)
        report.findings += more
    if program is None:
        report.findings += [*_endpoints(report, None), *_alone(report)]
    else:
        report.program = told = endpoints.masked_values({**run(program), "name": str(program)})
        more = [one if isinstance(one, Finding) else Finding(**one) for one in told.pop("findings")]
        report.findings += _endpoints(report, told.get("sent"))
        if any(one.broken for one in report.destinations):  # it is said already
            more = [one for one in more if "export" not in one.what]
        report.findings += more
    report.findings = [_masked(one) for one in report.findings]
    return report


def _endpoints(report: Report, sent: Collection[str] | None) -> list[Finding]:
    """What does not get through, weighed by the signals that the program has sent."""
    report.destinations = endpoints.weigh(report.destinations, sent)
    return list(endpoints.check(report.destinations))


def _alone(report: Report) -> list[Finding]:
    """What can only be said of an environment without a program."""
    found = [
        environment.unsupported(library)
        for library in report.libraries
        if library.version is not None and not library.supported
    ]
    if report.destinations and all(one.url is None for one in report.destinations):
        found.append(
            Finding(
                "the environment names no endpoint", "otel_ml.configure() then prints telemetry to the console",
                "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317, once a receiver listens there", broken=False,
            )
        )  # fmt: skip
    return found


def _masked(finding: Finding) -> Finding:
    what, why, todo = (endpoints.masked(text) for text in (finding.what, finding.why, finding.todo))
    return Finding(what, why, todo, finding.broken)


def as_json(report: Report) -> str:
    """The report for machines; `ok` is what the exit code says."""
    told = {"ok": report.ok, **asdict(report)}
    for destination in told["destinations"]:
        destination["ok"] = destination.pop("why") is None
    return json.dumps(endpoints.masked_values(told), indent=2, ensure_ascii=False)
