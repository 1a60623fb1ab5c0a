/* The attention half of a layer. */
#include <string.h>
#include "attention.h"

void sw_quantize_row(sw_step *s, sw_act *a, int token, const float *row, int first_col, int n) {
  s->kernels->quantize(row, n, a->q + token * a->q_stride + first_col, a->scale + token * a->s_stride + first_col / 32,
                       a->sum + 2 * (token * a->s_stride + first_col / 32));
}

/* A half that adds nothing but its products. */
static int is_plain(sw_residual r) { return !r.post_norm && !r.bias && !(r.experts && r.experts->down_bias); }

/* What a half adds besides its products. */
static void add_biases(sw_step *s, int token, sw_residual residual, float *d) {
  const sw_ffn *w = residual.experts;
  const int h = s->dims->hidden;
  if (residual.bias) s->ops->add(d, residual.bias, h);
  for (int i = 0; w && w->down_bias && i < w->top_k; i++) {
    const int at = token * w->top_k + i;
    s->ops->axpy(s->ws->topk_weights[at], w->down_bias + (size_t)s->ws->topk_ids[at] * h, d, h);
  }
}

void sw_add_norm(sw_step *s, const float *norm, sw_residual residual, int grid) {
  const int h = s->dims->hidden;
  sw_ws *ws = s->ws;
  const int sums_left = ws->shared || sw_grid_of(residual.post_norm) == SW_GRID_X;
  SW_SHARE(s, t, s->n_tokens) {
    float *x = ws->x + (size_t)t * h, *d = ws->delta + (size_t)t * h, *n = ws->normed + (size_t)t * h;
    if (residual.has_delta && sums_left && is_plain(residual) && !ws->wide[t]) {
      s->ops->add_sums(s->dims->residual_scale, ws->near + (size_t)t * h, ws->unit[t], x, h);
    } else if (residual.has_delta) {
      if (sums_left) sw_settle(s, t);
      add_biases(s, t, residual, d);
      if (residual.post_norm) s->ops->rmsnorm(d, residual.post_norm, s->dims->eps, h, d);
      s->ops->axpy(s->dims->residual_scale, d, x, h);
    }
    if (norm) {
      sw_set_step(ws, t, s->ops->rmsnorm(x, norm, s->dims->eps, h, n), grid);
      sw_quantize_row(s, &ws->act_hidden, t, n, 0, h);
    }
  }
  sw_join(s);
}

/* Item i of a matrix's panels, for all tokens. */
static void matmul_item(sw_step *s, const sw_mat *w, const sw_act *a, const sw_split *p, int i, float *y,
                        ptrdiff_t stride) {
  const sw_range r = sw_item_panels(p, i, w);
  sw_project(s, w, a, 0, s->n_tokens, r.from, r.to, y, stride);
}

enum { QUERIES, KEYS, VALUES };

void sw_multiply(sw_step *s, const sw_product *products, int n) {
  sw_split p[3];
  int items = 0;
  for (int i = 0; i < n; i++) items += (p[i] = sw_split_panels(s, s->n_tokens, products[i].matrix)).n;
  SW_SHARE(s, i, items) {
    int which = 0, j = i;
    while (j >= p[which].n) j -= p[which++].n;
    const sw_product *product = &products[which];
    matmul_item(s, product->matrix, product->x, &p[which], j, product->y, product->matrix->rows);
  }
  sw_join(s);
}

/* The projections from `first` on. */
static void project_qkv(sw_step *s, const sw_attn *w, int first) {
  const sw_act *x = &s->ws->act_hidden;
  const sw_product products[3] = {{&w->q, x, s->ws->q}, {&w->k, x, s->ws->k}, {&w->v, x, s->ws->v}};
  sw_multiply(s, products + first, 3 - first);
}

void sw_rotate(sw_step *s, float *x, int token) {
  const sw_dims *d = s->dims;
  s->ops->rope(x, s->ws->cos + (size_t)token * d->rope_half, s->ws->sin + (size_t)token * d->rope_half, d->rope_half,
               d->rope_pair);
}

void sw_hadamard(sw_step *s, float *x, int n) {
  const int keys = s->dims->head_dim, values = s->dims->value_dim;
  const int block = sw_min(keys & -keys, values & -values);
  for (int i = 0; i < n; i += block) s->ops->hadamard(x + i, block);
}

