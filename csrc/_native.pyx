# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The kernels from Python: checks shapes and dtypes, releases the GIL, opens the OpenMP team, calls C."""

import mmap
from contextlib import suppress

import numpy as np

cimport cython
from cython.parallel cimport parallel, threadid
from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint16_t, uint32_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove, memset
cimport openmp


cdef extern from "sw.h" nogil:
    int SW_PANEL
    ctypedef struct sw_mat:
        const uint8_t *data
        int32_t type, rows, cols, tile_cols
    ctypedef struct sw_act:
        const float *f
        int8_t *q
        float *scale
        int16_t *sum
        ptrdiff_t f_stride, q_stride, s_stride
        int32_t n_tokens, cols
    ctypedef void (*sw_matmul_fn)(const sw_mat *, const sw_act *, int, int, int, int, float *, ptrdiff_t) noexcept nogil
    ctypedef void (*sw_quantize_fn)(const float *, int, int8_t *, float *, int16_t *) noexcept nogil
    ctypedef struct sw_kernels:
        const char *name
        sw_matmul_fn matmul[31]
        sw_quantize_fn quantize
    size_t sw_packed_bytes(int, int, int, int)
    int sw_type_block(int)
    size_t sw_type_bytes(int)
    void sw_pack(const sw_mat *, uint8_t *, const uint8_t *, int, int)
    void sw_unpack(const sw_mat *, uint8_t *, int, int)
    void sw_dequant_row(const sw_mat *, int, float *)
    const sw_kernels *sw_kernels_by_name(const char *)
    const sw_kernels *sw_kernels_best()
    int sw_kernels_list(const char **, int)

cdef extern from "layer.h" nogil:
    ctypedef struct sw_ops:
        void (*rmsnorm)(const float *, const float *, float, int, float *) noexcept nogil
        void (*silu_mul)(const float *, const float *, int, float *) noexcept nogil
        void (*softmax)(float *, int) noexcept nogil
        void (*sigmoid)(float *, int) noexcept nogil
        void (*spread)(float *, int) noexcept nogil
        void (*rope)(float *, const float *, const float *, int, int) noexcept nogil
    const sw_ops *sw_ops_for(const char *)
    ctypedef struct sw_kv:
        uint8_t *k
        uint8_t *v
        uint16_t *k_scale
        uint16_t *v_scale
        int32_t kind, capacity, n_kv_heads, head_dim
    ctypedef struct sw_team:
        int n_threads
        uint32_t phase
    ctypedef struct sw_dims:
        int hidden, n_heads, n_kv_heads, head_dim, rope_half, rope_pair
        float eps, q_scale
    ctypedef struct sw_attn:
        const float *norm
        const float *post_norm
        sw_mat q, k, v, o
        const float *q_bias
        const float *k_bias
        const float *v_bias
        const float *o_bias
        const float *q_norm
        const float *k_norm
    ctypedef struct sw_ffn:
        const float *norm
        const float *post_norm
        sw_mat gate, up, down
        int n_experts, top_k, n_group, top_group, sigmoid, normalise
        float scale
        sw_mat router
        const float *router_bias
        sw_mat expert_gate, expert_up, expert_down
        const uint8_t **gate_data
        const uint8_t **up_data
        const uint8_t **down_data
    ctypedef struct sw_ws:
        int max_tokens, max_segments
        float *x
        float *delta
        float *normed
        float *q
        float *k
        float *v
        float *mixed
        float *inner
        float *router
        const float *cos
        const float *sin
        sw_act act_hidden, act_mixed, act_inner
        float *part_m
        float *part_l
        float *part_acc
        int32_t *pick
        float *pick_weight
        int32_t *active
        int32_t *start
        int32_t *pair_token
        float *pair_weight
        uint8_t *scratch
        size_t scratch_bytes
    ctypedef struct sw_fold:
        int pending
        const float *norm
    ctypedef struct sw_step:
        const sw_kernels *kernels
        const sw_ops *ops
        sw_team *team
        const sw_dims *dims
        sw_ws *ws
        int n_tokens, position, thread
        uint32_t phase
    int SW_KV_SEGMENT
    void sw_team_init(sw_team *, int)
    size_t sw_scratch_bytes(const sw_dims *, int, int)
    void sw_attention(sw_step *, const sw_attn *, const sw_kv *, sw_fold) noexcept
    void sw_keys(sw_step *, const sw_attn *, const sw_kv *, sw_fold) noexcept
    void sw_ffn_half(sw_step *, const sw_ffn *, sw_fold) noexcept
    void sw_head(sw_step *, const float *, const sw_mat *, sw_fold, int, float *) noexcept
    void sw_finish(sw_step *, sw_fold) noexcept
    void sw_embed(sw_step *, const sw_mat *, const int32_t *) noexcept

