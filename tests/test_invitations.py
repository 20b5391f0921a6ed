"""Invitations: what a code is good for, for whom, how often and how long."""

import itertools
import os

import pytest

from p2p import limits, proto
from p2p.errors import PeerError, Refusal, UsageError, UserError
from p2p.trust import invitations, pake
from p2p.trust.invitations import Attempt, Expired, Invitations, Joined, Spent, Tried, WrongCode
from p2p.trust.pake import BadShare, Keys, Password

ADMIN, BOB, EVE = b"admin" * 6 + b"!!", b"bob!" * 8, b"eve!" * 8
NET, LAN = b"network!", b"open lan"
CODE = "kxabcdef"


def entropy(*codes):
    """Gives the bytes of these codes, one after the other."""
    import base64
    queue = [base64.b32decode(code.upper()) for code in codes]
    return lambda size: queue.pop(0)


def opened(now=0.0, code=CODE, book=None):
    book = book or Invitations()
    book.open(NET, entropy(code), now).password = Password.of(code)
    return book


def scalar():
    return pake.fresh_scalar(os.urandom(48))


def attempt(code=CODE, me=BOB, peer=ADMIN, tag=LAN):
    return Attempt(code, Password.of(code), me, peer, tag, scalar())


def answered(book, joiner, peer=BOB, now=1.0, selector=CODE[:2], tag=LAN, me=ADMIN):
    """(the Try, its answer) of the admin to a joiner's share."""
    begun = book.begin(selector, peer, now)
    return begun, begun.answer(me, tag, joiner.share, scalar())


def join(book, code=CODE, now=1.0):
    """A whole join; the Try and the joiner's key."""
    joiner = attempt(code)
    begun, answer = answered(book, joiner, now=now)
    return book.confirm(CODE[:2], BOB, joiner.finish(*answer, begun.left), now), joiner.key


def kinds(book):
    return [type(effect).__name__ for effect in book.effects()]


# -- codes

def test_codes_are_read_however_they_are_typed_and_nothing_else_is():
    assert invitations.draw_code(bytes(5)) == "aaaaaaaa" and invitations.draw_code(b"\xff" * 5) == "77777777"
    for word in ("kxabcdef", "KXABCDEF", "kxab-cdef", " kx ab cd ef "):
        assert invitations.read_code(word) == CODE
    for word in ("", "kxabcde", "kxabcdefg", "kxabcde1", "kxabcde0", "kxabcdé2", "kxabcde\n", "kxabcde\u0131"):
        with pytest.raises(UsageError, match="8 letters"):
            invitations.read_code(word)


