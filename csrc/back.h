/* SPDX-License-Identifier: MIT
 *
 * What the time loop backwards (back.c) and the sums over its steps (sums.c) share. Visits are
 * counted here from the last to the first: visit i of a stretch. For a chunk of them the gradients
 * of pre-activations are kept, row after row.
 */
#ifndef FRNN_BACK_H
#define FRNN_BACK_H

#include "internal.h"

/* The arrays of a chunk: bytes from the start of scratch; R is as many rows as a chunk may have. */
typedef struct frnn_back_space {
    size_t dz;      /* [visits * batch + R][dz_row]: the first rows are those of the visits before
                       that the longest delay reaches */
    size_t h, x;    /* [R][h_ld], [R][x_row] */
    size_t dp;      /* [R][h_ld]: what arrives at the output of a projection */
    size_t inner;   /* [R][ld]: what went into it, or r * h */
    size_t dinner;  /* [batch][ld]: its gradient */
    size_t partial; /* [R][FRNN_PARTIAL] */
    size_t sum;     /* [back_slots * hidden]: of one chain of rows */
    size_t lanes;   /* [output_size][16]: of masked matrices */
    /* Of ragged batches: */
    size_t dy;           /* [batch][output_size] */
    size_t dz_next;      /* [batch][dz_row]: without rows that start anew */
    size_t c_prev;       /* [batch][ld]: with them */
    size_t dh0, dcarry0; /* [batch][h_ld], [batch][ld]: what they give to the initial state */
    size_t row;          /* [h_ld]: what one of them gives */
    size_t sorted;       /* [batch][max(h_ld, ld)] */
    size_t size;
} frnn_back_space;

/* Where the weights of a part lie, in bytes from the start of what frnn_pack_back() packs. */
typedef struct frnn_packed_back {
    size_t w_ih, w_hh, w_hr, vectors;
    size_t list_begin, list_k, mask; /* of masked matrices */
    size_t whole;                    /* uint32_t: not 0 if such a matrix is not lists after all */
} frnn_packed_back;

/* pack_back.c: whether so many blocks of a masked matrix, 0 if it is none, are better multiplied
 * as a whole matrix with zeros. */
int frnn_back_many(const frnn_part *part, size_t mask_blocks);
/* The weights of a part, which have been checked. */
void frnn_pack_back_part(const frnn_config *net, const frnn_part *part, const frnn_packed_back *at,
                         const frnn_weights *w, char *base);

/* Visits [first, first + count) of the stretch, the rows of which are one chunk. */
typedef struct frnn_back_chunk {
    size_t first, count, rows;
} frnn_back_chunk;

/* Whether the part of a run has a masked matrix that is a whole one: its mask_blocks are 0. */
static inline int frnn_back_whole(const frnn_part *part) {
    return part->net->mask_blocks > 0 && part->mask_blocks == 0 && part->groups == 0;
}

/* Elements from row to row. */
size_t frnn_dz_row(const frnn_part *part);
size_t frnn_x_row(const frnn_part *part);

/* Visits that the longest delay reaches; visits of a chunk. */
size_t frnn_back_reach(const frnn_part *part);
size_t frnn_back_chunk_visits(const frnn_part *part, size_t itemsize, size_t batch);

int frnn_back_layout(const frnn_part *part, size_t itemsize, size_t steps, size_t batch, int ragged,
                     frnn_back_space *w);

/* dz of the first row of a chunk. */
char *frnn_back_dz(const frnn_part_back *run, const frnn_back_space *w);

/* out = dz U of the delay of that number, for rows that follow one another. */
void frnn_back_recurrent(const frnn_part_back *run, const frnn_back_space *w, size_t rows,
                         size_t delay, const void *dz, void *out, void *partial);

/* The same of what is reset before the product, of a delay after the first: out += r * (dn U_n). */
void frnn_back_reset(const frnn_part_back *run, const frnn_back_space *w, size_t rows, size_t delay,
                     const char *dz, char *given, char *out, void *partial);

