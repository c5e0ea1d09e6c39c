"""The text of docs/api.md and docs/settings.md, from signatures, docstrings and `otel_ml.config`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

import otel_ml
from otel_ml import config, sampling, testing

WIDTH = 100
_ARGUMENT = re.compile(r"(- )?`?([a-zX][\w`, ]*)`?: (.+)")


# --- docs/api.md ------------------------------------------------------------------------------------------

API = """\
# The public API

All of it, made from the code. Whatever is not here can change at any time.
"""


def api() -> str:
    """The text of docs/api.md."""
    named = {name: getattr(otel_ml, name) for name in otel_ml.__all__}
    public = {name: value for name, value in named.items() if callable(value)}
    errors = {name: value for name, value in public.items() if _is_error(value)}
    lines = [API, "## `otel_ml`", ""]
    for name, value in public.items():
        if name not in errors:
            lines += _entry(name, value)
    lines += ["### Errors", "", *(f"- `{name}`: {_first(value)}" for name, value in errors.items()), ""]
    for title, module in (("otel_ml.sampling", sampling), ("otel_ml.testing", testing)):
        lines += [f"## `{title}`", "", *_markdown(_doc(module).partition("\n\n")[0]), ""]
        for name in module.__all__:
            lines += _entry(name, getattr(module, name))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _doc(value: object) -> str:
    return inspect.getdoc(value) or ""


def _first(value: object) -> str:
    return " ".join(_doc(value).partition("\n\n")[0].split())


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"### `{name}`"
    yield ""
    if isinstance(value, type):
        yield from _class(name, value)
    elif inspect.isfunction(value):
        yield from _code(_signature(name, value))
        yield from _markdown(_doc(value))
        yield ""
    else:
        yield from _code(f"{name} = {re.sub(r'[a-z_.]+[.](?=[A-Z])', '', str(value))}")


def _class(name: str, kind: type) -> Iterator[str]:
    said = _doc(kind)
    made = "__dataclass_fields__" in vars(kind) or issubclass(kind, tuple)
    if not made or name in CONFIGURED:
        yield from _code(_signature(name, kind))
    yield from _markdown(said)
    if name not in CONFIGURED:
        yield from [*_fields(kind), ""] if made else []
        for member, value in _members(kind):
            yield from _member(name, member, value)


CONFIGURED = ("Segment", "Stratified", "Uncertainty", "When")
"""Classes that are made and handed over; what they then do is nobody's business."""


def _fields(kind: type) -> Iterator[str]:
    """The public fields of a class of values, with the string below each."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    for statement, below in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.target).startswith("_"):
            shown = f"{ast.unparse(statement.target)}: {ast.unparse(statement.annotation)}"
            constant = below.value if isinstance(below, ast.Expr) else None
            text = " ".join(str(constant.value).split()) if isinstance(constant, ast.Constant) else ""
            yield f"- `{shown}` {text}".rstrip()


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class defines itself, in the order of its code."""
    for name, value in vars(kind).items():
        inner = getattr(value, "__func__", value)
        if (
            not name.startswith("_")
            and (inspect.isfunction(inner) or isinstance(value, property))
            and _doc(inner)
        ):
            yield name, value


def _member(owner: str, name: str, value: Any) -> Iterator[str]:
    if isinstance(value, property):
        yield from [f"- **`.{name}`** {_first(value)}", ""]
        return
    bound = isinstance(value, (classmethod, staticmethod))
    function = getattr(value, "__func__", value)
    yield from _code(_signature(f"{owner if bound else ''}.{name}", function, skip_first=True))
    yield from _markdown(_doc(function))
    yield ""


def _code(text: str) -> Iterator[str]:
    yield from ["```py", text, "```", ""]


def _signature(name: str, value: Callable[..., Any], *, skip_first: bool = False) -> str:
    signature = inspect.signature(value)
    parameters = list(signature.parameters.values())[1 if skip_first else 0 :]
    shown, star = [], False
    for one in parameters:
        if one.kind is one.VAR_POSITIONAL:
            star = True
        elif one.kind is one.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        shown.append(_parameter(one))
    gives = _annotation(signature.return_annotation)
    end = f") -> {gives}" if gives and not isinstance(value, type) else ")"
    line = f"{name}({', '.join(shown)}{end}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in shown), end])


def _parameter(one: inspect.Parameter) -> str:
    prefix = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    annotation = _annotation(one.annotation)
    typed = f"{prefix}{one.name}: {annotation}" if annotation else f"{prefix}{one.name}"
    if one.default is inspect.Parameter.empty:
        return typed
    return f"{typed}{' = ' if annotation else '='}{_default(one.default)}"


