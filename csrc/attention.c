/* The attention half of a layer. */
#include <string.h>
#include "team.h"

static void quantize_row(sw_step *s, sw_act *a, int token, const float *row, int first_col, int n) {
  s->kernels->quantize(row, n, a->q + token * a->q_stride + first_col, a->scale + token * a->s_stride + first_col / 32,
                       a->sum + 2 * (token * a->s_stride + first_col / 32));
}

/* x += delta, where there is one; normed = rmsnorm(x); quantise it. */
void sw_add_norm(sw_step *s, const float *norm, sw_residual residual) {
  const int h = s->dims->hidden;
  sw_ws *ws = s->ws;
  SW_SHARE(s, t, s->n_tokens) {
    float *x = ws->x + (size_t)t * h, *d = ws->delta + (size_t)t * h, *n = ws->normed + (size_t)t * h;
    if (residual.has_delta) {
      if (residual.post_norm) s->ops->rmsnorm(d, residual.post_norm, s->dims->eps, h, d);
      s->ops->add(x, d, h);
    }
    if (norm) {
      s->ops->rmsnorm(x, norm, s->dims->eps, h, n);
      quantize_row(s, &ws->act_hidden, t, n, 0, h);
    }
  }
  sw_join(s);
}

/* Item i of a matrix's panels, for all tokens. */
static void matmul_item(sw_step *s, const sw_mat *w, const sw_act *a, const sw_split *p, int i, float *y,
                        ptrdiff_t stride) {
  const sw_range r = sw_item_panels(p, i, w);
  s->kernels->matmul[w->type](w, a, 0, s->n_tokens, r.from, r.to, y, stride);
}

enum { QUERIES, KEYS, VALUES };

/* The projections from `first` on. */
static void project_qkv(sw_step *s, const sw_attn *w, int first) {
  const sw_mat *m[3] = {&w->q, &w->k, &w->v};
  float *out[3] = {s->ws->q, s->ws->k, s->ws->v};
  sw_split p[3];
  int n = 0;
  for (int i = first; i < 3; i++) n += (p[i] = sw_split_panels(s, s->n_tokens, m[i])).n;
  SW_SHARE(s, i, n) {
    int which = first, j = i;
    while (j >= p[which].n) j -= p[which++].n;
    matmul_item(s, m[which], &s->ws->act_hidden, &p[which], j, out[which], m[which]->rows);
  }
  sw_join(s);
}

static void finish_head(sw_step *s, float *x, int head, int token, const float *bias, const float *norm, int rotated) {
  const sw_dims *d = s->dims;
  if (bias) s->ops->add(x, bias + head * d->head_dim, d->head_dim);
  if (norm) s->ops->rmsnorm(x, norm, d->eps, d->head_dim, x);
  if (!rotated) return;
  s->ops->rope(x, s->ws->cos + (size_t)token * d->rope_half, s->ws->sin + (size_t)token * d->rope_half, d->rope_half,
               d->rope_pair);
}

/* Bias, norm and rotation of one token's key head and, from QUERIES on, of the query heads that read it; key and value
 * are stored. */
static void rotate_and_store(sw_step *s, const sw_attn *w, int layer, int from) {
  const sw_dims *d = s->dims;
  const int hd = d->head_dim, group = d->n_heads / d->n_kv_heads;
  SW_SHARE(s, i, s->n_tokens * d->n_kv_heads) {
    const int t = i / d->n_kv_heads, h = i % d->n_kv_heads;
    const sw_kv *kv = s->ws->rows[t].kv + layer;
    float *k = s->ws->k + ((size_t)t * d->n_kv_heads + h) * hd, *v = s->ws->v + ((size_t)t * d->n_kv_heads + h) * hd;
    finish_head(s, k, h, t, w->k_bias, w->k_norm, w->rotated);
    if (w->v_bias) s->ops->add(v, w->v_bias + h * hd, hd);
    if (kv->kind == SW_KV_Q8_0) {
      s->ops->hadamard(k, hd);
      s->ops->hadamard(v, hd);
    }
    s->ops->kv_store(kv, h, s->ws->rows[t].position, k, v);
    for (int j = h * group; from == QUERIES && j < (h + 1) * group; j++) {
      float *q = s->ws->q + ((size_t)t * d->n_heads + j) * hd;
      finish_head(s, q, j, t, w->q_bias, w->q_norm, w->rotated);
      for (int e = 0; e < hd; e++) q[e] *= d->q_scale;
      if (kv->kind == SW_KV_Q8_0) s->ops->hadamard(q, hd);
    }
  }
  sw_join(s);
}

