"""Futures and tasks: what lets a procedure of many steps read from top to bottom on our own loop.

Most of the framework reacts: a frame came, a deadline passed. A few things are procedures (invite, wait
for the answer, fetch, start), and as chains of callbacks they cannot be read. So a coroutine may wait for
a Future; the loop resumes it in the turn after the Future is settled. There is no thread and no second
scheduler in it: a Task is a Future that steps a coroutine through the loop's own `call_soon`.

Rule: a Future is settled once; later settlements are ignored, because a deadline and the answer may both
come in one turn.
"""

from collections import deque

from .errors import LinkDown, TimedOut


class Cancelled(LinkDown):
    """Raised inside a task that was told to stop."""


class Future:
    """A value that is not here yet. `await future` gives it, or raises what it failed with."""

    __slots__ = ("_loop", "_value", "_error", "_callbacks", "done", "_noticed")

    def __init__(self, loop):
        self._loop = loop
        self._value = None
        self._error = None
        self._callbacks = []
        self._noticed = False
        self.done = False

    def set(self, value=None):
        """Settle with a value."""
        self._settle(value, None)

    def fail(self, error):
        """Settle with an exception."""
        self._settle(None, error)

    def _settle(self, value, error):
        if self.done:
            return
        self.done = True
        self._value, self._error = value, error
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._loop.call_soon(callback, self)

    def result(self):
        """The value; raises the failure, or AssertionError while it is not settled."""
        assert self.done, "a future was read before it was settled"
        self._noticed = True
        if self._error is not None:
            raise self._error
        return self._value

    @property
    def error(self):
        """The exception it failed with, or None."""
        self._noticed = True
        return self._error

    def add_callback(self, callback):
        """Call `callback(future)` from the loop once it is settled (in the next turn if it already is)."""
        if self.done:
            self._loop.call_soon(callback, self)
        else:
            self._callbacks.append(callback)

    def __await__(self):
        if not self.done:
            yield self
        return self.result()


class Task(Future):
    """A coroutine that runs on the loop; itself a Future of what it returns."""

    __slots__ = ("_coroutine", "_waiting_for", "_has_begun")

    def __init__(self, loop, coroutine):
        super().__init__(loop)
        self._coroutine = coroutine
        self._waiting_for = None
        self._has_begun = False
        loop.call_soon(self._step, None)

    def cancel(self):
        """Raise Cancelled at the place where the coroutine waits; nothing of it is done if it has not begun."""
        if self.done:
            return
        if not self._has_begun:
            self._coroutine.close()
            self.fail(Cancelled("cancelled"))
        else:
            self._waiting_for = None
            self._loop.call_soon(self._step, Cancelled("cancelled"))

    def _woken(self, future):
        if future is self._waiting_for:
            self._step(None)

    def _step(self, error):
        if self.done:
            return
        self._waiting_for = None
        self._has_begun = True
        try:
            waits_for = self._coroutine.throw(error) if error else self._coroutine.send(None)
        except StopIteration as stop:
            self.set(stop.value)
        except Exception as failure:  # whatever ends a task is its result; the loop reports it if nobody asks
            self.fail(failure)
            self._loop.task_failed(self, failure)
        else:
            self._waiting_for = waits_for
            waits_for.add_callback(self._woken)


async def within(loop, future, seconds, message="no answer in time"):
    """The future's value, or TimedOut(message) after `seconds`. The future itself goes on."""
    either = Future(loop)
    timer = loop.call_later(seconds, either.fail, TimedOut(message))
    future.add_callback(lambda f: either.fail(f.error) if f.error is not None else either.set(f.result()))
    try:
        return await either
    finally:
        timer.cancel()


async def gather(futures):
    """Wait for all of them; a list of (value, error) pairs in the given order."""
    outcome: list = []
    for future in list(futures):
        try:
            outcome.append((await future, None))
        except Exception as error:  # handed to the caller, who knows what it means
            outcome.append((None, error))
    return outcome


class Event:
    """A flag that tasks wait for; `notify` wakes all who wait now, and may be called again and again."""

    def __init__(self, loop):
        self._loop = loop
        self.waiting = []       # a Future for each who waits now

    def notify(self):
        """Wake everybody who waits at this moment."""
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            future.set(None)

    def wait(self):
        """A Future of the next `notify`."""
        future = Future(self._loop)
        self.waiting.append(future)
        return future


class Turns:
    """At most `most` at a time for each holder, first come first served; `enter` is followed by `leave`, whatever happens."""

    def __init__(self, loop, most):
        self._loop = loop
        self._most = most
        self._lines = {}          # holder -> [how many are inside, the Futures of those who wait]

    async def enter(self, holder):
        """Wait for a place."""
        line = self._lines.setdefault(holder, [0, deque()])
        if line[0] < self._most:
            line[0] += 1
            return
        place = Future(self._loop)
        line[1].append(place)
        try:
            await place
        except BaseException:
            if place.done:        # it was given in the moment in which its task was cancelled
                self.leave(holder)
            else:
                line[1].remove(place)
            raise

    def leave(self, holder):
        """Hand the place to whoever waits longest."""
        line = self._lines[holder]
        if line[1]:
            line[1].popleft().set()
            return
        line[0] -= 1
        if not line[0]:
            del self._lines[holder]
