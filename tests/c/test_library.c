/* SPDX-License-Identifier: MIT
 *
 * The C library through its public header, on every instruction set that this machine has: what
 * it refuses and leaves alone, which memory it touches, and that its results are right, and the
 * same bits however they are asked for.
 *
 * Every buffer has exactly the size that the library asks for and lies between two pages without
 * access, against one or the other. What the library may only read is write-protected meanwhile.
 */
#define _DEFAULT_SOURCE /* mmap */

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

/* An access outside a buffer ends the program; this says in which case. */
static void on_fault(int number) {
    static const char message[] = "access outside a buffer: ";
    const ssize_t written = write(STDOUT_FILENO, message, sizeof message - 1) +
                            write(STDOUT_FILENO, where, strlen(where)) +
                            write(STDOUT_FILENO, "\n", 1);
    _exit(written > 0 ? 1 : number);
}

/* ---- Random numbers, the same in every run ------------------------------------------------- */

static uint64_t seed = 1;

static uint64_t random_bits(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed ^ seed >> 33) * 0xff51afd7ed558ccdu >> 11; /* 53 bits */
}

static size_t below(size_t n) {
    return (size_t)(random_bits() % n);
}

static double uniform(double low, double high) {
    return low + (high - low) * (double)random_bits() / 9007199254740992.0;
}

/* ---- Memory between guards ----------------------------------------------------------------- */

#define FILL 0xff /* what is not written yet: NaN in either dtype */

typedef struct frame {
    unsigned char *at, *map;
    size_t size, room;
} frame;

static size_t page;

