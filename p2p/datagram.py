"""Datagrams that members of a network believe: envelope, body, MAC, and the window against replays.

A datagram is the common header, an envelope (network tag, sender, incarnation, sequence), the body, and 16 bytes
of HMAC-SHA256 with the network's UDP key over all before. The checks run in the order of their cost, and
nothing changes before the MAC fits: length, magic, network known, MAC, replay window.

The key is shared by all members, so any of them can write any sender: what a datagram says about X is a hint.
The incarnation grows with each start of a node (it is kept on disk). Which one is X's, X says over its own TLS: a
recording of an earlier run is stale from then on. Until then, and above it (X may have started anew), each incarnation
has a window of its own, so that nobody can make X's own datagrams stale by forging one with an incarnation far ahead.
The window over the last 64 sequence numbers is that of RFC 4303, section 3.4.3.
"""

from collections import OrderedDict

from . import limits, proto
from .codec import HEADER_SIZE, WORDS, check_word, frame
from .errors import PeerError

MIN_SIZE = HEADER_SIZE + proto.ENVELOPE_SIZE + proto.MAC_SIZE
MAX_SENDERS = 4 * limits.MAX_MEMBERS      # whose windows are kept, of each network; a member could invent senders without end
MAX_RUNS = 4                              # windows for each of them: as many runs at a time may be believed to be going on


def seal(network, sender, incarnation, sequence, message, **fields):
    """One datagram. `network` has .tag and .mac(data); `sender` is a node ID."""
    envelope = proto.Envelope.pack(
        {"tag": network.tag, "sender": sender, "incarnation": incarnation, "sequence": sequence})
    data = frame(message.number, 0, envelope + message.pack(**fields))
    assert len(data) + proto.MAC_SIZE <= limits.MAX_DATAGRAM
    return data + network.mac(data)


class Opener:
    """Checks what comes in. Keeps replay windows for each network and sender."""

    def __init__(self, network_of):
        self._network_of = network_of         # tag -> network, or None
        self._windows = {}                    # tag -> {sender: [(incarnation, highest sequence, bits)], the last one used at the end}
        self._proven = OrderedDict()          # sender -> its incarnation, of which itself has told over TLS

    def prove(self, sender, incarnation):
        """From now on what this sender said in earlier runs is stale."""
        self._proven[sender] = incarnation
        self._proven.move_to_end(sender)
        if len(self._proven) > MAX_SENDERS:
            self._proven.popitem(last=False)

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
        own = self._proven.get(envelope.sender, 0)
        if envelope.incarnation < own:
            return False
        windows = self._windows.setdefault(envelope.tag, OrderedDict())
        runs = windows.get(envelope.sender, [])
        run = next((run for run in runs if run[0] == envelope.incarnation), None)
        after = _seen(run or (envelope.incarnation, -1, 0), envelope.sequence)
        if after is None:
            return False
        # The sender's own run goes last of all: whoever forges others pushes out forged ones
        runs = [other for other in runs if other is not run and other[0] >= own] + [after]
        if len(runs) > MAX_RUNS:
            runs.remove(next(other for other in runs if other[0] != own))
        windows[envelope.sender] = runs
        windows.move_to_end(envelope.sender)
        if len(windows) > MAX_SENDERS:
            windows.popitem(last=False)
        return True


def _seen(run, sequence):
    """The run's window after this sequence number, or None where it was seen before or is too old to tell."""
    incarnation, highest, seen = run
    ahead = sequence - highest
    if ahead > 0:
        seen = (seen << ahead | 1) & ((1 << limits.REPLAY_WINDOW) - 1) if ahead < limits.REPLAY_WINDOW else 1
        return incarnation, sequence, seen
    if -ahead >= limits.REPLAY_WINDOW or seen >> -ahead & 1:
        return None
    return incarnation, highest, seen | 1 << -ahead
