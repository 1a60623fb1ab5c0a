/* Float operations: one source (ops.inc), compiled once per instruction set, the same bits from each. */
#ifndef SW_OPS_H
#define SW_OPS_H
#include "sw.h"

#define SW_KV_BLOCK 64     /* positions per step of the online softmax; aligned to position 0 */
#define SW_KV_SEGMENT 1024 /* positions per independent partial result; aligned to position 0 */
#define SW_TILE_ROWS 32    /* query rows that share a block of keys and values */

enum sw_kv_kind { SW_KV_F16 = 0, SW_KV_Q8_0 = 1, SW_KV_F32 = 2 };

/* Keys and values of one layer; int8 holds their Hadamard transform (see sw_ops).
 * Keys: (n_kv_heads, capacity / 16, head_dim, 16), so that 16 positions are lanes.
 * Values: (n_kv_heads, capacity, head_dim). f32, f16 bits, or int8 with one f16 scale per position and 32 dims:
 * k_scale (n_kv_heads, capacity / 16, head_dim / 32, 16), v_scale (n_kv_heads, capacity, head_dim / 32).
 * v NULL: a value is the first value_dim columns of its key. */
typedef struct {
  uint8_t *k, *v;
  uint16_t *k_scale, *v_scale;
  int32_t kind, capacity; /* capacity in positions, a multiple of SW_KV_BLOCK */
  int32_t n_kv_heads, head_dim, value_dim;
} sw_kv;

typedef struct {
  const char *name;
  /* out = (x * 1/rms) * w; returns rms = sqrt(mean(x^2) + eps) */
  float (*rmsnorm)(const float *x, const float *w, float eps, int n, float *out);
  /* x += d */
  void (*add)(float *x, const float *d, int n);
  /* y = fma(a, x, y) */
  void (*axpy)(float a, const float *x, float *y, int n);
  /* out = silu(gate) * up, silu(g) = g / (1 + exp(-g)) */
  void (*silu_mul)(const float *gate, const float *up, int n, float *out);
  /* out = (up + 1) * gate * sigmoid(alpha * gate), gate at most `limit`, up within it on both sides */
  void (*swiglu)(const float *gate, const float *up, float alpha, float limit, int n, float *out);
  /* p = softmax(p) in place */
  void (*softmax)(float *p, int n);
  void (*sigmoid)(float *p, int n);
  /* Rotate the first 2 * half of x. pair 0: (x[i], x[i + half]); pair 1: (x[2i], x[2i + 1]). */
  void (*rope)(float *x, const float *cos, const float *sin, int half, int pair);
  /* The normalised Hadamard transform of each power of two that divides n (the largest): its own inverse. It spreads
   * outliers over their neighbours, so that blocks of int8 lose less. */
  void (*hadamard)(float *x, int n);
  /* Store the key and the value of one head at one position. */
  void (*kv_store)(const sw_kv *kv, int head, int pos, const float *k, const float *v);
  /* Attention of `rows` <= SW_TILE_ROWS query rows (rows, head_dim), already scaled, over positions [begin, end) of
   * one kv head; begin is a multiple of SW_KV_SEGMENT. Row r sees positions < limit[r], and of them (first NULL: all)
   * those >= first[r]. Leaves the running maximum m, the sum l and the unnormalised output acc (rows, value_dim).
   * scratch: sw_attn_scratch floats. */
  void (*attend)(const sw_kv *kv, int head, const float *q, const int32_t *first, const int32_t *limit, int rows,
                 int begin, int end, float *m, float *l, float *acc, float *scratch);
  /* Merge n_segments partial results of one row, each (head_dim), apart by the strides, and normalise. *sink (NULL:
   * none) is one more score, of a position without a value. */
  void (*merge)(const float *m, const float *l, const float *acc, ptrdiff_t m_stride, ptrdiff_t acc_stride,
                int n_segments, const float *sink, int head_dim, float *out);
  /* x = fma(a, f32(sums) * unit, x); the sums are 0 afterwards */
  void (*add_sums)(float a, int32_t *sums, float unit, float *x, int n);
} sw_ops;

/* Scores, the scales of a block of keys and of values, and a block of values that are parts of keys (latent_dim). */
static inline size_t sw_attn_scratch(int head_dim, int latent_dim) {
  return (size_t)SW_TILE_ROWS * SW_KV_BLOCK + 4 * head_dim + (size_t)SW_KV_BLOCK * latent_dim;
}

const sw_ops *sw_ops_for(const char *kernels_name); /* the float ops that go with a kernel table */
#endif
