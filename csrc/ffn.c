/* The feed-forward half of a layer, dense or a mixture of experts; embedding and LM head. */
#include <string.h>
#include "team.h"

void sw_choose_experts(const sw_ffn *w, const sw_ops *ops, float *logits, int32_t *id, float *weight);
void sw_group_pairs(const sw_ffn *w, sw_ws *ws, int n_tokens);

typedef struct {
  float *gate, *up, *out;
  sw_act rows;
} ffn_scratch;

static ffn_scratch split_scratch(sw_step *s) {
  const ptrdiff_t cols = (s->dims->hidden + 63) / 64 * 64;
  ffn_scratch f;
  f.gate = (float *)(s->ws->scratch + (size_t)s->thread * s->ws->scratch_bytes);
  f.up = f.gate + SW_FFN_TOKENS * SW_FFN_COLS;
  f.out = f.up + SW_FFN_TOKENS * SW_FFN_COLS;
  f.rows = (sw_act){.f = f.out + SW_FFN_TOKENS * SW_FFN_COLS,
                    .f_stride = cols,
                    .q_stride = cols,
                    .s_stride = cols / 32,
                    .n_tokens = SW_FFN_TOKENS,
                    .cols = s->dims->hidden};
  f.rows.q = (int8_t *)(f.rows.f + SW_FFN_TOKENS * cols);
  f.rows.scale = (float *)(f.rows.q + SW_FFN_TOKENS * cols);
  f.rows.sum = (int16_t *)(f.rows.scale + SW_FFN_TOKENS * f.rows.s_stride);
  return f;
}

static int is_float(int type) { return type == SW_F32 || type == SW_F16 || type == SW_BF16; }

/* Copy the activations of some tokens side by side. */
static void gather(const sw_act *a, sw_act *to, const int32_t *token, int n, int as_float) {
  for (int i = 0; i < n; i++) {
    const ptrdiff_t t = token[i];
    if (as_float) memcpy((float *)to->f + i * to->f_stride, a->f + t * a->f_stride, a->cols * sizeof(float));
    memcpy(to->q + i * to->q_stride, a->q + t * a->q_stride, a->q_stride);
    memcpy(to->scale + i * to->s_stride, a->scale + t * a->s_stride, a->s_stride * sizeof(float));
    memcpy(to->sum + 2 * i * to->s_stride, a->sum + 2 * t * a->s_stride, 2 * a->s_stride * sizeof(int16_t));
  }
}

/* Columns [first, first + n) of what lies between the two halves of an expert, or of the dense or shared one (-1). */
static void activate(sw_step *s, const sw_ffn *w, int expert, float *gate, float *up, int first, int n, float *out) {
  if (expert >= 0 && w->gate_bias) {
    const size_t at = (size_t)expert * w->expert_gate.rows + first;
    s->ops->add(gate, w->gate_bias + at, n);
    s->ops->add(up, w->up_bias + at, n);
  }
  if (expert >= 0 && w->limit > 0.0f) s->ops->swiglu(gate, up, w->alpha, w->limit, n, out);
  else s->ops->silu_mul(gate, up, n, out);
}

/* Span c of SW_FFN_COLS columns: silu(gate x) * (up x) for rows [t0, t1) of a, quantised into rows of `ffn_mid`. */
static void gate_up(sw_step *s, const ffn_scratch *f, const sw_ffn *w, int expert, const sw_mat *gate, const sw_mat *up,
                    const sw_act *a, int t0, int t1, int c, sw_act *ffn_mid, int row) {
  const int first = c * SW_FFN_COLS, n = sw_min(SW_FFN_COLS, gate->rows - first), p0 = first / SW_PANEL;
  const int p1 = p0 + (n + SW_PANEL - 1) / SW_PANEL;
  const ptrdiff_t shift = (ptrdiff_t)t0 * SW_FFN_COLS +
                          first; /* matmul writes at [token][row], scratch is [t0][first] */
  sw_project(s, gate, a, t0, t1, p0, p1, f->gate - shift, SW_FFN_COLS);
  sw_project(s, up, a, t0, t1, p0, p1, f->up - shift, SW_FFN_COLS);
  for (int t = t0; t < t1; t++, row++) {
    float *out = f->out + (t - t0) * SW_FFN_COLS;
    activate(s, w, expert, f->gate + (t - t0) * SW_FFN_COLS, f->up + (t - t0) * SW_FFN_COLS, first, n, out);
    if (ffn_mid->f) memcpy((float *)ffn_mid->f + row * ffn_mid->f_stride + first, out, n * sizeof(float));
    s->kernels->quantize(out, n, ffn_mid->q + row * ffn_mid->q_stride + first,
                         ffn_mid->scale + row * ffn_mid->s_stride + first / 32,
                         ffn_mid->sum + 2 * (row * ffn_mid->s_stride + first / 32));
  }
}

