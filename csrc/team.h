#ifndef SW_TEAM_H
#define SW_TEAM_H
#include "layer.h"

void sw_next_phase(sw_step *s);
void sw_join(sw_step *s); /* wait until every item of this phase is done */
/* x += residual_scale * delta, where there is one; normed = rmsnorm(x), quantised; norm NULL: only the sum. `grid`: of
 * the exact sums of the half that begins. */
void sw_add_norm(sw_step *s, const float *norm, sw_residual residual, int grid);

int sw_grid_of(const float *post_norm); /* of a half: sums that are normed have their own grid */
void sw_set_step(sw_ws *ws, int token, float rms, int grid);
/* Where a product with columns that may be cut at multiples of `unit` goes. */
sw_sums sw_sums_of(sw_step *s, int type, int unit, const float *post_norm, int32_t *wide);
/* Of rows [row0, row1) of all tokens, which begin at 0: put near sums down in far ones; end, with delta, or for others
 * to add to and the next half to take up. wide: something is in far. */
void sw_put_near(sw_step *s, int grid, int row0, int row1);
void sw_end_sums(sw_step *s, int grid, int row0, int row1, int wide);
/* When all sums of a half are there: those of all devices. Then delta of a token. */
void sw_exchange(sw_step *s);
void sw_settle(sw_step *s, int token);
void sw_widen(sw_step *s, int token); /* for an exchange: put all of a token's sums down in far */

/* A product of this step, or its exact sums: of one token in the way of its type. */
static inline void sw_project(const sw_step *s, const sw_mat *w, const sw_act *x, int t0, int t1, int p0, int p1,
                              float *y, ptrdiff_t y_stride) {
  const sw_way *way = &s->ways->rows[w->type];
  sw_mat m = *w;
  m.streams = way->streams, m.ahead = way->ahead;
  (t1 - t0 == 1 ? way->set : s->kernels)->matmul[w->type](&m, x, t0, t1, p0, p1, y, y_stride);
}
static inline void sw_project_sums(const sw_step *s, const sw_mat *w, const sw_act *x, int t0, int t1, int p0, int p1,
                                   const sw_sums *to) {
  const sw_way *way = &s->ways->sums[w->type];
  sw_mat m = *w;
  m.streams = way->streams, m.ahead = way->ahead;
  (t1 - t0 == 1 ? way->set : s->kernels)->sums[w->type](&m, x, t0, t1, p0, p1, to);
}

/* The next of n items of this phase, or -1 when all are taken or the others are already past this phase. */
static inline int sw_take(const sw_step *s, int n) {
  uint64_t t = atomic_load_explicit(&s->team->ticket, memory_order_acquire);
  do {
    if ((uint32_t)(t >> 32) != s->phase || (int)(uint32_t)t >= n) return -1;
  } while (
      !atomic_compare_exchange_weak_explicit(&s->team->ticket, &t, t + 1, memory_order_acq_rel, memory_order_acquire));
  return (int)(uint32_t)t;
}

static inline void sw_done(sw_step *s, int n) {
  if (atomic_fetch_add_explicit(&s->team->done, 1, memory_order_acq_rel) + 1 == n) sw_next_phase(s);
}

/* One phase: `SW_SHARE(s, i, n) work(i);` then sw_join(s). n is at least 1. */
#define SW_SHARE(s, i, n) for (int i, n_##i = (n); (i = sw_take(s, n_##i)) >= 0; sw_done(s, n_##i))

static inline int sw_panels(const sw_mat *m) { return (m->rows + SW_PANEL - 1) / SW_PANEL; }

static inline int sw_min(int a, int b) { return a < b ? a : b; }
static inline int sw_max(int a, int b) { return a > b ? a : b; }

/* How the units of a phase are shared out as n items. In a batch each has `grain` units. A single token waits for
 * memory: there (grain 0) the first items are long, so that the streams of weights are, and each round of them takes
 * half of what is left, so that nobody waits long for the slowest thread. */
typedef struct {
  int units, grain, threads, n;
} sw_split;

typedef struct {
  int from, to;
} sw_range;

/* Item i, or with i < 0 how many there are (in `to`). */
static inline sw_range sw_find(const sw_split *p, int i) {
  int from = 0, k = 0;
  for (int size = p->units; from < p->units; from += size, k++) {
    if (p->threads > 1 && k % p->threads == 0) size = sw_max(1, (p->units - from) / (2 * p->threads));
    if (k == i) return (sw_range){from, sw_min(from + size, p->units)};
  }
  return (sw_range){0, k};
}

static inline sw_split sw_split_of(const sw_step *s, int n_tokens, int units, int grain) {
  sw_split p = {units, n_tokens == 1 ? 0 : grain, s->team->n_threads, 0};
  p.n = p.grain ? (units + grain - 1) / grain : sw_find(&p, -1).to;
  return p;
}

static inline sw_range sw_item(const sw_split *p, int i) {
  if (!p->grain) return sw_find(p, i);
  return (sw_range){i * p->grain, sw_min((i + 1) * p->grain, p->units)};
}

/* The panels of a matrix in units: in a batch at most SW_BATCH_UNITS of them an item. */
static inline sw_split sw_split_panels(const sw_step *s, int n_tokens, const sw_mat *m) {
  const int units = (sw_panels(m) + SW_UNIT_PANELS - 1) / SW_UNIT_PANELS;
  return sw_split_of(s, n_tokens, units, sw_max(1, sw_min(units / (s->team->n_threads * 8), SW_BATCH_UNITS)));
}

static inline sw_range sw_item_panels(const sw_split *p, int i, const sw_mat *m) {
  const sw_range r = sw_item(p, i);
  return (sw_range){r.from * SW_UNIT_PANELS, sw_min(r.to * SW_UNIT_PANELS, sw_panels(m))};
}
#endif
