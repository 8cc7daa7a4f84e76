/* SPDX-License-Identifier: MIT
 *
 * What the C library refuses of calls with lengths or reset, and that it leaves all memory alone
 * then; their sizes.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "ragged_check.h"

/* All that a call writes is write-protected until one succeeds: an error changes nothing. */
typedef struct locked {
    frame x, y, state, saved, scratch, adjoint, back_scratch;
} locked;

static void lock(const locked *l, int access) {
    const frame *const frames[] = {&l->x,       &l->y,       &l->state,       &l->saved,
                                   &l->scratch, &l->adjoint, &l->back_scratch};
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        frame_protect(frames[i], access);
}

#define RUN(expected, ...)                                                                         \
    do {                                                                                           \
        frnn_run run = good;                                                                       \
        __VA_ARGS__;                                                                               \
        CHECK(frnn_forward(net, t.p.packed.at, t.p.packed.size, &run) == (expected));              \
    } while (0)
#define BACK(expected, ...)                                                                        \
    do {                                                                                           \
        frnn_back back = good_back;                                                                \
        __VA_ARGS__;                                                                               \
        CHECK(frnn_backward(net, t.packed_back.at, t.packed_back.size, &back) == (expected));      \
    } while (0)

static void check_refusals(const frnn_config *given) {
    static const size_t lengths[] = {3, 2}, longer[][2] = {{4, 2}, {3, 4}, {0, SIZE_MAX}};
    static const unsigned char reset[6] = {0, 0, 1, 0, 0, 1};
    const task t = task_new(given, 3, 2, 1);
    const frnn_config *const net = &t.p.net;
    const size_t items = t.p.items, width = t.p.width, I = net->input_size;
    size_t saved = 0, scratch = 0, back_scratch = 0, plain_size = 0;
    CHECK(frnn_saved_size(net, 3, 2, &saved) == FRNN_OK);
    CHECK(frnn_ragged_scratch_size(net, 3, 2, &scratch) == FRNN_OK);
    CHECK(frnn_ragged_backward_scratch_size(net, 3, 2, &back_scratch) == FRNN_OK);
    const locked l = {frame_new(6 * I * items, items),    frame_new(6 * (width + I) * items, items),
                      state_new(&t.p, 2, &t.p.start),     frame_new(saved, FRNN_ALIGN),
                      frame_new(scratch, FRNN_ALIGN),     adjoint_new(&t),
                      frame_new(back_scratch, FRNN_ALIGN)};
    put(items, l.x.at, t.p.x, 6 * I);
    frnn_run good =
        FRNN_RUN(net, 3, 2, l.x.at, l.y.at, l.state.at, l.state.size, l.scratch.at, scratch);
    good.saved = l.saved.at, good.saved_size = saved;
    good.lengths = lengths, good.reset = reset;
    frnn_back good_back =
        FRNN_BACK(net, 3, 2, l.x.at, l.x.at, l.y.at + 6 * width * items, l.saved.at, saved,
                  l.adjoint.at, l.adjoint.size, l.back_scratch.at, back_scratch);
    good_back.dy = NULL, good_back.lengths = lengths, good_back.reset = reset;
    lock(&l, PROT_READ);
    say_net(net, 3, 2, frnn_isa());
    for (size_t i = 0; i < 3; i++)
        RUN(FRNN_E_ARG, run.lengths = longer[i]);
    RUN(FRNN_E_ARG, run.scratch = NULL);
    RUN(FRNN_E_ALIGN, run.scratch = l.scratch.at + 8);
    RUN(FRNN_E_SPACE, run.scratch_size--);
    RUN(FRNN_E_SPACE, run.scratch_size--; run.lengths = NULL);
    RUN(FRNN_E_SPACE, run.scratch_size--; run.reset = NULL);
    CHECK(frnn_scratch_size(net, 3, 2, &plain_size) == FRNN_OK && plain_size < scratch);
    RUN(FRNN_E_SPACE, run.scratch_size = plain_size);
    RUN(FRNN_E_SIZE, run.steps = SIZE_MAX);
    RUN(FRNN_E_SIZE, run.batch = SIZE_MAX / 8);

    lock(&l, PROT_READ | PROT_WRITE);
    CHECK(filled(l.y.at, l.y.size) && filled(l.scratch.at, l.scratch.size));
    RUN(FRNN_OK, run.lengths = lengths);
    lock(&l, PROT_READ);
    for (size_t i = 0; i < 3; i++)
        BACK(FRNN_E_ARG, back.lengths = longer[i]);
    BACK(FRNN_E_ARG, back.scratch = NULL);
    BACK(FRNN_E_ALIGN, back.scratch = l.back_scratch.at + 8);
    BACK(FRNN_E_SPACE, back.scratch_size--);
    BACK(FRNN_E_SPACE, back.scratch_size--; back.lengths = NULL);
    BACK(FRNN_E_SPACE, back.scratch_size--; back.reset = NULL);
    CHECK(frnn_backward_scratch_size(net, 3, 2, &plain_size) == FRNN_OK &&
          plain_size < back_scratch);
    BACK(FRNN_E_SPACE, back.scratch_size = plain_size);
    BACK(FRNN_E_SIZE, back.steps = back.total_steps = SIZE_MAX);

    /* a stretch of three steps of five, for which only the lengths or resets are too much */
    size_t size = 0;
    CHECK(frnn_adjoint_size(net, 5, 2, &size) == FRNN_OK);
    const frame five = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_adjoint_reset(net, 5, 2, five.at, size) == FRNN_OK);
    frame_protect(&five, PROT_READ);
    BACK(FRNN_E_ARG, back.total_steps = 5; back.adjoint = five.at; back.adjoint_size = size;
         back.reset = NULL);
    BACK(FRNN_E_ARG, back.total_steps = 5; back.adjoint = five.at; back.adjoint_size = size;
         back.lengths = NULL);
    frame_protect(&five, PROT_READ | PROT_WRITE);
    frame_protect(&l.back_scratch, PROT_READ | PROT_WRITE);
    const int divisible = net->num_directions == 1 && t.p.cell->gates > 0;
    BACK(divisible ? FRNN_OK : FRNN_E_ARG, back.total_steps = 5; back.adjoint = five.at;
         back.adjoint_size = size; back.lengths = NULL; back.reset = NULL; back.dx = NULL);
    frame_free(&five);
    lock(&l, PROT_READ | PROT_WRITE);
    CHECK(filled(l.y.at + 6 * width * items, 6 * I * items));
    BACK(FRNN_OK, back.dy = NULL);

    const frame frames[] = {l.x, l.y, l.state, l.saved, l.scratch, l.adjoint, l.back_scratch};
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        frame_free(&frames[i]);
    task_free(&t);
    memory_free();
}

