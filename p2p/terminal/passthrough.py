"""Handing a terminal to another one: keys go through as they are typed, and afterwards all is as it was.

Whatever ends us (a detach, the other end's death, a signal, an exception), the line settings are put back: by
`stop`, else at the interpreter's exit. A program that was left behind may have switched the screen to something
(the alternate buffer, mouse reports, a hidden cursor); what it switched on is noted on the way and undone.
"""

import atexit
import os
import re

from .. import system

READ = 1 << 16
_SWITCH = re.compile(rb"\x1b\[\?([0-9;]{1,40})([hl])")
_TAIL = 48                     # bytes kept of a sequence that may go on in the next piece
HIDDEN_CURSOR = 25             # the one mode that is on at first


class Modes:
    """Which private modes (DECSET) a stream of output has changed."""

    def __init__(self):
        self._changed = {}
        self._tail = b""

    def feed(self, data):
        """Look at a piece of output."""
        data = self._tail + data
        for numbers, way in _SWITCH.findall(data):
            for number in numbers.split(b";"):
                if number:
                    self._changed[int(number)] = way == b"h"
        begun = data.rfind(b"\x1b", max(0, len(data) - _TAIL))
        self._tail = data[begun:] if begun >= 0 and not _SWITCH.match(data[begun:]) else b""

    def undo(self):
        """The bytes that bring all of it back, attributes included."""
        parts = [b"\x1b[0m"]
        for number, is_on in self._changed.items():
            if is_on != (number == HIDDEN_CURSOR):
                parts.append(b"\x1b[?%d%s" % (number, b"l" if is_on else b"h"))
        return b"".join(parts)


class Passthrough:
    """Reads `fd` raw between `start` and `stop`; `on_keys(data)` gets what comes, b"" at its end."""

    def __init__(self, loop, fd, on_keys):
        self._loop = loop
        self._fd = fd
        self._on_keys = on_keys
        self._own = None
        self._saved = None
        self._guard = None
        self._is_on = False
        self.modes = Modes()

    def start(self):
        """Take the terminal (or pipe, or file)."""
        self._is_on = True
        if os.isatty(self._fd):
            self._own = system.open_private_tty(self._fd)
            self._guard = system.TerminalGuard(self._fd)
            self._saved = system.raw_mode(self._fd, is_transparent=True)
            atexit.register(self._restore)
        self._loop.watch(self._source(), on_readable=self._readable)

    def _source(self):
        return self._fd if self._own is None else self._own

    def _readable(self):
        try:
            data = os.read(self._source(), READ)
        except BlockingIOError:
            return
        except OSError:          # the terminal is gone
            data = b""
        if not data:
            self._loop.unwatch(self._source())
        self._on_keys(data)

    def stop(self):
        """Give it back as it was."""
        if self._is_on:
            self._is_on = False
            self._loop.unwatch(self._source())
            if self._own is not None:
                os.close(self._own)
                self._own = None
            self._restore()
            atexit.unregister(self._restore)

    def _restore(self):
        saved, self._saved = self._saved, None
        system.restore_mode(self._fd, saved)
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.release()
