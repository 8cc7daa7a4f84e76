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
    size_t dz;      /* [batch + R][dz_row]: the first rows are those of the visit before */
    size_t h, x;    /* [R][h_ld], [R][x_row] */
    size_t dp;      /* [R][h_ld]: what arrives at the output of a projection */
    size_t inner;   /* [R][ld]: what went into it, or r * h */
    size_t dinner;  /* [batch][ld]: its gradient */
    size_t partial; /* [R][FRNN_PARTIAL] */
    size_t sum;     /* [back_slots * hidden]: of one chain of rows */
    /* Of ragged batches: */
    size_t dy;           /* [batch][output_size] */
    size_t dz_next;      /* [batch][dz_row]: without rows that start anew */
    size_t c_prev;       /* [batch][ld]: with them */
    size_t dh0, dcarry0; /* [batch][h_ld], [batch][ld]: what they give to the initial state */
    size_t row;          /* [h_ld]: what one of them gives */
    size_t sorted;       /* [batch][max(h_ld, ld)] */
    size_t size;
} frnn_back_space;

/* Visits [first, first + count) of the stretch, the rows of which are one chunk. */
typedef struct frnn_back_chunk {
    size_t first, count, rows;
} frnn_back_chunk;

/* Elements from row to row. */
size_t frnn_dz_row(const frnn_part *part);
size_t frnn_x_row(const frnn_part *part);

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
/* At the end of a super-sum; at the end of a chain of visits; at the end of all. */
void frnn_back_fold(const frnn_part_back *run);
void frnn_back_vectors(const frnn_part_back *run, const frnn_back_space *w);
void frnn_back_totals(const frnn_part_back *run);

#endif
