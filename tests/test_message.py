import math
import random
import struct
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from p2p import limits
from p2p.errors import PeerError, TimedOut, UserError
from p2p.message import (Eof, Event, Gone, Join, Leave, Line, Message, Timeout, decode, encode, message_class,
                         schemas)

ROOT = Path(__file__).resolve().parent.parent


class Say(Message):
    text: str


class All(Message):
    number: int
    ratio: float
    yes: bool
    text: str
    data: bytes


class Tuned(Message):
    RATE: typing.ClassVar[int] = 3
    step = 5                                  # no annotation: a constant
    name: str
    level: "int" = 7
    on: bool = True


class Louder(Tuned):
    decibel: float = 1


class Nothing(Message):
    pass


def test_fields_are_given_by_place_or_by_name():
    assert Say("hi").text == "hi" and Say(text="hi") == Say("hi") != Say("ho")
    assert repr(Tuned("x", on=False)) == "Tuned(name='x', level=7, on=False)"
    assert repr(Louder("x", 1, False, 2)) == "Louder(name='x', level=1, on=False, decibel=2.0)"
    assert repr(Nothing()) == "Nothing()" and Nothing() == Nothing() and Nothing() != Say("")
    assert Say("a").sender is None and Say.sender is None


@pytest.mark.parametrize("make, words", [
    (lambda: Say(), "Say(text: str): text is missing"),
    (lambda: Say("a", "b"), "Say takes 1 value, 2 given"),
    (lambda: Say("a", text="b"), "Say(text: str): text was given twice"),
    (lambda: Say("a", volume=3), "Say(text: str) has no field volume"),
    (lambda: Say(3), "Say.text: wants str, got int"),
    (lambda: Say(b"x"), "Say.text: wants str, got bytes"),
    (lambda: Tuned("x", "7"), "Tuned.level: wants int, got str"),
    (lambda: Tuned("x", 7, 1), "Tuned.on: wants bool, got int"),
    (lambda: Louder("x", decibel="loud"), "Louder.decibel: wants float, got str"),
])
def test_a_wrong_call_is_told_with_class_and_field(make, words):
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value) == words


