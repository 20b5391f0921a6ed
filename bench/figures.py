"""The framework's figures as a whole, each measured on this computer now: `python -m bench.figures [--json]`.

Needs root and network namespaces (the bed of tests/lab): two hosts on a switch, no default route. Times are medians with
minimum and maximum of several rounds; start-up is a ratio of interleaved runs, since absolute times do not hold on
a shared machine. Memory is PSS where the kernel tells it (shared pages counted once), of the root and all its children.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.lab import Lab, unavailable
from tests.lab.host import REPOSITORY

ROUNDS = 7
IDLE = 30.0         # s over which an idle node's CPU time is taken


def spread(values):
    """median, min and max, rounded."""
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return dict({name: round(value, 3) for name, value in figures.items()}, rounds=len(values))


def poll(condition, timeout=20.0):
    """The first true value of `condition`; RuntimeError at the deadline."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise RuntimeError("the deadline passed")


def first_meeting(log):
    """When a root's log says that another node is here, Unix s; None while it does not."""
    return log.stat().st_mtime if log.exists() and " is here " in log.read_text("utf-8", "replace") else None


def discovery():
    """Seconds from the start of the second host's `up` until both have each other in their tables."""
    values = []
    for _ in range(ROUNDS):
        with Lab(2) as lab:
            ann, bob = lab.hosts
            ann.root()
            began = time.time()
            bob.start_root()
            values.append(max(poll(lambda host=host: first_meeting(host.home() / "log")) for host in lab.hosts) - began)
    return spread(values)


def first_line():
    """Seconds from `allow` until a line typed at one instance of chat stands on the other's screen."""
    values = []
    for _ in range(ROUNDS):
        with Lab(2) as lab:
            ann, bob = lab.hosts
            lab.roots()
            ann.json("nodes", "--wait", "2", "--timeout", "10")
            ann.json("share", REPOSITORY / "apps" / "chat")
            ann.json("run", "chat", bob.name)
            job = ann.json("jobs")[0]["job"]
            terminal = ann.terminal(ann.p2p_argv("attach", str(job)))
            number = poll(lambda: bob.json("requests"))[0]["request"]
            shell = bob.terminal(bob.p2p_argv())
            shell.wait_for(f"{bob.name}>")
            began = time.monotonic()
            shell.type(f"allow {number}\r")
            terminal.wait_for(f"* {bob.name} joined")
            terminal.type("hello\r")
            follow = bob.start(bob.p2p_argv("output", "1", "--follow"))
            poll(lambda: f"<{ann.name}> hello" in follow.output())
            values.append(time.monotonic() - began)
    return spread(values)


def start_up():
    """Wall time of `--version` over that of an empty program, both with -S -E; medians of interleaved runs."""
    plain, version = [], []
    for _ in range(41):
        for argv, times in (([sys.executable, "-S", "-E", "-c", "pass"], plain),
                            ([sys.executable, "-S", "-E", str(REPOSITORY / "p2pframe.py"), "--version"], version)):
            began = time.perf_counter()
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
    return spread([one / other for one, other in zip(version, plain)])


def family(pid):
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [below for child in children for below in family(int(child))]


def memory_mb(pid):
    """PSS of a process and all below it, MB."""
    total = 0
    for member in family(pid):
        total += int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{member}/smaps_rollup").read_text(), re.M).group(1))
    return total / 1024


def cpu_s(pid):
    """User and system time of a process and all below it, s."""
    ticks = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def idle():
    """Memory and CPU of a node that has one peer and nothing to do."""
    with Lab(2) as lab:
        roots = lab.roots()
        lab.hosts[0].json("nodes", "--wait", "2", "--timeout", "10")
        time.sleep(5.0)          # past the start's beacons: the steady state is what is measured
        pids = [root.pid for root in roots]
        before, began = [cpu_s(pid) for pid in pids], time.monotonic()
        time.sleep(IDLE)
        spent = [(cpu_s(pid) - then) / (time.monotonic() - began) * 100 for pid, then in zip(pids, before)]
        return {"memory_mb": spread([memory_mb(pid) for pid in pids]), "cpu_percent": spread(spent)}


def lines():
    """Lines that are not blank."""
    def count(*patterns):
        files = {path for pattern in patterns for path in REPOSITORY.glob(pattern)}
        return sum(1 for path in sorted(files) for line in path.read_text("utf-8").splitlines() if line.strip())
    return {"product": count("p2pframe.py", "p2p/**/*.py", "apps/**/*.py"), "tests": count("tests/**/*.py")}


def main():
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("figures", nargs="*", help="discovery first_line start_up idle lines; all unless named")
    options = parser.parse_args()
    known = {"discovery": discovery, "first_line": first_line, "start_up": start_up, "idle": idle, "lines": lines}
    unknown = [name for name in options.figures if name not in known]
    if unknown:
        parser.error(f"no figure is called {', '.join(unknown)}; there are {', '.join(known)}")
    reason = unavailable()
    result = {"python": sys.version.split()[0]}
    for name in options.figures or known:
        if reason and name in ("discovery", "first_line", "idle"):
            result[name] = reason
            continue
        result[name] = known[name]()
        if not options.json:
            print(f"{name}: {json.dumps(result[name])}", flush=True)
    if options.json:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
