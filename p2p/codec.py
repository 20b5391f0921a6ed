"""How messages become bytes: the 16-byte header, the field types, and the decoder that finds frames in a stream.

What the messages are stands in proto.py, as data; this file only knows how to read such a declaration.

The header is two machine words. The first (magic, version, flags, type) is compared and looked up as one
integer, so that anything unexpected leaves the fast path at once. Little-endian throughout, nothing aligned.

A body may be longer than its reader knows: fields are only ever added at the end, and what follows the last
known field is skipped. A body that ends before a field which has a default gives the default. So old and new
nodes talk.
"""

import struct

from . import limits
from .errors import PeerError

MAGIC = 0x3270                     # "p2" in the order of the bytes
VERSION = 1
HEADER = struct.Struct("<HBBHHII")     # magic, version, flags, type, spare (0), request id, body length
WORDS = struct.Struct("<QII")          # the same 16 bytes: first word, request id, body length
HEADER_SIZE = HEADER.size
RUN_BODY = 1024                    # bytes; longer bodies gain nothing from being unpacked together
LARGE = 65536                      # bytes; from here on a body is neither joined nor copied: it is read to its place, written from there
RESERVED = 16                      # times the bytes that came are reserved: a header alone must not cost its reader a megabyte
START = 16384                      # bytes; what is read first where a large body is likely: the rest then goes straight to its place

RESPONSE = 1                       # flag: answers the request with this id
ERROR = 2                          # flag, with RESPONSE: the body is an ERROR

_PREFIX = MAGIC | VERSION << 16
_PREFIX_MASK = 0xFFFFFF


def first_word(number, flags=0):
    """The header's first word for a message number."""
    return _PREFIX | flags << 24 | number << 32


def frame(number, request, body, flags=0):
    """One frame as bytes."""
    return WORDS.pack(_PREFIX | flags << 24 | number << 32, request, len(body)) + body


class Number:
    """A fixed-size number: u8, u16, u32, u64, f64 and so on."""

    def __init__(self, name, code):
        self.name = name
        self._struct = struct.Struct("<" + code)

    def pack(self, value):
        """Bytes of `value`; struct.error outside the range."""
        return self._struct.pack(value)

    def unpack(self, body, at):
        """(value, where the next field starts); struct.error where the body ends too soon."""
        return self._struct.unpack_from(body, at)[0], at + self._struct.size


class Flag:
    """One byte, true unless 0."""

    name = "bool"

    def pack(self, value):
        """One byte."""
        return b"\1" if value else b"\0"

    def unpack(self, body, at):
        """As Number.unpack."""
        if at >= len(body):
            raise struct.error("ends too soon")
        return body[at] != 0, at + 1


class Fixed:
    """Exactly `size` bytes: a digest, an ID, a network's tag."""

    def __init__(self, name, size):
        self.name = name
        self.size = size

    def pack(self, value):
        """The bytes themselves."""
        assert len(value) == self.size, f"{self.name} wants {self.size} bytes, got {len(value)}"
        return bytes(value)

    def unpack(self, body, at):
        """As Number.unpack."""
        end = at + self.size
        if end > len(body):
            raise struct.error("ends too soon")
        return bytes(body[at:end]), end


class Sized:
    """Bytes or UTF-8 text behind their length; at most `most` bytes."""

    def __init__(self, most, is_text):
        self.most = most
        self.is_text = is_text
        self.name = f"{'text' if is_text else 'bytes'}({most})"
        self._length = struct.Struct("<H" if most < 65536 else "<I")

    def pack(self, value):
        """Length and bytes; AssertionError beyond the bound: what we send ourselves must be bounded earlier."""
        data = value.encode("utf-8", "replace") if self.is_text else bytes(value)
        assert len(data) <= self.most, f"{len(data)} bytes in a field of {self.most}"
        return self._length.pack(len(data)) + data

    def unpack(self, body, at):
        """As Number.unpack; PeerError beyond the bound."""
        length = self._length.unpack_from(body, at)[0]
        start = at + self._length.size
        if length > self.most:
            raise PeerError(f"a field of {length} bytes where {self.most} are allowed", "limit")
        if start + length > len(body):
            raise struct.error("ends too soon")
        data = bytes(body[start:start + length])
        return (data.decode("utf-8", "replace") if self.is_text else data), start + length


