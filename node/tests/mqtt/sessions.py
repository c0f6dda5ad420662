"""What outlives a connection: sessions, what waits in them, wills; and how connections end. For MQTT 3.1.1 and 5."""

import time

from client import PATIENCE, V3, V5, case, equal, main, value

# Seconds, in MQTT 5; 3.1.1 keeps a session as long as the broker wants to.
LONG = 600


def lasting(client, **more):
    """Connects with a session that is kept."""
    if client.version == V5:
        more.setdefault("SessionExpiryInterval", LONG)
    return client.connect(clean=False, **more)


@case(V3, V5)
def a_session_is_there_again_with_its_subscriptions(room):
    first = lasting(room.client())
    equal((first.reason.value, first.session_present), (0, False))
    first.subscribe(room.topic("kept"), room.topic("given-up"))
    first.unsubscribe(room.topic("given-up"))
    first.disconnect()
    again = lasting(room.client())
    equal(again.session_present, True)
    publisher = room.client("publisher").connect()
    publisher.publish(room.topic("given-up"))
    again.gets_nothing_before(room.topic("kept"), publisher)


@case(V3, V5)
def a_clean_start_forgets_the_session_and_what_waited(room):
    lasting(room.client()).subscribe(room.topic("x"))
    room.clients[-1].disconnect()
    publisher = room.client("publisher").connect()
    publisher.publish(room.topic("x"), b"lost")
    clean = room.client().connect(clean=True)
    equal(clean.session_present, False)
    clean.subscribe(room.topic("marker"))
    publisher.publish(room.topic("x"), b"not subscribed any more")
    clean.gets_nothing_before(room.topic("marker"), publisher)


@case(V3, V5)
def a_clean_session_leaves_nothing(room):
    room.client().connect(clean=True).subscribe(room.topic("x"))
    room.clients[-1].disconnect()
    equal(lasting(room.client()).session_present, False)


@case(V3, V5)
def what_is_published_meanwhile_waits_in_order(room):
    away = lasting(room.client())
    away.subscribe(room.topic("#"), qos=2)
    away.drop()
    publisher = room.client("publisher").connect()
    for number in range(100):
        publisher.send(room.topic("x"), str(number), 1 + number % 2)
    publisher.settle(100)
    back = lasting(room.client())
    equal(back.session_present, True)
    got = [back.next() for _ in range(100)]
    for qos in (1, 2):  # a QoS 2 message is handed over at its PUBREL: after QoS 1 messages that came behind it
        said = [str(number).encode() for number in range(100) if 1 + number % 2 == qos]
        equal([message.payload for message in got if message.qos == qos], said, f"QoS {qos}")
    equal({message.dup for message in got}, {False}, "none was sent before")
    back.gets_nothing_before(room.topic("y"), publisher)


@case(V3, V5)
def what_was_not_acknowledged_comes_again_as_a_duplicate(room):
    holder = lasting(room.client(manual_ack=True))
    holder.subscribe(room.topic("x"))
    publisher = room.client("publisher").connect()
    for number in range(3):
        publisher.publish(room.topic("x"), str(number))
    first = [holder.next() for _ in range(3)]
    holder.drop()
    back = lasting(room.client())
    equal(back.session_present, True)
    again = [back.next() for _ in range(3)]
    equal([message.payload for message in again], [b"0", b"1", b"2"])
    equal([message.mid for message in again], [message.mid for message in first])
    equal([message.dup for message in first + again], [False] * 3 + [True] * 3)
    back.gets_nothing_before(room.topic("x"), publisher)


@case(V3, V5)
def what_was_acknowledged_does_not_come_again(room):
    holder = lasting(room.client(manual_ack=True))
    holder.subscribe(room.topic("x"))
    publisher = room.client("publisher").connect()
    for number in range(4):
        publisher.publish(room.topic("x"), str(number))
    got = [holder.next() for _ in range(4)]
    for number in (0, 2):
        holder.ack(got[number])
    holder.disconnect()
    back = lasting(room.client())
    equal(back.payloads(2), [b"1", b"3"])
    back.gets_nothing_before(room.topic("x"), publisher)


@case(V3, V5)
def who_comes_back_elsewhere_takes_the_session_along(room):
    here = lasting(room.client())
    here.subscribe(room.topic("x"))
    there = lasting(room.client())
    equal(there.session_present, True)
    equal(here.ended(), 0x8E if room.version == V5 else None)
    publisher = room.client("publisher").connect()
    there.gets_nothing_before(room.topic("x"), publisher)


