/* SPDX-License-Identifier: MIT
 *
 * The time loop backwards: one layer in one direction, any cell that has gates. Visit by visit from
 * the last to the first, gradients of pre-activations are found; for a chunk of visits they are
 * kept, and give the gradients of parameters (sums.c) and input in a few large products.
 */
#include "back.h"

/* The gradients of a chunk stay in L2; those of large nets are a part of what each chunk has to add
 * to the gradients of the weights. */
#define CHUNK_BYTES (512 * 1024)
#define CHUNK_PART  4

/* The smallest common multiple, SIZE_MAX if there is none in range. */
static size_t common_multiple(size_t a, size_t b) {
    size_t x = a, y = b, product = a;
    while (y != 0) {
        const size_t rest = x % y;
        x = y;
        y = rest;
    }
    return a == SIZE_MAX || !frnn_mul(&product, b / x) ? SIZE_MAX : product;
}

size_t frnn_checkpoint_unit(const frnn_config *net, size_t batch) {
    size_t unit = 1, rows = batch;
    if (frnn_config_check(net) != FRNN_OK)
        return SIZE_MAX;
    for (size_t layer = 0; layer < (net->dilated ? net->num_layers : 1); layer++) {
        const frnn_part part = frnn_part_shape(net, layer);
        rows = batch;
        if (!frnn_mul(&rows, part.span))
            return SIZE_MAX;
        unit = common_multiple(unit, part.span * frnn_sum_steps(rows));
    }
    return unit;
}

size_t frnn_sum_steps(size_t batch) {
    return frnn_max(FRNN_SUM_ROWS / frnn_max(batch, 1), 1);
}

size_t frnn_super_steps(size_t batch) {
    return batch <= FRNN_SUM_ROWS ? FRNN_SUPER_ROWS / FRNN_SUM_ROWS * frnn_sum_steps(batch)
                                  : frnn_max(FRNN_SUPER_ROWS / batch, 1);
}

/* ---- Scratch ------------------------------------------------------------------------------- */

/* Staggered as all rows are. */
size_t frnn_dz_row(const frnn_part *part) {
    const size_t columns = part->dz_slots * part->dz_units;
    return (columns + FRNN_BLOCK - 1) / FRNN_BLOCK * FRNN_BLOCK + FRNN_STAGGER;
}

size_t frnn_x_row(const frnn_part *part) {
    return (part->input_size - 1) / FRNN_BLOCK * FRNN_BLOCK + FRNN_BLOCK + FRNN_STAGGER;
}

/* Visits of a chunk: whole chains of the sums, and no more than one of their super-sums. */
size_t frnn_back_chunk_visits(const frnn_part *part, size_t itemsize, size_t batch) {
    const size_t unit = frnn_sum_steps(batch);
    const size_t bytes = unit * batch * frnn_dz_row(part) * itemsize;
    const size_t most = frnn_super_steps(batch) / unit;
    const size_t weights = part->gates * part->hidden_size * (part->input_size + part->output_size);
    const size_t target = frnn_max(CHUNK_BYTES, weights * itemsize / CHUNK_PART);
    return unit * frnn_min(frnn_max(target / frnn_max(bytes, 1), 1), most);
}

size_t frnn_back_reach(const frnn_part *part) {
    return (part->history[0] - 1) / part->span + 1;
}

