"""Fields that hold lists, dicts, other messages, nothing, or anything: what arrives, what is refused, what it may cost."""

import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from p2p import limits
from p2p.errors import PeerError
from p2p.message import Message, decode, encode

ROOT = Path(__file__).resolve().parent.parent


class Point(Message):
    x: int
    y: int = 0


class Path2(Message):
    points: List[Point]
    names: Dict[str, List[int]] = {}
    label: Optional[str] = None
    start: Optional[Point] = None


class Loose(Message):
    items: list = []
    table: dict = {}
    thing: Any = None


def arrives(message):
    back = decode(type(message), encode(message))
    assert back == message and encode(back) == encode(message)
    return back


def test_lists_dicts_messages_and_nothing_arrive_as_they_were_sent():
    message = Path2([Point(1), Point(2, 3)], {"a": [1, 2], "b": []}, "way", Point(-1))
    back = arrives(message)
    assert back.points[1].y == 3 and list(back.names) == ["a", "b"] and back.start == Point(-1, 0)
    assert arrives(Path2([])).label is None
    assert arrives(Path2(({"not a point"} and (Point(5),)))).points == [Point(5)]
    assert Path2.schema_text == ("Path2(points: list[Point(x: int, y: int)], names: dict[str, list[int]], label: str or None, "
                                 "start: Point(x: int, y: int) or None)")


def test_what_the_class_does_not_say_arrives_with_its_types():
    thing = {"a": [1, 2.5, True, None, b"x", "\u00e9", {}], 7: {False: []}, b"k": -2**63}
    back = arrives(Loose([thing, (1, 2)], thing, thing))
    assert back.thing == thing and list(back.thing) == ["a", 7, b"k"]
    assert [type(one) for one in back.thing["a"]] == [int, float, bool, type(None), bytes, str, dict]
    assert back.items[1] == [1, 2]


def test_random_values_arrive_and_cut_or_spoilt_bytes_are_refused():
    chance = random.Random(2)

    def value(depth):
        return chance.choice([
            lambda: None, lambda: chance.random() < 0.5, lambda: chance.randrange(-2**63, 2**63), lambda: chance.uniform(-1e9, 1e9),
            lambda: "x\u00e9" * chance.randrange(4), lambda: bytes(chance.randrange(4)),
            lambda: [value(depth - 1) for _ in range(chance.randrange(4))] if depth else 1,
            lambda: {chance.choice(["a", 3, b"x", True]): value(depth - 1) for _ in range(chance.randrange(3))} if depth else 2])()
    taken = 0
    for _ in range(300):
        data = encode(arrives(Loose([value(4) for _ in range(4)], {}, value(4))))
        for length in chance.sample(range(len(data)), min(20, len(data))):
            with pytest.raises(PeerError):
                decode(Loose, data[:length])
        spoilt = bytearray(data)
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        try:
            decode(Loose, bytes(spoilt))
            taken += 1
        except PeerError:
            pass
    assert taken < 290


def test_the_authors_own_values_stay_his_and_defaults_are_nobodys():
    points = [Point(1)]
    message = Path2(points)
    points.append(Point(2))
    assert message.points == [Point(1)] and message.points[0] is not points[0]
    Path2([]).names["shared"] = [1]
    Loose().items.append(1)
    assert Path2([]).names == {} and Loose().items == []


@pytest.mark.parametrize("make, words", [
    (lambda: Path2(5), "Path2.points: wants list[Point(x: int, y: int)], got int"),
    (lambda: Path2([Point(1), 3]), "Path2.points[1]: wants Point, got int"),
    (lambda: Path2([], {"a": [1, "2"]}), "Path2.names['a'][1]: wants int, got str"),
    (lambda: Path2([], {1: []}), "Path2.names key 1: wants str, got int"),
    (lambda: Path2([], label=3), "Path2.label: wants str, got int"),
    (lambda: Loose({}), "Loose.items: wants list, got dict"),
    (lambda: Loose(table=[]), "Loose.table: wants dict, got list"),
    (lambda: Loose(thing={1, 2}), "Loose.thing: cannot carry set; declare its class as a message and the field as that class"),
    (lambda: Loose(thing=Point(1)), "Loose.thing: cannot carry Point; declare"),
    (lambda: Loose(thing={1.5: 1}), "Loose.thing key: a key is a str, an int, a bool or bytes, not float"),
])
def test_a_wrong_part_is_told_with_its_place(make, words):
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value).startswith(words)


