"""When a device is read, what becomes of its values, and what a driver may do wrong."""

import asyncio

import pytest

import kubebus
from kubebus.attendant import Attendant
from kubebus.config import parse_config
from kubebus.desk import Order
from kubebus.device import NO_VALUE, Device
from kubebus.permit import Deadline, Now, now
from kubebus.polling import Freshness, Schedule
from kubebus.values import coerce, parse_json
from test_writes import config


def properties(**more):
    (device,) = parse_config(config("valve", **more)).values()
    return device.properties


def test_points_of_one_device_are_read_together_whenever_their_ticks_meet():
    s = Schedule(0.1)
    for name, period in [("a", 1), ("b", 2), ("never", 0)]:
        s.set(name, period, 0)
    assert s.next() == 0.1 and s.take_due(0.099) == []
    assert s.take_due(0.1) == ["a", "b"]
    assert s.take_due(1.1) == ["a"]
    assert s.take_due(2.1) == ["a", "b"]
    assert s.take_due(7.7) == ["a", "b"] and s.next() == pytest.approx(8.1), "missed ticks are left out, the grid stays"


def test_a_written_point_is_read_at_once_and_a_changed_period_starts_anew():
    s = Schedule(0.1)
    s.set("a", 1, 0)
    s.take_due(0.1)
    s.hurry("a", 0.4)
    s.hurry("unknown", 0.4)
    assert s.take_due(0.4) == ["a"] and s.next() == pytest.approx(1.1)
    s.set("a", 1, 0.5)
    assert s.next() == pytest.approx(1.1)
    s.set("a", 1e-6, 0.5)
    s.take_due(0.5)
    assert s.next() == pytest.approx(0.55), "never faster than the shortest period"
    s.set("a", 0, 0.5)
    assert s.next() is None


def test_an_old_value_turns_bad_once_and_nothing_is_invented():
    f = Freshness()
    f.set_period(10)
    assert f.ends() is None and not f.expire(1e9)
    f.read(False, 5)
    assert f.ends() == 35 and not f.expire(34.9) and f.expire(35) and not f.expire(1e9)
    f.read(True, 50)
    assert f.ends() is None
    f.set_period(0.05)
    f.read(False, 50)
    assert f.ends() == 52, "a short period does not make a value old within two seconds"
    f.set_period(0)
    assert f.ends() is None, "nobody polls it"


def test_an_error_decides_what_is_next_by_its_kind():
    for error, at_least, at_most in [
        (kubebus.Transient("x"), 0, 1),
        (kubebus.Transient("x", retry_after=7), 7, 7),
        (kubebus.DeviceTimeout("x"), 0, 1),
        (kubebus.AuthError("x"), 60, 60),
        (kubebus.DriverBug("x"), 60, 60),
        (kubebus.ConfigError("x"), float("inf"), float("inf")),
    ]:
        device = Device(0.0)
        assert device.step(0.0)[0] == "open"
        wait = device.handle_lost(error, 0.0)
        assert at_least <= wait <= at_most and device.step(0.0)[0] == ("wait" if wait else "open")
        if wait < 1e9:
            assert device.step(wait)[0] == "open"
        device.reopen()
        assert device.step(0.0)[0] == "open"


def test_a_failing_point_grows_old_and_is_complained_of_once():
    device = Device(0.0)
    device.configure(properties(), 0.0)
    device.state = "open"
    good = {"value": 1.0, "time": 5, "quality": "good"}
    device.handle_read(["level", "position"], {"level": good, "position": good}, NO_VALUE, Now(1.0, 5))
    assert device.take_report() == {"level": good, "position": good}
    for first in (True, False):
        told = device.handle_read(["level"], {}, NO_VALUE, Now(2.0, 6))
        assert [name for name, _ in told] == (["level"] if first else [])
    device.handle_read(["position"], {"position": kubebus.BadAddress("position", "no")}, NO_VALUE, Now(2.0, 6))
    assert "position" not in device.schedule.next_at, "left out until it is configured anew"
    device.handle_read(["level"], {"level": kubebus.BadAddress("other", "no")}, NO_VALUE, Now(2.0, 6))
    assert "level" in device.schedule.next_at, "another point's fault"
    device.step(4.0)
    bad = {**good, "quality": "bad"}
    assert device.take_report() == {"level": bad, "position": bad} and device.take_report() == {}


