/* SPDX-License-Identifier: MIT
 *
 * Gradients of the C library on every instruction set that this machine has: that they are those of
 * the loss, the same bits however they are asked for, and that no other memory is touched.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "train_check.h"

#define PICK(array) array[below(sizeof(array) / sizeof *(array))]

static size_t where_base; /* what is being tested begins so; how it is follows */

static void say(const char *how) {
    snprintf(where + where_base, sizeof where - where_base, ": %s", how);
}

/* ---- Comparisons ---------------------------------------------------------------------------- */

static double number(const problem *p, const span *s, size_t i) {
    double value;
    get(p->items, &value, s->at + i * p->items, 1);
    return value;
}

/* All arrays that both have are the same, in every bit. */
static void check_same(const result *a, const result *b) {
    for (size_t i = 0; i < ARRAYS; i++) {
        const span *const s = &a->array[i], *const t = &b->array[i];
        if (s->at != NULL && t->at != NULL)
            CHECK(s->size == t->size && memcmp(s->at, t->at, s->size) == 0);
    }
    if (a->clock.at != NULL)
        CHECK(memcmp(a->clock.at, b->clock.at, a->clock.size) == 0);
}

/* The numbers differ by no more than `tolerance`, and `sums` for parameters, relative to the
 * largest of an array; -0 is 0. */
static void check_close(const problem *p, const result *a, const problem *q, const result *b,
                        double tolerance, double sums) {
    for (size_t i = 0; i < ARRAYS; i++) {
        double largest = 1;
        size_t wrong = 0;
        const size_t count = a->array[i].at == NULL ? 0 : a->array[i].size / p->items;
        for (size_t j = 0; j < count; j++)
            largest = fmax(largest, fabs(number(p, &a->array[i], j)));
        for (size_t j = 0; j < count; j++)
            wrong += !(fabs(number(p, &a->array[i], j) - number(q, &b->array[i], j)) <=
                       (i < PARAMS ? tolerance : sums) * largest);
        CHECK(wrong == 0);
    }
}

/* The same numbers but for rounding, in sums over all rows that of many terms. */
static void check_near(const problem *p, const result *a, const problem *q, const result *b,
                       double tolerance) {
    const double rows = (double)(p->steps * p->batch);
    check_close(p, a, q, b, tolerance, tolerance * (1 + 0.1 * sqrt(rows)));
}

static void check_manner(const task *t, const result *all, manner how, const char *what) {
    say(what);
    const result other = train(t, how);
    check_same(all, &other);
}

/* ---- The same bits however they are asked for ----------------------------------------------- */

/* Without some of the results or arguments, the others are what they were. */
static void check_parts(const task *t, const result *all) {
    const problem *p = &t->p;
    check_manner(t, all, (manner){.without = NO_DX}, "without dx");
    check_manner(t, all, (manner){.without = NO_PARAMS, .strided = 1}, "without parameters");
    check_manner(t, all, (manner){.without = NO_PARAMS | NO_DX}, "of the state alone");
    for (unsigned kind = 0; kind < DELAYED - 1 + delay_count(&p->net); kind++)
        check_manner(t, all, (manner){.without = (unsigned)NO_KIND << kind}, "without one kind");
    const unsigned some = NO_KIND * (unsigned)below((size_t)1 << KINDS);
    check_manner(t, all, (manner){.without = some, .units = 1}, "some kinds in stretches");
    for (size_t i = 0; i < p->parts; i++) {
        const span *const at = &all->array[PARAMS + i * KINDS];
        if (at[BIAS_HH].at == NULL)
            continue;
        /* of the GRU that resets behind the product, the candidate has two of its own */
        const size_t same =
            p->net.cell == FRNN_CELL_GRU ? at[BIAS_IH].size / 3 * 2 : at[BIAS_IH].size;
        CHECK(memcmp(at[BIAS_IH].at, at[BIAS_HH].at, same) == 0);
    }
}

