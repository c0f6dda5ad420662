"""A vendor's mapper in Python serves the valve end to end."""

import asyncio
import signal
import sys
from pathlib import Path

from conftest import CLOUD, DEVICE, EDGE, LineDriver, Simulator, becomes, direct, eventually, run, served, state_becomes

import kubebus

HERE = Path(__file__).parent


@run
async def test_a_device_that_goes_away_turns_bad_and_comes_back_by_itself():
    async with served() as device, kubebus.connect(CLOUD) as bus:
        valve = bus.device("plant", "valve")
        await becomes(valve, "flow", lambda r: r.quality == "good")
        await device.stop()
        old = await becomes(valve, "flow", lambda r: r.quality == "bad")
        assert old.value == 7, "the value stays, with its own time"
        device.registers["flow"] = 8
        await device.start()
        await becomes(valve, "flow", lambda r: r.quality == "good" and r.value == 8)
        assert device.writes == []


@run
async def test_a_value_that_makes_no_sense_costs_its_own_property_alone():
    async with served() as device, kubebus.connect(EDGE) as bus:
        valve = bus.device("plant", "valve")
        await becomes(valve, "mode", lambda r: r.quality == "good")
        device.registers["flow"] = "much"
        await becomes(valve, "flow", lambda r: r.quality == "bad")
        device.registers["mode"] = "still here"
        await becomes(valve, "mode", lambda r: r.value == "still here" and r.quality == "good")


@run
async def test_a_new_configuration_keeps_the_session_and_forgets_what_is_gone():
    manifests = (HERE / "manifests.yaml").read_text().replace("ADDRESS", DEVICE)
    async with served() as device, kubebus.connect(EDGE) as bus:
        valve = bus.device("plant", "valve")
        await becomes(valve, "flow", lambda r: r.quality == "good")
        sessions = set(device.peers)
        try:
            await apply(manifests.replace("collectCycle: 300", "collectCycle: 100"))
            reads = device.reads
            await eventually("it reads on", lambda: device.reads > reads + 20)
            assert set(device.peers) == sessions
            other = manifests.replace("register: flow", "register: mode, scale: nought")
            await apply(other)
            await eventually("flow is left out", lambda: device.asked == {"pos", "mode"})
            device.registers.update(flow=9, mode="seen")
            await becomes(valve, "mode", lambda r: r.value == "seen")
            assert (await valve.get("flow")).value == 7, "its address makes no sense"
            assert set(device.peers) == sessions
        finally:
            await apply(manifests)
        await becomes(valve, "flow", lambda r: r.value == 9)
        assert device.writes == []


@run
async def test_a_mappers_program_says_when_it_comes_and_goes_however_it_ends():
    device = Simulator()
    await device.start()
    program = "import conftest, kubebus; kubebus.main(conftest.LineDriver, 'py')"
    async with kubebus.connect(CLOUD) as bus:
        valve = bus.device("plant", "valve")
        for end in (signal.SIGTERM, signal.SIGKILL):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, "--broker", EDGE, "--log", "WARNING", cwd=HERE
            )
            await state_becomes(valve, "online")
            process.send_signal(end)
            code = await process.wait()
            assert (end, code) in [(signal.SIGTERM, 0), (signal.SIGKILL, -9)]
            await state_becomes(valve, "offline")
    await device.stop()


@run
async def test_a_driver_that_cannot_open_its_device_is_asked_again():
    faults, seen = [kubebus.Transient("later", retry_after=0.1), OSError("no route")], []

    class Sloppy(LineDriver):
        async def open(self, config):
            seen.append(self)
            if len(seen) <= 2:
                raise faults[len(seen) - 1]
            await super().open(config)

    device, stop = Simulator(), asyncio.Event()
    await device.start()
    mapper = asyncio.ensure_future(kubebus.Mapper(Sloppy, "py", EDGE).run(stop))
    async with kubebus.connect(EDGE) as bus:
        await becomes(bus.device("plant", "valve"), "flow", lambda r: r.quality == "good")
    assert len(seen) == 3
    stop.set()
    await mapper
    await device.stop()


async def apply(manifests):
    await direct("apply " + manifests.replace("\n", "\\n"))