static void gate_up_dense(sw_step *s, const ffn_scratch *f, const sw_ffn *w, int c, sw_act *ffn_mid, int row) {
  for (int t = 0; t < s->n_tokens; t += SW_FFN_TOKENS)
    gate_up(s, f, w, -1, &w->gate, &w->up, &s->ws->act_hidden, t, sw_min(t + SW_FFN_TOKENS, s->n_tokens), c, ffn_mid,
            row + t);
}

static void gate_up_expert(sw_step *s, ffn_scratch *f, const sw_ffn *w, int a, int c, sw_act *ffn_mid) {
  const sw_ws *ws = s->ws;
  sw_mat gate = w->expert_gate, up = w->expert_up;
  gate.data = w->gate_data[ws->active[a]];
  up.data = w->up_data[ws->active[a]];
  for (int p = ws->start[a]; p < ws->start[a + 1]; p += SW_FFN_TOKENS) {
    const int n = sw_min(SW_FFN_TOKENS, ws->start[a + 1] - p), t = ws->pair_token[p];
    if (n == 1) {
      gate_up(s, f, w, ws->active[a], &gate, &up, &ws->act_hidden, t, t + 1, c, ffn_mid, p);
      continue;
    }
    gather(&ws->act_hidden, &f->rows, ws->pair_token + p, n, is_float(gate.type) || is_float(up.type));
    gate_up(s, f, w, ws->active[a], &gate, &up, &f->rows, 0, n, c, ffn_mid, p);
  }
}

/* Panels [p0, p1) of the exact sums: the dense or shared down projection, whose rows begin at `row`; an expert. */
static void down_dense(sw_step *s, const sw_ffn *w, const sw_act *ffn_mid, int row, int p0, int p1, sw_sums to) {
  to.factor -= row;
  if (to.grid == SW_GRID_X) to.near = (int32_t *)to.near - row * to.stride;
  else to.near = (double *)to.near - row * to.stride;
  to.far -= row * to.stride;
  sw_project_sums(s, &w->down, ffn_mid, row, row + s->n_tokens, p0, p1, &to);
}

static void down_expert(sw_step *s, const sw_ffn *w, const sw_act *ffn_mid, int a, int p0, int p1, sw_sums to) {
  const sw_ws *ws = s->ws;
  sw_mat down = w->expert_down;
  down.data = w->down_data[ws->active[a]];
  to.factor = ws->pair_weight;
  to.row = ws->pair_token;
  sw_project_sums(s, &down, ffn_mid, ws->start[a], ws->start[a + 1], p0, p1, &to);
}

static int n_groups(const sw_mat *m, const sw_sums *to) { return (m->cols + to->group_cols - 1) / to->group_cols; }

/* Experts that run together: those that are from `some.from` to before `some.to` in an order of a wave. */
typedef struct {
  int first;            /* place of the wave's first expert in `active` */
  const int32_t *order; /* of places from there on; NULL: as they are */
  sw_range some;
  int late; /* they are read while others run */
} expert_set;

static int place_of(const expert_set *e, int i) { return e->first + (e->order ? e->order[i] : i); }

