"""What `swarm doctor` says about the network: interfaces, multicast, ports, firewall, keys, and the other devices."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import Any

from swarm import config
from swarm.cli import local
from swarm.cli.finding import Finding
from swarm.cli.terminal import harmless

TEST_GROUP = "239.255.74.17"  # of the range for sites: nobody else's
MULTICAST_S = 1.0
CLOCK_S = 5.0  # more than this between two clocks is worth a word: logs cannot be compared
UFW = Path("/etc/ufw/ufw.conf")
FIREWALLD = Path("/run/firewalld")
# Why a device is not let in, or not heard, as the node's events have it; and what helps.
TROUBLES = {
    "version": "update the older device",
    "key": "if it is yours: `swarm forget` there, then join with an invitation from here",
    "clone": "`swarm forget` on one of the two, then let it join anew",
    "forgotten": "it was shut out by `swarm rekey`; invite it again if it is yours",
}


def check_swarm(settings: config.Settings) -> list[Finding]:
    """Whether this device is in a swarm, and what its node says about the others."""
    from swarm.node.home import Home

    home = Home(settings.home_path)
    if home.keys.swarm_key() is None:
        return [Finding("swarm", "this device is in no swarm; `swarm join` begins one, or comes into one with a code")]
    node = local.find(settings)
    if node is None:
        return [Finding("swarm", "this device is in a swarm, and takes no part just now; `swarm join` starts it")]
    return findings_of(node.get("/swarm/status"))


def findings_of(status: dict[str, Any]) -> list[Finding]:
    """From a node's status."""
    others = [device for device in status["devices"] if device["health"] != "here"]
    alive = [device for device in others if device["health"] != "lost"]
    found = [Finding("swarm", f"{status['name']} takes part with {len(alive)} other device{'s' * (len(alive) != 1)}")]
    if not alive:
        advice = "start `swarm join` on another device, or name it: swarm join --peer HOST"
        found = [Finding("swarm", f"{status['name']} takes part and sees no other device", "warning", advice)]
    if status["discovery"]:
        found.append(Finding("discovery", status["discovery"], "warning", "name devices with `swarm join --peer HOST`"))
    for device in alive:
        offset = device.get("clock_offset_s")
        if offset is not None and abs(offset) > CLOCK_S:
            text = f"the clock of {harmless(device['name'])} differs by {offset:+.0f} s"
            found.append(Finding("clock", text, "warning", "set both by NTP"))
        if device.get("excluded"):
            text = f"{harmless(device['name'])}: {device['excluded']}"
            found.append(Finding("device", text, "problem", TROUBLES["clone"]))
    return found + _troubles(status["events"])


def _troubles(events: list[dict[str, Any]]) -> list[Finding]:
    """Devices that were not let in, sent garbage or lied: each once, the last word about it."""
    found: dict[str, Finding] = {}
    for event in events:
        kind = event.get("reason", event["event"])
        if event["event"] == "not_let_in" or kind in ("clone", "garbage", "liar"):
            text = harmless(str(event["why"]))
            found[text] = Finding("device", text, "warning", TROUBLES.get(kind, "update it, or look at its disk"))
    return list(found.values())


def check_interfaces(settings: config.Settings) -> list[Finding]:
    """What leads to other devices."""
    from swarm.net import interfaces

    using = interfaces.usable(interfaces.here())
    if not using or all(each.is_loopback for each in using):
        text = "no network interface is up that leads to other devices"
        return [Finding("network", text, "warning", "plug the cable in, or join the Wi-Fi")]
    text = "; ".join(f"{each.name} {', '.join(each.addresses[:2])}" for each in using)
    return [Finding("network", text)]


def check_multicast(settings: config.Settings) -> list[Finding]:
    """Whether a multicast message gets as far as the interface and back; what the switch does nobody can see here."""
    from swarm.net import interfaces

    deaf = [
        each.name
        for each in interfaces.usable(interfaces.here())
        for address in [next((a for a in each.addresses if ":" not in a), None)]
        if address is not None and not hears_itself(address)
    ]
    if not deaf:
        return [Finding("multicast", "works on this device")]
    advice = "allow UDP port 5353 and multicast in the firewall, or name devices with `swarm join --peer HOST`"
    return [Finding("multicast", f"is blocked on {', '.join(deaf)}", "warning", advice)]


def hears_itself(address: str) -> bool:
    """Send to a multicast group through the interface with this address, and listen for it."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("", 0))
            membership = struct.pack("4s4s", socket.inet_aton(TEST_GROUP), socket.inet_aton(address))
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            listener.settimeout(MULTICAST_S)
            word = os.urandom(16)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
                sender.sendto(word, (TEST_GROUP, listener.getsockname()[1]))
            while listener.recv(64) != word:
                pass
            return True
    except OSError:
        return False


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


CHECKS = (check_interfaces, check_multicast, check_ports, check_firewall, check_swarm)
