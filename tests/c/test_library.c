/* SPDX-License-Identifier: MIT
 *
 * Results of the C library on every instruction set that this machine has: that they are right,
 * the same bits however they are asked for, and that no other memory is touched.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "library_check.h"

/* ---- Running -------------------------------------------------------------------------------- */

/* An array [steps, batch, width] somewhere in a frame; strides in elements. */
typedef struct grid {
    frame f;
    ptrdiff_t first, step, row, items;
} grid;

static grid grid_new(size_t steps, size_t batch, size_t width, size_t items, int strided) {
    const size_t gap = strided ? below(2) * below(6) : 0, more = strided ? below(2) * below(6) : 0;
    const int batch_major = strided && below(2), back = strided && below(2),
              up = strided && below(2);
    const size_t outer = (batch_major ? steps : batch) * (width + gap) + more;
    const size_t step = batch_major ? width + gap : outer, row = batch_major ? outer : width + gap;
    const size_t last_step = (steps - 1) * step, last_row = (batch - 1) * row;
    grid g = {.items = (ptrdiff_t)items, .step = (ptrdiff_t)step, .row = (ptrdiff_t)row};
    if (steps > 0 && batch > 0)
        g.first = (ptrdiff_t)((back ? last_step : 0) + (up ? last_row : 0));
    g.step = back ? -g.step : g.step;
    g.row = up ? -g.row : g.row;
    g.f = frame_new(steps * batch == 0 ? 0 : (last_step + last_row + width) * items, items);
    return g;
}

static unsigned char *grid_at(const grid *g, size_t step, size_t row) {
    const ptrdiff_t at = g->first + (ptrdiff_t)step * g->step + (ptrdiff_t)row * g->row;
    return g->f.at + (g->f.size > 0 ? at * g->items : 0);
}

typedef struct manner {
    size_t piece;  /* steps in a call at most; 0: all of them */
    int strided;   /* x and y with random strides */
    int move;      /* the state goes to new memory after each call */
    int time_axis; /* frnn_run.parallel_time */
} manner;

/* The rows [first, first + batch) of a problem. */
static values run_rows(const problem *p, size_t first, size_t batch, manner how) {
    const size_t T = p->steps, I = p->net.input_size, H = p->net.hidden_size, n = p->items;
    const grid x = grid_new(T, batch, I, n, how.strided);
    const grid y = grid_new(T, batch, p->width, n, how.strided);
    values v = {.y = memory(T * batch * p->width * sizeof(double))};
    void *typed = memory(p->parts * batch * H * n);
    for (size_t i = 0; i < 2; i++) {
        v.state[i] = memory(p->parts * batch * H * sizeof(double));
        for (size_t j = 0; j < p->parts * batch * H; j++) {
            const size_t part = j / (batch * H), at = j % (batch * H);
            v.state[i][j] = p->start.state[i][(part * p->batch + first) * H + at];
        }
    }
    frame state = state_new(p, batch, &v);
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
        run.x_step = x.step, run.x_row = x.row, run.y_step = y.step, run.y_row = y.row;
        run.parallel_time = how.time_axis;
        CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_OK);
        frame_free(&scratch);
        for (size_t i = 0; i < p->cell->states; i++) {
            CHECK(frnn_state_get(&p->net, batch, state.at, state.size, i, typed) == FRNN_OK);
            get(n, v.state[i], typed, p->parts * batch * H);
        }
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

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double activated(const problem *p, double x) {
    const frnn_activation f = p->net.activation;
    return f == FRNN_TANH ? tanh(x) : f == FRNN_RELU ? fmax(x, 0) : x;
}

/* A step of one part on one row: h (or u) and c are [H]. */
static void reference_step(const problem *p, size_t part, const double *x, double *y, double *h,
                           double *c) {
    const size_t H = p->net.hidden_size, G = p->cell->gates, I = part_input(&p->net, part);
    const frnn_cell cell = p->net.cell;
    double *const *w = p->weights[part], past[512], s[4 * 512];
    for (size_t j = 0; j < H; j++)
        past[j] = cell == FRNN_CELL_LEAKY_POTENTIAL ? activated(p, h[j]) : h[j];
    for (size_t r = 0; r < G * H; r++) {
        s[r] = w[BIAS_IH][r] + w[BIAS_HH][r];
        for (size_t k = 0; k < I; k++)
            s[r] += w[WEIGHT_IH][r * I + k] * x[k];
        for (size_t k = 0; k < H; k++)
            s[r] += w[WEIGHT_HH][r * H + k] * past[k];
    }
    for (size_t j = 0; j < H; j++) {
        const double a = w[ALPHA][j];
        if (cell == FRNN_CELL_LSTM) {
            c[j] = sigmoid(s[H + j]) * c[j] + sigmoid(s[j]) * tanh(s[2 * H + j]);
            h[j] = sigmoid(s[3 * H + j]) * tanh(c[j]);
        } else if (cell == FRNN_CELL_RNN)
            h[j] = activated(p, s[j]);
        else if (cell == FRNN_CELL_LEAKY_RATE)
            h[j] = a * h[j] + (1 - a) * activated(p, s[j]);
        else
            h[j] = a * h[j] + (1 - a) * (cell == FRNN_CELL_LEAKY ? x[j] : s[j]);
        y[j] = cell == FRNN_CELL_LEAKY_POTENTIAL ? activated(p, h[j]) : h[j];
    }
}

