"""Asks this user, and brings his word to the sessions: requests, answers, rules, and what each leaves in the log.

Between the pure consent and a person. A prompt says who asks and since when he is known, whom he only seems to be, and which files are
not those that were allowed before. Until the word is there, nothing of the application is fetched but its list of files.
"""

from . import limits
from .errors import P2PError, UserError
from .sync.manifest import changes
from .sync.transfer import fetch_manifest
from .tasks import within
from .trust import consent
from .trust.ecc import node_id_text
from .trust.identity import check_private

RULES = "rules.json"
LOOK_FOR = 2.0               # s for the manifest that tells a person what has changed; then he is asked without it
OFFER_FOR = 2.0              # s an invitation waits for the offer that its rule is about


class Asking:
    """`node` gives everything else; see Node. `sessions` hear the answers, `act` carries out what follows."""

    def __init__(self, node, sessions, act):
        self._node = node
        self._loop = node.loop
        self._sessions = sessions
        self._act = act
        self.consent = consent.Consent()
        self._load()

    # -- being asked

    def ask(self, session):
        """An invitation came: a rule answers it, or this user is to."""
        if self.consent.trusts(session.host, session.app, (session.network, session.publisher)) and self._trustable(session) is None:
            self._loop.start(self._ask_when_offered(session))       # the offer's signature may be being looked at
        else:
            self._ask_now(session)

    async def _ask_when_offered(self, session):
        deadline = self._loop.now() + OFFER_FOR
        while self._trustable(session) is None and self._loop.now() < deadline:
            await self._loop.sleep(OFFER_FOR / 20)
        if not session.is_over and not session.is_ending:
            self._ask_now(session)
            self._act()

    def _ask_now(self, session):
        label = self._node.label(session.host)
        answer, what = self.consent.ask("run", session.host, label, session.app, session.version, session.arguments, session,
                                        self._loop.now(), self._trustable(session))
        log = self._node.log
        if answer == consent.ASK:
            log.note("asked", dict(request=what.number, **self._about(session), since=self._node.known.since(session.host)))
            self._loop.start(self._prompt(what))
        elif answer == consent.REFUSE:
            self._node.count_refused("requests")
            log.note("unasked", dict(self._about(session), by="limits", why=what))
            self._sessions.decided(session, False, f"nobody was asked: {what}; wait a minute")
        elif answer == consent.DENY:         # silent: it has no budget, and was said to have peace
            log.note("deny", dict(self._about(session), by=f"rule {what.number}", rule=what.number))
            self._decided(session, False, f"rule {what.number}")
        else:
            log.keep("allow", dict(self._about(session), by=f"rule {what.number}", rule=what.number))
            self._node.notice(f"* {session.app} of {label} runs without asking, by your rule {what.number}; "
                              f"`rules drop {what.number}` ends that")
            self._decided(session, True, f"rule {what.number}")

    def withdraw(self, session):
        """Whoever asked does not want to know any more."""
        for request in self.consent.requests():
            if request.subject is session:
                self._node.log.note("withdrawn", dict(request=request.number, **self._about(session), by="host"))
        self.consent.withdraw(session)

    def _decided(self, session, is_yes, by):
        session.allowed_by = by
        text = {} if by.startswith("request") else {"text": "a remembered answer of its user; nobody was asked again"}
        self._sessions.decided(session, is_yes, **text)

    def _about(self, session):
        """The fields of the log about what is wanted, and by whom."""
        return about(session, self._node.label(session.host))

    def _trustable(self, session):
        """(Network, publisher) who may be trusted with all versions: where an admin says who is in the network, and it is his offer."""
        network = self._node.networks.by_tag(session.network)
        offered = self._node.offers.catalogue.newest(session.app, session.publisher, [session.network])
        is_his = offered is not None and offered.version == session.version
        return (session.network, session.publisher) if network is not None and network.kind == "managed" and is_his else None

    # -- what a person is shown

    async def _prompt(self, request):
        note = await self._what_is_new(request.subject)
        if request in self.consent.requests():           # a shell beside this one may have answered by now
            self._node.notice(consent.prompt(request, self._node.known.since(request.node), note))

    async def _what_is_new(self, session):
        """How it differs from what this user allowed before, or else has here; words for the prompt, cleaned."""
        try:
            return await self._compare_with_what_is_here(session)
        except Exception as error:  # whatever it was, the person must be asked
            if not isinstance(error, P2PError):
                self._loop.report("comparing versions failed", error)
            return "; not a version that you know, and its files could not be compared"

    async def _compare_with_what_is_here(self, session):
        allowed = [rule.version for rule in self.consent.rules()
                   if (rule.node, rule.app, rule.answer) == (session.host, session.app, consent.ALLOW)]
        if session.version in allowed:
            return "; you allowed it with other arguments before"
        here = await self._loop.work(self._node.offers.store.installed, session.app)
        if session.version in here or not (allowed or here):
            return ""
        before = (allowed or here)[-1]
        which = f"the version {before.hex()[:6]}… that {'you allowed before' if allowed else 'is here'}"
        return f"; not {which}: {consent.differences(await self._compare(before, session))}"

    async def _compare(self, before, session):
        old = await self._loop.work(self._node.offers.store.manifest, before)
        if old is None:
            raise UserError("the old version is not here any more")
        asking = self._loop.start(fetch_manifest(self._node.request, session.version, [session.host]))
        try:
            return changes(old, await within(self._loop, asking, LOOK_FOR))
        finally:
            asking.cancel()

    # -- this user's word

    def allow(self, number, always=False, any_args=False, any_version=False):
        """This user's yes; the Request. Raises UserError."""
        for request in self.consent.requests():
            if request.number == number:
                request.publisher = self._trustable(request.subject)      # the offer may have come after the question
        request = self.consent.allow(number, always, any_args, any_version)
        covers = [what for what, is_so in (("these arguments", always and not any_args), ("any arguments", any_args),
                                           ("all versions", any_version)) if is_so]
        self._answered("allow", request, always, ", ".join(covers) or None)
        return request

    def deny(self, number, never=False):
        """This user's no; the Request. Raises UserError."""
        request = self.consent.deny(number, never)
        self._answered("deny", request, never, "these arguments" if never else None)
        return request

    def _answered(self, answer, request, is_remembered, covers):
        rule = self.consent.rules()[-1].number if is_remembered else None
        self._node.log.keep(answer, dict(request=request.number, **self._about(request.subject), by="owner", rule=rule, covers=covers))
        self._decided(request.subject, answer == "allow", f"request {request.number}")
        self._act()

    # -- rules

    def _load(self):
        path = self._node.path(RULES)
        if self._node.disk.exists(path):
            check_private(self._node.disk, path)         # whoever writes here lets programs run
            try:
                self.consent.from_json(self._node.disk.read_bytes(path, limits.MAX_RULES_FILE))
            except ValueError:
                raise UserError(f"{path} cannot be read as rules: repair it, or remove it to be asked about everything again", code="rules")

    def _save(self):
        try:
            self._node.disk.write_atomic(self._node.path(RULES), self.consent.to_json())
        except P2PError as error:
            self._node.notice(f"! the rules could not be saved: {error}")
            self._node.log.write("disk", f"the rules could not be saved: {error}")

    def drop_rule(self, number):
        """Forget a remembered answer. Raises UserError."""
        rule = next((rule for rule in self.consent.rules() if rule.number == number), None)
        self.consent.drop_rule(number)
        self._node.log.keep("rule", dict(rule=number, what="dropped", answer=rule.answer, app=rule.app, version=rule.version.hex()[:12],
                                         node=node_id_text(rule.node), name=self._node.label(rule.node), by="owner"))
        self._act()

    # -- time, and what happened by itself

    def time(self, now):
        """What nobody answered in time is answered: no."""
        self.consent.time(now)

    def carry_out(self):
        """The effects of consent."""
        for effect in self.consent.effects():
            if isinstance(effect, consent.Expired):
                request = effect.request
                self._node.log.note("expired", dict(request=request.number, **self._about(request.subject), by="time"))
                self._node.notice(f"* [{request.number}] has expired: {request.app} of {request.name} does not run here")
                self._sessions.expired(request.subject)
            else:
                self._save()

    # -- rows, as CLI.md names their keys

    def request_rows(self):
        """What `requests` prints."""
        return [request.row(self._loop.now()) for request in self.consent.requests()]

    def rule_rows(self):
        """What `rules` prints."""
        return [dict(rule.row(), name=self._node.label(rule.node)) for rule in self.consent.rules()]


def about(session, label):
    """What the log tells of a session: which, what, whose, and who wants it (`node`, known here as `name`)."""
    return {"session": f"{session.number:016x}", "app": session.app, "version": session.version.hex()[:12],
            "publisher": node_id_text(session.publisher)[:10], "node": node_id_text(session.host), "name": label,
            "args": session.arguments or None}
