/* GGUF blocks <-> packed panels, lossless for any bytes. The layout is described in csrc/README.md.
 *
 * Between the two forms a row's 32 quants pass through eight words of four: word g holds columns 4g..4g+3, one a byte.
 * Both sides read little-endian words. */
#include "isa.h"
#include "layout.h"

#define ONES 0x01010101u

const int8_t sw_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t sw_fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}; /* twice those of E2M1 */
/* Of 3 bits: -1, 0, 1, and an eighth more or (bit 2) less; magnitude and (bit 2) sign. Of 4: magnitude and sign. */
const int8_t sw_iq1_values[16] = {-7, 1, 9, 0, -9, -1, 7};
const int8_t sw_iq2_values[16] = {8, 25, 43, 0, -8, -25, -43};
const int8_t sw_iq3_values[16] = {4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62};
const int8_t sw_odd_values[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};

const char *sw_type_name(int type) {
#define SW_NAME(name, number, ...) [number] = #name,
  static const char *const names[SW_N_TYPES] = {SW_QUANTS(SW_NAME)};
#undef SW_NAME
  return sw_quant_of(type) ? names[type] : NULL;
}

int sw_type_block(int type) {
  const sw_quant *quant = sw_quant_of(type);
  return quant ? quant->cols : 0;
}

int sw_group_cols(int type, int unit) {
  const int block = sw_type_block(type) > SW_BLOCK ? sw_type_block(type) : SW_BLOCK;
  int n = 1; /* blocks in the least common multiple of block and unit */
  while (n * block % unit) n++;
  for (int parts = 1;; parts++) {
    if (n % parts == 0 && n / parts * block <= SW_MAX_GROUP_COLS) return n / parts * block;
  }
}

size_t sw_type_bytes(int type) {
  const sw_quant *quant = sw_quant_of(type);
  return quant ? quant->file_bytes : 0;
}

size_t sw_packed_bytes(int type, int rows, int cols, int tile_cols) {
  const sw_quant *quant = sw_quant_of(type);
  (void)tile_cols; /* tiles reorder the blocks; they add none */
  if (!quant || rows < 0 || cols < 0) return 0;
  const size_t panels = ((size_t)rows + SW_PANEL - 1) / SW_PANEL;
  return panels * SW_PANEL * quant->bytes * (size_t)(cols / quant->cols);
}

static inline void load_words(uint32_t *w, const uint8_t *p, int n) { memcpy(w, p, (size_t)n * 4); }

static inline void or_words(uint8_t *p, const uint32_t *w, int n) {
  for (int i = 0; i < n; i++) {
    uint32_t u;
    memcpy(&u, p + 4 * i, 4);
    u |= w[i];
    memcpy(p + 4 * i, &u, 4);
  }
}

/* Four bits to the lowest bits of four bytes, and back. */
static inline uint32_t deposit4(uint32_t n) { return (n * 0x00204081u) & ONES; }
static inline uint32_t extract4(uint32_t w) { return ((w & ONES) * 0x01020408u) >> 24 & 15; }

/* --- one row of one GGUF block: 32 quants to and from words ----------------------------------------------------- */

static inline void nibbles_get(uint32_t g[8], const uint8_t *p) { /* 16 bytes: low = columns 0..15 */
  load_words(g, p, 4);
  for (int i = 0; i < 4; i++) {
    g[4 + i] = g[i] >> 4 & 15 * ONES;
    g[i] &= 15 * ONES;
  }
}

static inline void nibbles_put(uint8_t *p, const uint32_t g[8]) {
  uint32_t w[4];
  for (int i = 0; i < 4; i++) w[i] = (g[i] & 15 * ONES) | (g[4 + i] & 15 * ONES) << 4;
  or_words(p, w, 4);
}

/* 32 bytes that hold `width` bits of 32 quants at bit `shift`; they land at bit `at` of the quants. */
static inline void stripes_get(uint32_t g[8], const uint8_t *p, int shift, uint32_t mask, int at) {
  uint32_t w[8];
  load_words(w, p, 8);
  for (int i = 0; i < 8; i++) g[i] |= (w[i] >> shift & mask * ONES) << at;
}

