"""What can go wrong: with what an app asks for, and with a mapper's device."""

from __future__ import annotations

from typing import Dict, Optional, Type


class KubeBusError(Exception):
    """Everything that this package raises of its own."""


class NotConnected(KubeBusError):
    """There is no connection to the broker, or it broke before the broker had taken what was said. Nothing has left this
    process unless `sent`."""

    def __init__(self, why: str, sent: bool = False) -> None:
        super().__init__(why)
        self.sent = sent


class NotReported(KubeBusError):
    """Nobody has said anything of this property or device in the time given."""


class NotDone(KubeBusError):
    """An order that did not succeed. `outcome` is the node's word for it, `detail` says why."""

    outcome = "failed"

    def __init__(self, detail: str = "", command: Optional[str] = None) -> None:
        super().__init__(detail or self.outcome)
        self.detail = detail
        self.command = command


class Rejected(NotDone):
    """Refused before anything moved: wrong type, out of range, no such property, no right."""

    outcome = "rejected"


class Expired(NotDone):
    """Its time was over before it was begun; nothing moved."""

    outcome = "expired"


class Failed(NotDone):
    """The device or the line to it failed."""

    outcome = "failed"


class Superseded(NotDone):
    """Something newer or stronger took its place; nothing moved."""

    outcome = "superseded"


class Unknown(NotDone):
    """It may or may not have happened: read the device. It is never tried again by itself."""

    outcome = "unknown"


NOT_DONE: Dict[str, Type[NotDone]] = {
    kind.outcome: kind for kind in (Rejected, Expired, Failed, Superseded, Unknown)
}


class MapperError(KubeBusError):
    """What a driver raises. The kind decides what happens next, the text is for people."""

    keeps_session = False


class Transient(MapperError):
    """Worth trying again, not before `retry_after` seconds if the device named a time. Any `OSError` counts as one."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class DeviceTimeout(MapperError):
    """No answer in time. `TimeoutError` counts as one."""


class AuthError(MapperError):
    """Not let in: tried again after a minute, since trying quickly locks accounts."""


class ConfigError(MapperError):
    """The connection settings cannot work: the device waits until they change."""


class DriverBug(MapperError):
    """The driver is wrong, not the device; any other exception counts as one. Tried again after a minute."""


class DeviceError(MapperError):
    """The device answered, with a no: the session is kept."""

    keeps_session = True


class BadAddress(MapperError):
    """The address of one property cannot work: it is left out until the configuration changes."""

    keeps_session = True

    def __init__(self, point: str, why: str) -> None:
        super().__init__(f"address of {point}: {why}")
        self.point = point


class Unsupported(MapperError):
    """On a read: the points are left out until the configuration changes."""

    keeps_session = True


class PermitExpired(MapperError):
    """What `WritePermit.consume` raises when it is too late: let it pass, nothing moves."""

    keeps_session = True


def as_mapper_error(error: BaseException) -> MapperError:
    """Any exception of a driver as one of the kinds."""
    if isinstance(error, MapperError):
        return error
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    # `asyncio.TimeoutError` is another class than `TimeoutError` before Python 3.11.
    if isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError":
        return DeviceTimeout(text)
    if isinstance(error, (OSError, EOFError)):
        return Transient(text)
    return DriverBug(text)
