"""Fetching one version of an application from those who hold it.

First the manifest, which is right when its hash is the version; then only the contents that are nowhere on this
computer yet. Each holder is asked by a few workers of its own, each of which takes the next file off the common
queue and asks for its blocks; so a fast holder serves more, and a slow or dead one costs what it had in hand and
no more. A file counts when its SHA-256 is right; a holder that sent wrong bytes is left out. When all is here,
the store verifies and switches the whole version in.

Anything that breaks off leaves the old versions as they were.
"""

import hashlib
from collections import deque

from .. import proto
from ..errors import LinkDown, PeerError, Refusal, UserError
from ..tasks import Event
from ..text import clean
from .manifest import Manifest

BLOCK = 1 << 18              # bytes asked for at once: at 100 Mbit/s one takes 21 ms, so chat beside it stays quick
WORKERS = 4                  # files under way from one holder
SHOWN = 200                  # cells of a holder's reason
BLOCK_TIMEOUT = 30.0         # s for one block: slow links are slow, dead ones are told by their connection


class Progress:
    """What a fetch has done so far; read by whoever draws it."""

    def __init__(self, loop):
        self.began = loop.now()
        self.bytes = 0               # of the whole version
        self.wanted = 0              # of them, what must be fetched
        self.fetched = 0
        self.peers = []              # IDs of those who sent a file that was right


async def fetch_manifest(request, version, holders):
    """The Manifest of this version from the first holder that has it. `request(node_id, message, **fields)` is awaited."""
    problem = "nobody who holds it is connected"
    for holder in holders:
        try:
            data = (await request(holder, proto.MANIFEST, timeout=BLOCK_TIMEOUT, version=version)).manifest
        except (LinkDown, Refusal, PeerError) as error:
            problem = clean(str(error), SHOWN)
            continue
        if hashlib.sha256(data).digest() != version:
            problem = "what came is not the manifest of this version"
            continue
        try:
            return Manifest.decode(data)
        except PeerError as error:
            raise UserError(f"this application cannot be taken: {error}. Its publisher must share it again", code="bad-manifest")
    raise UserError(f"version {version.hex()[:12]} cannot be fetched: {problem}. Try again when one of its holders is here",
                    code="no-holder")


class Fetch:
    """Brings what is missing of one version into a staging area of the store."""

    def __init__(self, loop, request, staging, holders, progress, limit=None):
        self._loop = loop
        self._request = request
        self._staging = staging
        self._holders = list(holders)
        self._progress = progress
        self._limit = limit                  # bytes/s in all, or None
        self._earliest = loop.now()
        self._left_out = []
        self._queue = deque(staging.missing())
        self._in_hand = 0
        self._failure = None
        self._was_lied_to = False
        self._moved = Event(loop)
        progress.wanted = sum(size for _, size in self._queue)

    async def run(self):
        """Until all is here and verified. Raises UserError when no holder is left."""
        tasks = [self._loop.start(self._work(holder)) for holder in self._holders for _ in range(WORKERS)]
        for task in tasks:
            try:
                await task
            except UserError as error:       # the disk, not the holder: nothing will go better with another one
                self._failure = error
        if self._failure:
            raise self._failure
        if self._queue:
            missing = "that sends the right bytes" if self._was_lied_to else "that answers"
            raise UserError(f"the fetch broke off: no holder is left {missing}. What is here is unchanged; try again", code="no-holder")

    async def _work(self, holder):
        while self._failure is None and holder not in self._left_out:
            if not self._queue:
                if not self._in_hand:
                    return
                await self._moved.wait()      # what another holder has in hand may come back
                continue
            digest, size = item = self._queue.popleft()
            self._in_hand += 1
            try:
                if not await self._file(holder, digest, size):
                    self._was_lied_to = True
                    self._left_out.append(holder)
                    self._queue.append(item)
            except (LinkDown, Refusal, PeerError):
                self._left_out.append(holder)
                self._queue.append(item)
            except UserError as error:
                self._failure = error
                raise
            finally:
                self._in_hand -= 1
                self._moved.notify()

    async def _file(self, holder, digest, size):
        """One file from one holder: is it here now, and right?"""
        offset = 0
        is_right = False
        try:
            while offset < size:
                length = min(BLOCK, size - offset)
                await self._pace(length)
                data = (await self._request(holder, proto.BLOCK, timeout=BLOCK_TIMEOUT, digest=digest, offset=offset, length=length)).data
                if len(data) != length:
                    return False
                await self._loop.work(self._staging.write, digest, offset, data)
                offset += length
                self._progress.fetched += length
            is_right = await self._loop.work(self._staging.finish_file, digest)
            if is_right and holder not in self._progress.peers:
                self._progress.peers.append(holder)
            return is_right
        finally:
            if not is_right:
                self._progress.fetched -= offset       # it comes once more, from another holder

    async def _pace(self, length):
        if not self._limit:
            return
        now = self._loop.now()
        start = max(now, self._earliest)
        self._earliest = start + length / self._limit
        if start > now:
            await self._loop.sleep(start - now)
