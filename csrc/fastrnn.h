/* SPDX-License-Identifier: MIT
 *
 * fastrnn: recurrent networks on the CPU. This header is the manual of the C library.
 *
 * Build: compile every .c file of csrc/ and csrc/simd/ together with the application,
 *
 *     cc -O3 -ffp-contract=off -Icsrc app.c csrc/[*].c csrc/simd/[*].c      (without the brackets)
 *
 * There is no configuration step, no dependency and no list of files to leave out: what a
 * machine cannot use compiles to nothing, and the best instruction set is chosen at run time.
 *
 * The library allocates nothing and keeps no state but its choice of instruction set. The caller
 * owns four kinds of memory, asks for their sizes and passes them in:
 *
 *   packed   the weights in the order in which the kernels read them; written by frnn_pack(),
 *            then only read: any number of threads and streams may share it
 *   state    one per stream: the recurrent state between calls
 *   scratch  one per call: contents are garbage before and after
 *   x, y     plain arrays of the caller, never read or written outside their elements
 *
 * Training has two more, see there: what a forward saves for its backward, and the adjoint.
 *
 * A whole program for a net of one LSTM layer:
 *
 *     frnn_config net = FRNN_CONFIG(FRNN_CELL_LSTM, 40, 128);
 *     size_t packed_size, state_size, scratch_size;
 *     frnn_packed_size(&net, &packed_size);             ... allocate each, aligned to FRNN_ALIGN
 *     frnn_state_size(&net, batch, &state_size);
 *     frnn_scratch_size(&net, steps, batch, &scratch_size);
 *     frnn_weights w = {.weight_ih = wi, .weight_hh = wh, .bias_ih = bi, .bias_hh = bh};
 *     frnn_pack(&net, &w, packed, packed_size);
 *     frnn_state_reset(&net, batch, state, state_size);
 *     frnn_run run = FRNN_RUN(&net, steps, batch, x, y, state, state_size, scratch, scratch_size);
 *     frnn_forward(&net, packed, packed_size, &run);    ... as often as there is input
 *
 * Numerics. Each pre-activation is the sum of two chains of fused multiply-adds, one from the bias
 * over the inputs, one from zero over the recurrent units, joined by one addition. Everything
 * after it is correctly rounded IEEE arithmetic in a fixed order. A result therefore has the same
 * bits for any batch size and any row in the batch, for a sequence given whole, in pieces or step
 * by step, and on every instruction set. That holds if the library is compiled without -ffast-math
 * and with -ffp-contract=off. sigmoid and tanh are within 2 units in the last place. A state below
 * 2^-100 (double: 2^-900) in magnitude becomes 0 after an update, so that a decaying unit never
 * computes with subnormal numbers. A NaN stays in its row of the batch.
 *
 * Threads: every function may be called from any thread at any time, as long as no two calls
 * share a state or scratch buffer.
 */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FRNN_VERSION_MAJOR 0
#define FRNN_VERSION_MINOR 1
#define FRNN_VERSION_PATCH 0

/* Alignment in bytes of every packed, state and scratch buffer. x and y need only the alignment
 * of their element type. */
#define FRNN_ALIGN 64

/* ---- Status ------------------------------------------------------------------------------- */

/* Every function that can fail returns one of these and has then changed nothing but what its
 * comment names. */
typedef enum frnn_status {
    FRNN_OK = 0,
    FRNN_E_ARG = -1,   /* an argument is NULL or outside its range */
    FRNN_E_SIZE = -2,  /* a size does not fit in size_t */
    FRNN_E_ALIGN = -3, /* a buffer is not aligned to FRNN_ALIGN */
    FRNN_E_SPACE = -4, /* a buffer is smaller than its size query says */
    FRNN_E_ISA = -5,   /* the instruction set is unknown, or this machine does not have it */
    FRNN_E_FILE = -6   /* the model file is not valid; see frnn_model.message */
} frnn_status;

/* One sentence in English; never NULL, also for a value that is no status. */
const char *frnn_strerror(frnn_status status);

/* ---- Nets --------------------------------------------------------------------------------- */

