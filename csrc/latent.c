/* The attention half of a layer with latent attention (DeepSeek-V2, arXiv 2405.04434), in its absorbed form.
 *
 * A token leaves one row for all heads in the KV cache: a latent of `value_dim` columns, normed, and a rotated key of
 * 2 * rope_half. Keys are the whole row, values its latent. A head's query is a part that knows no position, which k_b
 * takes to the latent's columns, and a part that is rotated; v_b takes what a head gives back from them. */
#include <string.h>
#include "attention.h"

/* Columns of the position-free part of every head, as they lie in act_nope. */
static ptrdiff_t nope_stride(const sw_dims *d) { return (d->nope + 63) / 64 * 64; }

/* Head h of activations that lie side by side, `step` columns apart; its floats `f_step` apart. */
static sw_act head_of(const sw_act *all, int h, int cols, ptrdiff_t step, ptrdiff_t f_step) {
  sw_act a = *all;
  a.f += h * f_step;
  a.q += h * step;
  a.scale += h * step / 32;
  a.sum += h * step / 32 * 2;
  a.cols = cols;
  return a;
}

/* The latent and the rotated key of a token, as the cache keeps them. */
static void store_latent(sw_step *s, const sw_attn *w, int layer, int t) {
  const sw_dims *d = s->dims;
  const sw_kv *kv = s->ws->rows[t].kv + layer;
  float *k = s->ws->k + (size_t)t * d->head_dim;
  s->ops->rmsnorm(k, w->k_norm, d->eps, d->value_dim, k);
  sw_rotate(s, k + d->value_dim, t);
  if (kv->kind == SW_KV_Q8_0) sw_hadamard(s, k, d->head_dim);
  s->ops->kv_store(kv, 0, s->ws->rows[t].position, k, NULL);
}

/* The norm between the two matrices of the query, where it has two. */
static void norm_low(sw_step *s, const sw_attn *w, int t) {
  const int rank = w->q_a.rows;
  float *low = s->ws->q_low + (size_t)t * rank;
  s->ops->rmsnorm(low, w->q_norm, s->dims->eps, rank, low);
  sw_quantize_row(s, &s->ws->act_q_low, t, low, 0, rank);
}

static void store_keys(sw_step *s, const sw_attn *w, int layer, int with_queries) {
  const int n = s->n_tokens;
  SW_SHARE(s, i, with_queries ? 2 * n : n) {
    if (i < n) store_latent(s, w, layer, i);
    else norm_low(s, w, i - n);
  }
  sw_join(s);
}

/* Of every head's query, as it came from its matrix: the rotated part to its place, the other one quantised. */
static void split_queries(sw_step *s) {
  const sw_dims *d = s->dims;
  const int width = d->nope + 2 * d->rope_half;
  SW_SHARE(s, t, s->n_tokens) {
    const float scale = s->ws->temper ? d->q_scale * s->ws->temper[t] : d->q_scale;
    for (int h = 0; h < d->n_heads; h++) {
      float *from = s->ws->q_wide + ((size_t)t * d->n_heads + h) * width;
      float *to = s->ws->q + ((size_t)t * d->n_heads + h) * d->head_dim + d->value_dim;
      for (int e = 0; e < width; e++) from[e] *= scale;
      memcpy(to, from + d->nope, (size_t)(width - d->nope) * sizeof(float));
      sw_rotate(s, to, t);
      sw_quantize_row(s, &s->ws->act_nope, t, from, (int)(h * nope_stride(d)), d->nope);
    }
  }
  sw_join(s);
}

/* q = k_b of the position-free part, head by head. */
static void absorb_queries(sw_step *s, const sw_attn *w, int layer) {
  const sw_dims *d = s->dims;
  const int width = d->nope + 2 * d->rope_half;
  const ptrdiff_t stride = (ptrdiff_t)d->n_heads * d->head_dim;
  SW_SHARE(s, h, d->n_heads) {
    sw_mat m = w->k_b;
    m.data = w->k_b_data[h];
    const sw_act a = head_of(&s->ws->act_nope, h, d->nope, nope_stride(d), width);
    float *q = s->ws->q + (size_t)h * d->head_dim;
    sw_project(s, &m, &a, 0, s->n_tokens, 0, sw_panels(&m), q, stride);
    for (int t = 0; t < s->n_tokens; t++)
      if (s->ws->rows[t].kv[layer].kind == SW_KV_Q8_0) sw_hadamard(s, q + t * stride, d->head_dim);
  }
  sw_join(s);
}

/* What heads give, v_b of what they have read of latents. */
static void expand_values(sw_step *s, const sw_attn *w) {
  const sw_dims *d = s->dims;
  const int rows = w->v_b.rows;
  const ptrdiff_t stride = (ptrdiff_t)d->n_heads * rows;
  SW_SHARE(s, h, d->n_heads) {
    sw_mat m = w->v_b;
    m.data = w->v_b_data[h];
    const sw_act a = head_of(&s->ws->act_attn_out, h, d->value_dim, d->value_dim, d->value_dim);
    float *out = s->ws->head_out + (size_t)h * rows;
    sw_project(s, &m, &a, 0, s->n_tokens, 0, sw_panels(&m), out, stride);
    for (int t = 0; t < s->n_tokens; t++) sw_quantize_row(s, &s->ws->act_head_out, t, out + t * stride, h * rows, rows);
  }
  sw_join(s);
}

void sw_latent_attention(sw_step *s, const sw_attn *w, int layer) {
  const sw_product first[2] = {
    {&w->k, &s->ws->act_hidden, s->ws->k},
    {w->q_a.rows ? &w->q_a : &w->q, &s->ws->act_hidden, w->q_a.rows ? s->ws->q_low : s->ws->q_wide}};
  sw_multiply(s, first, 2);
  store_keys(s, w, layer, w->q_a.rows != 0);
  if (w->q_a.rows) {
    const sw_product second = {&w->q, &s->ws->act_q_low, s->ws->q_wide};
    sw_multiply(s, &second, 1);
  }
  split_queries(s);
  absorb_queries(s, w, layer);
  sw_attend(s, w, layer);
  expand_values(s, w);
}

void sw_latent_keys(sw_step *s, const sw_attn *w, int layer) {
  const sw_product keys = {&w->k, &s->ws->act_hidden, s->ws->k};
  sw_multiply(s, &keys, 1);
  store_keys(s, w, layer, 0);
}
