"""The same API for other devices of the house: a listener of its own, open only where the user has said so."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette

from swarm.api.connection import LimitedConnection
from swarm.api.server import ApiServer
from swarm.errors import ConfigError
from swarm.net import interfaces
from swarm.node.home import Home
from swarm.node.lan_access import LanAccess, read_access

EVERYWHERE = "::"  # IPv4, too


class LanServer:
    """Opens and closes that listener as lan.json in the node's home says."""

    def __init__(self, app: Starlette, home: Home) -> None:
        self._app = app
        self._home = home
        self._server: ApiServer | None = None
        self._access = LanAccess()

    async def apply(self) -> list[str]:
        """Do what was decided last; return the addresses that other devices may use. Raise SwarmError when it fails."""
        await self.stop()
        access = read_access(self._home)
        self._app.state.origins = access.origins
        if not access.on:
            return []
        for file in filter(None, (access.certificate, access.private_key)):
            if not Path(file).is_file():
                raise ConfigError(f"there is no file {file}; `swarm serve --lan --certificate FILE --private-key FILE`")
        server = ApiServer(
            self._app,
            host=EVERYWHERE,
            connection=connection_for(access),
            certificate=access.certificate,
            private_key=access.private_key,
        )
        await server.start(access.port)
        self._server, self._access = server, access
        return self.addresses

    @property
    def addresses(self) -> list[str]:
        """Where other devices find the API; none while it is closed."""
        if self._server is None:
            return []
        scheme = "https" if self._access.certificate else "http"
        found = interfaces.addresses_of(interfaces.usable(interfaces.here()))
        hosts = [f"[{each}]" if ":" in each else each for each in found if not each.lower().startswith("fe80")]
        return [f"{scheme}://{host}:{self._server.port}" for host in hosts]

    async def stop(self) -> None:
        """Close it."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()


def connection_for(access: LanAccess) -> type[LimitedConnection]:
    """Connections that come from other devices, and say so."""

    class LanConnection(LimitedConnection):
        """`state["lan"]` tells the guard who may ask."""

    LanConnection.access = access
    return LanConnection
