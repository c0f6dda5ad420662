"""What a vendor writes: how to open, read and write one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Union

from .config import Point
from .permit import WritePermit


@dataclass(frozen=True)
class Sample:
    """A value that is not simply good and of now. `quality`: good, uncertain, bad. `time`: seconds since 1970-01-01 UTC."""

    value: object
    quality: str = "good"
    time: Optional[float] = None


class Accepted:
    """The type of `ACCEPTED`."""


ACCEPTED = Accepted()
"""What `Driver.write` returns where the device has accepted a value and is still on its way (a valve that travels)."""

Got = Mapping[str, Union[object, Sample, Exception]]
"""By the point's name: a value, a `Sample`, or why this one could not be read."""


class Driver:
    """One session with one device. A new object is made for each session, one method is called at a time, and after an
    error that ends the session the object is never used again. Nothing may block: what does belongs into
    `asyncio.to_thread`."""

    async def open(self, config: Mapping[str, Any]) -> None:
        """Connects to the device, with its `protocol.configData`; must not change anything in it. 30 s."""

    async def read(self, points: Sequence[Point]) -> Got:
        """Reads all points, in as few round trips as the protocol allows; must not write. 10 s."""
        raise NotImplementedError

    async def write(self, point: Point, value: Any, permit: WritePermit) -> object:
        """Writes one value, of the property's type and within its range. `permit.consume()` comes right before the device
        hears of it. Returns `None`, what the device says it holds now, or `ACCEPTED`. Ends when the write's time is over.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Lets the device go; called once for each object, also where `open` failed. 2 s."""
