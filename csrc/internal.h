/* SPDX-License-Identifier: MIT
 *
 * The private contract between the drivers (stack.c, rnn.c, scan.c, train.c, back.c, pack.c) and
 * the kernels that are compiled once per instruction set and dtype (simd/). Drivers know shapes,
 * time and memory; kernels know arithmetic. Everything that a kernel touches arrives in one struct.
 *
 * Packed weights. Units are taken in blocks of 16, the last one padded with zeros. A panel is the
 * 16 columns of one gate of one block; panels are interleaved along k so that one stream of memory
 * feeds all gates of a block:
 *
 *     w[block][k][gate][16]          k = 0 .. K - 1, the input or the recurrent units
 *
 * Gates scratch has the same order without k: gates[row][block][gate][16]. A kernel is handed
 * pointers to whole arrays and ranges of rows and blocks to work on, so that a caller may cut the
 * work along either without moving a bit.
 *
 * The backward multiplies gradients of pre-activations, which lie in the plain order dz[row][gate *
 * hidden + unit], with the transposed matrices, one after the other for each gate:
 *
 *     w_back[gate][block][k][16]     k = 0 .. hidden - 1; blocks of inputs or of recurrent units
 *
 * where four blocks at a time, while there are as many, lie interleaved as [k][4][16].
 */
#ifndef FRNN_INTERNAL_H
#define FRNN_INTERNAL_H

#include "fastrnn.h"

#include <stdint.h>
#include <string.h>

#define FRNN_BLOCK 16 /* units in a block */

/* ---- Kernels ------------------------------------------------------------------------------ */

/* out[r][p] = bias[p] + sum over k of a[r][k] * w[p][k], for rows r and all panels p. */
typedef struct frnn_project {
    size_t rows, k, blocks, gates;
    const void *a; /* [rows, k], rows a_row elements apart */
    ptrdiff_t a_row;
    const void *w;    /* [blocks][k][gates][16] */
    const void *bias; /* [blocks][gates][16] */
    void *out;        /* [rows][blocks][gates][16], rows out_row elements apart */
    ptrdiff_t out_row;
    void *partial; /* [rows][FRNN_PARTIAL]: sums between pieces of k */
} frnn_project;

/* One step of one layer in one direction: gates += U h_prev, then the cell. For a few inputs it is
 * cheaper to compute the input part here than to write and read it; the bits are the same. */
typedef struct frnn_step {
    size_t row_begin, row_end;
    size_t block_begin, block_end;
    size_t hidden_size;
    frnn_activation activation;
    int backwards;      /* visit the blocks from the last to the first: what the step before used
                           last is still in the cache */
    const void *w_hh;   /* [blocks][hidden_size][gates][16] */
    const void *alpha;  /* [blocks * 16] or NULL */
    const void *h_prev; /* [rows][ld] */
    void *h;            /* [rows][ld]; not h_prev */
    const void *c_prev; /* [rows][ld] or NULL */
    void *c;            /* [rows][ld] or NULL; may be c_prev */
    size_t ld;          /* blocks * 16 or more */
    int save;           /* leave in gates what the backward needs, activated gates mostly */
    void *gates;        /* [rows][blocks][gates][16]: the input part; garbage if not saved */
    size_t gates_row;   /* elements from row to row of it */
    const void *x; /* [rows, input_size]: if not NULL, the input part is still to be computed */
    ptrdiff_t x_row;
    size_t input_size;
    const void *w_ih; /* [blocks][input_size][gates][16] */
    const void *bias; /* [blocks][gates][16] */
    void *partial;    /* [rows][FRNN_PARTIAL]: sums between pieces of k */
    void *y;          /* [rows, hidden_size]: h once more, for the caller */
    ptrdiff_t y_row;
} frnn_step;

/* Elements per row of partial sums: the widest group of panels whose product is cut along k. */
#define FRNN_PARTIAL 64

