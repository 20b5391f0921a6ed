"""What an application author declares and is told: messages of their own, and the events around them.

    class Say(p2p.Message):
        text: str
        loud: bool = False

The annotations are the declaration; constructor, comparison, packing and the schema follow from them. A schema is
the class's name and its fields' names and types in order, as text; its id is the first 4 bytes of the text's SHA-256.
Instances exchange schemas when they meet, so two versions of an application that do not fit say so at once, and bytes
are only ever read by the very declaration that wrote them: hence no tags (but where the declaration says Any), no defaults, no
skipping on the wire.

Which types a field can have is fields.py's. What does not work is said where the class is defined, not when the first
message gets lost.

What arrives is hostile: `decode` raises PeerError for whatever does not fit the declaration to the last byte.
"""

import struct
import sys
from typing import Any, Dict, List, Optional, Tuple

from . import limits
from .errors import PeerError, TimedOut, UserError
from .fields import NoType, Type, bounded, part, type_of
from .text import plural


class Gone(UserError):
    """The peer that was asked has left, or leaves before it answers."""

    def __init__(self, message):
        super().__init__(message, code="gone")


class Timeout(TimedOut):
    """The peer that was asked did not answer in time, though it is there."""


USABLE = "int, float, bool, str, bytes, List[...], Dict[...], Optional[...], list, dict, or a message class"


class Message:
    """Base of an application's messages. `sender` is the peer it came from, None on one that was made here."""

    sender: Any = None
    schema_id = 0
    schema_text = ""
    _fields: Dict[str, Type] = {}      # name -> Type, in order

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        cls._fields = _declared(cls)
        cls.schema_text = f"{cls.__name__}({', '.join(f'{name}: {kind.name}' for name, kind in cls._fields.items())})"
        cls.schema_id = _schema_id(cls)
        _register(cls)

    def __init__(self, *values, **named):
        """Values in the order of the fields, or by name. TypeError and ValueError as a function would raise them."""
        cls = type(self)
        if len(values) > len(self._fields):
            raise TypeError(f"{cls.__name__} takes {plural(len(self._fields), 'value')}, {len(values)} given")
        given = dict(zip(self._fields, values))
        for name in named:
            if name in given or name not in self._fields:
                raise TypeError(f"{cls.schema_text}: {name} was given twice" if name in given else
                                f"{cls.schema_text} has no field {name}")
        given.update(named)
        for name in self._fields:
            if name not in given and not hasattr(cls, name):
                raise TypeError(f"{cls.schema_text}: {name} is missing")
            setattr(self, name, _checked(cls, name, given[name] if name in given else getattr(cls, name)))

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    def __eq__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._fields)

    __hash__ = None      # fields can be changed


def encode(message: Message) -> bytes:
    """The fields as bytes. TypeError or ValueError, naming the field, where a value does not fit."""
    cls = type(message)
    parts = [kind.pack(_checked(cls, name, getattr(message, name))) for name, kind in cls._fields.items()]
    data = b"".join(parts)
    try:
        bounded(len(data))
    except ValueError as error:
        raise ValueError(f"{cls.__name__}: {error}") from None
    return data


def decode(cls, data: bytes):
    """A message of this class from what a peer sent. PeerError for all that `encode` does not make."""
    if len(data) > limits.MAX_MESSAGE:
        raise PeerError(f"{cls.schema_text}: {len(data)} bytes where {limits.MAX_MESSAGE} are allowed", "limit")
    message = cls.__new__(cls)
    at = 0
    for name, kind in cls._fields.items():
        try:
            value, at = kind.unpack(data, at)
        except struct.error:
            raise PeerError(f"{cls.schema_text}: cut off in {name}", "malformed") from None
        setattr(message, name, value)
    if at != len(data):
        raise PeerError(f"{cls.schema_text}: {len(data) - at} bytes too many", "malformed")
    return message


