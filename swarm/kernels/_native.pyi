"""Types of the compiled module; its docstrings are in csrc/*.pxi."""

import mmap
from collections.abc import Callable, Iterable, Sequence
from socket import socket
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

def isa_names() -> list[str]: ...
def best_isa() -> str: ...
def team_size(n_threads: int) -> int: ...
def quant_types() -> list[tuple[int, str, int, int, int]]: ...
def packed_bytes(qtype: int, rows: int, cols: int, tile_cols: int) -> int: ...
def most_streams(isa: str) -> int: ...
def product_seconds(
    qtype: int,
    sums: bool,
    isa: str,
    streams: int,
    ahead: int,
    data: U8,
    cols: int,
    n_threads: int,
    times: int = 1,
) -> float: ...
def read_all(data: U8, n_threads: int) -> int: ...
def pack(qtype: int, raw: U8, cols: int, out: U8, tile_cols: int = 0, n_threads: int = 1) -> Mat: ...
def matmul(w: Mat, x: F32, isa: str = "", n_threads: int = 1) -> F32: ...
def op(name: str, isa: str, *args: Any) -> F32: ...
def fit_with_minimum(x: F32, top: int) -> tuple[F32, F32]: ...
def fit_signed(x: F32, half: int) -> F32: ...
def texts(raw: bytes, count: int) -> list[str]: ...
def skip_texts(data: bytes | mmap.mmap, start: int, count: int, end: int) -> int: ...
def split_at_space(pairs: list[str]) -> list[tuple[str, str] | None]: ...
def all_finite(frame: bytes | bytearray | memoryview) -> bool: ...
def largest(x: F32, k: int, floor: float | np.float32) -> npt.NDArray[np.int64]: ...
def weights(
    x: F32, places: npt.NDArray[np.int64], best: float | np.float32, temperature: float, powers: F64
) -> F64: ...
def exponential(x: F64, powers: F64) -> F64: ...
def philox(key: int, place: int) -> int: ...
def crc32c(data: U8, by_tables: bool = False) -> int: ...

FADES: int
HIT: int
FREE: int

class Residents:
    def __init__(self, n_layers: int, n_experts: int, n_slots: int, fade_fast: F64, fade_slow: F64) -> None: ...
    def replay(self, trace: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]: ...
    def scores(self) -> F64: ...
    def set_scores(self, scores: F64) -> None: ...
    def resident(self) -> npt.NDArray[np.bool_]: ...

class ExpertCache:
    residents: Residents
    begun: bool
    def __init__(
        self,
        residents: Residents,
        files: Sequence[tuple[int, bool, int, int, npt.NDArray[np.uint32]]],
        arena: U8,
        slot_bytes: int,
        piece_bytes: int,
        n_readers: int,
    ) -> None: ...
    def close(self) -> None: ...
    def pause(self, paused: bool) -> None: ...
    def cancel(self) -> None: ...
    def fetch(self, layer: int, expert: int) -> bool: ...
    @property
    def n_filling(self) -> int: ...
    def counters(self) -> tuple[int, int, int, float]: ...

SODIUM_FUNCTIONS: list[str]
STAGE_KEY_BYTES: int
MAX_STAGE_MEMBERS: int

def encode_sums(near: I32, far: I64, wide: bool) -> tuple[bytes, bool]: ...
def add_sums(body: bytes | U8, near: I32, far: I64) -> bool: ...

class Stage:
    n_members: int
    me: int
    sealed_with: str
    is_over: bool
    def __init__(
        self,
        me: int,
        n: int,
        functions: Sequence[int],
        event_fd: int,
        *,
        ceiling_ms: int,
        name: Callable[[int], str] = ...,
        spin_us: int = 0,
    ) -> None: ...
    def reserve(self, n_values: int, n_bytes: int) -> None: ...
    def open(self, connections: Sequence[socket | None], keys: Sequence[bytes], aes: bool) -> None: ...
    def begin(self, sequence: int) -> None: ...
    def exchange(self, near: I32, far: I64, wide: I32, broken: bool = False) -> bool: ...
    def gather(self, data: bytes) -> list[bytes] | None: ...
    def refuse(self, sequence: int | None, why: str, member: int = -1) -> None: ...
    def close(self, why: str) -> None: ...
    def raise_end(self) -> NoReturn: ...
    def counters(self) -> tuple[int, float, int, int]: ...

class Mat:
    n_bytes: int
    def __init__(self, qtype: int, rows: int, cols: int, data: U8, tile_cols: int = 0) -> None: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def qtype(self) -> int: ...
    def row(self, i: int) -> F32: ...
    def unpack(self) -> U8: ...