/* dy that is not read is zero. */
static void check_dy(const task *t) {
    const problem *p = &t->p;
    const size_t T = p->steps, width = p->batch * p->width, begin = below(T + 1);
    task zeros = *t;
    zeros.dy = memory(T * width * sizeof(double));
    for (size_t i = 0; i < T * width; i++)
        zeros.dy[i] = i < begin * width ? 0 : t->dy[i];
    say("dy with zeros");
    const result some = train(&zeros, (manner){0});
    check_manner(t, &some, (manner){.dy_begin = begin, .strided = 1}, "dy_begin");
    check_manner(t, &some, (manner){.dy_begin = begin, .units = 3}, "dy_begin in stretches");
    memset(zeros.dy, 0, T * width * sizeof(double));
    say("dy all zeros");
    const result none = train(&zeros, (manner){0});
    check_manner(t, &none, (manner){.without = NO_DY}, "dy NULL");
    check_manner(t, &none, (manner){.without = NO_DY, .units = 2}, "dy NULL in stretches");
    check_manner(t, &none, (manner){.dy_begin = T}, "dy_begin at the end");
}

/* Added to what is there; once more to what is there then. */
static void check_accumulate(const task *t, const result *all) {
    const problem *p = &t->p;
    const double rounding = p->items == 4 ? 1e-5 : 1e-14;
    result zeros = *all, start = *all, sum = *all;
    for (size_t i = PARAMS; i < ARRAYS; i++) {
        const size_t size = all->array[i].size, count = size / p->items;
        if (all->array[i].at == NULL)
            continue;
        zeros.array[i] = span_new(size), start.array[i] = span_new(size);
        sum.array[i] = span_new(size);
        memset(zeros.array[i].at, 0, size);
        const double *const from = random_values(p->items, count, -1, 1);
        put(p->items, start.array[i].at, from, count);
        for (size_t j = 0; j < count; j++) {
            const double both = number(p, &all->array[i], j) + from[j];
            put(p->items, sum.array[i].at + j * p->items, &both, 1);
        }
    }
    say("added to zeros");
    const result same = train(t, (manner){.start = &zeros});
    check_close(p, all, p, &same, 0, 0);
    say("added");
    const result more = train(t, (manner){.start = &start, .strided = 1});
    check_close(p, &sum, p, &more, 0, rounding);
    check_manner(t, &more, (manner){.start = &start, .units = 2}, "added in stretches");
}

/* One row of the batch. */
static task task_row(const task *t, size_t row) {
    const problem *p = &t->p;
    const size_t B = p->batch, I = p->net.input_size;
    task one = *t;
    one.p.batch = 1;
    one.p.x = memory(p->steps * I * sizeof(double));
    one.dy = memory(p->steps * p->width * sizeof(double));
    for (size_t i = 0; i < p->steps; i++) {
        memcpy(one.p.x + i * I, p->x + (i * B + row) * I, I * sizeof(double));
        memcpy(one.dy + i * p->width, t->dy + (i * B + row) * p->width, p->width * sizeof(double));
    }
    for (size_t k = 0; k < 2; k++) {
        const size_t n = state_width(&p->net, k), bytes = n * sizeof(double);
        const size_t slots = state_slots(&p->net, k);
        one.p.start.state[k] = memory(slots * bytes);
        one.dstate[k] = memory(slots * bytes);
        for (size_t i = 0; i < slots; i++) {
            memcpy(one.p.start.state[k] + i * n, p->start.state[k] + (i * B + row) * n, bytes);
            memcpy(one.dstate[k] + i * n, t->dstate[k] + (i * B + row) * n, bytes);
        }
    }
    if (p->start.clock != NULL)
        one.p.start.clock = &p->start.clock[row];
    return one;
}

/* What is not a gradient of parameters has the same bits for a row alone, and beside a row with a
 * NaN. */