/* x is the input of step t, h the output, W weight_ih, U weight_hh, b = bias_ih + bias_hh; * on
 * vectors is element-wise. f is the activation, s the gate_activation and e the output_activation:
 * tanh, sigmoid and tanh by default. a is the retention alpha in [0, 1] of each unit.
 *
 *   LSTM              i, f, g, o = s, s, f, s of Wx + Uh + b (in this order)
 *                     c = f * c + i * g;  h = o * e(c)
 *   LSTM_COUPLED      i, g, o likewise, three gates;  c = (1 - i) * c + i * g
 *   GRU               r, z = s of Wx + Uh + b;  n = f(W_n x + b_in + r * (U_n h + b_hn))
 *                     h = (1 - z) * n + z * h      (rows of W, U: r, z, n)
 *   GRU_RESET_BEFORE  the same but n = f(W_n x + U_n (r * h) + b_n)
 *   MINGRU            z = s(W_z x + b_z), n = f(W_n x + b_n);  h = (1 - z) * h + z * n
 *                     (no weight_hh, no bias_hh; f is the identity by default, s the sigmoid only)
 *   RNN               h = f(Wx + Uh + b)
 *   LEAKY_RATE        h = a * h + (1 - a) * f(Wx + Uh + b)
 *   LEAKY_POTENTIAL   u = a * u + (1 - a) * (Wx + U f(u) + b);  h = f(u)
 *   LEAKY             h = a * h + (1 - a) * x      (no weights; hidden_size equals input_size)
 *
 * Options of both LSTMs: with proj_size P, h = R (o * e(c)), R weight_hr, has P values, which U
 * reads and y holds; with peephole p, i and f see p_i * c and p_f * c of the step before, and o
 * sees p_o * c of this one, inside s; with cell_clip, c is limited to [-cell_clip, cell_clip].
 * Of all cells with gates but LEAKY_POTENTIAL: with clip, whatever goes into s or f is limited to
 * [-clip, clip] (as ONNX Runtime has it: not what goes into e).
 */
typedef enum frnn_cell {
#define FRNN_CELL(ENUM, name, gates, apart, states, memory, direct, alpha, history)                \
    FRNN_CELL_##ENUM,
#include "cells.def"
#undef FRNN_CELL
    FRNN_CELL_COUNT
} frnn_cell;

/* What the table of cells says about one of them. */
typedef struct frnn_cell_info {
    const char *name; /* as in model files */
    size_t gates;     /* row blocks of weight_ih and weight_hh */
    size_t apart;     /* not 0: what the recurrent matrix adds to the last gate is kept apart */
    size_t states;    /* state arrays of the caller: 1 (h, or u of the potential) or 2 (h, c) */
    int memory;       /* keeps a second array internally */
    int direct;       /* the state goes on by itself, not only through a product */
    int alpha;        /* takes frnn_weights.alpha */
    int history;      /* training keeps c of every step, or h where there is no c */
} frnn_cell_info;

/* NULL if cell is not one of the enumerators. */
const frnn_cell_info *frnn_cell_get(frnn_cell cell);

/* Functions of one number, with parameters alpha (a) and beta (b) where named. */
typedef enum frnn_activation {
    FRNN_TANH,
    FRNN_RELU,
    FRNN_IDENTITY,
    FRNN_SIGMOID,
    FRNN_HARD_SIGMOID,     /* a v + b, limited to [0, 1] */
    FRNN_AFFINE,           /* a v + b */
    FRNN_LEAKY_RELU,       /* v, or a v where v < 0; a >= 0 */
    FRNN_THRESHOLDED_RELU, /* v, or 0 where v <= a; a >= 0 */
    FRNN_SCALED_TANH,      /* a tanh(b v); a is not 0 */
    FRNN_ELU,              /* v, or a (exp(v) - 1) where v < 0; a >= 0 */
    FRNN_SOFTSIGN,         /* v / (1 + |v|) */
    FRNN_SOFTPLUS,         /* log(1 + exp(v)) */
    FRNN_ACTIVATION_COUNT
} frnn_activation;

/* What there is to know about one of them. */
typedef struct frnn_activation_info {
    const char *name;  /* as in model files */
    size_t parameters; /* 0, 1: alpha, 2: alpha and beta */
} frnn_activation_info;

/* NULL if it is not one of the enumerators. */
const frnn_activation_info *frnn_activation_get(frnn_activation activation);

typedef struct frnn_function {
    frnn_activation kind;
    double alpha, beta; /* finite; 0 where the kind has none */
} frnn_function;

typedef enum frnn_dtype { FRNN_F32, FRNN_F64, FRNN_DTYPE_COUNT } frnn_dtype;

/* Time structures, any of which every cell with gates can have; at most one of delays and clocks.
 *
 *   delays   U h of the equations above becomes the sum over k of U_k h_{t - d_k}, shortest delay
 *            first. What else a cell reads of the past (c, h itself, u) is that of the shortest
 * one. With a fraction f, h_{t-d} becomes (1 - f) h_{t-d} + f h_{t-d-1}; only forward. A dilated
 * net has one delay for each layer. clocks   units are in groups, in their order; one of period p
 * is active at steps whose number is a multiple of p, and keeps all of its state otherwise. It
 * reads the outputs (of the step before) of groups that are at least as slow, with `full` of all.
 * The elements of weight_hh that would connect others are not read. Not with a projection, nor for
 *            GRU_RESET_BEFORE, whose resting units would have to open their gates.
 *   mask     which recurrent connections there are: rows of 16 units (of all gates) that read an
 *            output together are the blocks that are stored and multiplied.
 *
 * MINGRU has no recurrent matrix: at most one delay, and no mask. LEAKY has no time structure. */