class Dims:
    ffn: int
    n_experts: int
    top_k: int
    expert_ffn: int
    def __init__(
        self,
        *,
        hidden: int,
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
        rope_dims: int,
        rope_pair: bool,
        eps: float,
        q_scale: float,
        ffn: int,
        n_experts: int = 0,
        top_k: int = 0,
        expert_ffn: int = 0,
        embed_scale: float = 1.0,
        residual_scale: float = 1.0,
        value_dim: int = 0,
        nope: int = 0,
        q_rank: int = 0,
        head_out: int = 0,
    ) -> None: ...

class Attention:
    def __init__(
        self,
        dims: Dims,
        *,
        norm: F32,
        q: Mat,
        k: Mat,
        v: Mat,
        o: Mat,
        post_norm: F32 | None = None,
        q_bias: F32 | None = None,
        k_bias: F32 | None = None,
        v_bias: F32 | None = None,
        out_bias: F32 | None = None,
        q_norm: F32 | None = None,
        k_norm: F32 | None = None,
        sinks: F32 | None = None,
        rotated: bool = True,
        window: int = 0,
    ) -> None: ...

class LatentAttention(Attention):
    def __init__(
        self,
        dims: Dims,
        *,
        norm: F32,
        q: Mat,
        kv_a: Mat,
        kv_a_norm: F32,
        k_b: list[Mat],
        v_b: list[Mat],
        o: Mat,
        q_a: Mat | None = None,
        q_a_norm: F32 | None = None,
    ) -> None: ...

class Ffn:
    def __init__(
        self,
        dims: Dims,
        *,
        norm: F32,
        layer: int = 0,
        post_norm: F32 | None = None,
        gate: Mat | None = None,
        up: Mat | None = None,
        down: Mat | None = None,
        router: Mat | None = None,
        router_bias: F32 | None = None,
        experts: Sequence[tuple[Mat, Mat, Mat] | None] = (),
        top_k: int = 0,
        sigmoid: bool = False,
        normalise: bool = True,
        scale: float = 1.0,
        n_group: int = 1,
        top_group: int = 1,
        logit_bias: F32 | None = None,
        gate_bias: F32 | None = None,
        up_bias: F32 | None = None,
        down_bias: F32 | None = None,
        alpha: float = 1.0,
        limit: float = 0.0,
        cache: ExpertCache | None = None,
        cache_layer: int = 0,
    ) -> None: ...
    def set_expert(self, i: int, gate: Mat | None, up: Mat | None, down: Mat | None) -> None: ...

class Layers:
    n: int
    def __init__(self, dims: Dims, pairs: Iterable[tuple[Attention, Ffn]]) -> None: ...

class KvCache:
    capacity: int
    kind: str
    n_layers: int
    def __init__(self, dims: Dims, n_layers: int, capacity: int, kind: str = "f16") -> None: ...
    @property
    def length(self) -> int: ...
    def truncate(self, n: int) -> None: ...
    def resize(self, capacity: int) -> None: ...
    def rows(self, i: int) -> list[U8]: ...
    def fill(self, n: int) -> None: ...
    def copy(self, other: KvCache, n: int) -> None: ...

class Engine:
    threads: int
    max_tokens: int
    isa: str
    def __init__(
        self,
        dims: Dims,
        *,
        max_tokens: int,
        context: int,
        keep_float: bool = False,
        threads: int = 1,
        isa: str = "",
    ) -> None: ...
    def choose(self, ways: Iterable[tuple[int, bool, str, int, int]]) -> None: ...
    def begin(self, runs: Iterable[tuple[KvCache, int]], cos: F32, sin: F32, temper: F32 | None = None) -> None: ...
    def abandon(self) -> None: ...
    def embed(self, table: Mat | None, ids: npt.NDArray[Any]) -> None: ...
    def set_hidden(self, x: npt.NDArray[Any]) -> None: ...
    def attention(self, layer: Attention) -> None: ...
    def ffn(self, layer: Ffn) -> None: ...
    def keys(self, layer: Attention, wanted: Sequence[int]) -> None: ...
    def meet(self, stage: Stage | None) -> None: ...
    def share(self) -> None: ...
    def sums(self) -> npt.NDArray[np.int64]: ...
    def units(self) -> F32: ...
    def set_sums(self, total: npt.NDArray[np.int64]) -> None: ...
    def step(
        self,
        stack: Layers,
        *,
        ids: npt.NDArray[Any] | None = None,
        table: Mat | None = None,
        norm: F32 | None = None,
        lm_head: Mat | None = None,
    ) -> F32 | None: ...
    def hidden(self) -> F32: ...
    def lm_head(self, norm: F32 | None, table: Mat | None) -> F32: ...
    def end(self) -> None: ...