static void check_rows(const task *t, const result *all) {
    const problem *p = &t->p;
    const size_t B = p->batch, ill = below(B);
    const size_t P = output_size(&p->net), H = p->net.hidden_size;
    const size_t widths[] = {p->width, P, H, p->net.input_size, P, H};
    double *const value = t->dy + ((p->steps - 1) * B + ill) * p->width, was = *value;
    say("beside a NaN");
    *value = NAN;
    const result beside = train(t, (manner){0});
    *value = was;
    for (size_t n = 0; n < 3; n++) {
        const size_t row = below(B);
        const task one = task_row(t, row);
        say("one row");
        const result alone = train(&one, (manner){.strided = 1});
        for (size_t i = 0; i < PARAMS; i++) {
            const size_t bytes = widths[i] * p->items, count = alone.array[i].size / bytes;
            size_t wrong = 0;
            for (size_t j = 0; j < count; j++) {
                const void *const at = alone.array[i].at + j * bytes;
                const size_t begin = (j * B + row) * bytes;
                wrong += memcmp(at, all->array[i].at + begin, bytes) != 0;
                wrong += row != ill && memcmp(at, beside.array[i].at + begin, bytes) != 0;
            }
            CHECK(wrong == 0);
        }
    }
}

/* ---- The right numbers ---------------------------------------------------------------------- */

/* The derivative of the loss with respect to *value, from losses at a small distance. */
static double slope(task *t, double *value, int weight, double distance) {
    const double was = *value;
    double ends[2], sum = 0;
    result r[2];
    for (size_t i = 0; i < 2; i++) {
        ends[i] = *value = was + (i == 0 ? -distance : distance);
        if (weight)
            task_pack_doubles(t);
        r[i] = plain(&t->p);
    }
    *value = was;
    if (weight)
        task_pack_doubles(t);
    const double *const factors[] = {t->dy, t->dstate[0], t->dstate[1]};
    for (size_t k = 0; k <= t->p.cell->states; k++)
        for (size_t i = 0; i < r[0].array[k].size / sizeof(double); i++)
            sum += factors[k][i] *
                   (number(&t->p, &r[1].array[k], i) - number(&t->p, &r[0].array[k], i));
    return sum / (ends[1] - ends[0]);
}

/* Element i of an array that the loss depends on; `gradient` is what the library found. A kink or
 * a jump may lie within a distance, not within all of them. */
static void check_slope(task *t, double *values, size_t i, const span *gradient, int weight,
                        const char *what) {
    const double found = number(&t->p, gradient, i);
    double error = INFINITY;
    for (double distance = 1e-5; distance > 5e-9 && !(error <= 1); distance /= 10)
        error =
            fabs(slope(t, values + i, weight, distance) - found) / (1e-6 * fmax(1, fabs(found)));
    say(what);
    CHECK(error <= 1);
}

static void check_slopes(task *t, const result *all, int rounds) {
    static const char *const names[] = {
        "slope of weight_ih", "slope of weight_hh", "slope of bias_ih",  "slope of bias_hh",
        "slope of alpha",     "slope of weight_hr", "slope of peephole", "slope of a later delay"};
    problem *p = &t->p;
    const size_t rows = p->steps * p->batch;
    for (int n = 0; n < rounds; n++) {
        if (rows > 0)
            check_slope(t, p->x, below(rows * p->net.input_size), &all->array[DX], 0, "slope of x");
        for (size_t k = 0; k < p->cell->states && p->batch > 0; k++)
            check_slope(t, p->start.state[k], below(state_count(p, p->batch, k)),
                        &all->array[DSTATE + k], 0, "slope of the state");
        const size_t part = below(p->parts);
        for (size_t kind = 0; kind < KINDS; kind++) {
            const size_t count = param_count(&p->net, part, kind);
            const size_t i = count > 0 ? below(count) : 0;
            double *const values = p->weights[part][kind];
            if (count == 0 || (kind == ALPHA && fabs(values[i] - 0.5) > 0.4999))
                continue; /* there is no alpha beyond 0 and 1 */
            if (connected(p, part, kind, i))
                check_slope(t, values, i, &all->array[PARAMS + part * KINDS + kind], 1,
                            names[kind < DELAYED ? kind : DELAYED]);
        }
    }
}

