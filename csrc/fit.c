/* Scales for blocks of the K quants, by search: the slow half of quantising (swarm/convert/k_quants.py is the rest).
 * Sums are of LANES partial sums in one order, so that every machine makes the same file. */
#include <math.h>
#include "fit.h"

#define LANES 8

/* Round half to even, for |x| < 2^22. */
static inline float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

static inline float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

static inline float sum_of(const float *lane) {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

typedef struct {
  float w, x, l, l2, xl; /* weighted sums of 1, x, level, level^2, x * level */
} sums;

/* The levels of n values at `inverse` steps a unit above `low`, only in their sums. */
static sums weigh(const float *x, const float *weight, int n, float low, float inverse, float bottom, float top) {
  float w[LANES] = {0}, sx[LANES] = {0}, l[LANES] = {0}, l2[LANES] = {0}, xl[LANES] = {0};
  for (int i = 0; i < n; i += LANES)
    for (int j = 0; j < LANES; j++) {
      const float level = clamp(nearest((x[i + j] - low) * inverse), bottom, top), weighted = weight[i + j] * level;
      w[j] += weight[i + j];
      sx[j] += weight[i + j] * x[i + j];
      l[j] += weighted;
      l2[j] += weighted * level;
      xl[j] += weighted * x[i + j];
    }
  return (sums){sum_of(w), sum_of(sx), sum_of(l), sum_of(l2), sum_of(xl)};
}

void sw_fit_with_minimum(const float *x, int n, int top, float *scale, float *minimum) {
  float low = 0.0f, high = x[0], squares[LANES] = {0}, weight[SW_FIT_MAX];
  for (int i = 0; i < n; i++) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    squares[i % LANES] += x[i] * x[i];
  }
  const float size = sqrtf(sum_of(squares) / (float)n), width = high - low;
  *scale = width / (float)top;
  *minimum = -low;
  if (!(width > 0.0f) || !(*scale > 1e-30f)) return; /* one value, none that is a number, or nothing to speak of */
  for (int i = 0; i < n; i++) weight[i] = size + fabsf(x[i]);
  float best = INFINITY;
  for (int step = -10; step <= 10; step++) { /* tenths of a level */
    const sums s = weigh(x, weight, n, low, ((float)top + 0.1f * (float)step) / width, 0.0f, (float)top);
    const float determinant = s.w * s.l2 - s.l * s.l;
    float a = 0.0f, b = 1.0f;
    if (determinant > 0.0f) {
      a = (s.w * s.xl - s.x * s.l) / determinant;
      b = (s.l2 * s.x - s.l * s.xl) / determinant;
    }
    if (b > 0.0f) { /* a minimum is never above zero */
      a = s.l2 > 0.0f ? s.xl / s.l2 : 0.0f;
      b = 0.0f;
    }
    /* The weighted error, less the sum of squares of x, which is the same for all. */
    const float error = a * (a * s.l2 + 2.0f * b * s.l - 2.0f * s.xl) + b * (b * s.w - 2.0f * s.x);
    if (a > 0.0f && error < best) {
      best = error;
      *scale = a;
      *minimum = -b;
    }
  }
}

float sw_fit_signed(const float *x, int n, int half) {
  float extreme = 0.0f, weight[SW_FIT_MAX], best = 0.0f, scale = 0.0f;
  for (int i = 0; i < n; i++) {
    extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    weight[i] = x[i] * x[i];
  }
  if (!(fabsf(extreme) > 1e-18f)) return extreme / (float)-half; /* its square would vanish */
  for (int step = -9; step <= 9; step++) {
    const float inverse = -((float)half + 0.1f * (float)step) / extreme;
    const sums s = weigh(x, weight, n, 0.0f, inverse, (float)-half, (float)half - 1.0f);
    const float gain = s.l2 > 0.0f ? s.xl * s.xl / s.l2 : 0.0f;
    if (gain > best) {
      best = gain;
      scale = s.xl / s.l2;
    }
  }
  return scale;
}
