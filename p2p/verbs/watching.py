"""Verbs about this node itself: who it is, what it did, its end.

`down` answers first and ends then: its answer has to leave by a connection that the end closes. `log --follow`
keeps only so many lines for a reader that is slower than the log; what it missed stands in the file.
"""

import os

from ..errors import UserError
from ..record import parse
from ..text import duration, size
from ..trust.identity import OLD_KEY_FILE
from .declare import MANY, Argument, Option, Verb, number
from .help import page

LINES = 20                 # of the log, unless -n says otherwise
FOLLOWED = 1000            # lines kept for a reader that is slower than the log


async def up(_command, node):
    """Only reached where a root runs already."""
    raise UserError(f"a root already runs on {node.home} (pid {os.getpid()}): use it, end it with `down`, or take another --home",
                    code="running")


async def down(command, node):
    """End the root. Its answer leaves before it begins to end."""
    command.done(f"the root of {node.home} ends")
    command.loop.call_later(0, lambda: command.loop.start(node.stop("its owner ended it")))


async def show_id(command, node):
    """Who this node is; with --rotate it becomes another one."""
    identity = await _rotate(command, node) if command.args.rotate else node.identity
    result = {"id": identity.text, "name": node.name, "port": node.port, "version": node.version, "home": node.home,
              "pid": os.getpid()}
    command.show(result, [f"{key:8} {result[key]}" for key in result])


async def _rotate(command, node):
    lost = [network.name for network in node.networks.all() if network.kind == "managed" and not network.is_admin]
    if not command.yes:
        cost = f", the membership in {', '.join(lost)} is lost, where only an admin can invite it again" if lost else ""
        raise UserError("this makes another node of this one: the others do not know it and show it as NOT the known one, their rules "
                        f"about it fit no more, what it offers is withdrawn{cost}, and its root ends. If that is meant: "
                        "`id --rotate --yes`", code="confirm")
    identity = await node.rotate()
    command.say(f"this node's root ends; the next start is the new node. The old key lies in {node.path(OLD_KEY_FILE)}: remove it if "
                "somebody may know it, or put it back to be the old node again")
    command.loop.call_later(0, lambda: command.loop.start(node.stop("its identity was changed")))
    return identity


async def stats(command, node):
    """Traffic and load."""
    found = node.statistics()
    command.show(found, _stat_lines(command, found))


def _stat_lines(command, found):
    loop = found["loop"]
    lines = [f"up {duration(found['uptime_s'])}; loop: {loop['turns']} turns, {loop['busy_percent']:.2f} % busy, "
             f"longest turn {loop['worst_ms']:.1f} ms", ""]
    lines += command.table(["", "IN", "OUT", "MESSAGES IN", "MESSAGES OUT", "CONNECTIONS"], [
        [name.upper(), size(found[name]["in_bytes"]), size(found[name]["out_bytes"]), found[name]["in_messages"],
         found[name]["out_messages"], found[name]["connections"]] for name in ("tcp", "udp")])
    if found["nodes"]:
        lines += [""] + command.table(["NODE", "IN", "OUT", "RTT"], [
            [row["name"], size(row["in_bytes"]), size(row["out_bytes"]),
             "" if row["rtt_ms"] is None else f"{row['rtt_ms']:.2f} ms"] for row in found["nodes"]])
    if command.is_verbose and found["messages"]:
        lines += [""] + command.table(["MESSAGE", "IN", "OUT"],
                                      [[name, count["in"], count["out"]] for name, count in found["messages"].items()])
    if found["refused"]:
        lines += [""] + command.table(["REFUSED", "TIMES"], [[reason, count] for reason, count in found["refused"].items()])
    return lines


async def log(command, node):
    """The last lines of the log; with --follow those that come."""
    lines = node.log.last(command.args.n, command.args.runs)
    if not command.args.follow:
        command.show([parse(line) for line in lines], lines)
        return
    fresh = []
    arrived = command.loop.future()

    def follower(line, is_kept):
        if command.args.runs and not is_kept:
            return
        fresh.append(line)
        del fresh[:-FOLLOWED]
        arrived.set(None)
    node.log.followers.append(follower)
    try:
        while True:
            for line in lines:
                command.show(parse(line), [line])
            await command.room()
            await arrived
            arrived = command.loop.future()
            lines, fresh[:] = fresh[:], []
    finally:
        node.log.followers.remove(follower)


async def show_help(command, _node):
    """The pages of help.py."""
    words = command.args.verb
    lines = page(" ".join(words) if words else None, command.verbs)
    command.show(lines, lines)


START = (
    Verb("up", "a root without a shell, in the foreground; SIGTERM or SIGINT ends it", up, needs_root=False, example="up --name ann"),
    Verb("down", "ends the root of this home", down),
    Verb("id", "this node's ID, name, port, version and home", show_id, options=(
        Option("--rotate", about="become another node, with another key and ID; says first what that costs"),)),
)

VERBS = (
    Verb("stats", "traffic and load", stats),
    Verb("log", "what happened, a line each", log, options=(
        Option("-n", "N", f"the last N lines, {LINES} unless said", number, LINES),
        Option("--runs", about="only what was run here, by whose word, and how it ended; these lines are kept longer"),
        Option("--follow", about="go on with the lines that come")), example="log --runs -n 50"),
    Verb("help", "this list, or more about a verb", show_help, (Argument("VERB", MANY, completes="verb"),), needs_root=False,
         at_once=True, example="help run"),
)
