/* SPDX-License-Identifier: MIT
 *
 * What the drivers (net.c, stack.c, rnn.c, scan.c, train.c, back.c, sums.c, pack.c) share: sizes,
 * parts of a net, ragged batches, runs of a part. What they share with the kernels is in kernel.h.
 */
#ifndef FRNN_INTERNAL_H
#define FRNN_INTERNAL_H

#include "kernel.h"

#include <stdint.h>
#include <string.h>

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

/* Blocks of 16 that so many units take. */
static inline size_t frnn_blocks_of(size_t units) {
    return (units - 1) / FRNN_BLOCK + 1;
}

/* Blocks of a layer's units: each group of units begins with a block of its own. */
size_t frnn_blocks(const frnn_config *net);

/* Values of h and of one direction's output. */
static inline size_t frnn_output_size(const frnn_config *net) {
    return FRNN_OUTPUT_SIZE(net);
}

/* The input size of a layer. */
static inline size_t frnn_layer_input(const frnn_config *net, size_t layer) {
    return layer == 0 ? net->input_size : net->num_directions * frnn_output_size(net);
}

/* Layers that differ in size: the first of all and the second, which stands for the rest, unless
 * each has a delay of its own. */
static inline size_t frnn_kinds(const frnn_config *net) {
    return net->dilated ? net->num_layers : frnn_min(net->num_layers, 2);
}

/* Whether the fast kernels serve: those of the default activations, without limits. */
int frnn_config_plain(const frnn_config *net);

/* The arrays of frnn_weights, for what goes through them all. */
enum {
    FRNN_WEIGHT_IH,
    FRNN_WEIGHT_HH,
    FRNN_BIAS_IH,
    FRNN_BIAS_HH,
    FRNN_ALPHA,
    FRNN_WEIGHT_HR,
    FRNN_PEEPHOLE,
    FRNN_WEIGHT_COUNT
};

/* Elements of such an array of a layer; 0 if the net has none; those of frnn_weights.delayed are
 * numbered from FRNN_WEIGHT_COUNT on. Sizes have been found to fit. */
size_t frnn_weight_elements(const frnn_config *net, size_t layer, int which);

/* FRNN_OK if memory is there, aligned, and `size` is at least `needed`. */
frnn_status frnn_buffer_check(const void *memory, size_t size, size_t needed);

/* ---- Parts -------------------------------------------------------------------------------- */

/* Rows of states and gates are a block longer than they need to be. Where rows are 4096 bytes apart
 * all of them compete for the same few lines of the first cache. */
#define FRNN_STAGGER FRNN_BLOCK

/* Units that share a clock, as kernels see them: groups lie from the slowest to the fastest, each
 * from the begin of a block on. */
typedef struct frnn_group {
    size_t unit, size; /* of the caller's units */
    size_t period;
    size_t block, blocks;
    size_t sources; /* groups that it reads: the first so many */
    size_t readers; /* the first group that reads it, as do all that follow */
} frnn_group;

/* Columns of the packed recurrent matrix of group i: those of all that it reads. */
static inline size_t frnn_group_k(const frnn_group *groups, size_t i) {
    const frnn_group *last = &groups[groups[i].sources - 1];
    return (last->block + last->blocks) * FRNN_BLOCK;
}

/* The groups of a net; returns their number. */
size_t frnn_groups_get(const frnn_config *net, frnn_group *groups);

