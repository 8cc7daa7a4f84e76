/* SPDX-License-Identifier: MIT
 *
 * The time loop: one layer in one direction, any cell that has gates. For a chunk of time the
 * input part of all gates is one product; then step by step the recurrent product is added and the
 * cell runs. The loop knows which past step feeds which; it does no arithmetic on values.
 */
#include "loop.h"

/* The gates of a chunk stay in L2 beside the weights, but a product of fewer rows than this would
 * wait for the weights of its panels. */
#define CHUNK_BYTES (256 * 1024)
#define CHUNK_ROWS  48

size_t frnn_gates_row(const frnn_part *part) {
    return part->slots * part->width + FRNN_STAGGER;
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

size_t frnn_loop_rows(const frnn_part *part, size_t itemsize, size_t batch) {
    if (part->span == 1 || batch == 0)
        return batch;
    return frnn_max(frnn_min(part->span, chunk_rows(part, itemsize) / batch), 1) * batch;
}

int frnn_loop_layout(const frnn_part *part, size_t itemsize, size_t steps, size_t batch, int ragged,
                     frnn_workspace *w) {
    size_t rows = steps, inner = batch; /* frnn_loop_rows() or more: sizes never fall with batch */
    const size_t some = ragged ? batch : 0, delays = part->num_delays;
    w->size = 0;
    if (!frnn_mul(&rows, batch) || !frnn_mul(&inner, part->span))
        return 0;
    rows = frnn_min(rows, frnn_max(chunk_rows(part, itemsize), batch));
    inner = frnn_min(inner, frnn_max(chunk_rows(part, itemsize), batch));
    if (!part->projected && !part->reset_before)
        inner = 0;
    return frnn_append(&w->size, &w->gates, rows, frnn_gates_row(part), 1, itemsize) &&
           frnn_append(&w->size, &w->partial, rows + FRNN_PARTIAL_ROWS, FRNN_PARTIAL, 1,
                       itemsize) &&
           frnn_append(&w->size, &w->inner, inner, part->reset_before ? delays : 1, part->ld,
                       itemsize) &&
           frnn_append(&w->size, &w->x, ragged ? rows : 0, part->input_size, 1, itemsize) &&
           frnn_append(&w->size, &w->y, some, part->output_size, 1, itemsize) &&
           frnn_append(&w->size, &w->h, 2, some, part->h_ld, itemsize) &&
           frnn_append(&w->size, &w->c, some, part->ld, 1, itemsize) &&
           frnn_append(&w->size, &w->h0, some, part->h_ld, 1, itemsize) &&
           frnn_append(&w->size, &w->c0, some, part->ld, 1, itemsize) &&
           frnn_append(&w->size, &w->h_prev, some, part->h_ld, 1, itemsize) &&
           frnn_append(&w->size, &w->c_prev, some, part->ld, 1, itemsize) &&
           frnn_append(&w->size, &w->blend_h, part->interpolated ? delays : 0, batch, part->h_ld,
                       itemsize) &&
           frnn_append(&w->size, &w->blend_c, part->interpolated, batch, part->ld, itemsize) &&
           frnn_append(&w->size, &w->next, part->groups > 0, batch, part->h_ld, itemsize);
}

int frnn_part_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                      int ragged, size_t *size) {
    frnn_workspace w = {0};
    *size = 0;
    if (part->gates == 0) /* the initial state of a row */
        *size = ragged ? part->ld * itemsize : 0;
    else if (part->structured)
        return frnn_rows_scratch(part, itemsize, steps, batch, ragged, size);
    else if (!frnn_loop_layout(part, itemsize, steps, batch, ragged, &w))
        return 0;
    else
        *size = w.size;
    return 1;
}

