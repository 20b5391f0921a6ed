"""Deny lists: whatever arrives, in whatever order and however often, members end with the same; what is forged changes nothing."""
import itertools
import os
import random
import struct

import pytest

from p2p import limits
from p2p.errors import PeerError
from p2p.trust.denial import HEAD, ID, DenyList, key_hash, merge, state_of, wants_union
from p2p.trust.ecc import PrivateKey

CA = PrivateKey.generate(os.urandom)
TAG = b"network-"
IDS = [bytes([number]) * ID for number in range(1, 9)]
KEYS = [bytes([number]) * 32 for number in range(9)]


def deny(epoch, *numbers, ca=CA, tag=TAG, key=None):
    return DenyList.signed(ca, tag, epoch, [IDS[number] for number in numbers], KEYS[epoch] if key is None else key)


def test_a_list_says_what_was_signed_and_by_whom():
    made = deny(3, 5, 1, 1)
    read = DenyList.decode(made.data)
    assert (read.tag, read.epoch, read.denied, read.key_hash) == (TAG, 3, (IDS[1], IDS[5]), key_hash(KEYS[3]))
    assert read.is_authentic(CA.public) and not read.is_authentic(PrivateKey.generate(os.urandom).public)


def test_every_flipped_byte_and_every_cut_is_refused():
    data = deny(3, 1, 2).data
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1:]
        try:
            assert not DenyList.decode(changed).is_authentic(CA.public), at
        except PeerError:
            pass
        with pytest.raises(PeerError):
            DenyList.decode(data[:at])
    with pytest.raises(PeerError):
        DenyList.decode(data + b"\0")


@pytest.mark.parametrize("count, ids, epoch", [
    (2, IDS[1::-1], 1), (2, [IDS[0]] * 2, 1), (0, [], 1), (1 << 31, IDS[:2], 1), (2, IDS[:2], 0), (2, IDS[:2], (1 << 64) - 1),
    (limits.MAX_DENIED + 1, [struct.pack(">Q", number) * 4 for number in range(limits.MAX_DENIED + 1)], 1)],
    ids="unsorted twice none huge first-epoch last-epoch too-many".split())
def test_numbers_that_do_not_fit_are_refused_whoever_signed_them(count, ids, epoch):
    with pytest.raises(PeerError):
        DenyList.decode(HEAD.pack(TAG, epoch, bytes(32), count) + b"".join(ids) + bytes(64))


def test_in_whatever_order_and_however_often_lists_come_the_members_end_with_the_same():
    lists = [deny(1, 0), deny(2, 0, 1), deny(2, 0, 2), deny(3, 0, 1, 2), deny(3, 0, 3), deny(3, 0, 1, 2, key=KEYS[8])]
    ends = set()
    for order in itertools.permutations(lists):
        held = ()
        for one in order + tuple(random.sample(lists, 3)):
            held = merge(held, one)
        ends.add(state_of(held))
    assert len(ends) == 1
    end = ends.pop()
    assert end.denied == set(IDS[:4]) and end.epoch == 3 and len(end.lists) == 2
    assert end.key_hash == max(key_hash(KEYS[3]), key_hash(KEYS[8]))


def test_an_old_list_brings_nobody_back_and_changes_nothing():
    held = merge(merge((), deny(1, 0)), deny(2, 0, 1))
    assert held == (deny(2, 0, 1).data,)
    assert merge(held, deny(1, 0)) == held and merge(held, deny(1, 1)) == held


def test_two_admins_that_did_not_hear_of_each_other_are_joined_by_one_list():
    held = merge(merge((), deny(2, 0)), deny(2, 1))
    assert wants_union(held) and state_of(held).denied == set(IDS[:2])
    both = [deny(3, 0, 1), deny(3, 0, 1, key=KEYS[7])]          # each of them does so at the same time
    for order in (both, both[::-1]):
        after = held
        for one in order:
            after = merge(after, one)
        assert after == (max(both, key=lambda one: one.age).data,) and not wants_union(after)


def test_nobody_comes_back_because_there_are_too_many_lists():
    held, denied = (), frozenset()
    for number in range(len(IDS)):
        for epoch in (1, 2):
            held = merge(held, deny(epoch, number))
            denied = state_of(held, denied).denied
    assert len(held) <= limits.MAX_DENY_LISTS and denied == set(IDS)
