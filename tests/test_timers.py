"""The heap of timers: order, cancelling, and that what was cancelled does not stay."""

import random

from p2p.timers import FEW, Timers


def taken(timers, now):
    """All callbacks that are due, in order."""
    found = []
    while True:
        due = timers.take(now)
        if due is None:
            return found
        found.append(due[0])


def test_timers_are_due_in_order_of_time_and_then_of_making():
    timers = Timers()
    for name, when in (("c", 2.0), ("a", 1.0), ("b", 1.0), ("d", 3.0)):
        timers.add(when, name)
    assert timers.first() == 1.0 and taken(timers, 2.5) == ["a", "b", "c"] and len(timers) == 1


def test_a_deadline_that_is_set_again_and_again_costs_a_few_entries():
    timers, timer = Timers(), None
    for number in range(100_000):
        if timer:
            timer.cancel()
        timer = timers.add(3600.0 + number, number)
        assert len(timers) == 1 and len(timers.heap) <= 2 * FEW + 2
    assert taken(timers, 1e9) == [99_999]


def test_random_use_agrees_with_a_sorted_list():
    rng = random.Random(5)
    timers, known = Timers(), []
    for step in range(5000):
        if known and rng.random() < 0.6:
            entry = known.pop(rng.randrange(len(known)))
            entry[2].cancel()
            entry[2].cancel()
        else:
            when = rng.random()
            known.append((when, step, timers.add(when, step)))
        if rng.random() < 0.01:
            now = rng.random() / 5
            assert taken(timers, now) == [step for when, step, _ in sorted(known, key=lambda entry: entry[:2]) if when <= now]
            for entry in [entry for entry in known if entry[0] <= now]:
                entry[2].cancel()          # too late: it does not count
            known = [entry for entry in known if entry[0] > now]
        assert len(timers) == len(known) == len(list(timers))