def _checked(cls, name, value):
    return part(f"{cls.__name__}.{name}", cls._fields[name], value)


# Classes

def _declared(cls):
    """name -> Type of all fields, those of base classes first. TypeError for what cannot be a field."""
    fields: Dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        fields.update(vars(base).get("_fields", {}))
    own = cls.__annotations__ if sys.version_info >= (3, 10) else vars(cls).get("__annotations__", {})
    for name, annotation in own.items():
        if str(annotation).split("[")[0].split(".")[-1] == "ClassVar":
            continue
        if name.startswith("_") or hasattr(Message, name):
            raise TypeError(f"{cls.__name__}.{name}: this name is the framework's; call the field something else")
        try:
            fields[name] = type_of(annotation, cls.__module__)
        except NoType as error:
            raise TypeError(f"{cls.__name__}.{name}: {error} cannot be a message's field; use {USABLE}") from None
    needed_after = ""
    for name, kind in fields.items():
        if hasattr(cls, name):
            needed_after = name
            _check_default(cls, name, kind)
        elif needed_after:
            raise TypeError(f"{cls.__name__}.{name} has no default but stands behind {needed_after}, which has one")
    return fields


def _check_default(cls, name, kind):
    try:
        kind.normal(getattr(cls, name))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{cls.__name__}.{name}: its default does not fit: {error}") from None


_classes: Dict[int, type] = {}         # schema id -> class, for this process


def _schema_id(cls):
    from hashlib import sha256
    text = cls.schema_text.encode("utf-8", "replace")
    if len(text) > limits.MAX_SCHEMA:
        raise TypeError(f"{cls.__name__}: its fields' names and types take {len(text)} bytes, at most {limits.MAX_SCHEMA} fit")
    return int.from_bytes(sha256(text).digest()[:4], "little")


def _register(cls):
    other = _classes.get(cls.schema_id)
    # The same place again is a reloaded module; the newer definition counts
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        places = " and ".join(f"{one.__module__}.{one.__qualname__}" for one in (other, cls))
        raise TypeError(f"{places} cannot be told apart on the wire (schema {cls.schema_id:#010x}); "
                        "use one of them everywhere, or rename one")
    _classes[cls.schema_id] = cls


def message_class(schema_id: int) -> Optional[type]:
    """The Message class with this schema id, or None if this process knows none."""
    return _classes.get(schema_id)


def schemas() -> List[Tuple[int, str]]:
    """(id, text) of every Message class of this process, sorted: what instances tell each other when they meet."""
    return sorted((number, cls.schema_text) for number, cls in _classes.items())  # type: ignore[attr-defined]


# Events

class Event:
    """Base of what an application is told besides messages."""

    __slots__: Tuple[str, ...] = ()

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(repr(getattr(self, name)) for name in self.__slots__)})"

    def __eq__(self, other):
        return type(other) is type(self) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self):
        return hash((type(self), *(getattr(self, name) for name in self.__slots__)))


class Join(Event):
    """`sender` takes part from now on: exactly one for each peer, before its first message."""

    __slots__ = ("sender",)
    verb = "joined"

    def __init__(self, sender):
        self.sender = sender


class Leave(Event):
    """`sender` is gone; nothing more comes from it."""

    __slots__ = ("sender",)
    verb = "left"

    def __init__(self, sender):
        self.sender = sender


class Change(Event):
    """`sender` has shared `value` under `key`: in the same order at everybody. None: nothing stands there any more."""

    __slots__ = ("key", "value", "sender")

    def __init__(self, key, value, sender=None):
        self.key = key
        self.value = value
        self.sender = sender

    def __hash__(self):
        return hash((Change, self.key))          # a value may be a list


class Line(Event):
    """The user typed `text`, a line without its end."""

    __slots__ = ("text",)

    def __init__(self, text):
        self.text = text


class Eof(Event):
    """The user's input has ended."""

    __slots__ = ()
