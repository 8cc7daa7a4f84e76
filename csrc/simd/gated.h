/* SPDX-License-Identifier: MIT
 *
 * The gated leak over time: y = a * y + (1 - a) * v, where a too is given at every step. As in
 * scan.h channels are lanes and memory traffic is the limit: three streams forward, six backward.
 * Rows wider than a strip are taken few steps at a time, so that every stream runs in the order
 * of memory and only the state is read again, from the cache.
 */

#define GATED_STRIP       8            /* vectors of state in registers */
#define GATED_PIECE_BYTES (16 * 1024)  /* of one stream in a piece of time */
#define GATED_AHEAD       (8 * 1024)   /* bytes; lines are fetched before they are written, too */
#define GATED_NEAR        (256 * 1024) /* of one stream: less is in the cache, and not fetched */

/* Steps that are done for one strip before the next. */
INLINE size_t gated_piece(size_t channels, size_t steps) {
    if (channels <= (size_t)GATED_STRIP * VL)
        return steps;
    return frnn_max(GATED_PIECE_BYTES / (channels * sizeof(real)), 1);
}

/* Elements to what is fetched: within a wide row and on to the next one, or some short rows on. */
INLINE ptrdiff_t gated_ahead(size_t channels, ptrdiff_t step) {
    const ptrdiff_t elements = GATED_AHEAD / sizeof(real), row = (ptrdiff_t)channels;
    return row >= elements ? elements : ((elements - 1) / row + 1) * step;
}

/* A strip of `vectors` whole vectors (a constant), or of `lanes` < VL lanes of one. */
INLINE void gated_strip(const int vectors, const int part, size_t lanes, const int fetch,
                        const frnn_gated_scan *s, size_t begin, size_t steps, size_t at) {
    const ptrdiff_t alpha_step = s->alpha_step, v_step = s->v_step, y_step = s->y_step;
    const ptrdiff_t alpha_ahead = gated_ahead(s->channels, alpha_step);
    const ptrdiff_t v_ahead = gated_ahead(s->channels, v_step);
    const ptrdiff_t y_ahead = gated_ahead(s->channels, y_step);
    const real *alpha = (const real *)s->alpha + (ptrdiff_t)begin * alpha_step + (ptrdiff_t)at;
    const real *v = (const real *)s->v + (ptrdiff_t)begin * v_step + (ptrdiff_t)at;
    real *y = (real *)s->y + (ptrdiff_t)begin * y_step + (ptrdiff_t)at;
    real *h = (real *)s->state + at;
    vreal state[GATED_STRIP];
    UNROLL for (int i = 0; i < vectors; i++) {
        state[i] = part ? vload_n(h, lanes) : vload(h + i * VL);
    }
    for (size_t t = 0; t < steps; t++, alpha += alpha_step, v += v_step, y += y_step) {
        UNROLL for (int i = 0; i < vectors; i++) {
            if (fetch) {
                vprefetch(alpha + alpha_ahead + i * VL);
                vprefetch(v + v_ahead + i * VL);
                vprefetch(y + y_ahead + i * VL);
            }
            const vreal a = part ? vload_n(alpha, lanes) : vload(alpha + i * VL);
            state[i] = leak(a, state[i], part ? vload_n(v, lanes) : vload(v + i * VL));
            if (part)
                vstore_n(y, state[i], lanes);
            else
                vstore(y + i * VL, state[i]);
        }
    }
    UNROLL for (int i = 0; i < vectors; i++) {
        if (part)
            vstore_n(h, state[i], lanes);
        else
            vstore(h + i * VL, state[i]);
    }
}

INLINE void gated_channels(const int fetch, const frnn_gated_scan *s) {
    const size_t piece = gated_piece(s->channels, s->steps);
    for (size_t begin = 0; begin < s->steps; begin += piece) {
        const size_t steps = frnn_min(piece, s->steps - begin);
        size_t at = 0;
        for (; s->channels - at >= (size_t)GATED_STRIP * VL; at += GATED_STRIP * VL)
            gated_strip(GATED_STRIP, 0, 0, fetch, s, begin, steps, at);
        for (; s->channels - at >= (size_t)VL; at += VL)
            gated_strip(1, 0, 0, fetch, s, begin, steps, at);
        if (at < s->channels)
            gated_strip(1, 1, s->channels - at, 0, s, begin, steps, at);
    }
}

/* ---- Backwards ----------------------------------------------------------------------------- */

/* The same from the last step of a strip to the first; the state here is the gradient of y that
 * comes from the step after. */
