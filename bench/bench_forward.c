/* SPDX-License-Identifier: MIT
 *
 * Time of frnn_forward through the public header, float32, one layer, one thread:
 *
 *     bench_forward [-c CELL] [-s SECONDS] I,H,B,T ...
 *
 * CELL is a name of the table of cells (default lstm), SECONDS the time to spend on each shape
 * (default 0.2). The shapes that everything measures: $(python fastrnn/bench/shapes.py).
 */
#include "timing.h"

#include "fastrnn.h"

typedef struct forward {
    frnn_config net;
    frnn_run run;
    void *packed;
    size_t packed_size;
} forward;

static void check(frnn_status status) {
    if (status != FRNN_OK) {
        fprintf(stderr, "bench_forward: %s\n", frnn_strerror(status));
        exit(1);
    }
}

static void run_forward(void *context) {
    forward *f = context;
    check(frnn_forward(&f->net, f->packed, f->packed_size, &f->run));
}

/* Random weights, packed; they are of no use afterwards. */
static void pack(forward *f, const frnn_cell_info *info) {
    size_t h = f->net.hidden_size, rows = info->gates * h;
    double scale = 0.05;
    float *weight_ih = timing_random_f32(rows * f->net.input_size, scale);
    float *weight_hh = timing_random_f32(rows * h, scale);
    float *bias_ih = timing_random_f32(rows, scale), *bias_hh = timing_random_f32(rows, scale);
    float *alpha = timing_alloc(h * sizeof *alpha);
    for (size_t j = 0; j < h; j++)
        alpha[j] = 0.9f;
    frnn_weights weights = {0};
    if (info->gates != 0) {
        weights.weight_ih = weight_ih;
        weights.weight_hh = weight_hh;
        weights.bias_ih = bias_ih;
        weights.bias_hh = bias_hh;
    }
    if (info->alpha)
        weights.alpha = alpha;
    check(frnn_packed_size(&f->net, &f->packed_size));
    f->packed = timing_alloc(f->packed_size);
    check(frnn_pack(&f->net, &weights, f->packed, f->packed_size));
    free(weight_ih);
    free(weight_hh);
    free(bias_ih);
    free(bias_hh);
    free(alpha);
}

static void measure(frnn_cell cell, const size_t shape[4], double seconds) {
    const frnn_cell_info *info = frnn_cell_get(cell);
    size_t input_size = shape[0], hidden_size = shape[1], batch = shape[2], steps = shape[3];
    forward f = {.net = FRNN_CONFIG(cell, input_size, hidden_size)};
    check(frnn_config_check(&f.net));
    pack(&f, info);

    size_t state_size, scratch_size;
    check(frnn_state_size(&f.net, batch, &state_size));
    check(frnn_scratch_size(&f.net, steps, batch, &scratch_size));
    void *state = timing_alloc(state_size), *scratch = timing_alloc(scratch_size);
    check(frnn_state_reset(&f.net, batch, state, state_size));
    float *x = timing_random_f32(steps * batch * input_size, 1.0);
    float *y = timing_alloc(steps * batch * hidden_size * sizeof *y);
    frnn_run run = FRNN_RUN(&f.net, steps, batch, x, y, state, state_size, scratch, scratch_size);
    run.parallel_time = info->gates == 0 && batch * hidden_size < 16;
    f.run = run;

    timing t = timing_run(run_forward, &f, seconds);
    double h = (double)hidden_size, rows = (double)(batch * steps);
    double flops = 2.0 * (double)info->gates * h * ((double)input_size + h) * rows;
    char name[64];
    snprintf(name, sizeof name, "%zu,%zu,%zu,%zu", input_size, hidden_size, batch, steps);
    printf("%-18s %12.2f %12.2f %12.4f %12.4f %10.2f\n", name, t.min * 1e6, t.median * 1e6,
           t.min * 1e6 / (double)steps, t.median * 1e6 / (double)steps, flops / t.median * 1e-9);
    fflush(stdout);
    free(f.packed);
    free(state);
    free(scratch);
    free(x);
    free(y);
}

static int usage(void) {
    fprintf(stderr, "usage: bench_forward [-c CELL] [-s SECONDS] I,H,B,T ...\n");
    return 2;
}

/* 1 if text is four positive numbers and nothing else. */
static int parse_shape(const char *text, size_t shape[4]) {
    for (int i = 0; i < 4; i++) {
        char *end;
        if (*text < '0' || *text > '9')
            return 0;
        shape[i] = strtoull(text, &end, 10);
        if (shape[i] == 0 || *end != (i < 3 ? ',' : '\0'))
            return 0;
        text = end + 1;
    }
    return 1;
}

int main(int argc, char **argv) {
    frnn_cell cell = FRNN_CELL_LSTM;
    double seconds = 0.2;
    int i = 1;
    for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
        if (strcmp(argv[i], "-s") == 0) {
            seconds = strtod(argv[i + 1], NULL);
        } else if (strcmp(argv[i], "-c") == 0) {
            const frnn_cell_info *info;
            for (cell = (frnn_cell)0; (info = frnn_cell_get(cell)) != NULL; cell++)
                if (strcmp(info->name, argv[i + 1]) == 0)
                    break;
            if (info == NULL)
                return usage();
        } else {
            return usage();
        }
    }
    if (i >= argc)
        return usage();

    const char *isa = frnn_isa();
    printf("%s, one thread, %s\n%-18s %12s %12s %12s %12s %10s\n", frnn_cell_get(cell)->name,
           isa != NULL ? isa : "?", "I,H,B,T", "us min", "us median", "us/step min", "us/step med",
           "GFLOP/s");
    for (; i < argc; i++) {
        size_t shape[4];
        if (!parse_shape(argv[i], shape))
            return usage();
        measure(cell, shape, seconds);
    }
    return 0;
}