static inline void stripes_put(uint8_t *p, const uint32_t g[8], int shift, uint32_t mask, int at) {
  uint32_t w[8];
  for (int i = 0; i < 8; i++) w[i] = (g[i] >> at & mask * ONES) << shift;
  or_words(p, w, 8);
}

static inline void word_get(uint32_t g[8], const uint8_t *p, int at) {
  uint32_t h;
  memcpy(&h, p, 4);
  for (int i = 0; i < 8; i++) g[i] |= deposit4(h >> 4 * i & 15) << at;
}

static inline void word_put(uint8_t *p, const uint32_t g[8], int at) {
  uint32_t h = 0;
  for (int i = 0; i < 8; i++) h |= extract4(g[i] >> at) << 4 * i;
  or_words(p, &h, 1);
}

/* The bits of sub-block j in one field of GGUF block b to (put: from) bit `to` of the quants. */
INLINE void field_move(const sw_field *field, uint8_t *b, uint32_t g[8], int j, int to, int put) {
  const int width = field->bits, shared = width ? 8 / width : 1;
  int shift = 0;
  b += field->at;
  switch (field->order) {
    case SW_ORDER_NIBBLES:
      b += 16 * j;
      put ? nibbles_put(b, g) : nibbles_get(g, b);
      return;
    case SW_ORDER_WORD: put ? word_put(b, g, to) : word_get(g, b, to); return;
    case SW_ORDER_BYTES: put ? or_words(b, g, 8) : load_words(g, b, 8); return;
    case SW_ORDER_CODES: load_words(g, b + 32 * j, 8); return;
    case SW_ORDER_STRIPES:
      b += 32 * (j / shared);
      shift = width * (j % shared);
      break;
    case SW_ORDER_STRIPES_Q6:
      b += 64 * (j / 4) + 32 * (j % 2);
      shift = 4 * (j % 4 / 2);
      break;
    default: return;
  }
  const uint32_t mask = (1u << width) - 1;
  put ? stripes_put(b, g, shift, mask, to) : stripes_get(g, b, shift, mask, to);
}

/* --- one row of a panel: 32 quants to and from the planes -------------------------------------------------------- */

/* Vector v of the nibbles: low = group 2v, high = group 2v + 1. */
static inline void panel_nibbles_put(uint8_t *p, const uint32_t g[8]) {
  for (int v = 0; v < 4; v++) {
    uint32_t w = (g[2 * v] & 15 * ONES) | (g[2 * v + 1] & 15 * ONES) << 4;
    memcpy(p + 64 * v, &w, 4);
  }
}

static inline void panel_nibbles_get(uint32_t g[8], const uint8_t *p) {
  for (int v = 0; v < 4; v++) {
    uint32_t w;
    memcpy(&w, p + 64 * v, 4);
    g[2 * v] |= w & 15 * ONES;
    g[2 * v + 1] |= w >> 4 & 15 * ONES;
  }
}

/* Bit g of the byte is the quant's bit `at` in group g. */
static inline void panel_plane1_put(uint8_t *p, const uint32_t g[8], int at) {
  uint32_t w = 0;
  for (int i = 0; i < 8; i++) w |= (g[i] >> at & ONES) << i;
  memcpy(p, &w, 4);
}

static inline void panel_plane1_get(uint32_t g[8], const uint8_t *p, int at) {
  uint32_t w;
  memcpy(&w, p, 4);
  for (int i = 0; i < 8; i++) g[i] |= (w >> i & ONES) << at;
}

/* Vector v, bits 2k and 2k + 1: the quant's bits `at` and `at` + 1 in group 4v + k. */
static inline void panel_plane2_put(uint8_t *p, const uint32_t g[8], int at) {
  for (int v = 0; v < 2; v++) {
    uint32_t w = 0;
    for (int k = 0; k < 4; k++) w |= (g[4 * v + k] >> at & 3 * ONES) << 2 * k;
    memcpy(p + 64 * v, &w, 4);
  }
}

