"""One session, as its owner knows it: its token ids, its parameters and its seed, who works on it, and how far it is.

    QUEUED -> PLACING -> OPENING -> RUNNING -> RESTING (its KV may serve the next turn)
                 ^          |          |
                 +----------+----------+  a device is lost;     OPENING again: a message was lost
                 |
               PARKED: the devices cannot hold the model until one comes back

NEXT_PHASES is the whole table: an answer may end, and thereby rest, in any phase. What moves it on: sessions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from swarm import limits
from swarm.cluster.effects import NEVER, Effect, Notice, NoticeKind
from swarm.cluster.guesses import EntryGuesses
from swarm.cluster.kept import marks_of
from swarm.cluster.pipeline import NOBODY, Pipeline
from swarm.wire.ids import ModelId, PeerId, SessionId
from swarm.wire.messages import SessionOpen, SessionProbed
from swarm.wire.records import Placement, Sampling


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """What a user wants: an answer of at most `max_tokens` to the prompt `ids`. `end_ids` end it.

    `source` is a session of the same asker that began alike: what the two have in common is not computed again. An
    answer that needs more room than one request asks for `has_more` to come; the next request then `goes_on` with it.
    """

    session: SessionId
    model: ModelId
    ids: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    end_ids: tuple[int, ...] = ()
    source: SessionId | None = None
    asker: str = ""  # whoever it is: only whether two are the same matters
    owner: bytes = b""  # the same as a secret, for what devices keep on their disks; empty: nothing is kept
    has_more: bool = False
    goes_on: bool = False
    guess: bool = True  # compute tokens that may come along with those that are certain, where that is faster
    draft: bool = False  # there is a small model on this device that says which


NOTHING = 1 << 62  # a position behind all ids


class Phase(Enum):
    """Of one session."""

    QUEUED = "queued"
    PLACING = "placing"
    OPENING = "opening"
    RUNNING = "running"
    PARKED = "parked"
    RESTING = "resting"


NEXT_PHASES: Mapping[Phase, frozenset[Phase]] = {
    Phase.QUEUED: frozenset({Phase.PLACING, Phase.RESTING}),
    Phase.PLACING: frozenset({Phase.OPENING, Phase.PARKED, Phase.RESTING}),
    Phase.OPENING: frozenset({Phase.OPENING, Phase.RUNNING, Phase.PLACING, Phase.PARKED, Phase.RESTING}),
    Phase.RUNNING: frozenset({Phase.OPENING, Phase.PLACING, Phase.PARKED, Phase.RESTING}),
    Phase.PARKED: frozenset({Phase.PLACING, Phase.RESTING}),
    Phase.RESTING: frozenset(),  # the next turn is a new value
}


@dataclass(frozen=True, slots=True)
class Loan:
    """KV of another session that a session begins with: so many positions, in that one's epoch on each stage."""

    source: SessionId
    n: int
    epochs: Mapping[PeerId, int]


