"""The device behind snmpd: objects in files, for snmpd's `pass_persist` (snmpd.conf(5)).

objects.py DIR: each file DIR/SUFFIX holds a type and a value, a line each; SUFFIX is the OID below the playpen. A write
replaces the value and is appended to DIR/writes as `SUFFIX VALUE`.
"""

import os
import sys

BASE = ".1.3.6.1.4.1.8072.9999.9999."
DIR = sys.argv[1]


def suffixes():
    return sorted((f for f in os.listdir(DIR) if f[0].isdigit()), key=lambda f: [int(arc) for arc in f.split(".")])


def after(oid):
    arcs = [int(arc) for arc in oid.split(".")[1:]]
    for suffix in suffixes():
        if [int(arc) for arc in (BASE + suffix).split(".")[1:]] > arcs:
            return BASE + suffix
    return None


def show(oid):
    path = os.path.join(DIR, oid[len(BASE):])
    if not oid.startswith(BASE) or not os.path.isfile(path):
        return "NONE"
    with open(path) as file:
        kind, value = file.read().split("\n", 1)
    return f"{oid}\n{kind}\n{value}"


def write(oid, kind_and_value):
    suffix = oid[len(BASE):]
    path = os.path.join(DIR, suffix)
    if not os.path.isfile(path):
        return "not-writable"
    with open(path) as file:
        kind = file.read().split("\n", 1)[0]
    given, value = kind_and_value.split(" ", 1)
    value = value.strip('"')
    if given != kind and not {given, kind} <= {"string", "octet"}:
        return "wrong-type"
    if value == "refused":
        return "wrong-value"
    with open(path + ".new", "w") as file:
        file.write(f"{kind}\n{value}")
    os.rename(path + ".new", path)
    with open(os.path.join(DIR, "writes"), "a") as file:
        file.write(f"{suffix} {value}\n")
    return "DONE"


def line():
    text = sys.stdin.readline()
    if not text:
        sys.exit()
    return text.rstrip("\n")


while True:
    command = line()
    if not command:
        continue  # snmpd sends one after a write
    if command == "PING":
        answer = "PONG"
    elif command == "get":
        answer = show(line())
    elif command == "getnext":
        following = after(line())
        answer = show(following) if following else "NONE"
    elif command == "set":
        oid = line()
        answer = write(oid, line())
    else:
        answer = "NONE"
    print(answer, flush=True)
