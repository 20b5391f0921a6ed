"""p2pstate: what the root knows, in shared memory, for every process of this user that was given its name.

One writer, many readers, no lock. The writer fills the one of two slots that is not shown and then flips one byte, so
a writer that dies at any moment leaves a whole table to read. A plain seqlock makes readers spin while the writer is
descheduled, and for ever if it died; here a reader tries again only if the writer came round to its slot meanwhile.
It copies first and believes afterwards: the slot's sequence must not have moved, the CRC-32 must fit. Only the rows
in use are written, summed and copied.

Whoever has the name may write, so a reader trusts nothing: each count, size and word is checked, a text ends at its
field's end, and what does not fit is a StateError. No ctypes view into the memory is kept: close() would raise
BufferError. What stands in the table is declared in layout.py; how the memory is made and removed, in segment.py.
"""

import binascii
import time

from . import segment
from .layout import (LAYOUT, MAGIC, TABLES, Counters, Job, Me, Network, Node, Session, Snapshot, StateError, c_header,
                     layout)
from .segment import remove_stale, sweep

__all__ = ["Counters", "Job", "Me", "Network", "Node", "Session", "Snapshot", "StateError", "StateReader",
           "StateWriter", "c_header", "remove_stale", "sweep"]

ATTEMPTS = 100           # tries of a reader; beside a writer that does nothing else it needs 1 or 2


class StateWriter:
    """The root's end. `name` is to be written down, so that `remove_stale` finds it after a SIGKILL."""

    def __init__(self, entropy: str):
        """`entropy`: 16 hexadecimal digits for the name. UserError if there is no room for the segment."""
        self.name = segment.PREFIX + entropy
        self._layout = layout()
        self._draft = self._layout.Slot()
        self._bytes = memoryview(self._draft).cast("B")
        self._rows: dict = {label: () for label, _, _ in TABLES}     # what the draft holds
        self._shown = 0
        self._memory = segment.create(self.name, self._layout.size)
        self.publish(Snapshot())
        header = bytes(self._layout.Header(MAGIC, LAYOUT, self._shown, (0, 0, 0), self._layout.size))
        self._memory.buf[:len(header)] = header

    def publish(self, snapshot) -> None:
        """Show `snapshot`. What is beyond a table's size is left out: the caller puts the important rows first."""
        head = self._draft.head
        head.sequence += 1
        head.me = self._layout.pack(snapshot.me)
        head.counters = self._layout.pack(snapshot.counters)
        for label, _, most in TABLES:
            rows = tuple(getattr(snapshot, label)[:most])
            self._fill(getattr(self._draft, label), rows, self._rows[label])
            self._rows[label] = rows
            setattr(head, label + "_used", len(rows))
        ranges = self._layout.used(head)
        head.crc = _checksum([self._bytes[start:end] for start, end in ranges])
        self._show(ranges)

    def _fill(self, table, rows, before):
        for at, row in enumerate(rows):
            if at >= len(before) or row != before[at]:       # most rows stay; comparing costs a 20th of packing
                table[at] = self._layout.pack(row)

    def _show(self, ranges):
        self._shown = 1 - self._shown        # never read back from the memory: others can write there
        memory, base = self._memory.buf, self._layout.slots[self._shown]
        for start, end in ranges:            # the head with its new sequence first, for those who still read here
            memory[base + start:base + end] = self._bytes[start:end]
        memory[self._layout.Header.active.offset] = self._shown

    def close(self) -> None:
        """Remove the segment; whoever is attached keeps the last table."""
        segment.remove(self.name)
        self._memory.close()


class StateReader:
    """A process's view of its root's table."""

    def __init__(self, name: str):
        """Attach. StateError if there is no such root, or it writes another layout."""
        if not segment.is_name(name):
            raise StateError("that is no name of a p2pstate; applications get theirs from the root that starts them")
        try:
            self._memory = segment.attach(name)
        except (OSError, ValueError) as error:
            raise StateError(f"cannot open {name}: {error}; its root has probably ended, start it again")
        self._layout = layout()
        try:
            self._header()
        except StateError:
            self.close()
            raise

    def read(self) -> Snapshot:
        """The table as it stands now, never torn. StateError if somebody damaged it."""
        for _ in range(ATTEMPTS):
            head, parts = self._copy()
            if parts:
                return self._unpack(head, parts)
            time.sleep(0)
        raise StateError("p2pstate is damaged: its checksum does not fit; restart the root")

    def close(self) -> None:
        """Detach. The segment stays as it is."""
        self._memory.close()

    def _header(self):
        kind, memory, size = self._layout.Header, self._memory.buf, self._layout.size
        header = kind.from_buffer_copy(memory) if len(memory) >= size else kind()
        if header.magic != MAGIC or header.active > 1:
            raise StateError("p2pstate is damaged: it does not begin as one; restart the root")
        if header.layout != LAYOUT or header.size != size:
            raise StateError(f"p2pstate has layout {header.layout} and {header.size} bytes, this program reads layout "
                             f"{LAYOUT} of {size} bytes; use the framework's version that the root runs")
        return header

    def _copy(self):
        """(head, bytes of the head and of each table in use); no bytes if the writer came in between."""
        base = self._layout.slots[self._header().active]
        memory = self._memory.buf
        head = self._layout.Head.from_buffer_copy(memory, base)
        ranges = self._layout.used(head)
        parts = [bytes(head)] + [bytes(memory[base + start:base + end]) for start, end in ranges[1:]]
        now = self._layout.Head.from_buffer_copy(memory, base).sequence
        is_whole = ranges and now == head.sequence and _checksum(parts) == head.crc
        return head, parts if is_whole else []

    def _unpack(self, head, parts):
        tables = {label: self._layout.unpack_table(row, data) for (label, row, _), data in zip(TABLES, parts[1:])}
        return Snapshot(me=self._layout.unpack(Me, head.me), counters=self._layout.unpack(Counters, head.counters),
                        sequence=head.sequence, **tables)


def _checksum(parts):
    """CRC-32 of a slot's used bytes behind the checksum itself."""
    crc = binascii.crc32(parts[0][4:])
    for part in parts[1:]:
        crc = binascii.crc32(part, crc)
    return crc
