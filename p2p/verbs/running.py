"""Verbs about running applications together: asking, answering, what runs, its end.

A request is answered by its number and by nothing else: there is no default, no "the last one", no key. `run` is
done when the invitations are out, since people take their time; with --wait it is done when the session is, and its
exit code says how it went. To be interrupted while waiting ends the waiting, not the session.
"""

from ..errors import UsageError, UserError
from ..jobs import EXITED, how_it_ended
from ..limits import KILL_AFTER
from ..tasks import Cancelled, within
from ..text import clean, size
from .attaching import JOB, attach_to
from .declare import AFTER, MANY, Argument, Option, Verb, number
from .files import short


# -- run

async def run(command, node):
    """Start an application here and, with their users' consent, there."""
    args = command.args
    if args.fg and command.as_json:
        raise UsageError("--fg shows the application's terminal, so it cannot go with --json")
    if args.all and args.node:
        raise UsageError("name the nodes or say --all, not both")
    session = await node.launcher.run(args.app, _targets(command, node), args.args, args.network, args.all)
    if not args.fg:
        code = await _waited(command, node, session) if args.wait else 0
        row = node.launcher.run_row(session)
        row["nodes"] = _plainly(row["nodes"])
        command.show(row, _run_lines(command, row))
        return code
    if session.job is None:
        raise UserError(f"{session.app} could not be started; `log -n 5` says why", code="failed")
    code = await attach_to(command, session.job)
    return await _waited(command, node, session) if args.wait else code


async def _waited(command, node, session):
    """Until the session is over; who gives that up is told what goes on without him."""
    try:
        return await node.launcher.wait(session)
    except Cancelled:
        job = session.job
        if job is None or job.state == EXITED:
            command.say(f"not waited for any longer; {session.app} goes on with the others")
        else:
            command.say(f"not waited for any longer: job {job.number} runs on; `kill {job.number}` ends it, "
                        f"`attach {job.number}` enters it")
        raise


def _plainly(rows):
    """The rows of who takes part, in the contract's words: who said yes takes part, also while the files are on their way."""
    return [dict(row, status="running" if row["status"] == "allowed" else row["status"]) for row in rows]


def _exit(code):
    """An exit code for a table's cell."""
    return code if code is None or code >= 0 else f"signal {-code}"


def _targets(command, node):
    """The IDs of those who are to be asked, each once, without this node."""
    me = node.identity.node_id
    if command.args.all:
        tag = node.network(command.args.network).tag if command.args.network else None
        found = [member.id for member in node.members()
                 if not member.is_self and node.link(member.id) and (tag is None or tag in member.networks)]
        if not found:
            command.say("nobody else is here: it runs on this node alone")
        return found
    ids = [node.find(word).id for word in command.args.node]
    return [node_id for node_id in dict.fromkeys(ids) if node_id != me]


def _run_lines(command, row):
    where = f"job {row['job']} here" if row["job"] else "not started here"
    lines = [f"{row['app']} {short(command, row['version'])}: {where}"]
    return lines + command.table(["NODE", "STATUS", "EXIT"], [[node["name"], node["status"], _exit(node["exit"])]
                                                                  for node in row["nodes"]])


# -- requests and rules

async def requests(command, node):
    """What waits for this user's word."""
    rows = node.asking.request_rows()
    if not rows:
        command.say("nothing waits for your word")
    command.show(rows, command.table(["REQUEST", "FROM", "ID", "WANTS", "VERSION", "ARGUMENTS", "EXPIRES"], [
        [row["request"], row["name"], row["node"][:10], f"{row['kind']} {row['app']}", short(command, row["version"]),
         _arguments(row["args"]), f"{row['expires_s']:.0f} s"] for row in rows]) if rows else [])


def _arguments(arguments):
    from shlex import quote
    return "(any)" if arguments is None else clean(" ".join(quote(word) for word in arguments), 400)


async def allow(command, node):
    """Answer a request with yes."""
    args = command.args
    if args.any_args and not args.always:
        raise UsageError("--any-args is about a rule: say --always as well")
    if args.publisher and not args.always:
        raise UsageError("--publisher is about a rule: say --always as well")
    request = node.asking.allow(args.n, args.always, args.any_args, args.publisher)
    what = f"{clean(request.app)} {short(command, request.version.hex())} of {node.label(request.node)}"
    whose = ""
    if args.publisher:
        tag, publisher = request.publisher
        whose = f", ALL VERSIONS that {node.label(publisher)} publishes in {node.networks.name_of(tag)}"
    arguments = "ANY arguments" if args.any_args else "these arguments"
    rule = f"; from now on without asking{whose}, with {arguments}" if args.always else ""
    command.done(f"allowed {what}{rule}")


