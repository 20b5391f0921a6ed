"""The options that every command takes.

START are about the process that is started (its home, its ports, its screen) and are settled there; the others
travel with the command to the root.
"""

from .declare import Option, choice, name_of_node, port, ports

START = (
    Option("--home", "DIR", "this node's state: keys, trust, installed applications, logs", completes="folder"),
    Option("--name", "NAME", "the name shown to others; else the host name", kind=name_of_node),
    Option("--app-ports", "LO-HI", "applications listen in this range; else any free port", kind=ports),
    Option("--port", "N", "root port, UDP and TCP; else 47474 and the next free ones", kind=port),
    Option("--color", "WHEN", "auto, always or never", kind=choice("auto", "always", "never")),
)

COMMON = (
    Option("--json", about="one JSON document on stdout, errors too"),
    Option("--yes", about="answer this command's own questions; never a request from another node"),
    Option("-v", about="more detail"),
    Option("-q", about="only results and errors"),
    Option("--version", about="the version of p2pframe"),
    Option("--help", about="what a verb does and how it is written"),
)

GLOBAL = START + COMMON
