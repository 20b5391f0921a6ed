"""Verbs about nodes: who is here, how far away, a word to them, reaching one that broadcast does not.

`nodes` is what scripts wait with: it looks at the table, then waits for the node to say that something changed, and
looks again, until enough are alive or the time is up (exit 5, never a silent success).

Names come from others, so a name alone is never shown where it could be taken for another one: tables have the ID
beside it, sentences the node's label, which says more where two nodes bear one name.
"""

from .. import limits, proto
from ..errors import LinkDown, Refusal, TimedOut, UsageError, UserError
from ..tasks import Cancelled, gather
from ..text import age, clean, duration, plural
from ..trust.ecc import node_id_text
from .declare import TEXT, Argument, Option, Verb, number, port, seconds
from .waiting import next_change

WAIT_TIMEOUT = 30.0        # s that `nodes --wait` waits unless --timeout says otherwise
PINGS = 4
PING_PAUSE = 0.25          # s between two round trips
ID_SHOWN = 10              # characters of an ID in a table; -v shows all


# -- nodes

async def nodes(command, node):
    """Who is here; with --wait when enough are, with --watch whenever that changes."""
    args = command.args
    timeout = args.timeout if args.timeout is not None else (WAIT_TIMEOUT if args.wait else None)
    deadline = None if timeout is None else command.loop.now() + timeout
    if args.network is not None:
        node.network(args.network)
    if args.watch:
        return await _watch(command, node, deadline)
    while args.wait and _alive(node, args.network) < args.wait:
        if not await next_change(node, deadline):
            raise TimedOut(f"{plural(_alive(node, args.network), 'node')} of {args.wait} alive after {timeout:g} s; `nodes` shows who, "
                           "`connect HOST` reaches one that broadcast does not")
    rows = node_rows(node, args.network)
    command.show(rows, _node_lines(command, node, rows))
    return 0


def _alive(node, network):
    tag = None if network is None else node.network(network).tag
    return sum(1 for member in node.members() if member.state == "alive" and (tag is None or tag in member.networks))


async def _watch(command, node, deadline):
    shown = None
    while True:
        rows = node_rows(node, command.args.network)
        seen = {row["id"]: (row["name"], row["state"], row["address"], row["port"], row["verified"], row["networks"]) for row in rows}
        if shown is None or command.as_json and seen != shown:
            command.show(rows, _node_lines(command, node, rows))
        elif seen != shown:
            news = [row for row in rows if seen[row["id"]] != shown.get(row["id"])]
            for line in _node_lines(command, node, news)[1:]:
                command.out(line)
        shown = seen
        await command.room()
        if command.args.wait and _alive(node, command.args.network) >= command.args.wait:
            return 0
        if not await next_change(node, deadline):
            if command.args.wait:
                raise TimedOut(f"{plural(_alive(node, command.args.network), 'node')} of {command.args.wait} alive in time")
            return 0


def node_rows(node, network=None):
    """What `nodes --json` prints; of one network's members alone where its name is given."""
    names = {network.tag: network.name for network in node.networks.all()}
    now = node.loop.now()
    rows = []
    for member in node.members():
        host, number_of_port = node.address_of(member) or (None, None)
        networks = [name for tag, name in names.items() if tag in member.networks]
        if network is not None and node.network(network).name not in networks:
            continue
        rows.append({
            "id": node_id_text(member.id), "name": member.name, "state": member.state, "self": member.is_self,
            "verified": member.verified, "address": host, "port": number_of_port, "networks": networks,
            "rtt_ms": 0.0 if member.is_self else _milliseconds(member.rtt_s),
            "last_seen_s": round(max(0.0, now - node.neighbours.heard_at(member)), 3),
            "version": node.version if member.is_self else member.version, "label": node.label(member.id),
            "first_seen": member.first_seen_wall or None})
    return rows


def _milliseconds(value):
    return None if value is None else round(value * 1e3, 3)


def _node_lines(command, node, rows):
    shown = None if command.is_verbose else ID_SHOWN
    styles = {"alive": "", "suspect": "yellow", "dead": "dim", "left": "dim"}
    headers = ["NAME", "STATE", "ID", "ADDRESS", "RTT", "HEARD", "VERSION"]
    table = [[row["label"] + (" (this node)" if row["self"] else ""),
              row["state"] + ("" if row["verified"] else " (unverified)"), row["id"][:shown], _address(row["address"], row["port"]),
              "" if row["self"] or row["rtt_ms"] is None else duration(row["rtt_ms"] / 1e3),
              "" if row["self"] else age(row["last_seen_s"]), row["version"]] for row in rows]
    if len({name for row in rows for name in row["networks"]}) > 1:      # else there is nothing to tell apart
        headers.append("NETWORKS")
        table = [line + [", ".join(row["networks"])] for line, row in zip(table, rows)]
    if command.is_verbose:
        headers.append("FIRST SEEN")
        table = [line + [node.log.date(row["first_seen"]) if row["first_seen"] else ""] for line, row in zip(table, rows)]
    lines = command.table(headers, table)
    return lines[:1] + [command.paint(line, styles[row["state"]]) for line, row in zip(lines[1:], rows)]


def _address(host, number_of_port):
    if not host:
        return ""
    return f"[{host}]:{number_of_port}" if ":" in host else f"{host}:{number_of_port}"


