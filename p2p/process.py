"""Child processes: started on a terminal of their own (or on pipes), watched by the loop, never waited for.

`subprocess.Popen(start_new_session=True)` on a pty's far end, because `pty.fork` beside threads warns since 3.12 and
can deadlock, and a preexec function could as well. A program that wants Ctrl-C and the hang-up of its terminal makes
it its controlling terminal itself (`system.make_controlling_terminal`). The child gets descriptors 0-2 and those
named in `pass_fds`, no other: a socket that it kept open would hide the root's death from the peers.

A child's end comes as SIGCHLD in the loop. Each known pid is asked for by itself and never "any child", so what other
code starts stays theirs. `on_exit` comes after the last byte of output, also while reading is paused; a grandchild
that still holds the terminal is not waited for. At most READ_A_TURN bytes are read from one child in a turn of the
loop, so one that prints without end costs the others little; `pause` makes the kernel stop it.

Windows has no pty here: the child gets a console window of its own, and its end is looked for by a timer.
"""

import os
import signal
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from . import system
from .errors import UserError

READ_A_TURN = 1 << 16      # bytes; 16 reads of the 4 KiB that Linux gives at most
MAX_TYPED = 1 << 16        # bytes on their way to a child that does not read: a screenful of pasted text, not a file
SAME_SIZE_PAUSE = 0.06     # s between the two sizes of a forced redraw: programs that gather SIGWINCHs miss shorter ones
LOOK_EVERY = 0.1           # s between two looks at a child's end on Windows
MAX_SIDE = 10_000          # rows or columns; some programs allocate what they are told

_children = WeakKeyDictionary()        # loop -> {pid: Process}, in the order of their start


def spawn(loop, argv, *, told=None, pass_fds=(), **how):
    """Start `argv`; `on_output(bytes)` for what it prints, then once `on_exit(code)`, negative for a signal as in Popen.

    `terminal`: (rows, columns) of a new terminal, or None for pipes, stderr in stdout. `stdin`: with pipes, a descriptor
    to read from instead of what is written here. `told`: bytes that the child finds on a pipe, which a last argument
    names (`system.open_passed`): secrets, which must not stand in arguments. Raises UserError if it cannot be started.
    """
    if told is None:
        return _spawn(loop, argv, pass_fds=pass_fds, **how)
    try:
        reading, writing = os.pipe()
    except OSError as error:
        raise UserError(f"no pipe for {argv[0]} ({error.strerror}): end other jobs first", code="spawn")
    try:
        child = _spawn(loop, [*argv, system.descriptor_word(reading)], pass_fds=(*pass_fds, reading), **how)
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    _Feeder(loop, writing, told)
    return child


def _spawn(loop, argv, *, cwd, env, on_output, on_exit, terminal=None, pass_fds=(), stdin=None):
    if system.WINDOWS:
        return _spawn_in_console(loop, argv, cwd, env, pass_fds, on_exit)
    try:
        near, far = _open_terminal(*terminal) if terminal else _open_pipes(stdin)
    except OSError as error:
        raise UserError(f"no terminal for {argv[0]} ({error.strerror}): end other jobs first", code="spawn")
    how = dict(system.pass_descriptors(pass_fds), stdin=far[0], stdout=far[1], stderr=far[1], start_new_session=True)
    try:
        popen = _start(argv, cwd, env, how)
    except UserError:
        _close(near)
        raise
    finally:
        _close(far)
    return Process(loop, popen, near, on_output, on_exit)


def _open_terminal(rows, columns):
    # The near end twice: one descriptor to read and one to write, so that both kinds of child look the same
    master, slave = os.openpty()
    with _closed_on_error(master, slave):
        system.set_terminal_size(slave, *_bounded(rows, columns))
        system.erase_whole_characters(slave)
        os.set_blocking(master, False)
        return (os.dup(master), master), (slave, slave)


