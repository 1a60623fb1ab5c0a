"""Guessing the next tokens of a text: what followed when it last went like this, in the prompt or in the answer.

Guesses are rows of a step that is made anyway. A guess stands when it is the token that is sampled, and sampling is a
function of ids, parameters and seed: so guesses never change a text, only how many steps it takes.

A row more costs what the machine at hand makes of it, and is worth what comes of it. Both are seen as it happens:
what was expected is compared with what came also where nothing was guessed, so a text without repeats teaches for
nothing that guessing it does not pay, and one that begins to repeat that it does.

Pure: seconds come from whoever makes the steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from swarm import limits

CHOICES = (1, 3, 7, 15)  # guesses of a step: with the row that is certain, as many rows as kernels are made for
LENGTHS = (2, 3, 4, 6, 10, 16, 32)  # the classes of matches begin here: so many tokens before were the same, or more
CLASSES = tuple(max(i for i, least in enumerate(LENGTHS) if n >= least or i == 0) for n in range(LENGTHS[-1] + 1))
AFTER_EDIT = len(LENGTHS)  # one more class: the text went another way for one token, and may be back
# Seen and right of each class before anything was seen; the longer it was the same, the longer it stays so.
PRIOR = ((4.0, 0.8), (4.0, 1.2), (4.0, 1.6), (4.0, 2.0), (4.0, 2.4), (4.0, 2.8), (4.0, 3.2), (4.0, 1.6))
LONG = 6  # a match of so many tokens that ends may have met an edit
DRAFT_PRIOR = ((4.0, 2.8), (4.0, 2.8), (4.0, 2.8), (4.0, 2.8))  # the same for a draft, by place in the row
MAX_DRAFTED = 7
MTP = "mtp"  # in place of a draft's name: the block of the model's own file that predicts further tokens
FORCED_CHANCE = 0.97  # of a token that a form asks for: it may be spelled in another way
SUPPOSED_COST = 1.1  # of a step of two rows beside one row, before any was seen: little, so that it is tried


class Repeats:
    """A text, and where it went before as it goes now."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.odds = Odds()
        self._after_two: dict[tuple[int, int], int] = {}  # two tokens: the position behind them, where they came last
        self._after_three: dict[tuple[int, int, int], int] = {}
        self._at = 0  # the position of what is expected next; 0: nothing is
        self._length = 0  # so many tokens before that position are the last ones of the text, too
        self._is_edit = False  # but for one

    def read(self, ids: Sequence[int]) -> None:
        """Make the text these ids, of which it has the first ones already or not."""
        if list(ids[: len(self.ids)]) != self.ids:
            self.ids = []
            self._after_two, self._after_three = {}, {}
        for token in ids[len(self.ids) :]:
            self._add(token)
        self._look_up(len(self.ids))

    def take(self, token: int) -> None:
        """The text goes on with this token."""
        expected, length, at = self.ids[self._at] if self._at else -1, self._length, self._at
        if at:
            self.odds.saw(self._class, right=token == expected)
        self._add(token)
        if at and token == expected:
            self._at, self._length = at + 1, length + 1
        else:
            self._look_up(at + 1 if at and length >= LONG and not self._is_edit else 0)

    def expected(self, n: int) -> list[int]:
        """At most n tokens that would come next; where what is repeated is short, it goes round."""
        if not self._at:
            return []
        found = self.ids[self._at : self._at + n]
        while len(found) < n:
            found += found[: n - len(found)]
        return found

    def chance(self, i: int) -> float:
        """How likely the i-th token from here, counted from 0, is the expected one, when those before are."""
        if not self._at:
            return 0.0
        return self.odds.of(_class(self._length + i) if i else self._class)

    @property
    def _class(self) -> int:
        return AFTER_EDIT if self._is_edit else _class(self._length)

    def _add(self, token: int) -> None:
        """Append a token; where the two or three before it came last is known before they are seen again."""
        ids = self.ids
        n = len(ids)
        if n >= 2:
            self._after_two[ids[-2], ids[-1]] = n
        if n >= 3:
            self._after_three[ids[-3], ids[-2], ids[-1]] = n
        ids.append(token)

    def _look_up(self, after_edit: int) -> None:
        """Find where the text went like this; `after_edit`: where it goes on if only one token was another. 0: no."""
        ids = self.ids
        self._is_edit = False
        at = self._after_three.get((ids[-3], ids[-2], ids[-1]), 0) if len(ids) >= 3 else 0
        if not at and 0 < after_edit < len(ids):
            self._at, self._length, self._is_edit = after_edit, LENGTHS[0], True
            return
        if not at and len(ids) >= 2:
            at = self._after_two.get((ids[-2], ids[-1]), 0)
        self._at, self._length = at, self._same_before(at) if at else 0

    def _same_before(self, at: int) -> int:
        """How many tokens before `at` are the last ones of the text."""
        ids, end, n = self.ids, len(self.ids), 0
        most = min(LENGTHS[-1], at)
        while n < most and ids[at - 1 - n] == ids[end - 1 - n]:
            n += 1
        return n


