# Buffers of a step, and what C declares of it.

cdef extern from "layer.h" nogil:
    ctypedef struct sw_team:
        int n_threads
        uint32_t phase
        void (*poll)(void *) noexcept
        void *poll_arg
    ctypedef struct sw_row:
        const sw_kv *kv
        int32_t position
    ctypedef struct sw_tile:
        int32_t token
    ctypedef struct sw_lone:
        int32_t token
    ctypedef struct sw_ws:
        int max_tokens, max_segments, max_partials
        float *x
        float *delta
        float *normed
        int32_t *near
        int64_t *far
        int32_t *wide
        float *unit
        float *factor
        int32_t broken
        int shared
        sw_stage *stage
        float *q
        float *k
        float *v
        float *attn_out
        float *q_low
        float *q_wide
        float *head_out
        float *ffn_mid
        float *router
        const float *cos
        const float *sin
        const float *temper
        sw_act act_hidden, act_attn_out, act_ffn_mid, act_q_low, act_nope, act_head_out
        sw_row *rows
        sw_tile *tiles
        sw_lone *lone
        float *partial_m
        float *partial_l
        float *partial_acc
        int32_t *topk_ids
        float *topk_weights
        int32_t *active
        int32_t *start
        int32_t *pair_token
        float *pair_weight
        int n_active
        const sw_ffn *absent
        uint8_t *scratch
        size_t scratch_bytes
    ctypedef struct sw_residual:
        int has_delta
        const float *post_norm
        const float *bias
        const sw_ffn *experts
    ctypedef struct sw_step:
        const sw_kernels *kernels
        const sw_ops *ops
        sw_team *team
        const sw_dims *dims
        sw_ws *ws
        int n_tokens, thread
        uint32_t phase
        const sw_ways *ways
    int SW_KV_SEGMENT
    void sw_team_init(sw_team *, int)
    size_t sw_scratch_bytes(const sw_dims *, int, int)
    int sw_max_tiles(const sw_dims *, int, int, int)
    void sw_plan_attention(const sw_step *) noexcept
    void sw_attention(sw_step *, const sw_attn *, int, sw_residual) noexcept
    void sw_keys(sw_step *, const sw_attn *, int, sw_residual) noexcept
    void sw_ffn_route(sw_step *, const sw_ffn *, sw_residual) noexcept
    void sw_ffn_experts(sw_step *, const sw_ffn *) noexcept
    void sw_lm_head(sw_step *, const float *, const sw_mat *, sw_residual, float *) noexcept
    void sw_finish(sw_step *, sw_residual) noexcept
    void sw_forget_sums(sw_ws *, int, int) noexcept
    void sw_embed(sw_step *, const sw_mat *, const int32_t *) noexcept


cdef int MORE_PARTIALS = 64  # segments of long contexts, besides those of one session, that a step of several can cut


cdef class Workspace:
    """Buffers for steps of up to `max_tokens` tokens over `segments` segments of positions."""

    cdef sw_ws ws
    cdef dict buffers

    def __init__(self, Dims dims not None, int max_tokens, int segments, int threads, bint keep_float):
        cdef size_t n = max_tokens, h = dims.d.hidden, hd = dims.d.head_dim, k = dims.top_k, n_experts = dims.n_experts
        cdef size_t qw = dims.d.n_heads * hd, kw = dims.d.n_kv_heads * hd, vw = dims.d.n_heads * dims.d.value_dim
        cdef size_t width = (dims.ffn + 63) // 64 * 64, expert = (dims.expert_ffn + 63) // 64 * 64
        cdef size_t ffn_mid = max(n * width, n * (k + 1) * expert)
        self.buffers = {}
        w = &self.ws
        w.max_tokens, w.max_segments, w.max_partials = max_tokens, segments, segments + MORE_PARTIALS
        w.x = <float *>self._buffer("x", n * h * 4)
        w.delta = <float *>self._buffer("delta", n * h * 4)
        w.normed = <float *>self._buffer("normed", n * h * 4)
        w.near = <int32_t *>self._buffer("near", n * h * 8)
        w.far = <int64_t *>self._buffer("far", n * h * 8)
        w.wide = <int32_t *>self._buffer("wide", n * 4)
        w.unit = <float *>self._buffer("unit", n * 4)
        w.factor = <float *>self._buffer("factor", n * 4)
        w.broken, w.shared, w.stage = 0, 0, NULL
        w.q = <float *>self._buffer("q", n * qw * 4)
        w.k = <float *>self._buffer("k", n * kw * 4)
        w.v = <float *>self._buffer("v", n * kw * 4)
        w.attn_out = <float *>self._buffer("attn_out", n * vw * 4)
        w.ffn_mid = <float *>self._buffer("ffn_mid", ffn_mid * 4 if keep_float else 64)
        w.router = <float *>self._buffer("router", n * n_experts * 4 + 64)
        w.act_hidden = self._act("hidden", w.normed, n, h)
        w.act_attn_out = self._act("attn_out", w.attn_out, n, vw)
        w.act_ffn_mid = self._act("ffn_mid", w.ffn_mid, 1, ffn_mid)
        w.rows = <sw_row *>self._buffer("rows", n * sizeof(sw_row))
        w.tiles = <sw_tile *>self._buffer("tiles", sw_max_tiles(&dims.d, n, w.max_partials, threads) * sizeof(sw_tile))
        w.lone = <sw_lone *>self._buffer("lone", n * sizeof(sw_lone))
        w.partial_m = <float *>self._buffer("partial_m", dims.d.n_heads * w.max_partials * 4)
        w.partial_l = <float *>self._buffer("partial_l", dims.d.n_heads * w.max_partials * 4)
        w.partial_acc = <float *>self._buffer("partial_acc", vw * w.max_partials * 4)
        w.topk_ids = <int32_t *>self._buffer("topk_ids", n * k * 4 + 64)
        w.topk_weights = <float *>self._buffer("topk_weights", n * k * 4 + 64)
        w.active = <int32_t *>self._buffer("active", n_experts * 4 + 64)
        w.start = <int32_t *>self._buffer("start", n_experts * 4 + 64)
        w.pair_token = <int32_t *>self._buffer("pair_token", n * k * 4 + 64)
        w.pair_weight = <float *>self._buffer("pair_weight", n * k * 4 + 64)
        if dims.d.latent:
            self._latent(dims, n)
        w.scratch_bytes = sw_scratch_bytes(&dims.d, h, segments)
        w.scratch = <uint8_t *>self._buffer("scratch", w.scratch_bytes * threads)

    cdef _latent(self, Dims dims, size_t n):
        cdef size_t heads = dims.d.n_heads, nope = dims.d.nope, wide = heads * (nope + 2 * dims.d.rope_half)
        cdef size_t rank = dims.q_rank, out = heads * dims.head_out
        w = &self.ws
        w.q_low = <float *>self._buffer("q_low", n * rank * 4)
        w.q_wide = <float *>self._buffer("q_wide", n * wide * 4)
        w.head_out = <float *>self._buffer("head_out", n * out * 4)
        w.act_q_low = self._act("q_low", w.q_low, n, rank)
        w.act_nope = self._act("nope", w.q_wide, n, heads * ((nope + 63) // 64 * 64))
        w.act_nope.f_stride = wide
        w.act_head_out = self._act("head_out", w.head_out, n, out)

    cdef void *_buffer(self, str name, size_t n_bytes) except NULL:
        """A buffer of zeros that starts on a cache line and is not read past its end by any kernel."""
        cdef uint8_t[::1] b = np.zeros(n_bytes + 128, np.uint8)
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
