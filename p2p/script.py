"""A script: verbs a line each from a pipe or a file, run one after the other.

The last line counts without its newline too, and the first verb that fails gives the exit code; the lines after
it still run. Lines are run as they come, so a program may hold the other end and wait for answers. Where one
wants keys (`attach`), what follows on stdin is typed at it.

The root is found, or started in this process, when the first verb wants one: a script that only asks for help
opens no port. The end of the input is the end of a root that was started here.
"""

from .errors import UsageError, UserError
from .terminal.plain import TOO_LONG, PlainConsole
from .terminal.stdio import StdioCaller
from .verbs.command import tell
from .verbs.declare import read
from .verbs.lines import split
from .verbs.options import GLOBAL
from .verbs.runner import asks_for_json, run
from .verbs.table import VERBS

ENDS = ("exit", "quit")


class Script:
    """`find_root()` is awaited for a LocalRoot or a RootLink."""

    def __init__(self, loop, stdio, settings, find_root):
        self._loop = loop
        self._stdio = stdio
        self._settings = settings
        self._find_root = find_root
        self._root = None
        self._caller = None
        self._code = 0
        self._is_empty = True
        self._ended = loop.future()
        self._console = PlainConsole(loop, 0, 1, "", self._line, self._end, self._too_long)

    async def run(self):
        """Until the end of stdin; the exit code of the first verb that failed."""
        try:
            code = await self._ended
        finally:
            self._console.close()
            await self._let_go()
        if self._is_empty and not code:
            StdioCaller(self._stdio).write(2, b"nothing to do: there are no commands on stdin. `up` runs a root, `help` lists the verbs\n")
        return code

    def give_up(self, code):
        """Interrupt what runs; nothing comes after it, and `code` is the exit code."""
        if self._caller is not None:
            self._caller.interrupt()
        self._ended.set(code)

    def _end(self):
        self._ended.set(self._code)

    # -- lines

    def _line(self, line):
        if line.strip() in ENDS or self._stdio.out.error is not None:
            self._end()
            return
        self._console.suspend()
        self._loop.start(self._run_line(line)).add_callback(lambda done: self._console.resume())

    def _too_long(self):
        settings = self._settings
        self._is_empty = False
        error = UsageError(TOO_LONG)
        tell(StdioCaller(self._stdio, settings.color, settings.as_json), error, settings.as_json)
        self._code = self._code or error.exit

    async def _run_line(self, line):
        settings = self._settings
        caller = self._caller = StdioCaller(self._stdio, settings.color, settings.as_json, settings.yes)
        words = []
        try:
            words = split(line)
            code = await self._command(words, caller) if words else 0
        except UserError as error:
            tell(caller, error, settings.as_json or asks_for_json(words))
            code = error.exit
        finally:
            caller.raw(False)
        self._code = self._code or code
        await self._stdio.out.room()

    async def _command(self, words, caller):
        self._is_empty = False
        verb = read(words, VERBS, GLOBAL).verb
        name = verb.name if verb else "help"
        if name == "help":
            return await run(None, words, caller)
        is_first = self._root is None
        if is_first:
            self._root = await self._find_root()
        if name == "up" and is_first and self._root.is_local:
            return await self._root.run(["id"], caller)      # it is up now, until the script ends
        code = await self._root.run(words, caller)
        if name == "down" and code == 0:
            await self._root.ended()
            await self._let_go()
        return code

    async def _let_go(self):
        root, self._root = self._root, None
        if root is not None:
            await root.close()
