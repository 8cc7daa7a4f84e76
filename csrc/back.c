/* SPDX-License-Identifier: MIT
 *
 * The time loop backwards: one layer in one direction, any cell that has gates. Step by step from
 * the last to the first, gradients of pre-activations are found; for a chunk of steps they are
 * kept, and give the gradients of parameters and input in a few large products.
 */
#include "internal.h"

/* The gradients of a chunk stay in L2; those of large nets are a part of what each chunk has to add
 * to the gradients of the weights. */
#define CHUNK_BYTES (512 * 1024)
#define CHUNK_PART  4

size_t frnn_checkpoint_unit(size_t batch) {
    return frnn_sum_steps(batch);
}

size_t frnn_sum_steps(size_t batch) {
    return frnn_max(FRNN_SUM_ROWS / frnn_max(batch, 1), 1);
}

size_t frnn_super_steps(size_t batch) {
    return batch <= FRNN_SUM_ROWS ? FRNN_SUPER_ROWS / FRNN_SUM_ROWS * frnn_sum_steps(batch)
                                  : frnn_max(FRNN_SUPER_ROWS / batch, 1);
}

/* ---- Scratch ------------------------------------------------------------------------------- */

/* Elements from row to row: staggered as all rows are. */
static size_t dz_row(const frnn_part *part) {
    const size_t columns = part->gates * part->hidden_size;
    return (columns + FRNN_BLOCK - 1) / FRNN_BLOCK * FRNN_BLOCK + FRNN_STAGGER;
}

static size_t x_row(const frnn_part *part) {
    return (part->input_size - 1) / FRNN_BLOCK * FRNN_BLOCK + FRNN_BLOCK + FRNN_STAGGER;
}

/* Steps of a chunk: whole chains of the sums, and no more than one of their super-sums. */
static size_t chunk_steps(const frnn_part *part, size_t itemsize, size_t batch) {
    const size_t unit = frnn_sum_steps(batch);
    const size_t bytes = unit * batch * dz_row(part) * itemsize;
    const size_t most = frnn_super_steps(batch) / unit;
    const size_t weights = part->gates * part->hidden_size * (part->input_size + part->hidden_size);
    const size_t target = frnn_max(CHUNK_BYTES, weights * itemsize / CHUNK_PART);
    return unit * frnn_min(frnn_max(target / frnn_max(bytes, 1), 1), most);
}

/* The arrays of a chunk: bytes from the start of scratch. */
typedef struct workspace {
    size_t dz;      /* [1 + steps][batch][dz_row]: the first is that of the chunk before */
    size_t h, x;    /* [steps][batch][ld], [steps][batch][x_row] */
    size_t partial; /* [steps][batch][FRNN_PARTIAL] */
    size_t sum;     /* [gates * hidden]: of one chain of rows */
    size_t size;
} workspace;

static int lay_out(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                   workspace *w) {
    w->size = 0;
    size_t most = dz_row(part); /* bytes of a chain, which chunk_steps() multiplies unchecked */
    if (!frnn_mul(&most, frnn_max(batch, FRNN_SUM_ROWS)) || !frnn_mul(&most, itemsize))
        return 0;
    steps = frnn_min(steps, chunk_steps(part, itemsize, batch));
    return frnn_append(&w->size, &w->dz, steps + 1, batch, dz_row(part), itemsize) &&
           frnn_append(&w->size, &w->h, steps, batch, part->ld, itemsize) &&
           frnn_append(&w->size, &w->x, steps, batch, x_row(part), itemsize) &&
           frnn_append(&w->size, &w->partial, steps, batch, FRNN_PARTIAL, itemsize) &&
           frnn_append(&w->size, &w->sum, 1, 1, dz_row(part), itemsize);
}

int frnn_part_back_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                           size_t *size) {
    workspace w = {0};
    if (part->gates > 0 && !lay_out(part, itemsize, steps, batch, &w))
        return 0;
    *size = w.size;
    return 1;
}

/* ---- Steps --------------------------------------------------------------------------------- */

/* The step that is visited as number i of the stretch. */
static size_t step_at(const frnn_part_back *run, size_t i) {
    return run->reverse ? i : run->steps - 1 - i;
}

static const char *saved_at(const frnn_part_back *run, size_t array, size_t row, size_t t) {
    return run->saved + array + t * run->batch * row * run->itemsize;
}

