"""What is published arrives, with the right QoS, and only where it belongs. For MQTT 3.1.1 and 5."""

from client import PATIENCE, V3, V5, case, equal, main, value


@case(V3, V5)
def each_qos_arrives_as_the_lower_of_what_was_said_and_what_was_asked_for(room):
    publisher = room.client("publisher").connect()
    for asked in (0, 1, 2):
        subscriber = room.client(f"s{asked}").connect()
        equal(subscriber.subscribe(room.topic(f"{asked}/+"), qos=asked), [asked])
        for said in (0, 1, 2):
            publisher.publish(room.topic(f"{asked}/{said}"), b"x", qos=said)
            got = subscriber.next()
            equal((got.topic, got.qos), (room.topic(f"{asked}/{said}"), min(asked, said)))


@case(V3, V5)
def many_messages_of_one_publisher_arrive_once_and_in_order(room):
    publisher, subscriber = room.pair()
    subscriber.subscribe(room.topic("#"), qos=2)
    for qos in (1, 2):
        for number in range(300):
            publisher.send(room.topic(str(qos)), str(number), qos)
        publisher.settle(300)
        equal(subscriber.payloads(300), [str(number).encode() for number in range(300)], f"QoS {qos}")


@case(V3, V5)
def a_retained_value_is_set_replaced_and_cleared(room):
    publisher, early = room.pair()
    topic = room.topic("level")
    early.subscribe(topic)
    for number, payload in enumerate((b"1", b"2")):
        publisher.publish(topic, payload, retain=True)
        live = early.next()
        equal((live.payload, live.retain), (payload, False), "who is there hears it as new")
        late = room.client(f"late{number}").connect()
        late.subscribe(topic)
        got = late.next()
        equal((got.payload, got.retain, got.qos), (payload, True, 1), "who comes later hears it as retained")
    publisher.publish(topic, b"3")
    publisher.publish(topic, b"", retain=True)
    equal(early.payloads(2), [b"3", b""])
    after = room.client("after").connect()
    after.subscribe(topic, room.topic("marker"))
    after.gets_nothing_before(room.topic("marker"), publisher)


@case(V3, V5)
def all_retained_values_below_a_wildcard_come(room):
    publisher, late = room.pair()
    for number in range(600):
        publisher.send(room.topic(f"{number}/v"), str(number), 1, True)
    publisher.settle(600)
    late.subscribe(room.topic("+/v"), qos=1)
    equal(sorted(int(payload) for payload in late.payloads(600)), list(range(600)))
    for number in range(600):
        publisher.send(room.topic(f"{number}/v"), b"", 1, True)
    publisher.settle(600)


@case(V3, V5)
def subscribing_again_sends_retained_values_again_and_changes_the_qos(room):
    publisher, subscriber = room.pair()
    topic = room.topic("v")
    publisher.publish(topic, b"kept", qos=2, retain=True)
    for qos in (0, 2, 1):
        equal(subscriber.subscribe(topic, qos=qos), [qos])
        got = subscriber.next()
        equal((got.payload, got.qos, got.retain), (b"kept", qos, True))
        publisher.publish(topic, b"live", qos=2)
        equal(subscriber.next().qos, qos)


@case(V3, V5)
def overlapping_filters_give_a_message_with_the_highest_qos(room):
    publisher, subscriber = room.pair()
    equal(subscriber.subscribe(room.topic("#"), qos=0), [0])
    equal(subscriber.subscribe(room.topic("+"), qos=2), [2])
    publisher.publish(room.topic("x"), b"1", qos=2)
    got = [subscriber.next().qos]
    if got == [0]:
        got.append(subscriber.next().qos)
    # One, or one for each filter with its own QoS (3.1.1 §3.3.5, 5.0 §3.3.4).
    assert sorted(got) in ([2], [0, 2]), got


@case(V3, V5)
def who_unsubscribes_hears_no_more(room):
    publisher, subscriber = room.pair()
    equal(subscriber.subscribe(room.topic("a"), room.topic("b"), room.topic("c/#"), qos=1), [1, 1, 1])
    gone = subscriber.unsubscribe(room.topic("a"), room.topic("c/#"), room.topic("never"))
    if room.version == V5:
        equal(gone, [0x00, 0x00, 0x11])
    for topic in ("a", "c/d"):
        publisher.publish(room.topic(topic))
    subscriber.gets_nothing_before(room.topic("b"), publisher)