static void finish_head(sw_step *s, float *x, int head, int token, const float *bias, const float *norm, int rotated) {
  const sw_dims *d = s->dims;
  if (bias) s->ops->add(x, bias + head * d->head_dim, d->head_dim);
  if (norm) s->ops->rmsnorm(x, norm, d->eps, d->head_dim, x);
  if (rotated) sw_rotate(s, x, token);
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
      sw_hadamard(s, k, hd);
      sw_hadamard(s, v, hd);
    }
    s->ops->kv_store(kv, h, s->ws->rows[t].position, k, v);
    for (int j = h * group; from == QUERIES && j < (h + 1) * group; j++) {
      float *q = s->ws->q + ((size_t)t * d->n_heads + j) * hd;
      finish_head(s, q, j, t, w->q_bias, w->q_norm, w->rotated);
      const float scale = s->ws->temper ? d->q_scale * s->ws->temper[t] : d->q_scale;
      for (int e = 0; e < hd; e++) q[e] *= scale;
      if (kv->kind == SW_KV_Q8_0) sw_hadamard(s, q, hd);
    }
  }
  sw_join(s);
}

static void emit_head(sw_step *s, const sw_attn *w, const sw_kv *kv, int token, int head, const float *m,
                      const float *l, const float *acc, ptrdiff_t m_stride, ptrdiff_t acc_stride, int n_segments) {
  const int width = s->dims->value_dim, column = head * width;
  float *out = s->ws->attn_out + (size_t)token * s->dims->n_heads * width + column;
  s->ops->merge(m, l, acc, m_stride, acc_stride, n_segments, w->sinks ? w->sinks + head : NULL, width, out);
  if (kv->kind == SW_KV_Q8_0) sw_hadamard(s, out, width);
  if (width % SW_BLOCK == 0) sw_quantize_row(s, &s->ws->act_attn_out, token, out, column, width);
}

/* Heads that are not whole blocks can only be quantised once their neighbours are there. */
static void quantize_attn_out(sw_step *s) {
  const int width = s->dims->n_heads * s->dims->value_dim;
  SW_SHARE(s, t, s->n_tokens)
  sw_quantize_row(s, &s->ws->act_attn_out, t, s->ws->attn_out + (size_t)t * width, 0, width);
  sw_join(s);
}

typedef struct {
  float *q, *m, *l, *acc, *attend;
  int32_t *first, *limit;
} tile_scratch;

