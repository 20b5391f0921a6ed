"""Counters of what went over a connection, for `stats` and p2pstate.

Bytes are those of frames, before TLS adds its own. A connection counts on its hot path, so these are plain attributes;
when it has ended, whoever keeps sums adds its counters to them.
"""


class Traffic:
    """Counters of one connection, or of a sum of them."""

    __slots__ = ("in_bytes", "out_bytes", "out_messages", "kinds")

    def __init__(self):
        self.in_bytes = self.out_bytes = self.out_messages = 0
        self.kinds = {}       # message number -> [in, out]

    @property
    def in_messages(self):
        """How many came."""
        return sum([came for came, _ in self.kinds.values()])

    def add(self, other):
        """Add another's counts to these."""
        self.in_bytes += other.in_bytes
        self.out_bytes += other.out_bytes
        self.out_messages += other.out_messages
        for number, (came, went) in other.kinds.items():
            kind = self.kinds.setdefault(number, [0, 0])
            kind[0] += came
            kind[1] += went