int frnn_back_layout(const frnn_part *part, size_t itemsize, size_t steps, size_t batch, int ragged,
                     frnn_back_space *w) {
    w->size = 0;
    size_t most = frnn_dz_row(
        part); /* bytes of a chain, which frnn_back_chunk_visits() multiplies unchecked */
    if (!frnn_mul(&most, frnn_max(batch, FRNN_SUM_ROWS)) || !frnn_mul(&most, itemsize))
        return 0;
    steps = frnn_min(steps, frnn_back_chunk_visits(part, itemsize, batch));
    const size_t inner = part->projected || part->reset_before, some = ragged ? batch : 0;
    const size_t longest = frnn_max(part->h_ld, part->ld);
    return frnn_append(&w->size, &w->dz, steps + frnn_back_reach(part), batch, frnn_dz_row(part),
                       itemsize) &&
           frnn_append(&w->size, &w->h, steps, batch, part->h_ld, itemsize) &&
           frnn_append(&w->size, &w->x, steps, batch, frnn_x_row(part), itemsize) &&
           frnn_append(&w->size, &w->dp, part->projected ? steps : 0, batch, part->h_ld,
                       itemsize) &&
           frnn_append(&w->size, &w->inner, inner * steps, batch, part->ld, itemsize) &&
           frnn_append(&w->size, &w->dinner, inner, batch, part->ld, itemsize) &&
           frnn_append(&w->size, &w->partial, steps, batch, FRNN_PARTIAL, itemsize) &&
           frnn_append(&w->size, &w->sum, 1, 1, frnn_dz_row(part), itemsize) &&
           frnn_append(&w->size, &w->lanes, part->mask_blocks > 0, part->h_ld, FRNN_BLOCK,
                       itemsize) &&
           frnn_append(&w->size, &w->dy, some, part->output_size, 1, itemsize) &&
           frnn_append(&w->size, &w->dz_next, some, frnn_dz_row(part), 1, itemsize) &&
           frnn_append(&w->size, &w->c_prev, some, part->ld, 1, itemsize) &&
           frnn_append(&w->size, &w->dh0, some, part->h_ld, 1, itemsize) &&
           frnn_append(&w->size, &w->dcarry0, some, part->ld, 1, itemsize) &&
           frnn_append(&w->size, &w->row, some > 0, part->h_ld, 1, itemsize) &&
           frnn_append(&w->size, &w->sorted, some, longest, 1, itemsize);
}

int frnn_part_back_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                           int ragged, size_t *size) {
    frnn_back_space w = {0};
    if (part->gates > 0 && part->structured)
        return frnn_rows_back_scratch(part, itemsize, steps, batch, ragged, size);
    if (part->gates == 0) /* what arrives at the initial state of a row */
        w.size = ragged ? part->ld * itemsize : 0;
    else if (!frnn_back_layout(part, itemsize, steps, batch, ragged, &w))
        return 0;
    *size = w.size;
    return 1;
}

/* ---- Visits -------------------------------------------------------------------------------- */

/* Visit i of a ragged batch, counted as the forward did. */
static size_t forward_visit(const frnn_part_back *run, size_t i) {
    return run->steps - 1 - i;
}

/* The step of visit i of an even one. */
static size_t step_at(const frnn_part_back *run, size_t i) {
    return run->reverse ? i : run->steps - 1 - i;
}

/* Visits of several steps are counted from the end, so that the first of all may have fewer. */
size_t frnn_back_first(const frnn_part_back *run, size_t i) {
    const size_t end = run->times - i * run->span;
    return end > run->span ? end - run->span : 0;
}

size_t frnn_back_rows(const frnn_part_back *run, size_t i) {
    if (run->span > 0)
        return (run->times - i * run->span - frnn_back_first(run, i)) * run->rows;
    return run->ragged == NULL ? run->batch : frnn_ragged_rows(run->ragged, forward_visit(run, i));
}

size_t frnn_back_saved_row(const frnn_part_back *run, size_t i) {
    if (run->span > 0)
        return run->first + frnn_back_first(run, i) * run->rows;
    return run->ragged == NULL ? step_at(run, i) * run->batch
                               : run->ragged->offset[forward_visit(run, i)];
}

ptrdiff_t frnn_back_at(const frnn_part_back *run, size_t i, size_t row, ptrdiff_t step,
                       ptrdiff_t row_step) {
    size_t t, b = row;
    if (run->span > 0) {
        t = frnn_back_first(run, i) + row / run->rows;
        b = row % run->rows;
    } else if (run->ragged == NULL) {
        t = step_at(run, i);
    } else {
        t = frnn_ragged_time(run->ragged, row, forward_visit(run, i), run->reverse);
        b = run->ragged->order[row];
    }
    return (ptrdiff_t)t * step + (ptrdiff_t)b * row_step;
}

int frnn_back_restarts(const frnn_part_back *run, size_t i, size_t row) {
    return run->ragged != NULL &&
           frnn_ragged_restarts(run->ragged, row, forward_visit(run, i), run->reverse);
}

char *frnn_back_dz(const frnn_part_back *run, const frnn_back_space *w) {
    const frnn_part *part = run->part;
    return run->scratch + w->dz +
           frnn_back_reach(part) * run->batch * frnn_dz_row(part) * run->itemsize;
}

