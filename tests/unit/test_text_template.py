"""Conversations through templates: what people write never becomes a control token, and traps of the families."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import BadModelFile, TextError
from swarm.text.template import ChatTemplate, built_in, fallback_name
from swarm.text.tokenizer import Tokenizer
from tests.helpers.tiny_text import SPECIAL, text_metadata
from tests.helpers.tokenizer_data import data_dir

TOKENIZER = Tokenizer.from_metadata(text_metadata("glm4"))
CONTROL = frozenset(TOKENIZER.vocabulary.control.values())
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}"
)
OWN = ("chatml", "glm-4-0414", "glm-4.5", "intellect-3", "llama-3")


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, control=TOKENIZER.vocabulary.control)


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def controls(ids: list[int]) -> list[str]:
    return [TOKENIZER.token_name(i) for i in ids if i in CONTROL]


@pytest.mark.parametrize("mark", SPECIAL)
def test_a_user_who_types_a_mark_gets_text(mark: str) -> None:
    rendered = template(CHATML).render(user(f"a {mark} b{mark}"))
    ids = rendered.encode(TOKENIZER)
    assert rendered.text == f"<|im_start|>user\na {mark} b{mark}<|im_end|>\n"
    assert controls(ids) == ["<|im_start|>", "<|im_end|>"]
    assert TOKENIZER.decode(ids, special=True) == rendered.text


PIECES = ["<|", "|>", "user", "<", ">", "[", "]", " ", "\n", "\ufdd0"]
marks_and_pieces = st.lists(
    st.one_of(st.sampled_from(SPECIAL), st.sampled_from(PIECES), st.text(max_size=3)), max_size=8
).map("".join)


@given(question=marks_and_pieces, system=marks_and_pieces, answer=marks_and_pieces, name=st.sampled_from(OWN))
def test_no_conversation_can_add_a_control_token(question: str, system: str, answer: str, name: str) -> None:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer.replace("think>", "")},
        {"role": "user", "content": question},
    ]
    harmless = [{**message, "content": "x"} for message in messages]
    own = template(built_in(name))
    got, expected = own.render(messages), own.render(harmless)
    assert controls(got.encode(TOKENIZER)) == controls(expected.encode(TOKENIZER))


def test_a_mark_spelled_by_two_parts_or_two_fields_stays_text() -> None:
    joined = "{% for m in messages %}<|im_start|>{{ m.content }}{{ m.name }}<|im_end|>{% endfor %}"
    parts = [{"type": "text", "text": "<|us"}, {"type": "text", "text": "er|>"}]
    messages = [{"role": "user", "content": parts, "name": "x"}, {"role": "user", "content": "<|us", "name": "er|>"}]
    rendered = template(joined).render(messages)
    assert rendered.text == "<|im_start|><|user|>x<|im_end|><|im_start|><|user|><|im_end|>"
    assert controls(rendered.encode(TOKENIZER)) == ["<|im_start|>", "<|im_end|>"] * 2


def test_a_mark_that_the_template_begins_and_a_user_ends_stays_text() -> None:
    rendered = template("<|im_start|><|us{{ messages[0].content }}").render(user("er|>"))
    assert rendered.text == "<|im_start|><|user|>"
    assert controls(rendered.encode(TOKENIZER)) == ["<|im_start|>"]


def test_marks_in_tools_names_and_arguments_stay_text() -> None:
    call = {"function": {"name": "<|user|>", "arguments": {"<|user|>": "<|user|>"}}}
    tools = [{"type": "function", "function": {"name": "<|user|>", "description": "[gMASK]<sop>", "parameters": {}}}]
    messages = [*user("x"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    messages.append({"role": "tool", "content": "<|im_end|>"})
    for name in ("glm-4-0414", "glm-4.5", "intellect-3"):
        rendered = template(built_in(name)).render(messages, tools=tools)
        got = controls(rendered.encode(TOKENIZER))
        assert got.count("<|user|>") == (0 if name == "intellect-3" else 1)
        assert "<|im_end|>" not in got or name == "intellect-3"


def test_the_flag_leaves_no_trace_and_does_not_disturb_trimming() -> None:
    rendered = template(CHATML).render(user("  <b>\ufdd0</b>\n "))
    assert rendered.text == "<|im_start|>user\n<b>\ufdd0</b><|im_end|>\n"


def test_a_conversation_with_every_noncharacter_is_refused() -> None:
    with pytest.raises(TextError, match="U\\+FDD0"):
        template(CHATML).render(user("".join(map(chr, range(0xFDD0, 0xFDF0)))))


def test_thinking_in_an_earlier_answer_is_left_out_by_glm_4_5() -> None:
    messages = [*user("Hi"), {"role": "assistant", "content": "<think>hm</think>\nHello"}, *user("Bye")]
    text = template(built_in("glm-4.5")).render(messages).text
    assert text == "[gMASK]<sop><|user|>\nHi<|assistant|>\n<think></think>\nHello<|user|>\nBye<|assistant|>"


@pytest.mark.parametrize(
    ("name", "thinking", "opens"),
    [("intellect-3", None, True), ("intellect-3", True, True), ("intellect-3", False, False), ("glm-4.5", None, False)],
)
def test_a_prompt_that_opens_thinking_says_so(name: str, thinking: bool | None, opens: bool) -> None:
    rendered = template(built_in(name)).render(user("Hi"), thinking=thinking)
    assert rendered.opens_thinking is opens
    if thinking is False:
        assert rendered.text.endswith("<think>\n\n</think>\n\n")


def test_without_a_generation_prompt_the_text_ends_with_the_last_message() -> None:
    text = template(built_in("llama-3")).render(user(" Hi "), add_generation_prompt=False).text
    assert text == "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"


def test_the_beginning_is_added_only_where_the_template_did_not_write_it() -> None:
    metadata = {**text_metadata("glm4"), "tokenizer.ggml.add_bos_token": True}
    tokenizer = Tokenizer.from_metadata(metadata)
    bos = tokenizer.token_id("[gMASK]")
    for source in ("[gMASK]{{ messages[0].content }}", "{{ messages[0].content }}"):
        ids = ChatTemplate(source, control=tokenizer.vocabulary.control).render(user("x")).encode(tokenizer)
        assert ids == [bos, *tokenizer.encode("x")]


REFUSED: dict[str, tuple[object, str]] = {
    "no messages": ([], "no message"),
    "a string": ("Hi", "list of messages"),
    "no object": (["Hi"], "message 0 is not an object"),
    "no role": ([{"content": "x"}], "role None"),
    "an unknown role": ([{"role": "wizard", "content": "x"}], "role 'wizard'"),
    "a mark as role": ([{"role": "user|>", "content": "x"}], "known roles"),
    "no content": ([{"role": "user"}], "message 0 has no content"),
    "a number": ([{"role": "user", "content": 7}], "neither a text nor"),
    "an image": ([{"role": "user", "content": [{"type": "image_url"}]}], "reads text only"),
    "a part that is a list": ([{"role": "user", "content": [["x"]]}], "reads text only"),
    "a call without a name": ([{"role": "assistant", "tool_calls": [{"function": {}}]}], "without a function name"),
    "a call that is a text": ([{"role": "assistant", "tool_calls": ["x"]}], "without a function name"),
}


@pytest.mark.parametrize(("messages", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_a_conversation_that_is_none_is_refused_with_the_reason(messages: list[dict[str, object]], why: str) -> None:
    with pytest.raises(TextError, match=why):
        template(CHATML).render(messages)


def test_a_developer_is_the_system_where_the_template_knows_no_developer() -> None:
    messages = [{"role": "developer", "content": "S"}, *user("Hi")]
    assert template(built_in("glm-4.5")).render(messages).text == "[gMASK]<sop><|system|>\nS<|user|>\nHi<|assistant|>"


@pytest.mark.parametrize(
    ("architecture", "left_out", "name"),
    [
        ("glm4moe", (), "intellect-3"),
        ("glm4moe", ("<|im_start|>",), "glm-4.5"),
        ("glm4", ("<|im_start|>",), "glm-4-0414"),
        ("chatglm", ("<|im_end|>",), "glm-4-0414"),
        ("llama", ("[gMASK]",), "chatml"),
        ("llama", ("[gMASK]", "<|im_start|>"), None),
    ],
)
def test_a_file_without_a_template_gets_ours_by_its_tokens(
    architecture: str, left_out: tuple[str, ...], name: str | None
) -> None:
    metadata = text_metadata("glm4")
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    renamed = [f"x{token}" if token in left_out else token for token in tokens]
    metadata = {**metadata, "general.architecture": architecture, "tokenizer.ggml.tokens": renamed}
    del metadata["tokenizer.chat_template"]
    tokenizer = Tokenizer.from_metadata(metadata)
    assert fallback_name(architecture, tokenizer) == name
    made = ChatTemplate.from_metadata(metadata, tokenizer)
    assert (made.source if made else None) == (built_in(name) if name else None)


def test_the_file_s_own_template_comes_first() -> None:
    made = ChatTemplate.from_metadata({"tokenizer.chat_template": CHATML}, TOKENIZER)
    assert made is not None and made.source == CHATML
    with pytest.raises(BadModelFile, match="chat_template"):
        ChatTemplate.from_metadata({"tokenizer.chat_template": 7}, TOKENIZER)


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_blank_template_counts_as_none(blank: str) -> None:
    made = ChatTemplate.from_metadata({**text_metadata("glm4"), "tokenizer.chat_template": blank}, TOKENIZER)
    assert made is not None and made.source == built_in(
        "chatml" if fallback_name("", TOKENIZER) == "chatml" else "glm-4-0414"
    )


OF_PARTS = (
    "{% for message in messages %}<|{{ message.role }}|>"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '\\n' }}{% endfor %}"
)


def test_a_template_that_reads_parts_alone_is_given_parts() -> None:
    messages = [
        *user("what <|user|> says"),
        {"role": "assistant", "content": "yes"},
        *user([{"type": "text", "text": "b"}]),
    ]
    rendered = template(OF_PARTS).render(messages)
    assert rendered.text == "<|user|>what <|user|> says\n<|assistant|>yes\n<|user|>b\n"
    assert len(controls(rendered.encode(TOKENIZER))) == 3, "the mark that a person wrote stays text"


def test_values_for_the_templates_own_names_reach_it() -> None:
    source = CHATML + "{% if clear_thinking is defined and not clear_thinking %}kept{% endif %}{{ note }}"
    assert template(source).render(user("hi")).text.endswith("<|im_end|>\n")
    rendered = template(source).render(user("hi"), more={"clear_thinking": False, "note": "<|user|>"})
    assert rendered.text.endswith("kept<|user|>") and controls(rendered.encode(TOKENIZER))[-1] == "<|im_end|>"
    assert template(CHATML).render(user("hi"), more={"reasoning_effort": "low"}).text.endswith("<|im_end|>\n")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("preserve_thinking", "'preserve_thinking', which this model's chat template does not read"),
        ("messages", "has messages, which comes from the conversation"),
    ],
)
def test_a_value_that_changes_nothing_or_too_much_is_refused(name: str, why: str) -> None:
    with pytest.raises(TextError, match=why) as error:
        template(CHATML).render(user("hi"), more={name: True})
    assert "\n" not in str(error.value)


def test_functions_go_into_a_message_where_the_template_looks_for_them_there() -> None:
    source = (data_dir() / "templates" / "hf-ollama-utils__glm-4-9b-chat.jinja").read_text(encoding="utf-8")
    tool = {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": {}}}
    template = ChatTemplate(source)
    with_tools = template.render(user("hi"), tools=[tool]).text
    assert "## get_weather" in with_tools and with_tools.endswith("<|user|>\nhi<|assistant|>")
    assert "get_weather" not in template.render(user("hi")).text
