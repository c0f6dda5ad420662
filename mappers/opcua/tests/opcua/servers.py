"""OPC UA servers for the tests, by asyncua. Reads one JSON object a line from standard input:

    {"start": {"port": .., "control": "/path", "log": "/path", "nodes": [..], ..}}   answered by {"pid": ..}
    {"signal": 19, "pid": ..}                                                        answered by {}
    {"certify": "/cert.der", "key": "/key.pem"}                                      a new certificate; answered by {}

The standard's own nodes take more than a second of a processor to load: that is done once, and each server is a fork of it. A
server listens on a Unix socket for what a test wants of it (`Control`), notes each write in a log that outlives it, and ends
with this process, which ends with its standard input.
"""

import asyncio
import ctypes
import json
import logging
import os
import signal
import socket
import sys
from datetime import datetime, timezone

from asyncua import Server, ua
from asyncua.common.callback import CallbackType
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server import internal_server
from asyncua.server.address_space import AddressSpace, NodeManagementService
from asyncua.server.standard_address_space import standard_address_space

PR_SET_PDEATHSIG = 1  # linux/prctl.h
NAMESPACE = "urn:kubebus:test"
POLICIES = {
    "None": ua.SecurityPolicyType.NoSecurity,
    "Basic256Sha256": ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    "Basic256Sha256-sign": ua.SecurityPolicyType.Basic256Sha256_Sign,
    "Aes128Sha256RsaOaep": ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    "Aes256Sha256RsaPss": ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
}


class Users:
    """One user with a password, or anybody."""

    def __init__(self, wanted):
        self.wanted = wanted

    def get_user(self, iserver, username=None, password=None, certificate=None):
        if self.wanted and [username, password] != self.wanted:
            return None
        return User(role=UserRole.User)


def variant(node, value):
    kind = ua.VariantType[node["type"]]
    if kind == ua.VariantType.ByteString:
        value = bytes.fromhex(value)
    if kind == ua.VariantType.DateTime:
        value = datetime.fromisoformat(value)
    if kind == ua.VariantType.LocalizedText:
        value = ua.LocalizedText(value)
    return ua.Variant(value, kind)


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    return str(value)


class Control:
    """What a test may want: {"set": id, "value": .., "status": .., "time": ..}, {"get": id}, {"add": node}, {"delete": id},
    {"reads": true} (nodes in each read since the last time asked), {"sessions": true}, {"forget": true} (subscriptions)."""

    def __init__(self, server, spec):
        self.server, self.spec = server, spec
        self.nodes = {}
        self.reads = []
        self.folder = None

    async def begin(self):
        index = await self.server.register_namespace(NAMESPACE)
        assert index == 2
        self.folder = await self.server.nodes.objects.add_object("ns=2;s=Plant", "2:Plant")
        for node in self.spec["nodes"]:
            await self.add(node)
        self.server.subscribe_server_callback(CallbackType.PostWrite, self.written)
        self.server.subscribe_server_callback(CallbackType.PostRead, self.read)

    async def add(self, node):
        name = node["node"].split("=")[-1]
        variable = await self.folder.add_variable(node["node"], f"2:{name}", variant(node, node["value"]))
        if node.get("writable"):
            await variable.set_writable()
        self.nodes[node["node"]] = node

    def written(self, event, _):
        if not event.is_external:
            return
        with open(self.spec["log"], "a") as log:
            for write, status in zip(event.request_params.NodesToWrite, event.response_params):
                if status.is_good():
                    value = plain(write.Value.Value.Value)
                    log.write(json.dumps({"node": write.NodeId.to_string(), "value": value}) + "\n")

    def read(self, event, _):
        if event.is_external:
            self.reads.append(sum(n.NodeId.NamespaceIndex == 2 for n in event.request_params.NodesToRead))

    async def answer(self, wish):
        if "set" in wish:
            status = ua.StatusCode(getattr(ua.StatusCodes, wish.get("status", "Good")))
            value = variant(self.nodes[wish["set"]], wish["value"]) if "value" in wish else None
            time = datetime.fromisoformat(wish["time"]) if "time" in wish else datetime.now(timezone.utc)
            data = ua.DataValue(value, status, SourceTimestamp=time)
            await self.server.get_node(wish["set"]).write_value(data)
        if "get" in wish:
            data = self.server.read_attribute_value(ua.NodeId.from_string(wish["get"]))
            return {"value": plain(data.Value.Value), "type": data.Value.VariantType.name}
        if "add" in wish:
            await self.add(wish["add"])
        if "delete" in wish:
            await self.server.delete_nodes([self.server.get_node(wish["delete"])])
        if "reads" in wish:
            reads, self.reads = [n for n in self.reads if n], []
            return {"reads": reads}
        if "sessions" in wish:
            return {"sessions": sum(s.is_activated() for s in self.server.iserver._external_sessions)}
        if "forget" in wish:
            service = self.server.iserver.subscription_service
            await service.delete_subscriptions(list(service.subscriptions))
        return {}

    async def converse(self, reader, writer):
        async for line in reader:
            writer.write(json.dumps(await self.answer(json.loads(line))).encode() + b"\n")
            await writer.drain()