class Several:
    """A list of one type behind its count; at most `most`. Records carry their own length, so they may grow."""

    def __init__(self, item, most):
        self.item = item
        self.most = most
        self.name = f"list({item.name}, {most})"
        self._is_record = isinstance(item, Record)

    def pack(self, values):
        """Count and items."""
        assert len(values) <= self.most, f"{len(values)} items where {self.most} are allowed"
        parts = [struct.pack("<H", len(values))]
        for value in values:
            packed = self.item.pack(value)
            parts.append(struct.pack("<H", len(packed)) + packed if self._is_record else packed)
        return b"".join(parts)

    def unpack(self, body, at):
        """As Number.unpack; PeerError beyond the bound."""
        count = struct.unpack_from("<H", body, at)[0]
        at += 2
        if count > self.most:
            raise PeerError(f"a list of {count} where {self.most} are allowed", "limit")
        values = []
        for _ in range(count):
            if self._is_record:
                length = struct.unpack_from("<H", body, at)[0]
                at += 2
                if at + length > len(body):
                    raise struct.error("ends too soon")
                values.append(self.item.unpack_all(body[at:at + length]))
                at += length
            else:
                value, at = self.item.unpack(body, at)
                values.append(value)
        return values, at


class Field:
    """One declared field: name, type, and what stands for it in a body that is too old to have it."""

    __slots__ = ("name", "type", "default", "has_default")

    def __init__(self, name, kind, *default):
        self.name = name
        self.type = kind
        self.has_default = bool(default)
        self.default = default[0] if default else None


class Fields:
    """What a Record reads: one attribute for each of its fields. A class for each record, without a dictionary in each object."""

    __slots__ = ()

    def __eq__(self, other):
        return all(getattr(self, name) == getattr(other, name, None) for name in self.__slots__)

    def __repr__(self):
        return f"<{', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)}>"


def as_dict(fields):
    """The attributes of a Fields."""
    return {name: getattr(fields, name) for name in fields.__slots__}


class Record:
    """Named fields in order: the body of a message, or an item of a list."""

    def __init__(self, name, fields):
        self.name = name
        self.fields = [Field(*field) for field in fields]
        self._names = frozenset(field.name for field in self.fields)
        self._kind = None       # made when the first one is read: a start needs none of them

    def pack(self, values):
        """Bytes of a mapping or an object with these attributes. Fields with a default may be left out."""
        if not isinstance(values, dict):
            values = {field.name: getattr(values, field.name) for field in self.fields if hasattr(values, field.name)}
        assert values.keys() <= self._names, f"{self.name} has no field {', '.join(sorted(values.keys() - self._names))}"
        return b"".join([
            field.type.pack(values[field.name] if field.name in values or not field.has_default else field.default)
            for field in self.fields])

    def unpack_all(self, body):
        """An object with the fields as attributes. Raises PeerError where the bytes do not fit."""
        if self._kind is None:
            self._kind = type(self.name, (Fields,), {"__slots__": [field.name for field in self.fields]})
        values = self._kind()
        if type(body) is bytearray:
            body = memoryview(body)        # a large body; slices of it are then copied once
        at = 0
        for field in self.fields:
            if at >= len(body) and field.has_default:
                setattr(values, field.name, field.default)
                continue
            try:
                value, at = field.type.unpack(body, at)
            except struct.error:
                raise PeerError(f"{self.name}: cut off in {field.name}", "malformed")
            setattr(values, field.name, value)
        return values


class Message:
    """One declared message. `reply` is the Record of its answer, or None where none is expected."""

    def __init__(self, number, name, fields, reply, doc, transport):
        self.number = number
        self.name = name
        self.body = Record(name, fields)
        self.reply = Record(name + " reply", reply) if reply is not None else None
        self.doc = doc
        self.transport = transport
        self.word = first_word(number)

    def pack(self, **values):
        """The body."""
        return self.body.pack(values)

    def unpack(self, body):
        """The body's fields as attributes. Raises PeerError."""
        return self.body.unpack_all(body)

    def __repr__(self):
        return f"<message {self.name}>"


def check_word(word):
    """Raise PeerError unless a header's first word is of this protocol and version."""
    if word & _PREFIX_MASK != _PREFIX:
        if word & 0xFFFF == MAGIC:
            raise PeerError(f"speaks protocol version {word >> 16 & 0xFF}, this node speaks {VERSION}", "version")
        raise PeerError("does not speak this protocol", "magic")


