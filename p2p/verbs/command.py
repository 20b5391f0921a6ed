"""One command under way, as its handler sees it: what was asked, and where the answer goes.

A handler says each thing once: `show(document, lines)` prints the document with --json and the lines without;
`done(text)` is for commands whose only answer is that it was done. Every line goes out through here, so what a
peer chose is cleaned by `text.table` or `text.clean` before it comes here, and JSON is plain ASCII: an escaped
control character drives no terminal.
"""

import json
import os

from .. import proto
from ..errors import UserError
from ..text import clean, cut, duration, size, table

PROGRESS_AFTER = 1.0       # s; what is done sooner needs no bar
PROGRESS_EVERY = 0.25      # s
BAR = 20                   # cells
MAX_ERROR = 2000           # cells of an error's line

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def paint(caller, text, style):
    """In colour where the caller wants colours."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if caller.color and style else text


def tell(caller, error, as_json):
    """What went wrong: one line on stderr, or a document on stdout."""
    message = clean(str(error), MAX_ERROR)
    if as_json:
        text, stream = json.dumps({"error": {"code": error.code, "message": message}}), proto.STDOUT
    else:
        text, stream = paint(caller, message, "red"), proto.STDERR
    caller.write(stream, (text + "\n").encode("utf-8", "replace"))


class Command:
    """`args` holds the arguments and options as attributes; `verbs` is the table, for `help`."""

    def __init__(self, caller, parsed, args, verbs):
        self.caller = caller
        self.args = args
        self.words = parsed.kept
        self.verbs = verbs
        self.loop = caller.loop
        self.as_json = caller.as_json or bool(parsed.settings.get("json"))
        self.yes = caller.yes or bool(parsed.settings.get("yes"))
        self.is_quiet = bool(parsed.settings.get("q"))
        self.is_verbose = bool(parsed.settings.get("v"))
        self.interrupted = caller.interrupted

    # -- out

    def out(self, text):
        """One line on stdout."""
        self.write((text + "\n").encode("utf-8", "replace"))

    def err(self, text):
        """One line on stderr."""
        self.caller.write(proto.STDERR, (text + "\n").encode("utf-8", "replace"))

    def write(self, data):
        """Bytes on stdout, as they are."""
        self.caller.write(proto.STDOUT, data)

    def json(self, document):
        """One document on a line of its own."""
        self.out(json.dumps(document))

    def show(self, document, lines):
        """The document with --json, else the lines."""
        if self.as_json:
            self.json(document)
        else:
            for line in lines:
                self.out(line)

    def done(self, text, document=None):
        """It is done: a line unless -q; an empty document with --json."""
        if self.as_json:
            self.json({} if document is None else document)
        elif not self.is_quiet:
            self.out(text)

    def say(self, text):
        """Something beside the answer, for a person."""
        if not self.as_json and not self.is_quiet:
            self.err(text)

    def fail(self, error):
        """What went wrong, in one line or as a document."""
        tell(self.caller, error, self.as_json)

    def table(self, headers, rows):
        """Aligned lines that fit the terminal; in a pipe nothing is cut."""
        lines = table(headers, rows, self.caller.columns or None)
        return [self.paint(lines[0], "bold")] + lines[1:]

    def paint(self, text, style):
        """In colour where colours are wanted."""
        return paint(self.caller, text, style)

    def drawing(self, describe):
        """`with command.drawing(f):` shows `f()` on the terminal while this takes long."""
        return Drawing(self, describe)

    async def room(self):
        """Wait until the reader has caught up."""
        await self.caller.room()

    # -- in

    def path(self, word):
        """A path that a person wrote in the folder where the command was given."""
        word = os.path.expanduser(word)
        if not os.path.isabs(word) and not self.caller.folder:
            raise UserError("the folder in which this was typed is gone: give the whole path", code="folder")
        return os.path.abspath(os.path.join(self.caller.folder, word))

    def raw(self, wanted):
        """Want each key as it is typed, or none."""
        self.caller.raw(wanted)

    async def read(self):
        """The next keys; b"" at their end."""
        return await self.caller.read()


class Drawing:
    """A line of progress on stderr, on a terminal only: after a second, four times a second, wiped away at the end."""

    def __init__(self, command, describe):
        self._caller = command.caller
        self._describe = describe
        self._is_wanted = command.caller.is_terminal and not command.is_quiet
        self._is_drawn = False
        self._timer = None

    def __enter__(self):
        if self._is_wanted:
            self._timer = self._caller.loop.call_later(PROGRESS_AFTER, self._draw)
        return self

    def _draw(self):
        self._timer = self._caller.loop.call_later(PROGRESS_EVERY, self._draw)
        self._is_drawn = True
        line = cut(self._describe(), max(20, (self._caller.columns or 80) - 1))
        self._write(f"\r{line}\x1b[K")

    def _write(self, text):
        self._caller.write(proto.STDERR, text.encode("utf-8", "replace"))

    def __exit__(self, *error):
        if self._timer:
            self._timer.cancel()
        if self._is_drawn:
            self._write("\r\x1b[K")


def progress_line(name, done, total, elapsed):
    """"chat  45 % [#########...........] 1.2 MiB of 2.7 MiB, 600.0 KiB/s, 3 s left"."""
    share = min(1.0, done / total) if total else 0.0
    rate = done / elapsed if elapsed > 0 else 0.0
    bar = "#" * int(share * BAR)
    left = f", {duration((total - done) / rate)} left" if rate and total > done else ""
    return f"{name}  {share * 100:3.0f} % [{bar:.<{BAR}}] {size(done)} of {size(total)}, {size(rate)}/s{left}"
