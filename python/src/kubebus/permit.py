"""The right to move a device once, until a moment; and which writes were seen, so that an id is carried out once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from .errors import DeviceError, DriverBug, MapperError, PermitExpired, Unsupported, BadAddress

MAX_WRITES = 1024
"""Writes that are remembered at a time. When all are still of use a further one is refused, so that none runs without
being remembered."""
KEEP = 300.0
"""A result is kept so many seconds beyond its write's end, to be sent again after a lost connection."""

DeviceId = Tuple[str, str]
Result = Dict[str, Any]


@dataclass(frozen=True)
class Now:
    """Seconds on the monotonic clock, and since 1970-01-01 UTC."""

    mono: float
    wall: float


def now() -> Now:
    return Now(time.monotonic(), time.time())


@dataclass(frozen=True)
class Deadline:
    """The end of a write's life on both clocks: a wall clock that jumps ahead ends it, one that jumps back cannot
    prolong it."""

    mono: float
    wall: float

    @staticmethod
    def of(sent_ms: int, ttl_ms: int, receipt: Now) -> Deadline:
        """`sent` + ttl and receipt + ttl, whichever ends first."""
        return Deadline(receipt.mono + ttl_ms / 1000, (sent_ms + ttl_ms) / 1000)

    def left(self, now: Now) -> float:
        return max(0.0, min(self.mono - now.mono, self.wall - now.wall))

    def is_over(self, now: Now) -> bool:
        return self.left(now) <= 0


class WritePermit:
    """The right to carry out one write. A driver calls `consume` right before the first byte leaves for the device, after
    every wait for a lock or a slow bus: too late there means that nothing moves. May be used from another thread."""

    def __init__(self, cause: str, deadline: Deadline, clock: Callable[[], Now] = now) -> None:
        self.cause = cause
        """Who moves the device and why, for the driver's log."""
        self._deadline, self._clock = deadline, clock
        self._lock = threading.Lock()
        self._is_over = False
        self.consumed = False

    def left(self) -> float:
        """Seconds in which the write may still begin."""
        return 0.0 if self._is_over else self._deadline.left(self._clock())

    def check(self) -> None:
        """Whether it is still worth going on; decides nothing, `consume` does."""
        if self.left() <= 0:
            raise PermitExpired("expired before it was carried out")

    def consume(self) -> None:
        """The last look at the clocks. Raises `PermitExpired` when it is too late: let that pass."""
        with self._lock:
            if self.consumed:
                raise DriverBug("a write permit is good for one write")
            self.check()
            self.consumed = True

    def revoke(self) -> None:
        """Nobody waits for the write any more: a driver that goes on by itself moves nothing."""
        with self._lock:
            self._is_over = True


def outcome_of(error: MapperError, consumed: bool) -> str:
    """What the node is told of a write that failed. Once the permit is consumed only the device's own refusal proves
    that nothing moved; everything else wants a look at the device."""
    if isinstance(error, DeviceError):
        return "failed"
    if consumed:
        return "unknown"
    if isinstance(error, PermitExpired):
        return "expired"
    return "rejected" if isinstance(error, (BadAddress, Unsupported)) else "failed"


@dataclass
class Entry:
    device: DeviceId
    property: str
    keep_until: float
    result: Optional[Result] = None


class Ledger:
    """The writes of this process's life."""

    def __init__(self) -> None:
        self.writes: Dict[str, Entry] = {}

    def admit(self, id: str, device: DeviceId, property: str, end: float, now: float) -> Optional[bool]:
        """Opens an entry for a write that is good until `end`. `True`: new, `False`: seen before, `None`: no room."""
        if id in self.writes:
            return False
        if len(self.writes) >= MAX_WRITES:
            self.writes = {k: e for k, e in self.writes.items() if e.result is None or e.keep_until > now}
        if len(self.writes) >= MAX_WRITES:
            return None
        self.writes[id] = Entry(device, property, max(end, now) + KEEP)
        return True

    def finish(self, id: str, outcome: str, detail: str) -> Optional[Result]:
        """Notes how a write ended; the first word counts. `None` if nobody asked for it or it had ended already."""
        entry = self.writes.get(id)
        if entry is None or entry.result is not None:
            return None
        entry.result = result_of(id, entry.device, entry.property, outcome, detail)
        return entry.result

    def running(self, device: DeviceId) -> List[str]:
        return [id for id, e in self.writes.items() if e.result is None and e.device == device]

    def results(self) -> List[Result]:
        """Every result that is still kept."""
        return [e.result for e in self.writes.values() if e.result is not None]


def result_of(id: str, device: DeviceId, property: str, outcome: str, detail: str) -> Result:
    """As `docs/schemas/mapper-result.json` has it."""
    named: Mapping[str, str] = {"namespace": device[0], "name": device[1]}
    return {"id": id, "device": named, "property": property, "outcome": outcome, "detail": detail}
