#ifndef SW_TEAM_H
#define SW_TEAM_H
#include "layer.h"

void sw_next_phase(sw_step *s);
void sw_join(sw_step *s);         /* wait until every item of this phase is done */
/* x += what the half before left; normed = rmsnorm(x) of the tokens from `first`, quantised; norm NULL: only fold. */
void sw_fold_norm(sw_step *s, const float *norm, sw_fold fold, int first);

/* The next of n items of this phase, or -1 when all are taken or the others are already past this phase. */
static inline int sw_take(const sw_step *s, int n) {
  uint64_t t = atomic_load_explicit(&s->team->ticket, memory_order_acquire);
  do {
    if ((uint32_t)(t >> 32) != s->phase || (int)(uint32_t)t >= n) return -1;
  } while (!atomic_compare_exchange_weak_explicit(&s->team->ticket, &t, t + 1, memory_order_acq_rel, memory_order_acquire));
  return (int)(uint32_t)t;
}

static inline void sw_done(sw_step *s, int n) {
  if (atomic_fetch_add_explicit(&s->team->done, 1, memory_order_acq_rel) + 1 == n) sw_next_phase(s);
}

/* One phase: `SW_SHARE(s, i, n) work(i);` then sw_join(s). n is at least 1. */
#define SW_SHARE(s, i, n) for (int i, n_##i = (n); (i = sw_take(s, n_##i)) >= 0; sw_done(s, n_##i))

static inline int sw_panels(const sw_mat *m) { return (m->rows + SW_PANEL - 1) / SW_PANEL; }

/* Panels per work item: enough items for every thread to balance, whole groups of 4 streams. */
static inline int sw_grain(int panels, int n_threads) {
  int g = panels / (n_threads * 8) / 4 * 4;
  return n_threads == 1 ? panels : g < 4 ? 4 : g > 16 ? 16 : g;
}

static inline int sw_items(int panels, int grain) { return (panels + grain - 1) / grain; }
static inline int sw_min(int a, int b) { return a < b ? a : b; }
#endif
