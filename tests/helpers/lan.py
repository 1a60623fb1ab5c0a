"""A LAN in a box: home devices as network namespaces on one bridge, with cables to pull.

    with Lan(3, rate="1gbit", delay_ms=0.15) as lan:
        process = subprocess.Popen(lan.command(2, ["swarm", "join"]))
        lan.cut(2)                  # carrier loss; heal(2) plugs it in again
        lan.split(1, 3)             # both up, but they do not hear each other; join(1, 3) ends it

Hosts are 1..n with 10.77.0.<host>/24 and fd77::<host>/64 on eth0. The bridge has its own namespace, so nothing touches
the machine's network. Delay, jitter and loss come from netem where the kernel has it, otherwise from delay.py.
By hand: `python -m tests.helpers.lan 3 --rate 1gbit --delay 0.15` prints how to enter the hosts and ends with Ctrl-C.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

DELAY = Path(__file__).with_name("delay.py")
QUEUE = 1  # NFQUEUE number inside each host
CLONE_NEWNET = 0x40000000  # linux/sched.h
TOOLS = ("ip", "tc", "nft", "iptables")


@dataclass(frozen=True)
class Impairment:
    """One way, at each receiver: a round trip has twice the delay."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0

    @property
    def is_needed(self) -> bool:
        """True when anything is impaired."""
        return bool(self.delay_ms or self.jitter_ms or self.loss_percent)


@cache
def why_not() -> str:
    """Return why there can be no LAN in a box here, "" when there can."""
    if os.geteuid() != 0:
        return "a LAN in a box needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"a LAN in a box needs {', '.join(missing)} (apt install iproute2 nftables iptables)"
    name = f"swprobe{os.getpid()}"
    try:
        _run(f"ip netns add {name}")
        _run(f"ip netns del {name}")
    except RuntimeError as error:
        return f"this machine makes no network namespaces: {error}"
    return ""


