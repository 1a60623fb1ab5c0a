# Packed matrices, and the weights of a layer, with the shapes that are checked once, when it is made.

cdef extern from "layer.h" nogil:
    ctypedef struct sw_dims:
        int hidden, n_heads, n_kv_heads, head_dim, rope_half, rope_pair, value_dim, latent, nope
        float eps, q_scale, embed_scale, residual_scale
    ctypedef struct sw_attn:
        const float *norm
        const float *post_norm
        sw_mat q, k, v, o, q_a, k_b, v_b
        const uint8_t **k_b_data
        const uint8_t **v_b_data
        const float *q_bias
        const float *k_bias
        const float *v_bias
        const float *q_norm
        const float *k_norm
        const float *out_bias
        const float *sinks
        int rotated, window
    ctypedef struct sw_ffn:
        int layer
        const float *norm
        const float *post_norm
        sw_mat gate, up, down
        int n_experts, top_k, n_group, top_group, sigmoid, normalise
        float scale
        sw_mat router
        const float *router_bias
        const float *logit_bias
        const float *gate_bias
        const float *up_bias
        const float *down_bias
        float alpha, limit
        sw_mat expert_gate, expert_up, expert_down
        const uint8_t **gate_data
        const uint8_t **up_data
        const uint8_t **down_data
        sw_experts *cache
        int cache_layer
        size_t up_at, down_at


cdef class Dims:
    """The shape of a model's layers. Of what differs among them (the widths of feed-forwards, experts) the largest."""

    cdef sw_dims d
    cdef readonly int ffn, n_experts, top_k, expert_ffn, q_rank, head_out

    def __init__(self, *, int hidden, int n_heads, int n_kv_heads, int head_dim, int rope_dims, bint rope_pair,
                 float eps, float q_scale, int ffn, int n_experts=0, int top_k=0, int expert_ffn=0,
                 float embed_scale=1.0, float residual_scale=1.0, int value_dim=0, int nope=0, int q_rank=0,
                 int head_out=0):
        """Of latent attention (nope > 0): q_rank columns between the matrices of the query (0: it has one), and
        head_out of what a head gives."""
        value_dim = value_dim or head_dim
        if head_dim % 16 or head_dim < 16 or n_heads % n_kv_heads or rope_dims % 2 or rope_dims > head_dim:
            raise ValueError(f"head_dim {head_dim} must be a multiple of 16, heads {n_heads} of {n_kv_heads}, "
                             f"rope dims {rope_dims} even")
        if nope and (n_kv_heads != 1 or value_dim % 64 or value_dim + rope_dims != head_dim
                     or nope % 32 or head_out % 32):
            raise ValueError(f"latents of {value_dim} columns and {rope_dims} rotated ones "
                             f"do not make keys of {head_dim}, "
                             f"or are not whole blocks; {nope} columns that are not rotated, {head_out} of values")
        self.d = sw_dims(hidden, n_heads, n_kv_heads, head_dim, rope_dims // 2, rope_pair, value_dim, nope > 0, nope,
                         eps, q_scale, embed_scale, residual_scale)
        self.q_rank, self.head_out = q_rank, head_out
        self.ffn, self.n_experts, self.top_k, self.expert_ffn = ffn, n_experts, top_k, expert_ffn


cdef class Mat:
    """A packed matrix (rows, cols) of one GGUF type, in memory that `owner` keeps alive."""

    cdef sw_mat m
    cdef object owner
    cdef readonly size_t n_bytes

    def __init__(self, int qtype, int rows, int cols, const uint8_t[::1] data, int tile_cols=0):
        self.m = sw_mat(NULL, qtype, rows, cols, tile_cols or cols, 0, 0)
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
        """The GGUF bytes, uint8 (rows, row_bytes). Raise ValueError for a type that is packed as something else."""
        if not sw_unpacks(self.m.type):
            raise ValueError(f"{sw_type_name(self.m.type).decode()} is packed as codes")
        row_bytes = self.m.cols // sw_type_block(self.m.type) * sw_type_bytes(self.m.type)
        cdef uint8_t[:, ::1] out = np.empty((self.m.rows, row_bytes), np.uint8)
        sw_unpack(&self.m, &out[0, 0], 0, self.m.rows)
        return np.asarray(out)


