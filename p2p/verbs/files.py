"""Verbs about applications' files: offering, listing, bringing level.

The work is done in offers.py; what is here words its results. Paths are those of whoever typed the command, which
may be another process in another folder. Versions are shown short, since people only compare them; scripts get all
64 digits, and so does -v.
"""

from ..text import duration, plural, size
from ..trust.ecc import node_id_text
from .command import progress_line
from .declare import MANY, Argument, Option, Verb, rate

VERSION_SHOWN = 12         # characters of a version in a table; -v shows all


def short(command, version):
    """A version as people see it."""
    return version if command.is_verbose else version[:VERSION_SHOWN]


async def share(command, node):
    """Offer a folder, or its new version."""
    args = command.args
    result = await node.offers.share(command.path(args.dir), args.name, args.network)
    command.show(result, [f"sharing {result['name']} {short(command, result['version'])}: "
                          f"{plural(result['files'], 'file')}, {size(result['bytes'])}"])


async def unshare(command, node):
    """Offer it no longer."""
    await node.offers.unshare(command.args.name)
    command.done(f"{command.args.name} is offered no longer; who has it keeps it")


async def apps(command, node):
    """All applications known here and in the networks."""
    networks = _networks(command, node)
    offered = node.offers.rows(networks)
    rows = offered + ([] if networks else await node.offers.bundled_rows())
    if not rows and not command.as_json:
        command.say("no applications here; `share DIR` offers one")
        return
    own = node.identity.text
    names = {node_id_text(member.id): node.label(member.id) for member in node.members()}
    table = [[row["name"], short(command, row["version"]),
              "this node" if row["publisher"] == own else names.get(row["publisher"], row["publisher"][:10]), row["files"],
              size(row["bytes"]), "yes" if row["installed"] else "no", ", ".join(row["holders"])] for row in rows]
    for line in table[len(offered):]:
        line[2], line[5] = "p2pframe", "ships"
    command.show(rows, command.table(["NAME", "VERSION", "PUBLISHER", "FILES", "SIZE", "HERE", "HOLDERS"], table))


def _networks(command, node):
    """The tags that --network means; None for all."""
    return [node.network(command.args.network).tag] if command.args.network else None


async def sync(command, node):
    """Bring applications to their newest offered version."""
    args = command.args
    source = node.find(getattr(args, "from")).id if getattr(args, "from") else None
    under_way = []
    with command.drawing(lambda: _progress(under_way, node.loop.now())):
        rows = await node.offers.sync(args.name, source, args.dry_run, args.limit,
                                      lambda name, progress: under_way.append((name, progress)), _networks(command, node))
    if not rows:
        command.say("nothing to bring: no application is installed here; `apps` lists what there is")
    command.show(rows, [_synced(command, row) for row in rows])


def _progress(under_way, now):
    if not under_way:
        return "looking for holders"
    name, progress = under_way[-1]
    return progress_line(name, progress.fetched, progress.wanted or progress.bytes, now - progress.began)


def _synced(command, row):
    label = f"{row['name']} {short(command, row['version'])}"
    if command.args.dry_run:
        return f"{label}: {size(row['fetched'])} of {size(row['bytes'])} would be fetched"
    if not row["fetched"]:
        return f"{label}: up to date"
    return f"{label}: fetched {size(row['fetched'])} of {size(row['bytes'])} in {duration(row['seconds'])} from {', '.join(row['peers'])}"


APP = Argument("NAME", completes="app")

VERBS = (
    Verb("share", "offers a folder as an application, or a new version of it", share, (Argument("DIR", completes="folder"),), (
        Option("--as", "NAME", "offer it under this name; else the folder's", field="name"),
        Option("--network", "NET", "offer it in this network; else in the first", completes="network")), example="share apps/chat"),
    Verb("unshare", "offers an application no longer", unshare, (APP,), example="unshare chat"),
    Verb("apps", "all applications known here and in the networks", apps, options=(
        Option("--network", "NET", "of this network alone", completes="network"),)),
    Verb("sync", "brings applications (all installed ones) to their newest offered version", sync,
         (Argument("NAME", MANY, completes="app"),), (
             Option("--from", "NODE", "fetch from this node alone", completes="node"),
             Option("--limit", "RATE", "bytes a second, such as 500K or 2M", rate),
             Option("--dry-run", about="only say what would be fetched"),
             Option("--network", "NET", "as they are offered in this network", completes="network")), example="sync chat --from bob"),
)
