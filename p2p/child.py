"""The process in which an application runs: reads what its root tells it, and becomes the application.

It was started isolated (`-I`: no user site, no folder of a stranger on the path; `-B`: the installed version stays
exactly as it was shared). The bootstrap comes through an inherited descriptor, since arguments and environment can
be read by others. Then the application's folder and the framework's go on the path and `main.py` runs as `__main__`,
with its own name and arguments in sys.argv, in its data folder, which survives versions.
"""

import json
import os
import runpy
import signal
import sys
from typing import Any

from . import system

MAX_BOOTSTRAP = 1 << 20
bootstrap: Any = None     # what the root told; None in a process that no root started
entry = ""                # the script that this process was started with
stand: Any = None         # what `p2p.attach` gives in a process that works for an instance (worker.py)
_at_exit = []


def on_exit(callback):
    """Call it when the application's code has ended, however it did."""
    _at_exit.append(callback)


def main(word, script) -> int:
    """Run the application that the descriptor named by `word` describes; the process's exit code."""
    global bootstrap, entry
    entry = script
    system.ensure_standard_descriptors()
    try:
        with os.fdopen(system.open_passed(word), "rb") as pipe:
            data = pipe.read(MAX_BOOTSTRAP + 1)
    except (OSError, ValueError, OverflowError):
        data = b""
    if not data or len(data) > MAX_BOOTSTRAP:
        sys.stderr.write("p2pframe: this mode is for applications that a root starts: say `run NAME` to one\n")
        return 2
    bootstrap = json.loads(data.decode("utf-8"))
    system.make_controlling_terminal(0)
    sys.stdout.reconfigure(errors="replace")     # type: ignore[union-attr]   # a peer's name must not end a program in a Latin-1 terminal
    return run(bootstrap["folder"], bootstrap["app"], bootstrap["args"], bootstrap["framework"])


def run(folder, name, arguments, framework) -> int:
    """Run `main.py` of a folder as `__main__`; its exit code."""
    path = os.path.join(folder, "main.py")
    if not os.path.isfile(path):
        sys.stderr.write(f"{name}: there is no {path}; an application needs a main.py\n")
        return 127
    sys.path[:0] = [folder, framework]
    sys.argv = [path, *arguments]
    code = _run(path)
    _say_goodbye(code)
    return code


def _run(path):
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as stop:
        return _code_of(stop.code)
    except KeyboardInterrupt:
        return 130
    except BaseException:
        _show_error(path)
        return 1
    return 0


def _say_goodbye(code):
    """The program has ended with this code; whoever stops it from now on stops the goodbyes, and the code remains."""
    for name in ("SIGHUP", "SIGTERM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: os._exit(code))
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        pass                  # nobody reads it any more, or the program closed it
    try:
        for callback in _at_exit:
            callback()
    except KeyboardInterrupt:
        pass                  # once more: then without goodbyes


def _code_of(code):
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _show_error(path):
    """The traceback as the author should see it: from his own file on."""
    import traceback
    kind, error, trace = sys.exc_info()
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    if trace is None and not isinstance(error, SyntaxError):
        trace = error.__traceback__
    traceback.print_exception(kind, error, trace)
