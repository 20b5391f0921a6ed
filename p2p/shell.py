"""The shell: the same verbs as one-shot commands, typed at a prompt while the node lives on.

A cmd.Cmd whose loop is ours: the console hands over each line, `onecmd` says what becomes of it, a command is a task.
So the network is served while somebody types, and what happens is printed above the half-typed line.

Lines run one after the other, as they do in any shell, but a verb that is an answer (`allow`, `deny`, ...) runs at
once: the command that is running may be waiting for just that. An empty line does nothing, though cmd would
repeat the last one: nothing is ever accepted by a key that was pressed for something else.

Ctrl-C gives up the running command and the lines behind it. The end of the shell is the end of a root that lives in
this process; if it has jobs, that takes a second word.
"""

import cmd
import json
from collections import deque

from . import proto
from .errors import P2PError, UsageError, UserError
from .jobs import EXITED
from .owner import Caller
from .terminal.passthrough import Passthrough
from .text import clean, plural
from .verbs.command import tell
from .verbs.completing import candidates
from .verbs.declare import read
from .verbs.lines import split
from .verbs.options import GLOBAL
from .verbs.runner import asks_for_json, run
from .verbs.table import VERBS

LEAVE = ("exit", "quit")
EXPLAIN_AFTER = 0.5        # s that `exit` waits in silence for what runs
MAX_WAITING = 100          # lines typed or pasted ahead
REFRESH_AFTER = 0.5        # s between two askings for the names that completion offers
SOURCES = {"node": ("nodes", "name"), "app": ("apps", "name"), "job": ("jobs", "job"), "request": ("requests", "request"),
           "network": ("networks", "name")}


class ShellCaller(Caller):
    """A command typed at the prompt: whole lines are printed above it, progress beside it; an attached job gets it all."""

    @property
    def hears_notices(self):
        """A shell shows them."""
        return True

    def __init__(self, shell, words):
        console, settings = shell.console, shell.settings
        super().__init__(shell.loop, settings.as_json, settings.yes, console.rows, console.columns, shell.color,
                         bool(console.columns) and console.can_draw, shell.folder)
        self.words = words
        self._console = console
        self._terminal = shell.terminal
        self._passthrough = None
        self._rest = b""
        self._is_done = False

    def write(self, stream, data):
        """Several commands may print at once, so stdout goes line by line; a job's bytes go straight to the terminal."""
        if self._is_done:
            return
        if self._passthrough is not None:
            self._passthrough.modes.feed(data)
            self._terminal.write(data)
            return
        if stream == proto.STDOUT:
            whole, line_end, self._rest = (self._rest + data).rpartition(b"\n")
            data = whole + line_end
        self._console.write(data)

    async def room(self):
        """Until the terminal has taken enough."""
        await (self._console if self._passthrough is None else self._terminal).room()

    def raw(self, wanted):
        """Hand the terminal over, or take it back."""
        if wanted and self._passthrough is None:
            self._console.suspend()
            self._passthrough = Passthrough(self.loop, 0, self.typed)
            self._passthrough.start()
        elif not wanted and self._passthrough is not None:
            passthrough, self._passthrough = self._passthrough, None
            self._terminal.write(passthrough.modes.undo())
            passthrough.stop()
            self._console.resume()

    def finish(self):
        """It is done: nothing is left half printed, and nothing comes after it."""
        self.raw(False)
        if self._rest:
            self.write(proto.STDOUT, b"\n")
        self._is_done = True


class Listener(Caller):
    """A command whose answer is read by the shell itself."""

    def __init__(self, loop):
        super().__init__(loop, as_json=True)
        self._parts = []

    def write(self, stream, data):
        """Keep it."""
        if stream == proto.STDOUT:
            self._parts.append(data)

    def document(self):
        """What was printed, or None."""
        try:
            return json.loads(b"".join(self._parts).decode("utf-8"))
        except ValueError:
            return None


def greeting(root, is_first):
    """What the shell says at its start: who this is, and at the first time what to type next."""
    if not root.is_local:
        return [f"{root.name} runs in process {root.pid} already; `exit` leaves it running, `help` lists the verbs."]
    if not is_first:
        return [f"{root.name} is up; `help` lists the verbs."]
    return [f"{root.name} is up and finds other nodes by itself: `nodes` lists them.",
            "`share DIR` offers an application, `run APP NODE` runs it here and there.",
            "`help` lists all verbs, `help VERB` explains one, `exit` ends this node."]


