"""A model that has no place for functions, talked to in the way of those that have: its weights, others' templates."""

from __future__ import annotations

import copy

from swarm.local.model import Model
from swarm.text.model_text import ModelText
from swarm.text.template import ChatTemplate, built_in

HERMES = (
    "{% if tools %}<|im_start|>system\nTools: {% for tool in tools %}{{ tool | tojson }}{% endfor %}\n"
    'Call with <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{% if tools %}<|start_header_id|>system<|end_header_id|>\n\n{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    'Respond in the format {"name": function name, "parameters": dictionary}.<|eot_id|>{% endif %}'
    "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{% if message.tool_calls %}{{ message.tool_calls }}{% endif %}{{ message.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
TEMPLATES = {
    "hermes": HERMES,
    "llama-3": LLAMA,
    "glm-4-0414": built_in("glm-4-0414"),
    "glm-4.5": built_in("glm-4.5"),
    "intellect-3": built_in("intellect-3"),
}


def calling(model: Model, template: str) -> Model:
    """The same model with one of TEMPLATES."""
    other = copy.copy(model)
    source = ChatTemplate(TEMPLATES[template], control=model.tokenizer.vocabulary.control)
    other._text = ModelText(template, model.tokenizer, source, model.spec.vocab)
    return other
