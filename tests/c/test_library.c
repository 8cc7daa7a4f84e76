/* SPDX-License-Identifier: MIT
 *
 * Results of the C library on every instruction set that this machine has: that they are right,
 * the same bits however they are asked for, and that no other memory is touched.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "grid.h"

/* ---- Running -------------------------------------------------------------------------------- */

typedef struct manner {
    size_t piece;  /* steps in a call at most; 0: all of them */
    int strided;   /* x and y with random strides */
    int move;      /* the state goes to new memory after each call */
    int time_axis; /* frnn_run.parallel_time */
    int fresh;     /* from a state that was only reset, for starts of zeros */
} manner;

/* The rows [first, first + batch) of a problem. */
static values run_rows(const problem *p, size_t first, size_t batch, manner how) {
    const size_t T = p->steps, I = p->net.input_size, n = p->items;
    const grid x = grid_new(T, batch, I, n, how.strided);
    const grid y = grid_new(T, batch, p->width, n, how.strided);
    values v = {.y = memory(T * batch * p->width * sizeof(double))};
    void *typed[2];
    for (size_t i = 0; i < 2; i++) {
        const size_t count = state_count(p, batch, i), row = state_width(&p->net, i);
        typed[i] = memory(count * n);
        v.state[i] = memory(count * sizeof(double));
        for (size_t j = 0; j < count; j++) {
            const size_t slot = j / (batch * row), at = j % (batch * row);
            v.state[i][j] = p->start.state[i][(slot * p->batch + first) * row + at];
        }
    }
    if (p->start.clock != NULL) {
        v.clock = memory(batch * sizeof *v.clock);
        memcpy(v.clock, p->start.clock + first, batch * sizeof *v.clock);
    }
    frame state = state_new(p, batch, &v);
    if (how.fresh)
        CHECK(frnn_state_reset(&p->net, batch, state.at, state.size) == FRNN_OK);
    for (size_t i = 0; i < T * batch; i++)
        put(n, grid_at(&x, i / batch, i % batch),
            p->x + (i / batch * p->batch + first + i % batch) * I, I);
    frame_protect(&x.f, PROT_READ);
    size_t done = 0, size = 0;
    do {
        const size_t wanted = how.piece == 0 ? T : 1 + below(how.piece);
        const size_t steps = wanted < T - done ? wanted : T - done;
        CHECK(frnn_scratch_size(&p->net, steps, batch, &size) == FRNN_OK);
        const frame scratch = frame_new(size, FRNN_ALIGN);
        frnn_run run = FRNN_RUN(&p->net, steps, batch, grid_at(&x, done, 0), grid_at(&y, done, 0),
                                state.at, state.size, scratch.at, size);
        CHECK(how.strided || (run.x_step == x.step && run.x_row == x.row && run.y_step == y.step &&
                              run.y_row == y.row));
        run.x_step = x.step, run.x_row = x.row, run.y_step = y.step, run.y_row = y.row;
        run.parallel_time = how.time_axis;
        CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_OK);
        frame_free(&scratch);
        for (size_t i = 0; i < p->cell->states; i++) {
            CHECK(frnn_state_get(&p->net, batch, state.at, state.size, i, typed[i]) == FRNN_OK);
            get(n, v.state[i], typed[i], state_count(p, batch, i));
        }
        if (v.clock != NULL)
            CHECK(frnn_state_get_clock(&p->net, batch, state.at, state.size, v.clock) == FRNN_OK);
        if (how.move) {
            frame_free(&state);
            state = state_new(p, batch, &v);
        }
        done += steps;
    } while (done < T);
    for (size_t i = 0; i < T * batch; i++) {
        unsigned char *from = grid_at(&y, i / batch, i % batch);
        get(n, v.y + i * p->width, from, p->width);
        memset(from, FILL, p->width * n);
    }
    CHECK(filled(y.f.at, y.f.size)); /* what lies between the rows */
    frame_free(&x.f);
    frame_free(&y.f);
    frame_free(&state);
    return v;
}

