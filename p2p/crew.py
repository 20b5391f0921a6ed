"""The processes that work at tasks for one instance: one for each core unless the program says otherwise.

They are started when the first piece comes and end with the instance. Each is a process of its own (worker.py), so that a task can
use a core whatever the program does meanwhile, and one that crashes ends nothing else. A worker has one piece at a time; the others
wait here, in the order in which they came. What tasks print appears where the program's own prints do.
"""

import json
import os
import socket
import sys
from collections import deque

from . import limits, system
from .errors import UserError
from .worker import BAD, BEGIN, ENDED, GOOD, HEAD, TASK

MAX_SLOTS = 1024          # processes on one node
AHEAD = 16                # pieces for each slot that one asker may have here; a map gives two, and several may go on
MAX_WAITING = 128 << 20   # bytes of items that may wait here, and one more


def cores():
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Crew:
    """`on_done(asker, number, kind, value)` for each piece, in the order in which they end."""

    def __init__(self, loop, told, entry, on_done):
        self.slots = 0
        self._loop = loop
        self._told = told
        self._entry = entry
        self._on_done = on_done
        self._waiting = deque()        # (asker, number, name, item)
        self._bytes = 0                # of the items that wait
        self._workers = []

    def start(self, slots):
        """Work at so many at once. Where processes cannot be started that way, at none."""
        self.slots = 0 if system.WINDOWS else min(max(1, slots), MAX_SLOTS)

    def work(self, asker, number, name, item):
        """One more piece; twice the same is one."""
        if any(one[:2] == (asker, number) for one in self._waiting) or any(worker.piece == (asker, number) for worker in self._workers):
            return
        self._waiting.append((asker, number, name, item))
        self._bytes += len(item)
        self._hand_out()

    def has_room(self, asker):
        """May somebody else send a piece? He was told how many are worked at at once."""
        return sum(1 for one in self._waiting if one[0] == asker) < AHEAD * self.slots and self._bytes < MAX_WAITING

    def drop(self, asker):
        """It is gone and wants nothing any more."""
        self._waiting = deque(one for one in self._waiting if one[0] != asker)
        self._bytes = sum(len(one[3]) for one in self._waiting)

    def _hand_out(self):
        for worker in self._workers:
            if self._waiting and worker.piece is None:
                worker.work(*self._next())
        while self._waiting and len(self._workers) < self.slots:
            try:
                worker = _Worker(self)
            except (OSError, UserError) as error:
                if not self._workers:              # nobody is left who could say so later
                    self._fail(f"no worker can be started: {error}")
                return
            self._workers.append(worker)
            worker.work(*self._next())

    def _next(self):
        piece = self._waiting.popleft()
        self._bytes -= len(piece[3])
        return piece

    def _fail(self, why):
        while self._waiting:
            asker, number, _, _ = self._next()
            self._on_done(asker, number, BAD, why.encode())

    def finished(self, worker, kind, value):
        """A worker has a result, or has ended at it."""
        (asker, number), worker.piece = worker.piece, None
        self._on_done(asker, number, kind, value)
        self._hand_out()

    def ended(self, worker):
        """Its process is gone."""
        self._workers.remove(worker)
        if worker.piece is not None:
            self.finished(worker, ENDED, b"")
        else:
            self._hand_out()

    def close(self):
        """End them all."""
        self._waiting.clear()
        self._bytes = 0
        for worker in self._workers:
            worker.close()
        self._workers = []


class _Worker:
    """One process and the socket to it."""

    def __init__(self, crew):
        self.piece = None              # (asker, number) of what it works at
        self._crew = crew
        self._loop = crew._loop
        self._sock, far = socket.socketpair()
        self._in, self._out = bytearray(), bytearray()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            self._process = self._loop.spawn(
                [sys.executable, "-I", "-B", crew._entry, "--worker", system.descriptor_word(far.fileno())], cwd=crew._told["data"],
                env=dict(os.environ), terminal=None, stdin=null, pass_fds=(far.fileno(),), on_output=_print, on_exit=self._exited)
        except BaseException:
            self._sock.close()
            raise
        finally:
            os.close(null)
            far.close()
        self._sock.setblocking(False)
        self._send(0, BEGIN, json.dumps(crew._told).encode("utf-8"))

    def work(self, asker, number, name, item):
        """Give it a piece; it has none."""
        self.piece = asker, number
        word = name.encode("utf-8")[:200]
        self._send(number, TASK, bytes([len(word)]) + word + item)

    def _send(self, number, kind, body):
        self._out += HEAD.pack(len(body), number, kind) + body
        self._flush()

    def _flush(self):
        try:
            while self._out:
                del self._out[:self._sock.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()          # it has ended; its exit says so
        self._loop.watch(self._sock.fileno(), self._readable, self._flush if self._out else None)

    def _readable(self):
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.unwatch(self._sock.fileno())
            return
        self._in += data
        while len(self._in) >= HEAD.size:
            length, number, kind = HEAD.unpack_from(self._in)
            if length > limits.MAX_MESSAGE or kind not in (GOOD, BAD) or self.piece is None or number != self.piece[1]:
                self._process.signal(9)            # the author's code has written to a descriptor that is not its own
                self._loop.unwatch(self._sock.fileno())
                return
            if len(self._in) < HEAD.size + length:
                return
            value = bytes(self._in[HEAD.size:HEAD.size + length])
            del self._in[:HEAD.size + length]
            self._crew.finished(self, kind, value)

    def _exited(self, code):
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._crew.ended(self)

    def close(self):
        """Kill it."""
        self._loop.unwatch(self._sock.fileno())
        self._process.close()
        self._sock.close()


def _print(data):
    try:
        sys.stdout.flush()
        os.write(1, data)
    except (OSError, ValueError):
        pass                  # nobody reads it any more

