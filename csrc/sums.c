/* SPDX-License-Identifier: MIT
 *
 * The gradients of parameters: sums over steps and rows, of a chunk of visits at a time. What dz is
 * multiplied with is gathered from what was saved: h is computed again from it.
 */
#include "back.h"

/* ---- What dz is multiplied with ---------------------------------------------------------------
 */

/* Where something of some rows of what a part saved goes: rows that follow one another in `to`, and
 * in what was saved, from row `first` on, in that direction. */
typedef struct gathering {
    const char *saved;
    size_t first, rows;
    ptrdiff_t direction;
    char *to;
    size_t to_row;
} gathering;

/* What the cell made of a step: h, or what is projected. */
static void gather_cell(const frnn_part_back *run, const gathering *g) {
    const frnn_part *part = run->part;
    const size_t gates_row = frnn_gates_row(part);
    const frnn_hidden hidden = {
        .rows = g->rows,
        .blocks = part->blocks,
        .net = run->net,
        .plain = run->plain,
        .gates = g->saved + run->layout->gates + g->first * gates_row * run->itemsize,
        .gates_row = g->direction * (ptrdiff_t)gates_row,
        .c = frnn_cell_get(run->net->cell)->history
                 ? g->saved + run->layout->c + g->first * part->ld * run->itemsize
                 : NULL,
        .c_row = g->direction * (ptrdiff_t)part->ld,
        .h = g->to,
        .h_row = (ptrdiff_t)g->to_row,
    };
    run->kernels->hidden[run->net->cell](&hidden);
}

static void gather_output(const frnn_part_back *run, const gathering *g) {
    const frnn_part *part = run->part;
    if (!part->projected) {
        gather_cell(run, g);
        return;
    }
    const size_t row = part->h_ld * run->itemsize;
    const char *from = g->saved + run->layout->h + g->first * row;
    for (size_t i = 0; i < g->rows; i++)
        memcpy(g->to + i * g->to_row * run->itemsize,
               from + g->direction * (ptrdiff_t)i * (ptrdiff_t)row,
               part->output_blocks * FRNN_BLOCK * run->itemsize);
}

/* r * h of GRU_RESET_BEFORE, which training leaves in the slot of the recurrent part. */
static void gather_reset(const frnn_part_back *run, const gathering *g) {
    const frnn_part *part = run->part;
    const size_t row = frnn_gates_row(part) * run->itemsize, block = FRNN_BLOCK * run->itemsize;
    const char *from = g->saved + run->layout->gates + g->first * row + (part->gates - 1) * block;
    for (size_t i = 0; i < g->rows; i++) {
        const char *gates = from + g->direction * (ptrdiff_t)i * (ptrdiff_t)row;
        for (size_t b = 0; b < part->blocks; b++)
            memcpy(g->to + i * g->to_row * run->itemsize + b * block,
                   gates + b * part->slots * block, block);
    }
}

typedef void (*gather_function)(const frnn_part_back *run, const gathering *g);

/* Something of the first `rows` rows of visit i of a part to `to`. */
static void gather_visit(const frnn_part_back *run, gather_function gather, const char *saved,
                         size_t i, size_t rows, char *to, size_t to_row) {
    const gathering g = {saved, frnn_back_saved_row(run, i), rows, 1, to, to_row};
    gather(run, &g);
}

/* Something of all rows of `count` visits, which follow one another in `to`. */
static void gather_visits(const frnn_part_back *run, gather_function gather, const char *saved,
                          size_t first, size_t count, char *to, size_t to_row) {
    if (count > 0 && run->batch == 1 && run->ragged == NULL) { /* all at once */
        const gathering g = {
            saved, frnn_back_saved_row(run, first), count, run->reverse ? 1 : -1, to, to_row};
        gather(run, &g);
        return;
    }
    for (size_t i = first; i < first + count; i++) {
        const size_t rows = frnn_back_rows(run, i);
        gather_visit(run, gather, saved, i, rows, to, to_row);
        to += rows * to_row * run->itemsize;
    }
}

void frnn_back_gather_delayed(const frnn_part_back *run, const frnn_back_chunk *chunk, size_t delay,
                              char *h) {
    const frnn_part *part = run->part;
    const size_t row = part->h_ld * run->itemsize, history = part->history[0];
    for (size_t i = chunk->first; i < chunk->first + chunk->count; i++) {
        const size_t first = frnn_back_first(run, i), steps = frnn_back_rows(run, i) / run->rows;
        const size_t d = part->delays[delay];
        /* of steps before the first one of all, of which the state holds the last ones */
        const size_t before = first >= d ? 0 : frnn_min(d - first, steps);
        memcpy(h, run->h0 + (history + first - d) * run->rows * row * (before > 0),
               before * run->rows * row);
        h += before * run->rows * row;
        if (before == steps)
            continue;
        const gathering g = {run->saved,
                             run->first + (first + before - d) * run->rows,
                             (steps - before) * run->rows,
                             1,
                             h,
                             part->h_ld};
        gather_output(run, &g);
        h += g.rows * row;
    }
}

