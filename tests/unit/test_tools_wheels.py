"""What a release is made of: wheels that are audited, their sums, and an installer that can be undone."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.tiny import make_tiny
from tools import wheels

ROOT = Path(__file__).parents[2]
NAME = "swarm-9.9-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
PROGRAM = "import sys\ndef main():\n    print('swarm 9.9')\n    return 3 if 'status' in sys.argv else 0\n"


def small_wheel(folder: Path, name: str = "swarm-9.9-py3-none-any.whl") -> Path:
    """A wheel with a `swarm` command that needs nothing."""
    path = folder / name
    info = "swarm-9.9.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("swarm/__init__.py", PROGRAM)
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: swarm\nVersion: 9.9\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/entry_points.txt", "[console_scripts]\nswarm = swarm:main\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def install(home: Path, *arguments: str, script: Path = ROOT / "install.sh") -> subprocess.CompletedProcess[str]:
    env = {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PIP_NO_INDEX": "1"}
    command = ["sh", str(script), *arguments]
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "name",
    [
        NAME.replace("2_17", "2_36"),  # of this machine's own glibc
        NAME.replace("abi3", "cp311"),  # for one Python alone
        NAME.replace("manylinux2014_x86_64.manylinux_2_17", "linux"),
    ],
)
def test_a_wheel_that_would_not_run_everywhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit, match="is no wheel for"):
        wheels.audit(tmp_path / name)


def test_a_wheel_of_an_old_glibc_is_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audited: list[list[str]] = []
    monkeypatch.setattr(wheels, "run", audited.append)
    wheel = small_wheel(tmp_path, NAME)
    wheels.audit(wheel)
    assert audited[0][1:] == ["-m", "abi3audit", "--strict", "--summary", str(wheel)]


def test_links_of_the_packages_stay_below_the_sysroot(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libm.so.6").touch()
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/libm.so").symlink_to("/lib/libm.so.6")
    wheels.make_links_relative(tmp_path)
    assert os.readlink(tmp_path / "usr/lib/libm.so") == "../../lib/libm.so.6"


def test_a_release_has_its_sums_and_an_installer_that_knows_them(tmp_path: Path) -> None:
    for arch in ("x86_64", "aarch64"):
        small_wheel(tmp_path, NAME.replace("x86_64", arch))
    wheels.write_sums(tmp_path)
    subprocess.run([ROOT / "tools/fill-installer", tmp_path, "https://example.org/v9.9"], check=True, timeout=60)
    text = (tmp_path / "install.sh").read_text()
    digest = hashlib.sha256((tmp_path / NAME).read_bytes()).hexdigest()
    assert 'RELEASE="https://example.org/v9.9" ' in text
    assert f'SUM_X86_64="{digest} {NAME}"\n' in text and '_aarch64.whl"\n' in text


def test_the_installer_can_be_read_in_a_minute() -> None:
    lines = (ROOT / "install.sh").read_text().splitlines()
    assert len(lines) <= 100 and all(len(line) <= 130 for line in lines)


def test_an_installation_is_one_folder_and_one_link_and_can_be_undone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = install(home, "--wheel", str(small_wheel(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    link = home / ".local/bin/swarm"
    assert "swarm 9.9 is installed" in done.stdout and "To undo: " in done.stdout
    said = subprocess.run([link], env={}, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said == "swarm 9.9\n"
    keys = home / ".local/share/swarm/node/keys"
    keys.mkdir(parents=True)
    undone = install(home, "--undo")
    assert undone.returncode == 0 and "Keys and models stay" in undone.stdout
    assert not link.is_symlink() and not (home / ".local/share/swarm/venv").exists() and keys.exists()


def test_an_update_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert install(home, "--wheel", str(small_wheel(tmp_path))).returncode == 0
    broken = tmp_path / "swarm-9.10-py3-none-any.whl"
    broken.write_bytes(b"cut off")
    done = install(home, "--wheel", str(broken))
    assert done.returncode == 1 and "pip could not install it" in done.stderr
    said = subprocess.run([home / ".local/bin/swarm"], env={}, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "swarm 9.9\n"
    assert not (home / ".local/share/swarm/venv.before").exists()


def test_an_installation_has_nothing_that_only_comes_along(tmp_path: Path) -> None:
    assert install(tmp_path, "--wheel", str(small_wheel(tmp_path))).returncode == 0
    packages = next((tmp_path / ".local/share/swarm/venv/lib").glob("python*/site-packages"))
    assert not list(packages.glob("setuptools*")) and list(packages.glob("swarm/__pycache__/*.pyc"))
    assert list(packages.glob("pip*")), "the second source of the default model is fetched by it"


WITHOUT = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(sys.argv[2:]))  # an import of one of these is an ImportError
import swarm
for module in pkgutil.walk_packages(swarm.__path__, "swarm."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import gguf.quants, rich.live, rich.progress, rich.table, segno, uvicorn
from swarm.cli import main
sys.exit(main.main(["run", sys.argv[1], "a", "--raw", "--max-tokens", "2", "--alone"]))
"""


def test_swarm_runs_without_what_the_installer_takes_away(tmp_path: Path) -> None:
    unused = re.search(r'^UNUSED="(.+)"$', (ROOT / "install.sh").read_text(), re.MULTILINE)
    assert unused is not None
    modules = [{"markdown-it-py": "markdown_it"}.get(name, name.replace("-", "_")) for name in unused[1].split()]
    model = make_tiny(tmp_path / "tiny.gguf", "llama", "Q8_0")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", WITHOUT, str(model), *modules]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_is_fetched_is_compared_with_the_releases_sum(tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    arch = os.uname().machine
    small_wheel(release, NAME.replace("x86_64", arch))
    wheels.write_sums(release)
    subprocess.run([ROOT / "tools/fill-installer", release, release.as_uri()], check=True, timeout=60)
    (release / NAME.replace("x86_64", arch)).write_bytes(b"something else")
    done = install(tmp_path, script=release / "install.sh")
    assert done.returncode == 1 and "what came is not the wheel of this release" in done.stderr
    assert not (tmp_path / ".local").exists()


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "belongs to no release"), (("--bogus",), "there is no option --bogus")]
)
def test_what_cannot_be_installed_is_told_in_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = install(tmp_path, *arguments)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
