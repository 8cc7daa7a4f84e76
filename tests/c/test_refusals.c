/* SPDX-License-Identifier: MIT
 *
 * What the C library refuses, for every cell, dtype and instruction set, and that it leaves all
 * memory alone then; the tables that it answers from.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "library_check.h"

#include <float.h>

/* ---- What is refused ------------------------------------------------------------------------- */

/* y, state, packed weights and scratch are write-protected here: an error changes nothing. */
#define REFUSED(expected, ...)                                                                     \
    do {                                                                                           \
        frnn_config net = p.net;                                                                   \
        frnn_run run = good;                                                                       \
        frame packed = p.packed;                                                                   \
        __VA_ARGS__;                                                                               \
        CHECK(frnn_forward(&net, packed.at, packed.size, &run) == (expected));                     \
    } while (0)
#define STATE_REFUSED(expected, batch, at, size, index, values)                                    \
    do {                                                                                           \
        CHECK(frnn_state_get(&p.net, batch, at, size, index, values) == (expected));               \
        CHECK(frnn_state_set(&p.net, batch, at, size, index, values) == (expected));               \
    } while (0)
#define NET_REFUSED(expected, ...)                                                                 \
    do {                                                                                           \
        frnn_config net = p.net;                                                                   \
        __VA_ARGS__;                                                                               \
        check_net(&net, &p, &good, &raw, (expected));                                              \
    } while (0)
#define WEIGHTS_REFUSED(member, value)                                                             \
    do {                                                                                           \
        frnn_weights weights[PARTS];                                                               \
        memcpy(weights, p.given, sizeof weights);                                                  \
        weights[p.parts - 1].member = (value);                                                     \
        CHECK(frnn_pack(&p.net, p.given, spare.at, spare.size) == FRNN_OK);                        \
        CHECK(frnn_pack(&p.net, weights, spare.at, spare.size) == FRNN_E_ARG);                     \
        REFUSED(FRNN_E_ARG, packed = spare);                                                       \
    } while (0)

/* Training refuses that net as well, before it looks at the write-protected buffer. */
static void check_training(const frnn_config *net, const problem *p, const frame *locked,
                           frnn_status expected) {
    void *const at = locked->at;
    const frnn_back back =
        FRNN_BACK(&p->net, 3, 2, at, at, at, at, locked->size, at, locked->size, at, locked->size);
    size_t size = 77;
    CHECK(frnn_packed_back_size(net, &size) == expected);
    CHECK(frnn_adjoint_size(net, 1, 1, &size) == expected);
    CHECK(frnn_backward_scratch_size(net, 1, 1, &size) == expected);
    if (expected == FRNN_E_ARG) /* a size of what is saved may fit where that of weights does not */
        CHECK(frnn_saved_size(net, 1, 1, &size) == expected);
    CHECK(size == 77);
    CHECK(frnn_pack_back(net, p->given, at, locked->size) == expected);
    CHECK(frnn_adjoint_reset(net, 3, 2, at, locked->size) == expected);
    CHECK(frnn_adjoint_get(net, 3, 2, at, locked->size, 0, at) == expected);
    CHECK(frnn_adjoint_set(net, 3, 2, at, locked->size, 0, at) == expected);
    CHECK(frnn_backward(net, at, locked->size, &back) == expected);
}

/* Nothing takes that net, whatever else it is given. */
static void check_net(const frnn_config *net, const problem *p, const frnn_run *good,
                      const frame *locked, frnn_status expected) {
    void *const state = good->state, *const values = locked->at;
    size_t size = 77;
    CHECK(frnn_config_check(net) == (expected == FRNN_E_SIZE ? FRNN_OK : expected));
    CHECK(frnn_packed_size(net, &size) == expected);
    CHECK(frnn_state_size(net, 0, &size) == expected);
    CHECK(frnn_scratch_size(net, 1, 1, &size) == expected);
    CHECK(size == 77);
    CHECK(frnn_pack(net, p->given, p->packed.at, p->packed.size) == expected);
    CHECK(frnn_state_reset(net, 2, state, good->state_size) == expected);
    CHECK(frnn_state_get(net, 2, state, good->state_size, 0, values) == expected);
    CHECK(frnn_state_set(net, 2, state, good->state_size, 0, values) == expected);
    CHECK(frnn_forward(net, p->packed.at, p->packed.size, good) == expected);
    check_training(net, p, locked, expected);
}

