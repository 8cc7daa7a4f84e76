/* SPDX-License-Identifier: MIT
 *
 * The vector vocabulary of one instruction set and dtype against plain C and the fma of libm.
 * One program per backend and dtype, for instance
 *
 *     cc -std=c11 -O2 -ffp-contract=off -Icsrc/simd -DFRNN_ISA_SCALAR -DFRNN_REAL_F32
 *        tests/c/test_vec.c -lm
 *
 * and likewise with -DFRNN_REAL_F64, with -DFRNN_ISA_AVX2 -mavx2 -mfma, and with -DFRNN_ISA_AVX512
 * -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma. The scalar program without -mfma tests the
 * fused multiply-add in software as well. Exits with 1 if anything is wrong, and says "skipped" on
 * a machine without the instructions.
 */
#define _DEFAULT_SOURCE /* mmap */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(FRNN_ISA_SCALAR)
#include <immintrin.h>
#endif

#include "vec.h"

#if defined(FRNN_REAL_F32)
typedef uint32_t bits;
#define MANTISSA     23
#define EXPONENT_MAX 255
#define libm_fma     fmaf
#define DTYPE        "f32"
#else
typedef uint64_t bits;
#define MANTISSA     52
#define EXPONENT_MAX 2047
#define libm_fma     fma
#define DTYPE        "f64"
#endif
#define BIAS (EXPONENT_MAX / 2)
#define SIGN ((bits)1 << (8 * sizeof(real) - 1))

#if defined(FRNN_ISA_SCALAR)
#define ISA "scalar"
#elif defined(FRNN_ISA_AVX2)
#define ISA "avx2"
#else
#define ISA "avx512"
#endif

static unsigned long wrong;

