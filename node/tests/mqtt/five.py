"""What MQTT 5 alone can."""

import time

from client import PATIENCE, QUIET, V5, case, equal, main, value


@case(V5)
def all_that_a_message_says_arrives_unchanged(room):
    publisher, subscriber = room.pair()
    subscriber.subscribe(room.topic("x"), qos=2)
    said = {
        "UserProperty": [("a", "1"), ("b", "ü"), ("a", "1"), ("", "")],
        "ContentType": "application/json",
        "ResponseTopic": room.topic("answers"),
        "CorrelationData": bytes(range(256)),
        "PayloadFormatIndicator": 1,
    }
    for qos in (0, 1, 2):
        publisher.publish(room.topic("x"), b"{}", qos=qos, **said)
        got = subscriber.next().properties
        equal({name: getattr(got, name) for name in said}, said, f"QoS {qos}")


@case(V5)
def retained_values_keep_what_they_said(room):
    publisher, late = room.pair()
    said = {"UserProperty": [("a", "1"), ("a", "2")], "ContentType": "text/plain", "CorrelationData": b"\xff"}
    publisher.publish(room.topic("x"), b"1", retain=True, **said)
    late.subscribe(room.topic("x"))
    got = late.next().properties
    equal({name: getattr(got, name) for name in said}, said)


@case(V5)
def a_request_is_answered_where_it_asks_to_be(room):
    asking, answering = room.client("asking").connect(), room.client("answering").connect()
    asking.subscribe(room.topic("answers/me"))
    answering.subscribe(room.topic("requests"))
    for number in (b"1", b"2"):
        asking.publish(
            room.topic("requests"), b"?", ResponseTopic=room.topic("answers/me"), CorrelationData=number
        )
        request = answering.next()
        answering.publish(request.properties.ResponseTopic, b"!", CorrelationData=request.properties.CorrelationData)
        got = asking.next()
        equal((got.payload, got.properties.CorrelationData), (b"!", number))


@case(V5)
def a_client_may_shorten_its_topics(room):
    publisher, subscriber = room.pair()
    subscriber.subscribe(room.topic("#"))
    most = value(publisher.offered, "TopicAliasMaximum", 0)
    assert most >= 2, f"the broker takes {most} aliases"
    publisher.publish(room.topic("a"), b"1", TopicAlias=1)
    publisher.publish(room.topic("b"), b"2", TopicAlias=most)
    publisher.publish("", b"3", TopicAlias=1)
    publisher.publish("", b"4", qos=2, TopicAlias=most)
    publisher.publish(room.topic("c"), b"5", TopicAlias=1)
    publisher.publish("", b"6", qos=0, TopicAlias=1)
    got = [subscriber.next() for _ in range(6)]
    equal([message.topic[-1] for message in got], ["a", "b", "a", "b", "c", "c"])
    equal([value(message.properties, "TopicAlias") for message in got], [None] * 6)


@case(V5)
def an_alias_lives_as_long_as_its_connection(room):
    first = room.client().connect(SessionExpiryInterval=60)
    first.publish(room.topic("x"), b"1", TopicAlias=1)
    first.disconnect()
    again = room.client().connect(clean=False, SessionExpiryInterval=60)
    again.send("", b"2", TopicAlias=1)
    reason = again.ended()
    assert reason in (0x82, 0x94), reason


@case(V5)
def an_alias_above_what_was_agreed_ends_the_connection(room):
    client = room.client().connect()
    client.send(room.topic("x"), b"x", TopicAlias=value(client.offered, "TopicAliasMaximum", 0) + 1)
    equal(client.ended(), 0x94)


@case(V5)
def the_broker_shortens_topics_only_for_who_can_read_them(room):
    publisher = room.client("publisher").connect()
    for name, most in (("absent", None), ("none", 0), ("two", 2)):
        asked = {} if most is None else {"TopicAliasMaximum": most}
        subscriber = room.client(name).connect(**asked)
        subscriber.subscribe(room.topic(f"{name}/#"))
        known = {}
        for number in range(12):
            topic = room.topic(f"{name}/{number % 3}")
            publisher.publish(topic, str(number))
            got = subscriber.next()
            alias = value(got.properties, "TopicAlias")
            assert alias is None or 1 <= alias <= (most or 0), f"{name}: alias {alias}"
            if alias and got.topic:
                known[alias] = got.topic
            equal(got.topic or known.get(alias), topic, name)


