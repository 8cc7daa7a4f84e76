/* SPDX-License-Identifier: MIT
 *
 * What a net is: its cell and options, whether they are legal, the shape of its parts, and how
 * buffers are laid out that hold something of each part.
 */
#include "internal.h"

/* ---- Nets --------------------------------------------------------------------------------- */

static const frnn_cell_info cells[] = {
#define FRNN_CELL(ENUM, name, gates, apart, states, memory, direct, alpha, history)                \
    {#name, gates, apart, states, memory, direct, alpha, history},
#include "cells.def"
#undef FRNN_CELL
};

const frnn_cell_info *frnn_cell_get(frnn_cell cell) {
    return (unsigned)cell < FRNN_CELL_COUNT ? &cells[cell] : NULL;
}

static const frnn_activation_info activations[FRNN_ACTIVATION_COUNT] = {
    [FRNN_TANH] = {"tanh", 0},
    [FRNN_RELU] = {"relu", 0},
    [FRNN_IDENTITY] = {"identity", 0},
    [FRNN_SIGMOID] = {"sigmoid", 0},
    [FRNN_HARD_SIGMOID] = {"hard_sigmoid", 2},
    [FRNN_AFFINE] = {"affine", 2},
    [FRNN_LEAKY_RELU] = {"leaky_relu", 1},
    [FRNN_THRESHOLDED_RELU] = {"thresholded_relu", 1},
    [FRNN_SCALED_TANH] = {"scaled_tanh", 2},
    [FRNN_ELU] = {"elu", 1},
    [FRNN_SOFTSIGN] = {"softsign", 0},
    [FRNN_SOFTPLUS] = {"softplus", 0},
};

const frnn_activation_info *frnn_activation_get(frnn_activation activation) {
    return (unsigned)activation < FRNN_ACTIVATION_COUNT ? &activations[activation] : NULL;
}

const char *frnn_strerror(frnn_status status) {
    switch (status) {
    case FRNN_OK:
        return "no error";
    case FRNN_E_ARG:
        return "an argument is missing or outside its range";
    case FRNN_E_SIZE:
        return "a size does not fit in memory";
    case FRNN_E_ALIGN:
        return "a buffer is not aligned to 64 bytes";
    case FRNN_E_SPACE:
        return "a buffer is too small";
    case FRNN_E_ISA:
        return "the instruction set is unknown or not available on this machine";
    case FRNN_E_FILE:
        return "the model file is not valid";
    }
    return "unknown status";
}

static int finite(double value) {
    return value - value == 0;
}

/* Whether the parameters of a function are such as its kind takes. */
static int function_legal(const frnn_function *f) {
    const frnn_activation_info *info = frnn_activation_get(f->kind);
    if (info == NULL || !finite(f->alpha) || !finite(f->beta) ||
        (info->parameters < 1 && f->alpha != 0) || (info->parameters < 2 && f->beta != 0))
        return 0;
    if (f->kind == FRNN_SCALED_TANH)
        return f->alpha != 0;
    return info->parameters != 1 || f->alpha >= 0;
}

static int is_lstm(const frnn_config *net) {
    return net->cell == FRNN_CELL_LSTM || net->cell == FRNN_CELL_LSTM_COUPLED;
}

static int is_gru(const frnn_config *net) {
    return net->cell == FRNN_CELL_GRU || net->cell == FRNN_CELL_GRU_RESET_BEFORE;
}

/* A limit is 0, or a positive number of the net's dtype. */
static int limit_legal(const frnn_config *net, double limit) {
    return limit >= 0 && finite(limit) && (net->dtype == FRNN_F64 || finite((float)limit));
}

/* Whether every option is one that the cell has. */
static int options_legal(const frnn_config *net, const frnn_cell_info *cell) {
    if (!function_legal(&net->activation) || !function_legal(&net->gate_activation) ||
        !function_legal(&net->output_activation) || !limit_legal(net, net->clip) ||
        !limit_legal(net, net->cell_clip) || (net->peephole != 0 && net->peephole != 1))
        return 0;
    if (cell->gates == 0 && net->activation.kind != FRNN_TANH)
        return 0;
    if ((cell->gates == 0 || net->cell == FRNN_CELL_LEAKY_POTENTIAL) && net->clip > 0)
        return 0;
    if (!is_lstm(net) && (net->proj_size > 0 || net->peephole || net->cell_clip > 0 ||
                          net->output_activation.kind != FRNN_TANH))
        return 0;
    return is_lstm(net) || is_gru(net) || net->gate_activation.kind == FRNN_SIGMOID;
}

frnn_status frnn_config_check(const frnn_config *net) {
    if (net == NULL || net->struct_size != sizeof *net)
        return FRNN_E_ARG;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    if (cell == NULL || (unsigned)net->dtype >= FRNN_DTYPE_COUNT || net->input_size < 1 ||
        net->hidden_size < 1 || net->num_layers < 1 || net->num_directions < 1 ||
        net->num_directions > 2 || !options_legal(net, cell))
        return FRNN_E_ARG;
    if (cell->gates == 0 &&
        (net->input_size != net->hidden_size || net->num_layers != 1 || net->num_directions != 1))
        return FRNN_E_ARG;
    return FRNN_OK;
}

int frnn_config_plain(const frnn_config *net) {
    return net->activation.kind == FRNN_TANH && net->gate_activation.kind == FRNN_SIGMOID &&
           net->output_activation.kind == FRNN_TANH && !net->peephole && net->clip == 0 &&
           net->cell_clip == 0;
}

#define KEY_STEP 0x3c6ef372fe94f82au /* even, so that all factors are odd */

static uint64_t bits(double value) {
    uint64_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    return pattern;
}

/* A sum of products with odd numbers, none of which waits for another: a stream asks for it at
 * every step. No single field is lost. */
uint32_t frnn_config_key(const frnn_config *net) {
    const uint64_t sizes[] = {(uint64_t)net->cell, (uint64_t)net->dtype, net->input_size,
                              net->hidden_size,    net->num_layers,      net->num_directions,
                              net->proj_size,      net->peephole != 0};
    const frnn_function *const f[] = {&net->activation, &net->gate_activation,
                                      &net->output_activation};
    uint64_t key = 0, odd = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++, odd += KEY_STEP)
        key += (sizes[i] ^ sizes[i] >> 32) * odd;
    if (!frnn_config_plain(net)) {
        const uint64_t options[] = {
            bits(net->clip),      bits(net->cell_clip), (uint64_t)f[0]->kind, (uint64_t)f[1]->kind,
            (uint64_t)f[2]->kind, bits(f[0]->alpha),    bits(f[1]->alpha),    bits(f[2]->alpha),
            bits(f[0]->beta),     bits(f[1]->beta),     bits(f[2]->beta),
        };
        for (size_t i = 0; i < sizeof options / sizeof options[0]; i++, odd += KEY_STEP)
            key += (options[i] ^ options[i] >> 32) * odd;
    }
    return (uint32_t)((key ^ key >> 29) * 0xbf58476d1ce4e5b9u >> 32);
}