INLINE void gated_back_strip(const int vectors, const int part, size_t lanes, const int fetch,
                             const frnn_gated_scan_back *s, size_t begin, size_t steps, size_t at) {
    const ptrdiff_t end = (ptrdiff_t)(begin + steps), column = (ptrdiff_t)at;
    const ptrdiff_t alpha_step = s->alpha_step, v_step = s->v_step, y_step = s->y_step;
    const ptrdiff_t dy_step = s->dy_step, dalpha_step = s->dalpha_step, dv_step = s->dv_step;
    const ptrdiff_t alpha_ahead = gated_ahead(s->channels, alpha_step);
    const ptrdiff_t v_ahead = gated_ahead(s->channels, v_step);
    const ptrdiff_t y_ahead = gated_ahead(s->channels, y_step);
    const ptrdiff_t dy_ahead = gated_ahead(s->channels, dy_step);
    const ptrdiff_t dalpha_ahead = gated_ahead(s->channels, dalpha_step);
    const ptrdiff_t dv_ahead = gated_ahead(s->channels, dv_step);
    const real *alpha = (const real *)s->alpha + end * alpha_step + column;
    const real *v = (const real *)s->v + end * v_step + column;
    const real *y = (const real *)s->y + (end - 1) * y_step + column;
    const real *dy = s->dy == NULL ? NULL : (const real *)s->dy + end * dy_step + column;
    real *dalpha = (real *)s->dalpha + end * dalpha_step + column;
    real *dv = (real *)s->dv + end * dv_step + column;
    real *carry = (real *)s->carry + at;
    vreal state[GATED_STRIP];
    UNROLL for (int i = 0; i < vectors; i++) {
        state[i] = part ? vload_n(carry, lanes) : vload(carry + i * VL);
    }
    for (size_t t = begin + steps; t-- > begin;) {
        alpha -= alpha_step, v -= v_step, y -= y_step, dalpha -= dalpha_step, dv -= dv_step;
        const real *past = t == 0 ? (const real *)s->state + at : y;
        if (dy != NULL)
            dy -= dy_step;
        UNROLL for (int i = 0; i < vectors; i++) {
            if (fetch) {
                vprefetch(alpha - alpha_ahead + i * VL);
                vprefetch(v - v_ahead + i * VL);
                vprefetch(y - y_ahead + i * VL);
                vprefetch(dalpha - dalpha_ahead + i * VL);
                vprefetch(dv - dv_ahead + i * VL);
                if (dy != NULL)
                    vprefetch(dy - dy_ahead + i * VL);
            }
            vreal g = state[i];
            if (dy != NULL)
                g = vadd(part ? vload_n(dy, lanes) : vload(dy + i * VL), g);
            const vreal a = part ? vload_n(alpha, lanes) : vload(alpha + i * VL);
            const vreal present = part ? vload_n(v, lanes) : vload(v + i * VL);
            const vreal before = part ? vload_n(past, lanes) : vload(past + i * VL);
            const vreal to_v = vmul(vsub(vset1(1), a), g);
            const vreal to_alpha = vmul(g, vsub(before, present));
            state[i] = vflush(vmul(a, g));
            if (part) {
                vstore_n(dv, to_v, lanes);
                vstore_n(dalpha, to_alpha, lanes);
            } else {
                vstore(dv + i * VL, to_v);
                vstore(dalpha + i * VL, to_alpha);
            }
        }
    }
    UNROLL for (int i = 0; i < vectors; i++) {
        if (part)
            vstore_n(carry, state[i], lanes);
        else
            vstore(carry + i * VL, state[i]);
    }
}

/* Strips too from the last to the first, so that all runs backwards through memory. */
INLINE void gated_back_channels(const int fetch, const frnn_gated_scan_back *s) {
    const size_t piece = gated_piece(s->channels, s->steps), strip = GATED_STRIP * VL;
    for (size_t end = s->steps; end > 0;) {
        const size_t steps = frnn_min(piece, end), begin = end - steps;
        size_t at = s->channels;
        if (at % VL != 0) {
            at -= at % VL;
            gated_back_strip(1, 1, s->channels - at, 0, s, begin, steps, at);
        }
        while (at % strip != 0) {
            at -= VL;
            gated_back_strip(1, 0, 0, fetch, s, begin, steps, at);
        }
        while (at > 0) {
            at -= strip;
            gated_back_strip(GATED_STRIP, 0, 0, fetch, s, begin, steps, at);
        }
        end = begin;
    }
}

/* ---- The time axis over the lanes ---------------------------------------------------------- */

#if !defined(FRNN_ISA_SCALAR)
#define GATED_BUFFER 512 /* steps of one channel, gathered */

/* Lane i stands for the steps from i - n + 1 to i, which take a past p to power * p + sum; with
 * what lane i - n stands for before it, it is twice as many. The lowest n lanes are complete. */
#define GATED_JOIN(n)                                                                              \
    if ((n) < VL) {                                                                                \
        const vreal below = vshift_up(power, (n) < VL ? (n) : 1);                                  \
        sum = vfma(power, vshift_up(sum, (n) < VL ? (n) : 1), sum);                                \
        power = vselect_lt(index, vset1(n), power, vmul(power, below));                            \
    }

/* b_t = a_t * b_{t-1} + b_t in place, from h before the first; zeros follow up to a whole vector.
 * Only the last lane of a vector is waited for by the next one. */
