"""`swarm service`: a node that starts with the device and comes back by itself, kept by systemd."""

from __future__ import annotations

import argparse
import json
import stat
import sys
from pathlib import Path

import psutil

import swarm
from swarm import config
from swarm.cli import device_flags, local, options
from swarm.cli.device_flags import Start
from swarm.cli.systemd import Manager, installed, is_root
from swarm.cli.terminal import note
from swarm.cli.unit import CACHE_FOLDER, STATE_FOLDER, SYSTEM_USER, Unit, unit_text
from swarm.errors import ConfigError
from swarm.units import size_text

HELP = "Keep this device in its swarm: start at boot, come back after a failure, leave memory for others (systemd)."
EXAMPLES = """\
  swarm service install                   as this user; takes the flags that `swarm join` was given here
  swarm service install --memory 6GiB
  swarm service status                    exits with 3 while it does not run
  swarm service logs --follow
  swarm service remove                    ends it; keys and models stay
  swarm service install --system          as root: with a user of its own, where nobody logs in
"""
NOT_RUNNING = 3  # as systemctl status says it
HEADROOM_BYTES = 256 * 2**20  # over what the node counts: copies while layers are packed, the page cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=tuple(ACTIONS), help="what to do")
    parser.add_argument("--system", action="store_true", help="the system's service manager instead of the user's")
    parser.add_argument("--json", action="store_true", help="with status: print one JSON object")
    parser.add_argument("--print", action="store_true", help="with install: only show the unit file")
    parser.add_argument("-f", "--follow", action="store_true", help="with logs: go on until Ctrl-C")
    parser.add_argument(
        "-n", "--lines", metavar="N", type=options.whole(0, 1_000_000), default=100, help="with logs: the last N"
    )
    device_flags.add(parser)


def run(args: argparse.Namespace) -> int:
    return ACTIONS[args.action](args)


def install(args: argparse.Namespace) -> int:
    """Write the unit, stop what runs by hand, start the service."""
    manager = Manager(args.system or is_root())
    start = start_for(args, manager)
    settings = config.load(start.settings)
    unit = unit_for(start, settings, manager)
    if args.print:
        print(unit_text(unit), end="")
        return 0
    manager.need()
    prepare(manager, settings)
    was_installed = manager.is_installed
    manager.write(unit_text(unit))
    manager.start()
    stays = manager.stays_without_login()
    kept = "; its key and models are as they were" if was_installed else ""
    note(f"swarm: the service runs, and starts with the device{kept}")
    if str(start):
        note(f"swarm: its flags: {start}")
    note(f"swarm: it may take {size_text(unit.memory_bytes)} of memory and never swaps; `swarm logs -f` shows its log")
    if not stays:
        note("swarm: until root allows it, it runs only while you are logged in: sudo loginctl enable-linger $USER")
    return 0


def start_for(args: argparse.Namespace, manager: Manager) -> Start:
    """The node's flags: those that `swarm join` was given in this home, with this command's on top."""
    from swarm.node.home import Home
    from swarm.node.measure import usable_memory

    typed = device_flags.typed(args)
    home = {"home": f"{STATE_FOLDER}/node"} if manager.is_system and "home" not in typed.settings else {}
    typed = typed.over(Start(home))
    path = config.load(typed.settings).home_path
    start = typed.over(device_flags.remembered(Home(path)))
    memory = str(start.settings.get("memory", ""))
    # A share would be taken of the service's own limit, which is smaller than the machine.
    fixed = {"memory": usable_memory(memory)} if memory.rstrip().endswith("%") else {}
    return Start({**start.settings, **fixed, "home": str(path)}, start.peers, start.discover)


def unit_for(start: Start, settings: config.Settings, manager: Manager) -> Unit:
    """The unit of a node with these flags."""
    from swarm.node.measure import BASE_BYTES, usable_memory

    program = sys.executable
    environment = config.settings_of_environment()
    if manager.is_system:
        environment.setdefault("SWARM_MODELS_DIR", f"{CACHE_FOLDER}/models")
    # Not usable_memory alone: what is free now says little about next week.
    most = psutil.virtual_memory().total
    weights = usable_memory(settings.memory) if settings.memory else int(0.8 * most)
    return Unit(
        # -P: the node must not import from whatever folder it was started in.
        command=[program, "-P", "-m", "swarm", "join", *start.words],
        memory_bytes=min(weights + BASE_BYTES + HEADROOM_BYTES, most),
        is_system=manager.is_system,
        is_installed_in_home=any(Path(folder) in Path(program).parents for folder in ("/home", "/root")),
        environment=environment,
        written_by=swarm.__version__,
    )


