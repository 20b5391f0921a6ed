"""Keys: what a terminal sends, as the names of what the user wants.

Terminals send letters as UTF-8 and keys as escape sequences of several generations; one read may end in the
middle of either. `Keys.feed` takes bytes and gives whole keys. A sequence that nobody here knows is swallowed
whole, so that no key ever types "[15~" into a line; one that is broken off by a control character or never ends
is given up, so that Ctrl-C works after any other key.

A paste arrives between two marks (bracketed paste, xterm's mode 2004) and becomes one key with its text, so
that line ends in it execute nothing.
"""

import codecs
import re
from collections import namedtuple

Key = namedtuple("Key", "name text")
Key.__doc__ = """name: an action, or "text" or "paste", whose characters are in `text`."""

MAX_SEQUENCE = 256       # characters of one key or one report of the terminal; what is longer is none
MAX_PASTE = 1 << 16      # characters kept of one paste

PASTE_BEGINS, PASTE_ENDS = "\x1b[200~", "\x1b[201~"
RUN = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
SEQUENCE = re.compile(r"\x1b(?:\[\[[A-E]|\[[0-?]*[ -/]*[@-Z\\-~]|O[ -~]|[^\x00-\x07\x09-\x1f\[\]OPX^_])")
REPORT = re.compile(r"\x1b[\]PX^_][^\x03\x07\r\x1b]*(?:\x07|\x1b\\)")
UNFINISHED = re.compile(r"\x1b(?:\[\[?[0-?]*[ -/]*|O|[\]PX^_][^\x03\x07\r\x1b]*\x1b?)?\Z")
BROKEN = re.compile(r"\x1b(?:\[\[?[0-?]*[ -/]*|[\]PX^_])?")
ARROW = re.compile(r"\x1b(?:\[(?:1;(\d+))?|O)([A-DFH])")

ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
WORDWISE = {"right": "word-right", "left": "word-left"}       # with Ctrl or Alt
ACTIONS = {
    "\r": "enter", "\n": "enter", "\t": "complete", "\x7f": "backspace", "\x08": "backspace",
    "\x01": "home", "\x05": "end", "\x02": "left", "\x06": "right", "\x10": "up", "\x0e": "down",
    "\x03": "interrupt", "\x04": "delete-or-end", "\x0b": "kill-right", "\x15": "kill-left", "\x17": "kill-word", "\x0c": "clear",
    "\x1b[3~": "delete", "\x1b[1~": "home", "\x1b[7~": "home", "\x1b[4~": "end", "\x1b[8~": "end",
    "\x1bb": "word-left", "\x1bf": "word-right", "\x1b\x7f": "kill-word", "\x1b\x08": "kill-word",
}


class Keys:
    """Bytes in, whole keys out."""

    def __init__(self):
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._paste = None               # the text so far, while one arrives
        self._was_return = False

    def feed(self, data: bytes) -> list:
        """The keys that are complete now."""
        self._rest += self._decoder.decode(data)
        keys, at = [], 0
        while at < len(self._rest):
            size, key = self._pasted(at) if self._paste is not None else self._next(at)
            if key is not None:
                keys.append(key)
            if not size:
                break
            at += size
        self._rest = self._rest[at:]
        return keys

    def _next(self, at):
        """(how many characters, the key or None); no characters: the rest has not come yet."""
        char = self._rest[at]
        run = RUN.match(self._rest, at)
        was_return, self._was_return = self._was_return, char == "\r"
        if run:
            return len(run.group()), Key("text", run.group())
        if char == "\n" and was_return:
            return 1, None                # Enter as two characters
        if char != "\x1b":
            return 1, _action(char)
        return self._sequence(at)

    def _sequence(self, at):
        if self._rest.startswith(PASTE_BEGINS, at):
            self._paste = ""
            return len(PASTE_BEGINS), None
        if len(self._rest) - at < MAX_SEQUENCE and UNFINISHED.match(self._rest, at):
            return 0, None
        match = REPORT.match(self._rest, at) or SEQUENCE.match(self._rest, at)
        if match:
            return len(match.group()), _action(match.group())
        return len(BROKEN.match(self._rest, at).group()), None

    def _pasted(self, at):
        end = self._rest.find(PASTE_ENDS, at)
        if end >= 0:
            text, self._paste = self._paste + self._rest[at:end], None
            return end + len(PASTE_ENDS) - at, Key("paste", text[:MAX_PASTE])
        size = max(0, len(self._rest) - at - len(PASTE_ENDS))      # the mark itself may have come in part
        self._paste = (self._paste + self._rest[at:at + size])[:MAX_PASTE]
        return size, None


def _action(sequence):
    arrow = ARROW.fullmatch(sequence)
    if arrow:
        name = ARROWS[arrow.group(2)]
        return Key(WORDWISE.get(name, name) if arrow.group(1) in ("3", "5") else name, "")
    return Key(ACTIONS[sequence], "") if sequence in ACTIONS else None