@case(V3, V5)
def a_client_without_a_name_gets_one(room):
    nameless = room.client("").connect(clean=True)
    equal(nameless.reason.value, 0)
    nameless.subscribe(room.topic("x"))
    if room.version == V5:
        name = value(nameless.offered, "AssignedClientIdentifier")
        assert name, "MQTT 5.0 §3.2.2.3.7: the name is told"
    publisher = room.client("publisher").connect()
    nameless.gets_nothing_before(room.topic("x"), publisher)


@case(V5)
def a_session_lives_as_long_as_it_was_asked_to(room):
    for name, seconds, wait, kept in (("none", 0, 0.0, False), ("short", 1, 2.5, False), ("long", 30, 1.5, True)):
        first = room.client(name).connect(clean=True, SessionExpiryInterval=seconds)
        first.subscribe(room.topic("x"))
        first.disconnect()
        time.sleep(wait)
        equal(room.client(name).connect(clean=False).session_present, kept, name)


@case(V5)
def a_goodbye_can_change_how_long_a_session_lives(room):
    for name, before, after, kept in (("shorter", LONG, 1, False), ("longer", 1, LONG, True), ("ended", LONG, 0, False)):
        first = room.client(name).connect(clean=True, SessionExpiryInterval=before)
        first.disconnect(SessionExpiryInterval=after)
    time.sleep(2.5)
    for name, kept in (("shorter", False), ("longer", True), ("ended", False)):
        equal(room.client(name).connect(clean=False).session_present, kept, name)


@case(V5)
def a_session_that_was_to_end_with_its_connection_cannot_be_kept_at_the_goodbye(room):
    client = room.client().connect(clean=True, SessionExpiryInterval=0)
    client.disconnect(SessionExpiryInterval=LONG)
    equal(room.client().connect(clean=False).session_present, False)


@case(V5)
def the_later_connection_decides_how_long_the_session_lives(room):
    room.client().connect(clean=True, SessionExpiryInterval=LONG).disconnect()
    second = room.client().connect(clean=False, SessionExpiryInterval=0)
    equal(second.session_present, True)
    second.drop()
    equal(room.client().connect(clean=False).session_present, False)


@case(V3, V5)
def a_will_is_published_when_its_client_vanishes(room):
    heir = room.client("heir").connect()
    heir.subscribe(room.topic("will/#"), room.topic("marker"), qos=2)
    for qos in (0, 1, 2):
        dying = room.client(f"dying{qos}").connect(will=(room.topic(f"will/{qos}"), b"gone", qos, False))
        dying.drop()
        got = heir.next()
        equal((got.topic, got.payload, got.qos, got.retain), (room.topic(f"will/{qos}"), b"gone", qos, False))


@case(V3, V5)
def a_goodbye_takes_the_will_back(room):
    heir, publisher = room.client("heir").connect(), room.client("publisher").connect()
    heir.subscribe(room.topic("#"))
    room.client("leaving").connect(will=(room.topic("will"), b"gone", 1, False)).disconnect()
    heir.gets_nothing_before(room.topic("marker"), publisher)


@case(V3, V5)
def a_will_can_be_retained(room):
    topic = room.topic("will")
    room.client("dying").connect(will=(topic, b"offline", 1, True)).drop()
    watcher = room.client("watcher").connect()
    watcher.subscribe(topic)
    got = watcher.next()  # as it happens, or retained
    equal(got.payload, b"offline")
    late = room.client("late").connect()
    late.subscribe(topic)
    got = late.next()
    equal((got.payload, got.retain), (b"offline", True))


@case(V3, V5)
def who_is_taken_over_leaves_a_will(room):
    # 3.1.1 §3.1.2.5 and 5.0 §3.1.4-3: the connection was closed without a DISCONNECT of the client.
    heir = room.client("heir").connect()
    heir.subscribe(room.topic("will"))
    room.client("twin").connect(will=(room.topic("will"), b"taken over", 1, False))
    room.client("twin").connect()
    equal(heir.next().payload, b"taken over")


@case(V5)
def a_will_can_be_asked_for_at_the_goodbye(room):
    heir = room.client("heir").connect()
    heir.subscribe(room.topic("will"))
    room.client("dying").connect(will=(room.topic("will"), b"on purpose", 1, False)).disconnect(reason=0x04)
    equal(heir.next().payload, b"on purpose")


