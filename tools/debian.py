#!/usr/bin/env python3
"""Clean Debian systems in folders, to try a release in: of another age, another processor, with systemd running.

    tools/debian.py make FOLDER --suite trixie --arch arm64 --with python3-venv,pipx
    tools/debian.py enter FOLDER -- COMMAND...         a command in it, with this machine's network
    tools/debian.py boot FOLDER -- COMMAND...          its systemd as process 1, then the command, then its shutdown

Needs root and debootstrap; qemu-user-static for arm64 (QEMU_CPU says which core: cortex-a76 is a Raspberry Pi 5's);
`boot` needs writable cgroups and, on cgroups of version 1, a systemd that still knows them (Debian 12).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
CGROUPS = Path("/sys/fs/cgroup")
BOOT_S = 60.0
STOP_S = 30.0
# Of the interpreter for arm64: F opens it now, so that the folder needs no copy of it.
BINFMT = Path("/proc/sys/fs/binfmt_misc")
QEMU = (
    r":qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\x00\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:OCF"
)
SIGRTMIN = 34
HALT = SIGRTMIN + 3  # what systemd understands as: stop everything and end


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "enter", "boot"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--arch", default="amd64", choices=("amd64", "arm64"))
    parser.add_argument("--with", dest="packages", default="ca-certificates", help="packages, with commas between")
    parser.add_argument("--user", default="root", help="who runs the command")
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:at])
    if args.action == "make":
        make(args.folder, args.suite, args.arch, args.packages)
        return 0
    command = words[at + 1 :] or ["/bin/bash", "-l"]
    return (enter if args.action == "enter" else boot)(args.folder.resolve(), command, args.user)


def make(folder: Path, suite: str, arch: str, packages: str) -> None:
    """Have a minimal system of that suite, from the mirror that this machine's apt uses."""
    foreign = arch != subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    mirror = subprocess.check_output(["apt-get", "indextargets", "--format", "$(REPO_URI)"], text=True).split()[0]
    command = ["debootstrap", f"--arch={arch}", "--variant=minbase", f"--include={packages}", suite]
    subprocess.run([*command, *["--foreign"] * foreign, str(folder), mirror], check=True)
    if foreign:
        register_qemu()
        subprocess.run(["chroot", str(folder), "/debootstrap/debootstrap", "--second-stage"], check=True)


def register_qemu() -> None:
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=True)
    if not (BINFMT / "qemu-aarch64").exists():
        (BINFMT / "register").write_text(QEMU)


def give_network(folder: Path) -> None:
    """The name service and the certificates of this machine, as a router would give them."""
    for name in ("etc/resolv.conf", "etc/hosts", str(CERTIFICATES)):
        if Path("/", name).exists() and (folder / name).parent.is_dir():
            shutil.copyfile(Path("/", name), folder / name)


def environment(user: str) -> dict[str, str]:
    """What a command there is given: nothing of this machine's but how its package index is reached."""
    home = "/root" if user == "root" else f"/home/{user}"
    kept = {name: value for name, value in os.environ.items() if name in ("QEMU_CPU", "TERM")}
    certificates = {name: f"/{CERTIFICATES}" for name in ("PIP_CERT", "SSL_CERT_FILE")}
    path = f"{home}/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "PATH": path,
        "HOME": home,
        "USER": user,
        "LANG": "C.UTF-8",
        "PIP_DEFAULT_TIMEOUT": "180",
        **certificates,
        **kept,
    }


def as_user(user: str, command: list[str]) -> list[str]:
    return command if user == "root" else ["runuser", "-u", user, "--", *command]


def enter(folder: Path, command: list[str], user: str) -> int:
    """Run a command in it; its exit code."""
    give_network(folder)
    if (folder / "usr/lib/aarch64-linux-gnu").is_dir():
        register_qemu()
    mounts = f"mount --make-rprivate /; mount -t proc proc {folder}/proc; mount --rbind /dev {folder}/dev"
    script = f'{mounts}; cd {folder}; exec chroot {folder} "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-ec", script, "enter", *as_user(user, command)],
        env=environment(user),
        check=False,
    )
    return done.returncode


# --- with systemd

