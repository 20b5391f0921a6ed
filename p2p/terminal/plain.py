"""A console without a terminal: lines from a pipe, a file, /dev/null or a dumb terminal; plain text out.

Each line is handed over by itself, the last one without a line end too, and then the end of the input. While the
console is suspended, or its output is not read, nothing is read either: a script of a million lines takes no memory.
Files are always ready, which the loop cannot wait for, so they are read a piece a turn. Windows can wait for neither
pipes nor consoles, so there a thread reads, a piece at a time and only when asked.
"""

import os
import stat
from collections import deque

from .. import limits, system
from ..tasks import Event
from .output import Output

READ = 1 << 16               # bytes read at once
MAX_LINE = 1 << 16           # bytes of one line; the longest `say` is 4 KiB
TOO_LONG = f"a line of more than {MAX_LINE:,} bytes was left out: no command is that long"
PROMPT_AFTER = 0.05          # s without output until the prompt is written: what stands on a dumb terminal stays there
BOUND = 64 << 20             # bytes of output for a reader that is slower than one command; what comes then is lost
BOM = "\ufeff"               # some editors begin files with it


class Lines:
    """What both consoles have: lines, and the end of the input after them. While it is suspended both wait."""

    can_draw = True                      # over what stands on the screen

    def __init__(self, loop, on_line, on_eof):
        self.on_resize = None            # called with (rows, columns) when the terminal has another size
        self._loop = loop
        self._on_line = on_line
        self._on_eof = on_eof
        self._lines = deque()
        self._has_ended = False
        self._is_suspended = False
        self._is_closed = False
        self._drained = Event(loop)

    def _deliver(self):
        while self._lines and not self._is_suspended and not self._is_closed:
            line = self._lines.popleft()
            if line is None:
                self._left_out()
                continue
            self._show_line(line)
            self._on_line(line)
        if self._has_ended and not self._is_suspended and not self._is_closed:
            self._has_ended = False
            self._on_eof()

    def _left_out(self):
        """In place of a line that is too long."""

    def interrupted(self):
        """Ctrl-C came as a signal: the terminal has dropped the line that was being typed."""

    def _show_line(self, line):
        """Nothing to show where lines do not come from keys."""

    async def room(self):
        """Wait until the reader has caught up."""
        while not self._is_closed and self._pending() > limits.LOW_WATER:
            await self._drained.wait()

    def _pending(self):
        raise NotImplementedError


