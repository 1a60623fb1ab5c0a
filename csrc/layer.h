/* The two halves of a transformer layer, run by a team of threads.
 *
 *   row        a token of a step: which KV cache, which position
 *   run        rows that follow each other in one cache; a lone row has no such neighbour
 *   group      the query heads that read one kv head; for routing, a group of experts
 *   tile       query rows that pass over the same keys and values together
 *   segment    1024 positions, whose partial result is independent; block: 64 positions, a step of the online softmax
 *   x, delta   the residual stream: see sw_residual
 *   sums       delta before it is one: integers, which devices that share a layer add up (csrc/README.md)
 *   attn_out   what the heads give, before W_o
 *   ffn_mid    silu(gate x) * (up x), what the down projection reads
 *   topk_ids   the experts that the router chose for a token; active: those that any token of the step needs
 *   pair       a token and an expert that it needs; in the order of experts, then tokens
 *   unit       SW_UNIT_PANELS panels of a matrix; item: what a thread takes at once; phase: items in any order */
#ifndef SW_LAYER_H
#define SW_LAYER_H
#include <stdatomic.h>
#include "experts.h"
#include "ops.h"

#define SW_FFN_COLS 64   /* columns of gate and up in an item, and of a group of a down projection's exact sums */
#define SW_OWN_COLS 256  /* of a group where delta is normed: a step of its own costs more than one of x's */
#define SW_FFN_TOKENS 64 /* tokens that pass through an item at once */
#define SW_UNIT_PANELS 4 /* panels that are shared out together: whole groups of streams */
#define SW_BATCH_UNITS 4 /* at most so many units in an item of a batch */

/* Threads work through the same phases. A phase is a number of items; a thread takes one after the other, so a slow
 * core takes fewer. A phase is over when its items are done, not when all threads have come: a thread that the system
 * has put aside holds nobody up unless it holds an item, and when it runs again it walks through the phases it missed.
 * Whoever waits spins briefly, then sleeps. */
typedef struct {
  int n_threads;
  _Alignas(64) _Atomic uint64_t ticket; /* phase << 32 | next item */
  _Alignas(64) atomic_int done;         /* items done in this phase */
  _Alignas(64) _Atomic uint32_t phase;
  atomic_int sleepers;
  void (*poll)(void *); /* NULL, or called now and then by thread 0 while it sleeps, because a step may take long */
  void *poll_arg;
} sw_team;

typedef struct {
  int hidden, n_heads, n_kv_heads, head_dim, rope_half, rope_pair;
  int value_dim;    /* columns of a value; of a key head_dim */
  int latent, nope; /* latent attention (see latent.c), and the columns of its queries that know no position */
  float eps, q_scale;
  float embed_scale, residual_scale; /* of embeddings, and of what a half adds to the residual stream */
} sw_dims;

typedef struct {
  const float *norm, *post_norm; /* post_norm NULL but in sandwich families */
  sw_mat q, k, v, o;
  /* Of latent attention. The query may come from two matrices, q_a (rows 0: not so) and q, with q_norm between; k_norm
   * is of the latent. Of each head k_b (value_dim, nope) and v_b (columns of what it gives, value_dim). */
  sw_mat q_a, k_b, v_b;
  const uint8_t **k_b_data, **v_b_data;  /* (n_heads,) */
  const float *q_bias, *k_bias, *v_bias; /* each may be NULL */
  const float *q_norm, *k_norm;          /* (head_dim,) or NULL */
  const float *out_bias;                 /* (hidden,) or NULL; added when the sums of all devices are one, by each */
  const float *sinks;                    /* (n_heads,) scores of a position without a value, or NULL */
  int rotated;                           /* 0: a layer that does not know positions */
  int window;                            /* positions that a token sees, itself included; 0: all before it */
} sw_attn;

typedef struct {
  int layer; /* its number in the model, for messages */
  const float *norm, *post_norm;
  sw_mat gate, up, down; /* dense FFN or shared expert; rows == 0 when there is none */
  int n_experts, top_k, n_group, top_group, sigmoid, normalise; /* n_experts == 0: dense */
  float scale;
  sw_mat router;                                     /* (n_experts, hidden) */
  const float *router_bias;                          /* (n_experts,) added to the choice only, or NULL */
  const float *logit_bias;                           /* (n_experts,) added to what the router gives, or NULL */
  const float *gate_bias, *up_bias;                  /* (n_experts, expert width) or NULL */
  const float *down_bias;                            /* (n_experts, hidden) or NULL; added as out_bias is */
  float alpha, limit;                                /* of experts' swiglu; limit 0: silu(gate) * up instead */
  sw_mat expert_gate, expert_up, expert_down;        /* shapes of one expert; data comes from the tables */
  const uint8_t **gate_data, **up_data, **down_data; /* (n_experts,) each; NULL where an expert is absent */
  sw_experts *cache;     /* NULL: the tables are complete, or a step fails; else they follow it */
  int cache_layer;       /* which of the cache's layers this is */
  size_t up_at, down_at; /* in the bytes of an expert, which begin with its gate */
} sw_ffn;

/* Where a token of a step stands: the layers of its session's KV cache, and its position. */
typedef struct {
  const sw_kv *kv;
  int32_t position;
} sw_row;

/* Attention of some query rows over some positions: with each kv head an item of the phase. Tokens that follow each
 * other in one cache share tiles. Query row r is of token `token` + r / group, query head r % group of the kv head. */
typedef struct {
  int32_t token, first, rows; /* query rows [first, first + rows) */
  int32_t begin, end;         /* positions */
  int32_t partial;            /* where a partial result goes; -1: all positions, and final */
} sw_tile;

/* A lone row: its token, and its first partial result, or -1 when it is not cut by segment. */
typedef struct {
  int32_t token, partial;
} sw_lone;

