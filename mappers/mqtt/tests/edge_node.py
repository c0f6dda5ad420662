"""A Sparkplug B edge node whose messages are made and read by pysparkplug, with paho-mqtt beneath.

It has a device `pump` (speed: Int32, alias 1; temp: Float, alias 2; label: String, no alias) and says what it is told
on its input: see `ORDERS`. Prints each command that it carries out.
"""

import socket
import sys
import time

import paho.mqtt.client as mqtt
from pysparkplug import DataType, DBirth, DCmd, DData, DDeath, Metric, NBirth, NCmd, NDeath


def out(*words):
    """In one piece: threads must not mix their lines."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


TYPES = {"speed": DataType.INT32, "temp": DataType.FLOAT, "label": DataType.STRING}
ALIASES = {"speed": 1, "temp": 2}
values = {"speed": -10, "temp": 21.5, "label": "main"}
seq, bd_seq = 0, 0


def now():
    return int(time.time() * 1000)


def topic(kind, device=None):
    return "/".join(["spBv1.0", "plant", kind, "gw"] + ([device] if device else []))


def death():
    metric = Metric(timestamp=now(), name="bdSeq", datatype=DataType.INT64, value=bd_seq)
    return NDeath(timestamp=now(), bd_seq_metric=metric).encode()


def metric(name, value, alias=None, born=False, **more):
    """As a birth has it, with name and alias; or as data has it, by alias alone where there is one."""
    alias = alias if alias is not None else ALIASES.get(name)
    name = name if born or alias is None else None
    datatype = TYPES.get(name or "speed") if born or name else next(
        (TYPES[n] for n, a in ALIASES.items() if a == alias), DataType.INT32)
    return Metric(timestamp=now(), name=name, datatype=datatype, value=value, alias=alias, **more)


def send(kind, payload, device=None):
    global seq
    body = payload(seq).encode(include_dtypes=kind.endswith("BIRTH"))
    seq = (seq + 1) % 256
    client.publish(topic(kind, device), body, qos=0)
    return body


def dbirth():
    metrics = tuple(metric(name, value, born=True) for name, value in values.items())
    return send("DBIRTH", lambda s: DBirth(timestamp=now(), seq=s, metrics=metrics), "pump")


def nbirth():
    global seq
    seq = 0
    metrics = (
        Metric(timestamp=now(), name="bdSeq", datatype=DataType.INT64, value=bd_seq),
        Metric(timestamp=now(), name="Node Control/Rebirth", datatype=DataType.BOOLEAN, value=False),
    )
    send("NBIRTH", lambda s: NBirth(timestamp=now(), seq=s, metrics=metrics))
    dbirth()


def data(*metrics):
    return send("DDATA", lambda s: DData(timestamp=now(), seq=s, metrics=metrics), "pump")


def on_message(client, userdata, message):
    if "/NCMD/" in message.topic:
        for wish in NCmd.decode(message.payload).metrics:
            out("command", wish.name, wish.value)
            if wish.name == "Node Control/Rebirth" and wish.value:
                nbirth()
        return
    for wish in DCmd.decode(message.payload).metrics:
        name = wish.name or next(name for name, alias in ALIASES.items() if alias == wish.alias)
        values[name] = wish.value
        out("command", name, wish.value, "retained" if message.retain else "fresh", "qos", message.qos)
        data(metric(name, wish.value))


def say(name, text):
    values[name] = {"speed": int, "temp": float, "label": str}[name](text)
    data(metric(name, values[name]))


def skip(*_):
    global seq
    seq = (seq + 1) % 256


def again(name, text):
    """A message with the sequence number of the last one."""
    global seq
    seq = (seq - 1) % 256
    data(metric(name, int(text)))


def born_under_another(*_):
    """The death of an earlier birth, as a broker sends it late."""
    global bd_seq
    bd_seq -= 1
    client.publish(topic("NDEATH"), death(), qos=0)
    bd_seq += 1



ORDERS = {
    "say": say,
    "skip": skip,
    "again": again,
    "stranger": lambda *_: data(metric(None, 7, alias=99)),
    "null": lambda name: data(metric(name, None, is_null=True)),
    "past": lambda name, text: data(metric(name, int(text), is_historical=True)),
    "leave": lambda *_: send("DDEATH", lambda s: DDeath(timestamp=now(), seq=s), "pump"),
    "return": lambda *_: dbirth(),
    "old-death": born_under_another,
    "garbage": lambda *_: client.publish(topic("DDATA", "pump"), b"\xff\xff\xff", qos=0),
}


def on_connect(client, *_):
    client.subscribe([("spBv1.0/plant/NCMD/gw", 1), ("spBv1.0/plant/DCMD/gw/pump", 1)])


def on_subscribe(*_):
    nbirth()
    out("ready")


bd_seq = 7
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="gw")
client.will_set(topic("NDEATH"), death(), qos=1)
client.on_connect, client.on_message, client.on_subscribe = on_connect, on_message, on_subscribe
client.reconnect_delay_set(1, 1)
client.connect("127.0.0.1", int(sys.argv[1]), keepalive=5)
client.loop_start()
for line in sys.stdin:
    order, *args = line.split()
    if order == "die":
        client._sock.shutdown(socket.SHUT_RDWR)
        sys.exit()
    ORDERS[order](*args)
    out("done", order)
