/* SPDX-License-Identifier: MIT
 *
 * Rows of different lengths and rows that start anew, on every instruction set that this machine
 * has: that each piece of each row gets what it gets in a run of its own, the same bits however the
 * call is made, and that nothing else is read or written.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "ragged_check.h"

#define PICK(array) array[below(sizeof(array) / sizeof *(array))]

static size_t where_base; /* what is being tested begins so; how it is follows */

static void say(const char *how) {
    snprintf(where + where_base, sizeof where - where_base, ": %s", how);
}

/* ---- Comparisons ---------------------------------------------------------------------------- */

/* All arrays that both have are the same, in every bit. */
static void check_same(const result *a, const result *b) {
    for (size_t i = 0; i < ARRAYS; i++) {
        const span *const s = &a->array[i], *const t = &b->array[i];
        if (s->at != NULL && t->at != NULL)
            CHECK(s->size == t->size && memcmp(s->at, t->at, s->size) == 0);
    }
    if (a->clock.at != NULL && b->clock.at != NULL)
        CHECK(memcmp(a->clock.at, b->clock.at, a->clock.size) == 0);
}

/* How much sums of that many terms may differ, relative to their largest. */
static double rounding(const problem *p, size_t terms) {
    return (p->items == 4 ? 1e-5 : 1e-13) * (1 + 0.1 * sqrt((double)terms));
}

/* Numbers are the expected ones but for rounding, relative to the largest of them or 1. */
static void check_sums(const problem *p, const span *found, const double *expected) {
    const size_t count = found->size / p->items;
    double largest = 1;
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (size_t i = 0; i < count; i++)
        wrong += !(fabs(number(p, found, i) - expected[i]) <=
                   rounding(p, p->steps * p->batch) * largest);
    CHECK(wrong == 0);
}

/* Elements that are neither the same bits nor both NaN. */
static size_t different(const problem *p, const span *a, const span *b, size_t begin,
                        size_t count) {
    size_t wrong = 0;
    for (size_t i = begin; i < begin + count; i++)
        wrong += memcmp(a->at + i * p->items, b->at + i * p->items, p->items) != 0 &&
                 !(isnan(number(p, a, i)) && isnan(number(p, b, i)));
    return wrong;
}

/* The bits that separate runs give. */
static void check_bits(const problem *p, const separate *apart, const result *all) {
    CHECK(memcmp(apart->bits.array[Y].at, all->array[Y].at, all->array[Y].size) == 0);
    CHECK(memcmp(apart->bits.array[DX].at, all->array[DX].at, all->array[DX].size) == 0);
    for (size_t k = 0; k < p->cell->states; k++) {
        const span *const s = &all->array[STATE + k], *const d = &all->array[DSTATE + k];
        CHECK(memcmp(apart->bits.array[STATE + k].at, s->at, s->size) == 0);
        const size_t w = state_width(&p->net, k);
        size_t wrong = 0;
        for (size_t i = 0; i < state_slots(&p->net, k) * p->batch; i++)
            wrong += !apart->cut[i % p->batch] &&
                     memcmp(apart->bits.array[DSTATE + k].at + i * w * p->items,
                            d->at + i * w * p->items, w * p->items) != 0;
        CHECK(wrong == 0);
    }
    if (all->clock.at != NULL)
        CHECK(memcmp(apart->bits.clock.at, all->clock.at, all->clock.size) == 0);
}

/* The sums over separate runs, but for rounding. */
static void check_totals(const problem *p, const separate *apart, const result *all) {
    for (size_t k = 0; k < p->cell->states; k++) {
        const size_t count = state_count(p, p->batch, k), w = state_width(&p->net, k);
        for (size_t i = 0; i < count; i++)
            if (!apart->cut[i / w % p->batch])
                apart->sums[DSTATE + k][i] = number(p, &all->array[DSTATE + k], i);
        check_sums(p, &all->array[DSTATE + k], apart->sums[DSTATE + k]);
    }
    for (size_t i = PARAMS; i < PARAMS + p->parts * KINDS; i++)
        if (all->array[i].at != NULL)
            check_sums(p, &all->array[i], apart->sums[i]);
}