/* dz of steps number [first, first + count), and dh and carry before them. */
static void visit_steps(const frnn_part_back *run, const workspace *w, size_t first, size_t count) {
    const frnn_part *part = run->part;
    const frnn_cell_info *cell = frnn_cell_get(run->cell);
    const size_t dz_bytes = run->batch * dz_row(part) * run->itemsize;
    const size_t gates_row = frnn_gates_row(part);
    char *dz = run->scratch + w->dz;
    frnn_step_back step = {
        .row_end = run->batch,
        .block_end = part->blocks,
        .hidden_size = part->hidden_size,
        .activation = run->activation,
        .w_hh = run->w_hh,
        .alpha = cell->alpha ? run->alpha : NULL,
        .dz_row = dz_row(part),
        .dy_row = run->dy_row,
        .gates_row = gates_row,
        .dh = run->dh,
        .carry = run->carry,
        .dalpha = run->dalpha,
        .ld = part->ld,
        .partial = run->scratch + w->partial,
    };
    for (size_t i = first; i < first + count; i++, dz += dz_bytes) {
        const size_t t = step_at(run, i);
        const int initial = i + 1 == run->steps;
        step.backwards = i % 2 == 1;
        step.dz_next = i == 0 ? NULL : dz;
        step.dz = dz + dz_bytes;
        step.dy = run->dy == NULL || t < run->dy_begin
                      ? NULL
                      : run->dy + (ptrdiff_t)t * run->dy_step * (ptrdiff_t)run->itemsize;
        step.gates = saved_at(run, run->layout->gates, gates_row, t);
        if (cell->history) {
            step.c = saved_at(run, run->layout->c, part->ld, t);
            step.c_prev = initial ? run->saved + (cell->memory ? run->layout->c0 : run->layout->h0)
                                  : saved_at(run, run->layout->c, part->ld, step_at(run, i + 1));
        }
        run->kernels->step_back[run->cell](&step);
    }
}

/* dh before the first step of the stretch; at the first step of all, the gradient of the state. */
static void visit_initial(const frnn_part_back *run, const workspace *w, const char *dz) {
    const frnn_part *part = run->part;
    const frnn_cell_info *cell = frnn_cell_get(run->cell);
    const frnn_project_back product = {
        .rows = run->batch,
        .k = part->hidden_size,
        .blocks = part->blocks,
        .gates = part->gates,
        .a = dz,
        .a_row = (ptrdiff_t)dz_row(part),
        .w = run->w_hh,
        .out = run->dh,
        .out_row = (ptrdiff_t)part->ld,
        .partial = run->scratch + w->partial,
    };
    run->kernels->project_back(&product);
    if (!run->last)
        return;
    const frnn_step_back step = {
        .row_end = run->batch,
        .block_end = part->blocks,
        .hidden_size = part->hidden_size,
        .activation = run->activation,
        .alpha = cell->alpha ? run->alpha : NULL,
        .c_prev = cell->memory ? run->saved + run->layout->c0 : NULL,
        .dh = run->dh,
        .carry = run->carry,
        .ld = part->ld,
    };
    run->kernels->step_back[run->cell](&step);
}

/* ---- What a chunk is multiplied with -------------------------------------------------------- */

/* h of `rows` rows from what a part saved, from row to row as far as given. */
static void hidden_rows(const frnn_part_back *run, const char *saved, size_t t, size_t rows,
                        char *h, size_t h_row, ptrdiff_t direction) {
    const frnn_part *part = run->part;
    const size_t gates_row = frnn_gates_row(part);
    const frnn_hidden hidden = {
        .rows = rows,
        .blocks = part->blocks,
        .activation = run->activation,
        .gates = saved + run->layout->gates + t * run->batch * gates_row * run->itemsize,
        .gates_row = direction * (ptrdiff_t)gates_row,
        .c = frnn_cell_get(run->cell)->history
                 ? saved + run->layout->c + t * run->batch * part->ld * run->itemsize
                 : NULL,
        .c_row = direction * (ptrdiff_t)part->ld,
        .h = h,
        .h_row = (ptrdiff_t)h_row,
    };
    run->kernels->hidden[run->cell](&hidden);
}

/* Outputs of steps number [first, first + count) of a part, to h [count][batch][h_row]. */
static void hidden_steps(const frnn_part_back *run, const char *saved, size_t first, size_t count,
                         char *h, size_t h_row) {
    if (count > 0 && run->batch == 1) {
        hidden_rows(run, saved, step_at(run, first), count, h, h_row, run->reverse ? 1 : -1);
        return;
    }
    for (size_t i = 0; i < count; i++, h += run->batch * h_row * run->itemsize)
        hidden_rows(run, saved, step_at(run, first + i), run->batch, h, h_row, 1);
}

