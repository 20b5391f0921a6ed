"""What differs between Linux, macOS and Windows, in one place.

Everything else asks here and stays free of platform names (only `interfaces` and `process` choose among whole
mechanisms by the flags below). Functions that decide take the platform as an argument, so each branch is tested
on every system; what a platform lacks gives None or False, never an AttributeError at import.

Terminals: settings are always changed with TCSANOW, because the other ways wait until the terminal has taken
its output, and one that has stopped reading would stop the node. O_NONBLOCK belongs to the open file and not to
the descriptor, so setting it on 0 or 1 would change the shell that started us; `open_private_tty` opens the
terminal a second time by its name instead.

Sockets: a UDP port that several nodes of one computer share needs SO_REUSEADDR, on macOS SO_REUSEPORT as well.
On Windows SO_REUSEADDR on a TCP port would let any program steal it, so there SO_EXCLUSIVEADDRUSE takes its place.
"""

import ntpath
import os
import posixpath
import socket
import sys
import time

from .errors import UserError

LINUX = sys.platform.startswith("linux")
MACOS = sys.platform == "darwin"
WINDOWS = sys.platform == "win32"

APPLICATION = "p2pframe"                # the folder's name below the platform's place for state
ROWS, COLUMNS = 24, 80                  # of a terminal that does not tell (serial lines say 0 x 0)
LOCK_OFFSET = 1 << 30                   # byte; a range locked on Windows cannot be read, and the pid must be
LOCK_TRIES = 20                         # a probe (`is_held`) has the lock for microseconds, or until it is scheduled again
LOCK_PAUSE = 0.01                       # s between them
IUTF8 = 0x4000                          # termios.h, the same on Linux and macOS; Python has no name for it
SIO_UDP_CONNRESET = 0x9800000C          # Windows: deliver ICMP refusals as errors of recvfrom, or do not
STD_OUTPUT_HANDLE, ENABLE_VIRTUAL_TERMINAL_PROCESSING = -11, 4


def state_folder(env, platform: str = sys.platform) -> str:
    """Where this user's node keeps its state unless --home says otherwise; not made here."""
    if platform == "win32":
        base = env.get("LOCALAPPDATA") or ntpath.join(env.get("USERPROFILE") or os.path.expanduser("~"), "AppData", "Local")
        return ntpath.join(base, APPLICATION)
    home = env.get("HOME") or os.path.expanduser("~")
    if platform == "darwin":
        return posixpath.join(home, "Library", "Application Support", APPLICATION)
    base = env.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):         # the XDG specification: relative paths are invalid and to be ignored
        base = posixpath.join(home, ".local", "state")
    return posixpath.join(base, APPLICATION)


def host_name() -> str:
    """This computer's own name without its domain, or "". Never asks the network, as getfqdn would."""
    try:
        return socket.gethostname().partition(".")[0]
    except (OSError, UnicodeError):
        return ""


class HomeLock:
    """One root for each home: a lock that the kernel drops when its process dies, however that happens.

    The file stays when the lock goes: to delete it would let two processes lock two files of one name.
    """

    def __init__(self, path):
        self.path = path
        self._fd = None

    def acquire(self) -> bool:
        """Take the lock and write this process's pid; False if another process has it."""
        fd = self._open(os.O_CREAT)
        for _ in range(LOCK_TRIES):
            if self._try_lock(fd, shared=False):
                self._fd = fd
                self._write_pid()
                return True
            time.sleep(LOCK_PAUSE)
        os.close(fd)
        return False

    def is_held(self) -> bool:
        """Does some process, this one included, hold the lock now?"""
        if self._fd is not None:
            return True
        if not os.path.exists(self.path):
            return False
        fd = self._open(0)
        is_free = self._try_lock(fd, shared=True)
        os.close(fd)                     # drops the probe's own lock too
        return not is_free

    def holder(self):
        """The pid of the process that holds the lock, or None if nobody does or it has not written it yet."""
        if not self.is_held():
            return None
        with open(self.path, "rb") as file:
            word = file.read(20).strip()
        return int(word) if word.isdigit() else None

    def release(self):
        """Let the next one in. A process that dies releases it too."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def _write_pid(self):
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.write(self._fd, b"%d\n" % os.getpid())
        except OSError:
            pass                         # a full disk: the pid is a courtesy, the lock is what counts

    def _open(self, flags):
        try:
            return os.open(self.path, os.O_RDWR | flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            raise UserError(f"{self.path}: the lock file cannot be opened ({error.strerror}); take another --home", code="home")

    def _try_lock(self, fd, shared):
        try:
            _lock(fd, shared)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:         # network file systems without a lock daemon
            os.close(fd)
            raise UserError(f"{self.path}: this file system has no locks ({error.strerror}); take a --home on a local disk", code="home")
        return True


def _lock(fd, shared):
    if WINDOWS:
        import msvcrt
        os.lseek(fd, LOCK_OFFSET, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


# Descriptors

def ensure_standard_descriptors():
    """Open /dev/null where 0, 1 or 2 are closed, before anything else is opened: a socket or key file that got
    such a number would receive what is meant for the terminal."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
            continue
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)       # the lowest free number, which is this one
            assert opened == fd, f"descriptor {fd} was taken in between"
            os.set_inheritable(fd, True)
        if getattr(sys, name) is None:                    # Python found it closed at its own start
            setattr(sys, name, open(fd, mode, closefd=False))