static bits to_bits(real x) {
    bits u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static real from_bits(bits u) {
    real x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static int same(real a, real b) {
    return (isnan(a) && isnan(b)) || to_bits(a) == to_bits(b);
}

static void expect(const char *what, real got, real want, real a, real b, real c) {
    if (same(got, want))
        return;
    if (wrong++ < 20)
        printf("%s %s %s(%a, %a, %a) gives %a instead of %a\n", ISA, DTYPE, what, (double)a,
               (double)b, (double)c, (double)got, (double)want);
}

/* ---- Values ------------------------------------------------------------------------------- */

static uint64_t random_state = UINT64_C(88172645463325252);

/* xorshift64 (Marsaglia 2003) */
static uint64_t random_bits(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static real assemble(uint64_t exponent, uint64_t mantissa) {
    const bits u = (bits)(exponent % EXPONENT_MAX) << MANTISSA |
                   (bits)(mantissa & (((uint64_t)1 << MANTISSA) - 1));
    return from_bits(u | (random_bits() & 1 ? SIGN : 0));
}

static const bits special_bits[] = {
    0,                                       /* 0 */
    1,                                       /* the smallest number */
    ((bits)1 << MANTISSA) - 1,               /* the largest subnormal one */
    (bits)1 << MANTISSA,                     /* the smallest normal one */
    (bits)BIAS << MANTISSA,                  /* 1 */
    ((bits)BIAS << MANTISSA) + 1,            /* just above */
    ((bits)BIAS << MANTISSA) - 1,            /* just below */
    (bits)(BIAS + 1) << MANTISSA,            /* 2 */
    ((bits)(BIAS + 1) << MANTISSA) - 1,      /* just below */
    (bits)(BIAS / 2) << MANTISSA,            /* its square is barely normal */
    (bits)(BIAS + BIAS / 2 + 1) << MANTISSA, /* its square barely overflows */
    ((bits)EXPONENT_MAX << MANTISSA) - 1,    /* the largest number */
    (bits)EXPONENT_MAX << MANTISSA,          /* infinity */
    ((bits)EXPONENT_MAX << MANTISSA) | 1,    /* a signalling NaN */
    ((bits)EXPONENT_MAX << MANTISSA) + ((bits)1 << (MANTISSA - 1)), /* a quiet one */
};
enum { SPECIALS = 2 * sizeof special_bits / sizeof special_bits[0] };

static real special(size_t i) {
    return from_bits(special_bits[i / 2] | (i % 2 ? SIGN : 0));
}

/* Numbers whose sums and products cancel, tie or underflow more often than random bits do. */
static real hard_value(void) {
    const uint64_t u = random_bits(), m = random_bits();
    switch (u % 8) {
    case 0:
        return from_bits((bits)m);
    case 1: /* few bits */
        return (real)ldexp((double)(m % 64) - 32, (int)(u >> 8) % 120 - 60);
    case 2: /* sparse */
        return assemble(BIAS - 30 + (u >> 8) % 60, m & random_bits() & random_bits());
    case 3: /* dense */
        return assemble(BIAS - 30 + (u >> 8) % 60, m | random_bits() | random_bits());
    case 4:
        return assemble((u >> 8) % 120, m);
    case 5:
        return assemble(EXPONENT_MAX - 1 - (u >> 8) % 120, m);
    case 6: /* products at the edge of the subnormal numbers */
        return assemble(BIAS / 2 - 30 + (u >> 8) % 60, m);
    default:
        return special((u >> 8) % SPECIALS);
    }
}

/* A product that misses half a unit in the last place of r by very little, r subnormal or not. */
static void near_tie(real *p, real *q, real *r) {
    const uint64_t u = random_bits();
    const int exponent = (int)(u % 4 ? u / 4 % 60 : u / 4 % EXPONENT_MAX);
    const int half = (exponent ? exponent : 1) - BIAS - MANTISSA - 1;
    const double above = 1 + ldexp(1, -MANTISSA), below = 1 - ldexp(1, -MANTISSA);
    *p = (real)ldexp(above, half / 2);
    *q = (real)ldexp(random_bits() % 2 ? above : below, half - half / 2);
    *r = assemble((uint64_t)exponent, random_bits());
}

/* ---- Lanes -------------------------------------------------------------------------------- */

static real a[VL], b[VL], c[VL], y[VL];

static real min_of(real p, real q) {
    return p < q ? p : q;
}

static real max_of(real p, real q) {
    return p > q ? p : q;
}

static real with_sign(real magnitude, real sign) {
    return from_bits((to_bits(magnitude) & ~SIGN) | (to_bits(sign) & SIGN));
}

#define EACH(what, vector, scalar)                                                                 \
    do {                                                                                           \
        vstore(y, vector);                                                                         \
        for (size_t i = 0; i < VL; i++)                                                            \
            expect(what, y[i], scalar, a[i], b[i], c[i]);                                          \
    } while (0)

static void check_lanes(void) {
    const vreal va = vload(a), vb = vload(b), vc = vload(c);
    EACH("vadd", vadd(va, vb), a[i] + b[i]);
    EACH("vsub", vsub(va, vb), a[i] - b[i]);
    EACH("vmul", vmul(va, vb), a[i] * b[i]);
    EACH("vdiv", vdiv(va, vb), a[i] / b[i]);
    EACH("vfma", vfma(va, vb, vc), libm_fma(a[i], b[i], c[i]));
    EACH("vfnma", vfnma(va, vb, vc), libm_fma(-a[i], b[i], c[i]));
    EACH("vmin", vmin(va, vb), min_of(a[i], b[i]));
    EACH("vmax", vmax(va, vb), max_of(a[i], b[i]));
    EACH("vabs", vabs(va), with_sign(a[i], 1));
    EACH("vcopysign", vcopysign(va, vb), with_sign(a[i], b[i]));
    EACH("vselect_lt", vselect_lt(va, vb, vc, va), a[i] < b[i] ? c[i] : a[i]);
    EACH("vflush", vflush(va), with_sign(a[i], 1) < FRNN_TINY ? 0 : a[i]);
#if defined(FRNN_ISA_SCALAR)
    const real want = libm_fma(va, vb, vc);
#if defined(FRNN_REAL_F32)
    expect("soft fma", frnn_soft_fmaf(va, vb, vc), want, va, vb, vc);
#else
    expect("soft fma", frnn_soft_fma(va, vb, vc), want, va, vb, vc);
    expect("soft fma in integers", frnn_soft_fma_rare(va, vb, vc), want, va, vb, vc);
#endif
#endif
}

static void test_lanes(void) {
    size_t n = 0;
    for (size_t i = 0; i < SPECIALS * SPECIALS * SPECIALS; i++) {
        a[n] = special(i % SPECIALS);
        b[n] = special(i / SPECIALS % SPECIALS);
        c[n] = special(i / SPECIALS / SPECIALS);
        n = (n + 1) % VL;
        if (n == 0)
            check_lanes();
    }
    check_lanes();
    for (size_t round = 0; round < 2000000 / VL; round++) {
        for (size_t i = 0; i < VL; i++) {
            a[i] = hard_value();
            b[i] = hard_value();
            c[i] = hard_value();
            if (random_bits() % 4 == 0) /* nearly all cancels */
                c[i] = from_bits(to_bits(-a[i] * b[i]) + (bits)(random_bits() % 7) - 3);
            if (random_bits() % 8 == 0) { /* around FRNN_TINY, and equal operands */
                a[i] = from_bits(to_bits(FRNN_TINY) + (bits)(random_bits() % 5) - 2);
                b[i] = random_bits() % 2 ? a[i] : -a[i];
            }
            if (random_bits() % 8 == 0)
                near_tie(&a[i], &b[i], &c[i]);
        }
        check_lanes();
    }
}

/* ---- Memory ------------------------------------------------------------------------------- */

static void test_memory(void) {
    /* two pages, the second not to be touched */
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_NONE) != 0) {
        perror("pages");
        exit(2);
    }
    real *end = (real *)(void *)(pages + page);
    for (size_t n = 0; n <= VL; n++) {
        real *p = end - n;
        for (size_t i = 0; i < n; i++)
            p[i] = (real)(i + 1);
        vstore(y, vload_n(p, n));
        for (size_t i = 0; i < VL; i++)
            expect("vload_n", y[i], i < n ? (real)(i + 1) : 0, (real)n, 0, 0);
        for (size_t i = 0; i < VL; i++)
            a[i] = (real)(100 + i);
        p[-1] = 7;
        vstore_n(p, vload(a), n);
        expect("vstore_n before", p[-1], 7, (real)n, 0, 0);
        for (size_t i = 0; i < n; i++)
            expect("vstore_n", p[i], (real)(100 + i), (real)n, 0, 0);
        for (size_t i = 0; i < 2 * VL; i++)
            (end - 2 * VL)[i] = (real)i;
        vstore_n(end - 2 * VL, vload(a), n);
        for (size_t i = n; i < 2 * VL; i++)
            expect("vstore_n behind", (end - 2 * VL)[i], (real)i, (real)n, 0, 0);
    }
    for (size_t offset = 0; offset <= VL; offset++) { /* any alignment, up to the last element */
        real *p = end - VL - offset;
        for (size_t i = 0; i < VL; i++)
            p[i] = (real)(i + offset);
        vstore(p, vadd(vload(p), vset1(1)));
        for (size_t i = 0; i < VL; i++)
            expect("vload, vstore", p[i], (real)(i + offset + 1), (real)offset, 0, 0);
    }
    for (size_t i = 0; i < VL; i++) { /* up to the last element, the same ones too */
        const uint16_t last = (uint16_t)(page / sizeof(real) - 1);
        uint16_t index[VL];
        for (size_t j = 0; j < VL; j++)
            index[j] = (uint16_t)(j == i ? last : last - j / 2 - 1);
        for (size_t j = 0; j <= VL; j++)
            end[-1 - (ptrdiff_t)j] = (real)(last - j);
        vstore(y, vgather((const real *)(const void *)pages, index));
        for (size_t j = 0; j < VL; j++)
            expect("vgather", y[j], (real)index[j], (real)i, (real)j, 0);
    }
    vprefetch(end);
    munmap(pages, 2 * page);
}

/* ---- The rest ----------------------------------------------------------------------------- */

#define CHECK_SHIFT(N)                                                                             \
    do {                                                                                           \
        vstore(y, vshift_up(vload(a), N));                                                         \
        for (size_t i = 0; i < VL; i++)                                                            \
            expect("vshift_up", y[i], i < (N) ? 0 : a[i - (N)], (N), (real)i, 0);                  \
    } while (0)

static void test_rest(void) {
    for (size_t i = 0; i < VL; i++)
        a[i] = (real)(i + 1);
#if !defined(FRNN_ISA_SCALAR)
    CHECK_SHIFT(1);
    CHECK_SHIFT(2);
#if defined(FRNN_ISA_AVX512) || defined(FRNN_REAL_F32)
    CHECK_SHIFT(4);
#endif
#if defined(FRNN_ISA_AVX512) && defined(FRNN_REAL_F32)
    CHECK_SHIFT(8);
#endif
#endif
    EACH("vlast", vlast(vload(a)), a[VL - 1]);
    EACH("vset1", vset1(3), 3);
    EACH("vzero", vzero(), 0);
    for (int n = 1 - BIAS; n <= BIAS; n++) {
        for (size_t i = 0; i < VL; i++)
            a[i] = (real)(n + (int)i <= BIAS ? n + (int)i : n);
        /* a product with a fraction, rounded by the addition as vmath.h does it */
        const vreal magic = vset1(FRNN_ROUND_MAGIC);
        const vreal t = vfma(vadd(vload(a), vset1((real)0.25)), vset1(1), magic);
        EACH("rounding", vsub(t, magic), a[i]);
        EACH("vexp2i", vexp2i(t), (real)ldexp(1, (int)a[i]));
    }
}

int main(void) {
#if defined(FRNN_ISA_AVX2)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
#elif defined(FRNN_ISA_AVX512)
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq")) {
#else
    if (0) {
#endif
        printf("%s %s skipped\n", ISA, DTYPE);
        return 0;
    }
    test_memory();
    test_rest();
    test_lanes();
    printf("%s %s vocabulary: %lu wrong\n", ISA, DTYPE, wrong);
    return wrong != 0;
}
