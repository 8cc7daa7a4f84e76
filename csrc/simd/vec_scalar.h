/* SPDX-License-Identifier: MIT */
/* Plain C backend of the vocabulary in vec.h: one lane, for every machine. */
#ifndef FRNN_VEC_SCALAR_H
#define FRNN_VEC_SCALAR_H

#include "soft_fma.h"

typedef real vreal;
#define VL 1

#if defined(FRNN_REAL_F32)
typedef uint32_t frnn_vint;
#define FRNN_VSHIFT 23
#else
typedef uint64_t frnn_vint;
#define FRNN_VSHIFT 52
#endif
#define FRNN_VSIGN ((frnn_vint)1 << (8 * sizeof(real) - 1))

static inline frnn_vint frnn_vbits(vreal a) {
    frnn_vint i;
    memcpy(&i, &a, sizeof i);
    return i;
}
static inline vreal frnn_vfrom(frnn_vint i) {
    vreal a;
    memcpy(&a, &i, sizeof a);
    return a;
}

static inline vreal vload(const real *p) {
    return *p;
}
static inline void vstore(real *p, vreal v) {
    *p = v;
}
static inline vreal vload_n(const real *p, size_t n) {
    return n ? *p : 0;
}
static inline void vstore_n(real *p, vreal v, size_t n) {
    if (n)
        *p = v;
}
static inline vreal vgather(const real *p, const uint16_t *index) {
    return p[*index];
}
static inline vreal vset1(real x) {
    return x;
}
static inline vreal vzero(void) {
    return 0;
}

static inline vreal vadd(vreal a, vreal b) {
    return a + b;
}
static inline vreal vsub(vreal a, vreal b) {
    return a - b;
}
static inline vreal vmul(vreal a, vreal b) {
    return a * b;
}
static inline vreal vdiv(vreal a, vreal b) {
    return a / b;
}
static inline vreal vfma(vreal a, vreal b, vreal c) {
#if defined(FRNN_REAL_F32)
    return frnn_fmaf(a, b, c);
#else
    return frnn_fma(a, b, c);
#endif
}
static inline vreal vfnma(vreal a, vreal b, vreal c) {
    return vfma(-a, b, c);
}
static inline vreal vmin(vreal a, vreal b) {
    return a < b ? a : b;
}
static inline vreal vmax(vreal a, vreal b) {
    return a > b ? a : b;
}
static inline vreal vabs(vreal a) {
    return frnn_vfrom(frnn_vbits(a) & ~FRNN_VSIGN);
}
static inline vreal vcopysign(vreal mag, vreal sgn) {
    return frnn_vfrom((frnn_vbits(mag) & ~FRNN_VSIGN) | (frnn_vbits(sgn) & FRNN_VSIGN));
}
static inline vreal vselect_lt(vreal a, vreal b, vreal x, vreal y) {
    return a < b ? x : y;
}
static inline vreal vflush(vreal a) {
    return vabs(a) < FRNN_TINY ? 0 : a;
}
static inline vreal vexp2i(vreal t) {
    return frnn_vfrom(frnn_vbits(t) << FRNN_VSHIFT);
}

/* there is no N below VL == 1: only for text under `if (VL > 1)` to compile */
#define vshift_up(v, N) vmul((v), vset1((real)(0 * (N))))
static inline vreal vlast(vreal v) {
    return v;
}
static inline void vprefetch(const void *p) {
    (void)p;
}

#endif
