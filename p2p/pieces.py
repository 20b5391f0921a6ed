"""The pieces of one `map`: which goes to whom, which comes back, what becomes of those whose worker has died.

Each worker may have twice as many pieces as it works at, so that it does not wait for the next one to cross the network. A piece
whose worker has left goes to another; so each is done at least once, and its first result counts. One that has ended TRIES
processes is given up: it would end all of them.

Results come in the order of the items unless that is not wanted. So that one slow piece does not make all later results pile up,
none is begun that stands more than AHEAD times the number of workers behind the first that is missing.

No socket and no clock. Items are drawn one at a time, when somebody is free, so they may be endless.
"""

from collections import OrderedDict, deque

TRIES = 3                 # processes that one piece may end
AHEAD = 64                # pieces for each worker begun beyond the first that is missing


class Pieces:
    """`items` is any iterable. Workers are whatever the caller calls them by."""

    def __init__(self, items, in_order=True):
        self._items = iter(items)
        self._in_order = in_order
        self._slots = OrderedDict()    # worker -> how many it works at at once
        self._given = OrderedDict()    # worker -> numbers of what it has
        self._open = {}                # number -> item, until its result is taken
        self._again = deque()          # numbers whose worker has left
        self._ended = {}               # number -> processes it has ended
        self._results = OrderedDict()  # number -> (is good, value)
        self._next = 0                 # number of the next item
        self._first = 0                # of the first that was not taken
        self._is_drawn = False         # are there no more items?

    @property
    def is_over(self):
        """Have all results been taken?"""
        return self._is_drawn and not self._open

    @property
    def has_workers(self):
        """Is there anybody to work?"""
        return any(self._slots.values())

    def worker(self, name, slots):
        """It works at so many pieces at once."""
        self._slots[name] = slots
        self._given.setdefault(name, [])

    def left(self, name):
        """It is gone; what it had goes to others."""
        self._slots.pop(name, None)
        self._again.extend(self._given.pop(name, ()))

    def give(self):
        """[(worker, number, item)] to be sent now. Raises what drawing an item raises."""
        given = []
        while True:
            name = self._freest()
            number = None if name is None else self._draw()
            if number is None:
                return given
            self._given[name].append(number)
            given.append((name, number, self._open[number]))

    def given(self, name):
        """[(number, item)] of what it has: sent again where a wire broke."""
        return [(number, self._open[number]) for number in self._given.get(name, ())]

    def _freest(self):
        free = {name: 2 * slots - len(self._given[name]) for name, slots in self._slots.items()}
        name = max(free, key=lambda one: free[one] / (self._slots[one] or 1), default=None)
        return name if name is not None and free[name] > 0 else None

    def _draw(self):
        if self._again:
            return self._again.popleft()
        if self._is_drawn or self._in_order and self._next - self._first > AHEAD * sum(self._slots.values()):
            return None
        try:
            item = next(self._items)
        except StopIteration:
            self._is_drawn = True
            return None
        number, self._next = self._next, self._next + 1
        self._open[number] = item
        return number

    def done(self, name, number, is_good, value):
        """A result, or why there is none. What nobody asked this worker for is passed over."""
        if number not in self._given.get(name, ()):
            return
        self._given[name].remove(number)
        self._results[number] = is_good, value

    def ended(self, name, number):
        """The process that worked at it has ended without a result."""
        if number not in self._given.get(name, ()):
            return
        self._given[name].remove(number)
        self._ended[number] = self._ended.get(number, 0) + 1
        if self._ended[number] < TRIES:
            self._again.append(number)
        else:
            self._results[number] = False, f"{TRIES} processes that worked at it have ended without a result"

    def take(self):
        """(item, is good, value) of the next result; None while it is not there."""
        number = self._first if self._in_order else next(iter(self._results), None)
        if number not in self._results:
            return None
        is_good, value = self._results.pop(number)
        item = self._open.pop(number)
        self._ended.pop(number, None)
        self._first = min(self._open, default=self._next) if not self._in_order else number + 1
        return item, is_good, value
