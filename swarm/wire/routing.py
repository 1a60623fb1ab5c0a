"""Where on a device each kind of message ends: the one table. What is done there, each place knows itself.

A message goes from the transport to the node, and from the node to the core, until it is where it ends.
"""

from __future__ import annotations

from swarm.wire import messages as m

Kinds = frozenset[type[m.Message]]

# The transport (net/link_policy.py): what links say about themselves and about other devices.
TRANSPORT: Kinds = frozenset((m.Hello, m.Welcome, m.Refuse, m.Goodbye, m.Gossip, m.LinkProbe))
# The node (node/node.py): what is stored, measured, shown and kept secret. Heartbeats keep links alive on their way.
NODE: Kinds = frozenset(
    (
        m.Heartbeat,
        m.Rekey,
        m.RekeyDone,
        m.LinkProbed,
        m.Rehearsal,
        m.Catalog,
        m.ManifestRequest,
        m.ManifestReply,
        m.HaveRequest,
        m.Have,
        m.ChunkRequest,
        m.ChunkReply,
        m.ChunkCancel,
        m.RemoveModel,
        m.StatusRequest,
        m.StatusReply,
        m.PullBegin,
        m.PullShare,
        m.PullReport,
        m.PullDone,
    )
)
# The core (cluster/core.py): what is decided together.
CORE: Kinds = frozenset(m.MESSAGES) - TRANSPORT - NODE