@case(V5)
def a_will_says_all_that_a_message_can(room):
    heir = room.client("heir").connect()
    heir.subscribe(room.topic("will"))
    said = {
        "UserProperty": [("a", "1"), ("a", "2")],
        "ContentType": "text/plain",
        "ResponseTopic": "r",
        "CorrelationData": b"\x00\x01",
        "PayloadFormatIndicator": 1,
        "MessageExpiryInterval": 60,
    }
    dying = room.client("dying").connect(will=(room.topic("will"), b"gone", 1, False), will_properties=said)
    dying.drop()
    got = heir.next().properties
    equal({name: getattr(got, name) for name in said}, said)


@case(V5)
def a_delayed_will_waits(room):
    heir = room.client("heir").connect()
    heir.subscribe(room.topic("will"))
    dying = room.client("dying").connect(
        SessionExpiryInterval=LONG,
        will=(room.topic("will"), b"gone", 1, False),
        will_properties={"WillDelayInterval": 2},
    )
    dying.drop()
    start = time.monotonic()
    heir.is_quiet()
    equal(heir.next().payload, b"gone")
    assert time.monotonic() - start >= 1.5, "it came too early"


@case(V5)
def who_comes_back_in_time_leaves_no_will(room):
    heir, publisher = room.client("heir").connect(), room.client("publisher").connect()
    heir.subscribe(room.topic("#"))
    dying = room.client("dying").connect(
        SessionExpiryInterval=LONG,
        will=(room.topic("will"), b"gone", 1, False),
        will_properties={"WillDelayInterval": 1},
    )
    dying.drop()
    room.client("dying").connect(clean=False, SessionExpiryInterval=LONG)
    time.sleep(2)
    heir.gets_nothing_before(room.topic("marker"), publisher)


@case(V5)
def a_delayed_will_comes_with_the_end_of_its_session_at_the_latest(room):
    heir = room.client("heir").connect()
    heir.subscribe(room.topic("#"))
    delayed = {"will_properties": {"WillDelayInterval": LONG}}
    will = lambda name: (room.topic(name), name.encode(), 1, False)
    room.client("expired").connect(SessionExpiryInterval=1, will=will("expired"), **delayed).drop()
    equal(heir.next().payload, b"expired")
    room.client("none").connect(SessionExpiryInterval=0, will=will("none"), **delayed).drop()
    equal(heir.next().payload, b"none")
    room.client("clean").connect(SessionExpiryInterval=LONG, will=will("clean"), **delayed).drop()
    room.client("clean").connect(clean=True)
    equal(heir.next().payload, b"clean")


@case(V5)
def what_waits_expires(room):
    away = room.client().connect(SessionExpiryInterval=LONG)
    away.subscribe(room.topic("x"), qos=2)
    away.disconnect()
    publisher = room.client("publisher").connect()
    publisher.publish(room.topic("x"), b"short", qos=1, MessageExpiryInterval=1)
    publisher.publish(room.topic("x"), b"long", qos=1, MessageExpiryInterval=60)
    publisher.publish(room.topic("x"), b"short", qos=2, MessageExpiryInterval=1)
    publisher.publish(room.topic("x"), b"for ever", qos=2)
    time.sleep(2.2)
    back = room.client().connect(clean=False, SessionExpiryInterval=LONG)
    first, second = back.next(), back.next()
    equal((first.payload, second.payload), (b"long", b"for ever"))
    left = first.properties.MessageExpiryInterval
    assert 40 <= left <= 58, f"MQTT 5.0 §3.3.2.3.3: less what it waited; {left} s are left"
    equal(value(second.properties, "MessageExpiryInterval"), None)


@case(V5)
def a_retained_value_expires(room):
    publisher, late = room.pair()
    publisher.publish(room.topic("x"), b"short", retain=True, MessageExpiryInterval=1)
    publisher.publish(room.topic("y"), b"long", retain=True, MessageExpiryInterval=60)
    time.sleep(2.2)
    late.subscribe(room.topic("#"))
    got = late.next()
    equal(got.payload, b"long")
    assert 40 <= got.properties.MessageExpiryInterval <= 58


@case(V3, V5)
def a_thousand_messages_wait_for_somebody_who_comes_back(room):
    away = lasting(room.client())
    away.subscribe(room.topic("x"), qos=1)
    away.disconnect()
    publisher = room.client("publisher").connect()
    for number in range(1000):
        publisher.send(room.topic("x"), number.to_bytes(4, "big") + bytes(1000))
    publisher.settle(1000)
    back = lasting(room.client())
    got = [int.from_bytes(back.inbox.get(timeout=PATIENCE).payload[:4], "big") for _ in range(1000)]
    equal(got, list(range(1000)))


if __name__ == "__main__":
    main()
