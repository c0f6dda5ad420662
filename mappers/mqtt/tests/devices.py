"""Plays a Tasmota plug and a Zigbee2MQTT lamp with paho-mqtt, from the messages in their public documentation.

https://tasmota.github.io/docs/MQTT/, https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html
Prints each command; `mute` and `speak` on the input stop and resume the answers.
"""

import json
import sys

import paho.mqtt.client as mqtt


def out(*words):
    """In one piece: threads must not mix their lines."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


SENSOR = {"Time": "2019-11-03T19:34:28", "ENERGY": {
    "TotalStartTime": "2019-08-18T11:07:55", "Total": 0.473, "Yesterday": 0.000, "Today": 0.473, "Period": 0,
    "Power": 96, "ApparentPower": 112, "ReactivePower": 58, "Factor": 0.86, "Voltage": 230, "Current": 0.488}}
STATE = {"Time": "2021-01-01T00:00:00", "Uptime": "0T00:05:10", "UptimeSec": 310, "Heap": 27,
         "SleepMode": "Dynamic", "Sleep": 50, "LoadAvg": 19, "MqttCount": 1, "POWER": "OFF",
         "Wifi": {"AP": 1, "SSId": "garden", "BSSId": "00:00:5E:00:53:01", "Channel": 11, "RSSI": 94,
                  "Signal": -53, "LinkCount": 1, "Downtime": "0T00:00:03"}}
LAMP = {"state": "OFF", "brightness": 215, "color_temp": 325, "color": {"x": 0.4, "y": 0.3}, "linkquality": 120}

mute = False


def say(client, topic, payload, retain=False):
    if not mute:
        client.publish(topic, payload if isinstance(payload, str) else json.dumps(payload), qos=1, retain=retain)


def tasmota(client, command, payload):
    if command == "POWER":
        STATE["POWER"] = {"ON": "ON", "OFF": "OFF", "1": "ON", "0": "OFF"}[payload]
        say(client, "stat/plug/RESULT", {"POWER": STATE["POWER"]})
        say(client, "stat/plug/POWER", STATE["POWER"])
    elif command == "STATUS":
        say(client, "stat/plug/STATUS" + payload, {"11": {"StatusSTS": STATE}, "10": {"StatusSNS": SENSOR}}[payload])
    else:
        say(client, "stat/plug/RESULT", {"Command": "Unknown", "Input": command})


def lamp(client, verb, payload):
    if verb == "set":
        for key, value in json.loads(payload).items():
            LAMP[key] = {**LAMP[key], **value} if isinstance(value, dict) else value
    say(client, "zigbee2mqtt/attic/lamp", LAMP)


def on_message(client, userdata, message):
    levels, payload = message.topic.split("/"), message.payload.decode()
    out("command", message.topic, payload, "retained" if message.retain else "fresh", "qos", message.qos)
    if levels[0] == "cmnd":
        tasmota(client, levels[2], payload)
    else:
        lamp(client, levels[3], payload)


def on_connect(client, *_):
    client.subscribe([("cmnd/plug/+", 1), ("zigbee2mqtt/attic/lamp/set", 1), ("zigbee2mqtt/attic/lamp/get", 1)])
    say(client, "tele/plug/LWT", "Online", retain=True)
    say(client, "tele/plug/STATE", STATE)
    say(client, "tele/plug/SENSOR", SENSOR)
    say(client, "zigbee2mqtt/attic/lamp/availability", {"state": "online"}, retain=True)
    say(client, "zigbee2mqtt/attic/lamp", LAMP)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="plug")
client.will_set("tele/plug/LWT", "Offline", qos=1, retain=True)
client.on_message = on_message
client.on_connect = on_connect
client.on_subscribe = lambda *_: out("ready")
client.reconnect_delay_set(1, 1)
client.connect("127.0.0.1", int(sys.argv[1]), keepalive=5)
client.loop_start()
for line in sys.stdin:
    word = line.strip()
    mute = {"mute": True, "speak": False}.get(word, mute)
    out("done", word)