/* Some experts, after `groups` of something else. */
static void down_experts(sw_step *s, const sw_ffn *w, const sw_act *ffn_mid, const expert_set *experts, sw_range panels,
                         int groups, sw_sums to) {
  const int each = n_groups(&w->expert_down, &to), all = groups + w->top_k * each;
  for (int i = experts->some.from; i < experts->some.to; i++, groups += each) {
    if (all > SW_NEAR_GROUPS && groups + each > SW_NEAR_GROUPS) {
      sw_put_near(s, to.grid, panels.from * SW_PANEL, sw_min(panels.to * SW_PANEL, s->dims->hidden));
      *to.wide = 1, groups = 0;
    }
    down_expert(s, w, ffn_mid, place_of(experts, i), panels.from, panels.to, to);
  }
}

/* Where experts run in several sets, the sums of each are put down in far ones. */
enum { FIRST = 1, LAST = 2 };
static const expert_set NO_EXPERTS;

/* Exact sums of what the feed-forward networks that this layer has add up to, over all columns. */
static void down(sw_step *s, const sw_ffn *w, const sw_act *ffn_mid, const expert_set *experts, sw_range panels,
                 int which) {
  const int row0 = panels.from * SW_PANEL, row1 = sw_min(panels.to * SW_PANEL, s->dims->hidden);
  const int unit = w->post_norm ? SW_OWN_COLS : SW_FFN_COLS, shared = which & FIRST && w->down.rows;
  int32_t wide = which != (FIRST | LAST);
  const sw_sums dense = sw_sums_of(s, w->down.type, unit, w->post_norm, &wide);
  if (shared) down_dense(s, w, ffn_mid, s->n_tokens * w->top_k, panels.from, panels.to, dense);
  if (w->n_experts)
    down_experts(s, w, ffn_mid, experts, panels, shared ? n_groups(&w->down, &dense) : 0,
                 sw_sums_of(s, w->expert_down.type, unit, w->post_norm, &wide));
  if (which & LAST) sw_end_sums(s, dense.grid, row0, row1, wide);
  else sw_put_near(s, dense.grid, row0, row1);
}

/* The buffer between the two products, shaped for this layer's widest FFN. */
static sw_act shape_ffn_mid(sw_step *s, const sw_ffn *w) {
  sw_act a = s->ws->act_ffn_mid;
  const int width = w->expert_gate.rows > w->gate.rows ? w->expert_gate.rows : w->gate.rows;
  const int keep_float = (w->down.rows && is_float(w->down.type)) ||
                         (w->expert_down.rows && is_float(w->expert_down.type));
  a.cols = width;
  a.f = keep_float ? s->ws->ffn_mid : NULL;
  a.f_stride = width;
  a.q_stride = (width + 63) / 64 * 64;
  a.s_stride = a.q_stride / 32;
  return a;
}

static int col_spans(const sw_mat *m) { return (m->rows + SW_FFN_COLS - 1) / SW_FFN_COLS; }

static void ffn_dense(sw_step *s, const sw_ffn *w) {
  ffn_scratch f = split_scratch(s);
  sw_act ffn_mid = shape_ffn_mid(s, w);
  const sw_split up = sw_split_of(s, s->n_tokens, col_spans(&w->gate), 1);
  SW_SHARE(s, i, up.n) {
    const sw_range r = sw_item(&up, i);
    for (int c = r.from; c < r.to; c++) gate_up_dense(s, &f, w, c, &ffn_mid, 0);
  }
  sw_join(s);
  const sw_split split = sw_split_panels(s, s->n_tokens, &w->down);
  SW_SHARE(s, i, split.n) down(s, w, &ffn_mid, &NO_EXPERTS, sw_item_panels(&split, i, &w->down), FIRST | LAST);
  sw_join(s);
}

/* Of `active`, the places of the experts of wave `wave`: those whose numbers are in a range.
 *
 * A thread that was put aside may look while another writes what the next layer needs (sw_group_pairs): then this phase
 * is over, and sw_take gives it nothing, whatever it saw here. */
static sw_range places_of(const sw_ws *ws, int wave, int wave_size) {
  const int n = sw_peek(&ws->n_active);
  sw_range r = {0, 0};
  while (r.from < n && sw_peek(&ws->active[r.from]) < wave * wave_size) r.from++;
  for (r.to = r.from; r.to < n && sw_peek(&ws->active[r.to]) < (wave + 1) * wave_size;) r.to++;
  return r;
}

