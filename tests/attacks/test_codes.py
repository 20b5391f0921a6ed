"""Attacks on the codes of invitations: guessing, burning, looking for them, standing in the middle, points that are none."""
import contextlib
import os

import pytest

from p2p import limits, proto
from p2p.codec import ERROR, RESPONSE
from p2p.trust import pake
from p2p.trust.ecc import P, parse_node_id
from p2p.trust.invitations import ALPHABET, Attempt, open_sealed, selector_of
from p2p.trust.pake import Password
from tests.attacks.hostile import LAN, Member

pytestmark = pytest.mark.lab

STUDIO = "studio"
REFUSED = RESPONSE | ERROR


@pytest.fixture
def code(target):
    """The code of a fresh invitation; nothing of it is left after the test."""
    if STUDIO not in [row["name"] for row in target.json("networks")]:
        target.json("network", "create", STUDIO)
    return target.json("network", "invite", STUDIO)["code"]


@pytest.fixture
def root_id(target):
    return parse_node_id(target.json("id")["id"])


def line_of(target, stack, name="eve", wire=None):
    """A member of the open network that is in."""
    member = Member(name)
    return member, stack.enter_context(contextlib.closing(member.join(wire or target.wire)))


def attempt(code, member, root_id):
    return Attempt(code, Password.of(code), member.id, root_id, LAN.tag, pake.fresh_scalar(os.urandom(48)))


def try_code(line, code, joiner):
    """(flags, the fields of the answer or None) of one JOIN_TRY."""
    flags, body = line.request(proto.JOIN_TRY, selector=selector_of(code), share=joiner.share)
    return flags, None if flags & ERROR else proto.JOIN_TRY.reply.unpack_all(body)


def confirm(line, code, confirmation, key):
    """(flags, body) of one JOIN_CONFIRM."""
    return line.request(proto.JOIN_CONFIRM, selector=selector_of(code), confirmation=confirmation, key=key)


def gets_in(target, code, root_id, stack):
    """Does somebody who was told the code get credentials that are sealed with it?"""
    bob, line = line_of(target, stack, "bob", target.friends)
    joiner = attempt(code, bob, root_id)
    flags, answer = try_code(line, code, joiner)
    if flags & ERROR:
        return False
    flags, body = confirm(line, code, joiner.finish(answer.share, answer.confirmation, answer.left), bob.key.public.spki)
    given = proto.JOIN_CONFIRM.reply.unpack_all(body)
    return proto.Credentials.unpack_all(open_sealed(joiner.key, given.credentials, given.mac)).name == STUDIO


def wrong(code, number=0):
    """Another code with the same selector."""
    return code[:7] + ALPHABET[(ALPHABET.index(code[7]) + 1 + number) % 32]


def test_an_honest_joiner_gets_in_once(target, code, root_id):
    with contextlib.ExitStack() as stack:
        assert gets_in(target, code, root_id, stack)
        assert not gets_in(target, code, root_id, stack)


def test_three_guesses_are_all_there_are_whoever_makes_them(target, code, root_id):
    with contextlib.ExitStack() as stack:
        for number in range(limits.JOIN_TRIES):
            eve, line = line_of(target, stack, f"eve{number}")
            joiner = attempt(wrong(code, number), eve, root_id)
            flags, answer = try_code(line, code, joiner)
            assert flags == RESPONSE and answer.left == limits.JOIN_TRIES - 1 - number
            keys = joiner._run.finish(answer.share)
            assert not keys.is_confirmed_by(answer.confirmation)
            assert confirm(line, code, keys.confirmation, eve.key.public.spki)[0] == REFUSED
        assert not gets_in(target, code, root_id, stack)
    assert target.refused()["code"] >= 1


def test_two_guesses_at_once_and_unfinished_ones_count_all_the_same(target, code, root_id):
    with contextlib.ExitStack() as stack:
        eve, line = line_of(target, stack)
        for request in (1001, 1002):                  # in one packet; nobody waits for the answers
            line.send(proto.JOIN_TRY, request, selector=code[:2], share=attempt(wrong(code), eve, root_id).share)
        mallory, other = line_of(target, stack, "mallory")
        assert try_code(other, code, attempt(wrong(code), mallory, root_id))[1].left == 0
        assert not gets_in(target, code, root_id, stack)


