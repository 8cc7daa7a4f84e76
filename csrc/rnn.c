/* SPDX-License-Identifier: MIT
 *
 * The time loop: one layer in one direction, any cell that has gates. For a chunk of time the
 * input part of all gates is one product; then step by step the recurrent product is added and the
 * cell runs. The loop knows which past step feeds which; it does no arithmetic on values.
 */
#include "internal.h"

/* The gates of a chunk stay in L2 beside the weights, but a product of fewer rows than this would
 * wait for the weights of its panels. */
#define CHUNK_BYTES (256 * 1024)
#define CHUNK_ROWS  48

/* So few inputs, times so few rows, are multiplied within the step. */
#define FOLD_INPUTS 4
#define FOLD_ROWS   6

size_t frnn_gates_row(const frnn_part *part) {
    return part->gates * part->width + FRNN_STAGGER;
}

/* Rows of gates that are held at a time when there are that many. */
static size_t chunk_rows(const frnn_part *part, size_t itemsize) {
    return frnn_max(CHUNK_BYTES / (frnn_gates_row(part) * itemsize), CHUNK_ROWS);
}

size_t frnn_part_chunk(const frnn_part *part, size_t itemsize, size_t batch) {
    if (part->gates == 0)
        return PTRDIFF_MAX;
    return batch == 0 ? 1 : frnn_max(chunk_rows(part, itemsize) / batch, 1);
}

/* Scratch of a part: gates [rows][blocks][gates][16], then sums [rows][FRNN_PARTIAL]. */
int frnn_part_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                      size_t *size) {
    *size = 0;
    if (part->gates == 0)
        return 1;
    size_t rows = steps;
    if (!frnn_mul(&rows, batch))
        return 0;
    rows = frnn_min(rows, frnn_max(chunk_rows(part, itemsize), batch));
    *size = frnn_gates_row(part) + FRNN_PARTIAL;
    return frnn_mul(size, itemsize) && frnn_mul(size, rows) && *size <= PTRDIFF_MAX;
}

/* The input part of the gates for steps [begin, begin + steps): gates[t - begin][b]. Rows of x
 * that lie evenly spaced in memory go into one product. */
static void project_chunk(const frnn_part_run *run, size_t begin, size_t steps, char *gates,
                          void *partial) {
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize, row = (ptrdiff_t)frnn_gates_row(part);
    const ptrdiff_t batch = (ptrdiff_t)run->batch;
    const char *x = run->x + (ptrdiff_t)begin * run->x_step * itemsize;
    frnn_project p = {
        .k = part->input_size,
        .blocks = part->blocks,
        .gates = part->gates,
        .w = run->packed + part->w_ih,
        .bias = run->packed + part->bias,
        .partial = partial,
    };
    const int even = batch == 1 || run->x_step == batch * run->x_row;
    const int by_row = !even && steps > run->batch;
    const size_t calls = even ? 1 : by_row ? run->batch : steps;
    p.rows = even ? steps * run->batch : by_row ? steps : run->batch;
    p.a_row = batch == 1 || by_row ? run->x_step : run->x_row;
    p.out_row = by_row ? batch * row : row;
    for (size_t i = 0; i < calls; i++) {
        p.a = x + (ptrdiff_t)i * (by_row ? run->x_row : run->x_step) * itemsize;
        p.out = gates + (ptrdiff_t)i * (by_row ? row : batch * row) * itemsize;
        run->kernels->project(&p);
    }
}

/* The state before the first step, to what training saves. */
static void keep_begin(const frnn_part_run *run, const char *h, const char *c, char *saved) {
    const size_t bytes = run->batch * run->part->ld * run->itemsize;
    memcpy(saved + run->layout->h0, h, bytes);
    if (c != NULL)
        memcpy(saved + run->layout->c0, c, bytes);
}

void frnn_part_forward(const frnn_part_run *run) {
    const frnn_part *part = run->part;
    const frnn_cell_info *cell = frnn_cell_get(run->cell);
    const size_t itemsize = run->itemsize, batch = run->batch;
    const size_t chunk = frnn_part_chunk(part, itemsize, batch);
    const size_t gates_bytes = batch * frnn_gates_row(part) * itemsize; /* of a step */
    const size_t state_bytes = batch * part->ld * itemsize;
    const int fold = part->input_size <= FOLD_INPUTS && batch <= FOLD_ROWS;
    char *const h = run->state + part->h, *const c = cell->memory ? run->state + part->c : NULL;
    char *const saved =
        run->saved == NULL ? NULL : run->saved + FRNN_HEADER_SIZE + run->index * run->layout->size;
    /* the arrays that training keeps of every step instead of the state's own */
    char *const saved_c = saved != NULL && cell->history ? saved + run->layout->c : NULL;
    char *const partial =
        run->scratch + (saved != NULL ? 0 : frnn_min(run->steps, chunk) * gates_bytes);
    frnn_step step = {
        .row_end = batch,
        .block_end = part->blocks,
        .hidden_size = part->hidden_size,
        .activation = run->activation,
        .w_hh = run->packed + part->w_hh,
        .alpha = cell->alpha ? run->packed + part->alpha : NULL,
        .h_prev = h + run->position % 2 * state_bytes,
        .c_prev = c,
        .c = c,
        .ld = part->ld,
        .save = saved != NULL,
        .x_row = run->x_row,
        .input_size = part->input_size,
        .w_ih = run->packed + part->w_ih,
        .bias = run->packed + part->bias,
        .partial = partial,
        .gates_row = frnn_gates_row(part),
        .y_row = run->y_row,
    };
    if (saved != NULL && run->begin == 0)
        keep_begin(run, step.h_prev, c, saved);
    uint64_t position = run->position;
    for (size_t done = 0; done < run->steps;) {
        const size_t steps = frnn_min(chunk, run->steps - done);
        const size_t begin = run->reverse ? run->steps - done - steps : done;
        char *const gates = saved == NULL
                                ? run->scratch
                                : saved + run->layout->gates + (run->begin + begin) * gates_bytes;
        if (!fold)
            project_chunk(run, begin, steps, gates, partial);
        for (size_t i = 0; i < steps; i++, position++) {
            const size_t t = run->reverse ? steps - 1 - i : i;
            step.gates = gates + t * gates_bytes;
            if (fold)
                step.x = run->x + (ptrdiff_t)(begin + t) * run->x_step * (ptrdiff_t)itemsize;
            step.h = h + (position + 1) % 2 * state_bytes;
            if (saved_c != NULL) {
                char *const kept = saved_c + (run->begin + begin + t) * state_bytes;
                if (c != NULL)
                    step.c = kept;
                else
                    step.h = kept;
            }
            step.y = run->y + (ptrdiff_t)(begin + t) * run->y_step * (ptrdiff_t)itemsize;
            step.backwards = position % 2 == 1;
            run->kernels->step[run->cell](&step);
            step.h_prev = step.h;
            step.c_prev = step.c;
        }
        done += steps;
    }
    if (saved_c != NULL && run->steps > 0) {
        if (c != NULL)
            memcpy(c, step.c, state_bytes);
        else
            memcpy(h + position % 2 * state_bytes, step.h, state_bytes);
    }
}
