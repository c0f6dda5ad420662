"""What the scripts beside this one share. They run against a cloud and an edge `a` of real processes with the devices of
`manifests.yaml`; `main.rs` starts them, says where they are, and kills and starts nodes when a script asks for it."""

import asyncio
import contextlib
import json
import os
import sys
import time

import pytest

import kubebus

EDGE, CLOUD, DEVICE = (os.environ[f"KUBEBUS_{name}"] for name in ("EDGE", "CLOUD", "DEVICE"))
# For one thing to happen: many times what an idle machine needs.
PATIENCE = 40.0


class Simulator:
    """A device: registers behind JSON lines on TCP, and every write that ever reached it. While it `is_mute` no write is
    answered."""

    def __init__(self):
        self.registers = {"pos": 20.0, "flow": 7, "mode": "auto"}
        self.writes, self.reads, self.refuses, self.is_mute, self.peers, self.asked = [], 0, False, False, set(), set()

    async def start(self):
        host, port = DEVICE.split(":")
        self.server = await asyncio.start_server(self.serve, host, int(port))

    async def stop(self):
        self.server.close()
        for peer in self.peers:
            peer.close()

    async def serve(self, reader, writer):
        self.peers.add(writer)
        while line := await reader.readline():
            request = json.loads(line)
            answer = self.answer(request)
            if "read" in request or not self.is_mute:
                writer.write(json.dumps(answer).encode() + b"\n")
        self.peers.discard(writer)
        writer.close()

    def answer(self, request):
        if "read" in request:
            self.reads, self.asked = self.reads + 1, set(request["read"])
            return {name: self.registers[name] for name in request["read"]}
        if self.refuses:
            return "stuck"
        self.writes.append(request["write"])
        self.registers.update([request["write"]])
        return "ok"


class LineDriver(kubebus.Driver):
    async def open(self, config):
        self.reader, self.writer = await asyncio.open_connection(*config["address"].split(":"))

    async def ask(self, request):
        self.writer.write(json.dumps(request).encode() + b"\n")
        return json.loads(await self.reader.readline() or b"null")

    async def read(self, points):
        got = await self.ask({"read": [p.address["register"] for p in points]})
        if got is None:
            raise ConnectionError("hung up")
        return {p.name: got[p.address["register"]] for p in points}

    async def write(self, point, value, permit):
        permit.consume()
        answer = await self.ask({"write": [point.address["register"], value]})
        if answer is None:
            raise ConnectionError("hung up")
        if answer != "ok":
            raise kubebus.DeviceError(answer)

    async def close(self):
        if hasattr(self, "writer"):
            self.writer.close()


@contextlib.asynccontextmanager
async def served():
    """The valve with its mapper at the edge."""
    simulator, stop = Simulator(), asyncio.Event()
    await simulator.start()
    mapper = asyncio.ensure_future(kubebus.Mapper(LineDriver, "py", EDGE).run(stop))
    try:
        yield simulator
    finally:
        stop.set()
        await mapper
        await simulator.stop()


async def eventually(what, look):
    """Until `look` gives something true."""
    end = time.monotonic() + PATIENCE
    while True:
        seen = look()
        seen = await seen if asyncio.iscoroutine(seen) else seen
        if seen:
            return seen
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        await asyncio.sleep(0.05)


async def becomes(device, property, test, what="the value"):
    """Waits for a reported value that passes `test`."""

    async def watching():
        async for change in device.watch(property):
            if test(change.said):
                return change.said

    try:
        return await asyncio.wait_for(watching(), PATIENCE)
    except asyncio.TimeoutError:
        raise AssertionError(f"{what}: not within {PATIENCE} s; now {await device.get(property)}") from None


async def state_becomes(device, word):
    async def watching():
        async for change in device.watch_state():
            if change.said.state == word:
                return change.said

    return await asyncio.wait_for(watching(), PATIENCE)


async def direct(order):
    """Has `main.rs` do something with a node."""

    def ask():
        print(f"\n@{order}", flush=True)
        return sys.stdin.readline()

    assert (await asyncio.get_running_loop().run_in_executor(None, ask)).strip() == "done"


def run(coroutine_function):
    """A test that is a coroutine."""

    def test():
        asyncio.run(asyncio.wait_for(coroutine_function(), 4 * PATIENCE))

    test.__name__, test.__doc__ = coroutine_function.__name__, coroutine_function.__doc__
    return test


__all__ = ["becomes", "direct", "eventually", "pytest", "run", "served", "state_becomes"]