static int filled(const unsigned char *bytes, size_t size) {
    return size == 0 || (bytes[0] == FILL && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static frame frame_new(size_t size, size_t align) {
    frame f = {.size = size, .room = (size + page - 1) / page * page};
    f.map = mmap(NULL, f.room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f.map == MAP_FAILED ||
        (f.room > 0 && mprotect(f.map + page, f.room, PROT_READ | PROT_WRITE) != 0)) {
        perror("mmap");
        exit(1);
    }
    memset(f.map + page, FILL, f.room);
    f.at = f.map + page + (below(3) > 0 ? (f.room - size) / align * align : 0);
    return f;
}

static void frame_read_only(const frame *f) {
    CHECK(f->room == 0 || mprotect(f->map + page, f->room, PROT_READ) == 0);
}

static void frame_free(const frame *f) {
    const size_t before = (size_t)(f->at - f->map) - page;
    CHECK(filled(f->map + page, before));
    CHECK(filled(f->at + f->size, f->room - before - f->size));
    munmap(f->map, f->room + 2 * page);
}

static void *memory(size_t size) {
    void *bytes = malloc(size + 1);
    if (bytes == NULL) {
        perror("malloc");
        exit(1);
    }
    return bytes;
}

/* ---- Problems ------------------------------------------------------------------------------ */

enum { WEIGHT_IH, WEIGHT_HH, BIAS_IH, BIAS_HH, ALPHA, KINDS, PARTS = 4 };

/* A net, its input and its state, all in the dtype of the net. */
typedef struct problem {
    frnn_config net;
    const frnn_cell_info *cell;
    size_t steps, batch, items, width, parts; /* items: bytes of an element; width: of y */
    unsigned char *x, *state[2], *weights[PARTS][KINDS];
    frnn_weights given[PARTS];
    frame packed;
} problem;

static double get(const problem *p, const unsigned char *values, size_t i) {
    return p->items == 4 ? (double)((const float *)(const void *)values)[i]
                         : ((const double *)(const void *)values)[i];
}

static unsigned char *random_values(const problem *p, size_t count, double low, double high) {
    unsigned char *values = memory(count * p->items);
    for (size_t i = 0; i < count; i++) {
        const double value = uniform(low, high);
        const float single = (float)value;
        memcpy(values + i * p->items, p->items == 4 ? (const void *)&single : &value, p->items);
    }
    return values;
}

static size_t part_input(const frnn_config *net, size_t part) {
    return part < net->num_directions ? net->input_size : net->num_directions * net->hidden_size;
}

static problem problem_new(const frnn_config *net, size_t steps, size_t batch, int bias) {
    problem p = {.net = *net, .cell = frnn_cell_get(net->cell), .steps = steps, .batch = batch};
    const size_t H = net->hidden_size, rows = p.cell->gates * H;
    const double scale = 0.7 / sqrt((double)H), shift = bias ? 0.5 : 0;
    p.items = net->dtype == FRNN_F32 ? 4 : 8;
    p.width = net->num_directions * H;
    p.parts = net->num_layers * net->num_directions;
    for (size_t i = 0; i < p.parts; i++) {
        unsigned char **w = p.weights[i];
        w[WEIGHT_IH] = random_values(&p, rows * part_input(net, i), -scale, scale);
        w[WEIGHT_HH] = random_values(&p, rows * H, -scale, scale);
        w[BIAS_IH] = random_values(&p, rows, -shift, shift);
        w[BIAS_HH] = random_values(&p, rows, -shift, shift);
        w[ALPHA] = random_values(&p, H, 0, 1);
        memset(w[ALPHA], 0, H > 1 ? p.items : 0); /* a unit without a past */
        p.given[i] = (frnn_weights){w[WEIGHT_IH], w[WEIGHT_HH], bias ? w[BIAS_IH] : NULL,
                                    bias ? w[BIAS_HH] : NULL, p.cell->alpha ? w[ALPHA] : NULL};
    }
    p.x = random_values(&p, steps * batch * net->input_size, -1, 1);
    for (size_t i = 0; i < 2; i++)
        p.state[i] = random_values(&p, p.parts * batch * H, -1, 1);
    size_t size = 0;
    CHECK(frnn_packed_size(net, &size) == FRNN_OK);
    p.packed = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_pack(net, p.given, p.packed.at, size) == FRNN_OK);
    frame_read_only(&p.packed);
    return p;
}

static void problem_free(const problem *p) {
    for (size_t i = 0; i < p->parts * KINDS; i++)
        free(p->weights[i / KINDS][i % KINDS]);
    free(p->x);
    free(p->state[0]);
    free(p->state[1]);
    frame_free(&p->packed);
}

/* ---- Running ------------------------------------------------------------------------------- */

typedef struct result {
    void *y, *state[2]; /* [T, B, D * H] and [L * D, B, H] */
} result;

static void result_free(const result *r) {
    free(r->y);
    free(r->state[0]);
    free(r->state[1]);
}

/* Some rows of the batch, of size bytes each, from [outer][batch]. */
static void *slice(const void *from, size_t outer, size_t batch, size_t first, size_t rows,
                   size_t size) {
    unsigned char *to = memory(outer * rows * size);
    for (size_t i = 0; i < outer && rows > 0; i++)
        memcpy(to + i * rows * size, (const unsigned char *)from + (i * batch + first) * size,
               rows * size);
    return to;
}

/* `some` are the rows of `all` from `first` on, bit for bit. */
static void check_same(const problem *p, const result *all, const result *some, size_t first,
                       size_t rows) {
    for (size_t i = 0; i <= p->cell->states; i++) {
        const size_t outer = i == 0 ? p->steps : p->parts;
        const size_t size = (i == 0 ? p->width : p->net.hidden_size) * p->items;
        void *part = slice(i == 0 ? all->y : all->state[i - 1], outer, p->batch, first, rows, size);
        CHECK(memcmp(part, i == 0 ? some->y : some->state[i - 1], outer * rows * size) == 0);
        free(part);
    }
}

/* An array [steps, batch, width] in memory; all but the frame in bytes. */
typedef struct grid {
    frame f;
    size_t first;
    ptrdiff_t step, row;
} grid;

static grid grid_new(size_t steps, size_t batch, size_t width, size_t items, int strided) {
    const size_t gap = strided ? below(2) * below(6) : 0, more = strided ? below(2) * below(6) : 0;
    const int batch_major = strided && below(2), back = strided && below(2);
    const int up = strided && below(2), empty = steps == 0 || batch == 0;
    const size_t inner = (width + gap) * items;
    const size_t outer = (batch_major ? steps : batch) * inner + more * items;
    const size_t step = batch_major ? inner : outer, row = batch_major ? outer : inner;
    const size_t last_step = empty ? 0 : (steps - 1) * step, last_row = empty ? 0 : (batch - 1) * row;
    grid g = {.step = back ? -(ptrdiff_t)step : (ptrdiff_t)step,
              .row = up ? -(ptrdiff_t)row : (ptrdiff_t)row,
              .first = (back ? last_step : 0) + (up ? last_row : 0)};
    g.f = frame_new(empty ? 0 : last_step + last_row + width * items, items);
    return g;
}

static unsigned char *grid_at(const grid *g, size_t step, size_t row) {
    const ptrdiff_t at = (ptrdiff_t)g->first + (ptrdiff_t)step * g->step + (ptrdiff_t)row * g->row;
    return g->f.at + (g->f.size > 0 ? at : 0);
}

typedef struct manner {
    size_t piece;  /* steps in a call at most; 0: all of them */
    int strided;   /* x and y with random strides */
    int move;      /* the state goes to new memory after each call */
    int time_axis; /* frnn_run.parallel_time */
} manner;

/* A state with these values. */
static frame state_new(const problem *p, size_t batch, void *const values[2]) {
    size_t size = 0;
    CHECK(frnn_state_size(&p->net, batch, &size) == FRNN_OK);
    const frame state = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_state_reset(&p->net, batch, state.at, size) == FRNN_OK);
    for (size_t i = 0; i < p->cell->states; i++)
        CHECK(frnn_state_set(&p->net, batch, state.at, size, i, values[i]) == FRNN_OK);
    return state;
}

