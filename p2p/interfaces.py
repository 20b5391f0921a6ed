"""The network interfaces of this computer: names, indices, IPv4 addresses, broadcast addresses, IPv6 link-local ones.

Discovery speaks on each interface by itself, since without a default route neither 255.255.255.255 nor an unpinned
multicast goes anywhere. So it needs every address of every interface, which the standard library cannot tell
(`socket.if_nameindex` has names only). Linux answers over netlink, several addresses of one interface included;
macOS, and a Linux that forbids netlink, by getifaddrs(3); Windows by GetAdaptersAddresses. All three are read into
the same rows (interface, address, prefix, broadcast), of which `_build` makes the list.

Two surprises. `ip addr add` without `brd` leaves the broadcast address unset although the kernel delivers to it, so
it is computed where none is told. And an IPv6 link-local address cannot be used while it is tentative, about a second
after the link came up: until then it is left out, so that its coming shows as a change of the list.
"""

import os
import socket
import struct
from collections import namedtuple

from . import system

Interface = namedtuple("Interface", "name index addresses link_local6 is_loopback is_up")
Interface.__doc__ = """addresses: tuple of Address (IPv4); link_local6: tuple of str without scope; is_up: switched on, cable in."""

Address = namedtuple("Address", "host prefix broadcast")
Address.__doc__ = """host: dotted; prefix: bits of its subnet; broadcast: the subnet's broadcast address, "" where there is none."""

