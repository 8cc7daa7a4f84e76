/* SPDX-License-Identifier: MIT
 *
 * The gated leak on every instruction set that this machine has: that it follows its equations,
 * gives the same bits however it is asked, touches no other memory, and refuses what it must.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "grid.h"

enum { FORWARD = 3, ARRAYS = 6 }; /* alpha, v, y; dy, dalpha, dv */
enum { GIVEN_ALPHA, GIVEN_V, GIVEN_DY, GIVEN_STATE, GIVEN_DSTATE, GIVEN };
enum { GOT_Y, GOT_DALPHA, GOT_DV, GOT_STATE, GOT_DSTATE, GOT };

typedef struct gated_case {
    size_t steps, batch, channels, items;
    frnn_dtype dtype;
    double *given[GIVEN]; /* [T, B, H], of states [B, H] */
} gated_case;

typedef struct outcome {
    double *got[GOT];
} outcome;

static size_t count_of(const gated_case *c, int state) {
    return c->batch * c->channels * (state ? 1 : c->steps);
}

static gated_case case_new(frnn_dtype dtype, size_t steps, size_t batch, size_t channels) {
    gated_case c = {steps, batch, channels, dtype == FRNN_F32 ? 4 : 8, dtype, {0}};
    for (int i = 0; i < GIVEN; i++)
        c.given[i] =
            random_values(c.items, count_of(&c, i >= GIVEN_STATE), i == GIVEN_ALPHA ? 0 : -1, 1);
    for (size_t i = 0; i < count_of(&c, 0); i += 1 + below(20))
        c.given[GIVEN_ALPHA][i] = (double)below(2);
    return c;
}

static grid grid_of(const gated_case *c, const double *values, int state, int strided) {
    const grid g = grid_new(state ? 1 : c->steps, c->batch, c->channels, c->items, strided);
    const size_t rows = count_of(c, state) / c->channels;
    for (size_t i = 0; i < rows && values != NULL; i++)
        put(c->items, grid_at(&g, i / c->batch, i % c->batch), values + i * c->channels,
            c->channels);
    return g;
}

/* The values of a grid, between which nothing was written. */
static double *values_of(const gated_case *c, const grid *g, int state) {
    const size_t rows = count_of(c, state) / c->channels;
    double *values = memory(count_of(c, state) * sizeof(double));
    for (size_t i = 0; i < rows; i++) {
        unsigned char *at = grid_at(g, i / c->batch, i % c->batch);
        get(c->items, values + i * c->channels, at, c->channels);
        memset(at, FILL, c->channels * c->items);
    }
    CHECK(filled(g->f.at, g->f.size));
    frame_free(&g->f);
    return values;
}

