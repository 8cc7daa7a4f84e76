/* SPDX-License-Identifier: MIT
 *
 * The gated leak: checks, and how the rows of a batch and the steps are handed to the kernels.
 */
#include "internal.h"

#define PIECE_BYTES (16 * 1024) /* of one row and one array, where rows lie beside each other */

typedef struct walk {
    size_t steps, batch, channels, itemsize;
    size_t rows, piece; /* rows of `channels` that the kernels see; steps that they take at once */
} walk;

/* FRNN_OK, or why these sizes and arrays cannot be worked on. */
static frnn_status check(frnn_dtype dtype, const walk *w, const void *const *arrays, size_t count,
                         const void *state, const void *carry) {
    size_t size = w->itemsize;
    if (dtype != FRNN_F32 && dtype != FRNN_F64)
        return FRNN_E_ARG;
    if (w->batch > 0 && w->channels > 0 && (state == NULL || carry == NULL))
        return FRNN_E_ARG;
    if (w->steps == 0 || w->batch == 0 || w->channels == 0)
        return FRNN_OK;
    for (size_t i = 0; i < count; i++)
        if (arrays[i] == NULL)
            return FRNN_E_ARG;
    if (!frnn_mul(&size, w->batch) || !frnn_mul(&size, w->channels) || !frnn_mul(&size, w->steps))
        return FRNN_E_SIZE;
    return FRNN_OK;
}

/* A batch whose rows follow each other in every array is one wide row. Otherwise rows are visited
 * in the order of memory: one after the other if each has its steps together, else piece by piece
 * of time. */
static void plan(walk *w, const ptrdiff_t *rows, size_t count, ptrdiff_t step, ptrdiff_t row) {
    const ptrdiff_t distance = step < 0 ? -step : step, between = row < 0 ? -row : row;
    int joined = 1;
    for (size_t i = 0; i < count; i++)
        joined = joined && rows[i] == (ptrdiff_t)w->channels;
    w->rows = w->batch;
    w->piece = w->steps;
    if (joined || w->batch == 1) {
        w->channels *= w->batch;
        w->rows = 1;
    } else if (distance > between) {
        w->piece = frnn_max(PIECE_BYTES / w->itemsize / w->channels, 1);
    }
}

/* The element where a piece of a row begins. */
static const char *at(const walk *w, const void *array, size_t begin, ptrdiff_t step, size_t b,
                      ptrdiff_t row) {
    const ptrdiff_t elements = (ptrdiff_t)begin * step + (ptrdiff_t)b * row;
    return (const char *)array + elements * (ptrdiff_t)w->itemsize;
}

static void row_forward(const frnn_kernels *kernels, const frnn_gated *g, const walk *w, size_t b,
                        size_t begin) {
    const frnn_gated_scan scan = {
        .steps = frnn_min(w->piece, w->steps - begin),
        .channels = w->channels,
        .alpha = at(w, g->alpha, begin, g->alpha_step, b, g->alpha_row),
        .alpha_step = g->alpha_step,
        .v = at(w, g->v, begin, g->v_step, b, g->v_row),
        .v_step = g->v_step,
        .y = (char *)at(w, g->y, begin, g->y_step, b, g->y_row),
        .y_step = g->y_step,
        .state = (char *)at(w, g->state, 0, 0, b, g->state_row),
        .parallel_time = g->parallel_time,
    };
    kernels->gated(&scan);
}

frnn_status frnn_gated_leaky(const frnn_gated *g) {
    if (g == NULL || g->struct_size != sizeof *g)
        return FRNN_E_ARG;
    walk w = {g->steps, g->batch, g->channels, frnn_itemsize(g->dtype), 0, 0};
    const void *const arrays[] = {g->alpha, g->v, g->y};
    const frnn_status status = check(g->dtype, &w, arrays, 3, g->state, g->state);
    if (status != FRNN_OK)
        return status;
    const frnn_kernels *kernels = frnn_kernels_active(g->dtype);
    if (kernels == NULL)
        return FRNN_E_ISA;
    if (w.steps == 0 || w.batch == 0 || w.channels == 0)
        return FRNN_OK;
    const ptrdiff_t rows[] = {g->alpha_row, g->v_row, g->y_row, g->state_row};
    plan(&w, rows, 4, g->y_step, g->y_row);
    for (size_t begin = 0; begin < w.steps; begin += frnn_min(w.piece, w.steps - begin)) {
        for (size_t b = 0; b < w.rows; b++)
            row_forward(kernels, g, &w, b, begin);
    }
    return FRNN_OK;
}

static void row_backward(const frnn_kernels *kernels, const frnn_gated_back *g, const walk *w,
                         size_t b, size_t begin, size_t end) {
    frnn_gated_scan_back scan = {
        .steps = end - begin,
        .channels = w->channels,
        .alpha = at(w, g->alpha, begin, g->alpha_step, b, g->alpha_row),
        .alpha_step = g->alpha_step,
        .v = at(w, g->v, begin, g->v_step, b, g->v_row),
        .v_step = g->v_step,
        .y = at(w, g->y, begin, g->y_step, b, g->y_row),
        .y_step = g->y_step,
        .dy_step = g->dy_step,
        .state = at(w, g->state, 0, 0, b, g->state_row),
        .dalpha = (char *)at(w, g->dalpha, begin, g->dalpha_step, b, g->dalpha_row),
        .dalpha_step = g->dalpha_step,
        .dv = (char *)at(w, g->dv, begin, g->dv_step, b, g->dv_row),
        .dv_step = g->dv_step,
        .carry = (char *)at(w, g->dstate, 0, 0, b, g->dstate_row),
        .parallel_time = g->parallel_time,
    };
    if (g->dy != NULL)
        scan.dy = at(w, g->dy, begin, g->dy_step, b, g->dy_row);
    if (begin > 0)
        scan.state = at(w, g->y, begin - 1, g->y_step, b, g->y_row);
    kernels->gated_back(&scan);
}

frnn_status frnn_gated_leaky_backward(const frnn_gated_back *g) {
    if (g == NULL || g->struct_size != sizeof *g)
        return FRNN_E_ARG;
    walk w = {g->steps, g->batch, g->channels, frnn_itemsize(g->dtype), 0, 0};
    const void *const arrays[] = {g->alpha, g->v, g->y, g->dalpha, g->dv};
    const frnn_status status = check(g->dtype, &w, arrays, 5, g->state, g->dstate);
    if (status != FRNN_OK)
        return status;
    const frnn_kernels *kernels = frnn_kernels_active(g->dtype);
    if (kernels == NULL)
        return FRNN_E_ISA;
    if (w.steps == 0 || w.batch == 0 || w.channels == 0)
        return FRNN_OK;
    const ptrdiff_t rows[] = {
        g->alpha_row, g->v_row,     g->y_row,      g->dalpha_row,
        g->dv_row,    g->state_row, g->dstate_row, g->dy == NULL ? g->y_row : g->dy_row};
    plan(&w, rows, 8, g->y_step, g->y_row);
    for (size_t end = w.steps; end > 0;) {
        const size_t begin = end - frnn_min(w.piece, end);
        for (size_t b = w.rows; b-- > 0;)
            row_backward(kernels, g, &w, b, begin, end);
        end = begin;
    }
    return FRNN_OK;
}