static inline void panel_plane2_get(uint32_t g[8], const uint8_t *p, int at) {
  for (int v = 0; v < 2; v++) {
    uint32_t w;
    memcpy(&w, p + 64 * v, 4);
    for (int k = 0; k < 4; k++) g[4 * v + k] |= (w >> 2 * k & 3 * ONES) << at;
  }
}

/* Two bits: groups g and 4 + g lie side by side. */
static inline int two_vector(int g) { return g % 4 / 2; }
static inline int two_shift(int g) { return 4 * (g % 2) + 2 * (g / 4); }

static inline void panel_two_put(uint8_t *p, const uint32_t g[8]) {
  uint32_t w[2] = {0};
  for (int i = 0; i < 8; i++) w[two_vector(i)] |= (g[i] & 3 * ONES) << two_shift(i);
  for (int v = 0; v < 2; v++) memcpy(p + 64 * v, &w[v], 4);
}

static inline void panel_two_get(uint32_t g[8], const uint8_t *p) {
  uint32_t w[2];
  for (int v = 0; v < 2; v++) memcpy(&w[v], p + 64 * v, 4);
  for (int i = 0; i < 8; i++) g[i] |= w[two_vector(i)] >> two_shift(i) & 3 * ONES;
}

/* Three bits: vectors 0..2 hold groups v and 4 + v in bits 0..2 and 3..5. Their tops, two bits each, are groups 3 and
 * 7, put together in the same way. */
static inline void panel_three_put(uint8_t *p, const uint32_t g[8]) {
  const uint32_t top = (g[3] & 7 * ONES) | (g[7] & 7 * ONES) << 3;
  for (int v = 0; v < 3; v++) {
    uint32_t w = (g[v] & 7 * ONES) | (g[4 + v] & 7 * ONES) << 3 | (top >> 2 * v & 3 * ONES) << 6;
    memcpy(p + 64 * v, &w, 4);
  }
}

static inline void panel_three_get(uint32_t g[8], const uint8_t *p) {
  uint32_t w, top = 0;
  for (int v = 0; v < 3; v++) {
    memcpy(&w, p + 64 * v, 4);
    g[v] |= w & 7 * ONES;
    g[4 + v] |= w >> 3 & 7 * ONES;
    top |= (w >> 6 & 3 * ONES) << 2 * v;
  }
  g[3] |= top & 7 * ONES;
  g[7] |= top >> 3 & 7 * ONES;
}

/* Vector i: group i. */
static inline void panel_bytes_put(uint8_t *p, const uint32_t g[8]) {
  for (int i = 0; i < 8; i++) memcpy(p + 64 * i, &g[i], 4);
}

static inline void panel_bytes_get(uint32_t g[8], const uint8_t *p) {
  for (int i = 0; i < 8; i++) memcpy(&g[i], p + 64 * i, 4);
}

/* Planes of high bits, then the low bits; three bits have a form of their own. */
INLINE void panel_move(const sw_quant *quant, uint8_t *p, uint32_t g[8], int put) {
  const int low = quant->low.bits, high = quant->high.bits;
  if (low == 2 && high == 1) {
    put ? panel_three_put(p, g) : panel_three_get(g, p);
    return;
  }
  if (high == 1) put ? panel_plane1_put(p, g, low) : panel_plane1_get(g, p, low);
  if (high == 2) put ? panel_plane2_put(p, g, low) : panel_plane2_get(g, p, low);
  p += 64 * high;
  if (low == 2) put ? panel_two_put(p, g) : panel_two_get(g, p);
  if (low == 4) put ? panel_nibbles_put(p, g) : panel_nibbles_get(g, p);
  if (low == 8) put ? panel_bytes_put(p, g) : panel_bytes_get(g, p);
}

/* --- blocks ------------------------------------------------------------------------------------------------------ */

