import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from p2p import layout, segment, state
from p2p.errors import UserError
from p2p.state import Job, Me, Network, Node, Session, Snapshot, StateError, StateReader, StateWriter
from tests.interpreters import interpreters
from tests.waiting import wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HAS_FILES = os.path.isdir("/dev/shm")

# One node a row of the table; every value in it follows from the number of the writing, so a mixture shows
STORY = """
import sys, time
from p2p.state import Counters, Job, Me, Network, Node, Session, Snapshot, StateReader, StateWriter

def snapshot(number, count):
    own = number.to_bytes(32, "little")
    nodes = tuple(Node(id=own, name="n%d" % number, rtt_us=number, in_bytes=number + at) for at in range(count))
    return Snapshot(me=Me(id=own, name="me%d" % number), counters=Counters(turns=number), nodes=nodes)

def check(seen):
    number = seen.counters.turns
    assert seen == snapshot(number, len(seen.nodes))._replace(sequence=seen.sequence), number
    return number
"""


@pytest.fixture
def writer():
    made = StateWriter(os.urandom(8).hex())
    yield made
    made.close()


@pytest.fixture
def reader(writer):
    made = StateReader(writer.name)
    yield made
    made.close()


@pytest.fixture
def started():
    processes = []

    def start(body, *args, python=sys.executable):
        command = [python, "-W", "error", "-c", STORY + body, *map(str, args)]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def ended(process):
    """What a process printed, when it has ended by itself without a complaint."""
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and not err, err.decode()
    return out.decode().split()


def example():
    return Snapshot(
        me=Me(bytes(range(32)), "ann\u00e9", "0.1", 47474, 4711, 1.5),
        counters=state.Counters(*range(1, 16)),
        networks=(Network("lan", b"\0\1\2\3\4\5\6\0", 3), Network("home", bytes(8), 1)),
        sessions=(Session(2**64 - 1, "chat", bytes(31) + b"\1", b"h" * 32, "running", 3, 2.5),),
        jobs=(Job(7, 2**64 - 1, "chat", b"v" * 32, "exited", 99, 40000, -9, 3.0, 4.0),),
        nodes=tuple(Node(bytes([number]) * 32, f"node {number}", "fe80::1%eth0", 65535, 3, "suspect", True,
                         2**32 - 1, 2**64 - 1, number, 1e9, 2e9) for number in range(5)))


def test_what_was_published_is_what_is_read(writer, reader):
    assert reader.read() == Snapshot(sequence=1)
    writer.publish(example())
    assert reader.read() == example()._replace(sequence=2)
    fewer = example()._replace(nodes=example().nodes[3:], jobs=())
    writer.publish(fewer)
    assert reader.read() == fewer._replace(sequence=3)


def test_full_tables_hold_1024_nodes_and_what_is_beyond_is_left_out(writer, reader):
    nodes = tuple(Node(id=number.to_bytes(32, "big"), name=f"n{number}", state="alive") for number in range(1030))
    writer.publish(Snapshot(nodes=nodes, networks=(Network("x"),) * 20, sessions=(Session(1),) * 99, jobs=(Job(1),) * 65))
    seen = reader.read()
    assert seen.nodes == nodes[:1024]
    assert (len(seen.networks), len(seen.sessions), len(seen.jobs)) == (16, 64, 64)


def test_texts_are_cut_between_characters(writer, reader):
    for name, shown in [("x" * 64, "x" * 64), ("x" * 63 + "\u00e9", "x" * 63), ("\u6f22" * 30, "\u6f22" * 21),
                        ("a\0b", "a"), ("lone \ud800", "lone ?")]:
        writer.publish(Snapshot(me=Me(name=name)))
        assert reader.read().me.name == shown


HAMMER = """
from os import urandom
writer = StateWriter(urandom(8).hex())
writer.publish(snapshot(1, 3))
print(writer.name, flush=True)
number, ends = 1, time.monotonic() + float(sys.argv[1])
while time.monotonic() < ends:
    number += 1
    writer.publish(snapshot(number, number % 40))
print(number, flush=True)
sys.stdin.read()
writer.close()
"""
READ = """
reader, count, last, changes = StateReader(sys.argv[1]), 0, 0, 0
ends = time.monotonic() + float(sys.argv[2])
while time.monotonic() < ends:
    number = check(reader.read())
    assert number >= last, "went back"
    changes += number > last
    last, count = number, count + 1
reader.close()
print(count, changes)
"""


