"""Turns: so many at a time and first come first served, also when those who wait give up."""

import random

from p2p.tasks import Turns
from tests.bench import Bench


def test_places_are_given_in_order_and_none_is_lost_whoever_gives_up_and_when():
    bench = Bench()
    loop, dice = bench.loop, random.Random(5)
    turns, inside, order = Turns(loop, 3), [], []

    async def stay(number):
        await turns.enter("ann")
        try:
            inside.append(number)
            order.append(number)
            assert len(inside) <= 3
            await loop.sleep(0.001 * dice.randrange(3))
        finally:
            if number in inside:
                inside.remove(number)
            turns.leave("ann")

    tasks = [loop.start(stay(number)) for number in range(200)]
    for task in dice.sample(tasks, 80):
        loop.call_later(0.001 * dice.randrange(60), task.cancel)
    bench.until(lambda: all(task.done for task in tasks))
    assert order == sorted(order) and len(order) >= 120
    assert not turns._lines
    loop.close()


def test_one_holder_does_not_wait_for_another():
    bench = Bench()
    turns = Turns(bench.loop, 1)
    first, same, other = (bench.loop.start(turns.enter(holder)) for holder in ("ann", "ann", "bob"))
    bench.until(lambda: first.done and other.done)
    assert not same.done
    turns.leave("ann")
    bench.until(lambda: same.done)
    bench.loop.close()
