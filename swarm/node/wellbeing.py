"""Looks after the device while the node runs: what it can give just now is measured, and told to others."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable

import msgspec

from swarm import config
from swarm.node.background import Background
from swarm.node.condition import LOOK_S, Condition, Conditions, SensorReading
from swarm.node.driver import Driver
from swarm.node.event_log import EventLog
from swarm.node.sensors import Sensors
from swarm.wire.records import Capabilities

USE_LOOK_S = 30.0  # between two questions to the login manager: each starts a program
IDLE_LOOK_S = 3 * LOOK_S  # while nothing happens; two looks still fit into what counts as steady
ASK_S = 2.0  # that the login manager may take


class Wellbeing:
    """Of one node; `start` on its loop."""

    def __init__(
        self,
        driver: Driver,
        background: Background,
        events: EventLog,
        *,
        settings: config.Settings,
        measured: Capabilities,
        is_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_idle`: nothing happens in the swarm, so that nothing heats this device up but its own programs."""
        self._is_idle = is_idle
        self.conditions = Conditions()
        self._driver = driver
        self._background = background
        self._events = events
        self._sensors = Sensors(config.machine_root())
        self._minds_battery = settings.pause in ("battery", "both")
        self._minds_user = settings.pause in ("use", "both")
        self._measured = measured
        self._in_use = False
        self._asked_at = -USE_LOOK_S

    def start(self) -> None:
        """Look again and again, until the node stops."""
        self._background.spawn(self._watch())

    def measured(self, capabilities: Capabilities) -> None:
        """The device was measured anew, in a quiet moment: what it can do when all is well."""
        self._measured = capabilities
        self._tell()

    async def _watch(self) -> None:
        while True:
            try:
                self.take(await self._background.run_io(self._look), self._driver.now)
            except Exception as error:  # a sensor that breaks must not end the looking
                self._background.on_bug(error)
            await asyncio.sleep(IDLE_LOOK_S if self._is_idle() else LOOK_S)

    def take(self, reading: SensorReading, now: float) -> None:
        """A look at the sensors: others hear when it changes what they should count with."""
        if self.conditions.take(reading, now):
            self._events.note("condition", why=self.conditions.now.text or "all is well again")
            self._tell()

    def _tell(self) -> None:
        capabilities = with_condition(self._measured, self.conditions.now)
        self._driver.act(lambda core, now: core.measured(capabilities, now))

    def _look(self) -> SensorReading:
        """Read the sensors; on a thread of the store's."""
        if self._minds_user and time.monotonic() - self._asked_at >= USE_LOOK_S:
            self._asked_at, self._in_use = time.monotonic(), is_in_use()
        return SensorReading(
            temperature_c=self._sensors.temperature_c(),
            clock_share=self._sensors.clock_share(),
            throttled_ms=self._sensors.throttled_ms(),
            on_battery=self._minds_battery and bool(self._sensors.on_battery()),
            in_use=self._in_use,
        )


def with_condition(measured: Capabilities, condition: Condition) -> Capabilities:
    """What a device can do in this condition."""
    return msgspec.structs.replace(
        measured,
        read_bytes_per_s=measured.read_bytes_per_s * condition.share,
        prefill_ops_per_s=measured.prefill_ops_per_s * condition.share,
        layer_s=measured.layer_s / condition.share,
        step_s=measured.step_s / condition.share,
        rests=condition.rests,
        condition=condition.text,
    )


def is_in_use() -> bool:
    """Whether somebody sits at this machine, by the login manager's word; False where there is none."""
    command = ["loginctl", "show-session", "--property=IdleHint"]
    try:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ASK_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == "IdleHint=no"
