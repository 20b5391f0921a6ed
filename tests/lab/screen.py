"""A terminal's screen: bytes in, rows of characters out. Tests look at what a person would see.

It knows what line editors and full screens send: cursor movement, erasing, inserting, scrolling regions, the
alternate screen, wide and combining characters, and above all the *deferred wrap* of real terminals: a
character in the last column leaves the cursor there, and only the next one moves down. Editors that get this
wrong look right in a naive emulator. What it does not know it remembers in `unknown`, so that a test can
insist that a program sends nothing strange. Independent of the product's own width tables on purpose.

Sources: ECMA-48; xterm's ctlseqs; the parser states follow vt100.net/emu/dec_ansi_parser.
"""
import codecs
import re
import unicodedata

CSI = re.compile(r"\x1b\[([<=>?]?)([0-9;:]*)([ -/]*)([@-~])")
OSC = re.compile(r"\x1b[]PX^_].*?(?:\x07|\x1b\\)", re.DOTALL)
OTHER = re.compile(r"\x1b[ -/]*[0-~]")
TAB = 8          # columns between two tab stops
FILLER = ""      # the cell right of a wide character


def width(character):
    """How many cells a character takes: 0 (combining), 1 or 2."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class Screen:
    """`feed(bytes)`, then `lines()`, `cursor` (row, column from 0), `replies()` for what the terminal would answer."""

    def __init__(self, rows=24, columns=80):
        self.rows, self.columns = rows, columns
        self.unknown = []              # sequences that were not understood
        self.history = []              # lines that scrolled off the top of the main screen
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""                # an escape sequence of which the end has not come yet
        self._replies = b""
        self._reset()

    def _reset(self):
        self._cells = [self._blank() for _ in range(self.rows)]
        self._row = self._column = 0
        self._wrap_pending = False
        self._saved = (0, 0)
        self._top, self._bottom = 0, self.rows - 1
        self._main = None              # the main screen's cells while the alternate one shows
        self.modes = {7, 25}           # private modes that are on: 7 wraps, 25 shows the cursor

    def _blank(self):
        return [" "] * self.columns

    @property
    def cursor(self):
        """Row and column of the cursor, from 0."""
        return self._row, self._column

    def lines(self):
        """The rows from top to bottom as text, without blanks at their ends."""
        return ["".join(cells).rstrip() for cells in self._cells]

    def text(self):
        """The screen as one string, without the empty rows at the bottom."""
        return "\n".join(self.lines()).rstrip("\n")

    def replies(self):
        """What a real terminal would have answered since the last call (cursor position, device attributes)."""
        replies, self._replies = self._replies, b""
        return replies

    def resize(self, rows, columns):
        """A new size as xterm does it: no reflow; rows go off the top if the cursor would fall off the bottom."""
        while self._row >= rows:
            self.history.append("".join(self._cells.pop(0)).rstrip())
            self._row -= 1
        self._cells = [(cells + [" "] * columns)[:columns] for cells in self._cells[:rows]]
        self.rows, self.columns = rows, columns
        self._cells += [self._blank() for _ in range(rows - len(self._cells))]
        self._top, self._bottom = 0, rows - 1
        self._column = min(self._column, columns - 1)
        self._wrap_pending = False

    def feed(self, data):
        """Draws what a program has written; sequences and characters may be split anywhere."""
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        at = 0
        while at < len(text):
            character = text[at]
            if character != "\x1b":
                self._put(character)
                at += 1
                continue
            match = CSI.match(text, at) or OSC.match(text, at) or (
                None if text[at + 1:at + 2] in tuple("[]PX^_") else OTHER.match(text, at))
            if match is None:
                if len(text) - at > 4096:
                    raise AssertionError(f"an escape sequence without an end: {text[at:at + 40]!r}…")
                self._rest = text[at:]
                return
            self._escape(match)
            at = match.end()

    # Characters

    def _put(self, character):
        if character >= " " and character != "\x7f":
            self._draw(character)
        elif character == "\r":
            self._move(self._row, 0)
        elif character in "\n\v\f":
            self._line_feed()
        elif character == "\b":
            self._move(self._row, self._column - 1)
        elif character == "\t":
            self._move(self._row, (self._column // TAB + 1) * TAB)

    def _draw(self, character):
        cells = width(character)
        if cells == 0:
            self._combine(character)
            return
        if 7 in self.modes and (self._wrap_pending or self._column + cells > self.columns):
            self._column = 0
            self._line_feed()
        self._column = min(self._column, self.columns - cells)
        row = self._cells[self._row]
        self._break_wide(row, self._column, cells)
        row[self._column] = character
        if cells == 2:
            row[self._column + 1] = FILLER
        self._column += cells
        self._wrap_pending = self._column >= self.columns
        self._column = min(self._column, self.columns - 1)

    def _combine(self, character):
        at = self._column if self._wrap_pending else self._column - 1
        if at >= 0 and self._cells[self._row][at] == FILLER:
            at -= 1
        if at >= 0:
            self._cells[self._row][at] += character

    @staticmethod
    def _break_wide(row, at, cells):
        """Writing over one half of a wide character blanks its other half."""
        if row[at] == FILLER:
            row[at - 1] = " "
        after = at + cells
        if after < len(row) and row[after] == FILLER:
            row[after] = " "

    # Movement and scrolling

    def _move(self, row, column):
        self._row = max(0, min(row, self.rows - 1))
        self._column = max(0, min(column, self.columns - 1))
        self._wrap_pending = False

    def _line_feed(self):
        self._wrap_pending = False
        if self._row == self._bottom:
            self._scroll(1)
        else:
            self._row = min(self._row + 1, self.rows - 1)

    def _scroll(self, count, top=None):
        """Moves the region from `top` to the bottom margin up by `count` rows (down if negative)."""
        first = self._top if top is None else top
        for _ in range(min(abs(count), self.rows)):
            if count > 0:
                gone = self._cells.pop(first)
                self._cells.insert(self._bottom, self._blank())
                if first == 0 and self._main is None and top is None:
                    self.history.append("".join(gone).rstrip())
            else:
                self._cells.pop(self._bottom)
                self._cells.insert(first, self._blank())

    # Escape sequences

    def _escape(self, match):
        sequence = match.group()
        if match.re is OSC:
            return
        if match.re is OTHER:
            self._plain_escape(sequence)
            return
        private, words, between, final = match.groups()
        numbers = [int(word) if word.isdigit() else 0 for word in words.replace(":", ";").split(";")]
        if private or between:
            self._private(private, between, final, numbers, sequence)
        elif final in MOVES:
            rows, columns = MOVES[final]
            count = max(1, numbers[0])
            self._move(self._row + rows * count, 0 if final in "EF" else self._column + columns * count)
        elif final in EDITS:
            EDITS[final](self, numbers)
        else:
            self.unknown.append(sequence)

    def _plain_escape(self, sequence):
        kind = sequence[1:]
        if kind == "7":
            self._saved = self.cursor
        elif kind == "8":
            self._move(*self._saved)
        elif kind == "c":
            self._reset()
        elif kind == "M":
            if self._row == self._top:
                self._scroll(-1)
            else:
                self._move(self._row - 1, self._column)
        elif kind in "DE":
            self._line_feed()
            self._column = 0 if kind == "E" else self._column
        elif kind[0] not in "()=>":
            self.unknown.append(sequence)

    def _private(self, private, between, final, numbers, sequence):
        if private == "?" and final in "hl" and not between:
            for mode in numbers:
                self._set_mode(mode, final == "h")
        elif not (final == "q" or (private and final in "mucn")):
            self.unknown.append(sequence)       # cursor shapes and keyboard protocols change nothing that is seen

    def _set_mode(self, mode, on):
        (self.modes.add if on else self.modes.discard)(mode)
        if mode not in (47, 1047, 1049) or on == (self._main is not None):
            return
        if on:
            self._main = (self._cells, self.cursor)
            self._cells = [self._blank() for _ in range(self.rows)]
        else:
            cells, cursor = self._main
            self._main = None
            self._cells = [(row + [" "] * self.columns)[:self.columns] for row in cells[:self.rows]]
            self._cells += [self._blank() for _ in range(self.rows - len(self._cells))]
            self._move(*cursor)

    def _place(self, numbers):
        self._move(max(1, numbers[0]) - 1, max(1, (numbers + [1])[1]) - 1)

    def _erase_line(self, numbers):
        row, kind = self._cells[self._row], numbers[0]
        start, end = ((self._column, self.columns), (0, self._column + 1), (0, self.columns))[min(kind, 2)]
        if row[start] == FILLER and start:
            row[start - 1] = " "
        row[start:end] = [" "] * (end - start)
        if end < self.columns and row[end] == FILLER:
            row[end] = " "
        self._wrap_pending = False

    def _erase_screen(self, numbers):
        kind = numbers[0]
        if kind < 2:
            self._erase_line(numbers)
        rows = (range(self._row + 1, self.rows), range(self._row), range(self.rows))[min(kind, 2)]
        for row in rows:
            self._cells[row] = self._blank()

    def _insert_cells(self, numbers):
        row = self._cells[self._row]
        row[self._column:self._column] = [" "] * max(1, numbers[0])
        del row[self.columns:]

    def _delete_cells(self, numbers):
        row = self._cells[self._row]
        del row[self._column:self._column + max(1, numbers[0])]
        row += [" "] * (self.columns - len(row))

    def _blank_cells(self, numbers):
        row, end = self._cells[self._row], min(self.columns, self._column + max(1, numbers[0]))
        row[self._column:end] = [" "] * (end - self._column)

    def _insert_rows(self, numbers):
        if self._top <= self._row <= self._bottom:
            self._scroll(-max(1, numbers[0]), top=self._row)

    def _delete_rows(self, numbers):
        if self._top <= self._row <= self._bottom:
            self._scroll(max(1, numbers[0]), top=self._row)

    def _set_region(self, numbers):
        top, bottom = max(1, numbers[0]) - 1, ((numbers + [0])[1] or self.rows) - 1
        if top < bottom < self.rows:
            self._top, self._bottom = top, bottom
            self._move(0, 0)

    def _report(self, numbers):
        if numbers[0] == 6:
            self._replies += b"\x1b[%d;%dR" % (self._row + 1, self._column + 1)
        elif numbers[0] == 5:
            self._replies += b"\x1b[0n"

    def _attributes(self, numbers):
        self._replies += b"\x1b[?62c"

    def _save(self, numbers):
        self._saved = self.cursor

    def _restore(self, numbers):
        self._move(*self._saved)


MOVES = {"A": (-1, 0), "B": (1, 0), "C": (0, 1), "D": (0, -1), "E": (1, 0), "F": (-1, 0), "a": (0, 1), "e": (1, 0)}

EDITS = {
    "H": Screen._place,
    "f": Screen._place,
    "G": lambda screen, numbers: screen._move(screen._row, max(1, numbers[0]) - 1),
    "d": lambda screen, numbers: screen._move(max(1, numbers[0]) - 1, screen._column),
    "J": Screen._erase_screen,
    "K": Screen._erase_line,
    "@": Screen._insert_cells,
    "P": Screen._delete_cells,
    "X": Screen._blank_cells,
    "L": Screen._insert_rows,
    "M": Screen._delete_rows,
    "S": lambda screen, numbers: screen._scroll(max(1, numbers[0])),
    "T": lambda screen, numbers: screen._scroll(-max(1, numbers[0])),
    "r": Screen._set_region,
    "n": Screen._report,
    "c": Screen._attributes,
    "s": Screen._save,
    "u": Screen._restore,
    "m": lambda screen, numbers: None,       # colours are not what these tests look at
    "h": lambda screen, numbers: None,
    "l": lambda screen, numbers: None,
    "t": lambda screen, numbers: None,
}