/* h once more from what training saved of a step; rows may lie at any distance. */
typedef struct frnn_hidden {
    size_t rows, blocks;
    frnn_activation activation;
    const void *gates; /* [rows][blocks][gates][16] */
    ptrdiff_t gates_row;
    const void *c; /* [rows][blocks * 16], or NULL */
    ptrdiff_t c_row;
    void *h; /* [rows][blocks * 16] */
    ptrdiff_t h_row;
} frnn_hidden;

/* One step of one layer in one direction, backwards: dh += dz_next U, then the cell, from dh and dy
 * to dz. */
typedef struct frnn_step_back {
    size_t row_begin, row_end;
    size_t block_begin, block_end;
    size_t hidden_size;
    frnn_activation activation;
    int backwards;
    const void *w_hh;    /* [gates][blocks][hidden_size][16]: U transposed */
    const void *alpha;   /* [blocks * 16] or NULL */
    const void *dz_next; /* [rows][dz_row]: of the step after this, or NULL: dh is complete */
    void *dz;            /* [rows][dz_row]; NULL: what is wanted is the gradient of the state */
    size_t dz_row;
    const void *dy; /* [rows, hidden_size] or NULL: zeros */
    ptrdiff_t dy_row;
    const void *gates; /* as saved */
    size_t gates_row;
    const void *c, *c_prev; /* [rows][ld]: as saved; h, h_prev where there is no c; or NULL */
    void *dh;               /* [rows][ld]: the gradient that comes from later steps */
    void *carry;            /* [rows][ld]: likewise, of c or the leaky average */
    void *dalpha;           /* [rows][ld]: sums over time, or NULL */
    size_t ld;
    void *partial; /* [rows][FRNN_PARTIAL] */
} frnn_step_back;

/* out[r][p] = sum over gates of (sum over k of a[r][gate][k] * w[gate][p][k]). */
typedef struct frnn_project_back {
    size_t rows, k, blocks, gates;
    const void *a; /* [rows][gates * k] */
    ptrdiff_t a_row;
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
    int add; /* 0: c is overwritten */
} frnn_outer;

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
} frnn_scan_back;

/* Training keeps the state of a leaky unit once in so many steps and computes it again between. */
#define FRNN_SCAN_PIECE 64

