/* SPDX-License-Identifier: MIT
 *
 * Arrays [steps, batch, width] of the caller, with any strides, in memory between guards.
 */
#ifndef FRNN_GRID_H
#define FRNN_GRID_H

#include "library_check.h"

/* An array [steps, batch, width] somewhere in a frame; strides in elements. */
typedef struct grid {
    frame f;
    ptrdiff_t first, step, row, items;
} grid;

static inline grid grid_new(size_t steps, size_t batch, size_t width, size_t items, int strided) {
    const size_t gap = strided && below(2) ? below(6) : 0,
                 more = strided && below(2) ? below(6) : 0;
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

static inline unsigned char *grid_at(const grid *g, size_t step, size_t row) {
    const ptrdiff_t at = g->first + (ptrdiff_t)step * g->step + (ptrdiff_t)row * g->row;
    return g->f.at + (g->f.size > 0 ? at * g->items : 0);
}

#endif
