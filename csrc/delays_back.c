/* SPDX-License-Identifier: MIT
 *
 * The time loop backwards of nets with delays. As many steps as the shortest delay is long are one
 * visit, counted from the end of the sequence; dz of as many visits as the longest delay reaches
 * is at hand. What the caller gives as the gradient of the state joins the steps that the state
 * holds.
 */
#include "back.h"

/* Scratch of the loop, behind that of a chunk: bytes from the start of scratch. */
typedef struct space {
    frnn_back_space chunk;
    size_t dh, share;       /* [visit][h_ld]: what arrives at a visit from later ones */
    size_t c_prev;          /* [visit][ld] */
    size_t dy;              /* [visit][output_size] */
    size_t dz;              /* [history * rows][dz_row]: of the first steps of all */
    size_t state, carry;    /* [history * rows][h_ld or ld]: the gradient of the initial state */
    size_t past, more, sum; /* [delays - 1][visit][ld], [visit][ld]: see frnn_step_back */
    size_t size;
} space;

static int lay_out(const frnn_part *part, size_t itemsize, size_t steps, size_t rows, space *s) {
    const size_t visits = frnn_min(steps, (steps - 1) / part->span + 1);
    const size_t held = part->history[0], ld = frnn_max(part->h_ld, part->ld);
    const size_t resets = part->reset_before ? part->num_delays - 1 : 0;
    size_t visit = rows;
    if (!frnn_mul(&visit, part->span) ||
        !frnn_back_layout(part, itemsize, visits, visit, 0, &s->chunk))
        return 0;
    s->size = s->chunk.size;
    return frnn_append(&s->size, &s->dh, visit, ld, 1, itemsize) &&
           frnn_append(&s->size, &s->share, frnn_max(part->span, held), rows, ld, itemsize) &&
           frnn_append(&s->size, &s->c_prev, visit, part->ld, 1, itemsize) &&
           frnn_append(&s->size, &s->dy, visit, part->output_size, 1, itemsize) &&
           frnn_append(&s->size, &s->dz, held, rows, frnn_dz_row(part), itemsize) &&
           frnn_append(&s->size, &s->state, held, rows, ld, itemsize) &&
           frnn_append(&s->size, &s->carry, held, rows, part->ld, itemsize) &&
           frnn_append(&s->size, &s->past, resets, visit, part->ld, itemsize) &&
           frnn_append(&s->size, &s->more, resets > 0, visit, part->ld, itemsize) &&
           frnn_append(&s->size, &s->sum, resets > 0, visit, part->ld, itemsize);
}

int frnn_delays_back_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                             size_t *size) {
    space s = {0};
    if (steps > 0 && !lay_out(part, itemsize, steps, batch, &s))
        return 0;
    *size = s.size;
    return 1;
}

typedef struct delay_loop {
    const frnn_part_back *run;
    space s;
    frnn_step_back step;
    int carried;                 /* the gradient of the state goes on by itself, as carry */
    size_t reach;                /* of the longest delay, in visits */
    size_t h_row, c_row, dz_row; /* bytes */
} delay_loop;

/* dz of a visit, counted from the end of the sequence, of which `i` is the first of the chunk. */
static char *dz_at(const delay_loop *l, size_t i, size_t visit) {
    const frnn_part_back *run = l->run;
    return run->scratch + l->s.chunk.dz + (l->reach + visit - i) * run->batch * l->dz_row;
}

/* to += from, rows of `size` elements. */
static void add_rows(const frnn_part_back *run, size_t rows, size_t size, const char *from,
                     size_t from_row, char *to, size_t to_row) {
    for (size_t row = 0; row < rows; row++)
        run->kernels->add(from + row * from_row, to + row * to_row, size);
}