def _default(value: object) -> str:
    return getattr(value, "__name__", "…") if callable(value) else repr(value)


def _annotation(annotation: object) -> str:
    """As it is written, without what is private."""
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return text.replace(" | _Missing", "")


def _markdown(text: str) -> Iterator[str]:
    """A docstring, with the lines `name: what it is` as a list, and each item on one line."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("    "):
            yield from ["```py", inspect.cleandoc(paragraph), "```", ""]
        elif all(_ARGUMENT.match(line) or line.startswith(" ") for line in paragraph.splitlines()):
            yield from [*map(_item, _items(paragraph)), ""]
        else:
            yield from [*paragraph.splitlines(), ""]


def _items(paragraph: str) -> list[str]:
    items: list[str] = []
    for line in paragraph.splitlines():
        if line.startswith(" ") and items:
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    return items


def _item(line: str) -> str:
    found = _ARGUMENT.match(line)
    if found is None or found[1]:
        return line
    names = ", ".join(f"`{name.strip()}`" for name in found[2].split(","))
    return f"- {names}: {found[3]}"


# --- docs/settings.md -------------------------------------------------------------------------------------

SETTINGS = """\
# Settings

One rule: what the code says goes before a variable of the environment, and that before the default. `otel-ml doctor`
says which variables are wrong, and what the ones for exporters come to.

## otel-ml's own

A value that cannot be right is said in one log line; the defaults are used then.
"""

OPENTELEMETRY = """\
## OpenTelemetry's

Those that matter most here. `otel_ml.configure()` and `opentelemetry-instrument` read them; of providers that you
set up yourself your code decides.
"""

ARGUMENTS = """\
## Arguments

Of `otel_ml.configure`, `otel_ml.instrument`, `otel_ml.observe` and `otel_ml.register`. None of them but `service_name`
has a variable: they belong to a model, and a process has many. [api.md](api.md) has the signatures.
"""


def settings() -> str:
    """The text of docs/settings.md."""
    lines = [SETTINGS, *_row("variable", "default", "what it does"), *_row(*["---"] * 3)]
    said = {line.partition(":")[0].removeprefix("- `"): line for line in _fields(config.Settings)}
    for item in fields(config.Settings):
        default = str(item.default).lower() if isinstance(item.default, bool) else str(item.default)
        text = said[item.name].partition("` ")[2]
        lines += _row(f"`{item.metadata['environment']}`", f"`{default}`" if default else "none", text)
    lines += ["", OPENTELEMETRY, *_row("variable", "goes before it", "default", "what it does")]
    lines += _row(*["---"] * 4)
    for one in config.VARIABLES:
        argument = f"`{one.argument}`" if one.argument else ""
        lines += _row(f"`{one.name}`", argument, one.default or "none", one.text)
    lines += [
        "",
        "otel-ml-collector reads no variables but those its file names: `${env:NAME:-default}`.",
        "",
    ]
    lines += [ARGUMENTS, *_row("argument", "of", "default", "what it is"), *_row(*["---"] * 4), *_arguments()]
    return "\n".join(lines) + "\n"


def _arguments() -> Iterator[str]:
    functions = {name: getattr(otel_ml, name) for name in ("configure", "instrument", "observe", "register")}
    texts: dict[str, str] = {}
    owners: dict[str, list[str]] = {}
    defaults: dict[str, dict[str, str]] = {}
    for name, function in functions.items():
        for argument, text in _told(function).items():
            texts.setdefault(argument, text)
        for one in inspect.signature(function).parameters.values():
            owners.setdefault(one.name, []).append(name)
            shown = "needed" if one.default is one.empty else f"`{one.default!r}`"
            defaults.setdefault(one.name, {})[name] = shown
    for argument, names in owners.items():
        if argument not in texts:
            raise SystemExit(f"no docstring says what {argument!r} of {', '.join(names)} is")
        given = defaults[argument]
        same = len(set(given.values())) == 1
        default = given[names[0]] if same else ", ".join(f"{given[name]} ({name})" for name in names)
        yield from _row(f"`{argument}`", ", ".join(names), default, texts[argument])


def _told(function: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says of each argument."""
    found = {}
    for paragraph in _doc(function).split("\n\n"):
        for line in _items(paragraph):
            match = _ARGUMENT.match(line)
            if match is not None and not match[3].startswith("as of "):
                found |= {name.strip("` "): match[3] for name in match[2].split(",")}
    return found


def _row(*cells: str) -> Iterable[str]:
    return ["| " + " | ".join(cells) + " |"]