class Odds:
    """How often what was expected came, in classes; what is long past counts less."""

    def __init__(self, prior: Sequence[tuple[float, float]] = PRIOR) -> None:
        self._seen = [seen for seen, _ in prior]
        self._right = [right for _, right in prior]

    def saw(self, kind: int, *, right: bool) -> None:
        """Something was expected, and that came, or something else."""
        self._seen[kind] = self._seen[kind] * limits.GUESS_MEMORY + 1.0
        self._right[kind] = self._right[kind] * limits.GUESS_MEMORY + right

    def of(self, kind: int) -> float:
        """The share that was right."""
        return self._right[kind] / self._seen[kind]


class StepTimes:
    """Seconds that steps took, in classes of up to 1, 2, 4, ... rows, on one way of making them."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[float]] = {}
        self._middle: dict[int, float] = {}  # of those that were seen
        self._taken_at: dict[int, int] = {}  # the last step of a class
        self._n_steps = 0

    def took(self, n_rows: int, seconds: float) -> None:
        """A step of so many rows is done."""
        size = 1 << (n_rows - 1).bit_length()
        seen = self._seen.setdefault(size, deque(maxlen=limits.GUESS_TIMES_KEPT))
        seen.append(max(seconds, 1e-9))  # a coarse clock may say 0
        self._middle[size] = sorted(seen)[len(seen) // 2]
        self._n_steps += 1
        self._taken_at[size] = self._n_steps

    @property
    def knows_one_row(self) -> bool:
        """Whether steps of one row were seen, and not long ago: everything is compared with them."""
        return (
            len(self._seen.get(1, ())) >= limits.GUESS_TIMES_NEEDED
            and self._n_steps - self._taken_at[1] < limits.GUESS_STEPS
        )

    def knows(self, n_rows: int) -> bool:
        """Whether steps of so many rows were seen, and not too long ago."""
        size = 1 << (n_rows - 1).bit_length()
        is_old = self._n_steps - self._taken_at.get(size, 0) >= limits.GUESS_RETRY_STEPS
        return len(self._seen.get(size, ())) >= limits.GUESS_TIMES_NEEDED and not is_old

    def of(self, n_rows: int) -> float:
        """Seconds of a step of so many rows: as seen, or else as fewer rows let suppose. One row must be known."""
        size = 1 << (n_rows - 1).bit_length()
        if size == 1 or self.knows(size):
            return self._middle[size]
        half = self.of(size // 2)
        return SUPPOSED_COST * half if size == 2 else half + 2 * max(half - self.of(size // 4), 0.0)


class Worth(NamedTuple):
    """How many tokens to guess, and how many a second are then expected to come."""

    n: int
    tokens_per_s: float


class Guesser:
    """Guesses for one session."""

    def __init__(self, times: StepTimes | None = None) -> None:
        self.text = Repeats()
        self.draft = DraftLuck()
        self.times = times or StepTimes()

    def guess(self, most: int, forced: Sequence[int] = ()) -> list[int]:
        """The tokens to compute after the one that is certain: as many as make the answer fastest, at most `most`.

        `forced`: what a form asks for next.
        """
        most = min(most, CHOICES[-1])
        if not forced or most < 1 or not self.times.knows_one_row:
            return self.text.expected(self.plan(most).n)
        coming = self.text.expected(most)
        if coming[: len(forced)] != list(forced[:most]):
            coming = list(forced[:most])  # what the text would say is refused there
        n = self._best(lambda i: FORCED_CHANCE if i < len(forced) else self.text.chance(i), len(coming), 0.0).n
        return coming[:n]

    def plan(self, most: int) -> Worth:
        """How many tokens of the text's own pay."""
        if most < 1 or self.text.chance(0) < limits.GUESS_MIN_CHANCE or not self.times.knows_one_row:
            return Worth(0, 0.0)
        return self._best(self.text.chance, most, 0.0)

    def plan_draft(self, most: int) -> Worth:
        """How many tokens of a draft model pay."""
        if most < 1 or not self.times.knows_one_row:
            return Worth(0, 0.0)
        if self.draft.is_due():
            return Worth(1, float("inf"))
        return self._best(self.draft.chance, min(most, MAX_DRAFTED), self.draft.token_s)

    def prefers(self, drafted: Sequence[int]) -> bool:
        """Whether to compute what a draft has said already, rather than what the text itself tells."""
        if not drafted or not self.times.knows_one_row:
            return False
        said = self._best(self.draft.chance, len(drafted), 0.0)
        return said.n > 0 and said.tokens_per_s > self.plan(MAX_DRAFTED).tokens_per_s

    def _best(self, chance: Callable[[int], float], most: int, guess_s: float) -> Worth:
        """The number of guesses, each of which takes `guess_s` to make, that brings most tokens a second."""
        best = Worth(0, limits.GUESS_MIN_GAIN / self.times.of(1))
        together, tokens, n = 1.0, 1.0, 0
        for choice in CHOICES if most in CHOICES else sorted((*CHOICES, most)):
            if choice > min(most, CHOICES[-1]):
                break
            for i in range(n, choice):
                together *= chance(i)
                tokens += together
            n = choice
            tokens_per_s = tokens / (self.times.of(1 + choice) + choice * guess_s)
            if tokens_per_s > best.tokens_per_s:
                best = Worth(choice, tokens_per_s)
            if together < limits.GUESS_MIN_CHANCE or not self.times.knows(1 + choice):
                break  # more rows are tried when these are known not to be dear
        return best if best.n else Worth(0, 0.0)


