"""Servers and clients of the product on one loop, with real TLS on loopback and homes of their own."""

import os

from p2p import proto
from p2p.client import Client
from p2p.dispatch import Dispatch
from p2p.disk import Disk
from p2p.server import Server
from p2p.trust.identity import Identity
from p2p.trust.networks import Networks
from tests.bench import Bench


class End:
    """An owner of connections that notes what it is told."""

    def __init__(self, bed, home, name):
        self.identity = Identity.load_or_create(Disk(), str(home), os.urandom)
        self.networks = Networks(str(home), self.identity, Disk(), os.urandom)
        self.tag = self.networks.tags[0]
        self.dispatch = Dispatch()
        self.name = name
        self.ready, self.lost, self.refused, self.failures = [], [], [], []
        self.nonce = 1
        self._bed = bed

    def greeting(self, connection):
        return dict(role=0, name=self.name, version="1", nonce=self.nonce, port=0, abilities=0, networks=[self.tag], addresses=[], view=0)

    def connection_ready(self, connection):
        self.ready.append(connection)

    def connection_lost(self, connection, error):
        self.lost.append(error)

    def connection_refused(self, connection, error):
        self.refused.append(error)

    def server(self, port=0):
        return Server(self._bed.loop, self.networks, self, port)

    def client(self):
        def note(node_id, error):
            self.failures.append((self._bed.loop.now(), error))
        return Client(self._bed.loop, self.networks, self, on_failure=note)


class Bed(Bench):
    """A loop and a folder for the homes."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def end(self, name):
        """A node's keys and its notes."""
        return End(self, self.folder / name, name)

    def wait(self, future):
        """The future's value; its failure is raised."""
        self.until(lambda: future.done)
        return future.result()


def ping(bed, connection):
    """A round trip."""
    bed.wait(connection.request(proto.PING))