/* ---- The equations of the header in plain double precision ---------------------------------- */

static double apply(const frnn_function *f, double v) {
    const double a = f->alpha, b = f->beta;
    switch (f->kind) {
    case FRNN_TANH:
        return tanh(v);
    case FRNN_RELU:
        return fmax(v, 0);
    case FRNN_SIGMOID:
        return 1 / (1 + exp(-v));
    case FRNN_HARD_SIGMOID:
        return fmin(fmax(a * v + b, 0), 1);
    case FRNN_AFFINE:
        return a * v + b;
    case FRNN_LEAKY_RELU:
        return v < 0 ? a * v : v;
    case FRNN_THRESHOLDED_RELU:
        return v > a ? v : 0;
    case FRNN_SCALED_TANH:
        return a * tanh(b * v);
    case FRNN_ELU:
        return v < 0 ? a * (exp(v) - 1) : v;
    case FRNN_SOFTSIGN:
        return v / (1 + fabs(v));
    case FRNN_SOFTPLUS:
        return log(1 + exp(v));
    default:
        return v;
    }
}

static double limited(double v, double limit) {
    return limit > 0 ? fmin(fmax(v, -limit), limit) : v;
}

/* s() and f() of a pre-activation. */
static double gate(const problem *p, double v) {
    return apply(&p->net.gate_activation, limited(v, p->net.clip));
}

static double activated(const problem *p, double v) {
    return apply(&p->net.activation, limited(v, p->net.clip));
}

enum { UNITS = 512, GATES = 4 };

/* to[r] = W[r] v + b[r], without b if that is NULL, for some rows. */
static void product(const double *w, const double *bias, const double *v, size_t size, size_t begin,
                    size_t end, double *to) {
    for (size_t r = begin; r < end; r++) {
        to[r] = bias != NULL ? bias[r] : 0;
        for (size_t k = 0; k < size; k++)
            to[r] += w[r * size + k] * v[k];
    }
}

/* The recurrent part of some rows, of all delays. */
static void recurrent_product(const problem *p, size_t part, double past[][UNITS], size_t begin,
                              size_t end, double *to) {
    double *const *w = p->weights[part], more[GATES * UNITS];
    const size_t P = output_size(&p->net);
    product(w[WEIGHT_HH], w[BIAS_HH], past[0], P, begin, end, to);
    for (size_t i = 1; i < delay_count(&p->net); i++) {
        product(w[DELAYED + i - 1], NULL, past[i], P, begin, end, more);
        for (size_t r = begin; r < end; r++)
            to[r] += more[r];
    }
}

/* c and o * e(c) of an LSTM from its pre-activations, in which i, f and o still lack the peephole.
 */
static void reference_lstm(const problem *p, const double *peephole, const double *s, double *c,
                           double *out) {
    const size_t H = p->net.hidden_size, G = p->cell->gates;
    const int coupled = p->net.cell == FRNN_CELL_LSTM_COUPLED;
    for (size_t j = 0; j < H; j++) {
        const double *const pee = p->net.peephole ? peephole + j : NULL;
        const double before = c[j], g = activated(p, s[(G - 2) * H + j]);
        const double i = gate(p, s[j] + (pee != NULL ? pee[0] * before : 0));
        const double f = coupled ? 1 - i : gate(p, s[H + j] + (pee != NULL ? pee[H] * before : 0));
        c[j] = limited(f * before + i * g, p->net.cell_clip);
        const double o = gate(p, s[(G - 1) * H + j] + (pee != NULL ? pee[(G - 2) * H] * c[j] : 0));
        out[j] = o * apply(&p->net.output_activation, c[j]);
    }
}

/* A step of one part on one row: h (or u) is [output_size()], c [H], and each of `past`, the
 * outputs of all delays, too. */