def descriptor_word(fd: int) -> str:
    """How a child's command line names the descriptor `fd` that it inherits."""
    if WINDOWS:
        import msvcrt
        return str(msvcrt.get_osfhandle(fd))  # type: ignore[attr-defined]
    return str(fd)


def pass_descriptors(fds) -> dict:
    """The arguments of subprocess.Popen by which the child gets these descriptors, and no other beyond 0-2."""
    if not WINDOWS:
        return {"close_fds": True, "pass_fds": tuple(fds)}
    import subprocess
    handles = [int(descriptor_word(fd)) for fd in fds]
    for handle in handles:
        os.set_handle_inheritable(handle, True)  # type: ignore[attr-defined]
    how = subprocess.STARTUPINFO()  # type: ignore[attr-defined]
    how.lpAttributeList = {"handle_list": handles}
    return {"close_fds": True, "startupinfo": how}


def open_passed(word: str) -> int:
    """In the child: the descriptor that `descriptor_word` named, which its own children do not inherit."""
    if WINDOWS:
        import msvcrt
        return msvcrt.open_osfhandle(int(word), os.O_RDONLY)  # type: ignore[attr-defined]
    fd = int(word)
    os.set_inheritable(fd, False)
    return fd


# Terminals

def open_private_tty(fd: int):
    """A descriptor of our own, not blocking, for the terminal behind `fd`; None if there is none or it may not be opened."""
    if WINDOWS:
        return None
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(os.ttyname(fd), flags)
    except OSError:
        pass
    try:
        # After `su` or in a container the name may belong to another user or not exist. /dev/tty always may be opened, and
        # asking for the foreground group fails unless `fd` is that very terminal. macOS cannot wait on /dev/tty.
        if os.isatty(fd) and os.tcgetpgrp(fd) and not MACOS:
            return os.open("/dev/tty", flags)
    except OSError:
        pass
    return None


