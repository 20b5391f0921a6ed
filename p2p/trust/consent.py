"""This user's word: requests that wait for it, and rules that remember it. Pure: no clock, no disk, no screen.

Nothing is ever accepted by itself. A request ends by `allow`, by `deny`, or by its time, and time means no. A rule
binds the node's ID, the application, its version and its exact arguments; a name is a label and binds nothing.

A peer may have a few requests open and gets a small budget of new ones, so that nobody is worn down by asking.
"""

import json
import shlex
from collections import namedtuple

from .. import limits
from ..errors import UserError
from ..text import clean
from .ecc import BadKey, node_id_text, parse_node_id

ALLOW, DENY, ASK, REFUSE = "allow", "deny", "ask", "refuse"
NAMED = 5             # changed files that a prompt names; it is one line

Expired = namedtuple("Expired", "request")
RulesChanged = namedtuple("RulesChanged", "")


class Request:
    """Something that waits. `publisher`: (network's tag, node ID) of whose application it is, where all of its versions can be trusted,
    else None; `subject` is the caller's own object; times are the loop's, s."""

    def __init__(self, number, kind, node, name, app, version, arguments, expires, subject, publisher=None):
        self.number = number
        self.kind = kind
        self.node = node
        self.name = name
        self.app = app
        self.version = version
        self.arguments = list(arguments)
        self.expires = expires
        self.subject = subject
        self.publisher = publisher

    def row(self, now):
        """As `requests` prints it."""
        return {"request": self.number, "kind": self.kind, "node": node_id_text(self.node), "name": self.name, "app": self.app,
                "version": self.version.hex(), "args": self.arguments, "expires_s": round(max(0.0, self.expires - now), 1)}


class Rule:
    """A remembered answer. `arguments` None: any. Where there is a `publisher`, all of its versions are meant, and `version` is the
    one that was allowed when the rule was made."""

    def __init__(self, number, node, app, version, arguments, answer, publisher=None):
        self.number = number
        self.node = node
        self.app = app
        self.version = version
        self.arguments = arguments
        self.answer = answer
        self.publisher = publisher
        self.size = len(_encode([self]))     # bytes in the file, at most

    def fits(self, node, app, version, arguments, publisher=None):
        """Was this very thing answered? `publisher`: None where nobody can be trusted with all versions."""
        is_it = self.version == version if self.publisher is None else self.publisher == publisher
        return is_it and (self.node, self.app) == (node, app) and self.arguments in (None, list(arguments))

    def binds_as(self, other):
        """Are both about the very same thing?"""
        return self._binding() == other._binding()

    def _binding(self):
        return self.node, self.app, self.version if self.publisher is None else None, self.publisher, self.arguments

    def row(self):
        """As `rules` prints it."""
        row = {"rule": self.number, "node": node_id_text(self.node), "app": self.app, "version": self.version.hex(),
               "args": self.arguments, "answer": self.answer}
        if self.publisher is not None:
            row["network"], row["publisher"] = self.publisher[0].hex(), node_id_text(self.publisher[1])
        return row


