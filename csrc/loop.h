/* SPDX-License-Identifier: MIT
 *
 * What the loops over time share: rnn.c, where each step reads the one before it, delays.c and
 * clocks.c.
 */
#ifndef FRNN_LOOP_H
#define FRNN_LOOP_H

#include "internal.h"

/* So few inputs, times so few rows, are multiplied within the step. */
#define FRNN_FOLD_INPUTS 4
#define FRNN_FOLD_ROWS   6

/* The arrays of scratch: bytes from its start. R are the rows that go side by side at most. */
typedef struct frnn_workspace {
    size_t gates;   /* [rows][blocks][slots][16] */
    size_t partial; /* [rows + FRNN_PARTIAL_ROWS][FRNN_PARTIAL] */
    size_t inner;   /* [R][ld]: what is projected, or for each delay r * h */
    /* Of ragged batches, sorted: */
    size_t x;              /* [rows][input_size] */
    size_t y;              /* [batch][output_size] */
    size_t h, c;           /* [2][batch][h_ld], [batch][ld]: the state */
    size_t h0, c0;         /* before the first step */
    size_t h_prev, c_prev; /* with rows that start anew */
    /* Of time structures: */
    size_t blend_h, blend_c; /* [delays][batch][h_ld], [batch][ld]: between two steps */
    size_t next;             /* [batch][h_ld]: h of the groups that are active */
    size_t size;
} frnn_workspace;

/* What does not change from step to step of a part. */
typedef struct frnn_loop {
    const frnn_part_run *run;
    frnn_workspace w;
    frnn_step step;
    frnn_piece pieces[FRNN_MAX_DELAYS], reset_pieces[FRNN_MAX_DELAYS];
    frnn_lists lists;
    size_t h_bytes, c_bytes, gates_bytes; /* of a row */
    int fold;                             /* inputs are multiplied within the step */
    char *h, *c;                          /* the ring of the state, and c or NULL */
    char *kept_h, *kept_c; /* the arrays that training keeps of every step; or NULL */
} frnn_loop;

int frnn_loop_layout(const frnn_part *part, size_t itemsize, size_t steps, size_t batch, int ragged,
                     frnn_workspace *w);

/* `h` and `c` are the state to work on. It must stay where it is: steps point into it. */
void frnn_loop_begin(frnn_loop *loop, const frnn_part_run *run, const frnn_workspace *w, char *h,
                     char *c);

/* The most rows that go side by side. */
size_t frnn_loop_rows(const frnn_part *part, size_t itemsize, size_t batch);

/* The input part of the gates for steps [begin, begin + steps): gates[t - begin][b]. */
void frnn_loop_project(const frnn_part_run *run, size_t begin, size_t steps, char *gates,
                       void *partial);

/* The gates of a chunk that begins with that row: in what is saved, or in scratch. */
char *frnn_loop_gates(const frnn_loop *loop, size_t row);

/* What the cell made of a step, through the projection to h, and on to y (or NULL). */
void frnn_loop_output(const frnn_loop *loop, void *h, void *y);

/* The caller's row, of x or y, that row number `row` of a visit of a ragged batch is; and y = 0
 * behind the end of each. */
const char *frnn_loop_row(const frnn_part_run *run, size_t row, size_t visit, const char *array,
                          ptrdiff_t step, ptrdiff_t stride);
void frnn_loop_clear_padding(const frnn_part_run *run);

/* What training saves of the part; the state before the first step, to that: rows of h and c. */
char *frnn_saved_part(const frnn_part_run *run);
void frnn_keep_begin(const frnn_part_run *run, const char *h, const char *c);

/* Makes a run of the second direction one of the first, over the steps in their other order. */
void frnn_turn(frnn_part_run *run);

/* The loops: every row does every step. */
void frnn_delays_forward(const frnn_part_run *run);
void frnn_clocks_forward(const frnn_part_run *run);

/* Either of them, of all rows together, or row by row where their lengths or clocks differ or where
 * they start anew. */
void frnn_rows_forward(const frnn_part_run *run);
int frnn_rows_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                      int ragged, size_t *size);

#endif
