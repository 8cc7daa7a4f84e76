/* SPDX-License-Identifier: MIT
 *
 * The functions of frnn_activation, and their slopes as functions of their values. NaN passes.
 */

/* log(1 + e) for e in [0, 1]: 2 artanh(s) with s = e / (2 + e), at most 1/3. */
INLINE vreal log1p_unit(vreal e) {
    enum { TERMS = sizeof(real) == 4 ? 9 : 17 };
    const vreal s = vdiv(e, vadd(vset1(2), e)), square = vmul(s, s);
    vreal sum = vset1(1 / (real)(2 * TERMS + 1));
    UNROLL for (int n = TERMS - 1; n >= 0; n--) sum =
        vfma(sum, square, vset1(1 / (real)(2 * n + 1)));
    return vmul(vmul(vset1(2), s), sum);
}

/* The less common ones, once for all their callers. */
NOINLINE vreal activate_other(const frnn_function *f, vreal x) {
    const vreal alpha = vset1((real)f->alpha), beta = vset1((real)f->beta), one = vset1(1);
    switch (f->kind) {
    case FRNN_HARD_SIGMOID:
        return vmax(vzero(), vmin(one, vfma(alpha, x, beta)));
    case FRNN_AFFINE:
        return vfma(alpha, x, beta);
    case FRNN_LEAKY_RELU:
        return vselect_lt(x, vzero(), vmul(alpha, x), x);
    case FRNN_THRESHOLDED_RELU: /* 0 below, by a way that keeps NaN */
        return vselect_lt(alpha, x, x, vmax(vzero(), vmin(vzero(), x)));
    case FRNN_SCALED_TANH:
        return vmul(alpha, vtanh(vmul(beta, x)));
    case FRNN_ELU: { /* exp(x) - 1 = 2 t / (1 - t), t = tanh(x / 2) */
        const vreal t = vtanh(vmul(vset1((real)0.5), x));
        const vreal expm1 = vdiv(vadd(t, t), vsub(one, t));
        return vselect_lt(x, vzero(), vmul(alpha, expm1), x);
    }
    case FRNN_SOFTSIGN:
        return vdiv(x, vadd(one, vabs(x)));
    case FRNN_SOFTPLUS: {
        const vreal e = vexp(vsub(vzero(), vabs(x)));
        return vadd(vmax(vzero(), x), log1p_unit(e));
    }
    default:
        return x;
    }
}

INLINE vreal activate(const frnn_function *f, vreal x) {
    switch (f->kind) {
    case FRNN_TANH:
        return vtanh(x);
    case FRNN_RELU:
        return vmax(vzero(), x); /* x where x is NaN */
    case FRNN_IDENTITY:
        return x;
    case FRNN_SIGMOID:
        return vsigmoid(x);
    default:
        return activate_other(f, x);
    }
}

/* x within [-limit, limit], where there is a limit. */
INLINE vreal bounded(double limit, vreal x) {
    return limit > 0 ? vmin(vset1((real)limit), vmax(vset1(-(real)limit), x)) : x;
}

NOINLINE vreal slope_other(const frnn_function *f, vreal value) {
    const vreal one = vset1(1), alpha = vset1((real)f->alpha);
    switch (f->kind) {
    case FRNN_HARD_SIGMOID:
        return vselect_lt(vzero(), value, vselect_lt(value, one, alpha, vzero()), vzero());
    case FRNN_AFFINE:
        return alpha;
    case FRNN_LEAKY_RELU:
        return vselect_lt(vzero(), value, one, alpha);
    case FRNN_THRESHOLDED_RELU:
        return vselect_lt(vzero(), value, one, vzero());
    case FRNN_SCALED_TANH:
        return vfnma(vmul(value, value), vset1((real)(f->beta / f->alpha)),
                     vset1((real)(f->alpha * f->beta)));
    case FRNN_ELU:
        return vselect_lt(vzero(), value, one, vadd(value, alpha));
    case FRNN_SOFTSIGN: {
        const vreal rest = vsub(one, vabs(value));
        return vmul(rest, rest);
    }
    case FRNN_SOFTPLUS:
        return vsub(one, vexp(vsub(vzero(), value)));
    default:
        return one;
    }
}

/* f'(z), given f(z). */
INLINE vreal slope(const frnn_function *f, vreal value) {
    switch (f->kind) {
    case FRNN_TANH:
        return vfnma(value, value, vset1(1));
    case FRNN_RELU:
        return vselect_lt(vzero(), value, vset1(1), vzero());
    case FRNN_IDENTITY:
        return vset1(1);
    case FRNN_SIGMOID:
        return vfnma(value, value, value);
    default:
        return slope_other(f, value);
    }
}

/* The same of f(bounded(limit, z)): nothing passes where the value is that at a limit. */
INLINE vreal slope_bounded(const frnn_function *f, double limit, vreal value) {
    const vreal inner = slope(f, value);
    if (limit <= 0)
        return inner;
    const vreal a = activate(f, vset1((real)limit)), b = activate(f, vset1(-(real)limit));
    const vreal low = vmin(a, b), high = vmax(a, b);
    return vselect_lt(low, value, vselect_lt(value, high, inner, vzero()), vzero());
}
