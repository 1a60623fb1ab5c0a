"""Tokenizers from small vocabularies: special tokens, broken metadata, streaming."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import BadModelFile, ModelError, TextError, UnsupportedModel
from swarm.text.pretokenizers import PRETOKENIZERS
from swarm.text.tokenizer import Tokenizer
from swarm.text.vocab import Vocabulary
from tests.helpers.pauses import PauseWatch
from tests.helpers.tiny_text import SPECIAL, VOCAB, byte_characters, text_metadata

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def bpe_metadata(**changes: object) -> dict[str, object]:
    """A byte-level vocabulary with <think> as GLM has it: an added token, but no control token."""
    metadata = text_metadata("glm4")
    types = [
        USER_DEFINED if token in ("<think>", "</think>") else kind for token, kind in zip(VOCAB, kinds(), strict=True)
    ]
    metadata["tokenizer.ggml.token_type"] = types
    return metadata | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}


def kinds() -> list[int]:
    types = text_metadata("glm4")["tokenizer.ggml.token_type"]
    assert isinstance(types, list | np.ndarray)
    return [int(kind) for kind in types]


def spm_metadata(**changes: object) -> dict[str, object]:
    """A SentencePiece vocabulary: all bytes, and the pieces of a few words."""
    words = ["▁", "a", "b", "▁a", "ab", "▁ab", "é"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, "[X]"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(words), USER_DEFINED]
    metadata: dict[str, object] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(words))] + [0.0],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return metadata | {f"tokenizer.ggml.{name}": value for name, value in changes.items()}


BPE = Tokenizer.from_metadata(bpe_metadata())
SPM = Tokenizer.from_metadata(spm_metadata())
COMPOSING = Tokenizer.from_metadata(text_metadata("qwen3"))
BOTH = pytest.mark.parametrize("tokenizer", [BPE, SPM], ids=["bpe", "spm"])


def names(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.token_name(i) for i in ids]


def test_control_tokens_are_read_only_where_asked_for() -> None:
    assert BPE.token_id("<|user|>") in BPE.encode("<|user|>", special=True)
    assert BPE.token_id("<|user|>") not in BPE.encode("<|user|>")
    assert BPE.decode(BPE.encode("<|user|>")) == "<|user|>"


def test_a_literal_position_keeps_a_mark_that_covers_it_from_being_read() -> None:
    text = "<|user|><|user|>"
    ids = BPE.encode(text, special=True, literal=[10])
    assert ids[0] == BPE.token_id("<|user|>")
    assert ids.count(ids[0]) == 1
    assert BPE.decode(ids, special=True) == text


def test_added_tokens_that_are_no_control_tokens_are_read_everywhere_and_printed() -> None:
    ids = BPE.encode("a<think>b")
    assert names(BPE, ids) == ["a", "<think>", "b"]
    assert BPE.decode(ids) == "a<think>b"


def test_control_tokens_are_not_printed_unless_asked_for() -> None:
    ids = BPE.encode("[gMASK]<sop>a", special=True)
    assert len(ids) == 3
    assert BPE.decode(ids) == "a"
    assert BPE.decode(ids, special=True) == "[gMASK]<sop>a"


def test_thinking_tags_are_printed_even_where_the_file_calls_them_control_tokens() -> None:
    tokenizer = Tokenizer.from_metadata(text_metadata("glm4"))
    assert tokenizer.decode(tokenizer.encode("<think>a</think>", special=True)) == "<think>a</think>"
    assert tokenizer.token_id("<think>") not in tokenizer.encode("<think>")


def test_a_word_of_plain_text_never_becomes_a_control_token_of_that_name() -> None:
    tokens = [*VOCAB, "stop"]
    metadata = bpe_metadata(pre="llama-bpe", tokens=tokens, token_type=[*kinds(), CONTROL])
    assert len(tokens) - 1 not in Tokenizer.from_metadata(metadata).encode("stop")


def test_the_longest_mark_at_a_place_wins() -> None:
    tokens = [*VOCAB, "<|user|>s"]
    tokenizer = Tokenizer.from_metadata(bpe_metadata(tokens=tokens, token_type=[*kinds(), CONTROL]))
    assert names(tokenizer, tokenizer.encode("<|user|>s<|user|>", special=True)) == ["<|user|>s", "<|user|>"]


def test_tokens_that_look_like_marks_count_as_control_whatever_the_file_says() -> None:
    tokenizer = Tokenizer.from_metadata(bpe_metadata(token_type=[NORMAL] * len(VOCAB)))
    assert tokenizer.token_id("<|user|>") not in tokenizer.encode("<|user|>")
    assert tokenizer.decode([tokenizer.token_id("<|user|>") or 0]) == ""


def test_end_tokens_are_those_listed_and_those_known_by_name() -> None:
    ends = Tokenizer.from_metadata(bpe_metadata(eos_token_id=0, eot_token_id=1, eom_token_id=2)).end_tokens
    known = ("<|endoftext|>", "<|user|>", "<|observation|>", "<|im_end|>", "<|eot_id|>")
    assert ends == {0, 1, 2, *(VOCAB.index(name) for name in known)}


def test_an_end_token_beyond_the_vocabulary_is_none() -> None:
    assert 2**32 - 1 not in Tokenizer.from_metadata(bpe_metadata(eos_token_id=2**32 - 1)).end_tokens


def test_the_beginning_is_added_where_asked_for() -> None:
    assert BPE.encode("a", add_bos=True) == [BPE.bos_id, *BPE.encode("a")]
    assert SPM.add_bos and not BPE.add_bos
    assert Tokenizer.from_metadata({**bpe_metadata(pre="llama-bpe", add_bos_token=None)}).add_bos


@BOTH
@given(text=st.text())
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(0 <= i < len(tokenizer) for i in ids)
    assert tokenizer.decode(ids) == text


@BOTH
@given(ids=st.lists(st.integers(-3, 400), max_size=40))
def test_a_stream_gives_what_decoding_at_once_gives_for_any_tokens(tokenizer: Tokenizer, ids: list[int]) -> None:
    stream = tokenizer.stream()
    parts = [stream.push(i) for i in ids]
    text = "".join(parts) + stream.finish()
    assert text == tokenizer.decode(ids) or text == " " + tokenizer.decode(ids)


def test_a_stream_holds_a_character_back_until_it_is_whole() -> None:
    alphabet = byte_characters()
    llama = "🦙".encode()
    ids = [VOCAB.index(alphabet[byte]) for byte in llama]
    stream = BPE.stream()
    assert [stream.push(i) for i in ids] == ["", "", "", "🦙"]
    assert stream.finish() == ""
    assert [stream.push(ids[0]), stream.push(VOCAB.index("a"))] == ["", "\ufffda"]
    stream.push(ids[0])
    assert stream.finish() == "\ufffd"


def test_lone_surrogates_become_replacement_characters() -> None:
    assert BPE.decode(BPE.encode("a\ud800b")) == "a\ufffdb"
    assert BPE.decode(BPE.encode("\ud83e\udd99")) == "🦙"


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(TextError, match="expected text, got int"):
        BPE.encode(7)  # type: ignore[arg-type]


def test_sentencepiece_puts_a_space_before_words_unless_the_file_says_otherwise() -> None:
    assert names(SPM, SPM.encode("ab ab")) == ["▁ab", "▁ab"]
    assert names(SPM, SPM.encode("ab[X]ab")) == ["▁ab", "[X]", "▁ab"]
    bare = Tokenizer.from_metadata(spm_metadata(add_space_prefix=False))
    assert names(bare, bare.encode("ab ab")) == ["ab", "▁ab"]


def test_sentencepiece_falls_back_to_bytes() -> None:
    assert names(SPM, SPM.encode("é"))[-1] == "é"
    assert names(SPM, SPM.encode("ü"))[-2:] == ["<0xC3>", "<0xBC>"]


def test_sentencepiece_does_not_read_control_tokens_in_text() -> None:
    assert 2 not in SPM.encode("</s>")
    assert SPM.encode("</s>", special=True) == [2]


def test_empty_and_double_tokens_do_no_harm() -> None:
    double = Tokenizer.from_metadata(spm_metadata(tokens=[*_tokens(spm_metadata())[:-1], "▁ab"]))
    assert double.encode("ab") == SPM.encode("ab")
    empty = Tokenizer.from_metadata(spm_metadata(tokens=[*_tokens(spm_metadata())[:-1], ""]))
    assert empty.encode("ab") == SPM.encode("ab")


@pytest.mark.parametrize("pre", PRETOKENIZERS)
def test_every_known_name_encodes_and_decodes(pre: str) -> None:
    tokenizer = Tokenizer.from_metadata(bpe_metadata(pre=pre))
    text = "It's 12345 o'clock;  naïve\r\n\n\tWord 変わる 🦙!! <<a>> don'T"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_file_that_names_no_pre_tokenizer_gets_the_default() -> None:
    assert Tokenizer.from_metadata(bpe_metadata(pre=None)).encode("a 12") == BPE.encode("a 12")


@pytest.mark.parametrize(
    ("marks", "pre"),
    [
        (("<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>"), "llama-bpe"),
        (("[gMASK]", "<sop>", "<|assistant|>"), "glm4"),
        (("<|im_start|>", "<|fim_prefix|>", "<|repo_name|>"), "qwen2"),
    ],
)
def test_a_file_that_names_none_is_cut_as_its_tokens_tell(
    marks: tuple[str, ...], pre: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = [f"x{token}" if token in (*SPECIAL, *marks) else token for token in VOCAB]
    tokens[-len(marks) :] = marks
    vocabulary = Vocabulary.from_metadata(bpe_metadata(pre=None, tokens=tokens))
    assert vocabulary.pre is PRETOKENIZERS[pre] and not vocabulary.is_cut_by_guess
    Tokenizer.from_metadata(bpe_metadata(pre=None, tokens=tokens))
    assert not caplog.records


def test_a_file_that_tells_nothing_of_words_is_cut_by_guess_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    tokens = [f"<|{i}|>" if token.startswith(("<", "[")) else token for i, token in enumerate(VOCAB)]
    Tokenizer.from_metadata(bpe_metadata(pre=None, tokens=tokens))
    assert "no tokenizer.ggml.pre: its words are cut as GPT-2 cuts them" in caplog.text


def test_a_type_that_is_not_defined_is_that_of_a_word() -> None:
    types = list(bpe_metadata()["tokenizer.ggml.token_type"])  # type: ignore[call-overload]
    types[70] = 0
    assert Tokenizer.from_metadata(bpe_metadata(token_type=types)).encode("a b") == BPE.encode("a b")


def test_a_merge_in_a_hundred_may_be_left_behind() -> None:
    known = [merge for merge in bpe_metadata()["tokenizer.ggml.merges"] for _ in range(1)]  # type: ignore[attr-defined]
    many = known * (100 // len(known) + 1)
    tokenizer = Tokenizer.from_metadata(bpe_metadata(merges=[*many, "zz qq"]))
    assert tokenizer.encode("the word ab") == Tokenizer.from_metadata(bpe_metadata(merges=many)).encode("the word ab")


ENDS = """
</s> <EOT> <end_of_turn> <end_of_utterance> <eos> <turn|> <|calls|> <|call|> <|end_of_text|> <|endoftext|> <|end|>
<|eom_id|> <|eot_id|> <|flush|> <|im_end|> <|return|> <|tool_response> <｜end▁of▁sentence｜> [EOS] [EOT] [e~[ _<EOT>
"""


@pytest.mark.parametrize("name", ENDS.split())
def test_every_name_of_an_end_of_turn_ends_an_answer(name: str) -> None:
    tokens = [*VOCAB[:-1], name]
    assert len(tokens) - 1 in Tokenizer.from_metadata(bpe_metadata(tokens=tokens)).end_tokens


def test_the_end_of_a_message_among_several_ends_no_answer() -> None:
    tokens = [*VOCAB[:-3], "<|end|>", "<|return|>", "<|call|>"]
    ends = Tokenizer.from_metadata(bpe_metadata(tokens=tokens)).end_tokens
    assert {len(tokens) - 2, len(tokens) - 1} <= ends and len(tokens) - 3 not in ends


def test_an_unknown_pre_tokenizer_is_named() -> None:
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.ggml\.pre is 'frobnicate'.*supported: .*glm4"):
        Tokenizer.from_metadata(bpe_metadata(pre="frobnicate"))


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.ggml\.model is 'bert'"):
        Tokenizer.from_metadata(bpe_metadata(model="bert"))


BROKEN: dict[str, tuple[dict[str, object], str]] = {
    "no model": (bpe_metadata(model=None), "model is missing"),
    "model is a number": (bpe_metadata(model=7), "model is 7: must be text"),
    "no tokens": (bpe_metadata(tokens=None), "tokens is missing"),
    "empty tokens": (bpe_metadata(tokens=[], token_type=[]), "tokens is empty"),
    "tokens are a text": (bpe_metadata(tokens="abc"), "tokens is 'abc': must be a list"),
    "a token is a number": (bpe_metadata(tokens=[*VOCAB[:-1], 7]), r"tokens\[\d+\] is 7: must be text"),
    "a token is endless": (bpe_metadata(tokens=[*VOCAB[:-1], "x" * 5000]), "has one of 5000 characters"),
    "types are too few": (bpe_metadata(token_type=[1, 1]), "token_type has 2 entries, but there are"),
    "types are out of range": (bpe_metadata(token_type=[9] * len(VOCAB)), "token_type holds numbers outside"),
    "types are texts": (bpe_metadata(token_type=["x"] * len(VOCAB)), "token_type must be a list of numbers"),
    "no merges": (bpe_metadata(merges=None), "merges is missing"),
    "a merge without a space": (bpe_metadata(merges=["ab", "t h"]), r"merges\[0\] is 'ab'"),
    "a merge with an unknown token": (bpe_metadata(merges=["a zzz"]), "merges does not fit"),
    "a merge that makes no token": (bpe_metadata(merges=["a !"]), "merges does not fit"),
    "a merge with a control character": (bpe_metadata(merges=["a \x1b"]), r"merges does not fit .*\\x1b"),
    "an id is a text": (bpe_metadata(eos_token_id="x"), "eos_token_id is 'x': must be a whole number"),
    "a flag is a number": (bpe_metadata(add_bos_token=1), "add_bos_token is 1: must be true or false"),
    "pre is a number": (bpe_metadata(pre=1), "pre is 1: must be text"),
    "no scores": (spm_metadata(scores=None), "scores is missing"),
    "scores are too few": (spm_metadata(scores=[1.0]), "scores has 1 entries"),
    "a score is nan": (spm_metadata(scores=[float("nan")] * 267), "scores holds numbers that are not finite"),
    "no unknown token": (
        spm_metadata(unknown_token_id=None, token_type=[NORMAL] * 267),
        "unknown_token_id is missing",
    ),
}


@pytest.mark.parametrize(("metadata", "why"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_metadata_gives_one_line_that_names_the_field(metadata: dict[str, object], why: str) -> None:
    metadata = {key: value for key, value in metadata.items() if value is not None}
    with pytest.raises(BadModelFile, match=why) as caught:
        Tokenizer.from_metadata(metadata)
    assert "\n" not in str(caught.value)


values = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 2**64), st.floats(), st.text(max_size=5),
    st.lists(st.one_of(st.text(max_size=5), st.integers(0, 9), st.floats()), max_size=300),
)  # fmt: skip


@given(key=st.sampled_from(sorted(spm_metadata() | bpe_metadata())), value=values, base=st.sampled_from(["bpe", "spm"]))
def test_any_value_in_any_field_gives_a_tokenizer_or_a_clear_error(key: str, value: object, base: str) -> None:
    metadata = (bpe_metadata() if base == "bpe" else spm_metadata()) | {key: value}
    try:
        tokenizer = Tokenizer.from_metadata({k: v for k, v in metadata.items() if v is not None})
        tokenizer.decode(tokenizer.encode("Hello <|user|>"))
    except ModelError:
        pass


def test_a_large_vocabulary_loads_fast() -> None:
    """As many tokens and merges as GLM-4 has, within 1.5 s of an idle core."""
    alphabet = byte_characters()
    tokens, merges = list(alphabet), []
    pairs = [a + b for a in alphabet for b in alphabet]
    for i in range(151_000 - 256):
        pair = pairs[i % len(pairs)] if i < len(pairs) else pairs[i % len(pairs)] + alphabet[i // len(pairs)]
        tokens.append(pair)
        merges.append(f"{pair[:-1]} {pair[-1]}")
    merges += merges[:150_000]
    start = time.process_time()
    tokenizer = Tokenizer.from_metadata(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "glm4",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": merges,
        }
    )
    took = time.process_time() - start
    assert tokenizer.decode(tokenizer.encode("abc")) == "abc"
    assert took < 3, f"{took:.2f} s of processor time"


def _tokens(metadata: dict[str, object]) -> list[str]:
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    return tokens


@pytest.mark.parametrize("tokenizer", [BPE, SPM, COMPOSING], ids=["bpe", "spm", "composing"])
@given(text=st.text(max_size=80) | st.text("the reand<|user|>[X]ab ", max_size=200))
def test_no_text_has_fewer_tokens_than_its_length_says(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.least_tokens(text) <= len(tokenizer.encode(text, special=True))


def test_where_characters_are_dropped_the_length_says_nothing() -> None:
    tokenizer = Tokenizer.from_metadata(bpe_metadata(tokens=["QQ" if token == "Q" else token for token in VOCAB]))
    assert tokenizer.encode("Q" * 100) == []
    assert tokenizer.least_tokens("Q" * 100) == 0
    assert 0 < tokenizer.least_tokens("Qa" * 100) == tokenizer.least_tokens("a" * 100)
    first_of_continuations = byte_characters()[0x80]
    tokens = ["QQ" if token == first_of_continuations else token for token in VOCAB]
    assert Tokenizer.from_metadata(bpe_metadata(tokens=tokens)).least_tokens("a" * 100) == 0


@pytest.mark.parametrize("tokenizer", [BPE, SPM, COMPOSING], ids=["bpe", "spm", "composing"])
@pytest.mark.parametrize(
    "text", ["word " * 100_000, "x" * 300_000, "a" + "\u0301\u0323" * 50_000], ids=["words", "one word", "accents"]
)
def test_other_threads_run_while_a_long_text_is_encoded(tokenizer: Tokenizer, text: str) -> None:
    with PauseWatch() as watch:
        tokenizer.encode(text)
    assert watch.longest_s < 0.2


def test_text_is_composed_where_the_model_wants_it() -> None:
    assert COMPOSING.decode(COMPOSING.encode("e\u0301 \u1112\u1161\u11ab")) == "\u00e9 \ud55c"
    assert BPE.decode(BPE.encode("e\u0301")) == "e\u0301"
