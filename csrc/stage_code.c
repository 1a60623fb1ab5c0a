/* Integers as bits, without loss: see stage.h. Little-endian, as every machine that Swarm runs on. */
#include <string.h>
#include "stage.h"

enum {
  BLOCK = SW_CODE_BLOCK,
  ROWS = BLOCK / 4,
  WHOLE = 64,     /* bits of values that are sent as they are */
  WIDEST = 32,    /* of others */
  SHIFTED = 0x80, /* a byte follows: how many zeros all values end with */
  NEAR_BITS = 27  /* so many bits from each of SW_STAGE_MEMBERS add up within 32 */
};

typedef uint32_t quad __attribute__((vector_size(16)));
typedef int32_t signed_quad __attribute__((vector_size(16)));

static quad load(const void *p) {
  quad v;
  memcpy(&v, p, sizeof v);
  return v;
}
static void store(void *p, quad v) { memcpy(p, &v, sizeof v); }
static uint32_t any_of(quad v) { return v[0] | v[1] | v[2] | v[3]; }

static quad zigzag(signed_quad v) { return ((quad)v << 1) ^ (quad)(v >> 31); }
static signed_quad unzigzag(quad z) { return (signed_quad)((z >> 1) ^ -(z & 1)); }
static uint64_t zigzag64(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }
static int64_t unzigzag64(uint64_t z) { return (int64_t)(z >> 1) ^ -(int64_t)(z & 1); }

size_t sw_coded_max(size_t n) { return (n + BLOCK - 1) / BLOCK * (2 + 8 * BLOCK); }

/* How the values of a block are written. */
typedef struct {
  int bits, shift;
} form;

/* used: the bits of all values, any: of all as zigzag. */
static form form_of(uint64_t used, uint64_t any) {
  if (!any) return (form){0, 0};
  const int shift = __builtin_ctzll(used), bits = 64 - __builtin_clzll(any) - shift;
  return bits > WIDEST ? (form){WHOLE, 0} : (form){bits, shift};
}

static uint8_t *put_form(form f, uint8_t *out) {
  *out++ = (uint8_t)(f.bits | (f.shift ? SHIFTED : 0));
  if (f.shift) *out++ = (uint8_t)f.shift;
  return out;
}

/* --- bits: four lanes, each with 32 values of `bits` bits one after the other ----------------------------------- */

static uint8_t *put_bits(const quad *z, int bits, uint8_t *out) {
  quad waiting = {0};
  int fill = 0;
  for (int r = 0; r < ROWS; r++) {
    waiting |= z[r] << fill;
    fill += bits;
    if (fill < 32) continue;
    store(out, waiting);
    out += sizeof waiting, fill -= 32;
    waiting = fill ? z[r] >> (bits - fill) : (quad){0};
  }
  return out;
}

static void get_bits(const uint8_t *in, int bits, quad *z) {
  const uint32_t mask = bits == 32 ? UINT32_MAX : ((uint32_t)1 << bits) - 1;
  quad now = load(in);
  int at = 0;
  for (int r = 0; r < ROWS; r++) {
    quad v = now >> at;
    at += bits;
    if (at >= 32) {
      at -= 32, in += sizeof now;
      if (r < ROWS - 1) now = load(in);
      if (at) v |= now << (bits - at);
    }
    z[r] = v & mask;
  }
}

/* --- a block of values -------------------------------------------------------------------------------------------- */

static uint8_t *put_wide(const int64_t *v, uint8_t *out) {
  uint64_t used = 0, any = 0;
  for (int i = 0; i < BLOCK; i++) used |= (uint64_t)v[i], any |= zigzag64(v[i]);
  const form f = form_of(used, any);
  out = put_form(f, out);
  if (f.bits == WHOLE) {
    memcpy(out, v, 8 * BLOCK);
    return out + 8 * BLOCK;
  }
  uint32_t z[BLOCK];
  for (int i = 0; i < BLOCK; i++) z[i] = (uint32_t)zigzag64(v[i] >> f.shift);
  quad rows[ROWS];
  memcpy(rows, z, sizeof rows);
  return f.bits ? put_bits(rows, f.bits, out) : out;
}

