"""Values, readings and what else is said of a device; the JSON of the topics is in the repository's `docs/schemas`."""

from __future__ import annotations

import base64
import binascii
import builtins
import json
import math
from dataclasses import dataclass, field
from time import monotonic
from time import time as wall_clock
from typing import Any, Dict, Mapping, Optional, Union

Value = Union[bool, int, float, str, Dict[str, Any]]
"""As the property's type in the model has it; bytes are base64 text (RFC 4648 §4)."""

I64 = range(-(2**63), 2**63)
EXACT = 2.0**53
"""Beyond it a float no longer names one integer."""


@dataclass(frozen=True)
class Ack:
    """How the last desired value ended: acknowledged by its version, not by equal values."""

    version: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True)
class Reported:
    """What the device's edge knows of a property. `time` is seconds since 1970-01-01 UTC, by the mapper's clock."""

    value: Value
    quality: str
    time: float
    rev: int
    ack: Optional[Ack] = None
    told_age: Optional[float] = None
    retained: bool = False
    heard: float = field(default_factory=monotonic, compare=False)

    @property
    def is_good(self) -> bool:
        return self.quality == "good"

    @property
    def age(self) -> Optional[float]:
        """Seconds since it was read; of a retained value by the clocks of both machines. `None`: cannot be told."""
        if self.retained:
            age = wall_clock() - self.time
            return age if age >= 0 else None
        return None if self.told_age is None else self.told_age + monotonic() - self.heard

    def __str__(self) -> str:
        age = self.age
        return f"{self.value} ({self.quality}, {'age unknown' if age is None else f'{age:.1f} s old'})"


@dataclass(frozen=True)
class Desired:
    """What is wished of a property, by whoever holds the authority. `issued` is seconds since 1970-01-01 UTC."""

    value: Value
    version: str
    issued: float
    by: str


@dataclass(frozen=True)
class DeviceState:
    """`state` is online, degraded, offline or unknown; `last_seen` is seconds since 1970-01-01 UTC."""

    state: str
    reason: str = ""
    last_seen: Optional[float] = None


Said = Union[Reported, Desired, DeviceState]


@dataclass(frozen=True)
class Change:
    """News of a device: of one property, or of its state. `skipped` older ones of the same were never looked at."""

    namespace: str
    device: str
    property: str
    said: Said
    skipped: int = 0

    @builtins.property
    def value(self) -> Value:
        """The value; of a device's state the word."""
        return self.said.state if isinstance(self.said, DeviceState) else self.said.value


def parse_json(payload: bytes) -> Any:
    """Raises `ValueError` for what is no JSON, also where Python's own parser is more lenient or gives up."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(payload.decode("utf-8"), parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def wire(value: object) -> Value:
    """A value of Python's as JSON has it: bytes as base64 text."""
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, (bool, int, float, str, dict)):
        return value
    raise TypeError(f"{value!r} is no value of a property: it may be bool, int, float, str, bytes or dict")


def coerce(value: object, value_type: str) -> Value:
    """`value` as a property of this type has it; `ValueError` if it is none."""
    value = wire(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a finite number")
    is_int = isinstance(value, int) and not isinstance(value, bool) and value in I64
    if value_type == "float" and is_int:
        return float(value)  # type: ignore[arg-type]
    if value_type == "int" and isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
        return int(value)
    if value_type == "bytes" and isinstance(value, str):
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error:
            raise ValueError("not base64") from None
        return value
    kinds = {"bool": isinstance(value, bool), "int": is_int, "float": isinstance(value, float)}
    kinds.update({"string": isinstance(value, str), "struct": isinstance(value, dict)})
    if kinds.get(value_type, False):
        return value
    raise ValueError(f"expected {value_type}, got {value!r}")


def said_of(kind: str, body: Mapping[str, Any], retained: bool) -> Said:
    """What a message on `reported/..`, `desired/..` or `state` says; `ValueError` and the like if it is malformed."""
    if kind == "state":
        seen = body.get("last_seen")
        return DeviceState(body["state"], body.get("reason", ""), None if seen is None else seen / 1000)
    if kind == "desired":
        return Desired(body["value"], body["version"], body["issued"] / 1000, body["by"])
    ack, age = body.get("ack"), body.get("age_ms")
    return Reported(
        value=body["value"],
        quality=body["quality"],
        time=body["time"] / 1000,
        rev=body["rev"],
        ack=None if ack is None else Ack(ack["version"], ack["outcome"], ack.get("detail", "")),
        told_age=None if age is None else age / 1000,
        retained=retained,
    )
