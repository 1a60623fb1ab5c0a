/* The engine's side of a stage: what layer.h calls between halves, over the frames of stage.h. */
#ifndef SW_EXCHANGE_H
#define SW_EXCHANGE_H
#include "layer.h"
#include "stage.h"

typedef struct {
  sw_stage stage; /* first, for the engine knows only this */
  sw_carrier *carrier;
} sw_exchanger;

void sw_exchanger_init(sw_exchanger *e, sw_carrier *carrier);
void sw_exchanger_begin(sw_exchanger *e, uint64_t sequence); /* one thread, before a step */
#endif
