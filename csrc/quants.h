/* Every weight type, once: packing, kernels and Python take what they know of a type from its row. What numbers cannot
 * say (how scales are coded, what a quant stands for) a row names, and one function for each such name says it in code.
 * csrc/README.md, "To add a quant", lists what to touch. */
#ifndef SW_QUANTS_H
#define SW_QUANTS_H
#include <stddef.h>
#include <stdint.h>

/* What kernels made for one type fold to constants must be inlined before loops are unrolled: with plain `inline` GCC
 * 12 makes the Arm loops of Q4_0 a fifth slower (tools/bench/mca.py). */
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

/* How a block of one row becomes y: see "Formulas" in csrc/README.md. */
enum sw_formula {
  SW_FORMULA_NONE = 0,
  SW_FORMULA_FLOAT,     /* the weights are floats */
  SW_FORMULA_BLOCK,     /* 32 columns with a float scale d */
  SW_FORMULA_BLOCK_MIN, /* and a float m that is added */
  SW_FORMULA_SUPER,     /* 256 columns with a float scale d, and integer scales of each 32 or 16 columns */
  SW_FORMULA_SUPER_MIN  /* and a float dmin with as many integer mins, which are subtracted */
};

/* How the scale bytes of a block hold its integer scales and mins. */
enum sw_scales {
  SW_SCALES_NONE = 0,
  SW_SCALES_K4,    /* 8 scales and 8 mins of 6 bits in 12 bytes */
  SW_SCALES_IQ4,   /* 8 scales of 6 bits, less 32: 2 bytes of high bits, 4 of low nibbles */
  SW_SCALES_Q3,    /* 16 scales of 6 bits, less 32: 8 bytes of low nibbles, 4 of high bits */
  SW_SCALES_Q2,    /* 16 bytes: the scale in the low nibble, the min in the high one */
  SW_SCALES_INT8,  /* 16 signed bytes */
  SW_SCALES_ODD8,  /* 8 scales 2 n + 1, n of 4 bits: byte i has sub-block i in its low nibble, i + 4 in the high one */
  SW_SCALES_ODD16, /* 16 of them: byte i has those of halves i and i + 8 */
  SW_SCALES_E8M0   /* no integers: one byte that is d itself, a power of two */
};

/* How some bits of 32 columns (sub-block j) lie in a GGUF block. */
enum sw_order {
  SW_ORDER_NONE = 0,
  SW_ORDER_NIBBLES,    /* 16 bytes each: low nibbles are columns 0..15, high nibbles 16..31 */
  SW_ORDER_STRIPES,    /* 32 bytes, one a column, shared by as many successive sub-blocks as fit */
  SW_ORDER_STRIPES_Q6, /* 32 bytes, one a column, of which sub-block j has the low nibbles, j + 2 the high ones */
  SW_ORDER_WORD,       /* a bit each in one word of 32 */
  SW_ORDER_BYTES,      /* a byte each */
  SW_ORDER_CODES       /* a byte each, made by pack_grids.c from what the file holds, high bits included */
};

/* What a quant stands for. */
enum sw_values {
  SW_VALUES_PLAIN = 0, /* itself, less the type's offset */
  SW_VALUES_INT8,      /* itself, a signed byte */
  SW_VALUES_IQ4,       /* an entry of sw_iq4_values */
  SW_VALUES_FP4,       /* an entry of sw_fp4_values; in this table and those that follow none is larger than 62 */
  SW_VALUES_IQ1,       /* an entry of sw_iq1_values, in eighths */
  SW_VALUES_IQ2,       /* an entry of sw_iq2_values, in eighths */
  SW_VALUES_IQ3,       /* an entry of sw_iq3_values, in quarters */
  SW_VALUES_ODD        /* an entry of sw_odd_values */
};

/* A row a type, with its number in the ggml_type enum of GGUF files. Places are bytes from the beginning of a
 * block: of d and of m or dmin, each f16 (-1: there is none); of the scale bytes, with their coding and number; of
 * the low and high bits of the quants, with their order and width. `bytes` are a block's here, `file` its bytes in
 * a GGUF file. They differ where quants in the file are places in a grid: pack_grids.c makes a block of d, scale
 * bytes and codes from it, which is what the row describes. */
