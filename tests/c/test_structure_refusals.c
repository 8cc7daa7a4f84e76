/* SPDX-License-Identifier: MIT
 *
 * What the C library refuses of time structures: nets that no cell can be, and weights that are
 * missing or too many.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "structure_check.h"

/* ---- Nets ----------------------------------------------------------------------------------- */

/* No function takes that net; none looks at a buffer before. */
static void check_nowhere(const frnn_config *net) {
    unsigned long long clock = 0;
    size_t size = 77;
    float one = 1;
    frnn_run run = FRNN_RUN(net, 1, 1, &one, &one, &one, 64, &one, 64);
    frnn_back back = FRNN_BACK(net, 1, 1, &one, NULL, NULL, &one, 64, &one, 64, &one, 64);
    const frnn_weights w = {.weight_ih = &one, .weight_hh = &one};
    CHECK(frnn_config_check(net) == FRNN_E_ARG);
    CHECK(frnn_packed_size(net, &size) == FRNN_E_ARG);
    CHECK(frnn_packed_back_size(net, &size) == FRNN_E_ARG);
    CHECK(frnn_state_size(net, 1, &size) == FRNN_E_ARG);
    CHECK(frnn_scratch_size(net, 1, 1, &size) == FRNN_E_ARG);
    CHECK(frnn_ragged_scratch_size(net, 1, 1, &size) == FRNN_E_ARG);
    CHECK(frnn_saved_size(net, 1, 1, &size) == FRNN_E_ARG);
    CHECK(frnn_adjoint_size(net, 1, 1, &size) == FRNN_E_ARG);
    CHECK(frnn_backward_scratch_size(net, 1, 1, &size) == FRNN_E_ARG);
    CHECK(frnn_ragged_backward_scratch_size(net, 1, 1, &size) == FRNN_E_ARG);
    CHECK(size == 77);
    CHECK(frnn_checkpoint_unit(net, 1) == SIZE_MAX);
    CHECK(frnn_pack(net, &w, &one, 64) == FRNN_E_ARG);
    CHECK(frnn_pack_back(net, &w, &one, 64) == FRNN_E_ARG);
    CHECK(frnn_state_reset(net, 1, &one, 64) == FRNN_E_ARG);
    CHECK(frnn_state_get(net, 1, &one, 64, 0, &one) == FRNN_E_ARG);
    CHECK(frnn_state_set(net, 1, &one, 64, 0, &one) == FRNN_E_ARG);
    CHECK(frnn_state_get_clock(net, 1, &one, 64, &clock) == FRNN_E_ARG);
    CHECK(frnn_state_set_clock(net, 1, &one, 64, &clock) == FRNN_E_ARG);
    CHECK(frnn_forward(net, &one, 64, &run) == FRNN_E_ARG);
    CHECK(frnn_adjoint_reset(net, 1, 1, &one, 64) == FRNN_E_ARG);
    CHECK(frnn_adjoint_get(net, 1, 1, &one, 64, 0, &one) == FRNN_E_ARG);
    CHECK(frnn_adjoint_set(net, 1, 1, &one, 64, 0, &one) == FRNN_E_ARG);
    CHECK(frnn_backward(net, &one, 64, &back) == FRNN_E_ARG);
    CHECK(one == 1 && clock == 0);
}