/* Both ways, each in stretches of at most `piece` steps, or in one if that is 0. */
static outcome run(const gated_case *c, int strided, size_t piece, int parallel_time) {
    grid in[GIVEN], out[GOT];
    for (int i = 0; i < GIVEN; i++)
        in[i] = grid_of(c, c->given[i], i >= GIVEN_STATE, strided);
    for (int i = 0; i < GOT; i++)
        out[i] = grid_of(c, i < GOT_STATE ? NULL : c->given[i], i >= GOT_STATE, strided);
    for (int i = 0; i < GIVEN; i++)
        frame_protect(&in[i].f, PROT_READ);
    const grid *alpha = &in[GIVEN_ALPHA], *v = &in[GIVEN_V], *dy = &in[GIVEN_DY];
    const grid *y = &out[GOT_Y], *dalpha = &out[GOT_DALPHA], *dv = &out[GOT_DV];
    for (size_t begin = 0; begin < c->steps;) {
        const size_t left = c->steps - begin, wanted = piece == 0 ? left : 1 + below(piece);
        frnn_gated g = FRNN_GATED(c->dtype, wanted < left ? wanted : left, c->batch, c->channels,
                                  grid_at(alpha, begin, 0), grid_at(v, begin, 0),
                                  grid_at(y, begin, 0), grid_at(&out[GOT_STATE], 0, 0));
        g.alpha_step = alpha->step, g.alpha_row = alpha->row;
        g.v_step = v->step, g.v_row = v->row;
        g.y_step = y->step, g.y_row = y->row;
        g.state_row = out[GOT_STATE].row;
        g.parallel_time = parallel_time;
        CHECK(frnn_gated_leaky(&g) == FRNN_OK);
        begin += g.steps;
    }
    frame_protect(&y->f, PROT_READ);
    for (size_t end = c->steps; end > 0;) {
        const size_t wanted = piece == 0 ? end : 1 + below(piece);
        const size_t begin = end - (wanted < end ? wanted : end);
        frnn_gated_back g =
            FRNN_GATED_BACK(c->dtype, end - begin, c->batch, c->channels, grid_at(alpha, begin, 0),
                            grid_at(v, begin, 0), grid_at(y, begin, 0),
                            begin > 0 ? grid_at(y, begin - 1, 0) : grid_at(&in[GIVEN_STATE], 0, 0),
                            grid_at(dy, begin, 0), grid_at(dalpha, begin, 0), grid_at(dv, begin, 0),
                            grid_at(&out[GOT_DSTATE], 0, 0));
        g.alpha_step = alpha->step, g.alpha_row = alpha->row;
        g.v_step = v->step, g.v_row = v->row;
        g.y_step = y->step, g.y_row = y->row;
        g.dy_step = dy->step, g.dy_row = dy->row;
        g.dalpha_step = dalpha->step, g.dalpha_row = dalpha->row;
        g.dv_step = dv->step, g.dv_row = dv->row;
        g.state_row = begin > 0 ? y->row : in[GIVEN_STATE].row;
        g.dstate_row = out[GOT_DSTATE].row;
        g.parallel_time = parallel_time;
        CHECK(frnn_gated_leaky_backward(&g) == FRNN_OK);
        end = begin;
    }
    frame_protect(&y->f, PROT_READ | PROT_WRITE);
    outcome o;
    for (int i = 0; i < GOT; i++)
        o.got[i] = values_of(c, &out[i], i >= GOT_STATE);
    for (int i = 0; i < GIVEN; i++)
        frame_free(&in[i].f);
    return o;
}

/* The equations in double precision. */
static outcome reference(const gated_case *c) {
    const size_t width = c->batch * c->channels;
    outcome o;
    for (int i = 0; i < GOT; i++)
        o.got[i] = memory(count_of(c, i >= GOT_STATE) * sizeof(double));
    for (size_t j = 0; j < width; j++) {
        const double *alpha = c->given[GIVEN_ALPHA] + j, *v = c->given[GIVEN_V] + j;
        const double *dy = c->given[GIVEN_DY] + j, start = c->given[GIVEN_STATE][j];
        double h = start, g = c->given[GIVEN_DSTATE][j], *y = o.got[GOT_Y] + j;
        for (size_t t = 0; t < c->steps; t++)
            y[t * width] = h = alpha[t * width] * h + (1 - alpha[t * width]) * v[t * width];
        o.got[GOT_STATE][j] = h;
        for (size_t t = c->steps; t-- > 0;) {
            const size_t at = t * width;
            g += dy[at];
            o.got[GOT_DV][at + j] = (1 - alpha[at]) * g;
            o.got[GOT_DALPHA][at + j] = g * ((t > 0 ? y[at - width] : start) - v[at]);
            g *= alpha[at];
        }
        o.got[GOT_DSTATE][j] = g;
    }
    return o;
}

static void check_close(const gated_case *c, const outcome *a, const outcome *b, double tolerance) {
    for (int i = 0; i < GOT; i++) {
        double worst = 0, scale = 1;
        for (size_t j = 0; j < count_of(c, i >= GOT_STATE); j++) {
            worst = fmax(worst, fabs(a->got[i][j] - b->got[i][j]));
            scale = fmax(scale, fabs(b->got[i][j]));
        }
        CHECK(worst <= tolerance * scale);
    }
}