typedef frnn_status size_query(const frnn_config *net, size_t steps, size_t batch, size_t *size);

/* What is too large, or asks for nothing. */
static void check_overflow(const frnn_config *net, size_query *query) {
    size_t size = 77;
    CHECK(query(NULL, 3, 2, &size) == FRNN_E_ARG);
    CHECK(query(net, 3, 2, NULL) == FRNN_E_ARG);
    for (size_t i = 1; i <= 16; i += i) {
        CHECK(query(net, 1, SIZE_MAX / i, &size) == FRNN_E_SIZE);
        CHECK(query(net, SIZE_MAX / i, 1, &size) == FRNN_E_SIZE);
        CHECK(query(net, SIZE_MAX / i, SIZE_MAX / i, &size) == FRNN_E_SIZE);
    }
    CHECK(query(net, SIZE_MAX / 2 + 1, 2, &size) == FRNN_E_SIZE); /* times 2 is 0 */
    CHECK(size == 77);
}

static size_t some_size(void) {
    return below((size_t)1 << below(20));
}

/* The scratch of a call serves all that are no longer and no wider. */
static void check_growth(const frnn_config *net) {
    for (int n = 0; n < 300; n++) {
        const size_t steps = some_size(), batch = some_size();
        const size_t more_steps = steps + below(3) * some_size();
        const size_t more_batch = batch + below(3) * (below(2) > 0 ? 1 : some_size());
        size_t size = 0, more = 0;
        CHECK(frnn_ragged_scratch_size(net, steps, batch, &size) == FRNN_OK);
        CHECK(frnn_ragged_scratch_size(net, more_steps, more_batch, &more) == FRNN_OK);
        CHECK(size <= more);
    }
}

static void check_cell(frnn_cell cell, frnn_dtype dtype, size_t directions, int options) {
    frnn_config net = FRNN_CONFIG(cell, 5, 5);
    net.dtype = dtype;
    net.num_layers = frnn_cell_get(cell)->gates > 0 ? 2 : 1;
    net.num_directions = directions;
    if (options == 1)
        set_options(&net);
    if (options > 1)
        set_structure(&net, options == 2);
    check_refusals(&net);
    say_net(&net, 0, 0, "sizes");
    check_overflow(&net, frnn_ragged_scratch_size);
    check_overflow(&net, frnn_ragged_backward_scratch_size);
    check_growth(&net);
}

int main(void) {
    prepare();
    for (size_t i = 0; frnn_isa_available(i) != NULL; i++) {
        CHECK(frnn_isa_set(frnn_isa_available(i)) == FRNN_OK);
        for (int n = 0; n < 8 * FRNN_CELL_COUNT; n++) {
            const frnn_cell cell = (frnn_cell)(n / 8);
            for (size_t D = 1; D <= (frnn_cell_get(cell)->gates > 0 ? 2 : 1); D++)
                check_cell(cell, (frnn_dtype)(n % 2), D, n / 2 % 4);
        }
    }
    return report();
}
