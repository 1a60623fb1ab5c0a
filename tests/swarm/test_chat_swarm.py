"""`swarm chat` and `swarm run` through the node of this device, and picking up a chat that was cut off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import swarm
from swarm.engine.sampling import SamplingParams
from tests.helpers.nodes import PATIENCE_S, ROOT, NodeProcess, Swarm

CONTEXT = 512
QUESTION = "Why is the sky blue?"
LONG = 300  # tokens: an answer that no machine is through with before its node dies
GREEDY = SamplingParams(temperature=0)


@pytest.fixture(scope="module")
def alone(real_model: Path) -> swarm.Model:
    return swarm.load(real_model, threads=1, context=CONTEXT)


@pytest.fixture
def nodes(tmp_path: Path, real_model: Path) -> Iterator[Swarm]:
    with Swarm(tmp_path / "swarm", [300_000_000], model=real_model, context=CONTEXT) as one:
        yield one


def command(node: NodeProcess, *arguments: str) -> subprocess.Popen[str]:
    """A command that talks to this node, with a home of its own for saved chats."""
    return subprocess.Popen(
        [sys.executable, "-m", "swarm", *arguments, "--home", str(node.home.root)],
        env={**os.environ, "HOME": str(node.home.root), "XDG_DATA_HOME": str(node.home.root / "data")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_run_answers_by_the_swarm_as_this_device_would(nodes: Swarm, alone: swarm.Model) -> None:
    run = command(nodes.nodes[0], "run", "smollm2-135m", QUESTION, "--temp", "0", "--max-tokens", "40", "--json")
    out, complaints = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, complaints
    said = json.loads(out)
    expected = alone.chat([{"role": "user", "content": QUESTION}], max_tokens=40, params=GREEDY)
    assert said["text"] == expected.text
    assert (said["generated_tokens"], said["finish_reason"]) == (40, "length")
    assert said["prompt_tokens"] == expected.stats.prompt_tokens


def test_a_chat_whose_node_died_is_picked_up_where_it_was(nodes: Swarm, alone: swarm.Model) -> None:
    node = nodes.nodes[0]
    chat = command(node, "chat", "--temp", "0", "--max-tokens", str(LONG))
    assert chat.stdin is not None and chat.stdout is not None and chat.stderr is not None
    chat.stdin.write(QUESTION + "\n")
    chat.stdin.close()
    chat.stdin = None
    begun = chat.stdout.read(40)
    node.kill()
    rest, complaints = chat.communicate(timeout=PATIENCE_S)
    assert "was lost in the middle of the answer" in complaints and "swarm chat --continue" in complaints
    expected = alone.chat([{"role": "user", "content": QUESTION}], max_tokens=LONG, params=GREEDY)
    assert expected.text.startswith((begun + rest).rstrip("\n"))
    node.start()
    node.wait_ready()
    again = command(node, "chat", "--continue")
    out, complaints = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0, complaints
    assert out == f"> {QUESTION}\n{expected.text}\n"
    third, _ = command(node, "chat", "--continue").communicate(timeout=PATIENCE_S)
    assert third == f"> {QUESTION}\n{expected.text}\n", "now it is a turn like any other"


def test_a_model_that_the_swarm_does_not_have_is_one_line(nodes: Swarm) -> None:
    run = command(nodes.nodes[0], "run", "nosuch", "hello")
    out, complaints = run.communicate(timeout=PATIENCE_S)
    assert (run.returncode, out) == (1, "")
    assert complaints.startswith("swarm: no device here has a model called 'nosuch'; ") and complaints.count("\n") == 1
