"""`swarm join`: let this device take part, in the foreground with a live view or in the background."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from swarm import config
from swarm.cli import local, options
from swarm.cli.terminal import note
from swarm.errors import ConfigError, SwarmNetworkError

if TYPE_CHECKING:
    from swarm.net.keys import KeyStore
    from swarm.node.home import Home
    from swarm.node.node import Node

HELP = "Let this device take part in a swarm: the first one makes it, later ones are let in by a code or by its key."
EXAMPLES = """\
  swarm join                        begin a swarm, or come back to the one this device is in
  swarm join 7-482-915              join with the code that `swarm invite` shows on another device
  swarm join --background --memory 6GiB
  swarm join --peer 192.168.1.20    where devices do not find each other by themselves
"""
BACKGROUND_START_S = 60.0  # the first start measures the device, on a Pi for half a minute
FLAGS = ("home", "name", "memory", "disk", "port", "api_port", "threads", "context")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("code", metavar="CODE", nargs="?", help="the invitation's code, as in 7-482-915")
    parser.add_argument("--invite", metavar="CODE", dest="invite", help="the same")
    parser.add_argument("--key", metavar="KEY", help="the swarm's key instead of a code; `-` reads it from input")
    parser.add_argument(
        "--peer", metavar="HOST[:PORT]", action="append", default=[], help="call a device here; may be repeated"
    )
    parser.add_argument("--background", action="store_true", help="run in the background; `swarm leave` ends it")
    parser.add_argument("--no-discovery", action="store_true", help="do not look for devices by multicast")
    group = parser.add_argument_group("this device")
    group.add_argument("--name", metavar="NAME", help="what others call it (default: its host name)")
    group.add_argument("--memory", metavar="SIZE", help="memory for weights and conversations: 6GiB or 75%%")
    group.add_argument("--disk", metavar="SIZE", help="disk for chunks of models: 50GB or 20%%")
    group.add_argument("--threads", metavar="N", type=options.whole(1, 1024), help="threads that compute")
    group.add_argument("--context", metavar="N", type=options.whole(1), help="tokens that a conversation may hold")
    group.add_argument("--home", metavar="DIR", help="where keys, chunks and log are kept")
    group.add_argument("--port", metavar="N", type=options.whole(0, 65535), help="TCP port for other devices")
    group.add_argument("--api-port", metavar="N", type=options.whole(0, 65535), help="port of the local API")


def run(args: argparse.Namespace) -> int:
    from swarm.node.home import Home

    settings = config.load({name: getattr(args, name) for name in FLAGS})
    home = Home(settings.home_path)
    home.make()
    running = local.find(settings)
    if running is not None:
        raise ConfigError(f"this device takes part already, as {running.name}; `swarm leave` ends that")
    name = device_name(settings)
    calls = [*args.peer, *get_key(home.keys, name, args)]
    if args.background:
        return start_in_background(home, settings, calls, discover=not args.no_discovery)
    return asyncio.run(serve(home, settings, name, calls, discover=not args.no_discovery))


def device_name(settings: config.Settings) -> str:
    """What others call this device."""
    from swarm.limits import MAX_NAME_BYTES

    name = "".join(c for c in (settings.name or platform.node() or "device") if c.isprintable()).strip()
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "device"


def get_key(keys: KeyStore, name: str, args: argparse.Namespace) -> list[str]:
    """See that there is a swarm key: kept, given, or got by a code; else a swarm begins. Return whom to call."""
    from swarm.net import keys as keys_of

    code = args.code or args.invite
    if code and args.key:
        raise ConfigError("give a code or a key, not both")
    current = keys.swarm_key()
    given = keys_of.from_written(sys.stdin.readline() if args.key == "-" else args.key) if args.key else None
    if current is not None:
        if code or given not in (None, current):
            raise ConfigError("this device is in a swarm already; `swarm forget` first, to join another one")
        return []
    if given is not None:
        keys.keep_swarm_key(given)
        return []
    if code:
        return [accept(keys, name, code, args.peer)]
    keys.keep_swarm_key(keys_of.new_swarm_key())
    note("swarm: this device begins a new swarm; `swarm invite` here lets others in")
    return []


def accept(keys: KeyStore, name: str, code: str, peers: list[str]) -> str:
    """Use an invitation; return where the device is that gave the key."""
    from swarm.net import joining
    from swarm.net.pairing import Party, parse_code
    from swarm.net.transport import resolve
    from swarm.wire.proof import Credentials

    parsed = parse_code(code)
    me = Party(Credentials(b"", keys.device_secret()).peer, name)
    by_hand = [address for peer in peers for address in resolve(with_port(peer, joining.INVITATION_PORT))]
    key, inviter, address = asyncio.run(joining.join(parsed, me, by_hand))
    keys.keep_swarm_key(key)
    note(f"swarm: let in by {inviter.name}")
    return str(address)


def with_port(peer: str, port: int) -> str:
    """HOST:PORT, where only a host (or a bare IPv6 address) was given."""
    host, separator, tail = peer.rpartition(":")
    if separator and tail.isdecimal() and (":" not in host or host.endswith("]")):
        return peer
    return f"[{peer}]:{port}" if ":" in peer and not peer.startswith("[") else f"{peer}:{port}"


async def serve(home: Home, settings: config.Settings, name: str, calls: list[str], *, discover: bool) -> int:
    """Run the node until it is told to stop; again, when it has got a new key."""
    from swarm.cli.live import Live

    sys.setswitchinterval(50e-6)  # a token must not wait 5 ms for the GIL; sampling alone gives it up twenty times
    leaving = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, leaving.set)
    while True:
        node, stop = await start_node(home, settings, name, calls, discover=discover)
        told = asyncio.create_task(stop_when(leaving, node))
        try:
            async with Live(node):
                await node.stopping.wait()
        finally:
            told.cancel()
            await stop()
        if leaving.is_set() or not node.starts_anew:
            return 0


async def stop_when(leaving: asyncio.Event, node: Node) -> None:
    """A signal ends the node, whichever run of it that is."""
    await leaving.wait()
    node.stopping.set()


async def start_node(
    home: Home, settings: config.Settings, name: str, calls: list[str], *, discover: bool
) -> tuple[Node, local.Stop]:
    """A node with its API; returns both and how to end them."""
    from swarm.api import ApiServer, make_app
    from swarm.net.transport import Transport
    from swarm.node.home import Running
    from swarm.node.node import Node, Options

    credentials = home.keys.credentials()
    options_ = Options(home, settings, name, tuple(dict.fromkeys(calls)), discover)
    node = await Node.start(
        options_,
        lambda inbox: Transport.start(credentials, name=name, inbox=inbox, port=settings.port or None),
    )
    token = secrets.token_urlsafe(24)
    api = ApiServer(make_app(node, token))
    try:
        await api.start(settings.api_port)
        node.api_port = api.port
        home.say_running(Running(os.getpid(), node.peer, name, node.transport.me.port, api.port, token))
    except BaseException:
        await node.stop()
        raise

    async def stop() -> None:
        home.say_stopped(os.getpid())
        node.questions.end_all()
        await api.stop()
        await node.stop()

    return node, stop


def start_in_background(home: Home, settings: config.Settings, calls: list[str], *, discover: bool) -> int:
    """Start the same command as a process of its own; return when its API answers."""
    command = [sys.executable, "-m", "swarm", "join", "--home", str(home.root)]
    for flag in FLAGS[1:]:
        value = getattr(settings, flag)
        if value:
            command += [f"--{flag.replace('_', '-')}", str(value)]
    for call in calls:
        command += ["--peer", call]
    command += [] if discover else ["--no-discovery"]
    with open(os.open(home.log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + BACKGROUND_START_S
    while time.monotonic() < deadline:
        running = local.find(settings)
        if running is not None and running.pid == process.pid:
            note(f"swarm: {running.name} takes part in the background (process {process.pid}); `swarm leave` ends it")
            note(f"swarm: API for chat programs: http://127.0.0.1:{running.api_port}/v1")
            return 0
        if process.poll() is not None:
            raise SwarmNetworkError(f"the node ended at once: {_last_line(home.log_file)}")
        time.sleep(0.05)
    process.terminate()
    raise SwarmNetworkError(f"the node did not start within {BACKGROUND_START_S:.0f} s; its log is {home.log_file}")


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = path.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("swarm: ") if lines else "it said nothing"
    return "its log cannot be read"
