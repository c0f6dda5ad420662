"""A Modbus TCP server by pymodbus with the units 1 and 2, which says on stdout what it is asked for.

    python server.py PORT

One line each: unit, function code, address, count, and what is written.
"""

import asyncio
import functools
import struct
import sys

from pymodbus import pymodbus_apply_logging_config
from pymodbus.server import StartAsyncTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

PRESSURE = list(struct.unpack(">HH", struct.pack(">f", 1.5)))


async def asked(unit, function, _start, address, count, _registers, written):
    print(unit, function, address, count, written, sep=";", flush=True)


def device(unit, level):
    registers = [level, 65531, *PRESSURE]
    data = SimData(address=0, values=registers, datatype=DataType.REGISTERS)
    return SimDevice(id=unit, simdata=[data], action=functools.partial(asked, unit))


pymodbus_apply_logging_config("CRITICAL")
asyncio.run(StartAsyncTcpServer(context=[device(1, 215), device(2, 7)], address=("127.0.0.1", int(sys.argv[1]))))