MOUNTS = r"""
set -e
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,ro,bind "$root/proc/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for each in null zero full random urandom tty; do
    touch "$root/dev/$each"; mount --bind "/dev/$each" "$root/dev/$each"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"; ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind "$2" "$root/sys/fs/cgroup"
mkdir -p "$root/.before"
cd "$root"
pivot_root . .before
umount -l /.before
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
exec env -i container=swarm "PATH=$PATH" /lib/systemd/systemd --system --log-target=console </dev/null
"""


def boot(folder: Path, command: list[str], user: str) -> int:
    """Start its systemd, run a command beside it once it is up, stop it; the command's exit code."""
    give_network(folder)
    name = f"swarm-boot-{os.getpid()}"
    groups = make_cgroups(name)
    own = folder.parent / f"{name}.cgroup"  # where the new namespace's cgroups are mounted before it begins
    own.mkdir()
    prepare = [f"mount -t tmpfs tmpfs {own}"]
    for group in groups:
        kind, options = how_mounted(group.parent)
        place = own if group.parent == CGROUPS else own / group.parent.name
        prepare += [f"mkdir -p {place}", f"mount -t {kind} {options} cgroup {place}"]
    log = (folder.parent / f"{name}.log").open("wb")
    script = f'mount --make-rprivate /; {"; ".join(prepare)}; exec bash -c "$0" boot {folder} {own}'
    for group in groups:
        (group / "cgroup.procs").write_text(str(os.getpid()))  # the namespace begins where its maker is
    namespaces = ["--mount", "--pid", "--cgroup", "--ipc", "--uts", "--fork", "--kill-child"]
    starter = subprocess.Popen(["unshare", *namespaces, "bash", "-ec", script, MOUNTS], stdout=log, stderr=log)
    for group in groups:
        (group.parent / "cgroup.procs").write_text(str(os.getpid()))
    try:
        first = wait_for_boot(starter, Path(log.name))
        inside = ["nsenter", "-t", str(first), "--all", "--", *as_user(user, command)]
        session = {"XDG_RUNTIME_DIR": "/run/user/1000"} if user != "root" else {}
        return subprocess.run(inside, env={**environment(user), **session}, check=False).returncode
    finally:
        stop(starter)
        remove_cgroups(groups)
        own.rmdir()
        Path(log.name).unlink()


def make_cgroups(name: str) -> list[Path]:
    """A group of ours in every hierarchy of this machine."""
    hierarchies = (
        [CGROUPS] if (CGROUPS / "cgroup.procs").exists() else sorted(p for p in CGROUPS.iterdir() if p.is_dir())
    )
    groups = []
    for hierarchy in hierarchies:
        if (hierarchy / "cgroup.procs").exists() and not hierarchy.is_symlink():
            group = hierarchy / name
            group.mkdir()
            for setting in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of version 1: no process may enter
                if (group / setting).exists():
                    (group / setting).write_text((hierarchy / setting).read_text())
            groups.append(group)
    return groups


def how_mounted(hierarchy: Path) -> tuple[str, str]:
    """The type of a cgroup hierarchy and the options with which it is mounted again."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if where == str(hierarchy):
            if kind == "cgroup2":
                return kind, ""
            wanted = [o for o in options.split(",") if o not in ("rw", "ro", "relatime", "nosuid", "nodev", "noexec")]
            return kind, "-o " + ",".join(["none", *wanted] if wanted[0].startswith("name=") else wanted)
    raise SystemExit(f"debian: {hierarchy} is not mounted")


def wait_for_boot(starter: subprocess.Popen[bytes], log: Path) -> int:
    """The process that is systemd there, once it has started everything."""
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline and starter.poll() is None:
        children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text() == "systemd\n":
            asked = ["nsenter", "-t", children[0], "--all", "--", "systemctl", "is-system-running"]
            state = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()
            if state in ("running", "degraded"):
                return int(children[0])
        time.sleep(0.2)
    raise SystemExit(f"debian: systemd did not come up; its last words in {log}:\n{log.read_text()[-3000:]}")


def stop(starter: subprocess.Popen[bytes]) -> None:
    if starter.poll() is None:
        children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), HALT)
    try:
        starter.wait(STOP_S)
    except subprocess.TimeoutExpired:
        starter.kill()
        starter.wait()


def remove_cgroups(groups: list[Path]) -> None:
    for group in groups:
        for _ in range(50):
            try:
                for inner in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
                    inner.rmdir()
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
