/* Runs two small layers, dense and a mixture of experts, over every kernel set usable here (or ONLY alone) and prints
 * "set 0 case hash" of the residual stream: a prefill, then single tokens, with each kind of KV cache. Equal hashes
 * mean that a whole layer, norms, rotation, attention and routing included, has the same bits on both processors.
 * TEAM threads work on each step, and go through the layer ROUNDS times in it: for sanitizers. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "layer.h"

enum { HIDDEN = 64, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 32, FFN = 96, EXPERTS = 6, TOP_K = 2 };
enum { TOKENS = 70, CONTEXT = 128 };
#ifndef TEAM
#define TEAM 1
#define ROUNDS 1
#endif

static uint64_t state = 7;

static uint32_t next(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 33);
}

static float noise(float scale) { return scale * ((float)(next() & 0xffff) / 32768.0f - 1.0f); }

static void *buffer(size_t n) {
  void *p = aligned_alloc(64, (n + 191) / 64 * 64);
  if (!p) exit(2);
  memset(p, 0, (n + 191) / 64 * 64);
  return p;
}

static float *floats(int n, float about, float scale) {
  float *p = buffer((size_t)n * 4);
  for (int i = 0; i < n; i++) p[i] = about + noise(scale);
  return p;
}

/* Random blocks with one small scale for all, packed. */
static sw_mat matrix(int type, int rows, int cols) {
  const int blocks = rows * cols / sw_type_block(type), bytes = (int)sw_type_bytes(type);
  uint8_t *raw = buffer((size_t)blocks * bytes);
  for (int i = 0; i < blocks * bytes; i++) raw[i] = (uint8_t)next();
  for (int b = 0; b < blocks && type != SW_F32; b++) memcpy(raw + b * bytes, "\x66\x24", 2);      /* 0.0172 */
  for (int i = 0; i < rows * cols && type == SW_F32; i++) ((float *)raw)[i] = noise(0.15f);
  sw_mat m = {NULL, type, rows, cols, cols, 0, 0};
  uint8_t *packed = buffer(sw_packed_bytes(type, rows, cols, cols));
  sw_pack(&m, packed, raw, 0, rows, NULL);
  m.data = packed;
  return m;
}

static sw_act act(const float *f, int rows, int cols) {
  sw_act a = {.f = f, .f_stride = cols, .n_tokens = rows, .cols = cols, .q_stride = (cols + 63) / 64 * 64};
  a.s_stride = a.q_stride / 32;
  a.q = buffer((size_t)rows * a.q_stride);
  a.scale = buffer((size_t)rows * a.s_stride * 4);
  a.sum = buffer((size_t)rows * a.s_stride * 4);
  return a;
}

static sw_ws workspace(const sw_dims *d) {
  const int qw = HEADS * HEAD_DIM, kw = KV_HEADS * HEAD_DIM, pairs = TOKENS * (TOP_K + 1), rope = TOKENS * d->rope_half;
  sw_ws w = {.max_tokens = TOKENS, .max_segments = 1, .max_partials = 1};
  w.x = buffer(TOKENS * HIDDEN * 4); w.delta = buffer(TOKENS * HIDDEN * 4); w.normed = buffer(TOKENS * HIDDEN * 4);
  w.near = buffer(TOKENS * HIDDEN * 8); w.far = buffer(TOKENS * HIDDEN * 8);
  w.wide = buffer(TOKENS * 4); w.unit = buffer(TOKENS * 4); w.factor = buffer(TOKENS * 4);
  w.q = buffer((size_t)TOKENS * qw * 4); w.k = buffer((size_t)TOKENS * kw * 4); w.v = buffer((size_t)TOKENS * kw * 4);
  w.attn_out = buffer((size_t)TOKENS * qw * 4); w.ffn_mid = buffer((size_t)pairs * FFN * 4);
  w.router = buffer(TOKENS * EXPERTS * 4);
  w.cos = floats(rope, 0.5f, 0.4f); w.sin = floats(rope, 0.5f, 0.4f);
  w.act_hidden = act(w.normed, TOKENS, HIDDEN); w.act_attn_out = act(w.attn_out, TOKENS, qw);
  w.act_ffn_mid = act(w.ffn_mid, pairs, 128);
  w.rows = buffer(TOKENS * sizeof(sw_row));
  w.tiles = buffer(sw_max_tiles(d, TOKENS, 1, TEAM) * sizeof(sw_tile)); w.lone = buffer(TOKENS * sizeof(sw_lone));
  w.partial_m = buffer(HEADS * 4); w.partial_l = buffer(HEADS * 4); w.partial_acc = buffer((size_t)qw * 4);
  w.topk_ids = buffer(TOKENS * TOP_K * 4); w.topk_weights = buffer(TOKENS * TOP_K * 4);
  w.active = buffer(EXPERTS * 4); w.start = buffer((EXPERTS + 1) * 4);
  w.pair_token = buffer(TOKENS * TOP_K * 4); w.pair_weight = buffer(TOKENS * TOP_K * 4);
  w.scratch_bytes = sw_scratch_bytes(d, HIDDEN, 1);
  w.scratch = buffer(w.scratch_bytes * TEAM);
  return w;
}

static sw_kv cache(int kind) {
  const size_t n = (size_t)KV_HEADS * CONTEXT * HEAD_DIM;
  sw_kv kv = {buffer(n * 4), buffer(n * 4), buffer(n), buffer(n), kind, CONTEXT, KV_HEADS, HEAD_DIM, HEAD_DIM};
  return kv;
}

