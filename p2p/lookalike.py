"""Names that a person would take for one another.

Anybody may call a node "bob", or something that looks like it: with a Cyrillic o, a zero, other case, other accents' forms. The
skeleton of a name is what is left when all of that is taken away; two names with one skeleton are told apart by their
IDs. The idea and the word are those of Unicode Technical Standard #39, section 4; its table has 6,000 entries for every script,
ours the few that turn one Latin name into another one. Names are cleaned before (text.py), so nothing invisible is in them.
"""

import unicodedata

# Letters of other scripts, and digits, that look like Latin ones in lower case; what NFKC folds by itself is not here
_CYRILLIC = dict(zip("абвгдеёзіїјкмнорстуүхцчшьяѕԁԛԝһҽ", "a6brдeeзiijkmhopctyyxuчшbяsdqwhe"))
_GREEK = dict(zip("αβγεζηικνοπρτυχω", "abyeznikvonptuxw"))
_OTHERS = {"0": "o", "1": "l", "i": "l", "|": "l", "!": "l", "ı": "l", "ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ŋ": "n",
           "ɑ": "a", "ɡ": "g", "ʏ": "y", "ᴏ": "o", "օ": "o", "ս": "u", "հ": "h", "ո": "n", "ꞵ": "b"}
_LOOKS = str.maketrans(dict(_CYRILLIC, **_GREEK, **_OTHERS))
_PAIRS = (("rn", "m"), ("vv", "w"))


def skeleton(name: str) -> str:
    """What is left of a name; names that look alike have the same. It is for comparing, and never shown."""
    for sign in "@(":       # what follows is how the framework itself would go on: `bob@k3f9ab`, `bob (this node)`
        name = name.partition(sign)[0].strip() or name
    for _ in range(2):      # folding case makes what can be decomposed further
        name = unicodedata.normalize("NFKD", name).casefold()
    name = "".join(letter for letter in name if not unicodedata.combining(letter)).translate(_LOOKS).translate(_LOOKS)
    for pair, one in _PAIRS:
        name = name.replace(pair, one)
    return name
