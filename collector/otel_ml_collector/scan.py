"""A bounded walk over protobuf wire bytes that makes no objects.

A request of 4 MB that holds nothing but empty points becomes 230 MB when it is parsed as a whole. Walking the
bytes costs no memory, so what a request holds can be counted, and refused, before anything is built from it.
Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from otel_ml.errors import OtelMLError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10

Field = tuple[int, int, int, int]
"""Field number, wire type; then a varint's value and the position after it, else the value's extent."""


class DecodeError(OtelMLError, ValueError):
    """The bytes are not the protobuf message they should be."""


class TooManyPoints(OtelMLError, ValueError):
    """A request holds more than the limits allow."""


class Budget:
    """How many fields and points may still be seen in one request."""

    __slots__ = ("_limit", "fields", "points")

    def __init__(self, max_points: int) -> None:
        self._limit = max_points
        self.points = max_points
        # A point alone in its own resource, scope and metric is 12 fields: no honest request has more.
        self.fields = 16 * max_points + 1000

    def spend_point(self) -> None:
        """Count one point; TooManyPoints when there are more than the limit."""
        self.points -= 1
        if self.points < 0:
            raise TooManyPoints(
                f"the request has more than {self._limit} data points; send smaller batches or raise "
                "max_data_points_per_request"
            )

    def spend_points(self, points: int) -> None:
        """Count points that stand one after the other; TooManyPoints when there are more than the limit."""
        self.points -= points - 1
        self.fields -= points
        self.spend_point()

    def no_fields_left(self) -> TooManyPoints:
        """The error for more fields than any request within the limit has."""
        return TooManyPoints(
            f"the request has more protobuf fields than {self._limit} data points can have; "
            "send smaller batches or raise max_data_points_per_request"
        )


def varint(buffer: bytes, position: int, end: int) -> tuple[int, int]:
    """Value of the varint at `position` and the position after it; DecodeError when `end` cuts it off."""
    if position + 1 < end and buffer[position + 1] < 0x80 <= buffer[position]:
        return buffer[position] & 0x7F | buffer[position + 1] << 7, position + 2  # sizes of most points
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        if position >= end:
            raise DecodeError(f"protobuf message is cut off at byte {position}")
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise DecodeError(f"protobuf varint before byte {position} has more than {_MAX_VARINT_BYTES} bytes")


def fields(buffer: bytes, start: int, end: int, budget: Budget) -> Iterator[Field]:
    """The fields of the message in `buffer[start:end]`, in wire order; groups are refused (OTLP has none)."""
    position = start
    while position < end:
        budget.fields -= 1
        if budget.fields < 0:
            raise budget.no_fields_left()
        tag = buffer[position]
        if tag < 0x80:  # nearly always: not worth a call
            position += 1
        else:
            tag, position = varint(buffer, position, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise DecodeError(f"protobuf field number 0 before byte {position}")
        if wire_type == VARINT:
            value, position = varint(buffer, position, end)
            yield number, VARINT, value, position
            continue
        value, stop = _extent(buffer, position, end, wire_type)
        if stop > end:
            raise DecodeError(f"protobuf field {number} at byte {position} is longer than its message")
        yield number, wire_type, value, stop
        position = stop


def _extent(buffer: bytes, position: int, end: int, wire_type: int) -> tuple[int, int]:
    if wire_type == LENGTH:
        if position < end and buffer[position] < 0x80:
            return position + 1, position + 1 + buffer[position]
        size, position = varint(buffer, position, end)
        return position, position + size
    if wire_type == FIXED64:
        return position, position + 8
    if wire_type == FIXED32:
        return position, position + 4
    raise DecodeError(f"protobuf wire type {wire_type} before byte {position} is not used in OTLP")


def message(buffer: bytes, start: int, end: int, number: int, budget: Budget) -> bytes:
    """Bytes of the singular message field `number`, empty when it is not there.

    A message field that occurs more than once is merged: on the wire, the parts one after another.
    """
    parts = [
        buffer[first:last]
        for found, wire_type, first, last in fields(buffer, start, end, budget)
        if found == number and wire_type == LENGTH
    ]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def messages(buffer: bytes, start: int, end: int, number: int, budget: Budget) -> Iterator[tuple[int, int]]:
    """Start and end of every message in the repeated field `number`."""
    for found, wire_type, first, last in fields(buffer, start, end, budget):
        if found == number and wire_type == LENGTH:
            yield first, last


def run(buffer: bytes, start: int, end: int, number: int, budget: Budget) -> tuple[list[int], list[int], int]:
    """Where the points that stand one after the other in a field begin and end, and where the last one ends.

    In a hurry: it stops at whatever is not as usual, and leaves that to `fields`.
    """
    firsts: list[int] = []
    lasts: list[int] = []
    tag, position, left = number << 3 | LENGTH, start, min(budget.points, budget.fields)
    while position + 2 < end and buffer[position] == tag and left:
        size, first = buffer[position + 1], position + 2
        if size >= 0x80:
            if buffer[first] >= 0x80:
                break
            size, first = size - 0x80 | buffer[first] << 7, first + 1
        if first + size > end:
            break
        position = first + size
        firsts.append(first)
        lasts.append(position)
        left -= 1
    budget.points -= len(firsts)
    budget.fields -= len(firsts)
    return firsts, lasts, position
