"""The types that a message's fields can have: which Python values each takes, and how these become bytes.

A type is a small object. `normal(value)` gives the value as the receiver will have it, or raises a TypeError or ValueError
that says why not; `pack(value)` makes bytes of what `normal` gave; `unpack(data, at)` gives (value, where the next one
begins) and believes nothing: every count is bounded by the bytes that are there, nothing nests deeper than DEPTH.

    int float bool str bytes              numbers of 64 bits, one byte, bytes behind their length
    List[T]  Dict[K, V]  Optional[T]      of any of these types; a K is an int, a str, a bool or bytes
    a Message class of the application    its fields, one behind the other
    list  dict  Any                       whatever of these values, each behind a byte that says which: longer, and checked late

`type_of` finds the type for an annotation, which is text where the author's file defers them. The text is parsed and its
names are looked up; nothing of it is ever executed. A kind of field that is not here yet is one more class of this sort.
"""

import struct
import sys
from typing import Any, Dict, List, TypeVar, Union, get_args, get_origin

from . import limits
from .codec import Flag, Number, Sized
from .errors import PeerError

DEPTH = 32                # lists in lists; deeper is a mistake, and Python's own stack ends at a thousand
_LENGTH = struct.Struct("<I")
_WHOLE = 1 << 63


class Type:
    """The base of all: exactly one Python type, packed by one of the protocol's codecs."""

    takes_bytes = True        # does each value take a byte at least? Else a count would be believed that nothing backs

    def __init__(self, python, codec):
        self.name = python.__name__
        self.python = python
        self.pack = codec.pack
        self.unpack = codec.unpack

    def normal(self, value):
        """Exactly this type; a bool field is not given 1 by accident."""
        if not isinstance(value, self.python):
            raise TypeError(f"wants {self.name}, got {type(value).__name__}")
        return value


class _Int(Type):
    def normal(self, value):
        number = int(super().normal(value))
        if not -_WHOLE <= number < _WHOLE:
            raise ValueError(f"an int of {number.bit_length()} bits; 63 and a sign fit into a message")
        return number


class _Float(Type):
    def normal(self, value):
        try:
            return float(value if isinstance(value, int) else super().normal(value))
        except OverflowError:
            raise ValueError("an int that is too large for a float")


class _Text(Type):
    def __init__(self):
        super().__init__(str, Sized(limits.MAX_MESSAGE, True))
        self._unpack_bytes = Sized(limits.MAX_MESSAGE, False).unpack
        self.unpack = self._unpack_strictly

    def normal(self, value):
        text = str(super().normal(value))
        try:
            bounded(len(text) if text.isascii() else len(text.encode()))
        except UnicodeEncodeError:
            raise ValueError("half a surrogate pair, which is no text; send bytes instead") from None
        return text

    def _unpack_strictly(self, data, at):
        value, at = self._unpack_bytes(data, at)
        try:
            return value.decode(), at
        except UnicodeDecodeError:
            raise PeerError("a text that is not UTF-8", "malformed") from None


class _Bytes(Type):
    def __init__(self):
        super().__init__(bytes, Sized(limits.MAX_MESSAGE, False))

    def normal(self, value):
        data = bytes(value if isinstance(value, (bytearray, memoryview)) else super().normal(value))
        bounded(len(data))
        return data


def bounded(count):
    """Raise ValueError for what no message can carry."""
    if count > limits.MAX_MESSAGE:
        raise ValueError(f"{count} bytes, a message takes at most {limits.MAX_MESSAGE}; "
                         "send a file, open a stream, or send it in parts")


def _count(data, at):
    """How many items follow. Each takes a byte, so a larger number than the bytes that are left is a lie."""
    count = _LENGTH.unpack_from(data, at)[0]
    at += _LENGTH.size
    if count > len(data) - at:
        raise struct.error("ends too soon")
    return count, at


class ListOf(Type):
    """A list; tuples are taken, too, and arrive as lists."""

    def __init__(self, item):
        self.name = f"list[{item.name}]"
        self._item = item

    def normal(self, value):
        """A list of normal items, the author's own untouched."""
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"wants {self.name}, got {type(value).__name__}")
        return [part(f"[{at}]", self._item, item) for at, item in enumerate(value)]

    def pack(self, value):
        """Count, items."""
        return _LENGTH.pack(len(value)) + b"".join(map(self._item.pack, value))

    def unpack(self, data, at):
        """As Type.unpack."""
        count, at = _count(data, at)
        items = []
        unpack = self._item.unpack
        for _ in range(count):
            item, at = unpack(data, at)
            items.append(item)
        return items, at


