"""KubeBus from Python: an app reads, sets and watches device twins, a vendor writes a mapper. asyncio over MQTT."""

from .bus import Bus, Device, connect
from .errors import (
    AuthError,
    BadAddress,
    ConfigError,
    DeviceError,
    DeviceTimeout,
    DriverBug,
    Expired,
    Failed,
    KubeBusError,
    MapperError,
    NotConnected,
    NotDone,
    NotReported,
    PermitExpired,
    Rejected,
    Superseded,
    Transient,
    Unknown,
    Unsupported,
)
from .mapper import ACCEPTED, Driver, Mapper, Point, Sample, main
from .permit import WritePermit
from .values import Ack, Change, Desired, DeviceState, Reported, Value

__all__ = [
    "ACCEPTED", "Ack", "AuthError", "BadAddress", "Bus", "Change", "ConfigError", "Desired", "Device", "DeviceError",
    "DeviceState", "DeviceTimeout", "Driver", "DriverBug", "Expired", "Failed", "KubeBusError", "Mapper", "MapperError",
    "NotConnected", "NotDone", "NotReported", "PermitExpired", "Point", "Rejected", "Reported", "Sample", "Superseded",
    "Transient", "Unknown", "Unsupported", "Value", "WritePermit", "connect", "main",
]
