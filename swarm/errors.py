"""Every error that Swarm raises on purpose, as one tree.

    SwarmError
    ├── ModelError              the model file or its content
    │   ├── ModelNotFound
    │   ├── BadModelFile        broken, truncated or hostile file
    │   ├── UnsupportedModel    a family, tokenizer or feature we do not run
    │   └── UnsupportedQuant    a tensor type we do not run
    ├── TextError               chat template or tokenizer refused its input
    │   └── FormDeadEnd         no word may follow, by the form that was asked for
    ├── ContextFull             the conversation does not fit the context
    ├── ConfigError             a setting, flag or environment variable
    ├── ResourceError           memory, disk, cores
    │   ├── OutOfMemory
    │   ├── DiskFull
    │   ├── TooBusy             too many wait for an answer already
    │   ├── ExpertAbsent        a step needs experts that are not in memory
    │   └── ExpertUnreadable    an expert could not be read from disk
    ├── DownloadError           no source answered, or what came was wrong
    ├── NativeError             the compiled part is missing or unusable here
    └── SwarmNetworkError       anything about other devices
        ├── ProtocolError       a message broke PROTOCOL.md; says whose fault
        │   ├── LocalProtocolError
        │   └── RemoteProtocolError
        ├── SwarmKeyError       wrong, missing or unreadable swarm key
        ├── PeerLost            a device died, froze or was cut off
        ├── StageLost           a step that several devices compute together ended without one of them
        ├── PeerBusy            a device does not take messages as fast as they come
        └── DoesNotFit          the devices at hand cannot hold the model

The text of an error is what the user reads: what happened, and what to do now,
in one line, without control characters, whatever a library or a file put into
it. The command line prints it and exits with `exit_code`.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm.plain import visible


class SwarmError(Exception):
    """Something went wrong; the text says what, and what to do about it."""

    exit_code = 1

    def __str__(self) -> str:
        return visible(super().__str__())


class ModelError(SwarmError):
    """The model cannot be used."""


class ModelNotFound(ModelError):
    """There is no such model file or name."""


class BadModelFile(ModelError):
    """The model file is broken: the text names the field and what was wrong with it."""


class UnsupportedModel(ModelError):
    """The model is of a kind that Swarm does not run; the text lists what it does."""


class UnsupportedQuant(ModelError):
    """A tensor is stored in a type that Swarm does not run; the text lists what it does."""


class TextError(SwarmError):
    """The chat template or the tokenizer refused its input."""


class FormDeadEnd(TextError):
    """The form that an answer must have lets no token follow, or takes too much to tell: the fault of who asked."""


class ContextFull(SwarmError):
    """The conversation does not fit the context; start anew, or raise the context."""

    def __init__(self, text: str, *, n_tokens: int = 0, context: int = 0) -> None:
        super().__init__(text)
        self.n_tokens, self.context = n_tokens, context  # where they are known


class ConfigError(SwarmError):
    """A setting, flag or environment variable has a value that cannot be used."""

    exit_code = 2


class ResourceError(SwarmError):
    """The device lacks something."""


class OutOfMemory(ResourceError):
    """The device has too little memory for what was asked; the text says how much is missing."""


class TooBusy(ResourceError):
    """Too many chats wait already; the text says when to try again."""

    def __init__(self, text: str, retry_s: float) -> None:
        super().__init__(text)
        self.retry_s = retry_s


class DiskFull(ResourceError):
    """The disk is full, or the quota is used up; the text says what to free."""


class ExpertAbsent(ResourceError):
    """A step needs experts that are not in memory; it has stored nothing and may be repeated when they are there."""

    def __init__(self, layer: int, experts: Sequence[int]) -> None:
        self.layer, self.experts = layer, tuple(experts)
        numbers = ", ".join(map(str, self.experts))
        super().__init__(f"layer {layer} needs experts that are not in memory ({numbers}); load them, then try again")


class ExpertUnreadable(ResourceError):
    """An expert could not be read from disk; the step has stored nothing. Layers are counted within the cache."""

    def __init__(self, layer: int, expert: int, why: str, advice: str = "try again") -> None:
        self.layer, self.expert, self.why = layer, expert, why
        super().__init__(f"expert {expert} of layer {layer} cannot be read from disk: {why}; {advice}")


class DownloadError(SwarmError):
    """No source delivered the file intact; the text names each source and why."""


class NativeError(SwarmError):
    """The compiled part of Swarm is missing or does not run on this CPU."""


class SwarmNetworkError(SwarmError):
    """Something between devices went wrong."""


class ProtocolError(SwarmNetworkError):
    """A message broke the rules of swarm/wire/PROTOCOL.md."""


class LocalProtocolError(ProtocolError):
    """This device tried to send what it must not: a bug here."""


class RemoteProtocolError(ProtocolError):
    """A peer sent what it must not; it is dropped and named."""


class SwarmKeyError(SwarmNetworkError):
    """The swarm key is wrong, missing or unreadable; join again with an invitation."""


class PeerLost(SwarmNetworkError):
    """A device died, froze or was cut off."""


class StageLost(SwarmNetworkError):
    """A step that the members of a stage compute together ended because of one of them; it has stored nothing."""

    def __init__(self, member: int, name: str, text: str, *, stage_over: bool) -> None:
        self.member, self.text = member, text  # by its number in the stage; -1: nobody alone
        self.stage_over = stage_over  # False: only this step, the next one may begin
        super().__init__(f"{name} ended a step that devices compute together: {text}")


class PeerBusy(SwarmNetworkError):
    """A device does not take messages as fast as they come; wait a moment and send again."""


class DoesNotFit(SwarmNetworkError):
    """The devices at hand cannot hold the model; the text says how much is missing."""
