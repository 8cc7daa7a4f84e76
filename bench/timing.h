/* SPDX-License-Identifier: MIT
 *
 * Timing and memory for the C benchmarks. Calls are timed in blocks long enough for the clock; the
 * least block says what the code can do, the median what it did on this machine at this hour.
 *
 * Include it first: it asks the system headers for the POSIX clock.
 */
#ifndef FASTRNN_BENCH_TIMING_H
#define FASTRNN_BENCH_TIMING_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TIMING_BLOCK_SECONDS 2e-4
#define TIMING_WARM_SECONDS  2e-3
#define TIMING_MIN_BLOCKS    5
#define TIMING_MAX_BLOCKS    4096

/* Seconds of one call. */
typedef struct timing {
    double min, median;
} timing;

static double timing_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int timing_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Times call(context) for about `seconds`, after a warm-up. */
static timing timing_run(void (*call)(void *), void *context, double seconds) {
    static double blocks[TIMING_MAX_BLOCKS];
    size_t count = 0, calls = 0;
    double start = timing_now(), now;
    do {
        call(context);
        calls++;
        now = timing_now();
    } while (now - start < TIMING_WARM_SECONDS);
    double once = (now - start) / (double)calls;
    calls = 1 + (size_t)(TIMING_BLOCK_SECONDS / once);

    double end = now + seconds;
    while (count < TIMING_MAX_BLOCKS && (count < TIMING_MIN_BLOCKS || now < end)) {
        start = now;
        for (size_t i = 0; i < calls; i++)
            call(context);
        now = timing_now();
        blocks[count++] = (now - start) / (double)calls;
    }
    qsort(blocks, count, sizeof *blocks, timing_compare);
    timing result = {blocks[0], blocks[count / 2]};
    return result;
}

/* Zeroed memory at the start of a cache line; ends the program if there is none. */
static void *timing_alloc(size_t size) {
    size_t rounded = (size / 64 + 1) * 64;
    void *memory = aligned_alloc(64, rounded);
    if (memory == NULL) {
        fprintf(stderr, "cannot allocate %zu bytes\n", rounded);
        exit(1);
    }
    memset(memory, 0, rounded);
    return memory;
}

/* The next of a fixed sequence of pseudo-random numbers, uniform in [-scale, scale). */
static double timing_random(double scale) {
    static uint64_t state = 1;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return scale * ((double)(state >> 11) / (double)(UINT64_C(1) << 52) - 1.0);
}

static float *timing_random_f32(size_t n, double scale) {
    float *values = timing_alloc(n * sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)timing_random(scale);
    return values;
}

#endif
