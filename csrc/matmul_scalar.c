/* The plain C kernels: what every other instruction set must equal bit for bit. Formulas: csrc/README.md. */
#include <math.h>
#include "isa.h"
#include "layout.h"

static inline int dot16(const int16_t *w, const int8_t *a) {
  int sum = 0;
  for (int k = 0; k < 16; k++) sum += w[k] * a[k];
  return sum;
}

/* The sums of a row over a super-block, before its d and dmin. */
typedef struct {
  float dot, min;
} partial_sums;

/* One row's 32 columns times one token's. */
static inline float block_row(const sw_quant *quant, const sw_clear *c, int r, const int8_t *a, float scale,
                              const int16_t *sum, int first, int last, partial_sums *s, float acc) {
  const int dot0 = dot16(c->q[r], a), dot1 = dot16(c->q[r] + 16, a + 16), all = sum[0] + sum[1];
  if (!sw_is_super(quant)) {
    acc = fmaf(c->d[r] * scale, (float)(dot0 + dot1), acc);
    return !sw_has_min(quant) ? acc : fmaf(c->m[r], scale * (float)all, acc);
  }
  if (first) s->dot = s->min = 0;
  s->dot = fmaf(scale, (float)(c->scale[0][r] * dot0 + c->scale[1][r] * dot1), s->dot);
  if (sw_has_min(quant) && !sw_scales_halves(quant)) s->min = fmaf(scale * (float)all, c->min[0][r], s->min);
  if (sw_has_min(quant) && sw_scales_halves(quant)) {
    for (int h = 0; h < 2; h++) s->min = fmaf(scale * (float)sum[h], c->min[h][r], s->min);
  }
  if (!last) return acc;
  acc = fmaf(c->d[r], s->dot, acc);
  return !sw_has_min(quant) ? acc : fmaf(-c->m[r], s->min, acc);
}

static int panel_rows(const sw_mat *w, int panel) {
  const int left = w->rows - panel * SW_PANEL;
  return left < SW_PANEL ? left : SW_PANEL;
}

/* Add blocks [b0, b1), of one tile, to the rows `out` of a panel. */
static void quant_panel(const sw_mat *w, const sw_quant *quant, const sw_act *x, const sw_tile *tile, int b0, int b1,
                        int panel, int t, float *out) {
  const uint8_t *p = tile->data + panel * tile->panel_bytes;
  const int n_sub = quant->cols / SW_BLOCK;
  partial_sums s[SW_PANEL];
  sw_clear clear;
  for (int at = b0 * n_sub; at < b1 * n_sub; at++) {
    const ptrdiff_t sum = t * x->s_stride + at;
    const int8_t *a = x->q + t * x->q_stride + (ptrdiff_t)at * SW_BLOCK;
    const int j = at % n_sub;
    sw_clear_block(w->type, p + (size_t)(at / n_sub - tile->block0) * SW_PANEL * quant->bytes, j, &clear);
    for (int r = 0; r < panel_rows(w, panel); r++) {
      out[r] = block_row(quant, &clear, r, a, x->scale[sum], x->sum + 2 * sum, j == 0, j == n_sub - 1, &s[r], out[r]);
    }
  }
}

static inline float float_at(int type, const uint8_t *p) {
  float f;
  uint16_t h;
  if (type == SW_F32) {
    memcpy(&f, p, 4);
    return f;
  }
  memcpy(&h, p, 2);
  return type == SW_F16 ? sw_half_to_float(h) : sw_bf16_to_f32(h);
}

static void float_panel(const sw_mat *w, const sw_quant *quant, const sw_act *x, const sw_tile *tile, int b0, int b1,
                        int panel, int t, float *out) {
  const uint8_t *p = tile->data + panel * tile->panel_bytes;
  const float *f = x->f + t * x->f_stride;
  for (int r = 0; r < panel_rows(w, panel); r++) {
    for (int k = b0; k < b1; k++) {
      const uint8_t *at = p + ((size_t)(k - tile->block0) * SW_PANEL + r) * quant->bytes;
      out[r] = fmaf(float_at(w->type, at), f[k], out[r]);
    }
  }
}

/* Add blocks [b0, b1) of the type, of any tiles, to the rows `out` of a panel. */
static void add_blocks(const sw_mat *w, const sw_act *x, int t, int panel, int b0, int b1, float *out) {
  const sw_quant *quant = sw_quant_of(w->type);
  for (int end; b0 < b1; b0 = end) {
    const sw_tile tile = sw_tile_at(w, quant, b0 / sw_tile_blocks(w, quant));
    end = tile.block0 + tile.n_blocks < b1 ? tile.block0 + tile.n_blocks : b1;
    if (quant->formula == SW_FORMULA_FLOAT) float_panel(w, quant, x, &tile, b0, end, panel, t, out);
    else quant_panel(w, quant, x, &tile, b0, end, panel, t, out);
  }
}

