/* SPDX-License-Identifier: MIT
 *
 * The leaky unit over time: h = a * h + (1 - a) * x, channel by channel. Nothing but memory
 * traffic limits it, so channels are lanes, a few vectors of state stay in registers, and time is
 * cut so that a piece of the rows stays in cache while the strips of channels pass over it.
 */

#define SCAN_STRIP       16          /* vectors of state in registers */
#define SCAN_PIECE_BYTES (16 * 1024) /* of x in a piece of time */
#define SCAN_PIECE_STEPS 8           /* at least */
#define SCAN_AHEAD       12          /* steps; lines of y too are fetched before they are written */

/* Steps before which the state is once more what it was at first. */
typedef struct scan_resets {
    const unsigned char *reset; /* or NULL */
    size_t step;
    const real *h0;
} scan_resets;

/* A strip of `vectors` whole vectors (a constant), or of `lanes` < VL lanes of one. */
INLINE void scan_strip(const int vectors, const int part, size_t lanes, size_t steps, const real *x,
                       ptrdiff_t x_step, real *y, ptrdiff_t y_step, const real *alpha, real *h,
                       const scan_resets resets) {
    vreal state[SCAN_STRIP], a[SCAN_STRIP], b[SCAN_STRIP];
    UNROLL for (int v = 0; v < vectors; v++) {
        state[v] = part ? vload_n(h, lanes) : vload(h + v * VL);
        a[v] = part ? vload_n(alpha, lanes) : vload(alpha + v * VL);
        b[v] = vsub(vset1(1), a[v]);
    }
    for (size_t t = 0; t < steps; t++) {
        if (resets.reset != NULL && resets.reset[t * resets.step]) {
            UNROLL for (int v = 0; v < vectors; v++) state[v] = vload(resets.h0 + v * VL);
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            if (!part) {
                vprefetch(x + SCAN_AHEAD * x_step + v * VL);
                vprefetch(y + SCAN_AHEAD * y_step + v * VL);
            }
            const vreal input = part ? vload_n(x, lanes) : vload(x + v * VL);
            state[v] = vflush(vfma(a[v], state[v], vmul(b[v], input)));
            if (part)
                vstore_n(y, state[v], lanes);
            else
                vstore(y + v * VL, state[v]);
        }
        x += x_step;
        y += y_step;
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        if (part)
            vstore_n(h, state[v], lanes);
        else
            vstore(h + v * VL, state[v]);
    }
}

static void scan_channels(const frnn_scan *s, size_t begin, size_t steps) {
    const real *x = (const real *)s->x + (ptrdiff_t)begin * s->x_step;
    real *y = (real *)s->y + (ptrdiff_t)begin * s->y_step;
    const real *alpha = s->alpha;
    real *h = s->h;
    scan_resets resets = {s->reset, s->reset_step, s->h0};
    if (s->reset != NULL)
        resets.reset += begin * s->reset_step;
    size_t at = 0;
    while (at < s->channels) {
        const size_t left = s->channels - at;
        size_t done = 0;
#define STRIP(n)                                                                                   \
    if (done == 0 && left >= (n) * (size_t)VL) {                                                   \
        done = (n) * (size_t)VL;                                                                   \
        scan_strip(n, 0, 0, steps, x + at, s->x_step, y + at, s->y_step, alpha + at, h + at,       \
                   resets);                                                                        \
    }
        if (left < (size_t)VL) {
            done = left;
            scan_strip(1, 1, done, steps, x + at, s->x_step, y + at, s->y_step, alpha + at, h + at,
                       resets);
        }
        STRIP(16)
        STRIP(8)
        STRIP(4)
        STRIP(2)
        STRIP(1)
#undef STRIP
        at += done;
        if (s->reset != NULL)
            resets.h0 += done;
    }
}

/* ---- The time axis over the lanes ---------------------------------------------------------- */

#if !defined(FRNN_ISA_SCALAR)
#define SHIFT_ADD(n)                                                                               \
    if ((n) < VL) {                                                                                \
        sum = vfma(power, vshift_up(sum, (n) < VL ? (n) : 1), sum);                                \
        power = vmul(power, power);                                                                \
    }

/* Within a vector of VL steps, log2(VL) shifted additions give every lane the sum
 *     sum over j <= lane of alpha^(lane - j) * values_j. */
INLINE vreal scan_lanes(vreal values, real alpha) {
    vreal power = vset1(alpha), sum = values;
    /* clang-format off */
    SHIFT_ADD(1)
    SHIFT_ADD(2)
    SHIFT_ADD(4)
    SHIFT_ADD(8)
    /* clang-format on */
    return sum;
}

/* One channel: to the sums of b * x, alpha^(lane + 1) times the state before the vector is added.
 * Only that is serial. */
