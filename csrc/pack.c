/* GGUF blocks <-> packed panels, lossless for any bytes. The layout is described in csrc/README.md.
 *
 * Between the two forms a row's 32 quants pass through eight words of four: word g holds columns 4g..4g+3, one a byte.
 * Both sides read little-endian words. */
#include "layout.h"

#define ONES 0x01010101u

const int8_t sw_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

int sw_type_block(int type) {
  const sw_layout *l = sw_layout_of(type);
  return l ? l->cols : 0;
}

size_t sw_type_bytes(int type) {
  const sw_layout *l = sw_layout_of(type);
  return l ? l->bytes : 0;
}

size_t sw_packed_bytes(int type, int rows, int cols, int tile_cols) {
  const sw_layout *l = sw_layout_of(type);
  (void)tile_cols;   /* tiles reorder the blocks; they add none */
  if (!l || rows < 0 || cols < 0) return 0;
  const size_t panels = ((size_t)rows + SW_PANEL - 1) / SW_PANEL;
  return panels * SW_PANEL * l->bytes * (size_t)(cols / l->cols);
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
static inline uint32_t spread4(uint32_t n) { return (n * 0x00204081u) & ONES; }
static inline uint32_t gather4(uint32_t w) { return ((w & ONES) * 0x01020408u) >> 24 & 15; }

/* --- one row of one GGUF block: 32 quants to and from words ----------------------------------------------------- */

static inline void nibbles_get(uint32_t g[8], const uint8_t *p) {           /* 16 bytes: low = columns 0..15 */
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
static inline void strided_get(uint32_t g[8], const uint8_t *p, int shift, uint32_t mask, int at) {
  uint32_t w[8];
  load_words(w, p, 8);
  for (int i = 0; i < 8; i++) g[i] |= (w[i] >> shift & mask * ONES) << at;
}

static inline void strided_put(uint8_t *p, const uint32_t g[8], int shift, uint32_t mask, int at) {
  uint32_t w[8];
  for (int i = 0; i < 8; i++) w[i] = (g[i] >> at & mask * ONES) << shift;
  or_words(p, w, 8);
}

static inline void fifth_get(uint32_t g[8], const uint8_t *p) {
  uint32_t h;
  memcpy(&h, p, 4);
  for (int i = 0; i < 8; i++) g[i] |= spread4(h >> 4 * i & 15) << 4;
}

static inline void fifth_put(uint8_t *p, const uint32_t g[8]) {
  uint32_t h = 0;
  for (int i = 0; i < 8; i++) h |= gather4(g[i] >> 4) << 4 * i;
  or_words(p, &h, 1);
}

/* The fields of a block differ only in which of the pairs above carries which bits, so one list serves both ways. */
#define FIELDS(NIBBLES, STRIDED, FIFTH, BYTES)                                                      \
  switch (type) {                                                                                   \
    case SW_Q4_0: case SW_IQ4_NL: NIBBLES(b + 2); break;                                            \
    case SW_Q4_1: NIBBLES(b + 4); break;                                                            \
    case SW_Q5_0: NIBBLES(b + 6); FIFTH(b + 2); break;                                              \
    case SW_Q5_1: NIBBLES(b + 8); FIFTH(b + 4); break;                                              \
    case SW_Q8_0: BYTES(b + 2); break;                                                              \
    case SW_IQ4_XS: NIBBLES(b + 8 + 16 * j); break;                                                 \
    case SW_Q2_K: STRIDED(b + 16 + 32 * (j / 4), 2 * (j % 4), 3, 0); break;                         \
    case SW_Q3_K: STRIDED(b + 32 + 32 * (j / 4), 2 * (j % 4), 3, 0); STRIDED(b, j, 1, 2); break;    \
    case SW_Q4_K: STRIDED(b + 16 + 32 * (j / 2), 4 * (j % 2), 15, 0); break;                        \
    case SW_Q5_K: STRIDED(b + 48 + 32 * (j / 2), 4 * (j % 2), 15, 0); STRIDED(b + 16, j, 1, 4); break; \
    case SW_Q6_K:                                                                                   \
      STRIDED(b + 64 * (j / 4) + 32 * (j % 2), 4 * (j % 4 / 2), 15, 0);                             \
      STRIDED(b + 128 + 32 * (j / 4), 2 * (j % 4), 3, 4);                                           \
      break;                                                                                        \
  }

static inline __attribute__((always_inline)) void quants_get(int type, uint32_t g[8], const uint8_t *b, int j) {
  memset(g, 0, 32);
#define N_(p) nibbles_get(g, p)
#define S_(p, shift, mask, at) strided_get(g, p, shift, mask, at)
#define F_(p) fifth_get(g, p)
#define B_(p) load_words(g, p, 8)
  FIELDS(N_, S_, F_, B_)
#undef N_
#undef S_
#undef F_
#undef B_
}

static inline __attribute__((always_inline)) void quants_put(int type, uint8_t *b, const uint32_t g[8], int j) {
#define N_(p) nibbles_put(p, g)
#define S_(p, shift, mask, at) strided_put(p, g, shift, mask, at)
#define F_(p) fifth_put(p, g)
#define B_(p) or_words(p, g, 8)
  FIELDS(N_, S_, F_, B_)
#undef N_
#undef S_
#undef F_
#undef B_
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

/* Vectors 0..2 hold groups 2v and 2v + 1 in bits 0..2 and 3..5. Groups 6 and 7 have their low bits at the top of vectors 0
 * and 1 and their high bits at the top of vector 2. */
static inline void panel_three_put(uint8_t *p, const uint32_t g[8]) {
  const uint32_t top[3] = {g[6] & 3 * ONES, g[7] & 3 * ONES, (g[6] >> 2 & ONES) | (g[7] >> 2 & ONES) << 1};
  for (int v = 0; v < 3; v++) {
    uint32_t w = (g[2 * v] & 7 * ONES) | (g[2 * v + 1] & 7 * ONES) << 3 | top[v] << 6;
    memcpy(p + 64 * v, &w, 4);
  }
}

static inline void panel_three_get(uint32_t g[8], const uint8_t *p) {
  uint32_t w[3];
  for (int v = 0; v < 3; v++) {
    memcpy(&w[v], p + 64 * v, 4);
    g[2 * v] |= w[v] & 7 * ONES;
    g[2 * v + 1] |= w[v] >> 3 & 7 * ONES;
  }
  for (int i = 0; i < 2; i++) g[6 + i] |= (w[i] >> 6 & 3 * ONES) | (w[2] >> (6 + i) & ONES) << 2;
}

#define PLANES(NIBBLES, PLANE1, PLANE2, THREE, BYTES)                                              \
  switch (type) {                                                                           \
    case SW_Q5_0: case SW_Q5_1: case SW_Q5_K: PLANE1(p, 4); NIBBLES(p + SW_PLANE1); break;  \
    case SW_Q6_K: PLANE2(p, 4); NIBBLES(p + SW_PLANE2); break;                              \
    case SW_Q3_K: THREE(p); break;                                                          \
    case SW_Q2_K: PLANE2(p, 0); break;                                                      \
    case SW_Q8_0: BYTES(p); break;                                                          \
    default: NIBBLES(p);                                                                    \
  }

static inline __attribute__((always_inline)) void panel_put(int type, uint8_t *p, const uint32_t g[8]) {
#define N_(p) panel_nibbles_put(p, g)
#define P1_(p, at) panel_plane1_put(p, g, at)
#define P2_(p, at) panel_plane2_put(p, g, at)
#define T_(p) panel_three_put(p, g)
#define B_(p) for (int i = 0; i < 8; i++) memcpy(p + 64 * i, &g[i], 4)
  PLANES(N_, P1_, P2_, T_, B_)
#undef N_
#undef P1_
#undef P2_
#undef T_
#undef B_
}

static inline __attribute__((always_inline)) void panel_get(int type, uint32_t g[8], const uint8_t *p) {
  memset(g, 0, 32);
#define N_(p) panel_nibbles_get(g, p)
#define P1_(p, at) panel_plane1_get(g, p, at)
#define P2_(p, at) panel_plane2_get(g, p, at)
#define T_(p) panel_three_get(g, p)
#define B_(p) for (int i = 0; i < 8; i++) memcpy(&g[i], p + 64 * i, 4)
  PLANES(N_, P1_, P2_, T_, B_)
#undef N_
#undef P1_
#undef P2_
#undef T_
#undef B_
}

/* --- blocks ------------------------------------------------------------------------------------------------------ */

static inline __attribute__((always_inline)) void pack_block(int type, uint8_t *dst, const uint8_t *src, int row) {
  const sw_layout *l = &sw_layouts[type];
  for (int i = 0; i < l->n_half; i++) memcpy(dst + 32 * i + 2 * row, src + l->half[i], 2);
  uint8_t *head = dst + 32 * l->n_half + row;
  for (int i = 0; i < l->n_head; i++) head[16 * i] = src[l->head + i];
  for (int j = 0; j < l->cols / SW_BLOCK; j++) {
    uint32_t g[8];
    quants_get(type, g, src, j);
    panel_put(type, dst + l->header + j * l->sub + 4 * row, g);
  }
}

static inline __attribute__((always_inline)) void unpack_block(int type, uint8_t *dst, const uint8_t *src, int row) {
  const sw_layout *l = &sw_layouts[type];
  memset(dst, 0, l->bytes);
  for (int i = 0; i < l->n_half; i++) memcpy(dst + l->half[i], src + 32 * i + 2 * row, 2);
  const uint8_t *head = src + 32 * l->n_half + row;
  for (int i = 0; i < l->n_head; i++) dst[l->head + i] = head[16 * i];
  for (int j = 0; j < l->cols / SW_BLOCK; j++) {
    uint32_t g[8];
    panel_get(type, g, src + l->header + j * l->sub + 4 * row);
    quants_put(type, dst, g, j);
  }
}

/* n blocks of one row: `packed` steps by whole panel blocks, `plain` by GGUF blocks. */
static inline __attribute__((always_inline)) void row_blocks(int type, uint8_t *packed, uint8_t *plain, int n, int row,
                                                             int pack) {
  const size_t bytes = sw_layouts[type].bytes;
  for (int b = 0; b < n; b++, packed += SW_PANEL * bytes, plain += bytes) {
    if (pack) pack_block(type, packed, plain, row);
    else unpack_block(type, plain, packed, row);
  }
}

static inline __attribute__((always_inline)) void row_floats(uint8_t *packed, uint8_t *plain, int n, int row, int pack,
                                                             size_t bytes) {
  for (int k = 0; k < n; k++) {
    uint8_t *p = packed + ((size_t)k * SW_PANEL + row) * bytes, *f = plain + k * bytes;
    if (pack) memcpy(p, f, bytes);
    else memcpy(f, p, bytes);
  }
}

static void row_any(int type, uint8_t *packed, uint8_t *plain, int n, int row, int pack) {
  switch (type) {
#define CASE(T) case T: row_blocks(T, packed, plain, n, row, pack); break
    CASE(SW_Q4_0); CASE(SW_Q4_1); CASE(SW_Q5_0); CASE(SW_Q5_1); CASE(SW_Q8_0); CASE(SW_IQ4_NL); CASE(SW_IQ4_XS);
    CASE(SW_Q2_K); CASE(SW_Q3_K); CASE(SW_Q4_K); CASE(SW_Q5_K); CASE(SW_Q6_K);
#undef CASE
    case SW_F32: row_floats(packed, plain, n, row, pack, 4); break;
    default: row_floats(packed, plain, n, row, pack, 2);
  }
}

/* Blocks of one row that are moved before the next row: few enough that the panel lines they touch stay in L1. */
#define RUN_BYTES 1024

static void move_panel(const sw_mat *m, const sw_layout *l, uint8_t *packed, uint8_t *plain, int panel, int pack) {
  const size_t row_bytes = (size_t)(m->cols / l->cols) * l->bytes;
  const int r0 = panel * SW_PANEL, n_rows = m->rows - r0 < SW_PANEL ? m->rows - r0 : SW_PANEL;
  const int run = RUN_BYTES / l->bytes > 1 ? RUN_BYTES / l->bytes : 1, n_tiles = sw_n_tiles(m, l);
  for (int t = 0; t < n_tiles; t++) {
    const sw_tile tile = sw_tile_at(m, l, t);
    uint8_t *base = packed + (tile.data - m->data) + panel * tile.panel_bytes;
    if (pack && n_rows < SW_PANEL) memset(base, 0, tile.panel_bytes);
    for (int b = 0; b < tile.n_blocks; b += run) {
      const int n = tile.n_blocks - b < run ? tile.n_blocks - b : run;
      for (int r = 0; r < n_rows; r++) {
        row_any(m->type, base + (size_t)b * SW_PANEL * l->bytes,
                plain + (r0 + r) * row_bytes + (size_t)(tile.block0 + b) * l->bytes, n, r, pack);
      }
    }
  }
}

void sw_pack(const sw_mat *m, uint8_t *dst, const uint8_t *src, int row0, int row1) {
  const sw_layout *l = sw_layout_of(m->type);
  sw_mat at = *m;
  if (!l) return;
  at.data = dst;
  for (int p = row0 / SW_PANEL; p * SW_PANEL < row1; p++) move_panel(&at, l, dst, (uint8_t *)src, p, 1);
}

void sw_unpack(const sw_mat *m, uint8_t *dst, int row0, int row1) {
  const sw_layout *l = sw_layout_of(m->type);
  if (!l) return;
  for (int p = row0 / SW_PANEL; p * SW_PANEL < row1; p++) move_panel(m, l, (uint8_t *)m->data, dst, p, 0);
}

/* --- in the clear ------------------------------------------------------------------------------------------------ */

static inline uint16_t half_at(const uint8_t *block, int i, int row) {
  uint16_t h;
  memcpy(&h, block + 32 * i + 2 * row, 2);
  return h;
}

/* 6-bit scale and min of 32-column part j; s(i) is header byte i of the row. Q4_K, Q5_K. */
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

static void clear_scales(int type, const uint8_t *block, int j, int r, sw_clear *out) {
  const sw_layout *l = &sw_layouts[type];
  const uint8_t *s = block + 32 * l->n_half + r;
  out->d[r] = sw_f16_to_f32(half_at(block, 0, r));
  out->m[r] = l->n_half > 1 ? sw_f16_to_f32(half_at(block, 1, r)) : 0;
  for (int h = 0; h < 2; h++) {
    int scale = 1, min = 0;
    switch (type) {
      case SW_IQ4_XS: scale = iq4xs_scale(s, j); break;
      case SW_Q4_K: case SW_Q5_K: k4_scales(s, j, &scale, &min); break;
      case SW_Q3_K: scale = q3_scale(s, 2 * j + h); break;
      case SW_Q6_K: scale = (int8_t)s[16 * (2 * j + h)]; break;
      case SW_Q2_K:
        scale = s[16 * (2 * j + h)] & 15;
        min = s[16 * (2 * j + h)] >> 4;
        break;
    }
    out->scale[h][r] = (int16_t)scale;
    out->min[h][r] = (int16_t)min;
  }
}

static int offset_of(int type) {
  switch (type) {
    case SW_Q4_0: return 8;
    case SW_Q5_0: return 16;
    case SW_Q3_K: return 4;
    case SW_Q6_K: return 32;
    default: return 0;
  }
}

static void clear_row(int type, const uint8_t *block, int j, int r, sw_clear *out) {
  const sw_layout *l = &sw_layouts[type];
  const int offset = offset_of(type);
  uint32_t g[8];
  uint8_t q[SW_BLOCK];
  panel_get(type, g, block + l->header + j * l->sub + 4 * r);
  memcpy(q, g, SW_BLOCK);
  for (int c = 0; c < SW_BLOCK; c++) {
    if (type == SW_Q8_0) out->q[r][c] = (int8_t)q[c];
    else if (type == SW_IQ4_NL || type == SW_IQ4_XS) out->q[r][c] = sw_iq4_values[q[c] & 15];
    else out->q[r][c] = (int16_t)(q[c] - offset);
  }
  clear_scales(type, block, j, r, out);
}

void sw_clear_block(int type, const uint8_t *block, int j, sw_clear *out) {
  for (int r = 0; r < SW_PANEL; r++) clear_row(type, block, j, r, out);
}

/* The order of roundings is the gguf package's. */
static void dequant_part(int type, const sw_clear *c, int r, float *out) {
  const int kind = sw_layouts[type].kind;
  for (int k = 0; k < SW_BLOCK; k++) {
    const float q = c->q[r][k], d = c->d[r] * (float)c->scale[k / 16][r];   /* exact */
    switch (kind) {
      case SW_KIND_SCALE: out[k] = c->d[r] * q; break;
      case SW_KIND_SCALE_MIN: out[k] = c->d[r] * q + c->m[r]; break;
      case SW_KIND_SUPER: out[k] = d * q; break;
      default: out[k] = d * q - c->m[r] * (float)c->min[k / 16][r];
    }
  }
}

static void dequant_floats(int type, const uint8_t *p, int n, int r, float *out) {
  for (int k = 0; k < n; k++) {
    const uint8_t *w = p + ((size_t)k * SW_PANEL + r) * sw_layouts[type].bytes;
    uint16_t h;
    memcpy(&h, w, 2);
    if (type == SW_F32) memcpy(&out[k], w, 4);
    else out[k] = type == SW_F16 ? sw_f16_to_f32(h) : sw_bf16_to_f32(h);
  }
}

void sw_dequant_row(const sw_mat *m, int row, float *out) {
  const sw_layout *l = sw_layout_of(m->type);
  const int panel = row / SW_PANEL, r = row % SW_PANEL, n_tiles = l ? sw_n_tiles(m, l) : 0;
  sw_clear clear = {0};
  for (int t = 0; t < n_tiles; t++) {
    const sw_tile tile = sw_tile_at(m, l, t);
    const uint8_t *p = tile.data + panel * tile.panel_bytes;
    if (l->kind == SW_KIND_FLOAT) {
      dequant_floats(m->type, p, tile.n_blocks, r, out + tile.block0);
      continue;
    }
    for (int b = 0; b < tile.n_blocks; b++, p += (size_t)SW_PANEL * l->bytes) {
      for (int j = 0; j < l->cols / SW_BLOCK; j++) {
        clear_row(m->type, p, j, r, &clear);
        dequant_part(m->type, &clear, r, out + (size_t)(tile.block0 + b) * l->cols + j * SW_BLOCK);
      }
    }
  }
}
