"""The README's mapper, at a thermostat that speaks its lines."""

import asyncio
import re
from pathlib import Path

import kubebus
from kubebus.config import Point
from kubebus.permit import Deadline, WritePermit, now


def test_the_readmes_mapper_reads_and_writes(monkeypatch):
    page = (Path(__file__).parents[1] / "README.md").read_text()
    _, program = re.findall(r"```python\n(.*?)```", page, re.S)
    started, names = [], {}
    monkeypatch.setattr(kubebus, "main", lambda *of: started.append(of))
    exec(program, names)
    assert started == [(names["Thermostat"], "thermostat")]

    async def run():
        values = {"t": 20.5}

        async def serve(reader, writer):
            while line := (await reader.readline()).split():
                if line[0] == b"SET":
                    values[line[1].decode()] = float(line[2])
                answer = "OK" if line[0] == b"SET" else str(values[line[1].decode()])
                writer.write(answer.encode() + b"\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        driver, point = names["Thermostat"](), Point("temperature", "float", {"register": "t"})
        await driver.open({"host": host, "port": port})
        before = await driver.read([point])
        moment = now()
        permit = WritePermit("test", Deadline(moment.mono + 60, moment.wall + 60))
        await driver.write(point, 21.5, permit)
        after = await driver.read([point])
        await driver.close()
        server.close()
        return before, permit.consumed, after

    assert asyncio.run(run()) == ({"temperature": 20.5}, True, {"temperature": 21.5})
