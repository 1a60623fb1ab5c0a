"""The frame of the command line: help, usage errors, exit codes, no tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from swarm import errors
from swarm.cli import main as cli

ROOT = Path(__file__).parents[2]


def swarm(*arguments: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swarm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60, **kwargs)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def command_that(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], None]:
    """Put a command `fake` in place that does what it is given."""

    def install(act: Callable[[], int]) -> None:
        module = ModuleType("swarm.cli.fake")
        module.HELP, module.EXAMPLES = "h", "e"  # type: ignore[attr-defined]
        module.add_arguments = lambda parser: None  # type: ignore[attr-defined]
        module.run = lambda args: act()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "swarm.cli.fake", module)
        monkeypatch.setitem(cli.COMMANDS, "fake", "a fake")

    return install


def raises(error: BaseException) -> Callable[[], int]:
    def act() -> int:
        raise error

    return act


def test_help_lists_every_command_and_is_quick() -> None:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = swarm("--help")
        times.append(time.perf_counter() - started)
    assert done.returncode == 0
    for name, text in cli.COMMANDS.items():
        assert f"  {name} " in done.stdout and text in done.stdout
    assert min(times) < 0.5  # 0.06 s here; the bound leaves room for a busy machine


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from swarm.cli.main import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    for heavy in ("numpy", "rich", "prompt_toolkit", "huggingface_hub", "minijinja", "swarm.kernels", "psutil"):
        assert f"'{heavy}'" not in done.stderr


def test_an_answer_on_this_device_waits_for_no_import_that_it_does_not_need() -> None:
    code = "import sys, swarm.cli.run, swarm.local.model; print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in (
        "http.client",
        "ssl",
        "email",
        "zipfile",
        "llguidance",
        "psutil",
        "asyncio",
        "zmq",
        "zeroconf",
        "rich",
        "msgspec",
        "hashlib",
        "minijinja",
        "sentencepiece",
        "tokenizers",
        "numpy.random",
        "swarm.net",
        "swarm.cluster",
        "swarm.wire.messages",
        "swarm.engine.mtp",
    ):
        assert f"'{heavy}'" not in done.stderr, heavy


def test_numpy_begins_no_threads_of_its_own() -> None:
    code = (
        "import os; from swarm.cli.main import main; main(['--version']); import numpy; "
        "print(len(os.listdir('/proc/self/task')))"
    )
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.split()[-1] == "1"


def test_the_file_of_a_model_is_found_before_anything_large_is_imported() -> None:
    code = "import sys, swarm.cli.run, swarm.store.naming; print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'numpy'" not in done.stderr and "'swarm.kernels'" not in done.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_examples_and_a_line_for_each_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = cli.module_of(name)
    parser = cli.build_parser(name, module)
    text = parser.format_help()
    assert "examples:" in text
    assert f"swarm {name}" in module.EXAMPLES
    assert module.HELP.endswith(".")
    for action in parser._actions:
        assert action.help, f"{name}: {action.dest} has no help"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_examples_in_a_help_text_parse(name: str) -> None:
    import shlex

    module = cli.module_of(name)
    for line in module.EXAMPLES.splitlines():
        command = line.split("|")[-1].split("   ")[0].strip() if "|" in line else line.strip().split("   ")[0]
        words = shlex.split(command)
        assert words[:2] == ["swarm", name], line
        cli.build_parser(name, module).parse_intermixed_args(words[2:])


def test_without_arguments_the_help_is_shown_and_the_exit_code_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("swarm ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cha"], "there is no command 'cha'; did you mean `swarm chat`?"),
        (["xyzzy"], "there is no command 'xyzzy'; there are chat, run"),
        (["run"], "the following arguments are required: MODEL"),
        (["run", "m", "p", "--max-tokens", "0"], "argument --max-tokens: 0 is not 1 or more"),
        (["run", "m", "p", "--max-tokens", "many"], "argument --max-tokens: 'many' is not a whole number"),
        (["run", "m", "p", "--temp", "nan"], "argument --temp: nan is not from 0 to 100"),
        (["run", "m", "p", "--top-p", "1.5"], "argument --top-p: 1.5 is not from 0 to 1"),
        (["run", "m", "p", "--threads", "99999"], "argument --threads: 99999 is not from 1 to 1024"),
        (["run", "m", "p", "--kv", "f32"], "argument --kv: invalid choice: 'f32'"),
        (["chat", "--thread", "2"], "unrecognized arguments: --thread"),
        (["show", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_a_usage_error_is_one_line_with_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("swarm: ") and says in err and "--help`)" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("kind", [errors.BadModelFile, errors.ConfigError, errors.DiskFull, errors.NativeError])
def test_an_error_of_ours_is_one_line_with_its_exit_code(
    kind: type[errors.SwarmError],
    command_that: Callable[[Callable[[], int]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_that(raises(kind("it broke;\n   do this")))
    assert cli.main(["fake"]) == kind.exit_code
    assert capsys.readouterr().err == "swarm: it broke; do this\n"


def test_a_bug_is_one_line_that_says_how_to_see_more(
    command_that: Callable[[Callable[[], int]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command_that(raises(ZeroDivisionError("oh\nno")))
    monkeypatch.delenv("SWARM_DEBUG", raising=False)
    assert cli.main(["fake"]) == cli.EXIT_BUG
    assert capsys.readouterr().err == (
        "swarm: a bug in Swarm: ZeroDivisionError: oh (SWARM_DEBUG=1 shows where; please report it)\n"
    )


def test_swarm_debug_shows_the_traceback(
    command_that: Callable[[Callable[[], int]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command_that(raises(errors.BadModelFile("it broke")))
    monkeypatch.setenv("SWARM_DEBUG", "1")
    assert cli.main(["fake"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_too_little_memory_is_said_plainly(
    command_that: Callable[[Callable[[], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command_that(raises(MemoryError()))
    assert cli.main(["fake"]) == 1
    assert "too little free memory" in capsys.readouterr().err


def test_ctrl_c_exits_with_130_and_says_nothing(
    command_that: Callable[[Callable[[], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command_that(raises(KeyboardInterrupt()))
    assert cli.main(["fake"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_broken_pipe_is_quiet() -> None:
    done = subprocess.run(
        f"{sys.executable} -m swarm --help | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode in (0, cli.EXIT_BROKEN_PIPE)  # 0 when the text fitted into the pipe before `true` ended


def test_a_closed_pipe_gives_its_exit_code() -> None:
    code = (
        "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1);"
        "from swarm.cli.main import main; sys.exit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (cli.EXIT_BROKEN_PIPE, "")


def shell(line: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    command = line.replace("swarm", f"{sys.executable} -m swarm", 1)
    return subprocess.run(
        ["/bin/bash", "-c", command], capture_output=True, cwd=ROOT, check=False, timeout=60, env={**os.environ, **env}
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_the_output_is_one_line() -> None:
    done = shell("swarm --help > /dev/full")
    assert done.stderr == b"swarm: input or output: No space left on device\n"
    assert done.returncode == 1


def test_closed_streams_do_not_matter() -> None:
    assert shell("swarm --help >&- 2>&- <&-").returncode == 0
    assert shell("swarm nonsense >&- 2>&- <&-").returncode == 2


def test_characters_that_the_terminal_lacks_become_question_marks() -> None:
    done = shell("swarm caf\u00e9\u2603", PYTHONIOENCODING="ascii")
    assert b"there is no command 'caf??'" in done.stderr
