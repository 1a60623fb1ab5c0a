/* The plain C kernels: what every other instruction set must equal bit for bit. Formulas: csrc/README.md. */
#include <math.h>
#include "isa.h"
#include "layout.h"

static inline int dot16(const int16_t *w, const int8_t *a) {
  int sum = 0;
  for (int k = 0; k < 16; k++) sum += w[k] * a[k];
  return sum;
}

/* acc += one row's 32 columns times one token's. */
static inline float block_row(int kind, const sw_clear *c, int r, const int8_t *a, float a_scale, const int16_t *sum,
                              float acc) {
  const int dot0 = dot16(c->q[r], a), dot1 = dot16(c->q[r] + 16, a + 16);
  switch (kind) {
    case SW_KIND_SCALE: return fmaf(c->d[r] * a_scale, (float)(dot0 + dot1), acc);
    case SW_KIND_SCALE_MIN:
      acc = fmaf(c->d[r] * a_scale, (float)(dot0 + dot1), acc);
      return fmaf(c->m[r], a_scale * (float)(sum[0] + sum[1]), acc);
  }
  acc = fmaf(c->d[r] * a_scale, (float)(c->scale[0][r] * dot0 + c->scale[1][r] * dot1), acc);
  if (kind == SW_KIND_HALVES) return acc;
  return fmaf(-(c->m[r] * a_scale), (float)(c->min[0][r] * sum[0] + c->min[1][r] * sum[1]), acc);
}

static void quant_panel(const sw_mat *w, const sw_layout *l, const sw_act *x, const sw_tile *tile, int panel, int t0,
                        int t1, float *y, ptrdiff_t y_stride) {
  const uint8_t *p = tile->data + panel * tile->panel_bytes;
  const int n_rows = w->rows - panel * SW_PANEL < SW_PANEL ? w->rows - panel * SW_PANEL : SW_PANEL;
  const int parts = l->cols / SW_BLOCK;
  sw_clear clear;
  for (int b = 0; b < tile->n_blocks * parts; b++) {
    const size_t at = (size_t)tile->block0 * parts + b;
    sw_clear_block(w->type, p + (size_t)(b / parts) * SW_PANEL * l->bytes, b % parts, &clear);
    for (int t = t0; t < t1; t++) {
      const int8_t *a = x->q + t * x->q_stride + at * SW_BLOCK;
      const float a_scale = x->scale[t * x->s_stride + at];
      const int16_t *sum = x->sum + 2 * (t * x->s_stride + at);
      float *out = y + t * y_stride + panel * SW_PANEL;
      for (int r = 0; r < n_rows; r++) out[r] = block_row(l->kind, &clear, r, a, a_scale, sum, at ? out[r] : 0);
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
  return type == SW_F16 ? sw_f16_to_f32(h) : sw_bf16_to_f32(h);
}

static void float_panel(const sw_mat *w, const sw_layout *l, const sw_act *x, const sw_tile *tile, int panel, int t0,
                        int t1, float *y, ptrdiff_t y_stride) {
  const uint8_t *p = tile->data + panel * tile->panel_bytes;
  const int n_rows = w->rows - panel * SW_PANEL < SW_PANEL ? w->rows - panel * SW_PANEL : SW_PANEL;
  for (int t = t0; t < t1; t++) {
    const float *f = x->f + t * x->f_stride + tile->block0;
    float *out = y + t * y_stride + panel * SW_PANEL;
    for (int r = 0; r < n_rows; r++) {
      float acc = tile->block0 ? out[r] : 0;
      for (int k = 0; k < tile->n_blocks; k++) {
        acc = fmaf(float_at(w->type, p + ((size_t)k * SW_PANEL + r) * l->bytes), f[k], acc);
      }
      out[r] = acc;
    }
  }
}

static void matmul(const sw_mat *w, const sw_act *x, int t0, int t1, int p0, int p1, float *y, ptrdiff_t y_stride) {
  const sw_layout *l = sw_layout_of(w->type);
  const int n_tiles = sw_n_tiles(w, l);
  for (int i = 0; i < n_tiles; i++) {
    const sw_tile tile = sw_tile_at(w, l, i);
    for (int p = p0; p < p1; p++) {
      if (l->kind == SW_KIND_FLOAT) float_panel(w, l, x, &tile, p, t0, t1, y, y_stride);
      else quant_panel(w, l, x, &tile, p, t0, t1, y, y_stride);
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

const sw_kernels sw_kernels_scalar = {
  .name = "scalar",
  .matmul = {
    [SW_F32] = matmul, [SW_F16] = matmul, [SW_BF16] = matmul, [SW_Q4_0] = matmul, [SW_Q4_1] = matmul,
    [SW_Q5_0] = matmul, [SW_Q5_1] = matmul, [SW_Q8_0] = matmul, [SW_Q2_K] = matmul, [SW_Q3_K] = matmul,
    [SW_Q4_K] = matmul, [SW_Q5_K] = matmul, [SW_Q6_K] = matmul, [SW_IQ4_NL] = matmul, [SW_IQ4_XS] = matmul,
  },
  .quantize = quantize,
};