def renew_keys_after(milliseconds):
    """What a client asks for is capped, as servers may; this one has no setting for it."""
    from asyncua.common.connection import SecureConnection

    opened = SecureConnection.open

    def capped(self, params, server):
        params.RequestedLifetime = min(params.RequestedLifetime, milliseconds)
        return opened(self, params, server)

    SecureConnection.open = capped


async def serve(spec):
    if "lifetime" in spec:
        renew_keys_after(spec["lifetime"])
    server = Server(user_manager=Users(spec.get("user")))
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{spec['port']}/")
    server.set_server_name("ACME Press")
    server.set_security_policy([POLICIES[p] for p in spec.get("policies", ["None"])])
    anybody = [] if spec.get("user") else [ua.AnonymousIdentityToken]
    server.set_identity_tokens([*anybody, ua.UserNameIdentityToken])
    if "certificate" in spec:
        await server.load_certificate(spec["certificate"])
        await server.load_private_key(spec["key"])
    if "trusts" in spec:
        server.set_certificate_validator(only(open(spec["trusts"], "rb").read()))
    control = Control(server, spec)
    await control.begin()
    await server.start()
    await asyncio.start_unix_server(control.converse, spec["control"])
    await asyncio.Event().wait()


def only(trusted):
    """Accepts this certificate (DER) and no other."""
    from asyncua.common.utils import ServiceError
    from cryptography.hazmat.primitives.serialization import Encoding

    async def validate(certificate, _):
        if certificate.public_bytes(Encoding.DER) != trusted:
            raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)

    return validate


def preload():
    """An address space with the standard in it, which the next server takes."""
    space = AddressSpace()
    standard_address_space.fill_address_space(NodeManagementService(space))

    async def loaded(self, shelf_file=None):
        pass

    internal_server.AddressSpace = lambda: space
    internal_server.InternalServer.load_standard_address_space = loaded


def certify(certificate, key):
    from asyncua.crypto.cert_gen import dump_private_key_as_pem, generate_private_key, generate_self_signed_app_certificate
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID

    private = generate_private_key()
    names = [x509.UniformResourceIdentifier("urn:freeopcua:python:server"), x509.DNSName(socket.gethostname())]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    made = generate_self_signed_app_certificate(private, "ACME Press", {}, names, usages)
    with open(certificate, "wb") as file:
        file.write(made.public_bytes(Encoding.DER))
    with open(key, "wb") as file:
        file.write(dump_private_key_as_pem(private))


def say(what):
    print(json.dumps(what), flush=True)


def main():
    logging.basicConfig(level=logging.ERROR if "-v" not in sys.argv else logging.INFO)
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in iter(sys.stdin.readline, ""):
        wish = json.loads(line)
        if "start" in wish:
            pid = os.fork()
            if pid == 0:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                os.close(0)
                os.close(1)
                asyncio.run(serve(wish["start"]))
                os._exit(0)
            say({"pid": pid})
        elif "certify" in wish:
            certify(wish["certify"], wish["key"])
            say({})
        else:
            try:
                os.kill(wish["pid"], wish["signal"])
            except ProcessLookupError:
                pass
            say({})


main()