#define FRNN_MAX_DELAYS 16
#define FRNN_MAX_GROUPS 64

/* What a net is. Layers are stacked: layer 0 reads x, layer l reads the output of layer l - 1.
 * With two directions the output has 2 * hidden_size values a step, forward first, and so has
 * the input of the layers above the first. */
typedef struct frnn_config {
    size_t struct_size; /* sizeof(frnn_config), set by FRNN_CONFIG */
    frnn_cell cell;
    frnn_dtype dtype;      /* of weights, x, y and state */
    size_t input_size;     /* I >= 1 */
    size_t hidden_size;    /* H >= 1 */
    size_t num_layers;     /* L >= 1; 1 for LEAKY */
    size_t num_directions; /* D = 1 or 2; 1 for LEAKY */
    size_t proj_size;      /* P, LSTMs only; 0: no projection, and h has H values */
    int peephole;          /* LSTMs only */
    double clip;           /* > 0, or 0: none */
    double cell_clip;      /* likewise; LSTMs only */
    /* Those that a cell does not have are tanh, sigmoid and tanh. */
    frnn_function activation, gate_activation, output_activation;
    /* Time structure, see there; all of it 0: each unit reads the step before, at every step. */
    size_t num_delays; /* at most FRNN_MAX_DELAYS; 0: the one delay 1 */
    size_t delays[FRNN_MAX_DELAYS];
    double fractions[FRNN_MAX_DELAYS]; /* [0, 1): of a step that a delay is longer */
    int dilated;                       /* layer l has the single delay number l */
    size_t num_groups;                 /* at most FRNN_MAX_GROUPS; 0: no clocks */
    size_t periods[FRNN_MAX_GROUPS];
    size_t group_sizes[FRNN_MAX_GROUPS]; /* their sum is hidden_size */
    int full;                            /* groups read faster ones too */
    size_t mask_blocks;                  /* 0: no mask; else see frnn_weights.mask */
} frnn_config;

/* float32, one layer, one direction, no options; change what differs. */
#define FRNN_CONFIG(cell, input_size, hidden_size)                                                 \
    {sizeof(frnn_config),                                                                          \
     (cell),                                                                                       \
     FRNN_F32,                                                                                     \
     (input_size),                                                                                 \
     (hidden_size),                                                                                \
     1,                                                                                            \
     1,                                                                                            \
     0,                                                                                            \
     0,                                                                                            \
     0,                                                                                            \
     0,                                                                                            \
     {(cell) == FRNN_CELL_MINGRU ? FRNN_IDENTITY : FRNN_TANH, 0, 0},                               \
     {FRNN_SIGMOID, 0, 0},                                                                         \
     {FRNN_TANH, 0, 0},                                                                            \
     0,                                                                                            \
     {0},                                                                                          \
     {0},                                                                                          \
     0,                                                                                            \
     0,                                                                                            \
     {0},                                                                                          \
     {0},                                                                                          \
     0,                                                                                            \
     0}

/* FRNN_OK, or why not. Every function below checks its config so. */
frnn_status frnn_config_check(const frnn_config *net);

/* ---- Weights ------------------------------------------------------------------------------ */

/* The weights of one layer in one direction: row-major arrays of the net's dtype, any alignment,
 * only read during frnn_pack(). G is the number of gates, I the layer's input size (input_size
 * for layer 0, above it D * H, or D * P with a projection). */
typedef struct frnn_weights {
    const void *weight_ih; /* [G * H, I] */
    const void *weight_hh; /* [G * H, H], with a projection [G * H, P]; MINGRU: NULL */
    const void *bias_ih;   /* [G * H], or NULL for zeros */
    const void *bias_hh;   /* [G * H], or NULL for zeros; MINGRU: NULL */
    const void *alpha;     /* [H], each in [0, 1]; leaky cells only, else NULL */
    const void *weight_hr; /* [P, H] with a projection, else NULL */
    const void *peephole;  /* [3 * H], p_i, p_f, p_o; LSTM_COUPLED [2 * H], p_i, p_o; else NULL */
    const void *delayed[FRNN_MAX_DELAYS - 1]; /* as weight_hh, of the delays after the first */
    const unsigned char *mask; /* [H, H] (with a projection [H, P]): not 0 where a unit reads an
                                  output; with frnn_config.mask_blocks, else NULL */
} frnn_weights;