class Shell(cmd.Cmd):
    """`root`: a LocalRoot or a RootLink. `make_console(prompt, on_line, on_eof, on_interrupt, complete)` gives the console.
    `terminal`: an Outlet for what an attached job prints. `ended` is a Future of the exit code."""

    def __init__(self, loop, root, settings, terminal, folder, color, make_console):
        super().__init__()
        self.loop = loop
        self.settings = settings
        self.terminal = terminal
        self.folder = folder
        self.color = color
        self.ended = loop.future()
        self._root = root
        self._waiting = deque()          # lines behind the one that runs
        self._running = []               # callers, the newest last
        self._in_turn = None             # the one of them that the lines wait for
        self._is_warned = False
        self._names = {kind: [] for kind in SOURCES}
        self._asked_at = loop.now() - REFRESH_AFTER
        self._refresh_timer = None
        self.prompt = f"{root.name}> "
        self.console = make_console(self.prompt, self.onecmd, self.leave, self.interrupt, self.candidates)
        self.console.on_resize = self.resize

    def resize(self, rows, columns):
        """The window has another size."""
        for caller in self._running:
            caller.resize(rows, columns)

    def notice(self, text):
        """Something happened: a node came, somebody said something, a request waits."""
        self.console.print(text)
        self._refresh()

    def close(self):
        """The terminal is as it was before."""
        if self._refresh_timer is not None:
            self._refresh_timer.cancel()
        for caller in self._running:
            caller.finish()
        self.console.close()

    # -- lines

    def emptyline(self):
        """Nothing; cmd would repeat the last command."""

    def default(self, line):
        """Every line that is not about the shell itself."""
        try:
            words = split(line)
            if not words:
                return
            verb = read(words, VERBS, GLOBAL).verb
        except UserError as error:
            self._complain(error, line)
            return
        self._is_warned = False
        if verb is None or verb.at_once:
            self._start(words, in_turn=False)
        else:
            if len(self._waiting) >= MAX_WAITING:
                self._complain(UsageError(f"{MAX_WAITING} lines wait already: Ctrl-C gives them up"), line)
                return
            self._waiting.append(words)
            self._next()

    def do_help(self, arg):
        """cmd's own would print docstrings."""
        self.default(f"help {arg}")

    def do_exit(self, _arg):
        """End the shell."""
        self.leave()

    do_quit = do_EOF = do_exit

    def _complain(self, error, line):
        caller = ShellCaller(self, [])
        tell(caller, error, caller.as_json or asks_for_json(line.split()))

    # -- commands

    def _next(self):
        if not self._waiting or self._in_turn is not None or self.ended.done:
            return
        if self._waiting[0] is not LEAVE:
            self._in_turn = self._start(self._waiting.popleft(), in_turn=True)
        elif not self._running:
            self._in_turn = self._waiting.popleft()
            self.loop.start(self._leave())

    def _start(self, words, in_turn):
        caller = ShellCaller(self, words)
        self._running.append(caller)
        task = self.loop.start(self._command(words, caller))
        task.add_callback(lambda done: self._done(caller, in_turn))
        return caller

    async def _command(self, words, caller):
        try:
            verb = read(words, VERBS, GLOBAL).verb
            if verb is None or not verb.needs_root and verb.name != "up":
                await run(None, words, caller)
            else:
                await self._root.run(words, caller)
        except UserError as error:
            if not self.ended.done:
                tell(caller, error, caller.as_json or asks_for_json(words))

    def _done(self, caller, in_turn):
        self._running.remove(caller)
        caller.finish()
        if in_turn:
            self._in_turn = None
        self._next()
        self._refresh()

    def interrupt(self):
        """Ctrl-C: the running command and the lines behind it are given up."""
        self._waiting.clear()
        if self._running:
            (self._in_turn or self._running[-1]).interrupt()
        self.console.interrupted()

    # -- the end

    def leave(self):
        """`exit`, or the end of the input: it comes after what was typed before it; said twice, at once."""
        if LEAVE in self._waiting:
            for caller in self._running:
                caller.interrupt()
            return
        self._waiting.append(LEAVE)
        self.loop.call_later(EXPLAIN_AFTER, self._explain)
        self._next()

    def _explain(self):
        if LEAVE in self._waiting and self._running and not self.ended.done:
            runs = " ".join(self._running[-1].words)
            self.console.print(f"the shell ends when `{clean(runs)}` is done: Ctrl-C gives that up, another `exit` ends both")

    async def _leave(self):
        jobs = []
        if self._root.is_local and not self.settings.yes and not self._is_warned:
            jobs = [row for row in await self._ask("jobs") if row.get("state") != EXITED]
        if not jobs:
            self.ended.set(0)
            return
        self._is_warned = True
        self.console.print(f"{plural(len(jobs), 'job')} would end with this node: `exit` again ends it, `jobs` lists them")
        self._in_turn = None
        self._next()

    def lost(self, _future):
        """The root has ended."""
        if not self.ended.done:
            self.console.print("the root has ended")
            self.ended.set(0)

    # -- completion

    async def _ask(self, verb):
        """The rows that a verb lists; none where it fails."""
        listener = Listener(self.loop)
        try:
            code = await self._root.run([verb], listener)
        except P2PError:
            return []
        rows = listener.document()
        return rows if code == 0 and isinstance(rows, list) else []

    def _refresh(self):
        """Ask for the names anew, now or when the last asking is a moment ago."""
        if self._refresh_timer is None and not self.ended.done:
            self._refresh_timer = self.loop.call_at(self._asked_at + REFRESH_AFTER, lambda: self.loop.start(self._learn_names()))

    async def _learn_names(self):
        for kind, (verb, key) in SOURCES.items():
            self._names[kind] = sorted({str(row[key]) for row in await self._ask(verb)})
        self._names["target"] = self._names["node"] + ["all"]
        self._asked_at = self.loop.now()
        self._refresh_timer = None

    def candidates(self, line, cursor):
        """The words that could stand in place of the one before the cursor."""
        self._refresh()
        return candidates(line[:cursor], VERBS, self._names) + [
            word for word in LEAVE if " " not in line[:cursor] and word.startswith(line[:cursor])]

    def completenames(self, text, *_ignored):
        """As cmd asks for verbs."""
        return candidates(text, VERBS, self._names)

    def completedefault(self, _text, line, _begidx, endidx):
        """As cmd asks for what follows a verb."""
        return candidates(line[:endidx], VERBS, self._names)