/* One row of a block: into the packed form, or back. */
INLINE void block_move(int type, uint8_t *packed, uint8_t *plain, int row, int pack) {
  const sw_quant *quant = &sw_quants[type];
  uint8_t *scales = packed + 32 * quant->n_half + row;
  if (!pack) memset(plain, 0, quant->bytes);
  for (int i = 0; i < quant->n_half; i++) {
    uint8_t *p = packed + 32 * i + 2 * row, *f = plain + quant->half[i];
    pack ? memcpy(p, f, 2) : memcpy(f, p, 2);
  }
  for (int i = 0; i < quant->n_scale_bytes; i++) {
    if (pack) scales[16 * i] = plain[quant->scale_at + i];
    else plain[quant->scale_at + i] = scales[16 * i];
  }
  for (int j = 0; j < quant->cols / SW_BLOCK; j++) {
    uint32_t g[8] = {0};
    uint8_t *panel = packed + quant->header_bytes + j * quant->sub_bytes + 4 * row;
    if (!pack) panel_move(quant, panel, g, 0);
    field_move(&quant->low, plain, g, j, 0, !pack);
    field_move(&quant->high, plain, g, j, quant->low.bits, !pack);
    if (pack) panel_move(quant, panel, g, 1);
  }
}

/* n blocks of one row: `packed` steps by whole panel blocks, `plain` by GGUF blocks. A float is a block that its
 * rows take turns in. */
INLINE void row_move(int type, uint8_t *packed, uint8_t *plain, int n, int row, int pack) {
  const size_t bytes = sw_quants[type].bytes;
  for (int b = 0; b < n; b++, packed += SW_PANEL * bytes, plain += bytes) {
    if (sw_quants[type].formula != SW_FORMULA_FLOAT) block_move(type, packed, plain, row, pack);
    else if (pack) memcpy(packed + row * bytes, plain, bytes);
    else memcpy(plain, packed + row * bytes, bytes);
  }
}

static void row_any(int type, uint8_t *packed, uint8_t *plain, int n, int row, int pack) {
  switch (type) {
#define SW_CASE(name, number, ...)                                                                                     \
  case number: row_move(number, packed, plain, n, row, pack); break;
    SW_QUANTS(SW_CASE)
#undef SW_CASE
  }
}

/* n blocks of one row of a type whose file holds something else. */
static void pack_coded(int type, uint8_t *packed, const uint8_t *file, int n, int row, const uint8_t *grid) {
  const sw_quant *quant = &sw_quants[type];
  uint8_t coded[SW_MAX_CODED];
  for (int b = 0; b < n; b++, packed += SW_PANEL * quant->bytes, file += quant->file_bytes) {
    sw_read_codes(type, grid, file, coded);
    row_any(type, packed, coded, 1, row, 1);
  }
}

/* Blocks of one row that are moved before the next row: few enough that the panel lines they touch stay in L1. */
#define RUN_BYTES 1024

static void move_panel(const sw_mat *m, const sw_quant *quant, uint8_t *packed, uint8_t *plain, int panel, int pack,
                       const uint8_t *grid) {
  const size_t row_bytes = (size_t)(m->cols / quant->cols) * quant->file_bytes;
  const int r0 = panel * SW_PANEL, n_rows = m->rows - r0 < SW_PANEL ? m->rows - r0 : SW_PANEL;
  const int run = RUN_BYTES / quant->bytes > 1 ? RUN_BYTES / quant->bytes : 1, n_tiles = sw_n_tiles(m, quant);
  for (int t = 0; t < n_tiles; t++) {
    const sw_tile tile = sw_tile_at(m, quant, t);
    uint8_t *base = packed + (tile.data - m->data) + panel * tile.panel_bytes;
    if (pack && n_rows < SW_PANEL) memset(base, 0, tile.panel_bytes);
    for (int b = 0; b < tile.n_blocks; b += run) {
      const int n = tile.n_blocks - b < run ? tile.n_blocks - b : run;
      for (int r = 0; r < n_rows; r++) {
        uint8_t *to = base + (size_t)b * SW_PANEL * quant->bytes;
        uint8_t *row = plain + (r0 + r) * row_bytes + (size_t)(tile.block0 + b) * quant->file_bytes;
        if (sw_is_coded(quant)) pack_coded(m->type, to, row, n, r, grid);
        else row_any(m->type, to, row, n, r, pack);
      }
    }
  }
}