def terminal_size(fd: int) -> tuple:
    """(rows, columns) of the terminal behind `fd`; 24 x 80 if it does not tell."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except (OSError, ValueError):
        return ROWS, COLUMNS
    return rows or ROWS, columns or COLUMNS


def raw_mode(fd: int, is_transparent: bool = False):
    """Every key at once and unechoed, Ctrl-C as a byte; what to give to `restore_mode`, or None where that cannot be.

    Line ends on output are still completed, so that a traceback of somebody else stays readable, unless
    `is_transparent`: another terminal's output passes as it is.
    """
    try:
        import termios
    except ImportError:
        return None
    try:
        saved = termios.tcgetattr(fd)
        now = termios.tcgetattr(fd)
        now[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.INPCK | termios.ISTRIP | termios.IXON)
        now[1] = now[1] & ~termios.OPOST if is_transparent else now[1] | termios.OPOST | termios.ONLCR
        now[2] = now[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        now[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
        now[6][termios.VMIN], now[6][termios.VTIME] = 1, 0
        termios.tcsetattr(fd, termios.TCSANOW, now)
    except termios.error:
        return None
    return saved


def restore_mode(fd: int, saved):
    """Undo `raw_mode`; a terminal that has gone away in the meantime needs nothing."""
    if saved is not None:
        import termios
        try:
            termios.tcsetattr(fd, termios.TCSANOW, saved)
        except termios.error:
            pass


_GUARD = """exec 3>&1; saved=$(stty -g <&3) && echo ready >&2 || exit
read -r answer || { stty "$saved" <&3; printf '\\033[?2004l\\033[?1049l\\033[?25h\\033[0m\\r\\n' >&3; }"""


class TerminalGuard:
    """Puts the terminal right when this process can not: after SIGKILL. Made before `raw_mode`; needs /bin/sh and stty.

    A shell of about 1 MB waits at a pipe of ours. Our death closes the pipe, and then it restores the settings; `release`
    says a word first, and then it does nothing. It has a session of its own, so that what kills us does not kill it.
    """

    def __init__(self, fd: int):
        self._process = None
        if WINDOWS:
            return
        import subprocess
        try:
            # The terminal itself and not its name: when it has gone, another one may have the name.
            self._process = subprocess.Popen(["/bin/sh", "-c", _GUARD, "p2pframe-guard"], stdin=subprocess.PIPE, stdout=fd,
                                             stderr=subprocess.PIPE, start_new_session=True)
            self._process.stderr.readline()
        except OSError:
            pass                          # no shell here: then SIGKILL leaves the terminal raw

    def release(self):
        """The terminal is as it was: there is nothing to guard any more."""
        process, self._process = self._process, None
        if process is not None:
            try:
                process.communicate(b"well\n", 2.0)
            except (OSError, ValueError):
                pass
            process.wait()


def make_controlling_terminal(fd: int) -> bool:
    """In a child that leads a session of its own: Ctrl-C and the closing of this terminal now reach it."""
    try:
        import fcntl
        import termios
        fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
    except (ImportError, OSError):
        return False
    return True


def set_terminal_size(fd: int, rows: int, columns: int):
    """Tell the kernel, and by SIGWINCH the programs there, how large the terminal is."""
    import fcntl
    import struct
    import termios
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def erase_whole_characters(fd: int):
    """Backspace in this terminal's own line editing takes a character of UTF-8 and not its last byte."""
    import termios
    now = termios.tcgetattr(fd)
    now[0] |= IUTF8
    termios.tcsetattr(fd, termios.TCSANOW, now)


def prepare_console() -> bool:
    """Make the console understand ANSI sequences; False if it does not. On POSIX the terminal always does, or says
    TERM=dumb, which is not a question of the platform."""
    if not WINDOWS:
        return True
    import ctypes
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    kernel.GetStdHandle.restype = ctypes.c_void_p
    handle, mode = ctypes.c_void_p(kernel.GetStdHandle(STD_OUTPUT_HANDLE)), ctypes.c_uint32()
    if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):
        return False                     # not a console: a pipe or a file
    return bool(kernel.SetConsoleMode(handle, mode.value | ENABLE_VIRTUAL_TERMINAL_PROCESSING))


# Descriptors

def descriptors(wanted=4096):
    """How many descriptors this process may have; where it is allowed more than it has, up to `wanted` first."""
    try:
        import resource
    except ImportError:
        return 512 if WINDOWS else wanted      # what select() takes there
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == unlimited else min(wanted, hard), hard))
        except (OSError, ValueError):
            pass                               # macOS has a lower limit of its own
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if soft == unlimited else soft


# Sockets

def share_udp_port(sock, platform: str = sys.platform):
    """Before `bind`: the other nodes of this computer may have the same port; broadcasts reach each of them."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if platform == "darwin":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def set_exclusive(sock, platform: str = sys.platform):
    """Before `bind` of a listening TCP socket: nobody else gets this port, but a root that was just ended blocks no new one."""
    if platform == "win32":
        # ~SO_REUSEADDR in winsock2.h; Python has the name on Windows only
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", ~4), 1)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def ignore_udp_reset(sock, platform: str = sys.platform):
    """Windows only: an ICMP refusal of something sent earlier must not make `recvfrom` fail with 10054."""
    if platform != "win32":
        return
    import ctypes
    # socket.ioctl knows three codes and this one is not among them
    ioctl = ctypes.windll.ws2_32.WSAIoctl  # type: ignore[attr-defined]
    is_wanted, returned = ctypes.c_int(0), ctypes.c_uint32()
    ioctl(ctypes.c_size_t(sock.fileno()), ctypes.c_uint32(SIO_UDP_CONNRESET), ctypes.byref(is_wanted), ctypes.c_uint32(4),
          None, ctypes.c_uint32(0), ctypes.byref(returned), None, None)