/* Options that the cell does not have, or of values that no cell has. */
static void check_options(const problem *base, const frnn_run *run, const frame *locked) {
    const problem p = *base;
    const frnn_run good = *run;
    const frame raw = *locked;
    const int lstm = is_lstm(&p.net), gates = lstm || is_gru(&p.net);
    static const double reals[] = {-1, -DBL_TRUE_MIN, NAN, INFINITY, -INFINITY};
    for (int bad = -1; bad < 1000; bad += 500) {
        NET_REFUSED(FRNN_E_ARG, net.activation.kind = (frnn_activation)bad);
        NET_REFUSED(FRNN_E_ARG, net.gate_activation.kind = (frnn_activation)bad);
        NET_REFUSED(FRNN_E_ARG, net.output_activation.kind = (frnn_activation)bad);
    }
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        NET_REFUSED(FRNN_E_ARG, net.clip = reals[i]);
        NET_REFUSED(FRNN_E_ARG, net.cell_clip = reals[i]);
    }
    for (int kind = 0; kind < FRNN_ACTIVATION_COUNT; kind++) {
        const int two =
            kind == FRNN_HARD_SIGMOID || kind == FRNN_AFFINE || kind == FRNN_SCALED_TANH;
        const int one =
            kind == FRNN_LEAKY_RELU || kind == FRNN_THRESHOLDED_RELU || kind == FRNN_ELU;
        const frnn_function plain = {(frnn_activation)kind, two || one, two};
        for (size_t f = 0; f < 3; f++) {
#define FUNCTION (f == 0 ? &net.activation : f == 1 ? &net.gate_activation : &net.output_activation)
            for (size_t i = 2; i < sizeof reals / sizeof *reals; i++) { /* not finite */
                NET_REFUSED(FRNN_E_ARG, *FUNCTION = plain; FUNCTION->alpha = reals[i]);
                NET_REFUSED(FRNN_E_ARG, *FUNCTION = plain; FUNCTION->beta = reals[i]);
            }
            if (!two)
                NET_REFUSED(FRNN_E_ARG, *FUNCTION = plain; FUNCTION->beta = 1);
            if (one)
                NET_REFUSED(FRNN_E_ARG, *FUNCTION = plain; FUNCTION->alpha = -1);
            else if (!two)
                NET_REFUSED(FRNN_E_ARG, *FUNCTION = plain; FUNCTION->alpha = 1);
            if (kind == FRNN_SCALED_TANH)
                NET_REFUSED(FRNN_E_ARG, *FUNCTION = plain; FUNCTION->alpha = 0);
        }
        frnn_config net = p.net;
        net.activation = plain;
        CHECK(frnn_config_check(&net) ==
              (p.cell->gates > 0 || kind == FRNN_TANH ? FRNN_OK : FRNN_E_ARG));
        net = p.net;
        net.gate_activation = plain;
        CHECK(frnn_config_check(&net) == (gates || kind == FRNN_SIGMOID ? FRNN_OK : FRNN_E_ARG));
        net = p.net;
        net.output_activation = plain;
        CHECK(frnn_config_check(&net) == (lstm || kind == FRNN_TANH ? FRNN_OK : FRNN_E_ARG));
    }
    if (p.cell->gates == 0 || p.net.cell == FRNN_CELL_LEAKY_POTENTIAL)
        NET_REFUSED(FRNN_E_ARG, net.clip = 1);
    if (lstm) {
        NET_REFUSED(FRNN_E_SIZE, net.proj_size = SIZE_MAX);
        NET_REFUSED(FRNN_E_SIZE, net.proj_size = SIZE_MAX / 4 + 2);
    } else {
        NET_REFUSED(FRNN_E_ARG, net.proj_size = 1);
        NET_REFUSED(FRNN_E_ARG, net.peephole = 1);
        NET_REFUSED(FRNN_E_ARG, net.cell_clip = 1);
    }
}

