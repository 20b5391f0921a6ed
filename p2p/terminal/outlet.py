"""Writing to a standard descriptor without ever waiting for whoever reads it.

Descriptors 1 and 2 belong to whoever started us: O_NONBLOCK set there would change their shell's terminal, too.
So a terminal is opened a second time by its name, not blocking; a pipe is asked first whether it has room and
then given at most PIPE_BUF bytes, which POSIX promises to take at once; a file never makes anybody wait.

What cannot be written yet is queued, and whoever produces much waits for `room`. A reader that has gone away is
told once to `on_broken`; what is written after that falls into nothing.
"""

import os
import select
import stat

from .. import system
from ..tasks import Event

PIPE_CHUNK = getattr(select, "PIPE_BUF", 512)
CHUNK = 1 << 16            # bytes in one write where writing cannot wait
MAX_AHEAD = 1 << 20        # bytes queued before a producer waits


class Outlet:
    """`on_broken(error)` hears of a reader that is gone or a disk that is full, once."""

    def __init__(self, loop, fd, on_broken=None):
        self._loop = loop
        self._own = system.open_private_tty(fd) if os.isatty(fd) else None
        self._fd = fd if self._own is None else self._own
        self._on_broken = on_broken
        self._asks = self._own is None and not system.WINDOWS and not _is_file(fd)
        self._chunk = PIPE_CHUNK if self._asks else CHUNK
        self._queue = []
        self._size = 0
        self._moved = Event(loop)
        self.error = None

    def write(self, data):
        """Queue bytes and write what goes at once."""
        if self.error is None and data:
            self._queue.append(memoryview(data))
            self._size += len(data)
            if self._size == len(data):
                self._pump()

    @property
    def has_room(self):
        """Should the producer go on?"""
        return self._size < MAX_AHEAD

    async def room(self):
        """Until less than MAX_AHEAD is queued."""
        while not self.has_room:
            await self._moved.wait()

    async def drained(self):
        """Until everything is written, or cannot be."""
        while self._size:
            await self._moved.wait()

    def _pump(self):
        while self._queue:
            if self._asks and not select.select((), (self._fd,), (), 0)[1]:
                self._loop.watch(self._fd, on_writable=self._writable)
                return
            try:
                taken = os.write(self._fd, self._queue[0][:self._chunk])
            except BlockingIOError:
                self._loop.watch(self._fd, on_writable=self._writable)
                return
            except OSError as error:
                self._break(error)
                return
            self._size -= taken
            self._queue[0] = self._queue[0][taken:]
            if not self._queue[0]:
                del self._queue[0]

    def _writable(self):
        self._loop.unwatch(self._fd)
        self._pump()
        self._moved.notify()

    def _break(self, error):
        self.error = error
        self._queue.clear()
        self._size = 0
        self._moved.notify()
        if self._on_broken:
            self._on_broken(error)

    def close(self):
        """Give back what was opened; what is still queued is lost."""
        self._loop.unwatch(self._fd)
        if self._own is not None:
            os.close(self._own)
            self._own = None


def _is_file(fd):
    return stat.S_ISREG(os.fstat(fd).st_mode)


def same_place(one, other):
    """Do two descriptors lead to the same terminal, pipe or file?"""
    first, second = os.fstat(one), os.fstat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