static void state_read(const problem *p, size_t batch, const frame *state, void *const values[2]) {
    for (size_t i = 0; i < p->cell->states; i++)
        CHECK(frnn_state_get(&p->net, batch, state->at, state->size, i, values[i]) == FRNN_OK);
}

/* The rows [first, first + batch) of a problem. */
static result run_rows(const problem *p, size_t first, size_t batch, manner how) {
    const frnn_config *net = &p->net;
    const size_t T = p->steps, items = p->items, H = net->hidden_size * items;
    const size_t x_row = net->input_size * items, y_row = p->width * items;
    const grid x = grid_new(T, batch, net->input_size, items, how.strided);
    const grid y = grid_new(T, batch, p->width, items, how.strided);
    const ptrdiff_t unit = (ptrdiff_t)items;
    result r = {.y = memory(T * batch * y_row)};
    for (size_t i = 0; i < 2; i++)
        r.state[i] = slice(p->state[i], p->parts, p->batch, first, batch, H);
    frame state = state_new(p, batch, r.state);
    for (size_t t = 0; t < T; t++)
        for (size_t b = 0; b < batch; b++)
            memcpy(grid_at(&x, t, b), p->x + (t * p->batch + first + b) * x_row, x_row);
    frame_read_only(&x.f);
    size_t done = 0, size = 0;
    do {
        const size_t wanted = how.piece == 0 ? T : 1 + below(how.piece);
        const size_t steps = wanted < T - done ? wanted : T - done;
        CHECK(frnn_scratch_size(net, steps, batch, &size) == FRNN_OK);
        const frame scratch = frame_new(size, FRNN_ALIGN);
        frnn_run run = FRNN_RUN(net, steps, batch, grid_at(&x, done, 0), grid_at(&y, done, 0),
                                state.at, state.size, scratch.at, size);
        run.x_step = x.step / unit, run.x_row = x.row / unit;
        run.y_step = y.step / unit, run.y_row = y.row / unit;
        run.parallel_time = how.time_axis;
        CHECK(frnn_forward(net, p->packed.at, p->packed.size, &run) == FRNN_OK);
        frame_free(&scratch);
        state_read(p, batch, &state, r.state);
        if (how.move) {
            frame_free(&state);
            state = state_new(p, batch, r.state);
            state_read(p, batch, &state, r.state);
        }
        done += steps;
    } while (done < T);
    for (size_t t = 0; t < T; t++)
        for (size_t b = 0; b < batch; b++) {
            memcpy((unsigned char *)r.y + (t * batch + b) * y_row, grid_at(&y, t, b), y_row);
            memset(grid_at(&y, t, b), FILL, y_row);
        }
    CHECK(filled(y.f.at, y.f.size)); /* what lies between the rows */
    frame_free(&x.f);
    frame_free(&y.f);
    frame_free(&state);
    return r;
}

/* ---- The equations of the header in plain double precision --------------------------------- */

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double activated(const problem *p, double x) {
    return p->net.activation == FRNN_TANH ? tanh(x) : p->net.activation == FRNN_RELU ? fmax(x, 0) : x;
}

