"""`swarm doctor`: look at this device, say what is wrong and what to do about it."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from swarm import config, cores
from swarm.cli import doctor_device, doctor_network, machine, options
from swarm.cli.finding import Finding
from swarm.cli.terminal import DIM, GREEN, RED, YELLOW, paint
from swarm.errors import NativeError, SwarmError
from swarm.files import spare_bytes
from swarm.plain import visible
from swarm.store.fetching import DOWNLOADS, file_sha256
from swarm.store.keeping import kept_models
from swarm.store.naming import resolve
from swarm.units import GIB, rate_text, size_text

if TYPE_CHECKING:
    from swarm.engine.ways import Choices

HELP = "Check this device: kernels, memory, disk, model, network. Says what is wrong and what to do; exits 1 if so."
EXAMPLES = """\
  swarm doctor
  swarm doctor --json
"""
MIN_MEMORY_BYTES = GIB  # the default model with its context, Python and the system beside it
# A 4-bit 9B model reads 5 GB a token: below this it speaks slower than a token in two seconds.
SLOW_MEMORY_BYTES_S = 2.5e9
BANDWIDTH_SECONDS = 0.5
WAYS_OF = ("Q4_K", "Q6_K", "Q4_0", "Q8_0")  # what most models are stored in


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", metavar="N", type=options.whole(1, 1024), help="threads to measure with")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--home", metavar="DIR", help="of the node, when several run here")


def run(args: argparse.Namespace) -> int:
    settings = options.settings_of(args)
    findings = examine(settings)
    sick = [finding for finding in findings if finding.level == "problem"]
    if args.json:
        print(json.dumps({"ok": not sick, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        for finding in findings:
            print(line_of(finding))
        print(verdict(findings))
    return 1 if sick else 0


def examine(settings: config.Settings) -> list[Finding]:
    """Every check, in the order of the report; one that fails is itself a finding."""
    findings: list[Finding] = []
    for check in CHECKS:
        subject = check.__name__.removeprefix("check_")
        try:
            findings += check(settings)
        except SwarmError as error:
            findings.append(Finding(subject, str(error), "problem"))
        except Exception as error:  # what one check does not expect must not hide what the others found
            findings.append(failed(subject, error))
            if config.debug():
                raise
    return findings


def failed(subject: str, error: Exception) -> Finding:
    """A check that could not be made."""
    if isinstance(error, OSError) and error.filename:
        text = visible(f"{error.filename}: {error.strerror}")
        return Finding(subject, text, "problem", "see to it that this user may read and write there")
    advice = "SWARM_DEBUG=1 swarm doctor shows where; please report it"
    return Finding(subject, visible(f"could not look ({type(error).__name__}: {error})"), "warning", advice)


def check_python(settings: config.Settings) -> list[Finding]:
    return [Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]


def check_processor(settings: config.Settings) -> list[Finding]:
    allowed = cores.allowed_cpus()
    quota = cores.cgroup_quota()
    text = f"{machine.cpu_name()}; {len(allowed)} CPUs on {cores.physical_cores(allowed)} cores usable"
    if quota is None:
        return [Finding("processor", text)]
    text += f", limited to {quota:.3g} cores' worth of time"
    if quota >= 1:
        return [Finding("processor", text)]
    return [Finding("processor", text, "warning", "give the container or service at least one whole core")]


def check_kernels(settings: config.Settings) -> list[Finding]:
    """The compiled part, its instruction sets, threads and memory bandwidth."""
    try:
        from swarm import kernels
    except (ImportError, NativeError) as error:
        return [Finding("kernels", f"the compiled part is missing ({error})", "problem", _compiler_advice())]
    threads = settings.threads or kernels.threads()
    isas, used = kernels.isas(), kernels.isa(settings.cpu)
    text = f"{used} in use; this CPU runs {', '.join(isas)}"
    lowered = used != isas[-1]
    speed = kernels.read_bandwidth(threads, BANDWIDTH_SECONDS)
    slow = speed < SLOW_MEMORY_BYTES_S
    return [
        Finding(
            "kernels",
            text,
            "warning" if lowered else "ok",
            "the setting cpu (or SWARM_CPU) lowers it; leave it out for the best" if lowered else "",
        ),
        Finding("threads", f"{threads} compute{' (set by you)' if settings.threads else ''}"),
        Finding(
            "bandwidth",
            f"{rate_text(speed)} read with {threads} threads",
            "warning" if slow else "ok",
            "large models will be slow here; close what else is running" if slow else "",
        ),
    ]


def check_ways(settings: config.Settings) -> list[Finding]:
    """How products of a token are computed fastest here; measured now for the commonest types, if nobody did."""
    try:
        from swarm import kernels
        from swarm.engine import ways
    except (ImportError, NativeError):
        return []  # said above
    isa, threads = kernels.isa(settings.cpu), settings.threads or kernels.threads()
    wanted = [ways.Product(quant, summed) for quant in WAYS_OF for summed in (False, True)]
    found = ways.renewed(settings.home_path, wanted, isa, threads)
    if not found:
        return [Finding("ways", "not measured: this device is busy just now; products are computed as usual", "away")]
    quants = dict.fromkeys(product.quant for product in found)
    return [Finding("ways", f"{quant}: {_ways_text(quant, found)}") for quant in quants]


def _ways_text(quant: str, found: Choices) -> str:
    """Of rows, and of the sums that down projections end as."""
    texts = []
    for product, choice in found.items():
        if product.quant == quant:
            gain = f", {choice.gain:.2f} of the usual" if choice.gain > 1 else ""
            kind = "sums" if product.summed else "rows"
            texts.append(f"{kind} {choice.way} ({rate_text(choice.bytes_per_s)}{gain})")
    return "; ".join(texts)


def check_memory(settings: config.Settings) -> list[Finding]:
    memory = machine.memory()
    where = " (limited by its container or service)" if memory.limited_by_group else ""
    text = f"{size_text(memory.total)}{where}, {size_text(memory.available)} free"
    if memory.available >= MIN_MEMORY_BYTES:
        return [Finding("memory", text)]
    return [Finding("memory", text, "warning", "close other programs; even small models need about 1 GiB free")]


def check_disk(settings: config.Settings) -> list[Finding]:
    folder = settings.models_path
    model = DOWNLOADS.get(settings.model.lower())
    kept = sum(path.stat().st_size for path in kept_models(folder))
    free = spare_bytes(folder)
    text = f"{size_text(free)} free for models in {folder} ({size_text(kept)} used)"
    needed = model.room_bytes if model and model.file_in(folder) is None else 0
    if free >= needed:
        return [Finding("disk", text)]
    return [Finding("disk", text, "problem", f"free {size_text(needed - free)}, or set models_dir to another disk")]


def check_model(settings: config.Settings) -> list[Finding]:
    """The default model is whole, or will be fetched."""
    model = DOWNLOADS.get(settings.model.lower())
    if model is None:
        return [Finding("model", str(resolve(settings=settings)))]
    path = settings.models_path / model.file_name
    if not path.exists():
        return [
            Finding("model", f"{model.name} is not here yet; `swarm chat` fetches it ({size_text(model.size_bytes)})")
        ]
    if file_sha256(path) == model.sha256:
        return [Finding("model", f"{model.name} is here and whole")]
    advice = f"remove {path}; the next `swarm chat` fetches it again"
    return [Finding("model", f"{model.name} is damaged: its SHA-256 is wrong", "problem", advice)]


MARKS = {"ok": ("ok", GREEN), "away": ("--", DIM), "warning": ("??", YELLOW), "problem": ("!!", RED)}
CHECKS: tuple[Callable[[config.Settings], list[Finding]], ...] = (
    check_python,
    check_processor,
    check_kernels,
    check_ways,
    check_memory,
    check_disk,
    check_model,
    *doctor_device.CHECKS,
    *doctor_network.CHECKS,
)


def line_of(finding: Finding) -> str:
    """A finding as a person reads it, with the advice below."""
    mark, style = MARKS[finding.level]
    advice = f"\n     {'':<10} -> {finding.advice}" if finding.advice else ""
    return f"{paint(mark, style)}   {finding.subject:<10} {finding.text}{advice}"


def verdict(findings: list[Finding]) -> str:
    """The last line of the report."""
    problems = sum(finding.level == "problem" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    if problems:
        return paint(f"{problems} thing{'s' if problems > 1 else ''} to mend before Swarm runs here", RED)
    if warnings:
        return paint("Swarm runs here; it could run better", YELLOW)
    return paint("Swarm runs here", GREEN)


def _compiler_advice() -> str:
    package = Path(__file__).parents[2]
    if not (package / "setup.py").exists():
        return "install Swarm again: pip install --force-reinstall swarm"
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "sudo apt install gcc libc6-dev python3-dev, then `make build`"
    return f"run `make build` in {package} (with {sys.executable}) and read what the compiler says"
