"""A headless Chromium, driven over a pipe by its DevTools protocol: nothing but Python's own library is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

# For one thing to happen: many times what an idle machine needs.
PATIENCE = 40.0
NAMES = ("chromium-headless-shell", "chromium")
# It reads commands from descriptor 3 and answers at 4: what its two pipes are is moved there, out of each other's way.
AT_THREE_AND_FOUR = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, pipe in zip((3, 4), pipes):
    os.dup2(pipe, number)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Browser:
    def __init__(self, artefacts):
        self.artefacts, self.profile = artefacts, tempfile.mkdtemp(prefix="kubebus-chromium-")
        program = next(filter(None, map(shutil.which, NAMES)), None)
        assert program, f"install one of {NAMES} first: apt-get install {NAMES[0]}"
        ours, theirs = os.pipe(), os.pipe()
        command = [program, "--headless", "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "--disable-gpu",
                   "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-extensions"]
        if os.getuid() == 0:
            command.append("--no-sandbox")
        self.log = open(os.path.join(artefacts, "chromium.log"), "wb")
        start = [sys.executable, "-c", AT_THREE_AND_FOUR, str(ours[0]), str(theirs[1]), *command]
        self.process = subprocess.Popen(start, pass_fds=(ours[0], theirs[1]), stdout=self.log, stderr=self.log)
        os.close(ours[0])
        os.close(theirs[1])
        self.out, self.back, self.rest, self.count, self.events = ours[1], theirs[0], b"", 0, []
        self.version = self.call("Browser.getVersion")["product"]

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        os.close(self.out)
        os.close(self.back)
        self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, session=None, **params):
        self.count += 1
        number, message = self.count, {"id": self.count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            message = self._read(end)
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)
        raise AssertionError(f"the browser does not answer {method}")

    def _read(self, end):
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.back], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser is silent"
            piece = os.read(self.back, 1 << 20)
            assert piece, "the browser ended"
            self.rest += piece
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, url, width=1280, height=900):
        """A page with cookies and storage of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        page = Page(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.size(width, height)
        page.call("Page.navigate", url=url)
        return page


class Page:
    def __init__(self, browser, session):
        self.browser, self.session = browser, session

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def dark(self, is_dark):
        features = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def js(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)})?.textContent ?? null")

    def count(self, selector):
        return self.js(f"document.querySelectorAll({json.dumps(selector)}).length")

    def go(self, place):
        self.js(f"location.hash = {json.dumps(place)}; null")

    def cookie(self):
        """What it sends with each request, also what scripts may not see."""
        return "; ".join(f"{c['name']}={c['value']}" for c in self.call("Network.getCookies")["cookies"])

    def key(self, *keys):
        for key in keys:
            text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            code = {"Enter": 13, "Tab": 9, "Escape": 27}.get(key, ord(key[0].upper()))
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **(text if kind == "keyDown" else {}))

    def type(self, text):
        self.call("Input.insertText", text=text)

    def until(self, expression, limit=PATIENCE, what=None):
        """Waits for a JavaScript expression to be true, and gives its value."""
        end = time.monotonic() + limit
        while True:
            value = self.js(expression)
            if value:
                return value
            if time.monotonic() > end:
                self.picture("failed")
                raise AssertionError(f"not within {limit} s: {what or expression}\n{self.text('main')}\n{self.said()}")
            time.sleep(0.1)

    def picture(self, name):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(os.path.join(self.browser.artefacts, f"{name}.png"), "wb") as file:
            file.write(base64.b64decode(data))

    def said(self):
        """What the browser complained of: exceptions, and what its policy kept from running."""
        self.js("0")
        faults = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                faults.append(details.get("exception", {}).get("description") or details["text"])
            if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
                faults.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return faults
