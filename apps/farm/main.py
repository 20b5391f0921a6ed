"""Runs a command for each of many arguments, on all cores of all computers of the session, and prints what they printed in order.

    run farm --all -- factor {} ::: 1234567890123 9876543210987       {} stands for the argument; without {} it comes last
    run farm --all -- --from /tmp/names.txt sh -c 'echo hello {}'
    run farm --all -- --python 'sum(range(int(arg)))' ::: 10 1000 100000

What a computer had that dies is done again by another, so a command may run more than once for an argument: let it change nothing that
matters. Whoever allows it lets the host run any command with his rights.
"""

import argparse
import subprocess
import sys

import p2p

SEPARATOR = ":::"


def arguments():
    parser = argparse.ArgumentParser(prog="run farm [NODE...|--all] --", description="Runs a command for each of many arguments.",
                                     usage="%(prog)s [--workers N] [--from FILE] [--python] COMMAND... [::: ARGUMENT...]")
    parser.add_argument("--workers", type=int, default=None, metavar="N", help="processes on each computer (one for each core)")
    parser.add_argument("--from", dest="file", metavar="FILE", help="a file of this computer, its whole path: an argument in each line")
    parser.add_argument("--python", action="store_true", help="COMMAND is a Python expression of `arg`")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    words = given.words[1:] if given.words[:1] == ["--"] else given.words
    given.items = words[words.index(SEPARATOR) + 1:] if SEPARATOR in words else []
    given.words = words[:words.index(SEPARATOR)] if SEPARATOR in words else words
    if not given.words:
        parser.error("a command is missing, such as: factor {} ::: 1234567890123 9876543210987")
    if given.workers is not None and given.workers < 1:
        parser.error("--workers wants a number above 0")
    return given


given = arguments()
app = p2p.attach("farm")


@app.task(workers=given.workers)
def work(item):
    """[exit code, what it printed, what it complained about]."""
    if given.python:
        return [0, f"{eval(given.words[0], {'arg': item})}\n".encode(), b""]
    words = [word.replace("{}", item) for word in given.words]
    if words == given.words:
        words.append(item)
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        return [127, b"", f"{words[0]}: {error.strerror}\n".encode()]
    return [done.returncode, done.stdout[:500_000], done.stderr[-20_000:]]


def items():
    """The arguments: those of the command line, then those of the file, read as they are wanted."""
    yield from given.items
    if given.file:
        with open(given.file, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                yield line.rstrip("\n").encode("utf-8", "replace").decode()


def main():
    failed = 0
    try:
        for item, (code, printed, complaint) in app.map(work, items()):
            if printed:
                app.print(printed.decode("utf-8", "replace").rstrip("\n"))
            if complaint or code:
                app.print(f"{item}: {complaint.decode('utf-8', 'replace').strip() or f'exit code {code}'}")
            failed += code != 0
    except OSError as error:
        app.print(f"farm: {given.file}: {error.strerror}; a file is named by its whole path")
        failed += 1
    except p2p.TaskFailed as error:
        app.print(f"farm: {error}")
        failed += 1
    app.end()
    return 1 if failed else 0


if app.is_host:
    sys.exit(main())
app.run()
