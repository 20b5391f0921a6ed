"""The table of verbs and how the words of a command are read by it; no root, no loop."""

import shlex

import pytest

from p2p.errors import UsageError, UserError
from p2p.verbs import help as help_pages
from p2p.verbs.command import progress_line
from p2p.verbs.completing import candidates
from p2p.verbs.declare import (AFTER, MANY, MOST_BYTES, MOST_WORDS, OPTIONAL, TEXT, Argument, Option, Verb, bind, check_size,
                               number, port, ports, rate, read, seconds)
from p2p.verbs.lines import split
from p2p.verbs.options import GLOBAL
from p2p.verbs.people import parse_address
from p2p.verbs.table import VERBS


async def handler(command, node):
    """Never called here."""


TABLE = {verb.name: verb for verb in (
    Verb("list", "lists", handler, options=(Option("--wait", "N", "", number), Option("--all"), Option("-n", "N", "", number, 7))),
    Verb("start", "starts", handler, (Argument("APP"), Argument("NODE", MANY), Argument("ARGS", AFTER))),
    Verb("tell", "tells", handler, (Argument("NODE"), Argument("TEXT", TEXT))),
    Verb("rules", "shows", handler, (Argument("WORD", OPTIONAL),)),
    Verb("rules drop", "drops", handler, (Argument("N", kind=number),)),
)}


def parse(line):
    """(verb's name, global options, the verb's arguments as a dict) of a line."""
    parsed = read(line.split(), TABLE, GLOBAL)
    return parsed.verb.name, parsed.settings, vars(bind(parsed))


@pytest.mark.parametrize("line, expected", [
    ("list", ("list", {}, {"wait": None, "all": False, "n": 7})),
    ("list --wait 3 --all", ("list", {}, {"wait": 3, "all": True, "n": 7})),
    ("--json list --wait=3 -q", ("list", {"json": True, "q": True}, {"wait": 3, "all": False, "n": 7})),
    ("--home /x list -n5", ("list", {"home": "/x"}, {"wait": None, "all": False, "n": 5})),
    ("list -n 5 --home=/x", ("list", {"home": "/x"}, {"wait": None, "all": False, "n": 5})),
    ("start chat a b -- --json -x", ("start", {}, {"app": "chat", "node": ["a", "b"], "args": ["--json", "-x"]})),
    ("start chat --json", ("start", {"json": True}, {"app": "chat", "node": [], "args": []})),
    ("tell bob a b  c", ("tell", {}, {"node": "bob", "text": "a b c"})),
    ("tell bob -- --json - x", ("tell", {}, {"node": "bob", "text": "--json - x"})),
    ("rules", ("rules", {}, {"word": None})),
    ("rules other", ("rules", {}, {"word": "other"})),
    ("rules drop 3", ("rules drop", {}, {"n": 3})),
])
def test_words_become_what_the_declaration_says(line, expected):
    assert parse(line) == expected


@pytest.mark.parametrize("line, message", [
    ("lst", "lst: no such verb; did you mean list?"),
    ("zzzzz", "zzzzz: no such verb; `help` lists them all"),
    ("list --wat 3", "list has no option --wat; did you mean --wait?"),
    ("list --jsn", "list has no option --jsn; did you mean --json?"),
    ("--qqqqqq list", "there is no option --qqqqqq; `help` lists them"),
    ("list --wait", "--wait needs a value: --wait N"),
    ("list --wait x", "--wait: 'x' is not a whole number from 1 on"),
    ("list --wait 0", "--wait: '0' is not a whole number from 1 on"),
    ("list --all=1", "--all takes no value"),
    ("list more", "'more' is too much: list [--wait N] [--all] [-n N]"),
    ("list -- more", "'more' is too much: list [--wait N] [--all] [-n N]"),
    ("start", "APP is missing: start APP [NODE...] [-- ARGS]"),
    ("tell bob", "TEXT is missing: tell NODE TEXT"),
    ("rules drop x", "N: 'x' is not a whole number from 1 on"),
    ("--color blue list", "--color: 'blue' is not auto or always or never"),
    ("--app-ports 9-3 list", "--app-ports: '9-3' is not a range of ports such as 50000-50100"),
])
def test_each_mistake_is_one_line_that_names_it_and_the_nearest_right(line, message):
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert str(caught.value) == message
    assert (caught.value.exit, caught.value.code) == (2, "usage")


def test_words_for_the_root_are_kept_and_options_of_this_process_are_not():
    local = ["--home", "--json"]
    parsed = read("--home /x -v list --json --wait 3 --all".split(), TABLE, GLOBAL, local)
    assert parsed.kept == ["-v", "list", "--wait", "3", "--all"]
    assert read("start x -- --home /y".split(), TABLE, GLOBAL, local).kept == ["start", "x", "--", "--home", "/y"]