/* Through the projection: what arrives at its output, to dp, and then at the cell. */
static void unproject(const frnn_part_back *run, const frnn_back_space *w,
                      const frnn_step_back *step, size_t continued, char *dp, void *inner) {
    const frnn_part *part = run->part;
    const size_t itemsize = run->itemsize, row = part->h_ld * itemsize, rows = step->row_end;
    frnn_back_recurrent(run, w, continued, 0, step->dz_next, dp, step->partial);
    memcpy(dp + continued * row, run->dh + continued * row, (rows - continued) * row);
    for (size_t b = 0; b < rows && step->dy != NULL; b++)
        run->kernels->add((const char *)step->dy +
                              (ptrdiff_t)b * step->dy_row * (ptrdiff_t)itemsize,
                          dp + b * row, part->output_size);
    frnn_back_unproject(run, rows, dp, inner, step->partial);
}

frnn_step_back frnn_back_step(const frnn_part_back *run, const frnn_back_space *w) {
    const frnn_part *part = run->part;
    const frnn_step_back step = {
        .block_end = part->blocks,
        .hidden_size = part->hidden_size,
        .net = run->net,
        .plain = run->plain,
        .w_hh = run->w_hh,
        .vectors = part->vectors > 0 ? run->vectors : NULL,
        .vector_size = part->width,
        .dz_row = frnn_dz_row(part),
        .dz_gate = part->dz_units,
        .dy_row = run->dy_row,
        .gates_row = frnn_gates_row(part),
        .dh = part->projected ? run->scratch + w->dinner : run->dh,
        .carry = run->carry,
        .dvectors = run->dvectors,
        .dvector_size = run->batch * part->ld,
        .reset_dh = part->reset_before ? run->scratch + w->dinner : NULL,
        .delays = part->num_delays,
        .delay_matrix = part->gates * part->output_blocks * FRNN_BLOCK * part->hidden_size,
        .lists = part->mask_blocks > 0 ? &run->lists : NULL,
        .lanes = run->scratch + w->lanes,
        .ld = part->ld,
        .partial = run->scratch + w->partial,
    };
    return step;
}

/* What was saved of visit i. */
static void step_saved(const frnn_part_back *run, size_t i, frnn_step_back *step) {
    const frnn_part *part = run->part;
    const frnn_cell_info *cell = frnn_cell_get(run->net->cell);
    const size_t row = frnn_back_saved_row(run, i), c_row = part->ld * run->itemsize;
    const char *const c = run->saved + run->layout->c;
    step->gates = run->saved + run->layout->gates + row * frnn_gates_row(part) * run->itemsize;
    if (!cell->history)
        return;
    step->c = c + row * c_row;
    step->c_prev = i + 1 == run->steps
                       ? run->saved + (cell->memory ? run->layout->c0 : run->layout->h0)
                       : c + frnn_back_saved_row(run, i + 1) * c_row;
}

/* The kernel, for rows of which the first `continued` go on in the visit after this. */
static void step_run(const frnn_part_back *run, const frnn_back_space *w, frnn_step_back *step,
                     size_t continued, char *dp, void *inner) {
    const size_t rows = step->row_end;
    if (run->part->projected) {
        unproject(run, w, step, continued, dp, inner);
        step->dz_next = step->dy = NULL;
        continued = 0;
    } else if (step->lists != NULL) {
        frnn_back_recurrent(run, w, continued, 0, step->dz_next, run->dh, step->partial);
        continued = 0;
    }
    if (continued > 0) {
        step->row_begin = 0;
        step->row_end = continued;
        run->kernels->step_back[run->net->cell](step);
    }
    step->row_begin = continued;
    step->row_end = rows;
    step->dz_next = NULL;
    if (continued < rows)
        run->kernels->step_back[run->net->cell](step);
    step->row_begin = 0;
}

/* ---- Rows that start anew -------------------------------------------------------------------- */

/* The state that a visit started from, as step_saved() left it, where rows start anew. */
static void restore_start(const frnn_part_back *run, const frnn_back_space *w, size_t i,
                          frnn_step_back *step) {
    const frnn_cell_info *cell = frnn_cell_get(run->net->cell);
    const size_t row_bytes = run->part->ld * run->itemsize;
    char *const c_prev = run->scratch + w->c_prev;
    const char *const c0 = run->saved + (cell->memory ? run->layout->c0 : run->layout->h0);
    if (!cell->history)
        return;
    memcpy(c_prev, step->c_prev, step->row_end * row_bytes);
    for (size_t row = 0; row < step->row_end; row++)
        if (frnn_back_restarts(run, i, row))
            memcpy(c_prev + row * row_bytes, c0 + row * row_bytes, row_bytes);
    step->c_prev = c_prev;
}