# -- ping, say, connect

async def ping(command, node):
    """Round trips, one after the other."""
    member = node.find(command.args.node)
    label = node.label(member.id)
    times = []
    for turn in range(command.args.c):
        if turn:
            await command.loop.sleep(PING_PAUSE)
        try:
            times.append(await node.ping(member.id) * 1e3)
        except Cancelled:
            raise
        except LinkDown as error:
            if error.kind == "unreachable":
                raise UserError(f"{error}; `nodes` shows its state, `connect HOST` dials it", code="unreachable")
            command.say(f"{label}: {error}")
            continue
        if not command.as_json and not command.is_quiet:
            command.out(f"{label}: {duration(times[-1] / 1e3) if times[-1] >= 1 else f'{times[-1]:.2f} ms'}")
    if not times:
        raise TimedOut(f"{label} answered none of {plural(command.args.c, 'ping')}; `nodes` shows its state")
    result = {"id": node_id_text(member.id), "sent": command.args.c, "received": len(times), "min_ms": round(min(times), 3),
              "avg_ms": round(sum(times) / len(times), 3), "max_ms": round(max(times), 3)}
    command.show(result, [f"{label}: {result['received']} of {result['sent']} answered; "
                          f"{result['min_ms']:.2f} / {result['avg_ms']:.2f} / {result['max_ms']:.2f} ms (min / avg / max)"])
    return 0


async def say(command, node):
    """A line on the screens of one node, or of all."""
    text = command.args.text
    if len(text.encode("utf-8", "replace")) > limits.MAX_LINE:
        raise UsageError(f"a line of more than {limits.MAX_LINE} bytes is too long to say: send it in parts")
    if command.args.node == "all":
        targets = [member.id for member in node.members() if not member.is_self and node.link(member.id)]
        if not targets:
            raise UserError("nobody else is here; `nodes` lists who is", code="nobody")
    else:
        targets = [node.find(command.args.node).id]
        if targets[0] == node.identity.node_id:
            raise UserError("that is this node; name another one, or say it to `all`", code="self")
    outcomes = await gather([command.loop.start(node.request(target, proto.SAY, text=text)) for target in targets])
    failed = [f"{node.label(target)} ({error})" for target, (_, error) in zip(targets, outcomes) if error is not None]
    for _, error in outcomes:
        if error is not None and not isinstance(error, (LinkDown, Refusal)):
            raise error
    if failed:
        raise UserError(f"not heard by {', '.join(failed)}", code="unreachable")
    command.done(f"said to {', '.join(node.label(target) for target in targets)}")


def parse_address(word):
    """(host, port) of HOST, HOST:PORT, [IPV6]:PORT or a bare IPv6 address. Raises ValueError."""
    host, colon, number_of_port = word.rpartition(":")
    if word.startswith("[") and word.endswith("]"):
        host, colon = word, ""
    elif not colon or ":" in host and not host.endswith("]"):
        host, colon = word, ""
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or len(host) > 255 or any(char.isspace() for char in host):
        raise ValueError("HOST, HOST:PORT or [IPV6]:PORT")
    return host, (port(number_of_port) or limits.PORT) if colon else limits.PORT


async def connect(command, node):
    """Dial an address; that peer then tells of the others."""
    host, number_of_port = command.args.host
    member = await node.connect(host, number_of_port, command.args.network)
    address, reached = node.address_of(member) or (host, number_of_port)
    result = {"id": node_id_text(member.id), "name": clean(member.name), "address": address, "port": reached}
    command.show(result, [f"connected to {node.label(member.id)} ({result['id'][:ID_SHOWN]}) at {_address(address, reached)}"])


async def forget(command, node):
    """Let a name be free for another node: the computer was set up anew, or is somebody else's now."""
    node_id = node.known.forget(command.args.node)
    command.done(f"{node_id_text(node_id)[:ID_SHOWN]} is forgotten: who bears its name next is the known one, and rules about it stay")


NODE = Argument("NODE", completes="node")

VERBS = (
    Verb("nodes", "who is here, this node included", nodes, example="nodes --wait 3 --timeout 10", options=(
        Option("--wait", "N", "return as soon as N nodes are alive (exit 5 if not in time)", number),
        Option("--timeout", "S", f"give up after S seconds; --wait alone gives up after {WAIT_TIMEOUT:g}", seconds),
        Option("--watch", about="go on, and print each change"),
        Option("--network", "NET", "of this network alone", completes="network"))),
    Verb("nodes forget", "forgets who a node was, so that its name is free for another one", forget, (NODE,),
         example="nodes forget bob@k3f9"),
    Verb("ping", "round trips to a node", ping, (NODE,), (Option("-c", "N", f"how many, {PINGS} unless said", number, PINGS),),
         example="ping bob -c 10"),
    Verb("say", "a line on the screens of a node, or of all", say,
         (Argument("NODE|all", completes="target", field="node"), Argument("TEXT", TEXT)), example="say bob the printer is on fire"),
    Verb("connect", "dials a node where broadcast does not reach; the rest is learned from it", connect,
         (Argument("HOST[:PORT]", kind=parse_address, field="host"),),
         (Option("--network", "NET", "meet in this network; else in any that both are in", completes="network"),),
         example="connect 192.168.1.20"),
)
