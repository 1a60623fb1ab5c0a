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

static void quant_panel(const sw_mat *w, const sw_quant *quant, const sw_act *x, const sw_tile *tile, int panel, int t,
                        float *y) {
  const uint8_t *p = tile->data + panel * tile->panel_bytes;
  const int n_rows = w->rows - panel * SW_PANEL < SW_PANEL ? w->rows - panel * SW_PANEL : SW_PANEL;
  const int n_sub = quant->cols / SW_BLOCK;
  partial_sums s[SW_PANEL];
  sw_clear clear;
  for (int b = 0; b < tile->n_blocks * n_sub; b++) {
    const ptrdiff_t at = (ptrdiff_t)tile->block0 * n_sub + b, sum = t * x->s_stride + at;
    const int8_t *a = x->q + t * x->q_stride + at * SW_BLOCK;
    sw_clear_block(w->type, p + (size_t)(b / n_sub) * SW_PANEL * quant->bytes, b % n_sub, &clear);
    for (int r = 0; r < n_rows; r++) {
      float *out = y + panel * SW_PANEL + r;
      *out = block_row(quant, &clear, r, a, x->scale[sum], x->sum + 2 * sum, b % n_sub == 0, b % n_sub == n_sub - 1,
                       &s[r], at / n_sub ? *out : 0);
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

static void float_panel(const sw_mat *w, const sw_quant *quant, const sw_act *x, const sw_tile *tile, int panel, int t,
                        float *y) {
  const uint8_t *p = tile->data + panel * tile->panel_bytes;
  const int n_rows = w->rows - panel * SW_PANEL < SW_PANEL ? w->rows - panel * SW_PANEL : SW_PANEL;
  const float *f = x->f + t * x->f_stride + tile->block0;
  float *out = y + panel * SW_PANEL;
  for (int r = 0; r < n_rows; r++) {
    float acc = tile->block0 ? out[r] : 0;
    for (int k = 0; k < tile->n_blocks; k++) {
      acc = fmaf(float_at(w->type, p + ((size_t)k * SW_PANEL + r) * quant->bytes), f[k], acc);
    }
    out[r] = acc;
  }
}

static void matmul(const sw_mat *w, const sw_act *x, int t0, int t1, int p0, int p1, float *y, ptrdiff_t y_stride) {
  const sw_quant *quant = sw_quant_of(w->type);
  const int n_tiles = sw_n_tiles(w, quant);
  for (int i = 0; i < n_tiles; i++) {
    const sw_tile tile = sw_tile_at(w, quant, i);
    for (int p = p0; p < p1; p++) {
      for (int t = t0; t < t1; t++) {
        if (quant->formula == SW_FORMULA_FLOAT) float_panel(w, quant, x, &tile, p, t, y + t * y_stride);
        else quant_panel(w, quant, x, &tile, p, t, y + t * y_stride);
      }
    }
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

#define SW_ENTRY(name, number, ...) [number] = matmul,
const sw_kernels sw_kernels_scalar = {.name = "scalar", .matmul = {SW_QUANTS(SW_ENTRY)}, .quantize = quantize};
