"""Verbs about a job's terminal: entering it, reading what it printed.

A job is never stopped because somebody reads slowly: what a reader cannot take is left out and said to be, and a
terminal that has fallen behind gets the end of the output anew instead of a torn middle.

Keys go through as they are, Ctrl-C too; only Ctrl-] is ours. The size of the terminal goes with them; told the size
it already has, the job draws again, which is how a full screen comes back.
"""

import re
from collections import deque

from ..errors import UserError
from ..jobs import EXITED, how_it_ended
from ..tasks import Event
from .declare import Argument, Option, Verb, number

LEAVE_KEY = b"\x1d"           # Ctrl-]
MAX_BEHIND = 1 << 20          # bytes kept for a reader that is slower than the job
TYPING_PAUSE = 0.02           # s until keys that the job did not take are tried again

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Following:
    """What a job prints from now on, for one reader: `await next()` until it gives None."""

    def __init__(self, loop, job):
        self._job = job
        self._pieces = deque()
        self._size = 0
        self._moved = Event(loop)
        self.lost = 0                # bytes left out since the reader last asked

    def __enter__(self):
        self._job.watchers.append(self._printed)
        self._job.on_end.append(self._moved.notify)
        self._job.unseen = 0
        return self

    def __exit__(self, *error):
        self._job.watchers.remove(self._printed)
        self._job.on_end.remove(self._moved.notify)

    def _printed(self, data):
        self._pieces.append(data)
        self._size += len(data)
        while self._size > MAX_BEHIND:
            piece = self._pieces.popleft()
            self._size -= len(piece)
            self.lost += len(piece)
        self._moved.notify()

    async def next(self):
        """All that came since, or None when the job has ended and everything was read."""
        while not self._pieces:
            if self._job.state == EXITED:
                return None
            await self._moved.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return data


# -- attach

async def attach(command, node):
    """A job's terminal."""
    job = node.launcher.job(command.args.job)
    if job.state == EXITED:
        raise UserError(f"job {job.number} has ended: it {how_it_ended(job.exit)}; `output {job.number}` shows what it printed",
                        code="ended")
    return await attach_to(command, job)


async def attach_to(command, job):
    """Be its terminal until Ctrl-] or its end; 0, or 1 if it failed."""
    loop = command.loop
    left = loop.future()
    with Following(loop, job) as following:
        if command.caller.rows:
            command.say(f"job {job.number}; Ctrl-] leaves it and it goes on")
        command.raw(True)
        command.write(job.replay())
        if command.caller.rows:
            job.resize(command.caller.rows, command.caller.columns)
        tasks = [loop.start(_keys(command, job, left)), loop.start(_sizes(command, job)), loop.start(_shown(command, job, following, left))]
        try:
            has_ended = await left
        finally:
            for task in tasks:
                task.cancel()
            command.raw(False)
    if has_ended:
        if not command.caller.hears_notices:         # which tell the same
            command.say(f"job {job.number} has ended: it {how_it_ended(job.exit)}")
        return 0 if job.exit == 0 else 1
    command.say(f"left job {job.number}, which goes on; `attach {job.number}` comes back")
    return 0


async def _keys(command, job, left):
    while True:
        data = await command.read()
        if not data:
            return                   # a pipe that has ended; the output goes on
        typed, leave, _ = data.partition(LEAVE_KEY)
        while typed:
            typed = typed[job.write(typed):]
            if typed:
                if job.state == EXITED:
                    return
                await command.loop.sleep(TYPING_PAUSE)
        if leave:
            left.set(False)
            return


async def _sizes(command, job):
    while True:
        await command.caller.resized.wait()
        job.resize(command.caller.rows, command.caller.columns)


async def _shown(command, job, following, left):
    while True:
        data = await following.next()
        if data is None:
            left.set(True)
            return
        if following.lost:
            following.lost = 0
            data = job.replay()
        command.write(data)
        await command.room()


# -- output

class PlainText:
    """A terminal's output as lines of text: what a person would have read, without what moves and colours."""

    def __init__(self):
        self._rest = b""

    def feed(self, data):
        """The lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-MAX_BEHIND:]
        return [plain(line) for line in lines]

    def end(self):
        """What stands in the last line."""
        rest, self._rest = plain(self._rest), b""
        return [rest] if rest else []


def plain(line):
    """One line of output; of what was overwritten in it only the last is left."""
    text = line.decode("utf-8", "replace").rstrip("\r")
    text = _SEQUENCE.sub("", text)
    return _CONTROL.sub("", text[text.rfind("\r") + 1:])


async def output(command, node):
    """What a job printed so far; with --follow also what it prints until its end."""
    job = node.launcher.job(command.args.job)
    reader = PlainText()
    if not command.args.follow:
        job.unseen = 0
        lines = reader.feed(job.output()) + reader.end()
        _tell_lost(command, job.dropped)
        command.show("".join(line + "\n" for line in lines), lines)
        return
    with Following(command.loop, job) as following:
        data, lost = job.output(), job.dropped
        while data is not None:
            _tell_lost(command, lost)
            for line in reader.feed(data):
                command.show(line, [line])
            await command.room()
            data = await following.next()
            lost, following.lost = following.lost, 0
        for line in reader.end():
            command.show(line, [line])


def _tell_lost(command, count):
    if count:
        command.say(f"... {count} bytes are left out here")


JOB = Argument("JOB", kind=number, completes="job")

VERBS = (
    Verb("attach", "a job's terminal; Ctrl-] leaves it", attach, (JOB,), example="attach 1"),
    Verb("output", "what a job printed so far", output, (JOB,),
         (Option("--follow", about="go on until it ends"),), example="output 1 --follow"),
)