/* A change of a net makes it one that there is, or that there is not. */
#define ILLEGAL(from, ...)                                                                         \
    do {                                                                                           \
        frnn_config net = (from);                                                                  \
        __VA_ARGS__;                                                                               \
        snprintf(where, sizeof where, "%s: %s", frnn_cell_get(net.cell)->name, #__VA_ARGS__);      \
        check_nowhere(&net);                                                                       \
    } while (0)
#define LEGAL(from, ...)                                                                           \
    do {                                                                                           \
        frnn_config net = (from);                                                                  \
        __VA_ARGS__;                                                                               \
        snprintf(where, sizeof where, "%s: %s", frnn_cell_get(net.cell)->name, #__VA_ARGS__);      \
        CHECK(frnn_config_check(&net) == FRNN_OK);                                                 \
    } while (0)

static void check_delays(frnn_cell cell) {
    static const size_t some[FRNN_MAX_DELAYS] = {2, 3, 8};
    static const double no_fractions[] = {1, 1.5, -0.25, NAN, INFINITY, -INFINITY};
    const frnn_config one = with_delays(cell, 1, some);
    const int several = cell != FRNN_CELL_MINGRU;
    LEGAL(one, (void)0);
    LEGAL(one, net.delays[0] = UINT32_MAX);
    LEGAL(one, net.fractions[0] = 0.75);
    ILLEGAL(one, net.delays[0] = 0);
    ILLEGAL(one, net.delays[0] = (size_t)UINT32_MAX + 1);
    ILLEGAL(one, net.delays[0] = SIZE_MAX);
    for (size_t i = 0; i < COUNT(no_fractions); i++)
        ILLEGAL(one, net.fractions[0] = no_fractions[i]);
    ILLEGAL(one, net.dilated = 2);
    ILLEGAL(one, net.dilated = -1);
    ILLEGAL(one, net.num_delays = FRNN_MAX_DELAYS + 1);
    ILLEGAL(one, net.num_delays = SIZE_MAX);
    const frnn_config three = with_delays(cell, 3, some);
    if (!several)
        ILLEGAL(three, (void)0);
    if (several) {
        LEGAL(three, (void)0);
        LEGAL(three, net.delays[1] = 2; net.fractions[1] = 0.5);
        LEGAL(three, net.num_delays = FRNN_MAX_DELAYS;
              for (size_t i = 0; i < FRNN_MAX_DELAYS; i++) net.delays[i] = i + 1);
    }
    ILLEGAL(three, net.delays[1] = 2);
    ILLEGAL(three, net.delays[1] = 8);
    ILLEGAL(three, net.delays[2] = 1);
    ILLEGAL(three, net.delays[1] = 0);
    ILLEGAL(three, net.delays[1] = 2; net.fractions[0] = 0.5; net.fractions[1] = 0.5);
    ILLEGAL(three, net.delays[1] = 2; net.fractions[0] = 0.5; net.fractions[1] = 0.25);
    ILLEGAL(three, net.fractions[2] = 1);
    ILLEGAL(three, net.num_delays = 4); /* the fourth is 0 */
    /* dilated: one for each layer, in any order */
    LEGAL(three, net.dilated = 1; net.num_layers = 3);
    LEGAL(three, net.dilated = 1; net.num_layers = 3; net.delays[1] = 1; net.delays[2] = 1);
    ILLEGAL(three, net.dilated = 1; net.num_layers = 2);
    ILLEGAL(three, net.dilated = 1; net.num_layers = 4);
    ILLEGAL(three, net.dilated = 1);
    ILLEGAL(three, net.dilated = 1; net.num_layers = 3; net.delays[2] = 0);
    ILLEGAL(net_new(cell), net.dilated = 1);
}

static void check_groups(frnn_cell cell) {
    const frnn_config clocks = with_clocks(cell);
    if (cell == FRNN_CELL_GRU_RESET_BEFORE) {
        ILLEGAL(clocks, (void)0);
        ILLEGAL(clocks, net.full = 1);
        return;
    }
    LEGAL(clocks, (void)0);
    LEGAL(clocks, net.full = 1);
    LEGAL(clocks, net.periods[1] = SIZE_MAX);
    LEGAL(clocks, net.periods[0] = net.periods[1] = net.periods[2] = 4);
    ILLEGAL(clocks, net.periods[2] = 0);
    ILLEGAL(clocks, net.group_sizes[1] = 0; net.group_sizes[2] = 15);
    ILLEGAL(clocks, net.group_sizes[1]++);
    ILLEGAL(clocks, net.group_sizes[1]--);
    ILLEGAL(clocks, net.group_sizes[0] += 4; net.group_sizes[1] = SIZE_MAX - 3; /* adds up to 20 */
            net.group_sizes[2] += 8);
    ILLEGAL(clocks, net.num_groups = 2);
    ILLEGAL(clocks, net.num_groups = 4);
    ILLEGAL(clocks, net.num_groups = FRNN_MAX_GROUPS + 1);
    ILLEGAL(clocks, net.num_groups = SIZE_MAX);
    ILLEGAL(clocks, net.full = 2);
    ILLEGAL(clocks, net.full = -1);
    ILLEGAL(net_new(cell), net.full = 1);
    ILLEGAL(clocks, net.num_delays = 1; net.delays[0] = 1);
    ILLEGAL(clocks, net.num_delays = 1; net.delays[0] = 1; net.dilated = 1);
    ILLEGAL(clocks, net.dilated = 1);
    if (cell == FRNN_CELL_LSTM || cell == FRNN_CELL_LSTM_COUPLED)
        ILLEGAL(clocks, net.proj_size = 3);
}

static void check_masks(frnn_cell cell) {
    static const size_t one[] = {3};
    if (cell == FRNN_CELL_MINGRU) {
        ILLEGAL(net_new(cell), net.mask_blocks = 1);
        ILLEGAL(with_clocks(cell), net.mask_blocks = 1);
        ILLEGAL(with_delays(cell, 1, one), net.mask_blocks = 1);
        return;
    }
    LEGAL(net_new(cell), net.mask_blocks = 1);
    LEGAL(with_delays(cell, 1, one), net.mask_blocks = SIZE_MAX);
    if (cell != FRNN_CELL_GRU_RESET_BEFORE)
        LEGAL(with_clocks(cell), net.mask_blocks = 1);
}

/* The cell without a recurrence of its own making has no structure at all. */
static void check_leaky(void) {
    static const size_t one[] = {1};
    ILLEGAL(with_delays(FRNN_CELL_LEAKY, 1, one), (void)0);
    ILLEGAL(with_delays(FRNN_CELL_LEAKY, 1, one), net.dilated = 1);
    ILLEGAL(with_clocks(FRNN_CELL_LEAKY), (void)0);
    ILLEGAL(net_new(FRNN_CELL_LEAKY), net.mask_blocks = 1);
    ILLEGAL(net_new(FRNN_CELL_LEAKY), net.full = 1);
}

/* ---- Weights -------------------------------------------------------------------------------- */

/* What is packed for nets of one layer, with that change of their weights. */
static void check_packing(const problem *p, const frnn_weights *w, frnn_status expected) {
    size_t size = 0, back_size = 0;
    CHECK(frnn_packed_size(&p->net, &size) == FRNN_OK);
    CHECK(frnn_packed_back_size(&p->net, &back_size) == FRNN_OK);
    const frame packed = frame_new(size, FRNN_ALIGN), back = frame_new(back_size, FRNN_ALIGN);
    CHECK(frnn_pack(&p->net, w, packed.at, size) == expected);
    CHECK(frnn_pack_back(&p->net, w, back.at, back_size) == expected);
    frame_free(&packed);
    frame_free(&back);
}

#define WEIGHTS(expected, ...)                                                                     \
    do {                                                                                           \
        frnn_weights w[PARTS];                                                                     \
        memcpy(w, p.given, sizeof w);                                                              \
        frnn_weights *const last = &w[p.parts - 1];                                                \
        __VA_ARGS__;                                                                               \
        snprintf(where, sizeof where, "%s: %s", p.cell->name, #__VA_ARGS__);                       \
        check_packing(&p, w, expected);                                                            \
    } while (0)

static void check_weights(frnn_cell cell, frnn_dtype dtype) {
    static const size_t three[] = {2, 3, 8}, one[] = {3};
    const int recurrent = cell != FRNN_CELL_MINGRU;
    frnn_config net = with_delays(cell, recurrent ? 3 : 1, recurrent ? three : one);
    net.dtype = dtype;
    net.num_layers = 2;
    problem p = problem_new(&net, 0, 0, 1);
    const void *const other = p.given[0].weight_ih;
    unsigned char *const mask = memory(400);
    memset(mask, 1, 400);
    WEIGHTS(FRNN_OK, (void)last);
    if (recurrent) {
        WEIGHTS(FRNN_E_ARG, last->delayed[0] = NULL);
        WEIGHTS(FRNN_E_ARG, last->delayed[1] = NULL);
        WEIGHTS(FRNN_E_ARG, last->delayed[2] = last->delayed[1]);
    }
    for (size_t i = recurrent ? 2 : 0; i < FRNN_MAX_DELAYS - 1; i++)
        WEIGHTS(FRNN_E_ARG, last->delayed[i] = other);
    WEIGHTS(FRNN_E_ARG, last->mask = mask);
    frame_free(&p.packed);

    net.dilated = 1; /* a delay for each layer, of one matrix */
    net.num_delays = 2;
    net.delays[1] = 5;
    p = problem_new(&net, 0, 0, 1);
    WEIGHTS(FRNN_OK, (void)last);
    WEIGHTS(FRNN_E_ARG, last->delayed[0] = other);
    frame_free(&p.packed);
    memory_free();
    if (!recurrent)
        return;

    net = net_new(cell); /* 20 units: two blocks of rows */
    net.dtype = dtype;
    net.mask_blocks = 1;
    p = problem_new(&net, 0, 0, 1);
    frame_free(&p.packed);
    unsigned char *const dense = memory(400);
    memset(dense, 0, 400);
    dense[0] = dense[3 * 20 + 7] = dense[15 * 20 + 7] = dense[16 * 20 + 7] = 1; /* three blocks */
    WEIGHTS(FRNN_E_ARG, last->mask = NULL);
    p.given[0].mask = dense;
    p.net.mask_blocks = 3;
    WEIGHTS(FRNN_OK, last->mask = dense);
    p.net.mask_blocks = 2;
    WEIGHTS(FRNN_E_ARG, last->mask = dense);
    p.net.mask_blocks = 40; /* all that there are */
    WEIGHTS(FRNN_OK, last->mask = dense);
    memset(dense, 255, 400);
    CHECK(frnn_mask_blocks(dense, 20, 20) == 40 && frnn_mask_blocks(dense, 0, 20) == 0);
    WEIGHTS(FRNN_OK, last->mask = dense);
    p.net.mask_blocks = 39;
    WEIGHTS(FRNN_E_ARG, last->mask = dense);
    memory_free();
}

/* With clocks nothing is left to be masked, in any gate; weights that clocks cut may be anything.
 */
static void check_clock_weights(frnn_cell cell, frnn_dtype dtype) {
    frnn_config net = with_clocks(cell);
    net.dtype = dtype;
    const size_t G = frnn_cell_get(cell)->gates, items = dtype == FRNN_F32 ? 4 : 8;
    problem p = problem_new(&net, 0, 0, 1);
    unsigned char *const mask = memory(400);
    memset(mask, 1, 400);
    WEIGHTS(FRNN_OK, (void)last);
    WEIGHTS(FRNN_E_ARG, last->mask = mask);
    WEIGHTS(FRNN_E_ARG, last->delayed[0] = last->weight_ih);
    frame_free(&p.packed);
    if (cell == FRNN_CELL_MINGRU) {
        memory_free();
        return;
    }
    net.mask_blocks = 1;
    p = problem_new(&net, 0, 0, 1);
    frame_free(&p.packed);
    mask[7] = mask[399] = 0; /* one of a fast unit, which the clock would leave */
    double *const weights = random_values(items, G * 400, 0.5, 1);
    for (size_t gate = 0; gate < G; gate++)
        weights[gate * 400 + 7] = weights[gate * 400 + 399] = 0;
    void *const typed = memory(G * 400 * items);
    put(items, typed, weights, G * 400);
    WEIGHTS(FRNN_OK, last->mask = mask; last->weight_hh = typed);
    WEIGHTS(FRNN_E_ARG, last->mask = NULL; last->weight_hh = typed);
    static const double values[] = {0.5, -1e-30, NAN, -0.0};
    for (size_t gate = 0; gate < G; gate++)
        for (size_t i = 0; i < COUNT(values); i++)
            for (size_t at = 7; at < 400; at += 392) {
                const double zero = 0;
                put(items, (char *)typed + (gate * 400 + at) * items, &values[i], 1);
                WEIGHTS(values[i] == 0 ? FRNN_OK : FRNN_E_ARG, last->mask = mask;
                        last->weight_hh = typed);
                put(items, (char *)typed + (gate * 400 + at) * items, &zero, 1);
            }
    memory_free();
}

int main(void) {
    prepare();
    check_leaky();
    for (int n = 0; n < 2 * FRNN_CELL_LEAKY; n++) {
        const frnn_cell cell = (frnn_cell)(n / 2);
        const frnn_dtype dtype = (frnn_dtype)(n % 2);
        if (dtype == FRNN_F32) {
            check_delays(cell);
            check_groups(cell);
            check_masks(cell);
        }
        check_weights(cell, dtype);
        if (cell != FRNN_CELL_GRU_RESET_BEFORE)
            check_clock_weights(cell, dtype);
    }
    return report();
}