/* What arrives at the outputs of a visit from the steps that read them: into `dh`. */
static void gather_dh(const delay_loop *l, size_t first, size_t i, size_t rows, char *dh) {
    const frnn_part_back *run = l->run;
    const frnn_part *part = run->part;
    const size_t skipped = run->batch - rows; /* of a visit that is not whole */
    const uint64_t visit = run->position + i;
    char *to = dh;
    for (size_t k = 0; k < part->num_delays && part->recurrent; k++) {
        const size_t later = part->delays[k] / part->span;
        if (later > visit)
            break;
        frnn_back_recurrent(run, &l->s.chunk, rows, k,
                            dz_at(l, first, i - later) + skipped * l->dz_row, to, l->step.partial);
        if (k > 0)
            add_rows(run, rows, part->output_size, to, l->h_row, dh, l->h_row);
        if (k > 0 && part->reset_before)
            frnn_back_reset(run, &l->s.chunk, rows, k,
                            dz_at(l, first, i - later) + skipped * l->dz_row, to, dh,
                            l->step.partial);
        to = run->scratch + l->s.share;
    }
    if (to == dh)
        memset(dh, 0, rows * l->h_row);
}

/* Which lane of carry a step before the end of the sequence has. */
static size_t lane_of(const frnn_part *part, uint64_t before_end) {
    const size_t shortest = part->delays[0];
    return shortest - 1 - (size_t)((before_end - 1) % shortest);
}

/* dy of a visit, or NULL, with what the gradient of the state adds to it. */
static const char *dy_of(const delay_loop *l, size_t i, size_t rows, frnn_step_back *step) {
    const frnn_part_back *run = l->run;
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    const size_t u = frnn_back_first(run, i), steps = rows / run->rows;
    const uint64_t left = run->position * run->span + (run->times - u); /* steps to the end */
    const size_t bytes = part->output_size * run->itemsize;
    const int held = left <= part->history[0];
    char *const dy = run->scratch + l->s.dy;
    if (held && l->carried) { /* the gradient of the state itself */
        const char *given = run->dh + (part->history[0] - left) * run->rows * l->h_row;
        add_rows(run, rows, part->hidden_size, given, l->h_row, step->carry, l->c_row);
    }
    if (!(held && !l->carried) && run->dy == NULL)
        return NULL;
    memset(dy, 0, rows * bytes);
    for (size_t t = u; run->dy != NULL && t < u + steps; t++) {
        const size_t time = run->turned ? run->times - 1 - t : t;
        for (size_t b = 0; b < run->rows && time >= run->dy_begin; b++)
            memcpy(dy + ((t - u) * run->rows + b) * bytes,
                   run->dy + ((ptrdiff_t)t * run->dy_step + (ptrdiff_t)b * run->dy_row) * itemsize,
                   bytes);
    }
    if (held && !l->carried)
        add_rows(run, rows, part->output_size,
                 run->dh + (part->history[0] - left) * run->rows * l->h_row, l->h_row, dy, bytes);
    step->dy_row = (ptrdiff_t)part->output_size;
    return dy;
}

/* c before each row of a visit: of earlier steps, or of the state. */
static const char *c_before(const delay_loop *l, size_t i, size_t rows) {
    const frnn_part_back *run = l->run;
    const frnn_part *part = run->part;
    const frnn_cell_info *cell = frnn_cell_get(run->net->cell);
    const size_t u = frnn_back_first(run, i), d = part->delays[0], steps = rows / run->rows;
    const size_t history = cell->memory && !part->derived ? part->history[1] : part->history[0];
    const char *const before = cell->memory ? run->c0 : run->h0;
    const char *const saved = run->saved + run->layout->c + run->first * l->c_row;
    if (u >= d)
        return saved + (u - d) * run->rows * l->c_row;
    const char *const initial = before + (history + u - d) * run->rows * l->c_row;
    if (u + steps <= d)
        return initial;
    char *const both = run->scratch + l->s.c_prev;
    const size_t first = (d - u) * run->rows * l->c_row;
    memcpy(both, initial, first);
    memcpy(both + first, saved, rows * l->c_row - first);
    return both;
}

/* What delays after the first read, of a GRU that resets it. */
static void gather_past(const delay_loop *l, size_t i, size_t rows) {
    const frnn_part_back *run = l->run;
    const frnn_back_chunk one = {.first = i, .count = 1, .rows = rows};
    for (size_t k = 1; k < run->part->num_delays; k++)
        frnn_back_gather_delayed(run, &one, k,
                                 run->scratch + l->s.past + (k - 1) * rows * l->h_row);
}