static void reference_step(const problem *p, size_t part, const double *x, double past[][UNITS],
                           double *h, double *c) {
    const frnn_config *const net = &p->net;
    const size_t H = net->hidden_size, rows = p->cell->gates * H;
    const size_t recurrent = param_count(net, part, BIAS_HH), I = part_input(net, part);
    const frnn_cell cell = net->cell;
    double *const *w = p->weights[part], s[GATES * UNITS], u[GATES * UNITS], out[UNITS];
    product(w[WEIGHT_IH], w[BIAS_IH], x, I, 0, rows, s);
    recurrent_product(p, part, past, 0, recurrent, u);
    if (cell == FRNN_CELL_GRU_RESET_BEFORE) {
        for (size_t i = 0; i < delay_count(net); i++)
            for (size_t j = 0; j < H; j++)
                past[i][j] *= gate(p, s[j] + u[j]);
        recurrent_product(p, part, past, 2 * H, rows, u);
    }
    for (size_t j = 0; cell == FRNN_CELL_GRU && j < H; j++)
        u[2 * H + j] *= gate(p, s[j] + u[j]);
    for (size_t r = 0; r < recurrent; r++)
        s[r] += u[r];
    if (is_lstm(net)) {
        reference_lstm(p, w[PEEPHOLE], s, c, out);
        product(w[WEIGHT_HR], NULL, out, H, 0, net->proj_size, h);
        for (size_t j = 0; j < H && net->proj_size == 0; j++)
            h[j] = out[j];
        return;
    }
    for (size_t j = 0; j < H; j++) {
        const double a = p->cell->alpha ? w[ALPHA][j] : 0;
        if (is_gru(net)) {
            const double z = gate(p, s[H + j]);
            h[j] = (1 - z) * activated(p, s[2 * H + j]) + z * h[j];
        } else if (cell == FRNN_CELL_MINGRU) {
            const double z = gate(p, s[j]);
            h[j] = (1 - z) * h[j] + z * activated(p, s[H + j]);
        } else if (cell == FRNN_CELL_RNN)
            h[j] = activated(p, s[j]);
        else if (cell == FRNN_CELL_LEAKY_RATE)
            h[j] = a * h[j] + (1 - a) * activated(p, s[j]);
        else
            h[j] = a * h[j] + (1 - a) * (cell == FRNN_CELL_LEAKY ? x[j] : s[j]);
    }
}

/* The output that belongs to a state. */
static double output_of(const problem *p, double h) {
    return p->cell->memory && p->cell->states == 1 ? apply(&p->net.activation, h) : h;
}

/* All steps of one part on one row: h and c are of `before` steps of the past, and then of those.
 */
static void reference_row(const problem *p, size_t part, size_t row, const double *x,
                          const size_t before[2], double *h, double *c, double *y) {
    const frnn_config *const net = &p->net;
    const size_t H = net->hidden_size, P = output_size(net), D = net->num_directions;
    const size_t layer = part / D, I = part_input(net, part), T = p->steps;
    const unsigned long long clock = net->num_groups > 0 ? p->start.clock[row] : 0;
    for (size_t t = 0; t < T; t++) {
        const size_t at = (part % D == 1 ? T - 1 - t : t) * p->batch + row;
        double *const h_new = h + (before[0] + t) * P, *const c_new = c + (before[1] + t) * H;
        double past[FRNN_MAX_DELAYS][UNITS];
        for (size_t i = delay_count(net); i-- > 0;) {
            const size_t d = delay_of(net, layer, i);
            const double f = fraction_of(net, layer, i);
            for (size_t j = 0; j < P; j++) {
                const double *const from = h_new + j - d * P;
                past[i][j] = f > 0 ? (1 - f) * output_of(p, from[0]) +
                                         f * output_of(p, *(from - (ptrdiff_t)P))
                                   : output_of(p, from[0]);
                h_new[j] = f > 0 ? (1 - f) * from[0] + f * *(from - (ptrdiff_t)P) : from[0];
            }
            for (size_t j = 0; j < H && p->cell->states == 2; j++) {
                const double *const from = c_new + j - d * H;
                if (i == 0)
                    c_new[j] = f > 0 ? (1 - f) * from[0] + f * *(from - (ptrdiff_t)H) : from[0];
            }
        }
        double *const h_was = h_new - P, *const c_was = c_new - H;
        reference_step(p, part, x + at * I, past, h_new, c_new);
        for (size_t j = 0; j < H && net->num_groups > 0; j++)
            if ((clock + t) % period_of(net, j) != 0) { /* a unit that rests */
                h_new[j] = h_was[j];
                c_new[j] = c_was[j];
            }
        for (size_t j = 0; j < P; j++)
            y[at * p->width + part % D * P + j] = output_of(p, h_new[j]);
    }
}