static void check_same(const gated_case *c, const outcome *a, const outcome *b) {
    for (int i = 0; i < GOT; i++)
        CHECK(memcmp(a->got[i], b->got[i], count_of(c, i >= GOT_STATE) * sizeof(double)) == 0);
}

static void check_random(frnn_dtype dtype) {
    static const size_t widths[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 64, 129, 300, 1111};
    const size_t channels = widths[below(sizeof widths / sizeof *widths)];
    const size_t steps = 1 + below(below(2) ? 9 : channels < 9 ? 1200 : 90), batch = 1 + below(5);
    const gated_case c = case_new(dtype, steps, batch, channels);
    const outcome expected = reference(&c);
    /* alpha is uniform, so that what is added up soon fades; products are rounded again and again
     */
    const double tolerance = dtype == FRNN_F32 ? 4e-6 : 4e-6 * 0x1p-29;
    outcome best = {{0}};
    for (size_t i = 0; frnn_isa_available(i) != NULL; i++) {
        CHECK(frnn_isa_set(frnn_isa_available(i)) == FRNN_OK);
        snprintf(where, sizeof where, "%s dtype %d T %zu B %zu H %zu", frnn_isa(), (int)dtype,
                 steps, batch, channels);
        const outcome plain = run(&c, 0, 0, 0);
        best = i == 0 ? plain : best;
        check_close(&c, &plain, &expected, tolerance);
        check_same(&c, &plain, &best);
        const outcome strided = run(&c, 1, 0, 0), pieces = run(&c, 1, 1 + below(9), 0);
        check_same(&c, &strided, &best);
        check_same(&c, &pieces, &best);
        const outcome lanes = run(&c, 0, 0, 1), spread = run(&c, 1, 1 + below(700), 1);
        check_close(&c, &lanes, &expected, tolerance);
        check_close(&c, &spread, &expected, tolerance);
    }
    memory_free();
}

/* A call that is right but for what a test then changes. */
static float numbers[4][6];
static frnn_gated good(void) {
    return (frnn_gated)FRNN_GATED(FRNN_F32, 3, 1, 2, numbers[0], numbers[1], numbers[2],
                                  numbers[3]);
}

static float more[8][6];
static frnn_gated_back good_back(void) {
    return (frnn_gated_back)FRNN_GATED_BACK(FRNN_F32, 3, 1, 2, more[0], more[1], more[2], more[3],
                                            more[4], more[5], more[6], more[7]);
}