class DraftLuck:
    """How often the tokens of a draft model come, by their place in the row, and what making one takes.

    It is not seen where nothing was drafted; so a draft that does not pay is tried again now and then.
    """

    def __init__(self) -> None:
        self._odds = Odds(DRAFT_PRIOR)
        self._times: deque[float] = deque(maxlen=limits.GUESS_TIMES_KEPT)
        self.token_s = 0.0
        self._n_waited = 0  # tokens since it was tried last

    def chance(self, i: int) -> float:
        """That the i-th token comes, counted from 0, when those before did."""
        return self._odds.of(min(i, len(DRAFT_PRIOR) - 1))

    def is_due(self) -> bool:
        """Whether it has not been tried for long."""
        self._n_waited += 1
        return self._n_waited > limits.GUESS_DRAFT_RETRY

    def took(self, seconds: float) -> None:
        """A token was made."""
        self._times.append(seconds)
        self.token_s = sorted(self._times)[len(self._times) // 2]

    def saw(self, n_drafted: int, n_right: int) -> None:
        """Of so many tokens, so many came."""
        self._n_waited = 0
        for i in range(min(n_right + 1, n_drafted)):
            self._odds.saw(min(i, len(DRAFT_PRIOR) - 1), right=i < n_right)


def _class(length: int) -> int:
    """Of a match of so many tokens."""
    return CLASSES[min(length, LENGTHS[-1])]
