"""What the scripts beside this one share: clients of paho-mqtt that can wait for things, and cases that run side by
side. `python3 <script>.py HOST PORT [PART-OF-A-NAME]` runs the cases of one script and names those that failed."""

import queue
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

V3, V5 = paho.MQTTv311, paho.MQTTv5
NAMES = {V3: "3.1.1", V5: "5"}

# For one thing to happen: many times what an idle machine needs.
PATIENCE = 20.0
# After which something that was to stay away counts as away. Only where no later event tells it.
QUIET = 0.7
# Cases under way at a time: most of them wait for a second to pass.
AT_ONCE = 16

CASES = []


def case(*versions):
    """A case for each of these versions of MQTT."""

    def add(function):
        CASES.extend((function, version) for version in versions)
        return function

    return add


def properties(kind, values):
    """Of a packet, by their paho names; a list sets a property several times."""
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def value(of, name, default=None):
    """A property that may be absent."""
    return getattr(of, name, default) if of is not None else default


class Client:
    """One connection. Everything that happens to it waits in a queue of its own kind."""

    def __init__(self, room, name, version, manual_ack=False):
        self.version, self.name = version, name
        self.inbox, self.connacks, self.subacks, self.unsubacks, self.pubacks, self.ends = (
            queue.Queue() for _ in range(6)
        )
        self.room, self.manual_ack = room, manual_ack
        self.mqtt = None

    def connect(self, clean=True, keepalive=60, will=None, will_properties=None, **asked):
        """Connects and waits for the CONNACK. `clean=False` keeps the session: in 5 with the SessionExpiryInterval
        asked for. `will`: (topic, payload, qos, retain)."""
        extra = {"clean_session": clean} if self.version == V3 else {}
        self.mqtt = mqtt = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self.name,
            protocol=self.version,
            reconnect_on_failure=False,
            manual_ack=self.manual_ack,
            **extra,
        )
        mqtt.max_inflight_messages_set(1000)
        mqtt.on_connect = lambda _c, _u, flags, reason, props: self.connacks.put((flags, reason, props))
        mqtt.on_disconnect = lambda _c, _u, flags, reason, props: self.ends.put((flags, reason, props))
        mqtt.on_message = lambda _c, _u, message: self.inbox.put(message)
        mqtt.on_subscribe = lambda _c, _u, mid, reasons, props: self.subacks.put((mid, reasons))
        mqtt.on_unsubscribe = lambda _c, _u, mid, reasons, props: self.unsubacks.put((mid, reasons))
        mqtt.on_publish = lambda _c, _u, mid, reason, props: self.pubacks.put((mid, reason))
        if will is not None:
            topic, payload, qos, retain = will
            props = properties(PacketTypes.WILLMESSAGE, will_properties or {}) if self.version == V5 else None
            mqtt.will_set(topic, payload, qos, retain, props)
        five = {}
        if self.version == V5:
            five = {"clean_start": clean, "properties": properties(PacketTypes.CONNECT, asked)}
        mqtt.connect(self.room.host, self.room.port, keepalive, **five)
        mqtt.loop_start()
        flags, reason, props = self.connacks.get(timeout=PATIENCE)
        self.session_present, self.reason, self.offered = flags.session_present, reason, props
        return self

    def subscribe(self, *filters, qos=1, identifier=None, **options):
        """Subscribes and waits; returns the reason codes."""
        if self.version == V5:
            asked = [(filter, SubscribeOptions(qos=qos, **options)) for filter in filters]
            props = properties(PacketTypes.SUBSCRIBE, {"SubscriptionIdentifier": identifier} if identifier else {})
            result, mid = self.mqtt.subscribe(asked, properties=props)
        else:
            result, mid = self.mqtt.subscribe([(filter, qos) for filter in filters])
        assert result == 0, result
        answered, reasons = self.subacks.get(timeout=PATIENCE)
        assert answered == mid, (answered, mid)
        return [reason.value for reason in reasons]

    def unsubscribe(self, *filters):
        _, mid = self.mqtt.unsubscribe(list(filters))
        answered, reasons = self.unsubacks.get(timeout=PATIENCE)
        assert answered == mid, (answered, mid)
        return [reason.value for reason in reasons]

    def send(self, topic, payload=b"", qos=1, retain=False, **props):
        """Publishes without waiting."""
        made = properties(PacketTypes.PUBLISH, props) if self.version == V5 else None
        return self.mqtt.publish(topic, payload, qos, retain, made)

    def publish(self, topic, payload=b"", qos=1, retain=False, **props):
        """Publishes and waits until that is over; returns the reason code."""
        sent = self.send(topic, payload, qos, retain, **props)
        mid, reason = self.pubacks.get(timeout=PATIENCE)
        assert mid == sent.mid, (mid, sent.mid)
        return reason.value

    def settle(self, count):
        """Waits for that many acknowledgements."""
        for _ in range(count):
            self.pubacks.get(timeout=PATIENCE)

    def next(self):
        """The next message that comes."""
        return self.inbox.get(timeout=PATIENCE)

    def payloads(self, count):
        return [self.next().payload for _ in range(count)]

    def gets_nothing_before(self, topic, publisher):
        """What `publisher` says now on `topic`, which this client hears, is the next that comes."""
        publisher.publish(topic, b"and now")
        got = self.next()
        assert (got.topic, got.payload) == (topic, b"and now"), (got.topic, got.payload)

    def is_quiet(self):
        try:
            got = self.inbox.get(timeout=QUIET)
        except queue.Empty:
            return
        raise AssertionError(f"{got.topic} {got.payload[:40]} came")

    def ack(self, message):
        self.mqtt.ack(message.mid, message.qos)

    def ended(self):
        """Waits until the broker ends the connection; returns the reason code that it gave (5)."""
        flags, reason, _ = self.ends.get(timeout=PATIENCE)
        return reason.value if flags.is_disconnect_packet_from_server else None

    def drop(self):
        """Ends the connection as a broken network would."""
        self.mqtt.socket().shutdown(2)
        self.ends.get(timeout=PATIENCE)
        self.mqtt.loop_stop()

    def disconnect(self, reason=0, **props):
        if self.version == V5:
            made = ReasonCode(PacketTypes.DISCONNECT, identifier=reason)
            self.mqtt.disconnect(made, properties(PacketTypes.DISCONNECT, props))
        else:
            self.mqtt.disconnect()
        self.ends.get(timeout=PATIENCE)
        self.mqtt.loop_stop()


