"""A mapper as KubeEdge's are, written from the proto: it registers once, serves DeviceMapperService on a socket of its
own, writes `desired` to its device whenever it is given it and `accessMode` lets it, and reports what the device holds.

Like a Go mapper it names the edge's socket path as `:authority`, in the form that the last argument asks for.

    mapper.py <edge's socket> <own socket> <protocol> <authority> [--late]

It prints one JSON document a line for what it hears, and takes commands from its standard input, one a line:
`report <namespace> <device> <property> <value>`, `state <namespace> <device> <state>`, `register`, `stop`, `serve`.
With --late it does not register by itself.
"""

import json
import os
import sys
import threading
from concurrent import futures

import grpc

import api_pb2
import api_pb2_grpc

EDGE, OWN, PROTOCOL, AUTHORITY = sys.argv[1:5]
LATE = sys.argv[5:] == ["--late"]
LOCK = threading.Lock()


def tell(event, **fields):
    with LOCK:
        print(json.dumps({"event": event, **fields}, sort_keys=True), flush=True)


class Devices:
    """What the template's DevPanel holds: models by namespace and name, devices with the model they were given by."""

    def __init__(self):
        self.models = {}
        self.devices = {}

    def put_model(self, model):
        self.models[(model.namespace, model.name)] = model

    def put_device(self, device):
        model = self.models[(device.namespace, device.spec.deviceModelReference)]
        self.devices[(device.namespace, device.name)] = (device, model)
        self.set_all(device, model)

    def set_all(self, device, model):
        """The template's setVisitor: whatever may be written is written, an empty text too."""
        access = {p.name: p.accessMode for p in model.spec.properties}
        for p in device.spec.properties:
            if access.get(p.name) != "ReadOnly":
                tell("written", device=device.name, property=p.name, value=p.desired.value)


DEVICES = Devices()


class Mapper(api_pb2_grpc.DeviceMapperServiceServicer):
    def RegisterDevice(self, request, context):
        device = request.device
        known = DEVICES.devices.get((device.namespace, device.name))
        if known:
            # The template reads the device first, and its read writes.
            DEVICES.set_all(*known)
        else:
            DEVICES.put_device(device)
        tell("device", device=device.name, how="registered")
        return api_pb2.RegisterDeviceResponse(deviceName=device.name)

    def UpdateDevice(self, request, context):
        DEVICES.put_device(request.device)
        tell("device", device=request.device.name, how="updated")
        return api_pb2.UpdateDeviceResponse()

    def RemoveDevice(self, request, context):
        DEVICES.devices.pop((request.deviceNamespace, request.deviceName), None)
        tell("device", device=request.deviceName, how="removed")
        return api_pb2.RemoveDeviceResponse()

    def CreateDeviceModel(self, request, context):
        DEVICES.put_model(request.model)
        return api_pb2.CreateDeviceModelResponse(deviceModelName=request.model.name)

    def RemoveDeviceModel(self, request, context):
        DEVICES.models.pop((request.modelNamespace, request.modelName), None)
        return api_pb2.RemoveDeviceModelResponse()


def manager():
    """One connection a call, as the template does it."""
    return grpc.insecure_channel("unix:" + EDGE, options=[("grpc.default_authority", AUTHORITY)])


def call(method, request):
    try:
        with manager() as channel:
            stub = api_pb2_grpc.DeviceManagerServiceStub(channel)
            return getattr(stub, method)(request, timeout=10)
    except grpc.RpcError as error:
        tell("refused", method=method, code=error.code().name, why=error.details())
        return None


def value_of(any_value):
    for kind in ("StringValue", "Int64Value", "FloatValue", "BoolValue"):
        from google.protobuf import wrappers_pb2

        message = getattr(wrappers_pb2, kind)()
        if any_value.Is(message.DESCRIPTOR):
            any_value.Unpack(message)
            return message.value
    return None


def register():
    info = api_pb2.MapperInfo(
        name="python-mapper", version="v1.0.0", api_version="v1.0.0", protocol=PROTOCOL, address=OWN.encode(), state="OK"
    )
    reply = call("MapperRegister", api_pb2.MapperRegisterRequest(withData=True, mapper=info))
    if reply is None:
        return
    for model in reply.modelList:
        DEVICES.put_model(model)
    for device in reply.deviceList:
        DEVICES.put_device(device)
        config = device.spec.protocol.configData.data
        tell(
            "given",
            device=device.name,
            protocol=device.spec.protocol.protocolName,
            config={name: value_of(config[name]) for name in sorted(config)},
            properties=[p.name for p in device.spec.properties],
        )
    tell("registered", devices=len(reply.deviceList))


def report(namespace, device, prop, value):
    said = api_pb2.TwinProperty(value=value, metadata={"type": "string"})
    twin = api_pb2.Twin(propertyName=prop, observedDesired=api_pb2.TwinProperty(value="99"), reported=said)
    request = api_pb2.ReportDeviceStatusRequest(
        deviceName=device, deviceNamespace=namespace, reportedDevice=api_pb2.DeviceStatus(twins=[twin])
    )
    if call("ReportDeviceStatus", request) is not None:
        tell("reported", property=prop, value=value)


def state(namespace, device, word):
    request = api_pb2.ReportDeviceStatesRequest(deviceName=device, deviceNamespace=namespace, state=word)
    if call("ReportDeviceStates", request) is not None:
        tell("stated", state=word)


def serve():
    if os.path.exists(OWN):
        os.remove(OWN)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    api_pb2_grpc.add_DeviceMapperServiceServicer_to_server(Mapper(), server)
    server.add_insecure_port("unix:" + OWN)
    server.start()
    return server


def main():
    server = serve()
    if not LATE:
        register()
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "report":
            report(*rest)
        elif word == "state":
            state(*rest)
        elif word == "register":
            register()
        elif word == "stop":
            server.stop(grace=None).wait()
            tell("stopped")
        elif word == "serve":
            server = serve()
            tell("served")
    server.stop(grace=None)


main()
