"""The speed of the message layer, side by side with what else there is: `python -m bench.wire [--json] [CASE...]`.

Every figure is a ratio of two measurements of the same round: ours and a peer's, both ends in processes of their own
on loopback. Rounds are interleaved (A B C A B C ...), and the median is given with minimum and maximum: absolute
times do not hold on a shared machine. `cpu` is the CPU time of both processes for one message, which is much
steadier than wall time. "ok" is the required figure ("must") reached; "aim" is what is wanted.

The peers are written as their documentation does it, and as well as they can be: bench/raw.py, aio.py, zeromq.py.
They need pyzmq and uvloop, which come into .venv-bench by themselves.

Where the system can do it (`setarch -R`), all ends run without address randomisation: two processes that take turns on
one core fight for its branch predictor otherwise, and one pair of addresses makes the same program twice as slow as another.
"""
import argparse
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-bench"
PACKAGES = ("pyzmq", "uvloop")
ROUNDS = 7
TIMEOUT = 120       # s for one measurement

SMALL = {"shape": "oneway", "size": 64, "warm": 2000, "burst": 500, "room": 1 << 18}
BULK = {"shape": "oneway", "size": 1 << 18, "warm": 100, "burst": 4, "room": 1 << 21, "count": 1500}
RTT = {"shape": "rtt", "size": 64, "warm": 500}

# case -> (metric, what is better, plan, {against: (must, aim, what differs in its plan)})
CASES = {
    "oneway_64": ("cpu", "higher", dict(SMALL, count=300_000), {
        "pyzmq": (2.5, 3.5, {"count": 150_000}),
        "asyncio-protocol": (6, 8, {"count": 200_000}),
        "asyncio-streams": (8, 10, {"count": 150_000}),
        "asyncio-batched": (0.9, 1.1, {}),
        "uvloop-protocol": (None, None, {"count": 200_000})}),
    "rtt_64": ("wall", "higher", dict(RTT, outstanding=64, count=60_000), {
        "pyzmq": (5, 7, {"count": 20_000}),
        "asyncio-protocol": (4, 5.5, {"count": 20_000}),
        "uvloop-protocol": (None, None, {"count": 20_000})}),
    "rtt_1": ("wall", "higher", dict(RTT, outstanding=1, count=6000, core=0), {
        "raw": (0.58, 0.70, {}),
        "pyzmq": (2, 2.4, {"count": 3000})}),
    "request_64": ("wall", "higher", dict(RTT, outstanding=64, count=30_000, futures=True), {
        "pyzmq": (None, None, {"count": 20_000}),
        "asyncio-protocol": (None, None, {"count": 20_000})}),
    "request_1": ("wall", "higher", dict(RTT, outstanding=1, count=6000, core=0, futures=True), {
        "raw": (None, None, {}),
        "pyzmq": (None, None, {"count": 3000})}),
    "bulk_256k": ("cpu", "higher", BULK, {
        "raw": (0.70, 0.85, {}),
        "pyzmq": (1.2, 1.4, {})}),
    "tls_oneway_64": ("cpu", "higher", dict(SMALL, count=150_000, tls=True), {
        "asyncio-tls": (8, 15, {"count": 15_000})}),
    "tls_bulk_256k": ("cpu", "higher", dict(BULK, count=800, tls=True), {
        "sslsocket": (0.9, 1.1, {}),
        "asyncio-tls": (1.3, 1.6, {})}),
    "fanout_50": ("cpu", "higher", {"shape": "fanout", "size": 64, "connections": 50, "count": 4000}, {
        "asyncio-protocol": (8, 11, {"count": 600}),
        "pyzmq": (0.65, 0.9, {})}),
    "idle_memory": ("memory", "lower", {"shape": "idle", "connections": 1000, "tls": True, "settle": 1.0, "seconds": 0}, {
        "asyncio-tls": (1 / 10, 1 / 18, {})}),
    "idle_cpu": ("cpu", "lower", {"shape": "idle", "connections": 1000, "settle": 3.0, "seconds": 4.0}, {
        "asyncio-protocol": (0.6, 0.35, {})}),
    "startup_version": ("wall", "lower", {"argv": ["p2pframe.py", "--version"]}, {"python": (1.5, 1.3, {})}),
    "startup_node": ("wall", "lower", {"argv": ["-c", "import sys; sys.path.insert(0, '.'); import p2p.node"]}, {"python": (7, 6, {})}),
}
STEADY = ["setarch", platform.machine(), "-R"]
DEFAULTS = {"tls": False, "futures": False, "core": None, "without": None, "connections": 1, "count": 1, "size": 64}