/* The blocks of a mask, [hidden_size, outputs]: columns that are not all 0 within 16 rows.
 * frnn_config.mask_blocks is the largest of those numbers over all layers and directions. */
size_t frnn_mask_blocks(const unsigned char *mask, size_t hidden_size, size_t outputs);

/* Bytes of the packed weights of the whole net. */
frnn_status frnn_packed_size(const frnn_config *net, size_t *size);

/* weights: [L * D], in the order l0 forward, l0 reverse, l1 forward, ... Writes packed; after an
 * error its contents are unusable, and refused. */
frnn_status frnn_pack(const frnn_config *net, const frnn_weights *weights, void *packed,
                      size_t packed_size);

/* ---- State -------------------------------------------------------------------------------- */

/* Bytes of the state of `batch` sequences; batch may be 0. */
frnn_status frnn_state_size(const frnn_config *net, size_t batch, size_t *size);

/* The state before the first step: zeros. (LEAKY_POTENTIAL keeps h = f(0) too, and needs the
 * instruction set for that.) */
frnn_status frnn_state_reset(const frnn_config *net, size_t batch, void *state, size_t state_size);

/* Reads or writes one array of a state: index 0 is h (u for LEAKY_POTENTIAL), index 1 is c.
 * values: contiguous [L * D, batch, H] of the net's dtype, h with a projection [L * D, batch, P].
 * With delays each layer and direction has as many steps in place of one, the oldest first: of h
 * and u as many as its longest delay, of c as its shortest. A state must be reset once before its
 * arrays are set. */
frnn_status frnn_state_get(const frnn_config *net, size_t batch, const void *state,
                           size_t state_size, size_t index, void *values);
frnn_status frnn_state_set(const frnn_config *net, size_t batch, void *state, size_t state_size,
                           size_t index, const void *values);

/* The clocks of a net with groups: how many steps each row [batch] has done; 0 after a reset. Rows
 * whose clocks differ are run one by one. */
frnn_status frnn_state_get_clock(const frnn_config *net, size_t batch, const void *state,
                                 size_t state_size, unsigned long long *clock);
frnn_status frnn_state_set_clock(const frnn_config *net, size_t batch, void *state,
                                 size_t state_size, const unsigned long long *clock);

/* ---- Running ------------------------------------------------------------------------------ */

/* One call of the net on `steps` steps of `batch` sequences. Strides are in elements and may be
 * of any sign; the features of one step are contiguous. y and x must not overlap. */
typedef struct frnn_run {
    size_t struct_size; /* sizeof(frnn_run), set by FRNN_RUN */
    size_t steps;       /* T >= 0 */
    size_t batch;       /* B >= 0 */
    const void *x;      /* [T, B, I]: x + t * x_step + b * x_row */
    ptrdiff_t x_step, x_row;
    void *y; /* [T, B, D * H], with a projection [T, B, D * P] */
    ptrdiff_t y_step, y_row;
    void *state; /* read, then written with the state after the last step */
    size_t state_size;
    void *scratch;
    size_t scratch_size;
    int parallel_time; /* LEAKY only: 1 splits the time axis over vector lanes; faster on few
                          channels, and free to differ in the last bits */
    void *saved;       /* for frnn_backward(), or NULL: nothing of training is paid for */
    size_t saved_size;
    const size_t *lengths;      /* [B] or NULL, see frnn_ragged_scratch_size() */
    const unsigned char *reset; /* [T, B] or NULL, likewise */
} frnn_run;

/* Values of h and of one direction's output. */
#define FRNN_OUTPUT_SIZE(net) ((net)->proj_size > 0 ? (net)->proj_size : (net)->hidden_size)

/* Contiguous time-major x and y. */
#define FRNN_RUN(net, steps, batch, x, y, state, state_size, scratch, scratch_size)                \
    {sizeof(frnn_run),                                                                             \
     (steps),                                                                                      \
     (batch),                                                                                      \
     (x),                                                                                          \
     (ptrdiff_t)((batch) * (net)->input_size),                                                     \
     (ptrdiff_t)(net)->input_size,                                                                 \
     (y),                                                                                          \
     (ptrdiff_t)((batch) * (net)->num_directions * FRNN_OUTPUT_SIZE(net)),                         \
     (ptrdiff_t)((net)->num_directions * FRNN_OUTPUT_SIZE(net)),                                   \
     (state),                                                                                      \
     (state_size),                                                                                 \
     (scratch),                                                                                    \
     (scratch_size),                                                                               \
     0,                                                                                            \
     NULL,                                                                                         \
     0,                                                                                            \
     NULL,                                                                                         \
     NULL}

/* Bytes of scratch for a call of that many steps. Never falls with steps or batch, so that the
 * scratch of the largest call serves them all. */
frnn_status frnn_scratch_size(const frnn_config *net, size_t steps, size_t batch, size_t *size);

