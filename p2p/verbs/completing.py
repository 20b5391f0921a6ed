"""What may stand at a place in a command, by the declarations: the brain behind TAB.

It knows words and kinds ("node", "app", "job", ...); which nodes and jobs there are is told by whoever asks. So the
shell, and completions for other shells, offer the same.
"""

from .declare import AFTER, MANY, TEXT
from .options import COMMON


def candidates(before, verbs, names):
    """The words that could stand in place of the one that ends `before`. `names`: {kind: words}."""
    start = before.rfind(" ") + 1
    words, begun = before[:start].split(), before[start:]
    return [word for word in _possible(words, begun, verbs, names) if word.startswith(begun)]


def _possible(words, begun, verbs, names):
    if not words:
        return sorted({name.split()[0] for name in verbs})
    verb = verbs.get(" ".join(words[:2])) or verbs.get(words[0])
    if verb is None or "--" in words:
        return []
    if begun.startswith("-"):
        return [option.name for option in (*verb.options, *COMMON) if option.name.startswith("--")]
    place, option = _place(verb, words[len(verb.name.split()):])
    if option is not None:
        return names.get(option.completes, [])
    follows = [name.split()[1] for name in verbs if name.startswith(verb.name + " ")] if place == 0 else []
    return follows + _fitting(verb, place, verbs, names)


def _place(verb, words):
    """(how many arguments stand there, the option whose value comes next or None)."""
    options = {option.name: option for option in verb.options}
    place, waiting = 0, None
    for word in words:
        if waiting is not None:
            waiting = None
        elif word.startswith("-"):
            option = options.get(word)
            waiting = option if option is not None and option.value else None
        else:
            place += 1
    return place, waiting


def _fitting(verb, place, verbs, names):
    wanted = [argument for argument in verb.arguments if argument.count not in (AFTER, TEXT)]
    if place < len(wanted):
        argument = wanted[place]
    elif wanted and wanted[-1].count == MANY:
        argument = wanted[-1]
    else:
        return []
    return sorted(verbs) if argument.completes == "verb" else names.get(argument.completes, [])
