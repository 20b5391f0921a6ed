"""How a verb is declared, and how the words of a command are read by such a declaration.

One declaration (name, arguments, options, help, handler) serves the one-shot command, the shell, `help` and
completion. The reading is our own and small: argparse alone takes longer to import than `--version` may take to
run, and its messages are several lines where people get one.

Global options may stand before or after the verb; `--opt value` and `--opt=value` are the same; `--` ends the
options. What follows `--` are the arguments of the application where a verb takes such, else plain words.

Rule: a mistake is told in one line that names it, and the nearest thing that exists.
"""

from types import SimpleNamespace

from ..errors import UsageError
from ..limits import MAX_NAME
from ..text import clean

ONE, OPTIONAL, MANY, TEXT, AFTER = "one", "optional", "many", "text", "after"
MOST_WORDS = 256           # of one command; proto.COMMAND carries no more
MOST_BYTES = 4096          # of one word


class Option:
    """`value` names what it takes ("N", "DIR"), or is "" for a flag; `kind` makes the value of a word or raises ValueError."""

    __slots__ = ("name", "value", "about", "kind", "field", "default", "completes")

    def __init__(self, name, value="", about="", kind=str, default=None, completes="", field=""):
        self.name = name
        self.value = value
        self.about = about
        self.kind = kind
        self.default = default if value else False
        self.field = field or name.lstrip("-").replace("-", "_")
        self.completes = completes

    @property
    def usage(self):
        """As it stands in a usage line."""
        return f"{self.name} {self.value}" if self.value else self.name


class Argument:
    """`count`: one, optional, many (none too), text (the rest of the line), after (what follows `--`)."""

    __slots__ = ("name", "count", "kind", "completes", "field")

    def __init__(self, name, count=ONE, kind=str, completes="", field=""):
        self.name = name
        self.count = count
        self.kind = kind
        self.completes = completes
        self.field = field or name.lower()

    @property
    def usage(self):
        """As it stands in a usage line."""
        forms = {OPTIONAL: "[%s]", MANY: "[%s...]", AFTER: "[-- %s]"}
        return forms.get(self.count, "%s") % self.name


class Verb:
    """`handler(command, node)` is a coroutine function in the root that returns an exit code, or None for 0.

    `needs_root`: False for what is done without one. `at_once`: in the shell it does not wait for the command that is
    running, because that one may be waiting for this answer.
    """

    __slots__ = ("name", "about", "arguments", "options", "example", "handler", "needs_root", "at_once")

    def __init__(self, name, about, handler, arguments=(), options=(), example="", needs_root=True, at_once=False):
        self.name = name
        self.about = about
        self.handler = handler
        self.arguments = arguments
        self.options = options
        self.example = example or name
        self.needs_root = needs_root
        self.at_once = at_once

    @property
    def usage(self):
        """The line that shows how it is written."""
        parts = [argument.usage for argument in self.arguments if argument.count != AFTER]
        parts += [f"[{option.usage}]" for option in self.options]
        parts += [argument.usage for argument in self.arguments if argument.count == AFTER]
        return " ".join([self.name] + parts)


# -- the kinds of values

def number(word):
    """A whole number from 1 on."""
    if not (word.isascii() and word.isdigit() and 0 < int(word[:10])):
        raise ValueError("a whole number from 1 on")
    if len(word) > 9:
        raise ValueError("a whole number from 1 to 999,999,999")
    return int(word)


