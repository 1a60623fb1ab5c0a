"""The text of the systemd unit that keeps a node running: what it says, and nothing that touches the system.

systemd.exec(5), systemd.resource-control(5) and systemd.service(5) say what each line means. A unit of a user's own
manager gets no mount namespaces (they would need privileges there), so its hardening is what seccomp and limits do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from swarm.errors import ConfigError

UNIT_NAME = "swarm.service"
SYSTEM_USER = "swarm"
STATE_FOLDER = "/var/lib/swarm"  # of the system unit's user
CACHE_FOLDER = "/var/cache/swarm"
WATCHDOG_S = 90  # without a sign of life; the node gives three in that time
START_S = 300  # the first start measures the device, on a busy Pi 4 for some minutes
STOP_S = 30  # to finish a step and close its files
RESTART_S = 15
NICE = 10  # whoever sits at the device goes first
OOM_SCORE = 500  # of 1000: should memory run out, the node goes before what its user has open
USAGE_ERROR = 2  # ConfigError's exit code: starting again would not help
_PLAIN = re.compile(r"[\w@+=:,./-]+", re.ASCII)

SANDBOX = (  # works in every manager: seccomp and process attributes
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "SystemCallArchitectures=native",
    "UMask=0077",
)
SYSTEM_SANDBOX = (  # needs mount namespaces, which only the system's manager may make everywhere
    "CapabilityBoundingSet=",
    "DevicePolicy=closed",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectSystem=strict",
    "RemoveIPC=yes",
)


@dataclass(frozen=True)
class Unit:
    """What differs from device to device."""

    command: Sequence[str]  # the node's whole command line
    memory_bytes: int  # that the node and its page cache may take; beyond, it alone is killed
    is_system: bool = False  # of the system's manager, with a user of its own; else of this user's manager
    is_installed_in_home: bool = False  # the program lies below /home or /root
    environment: Mapping[str, str] = field(default_factory=dict)
    written_by: str = ""  # the version of Swarm


def unit_text(unit: Unit) -> str:
    """The unit file."""
    sections = {
        "Unit": _unit_lines(unit),
        "Service": [*_service_lines(unit), *_limit_lines(unit), *_sandbox_lines(unit)],
        "Install": [f"WantedBy={'multi-user.target' if unit.is_system else 'default.target'}"],
    }
    head = (
        f"# Written by `swarm service install` of Swarm {unit.written_by}; `swarm service remove` takes it away.\n"
        "# Changes of yours belong into `systemctl edit`: the next installation writes this file anew.\n"
    )
    return head + "".join(
        f"\n[{name}]\n{''.join(f'{line}{chr(10)}' for line in lines)}" for name, lines in sections.items()
    )


def _unit_lines(unit: Unit) -> list[str]:
    lines = ["Description=Swarm: this device's part in running large language models"]
    if unit.is_system:
        lines += ["Wants=network-online.target", "After=network-online.target"]
    return [*lines, "StartLimitIntervalSec=0"]  # a disk or network that is late must not end it for good


def _service_lines(unit: Unit) -> list[str]:
    lines = [
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(map(quoted, unit.command))}",
        *(f"Environment={quoted(f'{name}={value}')}" for name, value in sorted(unit.environment.items())),
        "Restart=on-failure",  # `swarm leave` ends it until the next boot
        f"RestartSec={RESTART_S}",
        f"RestartPreventExitStatus={USAGE_ERROR}",
        f"TimeoutStartSec={START_S}",
        f"TimeoutStopSec={STOP_S}",
        f"WatchdogSec={WATCHDOG_S}",
        "SyslogIdentifier=swarm",
    ]
    if unit.is_system:
        lines += [f"User={SYSTEM_USER}", f"Group={SYSTEM_USER}", "StateDirectory=swarm", "CacheDirectory=swarm"]
        lines += ["StateDirectoryMode=0700", "CacheDirectoryMode=0700"]
    return lines


def _limit_lines(unit: Unit) -> list[str]:
    return [
        f"Nice={NICE}",
        "IOSchedulingPriority=7",
        f"OOMScoreAdjust={OOM_SCORE}",
        f"MemoryMax={unit.memory_bytes}",
        "MemorySwapMax=0",  # weights that are swapped out make a token take minutes
        "LimitMEMLOCK=infinity",
        "LimitNOFILE=8192",
        "LimitCORE=0",  # gigabytes on an SD card, with what people wrote in them
    ]


def _sandbox_lines(unit: Unit) -> list[str]:
    if not unit.is_system:
        return list(SANDBOX)
    home = "read-only" if unit.is_installed_in_home else "yes"
    return [*SANDBOX, *SYSTEM_SANDBOX, f"ProtectHome={home}"]


def quoted(word: str) -> str:
    """A word of a command line as systemd reads it back; ConfigError for what no unit file can hold."""
    if any(char in word for char in "\n\r\0"):
        raise ConfigError(f"{word!r} cannot be part of a service: it has a line break")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if _PLAIN.fullmatch(word) else f'"{escaped}"'