/* After visit i: what rows that started anew there give goes to the initial state, and nothing to
 * the visit before; returns dz as that is to see it. */
static char *cut(const frnn_part_back *run, const frnn_back_space *w, size_t i, size_t rows,
                 char *dz) {
    const frnn_part *part = run->part;
    const size_t dz_bytes = frnn_dz_row(part) * run->itemsize;
    const size_t h_bytes = part->h_ld * run->itemsize, c_bytes = part->ld * run->itemsize;
    char *const next = run->scratch + w->dz_next, *const given = run->scratch + w->row;
    memcpy(next, dz, rows * dz_bytes);
    for (size_t row = 0; row < rows; row++) {
        if (!frnn_back_restarts(run, i, row))
            continue;
        char *const carry = run->carry + row * c_bytes;
        if (part->recurrent) {
            frnn_back_recurrent(run, w, 1, 0, dz + row * dz_bytes, given,
                                run->scratch + w->partial);
            run->kernels->add(given, run->scratch + w->dh0 + row * h_bytes, part->output_size);
        }
        run->kernels->add(carry, run->scratch + w->dcarry0 + row * c_bytes, part->hidden_size);
        memset(carry, 0, c_bytes);
        memset(next + row * dz_bytes, 0, dz_bytes);
    }
    return next;
}

/* ---- Visits of a chunk ----------------------------------------------------------------------- */

/* dy of visit i; of a ragged batch its rows are gathered. */
static const char *dy_at(const frnn_part_back *run, const frnn_back_space *w, size_t i,
                         frnn_step_back *step) {
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    if (run->dy == NULL)
        return NULL;
    if (run->ragged == NULL) {
        const size_t t = step_at(run, i);
        return t < run->dy_begin ? NULL : run->dy + (ptrdiff_t)t * run->dy_step * itemsize;
    }
    const size_t bytes = run->part->output_size * run->itemsize;
    char *const rows = run->scratch + w->dy, *to = rows;
    step->dy_row = (ptrdiff_t)run->part->output_size;
    for (size_t row = 0; row < step->row_end; row++, to += bytes) {
        const size_t t = frnn_ragged_time(run->ragged, row, forward_visit(run, i), run->reverse);
        if (t < run->dy_begin)
            memset(to, 0, bytes);
        else
            memcpy(to, run->dy + frnn_back_at(run, i, row, run->dy_step, run->dy_row) * itemsize,
                   bytes);
    }
    return rows;
}

/* dz of the visits of a chunk, and dh and carry before them. */
static void visit_steps(const frnn_part_back *run, const frnn_back_space *w, frnn_back_chunk *chunk,
                        char **next) {
    const frnn_part *part = run->part;
    const size_t dz_row = frnn_dz_row(part) * run->itemsize;
    const size_t chain = frnn_sum_steps(run->batch);
    char *dz = frnn_back_dz(run, w), *dp = run->scratch + w->dp;
    frnn_step_back step = frnn_back_step(run, w);
    chunk->rows = 0;
    for (size_t i = chunk->first; i < chunk->first + chunk->count; i++) {
        const size_t rows = frnn_back_rows(run, i);
        const size_t continued = i == 0 ? 0 : frnn_back_rows(run, i - 1);
        const int restarts =
            run->ragged != NULL &&
            frnn_ragged_any_restart(run->ragged, forward_visit(run, i), run->reverse);
        step.row_end = rows;
        step.backwards = i % 2 == 1;
        step.dz_next = *next;
        step.dz = dz;
        step.dy = dy_at(run, w, i, &step);
        step_saved(run, i, &step);
        if (restarts)
            restore_start(run, w, i, &step);
        step_run(run, w, &step, continued, dp, run->scratch + w->dinner);
        *next = restarts ? cut(run, w, i, rows, dz) : dz;
        dz += rows * dz_row;
        dp += rows * part->h_ld * run->itemsize;
        chunk->rows += rows;
        if (run->dvectors != NULL &&
            ((run->position + i + 1) % chain == 0 || (run->last && i + 1 == run->steps)))
            frnn_back_vectors(run, w);
    }
}

