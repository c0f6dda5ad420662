"""The page, looked at in a browser through a real demo. `main.rs` runs it and says where everything is; pictures of what
was seen go to the artefacts' directory.

One run of the demo is enough: while one of its sites is cut off, which takes as long as a link may be silent, all else is
looked at."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time

from browser import PATIENCE, Browser

KUBEBUS, ARTEFACTS = os.environ["KUBEBUS"], os.environ["ARTEFACTS"]
# A link may be silent for 45 s; a page is told at most two seconds later.
RED_WITHIN = 50.0
EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=2</script>"
HOSTILE = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: hostile, namespace: water}
spec:
  properties:
    - {name: note, type: STRING, accessMode: ReadWrite, unit: '%s'}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: hostile, namespace: water}
spec: {deviceModelRef: {name: hostile}, nodeName: a, protocol: {protocolName: app}}
""" % EVIL


def step(text):
    print(f"{time.monotonic() - BEGAN:6.1f}s  {text}", flush=True)


class Demo:
    """The demo without its cut: it stays up until it is ended."""

    def __init__(self):
        self.room = os.path.join(ARTEFACTS, "room")
        self.log = os.path.join(ARTEFACTS, "demo.log")
        args = [KUBEBUS, "demo", "--calm", "--keep", self.room]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(args, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.frozen = None

    def said(self, pattern):
        """Waits until the demo has said this."""
        end = time.monotonic() + 2 * PATIENCE
        while time.monotonic() < end:
            with open(self.log) as log:
                text = log.read()
            if found := re.search(pattern, text):
                return found
            assert self.process.poll() is None, f"the demo ended:\n{text}"
            time.sleep(0.1)
        raise AssertionError(f"the demo never said {pattern}:\n{text}")

    def kubebus(self, *args):
        place = os.path.join(self.room, "cloud")
        where = ["--config", f"{place}/kubebus.yaml", "--data-dir", f"{place}/data"]
        done = subprocess.run([KUBEBUS, *args, *where], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{args}: {done.stderr}"
        return done.stdout.strip()

    def freeze(self, edge):
        """To everybody else the site is cut off."""
        self.frozen = self._pid(edge)
        os.kill(self.frozen, signal.SIGSTOP)

    def thaw(self):
        if self.frozen:
            os.kill(self.frozen, signal.SIGCONT)
        self.frozen = None

    def _pid(self, edge):
        wanted = f"{self.room}/{edge}/data"
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    line = file.read().decode().split("\0")
            except OSError:
                continue
            if "edge" in line and wanted in line:
                return int(pid)
        raise AssertionError(f"edge {edge} does not run")

    def end(self):
        self.thaw()
        self.process.terminate()
        self.process.wait(PATIENCE)


def sees_the_sites(page):
    for node in ("cloud/cloud", "edge/a", "edge/b"):
        # Site a has a meter without a mapper, which is worth a triangle.
        page.until(f"['ok', 'warn'].includes(document.querySelector('g[data-node=\"{node}\"]')?.dataset.level)", what=f"{node} is there")
    page.until("/ms/.test(document.querySelector('g[data-link=\"cloud/cloud edge/a\"]')?.textContent)", what="a link has a round trip")
    page.until("/bit/.test(document.querySelector('g[data-link=\"cloud/cloud edge/a\"]')?.textContent)", what="and a throughput")
    page.picture("map")


def sees_the_valve_move(page):
    page.key("g", "p")
    position = "Number(document.querySelector('g.valve')?.dataset.position)"
    first = page.until(position, what="the valve is drawn")
    page.until(f"Math.abs({position} - {first}) > 0.5", what="the valve moves in the drawing")
    page.until("/level against set point/.test(document.querySelector('[data-rule=\"water/fill-tank\"]')?.textContent)")
    page.picture("plant")
    page.key("g", "d")
    cell = "parseFloat(document.querySelector('tr[data-twin=\"water/valve/position\"] .reading')?.textContent)"
    first = page.until(cell, what="the valve is in the table")
    page.until(f"Math.abs({cell} - {first}) > 0.5", what="the valve moves in the table")
    page.picture("devices")


def sets_a_value_by_hand(page):
    page.go("#/device/water/valve")
    card = "[data-twin=\"water/valve/setpoint\"]"
    page.until(f"document.querySelector('{card} form') !== null", what="a form for the set point")
    field = f"document.querySelector('{card} input')"
    page.js(f"{field}.focus()")
    page.type("9")
    page.key("Enter")
    page.until(f"/the most is 5.5/.test(document.querySelector('{card} .outcome')?.textContent)", what="what is too much is not sent")
    page.js(f"{field}.select()")
    page.type("3.25")
    page.key("Enter")
    page.until(f"document.querySelector('{card} .outcome')?.dataset.outcome === 'acknowledged'", what="the edge acknowledges it")
    page.until(f"document.querySelector('{card} [data-wish]')?.dataset.wish === 'acknowledged'")
    page.until("document.querySelectorAll('svg.chart path.line').length > 0", what="a plot")
    page.picture("device")


def plots_what_was_before_it(page):
    """A cloud's page shows what the edge recorded, also from before anybody looked."""
    page.go("#/device/water/valve")
    card = "[data-twin=\"water/valve/position\"]"
    page.until(f"document.querySelector('{card} figure')?.dataset.source === 'record'", what="the edge tells what it recorded")
    page.until(f"/^recorded at edge\\/b/.test(document.querySelector('{card} figcaption .muted')?.textContent)", what="and the page says so")
    asked = "/kubebus/v1/history/water/valve/position?points=20&since=0&until=4102444800000"
    before = "points[0].since < performance.timeOrigin && points[0].greatest > points[0].least"
    assert page.js(f"fetch('{asked}').then((answer) => answer.json()).then(({{points}}) => {before})") is True
    page.picture("history")


def is_asked_before_something_moves(page):
    page.go("#/device/water/tank")
    card = "[data-twin=\"water/tank/mixer\"]"
    page.until(f"document.querySelector('{card} form') !== null")
    page.js(f"document.querySelector('{card} input').focus()")
    page.type("35")
    page.key("Enter")
    page.until(f"/Moves water\\/tank\\/mixer to 35/.test(document.querySelector('{card} .armed').textContent)")
    assert page.count(f"{card} .outcome") == 0
    page.key("Enter")
    page.until(f"document.querySelector('{card} .outcome')?.dataset.outcome === 'acknowledged'")


def shows_hostile_text_as_text(demo, page):
    path = os.path.join(ARTEFACTS, "hostile.yaml")
    with open(path, "w") as file:
        file.write(HOSTILE)
    demo.kubebus("apply", "-f", path)
    demo.kubebus("twin", "set", "water/hostile", "note", json.dumps(EVIL))
    for place in ("#/device/water/hostile", "#/devices?q=hostile"):
        page.go(place)
        page.until(f"document.querySelector('main').textContent.includes({json.dumps(EVIL)})", what="it is there to be read")
    page.go("#/device/%3Cimg src=x onerror=window.hacked=3%3E/x")
    page.until("document.querySelector('h1').textContent.includes('<img')")
    assert page.js("window.hacked ?? null") is None
    assert page.count("main img, main script") == 0
    # Nor does anything run that somebody gets in as markup after all.
    page.js(f"document.querySelector('main').innerHTML = {json.dumps(EVIL)}; null")
    time.sleep(0.3)
    assert page.js("window.hacked ?? null") is None, "the policy forbids inline scripts"


def is_used_by_keys_alone(page):
    page.go("#/map")
    page.until("document.querySelector('g[data-node]') !== null")
    page.key("/")
    page.until("document.activeElement?.id === 'search'", what="a slash leads to the search")
    page.type("valve")
    page.until("[...document.querySelectorAll('th[scope=rowgroup] a')].map((a) => a.textContent).join() === 'water/valve'", what="it finds the valve")
    page.key("Escape")
    for _ in range(12):
        page.key("Tab")
        if page.js("document.activeElement?.getAttribute('href')") == "#/device/water/valve":
            break
    page.key("Enter")
    page.until("location.hash === '#/device/water/valve'", what="Tab and Enter lead to the device")
    page.key("g", "r")
    page.until("location.hash === '#/rules' && document.querySelector('[data-rule]') !== null")
    page.picture("rules")
    page.key("g", "e")
    page.until("location.hash === '#/events'")
    page.key("?")
    page.until("document.getElementById('keys').open")
    page.key("Escape")
    page.until("!document.getElementById('keys').open")


def is_dark_where_the_system_is(page):
    background = "getComputedStyle(document.body).backgroundColor"
    page.dark(False)
    light = page.js(background)
    page.dark(True)
    dark = page.js(background)
    assert light != dark
    page.go("#/plant")
    page.until("document.querySelector('g.valve') !== null")
    page.picture("plant-dark")
    page.key("t")
    assert page.js(background) == light, "the switch outranks the system"
    page.key("t", "t")
    page.dark(False)


def fits_a_phone_and_a_wall(page):
    for name, width, height in (("phone", 360, 740), ("wall", 1920, 1080)):
        page.size(width, height)
        for place in ("#/map", "#/devices", "#/device/water/valve", "#/plant", "#/rules"):
            page.go(place)
            page.until(f"location.hash === '{place}' && document.querySelector('h1') !== null")
            page.until(f"document.documentElement.scrollWidth <= {width}", limit=5, what=f"{place} is no wider than {name}")
        page.go("#/map")
        page.until("document.querySelector('svg.map') !== null")
        page.picture(name)
    page.size(1280, 900)


def turns_red(page, began):
    page.go("#/map")
    left = RED_WITHIN - (time.monotonic() - began)
    page.until("document.querySelector('g[data-node=\"edge/b\"]')?.dataset.level === 'bad'", limit=left, what="the cut site is red")
    step(f"red {time.monotonic() - began:.1f} s after the cut")
    assert "cut off since" in page.text("tr[data-node='edge/b']")
    assert "edge/b is cut off" in page.text("#banner")
    page.picture("cut")
    page.go("#/devices?q=valve")
    page.until("document.querySelector('tr[data-twin=\"water/valve/position\"] .reading.stale') !== null", what="its values are in doubt")
    page.go("#/device/water/valve")
    page.until("/^edge\\/b of site \\S+ is away since .* ask again when it is back. Shown is what this page saw/.test(document.querySelector('[data-twin=\"water/valve/position\"] figcaption .muted')?.textContent)", what="its history is there")
    step("a cut site's plots say where its history is")
    page.go("#/plant")
    page.until("document.querySelector('g.valve.stale') !== null", what="in the drawing too")
    page.picture("plant-cut")


def turns_green(page):
    page.go("#/map")
    page.until("document.querySelector('g[data-node=\"edge/b\"]')?.dataset.level === 'ok'", what="the site is back")
    page.until("document.getElementById('banner').hidden")


def stream(host, cookie):
    connection = http.client.HTTPConnection(host, timeout=PATIENCE)
    connection.request("GET", "/page/stream?q=", headers={"Cookie": cookie})
    return connection, connection.getresponse()


def streams_are_bounded(page, viewer):
    """Pages that one leaves open keep out nobody else, and himself not for good."""
    host, cookie = page.js("location.host"), page.cookie()
    open_ones = []
    while True:
        connection, answer = stream(host, cookie)
        if answer.status != 200:
            break
        assert answer.readline() == b"id: 1\n"
        open_ones.append((connection, answer))
        assert len(open_ones) < 20, "no end of streams"
    why = answer.read()
    connection.close()
    assert answer.status == 503 and b"the most for one" in why, (answer.status, why)
    page.until("document.getElementById('link').textContent.includes('live')")
    connection, answer = stream(host, viewer.cookie())
    assert answer.status == 200 and answer.readline() == b"id: 1\n", "another's page is served"
    for connection, answer in [*open_ones, (connection, answer)]:
        answer.close()
        connection.close()
    end = time.monotonic() + PATIENCE
    while True:
        connection, answer = stream(host, cookie)
        connection.close()
        if answer.status == 200:
            return
        assert time.monotonic() < end, "a slot that was left is free"
        time.sleep(0.2)


def may_only_look(demo, browser):
    link = demo.kubebus("page", "--role", "viewer").split()[-1]
    page = browser.open(link)
    page.until("location.pathname === '/' && document.getElementById('who')?.textContent.includes('read only')", what="the link lets a viewer in")
    page.go("#/device/water/valve")
    page.until("document.querySelector('[data-twin=\"water/valve/setpoint\"] .reading') !== null")
    assert page.count("form") == 0
    status = page.js("fetch('/kubebus/v1/twins/water/valve/desired/setpoint', {method: 'PUT', body: '1'}).then((answer) => answer.status)")
    assert status == 403, status
    page.picture("viewer")
    again = browser.open(link)
    again.until("/used|expired|no longer|new link/i.test(document.body?.textContent)", what="the link is good once")
    return page


def main():
    demo = Demo()
    browser = Browser(ARTEFACTS)
    try:
        link = demo.said(r"http://127\.0\.0\.1:\d+/\S*").group(0)
        demo.said(r"level and valve move|level .* to .* m, valve|it stays up")
        step(f"the demo stands; {browser.version}")
        page = browser.open(link)
        sees_the_sites(page)
        step("a map of the sites")
        sees_the_valve_move(page)
        step("the valve moves")
        sets_a_value_by_hand(page)
        is_asked_before_something_moves(page)
        plots_what_was_before_it(page)
        step("values are set by hand")
        demo.freeze("b")
        cut = time.monotonic()
        fits_a_phone_and_a_wall(page)
        is_used_by_keys_alone(page)
        is_dark_where_the_system_is(page)
        step("keys, sizes, dark mode")
        viewer = may_only_look(demo, browser)
        step("a viewer may only look")
        streams_are_bounded(page, viewer)
        step("the number of pages is bounded")
        # That the cut edge does not tell its history is an answer of the node, and no fault of the page.
        faults = [fault for fault in page.said() if "/kubebus/v1/history/" not in fault]
        assert faults == [], faults
        turns_red(page, cut)
        demo.thaw()
        turns_green(page)
        step("green again")
        shows_hostile_text_as_text(demo, page)
        step("hostile text stays text")
    finally:
        browser.close()
        demo.end()


if __name__ == "__main__":
    BEGAN = time.monotonic()
    sys.exit(main())