static sw_attn attention(int type) {
  const int qw = HEADS * HEAD_DIM, kw = KV_HEADS * HEAD_DIM;
  sw_attn a = {.norm = floats(HIDDEN, 1, 0.2f), .post_norm = floats(HIDDEN, 1, 0.2f), .q = matrix(type, qw, HIDDEN),
               .k = matrix(type, kw, HIDDEN), .v = matrix(type, kw, HIDDEN), .o = matrix(type, HIDDEN, qw),
               .q_bias = floats(qw, 0, 0.3f), .k_bias = floats(kw, 0, 0.3f), .v_bias = floats(kw, 0, 0.3f),
               .q_norm = floats(HEAD_DIM, 1, 0.2f), .k_norm = floats(HEAD_DIM, 1, 0.2f)};
  return a;
}

static sw_ffn feed_forward(int type, int mixture) {
  sw_ffn f = {.norm = floats(HIDDEN, 1, 0.2f), .gate = matrix(type, FFN, HIDDEN), .up = matrix(type, FFN, HIDDEN),
              .down = matrix(type, HIDDEN, FFN)};
  if (!mixture) return f;
  f.n_experts = EXPERTS; f.top_k = TOP_K; f.n_group = 3; f.top_group = 2;
  f.sigmoid = 1; f.normalise = 1; f.scale = 2.5f;
  f.router = matrix(SW_F32, EXPERTS, HIDDEN);
  f.router_bias = floats(EXPERTS, 0, 0.3f);
  f.gate_data = buffer(3 * EXPERTS * sizeof(void *));
  f.up_data = f.gate_data + EXPERTS;
  f.down_data = f.up_data + EXPERTS;
  for (int e = 0; e < EXPERTS; e++) {
    f.expert_gate = matrix(type, FFN, HIDDEN); f.expert_up = matrix(type, FFN, HIDDEN);
    f.expert_down = matrix(type, HIDDEN, FFN);
    f.gate_data[e] = f.expert_gate.data; f.up_data[e] = f.expert_up.data; f.down_data[e] = f.expert_down.data;
  }
  return f;
}

static uint64_t hash(uint64_t h, const void *data, size_t n) {
  const uint8_t *p = data;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
  return h;
}

typedef struct {
  sw_step step;
  const sw_attn *a;
  const sw_ffn *f;
} share;

/* What one thread does of a step. */
static void *work(void *arg) {
  const share *mine = arg;
  sw_step s = mine->step;
  sw_residual before = {0};
  for (int i = 0; i < ROUNDS; i++) {
    sw_attention(&s, mine->a, 0, before);
    sw_ffn_route(&s, mine->f, (sw_residual){.has_delta = 1, .post_norm = mine->a->post_norm});
    sw_ffn_experts(&s, mine->f);
    before = (sw_residual){.has_delta = 1, .post_norm = mine->f->post_norm};
  }
  sw_finish(&s, before);
  return NULL;
}

static void work_together(sw_step *s, const sw_attn *a, const sw_ffn *f) {
  share shares[TEAM];
  pthread_t threads[TEAM];
  s->phase = s->team->phase;
  for (int i = 0; i < TEAM; i++) {
    shares[i] = (share){*s, a, f};
    shares[i].step.thread = i;
    if (i && pthread_create(&threads[i], NULL, work, &shares[i])) exit(2);
  }
  work(&shares[0]);
  for (int i = 1; i < TEAM; i++) pthread_join(threads[i], NULL);
}

static uint64_t run(const sw_kernels *kernels, const sw_ops *ops, int type, int mixture, int kind, int pair) {
  state = 7;
  const sw_dims dims = {HIDDEN, HEADS, KV_HEADS, HEAD_DIM, HEAD_DIM / 4, pair,
                        HEAD_DIM, 0, 0, 1e-5f, 0.17677669f, 1.0f, 1.0f};
  sw_ws ws = workspace(&dims);
  const sw_attn a = attention(type);
  const sw_ffn f = feed_forward(type, mixture);
  const sw_kv kv = cache(kind);
  sw_team team;
  sw_team_init(&team, TEAM);
  sw_ways ways;
  sw_usual_ways(&ways, kernels, 0);
  sw_step s = {kernels, ops, &team, &dims, &ws, TOKENS, 0, 0, &ways};
  uint64_t h = 14695981039346656037u;
  for (int step = 0, position = 0; step < 4; step++) {
    for (int t = 0; t < s.n_tokens; t++) ws.rows[t] = (sw_row){&kv, position++};
    sw_plan_attention(&s);
    for (int i = 0; i < s.n_tokens * HIDDEN; i++) ws.x[i] = noise(1.0f);
    work_together(&s, &a, &f);
    h = hash(h, ws.x, (size_t)s.n_tokens * HIDDEN * 4);
    s.n_tokens = 1;
  }
  return h;
}

static void report(const char *name, const sw_kernels *kernels, const sw_ops *ops) {
  static const int types[] = {SW_F32, SW_Q4_0, SW_Q8_0};
  for (int t = 0; t < 3; t++)
    for (int mixture = 0; mixture < 2; mixture++)
      for (int kind = 0; kind < 3; kind++)
        printf("%s %d %s-kv%d %016llx\n", name, types[t], mixture ? "moe" : "dense", kind,
               (unsigned long long)run(kernels, ops, types[t], mixture, kind, (mixture + kind) % 2));
}

#ifdef ONLY_OPS
extern const sw_kernels ONLY;
extern const sw_ops ONLY_OPS;
int main(void) {
  report(ONLY.name, &ONLY, &ONLY_OPS);
  return 0;
}
#else
int main(void) {
  const char *names[16];
  const int n = sw_kernels_list(names, 16);
  for (int i = 0; i < n; i++) report(names[i], sw_kernels_by_name(names[i]), sw_ops_for(names[i]));
  return 0;
}
#endif
