"""The caller whose commands print on this process's own stdout and stderr: one-shot verbs and scripts.

The keys are read only while a command wants them (attach), so a script's further lines are never swallowed.

Ctrl-] is the root's business, like any key. Should the root hang, nothing would come back and Ctrl-C would be a key
as well; so after Ctrl-] this side waits a moment and then leaves by itself.
"""

import os

from .. import proto, system
from ..owner import Caller
from ..tasks import Event
from .output import Output
from .passthrough import Passthrough

MAX_AHEAD = 1 << 20        # bytes that wait for the reader before a command does
MAX_WAITING = 1 << 40      # nothing of a command's answer is ever dropped
LEAVE_KEY = b"\x1d"        # Ctrl-]
LEAVE_AFTER = 2.0          # s after which it works by itself, should the root not answer any more


def wants_color(when, env, is_terminal):
    """--color, then NO_COLOR, FORCE_COLOR, and whether the terminal can."""
    if when in ("always", "never"):
        return when == "always"
    if env.get("NO_COLOR"):
        return False
    if env.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return is_terminal and env.get("TERM", "xterm" if system.WINDOWS else "dumb") != "dumb"


def current_folder():
    """Where relative paths begin; "" where that folder was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


class Outlet:
    """A standard descriptor, and waiting for whoever reads it. A terminal is opened a second time, not blocking."""

    def __init__(self, loop, fd):
        self._own = system.open_private_tty(fd) if os.isatty(fd) else None
        self._moved = Event(loop)
        self._output = Output(loop, fd if self._own is None else self._own, MAX_WAITING, self._moved.notify)

    @property
    def error(self):
        """Why nothing more can be written, or None."""
        return self._output.error

    def write(self, data):
        """Now or later; False if nobody reads it."""
        return self._output.write(data)

    @property
    def has_room(self):
        """Should the producer go on?"""
        return self._output.pending < MAX_AHEAD

    async def room(self):
        """Until the reader has caught up, where it was far behind."""
        while not self.has_room:
            await self._moved.wait()

    async def drained(self):
        """Until everything is written, or cannot be."""
        while self._output.pending:
            await self._moved.wait()

    def close(self):
        """Give back what was opened; what still waits is lost."""
        self._output.finish(0)
        if self._own is not None:
            os.close(self._own)


def same_place(one, other):
    """Do two descriptors lead to the same terminal, pipe or file?"""
    first, second = os.fstat(one), os.fstat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


class Stdio:
    """Stdout and stderr, shared by all commands of this process."""

    def __init__(self, loop):
        self.loop = loop
        self.out = Outlet(loop, 1)
        self.err = self.out if same_place(1, 2) else Outlet(loop, 2)

    async def drained(self):
        """Until all is written."""
        await self.out.drained()
        await self.err.drained()

    def close(self):
        """Give back what was opened."""
        self.out.close()
        if self.err is not self.out:
            self.err.close()


class StdioCaller(Caller):
    """One command. `color`: --color's word."""

    def __init__(self, stdio, color="auto", as_json=False, yes=False):
        shows = os.isatty(1)
        rows, columns = system.terminal_size(1) if shows else (0, 0)
        can_draw = os.isatty(2) and os.environ.get("TERM", "") != "dumb"
        super().__init__(stdio.loop, as_json, yes, rows, columns, wants_color(color, os.environ, shows), can_draw, current_folder())
        self._stdio = stdio
        self._passthrough = None
        self._leaving = None

    def write(self, stream, data):
        """To stdout or stderr. A command whose stdout nobody reads any more is given up."""
        is_read = (self._stdio.out if stream == proto.STDOUT else self._stdio.err).write(data)
        if not is_read and stream == proto.STDOUT:
            self.interrupt()
        if self._passthrough is not None:
            self._passthrough.modes.feed(data)

    @property
    def has_room(self):
        """Should the producer go on?"""
        return self._stdio.out.has_room

    async def room(self):
        """Until stdout has taken enough."""
        await self._stdio.out.room()

    def raw(self, wanted):
        """Begin or end to read keys from stdin."""
        if wanted and self._passthrough is None:
            self._passthrough = Passthrough(self.loop, 0, self._key)
            self._passthrough.start()
        elif not wanted and self._passthrough is not None:
            passthrough, self._passthrough = self._passthrough, None
            if os.isatty(1):
                self._stdio.out.write(passthrough.modes.undo())
            passthrough.stop()
            if self._leaving is not None:
                self._leaving.cancel()

    def _key(self, data):
        self.typed(data)
        if LEAVE_KEY in data and self._leaving is None and os.isatty(0):
            self._leaving = self.loop.call_later(LEAVE_AFTER, self.interrupt)