static void matmul(const sw_mat *w, const sw_act *x, int t0, int t1, int p0, int p1, float *y, ptrdiff_t y_stride) {
  const int n_blocks = w->cols / sw_quant_of(w->type)->cols;
  for (int p = p0; p < p1; p++) {
    for (int t = t0; t < t1; t++) {
      float *out = y + t * y_stride + p * SW_PANEL;
      memset(out, 0, (size_t)panel_rows(w, p) * sizeof *out);
      add_blocks(w, x, t, p, 0, n_blocks, out);
    }
  }
}

/* --- exact sums --------------------------------------------------------------------------------------------------- */

/* The integer nearest to v, ties to even. */
static int64_t nearest(double v, int32_t *broken) {
  if (fabs(v) < SW_MAX_PARTIAL) return llrint(v);
  __atomic_store_n(broken, 1, __ATOMIC_RELAXED); /* NaN, too */
  return 0;
}

/* The step of a group's own grid: SW_OWN_BITS below its largest value, but not below what is counted. */
static double own_step(const float *value, int n) {
  float top = 0;
  for (int r = 0; r < n; r++) top = fabsf(value[r]) > top ? fabsf(value[r]) : top;
  const int fine = -SW_OWN_UNIT, own = top > 0 ? ilogbf(top) - SW_OWN_BITS : fine;
  return ldexp(1, own > fine ? own : fine);
}

static void add_rounded(const float *partial, int n, float factor, const sw_sums *to, int64_t *sums) {
  float value[SW_PANEL];
  for (int r = 0; r < n; r++) value[r] = partial[r] * factor;
  const double step = to->grid == SW_GRID_OWN ? own_step(value, n) : 1;
  for (int r = 0; r < n; r++) {
    if (to->grid == SW_GRID_X) sums[r] += nearest((double)partial[r] * factor, to->broken);
    else sums[r] += nearest(rint(value[r] / step) * step * (1 << SW_OWN_UNIT), to->broken);
  }
}

void sw_sum_panel(const sw_mat *w, const sw_act *x, int t, int panel, int b0, int b1, const sw_sums *to) {
  const int group = to->group_cols / sw_quant_of(w->type)->cols, row = to->row ? to->row[t] : t;
  for (int end; b0 < b1; b0 = end) {
    float partial[SW_PANEL] = {0};
    end = b0 + group < b1 ? b0 + group : b1;
    add_blocks(w, x, t, panel, b0, end, partial);
    add_rounded(partial, panel_rows(w, panel), to->factor[t], to, to->far + row * to->stride + panel * SW_PANEL);
  }
  *to->wide = 1;
}

static void sums(const sw_mat *w, const sw_act *x, int t0, int t1, int p0, int p1, const sw_sums *to) {
  const int n_blocks = w->cols / sw_quant_of(w->type)->cols;
  for (int p = p0; p < p1; p++) {
    for (int t = t0; t < t1; t++) sw_sum_panel(w, x, t, p, 0, n_blocks, to);
  }
}

static void quantize(const float *f, int cols, int8_t *q, float *scale, int16_t *sum) {
  for (int k0 = 0; k0 < cols; k0 += SW_BLOCK, q += SW_BLOCK, sum += 2) {
    const int n = cols - k0 < SW_BLOCK ? cols - k0 : SW_BLOCK;
    uint32_t top = 0;
    float amax, factor;
    for (int k = 0; k < n; k++) {
      uint32_t u;
      memcpy(&u, f + k0 + k, 4);
      u &= 0x7fffffff;
      top = u > top ? u : top;
    }
    memcpy(&amax, &top, 4);
    *scale++ = sw_act_scale(top, amax, &factor);
    sum[0] = sum[1] = 0;
    for (int k = 0; k < SW_BLOCK; k++) {
      q[k] = k < n && factor != 0 ? (int8_t)lrintf(f[k0 + k] * factor) : 0;
      sum[k / 16] = (int16_t)(sum[k / 16] + q[k]);
    }
  }
}

#define SW_MATMUL_ENTRY(name, number, ...) [number] = matmul,
#define SW_SUMS_ENTRY(name, number, ...) [number] = sums,
const sw_kernels sw_kernels_scalar = {
  .name = "scalar",
  .streams = 1,
  .matmul = {SW_QUANTS(SW_MATMUL_ENTRY)},
  .sums = {SW_QUANTS(SW_SUMS_ENTRY)},
  .quantize = quantize,
};
