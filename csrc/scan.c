/* SPDX-License-Identifier: MIT
 *
 * Linear recurrences: cells without a product, one sequence of the batch after the other.
 */
#include "internal.h"

/* Steps of a row of the batch. */
static size_t row_steps(const frnn_ragged *ragged, size_t steps, size_t b) {
    return ragged != NULL && ragged->lengths != NULL ? ragged->lengths[b] : steps;
}

/* In pieces, the state before each of which is kept for the backward. */
static void scan_saved(const frnn_part_run *run, frnn_scan *scan, size_t b) {
    const frnn_part *part = run->part;
    const size_t width = part->width * run->itemsize, ld = part->ld * run->itemsize;
    char *saved = run->saved + FRNN_HEADER_SIZE + run->layout->c + b * ld;
    const size_t steps = scan->steps;
    for (size_t begin = 0; begin < steps; begin += FRNN_SCAN_PIECE) {
        scan->steps = frnn_min(FRNN_SCAN_PIECE, steps - begin);
        memcpy(saved, scan->h, width);
        run->kernels->scan(scan);
        saved += run->batch * ld;
        scan->x = (const char *)scan->x + FRNN_SCAN_PIECE * scan->x_step * (ptrdiff_t)run->itemsize;
        scan->y = (char *)scan->y + FRNN_SCAN_PIECE * scan->y_step * (ptrdiff_t)run->itemsize;
        if (scan->reset != NULL)
            scan->reset += FRNN_SCAN_PIECE * scan->reset_step;
    }
}

void frnn_part_scan(const frnn_part_run *run) {
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    const unsigned char *const reset = run->ragged != NULL ? run->ragged->reset : NULL;
    for (size_t b = 0; b < run->batch; b++) {
        frnn_scan scan = {
            .steps = row_steps(run->ragged, run->steps, b),
            .channels = part->hidden_size,
            .x = run->x + (ptrdiff_t)b * run->x_row * itemsize,
            .x_step = run->x_step,
            .y = run->y + (ptrdiff_t)b * run->y_row * itemsize,
            .y_step = run->y_step,
            .alpha = run->packed + part->vector,
            .h = run->state + part->h + b * part->ld * run->itemsize,
            .parallel_time = run->parallel_time,
        };
        if (reset != NULL) {
            scan.reset = reset + b;
            scan.reset_step = run->batch;
            scan.h0 = run->scratch;
            memcpy(run->scratch, scan.h, part->width * run->itemsize);
        }
        for (size_t t = scan.steps; t < run->steps; t++)
            memset((char *)scan.y + (ptrdiff_t)t * scan.y_step * itemsize, 0,
                   part->hidden_size * run->itemsize);
        if (run->saved == NULL)
            run->kernels->scan(&scan);
        else
            scan_saved(run, &scan, b);
    }
}

/* All pieces of one sequence, from the last to the first. */
static void scan_row_back(const frnn_part_back *run, size_t b) {
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    const size_t row = b * part->ld * run->itemsize;
    const size_t state_bytes = run->batch * part->ld * run->itemsize;
    const unsigned char *const reset = run->ragged != NULL ? run->ragged->reset : NULL;
    const size_t steps = row_steps(run->ragged, run->steps, b);
    if (reset != NULL)
        memset(run->scratch, 0, part->width * run->itemsize);
    for (size_t piece = (steps + FRNN_SCAN_PIECE - 1) / FRNN_SCAN_PIECE; piece-- > 0;) {
        const size_t begin = piece * FRNN_SCAN_PIECE;
        frnn_scan_back scan = {
            .steps = frnn_min(FRNN_SCAN_PIECE, steps - begin),
            .channels = part->hidden_size,
            .x = run->x + ((ptrdiff_t)begin * run->x_step + (ptrdiff_t)b * run->x_row) * itemsize,
            .x_step = run->x_step,
            .dy_step = run->dy_step,
            .dx_step = run->dx_step,
            .alpha = run->vectors,
            .h = run->saved + run->layout->c + piece * state_bytes + row,
            .carry = run->carry + row,
            .dalpha = run->dh, /* which has no other use here */
            .parallel_time = run->parallel_time,
        };
        if (reset != NULL) {
            scan.reset = reset + begin * run->batch + b;
            scan.reset_step = run->batch;
            scan.h0 = run->saved + run->layout->c + row;
            scan.carry0 = run->scratch;
        }
        if (run->dy != NULL && begin + scan.steps > run->dy_begin) {
            scan.dy =
                run->dy + ((ptrdiff_t)begin * run->dy_step + (ptrdiff_t)b * run->dy_row) * itemsize;
            scan.dy_begin = run->dy_begin > begin ? run->dy_begin - begin : 0;
        }
        if (run->dx != NULL)
            scan.dx =
                run->dx + ((ptrdiff_t)begin * run->dx_step + (ptrdiff_t)b * run->dx_row) * itemsize;
        memset(run->dh, 0, part->width * run->itemsize);
        run->kernels->scan_back(&scan);
        frnn_total_add(run->total_vectors, run->dh, part->hidden_size, run->itemsize);
    }
    if (reset != NULL)
        run->kernels->add(run->scratch, run->carry + row, part->hidden_size);
}

void frnn_part_scan_back(const frnn_part_back *run) {
    for (size_t b = 0; b < run->batch; b++)
        scan_row_back(run, b);
    if (run->gradients != NULL)
        frnn_total_store(run, run->total_vectors, run->part->hidden_size, run->gradients->alpha);
}
