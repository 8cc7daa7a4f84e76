/* SPDX-License-Identifier: MIT
 *
 * exp, sigmoid and tanh on vectors. Only correctly rounded operations and one formula for every
 * argument, without a branch, so the same bits on every instruction set.
 *
 * e^-x is 2^n e^-r with n the integer nearest to -x / ln 2 and r = x + n ln 2, |r| <= ln(2) / 2.
 * The kernel is S(r) = 1 - e^-r = r - r^2 Q(r), which is accurate relative to r.
 */

/* ---- Constants, derived by tools/derive_vmath.py, which also checks them here ---------------- */

#if defined(FRNN_REAL_F32)
#define VM_LOG2E 0x1.715476p+0f
#define VM_LN2_HI 0x1.62e43p-1f
#define VM_LN2_LO -0x1.05c61p-29f
#define VM_Q0 0x1p-1f
#define VM_Q1 -0x1.5554bp-3f
#define VM_Q2 0x1.5554dap-5f
#define VM_Q3 -0x1.1227aap-7f
#define VM_Q4 0x1.6d5f6ep-10f
#define VM_SIGMOID_LOW -105.0f
#define VM_TANH_HIGH 10.0f
#define VM_EXP_LOW -105.0f
#define VM_EXP_HIGH 89.0f
#else
#define VM_LOG2E 0x1.71547652b82fep+0
#define VM_LN2_HI 0x1.62e42fefa39efp-1
#define VM_LN2_LO 0x1.abc9e3b39803fp-56
#define VM_Q0 0x1.0000000000005p-1
#define VM_Q1 -0x1.555555555555cp-3
#define VM_Q2 0x1.55555555520dp-5
#define VM_Q3 -0x1.111111110e7b1p-7
#define VM_Q4 0x1.6c16c17f459f8p-10
#define VM_Q5 -0x1.a01a01b5a1f4bp-13
#define VM_Q6 0x1.a019a650f0bbdp-16
#define VM_Q7 -0x1.71ddea5e2c836p-19
#define VM_Q8 0x1.28a2e7e44b987p-22
#define VM_Q9 -0x1.af76460761aa8p-26
#define VM_SIGMOID_LOW -746.0
#define VM_TANH_HIGH 20.0
#define VM_EXP_LOW -746.0
#define VM_EXP_HIGH 710.0
#endif
#define VM_SIGMOID_HIGH ((real)40)

/* S(s r) / s, s a power of two: scaling the coefficients costs nothing and rounds nothing. */
static inline vreal vm_one_minus_exp(vreal r, real s)
{
    const vreal r2 = vmul(r, r);
    const vreal q01 = vfma(r, vset1(VM_Q1 * s * s), vset1(VM_Q0 * s));
    const real s3 = s * s * s;
    const vreal q23 = vfma(r, vset1(VM_Q3 * s * s3), vset1(VM_Q2 * s3));
#if defined(FRNN_REAL_F32)
    const vreal high = vfma(r2, vset1(VM_Q4 * s * s * s3), q23);
    const vreal q = vfma(r2, high, q01);
#else
    const real s5 = s3 * s * s, s7 = s5 * s * s, s9 = s7 * s * s;
    const vreal q45 = vfma(r, vset1(VM_Q5 * s * s5), vset1(VM_Q4 * s5));
    const vreal q67 = vfma(r, vset1(VM_Q7 * s * s7), vset1(VM_Q6 * s7));
    const vreal q89 = vfma(r, vset1(VM_Q9 * s * s9), vset1(VM_Q8 * s9));
    const vreal r4 = vmul(r2, r2);
    const vreal high = vfma(r4, q89, vfma(r2, q67, q45));
    const vreal q = vfma(r4, high, vfma(r2, q23, q01));
#endif
    return vfnma(r2, q, r);
}

static inline vreal vexp(vreal x)
{
    const vreal magic = vset1(FRNN_ROUND_MAGIC);
    x = vmax(vset1(VM_EXP_LOW), vmin(vset1(VM_EXP_HIGH), x));
    const vreal n = vsub(vfma(x, vset1(VM_LOG2E), magic), magic);
    const vreal r = vfma(n, vset1(VM_LN2_LO), vfma(n, vset1(VM_LN2_HI), vsub(vzero(), x)));
    const vreal t = vfma(n, vset1((real)0.5), magic);
    const vreal rest = vsub(n, vsub(t, magic));
    const vreal p = vexp2i(t);
    return vmul(vfnma(p, vm_one_minus_exp(r, 1), p), vexp2i(vadd(rest, magic)));
}

static inline vreal vsigmoid(vreal x)
{
    const vreal scale = vset1((real)0x1p-64), magic = vset1(FRNN_ROUND_MAGIC - 64);
    x = vmax(vset1(VM_SIGMOID_LOW), vmin(vset1(VM_SIGMOID_HIGH), x));
    const vreal t = vfnma(x, vset1(VM_LOG2E), magic);
    const vreal n = vsub(t, magic);
    const vreal r = vfma(n, vset1(VM_LN2_LO), vfma(n, vset1(VM_LN2_HI), x));
    const vreal p = vexp2i(t);
    const vreal d = vadd(p, vfnma(p, vm_one_minus_exp(r, 1), scale));
    return vdiv(scale, d);
}

static inline vreal vtanh(vreal x)
{
    const vreal half = vset1((real)0.5), magic = vset1(FRNN_ROUND_MAGIC);
    const vreal a = vmin(vset1(VM_TANH_HIGH), vabs(x));
    const vreal t = vfnma(a, vset1(2 * VM_LOG2E), magic);
    const vreal n = vsub(t, magic);
    const vreal r = vfma(n, vset1(VM_LN2_HI / 2), a);
    const vreal p = vexp2i(t);
    const vreal s = vm_one_minus_exp(r, 2);
    const vreal m = vfma(p, s, vfnma(p, half, half));
#ifdef ALT
    const vreal d = vfnma(p, s, vfma(p, half, half));
#else
    const vreal d = vsub(vset1(1), m);
#endif
    return vcopysign(vdiv(m, d), x);
}
