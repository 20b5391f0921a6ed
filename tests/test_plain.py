"""A console without a terminal: pipes, files, /dev/null, closed descriptors; output that blocks nobody."""

import os
import subprocess
import sys

import pytest

from p2p import limits, system
from p2p.terminal.console import open_console
from p2p.terminal.output import Output
from p2p.terminal.plain import MAX_LINE, PlainConsole
from tests.bench import Bench


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.loop.close()


@pytest.mark.parametrize("text, lines", [
    (b"", []), (b"one", ["one"]), (b"one\ntwo\n", ["one", "two"]), (b"one\r\n\r\ntwo", ["one", "", "two"]),
    (b"\xef\xbb\xbfone\n\xff\n", ["one", "\ufffd"]), (b"a" * MAX_LINE + b"\n" + b"b" * (MAX_LINE + 1) + b"\nc", ["a" * MAX_LINE, "c"])])
@pytest.mark.parametrize("kind", ["pipe", "file", "thread"])
def test_lines_of_pipes_and_files_come_one_by_one_and_then_the_end(bench, tmp_path, monkeypatch, kind, text, lines):
    if kind == "thread":
        monkeypatch.setattr(system, "WINDOWS", True)
    if kind == "file":
        (tmp_path / "script").write_bytes(text)
        fd = os.open(str(tmp_path / "script"), os.O_RDONLY)
    else:
        fd, writer = os.pipe()
    out = os.open(str(tmp_path / "out"), os.O_CREAT | os.O_WRONLY)
    console = PlainConsole(bench.loop, fd, out, "> ", *bench.handlers())
    if kind != "file":
        for at in range(0, len(text), 50_000):
            os.write(writer, text[at:at + 50_000])
            bench.loop.turn(0.05)
        os.close(writer)
    bench.until(lambda: bench.events[-1:] == ["EOF"])
    assert bench.events == lines + ["EOF"]
    console.close()
    assert ("left out" in (tmp_path / "out").read_text()) == (len(text) > MAX_LINE)
    os.close(fd), os.close(out)


def test_dev_null_and_a_closed_stdin_are_an_end(bench):
    for fd in (os.open(os.devnull, os.O_RDONLY), 999):
        bench.events.clear()
        out = os.open(os.devnull, os.O_WRONLY)
        console = open_console(bench.loop, fd, out, "> ", *bench.handlers(), on_interrupt=None)
        bench.until(lambda: bench.events == ["EOF"])
        console.print("into nothing")
        console.close()
        os.close(out)


def test_a_suspended_script_waits_without_turning(bench, tmp_path):
    (tmp_path / "script").write_bytes(b"one\ntwo\nthree")
    fd = os.open(str(tmp_path / "script"), os.O_RDONLY)
    out = os.open(os.devnull, os.O_WRONLY)
    console = PlainConsole(bench.loop, fd, out, "> ", lambda line: (bench.events.append(line), console.suspend()), bench.handlers()[1])
    for expected in ("one", "two", "three"):
        bench.until(lambda: bench.events[-1:] == [expected])
        bench.loop.turn(0)
        assert bench.idle(0.05) and bench.events[-1] == expected
        console.resume()
    bench.until(lambda: bench.events[-1:] == ["EOF"])
    console.close()
    os.close(fd), os.close(out)


def test_while_suspended_somebody_else_may_read(bench):
    fd, writer = os.pipe()
    out = os.open(os.devnull, os.O_WRONLY)
    console = PlainConsole(bench.loop, fd, out, "> ", lambda line: (bench.events.append(line), console.suspend()), bench.handlers()[1])
    os.write(writer, b"attach\n")
    bench.until(lambda: bench.events == ["attach"])
    os.write(writer, b"for the job")
    assert bench.idle(0.05) and os.read(fd, 100) == b"for the job"
    os.close(writer)
    console.resume()
    bench.until(lambda: bench.events == ["attach", "EOF"])
    console.close()
    os.close(fd), os.close(out)


def test_nothing_is_read_while_the_output_is_not(bench, tmp_path):
    (tmp_path / "script").write_bytes(b"line\n" * 50_000)
    stdin = os.open(str(tmp_path / "script"), os.O_RDONLY)
    fd, writer = os.pipe()
    console = PlainConsole(bench.loop, stdin, writer, "", lambda line: (bench.events.append(line), console.print("x" * 100)),
                           bench.handlers()[1])
    bench.until(lambda: console._pending() > limits.LOW_WATER)
    for _ in range(5):
        bench.loop.turn(0.01)
    assert len(bench.events) < 30_000
    os.set_blocking(fd, False)
    got = []

    def read():
        try:
            got.append(len(os.read(fd, 65536)))
        except BlockingIOError:
            pass
        return sum(got) == 101 * 50_000
    bench.until(read)
    bench.until(lambda: bench.events[-1] == "EOF")
    console.close()
    os.close(fd), os.close(writer), os.close(stdin)


def test_a_slow_reader_of_a_pipe_gets_everything_and_blocks_nobody(bench):
    fd, writer = os.pipe()
    output = Output(bench.loop, writer, 1 << 24)
    assert os.get_blocking(writer)
    output.write(b"x" * 1_000_000)
    bench.loop.turn(0)
    assert output.pending > 900_000
    got = 0
    while got < 500_000:
        bench.loop.turn(0)
        got += len(os.read(fd, 3000))
    reader = subprocess.Popen([sys.executable, "-c", "import sys; print(len(sys.stdin.buffer.read()))"], stdin=fd, stdout=subprocess.PIPE)
    os.close(fd)
    output.finish(None)
    os.close(writer)
    assert got + int(reader.communicate()[0]) == 1_000_000


def test_a_reader_that_has_gone_and_a_full_disk_are_noted_once(bench):
    fd, writer = os.pipe()
    output = Output(bench.loop, writer, 1 << 20)
    os.close(fd)
    output.write(b"x")
    bench.until(lambda: isinstance(output.error, BrokenPipeError))
    assert output.write(b"y") is False and output.pending == 0
    output.finish(None)
    os.close(writer)
    if os.path.exists("/dev/full"):
        full = os.open("/dev/full", os.O_WRONLY)
        output = Output(bench.loop, full, 1 << 20)
        assert output.write(b"x") is False and output.error is not None
        os.close(full)


def test_output_beyond_the_bound_is_refused_whole_and_counted(bench, monkeypatch):
    monkeypatch.setattr("p2p.terminal.plain.BOUND", 100_000)
    fd, writer = os.pipe()
    stdin = os.open(os.devnull, os.O_RDONLY)
    console = PlainConsole(bench.loop, stdin, writer, "", *bench.handlers())
    for _ in range(20):
        console.print("x" * 9999)
    lost = console._lost
    assert lost == 10
    got = bytearray()
    while console._output.pending or len(got) < (20 - lost) * 10_000:
        bench.loop.turn(0)
        got += os.read(fd, 65536)
    console.print("after")
    bench.until(lambda: not console._output.pending)
    got += os.read(fd, 65536)
    assert got.endswith(b"... %d lines were lost: nobody read them\nafter\n" % lost)
    console.close()
    os.close(fd), os.close(writer), os.close(stdin)
