/* The packed layout in numbers, shared by pack.c and the kernels. Described in csrc/README.md. */
#ifndef SW_LAYOUT_H
#define SW_LAYOUT_H
#include <string.h>
#include "sw.h"

/* How a block of one row becomes y: see "Formulas" in csrc/README.md. */
enum sw_kind {
  SW_KIND_NONE = 0,
  SW_KIND_FLOAT,       /* the weights are floats */
  SW_KIND_SCALE,       /* 32 columns with a float scale */
  SW_KIND_SCALE_MIN,   /* and a float that is added */
  SW_KIND_SUPER,       /* 256 columns with a float scale, and integer scales for each 32 or 16 columns */
  SW_KIND_SUPER_MIN,   /* and a float and integers that are subtracted, for each 32 columns */
  SW_KIND_SUPER_MINS   /* the same for each 16 columns */
};

/* Where the parts of a GGUF block lie, and the parts of its packed form, in bytes. A packed block is `header` bytes
 * (16 x each f16, then 16 x each header byte) and, for every 32 columns, `sub` bytes (planes of high bits, then the
 * low bits). */
typedef struct {
  uint8_t kind;
  uint16_t cols, bytes;       /* of a GGUF block */
  uint16_t half[2];           /* GGUF offsets of d and of m (or dmin) */
  uint8_t n_half;
  uint16_t head, n_head;      /* GGUF offset and count of header bytes (scales of K types) */
  uint16_t header, sub;       /* packed bytes */
} sw_layout;

#define SW_PLANE1 64           /* bytes of one plane of high bits: 16 rows x 32 columns x 1 bit */
#define SW_PLANE2 128
#define SW_NIBBLES 256

/* In the header, so that kernels made for one type see constants. */
static const sw_layout sw_layouts[SW_N_TYPES] = {
  /*              kind               cols bytes  d,m   n  head n  header sub */
  [SW_F32] =     {SW_KIND_FLOAT,        1,   4, {0, 0}, 0, 0, 0,    0, 64},
  [SW_F16] =     {SW_KIND_FLOAT,        1,   2, {0, 0}, 0, 0, 0,    0, 32},
  [SW_BF16] =    {SW_KIND_FLOAT,        1,   2, {0, 0}, 0, 0, 0,    0, 32},
  [SW_Q4_0] =    {SW_KIND_SCALE,       32,  18, {0, 0}, 1, 0, 0,   32, 256},
  [SW_Q4_1] =    {SW_KIND_SCALE_MIN,   32,  20, {0, 2}, 2, 0, 0,   64, 256},
  [SW_Q5_0] =    {SW_KIND_SCALE,       32,  22, {0, 0}, 1, 0, 0,   32, 320},
  [SW_Q5_1] =    {SW_KIND_SCALE_MIN,   32,  24, {0, 2}, 2, 0, 0,   64, 320},
  [SW_Q8_0] =    {SW_KIND_SCALE,       32,  34, {0, 0}, 1, 0, 0,   32, 512},
  [SW_IQ4_NL] =  {SW_KIND_SCALE,       32,  18, {0, 0}, 1, 0, 0,   32, 256},
  [SW_IQ4_XS] =  {SW_KIND_SUPER,      256, 136, {0, 0}, 1, 2, 6,  128, 256},
  [SW_Q2_K] =    {SW_KIND_SUPER_MINS, 256,  84, {80, 82}, 2, 0, 16, 320, 128},
  [SW_Q3_K] =    {SW_KIND_SUPER,     256, 110, {108, 0}, 1, 96, 12, 224, 192},
  [SW_Q4_K] =    {SW_KIND_SUPER_MIN,  256, 144, {0, 2}, 2, 4, 12, 256, 256},
  [SW_Q5_K] =    {SW_KIND_SUPER_MIN,  256, 176, {0, 2}, 2, 4, 12, 256, 320},
  [SW_Q6_K] =    {SW_KIND_SUPER,     256, 210, {208, 0}, 1, 192, 16, 288, 384},
};

static inline const sw_layout *sw_layout_of(int type) {
  return type >= 0 && type < SW_N_TYPES && sw_layouts[type].kind ? &sw_layouts[type] : NULL;
}

/* The tile that holds a block, and where its panels start. */
typedef struct {
  const uint8_t *data;     /* panel 0 of the tile */
  size_t panel_bytes;      /* from panel to panel */
  int block0, n_blocks;    /* GGUF blocks of the row that the tile covers */
} sw_tile;

static inline int sw_n_panels(const sw_mat *m) { return (m->rows + SW_PANEL - 1) / SW_PANEL; }

static inline int sw_tile_blocks(const sw_mat *m, const sw_layout *l) {
  int n = m->tile_cols / l->cols, all = m->cols / l->cols;
  return n <= 0 || n > all ? all : n;
}

static inline int sw_n_tiles(const sw_mat *m, const sw_layout *l) {
  int n = sw_tile_blocks(m, l), all = m->cols / l->cols;
  return n ? (all + n - 1) / n : 0;
}

static inline sw_tile sw_tile_at(const sw_mat *m, const sw_layout *l, int tile) {
  const int n = sw_tile_blocks(m, l), all = m->cols / l->cols, b0 = tile * n;
  const size_t pb = (size_t)SW_PANEL * l->bytes;
  sw_tile t = {m->data + (size_t)b0 * pb * sw_n_panels(m), 0, b0, all - b0 < n ? all - b0 : n};
  t.panel_bytes = (size_t)t.n_blocks * pb;
  return t;
}

static inline float sw_f16_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023, u;
  float f;
  if (e == 31) {
    u = sign | 0x7f800000u | m << 13 | (m ? 0x400000u : 0);   /* quiet, as the hardware does */
  } else if (e) {
    u = sign | (e + 112) << 23 | m << 13;
  } else {
    f = (float)m * 0x1p-24f;
    memcpy(&u, &f, 4);
    u |= sign;
  }
  memcpy(&f, &u, 4);
  return f;
}

static inline float sw_bf16_to_f32(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

extern const int8_t sw_iq4_values[16];

/* One 32-column block of a panel in the clear: the quants less their offset, d and m (or dmin), and in super-blocks the
 * integer scales and mins of both halves. */
typedef struct {
  int16_t q[SW_PANEL][SW_BLOCK];
  float d[SW_PANEL], m[SW_PANEL];
  int16_t scale[2][SW_PANEL], min[2][SW_PANEL];
} sw_clear;

/* `block` points at a packed block of GGUF type `type`; j counts its 32-column parts. */
void sw_clear_block(int type, const uint8_t *block, int j, sw_clear *out);

#endif