cdef struct packing:  # of rows of one matrix
    sw_mat m
    uint8_t *dst
    const uint8_t *src
    int rows
    const uint8_t *grid


def pack(int qtype, raw, int cols, out, int tile_cols=0, int n_threads=1):
    """Pack GGUF rows `raw` (rows, row_bytes) into `out`; returns the Mat over it."""
    cdef packing one
    mat, grid = begin_packing(&one, qtype, raw, cols, out, tile_cols)
    with nogil, parallel(num_threads=n_threads):
        pack_share(&one, threadid(), n_threads)
    return mat


def pack_many(list pieces, int n_threads=1):
    """The same of pieces (qtype, raw, cols, out), in whole rows: threads come together once, not for each of them."""
    cdef int n = len(pieces), i
    cdef packing *jobs = <packing *>calloc(max(n, 1), sizeof(packing))
    if jobs == NULL:
        raise MemoryError()
    kept = []  # what jobs point to
    try:
        for i, (qtype, raw, cols, out) in enumerate(pieces):
            kept.append(begin_packing(&jobs[i], qtype, raw, cols, out, 0))
        with nogil, parallel(num_threads=n_threads):
            pack_shares(jobs, n, threadid(), n_threads)
    finally:
        free(jobs)


cdef begin_packing(packing *job, int qtype, const uint8_t[:, ::1] raw, int cols, uint8_t[::1] out, int tile_cols):
    from swarm.kernels.grids import grid_of  # not before there are types, which the module asks this one for
    cdef int rows = <int>raw.shape[0], block = sw_type_block(qtype)
    if block == 0 or cols % block or <size_t>raw.shape[1] != cols // block * sw_type_bytes(qtype):
        raise ValueError(f"type {qtype}: rows of {raw.shape[1]} bytes are not {cols} columns")
    mat = Mat(qtype, rows, cols, out, tile_cols)
    cdef const uint8_t[:, ::1] entries = grid_of(sw_type_name(qtype).decode())
    job.m, job.dst, job.src, job.rows = (<Mat>mat).m, &out[0], &raw[0, 0], rows
    job.grid = &entries[0, 0] if entries is not None else NULL
    return mat, entries


cdef void pack_shares(const packing *jobs, int n, int thread, int n_threads) noexcept nogil:
    cdef int i
    for i in range(n):
        pack_share(&jobs[i], (thread + i) % n_threads, n_threads)


cdef void pack_share(const packing *job, int thread, int n_threads) noexcept nogil:
    cdef int r = thread * 64
    while r < job.rows:
        sw_pack(&job.m, job.dst, job.src, r, min(r + 64, job.rows), job.grid)
        r += n_threads * 64


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
        k.matmul[w.m.type](&w.m, &a, 0, n, threadid() * panels // n_threads, (threadid() + 1) * panels // n_threads,
                           &y[0, 0], w.m.rows)
    return np.asarray(y)


cdef const float *floats(list owners, object vector, int n, str what) except? NULL:
    """Pointer to a float32 vector (n,), NULL for None; keeps it alive in `owners`."""
    if vector is None:
        return NULL
    array = np.ascontiguousarray(vector, np.float32).reshape(-1)
    cdef const float[::1] v = array
    if v.shape[0] != n:
        raise ValueError(f"{what} has {v.shape[0]} values, expected {n}")
    owners.append(array)
    return &v[0]


cdef sw_mat mat(list owners, Mat m, int rows, int cols, str what) except *:
    if m.m.rows != rows or m.m.cols != cols:
        raise ValueError(f"{what} is {m.shape}, expected {(rows, cols)}")
    owners.append(m)
    return m.m


