/* Which experts a token uses, and with what weight. Scalar: a few thousand operations per token and layer. */
#include <string.h>
#include "team.h"

#define MAX_EXPERTS 1024
#define NEVER (-3.0e38f)

/* Index of the largest score, the lowest index among equals. */
static int best(const float *score, int n) {
  int b = 0;
  for (int i = 1; i < n; i++)
    if (score[i] > score[b]) b = i;
  return b;
}

/* Group routing (DeepSeek-V3): only experts of the top_group groups with the largest sum of two best scores stay. */
static void keep_groups(const sw_ffn *w, float *choice) {
  const int size = w->n_experts / w->n_group;
  float sum[MAX_EXPERTS];
  for (int g = 0; g < w->n_group; g++) {
    float first = NEVER, second = NEVER;
    for (int i = g * size; i < (g + 1) * size; i++) {
      if (choice[i] > first) {
        second = first;
        first = choice[i];
      } else if (choice[i] > second) second = choice[i];
    }
    sum[g] = size > 1 ? first + second : first;
  }
  char keep[MAX_EXPERTS] = {0};
  for (int k = 0; k < w->top_group; k++) {
    const int g = best(sum, w->n_group);
    keep[g] = 1;
    sum[g] = NEVER;
  }
  for (int i = 0; i < w->n_experts; i++)
    if (!keep[i / size]) choice[i] = NEVER;
}

static void sort_by_id(int32_t *id, float *weight, int n) {
  for (int i = 1; i < n; i++)
    for (int j = i; j > 0 && id[j] < id[j - 1]; j--) {
      int32_t a = id[j];
      id[j] = id[j - 1];
      id[j - 1] = a;
      float b = weight[j];
      weight[j] = weight[j - 1];
      weight[j - 1] = b;
    }
}

void sw_choose_experts(const sw_ffn *w, const sw_ops *ops, float *logits, int32_t *id, float *weight) {
  const int n = w->n_experts, k = w->top_k;
  float choice[MAX_EXPERTS];
  if (w->logit_bias) ops->add(logits, w->logit_bias, n);
  if (w->sigmoid) ops->sigmoid(logits, n);
  else ops->softmax(logits, n);
  for (int i = 0; i < n; i++) choice[i] = w->router_bias ? logits[i] + w->router_bias[i] : logits[i];
  if (w->n_group > 1) keep_groups(w, choice);
  float sum = 0.0f;
  for (int j = 0; j < k; j++) {
    id[j] = best(choice, n);
    choice[id[j]] = -__builtin_inff();
    weight[j] = logits[id[j]];
    sum += weight[j];
  }
  if (w->sigmoid) sum += 1e-20f;
  for (int j = 0; j < k; j++) weight[j] = (w->normalise ? weight[j] / sum : weight[j]) * w->scale;
  sort_by_id(id, weight, k);
}

/* Sort all (token, expert) pairs by expert, then token. Experts add to a token in ascending order of their number,
 * whatever the batch: so a token's sum is the same alone and in a batch. */
void sw_group_pairs(const sw_ffn *w, sw_ws *ws, int n_tokens) {
  int32_t count[MAX_EXPERTS + 1] = {0};
  const int pairs = n_tokens * w->top_k;
  for (int i = 0; i < pairs; i++) count[ws->topk_ids[i] + 1]++;
  int n_active = 0;
  for (int e = 0; e < w->n_experts; e++) {
    if (count[e + 1]) {
      sw_poke(&ws->active[n_active], e);
      ws->start[n_active++] = count[e];
    }
    count[e + 1] += count[e];
  }
  ws->start[n_active] = pairs;
  sw_poke(&ws->n_active, n_active);
  for (int i = 0; i < pairs; i++) {
    const int at = count[ws->topk_ids[i]]++;
    ws->pair_token[at] = i / w->top_k;
    ws->pair_weight[at] = ws->topk_weights[i] * ws->factor[i / w->top_k];
  }
}