def test_a_device_that_lost_its_session_still_grows_old():
    device = Device(0.0)
    device.configure(properties(), 0.0)
    device.state = "open"
    device.keep("level", {"value": 1, "time": 5, "quality": "good"}, 1.0)
    device.take_report()
    device.handle_lost(kubebus.ConfigError("x"), 2.0)
    assert device.step(2.0) == ("wait", [], 4.0)
    device.step(4.0)
    assert device.take_report()["level"]["quality"] == "bad"


@pytest.mark.parametrize(
    "value, kind, expected",
    [(1, "float", 1.0), (2.0, "int", 2), (True, "bool", True), ("x", "string", "x"), ({"a": 1}, "struct", {"a": 1}),
     (b"\x00\x01", "bytes", "AAE="), ("AAE=", "bytes", "AAE=")],
)
def test_values_fit_their_type(value, kind, expected):
    fit = coerce(value, kind)
    assert fit == expected and type(fit) is type(expected)


@pytest.mark.parametrize(
    "value, kind",
    [(1.5, "int"), (2**63, "int"), (1e300, "int"), (True, "int"), (True, "float"), (1, "bool"), (float("nan"), "float"),
     (float("inf"), "float"), ("1", "float"), ("?", "bytes"), ([1], "struct"), (None, "string"), (1, "no-such-type")],
)
def test_values_that_do_not_fit_are_refused(value, kind):
    with pytest.raises((ValueError, TypeError)):
        coerce(value, kind)


