"""What lets a write through, and what never does."""

import json

import pytest

import kubebus
from kubebus.desk import Desk
from kubebus.permit import KEEP, MAX_WRITES, Deadline, Ledger, Now, WritePermit, outcome_of

VALVE = ("water", "valve")


class Host:
    """Notes what it is asked for."""

    def __init__(self):
        self.done, self.orders, self.full = [], [], ""

    def start(self, config):
        self.done.append(("start", config.id))

    def configure(self, config):
        self.done.append(("configure", config.id))

    def stop(self, device):
        self.done.append(("stop", device))

    def order(self, order):
        if not self.full:
            self.orders.append(order)
        return self.full

    def news(self):
        pass


def config(*names, **more):
    position = {"name": "position", "type": "float", "writable": True, "address": None, "poll_ms": 1000}
    level = {"name": "level", "type": "int", "writable": False, "address": {"scale": 2}, "poll_ms": 1000}
    position.update({"minimum": 0.0, "maximum": 100.0, **more})
    devices = [
        {"device": {"namespace": "water", "name": n}, "connection": None, "properties": [position, level]} for n in names
    ]
    return json.dumps({"devices": devices}).encode()


def write(id="w", sent=1000, ttl=500, device="valve", property="position", value=40, **more):
    named = {"namespace": "water", "name": device}
    body = {"id": id, "device": named, "property": property, "value": value, "sent": sent, "ttl_ms": ttl}
    return json.dumps({**body, "cause": "test", **more}).encode()


def at(mono_ms, wall_ms=1000):
    return Now(mono_ms / 1000, wall_ms / 1000)


def desk(*names):
    made = Desk("m", Host())
    made.handle_config(config(*(names or ("valve",))))
    return made


def said(made):
    out = []
    while (publication := made.next_publication()) is not None:
        topic, payload = publication
        out.append((topic, json.loads(payload)))
    return out


def ends(made):
    return [(body["id"], body["outcome"]) for topic, body in said(made) if topic == "mapper/m/result"]


def test_a_write_lives_from_its_sending_and_from_its_receipt_whichever_ends_first():
    late = Deadline.of(1000, 500, at(10, 1400))
    assert late.left(at(10, 1400)) == pytest.approx(0.1)
    assert Deadline.of(9000, 500, at(10, 1000)).left(at(10, 1000)) == pytest.approx(0.5)
    assert Deadline.of(1000, 500, at(10, 1500)).is_over(at(10, 1500))


def test_a_wall_clock_that_jumps_ends_a_write_and_never_prolongs_it():
    deadline = Deadline.of(1000, 500, at(10, 1000))
    assert deadline.is_over(at(11, 9000)) and deadline.is_over(at(510, 0))
    assert not deadline.is_over(at(11, 0))


def test_a_permit_is_good_once_in_its_time_and_while_somebody_waits():
    now = [at(0)]
    deadline = Deadline.of(1000, 500, now[0])

    def permit():
        return WritePermit("test", deadline, lambda: now[0])

    first = permit()
    first.check()
    first.consume()
    with pytest.raises(kubebus.DriverBug):
        first.consume()
    revoked = permit()
    revoked.revoke()
    with pytest.raises(kubebus.PermitExpired):
        revoked.consume()
    for moment in (at(500), at(1, 1500)):
        late, now[0] = permit(), moment
        with pytest.raises(kubebus.PermitExpired):
            late.consume()
        assert not late.consumed


@pytest.mark.parametrize(
    "error, before, after",
    [
        (kubebus.Transient("x"), "failed", "unknown"),
        (kubebus.DeviceTimeout("x"), "failed", "unknown"),
        (kubebus.AuthError("x"), "failed", "unknown"),
        (kubebus.ConfigError("x"), "failed", "unknown"),
        (kubebus.DriverBug("x"), "failed", "unknown"),
        (kubebus.DeviceError("x"), "failed", "failed"),
        (kubebus.Unsupported("x"), "rejected", "unknown"),
        (kubebus.BadAddress("p", "x"), "rejected", "unknown"),
        (kubebus.PermitExpired("x"), "expired", "unknown"),
    ],
)
def test_only_what_surely_moved_nothing_is_said_to_have_moved_nothing(error, before, after):
    assert (outcome_of(error, False), outcome_of(error, True)) == (before, after)


