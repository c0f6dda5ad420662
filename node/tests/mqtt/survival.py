"""Before and after a node is killed: what somebody who was away gets, and what is retained."""

import sys

import client
from client import V3, V5, case, equal, main

# Of each QoS.
COUNT = 40

before = sys.argv[3] == "before"


def name(room):
    """Both halves mean the same sessions and topics."""
    room.name = f"survival-{client.NAMES[room.version]}"
    return room


def lasting(room, name):
    expiry = {"SessionExpiryInterval": 600} if room.version == V5 else {}
    return room.client(name).connect(clean=False, **expiry)


def publish_for_who_is_away(room):
    away = lasting(name(room), "away")
    away.subscribe(room.topic("x"), room.topic("y"), qos=2)
    away.disconnect()
    publisher = room.client("publisher").connect()
    for qos in (1, 2):
        for number in range(COUNT):
            publisher.send(room.topic("x"), f"{qos} {number}", qos)
    publisher.settle(2 * COUNT)


def find_what_waited(room):
    back = lasting(name(room), "away")
    equal(back.session_present, True)
    said = [f"{qos} {number}".encode() for qos in (1, 2) for number in range(COUNT)]
    equal(back.payloads(2 * COUNT), said)
    back.gets_nothing_before(room.topic("y"), room.client("publisher").connect())


def retain_a_value(room):
    room.client("keeper").connect().publish(name(room).topic("kept"), b"value", retain=True)


def find_the_retained_value(room):
    late = room.client("late").connect()
    late.subscribe(name(room).topic("kept"))
    got = late.next()
    equal((got.payload, got.retain), (b"value", True))


for one in (publish_for_who_is_away, retain_a_value) if before else (find_what_waited, find_the_retained_value):
    case(V3, V5)(one)

if __name__ == "__main__":
    del sys.argv[3]
    main()
