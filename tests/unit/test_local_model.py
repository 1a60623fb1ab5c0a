"""The Python API against a decoder without weights: text, thinking, stop strings, figures, turns, threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import swarm
from swarm.answers import Piece
from swarm.engine.sampling import SamplingParams
from swarm.errors import ConfigError, ContextFull, OutOfMemory, TextError
from swarm.local.answer import LocalAnswer
from swarm.local.model import Model
from swarm.models.sizes import fitting_context
from swarm.text.template import ChatTemplate, built_in
from swarm.text.tokenizer import Tokenizer
from tests.helpers.fake_decoder import FakeDecoder
from tests.helpers.tiny_text import VOCAB, text_metadata

TOKENIZER = Tokenizer.from_metadata(text_metadata("glm4"))
HI = [{"role": "user", "content": "Hi"}]


def model_saying(text: str, *, prompt: list[int], context: int = 500) -> tuple[Model, FakeDecoder]:
    """A model that says `text` after `prompt`, then ends."""
    ids = [*TOKENIZER.encode(text, special=True), VOCAB.index("<|endoftext|>")]
    script = {len(prompt) + i: token for i, token in enumerate(ids)}
    decoder = FakeDecoder(vocab=len(VOCAB), context=context, script=script)
    return model_of(decoder), decoder


def model_of(decoder: FakeDecoder, name: str = "intellect-3") -> Model:
    template = ChatTemplate(built_in(name), control=TOKENIZER.vocabulary.control)
    spec = SimpleNamespace(vocab=decoder.vocab)
    return Model(Path("tiny.gguf"), spec, TOKENIZER, template, decoder, threads=1)  # type: ignore[arg-type]


def saying(text: str, **options: object) -> LocalAnswer:
    prompt = TOKENIZER.encode("Once")
    model, _ = model_saying(text, prompt=prompt)
    return model.generate(prompt, temperature=0.0, **options)  # type: ignore[arg-type]


def chatting(text: str, **options: object) -> LocalAnswer:
    prompt = model_of(FakeDecoder()).template.render(HI).encode(TOKENIZER)  # type: ignore[union-attr]
    model, _ = model_saying(text, prompt=prompt)
    return model.chat(HI, temperature=0.0, **options)  # type: ignore[arg-type]


def test_a_text_is_continued() -> None:
    answer = saying(" upon a time")
    assert answer.text == " upon a time"
    assert answer.finish_reason == "stop"
    assert TOKENIZER.decode(answer.tokens) == " upon a time"


def test_pieces_are_whole_characters_and_make_up_the_text() -> None:
    answer = saying("the 🦙 end")
    pieces = list(answer)
    assert "".join(piece.text for piece in pieces) == answer.text == "the 🦙 end"
    assert any("🦙" in piece.text for piece in pieces)
    assert len(pieces) < len(answer.tokens)  # the first bytes of the character made no piece


def test_nothing_is_computed_before_the_first_piece_is_asked_for() -> None:
    model, decoder = model_saying("a", prompt=[1])
    answer = model.generate([1])
    assert not decoder.steps
    assert answer.finish_reason is None
    assert answer.stats.generated_tokens == 0


def test_the_text_while_iterating_is_what_has_come_so_far() -> None:
    answer = saying("abc")
    next(answer)
    assert answer.text == "a"


def test_thinking_is_told_from_the_answer_when_the_prompt_opens_it() -> None:
    answer = chatting("hm\n</think>\n\nHello")
    assert Piece("h", thinking=True) in list(answer)
    assert (answer.thinking_text, answer.text) == ("hm\n", "Hello")


def test_blank_space_before_a_chat_s_answer_is_left_out_but_not_before_a_continuation() -> None:
    assert chatting("</think>\n\n Hello\n").text == "Hello\n"
    assert saying("\n\n Hello").text == "\n\n Hello"


def test_tags_in_a_continued_text_stay() -> None:
    assert saying("<think>a</think>b").text == "<think>a</think>b"


def test_a_stop_string_ends_the_answer_across_pieces_and_not_the_thinking() -> None:
    answer = chatting("a END b</think>c EN, END d", stop=["END"])
    assert (answer.thinking_text, answer.text) == ("a END b", "c EN, ")
    assert answer.finish_reason == "stop"
    assert saying("one two", stop="tw").text == "one "


def test_text_held_back_for_a_stop_string_comes_in_the_end() -> None:
    assert saying("one EN", stop="END").text == "one EN"
    assert chatting("</think>one <", stop="<x").text == "one <"


@pytest.mark.parametrize(("limit", "text"), [(0, ""), (1, "a"), (2, "ab"), (9, "abc")])
def test_max_tokens_limits_the_answer(limit: int, text: str) -> None:
    answer = saying("abc", max_tokens=limit)
    assert answer.text == text
    assert answer.finish_reason == ("stop" if limit == 9 else "length")


def test_a_full_context_ends_the_answer_and_says_so() -> None:
    prompt = TOKENIZER.encode("Once")
    model, _ = model_saying("xyzxyzxyz", prompt=prompt, context=len(prompt) + 4)
    answer = model.generate(prompt, temperature=0.0)
    assert answer.text == "xyzx"
    assert answer.finish_reason == "context"


def test_cancel_keeps_what_has_come() -> None:
    answer = saying("abcdef")
    texts = []
    for piece in answer:
        texts.append(piece.text)
        if piece.text == "c":
            answer.cancel()
    assert (texts, answer.text, answer.finish_reason) == (["a", "b", "c"], "abc", "cancelled")


def test_cancel_before_the_first_piece_gives_an_empty_answer() -> None:
    answer = saying("abc")
    answer.cancel()
    assert (answer.text, answer.finish_reason) == ("", "cancelled")


def test_a_reader_that_goes_away_gives_the_session_back() -> None:
    model, decoder = model_saying("abc", prompt=[1])
    answer = model.generate([1], temperature=0.0)
    next(answer)
    answer.close()
    assert answer.finish_reason == "cancelled"
    assert model.generate([1], temperature=0.0).text == "abc"
    assert len(decoder.kvs) == 1


def test_figures_tell_reused_from_computed_tokens() -> None:
    model, _ = model_saying("abc", prompt=list(range(10)))
    first = model.generate(list(range(10)), temperature=0.0)
    list(first)
    assert (first.stats.prompt_tokens, first.stats.cached_tokens, first.stats.generated_tokens) == (10, 0, 3)
    again = model.generate([*range(10), *first.tokens[:2], 7], temperature=0.0, max_tokens=1)
    list(again)
    assert (again.stats.prompt_tokens, again.stats.cached_tokens) == (13, 12)
    stats = first.stats
    assert 0 < stats.prefill_s <= stats.first_token_s
    assert stats.decode_s > 0
    assert stats.decode_tokens_per_s == pytest.approx(2 / stats.decode_s)
    assert stats.prefill_tokens_per_s == pytest.approx(10 / stats.prefill_s)


def test_the_next_turn_of_a_chat_reuses_the_one_before() -> None:
    decoder = FakeDecoder(vocab=len(VOCAB), context=500, script={})
    model = model_of(decoder, "chatml")
    answer = model.chat(HI, temperature=0.0, max_tokens=5)
    assert answer.text == "\0" * 5  # token 0 is that byte
    turn = [*HI, {"role": "assistant", "content": answer.text}, {"role": "user", "content": "And?"}]
    after = model.chat(turn, temperature=0.0, max_tokens=1)
    list(after)
    assert after.stats.cached_tokens >= answer.stats.prompt_tokens + 4


def test_progress_of_the_prompt_is_told() -> None:
    model, _ = model_saying("a", prompt=[1] * 10)
    seen: list[tuple[int, int]] = []
    list(model.generate([1] * 10, temperature=0.0, progress=lambda done, total: seen.append((done, total))))
    assert seen == [(10, 10)]


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
