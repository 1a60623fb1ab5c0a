/* The contract between the parts of the compiled engine. See csrc/README.md for the packed layout.
 *
 * Rules for every file in csrc/: the caller owns every buffer; no malloc, no mutable globals, and no I/O or threads but
 * in readers.c. Every kernel computes THE SAME BITS on every instruction set: rows (or elements) are lanes, each row's
 * float operations come in one fixed order, integer dots are exact, and multiply-adds are fused where, and only where,
 * the source says so. (Compile with -ffp-contract=off; never -ffast-math, never -march=native.)  So a Pi and a laptop
 * agree bit for bit, and a row's result depends on neither the batch size nor the thread count.
 */
#ifndef SW_H
#define SW_H
#include <stddef.h>
#include <stdint.h>
#include "quants.h"

#define SW_ALIGN 64  /* alignment in bytes of every buffer that kernels read */
#define SW_STREAMS 4 /* panels that are read side by side, where they are */

/* A packed matrix of `rows` x `cols`: panels of 16 rows, in tiles of `tile_cols` columns.
 * Memory order: [tile][panel][block][...]. tile_cols == cols (rounded up to the type's block) for matrices cut by rows;
 * a smaller tile for the down projections, which are cut by columns. */
typedef struct {
  const uint8_t *data;
  int32_t type; /* enum sw_type */
  int32_t rows; /* real rows; the last panel is padded with zeros */
  int32_t cols; /* input width; a multiple of the type's block */
  int32_t tile_cols;
  int32_t streams; /* how one token's product reads it: 1 or SW_STREAMS panels side by side; 0: as the set likes */
  int32_t ahead;   /* bytes from the reads of a stream to what it fetches; 0: one stream fetches nothing */
} sw_mat;

/* The activations of n_tokens tokens, ready for a matmul. Float weights read `f`, quantised weights read the rest.
 * Blocks are 32 columns. With amax = max|f| and every operation rounded to f32: scale = amax / 127,
 * factor = 127 / amax, q = round-half-even(f * factor), in [-127, 127]. A block with amax < 2^-100 counts as zeros
 * (scale 0, q 0); one that holds a NaN or an infinity has q 0 and that scale, so the result shows it. The last block
 * of a row is padded with zeros when cols is not a multiple of 32. */
typedef struct {
  const float *f; /* (n_tokens, f_stride) */
  int8_t *q;      /* (n_tokens, q_stride)           q_stride = cols rounded up to 64 */
  float *scale;   /* (n_tokens, s_stride)           one per 32 columns; s_stride = q_stride / 32 */
  int16_t *sum;   /* (n_tokens, 2 * s_stride)       sum of q over each 16 columns */
  ptrdiff_t f_stride, q_stride, s_stride;
  int32_t n_tokens, cols;
} sw_act;

/* y[t * y_stride + r] = sum_k W[r, k] * x[t, k]  for the rows of panels [p0, p1) and the tokens [t0, t1).
 * Never writes past row `rows`. */
typedef void (*sw_matmul_fn)(const sw_mat *w, const sw_act *x, int t0, int t1, int p0, int p1, float *y,
                             ptrdiff_t y_stride);

/* Exact sums (csrc/README.md): where columns may be shared out over devices, each group's partial sum is
 * rounded to a grid that no device's share changes, and what is added are integers. */
enum sw_grid {
  SW_GRID_X,  /* a step for each token, known from x: in `factor` */
  SW_GRID_OWN /* a step for each group and panel, from its largest partial sum: SW_OWN_BITS below it */
};
#define SW_OWN_BITS 12
#define SW_OWN_UNIT 24            /* SW_GRID_OWN: sums count 2^-24 */
#define SW_MAX_GROUP_COLS 512     /* what a batch unpacks at once */
#define SW_MAX_PARTIAL (1L << 50) /* integers at least so large are no sane model's: such a sum is broken */
#define SW_NEAR_GROUPS 511        /* so many groups fit near sums before these must be put down and begin anew */

