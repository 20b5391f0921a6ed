"""Applications: what this node offers and holds, what the others do, and bringing a version here.

An offer is signed by its publisher, so anybody who holds a version may pass the offer on and nobody can make
one in another's name. Each node tells its links all offers it knows and all versions it holds, when they meet
and when that changes.

Which publisher's "chat" is meant, where several offer one, the catalogue says (this node's own; else the one from
whom it was installed; else the only one). Otherwise the person must say `chat@bob`; a stranger who offers a newer
"chat" never slips in by its name.
"""

import os

from . import limits, proto
from .budget import Budget
from .codec import Record, as_dict
from .errors import P2PError, PeerError, Refusal, UserError
from .fanout import Fanout
from .sync.catalogue import Catalogue, Offer
from .sync.manifest import app_name_fault, check_app_name
from .sync.store import Store
from .sync.transfer import Fetch, Progress, fetch_manifest
from .text import clean
from .trust.ecc import node_id_text

CATALOGUE_FILE = "catalogue"
ANNOUNCE_AFTER = 0.05        # s in which changes are gathered before the links are told
SIGNATURES = (100, 200, 1.0) # looked at for one teller and for all, in so many s: 1.6 ms of CPU each, and sending one again costs nothing
WITHDRAWN = bytes(32)
MAX_PACKED = 64               # of the sets of networks in which links are
BUNDLED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "apps")

# The file: what is offered, and from whom each installed application came
Remembered = Record("catalogue file", (
    ("offers", proto.several(proto.OfferRow, limits.MAX_OFFERS)),
    ("pins", proto.several(Record("pin", (("name", proto.name), ("publisher", proto.node_id))), limits.MAX_OFFERS))))