def enter(namespace: str) -> None:
    """Put this thread into a network namespace, for good."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


class Lan:
    """`n` hosts; leaves nothing behind when closed."""

    def __init__(
        self,
        n: int,
        *,
        rate: str | None = None,
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        loss_percent: float = 0.0,
        ipv6: bool = True,
    ) -> None:
        self.n = n
        self._prefix = f"sw{os.getpid()}x{id(self) % 9973}"
        self._switch = f"{self._prefix}-sw"
        self._impairment = Impairment(delay_ms, jitter_ms, loss_percent)
        self._rate = rate
        self._ipv6 = ipv6
        self._delay: subprocess.Popen[str] | None = None

    def __enter__(self) -> Lan:
        try:
            self._up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def namespace(self, host: int) -> str:
        """Return the name of a host's network namespace."""
        return f"{self._prefix}-h{host}"

    def address(self, host: int, *, ipv6: bool = False) -> str:
        """Return a host's address."""
        return f"fd77::{host:x}" if ipv6 else f"10.77.0.{host}"

    def command(self, host: int, command: list[str]) -> list[str]:
        """Return the command that runs `command` on a host."""
        return ["ip", "netns", "exec", self.namespace(host), *command]

    def cut(self, host: int) -> None:
        """Pull a host's cable at the switch: it sees the carrier go."""
        _run(f"ip -n {self._switch} link set p{host} down")

    def heal(self, host: int) -> None:
        """Plug the cable in again."""
        _run(f"ip -n {self._switch} link set p{host} up")

    def split(self, one: int, other: int) -> None:
        """Drop everything between two hosts, silently."""
        self._pairs("add", one, other)

    def join(self, one: int, other: int) -> None:
        """Let two hosts hear each other again."""
        self._pairs("delete", one, other)

    def shape(self, host: int, rate: str) -> None:
        """Change the rate of a host's cable, both directions."""
        for namespace, device in ((self.namespace(host), "eth0"), (self._switch, f"p{host}")):
            _run(f"tc -n {namespace} qdisc replace dev {device} root tbf rate {rate} burst 64kb limit 512kb")

    def close(self) -> None:
        """Stop everything that still runs on the hosts and remove them."""
        if self._delay is not None:
            self._delay.terminate()
            self._delay.wait()
            if self._delay.stdout is not None:
                self._delay.stdout.close()
            self._delay = None
        for name in [self._switch, *(self.namespace(host) for host in range(1, self.n + 1))]:
            if not Path("/run/netns", name).exists():
                continue
            for pid in _run(f"ip netns pids {name}").split():
                _kill(int(pid))
            _run(f"ip netns del {name}")

    def _up(self) -> None:
        switch = self._switch
        _run(f"ip netns add {switch}")
        # No IPv6 on the switch itself, no netfilter on what it forwards but the table of split().
        _sysctl(switch, "net.ipv6.conf.all.disable_ipv6=1")
        _run(f"ip -n {switch} link set lo up")
        _run(f"ip -n {switch} link add br0 type bridge mcast_snooping 0 forward_delay 0 stp_state 0")
        _run(f"ip -n {switch} link set br0 up")
        _run(f"ip netns exec {switch} nft -f -", text=SPLIT_TABLE)
        for host in range(1, self.n + 1):
            self._add_host(host)
        if self._impairment.is_needed:
            self._impair()

    def _add_host(self, host: int) -> None:
        name, switch = self.namespace(host), self._switch
        _run(f"ip netns add {name}")
        _run(f"ip link add eth0 netns {name} type veth peer name p{host} netns {switch}")
        _run(f"ip -n {switch} link set p{host} master br0 up")
        # Addresses are usable at once; reno, because bbr may be the default here and paces messages of two writes.
        for setting in ("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.eth0.accept_dad=0"):
            _sysctl(name, setting)
        _sysctl(name, "net.ipv4.tcp_congestion_control=reno")
        _run(f"ip -n {name} link set lo up")
        _run(f"ip -n {name} link set eth0 up")
        _run(f"ip -n {name} addr add {self.address(host)}/24 brd + dev eth0")
        if self._ipv6:
            _run(f"ip -n {name} addr add {self.address(host, ipv6=True)}/64 dev eth0 nodad")
        if self._rate:
            self.shape(host, self._rate)

    def _impair(self) -> None:
        """netem on the cable when there is no rate on it and the kernel can; otherwise packets wait in a queue."""
        hosts = [host for host in range(1, self.n + 1) if self._rate or not self._try_netem(host)]
        if not hosts:
            return
        for host in hosts:
            self._queue(host)
        queued = [f"{self.namespace(host)}:{QUEUE}" for host in hosts]
        numbers = (self._impairment.delay_ms, self._impairment.jitter_ms, self._impairment.loss_percent)
        command = [sys.executable, str(DELAY), *map(str, numbers), *queued]
        self._delay = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._delay.stdout is not None
        if self._delay.stdout.readline().strip() != "ready":
            raise RuntimeError("the delay process did not start")

    def _try_netem(self, host: int) -> bool:
        impairment = self._impairment
        netem = f"netem delay {impairment.delay_ms}ms {impairment.jitter_ms}ms loss {impairment.loss_percent}%"
        command = f"tc -n {self._switch} qdisc add dev p{host} root {netem}"
        return subprocess.run(shlex.split(command), capture_output=True, check=False).returncode == 0

    def _queue(self, host: int) -> None:
        # Where the receiver takes packets in, so that the sender's own queues see a real network. By iptables: nft's
        # own queue statement needs a kernel module that some kernels lack, the compatible one is everywhere.
        rule = f"-t mangle -A PREROUTING -i eth0 -j NFQUEUE --queue-num {QUEUE} --queue-bypass"
        for tool in ("iptables", "ip6tables"):
            _run(f"ip netns exec {self.namespace(host)} {tool} {rule}")

    def _pairs(self, verb: str, one: int, other: int) -> None:
        pairs = f"{{ p{one} . p{other}, p{other} . p{one} }}"
        _run(f"ip netns exec {self._switch} nft {verb} element bridge cut pairs {shlex.quote(pairs)}")


SPLIT_TABLE = """
table bridge cut {
  set pairs { type ifname . ifname; }
  chain forward { type filter hook forward priority 0; iifname . oifname @pairs drop; }
}
"""


def _run(command: str, text: str | None = None) -> str:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, input=text, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
    return done.stdout


def _sysctl(namespace: str, setting: str) -> None:
    command = ["ip", "netns", "exec", namespace, "sysctl", "-qw", setting]
    subprocess.run(command, capture_output=True, check=False)  # a kernel without it needs it not


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> None:
    """Hold a LAN open for a person."""
    parser = argparse.ArgumentParser(description="A LAN in a box, until Ctrl-C.")
    parser.add_argument("n", type=int)
    parser.add_argument("--rate")
    for name in ("delay", "jitter", "loss"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    options = parser.parse_args()
    impairment = {"delay_ms": options.delay, "jitter_ms": options.jitter, "loss_percent": options.loss}
    with Lan(options.n, rate=options.rate, **impairment) as lan:
        for host in range(1, lan.n + 1):
            print(f"host {host} ({lan.address(host)}): {shlex.join(lan.command(host, ['bash']))}")
        try:
            signal.pause()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
