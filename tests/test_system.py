"""What differs between platforms: real locks, real terminals, and the branches of other systems by substitution."""

import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import types

import pytest

from p2p import system
from p2p.errors import UserError
from tests.waiting import wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOLD = """
import sys
from p2p.system import HomeLock
lock = HomeLock(sys.argv[1])
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


def python(code, *argv, **how):
    return subprocess.Popen([sys.executable, "-c", code, *argv], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **how)


@pytest.mark.parametrize("platform, env, folder", [
    ("linux", {"HOME": "/home/a"}, "/home/a/.local/state/p2pframe"),
    ("linux", {"HOME": "/home/a", "XDG_STATE_HOME": "/var/a"}, "/var/a/p2pframe"),
    ("linux", {"HOME": "/home/a", "XDG_STATE_HOME": "relative"}, "/home/a/.local/state/p2pframe"),
    ("darwin", {"HOME": "/Users/a", "XDG_STATE_HOME": "/var/a"}, "/Users/a/Library/Application Support/p2pframe"),
    ("win32", {"LOCALAPPDATA": r"C:\Users\a\AppData\Local"}, r"C:\Users\a\AppData\Local\p2pframe"),
    ("win32", {"USERPROFILE": r"C:\Users\a"}, r"C:\Users\a\AppData\Local\p2pframe"),
])
def test_the_state_folder_is_where_each_platform_keeps_state(platform, env, folder):
    assert system.state_folder(env, platform) == folder


def test_a_home_without_HOME_is_still_found():
    assert system.state_folder({}, "linux").startswith("/")


def test_the_lock_admits_one_process_and_tells_its_pid_until_it_is_killed(tmp_path):
    path = str(tmp_path / "lock")
    mine = system.HomeLock(path)
    assert not mine.is_held() and mine.holder() is None
    other = python(HOLD, path)
    assert other.stdout.readline() == b"True\n"
    assert not mine.acquire() and mine.is_held() and mine.holder() == other.pid
    other.kill()
    other.communicate()
    assert not mine.is_held() and mine.holder() is None        # its pid still stands in the file
    assert mine.acquire() and mine.holder() == os.getpid()
    mine.release()
    assert not system.HomeLock(path).is_held()


def test_asking_whether_the_lock_is_held_never_keeps_a_root_from_starting(tmp_path):
    path = str(tmp_path / "lock")
    asker = python("import sys\nfrom p2p.system import HomeLock\nlock = HomeLock(sys.argv[1])\nprint(flush=True)\n"
                   "while lock.is_held() in (True, False): pass", path)
    try:
        asker.stdout.readline()
        for _ in range(200):
            lock = system.HomeLock(path)
            assert lock.acquire()
            lock.release()
    finally:
        asker.kill()
        asker.communicate()


def test_a_child_does_not_inherit_the_lock(tmp_path):
    lock = system.HomeLock(str(tmp_path / "lock"))
    assert lock.acquire()
    child = python("import sys; sys.stdin.read()")
    lock.release()
    assert lock.acquire()
    lock.release()
    child.communicate()


def test_a_lock_that_cannot_be_opened_is_the_users_problem_in_one_line(tmp_path):
    with pytest.raises(UserError, match="lock file cannot be opened") as caught:
        system.HomeLock(str(tmp_path / "missing" / "lock")).acquire()
    assert "\n" not in str(caught.value)


def test_the_windows_branch_locks_a_range_that_leaves_the_pid_readable(tmp_path, monkeypatch):
    calls = []
    fake = types.SimpleNamespace(LK_NBLCK=2, locking=lambda fd, mode, size: calls.append((os.lseek(fd, 0, os.SEEK_CUR), mode, size)))
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    lock = system.HomeLock(str(tmp_path / "lock"))
    assert lock.acquire()
    assert calls == [(system.LOCK_OFFSET, 2, 1)]
    assert (tmp_path / "lock").read_bytes() == b"%d\n" % os.getpid()
    lock.release()


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_descriptors_are_opened_so_that_nothing_else_gets_their_numbers(closed, tmp_path):
    report = tmp_path / "report"
    code = (f"import os, sys\nfor fd in {closed}: os.close(fd)\n"
            f"os.execv(sys.executable, [sys.executable, '-c', '''import os, sys\n"
            "from p2p.system import ensure_standard_descriptors\nensure_standard_descriptors()\n"
            "first = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
            "print(1); sys.stderr.write(str(2)); rest = sys.stdin.read()\n"
            "os.write(first, repr((first > 2, rest, [os.get_inheritable(fd) for fd in (0, 1, 2)])).encode())''', sys.argv[1]])")
    child = python(code, str(report), stderr=subprocess.PIPE)
    _, errors = child.communicate(b"")
    assert child.returncode == 0, errors
    assert report.read_text() == "(True, '', [True, True, True])"


def test_a_passed_descriptor_arrives_in_the_child_and_no_other_does():
    reader, writer = os.pipe()
    other, other_writer = os.pipe()
    os.set_inheritable(other, True)
    code = ("import os, sys\nfrom p2p.system import open_passed\nfd = open_passed(sys.argv[1])\n"
            "print(os.read(fd, 100), os.get_inheritable(fd))\ntry: os.fstat(int(sys.argv[2]))\nexcept OSError: print('closed')")
    child = python(code, system.descriptor_word(reader), str(other), **system.pass_descriptors([reader]))
    os.write(writer, b"secret")
    out, _ = child.communicate()
    assert out == b"b'secret' False\nclosed\n"
    for fd in (reader, writer, other, other_writer):
        os.close(fd)


def test_the_windows_branch_passes_handles_by_a_list(monkeypatch):
    inheritable = []
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(
        get_osfhandle=lambda fd: fd + 1000, open_osfhandle=lambda handle, flags: handle - 1000))
    monkeypatch.setattr(subprocess, "STARTUPINFO", types.SimpleNamespace, raising=False)
    monkeypatch.setattr(os, "set_handle_inheritable", lambda handle, on: inheritable.append((handle, on)), raising=False)
    how = system.pass_descriptors([7])
    assert how["close_fds"] and how["startupinfo"].lpAttributeList == {"handle_list": [1007]}
    assert inheritable == [(1007, True)]
    assert system.open_passed(system.descriptor_word(7)) == 7


@pytest.fixture
def terminal():
    master, slave = pty.openpty()
    yield master, slave
    os.close(master), os.close(slave)


def test_the_private_descriptor_does_not_block_and_leaves_the_shared_one_alone(terminal):
    master, slave = terminal
    private = system.open_private_tty(slave)
    assert not os.get_blocking(private) and os.get_blocking(slave) and not os.get_inheritable(private)
    os.write(private, b"hello")
    assert os.read(master, 100) == b"hello"
    os.close(private)


def test_what_is_no_terminal_has_no_private_descriptor(tmp_path):
    reader, writer = os.pipe()
    with open(str(tmp_path / "file"), "wb") as file:
        assert [system.open_private_tty(fd) for fd in (reader, file.fileno(), 99)] == [None] * 3
    assert system.raw_mode(reader) is None and system.terminal_size(reader) == (24, 80)
    os.close(reader), os.close(writer)


def test_raw_mode_keeps_line_ends_of_output_and_is_undone_exactly(terminal):
    master, slave = terminal
    before = termios.tcgetattr(slave)
    saved = system.raw_mode(slave)
    raw = termios.tcgetattr(slave)
    assert not raw[3] & (termios.ECHO | termios.ICANON | termios.ISIG) and raw[1] & termios.OPOST
    os.write(slave, b"a\n")
    assert os.read(master, 10) == b"a\r\n"
    system.raw_mode(slave, is_transparent=True)
    os.write(slave, b"a\n")
    assert os.read(master, 10) == b"a\n"
    system.restore_mode(slave, saved)
    assert termios.tcgetattr(slave) == before


def test_a_terminal_that_has_gone_away_is_restored_in_silence():
    master, slave = pty.openpty()
    saved = system.raw_mode(slave)
    os.close(master)
    assert saved
    system.restore_mode(slave, saved)
    os.close(slave)
    system.restore_mode(slave, saved)


def test_the_size_is_told_and_zero_means_the_usual_one(terminal):
    master, slave = terminal
    assert system.terminal_size(slave) == (24, 80)
    system.set_terminal_size(master, 7, 33)
    assert system.terminal_size(slave) == (7, 33)


def test_a_session_leader_gets_its_terminal_and_with_it_the_ctrl_c(terminal):
    master, slave = terminal
    code = ("from p2p.system import make_controlling_terminal\nimport os, signal\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"       # ignored if these tests run in the background
            "assert make_controlling_terminal(0)\nos.write(1, b'ready')\nos.read(0, 10)")
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL,
                             start_new_session=True)
    os.read(master, 100)
    os.write(master, b"\x03")
    assert child.wait(10) in (-signal.SIGINT, 1)
    assert not system.make_controlling_terminal(99)


class Options:
    """A socket that remembers what was set."""

    def __init__(self):
        self.set = []

    def setsockopt(self, *option):
        self.set.append(option)


def test_socket_options_of_each_platform():
    reuse, port = (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found = {}
    for platform in ("linux", "darwin", "win32"):
        udp, tcp = Options(), Options()
        system.share_udp_port(udp, platform)
        system.set_exclusive(tcp, platform)
        found[platform] = udp.set, tcp.set
    assert found == {"linux": ([reuse], [reuse]), "darwin": ([reuse, port], [reuse]),
                     "win32": ([reuse], [(socket.SOL_SOCKET, -5, 1)])}


def test_windows_is_told_not_to_fail_recvfrom_after_a_refusal(monkeypatch):
    import ctypes
    calls = []
    fake = types.SimpleNamespace(ws2_32=types.SimpleNamespace(WSAIoctl=lambda *words: calls.append(words)))
    monkeypatch.setattr(ctypes, "windll", fake, raising=False)
    system.ignore_udp_reset(types.SimpleNamespace(fileno=lambda: 5), "linux")
    assert not calls
    system.ignore_udp_reset(types.SimpleNamespace(fileno=lambda: 5), "win32")
    assert calls[0][0].value == 5 and calls[0][1].value == 0x9800000C and len(calls[0]) == 9


def test_two_sockets_share_a_udp_port_and_both_hear_a_broadcast():
    pair = []
    for port in (0, None):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        system.share_udp_port(sock)
        system.ignore_udp_reset(sock)
        sock.bind(("0.0.0.0", port if port is not None else pair[0].getsockname()[1]))
        sock.setblocking(False)
        pair.append(sock)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sender.sendto(b"x", ("127.255.255.255", pair[0].getsockname()[1]))

    def heard(sock):
        try:
            return sock.recv(10)
        except BlockingIOError:
            return None
    for sock in pair:
        assert wait_until(lambda: heard(sock)) == b"x"
    for sock in pair + [sender]:
        sock.close()


def test_a_taken_tcp_port_stays_taken():
    first, second = socket.socket(), socket.socket()
    for sock in (first, second):
        system.set_exclusive(sock)
    first.bind(("127.0.0.1", 0))
    first.listen()
    with pytest.raises(OSError):
        second.bind(first.getsockname())
    first.close(), second.close()


def test_the_host_name_has_no_domain(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "ann.home.arpa")
    assert system.host_name() == "ann"


def test_prepare_console_asks_windows_for_ansi(monkeypatch):
    import ctypes
    assert system.prepare_console()
    modes = []

    class Kernel:
        GetStdHandle = staticmethod(lambda number: 77)
        GetConsoleMode = staticmethod(lambda handle, mode: setattr(mode._obj, "value", 3) or 1)
        SetConsoleMode = staticmethod(lambda handle, mode: modes.append((handle.value, mode)) or 1)

    monkeypatch.setattr(ctypes, "windll", types.SimpleNamespace(kernel32=Kernel()), raising=False)
    monkeypatch.setattr(system, "WINDOWS", True)
    assert system.prepare_console()
    assert modes == [(77, 7)]
