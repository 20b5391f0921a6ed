"""Runs one command in the root: reads its words by the table, calls the handler, tells errors, gives the exit code.

Both faces and the owner's connections come through here, so a verb behaves the same wherever it was typed. Who
gave the command can give it up at any moment: the handler is cancelled and the exit code is 130, also when it
was waiting for something that never comes.
"""

from ..errors import LinkDown, P2PError, PeerError, Refusal, UsageError, UserError
from ..tasks import within
from . import help as help_pages
from .command import Command
from .declare import Parsed, bind, read
from .options import GLOBAL, START
from .table import VERBS

INTERRUPTED = 130
CLEANUP = 0.5            # s a cancelled handler has for its own end


async def run(node, words, caller):
    """Run one command to its end. `node` is None where there is no root; only verbs that need none come here then."""
    command = Command(caller, Parsed(), None, VERBS)
    try:
        parsed = read(words, VERBS, GLOBAL)
        late = [option.name for option in START if option.field in parsed.settings]
        if late:
            raise UsageError(f"{late[0]} counts where p2pframe is started, not for one command of it")
        command = Command(caller, parsed, None, VERBS)
        if parsed.settings.get("help") or parsed.verb is None:
            lines = help_pages.page(parsed.verb.name if parsed.verb else None, VERBS)
            command.show(lines, lines)
            return 0
        command.args = bind(parsed)
        return await _handle(node, parsed.verb, command)
    except UserError as error:
        command.as_json = command.as_json or asks_for_json(words)
        command.fail(error)
        return error.exit


def asks_for_json(words):
    """Does a command want JSON, though it cannot be read otherwise?"""
    before = words[:words.index("--")] if "--" in words else words
    return "--json" in before


async def _handle(node, verb, command):
    loop = command.loop
    task = loop.start(verb.handler(command, node))
    either = loop.future()
    task.add_callback(either.set)
    command.interrupted.add_callback(either.set)
    try:
        await either
        if not task.done:
            task.cancel()
            await _ended(loop, task)
            return INTERRUPTED
        return task.result() or 0
    except UserError:
        raise
    except P2PError as error:
        raise UserError(_explain(error), code=_code(error))
    except Exception as error:  # a bug in a verb costs this command only
        loop.report(f"the verb {verb.name} failed", error)
        raise UserError(f"{verb.name}: an error in p2pframe itself ({type(error).__name__}: {error}); the log has more: `log`",
                        code="internal")
    finally:
        task.cancel()


async def _ended(loop, task):
    try:
        await within(loop, task, CLEANUP)
    except Exception:  # it was told to stop; how it did is of no interest
        return


def _explain(error):
    if isinstance(error, Refusal):
        return f"the other node refused: {error}"
    if isinstance(error, LinkDown):
        return f"{error}. `nodes` shows who is here"
    return f"the other node broke the protocol: {error}"


def _code(error):
    if isinstance(error, PeerError):
        return "peer"
    return "refused" if isinstance(error, Refusal) else "unreachable"