def test_a_part_that_was_spoilt_later_is_told_when_it_is_sent():
    message = Path2([Point(1)])
    message.points[0].x = "one"
    with pytest.raises(TypeError, match=r"Path2.points\[0\].x: wants int, got str"):
        encode(message)


def test_what_contains_itself_or_nests_without_end_is_refused_both_ways():
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="Loose.thing: lists or dicts in each other, more than 32 deep"):
        Loose(thing=endless)
    inner = 1
    for _ in range(30):
        inner = [inner]
    arrives(Loose(thing=inner))
    deep = b"\0\0\0\0" * 2
    data = b"l" + deep[:4] + b"d" + deep[:4] + b"l\1\0\0\0" * 5000 + b"-"
    with pytest.raises(PeerError, match="without end"):
        decode(Loose, data)


def test_a_count_that_nothing_backs_reserves_nothing():
    tracemalloc.start()
    try:
        for lie in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x00"):
            with pytest.raises(PeerError):
                decode(Path2, lie + bytes(100))
            with pytest.raises(PeerError):
                decode(Loose, b"l" + lie + bytes(100))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_the_largest_message_of_the_smallest_parts_is_bounded_in_memory():
    data = b"l" + (limits.MAX_MESSAGE - 20).to_bytes(4, "little") + b"-" * (limits.MAX_MESSAGE - 20) + b"d\0\0\0\0-"
    tracemalloc.start()
    try:
        assert len(decode(Loose, data).items) == limits.MAX_MESSAGE - 20
        assert tracemalloc.get_traced_memory()[1] < 16 * limits.MAX_MESSAGE
    finally:
        tracemalloc.stop()


def test_a_key_that_comes_twice_is_refused():
    twice = b"\0\0\0\0\2\0\0\0" + 2 * (b"\1\0\0\0a" + b"\0\0\0\0") + b"\0\0"
    with pytest.raises(PeerError, match="comes twice"):
        decode(Path2, twice)
    with pytest.raises(PeerError, match="comes twice"):
        decode(Loose, b"l\0\0\0\0d\2\0\0\0" + 2 * b"?\1-" + b"-")


def test_deferred_annotations_mean_the_same_on_every_python():
    body = """
from __future__ import annotations
import typing, p2p
from typing import List, Optional
class Point(p2p.Message):
    x: int
class All(p2p.Message):
    a: List[Point]
    b: list[Point]
    c: typing.Dict[str, Optional["Point"]]
    d: dict[int, list]
    e: int | None
    f: "Point | None"
    g: typing.Any
    h: Optional[p2p.Message]
"""
    for text, words in ((body.replace("    h: Optional[p2p.Message]\n", ""), "All(a: list[Point(x: int)], b: list[Point(x: int)], "
                         "c: dict[str, Point(x: int) or None], d: dict[int, list], e: int or None, f: Point(x: int) or None, g: any)"),
                        (body, "All.h: Message cannot be a message's field")):
        done = subprocess.run([sys.executable, "-c", text + "print(All.schema_text)"], cwd=str(ROOT), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, universal_newlines=True)
        assert words in done.stdout


@pytest.mark.skipif(sys.version_info < (3, 10), reason="`int | None` is a type since 3.10")
def test_new_spellings_are_understood_where_python_has_them():
    class Modern(Message):
        a: list[int]                 # type: ignore[misc]
        b: "int | None" = None
        c: dict[str, bytes] = {}     # type: ignore[misc]
        __annotations__["b"] = int | None
    assert arrives(Modern([1])).a == [1] and Modern.schema_text == "Modern(a: list[int], b: int or None, c: dict[str, bytes])"
