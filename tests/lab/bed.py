"""The bed: namespaces, cables and a switch. The machine's own network is never touched.

The switch is a bridge in a namespace of its own; a host is a namespace whose `eth0` is one end of a veth pair,
the other end being a port of the bridge. There is no default route. Packets are dropped in the switch and not
on the hosts, because a local output filter gives the sender EPERM, which no real network does.

Decisions: fixed MACs, so that every neighbour entry can be permanent (the kernel's neighbour table is shared by
all namespaces and overflows at 1,024 learnt entries: 32 hosts then fake failures). Link-local IPv6 addresses
skip duplicate detection (1 s), which tests of that may turn on. One `ip -batch` per namespace: 32 hosts in a second.

Names carry the process id of the run: a later run removes what a killed one left behind, processes included.
"""
import functools
import ipaddress
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.lab.host import PROGRAM, Host
from tests.waiting import wait_until

NETWORK = ipaddress.ip_network("10.77.0.0/16")
NAMESPACES = Path("/run/netns")
NAME = re.compile(r"p2plab-(\d+)-\d+")
NEEDED = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "setsid": "util-linux"}
DEADLINE = 20.0       # s for one command that sets up the network

_numbers = itertools.count(1)
_alive = set()        # prefixes of the labs that this process runs now


def command(argv, input=None):
    """Runs one set-up command; its stdout, or AssertionError with its stderr."""
    done = subprocess.run(list(map(str, argv)), input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=DEADLINE, encoding="utf-8", errors="replace",
                          **({} if input is not None else {"stdin": subprocess.DEVNULL}))
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.stderr.strip()}\n{input or ''}"
    return done.stdout


@functools.lru_cache(maxsize=None)
def unavailable():
    """Why no lab can be made on this machine, or "" if it can."""
    missing = [f"{name} (package {package})" for name, package in NEEDED.items() if not shutil.which(name)]
    if missing:
        return f"the lab needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "the lab makes network namespaces: run the tests as root"
    try:
        with Lab(1) as lab:
            lab.hosts[0].filter("meta l4proto udp drop")
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        return "no network namespaces here: " + str(error).partition("\n")[0]
    return ""


