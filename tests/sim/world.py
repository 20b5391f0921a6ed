"""One world: one clock, one heap of events for all computers in it, one seed, one trace.

Nothing here reads the computer's clock, its entropy or the order of a set, so a seed gives the same run on every
computer. Chance is drawn from streams of their own (network, faults, each host), lest one more draw in one place
changes everything everywhere. The trace is a running checksum over all that arrives anywhere, and the last events in
words for whoever has to find out what happened.
"""

import random
import traceback
import zlib
from collections import deque

from p2p.timers import Timers

BIRTH = 1_700_000_000.0      # Unix time at which every simulation begins
START = 1000.0               # the monotonic clock then
RECENT = 300                 # events kept in words


class Broken(Exception):
    """An invariant does not hold. `str()` says which and where."""


class Killed(BaseException):
    """The process in which this is raised is dead from here on (a crash in the middle of what it did)."""


class World:
    """See the module. `out(line)` prints."""

    def __init__(self, seed, out=print, trace=None):
        self.seed = seed
        self.out = out
        self.now = START
        self.timers = Timers()
        self.hosts = []
        self.events = 0
        self.digest = 0
        self.identities = {}         # node ID -> the Host that has it, or had it last
        self.verified = {}           # (what was signed, signature) -> is it right?
        self.on_start = []           # callables(host): its root has started
        self.failures = []           # handlers and tasks that failed by a bug
        self.exits = {}              # (session, host) -> the exit code of the program that really ran there
        self._trace = trace
        self._recent = deque(maxlen=RECENT)

    def chance(self, name):
        """A stream of chance of its own."""
        return random.Random(f"{self.seed}/{name}")      # seeding with text does not depend on the hash seed

    @property
    def clock(self):
        """Seconds since the beginning."""
        return self.now - START

    def add(self, delay, call, *args):
        """Something happens in `delay` seconds."""
        return self.timers.add(self.now + delay, call, args)

    def run(self, seconds):
        """Let this much time pass."""
        until = self.now + seconds
        take = self.timers.take
        first = self.timers.first
        while True:
            when = first()
            if when is None or when > until:
                break
            self.now = when
            call, args = take(when)
            call(*args)
            self.events += 1
            if self.failures:
                raise Broken(self.failures[0])
        self.now = until

    # -- the trace

    def saw(self, kind, where, whence, data):
        """Something arrived: into the checksum, and into the last events."""
        self.digest = zlib.crc32(data, self.digest ^ zlib.crc32(f"{self.now!r}{kind}{where}{whence}".encode()))
        self._recent.append((self.now, kind, where, whence, len(data)))
        if self._trace:
            self._trace(f"{self.clock:.6f} {kind} {whence} -> {where} {len(data)} {self.digest:08x}")

    def tell(self, text):
        """A line for people: a fault, a summary."""
        self.digest = zlib.crc32(text.encode(), self.digest)
        self._recent.append((self.now, "", text, "", 0))
        line = f"{self.clock:9.3f}  {text}"
        if self._trace:
            self._trace(line)
        self.out(line)

    def note(self, text):
        """As `tell`, but it is only printed if something breaks."""
        self.digest = zlib.crc32(text.encode("utf-8", "replace"), self.digest)
        self._recent.append((self.now, "", text, "", 0))
        if self._trace:
            self._trace(f"{self.clock:9.3f}  {text}")

    def failed(self, where, what, error):
        """A handler or a task failed by a bug: the run is broken."""
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self.failures.append(f"{where}: {what}\n{''.join(lines)}")

    def last_events(self):
        """The last events, in words."""
        for when, kind, where, whence, size in self._recent:
            about = f"{kind} {whence} -> {where} {size} bytes" if kind else where
            yield f"{when - START:9.3f}  {about}"
