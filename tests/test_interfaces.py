"""The list of interfaces: a real one in a namespace without a route, both ways of asking on this system, and the
memory that macOS and Windows would have returned."""

import os
import socket
import struct
import subprocess
import sys

import pytest

from p2p import interfaces, system
from p2p.interfaces import Address, Interface, is_nearby, list_interfaces
from tests.waiting import wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UP = interfaces.UP | interfaces.RUNNING


@pytest.fixture
def namespace():
    """`run(words of ip...)` and `look()`: a fresh network namespace of its own."""
    name = f"p2pif-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)

    class Namespace:
        def run(self, *lines):
            for line in lines:
                subprocess.run(["ip", "-n", name, *line.split()], check=True)

        def look(self, how="list_interfaces"):
            code = f"from p2p.interfaces import *\nfrom p2p import interfaces\nprint(interfaces.{how}())"
            out = subprocess.run(["ip", "netns", "exec", name, sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.PIPE)
            return {found.name: found for found in eval(out.stdout)}
    yield Namespace()
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.lab
def test_several_addresses_without_a_route_are_all_seen_with_their_broadcasts(namespace):
    namespace.run("link add eth7 type veth peer name other", "link set eth7 addrgenmode none",
                  "link set other addrgenmode none", "link set eth7 up", "link set other up",
                  "addr add 10.1.2.3/24 dev eth7",                      # without brd: the kernel tells none
                  "addr add 10.1.2.4/24 dev eth7", "addr add 172.20.0.1/30 brd 172.20.0.3 dev eth7",
                  "addr add 10.9.9.9/31 dev eth7",
                  "addr add fe80::77/64 dev eth7 nodad", "addr add 2001:db8::1/64 dev eth7 nodad")
    assert namespace.look() == namespace.look("_by_libc")
    namespace.run("addr add 10.8.8.8 peer 10.7.0.0/16 dev eth7")
    found = namespace.look()
    assert sorted(found["eth7"].addresses) == [
        Address("10.1.2.3", 24, "10.1.2.255"), Address("10.1.2.4", 24, "10.1.2.255"), Address("10.8.8.8", 32, ""),
        Address("10.9.9.9", 31, ""), Address("172.20.0.1", 30, "172.20.0.3")]
    assert found["eth7"].link_local6 == ("fe80::77",) and found["eth7"].is_up and not found["eth7"].is_loopback
    assert found["lo"].is_loopback and not found["lo"].is_up


@pytest.mark.lab
def test_a_pulled_cable_and_a_tentative_address_show_as_changes(namespace):
    namespace.run("link add eth7 type veth peer name other", "link set eth7 up")
    before = namespace.look()["eth7"]
    assert not before.is_up
    namespace.run("addr add fe80::77/64 dev eth7")          # tentative as long as there is no cable
    assert namespace.look("_by_libc")["eth7"].link_local6 == ("fe80::77",) and namespace.look()["eth7"] == before
    namespace.run("link set other up")
    assert namespace.look()["eth7"].is_up
    wait_until(lambda: "fe80::77" in namespace.look()["eth7"].link_local6, 5.0, "the end of the duplicate detection")
    namespace.run("link set other down")
    assert not namespace.look()["eth7"].is_up


@pytest.mark.lab
def test_more_interfaces_than_fit_into_one_answer(namespace):
    names = [f"d{number}" for number in range(100)]
    batch = "".join(f"link add {name} type veth peer name e{name}\naddr add 10.0.{number}.1/24 dev {name}\n"
                    for number, name in enumerate(names))
    subprocess.run(["ip", "-n", f"p2pif-{os.getpid()}", "-batch", "-"], input=batch.encode(), check=True)
    found = namespace.look()
    assert [found[name].addresses[0].host for name in names] == [f"10.0.{number}.1" for number in range(100)]


def test_netlink_and_libc_agree_and_the_list_is_in_the_order_of_the_indices():
    found = list_interfaces()
    assert [interface.index for interface in found] == sorted(index for index, _ in socket.if_nameindex())
    assert found == interfaces._by_libc()
    assert any(address.host == "127.0.0.1" for interface in found if interface.is_loopback for address in interface.addresses)


def test_without_netlink_libc_answers_and_without_both_the_list_is_empty(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "no")
    expected = list_interfaces()
    monkeypatch.setattr(socket, "AF_NETLINK", 999, raising=False)
    assert list_interfaces() == expected
    monkeypatch.setattr(interfaces, "_by_libc", refuse)
    assert list_interfaces() == []


class Kernel:
    """A netlink socket that changes the list while it is read, the first time."""

    def __init__(self):
        self.asked = 0
        self.answers = []

    def sendto(self, data, address):
        self.asked += 1
        sequence = interfaces.MESSAGE.unpack_from(data)[3]
        flags = interfaces.INTERRUPTED if self.asked == 1 else 0
        self.answers = [interfaces.MESSAGE.pack(16, interfaces.DONE, 0, sequence - 1, 0),          # of an older question
                        interfaces.MESSAGE.pack(20, interfaces.NEW_LINK, flags, sequence, 0) + b"body"
                        + interfaces.MESSAGE.pack(16, interfaces.DONE, 0, sequence, 0)]

    def recv(self, size):
        return self.answers.pop(0)


def test_a_list_that_changed_while_it_was_read_does_not_count():
    kernel = Kernel()
    assert interfaces._dump(kernel, interfaces.GET_LINK, interfaces.NEW_LINK, b"", 1) is None
    assert interfaces._dump(kernel, interfaces.GET_LINK, interfaces.NEW_LINK, b"", 3) == [b"body"]


class Memory:
    """Another system's memory: blocks at addresses."""

    def __init__(self):
        self.blocks = {}

    def put(self, block):
        address = 0x1000 * (len(self.blocks) + 1)
        self.blocks[address] = block
        return address

    def read(self, address, size=None):
        base = address & ~0xfff
        data = self.blocks[base][address - base:]
        return data.partition(b"\0")[0] if size is None else data[:size].ljust(size, b"\xee")


def test_getifaddrs_of_macos_with_its_short_masks_and_hidden_scopes():
    memory = Memory()

    def sockaddr(family, body, length=None):
        return memory.put(bytes([len(body) + 2 if length is None else length, family]) + body)

    ip = struct.pack
    rows = [
        (b"lo0\0", 0x8049, sockaddr(socket.AF_INET, b"\0\0\x7f\0\0\1"), memory.put(b"\5\0\0\0\xff"), 0),
        (b"en0\0", 0x8863, sockaddr(18, b"\4\0\6\3\0\0en0"), 0, 0),
        (b"en0\0", 0x8863, sockaddr(socket.AF_INET6, b"\0\0" + ip("=I", 0) + b"\xfe\x80\0\4" + bytes(11) + b"\1"),
         memory.put(b"\x10\0\0\0\0\0\0\0" + b"\xff" * 8), 0),
        (b"en0\0", 0x8863, sockaddr(socket.AF_INET, b"\0\0\xc0\xa8\1\2"), memory.put(b"\7\0\0\0\xff\xff\xff"),
         sockaddr(socket.AF_INET, b"\0\0\xc0\xa8\1\xff")),
        (b"utun0\0", 0x8051, sockaddr(socket.AF_INET, b"\0\0\x0a\0\0\1"), memory.put(b"\x08\0\0\0\xff\xff\xff\xff"),
         sockaddr(socket.AF_INET, b"\0\0\x0a\0\0\2")),
    ]
    pointer = 0
    for name, flags, address, mask, other in reversed(rows):
        pointer = memory.put(interfaces.IFADDRS.pack(pointer, memory.put(name), flags, address, mask, other, 0))
    assert interfaces._read_ifaddrs(pointer, memory.read, {"lo0": 1, "en0": 4, "utun0": 9}.get, True) == [
        Interface("lo0", 1, (Address("127.0.0.1", 8, ""),), (), True, True),
        Interface("en0", 4, (Address("192.168.1.2", 24, "192.168.1.255"),), ("fe80::1",), False, True),
        Interface("utun0", 9, (Address("10.0.0.1", 32, ""),), (), False, True)]


def test_the_adapters_of_windows():
    memory = Memory()

    def unicast(following, family, body, prefix, state=4):
        address = memory.put(struct.pack("=H", family) + body)
        return memory.put(interfaces.UNICAST.pack(64, 0, following, address, 16, 1, 1, state, 0, 0, 0, prefix))

    def adapter(following, index, name, first, kind, status):
        names[0x7000000 + index] = name
        return memory.put(interfaces.ADAPTER.pack(448, index, following, 0, first, 0, 0, 0, 0, 0, 0x7000000 + index, bytes(8), 6, 0, 1500,
                                                  kind, status, index))
    names = {}
    second = unicast(0, socket.AF_INET, b"\0\0\x0a\1\2\4", 16)
    tentative = unicast(second, socket.AF_INET, b"\0\0\x0a\1\2\5", 24, state=1)
    first = unicast(tentative, socket.AF_INET6, b"\0\0" + bytes(4) + b"\xfe\x80" + bytes(13) + b"\7", 64)
    wlan = adapter(0, 12, "WLAN", 0, 71, 2)
    loopback = adapter(wlan, 1, "Loopback", unicast(0, socket.AF_INET, b"\0\0\x7f\0\0\1", 8), 24, 1)
    found = interfaces._read_adapters(adapter(loopback, 7, "Ethernet", first, 6, 1), memory.read, names.get)
    assert found == [Interface("Loopback", 1, (Address("127.0.0.1", 8, ""),), (), True, True),
                     Interface("Ethernet", 7, (Address("10.1.2.4", 16, "10.1.255.255"),), ("fe80::7",), False, True),
                     Interface("WLAN", 12, (), (), False, False)]


def test_the_windows_structures_have_the_sizes_and_offsets_of_iptypes_h():
    if struct.calcsize("P") == 8:         # the documented offsets of the 64-bit layout
        import ctypes

        class Unicast(ctypes.Structure):
            _fields_ = [("length", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("next", ctypes.c_void_p), ("address", ctypes.c_void_p),
                        ("address_length", ctypes.c_int), ("prefix_origin", ctypes.c_int), ("suffix_origin", ctypes.c_int),
                        ("state", ctypes.c_int), ("valid", ctypes.c_uint32), ("preferred", ctypes.c_uint32), ("lease", ctypes.c_uint32),
                        ("prefix", ctypes.c_uint8)]
        assert interfaces.ADAPTER.size == 112
        assert interfaces.UNICAST.size == 57 and Unicast.address_length.offset == 24


HERE = [Interface("eth0", 3, (Address("203.0.113.5", 25, ""),), ("fe80::5",), False, True)]


@pytest.mark.parametrize("address, nearby", [
    ("203.0.113.126", True), ("203.0.113.129", False),                      # on-link, and just outside of the /25
    ("10.0.0.1", True), ("172.31.255.255", True), ("172.32.0.0", False), ("192.168.9.9", True), ("192.169.0.1", False),
    ("169.254.1.1", True), ("127.0.0.1", True), ("8.8.8.8", False), ("0.0.0.0", False), ("255.255.255.255", False), ("224.0.0.1", False),
    ("::1", True), ("::", False), ("fd00::1", True), ("2001:db8::1", False), ("ff02::1", False), ("::ffff:10.0.0.1", False),
    ("fe80::9%3", True), ("fe80::9%eth0", True), ("fe80::9", False), ("fe80::9%4", False), ("fe80::9%", False), ("::1%3", False),
    ("10.0.0.1%3", False), ("", False), ("localhost", False), ("10.1", False), ("10.0.0.1\0", False), ("10.0.0.1 ", False),
    ("1\u0660.0.0.1", False), ("\ud800", False), ("fe80::9%" + "3" * 100000, False),
])
def test_only_neighbours_are_dialled_on_a_strangers_word(address, nearby):
    assert is_nearby(address, HERE) is nearby


def test_the_kind_of_windows_is_asked_only_there(monkeypatch):
    monkeypatch.setattr(interfaces, "_by_windows", lambda: ["windows"])
    monkeypatch.setattr(system, "LINUX", False)
    monkeypatch.setattr(system, "WINDOWS", True)
    assert list_interfaces() == ["windows"]
