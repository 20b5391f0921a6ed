"""Application processes on this node: each on a terminal of its own, its output kept, its end told.

The child learns what it needs (roster, token, port, names) from a pipe that it inherits; nothing of it stands in its
arguments or its environment, where every user of this computer could read it. What it prints is kept in memory up
to a bound, so an application that prints for ever costs a bound and not a disk; its terminal is always read, so it
never stops because nobody looks.

A root that is killed takes its jobs along: the kernel hangs their terminals up.
"""

import json
import os
import signal
import sys
from collections import OrderedDict

from . import limits, system
from .errors import UserError

STARTING, RUNNING, EXITED = "starting", "running", "exited"
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "COMSPEC",
        "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "NO_COLOR", "COLORTERM")
ROWS, COLUMNS = 24, 80          # of a terminal that nobody has looked at yet
UP_AFTER = 3.0                  # s after which a program counts as running though it never attached: many never will


def how_it_ended(code) -> str:
    """An exit code in words: "exited with 3", "was killed by signal 9 (SIGKILL)"."""
    if not -64 < code < 0:
        return f"exited with {code}"
    try:
        name = f" ({signal.Signals(-code).name})"
    except ValueError:
        name = ""
    return f"was killed by signal {-code}{name}"


class Job:
    """One application process. `watchers` are callables(bytes) of what it prints; `unseen` counts bytes nobody watched."""

    def __init__(self, number, session, started_wall, report):
        self.number = number
        self.session = session
        self.state = STARTING
        self.exit = None
        self.port = 0
        self.pid = None
        self.has_attached = False    # was it ever connected with its root?
        self.unseen = 0
        self.dropped = 0
        self.started_wall = started_wall
        self.ended_wall = 0.0
        self.watchers = []
        self.on_end = []             # callables(): it has ended, after its last output
        self.process = None
        self._output = bytearray()
        self._report = report

    def printed(self, data):
        """More of its output."""
        self._output += data
        excess = len(self._output) - limits.JOB_OUTPUT
        if excess > 0:
            del self._output[:excess]
            self.dropped += excess
        if not self.watchers:
            self.unseen += len(data)
        for watcher in list(self.watchers):
            self._call(watcher, data)

    def ended(self):
        """Tell those who wait for it."""
        for callback in list(self.on_end):
            self._call(callback)

    def _call(self, callback, *data):
        try:
            callback(*data)
        except Exception as error:  # who looks on must not keep the program from being read, or its end from being told
            self._report("a watcher of a job failed", error)

    def output(self) -> bytes:
        """What is kept of what it printed."""
        return bytes(self._output)

    def replay(self) -> bytes:
        """The end of it, for a terminal that attaches."""
        return bytes(self._output[-limits.JOB_REPLAY:])

    def write(self, data) -> int:
        """Type at it; how many bytes were taken."""
        return self.process.write(data) if self.state != EXITED else 0

    def resize(self, rows, columns):
        """Its terminal has another size."""
        if self.state != EXITED:
            self.process.resize(rows, columns)


class Jobs:
    """All jobs. `on_end(job)` is told of each end."""

    def __init__(self, loop, entry, on_end):
        self._loop = loop
        self._entry = entry
        self._on_end = on_end
        self._jobs = OrderedDict()
        self._next = 1
        self._is_stopping = False

    def __iter__(self):
        return iter(list(self._jobs.values()))

    def get(self, number):
        """The job, or None."""
        return self._jobs.get(number)

    def start(self, session, bootstrap, folder) -> Job:
        """Run an application in `folder`, its data folder. `bootstrap` is what it is told. Raises UserError."""
        if self._is_stopping:
            raise UserError("this node is stopping: start it again first", code="stopping")
        self._make_room()
        job = Job(self._next, session, self._loop.wall(), self._loop.report)
        job.process = self._loop.spawn(
            [sys.executable, "-I", "-B", self._entry, "--instance"], cwd=folder, env=environment(os.environ), terminal=(ROWS, COLUMNS),
            told=json.dumps(bootstrap).encode("utf-8"), on_output=job.printed, on_exit=lambda code: self._ended(job, code))
        self._next += 1
        self._jobs[job.number] = job
        job.pid = job.process.pid
        self._loop.call_later(UP_AFTER, self._is_up, job)
        return job

    def _is_up(self, job):
        if job.state == STARTING:
            job.state = RUNNING

    def _make_room(self):
        ended = [number for number, job in self._jobs.items() if job.state == EXITED]
        if len(self._jobs) - len(ended) >= limits.MAX_JOBS:
            raise UserError(f"{limits.MAX_JOBS} jobs run here already: end one with `kill N`", code="too-many")
        for number in ended[:max(0, len(ended) - limits.JOBS_KEPT + 1)]:
            del self._jobs[number]

    def _ended(self, job, code):
        signed = code if code < 1 << 31 else code - (1 << 32)        # Windows' are unsigned
        job.state, job.exit, job.ended_wall = EXITED, signed, self._loop.wall()
        job.process.close()
        job.ended()
        self._on_end(job)

    def kill(self, job, grace=None):
        """Ask it to end as a closed terminal would, and after a while do not ask."""
        if job.state == EXITED:
            return
        for number in [signal.SIGTERM] if system.WINDOWS else [signal.SIGHUP, signal.SIGTERM, signal.SIGCONT]:
            job.process.signal(number)
        self._loop.call_later(limits.KILL_AFTER if grace is None else grace, self.finish_off, job)

    def finish_off(self, job):
        """Do not ask."""
        if job.state != EXITED:
            job.process.signal(signal.SIGTERM if system.WINDOWS else signal.SIGKILL)

    async def stop(self):
        """End them all, and wait until they have; an invitation that comes meanwhile starts nothing."""
        self._is_stopping = True
        running = [job for job in self if job.state != EXITED]
        for job in running:
            self.kill(job)
        deadline = self._loop.now() + limits.KILL_AFTER + 1
        while any(job.state != EXITED for job in running) and self._loop.now() < deadline:
            await self._loop.sleep(0.02)


def environment(own) -> dict:
    """What a child finds in its environment: what programs need, nothing that may be a secret."""
    kept = {name: value for name, value in own.items() if name.upper() in KEPT or name.startswith("LC_")}
    kept["TERM"] = own.get("TERM") if own.get("TERM") not in (None, "", "dumb") else "xterm-256color"
    return kept