@case(V3, V5)
def wildcards_match_by_level(room):
    publisher, subscriber = room.pair()
    filters = ("+/x", "a/#", "deep/+/z")
    subscriber.subscribe(*(room.topic(filter) for filter in filters))
    heard = ("b/x", "a", "a/b/c", "deep/q/z", "/x")
    unheard = ("b/y", "b/x/c", "deep/z", "deep/q/r/z", "ab/c", "one")
    for topic in unheard + heard:
        publisher.publish(room.topic(topic))
    # A level may be empty: "/x" below the room's name has one, which "+" matches.
    equal([subscriber.next().topic for _ in heard], [room.topic(topic) for topic in heard])


@case(V3, V5)
def wildcards_in_front_do_not_see_what_begins_with_a_dollar(room):
    publisher, subscriber = room.pair()
    subscriber.subscribe("#", f"+/{room.name}", qos=1)
    publisher.publish(f"$probe/{room.name}", b"hidden", qos=1)
    publisher.publish(room.topic("end"), b"end")
    seen = []
    while not seen or seen[-1] != room.topic("end"):
        seen.append(subscriber.next().topic)
    equal([topic for topic in seen if topic.startswith("$")], [])


@case(V3, V5)
def dollar_filters_are_answered_and_cost_nobody_the_connection(room):
    subscriber = room.client().connect()
    answers = subscriber.subscribe("$SYS/#", "$SYS/broker/uptime", "$other/x", qos=1)
    assert all(answer in (0, 1, 0x80, 0x87) for answer in answers), answers
    equal(subscriber.subscribe(room.topic("x")), [1])
    publisher = room.client("publisher").connect()
    publisher.publish(room.topic("x"), b"still here")
    while subscriber.next().topic != room.topic("x"):
        pass


@case(V3, V5)
def topics_and_payloads_of_all_scripts_arrive(room):
    publisher, subscriber = room.pair()
    subscriber.subscribe(room.topic("#"))
    for name in ("größe", "水/位", "насос", "😀/é", "a b", "ﷺ", "x" * 800, "/", "a//b"):
        publisher.publish(room.topic(name), name)
        got = subscriber.next()
        equal((got.topic, got.payload.decode()), (room.topic(name), name))


@case(V3, V5)
def a_message_as_large_as_the_broker_takes_arrives_whole(room):
    publisher, subscriber = room.pair()
    topic = room.topic("large")
    equal(subscriber.subscribe(topic, qos=2), [2])
    # Of MQTT 5 the broker says how much it takes; what it takes of one version it takes of the other.
    probe = room.client("probe", version=V5).connect()
    most = value(probe.offered, "MaximumPacketSize", 256 * 1024)
    header = 5 + 2 + len(topic) + 2 + 1
    payload = bytes(number % 251 for number in range(most - header))
    for qos in (0, 1, 2):
        publisher.publish(topic, payload, qos=qos)
        got = subscriber.inbox.get(timeout=PATIENCE)
        assert got.payload == payload, f"QoS {qos}: {len(got.payload)} of {len(payload)} bytes"


@case(V3, V5)
def a_message_that_is_too_large_costs_its_sender_alone(room):
    publisher, subscriber = room.pair()
    subscriber.subscribe(room.topic("x"))
    probe = room.client("probe", version=V5).connect()
    publisher.send(room.topic("x"), bytes(value(probe.offered, "MaximumPacketSize", 256 * 1024)), qos=1)
    equal(publisher.ended(), 0x95 if room.version == V5 else None)
    room.client("other").connect().publish(room.topic("x"), b"fine")
    equal(subscriber.next().payload, b"fine")


@case(V3, V5)
def an_empty_message_is_a_message(room):
    publisher, subscriber = room.pair()
    subscriber.subscribe(room.topic("x"), qos=2)
    for qos in (0, 1, 2):
        publisher.publish(room.topic("x"), b"", qos=qos)
        equal((subscriber.next().payload), b"")


@case(V3, V5)
def the_versions_understand_each_other(room):
    other = V5 if room.version == V3 else V3
    publisher = room.client("publisher", version=other).connect()
    subscriber = room.client("subscriber").connect()
    subscriber.subscribe(room.topic("#"), qos=2)
    props = {"UserProperty": [("k", "v")], "ContentType": "text/plain"} if other == V5 else {}
    for qos in (0, 1, 2):
        publisher.publish(room.topic("x"), b"hello", qos=qos, **props)
        got = subscriber.next()
        equal((got.payload, got.qos), (b"hello", qos))


if __name__ == "__main__":
    main()
