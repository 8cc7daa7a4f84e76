/* SPDX-License-Identifier: MIT
 *
 * Times of the private kernel table, by instruction set: probes of the machine's limits, the
 * point-wise functions, the input projection, one step of each cell, and the scan.
 *
 *     bench_kernels [ISA]        all that this machine has by default
 *
 * All figures are medians, float32, operands as near as their size allows.
 */
#include "timing.h"

#include "internal.h"

#define SECONDS 0.03

/* ---- Probes ------------------------------------------------------------------------------- */

typedef struct probe {
    const frnn_kernels *kernels;
    const void *buffer;
    size_t size, repeats;
    double done; /* by one call: operations, or bytes */
} probe;

static void run_fma(void *context) {
    probe *p = context;
    p->done = p->kernels->fma_flops(p->repeats);
}

static void run_read(void *context) {
    probe *p = context;
    p->done = (double)p->kernels->read_bytes(p->buffer, p->size, p->repeats);
}

static void bench_probes(const frnn_kernels *kernels) {
    static const size_t kib[] = {16, 256, 1024, 4096, 16384};
    probe p = {.kernels = kernels, .repeats = 1000};
    double seconds = timing_run(run_fma, &p, SECONDS).median;
    printf("  %-22s %8.1f GFLOP/s\n", "fma", p.done / seconds * 1e-9);
    for (size_t i = 0; i < sizeof kib / sizeof *kib; i++) {
        char name[32];
        snprintf(name, sizeof name, "read %zu KiB", kib[i]);
        p.size = kib[i] * 1024;
        p.repeats = 1 + 65536 / p.size;
        void *buffer = timing_alloc(p.size);
        p.buffer = buffer;
        seconds = timing_run(run_read, &p, SECONDS).median;
        printf("  %-22s %8.1f GB/s\n", name, p.done / seconds * 1e-9);
        free(buffer);
    }
}

/* ---- Point-wise functions ----------------------------------------------------------------- */

#define POINTS 2048 /* x and y in 16 KiB: half of a small L1 */

typedef struct pointwise {
    void (*function)(const void *x, void *y, size_t n);
    const float *x;
    float *y;
} pointwise;

static void run_pointwise(void *context) {
    pointwise *p = context;
    p->function(p->x, p->y, POINTS);
}

static void bench_pointwise(const frnn_kernels *kernels) {
    static const char *const names[] = {"exp", "sigmoid", "tanh"};
    pointwise p = {.x = timing_random_f32(POINTS, 6.0), .y = timing_alloc(POINTS * sizeof(float))};
    for (int i = 0; i < 3; i++) {
        p.function = i == 0 ? kernels->exp : i == 1 ? kernels->sigmoid : kernels->tanh;
        double seconds = timing_run(run_pointwise, &p, SECONDS).median;
        printf("  %-22s %8.2f ns per 16\n", names[i], seconds / (POINTS / 16) * 1e9);
    }
    free((void *)p.x);
    free(p.y);
}

/* ---- Projection --------------------------------------------------------------------------- */

typedef struct projection {
    const frnn_kernels *kernels;
    frnn_project job;
} projection;

static void run_project(void *context) {
    projection *p = context;
    p->kernels->project(&p->job);
}

static void bench_project(const frnn_kernels *kernels, size_t rows, size_t k, size_t blocks,
                          size_t gates) {
    size_t columns = blocks * gates * FRNN_BLOCK;
    float *a = timing_random_f32(rows * k, 1.0), *w = timing_random_f32(k * columns, 0.1);
    float *bias = timing_random_f32(columns, 0.1);
    float *out = timing_alloc(rows * columns * sizeof *out);
    void *partial = timing_alloc(rows * FRNN_PARTIAL * sizeof(float));
    projection p = {kernels,
                    {.rows = rows,
                     .k = k,
                     .blocks = blocks,
                     .gates = gates,
                     .a = a,
                     .a_row = (ptrdiff_t)k,
                     .w = w,
                     .bias = bias,
                     .out = out,
                     .out_row = (ptrdiff_t)columns,
                     .partial = partial}};
    double seconds = timing_run(run_project, &p, SECONDS).median;
    double flops = 2.0 * (double)rows * (double)k * (double)columns;
    printf("  project %5zu %5zu %4zu x %zu %12.2f us %8.1f GFLOP/s\n", rows, k, blocks, gates,
           seconds * 1e6, flops / seconds * 1e-9);
    free(a);
    free(w);
    free(bias);
    free(out);
    free(partial);
}

/* ---- Step --------------------------------------------------------------------------------- */

typedef struct stepping {
    void (*step)(const frnn_step *step);
    frnn_step job;
    frnn_piece piece, reset; /* what the step multiplies, and r times it */
} stepping;

/* As the time loop does: h turns round, and the blocks are visited back and forth. The gates are
 * not filled again; the weights are zeros, so that no gate can grow until its sigmoid is a
 * subnormal number, which would be slow. */
static void run_step(void *context) {
    stepping *s = context;
    void *h = s->job.h;
    s->step(&s->job);
    s->job.h = (void *)(uintptr_t)s->job.h_prev;
    s->job.h_prev = s->piece.past = h;
    s->job.backwards = !s->job.backwards;
}