/* h that each step of the chunk started from. */
static void gather_h(const frnn_part_back *run, size_t first, size_t count, char *h) {
    const size_t bytes = run->batch * run->part->ld * run->itemsize;
    const int initial = first + count == run->steps;
    hidden_steps(run, run->saved, first + 1, count - (initial != 0), h, run->part->ld);
    if (initial)
        memcpy(h + (count - 1) * bytes, run->saved + run->layout->h0, bytes);
}

/* The input of each step of the chunk, rows padded with zeros. */
static void gather_x(const frnn_part_back *run, size_t first, size_t count, char *x) {
    const frnn_part *part = run->part;
    const size_t row = x_row(part) * run->itemsize, used = part->input_size * run->itemsize;
    if (run->below[0] != NULL) {
        /* the blocks of one direction end in padding, which the other overwrites */
        for (size_t d = 0; d < 2 && run->below[d] != NULL; d++)
            hidden_steps(run, run->below[d], first, count,
                         x + d * part->hidden_size * run->itemsize, x_row(part));
        return;
    }
    for (size_t i = first; i < first + count; i++) {
        const char *from =
            run->x + (ptrdiff_t)step_at(run, i) * run->x_step * (ptrdiff_t)run->itemsize;
        for (size_t b = 0; b < run->batch; b++, x += row) {
            memcpy(x, from + (ptrdiff_t)b * run->x_row * (ptrdiff_t)run->itemsize, used);
            memset(x + used, 0, row - used);
        }
    }
}

/* ---- Gradients of parameters ----------------------------------------------------------------- */

/* Where the steps at `position` are summed: in the gradients themselves, or behind the first
 * super-sum in an array of its own; *add: whether there is something to add to. */
static const frnn_gradients *sum_target(const frnn_part_back *run, uint64_t position, int *add) {
    const size_t super = frnn_super_steps(run->batch);
    const int direct = position < super;
    *add = direct ? run->accumulate || position > 0 : position % super != 0;
    return direct ? run->gradients : &run->sums;
}

/* Rows of one chain; a larger batch has several in each step. */
static size_t chain_rows(size_t batch) {
    return batch > FRNN_SUM_ROWS ? FRNN_SUM_ROWS : frnn_sum_steps(batch) * batch;
}

