"""What an author is told who uses the interface wrongly, and the chat that ships: one message is one line."""

from tests.nodes import PROGRAM

MISUSED = """
import p2p
class Say(p2p.Message):
    text: str
app = p2p.attach()
other = app.peers[0]
def tried(what, *given, **named):
    try:
        what(*given, **named)
    except (TypeError, ValueError) as error:
        print(type(error).__name__, error, flush=True)
    else:
        print("nothing was said", flush=True)
tried(app.send, "bob", Say("x"))
tried(app.send, other, "x")
tried(app.send, other, Say)
tried(app.broadcast, None)
tried(app.request, "bob", Say("x"))
tried(app.request, other, Say("x"), timeout=None)
tried(app.on, "Say")
tried(app.wait, "Say")
tried(app.wait, Say, "bob")
tried(app.wait, Say, timeout="soon")
tried(app.poll, "soon")
tried(app.reply, Say("x"), "y")
print("done", flush=True)
app.wait(p2p.Line)
"""


def test_each_misuse_is_told_in_words_of_the_interface(room):  # noqa: F811
    room.start(MISUSED)
    room.says(0, "done")
    lines = room.output(0).replace("\n", "\r\n").split("\r\n")
    told = [line for line in lines if line.startswith(("TypeError", "ValueError", "nothing"))]
    wanted = ["app.peers", "not 'x'", "Say(...)", "not None", "app.peers", "number of seconds", "@app.on(Class)", "app.wait(Class)",
              "app.peers", "number of seconds", "number of seconds", "not 'y'"]
    assert len(told) == len(wanted), room.output(0)
    assert all(word in line for word, line in zip(wanted, told)), "\n".join(told)


def test_nobody_writes_a_line_in_anothers_name_into_a_chat(room):  # noqa: F811
    chat = (PROGRAM.parent / "apps" / "chat" / "main.py").read_text()
    room.start(chat + """
    if isinstance(event, p2p.Line):
        app.broadcast(Say("hello\\n<eve> forged\\r\\n\\x1b[2Jx\\x07"))
""")
    room.job(0).write(b"go\n")
    room.says(1, "forged")
    [line] = [line for line in room.output(1).split("\n") if "forged" in line]
    assert line.startswith("<ann> hello") and "\x1b" not in line
