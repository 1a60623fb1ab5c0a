"""What a machine without a compiler or without headers says, and when `make build` compiles anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEBIAN_PACKAGES = "sudo apt install gcc libc6-dev python3-dev"
PYX = "def answer():\n    return 42\n"

pytest.importorskip("Cython")


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """The project's own setup.py over an extension that compiles in a second."""
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").write_text("Swarm\n")
    for package in ("kernels", "wire", "net"):
        (tmp_path / "swarm" / package).mkdir(parents=True)
    (tmp_path / "swarm/__init__.py").touch()
    (tmp_path / "csrc").mkdir()
    for name in ("_native", "_frames"):
        (tmp_path / f"csrc/{name}.pyx").write_text(PYX)
    (tmp_path / "csrc/a.c").write_text("int a(void) { return 1; }\n")
    return tmp_path


def build(tree: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    clean = {name: value for name, value in os.environ.items() if name not in ("CC", "CFLAGS")}
    return subprocess.run(
        command, cwd=tree, env={**clean, **env}, check=False, capture_output=True, text=True, timeout=120
    )


def pip_install(tree: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--target", str(tree / "installed"), str(tree)]
    return subprocess.run(command, env={**os.environ, **env}, check=False, capture_output=True, text=True, timeout=120)


def test_a_compiler_that_fails_is_reported_with_the_debian_packages(small_tree: Path) -> None:
    done = build(small_tree, CC="/bin/false")
    assert done.returncode != 0
    assert DEBIAN_PACKAGES in done.stderr


def test_a_compiler_that_is_missing_is_reported_with_the_debian_packages(small_tree: Path) -> None:
    done = build(small_tree, CC="/nowhere/gcc")
    assert done.returncode != 0
    assert DEBIAN_PACKAGES in done.stderr


def test_missing_headers_of_python_are_reported_with_the_debian_packages(small_tree: Path) -> None:
    compiler = small_tree / "cc-without-headers"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *_native.c*) echo "Python.h: No such file" >&2; exit 1;; esac\nexec cc "$@"\n'
    )
    compiler.chmod(0o755)
    done = build(small_tree, CC=str(compiler))
    assert done.returncode != 0
    assert "Python.h: No such file" in done.stderr
    assert DEBIAN_PACKAGES in done.stderr


def test_pip_install_fails_loudly_and_says_what_to_install(small_tree: Path) -> None:
    done = pip_install(small_tree, CC="/bin/false")
    assert done.returncode != 0
    assert DEBIAN_PACKAGES in done.stdout + done.stderr


def test_only_what_changed_is_compiled_again(small_tree: Path) -> None:
    assert build(small_tree).returncode == 0
    (library,) = (small_tree / "swarm/kernels").glob("_native.*.so")
    first = library.stat().st_mtime_ns
    assert build(small_tree, CC="/bin/false").returncode == 0, "nothing changed, yet the compiler was called"
    assert library.stat().st_mtime_ns == first
    os.utime(small_tree / "csrc/a.c", ns=(first + 10**9, first + 10**9))
    assert build(small_tree, CC="/bin/false").returncode != 0


def test_a_changed_header_compiles_only_what_includes_it(small_tree: Path) -> None:
    (small_tree / "csrc/a.c").write_text('#include "a.inc"\nint a(void) { return A; }\n')
    (small_tree / "csrc/a.inc").write_text('#include "a.h"\n')
    (small_tree / "csrc/a.h").write_text("#define A 1\n")
    (small_tree / "csrc/b.h").write_text("#define B 1\n")
    assert build(small_tree).returncode == 0
    (made,) = small_tree.glob("build/**/a.o")
    first = made.stat().st_mtime_ns
    for header, is_new in (("b.h", False), ("a.h", True)):
        os.utime(small_tree / "csrc" / header, ns=(first + 10**9, first + 10**9))
        assert build(small_tree).returncode == 0
        assert (made.stat().st_mtime_ns != first) == is_new, header


def prerequisites(tmp_path: Path, *tools: str, python: str = sys.executable, **env: str) -> tuple[int, str]:
    """What tools/prerequisites says on a machine that has only `tools`."""
    for tool in ("sh", *tools):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "/bin/true")
    done = subprocess.run(
        ["/bin/sh", str(ROOT / "tools/prerequisites"), python],
        env={"PATH": str(tmp_path), **env},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_machine_with_everything_passes(tmp_path: Path) -> None:
    assert prerequisites(tmp_path, "cc") == (0, "")


def test_a_machine_without_a_compiler_is_told_its_package(tmp_path: Path) -> None:
    code, said = prerequisites(tmp_path)
    assert code == 1
    assert said.startswith("swarm: there is no C compiler") and said.endswith("sudo apt install gcc libc6-dev\n")
    assert said.count("\n") == 1


def test_a_machine_without_python_is_told_its_packages(tmp_path: Path) -> None:
    code, said = prerequisites(tmp_path, "cc", python="python3.99")
    assert code == 1
    assert said.endswith("sudo apt install python3 python3-venv python3-dev\n")


@pytest.mark.parametrize(
    ("question", "package"),
    [("version_info", "python3.12"), ("ensurepip", "python3-venv"), ("Python.h", "python3-dev")],
)
def test_a_python_that_lacks_something_is_told_its_package(tmp_path: Path, question: str, package: str) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *{question}*) exit 1;; --version) echo Python 3.9.2;; esac\n')
    python.chmod(0o755)
    code, said = prerequisites(tmp_path, "cc", python=str(python))
    assert code == 1
    assert said.endswith(f"sudo apt install {package}\n") and said.count("\n") == 1
