"""The connection to the broker: MQTT 5, a client of its own per connection, so that nothing of a broken one is sent
again by the next."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Any, Awaitable, Callable, Dict, List, Optional, Sequence, Set, Tuple, cast

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from .errors import NotConnected, Rejected

LOG = logging.getLogger("kubebus")

KEEP_ALIVE = 10
"""How soon a dead broker is noticed, in seconds: after two of these at most."""
CONNECT_TIMEOUT = 10.0
"""For the TCP connection and for each answer of the broker, in seconds."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
"""Before the next try to connect, in seconds. The broker is on the same machine or next to it."""
MAX_PACKET = 8 * 1024 * 1024
"""Largest message to us, in bytes: the configuration of a mapper with thousands of devices."""
WINDOW = 32
"""Publications that the broker has not acknowledged; a further one waits."""


@dataclass(frozen=True)
class Broker:
    """Where the broker is and who we are there."""

    host: str
    port: int
    client_id: str
    user: Optional[str] = None
    password: Optional[str] = None
    tls: Optional[ssl.SSLContext] = None

    @staticmethod
    def at(address: str, client_id: str, user: Optional[str], password: Optional[str], tls: Optional[ssl.SSLContext]) -> Broker:
        host, colon, port = address.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError(f"'{address}' is no broker's address: write HOST:PORT, such as 127.0.0.1:1883")
        return Broker(host.strip("[]"), int(port), client_id, user, password, tls)


Heard = Callable[[str, bytes, bool, Optional[bytes]], None]
"""topic, payload, retained, correlation data"""


class Backoff:
    """Full jitter: each wait lies anywhere below a bound that doubles."""

    def __init__(self, first: float, longest: float) -> None:
        self.first, self.longest, self.bound = first, longest, first

    def next_wait(self) -> float:
        wait = random.uniform(0, self.bound)
        self.bound = min(self.bound * 2, self.longest)
        return wait

    def reset(self) -> None:
        self.bound = self.first