/* c (+)= the sum over rows of outer products. */
static void sum_outer(const frnn_part_back *run, const char *a, size_t a_row, size_t m,
                      const char *b, size_t b_row, size_t n, size_t steps, void *c, int add) {
    if (c == NULL)
        return;
    const size_t calls = run->batch > FRNN_SUM_ROWS ? steps : 1; /* no chain crosses a step then */
    frnn_outer outer = {
        .rows = steps / calls * run->batch,
        .chain = chain_rows(run->batch),
        .m = m,
        .n = n,
        .a_row = a_row,
        .b_row = b_row,
        .c = c,
        .add = add,
    };
    for (size_t i = 0; i < calls; i++) {
        outer.a = a + i * run->batch * a_row * run->itemsize;
        outer.b = b + i * run->batch * b_row * run->itemsize;
        run->kernels->outer(&outer);
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

/* total += the sum over `steps` steps of rows of a. Vectors are few enough to be summed in double,
 * chain by chain. */
static void sum_vector(const frnn_part_back *run, const workspace *w, const char *a, size_t a_row,
                       size_t m, size_t steps, double *total) {
    const size_t batch = run->batch, chain = chain_rows(batch);
    const size_t block = batch > FRNN_SUM_ROWS ? batch : steps * batch; /* chains restart in it */
    for (size_t row = 0; row < steps * batch;) {
        frnn_outer ones = {
            .rows = frnn_min(chain, block - row % block),
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

/* At the end of a super-sum: its array to the gradients. */
static void fold_sums(const frnn_part_back *run) {
    const frnn_part *part = run->part;
    const size_t rows = part->gates * part->hidden_size;
    const frnn_gradients *to = run->gradients, *from = &run->sums;
    if (to->weight_ih != NULL)
        run->kernels->add(from->weight_ih, to->weight_ih, rows * part->input_size);
    if (to->weight_hh != NULL)
        run->kernels->add(from->weight_hh, to->weight_hh, rows * part->hidden_size);
}

/* The gradient of alpha is summed over time in rows of its own; at the end of each chain of steps
 * the rows are added up. */
static void sum_alpha(const frnn_part_back *run, const workspace *w) {
    const frnn_part *part = run->part;
    sum_vector(run, w, run->dalpha, part->ld, part->hidden_size, 1, run->total_alpha);
    memset(run->dalpha, 0, run->batch * part->ld * run->itemsize);
}

static void sum_chunk(const frnn_part_back *run, const workspace *w, size_t first, size_t count) {
    const frnn_part *part = run->part;
    const size_t rows = part->gates * part->hidden_size, row = dz_row(part);
    const char *dz = run->scratch + w->dz + run->batch * row * run->itemsize;
    char *const h = run->scratch + w->h, *const x = run->scratch + w->x;
    int add;
    const frnn_gradients *target = sum_target(run, run->position + first, &add);
    if (target->weight_hh != NULL)
        gather_h(run, first, count, h);
    if (target->weight_ih != NULL)
        gather_x(run, first, count, x);
    sum_outer(run, dz, row, rows, h, part->ld, part->hidden_size, count, target->weight_hh, add);
    sum_outer(run, dz, row, rows, x, x_row(part), part->input_size, count, target->weight_ih, add);
    if (run->gradients->bias_ih != NULL || run->gradients->bias_hh != NULL)
        sum_vector(run, w, dz, row, rows, count, run->total_bias);
}

/* ---- Gradient of the input ------------------------------------------------------------------ */

static void input_chunk(const frnn_part_back *run, const workspace *w, size_t first, size_t count) {
    const frnn_part *part = run->part;
    const ptrdiff_t itemsize = (ptrdiff_t)run->itemsize;
    const size_t row = x_row(part);
    const char *from = run->scratch + w->x;
    const frnn_project_back product = {
        .rows = count * run->batch,
        .k = part->hidden_size,
        .blocks = (part->input_size - 1) / FRNN_BLOCK + 1,
        .gates = part->gates,
        .a = run->scratch + w->dz + run->batch * dz_row(part) * run->itemsize,
        .a_row = (ptrdiff_t)dz_row(part),
        .w = run->w_ih,
        .out = run->scratch + w->x,
        .out_row = (ptrdiff_t)row,
        .partial = run->scratch + w->partial,
    };
    run->kernels->project_back(&product);
    for (size_t i = first; i < first + count; i++) {
        char *to = run->dx + (ptrdiff_t)step_at(run, i) * run->dx_step * itemsize;
        for (size_t b = 0; b < run->batch; b++, from += row * run->itemsize) {
            if (run->dx_add)
                run->kernels->add(from, to, part->input_size);
            else
                memcpy(to, from, part->input_size * run->itemsize);
            to += run->dx_row * itemsize;
        }
    }
}

void frnn_part_backward(const frnn_part_back *run) {
    const frnn_part *part = run->part;
    const size_t batch = run->batch, dz_bytes = batch * dz_row(part) * run->itemsize;
    const size_t chain = frnn_sum_steps(batch), super = frnn_super_steps(batch);
    const size_t chunk = chunk_steps(part, run->itemsize, batch);
    const frnn_gradients *const gradients = run->gradients;
    workspace w;
    lay_out(part, run->itemsize, run->steps, batch, &w);
    for (size_t first = 0; first < run->steps;) {
        const uint64_t position = run->position + first;
        const size_t to_super = super - (size_t)(position % super);
        const size_t count = frnn_min(frnn_min(chunk, to_super), run->steps - first);
        const int end = run->last && first + count == run->steps;
        char *const dz = run->scratch + w.dz;
        for (size_t i = 0; i < count;) { /* chain by chain, for alpha */
            const size_t to_chain = chain - (size_t)((position + i) % chain);
            const size_t n = frnn_min(to_chain, count - i);
            workspace at = w;
            at.dz += i * dz_bytes;
            visit_steps(run, &at, first + i, n);
            i += n;
            if (run->dalpha != NULL && (n == to_chain || (end && i == count)))
                sum_alpha(run, &w);
        }
        if (gradients != NULL)
            sum_chunk(run, &w, first, count);
        if (run->dx != NULL)
            input_chunk(run, &w, first, count);
        if (gradients != NULL && position >= super && (count == to_super || end))
            fold_sums(run);
        first += count;
        memcpy(dz, dz + count * dz_bytes, dz_bytes);
    }
    visit_initial(run, &w, run->scratch + w.dz);
    if (gradients == NULL || !run->last)
        return;
    frnn_total_store(run, run->total_bias, part->gates * part->hidden_size, gradients->bias_ih);
    frnn_total_store(run, run->total_bias, part->gates * part->hidden_size, gradients->bias_hh);
    frnn_total_store(run, run->total_alpha, part->hidden_size, gradients->alpha);
}