/* Runs the net. With steps = 0 the state stays as it is, with batch = 0 there is nothing to do.
 * All of run is checked first; after an error y and the state are as before. A net of one
 * direction may be fed in pieces: the state carries over. */
frnn_status frnn_forward(const frnn_config *net, const void *packed, size_t packed_size,
                         const frnn_run *run);

/* The same for calls with lengths or reset, where not every row does every step.
 *
 * With lengths, row b has the first lengths[b] of the steps, 0 to T, in any order. y is zero behind
 * them, and the state is that after its last step. A second direction begins with the last step of
 * each row. x behind a row's end is not read; the work is that of the steps that are there.
 * With reset, a row's sequence starts anew at each step t where reset[t * B + b] is not 0: there
 * the state is once more what it was before this call, as if the row were cut into separate runs (a
 * second direction starts anew at step t - 1). */
frnn_status frnn_ragged_scratch_size(const frnn_config *net, size_t steps, size_t batch,
                                     size_t *size);

/* ---- Training ------------------------------------------------------------------------------ */

/* Backpropagation through time, exact. A forward with frnn_run.saved keeps activated gates and c of
 * every step; frnn_backward() goes over the same steps from the last to the first and finds, from
 * the gradient dy of a loss with respect to y, those with respect to x, the state before the first
 * step, and every parameter.
 *
 *     frnn_pack_back(&net, &w, packed_back, packed_back_size);    ... after a change of weights
 *     run.saved = saved;                                          ... of frnn_saved_size() bytes
 *     run.saved_size = saved_size;
 *     frnn_forward(&net, packed, packed_size, &run);
 *     frnn_adjoint_reset(&net, steps, batch, adjoint, adjoint_size);
 *     frnn_back back = FRNN_BACK(&net, steps, batch, x, dy, dx, saved, saved_size,
 *                                adjoint, adjoint_size, scratch, scratch_size);
 *     back.gradients = gradients;
 *     frnn_backward(&net, packed_back, packed_back_size, &back);
 *
 * The adjoint is the gradient with respect to the state: what frnn_state is to the forward. It is
 * zero after a reset, may be set to what arrives at the state after the last step, and holds what
 * leaves at the state before the first step when all is done.
 *
 * Long sequences. A net of one direction may be run forward in stretches, of which only the states
 * between them are kept (a state may be copied with memcpy); then backwards stretch by stretch from
 * the last one, each after a second forward that saves. One adjoint goes through all of them. The
 * gradients are those of a single call, bit for bit, if every stretch but that at the beginning of
 * the sequence is a multiple of frnn_checkpoint_unit() steps long. (Not LEAKY, which saves little.)
 *
 * Numerics. Gradients of x and of the state have the same bits whatever the batch and the row in
 * it. Gradients of weights are sums over steps and rows: chains of fused multiply-adds over about
 * 128 rows, added up over about 4096 rows, added up; those of biases and alpha are added up in
 * double. They have the same bits for any instruction set and any stretches, but not for another
 * batch size. A gradient that fades below 2^-100 (double: 2^-900) on its way through time becomes
 * 0. The derivative of relu at 0 is 0.
 */

/* The weights as the backward reads them, as frnn_packed_size() and frnn_pack(). */
frnn_status frnn_packed_back_size(const frnn_config *net, size_t *size);
frnn_status frnn_pack_back(const frnn_config *net, const frnn_weights *weights, void *packed,
                           size_t packed_size);

/* Bytes that a forward of that many steps saves. */
frnn_status frnn_saved_size(const frnn_config *net, size_t steps, size_t batch, size_t *size);

/* Steps of the whole sequence, however many stretches it is cut into. Arrays as those of a state.
 */
frnn_status frnn_adjoint_size(const frnn_config *net, size_t steps, size_t batch, size_t *size);
frnn_status frnn_adjoint_reset(const frnn_config *net, size_t steps, size_t batch, void *adjoint,
                               size_t adjoint_size);
frnn_status frnn_adjoint_get(const frnn_config *net, size_t steps, size_t batch,
                             const void *adjoint, size_t adjoint_size, size_t index, void *values);
frnn_status frnn_adjoint_set(const frnn_config *net, size_t steps, size_t batch, void *adjoint,
                             size_t adjoint_size, size_t index, const void *values);

/* Steps; the longest of a net's layers. SIZE_MAX if there is no such number. */
size_t frnn_checkpoint_unit(const frnn_config *net, size_t batch);

/* Arrays for the gradients of one layer in one direction, of the shapes of frnn_weights; NULL where
 * none is wanted. The gradients of both biases are equal, but for n of the GRU. */
