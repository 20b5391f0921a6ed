"""What this process is: a root in the foreground, a guest for one verb, a script, or (with shell.py) a shell.

A script and a shell speak to a root through one of two objects with the same `run(words, caller)`: LocalRoot,
where the root is this very process, and RootLink, where it runs already. So what follows never asks which.

However a process ends (EOF, a signal, a broken pipe, an exception), a root in it says goodbye to its peers, and
a terminal is as it was before.
"""

import errno
import os
import signal
import sys

from . import limits, system
from .errors import UserError
from .loop import Loop
from .rootlink import home_lock, reach
from .terminal.stdio import Stdio, StdioCaller, current_folder, wants_color
from .verbs.runner import INTERRUPTED, run

GRACE = 1.5                # s an interrupted verb has for its end: the root's answer has 1
SWEEP_AGE = 60.0           # s; a younger p2pstate may just be coming up
ENDING = 10.0              # s a root in this process has: its jobs have 5


# -- the frame of every mode

def _turn(main):
    """Run `main(loop, stdio)` on a loop of its own; its exit code."""
    loop = Loop()
    stdio = Stdio(loop)
    task = loop.start(main(loop, stdio))
    task.add_callback(lambda done: loop.stop())
    try:
        loop.run()
        return task.result()
    finally:
        stdio.close()
        loop.close()


def signals(names):
    """The numbers of those of these signals that this platform has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def watch_size(loop, resize):
    """Call `resize(rows, columns)` when the terminal's window changes."""
    for number in signals(["SIGWINCH"]):
        loop.on_signal(number, lambda: resize(*system.terminal_size(1)))


class Patience:
    """A signal gives up what runs, `give_up(exit code)`; a second one, or too much time, ends the process."""

    def __init__(self, loop, give_up, grace):
        self._loop = loop
        self._give_up = give_up
        self._grace = grace
        self._is_told = False
        for number in signals(["SIGINT", "SIGTERM", "SIGHUP"]):
            loop.on_signal(number, lambda code=128 + number: self._told(code))

    def _told(self, code):
        if self._is_told:
            sys.exit(code)
        self._is_told = True
        self._loop.call_later(self._grace, sys.exit, code)
        self._give_up(code)


# -- roots

class LocalRoot:
    """The root is this process."""

    is_local = True

    def __init__(self, node):
        self.node = node
        self.name = node.name
        self.home = node.home
        self.lost = node.stopped

    async def run(self, words, caller):
        """Run one command; its exit code."""
        return await run(self.node, words, caller)

    async def watch(self, on_notice):
        """Hear the notices."""
        self.node.watchers.append(on_notice)
        untold, self.node.untold = self.node.untold, []
        for line in untold:
            on_notice(line)

    async def ended(self):
        """Until no root runs here any more."""
        await self.node.stopped

    async def close(self):
        """End the root."""
        await self.node.stop("its program ended")
        await self.node.stopped


async def open_root(loop, settings):
    """Start a root in this process: a Node that takes commands. Raises UserError."""
    from .node import Node           # half of all there is to load; a guest needs none of it
    from .state import sweep
    node = Node(loop, settings.home, name=settings.name, port=limits.PORT if settings.port is None else settings.port,
                app_ports=settings.app_ports, entry=settings.entry)
    await node.start()

    def report(what, error):
        import traceback
        node.log.write("error", f"{what}: {type(error).__name__}: {error}")
        for line in traceback.format_tb(error.__traceback__)[-8:]:
            node.log.write("error", " ".join(line.split()))
        node.notice(f"! an error in p2pframe itself: {what} ({type(error).__name__}); `log` has more")
    loop.report = report
    try:
        node.owners.open(lambda words, caller: run(node, words, caller))
    except UserError:
        await node.stop("it could not be opened to commands")
        raise
    loop.work(sweep, loop.wall() - SWEEP_AGE)
    return node


