"""The pieces of a map: nothing is lost, nothing comes twice, whoever dies."""

import itertools
import random

import pytest

from p2p.pieces import AHEAD, TRIES, Pieces


def finish(pieces, work):
    """Everybody works until all is taken; what was taken."""
    got = []
    while not pieces.is_over:
        for name, number, item in pieces.give():
            pieces.done(name, number, True, work(item))
        found = pieces.take()
        while found:
            got.append(found)
            found = pieces.take()
    return got


@pytest.mark.parametrize("in_order", [True, False])
def test_each_item_gives_one_result_in_order_where_that_is_wanted(in_order):
    pieces = Pieces(range(100), in_order)
    assert not pieces.has_workers and pieces.give() == []
    pieces.worker("a", 2), pieces.worker("b", 1)
    got = finish(pieces, lambda item: item * 2)
    assert sorted(got) == [(item, True, item * 2) for item in range(100)] and (got == sorted(got) or not in_order)


@pytest.mark.parametrize("seed", range(30))
def test_deaths_crashes_and_late_comers_lose_nothing_and_double_nothing(seed):
    chance = random.Random(seed)
    pieces = Pieces(range(200), chance.random() < 0.5)
    busy, got, alive = [], [], []
    names = iter(range(1000))
    while not pieces.is_over:
        what = chance.random()
        if what < 0.05 or not alive:
            alive.append(next(names))
            pieces.worker(alive[-1], chance.randrange(1, 4))
        elif what < 0.08 and len(alive) > 1:
            gone = alive.pop(chance.randrange(len(alive)))
            pieces.left(gone)
        elif what < 0.5:
            busy += pieces.give()
        elif busy:
            name, number, item = busy.pop(chance.randrange(len(busy)))
            if chance.random() < 0.02:
                pieces.ended(name, number)
            else:
                pieces.done(name, number, True, item)           # also from those who are gone: passed over
                pieces.done(name, number, True, "twice")
        found = pieces.take()
        if found:
            got.append(found)
    assert sorted(item for item, is_good, _ in got) == list(range(200))
    assert all(value == item for item, is_good, value in got if is_good)


def test_endless_items_are_drawn_only_as_far_as_somebody_works_and_waits():
    drawn = []
    pieces = Pieces((drawn.append(number) or number for number in itertools.count()))
    pieces.worker("a", 1), pieces.worker("b", 1)
    first = pieces.give()
    assert len(drawn) == 4
    for _ in range(2000):
        for name, number, item in pieces.give():
            pieces.done(name, number, True, item)
    assert len(drawn) <= 2 * AHEAD + 4 and pieces.take() is None, "the first four are missing"
    for name, number, item in first:
        pieces.done(name, number, True, item)
    assert pieces.take() == (0, True, 0)


def test_a_piece_that_ends_every_process_is_given_up():
    pieces = Pieces(["bad"])
    pieces.worker("a", 1)
    for _ in range(TRIES):
        (name, number, item), = pieces.give()
        pieces.ended(name, number)
    item, is_good, reason = pieces.take()
    assert item == "bad" and not is_good and "3 processes" in reason and pieces.is_over


def test_what_drawing_an_item_raises_comes_out():
    def items():
        yield 1
        raise OSError("no more")
    pieces = Pieces(items())
    pieces.worker("a", 4)
    with pytest.raises(OSError, match="no more"):
        pieces.give()
