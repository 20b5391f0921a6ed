"""A program at a real terminal: a pty that the test types into and reads as a person would.

The program gets the pty's far end as its controlling terminal and its stdin, stdout and stderr, so Ctrl-C,
job control and size changes are the kernel's own. A thread reads the near end at all times, because a program
whose output nobody takes stops, and that would be the test's fault. What was read goes two ways: as plain text
for `wait_for`, and through the emulator of `screen.py` for `screen()`. Like a real terminal this one answers
when it is asked where the cursor is.

`wait_for` consumes, as pexpect does: each call goes on after the previous match, so a second wait for the
prompt waits for the second prompt. For "somewhere on the screen, now", ask `screen()` with `wait_until`.
"""
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time

from tests.lab.screen import CSI, OSC, OTHER, Screen


def set_size(descriptor, rows, columns):
    """Tells the kernel, and so the program, how large the terminal is."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    """A running program (`process`) and the terminal it runs in."""

    def __init__(self, argv, rows=24, columns=80, env=None, cwd=None):
        self._emulator = Screen(rows, columns)
        self._raw = bytearray()
        self._seen = 0                     # characters of `output` that `wait_for` has consumed
        self._news = threading.Condition()
        self._ended = False
        self._master, slave = pty.openpty()
        try:
            set_size(slave, rows, columns)
            # setsid --ctty instead of preexec_fn: no Python code runs between fork and exec
            self.process = subprocess.Popen(["setsid", "--ctty", *argv], stdin=slave, stdout=slave, stderr=slave,
                                            env=env, cwd=cwd)
        finally:
            os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:                # EIO: the last program has closed the far end
                data = b""
            with self._news:
                if not data:
                    self._ended = True
                    self._news.notify_all()
                    return
                self._raw += data
                self._emulator.feed(data)
                replies = self._emulator.replies()
                self._news.notify_all()
            if replies:
                os.write(self._master, replies)

    @property
    def output(self):
        """All that was output so far as text, without escape sequences and carriage returns."""
        with self._news:
            text = self._raw.decode("utf-8", "replace")
        for pattern in (OSC, CSI, OTHER):
            text = pattern.sub("", text)
        return text.replace("\r", "")

    @property
    def raw(self):
        """All that was output so far, byte for byte."""
        with self._news:
            return bytes(self._raw)

    def type(self, text):
        """Presses the keys of `text`: "\\r" is Enter, "\\x03" Ctrl-C, "\\x1b[A" the arrow up."""
        data = text if isinstance(text, bytes) else text.encode()
        while data:
            data = data[os.write(self._master, data):]

    def wait_for(self, wanted, timeout=10.0):
        """The match of `wanted` (a string, taken literally, or a compiled pattern) after the previous one."""
        pattern = wanted if isinstance(wanted, re.Pattern) else re.compile(re.escape(wanted))
        deadline = time.monotonic() + timeout
        while True:
            with self._news:
                before, ended = len(self._raw), self._ended
            match = pattern.search(self.output, self._seen)
            if match:
                self._seen = match.end()
                return match
            left = deadline - time.monotonic()
            if ended or left <= 0:
                why = "the program ended without" if ended else f"waited {timeout} s in vain for"
                raise AssertionError(f"{why} {wanted!r}; the screen:\n{self.text()}")
            with self._news:
                if len(self._raw) == before and not self._ended:
                    self._news.wait(left)

    def screen(self):
        """What a person would see now: the rows from top to bottom, without blanks at their ends."""
        with self._news:
            return self._emulator.lines()

    def text(self):
        """The screen as one string, without the empty rows at the bottom."""
        with self._news:
            return self._emulator.text()

    @property
    def cursor(self):
        """Row and column of the cursor, from 0."""
        with self._news:
            return self._emulator.cursor

    @property
    def unknown(self):
        """Escape sequences that the emulator did not understand."""
        return self._emulator.unknown

    def modes(self):
        """The terminal's line settings as termios tells them: compare before and after a program."""
        return termios.tcgetattr(self._master)

    def resize(self, rows, columns):
        """Changes the window's size; the kernel sends SIGWINCH if it is a new one."""
        with self._news:
            self._emulator.resize(rows, columns)
        set_size(self._master, rows, columns)

    def wait(self, timeout=10.0):
        """The program's exit code, once all of its output has been read."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {timeout} s; the screen:\n{self.text()}") from None
        self._reader.join(1.0)             # longer only if a child of the program still holds the terminal
        return code

    def close(self):
        """Closes the window: the program gets SIGHUP as from a real one, and SIGKILL a second later."""
        if self._master is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)
            try:
                self.process.wait(1.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5.0)
        self._reader.join(0.2)
        if not self._reader.is_alive():    # a descriptor that a thread still reads must not be reused
            os.close(self._master)
        self._master = None