def test_three_readers_of_a_hammering_writer_never_see_a_torn_table(started):
    writing = started(HAMMER, 1.5)
    name = writing.stdout.readline().decode().strip()
    for reading in [started(READ, name, 1.2) for _ in range(3)]:
        count, changes = map(int, ended(reading))
        assert count > 100 and changes > 3         # under load a writer has few turns in that time
    assert int(ended(writing)[0]) > 100
    assert not segment.remove(name)


DIE = """
import os, signal

class Dying:
    # memory in which the writer is killed half-way through its n-th step
    def __init__(self, memory, steps):
        self.memory, self.whole, self.buf, self.steps = memory, memory.buf, self, steps
    def __setitem__(self, place, data):
        self.steps -= 1
        if self.steps:
            self.whole[place] = data
        else:
            if isinstance(place, slice):
                self.whole[place.start:place.start + len(data) // 2] = data[:len(data) // 2]
            os.kill(os.getpid(), signal.SIGKILL)

writer = StateWriter(os.urandom(8).hex())
for number in range(1, 8):
    writer.publish(snapshot(number, 9))
print(writer.name, flush=True)
writer._memory = Dying(writer._memory, int(sys.argv[1]))
writer.publish(snapshot(8, 9))
print("alive")
"""


def test_a_writer_killed_half_way_through_any_step_leaves_the_table_before(started):
    for step in range(1, 7):                          # the head, four tables, the flip
        writing = started(DIE, step)
        name, more = writing.communicate(timeout=20)[0].decode().split("\n", 1)
        assert writing.returncode == -signal.SIGKILL and not more
        reader = StateReader(name)
        assert reader.read().counters.turns == 7 and len(reader.read().nodes) == 9
        reader.close()
        assert state.remove_stale(name)


def test_what_a_killed_writer_left_is_removed_at_the_next_start(started):
    writing = started(HAMMER, 30)
    name = writing.stdout.readline().decode().strip()
    reader = StateReader(name)
    assert not state.remove_stale(name)
    writing.kill()
    writing.wait(10)
    assert state.remove_stale(name) and not state.remove_stale(name)
    with pytest.raises(StateError, match="root has probably ended"):
        StateReader(name)
    assert reader.read().counters.turns               # who is attached keeps what was there last
    reader.close()


@pytest.mark.skipif(not HAS_FILES, reason="needs /dev/shm")
def test_what_killed_roots_left_is_swept_up_by_others_and_nothing_that_lives(started, writer, tmp_path, monkeypatch):
    writing = started(HAMMER, 30)
    name = writing.stdout.readline().decode().strip()
    writing.kill()
    writing.wait(10)
    for young in ("psm_12345678", name, writer.name):            # a folder of our own: others test on this computer, too
        os.symlink(os.path.join("/dev/shm", young), str(tmp_path / young))
    monkeypatch.setattr(segment, "FOLDER", str(tmp_path))
    assert state.sweep(os.stat("/dev/shm/" + name).st_mtime - 1) == 0
    assert state.sweep(os.stat("/dev/shm/" + name).st_mtime + 1000) == 1
    assert not os.path.exists("/dev/shm/" + name)
    StateReader(writer.name).close()


@pytest.mark.interop
def test_every_python_reads_what_any_other_writes(started):
    pythons = interpreters()
    oldest, newest = list(pythons.values())[0], list(pythons.values())[-1]
    for writer_python, readers in [(oldest, pythons.values()), (newest, pythons.values())]:
        writing = started(HAMMER, 0.1, python=writer_python)
        name = writing.stdout.readline().decode().strip()
        last = int(writing.stdout.readline())
        body = "reader = StateReader(sys.argv[1]); print(check(reader.read())); reader.close()"
        for reading in [started(body, name, python=python) for python in readers]:
            assert ended(reading) == [str(last)]
        ended(writing)


