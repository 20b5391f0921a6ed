"""The line that is being typed: keys in, events out, and how it looks. No terminal, no clock.

`feed(bytes)` returns what happened: a Line was entered, the user wants to interrupt, end or clear, or there are
several ways to complete a word. `render(columns, rows)` draws prompt and line from the first column of an empty
row. The line is left to the terminal to wrap, so that it reflows and copies as one line; what has to be known for
the cursor is computed by the terminal's own rule: a character that does not fit goes to the next row, and one in
the last column leaves the cursor there until the next comes. After a line that fills its row exactly a blank is
drawn and taken back, which makes the terminal go down (readline does the same).

What is kept is a str and an index. The cursor never stands inside a character and its combining marks.
"""

from collections import namedtuple

from ..text import width
from .keys import Keys

Line = namedtuple("Line", "text")
Interrupt = namedtuple("Interrupt", "text")
EndOfFile = namedtuple("EndOfFile", "")
Clear = namedtuple("Clear", "")
Refused = namedtuple("Refused", "")
Candidates = namedtuple("Candidates", "words")

Line.__doc__ = "Enter: the line is complete."
Interrupt.__doc__ = "Ctrl-C: this line was given up."
EndOfFile.__doc__ = "Ctrl-D on an empty line."
Clear.__doc__ = "Ctrl-L: an empty screen, please."
Refused.__doc__ = "The line is full, or there is nothing to complete: a beep."
Candidates.__doc__ = "A second TAB: the words that would fit."

MAX_LINE = 1 << 14       # characters; four times the longest `say`
MAX_HISTORY = 1000       # lines


class Editor:
    """`complete(line, cursor)` gives the words that could stand in place of the one before the cursor."""

    def __init__(self, prompt="", complete=None):
        self.prompt = prompt
        self.text = ""
        self.cursor = 0
        self._complete = complete
        self._keys = Keys()
        self._history = []
        self._at = 0                     # the place in the history that is shown; its end: none
        self._draft = ""                 # the line as it was before the history was looked at
        self._was_completed = False

    def feed(self, data: bytes) -> list:
        """Take what was typed; the events in their order."""
        events = []
        for key in self._keys.feed(data):
            was_completed, self._was_completed = self._was_completed, False
            if key.name in ("text", "paste"):
                event = self._insert(_printable(key.text))
            elif key.name == "complete":
                event = self._complete_word(was_completed)
            else:
                event = ACTIONS[key.name](self)
            if event is not None:
                events.append(event)
        return events

    # -- changing

    def _insert(self, text):
        room = MAX_LINE - len(self.text)
        self.text = self.text[:self.cursor] + text[:room] + self.text[self.cursor:]
        self.cursor += min(len(text), room)
        return Refused() if len(text) > room else None

    def _remove(self, start, end):
        self.text = self.text[:start] + self.text[end:]
        self.cursor = start

    def _replace(self, text):
        self.text, self.cursor = text, len(text)

    def _backspace(self):
        self._remove(self._before(), self.cursor)

    def _delete(self):
        self._remove(self.cursor, self._behind())

    def _delete_or_end(self):
        if not self.text:
            return EndOfFile()
        self._delete()
        return None

    def _kill_left(self):
        self._remove(0, self.cursor)

    def _kill_right(self):
        self._remove(self.cursor, len(self.text))

    def _kill_word(self):
        self._remove(self._word_before(), self.cursor)

    # -- moving

    def _before(self):
        at = max(0, self.cursor - 1)
        while at and not width(self.text[at]):
            at -= 1
        return at

    def _behind(self):
        at = min(len(self.text), self.cursor + 1)
        while at < len(self.text) and not width(self.text[at]):
            at += 1
        return at

    def _word_before(self):
        return len(self.text[:self.cursor].rstrip().rpartition(" ")[0]) + (" " in self.text[:self.cursor].rstrip())

    def _word_behind(self):
        rest = self.text[self.cursor:]
        blank = rest.find(" ", len(rest) - len(rest.lstrip()))
        return len(self.text) if blank < 0 else self.cursor + blank

    def _move(self, to):
        self.cursor = to

    # -- the history

    def _up(self):
        return self._show_history(self._at - 1)

    def _down(self):
        return self._show_history(self._at + 1)

    def _show_history(self, at):
        if not 0 <= at <= len(self._history):
            return Refused()
        if self._at == len(self._history):
            self._draft = self.text
        self._at = at
        self._replace(self._draft if at == len(self._history) else self._history[at])
        return None

    # -- leaving the line

    def _enter(self):
        text = self._take()
        if text.strip() and self._history[-1:] != [text]:
            self._history = (self._history + [text])[-MAX_HISTORY:]
        self._at = len(self._history)
        return Line(text)

    def _interrupt(self):
        return Interrupt(self._take())

    def _take(self):
        text = self.text
        self._replace("")
        self._at, self._draft = len(self._history), ""
        return text

    # -- completion

    def _complete_word(self, is_second):
        words = sorted(set(self._complete(self.text, self.cursor))) if self._complete else []
        if not words:
            return Refused()
        start = self.text.rfind(" ", 0, self.cursor) + 1
        common = _common_start(words)
        if len(words) == 1:
            is_open = common.endswith(("/", "=", ":")) or self.text[self.cursor:self.cursor + 1] == " "
            common += "" if is_open else " "
        if len(common) > self.cursor - start or len(words) == 1:
            self._remove(start, self.cursor)
            return self._insert(_printable(common))
        self._was_completed = True
        return Candidates(words) if is_second else Refused()

    # -- looking

    def render(self, columns: int, rows: int) -> tuple:
        """(what draws it on an empty row and below, in which of these rows the cursor is then).

        A line that needs more than `rows` is shown in part, the cursor's row among them.
        """
        whole = self.prompt + self.text
        places = layout(whole, columns)
        (row, column), end = places[len(self.prompt) + self.cursor], places[-1]
        first = max(0, min(row, end[0] - rows + 1))
        last = min(end[0], first + rows - 1)
        shown = "".join(char for char, (at, _) in zip(whole, places) if first <= at <= last)
        if end == (last, 0) and whole:
            shown += " \r"               # the last row is full: make the terminal go down
        if (row, column) != end:
            shown += (f"\x1b[{last - row}A" if last > row else "") + "\r" + (f"\x1b[{column}C" if column else "")
        return shown, row - first