class Room:
    """What one case has for itself: topics below its own name, and clients that end with it."""

    def __init__(self, host, port, name, version):
        self.host, self.port, self.version = host, port, version
        self.name = f"{name}-{NAMES[version]}"
        self.clients = []

    def topic(self, rest):
        return f"{self.name}/{rest}"

    def client(self, name="a", version=None, manual_ack=False):
        made = Client(self, f"{self.name}-{name}" if name else "", version or self.version, manual_ack)
        self.clients.append(made)
        return made

    def pair(self):
        """A publisher and a subscriber, connected."""
        return self.client("publisher").connect(), self.client("subscriber").connect()

    def close(self):
        for client in self.clients:
            if client.mqtt is not None:
                client.mqtt.disconnect()
                client.mqtt.loop_stop()


def equal(found, expected, what=""):
    assert found == expected, f"{what} {found!r} instead of {expected!r}"


def run(host, port, function, version):
    """None, or what went wrong."""
    room = Room(host, port, function.__name__, version)
    try:
        function(room)
        return None
    except Exception as error:  # pylint: disable=broad-except
        last = traceback.format_exc().splitlines()
        return f"{room.name}: {error!r}\n" + "\n".join(last[-12:])
    finally:
        room.close()


def main():
    host, port, part = sys.argv[1], int(sys.argv[2]), "".join(sys.argv[3:4])
    threading.excepthook = lambda _args: None  # a connection that broke as the case wanted it to
    chosen = [(function, version) for function, version in CASES if part in function.__name__]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = [pool.submit(run, host, port, *one) for one in chosen]
        wrong = [result.result() for result in done if result.result()]
    print("\n\n".join(wrong))
    print(f"{len(chosen) - len(wrong)} of {len(chosen)} hold")
    sys.exit(1 if wrong or not chosen else 0)