/* One part on one row: y[t * y_step] from x[t * x_step]; h (or u) and c are [H]. */
static void reference_row(const problem *p, size_t part, const double *x, size_t x_step, double *y,
                          size_t y_step, double *h, double *c) {
    const size_t H = p->net.hidden_size, G = p->cell->gates, I = part_input(&p->net, part);
    unsigned char *const *w = p->weights[part];
    const frnn_cell cell = p->net.cell;
    double *sum = memory(G * H * sizeof *sum), *past = memory(H * sizeof *past);
    for (size_t i = 0; i < p->steps; i++) {
        const size_t t = part % p->net.num_directions == 1 ? p->steps - 1 - i : i;
        for (size_t j = 0; j < H; j++)
            past[j] = cell == FRNN_CELL_LEAKY_POTENTIAL ? activated(p, h[j]) : h[j];
        for (size_t r = 0; r < G * H; r++) {
            sum[r] = get(p, w[BIAS_IH], r) + get(p, w[BIAS_HH], r);
            for (size_t k = 0; k < I; k++)
                sum[r] += get(p, w[WEIGHT_IH], r * I + k) * x[t * x_step + k];
            for (size_t k = 0; k < H; k++)
                sum[r] += get(p, w[WEIGHT_HH], r * H + k) * past[k];
        }
        for (size_t j = 0; j < H; j++) {
            const double a = get(p, w[ALPHA], j);
            if (cell == FRNN_CELL_LSTM) {
                c[j] = sigmoid(sum[H + j]) * c[j] + sigmoid(sum[j]) * tanh(sum[2 * H + j]);
                h[j] = sigmoid(sum[3 * H + j]) * tanh(c[j]);
            } else if (cell == FRNN_CELL_RNN)
                h[j] = activated(p, sum[j]);
            else
                h[j] = a * h[j] + (1 - a) * (cell == FRNN_CELL_LEAKY        ? x[t * x_step + j]
                                             : cell == FRNN_CELL_LEAKY_RATE ? activated(p, sum[j])
                                                                            : sum[j]);
            y[t * y_step + j] = cell == FRNN_CELL_LEAKY_POTENTIAL ? activated(p, h[j]) : h[j];
        }
    }
    free(sum);
    free(past);
}

static double *doubles(const problem *p, const unsigned char *values, size_t count) {
    double *to = memory(count * sizeof *to);
    for (size_t i = 0; i < count; i++)
        to[i] = get(p, values, i);
    return to;
}

/* The members are arrays of double. */
static result reference_new(const problem *p) {
    const size_t H = p->net.hidden_size, D = p->net.num_directions, B = p->batch, W = p->width;
    const size_t count = p->steps * B * W, states = p->parts * B * H;
    double *x = doubles(p, p->x, p->steps * B * p->net.input_size);
    double *y = memory(count * sizeof *y), *h = doubles(p, p->state[0], states);
    double *c = doubles(p, p->state[1], states);
    for (size_t part = 0; part < p->parts; part++) {
        const size_t I = part_input(&p->net, part);
        if (part > 0 && part % D == 0) {
            free(x);
            x = memory(count * sizeof *x);
            memcpy(x, y, count * sizeof *x);
        }
        for (size_t b = 0; b < B; b++)
            reference_row(p, part, x + b * I, B * I, y + b * W + part % D * H, B * W,
                          h + (part * B + b) * H, c + (part * B + b) * H);
    }
    free(x);
    return (result){y, {h, c}};
}

static void check_near(const problem *p, const result *r, const result *reference) {
    const double tolerance = p->items == 4 ? 1e-5 : 1e-12;
    for (size_t i = 0; i <= p->cell->states; i++) {
        const double *exact = i == 0 ? reference->y : reference->state[i - 1];
        const size_t count = p->batch * (i == 0 ? p->steps * p->width : p->parts * p->net.hidden_size);
        size_t far = 0;
        for (size_t j = 0; j < count; j++) {
            const double value = get(p, i == 0 ? r->y : r->state[i - 1], j);
            far += !(fabs(value - exact[j]) <= tolerance * fmax(1, fabs(exact[j])));
        }
        CHECK(far == 0);
    }
}

/* ---- Every way to the same result ----------------------------------------------------------- */

static void check_manner(const problem *p, const result *all, manner how) {
    const result other = run_rows(p, 0, p->batch, how);
    check_same(p, all, &other, 0, p->batch);
    result_free(&other);
}

