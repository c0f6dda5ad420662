"""When which property is read, and how old its last value is. Times are seconds on one clock, given as arguments."""

from __future__ import annotations

import math
from typing import Dict, List, Optional

MIN_PERIOD = 0.05
"""Shortest period in seconds: a typing error must not flood a bus."""
PERIODS = 3
"""A polled value is too old after this many periods: one lost reading is noise, three are a fault."""
MIN_AGE = 2.0
"""No value is called too old earlier, in seconds: a short period is no promise of a fast device."""


class Schedule:
    """Reading times of one device. All periods run from one start, so that what falls together is read together; a tick
    that was missed is left out, not made up for."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.period: Dict[str, float] = {}
        self.next_at: Dict[str, float] = {}

    def set(self, point: str, period: float, now: float) -> None:
        """Reads `point` every `period` from now on, or never if that is zero. One that keeps its period keeps its place."""
        if period <= 0:
            return self.remove(point)
        period = max(period, MIN_PERIOD)
        if self.period.get(point) != period:
            self.period[point], self.next_at[point] = period, max(now, self.start)

    def remove(self, point: str) -> None:
        self.period.pop(point, None)
        self.next_at.pop(point, None)

    def hurry(self, point: str, now: float) -> None:
        """Reads it as soon as possible (it was just written); its later ticks stay as they were."""
        if point in self.next_at:
            self.next_at[point] = now

    def take_due(self, now: float) -> List[str]:
        """Everything that is due, moved on to its next tick."""
        due = sorted(point for point, at in self.next_at.items() if at <= now)
        for point in due:
            period = self.period[point]
            passed = math.floor(max(0.0, now - self.start) / period)
            tick = self.start + period * (passed + 1)
            self.next_at[point] = tick if tick > now else tick + period
        return due

    def next(self) -> Optional[float]:
        return min(self.next_at.values(), default=None)


class Freshness:
    """The age of one property's last value. When readings fail for longer than it may last, it is told once more, as
    bad, with its own time; nothing is invented for a property that was never read."""

    def __init__(self) -> None:
        self.max_age: Optional[float] = None
        self.read_at: Optional[float] = None

    def set_period(self, period: float) -> None:
        """Zero: never polled, so never too old."""
        self.max_age = max(PERIODS * period, MIN_AGE) if period > 0 else None

    def read(self, is_bad: bool, now: float) -> None:
        self.read_at = None if is_bad else now

    def ends(self) -> Optional[float]:
        """When the last value becomes too old, if nothing newer comes."""
        return None if self.read_at is None or self.max_age is None else self.read_at + self.max_age

    def expire(self, now: float) -> bool:
        """Whether it becomes too old just now."""
        ends = self.ends()
        if ends is None or ends > now:
            return False
        self.read_at = None
        return True