def seconds(word):
    """A time in seconds."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise ValueError("a number of seconds, such as 2.5")
    return value


def rate(word):
    """Bytes a second, with K, M or G for powers of 1,024."""
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    factor = units.get(word[-1:].lower(), 1)
    try:
        value = float(word[:-1] if factor > 1 else word) * factor
    except ValueError:
        value = -1.0
    if not 1 <= value <= 1e12:
        raise ValueError("bytes a second, such as 500K or 2M")
    return int(value)


def port(word):
    """A port; 0 stands for any free one."""
    if not (word.isascii() and word.isdigit() and len(word) <= 5 and int(word) < 65536):
        raise ValueError("a port from 0 to 65535")
    return int(word)


def ports(word):
    """A range LO-HI of ports as a pair."""
    low, _, high = word.partition("-")
    try:
        pair = port(low), port(high)
    except ValueError:
        pair = (0, 0)
    if not 0 < pair[0] <= pair[1]:
        raise ValueError("a range of ports such as 50000-50100")
    return pair


def choice(*words):
    """One of these words."""
    def kind(word):
        if word not in words:
            raise ValueError(" or ".join(words))
        return word
    return kind


def name_of_node(word):
    """A name for this node, such that commands can mean it and nobody is misled: NODE may also be `all` or name@idprefix."""
    if word in ("", "all") or word[0] == "-" or "@" in word or clean(word) != word or not word.strip():
        raise ValueError(f"a node's name, such as bob: at most {MAX_NAME} printable characters, not `all`, without @, "
                         "and not beginning with -")
    return word


# -- reading

def nearest(word, names):
    """"; did you mean X?", or nothing where nothing is near."""
    from difflib import get_close_matches
    found = get_close_matches(word, names, 1, 0.5)
    return f"; did you mean {found[0]}?" if found else ""


class Parsed:
    """The words of a command, sorted. `kept`: those that are for the root, in their order."""

    __slots__ = ("verb", "settings", "values", "words", "after", "kept")

    def __init__(self):
        self.verb = None
        self.settings = {}      # global options by field
        self.values = {}        # the verb's options by field
        self.words = []
        self.after = None       # what stood behind `--`
        self.kept = []


def read(words, verbs, options, local=()):
    """Sort the words of one command by the table: a Parsed. Global options in `local` (names) are not `kept`."""
    parsed = Parsed()
    known = {option.name: option for option in options}
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            parsed.after = list(words[at:])
            parsed.kept += words[at - 1:]
            break
        if len(word) < 2 or word[0] != "-":
            _take_word(parsed, word, verbs)
            parsed.kept.append(word)
            continue
        option, value = _find_option(parsed, word, known)
        first = at - 1
        if option.value and value is None:
            if at == len(words):
                raise UsageError(f"{option.name} needs a value: {option.usage}")
            value = words[at]
            at += 1
        is_global = option.name in known
        place = parsed.settings if is_global else parsed.values
        place[option.field] = _convert(option.kind, value, option.name) if option.value else True
        if option.name not in local:
            parsed.kept += words[first:at]
    return parsed


def _take_word(parsed, word, verbs):
    if parsed.verb is not None:
        longer = None if parsed.words else verbs.get(f"{parsed.verb.name} {word}")
        if longer is not None:
            parsed.verb = longer          # `rules drop 3` is the verb `rules drop`; its options may follow at once
        else:
            parsed.words.append(word)
        return
    parsed.verb = verbs.get(word)
    if parsed.verb is None:
        raise UsageError(f"{word[:80]}: no such verb{nearest(word, list(verbs)) or '; `help` lists them all'}")


def _find_option(parsed, word, known):
    name, has_value, value = word.partition("=")
    mine = {option.name: option for option in parsed.verb.options} if parsed.verb else {}
    option = mine.get(name) or known.get(name)
    if option is None and word[1] != "-" and len(word) > 2:
        option = mine.get(word[:2]) or known.get(word[:2])      # -n5
        if option is not None and option.value:
            return option, word[2:]
        option = None
    if option is None:
        where = f"{parsed.verb.name} has" if parsed.verb else "there is"
        raise UsageError(f"{where} no option {name[:80]}{nearest(name, list(mine) + list(known)) or '; `help` lists them'}")
    if has_value and not option.value:
        raise UsageError(f"{option.name} takes no value")
    return option, value if has_value else None


def _convert(kind, word, name):
    try:
        return kind(word)
    except ValueError as error:
        raise UsageError(f"{name}: {word[:80]!r} is not {error}")


def bind(parsed):
    """The verb's arguments and options as attributes. Raises UsageError where they do not fit."""
    verb = parsed.verb
    args = SimpleNamespace()
    for option in verb.options:
        setattr(args, option.field, parsed.values.get(option.field, option.default))
    words = list(parsed.words)
    takes_after = any(argument.count == AFTER for argument in verb.arguments)
    if parsed.after is not None and not takes_after:
        words += parsed.after
    for argument in verb.arguments:
        setattr(args, argument.field, _argument(verb, argument, words, parsed.after))
    if words:
        raise UsageError(f"{words[0][:80]!r} is too much: {verb.usage}")
    return args


def _argument(verb, argument, words, after):
    if argument.count == AFTER:
        return after or []
    if argument.count == MANY:
        taken = [_convert(argument.kind, word, argument.name) for word in words]
        words.clear()
        return taken
    if not words:
        if argument.count == OPTIONAL:
            return None
        raise UsageError(f"{argument.name} is missing: {verb.usage}")
    if argument.count == TEXT:
        text = " ".join(words)
        words.clear()
        return text
    return _convert(argument.kind, words.pop(0), argument.name)


def check_size(words):
    """Raise UsageError for a command that is too long to be sent to the root."""
    if len(words) > MOST_WORDS:
        raise UsageError(f"{len(words)} words are too many for one command; at most {MOST_WORDS}")
    for word in words:
        try:
            size = len(word.encode("utf-8"))
        except UnicodeEncodeError:
            raise UsageError(f"{word[:80]!r} is not valid UTF-8; rename it, or set a UTF-8 locale")
        if size > MOST_BYTES:
            raise UsageError(f"a word of {size} bytes is too long; at most {MOST_BYTES}")
