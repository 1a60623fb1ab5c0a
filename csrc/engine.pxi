# A step: buffers, a team of threads, and the calls into C.

cdef extern from "layer.h" nogil:
    ctypedef struct sw_team:
        int n_threads
        uint32_t phase
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
        int n_active
        const sw_ffn *absent
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
    void sw_ffn_route(sw_step *, const sw_ffn *, sw_fold) noexcept
    void sw_ffn_experts(sw_step *, const sw_ffn *) noexcept
    void sw_head(sw_step *, const float *, const sw_mat *, sw_fold, int, float *) noexcept
    void sw_finish(sw_step *, sw_fold) noexcept
    void sw_embed(sw_step *, const sw_mat *, const int32_t *) noexcept


cdef class Workspace:
    """Buffers for steps of up to `max_tokens` tokens over `segments` segments of positions."""

    cdef sw_ws ws
    cdef dict buffers

    def __init__(self, Dims dims not None, int max_tokens, int segments, int threads, bint keep_float):
        cdef size_t n = max_tokens, h = dims.d.hidden, hd = dims.d.head_dim, k = dims.top_k, n_experts = dims.n_experts
        cdef size_t qw = dims.d.n_heads * hd, kw = dims.d.n_kv_heads * hd
        cdef size_t width = (dims.ffn + 63) // 64 * 64, expert = (dims.expert_ffn + 63) // 64 * 64
        cdef size_t inner = max(n * width, n * (k + 1) * expert)
        self.buffers = {}
        w = &self.ws
        w.max_tokens, w.max_segments = max_tokens, segments
        w.x = <float *>self._buffer("x", n * h * 4)
        w.delta = <float *>self._buffer("delta", n * h * 4)
        w.normed = <float *>self._buffer("normed", n * h * 4)
        w.q = <float *>self._buffer("q", n * qw * 4)
        w.k = <float *>self._buffer("k", n * kw * 4)
        w.v = <float *>self._buffer("v", n * kw * 4)
        w.mixed = <float *>self._buffer("mixed", n * qw * 4)
        w.inner = <float *>self._buffer("inner", inner * 4 if keep_float else 64)
        w.router = <float *>self._buffer("router", n * n_experts * 4 + 64)
        w.act_hidden = self._act("hidden", w.normed, n, h)
        w.act_mixed = self._act("mixed", w.mixed, n, qw)
        w.act_inner = self._act("inner", w.inner, 1, inner)
        w.part_m = <float *>self._buffer("part_m", dims.d.n_heads * segments * 4)
        w.part_l = <float *>self._buffer("part_l", dims.d.n_heads * segments * 4)
        w.part_acc = <float *>self._buffer("part_acc", qw * segments * 4)
        w.pick = <int32_t *>self._buffer("pick", n * k * 4 + 64)
        w.pick_weight = <float *>self._buffer("pick_weight", n * k * 4 + 64)
        w.active = <int32_t *>self._buffer("active", n_experts * 4 + 64)
        w.start = <int32_t *>self._buffer("start", n_experts * 4 + 64)
        w.pair_token = <int32_t *>self._buffer("pair_token", n * k * 4 + 64)
        w.pair_weight = <float *>self._buffer("pair_weight", n * k * 4 + 64)
        w.scratch_bytes = sw_scratch_bytes(&dims.d, h, segments)
        w.scratch = <uint8_t *>self._buffer("scratch", w.scratch_bytes * threads)

    @property
    def n_bytes(self):
        """Memory of all buffers together; pages that no step has touched are not yet taken."""
        return sum(len(b) for b in self.buffers.values())

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


