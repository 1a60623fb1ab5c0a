/* The attention half of a layer. */
#include <string.h>
#include "team.h"

static void quantize_row(sw_step *s, sw_act *a, int token, const float *row, int first_col, int n) {
  s->kernels->quantize(row, n, a->q + token * a->q_stride + first_col, a->scale + token * a->s_stride + first_col / 32,
                       a->sum + 2 * (token * a->s_stride + first_col / 32));
}

/* x += what is pending; normed = rmsnorm(x); quantise it. */
void sw_fold_norm(sw_step *s, const float *norm, sw_fold fold, int first) {
  const int h = s->dims->hidden;
  sw_ws *ws = s->ws;
  SW_SHARE(s, t, s->n_tokens) {
    float *x = ws->x + (size_t)t * h, *d = ws->delta + (size_t)t * h, *n = ws->normed + (size_t)t * h;
    if (fold.pending) {
      if (fold.norm) s->ops->rmsnorm(d, fold.norm, s->dims->eps, h, d);
      s->ops->add(x, d, h);
    }
    if (norm && t >= first) {
      s->ops->rmsnorm(x, norm, s->dims->eps, h, n);
      quantize_row(s, &ws->act_hidden, t, n, 0, h);
    }
  }
  sw_join(s);
}

/* Item i of a matrix's panels, for all tokens. */
static sw_range matmul_item(sw_step *s, const sw_mat *w, const sw_act *a, const sw_split *p, int i, float *y, ptrdiff_t stride) {
  const sw_range r = sw_item_panels(p, i, w);
  s->kernels->matmul[w->type](w, a, 0, s->n_tokens, r.from, r.to, y, stride);
  return r;
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

static void finish_head(sw_step *s, float *x, int head, int token, const float *bias, const float *norm) {
  const sw_dims *d = s->dims;
  if (bias) s->ops->add(x, bias + head * d->head_dim, d->head_dim);
  if (norm) s->ops->rmsnorm(x, norm, d->eps, d->head_dim, x);
  s->ops->rope(x, s->ws->cos + (size_t)token * d->rope_half, s->ws->sin + (size_t)token * d->rope_half, d->rope_half, d->rope_pair);
}

/* Bias, norm and rotation of one token's key head and, from QUERIES on, of the query heads that read it; store key and value. */
static void rotate_and_store(sw_step *s, const sw_attn *w, const sw_kv *kv, int from) {
  const sw_dims *d = s->dims;
  const int hd = d->head_dim, group = d->n_heads / d->n_kv_heads;
  SW_SHARE(s, i, s->n_tokens * d->n_kv_heads) {
    const int t = i / d->n_kv_heads, h = i % d->n_kv_heads;
    float *k = s->ws->k + ((size_t)t * d->n_kv_heads + h) * hd, *v = s->ws->v + ((size_t)t * d->n_kv_heads + h) * hd;
    finish_head(s, k, h, t, w->k_bias, w->k_norm);
    if (w->v_bias) s->ops->add(v, w->v_bias + h * hd, hd);
    if (kv->kind == SW_KV_Q8_0) {
      s->ops->spread(k, hd);
      s->ops->spread(v, hd);
    }
    s->ops->kv_store(kv, h, s->position + t, k, v);
    for (int j = h * group; from == QUERIES && j < (h + 1) * group; j++) {
      float *q = s->ws->q + ((size_t)t * d->n_heads + j) * hd;
      finish_head(s, q, j, t, w->q_bias, w->q_norm);
      for (int e = 0; e < hd; e++) q[e] *= d->q_scale;
      if (kv->kind == SW_KV_Q8_0) s->ops->spread(q, hd);
    }
  }
  sw_join(s);
}

static void emit_head(sw_step *s, const sw_kv *kv, int token, int head, const float *m, const float *l, const float *acc,
                      ptrdiff_t m_stride, ptrdiff_t acc_stride, int n_segments) {
  const int hd = s->dims->head_dim, column = head * hd;
  float *out = s->ws->mixed + (size_t)token * s->dims->n_heads * hd + column;
  s->ops->merge(m, l, acc, m_stride, acc_stride, n_segments, hd, out);
  if (kv->kind == SW_KV_Q8_0) s->ops->spread(out, hd);
  if (hd % SW_BLOCK == 0) quantize_row(s, &s->ws->act_mixed, token, out, column, hd);
}

/* Heads that are not whole blocks can only be quantised once their neighbours are there. */
static void quantize_mixed(sw_step *s) {
  const int width = s->dims->n_heads * s->dims->head_dim;
  SW_SHARE(s, t, s->n_tokens) quantize_row(s, &s->ws->act_mixed, t, s->ws->mixed + (size_t)t * width, 0, width);
  sw_join(s);
}

typedef struct { float *q, *m, *l, *acc, *attend; int32_t *limit; } tile_scratch;

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

/* Query rows [first, first + rows) of kv head h; row r is token r / group, query head h * group + r % group. */
static void gather_rows(sw_step *s, tile_scratch *t, int h, int first, int rows) {
  const sw_dims *d = s->dims;
  const int group = d->n_heads / d->n_kv_heads;
  for (int r = 0; r < rows; r++) {
    const int token = (first + r) / group, head = h * group + (first + r) % group;
    memcpy(t->q + r * d->head_dim, s->ws->q + ((size_t)token * d->n_heads + head) * d->head_dim, d->head_dim * sizeof(float));
    t->limit[r] = s->position + token + 1;
  }
}

/* Many tokens: an item is a tile of rows of one kv head over all its positions. */
static void attend_tiles(sw_step *s, const sw_kv *kv) {
  const sw_dims *d = s->dims;
  const int hd = d->head_dim, group = d->n_heads / d->n_kv_heads, total = s->n_tokens * group;
  const int tiles = (total + SW_TILE_ROWS - 1) / SW_TILE_ROWS;
  tile_scratch t = split_scratch(s);
  SW_SHARE(s, i, tiles * d->n_kv_heads) {
    const int tile = tiles - 1 - i / d->n_kv_heads, h = i % d->n_kv_heads;      /* the longest tiles first */
    const int first = tile * SW_TILE_ROWS, rows = sw_min(SW_TILE_ROWS, total - first);
    gather_rows(s, &t, h, first, rows);
    const int end = t.limit[rows - 1], segments = (end + SW_KV_SEGMENT - 1) / SW_KV_SEGMENT;
    for (int g = 0; g < segments; g++)
      s->ops->attend(kv, h, t.q, t.limit, rows, g * SW_KV_SEGMENT, sw_min(end, (g + 1) * SW_KV_SEGMENT), t.m + g * SW_TILE_ROWS,
                     t.l + g * SW_TILE_ROWS, t.acc + (size_t)g * SW_TILE_ROWS * hd, t.attend);
    for (int r = 0; r < rows; r++) {
      const int own = (t.limit[r] + SW_KV_SEGMENT - 1) / SW_KV_SEGMENT;
      emit_head(s, kv, (first + r) / group, h * group + (first + r) % group, t.m + r, t.l + r, t.acc + (size_t)r * hd, SW_TILE_ROWS,
                (ptrdiff_t)SW_TILE_ROWS * hd, own);
    }
  }
  sw_join(s);
}

/* One token: an item is some heads of one kv head over one segment, so that long contexts use every thread. */
static void attend_segments(sw_step *s, const sw_kv *kv) {
  const sw_dims *d = s->dims;
  const int hd = d->head_dim, group = d->n_heads / d->n_kv_heads, end = s->position + 1;
  const int segments = (end + SW_KV_SEGMENT - 1) / SW_KV_SEGMENT;
  int rows = sw_min(group, SW_TILE_ROWS);
  while (rows > 4 && d->n_kv_heads * segments * ((group + rows - 1) / rows) < 2 * s->team->n_threads) rows = (rows + 1) / 2;
  const int tiles = (group + rows - 1) / rows;
  tile_scratch t = split_scratch(s);
  SW_SHARE(s, i, d->n_kv_heads * tiles * segments) {
    const int g = i % segments, tile = i / segments % tiles, h = i / segments / tiles;
    const int n = sw_min(rows, group - tile * rows), head = h * group + tile * rows;
    gather_rows(s, &t, h, tile * rows, n);
    s->ops->attend(kv, h, t.q, t.limit, n, g * SW_KV_SEGMENT, sw_min(end, (g + 1) * SW_KV_SEGMENT), t.m, t.l, t.acc, t.attend);
    for (int r = 0; r < n; r++) {
      const size_t at = (size_t)(head + r) * s->ws->max_segments + g;
      s->ws->part_m[at] = t.m[r];
      s->ws->part_l[at] = t.l[r];
      memcpy(s->ws->part_acc + at * hd, t.acc + (size_t)r * hd, hd * sizeof(float));
    }
  }
  sw_join(s);
  SW_SHARE(s, head, d->n_heads) {
    const size_t at = (size_t)head * s->ws->max_segments;
    emit_head(s, kv, 0, head, s->ws->part_m + at, s->ws->part_l + at, s->ws->part_acc + at * hd, 1, hd, segments);
  }
  sw_join(s);
}

/* delta = W_o mixed (+ bias) */
static void project_out(sw_step *s, const sw_attn *w) {
  const sw_split p = sw_split_panels(s, s->n_tokens, &w->o);
  const int h = s->dims->hidden;
  SW_SHARE(s, i, p.n) {
    const sw_range r = matmul_item(s, &w->o, &s->ws->act_mixed, &p, i, s->ws->delta, h);
    const int r0 = r.from * SW_PANEL, n = sw_min(r.to * SW_PANEL, h) - r0;
    for (int t = 0; w->o_bias && t < s->n_tokens; t++) s->ops->add(s->ws->delta + (size_t)t * h + r0, w->o_bias + r0, n);
  }
  sw_join(s);
}

size_t sw_scratch_bytes(const sw_dims *d, int max_cols, int max_segments) {
  const size_t attend = SW_TILE_ROWS * d->head_dim + sw_attn_scratch(d->head_dim)
                        + (size_t)SW_TILE_ROWS * max_segments * (d->head_dim + 2) + SW_TILE_ROWS;
  const size_t cols = (max_cols + 63) / 64 * 64;
  const size_t ffn = 3 * SW_CHUNK * SW_CHUNK + SW_CHUNK * cols + SW_CHUNK * (cols / 4 + cols / 32 + cols / 32 + 64);
  const size_t batch = (size_t)SW_CHUNK * SW_GROUPS * SW_GROUP * SW_PANEL, one = (d->hidden + 63) / 64 * 64;
  const size_t down = batch > one ? batch : one;
  size_t floats = attend > ffn + down ? attend : ffn + down;
  return (floats * sizeof(float) + 4095) / 4096 * 4096;
}

void sw_attention(sw_step *s, const sw_attn *w, const sw_kv *kv, sw_fold fold) {
  sw_fold_norm(s, w->norm, fold, 0);
  project_qkv(s, w, QUERIES);
  rotate_and_store(s, w, kv, QUERIES);
  if (s->n_tokens == 1)
    attend_segments(s, kv);
  else
    attend_tiles(s, kv);
  if (s->dims->head_dim % SW_BLOCK) quantize_mixed(s);
  project_out(s, w);
}

void sw_keys(sw_step *s, const sw_attn *w, const sw_kv *kv, sw_fold fold) {
  sw_fold_norm(s, w->norm, fold, 0);
  project_qkv(s, w, KEYS);
  rotate_and_store(s, w, kv, KEYS);
}
