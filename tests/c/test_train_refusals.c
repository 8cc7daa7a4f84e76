/* SPDX-License-Identifier: MIT
 *
 * What the C library refuses of training, for every cell, dtype, number of directions and
 * instruction set, and that it leaves all memory alone then. Nets that are refused everywhere are
 * those of test_refusals.c.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "library_check.h"

/* A forward of three steps of two sequences has been saved. All that a backward of it would read or
 * write is write-protected: an error changes nothing. */
typedef struct training {
    problem p;
    frame packed, saved, adjoint, scratch, arrays; /* arrays: x, dy, dx and all gradients */
    frame raw, spare;                              /* never written; for anything, writeable */
    frnn_gradients gradients[PARTS];
    frnn_back good;
} training;

#define REFUSED(expected, ...)                                                                     \
    do {                                                                                           \
        frnn_back back = t->good;                                                                  \
        frame packed = t->packed;                                                                  \
        __VA_ARGS__;                                                                               \
        CHECK(frnn_backward(&t->p.net, packed.at, packed.size, &back) == (expected));              \
    } while (0)
#define ADJOINT_REFUSED(expected, steps, batch, memory, size, index, values)                       \
    do {                                                                                           \
        const frnn_config *const net = &t->p.net;                                                  \
        CHECK(frnn_adjoint_get(net, steps, batch, memory, size, index, values) == (expected));     \
        CHECK(frnn_adjoint_set(net, steps, batch, memory, size, index, values) == (expected));     \
    } while (0)

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* ---- What a backward needs ------------------------------------------------------------------ */

/* A forward from zeros that is given no more than it needs to save. */
static void save(const problem *p, size_t steps, size_t batch, const frame *to) {
    size_t size = 0, saved_size = 0;
    values zeros = {0};
    for (size_t i = 0; i < 2; i++)
        zeros.state[i] = random_values(p->items, state_count(p, batch, i), 0, 0);
    const frame state = state_new(p, batch, &zeros);
    CHECK(frnn_scratch_size(&p->net, steps, batch, &size) == FRNN_OK);
    CHECK(frnn_saved_size(&p->net, steps, batch, &saved_size) == FRNN_OK && saved_size <= to->size);
    const frame scratch = frame_new(size, FRNN_ALIGN);
    void *const x = memory(steps * batch * p->net.input_size * p->items);
    void *const y = memory(steps * batch * p->width * p->items);
    memset(x, 0, steps * batch * p->net.input_size * p->items);
    frnn_run run = FRNN_RUN(&p->net, steps, batch, x, y, state.at, state.size, scratch.at, size);
    run.saved = to->at, run.saved_size = saved_size;
    CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_OK);
    frame_free(&scratch);
    frame_free(&state);
}

static void training_lock(const training *t, int access) {
    const frame *const frames[] = {&t->packed,  &t->saved,  &t->adjoint,
                                   &t->scratch, &t->arrays, &t->raw};
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        frame_protect(frames[i], access);
}

static void training_new(training *t, const frnn_config *net) {
    const problem *const p = &t->p;
    size_t packed = 0, saved = 0, adjoint = 0, scratch = 0;
    t->p = problem_new(net, 3, 2, 1);
    CHECK(frnn_packed_back_size(net, &packed) == FRNN_OK);
    CHECK(frnn_saved_size(net, 3, 2, &saved) == FRNN_OK);
    CHECK(frnn_adjoint_size(net, 3, 2, &adjoint) == FRNN_OK);
    CHECK(frnn_backward_scratch_size(net, 3, 2, &scratch) == FRNN_OK);
    t->packed = frame_new(packed, FRNN_ALIGN);
    t->saved = frame_new(saved, FRNN_ALIGN);
    t->adjoint = frame_new(adjoint, FRNN_ALIGN);
    t->scratch = frame_new(scratch, FRNN_ALIGN);
    t->arrays = frame_new(4096, p->items);
    t->raw = frame_new(larger(larger(packed, p->packed.size), larger(saved, adjoint)), FRNN_ALIGN);
    t->spare = frame_new(t->raw.size, FRNN_ALIGN);
    CHECK(frnn_pack_back(net, p->given, t->packed.at, packed) == FRNN_OK);
    CHECK(frnn_adjoint_reset(net, 3, 2, t->adjoint.at, adjoint) == FRNN_OK);
    save(p, 3, 2, &t->saved);
    void *const at = t->arrays.at;
    for (size_t i = 0; i < p->parts; i++) {
        void *to[KINDS];
        for (size_t kind = 0; kind < KINDS; kind++)
            to[kind] = param_count(net, i, kind) > 0 ? at : NULL;
        t->gradients[i] = gradients_of(to);
    }
    t->good = (frnn_back)FRNN_BACK(net, 3, 2, at, at, at, t->saved.at, saved, t->adjoint.at,
                                   adjoint, scratch > 0 ? t->scratch.at : NULL, scratch);
    t->good.gradients = t->gradients;
    training_lock(t, PROT_READ);
}