def layout(text: str, columns: int) -> list:
    """(row, column) of each character and of what would follow the last, as a terminal of this width wraps them."""
    places, row, column = [], 0, 0
    for char in text:
        cells = width(char)
        if column + cells > columns:
            row, column = row + 1, 0
        places.append((row, column))
        column += cells
    return places + [(row + 1, 0) if column >= columns else (row, column)]


def _printable(text):
    """What may stand in the line: line ends and tabs of a paste become blanks, other controls vanish."""
    if text.isprintable():
        return text
    from unicodedata import category
    return "".join(" " if char in "\t\n\r" else char for char in text.replace("\r\n", "\n")
                   if char in "\t\n\r" or category(char)[0] != "C" and category(char) not in ("Zl", "Zp"))


def _common_start(words):
    first, last = min(words), max(words)
    size = 0
    while size < len(first) and first[size:size + 1] == last[size:size + 1]:
        size += 1
    return first[:size]


ACTIONS = {
    "enter": Editor._enter, "interrupt": Editor._interrupt, "delete-or-end": Editor._delete_or_end, "clear": lambda editor: Clear(),
    "backspace": Editor._backspace, "delete": Editor._delete,
    "kill-left": Editor._kill_left, "kill-right": Editor._kill_right, "kill-word": Editor._kill_word,
    "home": lambda editor: editor._move(0), "end": lambda editor: editor._move(len(editor.text)),
    "left": lambda editor: editor._move(editor._before()), "right": lambda editor: editor._move(editor._behind()),
    "word-left": lambda editor: editor._move(editor._word_before()), "word-right": lambda editor: editor._move(editor._word_behind()),
    "up": Editor._up, "down": Editor._down,
}