/* Rows of x that lie evenly spaced in memory go into one product. */
void frnn_loop_project(const frnn_part_run *run, size_t begin, size_t steps, char *gates,
                       void *partial) {
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize, row = (ptrdiff_t)frnn_gates_row(part);
    const ptrdiff_t batch = (ptrdiff_t)run->batch;
    const char *x = run->x + (ptrdiff_t)begin * run->x_step * itemsize;
    frnn_project p = {
        .k = part->input_size,
        .blocks = part->blocks,
        .gates = part->gates,
        .apart = part->slots > part->gates,
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

char *frnn_saved_part(const frnn_part_run *run) {
    return run->saved + FRNN_HEADER_SIZE + run->index * run->layout->size;
}

void frnn_keep_begin(const frnn_part_run *run, const char *h, const char *c) {
    const size_t rows = run->batch * run->itemsize;
    memcpy(frnn_saved_part(run) + run->layout->h0, h, rows * run->part->h_ld);
    if (c != NULL)
        memcpy(frnn_saved_part(run) + run->layout->c0, c, rows * run->part->ld);
}

void frnn_loop_begin(frnn_loop *l, const frnn_part_run *run, const frnn_workspace *w, char *h,
                     char *c) {
    const frnn_part *part = run->part;
    const size_t itemsize = run->itemsize;
    const int history = frnn_cell_get(run->net->cell)->history;
    const size_t reset = frnn_loop_rows(part, itemsize, run->batch) * part->ld * itemsize;
    l->run = run;
    l->w = *w;
    l->h_bytes = part->h_ld * itemsize;
    l->c_bytes = part->ld * itemsize;
    l->gates_bytes = frnn_gates_row(part) * itemsize;
    l->fold = part->input_size <= FRNN_FOLD_INPUTS && run->batch <= FRNN_FOLD_ROWS;
    l->h = h;
    l->c = c;
    l->kept_h = l->kept_c = NULL;
    l->step = (frnn_step){
        .row_end = run->batch,
        .block_end = part->blocks,
        .hidden_size = part->hidden_size,
        .net = run->net,
        .plain = run->plain,
        .recurrent_size = part->num_delays * part->output_size,
        .w_hh = part->recurrent ? run->packed + part->w_hh : NULL,
        .pieces = l->pieces,
        .num_pieces = part->num_delays,
        .past_row = part->h_ld,
        .vectors = part->vectors > 0 ? run->packed + part->vector : NULL,
        .vector_size = part->width,
        .reset_pieces = part->reset_before ? l->reset_pieces : NULL,
        .c_prev = c,
        .c = c,
        .ld = part->ld,
        .save = run->saved != NULL,
        .x_row = run->x_row,
        .input_size = part->input_size,
        .w_ih = run->packed + part->w_ih,
        .bias = run->packed + part->bias,
        .partial = run->scratch + w->partial,
        .gates_row = frnn_gates_row(part),
        .y_row = run->y_row,
    };
    for (size_t i = 0; i < part->num_delays; i++)
        l->pieces[i] = (frnn_piece){.k = part->output_size};
    for (size_t i = 0; part->reset_before && i < part->num_delays; i++)
        l->reset_pieces[i] =
            (frnn_piece){run->scratch + w->inner + i * reset, part->output_size, NULL};
    if (part->mask_blocks > 0) {
        l->lists = frnn_lists_at(part, run->packed + part->list_begin, run->packed + part->list_k,
                                 run->packed + part->list_units);
        l->step.lists = &l->lists;
    }
    if (run->saved != NULL) {
        if (c != NULL && history)
            l->kept_c = frnn_saved_part(run) + run->layout->c;
        if (part->projected)
            l->kept_h = frnn_saved_part(run) + run->layout->h;
        else if (c == NULL && history)
            l->kept_h = frnn_saved_part(run) + run->layout->c;
    }
}

char *frnn_loop_gates(const frnn_loop *l, size_t row) {
    return l->run->saved == NULL
               ? l->run->scratch + l->w.gates
               : frnn_saved_part(l->run) + l->run->layout->gates + row * l->gates_bytes;
}

void frnn_loop_output(const frnn_loop *l, void *h, void *y) {
    const frnn_part *part = l->run->part;
    const frnn_project p = {
        .rows = l->step.row_end,
        .k = part->hidden_size,
        .blocks = part->output_blocks,
        .gates = 1,
        .a = l->run->scratch + l->w.inner,
        .a_row = (ptrdiff_t)part->ld,
        .w = l->run->packed + part->w_hr,
        .bias = l->run->packed + part->zeros,
        .out = h,
        .out_row = (ptrdiff_t)part->h_ld,
        .partial = l->step.partial,
    };
    const frnn_emit emit = {
        .rows = l->step.row_end,
        .count = part->output_size,
        .h = h,
        .h_row = part->h_ld,
        .y = y,
        .y_row = l->step.y_row,
    };
    l->run->kernels->project(&p);
    l->run->kernels->emit(&emit);
}

/* A step, whose gates and x are set. `row` is the number of its first row in what is kept, `slot`
 * that of the ring that takes h; y is written by it. */
static void loop_step(frnn_loop *l, size_t row, size_t slot, char *y) {
    const frnn_part_run *run = l->run;
    const int projected = run->part->projected;
    char *const next =
        l->kept_h != NULL ? l->kept_h + row * l->h_bytes : l->h + slot * run->batch * l->h_bytes;
    if (l->kept_c != NULL)
        l->step.c = l->kept_c + row * l->c_bytes;
    l->step.h = projected ? run->scratch + l->w.inner : next;
    l->step.y = projected ? NULL : y;
    l->step.backwards = slot == 0;
    l->pieces[0].past = l->step.h_prev;
    run->kernels->step[run->net->cell](&l->step);
    if (projected)
        frnn_loop_output(l, next, y);
    l->step.h_prev = next;
    l->step.c_prev = l->step.c;
}

/* Every row does every step. */
static void forward_even(const frnn_part_run *run) {
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    const size_t batch = run->batch, chunk = frnn_part_chunk(part, run->itemsize, batch);
    frnn_workspace w;
    frnn_loop l;
    frnn_loop_layout(part, run->itemsize, run->steps, batch, 0, &w);
    frnn_loop_begin(&l, run, &w, run->state + part->h,
                    frnn_cell_get(run->net->cell)->memory ? run->state + part->c : NULL);
    l.step.h_prev = l.h + run->position % 2 * batch * l.h_bytes;
    if (run->saved != NULL && run->begin == 0)
        frnn_keep_begin(run, l.step.h_prev, l.c);
    uint64_t position = run->position;
    for (size_t done = 0; done < run->steps;) {
        const size_t steps = frnn_min(chunk, run->steps - done);
        const size_t begin = run->reverse ? run->steps - done - steps : done;
        char *const gates = frnn_loop_gates(&l, (run->begin + begin) * batch);
        if (!l.fold)
            frnn_loop_project(run, begin, steps, gates, l.step.partial);
        for (size_t i = 0; i < steps; i++, position++) {
            const size_t t = run->reverse ? steps - 1 - i : i;
            const ptrdiff_t time = (ptrdiff_t)(begin + t);
            l.step.gates = gates + t * batch * l.gates_bytes;
            if (l.fold)
                l.step.x = run->x + time * run->x_step * itemsize;
            loop_step(&l, (run->begin + begin + t) * batch, (position + 1) % 2,
                      run->y + time * run->y_step * itemsize);
        }
        done += steps;
    }
    if (l.kept_c != NULL && run->steps > 0)
        memcpy(l.c, l.step.c, batch * l.c_bytes);
    if (l.kept_h != NULL && run->steps > 0)
        memcpy(l.h + position % 2 * batch * l.h_bytes, l.step.h_prev, batch * l.h_bytes);
}

/* ---- Ragged batches ------------------------------------------------------------------------- */

const char *frnn_loop_row(const frnn_part_run *run, size_t row, size_t visit, const char *base,
                          ptrdiff_t step, ptrdiff_t row_step) {
    const frnn_ragged *ragged = run->ragged;
    const size_t t = frnn_ragged_time(ragged, row, visit, run->reverse);
    return base + ((ptrdiff_t)t * step + (ptrdiff_t)ragged->order[row] * row_step) *
                      (ptrdiff_t)run->itemsize;
}

/* The inputs of visits [begin, end), packed, and the input part of their gates. */
static void project_visits(const frnn_loop *l, size_t begin, size_t end, char *gates) {
    const frnn_part_run *run = l->run;
    const frnn_part *part = run->part;
    const size_t bytes = part->input_size * run->itemsize;
    char *const x = run->scratch + l->w.x, *to = x;
    for (size_t visit = begin; visit < end; visit++)
        for (size_t row = 0; row < frnn_ragged_rows(run->ragged, visit); row++, to += bytes)
            memcpy(to, frnn_loop_row(run, row, visit, run->x, run->x_step, run->x_row), bytes);
    if (l->fold)
        return;
    frnn_part_run packed = *run; /* as one long sequence */
    packed.batch = 1;
    packed.x = x;
    packed.x_step = (ptrdiff_t)part->input_size;
    frnn_loop_project(&packed, 0, run->ragged->offset[end] - run->ragged->offset[begin], gates,
                      l->step.partial);
}

/* The state before a visit, with that before the first step for rows that start anew. */
static void restart(frnn_loop *l, size_t visit) {
    const frnn_part_run *run = l->run;
    const size_t rows = frnn_ragged_rows(run->ragged, visit);
    char *const h = run->scratch + l->w.h_prev, *const c = run->scratch + l->w.c_prev;
    memcpy(h, l->step.h_prev, rows * l->h_bytes);
    if (l->c != NULL)
        memcpy(c, l->step.c_prev, rows * l->c_bytes);
    for (size_t row = 0; row < rows; row++) {
        if (!frnn_ragged_restarts(run->ragged, row, visit, run->reverse))
            continue;
        const size_t h_at = row * l->h_bytes, c_at = row * l->c_bytes;
        memcpy(h + h_at, run->scratch + l->w.h0 + h_at, l->h_bytes);
        if (l->c != NULL)
            memcpy(c + c_at, run->scratch + l->w.c0 + c_at, l->c_bytes);
    }
    l->step.h_prev = h;
    if (l->c != NULL)
        l->step.c_prev = c;
}

/* After a visit: y to the caller, and the state of rows that were at their end. */
static void leave_rows(const frnn_loop *l, size_t visit, char *h_end, char *c_end) {
    const frnn_part_run *run = l->run;
    const frnn_ragged *ragged = run->ragged;
    const size_t bytes = run->part->output_size * run->itemsize;
    const size_t rows = frnn_ragged_rows(ragged, visit);
    const char *y = run->scratch + l->w.y;
    for (size_t row = 0; row < rows; row++, y += bytes)
        /* the cast is safe: it is the caller's y */
        memcpy((char *)(uintptr_t)frnn_loop_row(run, row, visit, run->y, run->y_step, run->y_row),
               y, bytes);
    for (size_t row = frnn_ragged_rows(ragged, visit + 1); row < rows; row++) {
        memcpy(h_end + ragged->order[row] * l->h_bytes,
               (const char *)l->step.h_prev + row * l->h_bytes, l->h_bytes);
        if (c_end != NULL)
            memcpy(c_end + ragged->order[row] * l->c_bytes,
                   (const char *)l->step.c_prev + row * l->c_bytes, l->c_bytes);
    }
}

void frnn_loop_clear_padding(const frnn_part_run *run) {
    const frnn_ragged *ragged = run->ragged;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    for (size_t row = 0; row < run->batch; row++)
        for (size_t t = ragged->length[row]; t < run->steps; t++)
            memset(run->y +
                       ((ptrdiff_t)t * run->y_step + (ptrdiff_t)ragged->order[row] * run->y_row) *
                           itemsize,
                   0, run->part->output_size * run->itemsize);
}

static void forward_ragged(const frnn_part_run *run) {
    const frnn_part *part = run->part;
    const frnn_ragged *ragged = run->ragged;
    const size_t batch = run->batch, most = frnn_max(chunk_rows(part, run->itemsize), batch);
    const int memory = frnn_cell_get(run->net->cell)->memory;
    frnn_workspace w;
    frnn_loop l;
    frnn_loop_layout(part, run->itemsize, run->steps, batch, 1, &w);
    char *const scratch = run->scratch;
    frnn_loop_begin(&l, run, &w, scratch + w.h, memory ? scratch + w.c : NULL);
    /* the state of each row comes from one slot of the ring and goes to the other, or the same */
    char *const ring = run->state + part->h, *const c_end = memory ? run->state + part->c : NULL;
    char *const h_begin = ring + run->position % 2 * batch * l.h_bytes;
    char *const h_end = ring + (run->position + run->steps) % 2 * batch * l.h_bytes;
    frnn_ragged_sort(ragged, h_begin, scratch + w.h0, l.h_bytes);
    if (memory)
        frnn_ragged_sort(ragged, c_end, scratch + w.c0, l.c_bytes);
    if (h_end != h_begin) /* for rows without steps */
        memcpy(h_end, h_begin, batch * l.h_bytes);
    if (run->saved != NULL)
        frnn_keep_begin(run, scratch + w.h0, memory ? scratch + w.c0 : NULL);
    l.step.h_prev = scratch + w.h0;
    l.step.c_prev = memory ? scratch + w.c0 : NULL;
    l.step.x_row = (ptrdiff_t)part->input_size;
    l.step.y_row = (ptrdiff_t)part->output_size;
    for (size_t begin = 0, end; begin < ragged->visits; begin = end) {
        const size_t first = ragged->offset[begin];
        char *const gates = frnn_loop_gates(&l, first);
        end = begin + 1;
        while (end < ragged->visits && ragged->offset[end + 1] - first <= most)
            end++;
        project_visits(&l, begin, end, gates);
        for (size_t visit = begin; visit < end; visit++) {
            const size_t at = ragged->offset[visit] - first;
            l.step.row_end = frnn_ragged_rows(ragged, visit);
            l.step.gates = gates + at * l.gates_bytes;
            if (l.fold)
                l.step.x = scratch + w.x + at * part->input_size * run->itemsize;
            if (frnn_ragged_any_restart(ragged, visit, run->reverse))
                restart(&l, visit);
            loop_step(&l, ragged->offset[visit], visit % 2, scratch + w.y);
            leave_rows(&l, visit, h_end, c_end);
        }
    }
    frnn_loop_clear_padding(run);
}

void frnn_part_forward(const frnn_part_run *run) {
    if (run->part->structured)
        frnn_rows_forward(run);
    else if (run->ragged == NULL)
        forward_even(run);
    else
        forward_ragged(run);
}