/* ---- The same bits however they are asked for ------------------------------------------------ */

static void check_manner(const task *t, const ragged *r, const result *all, manner how,
                         const char *what) {
    say(what);
    const result other = ragged_train(t, r, how);
    check_same(all, &other);
}

/* dy that is not read is zero. */
static void check_dy(const task *t, const ragged *r) {
    const problem *p = &t->p;
    const size_t T = p->steps, width = p->batch * p->width, begin = below(T + 1);
    task other = *t;
    other.dy = zeros(T * width);
    say("dy all zeros");
    const result none = ragged_train(&other, r, (manner){0});
    check_manner(t, r, &none, (manner){.without = NO_DY, .strided = 1}, "dy NULL");
    memcpy(other.dy + begin * width, t->dy + begin * width, (T - begin) * width * sizeof(double));
    say("dy with zeros");
    const result some = ragged_train(&other, r, (manner){0});
    check_manner(t, r, &some, (manner){.dy_begin = begin, .strided = 1}, "dy_begin");
}

/* Random numbers in place of gradients of parameters. */
static result random_params(const problem *p, const result *like) {
    result start = *like;
    for (size_t i = PARAMS; i < ARRAYS; i++)
        if (like->array[i].at != NULL) {
            const size_t count = like->array[i].size / p->items;
            start.array[i] = span_new(like->array[i].size);
            put(p->items, start.array[i].at, random_values(p->items, count, -1, 1), count);
        }
    return start;
}

static void check_accumulate(const task *t, const ragged *r, const result *all) {
    const problem *p = &t->p;
    const result start = random_params(p, all);
    say("added");
    const result more = ragged_train(t, r, (manner){.start = &start, .strided = 1});
    for (size_t i = PARAMS; i < ARRAYS; i++) {
        if (all->array[i].at == NULL)
            continue;
        const size_t count = all->array[i].size / p->items;
        double *const sums = zeros(count);
        add_numbers(p, &all->array[i], sums, 0, count);
        add_numbers(p, &start.array[i], sums, 0, count);
        check_sums(p, &more.array[i], sums);
    }
    check_manner(t, r, &more, (manner){.start = &start, .without = NO_DX}, "added without dx");
}

/* A NaN in x and one in dy stay in their pieces. */
static void check_nan(const task *t, const ragged *r) {
    const problem *p = &t->p;
    task ill = *t;
    const size_t rows = p->steps * p->batch, I = p->net.input_size;
    if (rows == 0)
        return;
    ill.p.x = memory(rows * I * sizeof(double));
    ill.dy = memory(rows * p->width * sizeof(double));
    memcpy(ill.p.x, p->x, rows * I * sizeof(double));
    memcpy(ill.dy, t->dy, rows * p->width * sizeof(double));
    ill.p.x[below(rows * I)] = NAN;
    ill.dy[below(rows * p->width)] = NAN;
    say("with a NaN");
    const separate apart = separate_runs(&ill, r);
    const result all = ragged_train(&ill, r, (manner){.without = NO_PARAMS});
    for (size_t a = Y; a < DSTATE; a++)
        if (all.array[a].at != NULL)
            CHECK(different(p, &apart.bits.array[a], &all.array[a], 0,
                            all.array[a].size / p->items) == 0);
    for (size_t k = 0; k < p->cell->states; k++) {
        const size_t w = state_width(&p->net, k);
        size_t wrong = 0;
        for (size_t i = 0; i < state_slots(&p->net, k) * p->batch; i++)
            if (!apart.cut[i % p->batch])
                wrong +=
                    different(p, &apart.bits.array[DSTATE + k], &all.array[DSTATE + k], i * w, w);
        CHECK(wrong == 0);
    }
}