/* The steps of a part in a state array of one row, to or from an array of their own. */
static void reference_history(const problem *p, const values *v, size_t part, size_t row,
                              size_t index, double *own, int store) {
    const size_t w = state_width(&p->net, index);
    size_t first = 0;
    for (size_t i = 0; i < part; i++)
        first += part_slots(&p->net, i, index);
    for (size_t i = 0; i < part_slots(&p->net, part, index); i++) {
        double *const at = v->state[index] + ((first + i) * p->batch + row) * w;
        memcpy(store ? at : own + i * w, store ? own + i * w : at, w * sizeof(double));
    }
}

static values reference_new(const problem *p) {
    const size_t H = p->net.hidden_size, P = output_size(&p->net), D = p->net.num_directions;
    const size_t B = p->batch, T = p->steps;
    values v = p->start;
    const double *x = p->x;
    for (size_t part = 0; part < p->parts; part++) {
        const size_t before[2] = {part_slots(&p->net, part, 0), part_slots(&p->net, part, 1)};
        double *const h = memory((before[0] + T) * P * sizeof *h);
        double *const c = memory((before[1] + T) * H * sizeof *c);
        x = part >= D && part % D == 0 ? v.y : x;
        v.y = part % D == 0 ? memory(T * B * p->width * sizeof(double)) : v.y;
        for (size_t row = 0; row < B; row++) {
            reference_history(p, &v, part, row, 0, h, 0);
            reference_history(p, &v, part, row, 1, c, 0);
            reference_row(p, part, row, x, before, h, c, v.y);
            reference_history(p, &v, part, row, 0, h + T * P, 1);
            reference_history(p, &v, part, row, 1, c + T * H, 1);
        }
    }
    if (v.clock != NULL) {
        v.clock = memory(B * sizeof *v.clock);
        for (size_t row = 0; row < B; row++)
            v.clock[row] = p->start.clock[row] + T;
    }
    return v;
}

/* ---- Every way to the same result ----------------------------------------------------------- */

/* `some` are the rows of `all` from `first` on; tolerance 0 asks for the same bits. */
static void check_same(const problem *p, const values *all, const values *some, size_t first,
                       size_t rows, double tolerance) {
    size_t wrong = 0;
    for (size_t k = 0; k <= p->cell->states; k++) {
        const size_t outer = k == 0 ? p->steps : state_slots(&p->net, k - 1);
        const size_t width = k == 0 ? p->width : state_width(&p->net, k - 1), count = rows * width;
        for (size_t i = 0; i < outer * count; i++) {
            const size_t at = (i / count * p->batch + first) * width + i % count;
            const double a = k == 0 ? all->y[at] : all->state[k - 1][at];
            const double b = k == 0 ? some->y[i] : some->state[k - 1][i];
            wrong += tolerance > 0 ? !(fabs(a - b) <= tolerance * fmax(1, fabs(a)))
                                   : memcmp(&a, &b, sizeof a) != 0;
        }
    }
    for (size_t i = 0; i < rows && all->clock != NULL; i++)
        wrong += all->clock[first + i] != some->clock[i];
    CHECK(wrong == 0);
}