/* Where exact sums go. Arrays are by row of the activations. */
typedef struct {
  int32_t grid;        /* enum sw_grid */
  int32_t group_cols;  /* from sw_group_cols */
  const float *factor; /* what a partial sum is multiplied by before it is rounded: a weight; SW_GRID_X: over step */
  const int32_t *row;  /* the row of `sums` that it is added to; NULL: its own number */
  void *near;          /* (rows, stride): the sum of the groups that fit, int32; SW_GRID_OWN: doubles, in units of 1 */
  int64_t *far;        /* (rows, stride): the sum of the others */
  ptrdiff_t stride;
  int32_t *wide;   /* set when something was added to `far` */
  int32_t *broken; /* set when a partial sum is NaN, infinite or too large; sums are then worth nothing */
} sw_sums;

/* near[row(t)][r] or far[row(t)][r] += integers of sum_k W[r, k] * x[t, k], for the rows of panels [p0, p1) and the
 * tokens [t0, t1). Fast where the matrix is one tile and values are not far from the step. */
typedef void (*sw_sums_fn)(const sw_mat *w, const sw_act *x, int t0, int t1, int p0, int p1, const sw_sums *to);

/* Quantise `cols` floats into q, scale, sum as above (one token's row); writes whole blocks of 32 columns. */
typedef void (*sw_quantize_fn)(const float *f, int cols, int8_t *q, float *scale, int16_t *sum);

/* One instruction set. Entries of `matmul` are never NULL for a supported type: where a set has nothing better, its
 * table names the function of a slower one. */
typedef struct {
  const char *name; /* "scalar" "avx2" "avxvnni" "avx512vnni" "neon" "dotprod" "i8mm" */
  int32_t streams;  /* what a matrix with `streams` 0 is read with, and the most that it can be */
  sw_matmul_fn matmul[SW_N_TYPES];
  sw_sums_fn sums[SW_N_TYPES];
  sw_quantize_fn quantize;
} sw_kernels;

/* How the product of one token is computed: by which set, with which `streams` and `ahead` of the matrix. What is
 * fastest is another way for each type on each CPU; the bits are the same in all. */
typedef struct {
  const sw_kernels *set;
  int32_t streams, ahead;
} sw_way;

/* By type: of products, and of exact sums. */
typedef struct {
  sw_way rows[SW_N_TYPES], sums[SW_N_TYPES];
} sw_ways;

/* As a set likes, for all types, where nobody measured. */
static inline void sw_usual_ways(sw_ways *ways, const sw_kernels *set, int ahead) {
  for (int t = 0; t < SW_N_TYPES; t++) ways->rows[t] = ways->sums[t] = (sw_way){set, 0, ahead};
}

/* pack.c */
size_t sw_packed_bytes(int type, int rows, int cols, int tile_cols);
const char *sw_type_name(int type); /* as in GGUF; NULL when not supported */
int sw_type_block(int type);        /* columns per quantised block, 0 when not supported */
size_t sw_type_bytes(int type);     /* bytes per quantised block in GGUF */
/* The columns of a group, where columns may be cut at multiples of `unit`: so many, but whole blocks of the type
 * and of the activations, and at most SW_MAX_GROUP_COLS. */
int sw_group_cols(int type, int unit);
/* Pack rows [row0, row1) (row0 a multiple of 16, row1 a multiple of 16 or rows) of the GGUF matrix `src` (rows x cols,
 * row-major blocks as in the file). `grid`: of a type whose quants are places in a grid, (entries, 4 or 8) bytes: which
 * magnitude (IQ1: value) of the type's table each is; else NULL. */
void sw_pack(const sw_mat *m, uint8_t *dst, const uint8_t *src, int row0, int row1, const uint8_t *grid);
int sw_unpacks(int type); /* its packed form gives the bytes of the file back; not where it is made of codes */
/* The inverse of sw_pack, bit for bit. */
void sw_unpack(const sw_mat *m, uint8_t *dst, int row0, int row1);
void sw_dequant_row(const sw_mat *m, int row, float *out); /* (cols,) equal to the gguf package's */

/* dispatch.c: NULL when this CPU or OS cannot run it. */
const sw_kernels *sw_kernels_by_name(const char *name);
const sw_kernels *sw_kernels_best(void);
int sw_likes_ahead(void);                         /* `ahead` of one stream on this CPU, where nothing was measured */
int sw_kernels_list(const char **names, int max); /* usable here, slowest first */

#endif