/* dh before the first visit of the stretch; at the first of all, the gradient of the state. */
static void visit_initial(const frnn_part_back *run, const frnn_back_space *w, const char *dz) {
    const frnn_part *part = run->part;
    const frnn_cell_info *cell = frnn_cell_get(run->net->cell);
    const size_t elements = run->batch * part->ld, h_elements = run->batch * part->h_ld;
    if (part->recurrent)
        frnn_back_recurrent(run, w, frnn_back_rows(run, run->steps - 1), 0, dz, run->dh,
                            run->scratch + w->partial);
    if (run->ragged != NULL && run->ragged->reset != NULL) {
        run->kernels->add(run->scratch + w->dh0, run->dh, h_elements);
        run->kernels->add(run->scratch + w->dcarry0, run->carry, elements);
    }
    if (!run->last || !cell->direct)
        return;
    const frnn_step_back step = {
        .row_end = run->batch,
        .block_end = part->blocks,
        .hidden_size = part->hidden_size,
        .net = run->net,
        .c_prev = cell->memory ? run->saved + run->layout->c0 : NULL,
        .dh = run->dh,
        .carry = run->carry,
        .ld = part->ld,
    };
    run->kernels->step_back[run->net->cell](&step);
}

/* ---- All of it ------------------------------------------------------------------------------ */

/* dh and carry of a ragged batch, from the order of the caller's rows to that of the visits, or
 * back. */
static void turn_adjoint(const frnn_part_back *run, const frnn_back_space *w,
                         void (*turn)(const frnn_ragged *, const char *, char *, size_t)) {
    char *const sorted = run->scratch + w->sorted;
    const size_t h_bytes = run->part->h_ld * run->itemsize;
    const size_t c_bytes = run->part->ld * run->itemsize;
    turn(run->ragged, run->dh, sorted, h_bytes);
    memcpy(run->dh, sorted, run->batch * h_bytes);
    turn(run->ragged, run->carry, sorted, c_bytes);
    memcpy(run->carry, sorted, run->batch * c_bytes);
}

static void backward(const frnn_part_back *run) {
    const frnn_part *part = run->part;
    const size_t dz_row = frnn_dz_row(part) * run->itemsize;
    const size_t super = frnn_super_steps(run->batch);
    const size_t most = frnn_back_chunk_visits(part, run->itemsize, run->batch);
    frnn_back_space w;
    frnn_back_layout(part, run->itemsize, run->steps, run->batch, run->ragged != NULL, &w);
    char *const kept = run->scratch + w.dz, *next = NULL;
    if (run->ragged != NULL) {
        turn_adjoint(run, &w, frnn_ragged_sort);
        memset(run->scratch + w.dh0, 0, run->batch * part->h_ld * run->itemsize);
        memset(run->scratch + w.dcarry0, 0, run->batch * part->ld * run->itemsize);
    }
    for (size_t first = 0; first < run->steps;) {
        const uint64_t position = run->position + first;
        const size_t to_super = super - (size_t)(position % super);
        frnn_back_chunk chunk = {
            .first = first,
            .count = frnn_min(frnn_min(most, to_super), run->steps - first),
        };
        const int end = run->last && first + chunk.count == run->steps;
        visit_steps(run, &w, &chunk, &next);
        if (run->gradients != NULL)
            frnn_back_sums(run, &w, &chunk);
        if (run->dx != NULL)
            frnn_back_input(run, &w, &chunk);
        if (run->gradients != NULL && !frnn_back_direct(run, position) &&
            (chunk.count == to_super || end))
            frnn_back_fold(run);
        first += chunk.count;
        /* the last dz goes before the next chunk's */
        if (next != run->scratch + w.dz_next) {
            memcpy(kept, next, frnn_back_rows(run, first - 1) * dz_row);
            next = kept;
        }
    }
    visit_initial(run, &w, next);
    if (run->ragged != NULL)
        turn_adjoint(run, &w, frnn_ragged_unsort);
    if (run->gradients != NULL && run->last)
        frnn_back_totals(run);
}

void frnn_part_backward(const frnn_part_back *run) {
    if (run->part->structured)
        frnn_rows_backward(run);
    else
        backward(run);
}