class Line:
    """Keeps one connection while `run` runs. `greet` is awaited on each new one before it counts as `connected`."""

    def __init__(
        self,
        broker: Broker,
        heard: Heard,
        greet: Callable[[], Awaitable[None]],
        keep: int = 0,
        will: Optional[Tuple[str, bytes]] = None,
    ) -> None:
        """`keep`: how long the broker keeps the session of a lost connection, in seconds. `will`: topic, payload."""
        self.broker, self.keep, self.will = broker, keep, will
        self.connected = asyncio.Event()
        self.why = "not tried yet"
        self._heard, self._greet = heard, greet
        self._client: Optional[paho.Client] = None
        self._lost: Optional[asyncio.Future[str]] = None
        self._acks: Dict[int, asyncio.Future[Tuple[List[Any], str]]] = {}
        self._window = asyncio.Semaphore(WINDOW)
        self._known = False

    async def run(self) -> None:
        """For ever, until it is cancelled; says goodbye then."""
        backoff, is_told = Backoff(FIRST_WAIT, LONGEST_WAIT), False
        while True:
            was_connected = await self._once()
            if was_connected:
                backoff.reset()
            if was_connected or not is_told:
                is_told = True
                LOG.warning("no connection to the broker at %s:%d: %s", self.broker.host, self.broker.port, self.why)
            await asyncio.sleep(backoff.next_wait())

    async def _once(self) -> bool:
        loop = asyncio.get_running_loop()
        self._lost = lost = loop.create_future()
        accepted: asyncio.Future[None] = loop.create_future()
        client = self._make(loop, accepted, lost)
        try:
            await loop.run_in_executor(None, functools.partial(self._dial, client))
            either: Set[asyncio.Future[Any]] = {accepted, lost}
            await asyncio.wait(either, timeout=CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not accepted.done():
                self.why = lost.result() if lost.done() else "the broker does not answer"
                return False
            self._client, self._known = client, True
            await self._greeted(lost)
            self.why = ""
            self.connected.set()
            await self._watch(client, lost)
            self.why = lost.result()
        except (OSError, ValueError, NotConnected, Rejected) as error:
            self.why = str(error) or type(error).__name__
        except asyncio.CancelledError:
            self.why = "closed"
            self._say_goodbye(client)
            raise
        finally:
            lost.cancel()  # a thread that still dials attaches nothing
            self._forget(client, loop)
        return accepted.done()

    async def _greeted(self, lost: asyncio.Future[str]) -> None:
        greeting = asyncio.ensure_future(self._greet())
        try:
            either: Set[asyncio.Future[Any]] = {greeting, lost}
            await asyncio.wait(either, timeout=CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not greeting.done():
                raise NotConnected(lost.result() if lost.done() else "the broker does not answer")
            greeting.result()
        finally:
            greeting.cancel()

    def _dial(self, client: paho.Client) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self.keep
        properties.MaximumPacketSize = MAX_PACKET
        clean = not (self.keep and self._known)
        client.connect(self.broker.host, self.broker.port, KEEP_ALIVE, clean_start=clean, properties=properties)

    def _make(
        self, loop: asyncio.AbstractEventLoop, accepted: asyncio.Future[None], lost: asyncio.Future[str]
    ) -> paho.Client:
        broker = self.broker
        client = paho.Client(
            CallbackAPIVersion.VERSION2, broker.client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        client.connect_timeout = CONNECT_TIMEOUT
        client.max_inflight_messages_set(0)
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls is not None:
            client.tls_set_context(broker.tls)
        if self.will is not None:
            client.will_set(*self.will, qos=1, retain=True)

        def end(why: str) -> None:
            if not lost.done():
                lost.set_result(why)

        def connack(_c: Any, _u: Any, _flags: Any, reason: Any, properties: Any) -> None:
            if reason.is_failure:
                end(f"the broker refuses this client: {explained(reason, properties)}")
            elif not accepted.done():
                accepted.set_result(None)

        client.on_connect = connack
        client.on_disconnect = lambda _c, _u, _flags, reason, properties: end(explained(reason, properties))
        client.on_message = lambda _c, _u, message: self._take(message)
        client.on_publish = lambda _c, _u, mid, reason, properties: self._acked(mid, [reason], properties)
        client.on_subscribe = lambda _c, _u, mid, reasons, properties: self._acked(mid, reasons, properties)
        client.on_unsubscribe = lambda _c, _u, mid, reasons, properties: self._acked(mid, reasons, properties)
        # These come from the thread that dials as well.
        soon = loop.call_soon_threadsafe
        client.on_socket_open = lambda _c, _u, sock: cast(None, soon(self._attach, client, loop, sock, lost))
        client.on_socket_register_write = lambda _c, _u, sock: cast(None, soon(self._flush, client, loop, sock, lost))
        client.on_socket_unregister_write = lambda _c, _u, sock: cast(None, loop.remove_writer(sock))
        client.on_socket_close = lambda _c, _u, sock: detach(loop, sock)
        return client

    @staticmethod
    def _attach(client: paho.Client, loop: asyncio.AbstractEventLoop, sock: Any, lost: asyncio.Future[str]) -> None:
        if is_of(sock, client) and not lost.done():
            loop.add_reader(sock.fileno(), read, client)

    @staticmethod
    def _flush(client: paho.Client, loop: asyncio.AbstractEventLoop, sock: Any, lost: asyncio.Future[str]) -> None:
        if is_of(sock, client) and not lost.done():
            loop.add_writer(sock.fileno(), client.loop_write)

    async def _watch(self, client: paho.Client, lost: asyncio.Future[str]) -> None:
        while not lost.done():
            await asyncio.wait({lost}, timeout=1.0)
            client.loop_misc()

    @staticmethod
    def _say_goodbye(client: paho.Client) -> None:
        """Nothing is kept for us."""
        if client.is_connected():
            properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0
            client.disconnect(properties=properties)
            client.loop_write()

    def _forget(self, client: paho.Client, loop: asyncio.AbstractEventLoop) -> None:
        self.connected.clear()
        self._client = None
        client.on_disconnect = None
        sock: Any = client.socket()
        if sock is not None:
            detach(loop, sock)
            sock.close()
        acks, self._acks = self._acks, {}
        for ack in acks.values():
            if not ack.done():
                why = f"the connection broke before the broker had answered: {self.why}"
                ack.set_exception(NotConnected(why, sent=True))

    def drop(self, why: str) -> None:
        """Breaks the connection at once: what it has not sent yet is never sent."""
        if self._client is not None and self._lost is not None and not self._lost.done():
            sock: Any = self._client.socket()
            if isinstance(sock, socket.socket):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._lost.set_result(why)

    def _take(self, message: paho.MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        try:
            self._heard(message.topic, bytes(message.payload), bool(message.retain), correlation)
        except Exception:
            LOG.exception("a message on %s was not understood", message.topic)

    def _acked(self, mid: int, reasons: Sequence[Any], properties: Any) -> None:
        ack = self._acks.pop(mid, None)
        if ack is not None and not ack.done():
            ack.set_result((list(reasons), getattr(properties, "ReasonString", "")))

    async def publish(
        self,
        topic: str,
        payload: Callable[[], bytes],
        retain: bool = False,
        answer: Optional[Tuple[str, bytes]] = None,
    ) -> None:
        """QoS 1, once: returns when the broker has it, raises `Rejected` if it says no. `payload` is asked right before it
        leaves. `answer`: response topic and correlation data."""
        async with self._window:
            client = self._up()
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            if answer is not None:
                properties.ResponseTopic, properties.CorrelationData = answer
            sent = client.publish(topic, payload(), 1, retain, properties)
            await self._answered(sent.rc, sent.mid, topic)

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Retained messages come anew; raises `Rejected` if one filter is refused."""
        if filters:
            asked = [(filter, SubscribeOptions(qos=1)) for filter in filters]
            await self._answered(*self._up().subscribe(asked), ", ".join(filters))

    async def unsubscribe(self, filter: str) -> None:
        await self._answered(*self._up().unsubscribe(filter), filter)

    def _up(self) -> paho.Client:
        if self._client is None:
            raise NotConnected(f"no connection to the broker at {self.broker.host}:{self.broker.port}: {self.why}")
        return self._client

    async def _answered(self, code: Any, mid: Optional[int], what: str) -> None:
        if code != paho.MQTT_ERR_SUCCESS or mid is None:
            raise NotConnected(f"not sent: {paho.error_string(code)}")
        ack: asyncio.Future[Tuple[List[Any], str]] = asyncio.get_running_loop().create_future()
        self._acks[mid] = ack
        reasons, text = await ack
        refused = [str(reason) for reason in reasons if reason.value >= 0x80]
        if refused:
            raise Rejected(f"the broker refuses {what}: {text or ', '.join(refused)}")


def read(client: paho.Client) -> None:
    """All that is there: what TLS holds decrypted wakes nobody up."""
    client.loop_read()
    while isinstance(sock := client.socket(), ssl.SSLSocket) and sock.pending():
        client.loop_read()


def is_of(sock: Any, client: paho.Client) -> bool:
    return client.socket() is sock


def explained(reason: Any, properties: Any) -> str:
    text = getattr(properties, "ReasonString", "")
    return f"{reason}: {text}" if text else str(reason)


def detach(loop: asyncio.AbstractEventLoop, sock: Any) -> None:
    if not loop.is_closed() and sock.fileno() >= 0:
        loop.remove_reader(sock)
        loop.remove_writer(sock)