/* Connections that there are not have no gradient. */
static void check_holes(const problem *p, const result *all) {
    size_t wrong = 0;
    say("holes");
    for (size_t n = 0; n < p->parts * KINDS; n++)
        for (size_t i = 0; i < param_count(&p->net, n / KINDS, n % KINDS); i++)
            wrong += !connected(p, n / KINDS, n % KINDS, i) &&
                     number(p, &all->array[PARAMS + n], i) != 0;
    CHECK(wrong == 0);
}

/* Single precision finds what double precision finds for the same numbers. */
static void check_precision(const task *t, const result *all) {
    task twin = *t;
    size_t size = 0;
    twin.p.net.dtype = FRNN_F64;
    twin.p.items = sizeof(double);
    CHECK(frnn_packed_size(&twin.p.net, &size) == FRNN_OK);
    twin.p.packed = frame_new(size, FRNN_ALIGN);
    task_pack_doubles(&twin);
    task_pack(&twin);
    say("precision");
    const result exact = train(&twin, (manner){0});
    check_near(&twin.p, &exact, &t->p, all, 1e-5);
    task_free(&twin);
}

/* ---- Nets ----------------------------------------------------------------------------------- */

#define WORK        6e5
#define WORK_SCALAR 1e5

/* Every manner on one instruction set; `whole` is the result of one call. */
static void check_manners(const task *t, const result *whole) {
    const problem *p = &t->p;
    const result forward_only = plain(p);
    say("saving");
    check_same(&forward_only, whole);
    check_manner(t, whole, (manner){.strided = 1}, "strided");
    check_manner(t, whole, (manner){.twice = 1}, "twice");
    check_manner(t, whole, (manner){.units = 1}, "stretches");
    check_manner(t, whole, (manner){.units = 40, .strided = 1}, "long stretches");
    say("short stretches");
    const result cut_often = train(t, (manner){.units = 2, .visits = 1, .strided = 1});
    check_near(p, whole, p, &cut_often, p->items == 4 ? 1e-5 : 1e-12);
    result bits = cut_often; /* but for sums over steps */
    memset(bits.array + PARAMS, 0, (ARRAYS - PARAMS) * sizeof(span));
    check_same(whole, &bits);
    if (p->net.cell == FRNN_CELL_LEAKY) {
        say("time axis");
        const result near = train(t, (manner){.time_axis = 1, .strided = 1});
        check_near(p, whole, p, &near, p->items == 4 ? 1e-5 : 1e-12);
    }
}

static void check_net(const frnn_config *net, size_t steps, size_t batch, double scalar, int all) {
    /* without a bias, zeros stay zeros, where some functions have no slope */
    const int smooth =
        net->activation.kind == FRNN_TANH && net->gate_activation.kind == FRNN_SIGMOID;
    task t = task_new(net, steps, batch, below(4) > 0 || !smooth);
    result best = {0};
    const char *isa;
    for (size_t i = 0; (isa = frnn_isa_available(i)) != NULL; i++) {
        where_base = (size_t)say_net(net, steps, batch, isa);
        if (i > 0 && strcmp(isa, "scalar") == 0 && work(net, steps, batch) > scalar)
            continue;
        CHECK(frnn_isa_set(isa) == FRNN_OK && strcmp(frnn_isa(), isa) == 0);
        say("whole");
        const result whole = train(&t, (manner){0});
        best = i == 0 ? whole : best;
        check_same(&best, &whole);
        check_manners(&t, &whole);
        check_holes(&t.p, &whole);
        if (all && below(2) > 0) {
            check_parts(&t, &whole);
            check_dy(&t);
            check_accumulate(&t, &whole);
            if (steps > 0 && batch > 0)
                check_rows(&t, &whole);
        }
    }
    CHECK(frnn_isa_set(frnn_isa_available(0)) == FRNN_OK);
    if (net->dtype == FRNN_F64)
        check_slopes(&t, &best, all ? 2 : 1);
    else
        check_precision(&t, &best);
    task_free(&t);
    memory_free();
}