static void training_free(const training *t) {
    CHECK(filled(t->arrays.at, t->arrays.size));
    const frame *const frames[] = {&t->p.packed, &t->packed, &t->saved, &t->adjoint,
                                   &t->scratch,  &t->arrays, &t->raw,   &t->spare};
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        frame_free(frames[i]);
}

/* ---- Refusals ------------------------------------------------------------------------------- */

static void check_sizes(const training *t) {
    const frnn_config *const net = &t->p.net;
    frnn_config large = *net;
    size_t size = 77;
    CHECK(frnn_packed_back_size(NULL, &size) == FRNN_E_ARG);
    CHECK(frnn_packed_back_size(net, NULL) == FRNN_E_ARG);
    CHECK(frnn_saved_size(NULL, 3, 2, &size) == FRNN_E_ARG);
    CHECK(frnn_saved_size(net, 3, 2, NULL) == FRNN_E_ARG);
    CHECK(frnn_adjoint_size(NULL, 3, 2, &size) == FRNN_E_ARG);
    CHECK(frnn_adjoint_size(net, 3, 2, NULL) == FRNN_E_ARG);
    CHECK(frnn_backward_scratch_size(NULL, 3, 2, &size) == FRNN_E_ARG);
    CHECK(frnn_backward_scratch_size(net, 3, 2, NULL) == FRNN_E_ARG);
    for (size_t i = 1; i < 64; i += i) {
        CHECK(frnn_saved_size(net, 1, SIZE_MAX / i, &size) == FRNN_E_SIZE);
        CHECK(frnn_adjoint_size(net, 3, SIZE_MAX / i, &size) == FRNN_E_SIZE);
        CHECK(frnn_backward_scratch_size(net, 1, SIZE_MAX / i, &size) == FRNN_E_SIZE);
        CHECK(frnn_saved_size(net, SIZE_MAX / i, SIZE_MAX / i, &size) == FRNN_E_SIZE);
        CHECK(frnn_backward_scratch_size(net, SIZE_MAX / i, SIZE_MAX / i, &size) == FRNN_E_SIZE);
    }
    CHECK(frnn_saved_size(net, SIZE_MAX, 2, &size) == FRNN_E_SIZE);
    large.hidden_size = large.input_size = SIZE_MAX / 64; /* of the inputs alone nothing is saved */
    CHECK(frnn_saved_size(&large, 1, 1, &size) == FRNN_E_SIZE);
    large = *net;
    large.num_layers = SIZE_MAX / 2 + 2; /* times 2 is 2 */
    CHECK(frnn_saved_size(&large, 1, 1, &size) ==
          (t->p.cell->gates > 0 ? FRNN_E_SIZE : FRNN_E_ARG));
    CHECK(size == 77);
}

