"""Listens to one topic and prints what it hears; `say TEXT` publishes on another, `answer` makes it say what it was told."""

import sys

import paho.mqtt.client as mqtt


def out(*words):
    """In one piece: threads must not mix their lines."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


port, heard_on, said_on = sys.argv[1:]
answers = False


def on_message(client, userdata, message):
    out("heard", "retained" if message.retain else "fresh", message.qos, message.payload.decode())
    if answers:
        client.publish(said_on, message.payload, qos=1)


def on_connect(client, *_):
    client.subscribe(heard_on, qos=1)
    out("connected")


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="listener")
client.on_connect, client.on_message = on_connect, on_message
client.on_subscribe = lambda *_: out("ready")
client.reconnect_delay_set(1, 1)
client.connect("127.0.0.1", int(port), keepalive=5)
client.loop_start()
for line in sys.stdin:
    order, _, text = line.strip().partition(" ")
    if order == "say":
        client.publish(said_on, text, qos=1)
    else:
        answers = order == "answer"
