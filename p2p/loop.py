"""The loop: one thread that waits for everything at once, and the only door to the world.

A turn is: sleep until a descriptor is ready or a timer is due; call the handlers; run what was put off
with `call_soon`; then the end-of-turn work, which is where connections flush. Handlers therefore never
send by themselves: a hundred messages of one turn leave in one system call.

Everything above the mechanisms sees the world through this object alone: time, chance, sockets, children,
files, workers. A simulator that offers the same methods can run the same nodes in virtual time.

Rules: no handler blocks; a handler that raises is reported and costs nobody else their turn; timers that
are due in one turn run in the order of their deadlines.
"""

import os
import signal
import socket
import sys
import time
from collections import deque
from time import monotonic

from . import limits
from .errors import P2PError, UserError
from .poller import READ, WRITE, poller
from .tasks import Future, Task
from .timers import Timers


CORK = 0.0005        # s; how long what can wait for more of its kind waits while the loop is busy
LONGEST = 3600.0           # s of one sleep; what the system takes as a timeout is bounded, and infinity is no number to it


class Watch:
    """Who is called when one descriptor is ready."""

    __slots__ = ("fd", "since", "on_readable", "on_writable")

    def __init__(self, fd, since, on_readable, on_writable):
        self.fd = fd
        self.since = since          # the turn in which it was made
        self.on_readable = on_readable
        self.on_writable = on_writable

    def events(self):
        """The poller's bits for what is wanted."""
        return (READ if self.on_readable else 0) | (WRITE if self.on_writable else 0)