static void check_backward(const training *t) {
    REFUSED(FRNN_E_ARG, back.struct_size--);
    REFUSED(FRNN_E_ARG, back.x = NULL);
    REFUSED(FRNN_E_ARG, back.saved = NULL);
    REFUSED(FRNN_E_ALIGN, back.saved = t->saved.at + 8);
    REFUSED(FRNN_E_SPACE, back.saved_size--);
    REFUSED(FRNN_E_ARG, back.adjoint = NULL);
    REFUSED(FRNN_E_ALIGN, back.adjoint = t->adjoint.at + 8);
    REFUSED(FRNN_E_SPACE, back.adjoint_size--);
    REFUSED(FRNN_E_ARG, packed.at = NULL);
    REFUSED(FRNN_E_ALIGN, packed.at += 32);
    REFUSED(FRNN_E_SPACE, packed.size--);
    if (t->p.cell->gates > 0) {
        REFUSED(FRNN_E_ARG, back.scratch = NULL);
        REFUSED(FRNN_E_ALIGN, back.scratch = t->scratch.at + 1);
        REFUSED(FRNN_E_SPACE, back.scratch_size--);
    }
    REFUSED(FRNN_E_ARG, back.dy_begin = 4);
    REFUSED(FRNN_E_ARG, back.steps = 4);
    REFUSED(FRNN_E_ARG, back.total_steps = 2);
    REFUSED(FRNN_E_ARG, back.total_steps = 4); /* an adjoint of three */
    REFUSED(FRNN_E_SIZE, back.steps = back.total_steps = SIZE_MAX);
    REFUSED(FRNN_E_SIZE, back.batch = SIZE_MAX / 8);
    CHECK(frnn_backward(NULL, t->packed.at, t->packed.size, &t->good) == FRNN_E_ARG);
    CHECK(frnn_backward(&t->p.net, t->packed.at, t->packed.size, NULL) == FRNN_E_ARG);
}

/* Buffers of nets that differ in one option. */
static void check_other_options(const training *t) {
    const problem *p = &t->p;
    void *const spare = t->spare.at;
    const size_t size = t->spare.size;
    frnn_config other = p->net;
    if (p->net.activation.kind != FRNN_ELU)
        return; /* a net without options */
    for (int i = 0; other_options(&other, i); i++, other = p->net) {
        if (other.proj_size != p->net.proj_size)
            continue; /* of other sizes, too */
        CHECK(frnn_pack_back(&other, p->given, spare, size) == FRNN_OK);
        REFUSED(FRNN_E_ARG, packed = t->spare);
        CHECK(frnn_adjoint_reset(&other, 3, 2, spare, size) == FRNN_OK);
        REFUSED(FRNN_E_ARG, back.adjoint = spare; back.adjoint_size = size);
        CHECK(frnn_backward(&other, t->packed.at, t->packed.size, &t->good) == FRNN_E_ARG);
    }
}

/* Buffers that were never written, or for something else. */
static void check_strangers(const training *t) {
    const problem *p = &t->p;
    void *const spare = t->spare.at;
    const size_t size = t->spare.size;
    frnn_config other = p->net;
    other.hidden_size = other.input_size = 4; /* of the same sizes */
    const problem q = problem_new(&other, 3, 2, 1);
    REFUSED(FRNN_E_ARG, packed = t->raw);
    REFUSED(FRNN_E_ARG, back.saved = t->raw.at; back.saved_size = t->raw.size);
    REFUSED(FRNN_E_ARG, back.adjoint = t->raw.at; back.adjoint_size = t->raw.size);
    CHECK(frnn_pack(&p->net, p->given, spare, size) == FRNN_OK);
    REFUSED(FRNN_E_ARG, packed = t->spare);
    CHECK(frnn_pack_back(&other, q.given, spare, size) == FRNN_OK);
    REFUSED(FRNN_E_ARG, packed = t->spare);
    check_other_options(t);
    save(&q, 3, 2, &t->spare);
    REFUSED(FRNN_E_ARG, back.saved = spare; back.saved_size = size);
    save(p, 2, 2, &t->spare);
    REFUSED(FRNN_E_ARG, back.saved = spare; back.saved_size = size);
    save(p, 3, 1, &t->spare);
    REFUSED(FRNN_E_ARG, back.saved = spare; back.saved_size = size);
    REFUSED(FRNN_E_ARG, back.saved = spare; back.saved_size = size; back.batch = 1);
    REFUSED(FRNN_E_ARG, back.batch = 1);
    REFUSED(FRNN_E_ARG, back.steps = back.total_steps = 2);
    REFUSED(FRNN_E_ARG, back.saved = t->adjoint.at; back.saved_size = size);
    CHECK(frnn_adjoint_reset(&p->net, 2, 2, spare, size) == FRNN_OK);
    REFUSED(FRNN_E_ARG, back.adjoint = spare; back.adjoint_size = size);
    CHECK(frnn_adjoint_reset(&p->net, 3, 1, spare, size) == FRNN_OK);
    REFUSED(FRNN_E_ARG, back.adjoint = spare; back.adjoint_size = size);
    CHECK(frnn_adjoint_reset(&other, 3, 2, spare, size) == FRNN_OK);
    REFUSED(FRNN_E_ARG, back.adjoint = spare; back.adjoint_size = size);
    ADJOINT_REFUSED(FRNN_E_ARG, 3, 2, spare, size, 0, t->arrays.at);
    frame_free(&q.packed);
}

