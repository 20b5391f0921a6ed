"""Output that never blocks the loop: bytes for a terminal, a pipe or a file, written as fast as these take them.

A descriptor that may be made non-blocking (a private one for the terminal) is written until it is full. A shared one
(stdout) may not, since O_NONBLOCK would change it for everybody who has it open; there the loop says that it is
writable, and then a pipe takes PIPE_BUF bytes at once without blocking (POSIX). Files always take everything.

What does not leave is kept up to a bound, and beyond it the whole piece is refused: the caller drops it and counts.
"""

import os
import select
import stat

from .. import system

PIECE = getattr(select, "PIPE_BUF", 512)      # bytes; POSIX guarantees 512
TERMINAL_PIECE = 256                          # bytes; a terminal that says it is writable takes at least that many


class Output:
    """A descriptor and what is on its way to it. `error`: why nothing more can be written, e.g. its reader is gone."""

    def __init__(self, loop, fd, bound, on_drained=None):
        self.error = None
        self._loop = loop
        self._fd = os.dup(fd)                 # the loop watches a descriptor for one of us only, and reading is another's
        self._bound = bound
        self._on_drained = on_drained
        self._waiting = bytearray()
        mode = os.fstat(fd).st_mode
        is_terminal = os.isatty(fd)
        self._always_takes = system.WINDOWS or not (is_terminal or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
        self._piece = None if self._always_takes or not os.get_blocking(fd) else TERMINAL_PIECE if is_terminal else PIECE

    @property
    def pending(self):
        """Bytes that have not left."""
        return len(self._waiting)

    def write(self, data: bytes) -> bool:
        """Send, now or later; False if there is no room for it or nobody to read it."""
        if self.error is not None or self._waiting and len(self._waiting) + len(data) > self._bound:
            return False
        is_idle = not self._waiting
        self._waiting += data
        if is_idle and self._waiting:
            if self._piece is None:
                self._send()
            self._watch()
        return self.error is None

    def _send(self):
        while self._waiting:
            try:
                del self._waiting[:os.write(self._fd, self._waiting[:self._piece])]
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:          # nobody reads, or the disk is full
                self.error = error
                self._waiting.clear()
            if self._piece is not None:
                return                        # what it takes without blocking is known for one piece only

    def _watch(self):
        if not self._always_takes:
            self._loop.watch(self._fd, on_writable=self._writable if self._waiting else None)

    def _writable(self):
        self._send()
        self._watch()
        if not self._waiting and self._on_drained:
            self._on_drained()

    def finish(self, seconds):
        """The end: wait for the reader, `seconds` or, with None, as long as it takes."""
        if not self._always_takes:
            self._loop.unwatch(self._fd)
        end = None if seconds is None else self._loop.now() + seconds
        while self._waiting and _wait_writable(self._fd, None if end is None else max(0.0, end - self._loop.now())):
            self._send()
        self._waiting.clear()
        os.close(self._fd)


def _wait_writable(fd, seconds):
    poll = select.poll()                      # not select.select, which fails for descriptors from 1,024 on
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
