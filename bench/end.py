"""One end of one measurement: `python -m bench.end '{"shape": ..., "impl": ..., "role": "server" | "client", ...}'`.

A server prints its port; each end prints one JSON line with what it measured, and exits. Each end is a process
of its own, so what one implementation leaves behind is not the next one's burden. The clock starts after imports,
connections and a warm-up, and CPU time is that of the whole process, threads included.
"""
import gc
import importlib
import json
import os
import struct
import sys
import time
from types import SimpleNamespace

HEADER = struct.Struct("<QII")        # the product's header for everybody: first word, request id, body length
NUMBER = 0x42                         # DATA
WORD = 0x3270 | 1 << 16 | NUMBER << 32
RESPONSE = WORD | 1 << 24
MODULES = {"ours": "ours", "raw": "raw", "sslsocket": "raw", "pyzmq": "zeromq"}     # all others: asyncio


class Meter:
    """CPU, wall and memory from start to stop."""

    def __init__(self):
        self.result = {}

    def start(self):
        """Begin now."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self):
        """End now; the first end counts."""
        if not self.result:
            self.result = {"cpu": time.process_time() - self._cpu, "wall": time.perf_counter() - self._wall}

    def memory(self):
        """Resident bytes of this process."""
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def tell(port):
    """The server listens."""
    print(port, flush=True)


def credentials(plan):
    """The product's TLS contexts and identity, for everybody."""
    from p2p.disk import Disk
    from p2p.trust.identity import Identity
    from p2p.trust.networks import Networks
    home = os.path.join(plan.homes, plan.role)
    return Networks(home, Identity.load_or_create(Disk(), home, os.urandom), Disk(), os.urandom)


def main():
    """See the module."""
    plan = SimpleNamespace(**json.loads(sys.argv[1]))
    if plan.core is not None:
        os.sched_setaffinity(0, [plan.core])
    try:
        import resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ImportError, ValueError, OSError):
        pass
    meter = Meter()
    if plan.without:
        from .tricks import take_out
        take_out(plan.without)
    module = importlib.import_module("bench." + MODULES.get(plan.impl, "aio"))
    getattr(module, f"{plan.role}_{plan.shape}")(plan, meter)
    print(json.dumps(meter.result), flush=True)


if __name__ == "__main__":
    main()
