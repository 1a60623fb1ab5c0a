# A step: a team of threads, and the calls into C.

cdef sw_residual no_delta() noexcept nogil:
    return sw_residual(0, NULL, NULL, NULL)


cdef sw_residual after_attention(const sw_attn *w) noexcept nogil:
    return sw_residual(1, w.post_norm, w.out_bias, NULL)


cdef sw_residual after_ffn(const sw_ffn *w) noexcept nogil:
    return sw_residual(1, w.post_norm, NULL, w)


cdef enum Next:
    """What a step waits for."""
    BEGIN
    INPUT
    ATTENTION
    FFN


ORDER = ("a step is begin, embed or set_hidden, attention and ffn of each layer (or all of them in step), "
         "and hidden, lm_head or end")


cdef class Engine:
    """Runs layers of `dims` over a workspace with a team of threads.

    A step goes over rows, each a token with its place in a session's KV cache:

        begin           which caches, how many tokens of each
        embed           or set_hidden: the input
        attention, ffn  the halves of each layer in turn; before those of the last one `keys`, to drop rows that nobody
                        wants; or `step`: all layers in one parallel region, for decode, where opening a region costs as
                        much as a layer of a small model
        hidden          or lm_head or end: the output; only now the positions count as filled

    The residual stream is (x, delta): see ARCHITECTURE.md. A step that fails has stored nothing; `begin` starts anew.
    """

    cdef Dims dims
    cdef Workspace workspace
    cdef sw_ws *ws
    cdef sw_team *team
    cdef void *team_memory
    cdef const sw_kernels *kernels
    cdef const sw_ops *ops
    cdef sw_ways ways
    cdef sw_residual residual
    cdef Next next
    cdef int n_tokens, n_layers, layer
    cdef tuple runs, tables
    cdef Stage stage
    cdef readonly int threads, max_tokens
    cdef readonly str isa

    def __init__(self, Dims dims not None, *, int max_tokens, int context, bint keep_float=False, int threads=1,
                 str isa=""):
        self.isa = isa or best_isa()
        self.kernels = kernels_for(self.isa)
        self.choose(())
        self.ops = sw_ops_for(self.kernels.name)
        self.dims, self.max_tokens = dims, max_tokens
        self.threads = team_size(threads)
        self.team_memory = calloc(1, 512)
        if self.team_memory == NULL:
            raise MemoryError()
        self.team = <sw_team *>((<uintptr_t>self.team_memory + 63) // 64 * 64)
        sw_team_init(self.team, self.threads)
        segments = (context + SW_KV_SEGMENT - 1) // SW_KV_SEGMENT
        self.workspace = Workspace(dims, max_tokens, segments, self.threads, keep_float)
        self.ws = &self.workspace.ws
        self.runs = ()

    def __dealloc__(self):
        free(self.team_memory)

    def choose(self, ways):
        """From the next step on, products of a single token are computed so: (type, whether exact sums, set, streams,
        ahead) of `ways`, and of all other types as nobody measured. No bit of a result changes. Not while a step runs.
        """
        cdef int qtype, streams, ahead
        cdef bint sums
        cdef sw_way way
        sw_usual_ways(&self.ways, self.kernels, READS_AHEAD)
        for qtype, sums, isa, streams, ahead in ways:
            way = way_of(qtype, isa, streams, ahead)
            if sums:
                self.ways.sums[qtype] = way
            else:
                self.ways.rows[qtype] = way

    def begin(self, runs, cos, sin, temper=None, *, int layer=0, int ahead=0):
        """A new step over (KvCache, n_tokens) of `runs`: each goes to the next positions of its cache.

        cos and sin are those of all tokens, float32 (tokens, rope_dims / 2); temper, float32 (tokens,), is what their
        queries are multiplied with. layer: the first that is computed, of rows that `leave` gave after those before.
        ahead: positions that other rows have filled in this layer and not in all of them yet, before these.
        """
        cdef KvCache kv
        cdef int n, i, total = 0, n_layers = -1
        self.abandon()
        runs = tuple(runs)
        if not runs:
            raise ValueError("a step without rows")
        if layer < 0 or ahead < 0:
            raise ValueError(f"a step from layer {layer} on, {ahead} positions ahead")
        if len(runs) > 1 and len({id(cache) for cache, _ in runs}) < len(runs):
            raise ValueError("a step has two runs of one KV cache")
        for kv, n in runs:
            n_layers = kv.n_layers if n_layers < 0 else n_layers
            self._check_kv(kv, n + ahead, n_layers)
            if not 0 < n <= self.max_tokens - total:
                raise ValueError(f"a run of {n} after {total} tokens in a step of at most {self.max_tokens}")
            for i in range(n):
                self.ws.rows[total + i] = sw_row(kv.layers, kv.filled + ahead + i)
            total += n
        self._place(total, cos, sin, temper)
        self.runs, self.n_layers, self.layer, self.next = runs, n_layers, layer, INPUT

    def abandon(self):
        """Forget a step that is under way; nothing of it counts."""
        self.runs, self.next, self.ws.absent = (), BEGIN, NULL
        sw_forget_sums(self.ws, self.dims.d.hidden, self.n_tokens)

    cdef _check_kv(self, KvCache kv, int n_tokens, int n_layers):
        cdef const sw_kv *k = kv.layers
        cdef const sw_dims *d = &self.dims.d
        if kv.n_layers != n_layers or (n_layers and (k.n_kv_heads != d.n_kv_heads or k.head_dim != d.head_dim
                                                     or k.value_dim != d.value_dim)):
            raise ValueError("a KV cache of other layers")
        if kv.filled + n_tokens > min(kv.capacity, self.ws.max_segments * SW_KV_SEGMENT):
            raise ValueError(f"positions {kv.filled}..{kv.filled + n_tokens} do not fit the KV cache")

    cdef _place(self, int n_tokens, cos_table, sin_table, tempers):
        cdef const float[:, ::1] cos = cos_table, sin = sin_table
        cdef const float[::1] temper = tempers
        cdef int half = self.dims.d.rope_half
        if cos.shape[0] != n_tokens or sin.shape[0] != n_tokens or cos.shape[1] != half or sin.shape[1] != half:
            raise ValueError("cos and sin must be (tokens, rope_dims / 2)")
        if temper is not None and temper.shape[0] != n_tokens:
            raise ValueError("temper must be (tokens,)")
        self.ws.cos, self.ws.sin, self.ws.temper = &cos[0, 0], &sin[0, 0], NULL
        if temper is not None:
            self.ws.temper = &temper[0]
        self.tables = cos_table, sin_table, tempers  # kept alive; a view would have to be made an object
        self.n_tokens = n_tokens
        cdef sw_step s = self._step()
        sw_plan_attention(&s)

    cdef sw_step _step(self):
        return sw_step(self.kernels, self.ops, self.team, &self.dims.d, self.ws, self.n_tokens, 0, self.team.phase,
                       &self.ways)

    cdef int _expect(self, Next state, bint at_layer, str call) except -1:
        if self.next != state or not at_layer:
            raise RuntimeError(f"{call} out of order: {ORDER}")
        return 0

    def embed(self, Mat table not None, const int32_t[::1] ids not None):
        """x = rows `ids` of the embedding."""
        self._expect(INPUT, True, "embed")
        self._check_ids(table, ids)
        cdef sw_step s = self._step()
        with nogil, parallel(num_threads=self.threads):
            run_embed(s, threadid(), &table.m, &ids[0])
        self.residual, self.next = no_delta(), ATTENTION

    cdef _check_ids(self, Mat table, const int32_t[::1] ids):
        cdef int i, h = self.dims.d.hidden
        if table.m.cols != h or ids.shape[0] != self.n_tokens:
            raise ValueError(f"an embedding {table.m.cols} wide for {ids.shape[0]} ids, not {h} for {self.n_tokens}")
        for i in range(self.n_tokens):
            if not 0 <= ids[i] < table.m.rows:
                raise ValueError(f"token id {ids[i]} is outside the vocabulary of {table.m.rows}")

    def set_hidden(self, const float[:, ::1] x not None):
        """x = the hidden state (tokens, hidden) that came from the stage before."""
        self._expect(INPUT, True, "set_hidden")
        if x.shape[0] != self.n_tokens or x.shape[1] != self.dims.d.hidden:
            expected = (self.n_tokens, self.dims.d.hidden)
            raise ValueError(f"a hidden state of {(x.shape[0], x.shape[1])}, expected {expected}")
        memcpy(self.ws.x, &x[0, 0], <size_t>self.n_tokens * self.dims.d.hidden * sizeof(float))
        self.residual, self.next = no_delta(), ATTENTION

    def attention(self, Attention layer not None):
        """The attention half of the next layer."""
        self._expect(ATTENTION, self.layer < self.n_layers, "attention")
        self._check_dims(layer.dims)
        cdef sw_step s = self._step()
        with nogil, parallel(num_threads=self.threads):
            run_attention(s, threadid(), &layer.w, self.layer, self.residual)
        self._check_stage()
        self._check_sums()
        self.residual, self.next = after_attention(&layer.w), FFN

    def ffn(self, Ffn layer not None):
        """The feed-forward half of the layer whose attention ran; ExpertAbsent when an expert that it needs is."""
        self._expect(FFN, True, "ffn")
        self._check_dims(layer.dims)
        cdef sw_step s = self._step()
        self._hear_signals(layer.cache)
        with nogil, parallel(num_threads=self.threads):
            run_ffn(s, threadid(), &layer.w, self.residual)
        if self.ws.absent != NULL:
            self._raise_absent(layer)
        self._check_cache(layer.cache)
        self._check_stage()
        self._check_sums()
        self.residual, self.next = after_ffn(&layer.w), ATTENTION
        self.layer += 1

    def keys(self, Attention layer not None, wanted):
        """Before the last layer: store its keys and values of all rows, then keep only the rows `wanted` (ascending).

        With none wanted the step is over, as after `end`.
        """
        self._expect(ATTENTION, self.layer == self.n_layers - 1, "keys")
        self._check_dims(layer.dims)
        cdef int n = len(wanted), i, row, h = self.dims.d.hidden
        if any(not 0 <= row < self.n_tokens for row in wanted) or any(a >= b for a, b in zip(wanted, wanted[1:])):
            raise ValueError(f"rows {wanted} of {self.n_tokens}")
        cdef sw_step s = self._step()
        with nogil, parallel(num_threads=self.threads):
            run_keys(s, threadid(), &layer.w, self.layer, self.residual)
        self.residual = no_delta()
        if not n:
            self._commit()
            return
        for i, row in enumerate(wanted):
            self.ws.rows[i] = self.ws.rows[row]
            memmove(self.ws.x + <size_t>i * h, self.ws.x + <size_t>row * h, h * sizeof(float))
        cos, sin, temper = (None if table is None else np.asarray(table)[list(wanted)] for table in self.tables)
        self._place(n, cos, sin, temper)

    def meet(self, Stage stage):
        """From the next step on, halves are those of all members of this stage; None: layers are whole here.

        The stage's `begin` tells it of each step.
        """
        self.abandon()
        if stage is not None:
            stage.reserve(<size_t>self.max_tokens * self.dims.d.hidden, 0)
        self.stage = stage
        self.ws.shared = stage is not None
        self.ws.stage = NULL if stage is None else &stage.exchanger.stage

    cdef int _check_stage(self) except -1:
        """StageLost when the halves that just ran could not be added up."""
        if self.stage is not None and self.stage.exchanger.stage.rc:
            self.abandon()
            self.stage.raise_end()
        return 0

    def share(self):
        """From now on halves are those of several devices: the `sums` of each can be had, and set."""
        self.ws.shared = 1

    def sums(self):
        """The last half's output int64 (tokens, hidden), not yet added to x, which devices add up; in `units`."""
        self._expect_sums("sums")
        near = np.asarray(<int32_t[:self.n_tokens, :self.dims.d.hidden]>self.ws.near)
        return near + np.asarray(<int64_t[:self.n_tokens, :self.dims.d.hidden]>self.ws.far)

    def set_sums(self, const int64_t[:, ::1] total not None):
        """Go on with these sums."""
        self._expect_sums("set_sums")
        cdef int i
        np.asarray(<int32_t[:self.n_tokens, :self.dims.d.hidden]>self.ws.near)[...] = 0
        np.asarray(<int64_t[:self.n_tokens, :self.dims.d.hidden]>self.ws.far)[...] = total
        for i in range(self.n_tokens):
            self.ws.wide[i] = 1

    def units(self):
        """What `sums` count: a copy, float32 (tokens,), of powers of two that are the same on all devices."""
        self._expect_sums("units")
        return np.array(<float[:self.n_tokens]>self.ws.unit)

    cdef int _expect_sums(self, str call) except -1:
        if not self.ws.shared:
            raise RuntimeError(f"{call} only after share()")
        if not self.residual.has_delta or self.next < ATTENTION:
            raise RuntimeError(f"{call} out of order: {ORDER}")
        return 0

    cdef int _check_sums(self) except -1:
        """ModelError when the halves that just ran computed what is no number."""
        if self.ws.broken:
            self.abandon()
            raise ModelError("the model computed values that are no numbers: its file may be damaged, or not supported")
        return 0

    cdef _check_dims(self, Dims dims):
        if dims is not self.dims:
            raise ValueError("a layer of other dims")

    cdef _hear_signals(self, ExpertCache cache):
        """While it waits for a disk, a step listens: it may take as long as a person's patience."""
        self.team.poll = NULL
        if cache is not None:
            self.team.poll, self.team.poll_arg = hear_signals, <void *>cache

    cdef _check_cache(self, ExpertCache cache):
        if cache is not None and cache.c.failed:
            self.abandon()
            cache.check()

    cdef _raise_absent(self, Ffn layer):
        absent = layer._absent(self.ws.active, self.ws.n_active)
        self.abandon()
        raise ExpertAbsent(layer.w.layer, absent)

    def step(self, Layers stack not None, *, const int32_t[::1] ids=None, Mat table=None, norm=None, Mat lm_head=None):
        """All layers in one parallel region, first `ids` through the embedding `table` unless x is set.

        With an `lm_head` the step ends, and returns the logits float32 (tokens, vocab) of all rows.
        """
        self._expect(INPUT if table is not None else ATTENTION, self.layer == 0 and stack.n == self.n_layers, "step")
        self._check_dims(stack.dims)
        cdef sw_step s = self._step()
        cdef list owners = []
        cdef run r
        cdef float[:, ::1] out
        r.attn, r.ffn, r.n = stack.attn, stack.ffn, stack.n
        r.table, r.ids, r.lm_head, r.norm, r.logits = NULL, NULL, NULL, NULL, NULL
        if table is not None:
            self._check_ids(table, ids)
            r.table, r.ids = &table.m, &ids[0]
            self.residual = no_delta()
        if lm_head is not None:
            self._check_lm_head(lm_head)
            logits = np.empty((self.n_tokens, lm_head.m.rows), np.float32)
            out = logits
            r.lm_head, r.logits = &lm_head.m, &out[0, 0]
            r.norm = floats(owners, norm, self.dims.d.hidden, "output_norm")
        self._hear_signals(stack.cache)
        with nogil, parallel(num_threads=self.threads):
            run_step(s, threadid(), &r, self.residual)
        if self.ws.absent != NULL:
            self._raise_absent(stack.ffn_of(self.ws.absent))
        self._check_cache(stack.cache)
        self._check_stage()
        self._check_sums()
        if lm_head is not None:
            self._commit()
            return logits
        if stack.n:
            self.residual = after_ffn(stack.ffn[stack.n - 1])
        self.layer, self.next = stack.n, ATTENTION

    cdef _check_lm_head(self, Mat table):
        if table.m.cols != self.dims.d.hidden:
            raise ValueError(f"an LM head of width {table.m.cols}, expected {self.dims.d.hidden}")

    def leave(self, float[:, ::1] out not None):
        """Between two layers: x (tokens, hidden) with what is pending added goes to `out`, and the step is over.

        Keys and values of its layers are stored. Its positions count when a step through the last layer has ended.
        """
        self._expect(ATTENTION, True, "leave")
        if out.shape[0] != self.n_tokens or out.shape[1] != self.dims.d.hidden:
            raise ValueError(f"room for {(out.shape[0], out.shape[1])}, not {(self.n_tokens, self.dims.d.hidden)}")
        self._finish()
        memcpy(&out[0, 0], self.ws.x, <size_t>self.n_tokens * self.dims.d.hidden * sizeof(float))
        self.runs, self.next = (), BEGIN

    cdef _finish(self):
        """x += what is pending."""
        cdef sw_step s = self._step()
        with nogil, parallel(num_threads=self.threads):
            run_finish(s, threadid(), self.residual)

    def hidden(self):
        """End the step: a copy of x (tokens, hidden) with what is pending added, which travels to the next stage."""
        self._expect(ATTENTION, self.layer == self.n_layers, "hidden")
        self._finish()
        self._commit()
        hidden = np.empty((self.n_tokens, self.dims.d.hidden), np.float32)
        cdef float[:, ::1] out = hidden
        memcpy(&out[0, 0], self.ws.x, <size_t>self.n_tokens * self.dims.d.hidden * sizeof(float))
        return hidden

    def states(self):
        """After a step: a copy of x (rows, hidden) as its layers left the rows that were wanted, before any norm."""
        self._expect(BEGIN, True, "states")
        states = np.empty((self.n_tokens, self.dims.d.hidden), np.float32)
        cdef float[:, ::1] out = states
        memcpy(&out[0, 0], self.ws.x, <size_t>self.n_tokens * self.dims.d.hidden * sizeof(float))
        return states

    def lm_head(self, norm, Mat table not None):
        """End the step: the logits float32 (tokens, vocab) of all rows."""
        self._expect(ATTENTION, self.layer == self.n_layers, "lm_head")
        self._check_lm_head(table)
        cdef sw_step s = self._step()
        cdef list owners = []
        cdef const float *w = floats(owners, norm, self.dims.d.hidden, "output_norm")
        cdef float[:, ::1] out = np.empty((self.n_tokens, table.m.rows), np.float32)
        cdef float *logits = &out[0, 0]
        with nogil, parallel(num_threads=self.threads):
            run_lm_head(s, threadid(), w, &table.m, self.residual, logits)
        self._commit()
        return np.asarray(out)

    def end(self):
        """End the step: nothing of it is wanted but the keys and values."""
        self._expect(ATTENTION, self.layer == self.n_layers, "end")
        self._commit()

    cdef _commit(self):
        cdef KvCache kv
        cdef int n
        for kv, n in self.runs:
            kv.filled += n
        self.runs, self.next = (), BEGIN


# What each thread of a team runs, on its own copy of the step.

cdef void run_embed(sw_step s, int thread, const sw_mat *table, const int32_t *ids) noexcept nogil:
    s.thread = thread
    sw_embed(&s, table, ids)


cdef void run_finish(sw_step s, int thread, sw_residual residual) noexcept nogil:
    s.thread = thread
    sw_finish(&s, residual)


cdef void run_attention(sw_step s, int thread, const sw_attn *w, int layer, sw_residual residual) noexcept nogil:
    s.thread = thread
    sw_attention(&s, w, layer, residual)


cdef void run_keys(sw_step s, int thread, const sw_attn *w, int layer, sw_residual residual) noexcept nogil:
    s.thread = thread
    sw_keys(&s, w, layer, residual)


cdef void run_ffn(sw_step s, int thread, const sw_ffn *w, sw_residual residual) noexcept nogil:
    s.thread = thread
    sw_ffn_route(&s, w, residual)
    if s.ws.absent == NULL:
        sw_ffn_experts(&s, w)


cdef void run_lm_head(sw_step s, int thread, const float *norm, const sw_mat *table, sw_residual residual,
                      float *logits) noexcept nogil:
    s.thread = thread
    sw_lm_head(&s, norm, table, residual, logits)


ctypedef struct run:
    sw_attn **attn
    sw_ffn **ffn
    int n
    const sw_mat *table
    const int32_t *ids
    const sw_mat *lm_head
    const float *norm
    float *logits


cdef void run_step(sw_step s, int thread, const run *r, sw_residual residual) noexcept nogil:
    cdef int i
    s.thread = thread
    if r.table != NULL:
        sw_embed(&s, r.table, r.ids)
    for i in range(r.n):
        sw_attention(&s, r.attn[i], i, residual)
        if s.ws.stage != NULL and s.ws.stage.rc:      # this stays, until the step is over
            return
        residual = after_attention(r.attn[i])
        sw_ffn_route(&s, r.ffn[i], residual)
        if s.ws.absent != NULL:      # once set it stays, so a thread that was put aside ends as well, only earlier
            return
        sw_ffn_experts(&s, r.ffn[i])
        if r.ffn[i].cache != NULL and r.ffn[i].cache.failed:      # this stays as well, until the step is over
            return
        if s.ws.stage != NULL and s.ws.stage.rc:
            return
        residual = after_ffn(r.ffn[i])
    if r.lm_head != NULL:
        sw_lm_head(&s, r.norm, r.lm_head, residual, r.logits)