static void emit_head(sw_step *s, const sw_kv *kv, int token, int head, const float *m, const float *l,
                      const float *acc, ptrdiff_t m_stride, ptrdiff_t acc_stride, int n_segments) {
  const int hd = s->dims->head_dim, column = head * hd;
  float *out = s->ws->attn_out + (size_t)token * s->dims->n_heads * hd + column;
  s->ops->merge(m, l, acc, m_stride, acc_stride, n_segments, hd, out);
  if (kv->kind == SW_KV_Q8_0) s->ops->hadamard(out, hd);
  if (hd % SW_BLOCK == 0) quantize_row(s, &s->ws->act_attn_out, token, out, column, hd);
}

/* Heads that are not whole blocks can only be quantised once their neighbours are there. */
static void quantize_attn_out(sw_step *s) {
  const int width = s->dims->n_heads * s->dims->head_dim;
  SW_SHARE(s, t, s->n_tokens) quantize_row(s, &s->ws->act_attn_out, t, s->ws->attn_out + (size_t)t * width, 0, width);
  sw_join(s);
}

typedef struct {
  float *q, *m, *l, *acc, *attend;
  int32_t *limit;
} tile_scratch;

static tile_scratch split_scratch(sw_step *s) {
  const int hd = s->dims->head_dim, segments = s->ws->max_segments;
  tile_scratch t;
  t.q = (float *)(s->ws->scratch + (size_t)s->thread * s->ws->scratch_bytes);
  t.attend = t.q + SW_TILE_ROWS * hd;
  t.m = t.attend + sw_attn_scratch(hd);
  t.l = t.m + SW_TILE_ROWS * segments;
  t.acc = t.l + SW_TILE_ROWS * segments;
  t.limit = (int32_t *)(t.acc + (size_t)SW_TILE_ROWS * segments * hd);
  return t;
}

static int segments_of(int end) { return (end + SW_KV_SEGMENT - 1) / SW_KV_SEGMENT; }

/* How many tokens from t on follow each other in one KV cache. */
static int run_length(const sw_row *rows, int t, int n_tokens) {
  int n = 1;
  while (t + n < n_tokens && rows[t + n].kv == rows[t].kv && rows[t + n].position == rows[t].position + n) n++;
  return n;
}

/* Tiles of n tokens that follow each other, the longest first; each over all its positions. */
static void cut_run(sw_ws *ws, int group, int token, int n) {
  const int total = n * group;
  for (int first = (total - 1) / SW_TILE_ROWS * SW_TILE_ROWS; first >= 0; first -= SW_TILE_ROWS) {
    const int rows = sw_min(SW_TILE_ROWS, total - first), last = token + (first + rows - 1) / group;
    ws->tiles[ws->n_tiles++] = (sw_tile){token, first, rows, 0, ws->rows[last].position + 1, -1};
  }
}

/* A tile for some heads of a group, over each of its segments or over all positions at once. */
static void cut_lone(sw_ws *ws, int group, int rows, sw_lone lone) {
  const int end = ws->rows[lone.token].position + 1, is_cut = lone.partial >= 0,
            segments = is_cut ? segments_of(end) : 1;
  for (int first = 0; first < group; first += rows)
    for (int g = 0; g < segments; g++) {
      const int n = sw_min(rows, group - first), last = g + 1 == segments ? end : (g + 1) * SW_KV_SEGMENT;
      const int partial = is_cut ? lone.partial + g : -1;
      ws->tiles[ws->n_tiles++] = (sw_tile){lone.token, first, n, g * SW_KV_SEGMENT, last, partial};
    }
}