void sw_pack(const sw_mat *m, uint8_t *dst, const uint8_t *src, int row0, int row1, const uint8_t *grid) {
  const sw_quant *quant = sw_quant_of(m->type);
  sw_mat at = *m;
  if (!quant) return;
  at.data = dst;
  for (int p = row0 / SW_PANEL; p * SW_PANEL < row1; p++) move_panel(&at, quant, dst, (uint8_t *)src, p, 1, grid);
}

int sw_unpacks(int type) {
  const sw_quant *quant = sw_quant_of(type);
  return quant && !sw_is_coded(quant);
}

void sw_unpack(const sw_mat *m, uint8_t *dst, int row0, int row1) {
  const sw_quant *quant = sw_quant_of(m->type);
  if (!sw_unpacks(m->type)) return;
  for (int p = row0 / SW_PANEL; p * SW_PANEL < row1; p++) move_panel(m, quant, (uint8_t *)m->data, dst, p, 0, NULL);
}

/* --- in the clear ------------------------------------------------------------------------------------------------ */

static inline uint16_t half_at(const uint8_t *block, int i, int row) {
  uint16_t h;
  memcpy(&h, block + 32 * i + 2 * row, 2);
  return h;
}

/* 6-bit scale and min of sub-block j; s(i) is header byte i of the row. Q4_K, Q5_K. */
static inline void k4_scales(const uint8_t *s, int j, int *scale, int *min) {
  if (j < 4) {
    *scale = s[16 * j] & 63;
    *min = s[16 * (j + 4)] & 63;
  } else {
    *scale = (s[16 * (j + 4)] & 15) | (s[16 * (j - 4)] >> 6) << 4;
    *min = s[16 * (j + 4)] >> 4 | (s[16 * j] >> 6) << 4;
  }
}

static inline int q3_scale(const uint8_t *s, int i) {
  const int low = i < 8 ? s[16 * i] & 15 : s[16 * (i - 8)] >> 4;
  return (low | (s[16 * (8 + i % 4)] >> 2 * (i / 4) & 3) << 4) - 32;
}

static inline int iq4xs_scale(const uint8_t *s, int j) {
  const int low = s[16 * (2 + j / 2)] >> 4 * (j % 2) & 15, high = s[16 * (j / 4)] >> 2 * (j % 4) & 3;
  return (low | high << 4) - 32;
}

static inline int odd_scale(const uint8_t *s, int n, int i) {
  return 2 * (s[16 * (i % (n / 2))] >> 2 * i / n * 4 & 15) + 1;
}

static void clear_scales(int type, const uint8_t *block, int j, int r, sw_clear *out) {
  const sw_quant *quant = &sw_quants[type];
  const uint8_t *s = block + 32 * quant->n_half + r;
  out->d[r] = quant->scales == SW_SCALES_E8M0 ? sw_e8m0_to_float(*s)
                                              : sw_half_to_float(half_at(block, 0, r)) * sw_unit(quant);
  out->m[r] = quant->n_half > 1 ? sw_half_to_float(half_at(block, 1, r)) : 0;
  for (int h = 0; h < 2; h++) {
    int scale = 1, min = 0;
    switch (quant->scales) {
      case SW_SCALES_K4: k4_scales(s, j, &scale, &min); break;
      case SW_SCALES_IQ4: scale = iq4xs_scale(s, j); break;
      case SW_SCALES_Q3: scale = q3_scale(s, 2 * j + h); break;
      case SW_SCALES_Q2:
        scale = s[16 * (2 * j + h)] & 15;
        min = s[16 * (2 * j + h)] >> 4;
        break;
      case SW_SCALES_INT8: scale = (int8_t)s[16 * (2 * j + h)]; break;
      case SW_SCALES_ODD8: scale = odd_scale(s, 8, j); break;
      case SW_SCALES_ODD16: scale = odd_scale(s, 16, 2 * j + h); break;
    }
    out->scale[h][r] = (int16_t)scale;
    out->min[h][r] = (int16_t)min;
  }
}