INLINE void gated_time(size_t steps, const real *a, real *b, real h) {
    real lanes[VL];
    for (int i = 0; i < VL; i++)
        lanes[i] = (real)i;
    const vreal index = vload(lanes);
    vreal carry = vset1(h);
    for (size_t t = 0; t < steps; t += VL) {
        vreal power = vload(a + t), sum = vload(b + t);
        /* clang-format off */
        GATED_JOIN(1)
        GATED_JOIN(2)
        GATED_JOIN(4)
        GATED_JOIN(8)
        /* clang-format on */
        sum = vflush(vfma(power, carry, sum));
        vstore(b + t, sum);
        carry = vlast(sum);
    }
}

INLINE void gated_fill(size_t count, real *a, real *b) {
    for (; count % VL != 0; count++)
        a[count] = b[count] = 0;
}

/* The steps [begin, begin + count) of one channel, gathered. */
INLINE void gated_piece_time(const frnn_gated_scan *s, size_t at, size_t begin, size_t count) {
    real a[GATED_BUFFER], b[GATED_BUFFER], *h = (real *)s->state + at;
    const ptrdiff_t first = (ptrdiff_t)begin, column = (ptrdiff_t)at;
    const real *alpha = (const real *)s->alpha + first * s->alpha_step + column;
    const real *v = (const real *)s->v + first * s->v_step + column;
    real *y = (real *)s->y + first * s->y_step + column;
    for (size_t i = 0; i < count; i++, alpha += s->alpha_step, v += s->v_step) {
        a[i] = *alpha;
        b[i] = (1 - *alpha) * *v;
    }
    gated_fill(count, a, b);
    gated_time(count, a, b, *h);
    for (size_t i = 0; i < count; i++, y += s->y_step)
        *y = b[i];
    *h = b[count - 1];
}

static void gated_parallel(const frnn_gated_scan *s) {
    for (size_t begin = 0; begin < s->steps; begin += GATED_BUFFER) {
        for (size_t at = 0; at < s->channels; at++)
            gated_piece_time(s, at, begin, frnn_min(GATED_BUFFER, s->steps - begin));
    }
}

/* Turned round, so that the step after is the one below; its alpha is in front of its gradient. */
INLINE void gated_piece_time_back(const frnn_gated_scan_back *s, size_t at, size_t end,
                                  size_t count) {
    real a[GATED_BUFFER + 1], g[GATED_BUFFER], *carry = (real *)s->carry + at;
    const ptrdiff_t column = (ptrdiff_t)at, last = (ptrdiff_t)end - 1;
    const real *alpha = (const real *)s->alpha + last * s->alpha_step + column;
    const real *v = (const real *)s->v + last * s->v_step + column;
    const real *y = (const real *)s->y + (last - 1) * s->y_step + column, *dy = s->dy;
    real *dalpha = (real *)s->dalpha + last * s->dalpha_step + column;
    real *dv = (real *)s->dv + last * s->dv_step + column;
    a[0] = 1; /* the carry has been multiplied */
    for (size_t i = 0; i < count; i++) {
        const ptrdiff_t back = (ptrdiff_t)i;
        a[i + 1] = alpha[-back * s->alpha_step];
        g[i] = dy == NULL ? 0 : dy[(last - back) * s->dy_step + column];
    }
    const real first = a[count];
    gated_fill(count, a, g);
    gated_time(count, a, g, *carry);
    for (size_t i = 0; i < count; i++) {
        const real past = i + 1 == end ? ((const real *)s->state)[at] : *y;
        *dv = (1 - *alpha) * g[i];
        *dalpha = g[i] * (past - *v);
        alpha -= s->alpha_step, v -= s->v_step, y -= s->y_step;
        dv -= s->dv_step, dalpha -= s->dalpha_step;
    }
    vstore_n(carry, vflush(vmul(vset1(first), vset1(g[count - 1]))), 1);
}

static void gated_back_parallel(const frnn_gated_scan_back *s) {
    for (size_t end = s->steps; end > 0;) {
        const size_t count = frnn_min(GATED_BUFFER, end);
        for (size_t at = 0; at < s->channels; at++)
            gated_piece_time_back(s, at, end, count);
        end -= count;
    }
}

/* More channels than these, and to gather them costs more than the lanes win. */
#define GATED_FEW (VL > 8 ? VL / 8 : 1)
#endif

/* ---- Both ways ----------------------------------------------------------------------------- */

static void gated(const frnn_gated_scan *s) {
#if !defined(FRNN_ISA_SCALAR)
    if (s->parallel_time && s->channels <= GATED_FEW) {
        gated_parallel(s);
        return;
    }
#endif
    if (s->steps < GATED_NEAR / sizeof(real) / s->channels)
        gated_channels(0, s);
    else
        gated_channels(1, s);
}

static void gated_back(const frnn_gated_scan_back *s) {
#if !defined(FRNN_ISA_SCALAR)
    if (s->parallel_time && s->channels <= GATED_FEW) {
        gated_back_parallel(s);
        return;
    }
#endif
    if (s->steps < GATED_NEAR / sizeof(real) / s->channels)
        gated_back_channels(0, s);
    else
        gated_back_channels(1, s);
}
