/* SPDX-License-Identifier: MIT
 *
 * The products of the loops backwards: gradients of pre-activations, dz, with the transposed
 * matrices of a part, for what arrives at earlier outputs, at a projection and at the input.
 */
#include "back.h"

/* The product of some gates with the matrix of a delay. */
static void product_back(const frnn_part_back *run, const frnn_back_space *w, size_t rows,
                         size_t delay, size_t first, size_t gates, const void *dz, void *out,
                         void *partial) {
    const frnn_part *part = run->part;
    const size_t gate = part->output_blocks * FRNN_BLOCK * part->hidden_size;
    const frnn_project_back product = {
        .rows = rows,
        .k = part->hidden_size,
        .blocks = part->output_blocks,
        .gates = gates,
        .last = gates - 1,
        .a = dz,
        .a_row = (ptrdiff_t)frnn_dz_row(part),
        .a_gate = part->hidden_size,
        .w = run->w_hh + (delay * part->gates + first) * gate * run->itemsize,
        .out = out,
        .out_row = (ptrdiff_t)part->h_ld,
        .partial = partial,
    };
    /* lists of the last gate lie behind those of all others */
    const size_t lists = part->mask_blocks == 0 ? 0
                                                : run->lists.begin[part->blocks] *
                                                      part->num_delays * first * FRNN_BLOCK;
    if (part->mask_blocks == 0) {
        if (rows > 0)
            run->kernels->project_back(&product);
        return;
    }
    for (size_t row = 0; row < rows; row++) {
        const frnn_lists_back one = {
            .hidden_size = part->hidden_size,
            .k = part->output_size,
            .blocks = part->blocks,
            .gates = gates,
            .last = gates - 1,
            .a = (const char *)dz + row * frnn_dz_row(part) * run->itemsize,
            .lists = &run->lists,
            .w = run->w_hh + lists * run->itemsize,
            .piece = delay,
            .pieces = part->num_delays,
            .lanes = run->scratch + w->lanes,
            .out = (char *)out + row * part->h_ld * run->itemsize,
        };
        run->kernels->lists_back(&one);
    }
}

void frnn_back_recurrent(const frnn_part_back *run, const frnn_back_space *w, size_t rows,
                         size_t delay, const void *dz, void *out, void *partial) {
    const size_t gates = run->part->gates - (run->part->reset_before != 0);
    product_back(run, w, rows, delay, 0, gates, dz, out, partial);
}

void frnn_back_reset(const frnn_part_back *run, const frnn_back_space *w, size_t rows, size_t delay,
                     const char *dz, char *given, char *out, void *partial) {
    const frnn_part *part = run->part;
    const size_t dz_row = frnn_dz_row(part) * run->itemsize, row = part->h_ld * run->itemsize;
    const size_t gate = part->hidden_size * run->itemsize, last = part->gates - 1;
    product_back(run, w, rows, delay, last, 1, dz + last * gate, given, partial);
    for (size_t i = 0; i < rows; i++)
        run->kernels->add_product(given + i * row, dz + i * dz_row + part->gates * gate,
                                  out + i * row, part->hidden_size);
}

void frnn_back_unproject(const frnn_part_back *run, size_t rows, const void *dp, void *inner,
                         void *partial) {
    const frnn_part *part = run->part;
    const frnn_project_back product = {
        .rows = rows,
        .k = part->output_size,
        .blocks = part->blocks,
        .gates = 1,
        .a = dp,
        .a_row = (ptrdiff_t)part->h_ld,
        .w = run->w_hr,
        .out = inner,
        .out_row = (ptrdiff_t)part->ld,
        .partial = partial,
    };
    run->kernels->project_back(&product);
}

void frnn_back_input(const frnn_part_back *run, const frnn_back_space *w,
                     const frnn_back_chunk *chunk) {
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    const size_t row_bytes = frnn_x_row(part) * run->itemsize;
    const char *from = run->scratch + w->x;
    const frnn_project_back product = {
        .rows = chunk->rows,
        .k = part->hidden_size,
        .blocks = (part->input_size - 1) / FRNN_BLOCK + 1,
        .gates = part->gates,
        .last = part->back_slots - 1,
        .a = frnn_back_dz(run, w),
        .a_row = (ptrdiff_t)frnn_dz_row(part),
        .a_gate = part->hidden_size,
        .w = run->w_ih,
        .out = run->scratch + w->x,
        .out_row = (ptrdiff_t)frnn_x_row(part),
        .partial = run->scratch + w->partial,
    };
    run->kernels->project_back(&product);
    for (size_t i = chunk->first; i < chunk->first + chunk->count; i++)
        for (size_t row = 0; row < frnn_back_rows(run, i); row++, from += row_bytes) {
            char *to = run->dx + frnn_back_at(run, i, row, run->dx_step, run->dx_row) * itemsize;
            if (run->dx_add)
                run->kernels->add(from, to, part->input_size);
            else
                memcpy(to, from, part->input_size * run->itemsize);
        }
}
