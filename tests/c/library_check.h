/* SPDX-License-Identifier: MIT
 *
 * What the tests of the library have in common: counted checks, memory between guards, and random
 * nets with their input and state.
 *
 * Every buffer has exactly the size that the library asks for and lies between two pages without
 * access, against one or the other. What may only be read is write-protected meanwhile. Define
 * _DEFAULT_SOURCE, for mmap, before the first include.
 */
#ifndef FRNN_LIBRARY_CHECK_H
#define FRNN_LIBRARY_CHECK_H

#include "fastrnn.h"

#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A slow build, as with sanitizers, may draw a part of the nets only. */
#if !defined(NETS_PART)
#define NETS_PART 1
#endif

static int failures, checks;
static char where[320]; /* what is being tested */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        checks++;                                                                                  \
        if (!(condition) && failures++ < 40)                                                       \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, where, #condition);                      \
    } while (0)

/* The library, which faults, uses no stdio: it is safe here. */
static inline void on_fault(int number) {
    printf("%s: access outside a buffer, signal %d\n", where, number);
    exit(1);
}

/* ---- Random numbers and memory -------------------------------------------------------------- */

static uint64_t seed = 1;

static inline uint64_t random_bits(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed ^ seed >> 33) * 0xff51afd7ed558ccdu >> 11; /* 53 bits */
}

static inline size_t below(size_t n) {
    return (size_t)(random_bits() % n);
}

/* Memory that lives until the end of a case. */
static void *allocated[1 << 16];
static size_t allocations;

static inline void *memory(size_t size) {
    void *bytes = allocations < sizeof allocated / sizeof *allocated ? malloc(size + 1) : NULL;
    if (bytes == NULL)
        abort();
    return allocated[allocations++] = bytes;
}

static inline void memory_free(void) {
    while (allocations > 0)
        free(allocated[--allocations]);
}

#define FILL 0xff /* what is not written yet: NaN in either dtype */

typedef struct frame {
    unsigned char *at, *map;
    size_t size, room;
} frame;

static size_t page;