class Lab:
    """`hosts` computers on one switch. Leaving the `with` block kills all that runs there and removes it."""

    def __init__(self, hosts=2, program=PROGRAM):
        self.program = program
        self.prefix = f"p2plab-{os.getpid()}-{next(_numbers)}"
        self.switch_name = f"{self.prefix}-switch"
        self.hosts = []
        self._count = hosts
        self._rules = []               # (host, rule), in the order they were added
        self._kept = []                # Running and Terminal, to be closed at the end

    def __enter__(self):
        remove_leftovers()
        _alive.add(self.prefix)
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error):
        self.close()

    # Building

    def _build(self):
        addresses = NETWORK.hosts()
        for number in range(1, self._count + 1):
            link_local = ipaddress.ip_address(f"fe80::ff:fe00:{number:x}")
            self.hosts.append(Host(self, number, str(next(addresses)), str(link_local)))
        names = [self.switch_name] + [host.namespace for host in self.hosts]
        self.ip("ip", "-batch", "-", input="".join(f"netns add {name}\n" for name in names))
        self.switch("link set lo up", "link add br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up",
                    *itertools.chain.from_iterable(map(self._cable, self.hosts)))
        for host in self.hosts:
            self._configure(host)

    @staticmethod
    def _mac(host):
        return f"02:00:00:00:{host.number >> 8:02x}:{host.number & 255:02x}"

    def _cable(self, host):
        return [f"link add {host.port} type veth peer name eth0 address {self._mac(host)} netns {host.namespace}",
                f"link set {host.port} addrgenmode none", f"link set {host.port} master br0 up"]

    def _configure(self, host):
        lines = ["link set lo up", "link set eth0 addrgenmode none", "link set eth0 up",
                 f"addr add {host.address}/{NETWORK.prefixlen} brd + dev eth0",
                 f"addr add {host.link_local}/64 dev eth0 nodad"]
        for other in self.hosts:
            if other is not host:
                for address in (other.address, other.link_local):
                    lines.append(f"neigh replace {address} lladdr {self._mac(other)} nud permanent dev eth0")
        self.ip("ip", "-n", host.namespace, "-batch", "-", input="\n".join(lines) + "\n")

    # Controlling

    def ip(self, *argv, input=None):
        """Runs one of the set-up tools on the machine; its stdout."""
        return command(argv, input)

    def switch(self, *lines):
        """Runs lines of `ip` inside the switch."""
        self.ip("ip", "-n", self.switch_name, "-batch", "-", input="\n".join(lines) + "\n")

    def roots(self, *options):
        """Starts a node on every host at once, and returns their Runnings when all of them answer."""
        roots = [host.start_root(*options) for host in self.hosts]
        return [host.ready(root) for host, root in zip(self.hosts, roots)]

    def add_rule(self, host, rule):
        """Adds an nftables rule to the switch for one host's packets, both ways."""
        self._rules.append((host, rule))
        self._apply_rules()

    def drop_rules(self, host):
        """Removes all rules of one host."""
        if any(owner is host for owner, _ in self._rules):
            self._rules = [(owner, rule) for owner, rule in self._rules if owner is not host]
            self._apply_rules()

    def _apply_rules(self):
        """Replaces the whole table in one transaction: there is no moment with half of the rules."""
        rules = "\n".join(f"    {way} {host.port} {rule}"
                          for host, rule in self._rules for way in ("iifname", "oifname"))
        self.ip("ip", "netns", "exec", self.switch_name, "nft", "-f", "-", input=(
            "table bridge lab\ndelete table bridge lab\ntable bridge lab {\n  chain forward {\n"
            f"    type filter hook forward priority 0; policy accept;\n{rules}\n  }}\n}}\n"))

    def keep(self, thing):
        """Notes what has to be closed at the end."""
        self._kept.append(thing)
        return thing

    # Taking away

    def close(self):
        """Kills what runs on the hosts, and removes namespaces and files."""
        try:
            for thing in self._kept:
                thing.close()
            destroy([path for path in namespaces() if path.name.startswith(f"{self.prefix}-")])
        finally:
            _alive.discard(self.prefix)
            if hasattr(self, "folder"):
                shutil.rmtree(self.folder, ignore_errors=True)


def namespaces():
    """All named network namespaces of the machine."""
    return sorted(NAMESPACES.iterdir()) if NAMESPACES.is_dir() else []


def processes_in(paths):
    """The process ids that live in these namespaces, whatever started them."""
    wanted = set()
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        wanted.add((status.st_dev, status.st_ino))
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = os.stat(f"/proc/{entry}/ns/net")
            except OSError:            # it has ended in this moment
                continue
            if (status.st_dev, status.st_ino) in wanted:
                found.append(int(entry))
    return found


def destroy(paths):
    """Kills what lives in these namespaces and deletes them; the cables go with them."""
    def empty():
        pids = processes_in(paths)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not any(alive(pid) for pid in pids)
    wait_until(empty, DEADLINE, "the end of what runs on the hosts")
    for path in paths:
        subprocess.run(["ip", "netns", "del", path.name], timeout=DEADLINE, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def alive(pid):
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def remove_leftovers():
    """Removes what runs that were killed have left: namespaces, processes in them, and folders."""
    def is_left(path):
        match = NAME.match(path.name)
        if match is None or match.group() in _alive:
            return False
        return int(match.group(1)) == os.getpid() or not alive(int(match.group(1)))
    left = [path for path in namespaces() if is_left(path)]
    if left:
        destroy(left)
    for path in Path(tempfile.gettempdir()).glob("p2plab-*"):
        if is_left(path):
            shutil.rmtree(path, ignore_errors=True)
