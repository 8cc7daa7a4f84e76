/* SPDX-License-Identifier: MIT */
/* Elements that lie apart, to one vector of 32 bytes: what both x86 backends gather with. Single
 * loads and shuffles: on some processors the instruction for it takes half as long again. */
#ifndef FRNN_VEC_GATHER_H
#define FRNN_VEC_GATHER_H

/* Four indices in one load; that of element N is the 16 bits from 16 * N on. */
static inline uint64_t frnn_indices(const uint16_t *index) {
    uint64_t four;
    memcpy(&four, index, sizeof four);
    return four;
}
#define FRNN_INDEXED(p, four, N) ((p) + (uint16_t)((four) >> 16 * (N)))

#if defined(FRNN_REAL_F32)
static inline __m128 frnn_gather4(const real *p, const uint16_t *index) {
    const uint64_t four = frnn_indices(index);
    return _mm_movelh_ps(_mm_unpacklo_ps(_mm_load_ss(FRNN_INDEXED(p, four, 0)),
                                         _mm_load_ss(FRNN_INDEXED(p, four, 1))),
                         _mm_unpacklo_ps(_mm_load_ss(FRNN_INDEXED(p, four, 2)),
                                         _mm_load_ss(FRNN_INDEXED(p, four, 3))));
}
static inline __m256 frnn_gather(const real *p, const uint16_t *index) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(frnn_gather4(p, index)),
                                frnn_gather4(p, index + 4), 1);
}
#else
static inline __m256d frnn_gather(const real *p, const uint16_t *index) {
    const uint64_t four = frnn_indices(index);
    const __m128d low = _mm_load_sd(FRNN_INDEXED(p, four, 0));
    const __m128d high = _mm_load_sd(FRNN_INDEXED(p, four, 2));
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadh_pd(low, FRNN_INDEXED(p, four, 1))),
                                _mm_loadh_pd(high, FRNN_INDEXED(p, four, 3)), 1);
}
#endif

#endif
