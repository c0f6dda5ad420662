"""A mapper's devices as the node names them: `docs/schemas/mapper-config.json`."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .permit import DeviceId
from .values import Value, coerce, parse_json, wire


@dataclass(frozen=True)
class Point:
    """One property of a device: its name, its type (bool, int, float, string, bytes, struct), and where it lives in the
    device (`visitors.configData`). A device's number is `raw * scale + shift`, where those two stand beside the address;
    a driver reads and writes raw numbers, and bytes as bytes."""

    name: str
    type: str
    address: Any
    unit: Optional[str] = None


@dataclass(frozen=True)
class Property:
    """A point with all that the mapper, not the driver, needs to know."""

    point: Point
    writable: bool
    period: float
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    scale: float = 1.0
    shift: float = 0.0
    fault: str = ""

    def from_device(self, raw: object) -> Value:
        """A driver's value as the node takes it; `ValueError` or `TypeError` if it makes no sense."""
        value = wire(raw)
        if (self.scale, self.shift) != (1.0, 0.0):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{value!r} is no number to scale")
            value = value * self.scale + self.shift
            if self.point.type == "int" and math.isfinite(value):
                value = math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)
        return coerce(value, self.point.type)

    def to_device(self, value: Value) -> object:
        """A wished value, of the property's type, as the driver writes it."""
        if self.point.type == "bytes":
            return base64.b64decode(str(value))
        if (self.scale, self.shift) == (1.0, 0.0) or isinstance(value, (bool, str, dict)):
            return value
        raw = (value - self.shift) / self.scale
        return round(raw) if self.point.type == "int" else raw

    def fitting(self, value: object) -> Value:
        """A wish as the property takes it; `ValueError` says why it does not."""
        if not self.writable:
            raise ValueError("not writable")
        fit = coerce(value, self.point.type)
        if isinstance(fit, (bool, int, float)):
            if self.minimum is not None and fit < self.minimum:
                raise ValueError(f"{fit} is below {self.minimum:g}")
            if self.maximum is not None and fit > self.maximum:
                raise ValueError(f"{fit} is above {self.maximum:g}")
        return fit


@dataclass(frozen=True)
class DeviceConfig:
    id: DeviceId
    connection: Any
    properties: Mapping[str, Property]

    def target(self, name: str) -> object:
        """What decides where a write of this property goes and what it does."""
        property = self.properties.get(name)
        return self.connection, property and replace(property, period=0.0)


def parse_config(payload: bytes) -> Dict[DeviceId, DeviceConfig]:
    """`ValueError` if it is not understood; nothing at all: no devices."""
    if not payload:
        return {}
    try:
        devices = [device_of(body) for body in parse_json(payload)["devices"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return {device.id: device for device in devices}


def device_of(body: Mapping[str, Any]) -> DeviceConfig:
    properties: List[Property] = [property_of(p) for p in body["properties"]]
    connection = {} if body["connection"] is None else body["connection"]
    return DeviceConfig(id_of(body["device"]), connection, {p.point.name: p for p in properties})


def id_of(body: Mapping[str, Any]) -> DeviceId:
    namespace, name = body["namespace"], body["name"]
    if not (isinstance(namespace, str) and isinstance(name, str)):
        raise TypeError("a device has a namespace and a name")
    return namespace, name


def property_of(body: Mapping[str, Any]) -> Property:
    address = {} if body["address"] is None else body["address"]
    scale, shift, fault = 1.0, 0.0, ""
    if isinstance(address, dict):
        address = dict(address)
        scale, fault = factor(address, "scale", 1.0)
        shift, other = factor(address, "shift", 0.0)
        fault = fault or other
    return Property(
        point=Point(str(body["name"]), str(body["type"]), address, body.get("unit")),
        writable=bool(body["writable"]),
        period=float(body["poll_ms"]) / 1000,
        minimum=body.get("minimum"),
        maximum=body.get("maximum"),
        scale=scale,
        shift=shift,
        fault=fault,
    )


def factor(address: Dict[str, Any], key: str, default: float) -> Tuple[float, str]:
    value = address.pop(key, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or (key == "scale" and value == 0):
        return default, f"{key}: {value!r} is no number to count with"
    return float(value), ""