/* A part is one layer in one direction; parts are numbered layer * D + direction. */
typedef struct frnn_part {
    size_t input_size, hidden_size, blocks, gates;
    size_t slots;       /* of gates scratch */
    size_t back_slots;  /* of dz */
    size_t dz_slots;    /* and what else lies there: r, where delays read r * h */
    size_t output_size; /* values of h: hidden_size, or those of a projection */
    size_t output_blocks;
    size_t vectors; /* that kernels read per unit: see frnn_step */
    size_t sums;    /* of those, whose gradients are sums over steps: alpha, the peephole */
    size_t width;   /* units with their padding */
    size_t ld;      /* elements from row to row of c and of what the cell makes; see FRNN_STAGGER */
    size_t h_ld;    /* the same of h */
    int recurrent;  /* has a recurrent matrix */
    int projected;  /* has a projection */
    int reset_before; /* is GRU_RESET_BEFORE, whose recurrent matrix is packed in two */
    int derived;      /* is LEAKY_POTENTIAL, whose h follows from c */
    /* Time structure. */
    const frnn_config *net;
    int structured;       /* delays or clocks: not for the plain loop over time */
    size_t groups;        /* 0: no clocks */
    size_t mask_blocks;   /* not 0: the recurrent matrix is lists of blocks */
    size_t dz_units;      /* units of a gate in dz: hidden_size, with clocks width */
    size_t num_delays;    /* 1 or more */
    const size_t *delays; /* ascending */
    const double *fractions;
    int interpolated;  /* some fraction is not 0 */
    size_t span;       /* steps that do not wait for each other and can go side by side */
    size_t ring;       /* steps of h in the state: the longest delay and a span */
    size_t history[2]; /* steps in the caller's arrays of a state, h and c */
    size_t c_ring;     /* steps of c in the state */
    /* Bytes from the start of the packed weights. */
    size_t w_ih, w_hh, bias, vector, w_hr, zeros;
    /* Of masked matrices, see frnn_lists: [blocks + 1] and whether these are lanes; [mask_blocks]
     * columns of blocks, or as many bytes again for those of lanes; [2][width], the units of lanes
     * and how many connections each unit has. */
    size_t list_begin, list_k, list_units;
    /* Bytes from the start of the state: h is a ring of steps [ring][batch][h_ld], as is c
     * [c_ring][batch][ld]; with clocks both are of one step, and sums that are kept follow. */
    size_t h, c;
    size_t kept, kept_sums; /* [groups + 1] of uint64_t: see clocks.c; [batch][kept_elements] */
    size_t kept_elements;
    size_t window_elements; /* of all windows of a row: see clocks_back.c */
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
void frnn_part_fill(const frnn_config *net, size_t layer, frnn_part *part);

/* The slot of a ring for step `slot` of those that a state holds, the oldest of them first. */
size_t frnn_ring_slot(const frnn_part *part, uint64_t position, int c, size_t slot);

/* Copies the units of a row between a state or an adjoint and the caller's array, where one of `to`
 * and `from` is NULL. */
void frnn_exchange_row(const frnn_config *net, size_t size, char *values, char *to,
                       const char *from);

/* Elements from row to row of gates. */
size_t frnn_gates_row(const frnn_part *part);

/* Where a part's share of what training saves lies, in bytes from its start; all have one size. */
typedef struct frnn_saved {
    size_t h0, c0; /* [batch][h_ld], [batch][ld]: the state before the first step; with delays
                      [history][batch], or row by row [batch][history] */
    size_t clocks; /* [batch] of uint64_t: likewise, of nets with groups */
    size_t gates;  /* [steps][batch][gates_row] */
    size_t c;      /* [steps][batch][ld]: c, or h where there is no c; of leaky units one step in
                      FRNN_SCAN_PIECE */
    size_t h;      /* [steps][batch][h_ld]: with a projection */
    size_t size;
} frnn_saved;

int frnn_saved_layout(const frnn_config *net, size_t steps, size_t batch, frnn_saved *saved);

/* FRNN_OK if the buffer begins with that header, `position` apart. */
frnn_status frnn_header_check(const void *memory, uint32_t magic, const frnn_config *net,
                              size_t batch, size_t steps, frnn_header *header);

/* Whether the weights of a part are those that its cell has. */
frnn_status frnn_weights_check(const frnn_config *net, const frnn_weights *weights);

/* The vectors of a part, [vectors][width] with zeros in the padding. */
void frnn_pack_vectors(const frnn_config *net, const frnn_part *part, const frnn_weights *w,
                       void *to);

/* pack_lists.c: masked recurrent matrices and their lists, of blocks if there is no room for the
 * units of lanes; and those lists once more. */
void frnn_pack_lists(const frnn_part *part, size_t itemsize, const frnn_weights *w, char *to,
                     char *list_begin, char *list_k, char *list_units);
frnn_lists frnn_lists_at(const frnn_part *part, const char *list_begin, const char *list_k,
                         const char *list_units);

/* Packing: begin takes the buffer, and end marks it as complete; until then it is refused. */
frnn_status frnn_pack_begin(const frnn_config *net, void *packed, size_t packed_size);
frnn_status frnn_pack_part(const frnn_config *net, size_t index, const frnn_weights *weights,
                           void *packed);
void frnn_pack_end(const frnn_config *net, void *packed);

/* ---- Ragged batches ------------------------------------------------------------------------ */

/* Which rows take part in which visit: a part visits the steps of each row one by one, from the
 * row's first step, or in reverse from its last. Rows are sorted so that those that are left at a
 * visit are the first ones; what is kept of all visits lies packed, visit after visit. */
typedef struct frnn_ragged {
    size_t steps, batch;   /* of the caller */
    size_t visits;         /* steps of the longest row */
    const size_t *order;   /* [batch]: the caller's number of each row; the longest come first */
    const size_t *length;  /* [batch]: steps of each row */
    const size_t *offset;  /* [steps + 1]: rows of all visits before */
    const size_t *lengths; /* of the caller: [batch] or NULL */
    const unsigned char *reset; /* of the caller: [steps][batch] or NULL */
} frnn_ragged;

/* Bytes of memory that frnn_ragged_begin() takes; 0 on overflow. */
int frnn_ragged_size(size_t steps, size_t batch, size_t *size);
frnn_ragged frnn_ragged_begin(void *memory, size_t steps, size_t batch, const size_t *lengths,
                              const unsigned char *reset);
/* Whether lengths, if there are any, are at most `steps`. */
int frnn_ragged_legal(const size_t *lengths, size_t steps, size_t batch);

/* The rows of a visit. */
static inline size_t frnn_ragged_rows(const frnn_ragged *ragged, size_t visit) {
    return visit < ragged->visits ? ragged->offset[visit + 1] - ragged->offset[visit] : 0;
}

/* The step of a row's visit. */
static inline size_t frnn_ragged_time(const frnn_ragged *ragged, size_t row, size_t visit,
                                      int reverse) {
    return reverse ? ragged->length[row] - 1 - visit : visit;
}

/* Whether a row starts anew before that visit, which is not its first. */
int frnn_ragged_restarts(const frnn_ragged *ragged, size_t row, size_t visit, int reverse);
int frnn_ragged_any_restart(const frnn_ragged *ragged, size_t visit, int reverse);

/* Rows of `bytes` bytes, from the caller's order to that of the visits, and back. */
void frnn_ragged_sort(const frnn_ragged *ragged, const char *from, char *to, size_t bytes);
void frnn_ragged_unsort(const frnn_ragged *ragged, const char *from, char *to, size_t bytes);

/* ---- Rows of nets with a time structure (rows.c) --------------------------------------------- */

/* Whether rows must be run one by one for their clocks. */
int frnn_rows_apart(const uint64_t *clocks, size_t batch);

/* Steps of a row; calls for each stretch of it that nothing starts anew in, in the order in which a
 * direction visits them. Returns the length. A row without steps has one stretch without steps. */
typedef void (*frnn_rows_visit)(void *context, size_t begin, size_t steps, size_t number, int last);
size_t frnn_rows_length(const frnn_ragged *ragged, size_t steps, size_t b);
size_t frnn_rows_stretches(const frnn_ragged *ragged, size_t steps, size_t b, int reverse,
                           frnn_rows_visit visit, void *context);

/* ---- Running a part ------------------------------------------------------------------------- */

/* One part over a stretch of time. */
typedef struct frnn_part_run {
    const frnn_kernels *kernels;
    const frnn_part *part;
    const frnn_config *net;
    int plain;
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
    size_t index;              /* of the part */
    size_t begin;              /* of these steps in what is saved */
    uint64_t stamp;            /* of the packed weights */
    uint64_t *clocks;          /* [batch]: steps done, of nets with groups; else NULL */
    char *keep_h0, *keep_c0;   /* of nets with a time structure: where training wants the state
                                  before the first step; or NULL */
    const frnn_ragged *ragged; /* or NULL: every row does every step */
} frnn_part_run;

/* Bytes of scratch for a part, with a ragged batch or without; steps of the time chunk in which it
 * projects its input. */
int frnn_part_scratch(const frnn_part *part, size_t itemsize, size_t steps, size_t batch,
                      int ragged, size_t *size);
size_t frnn_part_chunk(const frnn_part *part, size_t itemsize, size_t batch);

void frnn_part_forward(const frnn_part_run *run); /* rnn.c: cells with gates */
void frnn_part_scan(const frnn_part_run *run);    /* scan.c: cells without */

/* One part over a stretch of time, backwards: from the last step of the stretch to the first. */
typedef struct frnn_part_back {
    const frnn_kernels *kernels;
    const frnn_part *part;
    const frnn_saved *layout;
    const frnn_config *net;
    int plain;
    size_t itemsize;
    size_t steps, batch;
    int reverse;
    const char *w_ih, *w_hh, *w_hr, *vectors; /* as the backward wants them */
    const char *saved;                        /* of this part */
    const char *x;                            /* the input of layer 0 */
    ptrdiff_t x_step, x_row;
    const char *below[2]; /* above it: what the parts of the layer below saved, or NULL */
    const char *dy;       /* or NULL */
    ptrdiff_t dy_step, dy_row;
    size_t dy_begin;
    char *dx; /* or NULL */
    ptrdiff_t dx_step, dx_row;
    int dx_add;                         /* dx holds the other direction's share */
    char *dh, *carry, *dvectors;        /* of the adjoint */
    double *total_bias, *total_vectors; /* [back_slots * hidden], [sums * hidden]: likewise */
    const frnn_gradients *gradients;    /* or NULL */
    frnn_gradients sums;                /* of matrices: the rows of one FRNN_SUPER_ROWS */
    int accumulate;
    int parallel_time;
    uint64_t position; /* steps that went before, nearer the end of the sequence */
    int last;          /* no stretch follows */
    char *scratch;     /* frnn_part_back_scratch() bytes */
    const frnn_ragged *ragged;
    frnn_lists lists;          /* of a masked recurrent matrix, and the mask */
    const unsigned char *mask; /* [hidden_size, output_size] */
    /* Nets with a time structure. Visits go through `span` steps (0: they are steps) of `rows`
     * rows, and steps and batch above are visits and rows of them; times are the steps. */
    size_t span, rows, times;
    size_t begin, end;      /* with clocks: the steps that are gone through */
    int turned;             /* the second direction, whose steps are in their other order here */
    const char *h0, *c0;    /* as saved: the state before the first step */
    size_t first;           /* row of the first step in what was saved */
    size_t b;               /* of a row that is run alone, its number; else 0 */
    const uint64_t *clocks; /* [rows]: as saved */
    char *dz_past;          /* of the adjoint: [reach][span * rows][dz_row], dz of later visits */
    char *windows;          /* of the adjoint: see clocks_back.c */
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
                           int ragged, size_t *size);
void frnn_part_backward(const frnn_part_back *run);  /* back.c: cells with gates */
void frnn_part_scan_back(const frnn_part_back *run); /* scan.c: cells without */

#endif