@pytest.mark.parametrize("kind, good, bad", [
    (number, {"1": 1, "007": 7, "999999999": 999999999}, ["", "0", "-1", "1.5", "1e3", "\u0663", "9" * 10, " 1"]),
    (seconds, {"0": 0, "2.5": 2.5, "1e3": 1000}, ["", "-1", "nan", "inf", "1e7", "x"]),
    (rate, {"500": 500, "500K": 512000, "2m": 2 << 20, "1.5G": 3 << 29}, ["", "0", "K", "-5", "nan", "5T", "1e99"]),
    (port, {"0": 0, "47474": 47474}, ["", "65536", "-1", "x", "99999999"]),
    (ports, {"1-65535": (1, 65535), "80-80": (80, 80)}, ["", "80", "-", "0-5", "5-4", "1-65536", "a-b"]),
    (parse_address, {"h": ("h", 47474), "h:9": ("h", 9), "1.2.3.4:0": ("1.2.3.4", 47474), "[::1]:5": ("::1", 5),
                     "[fe80::1%eth0]": ("fe80::1%eth0", 47474), "fe80::1": ("fe80::1", 47474)},
     ["", ":5", "h:", "h:x", "h:70000", "[]:5", "a b", "h" * 300]),
])
def test_values_are_what_they_say_and_nothing_else(kind, good, bad):
    assert {word: kind(word) for word in good} == good
    for word in bad:
        with pytest.raises(ValueError):
            kind(word)


def test_a_command_that_cannot_be_sent_is_refused_before():
    check_size(["x" * MOST_BYTES] * MOST_WORDS)
    for words in (["x"] * (MOST_WORDS + 1), ["x" * (MOST_BYTES + 1)], ["\u00e9" * MOST_BYTES], ["\udcff"]):
        with pytest.raises(UsageError):
            check_size(words)


@pytest.mark.parametrize("line, words", [
    ("", []), ("  # all of it", []), ("a  b\tc\r", ["a", "b", "c"]), ("a#b #c", ["a#b"]), ("say bob 'a # b'", ["say", "bob", "a # b"]),
    ("''", [""]), ('a"b c"d', ["ab cd"]), (r'"a\"b\\c\d"', ['a"b\\c\\d']), (r"a\ b \# c", ["a b", "#", "c"]), ("caf\u00e9", ["caf\u00e9"]),
])
def test_a_line_is_split_as_a_shell_would_with_comments_at_words_only(line, words):
    assert split(line) == words


@pytest.mark.parametrize("line", ["say 'a", 'say "a', "say a\\", '"a\\'])
def test_a_line_that_is_not_finished_is_refused(line):
    with pytest.raises(UsageError):
        split(line)


def test_split_agrees_with_shlex_wherever_there_is_no_comment():
    alphabet = "ab '\"\\\t"
    for count in range(len(alphabet) ** 5):
        line = "".join(alphabet[count // len(alphabet) ** place % len(alphabet)] for place in range(5))
        try:
            expected = shlex.split(line)
        except ValueError:
            expected = None
        try:
            found = split(line)
        except UsageError:
            found = None
        assert found == expected, repr(line)


# -- the real table

def test_every_verb_is_explained_with_an_example_that_fits_its_own_declaration():
    for verb in VERBS.values():
        assert verb.about and verb.about[0].islower() and not verb.about.endswith("."), verb.name
        parsed = read(split(verb.example), VERBS, GLOBAL)
        assert parsed.verb is verb
        bind(parsed)
        for option in verb.options:
            assert option.about, f"{verb.name} {option.name}"


def test_no_option_of_a_verb_hides_a_global_one():
    taken = {option.name for option in GLOBAL}
    for verb in VERBS.values():
        assert not taken & {option.name for option in verb.options}, verb.name
        fields = [part.field for part in (*verb.options, *verb.arguments)]
        assert len(fields) == len(set(fields)), verb.name


def test_help_names_every_verb_and_every_option_and_fits_a_terminal():
    overview = help_pages.page(None, VERBS)
    for verb in VERBS.values():
        assert any(line.startswith(f"  {verb.name}") for line in overview)
        lines = help_pages.page(verb.name, VERBS)
        assert lines[0] == f"usage: {verb.usage}"
        assert f"example: {verb.example}" in lines
        for option in verb.options:
            assert any(option.usage in line for line in lines)
    assert max(map(len, overview)) <= 100
    with pytest.raises(UserError) as caught:
        help_pages.page("nods", VERBS)
    assert "nodes" in str(caught.value)


NAMES = {"node": ["ann", "bob"], "target": ["all", "ann"], "app": ["chat", "cards"], "job": ["1", "2"], "request": ["3"]}


@pytest.mark.parametrize("before, words", [
    ("no", ["nodes"]), ("", None), ("ping ", ["ann", "bob"]), ("ping a", ["ann"]), ("ping ann ", []), ("ping -c 3 b", ["bob"]),
    ("ping -c ", []), ("run ", ["chat", "cards"]), ("run ca", ["cards"]), ("run chat ann b", ["bob"]), ("run chat -- a", []),
    ("run chat --w", ["--wait"]), ("sync chat --from ", ["ann", "bob"]), ("sync chat c", ["chat", "cards"]), ("say a", ["all", "ann"]),
    ("say ann a", []), ("attach ", ["1", "2"]), ("allow ", ["3"]), ("rules ", ["drop"]), ("rules drop ", []), ("help pin", ["ping"]),
    ("nodes --j", ["--json"]), ("nonsense a", []), ("share ", []),
])
def test_completion_offers_what_the_declaration_has_at_that_place(before, words):
    found = candidates(before, VERBS, NAMES)
    assert found == words if words is not None else {"nodes", "run", "rules"} <= set(found) and "rules drop" not in found


def test_progress_says_how_far_how_fast_and_how_long_still():
    assert progress_line("chat", 512 << 10, 1 << 20, 1.0) == \
        "chat   50 % [##########..........] 512.0 KiB of 1.0 MiB, 512.0 KiB/s, 1.0 s left"
    assert progress_line("chat", 0, 0, 0.0).startswith("chat    0 % [....................] 0 B of 0 B")
