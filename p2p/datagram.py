"""Datagrams that members of a network believe: envelope, body, MAC, and the window against replays.

A datagram is the common header, an envelope (network tag, sender, incarnation, sequence), the body, and 16 bytes
of HMAC-SHA256 with the network's UDP key over all before. The checks run in the order of their cost, and
nothing changes before the MAC fits: length, magic, network known, MAC, replay window.

The key is shared by all members, so any of them can write any sender: what a datagram says about X is a hint.
The incarnation grows with each start of a node (it is kept on disk), so a recording of an earlier run is stale.
The window over the last 64 sequence numbers is that of RFC 4303, section 3.4.3.
"""

from collections import OrderedDict

from . import limits, proto
from .codec import HEADER_SIZE, WORDS, check_word, frame
from .errors import PeerError

MIN_SIZE = HEADER_SIZE + proto.ENVELOPE_SIZE + proto.MAC_SIZE
MAX_SENDERS = 4 * limits.MAX_MEMBERS      # windows kept; a member could invent senders without end


def seal(network, sender, incarnation, sequence, message, **fields):
    """One datagram. `network` has .tag and .mac(data); `sender` is a node ID."""
    envelope = proto.Envelope.pack(
        {"tag": network.tag, "sender": sender, "incarnation": incarnation, "sequence": sequence})
    data = frame(message.number, 0, envelope + message.pack(**fields))
    assert len(data) + proto.MAC_SIZE <= limits.MAX_DATAGRAM
    return data + network.mac(data)


class Opener:
    """Checks what comes in. Keeps one replay window for each network and sender."""

    def __init__(self, network_of):
        self._network_of = network_of         # tag -> network, or None
        self._windows = OrderedDict()

    def open(self, data):
        """(message, envelope, fields, network) of an authentic new datagram. Raises PeerError with the reason."""
        if not MIN_SIZE <= len(data) <= limits.MAX_DATAGRAM:
            raise PeerError(f"a datagram of {len(data)} bytes", "length")
        word, _, length = WORDS.unpack_from(data)
        check_word(word)
        if length != len(data) - HEADER_SIZE - proto.MAC_SIZE:
            raise PeerError("a datagram whose length does not fit", "length")
        envelope = proto.Envelope.unpack_all(data[HEADER_SIZE:HEADER_SIZE + proto.ENVELOPE_SIZE])
        network = self._network_of(envelope.tag)
        if network is None:
            raise PeerError("a datagram of another network", "network")
        if not network.is_authentic(data[:-proto.MAC_SIZE], data[-proto.MAC_SIZE:]):
            raise PeerError("a datagram with a wrong MAC", "mac")
        if not self._is_new(envelope):
            raise PeerError("a datagram seen before", "replay")
        message = proto.MESSAGES.get(word >> 32)
        if message is None or message.transport != "udp":
            raise PeerError(f"a datagram of type {proto.describe(word >> 32)}", "unknown")
        return message, envelope, message.unpack(data[HEADER_SIZE + proto.ENVELOPE_SIZE:-proto.MAC_SIZE]), network

    def _is_new(self, envelope):
        key = (envelope.tag, envelope.sender)
        incarnation, highest, seen = self._windows.get(key, (-1, 0, 0))
        if envelope.incarnation > incarnation:
            state = (envelope.incarnation, envelope.sequence, 1)
        elif envelope.incarnation < incarnation:
            return False
        else:
            ahead = envelope.sequence - highest
            if ahead > 0:
                seen = (seen << ahead | 1) & ((1 << limits.REPLAY_WINDOW) - 1) if ahead < limits.REPLAY_WINDOW else 1
                highest = envelope.sequence
            elif -ahead >= limits.REPLAY_WINDOW or seen >> -ahead & 1:
                return False
            else:
                seen |= 1 << -ahead
            state = (incarnation, highest, seen)
        self._windows[key] = state
        self._windows.move_to_end(key)
        if len(self._windows) > MAX_SENDERS:
            self._windows.popitem(last=False)
        return True