static void check_refusals(frnn_cell cell, frnn_dtype dtype, int options, const char *isa) {
    const frnn_cell_info *info = frnn_cell_get(cell);
    const int gated = info->gates > 0;
    frnn_config config = FRNN_CONFIG(cell, 5, 5), other;
    config.dtype = dtype;
    config.num_layers = config.num_directions = gated ? 2 : 1;
    if (options)
        set_options(&config);
    const problem p = problem_new(&config, 3, 2, 1);
    size_t size = 0, more = 0;
    CHECK(frnn_scratch_size(&p.net, 3, 2, &size) == FRNN_OK);
    const frame state = state_new(&p, 2, &p.start), scratch = frame_new(size, FRNN_ALIGN);
    const frame y = frame_new(6 * p.width * p.items, p.items),
                raw = frame_new(state.size, FRNN_ALIGN);
    const frame spare = frame_new(p.packed.size, FRNN_ALIGN),
                stranger = frame_new(state.size, FRNN_ALIGN);
    const frame *const locked[] = {&p.packed, &state, &scratch, &y, &raw};
    for (size_t i = 0; i < 5; i++)
        frame_protect(locked[i], PROT_READ);
    void *const numbers = memory(40 * p.items);
    double *const drawn = random_values(p.items, 40, 0, 1);
    drawn[4] = -0.1;
    put(p.items, numbers, drawn, 40);
    const frnn_run good = FRNN_RUN(&p.net, 3, 2, numbers, y.at, state.at, state.size,
                                   size > 0 ? scratch.at : NULL, size);
    say_net(&p.net, 3, 2, isa);

    REFUSED(FRNN_E_ARG, run.struct_size--);
    REFUSED(FRNN_E_ARG, run.x = NULL);
    REFUSED(FRNN_E_ARG, run.y = NULL);
    REFUSED(FRNN_E_ARG, run.state = NULL);
    REFUSED(FRNN_E_ALIGN, run.state = state.at + 8);
    REFUSED(FRNN_E_SPACE, run.state_size--);
    REFUSED(FRNN_E_ARG, packed.at = NULL);
    REFUSED(FRNN_E_ALIGN, packed.at += 32);
    REFUSED(FRNN_E_SPACE, packed.size--);
    REFUSED(FRNN_E_ARG, packed = spare);     /* never written */
    REFUSED(FRNN_E_ARG, run.state = raw.at); /* likewise */
    REFUSED(FRNN_E_ARG, run.batch = 1);      /* a state of two */
    REFUSED(FRNN_E_SIZE, run.steps = SIZE_MAX);
    REFUSED(FRNN_E_SIZE, run.batch = SIZE_MAX / 8);
    if (gated) {
        REFUSED(FRNN_E_ARG, run.scratch = NULL);
        REFUSED(FRNN_E_ALIGN, run.scratch = scratch.at + 1);
        REFUSED(FRNN_E_SPACE, run.scratch_size--);
    }
    CHECK(frnn_forward(NULL, p.packed.at, p.packed.size, &good) == FRNN_E_ARG);
    CHECK(frnn_forward(&p.net, p.packed.at, p.packed.size, NULL) == FRNN_E_ARG);

    other = p.net; /* another net, in one option */
    for (int i = 0; options && gated && other_options(&other, i); i++, other = p.net) {
        CHECK(frnn_forward(&other, p.packed.at, p.packed.size, &good) != FRNN_OK);
        if (other.proj_size != p.net.proj_size)
            continue; /* of other sizes, too */
        CHECK(frnn_pack(&other, p.given, spare.at, spare.size) == FRNN_OK);
        REFUSED(FRNN_E_ARG, packed = spare);
        CHECK(frnn_state_reset(&other, 2, stranger.at, stranger.size) == FRNN_OK);
        REFUSED(FRNN_E_ARG, run.state = stranger.at);
        STATE_REFUSED(FRNN_E_ARG, 2, stranger.at, stranger.size, 0, numbers);
    }

    /* another net, of the same sizes */
    other = p.net;
    other.hidden_size = other.input_size = 4;
    CHECK(frnn_state_reset(&other, 2, stranger.at, stranger.size) == FRNN_OK);
    REFUSED(FRNN_E_ARG, net = other; run.state = stranger.at);
    REFUSED(FRNN_E_ARG, run.state = stranger.at);
    STATE_REFUSED(FRNN_E_ARG, 2, stranger.at, stranger.size, 0, numbers);
    STATE_REFUSED(FRNN_E_ARG, 2, raw.at, raw.size, 0, numbers);
    STATE_REFUSED(FRNN_E_ARG, 2, NULL, state.size, 0, numbers);
    STATE_REFUSED(FRNN_E_ARG, 2, state.at, state.size, 0, NULL);
    STATE_REFUSED(FRNN_E_ARG, 2, state.at, state.size, info->states, numbers);
    STATE_REFUSED(FRNN_E_ARG, 1, state.at, state.size, 0, numbers);
    STATE_REFUSED(FRNN_E_ALIGN, 2, state.at + 8, state.size, 0, numbers);
    STATE_REFUSED(FRNN_E_SPACE, 2, state.at, state.size - 1, 0, numbers);
    CHECK(frnn_state_reset(&p.net, 2, NULL, state.size) == FRNN_E_ARG);
    CHECK(frnn_state_reset(&p.net, 2, state.at + 8, state.size) == FRNN_E_ALIGN);
    CHECK(frnn_state_reset(&p.net, 2, state.at, state.size - 1) == FRNN_E_SPACE);

    CHECK(frnn_pack(&p.net, NULL, p.packed.at, p.packed.size) == FRNN_E_ARG);
    CHECK(frnn_pack(&p.net, p.given, NULL, p.packed.size) == FRNN_E_ARG);
    CHECK(frnn_pack(&p.net, p.given, p.packed.at + 8, p.packed.size) == FRNN_E_ALIGN);
    CHECK(frnn_pack(&p.net, p.given, p.packed.at, p.packed.size - 1) == FRNN_E_SPACE);
    const int recurrent = param_count(&p.net, 0, WEIGHT_HH) > 0;
    if (gated)
        WEIGHTS_REFUSED(weight_ih, NULL);
    if (gated && !recurrent)
        WEIGHTS_REFUSED(bias_hh, numbers);
    WEIGHTS_REFUSED(weight_hh, recurrent ? NULL : numbers);
    WEIGHTS_REFUSED(weight_hr, p.net.proj_size > 0 ? NULL : numbers);
    WEIGHTS_REFUSED(peephole, p.net.peephole ? NULL : numbers);
    WEIGHTS_REFUSED(alpha, info->alpha ? NULL : numbers);
    WEIGHTS_REFUSED(alpha, y.at);    /* NaN */
    WEIGHTS_REFUSED(alpha, numbers); /* one is below 0 */

    NET_REFUSED(FRNN_E_ARG, net.struct_size--);
    for (int bad = -1; bad < 1000; bad += 500) {
        NET_REFUSED(FRNN_E_ARG, net.cell = (frnn_cell)bad);
        NET_REFUSED(FRNN_E_ARG, net.dtype = (frnn_dtype)bad);
    }
    check_options(&p, &good, &raw);
    NET_REFUSED(FRNN_E_ARG, net.input_size = 0);
    NET_REFUSED(FRNN_E_ARG, net.hidden_size = 0);
    NET_REFUSED(FRNN_E_ARG, net.num_layers = 0);
    NET_REFUSED(FRNN_E_ARG, net.num_directions = 0);
    NET_REFUSED(FRNN_E_ARG, net.num_directions = 3);
    NET_REFUSED(FRNN_E_SIZE, net.input_size = net.hidden_size = SIZE_MAX);
    NET_REFUSED(FRNN_E_SIZE, net.input_size = net.hidden_size = SIZE_MAX / 4 + 2);
    if (gated) {
        NET_REFUSED(FRNN_E_SIZE, net.input_size = SIZE_MAX / 8);
        NET_REFUSED(FRNN_E_SIZE, net.hidden_size = SIZE_MAX / 64);
        NET_REFUSED(FRNN_E_SIZE, net.num_layers = SIZE_MAX);
        NET_REFUSED(FRNN_E_SIZE, net.num_layers = SIZE_MAX / 2 + 2); /* times 2 is 2 */
    } else {
        NET_REFUSED(FRNN_E_ARG, net.input_size = 4);
        NET_REFUSED(FRNN_E_ARG, net.num_layers = 2);
        NET_REFUSED(FRNN_E_ARG, net.num_directions = 2);
    }
    CHECK(frnn_packed_size(&p.net, NULL) == FRNN_E_ARG &&
          frnn_packed_size(NULL, &more) == FRNN_E_ARG);
    CHECK(frnn_state_size(&p.net, 2, NULL) == FRNN_E_ARG);
    CHECK(frnn_state_size(&p.net, SIZE_MAX / 8, &more) == FRNN_E_SIZE);
    CHECK(frnn_scratch_size(&p.net, 3, 2, NULL) == FRNN_E_ARG);
    CHECK(frnn_scratch_size(&p.net, SIZE_MAX, SIZE_MAX, &more) == FRNN_E_SIZE);
    CHECK(frnn_config_check(NULL) == FRNN_E_ARG && frnn_config_check(&p.net) == FRNN_OK);
    CHECK(frnn_isa_set(NULL) == FRNN_E_ISA && frnn_isa_set("") == FRNN_E_ISA);
    CHECK(frnn_isa_set("avx") == FRNN_E_ISA && frnn_isa_set("scalars") == FRNN_E_ISA);
    CHECK(strcmp(frnn_isa(), isa) == 0);

    frnn_run none = good; /* nothing to do is no error, and needs no arrays */
    none.steps = 0, none.x = none.y = NULL;
    frame_protect(&state, PROT_READ | PROT_WRITE);
    void *const before = memory(state.size);
    memcpy(before, state.at, state.size);
    CHECK(frnn_forward(&p.net, p.packed.at, p.packed.size, &none) == FRNN_OK);
    CHECK(memcmp(before, state.at, state.size) == 0 && filled(y.at, y.size));
    for (size_t i = 0; i < 5; i++)
        frame_free(locked[i]);
    frame_free(&spare);
    frame_free(&stranger);
    memory_free();
}

