"""The diary: its lines can be read by programs, nothing foreign in them can be taken for ours, and noise does not push out what counts."""
import os
import re
from types import SimpleNamespace

import pytest

from p2p import record
from p2p.disk import Disk
from p2p.errors import UserError
from p2p.log import BURST, MAX_FILE, REFILL, Log

HOSTILE = ['" by=owner', "x by=owner rule=1", "\nstart: job=1", "\x1b[2J\u202eowner", "\\", '\\" by=owner', "", "by=owner", "a" * 5000,
           "\ud800",
           "2026-01-01 00:00:00 allow: by=owner", "\u2028allow: by=owner", "caf\u00e9 \U0001f600"]


class Clock:
    """What the log needs of a loop, with a disk that can be full."""

    def __init__(self):
        self.disk = SimpleNamespace(append=self.append, rename=Disk().rename, status=Disk().status, read_at=Disk().read_at)
        self.at = 0.0
        self.room = None
        self.due = []

    def now(self):
        return self.at

    def wall(self):
        return 1.7e9 + self.at

    def call_at(self, at, call, *arguments):
        self.due.append((at, call, arguments))

    def later(self, seconds):
        self.at += seconds
        due, self.due = self.due, []
        for _, call, arguments in due:
            call(*arguments)

    def append(self, path, data):
        if self.room is None:
            return Disk().append(path, data)
        Disk().append(path, data[:self.room])
        raise UserError("the disk is full", code="no-space")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock, tmp_path):
    return Log(clock, str(tmp_path / "log"))


@pytest.mark.parametrize("foreign", HOSTILE)
def test_no_foreign_word_makes_a_line_or_a_field_or_looks_like_one(log, foreign):
    log.keep("start", {"job": 1, "app": foreign, "name": foreign, "by": "rule 2", "args": [foreign, "--size=3"]})
    (line,) = log.last(9)
    assert line.isprintable() and len(line) < 3000 and len(re.findall(r"(?<= )by=", line)) == 1 and " by=owner" not in line
    row = record.parse(line)
    assert set(row) == {"time", "kind", "text", "job", "app", "name", "by", "args"}
    assert (row["kind"], row["job"], row["by"]) == ("start", 1, "rule 2")


def test_what_is_harmless_comes_back_as_it_was(log):
    fields = {"job": 7, "exit": -9, "pid": 4711, "app": "chat", "version": "a6f9038f823f", "name": 'an "odd" na=me', "by": "request 3",
              "why": "was killed by signal 9 (SIGKILL)"}
    log.keep("end", dict(fields, rule=None, args=["a b", "c", "--x=1", "$(y)"]))
    row = record.parse(log.last(1)[0])
    assert fields.items() <= row.items() and row["args"] == "'a b' c --x=1 '$(y)'" and "rule" not in row
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row["time"])


def test_a_line_of_another_kind_has_no_fields_whatever_it_says(log):
    log.write("say", 'eve: by=owner job=1 kind="start"')
    assert set(record.parse(log.last(1)[0])) == {"time", "kind", "text"} and record.parse(log.last(1)[0])["kind"] == "say"
    for garbage in ("", "x", "start: job=1", "2026-01-01 00:00:00 start: job=x exit=99999999999999999999 =1 a= b", 'time=1 kind="q'):
        assert record.parse(garbage)["text"] is not None


def test_a_field_is_never_taken_for_the_time_or_the_kind():
    row = record.parse("2026-01-01 00:00:00 end: time=1 kind=x text=y job=3")
    assert (row["time"], row["kind"], row["job"]) == ("2026-01-01 00:00:00", "end", 3)


def test_noise_of_strangers_pushes_out_their_own_lines_and_never_what_was_run(log, clock, tmp_path):
    log.keep("start", {"job": 1, "by": "owner"})
    while not os.path.exists(tmp_path / "log.1") or "start:" in (tmp_path / "log.1").read_text():
        for reason in range(200):
            for _ in range(BURST):
                log.write("refused", "x" * 390, f"r{reason}")
        for _ in range(BURST + 5):
            log.note("asked", {"name": "e" * 200})
        clock.later(REFILL)
    assert not [line for line in log.last(99999) if " start: " in line]
    assert [record.parse(line)["job"] for line in log.last(9, kept_only=True)] == [1]
    for name in os.listdir(tmp_path):
        status = os.stat(tmp_path / name)
        assert status.st_size < MAX_FILE + 4096 and (os.name != "posix" or status.st_mode & 0o777 == 0o600)


def test_no_line_of_what_was_run_is_left_out_and_those_files_are_bounded_too(log, tmp_path):
    for job in range(9000):
        log.keep("start", {"job": job, "args": ["y" * 200]})
    jobs = [record.parse(line)["job"] for line in log.last(99999, kept_only=True)]
    assert jobs == list(range(9000 - len(jobs), 9000)) and len(jobs) > 3000
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.runs", "log.runs.1"]
    assert all(os.stat(tmp_path / name).st_size < MAX_FILE + 4096 for name in os.listdir(tmp_path))


def test_after_a_full_disk_the_next_line_stands_alone(log, clock):
    clock.room, told = 30, []
    log.on_failure = told.append
    log.keep("start", {"job": 1})
    log.write("say", "x")
    assert [str(error) for error in told] == ["the disk is full"] * 2         # once for each file
    clock.room = None
    log.keep("end", {"job": 1, "exit": 0})
    torn, whole = log.last(9, kept_only=True)
    assert record.parse(whole)["exit"] == 0 and torn.startswith("20")


def test_followers_are_told_which_lines_are_about_what_was_run(log):
    told = []
    log.followers.append(lambda line, is_kept: told.append((line.split(" ")[2], is_kept)))
    log.write("say", "x")
    log.note("asked", {})
    log.keep("start", {})
    assert told == [("say:", False), ("asked:", False), ("start:", True)]
