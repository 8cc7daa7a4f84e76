/* SPDX-License-Identifier: MIT
 *
 * What the C benchmarks through the public header share: one layer, float32, one direction, with
 * random weights and input, bound for a forward; and the program around a measurement:
 *
 *     PROGRAM [-c CELL] [-p PROJ_SIZE] [-k PEEPHOLE] [-s SECONDS] I,H,B,T ...
 *
 * PEEPHOLE is 0 or 1. It and the projection are of the LSTMs.
 */
#ifndef FASTRNN_BENCH_LAYER_H
#define FASTRNN_BENCH_LAYER_H

#include "timing.h"

#include "fastrnn.h"

enum { LAYER_WEIGHTS = 7 };

typedef struct layer {
    frnn_config net;
    frnn_run run;
    void *packed;
    size_t packed_size;
    double flops; /* of a forward */
    float *x, *y;
    float *weights[LAYER_WEIGHTS]; /* in the order of frnn_weights */
} layer;

static void check(frnn_status status) {
    if (status != FRNN_OK) {
        fprintf(stderr, "%s\n", frnn_strerror(status));
        exit(1);
    }
}

/* The weights by name; what the cell does not have is NULL. */
static frnn_weights layer_weights(const layer *l) {
    float *const *w = l->weights;
    frnn_weights weights = {w[0], w[1], w[2], w[3], w[4], w[5], w[6], {NULL}, NULL};
    return weights;
}

/* Values of h. */
static size_t layer_output_size(const layer *l) {
    return l->net.proj_size > 0 ? l->net.proj_size : l->net.hidden_size;
}

/* Elements of each of the weights. */
static void layer_weight_sizes(const layer *l, size_t sizes[LAYER_WEIGHTS]) {
    const frnn_cell_info *info = frnn_cell_get(l->net.cell);
    size_t h = l->net.hidden_size, rows = info->gates * h;
    size_t recurrent = l->net.cell == FRNN_CELL_MINGRU ? 0 : rows;
    sizes[0] = rows * l->net.input_size;
    sizes[1] = recurrent * layer_output_size(l);
    sizes[2] = rows;
    sizes[3] = recurrent;
    sizes[4] = info->alpha ? h : 0;
    sizes[5] = l->net.proj_size * h;
    sizes[6] = l->net.peephole ? rows - h : 0;
}

static void layer_open(layer *l, const frnn_config *options, const size_t shape[4]) {
    size_t input_size = shape[0], hidden_size = shape[1], batch = shape[2], steps = shape[3];
    frnn_config net = *options;
    const frnn_cell_info *info = frnn_cell_get(net.cell);
    memset(l, 0, sizeof *l);
    net.input_size = input_size;
    net.hidden_size = hidden_size;
    l->net = net;
    check(frnn_config_check(&net));

    size_t sizes[LAYER_WEIGHTS], state_size, scratch_size;
    layer_weight_sizes(l, sizes);
    l->flops = 2.0 * (double)(sizes[0] + sizes[1] + sizes[5]) * (double)(batch * steps);
    for (int i = 0; i < LAYER_WEIGHTS; i++)
        l->weights[i] = sizes[i] != 0 ? timing_random_f32(sizes[i], 0.05) : NULL;
    for (size_t j = 0; j < sizes[4]; j++)
        l->weights[4][j] = 0.9f;
    frnn_weights weights = layer_weights(l);
    check(frnn_packed_size(&net, &l->packed_size));
    l->packed = timing_alloc(l->packed_size);
    check(frnn_pack(&net, &weights, l->packed, l->packed_size));

    check(frnn_state_size(&net, batch, &state_size));
    check(frnn_scratch_size(&net, steps, batch, &scratch_size));
    void *state = timing_alloc(state_size), *scratch = timing_alloc(scratch_size);
    check(frnn_state_reset(&net, batch, state, state_size));
    l->x = timing_random_f32(steps * batch * input_size, 1.0);
    l->y = timing_alloc(steps * batch * layer_output_size(l) * sizeof *l->y);
    frnn_run run =
        FRNN_RUN(&l->net, steps, batch, l->x, l->y, state, state_size, scratch, scratch_size);
    run.parallel_time = info->gates == 0 && batch * hidden_size < 16;
    l->run = run;
}

static void layer_close(layer *l) {
    for (int i = 0; i < LAYER_WEIGHTS; i++)
        free(l->weights[i]);
    free(l->packed);
    free(l->run.state);
    free(l->run.scratch);
    free(l->x);
    free(l->y);
}

/* One line of the table: times of a call that does that many operations. */
static void layer_print(const layer *l, timing t, double flops) {
    char name[64];
    double steps = (double)l->run.steps;
    snprintf(name, sizeof name, "%zu,%zu,%zu,%zu", l->net.input_size, l->net.hidden_size,
             l->run.batch, l->run.steps);
    printf("%-18s %12.2f %12.2f %12.4f %12.4f %10.2f\n", name, t.min * 1e6, t.median * 1e6,
           t.min * 1e6 / steps, t.median * 1e6 / steps, flops / t.median * 1e-9);
    fflush(stdout);
}

/* 1 if text is four positive numbers and nothing else. */
static int layer_parse_shape(const char *text, size_t shape[4]) {
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

static int layer_usage(const char *program) {
    fprintf(stderr, "usage: %s [-c CELL] [-p PROJ_SIZE] [-k PEEPHOLE] [-s SECONDS] I,H,B,T ...\n",
            program);
    return 2;
}

/* 0 if no cell has that name. */
static int layer_set_cell(frnn_config *net, const char *name) {
    const frnn_cell_info *info;
    for (int cell = 0; (info = frnn_cell_get((frnn_cell)cell)) != NULL; cell++) {
        if (strcmp(info->name, name) == 0) {
            net->cell = (frnn_cell)cell;
            net->activation.kind = net->cell == FRNN_CELL_MINGRU ? FRNN_IDENTITY : FRNN_TANH;
            return 1;
        }
    }
    return 0;
}

/* Measures a layer of each shape on the command line; title says what. */
static int layer_main(int argc, char **argv, const char *title,
                      void (*measure)(layer *l, double seconds)) {
    frnn_config net = FRNN_CONFIG(FRNN_CELL_LSTM, 1, 1);
    double seconds = 0.2;
    int i = 1;
    for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "-s") == 0) {
            seconds = strtod(value, NULL);
        } else if (strcmp(argv[i], "-p") == 0) {
            net.proj_size = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "-k") == 0) {
            net.peephole = strcmp(value, "0") != 0;
        } else if (strcmp(argv[i], "-c") == 0) {
            if (!layer_set_cell(&net, value))
                return layer_usage(argv[0]);
        } else {
            return layer_usage(argv[0]);
        }
    }
    if (i >= argc)
        return layer_usage(argv[0]);

    const char *isa = frnn_isa();
    printf("%s, %s, one thread, %s\n", frnn_cell_get(net.cell)->name, title,
           isa != NULL ? isa : "?");
    printf("%-18s %12s %12s %12s %12s %10s\n", "I,H,B,T", "us min", "us median", "us/step min",
           "us/step med", "GFLOP/s");
    for (; i < argc; i++) {
        size_t shape[4];
        if (!layer_parse_shape(argv[i], shape))
            return layer_usage(argv[0]);
        layer l;
        layer_open(&l, &net, shape);
        measure(&l, seconds);
        layer_close(&l);
    }
    return 0;
}

#endif