typedef struct frnn_gradients {
    void *weight_ih, *weight_hh, *bias_ih, *bias_hh, *alpha, *weight_hr, *peephole;
    void *delayed[FRNN_MAX_DELAYS - 1];
} frnn_gradients;

typedef struct frnn_back {
    size_t struct_size; /* sizeof(frnn_back), set by FRNN_BACK */
    size_t steps;       /* of this stretch: those of the forward that saved */
    size_t total_steps; /* of the whole sequence */
    size_t batch;
    const void *x; /* as the forward had it; read for the gradients of parameters */
    ptrdiff_t x_step, x_row;
    const void *dy; /* as y, or NULL for zeros */
    ptrdiff_t dy_step, dy_row;
    size_t dy_begin; /* before this step dy is taken as zero, and not read */
    void *dx;        /* [T, B, I], or NULL if not wanted; must not overlap x or dy */
    ptrdiff_t dx_step, dx_row;
    const void *saved; /* only read: it may be used again */
    size_t saved_size;
    void *adjoint;
    size_t adjoint_size;
    const frnn_gradients *gradients; /* [L * D], as the weights; or NULL. Complete after the last
                                        call, garbage between */
    int accumulate;                  /* 1: add to the gradients, 0: overwrite them */
    void *scratch;
    size_t scratch_size;
    int parallel_time;          /* as of frnn_run */
    const size_t *lengths;      /* those of the forward; then steps equals total_steps, and */
    const unsigned char *reset; /* scratch is that of frnn_ragged_backward_scratch_size() */
} frnn_back;

/* Contiguous time-major arrays, one call for the whole sequence, no gradients of parameters. */
#define FRNN_BACK(net, steps, batch, x, dy, dx, saved, saved_size, adjoint, adjoint_size, scratch, \
                  scratch_size)                                                                    \
    {sizeof(frnn_back),                                                                            \
     (steps),                                                                                      \
     (steps),                                                                                      \
     (batch),                                                                                      \
     (x),                                                                                          \
     (ptrdiff_t)((batch) * (net)->input_size),                                                     \
     (ptrdiff_t)(net)->input_size,                                                                 \
     (dy),                                                                                         \
     (ptrdiff_t)((batch) * (net)->num_directions * FRNN_OUTPUT_SIZE(net)),                         \
     (ptrdiff_t)((net)->num_directions * FRNN_OUTPUT_SIZE(net)),                                   \
     0,                                                                                            \
     (dx),                                                                                         \
     (ptrdiff_t)((batch) * (net)->input_size),                                                     \
     (ptrdiff_t)(net)->input_size,                                                                 \
     (saved),                                                                                      \
     (saved_size),                                                                                 \
     (adjoint),                                                                                    \
     (adjoint_size),                                                                               \
     NULL,                                                                                         \
     0,                                                                                            \
     (scratch),                                                                                    \
     (scratch_size),                                                                               \
     0,                                                                                            \
     NULL,                                                                                         \
     NULL}

/* Bytes of scratch for a backward call over that many steps; with lengths or reset. */
frnn_status frnn_backward_scratch_size(const frnn_config *net, size_t steps, size_t batch,
                                       size_t *size);
frnn_status frnn_ragged_backward_scratch_size(const frnn_config *net, size_t steps, size_t batch,
                                              size_t *size);

/* One stretch backwards. All of it is checked first; after an error nothing has changed. */
frnn_status frnn_backward(const frnn_config *net, const void *packed_back, size_t packed_back_size,
                          const frnn_back *back);

/* ---- The gated leak ----------------------------------------------------------------------- */

/* One leaky unit for each channel, whose retention is given at every step; the linear core of
 * minGRU (Feng et al. 2024), QRNN (Bradbury et al. 2017) and SRU (Lei et al. 2018):
 *
 *     y_t = alpha_t * y_{t-1} + (1 - alpha_t) * v_t
 *
 * alpha is the weight of the past; it is not checked to lie in [0, 1]. No net, no packing and no
 * scratch belong to it: it is a function of arrays. As everywhere strides are in elements and of
 * any sign, the channels of one step are contiguous, the bits do not depend on batch, strides,
 * stretches or instruction set, and a y below 2^-100 (double: 2^-900) becomes 0. A NaN stays in its
 * channel of its row. */
typedef struct frnn_gated {
    size_t struct_size; /* sizeof(frnn_gated), set by FRNN_GATED */
    frnn_dtype dtype;
    size_t steps, batch, channels; /* T, B, H >= 0 */
    const void *alpha;             /* [T, B, H]; strides may be 0 */
    ptrdiff_t alpha_step, alpha_row;
    const void *v; /* [T, B, H]; likewise */
    ptrdiff_t v_step, v_row;
    void *y; /* [T, B, H]; must not overlap another array */
    ptrdiff_t y_step, y_row;
    void *state; /* [B, H], in and out: y before the first step, y of the last */
    ptrdiff_t state_row;
    int parallel_time; /* 1: where there are few channels, steps lie side by side in a vector;
                          faster there, and free to differ in the last bits */
} frnn_gated;