@case(V5)
def no_more_is_under_way_to_a_client_than_it_takes(room):
    publisher = room.client("publisher").connect()
    slow = room.client("slow", manual_ack=True).connect(ReceiveMaximum=2)
    slow.subscribe(room.topic("x"))
    for number in range(6):
        publisher.publish(room.topic("x"), str(number))
    first = [slow.next(), slow.next()]
    slow.is_quiet()
    slow.ack(first[0])
    third = slow.next()
    slow.is_quiet()
    for message in (first[1], third):
        slow.ack(message)
    rest = [slow.next(), slow.next()]
    equal([message.payload for message in first + [third] + rest], [b"0", b"1", b"2", b"3", b"4"])


@case(V5)
def each_message_says_which_subscriptions_it_is_for(room):
    publisher, subscriber = room.pair()
    subscriber.subscribe(room.topic("#"), identifier=1)
    subscriber.subscribe(room.topic("+"), identifier=268_435_455)
    subscriber.subscribe(room.topic("plain/x"))

    def ids(topic):
        """Of one message for all subscriptions or of one for each (MQTT 5.0 §3.3.4)."""
        publisher.publish(room.topic(topic), b"x")
        publisher.publish(room.topic("end/end/end"), b"end")
        seen = []
        while True:
            got = subscriber.next()
            if got.payload == b"end":
                return sorted(seen)
            seen += value(got.properties, "SubscriptionIdentifier", [])

    equal(ids("one"), [1, 268_435_455])
    equal(ids("two/levels"), [1])
    equal(ids("plain/x"), [1])
    subscriber.subscribe(room.topic("#"), identifier=7)
    equal(ids("one"), [7, 268_435_455], "subscribing again replaces it")
    subscriber.subscribe(room.topic("#"))
    equal(ids("one"), [268_435_455], "and without one removes it")


@case(V5)
def a_retained_value_says_which_subscription_it_is_for(room):
    publisher, late = room.pair()
    publisher.publish(room.topic("x"), b"kept", retain=True)
    late.subscribe(room.topic("x"), identifier=5)
    equal(late.next().properties.SubscriptionIdentifier, [5])


@case(V5)
def who_does_not_want_its_own_messages_gets_none(room):
    speaker, other = room.client("speaker").connect(), room.client("other").connect()
    for client in (speaker, other):
        client.subscribe(room.topic("x"), room.topic("y"), noLocal=True)
    speaker.publish(room.topic("x"), b"mine")
    equal(other.next().payload, b"mine")
    speaker.gets_nothing_before(room.topic("y"), other)


@case(V5)
def the_retain_flag_is_kept_for_who_asks(room):
    publisher = room.client("publisher").connect()
    for keep in (False, True):
        subscriber = room.client(f"s{keep}").connect()
        subscriber.subscribe(room.topic(f"{keep}"), retainAsPublished=keep)
        publisher.publish(room.topic(f"{keep}"), b"1", retain=True)
        publisher.publish(room.topic(f"{keep}"), b"2", retain=False)
        equal([subscriber.next().retain for _ in range(2)], [keep, False])
        late = room.client(f"late{keep}").connect()
        late.subscribe(room.topic(f"{keep}"), retainAsPublished=keep)
        equal(late.next().retain, True, "§3.3.1.3: retained values are told so to new subscriptions")


@case(V5)
def retained_values_come_when_they_were_asked_for(room):
    publisher = room.client("publisher").connect()
    publisher.publish(room.topic("x"), b"kept", retain=True)
    for handling, comes in ((0, [True, True]), (1, [True, False]), (2, [False, False])):
        subscriber = room.client(f"h{handling}").connect()
        subscriber.subscribe(room.topic("marker"))
        for expected in comes:
            subscriber.subscribe(room.topic("x"), retainHandling=handling)
            if expected:
                equal((subscriber.next().payload), b"kept", f"handling {handling}")
            subscriber.gets_nothing_before(room.topic("marker"), publisher)