def _open_pipes(stdin):
    reader, far_writer = os.pipe()
    with _closed_on_error(reader, far_writer):
        os.set_blocking(reader, False)
        if stdin is not None:
            return (None, reader), (os.dup(stdin), far_writer)
        far_reader, writer = os.pipe()
        os.set_blocking(writer, False)
        return (writer, reader), (far_reader, far_writer)


@contextmanager
def _closed_on_error(*fds):
    try:
        yield
    except OSError:
        _close(fds)
        raise


def _start(argv, cwd, env, how):
    import subprocess
    ignored = [number for number in _inherited() if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, _nothing)    # a handler, unlike SIG_IGN, ends with the exec; SIG_DFL could end us in between
    try:
        return subprocess.Popen(argv, cwd=cwd, env=env, **how)
    except (OSError, ValueError) as error:         # ValueError: a NUL in an argument
        what = getattr(error, "filename", None) or argv[0]
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{what!s}: cannot be started ({why}); see that it exists and that this user may execute it", code="spawn")
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def _inherited():
    """What a root started with `&` or nohup ignores: its children would be deaf for Ctrl-C and for its own death."""
    return [] if system.WINDOWS else [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM]


def _nothing(_number, _frame):
    """See `_start`."""


def _spawn_in_console(loop, argv, cwd, env, pass_fds, on_exit):
    import subprocess
    how = dict(system.pass_descriptors(pass_fds), creationflags=subprocess.CREATE_NEW_CONSOLE)  # type: ignore[attr-defined]
    return Process(loop, _start(argv, cwd, env, how), (None, None), None, on_exit)


def _bounded(rows, columns):
    return min(max(1, rows), MAX_SIDE), min(max(1, columns), MAX_SIDE)


def _close(fds):
    for fd in sorted({fd for fd in fds if fd is not None}):
        os.close(fd)


def _watch_for_its_end(process, loop):
    if system.WINDOWS:
        process.look_again()
        return
    children = _children.setdefault(loop, {})
    if not children:
        loop.on_signal(signal.SIGCHLD, lambda: _reap(loop))
    children[process.pid] = process
    loop.call_soon(process.look)           # it may have ended before anybody listened


def _reap(loop):
    for process in list(_children[loop].values()):
        process.look()


