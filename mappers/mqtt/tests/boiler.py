"""A boiler that says its state on `boiler/state`, retained and with its time, and is told on `boiler/set/KEY`.

`set KEY JSON` changes it past everybody, `tell` prints what it holds and what was written.
"""

import json
import sys
import time

import paho.mqtt.client as mqtt


def out(*words):
    """In one piece: threads must not mix their lines."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


state = {"speed": 5.0, "level": 42, "mode": "eco", "relay": False, "flow": 1.5}
writes = []


def say(client):
    return client.publish("boiler/state", json.dumps({**state, "at": int(time.time() * 1000)}), qos=1, retain=True)


def on_message(client, userdata, message):
    key, value = message.topic.split("/")[2], json.loads(message.payload)
    state[key] = value
    writes.append([key, value])
    say(client)


def on_subscribe(client, *_):
    say(client)
    out("back" if client.was_here else "ready")
    client.was_here = True


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="boiler")
client.was_here = False
client.on_connect = lambda client, *_: client.subscribe("boiler/set/+", qos=1)
client.on_message, client.on_subscribe = on_message, on_subscribe
client.reconnect_delay_set(1, 1)
client.connect("127.0.0.1", int(sys.argv[1]), keepalive=60)
client.loop_start()
for line in sys.stdin:
    order, *args = line.strip().split(" ", 2)
    if order == "set":
        state[args[0]] = json.loads(args[1])
        say(client).wait_for_publish()
        out("done")
    else:
        out("told", json.dumps({"state": state, "writes": writes}))
