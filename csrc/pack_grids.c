/* Blocks of a GGUF file whose quants are places in a grid of 4 or 8 of them at once (IQ1, IQ2, IQ3), or five digits of
 * three in a byte (TQ1): what is stored for each of them, in the clear. The grids themselves come from the caller. */
#include "isa.h"
#include "layout.h"

#define ONES 0x01010101u
#define SCALES 2 /* where a coded block has them: after d */

static inline uint32_t word(const uint8_t *p, int n_bytes) {
  uint32_t w = 0;
  memcpy(&w, p, (size_t)n_bytes); /* little-endian, as pack.c */
  return w;
}

/* Sign bits of four quants in the file to bit `at` of their codes. */
static inline uint32_t sign_bits(unsigned signs, int at) { return ((signs & 15) * 0x00204081u & ONES) << at; }

/* 4 codes: an entry's bytes, and bits beside them. */
static inline void put_four(uint8_t *codes, const uint8_t *entry, uint32_t bits) {
  const uint32_t w = word(entry, 4) | bits;
  memcpy(codes, &w, 4);
}

/* 8 codes, with `signs` as their bit `at`. */
static inline void put_eight(uint8_t *codes, const uint8_t *low, const uint8_t *high, unsigned signs, int at) {
  put_four(codes, low, sign_bits(signs, at));
  put_four(codes + 4, high, sign_bits(signs >> 4, at));
}

/* Seven signs; the eighth makes their number even. */
static inline unsigned even_signs(unsigned seven) {
  seven &= 127;
  return seven | (unsigned)(__builtin_popcount(seven) & 1) << 7;
}

/* Scale i of n, as SW_SCALES_ODD8 (n 8) and SW_SCALES_ODD16 (n 16) hold them. */
static inline void put_scale(uint8_t *scales, int n, int i, unsigned scale) {
  const int half = n / 2;
  scales[i % half] = (uint8_t)(i < half ? scale : scales[i % half] | scale << 4);
}

/* Scale i is a nibble of the file, low ones first. */
static inline void put_nibble_scales(uint8_t *scales, int n, const uint8_t *file) {
  for (int i = 0; i < n; i++) put_scale(scales, n, i, file[i / 2] >> 4 * (i % 2) & 15);
}

/* One scale for two halves. */
static inline void put_both(uint8_t *scales, int j, unsigned scale) {
  put_scale(scales, 16, 2 * j, scale);
  put_scale(scales, 16, 2 * j + 1, scale);
}

static void read_iq2_xxs(const uint8_t *grid, const uint8_t *b, uint8_t *scales, uint8_t *codes) {
  for (int i = 0; i < 32; i++) {
    const uint8_t *part = b + 2 + 8 * (i / 4), *entry = grid + 8 * part[i % 4];
    const uint32_t signs = word(part + 4, 4);
    put_eight(codes + 8 * i, entry, entry + 4, even_signs(signs >> 7 * (i % 4)), 2);
    if (i % 4 == 0) put_both(scales, i / 4, signs >> 28);
  }
}

static void read_iq2_xs(const uint8_t *grid, const uint8_t *b, uint8_t *scales, uint8_t *codes) {
  for (int i = 0; i < 32; i++) {
    const uint32_t q = word(b + 2 + 2 * i, 2);
    const uint8_t *entry = grid + 8 * (q & 511);
    put_eight(codes + 8 * i, entry, entry + 4, even_signs(q >> 9), 2);
  }
  put_nibble_scales(scales, 16, b + 66);
}

static void read_iq2_s(const uint8_t *grid, const uint8_t *b, uint8_t *scales, uint8_t *codes) {
  const uint8_t *low = b + 2, *signs = b + 34, *high = b + 66;
  for (int i = 0; i < 32; i++) {
    const uint8_t *entry = grid + 8 * (low[i] | (high[i / 4] >> 2 * (i % 4) & 3) << 8);
    put_eight(codes + 8 * i, entry, entry + 4, signs[i], 2);
  }
  put_nibble_scales(scales, 16, b + 74);
}

static void read_iq3_xxs(const uint8_t *grid, const uint8_t *b, uint8_t *scales, uint8_t *codes) {
  for (int i = 0; i < 32; i++) {
    const uint8_t *q = b + 2 + 2 * i;
    const uint32_t signs = word(b + 66 + 4 * (i / 4), 4);
    put_eight(codes + 8 * i, grid + 4 * q[0], grid + 4 * q[1], even_signs(signs >> 7 * (i % 4)), 3);
    if (i % 4 == 0) put_scale(scales, 8, i / 4, signs >> 28);
  }
}

