"""The configuration for people and for editors: what is in effect, and what there is."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .components import TYPES
from .config import Config
from .settings import ServiceSection

_ORDER = ("extensions", "receivers", "processors", "exporters")
_REFERENCE = {"type": "string", "pattern": r"\$\{env:"}
_SCALARS = ("integer", "number", "boolean")


def effective(config: Config) -> str:
    """The configuration in effect as YAML: all that runs, with every default, and secrets masked."""
    shown: dict[str, Any] = {
        section: {id_: one.model_dump(mode="json") for id_, one in config.components[section].items()}
        for section in _ORDER
    }
    shown["service"] = config.service.model_dump(mode="json")
    return yaml.safe_dump(shown, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def components() -> dict[str, list[str]]:
    """The types of component there are, by section."""
    return {section: sorted(TYPES[section]) for section in _ORDER}


def schema() -> dict[str, Any]:
    """JSON Schema of a configuration file, for editors that complete and check."""
    models: list[type[BaseModel]] = [
        ServiceSection,
        *(one for types in TYPES.values() for one in types.values()),
    ]
    references, definitions = models_json_schema([(model, "validation") for model in models])

    def of(model: type[BaseModel]) -> dict[str, Any]:
        return references[(model, "validation")]

    sections: dict[str, Any] = {
        section: {
            "type": ["object", "null"],
            "patternProperties": {
                f"^{type_}(/.+)?$": {"anyOf": [of(model), {"type": "null"}]} for type_, model in types.items()
            },
            "additionalProperties": False,
        }
        for section, types in TYPES.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "otel-ml-collector",
        "type": "object",
        "properties": {**sections, "service": of(ServiceSection)},
        "required": ["service"],
        "additionalProperties": False,
        "$defs": _or_reference(definitions["$defs"]),
    }


def _or_reference(node: Any) -> Any:
    """The schema in which a number or a switch may also be a reference to the environment."""
    if isinstance(node, list):
        return [_or_reference(one) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") in _SCALARS:
        return {"anyOf": [node, _REFERENCE]}
    return {key: _or_reference(value) for key, value in node.items()}
