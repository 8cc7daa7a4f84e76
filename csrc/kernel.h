/* SPDX-License-Identifier: MIT
 *
 * The private contract between the drivers (see internal.h) and
 * the kernels that are compiled once per instruction set and dtype (simd/). Drivers know shapes,
 * time and memory; kernels know arithmetic. Everything that a kernel touches arrives in one struct.
 *
 * Packed weights. Units are taken in blocks of 16, the last one padded with zeros. A panel is the
 * 16 columns of one gate of one block; panels are interleaved along k so that one stream of memory
 * feeds all gates of a block:
 *
 *     w[block][k][gate][16]          k = 0 .. K - 1, the input or the recurrent units
 *
 * Gates scratch has the same order without k, gates[row][block][slot][16]. There is a slot for each
 * gate; where the recurrent part of the last gate G - 1 is kept apart, slot G - 1 takes that and
 * slot G the input part. A kernel is handed pointers to whole arrays and ranges of rows and blocks
 * to work on, so that a caller may cut the work along either without moving a bit (of
 * GRU_RESET_BEFORE, whose step has two products in a row, along rows only; its w_hh is that of two
 * gates followed by that of the last).
 *
 * The backward multiplies gradients of pre-activations, which lie in the plain order dz[row][slot *
 * hidden + unit], with the transposed matrices, one after the other for each gate:
 *
 *     w_back[gate][block][k][16]     k = 0 .. hidden - 1; blocks of inputs or of recurrent units
 *
 * where four blocks at a time, while there are as many, lie interleaved as [k][4][16]. dz has a
 * slot for each gate; those of the GRU are r, z, the recurrent part of n, n.
 */
#ifndef FRNN_KERNEL_H
#define FRNN_KERNEL_H

#include "fastrnn.h"

#include <stdint.h>

#define FRNN_BLOCK 16 /* units in a block */

/* out[r][p] = bias[p] + sum over k of a[r][k] * w[p][k], for rows r and all panels p. */
typedef struct frnn_project {
    size_t rows, k, blocks, gates;
    int apart;     /* 1: out has gates + 1 slots, and the last gate goes to the last */
    const void *a; /* [rows, k], rows a_row elements apart */
    ptrdiff_t a_row;
    const void *w;    /* [blocks][k][gates][16] */
    const void *bias; /* [blocks][gates][16] */
    void *out;        /* [rows][blocks][slots][16], rows out_row elements apart */
    ptrdiff_t out_row;
    void *partial; /* [rows][FRNN_PARTIAL]: sums between pieces of k */
} frnn_project;

/* A stretch of the chains of a recurrent product: what it multiplies, and where the chains stand
 * after it. */
typedef struct frnn_piece {
    const void *past; /* [rows][past_row] */
    size_t k;
    void *sums; /* [rows][blocks][gates][16], rows sums_row elements apart; NULL: not wanted */
} frnn_piece;

/* What a masked matrix has, as entries of 16 lanes: those of block b are begin[b] to
 * begin[b + 1] - 1, and their weights lie so:
 *
 *     w[begin[b] .. begin[b + 1] - 1][gate][16]     for each piece of the product in turn
 *
 * As blocks of 16 units by one column, the lanes of block b are its units and entry n is of the
 * column columns[n]. Where connections are so scattered that such blocks are nearly empty, a lane
 * has columns of its own: it is that of units[16 * b + lane], and its entry n is of the column
 * lanes[16 * n + lane], with weight 0 once it has no more. In both the columns of a unit ascend. */
typedef struct frnn_lists {
    const uint32_t *begin, *columns;
    const uint16_t *lanes, *units; /* NULL: blocks */
} frnn_lists;

/* One step of one layer in one direction: gates += U h_prev, then the cell. For a few inputs it is
 * cheaper to compute the input part here than to write and read it; the bits are the same. */
