"""What `help` prints, made from the declarations, so that it cannot say anything else than what is read.

It needs no root and no loop: the command line prints it by itself, before anything is started. A verb's page is its
usage, what it does, its options and one example; the overview is a line for each verb.
"""

from .declare import nearest
from .options import GLOBAL
from ..errors import UsageError
from ..text import pad

PROGRAM = "python p2pframe.py"


def page(name, verbs):
    """The lines for one verb, or for all (None). Raises UsageError for one that does not exist."""
    if name is None:
        return overview(verbs)
    if name not in verbs:
        raise UsageError(f"{name[:80]}: no such verb{nearest(name, list(verbs)) or '; `help` lists them all'}")
    found = [verb for verb in verbs.values() if verb.name == name or verb.name.startswith(name + " ")]
    lines = []
    for verb in found:
        lines += ([""] if lines else []) + verb_page(verb)
    return lines


def verb_page(verb):
    """Usage, what it does, its options, an example."""
    lines = [f"usage: {verb.usage}", f"  {verb.about}"]
    lines += _options(verb.options)
    return lines + [f"example: {verb.example}"]


def _options(options):
    wide = max([len(option.usage) for option in options], default=0)
    return [f"  {pad(option.usage, wide)}  {option.about}" for option in options]


def overview(verbs):
    """All verbs and the options that each takes."""
    wide = max(len(verb.usage) for verb in verbs.values() if len(verb.usage) <= 26)
    lines = [f"usage: {PROGRAM} [OPTIONS] [VERB [ARGUMENTS]]", "Without a verb: the shell, with the same verbs.", "", "verbs:"]
    for verb in verbs.values():
        usage = verb.usage if len(verb.usage) <= wide else verb.name + " ..."
        lines.append(f"  {pad(usage, wide)}  {verb.about}")
    lines += ["", "options, before or after the verb:"] + _options(GLOBAL)
    return lines + ["", "`help VERB` tells more and gives an example."]