@pytest.mark.parametrize("make, words", [
    (lambda: Tuned("x", 2**63), "Tuned.level: an int of 64 bits; 63 and a sign fit into a message"),
    (lambda: Tuned("x", -2**63 - 1), "Tuned.level: an int of 64 bits; 63 and a sign fit into a message"),
    (lambda: Tuned("x", 10**9999), "Tuned.level: an int of 33216 bits; 63 and a sign fit into a message"),
    (lambda: Louder("x", decibel=10**999), "Louder.decibel: an int that is too large for a float"),
    (lambda: Say("\ud800"), "Say.text: half a surrogate pair, which is no text; send bytes instead"),
    (lambda: Say("\u6f22" * (1 << 19)), "Say.text: 1572864 bytes, a message takes at most 1048576; "
                                        "send a file, open a stream, or send it in parts"),
])
def test_a_value_that_cannot_travel_is_told_with_class_and_field(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == words


def test_a_field_that_was_spoilt_later_is_told_when_it_is_sent():
    message = Say("a")
    message.text = 5
    with pytest.raises(TypeError, match="Say.text: wants str, got int"):
        encode(message)


def test_the_bytes_are_little_endian_numbers_and_lengths_before_contents():
    message = All(-2, 1.5, True, "\u00e9", b"\0\1")
    assert encode(message) == struct.pack("<qd?I2sI2s", -2, 1.5, True, 2, "\u00e9".encode(), 2, b"\0\1")
    assert encode(Nothing()) == b""


def random_message(chance):
    number = chance.choice([0, 1, -1, 2**63 - 1, -2**63, chance.randrange(-2**63, 2**63)])
    ratio = chance.choice([0.0, -0.0, 3, math.inf, -math.inf, chance.uniform(-1e300, 1e300), 5e-324])
    signs = "az \0\n\u00e9\u6f22\u202e\U0001f600"
    text = "".join(chance.choice(signs) for _ in range(chance.choice([0, 1, 30, 3000])))
    data = bytes(chance.randrange(256) for _ in range(chance.choice([0, 1, 30, 3000])))
    return All(number, ratio, chance.random() < 0.5, text, chance.choice([bytes, bytearray, memoryview])(data))


def test_what_is_sent_arrives_equal_and_of_the_same_types():
    chance = random.Random(3)
    for _ in range(300):
        message = random_message(chance)
        data = encode(message)
        back = decode(All, data)
        assert back == message and repr(back) == repr(message) and encode(back) == data
        assert [type(value) for value in vars(back).values()] == [int, float, bool, str, bytes]
    assert math.isnan(decode(Louder, encode(Louder("", decibel=math.nan))).decibel)


def test_messages_cut_off_at_any_byte_or_longer_by_one_are_refused():
    data = encode(random_message(random.Random(4)))
    for length in range(len(data)):
        with pytest.raises(PeerError, match="cut off in"):
            decode(All, data[:length])
    with pytest.raises(PeerError, match="1 bytes too many"):
        decode(All, data + b"\0")
    with pytest.raises(PeerError, match="3 bytes too many"):
        decode(Nothing, b"abc")


def test_hostile_bytes_give_a_message_or_a_peer_error_and_nothing_else():
    chance, arrived = random.Random(5), 0
    for _ in range(3000):
        data = bytearray(encode(All(1, 2.0, True, "text", b"data")))
        for _ in range(chance.choice([1, 3])):
            data[chance.randrange(len(data))] = chance.choice([0, 255, 128, chance.randrange(256)])
        try:
            arrived += isinstance(decode(All, bytes(data)), All)
        except PeerError:
            pass
    assert 100 < arrived < 2900
    for lie in (0xFFFFFFFF, limits.MAX_MESSAGE + 1, 1):
        with pytest.raises(PeerError):
            decode(Say, struct.pack("<I", lie))
    with pytest.raises(PeerError, match="not UTF-8"):
        decode(Say, b"\2\0\0\0\xff\xff")


def test_a_message_is_at_most_a_mebibyte_both_ways():
    largest = Say("x" * (limits.MAX_MESSAGE - 4))
    assert decode(Say, encode(largest)) == largest
    with pytest.raises(ValueError, match="Say: 1048577 bytes, a message takes at most 1048576"):
        encode(Say("x" * (limits.MAX_MESSAGE - 3)))
    with pytest.raises(PeerError, match="are allowed"):
        decode(Say, bytes(limits.MAX_MESSAGE + 1))


def test_the_schema_is_the_name_with_the_fields_and_its_id_never_changes():
    assert Louder.schema_text == "Louder(name: str, level: int, on: bool, decibel: float)"
    assert Say.schema_text == "Say(text: str)" and Say.schema_id == 0xECB6DDF4
    assert message_class(Say.schema_id) is Say and message_class(1) is None
    assert (Say.schema_id, "Say(text: str)") in schemas() and schemas() == sorted(schemas())


def defined(name, annotations, **content):
    content["__annotations__"] = annotations
    return type(name, (Message,), content)


@pytest.mark.parametrize("annotations, content, words", [
    ({"x": set}, {}, "Bad.x: set cannot be a message's field; use int, float, bool, str, bytes, List[...]"),
    ({"x": typing.List[set]}, {}, "Bad.x: set cannot be a message's field"),
    ({"x": "typing.Set[int]"}, {}, "Bad.x: typing.Set[int] cannot be a message's field"),
    ({"x": typing.Union[int, str]}, {}, "Bad.x: typing.Union[int, str] cannot be a message's field"),
    ({"x": typing.Dict[float, int]}, {}, "Bad.x: a dict whose keys are float cannot be a message's field"),
    ({"x": "__import__('os')"}, {}, "cannot be a message's field"),
    ({"x": None}, {}, "cannot be a message's field"),
    ({"x": [1]}, {}, "cannot be a message's field"),
    ({"x": Message}, {}, "Bad.x: Message cannot be a message's field"),
    ({"x": "Bad"}, {}, "Bad.x: Bad cannot be a message's field"),
    ({"x": typing.List[Nothing]}, {}, "which has no fields, cannot be a message's field"),
    ({"sender": str}, {}, "Bad.sender: this name is the framework's"),
    ({"schema_id": int}, {}, "this name is the framework's"),
    ({"_x": int}, {}, "this name is the framework's"),
    ({"x": int, "y": int}, {"x": 1}, "Bad.y has no default but stands behind x, which has one"),
    ({"x": int}, {"x": "1"}, "Bad.x: its default does not fit: wants int, got str"),
    ({"x": int}, {"x": 2**63}, "Bad.x: its default does not fit: an int of 64 bits"),
    ({"x" * 1020: int}, {}, "names and types take 1030 bytes"),
])
def test_what_cannot_work_is_told_where_the_class_is_defined(annotations, content, words):
    with pytest.raises(TypeError) as caught:
        defined("Bad", annotations, **content)
    assert words in str(caught.value)


def test_two_classes_that_look_the_same_on_the_wire_are_refused_but_a_reload_is_not():
    with pytest.raises(TypeError, match=r"tests.test_message.Say and elsewhere.Say cannot be told apart"):
        defined("Say", {"text": str}, __module__="elsewhere")
    assert message_class(Say.schema_id) is Say
    first = defined("Reloaded", {"x": int}, __module__="somewhere")
    second = defined("Reloaded", {"x": int}, __module__="somewhere")
    assert message_class(first.schema_id) is second


def test_deferred_annotations_and_aliases_are_understood_and_little_is_imported():
    body = """
from __future__ import annotations
import sys
import p2p.message as message
Name = str
class Move(message.Message):
    who: Name
    x: int
    fast: bool = False
print(Move.schema_text, message.decode(Move, message.encode(Move("ann", 3))))
print([name for name in ("typing_extensions", "dataclasses", "inspect", "ssl", "ctypes") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", body], cwd=ROOT, stdout=subprocess.PIPE, check=True, encoding="utf-8")
    assert done.stdout.split("\n")[:2] == ["Move(who: str, x: int, fast: bool) Move(who='ann', x=3, fast=False)", "[]"]


def test_events_are_objects_that_can_be_compared_and_printed():
    assert (Join("ann").verb, Leave("ann").verb) == ("joined", "left")
    assert Join("ann") == Join("ann") != Leave("ann") and Join("ann") != Join("bob")
    assert [repr(event) for event in (Join("a"), Line("x y"), Eof())] == ["Join('a')", "Line('x y')", "Eof()"]
    assert all(isinstance(event, Event) for event in (Join(1), Leave(1), Line(""), Eof())) and Eof()
    assert len({Join("a"), Join("a"), Leave("a")}) == 2


def test_the_errors_of_a_request_are_of_the_framework():
    assert isinstance(Timeout("no answer"), TimedOut) and Timeout("x").exit == 5
    assert isinstance(Gone("left"), UserError) and Gone("x").code == "gone"