/* Contiguous time-major arrays. */
#define FRNN_GATED(dtype, steps, batch, channels, alpha, v, y, state)                              \
    {sizeof(frnn_gated),                                                                           \
     (dtype),                                                                                      \
     (steps),                                                                                      \
     (batch),                                                                                      \
     (channels),                                                                                   \
     (alpha),                                                                                      \
     (ptrdiff_t)((batch) * (channels)),                                                            \
     (ptrdiff_t)(channels),                                                                        \
     (v),                                                                                          \
     (ptrdiff_t)((batch) * (channels)),                                                            \
     (ptrdiff_t)(channels),                                                                        \
     (y),                                                                                          \
     (ptrdiff_t)((batch) * (channels)),                                                            \
     (ptrdiff_t)(channels),                                                                        \
     (state),                                                                                      \
     (ptrdiff_t)(channels),                                                                        \
     0}

/* After an error y and the state are as before. */
frnn_status frnn_gated_leaky(const frnn_gated *gated);

/* Its gradients, from the y that it gave: with g_t = dy_t + alpha_{t+1} * g_{t+1}
 *
 *     dv_t = (1 - alpha_t) * g_t,   dalpha_t = g_t * (y_{t-1} - v_t)
 *
 * A sequence may be cut into stretches, from the last one to the first: dstate goes through, and
 * the state of a stretch is the y of the step before it (state_row = y_row). */
typedef struct frnn_gated_back {
    size_t struct_size; /* sizeof(frnn_gated_back), set by FRNN_GATED_BACK */
    frnn_dtype dtype;
    size_t steps, batch, channels;
    const void *alpha, *v; /* as of the forward */
    ptrdiff_t alpha_step, alpha_row, v_step, v_row;
    const void *y; /* of the forward */
    ptrdiff_t y_step, y_row;
    const void *state; /* [B, H]: y before the first step */
    ptrdiff_t state_row;
    const void *dy; /* [T, B, H], or NULL for zeros */
    ptrdiff_t dy_step, dy_row;
    void *dalpha, *dv; /* [T, B, H]; must not overlap another array */
    ptrdiff_t dalpha_step, dalpha_row, dv_step, dv_row;
    void *dstate; /* [B, H], in and out: the gradient of the state after the last step, that of the
                     state before the first */
    ptrdiff_t dstate_row;
    int parallel_time;
} frnn_gated_back;

/* Contiguous time-major arrays. */
#define FRNN_GATED_BACK(dtype, steps, batch, channels, alpha, v, y, state, dy, dalpha, dv, dstate) \
    {sizeof(frnn_gated_back),                                                                      \
     (dtype),                                                                                      \
     (steps),                                                                                      \
     (batch),                                                                                      \
     (channels),                                                                                   \
     (alpha),                                                                                      \
     (v),                                                                                          \
     (ptrdiff_t)((batch) * (channels)),                                                            \
     (ptrdiff_t)(channels),                                                                        \
     (ptrdiff_t)((batch) * (channels)),                                                            \
     (ptrdiff_t)(channels),                                                                        \
     (y),                                                                                          \
     (ptrdiff_t)((batch) * (channels)),                                                            \
     (ptrdiff_t)(channels),                                                                        \
     (state),                                                                                      \
     (ptrdiff_t)(channels),                                                                        \
     (dy),                                                                                         \
     (ptrdiff_t)((batch) * (channels)),                                                            \
     (ptrdiff_t)(channels),                                                                        \
     (dalpha),                                                                                     \
     (dv),                                                                                         \
     (ptrdiff_t)((batch) * (channels)),                                                            \
     (ptrdiff_t)(channels),                                                                        \
     (ptrdiff_t)((batch) * (channels)),                                                            \
     (ptrdiff_t)(channels),                                                                        \
     (dstate),                                                                                     \
     (ptrdiff_t)(channels),                                                                        \
     0}

/* After an error dalpha, dv and dstate are as before. */
frnn_status frnn_gated_leaky_backward(const frnn_gated_back *back);

/* ---- Model files -------------------------------------------------------------------------- */

