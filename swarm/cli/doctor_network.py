"""What `swarm doctor` says about the network: from the node that runs here, or by looking around without one."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path
from typing import Any

from swarm import config
from swarm.cli import local
from swarm.cli.finding import Finding
from swarm.cli.terminal import harmless

UFW = Path("/etc/ufw/ufw.conf")
FIREWALLD = Path("/run/firewalld")
LEVELS = {"good": "ok", "away": "away", "note": "warning", "bad": "problem"}


def check_swarm(settings: config.Settings) -> list[Finding]:
    """Whether this device is in a swarm, and what is between it and the others."""
    from swarm.node.home import Home

    is_member = Home(settings.home_path).keys.swarm_key() is not None
    node = local.find(settings) if is_member else None
    if node is None:
        text = "this device is in no swarm; `swarm join` begins one, or comes into one with a code"
        if is_member:
            text = "this device is in a swarm, and takes no part just now; `swarm join` starts it"
        # Without a node, what the network lacks keeps nothing from running: it is said, and no more.
        return [Finding("swarm", text), *[milder(found) for found in looked_around()]]
    status = node.get("/swarm/status")
    found = node.get("/swarm/doctor")["findings"]
    return [members(status), *excluded(status), *map(finding_of, found if isinstance(found, list) else [])]


def members(status: dict[str, Any]) -> Finding:
    """Who is there."""
    alive = [device for device in status["devices"] if device["health"] not in ("here", "lost")]
    if alive:
        return Finding("swarm", f"{status['name']} takes part with {len(alive)} other device{'s' * (len(alive) != 1)}")
    if len(status["devices"]) > 1:
        return Finding("swarm", f"{status['name']} takes part; all other devices are off or away", "away")
    advice = "start `swarm join` on another device, or name it: swarm join --peer HOST"
    return Finding("swarm", f"{status['name']} takes part and sees no other device", "warning", advice)


def excluded(status: dict[str, Any]) -> list[Finding]:
    """Devices that are there and may not be used."""
    reasons = [(harmless(d["name"]), d.get("excluded")) for d in status["devices"]]
    return [Finding("device", f"{name}: {reason}", "problem") for name, reason in reasons if reason]


def looked_around() -> list[Finding]:
    """The network as a device sees it that is not connected to anything."""
    from swarm.net import interfaces
    from swarm.net.doctor import NetworkFacts, check, hear_own_multicast
    from swarm.node.doctor import findings_json
    from swarm.wire.ids import PeerId

    heard, _, problem = asyncio.run(hear_own_multicast())
    facts = NetworkFacts(
        me=PeerId(""),
        fingerprint=b"",
        interfaces=interfaces.here(),
        discovery_problem=problem,
        heard_own_multicast=heard,
    )
    return [finding_of(found) for found in findings_json(check(facts))]


def finding_of(found: dict[str, Any]) -> Finding:
    """A line of the network's own doctor."""
    return Finding("network", harmless(found["text"]), LEVELS[found["level"]], harmless(found["advice"]))


def milder(found: Finding) -> Finding:
    """The same as a warning, where it was a problem."""
    return Finding(found.subject, found.text, "warning", found.advice) if found.level == "problem" else found


def check_ports(settings: config.Settings) -> list[Finding]:
    """Whether the usual port is free, or ours."""
    from swarm.net.transport import DEFAULT_PORT
    from swarm.node.home import Home

    wanted = settings.port or DEFAULT_PORT
    running = Home(settings.home_path).running()
    if running is not None and local.find(settings) is not None:
        return [Finding("ports", f"{running.port} for other devices, {running.api_port} for programs on this one")]
    if is_free(wanted):
        return [Finding("ports", f"{wanted} is free for other devices to call")]
    text = f"another program has port {wanted}"
    advice = "choose another with `swarm join --port`" if settings.port else "a node takes any other; nothing to do"
    return [Finding("ports", text, "warning", advice)]


def is_free(port: int) -> bool:
    """True when a node could listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
        return True


def check_firewall(settings: config.Settings) -> list[Finding]:
    """The two firewalls that home systems come with."""
    from swarm.net.transport import DEFAULT_PORT

    port = settings.port or DEFAULT_PORT
    try:
        ufw = "ENABLED=yes" in UFW.read_text(encoding="utf-8", errors="replace")
    except OSError:
        ufw = False
    if ufw:
        advice = f"sudo ufw allow {port}:{port + 2}/tcp, and sudo ufw allow 5353/udp"
        return [Finding("firewall", "ufw is on", "warning", f"if other devices do not come in: {advice}")]
    if FIREWALLD.is_dir():
        advice = f"sudo firewall-cmd --add-port={port}-{port + 2}/tcp --add-service=mdns"
        return [Finding("firewall", "firewalld is on", "warning", f"if other devices do not come in: {advice}")]
    return [Finding("firewall", "neither ufw nor firewalld is on")]


CHECKS = (check_ports, check_firewall, check_swarm)