INLINE real scan_time(size_t steps, const real *x, real *y, real alpha, real h) {
    real powers[VL];
    real p = 1;
    for (int i = 0; i < VL; i++) {
        p *= alpha;
        powers[i] = p;
    }
    const vreal b = vset1(1 - alpha), lane_power = vload(powers), carry_power = vset1(p);
    vreal carry = vset1(h);
    size_t t = 0;
    for (; t + VL <= steps; t += VL) {
        const vreal sum = scan_lanes(vmul(b, vload(x + t)), alpha);
        vstore(y + t, vflush(vfma(lane_power, carry, sum)));
        carry = vflush(vfma(carry_power, carry, vlast(sum)));
    }
    real last[VL];
    vstore(last, carry);
    const vreal a = vset1(alpha);
    vreal state = vset1(last[0]);
    for (; t < steps; t++) {
        state = vflush(vfma(a, state, vmul(b, vset1(x[t]))));
        vstore_n(y + t, state, 1);
    }
    vstore(last, state);
    return last[0];
}

#define SCAN_BUFFER 512 /* steps of one channel, gathered */

static void scan_parallel(const frnn_scan *s) {
    for (size_t c = 0; c < s->channels; c++) {
        const real *x = (const real *)s->x + c;
        real *y = (real *)s->y + c;
        const real alpha = ((const real *)s->alpha)[c];
        real *h = (real *)s->h + c;
        if (s->x_step == 1 && s->y_step == 1) {
            *h = scan_time(s->steps, x, y, alpha, *h);
            continue;
        }
        real buffer[SCAN_BUFFER];
        for (size_t begin = 0; begin < s->steps; begin += SCAN_BUFFER) {
            const size_t count = frnn_min(SCAN_BUFFER, s->steps - begin);
            for (size_t i = 0; i < count; i++)
                buffer[i] = x[(ptrdiff_t)(begin + i) * s->x_step];
            *h = scan_time(count, buffer, buffer, alpha, *h);
            for (size_t i = 0; i < count; i++)
                y[(ptrdiff_t)(begin + i) * s->y_step] = buffer[i];
        }
    }
}
#endif

static void scan(const frnn_scan *s) {
#if !defined(FRNN_ISA_SCALAR)
    /* With the lanes full of channels there is nothing to gain along time. */
    if (s->parallel_time && s->reset == NULL && s->channels < (size_t)VL) {
        scan_parallel(s);
        return;
    }
#endif
    const size_t piece =
        frnn_max(SCAN_PIECE_BYTES / (s->channels * sizeof(real)), SCAN_PIECE_STEPS);
    for (size_t begin = 0; begin < s->steps; begin += piece)
        scan_channels(s, begin, frnn_min(piece, s->steps - begin));
}

/* ---- Backwards ----------------------------------------------------------------------------- */

#define SCAN_BACK_STRIP 4 /* vectors */

/* A strip as in scan_strip. The averages are computed once more, which costs less than to keep
 * and read them; then back through time while they are in the cache. */
INLINE void scan_back_strip(const int vectors, const int part, size_t lanes,
                            const frnn_scan_back *s, size_t at) {
    real past[FRNN_SCAN_PIECE][SCAN_BACK_STRIP * VL];
    vreal a[SCAN_BACK_STRIP], b[SCAN_BACK_STRIP], state[SCAN_BACK_STRIP], sum[SCAN_BACK_STRIP];
    const real *x = (const real *)s->x + at;
    UNROLL for (int v = 0; v < vectors; v++) {
        a[v] = vload((const real *)s->alpha + at + v * VL);
        b[v] = vsub(vset1(1), a[v]);
        state[v] = vload((const real *)s->h + at + v * VL);
    }
    for (size_t t = 0; t < s->steps; t++, x += s->x_step) {
        if (s->reset != NULL && s->reset[t * s->reset_step]) {
            UNROLL for (int v = 0; v < vectors; v++) state[v] =
                vload((const real *)s->h0 + at + v * VL);
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            const vreal input = part ? vload_n(x, lanes) : vload(x + v * VL);
            vstore(past[t] + v * VL, state[v]);
            state[v] = vflush(vfma(a[v], state[v], vmul(b[v], input)));
        }
    }
    const real *dy = s->dy;
    real *dx = s->dx;
    if (dy != NULL)
        dy += (ptrdiff_t)s->steps * s->dy_step + (ptrdiff_t)at;
    if (dx != NULL)
        dx += (ptrdiff_t)s->steps * s->dx_step + (ptrdiff_t)at;
    UNROLL for (int v = 0; v < vectors; v++) {
        state[v] = vload((const real *)s->carry + at + v * VL);
        sum[v] = vzero();
    }
    for (size_t t = s->steps; t-- > 0;) {
        x -= s->x_step;
        if (dy != NULL)
            dy -= s->dy_step;
        if (dx != NULL)
            dx -= s->dx_step;
        const int outside = dy != NULL && t >= s->dy_begin;
        UNROLL for (int v = 0; v < vectors; v++) {
            const vreal input = part ? vload_n(x, lanes) : vload(x + v * VL);
            vreal g = state[v];
            if (outside)
                g = vadd(part ? vload_n(dy, lanes) : vload(dy + v * VL), g);
            state[v] = vflush(vmul(a[v], g));
            sum[v] = vfma(g, vsub(vload(past[t] + v * VL), input), sum[v]);
            if (dx != NULL && part)
                vstore_n(dx, vmul(b[v], g), lanes);
            else if (dx != NULL)
                vstore(dx + v * VL, vmul(b[v], g));
        }
        if (s->reset != NULL && s->reset[t * s->reset_step]) {
            real *carry0 = (real *)s->carry0 + at;
            UNROLL for (int v = 0; v < vectors; v++) {
                vstore(carry0 + v * VL, vadd(vload(carry0 + v * VL), state[v]));
                state[v] = vzero();
            }
        }
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        real *total = (real *)s->dalpha + at + v * VL;
        vstore((real *)s->carry + at + v * VL, state[v]);
        vstore(total, vadd(vload(total), sum[v]));
    }
}

