"""What stands in p2pstate: the rows, and the packed ctypes structures made from them.

The rows are declared once, below. The named tuples that Python sees, the structures that lie in the memory and the
C header (`p2pframe.py header`) all come from these declarations, so they cannot differ. The layout is packed and in
the machine's own byte order: only processes of one computer read it, in any language. A change to any declaration
needs another LAYOUT number, since a root and its applications may come from different copies of the framework.

The order in memory: a header, then two slots. A slot is a head (checksum, sequence, rows in use, this node, counters)
and the tables at their full size, of which only the rows in use mean anything.
"""

from collections import namedtuple
from typing import Any

from . import limits
from .errors import UserError
from .proto import STATUS

MAGIC = b"p2pstate"
LAYOUT = 1
TEXT = 64                # bytes of a text, filled up with zeros

NODE_STATES = ("alive", "suspect", "dead", "left")
JOB_STATES = ("starting", "running", "exited")

_ZERO = {"id": bytes(32), "tag": bytes(8), "text": "", "flag": False, "f64": 0.0}


class StateError(UserError):
    """p2pstate is gone, of another version, or damaged."""

    def __init__(self, message):
        super().__init__(message, code="state")


def record(label, doc, *columns) -> Any:
    """A named tuple that knows its columns (name, kind, comment). A kind that is a tuple of words is a u8 on the way."""
    zeros = [kind[0] if isinstance(kind, tuple) else _ZERO.get(kind, 0) for _, kind, _ in columns]
    make: Any = namedtuple        # type checkers want literals
    row = make(label, [column[0] for column in columns], defaults=zeros)
    row.__doc__ = doc
    row.columns = columns
    return row


Me = record(
    "Me", "This node.",
    ("id", "id", "SHA-256 of its public key"),
    ("name", "text", "UTF-8; a label"),
    ("version", "text", "of the framework"),
    ("port", "u16", "of its root, TCP"),
    ("pid", "u32", "of its root"),
    ("started", "f64", "Unix s"))

Counters = record(
    "Counters", "What the root has done since it started.",
    ("written", "f64", "Unix s of this table"),
    ("turns", "u64", "of the loop"),
    ("busy_us", "u64", "in them"),
    ("worst_us", "u64", "the longest turn"),
    ("tcp_in_bytes", "u64", ""),
    ("tcp_out_bytes", "u64", ""),
    ("tcp_in_messages", "u64", ""),
    ("tcp_out_messages", "u64", ""),
    ("udp_in_bytes", "u64", ""),
    ("udp_out_bytes", "u64", ""),
    ("udp_in_messages", "u64", ""),
    ("udp_out_messages", "u64", ""),
    ("connections", "u32", "open now"),
    ("requests", "u32", "that wait for the user's word"),
    ("refused", "u64", "connections, frames and datagrams"))

Network = record(
    "Network", "A network this node is in; its place is its bit in Node.networks.",
    ("name", "text", "UTF-8"),
    ("tag", "tag", "as in datagrams"),
    ("members", "u32", "known, this node included"))

Node = record(
    "Node", "A node that is or was here.",
    ("id", "id", "SHA-256 of its public key"),
    ("name", "text", "UTF-8; a label, perhaps another node's too"),
    ("address", "text", "numeric, with %scope where it needs one"),
    ("port", "u16", "of its root, TCP"),
    ("networks", "u16", "bits: places in the table of networks"),
    ("state", NODE_STATES, ""),
    ("verified", "flag", "its own TLS has been seen"),
    ("rtt_us", "u32", "0: not measured"),
    ("in_bytes", "u64", "from it"),
    ("out_bytes", "u64", "to it"),
    ("first_seen", "f64", "Unix s"),
    ("last_seen", "f64", "Unix s; 0 while it is connected"))

Session = record(
    "Session", "A session that this node takes part in or was asked to.",
    ("session", "u64", ""),
    ("app", "text", ""),
    ("version", "id", "hash of the manifest"),
    ("host", "id", "the node that started it"),
    ("state", STATUS, "of this node in it"),
    ("members", "u16", "in its roster"),
    ("started", "f64", "Unix s"))