static void check_manners(const task *t, const ragged *r, const result *all) {
    const problem *p = &t->p;
    say("not saving");
    const result forward_only = ragged_plain(p, r, (manner){.strided = 1});
    check_same(all, &forward_only);
    check_manner(t, r, all, (manner){.strided = 1}, "strided");
    check_manner(t, r, all, (manner){.twice = 1}, "twice");
    check_manner(t, r, all, (manner){.without = NO_DX, .strided = 1}, "without dx");
    check_manner(t, r, all, (manner){.without = NO_PARAMS}, "without parameters");
    check_manner(t, r, all, (manner){.without = NO_KIND * (unsigned)below((size_t)1 << KINDS)},
                 "without some kinds");
    if (p->net.cell != FRNN_CELL_LEAKY)
        return;
    say("time axis");
    const result near = ragged_train(t, r, (manner){.time_axis = 1, .strided = 1});
    for (size_t i = 0; i < ARRAYS; i++)
        if (all->array[i].at != NULL) {
            double *const expected = zeros(all->array[i].size / p->items);
            add_numbers(p, &all->array[i], expected, 0, all->array[i].size / p->items);
            check_sums(p, &near.array[i], expected);
        }
}

/* ---- Batches that are not ragged --------------------------------------------------------------
 */

/* Rows that do every step: the bits of a call that says nothing of them. With a time structure rows
 * are run one by one if it does, which is another order of sums over them. */
static void check_even(const task *t) {
    const problem *p = &t->p;
    size_t *const lengths = memory(p->batch * sizeof *lengths);
    for (size_t b = 0; b < p->batch; b++)
        lengths[b] = p->steps;
    say("plain");
    result plain_one = train(t, (manner){0});
    double *sums[ARRAYS] = {NULL};
    const int structured = p->net.num_delays > 0 || p->net.num_groups > 0;
    for (size_t i = PARAMS; i < ARRAYS && structured; i++)
        if (plain_one.array[i].at != NULL) {
            const size_t count = plain_one.array[i].size / p->items;
            sums[i] = zeros(count);
            add_numbers(p, &plain_one.array[i], sums[i], 0, count);
            plain_one.array[i].at = NULL;
        }
    for (int which = 1; which < 4; which++) {
        ragged r = {0};
        if (which & 1)
            ragged_lengths(&r, lengths, p->batch);
        if (which & 2)
            ragged_reset(&r, p->steps, p->batch, 0);
        say("not ragged");
        const result other = ragged_train(t, &r, (manner){.strided = which == 1});
        check_same(&plain_one, &other);
        for (size_t i = PARAMS; i < ARRAYS; i++)
            if (sums[i] != NULL)
                check_sums(p, &other.array[i], sums[i]);
        ragged_free(&r);
    }
}

/* Rows that do nothing. */
static void check_nothing(const task *t) {
    const problem *p = &t->p;
    size_t *const lengths = memory(p->batch * sizeof *lengths);
    memset(lengths, 0, p->batch * sizeof *lengths);
    ragged r = {0};
    ragged_lengths(&r, lengths, p->batch);
    if (below(2) > 0)
        ragged_reset(&r, p->steps, p->batch, 2);
    say("no steps");
    const separate apart = separate_runs(t, &r);
    const result all = ragged_train(t, &r, (manner){0});
    check_bits(p, &apart, &all);
    result none = all;
    for (size_t i = PARAMS; i < ARRAYS; i++)
        if (all.array[i].at != NULL) {
            none.array[i] = span_new(all.array[i].size);
            memset(none.array[i].at, 0, none.array[i].size);
        }
    check_same(&none, &all);
    const result start = random_params(p, &all);
    check_manner(t, &r, &start, (manner){.start = &start}, "nothing added");
    ragged_free(&r);
}

/* ---- Nets -------------------------------------------------------------------------------------
 */

#define WORK        3e5
#define WORK_SCALAR 5e4