class DictOf(Type):
    """A dict, in the order of its items."""

    def __init__(self, key, value):
        self.name = f"dict[{key.name}, {value.name}]"
        self._key, self._value = key, value

    def normal(self, value):
        """A dict of normal keys and values, the author's own untouched."""
        if not isinstance(value, dict):
            raise TypeError(f"wants {self.name}, got {type(value).__name__}")
        return {part(f" key {key!r:.40}", self._key, key): part(f"[{key!r:.40}]", self._value, item) for key, item in value.items()}

    def pack(self, value):
        """Count, and each key before its value."""
        return _LENGTH.pack(len(value)) + b"".join(self._key.pack(key) + self._value.pack(item) for key, item in value.items())

    def unpack(self, data, at):
        """As Type.unpack. PeerError where a key comes twice."""
        count, at = _count(data, at)
        found = {}
        for _ in range(count):
            key, at = self._key.unpack(data, at)
            found[key], at = self._value.unpack(data, at)
        if len(found) != count:
            raise PeerError("a dict with a key that comes twice", "malformed")
        return found, at


class OptionalOf(Type):
    """A value or None."""

    def __init__(self, item):
        self.name = f"{item.name} or None"
        self._item = item

    def normal(self, value):
        """None, or the item's."""
        return None if value is None else self._item.normal(value)

    def pack(self, value):
        """A byte that says whether there is one, then the value."""
        return b"\0" if value is None else b"\1" + self._item.pack(value)

    def unpack(self, data, at):
        """As Type.unpack."""
        is_there, at = _FLAG.unpack(data, at)
        return self._item.unpack(data, at) if is_there else (None, at)


class MessageOf(Type):
    """Another message as a value."""

    def __init__(self, cls):
        self.name = cls.schema_text
        self.python = cls
        self.takes_bytes = any(kind.takes_bytes for kind in cls._fields.values())
        self._fields = cls._fields

    def normal(self, value):
        """A new message of exactly this class, with normal fields."""
        if type(value) is not self.python:
            raise TypeError(f"wants {self.python.__name__}, got {type(value).__name__}")
        message = self.python.__new__(self.python)
        for name, kind in self._fields.items():
            setattr(message, name, part("." + name, kind, getattr(value, name)))
        return message

    def pack(self, value):
        """Its fields."""
        return b"".join([kind.pack(getattr(value, name)) for name, kind in self._fields.items()])

    def unpack(self, data, at):
        """As Type.unpack."""
        message = self.python.__new__(self.python)
        for name, kind in self._fields.items():
            value, at = kind.unpack(data, at)
            setattr(message, name, value)
        return message, at


class _Anything(Type):
    """What the message class does not say: None, numbers, texts, bytes, lists and dicts of them, each behind its letter."""

    def __init__(self, only=None):
        self.name = only.__name__ if only else "any"
        self._only = only

    def normal(self, value, depth=DEPTH):
        """As Type.normal, for lists and dicts as deep as DEPTH."""
        if self._only and not isinstance(value, self._only) and not (self._only is list and isinstance(value, tuple)):
            raise TypeError(f"wants {self.name}, got {type(value).__name__}")
        if value is None or isinstance(value, bool):
            return value
        if not depth:
            raise ValueError(f"lists or dicts in each other, more than {DEPTH} deep")
        if isinstance(value, (list, tuple)):
            return [ANYTHING.normal(item, depth - 1) for item in value]
        if isinstance(value, dict):
            return {part(" key", KEYS, key): ANYTHING.normal(item, depth - 1) for key, item in value.items()}
        kind = TYPES.get(type(value)) or next((kind for python, kind in TYPES.items() if isinstance(value, python)), None)
        if kind is None:
            raise TypeError(f"cannot carry {type(value).__name__}; declare its class as a message and the field as that class")
        return kind.normal(value)

    def pack(self, value):
        """The letter of its type, then the value."""
        if value is None:
            return b"-"
        if isinstance(value, list):
            return b"l" + _LENGTH.pack(len(value)) + b"".join(map(self.pack, value))
        if isinstance(value, dict):
            return b"d" + _LENGTH.pack(len(value)) + b"".join(self.pack(key) + self.pack(item) for key, item in value.items())
        return _LETTERS[type(value)] + TYPES[type(value)].pack(value)

    def unpack(self, data, at, depth=DEPTH):
        """As Type.unpack."""
        letter, start = data[at:at + 1], at + 1
        if self._only and letter != (b"l" if self._only is list else b"d"):
            raise PeerError(f"{'nothing' if not letter else 'something else'} where a {self.name} belongs", "malformed")
        if letter == b"-":
            return None, start
        kind = _BY_LETTER.get(letter)
        if kind is not None:
            return kind.unpack(data, start)
        if not letter:
            raise struct.error("ends too soon")
        if letter not in b"ld" or not depth:
            raise PeerError("a value of no known type" if depth else "lists in each other without end", "malformed")
        count, start = _count(data, start)
        if letter == b"l":
            items = []
            for _ in range(count):
                item, start = ANYTHING.unpack(data, start, depth - 1)
                items.append(item)
            return items, start
        found = {}
        for _ in range(count):
            key, start = KEYS.unpack(data, start)
            found[key], start = ANYTHING.unpack(data, start, depth - 1)
        if len(found) != count:
            raise PeerError("a dict with a key that comes twice", "malformed")
        return found, start


