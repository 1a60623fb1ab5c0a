"""What the transport tells the node: typed, frozen, in the order in which it happened."""

from __future__ import annotations

from swarm.value import Value
from swarm.wire.ids import BootId, PeerId
from swarm.wire.messages import Message
from swarm.wire.records import Address, Version

Frame = memoryview  # a raw frame; it keeps its bytes alive and is never changed


class PeerUp(Value):
    """A device is connected and proven: it is a member, and it is this device."""

    peer: PeerId
    name: str
    boot: BootId
    version: Version
    address: Address


class PeerDown(Value):
    """The last link to a device is gone, or it was silent too long; `reason` is one line.

    `certain`: it said goodbye, or was shut out; otherwise it may be back in a moment.
    """

    peer: PeerId
    name: str
    reason: str
    certain: bool = False


class Gone(Value):
    """Nothing listens any more where a device was whose connection has closed: its process has ended."""

    peer: PeerId


class Received(Value):
    """A message from a connected device. Heartbeats come too: their state is news."""

    peer: PeerId
    message: Message
    frame: Frame | None = None


class Garbage(Value):
    """A device broke the protocol; it is cut off for a while. The text names it and the rule."""

    peer: PeerId | None
    text: str


class NotLetIn(Value):
    """A call failed for a reason that trying again does not cure: another key, another version, a cloned id."""

    address: Address
    reason: str  # one of messages.REFUSALS, or "key"
    text: str


class CloneSeen(Value):
    """Two running devices have one id: somebody copied an SD card. The text says what to do."""

    peer: PeerId
    text: str


class Broken(Value):
    """The transport has ended, because of a bug: nothing comes or goes any more."""

    text: str


Event = PeerUp | PeerDown | Gone | Received | Garbage | NotLetIn | CloneSeen | Broken
