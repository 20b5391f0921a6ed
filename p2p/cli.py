"""The command line: reads what was asked of this process, and is one of four things.

`up`: a root without a shell. A verb: a guest that asks the running root and prints its answer. No verb: on a
terminal the shell, with a pipe or a file on stdin a script of the same verbs; both are the root themselves where
none runs on this home yet, and its guests where one does.

Usage mistakes are found here, before anything is started or asked. What a command does is none of this file's
business: it knows verbs as words and exit codes.
"""

import os

from . import system
from .errors import P2PError, UsageError, UserError
from .verbs import help as help_pages
from .verbs.declare import bind, read
from .verbs.options import GLOBAL, START
from .verbs.table import VERBS

LOCAL = [option.name for option in START] + ["--json", "--yes"]


class Settings:
    """The global options of this process, completed by the environment."""

    def __init__(self, given, entry):
        self.entry = entry
        if given.get("home") == "":
            raise UsageError("--home: an empty path; name a folder")
        self.home = os.path.abspath(given.get("home") or os.environ.get("P2PFRAME_HOME") or system.state_folder(os.environ))
        self.name = given.get("name")
        self.port = given.get("port")
        self.app_ports = given.get("app_ports")
        self.color = given.get("color", "auto")
        self.as_json = given.get("json", False)
        self.yes = given.get("yes", False)
        self.is_verbose = given.get("v", False)
        self.is_quiet = given.get("q", False)


def main(words, entry):
    """Run; the exit code."""
    was_closed = _stdin_was_closed()
    system.ensure_standard_descriptors()
    try:
        parsed = read(words, VERBS, GLOBAL, LOCAL)
        return _choose(parsed, entry, was_closed)
    except P2PError as error:
        return _complain(error if isinstance(error, UserError) else UserError(f"it failed: {error}"), words)


def _stdin_was_closed():
    try:
        os.fstat(0)
    except OSError:
        return True
    return False


def _choose(parsed, entry, stdin_was_closed):
    given, verb = parsed.settings, parsed.verb
    if given.get("version"):
        return _print_version(given)
    if given.get("help"):
        return _print_help(verb.name if verb else None, given)
    settings = Settings(given, entry)
    if verb is None:
        if parsed.after is not None:
            raise UserError("`--` without a verb before it; `help` lists the verbs", code="usage", exit=2)
        return _converse(settings, stdin_was_closed)
    args = bind(parsed)
    if verb.name == "help":
        return _print_help(" ".join(args.verb) or None, given)
    from . import modes
    if verb.name == "up":
        return modes.up(settings)
    return modes.once(settings, parsed.kept, is_last=verb.name == "down")


def _converse(settings, stdin_was_closed):
    from . import modes
    if not stdin_was_closed and os.isatty(0):
        return modes.shell(settings)
    return modes.script(settings)


def _print_version(given):
    from . import __version__
    if given.get("json"):
        import json
        return _print([json.dumps({"version": __version__})])
    return _print([f"p2pframe {__version__}"])


def _print_help(name, given):
    lines = help_pages.page(name, VERBS)
    if given.get("json"):
        import json
        lines = [json.dumps(lines)]
    return _print(lines)


def _print(lines):
    data = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
    try:
        while data:
            data = data[os.write(1, data):]
    except BrokenPipeError:
        return 0
    except OSError as error:
        return _complain(UserError(f"cannot write the output: {error.strerror}"), [])
    return 0


def _complain(error, words):
    from .verbs.runner import asks_for_json
    from .text import clean
    message = clean(str(error), 2000)
    try:
        if asks_for_json(words):
            import json
            os.write(1, (json.dumps({"error": {"code": error.code, "message": message}}) + "\n").encode("ascii"))
        else:
            os.write(2, (message + "\n").encode("utf-8", "replace"))
    except OSError:
        pass             # nobody reads it: the exit code still tells
    return error.exit