#if !defined(FRNN_ISA_SCALAR)
/* One channel with time over the lanes: the piece is gathered, dy and what follows from it turned
 * round, so that a lane's past is below it. */
static void scan_back_time(const frnn_scan_back *s, size_t at) {
    real x[FRNN_SCAN_PIECE], past[FRNN_SCAN_PIECE + 1], g[FRNN_SCAN_PIECE], powers[VL], sums[VL];
    const size_t steps = s->steps;
    const real alpha = ((const real *)s->alpha)[at];
    real *carry = (real *)s->carry + at, p = 1;
    for (size_t t = 0; t < FRNN_SCAN_PIECE; t++) {
        const int outside = s->dy != NULL && t < steps && steps - 1 - t >= s->dy_begin;
        x[t] = t < steps ? ((const real *)s->x)[(ptrdiff_t)t * s->x_step + (ptrdiff_t)at] : 0;
        g[t] = outside
                   ? ((const real *)s->dy)[(ptrdiff_t)(steps - 1 - t) * s->dy_step + (ptrdiff_t)at]
                   : 0;
    }
    for (int i = 0; i < VL; i++, p *= alpha)
        powers[i] = p;
    past[0] = ((const real *)s->h)[at];
    scan_time(steps, x, past + 1, alpha, past[0]);
    const vreal lane_power = vload(powers);
    for (size_t t = 0; t < steps; t += VL) {
        const vreal sum = vfma(lane_power, vset1(*carry), scan_lanes(vload(g + t), alpha));
        vstore(g + t, vflush(sum));
        vstore(sums, vflush(vmul(vset1(alpha), sum)));
        *carry = sums[frnn_min(VL, steps - t) - 1];
    }
    vreal total = vzero();
    for (size_t t = 0; t < steps; t++) /* turned back, for what is multiplied by it */
        x[t] = past[t] - x[t];
    for (size_t t = 0; t < steps; t++) {
        const real value = g[steps - 1 - t];
        if (s->dx != NULL)
            ((real *)s->dx)[(ptrdiff_t)t * s->dx_step + (ptrdiff_t)at] = (1 - alpha) * value;
        past[t] = value;
    }
    for (size_t t = 0; t < steps; t += VL) {
        const size_t lanes = frnn_min(VL, steps - t);
        total = vfma(vload_n(past + t, lanes), vload_n(x + t, lanes), total);
    }
    vstore(sums, total);
    for (int i = 0; i < VL; i++)
        ((real *)s->dalpha)[at] += sums[i];
}
#endif

static void scan_back(const frnn_scan_back *s) {
    size_t at = 0;
#if !defined(FRNN_ISA_SCALAR)
    const int over_lanes = s->parallel_time && s->reset == NULL && s->channels < (size_t)VL;
    for (; over_lanes && at < s->channels; at++)
        scan_back_time(s, at);
    if (at == s->channels)
        return;
#endif
    while (s->channels - at >= (size_t)SCAN_BACK_STRIP * VL) {
        scan_back_strip(SCAN_BACK_STRIP, 0, 0, s, at);
        at += SCAN_BACK_STRIP * VL;
    }
    while (s->channels - at >= (size_t)VL) {
        scan_back_strip(1, 0, 0, s, at);
        at += VL;
    }
    if (at < s->channels)
        scan_back_strip(1, 1, s->channels - at, s, at);
}
