"""A machine of its own for a sidecar, behind a router that can drop what passes: the kernel's own silence.

Two network namespaces: the machine, and between it and us a router. What the router drops is answered by nothing at
all, not even by the acks of TCP, which a proxy in user space always gives. Needs root; nothing of it is seen outside of
the two namespaces but one veth and one route, which go with them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

#: The second byte of our private addresses, so that runs at the same time do not meet.
BYTE = os.getpid() % 250 + 1


class Machine:
    """The other machine."""

    def __init__(self, tag: str) -> None:
        self.name, self.router = f"agentcom-m{tag}", f"agentcom-r{tag}"
        self._wires = [f"ac{letter}{tag}" for letter in "abcd"]
        #: Where this machine is, seen from the other one.
        self.host = f"10.{BYTE}.1.1"

    def command(self, *words: str) -> list[str]:
        """A command that runs there."""
        return ["ip", "netns", "exec", self.name, *words]

    def make(self) -> None:
        """Build it."""
        here, near, far, there = self._wires
        subnet = f"10.{BYTE}"
        _run(f"ip netns add {self.router}", f"ip netns add {self.name}")
        _run(f"ip link add {here} type veth peer name {near} netns {self.router}")
        _run(f"ip -n {self.router} link add {far} type veth peer name {there} netns {self.name}")
        _run(f"ip addr add {self.host}/30 dev {here}", f"ip link set {here} up")
        for namespace, wire, address in (
            (self.router, near, f"{subnet}.1.2"),
            (self.router, far, f"{subnet}.2.1"),
            (self.name, there, f"{subnet}.2.2"),
        ):
            _run(f"ip -n {namespace} addr add {address}/30 dev {wire}", f"ip -n {namespace} link set {wire} up")
        _run(f"ip -n {self.name} link set lo up", f"ip -n {self.name} route add default via {subnet}.2.1")
        _run(f"ip route add {subnet}.2.0/30 via {subnet}.1.2")
        _run(f"ip netns exec {self.router} sysctl -q -w net.ipv4.ip_forward=1")

    def lose(self, way: str) -> None:
        """Drop what goes "up" (from there to us), "down", or "both"."""
        near, far = self._wires[1], self._wires[2]
        for wire in {"up": (far,), "down": (near,), "both": (far, near)}[way]:
            _run(f"ip netns exec {self.router} iptables -A FORWARD -i {wire} -j DROP")

    def heal(self) -> None:
        """Let everything pass."""
        _run(f"ip netns exec {self.router} iptables -F FORWARD")

    def remove(self) -> None:
        """Take it away; processes that run there lose their network."""
        for words in (f"netns del {self.name}", f"netns del {self.router}", f"link del {self._wires[0]}"):
            subprocess.run(["ip", *words.split()], check=False, capture_output=True)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """Another machine."""
    made = Machine(str(os.getpid()))
    try:
        made.make()
        yield made
    finally:
        made.remove()


def cannot() -> str:
    """Why there cannot be one here; empty: there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "iptables", "sysctl") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    try:
        with machine() as made:
            made.lose("both")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.decode(errors='replace').strip()[:200]}"
    return ""


def _run(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True, capture_output=True)