@pytest.mark.parametrize("text", [b"NaN", b"-Infinity", b"[" * 100_000, b"\xff", b"", b"{'a': 1}"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_scale_and_shift_work_both_ways_and_are_not_the_drivers():
    position = properties(address={"register": 7, "scale": 0.1, "shift": -5})["position"]
    assert position.point.address == {"register": 7}
    assert position.from_device(100) == pytest.approx(5.0) and position.to_device(5.0) == pytest.approx(100)
    level = properties()["level"]
    assert (level.from_device(1.25), level.from_device(-1.25), level.to_device(4)) == (3, -3, 2)
    with pytest.raises(ValueError, match="no number to scale"):
        level.from_device("x")
    for wrong in (0, "x", True, None):
        fault = properties(address={"scale": wrong})["position"].fault
        assert fault.startswith("scale: "), wrong


class Rig:
    """One device's task with a driver, without a broker."""

    def __init__(self, driver, **more):
        (device,) = parse_config(config("valve", **more)).values()
        self.reports, self.ends = [], []
        self.attendant = Attendant(driver, device, lambda _, r: self.reports.append(r), self.end)
        self.attendant.core.schedule.start = 0.0
        self.ended = asyncio.Event()

    def end(self, *end):
        self.ends.append(end)
        self.ended.set()

    def order(self, seconds=5.0, id="w"):
        moment = now()
        deadline = Deadline(moment.mono + seconds, moment.wall + seconds)
        return self.attendant.order(Order(id, ("water", "valve"), "position", 40.0, "test", deadline))


def outcome_with(driver_type, seconds=5.0):
    """What the node is told of a write, and what the device heard."""

    async def run():
        heard = []

        class Driver(driver_type):
            def __init__(self):
                self.heard = heard

        rig = Rig(Driver)
        task = asyncio.ensure_future(rig.attendant.run())
        while rig.attendant.core.state != "open":
            await asyncio.sleep(0.001)
        rig.order(seconds)
        await asyncio.wait_for(rig.ended.wait(), 20)
        rig.attendant.stop()
        await task
        return rig.ends, heard

    return asyncio.run(run())


def test_a_write_that_waits_is_refused_when_its_range_changes_meanwhile_and_not_when_its_period_does():
    def end_after(**changed):
        class Driver(Good):
            heard = []

        async def run():
            rig = Rig(Driver)
            rig.order()
            (device,) = parse_config(config("valve", **changed)).values()
            rig.attendant.configure(device)
            task = asyncio.ensure_future(rig.attendant.run())
            await asyncio.wait_for(rig.ended.wait(), 20)
            rig.attendant.stop()
            await task
            return rig.ends[0][1]

        return asyncio.run(run())

    assert end_after(maximum=50) == "rejected"
    assert end_after(poll_ms=777) == "succeeded"


class Good(kubebus.Driver):
    async def read(self, points):
        return {point.name: 1 for point in points}

    async def write(self, point, value, permit):
        permit.consume()
        self.heard.append(value)


def test_a_good_driver_writes():
    assert outcome_with(Good) == ([("w", "succeeded", "")], [40.0])


def test_a_driver_that_is_late_moves_nothing():
    class Slow(Good):
        async def write(self, point, value, permit):
            await asyncio.sleep(0.3)
            await super().write(point, value, permit)

    ((_, outcome, _),), heard = outcome_with(Slow, 0.1)
    assert (outcome, heard) == ("expired", [])


def test_a_driver_that_will_not_be_cancelled_moves_nothing_afterwards():
    class Stubborn(Good):
        async def write(self, point, value, permit):
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                await super().write(point, value, permit)

    ((_, outcome, _),), heard = outcome_with(Stubborn, 0.1)
    assert (outcome, heard) == ("expired", [])


def test_what_a_failed_write_has_left_behind_moves_nothing():
    class Leaking(Good):
        async def write(self, point, value, permit):
            self.left = asyncio.ensure_future(self.later(point, value, permit))
            raise OSError("cut before anything was sent")

        async def later(self, point, value, permit):
            await asyncio.sleep(0.1)
            await Good.write(self, point, value, permit)

        async def close(self):
            await asyncio.wait({self.left})
            assert isinstance(self.left.exception(), kubebus.PermitExpired)

    ((_, outcome, _),), heard = outcome_with(Leaking)
    assert (outcome, heard) == ("failed", [])


def test_a_driver_that_does_not_ask_for_the_permit_is_not_believed():
    class Careless(Good):
        async def write(self, point, value, permit):
            self.heard.append(value)

    ((_, outcome, why),), heard = outcome_with(Careless)
    assert (outcome, len(heard)) == ("unknown", 1) and "permit.consume()" in why


@pytest.mark.parametrize("error, outcome", [(kubebus.DeviceError("no"), "failed"), (OSError("cut"), "unknown"), (KeyError("bug"), "unknown")])
def test_a_write_that_breaks_after_it_began_is_not_repeated(error, outcome):
    class Breaking(Good):
        async def write(self, point, value, permit):
            await super().write(point, value, permit)
            raise error

    ((_, told, _),), heard = outcome_with(Breaking)
    assert (told, heard) == (outcome, [40.0])


def test_a_driver_that_breaks_is_replaced_and_its_values_are_believed_only_where_they_fit():
    opened = []

    class Breaking(Good):
        heard = opened

        async def open(self, config):
            opened.append(self)
            if len(opened) == 1:
                raise ConnectionRefusedError("not yet")

        async def read(self, points):
            return {"position": 3, "level": "much", "invented": 1}

    async def run():
        rig = Rig(Breaking)
        task = asyncio.ensure_future(rig.attendant.run())
        while not rig.reports:
            await asyncio.sleep(0.01)
        rig.attendant.stop()
        await task
        return rig.reports[0]

    report = asyncio.run(asyncio.wait_for(run(), 20))
    assert list(report) == ["position"] and report["position"]["value"] == 3.0 and len(opened) == 2


def test_what_waits_when_a_device_goes_has_moved_nothing():
    class Hanging(Good):
        async def open(self, config):
            await asyncio.sleep(60)

    async def run():
        rig = Rig(Hanging)
        task = asyncio.ensure_future(rig.attendant.run())
        await asyncio.sleep(0.05)
        refused = [rig.order(id=str(number)) for number in range(17)]
        rig.attendant.stop()
        await asyncio.wait_for(task, 20)
        return refused, rig.ends

    refused, ends = asyncio.run(run())
    assert refused[:16] == [""] * 16 and refused[16]
    assert [outcome for _, outcome, _ in ends] == ["rejected"] * 16
