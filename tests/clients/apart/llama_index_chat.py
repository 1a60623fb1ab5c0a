"""Asks a node by llama-index what the JSON of the command line says, and prints what came as one line of JSON."""

import json
import sys
from importlib.metadata import version

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from openai import OpenAIError

given = json.loads(sys.argv[1])


def model_of(name: str, most: int) -> OpenAILike:
    return OpenAILike(
        model=name,
        api_base=given["url"],
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        max_tokens=most,
        max_retries=0,
    )


def get_weather(city: str, days: int) -> str:
    """The weather of a city."""
    return f"{city} {days}"


talker, caller = model_of(given["talker"], 12), model_of(given["caller"], 200)
hello = [ChatMessage(role="user", content="Say hello.")]
said = {"chat": talker.chat(hello).message.content}
said["stream"] = "".join(part.delta or "" for part in talker.stream_chat(hello))
said["completion"] = talker.complete("Once upon a time", formatted=True).text
answer = caller.chat_with_tools(
    [FunctionTool.from_defaults(get_weather)], user_msg=given["asked"], tool_required=True, tool_choice="get_weather"
)
said["calls"] = [
    [call.tool_name, sorted(call.tool_kwargs)]
    for call in caller.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
]
try:
    talker.chat([ChatMessage(role="user", content="word " * 1500)])
except OpenAIError as error:
    said["long"] = error.code
said["version"] = version("llama-index-llms-openai-like")
print(json.dumps(said))