/* ---- Layout ------------------------------------------------------------------------------- */

frnn_status frnn_buffer_check(const void *memory, size_t size, size_t needed) {
    if (memory == NULL)
        return FRNN_E_ARG;
    if ((uintptr_t)memory % FRNN_ALIGN != 0)
        return FRNN_E_ALIGN;
    return size < needed ? FRNN_E_SPACE : FRNN_OK;
}

int frnn_append(size_t *end, size_t *at, size_t a, size_t b, size_t c, size_t itemsize) {
    size_t bytes = a;
    *at = *end;
    if (a == 0 || b == 0 || c == 0)
        return 1;
    if (!frnn_mul(&bytes, b) || !frnn_mul(&bytes, c) || !frnn_mul(&bytes, itemsize) ||
        !frnn_add(&bytes, FRNN_ALIGN - 1))
        return 0;
    return frnn_add(end, bytes / FRNN_ALIGN * FRNN_ALIGN) && *end <= PTRDIFF_MAX;
}

/* Vectors per unit whose gradients are sums over time. */
static size_t summed_vectors(const frnn_config *net) {
    if (net->peephole)
        return net->cell == FRNN_CELL_LSTM_COUPLED ? 2 : 3;
    return frnn_cell_get(net->cell)->alpha != 0;
}