class Loop:
    """See the module; one for each process."""

    def __init__(self, report=None):
        self.report = report or _report_to_stderr
        self.turn_began = monotonic()      # on the loop's clock; for what is noted with each message
        self.turns = 0
        self.busy_s = 0.0
        self.worst_s = 0.0
        self._poller = poller()
        self._poll = self._poller.poll
        self._watches = {}
        self._always_ready = []       # regular files: epoll refuses them, and they never block
        self._timers = Timers()
        self._soon = deque()          # worker threads append to it: only atomic operations
        self._at_end = []
        self.at_turn_end = self._at_end.append      # (callback): call once, when all handlers of this turn have run, to flush
        self._before_sleep = []
        self._corked_at = 0.0
        self._signals = {}
        self._running = False
        self._pool = None
        self._disk = None
        self._old_wakeup = -1
        self._is_woken = False
        self._waker_in, self._waker_out = socket.socketpair()
        for end in (self._waker_in, self._waker_out):
            end.setblocking(False)
        self.watch(self._waker_in.fileno(), on_readable=self._woken)

    # -- time and chance

    now = staticmethod(monotonic)     # seconds on a clock that never jumps; not wrapped, since each turn asks several times

    def wall(self):
        """Unix time, s. For showing and for files; never for deciding how long something took."""
        return time.time()

    def entropy(self, size):
        """`size` unpredictable bytes."""
        return os.urandom(size)

    def call_at(self, when, callback, *args):
        """Call at `when` on the loop's clock; a Timer that can be cancelled."""
        return self._timers.add(when, callback, args)

    def call_later(self, delay, callback, *args):
        """Call `delay` seconds from now."""
        return self.call_at(self.now() + delay, callback, *args)

    def call_soon(self, callback, *args):
        """Call in this turn, after the handlers that are running."""
        self._soon.append((callback, args))

    def before_sleep(self, callback):
        """Call once: before the loop sleeps, or after CORK if it has no time to. To flush what gains by waiting for more."""
        if not self._before_sleep:
            self._corked_at = monotonic()
        self._before_sleep.append(callback)

    async def sleep(self, seconds):
        """Let a task wait."""
        future = Future(self)
        self.call_later(seconds, future.set)
        await future

    # -- tasks and workers

    def future(self):
        """A new Future of this loop."""
        return Future(self)

    def start(self, coroutine):
        """Run a coroutine on this loop."""
        return Task(self, coroutine)

    def task_failed(self, task, error):
        """A task ended by an exception. Declared failures are its result; a bug is reported if nobody awaits it."""
        if not isinstance(error, P2PError):
            self.call_later(1.0, self._report_unnoticed, task, error)

    def _report_unnoticed(self, task, error):
        if not task._noticed:
            self.report("a task failed", error)

    def work(self, function, *args):
        """Run `function(*args)` on a worker thread; a Future of its result. For what takes more than about 5 ms."""
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor
            self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="p2p-worker")
        future = Future(self)
        self._pool.submit(self._run_work, future, function, args)
        return future

    def _run_work(self, future, function, args):
        try:
            outcome = (future.set, (function(*args),))
        except BaseException as error:  # crosses the thread as the future's failure
            outcome = (future.fail, (error,))
        self._soon.append(outcome)
        self.wake()

    def wake(self):
        """End the current sleep. May be called from any thread and from a signal handler."""
        if self._is_woken:
            return      # one byte is enough, and a full pipe would lose the number of a signal
        self._is_woken = True
        try:
            self._waker_out.send(b"\0")
        except (BlockingIOError, OSError):
            pass  # full: it will wake anyway; closed: nobody sleeps

    def _woken(self):
        try:
            numbers = self._waker_in.recv(4096)
        except (BlockingIOError, OSError):
            numbers = b""
        # Only now: a wake until here needs no byte, since what it was about runs in this turn
        self._is_woken = False
        for number in sorted(set(numbers)):
            handler = self._signals.get(number)
            if handler:
                handler()

    # -- descriptors and signals

    def watch(self, fd, on_readable=None, on_writable=None):
        """Call when `fd` is ready; a second call replaces what is wanted, none of both is `unwatch`."""
        if not on_readable and not on_writable:
            self.unwatch(fd)
            return
        known = self._watches.get(fd)
        if known is None:
            watch = Watch(fd, self.turns, on_readable, on_writable)
            try:
                self._poller.register(fd, watch.events())
            except PermissionError:
                self._always_ready.append(watch)
            self._watches[fd] = watch
            return
        before = known.events()
        known.on_readable, known.on_writable = on_readable, on_writable
        if known.events() != before and known not in self._always_ready:
            self._poller.modify(fd, known.events())

    def unwatch(self, fd):
        """Forget `fd`; call it before closing the descriptor."""
        watch = self._watches.pop(fd, None)
        if watch is None:
            return
        watch.on_readable = watch.on_writable = None
        if watch in self._always_ready:
            self._always_ready.remove(watch)
        else:
            self._poller.unregister(fd)

    def on_signal(self, number, callback):
        """Call from the loop, not from the handler, when the signal came. None restores the default."""
        if callback is None:
            signal.signal(number, signal.SIG_DFL)
            if self._signals.pop(number, None) and not self._signals:
                signal.set_wakeup_fd(self._old_wakeup)     # ours will be closed, and its number be another file's
            return
        if not self._signals:
            self._old_wakeup = signal.set_wakeup_fd(self._waker_out.fileno(), warn_on_full_buffer=False)
        self._signals[number] = callback
        signal.signal(number, _ignore_in_handler)

    # -- turning

    def run(self):
        """Turn until `stop`."""
        self._running = True
        now = monotonic()
        while self._running:
            now = self.turn(None, now)

    def stop(self):
        """End `run` after this turn."""
        self._running = False
        self.wake()

    def turn(self, timeout=None, now=None):
        """One turn; sleeps `timeout` seconds at most (None: until something happens). The time at which it ended."""
        heap = self._timers.heap
        due = heap[0][0] if heap else None       # a timer that is cancelled may be first: then this turn is for nothing
        if self._soon or self._at_end or self._always_ready:
            timeout = 0
        elif due is not None:
            until = due - (now or monotonic())
            if timeout is None or until < timeout:
                timeout = min(until, LONGEST) if until > 0 else 0
        if self._before_sleep and (timeout != 0 or monotonic() - self._corked_at >= CORK):
            self._uncork()
            if self._soon or self._at_end:
                timeout = 0
        ready = self._poll(timeout)
        self.turn_began = began = monotonic()
        self.turns += 1
        watches = self._watches
        for fd, mask in ready:
            watch = watches.get(fd)
            if watch is None or watch.since == self.turns:
                continue        # a handler of this turn has unwatched it, and maybe the number is another's now
            try:
                if mask & ~WRITE and watch.on_readable:
                    watch.on_readable()
                if mask & ~READ and watch.on_writable:
                    watch.on_writable()
            except Exception as error:  # one bad handler never stops the node
                self.report("a handler failed", error)
        if self._always_ready:
            for watch in tuple(self._always_ready):
                if watch.on_readable:
                    self._call(watch.on_readable)
        if due is not None and due <= began:
            self._run_timers(began)
        if self._soon:
            self._run_soon()
        if self._at_end:
            self._end_turn()
        now = monotonic()
        spent = now - began
        self.busy_s += spent
        if spent > self.worst_s:
            self.worst_s = spent
        return now

    def flush(self):
        """Let out now what is queued: for a program that sends and will not turn the loop for a while."""
        self._uncork()
        self._end_turn()

    def _uncork(self):
        waiting, self._before_sleep = self._before_sleep, []
        for callback in waiting:
            self._call(callback)

    def _end_turn(self):
        endings = self._at_end
        while endings:
            now = endings[:]        # a callback may add others, or come here itself
            endings.clear()
            for callback in now:
                try:
                    callback()
                except Exception as error:
                    self.report("a handler failed", error)

    def fileno(self):
        """Readable when a descriptor that is watched is ready; timers do not show. For a loop inside another one."""
        try:
            return self._poller.fileno()
        except AttributeError:
            raise UserError("this platform has no descriptor for a loop: ask `poll()` every now and then instead", code="platform")

    def _run_timers(self, now):
        due = self._timers.take(now)
        while due is not None:
            self._call(due[0], *due[1])
            due = self._timers.take(now)

    def _run_soon(self):
        # A bounded number of rounds: call_soon from call_soon must not keep the sockets waiting for ever.
        for _ in range(16):
            for _ in range(len(self._soon)):
                callback, args = self._soon.popleft()
                self._call(callback, *args)
            if not self._soon:
                return

    def _call(self, callback, *args):
        try:
            callback(*args)
        except Exception as error:  # one bad handler never stops the node
            self.report("a handler failed", error)

    def close(self):
        """Give back the loop's own descriptors and stop the workers."""
        for number in tuple(self._signals):
            self.on_signal(number, None)
        if self._pool is not None:
            self._pool.shutdown(wait=False)
        self._poller.close()
        self._waker_in.close()
        self._waker_out.close()

    # -- the rest of the world, each made where it is first wanted

    @property
    def disk(self):
        """The files (p2p/disk.py)."""
        if self._disk is None:
            from .disk import Disk
            self._disk = Disk()
        return self._disk

    def interfaces(self):
        """The network interfaces of this computer, sorted."""
        from .interfaces import list_interfaces
        return list_interfaces()

    def state_writer(self):
        """p2pstate of this root, in shared memory (p2p/state.py)."""
        from .state import StateWriter
        return StateWriter(self.entropy(8).hex())

    def lock_home(self, path):
        """The lock that one root of a home holds (system.HomeLock)."""
        from .system import HomeLock
        return HomeLock(path)

    def spawn(self, argv, **how):
        """Start a child process (p2p/process.py)."""
        from .process import spawn
        return spawn(self, argv, **how)

    def listen(self, port, credentials, accept, backlog=limits.MAX_PENDING * 2):
        """Accept TCP on `port` of every address (0: any); `accept(channel)` for each. Raises OSError if taken."""
        from .channel import Listener
        return Listener(self, port, credentials, accept, backlog)

    def free_port(self, wanted=0):
        """A TCP port that is free at this moment (0: any); None where the wanted one is not."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            try:
                sock.bind(("0.0.0.0", wanted))
            except OSError:
                return None
            return sock.getsockname()[1]

    def dial(self, host, port, credentials, tag):
        """A Channel that is being opened to a numeric address, in the network with this tag."""
        from .channel import dial
        return dial(self, host, port, credentials, tag)

    def datagram(self, host, port, on_datagram, shared=False, groups=()):
        """A UDP endpoint; `on_datagram(data, address)` for each that comes."""
        from .udp import Endpoint
        return Endpoint(self, host, port, on_datagram, shared, groups)

    def resolve(self, host, port):
        """A Future of the numeric addresses of a name a person typed."""
        return self.work(_resolve, host, port)


def _resolve(host, port):
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UserError(f"{host}: no such host. Give an address such as 192.168.1.20, or a name this computer can look up",
                        code="no-such-host")
    return [_with_scope(entry[4]) for entry in found]


def _with_scope(address):
    # getaddrinfo gives (host, port, flow, scope) for IPv6; a link-local address means nothing without its scope
    host = address[0]
    if len(address) == 4 and address[3] and "%" not in host:
        host = f"{host}%{address[3]}"
    return host, address[1]


def _ignore_in_handler(_number, _frame):
    """The wake-up descriptor has been written; the loop does the rest."""


def _report_to_stderr(what, error):
    import traceback
    sys.stderr.write(f"p2pframe: {what}\n" + "".join(traceback.format_exception(type(error), error, error.__traceback__)))