/* A model file is a safetensors file: the weights under PyTorch's names (weight_ih_l0,
 * weight_hh_l0_reverse, weight_hr_l0, ...) and under alpha_l0 and peephole_l0 (of LEAKY: alpha), in
 * the shapes of frnn_weights. The matrices of delays after the first have the whole part of the
 * delay behind their name, weight_hh_l0_d8, weight_hh_l0_reverse_d8. A net with a mask has one for
 * each layer and direction, recurrent_mask_l0 of dtype BOOL, whose bytes are 0 and 1. Recurrent
 * weights outside a mask, and those that would connect a group of units to a faster one, are 0.
 *
 * Under the metadata key "fastrnn" there is one string that holds a JSON object:
 *
 *   {"format": 1, "cell": "lstm", "input_size": 40, "hidden_size": 128, "num_layers": 2,
 *    "bidirectional": true, "bias": true, "batch_first": false, "go_backwards": false,
 *    "proj_size": 64, "peephole": true, "clip": "0x1.8p+1", "cell_clip": "0x1.4p+3",
 *    "activation": "tanh", "gate_activation": "hard_sigmoid(0x1.999999999999ap-3, 0x1.0p-1)",
 *    "output_activation": "leaky_relu(0x1.47ae147ae147bp-7)", "delays": [1, 8, "0x1.02p+6"]}
 *
 * format, cell, input_size and hidden_size are required. The others default to one layer of one
 * direction with biases, without options, and with the activations of FRNN_CONFIG. Activations have
 * the names of enum frnn_activation, followed by exactly the parameters that they have. Numbers
 * that need not be whole are strings as Python's float.hex() writes them, so that none is ever
 * rounded; "0x0.0p+0" is no limit. batch_first and go_backwards only matter to Python. dtype is
 * that of the tensors.
 *
 * Time structures are "delays" whose whole parts ascend, or with "dilated": true one for each layer
 * in any order; or "periods": [1, 4, 16] with "group_sizes": [64, 32, 32], and perhaps
 * "connectivity": "full" in place of "slower". "delays": [1] is what every net has.
 *
 * The reader trusts nothing: unknown, missing, duplicate, overlapping or misplaced tensors, holes,
 * trailing bytes, unknown keys, wrong shapes, retentions outside [0, 1], masks without a connection
 * (of RNN: for some unit), weights of connections that are not there, a header above
 * FRNN_MODEL_MAX_HEADER bytes are errors. Names have no escapes and no control characters; metadata
 * values may have escapes that stand for ASCII; the architecture is at most 4096 characters long,
 * which frnn_model_open() keeps on the stack.
 */
#define FRNN_MODEL_MAX_HEADER  (256 * 1024)
#define FRNN_MODEL_MAX_TENSORS 1024
#define FRNN_MODEL_MAX_RANK    8

/* A tensor inside the bytes of a file; pointers point into them. */
typedef struct frnn_tensor {
    const char *name; /* not terminated, not escaped: a name with a backslash is refused */
    size_t name_size;
    const char *dtype; /* "F32", "F64", "BF16", ...; not terminated */
    size_t dtype_size;
    size_t rank;
    size_t shape[FRNN_MODEL_MAX_RANK];
    const void *data; /* any alignment */
    size_t data_size; /* bytes */
} frnn_tensor;

typedef struct frnn_model {
    frnn_config config;
    int bias;         /* has biases */
    int batch_first;  /* for Python */
    int go_backwards; /* likewise: x is read from its last step to its first, and y lies so */
    const void *bytes;
    size_t size;
    size_t num_tensors;
    char message[192]; /* after an error: a sentence, with the tensor's or key's name */
} frnn_model;

/* Validates a whole file in memory and describes the net in it. The bytes must stay in place while
 * the model is used. frnn_model_open_tensors checks everything but the metadata key "fastrnn" and
 * the meaning of the tensors, for a file of bare weights. */
frnn_status frnn_model_open(frnn_model *model, const void *bytes, size_t size);
frnn_status frnn_model_open_tensors(frnn_model *model, const void *bytes, size_t size);

/* Tensor number index, in the order of the header; FRNN_E_ARG past the end. */
frnn_status frnn_model_tensor(const frnn_model *model, size_t index, frnn_tensor *tensor);

/* The plain weights of one layer and direction, in place. */
frnn_status frnn_model_weights(const frnn_model *model, size_t layer, size_t direction,
                               frnn_weights *weights);

/* Packs them all; packed_size as frnn_packed_size(&model->config, ...) says. */
frnn_status frnn_model_pack(const frnn_model *model, void *packed, size_t packed_size);

/* ---- Instruction sets --------------------------------------------------------------------- */

/* The names that this build knows and this machine can run, best first; NULL past the end. */
const char *frnn_isa_available(size_t index);

/* The one in use: the first of the list, or the one that the environment variable FASTRNN_ISA
 * names. NULL if that is unknown or not available; whatever computes then returns FRNN_E_ISA. */
const char *frnn_isa(void);

/* Chooses one by name. Not while another thread is inside the library. */
frnn_status frnn_isa_set(const char *name);

#ifdef __cplusplus
}
#endif
#endif
