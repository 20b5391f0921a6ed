"""What has happened and was not looked at yet: events of the network, and the lines that the user types.

An application has no thread, so whatever comes while its code is busy with something else waits here. It is bounded
by both ends: peers are not read any more once too many bytes wait (instance.py), the user's input is read only when the
program looks for events and few of them wait.

Standard input may be a terminal, which gives whole lines, a pipe or a file, which may end without one, /dev/null, or
closed. Each gives its lines and then one Eof. A file is always ready to be read, so it is read a piece at a time like
the others and keeps nobody waiting.
"""

import os
from collections import deque

from .message import Eof, Line

EVENT = 400               # bytes that an event takes besides its data
PIECE = 4096              # bytes of input read at once: what a terminal gives at most
MAX_LINE = 1 << 16        # bytes of a typed line; a longer one comes in parts
LINES_AHEAD = 1000        # events that may wait before more of the user's input is read


class Inbox:
    """Events in the order in which they happened, and how many bytes of memory they take."""

    def __init__(self):
        self.size = 0
        self._waiting = deque()

    def __len__(self):
        return len(self._waiting)

    def put(self, event, size=0):
        """One more; `size` bytes of data came with it."""
        self._waiting.append((event, size + EVENT))
        self.size += size + EVENT

    def find(self, kind, sender=None):
        """Where the first one of this class (of this sender) stands, or None."""
        for at, (event, _) in enumerate(self._waiting):
            if isinstance(event, kind) and (sender is None or getattr(event, "sender", None) is sender):
                return at
        return None

    def take(self, at=0):
        """Take out the one that stands there."""
        event, size = self._waiting[at]
        del self._waiting[at]
        self.size -= size
        return event


class Input:
    """A descriptor as Line events and one Eof, read only as fast as the program looks."""

    def __init__(self, loop, inbox, fd=0):
        self._loop = loop
        self._inbox = inbox
        self._fd = fd
        self._rest = b""
        self._is_watched = False
        self._has_ended = False

    def wanted(self):
        """The program looks for events: read on, unless enough wait already."""
        if self._has_ended or self._is_watched or len(self._inbox) >= LINES_AHEAD:
            return
        try:
            self._loop.watch(self._fd, on_readable=self._readable)
            self._is_watched = True
        except (OSError, ValueError):
            self._end()               # closed

    def _readable(self):
        try:
            data = os.read(self._fd, PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""                # a terminal that hung up, or a descriptor that cannot be read
        if not data:
            self._end()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._put(line)
        while len(self._rest) > MAX_LINE:
            part = _whole(self._rest[:MAX_LINE])
            self._rest = self._rest[len(part):]
            self._put(part)
        if len(self._inbox) >= LINES_AHEAD:
            self._pause()

    def _put(self, line):
        self._inbox.put(Line(line.rstrip(b"\r").decode("utf-8", "replace")), len(line))

    def _pause(self):
        if self._is_watched:
            self._is_watched = False
            self._loop.unwatch(self._fd)

    def _end(self):
        self._pause()
        self._has_ended = True
        if self._rest:
            self._put(self._rest)
        self._inbox.put(Eof())


def _whole(data):
    """Without a character of UTF-8 whose other half is still to come."""
    for back in range(1, 4):
        if data[-back] >= 0xC0:
            return data[:-back]
        if data[-back] < 0x80:
            break
    return data