typedef struct sw_stage sw_stage;
typedef struct sw_step sw_step;

/* Buffers for max_tokens tokens; made by the caller. Strides are exact widths. */
typedef struct {
  int max_tokens, max_segments, max_partials;
  float *x, *delta, *normed; /* (tokens, hidden) */
  /* The exact sums of the half that runs or just ran: near + far, counted in `unit`. While it runs and its delta will
   * be normed, near is twice as large and holds doubles. Whoever reads them makes them 0 for the next half. */
  int32_t *near;          /* (tokens, hidden), and room for doubles */
  int64_t *far;           /* (tokens, hidden) what does not fit near, else 0 */
  int32_t *wide;          /* (tokens,) with `shared`: something of this token is in far */
  float *unit, *factor;   /* (tokens,): see sw_sums */
  int32_t broken;         /* a sum was NaN, infinite or too large: the step is worth nothing, but goes on */
  int shared;             /* devices share layers: halves leave sums, and what follows makes delta of them */
  sw_stage *stage;        /* who adds them up after each half; NULL: the caller, between halves */
  float *q, *k, *v;       /* (tokens, heads * head_dim), (tokens, kv_heads * head_dim) twice */
  float *attn_out;        /* (tokens, heads * value_dim) attention output */
  float *q_low, *q_wide;  /* of latent attention: (tokens, rows of q_a), and the query as it comes from its matrix */
  float *head_out;        /* (tokens, heads * rows of v_b) */
  float *ffn_mid;         /* (pairs, widest ffn), kept for float weights */
  float *router;          /* (tokens, n_experts) */
  const float *cos, *sin; /* (tokens, rope_half) of this step */
  const float *temper;    /* (tokens,) what queries are multiplied with besides q_scale, or NULL */
  sw_act act_hidden, act_attn_out, act_ffn_mid;
  sw_act act_q_low, act_nope, act_head_out; /* of latent attention */
  sw_row *rows;                             /* (tokens,) */
  sw_tile *tiles;                           /* how attention is cut, the same in all layers */
  sw_lone *lone;
  int n_tiles, n_lone, n_partials;
  float *partial_m, *partial_l, *partial_acc; /* (max_partials, heads): maximum, sum; times value_dim */
  int32_t *topk_ids;                          /* (tokens, top_k) chosen experts, ascending */
  float *topk_weights;
  int32_t *active, *start, *pair_token; /* experts in use; their first pair; the token of each pair */
  float *pair_weight;                   /* the expert's weight times the token's factor */
  int n_active;
  _Atomic(const sw_ffn *) absent; /* the mixture that needed experts which were absent; NULL: none */
  uint8_t *scratch;               /* (threads, scratch_bytes) */
  size_t scratch_bytes;
} sw_ws;

/* The residual stream is x and what the half before left in delta: nothing, or what the next one adds to x first
 * (with the biases of that half, and through its post-norm, when it has such). Between halves, devices that share a
 * layer add up sums; biases come after that, in floats, so that they count once and no share shows. */
typedef struct {
  int has_delta;
  const float *post_norm, *bias;
  const sw_ffn *experts; /* whose down_bias, if any, counts for the experts of this step; or NULL */
} sw_residual;

/* What one thread knows of a step; each has its own copy. */
struct sw_step {
  const sw_kernels *kernels;
  const sw_ops *ops;
  sw_team *team;
  const sw_dims *dims;
  sw_ws *ws;
  int n_tokens;
  int thread;
  uint32_t phase;      /* the phase this thread is in */
  const sw_ways *ways; /* of the products of a single token */
};

/* Devices that share layers. After each half, when all of its sums are there, every thread of the team calls
 * `exchange`: so many phases (sw_take, sw_join), the same for all threads, also where it fails. Afterwards near + far
 * of every token of the step are the sums over all devices, counted in the same unit: what does not fit near goes to
 * far, and wide is set; all may go there. ws->broken is then the same on all devices. Whatever follows is alike. */
struct sw_stage {
  void (*exchange)(sw_stage *, sw_step *);
  atomic_int rc; /* not 0: an exchange failed, and every thread leaves the step; it stays until that is over */
};

void sw_team_init(sw_team *team, int n_threads);
size_t sw_scratch_bytes(const sw_dims *d, int max_cols, int max_segments);
int sw_max_tiles(const sw_dims *d, int max_tokens, int max_partials, int n_threads);
/* One thread, before a step, when ws->rows says where its tokens stand. */
void sw_plan_attention(const sw_step *s);
/* Every thread of the team calls these in the same order; delta is complete when they return. `layer` counts from the
 * first layer of the KV caches. */
void sw_attention(sw_step *s, const sw_attn *w, int layer, sw_residual residual);
/* Of the attention half only the sum, and keys and values. */
void sw_keys(sw_step *s, const sw_attn *w, int layer, sw_residual residual);
/* The feed-forward half in two steps. Route ends when it is known which experts run: sum, norm, router, and meanwhile
 * the shared expert's first half. If one is absent it says so in ws->absent and the step is over for every thread. */
void sw_ffn_route(sw_step *s, const sw_ffn *w, sw_residual residual);
void sw_ffn_experts(sw_step *s, const sw_ffn *w); /* or the dense feed-forward */
/* logits (n_tokens, vocab) */
void sw_lm_head(sw_step *s, const float *norm, const sw_mat *table, sw_residual residual, float *logits);
void sw_finish(sw_step *s, sw_residual residual); /* only x += delta */
/* One thread, before a step: whatever the last one, of n_tokens, left. */
void sw_forget_sums(sw_ws *ws, int hidden, int n_tokens);
void sw_embed(sw_step *s, const sw_mat *embed, const int32_t *ids);
#endif
