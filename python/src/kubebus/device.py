"""What to do next for one device: the decisions, without the driver and the clock.

    closed ---opened---> open ---session lost---> waiting ---time---> closed
      |  \\                |                          ^
      |   `---failed------|--------------------------'
      `---settings wrong--+--> stopped ---configuration changes---> closed
"""

from __future__ import annotations

import random
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from .config import Property
from .desk import Reading
from .errors import AuthError, BadAddress, ConfigError, DeviceError, DriverBug, MapperError, Transient, Unsupported
from .line import Backoff
from .permit import Now
from .polling import Freshness, Schedule

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Before a lost session is opened again, in seconds."""
START_SPREAD = 1.0
"""The first reading comes within so many seconds, at a moment of each device's own."""


class Device:
    """When to open, read, wait; what to report. Times are of the monotonic clock."""

    def __init__(self, now: float) -> None:
        self.state, self.until, self.why = "closed", 0.0, ""
        self.backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        self.schedule = Schedule(now + random.uniform(0, START_SPREAD))
        self.properties: Dict[str, Property] = {}
        self.freshness: Dict[str, Freshness] = {}
        self.latest: Dict[str, Reading] = {}
        self.report: Dict[str, Reading] = {}
        self.failing: Set[str] = set()

    def configure(self, properties: Mapping[str, Property], now: float) -> None:
        """A property that stays as it was keeps its value and its place in the schedule."""
        before, self.properties = self.properties, dict(properties)
        self.failing.clear()
        for gone in set(before) - set(properties):
            self.schedule.remove(gone)
        for name, new in properties.items():
            old = before.get(name)
            if old is None or (old.point, old.scale, old.shift) != (new.point, new.scale, new.shift):
                self.freshness[name] = Freshness()
                self.latest.pop(name, None)
            self.freshness[name].set_period(new.period)
            self.schedule.set(name, new.period, now)

    def reopen(self) -> None:
        """The settings changed, or a session that was given up gets a new chance."""
        self.state = "closed"
        self.backoff.reset()

    def quarantine(self, name: str) -> None:
        """Leaves a property out until the configuration changes."""
        self.schedule.remove(name)

    def handle_lost(self, error: MapperError, now: float) -> float:
        """The session is gone, or could not be opened. Returns for how long the device is left alone."""
        self.why = str(error)
        if isinstance(error, ConfigError):
            self.state = "stopped"
            return float("inf")
        wait = LONGEST_WAIT if isinstance(error, (AuthError, DriverBug)) else self.backoff.next_wait()
        if isinstance(error, Transient):
            wait = max(wait, error.retry_after)
        self.state, self.until = "waiting", now + wait
        return wait

    def handle_read(
        self, batch: List[str], got: Mapping[str, Any], missing: Optional[MapperError], now: Now
    ) -> List[Tuple[str, MapperError]]:
        """What was read, a reading or an error each; `missing` became of the others, unless the session is lost anyway.
        Returns those that fail for the first time since they had a value."""
        complaints = []
        for name in batch:
            said = got.get(name, missing)
            if isinstance(said, MapperError):
                if self.handle_failed(name, said):
                    complaints.append((name, said))
            elif said is not None:
                self.backoff.reset()
                self.failing.discard(name)
                self.keep(name, said, now.mono)
        return complaints

    def handle_failed(self, name: str, error: MapperError) -> bool:
        """One point could not be read: its last value grows old, that is all that is known."""
        if isinstance(error, BadAddress) and error.point != name:
            return False  # another point's fault
        if isinstance(error, (BadAddress, Unsupported)):
            self.quarantine(name)
        is_news = name not in self.failing
        self.failing.add(name)
        return is_news

    def handle_written(self, name: str, readback: Optional[Reading], now: float) -> None:
        """A write went well: what the device read back is reported, and the property is read soon."""
        self.schedule.hurry(name, now)
        if readback is not None and name in self.properties:
            self.keep(name, readback, now)

    def keep(self, name: str, reading: Reading, now: float) -> None:
        if name in self.freshness:
            self.freshness[name].read(reading["quality"] == "bad", now)
            self.latest[name] = self.report[name] = reading

    def expire(self, now: float) -> None:
        for name in self.properties:
            if self.freshness[name].expire(now):
                self.report[name] = self.latest[name] = {**self.latest[name], "quality": "bad"}

    def step(self, now: float) -> Tuple[str, List[str], Optional[float]]:
        """`open`; `read` and what; or `wait` and until when, `None`: until somebody writes or configures."""
        self.expire(now)
        if self.state == "waiting" and self.until <= now:
            self.state = "closed"
        if self.state == "closed":
            return "open", [], None
        ends = [f.ends() for name, f in self.freshness.items() if name in self.properties]
        if self.state == "waiting":
            ends.append(self.until)
        if self.state == "open":
            due = self.schedule.take_due(now)
            if due:
                return "read", due, None
            ends.append(self.schedule.next())
        return "wait", [], min((at for at in ends if at is not None), default=None)

    def take_report(self) -> Dict[str, Reading]:
        report, self.report = self.report, {}
        return report


NO_VALUE = DeviceError("no value")
"""What became of a point that a reading without an error did not mention."""
