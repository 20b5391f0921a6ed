"""The caller whose commands print on this process's own stdout and stderr: one-shot verbs and scripts.

The keys are read only while a command wants them (attach), so a script's further lines are never swallowed.

Ctrl-] is the root's business, like any key. Should the root hang, nothing would come back and Ctrl-C would be a key
as well; so after Ctrl-] this side waits a moment and then leaves by itself.
"""

import os

from .. import proto, system
from ..owner import Caller
from .outlet import Outlet, same_place
from .passthrough import Passthrough

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


class Stdio:
    """Stdout and stderr, shared by all commands of this process. `on_broken` hears when nobody reads stdout any more."""

    def __init__(self, loop):
        self.loop = loop
        self.on_broken = None
        self.out = Outlet(loop, 1, self._broken)
        self.err = self.out if same_place(1, 2) else Outlet(loop, 2)

    def _broken(self, error):
        if self.on_broken:
            self.on_broken(error)

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
        self._keys_from = None
        self._leaving = None

    def write(self, stream, data):
        """To stdout or stderr."""
        (self._stdio.out if stream == proto.STDOUT else self._stdio.err).write(data)
        if self._keys_from is not None:
            self._keys_from.modes.feed(data)

    @property
    def has_room(self):
        """Should the producer go on?"""
        return self._stdio.out.has_room

    async def room(self):
        """Until stdout has taken enough."""
        await self._stdio.out.room()

    def raw(self, wanted):
        """Begin or end to read keys from stdin."""
        if wanted == (self._keys_from is not None):
            return
        if wanted:
            self._keys_from = Passthrough(self.loop, 0, self._key)
            self._keys_from.start()
            return
        passthrough, self._keys_from = self._keys_from, None
        if os.isatty(1):
            self._stdio.out.write(passthrough.modes.undo())
        passthrough.stop()
        if self._leaving is not None:
            self._leaving.cancel()

    def _key(self, data):
        self.typed(data)
        if LEAVE_KEY in data and self._leaving is None and os.isatty(0):
            self._leaving = self.loop.call_later(LEAVE_AFTER, self.interrupt)