def test_points_that_are_none_cost_a_try_and_the_link_and_give_nothing(target, code, root_id, count):
    shares = [b"", b"\0", b"\x04" + bytes(64), b"\x04" + b"\xff" * 64, b"\x02" + bytes(32), os.urandom(65),
              b"\x04" + (P + 1).to_bytes(32, "big") + bytes(32), pake.encode(pake.M)[:-1] + b"\0"]
    codes = [code] + [target.json("network", "invite", STUDIO)["code"] for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for number, share in enumerate(shares):
            _, line = line_of(target, stack)
            line.send(proto.JOIN_TRY, 1, selector=selector_of(codes[number // 2]), share=share)
            line.ended(5.0)
        count("share", len(shares))
        assert gets_in(target, codes[0], root_id, stack)


def test_the_mask_itself_as_a_point_is_refused(target, code, root_id, count):
    """Who knew the code could send it; that it makes no key must not depend on who sends it."""
    with contextlib.ExitStack() as stack:
        _, line = line_of(target, stack)
        line.send(proto.JOIN_TRY, 1, selector=code[:2], share=pake.encode(Password.of(code).masks[0]))
        line.ended(5.0)
        count("share", 1)


def test_one_in_the_middle_who_passes_everything_on_gets_in_on_neither_side(target, code, root_id):
    """Bob has met eve and takes her for the one who invited; eve has a link with the root."""
    with contextlib.ExitStack() as stack:
        eve, line = line_of(target, stack)
        bob = Member("bob")
        joiner = attempt(code, bob, eve.id)                # bob's link is with eve
        flags, answer = try_code(line, code, joiner)       # his point, as it is
        assert flags == RESPONSE
        keys = joiner._run.finish(answer.share)
        assert not keys.is_confirmed_by(answer.confirmation)
        assert confirm(line, code, keys.confirmation, eve.key.public.spki)[0] == REFUSED
        assert gets_in(target, code, root_id, stack)


def test_what_another_was_answered_is_of_no_use(target, code, root_id):
    """Eve sees, against all that TLS promises, what bob and the root said, and says the same over her own link."""
    with contextlib.ExitStack() as stack:
        bob, line = line_of(target, stack, "bob", target.friends)
        joiner = attempt(code, bob, root_id)
        _, answer = try_code(line, code, joiner)
        proof = joiner.finish(answer.share, answer.confirmation, answer.left)
        eve, other = line_of(target, stack)
        assert confirm(other, code, proof, eve.key.public.spki)[0] == REFUSED
        other.request(proto.JOIN_TRY, selector=code[:2], share=joiner.share)
        assert confirm(other, code, proof, eve.key.public.spki)[0] == REFUSED
        assert confirm(line, code, proof, bob.key.public.spki)[0] == RESPONSE
        assert confirm(line, code, proof, bob.key.public.spki)[0] == REFUSED


def test_a_certificate_for_another_key_is_not_made(target, code, root_id, count):
    with contextlib.ExitStack() as stack:
        bob, line = line_of(target, stack, "bob", target.friends)
        joiner = attempt(code, bob, root_id)
        _, answer = try_code(line, code, joiner)
        proof = joiner.finish(answer.share, answer.confirmation, answer.left)
        line.send(proto.JOIN_CONFIRM, 9, selector=code[:2], confirmation=proof, key=Member("accomplice").key.public.spki)
        line.ended(5.0)
        count("key", 1)


def test_who_looks_for_selectors_is_told_to_wait_and_finds_few(target, code, root_id):
    asked = [first + second for first in ALPHABET for second in ALPHABET]
    with contextlib.ExitStack() as stack:
        _, line = line_of(target, stack)
        flags = [line.request(proto.JOIN_SEEK, selector=selector)[0] for selector in asked]
        assert flags.count(RESPONSE) <= 24 and flags.count(REFUSED) >= 1000
        for selector in ("", "é", "\0\0", "K", ";"):
            assert line.request(proto.JOIN_SEEK, selector=selector)[0] == REFUSED
        assert gets_in(target, code, root_id, stack)