def test_neither_the_end_nor_the_death_of_a_reader_takes_the_table_away(writer, reader, started):
    ended(started("reader = StateReader(sys.argv[1]); reader.read()", writer.name))
    ended(started("reader = StateReader(sys.argv[1]); reader.read(); reader.close()", writer.name))
    killed = started("reader = StateReader(sys.argv[1]); print(1, flush=True); sys.stdin.read()", writer.name)
    assert killed.stdout.readline()
    killed.kill()
    killed.wait(10)
    time_of_the_tracker = time.monotonic() + 0.3       # were there one, it would unlink soon after the death
    wait_until(lambda: time.monotonic() > time_of_the_tracker)
    late = StateReader(writer.name)
    assert late.read() == reader.read()
    late.close()


def test_no_tracker_process_is_started_and_other_segments_are_still_tracked(started):
    body = """
from os import urandom
from multiprocessing import resource_tracker, shared_memory
def tracker(): return resource_tracker._resource_tracker._pid
writer = StateWriter(urandom(8).hex())
reader = StateReader(writer.name)
reader.read(); reader.close(); writer.close()
assert tracker() is None
other = shared_memory.SharedMemory(create=True, size=10)
assert tracker() is not None
other.close(); other.unlink()
"""
    ended(started(body))


@pytest.mark.skipif(not HAS_FILES, reason="shared memory has no files here")
def test_only_this_user_may_open_it_and_it_is_gone_after_close():
    before = os.umask(0)
    try:
        writer = StateWriter(os.urandom(8).hex())
    finally:
        os.umask(before)
    path = f"/dev/shm/{writer.name}"
    status = os.stat(path)
    assert status.st_mode & 0o7777 == 0o600 and status.st_uid == os.geteuid()
    assert status.st_blocks * 512 >= status.st_size       # room is reserved: no SIGBUS later
    writer.close()
    assert not os.path.exists(path)


def test_a_reader_that_runs_out_of_descriptors_takes_nothing_away(writer, started):
    body = """
import os
from p2p.state import StateError
StateReader(sys.argv[1]).close()
opened = []
while True:
    try:
        opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        break
os.close(opened.pop())         # one is free: enough to open the segment, too few to map it
try:
    StateReader(sys.argv[1])
except StateError as error:
    print("open" in str(error))
"""
    assert ended(started("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))" + body, writer.name)) == ["True"]
    StateReader(writer.name).close()


def test_a_second_segment_of_the_same_name_is_refused_and_the_first_one_unharmed(writer, reader):
    writer.publish(example())
    with pytest.raises(UserError, match="exists already"):
        StateWriter(writer.name[len(segment.PREFIX):])
    assert reader.read().me.name == "ann\u00e9"


def test_stale_removal_takes_nothing_else(writer):
    assert not state.remove_stale(writer.name)             # it lives: the lock tells, also within one process
    for name in ("", "../x", "p2pstate-", "p2pstate-0123456789abcdeF", writer.name + "0", "/" + writer.name, "psm_12345678", None, b"x"):
        assert not state.remove_stale(name)
    StateReader(writer.name).close()


@pytest.mark.skipif(not HAS_FILES or os.geteuid() != 0, reason="needs root, to own a segment of another user")
def test_stale_removal_leaves_another_users_segment():
    name = segment.PREFIX + os.urandom(8).hex()
    path = f"/dev/shm/{name}"
    with open(path, "wb"):
        pass
    try:
        os.chown(path, 12345, 12345)
        assert not state.remove_stale(name) and os.path.exists(path)
        os.chown(path, 0, 0)
        assert state.remove_stale(name) and not os.path.exists(path)      # empty, as dying within `create` leaves it
    finally:
        if os.path.exists(path):
            os.unlink(path)


def test_a_full_dev_shm_is_one_clear_line_and_no_sigbus():
    script = f"mount -t tmpfs -o size=64k tmpfs /dev/shm && exec {sys.executable} -c \"$0\""
    body = """
import os
from p2p.errors import UserError
from p2p.state import StateWriter
try:
    StateWriter("0123456789abcdef")
except UserError as error:
    print(error.code, os.listdir("/dev/shm"), error)
"""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, body], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    if b"denied" in done.stderr or b"permitted" in done.stderr:
        pytest.skip("needs root, to mount a small /dev/shm")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"no-shared-memory [] no shared memory of ") and done.stdout.count(b"\n") == 1


