"""The command line as scripts see it: exit codes, JSON keys, one line for each mistake, and every kind of stdin."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.nodes import PROGRAM, Nodes, ended, environment
from tests.waiting import wait_until

SHIPPED = sorted(folder.name for folder in (PROGRAM.parent / "apps").iterdir() if (folder / "main.py").exists())


@pytest.fixture
def nodes(tmp_path):
    made = Nodes(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    """One root for all tests that only ask it."""
    made = Nodes(tmp_path_factory.mktemp("ann"))
    made.up("ann")
    yield made
    made.close()


def one_line(done, code):
    """The one line on stderr of a command that failed with this exit code."""
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    return done.stderr


# -- without a root

def test_the_version_loads_almost_nothing():
    shown = subprocess.run([sys.executable, "-S", "-E", "-X", "importtime", PROGRAM, "--version"], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, encoding="utf-8", check=True)
    assert shown.stdout.startswith("p2pframe ")
    loaded = [line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()]
    ours = [name for name in loaded if name.startswith("p2p")]
    assert ours == ["p2p"]
    assert not {"ssl", "socket", "json", "argparse", "selectors", "subprocess", "logging", "re"} & set(loaded)


@pytest.mark.parametrize("words, code, said", [
    (["nods"], 2, "did you mean nodes?"),
    (["nodes", "--wat"], 2, "did you mean --wait?"),
    (["--hme", "x", "nodes"], 2, "did you mean --home?"),
    (["--home", "", "nodes"], 2, "--home"),
    (["--name", "", "nodes"], 2, "--name"),
    (["--name", "all", "nodes"], 2, "--name"),
    (["--name=-x", "nodes"], 2, "--name"),
    (["--name", "bob@x", "nodes"], 2, "--name"),
    (["ping", "bob", "-c", "9" * 300], 2, "from 1 to 999,999,999"),
    (["ping"], 2, "NODE is missing"),
    (["nodes", "--wait", "many"], 2, "--wait"),
    (["--port", "99999", "up"], 2, "--port"),
    (["--app-ports", "9", "up"], 2, "--app-ports"),
    (["nodes"], 3, "no root runs on"),
    (["id"], 3, "`up`"),
    (["down"], 3, "no root runs on"),
])
def test_mistakes_and_a_missing_root_are_one_line_with_their_exit_code(nodes, words, code, said):
    assert said in one_line(nodes.run("ann", *words), code)
    document = nodes.json("ann", *words, code=code)
    assert set(document["error"]) == {"code", "message"}
    assert document["error"]["code"] == {2: "usage", 3: "no-root"}[code]
    assert not nodes.home("ann").exists()


@pytest.mark.parametrize("words", [["--version"], ["-v", "--version"], ["--help"], ["help"], ["help", "nodes"], ["nodes", "--help"]])
def test_version_and_help_need_no_root(nodes, words):
    done = nodes.run("ann", *words)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout
    assert not nodes.home("ann").exists()


def test_the_version_is_a_document_where_one_is_wanted(nodes):
    for words in (["--version"], ["nodes", "--version"]):
        assert set(nodes.json("ann", *words)) == {"version"}


def test_the_home_is_found_by_option_then_environment_then_platform(nodes):
    for option, env, expected in ((["--home", "here"], {"P2PFRAME_HOME": "/there"}, nodes.folder / "here"),
                                  ([], {"P2PFRAME_HOME": "/there"}, "/there"),
                                  ([], {"XDG_STATE_HOME": str(nodes.folder / "state")}, nodes.folder / "state" / "p2pframe")):
        done = subprocess.run([sys.executable, PROGRAM, *option, "id"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                              env=environment(nodes.folder, **env), cwd=nodes.folder)
        assert done.returncode == 3 and f"no root runs on {expected}:" in done.stderr


@pytest.mark.parametrize("words, said", [(["--home", PROGRAM.parent / "state", "up"], "lies in the program's folder"),
                                         (["--home", "/proc/nowhere", "up"], "/proc")])
def test_a_home_that_cannot_be_one_is_refused_in_one_line(nodes, words, said):
    done = subprocess.run([sys.executable, PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                          env=nodes.env(), timeout=20)
    assert said in one_line(done, 1)


# -- with a root

@pytest.mark.parametrize("words, keys", [
    (["id"], {"id", "name", "port", "version", "home", "pid"}),
    (["stats"], {"uptime_s", "loop", "tcp", "udp", "nodes", "messages", "refused"}),
    (["ping", "ann", "-c", "1"], {"id", "sent", "received", "min_ms", "avg_ms", "max_ms"}),
])
def test_documents_have_the_keys_of_the_contract(ann, words, keys):
    assert set(ann.json("ann", *words)) == keys


@pytest.mark.parametrize("words, keys", [
    (["nodes"], {"id", "name", "state", "self", "verified", "address", "port", "networks", "rtt_ms", "last_seen_s", "version", "label",
                 "first_seen"}),
    (["networks"], {"name", "tag", "kind", "members", "admin", "epoch"}),
])
def test_lists_have_rows_with_the_keys_of_the_contract(ann, words, keys):
    rows = ann.json("ann", *words)
    assert len(rows) == 1 and set(rows[0]) == keys


def test_the_id_is_52_characters_of_lower_case_base32_and_the_pid_is_the_roots(ann):
    found = ann.json("ann", "id")
    assert len(found["id"]) == 52 and set(found["id"]) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert found["name"] == "ann" and found["port"] == ann.port and found["home"] == str(ann.home("ann"))
    os.kill(found["pid"], 0)


@pytest.mark.parametrize("words, code, said, word", [
    (["ping", "nobody"], 1, "nobody: no such node", "no-such-node"),
    (["say", "all", "hello"], 1, "nobody else is here", "nobody"),
    (["say", "ann", "hello"], 1, "this node", "self"),
    (["connect", "127.0.0.1:1"], 1, "cannot reach 127.0.0.1 port 1", "unreachable"),
    (["connect", "no.such.host.invalid"], 1, "no such host", "no-such-host"),
    (["share", "/no/such/folder"], 1, "/no/such/folder", None),
    (["share", "/etc/hostname"], 1, "not a folder", "path"),
    (["share", PROGRAM.parent / "docs"], 1, "no main.py", "no-main"),
    (["unshare", "nothing"], 1, "nothing", "no-such-app"),
    (["sync", "nothing"], 1, "nothing: no such application", "no-such-app"),
    (["nodes", "--wait", "2", "--timeout", "0.2"], 5, "1 node of 2 alive", "timeout"),
    (["up"], 1, "already runs", "running"),
])
def test_failures_are_one_line_or_one_document_with_their_exit_code(ann, words, code, said, word):
    assert said in one_line(ann.run("ann", *words), code)
    error = ann.json("ann", *words, code=code)["error"]
    assert said in error["message"] and (word is None or error["code"] == word)


def test_up_on_a_home_whose_root_runs_names_its_pid(ann):
    pid = ann.json("ann", "id")["pid"]
    assert f"pid {pid}" in one_line(ann.run("ann", "up"), 1)


def test_a_hostile_word_is_shown_harmless(ann):
    said = one_line(ann.run("ann", "ping", "evil\x1b[2J\u202ename"), 1)
    assert "\x1b" not in said and "\u202e" not in said


def test_tables_are_not_cut_in_a_pipe_and_have_colours_only_where_asked(ann):
    assert "\x1b" not in ann.run("ann", "nodes").stdout
    assert "\x1b[1m" in ann.run("ann", "nodes", "--color", "always").stdout
    assert ann.json("ann", "id")["id"] in ann.run("ann", "nodes", "-v").stdout


def test_the_log_is_shown_and_followed(ann):
    lines = ann.json("ann", "log", "-n", "3")
    assert 0 < len(lines) <= 3 and all(line["time"] and line["kind"] and line["text"] for line in lines)
    follower = ann.start(ann.argv("ann", "--json", "log", "--follow"))
    assert json.loads(follower.stdout.readline())["kind"]
    follower.send_signal(signal.SIGINT)
    assert ended(follower) == 130


def test_a_folder_is_shared_listed_and_taken_back(ann):
    folder = ann.folder / "hello"
    folder.mkdir()
    (folder / "main.py").write_text("print('hello')\n")
    shared = ann.json("ann", "share", "hello")           # relative to where the command was given
    assert (shared["name"], shared["files"], shared["bytes"]) == ("hello", 1, 15) and len(shared["version"]) == 64
    row, *shipped = ann.json("ann", "apps")
    assert [(other["name"], other["installed"], other["holders"]) for other in shipped] == [(name, False, []) for name in SHIPPED]
    assert all(set(other) == set(row) for other in shipped) and "ships" in ann.run("ann", "apps").stdout
    assert set(row) == {"name", "version", "publisher", "network", "files", "bytes", "installed", "holders"}
    assert (row["version"], row["installed"], row["publisher"]) == (shared["version"], True, ann.json("ann", "id")["id"])
    [row] = ann.json("ann", "sync")
    assert set(row) == {"name", "version", "bytes", "fetched", "seconds", "peers"} and row["fetched"] == 0
    assert ann.json("ann", "share", folder, "--as", "other")["name"] == "other"
    for name in ("hello", "other"):
        assert ann.run("ann", "unshare", name).returncode == 0
    assert [row["name"] for row in ann.json("ann", "apps")] == SHIPPED


def test_sigint_gives_a_waiting_verb_up_with_130_at_once(ann):
    waiting = ann.start(ann.argv("ann", "nodes", "--wait", "9", "--timeout", "600"))
    wait_until(lambda: ann.json("ann", "stats")["tcp"]["connections"] >= 2, 10.0, "the waiting verb to be in the root")
    began = time.monotonic()
    waiting.send_signal(signal.SIGINT)
    assert ended(waiting) == 130 and waiting.stderr.read() == ""
    assert time.monotonic() - began < 3.0


def test_sigint_works_while_nobody_reads_the_output(ann):
    reader, writer = os.pipe()
    process = subprocess.Popen(ann.argv("ann", "nodes", "--watch", "--json"), stdin=subprocess.DEVNULL, stdout=writer,
                               stderr=subprocess.DEVNULL, env=ann.env())
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)                # the pipe is full before the verb prints
    except BlockingIOError:
        pass
    wait_until(lambda: ann.json("ann", "stats")["tcp"]["connections"] >= 2, 10.0, "the verb to run")
    process.send_signal(signal.SIGINT)
    assert ended(process) == 130
    os.close(reader)
    os.close(writer)


def test_a_reader_that_goes_away_is_no_failure_and_a_full_disk_is_one(ann):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(ann.argv("ann", "nodes"), stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE, env=ann.env())
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(ann.argv("ann", "nodes"), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, env=ann.env())
        assert done.returncode == 1 and done.stderr.count(b"\n") == 1


# -- the life of a root

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_ends_cleanly_on_a_signal(nodes, number):
    root = nodes.up("ann")
    root.send_signal(number)
    assert ended(root) == 0
    assert root.stderr.read() == ""
    assert one_line(nodes.run("ann", "id"), 3)
    assert not (nodes.home("ann") / "root.json").exists()


def test_down_returns_when_the_root_has_ended(nodes):
    root = nodes.up("ann")
    assert nodes.json("ann", "down") == {}
    assert root.wait(5.0) == 0
    again = nodes.up("ann")
    assert nodes.run("ann", "down", "-q").stdout == "" and ended(again) == 0


def test_what_a_killed_root_left_behind_fools_nobody(nodes):
    root = nodes.up("ann")
    root.kill()
    root.wait()
    assert (nodes.home("ann") / "root.json").exists()
    assert one_line(nodes.run("ann", "id"), 3)
    nodes.up("ann")
    assert nodes.json("ann", "id")["name"] == "ann"


def test_up_says_who_it_is_as_a_document_or_nothing_at_all(nodes):
    root = nodes.start(nodes.argv("ann", "--port", nodes.port, "up", "--json"))
    assert json.loads(root.stdout.readline())["port"] == nodes.port
    nodes.run("ann", "down")
    quiet = nodes.start(nodes.argv("ann", "--port", nodes.port, "-q", "up"))
    wait_until(lambda: nodes.run("ann", "id").returncode == 0, 10.0, "the root")
    nodes.run("ann", "down")
    assert ended(quiet) == 0 and quiet.stdout.read() == ""


def test_two_nodes_of_one_computer_see_greet_and_lose_each_other(nodes):
    nodes.meet("ann", "bob")
    watcher = nodes.start(nodes.argv("bob", "--json", "nodes", "--watch"))
    assert {row["name"] for row in json.loads(watcher.stdout.readline())} == {"ann", "bob"}
    rows = {row["name"]: row for row in nodes.json("ann", "nodes")}
    assert rows["bob"]["state"] == "alive" and rows["bob"]["verified"] and not rows["bob"]["self"] and rows["ann"]["self"]
    assert nodes.json("ann", "ping", rows["bob"]["id"][:8], "-c", "2")["received"] == 2
    assert nodes.run("ann", "say", "bob", "two", "words").stdout == "said to bob\n"
    assert "two words" in nodes.run("bob", "log").stdout
    assert nodes.run("ann", "down").returncode == 0
    states = {row["name"]: row["state"] for row in json.loads(watcher.stdout.readline())}
    assert states == {"ann": "left", "bob": "alive"}


# -- stdin

def test_a_script_runs_each_line_the_last_without_newline_too_and_fails_as_its_first_failure(nodes):
    done = nodes.run("ann", "--port", nodes.port, input="# a comment\n\nping nobody\nbad\n  help id\nid # who\nnodes")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("nobody: no such node") and "bad: no such verb" in done.stderr
    assert "usage: id" in done.stdout and "port     " in done.stdout and "(this node)" in done.stdout
    assert one_line(nodes.run("ann", "id"), 3)            # its end was the end of the root that it started


@pytest.mark.parametrize("end", ["", "\n", "\nhelp up\n"])
def test_a_script_line_that_is_too_long_is_an_error_and_no_silence(nodes, end):
    done = nodes.run("ann", input="say all " + "x" * 70_000 + end)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "65,536 bytes" in done.stderr
    assert ("usage: up" in done.stdout) == ("help" in end)


def test_a_script_beside_a_running_root_is_its_guest(ann):
    done = ann.run("ann", "--json", input="id\nnodes --wait 1\nexit\nbad")
    assert done.returncode == 0
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["pid"] == ann.json("ann", "id")["pid"] and second[0]["id"] == first["id"]


def test_a_script_answers_line_by_line_to_whoever_holds_the_other_end(ann):
    process = ann.start(ann.argv("ann", "--json"), stdin=subprocess.PIPE)
    for _ in range(2):
        process.stdin.write("id\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["name"] == "ann"
    process.stdin.close()
    assert ended(process) == 0


def test_a_script_file_can_bring_a_root_up_and_down(nodes):
    path = nodes.folder / "script"
    path.write_text("up\nid\ndown")
    with open(path) as script:
        done = nodes.run("ann", "--port", nodes.port, "--json", stdin=script)
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert documents[0] == documents[1] and documents[2] == {}


@pytest.mark.parametrize("closed", [False, True])
def test_an_empty_or_closed_stdin_starts_nothing_and_says_so(nodes, closed):
    line = " ".join(map(str, nodes.argv("ann"))) + (" <&-" if closed else " </dev/null")
    done = subprocess.run(["sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=nodes.env(), encoding="utf-8", timeout=20)
    assert "there are no commands on stdin" in one_line(done, 0)
    assert not nodes.home("ann").exists()


def test_all_three_closed_descriptors_do_no_harm(nodes):
    nodes.up("ann")
    line = " ".join(map(str, nodes.argv("ann", "id"))) + " <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], env=nodes.env(), timeout=20).returncode == 0
    key = (nodes.home("ann") / "identity.key").read_bytes()
    assert key.startswith(b"-----BEGIN") and key.rstrip().endswith(b"-----")


def test_sigint_ends_a_script_with_130_and_its_root_with_it(nodes):
    process = nodes.start(nodes.argv("ann", "--port", nodes.port), stdin=subprocess.PIPE)
    process.stdin.write("id\nnodes --wait 9\nid\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith("id ")
    process.send_signal(signal.SIGINT)
    assert ended(process) == 130
    assert one_line(nodes.run("ann", "id"), 3)


def test_sigterm_ends_a_script_with_143_and_its_root_says_goodbye(nodes):
    nodes.up("bob")
    process = nodes.start(nodes.argv("ann", "--port", nodes.port), stdin=subprocess.PIPE)
    process.stdin.write("nodes --wait 2\nnodes --wait 9\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith("NAME")
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 143
    wait_until(lambda: "left" in {row["state"] for row in nodes.json("bob", "nodes")}, 5.0, "the goodbye")


def test_a_root_that_waits_for_a_stubborn_job_ends_at_once_when_it_is_told_twice(nodes):
    folder = nodes.folder / "stubborn"
    folder.mkdir()
    (folder / "main.py").write_text("import os, signal, time\nfor number in (signal.SIGHUP, signal.SIGTERM):\n"
                                    "    signal.signal(number, lambda *_: os.write(1, b'heard\\n'))\nprint('stays', flush=True)\n"
                                    "while True:\n    time.sleep(60)\n")
    root = nodes.up("ann")
    nodes.json("ann", "share", folder)
    nodes.json("ann", "run", "stubborn")
    wait_until(lambda: "stays" in nodes.run("ann", "output", "1").stdout, 10.0, "the job")
    pid = nodes.json("ann", "jobs")[0]["pid"]
    began = time.monotonic()
    root.send_signal(signal.SIGTERM)
    wait_until(lambda: "heard" in nodes.run("ann", "output", "1").stdout, 3.0, "the job to be asked to end")
    root.send_signal(signal.SIGINT)
    assert ended(root) == 130 and time.monotonic() - began < 4.5      # the job would have had 5 s
    os.kill(pid, signal.SIGKILL)


def test_the_last_words_of_a_program_that_nobody_reads_harm_nobody():
    for line in ("--version >&-", "--version | true", "help | true", "help >&-"):
        done = subprocess.run(["sh", "-c", f"{sys.executable} {PROGRAM} {line}"], stderr=subprocess.PIPE, timeout=20)
        assert (done.returncode, done.stderr) == (0, b""), line