/* One thread: find slots for the experts of a wave, and queue reads of what is absent. */
static void ask_wave(sw_step *s, const sw_ffn *w, int wave, int wave_size) {
  const sw_ws *ws = s->ws;
  const sw_range places = places_of(ws, wave, wave_size);
  sw_experts_ask(w->cache, wave & 1, ws->active + places.from, places.to - places.from, wave ? 2 : 1,
                 (wave + 1) * wave_size);
  for (int a = places.from; a < places.to; a++) {
    const int e = ws->active[a];
    const uint8_t *data = sw_experts_data(w->cache, e);
    w->gate_data[e] = data, w->up_data[e] = data + w->up_at, w->down_data[e] = data + w->down_at;
  }
}

/* One thread, when it is known which experts run and before any thread reads their tables. */
static void need_experts(sw_step *s, const sw_ffn *w) {
  sw_ws *ws = s->ws;
  if (w->cache) {
    sw_residents_enter(w->cache->residents, w->cache_layer, s->n_tokens);
    for (int a = 0; a < ws->n_active && s->n_tokens == 1; a++) sw_residents_count(w->cache->residents, ws->active[a]);
    for (int a = 0; a < ws->n_active; a++)
      for (int p = ws->start[a]; p < ws->start[a + 1]; p++)
        sw_residents_use(w->cache->residents, ws->active[a], ws->pair_token[p]);
    ask_wave(s, w, 0, sw_experts_wave(w->cache, s->n_tokens * w->top_k));
    return;
  }
  for (int a = 0; a < ws->n_active; a++) {
    const int e = ws->active[a];
    if (!w->gate_data[e] || !w->up_data[e] || !w->down_data[e]) atomic_store(&ws->absent, w);
  }
}

static void route_experts(sw_step *s, const sw_ffn *w) {
  sw_ws *ws = s->ws;
  const ffn_scratch f = split_scratch(s);
  sw_act ffn_mid = shape_ffn_mid(s, w);
  const int panels = sw_panels(&w->router), shared = w->gate.rows ? col_spans(&w->gate) : 0;
  SW_SHARE(s, i, panels + shared) {
    if (i < panels) sw_project(s, &w->router, &ws->act_hidden, 0, s->n_tokens, i, i + 1, ws->router, w->n_experts);
    else gate_up_dense(s, &f, w, i - panels, &ffn_mid, s->n_tokens * w->top_k);
  }
  sw_join(s);
  SW_SHARE(s, t, s->n_tokens) {
    sw_choose_experts(w, s->ops, ws->router + (size_t)t * w->n_experts, ws->topk_ids + t * w->top_k,
                      ws->topk_weights + t * w->top_k);
  }
  sw_join(s);
  SW_SHARE(s, once, 1) {
    sw_group_pairs(w, ws, s->n_tokens);
    need_experts(s, w);
  }
  sw_join(s);
}

/* Gate and up of units [from, to) of a set: SW_FFN_COLS columns of an expert each. Each has rows of its own. */
static void gate_up_experts(sw_step *s, ffn_scratch *f, const sw_ffn *w, const expert_set *experts, sw_range units,
                            sw_act *ffn_mid) {
  const int per_expert = col_spans(&w->expert_gate);
  for (int u = units.from; u < units.to; u++) {
    const int a = place_of(experts, experts->some.from + u / per_expert);
    if (w->cache) sw_experts_await(w->cache, s->ws->active[a], s->thread);
    gate_up_expert(s, f, w, a, u % per_expert, ffn_mid);
  }
}

/* Two phases, whatever there is to do in them. */
static void run_set(sw_step *s, ffn_scratch *f, const sw_ffn *w, const expert_set *experts, int which,
                    sw_act *ffn_mid) {
  const int units = (experts->some.to - experts->some.from) * col_spans(&w->expert_gate);
  /* Items of what is late are short: nobody takes it alone. */
  const sw_split up = sw_split_of(s, experts->late ? 2 : s->n_tokens, sw_max(units, 1), 1);
  SW_SHARE(s, i, up.n) {
    const sw_range r = sw_item(&up, i);
    gate_up_experts(s, f, w, experts, (sw_range){r.from, sw_min(r.to, units)}, ffn_mid);
  }
  sw_join(s);
  const sw_split split = sw_split_panels(s, s->n_tokens, &w->expert_down);
  const int is_empty = experts->late && units <= 0; /* then the set before it was the last */
  SW_SHARE(s, i, is_empty ? 1 : split.n) {
    if (!is_empty) down(s, w, ffn_mid, experts, sw_item_panels(&split, i, &w->expert_down), which);
  }
  sw_join(s);
}