/* Tokens that stand alone are cut by segment, so that long contexts use every thread, while there is room for partial
 * results. */
void sw_plan_attention(const sw_step *s) {
  const sw_dims *d = s->dims;
  sw_ws *ws = s->ws;
  const int group = d->n_heads / d->n_kv_heads;
  ws->n_tiles = ws->n_lone = ws->n_partials = 0;
  int units = 0;
  for (int t = 0, n; t < s->n_tokens; t += n) {
    n = run_length(ws->rows, t, s->n_tokens);
    if (n > 1) {
      cut_run(ws, group, t, n);
      continue;
    }
    const int segments = segments_of(ws->rows[t].position + 1),
              is_cut = segments > 1 && ws->n_partials + segments <= ws->max_partials;
    ws->lone[ws->n_lone++] = (sw_lone){t, is_cut ? ws->n_partials : -1};
    if (is_cut) ws->n_partials += segments;
    units += is_cut ? segments : 1;
  }
  int rows = sw_min(group, SW_TILE_ROWS);
  while (rows > 4 && d->n_kv_heads * (ws->n_tiles + units * ((group + rows - 1) / rows)) < 2 * s->team->n_threads)
    rows = (rows + 1) / 2;
  for (int i = 0; i < ws->n_lone; i++) cut_lone(ws, group, rows, ws->lone[i]);
}

/* Runs: one tile for 32 rows and a started one for each. Lone tokens: those of a group for each segment; or, when rows
 * are halved because there are too few for the threads, twice as many as that. */
int sw_max_tiles(const sw_dims *d, int max_tokens, int max_partials, int n_threads) {
  const int group_tiles = (d->n_heads / d->n_kv_heads) / SW_TILE_ROWS + 2;
  return (2 * max_tokens + max_partials) * group_tiles + 4 * n_threads;
}

static void gather_rows(sw_step *s, tile_scratch *t, const sw_tile *tile, int h) {
  const sw_dims *d = s->dims;
  const int group = d->n_heads / d->n_kv_heads;
  for (int r = 0; r < tile->rows; r++) {
    const int token = tile->token + (tile->first + r) / group, head = h * group + (tile->first + r) % group;
    memcpy(t->q + r * d->head_dim, s->ws->q + ((size_t)token * d->n_heads + head) * d->head_dim,
           d->head_dim * sizeof(float));
    t->limit[r] = s->ws->rows[token].position + 1;
  }
}

/* One segment of a lone token's heads. */
static void attend_partial(sw_step *s, tile_scratch *t, const sw_tile *tile, const sw_kv *kv, int h) {
  const sw_dims *d = s->dims;
  const size_t at = (size_t)tile->partial * d->n_heads + h * (d->n_heads / d->n_kv_heads) + tile->first;
  s->ops->attend(kv, h, t->q, t->limit, tile->rows, tile->begin, tile->end, s->ws->partial_m + at,
                 s->ws->partial_l + at, s->ws->partial_acc + at * d->head_dim, t->attend);
}

/* Segment by segment, then the result of each row, of the segments that it sees. */
static void attend_whole(sw_step *s, tile_scratch *t, const sw_tile *tile, const sw_kv *kv, int h) {
  const sw_dims *d = s->dims;
  const int hd = d->head_dim, group = d->n_heads / d->n_kv_heads, segments = segments_of(tile->end);
  for (int g = 0; g < segments; g++)
    s->ops->attend(kv, h, t->q, t->limit, tile->rows, g * SW_KV_SEGMENT, sw_min(tile->end, (g + 1) * SW_KV_SEGMENT),
                   t->m + g * SW_TILE_ROWS, t->l + g * SW_TILE_ROWS, t->acc + (size_t)g * SW_TILE_ROWS * hd, t->attend);
  for (int r = 0; r < tile->rows; r++)
    emit_head(s, kv, tile->token + (tile->first + r) / group, h * group + (tile->first + r) % group, t->m + r, t->l + r,
              t->acc + (size_t)r * hd, SW_TILE_ROWS, (ptrdiff_t)SW_TILE_ROWS * hd, segments_of(t->limit[r]));
}

