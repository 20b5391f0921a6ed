"""Some nodes in one process that have met, and applications in processes of their own on them. The fixture `room` makes one."""

from p2p.loop import Loop
from p2p.node import Node
from tests.nodes import PROGRAM, free_port

NAMES = ("ann", "bob", "eve")


class Room:
    """Some nodes that have met, and applications among them. Everybody allows everything: consent is tested elsewhere."""

    def __init__(self, folder, count, names=NAMES):
        self.loop = Loop()
        self.folder = folder
        port = free_port()
        self.nodes = [Node(self.loop, str(folder / home), name, port, entry=str(PROGRAM)) for home, name in zip(NAMES[:count], names)]
        for node in self.nodes:
            self.do(node.start())
        self.until(lambda: all(node.neighbours.table.alive() == count for node in self.nodes))
        self.until(lambda: all(node.link(other.identity.node_id) for node in self.nodes for other in self.nodes if other is not node))

    def until(self, condition, seconds=20.0, what="it"):
        end = self.loop.now() + seconds
        while not condition():
            assert self.loop.now() < end, f"waited in vain for {what}; outputs: {self.outputs()}"
            self.loop.turn(0.02)

    def do(self, coroutine, seconds=20.0):
        task = self.loop.start(coroutine)
        self.until(lambda: task.done, seconds)
        return task.result()

    def start(self, source, *arguments, others=True):
        """Run an application of this source on all nodes; the session at the first."""
        folder = self.folder / "app"
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(source)
        host = self.nodes[0]
        self.do(host.offers.share(str(folder)))
        invited = [node for node in self.nodes[1:] if others]
        before = {node: len(list(node.launcher.jobs)) for node in self.nodes}
        session = self.do(host.launcher.run("app", [node.identity.node_id for node in invited], list(arguments)))
        for node in invited:
            self.until(lambda: node.asking.request_rows(), what="the request")
            node.asking.allow(node.asking.request_rows()[0]["request"])
        self.until(lambda: all(len(list(node.launcher.jobs)) > before[node] for node in [host, *invited]), what="the jobs")
        return session

    def job(self, node):
        return list(self.nodes[node].launcher.jobs)[-1]

    def output(self, node):
        return self.job(node).output().decode("utf-8", "replace").replace("\r\n", "\n")

    def outputs(self):
        return [[job.output() for job in node.launcher.jobs] for node in getattr(self, "nodes", [])]

    def says(self, node, text, seconds=20.0):
        self.until(lambda: text in self.output(node), seconds, f"{text!r} at {NAMES[node]}")

    def wait(self, session):
        return self.do(self.nodes[0].launcher.wait(session))

    def close(self):
        for node in self.nodes:
            self.do(node.stop())
        self.loop.close()