Job = record(
    "Job", "An application's process on this node.",
    ("job", "u32", ""),
    ("session", "u64", ""),
    ("app", "text", ""),
    ("version", "id", "hash of the manifest"),
    ("state", JOB_STATES, ""),
    ("pid", "u32", ""),
    ("port", "u16", "on which it listens"),
    ("exit", "i32", "exit code, or the signal below 0"),
    ("started", "f64", "Unix s"),
    ("ended", "f64", "Unix s"))

TABLES = (("networks", Network, limits.MAX_NETWORKS), ("sessions", Session, limits.MAX_SESSIONS),
          ("jobs", Job, limits.MAX_JOBS), ("nodes", Node, limits.MAX_MEMBERS))

RECORDS = (Me, Counters, Network, Session, Job, Node)

Snapshot = namedtuple("Snapshot", "me counters networks sessions jobs nodes sequence",
                      defaults=(Me(), Counters(), (), (), (), (), 0))
Snapshot.__doc__ = "All of p2pstate at one moment: two rows, four tables in the writer's order, the number of the writing."


class Layout:
    """The ctypes structures Header, Head, Slot and State, and the ways between rows and structures."""

    def __init__(self):
        import ctypes
        self.kinds: Any = {"u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32, "u64": ctypes.c_uint64,
                           "i32": ctypes.c_int32, "f64": ctypes.c_double, "flag": ctypes.c_uint8,
                           "id": ctypes.c_uint8 * 32, "tag": ctypes.c_uint8 * 8, "text": ctypes.c_char * TEXT}
        self.rows = {row: self._structure(row.__name__, [(name, self._kind(kind)) for name, kind, _ in row.columns])
                     for row in RECORDS}
        used = [(label + "_used", ctypes.c_uint32) for label, _, _ in TABLES]
        self.Header = self._structure("Header", [
            ("magic", ctypes.c_char * 8), ("layout", ctypes.c_uint32), ("active", ctypes.c_uint8),
            ("spare", ctypes.c_uint8 * 3), ("size", ctypes.c_uint64)])
        self.Head = self._structure("Head", [
            ("crc", ctypes.c_uint32), used[0], ("sequence", ctypes.c_uint64), *used[1:],
            ("me", self.rows[Me]), ("counters", self.rows[Counters])])
        tables = [(label, self.rows[row] * most) for label, row, most in TABLES]
        self.Slot = self._structure("Slot", [("head", self.Head), *tables])
        self.State = self._structure("State", [("header", self.Header), ("slots", self.Slot * 2)])
        self.size = ctypes.sizeof(self.State)
        self.slots = [ctypes.sizeof(self.Header) + ctypes.sizeof(self.Slot) * slot for slot in (0, 1)]   # their offsets
        self._head_size = ctypes.sizeof(self.Head)
        self._places = [(label + "_used", getattr(self.Slot, label).offset, ctypes.sizeof(self.rows[row]), most)
                        for label, row, most in TABLES]
        self._into = {row: [self._packer(kind) for _, kind, _ in row.columns] for row in RECORDS}
        self._out = {row: [_unpacker(kind) for _, kind, _ in row.columns] for row in RECORDS}

    @staticmethod
    def _structure(name, fields) -> Any:
        import ctypes
        # `_layout_` says since 3.14 what `_pack_` meant before; older ones do not look at it
        return type(name, (ctypes.Structure,), {"_pack_": 1, "_layout_": "ms", "_fields_": fields})

    def _kind(self, kind):
        return self.kinds["u8" if isinstance(kind, tuple) else kind]

    def _packer(self, kind):
        if isinstance(kind, tuple):
            return kind.index
        if kind in ("id", "tag"):
            return self.kinds[kind].from_buffer_copy
        return _cut_utf8 if kind == "text" else _same

    def pack(self, row) -> Any:
        """A row's structure. Its words and the length of its IDs are our own affair: anything else is our bug."""
        kind = type(row)
        return self.rows[kind](*[into(value) for into, value in zip(self._into[kind], row)])

    def unpack(self, row, structure) -> Any:
        """The row of a structure. StateError if a word is none of the declared ones."""
        return row._make([out(getattr(structure, name)) for out, name in zip(self._out[row], row._fields)])

    def unpack_table(self, row, data: bytes) -> tuple:
        """The rows that lie in `data`."""
        import ctypes
        structure = self.rows[row]
        table = structure * (len(data) // ctypes.sizeof(structure))
        return tuple(self.unpack(row, one) for one in table.from_buffer_copy(data))

    def used(self, head) -> list:
        """(start, end) in a slot of the head and of each table's rows in use; empty if more than there can be."""
        ranges = [(0, self._head_size)]
        for label, start, size, most in self._places:
            count = getattr(head, label)
            if count > most:
                return []
            ranges.append((start, start + count * size))
        return ranges


_layouts: list = []


def layout() -> Layout:
    """The Layout, made when a process first needs it: ctypes takes 5 ms."""
    if not _layouts:
        _layouts.append(Layout())
    return _layouts[0]


def _same(value):
    return value


def _cut_utf8(value):
    data = value.encode("utf-8", "replace")
    return data if len(data) <= TEXT else data[:TEXT].decode("utf-8", "ignore").encode()


def _utf8(data):
    return data.decode("utf-8", "replace")


def _unpacker(kind):
    if isinstance(kind, tuple):
        return lambda number: _word(kind, number)
    return {"id": bytes, "tag": bytes, "text": _utf8, "flag": bool}.get(kind, _same)


def _word(words, number):
    if number >= len(words):
        raise StateError(f"p2pstate is damaged: {number} where one of {', '.join(words)} should stand; restart the root")
    return words[number]


# The C header

def c_header() -> str:
    """The structures in C, for programs in other languages."""
    import ctypes
    made = layout()
    notes = {made.rows[row]: {name: (kind, note) for name, kind, note in row.columns} for row in RECORDS}
    parts = [_C_TOP.format(layout=LAYOUT)]
    for structure in list(made.rows.values()) + [made.Header, made.Head, made.Slot, made.State]:
        fields = [_c_field(name, kind, *notes.get(structure, {}).get(name, ("", "")))
                  for name, kind in structure._fields_]
        name = _c_name(structure)
        parts.append(f"typedef struct {{\n{''.join(fields)}}} {name};\n"
                     f"_Static_assert(sizeof({name}) == {ctypes.sizeof(structure)}, \"{name}\");\n")
    return "\n".join(parts) + "\n#pragma pack(pop)\n#endif\n"


_C_TOP = """/* p2pstate: what a p2pframe root knows, in shared memory. Made by `p2pframe.py header`.
 *
 * Open /NAME with shm_open and map it. To read: take header.active, copy slots[active].head and the first rows of each
 * table as the head counts them (never more than the table has), then see that head.sequence in the memory is still
 * the one you copied, and that head.crc is the CRC-32 (zlib's) of the copied head behind its crc and of the copied
 * rows: networks, sessions, jobs, nodes. If not, begin again. Texts end at a zero or at their field's end. */
#ifndef P2PSTATE_H
#define P2PSTATE_H
#include <stdint.h>

#define P2PSTATE_MAGIC "p2pstate"
#define P2PSTATE_LAYOUT {layout}

#pragma pack(push, 1)
"""


def _c_name(structure):
    return f"p2p_{structure.__name__.lower()}"


def _c_field(name, kind, declared, note):
    lengths = ""
    while hasattr(kind, "_length_"):
        lengths += f"[{kind._length_}]"
        kind = kind._type_
    simple = {"c": "char", "d": "double"}.get(getattr(kind, "_type_", ""))
    if simple is None and hasattr(kind, "_fields_"):
        simple = _c_name(kind)
    elif simple is None:
        import ctypes
        simple = f"{'int' if kind(-1).value < 0 else 'uint'}{8 * ctypes.sizeof(kind)}_t"
    if isinstance(declared, tuple):
        words = ", ".join(f"{number} {word}" for number, word in enumerate(declared))
        note = f"{note}: {words}" if note else words
    return f"    {simple} {name}{lengths};" + (f"  /* {note} */\n" if note else "\n")