static values reference_new(const problem *p) {
    const size_t H = p->net.hidden_size, D = p->net.num_directions, B = p->batch, T = p->steps;
    values v = p->start;
    const double *x = p->x;
    for (size_t part = 0; part < p->parts; part++) {
        x = part >= D && part % D == 0 ? v.y : x;
        v.y = part % D == 0 ? memory(T * B * p->width * sizeof(double)) : v.y;
        for (size_t i = 0; i < T * B; i++) {
            const size_t b = i % B, row = (part % D == 1 ? T - 1 - i / B : i / B) * B + b;
            const size_t at = (part * B + b) * H;
            reference_step(p, part, x + row * part_input(&p->net, part),
                           v.y + row * p->width + part % D * H, v.state[0] + at, v.state[1] + at);
        }
    }
    return v;
}

/* ---- Every way to the same result ----------------------------------------------------------- */

/* `some` are the rows of `all` from `first` on; tolerance 0 asks for the same bits. */
static void check_same(const problem *p, const values *all, const values *some, size_t first,
                       size_t rows, double tolerance) {
    size_t wrong = 0;
    for (size_t k = 0; k <= p->cell->states; k++) {
        const size_t outer = k == 0 ? p->steps : p->parts;
        const size_t width = k == 0 ? p->width : p->net.hidden_size, count = rows * width;
        for (size_t i = 0; i < outer * count; i++) {
            const size_t at = (i / count * p->batch + first) * width + i % count;
            const double a = k == 0 ? all->y[at] : all->state[k - 1][at];
            const double b = k == 0 ? some->y[i] : some->state[k - 1][i];
            wrong += tolerance > 0 ? !(fabs(a - b) <= tolerance * fmax(1, fabs(a)))
                                   : memcmp(&a, &b, sizeof a) != 0;
        }
    }
    CHECK(wrong == 0);
}

static void check_manner(const problem *p, const values *all, manner how, double tolerance) {
    const values other = run_rows(p, 0, p->batch, how);
    check_same(p, all, &other, 0, p->batch, tolerance);
}

/* Each row alone, also beside a row that starts with a NaN. */
static void check_rows(const problem *p, const values *all) {
    const size_t ill = below(p->batch);
    double *const cell = &p->start.state[0][ill * p->net.hidden_size], saved = *cell;
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

/* Multiplications of a run, about. */
static double work(const frnn_config *net, size_t steps, size_t batch) {
    const double H = (double)net->hidden_size, D = (double)net->num_directions;
    const double inputs = (double)net->input_size + (double)(net->num_layers - 1) * (D + 1) * H;
    const double G = (double)frnn_cell_get(net->cell)->gates;
    return (double)(steps * batch) * D * H * (4 + G * (inputs + H));
}

#define WORK        4e6
#define WORK_SCALAR 1e5
#define PICK(array) array[below(sizeof(array) / sizeof *(array))]

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
    net.activation = info->gates == 1 ? (frnn_activation)below(info->alpha ? 3 : 2) : FRNN_TANH;
    size_t steps, batch;
    do {
        steps = below(10) > 0 ? PICK(lengths) : 0;
        batch = below(10) > 0 ? PICK(batches) : 0;
    } while (work(&net, steps, batch) > WORK);
    const problem p = problem_new(&net, steps, batch, below(4) > 0);
    const double tolerance = dtype == FRNN_F32 ? 1e-5 : 1e-12;
    values best = {0}, reference = {0};
    const char *isa;
    for (size_t i = 0; (isa = frnn_isa_available(i)) != NULL; i++) {
        snprintf(where, sizeof where, "%s %s f%zu I %zu H %zu L %zu D %zu T %zu B %zu f() %d", isa,
                 info->name, 8 * p.items, net.input_size, net.hidden_size, net.num_layers,
                 net.num_directions, steps, batch, (int)net.activation);
        if (i > 0 && strcmp(isa, "scalar") == 0 && work(&net, steps, batch) > WORK_SCALAR)
            continue;
        CHECK(frnn_isa_set(isa) == FRNN_OK && strcmp(frnn_isa(), isa) == 0);
        const values all = run_rows(&p, 0, batch, (manner){0});
        best = i == 0 ? all : best;
        check_same(&p, &best, &all, 0, batch, 0);
        check_manner(&p, &all, (manner){.strided = 1, .move = 1}, 0);
        if (net.num_directions == 1) {
            check_manner(&p, &all, (manner){.piece = 1}, 0);
            check_manner(&p, &all, (manner){.piece = 20, .strided = 1, .move = 1}, 0);
        }
        if (batch > 0)
            check_rows(&p, &all);
        if (cell == FRNN_CELL_LEAKY)
            check_manner(&p, &all, (manner){.strided = 1, .time_axis = 1}, tolerance);
    }
    reference = reference_new(&p); /* last: it turns p.start into the end */
    check_same(&p, &reference, &best, 0, batch, tolerance);
    frame_free(&p.packed);
    memory_free();
}

/* More steps or more rows never need less scratch. */
static void check_scratch(void) {
    frnn_config net = FRNN_CONFIG((frnn_cell)below(FRNN_CELL_COUNT), 1, 1 + below(300));
    const int gated = frnn_cell_get(net.cell)->gates > 0;
    net.input_size = gated ? 1 + below(9) : net.hidden_size;
    net.dtype = (frnn_dtype)below(2);
    net.num_layers = gated ? 1 + below(3) : 1;
    net.num_directions = gated ? 1 + below(2) : 1;
    const size_t steps = below((size_t)1 << below(20)), batch = below((size_t)1 << below(12));
    size_t less = 0, more = 0;
    snprintf(where, sizeof where, "scratch, cell %d H %zu T %zu B %zu", (int)net.cell,
             net.hidden_size, steps, batch);
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
    for (int i = 0; i < 100 * FRNN_CELL_COUNT; i++)
        check_random((frnn_cell)(i / 2 % FRNN_CELL_COUNT), (frnn_dtype)(i % 2));
    return report();
}
