"""A device that speaks HTTP, on Python's own server. Prints each request; its input changes what it does.

`set KEY JSON` changes its state; `fail STATUS [SECONDS]` makes it answer so until `work`; `cut` makes it hang up on
writes without an answer after having carried them out; `tell` prints what it holds and what was written; `close` makes it close each connection after its answer.
"""

import base64
import http.server
import json
import sys
import threading
import time


def out(*words):
    """In one piece: threads must not mix their lines."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


state = {"sensors": [{"temp": 21.5}], "relay": False, "mode": "eco", "at": 1709208000}
state |= {"speed": 5.0, "level": 42}
writes = []
mood = {"fail": None, "retry": None, "cut": False, "close": False}
EXPECTED = "Basic " + base64.b64encode(b"user:right").decode()


class Device(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, **headers):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = self.close_connection or mood["close"] == "quietly"

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        out("request", self.command, self.path, body)
        if self.path.startswith("/guarded") and self.headers.get("Authorization") != EXPECTED:
            return self.answer(401, "who are you?")
        path = self.path.removeprefix("/guarded")
        if mood["fail"]:
            retry = {"Retry_After": mood["retry"]} if mood["retry"] else {}
            return self.answer(mood["fail"], "not now", **retry)
        if self.command != "GET":
            return self.write(path, body)
        if path == "/api/status":
            self.answer(200, json.dumps(state), Content_Type="application/json")
        elif path == "/api/plain":
            self.answer(200, f"{state['sensors'][0]['temp']}\n")
        elif path == "/api/broken":
            self.answer(500, "ouch")
        elif path == "/api/elsewhere":
            self.answer(302, "", Location="/api/status")
        elif path == "/api/large":
            self.answer(200, " " * 3_000_000)
        elif path == "/api/never":
            time.sleep(60)
        elif path.startswith("/api/mode/"):
            state["mode"] = path.removeprefix("/api/mode/")
            self.answer(200, "ok")
        else:
            self.answer(404, "no such thing")

    def write(self, path, body):
        if path == "/api/state" and self.command == "PUT":
            state.update(json.loads(body))
            writes.append(json.loads(body))
            if mood["cut"]:
                self.close_connection = True
                return None
            return self.answer(200, json.dumps(state), Content_Type="application/json")
        if path == "/api/later":
            return self.answer(202, "")
        if path == "/api/elsewhere":
            return self.answer(307, "", Location="/api/state")
        return self.answer(409, "not in this mode")

    do_GET = do_PUT = do_POST = do_PATCH = handle_one

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", int(sys.argv[1])), Device)
threading.Thread(target=server.serve_forever, daemon=True).start()
out("ready", server.server_port)
for line in sys.stdin:
    order, *args = line.strip().split(" ", 2)
    if order == "set":
        state[args[0]] = json.loads(args[1])
    elif order == "fail":
        mood.update(fail=int(args[0]), retry=args[1] if len(args) > 1 else None)
    elif order == "work":
        mood.update(fail=None, retry=None, cut=False, close=False)
    elif order == "close":
        mood["close"] = "quietly"
    elif order == "tell":
        out("told", json.dumps({"state": state, "writes": writes}))
    else:
        mood[order] = True
    out("done", order)
