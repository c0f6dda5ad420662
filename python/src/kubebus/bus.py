"""What an app sees: a connection to a node's broker, and devices whose twins it reads, sets and watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import ssl
import time
from typing import Any, AsyncIterator, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Type, TypeVar

from paho.mqtt.client import topic_matches_sub

from .errors import NOT_DONE, Expired, NotConnected, NotReported, Rejected, Unknown
from .line import Broker, Line
from .values import Change, Desired, DeviceState, Reported, parse_json, said_of, wire

LOG = logging.getLogger("kubebus")

SESSION = 120
"""How long the broker keeps answers for a client whose connection broke, in seconds."""
GRACE = 15.0
"""How long after its time an order's end may come, in seconds: a device may take ten, the node waits two more."""
REASON_WAIT = 1.0
"""How long after a refusal its reason may come, in seconds: the broker's own refusals have none but theirs."""
MAX_WAITING = 10_000
"""Properties that wait for a slow watcher. Of each it is told the latest; of more the oldest news goes, and is counted."""

T = TypeVar("T", Reported, Desired, DeviceState)


def connect(
    broker: str = "127.0.0.1:1883",
    *,
    user: Optional[str] = None,
    password: Optional[str] = None,
    tls: Optional[ssl.SSLContext] = None,
    client_id: Optional[str] = None,
    answers: str = "answers",
    timeout: float = 10.0,
    shared_clock: bool = True,
) -> Bus:
    """A connection for `async with`, which raises `NotConnected` if there is none within `timeout` seconds. Later it
    comes back by itself. The ends of orders are heard on `<answers>/<client id>`: this client needs the right to
    subscribe to it. Orders say when they were sent, so that none is carried out late which waited in a broker that stood
    still; where this machine's clock is not the node's (no NTP), turn that off by `shared_clock`."""
    name = client_id or f"py-{secrets.token_hex(6)}"
    return Bus(Broker.at(broker, name, user, password, tls), f"{answers}/{name}", timeout, shared_clock)


class Watcher:
    """What one watcher was not told yet: of each topic the latest."""

    def __init__(self) -> None:
        self.waiting: Dict[str, Change] = {}
        self.overflown = 0
        self.closed = False
        self.news = asyncio.Event()

    def put(self, topic: str, change: Change) -> None:
        before = self.waiting.get(topic)
        if before is not None:
            change = Change(change.namespace, change.device, change.property, change.said, before.skipped + 1)
        elif len(self.waiting) >= MAX_WAITING:
            self.overflown += 1 + self.waiting.pop(next(iter(self.waiting))).skipped
        self.waiting[topic] = change
        self.news.set()

    def close(self) -> None:
        self.closed = True
        self.news.set()

    async def next(self) -> Optional[Change]:
        """`None` when the bus was closed."""
        while not self.waiting:
            if self.closed:
                return None
            self.news.clear()
            await self.news.wait()
        change = self.waiting.pop(next(iter(self.waiting)))
        skipped, self.overflown = change.skipped + self.overflown, 0
        return Change(change.namespace, change.device, change.property, change.said, skipped)


class Feed:
    """One subscription: its watchers, and the latest of each topic for those who come later."""

    def __init__(self) -> None:
        self.watchers: Set[Watcher] = set()
        self.latest: Dict[str, Tuple[bytes, Change]] = {}
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, topic: str, payload: bytes, retained: bool, change: Change) -> None:
        known = self.latest.get(topic)
        if retained and known is not None and known[0] == payload:
            return  # said again because of a reconnection or of another subscription
        if known is not None or len(self.latest) < MAX_WAITING:
            self.latest[topic] = (payload, change)
        for watcher in self.watchers:
            watcher.put(topic, change)


class Order:
    """A command that is good until `end`, on the monotonic clock."""

    def __init__(self, id: str, body: Mapping[str, object], end: float, shared_clock: bool) -> None:
        self.id, self.body, self.end, self.shared_clock = id, body, end, shared_clock
        self.sent = False
        self.answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

    def left(self) -> float:
        return self.end - time.monotonic()

    def payload(self) -> bytes:
        """Asked right before it leaves."""
        self.sent = True
        sent = {"sent": int(time.time() * 1000)} if self.shared_clock else {}
        return json.dumps({**self.body, "ttlMs": max(0, int(self.left() * 1000)), **sent}).encode()