cdef extern from *:
    """
    #include <stdint.h>
    /* Read every cache line of [p, p + n) in four streams: what memory can deliver to one core. */
    static uint64_t sw_read_all(const uint8_t *p, size_t n) {
      uint64_t s[4] = {0};
      const size_t q = n / 4 / 64 * 64;
      for (size_t i = 0; i < q; i += 64)
        for (int j = 0; j < 4; j++) {
          const uint64_t *w = (const uint64_t *)(p + j * q + i);
          s[j] += w[0] ^ w[1] ^ w[2] ^ w[3] ^ w[4] ^ w[5] ^ w[6] ^ w[7];
          __builtin_prefetch(p + j * q + i + 2048);
        }
      return s[0] + s[1] + s[2] + s[3];
    }
    """
    unsigned long long sw_read_all(const uint8_t *, size_t) noexcept nogil


def isa_names():
    """Kernel sets that this CPU and OS can run, slowest first."""
    cdef const char *names[16]
    cdef int n = sw_kernels_list(names, 16)
    return [names[i].decode() for i in range(n)]


def best_isa():
    """The fastest kernel set usable here."""
    return sw_kernels_best().name.decode()


cdef const sw_kernels *kernels_for(str isa) except NULL:
    cdef const sw_kernels *k = sw_kernels_by_name(isa.encode())
    if k == NULL:
        raise ValueError(f"no kernels called {isa} here; usable: {', '.join(isa_names())}")
    return k


def team_size(int n_threads):
    """How many threads OpenMP really gives when asked for n_threads."""
    cdef int got[1]
    openmp.omp_set_dynamic(0)
    with nogil, parallel(num_threads=n_threads):
        note_team_size(got)
    return got[0]


cdef void note_team_size(int *got) noexcept nogil:
    if openmp.omp_get_thread_num() == 0:
        got[0] = openmp.omp_get_num_threads()


def packed_bytes(int qtype, int rows, int cols, int tile_cols):
    """Bytes of a packed matrix."""
    return sw_packed_bytes(qtype, rows, cols, tile_cols)


def read_all(const uint8_t[::1] data, int n_threads):
    """Read `data` once with n_threads, for the measurement of memory bandwidth."""
    cdef size_t n = data.shape[0], part = n // n_threads // 64 * 64
    cdef unsigned long long[::1] seen = np.zeros(n_threads, np.uint64)
    with nogil, parallel(num_threads=n_threads):
        seen[threadid()] = sw_read_all(&data[0] + threadid() * part, part)
    return int(np.bitwise_xor.reduce(np.asarray(seen)))


