"""What people read: foreign strings made harmless, widths in terminal cells, units, tables.

`clean` is the one function through which every foreign string goes on its way to a screen or a log. A name
is chosen by whoever owns the other computer, so it may hold escape sequences that retype the user's prompt,
bidirectional controls that show "exe.txt" for "txt.exe", line ends that fake a second log line, or two hundred
accents on one letter. What comes out holds letters, marks, digits, punctuation, symbols and plain spaces only.

What is taken out leaves a visible mark instead of nothing: were "b<zero width space>ob" shown as "bob", the
cleaning itself would make the look-alike. Variation selectors are the one exception; they only choose between
two looks of a character, and after them both strings are the same, so comparing cleaned names finds the double.

Widths are those that terminals agree on (East Asian Wide and Fullwidth: 2, combining: 0, else 1). Characters
that this Python's Unicode does not know have no width that can be relied on, so they become the mark as well.
"""

from . import limits

MARK = "\ufffd"          # stands for what was taken out
ELLIPSIS = "\u2026"
LEAST = 6                # cells of a column of a table, or it is not shown
MAX_STACK = 3            # combining marks on one character: Hebrew and Thai use up to three, zalgo hundreds

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")   # fillers of categories L, M and S
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def clean(foreign, cells: int = limits.MAX_NAME, ascii_only: bool = False) -> str:
    """A foreign str, or bytes of UTF-8, as one harmless line of at most `cells` cells."""
    # Each shown character may bring its accents; beyond that nothing is looked at, so a megabyte costs no time
    most = (cells + 2) * (1 + MAX_STACK)
    text = foreign[:most + 1] if isinstance(foreign, str) else bytes(foreign[:4 * most + 4]).decode("utf-8", "replace")
    is_longer = len(text) > most
    text = text[:most]
    if not (text.isascii() and text.isprintable()):
        from unicodedata import normalize
        # Stacks are limited before (normalising takes quadratic time on them) and after (it makes some longer)
        text = _harmless(normalize("NFC", _harmless(text)))
        if ascii_only:
            text = "".join(char if char.isascii() else "?" for char in text)
    text = text.rstrip(" ")
    return _shorten(text, cells, ascii_only) if is_longer else cut(text, cells, ascii_only)


def block(foreign: str) -> str:
    """Foreign text of any length, harmless, with its line ends and tabs."""
    if foreign.isascii() and foreign.replace("\n", "").replace("\t", "").isprintable():
        return foreign
    from unicodedata import normalize
    lines = foreign.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(_harmless(normalize("NFC", _harmless(part))) for part in line.split("\t")) for line in lines)


def _harmless(text):
    from unicodedata import category
    shown = []
    room = -1                            # for accents on the last character; -1: it is none that can carry one
    for char in text:
        kind = _kind(char, category(char))
        if kind == "stacks" and room >= 0:
            if room:
                room -= 1
                shown.append(char)
        elif kind == "shown":
            room = MAX_STACK
            shown.append(char)
        elif kind == "space":
            room = -1
            shown.append(" ")
        elif kind != "gone":
            room = -1
            if shown[-1:] != [MARK]:
                shown.append(MARK)
    return "".join(shown)


def _kind(char, category):
    """What becomes of a character: shown, space, mark, stacks (a combining one), gone."""
    if _selects_variation(char):
        return "gone"
    if category[0] == "Z" or char in "\t\n\v\f\r\x85":
        return "space"
    if category[0] == "C" or char in _INVISIBLE or char == MARK:
        return "mark"
    return "stacks" if _stacks(char, category) else "shown"


def _selects_variation(char):
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef" or char in "\u180b\u180c\u180d\u180f"


def _stacks(char, category):
    # Korean letters for the middle and end of a syllable are drawn into the one before them
    return category in ("Mn", "Me") or "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7fb"


def width(text: str) -> int:
    """The terminal cells that a cleaned string takes."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width
    return sum(_cells(char, category, east_asian_width) for char in text)


def _cells(char, category, east_asian_width):
    if char < "\u0300":
        return 1
    if _stacks(char, category(char)):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def cut(text: str, cells: int, ascii_only: bool = False) -> str:
    """`text` if it fits into `cells`, else its beginning and an ellipsis, together at most `cells`."""
    return text if width(text) <= cells else _shorten(text, cells, ascii_only)


def _shorten(text, cells, ascii_only):
    from unicodedata import category, east_asian_width
    end = ("..." if ascii_only else ELLIPSIS)[:cells]
    room = cells - len(end)
    for at, char in enumerate(text):
        room -= _cells(char, category, east_asian_width)
        if room < 0:
            return text[:at] + end
    return text + end


def pad(text: str, cells: int, right: bool = False) -> str:
    """`text` in exactly `cells` cells: cut or filled up with spaces, before it if `right`."""
    text = cut(text, cells)
    fill = " " * (cells - width(text))
    return fill + text if right else text + fill


def size(count: float) -> str:
    """Bytes for people: "512 B", "1.2 MiB"."""
    step = 0
    while step < len(_SIZES) - 1 and (count >= 1024 or step and round(count, 1) >= 1024):
        count /= 1024
        step += 1
    return f"{count:.1f} {_SIZES[step]}" if step else f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Seconds for people: "12 ms", "3.4 s", "2 min", "1.5 h", "3 d"."""
    seconds = max(0.0, seconds)
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 23.95 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} d"


def age(seconds: float) -> str:
    """How long ago: "now", "5.8 s ago"."""
    return "now" if seconds < 0.05 else f"{duration(seconds)} ago"


def plural(count: int, noun: str, several: str = "") -> str:
    """"1 node", "2 nodes"; `several` for nouns that take more than an s."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def table(headers, rows, columns=None) -> list:
    """Aligned lines, the headers first; numbers to the right. Every cell is cleaned here.

    With `columns` (the terminal's width) the widest columns are cut until a line fits; what would be cut so short that it
    says nothing is left out, from the right, where the less important stands. Without (a pipe) all is whole.
    """
    if columns is not None:
        room = max(1, (columns + 2) // (LEAST + 2))
        headers, rows = list(headers)[:room], [list(row)[:room] for row in rows]
    cells = [[_cell(value) for value in row] for row in rows]
    numbers = [all(isinstance(row[at], (int, float)) for row in rows) and bool(rows) for at in range(len(headers))]
    widths = [max(width(line[at]) for line in [list(headers)] + cells) for at in range(len(headers))]
    _squeeze(widths, columns)
    lines = []
    for line in [list(headers)] + cells:
        padded = [pad(cell, wide, right) for cell, wide, right in zip(line, widths, numbers)]
        lines.append("  ".join(padded).rstrip())
    return lines


def _cell(value):
    if value is None:
        return ""
    return clean(value if isinstance(value, (str, bytes)) else str(value), limits.MAX_LINE)


def _squeeze(widths, columns):
    gaps = 2 * (len(widths) - 1)
    while columns is not None and sum(widths) + gaps > columns and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