UP, BROADCAST, LOOPBACK, RUNNING = 0x1, 0x2, 0x8, 0x40        # IFF_*, the same numbers on Linux and macOS
PRIVATE = (("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 16), ("169.254.0.0", 16), ("127.0.0.0", 8))
LONGEST = 64           # characters of an address with its scope; a longer one is not looked at

# netlink(7), rtnetlink(7); everything is in the machine's byte order
REQUEST, DUMP, INTERRUPTED = 0x1, 0x300, 0x10                 # NLM_F_*
ERROR, DONE, NEW_LINK, GET_LINK, NEW_ADDRESS, GET_ADDRESS = 2, 3, 16, 18, 20, 22
IFLA_IFNAME, IFLA_EXT_MASK, SKIP_STATISTICS = 3, 29, 8
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
OPTIMISTIC, DUPLICATE, TENTATIVE = 0x04, 0x08, 0x40           # IFA_F_*
MESSAGE, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
LINK, ADDRESS = struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
DUMPS = 5              # tries to read a list that changes while it is read

# struct ifaddrs of getifaddrs(3): next, name, flags, address, netmask, broadcast or peer, data
IFADDRS = struct.Struct("@PPIPPPP")

# iptypes.h. Adapter: length, index, next, name, first address, 3 other lists, suffix, description, friendly name, MAC, its
# length, flags, MTU, type, status, index for IPv6. Unicast address: length, flags, next, sockaddr, its length, 2 origins,
# state of the duplicate detection, 3 lifetimes, prefix
ADAPTER, UNICAST = struct.Struct("@IIPPPPPPPPP8sIIIIII"), struct.Struct("@IIPPi0PiiiIIIB")
TYPE_LOOPBACK, STATUS_UP, STATE_DEPRECATED = 24, 1, 3
SKIP_OTHER_LISTS = 0x2 | 0x4 | 0x8
BUFFER_OVERFLOW = 111


def list_interfaces() -> list:
    """All Interfaces by index, loopback and those without a cable too; [] if the system refuses to tell."""
    if system.LINUX:
        try:
            return _by_netlink()
        except OSError:
            pass                          # some sandboxes have no netlink
    try:
        return _by_windows() if system.WINDOWS else _by_libc()
    except OSError:
        return []


def is_nearby(address: str, interfaces) -> bool:
    """May this address be dialled on the word of a stranger? On-link, private, link-local or loopback, and nothing but
    an address; an IPv6 link-local one with the scope of an interface that is here, without which it means nothing."""
    if len(address) > LONGEST:
        return False
    host, _, scope = address.partition("%")
    try:
        if ":" not in host:
            return not scope and _is_nearby4(socket.inet_pton(socket.AF_INET, host), interfaces)
        raw = socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return False
    if raw[:2] >= b"\xfe\x80" and raw[:2] <= b"\xfe\xbf":
        return any(scope in (str(interface.index), interface.name) for interface in interfaces)
    return not scope and (raw[0] & 0xfe == 0xfc or raw == bytes(15) + b"\1")


def _is_nearby4(raw, interfaces):
    number = int.from_bytes(raw, "big")
    for private, spare in _PRIVATE:
        if (number ^ private) >> spare == 0:
            return True
    return any((number ^ _number4(address.host)) >> 32 - address.prefix == 0
               for interface in interfaces for address in interface.addresses)


def _number4(host):
    return int.from_bytes(socket.inet_pton(socket.AF_INET, host), "big")


_PRIVATE = [(_number4(host), 32 - prefix) for host, prefix in PRIVATE]


def _build(links, rows):
    """{index: (name, flags)} and [(index, address, prefix, broadcast)], the addresses as 4 or 16 bytes."""
    addresses4, addresses6 = {}, {}
    for index, raw, prefix, broadcast in rows:
        if len(raw) == 4 and index in links:
            address = Address(socket.inet_ntoa(raw), prefix, _broadcast(raw, prefix, broadcast, links[index][1]))
            addresses4.setdefault(index, []).append(address)
        elif raw[:1] == b"\xfe" and raw[1] & 0xc0 == 0x80:
            addresses6.setdefault(index, []).append(socket.inet_ntop(socket.AF_INET6, raw))
    return [Interface(name, index, tuple(addresses4.get(index, ())), tuple(addresses6.get(index, ())), bool(flags & LOOPBACK),
                      flags & (UP | RUNNING) == UP | RUNNING)
            for index, (name, flags) in sorted(links.items())]


def _broadcast(raw, prefix, told, flags):
    if not flags & BROADCAST or prefix > 30:
        return ""                         # point to point: its only other end is dialled directly
    if told and told not in (bytes(4), raw):       # glibc tells the address itself where none is set
        return socket.inet_ntoa(told)
    every = int.from_bytes(raw, "big") | (1 << (32 - prefix)) - 1
    return socket.inet_ntoa(every.to_bytes(4, "big"))


# Linux

def _by_netlink():
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    with sock:
        sock.settimeout(1.0)              # the kernel answers within the call
        for sequence in range(1, 2 * DUMPS, 2):
            wanted = LINK.pack(0, 0, 0, 0, 0) + ATTRIBUTE.pack(8, IFLA_EXT_MASK) + struct.pack("=I", SKIP_STATISTICS)
            links = _dump(sock, GET_LINK, NEW_LINK, wanted, sequence)
            addresses = _dump(sock, GET_ADDRESS, NEW_ADDRESS, ADDRESS.pack(0, 0, 0, 0, 0), sequence + 1)
            if links is not None and addresses is not None:
                return _build(dict(map(_link, links)), [row for row in map(_address, addresses) if row])
    raise OSError("the interfaces do not stop changing")


def _dump(sock, ask, answer, body, sequence):
    """The bodies of all answers to one question; None if the list changed while it was read."""
    sock.sendto(MESSAGE.pack(MESSAGE.size + len(body), ask, REQUEST | DUMP, sequence, 0) + body, (0, 0))
    found, is_whole = [], True
    while True:
        data, at = sock.recv(1 << 16), 0
        while at + MESSAGE.size <= len(data):
            length, kind, flags, number, _ = MESSAGE.unpack_from(data, at)
            if kind == ERROR:
                raise OSError(-struct.unpack_from("=i", data, at + MESSAGE.size)[0], "netlink refuses")
            is_whole = is_whole and not flags & INTERRUPTED
            if kind == DONE and number == sequence:
                return found if is_whole else None
            if kind == answer and number == sequence:
                found.append(data[at + MESSAGE.size:at + length])
            at += length + 3 & ~3


def _attributes(body, at):
    found = {}
    while at + ATTRIBUTE.size <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, at)
        if length < ATTRIBUTE.size:
            break
        found[kind & 0x3fff] = body[at + ATTRIBUTE.size:at + length]
        at += length + 3 & ~3
    return found


def _link(body):
    _, _, index, flags, _ = LINK.unpack_from(body)
    return index, (os.fsdecode(_attributes(body, LINK.size)[IFLA_IFNAME].rstrip(b"\0")), flags)


def _address(body):
    """The row of one address, or None if it cannot be used (yet)."""
    _, prefix, flags, _, index = ADDRESS.unpack_from(body)
    found = _attributes(body, ADDRESS.size)
    if IFA_FLAGS in found:
        flags, = struct.unpack("=I", found[IFA_FLAGS])
    if flags & DUPLICATE or flags & (TENTATIVE | OPTIMISTIC) == TENTATIVE:
        return None
    peer = found.get(IFA_ADDRESS, b"")
    own = found.get(IFA_LOCAL, peer)
    if own != peer:
        prefix = 32                       # the prefix is the peer's
    return index, own, prefix, found.get(IFA_BROADCAST, b"")


# macOS, and Linux without netlink

def _by_libc():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.c_void_p()
    if libc.getifaddrs(ctypes.byref(first)):
        raise OSError(ctypes.get_errno(), "getifaddrs")
    try:
        return _read_ifaddrs(first.value, ctypes.string_at, socket.if_nametoindex, system.MACOS)
    finally:
        libc.freeifaddrs(first)


def _read_ifaddrs(pointer, memory, index_of, is_bsd):
    links, rows, indices = {}, [], {}
    while pointer:
        pointer, name, flags, address, mask, other, _ = IFADDRS.unpack(memory(pointer, IFADDRS.size))
        name = os.fsdecode(memory(name))
        if name not in indices:
            indices[name] = index_of(name)
            links[indices[name]] = (name, flags)
        raw = _sockaddr(address, memory, is_bsd)
        if raw:
            told = _sockaddr(other, memory, is_bsd) if flags & BROADCAST else b""
            rows.append((indices[name], raw, bin(int.from_bytes(_mask(mask, len(raw), memory, is_bsd), "big")).count("1"), told))
    return _build(links, rows)


def _sockaddr(pointer, memory, is_bsd):
    """The 4 or 16 bytes of an IP address, or b"". BSD's sockaddr begins with its length, and its kernels hide the scope
    of a link-local address in the bytes 2 and 3."""
    if not pointer:
        return b""
    family = memory(pointer, 2)[1] if is_bsd else struct.unpack("=H", memory(pointer, 2))[0]
    if family == socket.AF_INET:
        return memory(pointer + 4, 4)
    if family != socket.AF_INET6:
        return b""
    raw = memory(pointer + 8, 16)
    return raw[:2] + bytes(2) + raw[4:] if is_bsd and raw[:2] == b"\xfe\x80" else raw


def _mask(pointer, size, memory, is_bsd):
    """A netmask's bytes; BSD cuts it behind the last one that is not zero and leaves the family out."""
    if not pointer:
        return b"\xff" * size
    start = 4 if size == 4 else 8
    length = memory(pointer, 1)[0] if is_bsd else start + size
    return memory(pointer, max(length, start))[start:start + size].ljust(size, b"\0")


# Windows

def _by_windows():
    import ctypes
    ask = ctypes.windll.iphlpapi.GetAdaptersAddresses  # type: ignore[attr-defined]
    size = ctypes.c_uint32(1 << 15)
    for _ in range(DUMPS):
        buffer = ctypes.create_string_buffer(size.value)
        failure = ask(ctypes.c_uint32(0), ctypes.c_uint32(SKIP_OTHER_LISTS), None, buffer, ctypes.byref(size))
        if failure == 0:
            return _read_adapters(ctypes.addressof(buffer), ctypes.string_at, ctypes.wstring_at)
        if failure != BUFFER_OVERFLOW:
            break                         # 232: no addresses at all
    return []


def _read_adapters(pointer, memory, text):
    links, rows = {}, []
    while pointer:
        (_, index, pointer, _, unicast, _, _, _, _, _, name, _, _, _, _, kind, status, index6) = ADAPTER.unpack(
            memory(pointer, ADAPTER.size))
        index = index or index6
        is_loopback = kind == TYPE_LOOPBACK
        links[index] = (text(name), (LOOPBACK if is_loopback else BROADCAST) | (UP | RUNNING if status == STATUS_UP else 0))
        while unicast:
            _, _, unicast, address, _, _, _, state, _, _, _, prefix = UNICAST.unpack(memory(unicast, UNICAST.size))
            raw = _sockaddr(address, memory, False)
            if raw and state >= STATE_DEPRECATED:
                rows.append((index, raw, prefix, b""))
    return _build(links, rows)
