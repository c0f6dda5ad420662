"""One device's task: owns the driver's session and does what `Device` says, one call at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Awaitable, Callable, Deque, Dict, List, Mapping, Optional, Tuple, TypeVar

from .config import DeviceConfig, Property
from .desk import Order, Reading
from .device import NO_VALUE, Device
from .driver import ACCEPTED, Driver, Got, Sample
from .errors import BadAddress, DeviceTimeout, DriverBug, MapperError, as_mapper_error
from .permit import DeviceId, WritePermit, now, outcome_of

LOG = logging.getLogger("kubebus")

OPEN_TIMEOUT, READ_TIMEOUT, CLOSE_TIMEOUT = 30.0, 10.0, 2.0
"""How long a driver may take, in seconds: enough for slow field buses, short enough that a hanging one is seen."""
CANCEL_GRACE = 1.0
"""How long a driver may take to let itself be cancelled; then it is left alone."""
MAX_ORDERS = 16
"""Writes that wait for one device; when full a further one is refused."""

T = TypeVar("T")


class Abandoned(Exception):
    """The device is served no more."""


class Attendant:
    def __init__(
        self,
        driver: Callable[[], Driver],
        config: DeviceConfig,
        report: Callable[[DeviceId, Mapping[str, Reading]], None],
        finish: Callable[[str, str, str], None],
    ) -> None:
        self.make, self.config = driver, config
        self.told, self.finish = report, finish
        self.name = "/".join(config.id)
        self.core = Device(now().mono)
        self.session: Optional[Driver] = None
        self.orders: Deque[Order] = deque()
        self.new_config: Optional[DeviceConfig] = None
        self.stopped = asyncio.Event()
        self.wake = asyncio.Event()

    def order(self, order: Order) -> str:
        if len(self.orders) >= MAX_ORDERS:
            return "too many writes wait for this device"
        self.orders.append(order)
        self.wake.set()
        return ""

    def configure(self, config: DeviceConfig) -> None:
        self.new_config = config
        self.wake.set()

    def stop(self) -> None:
        self.stopped.set()
        self.wake.set()

    async def run(self) -> None:
        """Until it is stopped. One write and one other step in turn, so that neither starves."""
        self._configure()
        try:
            while not self.stopped.is_set():
                await self._reconfigure()
                if self.orders and self.core.state != "closed":
                    await self._write(self.orders.popleft())
                await self._step()
                report = self.core.take_report()
                if report:
                    self.told(self.config.id, report)
        except Abandoned:
            pass
        for order in self.orders:  # what waits has not moved anything
            self.finish(order.id, "rejected", "the device is no longer served")
        await self._close()

    async def _step(self) -> None:
        action, due, until = self.core.step(now().mono)
        if action == "open":
            await self._open()
        elif action == "read":
            await self._read(due)
        elif not self.orders:
            try:
                await asyncio.wait_for(self.wake.wait(), None if until is None else max(0.0, until - now().mono))
            except asyncio.TimeoutError:
                pass
        self.wake.clear()

    def _configure(self) -> None:
        self.core.configure(self.config.properties, now().mono)
        for name, property in self.config.properties.items():
            if property.fault:
                LOG.error("%s: address of %s: %s; left out", self.name, name, property.fault)
                self.core.quarantine(name)

    async def _reconfigure(self) -> None:
        """The session stays if its settings do."""
        if self.new_config is None:
            return
        before, self.config, self.new_config = self.config, self.new_config, None
        if before.connection != self.config.connection or self.core.state != "open":
            await self._close()
            self.core.reopen()
        self._configure()
        waiting, self.orders = list(self.orders), deque()
        for order in waiting:  # range, type and place were those of another configuration
            if before.target(order.property) == self.config.target(order.property):
                self.orders.append(order)
            else:
                self.finish(order.id, "rejected", "the configuration changed meanwhile; send it again")

    async def _open(self) -> None:
        self.session = self.make()
        try:
            await self._call(self.session.open(self.config.connection), OPEN_TIMEOUT, "open")
        except MapperError as error:
            return await self._lost(error)
        self.core.state = "open"
        LOG.info("%s: open", self.name)

    async def _lost(self, error: MapperError) -> None:
        wait = self.core.handle_lost(error, now().mono)
        LOG.warning("%s: no session: %s; again in %.1f s", self.name, error, wait, exc_info=bug(error))
        await self._close()

    async def _read(self, due: List[str]) -> None:
        if self.session is None:
            return
        points = [self.config.properties[name].point for name in due]
        got: Got = {}
        failure: Optional[MapperError] = None
        try:
            got = await self._call(self.session.read(points), READ_TIMEOUT, "read")
            if not isinstance(got, Mapping):
                raise DriverBug(f"read returned {type(got).__name__} instead of values by name")
        except MapperError as error:
            got, failure = {}, error
        moment = now()
        understood = {name: self._understood(name, said) for name, said in got.items() if name in due}
        missing = NO_VALUE if failure is None else failure if failure.keeps_session else None
        for name, why in self.core.handle_read(due, understood, missing, moment):
            LOG.warning("%s: %s not read: %s", self.name, name, why)
        if failure is not None and not failure.keeps_session:
            await self._lost(failure)

    def _understood(self, name: str, said: object) -> object:
        """A reading as it is reported, or why it is none."""
        if isinstance(said, Exception):
            return as_mapper_error(said)
        try:
            return reading(self.config.properties[name], said)
        except (ValueError, TypeError, OverflowError) as why:
            return BadAddress(name, str(why))

    async def _write(self, order: Order) -> None:
        LOG.info("%s: write %s = %s (%s)", self.name, order.property, order.value, order.cause)
        outcome, detail, readback = await self._try_write(order)
        if outcome == "succeeded":
            self.core.handle_written(order.property, readback, now().mono)
        self.finish(order.id, outcome, detail)

    async def _try_write(self, order: Order) -> Tuple[str, str, Optional[Reading]]:
        """Hands the write to the driver, under a permit and within its time."""
        if order.deadline.is_over(now()):
            return "expired", "its turn came too late", None
        if self.session is None or self.core.state != "open":
            return "failed", f"not connected: {self.core.why}", None
        property = self.config.properties.get(order.property)
        if property is None or property.fault:
            return "rejected", "the property's address makes no sense to the mapper", None
        permit = WritePermit(order.cause, order.deadline)
        try:
            value = property.to_device(property.fitting(order.value))
            writing = self.session.write(property.point, value, permit)
            done = await self._call(writing, permit.left(), "write", to_the_end=True)
            if not permit.consumed:
                raise DriverBug("write ended well without permit.consume(): nobody knows whether it was in time")
        except (ValueError, TypeError) as why:
            return "rejected", str(why), None
        except MapperError as error:
            permit.revoke()
            outcome = ended(error, permit.consumed, order.deadline.is_over(now()))
            if isinstance(error, DriverBug) and not permit.consumed:
                outcome = "unknown"  # it did not ask, so it may have written
            if not error.keeps_session:
                await self._lost(error)
            return outcome, str(error), None
        permit.revoke()
        if done is ACCEPTED:
            return "succeeded", "accepted, under way", None
        said = None if done is None else self._understood(order.property, done)
        return "succeeded", "", said if isinstance(said, dict) else None

    async def _call(self, call: Awaitable[T], seconds: float, what: str, to_the_end: bool = False) -> T:
        """Waits for the driver; raises a `MapperError`, or `Abandoned` when the device is served no more, unless a write
        is to go on `to_the_end`."""
        task = asyncio.ensure_future(call)
        stop = asyncio.ensure_future(self.stopped.wait())
        try:
            waited = {task} if to_the_end else {task, stop}
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise DriverBug(f"{what} cancelled itself") from None
        except Exception as error:
            raise as_mapper_error(error) from error
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                task.add_done_callback(swallow)
        await asyncio.wait({task}, timeout=CANCEL_GRACE)
        if stop.done() and not stop.cancelled():
            raise Abandoned
        raise DeviceTimeout(f"no answer in time: {what}")

    async def _close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            try:
                await asyncio.wait_for(session.close(), CLOSE_TIMEOUT)
            except Exception as error:
                LOG.debug("%s: close: %s", self.name, error)


def reading(property: Property, said: object) -> Reading:
    sample = said if isinstance(said, Sample) else Sample(said)
    if sample.quality not in ("good", "uncertain", "bad"):
        raise ValueError(f"'{sample.quality}' is no quality: good, uncertain or bad")
    time = now().wall if sample.time is None else sample.time
    return {"value": property.from_device(sample.value), "time": int(time * 1000), "quality": sample.quality}


def ended(error: MapperError, consumed: bool, is_over: bool) -> str:
    """A driver that was still waiting when the time was over has moved nothing."""
    if isinstance(error, DeviceTimeout) and is_over and not consumed:
        return "expired"
    return outcome_of(error, consumed)


def bug(error: MapperError) -> Optional[BaseException]:
    """A bug's place is worth a traceback."""
    return error.__cause__ if isinstance(error, DriverBug) else None


def swallow(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()