static inline int filled(const unsigned char *bytes, size_t size) {
    return size == 0 || (bytes[0] == FILL && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static inline void frame_protect(const frame *f, int access) {
    if (f->room > 0 && mprotect(f->map + page, f->room, access) != 0)
        abort();
}

static inline frame frame_new(size_t size, size_t align) {
    frame f = {.size = size, .room = (size + page - 1) / page * page};
    f.map = mmap(NULL, f.room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f.map == MAP_FAILED)
        abort();
    frame_protect(&f, PROT_READ | PROT_WRITE);
    memset(f.map + page, FILL, f.room);
    f.at = f.map + page + (below(3) > 0 ? (f.room - size) / align * align : 0);
    return f;
}

static inline void frame_free(const frame *f) {
    const size_t before = (size_t)(f->at - f->map) - page;
    CHECK(filled(f->map + page, before));
    CHECK(filled(f->at + f->size, f->room - before - f->size));
    munmap(f->map, f->room + 2 * page);
}

/* ---- Nets ----------------------------------------------------------------------------------- */

/* The arrays of frnn_weights and frnn_gradients, in their order. */
enum { WEIGHT_IH, WEIGHT_HH, BIAS_IH, BIAS_HH, ALPHA, WEIGHT_HR, PEEPHOLE, KINDS, PARTS = 4 };

static inline frnn_weights weights_of(void *const at[KINDS]) {
    return (frnn_weights){at[WEIGHT_IH], at[WEIGHT_HH], at[BIAS_IH], at[BIAS_HH],
                          at[ALPHA],     at[WEIGHT_HR], at[PEEPHOLE]};
}

static inline frnn_gradients gradients_of(void *const at[KINDS]) {
    return (frnn_gradients){at[WEIGHT_IH], at[WEIGHT_HH], at[BIAS_IH], at[BIAS_HH],
                            at[ALPHA],     at[WEIGHT_HR], at[PEEPHOLE]};
}

static inline int is_lstm(const frnn_config *net) {
    return net->cell == FRNN_CELL_LSTM || net->cell == FRNN_CELL_LSTM_COUPLED;
}

static inline int is_gru(const frnn_config *net) {
    return net->cell == FRNN_CELL_GRU || net->cell == FRNN_CELL_GRU_RESET_BEFORE;
}

/* Values of h, and of a state array: h (or u), c. */
static inline size_t output_size(const frnn_config *net) {
    return net->proj_size > 0 ? net->proj_size : net->hidden_size;
}

static inline size_t state_width(const frnn_config *net, size_t index) {
    return index == 0 ? output_size(net) : net->hidden_size;
}

static inline size_t part_input(const frnn_config *net, size_t part) {
    return part < net->num_directions ? net->input_size : net->num_directions * output_size(net);
}

/* Elements of a parameter; 0 if the net does not have it. */
static inline size_t param_count(const frnn_config *net, size_t part, size_t kind) {
    const frnn_cell_info *const cell = frnn_cell_get(net->cell);
    const size_t H = net->hidden_size, rows = cell->gates * H;
    const size_t recurrent = net->cell == FRNN_CELL_MINGRU ? 0 : rows;
    const size_t counts[KINDS] = {rows * part_input(net, part),
                                  recurrent * output_size(net),
                                  rows,
                                  recurrent,
                                  cell->alpha ? H : 0,
                                  net->proj_size * H,
                                  net->peephole ? rows - H : 0};
    return counts[kind];
}

/* Multiplications of a forward, about. */
static inline double work(const frnn_config *net, size_t steps, size_t batch) {
    const double H = (double)net->hidden_size, D = (double)net->num_directions;
    const double inputs = (double)net->input_size + (double)(net->num_layers - 1) * (D + 1) * H;
    const double G = (double)frnn_cell_get(net->cell)->gates;
    return (double)(steps * batch) * D * H * (4 + G * (inputs + H) + (double)net->proj_size);
}

/* Parameters at which slopes are 1 at most. */
static inline frnn_function function_of(size_t number) {
    static const double parameters[FRNN_ACTIVATION_COUNT][2] = {
        [FRNN_HARD_SIGMOID] = {0.2, 0.5},  [FRNN_AFFINE] = {-0.75, 0.25},
        [FRNN_LEAKY_RELU] = {0.125, 0},    [FRNN_THRESHOLDED_RELU] = {0.25, 0},
        [FRNN_SCALED_TANH] = {1.5, 0.625}, [FRNN_ELU] = {0.5, 0}};
    const frnn_activation kind = (frnn_activation)(number % FRNN_ACTIVATION_COUNT);
    return (frnn_function){kind, parameters[kind][0], parameters[kind][1]};
}

static inline frnn_function any_function(void) {
    return function_of(below(FRNN_ACTIVATION_COUNT));
}

/* Some of the options that the cell has, or none. Gates that may leave [0, 1] go with limits: if a
 * state multiplied itself step by step, no error would have a bound. */
static inline void draw_options(frnn_config *net) {
    static const double limits[] = {0.25, 0.5, 0.75};
    if (net->cell == FRNN_CELL_LEAKY || below(3) == 0)
        return;
    if (below(2) == 0)
        net->activation = any_function();
    if (below(4) == 0 && net->cell != FRNN_CELL_LEAKY_POTENTIAL)
        net->clip = limits[below(3)];
    if (!is_lstm(net) && !is_gru(net))
        return;
    if (below(3) == 0)
        net->gate_activation = any_function();
    const frnn_activation gate = net->gate_activation.kind;
    const int wild = gate != FRNN_SIGMOID && gate != FRNN_HARD_SIGMOID;
    if (wild)
        net->clip = limits[below(3)];
    if (is_gru(net))
        return;
    net->proj_size = below(2) * (1 + below(net->hidden_size + 2));
    net->peephole = below(2) > 0;
    net->cell_clip = wild || below(3) == 0 ? limits[below(3)] : 0;
    if (below(3) == 0)
        net->output_activation = any_function();
}

/* A small net in which function number `first` is the activation, and those after it what else the
 * cell has. */
static inline frnn_config net_of_functions(frnn_cell cell, frnn_dtype dtype, size_t first) {
    frnn_config net = FRNN_CONFIG(cell, 3, 2 + below(20));
    net.dtype = dtype;
    net.num_directions = 1 + below(2);
    net.activation = function_of(first);
    if (is_lstm(&net) || is_gru(&net)) {
        net.gate_activation = function_of(first + 1);
        net.clip = 0.75;
    }
    if (is_lstm(&net)) {
        net.cell_clip = 0.75;
        net.peephole = (int)below(2);
        net.output_activation = function_of(first + 2);
    }
    return net;
}

/* Every option that the cell has, of a net of five units. */
static inline void set_options(frnn_config *net) {
    if (net->cell == FRNN_CELL_LEAKY)
        return;
    net->activation = (frnn_function){FRNN_ELU, 0.5, 0};
    if (net->cell != FRNN_CELL_LEAKY_POTENTIAL)
        net->clip = 0.75;
    if (is_lstm(net) || is_gru(net))
        net->gate_activation = (frnn_function){FRNN_HARD_SIGMOID, 0.2, 0.5};
    if (!is_lstm(net))
        return;
    net->proj_size = 3;
    net->peephole = 1;
    net->cell_clip = 0.5;
    net->output_activation = (frnn_function){FRNN_SOFTSIGN, 0, 0};
}

/* Nets with the options that set_options() sets, but for one; 0 if there is no such number. */
static inline int other_options(frnn_config *net, int number) {
    const int lstm = is_lstm(net), gates = lstm || is_gru(net);
    const int gated = net->cell != FRNN_CELL_LEAKY;
    const struct {
        int there;
        double *real;
        frnn_activation *kind;
    } options[] = {{gated, &net->activation.alpha, NULL},
                   {gated && net->cell != FRNN_CELL_LEAKY_POTENTIAL, &net->clip, NULL},
                   {gates, &net->gate_activation.alpha, NULL},
                   {gates, &net->gate_activation.beta, NULL},
                   {lstm, &net->cell_clip, NULL},
                   {gated, NULL, &net->activation.kind},
                   {gates, NULL, &net->gate_activation.kind},
                   {lstm, NULL, &net->output_activation.kind}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (!options[i].there || number-- > 0)
            continue;
        if (options[i].real != NULL)
            *options[i].real += 0.125;
        else /* one that has the same parameters */
            *options[i].kind = *options[i].kind == FRNN_ELU            ? FRNN_LEAKY_RELU
                               : *options[i].kind == FRNN_HARD_SIGMOID ? FRNN_AFFINE
                                                                       : FRNN_RELU;
        return 1;
    }
    net->proj_size += 1;
    return lstm && number == 0;
}

/* What is being tested: the net and the call, after the name of the instruction set. */
static inline int say_net(const frnn_config *net, size_t steps, size_t batch, const char *isa) {
    const frnn_function *const f = &net->activation;
    return snprintf(where, sizeof where,
                    "%s %s f%d I %zu H %zu P %zu L %zu D %zu T %zu B %zu f() %d s() %d e() %d "
                    "peephole %d clip %g cell_clip %g",
                    isa, frnn_cell_get(net->cell)->name, net->dtype == FRNN_F32 ? 32 : 64,
                    net->input_size, net->hidden_size, net->proj_size, net->num_layers,
                    net->num_directions, steps, batch, (int)f->kind, (int)net->gate_activation.kind,
                    (int)net->output_activation.kind, net->peephole, net->clip, net->cell_clip);
}

/* ---- Problems: every number as a double that the dtype of the net holds exactly ------------- */

typedef struct values {
    double *y, *state[2]; /* [T, B, D * P] and [L * D, B, state_width()] */
} values;

typedef struct problem {
    frnn_config net;
    const frnn_cell_info *cell;
    size_t steps, batch, items, width, parts; /* items: bytes of an element; width: of y */
    double *x, *weights[PARTS][KINDS];
    values start; /* y is not used */
    frnn_weights given[PARTS];
    frame packed;
} problem;

static inline void put(size_t items, void *to, const double *from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const float single = (float)from[i];
        memcpy((char *)to + i * items, items == 4 ? (const void *)&single : &from[i], items);
    }
}

static inline void get(size_t items, double *to, const void *from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float single = 0;
        memcpy(items == 4 ? (void *)&single : &to[i], (const char *)from + i * items, items);
        to[i] = items == 4 ? (double)single : to[i];
    }
}