/* h that each row of the chunk started from. */
static void gather_h(const frnn_part_back *run, const frnn_back_chunk *chunk, char *h) {
    const size_t row_bytes = run->part->h_ld * run->itemsize;
    const char *const h0 = run->saved + run->layout->h0;
    if (run->ragged == NULL) {
        const int initial = chunk->first + chunk->count == run->steps;
        const size_t count = chunk->count - (initial != 0);
        gather_visits(run, gather_output, run->saved, chunk->first + 1, count, h, run->part->h_ld);
        if (initial)
            memcpy(h + count * run->batch * row_bytes, h0, run->batch * row_bytes);
        return;
    }
    for (size_t i = chunk->first; i < chunk->first + chunk->count; i++) {
        const size_t rows = frnn_back_rows(run, i);
        if (i + 1 < run->steps)
            gather_visit(run, gather_output, run->saved, i + 1, rows, h, run->part->h_ld);
        else
            memcpy(h, h0, rows * row_bytes);
        for (size_t row = 0; row < rows; row++, h += row_bytes)
            if (frnn_back_restarts(run, i, row))
                memcpy(h, h0 + row * row_bytes, row_bytes);
    }
}

/* Outputs of the layer below, row by row: its second direction visits them in another order. */
static void gather_below(const frnn_part_back *run, const frnn_back_chunk *chunk, char *x) {
    const frnn_part *part = run->part;
    const frnn_ragged *ragged = run->ragged;
    const size_t row_bytes = frnn_x_row(part) * run->itemsize;
    for (size_t i = chunk->first; i < chunk->first + chunk->count; i++)
        for (size_t row = 0; row < frnn_back_rows(run, i); row++, x += row_bytes) {
            const size_t visit = run->steps - 1 - i;
            const size_t t = frnn_ragged_time(ragged, row, visit, run->reverse);
            for (size_t d = 0; d < 2 && run->below[d] != NULL; d++) {
                const size_t other = d == 0 ? t : ragged->length[row] - 1 - t;
                const gathering g = {run->below[d],
                                     ragged->offset[other] + row,
                                     1,
                                     1,
                                     x + d * part->output_size * run->itemsize,
                                     frnn_x_row(part)};
                gather_output(run, &g);
            }
        }
}

/* Outputs of the layer below where visits have several steps, or the layer below has clocks. */
static void gather_steps_below(const frnn_part_back *run, const frnn_back_chunk *chunk, char *x) {
    const frnn_part *part = run->part;
    const size_t row_bytes = frnn_x_row(part) * run->itemsize;
    for (size_t i = chunk->first; i < chunk->first + chunk->count; i++)
        for (size_t row = 0; row < frnn_back_rows(run, i); row++, x += row_bytes) {
            const size_t u = frnn_back_first(run, i) + row / run->rows, b = row % run->rows;
            for (size_t d = 0; d < 2 && run->below[d] != NULL; d++) {
                const size_t step = (d == 1) == run->turned ? u : run->times - 1 - u;
                char *const to = x + d * part->output_size * run->itemsize;
                const gathering g = {run->below[d],   run->first + step * run->rows + b, 1, 1, to,
                                     frnn_x_row(part)};
                if (part->groups > 0)
                    frnn_clocks_output(run, run->below[d], run->first, step, b, to);
                else
                    gather_output(run, &g);
            }
        }
}

void frnn_back_gather_x(const frnn_part_back *run, const frnn_back_chunk *chunk, char *x) {
    const frnn_part *part = run->part;
    const size_t row_bytes = frnn_x_row(part) * run->itemsize;
    const size_t used = part->input_size * run->itemsize;
    if (run->below[0] != NULL && run->span > 0) {
        gather_steps_below(run, chunk, x);
    } else if (run->below[0] != NULL && run->ragged != NULL) {
        gather_below(run, chunk, x);
    } else if (run->below[0] != NULL) {
        /* the blocks of one direction end in padding, which the other overwrites */
        for (size_t d = 0; d < 2 && run->below[d] != NULL; d++)
            gather_visits(run, gather_output, run->below[d], chunk->first, chunk->count,
                          x + d * part->output_size * run->itemsize, frnn_x_row(part));
    } else {
        for (size_t i = chunk->first; i < chunk->first + chunk->count; i++)
            for (size_t row = 0; row < frnn_back_rows(run, i); row++, x += row_bytes) {
                memcpy(x,
                       run->x + frnn_back_at(run, i, row, run->x_step, run->x_row) *
                                    (ptrdiff_t)run->itemsize,
                       used);
                memset(x + used, 0, row_bytes - used);
            }
    }
}

