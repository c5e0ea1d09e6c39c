"""OTLP/JSON as the protobuf bytes it stands for, so that there is one decoder behind both.

OTLP's JSON differs from protobuf's own (`json_format` reads other ids and costs far more): trace and span ids
are hexadecimal, enums are numbers, and a key that is not known is passed over.
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from .scan import DecodeError, TooManyPoints

_HEX = frozenset({"trace_id", "span_id", "parent_span_id"})
_MAX_DEPTH = 90
"""Levels of messages; protobuf itself reads 100. A value within a value is two of them."""
_NUMBER = re.compile(r"NaN|-?Infinity|-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MAX_SHOWN = 40


def protobuf(request: type[Message], body: bytes, *, max_values: int) -> bytes:
    """The request in `body` in protobuf's encoding.

    Raises DecodeError when it is not one, TooManyPoints when it has more than about `max_values` values:
    what is read of three bytes takes a hundred in memory.
    """
    if body.count(b",") + body.count(b"{") + body.count(b"[") > max_values:
        raise TooManyPoints(
            f"the request has more than {max_values} JSON values; send smaller batches or use protobuf"
        )
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"the body is not valid JSON: {error}") from error
    message = request()
    _fill(message, data, 0)
    return message.SerializeToString()


class _Field(NamedTuple):
    name: str
    path: str
    repeated: bool
    convert: Callable[[Any], Any] | None
    """None: the field is a message."""


@cache
def _fields(descriptor: Descriptor) -> dict[str, _Field]:
    """By lowerCamelCase name, which is the only one that OTLP/JSON knows."""
    return {
        field.json_name: _Field(
            field.name,
            f"{descriptor.name}.{field.json_name}",
            _repeated(field),
            _converter(field) if field.message_type is None else None,
        )
        for field in descriptor.fields
    }


def _repeated(field: FieldDescriptor) -> bool:
    try:
        return bool(field.is_repeated)
    except AttributeError:  # protobuf 5
        return bool(field.label == FieldDescriptor.LABEL_REPEATED)  # type: ignore[attr-defined]


def _fill(message: Message, data: object, depth: int) -> None:
    if not isinstance(data, dict):
        raise DecodeError(f"{message.DESCRIPTOR.name} must be a JSON object, not {_shown(data)}")
    if depth > _MAX_DEPTH:
        raise DecodeError(f"the body is nested deeper than {_MAX_DEPTH} messages")
    fields = _fields(message.DESCRIPTOR)
    for key, value in data.items():
        field = fields.get(key)
        if field is None or value is None:
            continue
        try:
            _set(message, field, value, depth)
        except (ValueError, TypeError, OverflowError) as error:
            if isinstance(error, DecodeError):
                raise
            raise DecodeError(f"{field.path} cannot be {_shown(value)}") from error


def _set(message: Message, field: _Field, value: Any, depth: int) -> None:
    if field.repeated:
        _extend(message, field, value, depth)
    elif field.convert is None:
        below = getattr(message, field.name)
        below.SetInParent()
        _fill(below, value, depth + 1)
    else:
        setattr(message, field.name, field.convert(value))


def _extend(message: Message, field: _Field, value: Any, depth: int) -> None:
    if not isinstance(value, list):
        raise DecodeError(f"{field.path} must be a JSON array, not {_shown(value)}")
    target = getattr(message, field.name)
    if field.convert is None:
        for item in value:
            _fill(target.add(), item, depth + 1)
    else:
        target.extend([field.convert(item) for item in value])


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = orjson.dumps(value).decode()
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


# --- scalars ----------------------------------------------------------------------------------------------


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        names = _numbers(field.enum_type)
        # Numbers are the rule; names are what other JSON writers send, and the Collector reads them.
        return lambda value: names[value] if isinstance(value, str) and value in names else _integer(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _hex if field.name in _HEX else _base64
    return _SCALARS[field.cpp_type]


def _numbers(enum: EnumDescriptor) -> dict[str, int]:
    return {value.name: value.number for value in enum.values}


def _integer(value: Any) -> int:
    """An integer from a number without a fraction, or from its decimal digits in a string."""
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    if isinstance(value, str) and not (value.isascii() and value.removeprefix("-").isdecimal()):
        raise ValueError
    return int(value)


def _double(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError
    return float(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _hex(value: Any) -> bytes:
    text = _string(value)
    if text and not text.isalnum():  # fromhex passes over spaces
        raise ValueError
    return bytes.fromhex(text)


def _base64(value: Any) -> bytes:
    text = _string(value).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError from error


_SCALARS: dict[int, Callable[[Any], Any]] = {
    FieldDescriptor.CPPTYPE_INT32: _integer,
    FieldDescriptor.CPPTYPE_INT64: _integer,
    FieldDescriptor.CPPTYPE_UINT32: _integer,
    FieldDescriptor.CPPTYPE_UINT64: _integer,
    FieldDescriptor.CPPTYPE_DOUBLE: _double,
    FieldDescriptor.CPPTYPE_FLOAT: _double,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_STRING: _string,
}