cdef class Attention:
    """Weights of the attention half of a layer."""

    cdef sw_attn w
    cdef Dims dims
    cdef list owners

    def __init__(self, Dims dims not None, *, norm, Mat q, Mat k, Mat v, Mat o, post_norm=None, q_bias=None,
                 k_bias=None, v_bias=None, out_bias=None, q_norm=None, k_norm=None, sinks=None, bint rotated=True,
                 int window=0):
        cdef int h = dims.d.hidden, qw = dims.d.n_heads * dims.d.head_dim, kw = dims.d.n_kv_heads * dims.d.head_dim
        self.dims, self.owners = dims, []
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
        self.w.q_norm = floats(o_, q_norm, dims.d.head_dim, "q_norm")
        self.w.k_norm = floats(o_, k_norm, dims.d.head_dim, "k_norm")
        self.w.out_bias = floats(o_, out_bias, h, "out_bias")
        self.w.sinks = floats(o_, sinks, dims.d.n_heads, "sinks")
        self.w.rotated, self.w.window = rotated, window


cdef class LatentAttention(Attention):
    """Weights of the attention half of a layer with latent attention: see latent.c."""

    def __init__(self, Dims dims not None, *, norm, Mat q, Mat kv_a, kv_a_norm, list k_b, list v_b, Mat o, Mat q_a=None,
                 q_a_norm=None):
        """k_b and v_b have a matrix for each head."""
        cdef int h = dims.d.hidden, n = dims.d.n_heads, width = dims.d.nope + 2 * dims.d.rope_half, i
        cdef int latent = dims.d.value_dim, rank = dims.q_rank if q_a is not None else h
        if not dims.d.latent or len(k_b) != n or len(v_b) != n or (q_a is None) != (dims.q_rank == 0):
            raise ValueError(f"dims of another attention, or not {n} matrices for {n} heads")
        self.dims, self.owners = dims, []
        o_ = self.owners
        self.w.norm = floats(o_, norm, h, "attn_norm")
        if q_a is not None:
            self.w.q_a = mat(o_, q_a, rank, h, "q_a")
            self.w.q_norm = floats(o_, q_a_norm, rank, "q_a_norm")
        self.w.q = mat(o_, q, n * width, rank, "q")
        self.w.k = mat(o_, kv_a, dims.d.head_dim, h, "kv_a")
        self.w.k_norm = floats(o_, kv_a_norm, latent, "kv_a_norm")
        self.w.o = mat(o_, o, h, n * dims.head_out, "o")
        self.w.rotated = True
        self.w.k_b_data = <const uint8_t **>calloc(2 * n, sizeof(void *))
        if self.w.k_b_data == NULL:
            raise MemoryError()
        self.w.v_b_data = self.w.k_b_data + n
        for i in range(n):
            set_shape(&self.w.k_b, k_b[i], latent, dims.d.nope, "k_b")
            set_shape(&self.w.v_b, v_b[i], dims.head_out, latent, "v_b")
            self.w.k_b_data[i], self.w.v_b_data[i] = (<Mat>k_b[i]).m.data, (<Mat>v_b[i]).m.data
        o_ += [*k_b, *v_b]

    def __dealloc__(self):
        free(<void *>self.w.k_b_data)