/* From what arrives at the output of a projection, dp, to what arrives at the cell. */
void frnn_back_unproject(const frnn_part_back *run, size_t rows, const void *dp, void *inner,
                         void *partial);

/* What does not change from visit to visit. */
frnn_step_back frnn_back_step(const frnn_part_back *run, const frnn_back_space *w);

/* dx of the rows of a chunk. */
void frnn_back_input(const frnn_part_back *run, const frnn_back_space *w,
                     const frnn_back_chunk *chunk);

/* The first step of visit i, where a visit goes through as many as a shortest delay has. */
size_t frnn_back_first(const frnn_part_back *run, size_t i);

/* The rows of visit i. */
size_t frnn_back_rows(const frnn_part_back *run, size_t i);

/* The first of them in what was saved. */
size_t frnn_back_saved_row(const frnn_part_back *run, size_t i);

/* The caller's row of x, dx or dy that row number `row` of visit i belongs to, in elements. */
ptrdiff_t frnn_back_at(const frnn_part_back *run, size_t i, size_t row, ptrdiff_t step,
                       ptrdiff_t row_step);

/* Whether that row starts anew before visit i. */
int frnn_back_restarts(const frnn_part_back *run, size_t i, size_t row);

/* sums.c: the chunk to the gradients of parameters. */
void frnn_back_sums(const frnn_part_back *run, const frnn_back_space *w,
                    const frnn_back_chunk *chunk);
/* Whether the steps at `position` are summed in the gradients themselves: those of the first
 * super-sum, unless what a mask leaves out must not be added to them. */
int frnn_back_direct(const frnn_part_back *run, uint64_t position);
/* There, or in an array of their own; *add: whether there is something to add to. */
const frnn_gradients *frnn_back_target(const frnn_part_back *run, uint64_t position, int *add);
/* Outputs of the layer below, or the caller's input, of each row of the chunk, padded with zeros.
 */
void frnn_back_gather_x(const frnn_part_back *run, const frnn_back_chunk *chunk, char *x);
/* total += the sum of `rows` rows of a, in double: chains. */
void frnn_back_sum_rows(const frnn_part_back *run, const frnn_back_space *w, const char *a,
                        size_t a_row, size_t m, size_t rows, double *total);
/* h that each row of the chunk read with a delay, [rows][h_ld]. */
void frnn_back_gather_delayed(const frnn_part_back *run, const frnn_back_chunk *chunk, size_t delay,
                              char *h);
/* Makes those values 0 whose mask is. */
void frnn_back_clear(void *values, const unsigned char *mask, size_t n, size_t itemsize);
/* At the end of a super-sum; at the end of a chain of visits; at the end of all. */
void frnn_back_fold(const frnn_part_back *run);
void frnn_back_vectors(const frnn_part_back *run, const frnn_back_space *w);
void frnn_back_totals(const frnn_part_back *run);

/* Loops backwards of nets with a time structure, of all rows or of one. */
void frnn_delays_backward(const frnn_part_back *run);
void frnn_clocks_backward(const frnn_part_back *run);
int frnn_delays_back_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                             size_t *size);
int frnn_clocks_back_scratch(const frnn_part *part, size_t itemsize, size_t batch, size_t *size);

/* At the end of all, of a net with clocks: sums of vectors to the gradients. */
void frnn_clocks_totals(const frnn_part_back *run);

/* h of one row at a step of a part with clocks, [output_size] in the caller's order. `first` is the
 * row of the first step in what was saved. */
void frnn_clocks_output(const frnn_part_back *run, const char *saved, size_t first, size_t step,
                        size_t b, char *to);

/* Either of them, of all rows together or one by one. */
void frnn_rows_backward(const frnn_part_back *run);
int frnn_rows_back_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                           int ragged, size_t *size);

#endif