static void attend(sw_step *s, int layer) {
  const sw_dims *d = s->dims;
  const sw_ws *ws = s->ws;
  tile_scratch t = split_scratch(s);
  /* Runs: the longest tiles of all heads first. Lone tokens wait for memory: a head's segments follow each other. */
  const int is_lone = ws->n_lone == s->n_tokens;
  SW_SHARE(s, i, ws->n_tiles * d->n_kv_heads) {
    const int h = is_lone ? i / ws->n_tiles : i % d->n_kv_heads;
    const sw_tile *tile = &ws->tiles[is_lone ? i % ws->n_tiles : i / d->n_kv_heads];
    const sw_kv *kv = ws->rows[tile->token].kv + layer;
    gather_rows(s, &t, tile, h);
    if (tile->partial < 0) attend_whole(s, &t, tile, kv, h);
    else attend_partial(s, &t, tile, kv, h);
  }
  sw_join(s);
  if (!ws->n_partials) return;
  SW_SHARE(s, i, ws->n_lone * d->n_heads) {
    const sw_lone *lone = &ws->lone[i / d->n_heads];
    const sw_row *row = &ws->rows[lone->token];
    const size_t at = (size_t)lone->partial * d->n_heads + i % d->n_heads;
    if (lone->partial >= 0)
      emit_head(s, row->kv + layer, lone->token, i % d->n_heads, ws->partial_m + at, ws->partial_l + at,
                ws->partial_acc + at * d->head_dim, d->n_heads, (ptrdiff_t)d->n_heads * d->head_dim,
                segments_of(row->position + 1));
  }
  sw_join(s);
}

/* delta = W_o attn_out */
static void project_out(sw_step *s, const sw_attn *w) {
  const sw_split p = sw_split_panels(s, s->n_tokens, &w->o);
  SW_SHARE(s, i, p.n) matmul_item(s, &w->o, &s->ws->act_attn_out, &p, i, s->ws->delta, s->dims->hidden);
  sw_join(s);
}

size_t sw_scratch_bytes(const sw_dims *d, int max_cols, int max_segments) {
  const size_t attend = SW_TILE_ROWS * d->head_dim + sw_attn_scratch(d->head_dim) +
                        (size_t)SW_TILE_ROWS * max_segments * (d->head_dim + 2) + SW_TILE_ROWS;
  const size_t cols = (max_cols + 63) / 64 * 64;
  const size_t ffn = 3 * SW_FFN_TOKENS * SW_FFN_COLS + SW_FFN_TOKENS * cols +
                     SW_FFN_TOKENS * (cols / 4 + cols / 32 + cols / 32 + 64);
  const size_t batch = (size_t)SW_FFN_TOKENS * SW_BATCH_UNITS * SW_UNIT_PANELS * SW_PANEL,
               one = (d->hidden + 63) / 64 * 64;
  const size_t down = batch > one ? batch : one;
  size_t floats = attend > ffn + down ? attend : ffn + down;
  return (floats * sizeof(float) + 4095) / 4096 * 4096;
}

void sw_attention(sw_step *s, const sw_attn *w, int layer, sw_residual residual) {
  sw_add_norm(s, w->norm, residual);
  project_qkv(s, w, QUERIES);
  rotate_and_store(s, w, layer, QUERIES);
  attend(s, layer);
  if (s->dims->head_dim % SW_BLOCK) quantize_attn_out(s);
  project_out(s, w);
}

void sw_keys(sw_step *s, const sw_attn *w, int layer, sw_residual residual) {
  sw_add_norm(s, w->norm, residual);
  project_qkv(s, w, KEYS);
  rotate_and_store(s, w, layer, KEYS);
}
