/* What the two kinds of attention share. */
#ifndef SW_ATTENTION_H
#define SW_ATTENTION_H
#include "team.h"

/* y (tokens, rows of the matrix) = a matrix times activations. */
typedef struct {
  const sw_mat *matrix;
  const sw_act *x;
  float *y;
} sw_product;

void sw_multiply(sw_step *s, const sw_product *products, int n); /* at most 3, in one phase */
void sw_quantize_row(sw_step *s, sw_act *a, int token, const float *row, int first_col, int n);
void sw_rotate(sw_step *s, float *x, int token);
/* The transform of blocks that keys and values have in common. */
void sw_hadamard(sw_step *s, float *x, int n);
/* attn_out = attention of q over the cache, quantised. */
void sw_attend(sw_step *s, const sw_attn *w, int layer);
void sw_latent_attention(sw_step *s, const sw_attn *w, int layer); /* up to the output projection */
void sw_latent_keys(sw_step *s, const sw_attn *w, int layer);
#endif