/* ---- Gradients of parameters ----------------------------------------------------------------- */

int frnn_back_direct(const frnn_part_back *run, uint64_t position) {
    return position < frnn_super_steps(run->batch) &&
           !(frnn_back_whole(run->part) && run->accumulate);
}

const frnn_gradients *frnn_back_target(const frnn_part_back *run, uint64_t position, int *add) {
    const size_t super = frnn_super_steps(run->batch);
    const int direct = frnn_back_direct(run, position);
    *add = direct ? run->accumulate || position > 0 : position % super != 0;
    return direct ? run->gradients : &run->sums;
}

/* Rows of one chain; a larger batch has several in each step. */
static size_t chain_rows(size_t batch) {
    return batch > FRNN_SUM_ROWS ? FRNN_SUM_ROWS : frnn_sum_steps(batch) * batch;
}

/* c (+)= the sum over the rows of a chunk of outer products. */
static void sum_outer(const frnn_part_back *run, const frnn_back_chunk *chunk, const char *a,
                      size_t a_row, size_t m, const char *b, size_t b_row, size_t n, void *c,
                      int add) {
    const int by_visit = run->batch > FRNN_SUM_ROWS; /* no chain crosses a visit then */
    if (c == NULL)
        return;
    frnn_outer outer = {
        .rows = chunk->rows,
        .chain = chain_rows(run->batch),
        .m = m,
        .n = n,
        .a_row = a_row,
        .b_row = b_row,
        .c = c,
        .c_row = n,
        .add = add,
    };
    for (size_t i = 0; i < (by_visit ? chunk->count : 1); i++) {
        outer.a = a;
        outer.b = b;
        if (by_visit)
            outer.rows = frnn_back_rows(run, chunk->first + i);
        run->kernels->outer(&outer);
        a += outer.rows * a_row * run->itemsize;
        b += outer.rows * b_row * run->itemsize;
        outer.add = 1;
    }
}

void frnn_total_add(double *total, const void *sum, size_t n, size_t itemsize) {
    for (size_t i = 0; i < n; i++)
        total[i] += itemsize == 4 ? (double)((const float *)sum)[i] : ((const double *)sum)[i];
}

void frnn_total_store(const frnn_part_back *run, const double *total, size_t n, void *to) {
    float *single = to;
    double *real = to;
    if (to == NULL)
        return;
    for (size_t i = 0; i < n; i++) {
        if (run->itemsize == 4)
            single[i] = (float)total[i] + (run->accumulate ? single[i] : 0);
        else
            real[i] = total[i] + (run->accumulate ? real[i] : 0);
    }
}

void frnn_back_sum_rows(const frnn_part_back *run, const frnn_back_space *w, const char *a,
                        size_t a_row, size_t m, size_t rows, double *total) {
    for (size_t row = 0; row < rows;) {
        frnn_outer ones = {
            .rows = frnn_min(chain_rows(run->batch), rows - row),
            .m = m,
            .a = a + row * a_row * run->itemsize,
            .a_row = a_row,
            .c = run->scratch + w->sum,
        };
        ones.chain = ones.rows;
        run->kernels->outer(&ones);
        frnn_total_add(total, ones.c, m, run->itemsize);
        row += ones.rows;
    }
}

#define DEFINE_CLEAR(name, type)                                                                   \
    static void name(void *values, const unsigned char *mask, size_t n) {                          \
        type *v = values;                                                                          \
        for (size_t i = 0; i < n; i++)                                                             \
            v[i] = mask[i] != 0 ? v[i] : 0;                                                        \
    }
DEFINE_CLEAR(clear_f32, float)
DEFINE_CLEAR(clear_f64, double)

void frnn_back_clear(void *values, const unsigned char *mask, size_t n, size_t itemsize) {
    (itemsize == 4 ? clear_f32 : clear_f64)(values, mask, n);
}

/* Of sums for recurrent matrices, or of their gradients. */
static void clear_outside_mask(const frnn_part_back *run, const frnn_gradients *g) {
    const frnn_part *part = run->part;
    const size_t size = part->hidden_size * part->output_size;
    for (size_t i = 0; i < part->num_delays; i++) {
        char *c = i == 0 ? g->weight_hh : g->delayed[i - 1];
        for (size_t gate = 0; c != NULL && gate < part->gates; gate++, c += size * run->itemsize)
            frnn_back_clear(c, run->mask, size, run->itemsize);
    }
}

