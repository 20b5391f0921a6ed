"""The tests' own terminal emulator draws what xterm draws."""
import pytest

from tests.lab.screen import Screen


def drawn(*chunks, rows=4, columns=10):
    screen = Screen(rows, columns)
    for chunk in chunks:
        screen.feed(chunk if isinstance(chunk, bytes) else chunk.encode())
    return screen


@pytest.mark.parametrize("written, seen, cursor", [
    ("one\r\ntwo", ["one", "two"], (1, 3)),
    ("0123456789", ["0123456789"], (0, 9)),                          # the wrap is deferred ...
    ("0123456789x", ["0123456789", "x"], (1, 1)),                    # ... until the next character
    ("0123456789\r\nx", ["0123456789", "x"], (1, 1)),                # and not added to a line feed
    ("0123456789\x1b[Kx", ["012345678x"], (0, 9)),
    ("\x1b[?7l0123456789xyz", ["012345678z"], (0, 9)),
    ("日本語日本語", ["日本語日本", "語"], (1, 2)),
    ("x日本語日本", ["x日本語日", "本"], (1, 2)),                     # a wide one never straddles the margin
    ("日\x1b[1;2Hx", [" x"], (0, 2)),                                # half a wide character is none
    ("e\u0301te\u0301", ["e\u0301te\u0301"], (0, 3)),
    ("\x1b]0;a title\x07text", ["text"], (0, 4)),
    ("abcdef\x1b[3D\x1b[2P", ["abcf"], (0, 3)),
    ("abcdef\x1b[3G\x1b[2@", ["ab  cdef"], (0, 2)),
    ("abcdef\x1b[3G\x1b[1K", ["   def"], (0, 2)),
    ("abcdef\x1b[2J", [], (0, 6)),
    ("a\r\nb\r\nc\x1b[2;1H\x1b[L", ["a", "", "b", "c"], (1, 0)),
    ("a\r\nb\r\nc\x1b[1;1H\x1b[M", ["b", "c"], (0, 0)),
    ("a\r\nb\r\nc\r\nd\x1b[1;2r\x1b[2;1H\nx", ["b", "x", "c", "d"], (1, 1)),
    ("a\r\nb\r\nc\r\nd\r\ne", ["b", "c", "d", "e"], (3, 1)),
    ("\x1b7abc\x1b8x", ["xbc"], (0, 1)),
    ("main\x1b[?1049h\x1b[Halt\x1b[?1049l", ["main"], (0, 4)),
    ("a\tb", ["a       b"], (0, 9)),
])
def test_what_is_written_is_seen_as_in_a_real_terminal(written, seen, cursor):
    screen = drawn(written)
    assert screen.text().split("\n") == (seen or [""])
    assert screen.cursor == cursor
    assert screen.unknown == []


def test_sequences_may_be_split_anywhere():
    data = "é\x1b[31mred\x1b[0m\x1b]0;t\x1b\\日\x1b[1;1H".encode()
    whole = drawn(data)
    for at in range(len(data)):
        parts = drawn(data[:at], data[at:])
        assert (parts.lines(), parts.cursor) == (whole.lines(), whole.cursor)
    assert whole.text() == "éred日"


def test_lines_that_scroll_off_are_history():
    assert drawn("1\r\n2\r\n3\r\n4\r\n5\r\n6").history == ["1", "2"]


def test_the_terminal_answers_where_the_cursor_is():
    screen = drawn("\r\nabc\x1b[6n")
    assert screen.replies() == b"\x1b[2;4R"
    assert screen.replies() == b""


def test_a_smaller_window_keeps_the_line_of_the_cursor():
    screen = drawn("1\r\n2\r\n3\r\n4")
    screen.resize(2, 20)
    assert screen.lines() == ["3", "4"] and screen.history == ["1", "2"]
    screen.resize(4, 5)
    assert screen.lines() == ["3", "4", "", ""] and screen.cursor == (1, 1)


def test_what_it_does_not_know_is_remembered():
    assert drawn("\x1b[5y").unknown == ["\x1b[5y"]
