"""Fetching from holders that lie, die, or are slow; the store is real, the holders are functions."""

import os

import pytest

from p2p import proto
from p2p.disk import Disk
from p2p.errors import LinkDown, PeerError, Refusal, UserError
from p2p.sync.store import Store
from p2p.sync.transfer import BLOCK, Fetch, Progress, fetch_manifest
from tests.bench import Bench

GOOD, OTHER, BAD = b"g" * 32, b"o" * 32, b"b" * 32


class Bed(Bench):
    """A publisher's store, a receiver's store, and a `request` between them that each holder may spoil."""

    def __init__(self, folder, files):
        super().__init__()
        app = folder / "app"
        for path, data in files.items():
            (app / path).parent.mkdir(parents=True, exist_ok=True)
            (app / path).write_bytes(data)
        self.source, self.target = Store(str(folder / "one"), Disk()), Store(str(folder / "two"), Disk())
        for store in (self.source, self.target):
            store.recover()
        self.manifest = self.source.install_folder(str(app), "app")
        self.files = files
        self.spoil = {}               # holder -> function(message, fields, answer) that may change or raise
        self.asked = []

    async def request(self, holder, message, timeout=None, **fields):
        self.asked.append((holder, message.name))
        await self.loop.sleep(0)
        if message is proto.MANIFEST:
            answer = {"manifest": self.source.manifest(fields["version"]).encode()}
        else:
            answer = {"data": self.source.read_block(fields["digest"], fields["offset"], fields["length"])}
        spoil = self.spoil.get(holder)
        if spoil:
            answer = await spoil(message, fields, answer)
        return message.reply.unpack_all(message.reply.pack(answer))

    def fetch(self, *holders, limit=None):
        """Fetch all and switch it in; the Progress."""
        progress = Progress(self.loop)

        async def run():
            manifest = await fetch_manifest(self.request, self.manifest.version, holders)
            staging = self.target.begin("app", manifest)
            try:
                await Fetch(self.loop, self.request, staging, holders, progress, limit).run()
                staging.commit()
            finally:
                staging.abort()
        task = self.loop.start(run())
        self.until(lambda: task.done)
        task.result()
        return progress

    def is_whole(self):
        folder = self.target.folder("app", self.manifest.version)
        return all(open(os.path.join(folder, path), "rb").read() == data for path, data in self.files.items())


@pytest.fixture
def bed(tmp_path):
    files = {f"file{number}": bytes([number]) * (1000 * number) for number in range(1, 30)}
    files["big"] = os.urandom(3 * BLOCK + 17)
    files["sub/empty"] = b""
    bed = Bed(tmp_path, files)
    yield bed
    bed.loop.close()


def test_all_files_come_and_several_holders_share_the_work(bed):
    progress = bed.fetch(GOOD, OTHER)
    assert bed.is_whole() and sorted(progress.peers) == [GOOD, OTHER]
    assert progress.fetched == progress.wanted == sum(map(len, bed.files.values()))


def test_a_holder_that_sends_wrong_bytes_is_left_out_and_the_others_finish(bed):
    async def lie(message, fields, answer):
        if message is proto.BLOCK and answer["data"]:
            answer["data"] = answer["data"][:-1] + bytes([answer["data"][-1] ^ 1])
        return answer
    bed.spoil[BAD] = lie
    bed.fetch(BAD, GOOD)
    assert bed.is_whole()
    assert sum(1 for holder, name in bed.asked if (holder, name) == (BAD, "BLOCK")) <= 8


@pytest.mark.parametrize("error", [LinkDown("it died", "eof"), Refusal(proto.NOT_FOUND, "gone"),
                                   PeerError("cut off in data", "malformed")])
def test_what_a_dying_holder_had_in_hand_comes_from_another(bed, error):
    blocks = []

    async def die(message, fields, answer):
        if message is proto.BLOCK:
            blocks.append(1)
            if len(blocks) > 5:
                raise error
        return answer
    bed.spoil[BAD] = die
    progress = bed.fetch(BAD, GOOD)
    assert bed.is_whole() and progress.fetched == progress.wanted


def test_short_answers_are_lies_too(bed):
    async def short(message, fields, answer):
        if message is proto.BLOCK:
            answer["data"] = answer["data"][:-1]
        return answer
    bed.spoil[BAD] = short
    with pytest.raises(UserError, match="sends the right bytes"):
        bed.fetch(BAD)
    assert bed.fetch(BAD, GOOD).peers == [GOOD] and bed.is_whole()


def test_without_an_honest_holder_nothing_is_installed_and_a_later_try_takes_up_what_was_verified(bed):
    served = []

    async def stop(message, fields, answer):
        if message is proto.BLOCK:
            served.append(len(answer["data"]))
            if len(served) > 10:
                raise LinkDown("it died", "eof")
        return answer
    bed.spoil[BAD] = stop
    with pytest.raises(UserError, match="no holder is left"):
        bed.fetch(BAD)
    assert bed.target.installed("app") == []
    progress = bed.fetch(GOOD)
    assert bed.is_whole() and progress.wanted < sum(map(len, bed.files.values()))


def test_a_wrong_manifest_is_not_believed(bed):
    async def other(message, fields, answer):
        if message is proto.MANIFEST:
            answer["manifest"] += b"\0"
        return answer
    bed.spoil[BAD] = other
    with pytest.raises(UserError, match="not the manifest"):
        bed.fetch(BAD)
    bed.fetch(BAD, GOOD)
    assert bed.is_whole()


def test_an_answer_that_cannot_be_read_leaves_its_holder_out_for_the_manifest_too(bed):
    async def garbage(message, fields, answer):
        raise PeerError("cut off in manifest", "malformed")
    bed.spoil[BAD] = garbage
    bed.fetch(BAD, GOOD)
    assert bed.is_whole()


def test_a_slow_holder_does_not_hold_up_the_others(bed):
    async def slow(message, fields, answer):
        if message is proto.BLOCK:
            await bed.loop.sleep(0.3)
        return answer
    bed.spoil[BAD] = slow
    bed.fetch(BAD, GOOD)
    assert bed.is_whole()
    assert sum(holder == GOOD for holder, _ in bed.asked) > 3 * sum(holder == BAD for holder, _ in bed.asked)


def test_a_limit_on_the_rate_is_kept(tmp_path):
    bed = Bed(tmp_path, {"data": os.urandom(4 * BLOCK)})
    began = bed.loop.now()
    bed.fetch(GOOD, limit=8 * BLOCK)
    assert 0.3 < bed.loop.now() - began < 3.0 and bed.is_whole()
    bed.loop.close()


def test_nothing_is_asked_for_what_is_here_already(bed):
    bed.fetch(GOOD)
    bed.asked.clear()
    staging = bed.target.begin("copy", bed.manifest)
    assert staging.missing() == []
    staging.commit()
    assert bed.asked == []
