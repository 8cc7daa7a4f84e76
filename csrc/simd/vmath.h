/* SPDX-License-Identifier: MIT
 *
 * exp, sigmoid and tanh on vectors. Correctly rounded operations in one order for every argument,
 * without a branch, so the same bits on every instruction set.
 *
 * Largest errors in units in the last place, of subnormal results too:
 *
 *              exp     sigmoid   tanh
 *     float    1.051   1.9991    1.981    all floats: tests/c/test_vmath.c --all
 *     double   1.04    1.9990    1.829    largest of 10^7 arguments in each range that matters
 *
 * sigmoid is monotone and in [0, 1], tanh is odd and in [-1, 1], and both take the ends of their
 * ranges where these are the nearest numbers. exp overflows to infinity. A NaN gives a NaN: it is
 * always the second operand of min and max.
 *
 * All rest on e^-x = 2^n e^-r, n the integer nearest to -x / ln 2, |r| <= ln(2) / 2, and
 * 1 - e^-r = r - r^2 Q(r) with a polynomial Q, which is accurate relative to r.
 */

/* ---- Constants: printed and checked by tools/derive_vmath.py --------------------------------- */

#if defined(FRNN_REAL_F32)
#define VM_LOG2E  0x1.715476p+0f
#define VM_LN2_HI 0x1.62e43p-1f
#define VM_LN2_LO -0x1.05c61p-29f
#define VM_Q0     0x1p-1f
#define VM_Q1     -0x1.5554bp-3f
#define VM_Q2     0x1.5554dap-5f
#define VM_Q3     -0x1.1227aap-7f
#define VM_Q4     0x1.6d5f6ep-10f
#else
#define VM_LOG2E  0x1.71547652b82fep+0
#define VM_LN2_HI 0x1.62e42fefa39efp-1
#define VM_LN2_LO 0x1.abc9e3b39803fp-56
#define VM_Q0     0x1.0000000000005p-1
#define VM_Q1     -0x1.555555555555cp-3
#define VM_Q2     0x1.55555555520dp-5
#define VM_Q3     -0x1.111111110e7b1p-7
#define VM_Q4     0x1.6c16c17f459f8p-10
#define VM_Q5     -0x1.a01a01b5a1f4bp-13
#define VM_Q6     0x1.a019a650f0bbdp-16
#define VM_Q7     -0x1.71ddea5e2c836p-19
#define VM_Q8     0x1.28a2e7e44b987p-22
#define VM_Q9     -0x1.af76460761aa8p-26
#endif

/* Where arguments are clamped: beyond, exp is 0 or infinite, sigmoid 0 or 1, tanh 1. The powers of
 * two between stay normal. */
#if defined(FRNN_REAL_F32)
#define VM_EXP_LOW   -105.0f
#define VM_EXP_HIGH  89.0f
#define VM_TANH_HIGH 10.0f
#else
#define VM_EXP_LOW   -746.0
#define VM_EXP_HIGH  710.0
#define VM_TANH_HIGH 20.0
#endif
#define VM_SIGMOID_HIGH ((real)40)

/* q with 1 - e^(-s r) = s (r - r2 q), where r2 = r * r and s is a power of two, so that scaling the
 * coefficients rounds nothing. */
static inline vreal vm_q(vreal r, vreal r2, real s) {
    const real s3 = s * s * s;
    const vreal q01 = vfma(r, vset1(VM_Q1 * s * s), vset1(VM_Q0 * s));
    const vreal q23 = vfma(r, vset1(VM_Q3 * s * s3), vset1(VM_Q2 * s3));
#if defined(FRNN_REAL_F32)
    return vfma(r2, vfma(r2, vset1(VM_Q4 * s * s * s3), q23), q01);
#else
    const real s5 = s3 * s * s, s7 = s5 * s * s, s9 = s7 * s * s;
    const vreal q45 = vfma(r, vset1(VM_Q5 * s * s5), vset1(VM_Q4 * s5));
    const vreal q67 = vfma(r, vset1(VM_Q7 * s * s7), vset1(VM_Q6 * s7));
    const vreal q89 = vfma(r, vset1(VM_Q9 * s * s9), vset1(VM_Q8 * s9));
    const vreal r4 = vmul(r2, r2);
    return vfma(r4, vfma(r4, q89, vfma(r2, q67, q45)), vfma(r2, q23, q01));
#endif
}

