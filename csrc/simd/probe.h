/* SPDX-License-Identifier: MIT
 *
 * Probes of the machine's limits, so that a benchmark can say how far from them a result is.
 */

#define PROBE_CHAINS 12

/* n rounds of independent chains; returns the floating-point operations in them. */
static double fma_flops(size_t n) {
    vreal sum[PROBE_CHAINS];
    const vreal factor = vset1((real)0.5), term = vset1((real)0.25);
    UNROLL for (int i = 0; i < PROBE_CHAINS; i++) sum[i] = vset1((real)i);
    for (size_t round = 0; round < n; round++) {
        UNROLL for (int i = 0; i < PROBE_CHAINS; i++) sum[i] = vfma(sum[i], factor, term);
    }
    real sink[VL];
    vreal total = vzero();
    for (int i = 0; i < PROBE_CHAINS; i++)
        total = vadd(total, sum[i]);
    vstore(sink, total);
    /* sink is positive: a condition that keeps the chains from being removed */
    return sink[0] > 0 ? 2.0 * PROBE_CHAINS * VL * (double)n : 0;
}

/* Reads the whole vectors of a buffer; returns the bytes read. */
static size_t read_bytes(const void *buffer, size_t size, size_t repeats) {
    const real *p = buffer;
    const size_t lines = size / (8 * VL * sizeof(real));
    vreal sum[8];
    UNROLL for (int i = 0; i < 8; i++) sum[i] = vzero();
    for (size_t repeat = 0; repeat < repeats; repeat++)
        for (size_t line = 0; line < lines; line++) {
            UNROLL for (int i = 0; i < 8; i++) sum[i] =
                vmax(vload(p + (line * 8 + (size_t)i) * VL), sum[i]);
        }
    real sink[VL];
    vreal most = sum[0];
    for (int i = 1; i < 8; i++)
        most = vmax(sum[i], most);
    vstore(sink, most);
    return sink[0] >= 0 ? lines * 8 * VL * sizeof(real) * repeats : 0;
}