cdef class Ffn:
    """Weights of the feed-forward half of a layer: dense, or a mixture of experts, some of which may be absent.

    With a `cache`, `cache_layer` is which of its layers this is, and `experts` is one (gate, up, down) of the shapes
    that all have: an expert's bytes are gate, up and down, each from a multiple of 64 on. Without, an expert that is
    absent ends the step. Not while a step runs: `set_expert`.
    """

    cdef sw_ffn w
    cdef Dims dims
    cdef list owners, experts
    cdef int bias_width
    cdef ExpertCache cache

    def __cinit__(self):
        memset(&self.w, 0, sizeof(sw_ffn))

    def __init__(self, Dims dims not None, *, norm, int layer=0, post_norm=None, Mat gate=None, Mat up=None,
                 Mat down=None, Mat router=None, router_bias=None, experts=(), int top_k=0, bint sigmoid=False,
                 bint normalise=True, float scale=1.0, int n_group=1, int top_group=1, logit_bias=None,
                 gate_bias=None, up_bias=None, down_bias=None, float alpha=1.0, float limit=0.0, ExpertCache cache=None,
                 int cache_layer=0):
        """`experts` are (gate, up, down) for each row of the router, or None for one that is absent.

        Biases of experts are (n_experts * width,). limit: of their clamped swiglu; 0: they have silu(gate) * up.
        """
        cdef int h = dims.d.hidden, n
        self.dims, self.owners = dims, []
        o_ = self.owners
        self.w.layer = layer
        self.w.norm = floats(o_, norm, h, "ffn_norm")
        self.w.post_norm = floats(o_, post_norm, h, "ffn_post_norm")
        if gate is not None:
            n = gate.m.rows
            self._check_width(n, dims.ffn if router is None else dims.expert_ffn)
            self.w.gate = mat(o_, gate, n, h, "gate")
            self.w.up = mat(o_, up, n, h, "up")
            self.w.down = mat(o_, down, h, n, "down")
        if router is None:
            return
        n = router.m.rows
        fits = 0 < top_k <= min(n, dims.top_k) and n <= dims.n_experts
        if not fits or n_group < 1 or n % n_group or not 0 < top_group <= n_group:
            raise ValueError(f"{n} experts, top {top_k}, {n_group} groups, top {top_group}: impossible or more than "
                             "planned for")
        if len(experts) != (n if cache is None else 1):
            raise ValueError(f"the router knows {n} experts, the list holds {len(experts)}")
        self.w.n_experts, self.w.top_k, self.w.n_group, self.w.top_group = n, top_k, n_group, top_group
        self.w.sigmoid, self.w.normalise, self.w.scale = sigmoid, normalise, scale
        self.w.router = mat(o_, router, n, h, "router")
        self.w.router_bias = floats(o_, router_bias, n, "router_bias")
        self.w.gate_data = <const uint8_t **>calloc(3 * n, sizeof(void *))
        if self.w.gate_data == NULL:
            raise MemoryError()
        self.w.up_data, self.w.down_data = self.w.gate_data + n, self.w.gate_data + 2 * n
        self.experts = [None] * n
        self.w.logit_bias = floats(o_, logit_bias, n, "logit_bias")
        self.w.down_bias = floats(o_, down_bias, n * h, "down_bias")
        self.w.alpha, self.w.limit = alpha, limit
        if gate_bias is not None:
            self.bias_width = <int>len(gate_bias) // n
            self.w.gate_bias = floats(o_, gate_bias, n * self.bias_width, "gate_bias")
            self.w.up_bias = floats(o_, up_bias, n * self.bias_width, "up_bias")
        if (self.w.gate_bias == NULL) != (self.w.up_bias == NULL):
            raise ValueError("experts have biases of gate and up, or of neither")
        for i, expert in enumerate(experts):
            self.set_expert(i, *(expert or (None, None, None)))
        if cache is not None:
            self._follow(cache, cache_layer, experts[0])

    cdef _follow(self, ExpertCache cache, int layer, tuple expert):
        cdef Mat gate = expert[0], up = expert[1], down = expert[2]
        w, r = &self.w, &cache.residents.r
        w.up_at = (gate.n_bytes + 63) // 64 * 64
        w.down_at = w.up_at + (up.n_bytes + 63) // 64 * 64
        if not 0 <= layer < r.n_layers or w.n_experts != r.n_experts or 2 * w.top_k > r.n_slots:
            raise ValueError(f"{w.n_experts} experts, top {w.top_k}, as layer {layer} of a cache of {r.n_layers} with "
                             f"{r.n_slots} slots")
        if <size_t>cache.c.files[layer].bytes < w.down_at + down.n_bytes:
            raise ValueError(f"an expert needs {w.down_at + down.n_bytes} bytes, "
                             f"its file has {cache.c.files[layer].bytes}")
        self.cache, w.cache, w.cache_layer = cache, cache.c, layer

    def __dealloc__(self):
        free(<void *>self.w.gate_data)

    cdef _check_width(self, int width, int planned):
        if width > planned:
            raise ValueError(f"a feed-forward of {width} columns, {planned} were planned for")

    def set_expert(self, int i, Mat gate, Mat up, Mat down):
        """Give expert i its matrices, or with None take them away: until then a step that needs it raises ExpertAbsent.

        All experts of a layer have the shapes and types of the first one.
        """
        if not 0 <= i < self.w.n_experts:
            raise IndexError(i)
        w = &self.w
        if gate is None or up is None or down is None:
            if gate is not None or up is not None or down is not None:
                raise ValueError(f"expert {i} has some of its matrices only")
            w.gate_data[i], w.up_data[i], w.down_data[i], self.experts[i] = NULL, NULL, NULL, None
            return
        cdef int h = self.dims.d.hidden, width = w.expert_gate.rows or gate.m.rows
        self._check_width(width, self.dims.expert_ffn)
        if self.bias_width and self.bias_width != width:
            raise ValueError(f"biases of {self.bias_width} columns for experts of {width}")
        set_shape(&w.expert_gate, gate, width, h, "expert_gate")
        set_shape(&w.expert_up, up, width, h, "expert_up")
        set_shape(&w.expert_down, down, h, width, "expert_down")
        w.gate_data[i], w.up_data[i], w.down_data[i] = gate.m.data, up.m.data, down.m.data
        self.experts[i] = gate, up, down

    cdef list _absent(self, const int32_t *needed, int n):
        return [needed[i] for i in range(n) if self.experts[needed[i]] is None]