static void check_manner(const problem *p, const values *all, manner how, double tolerance) {
    const values other = run_rows(p, 0, p->batch, how);
    check_same(p, all, &other, 0, p->batch, tolerance);
}

/* Each row alone, also beside a row that starts with a NaN. */
static void check_rows(const problem *p, const values *all) {
    const size_t ill = below(p->batch);
    double *const cell = &p->start.state[0][ill * output_size(&p->net)], saved = *cell;
    *cell = NAN;
    const values beside = run_rows(p, 0, p->batch, (manner){0});
    *cell = saved;
    for (size_t b = 0; b < p->batch; b++) {
        const values alone = run_rows(p, b, 1, (manner){.strided = b % 2 == 1});
        check_same(p, all, &alone, b, 1, 0);
        if (b != ill)
            check_same(p, &beside, &alone, b, 1, 0);
    }
}

#define WORK        4e6
#define WORK_SCALAR 1e5
#define PICK(array) array[below(sizeof(array) / sizeof *(array))]

/* A state is zeros after a reset, and what follows from them. */
static void check_fresh(const problem *p) {
    problem zeros = *p;
    for (size_t i = 0; i < 2; i++)
        zeros.start.state[i] = random_values(p->items, state_count(p, p->batch, i), 0, 0);
    if (p->start.clock != NULL) {
        zeros.start.clock = memory(p->batch * sizeof *p->start.clock);
        memset(zeros.start.clock, 0, p->batch * sizeof *p->start.clock);
    }
    const values all = run_rows(&zeros, 0, p->batch, (manner){0});
    check_manner(&zeros, &all, (manner){.fresh = 1}, 0);
}

static void check_net(const frnn_config *net, size_t steps, size_t batch) {
    const problem p = problem_new(net, steps, batch, below(4) > 0);
    const double tolerance = net->dtype == FRNN_F32 ? 1e-5 : 1e-12;
    values best = {0}, reference = {0};
    const char *isa;
    for (size_t i = 0; (isa = frnn_isa_available(i)) != NULL; i++) {
        say_net(net, steps, batch, isa);
        if (i > 0 && strcmp(isa, "scalar") == 0 && work(net, steps, batch) > WORK_SCALAR)
            continue;
        CHECK(frnn_isa_set(isa) == FRNN_OK && strcmp(frnn_isa(), isa) == 0);
        const values all = run_rows(&p, 0, batch, (manner){0});
        best = i == 0 ? all : best;
        check_same(&p, &best, &all, 0, batch, 0);
        check_manner(&p, &all, (manner){.strided = 1, .move = 1}, 0);
        check_fresh(&p);
        if (net->num_directions == 1) {
            check_manner(&p, &all, (manner){.piece = 1}, 0);
            check_manner(&p, &all, (manner){.piece = 20, .strided = 1, .move = 1}, 0);
        }
        if (batch > 0)
            check_rows(&p, &all);
        if (net->cell == FRNN_CELL_LEAKY)
            check_manner(&p, &all, (manner){.strided = 1, .time_axis = 1}, tolerance);
    }
    reference = reference_new(&p); /* last: it turns p.start into the end */
    check_same(&p, &reference, &best, 0, batch, tolerance);
    frame_free(&p.packed);
    memory_free();
}

static void check_random(frnn_cell cell, frnn_dtype dtype) {
    static const size_t tails[] = {47, 48, 49, 63, 65, 80, 97, 128, 129, 200, 257, 400};
    static const size_t inputs[] = {1, 3, 4, 5, 17}, lengths[] = {1, 2, 9, 70};
    static const size_t batches[] = {1, 2, 5, 7, 33};
    const frnn_cell_info *info = frnn_cell_get(cell);
    frnn_config net = FRNN_CONFIG(cell, PICK(inputs), below(4) > 0 ? 1 + below(40) : PICK(tails));
    net.dtype = dtype;
    net.input_size = info->gates > 0 ? net.input_size : net.hidden_size;
    net.num_layers = info->gates > 0 ? 1 + below(2) : 1;
    net.num_directions = info->gates > 0 ? 1 + below(2) : 1;
    draw_options(&net);
    draw_structure(&net, 1);
    size_t steps, batch;
    do {
        steps = below(10) > 0 ? PICK(lengths) : 0;
        if (is_wild(&net) && steps > 9)
            steps = 9;
        batch = below(10) > 0 ? PICK(batches) : 0;
    } while (work(&net, steps, batch) > WORK);
    check_net(&net, steps, batch);
}

