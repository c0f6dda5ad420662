"""A vendor's mapper on the Python package: the JSON lines of the bundled mapper `virtual`, over a Unix socket."""

import asyncio
import json

import kubebus


class Lines(kubebus.Driver):
    async def open(self, config):
        self.reader, self.writer = await asyncio.open_unix_connection(config["socket"])

    async def ask(self, request):
        self.writer.write(json.dumps(request).encode() + b"\n")
        answer = json.loads(await self.reader.readline() or "null")
        if answer is None:
            raise ConnectionError("the simulator hung up")
        return answer

    async def read(self, points):
        values = (await self.ask({"read": [p.address["register"] for p in points]}))["values"]
        return {p.name: values[p.address["register"]] for p in points if p.address["register"] in values}

    async def write(self, point, value, permit):
        permit.consume()
        answer = await self.ask({"write": {point.address["register"]: value}})
        if not answer.get("ok"):
            raise kubebus.DeviceError(answer.get("error", "no"))

    async def close(self):
        if hasattr(self, "writer"):
            self.writer.close()


kubebus.main(Lines, "lines")
