"""A chat: what you type, everybody reads. `run chat NODE...` starts it; Ctrl-D leaves.

It is also the shortest complete application: what is said is a class, everything that happens is an event,
and the loop ends when the session does.
"""

import p2p


class Say(p2p.Message):
    text: str


app = p2p.attach("chat")             # back when the roster of the invitation is connected or given up
for event in app:
    if isinstance(event, p2p.Line):          # a line the user typed
        app.broadcast(Say(event.text))
    elif isinstance(event, Say):
        app.print(f"<{event.sender.name}> {p2p.clean(event.text, 4096)}")      # one line, whatever its sender wrote
    elif isinstance(event, (p2p.Join, p2p.Leave)):
        app.print(f"* {event.sender.name} {event.verb}")
    elif isinstance(event, p2p.Eof):
        app.quit()