/* 1 - e^-r, |r| <= ln(2) / 2. */
static inline vreal vm_one_minus_exp(vreal r) {
    const vreal r2 = vmul(r, r);
    return vfnma(r2, vm_q(r, r2, 1), r);
}

/* x + n ln 2. The first step is exact: n * ln2_hi and x are multiples of the last bit of a result
 * of this size. */
static inline vreal vm_reduce(vreal x, vreal n) {
    return vfma(n, vset1(VM_LN2_LO), vfma(n, vset1(VM_LN2_HI), x));
}

static inline vreal vexp(vreal x) {
    const vreal magic = vset1(FRNN_ROUND_MAGIC);
    const vreal z = vsub(vzero(), vmax(vset1(VM_EXP_LOW), vmin(vset1(VM_EXP_HIGH), x)));
    const vreal n = vsub(vfnma(z, vset1(VM_LOG2E), magic), magic);
    const vreal w = vm_one_minus_exp(vm_reduce(z, n));
    /* 2^n in two halves, since neither it nor e^x need be normal */
    const vreal t = vfma(n, vset1((real)0.5), magic);
    const vreal p = vexp2i(t), rest = vexp2i(vadd(vsub(n, vsub(t, magic)), magic));
    return vmul(vfnma(p, w, p), rest);
}

/*
 * 1 / (1 + e^-x), numerator and denominator times 2^-64: then no power of two overflows, and a
 * subnormal result is rounded once, by the division.
 *
 * With p = 2^n and w = 1 - e^-r the denominator is p + 1 - p w. The smaller of p and 1 is added to
 * -p w first: p + 1 would be inexact from 2^24 on, at a time when the sum still feels the 1. The
 * errors are largest just below x = 0, where two roundings of a sum near 1 and 2 come to at most
 * 1.5 units of the result, and that of the division to 0.5.
 */
static inline vreal vsigmoid(vreal x) {
    const vreal one = vset1((real)0x1p-64), magic = vset1(FRNN_ROUND_MAGIC - 64);
    const vreal z = vmax(vset1(VM_EXP_LOW), vmin(vset1(VM_SIGMOID_HIGH), x));
    const vreal t = vfnma(z, vset1(VM_LOG2E), magic);
    const vreal p = vexp2i(t);
    const vreal w = vm_one_minus_exp(vm_reduce(z, vsub(t, magic)));
    return vdiv(one, vadd(vmax(p, one), vfnma(p, w, vmin(p, one))));
}

/*
 * (1 - E) / (1 + E), E = e^-2a, a = |x|, both halved. With E = p e^-2r, p = 2^n <= 1 and
 * s = (1 - e^-2r) / 2
 *
 *     m = (1 - p) / 2 + p s        the numerator
 *     d = (1 + p) / 2 - p s        the denominator
 *
 * For n = 0, m is s and so accurate relative to x down to the smallest. In float, what ln2_hi lacks
 * does not matter. In double it does, and not all arguments can be tried, so two more steps keep
 * the error well below 2: what ln2_hi lacks enters s just before its last rounding, and the
 * quotient y gets back what m - y d leaves, with d before its rounding, d + e. That wants a factor
 * 1 / d, between 1 and 2, for which 4 / 3 will do.
 */
static inline vreal vtanh(vreal x) {
    const vreal half = vset1((real)0.5), magic = vset1(FRNN_ROUND_MAGIC);
    const vreal a = vmin(vset1(VM_TANH_HIGH), vabs(x));
    const vreal t = vfnma(a, vset1(2 * VM_LOG2E), magic);
    const vreal p = vexp2i(t);
    const vreal n = vsub(t, magic);
    const vreal r = vfma(n, vset1(VM_LN2_HI / 2), a);
    const vreal r2 = vmul(r, r);
    const vreal q = vm_q(r, r2, 2);
#if defined(FRNN_REAL_F32)
    const vreal s = vfnma(r2, q, r);
#else
    const vreal s = vsub(r, vfma(r2, q, vmul(n, vset1(-VM_LN2_LO / 2))));
#endif
    const vreal k = vfma(p, half, half);
    const vreal m = vfma(p, s, vfnma(p, half, half));
    const vreal d = vfnma(p, s, k);
    vreal y = vdiv(m, d);
#if defined(FRNN_REAL_F64)
    const vreal e = vfnma(p, s, vsub(k, d));
    y = vfma(vfnma(y, e, vfnma(y, d, m)), vset1(0x1.5555555555555p+0), y);
#endif
    return vcopysign(y, x);
}