static void check_functions(frnn_cell cell, frnn_dtype dtype) {
    for (size_t first = 0; first < FRNN_ACTIVATION_COUNT; first++) {
        frnn_config net = net_of_functions(cell, dtype, first);
        draw_structure(&net, 1);
        check_net(&net, 1 + below(20), 1 + below(3));
    }
}

/* More steps or more rows never need less scratch. */
static void check_scratch(void) {
    const frnn_cell cell = (frnn_cell)below(FRNN_CELL_COUNT);
    frnn_config net = FRNN_CONFIG(cell, 1, 1 + below(300));
    const int gated = frnn_cell_get(net.cell)->gates > 0;
    net.input_size = gated ? 1 + below(9) : net.hidden_size;
    net.dtype = (frnn_dtype)below(2);
    net.num_layers = gated ? 1 + below(3) : 1;
    net.num_directions = gated ? 1 + below(2) : 1;
    draw_options(&net);
    draw_structure(&net, 1);
    const size_t steps = below((size_t)1 << below(20)), batch = below((size_t)1 << below(12));
    size_t less = 0, more = 0;
    say_net(&net, steps, batch, "scratch");
    CHECK(frnn_scratch_size(&net, steps, batch, &less) == FRNN_OK);
    CHECK(frnn_scratch_size(&net, steps + below(99), batch + below(9), &more) == FRNN_OK);
    CHECK(less <= more);
}

/* A state below 2^-100 (2^-900) becomes 0, and not before. */
static void check_flush(frnn_dtype dtype) {
    frnn_config net = FRNN_CONFIG(FRNN_CELL_LEAKY, 1, 1);
    net.dtype = dtype;
    const size_t n = dtype == FRNN_F32 ? 4 : 8;
    const double least = ldexp(1, dtype == FRNN_F32 ? -100 : -900), half = 0.5;
    const problem p = problem_new(&net, 2, 1, 0);
    const frame packed = frame_new(p.packed.size, FRNN_ALIGN);
    void *const alpha = memory(n);
    put(n, alpha, &half, 1);
    CHECK(frnn_pack(&net, &(frnn_weights){.alpha = alpha}, packed.at, packed.size) == FRNN_OK);
    frame_free(&p.packed);
    problem q = p;
    q.packed = packed;
    q.x[0] = q.x[1] = 0;
    q.start.state[0][0] = 2 * least;
    const values v = run_rows(&q, 0, 1, (manner){0});
    CHECK(v.y[0] == least && v.y[1] == 0 && v.state[0][0] == 0);
    frame_free(&packed);
    memory_free();
}

int main(void) {
    prepare();
    for (int i = 0; i < 2000; i++)
        check_scratch();
    for (size_t i = 0; frnn_isa_available(i) != NULL; i++) {
        CHECK(frnn_isa_set(frnn_isa_available(i)) == FRNN_OK);
        check_flush(FRNN_F32);
        check_flush(FRNN_F64);
    }
    for (int n = 0; n < 2 * FRNN_CELL_COUNT; n++) {
        if (frnn_cell_get((frnn_cell)(n / 2))->gates > 0)
            check_functions((frnn_cell)(n / 2), (frnn_dtype)(n % 2));
    }
    for (int i = 0; i < 100 * FRNN_CELL_COUNT / NETS_PART; i++)
        check_random((frnn_cell)(i / 2 % FRNN_CELL_COUNT), (frnn_dtype)(i % 2));
    return report();
}
