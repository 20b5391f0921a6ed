"""Jobs: real processes on real terminals; their output is bounded, their end is told, and secrets stay out of sight."""

import os
import signal
import subprocess
import sys
import types

import pytest

from p2p import jobs, limits, system
from p2p.errors import UserError
from p2p.jobs import EXITED, Jobs, environment, how_it_ended
from tests.bench import Bench
from tests.nodes import PROGRAM
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(system.WINDOWS, reason="terminals of POSIX")

# Stands for p2pframe.py: reads the bootstrap as the child mode does, and does what it says
ENTRY = """
import json, os, sys
with os.fdopen(int(sys.argv[2]), "rb") as pipe:
    told = json.loads(pipe.read())
exec(told["code"])
"""


def is_gone(pid):
    """Has this process ended? A zombie that nobody has reaped yet has."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return ") Z " in stat.read()
    except OSError:
        return True


class Bed(Bench):
    def __init__(self, folder):
        super().__init__()
        entry = folder / "entry.py"
        entry.write_text(ENTRY)
        self.folder = folder
        self.ended = []
        self.jobs = Jobs(self.loop, str(entry), self.ended.append)

    def start(self, code, **more):
        session = types.SimpleNamespace(app="test")
        return self.jobs.start(session, dict(more, code=code), str(self.folder))

    def run(self, code, **more):
        job = self.start(code, **more)
        self.until(lambda: job.state == EXITED)
        return job


@pytest.fixture
def bed(tmp_path):
    bed = Bed(tmp_path)
    yield bed
    for job in bed.jobs:
        if job.state != EXITED:
            job.process.signal(signal.SIGKILL)
    bed.until(lambda: all(job.state == EXITED for job in bed.jobs))
    bed.loop.close()


def test_a_job_prints_ends_and_its_end_comes_after_its_output(bed):
    job = bed.run("print('hello', os.getcwd() == told['cwd']); sys.exit(5)", cwd=str(bed.folder.resolve()))
    assert job.output() == b"hello True\r\n" and job.exit == 5 and bed.ended == [job] and job.number == 1


def test_whoever_looks_on_cannot_keep_a_job_from_ending(bed):
    """A shell whose terminal is gone raises when it is shown something."""
    job = bed.start("print('x' * 100); sys.exit(4)")

    def breaks(*data):
        raise OSError("the terminal is gone")
    seen = []
    job.watchers += [breaks, seen.append]
    job.on_end += [breaks, lambda: seen.append("end")]
    bed.until(lambda: bed.ended)
    assert b"".join(seen[:-1]).strip() == b"x" * 100 and seen[-1] == "end" and job.exit == 4
    bed.events.clear()


def test_a_program_that_never_attaches_counts_as_running_after_a_while(bed, monkeypatch):
    monkeypatch.setattr(jobs, "UP_AFTER", 0.2)
    job = bed.start("sys.stdin.readline()")
    assert job.state == "starting"
    bed.until(lambda: job.state == "running")
    job.write(b"\n")
    bed.until(lambda: job.state == EXITED)
    short = bed.run("sys.exit(3)")
    bed.loop.turn(0.3)
    assert (short.state, short.exit) == (EXITED, 3)


def test_an_end_is_told_in_words():
    assert [how_it_ended(code) for code in (0, 3, -signal.SIGKILL, -1073741510)] == [
        "exited with 0", "exited with 3", "was killed by signal 9 (SIGKILL)", "exited with -1073741510"]


def test_a_bootstrap_larger_than_a_pipe_arrives_whole(bed):
    job = bed.run("print(len(told['roster']))", roster="x" * 900_000)
    assert job.output() == b"900000\r\n"


def test_output_is_bounded_and_what_was_dropped_is_counted(bed):
    job = bed.run("for i in range(3000): print(str(i).zfill(1000))")
    assert len(job.output()) == limits.JOB_OUTPUT
    assert job.dropped == 3000 * 1002 - limits.JOB_OUTPUT
    assert job.output().endswith(b"2999\r\n") and len(job.replay()) == limits.JOB_REPLAY


def test_unseen_output_is_counted_until_somebody_watches(bed):
    job = bed.start("print('one', flush=True); input(); print('two')")
    bed.until(lambda: b"one" in job.output())
    assert job.unseen == len(job.output())
    seen = []
    job.watchers.append(seen.append)
    before = job.unseen
    job.write(b"go\n")
    bed.until(lambda: job.state == EXITED)
    assert b"two" in b"".join(seen) and job.unseen == before


def test_a_job_that_ignores_being_asked_is_killed(bed, monkeypatch):
    monkeypatch.setattr(limits, "KILL_AFTER", 0.3)
    job = bed.start("import signal, time\nfor n in (1, 15): signal.signal(n, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(100)")
    bed.until(lambda: b"deaf" in job.output())
    bed.jobs.kill(job)
    bed.until(lambda: job.state == EXITED)
    assert job.exit == -signal.SIGKILL


def test_stop_ends_all_jobs_with_their_children(bed):
    jobs = [bed.start("import subprocess, time\nchild = subprocess.Popen(['sleep', '100'])\nprint(child.pid, flush=True)\ntime.sleep(100)")
            for _ in range(3)]
    bed.until(lambda: all(job.output().strip() for job in jobs))
    task = bed.loop.start(bed.jobs.stop())
    bed.until(lambda: task.done)
    assert [job.state for job in jobs] == [EXITED] * 3

    bed.until(lambda: all(is_gone(int(job.output().split()[0])) for job in jobs))


def test_nothing_is_started_any_more_when_all_are_being_ended(bed):
    stopping = bed.loop.start(bed.jobs.stop())
    bed.until(lambda: stopping.done)
    with pytest.raises(UserError, match="stopping"):
        bed.start("pass")


def test_nothing_of_the_bootstrap_stands_in_arguments_or_environment(bed, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "environment-secret")
    job = bed.run("print(sys.argv[1:], sorted(os.environ))", token="pipe-secret")
    shown = job.output().decode()
    assert "secret" not in shown and "MY_TOKEN" not in shown and "'PATH'" in shown


def test_the_child_gets_no_descriptor_that_is_not_meant_for_it(bed):
    listening = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    for fd in listening:
        os.set_inheritable(fd, True)
    job = bed.run("print(sorted(int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)))"
                  if sys.platform.startswith("linux") else "print([0, 1, 2])")
    for fd in listening:
        os.close(fd)
    assert job.output().strip() == b"[0, 1, 2]"


def test_ended_jobs_are_kept_up_to_a_bound_and_running_ones_are_bounded(bed, monkeypatch):
    monkeypatch.setattr(limits, "JOBS_KEPT", 2)
    monkeypatch.setattr(limits, "MAX_JOBS", 1)
    for _ in range(4):
        bed.run("pass")
    assert [job.number for job in bed.jobs] == [3, 4]
    bed.start("import time; time.sleep(100)")
    with pytest.raises(Exception, match="jobs run here already"):
        bed.start("pass")


def test_what_a_child_finds_in_its_environment():
    kept = environment({"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET": "x", "TERM": "dumb", "P2PFRAME_HOME": "/h", "SSH_AUTH_SOCK": "/s"})
    assert kept == {"PATH": "/bin", "LC_ALL": "C", "TERM": "xterm-256color"}


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc")
def test_a_job_that_cannot_be_started_is_refused_in_one_line_and_costs_nothing(bed):
    bed.run("pass")                              # what is made once is there
    before = open_files()
    for _ in range(3):
        with pytest.raises(UserError):
            bed.jobs.start(types.SimpleNamespace(app="test"), {}, str(bed.folder / "absent"))
    assert open_files() == before and len(list(bed.jobs)) == 1 and bed.run("pass").number == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc")
def test_where_no_descriptor_is_left_the_person_is_told_and_the_root_goes_on(bed):
    import resource
    bed.run("pass")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    holes = [os.open(os.devnull, os.O_RDONLY)]
    while holes[-1] < max(map(int, os.listdir("/proc/self/fd"))) - 1:
        holes.append(os.open(os.devnull, os.O_RDONLY))
    said = []
    for room in range(40):
        top = max(map(int, os.listdir("/proc/self/fd")))       # that of the listing itself
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + room, hard))
        try:
            job = bed.start("pass")
            break
        except UserError as error:
            said.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in holes:
        os.close(fd)
    bed.until(lambda: job.state == EXITED)
    assert len(said) > 3 and not any("\n" in line for line in said)


ROOT = """
import sys
sys.path.insert(0, sys.argv[1])
from types import SimpleNamespace
from p2p.jobs import Jobs
from p2p.loop import Loop
loop = Loop()
jobs = Jobs(loop, sys.argv[1] + "/p2pframe.py", lambda job: None)
told = {"folder": sys.argv[2], "app": "test", "args": [], "framework": sys.argv[1]}
job = jobs.start(SimpleNamespace(app="test"), told, sys.argv[2])
job.watchers.append(lambda data: print(data.decode(), end="", flush=True))
loop.run()
"""


def test_a_killed_root_takes_its_jobs_and_their_children_along(tmp_path):
    (tmp_path / "main.py").write_text("import subprocess, time\nchild = subprocess.Popen(['sleep', '100'])\n"
                                      "import os\nprint(os.getpid(), child.pid, flush=True)\ntime.sleep(100)")
    root = subprocess.Popen([sys.executable, "-c", ROOT, str(PROGRAM.parent), str(tmp_path)], stdout=subprocess.PIPE, encoding="utf-8")
    try:
        pids = [int(word) for word in root.stdout.readline().split()]
        assert len(pids) == 2 and not any(map(is_gone, pids))
    finally:
        root.kill()
        root.wait()
        root.stdout.close()
    wait_until(lambda: all(map(is_gone, pids)), 5.0, "the job and its child to end")