async def find_root(loop, settings):
    """The root of this home, in this process or not: a LocalRoot or a RootLink."""
    if os.path.isdir(settings.home) and home_lock(settings.home).is_held():
        return await reach(loop, settings.home)
    try:
        return LocalRoot(await open_root(loop, settings))
    except UserError as error:
        if error.code != "running":
            raise
        return await reach(loop, settings.home)          # another one was faster


# -- up

def up(settings):
    """A root in the foreground until it is told to end."""
    return _turn(lambda loop, stdio: _up(loop, stdio, settings))


async def _up(loop, stdio, settings):
    told = loop.future()
    Patience(loop, lambda code: told.set("it was told to end"), ENDING)
    node = await open_root(loop, settings)
    node.stopped.add_callback(lambda done: told.set(None))
    if settings.is_verbose:
        node.log.followers.append(lambda line, _: stdio.err.write((line + "\n").encode("utf-8", "replace")))
    if not settings.is_quiet:
        caller = StdioCaller(stdio, settings.color, settings.as_json)
        if settings.as_json:
            await run(node, ["id"], caller)
        else:
            caller.write(1, f"{node.name} {node.identity.text} is ready on port {node.port}, home {node.home}\n".encode("utf-8", "replace"))
    reason = await told
    await node.stop(reason or "its owner ended it")
    await node.stopped
    return 0


# -- one verb

def once(settings, words, is_last):
    """Ask the running root; `is_last`: it ends by this."""
    return _turn(lambda loop, stdio: _once(loop, stdio, settings, words, is_last))


async def _once(loop, stdio, settings, words, is_last):
    caller = StdioCaller(stdio, settings.color, settings.as_json, settings.yes)
    Patience(loop, lambda code: caller.interrupt() if code == INTERRUPTED else sys.exit(code), GRACE)
    watch_size(loop, caller.resize)
    root = await reach(loop, settings.home)
    try:
        code = await root.run(words, caller)
    finally:
        caller.raw(False)
    if is_last and code == 0:
        await root.ended()
    await root.close()
    await stdio.drained()
    return check_output(stdio, code)


def check_output(stdio, code):
    """The exit code; a reader that went away is no failure, a full disk is one."""
    if stdio.out.error is None:
        return code
    if stdio.out.error.errno in (errno.EPIPE, errno.EIO, errno.ECONNRESET):
        return 0 if code == INTERRUPTED else code
    raise UserError(f"the output could not be written: {stdio.out.error.strerror}; make room and try again", code="output")


# -- many verbs

def script(settings):
    """The verbs that stand on stdin, a line each."""
    from .script import Script

    async def main(loop, stdio):
        lines = Script(loop, stdio, settings, lambda: find_root(loop, settings))
        Patience(loop, lines.give_up, ENDING)
        code = await lines.run()
        await stdio.drained()
        return check_output(stdio, code)
    return _turn(main)


def shell(settings):
    """A prompt on this terminal."""
    from .shell import Shell, greeting
    from .terminal.console import open_console

    async def main(loop, stdio):
        is_first = not os.path.exists(os.path.join(settings.home, "incarnation"))
        root = await find_root(loop, settings)
        faces = []
        try:
            faces.append(Shell(loop, root, settings, stdio.out, current_folder(),
                               wants_color(settings.color, os.environ, os.isatty(1)),
                               lambda *how: open_console(loop, 0, 1, *how)))
            return await _attend(loop, root, faces[0], [] if settings.is_quiet else greeting(root, is_first))
        finally:
            for face in faces:
                face.close()
            await root.close()
    return _turn(main)


async def _attend(loop, root, face, lines):
    """Until the shell ends, by a word or by a signal."""
    loop.on_signal(signal.SIGINT, face.interrupt)       # where Ctrl-C is no key
    for number in signals(["SIGTERM", "SIGHUP"]):
        loop.on_signal(number, lambda number=number: face.ended.set(128 + number))
    root.lost.add_callback(face.lost)
    for line in lines:
        face.console.print(line)
    await root.watch(face.notice)
    code = await face.ended
    loop.on_signal(signal.SIGINT, lambda: sys.exit(INTERRUPTED))       # its jobs may take their time to end
    return code
