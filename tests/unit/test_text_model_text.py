"""One model's text side: prompts of conversations and of texts, and what refuses them."""

from __future__ import annotations

import pytest

from swarm.answers import Channel, Piece
from swarm.errors import ContextFull, TextError
from swarm.text.model_text import ModelText, Prompt, check_fits, common_prefix
from swarm.text.template import ChatTemplate, built_in
from swarm.text.tokenizer import Tokenizer
from tests.helpers.tiny_text import VOCAB, text_metadata

TOKENIZER = Tokenizer.from_metadata(text_metadata("glm4"))
HI = [{"role": "user", "content": "Hi"}]


def text_of(name: str | None) -> ModelText:
    template = ChatTemplate(built_in(name), control=TOKENIZER.vocabulary.control) if name else None
    return ModelText("tiny", TOKENIZER, template, len(VOCAB))


def test_a_conversation_knows_whether_it_opens_the_thinking() -> None:
    prompt = text_of("intellect-3").chat(HI, context=100)
    assert prompt.is_chat and prompt.opens_thinking
    assert not text_of("chatml").chat(HI, context=100).opens_thinking


def test_a_text_or_ids_are_continued_as_they_are() -> None:
    text = text_of(None)
    assert text.continuation("Once", context=100) == Prompt(TOKENIZER.encode("Once"))
    assert text.continuation((1, 2), context=100) == Prompt([1, 2])


def test_only_a_chat_is_read_for_thinking() -> None:
    text = text_of("intellect-3")
    ids = TOKENIZER.encode("hm</think> a", special=True)
    chat, continued = text.reader(text.chat(HI, context=100), []), text.reader(text.continuation([1], context=100), [])
    assert next(piece for i in ids for piece in chat.push(i)) == Piece("h", Channel.THINKING)
    assert not any(piece.thinking for i in ids for piece in continued.push(i))


def test_what_is_no_prompt_is_refused() -> None:
    with pytest.raises(TextError, match=r"tiny has no chat template.*--raw"):
        text_of(None).chat(HI, context=100)
    with pytest.raises(TextError, match=f"{len(VOCAB)} is no token of this model"):
        text_of(None).continuation([len(VOCAB)], context=100)
    with pytest.raises(TextError, match="empty"):
        check_fits([], 10)
    with pytest.raises(ContextFull, match="10 tokens and the context holds 10"):
        check_fits([1] * 10, 10)


def test_a_common_prefix_is_counted() -> None:
    assert [common_prefix([1, 2, 3], other) for other in ([1, 2, 4], [1, 2], [9], [1, 2, 3, 4])] == [2, 2, 0, 3]


def test_what_can_never_fit_is_refused_by_its_length_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "encode", lambda *args, **options: pytest.fail("it was counted"))
    text = text_of("chatml")
    words = "the conversation has at least 10[0-9]* tokens and the context holds 1000; start anew"
    long = "x" * (1000 * max(map(len, VOCAB)))
    with pytest.raises(ContextFull, match=words):
        text.continuation(long, context=1000)
    with pytest.raises(ContextFull, match=words):
        text.chat([{"role": "user", "content": long}], context=1000)


def test_marks_in_a_text_that_is_continued_are_read_as_such() -> None:
    text, mark = text_of(None), TOKENIZER.token_id("<|user|>")
    assert text.continuation("<|user|>", context=100).ids == [mark]
    assert text.continuation("a<|user|>b", context=100).ids == [*TOKENIZER.encode("a"), mark, *TOKENIZER.encode("b")]


def test_a_text_that_begins_with_the_mark_of_its_beginning_gets_no_second_one() -> None:
    tokenizer = Tokenizer.from_metadata(text_metadata("llama") | {"tokenizer.ggml.add_bos_token": True})
    bos = tokenizer.bos_id
    assert bos is not None
    text = ModelText("m", tokenizer, None, len(VOCAB))
    for prompt in ("a", f"{tokenizer.token_name(bos)}a"):
        assert text.continuation(prompt, context=100).ids == [bos, *tokenizer.encode("a")]


def test_a_text_to_embed_ends_with_the_mark_where_the_vocabulary_says_so() -> None:
    end = VOCAB.index("<|endoftext|>") if "<|endoftext|>" in VOCAB else 3
    said = {"tokenizer.ggml.eos_token_id": end, "tokenizer.ggml.add_eos_token": True}
    marked = ModelText("tiny", Tokenizer.from_metadata(text_metadata("glm4") | said), None, len(VOCAB))
    plain = text_of(None)
    ids = TOKENIZER.encode("Once upon")
    assert plain.embedded("Once upon", context=100, cuts=False).ids == ids
    assert marked.embedded("Once upon", context=100, cuts=False).ids == [*ids, end]
    assert marked.embedded(ids, context=100, cuts=False).ids == ids, "ids are taken as they are"
    assert marked.continuation("Once upon", context=100).ids == ids, "a text that goes on does not end"


def test_a_text_to_embed_that_is_too_long_is_refused_or_cut_to_its_beginning() -> None:
    text, ids = text_of(None), TOKENIZER.encode("Once upon a time " * 50)
    with pytest.raises(ContextFull):
        text.embedded("Once upon a time " * 5000, context=10, cuts=False)
    assert text.embedded("Once upon a time " * 5000, context=10, cuts=True).ids == ids[:9]
    assert text.embedded(ids, context=10, cuts=True).ids == ids[:9]
    with pytest.raises(TextError, match="is no token"):
        text.embedded([len(VOCAB)], context=10, cuts=False)