/* clang-format off */
#define SW_KINDS(X)                                                                                                    \
  /* name     #  formula   cols bytes  d,  m   scale bytes     low bits            high bits         value off. file */\
  X(F32,      0, FLOAT,       1,   4,  -1, -1, (NONE, 0, 0),   (NONE, 0, 0),       (NONE, 0, 0),     PLAIN,  0,   4)   \
  X(F16,      1, FLOAT,       1,   2,  -1, -1, (NONE, 0, 0),   (NONE, 0, 0),       (NONE, 0, 0),     PLAIN,  0,   2)   \
  X(Q4_0,     2, BLOCK,      32,  18,   0, -1, (NONE, 0, 0),   (NIBBLES, 2, 4),    (NONE, 0, 0),     PLAIN,  8,  18)   \
  X(Q4_1,     3, BLOCK_MIN,  32,  20,   0,  2, (NONE, 0, 0),   (NIBBLES, 4, 4),    (NONE, 0, 0),     PLAIN,  0,  20)   \
  X(Q5_0,     6, BLOCK,      32,  22,   0, -1, (NONE, 0, 0),   (NIBBLES, 6, 4),    (WORD, 2, 1),     PLAIN, 16,  22)   \
  X(Q5_1,     7, BLOCK_MIN,  32,  24,   0,  2, (NONE, 0, 0),   (NIBBLES, 8, 4),    (WORD, 4, 1),     PLAIN,  0,  24)   \
  X(Q8_0,     8, BLOCK,      32,  34,   0, -1, (NONE, 0, 0),   (BYTES, 2, 8),      (NONE, 0, 0),     INT8,   0,  34)   \
  X(Q2_K,    10, SUPER_MIN, 256,  84,  80, 82, (Q2, 0, 16),    (STRIPES, 16, 2),   (NONE, 0, 0),     PLAIN,  0,  84)   \
  X(Q3_K,    11, SUPER,     256, 110, 108, -1, (Q3, 96, 12),   (STRIPES, 32, 2),   (STRIPES, 0, 1),  PLAIN,  4, 110)   \
  X(Q4_K,    12, SUPER_MIN, 256, 144,   0,  2, (K4, 4, 12),    (STRIPES, 16, 4),   (NONE, 0, 0),     PLAIN,  0, 144)   \
  X(Q5_K,    13, SUPER_MIN, 256, 176,   0,  2, (K4, 4, 12),    (STRIPES, 48, 4),   (STRIPES, 16, 1), PLAIN,  0, 176)   \
  X(Q6_K,    14, SUPER,     256, 210, 208, -1, (INT8, 192, 16), (STRIPES_Q6, 0, 4), (STRIPES, 128, 2), PLAIN, 32, 210) \
  X(IQ2_XS,  17, SUPER,     256, 106,   0, -1, (ODD16, 2, 8),  (CODES, 10, 2),     (NONE, 0, 1),     IQ2,    0,  74)   \
  X(IQ3_XXS, 18, SUPER,     256, 134,   0, -1, (ODD8, 2, 4),   (CODES, 6, 4),      (NONE, 0, 0),     IQ3,    0,  98)   \
  X(IQ4_NL,  20, BLOCK,      32,  18,   0, -1, (NONE, 0, 0),   (NIBBLES, 2, 4),    (NONE, 0, 0),     IQ4,    0,  18)   \
  X(IQ3_S,   21, SUPER,     256, 134,   0, -1, (ODD8, 2, 4),   (CODES, 6, 4),      (NONE, 0, 0),     ODD,    0, 110)   \
  X(IQ4_XS,  23, SUPER,     256, 136,   0, -1, (IQ4, 2, 6),    (NIBBLES, 8, 4),    (NONE, 0, 0),     IQ4,    0, 136)   \
  X(IQ1_M,   29, SUPER,     256, 106,   0, -1, (ODD16, 2, 8),  (CODES, 10, 2),     (NONE, 0, 1),     IQ1,    0,  56)   \
  X(BF16,    30, FLOAT,       1,   2,  -1, -1, (NONE, 0, 0),   (NONE, 0, 0),       (NONE, 0, 0),     PLAIN,  0,   2)   \
  X(TQ2_0,   35, SUPER,     256,  66,  64, -1, (NONE, 0, 0),   (STRIPES, 0, 2),    (NONE, 0, 0),     PLAIN,  1,  66)   \
  X(MXFP4,   39, BLOCK,      32,  17,  -1, -1, (E8M0, 0, 1),   (NIBBLES, 1, 4),    (NONE, 0, 0),     FP4,    0,  17)

/* Packed as another type is, whose kernels they have: SW_LIKE_<name>. */
#define SW_TWINS(X)                                                                                                    \
  X(IQ2_XXS, 16, SUPER,     256, 106,   0, -1, (ODD16, 2, 8),  (CODES, 10, 2),     (NONE, 0, 1),     IQ2,    0,  66)   \
  X(IQ1_S,   19, SUPER,     256, 106,   0, -1, (ODD16, 2, 8),  (CODES, 10, 2),     (NONE, 0, 1),     IQ1,    0,  50)   \
  X(IQ2_S,   22, SUPER,     256, 106,   0, -1, (ODD16, 2, 8),  (CODES, 10, 2),     (NONE, 0, 1),     IQ2,    0,  82)   \
  X(TQ1_0,   34, SUPER,     256,  66,   0, -1, (NONE, 0, 0),   (CODES, 2, 2),      (NONE, 0, 0),     PLAIN,  1,  54)
#define SW_LIKE_IQ2_XXS IQ2_XS
#define SW_LIKE_IQ2_S IQ2_XS
#define SW_LIKE_IQ1_S IQ1_M
#define SW_LIKE_TQ1_0 TQ2_0
/* clang-format on */
#define SW_QUANTS(X) SW_TWINS(X) SW_KINDS(X)

