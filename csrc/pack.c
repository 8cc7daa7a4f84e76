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

/* to[block][k][gate][16] from from[gate * units + unit][k], zeros in the padding. */
static void pack_matrix(size_t gates, size_t size, size_t itemsize, const char *from, size_t k_size,
                        char *to) {
    const size_t row = k_size * itemsize, step = gates * FRNN_BLOCK; /* elements from k to k */
    for (size_t block = 0; block * FRNN_BLOCK < size; block++)
        for (size_t gate = 0; gate < gates; gate++) {
            const size_t unit = block * FRNN_BLOCK, units = frnn_min(size - unit, FRNN_BLOCK);
            const char *rows = from + (gate * size + unit) * row;
            char *panel = to + (block * k_size * step + gate * FRNN_BLOCK) * itemsize;
            for (size_t k = 0; k < k_size; k += FRNN_BLOCK) {
                const size_t columns = frnn_min(k_size - k, FRNN_BLOCK);
                (itemsize == 4 ? turn_tile_4 : turn_tile_8)(
                    rows + k * itemsize, row, units, columns, panel + k * step * itemsize, step);
            }
        }
}

/* The recurrent matrix: in two, if the last gate is multiplied on its own. */
static void pack_recurrent(const frnn_part *part, size_t itemsize, const char *from, char *to) {
    const size_t together = part->reset_before ? part->gates - 1 : part->gates;
    const size_t k_size = part->output_size;
    pack_matrix(together, part->hidden_size, itemsize, from, k_size, to);
    if (together < part->gates)
        pack_matrix(1, part->hidden_size, itemsize,
                    from + together * part->hidden_size * k_size * itemsize, k_size,
                    to + together * part->width * k_size * itemsize);
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
static void pack_bias(const frnn_part *part, frnn_dtype dtype, const frnn_weights *w, char *to) {
    for (size_t block = 0; block < part->blocks; block++)
        for (size_t gate = 0; gate < part->gates; gate++)
            for (size_t i = 0; i < FRNN_BLOCK; i++) {
                const size_t unit = block * FRNN_BLOCK + i;
                const int apart = part->back_slots > part->gates && gate == part->gates - 1;
                double sum = 0;
                if (unit < part->hidden_size) {
                    const size_t at = gate * part->hidden_size + unit;
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

void frnn_pack_vectors(const frnn_part *part, size_t itemsize, const frnn_weights *w, void *to) {
    const size_t hidden = part->hidden_size * itemsize;
    const char *from = w->alpha != NULL ? w->alpha : w->peephole;
    memset(to, 0, part->vectors * part->width * itemsize);
    if (part->back_slots > part->gates) { /* the recurrent bias of the last gate */
        from = w->bias_hh;
        if (from != NULL)
            from += (part->gates - 1) * hidden;
    }
    for (size_t i = 0; i < part->vectors && from != NULL; i++)
        memcpy((char *)to + i * part->width * itemsize, from + i * hidden, hidden);
}

frnn_status frnn_weights_check(const frnn_config *net, const frnn_weights *w) {
    const frnn_part part = frnn_part_shape(net, 0);
    const int alpha = frnn_cell_get(net->cell)->alpha;
    if ((part.gates > 0 && w->weight_ih == NULL) || part.recurrent != (w->weight_hh != NULL) ||
        part.projected != (w->weight_hr != NULL) || (net->peephole != 0) != (w->peephole != NULL) ||
        (alpha != 0) != (w->alpha != NULL) || (!part.recurrent && w->bias_hh != NULL))
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
    if (part.gates > 0) {
        pack_matrix(part.gates, part.hidden_size, itemsize, w->weight_ih, part.input_size,
                    base + part.w_ih);
        pack_bias(&part, net->dtype, w, base + part.bias);
    }
    if (part.recurrent)
        pack_recurrent(&part, itemsize, w->weight_hh, base + part.w_hh);
    if (part.projected) {
        pack_matrix(1, part.output_size, itemsize, w->weight_hr, part.hidden_size,
                    base + part.w_hr);
        memset(base + part.zeros, 0, part.output_blocks * FRNN_BLOCK * itemsize);
    }
    frnn_pack_vectors(&part, itemsize, w, base + part.vector);
    return FRNN_OK;
}

void frnn_pack_end(const frnn_config *net, void *packed) {
    const frnn_header header = {.magic = FRNN_MAGIC_PACKED, .key = frnn_config_key(net)};
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