/* Each row alone, also beside a row with a NaN in it. */
static void check_rows(const problem *p, const result *all) {
    const size_t ill = below(p->batch);
    unsigned char *item = p->x + ill * p->net.input_size * p->items, saved[sizeof(double)];
    memcpy(saved, item, p->steps > 0 ? p->items : 0);
    memset(item, FILL, p->steps > 0 ? p->items : 0);
    const result beside = run_rows(p, 0, p->batch, (manner){0});
    memcpy(item, saved, p->steps > 0 ? p->items : 0);
    for (size_t b = 0; b < p->batch; b++) {
        const result alone = run_rows(p, b, 1, (manner){.strided = b % 2 == 1});
        check_same(p, all, &alone, b, 1);
        if (b != ill)
            check_same(p, &beside, &alone, b, 1);
        result_free(&alone);
    }
    result_free(&beside);
}

static void check_manners(const problem *p, const result *all, const result *reference) {
    check_near(p, all, reference);
    check_manner(p, all, (manner){.strided = 1, .move = 1});
    if (p->net.num_directions == 1) {
        check_manner(p, all, (manner){.piece = 1});
        check_manner(p, all, (manner){.piece = 20, .strided = 1, .move = 1});
    }
    if (p->batch > 0)
        check_rows(p, all);
    if (p->net.cell == FRNN_CELL_LEAKY) {
        const result r = run_rows(p, 0, p->batch, (manner){.strided = 1, .time_axis = 1});
        check_near(p, &r, reference);
        result_free(&r);
    }
}

/* Multiplications of a run, about. */
static double work(const frnn_config *net, size_t steps, size_t batch) {
    const double H = (double)net->hidden_size, D = (double)net->num_directions;
    const double I = (double)net->input_size, above = (double)(net->num_layers - 1);
    const double G = (double)frnn_cell_get(net->cell)->gates;
    return (double)(steps * batch) * D * H * (4 + G * (I + H + above * (D + 1) * H));
}

#define WORK        2e6
#define WORK_SCALAR 1e5
#define PICK(array) array[below(sizeof(array) / sizeof *(array))]

static void check_random(frnn_cell cell, frnn_dtype dtype) {
    static const size_t tails[] = {47, 48, 49, 63, 65, 80, 97, 128, 129, 200, 257, 400};
    static const size_t inputs[] = {1, 3, 4, 5, 17}, lengths[] = {1, 2, 9, 70};
    static const size_t batches[] = {1, 2, 5, 7, 33};
    const frnn_cell_info *info = frnn_cell_get(cell);
    frnn_config net = FRNN_CONFIG(cell, PICK(inputs), below(4) > 0 ? 1 + below(40) : PICK(tails));
    size_t steps, batch;
    net.dtype = dtype;
    if (info->gates == 0)
        net.input_size = net.hidden_size;
    else
        net.num_layers = 1 + below(2), net.num_directions = 1 + below(2);
    if (info->gates == 1)
        net.activation = (frnn_activation)below(info->alpha ? 3 : 2);
    do {
        steps = below(10) > 0 ? PICK(lengths) : 0;
        batch = below(10) > 0 ? PICK(batches) : 0;
    } while (work(&net, steps, batch) > WORK);
    const problem p = problem_new(&net, steps, batch, below(4) > 0);
    const result reference = reference_new(&p);
    result best = {0};
    const char *isa;
    for (size_t i = 0; (isa = frnn_isa_available(i)) != NULL; i++) {
        snprintf(where, sizeof where, "%s %s f%zu I %zu H %zu L %zu D %zu T %zu B %zu", isa,
                 info->name, 8 * p.items, net.input_size, net.hidden_size, net.num_layers,
                 net.num_directions, steps, batch);
        if (i > 0 && strcmp(isa, "scalar") == 0 && work(&net, steps, batch) > WORK_SCALAR)
            continue;
        CHECK(frnn_isa_set(isa) == FRNN_OK);
        const result all = run_rows(&p, 0, batch, (manner){0});
        if (i == 0)
            best = run_rows(&p, 0, batch, (manner){0});
        check_same(&p, &best, &all, 0, batch);
        check_manners(&p, &all, &reference);
        result_free(&all);
    }
    result_free(&best);
    result_free(&reference);
    problem_free(&p);
}

/* ---- What is refused ------------------------------------------------------------------------ */

