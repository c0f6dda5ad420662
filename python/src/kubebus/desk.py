"""What the mapper's process decides for all its devices: who is served, which write is let in, what is published."""

from __future__ import annotations

import json
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, Mapping, Optional, Protocol, Set, Tuple

from .config import DeviceConfig, id_of, parse_config
from .permit import MAX_WRITES, Deadline, DeviceId, Ledger, Now, Result, result_of
from .values import Value, parse_json

LOG = logging.getLogger("kubebus")

MAX_REPORT = 256
"""Properties in one report, some 25 KiB; the rest follows in its turn."""
MAX_DEVICES = 4096
"""Devices of one mapper; those beyond are not served, and the log says so."""
MAX_WRITE_BYTES = 64 * 1024
"""Largest write that is read at all."""
MAX_ID = 128
"""Longest id of a write, in bytes: ids are remembered."""

Reading = Dict[str, Any]
"""`value`, `time` in milliseconds since 1970-01-01 UTC, `quality`."""
Publication = Tuple[str, bytes]
"""Topic and payload, not retained."""


@dataclass(frozen=True)
class Order:
    """A write that may be carried out, its value of the right type and within its range."""

    id: str
    device: DeviceId
    property: str
    value: Value
    cause: str
    deadline: Deadline


class Host(Protocol):
    """Who carries out what the desk decides."""

    def start(self, config: DeviceConfig) -> None: ...
    def configure(self, config: DeviceConfig) -> None: ...
    def stop(self, device: DeviceId) -> None: ...
    def order(self, order: Order) -> str:
        """Hands it to the device; why not, or nothing."""
    def news(self) -> None:
        """There is something to publish."""


@dataclass
class Board:
    """The last report of one device, and what of it the node has not been told."""

    latest: Dict[str, Reading] = field(default_factory=dict)
    unsent: Set[str] = field(default_factory=set)


