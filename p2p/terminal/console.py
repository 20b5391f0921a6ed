"""The console: the line that is being typed stays the last one of the screen, whatever is printed meanwhile.

The terminal is opened a second time, non-blocking (`system.open_private_tty`). All that happens in one turn of the
loop becomes one frame at its end: erase prompt and line, print what came, draw prompt and line again, in a single
write. While the terminal has not taken the last frame nothing new is sent; what is printed gathers up to a bound,
and beyond it lines are counted instead of kept. So a terminal that has stopped reading (Ctrl-S, a dead ssh) costs
some memory and never a wait.

`suspend` gives the terminal to somebody else (an attached job) as it was before; what is printed meanwhile appears
after `resume`. `close` restores it, and should nobody call that, the interpreter's end does.

SIGWINCH and SIGCONT belong to the console; SIGINT does not, since here Ctrl-C is a key.
"""

import atexit
import os
import re
import signal
from collections import namedtuple

from .. import limits, system
from ..text import clean, pad, width
from . import editor as editing
from .editor import Editor, layout
from .output import Output
from .plain import Lines, PlainConsole

READ = 4096                  # bytes; what Linux gives of a terminal at once
MAX_CANDIDATES = 100         # words shown for a TAB
MAX_PARTIAL = 1 << 16        # bytes of a line that is not complete yet; a longer one is broken there
MAX_STATUS = 4096            # bytes of it that are looked at to show its beginning
CLOSE_WAIT = 0.2             # s that a terminal has for the last frame

PASTE_ON, PASTE_OFF, CLEAR = "\x1b[?2004h", "\x1b[?2004l", "\x1b[H\x1b[2J"
SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\].*?(?:\x07|\x1b\\)|[^\[\]])")

Drawn = namedtuple("Drawn", "rows columns status whole cursor row")
Drawn.__doc__ = "What stands on the screen: prompt and line (`whole`), below `status`; `row`: the cursor's, from the first of them."


def open_console(loop, fd_in, fd_out, prompt, on_line, on_eof, on_interrupt, complete=None, env=os.environ):
    """A Console where there is a terminal that can be one, else a PlainConsole; both have the same methods."""
    if _is_one_terminal(fd_in, fd_out) and env.get("TERM", "dumb") not in ("", "dumb", "unknown"):
        private = system.open_private_tty(fd_in)
        if private is not None:
            return Console(loop, private, prompt, on_line, on_eof, on_interrupt, complete)
    return PlainConsole(loop, fd_in, fd_out, prompt, on_line, on_eof)


def _is_one_terminal(fd_in, fd_out):
    try:
        return os.isatty(fd_in) and os.isatty(fd_out) and os.fstat(fd_in).st_rdev == os.fstat(fd_out).st_rdev
    except OSError:
        return False