static inline double *random_values(size_t items, size_t count, double low, double high) {
    double *to = memory(count * sizeof *to);
    for (size_t i = 0; i < count; i++) {
        to[i] = low + (high - low) * (double)random_bits() / 9007199254740992.0;
        to[i] = items == 4 ? (double)(float)to[i] : to[i];
    }
    return to;
}

/* Elements of a state array. */
static inline size_t state_count(const problem *p, size_t batch, size_t index) {
    return p->parts * batch * state_width(&p->net, index);
}

static inline problem problem_new(const frnn_config *net, size_t steps, size_t batch, int bias) {
    problem p = {.net = *net, .cell = frnn_cell_get(net->cell), .steps = steps, .batch = batch};
    const size_t H = net->hidden_size, items = p.items = net->dtype == FRNN_F32 ? 4 : 8;
    const double scale = 0.7 / sqrt((double)H), shift = bias ? 0.5 : 0;
    const double low[KINDS] = {-scale, -scale, -shift, -shift, 0, -scale, -0.5};
    const double high[KINDS] = {scale, scale, shift, shift, 1, scale, 0.5};
    p.width = net->num_directions * output_size(net);
    p.parts = net->num_layers * net->num_directions;
    for (size_t i = 0; i < p.parts; i++) {
        void *typed[KINDS];
        for (size_t kind = 0; kind < KINDS; kind++) {
            const size_t count = param_count(net, i, kind);
            p.weights[i][kind] = random_values(items, count, low[kind], high[kind]);
            typed[kind] = count > 0 ? memory(count * items) : NULL;
            if (kind == ALPHA && count > 1)
                p.weights[i][kind][0] = 0; /* a unit without a past */
            put(items, typed[kind], p.weights[i][kind], count);
            if (!bias && (kind == BIAS_IH || kind == BIAS_HH))
                typed[kind] = NULL;
        }
        p.given[i] = weights_of(typed);
    }
    p.x = random_values(items, steps * batch * net->input_size, -1, 1);
    for (size_t k = 0; k < 2; k++)
        p.start.state[k] = random_values(items, state_count(&p, batch, k), -1, 1);
    size_t size = 0;
    CHECK(frnn_packed_size(net, &size) == FRNN_OK);
    p.packed = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_pack(net, p.given, p.packed.at, size) == FRNN_OK);
    frame_protect(&p.packed, PROT_READ);
    return p;
}

/* A state with these values, which come back unchanged. */
static inline frame state_new(const problem *p, size_t batch, const values *v) {
    size_t size = 0;
    CHECK(frnn_state_size(&p->net, batch, &size) == FRNN_OK);
    const frame state = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_state_reset(&p->net, batch, state.at, size) == FRNN_OK);
    for (size_t i = 0; i < p->cell->states; i++) {
        const size_t count = state_count(p, batch, i);
        void *typed = memory(count * p->items), *back = memory(count * p->items);
        put(p->items, typed, v->state[i], count);
        CHECK(frnn_state_set(&p->net, batch, state.at, size, i, typed) == FRNN_OK);
        CHECK(frnn_state_get(&p->net, batch, state.at, size, i, back) == FRNN_OK);
        CHECK(memcmp(typed, back, count * p->items) == 0);
    }
    return state;
}

static inline void prepare(void) {
    page = (size_t)sysconf(_SC_PAGESIZE);
    signal(SIGSEGV, on_fault);
}

static inline int report(void) {
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}

#endif
