"""The local HTTP API of a node: what chat programs, scripts and the command line talk to."""

from swarm.api.app import make_app
from swarm.api.lan import LanServer
from swarm.api.server import ApiServer

__all__ = ["ApiServer", "LanServer", "make_app"]
