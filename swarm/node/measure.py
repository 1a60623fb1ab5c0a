"""What this device can do, measured once with the real kernels and remembered: bandwidth, throughput, disk.

A made-up model of a few layers runs through the decoder that answers use: one token at a time for the bandwidth, a
chunk of a prompt for the multiply-adds, layers of almost nothing for the fixed costs. What memory may be used is
decided anew at every start. A measurement beside busy programs (an update that runs, three nodes that start at once)
would make a device look slow for ever: so how busy they were is kept with it, and it is repeated in a quiet moment.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

import swarm
from swarm import config, cores, kernels
from swarm.cores import free_memory_bytes
from swarm.engine.decoder import Decoder
from swarm.engine.expert_cache import READERS
from swarm.engine.expert_file import PIECE_BYTES, read_past_page_cache
from swarm.engine.weights import MATRICES, Memory, load_weights
from swarm.errors import ConfigError
from swarm.files import taken_bytes
from swarm.kernels.quants import Quant, quant_by_name
from swarm.models.spec import LayerSpec, ModelSpec, Role, RopeSpec, TensorRef, role_shape
from swarm.node.home import Home, read_json, write_json
from swarm.parts import Part
from swarm.units import size_text
from swarm.wire.records import Capabilities

U8 = npt.NDArray[np.uint8]
MEMORY_SHARE = 0.8  # of the machine, when nobody says: the rest is for its user
SPARE_BYTES = 256 * 1024 * 1024  # of what is free now that is left alone, too, and this process's own needs
BASE_BYTES = 150 * 1024 * 1024  # of a node beside weights and conversations: the bar of docs/memory.md
FREE_SHARE = 0.1  # of the disk that stays free when nobody says how much chunks may take,
FREE_BYTES = 4 * 1024**3  # but no more than this: a tenth of a large disk is more than many have left
PROMPT_TOKENS = 64  # enough for the speed of a longer chunk, and done in a second on a Pi 4
DECODE_STEPS = 12
BIG_LAYERS = 3  # 76 MB: past the caches of home devices
DISK_TEST_BYTES = 32 * 1024 * 1024
QUIET = 0.1  # of the cores may be busy with other programs while a measurement is taken for good
AGAIN_FIRST_S, AGAIN_MAX_S = 20.0, 3600.0  # between attempts to repeat one, doubling
LOOK_S = 1.0  # how long is looked whether it is quiet
ROLES = (Role.ATTN_NORM, Role.Q, Role.K, Role.V, Role.O, Role.FFN_NORM, Role.GATE, Role.UP, Role.DOWN)


@dataclass(frozen=True)
class Speeds:
    """What does not change from start to start; `of` says for which kernels and threads it holds."""

    of: str
    read_bytes_per_s: float
    macs_per_s: float
    layer_s: float  # a layer of almost nothing: calls and barriers
    step_s: float  # a step without layers: Python around them
    disk_bytes_per_s: float
    others: float = 0.0  # of all cores, what other programs used meanwhile

    def better(self, other: Speeds) -> Speeds:
        """The better of each of two measurements: what disturbs one makes it worse, never better."""
        return Speeds(
            self.of,
            max(self.read_bytes_per_s, other.read_bytes_per_s),
            max(self.macs_per_s, other.macs_per_s),
            min(self.layer_s, other.layer_s),
            min(self.step_s, other.step_s),
            max(self.disk_bytes_per_s, other.disk_bytes_per_s),
            min(self.others, other.others),
        )


def capabilities(home: Home, settings: config.Settings, threads: int) -> Capabilities:
    """What this device tells the others. Takes a few seconds the first time."""
    isa = kernels.isa(settings.cpu)
    speeds = remembered(home, isa, threads) or measure(home, isa, threads)
    return Capabilities(
        machine=platform.machine()[:16] or "unknown",
        kernels=isa[:16],
        threads=threads,
        memory_bytes=usable_memory(settings.memory),
        disk_bytes=usable_disk(home, settings.disk),
        read_bytes_per_s=speeds.read_bytes_per_s,
        prefill_ops_per_s=speeds.macs_per_s,
        disk_bytes_per_s=speeds.disk_bytes_per_s,
        layer_s=speeds.layer_s,
        step_s=speeds.step_s,
    )


async def again_when_quiet(home: Home, isa: str, threads: int, is_idle: Callable[[], bool]) -> bool:
    """Wait for a quiet moment and repeat a measurement that others disturbed; False when none did."""
    figures = remembered(home, isa, threads)
    wait_s = AGAIN_FIRST_S
    again = False
    while figures is not None and figures.others > QUIET:
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, AGAIN_MAX_S)
        if is_idle() and await asyncio.to_thread(is_quiet) and is_idle():
            figures = await asyncio.to_thread(measure, home, isa, threads, figures)
            again = True
    return again


def usable_memory(wanted: str) -> int:
    """Bytes that weights and conversations may take here; ConfigError for more than the machine has beside the node."""
    machine: int = psutil.virtual_memory().total
    limit, _ = cores.cgroup_memory()
    total = machine if limit is None else min(machine, limit)
    most = max(0, total - BASE_BYTES)
    if not wanted:
        return max(0, min(int(MEMORY_SHARE * most), free_memory_bytes() - SPARE_BYTES))
    n_bytes = config.parse_bytes("memory", wanted, of=most)
    if n_bytes > most:
        whose = "this device" if total == machine else "this container or service"
        raise ConfigError(
            f"memory is {wanted}, but {whose} has {size_text(total)}, of which a node itself takes "
            f"{size_text(BASE_BYTES)}; give at most {size_text(most)}, or leave it out"
        )
    return n_bytes


def usable_disk(home: Home, wanted: str) -> int:
    """Bytes that chunks of models may take on the disk of `home`, with those that are there already."""
    disk = psutil.disk_usage(str(home.root))
    free_bytes: int = disk.free
    if wanted:
        return config.parse_bytes("disk", wanted, of=disk.total)
    return max(0, taken_bytes(home.store) + free_bytes - min(int(FREE_SHARE * disk.total), FREE_BYTES))


def remembered(home: Home, isa: str, threads: int) -> Speeds | None:
    """What an earlier run measured with the same kernels and threads."""
    value = read_json(home.measured_file)
    names = {field.name for field in fields(Speeds)}
    if not isinstance(value, dict) or value.keys() != names or value["of"] != conditions(isa, threads):
        return None
    numbers = [value[name] for name in names - {"of"}]
    return Speeds(**value) if all(isinstance(n, float) and n >= 0 for n in numbers) else None


def measure(home: Home, isa: str, threads: int, before: Speeds | None = None) -> Speeds:
    """Measure, and remember it, or what was better `before`."""
    watch = cores.Others()
    big = _Timing(_spec(n_layers=BIG_LAYERS, hidden=2048, heads=16, ffn=5632), isa, threads)
    small = _Timing(_spec(n_layers=8, hidden=256, heads=2, ffn=256), isa, threads)
    none = _Timing(_spec(n_layers=0, hidden=256, heads=2, ffn=256), isa, threads)
    step_s = none.decode_s()
    layer_s = max(small.decode_s() - step_s, 0.0) / 8
    read_s = max(big.decode_s() - step_s - BIG_LAYERS * layer_s, 1e-9)
    speeds = Speeds(
        of=conditions(isa, threads),
        read_bytes_per_s=big.n_bytes / read_s,
        macs_per_s=PROMPT_TOKENS * big.macs / big.prefill_s(),
        layer_s=layer_s,
        step_s=step_s,
        disk_bytes_per_s=disk_speed(home.root),
        others=watch.share(),
    )
    speeds = speeds if before is None else speeds.better(before)
    write_json(home.measured_file, asdict(speeds))
    return speeds


def disk_speed(folder: Path) -> float:
    """Bytes per second read from the disk of `folder` as experts are: pieces, several at once, past the system's cache.

    0 where that cannot be told.
    """
    path = folder / f".speed-{os.getpid()}"
    block = os.urandom(1 << 20)
    try:
        with path.open("wb") as file:
            for _ in range(DISK_TEST_BYTES // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        with path.open("rb", buffering=0) as file:
            return _read_rate(file.fileno())
    except OSError:
        return 0.0
    finally:
        path.unlink(missing_ok=True)


def _read_rate(descriptor: int) -> float:
    if not read_past_page_cache(descriptor) and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    memory = Memory(DISK_TEST_BYTES).take(DISK_TEST_BYTES)
    memory.fill(0)  # the first touch of its pages is not part of reading
    view = memory.data

    def read(at: int) -> int:
        return os.preadv(descriptor, [view[at : at + PIECE_BYTES]], at)

    with ThreadPoolExecutor(READERS) as readers:
        started = time.perf_counter()
        n_bytes = sum(readers.map(read, range(0, DISK_TEST_BYTES, PIECE_BYTES)))
        return n_bytes / (time.perf_counter() - started)


def is_quiet() -> bool:
    """Look for a second whether other programs leave the device alone."""
    return others_now(LOOK_S) <= QUIET


def others_now(seconds: float) -> float:
    """What share of all cores other programs use just now."""
    watch = cores.Others()
    time.sleep(seconds)
    return watch.share()


class _Timing:
    """A made-up model, ready to be timed."""

    def __init__(self, spec: ModelSpec, isa: str, threads: int) -> None:
        parts = [Part(layer) for layer in range(spec.n_layers)]
        weights = load_weights(_Noise(spec), spec, parts, threads=threads)
        self.n_bytes = weights.n_bytes
        self.macs = sum(int(np.prod(mat.shape)) for mat in weights.matrices.values())
        self._decoder = Decoder(spec, weights, context=512, threads=threads, isa=isa)
        self._hidden = np.random.default_rng(1).standard_normal((PROMPT_TOKENS, spec.hidden), np.float32)

    def decode_s(self) -> float:
        """Seconds of a step over one token: the median."""
        kv = self._decoder.new_kv()
        return statistics.median(
            _seconds(lambda: self._decoder.extend(self._hidden[:1], kv)) for _ in range(DECODE_STEPS)
        )

    def prefill_s(self) -> float:
        """Seconds of a step over a chunk of a prompt: the better of two."""
        return min(_seconds(lambda: self._decoder.extend(self._hidden, self._decoder.new_kv())) for _ in range(2))


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    quant: Quant


class _Noise:
    """A source of weights of the kind most models have: Q4_K blocks of random small numbers, norms of ones."""

    def __init__(self, spec: ModelSpec) -> None:
        q4_k, f32 = quant_by_name("Q4_K"), quant_by_name("F32")
        self.tensors = {}
        for layer, block in enumerate(spec.layers):
            for role, ref in block.tensors.items():
                rows, cols, _ = role_shape(spec, layer, role)
                shape, quant = ((rows, cols), q4_k) if role in MATRICES else ((rows,), f32)
                self.tensors[ref.name] = _Tensor(shape, quant)

    def raw(self, name: str, rows: Sequence[range] | None = None, columns: range | None = None) -> U8:
        """All of it: nothing asks for less."""
        tensor = self.tensors[name]
        if tensor.quant.name == "F32":
            return np.ones(tensor.shape, np.float32).view(np.uint8)
        n_rows, n_cols = tensor.shape
        rng = np.random.default_rng(len(name))
        blocks = rng.integers(0, 256, (n_rows, n_cols // tensor.quant.block_cols, tensor.quant.block_bytes), np.uint8)
        blocks[:, :, :2] = np.array([1e-4], np.float16).view(np.uint8)
        blocks[:, :, 2:4] = 0
        return blocks.reshape(n_rows, -1)

    def slabs(
        self, name: str, rows: Sequence[range] | None = None, columns: range | None = None, slabs: range | None = None
    ) -> Iterator[U8]:
        """There are no experts."""
        yield self.raw(name)

    def drop(self, name: str) -> None:
        """Nothing is mapped."""


def _spec(*, n_layers: int, hidden: int, heads: int, ffn: int) -> ModelSpec:
    spec = ModelSpec(
        family="llama",
        n_layers=n_layers,
        hidden=hidden,
        vocab=1,
        context_length=512,
        n_heads=heads,
        n_kv_heads=max(heads // 4, 1),
        head_dim=hidden // heads,
        norm_eps=1e-5,
        rope=RopeSpec("half", hidden // heads, 1e4),
        attention_scale=(hidden // heads) ** -0.5,
        layers=(LayerSpec(ffn),) * n_layers,
    )
    layers = (LayerSpec(ffn, tensors={role: _ref(spec, i, role) for role in ROLES}) for i in range(n_layers))
    return replace(spec, layers=tuple(layers))


def _ref(spec: ModelSpec, layer: int, role: Role) -> TensorRef:
    shape = role_shape(spec, layer, role)
    return TensorRef(f"{layer}.{role}", (range(shape.rows),), range(shape.cols))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def conditions(isa: str, threads: int) -> str:
    """Under which a measurement holds."""
    return f"{swarm.__version__} {isa} {threads}"
