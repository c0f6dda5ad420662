"""Runs EPANET over a network and prints what it found, as JSON.

    reference.py NETWORK.inp HOURS

Steps through the period with EPANET's own toolkit (runH, nextH). Printed are, in metres, all heads and tank levels at
each whole hour, and the moments in seconds at which a link opened or closed.
"""

import json
import os
import sys
import tempfile
import warnings

from epanet import toolkit as en

FOOT_M = 0.3048
# Flow units that come with feet: CFS, GPM, MGD, IMGD, AFD.
FEET_UNITS = range(5)


def main(path, hours):
    # EPANET warns of negative pressure, which the comparison sees for itself.
    warnings.simplefilter("ignore")
    project = en.createproject()
    with tempfile.TemporaryDirectory() as room:
        report, results = (os.path.join(room, name) for name in ("report", "results"))
        en.open(project, path, report, results)
        en.settimeparam(project, en.DURATION, 3600 * hours)
        found = run(project)
        en.close(project)
    json.dump(found, sys.stdout)


def run(project):
    metres = FOOT_M if en.getflowunits(project) in FEET_UNITS else 1.0
    nodes = {en.getnodeid(project, i): i for i in range(1, en.getcount(project, en.NODECOUNT) + 1)}
    links = {en.getlinkid(project, i): i for i in range(1, en.getcount(project, en.LINKCOUNT) + 1)}
    tanks = {name: i for name, i in nodes.items() if en.getnodetype(project, i) == en.TANK}
    value = lambda i, what: en.getnodevalue(project, i, what) * metres
    is_open = lambda i: en.getlinkvalue(project, i, en.STATUS) > 0

    hours, switches, before = [], [], {}
    en.openH(project)
    en.initH(project, en.NOSAVE)
    while True:
        time = en.runH(project)
        now = {name: is_open(i) for name, i in links.items()}
        for name, opened in now.items():
            if before.get(name, opened) != opened:
                switches.append({"time_s": time, "link": name, "open": opened})
        before = now
        if time % 3600 == 0:
            hours.append({
                "heads": {name: value(i, en.HEAD) for name, i in nodes.items()},
                "levels": {name: value(i, en.HEAD) - value(i, en.ELEVATION) for name, i in tanks.items()},
            })
        if en.nextH(project) <= 0:
            break
    en.closeH(project)
    version = en.getversion()
    return {"version": version, "hours": hours, "switches": switches}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