static void visit(delay_loop *l, size_t first, size_t i, char *dz, char *dp) {
    const frnn_part_back *run = l->run;
    const frnn_part *part = run->part;
    const size_t rows = frnn_back_rows(run, i), saved = frnn_back_saved_row(run, i);
    const size_t skipped = run->batch - rows;
    char *const dh = part->projected ? dp : run->scratch + l->s.dh;
    frnn_step_back *const step = &l->step;
    const uint64_t left = run->position * run->span + run->times - frnn_back_first(run, i);
    step->row_end = rows;
    step->backwards = i % 2 == 1;
    step->dz = dz;
    step->carry =
        run->carry + (part->span > 1 ? skipped : lane_of(part, left) * run->rows) * l->c_row;
    step->gates = run->saved + run->layout->gates + saved * frnn_gates_row(part) * run->itemsize;
    if (frnn_cell_get(run->net->cell)->history) {
        step->c = run->saved + run->layout->c + saved * l->c_row;
        step->c_prev = c_before(l, i, rows);
    }
    gather_dh(l, first, i, rows, dh);
    step->dy = dy_of(l, i, rows, step);
    step->dh = dh;
    if (part->projected) {
        const size_t bytes = part->output_size * run->itemsize;
        if (step->dy != NULL)
            add_rows(run, rows, part->output_size, step->dy, bytes, dh, l->h_row);
        step->dy = NULL;
        step->dh = run->scratch + l->s.chunk.dinner;
        frnn_back_unproject(run, rows, dh, step->dh, step->partial);
    }
    if (part->reset_before)
        gather_past(l, i, rows);
    run->kernels->step_back[run->net->cell](step);
}

/* dz of the visits of a chunk. */
static void visit_chunk(delay_loop *l, frnn_back_chunk *chunk) {
    const frnn_part_back *run = l->run;
    const size_t chain = frnn_sum_steps(run->batch), visits = run->steps;
    char *dz = dz_at(l, chunk->first, chunk->first), *dp = run->scratch + l->s.chunk.dp;
    chunk->rows = 0;
    for (size_t i = chunk->first; i < chunk->first + chunk->count; i++) {
        const size_t rows = frnn_back_rows(run, i);
        visit(l, chunk->first, i, dz, dp);
        dz += rows * l->dz_row;
        dp += rows * l->h_row;
        chunk->rows += rows;
        if (run->dvectors != NULL &&
            ((run->position + i + 1) % chain == 0 || (run->last && i + 1 == visits)))
            frnn_back_vectors(run, &l->s.chunk);
    }
}

/* dz of the first steps of the sequence in their order, as many as the state has. */
static size_t first_steps(const delay_loop *l, size_t first) {
    const frnn_part_back *run = l->run;
    const frnn_part *part = run->part;
    const uint64_t total = run->position * run->span + run->times;
    const size_t count = (size_t)(total < part->history[0] ? total : part->history[0]);
    for (size_t u = 0; u < count; u++) {
        const uint64_t visit = (total - 1 - u) / part->span; /* from the end of the sequence */
        const uint64_t begin =
            total > (visit + 1) * part->span ? total - (visit + 1) * part->span : 0;
        const char *dz = dz_at(l, first, (size_t)(visit - run->position)) +
                         (size_t)(u - begin) * run->rows * l->dz_row;
        memcpy(run->scratch + l->s.dz + u * run->rows * l->dz_row, dz, run->rows * l->dz_row);
    }
    return count;
}