static tile_scratch split_scratch(sw_step *s) {
  const sw_dims *d = s->dims;
  const int segments = s->ws->max_segments;
  tile_scratch t;
  t.q = (float *)(s->ws->scratch + (size_t)s->thread * s->ws->scratch_bytes);
  t.attend = t.q + SW_TILE_ROWS * d->head_dim;
  t.m = t.attend + sw_attn_scratch(d->head_dim, d->latent ? d->value_dim : 0);
  t.l = t.m + SW_TILE_ROWS * segments;
  t.acc = t.l + SW_TILE_ROWS * segments;
  t.limit = (int32_t *)(t.acc + (size_t)SW_TILE_ROWS * segments * d->value_dim);
  t.first = t.limit + SW_TILE_ROWS;
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

static void gather_rows(sw_step *s, const sw_attn *w, tile_scratch *t, const sw_tile *tile, int h) {
  const sw_dims *d = s->dims;
  const int group = d->n_heads / d->n_kv_heads;
  for (int r = 0; r < tile->rows; r++) {
    const int token = tile->token + (tile->first + r) / group, head = h * group + (tile->first + r) % group;
    memcpy(t->q + r * d->head_dim, s->ws->q + ((size_t)token * d->n_heads + head) * d->head_dim,
           d->head_dim * sizeof(float));
    t->limit[r] = s->ws->rows[token].position + 1;
    t->first[r] = w->window ? t->limit[r] - w->window : 0;
  }
}

/* One segment of a lone token's heads. */
static void attend_partial(sw_step *s, const sw_attn *w, tile_scratch *t, const sw_tile *tile, const sw_kv *kv, int h) {
  const sw_dims *d = s->dims;
  const size_t at = (size_t)tile->partial * d->n_heads + h * (d->n_heads / d->n_kv_heads) + tile->first;
  s->ops->attend(kv, h, t->q, w->window ? t->first : NULL, t->limit, tile->rows, tile->begin, tile->end,
                 s->ws->partial_m + at, s->ws->partial_l + at, s->ws->partial_acc + at * d->value_dim, t->attend);
}

/* Segment by segment, then the result of each row, of the segments that it sees. */
static void attend_whole(sw_step *s, const sw_attn *w, tile_scratch *t, const sw_tile *tile, const sw_kv *kv, int h) {
  const sw_dims *d = s->dims;
  const int width = d->value_dim, group = d->n_heads / d->n_kv_heads, segments = segments_of(tile->end);
  for (int g = 0; g < segments; g++)
    s->ops->attend(kv, h, t->q, w->window ? t->first : NULL, t->limit, tile->rows, g * SW_KV_SEGMENT,
                   sw_min(tile->end, (g + 1) * SW_KV_SEGMENT), t->m + g * SW_TILE_ROWS, t->l + g * SW_TILE_ROWS,
                   t->acc + (size_t)g * SW_TILE_ROWS * width, t->attend);
  for (int r = 0; r < tile->rows; r++)
    emit_head(s, w, kv, tile->token + (tile->first + r) / group, h * group + (tile->first + r) % group, t->m + r,
              t->l + r, t->acc + (size_t)r * width, SW_TILE_ROWS, (ptrdiff_t)SW_TILE_ROWS * width,
              segments_of(t->limit[r]));
}

void sw_attend(sw_step *s, const sw_attn *w, int layer) {
  const sw_dims *d = s->dims;
  const sw_ws *ws = s->ws;
  tile_scratch t = split_scratch(s);
  /* Runs: the longest tiles of all heads first. Lone tokens wait for memory: a head's segments follow each other. */
  const int is_lone = ws->n_lone == s->n_tokens;
  SW_SHARE(s, i, ws->n_tiles * d->n_kv_heads) {
    const int h = is_lone ? i / ws->n_tiles : i % d->n_kv_heads;
    const sw_tile *tile = &ws->tiles[is_lone ? i % ws->n_tiles : i / d->n_kv_heads];
    const sw_kv *kv = ws->rows[tile->token].kv + layer;
    gather_rows(s, w, &t, tile, h);
    if (tile->partial < 0) attend_whole(s, w, &t, tile, kv, h);
    else attend_partial(s, w, &t, tile, kv, h);
  }
  sw_join(s);
  if (!ws->n_partials) return;
  SW_SHARE(s, i, ws->n_lone * d->n_heads) {
    const sw_lone *lone = &ws->lone[i / d->n_heads];
    const sw_row *row = &ws->rows[lone->token];
    const size_t at = (size_t)lone->partial * d->n_heads + i % d->n_heads;
    if (lone->partial >= 0)
      emit_head(s, w, row->kv + layer, lone->token, i % d->n_heads, ws->partial_m + at, ws->partial_l + at,
                ws->partial_acc + at * d->value_dim, d->n_heads, (ptrdiff_t)d->n_heads * d->value_dim,
                segments_of(row->position + 1));
  }
  sw_join(s);
}

/* delta = W_o of what heads give, `width` columns each: exact over heads */
static void project_out(sw_step *s, const sw_attn *w, const sw_act *x, int width) {
  const sw_split p = sw_split_panels(s, s->n_tokens, &w->o);
  SW_SHARE(s, i, p.n) {
    const sw_range r = sw_item_panels(&p, i, &w->o);
    const int row0 = r.from * SW_PANEL, row1 = sw_min(r.to * SW_PANEL, w->o.rows);
    int32_t wide = 0;
    const sw_sums to = sw_sums_of(s, w->o.type, width, w->post_norm, &wide);
    sw_project_sums(s, &w->o, x, 0, s->n_tokens, r.from, r.to, &to);
    sw_end_sums(s, to.grid, row0, row1, wide);
  }
  sw_join(s);
  sw_exchange(s);
}

size_t sw_scratch_bytes(const sw_dims *d, int max_cols, int max_segments) {
  const size_t attend = SW_TILE_ROWS * d->head_dim + sw_attn_scratch(d->head_dim, d->latent ? d->value_dim : 0) +
                        (size_t)SW_TILE_ROWS * max_segments * (d->value_dim + 2) + 2 * SW_TILE_ROWS;
  const size_t cols = (max_cols + 63) / 64 * 64;
  const size_t ffn = 3 * SW_FFN_TOKENS * SW_FFN_COLS + SW_FFN_TOKENS * cols +
                     SW_FFN_TOKENS * (cols / 4 + cols / 32 + cols / 32 + 64);
  const size_t floats = attend > ffn ? attend : ffn;
  return (floats * sizeof(float) + 4095) / 4096 * 4096;
}

void sw_attention(sw_step *s, const sw_attn *w, int layer, sw_residual residual) {
  sw_add_norm(s, w->norm, residual, sw_grid_of(w->post_norm));
  if (s->dims->latent) {
    sw_latent_attention(s, w, layer);
    project_out(s, w, &s->ws->act_head_out, w->v_b.rows);
    return;
  }
  project_qkv(s, w, QUERIES);
  rotate_and_store(s, w, layer, QUERIES);
  sw_attend(s, w, layer);
  if (s->dims->head_dim % SW_BLOCK) quantize_attn_out(s);
  project_out(s, w, &s->ws->act_attn_out, s->dims->value_dim);
}

void sw_keys(sw_step *s, const sw_attn *w, int layer, sw_residual residual) {
  sw_add_norm(s, w->norm, residual, sw_grid_of(w->post_norm));
  if (s->dims->latent) {
    sw_latent_keys(s, w, layer);
    return;
  }
  project_qkv(s, w, KEYS);
  rotate_and_store(s, w, layer, KEYS);
}
