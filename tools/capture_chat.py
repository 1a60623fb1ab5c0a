"""Use the chat in a real terminal and write what it looked like into docs/chat.md and README.md.

    PYTHONPATH=. .venv/bin/python tools/capture_chat.py

Needs tmux and the default model. Nothing is edited afterwards but the markers of the README's capture.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from swarm.cli.machine import cpu_name
from swarm.store.naming import resolve
from tests.helpers.tmux import Terminal

ROOT = Path(__file__).parents[1]
PASTED = "Put these in order of size:\na house\na mouse\na horse"


def main() -> None:
    model = resolve()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / model.name).symlink_to(model)
        env = {"HOME": folder, "SWARM_MODELS_DIR": folder, "PYTHONPATH": str(ROOT)}
        command = [str(ROOT / ".venv/bin/python"), "-m", "swarm", "chat", "--temp", "0", "--max-tokens", "300"]
        with Terminal(Path(folder), command, columns=100, rows=50, env=env) as chat:
            chat.wait_for("\n>")
            scenes = list(play(chat))
    write_readme(scenes[0][1])
    write_docs(scenes)


def play(chat: Terminal) -> Iterator[tuple[str, str]]:
    """Yield (what was done, the screen after it)."""
    ask(chat, "Give me three facts about cats.")
    yield "A question; the answer streams, and a line of figures follows", chat.screen()

    chat.type("Tell me a long story about a robot.")
    chat.press("Enter")
    chat.wait_for(lambda screen: len(screen.partition("a robot.\n")[2].strip()) > 60)
    yield "Another; this is the screen while the answer is coming", chat.screen()
    chat.press("C-c")
    chat.wait_for("[stopped; ")
    yield "Ctrl-C stops the answer and not the chat", chat.screen()

    for command, wanted in (("/undo", "turn left"), ("/stats", "in all")):
        chat.type(command)
        chat.press("Enter")
        chat.wait_for(wanted)
    yield "/undo takes the stopped turn back, /stats counts what is left", chat.screen()

    chat.resize(64, 40)
    chat.type("/clear")
    chat.press("Enter")
    chat.wait_for("a new conversation")
    chat.paste(PASTED)
    chat.wait_for(". a horse")
    yield "The window is made narrower, and a text of several lines pasted", chat.screen()
    chat.press("Enter")
    chat.wait_for(lambda screen: screen.count("first after") == 4 and screen.rstrip().endswith("\n>"))
    yield "It is one question", chat.screen()
    chat.press("C-d")
    chat.wait_for("exit code 0")
    yield "Ctrl-D leaves", chat.screen()


def ask(chat: Terminal, question: str) -> None:
    chat.type(question)
    chat.press("Enter")
    chat.wait_for("first after")


def write_readme(screen: str) -> None:
    path = ROOT / "README.md"
    block = f"<!-- capture -->\n```\n{trimmed(screen)}\n```\n<!-- /capture -->"
    text = re.sub(r"<!-- capture -->.*?<!-- /capture -->", lambda match: block, path.read_text(), flags=re.DOTALL)
    path.write_text(text)


def write_docs(scenes: list[tuple[str, str]]) -> None:
    parts = [
        "# The chat, as it looks",
        "",
        f"Captured by `tools/capture_chat.py` in tmux, with SmolLM2 135M at temperature 0 on {cpu_name()}.",
    ]
    for what, screen in scenes:
        parts += ["", f"{what}:", "", "```", trimmed(screen), "```"]
    (ROOT / "docs" / "chat.md").write_text("\n".join(parts) + "\n")


def trimmed(screen: str) -> str:
    return "\n".join(line.rstrip() for line in screen.rstrip().splitlines())


if __name__ == "__main__":
    main()
