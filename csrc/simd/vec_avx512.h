/* SPDX-License-Identifier: MIT */
/* AVX-512 (F, VL, BW, DQ) backend of the vocabulary in vec.h: 16 floats or 8 doubles. */
#ifndef FRNN_VEC_AVX512_H
#define FRNN_VEC_AVX512_H

#if defined(FRNN_REAL_F32)
typedef __m512 vreal;
typedef __mmask16 frnn_vmask;
#define VL                   16
#define FRNN_V(op)           _mm512_##op##_ps
#define FRNN_VCMP(a, b, how) _mm512_cmp_ps_mask((a), (b), (how))
#define FRNN_VBITS(a)        _mm512_castps_si512(a)
#define FRNN_VFROM(i)        _mm512_castsi512_ps(i)
#else
typedef __m512d vreal;
typedef __mmask8 frnn_vmask;
#define VL                   8
#define FRNN_V(op)           _mm512_##op##_pd
#define FRNN_VCMP(a, b, how) _mm512_cmp_pd_mask((a), (b), (how))
#define FRNN_VBITS(a)        _mm512_castpd_si512(a)
#define FRNN_VFROM(i)        _mm512_castsi512_pd(i)
#endif

static inline frnn_vmask frnn_vfirst(size_t n) {
    return (frnn_vmask)((1u << n) - 1u);
}

static inline vreal vload(const real *p) {
    return FRNN_V(loadu)(p);
}
static inline void vstore(real *p, vreal v) {
    FRNN_V(storeu)(p, v);
}
static inline vreal vload_n(const real *p, size_t n) {
    return FRNN_V(maskz_loadu)(frnn_vfirst(n), p);
}
static inline void vstore_n(real *p, vreal v, size_t n) {
    FRNN_V(mask_storeu)(p, frnn_vfirst(n), v);
}
static inline vreal vgather(const real *p, const uint16_t *index) {
#if defined(FRNN_REAL_F32)
    return _mm512_insertf32x8(_mm512_castps256_ps512(frnn_gather(p, index)),
                              frnn_gather(p, index + 8), 1);
#else
    return _mm512_insertf64x4(_mm512_castpd256_pd512(frnn_gather(p, index)),
                              frnn_gather(p, index + 4), 1);
#endif
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
    /* 0xCA: bit of the first where it is set ? bit of the second : bit of the third */
    return FRNN_VFROM(_mm512_ternarylogic_epi32(FRNN_VBITS(vset1((real)-0.0)), FRNN_VBITS(sgn),
                                                FRNN_VBITS(mag), 0xCA));
}
static inline vreal vselect_lt(vreal a, vreal b, vreal x, vreal y) {
    return FRNN_V(mask_blend)(FRNN_VCMP(a, b, _CMP_LT_OQ), y, x);
}
static inline vreal vflush(vreal a) {
    return FRNN_V(maskz_mov)(FRNN_VCMP(vabs(a), vset1(FRNN_TINY), _CMP_NLT_UQ), a);
}

#if defined(FRNN_REAL_F32)
static inline vreal vexp2i(vreal t) {
    return FRNN_VFROM(_mm512_slli_epi32(FRNN_VBITS(t), 23));
}
#define vshift_up(v, N)                                                                            \
    FRNN_VFROM(_mm512_alignr_epi32(FRNN_VBITS(v), _mm512_setzero_si512(), VL - (N)))
static inline vreal vlast(vreal v) {
    return _mm512_permutexvar_ps(_mm512_set1_epi32(VL - 1), v);
}
#else
static inline vreal vexp2i(vreal t) {
    return FRNN_VFROM(_mm512_slli_epi64(FRNN_VBITS(t), 52));
}
#define vshift_up(v, N)                                                                            \
    FRNN_VFROM(_mm512_alignr_epi64(FRNN_VBITS(v), _mm512_setzero_si512(), VL - (N)))
static inline vreal vlast(vreal v) {
    return _mm512_permutexvar_pd(_mm512_set1_epi64(VL - 1), v);
}
#endif

/* A macro: gcc takes a function that only prefetches for one without effect, and drops it. */
#define vprefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)

#endif