/* Every function that takes a net says `expected`, and touches nothing. */
static void check_net(const problem *p, const frnn_config *net, const frnn_run *run,
                      frnn_status expected) {
    size_t size = 7;
    CHECK(frnn_packed_size(net, &size) == expected && size == 7);
    CHECK(frnn_state_size(net, 0, &size) == expected && size == 7);
    CHECK(frnn_scratch_size(net, 1, 1, &size) == expected && size == 7);
    CHECK(frnn_pack(net, p->given, p->packed.at, p->packed.size) == expected);
    CHECK(frnn_state_reset(net, p->batch, run->state, run->state_size) == expected);
    CHECK(frnn_state_get(net, p->batch, run->state, run->state_size, 0, p->state[0]) == expected);
    CHECK(frnn_state_set(net, p->batch, run->state, run->state_size, 0, p->state[0]) == expected);
    CHECK(frnn_forward(net, p->packed.at, p->packed.size, run) == expected);
}

/* A call, or a net, that is right but for some changes; y and the state stay as they are. */
#define REFUSED(expected, ...)                                                                     \
    do {                                                                                           \
        frnn_config net = p.net;                                                                   \
        frnn_run run = good;                                                                       \
        const unsigned char *packed = p.packed.at;                                                 \
        size_t packed_size = p.packed.size;                                                        \
        __VA_ARGS__;                                                                               \
        CHECK(frnn_forward(&net, packed, packed_size, &run) == (expected));                        \
        CHECK(memcmp(state.at, before, state.size) == 0 && filled(y.at, y.size));                  \
    } while (0)
#define BAD_NET(expected, ...)                                                                     \
    do {                                                                                           \
        frnn_config net = p.net;                                                                   \
        __VA_ARGS__;                                                                               \
        CHECK(frnn_config_check(&net) == ((expected) == FRNN_E_SIZE ? FRNN_OK : (expected)));      \
        check_net(&p, &net, &good, expected);                                                      \
        CHECK(memcmp(state.at, before, state.size) == 0 && filled(y.at, y.size));                  \
    } while (0)
#define BAD_STATE(expected, batch, at, size, index, values)                                        \
    do {                                                                                           \
        CHECK(frnn_state_get(&p.net, batch, at, size, index, values) == (expected));               \
        CHECK(frnn_state_set(&p.net, batch, at, size, index, values) == (expected));               \
        CHECK(memcmp(state.at, before, state.size) == 0);                                          \
    } while (0)
#define BAD_WEIGHTS(...)                                                                           \
    do {                                                                                           \
        frnn_weights weights[PARTS];                                                               \
        memcpy(weights, p.given, sizeof weights);                                                  \
        frnn_weights *w = &weights[p.parts - 1];                                                   \
        __VA_ARGS__;                                                                               \
        CHECK(frnn_pack(&p.net, p.given, spare.at, spare.size) == FRNN_OK);                        \
        CHECK(frnn_pack(&p.net, weights, spare.at, spare.size) == FRNN_E_ARG);                     \
        REFUSED(FRNN_E_ARG, packed = spare.at);                                                    \
    } while (0)

static void check_refusals(frnn_cell cell, frnn_dtype dtype, const char *isa) {
    const frnn_cell_info *info = frnn_cell_get(cell);
    frnn_config config = FRNN_CONFIG(cell, 5, 5);
    config.dtype = dtype;
    config.num_layers = config.num_directions = info->gates > 0 ? 2 : 1;
    const problem p = problem_new(&config, 3, 2, 1);
    const size_t n = p.items;
    size_t size = 0;
    void *const values[] = {p.state[0], p.state[1]};
    CHECK(frnn_scratch_size(&p.net, 3, 2, &size) == FRNN_OK);
    const frame state = state_new(&p, 2, values), scratch = frame_new(size, FRNN_ALIGN);
    const frame y = frame_new(6 * p.width * n, n), spare = frame_new(p.packed.size, FRNN_ALIGN);
    const frame raw = frame_new(state.size, FRNN_ALIGN);
    void *before = slice(state.at, 1, 1, 0, 1, state.size);
    const frnn_run good =
        FRNN_RUN(&p.net, 3, 2, p.x, y.at, state.at, state.size, scratch.at, scratch.size);
    snprintf(where, sizeof where, "refusals, %s %s f%zu", isa, info->name, 8 * n);

    if (frnn_isa() == NULL) {
        REFUSED(FRNN_E_ISA, (void)0);
        (void)raw;
    }
    frame_free(&raw);
    frame_free(&spare);
    problem_free(&p);
    free(before);
}
