"""A line of the shell or of a script, as the words that a command line would have had.

The rules are those of `shlex.split` with one difference: `#` begins a comment only where a word could begin.
shlex cuts `say bob issue#3` in the middle of the word. The tests hold the two against each other.
"""

from ..errors import UsageError

SPACE = " \t\r\n\f\v"


def split(line):
    """The words; none for an empty line or a comment. Raises UsageError for a quote that is never closed."""
    words, word, quote = [], "", ""
    is_word = False         # "" is a word, too: ''
    characters = iter(line)
    for char in characters:
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"':
                follows = next(characters, "")
                word += follows if follows in ('"', "\\") else "\\" + follows
            else:
                word += char
        elif char in SPACE:
            if is_word:
                words.append(word)
            word, is_word = "", False
        elif char == "#" and not is_word:
            break
        else:
            is_word = True
            if char in "'\"":
                quote = char
            else:
                word += _escaped(characters) if char == "\\" else char
    if quote:
        raise UsageError(f"a {quote} is never closed: write \\{quote} for the character itself")
    return words + [word] if is_word else words


def _escaped(characters):
    follows = next(characters, None)
    if follows is None:
        raise UsageError("the line ends with a backslash: write \\\\ for one")
    return follows