static void bench_step(const frnn_kernels *kernels, frnn_cell cell, size_t rows, size_t h) {
    const frnn_cell_info *info = frnn_cell_get(cell);
    const frnn_config net = FRNN_CONFIG(cell, 1, h);
    const frnn_part part = frnn_part_shape(&net, 0);
    size_t blocks = part.blocks, ld = part.width;
    size_t columns = ld * part.slots, bytes = rows * ld * sizeof(float);
    float *w = timing_alloc(h * columns * sizeof *w), *alpha = timing_random_f32(ld, 0.4);
    float *gates = timing_random_f32(rows * columns, 1.0);
    void *h0 = timing_alloc(bytes), *h1 = timing_alloc(bytes), *c = timing_alloc(bytes);
    void *reset_h = timing_alloc(bytes);
    void *y = timing_alloc(bytes), *partial = timing_alloc(rows * FRNN_PARTIAL * sizeof(float));
    for (size_t j = 0; j < ld; j++)
        alpha[j] += 0.5f;
    stepping s = {kernels->step[cell],
                  {.row_end = rows,
                   .block_end = blocks,
                   .hidden_size = h,
                   .gates_row = columns,
                   .net = &net,
                   .plain = frnn_config_plain(&net),
                   .recurrent_size = h,
                   .w_hh = part.recurrent ? w : NULL,
                   .num_pieces = 1,
                   .past_row = ld,
                   .vectors = part.vectors > 0 ? alpha : NULL,
                   .vector_size = ld,
                   .h_prev = h0,
                   .h = h1,
                   .c_prev = info->memory ? c : NULL,
                   .c = info->memory ? c : NULL,
                   .ld = ld,
                   .gates = gates,
                   .partial = partial,
                   .y = y,
                   .y_row = (ptrdiff_t)h},
                  {h0, h, NULL},
                  {reset_h, h, NULL}};
    s.job.pieces = &s.piece;
    s.job.reset_pieces = part.reset_before ? &s.reset : NULL;
    double seconds = timing_run(run_step, &s, SECONDS).median;
    double flops = 2.0 * (double)rows * (double)(part.recurrent ? h * h * info->gates : 0);
    printf("  step %-16s %3zu %5zu %12.2f us %8.1f GFLOP/s\n", info->name, rows, h, seconds * 1e6,
           flops / seconds * 1e-9);
    free(w);
    free(alpha);
    free(gates);
    free(reset_h);
    free(h0);
    free(h1);
    free(c);
    free(y);
    free(partial);
}

/* ---- Scan --------------------------------------------------------------------------------- */

typedef struct scanning {
    const frnn_kernels *kernels;
    frnn_scan job;
} scanning;

static void run_scan(void *context) {
    scanning *s = context;
    s->kernels->scan(&s->job);
}

static void bench_scan(const frnn_kernels *kernels, size_t steps, size_t channels, int parallel) {
    size_t padded = (channels + FRNN_BLOCK - 1) / FRNN_BLOCK * FRNN_BLOCK;
    float *x = timing_random_f32(steps * channels, 1.0), *alpha = timing_random_f32(padded, 0.0);
    float *y = timing_alloc(steps * channels * sizeof *y), *h = timing_alloc(padded * sizeof *h);
    for (size_t j = 0; j < padded; j++)
        alpha[j] = 0.9f;
    scanning s = {kernels,
                  {.steps = steps,
                   .channels = channels,
                   .x = x,
                   .x_step = (ptrdiff_t)channels,
                   .y = y,
                   .y_step = (ptrdiff_t)channels,
                   .alpha = alpha,
                   .h = h,
                   .parallel_time = parallel}};
    double seconds = timing_run(run_scan, &s, SECONDS).median;
    printf("  scan %8zu x %-5zu%s %10.2f us %8.3f ns a value\n", steps, channels,
           parallel ? " parallel" : "         ", seconds * 1e6,
           seconds / (double)(steps * channels) * 1e9);
    free(x);
    free(y);
    free(alpha);
    free(h);
}

/* ------------------------------------------------------------------------------------------- */

static void bench_table(const frnn_kernels *kernels) {
    static const size_t projections[][3] = {{1, 128, 8},   {6, 128, 8},    {24, 128, 8},
                                            {96, 256, 16}, {96, 1024, 64}, {1, 1024, 64}};
    static const size_t steps[][2] = {{1, 20},  {1, 64},   {1, 256},  {1, 512},
                                      {8, 256}, {32, 128}, {32, 1024}};
    printf("%s\n", kernels->isa);
    bench_probes(kernels);
    bench_pointwise(kernels);
    printf("  project  rows     k blocks x gates\n");
    for (size_t gates = 1; gates <= 4; gates += 3)
        for (size_t i = 0; i < sizeof projections / sizeof *projections; i++)
            bench_project(kernels, projections[i][0], projections[i][1], projections[i][2], gates);
    printf("  step                 rows     H\n");
    for (int cell = 0; cell < FRNN_CELL_COUNT; cell++)
        if (frnn_cell_get((frnn_cell)cell)->gates != 0)
            for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
                bench_step(kernels, (frnn_cell)cell, steps[i][0], steps[i][1]);
    bench_scan(kernels, 64, 64, 0);
    bench_scan(kernels, 20000, 256, 0);
    bench_scan(kernels, 100000, 1, 0);
    bench_scan(kernels, 100000, 1, 1);
}

int main(int argc, char **argv) {
    const char *isa;
    int found = 0;
    for (size_t i = 0; (isa = frnn_isa_available(i)) != NULL; i++) {
        const frnn_kernels *kernels = frnn_kernels_get(isa, FRNN_F32);
        if (kernels != NULL && (argc < 2 || strcmp(argv[1], isa) == 0)) {
            bench_table(kernels);
            found = 1;
        }
    }
    if (!found) {
        fprintf(stderr, "bench_kernels: this machine does not have %s\n",
                argc < 2 ? "any" : argv[1]);
        return 2;
    }
    return 0;
}
