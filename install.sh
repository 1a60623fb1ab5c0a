#!/bin/sh
# Install Swarm on Debian, Ubuntu or Raspberry Pi OS (64 bit), for this user, or with --system for the whole device:
#   sh install.sh                     the `swarm` command
#   sh install.sh --service           and a node that starts with the device
#   sudo sh install.sh --system --service
#   sh install.sh --undo              all of it away again; keys and models stay
#   sh install.sh --wheel FILE        a wheel that is at hand already
#
# What it does: a virtual environment with Swarm and its libraries, one link to the command, and with --service a systemd
# unit. It asks for sudo only to install Python's venv module, where that is missing.
set -eu

RELEASE=""    # where the wheels lie, and their SHA-256: a release fills these in
SUM_X86_64=""
SUM_AARCH64=""
UNUSED="huggingface_hub hf-xet httpx2 httpcore2 fsspec filelock requests urllib3 charset-normalizer pygments setuptools"

say() { echo "install: $*"; }
fail() { echo "install: $*" >&2; exit 1; }
system="" service="" undo="" wheel=""
while [ $# -gt 0 ]; do
    case "$1" in
        --system) system=1 ;;
        --service) service=1 ;;
        --undo) undo=1 ;;
        --wheel) [ $# -gt 1 ] || fail "--wheel needs a file"; wheel=$2; shift ;;
        *) fail "there is no option $1; the first lines of this file list them" ;;
    esac
    shift
done

if [ -n "$system" ]; then
    [ "$(id -u)" = 0 ] || fail "--system needs root: sudo sh install.sh --system"
    folder=/opt/swarm link=/usr/local/bin/swarm
else
    folder=$HOME/.local/share/swarm/venv link=$HOME/.local/bin/swarm
fi

if [ -n "$undo" ]; then
    if [ -x "$folder/bin/swarm" ] && "$folder/bin/swarm" service status >/dev/null 2>&1; then
        "$folder/bin/swarm" service remove ${system:+--system}
    fi
    rm -rf "$folder" "$folder.before" "$link"
    say "Swarm is gone. Keys and models stay in ~/.local/share/swarm and ~/.cache/swarm (a --system service's in"
    say "/var/lib/swarm and /var/cache/swarm); remove these folders to be rid of them too."
    exit 0
fi

case "$(uname -m)" in
    x86_64) sum=$SUM_X86_64 ;;
    aarch64) sum=$SUM_AARCH64 ;;
    *) fail "Swarm runs on 64-bit x86 and Arm; $(uname -m) is neither" ;;
esac
[ "$(getconf LONG_BIT)" = 64 ] || fail "this system is 32 bit; a Raspberry Pi needs the 64-bit Raspberry Pi OS"

python=""
for each in python3 python3.14 python3.13 python3.12 python3.11; do
    if $each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$each; break; fi
done
[ -n "$python" ] || fail "Python 3.11 or newer is needed; Debian 12, Ubuntu 24.04 and Raspberry Pi OS since 2023 have it"
if ! $python -c 'import ensurepip, venv' 2>/dev/null; then
    say "installing Python's venv module"
    sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get install -y -qq python3-venv >/dev/null || fail "it could not be installed: sudo apt install python3-venv"
fi

temporary=$(mktemp -d) before=$folder.before  # what was installed until now; it comes back when this fails
put_back() { rm -rf "$temporary"; if [ -d "$before" ]; then rm -rf "$folder"; mv "$before" "$folder"; fi; }
trap put_back EXIT
trap 'exit 130' INT TERM
if [ -z "$wheel" ]; then
    [ -n "$RELEASE" ] || fail "this copy belongs to no release; give the wheel: sh install.sh --wheel FILE"
    name=$(echo "$sum" | cut -d' ' -f2)
    wheel=$temporary/$name
    say "fetching $name"
    $python -c 'import sys, urllib.request as web; web.urlretrieve(*sys.argv[1:])' "$RELEASE/$name" "$wheel" ||
        fail "$RELEASE/$name could not be fetched; is this device online, and is its clock right?"
    came=$(sha256sum "$wheel" | cut -d' ' -f1)
    [ "$came" = "$(echo "$sum" | cut -d' ' -f1)" ] || fail "what came is not the wheel of this release"
fi

say "making $folder (some 150 MB with the libraries; a few minutes on a Raspberry Pi)"
if [ -d "$before" ]; then rm -rf "$folder"; elif [ -d "$folder" ]; then mv "$folder" "$before"; fi
$python -m venv "$folder"
pip() { "$folder/bin/python" -m pip "$@" -q --disable-pip-version-check; }
pip install --no-compile --only-binary :all: "$wheel" || fail "pip could not install it; its own message is above"
# Libraries bring along what Swarm never imports (a hub client of its own, tests): that goes again.
pip uninstall -y $UNUSED 2>/dev/null
find "$folder/lib" -depth -type d \( -name tests -o -path '*/pip/*__pycache__' \) -exec rm -rf {} +
# Python keeps what it made of modules that it reads: of those that are used, here, for a service may not write there.
"$folder/bin/python" -I -c 'import importlib, pkgutil, swarm
for m in pkgutil.walk_packages(swarm.__path__, "swarm."): m.name.endswith("__main__") or importlib.import_module(m.name)'
(cd "$folder"/lib/python*/site-packages && "$folder/bin/python" -m compileall -q rich prompt_toolkit uvicorn) >/dev/null || true
mkdir -p "$(dirname "$link")" && ln -sf "$folder/bin/swarm" "$link"
say "$("$link" --version) is installed: $link"
case ":$PATH:" in *":$(dirname "$link"):"*) ;; *) say "log in again, so that the shell finds it (or use the full path)" ;; esac
if [ -d "$before" ] && "$link" service status ${system:+--system} >/dev/null 2>&1; then service=1; fi  # of the new version
rm -rf "$before"
[ -z "$service" ] || "$link" service install ${system:+--system}
say "next: swarm chat, or swarm join; swarm doctor says whether something is wrong. To undo: sh install.sh --undo"