class Bus:
    """A connection to a node's broker; see `connect`."""

    def __init__(self, broker: Broker, answers: str, timeout: float, shared_clock: bool) -> None:
        self._broker, self._answers, self._timeout, self._shared_clock = broker, answers, timeout, shared_clock
        self._feeds: Dict[str, Feed] = {}
        self._orders: Dict[bytes, Order] = {}
        self._opening: Set[asyncio.Task[None]] = set()
        self._unwanted: Set[str] = set()

    async def __aenter__(self) -> Bus:
        self._line = Line(self._broker, self._heard, self._greet, keep=SESSION)
        self._task = asyncio.ensure_future(self._line.run())
        if not await self._is_up(self._timeout):
            why = self._line.why
            await self.__aexit__()
            where = f"{self._broker.host}:{self._broker.port}"
            advice = f"is a node running there (kubebus status), and may this client subscribe to {self._answers}?"
            raise NotConnected(f"no connection to the broker at {where}: {why}; {advice}")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (self._task, *self._opening):
            task.cancel()
        await asyncio.wait({self._task, *self._opening})
        for feed in self._feeds.values():
            if not feed.granted.done():
                feed.granted.set_exception(NotConnected("the bus was closed"))
                feed.granted.exception()
            for watcher in feed.watchers:
                watcher.close()

    def device(self, namespace: str, name: str) -> Device:
        return Device(self, namespace, name)

    async def _is_up(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._line.connected.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    async def _greet(self) -> None:
        await self._line.subscribe([self._answers])
        await self._line.subscribe(list(self._feeds))
        while self._unwanted:
            await self._line.unsubscribe(self._unwanted.pop())

    def _heard(self, topic: str, payload: bytes, retained: bool, correlation: Optional[bytes]) -> None:
        if topic == self._answers:
            order = self._orders.get(correlation or b"")
            body = parse_json(payload)
            if order is not None and not order.answer.done() and isinstance(body, dict):
                order.answer.set_result(body)
            return
        change = None
        for filter, feed in self._feeds.items():
            if topic_matches_sub(filter, topic):
                if not payload:
                    feed.latest.pop(topic, None)
                    continue
                change = change or change_of(topic, payload, retained)
                feed.take(topic, payload, retained, change)

    @contextlib.asynccontextmanager
    async def _listen(self, filter: str) -> AsyncIterator[Watcher]:
        watcher, feed = Watcher(), self._feeds.get(filter)
        if feed is None:
            feed = self._feeds[filter] = Feed()
            opening = asyncio.ensure_future(self._open(filter, feed))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
            self._unwanted.discard(filter)
        feed.watchers.add(watcher)
        for topic, (_, change) in feed.latest.items():
            watcher.put(topic, change)
        try:
            await asyncio.shield(feed.granted)
            yield watcher
        finally:
            feed.watchers.discard(watcher)
            if not feed.watchers and self._feeds.get(filter) is feed:
                del self._feeds[filter]
                try:
                    await self._line.unsubscribe(filter)
                except NotConnected:
                    self._unwanted.add(filter)  # the broker keeps it with the session

    async def _open(self, filter: str, feed: Feed) -> None:
        """Until the broker has granted or refused it."""
        try:
            while not feed.granted.done():
                await self._line.connected.wait()
                with contextlib.suppress(NotConnected):
                    await self._line.subscribe([filter])
                    feed.granted.set_result(None)
        except Exception as error:
            feed.granted.set_exception(error)
            feed.granted.exception()  # whoever waits for it hears of it

    async def _first(self, filter: str, kind: Type[T], timeout: float) -> T:
        async def hear() -> T:
            async with self._listen(filter) as watcher:
                change = await watcher.next()
                if change is None or not isinstance(change.said, kind):
                    raise NotConnected("the bus was closed")
                return change.said

        try:
            return await asyncio.wait_for(hear(), timeout)
        except asyncio.TimeoutError:
            why = "" if self._line.connected.is_set() else f"; no connection to the broker: {self._line.why}"
            raise NotReported(f"nothing on {filter} within {timeout:g} s{why}") from None

    async def watch(self, pattern: str, kind: str = "reported") -> AsyncIterator[Change]:
        """Changes of what `pattern` names, `namespace/device/property` where `+` stands for any; first what is known.
        `kind`: reported or desired; or state, without the property. A slow watcher hears of each the latest, and how
        many it missed."""
        levels = pattern.split("/")
        if kind not in ("reported", "desired", "state") or len(levels) != (2 if kind == "state" else 3):
            raise ValueError(f"'{pattern}' as {kind}: write 'water/+/level', or 'water/+' for the states of devices")
        filter = "/".join(["twin", *levels[:2], kind, *levels[2:]])
        async with self._listen(filter) as watcher:
            while True:
                change = await watcher.next()
                if change is None:
                    return
                yield change

    async def command(
        self,
        device: str,
        name: str,
        args: Optional[Mapping[str, object]] = None,
        *,
        ttl: float,
        hold: Optional[float] = None,
        when: Sequence[Mapping[str, object]] = (),
    ) -> None:
        """Has `device` (`namespace/name`) do something within `ttl` seconds or not at all, once, and waits for its end:
        raises the `NotDone` that says why not. It is never said twice: after a broken connection the end may be
        `Unknown`. `hold`: how long its values hold, in seconds. `when`: conditions as in docs/schemas/twin-command.json.
        """
        id = secrets.token_hex(12)
        body: Dict[str, object] = {"id": id, "args": {k: wire(v) for k, v in (args or {}).items()}}
        if hold is not None:
            body["holdMs"] = int(hold * 1000)
        if when:
            body["when"] = list(when)
        json.dumps(body, allow_nan=False)  # what is wrong with it is said here
        order = Order(id, body, time.monotonic() + ttl, self._shared_clock)
        self._orders[id.encode()] = order
        try:
            answer = await self._order(f"twin/{device}/command/{name}", order)
        finally:
            del self._orders[id.encode()]
        outcome, detail = str(answer.get("outcome")), str(answer.get("detail", ""))
        if outcome != "succeeded":
            raise NOT_DONE.get(outcome, Unknown)(detail, id)

    async def _order(self, topic: str, order: Order) -> Mapping[str, Any]:
        saying = asyncio.ensure_future(self._say(topic, order))
        either: Set[asyncio.Future[Any]] = {saying, order.answer}
        try:
            await asyncio.wait(either, timeout=order.left(), return_when=asyncio.FIRST_COMPLETED)
            if not order.sent:
                raise Expired(f"no connection to the broker in its time ({self._line.why}); nothing was sent", order.id)
            if not saying.done() and not order.answer.done():
                self._line.drop("the broker does not take an order in its time")
            refused = saying.exception() if saying.done() else None
            await asyncio.wait({order.answer}, timeout=REASON_WAIT if refused else order.left() + GRACE)
            if order.answer.done():
                return order.answer.result()
            why = "it may have been carried out: read the device"
            raise refused or Unknown(f"no answer within {GRACE:g} s after its time; {why}", order.id)
        finally:
            saying.cancel()

    async def _say(self, topic: str, order: Order) -> None:
        """Until the broker has it. What may have left is not said again: its answer may come all the same."""
        while not order.sent:
            await self._line.connected.wait()
            try:
                await self._line.publish(topic, order.payload, answer=(self._answers, order.id.encode()))
            except NotConnected as broken:
                order.sent = broken.sent
                await asyncio.sleep(0.05)

    async def _publish(self, topic: str, payload: object) -> None:
        text = b"" if payload is None else json.dumps(payload, allow_nan=False).encode()
        await self._line.publish(topic, lambda: text)


class Device:
    """A device's twin. Numbers and texts are as its model has them; bytes are told as base64 text."""

    def __init__(self, bus: Bus, namespace: str, name: str) -> None:
        self._bus, self.namespace, self.name = bus, namespace, name
        self._path = f"{namespace}/{name}"

    async def get(self, property: str, timeout: float = 5.0) -> Reported:
        """What the property was at last; raises `NotReported` if nobody says so within `timeout` seconds."""
        return await self._bus._first(f"twin/{self._path}/reported/{property}", Reported, timeout)

    async def desired(self, property: str, timeout: float = 5.0) -> Desired:
        """What the property shall be."""
        return await self._bus._first(f"twin/{self._path}/desired/{property}", Desired, timeout)

    async def state(self, timeout: float = 5.0) -> DeviceState:
        """Whether the device can be worked with."""
        return await self._bus._first(f"twin/{self._path}/state", DeviceState, timeout)

    async def set(self, property: str, value: object, *, ttl: float, hold: Optional[float] = None) -> None:
        """Sets one property within `ttl` seconds or not at all, and waits for the end. See `Bus.command`."""
        await self.command("set", {property: value}, ttl=ttl, hold=hold)

    async def command(
        self,
        name: str,
        args: Optional[Mapping[str, object]] = None,
        *,
        ttl: float,
        hold: Optional[float] = None,
        when: Sequence[Mapping[str, object]] = (),
    ) -> None:
        """See `Bus.command`."""
        await self._bus.command(self._path, name, args, ttl=ttl, hold=hold, when=when)

    async def wish(self, property: str, value: object, unit: Optional[str] = None) -> None:
        """Says what the property shall be from now on, in `unit` (UCUM) if that is not the property's own. Returns when
        the node has taken it; its end is in `Reported.ack` and has no number to wait for."""
        body = {"value": wire(value)} if unit is None else {"value": wire(value), "unit": unit}
        try:
            await self._bus._publish(f"twin/{self._path}/set/{property}", body)
        except Rejected as refused:
            told = f"mosquitto_sub -t twin/{self._path}/result"
            raise Rejected(f"{refused}; the reason is told there at the same time: {told}") from None

    async def take_back(self, property: str) -> None:
        """Takes back what was wished here; at an edge."""
        await self._bus._publish(f"twin/{self._path}/set/{property}", None)

    async def report(self, values: Mapping[str, object], unit: Optional[str] = None) -> None:
        """Reports readings, as a sensor does that needs no mapper."""
        extra: Dict[str, Any] = {} if unit is None else {"unit": unit}
        await self._bus._publish(f"twin/{self._path}/report", {k: {"value": wire(v), **extra} for k, v in values.items()})

    def watch(self, property: str = "+") -> AsyncIterator[Change]:
        """Changes of one property, or of all. See `Bus.watch`."""
        return self._bus.watch(f"{self._path}/{property}")

    def watch_state(self) -> AsyncIterator[Change]:
        return self._bus.watch(self._path, "state")


def change_of(topic: str, payload: bytes, retained: bool) -> Change:
    _, namespace, device, kind, *rest = topic.split("/")
    body = parse_json(payload)
    return Change(namespace, device, "".join(rest), said_of(kind, body, retained))


__all__: List[str] = ["Bus", "Device", "connect"]