def prepare(manager: Manager, settings: config.Settings) -> None:
    """See that the service can run: a user of its own, and no node that was started by hand."""
    if manager.is_system:
        closed = closed_to_others(Path(sys.executable))
        if closed is not None:
            raise ConfigError(
                f"the user of the system's service could not read {closed}, where Swarm is installed; install it for "
                "all (install.sh --system does), or leave out --system"
            )
        manager.make_user(SYSTEM_USER, STATE_FOLDER)
    elif (node := local.find(settings)) is not None and not manager.is_installed:
        from swarm.cli.leave import end

        note("swarm: the node that was started by hand ends, the service goes on in its place")
        end(settings, node)


def closed_to_others(program: Path) -> Path | None:
    """The first folder on the way to a program that other users may not enter; None when they can run it."""
    for folder in reversed(program.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def remove(args: argparse.Namespace) -> int:
    """End the service for good."""
    manager = manager_of(args)
    manager.need()
    if not manager.remove():
        raise ConfigError("there is no service of Swarm on this device; `swarm service install` makes one")
    note("swarm: the service is gone, and the device has left; its key and models stay (`swarm forget`, `swarm rm`)")
    return 0


def status(args: argparse.Namespace) -> int:
    """Whether it runs, since when, and with how much memory."""
    manager = manager_of(args)
    state = manager.state() if manager.is_installed else {}
    is_active = state.get("ActiveState") == "active"
    if args.json:
        print(json.dumps({"installed": manager.is_installed, "unit": str(manager.unit_file), **state}))
        return 0 if is_active else NOT_RUNNING
    if not manager.is_installed:
        print("no service of Swarm is installed on this device; `swarm service install` makes one")
        return NOT_RUNNING
    print("\n".join(status_lines(state, running_version(args))))
    return 0 if is_active else NOT_RUNNING


def status_lines(state: dict[str, str], runs: str) -> list[str]:
    """What systemd says, for people; `runs` is the version of the node that runs, "" when none does."""
    active, sub = state.get("ActiveState", "unknown"), state.get("SubState", "")
    lines = [f"service: {active}" + (f" ({sub})" if sub not in ("", active, "running") else "")]
    if state.get("StatusText") and active == "active":  # its last word stays when it has ended
        lines.append(f"node: {state['StatusText']}")
    if state.get("MemoryCurrent", "").isdigit():
        lines.append(f"memory: {size_text(int(state['MemoryCurrent']))} with its page cache")
    restarts = int(state.get("NRestarts") or 0)
    if restarts:
        lines.append(f"started again after a failure: {restarts} time{'s' * (restarts != 1)}; `swarm logs` says why")
    if state.get("UnitFileState") != "enabled":
        lines.append("it does not start with the device; `swarm service install` mends that")
    if runs and runs != swarm.__version__:
        lines.append(f"version {runs} runs, {swarm.__version__} is installed; `swarm service install` starts that")
    if active != "active":
        lines.append("`swarm service install` starts it, `swarm logs` shows its last words")
    return lines


def running_version(args: argparse.Namespace) -> str:
    """The version of the node that runs here; "" when none does."""
    node = local.find(config.load({"home": args.home}))
    return str(node.get("/swarm/status")["software"]) if node is not None else ""


def logs(args: argparse.Namespace) -> int:
    """The same as `swarm logs`."""
    from swarm.cli.logs import show

    return show(config.load({"home": args.home}), manager_of(args), args.lines, follow=args.follow)


def manager_of(args: argparse.Namespace) -> Manager:
    """The manager that is meant: the system's where --system says so or only there is a service."""
    if args.system:
        return Manager(True)
    return installed() or Manager(is_root())


ACTIONS = {"install": install, "remove": remove, "status": status, "logs": logs}
