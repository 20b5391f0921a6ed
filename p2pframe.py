#!/usr/bin/env python3
"""The program. A few lines, because Python compiles the script it is started with anew at each start.

What is heavy is imported where it is needed: `--version` loads nothing, an application's process only its own
part. Started with -I (as applications are), Python leaves this folder out of the path; so it is put there.
Nothing here is newer than Python 2, so that an old one can be told what is missing.
"""
import sys

if sys.version_info < (3, 8):
    sys.exit("p2pframe needs Python 3.8 or newer, and this is %s: start it with python3 or a newer one" % sys.version.split()[0])


def main(words):
    """Run one of these: the version, an application's process, one that works for it, the command line."""
    if words == ["--version"]:
        from p2p import __version__
        try:
            if sys.stdout is not None:       # it is where it was closed before the start
                sys.stdout.write("p2pframe " + __version__ + "\n")
                sys.stdout.flush()
        except OSError as error:
            sys.stdout = None        # or Python tries once more at its end, and complains
            return 0 if isinstance(error, BrokenPipeError) else 1
        return 0
    import os
    entry = os.path.abspath(__file__)
    folder = os.path.dirname(entry)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if len(words) == 2 and words[0] == "--instance":
        from p2p import child
        return child.main(words[1], entry)
    if len(words) == 2 and words[0] == "--worker":
        from p2p import worker
        return worker.main(words[1])
    from p2p import cli
    return cli.main(words, entry)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