#define SW_ENUM(name, number, ...) SW_##name = number,
enum sw_type { SW_QUANTS(SW_ENUM) SW_N_TYPES };
#undef SW_ENUM

typedef struct {
  uint8_t order;
  uint16_t at;
  uint8_t bits;
} sw_field;

/* A row of the list, and what follows from it. A packed block is `header_bytes` bytes (16 x each f16, then 16 x each
 * scale byte) and, for every 32 columns, `sub_bytes` bytes (planes of high bits, then the low bits). */
typedef struct {
  uint8_t formula, scales, values, offset;
  uint16_t cols, bytes, file_bytes; /* of a block; in a GGUF file */
  uint8_t n_half;
  uint16_t half[2];
  uint16_t scale_at, n_scale_bytes;
  sw_field low, high;
  uint16_t header_bytes, sub_bytes;
} sw_quant;

#define SW_PANEL 16 /* rows interleaved in one panel */
#define SW_BLOCK 32 /* columns that share one activation scale */

#define SW_N_HALF(d, m) (((d) >= 0) + ((m) >= 0))
#define SW_CODING(coding, at, n) SW_SCALES_##coding
#define SW_SCALE_AT(coding, at, n) at
#define SW_N_SCALE_BYTES(coding, at, n) n
#define SW_FIELD(order, at, bits) {SW_ORDER_##order, at, bits}
#define SW_BITS(order, at, bits) bits
#define SW_HEADER(d, m, scales) (2 * SW_PANEL * SW_N_HALF(d, m) + SW_PANEL * SW_N_SCALE_BYTES scales)
#define SW_SUB(low, high) (SW_PANEL * SW_BLOCK / 8 * (SW_BITS low + SW_BITS high))

#define SW_ROW(name, number, formula_, cols_, bytes_, d, m, scales_, low_, high_, values_, offset_, file_)             \
  [number] = {.formula = SW_FORMULA_##formula_,                                                                        \
              .scales = SW_CODING scales_,                                                                             \
              .values = SW_VALUES_##values_,                                                                           \
              .offset = offset_,                                                                                       \
              .cols = cols_,                                                                                           \
              .bytes = bytes_,                                                                                         \
              .file_bytes = file_,                                                                                     \
              .n_half = SW_N_HALF(d, m),                                                                               \
              .half = {d < 0 ? 0 : d, m < 0 ? 0 : m},                                                                  \
              .scale_at = SW_SCALE_AT scales_,                                                                         \
              .n_scale_bytes = SW_N_SCALE_BYTES scales_,                                                               \
              .low = SW_FIELD low_,                                                                                    \
              .high = SW_FIELD high_,                                                                                  \
              .header_bytes = SW_HEADER(d, m, scales_),                                                                \
              .sub_bytes = SW_SUB(low_, high_)},
/* In the header, so that kernels made for one type see constants. */
static const sw_quant sw_quants[SW_N_TYPES] = {SW_QUANTS(SW_ROW)};
#undef SW_ROW

/* Packing loses nothing and adds nothing. */
#define SW_CHECK(name, number, formula, cols, bytes, d, m, scales, low, high, values, offset, file)                    \
  _Static_assert(cols == 1 || SW_HEADER(d, m, scales) + cols / SW_BLOCK * SW_SUB(low, high) == SW_PANEL * bytes, #name);
SW_QUANTS(SW_CHECK)
#undef SW_CHECK

static inline const sw_quant *sw_quant_of(int type) {
  return type >= 0 && type < SW_N_TYPES && sw_quants[type].formula ? &sw_quants[type] : NULL;
}

/* 256 columns, whose d waits until all of them are summed. */
INLINE int sw_is_super(const sw_quant *quant) { return quant->formula >= SW_FORMULA_SUPER; }

INLINE int sw_has_min(const sw_quant *quant) {
  return quant->formula == SW_FORMULA_BLOCK_MIN || quant->formula == SW_FORMULA_SUPER_MIN;
}

/* A scale (and min) for each 16 columns, not 32. */
INLINE int sw_scales_halves(const sw_quant *quant) {
  return quant->scales == SW_SCALES_Q3 || quant->scales == SW_SCALES_Q2 || quant->scales == SW_SCALES_INT8 ||
         quant->scales == SW_SCALES_ODD16;
}

/* What the entries of its table of values count in: a power of two, which d is multiplied by. */
INLINE float sw_unit(const sw_quant *quant) {
  if (quant->values == SW_VALUES_IQ3) return 0.25f;
  return quant->values == SW_VALUES_IQ1 || quant->values == SW_VALUES_IQ2 ? 0.125f : 1;
}

/* Its file holds something else than its packed form, from which the file's bytes do not come back. */
INLINE int sw_is_coded(const sw_quant *quant) { return quant->low.order == SW_ORDER_CODES; }

#endif