void frnn_back_fold(const frnn_part_back *run) {
    const frnn_part *part = run->part;
    const size_t rows = part->gates * part->hidden_size;
    const frnn_gradients *to = run->gradients, *from = &run->sums;
    if (frnn_back_whole(part) && run->accumulate)
        clear_outside_mask(run, from);
    if (to->weight_ih != NULL)
        run->kernels->add(from->weight_ih, to->weight_ih, rows * part->input_size);
    if (to->weight_hh != NULL)
        run->kernels->add(from->weight_hh, to->weight_hh, rows * part->output_size);
    for (size_t i = 0; i + 1 < part->num_delays; i++)
        if (to->delayed[i] != NULL)
            run->kernels->add(from->delayed[i], to->delayed[i], rows * part->output_size);
    if (to->weight_hr != NULL)
        run->kernels->add(from->weight_hr, to->weight_hr, part->output_size * part->hidden_size);
}

/* They are summed over time in rows of their own; at the end of each chain the rows are added up.
 */
void frnn_back_vectors(const frnn_part_back *run, const frnn_back_space *w) {
    const frnn_part *part = run->part;
    const size_t bytes = run->batch * part->ld * run->itemsize;
    for (size_t i = 0; i < part->sums; i++)
        frnn_back_sum_rows(run, w, run->dvectors + i * bytes, part->ld, part->dz_units, run->batch,
                           run->total_vectors + i * part->dz_units);
    memset(run->dvectors, 0, part->sums * bytes);
}

/* The gradient of a matrix whose last gate may lie apart from the others in dz, or be multiplied
 * with something else. */
typedef struct matrix_sum {
    const char *with; /* [rows][with_row] */
    size_t with_row, columns;
    size_t last;           /* slot of the last gate */
    const char *last_with; /* what it is multiplied with */
} matrix_sum;

static void sum_matrix(const frnn_part_back *run, const frnn_back_chunk *chunk, const char *dz,
                       const matrix_sum *m, char *c, int add) {
    const frnn_part *part = run->part;
    const size_t H = part->hidden_size, row = frnn_dz_row(part);
    const int split = m->last != part->gates - 1 || m->last_with != m->with;
    const size_t together = split ? part->gates - 1 : part->gates;
    sum_outer(run, chunk, dz, row, together * H, m->with, m->with_row, m->columns, c, add);
    if (split)
        sum_outer(run, chunk, dz + m->last * H * run->itemsize, row, H, m->last_with, m->with_row,
                  m->columns, c + together * H * m->columns * run->itemsize, add);
}

/* c += the sum over the rows of a chunk of outer products where a mask has connections, of `gates`
 * gates; as sum_outer. */
static void sum_outer_lists(const frnn_part_back *run, const frnn_back_chunk *chunk, const char *a,
                            size_t gates, const matrix_sum *m, const char *b, char *c) {
    const int by_visit = run->batch > FRNN_SUM_ROWS;
    frnn_lists_outer outer = {
        .rows = chunk->rows,
        .chain = chain_rows(run->batch),
        .hidden_size = run->part->hidden_size,
        .blocks = run->part->blocks,
        .gates = gates,
        .a_row = frnn_dz_row(run->part),
        .b_row = m->with_row,
        .lists = &run->lists,
        .mask = run->mask,
        .c = c,
        .c_row = m->columns,
    };
    for (size_t i = 0; i < (by_visit ? chunk->count : 1); i++) {
        outer.a = a;
        outer.b = b;
        if (by_visit)
            outer.rows = frnn_back_rows(run, chunk->first + i);
        run->kernels->lists_outer(&outer);
        a += outer.rows * outer.a_row * run->itemsize;
        b += outer.rows * outer.b_row * run->itemsize;
    }
}

/* The gradient of a masked recurrent matrix, where it has blocks. */
static void sum_lists(const frnn_part_back *run, const frnn_back_chunk *chunk, const char *dz,
                      const matrix_sum *m, char *c, int add) {
    const frnn_part *part = run->part;
    const size_t gate = part->hidden_size * m->columns * run->itemsize;
    const int split = m->last_with != m->with;
    const size_t together = split ? part->gates - 1 : part->gates;
    if (!add)
        memset(c, 0, part->gates * gate);
    sum_outer_lists(run, chunk, dz, together, m, m->with, c);
    if (split)
        sum_outer_lists(run, chunk, dz + together * part->hidden_size * run->itemsize, 1, m,
                        m->last_with, c + together * gate);
}