static void check_net(const frnn_config *net, size_t steps, size_t batch, int all) {
    task t = task_new(net, steps, batch, 1);
    ragged r = {0};
    const size_t which = below(4);
    if (which != 0)
        draw_lengths(&r, steps, batch);
    if (which != 1)
        ragged_reset(&r, steps, batch, 1 + steps * batch / 64 + below(6));
    separate apart = {0};
    result best = {0};
    const char *isa;
    for (size_t i = 0; (isa = frnn_isa_available(i)) != NULL; i++) {
        where_base = (size_t)say_net(net, steps, batch, isa);
        if (i > 0 && strcmp(isa, "scalar") == 0 && work(net, steps, batch) > WORK_SCALAR)
            continue;
        CHECK(frnn_isa_set(isa) == FRNN_OK);
        say("separate runs");
        if (i == 0)
            apart = separate_runs(&t, &r);
        say(which == 0 ? "reset" : which == 1 ? "lengths" : "lengths and reset");
        const result whole = ragged_train(&t, &r, (manner){0});
        best = i == 0 ? whole : best;
        check_same(&best, &whole);
        check_bits(&t.p, &apart, &whole);
        check_totals(&t.p, &apart, &whole);
        if (!all)
            continue;
        check_manners(&t, &r, &whole);
        check_dy(&t, &r);
        check_accumulate(&t, &r, &whole);
        check_nan(&t, &r);
        check_even(&t);
        check_nothing(&t);
    }
    CHECK(frnn_isa_set(frnn_isa_available(0)) == FRNN_OK);
    ragged_free(&r);
    task_free(&t);
    memory_free();
}

static frnn_config draw_net(frnn_cell cell, frnn_dtype dtype, size_t input_size,
                            size_t hidden_size) {
    frnn_config net = FRNN_CONFIG(cell, input_size, hidden_size);
    net.dtype = dtype;
    draw_options(&net);
    if (frnn_cell_get(cell)->gates == 0)
        net.input_size = hidden_size;
    else
        net.num_layers = 1 + below(2), net.num_directions = 1 + below(2);
    draw_structure(&net, 0);
    return net;
}

static void check_random(frnn_cell cell, frnn_dtype dtype) {
    static const size_t inputs[] = {1, 2, 3, 5, 16, 17, 33}, tails[] = {47, 48, 49, 65, 80, 129};
    static const size_t batches[] = {1, 2, 3, 5, 8}, lengths[] = {1, 2, 3, 9, 20, 70, 300};
    frnn_config net;
    do {
        const size_t hidden_size = below(4) > 0 ? 1 + below(35) : PICK(tails);
        net = draw_net(cell, dtype, PICK(inputs), hidden_size);
    } while (work(&net, 1, 1) > WORK);
    size_t steps, batch;
    do {
        steps = below(12) > 0 ? PICK(lengths) : 0;
        batch = below(12) > 0 ? PICK(batches) : below(2) * below(40);
    } while (work(&net, steps + (steps == 0), batch + (batch == 0)) > WORK);
    check_net(&net, steps, batch, 1);
}

/* More rows than one sum of sums takes, and more than a chain in one visit. */
static void check_long(frnn_cell cell, frnn_dtype dtype) {
    static const size_t shapes[][2] = {{4200, 1}, {2060, 2}, {100, 33}, {66, 64},
                                       {65, 70},  {33, 129}, {23, 200}, {3, 300}};
    for (size_t i = ((size_t)cell + dtype) % 4; i < sizeof shapes / sizeof *shapes; i += 4) {
        const size_t input_size = 1 + below(4), hidden_size = 1 + below(3);
        const frnn_config net = draw_net(cell, dtype, input_size, hidden_size);
        check_net(&net, shapes[i][0], shapes[i][1], 0);
    }
}

int main(void) {
    prepare();
    for (int n = 0; n < 2 * FRNN_CELL_COUNT; n++)
        check_long((frnn_cell)(n / 2), (frnn_dtype)(n % 2));
    for (int n = 0; n < 40 * FRNN_CELL_COUNT / NETS_PART; n++)
        check_random((frnn_cell)(n / 2 % FRNN_CELL_COUNT), (frnn_dtype)(n % 2));
    return report();
}