async def deny(command, node):
    """Answer a request with no."""
    request = node.asking.deny(command.args.n, command.args.never)
    what = f"{clean(request.app)} {short(command, request.version.hex())} of {node.label(request.node)}"
    command.done(f"denied {what}{'; from now on without asking, with these arguments' if command.args.never else ''}")


async def rules(command, node):
    """Remembered answers."""
    rows = node.asking.rule_rows()
    if not rows:
        command.say("no rules; `allow N --always` and `deny N --never` make them")
        return command.show(rows, [])
    table = [[row["rule"], row["name"], row["node"][:10], row["app"],
              f"all of {row['publisher'][:10]}" if "publisher" in row else short(command, row["version"]), _arguments(row["args"]),
              row["answer"]] for row in rows]
    return command.show(rows, command.table(["RULE", "NODE", "ID", "APP", "VERSION", "ARGUMENTS", "ANSWER"], table))


async def drop_rule(command, node):
    """Forget one of them."""
    node.asking.drop_rule(command.args.n)
    command.done(f"rule {command.args.n} is forgotten: you will be asked again")


# -- jobs

async def jobs(command, node):
    """Application processes here."""
    rows = [dict(row, nodes=_plainly(row["nodes"])) for row in node.launcher.job_rows()]
    if not rows:
        command.say("no jobs; `run APP` starts one")
    command.show(rows, _job_lines(command, rows) if rows else [])


def _job_lines(command, rows):
    headers = ["JOB", "APP", "STATE", "EXIT", "HOST", "NODES", "UNSEEN"]
    table = [[row["job"], row["app"], row["state"], _exit(row["exit"]), row["host"],
              ", ".join(f"{other['name']} {other['status']}" for other in row["nodes"]), size(row["unseen"]) if row["unseen"] else ""]
             for row in rows]
    if command.is_verbose:
        headers += ["PID", "PORT", "VERSION"]
        table = [line + [row["pid"], row["port"] or None, row["version"]] for line, row in zip(table, rows)]
    return command.table(headers, table)


async def kill(command, node):
    """End one of them, and wait until it has ended."""
    job = node.launcher.job(command.args.job)
    ended = command.loop.future()
    job.on_end.append(lambda: ended.set(None))
    node.launcher.kill(job.number)
    await within(command.loop, ended, KILL_AFTER + 2, f"job {job.number} (pid {job.pid}) has not ended; end that process")
    if command.as_json or not command.caller.hears_notices:          # which tell the same
        command.done(f"job {job.number} has ended: it {how_it_ended(job.exit)}")


APP = Argument("APP", completes="app")
REQUEST = Argument("N", kind=number, completes="request")

VERBS = (
    Verb("run", "starts an application here and, with their users' consent, there", run,
         (APP, Argument("NODE", MANY, completes="node"), Argument("ARGS", AFTER)), (
             Option("--all", about="ask every node that is here"),
             Option("--network", "NET", "as it is offered in this network, with its members", completes="network"),
             Option("--wait", about="return when the session has ended (exit 4: all denied, 5: all expired)"),
             Option("--fg", about="stay at the application's terminal; Ctrl-] leaves it")), example="run chat bob eve -- --size 3"),
    Verb("requests", "what waits for your word", requests, at_once=True),
    Verb("allow", "answers a request with yes", allow, (REQUEST,), (
        Option("--always", about="and from now on: this node, application, version and arguments"),
        Option("--any-args", about="with --always: whatever the arguments are"),
        Option("--publisher", about="with --always: all versions of its publisher; on managed networks only")),
         example="allow 3", at_once=True),
    Verb("deny", "answers a request with no", deny, (REQUEST,),
         (Option("--never", about="and from now on: this node, application, version and arguments"),), example="deny 3", at_once=True),
    Verb("rules", "remembered answers", rules, at_once=True),
    Verb("rules drop", "forgets a remembered answer", drop_rule, (Argument("N", kind=number),), example="rules drop 2", at_once=True),
    Verb("jobs", "application processes here", jobs, at_once=True),
    Verb("kill", "ends an application process here", kill, (JOB,), example="kill 1", at_once=True),
)
