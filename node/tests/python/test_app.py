"""An app reads, sets and watches."""

import asyncio
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CLOUD, EDGE, PATIENCE, becomes, eventually, run, served, state_becomes

import kubebus


@run
async def test_a_set_moves_the_device_once_and_its_end_is_told_at_edge_and_cloud():
    async with served() as device, kubebus.connect(EDGE) as edge, kubebus.connect(CLOUD) as cloud:
        await state_becomes(cloud.device("plant", "valve"), "online")
        for bus, position in [(edge, 40), (cloud, 60)]:
            valve = bus.device("plant", "valve")
            await valve.set("position", position, ttl=20)
            assert device.writes[-1] == ["pos", position * 2.0], "scaled"
            reported = await becomes(valve, "position", lambda r: r.value == position)
            assert reported.quality == "good" and reported.age < 60
        assert len(device.writes) == 2
        await cloud.device("plant", "valve").command("set", {"mode": "manual"}, ttl=20)
        assert device.writes[-1] == ["mode", "manual"]


@run
async def test_what_cannot_be_is_refused_with_the_reason_and_moves_nothing():
    async with served() as device, kubebus.connect(EDGE) as edge, kubebus.connect(CLOUD) as cloud:
        await state_becomes(cloud.device("plant", "valve"), "online")
        for bus in (edge, cloud):
            valve, nowhere = bus.device("plant", "valve"), bus.device("plant", "nowhere")
            for on, name, value, why in [
                (valve, "position", 101, "101"),
                (valve, "position", "open", "position"),
                (valve, "flow", 1, "flow"),
                (valve, "no-such", 1, "no-such"),
                (nowhere, "position", 1, "nowhere"),
            ]:
                with pytest.raises(kubebus.Rejected, match=why):
                    await on.set(name, value, ttl=20)
        device.refuses = True
        with pytest.raises(kubebus.Failed, match="stuck"):
            await edge.device("plant", "valve").set("position", 10, ttl=20)
        assert device.writes == []
        with pytest.raises(kubebus.Rejected, match="unheard-of"):
            await edge.device("plant", "valve").command("unheard-of", ttl=20)
        with pytest.raises(TypeError):
            await edge.device("plant", "valve").set("position", None, ttl=20)


@run
async def test_an_order_without_its_mapper_does_not_move_anything_later():
    async with kubebus.connect(EDGE) as bus:
        valve = bus.device("plant", "valve")
        async with served():
            await state_becomes(valve, "online")
        await state_becomes(valve, "offline")
        with pytest.raises(kubebus.NotDone) as refused:
            await valve.set("position", 99, ttl=2)
        assert not isinstance(refused.value, kubebus.Unknown), refused.value
        async with served() as device:
            await state_becomes(valve, "online")
            await eventually("read", lambda: device.reads > 3)
            assert device.writes == []


@run
async def test_a_device_that_does_not_answer_leaves_the_outcome_unknown_and_hears_it_once():
    async with served() as device, kubebus.connect(EDGE) as bus:
        valve = bus.device("plant", "valve")
        await becomes(valve, "position", lambda r: r.quality == "good")
        device.is_mute = True
        with pytest.raises(kubebus.Unknown):
            await valve.set("position", 33, ttl=3)
        device.is_mute = False
        await becomes(valve, "position", lambda r: r.value == 33)
        assert device.writes == [["pos", 66.0]]


@run
async def test_a_wish_at_the_cloud_reaches_the_device_and_its_acknowledgement_comes_back():
    async with served() as device, kubebus.connect(CLOUD) as bus, kubebus.connect(EDGE) as edge:
        valve = bus.device("plant", "valve")
        await state_becomes(valve, "online")
        before = device.writes[:]
        await valve.wish("position", 0.25, unit="1")
        reported = await becomes(valve, "position", lambda r: r.value == 25 and r.ack and r.ack.outcome == "succeeded")
        desired = await valve.desired("position")
        assert (desired.value, desired.version) == (25, reported.ack.version)
        assert device.writes == [*before, ["pos", 50.0]]
        with pytest.raises(kubebus.Rejected, match="mosquitto_sub -t twin/plant/valve/result"):
            await valve.wish("position", 101)
        assert (await edge.device("plant", "valve").desired("position")).value == 25