class Desk:
    """Inputs come by `handle_*`; publications are drained by `next_publication`. Results before reports: somebody waits
    for them."""

    def __init__(self, mapper: str, host: Host) -> None:
        self.mapper, self.host = mapper, host
        self.devices: Dict[DeviceId, DeviceConfig] = {}
        self.running: Dict[DeviceId, bool] = {}
        """Tasks that have not ended; `False`: told to end, its device may be wanted again by now."""
        self.ledger = Ledger()
        self.boards: Dict[DeviceId, Board] = {}
        self.talkative: Dict[DeviceId, None] = {}
        self.results: Deque[Result] = deque(maxlen=2 * MAX_WRITES)

    def handle_connected(self) -> None:
        """A new connection: whatever was under way may be lost, so everything known is said again."""
        self.results = deque(self.ledger.results(), maxlen=2 * MAX_WRITES)
        for device, board in self.boards.items():
            board.unsent = set(board.latest)
            self.talkative[device] = None
        self.host.news()

    def handle_config(self, payload: bytes) -> None:
        """Starts, configures and stops only what has changed."""
        try:
            wanted = parse_config(payload)
        except ValueError as error:
            return LOG.warning("the configuration is not understood, the old one stays: %s", error)
        for device in sorted(wanted)[MAX_DEVICES:]:
            LOG.warning("%s/%s is not served: a mapper has at most %d devices", *device, MAX_DEVICES)
            del wanted[device]
        before, self.devices = self.devices, wanted
        for device in before:
            if device not in wanted:
                self.dismiss(device)
        for device, config in wanted.items():
            if before.get(device) != config:
                self.serve(config)

    def dismiss(self, device: DeviceId) -> None:
        self.boards.pop(device, None)
        self.talkative.pop(device, None)
        if device in self.running:
            self.running[device] = False
            self.host.stop(device)

    def serve(self, config: DeviceConfig) -> None:
        board = self.boards.get(config.id)
        if board is not None:
            board.latest = {name: said for name, said in board.latest.items() if name in config.properties}
            board.unsent &= set(board.latest)
        if config.id not in self.running:
            self.running[config.id] = True
            self.host.start(config)
        elif self.running[config.id]:
            self.host.configure(config)
        # One that is ending starts again when it has let the device go: see `handle_ended`.

    def handle_broken(self, device: DeviceId) -> None:
        """A device's task is out of order. What it had in hand is unknown now, and it gets no more."""
        self.running[device] = False
        for id in self.ledger.running(device):
            self.finish(id, "unknown", "the driver ended in the middle of it")

    def handle_ended(self, device: DeviceId) -> None:
        """A device's task has ended, and another one may begin."""
        self.handle_broken(device)
        del self.running[device]
        if device in self.devices:
            self.running[device] = True
            self.host.start(self.devices[device])

    def handle_write(self, payload: bytes, retained: bool, now: Now) -> None:
        try:
            id, device, property, value, cause, deadline = parse_write(payload, now)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            return LOG.warning("a write is not understood: %s: %s", type(error).__name__, error)
        admitted = self.ledger.admit(id, device, property, now.mono + deadline.left(now), now.mono)
        if admitted is None:
            return self.answer(result_of(id, device, property, "rejected", "too many writes at a time"))
        if not admitted:
            result = self.ledger.writes[id].result
            return self.answer(result) if result is not None else None
        outcome, detail = self.decide(Order(id, device, property, value, cause, deadline), retained, now)
        if outcome:
            self.finish(id, outcome, detail)

    def decide(self, order: Order, retained: bool, now: Now) -> Tuple[str, str]:
        """The rules, first match wins: a retained write may be of any age, so it is refused; then expiry; then what the
        property can take."""
        if retained:
            return "rejected", "a retained write is refused"
        if order.deadline.is_over(now):
            return "expired", "too old when it arrived"
        config = self.devices.get(order.device)
        property = None if config is None else config.properties.get(order.property)
        if property is None:
            return "rejected", "no such device or property"
        try:
            value = property.fitting(order.value)
        except (ValueError, TypeError) as why:
            return "rejected", str(why)
        if not self.running.get(order.device):
            return "failed", "the device is being set up anew"
        fit = Order(order.id, order.device, order.property, value, order.cause, order.deadline)
        refused = self.host.order(fit)
        return ("rejected", refused) if refused else ("", "")

    def finish(self, id: str, outcome: str, detail: str) -> None:
        """A write has ended."""
        result = self.ledger.finish(id, outcome, detail)
        if result is not None:
            self.answer(result)

    def answer(self, result: Result) -> None:
        if result not in self.results:
            self.results.append(result)
            self.host.news()

    def handle_report(self, device: DeviceId, report: Mapping[str, Reading]) -> None:
        """A device was read. What is no longer configured is not passed on."""
        config = self.devices.get(device)
        if config is None:
            return
        board = self.boards.setdefault(device, Board())
        known = {name: said for name, said in report.items() if name in config.properties}
        board.latest.update(known)
        board.unsent |= set(known)
        self.talkative[device] = None
        self.host.news()

    def next_publication(self) -> Optional[Publication]:
        """A device that has spoken is last in turn, so that nobody starves."""
        if self.results:
            return f"mapper/{self.mapper}/result", json.dumps(self.results.popleft()).encode()
        while self.talkative:
            device = next(iter(self.talkative))
            del self.talkative[device]
            board = self.boards[device]
            names = sorted(board.unsent)[:MAX_REPORT]
            board.unsent.difference_update(names)
            if board.unsent:
                self.talkative[device] = None
            if names:
                report = {name: board.latest[name] for name in names}
                return f"twin/{device[0]}/{device[1]}/report", json.dumps(report, allow_nan=False).encode()
        return None

    def is_quiet(self) -> bool:
        return not self.results and not self.talkative


def parse_write(payload: bytes, now: Now) -> Tuple[str, DeviceId, str, Value, str, Deadline]:
    if len(payload) > MAX_WRITE_BYTES:
        raise ValueError(f"longer than {MAX_WRITE_BYTES} bytes")
    body = parse_json(payload)
    id, property, cause, sent, ttl = (body[key] for key in ("id", "property", "cause", "sent", "ttl_ms"))
    if not (isinstance(id, str) and 0 < len(id.encode()) <= MAX_ID):
        raise ValueError(f"its id needs 1 to {MAX_ID} bytes")
    if not (isinstance(property, str) and isinstance(cause, str)):
        raise ValueError("its property and cause are texts")
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in (sent, ttl)):
        raise ValueError("sent and ttl_ms are milliseconds")
    value: Value = body["value"]
    return id, id_of(body["device"]), property, value, cause, Deadline.of(sent, ttl, now)
