/* SPDX-License-Identifier: MIT */
#ifndef FRNN_SOFT_FMA_H
#define FRNN_SOFT_FMA_H
/* temporary first version: being replaced within the hour */
static inline float frnn_fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double frnn_fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#endif
