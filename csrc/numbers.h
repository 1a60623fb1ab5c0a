/* Small work on numbers between steps: what came is checked, the next token is drawn. The same bits everywhere. */
#ifndef SW_NUMBERS_H
#define SW_NUMBERS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { SW_SCANNED = 32 }; /* values that are compared together, so that most are passed over quickly */

/* In words: the exponent of NaN and of an infinity is all ones. No early end, so that it becomes vectors. */
static int sw_all_finite(const uint8_t *p, size_t n_floats) {
  uint32_t found = 0;
  for (size_t i = 0; i < n_floats; i++) {
    uint32_t bits;
    memcpy(&bits, p + 4 * i, 4);
    found |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return !found;
}

/* a comes after b where the largest come first, and among equals the lowest number. */
static int sw_comes_after(const float *x, int64_t a, int64_t b) { return x[a] < x[b] || (x[a] == x[b] && a > b); }

/* heap[0] comes last of all; put what lies at `i` in its place below. */
static void sw_sift(const float *x, int64_t *heap, int64_t n, int64_t i) {
  for (;;) {
    int64_t last = i;
    for (int64_t child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
      if (sw_comes_after(x, heap[child], heap[last])) last = child;
    if (last == i) return;
    const int64_t moved = heap[i];
    heap[i] = heap[last], heap[last] = moved, i = last;
  }
}

/* Numbers of the k largest of x (n,) that reach `floor`, largest first, among equals the lowest; how many. No NaN. */
static int64_t sw_largest(const float *x, int64_t n, int64_t k, float floor, int64_t *ids) {
  int64_t found = 0;
  for (int64_t start = 0; start < n; start += SW_SCANNED) {
    const int64_t end = start + SW_SCANNED < n ? start + SW_SCANNED : n;
    const float least = found == k ? x[ids[0]] : floor;
    int any = 0;
    for (int64_t i = start; i < end; i++) any |= x[i] >= least;
    for (int64_t i = start; any && i < end; i++) {
      if (found < k && x[i] >= floor) {
        ids[found++] = i;
        for (int64_t j = found / 2 - 1; found == k && j >= 0; j--) sw_sift(x, ids, k, j);
      } else if (found == k && x[i] > x[ids[0]]) {
        ids[0] = i;
        sw_sift(x, ids, k, 0);
      }
    }
  }
  for (int64_t j = found / 2 - 1; found < k && j >= 0; j--) sw_sift(x, ids, found, j);
  for (int64_t left = found - 1; left > 0; left--) {
    const int64_t last = ids[0];
    ids[0] = ids[left], ids[left] = last;
    sw_sift(x, ids, left, 0);
  }
  return found;
}

/* e^x for x in [-47, 0], less counts as -47; to 1e-10 relative. powers[i] = 2^(-i/64), from correctly rounded square
   roots and products: no C library's mathematics are in it, so a token is the same wherever it is drawn. */
static double sw_exponential(double x, const double *powers) {
  x = x > -47.0 ? x : -47.0;
  const double steps = rint(x * 92.33248261689366);                  /* 64 / ln 2 */
  const double r = x - steps * 0.010830424696249145;                 /* ln 2 / 64: |r| is at most half of that */
  const double series = ((r * (1.0 / 6) + 0.5) * r + 1.0) * r + 1.0; /* the rest of it is below 4e-11 */
  return series * powers[(int)-steps];
}

/* The first word of Philox4x64-10 (Salmon et al. 2011) for this key at this place: what numpy's gives first. */
static uint64_t sw_philox(uint64_t key, uint64_t place) {
  uint64_t c[4] = {place + 1, place == UINT64_MAX, 0, 0}, k[2] = {key, 0};
  for (int round = 0; round < 10; round++) {
    const unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93u * c[0];
    const unsigned __int128 b = (unsigned __int128)0xCA5A826395121157u * c[2];
    const uint64_t next[4] = {(uint64_t)(b >> 64) ^ c[1] ^ k[0], (uint64_t)b, (uint64_t)(a >> 64) ^ c[3] ^ k[1],
                              (uint64_t)a};
    memcpy(c, next, sizeof c);
    k[0] += 0x9E3779B97F4A7C15u, k[1] += 0xBB67AE8584CAA73Bu;
  }
  return c[0];
}

#endif
