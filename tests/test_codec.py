"""The protocol's codec: what is declared is what travels, and bytes that lie are a PeerError and nothing else."""

import random
import struct
import time

import pytest

from p2p import limits, proto
from p2p.codec import (
    ERROR, HEADER, MAGIC, RESPONSE, Decoder, Fields, Fixed, Flag, Number, Sized, as_dict, check_word, frame)
from p2p.errors import PeerError
from tests.twin import slow_decode


def example(kind, dice):
    """A random value of a declared field type."""
    if isinstance(kind, Flag):
        return dice.random() < 0.5
    if isinstance(kind, Number):
        code = kind._struct.format.lstrip("<")
        if code == "d":
            return dice.random()
        low, high = (-(1 << 31), 1 << 31) if code == "i" else (-(1 << 63), 1 << 63) if code == "q" else (0, 1 << 8 * kind._struct.size)
        return dice.randrange(low, high)
    if isinstance(kind, Fixed):
        return bytes(dice.randrange(256) for _ in range(kind.size))
    if isinstance(kind, Sized):
        size = dice.choice([0, 1, min(kind.most, 40)])
        return "".join(dice.choice("aZ0 é\u4e2d") for _ in range(size // 3)) if kind.is_text else bytes(size)
    item = kind.item
    return [record_example(item, dice) if kind._is_record else example(item, dice) for _ in range(dice.choice([0, 1, min(3, kind.most)]))]


def record_example(record, dice):
    return {field.name: example(field.type, dice) for field in record.fields}


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {name: plain(item) for name, item in as_dict(value).items()} if isinstance(value, Fields) else value


RECORDS = [m.body for m in proto.MESSAGES.values()] + [m.reply for m in proto.MESSAGES.values() if m.reply]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_every_declared_record_comes_back_as_it_was_sent(record):
    dice = random.Random(record.name)
    for _ in range(20):
        values = record_example(record, dice)
        assert plain(record.unpack_all(record.pack(values))) == values


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_a_record_cut_or_mutated_anywhere_gives_a_peer_error_or_a_value(record):
    dice = random.Random(record.name)
    data = record.pack(record_example(record, dice))
    for cut in range(len(data)):
        try:
            record.unpack_all(data[:cut])
        except PeerError:
            pass
    for _ in range(200):
        mutated = bytearray(data)
        for _ in range(dice.choice([1, 2, 8])):
            if mutated:
                mutated[dice.randrange(len(mutated))] = dice.randrange(256)
        try:
            values = record.unpack_all(bytes(mutated))
        except PeerError:
            continue
        assert as_dict(values).keys() == {field.name for field in record.fields}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_fields_that_a_newer_node_added_are_skipped(record):
    values = record_example(record, random.Random(1))
    assert plain(record.unpack_all(record.pack(values) + b"something newer")) == values


def test_a_body_older_than_a_field_gives_its_default():
    body = proto.HELLO.pack(role=0, name="a", version="1", nonce=1, port=2, abilities=0, networks=[], addresses=[], view=3)
    hello = proto.HELLO.unpack(body[:-8 - 2])
    assert (hello.session, hello.token) == (0, b"")


def test_counts_and_lengths_are_bounded_before_anything_is_allocated():
    lies = struct.pack("<H", 65535)
    with pytest.raises(PeerError, match="list of 65535"):
        proto.NODES.reply.unpack_all(lies)
    with pytest.raises(PeerError, match="bytes in a field|a field of"):
        proto.SAY.unpack(struct.pack("<H", limits.MAX_LINE + 1))


def test_what_we_send_ourselves_beyond_a_bound_is_an_assertion():
    with pytest.raises(AssertionError):
        proto.SAY.pack(text="x" * (limits.MAX_LINE + 1))
    with pytest.raises(AssertionError, match="no field colour"):
        proto.SAY.pack(text="x", colour=1)


def traffic(dice):
    """Sizes of some bodies: often a run of equal ones, which the decoder takes together."""
    return [dice.choice([0, 1, 15, 16, 64, 64, 1024, 3000, 70000])] * dice.choice([1, 1, 1, 2, 3, 20])


def take(decoder, data, dice):
    """As a connection does: bytes of a large body straight to their place."""
    frames = []
    while decoder.place is not None and data:
        here = min(len(data), len(decoder.place), dice.choice([1, 1000, 1 << 20]))
        decoder.place[:here] = data[:here]
        frames += decoder.placed(here)
        data = data[here:]
    return frames + decoder.feed(data) if data else frames


def cut_decode(stream, dice):
    decoder, frames, at = Decoder(), [], 0
    try:
        while at < len(stream):
            size = dice.choice([1, 2, 15, 16, 17, 100, 5000, 65536])
            for word, request, body in take(decoder, stream[at:at + size], dice):
                check_word(word)
                frames.append(((word >> 24 & 0xFF, word >> 32 & 0xFFFF, word >> 48), request, bytes(body)))
            at += size
    except PeerError:
        return frames, "error"
    return frames, "inside" if decoder.is_inside_frame else "clean"


@pytest.mark.parametrize("seed", range(60))
def test_the_decoder_agrees_with_its_slow_twin_on_random_traffic_with_random_cuts(seed):
    dice = random.Random(seed)
    stream = b"".join(
        frame(dice.randrange(1 << 16), dice.randrange(1 << 32),
              bytes(dice.randrange(256) for _ in range(size)) if size < 100 else bytes(size),
              dice.choice([0, 0, RESPONSE, RESPONSE | ERROR]))
        for _ in range(dice.randrange(1, 30)) for size in traffic(dice))
    if dice.random() < 0.4:
        at = dice.randrange(len(stream))
        stream = stream[:at] + bytes([dice.randrange(256)]) + stream[at + 1:]
    if dice.random() < 0.4:
        stream = stream[:dice.randrange(len(stream) + 1)]
    fast, slow = cut_decode(stream, dice), slow_decode(stream)
    assert fast[1] == slow[1]
    # On an error the frames before it in the same read are given up with the connection.
    assert fast[0] == slow[0] if slow[1] != "error" else fast[0] == slow[0][:len(fast[0])]


def test_a_frame_cut_at_each_byte_is_found():
    stream = frame(0x12, 7, b"hello") + frame(0x13, 0, b"")
    for cut in range(len(stream) + 1):
        decoder = Decoder()
        frames = take(decoder, stream[:cut], random.Random(cut)) + take(decoder, stream[cut:], random.Random(cut))
        assert [(word >> 32, request, bytes(body)) for word, request, body in frames] == [(0x12, 7, b"hello"), (0x13, 0, b"")]


def test_a_large_body_costs_one_join_and_not_a_copy_for_each_piece():
    body = bytes(1 << 20)
    stream = frame(1, 0, body)
    decoder = Decoder()
    pieces = [stream[at:at + 4096] for at in range(0, len(stream), 4096)]
    found = [take(decoder, piece, random.Random(1)) for piece in pieces]
    assert [len(frames) for frames in found[:-1]] == [0] * (len(pieces) - 1)
    assert found[-1][0][2] == body
    assert decoder.place is None and not decoder.is_inside_frame


def test_another_protocol_version_is_named():
    data = HEADER.pack(MAGIC, 9, 0, 1, 0, 0, 0)
    with pytest.raises(PeerError, match="version 9, this node speaks 1"):
        Decoder().feed(data)


def test_a_header_alone_makes_nobody_reserve_what_it_claims():
    decoder = Decoder()
    stream = frame(1, 0, bytes(1 << 20))
    decoder.feed(stream[:1 << 13])
    assert decoder.is_inside_frame and decoder.place is None
    decoder.feed(stream[1 << 13:1 << 17])
    assert len(decoder.place) < 1 << 20


def test_runs_of_one_size_and_sizes_that_alternate_take_time_in_proportion():
    def seconds(stream):
        times = []
        for _ in range(3):
            began = time.process_time()
            Decoder().feed(stream)
            times.append(time.process_time() - began)
        return min(times)
    small, other = frame(1, 0, b""), frame(1, 0, b"x")
    for pattern in (small, small * 2 + other * 2, small + other, small * 60 + other):
        count = 1 << 15 >> len(pattern).bit_length() - 4
        assert seconds(pattern * 4 * count) < 8 * seconds(pattern * count) + 0.01