class Process:
    """A started child. `exit` is None while it runs. Make it with `spawn`."""

    def __init__(self, loop, popen, near, on_output, on_exit):
        self.pid = popen.pid
        self.exit = None
        self._loop = loop
        self._popen = popen
        self._writing, self._reading = near
        self._on_output = on_output
        self._on_exit = on_exit
        self._typed = bytearray()
        self._is_paused = False
        self._resize_timer = None
        self._is_terminal = self._writing is not None and os.isatty(self._writing)
        self._watch()
        _watch_for_its_end(self, loop)

    # -- what it prints, and its end

    def pause(self):
        """Stop reading; when the kernel's buffer is full the child stops at its next print."""
        self._is_paused = True
        self._watch()

    def resume(self):
        """Read on."""
        self._is_paused = False
        self._watch()
        self._continue()

    def look(self):
        """Has it ended? The loop calls this when some child has."""
        if self.exit is None and self._popen.poll() is not None:
            self.exit = self._popen.returncode
            _children.get(self._loop, {}).pop(self.pid, None)
            self._continue()

    def look_again(self):
        """Look now and then, where no signal tells."""
        self.look()
        if self.exit is None:
            self._loop.call_later(LOOK_EVERY, self.look_again)

    def _continue(self):
        """After the end: the rest of the output, a turn's share at a time, and then `on_exit`."""
        if self.exit is None or self._on_exit is None:
            return
        if self._reading is not None and self._read() >= READ_A_TURN:
            self._loop.call_later(0, self._continue)       # not call_soon, which would be the same turn
        elif not self._is_paused and self._on_exit is not None:      # on_output may have paused or closed it
            on_exit, code = self._on_exit, self.exit
            self.close()
            on_exit(code)

    def _readable(self):
        if self.exit is None:
            self._read()
            if self._reading is None:      # usually its end: should the signal be lost in a full queue, nothing hangs
                self._loop.call_later(LOOK_EVERY, self.look)

    def _read(self):
        """Hand over at most a turn's share; how many bytes that was."""
        count = 0
        while count < READ_A_TURN and self._reading is not None and not self._is_paused:
            try:
                data = os.read(self._reading, READ_A_TURN - count)
            except BlockingIOError:
                break
            except OSError:                # EIO: the last program has closed the terminal
                data = b""
            if not data:
                self._stop_reading()
                break
            count += len(data)
            self._on_output(data)
        return count

    def _stop_reading(self):
        self._loop.unwatch(self._reading)
        os.close(self._reading)
        self._reading = None

    # -- what is typed

    def write(self, data: bytes) -> int:
        """Type `data`; how many bytes of it were taken. Fewer than all: it does not read, try again later."""
        if self._writing is None:
            return 0
        taken = bytes(data[:MAX_TYPED - len(self._typed)])
        self._typed += taken
        self._flush()
        return len(taken)

    def _flush(self):
        while self._typed:
            try:
                del self._typed[:os.write(self._writing, self._typed)]
            except BlockingIOError:
                break
            except OSError:                # it reads no more
                self._typed.clear()
        self._watch()

    def _watch(self):
        if self._reading is not None:
            self._loop.watch(self._reading, on_readable=None if self._is_paused or self.exit is not None else self._readable)
        if self._writing is not None:
            self._loop.watch(self._writing, on_writable=self._flush if self._typed else None)

    # -- what is done to it

    def resize(self, rows: int, columns: int):
        """Its terminal has another size now. The same size again makes it draw again: the kernel sends no SIGWINCH for it,
        so it is one column narrower for a moment."""
        if not self._is_terminal or self._writing is None:
            return
        rows, columns = _bounded(rows, columns)
        if self._resize_timer is not None:
            self._resize_timer.cancel()
            self._resize_timer = None
        if system.terminal_size(self._writing) == (rows, columns):
            system.set_terminal_size(self._writing, rows, columns - 1 or 2)
            self._resize_timer = self._loop.call_later(SAME_SIZE_PAUSE, self.resize, rows, columns)
        else:
            system.set_terminal_size(self._writing, rows, columns)

    def signal(self, number: int):
        """Send a signal to it and its own children. Nothing once it has been reaped: its pid may be another's by now."""
        if self.exit is not None:
            return
        if system.WINDOWS:
            self._popen.terminate()        # the only kind there is
            return
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):      # macOS: EPERM for a group of zombies
            pass

    def close(self):
        """Kill it if it runs, and give everything back; nothing is called after this."""
        self._on_exit = None
        self._on_output = lambda data: None
        if self._resize_timer is not None:
            self._resize_timer.cancel()
        if self.exit is None:
            self.signal(signal.SIGTERM if system.WINDOWS else signal.SIGKILL)
        if self._reading is not None:
            self._stop_reading()
        if self._writing is not None:
            self._loop.unwatch(self._writing)
            os.close(self._writing)
            self._writing = None
        self._typed.clear()


class _Feeder:
    """Writes what a child is told into its pipe as it is read: it may be more than the pipe takes."""

    def __init__(self, loop, fd, data):
        self._loop = loop
        self._fd = fd
        self._data = memoryview(data)
        if system.WINDOWS:
            loop.work(self._write_all)       # no selector for pipes there
        else:
            os.set_blocking(fd, False)
            loop.watch(fd, on_writable=self._write)

    def _write(self):
        try:
            self._data = self._data[os.write(self._fd, self._data):]
        except BlockingIOError:
            return
        except OSError:
            self._data = memoryview(b"")     # it ended before it read
        if not self._data:
            self._loop.unwatch(self._fd)
            os.close(self._fd)

    def _write_all(self):
        with os.fdopen(self._fd, "wb") as pipe:
            pipe.write(self._data)
