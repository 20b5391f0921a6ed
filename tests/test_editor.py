"""The line editor: keys as terminals send them, what stands in the line, and how a screen shows it."""

import random

import pytest

from p2p.terminal import editor as editing
from p2p.terminal.editor import Candidates, Clear, Editor, EndOfFile, Interrupt, Line, Refused, layout
from p2p.terminal.keys import MAX_PASTE, Key, Keys
from tests.lab.screen import Screen

LEFT, RIGHT, UP, DOWN, HOME, END, DELETE = b"\x1b[D", b"\x1b[C", b"\x1b[A", b"\x1b[B", b"\x1b[H", b"\x1b[F", b"\x1b[3~"


def typed(*keys, complete=None):
    """An editor after these keys, and all events."""
    editor = Editor("> ", complete)
    events = [event for key in keys for event in editor.feed(key if isinstance(key, bytes) else key.encode())]
    return editor, events


def line(*keys):
    """The line after these keys, with a | for the cursor."""
    editor, _ = typed(*keys)
    return editor.text[:editor.cursor] + "|" + editor.text[editor.cursor:]


@pytest.mark.parametrize("keys, shown", [
    (["abc", LEFT, "x"], "abx|c"), (["abc", HOME, RIGHT, DELETE], "a|c"), (["abc", b"\x7f"], "ab|"), (["abc", b"\x08\x08"], "a|"),
    (["abc", HOME, b"\x7f", LEFT], "|abc"), (["abc", DELETE, RIGHT], "abc|"),
    (["abc", b"\x01", "x", b"\x05", "y"], "xabcy|"), (["abc", b"\x1bOH", "x", b"\x1bOF", "y"], "xabcy|"),
    (["abc", b"\x1b[1~", "x", b"\x1b[4~", "y", b"\x1b[7~", "z", b"\x1b[8~"], "zxabcy|"),
    (["one two", LEFT, b"\x15"], "|o"), (["one two", HOME, RIGHT, b"\x0b"], "o|"),
    (["one two  ", b"\x17"], "one |"), (["one", b"\x17", b"\x17"], "|"), (["one two", LEFT, b"\x17"], "one |o"),
    (["one two", b"\x1b[1;5D", "x", b"\x1b[1;5D", b"\x1b[1;3D"], "|one xtwo"),
    (["one two", HOME, b"\x1bf", b"\x1bf", b"\x1bb"], "one |two"),
    (["ab", b"\x04", LEFT, b"\x04"], "a|"), (["ab", b"\x02\x02\x06", "x"], "ax|b"),
    (["日本", LEFT, b"\x7f"], "|本"), (["e\u0301x", LEFT, b"\x7f"], "|x"), (["ae\u0301", LEFT, b"\x1b[3~"], "a|"),
    (["a\u3000b"], "a\u3000b|"), (["a\u200bb\u202ec"], "abc|"), ([b"\x1b[15~", b"\x1b[[A", b"\x1b[1;2P", b"\x1bOP", b"\x1bz", "a"], "a|"),
])
def test_keys_do_what_they_do_everywhere(keys, shown):
    assert line(*keys) == shown


def test_every_split_of_the_bytes_gives_the_same_line():
    keys = "aé日e\u0301".encode() + LEFT + b"\x1b[3;5~" + b"\x1b[200~p\r\nq\x1b[201~" + "ö".encode()
    keys += b"\x1b]11;rgb:0/0/0\x1b\\" + b"\x1b\x7fz\r\n\r"
    whole = typed(keys)[1]
    assert whole == [Line("aé日p ze\u0301"), Line("")]
    assert typed(*[keys[at:at + 1] for at in range(len(keys))])[1] == whole
    for at in range(len(keys)):
        assert typed(keys[:at], keys[at:])[1] == whole


def test_ctrl_c_works_after_any_broken_sequence():
    for start in (b"\x1b", b"\x1b[", b"\x1b[1;", b"\x1bO", b"\x1b]0;title", b"\x1b\x1b", b"\x1b[[", b"\xc3"):
        _, events = typed(start, b"\x03")
        assert [type(event) for event in events] == [Interrupt], start


def test_enter_interrupt_and_end():
    assert typed("abc\r")[1] == [Line("abc")]
    assert typed("abc", LEFT, b"\n")[1] == [Line("abc")]
    assert typed("one\rtwo\r\nthree\n")[1] == [Line("one"), Line("two"), Line("three")]
    assert typed("abc\x03def\r")[1] == [Interrupt("abc"), Line("def")]
    assert typed("\x04")[1] == [EndOfFile()] and typed("a\x04")[1] == []
    assert typed("a\x0c")[1] == [Clear()]


def test_a_paste_executes_nothing_and_controls_in_it_vanish():
    editor, events = typed(b"say \x1b[200~one\r\ntwo\tthree\x03\x1b[A\nfour\x1b[201~!")
    assert events == [] and editor.text == "say one two three[A four!"


def test_a_huge_paste_and_endless_typing_are_bounded():
    editor, events = typed(b"\x1b[200~", *[b"x" * 4096] * 100, b"\x1b[201~", "y" * 10)
    assert len(editor.text) == editing.MAX_LINE and Refused() in events
    keys = Keys()
    for _ in range(100):
        keys.feed(b"\x1b[200~" + b"x" * 4096)
    assert len(keys._paste) + len(keys._rest) <= MAX_PASTE + 10
    keys = Keys()
    for _ in range(100):
        keys.feed(b"\x1b]" if not keys._rest else b"x" * 100)
    assert len(keys._rest) < 1000