/* One instruction set and dtype. */
typedef struct frnn_kernels {
    const char *isa;
    void (*project)(const frnn_project *project);
    void (*step[FRNN_CELL_COUNT])(const frnn_step *step);
    void (*scan)(const frnn_scan *scan);
    void (*hidden[FRNN_CELL_COUNT])(const frnn_hidden *hidden);
    void (*step_back[FRNN_CELL_COUNT])(const frnn_step_back *step);
    void (*project_back)(const frnn_project_back *project);
    void (*outer)(const frnn_outer *outer);
    void (*scan_back)(const frnn_scan_back *scan);
    /* to[i] += from[i] */
    void (*add)(const void *from, void *to, size_t n);
    /* y[i] = f(x[i]); x may be y. The cells use the same code; tests and drivers come this way. */
    void (*exp)(const void *x, void *y, size_t n);
    void (*sigmoid)(const void *x, void *y, size_t n);
    void (*tanh)(const void *x, void *y, size_t n);
    void (*activate)(frnn_activation activation, const void *x, void *y, size_t n);
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

/* ---- Sizes -------------------------------------------------------------------------------- */

/* a * b and a + b into *a; 0 if the result does not fit. They are on the path of every step of a
 * stream, where a division would be felt. */
static inline int frnn_mul(size_t *a, size_t b) {
#if defined(__GNUC__) || defined(__clang__)
    return !__builtin_mul_overflow(*a, b, a);
#else
    if (b != 0 && *a > SIZE_MAX / b)
        return 0;
    *a *= b;
    return 1;
#endif
}

static inline int frnn_add(size_t *a, size_t b) {
    if (*a > SIZE_MAX - b)
        return 0;
    *a += b;
    return 1;
}

static inline size_t frnn_min(size_t a, size_t b) {
    return a < b ? a : b;
}

static inline size_t frnn_max(size_t a, size_t b) {
    return a > b ? a : b;
}

static inline size_t frnn_itemsize(frnn_dtype dtype) {
    return dtype == FRNN_F32 ? 4 : 8;
}

static inline size_t frnn_blocks(const frnn_config *net) {
    return (net->hidden_size - 1) / FRNN_BLOCK + 1;
}

/* The input size of a layer. */
static inline size_t frnn_layer_input(const frnn_config *net, size_t layer) {
    return layer == 0 ? net->input_size : net->num_directions * net->hidden_size;
}

/* FRNN_OK if memory is there, aligned, and `size` is at least `needed`. */
frnn_status frnn_buffer_check(const void *memory, size_t size, size_t needed);

/* ---- Parts -------------------------------------------------------------------------------- */

/* Rows of states and gates are a block longer than they need to be. Where rows are 4096 bytes apart
 * all of them compete for the same few lines of the first cache. */
#define FRNN_STAGGER FRNN_BLOCK

/* A part is one layer in one direction; parts are numbered layer * D + direction. */
typedef struct frnn_part {
    size_t input_size, hidden_size, blocks, gates;
    size_t width; /* units with their padding */
    size_t ld;    /* elements from row to row of a state, see FRNN_STAGGER */
    /* Bytes from the start of the packed weights. */
    size_t w_ih, w_hh, bias, alpha;
    /* Bytes from the start of the state: h is a ring of two steps [2][batch][ld], c [batch][ld]. */
    size_t h, c;
} frnn_part;

/* What the first bytes of packed weights and of a state hold, so that a buffer of another net or
 * one that was never written is refused instead of read. */
typedef struct frnn_header {
    uint32_t magic;
    uint32_t key;      /* of the config, see frnn_config_key */
    uint64_t batch;    /* of states, adjoints and what is saved */
    uint64_t position; /* steps done so far, which turns the ring of a state */
    uint64_t steps;    /* of the whole sequence: adjoints; that were saved */
} frnn_header;

#define FRNN_MAGIC_PACKED      0x50724e4eu
#define FRNN_MAGIC_STATE       0x53724e4eu
#define FRNN_MAGIC_PACKED_BACK 0x42724e4eu
#define FRNN_MAGIC_SAVED       0x54724e4eu
#define FRNN_MAGIC_ADJOINT     0x41724e4eu
#define FRNN_HEADER_SIZE       FRNN_ALIGN

uint32_t frnn_config_key(const frnn_config *net);

/* Where part number `index` lies, for a net whose sizes have been found to fit. O(1). */
frnn_part frnn_part_get(const frnn_config *net, size_t batch, size_t index);

/* Appends an array of a * b * c elements to the buffer that ends at *end, aligned; its start goes
 * to *at. Returns 0 if the size does not fit, as all of these. */
int frnn_append(size_t *end, size_t *at, size_t a, size_t b, size_t c, size_t itemsize);

/* A net's buffers hold one stretch for each part. An append function lays out the part of a layer
 * at the ends of two of them; frnn_layout does so for part number `index`, without going through
 * those before it. The number after the last gives the sizes of the whole. */
typedef int (*frnn_append_part)(const frnn_config *net, size_t steps, size_t batch, size_t layer,
                                void *part, size_t *end, size_t *other_end);
int frnn_layout(const frnn_config *net, size_t steps, size_t batch, size_t index,
                frnn_append_part append, void *part, size_t *end, size_t *other_end);

/* What a part is, without where it lies. */
frnn_part frnn_part_shape(const frnn_config *net, size_t layer);

/* Elements from row to row of gates. */
size_t frnn_gates_row(const frnn_part *part);

/* Where a part's share of what training saves lies, in bytes from its start; all have one size. */
typedef struct frnn_saved {
    size_t h0, c0; /* [batch][ld]: the state before the first step */
    size_t gates;  /* [steps][batch][gates_row] */
    size_t c;      /* [steps][batch][ld]: c, or h where there is no c; of leaky units one step in
                      FRNN_SCAN_PIECE */
    size_t size;
} frnn_saved;

int frnn_saved_layout(const frnn_config *net, size_t steps, size_t batch, frnn_saved *saved);

/* FRNN_OK if the buffer begins with that header, `position` apart. */
frnn_status frnn_header_check(const void *memory, uint32_t magic, const frnn_config *net,
                              size_t batch, size_t steps, frnn_header *header);

/* Whether the weights of a part are those that its cell has. */
frnn_status frnn_weights_check(const frnn_config *net, const frnn_weights *weights);

/* Packing: begin takes the buffer, and end marks it as complete; until then it is refused. */
frnn_status frnn_pack_begin(const frnn_config *net, void *packed, size_t packed_size);
frnn_status frnn_pack_part(const frnn_config *net, size_t index, const frnn_weights *weights,
                           void *packed);
void frnn_pack_end(const frnn_config *net, void *packed);

/* One part over a stretch of time. */
typedef struct frnn_part_run {
    const frnn_kernels *kernels;
    const frnn_part *part;
    frnn_cell cell;
    frnn_activation activation;
    size_t itemsize;
    size_t steps, batch;
    int reverse; /* the direction that starts at the last step */
    const char *packed;
    char *state;
    uint64_t position;
    const char *x; /* strides in elements */
    ptrdiff_t x_step, x_row;
    char *y;
    ptrdiff_t y_step, y_row;
    char *scratch; /* frnn_part_scratch() bytes */
    int parallel_time;
    char *saved; /* of all parts, or NULL */
    const frnn_saved *layout;
    size_t index; /* of the part */
    size_t begin; /* of these steps in what is saved */
} frnn_part_run;

/* Bytes of scratch for a part; steps of the time chunk in which it projects its input. */
int frnn_part_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                      size_t *size);
size_t frnn_part_chunk(const frnn_part *part, size_t itemsize, size_t batch);