cdef int set_shape(sw_mat *shape, Mat m, int rows, int cols, str what) except -1:
    """Take the shape and type of the first expert, and check that the others have the same."""
    cdef sw_mat checked = mat([], m, rows, cols, what)
    if shape.rows and (shape.type != checked.type or shape.tile_cols != checked.tile_cols):
        raise ValueError(f"{what} is of type {checked.type}, the other experts of {shape.type}")
    checked.data = NULL
    shape[0] = checked
    return 0


cdef class Layers:
    """A run of layers in the order they execute."""

    cdef sw_attn **attn
    cdef sw_ffn **ffn
    cdef readonly int n
    cdef Dims dims
    cdef list owners
    cdef ExpertCache cache

    def __init__(self, Dims dims not None, pairs):
        """`pairs` are (Attention, Ffn) of these dims."""
        self.dims, self.owners = dims, list(pairs)
        self.n = len(self.owners)
        self.attn = <sw_attn **>calloc(2 * max(self.n, 1), sizeof(void *))
        if self.attn == NULL:
            raise MemoryError()
        self.ffn = <sw_ffn **>(self.attn + self.n)
        for i, (a, f) in enumerate(self.owners):
            if (<Attention?>a).dims is not dims or (<Ffn?>f).dims is not dims:
                raise ValueError(f"layer {i} was made for other dims")
            self.attn[i] = &(<Attention>a).w
            self.ffn[i] = &(<Ffn>f).w
            if self.cache is not None and (<Ffn>f).cache not in (None, self.cache):
                raise ValueError(f"layer {i} has another cache of experts")
            self.cache = self.cache or (<Ffn>f).cache

    def __dealloc__(self):
        free(self.attn)

    cdef Ffn ffn_of(self, const sw_ffn *w):
        for _, f in self.owners:
            if &(<Ffn>f).w == w:
                return f