@case(V5)
def what_is_too_large_for_a_client_is_kept_from_it(room):
    publisher = room.client("publisher").connect()
    small = room.client("small").connect(MaximumPacketSize=200)
    small.subscribe(room.topic("x"), qos=2)
    for qos in (0, 1, 2):
        assert publisher.publish(room.topic("x"), bytes(300), qos=qos) < 0x80
        publisher.publish(room.topic("x"), b"fits", qos=qos)
        equal(small.next().payload, b"fits")


@case(V5)
def a_message_for_nobody_is_taken(room):
    publisher = room.client().connect()
    reason = publisher.publish(room.topic("nobody"), b"x")
    assert reason in (0x00, 0x10), f"success, or nobody is there: {reason}"


@case(V5)
def the_broker_says_what_it_offers(room):
    offered = room.client().connect().offered
    for name in ("WildcardSubscriptionAvailable", "SubscriptionIdentifierAvailable", "RetainAvailable"):
        equal(value(offered, name, 1), 1, name)
    equal(value(offered, "SharedSubscriptionAvailable", 1), 1, "shared subscriptions")
    equal(value(offered, "MaximumQoS", 2), 2)
    assert value(offered, "ReceiveMaximum", 65535) >= 16
    assert value(offered, "MaximumPacketSize", 1 << 28) >= 128 * 1024


@case(V5)
def members_of_a_group_share_the_messages(room):
    publisher = room.client("publisher").connect()
    members = [room.client(f"m{number}").connect() for number in range(3)]
    for member in members:
        equal(member.subscribe(f"$share/g/{room.topic('work')}", qos=1), [1])
    for number in range(90):
        publisher.publish(room.topic("work"), str(number))
    got, shares, deadline = [], [0] * 3, time.monotonic() + PATIENCE
    while len(got) < 90 and time.monotonic() < deadline:
        for number, member in enumerate(members):
            while not member.inbox.empty():
                got.append(int(member.inbox.get().payload))
                shares[number] += 1
        time.sleep(0.01)
    time.sleep(QUIET)
    equal(sorted(got), list(range(90)))
    assert all(member.inbox.empty() for member in members), "each comes once"
    assert min(shares) >= 10, f"all take part: {shares}"


@case(V5)
def each_group_and_each_single_subscriber_gets_every_message(room):
    publisher = room.client("publisher").connect()
    one = room.client("one").connect()
    one.subscribe(f"$share/g/{room.topic('+')}")
    other = room.client("other").connect()
    other.subscribe(f"$share/h/{room.topic('#')}")
    single = room.client("single").connect()
    single.subscribe(room.topic("work"))
    for number in range(20):
        publisher.publish(room.topic("work"), str(number))
    for subscriber in (one, other, single):
        equal(subscriber.payloads(20), [str(number).encode() for number in range(20)])


@case(V5)
def a_group_gets_no_retained_values(room):
    publisher, member = room.pair()
    publisher.publish(room.topic("x"), b"kept", retain=True)
    equal(member.subscribe(f"$share/g/{room.topic('x')}", room.topic("marker")), [1, 1])
    member.gets_nothing_before(room.topic("marker"), publisher)


@case(V5)
def who_leaves_a_group_gets_no_more(room):
    publisher = room.client("publisher").connect()
    leaving, staying = room.client("leaving").connect(), room.client("staying").connect()
    filter = f"$share/g/{room.topic('work')}"
    for member in (leaving, staying):
        member.subscribe(filter)
    equal(leaving.unsubscribe(filter), [0])
    leaving.subscribe(room.topic("marker"))
    for number in range(20):
        publisher.publish(room.topic("work"), str(number))
    equal(staying.payloads(20), [str(number).encode() for number in range(20)])
    leaving.gets_nothing_before(room.topic("marker"), publisher)


if __name__ == "__main__":
    main()