def test_every_code_is_as_likely_as_every_other():
    assert len({invitations.draw_code(number.to_bytes(5, "big")) for number in range(0, 1 << 40, (1 << 40) // 4096 + 1)}) == 4096


# -- the two sides

def test_who_knows_the_code_joins_and_both_have_one_key():
    book = opened()
    begun, key = join(book)
    assert begun.keys.key == key and (begun.peer, begun.invitation.tag) == (BOB, NET)
    assert book.effects() == [Tried(begun.invitation, BOB, 1), Joined(begun.invitation, BOB)] and not book.all()
    mac = invitations.seal(key, b"credentials")
    assert invitations.open_sealed(key, b"credentials", mac) == b"credentials"
    for data, bad in ((b"credential", mac), (b"credentials", mac[:-1]), (b"credentials", bytes(32)), (b"", b"")):
        with pytest.raises(PeerError, match="not sealed"):
            invitations.open_sealed(key, data, bad)
    with pytest.raises(PeerError):
        invitations.open_sealed(bytes(16), b"credentials", mac)


def test_a_wrong_code_is_noticed_by_the_joiner_who_then_says_nothing_that_the_admin_could_keep():
    book = opened()
    joiner = attempt("kxabcdeg")
    begun, answer = answered(book, joiner)
    with pytest.raises(WrongCode) as wrong:
        joiner.finish(*answer, begun.left)
    assert wrong.value.left == 2 and wrong.value.exit == 4 and joiner.key is None


def test_a_wrong_confirmation_ends_the_try_and_cannot_be_corrected():
    book = opened()
    joiner = attempt()
    begun, answer = answered(book, joiner)
    right = joiner.finish(*answer, begun.left)
    with pytest.raises(Refusal) as refused:
        book.confirm("kx", BOB, bytes(32), 1.0)
    assert refused.value.code == proto.FORBIDDEN
    with pytest.raises(Refusal) as refused:
        book.confirm("kx", BOB, right, 1.0)
    assert refused.value.code == proto.NOT_FOUND and book.find("kx", 1.0)


def test_what_was_made_for_other_nodes_another_link_or_another_selector_fits_nowhere():
    """One in the middle has IDs of its own on both sides; it passes shares and confirmations on as they are."""
    for joiner in (attempt(peer=EVE), attempt(me=EVE), attempt(tag=b"another!"), attempt("kyabcdef")):
        book = opened()
        begun, answer = answered(book, joiner)
        with pytest.raises(WrongCode):
            joiner.finish(*answer, begun.left)
        keys = joiner._run.finish(answer[0])
        with pytest.raises(Refusal):
            book.confirm("kx", BOB, keys.confirmation, 1.0)


def test_messages_that_are_reflected_prove_nothing():
    joiner = attempt()
    with pytest.raises(WrongCode):
        joiner.finish(joiner.share, joiner._run.finish(joiner.share).confirmation, 3)
    book = opened()
    _, (share, confirmation) = answered(book, joiner)
    with pytest.raises(Refusal):
        book.confirm("kx", BOB, confirmation, 1.0)         # the admin's own proof, sent back
    begun = book.begin("kx", BOB, 1.0)
    begun.answer(ADMIN, LAN, share, scalar())              # and its own share
    with pytest.raises(Refusal):
        book.confirm("kx", BOB, confirmation, 1.0)


def test_a_confirmation_is_good_for_its_sender_and_its_try_alone():
    book, joiner = opened(), attempt()
    begun, answer = answered(book, joiner)
    right = joiner.finish(*answer, begun.left)
    for selector, peer in (("kx", EVE), ("ky", BOB), ("", BOB), ("kxabcdef", BOB)):
        with pytest.raises(Refusal):
            book.confirm(selector, peer, right, 1.0)
    again = book.begin("kx", BOB, 1.0)
    again.answer(ADMIN, LAN, joiner.share, scalar())       # the same share once more: the admin's is fresh
    with pytest.raises(Refusal):
        book.confirm("kx", BOB, right, 1.0)


def test_the_third_try_may_be_right():
    book = opened()
    for number in (1, 2):
        assert book.begin("kx", EVE, 1.0).left == 3 - number
    assert join(book)[0].left == 0 and kinds(book) == ["Tried"] * 3 + ["Joined"]


def test_a_try_counts_before_it_is_answered_and_whatever_comes_of_it():
    book = opened()
    with pytest.raises(BadShare):
        book.begin("kx", EVE, 1.0).answer(ADMIN, LAN, b"\x04" + bytes(64), scalar())
    book.begin("kx", EVE, 1.0)                             # not even answered
    with pytest.raises(Refusal):
        book.confirm("kx", EVE, bytes(32), 1.0)
    begun = book.begin("kx", EVE, 1.0)
    assert begun.left == 0 and not book.find("kx", 1.0)
    with pytest.raises(Refusal) as refused:
        book.begin("kx", BOB, 1.0)
    assert refused.value.code == proto.NOT_FOUND and len(book.all()) == 1
    with pytest.raises(Refusal):
        book.confirm("kx", EVE, bytes(32), 1.0)
    assert not book.all() and kinds(book) == ["Tried"] * 3 + ["Spent"]


def test_tries_at_the_same_time_are_counted_one_by_one_and_one_of_them_wins():
    book = opened()
    joiners = [(BOB, attempt()), (EVE, attempt(me=EVE)), (b"zoe!" * 8, attempt(me=b"zoe!" * 8))]
    begun = [answered(book, joiner, peer) for peer, joiner in joiners]
    proofs = [joiner.finish(*answer, 0) for (_, joiner), (_, answer) in zip(joiners, begun)]
    assert [one.left for one, _ in begun] == [2, 1, 0]
    assert book.confirm("kx", EVE, proofs[1], 2.0).peer == EVE
    for (peer, _), proof in zip(joiners, proofs):
        with pytest.raises(Refusal):
            book.confirm("kx", peer, proof, 2.0)


# -- time

def test_a_code_ends_with_its_time_to_the_moment_also_for_a_try_that_began_before():
    end = 100.0 + limits.JOIN_FOR
    book = opened(100.0)
    assert book.deadline() == end and book.find("kx", end - 0.001)
    joiner = attempt()
    begun, answer = answered(book, joiner, now=end - 0.001)
    assert begun.expires == end == book.deadline()
    with pytest.raises(Refusal):
        book.confirm("kx", BOB, joiner.finish(*answer, begun.left), end)
    assert not book.find("kx", end) and kinds(book) == ["Tried", "Expired"] and book.deadline() is None
    assert join(opened(100.0), now=end - 0.001)[0]
    with pytest.raises(Refusal):
        opened(100.0).begin("kx", BOB, end)


def test_a_try_that_nobody_confirms_ends_by_itself_and_the_last_one_takes_the_code_along():
    book = opened()
    for number in range(limits.JOIN_TRIES):
        book.begin("kx", bytes([number]) * 32, float(number))
    assert book.deadline() == limits.JOIN_CONFIRM
    book.time(limits.JOIN_CONFIRM)
    assert len(book.all()[0].tries) == 2 and book.deadline() == limits.JOIN_CONFIRM + 1
    book.time(limits.JOIN_CONFIRM + 1)
    assert book.all()
    book.time(limits.JOIN_CONFIRM + 2)
    assert not book.all() and book.effects()[-1].__class__ is Spent and book.deadline() is None
    late = opened()
    late.begin("kx", BOB, 0.0)
    late.time(limits.JOIN_CONFIRM)
    assert late.find("kx", limits.JOIN_CONFIRM) and not late.all()[0].tries


def test_a_spent_code_is_not_told_to_have_expired():
    book = opened()
    for _ in range(3):
        book.begin("kx", BOB, limits.JOIN_FOR - 1)
    book.time(limits.JOIN_FOR)
    assert kinds(book) == ["Tried"] * 3 + ["Spent"]


# -- several

def test_several_are_told_apart_by_selectors_that_never_are_the_same():
    book = Invitations()
    one = book.open(NET, entropy("aaaaaaaa"), 0.0)
    two = book.open(NET, entropy("aabbbbbb", "aacccccc", "abbbbbbb"), 0.0)
    assert (one.selector, two.selector, two.code) == ("aa", "ab", "abbbbbbb") and book.all() == [one, two]
    for invitation in (one, two):
        assert not book.find(invitation.selector, 0.0)      # its secret is still being made
        with pytest.raises(Refusal):
            book.begin(invitation.selector, BOB, 0.0)
        invitation.password = Password.of(invitation.code)
    book.begin("aa", BOB, 0.0)
    assert (one.left, two.left) == (2, 3)


def test_their_number_is_bounded_and_time_makes_room():
    book = Invitations()
    for _ in range(limits.MAX_INVITATIONS):
        book.open(NET, os.urandom, 0.0)
    with pytest.raises(UserError, match="open already") as refused:
        book.open(NET, os.urandom, limits.JOIN_FOR - 1)
    assert refused.value.code == "too-many"
    assert book.open(NET, os.urandom, limits.JOIN_FOR) and len(book.all()) == 1
    assert kinds(book) == [Expired.__name__] * limits.MAX_INVITATIONS


def test_those_of_a_network_that_was_left_are_over():
    book = opened()
    other = book.open(b"another!", entropy("zzzzzzzz"), 0.0)
    book.withdraw(NET)
    assert book.all() == [other] and not book.find("kx", 0.0)


# -- every order

ACTIONS = ("right by bob", "wrong by bob", "right by eve", "wrong by eve", "unconfirmed by bob", "late")


@pytest.mark.parametrize("first", ACTIONS)
def test_in_every_order_of_tries_at_most_three_are_answered_one_is_right_and_then_nothing_is(first):
    password = Password.of(CODE)
    for rest in itertools.product(ACTIONS, repeat=4):
        book = Invitations()
        book.open(NET, entropy(CODE), 0.0).password = password
        counted = joined = 0
        now = 0.0
        for action in (first,) + rest:
            word, _, who = action.partition(" by ")
            if word == "late":
                now += limits.JOIN_CONFIRM
                book.time(now)
                continue
            may = not joined and counted < limits.JOIN_TRIES
            assert (book.find("kx", now) is not None) == may
            try:
                book.begin("kx", who, now).keys = Keys(b"key", b"mine", b"theirs")
            except Refusal:
                assert not may
                continue
            assert may
            counted += 1
            if word == "unconfirmed":
                continue
            try:
                book.confirm("kx", who, b"theirs" if word == "right" else b"x", now)
                joined += 1
                assert word == "right"
            except Refusal:
                assert word == "wrong"
        book.time(now + limits.JOIN_FOR)
        told = kinds(book)
        assert told.count("Tried") == counted <= limits.JOIN_TRIES and not book.all()
        assert told[-1] == ("Joined" if joined else "Spent" if counted == limits.JOIN_TRIES else "Expired")
        assert joined == told.count("Joined") <= 1