class PlainConsole(Lines):
    """See `console.Console` for what the methods promise. Ctrl-C is a signal here and not a key.

    `on_long()` is called in place of a line that is too long; without it, such a line is only mentioned.
    """

    can_draw = False

    def __init__(self, loop, fd_in, fd_out, prompt, on_line, on_eof, on_long=None):
        super().__init__(loop, on_line, on_eof)
        self._on_long = on_long
        self._fd = fd_in
        self._prompt = prompt if os.isatty(fd_in) and os.isatty(fd_out) else ""
        self._private = system.open_private_tty(fd_out)
        self._terminal = fd_out if os.isatty(fd_out) else None
        self._output = Output(loop, fd_out if self._private is None else self._private, BOUND, self._caught_up)
        self._buffer = bytearray()
        self._is_first = True
        self._is_skipping = False        # inside a line that is too long
        self._at_line_start = True       # of the output
        self._is_asking = False          # the prompt is the last that was written
        self._ask_timer = None
        self._input_ended = False
        self._is_scheduled = False
        self._lost = 0
        self._always_ready = not system.WINDOWS and _is_always_ready(fd_in)
        self._turns = None               # of the reading thread
        self._ask()
        self._read_on()

    def _left_out(self):
        if self._on_long is None:
            self.print(TOO_LONG)
        else:
            self._on_long()

    # -- out

    @property
    def rows(self):
        """Of the terminal; 0 without one."""
        return system.terminal_size(self._terminal)[0] if self._terminal is not None else 0

    @property
    def columns(self):
        """Of the terminal; 0 without one."""
        return system.terminal_size(self._terminal)[1] if self._terminal is not None else 0

    @property
    def prompt(self):
        """What asks for a line on a dumb terminal."""
        return self._prompt

    @prompt.setter
    def prompt(self, prompt):
        self._prompt = prompt if self._prompt else ""

    def print(self, text):
        """A line of its own, also in the middle of one that `write` has begun."""
        self.write(("" if self._at_line_start or self._is_asking else "\n") + text + "\n")

    def write(self, data):
        """Text or bytes as they are."""
        data = data.encode("utf-8", "replace") if isinstance(data, str) else data
        if not data:
            return
        if self._lost and not self._output.pending:
            self._output.write(b"... %d lines were lost: nobody read them\n" % self._lost)
            self._lost = 0
        if not self._output.write(b"\n" + data if self._is_asking else data):
            self._lost += data.count(b"\n")
        self._at_line_start, self._is_asking = data.endswith(b"\n"), False
        self._ask()

    def end_line(self):
        """What was written without a line end becomes a line."""
        if not self._at_line_start:
            self.write("\n")

    def interrupted(self):
        """Whoever typed sees that the line is gone."""
        if self._prompt and not self._is_suspended:
            self._at_line_start, self._is_asking = False, False
            self.write("\n")

    def _ask(self):
        if self._prompt and self._ask_timer is None:
            self._ask_timer = self._loop.call_later(PROMPT_AFTER, self._ask_now)

    def _ask_now(self):
        self._ask_timer = None
        if self._at_line_start and not (self._is_asking or self._is_suspended or self._input_ended or self._is_closed):
            self._output.write(self._prompt.encode("utf-8", "replace"))
            self._at_line_start, self._is_asking = False, True

    def _pending(self):
        return self._output.pending

    def _caught_up(self):
        self._drained.notify()
        self._read_on()

    # -- in

    def suspend(self):
        """Somebody else reads now, or nobody should."""
        self._is_suspended = True
        self._read_on()

    def resume(self):
        """Go on with the lines."""
        self._is_suspended = False
        self._deliver()
        self._ask()
        self._read_on()

    def _read_on(self):
        """Read if somebody wants it; each way of being told when it may be read."""
        is_wanted = not (self._is_suspended or self._is_closed or self._input_ended or self._lines or self._pending() > limits.LOW_WATER)
        if not (self._always_ready or system.WINDOWS):
            self._loop.watch(self._fd, on_readable=self._readable if is_wanted else None)
        elif is_wanted and not self._is_scheduled:
            self._is_scheduled = True
            self._start_reading()

    def _start_reading(self):
        if self._always_ready:
            self._loop.call_later(0, self._readable)
            return
        import threading
        if self._turns is None:
            self._turns = threading.Semaphore(0)
            threading.Thread(target=self._read_for_ever, args=(self._turns,), daemon=True).start()
        self._turns.release()

    def _read_for_ever(self, turns):
        data = b" "
        while data:
            turns.acquire()
            data = _read(self._fd) or b""
            self._loop.call_soon(self._arrived, data)
            self._loop.wake()

    def _readable(self):
        if not self._is_closed:
            data = _read(self._fd)
            if data == b"" and self._prompt and os.isatty(self._fd):
                self._on_eof()               # Ctrl-D: a terminal has more to say after it
            elif data is not None:
                self._arrived(data)

    def _arrived(self, data):
        self._is_scheduled = False
        if self._is_closed:
            return
        self._input_ended = self._has_ended = not data
        if data:
            self._at_line_start = self._at_line_start or self._is_asking       # the terminal echoed the Enter
            self._is_asking = False
        self._take(data)
        self._deliver()
        self._ask()
        self._read_on()

    def _take(self, data):
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._end_line(line)
        self._keep(rest)
        if not data and (self._buffer or self._is_skipping):
            self._end_line(b"")

    def _keep(self, part):
        if not self._is_skipping:
            self._buffer += part
        if len(self._buffer) > MAX_LINE:
            self._buffer.clear()
            self._is_skipping = True

    def _end_line(self, part):
        self._keep(part)
        if not self._is_skipping:
            line = self._buffer.decode("utf-8", "replace")
            line = line[1:] if self._is_first and line.startswith(BOM) else line
            self._lines.append(line[:-1] if line.endswith("\r") else line)
        else:
            self._lines.append(None)
        self._buffer.clear()
        self._is_first = self._is_skipping = False

    def close(self):
        """Wait until all output is read: whoever reads a pipe gets everything."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._ask_timer is not None:
            self._ask_timer.cancel()
        if not (self._always_ready or system.WINDOWS):
            self._loop.unwatch(self._fd)
        self._output.finish(None if self._private is None else 0.2)
        if self._private is not None:
            os.close(self._private)
        self._drained.notify()


def _is_always_ready(fd):
    """Is it a file or a device that no system call can wait for?"""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return True                      # closed: the read will say so, and that is the end of the input
    return not (os.isatty(fd) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def _read(fd):
    """What is there; b"" at the end, None if nothing is there yet."""
    try:
        return os.read(fd, READ)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""
