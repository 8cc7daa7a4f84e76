/* SPDX-License-Identifier: MIT
 *
 * Linear recurrences: cells without a product, one sequence of the batch after the other.
 */
#include "internal.h"

void frnn_part_scan(const frnn_part_run *run) {
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    for (size_t b = 0; b < run->batch; b++) {
        const frnn_scan scan = {
            .steps = run->steps,
            .channels = part->hidden_size,
            .x = run->x + (ptrdiff_t)b * run->x_row * itemsize,
            .x_step = run->x_step,
            .y = run->y + (ptrdiff_t)b * run->y_row * itemsize,
            .y_step = run->y_step,
            .alpha = run->packed + part->alpha,
            .h = run->state + part->h + b * part->ld * run->itemsize,
            .parallel_time = run->parallel_time,
        };
        run->kernels->scan(&scan);
    }
}