class Decoder:
    """Finds frames in a byte stream that is cut anywhere. Linear in what comes, also for a body of a megabyte.

    The words in the middle of a run are not judged here: whoever looks them up finds what is unknown, and asks
    `check_word` then. What a length claims is bounded here, before anything is reserved for it.

    Where `place` is set, nothing may be fed: frames were put aside that come first (`taken_back`), or else the rest of a
    large body is wanted there (then `placed`).
    """

    __slots__ = ("_most", "_rest", "_whole", "_aside", "_mark", "place", "wants")

    def __init__(self, most=limits.MAX_BODY):
        self._most = most
        self._rest = b""         # a frame that is not complete
        self._whole = None       # (word, request, bytearray) of a large body that is being filled
        self._aside = None       # (frames, place) while frames wait to be handled
        self._mark = None        # (frames so far, when): the frame that is coming in, as the last look at its age saw it
        self.place = None        # memoryview: where the rest of it belongs
        self.wants = limits.READ_BUDGET      # bytes to read at most, and to feed

    @property
    def is_inside_frame(self):
        """Has a frame begun that is not complete?"""
        return bool(self._rest) or self.place is not None

    def age(self, now, frames, is_read):
        """s for which the frame that is coming in has been coming in while it was read; `frames` whole ones came so far.
        Asked in ticks, so that the hot path pays nothing for it."""
        if not is_read or not self.is_inside_frame:
            self._mark = None
            return 0.0
        if self._mark is None or self._mark[0] != frames:
            self._mark = frames, now
        return now - self._mark[1]

    def feed(self, data):
        """The complete frames: a list of (first word, request id, body). Raises PeerError on a header that lies."""
        size = len(data)
        if self._rest:
            data = self._rest + data
            self._rest = b""
            size = len(data)
        elif size >= HEADER_SIZE:
            word, request, length = _words_at(data)
            if HEADER_SIZE + length == size <= self._most and word & _PREFIX_MASK == _PREFIX:
                return [(word, request, data[HEADER_SIZE:])]       # one frame and no more, as a question or an answer is
        frames = []
        at = 0
        last, ran = -1, 16
        while size - at >= HEADER_SIZE:
            word, request, length = _words_at(data, at)
            step = HEADER_SIZE + length
            if length == last and length <= RUN_BODY:
                # A run of equal sizes is unpacked at C speed; a frame at a time costs 1.5x. Looking ahead no further than four
                # times the last run keeps changing sizes linear.
                ran = _run_length(data, at, step, min((size - at) // step, 4 * ran))
                frames += _run_of(length)(memoryview(data)[at:at + ran * step])
                at += ran * step
                ran = max(ran, 16)
                last = -1
                continue
            if word & _PREFIX_MASK != _PREFIX or length > self._most:
                check_word(word)
                raise PeerError(f"a frame of {length} bytes where {self._most} are allowed", "limit")
            if at + step > size:
                if length >= LARGE and (size - at) * RESERVED >= length:
                    self._reserve(word, request, length, memoryview(data)[at + HEADER_SIZE:])
                    return frames
                break
            frames.append((word, request, data[at + HEADER_SIZE:at + step]))
            at += step
            last = length
        if at < size:
            self._rest = data[at:]
        self.wants = limits.READ_BUDGET
        return frames

    def _reserve(self, word, request, length, start):
        body = bytearray(length)
        body[:len(start)] = start
        self._whole = (word, request, body)
        self.place = memoryview(body)[len(start):]

    def placed(self, count):
        """`count` bytes were written to the start of `place`: as `feed`, with the frame if that completed it."""
        if count < len(self.place):
            self.place = self.place[count:]
            return []
        self.place = None
        self.wants = START       # large ones come one behind the other
        whole, self._whole = self._whole, None
        return [whole]

    def put_aside(self, frames):
        """Keep these until they are taken back."""
        self._aside = frames, self.place
        self.place = _NOWHERE

    def taken_back(self):
        """The frames that were put aside, or None."""
        if self._aside is None:
            return None
        frames, self.place = self._aside
        self._aside = None
        return frames


_NOWHERE = memoryview(b"")
_words_at = WORDS.unpack_from
_RUNS = {}        # body length -> iter_unpack of frames of this length


def _run_of(length):
    unpack = _RUNS.get(length)
    if unpack is None:
        unpack = _RUNS[length] = struct.Struct(f"<QI4x{length}s").iter_unpack
    return unpack


def _run_length(data, at, step, most):
    """How many of `most` headers, `step` bytes apart, claim the same length as the one at `at`: byte by byte, at C speed."""
    for byte in range(at + HEADER_SIZE - 4, at + HEADER_SIZE):
        column = data[byte:at + most * step:step]
        most = len(column) - len(column.lstrip(column[:1]))
    return most