class Console(Lines):
    """A prompt on a terminal; `fd` is a descriptor of its own, which `close` closes.

    `on_line(text)`, `on_eof()` (Ctrl-D on an empty line, or the terminal is gone), `on_interrupt()` (Ctrl-C); see Editor
    for `complete`.
    """

    def __init__(self, loop, fd, prompt, on_line, on_eof, on_interrupt, complete=None):
        super().__init__(loop, on_line, on_eof)
        self._fd = fd
        self._on_interrupt = on_interrupt
        self._editor = Editor(prompt, complete)
        self._output = Output(loop, fd, limits.MAX_BUFFERED, self._caught_up)
        self._above = bytearray()        # to be printed above prompt and line
        self._partial = b""              # written without a line end: shown above the prompt, not yet printed
        self._lost = 0
        self._drawn = None
        self._is_due = False
        self._extra = PASTE_ON           # goes before the next frame: a bell, an empty screen
        self._guard = system.TerminalGuard(fd)
        self._saved = system.raw_mode(fd)
        atexit.register(system.restore_mode, fd, self._saved)
        loop.watch(fd, on_readable=self._readable)
        loop.on_signal(signal.SIGWINCH, self._resized)
        loop.on_signal(signal.SIGCONT, self._continued)
        self._draw_soon()

    # -- out

    @property
    def rows(self):
        """Of the terminal."""
        return system.terminal_size(self._fd)[0]

    @property
    def columns(self):
        """Of the terminal."""
        return system.terminal_size(self._fd)[1]

    @property
    def prompt(self):
        """What stands before the line."""
        return self._editor.prompt

    @prompt.setter
    def prompt(self, prompt):
        self._editor.prompt = prompt
        self._draw_soon()

    def print(self, text):
        """Lines above the half-typed one. Foreign text has been cleaned before it comes here."""
        self._put((text + "\n").encode("utf-8", "replace"))

    def write(self, data):
        """Text or bytes: whole lines are printed, the beginning of one is shown and may be taken back by "\\r" (progress)."""
        data = data.encode("utf-8", "replace") if isinstance(data, str) else bytes(data)
        whole, line_end, rest = (self._partial + data).rpartition(b"\n")
        if line_end:
            self._put(whole + line_end)
        self._partial = rest[rest.rfind(b"\r", 0, -1) + 1:]         # a "\r" at the end may be half of a line end
        if len(self._partial) > MAX_PARTIAL:
            self.end_line()
        self._draw_soon()

    def end_line(self):
        """What was written without a line end becomes a line."""
        if self._status(limits.MAX_NAME):
            self._put(self._partial + b"\n")
        self._partial = b""
        self._draw_soon()

    def _put(self, data):
        if len(self._above) + len(data) > limits.MAX_BUFFERED:
            self._lost += data.count(b"\n")
        else:
            self._above += data
        self._draw_soon()

    def _pending(self):
        return len(self._above) + self._output.pending

    def _caught_up(self):
        self._draw()
        self._drained.notify()

    # -- frames

    def _draw_soon(self):
        if not self._is_due:
            self._is_due = True
            self._loop.at_turn_end(self._draw)

    def _draw(self):
        self._is_due = False
        if self._is_closed or self._is_suspended or self._output.pending:
            return
        rows, columns = system.terminal_size(self._fd)
        line, status = self._editor, self._status(columns - 1)
        now = Drawn(rows, columns, status, line.prompt + line.text, len(line.prompt) + line.cursor, 0)
        above = self._take_above()
        suffix = None if above or self._extra else _suffix(self._drawn, now)
        if suffix is None:
            drawn, row = line.render(columns, max(1, rows - bool(status)))
            frame = self._erased(columns) + above + (status + "\r\n" if status else "") + drawn
            now = now._replace(row=row + bool(status))
        else:
            frame, now = suffix, now._replace(row=self._drawn.row)
        self._drawn = now
        self._output.write(frame.encode("utf-8", "replace"))

    def _erased(self, columns):
        """What leads back to an empty row in the place of prompt and line, with what had to come before."""
        extra, self._extra = self._extra, ""
        drawn, self._drawn = self._drawn, None
        if drawn is None:
            return extra
        row = drawn.row
        if columns != drawn.columns:     # some terminals wrap anew at another width, some do not: never erase more than is ours
            row = min(row, layout(drawn.whole, columns)[drawn.cursor][0] + bool(drawn.status))
        return extra + "\r" + (f"\x1b[{row}A" if row else "") + "\x1b[J"

    def _take_above(self):
        above, self._above = self._above.decode("utf-8", "replace"), bytearray()
        if self._lost:
            above += f"... {self._lost} lines are not shown: this terminal did not take them\n"
            self._lost = 0
        return above

    def _status(self, cells):
        return clean(SEQUENCE.sub(b"", self._partial[:MAX_STATUS].rstrip(b"\r")), max(1, cells))

    # -- keys

    def _readable(self):
        try:
            data = os.read(self._fd, READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:                  # the window is closed
            data = b""
        if not data:
            self._loop.unwatch(self._fd)
            self._has_ended = True
        for event in self._editor.feed(data):
            self._happened(event)
        self._deliver()
        self._draw_soon()

    def _happened(self, event):
        if isinstance(event, editing.Line):
            self._lines.append(event.text)
            self._deliver()
        elif isinstance(event, editing.Interrupt):
            self.print(f"{self.prompt}{event.text}^C")
            self._on_interrupt()
        elif isinstance(event, editing.EndOfFile):
            self._has_ended = True
        elif isinstance(event, editing.Clear):
            self._extra += CLEAR
        elif isinstance(event, editing.Candidates):
            self._show_candidates(event.words)
        else:
            self._extra += "\a"

    def _show_line(self, line):
        self.print(self.prompt + line)

    def _show_candidates(self, words):
        shown = [clean(word) for word in words[:MAX_CANDIDATES]]
        cells = max(map(width, shown)) + 2
        across = max(1, (self.columns - 1) // cells)
        for at in range(0, len(shown), across):
            self.print("".join(pad(word, cells) for word in shown[at:at + across]).rstrip())
        if len(words) > MAX_CANDIDATES:
            self.print(f"... and {len(words) - MAX_CANDIDATES} more")

    # -- the terminal's own events

    def _resized(self):
        self._draw_soon()
        if self.on_resize:
            self.on_resize(self.rows, self.columns)

    def _continued(self):
        """Stopped and woken: the shell that started us has changed the settings meanwhile."""
        if not self._is_suspended:
            system.raw_mode(self._fd)
            self._drawn = None
            self._draw_soon()

    # -- giving it away and back

    def suspend(self):
        """Somebody else has the terminal now, as it was before this console began."""
        self._give_up()
        self._loop.unwatch(self._fd)
        self._is_suspended = True

    def resume(self):
        """Take it back; prompt and line come below what stands there."""
        if self._is_suspended:
            self._is_suspended = False
            system.raw_mode(self._fd)
            self._loop.watch(self._fd, on_readable=self._readable)
            # From the middle of a line so many blanks lead into the next one, from its beginning they do not
            self._extra += " " * (self.columns - 1) + "\r\x1b[J" + PASTE_ON
            self._draw_soon()
            self._deliver()

    def _give_up(self):
        last = self._erased(self.columns) + self._take_above() + PASTE_OFF
        self._output.write(last.encode("utf-8", "replace"))
        system.restore_mode(self._fd, self._saved)

    def close(self):
        """The terminal is as it was, the cursor at the beginning of an empty line."""
        if self._is_closed:
            return
        self.end_line()
        self._give_up()
        self._is_closed = True
        for number in (signal.SIGWINCH, signal.SIGCONT):
            self._loop.on_signal(number, None)
        self._output.finish(CLOSE_WAIT)
        self._loop.unwatch(self._fd)
        atexit.unregister(system.restore_mode)
        self._guard.release()
        os.close(self._fd)
        self._drained.notify()


def _suffix(drawn, now):
    """What was added behind the cursor if that is all that changed, which is most of the time; else None."""
    if drawn is None or now._replace(row=0, whole="", cursor=0) != drawn._replace(row=0, whole="", cursor=0):
        return None
    if drawn.cursor != len(drawn.whole) or now.cursor != len(now.whole) or not now.whole.startswith(drawn.whole):
        return None
    before, after = layout(drawn.whole, drawn.columns)[-1], layout(now.whole, now.columns)[-1]
    is_same_row = before[0] == after[0] and before[1] < after[1]        # an accent alone moves nothing and is drawn anew
    return now.whole[len(drawn.whole):] if is_same_row or now.whole == drawn.whole else None
