"""Nodes are killed, started and frozen in the middle of things."""

import asyncio
import contextlib

import pytest
from conftest import CLOUD, EDGE, becomes, direct, eventually, run, served, state_becomes

import kubebus


@contextlib.contextmanager
def grace(seconds):
    """An end that will not come is waited for no longer than this."""
    before, kubebus.bus.GRACE = kubebus.bus.GRACE, seconds
    yield
    kubebus.bus.GRACE = before


@run
async def test_app_and_mapper_come_back_after_their_edge_and_nothing_moves_by_it():
    async with served() as device, kubebus.connect(EDGE) as bus, kubebus.connect(CLOUD) as cloud:
        valve = bus.device("plant", "valve")
        await state_becomes(valve, "online")
        watch, sessions = valve.watch("flow"), set(device.peers)
        assert (await watch.__anext__()).value == 7
        for flow in (8, 9):
            await direct("kill a")
            device.registers["flow"] = flow
            with pytest.raises(kubebus.NotDone):
                await valve.set("position", 50, ttl=0.2)
            await direct("start a")
            while (await watch.__anext__()).value != flow:
                pass
            assert device.writes == [], "neither a restart nor a wish that is over moves anything"
            assert set(device.peers) == sessions, "the device did not notice"
        await valve.set("position", 51, ttl=20)
        assert device.writes == [["pos", 102.0]]
        await becomes(cloud.device("plant", "valve"), "position", lambda r: r.value == 51)


@run
async def test_a_broker_that_dies_in_the_middle_of_a_set_leaves_it_unknown_and_the_device_hears_it_once():
    async with served() as device, kubebus.connect(EDGE) as bus:
        valve = bus.device("plant", "valve")
        await becomes(valve, "position", lambda r: r.quality == "good")
        device.is_mute = True
        order = asyncio.ensure_future(valve.set("position", 70, ttl=4))
        await eventually("the device hears it", lambda: device.writes)
        await direct("kill a")
        device.is_mute = False
        await direct("start a")
        with pytest.raises(kubebus.Unknown):
            await order
        await becomes(valve, "position", lambda r: r.value == 70 and r.quality == "good")
        assert device.writes == [["pos", 140.0]]
        await valve.set("position", 71, ttl=20)
        assert device.writes == [["pos", 140.0], ["pos", 142.0]]


def no_route(_client):
    raise OSError("no route")


@run
async def test_an_end_that_comes_while_the_app_is_away_is_told_when_it_is_back():
    async with served() as device, kubebus.connect(CLOUD) as cloud:
        valve = cloud.device("plant", "valve")
        await becomes(valve, "position", lambda r: r.quality == "good")
        device.is_mute = True
        order = asyncio.ensure_future(valve.set("position", 30, ttl=4))
        await eventually("the device hears it", lambda: device.writes)
        dial, cloud._line._dial = cloud._line._dial, no_route
        cloud._line.drop("the test breaks it")
        async with kubebus.connect(EDGE) as edge:
            await becomes(edge.device("plant", "valve"), "position", lambda r: r.value == 30)
        assert not order.done()
        cloud._line._dial = dial
        with pytest.raises(kubebus.Unknown, match="no answer in time: write"):
            await order
        assert device.writes == [["pos", 60.0]]


@run
async def test_a_frozen_broker_is_given_up_and_the_device_hears_it_at_most_once():
    async with served() as device, kubebus.connect(EDGE) as bus:
        valve = bus.device("plant", "valve")
        await becomes(valve, "position", lambda r: r.quality == "good")
        await direct("freeze a")
        with grace(2.0), pytest.raises(kubebus.Unknown, match="read the device"):
            await valve.set("position", 44, ttl=1)
        device.registers["flow"] = 8
        await direct("thaw a")
        await becomes(valve, "flow", lambda r: r.value == 8)
        await valve.set("position", 45, ttl=20)
        assert device.writes.count(["pos", 88.0]) <= 1 and device.writes[-1] == ["pos", 90.0]


@run
async def test_a_command_for_an_edge_that_is_away_expires_and_is_not_caught_up():
    async with served() as device, kubebus.connect(CLOUD) as cloud:
        valve = cloud.device("plant", "valve")
        await becomes(valve, "position", lambda r: r.quality == "good")
        await direct("kill a")
        with grace(2.0), pytest.raises((kubebus.Expired, kubebus.Unknown)):
            await valve.set("position", 77, ttl=2)
        device.registers["flow"] = 8
        await direct("start a")
        await becomes(valve, "flow", lambda r: r.value == 8)
        await valve.set("position", 78, ttl=20)
        assert device.writes == [["pos", 156.0]]
