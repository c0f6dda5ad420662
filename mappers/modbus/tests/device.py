"""Modbus devices by pymodbus, for the tests: what they hold and what they were asked is told on stdin and stdout.

    device.py tcp PORT UNIT..                     what other units are asked is refused, as a good gateway does
    device.py silent-tcp PORT UNIT..              or never answered
    device.py rtu-over-tcp PORT UNIT..
    device.py rtu SERIAL-PORT UNIT..

Each unit has 100 coils and discrete inputs and 400 holding and input registers, of which 200 to 209 do not exist. Holding
register 300 is always busy, 301 broken, 302 takes long, 303 is read-only. One line of JSON each:

    > {"set": [UNIT, "coil" | "discrete" | "holding" | "input", ADDRESS, [WORD..]]}      < {}
    > {"get": [UNIT, TABLE, ADDRESS, COUNT]}                                             < {"words": [..]}
    > {"asked": []}       < {"requests": [[UNIT, FUNCTION, ADDRESS, COUNT, [WRITTEN..]]..], "counts": {UNIT: SINCE-START, ..}}
"""

import asyncio
import json
import logging
import sys

from pymodbus import FramerType, ModbusDeviceIdentification
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

REFUSALS = {300: ExcCodes.DEVICE_BUSY, 301: ExcCodes.DEVICE_FAILURE, 302: ExcCodes.ACKNOWLEDGE}
# What a log of requests may grow to between two questions for it.
LONGEST_LOG = 100_000

requests = []
counts = {}


class Units(dict):
    """A simulated line takes an unknown unit for a broken one; its server knows better what to answer."""

    def __missing__(self, unit):
        raise NoSuchIdException


def trace(sending, pdu):
    """Notes a request."""
    if not sending:
        counts[pdu.dev_id] = counts.get(pdu.dev_id, 0) + 1
        if len(requests) < LONGEST_LOG:
            written = pdu.registers if pdu.function_code in (6, 16) else pdu.bits if pdu.function_code in (5, 15) else []
            requests.append([pdu.dev_id, pdu.function_code, pdu.address, pdu.count, [int(w) for w in written]])
    return pdu


async def refuse(function, start, address, count, registers, values):
    if function in (3, 6, 16):
        return next((REFUSALS[a] for a in range(address, address + count) if a in REFUSALS), None)
    return None


def registers():
    word = {"datatype": DataType.REGISTERS}
    return [
        SimData(0, count=200, **word),
        SimData(200, count=10, datatype=DataType.INVALID),
        SimData(210, count=93, **word),
        SimData(303, count=1, readonly=True, **word),
        SimData(304, count=96, **word),
    ]


def device(unit):
    bits = [SimData(0, count=112, values=False, datatype=DataType.BITS)]
    blocks = (bits, [SimData(0, count=112, values=False, datatype=DataType.BITS)], registers(), registers())
    return SimDevice(unit, simdata=blocks, action=refuse)


def words(context, unit, table):
    start, _, registers, _ = context.devices[unit].block[table[0]]
    return start, registers


def put(context, unit, table, address, values):
    start, registers = words(context, unit, table)
    for at, value in enumerate(values, address):
        if table in ("coil", "discrete"):
            bit = 1 << at % 16
            registers[at // 16 - start] = registers[at // 16 - start] & ~bit | (bit if value else 0)
        else:
            registers[at - start] = value


def get(context, unit, table, address, count):
    start, registers = words(context, unit, table)
    places = range(address, address + count)
    if table in ("coil", "discrete"):
        return [registers[at // 16 - start] >> at % 16 & 1 for at in places]
    return [registers[at - start] for at in places]


def answer(context, question):
    match question:
        case {"set": [unit, table, address, values]}:
            put(context, unit, table, address, values)
            return {}
        case {"get": [unit, table, address, length]}:
            return {"words": get(context, unit, table, address, length)}
        case {"asked": _}:
            told = {"requests": requests[:], "counts": counts}
            requests.clear()
            return told
    return {"error": "not understood"}


async def main(how, where, *units):
    devices = [device(int(unit)) for unit in units]
    identity = ModbusDeviceIdentification(
        info_name={"VendorName": "Test", "ProductCode": "device.py", "MajorMinorRevision": "1.0"}
    )
    common = {"identity": identity, "trace_pdu": trace, "ignore_missing_devices": how != "tcp"}
    if how == "rtu":
        server = ModbusSerialServer(devices, framer=FramerType.RTU, port=where, baudrate=115200, **common)
    else:
        framer = FramerType.RTU if how == "rtu-over-tcp" else FramerType.SOCKET
        server = ModbusTcpServer(devices, framer=framer, address=("127.0.0.1", int(where)), **common)
    server.context.devices = Units(server.context.devices)
    await server.serve_forever(background=True)
    print("{}", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(answer(server.context, json.loads(line))), flush=True)


logging.disable()
asyncio.run(main(*sys.argv[1:]))