/* While no instruction set is in use. */
static void check_no_isa(void) {
    const frnn_config net = FRNN_CONFIG(FRNN_CELL_RNN, 1, 1);
    const frnn_config potential = FRNN_CONFIG(FRNN_CELL_LEAKY_POTENTIAL, 1, 1);
    const problem p = problem_new(&net, 1, 1, 1);
    const float one = 1;
    float y = 5, h = 5;
    size_t size = 0, scratch_size = 0;
    CHECK(frnn_isa() == NULL && frnn_state_size(&potential, 1, &size) == FRNN_OK);
    CHECK(frnn_scratch_size(&net, 1, 1, &scratch_size) == FRNN_OK);
    const frame state = frame_new(size, FRNN_ALIGN), scratch = frame_new(scratch_size, FRNN_ALIGN);
    /* its h is computed from u */
    CHECK(frnn_state_reset(&potential, 1, state.at, size) == FRNN_E_ISA);
    CHECK(filled(state.at, size));
    CHECK(frnn_state_reset(&net, 1, state.at, size) == FRNN_OK);
    const frnn_run run = FRNN_RUN(&net, 1, 1, &one, &y, state.at, size, scratch.at, scratch_size);
    CHECK(frnn_forward(&net, p.packed.at, p.packed.size, &run) == FRNN_E_ISA && y == 5);
    CHECK(frnn_state_set(&net, 1, state.at, size, 0, &one) == FRNN_OK);
    CHECK(frnn_state_get(&net, 1, state.at, size, 0, &h) == FRNN_OK && h == 1);
    frame_free(&p.packed);
    frame_free(&state);
    frame_free(&scratch);
    memory_free();
}

