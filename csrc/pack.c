/* SPDX-License-Identifier: MIT
 *
 * Plain weights to packed panels: the order in which the kernels read them (see internal.h). The
 * same bytes for every instruction set.
 */
#include "internal.h"

/* A tile of 16 units by up to 16 columns, turned round: to[k * step + unit] = from[unit][k], zeros
 * where there is no unit. It moves in pieces of cache lines, the source as bytes: that may lie
 * anywhere in a file. */
#define DEFINE_TURN_TILE(name, type)                                                               \
    static void name(const char *from, size_t row, size_t units, size_t columns, char *to,         \
                     size_t step) {                                                                \
        type tile[FRNN_BLOCK][FRNN_BLOCK] = {{0}};                                                 \
        type *out = (type *)(void *)to;                                                            \
        for (size_t unit = 0; unit < units; unit++)                                                \
            memcpy(tile[unit], from + unit * row, columns * sizeof(type));                         \
        for (size_t k = 0; k < columns; k++)                                                       \
            for (size_t unit = 0; unit < FRNN_BLOCK; unit++)                                       \
                out[k * step + unit] = tile[unit][k];                                              \
    }
DEFINE_TURN_TILE(turn_tile_4, uint32_t)
DEFINE_TURN_TILE(turn_tile_8, uint64_t)

/* Rows of a weight matrix, of all gates, and a stretch of its columns. */
typedef struct source {
    const char *from;
    size_t gates, gate_rows;     /* rows from gate to gate */
    size_t unit, units;          /* of each gate */
    size_t row, column, columns; /* of all columns, of those that are packed */
} source;

/* To to[block][k_at + k][gate][16], of k_size in a block; zeros in the padding. */
static void pack_panels(const source *s, size_t itemsize, char *to, size_t k_size, size_t k_at) {
    const size_t row = s->row * itemsize, step = s->gates * FRNN_BLOCK; /* elements from k to k */
    for (size_t block = 0; block * FRNN_BLOCK < s->units; block++)
        for (size_t gate = 0; gate < s->gates; gate++) {
            const size_t unit = block * FRNN_BLOCK, units = frnn_min(s->units - unit, FRNN_BLOCK);
            const char *rows =
                s->from + (gate * s->gate_rows + s->unit + unit) * row + s->column * itemsize;
            char *panel = to + ((block * k_size + k_at) * step + gate * FRNN_BLOCK) * itemsize;
            for (size_t k = 0; k < s->columns; k += FRNN_BLOCK) {
                const size_t columns = frnn_min(s->columns - k, FRNN_BLOCK);
                (itemsize == 4 ? turn_tile_4 : turn_tile_8)(
                    rows + k * itemsize, row, units, columns, panel + k * step * itemsize, step);
            }
        }
}

/* A whole matrix of gates * units rows. */
static void pack_matrix(size_t gates, size_t units, size_t itemsize, const char *from,
                        size_t k_size, char *to) {
    const source all = {from, gates, units, 0, units, k_size, 0, k_size};
    pack_panels(&all, itemsize, to, k_size, 0);
}

/* The groups of a net, or all units as one. */
static size_t groups_or_one(const frnn_config *net, frnn_group *groups) {
    const size_t count = frnn_groups_get(net, groups);
    if (count > 0)
        return count;
    groups[0] = (frnn_group){.size = net->hidden_size, .blocks = frnn_blocks(net)};
    return 1;
}

/* The recurrent matrices of all delays, of `gates` gates from gate `first` on. */
static void pack_delays(const frnn_part *part, size_t itemsize, const frnn_weights *w, size_t first,
                        size_t gates, char *to) {
    const size_t H = part->hidden_size, k_size = part->output_size;
    for (size_t i = 0; i < part->num_delays; i++) {
        const char *from = i == 0 ? w->weight_hh : w->delayed[i - 1];
        const source all = {
            from + first * H * k_size * itemsize, gates, H, 0, H, k_size, 0, k_size};
        pack_panels(&all, itemsize, to, part->num_delays * k_size, i * k_size);
    }
}