void frnn_part_forward(const frnn_part_run *run); /* rnn.c: cells with gates */
void frnn_part_scan(const frnn_part_run *run);    /* scan.c: cells without */

/* One part over a stretch of time, backwards: from the last step of the stretch to the first. */
typedef struct frnn_part_back {
    const frnn_kernels *kernels;
    const frnn_part *part;
    const frnn_saved *layout;
    frnn_cell cell;
    frnn_activation activation;
    size_t itemsize;
    size_t steps, batch;
    int reverse;
    const char *w_ih, *w_hh, *alpha; /* as the backward wants them */
    const char *saved;               /* of this part */
    const char *x;                   /* the input of layer 0 */
    ptrdiff_t x_step, x_row;
    const char *below[2]; /* above it: what the parts of the layer below saved, or NULL */
    const char *dy;       /* or NULL */
    ptrdiff_t dy_step, dy_row;
    size_t dy_begin;
    char *dx; /* or NULL */
    ptrdiff_t dx_step, dx_row;
    int dx_add;                       /* dx holds the other direction's share */
    char *dh, *carry, *dalpha;        /* of the adjoint */
    double *total_bias, *total_alpha; /* [gates * hidden], [hidden]: likewise */
    const frnn_gradients *gradients;  /* or NULL */
    frnn_gradients sums;              /* of weights: the rows of one FRNN_SUPER_ROWS */
    int accumulate;
    int parallel_time;
    uint64_t position; /* steps that went before, nearer the end of the sequence */
    int last;          /* no stretch follows */
    char *scratch;     /* frnn_part_back_scratch() bytes */
} frnn_part_back;

/* Sums over rows are chains of about FRNN_SUM_ROWS rows, added up to sums of about FRNN_SUPER_ROWS
 * rows, added up: the error grows with the length of each level only. In steps: */
#define FRNN_SUM_ROWS   128
#define FRNN_SUPER_ROWS 4096
size_t frnn_sum_steps(size_t batch);
size_t frnn_super_steps(size_t batch);

/* Sums of vectors go on in double: total += sum; a total to a gradient, at the end of all. */
void frnn_total_add(double *total, const void *sum, size_t n, size_t itemsize);
void frnn_total_store(const frnn_part_back *run, const double *total, size_t n, void *to);

int frnn_part_back_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                           size_t *size);
void frnn_part_backward(const frnn_part_back *run);  /* back.c: cells with gates */
void frnn_part_scan_back(const frnn_part_back *run); /* scan.c: cells without */

#endif