def test_history_goes_back_and_returns_to_the_draft():
    editor, events = typed("one\r", "two\r", "two\r", "  \r", "dra", UP)
    assert editor.text == "two"
    editor.feed(UP)
    assert editor.text == "one" and editor.feed(UP) == [Refused()]
    editor.feed(DOWN + DOWN)
    assert editor.text == "dra" and editor.cursor == 3 and editor.feed(b"\x0e") == [Refused()]
    editor.feed(b"\x10x\r")
    editor.feed(b"\x10")
    assert editor.text == "twox"


def test_the_history_is_bounded(monkeypatch):
    monkeypatch.setattr(editing, "MAX_HISTORY", 3)
    editor, _ = typed("1\r2\r3\r4\r", UP, UP, UP, UP)
    assert editor.text == "2"


def test_completion_extends_then_lists():
    asked = []

    def complete(text, cursor):
        asked.append((text, cursor))
        return [word for word in ("nodes", "networks", "new", "say") if word.startswith(text[:cursor].split(" ")[-1])]
    editor, events = typed("s\t", complete=complete)
    assert editor.text == "say " and asked == [("s", 1)] and events == []
    editor, events = typed("run n\t", complete=complete)
    assert editor.text == "run n" and events == [Refused()]
    assert editor.feed(b"\t") == [Candidates(["networks", "new", "nodes"])]
    editor.feed(b"et\t x")
    assert editor.text == "run networks  x"
    editor, events = typed("ne all", HOME, RIGHT, RIGHT, "\t\t", complete=complete)
    assert editor.text == "ne all" and events == [Refused(), Candidates(["networks", "new"])]
    assert typed("q\t", complete=complete)[1] == [Refused()] and typed("q\t")[1] == [Refused()]
    assert typed("d\t", complete=lambda *_: ["dir/"])[0].text == "dir/"


def show(text, cursor, columns, rows=10, prompt="> "):
    """The rows and the cursor of a terminal that has drawn this line."""
    editor = Editor(prompt)
    editor.text, editor.cursor = text, cursor
    drawn, row = editor.render(columns, rows)
    screen = Screen(rows, columns)
    screen.feed(drawn.encode())
    assert screen.cursor[0] == row and not screen.unknown
    return [text for text in screen.lines() if text], screen.cursor


@pytest.mark.parametrize("text, cursor, rows, at", [
    ("abc", 3, ["> abc"], (0, 5)), ("abc", 0, ["> abc"], (0, 2)), ("", 0, [">"], (0, 2)),
    ("abcdefgh", 8, ["> abcdefgh"], (1, 0)), ("abcdefgh", 7, ["> abcdefgh"], (0, 9)), ("abcdefghi", 8, ["> abcdefgh", "i"], (1, 0)),
    ("abcdefghi", 0, ["> abcdefgh", "i"], (0, 2)), ("1234567日本", 9, ["> 1234567", "日本"], (1, 4)),
    ("1234567日", 7, ["> 1234567", "日"], (1, 0)), ("日本語日本", 2, ["> 日本語日", "本"], (0, 6)), ("日本語日", 4, ["> 日本語日"], (1, 0)),
    ("1234567e\u0301", 9, ["> 1234567e\u0301"], (1, 0)),
])
def test_lines_wrap_as_the_terminal_wraps_them(text, cursor, rows, at):
    assert show(text, cursor, 10) == (rows, at)


def test_a_line_longer_than_the_screen_shows_the_part_around_the_cursor():
    text = "".join(chr(97 + at // 10 % 26) for at in range(100))
    assert show(text, 100, 10, rows=4, prompt="") == (["h" * 10, "i" * 10, "j" * 10], (3, 0))
    assert show(text, 0, 10, rows=4, prompt="") == (["a" * 10, "b" * 10, "c" * 10, "d" * 10], (0, 0))
    assert show(text, 55, 10, rows=4, prompt="") == (["f" * 10, "g" * 10, "h" * 10, "i" * 10], (0, 5))


def test_any_line_looks_as_a_terminal_would_show_it_and_the_cursor_stands_on_its_character():
    chance = random.Random(7)
    for _ in range(400):
        columns, prompt = chance.randint(2, 12), chance.choice(["", "> ", "日> "])
        text = "".join(chance.choice("ab日e\u0301 ") for _ in range(chance.randint(0, 40)))
        cursor = chance.choice([at for at in range(len(text) + 1) if at == len(text) or text[at] != "\u0301"])
        _, at = show(text, cursor, columns, rows=60, prompt=prompt)
        assert at == layout(prompt + text, columns)[len(prompt) + cursor]
        plain = Screen(60, columns)
        plain.feed((prompt + text).encode())
        assert show(text, cursor, columns, rows=60, prompt=prompt)[0] == [row for row in plain.lines() if row]


def test_unknown_bytes_never_break_the_editor():
    chance = random.Random(11)
    pieces = [b"\x1b", b"[", b"O", b"]", b"\x1b[200~", b"\x1b[201~", b"1;5", b"D", b"\r", b"\n", b"\t", b"\x7f", b"\x03", b"\x04",
              "日".encode(), b"\xff", b"\xc3", b"\x9b", b"a", b"\x17", b"~"]
    editor = Editor("> ", lambda text, cursor: ["aa", "ab"])
    for _ in range(3000):
        editor.feed(b"".join(chance.choice(pieces) for _ in range(chance.randint(1, 6))))
        assert 0 <= editor.cursor <= len(editor.text) and (editor.text.isprintable() or "\u3000" in editor.text)
        editor.render(20, 5)
    assert Key("text", "a") in Keys().feed(b"a")