class Offers:
    """`node` gives loop, disk, home, identity, networks, dispatch, links, request, answering, label, log, notice, touched."""

    def __init__(self, node):
        self._node = node
        self._loop = node.loop
        self._me = node.identity.node_id
        self._due = None              # timer: the links are told, and the file is written
        self._is_closed = False
        self._signatures = Budget(*SIGNATURES)
        self._to_verify = {}          # who told -> offers whose signature is not yet checked
        self._bringing = {}           # (name, version) -> Future of the folder
        self._fanout = Fanout(node.loop)
        self._packed = {}             # tags of networks -> (the catalogue's edition, what is told of them)
        self._bundled = {}            # name -> Manifest of what ships with the framework
        self.store = Store(node.home, node.disk)
        self.catalogue = Catalogue(self._me)
        node.networks.on_change.append(self._networks_changed)
        node.dispatch.request(proto.MANIFEST, self._on_manifest)
        node.dispatch.request(proto.BLOCK, self._on_block)
        node.dispatch.notice(proto.CATALOGUE, self._on_catalogue)

    async def start(self):
        """Clear away what a crash left, and remember what is offered and held."""
        await self._loop.work(self.store.recover)
        path = self._node.path(CATALOGUE_FILE)
        if self._node.disk.exists(path):
            try:
                known = Remembered.unpack_all(self._node.disk.read_bytes(path, limits.MAX_BODY))
                for pin in known.pins:
                    self.catalogue.pin(pin.name, pin.publisher)
                for offer in [Offer(**as_dict(row)) for row in known.offers]:
                    if self._counts(offer):
                        self.catalogue.add(offer)
            except PeerError:
                self._node.log.write("disk", f"{path} cannot be read; applications must be shared again")
        await self._holdings_changed()

    # -- telling each other

    def greet(self, connection):
        """A new link: tell it everything."""
        self._tell([connection])

    def _tell(self, connections):
        """Everything, packed once for all that are in the same networks."""
        groups = {}
        for connection in connections:
            if connection.is_ready and connection.networks:
                groups.setdefault(connection.networks, []).append(connection)
        for networks, members in groups.items():
            edition, body = self._packed.get(networks, (None, b""))
            if edition != self.catalogue.edition:
                body = proto.CATALOGUE.pack(**self._everything(networks))
                if len(self._packed) >= MAX_PACKED:
                    self._packed.clear()
                self._packed[networks] = self.catalogue.edition, body
            self._fanout.post(members, proto.CATALOGUE.word, body)

    def _everything(self, networks):
        """What the members of these networks may hear: their offers, and which of those versions are here; nothing else that is here."""
        offers = self.catalogue.offers(networks)
        offered = {(offer.name, offer.version) for offer in offers}
        holdings = [{"name": name, "version": version} for name, version in self.catalogue.held_by(self._me) if (name, version) in offered]
        return {"offers": [offer.row() for offer in offers], "holdings": holdings[:limits.MAX_HOLDINGS_NODE]}

    async def _holdings_changed(self):
        self.catalogue.holds(self._me, await self._loop.work(self.store.holdings))
        self._announce()

    def _announce(self):
        self._node.touched()
        if self._due is None and not self._is_closed:
            self._due = self._loop.call_later(ANNOUNCE_AFTER, self._tell_all)

    def close(self):
        """The home may be another root's from now on: write what is not written yet, and no more."""
        if self._due is not None:
            self._due.cancel()
            self._save()
        self._is_closed = True

    def _tell_all(self):
        self._due = None
        self._tell(list(self._node.links))
        self._save()

    def _save(self):
        pins = [{"name": name, "publisher": publisher} for name, publisher in sorted(self.catalogue.pins.items())[:limits.MAX_OFFERS]]
        known = Remembered.pack({"offers": [offer.row() for offer in self.catalogue.offers()], "pins": pins})
        try:
            self._node.disk.write_atomic(self._node.path(CATALOGUE_FILE), known)
        except P2PError as error:
            self._node.log.write("disk", str(error))

    def _on_catalogue(self, connection, told):
        if self._node.links.get(connection.peer_id) is not connection:
            return                    # all is said again on the link, and what comes late here is old
        rows = [row for row in told.offers if row.network in connection.networks and not self.catalogue.is_known(row.signature)]
        if any(app_name_fault(row.name) for row in told.holdings + rows):
            raise PeerError("its catalogue has a name that no application may have", "name")
        self.catalogue.holds(connection.peer_id, [(row.name, row.version) for row in told.holdings])
        fresh = [offer for offer in (Offer(**as_dict(row)) for row in rows)
                 if self.catalogue.is_news(offer) and not self._node.networks.is_denied(offer.network, offer.publisher_id)]
        if fresh:
            waiting = connection.peer_id in self._to_verify
            self._to_verify[connection.peer_id] = fresh       # the newest catalogue replaces what it said before
            if not waiting:
                self._loop.start(self._verify(connection.peer_id))
        self._node.touched()

    async def _verify(self, teller):
        """Check signatures, one at a time for each teller: a peer that invents offers waits for itself."""
        must_tell = False
        try:
            while self._to_verify[teller]:
                while not self._signatures.take(self._loop.now(), teller):
                    await self._loop.sleep(SIGNATURES[2] / 4)
                offer = self._to_verify[teller].pop(0)
                if not await self._loop.work(offer.is_authentic):
                    self._node.refuse("signature", f"{self._node.label(teller)} passes on an offer of {offer.name} with a wrong signature")
                    self._to_verify[teller].clear()
                elif self._counts(offer) and self.catalogue.add(offer):
                    is_here = (offer.name, offer.version) in self.catalogue.held_by(self._me)
                    must_tell |= is_here or offer.publisher_id != teller
                    self._heard_of(offer)
        finally:
            del self._to_verify[teller]
        if must_tell:
            self._announce()

    def _counts(self, offer):
        """Is this node in its network, and its publisher still? Both may change while a signature is looked at."""
        networks = self._node.networks
        return networks.by_tag(offer.network) is not None and not networks.is_denied(offer.network, offer.publisher_id)

    def _heard_of(self, offer):
        self._node.touched()
        if not offer.is_withdrawn:
            self._node.log.write("offer", f"{self._node.label(offer.publisher_id)} offers {offer.name} {offer.version.hex()[:12]}")

    def _networks_changed(self):
        """What was offered in a network that this node has left is no affair of this node any more."""
        for tag in sorted({offer.network for offer in self.catalogue.offers()} - set(self._node.networks.tags)):
            self.catalogue.leave(tag)
        self._announce()

    def expel(self, node_id, tag):
        """A node was removed from a network: what it offers there counts no more."""
        self.catalogue.expel(node_id, tag)
        self._announce()

    def gone(self, node_id):
        """A node that is dead or has left serves nothing."""
        self.catalogue.forget(node_id)
        self._node.touched()

    # -- serving

    def _may_show(self, connection, version):
        """May the other end have this version? Asked from worker threads, too."""
        return self.catalogue.is_shown(version, connection.networks) or self._node.launcher.is_run_with(connection, version)

    async def _on_manifest(self, connection, asked):
        manifest = None
        if self._may_show(connection, asked.version):
            manifest = await self._node.answering(connection, lambda: self._loop.work(self.store.manifest, asked.version))
        if manifest is None:
            raise Refusal(proto.NOT_FOUND, "that version is not here")
        return {"manifest": manifest.encode()}

    async def _on_block(self, connection, asked):
        data = await self._node.answering(connection, lambda: self._loop.work(
            self.store.read_block, asked.digest, asked.offset, asked.length, lambda version: self._may_show(connection, version)))
        if data is None:
            raise Refusal(proto.NOT_FOUND, "that content is not here")
        return {"data": data}

    # -- sharing

    async def share(self, folder, name=None, network=None):
        """Offer a folder, or its new version. Raises UserError."""
        folder = os.path.abspath(folder)
        name = name or os.path.basename(folder)
        check_app_name(name)
        network = self._node.network(network).tag
        found = self._node.disk.status(folder)
        if found is not None and found.kind in "dl" and not self._node.disk.exists(os.path.join(folder, "main.py")):
            raise UserError(f"{clean(folder, 200)}: there is no main.py in it. An application is a folder with a main.py, which is what "
                            "`run` starts: add one, or name the folder that has it", code="no-main")
        manifest = await self._loop.work(self.store.install_folder, folder, name)
        await self._publish(name, manifest.version, network, len(manifest.files), manifest.bytes)
        await self._holdings_changed()
        self._node.log.write("share", f"{name} {manifest.version.hex()[:12]}: {len(manifest.files)} files, {manifest.bytes} bytes")
        return {"name": name, "version": manifest.version.hex(), "files": len(manifest.files), "bytes": manifest.bytes}

    async def unshare(self, name):
        """Offer it no longer; what others have fetched stays theirs."""
        networks = self.catalogue.offered_in(name, self._me)
        if not networks:
            raise UserError(f"{clean(name)}: not shared from here. `apps` lists what is", code="no-such-app")
        for network in networks:
            await self._publish(name, WITHDRAWN, network, 0, 0)
        self._announce()

    async def _publish(self, name, version, network, files, size):
        last = self.catalogue.serial(name, self._me)
        serial = max(last + 1, int(self._loop.wall() * 1000))
        offer = await self._loop.work(Offer.signed, self._node.identity.key, name, version, serial, network, files, size)
        if not self.catalogue.add(offer):
            raise UserError(f"{name}: this node offers as many applications as it may; `unshare` one first", code="too-many")

    # -- choosing

    def newest(self, word, networks=None):
        """The offer that a person means by NAME or NAME@PUBLISHER, in these networks (tags). Raises UserError."""
        name, _, publisher = word.partition("@")
        publisher_id = self._node.find(publisher).id if publisher else None
        offer = self.catalogue.newest(name, publisher_id, networks)
        if offer is not None:
            return offer
        elsewhere = networks is not None and self.catalogue.newest(name, publisher_id)
        if elsewhere:
            raise UserError(f"{clean(word)} is offered in {self._name_of(elsewhere.network)}, not in "
                            f"{' or '.join(map(self._name_of, networks))}: `share DIR --network NET` offers it there, too",
                            code="other-network")
        publishers = self.catalogue.publishers(name)
        if publisher or not publishers:
            raise UserError(f"{clean(word)}: no such application here. `apps` lists them; `share DIR` offers one", code="no-such-app")
        choices = " or ".join(f"{name}@{self._node.label(node_id)}" for node_id in publishers[:8])
        raise UserError(f"{clean(name)}: several nodes offer it: say {choices}", code="ambiguous-app")

    async def offered(self, word, networks):
        """As `newest`; but the bare name of an application that ships with the framework means that one, offered when first wanted.

        Only what the user has installed by name from somebody comes before it: a stranger may offer a "chat" at any time.
        """
        if networks and self._ships(word) and word not in self.catalogue.pins and self.catalogue.newest(word, self._me, networks) is None:
            await self.share(os.path.join(BUNDLED, word), network=self._name_of(networks[0]))
        return self.newest(word, networks)

    def _ships(self, word):
        return not app_name_fault(word) and self._node.disk.exists(os.path.join(BUNDLED, word, "main.py"))

    def _name_of(self, tag):
        return self._node.networks.name_of(tag)

    def rows(self, networks=None):
        """What `apps` lists; of these networks (tags) alone where they are given."""
        mine = self.catalogue.held_by(self._me)
        return [{"name": offer.name, "version": offer.version.hex(), "publisher": node_id_text(offer.publisher_id),
                 "network": self._name_of(offer.network), "files": offer.files, "bytes": offer.bytes,
                 "installed": (offer.name, offer.version) in mine,
                 "holders": [self._node.label(node_id) for node_id in holders]}
                for offer, holders in self.catalogue.rows(networks)]

    async def bundled_rows(self):
        """The same of what ships with the framework and is not offered from here yet: `run` offers it when it is first wanted."""
        rows = []
        networks = [network.name for network in self._node.networks.all()]
        for name in self._node.disk.listdir(BUNDLED) if self._node.disk.exists(BUNDLED) else []:
            if self._ships(name) and self.catalogue.newest(name, self._me) is None:
                if name not in self._bundled:
                    self._bundled[name] = await self._loop.work(self.store.scan, os.path.join(BUNDLED, name))
                manifest = self._bundled[name]
                rows.append({"name": name, "version": manifest.version.hex(), "publisher": node_id_text(self._me),
                             "network": networks[0], "files": len(manifest.files), "bytes": manifest.bytes,
                             "installed": self.store.is_installed(name, manifest.version), "holders": []})
        return rows

    # -- fetching

    async def bring(self, name, version, network, prefer=None, source=None, limit=None, progress=None):
        """The folder of this version, fetched within this network where it is not here. Raises UserError; then nothing has changed."""
        check_app_name(name)
        self.catalogue.serve(version, network)
        if await self._loop.work(self.store.is_installed, name, version):
            if await self._loop.work(self.store.mend, name, version):
                return self.store.folder(name, version)
            self._node.notice(f"! {name} {version.hex()[:12]} was damaged on this disk: it is brought anew")
            await self._holdings_changed()
        key = (name, version)
        if key not in self._bringing:
            task = self._bringing[key] = self._loop.start(self._bring(name, version, network, prefer, source, limit, progress))
            task.add_callback(lambda done: self._bringing.pop(key, None))
        return await self._bringing[key]

    async def bring_offered(self, offer, source=None, limit=None, progress=None):
        """As `bring`, for what this user named: from now on the bare name means this publisher's, here."""
        folder = await self.bring(offer.name, offer.version, offer.network, offer.publisher_id, source, limit, progress)
        if offer.publisher_id != self._me and self.catalogue.pins.get(offer.name) != offer.publisher_id:
            self.catalogue.pin(offer.name, offer.publisher_id)
            self._announce()         # writes it down
        return folder

    def _is_in(self, node_id, network):
        link = self._node.link(node_id)
        return link is not None and network in link.networks

    def _holders(self, name, version, network, prefer, source):
        """Who is asked for it; nobody outside its network hears that it is wanted."""
        holders = [node_id for node_id in self.catalogue.holders(name, version) if self._is_in(node_id, network)]
        if source is not None:
            return [source] if self._is_in(source, network) else []
        if prefer is not None and self._is_in(prefer, network) and prefer not in holders:
            holders.append(prefer)
        return sorted(holders, key=lambda node_id: (node_id != prefer, node_id))

    async def _bring(self, name, version, network, prefer, source, limit, progress):
        progress = progress or Progress(self._loop)
        holders = self._holders(name, version, network, prefer, source)
        own = self.catalogue.newest(name, self._me)
        if not holders and own is not None and own.version == version:
            raise UserError(f"{name}: what this node shared is damaged on its disk, and nobody else here holds it: "
                            "`share` its folder again", code="no-holder")
        manifest = await fetch_manifest(self._node.request, version, holders)
        progress.bytes = manifest.bytes
        staging = await self._loop.work(self.store.begin, name, manifest)
        try:
            await Fetch(self._loop, self._node.request, staging, holders, progress, limit).run()
            await self._loop.work(staging.commit)
        finally:
            await self._loop.work(staging.abort)      # what was verified stays for the next try
        self._node.log.write("sync", f"{name} {version.hex()[:12]} is here: {progress.fetched} of {manifest.bytes} bytes fetched")
        await self._holdings_changed()
        return self.store.folder(name, version)

    async def sync(self, names, source=None, dry_run=False, limit=None, progress=None, networks=None):
        """Bring these (or all installed) applications to their newest offered version; rows as `sync` prints them."""
        rows = []
        if not names:
            installed = sorted({name for name, _ in self.catalogue.held_by(self._me)})
            names = [name for name in installed if self.catalogue.newest(name, None, networks)]
        for word in names:
            offer = self.newest(word, networks)
            rows.append(await self._sync_one(offer, source, dry_run, limit, progress or (lambda name, progress: None)))
        return rows

    async def _sync_one(self, offer, source, dry_run, limit, watch):
        progress = Progress(self._loop)
        began = self._loop.now()
        watch(offer.name, progress)
        if dry_run:
            if not await self._loop.work(self.store.is_installed, offer.name, offer.version):
                manifest = await fetch_manifest(self._node.request, offer.version,
                                                self._holders(offer.name, offer.version, offer.network, offer.publisher_id, source))
                progress.fetched = await self._loop.work(self.store.missing_bytes, manifest)
        else:
            await self.bring_offered(offer, source, limit, progress)
        return {"name": offer.name, "version": offer.version.hex(), "bytes": offer.bytes, "fetched": progress.fetched,
                "seconds": round(self._loop.now() - began, 3), "peers": [self._node.label(peer) for peer in progress.peers]}
