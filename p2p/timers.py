"""Calls that are due at a moment: a heap, from which cancelled ones are cleared away before they are many.

Deadlines are set again with nearly each message, and some of them lie an hour or a day ahead. Were a cancelled timer
to stay in the heap until its time comes, a node that hears one beacon a second would carry 3,600 dead ones for an hour
each. So when more than half of the heap is dead it is built anew, which costs each cancellation a few steps at most.

Pure: the time is an argument. The loop and the simulation's world use the same class.
"""

import heapq

FEW = 64        # cancelled timers that are not worth building the heap anew


class Timer:
    """A call that is due at `when` (the loop's clock, s). `cancel()` is final."""

    __slots__ = ("when", "callback", "args", "_timers")

    def __init__(self, when, callback, args, timers):
        self.when = when
        self.callback = callback
        self.args = args
        self._timers = timers

    def cancel(self):
        """Forget the call. Nothing happens if it was made or cancelled before."""
        if self.callback is not None:
            self.callback = None
            self.args = ()
            self._timers._forget_one()


class Timers:
    """All timers of a loop. Those of one moment are due in the order in which they were made."""

    def __init__(self):
        self.heap = []          # (when, order, Timer): tuples compare faster than objects
        self._order = 0
        self._dead = 0

    def __len__(self):
        return len(self.heap) - self._dead

    def __iter__(self):
        return (entry[2] for entry in self.heap if entry[2].callback is not None)

    def add(self, when, callback, args=()) -> Timer:
        """Call `callback(*args)` at `when`."""
        self._order += 1
        timer = Timer(when, callback, args, self)
        heapq.heappush(self.heap, (when, self._order, timer))
        return timer

    def first(self):
        """When the next one is due, or None."""
        heap = self.heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else None

    def take(self, now):
        """(callback, args) of the next one that is due, which is gone then; None if none is."""
        when = self.first()
        if when is None or when > now:
            return None
        timer = heapq.heappop(self.heap)[2]
        due = timer.callback, timer.args
        timer.callback, timer.args = None, ()      # a `cancel` from now on has nothing to count
        return due

    def _forget_one(self):
        self._dead += 1
        if self._dead > FEW and 2 * self._dead > len(self.heap):
            self.heap = [entry for entry in self.heap if entry[2].callback is not None]
            heapq.heapify(self.heap)
            self._dead = 0