def measure(plan, impl, metric):
    """One measurement: CPU, wall or memory for one message or connection."""
    if "argv" in plan:
        return started(plan["argv"] if impl == "ours" else ["-c", "pass"])
    ends, results = [], []
    try:
        for role in ("server", "client"):
            argv = [*steady(), sys.executable, "-m", "bench.end", json.dumps(dict(DEFAULTS, **plan, impl=impl, role=role))]
            ends.append(subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8"))
            if role == "server":
                plan = dict(plan, port=int(ends[0].stdout.readline()))
        for end in ends:
            results.append(json.loads(end.communicate(timeout=TIMEOUT)[0]))
    finally:
        for end in ends:
            end.kill()
            end.wait()
            end.stdout.close()
    per = plan.get("connections", 1) if plan["shape"] == "idle" else plan["count"]
    return (results[1]["wall"] if metric == "wall" else sum(result[metric] for result in results)) / per


@functools.lru_cache(None)
def steady():
    """The prefix of a command that runs without address randomisation; nothing where that cannot be had."""
    try:
        return () if subprocess.run([*STEADY, "true"], stderr=subprocess.DEVNULL).returncode else tuple(STEADY)
    except OSError:
        return ()


def started(argv):
    """Wall time of a start, s: the median of several, since one is over so soon."""
    times = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-S", "-E", *argv], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def run(case, rounds, homes, chosen):
    """The rows of one case."""
    metric, better, plan, against = CASES[case]
    plan = dict(plan, homes=homes)
    names = [name for name in against if not chosen or name in chosen]
    ratios = {name: [] for name in names}
    for _ in range(rounds):
        ours = measure(plan, "ours", metric)
        for name in names:
            theirs = measure(dict(plan, **against[name][2]), name, metric)
            ratios[name].append(theirs / ours if better == "higher" else ours / theirs)
            say(f"  {case} {name}: {ours * 1e6:.2f} and {theirs * 1e6:.2f} (us or MB)")
    for name in names:
        must, aim, _ = against[name]
        ratio = statistics.median(ratios[name])
        ok = must is None or (ratio >= must if better == "higher" else ratio <= must)
        yield {"case": case, "against": name, "metric": metric, "better": better, "ratio": round(ratio, 4),
               "min": round(min(ratios[name]), 4), "max": round(max(ratios[name]), 4), "rounds": rounds,
               "must": must if must is None else round(must, 4), "aim": aim if aim is None else round(aim, 4), "ok": ok}


verbose = False


def say(text):
    """Progress, for a person who watches."""
    if verbose:
        print(text, file=sys.stderr, flush=True)


def line(row):
    """A row of the table."""
    def figure(value):
        return "-" if value is None else f"{value:.3f}" if value < 0.2 else f"{value:.2f}"
    reached = "aim" if row["aim"] is not None and (
        row["ratio"] >= row["aim"] if row["better"] == "higher" else row["ratio"] <= row["aim"]) else "yes" if row["ok"] else "NO"
    return (f"| {row['case']} | {row['against']} | {row['metric']} | {row['better']} | {figure(row['ratio'])} "
            f"| {figure(row['min'])} .. {figure(row['max'])} | {figure(row['must'])} | {figure(row['aim'])} "
            f"| {reached if row['must'] is not None else '-'} |")


def in_the_venv():
    """Make .venv-bench where it is missing, and go on in it."""
    python = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    if not (VENV / "ready").exists():
        with open(os.devnull, "w") as quiet:
            code = subprocess.run([sys.executable, str(ROOT / "tools" / "venv.py"), str(VENV), *PACKAGES], stdout=quiet).returncode
        if code:
            sys.exit(code)
    sys.exit(subprocess.run([str(python), "-m", "bench.wire", *sys.argv[1:]], cwd=ROOT).returncode)


def processor():
    """The CPU's name."""
    try:
        names = [text.partition(":")[2].strip() for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")]
        return f"{names[0]} x{len(names)}"
    except (OSError, IndexError):
        return platform.processor()


def main():
    """See the module."""
    global verbose
    parser = argparse.ArgumentParser(prog="python -m bench.wire", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"interleaved rounds of each case ({ROUNDS})")
    parser.add_argument("--against", action="append", help="this peer only (may be repeated)")
    parser.add_argument("--verbose", action="store_true", help="each measurement on stderr")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{' '.join(CASES)}; all unless named")
    options = parser.parse_args()
    unknown = [case for case in options.cases if case not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]}; there are {', '.join(CASES)}")
    verbose = options.verbose
    in_the_venv()
    rows = []
    with tempfile.TemporaryDirectory(prefix="p2pbench") as homes:
        if not options.json:
            print(f"Python {platform.python_version()}, {processor()}\n\n| case | against | metric | better | ratio | min .. max "
                  f"| must | aim | reached |\n|---|---|---|---|---|---|---|---|---|", flush=True)
        for case in options.cases or CASES:
            for row in run(case, options.rounds, homes, options.against):
                rows.append(row)
                if not options.json:
                    print(line(row), flush=True)
    if options.json:
        print(json.dumps({"python": platform.python_version(), "cpu": processor(), "cases": rows}, indent=1))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
