"""A process that works at tasks for one instance of an application: runs `main.py` up to the point where it does anything
but define tasks, and then does what it is told, one task after the other.

In such a process `p2p.attach()` gives a stand-in for the App. `@app.task` notes the function, `@app.on` and `@app.every` do nothing,
`args`, `dir` and `data` are there; whatever else is asked of it means that the program proper begins, and ends the run of `main.py`
there. So the author writes one file, and nothing is pickled: arguments and results are what a message's field of type Any holds.

It reads from its socket in a thread, which also sees that the instance has ended, however busy the task is.
"""

import json
import os
import queue
import socket
import struct
import sys
import threading
import traceback

from . import child, limits, system
from .fields import ANYTHING

HEAD = struct.Struct("<IQB")           # bytes that follow, number of the piece, kind
BEGIN, TASK, GOOD, BAD, ENDED = range(5)      # what it is told first; a task; its result; why there is none; it was its end


class Begins(BaseException):
    """The program proper begins here; this process has seen enough of it. Not an Exception: authors catch those."""


class Stand:
    """Stands in for the App."""

    def __init__(self, told):
        self.args, self.dir, self.data = told["args"], told["dir"], told["data"]
        self.tasks = {}

    def task(self, function=None, workers=None):
        """As App.task."""
        def register(function):
            self.tasks[function.__name__] = function
            return function
        return register(function) if function else register

    def on(self, kind):
        """Nothing comes here."""
        return lambda function: function

    every = on

    def __getattr__(self, name):
        raise Begins

    def __iter__(self):
        raise Begins


def main(word) -> int:
    """Serve the instance at the other end of the inherited socket that `word` names, until it ends."""
    system.ensure_standard_descriptors()
    try:
        sock = socket.socket(fileno=system.open_passed(word))
        sock.setblocking(True)
    except (OSError, ValueError, OverflowError):
        sys.stderr.write("p2pframe: this mode is for processes that an application's instance starts: say `run NAME` to a root\n")
        return 2
    frames: queue.Queue = queue.Queue()
    threading.Thread(target=_read, args=(sock, frames.put), daemon=True).start()
    _, _, body = frames.get()
    told = json.loads(body.decode("utf-8"))
    stand = child.stand = Stand(told)
    problem = _load(told)
    while True:
        number, _, body = frames.get()
        kind, value = _work(stand.tasks, body, problem)
        sys.stdout.flush()
        sock.sendall(HEAD.pack(len(value), number, kind) + value)


def _read(sock, put):
    try:
        with sock.makefile("rb") as stream:
            while True:
                head = stream.read(HEAD.size)
                if len(head) < HEAD.size:
                    return
                length, number, kind = HEAD.unpack(head)
                put((number, kind, stream.read(length)))
    except OSError:
        pass                      # killed before it had read our last result
    finally:
        os._exit(0)               # the instance has ended, and with it the reason for whatever is going on here


def _load(told):
    """Run main.py as far as it defines tasks; what went wrong, as text."""
    sys.path[:0] = [told["dir"], told["framework"]]
    path = os.path.join(told["dir"], "main.py")
    sys.argv = [path, *told["args"]]
    try:
        import runpy
        runpy.run_path(path, run_name="__main__")
    except Begins:
        return ""
    except (Exception, SystemExit):
        return f"main.py cannot be loaded in a worker: {traceback.format_exc(limit=-3).strip()}"
    return ""


def _work(tasks, body, problem):
    """(kind, bytes) of one task's result."""
    try:
        length = body[0]
        name, data = body[1:1 + length].decode("utf-8", "replace"), body[1 + length:]
        if name not in tasks:
            return BAD, (problem or f"there is no task {name}: define it before the program does anything else with app").encode()
        item, _ = ANYTHING.unpack(data, 0)
        value = tasks[name](*item) if isinstance(item, list) else tasks[name](item)
        packed = ANYTHING.pack(ANYTHING.normal(value))
        if len(packed) > limits.MAX_MESSAGE:
            raise ValueError(f"its result takes {len(packed)} bytes, at most {limits.MAX_MESSAGE} fit")
        return GOOD, packed
    except Exception:  # whatever a task raises is its result
        return BAD, traceback.format_exc(limit=-8).strip().encode("utf-8", "replace")[-8000:]
