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
from swarm.cli import device_flags, entry, local, logs
from swarm.cli.device_flags import Start
from swarm.cli.terminal import note
from swarm.errors import ConfigError, SwarmError, SwarmNetworkError

if TYPE_CHECKING:
    from swarm.node.home import Home
    from swarm.node.node import Node
    from swarm.node.supervisor import Supervisor

HELP = "Let this device take part in a swarm: the first one makes it, later ones are let in by a code or by its key."
EXAMPLES = """\
  swarm join                        begin a swarm, or come back to the one this device is in
  swarm join 7-482-915              join with the code that `swarm invite` shows on another device
  swarm join --background --memory 6GiB
  swarm join --peer 192.168.1.20    where devices do not find each other by themselves
"""
BACKGROUND_START_S = 60.0  # the first start measures the device, on a Pi for half a minute


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("code", metavar="CODE", nargs="?", help="the invitation's code, as in 7-482-915")
    parser.add_argument("--invite", metavar="CODE", dest="invite", help="the same")
    parser.add_argument("--key", metavar="KEY", help="the swarm's key instead of a code; `-` reads it from input")
    parser.add_argument("--background", action="store_true", help="run in the background; `swarm leave` ends it")
    device_flags.add(parser)


def run(args: argparse.Namespace) -> int:
    from swarm.node.home import Home

    start = device_flags.typed(args)
    home = Home(config.load(start.settings).home_path)
    home.make()
    start = device_flags.with_settings_of_before(start, home)
    settings = config.load(start.settings)
    running = local.find(settings)
    if running is not None and not (home.is_alone and (args.code or args.invite or args.key)):
        raise ConfigError(f"this device takes part already, as {running.name}; `swarm leave` ends that")
    device_flags.remember(home, start)
    name = device_name(settings)
    calls = [*args.peer, *entry.get_key(home, name, args)]
    if running is not None and change_swarm(settings, running, start):
        return 0
    if args.background:
        return start_in_background(home, settings, Start(start.settings, tuple(calls), start.discover))
    return asyncio.run(serve(home, settings, name, calls, discover=start.discover))


def change_swarm(settings: config.Settings, running: local.LocalNode, start: Start) -> bool:
    """End the node that runs alone: the next one has the new key. True when a service starts that."""
    from swarm.cli.leave import end
    from swarm.cli.systemd import installed

    end(settings, running)
    service = installed() if "home" not in start.settings else None
    if service is not None:
        service.start()
        note(f"swarm: {running.name} takes part there, as a service; `swarm status` shows who is there")
    return service is not None


def device_name(settings: config.Settings) -> str:
    """What others call this device."""
    from swarm.limits import MAX_NAME_BYTES

    name = "".join(c for c in (settings.name or platform.node() or "device") if c.isprintable()).strip()
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore") or "device"


async def serve(home: Home, settings: config.Settings, name: str, calls: list[str], *, discover: bool) -> int:
    """Run the node until it is told to stop; again, when it has got a new key."""
    from swarm.cli.live import Live
    from swarm.node.supervisor import Supervisor

    sys.setswitchinterval(50e-6)  # a token must not wait 5 ms for the GIL; sampling alone gives it up twenty times
    leaving = asyncio.Event()
    manager = Supervisor(config.notify_socket(), config.watchdog_s())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, leaving.set)
    while True:
        node, stop = await start_node(home, settings, name, calls, discover=discover)
        told = asyncio.create_task(stop_when(leaving, node))
        try:
            async with Live(node):
                tell_manager(manager, node)
                await node.stopping.wait()
        finally:
            told.cancel()
            await stop()
        if leaving.is_set() or not node.starts_anew:
            manager.stopping()
            return 0


def tell_manager(manager: Supervisor, node: Node) -> None:
    """Say that the node is ready, and from then on that it is alive: its loop turns, and its core can be had."""
    manager.ready(occupation(node))
    if manager.beat_s:
        node.background.every(lambda: manager.beat_s, lambda: manager.alive(occupation(node)))


def occupation(node: Node) -> str:
    """One line for `systemctl status`."""
    return f"{node.name} takes part with {node.n_others} other device{'s' * (node.n_others != 1)}"


async def stop_when(leaving: asyncio.Event, node: Node) -> None:
    """A signal ends the node, whichever run of it that is."""
    await leaving.wait()
    node.stopping.set()


async def start_node(
    home: Home, settings: config.Settings, name: str, calls: list[str], *, discover: bool
) -> tuple[Node, local.Stop]:
    """A node with its API; returns both and how to end them."""
    from swarm.api import ApiServer, LanServer, make_app
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
    app = make_app(node, token)
    api, lan = ApiServer(app), LanServer(app, home)
    node.serve_lan = lan.apply
    try:
        await api.start(settings.api_port)
        node.api_port = api.port
        try:
            await lan.apply()
        except SwarmError as error:  # this device itself is served all the same
            node.events.note("lan_closed", why=str(error))
        home.say_running(Running(os.getpid(), node.peer, name, node.transport.me.port, api.port, token))
    except BaseException:
        await node.stop()
        raise

    async def stop() -> None:
        home.say_stopped(os.getpid())
        node.questions.end_all()
        await lan.stop()
        await api.stop()
        await node.stop()

    return node, stop


def start_in_background(home: Home, settings: config.Settings, start: Start) -> int:
    """Start the same command as a process of its own; return when its API answers."""
    start = Start({**start.settings, "home": str(home.root)}, tuple(dict.fromkeys(start.peers)), start.discover)
    command = [sys.executable, "-m", "swarm", "join", *start.words]
    logs.set_aside(home.log_file)
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
