"""Verbs about networks: which this node is in, founding, joining and leaving them.

A code is shown to the person who founded or invites, and to nobody else: it stands in no log and in no other command's
output.
"""

from .. import limits
from ..errors import UserError
from ..text import clean, plural
from ..trust.ecc import BadKey, node_id_text, parse_node_id
from .declare import TEXT, Argument, Option, Verb
from .waiting import next_change

SETTLE = 1.0        # s for which `join` waits for the first member to be greeted, so that what it says is true


async def networks(command, node):
    """The networks this node is in."""
    rows = []
    members = node.members()
    for network in node.networks.all():
        known = sum(1 for member in members if member.is_self or network.tag in member.networks and member.id not in network.denied)
        rows.append({"name": network.name, "tag": network.tag.hex(), "kind": network.kind, "members": known,
                     "admin": network.is_admin, "epoch": network.epoch})
    table = [[row["name"], row["kind"], row["members"], "admin" if row["admin"] else "", row["tag"]] for row in rows]
    command.show(rows, command.table(["NAME", "KIND", "MEMBERS", "YOU", "TAG"], table))


async def _enter(node, network):
    """Be in a network whose CA key is here; the arithmetic is done beside the loop."""
    leaf = await node.loop.work(network.issue, node.identity.spki, node.loop.entropy(16))
    node.networks.add(network, leaf)


async def create(command, node):
    """Found a network, and be its first member."""
    from ..trust.network import SECRET_SIZE, check_name, managed_network, shared_network
    args, entropy = command.args, node.loop.entropy
    check_name(args.name)
    node.networks.check_new(args.name)
    if args.shared:
        network = await node.loop.work(shared_network, args.name, entropy(SECRET_SIZE))
    else:
        network = await node.loop.work(managed_network, args.name, entropy)
    await _enter(node, network)
    node.log.write("network", f"{network.name} ({network.kind}) was founded here")
    row = {"name": network.name, "tag": network.tag.hex(), "kind": network.kind}
    if args.shared:
        row["code"] = network.code
        lines = [f"{network.name} is founded. Whoever has this code is in it; tell it to those who are to join, and to nobody else:",
                 f"  {row['code']}", "They say: network join CODE. Nobody can be removed from a shared network."]
    else:
        lines = [f"{network.name} is founded; you are its admin. `network invite {network.name}` makes a code for one who is to join"]
    command.show(row, lines)


async def code(command, node):
    """The code of a shared network, once more."""
    network = node.networks.by_name(command.args.name)
    if network.kind != "shared":
        how = "everybody on the wire is in it"
        if network.kind == "managed":
            how = f"`network invite {network.name}` makes a code for one person"
        raise UserError(f"{network.name} is {network.kind} and has no code: {how}", code="kind")
    row = {"name": network.name, "code": network.code}
    command.show(row, [row["code"]])


async def invite(command, node):
    """A code for one person. It alone stands on stdout, so that a script can take it from there."""
    network = node.networks.by_name(command.args.name)
    invitation = await node.inviting.invite(network)
    command.show({"code": invitation.code, "expires_s": round(invitation.expires - node.loop.now(), 1)}, [invitation.code])
    command.say(f"tell it to one person, who says `network join {invitation.code}` within {int(limits.JOIN_FOR / 60)} minutes; that lets "
                f"one node into {network.name}, while this root runs")


async def join(command, node):
    """Enter a network."""
    from ..trust.network import OPEN_NAME, is_shared_code, open_network, read_shared_code, shared_network
    word, label = command.args.code, command.args.label
    if word.lower() == OPEN_NAME:
        network = await node.loop.work(open_network)
        await _enter(node, network)
    elif is_shared_code(word):
        name, secret = read_shared_code(word)
        node.networks.check_new(label or name)
        network = await node.loop.work(shared_network, label or name, secret)
        await _enter(node, network)
    else:
        from ..trust.invitations import read_code
        network = await node.joining.join(read_code(word), label)
    node.log.write("network", f"this node has joined {network.name}")
    await _show_joined(command, node, network)