static int value_of(const sw_quant *quant, uint8_t q) {
  switch (quant->values) {
    case SW_VALUES_INT8: return (int8_t)q;
    case SW_VALUES_IQ4: return sw_iq4_values[q];
    case SW_VALUES_FP4: return sw_fp4_values[q];
    case SW_VALUES_IQ1: return sw_iq1_values[q];
    case SW_VALUES_IQ2: return sw_iq2_values[q];
    case SW_VALUES_IQ3: return sw_iq3_values[q];
    case SW_VALUES_ODD: return sw_odd_values[q];
    default: return q - quant->offset;
  }
}

static void clear_row(int type, const uint8_t *block, int j, int r, sw_clear *out) {
  const sw_quant *quant = &sw_quants[type];
  uint32_t g[8] = {0};
  uint8_t q[SW_BLOCK];
  panel_move(quant, (uint8_t *)block + quant->header_bytes + j * quant->sub_bytes + 4 * r, g, 0); /* only reads */
  memcpy(q, g, SW_BLOCK);
  for (int c = 0; c < SW_BLOCK; c++) out->q[r][c] = (int16_t)value_of(quant, q[c]);
  clear_scales(type, block, j, r, out);
}

void sw_clear_block(int type, const uint8_t *block, int j, sw_clear *out) {
  for (int r = 0; r < SW_PANEL; r++) clear_row(type, block, j, r, out);
}

/* The order of roundings is the gguf package's. */
static void dequant_sub_block(int type, const sw_clear *c, int r, float *out) {
  for (int k = 0; k < SW_BLOCK; k++) {
    const float q = c->q[r][k], d = c->d[r] * (float)c->scale[k / 16][r]; /* exact */
    switch (sw_quants[type].formula) {
      case SW_FORMULA_BLOCK: out[k] = c->d[r] * q; break;
      case SW_FORMULA_BLOCK_MIN: out[k] = c->d[r] * q + c->m[r]; break;
      case SW_FORMULA_SUPER: out[k] = d * q; break;
      default: out[k] = d * q - c->m[r] * (float)c->min[k / 16][r];
    }
  }
}

static void dequant_floats(int type, const uint8_t *p, int n, int r, float *out) {
  for (int k = 0; k < n; k++) {
    const uint8_t *w = p + ((size_t)k * SW_PANEL + r) * sw_quants[type].bytes;
    uint16_t h;
    memcpy(&h, w, 2);
    if (type == SW_F32) memcpy(&out[k], w, 4);
    else out[k] = type == SW_F16 ? sw_half_to_float(h) : sw_bf16_to_f32(h);
  }
}

void sw_dequant_row(const sw_mat *m, int row, float *out) {
  const sw_quant *quant = sw_quant_of(m->type);
  const int panel = row / SW_PANEL, r = row % SW_PANEL, n_tiles = quant ? sw_n_tiles(m, quant) : 0;
  sw_clear clear = {0};
  for (int t = 0; t < n_tiles; t++) {
    const sw_tile tile = sw_tile_at(m, quant, t);
    const uint8_t *p = tile.data + panel * tile.panel_bytes;
    if (quant->formula == SW_FORMULA_FLOAT) {
      dequant_floats(m->type, p, tile.n_blocks, r, out + tile.block0);
      continue;
    }
    for (int b = 0; b < tile.n_blocks; b++, p += (size_t)SW_PANEL * quant->bytes) {
      for (int j = 0; j < quant->cols / SW_BLOCK; j++) {
        clear_row(m->type, p, j, r, &clear);
        dequant_sub_block(m->type, &clear, r, out + (size_t)(tile.block0 + b) * quant->cols + j * SW_BLOCK);
      }
    }
  }
}