@dataclass(slots=True)
class Session:
    """One generation, as its owner knows it."""

    ask: AnswerRequest
    ids: list[int]
    phase: Phase
    since: float  # in this phase
    epoch: int = 0
    placement: Placement | None = None
    pipeline: Pipeline = NOBODY  # of the placement
    # which stage accepted which epoch last, and how many ids of that epoch are still a prefix of ours
    acked: dict[PeerId, int] = field(default_factory=dict)
    true_prefix: dict[int, int] = field(default_factory=dict)
    haves: dict[PeerId, int] = field(default_factory=dict)  # answers to the current opening
    takes_guesses: bool = True  # each that answered the current opening
    takes_steps: bool = True  # the same, of the entry node, one by one
    begins_earlier: bool = True  # every stage begins at whatever position all of them have
    draft: EntryGuesses | None = None  # the entry node sends every step
    keeps: dict[PeerId, int] = field(default_factory=dict)  # positions that each was asked to keep at most
    opened_at: float = 0.0  # when the current opening was last sent
    retry_at: float = 0.0
    sent: int = 0  # positions before this one were given to the first stage
    passed: int = 0  # positions before this one have passed the last stage
    goal: int = 0  # the length of the ids when they were opened: what is to be prefilled
    moved_at: float = 0.0  # the last progress
    probed_at: float = 0.0
    answers: dict[PeerId, SessionProbed] = field(default_factory=dict)
    heard: dict[PeerId, float] = field(default_factory=dict)  # last answer of each stage to an opening or a probe
    quiet: tuple[int, ...] | None = None  # positions of all stages at the last probe without work
    failures: int = 0  # steps that a stage could not do, since the last token
    reopenings: int = 0  # since the last progress
    waits_since: float = 0.0  # the reader, for what comes next
    judge_at: float = NEVER  # when to look whether somebody else would have been quicker
    paced_at: float = 0.0  # since when, and over how many tokens, the pace is taken
    n_paced: int = 0
    n_closings: int = 0  # that were told again since the end
    is_slow: bool = False  # much slower than was planned: who has the work at a probe is the reason
    begun: bool = False  # stages have worked on this answer
    placed_at: float = 0.0  # when it got a place among the active ones
    place_until: float = -NEVER  # a place is held so long for the request that goes on with it
    reused: int = 0  # positions that were there when they began
    loan: Loan | None = None  # of the current opening
    marks: tuple[bytes, ...] = ()  # in the current opening, of what stages may have on their disks
    agreed: int = NOTHING  # stages of this placement had different positions; so many all of them have
    doubts: frozenset[PeerId] = frozenset()  # that were left out while they worked on it
    doubted_from: int = NOTHING  # ids from this position on are computed again, and compared
    hands: frozenset[PeerId] = frozenset()  # whose work the ids and the KV may rest on
    look_at: int = 0  # of so many ids on, it is asked whether a spot check is due
    checked_to: int = 0  # ids before this position have passed one
    is_falsified: bool = False  # what devices have of it on their disks may rest on what is not the model's
    falsified: str = ""  # what was found of an answer that was over, for the reader of the next one
    notice: str = ""

    @property
    def id(self) -> SessionId:
        return self.ask.session

    @property
    def limit(self) -> int:
        """No token is sampled for this position or a later one."""
        return len(self.ask.ids) + self.ask.max_tokens

    def takes_place(self, now: float) -> bool:
        """Whether it counts among those that are answered."""
        return self.is_active or now < self.place_until

    def run_on(self, placement: Placement | None) -> None:
        """From now on, these devices work on it."""
        if placement is not self.placement:
            self.agreed = NOTHING
        self.placement, self.pipeline = placement, Pipeline.of(placement)

    def mark(self) -> None:
        """Name the beginning of its ids, as far as it may be taken from a disk."""
        n = min(len(self.ids) - 1, self.doubted_from - 1, self.agreed)
        self.marks = marks_of(self.ask.owner, self.ids[:n]) if self.ask.owner and not self.is_falsified else ()

    def opening(self, peer: PeerId, entry: PeerId) -> SessionOpen:
        """What a stage is told, and remembered of it: positions that it may have."""
        since = self.acked.get(peer)
        last = min(len(self.ids), self.doubted_from) - 1
        keep = min(last, self.true_prefix[since]) if since is not None else 0
        loan = self.loan
        keep = loan.n if loan is not None else keep
        assert self.placement is not None
        self.keeps[peer] = max(keep, len(self.marks) * limits.MARK_TOKENS)
        return SessionOpen(
            session=self.id,
            model=self.ask.model,
            epoch=self.epoch,
            placement=self.placement.epoch,
            entry=entry,
            context=self.limit,
            keep=keep,
            sampling=self.ask.sampling,
            end_ids=self.ask.end_ids,
            source=loan.source if loan is not None else None,
            source_epoch=loan.epochs[peer] if loan is not None else 0,
            owner=self.ask.owner,
            marks=self.marks,
        )

    def doubt(self, peers: frozenset[PeerId]) -> None:
        """These did not do their part: what came through them last is looked at once more."""
        if peers and len(self.ids) > len(self.ask.ids):
            self.doubts |= peers
            first = max(len(self.ask.ids), len(self.ids) - limits.DOUBTED_TOKENS)
            self.doubted_from = min(self.doubted_from, first)

    def believe(self) -> None:
        """What was doubted has been compared."""
        self.doubts, self.doubted_from = frozenset(), NOTHING

    def cut(self, position: int) -> None:
        """The ids from a position on are not those of the model."""
        del self.ids[position:]
        self.true_prefix = {
            epoch: n if epoch == self.epoch else min(n, position) for epoch, n in self.true_prefix.items()
        }

    def distrust(self, position: int, peers: frozenset[PeerId]) -> None:
        """One of these has falsified the id at a position: no KV is true, and what is not checked is compared."""
        self.cut(position)
        self.forget_kv()
        first = max(len(self.ask.ids), self.checked_to)
        if first < position:
            self.doubts |= peers
            self.doubted_from = min(self.doubted_from, first)

    def forget_kv(self) -> None:
        """No KV of it is true, wherever it is."""
        self.true_prefix = dict.fromkeys(self.true_prefix, 0)
        self.hands = frozenset()
        self.is_falsified = True

    def say(self, text: str, kind: NoticeKind = NoticeKind.WAITS) -> list[Effect]:
        """One quiet line for its reader, when it changes."""
        if text == self.notice:
            return []
        self.notice = text
        return [Notice(self.id, text, kind if text else NoticeKind.GOES_ON)]

    def next_turn(self, ask: AnswerRequest, now: float) -> Session:
        """The same session with other ids: KV of what the two have in common stays true."""
        same = common_prefix(self.ids, ask.ids)
        prefixes = {epoch: min(prefix, same) for epoch, prefix in self.true_prefix.items()}
        return Session(
            ask=ask,
            ids=list(ask.ids),
            phase=Phase.QUEUED,
            since=now,
            epoch=self.epoch,
            acked=self.acked,
            true_prefix=prefixes,
            hands=self.hands,
            falsified=self.falsified,
        )

    def lend(self, other: Session) -> Loan | None:
        """What a session that opens now may copy of this one's KV, on every stage; None where there is nothing.

        Every stage must have accepted an epoch of ours: its ids are known here, and a later one on it is seen there.
        """
        peers = other.pipeline.peers
        if self.phase not in (Phase.RUNNING, Phase.RESTING) or self.ask.model != other.ask.model:
            return None
        if any(peer not in self.acked for peer in peers) or any(peer in other.acked for peer in peers):
            return None
        epochs = {peer: self.acked[peer] for peer in peers}
        common = min(common_prefix(self.ids, other.ids), len(other.ids) - 1)
        n = min(common, self.passed, *(self.true_prefix[epoch] for epoch in epochs.values()))
        return Loan(self.id, n, epochs) if n > 0 else None

    def enter(self, phase: Phase, now: float) -> None:
        """Go on to another phase."""
        was = self.phase.value
        assert phase in NEXT_PHASES[self.phase], f"a session that is {was} cannot be {phase.value} next"
        self.phase, self.since = phase, now

    def moved(self, now: float) -> None:
        """There was progress."""
        self.moved_at, self.reopenings = now, 0
        self.answers, self.quiet = {}, None

    def begin_pace(self, now: float) -> None:
        """From now on the pace of the answer is taken."""
        self.paced_at, self.n_paced = now, 0

    def wait_from(self, now: float) -> None:
        """From now on its reader waits for what comes next."""
        self.waits_since, self.judge_at = now, now + limits.PATIENCE_S

    def forget_old_epochs(self) -> None:
        needed = {self.epoch, *self.acked.values()}
        self.true_prefix = {epoch: n for epoch, n in self.true_prefix.items() if epoch in needed}

    @property
    def close_again_at(self) -> float:
        """When the end is told again: the telling may have been lost, and memory is kept for what is over."""
        is_over = self.phase is Phase.RESTING and self.n_closings < len(limits.CLOSE_AGAIN_S)
        return self.since + limits.CLOSE_AGAIN_S[self.n_closings] if is_over else NEVER

    @property
    def probe_due(self) -> float:
        """When a session without progress asks its stages (again)."""
        after_s = limits.QUICK_PROBE_S if self.is_slow else limits.PROBE_AFTER_S
        return max(self.moved_at + after_s, self.probed_at + limits.PROBE_EVERY_S)

    def due(self, placed: Callable[[ModelId], Placement | None]) -> float:
        """When time alone moves it on; `placed` gives the placement that sessions of a model may open on."""
        match self.phase:
            case Phase.OPENING:
                silent_at = min(self.heard[peer] for peer in self.pipeline.peers if peer not in self.haves)
                return min(self.opened_at + limits.OPEN_RETRY_S, silent_at + limits.OPEN_TIMEOUT_S, self.judge_at)
            case Phase.RUNNING:
                return min(self.probe_due, self.judge_at)
            case Phase.PLACING:
                ready = placed(self.ask.model) is not None
                return min(self.retry_at if ready else NEVER, self.judge_at)
            case Phase.PARKED:
                return self.since + limits.PARK_S
            case Phase.RESTING:
                held = self.place_until
                return min(self.close_again_at, held if held > -NEVER else NEVER)
        return NEVER

    @property
    def positions(self) -> dict[PeerId, int]:
        """How far each stage is, as it said last."""
        return {peer: answer.position for peer, answer in self.answers.items()}

    @property
    def is_active(self) -> bool:
        return self.phase not in (Phase.QUEUED, Phase.RESTING)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids the two have in common from the start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
