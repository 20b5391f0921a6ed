"""Consent by accident: what a person types for something else, before, while and after a hostile request comes, is no yes."""
import contextlib
import os
import time

import pytest

from p2p import proto
from p2p.trust.ecc import parse_node_id
from tests.attacks.hostile import LAN, Member, Wire
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

HOME = "typist"
MEANT_FOR_SOMETHING_ELSE = ("y\r", "yes\r", "Y\r", "\r", "1\r", "allow\r", "allow 99\r", "allow eve\r", "allow -1\r",
                            "allow 1x\r", "ok\r", " \r")


def invite(line, me, session, arguments):
    """A request of this member to run something with it."""
    ends = [dict(id=node, name="x", status=proto.ASKED, address="10.77.9.1", port=1, exit=0) for node in (line.member.id, me)]
    line.send(proto.INVITE, session=session, app="chat", version=os.urandom(32), publisher=line.member.id, network=LAN.tag, files=1,
              bytes=1, arguments=arguments, roster=ends, port=1, token=bytes(32), expires_s=60)


def test_what_was_typed_for_something_else_allows_nothing(lab):
    host = lab.hosts[2]
    wire = Wire(lab.hosts[1].namespace, host.address)
    shell = host.terminal(host.p2p_argv("--name", "typist", home=HOME), columns=120)
    shell.wait_for("typist> ")
    eve = Member("eve\u202e\x1b[2J")
    with contextlib.closing(eve.join(wire)) as line:
        me = parse_node_id(host.json("id", home=HOME)["id"])
        shell.type("y\ryes\ry")                                          # typed ahead, the last one without its Enter
        invite(line, me, 1, ["\x1b[2J\x1b[Hy", "--always", "; allow 1", "\r\nallow 1\r\n"])
        shell.wait_for("wants to run")
        for words in MEANT_FOR_SOMETHING_ELSE:
            shell.type(words)
        wait_until(lambda: "ok: no such verb" in shell.output, 10.0, "the last of the words", lambda: shell.text())
        rows = host.json("requests", home=HOME)
        assert [row["request"] for row in rows] == [1] and host.json("jobs", home=HOME) == []
        assert "\u202e" not in shell.output and b"\x1b[2J\x1b[Hy" not in bytes(shell.raw)
        time.sleep(0.1)
        line.send(proto.END, session=1)                                  # withdrawn: a late yes allows nothing either
        wait_until(lambda: host.json("requests", home=HOME) == [], 5.0, "the request to go")
        shell.type("allow 1\r")
        shell.wait_for("no request 1 is open")
        assert host.json("jobs", home=HOME) == []
    log = (host.home(HOME) / "log").read_text("utf-8")
    assert " asked: request=1 " in log and " withdrawn: request=1 " in log and " allow: " not in log
    shell.close()
