"""A script: verbs a line each from a pipe or a file, run one after the other.

The last line counts without its newline too, and the first verb that fails gives the exit code; the lines after
it still run. The root is found, or started in this process, when the first verb wants one: a script that only
asks for help opens no port. Lines are run as they come, so a program may hold the other end and wait for answers.
"""

import os
from collections import deque

from .errors import UsageError, UserError
from .tasks import Event
from .terminal.stdio import StdioCaller
from .verbs.command import tell
from .verbs.declare import read
from .verbs.lines import split
from .verbs.options import GLOBAL
from .verbs.runner import INTERRUPTED, asks_for_json, run
from .verbs.table import VERBS

READ = 1 << 16             # bytes read at once
MAX_AHEAD = 1000           # lines read ahead of the one that runs
MAX_LINE = 1 << 16         # bytes; what is longer is no command
ENDS = (b"exit", b"quit")


class Script:
    """`find_root()` is awaited for a LocalRoot or a RootLink."""

    def __init__(self, loop, stdio, settings, find_root):
        self._loop = loop
        self._stdio = stdio
        self._settings = settings
        self._find_root = find_root
        self._root = None
        self._caller = None
        self._rest = b""
        self._lines = deque()
        self._ended = False
        self._is_given_up = False
        self._arrived = Event(loop)

    async def run(self):
        """Until the end of stdin; the exit code of the first verb that failed."""
        self._stdio.on_broken = lambda error: self.give_up()
        codes = []
        try:
            while not self._is_given_up:
                line = await self._next()
                if line is None or line.strip() in ENDS:
                    break
                codes.append(await self._line(line))
        finally:
            await self._let_go()
        if not codes and not self._is_given_up:
            self._say("nothing to do: there are no commands on stdin. `up` runs a root, `help` lists the verbs")
        return INTERRUPTED if self._is_given_up else next((code for code in codes if code), 0)

    def give_up(self):
        """End after what runs now, which is interrupted."""
        self._is_given_up = True
        self._arrived.notify()
        if self._caller is not None:
            self._caller.interrupt()

    def _say(self, text):
        StdioCaller(self._stdio).write(2, (text + "\n").encode("utf-8"))

    # -- lines in

    def _readable(self):
        try:
            data = os.read(0, READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data:
            self._ended = True
            lines, self._rest = lines + [self._rest] if self._rest else lines, b""
        self._rest = self._rest[:MAX_LINE + 1]
        self._lines.extend(lines)
        if self._ended or len(self._lines) >= MAX_AHEAD:
            self._loop.unwatch(0)
        self._arrived.notify()

    async def _next(self):
        """The next line as bytes, None at the end."""
        while not self._lines:
            if self._ended or self._is_given_up:
                return None
            self._loop.watch(0, on_readable=self._readable)
            await self._arrived.wait()
        return self._lines.popleft()

    # -- commands

    async def _line(self, line):
        settings = self._settings
        caller = self._caller = StdioCaller(self._stdio, settings.color, settings.as_json, settings.yes)
        words = []
        try:
            if len(line) > MAX_LINE:
                raise UsageError(f"a line of more than {MAX_LINE} bytes is no command")
            words = split(line.decode("utf-8", "replace"))
            return await self._command(words, caller) if words else 0
        except UserError as error:
            tell(caller, error, settings.as_json or asks_for_json(words))
            return error.exit
        finally:
            caller.raw(False)
            await self._stdio.out.room()

    async def _command(self, words, caller):
        verb = read(words, VERBS, GLOBAL).verb
        name = verb.name if verb else "help"
        if name == "help":
            return await run(None, words, caller)
        is_first = self._root is None
        if is_first:
            self._root = await self._find_root()
        if name == "up" and is_first and self._root.is_local:
            return 0             # it is up now, until the script ends
        code = await self._root.run(words, caller)
        if name == "down" and code == 0:
            await self._root.ended()
            await self._let_go()
        return code

    async def _let_go(self):
        root, self._root = self._root, None
        if root is not None:
            await root.close()