/* ---- The rest ---------------------------------------------------------------------------------
 */

static void check_tables(void) {
    static const frnn_cell_info expected[] = {
        {"lstm", 4, 0, 2, 1, 0, 0, 1},       {"lstm_coupled", 3, 1, 2, 1, 0, 0, 1},
        {"gru", 3, 2, 1, 0, 1, 0, 1},        {"gru_reset_before", 3, 1, 1, 0, 1, 0, 1},
        {"mingru", 2, 0, 1, 0, 1, 0, 1},     {"rnn", 1, 0, 1, 0, 0, 0, 0},
        {"leaky_rate", 1, 0, 1, 0, 1, 1, 1}, {"leaky_potential", 1, 0, 1, 1, 1, 1, 1},
        {"leaky", 0, 0, 1, 0, 1, 1, 1}};
    snprintf(where, sizeof where, "tables");
    for (int i = 0; i < FRNN_CELL_COUNT; i++) {
        const frnn_cell_info *a = frnn_cell_get((frnn_cell)i), *b = &expected[i];
        CHECK(strcmp(a->name, b->name) == 0 && a->gates == b->gates && a->apart == b->apart &&
              a->states == b->states && a->memory == b->memory && a->direct == b->direct &&
              a->alpha == b->alpha && a->history == b->history);
    }
    CHECK(frnn_cell_get(FRNN_CELL_COUNT) == NULL && frnn_cell_get((frnn_cell)-1) == NULL);
    for (int i = FRNN_E_FILE; i <= FRNN_OK; i++)
        for (int j = FRNN_E_FILE - 1; j < i; j++) /* the first is unknown */
            CHECK(strcmp(frnn_strerror((frnn_status)i), frnn_strerror((frnn_status)j)) != 0);
    CHECK(strlen(frnn_strerror((frnn_status)1)) > 0 && strlen(frnn_strerror(FRNN_OK)) > 0);
    size_t count = 0;
    while (frnn_isa_available(count) != NULL)
        count++;
    CHECK(count > 0 && strcmp(frnn_isa_available(count - 1), "scalar") == 0);
    CHECK(frnn_isa_available(SIZE_MAX) == NULL);
}

int main(void) {
    prepare();
    setenv("FASTRNN_ISA", "none", 1);
    check_no_isa();
    check_tables();
    for (size_t i = 0; frnn_isa_available(i) != NULL; i++) {
        CHECK(frnn_isa_set(frnn_isa_available(i)) == FRNN_OK);
        for (int n = 0; n < 4 * FRNN_CELL_COUNT; n++)
            check_refusals((frnn_cell)(n / 4), (frnn_dtype)(n % 2), n / 2 % 2, frnn_isa());
    }
    return report();
}
