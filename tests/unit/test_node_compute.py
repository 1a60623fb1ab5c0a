"""The compute worker: steps over rows of one session and of several."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from swarm import kernels
from swarm.cluster.effects import Compute, DropKv, OpenKv, SessionRows
from swarm.engine.decoder import Decoder
from swarm.engine.sampling import SamplingParams, sample
from swarm.engine.ways import Choice, Choices, candidates
from swarm.engine.weights import load_weights
from swarm.models import spec_from_gguf
from swarm.models.spec import ModelSpec
from swarm.node import compute
from swarm.node.compute import FORGOTTEN, ComputeWorker, Done, StepOutput
from swarm.node.sampling import params_of
from swarm.parts import all_parts
from swarm.store.gguf import open_gguf
from swarm.wire.ids import ModelId, SessionId
from swarm.wire.records import KvFormat, Sampling, TokenBias
from tests.helpers.tiny import TINY, make_weights, wide, write_tiny

MODEL = ModelId(bytes([1]) * 32)
CONTEXT = 64
SESSIONS = tuple(SessionId(bytes([i]) * 16) for i in range(3))
SAMPLING = Sampling(temperature=1.0, seed=7)
PROMPTS = tuple(tuple(np.random.default_rng(i).integers(4, 256, n).tolist()) for i, n in enumerate((5, 30, 1)))


class Worker:
    """A worker with a tiny model, and the answers to what it is asked."""

    def __init__(self, path: Path) -> None:
        self.done: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self.worker = ComputeWorker(lambda function, *args: function(*args), self.done.put, threads=1)
        with open_gguf(path) as model:
            self.spec: ModelSpec = spec_from_gguf(model.metadata, model.tensors)
            for part in all_parts(self.spec.n_layers):
                self.worker.install(MODEL, self.spec, part, load_weights(model, self.spec, [part]))
            weights = load_weights(model, self.spec, all_parts(self.spec.n_layers))
        self.alone = Decoder(self.spec, weights, context=CONTEXT, threads=1)
        self._job = 0

    def open(self, first: int, end: int, context: int = CONTEXT) -> None:
        for session in SESSIONS:
            self.worker.put(OpenKv(session, MODEL, first, end, context, 0))

    def compute(self, first: int, end: int, *rows: SessionRows) -> tuple[StepOutput, ...]:
        self._job += 1
        self.worker.put(Compute(self._job, MODEL, first, end, rows))
        done = self.done.get(timeout=30)
        assert done.job == self._job
        return done.outputs

    def tokens_alone(self, i: int, n: int, kind: KvFormat = "f16") -> list[int]:
        """What session i samples when it has the device to itself."""
        kv, ids = self.alone.new_kv(kind=kind), list(PROMPTS[i])
        logits = self.alone.forward(ids, kv)
        for _ in range(n):
            ids.append(sample(logits, params_of(SAMPLING), len(ids), ()))
            logits = self.alone.forward(ids[-1:], kv)
        return ids[len(PROMPTS[i]) :]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    tiny = wide(TINY["qwen3moe"])
    made = Worker(write_tiny(tmp_path / "tiny.gguf", tiny, make_weights(tiny), "Q4_0"))
    yield made
    made.worker.stop()


def rows(i: int, position: int, *ids: int, is_sampled: bool = True, frame: memoryview | None = None) -> SessionRows:
    return SessionRows(SESSIONS[i], position, ids, is_sampled, frame, SAMPLING)


def test_several_sessions_in_a_step_get_the_tokens_that_each_gets_alone(worker: Worker) -> None:
    n_layers = worker.spec.n_layers
    worker.open(0, n_layers)
    ids = [list(prompt) for prompt in PROMPTS]
    at = [0, 0, 0]
    for step in range(4):  # the long prompt comes in two pieces beside the others' decode steps
        ends = [len(part) for part in ids]
        if step == 0:
            ends[1] = 20
        asked = [rows(i, at[i], *ids[i][at[i] : ends[i]], is_sampled=ends[i] == len(ids[i])) for i in range(3)]
        outputs = worker.compute(0, n_layers, *asked)
        assert [output.error for output in outputs] == [""] * 3
        at = ends
        for i, output in enumerate(outputs):
            assert (output.token is None) == (step == 0 and i == 1)
            ids[i] += [] if output.token is None else [output.token]
    for i in range(3):
        n = len(ids[i]) - len(PROMPTS[i])
        assert ids[i][len(PROMPTS[i]) :] == worker.tokens_alone(i, n) and n >= 3


def test_a_session_that_wants_a_vector_gets_it_beside_others_that_get_tokens(worker: Worker) -> None:
    n_layers, wants = worker.spec.n_layers, Sampling(vector=True)
    worker.open(0, n_layers)
    asked = [rows(i, 0, *PROMPTS[i]) for i in range(3)]
    asked[1] = SessionRows(SESSIONS[1], 0, PROMPTS[1], True, None, wants)
    first, vector, last = worker.compute(0, n_layers, *asked)
    assert [first.token, last.token] == [worker.tokens_alone(i, 1)[0] for i in (0, 2)]
    worker.alone.forward(list(PROMPTS[1]), worker.alone.new_kv(kind="f16"))
    want = worker.alone.normed(0)
    assert vector.token is None and bytes(vector.frame or b"") == want.tobytes()
    (alone,) = worker.compute(0, n_layers, asked[1])
    assert bytes(alone.frame or b"") == want.tobytes() and alone.info is not None and alone.info.shape == (1, len(want))


def test_what_was_found_fastest_is_taken_between_two_tokens_and_changes_none(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_layers, isa = worker.spec.n_layers, kernels.isa()
    wanted = worker.tokens_alone(0, 4)
    products = list(worker.worker.products)
    assert {product.summed for product in products} == {False, True}
    taken: list[Choices] = []
    choose = Decoder.choose
    monkeypatch.setattr(Decoder, "choose", lambda self, ways: (taken.append(ways), choose(self, ways)))
    worker.open(0, n_layers)
    ids, found = list(PROMPTS[0]), []
    for way in candidates(isa)[:4]:
        (output,) = worker.compute(0, n_layers, rows(0, len(ids) - 1 if found else 0, *(ids[-1:] if found else ids)))
        assert output.token is not None
        ids.append(output.token)
        found.append(dict.fromkeys(products, Choice(way, 1e9, 1.0)))
        worker.worker.choose(found[-1])
    assert ids[len(PROMPTS[0]) :] == wanted
    worker.open(0, n_layers, 2 * CONTEXT)
    worker.compute(0, n_layers, rows(0, 0, *PROMPTS[0]))
    assert taken == [{}, *found, found[-1]], "of the decoder that there was, and of a larger one"


def test_each_session_keeps_keys_and_values_in_its_own_format(worker: Worker) -> None:
    n_layers = worker.spec.n_layers
    kinds: tuple[KvFormat, ...] = ("f16", "q8_0", "f16")
    for session, kind in zip(SESSIONS, kinds, strict=True):
        worker.worker.put(OpenKv(session, MODEL, 0, n_layers, CONTEXT, 0, kind))
    outputs = worker.compute(0, n_layers, *(rows(i, 0, *PROMPTS[i]) for i in range(3)))
    assert [[output.token] for output in outputs] == [worker.tokens_alone(i, 1, kinds[i]) for i in range(3)]
    # Opened again in another format, what was there is gone.
    worker.worker.put(OpenKv(SESSIONS[1], MODEL, 0, n_layers, CONTEXT, len(PROMPTS[1])))
    (output,) = worker.compute(0, n_layers, rows(1, len(PROMPTS[1]), 5))
    assert output.error == FORGOTTEN
    (output,) = worker.compute(0, n_layers, rows(1, 0, *PROMPTS[1]))
    assert [output.token] == worker.tokens_alone(1, 1)


def test_a_session_samples_as_was_asked_for_last(worker: Worker) -> None:
    n_layers = worker.spec.n_layers
    worker.open(0, n_layers)
    biases = [(TokenBias(token, 100.0),) for token in (17, 170)]
    sampled = []
    for i, bias in enumerate(biases):
        asked = Sampling(temperature=1.0, seed=7, logit_bias=bias)
        (output,) = worker.compute(0, n_layers, SessionRows(SESSIONS[0], i, (5,), True, None, asked))
        sampled.append(output.token)
    assert sampled == [17, 170]


@pytest.mark.parametrize("moves", [False, True])
def test_a_session_may_begin_with_the_kv_of_another(worker: Worker, moves: bool) -> None:
    n_layers, n = worker.spec.n_layers, len(PROMPTS[1])
    worker.open(0, n_layers)
    worker.compute(0, n_layers, rows(1, 0, *PROMPTS[1]))
    worker.worker.put(OpenKv(SESSIONS[2], MODEL, 0, n_layers, CONTEXT, n - 1, source=SESSIONS[1], moves=moves))
    (output,) = worker.compute(0, n_layers, rows(2, n - 1, PROMPTS[1][-1]))
    assert [output.token] == worker.tokens_alone(1, 1)
    (output,) = worker.compute(0, n_layers, rows(1, n - 1, PROMPTS[1][-1]))
    assert output.error == (FORGOTTEN if moves else "")
    worker.worker.put(OpenKv(SESSIONS[0], MODEL, 0, n_layers, CONTEXT, 5, source=SessionId("f" * 32), moves=moves))
    (output,) = worker.compute(0, n_layers, rows(0, 5, 1))
    assert output.error == FORGOTTEN, "a source that is gone"


def test_stages_pass_on_a_frame_for_each_session(worker: Worker) -> None:
    n_layers = worker.spec.n_layers
    want = [worker.tokens_alone(i, 1)[0] for i in range(3)]
    worker.open(0, 1)
    first = worker.compute(0, 1, *(rows(i, 0, *PROMPTS[i]) for i in range(3)))
    assert [output.info and output.info.shape for output in first] == [
        (len(prompt), worker.spec.hidden) for prompt in PROMPTS
    ]
    worker.open(1, n_layers)
    onward = (rows(i, 0, *PROMPTS[i], frame=first[i].frame) for i in range(3))
    assert [output.token for output in worker.compute(1, n_layers, *onward)] == want


def test_a_session_that_is_not_ready_stays_out_of_the_step_and_hears_why(worker: Worker) -> None:
    n_layers = worker.spec.n_layers
    worker.open(0, n_layers)
    worker.worker.put(DropKv(SESSIONS[0]))
    too_long = [5] * (CONTEXT + 1)
    gone, full, fine = worker.compute(0, n_layers, rows(0, 0, 5), rows(1, 0, *too_long), rows(2, 0, *PROMPTS[2]))
    assert gone == StepOutput(error=FORGOTTEN)
    assert full.error.startswith(f"{CONTEXT + 1} tokens do not fit the context")
    assert fine == StepOutput(token=worker.tokens_alone(2, 1)[0])
    (ahead,) = worker.compute(0, n_layers, rows(2, 3, 5))
    assert ahead.error == FORGOTTEN, "positions before it are missing"


def test_a_step_that_fails_as_a_whole_fails_for_each_of_its_sessions(worker: Worker) -> None:
    n_layers = worker.spec.n_layers
    worker.open(0, n_layers)
    outputs = worker.compute(0, n_layers, rows(0, 0, 5), rows(1, 0, worker.spec.vocab))
    assert all("outside the vocabulary" in output.error for output in outputs) and len(outputs) == 2
    (again,) = worker.compute(0, n_layers, rows(0, 0, *PROMPTS[0]))
    assert again.token == worker.tokens_alone(0, 1)[0]


FORMS = (
    SAMPLING,
    Sampling(),
    Sampling(temperature=0.7, seed=3, presence_penalty=0.6, repetition_penalty=1.2, repeat_last_n=4, n_told=3),
)


@pytest.mark.parametrize("sampling", FORMS)
@pytest.mark.parametrize("n_right", [0, 1, 3])
def test_a_step_with_guesses_brings_the_tokens_that_steps_without_would(
    worker: Worker, sampling: Sampling, n_right: int
) -> None:
    """As many as were guessed right, and the one that was not, with what is told of each."""
    n_layers, prompt = worker.spec.n_layers, PROMPTS[0]
    worker.open(0, n_layers)
    one_by_one: list[StepOutput] = []
    ids = list(prompt)
    for at in (0, *range(len(prompt), len(prompt) + 4)):
        asked = SessionRows(SESSIONS[0], at, tuple(ids[at:]), True, None, sampling, tuple(ids))
        one_by_one += worker.compute(0, n_layers, asked)
        ids.append(one_by_one[-1].token or 0)
    n, (first, *coming) = len(prompt), ids[len(prompt) :]
    worker.compute(0, n_layers, SessionRows(SESSIONS[1], 0, prompt, False))
    guesses = [*coming[:n_right], *(token + 1 for token in coming[n_right:3])]
    known = (*prompt, first)
    step = SessionRows(SESSIONS[1], n, (first, *guesses), True, None, sampling, known, n_guesses=3)
    (output,) = worker.compute(0, n_layers, step)
    assert (output.token, *output.more) == tuple(coming[: n_right + 1]) and not output.error
    told = [output.told, *output.more_told] if sampling.n_told else []
    assert told == [each.told for each in one_by_one[1 : n_right + 2] if sampling.n_told]
    # The next step begins behind what came, and forgets the rest.
    at = n + n_right + 1
    asked = SessionRows(SESSIONS[1], at, (ids[at],), True, None, sampling, tuple(ids[: at + 1]))
    (output,) = worker.compute(0, n_layers, asked)
    if at + 1 < len(ids):
        assert output.token == ids[at + 1]


def test_a_form_tells_what_it_asks_for_next(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    n_layers = worker.spec.n_layers
    worker.open(0, n_layers)
    asked: list[tuple[int, ...]] = []

    class Form:
        def allowed(self, model: ModelId, rows: SessionRows, n_vocab: int) -> np.ndarray:
            return np.arange(n_vocab) == 17 + len(rows.answer)

        def forced(self, model: ModelId, rows: SessionRows) -> tuple[int, ...]:
            asked.append(rows.answer)
            if rows.session == SESSIONS[2]:
                raise ValueError("no idea")
            return (18 + len(rows.answer),)

    monkeypatch.setattr(worker.worker, "_constraints", Form())
    step = SessionRows(SESSIONS[0], 0, (5, 17), True, None, Sampling(grammar="g"), n_guesses=1)
    (output,) = worker.compute(0, n_layers, step)
    assert (output.token, output.more, output.forced) == (17, (18,), (20,)) and asked == [(17, 18)]
    (output,) = worker.compute(0, n_layers, SessionRows(SESSIONS[1], 0, (5,), True, None, SAMPLING))
    assert output.forced == ()
    (output,) = worker.compute(0, n_layers, SessionRows(SESSIONS[2], 0, (5,), True, None, Sampling(grammar="g")))
    assert (output.token, output.forced, output.error) == (17, (), ""), "the token was there already"


def test_guesses_of_one_session_share_a_step_with_tokens_of_others(worker: Worker) -> None:
    n_layers = worker.spec.n_layers
    want = [worker.tokens_alone(i, 3) for i in range(3)]
    worker.open(0, n_layers)
    worker.compute(0, n_layers, *(rows(i, 0, *PROMPTS[i]) for i in range(3)))
    asked = [rows(i, len(PROMPTS[i]), want[i][0]) for i in range(3)]
    asked[1] = SessionRows(SESSIONS[1], len(PROMPTS[1]), tuple(want[1][:2]), True, None, SAMPLING, n_guesses=1)
    outputs = worker.compute(0, n_layers, *asked)
    assert [(output.token, *output.more) for output in outputs] == [(want[0][1],), tuple(want[1][1:3]), (want[2][1],)]


def test_a_token_that_cannot_be_sampled_leaves_those_before_it(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    n_layers, n = worker.spec.n_layers, len(PROMPTS[0])
    want = worker.tokens_alone(0, 3)
    worker.open(0, n_layers)
    worker.compute(0, n_layers, rows(0, 0, *PROMPTS[0]))

    def broken(logits: np.ndarray, params: SamplingParams, position: int, *more: object) -> int:
        if position == n + 2:
            raise ValueError("no number")
        return sample(logits, params, position, ())

    monkeypatch.setattr(compute, "sample", broken)
    step = SessionRows(SESSIONS[0], n, tuple(want[:2]), True, None, SAMPLING, n_guesses=1)
    (output,) = worker.compute(0, n_layers, step)
    assert (output.token, output.more, output.error) == (want[1], (), "")
    (output,) = worker.compute(0, n_layers, rows(0, n + 1, want[1]))
    assert "no number" in output.error