/* The same of small values; what others may not add to within 32 bits moves to `far` first. */
static uint8_t *put_near(int32_t *near, int64_t *far, int32_t *wide, uint8_t *out) {
  quad used = {0}, any = {0}, z[ROWS];
  for (int r = 0; r < ROWS; r++) {
    const quad v = load(near + 4 * r);
    used |= v, any |= zigzag((signed_quad)v);
  }
  const form f = form_of(any_of(used), any_of(any));
  out = put_form(f, out);
  if (!f.bits) return out;
  for (int r = 0; r < ROWS; r++) z[r] = zigzag((signed_quad)load(near + 4 * r) >> f.shift);
  if (f.bits + f.shift > NEAR_BITS) {
    for (int i = 0; i < BLOCK; i++) far[i] += near[i], near[i] = 0;
    *wide = 1;
  }
  return put_bits(z, f.bits, out);
}

static void add_far(const quad *rows, int shift, int64_t *far) {
  uint32_t z[BLOCK];
  memcpy(z, rows, sizeof z);
  for (int i = 0; i < BLOCK; i++) {
    const int32_t v = (int32_t)(z[i] >> 1) ^ -(int32_t)(z[i] & 1);
    far[i] = (int64_t)((uint64_t)far[i] + ((uint64_t)(int64_t)v << shift));
  }
}

static void add_whole(const uint8_t *in, int64_t *far) {
  int64_t v[BLOCK];
  memcpy(v, in, sizeof v);
  for (int i = 0; i < BLOCK; i++) far[i] = (int64_t)((uint64_t)far[i] + (uint64_t)v[i]);
}

/* What follows the block; NULL: it is none. */
static const uint8_t *add_block(const uint8_t *in, const uint8_t *end, int32_t *near, int64_t *far, int32_t *wide) {
  if (in == end) return NULL;
  const int shifts = *in & SHIFTED, bits = *in & ~SHIFTED;
  in++;
  if ((bits > WIDEST && bits != WHOLE) || (shifts && (!bits || bits == WHOLE || in == end))) return NULL;
  const int shift = shifts ? *in++ : 0;
  if (end - in < BLOCK / 8 * bits || shift + bits > 64 || (shifts && !shift)) return NULL;
  if (!bits) return in;
  if (bits == WHOLE) {
    add_whole(in, far);
    *wide = 1;
    return in + 8 * BLOCK;
  }
  quad z[ROWS];
  get_bits(in, bits, z);
  if (bits + shift > NEAR_BITS) {
    add_far(z, shift, far);
    *wide = 1;
  } else
    for (int r = 0; r < ROWS; r++) store(near + 4 * r, load(near + 4 * r) + ((quad)unzigzag(z[r]) << shift));
  return in + BLOCK / 8 * bits;
}

/* --- a token ------------------------------------------------------------------------------------------------------ */

typedef struct {
  int32_t near[BLOCK];
  int64_t far[BLOCK];
} rest;

static rest rest_of(const int32_t *near, const int64_t *far, size_t n) {
  rest r = {0};
  memcpy(r.near, near, n * sizeof *near);
  memcpy(r.far, far, n * sizeof *far);
  return r;
}

static void put_back(const rest *r, int32_t *near, int64_t *far, size_t n) {
  memcpy(near, r->near, n * sizeof *near);
  memcpy(far, r->far, n * sizeof *far);
}

static uint8_t *put_block(int32_t *near, int64_t *far, int32_t *wide, uint8_t *out) {
  if (!*wide) return put_near(near, far, wide, out);
  for (int i = 0; i < BLOCK; i++) far[i] += near[i], near[i] = 0;
  return put_wide(far, out);
}

uint8_t *sw_encode(int32_t *near, int64_t *far, int32_t *wide, size_t n, uint8_t *out) {
  for (; n >= BLOCK; n -= BLOCK, near += BLOCK, far += BLOCK) out = put_block(near, far, wide, out);
  if (!n) return out;
  rest r = rest_of(near, far, n);
  out = put_block(r.near, r.far, wide, out);
  put_back(&r, near, far, n);
  return out;
}

const uint8_t *sw_decode(const uint8_t *in, const uint8_t *end, int32_t *near, int64_t *far, int32_t *wide, size_t n) {
  for (; n >= BLOCK && in; n -= BLOCK, near += BLOCK, far += BLOCK) in = add_block(in, end, near, far, wide);
  if (!n || !in) return in;
  rest r = rest_of(near, far, n);
  in = add_block(in, end, r.near, r.far, wide);
  put_back(&r, near, far, n);
  for (size_t i = n; i < BLOCK; i++)
    if (r.near[i] || r.far[i]) return NULL;
  return in;
}