class _Keys(_Anything):
    """What can be a key of a dict."""

    def normal(self, value, depth=0):
        """As Type.normal."""
        if not isinstance(value, (str, int, bytes)):
            raise TypeError(f"a key is a str, an int, a bool or bytes, not {type(value).__name__}")
        return super().normal(value, 1)

    def unpack(self, data, at, depth=0):
        """As Type.unpack."""
        if data[at:at + 1] not in _KEY_LETTERS:
            raise PeerError("a key of no such type", "malformed")
        return super().unpack(data, at, 0)


_FLAG = Flag()
TYPES: Dict[type, Type] = {kind.python: kind for kind in (
    _Int(int, Number("int", "q")), _Float(float, Number("float", "d")), Type(bool, _FLAG), _Text(), _Bytes())}
_LETTERS = {int: b"i", float: b"f", bool: b"?", str: b"s", bytes: b"b"}
_BY_LETTER = {letter: TYPES[python] for python, letter in _LETTERS.items()}
_KEY_LETTERS = (b"i", b"?", b"s", b"b")
ANYTHING, KEYS = _Anything(), _Keys()


def part(where, kind, value):
    """The normal value of one of several; whoever gave a wrong one is told which."""
    try:
        return kind.normal(value)
    except (TypeError, ValueError) as error:
        text = str(error)
        raise type(error)(f"{where}{text if text.startswith(('[', '.', ' ')) else ': ' + text}") from None


# Annotations

class NoType(TypeError):
    """An annotation that is no type of a field; the text says which part and why."""


def type_of(annotation, module, depth=DEPTH):
    """The Type of an annotation of a class in `module` (a name). Raises NoType."""
    if isinstance(annotation, str):
        annotation = _parsed(annotation, vars(sys.modules.get(module, sys)))
    if annotation is Any:
        return ANYTHING
    if annotation in (list, dict):
        return _Anything(annotation)
    if isinstance(annotation, type) and annotation in TYPES:
        return TYPES[annotation]
    if isinstance(annotation, type) and isinstance(getattr(annotation, "_fields", None), dict) and annotation.__dict__.get("schema_text"):
        return MessageOf(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is None or not depth:
        raise NoType(_shown(annotation))
    if all(isinstance(one, TypeVar) for one in inner):
        return _composed(origin, [], annotation)          # the bare List and Dict of typing have variables where others have types
    return _composed(origin, [_part_of(one, module, depth - 1) for one in inner], annotation)


def _part_of(one, module, depth):
    """The Type of what stands between the brackets; NoneType stays itself."""
    return one if one is type(None) else type_of(getattr(one, "__forward_arg__", one), module, depth)


def _composed(origin, inner, annotation):
    """Of a container and the types of what is in it."""
    if origin in (list, dict) and not inner:
        return _Anything(origin)
    if origin is list and len(inner) == 1:
        if not inner[0].takes_bytes:
            raise NoType(f"a list of {_shown(annotation)}, which has no fields,")
        return ListOf(inner[0])
    if origin is dict and len(inner) == 2:
        if getattr(inner[0], "python", None) not in (str, int, bool, bytes):
            raise NoType(f"a dict whose keys are {inner[0].name}")
        return DictOf(*inner)
    if origin is Union or getattr(origin, "__name__", "") == "UnionType":
        others = [one for one in inner if one is not type(None)]
        if len(others) == 1 and len(inner) == 2:
            return OptionalOf(others[0])
    raise NoType(_shown(annotation))


def _shown(annotation):
    if isinstance(annotation, type):
        return annotation.__name__
    return str(annotation) if get_origin(annotation) is not None else repr(annotation)


def _parsed(text, known):
    """What the text of an annotation means: names and attributes of modules, X[Y], X | None. Looked up, never executed."""
    import ast
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return _meaning(tree, known, ast)
    except (SyntaxError, LookupError, AttributeError, TypeError, ValueError, RecursionError):
        raise NoType(text[:80]) from None


def _meaning(node, known, ast):
    if isinstance(node, ast.Name):
        return known[node.id] if node.id in known else _BUILTIN[node.id]
    if isinstance(node, ast.Attribute):
        module = _meaning(node.value, known, ast)
        if not isinstance(module, type(sys)):
            raise LookupError(node.attr)
        return getattr(module, node.attr)
    if isinstance(node, ast.Constant):
        return type(None) if node.value is None else _parsed(node.value, known)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return Union[_meaning(node.left, known, ast), _meaning(node.right, known, ast)]
    if isinstance(node, ast.Subscript):
        inner = node.slice.value if type(node.slice).__name__ == "Index" else node.slice       # 3.8 wraps it
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        kind = _meaning(node.value, known, ast)
        meant = tuple(_meaning(one, known, ast) for one in parts)
        return _GENERIC.get(kind, kind)[meant if len(meant) > 1 else meant[0]]
    raise LookupError(type(node).__name__)


_BUILTIN: Dict[str, Any] = {kind.__name__: kind for kind in (int, float, bool, str, bytes, list, dict)}
_GENERIC: Dict[Any, Any] = {list: List, dict: Dict}       # list[int] is understood in deferred annotations since 3.8, too