class Consent:
    """All open requests and all rules of this node."""

    def __init__(self):
        self._requests = {}
        self._rules = {}
        self._next_request = self._next_rule = 1
        self._budgets = {}           # node ID -> (requests left, since when)
        self._effects = []

    def effects(self):
        """What happened by itself, in order; each is given once."""
        effects, self._effects = self._effects, []
        return effects

    # -- asking

    def ask(self, kind, node, name, app, version, arguments, subject, now, publisher=None):
        """(ALLOW | DENY, the Rule) where one fits, (ASK, the Request) where a person must say, (REFUSE, why) beyond the limits."""
        fitting = [rule for rule in self._rules.values() if rule.fits(node, app, version, arguments, publisher)]
        if fitting:
            rule = next((rule for rule in fitting if rule.answer == DENY), fitting[0])      # where two differ, no counts
            return rule.answer, rule
        if sum(request.node == node for request in self._requests.values()) >= limits.MAX_REQUESTS_OPEN:
            return REFUSE, "too many requests of this node wait there already"
        if not self._spend(node, now):
            return REFUSE, "this node asks there too often"
        number = self._next_request
        self._next_request += 1
        request = self._requests[number] = Request(number, kind, node, name, app, version, arguments, now + limits.ASK_FOR, subject,
                                                   publisher)
        return ASK, request

    def _spend(self, node, now):
        left, since = self._budgets.pop(node, (float(limits.REQUEST_BURST), now))
        left = min(float(limits.REQUEST_BURST), left + (now - since) / limits.REQUEST_REFILL)
        while len(self._budgets) >= limits.MAX_MEMBERS:
            del self._budgets[next(iter(self._budgets))]      # who asked longest ago; its budget is the fullest
        self._budgets[node] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def requests(self):
        """The open ones, the oldest first."""
        return list(self._requests.values())

    def withdraw(self, subject):
        """Whoever asked does not want to know any more."""
        for number, request in list(self._requests.items()):
            if request.subject is subject:
                del self._requests[number]

    # -- answering

    def allow(self, number, always=False, any_args=False, any_version=False):
        """The Request, which is open no longer; `always` makes a rule, for all versions of its publisher with `any_version`. Raises
        UserError."""
        return self._answer(number, always, ALLOW, any_args, any_version)

    def deny(self, number, never=False):
        """The Request, which is open no longer; `never` makes a rule. Raises UserError."""
        return self._answer(number, never, DENY, False)

    def _answer(self, number, is_remembered, answer, any_args, any_version=False):
        request = self._requests.get(number)
        if request is None:
            raise UserError(f"no request {number} is open; `requests` lists those that are", code="no-such-request")
        if any_version and request.publisher is None:
            raise UserError("a publisher can be trusted with all versions on managed networks only: elsewhere anybody can be one. "
                            "The request stays open", code="publisher")
        if is_remembered:            # may refuse: then it stays open
            self._remember(request, None if any_args else request.arguments, answer, request.publisher if any_version else None)
        del self._requests[number]
        return request

    def _remember(self, request, arguments, answer, publisher):
        rule = Rule(self._next_rule, request.node, request.app, request.version, arguments, answer, publisher)
        rules = {number: old for number, old in self._rules.items() if not old.binds_as(rule)}      # the newest word counts
        rules[rule.number] = rule
        if len(rules) > limits.MAX_RULES or sum(known.size for known in rules.values()) > limits.MAX_RULES_FILE:
            raise UserError("no room for another rule: drop some with `rules drop N`, or answer this once only", code="too-many")
        self._next_rule += 1
        self._rules = rules
        self._effects.append(RulesChanged())

    def rules(self):
        """All rules, the oldest first."""
        return list(self._rules.values())

    def trusts(self, node, app, publisher):
        """Is there a rule for all versions that this publisher, of this network, makes of it?"""
        return any((rule.node, rule.app, rule.publisher) == (node, app, publisher) for rule in self._rules.values())

    def drop_rule(self, number):
        """Forget a rule. Raises UserError."""
        if self._rules.pop(number, None) is None:
            raise UserError(f"no rule {number}; `rules` lists them", code="no-such-rule")
        self._effects.append(RulesChanged())

    # -- time

    def deadline(self):
        """When `time` is to be called next, or None."""
        return min((request.expires for request in self._requests.values()), default=None)

    def time(self, now):
        """What nobody answered is answered by nobody: no."""
        for number, request in list(self._requests.items()):
            if request.expires <= now:
                del self._requests[number]
                self._effects.append(Expired(request))

    # -- on disk

    def to_json(self) -> bytes:
        """The rules."""
        return _encode(self._rules.values())

    def from_json(self, data):
        """Take the rules of an earlier run. Raises ValueError for what `to_json` never wrote; then nothing is taken."""
        try:
            rows = json.loads(data.decode("utf-8"))
            if type(rows) is not list:
                raise ValueError("not a list of rules")
            rules = {rule.number: rule for rule in map(_rule, rows)}
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError, BadKey) as error:
            raise ValueError(str(error))
        if len(rules) != len(rows) or len(rules) > limits.MAX_RULES:
            raise ValueError("a rule twice, or too many")
        self._rules = rules
        self._next_rule = max(rules, default=0) + 1


def _encode(rules):
    return json.dumps([rule.row() for rule in rules], indent=1).encode("utf-8")


def _rule(row):
    """A Rule of a row in the file. Nothing is converted: what has another type was not written by `to_json`."""
    number, app, version, arguments, answer = row["rule"], row["app"], bytes.fromhex(row["version"]), row["args"], row["answer"]
    if type(number) is not int or not 0 < number < 1 << 53 or not isinstance(app, str) or len(version) != 32:
        raise ValueError("not a rule")
    if answer not in (ALLOW, DENY) or not (arguments is None or type(arguments) is list):
        raise ValueError("not a rule")
    if arguments is not None and not all(isinstance(argument, str) for argument in arguments):
        raise ValueError("not a rule")
    publisher = (bytes.fromhex(row["network"]), parse_node_id(row["publisher"])) if "publisher" in row else None
    return Rule(number, parse_node_id(row["node"]), app, version, arguments, answer, publisher)


def prompt(request, since, note="") -> str:
    """The line that asks a person. `since`: how long the node has been known, in words; `note`: more to know, cleaned by the caller."""
    arguments = " ".join(shlex.quote(clean(argument, 200)) for argument in request.arguments)
    with_arguments = f" {arguments}" if arguments else ""
    return (f"[{request.number}] {clean(request.name)} ({node_id_text(request.node)[:10]}…, {since}) wants to run {clean(request.app)} "
            f"{request.version.hex()[:6]}…{clean(with_arguments, 300)} with you{note}; it runs with your rights — "
            f"allow {request.number} | deny {request.number} ({int(limits.ASK_FOR)} s)")


def differences(changes) -> str:
    """What became of the files, in words for the prompt. `changes`: added, changed and removed paths, as a publisher named them."""
    files = [f"{clean(path, 40)} {what}" for what in ("changed", "added", "removed") for path in getattr(changes, what)]
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return ", ".join(files[:NAMED]) + more
