"""Datagrams: one UDP socket on the loop.

What arrives here is hostile until a MAC says otherwise, so this file only reads, bounds and hands over.
Errors of sending are not failures: a link without an address, a full queue or an ICMP refusal that surfaces
at the next call concern one destination, never the node.
"""

import socket
import struct

from . import limits, system

DATAGRAMS_A_TURN = 256     # read in one turn, so that a flood leaves time for everything else


class Endpoint:
    """A bound UDP socket. `groups`: (multicast address, interface index) to hear on it, IPv6 only."""

    def __init__(self, loop, host, port, on_datagram, shared=False, groups=()):
        self._loop = loop
        self._on_datagram = on_datagram
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if shared:
                system.share_udp_port(self._sock)
            if family == socket.AF_INET:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            else:
                self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
            system.ignore_udp_reset(self._sock)
            self._sock.setblocking(False)
            self._sock.bind((host, port))
        except OSError:
            self._sock.close()
            raise
        self.port = self._sock.getsockname()[1]
        self._joined = set()
        self.join(groups)
        loop.watch(self._sock.fileno(), on_readable=self._readable)

    def join(self, groups):
        """Hear these (group, interface index) too; those that are no more are left by the kernel itself."""
        for group, index in groups:
            if (group, index) in self._joined:
                continue
            request = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index)
            try:
                self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
            except OSError:
                continue        # the interface has just gone, or has no IPv6 yet: the next look at the list tries again
            self._joined.add((group, index))

    def forget(self, indices):
        """Interfaces with other indices than these are gone: join again should they come back."""
        self._joined = {(group, index) for group, index in self._joined if index in indices}

    def _readable(self):
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data, address = self._sock.recvfrom(limits.MAX_DATAGRAM + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue        # an ICMP refusal of something sent earlier
            self._on_datagram(data, address)

    def send(self, data, address):
        """Send one datagram; True if the kernel took it."""
        try:
            self._sock.sendto(data, address)
            return True
        except OSError:
            return False

    def close(self):
        """Give the port back."""
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