def test_a_full_ledger_refuses_rather_than_forget_what_may_come_again():
    ledger = Ledger()
    for number in range(MAX_WRITES):
        assert ledger.admit(str(number), VALVE, "position", 1.0, 0.0)
        if number:
            ledger.finish(str(number), "succeeded", "")
    assert ledger.admit("more", VALVE, "position", 1.0, KEEP) is None
    assert ledger.admit("more", VALVE, "position", KEEP, 1 + KEEP)
    assert set(ledger.writes) == {"0", "more"}


def test_a_write_is_handed_over_once_and_its_result_is_told_again_from_memory():
    made = desk()
    for _ in range(3):
        made.handle_write(write(), False, at(10))
    (order,) = made.host.orders
    assert (order.id, order.value, order.cause) == ("w", 40.0, "test")
    made.finish("w", "succeeded", "")
    made.finish("w", "unknown", "a second word does not count")
    made.handle_write(write(), False, at(20))
    assert ends(made) == [("w", "succeeded")]
    made.handle_write(write(), True, at(30))
    assert ends(made) == [("w", "succeeded")] and len(made.host.orders) == 1
    made.handle_connected()
    assert ends(made) == [("w", "succeeded")], "told again on a new connection"


@pytest.mark.parametrize(
    "asked, retained, outcome",
    [
        (write(), True, "rejected"),
        (write(sent=100), False, "expired"),
        (write(ttl=0), False, "expired"),
        (write(device="nowhere"), False, "rejected"),
        (write(property="nothing"), False, "rejected"),
        (write(property="level"), False, "rejected"),
        (write(value=-1), False, "rejected"),
        (write(value=100.5), False, "rejected"),
        (write(value="40"), False, "rejected"),
        (write(value=True), False, "rejected"),
        (write(value=None), False, "rejected"),
    ],
)
def test_what_must_not_be_written_is_answered_and_never_handed_over(asked, retained, outcome):
    made = desk()
    made.handle_write(asked, retained, at(10))
    assert made.host.orders == [] and ends(made) == [("w", outcome)]


@pytest.mark.parametrize(
    "noise",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 60000, write(id=""), write(id="x" * 129), write(sent=-1), write(ttl=1.5),
     write(sent=True), write(value=40)[:-1], b'{"id": "w"}', write(value="x" * 70000), write(value=float("nan")),
     write(property=7), write(sent=10**400)],
)
def test_noise_is_ignored(noise):
    made = desk()
    made.handle_write(noise, False, at(10))
    assert made.host.orders == [] and said(made) == []


def test_a_device_that_takes_no_more_writes_refuses():
    made = desk()
    made.host.full = "too many writes wait for this device"
    made.handle_write(write(), False, at(10))
    assert ends(made) == [("w", "rejected")]


def test_only_what_changed_is_started_configured_or_stopped():
    made = desk("a", "b")
    made.host.done.clear()
    made.handle_config(config("a", "b"))
    made.handle_config(b"{ no JSON")
    assert made.host.done == []
    changed = json.loads(config("a", "b"))
    changed["devices"][0]["connection"] = {"port": 1}
    made.handle_config(json.dumps(changed).encode())
    made.handle_config(config("b", "c"))
    assert made.host.done == [("configure", ("water", "a")), ("stop", ("water", "a")), ("start", ("water", "c"))]


def test_a_device_that_comes_back_waits_until_its_old_task_has_let_go():
    made = desk("a")
    made.handle_config(b"")
    made.handle_config(config("a"))
    made.handle_write(write(device="a"), False, at(10))
    assert made.host.done == [("start", ("water", "a")), ("stop", ("water", "a"))]
    assert ends(made) == [("w", "failed")]
    made.handle_ended(("water", "a"))
    assert made.host.done[2:] == [("start", ("water", "a"))]


def test_what_a_task_had_in_hand_when_it_ended_is_unknown():
    made = desk()
    made.handle_write(write(), False, at(10))
    made.handle_ended(VALVE)
    assert ends(made) == [("w", "unknown")]


def test_reports_melt_into_the_latest_and_take_turns():
    made = desk("a", "b")
    reading = lambda value: {"value": value, "time": 1, "quality": "good"}  # noqa: E731
    made.handle_report(("water", "a"), {"level": reading(1)})
    made.handle_report(("water", "b"), {"level": reading(2)})
    made.handle_report(("water", "a"), {"level": reading(3), "gone": reading(4)})
    made.handle_report(("water", "nowhere"), {"level": reading(5)})
    expected = [("twin/water/b/report", {"level": reading(2)}), ("twin/water/a/report", {"level": reading(3)})]
    assert sorted(said(made)) == sorted(expected)
    assert said(made) == []
    made.handle_connected()
    assert sorted(said(made)) == sorted(expected), "all is said again on a new connection"
