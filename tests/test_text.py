import sys
import unicodedata

import pytest

from p2p import text
from p2p.text import MARK, clean, cut, pad, table, width

BAD = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
KINDS = [unicodedata.category(chr(number)) for number in range(sys.maxunicode + 1)]
HOSTILE = [chr(number) for number, kind in enumerate(KINDS) if kind in BAD and kind not in ("Co", "Cn")]
SAMPLE = [chr(number) for number, kind in enumerate(KINDS)        # of letters, unassigned and private ones: some
          if kind not in ("Lo", "Co", "Cn", "Cs") or number % 61 == 0 or number in range(0x1100, 0x1200)]


def is_harmless(line):
    return all(unicodedata.category(char) not in BAD for char in line)


def test_no_control_format_or_separator_character_survives_and_none_vanishes():
    assert len(HOSTILE) > 2000 and {"\x1b", "\x7f", "\x9b", "\u202e", "\u2028", "\u200d", "\ud800"} <= set(HOSTILE)
    for char in HOSTILE:
        shown = clean(f"bo{char}b")
        assert is_harmless(shown) and len(shown) == 4 and shown[2] in (MARK, " "), hex(ord(char))
        assert clean(f"bo{char}b", ascii_only=True).isascii()


def test_characters_of_every_kind_are_cleaned_to_the_width_that_is_told():
    for char in SAMPLE:
        shown = clean("a" + char)
        assert is_harmless(shown) and width(shown) <= 4 and "\n" not in shown
        assert clean(shown) == shown, hex(ord(char))


@pytest.mark.parametrize("foreign, shown", [
    ("bob", "bob"),
    ("Zoe\u0308", "Zo\u00eb"),
    ("\u0e17\u0e35\u0e48", "\u0e17\u0e35\u0e48"),
    ("\x1b[31mred\x1b[0m", f"{MARK}[31mred{MARK}[0m"),
    ("one\r\ntwo\tthree", "one  two three"),
    ("gpj.\u202eexe.txt", f"gpj.{MARK}exe.txt"),
    ("bob\u200b\u200c\u2060", f"bob{MARK}"),
    ("bob   \u3000\u00a0", "bob"),
    ("\u0301\u0302bob", f"{MARK}bob"),
    ("\u2764\ufe0f", "\u2764"),
    ("\u3164", MARK),
    (b"caf\xc3\xa9 \xff\xfe", f"caf\u00e9 {MARK}"),
    (b"\xed\xa0\x80", MARK),
    ("", ""),
    (bytearray(b"abc"), "abc"),
])
def test_what_becomes_of_a_foreign_string(foreign, shown):
    assert clean(foreign) == shown


def test_a_tower_of_accents_is_cut_down_also_where_normalising_would_raise_it():
    for accent in "\u0301", "\u0344", "\u20dd", "\u0489", "\u1161":
        shown = clean("z" + accent * 500 + "!")
        assert 2 <= len(shown) <= 2 + text.MAX_STACK and width(shown) <= 2
    assert clean("e\u0302\u0301\u0323") in ("\u1ec7\u0301", "\u1ebf\u0323")


def test_a_long_string_is_cut_by_cells_with_an_ellipsis_and_costs_no_time():
    assert clean("x" * 64) == "x" * 64
    assert clean("x" * 65) == "x" * 63 + "\u2026"
    assert clean("x" * 65, ascii_only=True) == "x" * 61 + "..."
    assert clean("\u6f22" * 100, 9) == "\u6f22" * 4 + "\u2026"
    assert clean("\u6f22" * 100, 10) == "\u6f22" * 4 + "\u2026"
    assert clean(b"\xe6\xbc\xa2" * 100, 9) == "\u6f22" * 4 + "\u2026"
    assert width(clean("z" + "\u0301\u0316" * 500_000, 4096)) <= 4096
    assert clean("bob" + "\x00" * 10_000) == f"bob{MARK}\u2026"
    assert [clean("abcdef", cells) for cells in range(4)] == ["", "\u2026", "a\u2026", "ab\u2026"]