cdef class Engine:
    """Runs layers of `dims` over a workspace with a team of threads.

    The residual stream is (x, delta): see ARCHITECTURE.md. `attention` and `ffn` are the two native calls of a layer;
    `step` runs all of a step in one parallel region, for decode, where opening a region costs as much as a layer of a
    small model.
    """

    cdef Dims dims
    cdef Workspace workspace
    cdef sw_ws *ws
    cdef sw_team *team
    cdef void *team_memory
    cdef const sw_kernels *kernels
    cdef const sw_ops *ops
    cdef object rope
    cdef sw_fold fold
    cdef readonly int threads, max_tokens
    cdef readonly str isa

    def __init__(self, Dims dims not None, *, int max_tokens, int context, bint keep_float=False, int threads=1, str isa=""):
        self.isa = isa or best_isa()
        self.kernels = kernels_for(self.isa)
        self.ops = sw_ops_for(self.kernels.name)
        self.dims, self.max_tokens = dims, max_tokens
        self.threads = team_size(threads)
        self.team_memory = calloc(1, 512)
        if self.team_memory == NULL:
            raise MemoryError()
        self.team = <sw_team *>((<uintptr_t>self.team_memory + 63) // 64 * 64)
        sw_team_init(self.team, self.threads)
        self.workspace = Workspace(dims, max_tokens, (context + SW_KV_SEGMENT - 1) // SW_KV_SEGMENT, self.threads, keep_float)
        self.ws = &self.workspace.ws

    def __dealloc__(self):
        free(self.team_memory)

    @property
    def buffer_bytes(self):
        """Memory of all buffers together; pages that no step has touched are not yet taken."""
        return self.workspace.n_bytes

    cdef sw_step _step(self, int n_tokens, int position) except *:
        if not 0 < n_tokens <= self.max_tokens:
            raise ValueError(f"{n_tokens} tokens in a step of at most {self.max_tokens}")
        return sw_step(self.kernels, self.ops, self.team, &self.dims.d, self.ws, n_tokens, position, 0, self.team.phase)

    cdef _rope(self, const float[:, ::1] cos, const float[:, ::1] sin, int n_tokens):
        if cos.shape[0] < n_tokens or sin.shape[0] < n_tokens or cos.shape[1] != self.dims.d.rope_half or sin.shape[1] != cos.shape[1]:
            raise ValueError("cos and sin must be (tokens, rope_dims / 2)")
        self.ws.cos, self.ws.sin = &cos[0, 0], &sin[0, 0]
        self.rope = cos, sin  # kept alive

    def embed(self, Mat table not None, const int32_t[::1] ids):
        """x = rows `ids` of the embedding."""
        cdef sw_step s = self._step(<int>ids.shape[0], 0)
        self._check_ids(table, ids, <int>ids.shape[0])
        self.fold = sw_fold(0, NULL)
        with nogil, parallel(num_threads=self.threads):
            run_embed(s, threadid(), &table.m, &ids[0])

    cdef _check_ids(self, Mat table, const int32_t[::1] ids, int n_tokens):
        if table.m.cols != self.dims.d.hidden or ids.shape[0] != n_tokens:
            raise ValueError(f"embedding of width {table.m.cols} for {ids.shape[0]} ids, expected {self.dims.d.hidden} for {n_tokens}")
        cdef int i
        for i in range(n_tokens):
            if not 0 <= ids[i] < table.m.rows:
                raise ValueError(f"token id {ids[i]} is outside the vocabulary of {table.m.rows}")

    cdef _check_head(self, Mat head, int n_tokens, int first):
        if not 0 <= first < n_tokens or head.m.cols != self.dims.d.hidden:
            raise ValueError(f"head of width {head.m.cols} for tokens {first}..{n_tokens}")

    def set_hidden(self, const float[:, ::1] x):
        """x = the hidden state (tokens, hidden) that came from the stage before."""
        cdef sw_step s = self._step(<int>x.shape[0], 0)
        if x.shape[1] != self.dims.d.hidden:
            raise ValueError(f"hidden state of width {x.shape[1]}, expected {self.dims.d.hidden}")
        np.asarray(<float[:x.shape[0], :x.shape[1]]>self.ws.x)[...] = x
        self.fold = sw_fold(0, NULL)

    def hidden(self, int n_tokens):
        """A copy of x (tokens, hidden) after folding what is pending: what travels to the next stage."""
        cdef sw_step s = self._step(n_tokens, 0)
        with nogil, parallel(num_threads=self.threads):
            run_finish(s, threadid(), self.fold)
        self.fold = sw_fold(0, NULL)
        return np.array(<float[:n_tokens, :self.dims.d.hidden]>self.ws.x)

    def delta(self, int n_tokens):
        """A view of the last half's output (tokens, hidden), still to be folded in."""
        return np.asarray(<float[:n_tokens, :self.dims.d.hidden]>self.ws.delta)

    def attention(self, Attention layer, KvCache kv, int index, int position, int n_tokens, cos, sin):
        """The attention half of one layer; `index` is the layer's place in `kv`."""
        self._check_dims(layer.dims)
        self._check_kv(kv, index, 1, position, n_tokens)
        self._rope(cos, sin, n_tokens)
        cdef sw_step s = self._step(n_tokens, position)
        with nogil, parallel(num_threads=self.threads):
            run_attention(s, threadid(), &layer.w, &kv.layers[index], self.fold)
        self.fold = sw_fold(1, layer.w.post_norm)

    def keys(self, Attention layer, KvCache kv, int index, int position, int n_tokens, cos, sin):
        """Of one layer only the keys and values. What is left is the x of the last token, as of a step over that one."""
        self._check_dims(layer.dims)
        self._check_kv(kv, index, 1, position, n_tokens)
        self._rope(cos, sin, n_tokens)
        cdef sw_step s = self._step(n_tokens, position)
        with nogil, parallel(num_threads=self.threads):
            run_keys(s, threadid(), &layer.w, &kv.layers[index], self.fold)
        self.fold = sw_fold(0, NULL)
        memmove(self.ws.x, self.ws.x + <size_t>(n_tokens - 1) * self.dims.d.hidden, self.dims.d.hidden * sizeof(float))

    def ffn(self, Ffn layer, int n_tokens):
        """The feed-forward half of one layer."""
        self._check_dims(layer.dims)
        cdef sw_step s = self._step(n_tokens, 0)
        with nogil, parallel(num_threads=self.threads):
            run_ffn(s, threadid(), &layer.w, self.fold)
        if self.ws.absent != NULL:
            self._raise_absent(layer)
        self.fold = sw_fold(1, layer.w.post_norm)

    cdef _check_dims(self, Dims dims):
        if dims is not self.dims:
            raise ValueError("a layer of other dims")

    cdef _raise_absent(self, Ffn layer):
        absent = layer._absent(self.ws.active, self.ws.n_active)
        self.ws.absent = NULL
        raise ExpertAbsent(layer.w.layer, absent)

    cdef _check_kv(self, KvCache kv, int first, int n_layers, int position, int n_tokens):
        if position < 0 or position + n_tokens > kv.capacity or first < 0 or first + n_layers > kv.n_layers:
            raise ValueError(f"positions {position}..{position + n_tokens} or layers do not fit the KV cache")

    def step(self, Layers stack, KvCache kv, int position, int n_tokens, cos, sin, *, const int32_t[::1] ids=None, Mat table=None,
             norm=None, Mat head=None):
        """All of a step in one parallel region: embed `ids` through `table` (else x is set), run the layers, and return
        the logits float32 (vocab,) of the last token when there is a `head`, else None (then ask for `hidden`)."""
        self._check_dims(stack.dims)
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
            r.head, r.norm, r.logits = &head.m, floats(owners, norm, self.dims.d.hidden, "output_norm"), &out[0]
        with nogil, parallel(num_threads=self.threads):
            run_step(s, threadid(), &r, self.fold)
        if self.ws.absent != NULL:
            self._raise_absent(stack.ffn_of(self.ws.absent))
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
        cdef const float *w = floats(owners, norm, self.dims.d.hidden, "output_norm")
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
    sw_ffn_route(&s, w, fold)
    if s.ws.absent == NULL:
        sw_ffn_experts(&s, w)


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
        sw_ffn_route(&s, r.ffn[i], fold)
        if s.ws.absent != NULL:      # once set it stays, so a thread that was put aside ends as well, only earlier
            return
        sw_ffn_experts(&s, r.ffn[i])
        fold = sw_fold(1, r.ffn[i].post_norm)
    if r.head != NULL:
        sw_head(&s, r.norm, r.head, fold, s.n_tokens - 1, r.logits)
