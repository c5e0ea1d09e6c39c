"""YAML text as plain data: within bounds, with `${env:NAME}` filled in, and with the line of every key.

A configuration can come from anywhere, so what it may cost is bounded before it is built: size, nesting, and
the number of values after every alias is written out (which is what an alias bomb runs up).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from .fields import SECRETS

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_VALUES = 10_000

Path = tuple[str | int, ...]

_REFERENCE = re.compile(r"\$\$|\$\{([^{}]*)\}")
_ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\Z", re.DOTALL)
_CORE = "tag:yaml.org,2002:"
_TYPES = {"null", "bool", "int", "float", "str"}
"""What a scalar can be; dates and anything with a tag of its own stay text."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where it is, and the way out."""

    path: Path
    message: str


@dataclass(slots=True)
class Document:
    """What a YAML text says."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    """Line (from 1) of each key; 0 for one that is not in a text."""
    problems: list[Problem] = field(default_factory=list)
    source: str = ""
    parts: list[Document] = field(default_factory=list)
    """What it was merged from."""

    def where(self, path: Path) -> str:
        """The line of `path`, or of the nearest key above it that is written in a text; empty for none."""
        while path:
            for part in reversed(self.parts or [self]):
                if path in part.lines:
                    line = part.lines[path]
                    file = [part.source] if self.parts else []
                    return f" ({', '.join([*file, f'line {line}'] if line else file)})"
            path = path[:-1]
        return ""


class _TooMuch(yaml.YAMLError):
    """The text asks for more than a configuration needs."""


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooMuch(f"nested deeper than {MAX_DEPTH} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def read(text: str, environ: Mapping[str, str], source: str = "", at: Path = ()) -> Document:
    """The content of one YAML `text`; what is wrong with it stands in `problems`, never in an exception.

    `at` is the path of a key whose value the text is.
    """
    document = Document(source=source)
    size = len(text.encode(errors="replace"))
    if size > MAX_BYTES:
        return _refused(document, f"{size} bytes are more than the {MAX_BYTES} a configuration may have", at)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            document.data = _Walk(loader, environ, document).value(node, at)
    except yaml.YAMLError as error:
        return _refused(document, f"not valid YAML: {_in_one_line(error)}", at)
    return document


def merged(parts: Sequence[Document]) -> Document:
    """One document of several: mappings are put together, anything else is what the last one says."""
    if len(parts) == 1:
        return parts[0]
    whole = Document(source=", ".join(part.source for part in parts), parts=list(parts))
    for part in parts:
        whole.data = _over(whole.data, part.data)
        whole.problems += part.problems
    return whole


def _over(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return below if above is None and isinstance(below, dict) else above
    return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}


def assignment(text: str, environ: Mapping[str, str]) -> Document:
    """The document that `key=value` stands for; the parts of the key are set apart by dots or by `::`."""
    key, equals, value = text.partition("=")
    parts = tuple(key.strip().split("::" if "::" in key else "."))
    source = f"--set {key}"
    if not equals or not all(parts):
        return _refused(
            Document(source=source), f"{source!r} is not key=value, like processors.ml_drift.alpha=0.01"
        )
    document = read(value, environ, source=source, at=parts)
    document.lines[parts] = 0
    for part in reversed(parts):
        document.data = {part: document.data}
    return document


def _refused(document: Document, message: str, at: Path = ()) -> Document:
    document.data = None
    document.problems.append(Problem(at, message))
    return document


def _in_one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    # The name of an alias is a secret that begins with an asterisk and was not put in quotes, perhaps.
    said = (
        "alias that is not defined; a value that begins with * needs quotes"
        if "alias" in problem
        else problem
    )
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}"


@dataclass(slots=True)
class _Walk:
    """Builds plain data from nodes, with a budget."""

    loader: _Loader
    environ: Mapping[str, str]
    document: Document
    values: int = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise _TooMuch(f"more than {MAX_VALUES} values once its aliases are written out")
        if len(path) > MAX_DEPTH:
            raise _TooMuch(f"nested deeper than {MAX_DEPTH} levels once its aliases are written out")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self.scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            below = (*path, key)
            if not isinstance(key_node, yaml.ScalarNode) or key == "<<":
                self.problem(
                    path, "keys must be plain words; merge keys (<<) are not read, write the keys out"
                )
                continue
            if key in result:
                self.problem(below, f"is given twice, again in line {key_node.start_mark.line + 1}; keep one")
            self.document.lines.setdefault(below, key_node.start_mark.line + 1)
            result[key] = self.value(value_node, below)
        return result

    def scalar(self, node: yaml.Node, path: Path) -> Any:
        if "$" in node.value:
            text = _REFERENCE.sub(lambda match: self.reference(match, path), node.value)
            plain = getattr(node, "style", None) is None
            # As in the Collector, plain text has its type after substitution: a port is a number.
            tag = self.loader.resolve(yaml.ScalarNode, text, (plain, not plain))  # type: ignore[no-untyped-call]
            node = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark)
        if node.tag.removeprefix(_CORE) not in _TYPES:
            return str(node.value)
        try:
            return self.loader.construct_object(node)
        except (ValueError, KeyError):
            shown = "" if SECRETS.intersection(path) else f": {node.value!r}"
            self.problem(path, f"cannot be read as {node.tag.removeprefix(_CORE)}{shown}")
            return None

    def reference(self, match: re.Match[str], path: Path) -> str:
        if match[0] == "$$":
            return "$"
        env = _ENV.match(match[1])
        if env is None:
            shown = "${…}" if SECRETS.intersection(path) else match[0]
            self.problem(path, f"{shown} is not a reference; write ${{env:NAME}} or ${{env:NAME:-default}}")
            return ""
        name, default = env[1], env[2]
        value: str | None = self.environ.get(name, default)
        if value is None:
            self.problem(
                path, f"environment variable {name} is not set; set it or give a default: ${{env:{name}:-…}}"
            )
            return ""
        return str(value)

    def problem(self, path: Path, message: str) -> None:
        self.document.problems.append(Problem(path, message))
