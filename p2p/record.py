"""A line of the log about who ran what, and by whose word: words for a person, fields for a program, one form for both.

    2026-11-23 20:47:47 start: job=1 app=chat version=a6f9038f823f node=hg6rszxt… name=bob by="request 1" args="--size 3"

Names and arguments were chosen by others. So each value is cleaned and cut, and quoted as JSON unless it is one plain word: none
can end its quotes, begin another field, or look like one to `grep ' by=owner'`.
"""

import json
import re
import shlex

from .text import clean

# What is asked, answered and run. Lines of these kinds are made here and nowhere else, so they can be taken apart again.
KINDS = ("run", "asked", "unasked", "allow", "deny", "expired", "withdrawn", "answer", "start", "failed", "end", "kill", "rule")
MAX_VALUE = 200           # cells of one value
MAX_ARGUMENTS = 600       # of all arguments together
NUMBERS = frozenset(("job", "exit", "pid", "request", "rule"))

_PLAIN = re.compile(r"[A-Za-z0-9_.:,@/+-]+")
_LIKE_A_FIELD = re.compile(r"( [a-z]+)=")
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) ([a-z-]+): (.*)", re.DOTALL)
_FIELD = re.compile(r' ([a-z]+)=("(?:[^"\\]|\\.)*"|[^ "]+)')


def compose(fields) -> str:
    """The text of a line. `fields`: names with what is known; None is left out."""
    return " ".join(f"{name}={_quoted(value, MAX_ARGUMENTS if name == 'args' else MAX_VALUE)}"
                    for name, value in fields.items() if value is not None)


def _quoted(value, cells):
    text = clean(" ".join(map(shlex.quote, value)) if isinstance(value, list) else str(value), cells)
    return text if _PLAIN.fullmatch(text) else _LIKE_A_FIELD.sub(r"\1\\u003d", json.dumps(text, ensure_ascii=False))


def parse(line) -> dict:
    """What `log --json` prints for a line: `time`, `kind`, `text`, and the fields of one that was composed."""
    whole = _LINE.fullmatch(line)
    if whole is None:             # cut off by a full disk, or not ours
        return {"time": "", "kind": "", "text": line}
    row = dict(zip(("time", "kind", "text"), whole.groups()))
    if row["kind"] in KINDS:
        for name, value in _FIELD.findall(" " + row["text"]):
            value = json.loads(value) if value.startswith('"') else value
            row.setdefault(name, int(value) if name in NUMBERS and re.fullmatch(r"-?\d{1,18}", value) else value)
    return row