/* r * h of a delay after the first; r lies in dz. */
static void reset_delayed(const frnn_part_back *run, const frnn_back_chunk *chunk, const char *dz,
                          const char *h, char *inner) {
    const frnn_part *part = run->part;
    const size_t dz_row = frnn_dz_row(part) * run->itemsize, row = part->ld * run->itemsize;
    dz += part->gates * part->hidden_size * run->itemsize;
    memset(inner, 0, chunk->rows * row);
    for (size_t i = 0; i < chunk->rows; i++)
        run->kernels->add_product(h + i * row, dz + i * dz_row, inner + i * row, part->hidden_size);
}

/* The gradients of the recurrent matrices, of each delay. */
static void sum_recurrent(const frnn_part_back *run, const frnn_back_space *w,
                          const frnn_back_chunk *chunk, const char *dz,
                          const frnn_gradients *target, int add) {
    const frnn_part *part = run->part;
    char *const h = run->scratch + w->h, *const inner = run->scratch + w->inner;
    const matrix_sum m = {h, part->h_ld, part->output_size, part->gates - 1,
                          part->reset_before ? inner : h};
    if (part->reset_before && target->weight_hh != NULL)
        gather_visits(run, gather_reset, run->saved, chunk->first, chunk->count, inner, part->ld);
    for (size_t i = 0; i < part->num_delays; i++) {
        void *const c = i == 0 ? target->weight_hh : target->delayed[i - 1];
        if (c == NULL)
            continue;
        if (run->span > 0)
            frnn_back_gather_delayed(run, chunk, i, h);
        else
            gather_h(run, chunk, h);
        if (part->reset_before && i > 0)
            reset_delayed(run, chunk, dz, h, inner);
        (part->mask_blocks > 0 ? sum_lists : sum_matrix)(run, chunk, dz, &m, c, add);
    }
}

void frnn_back_sums(const frnn_part_back *run, const frnn_back_space *w,
                    const frnn_back_chunk *chunk) {
    const frnn_part *part = run->part;
    const size_t row = frnn_dz_row(part), first = chunk->first;
    const char *dz = frnn_back_dz(run, w);
    char *const x = run->scratch + w->x, *const inner = run->scratch + w->inner;
    int add;
    const frnn_gradients *target = frnn_back_target(run, run->position + first, &add);
    if (part->recurrent)
        sum_recurrent(run, w, chunk, dz, target, add);
    if (target->weight_ih != NULL) {
        const matrix_sum m = {x, frnn_x_row(part), part->input_size, part->back_slots - 1, x};
        frnn_back_gather_x(run, chunk, x);
        sum_matrix(run, chunk, dz, &m, target->weight_ih, add);
    }
    if (target->weight_hr != NULL) {
        gather_visits(run, gather_cell, run->saved, first, chunk->count, inner, part->ld);
        sum_outer(run, chunk, run->scratch + w->dp, part->h_ld, part->output_size, inner, part->ld,
                  part->hidden_size, target->weight_hr, add);
    }
    if (run->gradients->bias_ih == NULL && run->gradients->bias_hh == NULL)
        return;
    const int by_visit = run->batch > FRNN_SUM_ROWS;
    for (size_t i = 0; i < (by_visit ? chunk->count : 1); i++) {
        const size_t rows = by_visit ? frnn_back_rows(run, first + i) : chunk->rows;
        frnn_back_sum_rows(run, w, dz, row, part->back_slots * part->hidden_size, rows,
                           run->total_bias);
        dz += rows * row * run->itemsize;
    }
}

/* Of a last gate that lies apart each of the two biases takes its own part. */
void frnn_back_totals(const frnn_part_back *run) {
    const frnn_part *part = run->part;
    const frnn_gradients *g = run->gradients;
    const size_t H = part->hidden_size, rest = (part->gates - 1) * H;
    char *const bias_ih = g->bias_ih;
    frnn_total_store(run, run->total_bias, part->gates * H, g->bias_hh);
    frnn_total_store(run, run->total_bias, rest, bias_ih);
    if (bias_ih != NULL)
        frnn_total_store(run, run->total_bias + (part->back_slots - 1) * H, H,
                         bias_ih + rest * run->itemsize);
    frnn_total_store(run, run->total_vectors, H, g->alpha);
    frnn_total_store(run, run->total_vectors, part->sums * H, g->peephole);
    if (frnn_back_whole(part) && !run->accumulate)
        clear_outside_mask(run, g);
}