async def _show_joined(command, node, network):
    deadline = node.loop.now() + SETTLE
    while not _met(node, network) and await next_change(node, deadline):
        pass
    met = _met(node, network)
    who = "nobody of it is here yet" if not met else ", ".join(node.label(member.id) for member in met[:8]) + " greeted you"
    if len(met) > 8:
        who = f"{len(met)} members greeted you"
    command.show({"name": network.name, "tag": network.tag.hex(), "kind": network.kind}, [f"this node is in {network.name}; {who}"])


def _met(node, network):
    return [member for member in node.members() if not member.is_self and network.tag in member.networks and node.link(member.id)]


async def leave(command, node):
    """Be in a network no longer."""
    network = node.networks.by_name(command.args.name)
    if network.is_admin and not command.yes:
        raise UserError(f"this node is an admin of {network.name}: leaving destroys its copy of the network's key, and where there is no "
                        f"other admin nobody can be invited or removed any more. If that is meant: `network leave {network.name} --yes`",
                        code="admin")
    node.networks.remove(network.tag)
    node.log.write("network", f"this node has left {network.name}")
    again = "`network join lan` comes back" if network.kind == "open" else "to come back it needs a code again"
    command.done(f"this node has left {clean(network.name)}; {again}. What was fetched there stays here")


async def remove(command, node):
    """Take a node out of a managed network, for good."""
    network = node.networks.by_name(command.args.name)
    node_id = _node_id(node, command.args.node)
    label = node.label(node_id)
    link = node.link(node_id)
    if link is not None and network.tag not in link.networks and not command.yes:
        raise UserError(f"{label} is here and not in {network.name}. Removing it all the same keeps it out for good, whoever invites it. "
                        f"If that is meant: `network remove {network.name} {clean(command.args.node)} --yes`", code="not-member")
    told = await node.removal.remove(network, node_id)
    row = {"name": network.name, "node": node_id_text(node_id), "epoch": node.networks.by_tag(network.tag).epoch, "told": told}
    command.show(row, [f"{label} is removed from {network.name}; {plural(told, 'member')} heard it at once, the others hear it from them"])
    command.say(f"A member that cannot be reached goes on with {label} until it hears. What {label} has fetched stays there; if it was an "
                f"admin it still has {network.name}'s key, and only a new network helps.")


def _node_id(node, word):
    """The node that a person means: one of the table, or any by its whole ID."""
    try:
        return parse_node_id(word)
    except BadKey:
        return node.find(word).id


async def admin(command, node):
    """Make a member another admin of a managed network."""
    network = node.networks.by_name(command.args.name)
    member = node.find(command.args.node)
    await node.removal.make_admin(network, member.id)
    command.show({"name": network.name, "node": node_id_text(member.id), "admin": True},
                 [f"{node.label(member.id)} is an admin of {network.name} now: it has the network's key, which cannot be taken back"])


def network_name(word):
    """A word that a network can be called."""
    from ..sync.manifest import app_name_fault
    fault = app_name_fault(word)
    if fault:
        raise ValueError(f"a name for a network: {fault}")
    return word


NET = Argument("NAME", completes="network")
NODE = Argument("NODE", completes="node")

VERBS = (
    Verb("networks", "the networks this node is in", networks),
    Verb("network", "the same; `network create`, `join` and others manage them", networks),
    Verb("network create", "founds a network: only who is invited gets in", create, (Argument("NAME"),), (
        Option("--shared", about="with a code that lets in whoever has it; nobody can be removed"),), example="network create lab"),
    Verb("network invite", "makes a code that lets one node into a managed network", invite, (NET,), example="network invite lab"),
    Verb("network join", "enters a network, by its code; `lan` is the open one", join, (Argument("CODE", TEXT),), (
        Option("--as", "NAME", "what to call it here, where another network has its name", network_name, field="label"),),
         example="network join kx4mq7tz"),
    Verb("network code", "the code of a shared network", code, (NET,), example="network code lab"),
    Verb("network remove", "takes a node out of a managed network, for good", remove, (NET, NODE), example="network remove lab bob"),
    Verb("network admin", "makes a member another admin, who can invite and remove", admin, (NET, NODE), example="network admin lab bob"),
    Verb("network leave", "is in a network no longer; `lan` too can be left", leave, (NET,), example="network leave lab"),
)
