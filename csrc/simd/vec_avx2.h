/* SPDX-License-Identifier: MIT */
/* AVX2 + FMA backend of the vocabulary in vec.h: 8 floats or 4 doubles. */
#ifndef FRNN_VEC_AVX2_H
#define FRNN_VEC_AVX2_H

#if defined(FRNN_REAL_F32)
typedef __m256 vreal;
typedef int32_t frnn_vint;
#define VL            8
#define FRNN_V(op)    _mm256_##op##_ps
#define FRNN_VBITS(a) _mm256_castps_si256(a)
#define FRNN_VFROM(i) _mm256_castsi256_ps(i)
#else
typedef __m256d vreal;
typedef int64_t frnn_vint;
#define VL            4
#define FRNN_V(op)    _mm256_##op##_pd
#define FRNN_VBITS(a) _mm256_castpd_si256(a)
#define FRNN_VFROM(i) _mm256_castsi256_pd(i)
#endif

static inline __m256i frnn_vfirst(size_t n) {
    /* VL ones, VL zeros: the window that starts VL - n in has n ones */
#if defined(FRNN_REAL_F32)
    static const frnn_vint ones[2 * VL] = {-1, -1, -1, -1, -1, -1, -1, -1};
#else
    static const frnn_vint ones[2 * VL] = {-1, -1, -1, -1};
#endif
    return _mm256_loadu_si256((const __m256i *)(const void *)(ones + (VL - n)));
}

static inline vreal vload(const real *p) {
    return FRNN_V(loadu)(p);
}
static inline void vstore(real *p, vreal v) {
    FRNN_V(storeu)(p, v);
}
static inline vreal vload_n(const real *p, size_t n) {
    return FRNN_V(maskload)(p, frnn_vfirst(n));
}
static inline void vstore_n(real *p, vreal v, size_t n) {
    FRNN_V(maskstore)(p, frnn_vfirst(n), v);
}
static inline vreal vgather(const real *p, const uint16_t *index) {
    return frnn_gather(p, index);
}
static inline vreal vset1(real x) {
    return FRNN_V(set1)(x);
}
static inline vreal vzero(void) {
    return FRNN_V(setzero)();
}

static inline vreal vadd(vreal a, vreal b) {
    return FRNN_V(add)(a, b);
}
static inline vreal vsub(vreal a, vreal b) {
    return FRNN_V(sub)(a, b);
}
static inline vreal vmul(vreal a, vreal b) {
    return FRNN_V(mul)(a, b);
}
static inline vreal vdiv(vreal a, vreal b) {
    return FRNN_V(div)(a, b);
}
static inline vreal vfma(vreal a, vreal b, vreal c) {
    return FRNN_V(fmadd)(a, b, c);
}
static inline vreal vfnma(vreal a, vreal b, vreal c) {
    return FRNN_V(fnmadd)(a, b, c);
}
static inline vreal vmin(vreal a, vreal b) {
    return FRNN_V(min)(a, b);
}
static inline vreal vmax(vreal a, vreal b) {
    return FRNN_V(max)(a, b);
}
static inline vreal vabs(vreal a) {
    return FRNN_V(andnot)(vset1((real)-0.0), a);
}
static inline vreal vcopysign(vreal mag, vreal sgn) {
    return FRNN_V(or)(vabs(mag), FRNN_V (and)(vset1((real)-0.0), sgn));
}
static inline vreal vselect_lt(vreal a, vreal b, vreal x, vreal y) {
    return FRNN_V(blendv)(y, x, FRNN_V(cmp)(a, b, _CMP_LT_OQ));
}
static inline vreal vflush(vreal a) {
    return FRNN_V (and)(a, FRNN_V(cmp)(vabs(a), vset1(FRNN_TINY), _CMP_NLT_UQ));
}

/*
 * Lanes move up inside the pair (0 : low half) so that what leaves the low half enters the high
 * one; a shift by a whole half is that pair itself, which the same formula gives.
 */
#define FRNN_VBELOW(v) _mm256_permute2x128_si256(FRNN_VBITS(v), FRNN_VBITS(v), 0x08)
#define vshift_up(v, N)                                                                            \
    FRNN_VFROM(_mm256_alignr_epi8(FRNN_VBITS(v), FRNN_VBELOW(v), 16 - (N) * (32 / VL)))

#if defined(FRNN_REAL_F32)
static inline vreal vexp2i(vreal t) {
    return FRNN_VFROM(_mm256_slli_epi32(FRNN_VBITS(t), 23));
}
static inline vreal vlast(vreal v) {
    return _mm256_permutevar8x32_ps(v, _mm256_set1_epi32(VL - 1));
}
#else
static inline vreal vexp2i(vreal t) {
    return FRNN_VFROM(_mm256_slli_epi64(FRNN_VBITS(t), 52));
}
static inline vreal vlast(vreal v) {
    return _mm256_permute4x64_pd(v, 0xFF);
}
#endif

/* A macro: gcc takes a function that only prefetches for one without effect, and drops it. */
#define vprefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)

#endif
