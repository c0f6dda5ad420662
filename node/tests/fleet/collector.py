"""A collector of OpenTelemetry as far as it reads: over TLS, and by OpenTelemetry's own messages. `otlp.rs` runs it.

Says its port and the file of its authority first, then a line for each request."""

import datetime
import http.server
import ipaddress
import json
import ssl
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

ROOM = sys.argv[1]
REQUESTS = {"/otlp/v1/logs": ExportLogsServiceRequest, "/otlp/v1/metrics": ExportMetricsServiceRequest}


def certify():
    """A certificate for the loopback address, which vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "collector")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False).sign(key, hashes.SHA256()))
    pem, private = f"{ROOM}/collector.pem", f"{ROOM}/collector.key"
    with open(pem, "wb") as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    with open(private, "wb") as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return pem, private


def told(request):
    """What is in a request; a field that OpenTelemetry does not know is an error before that."""
    if isinstance(request, ExportLogsServiceRequest):
        records = [record for part in request.resource_logs for scope in part.scope_logs for record in scope.log_records]
        assert all(record.time_unix_nano and record.severity_number for record in records)
        return {"logs": [record.body.string_value for record in records]}
    names = [metric.name for part in request.resource_metrics for scope in part.scope_metrics for metric in scope.metrics]
    nodes = [a.value.string_value for part in request.resource_metrics for a in part.resource.attributes if a.key == "kubebus.node"]
    return {"metrics": sorted(set(names)), "nodes": nodes}


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            line, status = told(json_format.Parse(body, REQUESTS[self.path]())), 200
        except (KeyError, AssertionError, json_format.ParseError) as why:
            line, status = {"wrong": f"{self.path}: {why!r}"}, 400
        print(json.dumps(line), flush=True)
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


PEM, KEY = certify()
SERVER = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CONTEXT.load_cert_chain(PEM, KEY)
SERVER.socket = CONTEXT.wrap_socket(SERVER.socket, server_side=True)
print(json.dumps({"port": SERVER.server_address[1], "ca": PEM}), flush=True)
SERVER.serve_forever()