cdef class Mat:
    """A packed matrix (rows, cols) of one GGUF type, in memory that `owner` keeps alive."""

    cdef sw_mat m
    cdef object owner
    cdef readonly size_t n_bytes

    def __init__(self, int qtype, int rows, int cols, const uint8_t[::1] data, int tile_cols=0):
        self.m = sw_mat(NULL, qtype, rows, cols, tile_cols or cols)
        self.n_bytes = sw_packed_bytes(qtype, rows, cols, self.m.tile_cols)
        if <size_t>data.shape[0] < self.n_bytes or <uintptr_t>&data[0] % 64:
            raise ValueError(f"a packed matrix needs {self.n_bytes} aligned bytes, got {data.shape[0]}")
        self.m.data = &data[0]
        self.owner = data

    @property
    def shape(self):
        return self.m.rows, self.m.cols

    @property
    def qtype(self):
        return self.m.type

    def row(self, int i):
        """Row i as float32 (cols,)."""
        if not 0 <= i < self.m.rows:
            raise IndexError(i)
        cdef float[::1] out = np.empty(self.m.cols, np.float32)
        sw_dequant_row(&self.m, i, &out[0])
        return np.asarray(out)

    def unpack(self):
        """The GGUF bytes, uint8 (rows, row_bytes)."""
        cdef uint8_t[:, ::1] out = np.empty((self.m.rows, self.m.cols // sw_type_block(self.m.type) * sw_type_bytes(self.m.type)), np.uint8)
        sw_unpack(&self.m, &out[0, 0], 0, self.m.rows)
        return np.asarray(out)


def pack(int qtype, const uint8_t[:, ::1] raw, int cols, uint8_t[::1] out, int tile_cols=0, int n_threads=1):
    """Pack GGUF rows `raw` (rows, row_bytes) into `out`; returns the Mat over it."""
    cdef int rows = <int>raw.shape[0]
    if sw_type_block(qtype) == 0 or cols % sw_type_block(qtype) or <size_t>raw.shape[1] != cols // sw_type_block(qtype) * sw_type_bytes(qtype):
        raise ValueError(f"type {qtype}: rows of {raw.shape[1]} bytes are not {cols} columns")
    mat = Mat(qtype, rows, cols, out, tile_cols)
    cdef const sw_mat *m = &(<Mat>mat).m
    cdef uint8_t *dst = &out[0]
    cdef const uint8_t *src = &raw[0, 0]
    with nogil, parallel(num_threads=n_threads):
        pack_share(m, dst, src, rows, threadid(), n_threads)
    return mat


cdef void pack_share(const sw_mat *m, uint8_t *dst, const uint8_t *src, int rows, int thread, int n_threads) noexcept nogil:
    cdef int r = thread * 64
    while r < rows:
        sw_pack(m, dst, src, r, min(r + 64, rows))
        r += n_threads * 64


cdef const float *floats(list owners, object vector, int n, str what) except? NULL:
    """Pointer to a float32 vector (n,), NULL for None; keeps it alive in `owners`."""
    if vector is None:
        return NULL
    cdef const float[::1] v = np.ascontiguousarray(vector, np.float32).reshape(-1)
    if v.shape[0] != n:
        raise ValueError(f"{what} has {v.shape[0]} values, expected {n}")
    owners.append(v)
    return &v[0]


cdef sw_mat mat(list owners, Mat m, int rows, int cols, str what) except *:
    if m.m.rows != rows or m.m.cols != cols:
        raise ValueError(f"{what} is {m.shape}, expected {(rows, cols)}")
    owners.append(m)
    return m.m


cdef class Attention:
    """Weights of the attention half of a layer."""

    cdef sw_attn w
    cdef list owners

    def __init__(self, Engine e, *, norm, Mat q, Mat k, Mat v, Mat o, post_norm=None, q_bias=None, k_bias=None, v_bias=None,
                 o_bias=None, q_norm=None, k_norm=None):
        cdef int h = e.dims.hidden, qw = e.dims.n_heads * e.dims.head_dim, kw = e.dims.n_kv_heads * e.dims.head_dim
        self.owners = []
        o_ = self.owners
        self.w.norm = floats(o_, norm, h, "attn_norm")
        self.w.post_norm = floats(o_, post_norm, h, "attn_post_norm")
        self.w.q = mat(o_, q, qw, h, "q")
        self.w.k = mat(o_, k, kw, h, "k")
        self.w.v = mat(o_, v, kw, h, "v")
        self.w.o = mat(o_, o, h, qw, "o")
        self.w.q_bias = floats(o_, q_bias, qw, "q_bias")
        self.w.k_bias = floats(o_, k_bias, kw, "k_bias")
        self.w.v_bias = floats(o_, v_bias, kw, "v_bias")
        self.w.o_bias = floats(o_, o_bias, h, "o_bias")
        self.w.q_norm = floats(o_, q_norm, e.dims.head_dim, "q_norm")
        self.w.k_norm = floats(o_, k_norm, e.dims.head_dim, "k_norm")


cdef class Ffn:
    """Weights of the feed-forward half of a layer: dense, or a mixture of experts."""

    cdef sw_ffn w
    cdef list owners

    def __cinit__(self):
        memset(&self.w, 0, sizeof(sw_ffn))

    def __init__(self, Engine e, *, norm, post_norm=None, Mat gate=None, Mat up=None, Mat down=None, Mat router=None,
                 router_bias=None, list expert_gate=None, list expert_up=None, list expert_down=None, int top_k=0,
                 bint sigmoid=False, bint normalise=True, float scale=1.0, int n_group=1, int top_group=1):
        cdef int h = e.dims.hidden, n, i
        self.owners = []
        o_ = self.owners
        self.w.norm = floats(o_, norm, h, "ffn_norm")
        self.w.post_norm = floats(o_, post_norm, h, "ffn_post_norm")
        if gate is not None:
            n = gate.m.rows
            self.w.gate = mat(o_, gate, n, h, "gate")
            self.w.up = mat(o_, up, n, h, "up")
            self.w.down = mat(o_, down, h, n, "down")
        if router is None:
            return
        n = router.m.rows
        if not 0 < top_k <= min(n, e.max_top_k) or n > e.max_experts or n_group < 1 or n % n_group or not 0 < top_group <= n_group:
            raise ValueError(f"{n} experts, top {top_k}, {n_group} groups, top {top_group}: impossible or more than planned for")
        if not len(expert_gate) == len(expert_up) == len(expert_down) == n:
            raise ValueError(f"the router knows {n} experts, the lists hold {len(expert_gate)}")
        self.w.n_experts, self.w.top_k, self.w.n_group, self.w.top_group = n, top_k, n_group, top_group
        self.w.sigmoid, self.w.normalise, self.w.scale = sigmoid, normalise, scale
        self.w.router = mat(o_, router, n, h, "router")
        self.w.router_bias = floats(o_, router_bias, n, "router_bias")
        cdef int inner = (<Mat>expert_gate[0]).m.rows
        self.w.gate_data = <const uint8_t **>calloc(3 * n, sizeof(void *))
        if self.w.gate_data == NULL:
            raise MemoryError()
        self.w.up_data, self.w.down_data = self.w.gate_data + n, self.w.gate_data + 2 * n
        for i in range(n):
            self.w.expert_gate = mat(o_, expert_gate[i], inner, h, "expert_gate")
            self.w.expert_up = mat(o_, expert_up[i], inner, h, "expert_up")
            self.w.expert_down = mat(o_, expert_down[i], h, inner, "expert_down")
            self.w.gate_data[i], self.w.up_data[i], self.w.down_data[i] = self.w.expert_gate.data, self.w.expert_up.data, self.w.expert_down.data

    def __dealloc__(self):
        free(<void *>self.w.gate_data)


KV_BYTES = {"f16": 2, "q8_0": 1, "f32": 4}


cdef class KvCache:
    """Keys and values of some layers for up to `capacity` positions. `length` positions are filled."""

    cdef sw_kv *layers
    cdef int n_layers
    cdef list owners
    cdef readonly int capacity
    cdef readonly str kind
    cdef int filled

    def __init__(self, Engine e, int n_layers, int capacity, str kind="f16"):
        cdef int heads = e.dims.n_kv_heads, hd = e.dims.head_dim, i
        if kind == "q8_0" and hd % 32:
            raise ValueError(f"a q8_0 KV cache needs heads of whole blocks of 32, not {hd}; use f16")
        self.kind = kind
        self.n_layers = n_layers
        self.layers = <sw_kv *>calloc(max(n_layers, 1), sizeof(sw_kv))
        if self.layers == NULL:
            raise MemoryError()
        self.capacity = (capacity + 63) // 64 * 64
        self.owners = [None] * n_layers
        for i in range(n_layers):
            self._allocate(i, heads, hd, self.capacity)

    cdef object _allocate(self, int i, int heads, int hd, int capacity):
        """New memory for a layer. Untouched pages of it take no memory, so a large capacity costs little until it is used.

        Huge pages would take 2 MiB for the first position of each head, and make attention faster by some per cent only.
        """
        cdef size_t n = <size_t>heads * capacity * hd, item = KV_BYTES[self.kind]
        cdef size_t n_bytes = 2 * n * item + (n // 16 * 2 if item == 1 else 0)
        try:
            memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"a KV cache for {capacity} positions") from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            with suppress(OSError):  # a kernel without huge pages
                memory.madvise(mmap.MADV_NOHUGEPAGE)
        cdef uint8_t[::1] b = memory
        self.owners[i] = b
        self.layers[i] = sw_kv(&b[0], &b[n * item], NULL, NULL, {1: 1, 2: 0, 4: 2}[item], capacity, heads, hd)
        if item == 1:
            self.layers[i].k_scale = <uint16_t *>&b[2 * n]
            self.layers[i].v_scale = self.layers[i].k_scale + n // 32
        return np.asarray(b)

    def resize(self, int capacity):
        """Room for `capacity` positions, at least for the filled ones, which stay. Copies one layer at a time."""
        cdef int i, heads, hd, panels = (self.filled + 15) // 16
        capacity = (max(capacity, self.filled) + 63) // 64 * 64
        for i in range(self.n_layers):
            heads, hd = self.layers[i].n_kv_heads, self.layers[i].head_dim
            old = self._rows(np.asarray(self.owners[i]), heads, hd, self.capacity)
            new = self._rows(self._allocate(i, heads, hd, capacity), heads, hd, capacity)
            for before, after in zip(old, new):
                after[:, :panels] = before[:, :panels]
        self.capacity = capacity

    cdef list _rows(self, data, int heads, int hd, int capacity):
        """Views (heads, panels of 16 positions, bytes) of keys, values and, where there are any, their scales."""
        cdef size_t n = <size_t>heads * (capacity // 16)
        widths = [16 * hd * KV_BYTES[self.kind]] * 2 + ([hd] * 2 if self.kind == "q8_0" else [])
        ends = np.cumsum([n * width for width in widths])
        return [data[end - n * w:end].reshape(heads, capacity // 16, w) for end, w in zip(ends, widths)]

    def __dealloc__(self):
        free(self.layers)

    @property
    def length(self):
        return self.filled

    def truncate(self, int n):
        """Forget all positions from n on."""
        if not 0 <= n <= self.filled:
            raise ValueError(f"cannot keep {n} of {self.filled} positions")
        self.filled = n


cdef class Engine:
    """Runs layers over buffers for `max_tokens` tokens with a team of threads.

    The residual stream is (x, delta): see ARCHITECTURE.md. `attention` and `ffn` are the two native calls of a layer;
    `step` runs
    all of a step in one parallel region, for decode, where opening a region costs as much as a layer of a small model.
    """

    cdef sw_dims dims
    cdef sw_ws ws
    cdef sw_team *team
    cdef void *team_memory
    cdef const sw_kernels *kernels
    cdef const sw_ops *ops
    cdef dict buffers
    cdef sw_fold fold
    cdef readonly int max_top_k, max_experts, threads, max_tokens
    cdef readonly str isa

    def __init__(self, *, int hidden, int n_heads, int n_kv_heads, int head_dim, int rope_dims, bint rope_pair, float eps,
                 float q_scale, int max_tokens, int context, int ffn, int n_experts=0, int top_k=0, int expert_ffn=0,
                 bint keep_float=False, int threads=1, str isa=""):
        if head_dim % 16 or head_dim < 16 or n_heads % n_kv_heads or rope_dims % 2 or rope_dims > head_dim:
            raise ValueError(f"head_dim {head_dim} must be a multiple of 16, heads {n_heads} of {n_kv_heads}, rope dims {rope_dims} even")
        self.isa = isa or best_isa()
        self.kernels = kernels_for(self.isa)
        self.ops = sw_ops_for(self.kernels.name)
        self.dims = sw_dims(hidden, n_heads, n_kv_heads, head_dim, rope_dims // 2, rope_pair, eps, q_scale)
        self.max_tokens, self.max_top_k, self.max_experts = max_tokens, top_k, n_experts
        self.threads = team_size(threads)
        self.buffers = {}
        self.team_memory = calloc(1, 512)
        if self.team_memory == NULL:
            raise MemoryError()
        self.team = <sw_team *>((<uintptr_t>self.team_memory + 63) // 64 * 64)
        sw_team_init(self.team, self.threads)
        self._reserve(ffn, expert_ffn, keep_float, (context + SW_KV_SEGMENT - 1) // SW_KV_SEGMENT)

    def __dealloc__(self):
        free(self.team_memory)

    cdef void *_buffer(self, str name, size_t n_bytes) except NULL:
        """A buffer that starts on a cache line and is not read past its end by any kernel."""
        cdef uint8_t[::1] b = np.empty(n_bytes + 128, np.uint8)
        self.buffers[name] = b
        return <void *>((<uintptr_t>&b[0] + 63) // 64 * 64)

    cdef sw_act _act(self, str name, const float *f, int rows, int cols) except *:
        cdef sw_act a
        a.f, a.f_stride, a.n_tokens, a.cols = f, cols, rows, cols
        a.q_stride = (cols + 63) // 64 * 64
        a.s_stride = a.q_stride // 32
        a.q = <int8_t *>self._buffer(name + ".q", rows * a.q_stride)
        a.scale = <float *>self._buffer(name + ".scale", rows * a.s_stride * 4)
        a.sum = <int16_t *>self._buffer(name + ".sum", rows * a.s_stride * 4)
        return a

    cdef _reserve(self, int ffn, int expert_ffn, bint keep_float, int segments):
        cdef size_t n = self.max_tokens, h = self.dims.hidden, hd = self.dims.head_dim
        cdef size_t qw = self.dims.n_heads * hd, kw = self.dims.n_kv_heads * hd, k = self.max_top_k
        cdef size_t width = (ffn + 63) // 64 * 64, expert = (expert_ffn + 63) // 64 * 64
        cdef size_t inner = max(n * width, n * (k + 1) * expert)
        w = &self.ws
        w.max_tokens, w.max_segments = self.max_tokens, segments
        w.x = <float *>self._buffer("x", n * h * 4)
        w.delta = <float *>self._buffer("delta", n * h * 4)
        w.normed = <float *>self._buffer("normed", n * h * 4)
        w.q = <float *>self._buffer("q", n * qw * 4)
        w.k = <float *>self._buffer("k", n * kw * 4)
        w.v = <float *>self._buffer("v", n * kw * 4)
        w.mixed = <float *>self._buffer("mixed", n * qw * 4)
        w.inner = <float *>self._buffer("inner", inner * 4 if keep_float else 64)
        w.router = <float *>self._buffer("router", n * self.max_experts * 4 + 64)
        w.act_hidden = self._act("hidden", w.normed, n, h)
        w.act_mixed = self._act("mixed", w.mixed, n, qw)
        w.act_inner = self._act("inner", w.inner, 1, inner)
        w.part_m = <float *>self._buffer("part_m", self.dims.n_heads * segments * 4)
        w.part_l = <float *>self._buffer("part_l", self.dims.n_heads * segments * 4)
        w.part_acc = <float *>self._buffer("part_acc", qw * segments * 4)
        w.pick = <int32_t *>self._buffer("pick", n * k * 4 + 64)
        w.pick_weight = <float *>self._buffer("pick_weight", n * k * 4 + 64)
        w.active = <int32_t *>self._buffer("active", self.max_experts * 4 + 64)
        w.start = <int32_t *>self._buffer("start", self.max_experts * 4 + 64)
        w.pair_token = <int32_t *>self._buffer("pair_token", n * k * 4 + 64)
        w.pair_weight = <float *>self._buffer("pair_weight", n * k * 4 + 64)
        w.scratch_bytes = sw_scratch_bytes(&self.dims, h, segments)
        w.scratch = <uint8_t *>self._buffer("scratch", w.scratch_bytes * self.threads)

    @property
    def buffer_bytes(self):
        """Memory of all buffers together; pages that no step has touched are not yet taken."""
        return sum(len(b) for b in self.buffers.values())

    cdef sw_step _step(self, int n_tokens, int position) except *:
        if not 0 < n_tokens <= self.max_tokens:
            raise ValueError(f"{n_tokens} tokens in a step of at most {self.max_tokens}")
        return sw_step(self.kernels, self.ops, self.team, &self.dims, &self.ws, n_tokens, position, 0, self.team.phase)

    cdef _rope(self, const float[:, ::1] cos, const float[:, ::1] sin, int n_tokens):
        if cos.shape[0] < n_tokens or sin.shape[0] < n_tokens or cos.shape[1] != self.dims.rope_half or sin.shape[1] != cos.shape[1]:
            raise ValueError("cos and sin must be (tokens, rope_dims / 2)")
        self.ws.cos, self.ws.sin = &cos[0, 0], &sin[0, 0]
        self.buffers["cos"], self.buffers["sin"] = cos, sin

    def embed(self, Mat table not None, const int32_t[::1] ids):
        """x = rows `ids` of the embedding."""
        cdef sw_step s = self._step(<int>ids.shape[0], 0)
        self._check_ids(table, ids, <int>ids.shape[0])
        self.fold = sw_fold(0, NULL)
        with nogil, parallel(num_threads=self.threads):
            run_embed(s, threadid(), &table.m, &ids[0])

    cdef _check_ids(self, Mat table, const int32_t[::1] ids, int n_tokens):
        if table.m.cols != self.dims.hidden or ids.shape[0] != n_tokens:
            raise ValueError(f"embedding of width {table.m.cols} for {ids.shape[0]} ids, expected {self.dims.hidden} for {n_tokens}")
        cdef int i
        for i in range(n_tokens):
            if not 0 <= ids[i] < table.m.rows:
                raise ValueError(f"token id {ids[i]} is outside the vocabulary of {table.m.rows}")

    cdef _check_head(self, Mat head, int n_tokens, int first):
        if not 0 <= first < n_tokens or head.m.cols != self.dims.hidden:
            raise ValueError(f"head of width {head.m.cols} for tokens {first}..{n_tokens}")

    def set_hidden(self, const float[:, ::1] x):
        """x = the hidden state (tokens, hidden) that came from the stage before."""
        cdef sw_step s = self._step(<int>x.shape[0], 0)
        if x.shape[1] != self.dims.hidden:
            raise ValueError(f"hidden state of width {x.shape[1]}, expected {self.dims.hidden}")
        np.asarray(<float[:x.shape[0], :x.shape[1]]>self.ws.x)[...] = x
        self.fold = sw_fold(0, NULL)

    def hidden(self, int n_tokens):
        """A copy of x (tokens, hidden) after folding what is pending: what travels to the next stage."""
        cdef sw_step s = self._step(n_tokens, 0)
        with nogil, parallel(num_threads=self.threads):
            run_finish(s, threadid(), self.fold)
        self.fold = sw_fold(0, NULL)
        return np.array(<float[:n_tokens, :self.dims.hidden]>self.ws.x)

    def delta(self, int n_tokens):
        """A view of the last half's output (tokens, hidden), still to be folded in."""
        return np.asarray(<float[:n_tokens, :self.dims.hidden]>self.ws.delta)

    def attention(self, Attention layer, KvCache kv, int index, int position, int n_tokens, cos, sin):
        """The attention half of one layer; `index` is the layer's place in `kv`."""
        self._check_kv(kv, index, 1, position, n_tokens)
        self._rope(cos, sin, n_tokens)
        cdef sw_step s = self._step(n_tokens, position)
        with nogil, parallel(num_threads=self.threads):
            run_attention(s, threadid(), &layer.w, &kv.layers[index], self.fold)
        self.fold = sw_fold(1, layer.w.post_norm)

    def keys(self, Attention layer, KvCache kv, int index, int position, int n_tokens, cos, sin):
        """Of one layer only the keys and values. What is left is the x of the last token, as of a step over that one."""
        self._check_kv(kv, index, 1, position, n_tokens)
        self._rope(cos, sin, n_tokens)
        cdef sw_step s = self._step(n_tokens, position)
        with nogil, parallel(num_threads=self.threads):
            run_keys(s, threadid(), &layer.w, &kv.layers[index], self.fold)
        self.fold = sw_fold(0, NULL)
        memmove(self.ws.x, self.ws.x + <size_t>(n_tokens - 1) * self.dims.hidden, self.dims.hidden * sizeof(float))

    def ffn(self, Ffn layer, int n_tokens):
        """The feed-forward half of one layer."""
        cdef sw_step s = self._step(n_tokens, 0)
        with nogil, parallel(num_threads=self.threads):
            run_ffn(s, threadid(), &layer.w, self.fold)
        self.fold = sw_fold(1, layer.w.post_norm)

    cdef _check_kv(self, KvCache kv, int first, int n_layers, int position, int n_tokens):
        if position < 0 or position + n_tokens > kv.capacity or first < 0 or first + n_layers > kv.n_layers:
            raise ValueError(f"positions {position}..{position + n_tokens} or layers do not fit the KV cache")

    def step(self, Layers stack, KvCache kv, int position, int n_tokens, cos, sin, *, const int32_t[::1] ids=None, Mat table=None,
             norm=None, Mat head=None):
        """All of a step in one parallel region: embed `ids` through `table` (else x is set), run the layers, and return
        the logits float32 (vocab,) of the last token when there is a `head`, else None (then ask for `hidden`)."""
        self._check_kv(kv, 0, stack.n, position, n_tokens)
        self._rope(cos, sin, n_tokens)
        cdef sw_step s = self._step(n_tokens, position)
        cdef list owners = []
        cdef run r
        r.attn, r.ffn, r.kv, r.n = stack.attn, stack.ffn, kv.layers, stack.n
        r.table, r.ids, r.head, r.norm, r.logits = NULL, NULL, NULL, NULL, NULL
        if table is not None:
            self._check_ids(table, ids, n_tokens)
            r.table, r.ids = &table.m, &ids[0]
            self.fold = sw_fold(0, NULL)
        cdef float[::1] out
        if head is not None:
            self._check_head(head, n_tokens, 0)
            out = np.empty(head.m.rows, np.float32)
            r.head, r.norm, r.logits = &head.m, floats(owners, norm, self.dims.hidden, "output_norm"), &out[0]
        with nogil, parallel(num_threads=self.threads):
            run_step(s, threadid(), &r, self.fold)
        if head is not None:
            self.fold = sw_fold(0, NULL)
            return np.asarray(out)
        if stack.n:
            self.fold = sw_fold(1, stack.ffn[stack.n - 1].post_norm)

    def commit(self, KvCache kv, int position, int n_tokens):
        """All layers of the shard have stored these positions."""
        kv.filled = position + n_tokens

    def head(self, norm, Mat table not None, int n_tokens, int first):
        """Logits float32 (n_tokens - first, vocab) of the tokens from `first` on."""
        cdef sw_step s = self._step(n_tokens, 0)
        cdef list owners = []
        cdef const float *w = floats(owners, norm, self.dims.hidden, "output_norm")
        self._check_head(table, n_tokens, first)
        cdef float[:, ::1] out = np.empty((n_tokens - first, table.m.rows), np.float32)
        cdef float *logits = &out[0, 0]
        with nogil, parallel(num_threads=self.threads):
            run_head(s, threadid(), w, &table.m, self.fold, first, logits)
        self.fold = sw_fold(0, NULL)
        return np.asarray(out)


# What each thread of a team runs, on its own copy of the step.

cdef void run_embed(sw_step s, int thread, const sw_mat *table, const int32_t *ids) noexcept nogil:
    s.thread = thread
    sw_embed(&s, table, ids)


cdef void run_finish(sw_step s, int thread, sw_fold fold) noexcept nogil:
    s.thread = thread
    sw_finish(&s, fold)


cdef void run_attention(sw_step s, int thread, const sw_attn *w, const sw_kv *kv, sw_fold fold) noexcept nogil:
    s.thread = thread
    sw_attention(&s, w, kv, fold)


cdef void run_keys(sw_step s, int thread, const sw_attn *w, const sw_kv *kv, sw_fold fold) noexcept nogil:
    s.thread = thread
    sw_keys(&s, w, kv, fold)


cdef void run_ffn(sw_step s, int thread, const sw_ffn *w, sw_fold fold) noexcept nogil:
    s.thread = thread
    sw_ffn_half(&s, w, fold)


cdef void run_head(sw_step s, int thread, const float *norm, const sw_mat *table, sw_fold fold, int first, float *logits) noexcept nogil:
    s.thread = thread
    sw_head(&s, norm, table, fold, first, logits)


ctypedef struct run:
    sw_attn **attn
    sw_ffn **ffn
    sw_kv *kv
    int n
    const sw_mat *table
    const int32_t *ids
    const sw_mat *head
    const float *norm
    float *logits


cdef void run_step(sw_step s, int thread, const run *r, sw_fold fold) noexcept nogil:
    cdef int i
    s.thread = thread
    if r.table != NULL:
        sw_embed(&s, r.table, r.ids)
    for i in range(r.n):
        sw_attention(&s, r.attn[i], &r.kv[i], fold)
        fold = sw_fold(1, r.attn[i].post_norm)
        sw_ffn_half(&s, r.ffn[i], fold)
        fold = sw_fold(1, r.ffn[i].post_norm)
    if r.head != NULL:
        sw_head(&s, r.norm, r.head, fold, s.n_tokens - 1, r.logits)


cdef class Layers:
    """A run of layers in the order they execute."""

    cdef sw_attn **attn
    cdef sw_ffn **ffn
    cdef readonly int n
    cdef list owners

    def __init__(self, pairs):
        """`pairs` are (Attention, Ffn)."""
        self.owners = list(pairs)
        self.n = len(self.owners)
        self.attn = <sw_attn **>calloc(2 * max(self.n, 1), sizeof(void *))
        if self.attn == NULL:
            raise MemoryError()
        self.ffn = <sw_ffn **>(self.attn + self.n)
        for i, (a, f) in enumerate(self.owners):
            self.attn[i] = &(<Attention>a).w
            self.ffn[i] = &(<Ffn>f).w

    def __dealloc__(self):
        free(self.attn)


def matmul(Mat w, x, str isa="", int n_threads=1):
    """y float32 (tokens, rows) = x (tokens, cols) through the packed matrix: quantises x as an engine step does."""
    cdef const sw_kernels *k = kernels_for(isa or best_isa())
    cdef float[:, ::1] xs = np.ascontiguousarray(x, np.float32)
    cdef int n = <int>xs.shape[0], cols = w.m.cols, stride = (cols + 63) // 64 * 64, i, panels = (w.m.rows + 15) // 16
    if xs.shape[1] != cols:
        raise ValueError(f"x has {xs.shape[1]} columns, the matrix {cols}")
    cdef int8_t[:, ::1] q = np.zeros((n, stride), np.int8)
    cdef float[:, ::1] scale = np.zeros((n, stride // 32), np.float32)
    cdef int16_t[:, ::1] total = np.zeros((n, stride // 16), np.int16)
    cdef float[:, ::1] y = np.empty((n, w.m.rows), np.float32)
    cdef sw_act a = sw_act(&xs[0, 0], &q[0, 0], &scale[0, 0], &total[0, 0], cols, stride, stride // 32, n, cols)
    for i in range(n):
        k.quantize(&xs[i, 0], cols, &q[i, 0], &scale[i, 0], &total[i, 0])
    with nogil, parallel(num_threads=n_threads):
        k.matmul[w.m.type](&w.m, &a, 0, n, threadid() * panels // n_threads, (threadid() + 1) * panels // n_threads, &y[0, 0],
                           w.m.rows)
    return np.asarray(y)


def op(str name, str isa, *args):
    """One float op of an instruction set by name, on float32 arrays, for tests: returns the result."""
    cdef const sw_ops *ops = sw_ops_for(isa.encode())
    cdef float[::1] a = np.array(args[0], np.float32), b, c
    cdef int n = <int>a.shape[0]
    if name == "softmax":
        ops.softmax(&a[0], n)
    elif name == "sigmoid":
        ops.sigmoid(&a[0], n)
    elif name == "spread":
        ops.spread(&a[0], n)
    elif name == "rmsnorm":
        b = np.array(args[1], np.float32)
        ops.rmsnorm(&a[0], &b[0], args[2], n, &a[0])
    elif name == "silu_mul":
        b = np.array(args[1], np.float32)
        ops.silu_mul(&a[0], &b[0], n, &a[0])
    elif name == "rope":
        b, c = np.array(args[1], np.float32), np.array(args[2], np.float32)
        ops.rope(&a[0], &b[0], &c[0], <int>b.shape[0], args[3])
    else:
        raise ValueError(name)
    return np.asarray(a)
