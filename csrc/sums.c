/* Exact sums between a half's last product and delta: csrc/README.md. */
#include <string.h>
#include "team.h"

enum { X_BITS = 12 };

static float power_of_two(int exponent) {
  const uint32_t bits = (uint32_t)(exponent + 127) << 23;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

/* rms: of the token's x, at least the root of the norm's eps; held between 2^-100 and 2^100. */
void sw_set_step(sw_ws *ws, int token, float rms, int grid) {
  uint32_t bits;
  memcpy(&bits, &rms, sizeof bits);
  const int e = (int)(bits >> 23) - 127, step = (e < -100 ? -100 : e > 100 ? 100 : e) - X_BITS;
  ws->unit[token] = power_of_two(grid == SW_GRID_X ? step : -SW_OWN_UNIT);
  ws->factor[token] = grid == SW_GRID_X ? power_of_two(-step) : 1;
}

int sw_grid_of(const float *post_norm) { return post_norm ? SW_GRID_OWN : SW_GRID_X; }

sw_sums sw_sums_of(sw_step *s, int type, int unit, const float *post_norm, int32_t *wide) {
  return (sw_sums){.grid = sw_grid_of(post_norm),
                   .group_cols = sw_group_cols(type, unit),
                   .factor = s->ws->factor,
                   .near = s->ws->near,
                   .far = s->ws->far,
                   .stride = s->dims->hidden,
                   .wide = wide,
                   .broken = &s->ws->broken};
}

/* --- of rows [row0, row1) of all tokens --------------------------------------------------------------------------- */

static double *near_own(const sw_ws *ws, size_t at) { return (double *)ws->near + at; }

static void put_near_x(int32_t *near, int n, int64_t *far) {
  for (int i = 0; i < n; i++) far[i] += near[i], near[i] = 0;
}

static void put_near_own(double *near, int n, int64_t *far) {
  for (int i = 0; i < n; i++) far[i] += (int64_t)(near[i] * (1 << SW_OWN_UNIT)), near[i] = 0;
}

void sw_put_near(sw_step *s, int grid, int row0, int row1) {
  const size_t h = s->dims->hidden;
  for (size_t t = 0; t < (size_t)s->n_tokens; t++) {
    int64_t *far = s->ws->far + t * h + row0;
    if (grid == SW_GRID_X) put_near_x(s->ws->near + t * h + row0, row1 - row0, far);
    else put_near_own(near_own(s->ws, t * h + row0), row1 - row0, far);
  }
}

/* For others to add to, or for the next half: small sums as they are, all others in `far`. */
static void leave_sums(sw_step *s, int grid, int row0, int row1, int wide) {
  if (!wide && grid == SW_GRID_X) return;
  sw_put_near(s, grid, row0, row1);
  for (int t = 0; t < s->n_tokens; t++) __atomic_store_n(&s->ws->wide[t], 1, __ATOMIC_RELAXED);
}

static void settle_x(int32_t *near, float unit, int n, float *delta) {
  for (int i = 0; i < n; i++) delta[i] = (float)near[i] * unit, near[i] = 0;
}

static void settle_own(double *near, int n, float *delta) {
  for (int i = 0; i < n; i++) delta[i] = (float)near[i], near[i] = 0;
}

static void settle_far(int64_t *far, float unit, int n, float *delta) {
  for (int i = 0; i < n; i++) delta[i] = (float)far[i] * unit, far[i] = 0;
}

void sw_end_sums(sw_step *s, int grid, int row0, int row1, int wide) {
  const size_t h = s->dims->hidden;
  sw_ws *ws = s->ws;
  if (ws->shared || grid == SW_GRID_X) {
    leave_sums(s, grid, row0, row1, wide);
    return;
  }
  if (wide) sw_put_near(s, grid, row0, row1);
  for (size_t t = 0; t < (size_t)s->n_tokens; t++) {
    float *delta = ws->delta + t * h + row0;
    if (wide) settle_far(ws->far + t * h + row0, ws->unit[t], row1 - row0, delta);
    else settle_own(near_own(ws, t * h + row0), row1 - row0, delta);
  }
}

/* --- between devices ---------------------------------------------------------------------------------------------- */

void sw_exchange(sw_step *s) {
  sw_stage *stage = s->ws->stage;
  if (stage) stage->exchange(stage, s);
}

void sw_widen(sw_step *s, int token) {
  const size_t at = (size_t)token * s->dims->hidden;
  put_near_x(s->ws->near + at, s->dims->hidden, s->ws->far + at);
  s->ws->wide[token] = 1;
}

void sw_settle(sw_step *s, int token) {
  sw_ws *ws = s->ws;
  const int h = s->dims->hidden;
  int32_t *near = ws->near + (size_t)token * h;
  float *delta = ws->delta + (size_t)token * h;
  if (!ws->wide[token]) {
    settle_x(near, ws->unit[token], h, delta);
    return;
  }
  sw_widen(s, token);
  settle_far(ws->far + (size_t)token * h, ws->unit[token], h, delta);
  ws->wide[token] = 0;
}

void sw_forget_sums(sw_ws *ws, int hidden, int n_tokens) {
  memset(ws->near, 0, (size_t)n_tokens * hidden * sizeof(double));
  for (int t = 0; t < ws->max_tokens; t++) {
    if (ws->wide[t]) memset(ws->far + (size_t)t * hidden, 0, hidden * sizeof *ws->far);
    ws->wide[t] = 0;
  }
  ws->broken = 0;
}
