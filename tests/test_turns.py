"""Who gives the program its turns: functions that are called every so often, and event loops of others. Real processes."""


def test_what_is_done_every_so_often_is_done_in_each_form_and_never_inside_another_handler(room):
    room.start("""
import p2p, time
class Say(p2p.Message):
    text: str
app = p2p.attach()
inside, calls, began = [], [], time.monotonic()
@app.every(0.05)
def tick():
    assert not inside
    calls.append(time.monotonic() - began)
@app.every(0.01)
def once():
    print("once", flush=True)
    return False
while len(calls) < 5:
    app.poll(0.5)
inside.append(1)
time.sleep(0.3)
try:
    app.wait(Say, timeout=0.2)
except p2p.Timeout:
    inside.clear()
late = len(calls)
assert app.poll(0) is None and len(calls) == late + 1
print("left out", [round(at / 0.05) for at in calls[:5]] == [1, 2, 3, 4, 5] or calls, flush=True)
for bad in (0, -1, "x", float("inf"), None):
    try:
        app.every(bad)
    except ValueError as error:
        print(error, flush=True)
@app.every(0.05)
def stop():
    if app.is_host:
        app.end()
app.run()
print("over", flush=True)
""")
    for node in (0, 1):
        room.says(node, "over")
        assert "left out True" in room.output(node) and room.output(node).count("once") == 1
        assert room.output(node).count("a number of seconds") == 5


def test_another_event_loop_can_wait_for_the_app(room):
    room.start("""
import p2p, select
class Say(p2p.Message):
    text: str
app = p2p.attach(wait=0)
while not app.has_ended:
    select.select([app.fileno()], [], [], 0.25)
    for event in iter(app.poll, None):
        print(repr(event), flush=True)
        if isinstance(event, p2p.Line):
            app.broadcast(Say(event.text))
        if isinstance(event, Say) and event.text == "end":
            app.end()
""")
    for node in (0, 1):
        room.says(node, "Join")
    room.job(0).write(b"hello\n")
    room.says(1, "Say(text='hello')")
    room.job(0).write(b"end\n")
    room.until(lambda: room.job(0).exit == room.job(1).exit == 0, what="the end")
