/* SPDX-License-Identifier: MIT
 *
 * The private contract between the drivers (rnn.c, stack.c, scan.c, pack.c) and the kernels that
 * are compiled once per instruction set and dtype (simd/). Drivers know shapes, time and memory;
 * kernels know arithmetic. Everything that a kernel touches arrives in one struct.
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
    void *gates;        /* [rows][blocks][gates][16]: the input part; garbage afterwards */
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

/* One instruction set and dtype. */
typedef struct frnn_kernels {
    const char *isa;
    void (*project)(const frnn_project *project);
    void (*step[FRNN_CELL_COUNT])(const frnn_step *step);
    void (*scan)(const frnn_scan *scan);
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
    uint64_t batch;    /* states only */
    uint64_t position; /* states only: steps done so far, which turns the ring */
} frnn_header;

#define FRNN_MAGIC_PACKED 0x50724e4eu
#define FRNN_MAGIC_STATE  0x53724e4eu
#define FRNN_HEADER_SIZE  FRNN_ALIGN

uint32_t frnn_config_key(const frnn_config *net);

/* Where part number `index` lies, for a net whose sizes have been found to fit. O(1). */
frnn_part frnn_part_get(const frnn_config *net, size_t batch, size_t index);

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
} frnn_part_run;

/* Bytes of scratch for a part; steps of the time chunk in which it projects its input. */
int frnn_part_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                      size_t *size);
size_t frnn_part_chunk(const frnn_part *part, size_t itemsize, size_t batch);

void frnn_part_forward(const frnn_part_run *run); /* rnn.c: cells with gates */
void frnn_part_scan(const frnn_part_run *run);    /* scan.c: cells without */

#endif