/* The gradient of the state before the first step, in place of that of the last one. */
static void state_gradient(delay_loop *l, size_t first) {
    const frnn_part_back *run = l->run;
    const frnn_part *part = run->part;
    const size_t held = part->history[0], shortest = part->delays[0], rows = run->rows;
    const uint64_t total = run->position * run->span + run->times;
    const size_t steps = first_steps(l, first), h_bytes = rows * l->h_row,
                 c_bytes = rows * l->c_row;
    char *const state = run->scratch + l->s.state, *const carry = run->scratch + l->s.carry;
    char *const given = run->scratch + l->s.share;
    memset(state, 0, held * h_bytes);
    for (size_t k = 0; k < part->num_delays && part->recurrent; k++) {
        const size_t d = part->delays[k], count = frnn_min(d, steps);
        for (size_t u = 0; u < count; u += part->span) { /* as many rows as scratch is for */
            const size_t some = frnn_min(part->span, count - u) * rows;
            const char *const dz = run->scratch + l->s.dz + u * rows * l->dz_row;
            char *const to = state + (held - d + u) * h_bytes;
            frnn_back_recurrent(run, &l->s.chunk, some, k, dz, given, l->step.partial);
            add_rows(run, some, part->output_size, given, l->h_row, to, l->h_row);
            if (k > 0 && part->reset_before)
                frnn_back_reset(run, &l->s.chunk, some, k, dz, given, to, l->step.partial);
        }
    }
    memset(carry, 0, held * c_bytes);
    for (size_t slot = 0; slot < shortest; slot++)
        memcpy(carry + (held - shortest + slot) * c_bytes,
               run->carry + lane_of(part, total + shortest - slot) * c_bytes, c_bytes);
    /* steps of the old state that the new one still holds */
    char *const kept = l->carried ? carry : state;
    const size_t row = l->carried ? l->c_row : l->h_row;
    for (size_t slot = 0; slot + total < held; slot++)
        add_rows(run, rows, l->carried ? part->hidden_size : part->output_size,
                 run->dh + slot * h_bytes, l->h_row, kept + (slot + (size_t)total) * rows * row,
                 row);
    if (!l->carried) {
        memcpy(run->dh, state, held * h_bytes);
        memcpy(run->carry, carry + (held - shortest) * c_bytes, shortest * c_bytes);
        return;
    }
    frnn_step_back step = {
        .row_end = held * rows,
        .block_end = part->blocks,
        .hidden_size = part->hidden_size,
        .net = run->net,
        .c_prev = part->derived ? run->c0 : NULL,
        .dh = state,
        .carry = carry,
        .ld = part->ld,
    };
    run->kernels->step_back[run->net->cell](&step);
    memcpy(run->dh, carry, held * c_bytes);
}

void frnn_delays_backward(const frnn_part_back *run) {
    const frnn_part *part = run->part;
    const size_t super = frnn_super_steps(run->batch);
    const size_t most = frnn_back_chunk_visits(part, run->itemsize, run->batch);
    delay_loop l = {
        .run = run,
        .carried = frnn_cell_get(run->net->cell)->direct,
        .reach = frnn_back_reach(part),
        .h_row = part->h_ld * run->itemsize,
        .c_row = part->ld * run->itemsize,
        .dz_row = frnn_dz_row(part) * run->itemsize,
    };
    lay_out(part, run->itemsize, run->times, run->rows, &l.s);
    l.step = frnn_back_step(run, &l.s.chunk);
    l.step.past = run->scratch + l.s.past;
    l.step.reset_more = run->scratch + l.s.more;
    l.step.reset_sum = run->scratch + l.s.sum;
    const size_t past = l.reach * run->batch * l.dz_row;
    char *const before = run->scratch + l.s.chunk.dz;
    memcpy(before, run->dz_past, past);
    for (size_t first = 0; first < run->steps;) {
        const uint64_t position = run->position + first;
        const size_t to_super = super - (size_t)(position % super);
        frnn_back_chunk chunk = {
            .first = first,
            .count = frnn_min(frnn_min(most, to_super), run->steps - first),
        };
        const int end = run->last && first + chunk.count == run->steps;
        visit_chunk(&l, &chunk);
        if (run->gradients != NULL)
            frnn_back_sums(run, &l.s.chunk, &chunk);
        if (run->dx != NULL)
            frnn_back_input(run, &l.s.chunk, &chunk);
        if (run->gradients != NULL && !frnn_back_direct(run, position) &&
            (chunk.count == to_super || end))
            frnn_back_fold(run);
        if (end)
            state_gradient(&l, first);
        first += chunk.count;
        memmove(before, before + chunk.count * run->batch * l.dz_row, past);
    }
    memcpy(run->dz_past, before, past);
}