static void check_adjoint(const training *t) {
    const frnn_config *const net = &t->p.net;
    unsigned char *const at = t->adjoint.at, *const values = t->arrays.at;
    const size_t size = t->adjoint.size;
    ADJOINT_REFUSED(FRNN_E_ARG, 3, 2, at, size, 0, NULL);
    ADJOINT_REFUSED(FRNN_E_ARG, 3, 2, NULL, size, 0, values);
    ADJOINT_REFUSED(FRNN_E_ARG, 3, 2, at, size, t->p.cell->states, values);
    ADJOINT_REFUSED(FRNN_E_ARG, 3, 2, at, size, SIZE_MAX, values);
    ADJOINT_REFUSED(FRNN_E_ARG, 2, 2, at, size, 0, values);
    ADJOINT_REFUSED(FRNN_E_ARG, 3, 1, at, size, 0, values);
    ADJOINT_REFUSED(FRNN_E_ARG, 3, 2, t->raw.at, t->raw.size, 0, values);
    ADJOINT_REFUSED(FRNN_E_ALIGN, 3, 2, at + 8, size, 0, values);
    ADJOINT_REFUSED(FRNN_E_SPACE, 3, 2, at, size - 1, 0, values);
    ADJOINT_REFUSED(FRNN_E_SIZE, 3, SIZE_MAX / 8, at, size, 0, values);
    CHECK(frnn_adjoint_get(NULL, 3, 2, at, size, 0, values) == FRNN_E_ARG);
    CHECK(frnn_adjoint_set(NULL, 3, 2, at, size, 0, values) == FRNN_E_ARG);
    CHECK(frnn_adjoint_reset(NULL, 3, 2, at, size) == FRNN_E_ARG);
    CHECK(frnn_adjoint_reset(net, 3, 2, NULL, size) == FRNN_E_ARG);
    CHECK(frnn_adjoint_reset(net, 3, 2, at + 8, size) == FRNN_E_ALIGN);
    CHECK(frnn_adjoint_reset(net, 3, 2, at, size - 1) == FRNN_E_SPACE);
    CHECK(frnn_adjoint_reset(net, 3, SIZE_MAX / 8, at, size) == FRNN_E_SIZE);
}

#define WEIGHTS_REFUSED(member, value)                                                             \
    do {                                                                                           \
        frnn_weights weights[PARTS];                                                               \
        memcpy(weights, p->given, sizeof weights);                                                 \
        weights[p->parts - 1].member = (value);                                                    \
        CHECK(frnn_pack_back(&p->net, p->given, t->spare.at, t->spare.size) == FRNN_OK);           \
        CHECK(frnn_pack_back(&p->net, weights, t->spare.at, t->spare.size) == FRNN_E_ARG);         \
        REFUSED(FRNN_E_ARG, packed = t->spare);                                                    \
    } while (0)

static void check_weights(const training *t) {
    const problem *p = &t->p;
    const double beyond[] = {0.5, 0.5, 0.5, 0.5, 1.1};
    void *const alpha = memory(5 * p->items);
    put(p->items, alpha, beyond, 5);
    CHECK(frnn_pack_back(NULL, p->given, t->packed.at, t->packed.size) == FRNN_E_ARG);
    CHECK(frnn_pack_back(&p->net, NULL, t->packed.at, t->packed.size) == FRNN_E_ARG);
    CHECK(frnn_pack_back(&p->net, p->given, NULL, t->packed.size) == FRNN_E_ARG);
    CHECK(frnn_pack_back(&p->net, p->given, t->packed.at + 8, t->packed.size) == FRNN_E_ALIGN);
    CHECK(frnn_pack_back(&p->net, p->given, t->packed.at, t->packed.size - 1) == FRNN_E_SPACE);
    const int recurrent = param_count(&p->net, 0, WEIGHT_HH) > 0;
    void *const at = t->arrays.at;
    if (p->cell->gates > 0)
        WEIGHTS_REFUSED(weight_ih, NULL);
    if (p->cell->gates > 0 && !recurrent)
        WEIGHTS_REFUSED(bias_hh, at);
    WEIGHTS_REFUSED(weight_hh, recurrent ? NULL : at);
    WEIGHTS_REFUSED(weight_hr, p->net.proj_size > 0 ? NULL : at);
    WEIGHTS_REFUSED(peephole, p->net.peephole ? NULL : at);
    WEIGHTS_REFUSED(alpha, p->cell->alpha ? NULL : at);
    WEIGHTS_REFUSED(alpha, t->raw.at); /* NaN */
    WEIGHTS_REFUSED(alpha, alpha);
}

