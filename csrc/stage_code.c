/* Integers as bits, without loss: see stage.h. Little-endian, as every machine that Swarm runs on. */
#include <string.h>
#include "stage.h"

enum { BLOCK = SW_CODE_BLOCK, WIDEST = 56, WHOLE = 64, SHIFTED = 0x80 };

static uint64_t load64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
  return v;
}
static void store64(uint8_t *p, uint64_t v) { memcpy(p, &v, sizeof v); }

static uint64_t zigzag(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }
static int64_t unzigzag(uint64_t z) { return (int64_t)(z >> 1) ^ -(int64_t)(z & 1); }

size_t sw_coded_max(size_t n) { return (n + BLOCK - 1) / BLOCK * (2 + 8 * BLOCK); }

/* w bits of each value, the first one lowest; writes at most 8 bytes past its 4 * w. */
static void put_bits(const uint64_t *z, int w, uint8_t *out) {
  uint64_t bits = 0;
  int fill = 0;
  if (2 * w <= WIDEST) { /* two at a time: half as long a chain */
    for (int i = 0; i < BLOCK; i += 2) {
      bits |= (z[i] | z[i + 1] << w) << fill;
      store64(out, bits);
      fill += 2 * w, out += fill >> 3, bits >>= fill & ~7, fill &= 7;
    }
    return;
  }
  for (int i = 0; i < BLOCK; i++) {
    bits |= z[i] << fill;
    store64(out, bits);
    fill += w, out += fill >> 3, bits >>= fill & ~7, fill &= 7; /* fill: at most 63 */
  }
}

static uint8_t *put_block(const int64_t *v, uint8_t *out) {
  uint64_t z[BLOCK], any = 0;
  uint64_t used = 0;
  for (int i = 0; i < BLOCK; i++) used |= (uint64_t)v[i], any |= zigzag(v[i]);
  if (!any) {
    *out = 0;
    return out + 1;
  }
  const int shift = __builtin_ctzll(used), w = 64 - __builtin_clzll(any) - shift;
  if (w > WIDEST) {
    *out++ = WHOLE;
    for (int i = 0; i < BLOCK; i++) store64(out + 8 * i, zigzag(v[i]));
    return out + 8 * BLOCK;
  }
  *out++ = (uint8_t)(w | (shift ? SHIFTED : 0));
  if (shift) *out++ = (uint8_t)shift;
  for (int i = 0; i < BLOCK; i++) z[i] = zigzag(v[i] >> shift);
  put_bits(z, w, out);
  return out + 4 * w;
}

size_t sw_encode(const int64_t *values, size_t n, uint8_t *out) {
  uint8_t *const start = out;
  for (; n >= BLOCK; n -= BLOCK, values += BLOCK) out = put_block(values, out);
  if (n) {
    int64_t rest[BLOCK] = {0};
    memcpy(rest, values, n * sizeof *values);
    out = put_block(rest, out);
  }
  return (size_t)(out - start);
}

/* Eight values of w bits are w bytes. */
static void add_bits(const uint8_t *in, int w, int shift, int64_t *sums) {
  const uint64_t mask = ((uint64_t)1 << w) - 1;
  for (int i = 0; i < BLOCK; i += 8, in += w)
    for (int k = 0; k < 8; k++) {
      const uint64_t z = load64(in + (k * w >> 3)) >> (k * w & 7) & mask;
      sums[i + k] = (int64_t)((uint64_t)sums[i + k] + ((uint64_t)unzigzag(z) << shift));
    }
}

static void add_whole(const uint8_t *in, int64_t *sums) {
  for (int i = 0; i < BLOCK; i++) sums[i] = (int64_t)((uint64_t)sums[i] + (uint64_t)unzigzag(load64(in + 8 * i)));
}

/* What follows the block; NULL: it is none. */
static const uint8_t *add_block(const uint8_t *in, const uint8_t *end, int64_t *sums) {
  if (in == end) return NULL;
  const int shifts = *in & SHIFTED, w = *in & ~SHIFTED;
  in++;
  if (w > WIDEST && (w != WHOLE || shifts)) return NULL;
  if (shifts && in == end) return NULL;
  const int shift = shifts ? *in++ : 0;
  if (end - in < 4 * w || shift + w > 64 || (shifts && (!w || !shift))) return NULL;
  if (w == WHOLE) add_whole(in, sums);
  else if (w) add_bits(in, w, shift, sums);
  return in + 4 * w;
}

int sw_decode(const uint8_t *body, size_t n_bytes, int64_t *sums, size_t n, int set) {
  const uint8_t *const end = body + n_bytes;
  if (set) memset(sums, 0, n * sizeof *sums);
  for (; n >= BLOCK; n -= BLOCK, sums += BLOCK)
    if (!(body = add_block(body, end, sums))) return -1;
  if (n) {
    int64_t rest[BLOCK] = {0};
    memcpy(rest, sums, n * sizeof *sums);
    if (!(body = add_block(body, end, rest))) return -1;
    memcpy(sums, rest, n * sizeof *sums);
    for (size_t i = n; i < BLOCK; i++)
      if (rest[i]) return -1;
  }
  return body == end ? 0 : -1;
}
