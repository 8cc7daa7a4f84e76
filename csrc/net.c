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

/* ---- Time structure ----------------------------------------------------------------------- */

static int delays_legal(const frnn_config *net) {
    if (net->num_delays > FRNN_MAX_DELAYS || (net->dilated != 0 && net->dilated != 1) ||
        (net->dilated && net->num_delays != net->num_layers))
        return 0;
    for (size_t i = 0; i < net->num_delays; i++) {
        const double fraction = net->fractions[i];
        if (net->delays[i] < 1 || net->delays[i] > UINT32_MAX || !(fraction >= 0 && fraction < 1))
            return 0;
        if (!net->dilated && i > 0 &&
            (net->delays[i] < net->delays[i - 1] ||
             (net->delays[i] == net->delays[i - 1] && fraction <= net->fractions[i - 1])))
            return 0;
    }
    return 1;
}

static int groups_legal(const frnn_config *net) {
    size_t units = 0;
    if (net->num_groups > FRNN_MAX_GROUPS || (net->full != 0 && net->full != 1))
        return 0;
    for (size_t i = 0; i < net->num_groups; i++)
        if (net->periods[i] < 1 || net->group_sizes[i] < 1 ||
            !frnn_add(&units, net->group_sizes[i]))
            return 0;
    return net->num_groups > 0 ? units == net->hidden_size : net->full == 0;
}

/* Whether the cell can have the structure, whose parts are legal. */
static int structure_legal(const frnn_config *net, const frnn_cell_info *cell) {
    if (!delays_legal(net) || !groups_legal(net))
        return 0;
    if (cell->gates == 0)
        return net->num_delays == 0 && net->num_groups == 0 && net->mask_blocks == 0;
    if (net->cell == FRNN_CELL_MINGRU &&
        ((net->num_delays > 1 && !net->dilated) || net->mask_blocks > 0))
        return 0;
    return net->num_groups == 0 ||
           (net->num_delays == 0 && net->proj_size == 0 && net->cell != FRNN_CELL_GRU_RESET_BEFORE);
}

size_t frnn_groups_get(const frnn_config *net, frnn_group *groups) {
    size_t count = 0, unit = 0, block = 0;
    /* sorted by insertion: the slowest first, groups of one period in their order */
    for (size_t i = 0; i < net->num_groups; unit += net->group_sizes[i++]) {
        size_t at = count++;
        for (; at > 0 && groups[at - 1].period < net->periods[i]; at--)
            groups[at] = groups[at - 1];
        groups[at] =
            (frnn_group){.unit = unit, .size = net->group_sizes[i], .period = net->periods[i]};
    }
    for (size_t i = 0; i < count; i++) {
        groups[i].block = block;
        block += groups[i].blocks = frnn_blocks_of(groups[i].size);
        groups[i].sources = groups[i].readers = i;
        while (groups[i].sources < count &&
               (net->full || groups[groups[i].sources].period >= groups[i].period))
            groups[i].sources++;
        while (groups[i].readers > 0 &&
               (net->full || groups[groups[i].readers - 1].period <= groups[i].period))
            groups[i].readers--;
    }
    return count;
}

size_t frnn_blocks(const frnn_config *net) {
    size_t blocks = 0;
    for (size_t i = 0; i < net->num_groups; i++)
        blocks += frnn_blocks_of(net->group_sizes[i]);
    return net->num_groups > 0 ? blocks : frnn_blocks_of(net->hidden_size);
}

