"""A loop that a test turns by hand, and the list of what happened on it.

`until` is what tests of things on the loop use instead of sleeping: it turns the loop until a condition holds.
"""

from p2p.loop import Loop


class Bench:
    """`events` is the test's own; a handler that raises is noted there too."""

    def __init__(self):
        self.events = []
        self.loop = Loop(report=lambda what, error: self.events.append(error))

    def until(self, condition, seconds=20.0):
        """Turn the loop until `condition()`; AssertionError after `seconds`."""
        end = self.loop.now() + seconds
        while not condition():
            assert self.loop.now() < end, f"the deadline passed; the last events: {self.events[-5:]}"
            self.loop.turn(0.05)

    def handlers(self):
        """An `on_line` and an `on_eof` that note what they hear."""
        return self.events.append, lambda: self.events.append("EOF")

    def idle(self, seconds=0.1):
        """Turns once and tells whether the loop slept for the whole of it: `until(idle)` holds unless something spins."""
        began = self.loop.now()
        self.loop.turn(seconds)
        return self.loop.now() - began > 0.8 * seconds