#define REFUSED(make, call, field, value, status)                                                  \
    do {                                                                                           \
        snprintf(where, sizeof where, "%s = %s", #field, #value);                                  \
        memset(numbers, 0, sizeof numbers);                                                        \
        memset(more, 0, sizeof more);                                                              \
        numbers[1][0] = numbers[3][0] = more[4][0] = more[7][0] = 1;                               \
        float before[2][8][6] = {{{0}}};                                                           \
        memcpy(before[0], numbers, sizeof numbers);                                                \
        memcpy(before[1], more, sizeof more);                                                      \
        make(.field) = (value);                                                                    \
        CHECK(call == (status));                                                                   \
        CHECK(memcmp(before[0], numbers, sizeof numbers) == 0);                                    \
        CHECK(memcmp(before[1], more, sizeof more) == 0);                                          \
    } while (0)
#define MAKE_FORWARD(field)                                                                        \
    frnn_gated g = good();                                                                         \
    g field
#define MAKE_BACKWARD(field)                                                                       \
    frnn_gated_back g = good_back();                                                               \
    g field
#define FORWARDS(field, value, status)                                                             \
    REFUSED(MAKE_FORWARD, frnn_gated_leaky(&g), field, value, status)
#define BACKWARDS(field, value, status)                                                            \
    REFUSED(MAKE_BACKWARD, frnn_gated_leaky_backward(&g), field, value, status)

static void check_refusals(void) {
    FORWARDS(struct_size, 0, FRNN_E_ARG);
    FORWARDS(struct_size, sizeof(frnn_gated) - 1, FRNN_E_ARG);
    FORWARDS(dtype, FRNN_DTYPE_COUNT, FRNN_E_ARG);
    FORWARDS(dtype, (frnn_dtype)99, FRNN_E_ARG);
    FORWARDS(alpha, NULL, FRNN_E_ARG);
    FORWARDS(v, NULL, FRNN_E_ARG);
    FORWARDS(y, NULL, FRNN_E_ARG);
    FORWARDS(state, NULL, FRNN_E_ARG);
    FORWARDS(steps, SIZE_MAX / 4, FRNN_E_SIZE);
    FORWARDS(batch, SIZE_MAX / 4, FRNN_E_SIZE);
    FORWARDS(channels, SIZE_MAX / 4, FRNN_E_SIZE);
    FORWARDS(steps, 0, FRNN_OK);
    FORWARDS(batch, 0, FRNN_OK);
    FORWARDS(channels, 0, FRNN_OK);
    CHECK(frnn_gated_leaky(NULL) == FRNN_E_ARG);
    BACKWARDS(struct_size, 0, FRNN_E_ARG);
    BACKWARDS(dtype, (frnn_dtype)-1, FRNN_E_ARG);
    BACKWARDS(alpha, NULL, FRNN_E_ARG);
    BACKWARDS(v, NULL, FRNN_E_ARG);
    BACKWARDS(y, NULL, FRNN_E_ARG);
    BACKWARDS(state, NULL, FRNN_E_ARG);
    BACKWARDS(dalpha, NULL, FRNN_E_ARG);
    BACKWARDS(dv, NULL, FRNN_E_ARG);
    BACKWARDS(dstate, NULL, FRNN_E_ARG);
    BACKWARDS(steps, SIZE_MAX / 4, FRNN_E_SIZE);
    BACKWARDS(batch, SIZE_MAX / 4, FRNN_E_SIZE);
    BACKWARDS(channels, SIZE_MAX / 4, FRNN_E_SIZE);
    BACKWARDS(steps, 0, FRNN_OK);
    BACKWARDS(batch, 0, FRNN_OK);
    BACKWARDS(channels, 0, FRNN_OK);
    CHECK(frnn_gated_leaky_backward(NULL) == FRNN_E_ARG);
}

/* Without dy only the gradient of the state arrives; memory may be missing where nothing is. */
static void check_absent(void) {
    frnn_gated nothing = FRNN_GATED(FRNN_F64, 5, 0, 3, NULL, NULL, NULL, NULL);
    frnn_gated_back none =
        FRNN_GATED_BACK(FRNN_F64, 5, 3, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    CHECK(frnn_gated_leaky(&nothing) == FRNN_OK && frnn_gated_leaky_backward(&none) == FRNN_OK);
    double alpha[] = {0.5, 0.5}, v[] = {4, 8}, y[2], state = 0, start = 0, dalpha[2], dv[2], to = 1;
    frnn_gated g = FRNN_GATED(FRNN_F64, 2, 1, 1, alpha, v, y, &state);
    CHECK(frnn_gated_leaky(&g) == FRNN_OK && y[0] == 2 && y[1] == 5 && state == 5);
    frnn_gated_back b =
        FRNN_GATED_BACK(FRNN_F64, 2, 1, 1, alpha, v, y, &start, NULL, dalpha, dv, &to);
    CHECK(frnn_gated_leaky_backward(&b) == FRNN_OK);
    CHECK(dalpha[0] == -2 && dalpha[1] == -6 && dv[0] == 0.25 && dv[1] == 0.5 && to == 0.25);
}

int main(void) {
    prepare();
    for (size_t i = 0; frnn_isa_available(i) != NULL; i++) {
        CHECK(frnn_isa_set(frnn_isa_available(i)) == FRNN_OK);
        check_refusals();
        check_absent();
    }
    for (int i = 0; i < 300; i++)
        check_random((frnn_dtype)(i % 2));
    return report();
}