/* Each group's rows, with the columns of those that it reads: [blocks][k][gates][16]. */
static void pack_groups(const frnn_config *net, const frnn_part *part, size_t itemsize,
                        const frnn_weights *w, char *to) {
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = frnn_groups_get(net, groups), H = part->hidden_size;
    for (size_t i = 0; i < count; i++) {
        const size_t k_size = frnn_group_k(groups, i);
        const size_t size = groups[i].blocks * k_size * part->gates * FRNN_BLOCK * itemsize;
        memset(to, 0, size);
        for (size_t j = 0; j < groups[i].sources; j++) {
            const source some = {w->weight_hh,   part->gates,    H,
                                 groups[i].unit, groups[i].size, H,
                                 groups[j].unit, groups[j].size};
            pack_panels(&some, itemsize, to, k_size, groups[j].block * FRNN_BLOCK);
        }
        to += size;
    }
}

static void pack_recurrent(const frnn_config *net, const frnn_part *part, const frnn_weights *w,
                           char *to) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    const size_t together = part->reset_before ? part->gates - 1 : part->gates;
    if (part->groups > 0) {
        pack_groups(net, part, itemsize, w, to);
        return;
    }
    /* in two, if the last gate is multiplied on its own */
    for (size_t first = 0; first < part->gates; first += together) {
        const size_t gates = frnn_min(together, part->gates - first);
        pack_delays(part, itemsize, w, first, gates, to);
        to += part->blocks * part->output_size * part->num_delays * gates * FRNN_BLOCK * itemsize;
    }
}

static double element(frnn_dtype dtype, const void *array, size_t i) {
    if (dtype == FRNN_F32) {
        float value;
        memcpy(&value, (const char *)array + i * sizeof value, sizeof value);
        return (double)value;
    }
    double value;
    memcpy(&value, (const char *)array + i * sizeof value, sizeof value);
    return value;
}

/* The sum of both biases, in the net's dtype. A sum of two floats in double rounds once more when
 * stored, which is the correctly rounded sum: double has more than twice the digits. Of a last gate
 * whose two parts are not just added, that of the input part alone. */
static void pack_bias(const frnn_part *part, const frnn_group *group, frnn_dtype dtype,
                      const frnn_weights *w, char *to) {
    for (size_t block = 0; block < group->blocks; block++)
        for (size_t gate = 0; gate < part->gates; gate++)
            for (size_t i = 0; i < FRNN_BLOCK; i++) {
                const size_t unit = block * FRNN_BLOCK + i;
                const int apart = part->back_slots > part->gates && gate == part->gates - 1;
                double sum = 0;
                if (unit < group->size) {
                    const size_t at = gate * part->hidden_size + group->unit + unit;
                    if (w->bias_ih != NULL)
                        sum += element(dtype, w->bias_ih, at);
                    if (w->bias_hh != NULL && !apart)
                        sum += element(dtype, w->bias_hh, at);
                }
                const float single = (float)sum;
                if (dtype == FRNN_F32)
                    memcpy(to, &single, sizeof single);
                else
                    memcpy(to, &sum, sizeof sum);
                to += frnn_itemsize(dtype);
            }
}

void frnn_pack_vectors(const frnn_config *net, const frnn_part *part, const frnn_weights *w,
                       void *to) {
    const size_t itemsize = frnn_itemsize(net->dtype), hidden = part->hidden_size * itemsize;
    const char *from = w->alpha != NULL ? w->alpha : w->peephole;
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = groups_or_one(net, groups);
    memset(to, 0, part->vectors * part->width * itemsize);
    if (part->back_slots > part->gates) { /* the recurrent bias of the last gate */
        from = w->bias_hh;
        if (from != NULL)
            from += (part->gates - 1) * hidden;
    }
    for (size_t i = 0; i < part->vectors && from != NULL; i++)
        for (size_t g = 0; g < count; g++)
            memcpy((char *)to + (i * part->width + groups[g].block * FRNN_BLOCK) * itemsize,
                   from + i * hidden + groups[g].unit * itemsize, groups[g].size * itemsize);
}

/* What there is of delays and masks must be what the net says. */
static int structure_given(const frnn_config *net, const frnn_part *part, const frnn_weights *w) {
    const size_t H = part->hidden_size, O = part->output_size;
    for (size_t i = 0; i < FRNN_MAX_DELAYS - 1; i++)
        if ((w->delayed[i] != NULL) != (part->recurrent && i + 1 < part->num_delays))
            return 0;
    if ((w->mask != NULL) != (net->mask_blocks > 0))
        return 0;
    if (w->mask == NULL)
        return 1;
    if (part->groups == 0)
        return frnn_mask_blocks(w->mask, H, O) <= part->mask_blocks;
    /* clocks have their own order of connections, so that nothing may be left to be masked */
    for (size_t i = 0; i < part->gates * H * O; i++)
        if (!w->mask[i % (H * O)] && element(net->dtype, w->weight_hh, i) != 0)
            return 0;
    return 1;
}