typedef struct frnn_step {
    size_t row_begin, row_end;
    size_t block_begin, block_end;
    size_t hidden_size;
    const frnn_config *net; /* activations and limits */
    int plain;              /* those are the defaults, and there is no peephole */
    int backwards;          /* visit the blocks from the last to the first: what the step before
                               used last is still in the cache */
    const void *w_hh;       /* [blocks][k of all pieces][gates][16], or NULL: there is none */
    size_t recurrent_size;  /* k of all pieces, also of those that w_hh lies behind */
    const frnn_piece
        *pieces; /* what w_hh multiplies, in this order: with delays, and with clocks */
    size_t num_pieces;
    size_t past_row;
    const void *start; /* what the chains start from, as sums; NULL: zeros */
    size_t sums_row;
    const frnn_lists *lists; /* of a masked matrix, or NULL */
    const void *vectors;     /* [n][vector_size]: alpha, the recurrent bias of n, or the peephole */
    size_t vector_size;
    const void *h_prev; /* [rows][past_row]: what goes on by itself; that of the first piece */
    void *h;            /* [rows][ld]; not h_prev */
    const frnn_piece *reset_pieces; /* r * past, [rows][ld] each, GRU_RESET_BEFORE only */
    const void *c_prev;             /* [rows][ld] or NULL */
    void *c;                        /* [rows][ld] or NULL; may be c_prev */
    size_t ld;                      /* blocks * 16 or more */
    int save;         /* leave in gates what the backward needs, activated gates mostly */
    void *gates;      /* [rows][blocks][slots][16]: the input part; garbage if not saved */
    size_t gates_row; /* elements from row to row of it */
    const void *x;    /* [rows, input_size]: if not NULL, the input part is still to be computed */
    ptrdiff_t x_row;
    size_t input_size;
    const void *w_ih; /* [blocks][input_size][gates][16] */
    const void *bias; /* [blocks][gates][16] */
    void *partial;    /* [rows][FRNN_PARTIAL]: sums between pieces of k */
    void *y;          /* [rows, hidden_size]: h once more, for the caller; or NULL */
    ptrdiff_t y_row;
} frnn_step;

/* Elements per row of partial sums: the widest group of panels whose product is cut along k. So few
 * rows that one tile holds them may have more panels in a group, and take what FRNN_PARTIAL_ROWS
 * would. */
#define FRNN_PARTIAL      64
#define FRNN_PARTIAL_ROWS 6

/* h once more from what training saved of a step; rows may lie at any distance. */
typedef struct frnn_hidden {
    size_t rows, blocks;
    const frnn_config *net;
    int plain;
    const void *gates; /* [rows][blocks][slots][16] */
    ptrdiff_t gates_row;
    const void *c; /* [rows][blocks * 16], or NULL */
    ptrdiff_t c_row;
    void *h; /* [rows][blocks * 16] */
    ptrdiff_t h_row;
} frnn_hidden;

/* Values that are on their way from a product to the state and to y: those that faded become 0. */
typedef struct frnn_emit {
    size_t rows, count;
    void *h; /* [rows][h_row] */
    size_t h_row;
    void *y; /* [rows, count] or NULL */
    ptrdiff_t y_row;
} frnn_emit;

/* One step of one layer in one direction, backwards: dh = dz_next U, then the cell, from dh and dy
 * to dz. */
typedef struct frnn_step_back {
    size_t row_begin, row_end;
    size_t block_begin, block_end;
    size_t hidden_size;
    const frnn_config *net;
    int plain, backwards;
    const void *w_hh;    /* [gates][blocks][hidden_size][16]: U transposed, or NULL */
    const void *vectors; /* [n][vector_size] or NULL */
    size_t vector_size;
    const void *dz_next; /* [rows][dz_row]: of the step after this, or NULL: dh is complete */
    void *dz;            /* [rows][dz_row]; NULL: what is wanted is the gradient of the state */
    size_t dz_row;
    size_t dz_gate; /* elements from gate to gate of it */
    const void *dy; /* [rows, hidden_size] or NULL: zeros */
    ptrdiff_t dy_row;
    const void *gates; /* as saved */
    size_t gates_row;
    const void *c, *c_prev; /* [rows][ld]: as saved; h, h_prev where there is no c; or NULL */
    void *dh;               /* [rows][ld]: the gradient that comes from later steps */
    void *carry;            /* [rows][ld]: likewise, of c or of what goes on by itself */
    void *dvectors;         /* [n][...][ld]: sums over time, or NULL */
    size_t dvector_size;    /* elements from vector to vector of it */
    void *reset_dh;         /* [rows][ld]: the gradient of r * h, GRU_RESET_BEFORE only */
    /* Likewise, of delays after the first: what they read, [rows][ld] each; room for what arrives
     * at it, and for what r gets of it. r goes to dz, behind the gates. */
    size_t delays, delay_matrix; /* elements from matrix to matrix in w_hh */
    const void *past;            /* [delays - 1][rows][ld] */
    void *reset_more, *reset_sum;
    const frnn_lists *lists; /* likewise, of a masked matrix, or NULL: then w_hh is that of the
                                forward; for others dz_next is NULL */
    void *lanes;             /* [recurrent units][16] */
    size_t ld;
    void *partial; /* [rows][FRNN_PARTIAL] */
} frnn_step_back;