static frnn_config draw_net(frnn_cell cell, frnn_dtype dtype, size_t input_size, size_t hidden_size,
                            size_t most_layers) {
    const frnn_cell_info *info = frnn_cell_get(cell);
    frnn_config net = FRNN_CONFIG(cell, input_size, hidden_size);
    net.dtype = dtype;
    draw_options(&net);
    if (info->gates == 0) {
        net.input_size = hidden_size;
    } else {
        net.num_layers = 1 + below(most_layers);
        net.num_directions = 1 + below(2);
    }
    draw_structure(&net, 0);
    return net;
}

static void check_random(frnn_cell cell, frnn_dtype dtype) {
    static const size_t tails[] = {47, 48, 49, 63, 65, 80, 97, 128, 129, 200, 257, 300};
    static const size_t inputs[] = {1, 2, 3, 5, 15, 16, 17, 33, 70}, batches[] = {1, 2, 3, 7, 33};
    static const size_t lengths[] = {1, 2, 3, 9, 70, 128, 129, 300};
    frnn_config net;
    size_t steps, batch;
    do {
        const size_t hidden_size = below(4) > 0 ? 1 + below(40) : PICK(tails);
        const size_t input_size = below(6) > 0 ? PICK(inputs) : PICK(tails);
        net = draw_net(cell, dtype, input_size, hidden_size, 2);
    } while (work(&net, 1, 1) > WORK);
    do {
        steps = below(12) > 0 ? PICK(lengths) : 0;
        batch = below(12) > 0 ? below(2) > 0 ? PICK(batches) : 1 + below(200) : 0;
    } while (work(&net, steps + (steps == 0), batch + (batch == 0)) > WORK);
    check_net(&net, steps, batch, WORK_SCALAR, 1);
}

/* More rows than one sum of sums takes, which are cut at other steps for each batch. */
static void check_long(frnn_cell cell, frnn_dtype dtype) {
    static const size_t shapes[][2] = {{4200, 1}, {2060, 2}, {100, 33}, {66, 64},
                                       {65, 128}, {33, 129}, {23, 200}, {3, 2050}};
    for (size_t i = ((size_t)cell + dtype) % 3; i < sizeof shapes / sizeof *shapes; i += 3) {
        const size_t input_size = 1 + below(4), hidden_size = 1 + below(3);
        const frnn_config net = draw_net(cell, dtype, input_size, hidden_size, 2);
        check_net(&net, shapes[i][0], shapes[i][1], 2 * WORK_SCALAR, 0);
    }
}

static void check_functions(frnn_cell cell, frnn_dtype dtype) {
    for (size_t first = 0; first < FRNN_ACTIVATION_COUNT; first++) {
        frnn_config net = net_of_functions(cell, dtype, first);
        draw_structure(&net, 0);
        check_net(&net, 1 + below(7), 1 + below(3), WORK_SCALAR, 0);
    }
}

/* Matrices that a product of several rows takes in pieces along both sides. */
static void check_wide(frnn_cell cell, frnn_dtype dtype) {
    const size_t input_size = 49 + below(60), hidden_size = 129 + below(140);
    const frnn_config net = draw_net(cell, dtype, input_size, hidden_size, 1);
    check_net(&net, 1 + below(2), 3, 5 * WORK_SCALAR, 0);
}

/* ---- Single facts --------------------------------------------------------------------------- */

