"""The loop's interface (p2p/loop.py) in virtual time: what a simulated process sees of the world.

A turn is one thing that happens, with all that it set off by `call_soon`, and the flush. `work` runs in place, at a
moment that is drawn, and costs time that is drawn, so workers finish in any order. A process that is stopped (SIGSTOP)
finds all that happened meanwhile when it goes on; one that is dead does nothing any more, also not the `finally` of a
task that nobody will resume.
"""

from collections import deque

from p2p import limits
from p2p.errors import P2PError
from p2p.interfaces import Address, Interface
from p2p.sync.catalogue import Offer
from p2p.tasks import Future, Task

from .network import Endpoint, Listener, dial
from .world import BIRTH, START, Killed

SLOWEST_WORK = 0.02      # s that a piece of work takes


class SimTimer:
    """As p2p.timers.Timer; one that was due while its process was stopped can still be cancelled."""

    __slots__ = ("when", "callback", "args", "entry")

    def cancel(self):
        self.callback = None
        self.args = ()
        self.entry.cancel()


class SimLoop:
    """One process on `host`."""

    def __init__(self, world, host, name):
        self.world = world
        self.host = host
        self.name = name
        self.turns = 0
        self.busy_s = self.worst_s = 0.0
        self.is_dead = self.is_stopped = False
        self.channels = {}           # all that are not closed, in order
        self.listeners = []
        self.endpoints = []
        self.tasks = {}
        self.disk = host.disk.opened_by(self)
        self._entropy = host.entropy
        self._soon = deque()
        self._at_end = []
        self._is_turning = self._is_due = False
        self._backlog = []

    # -- time and chance

    def now(self):
        return self.world.now

    @property
    def turn_began(self):
        return self.world.now

    def wall(self):
        return BIRTH + self.world.now - START + self.host.wall_offset

    def entropy(self, size):
        return self._entropy.getrandbits(8 * size).to_bytes(size, "little") if size else b""

    def call_at(self, when, callback, *args):
        timer = SimTimer()
        timer.when, timer.callback, timer.args = when, callback, args
        timer.entry = self.world.timers.add(max(when, self.world.now), self._fire, (timer,))
        return timer

    def call_later(self, delay, callback, *args):
        return self.call_at(self.world.now + delay, callback, *args)

    def call_soon(self, callback, *args):
        self._soon.append((callback, args))
        self._wake()

    def before_sleep(self, callback):
        self.at_turn_end(callback)

    def at_turn_end(self, callback):
        self._at_end.append(callback)
        self._wake()

    def _wake(self):
        if not self._is_turning and not self._is_due:
            self._is_due = True
            self.world.add(0, self.turn, _nothing)

    async def sleep(self, seconds):
        future = Future(self)
        self.call_later(seconds, future.set)
        await future

    # -- turning

    def _fire(self, timer):
        if self.is_stopped:
            self._backlog.append((self._fire, (timer,)))
            return
        callback, args = timer.callback, timer.args
        if callback is not None:
            timer.callback, timer.args = None, ()
            self.turn(callback, *args)

    def turn(self, callback, *args):
        """Something happens to this process."""
        if self.is_dead:
            return
        if self.is_stopped:
            self._backlog.append((self.turn, (callback,) + args))
            return
        self._is_turning = True
        self.turns += 1
        try:
            self._call(callback, args)
            self._run_soon()
            self.flush()
        except Killed:
            self.host.crashed(self)
            return
        finally:
            self._is_turning = self._is_due = False
        if self._soon or self._at_end:
            self._wake()

    def _run_soon(self):
        soon = self._soon
        for _ in range(16):
            for _ in range(len(soon)):
                callback, args = soon.popleft()
                self._call(callback, args)
            if not soon:
                return

    def flush(self):
        while self._at_end:
            endings, self._at_end = self._at_end, []
            for callback in endings:
                self._call(callback, ())

    def _call(self, callback, args):
        try:
            callback(*args)
        except Exception as error:
            self.report("a handler failed", error)

    def report(self, what, error):
        self.world.failed(self.name, what, error)

    def stop(self):
        """SIGSTOP."""
        self.is_stopped = True

    def resume(self):
        """SIGCONT."""
        self.is_stopped = False
        backlog, self._backlog = self._backlog, []
        for call, args in backlog:
            if self.is_stopped:
                self._backlog.append((call, args))
            else:
                call(*args)

    def die(self, silently=False):
        """SIGKILL; `silently`: the computer lost its power, so its kernel says nothing to the others."""
        if self.is_dead:
            return
        self.is_dead = True
        self.disk.is_closed = True
        for channel in list(self.channels):
            channel.vanish() if silently else channel.abort()
        for listener in list(self.listeners):
            listener.close()
        for endpoint in list(self.endpoints):
            endpoint.close()
        for task in list(self.tasks):
            try:
                task._coroutine.close()        # now, not when memory is collected: that moment is no part of a seed
            except RuntimeError:
                pass                           # it awaits in a `finally`; nobody will resume it
        self.tasks.clear()
        self._soon.clear()
        self._at_end.clear()
        self._backlog.clear()
        for timer in list(self.world.timers):          # some are due in a day, and hold all that the process was
            if timer.callback == self._fire:
                timer.cancel()

    # -- tasks and workers

    def future(self):
        return Future(self)

    def start(self, coroutine):
        task = Task(self, coroutine)
        self.tasks[task] = None
        task.add_callback(self._task_done)
        return task

    def _task_done(self, task):
        self.tasks.pop(task, None)

    def task_failed(self, task, error):
        if not isinstance(error, P2PError):
            self.call_later(1.0, self._report_unnoticed, task, error)

    def _report_unnoticed(self, task, error):
        if not task._noticed:
            self.report("a task failed", error)

    def work(self, function, *args):
        future = Future(self)
        cost = self.host.work.random() * SLOWEST_WORK
        at = self.host.work.random() * cost
        self.world.add(at, self._work, future, function, args, cost - at)
        return future

    def _work(self, future, function, args, rest):
        if self.is_dead:
            return
        try:
            outcome = (future.set, self._result(function, args))
        except Killed:
            self.host.crashed(self)
            return
        except BaseException as error:
            outcome = (future.fail, error)
        self.world.add(rest, self.turn, *outcome)

    def _result(self, function, args):
        if getattr(function, "__func__", None) is not Offer.is_authentic:
            return function(*args)
        # Every node checks every signature, and all of them would cost most of the simulation's time
        offer = function.__self__
        key = offer.signed_bytes(), offer.signature
        if key not in self.world.verified:
            self.world.verified[key] = function()
        return self.world.verified[key]

    # -- the rest of the world

    def interfaces(self):
        return self.host.interfaces

    def state_writer(self):
        return StateWriter(self.entropy(8).hex())

    def lock_home(self, path):
        return HomeLock(self, path)

    def listen(self, port, credentials, accept, backlog=limits.MAX_PENDING * 2):
        return Listener(self, port, credentials, accept)

    def free_port(self, wanted=0):
        if wanted:
            return None if wanted in self.host.listeners else wanted
        return self.host.free_port()

    def dial(self, host, port, credentials, tag):
        return dial(self, host, port, credentials, tag)

    def datagram(self, host, port, on_datagram, shared=False, groups=()):
        if ":" in host:
            raise OSError("no IPv6 here")
        return Endpoint(self, port, on_datagram, shared)

    def resolve(self, host, port):
        future = Future(self)
        future.set([(host, port)])
        return future

    def spawn(self, argv, **how):
        from .program import Program
        return Program(self, argv, **how)


class StateWriter:
    """p2pstate that nobody reads but the invariants."""

    def __init__(self, name):
        self.name = f"sim-{name}"
        self.shown = None

    def publish(self, snapshot):
        self.shown = snapshot

    def close(self):
        self.shown = None


class HomeLock:
    """As system.HomeLock: held until its process is dead."""

    def __init__(self, loop, path):
        self._loop = loop
        self._path = path

    def acquire(self):
        holder = self._loop.host.locks.get(self._path)
        if holder is not None and not holder.is_dead:
            return False
        self._loop.host.locks[self._path] = self._loop
        return True

    def holder(self):
        return 1

    def release(self):
        if self._loop.host.locks.get(self._path) is self._loop:
            del self._loop.host.locks[self._path]


def interfaces_of(ip):
    """Loopback and one card."""
    return [Interface("lo", 1, (Address("127.0.0.1", 8, ""),), (), True, True),
            Interface("eth0", 2, (Address(ip, 8, "10.255.255.255"),), (), False, True)]


def _nothing():
    """So that what was put off has a turn."""