frnn_part frnn_part_shape(const frnn_config *net, size_t layer) {
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const size_t output_size = frnn_output_size(net);
    const size_t output_blocks = (output_size - 1) / FRNN_BLOCK + 1;
    const frnn_part part = {
        .input_size = frnn_layer_input(net, layer),
        .hidden_size = net->hidden_size,
        .blocks = frnn_blocks(net),
        .gates = cell->gates,
        .slots = cell->gates + (cell->apart != 0),
        .back_slots = cell->gates + (cell->apart == 2),
        .output_size = output_size,
        .output_blocks = output_blocks,
        .vectors = summed_vectors(net) + (net->cell == FRNN_CELL_GRU),
        .sums = summed_vectors(net),
        .width = frnn_blocks(net) * FRNN_BLOCK,
        .ld = frnn_blocks(net) * FRNN_BLOCK + FRNN_STAGGER,
        .h_ld = output_blocks * FRNN_BLOCK + FRNN_STAGGER,
        .recurrent = cell->gates > 0 && net->cell != FRNN_CELL_MINGRU,
        .projected = net->proj_size > 0,
        .reset_before = net->cell == FRNN_CELL_GRU_RESET_BEFORE,
    };
    return part;
}

size_t frnn_weight_elements(const frnn_config *net, size_t layer, int which) {
    const frnn_part part = frnn_part_shape(net, layer);
    const size_t rows = part.gates * part.hidden_size;
    switch (which) {
    case FRNN_WEIGHT_IH:
        return rows * part.input_size;
    case FRNN_WEIGHT_HH:
        return part.recurrent ? rows * part.output_size : 0;
    case FRNN_BIAS_IH:
        return rows;
    case FRNN_BIAS_HH:
        return part.recurrent ? rows : 0;
    case FRNN_ALPHA:
        return frnn_cell_get(net->cell)->alpha ? part.hidden_size : 0;
    case FRNN_WEIGHT_HR:
        return part.projected ? part.output_size * part.hidden_size : 0;
    default:
        return net->peephole ? part.sums * part.hidden_size : 0;
    }
}

static int advance(size_t *end, size_t count, size_t size) {
    return frnn_mul(&size, count) && frnn_add(end, size) && *end <= PTRDIFF_MAX;
}

int frnn_layout(const frnn_config *net, size_t steps, size_t batch, size_t index,
                frnn_append_part append, void *part, size_t *end, size_t *other_end) {
    const size_t D = net->num_directions, first = frnn_min(index, D), rest = index - first;
    *end = *other_end = FRNN_HEADER_SIZE;
    /* Sizes that are multiplied below stay within size_t: D is at most 2. */
    if (net->hidden_size > SIZE_MAX / 64 || net->proj_size > SIZE_MAX / 64)
        return 0;
    /* All parts of layer 0 have one size, all others another. */
    for (size_t layer = 0; index > 0 && layer < (rest > 0 ? 2 : 1); layer++) {
        size_t size = 0, other_size = 0;
        if (!append(net, steps, batch, layer, part, &size, &other_size) ||
            !advance(end, layer == 0 ? first : rest, size) ||
            !advance(other_end, layer == 0 ? first : rest, other_size))
            return 0;
    }
    if (index / D >= net->num_layers)
        return 1;
    return append(net, steps, batch, index / D, part, end, other_end);
}
