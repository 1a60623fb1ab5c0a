"""How the product of one token is computed here: for each type the fastest of a few ways, found by measuring them.

A way is an instruction set, how many panels are read side by side, and how far ahead of its reads each fetches
(csrc/README.md, "Reading memory"). Which is fastest differs from CPU to CPU and from type to type; what it computes
does not differ by a bit. What was found is kept in a file, for this build and this CPU. Where nothing is kept,
kernels read as they did best where they were written: a device that is always busy loses speed and no more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swarm import cores, kernels
from swarm.engine.weights import Memory, Weights
from swarm.files import make_private, replace_file
from swarm.kernels import _native
from swarm.kernels.quants import QUANTS, quant_by_name
from swarm.limits import MAX_CONFIG_BYTES
from swarm.models.spec import Role

U8 = npt.NDArray[np.uint8]
PASS_BYTES = 64 * 1024 * 1024  # of weights a pass: of 9 MB, with caches as they are, three of ten choices were wrong
COLUMNS = 4096  # of the matrix that they are taken for
ROUNDS = 3  # passes of each way, in turns, of which the fastest counts
LOSERS = 1.25  # a way that takes so many times as long as the best in the first round is not tried again
FILLING = 0x11  # bytes that make numbers of a usual size in every type: what is tiny or no number takes longer
GAIN = 1.03  # below this it is noise, and the usual way stays
BUDGET_S = 1.0  # of measuring at a time; what is left is measured another time
ROOM_BYTES = 4 * PASS_BYTES  # of memory that must be free: nothing is pushed out for it
QUIET = 0.1  # of all cores may be busy with other programs meanwhile
AHEAD = (4096, 8192)  # bytes that one stream may fetch ahead: latency times bandwidth of a core is 3 to 6 KB
AHEAD_SIDE_BY_SIDE = (1024, 2048)  # of each of several
SUMMED = frozenset((Role.O, Role.DOWN, Role.SHARED_DOWN, Role.EXPERT_DOWN))
FILE_NAME = "ways.json"


class Product(NamedTuple):
    """A kind of product: the type of its weights, and whether it ends as exact sums (down projections do)."""

    quant: str
    summed: bool = False


class Way(NamedTuple):
    """How it is computed. streams 0: as the instruction set likes."""

    isa: str
    streams: int = 0
    ahead: int = 0

    def __str__(self) -> str:
        if not self.streams:
            return f"{self.isa}, as usual"
        text = f"{self.isa}, {self.streams} stream{'s' if self.streams > 1 else ''}"
        return f"{text}, {self.ahead} bytes ahead" if self.ahead else text


class Choice(NamedTuple):
    """The way that was fastest, its bytes per second, and how many times as fast as the usual one it was."""

    way: Way
    bytes_per_s: float
    gain: float


Choices = Mapping[Product, Choice]


def usual(isa: str) -> Way:
    """What is used where nothing was measured."""
    return Way(isa)


def candidates(isa: str) -> list[Way]:
    """What is tried, the usual way first: of this instruction set, and of the next one below it."""
    single = [Way(isa, 1, ahead) for ahead in (0, *AHEAD)]
    most = _native.most_streams(isa)
    beside = [Way(isa, most, ahead) for ahead in AHEAD_SIDE_BY_SIDE] if most > 1 else []
    slower = kernels.isas()[: kernels.isas().index(isa)][-1:]
    return [usual(isa), *single, *beside, *(Way(name, 1, AHEAD[-1]) for name in slower if name != "scalar")]


def products_of(weights: Weights) -> list[Product]:
    """What a token of these weights needs, the most bytes first."""
    sizes: dict[Product, int] = {}

    def add(quant_id: int, summed: bool, n_bytes: int) -> None:
        if QUANTS[quant_id].block_cols > 1:
            product = Product(QUANTS[quant_id].name, summed)
            sizes[product] = sizes.get(product, 0) + n_bytes

    for (_, role), mat in weights.matrices.items():
        add(mat.qtype, role in SUMMED, mat.n_bytes)
    for (_, role), mats in weights.experts.items():
        for mat in mats:
            add(mat.qtype, role in SUMMED, mat.n_bytes)
    for file in weights.expert_files.values():
        for i, (quant_id, _, _) in enumerate(file.shape.matrices):
            add(quant_id, i == 2, file.shape.expert_bytes)
    return sorted(sizes, key=lambda product: -sizes[product])


def for_engine(choices: Choices) -> list[tuple[int, bool, str, int, int]]:
    """As `_native.Engine.choose` takes them."""
    return [(quant_by_name(p.quant).id, p.summed, *choice.way) for p, choice in choices.items()]


# ---- measuring


def measure(
    products: Sequence[Product], isa: str, threads: int, go_on: Callable[[], bool] = lambda: True
) -> dict[Product, Choice]:
    """The fastest way of each of `products`, as far as that takes BUDGET_S; none when the device was busy meanwhile.

    go_on: asked between passes of a few milliseconds; False ends it, and nothing was found.
    """
    if not products or cores.free_memory_bytes() < ROOM_BYTES:
        return {}
    watch = cores.Others()
    memory = filled_memory()
    found: dict[Product, Choice] = {}
    for product in products:
        if watch.seconds > BUDGET_S:
            break
        choice = fastest(product, isa, threads, memory, go_on)
        if choice is None:
            return {}
        found[product] = choice
    return found if watch.share() <= QUIET else {}


def filled_memory() -> U8:
    """What `fastest` reads."""
    memory = Memory(PASS_BYTES).take(PASS_BYTES)
    memory.fill(FILLING)
    return memory


def fastest(
    product: Product, isa: str, threads: int, memory: U8, go_on: Callable[[], bool] = lambda: True
) -> Choice | None:
    """The fastest way of one product, however busy the device is; None when `go_on` ended it."""
    quant = quant_by_name(product.quant)
    ways = candidates(isa)
    took = {way: float("inf") for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            if not go_on():
                return None
            seconds = _native.product_seconds(quant.id, product.summed, *way, memory, COLUMNS, threads)
            took[way] = min(took[way], seconds)
        ways = [way for way in ways if way == ways[0] or took[way] <= LOSERS * min(took.values())]
    return choose(took, usual(isa))


def choose(took: Mapping[Way, float], usual_way: Way) -> Choice:
    """The best of what each way took, in seconds for PASS_BYTES; the usual one unless another gains something."""
    best = min(took, key=lambda way: took[way])
    if took[usual_way] < GAIN * took[best]:
        best = usual_way
    return Choice(best, PASS_BYTES / took[best], took[usual_way] / took[best])


# ---- kept


def kept(folder: Path, isa: str, threads: int) -> dict[Product, Choice]:
    """What was found here before, with this build, CPU, instruction set and number of threads."""
    found: dict[Product, Choice] = {}
    sets = _read(folder)
    rows = sets.get(_place(isa, threads)) if isinstance(sets, dict) else None
    possible = set(candidates(isa)) if isa in kernels.isas() else set()
    for row in rows if isinstance(rows, list) else ():
        with suppress(TypeError, ValueError, KeyError):  # somebody else's, or damaged: it will be found again
            quant, summed, name, streams, ahead, *figures = row
            choice = Choice(Way(name, streams, ahead), *map(float, figures))
            is_sane = all(0 < figure < float("inf") for figure in choice[1:]) and type(summed) is bool
            if is_sane and choice.way in possible and quant_by_name(quant).block_cols > 1:
                found[Product(quant, summed)] = choice
    return found


def keep(folder: Path, isa: str, threads: int, choices: Choices) -> None:
    """Keep what was found, beside what was found for others. A full disk only costs that it is found again."""
    sets = _read(folder)
    rows = [[*product, *choice.way, choice.bytes_per_s, choice.gain] for product, choice in choices.items()]
    value = {"of": conditions(), "sets": {**(sets if isinstance(sets, dict) else {}), _place(isa, threads): rows}}
    with suppress(OSError):
        make_private(folder)
        replace_file(folder / FILE_NAME, json.dumps(value).encode(), durable=False)


def conditions() -> str:
    """Under which what was found holds."""
    build = Path(_native.__file__).stat()
    return f"{build.st_size} {build.st_mtime_ns} {cores.cpu_model()}"


def renewed(
    folder: Path,
    products: Iterable[Product],
    isa: str,
    threads: int,
    go_on: Callable[[], bool] = lambda: True,
) -> dict[Product, Choice]:
    """What is kept, and what can now be found of those `products` that are not; kept, too."""
    choices = kept(folder, isa, threads)
    new = measure([product for product in products if product not in choices], isa, threads, go_on)
    if new:
        choices |= new
        keep(folder, isa, threads, choices)
    return choices


def _place(isa: str, threads: int) -> str:
    return f"{isa} {threads}"


def _read(folder: Path) -> object:
    """What is kept for this build and CPU, by `_place`."""
    try:
        with (folder / FILE_NAME).open("rb") as file:
            value = json.loads(file.read(MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return value.get("sets") if isinstance(value, dict) and value.get("of") == conditions() else None
