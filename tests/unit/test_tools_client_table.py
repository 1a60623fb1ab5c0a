"""The table of clients: what each test of a client showed, and which version of it was tried."""

from __future__ import annotations

from tools.client_table import CLIENTS, table

SAID = """\
=== PASSES ===
apart llama-index-llms-openai-like 0.8.1
npm openai 6.49.0
npm ai 6.0.326
=== short test summary info ===
PASSED tests/clients/test_llama_index.py::test_chat
PASSED tests/clients/test_llama_index.py::test_stream
FAILED tests/clients/test_llama_index.py::test_tools - assert [] == [['get_weather', ['city', 'days']]]
PASSED tests/clients/test_openai.py::test_chat
PASSED tests/clients/test_openai.py::test_chat_that_is_long
PASSED tests/clients/test_openai.py::test_json_mode
PASSED tests/clients/test_node_js.py::test_openai_lists_chats_and_streams
SKIPPED [1] tests/clients/test_ollama.py:12: could not import 'ollama'
"""


def test_each_client_has_a_row_with_its_version_and_what_it_could_do() -> None:
    head, _, *rows = table(SAID).splitlines()
    assert head == "| client | lists | chat | stream | tools | structured output | errors | also |"
    assert len(rows) == len(CLIENTS) + 2
    assert "| llama-index-llms-openai-like 0.8.1 |  | yes | yes | **no** |  |  |  |" in rows
    assert not rows[0].startswith("| openai 6.49.0"), "that is the version of the one for Node"
    assert rows[0].startswith("| openai ") and rows[0].endswith("|  | yes |  |  |  |  | json mode |")
    of_node, ai_sdk = rows[-2:]
    assert of_node.startswith("| openai for Node 6.49.0 | yes | yes | yes | not tried |")
    assert ai_sdk.startswith("| AI SDK 6.0.326 |")