/* A forward does not save where it cannot, and leaves y and the state as they are. */
static void check_saving(const training *t) {
    const problem *p = &t->p;
    size_t size = 0;
    CHECK(frnn_scratch_size(&p->net, 3, 2, &size) == FRNN_OK);
    const frame state = state_new(p, 2, &p->start), scratch = frame_new(size, FRNN_ALIGN);
    frame_protect(&state, PROT_READ);
    const frnn_run good =
        FRNN_RUN(&p->net, 3, 2, t->raw.at, t->arrays.at, state.at, state.size, scratch.at, size);
    frnn_run run = good;
    run.saved = t->saved.at + 8, run.saved_size = t->saved.size;
    CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_E_ALIGN);
    run.saved = t->saved.at, run.saved_size = t->saved.size - 1;
    CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_E_SPACE);
    frame_free(&state);
    frame_free(&scratch);
}

/* Stretches: no more steps than are left, and none with two directions or without weights. */
static void check_stretches(training *t) {
    const problem *p = &t->p;
    frnn_back back = t->good;
    back.saved = t->spare.at, back.saved_size = t->spare.size;
    back.dx = NULL, back.dy = NULL, back.gradients = NULL;
    save(p, 2, 2, &t->spare);
    back.steps = 2;
    if (p->net.num_directions == 2 || p->cell->gates == 0) {
        CHECK(frnn_backward(&p->net, t->packed.at, t->packed.size, &back) == FRNN_E_ARG);
        return;
    }
    void *const x = memory(6 * p->net.input_size * p->items);
    memset(x, 0, 6 * p->net.input_size * p->items);
    back.x = x;
    static const struct {
        size_t steps;
        frnn_status expected;
    } calls[] = {{2, FRNN_OK}, {2, FRNN_E_ARG}, {3, FRNN_E_ARG}, {0, FRNN_OK},
                 {1, FRNN_OK}, {1, FRNN_E_ARG}, {3, FRNN_E_ARG}, {0, FRNN_OK}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        save(p, calls[i].steps, 2, &t->spare);
        back.steps = calls[i].steps;
        const int access = calls[i].expected == FRNN_OK ? PROT_READ | PROT_WRITE : PROT_READ;
        frame_protect(&t->adjoint, access);
        frame_protect(&t->scratch, access);
        CHECK(frnn_backward(&p->net, t->packed.at, t->packed.size, &back) == calls[i].expected);
    }
}

static void check_cell(frnn_cell cell, frnn_dtype dtype, size_t directions, int options) {
    frnn_config net = FRNN_CONFIG(cell, 5, 5);
    training t;
    memset(&t, 0, sizeof t);
    net.dtype = dtype;
    net.num_layers = frnn_cell_get(cell)->gates > 0 ? 2 : 1;
    net.num_directions = directions;
    if (options == 1)
        set_options(&net);
    if (options == 2)
        set_structure(&net, 1);
    net.mask_blocks = 0; /* other nets have other sizes with one */
    say_net(&net, 3, 2, frnn_isa());
    training_new(&t, &net);
    check_sizes(&t);
    check_backward(&t);
    check_strangers(&t);
    check_adjoint(&t);
    check_weights(&t);
    check_saving(&t);
    check_stretches(&t); /* last: it goes through the adjoint */
    training_free(&t);
    memory_free();
}

int main(void) {
    prepare();
    for (size_t i = 0; frnn_isa_available(i) != NULL; i++) {
        CHECK(frnn_isa_set(frnn_isa_available(i)) == FRNN_OK);
        for (int n = 0; n < 6 * FRNN_CELL_COUNT; n++) {
            const frnn_cell cell = (frnn_cell)(n / 6);
            for (size_t D = 1; D <= (frnn_cell_get(cell)->gates > 0 ? 2 : 1); D++)
                check_cell(cell, (frnn_dtype)(n % 2), D, n / 2 % 3);
        }
    }
    return report();
}
