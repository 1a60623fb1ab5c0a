"""`swarm doctor`: each thing that can be wrong is found, named, and answered with what to do."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path

import pytest

from swarm import config, cores, kernels
from swarm.cli import doctor, doctor_network, machine
from swarm.cli import main as cli
from swarm.engine import ways
from swarm.store.fetching import SMOLLM2


@pytest.fixture(autouse=True)
def no_look_at_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multicast takes seconds; test_cli_doctor_network.py and tests/swarm look at it."""
    monkeypatch.setattr(doctor_network, "looked_around", list)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass over the memory is enough here."""
    monkeypatch.setattr(doctor, "BANDWIDTH_SECONDS", 0.0)
    monkeypatch.setattr(doctor, "WAYS_OF", ())


@pytest.fixture
def settings(own_home: Path) -> config.Settings:
    return replace(config.defaults(), models_dir=str(own_home / "models"))


def finding(settings: config.Settings, subject: str) -> doctor.Finding:
    return next(finding for finding in doctor.examine(settings) if finding.subject == subject)


def test_a_healthy_device_passes(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for subject in ("Python", "processor", "kernels", "threads", "bandwidth", "memory", "disk", "model"):
        assert f" {subject} " in out
    assert "Swarm runs here" in out


def test_json_says_the_same(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json", "--threads", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert {"subject": "threads", "text": "1 compute (set by you)", "level": "ok", "advice": ""} in report["findings"]


def test_how_products_are_computed_fastest_is_shown(settings: config.Settings) -> None:
    settings = replace(settings, home=str(Path(settings.models_dir) / "node"), threads=2)
    assert finding(settings, "ways").level == "away"
    isa = kernels.isa()
    found = {
        ways.Product("Q4_K"): ways.Choice(ways.Way(isa, 1, 8192), 36.1e9, 1.27),
        ways.Product("Q4_K", True): ways.Choice(ways.Way(isa), 30e9, 1.0),
    }
    ways.keep(settings.home_path, isa, 2, found)
    shown = finding(settings, "ways")
    assert shown.level == "ok"
    assert shown.text == (
        f"Q4_K: rows {isa}, 1 stream, 8192 bytes ahead (36.1 GB/s, 1.27 of the usual); sums {isa}, as usual (30 GB/s)"
    )


def test_missing_kernels_are_a_problem_with_a_remedy(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def no_kernels(
        name: str, globals: object = None, locals: object = None, fromlist: object = (), level: int = 0
    ) -> object:
        if name == "swarm" and fromlist and "kernels" in fromlist:  # type: ignore[operator]
            raise ImportError("no _native")
        return real_import(name, globals, locals, fromlist, level)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_kernels)
    (found,) = doctor.check_kernels(settings)
    assert found.level == "problem" and "make build" in found.advice


def test_missing_kernels_without_a_compiler_name_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "sudo apt install gcc libc6-dev python3-dev" in doctor._compiler_advice()


def test_a_lowered_instruction_set_is_remarked(settings: config.Settings) -> None:
    found = finding(replace(settings, cpu="scalar"), "kernels")
    from swarm import kernels

    assert found.text.startswith("scalar in use")
    assert found.level == ("ok" if kernels.isas() == ["scalar"] else "warning")


def test_an_instruction_set_that_is_not_here_is_a_problem(settings: config.Settings) -> None:
    found = finding(replace(settings, cpu="avx1024"), "kernels")
    assert found.level == "problem" and "avx1024" in found.text


def test_slow_memory_is_remarked(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.kernels.read_bandwidth", lambda threads, seconds: 1e9)
    found = finding(settings, "bandwidth")
    assert (found.level, found.text) == ("warning", f"1 GB/s read with {cores.default_threads()} threads")


def test_little_memory_is_remarked(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.SystemMemory(8 * 10**9, 4 * 10**8, True))
    found = finding(settings, "memory")
    assert found.level == "warning"
    assert found.text == "7.45 GiB (limited by its container or service), 381 MiB free"


def test_less_than_one_core_of_quota_is_remarked(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cgroup_quota", lambda: 0.5)
    found = finding(settings, "processor")
    assert found.level == "warning" and "limited to 0.5 cores" in found.text


def test_a_full_disk_is_a_problem(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "spare_bytes", lambda folder: 10**6)
    found = finding(settings, "disk")
    assert found.level == "problem" and "free 181 MiB, or set models_dir" in found.advice


def test_a_damaged_default_model_is_a_problem(settings: config.Settings, own_home: Path) -> None:
    path = own_home / "models" / SMOLLM2.file_name
    path.parent.mkdir()
    path.write_bytes(b"GGUF")
    found = finding(settings, "model")
    assert found.level == "problem" and str(path) in found.advice


def test_a_model_that_is_not_there_yet_is_no_problem(settings: config.Settings) -> None:
    found = finding(settings, "model")
    assert (found.level, found.text) == ("ok", "smollm2-135m is not here yet; `swarm chat` fetches it (93.8 MiB)")


def test_a_model_setting_that_means_nothing_is_a_problem(settings: config.Settings) -> None:
    assert finding(replace(settings, model="nonsense"), "model").level == "problem"


def test_a_problem_sets_the_exit_code_and_the_last_line(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "spare_bytes", lambda folder: 10**6)
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "!!   disk" in out and "-> free 181 MiB" in out
    assert out.splitlines()[-1] == "1 thing to mend before Swarm runs here"


def test_a_check_that_fails_is_one_line_among_the_others(
    settings: config.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_attic(settings: config.Settings) -> list[doctor.Finding]:
        raise PermissionError(13, "Permission denied", "/models/x.gguf")

    def check_cellar(settings: config.Settings) -> list[doctor.Finding]:
        raise OSError(38, "Function not implemented (ioctl)")

    monkeypatch.setattr(doctor, "CHECKS", (check_attic, doctor.check_python, check_cellar))
    denied, python, odd = doctor.examine(settings)
    assert (denied.level, denied.text) == ("problem", "/models/x.gguf: Permission denied")
    assert python.level == "ok"
    assert odd.level == "warning" and "could not look (OSError: [Errno 38]" in odd.text
