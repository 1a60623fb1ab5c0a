#ifndef SW_TEAM_H
#define SW_TEAM_H
#include "layer.h"

void sw_barrier(sw_team *team);   /* all threads of the team; also starts a new loop over items */
/* x += what the half before left; normed = rmsnorm(x) of the tokens from `first`, quantised; norm NULL: only fold. */
void sw_fold_norm(const sw_step *s, const float *norm, sw_fold fold, int first);

static inline int sw_next(sw_team *team) { return atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed); }

/* for (int i = ...; i < n; ...) over shared items, then the barrier. */
#define SW_SHARE(team, i, n) for (int i = sw_next(team); i < (n); i = sw_next(team))

static inline int sw_panels(const sw_mat *m) { return (m->rows + SW_PANEL - 1) / SW_PANEL; }

/* Panels per work item: enough items for every thread to balance, whole groups of 4 streams. */
static inline int sw_grain(int panels, int n_threads) {
  int g = panels / (n_threads * 8) / 4 * 4;
  return n_threads == 1 ? panels : g < 4 ? 4 : g > 16 ? 16 : g;
}

static inline int sw_items(int panels, int grain) { return (panels + grain - 1) / grain; }
static inline int sw_min(int a, int b) { return a < b ? a : b; }
#endif