frnn_status frnn_weights_check(const frnn_config *net, const frnn_weights *w) {
    const frnn_part part = frnn_part_shape(net, 0); /* of a dilated net one delay, as all */
    const int alpha = frnn_cell_get(net->cell)->alpha;
    if ((part.gates > 0 && w->weight_ih == NULL) || part.recurrent != (w->weight_hh != NULL) ||
        part.projected != (w->weight_hr != NULL) || (net->peephole != 0) != (w->peephole != NULL) ||
        (alpha != 0) != (w->alpha != NULL) || (!part.recurrent && w->bias_hh != NULL))
        return FRNN_E_ARG;
    if (!structure_given(net, &part, w))
        return FRNN_E_ARG;
    for (size_t i = 0; alpha && i < net->hidden_size; i++) {
        const double value = element(net->dtype, w->alpha, i);
        if (!(value >= 0 && value <= 1)) /* NaN too */
            return FRNN_E_ARG;
    }
    return FRNN_OK;
}

frnn_status frnn_pack_begin(const frnn_config *net, void *packed, size_t packed_size) {
    size_t needed;
    frnn_status status = frnn_packed_size(net, &needed);
    if (status == FRNN_OK)
        status = frnn_buffer_check(packed, packed_size, needed);
    if (status == FRNN_OK)
        memset(packed, 0, FRNN_HEADER_SIZE);
    return status;
}

frnn_status frnn_pack_part(const frnn_config *net, size_t index, const frnn_weights *w,
                           void *packed) {
    const frnn_status status = frnn_weights_check(net, w);
    if (status != FRNN_OK)
        return status;
    const size_t itemsize = frnn_itemsize(net->dtype);
    const frnn_part part = frnn_part_get(net, 0, index);
    char *base = packed;
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = groups_or_one(net, groups);
    for (size_t g = 0; part.gates > 0 && g < count; g++) {
        const size_t panel = groups[g].block * part.gates * FRNN_BLOCK * itemsize;
        const source rows = {
            w->weight_ih,    part.gates, part.hidden_size, groups[g].unit, groups[g].size,
            part.input_size, 0,          part.input_size};
        pack_panels(&rows, itemsize, base + part.w_ih + panel * part.input_size, part.input_size,
                    0);
        pack_bias(&part, &groups[g], net->dtype, w, base + part.bias + panel);
    }
    if (part.mask_blocks > 0)
        frnn_pack_lists(&part, itemsize, w, base + part.w_hh, base + part.list_begin,
                        base + part.list_k, base + part.list_units);
    else if (part.recurrent)
        pack_recurrent(net, &part, w, base + part.w_hh);
    if (part.projected) {
        pack_matrix(1, part.output_size, itemsize, w->weight_hr, part.hidden_size,
                    base + part.w_hr);
        memset(base + part.zeros, 0, part.output_blocks * FRNN_BLOCK * itemsize);
    }
    frnn_pack_vectors(net, &part, w, base + part.vector);
    return FRNN_OK;
}

/* Tells weights apart, for states that keep sums of them. */
static uint64_t stamp(const char *bytes, size_t size) {
    uint64_t sum = 0;
    for (size_t i = FRNN_HEADER_SIZE; i < size; i += sizeof sum) {
        uint64_t word;
        memcpy(&word, bytes + i, sizeof word);
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 32;
    }
    return sum;
}

void frnn_pack_end(const frnn_config *net, void *packed) {
    size_t size = 0;
    frnn_header header = {.magic = FRNN_MAGIC_PACKED, .key = frnn_config_key(net)};
    if (net->num_groups > 0 && frnn_packed_size(net, &size) == FRNN_OK)
        header.position = stamp(packed, size);
    memcpy(packed, &header, sizeof header);
}

frnn_status frnn_pack(const frnn_config *net, const frnn_weights *weights, void *packed,
                      size_t packed_size) {
    frnn_status status = frnn_config_check(net);
    if (status != FRNN_OK || weights == NULL)
        return FRNN_E_ARG;
    status = frnn_pack_begin(net, packed, packed_size);
    for (size_t i = 0; status == FRNN_OK && i < net->num_layers * net->num_directions; i++)
        status = frnn_pack_part(net, i, &weights[i], packed);
    if (status == FRNN_OK)
        frnn_pack_end(net, packed);
    return status;
}