static void read_iq3_s(const uint8_t *grid, const uint8_t *b, uint8_t *scales, uint8_t *codes) {
  const uint8_t *low = b + 2, *high = b + 66, *signs = b + 74;
  for (int i = 0; i < 32; i++) {
    const unsigned top = high[i / 4] >> 2 * (i % 4); /* a bit for each of two places */
    const unsigned first = low[2 * i] | (top & 1) << 8, second = low[2 * i + 1] | (top & 2) << 7;
    put_eight(codes + 8 * i, grid + 4 * first, grid + 4 * second, signs[i], 3);
  }
  put_nibble_scales(scales, 8, b + 106);
}

/* Eight codes of IQ1: all an eighth more, or less. */
static inline void put_shifted(uint8_t *codes, const uint8_t *entry, unsigned less) {
  put_eight(codes, entry, entry + 4, less ? 255 : 0, 2);
}

static void read_iq1_s(const uint8_t *grid, const uint8_t *b, uint8_t *scales, uint8_t *codes) {
  for (int i = 0; i < 32; i++) {
    const uint32_t high = word(b + 34 + 2 * (i / 4), 2);
    put_shifted(codes + 8 * i, grid + 8 * (b[2 + i] | (high >> 3 * (i % 4) & 7) << 8), high >> 15);
    if (i % 4 == 0) put_both(scales, i / 4, high >> 12 & 7);
  }
}

/* Its d lies in four pieces beside the scales. */
static void read_iq1_m(const uint8_t *grid, const uint8_t *b, uint8_t *coded, uint8_t *scales, uint8_t *codes) {
  const uint8_t *high = b + 32, *s = b + 48;
  for (int i = 0; i < 32; i++) {
    const unsigned top = high[i / 2] >> 4 * (i % 2);
    put_shifted(codes + 8 * i, grid + 8 * (b[i] | (top & 7) << 8), top & 8);
  }
  for (int i = 0; i < 16; i++) put_scale(scales, 16, i, word(s + 2 * (i / 4), 2) >> 3 * (i % 4) & 7);
  coded[0] = (uint8_t)(s[1] >> 4 | (s[3] & 0xf0));
  coded[1] = (uint8_t)(s[5] >> 4 | (s[7] & 0xf0));
}

/* Digit i of a byte that counts in 243rds, or a little more. */
static inline uint8_t digit(uint8_t byte, int i) {
  static const uint8_t powers[5] = {1, 3, 9, 27, 81};
  return (uint8_t)((uint8_t)(byte * powers[i]) * 3 >> 8);
}

/* 160 columns in 32 bytes, 80 in 16, 16 in 4. */
static void read_tq1_0(const uint8_t *b, uint8_t *codes) {
  for (int i = 0; i < 160; i++) codes[i] = digit(b[i % 32], i / 32);
  for (int i = 0; i < 80; i++) codes[160 + i] = digit(b[32 + i % 16], i / 16);
  for (int i = 0; i < 16; i++) codes[240 + i] = digit(b[48 + i % 4], i / 4);
}

void sw_read_codes(int type, const uint8_t *grid, const uint8_t *block, uint8_t *coded) {
  const sw_quant *quant = &sw_quants[type];
  uint8_t *scales = coded + SCALES, *codes = coded + quant->low.at;
  memcpy(coded, type == SW_TQ1_0 ? block + 52 : block, 2);
  switch (type) {
    case SW_IQ2_XXS: read_iq2_xxs(grid, block, scales, codes); break;
    case SW_IQ2_XS: read_iq2_xs(grid, block, scales, codes); break;
    case SW_IQ2_S: read_iq2_s(grid, block, scales, codes); break;
    case SW_IQ3_XXS: read_iq3_xxs(grid, block, scales, codes); break;
    case SW_IQ3_S: read_iq3_s(grid, block, scales, codes); break;
    case SW_IQ1_S: read_iq1_s(grid, block, scales, codes); break;
    case SW_IQ1_M: read_iq1_m(grid, block, coded, scales, codes); break;
    case SW_TQ1_0: read_tq1_0(block, codes); break;
  }
}