frnn_status frnn_config_check(const frnn_config *net) {
    if (net == NULL || net->struct_size != sizeof *net)
        return FRNN_E_ARG;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    if (cell == NULL || (unsigned)net->dtype >= FRNN_DTYPE_COUNT || net->input_size < 1 ||
        net->hidden_size < 1 || net->num_layers < 1 || net->num_directions < 1 ||
        net->num_directions > 2 || !options_legal(net, cell) || !structure_legal(net, cell))
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
    if (net->num_delays > 0 || net->num_groups > 0 || net->mask_blocks > 0) {
        const uint64_t counts[] = {net->num_delays, net->num_groups, net->mask_blocks,
                                   (uint64_t)(net->dilated + 2 * net->full)};
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++, odd += KEY_STEP)
            key += (counts[i] ^ counts[i] >> 32) * odd;
        for (size_t i = 0; i < net->num_delays; i++, odd += KEY_STEP)
            key += (net->delays[i] ^ bits(net->fractions[i])) * odd;
        for (size_t i = 0; i < net->num_groups; i++, odd += KEY_STEP)
            key += (net->periods[i] ^ (uint64_t)net->group_sizes[i] << 32) * odd;
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

/* Delays of a layer, and what follows from them. */
static void set_delays(const frnn_config *net, size_t layer, frnn_part *part) {
    static const size_t one[1] = {1};
    static const double whole[1] = {0};
    if (net->num_delays == 0) { /* without divisions: a stream asks at every step */
        part->num_delays = part->span = part->c_ring = part->history[0] = part->history[1] = 1;
        part->ring = 2;
        part->delays = one;
        part->fractions = whole;
        return;
    }
    const size_t first = net->dilated ? layer : 0;
    part->num_delays = net->dilated ? 1 : net->num_delays;
    part->delays = net->delays + first;
    part->fractions = net->fractions + first;
    const size_t shortest = part->delays[0], last = part->num_delays - 1;
    const size_t longest = part->delays[last] + (part->fractions[last] > 0);
    part->span = shortest;
    for (size_t i = 0; i <= last; i++) {
        part->interpolated |= part->fractions[i] > 0;
        if (part->delays[i] % shortest != 0)
            part->span = 1;
    }
    if (part->interpolated)
        part->span = 1;
    part->ring = (longest - 1) / part->span * part->span + 2 * part->span;
    part->history[0] = longest;
    part->history[1] = shortest + (part->fractions[0] > 0);
    part->c_ring = part->history[part->derived ? 0 : 1];
}

/* Elements of the sums that each row keeps between the steps of its groups, and backwards. */
static void count_sums(const frnn_config *net, frnn_part *part) {
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = frnn_groups_get(net, groups);
    for (size_t i = 0; i < count && part->recurrent; i++) {
        const size_t readers = part->width - groups[groups[i].readers].block * FRNN_BLOCK;
        part->kept_elements +=
            (groups[i].sources - 1) * groups[i].blocks * FRNN_BLOCK * part->gates;
        part->window_elements += readers * part->gates;
    }
}

/* Field by field: a stream asks for several parts at every step, and to clear them would be felt.
 */
void frnn_part_fill(const frnn_config *net, size_t layer, frnn_part *part) {
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    part->input_size = frnn_layer_input(net, layer);
    part->hidden_size = net->hidden_size;
    part->blocks = frnn_blocks(net);
    part->gates = cell->gates;
    part->slots = cell->gates + (cell->apart != 0);
    part->back_slots = cell->gates + (cell->apart == 2);
    part->output_size = frnn_output_size(net);
    part->output_blocks = net->num_groups > 0 ? part->blocks : frnn_blocks_of(part->output_size);
    part->sums = summed_vectors(net);
    part->vectors = part->sums + (net->cell == FRNN_CELL_GRU);
    part->width = part->blocks * FRNN_BLOCK;
    part->ld = part->width + FRNN_STAGGER;
    part->h_ld = part->output_blocks * FRNN_BLOCK + FRNN_STAGGER;
    part->recurrent = cell->gates > 0 && net->cell != FRNN_CELL_MINGRU;
    part->projected = net->proj_size > 0;
    part->reset_before = net->cell == FRNN_CELL_GRU_RESET_BEFORE;
    part->derived = cell->memory && cell->states == 1;
    part->net = net;
    part->structured = net->num_groups > 0 || net->num_delays > 0;
    part->groups = net->num_groups;
    part->mask_blocks = net->num_groups > 0 ? 0 : net->mask_blocks;
    part->dz_units = net->num_groups > 0 ? part->width : net->hidden_size;
    part->interpolated = 0;
    set_delays(net, layer, part);
    part->dz_slots = part->back_slots + (part->reset_before && part->num_delays > 1);
    part->w_ih = part->w_hh = part->bias = part->vector = part->w_hr = part->zeros = 0;
    part->list_begin = part->list_k = part->list_units = part->h = part->c = part->kept =
        part->kept_sums = 0;
    part->kept_elements = part->window_elements = 0;
    if (part->groups > 0)
        count_sums(net, part);
}

frnn_part frnn_part_shape(const frnn_config *net, size_t layer) {
    frnn_part part;
    frnn_part_fill(net, layer, &part);
    return part;
}

size_t frnn_weight_elements(const frnn_config *net, size_t layer, int which) {
    const frnn_part part = frnn_part_shape(net, layer);
    const size_t rows = part.gates * part.hidden_size;
    if (which >= FRNN_WEIGHT_COUNT)
        return part.recurrent && (size_t)(which - FRNN_WEIGHT_COUNT) + 1 < part.num_delays
                   ? rows * part.output_size
                   : 0;
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
    /* All parts of layer 0 have one size, all others another, unless each layer has its delay. */
    const size_t kinds = net->dilated ? (index + D - 1) / D : rest > 0 ? 2 : 1;
    for (size_t layer = 0; index > 0 && layer < kinds; layer++) {
        const size_t others = net->dilated ? frnn_min(index - layer * D, D) : rest;
        size_t size = 0, other_size = 0;
        if (!append(net, steps, batch, layer, part, &size, &other_size) ||
            !advance(end, layer == 0 ? first : others, size) ||
            !advance(other_end, layer == 0 ? first : others, other_size))
            return 0;
    }
    if (index / D >= net->num_layers)
        return 1;
    return append(net, steps, batch, index / D, part, end, other_end);
}
