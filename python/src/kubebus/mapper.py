"""The mapper's process: one connection to the broker, one task per device."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import ssl
from typing import Callable, Dict, List, Optional

from .attendant import Attendant
from .config import DeviceConfig, Point
from .desk import Desk, Order
from .driver import ACCEPTED, Driver, Sample
from .errors import NotConnected, Rejected
from .line import Broker, Line
from .permit import DeviceId, now

LOG = logging.getLogger("kubebus")

STOP_GRACE = 5.0
"""How long a stop may take for a write under way to finish and for results to go out, in seconds."""
RESTART_AFTER = 60.0
"""A device whose task broke gets another one after so many seconds."""
SPEAKERS = 8
"""Publications that wait for the broker at a time."""
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Mapper:
    """Serves the devices whose `spec.protocol.protocolName` is `name`, with an object of `driver` for each session. Writes
    are let in, and carried out at most once and in their time, as the Rust SDK does it."""

    def __init__(
        self,
        driver: Callable[[], Driver],
        name: str,
        broker: str = "127.0.0.1:1883",
        *,
        user: Optional[str] = None,
        password: Optional[str] = None,
        tls: Optional[ssl.SSLContext] = None,
    ) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(f"'{name}' is no mapper's name: lower case letters, digits and '-', 63 at most")
        self._driver, self._name = driver, name
        self._broker = Broker.at(broker, f"mapper-{name}", user, password, tls)
        self._desk = Desk(name, self)
        self._attendants: Dict[DeviceId, Attendant] = {}
        self._tasks: Dict[asyncio.Task[None], DeviceId] = {}
        self._speaking = 0
        self._is_stopping = False

    async def run(self, stop: Optional[asyncio.Event] = None) -> None:
        """Until `stop` is set or this is cancelled; then writes under way may finish, sessions are closed, what there is
        to say is said, and the node hears that the mapper is offline."""
        state = f"mapper/{self._name}/state"
        self._line = Line(self._broker, self._heard, self._greet, will=(state, b"offline"))
        self._something_new = asyncio.Event()
        background = [asyncio.ensure_future(self._line.run())]
        background += [asyncio.ensure_future(self._speak()) for _ in range(SPEAKERS)]
        try:
            await (stop or asyncio.Event()).wait()
        finally:
            try:
                await asyncio.wait_for(self._leave(state), STOP_GRACE)
            except asyncio.TimeoutError:
                LOG.warning("stopped before everything was said")
            for task in [*self._tasks, *background]:
                task.cancel()
            await asyncio.wait({*self._tasks, *background})

    async def _leave(self, state: str) -> None:
        self._is_stopping = True
        self._desk.handle_config(b"")
        running = [task for task in self._tasks if not task.done()]
        if running:
            await asyncio.wait(running)
        while self._line.connected.is_set() and (self._speaking or not self._desk.is_quiet()):
            await asyncio.sleep(0.01)
        try:
            await self._line.publish(state, lambda: b"offline", retain=True)
        except (NotConnected, Rejected) as error:
            LOG.debug("offline not said: %s", error)

    async def _greet(self) -> None:
        """The configuration first: a write for a device that is not known yet would be rejected. `online` last: a write
        that is sent because of it arrives."""
        mine = f"mapper/{self._name}"
        await self._line.subscribe([f"{mine}/config", f"{mine}/write"])
        await self._line.publish(f"{mine}/state", lambda: b"online", retain=True)
        LOG.info("connected to the broker")
        self._desk.handle_connected()

    def _heard(self, topic: str, payload: bytes, retained: bool, _correlation: Optional[bytes]) -> None:
        if self._is_stopping:
            return  # nothing new begins
        if topic == f"mapper/{self._name}/config":
            self._desk.handle_config(payload)
        elif topic == f"mapper/{self._name}/write":
            self._desk.handle_write(payload, retained, now())

    async def _speak(self) -> None:
        """What a broken connection has lost is said again on the next one: the desk keeps it."""
        while True:
            await self._line.connected.wait()
            said = self._desk.next_publication()
            if said is None:
                self._something_new.clear()
                await self._something_new.wait()
                continue
            topic, payload = said
            self._speaking += 1
            try:
                await self._line.publish(topic, lambda: payload)
            except (NotConnected, Rejected) as error:
                LOG.warning("%s", error)
            finally:
                self._speaking -= 1

    # What the desk asks for.

    def start(self, config: DeviceConfig) -> None:
        attendant = Attendant(self._driver, config, self._desk.handle_report, self._desk.finish)
        self._attendants[config.id] = attendant
        task = asyncio.ensure_future(attendant.run())
        self._tasks[task] = config.id
        task.add_done_callback(self._ended)

    def configure(self, config: DeviceConfig) -> None:
        self._attendants[config.id].configure(config)

    def stop(self, device: DeviceId) -> None:
        self._attendants[device].stop()

    def order(self, order: Order) -> str:
        return self._attendants[order.device].order(order)

    def news(self) -> None:
        self._something_new.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        device = self._tasks[task]
        error = None if task.cancelled() else task.exception()
        if error is None:
            del self._tasks[task]
            self._attendants.pop(device, None)
            return self._desk.handle_ended(device)
        LOG.error("%s/%s: its task broke", *device, exc_info=error)
        self._desk.handle_broken(device)
        asyncio.get_running_loop().call_later(RESTART_AFTER, self._forget, task)

    def _forget(self, task: asyncio.Task[None]) -> None:
        device = self._tasks.pop(task)
        self._attendants.pop(device, None)
        self._desk.handle_ended(device)


def main(driver: Callable[[], Driver], name: str, arguments: Optional[List[str]] = None) -> None:
    """A mapper's program: `--broker HOST:PORT` (or KUBEBUS_BROKER), `--name`, `--user` with the password in
    KUBEBUS_MQTT_PASSWORD, `--log`. Runs until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=f"KubeBus mapper for {name}")
    parser.add_argument("--broker", default=os.environ.get("KUBEBUS_BROKER", "127.0.0.1:1883"), metavar="HOST:PORT")
    parser.add_argument("--name", default=name, help="protocolName of the devices that it serves (%(default)s)")
    parser.add_argument("--user", help="its password: KUBEBUS_MQTT_PASSWORD")
    parser.add_argument("--log", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    given = parser.parse_args(arguments)
    logging.basicConfig(level=given.log, format="%(asctime)s %(levelname)s %(message)s")
    password = os.environ.get("KUBEBUS_MQTT_PASSWORD")
    try:
        mapper = Mapper(driver, given.name, given.broker, user=given.user, password=password)
    except ValueError as error:
        parser.error(str(error))

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await mapper.run(stop)

    asyncio.run(run())


__all__ = ["ACCEPTED", "Driver", "Mapper", "Point", "Sample", "main"]