@run
async def test_watchers_hear_of_values_states_and_what_they_missed():
    async with served() as device, kubebus.connect(CLOUD) as bus, kubebus.connect(EDGE) as edge:
        seen, tank = {}, edge.device("plant", "tank")
        watch = bus.watch("plant/+/+")
        await tank.report({"level": 3.2})
        names = {("valve", "position"), ("valve", "flow"), ("valve", "mode"), ("tank", "level")}
        while not (names <= set(seen) and seen["tank", "level"] == 3.2 and seen["valve", "flow"] == 7):
            change = await asyncio.wait_for(watch.__anext__(), PATIENCE)
            seen[change.device, change.property] = change.value
        await watch.aclose()
        levels = edge.device("plant", "tank").watch("level")
        assert (await asyncio.wait_for(levels.__anext__(), PATIENCE)).value == 3.2
        for level in range(10):
            await tank.report({"level": float(level)})
        await becomes(tank, "level", lambda r: r.value == 9)
        change = await asyncio.wait_for(levels.__anext__(), PATIENCE)
        assert (change.value, change.skipped) == (9, 9)
        await tank.report({"level": 150.0}, unit="cm")
        await becomes(tank, "level", lambda r: r.value == 1.5)
        await state_becomes(edge.device("plant", "valve"), "online")
        assert (await edge.device("plant", "valve").state()).state == "online"
        assert device.writes == []


@run
async def test_many_watchers_of_one_value_come_and_go():
    async with kubebus.connect(EDGE) as bus:
        tank = bus.device("plant", "tank")
        await tank.report({"level": 5})
        got = await asyncio.gather(*(tank.get("level", timeout=PATIENCE) for _ in range(50)))
        assert {reported.value for reported in got} == {5}
        with pytest.raises(kubebus.NotReported, match="no-such"):
            await tank.get("no-such", timeout=0.3)
        assert bus._feeds == {}, "nothing is left subscribed"
        with pytest.raises(ValueError, match="write 'water"):
            await bus.watch("plant").__anext__()


@run
async def test_a_wrong_address_says_what_to_do():
    with pytest.raises(kubebus.NotConnected, match="refused; is a node running there"):
        async with kubebus.connect("127.0.0.1:9", timeout=0.5):
            pass
    with pytest.raises(ValueError, match="HOST:PORT"):
        kubebus.connect("localhost")


@run
async def test_a_certificate_lets_an_app_in_over_tls_and_names_it():
    place = Path(os.environ["KUBEBUS_CERTIFICATES"])
    tls = ssl.create_default_context(cafile=place / "cluster-ca.pem")
    tls.check_hostname = False  # a node's certificate names the node
    tls.load_cert_chain(place / "user-alice.pem", place / "user-alice.key")
    async with kubebus.connect(os.environ["KUBEBUS_TLS"], tls=tls) as bus, kubebus.connect(EDGE) as plain:
        tank = bus.device("plant", "tank")
        await tank.wish("setPoint", 2.5)
        watch = bus.watch("plant/tank/level")
        for level in range(300):  # many in one record of TLS
            await plain.device("plant", "tank").report({"level": level + 0.5})
        while (await asyncio.wait_for(watch.__anext__(), PATIENCE)).value != 299.5:
            pass
    stranger = ssl.create_default_context()
    with pytest.raises(kubebus.NotConnected, match="(?i)certificate"):
        async with kubebus.connect(os.environ["KUBEBUS_TLS"], tls=stranger, timeout=1):
            pass


@run
async def test_the_readmes_first_example_runs():
    page = (Path(__file__).parents[3] / "python/README.md").read_text()
    program = re.search(r"```python\n(.*?)```", page, re.S)[1]
    assert len(program.splitlines()) == 8
    program = program.replace("127.0.0.1:1883", EDGE).replace('"water", "valve"', '"plant", "valve"')
    assert EDGE in program and '"plant"' in program
    async with served() as device, kubebus.connect(EDGE) as bus:
        await becomes(bus.device("plant", "valve"), "position", lambda r: r.quality == "good")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 0 and said.startswith(b"10.0 (good, "), said
        assert device.writes == [["pos", 80.0]]