/* One unit that gets no input, with these recurrent weights and retention. */
static task unit_new(frnn_cell cell, frnn_dtype dtype, frnn_activation activation, double recurrent,
                     double alpha) {
    const double all[KINDS] = {[WEIGHT_HH] = recurrent, [ALPHA] = alpha};
    frnn_config net = FRNN_CONFIG(cell, 1, 1);
    net.dtype = dtype;
    net.activation.kind = activation;
    task t = task_new(&net, 2, 1, 0);
    problem *p = &t.p;
    void *at[KINDS] = {NULL};
    for (size_t kind = 0; kind < KINDS; kind++) {
        const size_t count = kind == BIAS_IH || kind == BIAS_HH ? 0 : param_count(&net, 0, kind);
        if (count == 0)
            continue;
        at[kind] = memory(count * p->items);
        put(p->items, at[kind], random_values(p->items, count, all[kind], all[kind]), count);
    }
    p->given[0] = weights_of(at, NULL);
    frame_protect(&p->packed, PROT_READ | PROT_WRITE);
    CHECK(frnn_pack(&net, p->given, p->packed.at, p->packed.size) == FRNN_OK);
    frame_free(&t.packed_back);
    task_pack(&t);
    for (size_t i = 0; i < 2; i++)
        p->x[i] = t.dy[i] = p->start.state[i][0] = t.dstate[i][0] = 0;
    return t;
}

/* What halves with every step becomes 0 below 2^-100 (2^-900), and not before. */
static void check_flush(frnn_cell cell, frnn_dtype dtype) {
    const double least = ldexp(1, dtype == FRNN_F32 ? -100 : -900);
    const task t = unit_new(cell, dtype, FRNN_TANH, cell == FRNN_CELL_RNN ? 0.5 : 0, 0.5);
    const size_t k = t.p.cell->states - 1; /* c of an LSTM */
    where_base = (size_t)snprintf(where, sizeof where, "%s flush %s f%zu", frnn_isa(),
                                  t.p.cell->name, 8 * t.p.items);
    t.dstate[k][0] = 4 * least;
    result r = train(&t, (manner){0});
    CHECK(number(&t.p, &r.array[DSTATE + k], 0) == least);
    t.dstate[k][0] = least;
    r = train(&t, (manner){0});
    CHECK(number(&t.p, &r.array[DSTATE + k], 0) == 0);
    task_free(&t);
    memory_free();
}

/* A relu of exactly 0 passes nothing on. */
static void check_relu(frnn_cell cell, frnn_dtype dtype) {
    const task t = unit_new(cell, dtype, FRNN_RELU, 1, 0);
    where_base = (size_t)snprintf(where, sizeof where, "%s relu %s f%zu", frnn_isa(),
                                  t.p.cell->name, 8 * t.p.items);
    t.dy[0] = t.dy[1] = 1;
    t.p.x[0] = t.p.x[1] = 1;
    const result r = train(&t, (manner){0});
    for (size_t i = DX; i < PARAMS + KINDS; i++)
        if (r.array[i].at != NULL)
            CHECK(number(&t.p, &r.array[i], 0) == 0);
    task_free(&t);
    memory_free();
}

int main(void) {
    prepare();
    for (size_t i = 0; frnn_isa_available(i) != NULL; i++) {
        CHECK(frnn_isa_set(frnn_isa_available(i)) == FRNN_OK);
        for (int n = 0; n < 2 * FRNN_CELL_COUNT; n++) {
            const frnn_cell cell = (frnn_cell)(n / 2);
            check_flush(cell, (frnn_dtype)(n % 2));
            if (frnn_cell_get(cell)->gates == 1)
                check_relu(cell, (frnn_dtype)(n % 2));
        }
    }
    for (int n = 0; n < 2 * FRNN_CELL_COUNT; n++) {
        check_long((frnn_cell)(n / 2), (frnn_dtype)(n % 2));
        check_wide((frnn_cell)(n / 2), (frnn_dtype)(n % 2));
        if (frnn_cell_get((frnn_cell)(n / 2))->gates > 0)
            check_functions((frnn_cell)(n / 2), (frnn_dtype)(n % 2));
    }
    for (int n = 0; n < 32 * FRNN_CELL_COUNT / NETS_PART; n++)
        check_random((frnn_cell)(n / 2 % FRNN_CELL_COUNT), (frnn_dtype)(n % 2));
    return report();
}
