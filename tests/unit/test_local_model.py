"""The Python API against a decoder without weights: turns, threads, sampling, what is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from swarm.errors import ConfigError, ContextFull, OutOfMemory, TextError
from swarm.local.model import Model, load
from swarm.models.sizes import fitting_context
from swarm.store import fetching, tensor_digests
from tests.helpers.fake_decoder import FakeDecoder
from tests.helpers.local_models import HI, TOKENIZER, model_of, model_saying
from tests.helpers.tiny import make_tiny
from tests.helpers.tiny_text import VOCAB


def test_the_next_turn_of_a_chat_reuses_the_one_before() -> None:
    decoder = FakeDecoder(vocab=len(VOCAB), context=500, script={})
    model = model_of(decoder, "chatml")
    answer = model.chat(HI, temperature=0.0, max_tokens=5)
    assert answer.text == "\0" * 5  # token 0 is that byte
    turn = [*HI, {"role": "assistant", "content": answer.text}, {"role": "user", "content": "And?"}]
    after = model.chat(turn, temperature=0.0, max_tokens=1)
    list(after)
    assert after.stats.cached_tokens >= answer.stats.prompt_tokens + 4


def test_two_answers_at_once_do_not_disturb_each_other() -> None:
    model = model_of(FakeDecoder(vocab=len(VOCAB), context=500))
    expected = [_tokens(model_of(FakeDecoder(vocab=len(VOCAB), context=500)), i) for i in (1, 2)]
    first, second = model.generate([1], seed=1, max_tokens=20), model.generate([2], seed=2, max_tokens=20)
    for _ in range(30):
        next(first, None)
        next(second, None)
    assert [first.tokens, second.tokens] == expected


def test_answers_in_several_threads_are_those_of_one() -> None:
    model = model_of(FakeDecoder(vocab=len(VOCAB), context=500))
    expected = {i: _tokens(model_of(FakeDecoder(vocab=len(VOCAB), context=500)), i) for i in range(1, 6)}
    got: dict[int, list[int]] = {}
    threads = [threading.Thread(target=lambda i=i: got.update({i: _tokens(model, i)})) for i in expected]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet inside a step
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert got == expected


def _tokens(model: Model, i: int) -> list[int]:
    answer = model.generate([i], seed=i, max_tokens=20)
    list(answer)
    return answer.tokens


def test_sampling_fields_override_params() -> None:
    model, _ = model_saying("a", prompt=[1])
    answer = model.generate([1], params=SamplingParams(top_k=3, seed=4), temperature=0.5)
    assert answer.order.params == SamplingParams(top_k=3, seed=4, temperature=0.5)
    with pytest.raises(ConfigError, match="temperature is -1"):
        model.generate([1], temperature=-1.0)


def test_a_seed_is_drawn_for_every_answer_without_one() -> None:
    model, _ = model_saying("a", prompt=[1])
    seeds = {model.generate([1]).order.params.seed for _ in range(5)}
    assert len(seeds) == 5 and None not in seeds


def test_what_cannot_be_answered_is_refused_at_once() -> None:
    model, _ = model_saying("a", prompt=[1], context=20)
    with pytest.raises(TextError, match="is empty"):
        model.generate([])
    with pytest.raises(TextError, match=f"{len(VOCAB)} is no token of this model"):
        model.generate([len(VOCAB)])
    with pytest.raises(ContextFull, match="start anew"):
        model.chat([{"role": "user", "content": "word " * 50}])
    with pytest.raises(ConfigError, match="max_tokens is -1"):
        model.generate([1], max_tokens=-1)
    with pytest.raises(TextError, match="is no token"):
        model.logits([-1])
    with pytest.raises(ConfigError, match="21 tokens are more than the context of 20"):
        model.logits([1] * 21)


def test_a_model_without_a_template_says_how_to_use_it() -> None:
    spec = SimpleNamespace(vocab=9)
    model = Model(Path("tiny.gguf"), spec, TOKENIZER, None, FakeDecoder(), threads=1)  # type: ignore[arg-type]
    with pytest.raises(TextError, match=r"tiny\.gguf has no chat template.*--raw"):
        model.chat(HI)


def test_logits_are_those_of_a_fresh_sequence() -> None:
    model, decoder = model_saying("abc", prompt=[1])
    list(model.generate([1]))
    assert np.array_equal(model.logits([1, 2]), decoder.logits(np.array([1, 2], np.int32)))


@pytest.mark.parametrize(
    ("wanted", "room", "context"),
    [(0, 10**9, 8192), (0, 5000 * 100, 4096), (0, 0, 1024), (0, -5, 1024), (3000, 3000 * 100, 3000)],
)
def test_the_context_is_what_was_asked_for_or_what_fits(wanted: int, room: int, context: int) -> None:
    spec = SimpleNamespace(context_length=32768)
    assert fitting_context(spec, wanted, 100, room) == context  # type: ignore[arg-type]


def test_a_context_that_cannot_be_is_refused_with_what_could_be() -> None:
    spec = SimpleNamespace(context_length=4096)
    assert fitting_context(spec, 0, 100, 10**9) == 4096  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="made for at most 4096"):
        fitting_context(spec, 5000, 100, 10**9)  # type: ignore[arg-type]
    with pytest.raises(OutOfMemory, match="2999 tokens would fit"):
        fitting_context(spec, 3000, 100, 2999 * 100)  # type: ignore[arg-type]


def test_importing_swarm_is_quick_and_its_names_are_there() -> None:
    program = "import sys, swarm; print('numpy' in sys.modules); print(swarm.load, swarm.Model, swarm.SamplingParams)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("False\n")
    assert set(swarm.__all__) <= {*dir(swarm), *swarm._WHERE}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = swarm.nothing


WITHOUT_NETWORK = """
import sys

def hook(event, arguments):
    is_far = event == "socket.connect" and not isinstance(arguments[1], (str, bytes))
    if is_far or event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        sys.exit(f"{event} {arguments}")

sys.addaudithook(hook)
import swarm, swarm.api.app, swarm.convert, swarm.node.node, swarm.cli.main
model = swarm.load(sys.argv[1], threads=1)
assert str(model.generate([5, 6], max_tokens=2).text) is not None
sys.exit(swarm.cli.main.main(["run", "--alone", sys.argv[1], "hi", "--max-tokens", "2"]))
"""


def test_importing_and_answering_ask_nothing_of_the_network(own_home: Path, tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", "glm4")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-500:]


def test_a_file_that_was_looked_at_whole_is_not_hashed_again(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", "glm4")
    hashed: list[Path] = []
    monkeypatch.setattr(tensor_digests.CheckedGGUF, "_look_at", lambda self, name: hashed.append(path))
    for looked_at in (True, False):
        monkeypatch.setattr(fetching, "is_looked_at", lambda path, answer=looked_at: answer)
        assert load(path, threads=1).logits([5, 6]).shape[0] == 2
        assert bool(hashed) is not looked_at
