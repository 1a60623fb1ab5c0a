/* The two halves of a transformer layer, run by a team of threads. */
#ifndef SW_LAYER_H
#define SW_LAYER_H
#include <stdatomic.h>
#include "ops.h"

#define SW_CHUNK 64          /* FFN columns, and tokens, per step of a fused gate-up item */
#define SW_GROUP 4           /* panels that are shared out together */
#define SW_GROUPS 4          /* at most so many of these in an item of a batch */

/* Threads work through the same phases. A phase is a number of items; a thread takes one after the other, so a slow core
 * takes fewer. A phase is over when its items are done, not when all threads have come: a thread that the system has put
 * aside holds nobody up unless it holds an item, and when it runs again it walks through the phases it missed.
 * Whoever waits spins briefly, then sleeps. */
typedef struct {
  int n_threads;
  _Alignas(64) _Atomic uint64_t ticket;                /* phase << 32 | next item */
  _Alignas(64) atomic_int done;                        /* items done in this phase */
  _Alignas(64) _Atomic uint32_t phase;
  atomic_int sleepers;
} sw_team;

typedef struct {
  int hidden, n_heads, n_kv_heads, head_dim, rope_half, rope_pair;
  float eps, q_scale;
} sw_dims;

typedef struct {
  const float *norm, *post_norm;                       /* post_norm NULL but in sandwich families */
  sw_mat q, k, v, o;
  const float *q_bias, *k_bias, *v_bias;               /* each may be NULL */
  const float *q_norm, *k_norm;                        /* (head_dim,) or NULL */
} sw_attn;

typedef struct {
  int layer;                                           /* its number in the model, for messages */
  const float *norm, *post_norm;
  sw_mat gate, up, down;                               /* dense FFN or shared expert; rows == 0 when there is none */
  int n_experts, top_k, n_group, top_group, sigmoid, normalise;   /* n_experts == 0: dense */
  float scale;
  sw_mat router;                                       /* (n_experts, hidden) */
  const float *router_bias;                            /* (n_experts,) added to the choice only, or NULL */
  sw_mat expert_gate, expert_up, expert_down;          /* shapes of one expert; data comes from the tables */
  const uint8_t **gate_data, **up_data, **down_data;   /* (n_experts,) each; NULL where an expert is absent */
} sw_ffn;

/* Where a token of a step stands: the layers of its session's KV cache, and its position. */
typedef struct {
  const sw_kv *kv;
  int32_t position;
} sw_row;

/* Attention of some query rows over some positions: with each kv head an item of the phase. Tokens that follow each other
 * in one cache share tiles. Query row r is of token `token` + r / group, query head r % group of the kv head. */
typedef struct {
  int32_t token, first, rows;                          /* query rows [first, first + rows) */
  int32_t begin, end;                                  /* positions */
  int32_t part;                                        /* where a partial result goes; -1: all positions, and final */
} sw_tile;

/* A token that no other of its session follows or precedes: its first part, or -1 when it is not cut by segment. */
typedef struct {
  int32_t token, part;
} sw_lone;

/* Buffers for max_tokens tokens; made by the caller. Strides are exact widths. */
typedef struct {
  int max_tokens, max_segments, max_parts;
  float *x, *delta, *normed;                           /* (tokens, hidden) */
  float *q, *k, *v;                                    /* (tokens, heads * head_dim), (tokens, kv_heads * head_dim) twice */
  float *mixed;                                        /* (tokens, heads * head_dim) attention output */
  float *inner;                                        /* (pairs, widest ffn) silu(gate) * up, kept for float weights */
  float *router;                                       /* (tokens, n_experts) */
  const float *cos, *sin;                              /* (tokens, rope_half) of this step */
  sw_act act_hidden, act_mixed, act_inner;
  sw_row *rows;                                        /* (tokens,) */
  sw_tile *tiles;                                      /* how attention is cut, the same in all layers */
  sw_lone *lone;
  int n_tiles, n_lone, n_parts;
  float *part_m, *part_l, *part_acc;                   /* (max_parts, heads), and times head_dim */
  int32_t *pick;                                       /* (tokens, top_k) chosen experts, ascending */
  float *pick_weight;
  int32_t *active, *start, *pair_token;                /* experts in use; their first pair; the token of each pair */
  float *pair_weight;
  int n_active;
  _Atomic(const sw_ffn *) absent;                      /* the mixture that needed experts which were absent; NULL: none */
  uint8_t *scratch;                                    /* (threads, scratch_bytes) */
  size_t scratch_bytes;
} sw_ws;

/* What the half before left in delta: nothing, or something to add to x (through its post-norm when it has one). */
typedef struct {
  int pending;
  const float *norm;
} sw_fold;

/* What one thread knows of a step; each has its own copy. */
typedef struct {
  const sw_kernels *kernels;
  const sw_ops *ops;
  sw_team *team;
  const sw_dims *dims;
  sw_ws *ws;
  int n_tokens;
  int thread;
  uint32_t phase;                                      /* the phase this thread is in */
} sw_step;

void sw_team_init(sw_team *team, int n_threads);
size_t sw_scratch_bytes(const sw_dims *d, int max_cols, int max_segments);
int sw_max_tiles(const sw_dims *d, int max_tokens, int max_parts, int n_threads);
/* One thread, before a step, when ws->rows says where its tokens stand. */
void sw_plan_attention(const sw_step *s);
/* Every thread of the team calls these in the same order; delta is complete when they return. `layer` counts from the
 * first layer of the KV caches. */
void sw_attention(sw_step *s, const sw_attn *w, int layer, sw_fold fold);
void sw_keys(sw_step *s, const sw_attn *w, int layer, sw_fold fold);            /* only fold, and store keys and values */
/* The feed-forward half in two steps. Route ends when it is known which experts run: fold, norm, router, and meanwhile the
 * shared expert's first half. If it finds one absent it says so in ws->absent and the step is over: no thread may go on. */
void sw_ffn_route(sw_step *s, const sw_ffn *w, sw_fold fold);
void sw_ffn_experts(sw_step *s, const sw_ffn *w);        /* or the dense feed-forward */
void sw_lm_head(sw_step *s, const float *norm, const sw_mat *table, sw_fold fold, float *logits);   /* (n_tokens, vocab) */
void sw_finish(sw_step *s, sw_fold fold);                /* only fold */
void sw_embed(sw_step *s, const sw_mat *embed, const int32_t *ids);
#endif