/* out[r][p] = sum over gates of (sum over k of a[r][gate][k] * w[gate][p][k]). */
typedef struct frnn_project_back {
    size_t rows, k, blocks, gates;
    size_t last;   /* slot of a that the last gate reads; gate g reads slot g */
    const void *a; /* [rows][slots][k], slots a_gate elements apart */
    ptrdiff_t a_row;
    size_t a_gate;
    const void *w; /* [gates][blocks][k][16] */
    void *out;     /* [rows][blocks * 16] */
    ptrdiff_t out_row;
    void *partial; /* [rows][FRNN_PARTIAL] */
} frnn_project_back;

/* c[i][j] (+)= sum over r of a[r][i] * b[r][j]: a sum of chains of `chain` rows each. */
typedef struct frnn_outer {
    size_t rows, chain;
    size_t m, n;
    const void *a; /* [rows][m] */
    size_t a_row;
    const void *b; /* [rows][n rounded up to 16]; NULL: ones, and n is 1 */
    size_t b_row;
    void *c; /* [m, n] */
    size_t c_row;
    int add; /* 0: c is overwritten */
} frnn_outer;

/* Products with a masked matrix, transposed, of one row: out[k] = sum over units, gate by gate, of
 * a[gate][unit] * w[unit][gate][k], for a piece of what frnn_lists describes. */
typedef struct frnn_lists_back {
    size_t hidden_size, k, blocks, gates;
    size_t last;   /* slot of a that the last gate reads; gate g reads slot g */
    const void *a; /* [slots][hidden_size] */
    const frnn_lists *lists;
    const void *w;        /* as of the forward */
    size_t piece, pieces; /* number of this piece, of all */
    void *lanes;          /* [k][16]: sums of each unit of a block apart */
    void *out;            /* [k] */
} frnn_lists_back;

/* c[gate][unit][k] += sum over r of a[r][gate][unit] * b[r][k], where the mask is not 0: a sum of
 * chains of `chain` rows each. */
typedef struct frnn_lists_outer {
    size_t rows, chain;
    size_t hidden_size, blocks, gates;
    const void *a; /* [rows][gates * hidden_size], of the last unit more */
    size_t a_row;
    const void *b; /* [rows][b_row] */
    size_t b_row;
    const frnn_lists *lists;
    const unsigned char *mask; /* [hidden_size, c_row] */
    void *c;                   /* [gates * hidden_size, c_row] */
    size_t c_row;
} frnn_lists_outer;

/* out = (1 - fraction) * a + fraction * b; rows of whole blocks. */
typedef struct frnn_blend {
    const void *a, *b;
    void *out;
    size_t count;
    double fraction;
} frnn_blend;

/* h = alpha * h + (1 - alpha) * x for each channel, over all steps of one sequence. */
typedef struct frnn_scan {
    size_t steps, channels;
    const void *x; /* [steps, channels] */
    ptrdiff_t x_step;
    void *y;
    ptrdiff_t y_step;
    const void *alpha; /* [channels], padded to blocks of 16 */
    void *h;           /* [channels], padded likewise: state in and out */
    int parallel_time;
    const unsigned char *reset; /* or NULL: steps before which h is h0 once more */
    size_t reset_step;
    const void *h0;
} frnn_scan;

