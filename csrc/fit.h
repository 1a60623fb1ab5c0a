#ifndef SW_FIT_H
#define SW_FIT_H

#define SW_FIT_MAX 64 /* values of a group */

/* n values (a multiple of 8, at most SW_FIT_MAX) as scale * level - minimum, level 0 to top: scale, minimum >= 0. */
void sw_fit_with_minimum(const float *x, int n, int top, float *scale, float *minimum);
/* The scale of n values as scale * level, level -half to half - 1. */
float sw_fit_signed(const float *x, int n, int half);
#endif