def test_widths_are_cells_not_characters():
    assert width("abc") == 3 and width("\u6f22\u5b57") == 4 and width("e\u0301") == 1 and width("\U0001f600") == 2
    assert width("\u1112\u1161\u11ab") == 2 and width("\u00e9") == 1 and width("\uff21") == 2


def test_cut_and_pad_give_exactly_the_cells_asked_for():
    samples = ["", "a", "abcdefgh", "\u6f22\u5b57\u6f22\u5b57", "a\u6f22b\u5b57", "e\u0301e\u0301e\u0301e\u0301", "\U0001f600x"]
    for sample in samples:
        for cells in range(10):
            assert width(cut(sample, cells)) <= cells and width(cut(sample, cells, True)) <= cells
            assert width(pad(sample, cells)) == cells == width(pad(sample, cells, True))
    assert pad("7", 3, True) == "  7" and pad("a", 3) == "a  "


@pytest.mark.parametrize("count, shown", [
    (0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1258291, "1.2 MiB"), (1048575, "1.0 MiB"),
    (5 << 30, "5.0 GiB"), (1 << 63, "8.0 EiB"), (1 << 80, "1048576.0 EiB")])
def test_sizes(count, shown):
    assert text.size(count) == shown


@pytest.mark.parametrize("seconds, shown", [
    (-1, "0 ms"), (0.0124, "12 ms"), (0.0994, "99 ms"), (0.0996, "0.1 s"), (3.42, "3.4 s"), (59.94, "59.9 s"),
    (59.96, "1 min"), (119, "2 min"), (3599, "1.0 h"), (5400, "1.5 h"), (86399, "1 d"), (260000, "3 d")])
def test_durations(seconds, shown):
    assert text.duration(seconds) == shown


def test_ages_and_plurals():
    assert text.age(-2) == "now" and text.age(5.8) == "5.8 s ago"
    assert text.plural(1, "node") == "1 node" and text.plural(0, "node") == "0 nodes"
    assert text.plural(2, "entry", "entries") == "2 entries"


def test_a_table_is_aligned_by_cells():
    rows = [("\u6f22\u5b57", 5, "alive"), ("bob", 1234, None)]
    assert table(("NAME", "RTT", "STATE"), rows) == [
        "NAME   RTT  STATE",
        "\u6f22\u5b57     5  alive",
        "bob   1234"]
    assert table(("NAME", "RTT"), []) == ["NAME  RTT"]


def test_a_table_fits_the_terminal_and_is_whole_in_a_pipe():
    rows = [("x" * 200, "short", "y" * 50), ("\u6f22" * 90, "z", "")]
    for columns in 20, 79, 80, 132:
        assert max(width(line) for line in table(("A", "B", "C"), rows, columns)) <= columns
    assert "short" in table(("A", "B", "C"), rows, 40)[1]
    assert "x" * 200 in table(("A", "B", "C"), rows)[1]


def test_on_a_narrow_terminal_columns_go_before_they_become_unreadable():
    headers = ("NAME", "STATE", "ID", "ADDRESS", "RTT", "HEARD", "VERSION")
    rows = [("a name of some length", "suspect", "k3f9q2xw7a", "192.168.100.200:47474", "1.2 ms", "5.8 s ago", "0.1.0")]
    assert [len(table(headers, rows, columns)[0].split()) for columns in (6, 20, 40, 54, 80)] == [1, 2, 5, 7, 7]
    assert table(headers, rows, 20) == ["NAME         STATE", "a name of \u2026  suspect"]


def test_nothing_hostile_passes_through_a_table():
    lines = table(("NAME",), [("a\x1b[2J\nb\u202e",), (b"\x9b",)], 40)
    assert len(lines) == 3 and all(is_harmless(line) for line in lines)