/* The same backwards: g = dy + carry, dx = (1 - alpha) * g, carry = alpha * g. */
typedef struct frnn_scan_back {
    size_t steps, channels; /* steps: at most FRNN_SCAN_PIECE */
    const void *x;
    ptrdiff_t x_step;
    const void *dy; /* or NULL: zeros */
    ptrdiff_t dy_step;
    size_t dy_begin; /* dy is zero before this step */
    void *dx;        /* or NULL */
    ptrdiff_t dx_step;
    const void *alpha; /* [channels], padded to blocks of 16, as all that follow */
    const void *h;     /* before the first step */
    void *carry;
    void *dalpha; /* += the sum over the steps */
    int parallel_time;
    const unsigned char *reset; /* as of frnn_scan */
    size_t reset_step;
    const void *h0;
    void *carry0; /* += what arrives at h0 by resets */
} frnn_scan_back;

/* y = alpha * y + (1 - alpha) * v for each channel, alpha given per step, over all steps of one
 * row. channels >= 1; arrays are [steps, channels]. */
typedef struct frnn_gated_scan {
    size_t steps, channels;
    const void *alpha, *v;
    ptrdiff_t alpha_step, v_step;
    void *y;
    ptrdiff_t y_step;
    void *state; /* [channels]: in and out */
    int parallel_time;
} frnn_gated_scan;

/* The same backwards: g = dy + carry, dv = (1 - alpha) * g, dalpha = g * (y of the step before -
 * v), carry = alpha * g. */
typedef struct frnn_gated_scan_back {
    size_t steps, channels;
    const void *alpha, *v, *y;
    ptrdiff_t alpha_step, v_step, y_step;
    const void *dy; /* or NULL: zeros */
    ptrdiff_t dy_step;
    const void *state; /* [channels]: before the first step */
    void *dalpha, *dv;
    ptrdiff_t dalpha_step, dv_step;
    void *carry; /* [channels]: in and out */
    int parallel_time;
} frnn_gated_scan_back;

/* Training keeps the state of a leaky unit once in so many steps and computes it again between. */
#define FRNN_SCAN_PIECE 64

/* One instruction set and dtype. */
typedef struct frnn_kernels {
    const char *isa;
    void (*project)(const frnn_project *project);
    void (*step[FRNN_CELL_COUNT])(const frnn_step *step);
    void (*emit)(const frnn_emit *emit);
    void (*scan)(const frnn_scan *scan);
    void (*hidden[FRNN_CELL_COUNT])(const frnn_hidden *hidden);
    void (*step_back[FRNN_CELL_COUNT])(const frnn_step_back *step);
    void (*project_back)(const frnn_project_back *project);
    void (*outer)(const frnn_outer *outer);
    void (*lists_back)(const frnn_lists_back *product);
    void (*lists_outer)(const frnn_lists_outer *outer);
    void (*blend)(const frnn_blend *blend);
    void (*scan_back)(const frnn_scan_back *scan);
    void (*gated)(const frnn_gated_scan *scan);
    void (*gated_back)(const frnn_gated_scan_back *scan);
    /* to[i] += from[i];  to[i] += a[i] * b[i] */
    void (*add)(const void *from, void *to, size_t n);
    void (*add_product)(const void *a, const void *b, void *to, size_t n);
    /* y[i] = f(x[i]); x may be y. The cells use the same code; tests and drivers come this way. */
    void (*exp)(const void *x, void *y, size_t n);
    void (*sigmoid)(const void *x, void *y, size_t n);
    void (*tanh)(const void *x, void *y, size_t n);
    void (*activate)(const frnn_function *function, const void *x, void *y, size_t n);
    /* Probes of the machine's limits, for benchmarks: floating-point operations in n rounds of
     * independent fused multiply-adds; bytes of a buffer, read into registers `repeats` times. */
    double (*fma_flops)(size_t n);
    size_t (*read_bytes)(const void *buffer, size_t size, size_t repeats);
} frnn_kernels;

extern const frnn_kernels frnn_kernels_scalar_f32, frnn_kernels_scalar_f64;
extern const frnn_kernels frnn_kernels_avx2_f32, frnn_kernels_avx2_f64;
extern const frnn_kernels frnn_kernels_avx512_f32, frnn_kernels_avx512_f64;

/* The table of a named instruction set, or NULL if it is unknown or this machine lacks it. */
const frnn_kernels *frnn_kernels_get(const char *isa, frnn_dtype dtype);

/* The table in use, or NULL if FASTRNN_ISA names one that cannot be had. */
const frnn_kernels *frnn_kernels_active(frnn_dtype dtype);

#endif
