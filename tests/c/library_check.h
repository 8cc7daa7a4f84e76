/* SPDX-License-Identifier: MIT
 *
 * What test_library.c and test_refusals.c have in common: counted checks, memory between guards,
 * and random nets with their input and state.
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

static int failures, checks;
static char where[256]; /* what is being tested */

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

/* ---- Problems: every number as a double that the dtype of the net holds exactly ------------- */

enum { WEIGHT_IH, WEIGHT_HH, BIAS_IH, BIAS_HH, ALPHA, KINDS, PARTS = 4 };

typedef struct values {
    double *y, *state[2]; /* [T, B, D * H] and [L * D, B, H] */
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

static inline size_t part_input(const frnn_config *net, size_t part) {
    return part < net->num_directions ? net->input_size : net->num_directions * net->hidden_size;
}

static inline problem problem_new(const frnn_config *net, size_t steps, size_t batch, int bias) {
    problem p = {.net = *net, .cell = frnn_cell_get(net->cell), .steps = steps, .batch = batch};
    const size_t H = net->hidden_size, rows = p.cell->gates * H;
    const size_t items = p.items = net->dtype == FRNN_F32 ? 4 : 8;
    const double scale = 0.7 / sqrt((double)H), shift = bias ? 0.5 : 0;
    p.width = net->num_directions * H;
    p.parts = net->num_layers * net->num_directions;
    for (size_t i = 0; i < p.parts; i++) {
        const size_t counts[] = {rows * part_input(net, i), rows * H, rows, rows, H};
        const double low[] = {-scale, -scale, -shift, -shift, 0};
        const double high[] = {scale, scale, shift, shift, 1};
        void *typed[KINDS];
        for (size_t kind = 0; kind < KINDS; kind++) {
            p.weights[i][kind] = random_values(items, counts[kind], low[kind], high[kind]);
            typed[kind] = memory(counts[kind] * items);
            if (kind == ALPHA && H > 1)
                p.weights[i][kind][0] = 0; /* a unit without a past */
            put(items, typed[kind], p.weights[i][kind], counts[kind]);
        }
        p.given[i] =
            (frnn_weights){typed[WEIGHT_IH], typed[WEIGHT_HH], bias ? typed[BIAS_IH] : NULL,
                           bias ? typed[BIAS_HH] : NULL, p.cell->alpha ? typed[ALPHA] : NULL};
    }
    p.x = random_values(items, steps * batch * net->input_size, -1, 1);
    p.start.state[0] = random_values(items, p.parts * batch * H, -1, 1);
    p.start.state[1] = random_values(items, p.parts * batch * H, -1, 1);
    size_t size = 0;
    CHECK(frnn_packed_size(net, &size) == FRNN_OK);
    p.packed = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_pack(net, p.given, p.packed.at, size) == FRNN_OK);
    frame_protect(&p.packed, PROT_READ);
    return p;
}

/* A state with these values, which come back unchanged. */
static inline frame state_new(const problem *p, size_t batch, const values *v) {
    const size_t count = p->parts * batch * p->net.hidden_size;
    size_t size = 0;
    CHECK(frnn_state_size(&p->net, batch, &size) == FRNN_OK);
    const frame state = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_state_reset(&p->net, batch, state.at, size) == FRNN_OK);
    void *typed = memory(count * p->items), *back = memory(count * p->items);
    for (size_t i = 0; i < p->cell->states; i++) {
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