/* With a cache the experts that are in memory come first, and all that they add; then the others as they are read. Sums
 * are exact, so the order shows nowhere. */
static void run_wave(sw_step *s, ffn_scratch *f, const sw_ffn *w, int wave, int n_waves, int wave_size,
                     sw_act *ffn_mid) {
  const sw_range places = places_of(s->ws, wave, wave_size);
  const int n = places.to - places.from, which = (wave == 0 ? FIRST : 0) | (wave + 1 == n_waves ? LAST : 0);
  /* Late, a thread may look while the next layer's are asked for; it takes nothing any more (places_of). */
  const int n_late = w->cache ? sw_min(sw_peek(&w->cache->n_waiting[wave & 1]), n) : 0, ready = n - n_late;
  const int32_t *order = w->cache ? w->cache->order[wave & 1] : NULL;
  if (!w->cache || sw_experts_has_all(w->cache)) { /* then only the first uses wait */
    run_set(s, f, w, &(expert_set){places.from, order, {0, n}, n_late > 0}, which, ffn_mid);
    return;
  }
  run_set(s, f, w, &(expert_set){places.from, order, {0, ready}, 0}, n_late ? which & FIRST : which, ffn_mid);
  run_set(s, f, w, &(expert_set){places.from, order, {ready, n}, 1}, which & LAST, ffn_mid);
}

/* In waves where they are read from disk: the next is on its way while one is computed. Waves are ranges of expert
 * numbers and some are empty: a thread that was put aside must find as many phases as the others did. */
static void run_experts(sw_step *s, const sw_ffn *w) {
  ffn_scratch f = split_scratch(s);
  sw_act ffn_mid = shape_ffn_mid(s, w);
  const int wave_size = w->cache ? sw_experts_wave(w->cache, s->n_tokens * w->top_k) : w->n_experts;
  const int n_waves = (w->n_experts + wave_size - 1) / wave_size;
  for (int wave = 0; wave < n_waves; wave++) {
    if (wave + 1 < n_waves) {
      SW_SHARE(s, once, 1) ask_wave(s, w, wave + 1, wave_size);
      sw_join(s);
    }
    run_wave(s, &f, w, wave, n_waves, wave_size, &ffn_mid);
  }
}

void sw_ffn_route(sw_step *s, const sw_ffn *w, sw_residual residual) {
  sw_add_norm(s, w->norm, residual, sw_grid_of(w->post_norm));
  if (w->n_experts) route_experts(s, w);
}

void sw_ffn_experts(sw_step *s, const sw_ffn *w) {
  if (w->n_experts) run_experts(s, w);
  else ffn_dense(s, w);
  sw_exchange(s);
}

void sw_finish(sw_step *s, sw_residual residual) { sw_add_norm(s, NULL, residual, SW_GRID_X); }

void sw_lm_head(sw_step *s, const float *norm, const sw_mat *table, sw_residual residual, float *logits) {
  const sw_split p = sw_split_panels(s, s->n_tokens, table);
  sw_add_norm(s, norm, residual, SW_GRID_X);
  SW_SHARE(s, i, p.n) {
    const sw_range r = sw_item_panels(&p, i, table);
    sw_project(s, table, &s->ws->act_hidden, 0, s->n_tokens, r.from, r.to, logits, table->rows);
  }
  sw_join(s);
}

void sw_embed(sw_step *s, const sw_mat *embed, const int32_t *ids) {
  const int h = s->dims->hidden;
  const float scale = s->dims->embed_scale;
  SW_SHARE(s, t, s->n_tokens) {
    float *x = s->ws->x + (size_t)t * h;
    sw_dequant_row(embed, ids[t], x);
    for (int e = 0; scale != 1.0f && e < h; e++) x[e] *= scale;
  }
  sw_join(s);
}
