"""Models on this device without weights, that say what they are told to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from swarm.local.answer import LocalAnswer
from swarm.local.model import Model
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