def test_whatever_stands_in_the_segment_a_reader_answers_or_says_damaged(writer):
    writer.publish(example())
    writer.publish(example())
    memory = segment.attach(writer.name)
    made, whole, chance = layout.layout(), bytes(memory.buf), random.Random(1)
    used = made.slots[whole[made.Header.active.offset]]
    heads = [*range(24), *range(used, used + 40)]
    refused = 0
    for number in range(500):
        memory.buf[:] = whole
        if number < 2 * len(heads):
            memory.buf[heads[number // 2]] ^= chance.choice((1, 0x80, 0xFF))
            assert not survives(writer.name) or heads[number // 2] in range(12, 16), number     # the other slot, spare
        else:
            start = chance.randrange(max(0, used - 50), used + 1500)
            noise = bytes(chance.randrange(256) for _ in range(chance.choice((1, 30, 3000))))
            memory.buf[start:start + len(noise)] = noise
            refused += not survives(writer.name)
    assert refused > 50
    memory.close()


def survives(name):
    try:
        reader = StateReader(name)
    except StateError:
        return False
    try:
        assert isinstance(reader.read(), Snapshot)
        return True
    except StateError:
        return False
    finally:
        reader.close()


def test_hostile_rows_under_a_right_checksum_are_bounded(writer, reader):
    made, memory = layout.layout(), segment.attach(writer.name)
    writer.publish(example())
    base, chance = made.slots[memory.buf[made.Header.active.offset]], random.Random(2)

    rows, size = made.Slot.nodes.offset, len(bytes(made.rows[Node]()))

    def forge(count, tables=b""):
        head = made.Head()
        head.nodes_used, start = count, base + len(bytes(head))
        memory.buf[start:start + len(tables)] = tables
        head.crc = state._checksum([bytes(head), bytes(memory.buf[base + rows:base + rows + count * size])])
        memory.buf[base:base + len(bytes(head))] = bytes(head)

    everything = made.slots[1] - made.slots[0] - len(bytes(made.Head()))
    forge(1024, bytes(chance.randrange(256) for _ in range(everything)))
    with pytest.raises(StateError, match="should stand"):
        reader.read()
    forge(1024, bytes(everything))
    assert len(reader.read().nodes) == 1024
    for count in 1025, 2**32 - 1:
        forge(count)
        with pytest.raises(StateError, match="checksum"):
            reader.read()
    memory.close()


def test_a_segment_that_is_too_small_or_of_another_layout_is_refused(writer, started):
    memory = segment.attach(writer.name)
    memory.buf[8] = 99
    with pytest.raises(StateError, match="layout 99"):
        StateReader(writer.name)
    memory.close()
    small = segment.create(segment.PREFIX + os.urandom(8).hex(), 100)
    with pytest.raises(StateError):
        StateReader(small.name)
    segment.remove(small.name)
    small.close()
    for name in ("nonsense", "p2pstate-0000000000000000"):
        with pytest.raises(StateError):
            StateReader(name)


def test_importing_it_loads_neither_ctypes_nor_multiprocessing(started):
    assert ended(started("print('ctypes' in sys.modules, 'multiprocessing' in sys.modules)")) == ["False", "False"]


def test_a_program_in_c_reads_the_table_by_the_generated_header(writer, tmp_path):
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler")
    (tmp_path / "p2pstate.h").write_text(state.c_header())
    (tmp_path / "read.c").write_text("""
#include <stdio.h>
#include <fcntl.h>
#include <sys/mman.h>
#include "p2pstate.h"
int main(int count, char **words) {
    int fd = shm_open(words[count - 1], O_RDWR, 0);
    p2p_state *state = mmap(0, sizeof *state, PROT_READ, MAP_SHARED, fd, 0);
    p2p_slot *slot = &state->slots[state->header.active];
    printf("%s %d %s", slot->head.me.name, slot->head.nodes_used, slot->nodes[4].name);
    return 0;
}""")
    writer.publish(example())
    subprocess.run([compiler, "-Wall", "-Werror", "read.c", "-o", "read", "-lrt"], cwd=tmp_path, check=True)
    out = subprocess.run([str(tmp_path / "read"), "/" + writer.name], stdout=subprocess.PIPE, check=True).stdout
    assert out.decode() == "ann\u00e9 5 node 4"
