/* SPDX-License-Identifier: MIT
 *
 * Masked recurrent matrices as kernels read them: lists of what the mask leaves, in one of the two
 * forms of frnn_lists.
 */
#include "internal.h"

/* An entry whose lanes have columns of their own takes as long as about four that share one if
 * there is one row, and ten if there are many, which read shared ones together. Not below 4: that
 * is the room for columns. */
#define LANES_COST 6

static int block_has(const unsigned char *mask, size_t hidden_size, size_t outputs, size_t unit,
                     size_t k) {
    int some = 0;
    for (size_t i = unit; i < frnn_min(unit + FRNN_BLOCK, hidden_size); i++)
        some |= mask[i * outputs + k];
    return some != 0;
}

size_t frnn_mask_blocks(const unsigned char *mask, size_t hidden_size, size_t outputs) {
    size_t count = 0;
    for (size_t unit = 0; unit < hidden_size; unit += FRNN_BLOCK)
        for (size_t k = 0; k < outputs; k++)
            count += (size_t)block_has(mask, hidden_size, outputs, unit, k);
    return count;
}

/* The columns of each block that are not empty. */
static void list_blocks(const frnn_part *part, const unsigned char *mask, uint32_t *begin,
                        uint32_t *columns) {
    uint32_t count = 0;
    for (size_t block = 0; block < part->blocks; block++) {
        begin[block] = count;
        for (size_t k = 0; k < part->output_size; k++)
            if (block_has(mask, part->hidden_size, part->output_size, block * FRNN_BLOCK, k))
                columns[count++] = (uint32_t)k;
    }
    begin[part->blocks] = count;
}

/* All units, those with the most connections first, so that the lanes of an entry are in use. */
static void order_units(const frnn_part *part, const unsigned char *mask, uint16_t *units,
                        uint16_t *counts) {
    size_t most = 0, placed = 0;
    for (size_t unit = 0; unit < part->width; unit++) {
        counts[unit] = 0;
        for (size_t k = 0; unit < part->hidden_size && k < part->output_size; k++)
            counts[unit] += mask[unit * part->output_size + k] != 0;
        most = frnn_max(most, counts[unit]);
    }
    for (size_t count = most + 1; count-- > 0;)
        for (size_t unit = 0; unit < part->width; unit++)
            if (counts[unit] == count)
                units[placed++] = (uint16_t)unit;
}

/* The columns of each unit; 0 if that takes more than `most` entries, and nothing is written. */
static int list_lanes(const frnn_part *part, const unsigned char *mask, size_t most,
                      uint32_t *begin, uint16_t *lanes, uint16_t *units) {
    uint16_t *const counts = units + part->width;
    size_t entries = 0;
    if (part->width > UINT16_MAX || part->output_size > UINT16_MAX)
        return 0;
    order_units(part, mask, units, counts);
    for (size_t block = 0; block < part->blocks; block++)
        entries += counts[units[block * FRNN_BLOCK]];
    if (entries > most)
        return 0;
    begin[0] = 0;
    for (size_t block = 0; block < part->blocks; block++) {
        const uint16_t *unit = units + block * FRNN_BLOCK;
        begin[block + 1] = begin[block] + counts[unit[0]];
        for (size_t lane = 0; lane < FRNN_BLOCK; lane++) {
            uint16_t *to = lanes + begin[block] * FRNN_BLOCK + lane, column = 0;
            uint16_t *const end = lanes + begin[block + 1] * FRNN_BLOCK + lane;
            for (size_t k = 0, left = counts[unit[lane]]; left > 0; k++)
                if (mask[unit[lane] * part->output_size + k]) {
                    *to = column = (uint16_t)k;
                    to += FRNN_BLOCK;
                    left--;
                }
            for (; to < end; to += FRNN_BLOCK) /* once more, with weight 0 */
                *to = column;
        }
    }
    return 1;
}

/* The weights of either form, of `gates` gates from gate `first` on. */
static void pack_weights(const frnn_part *part, size_t itemsize, const frnn_weights *w,
                         size_t first, size_t gates, const frnn_lists *lists, char *to) {
    const size_t H = part->hidden_size, O = part->output_size;
    const uint16_t *const units = lists->units;
    const uint16_t *const counts = units == NULL ? NULL : units + part->width;
    for (size_t block = 0; block < part->blocks; block++)
        for (size_t i = 0; i < part->num_delays; i++)
            for (size_t n = lists->begin[block]; n < lists->begin[block + 1]; n++)
                for (size_t gate = first; gate < first + gates; gate++)
                    for (size_t lane = 0; lane < FRNN_BLOCK; lane++, to += itemsize) {
                        const char *from = i == 0 ? w->weight_hh : w->delayed[i - 1];
                        const size_t at = block * FRNN_BLOCK + lane;
                        const size_t unit = units != NULL ? units[at] : at;
                        const size_t column =
                            units != NULL ? lists->lanes[n * FRNN_BLOCK + lane] : lists->columns[n];
                        const int there = units != NULL ? n - lists->begin[block] < counts[unit]
                                                        : unit < H && w->mask[unit * O + column];
                        if (there)
                            memcpy(to, from + ((gate * H + unit) * O + column) * itemsize,
                                   itemsize);
                        else
                            memset(to, 0, itemsize);
                    }
}

frnn_lists frnn_lists_at(const frnn_part *part, const char *list_begin, const char *list_k,
                         const char *list_units) {
    const void *begin = list_begin, *columns = list_k, *units = list_units;
    frnn_lists lists = {.begin = begin, .columns = columns};
    if (lists.begin[part->blocks + 1])
        lists = (frnn_lists){.begin = begin, .lanes = columns, .units = units};
    return lists;
}

void frnn_pack_lists(const frnn_part *part, size_t itemsize, const frnn_weights *w, char *to,
                     char *list_begin, char *list_k, char *list_units) {
    const size_t together = part->reset_before ? part->gates - 1 : part->gates;
    uint32_t *const begin = (void *)list_begin;
    list_blocks(part, w->mask, begin, (void *)list_k);
    begin[part->blocks + 1] =
        list_units != NULL && list_lanes(part, w->mask, begin[part->blocks] / LANES_COST, begin,
                                         (void *)list_k, (void *)list_units);
    const frnn_lists lists = frnn_lists_at(part, list_begin, list_k, list_units);
    /* in two, if the last gate is multiplied on its own */
    for (size_t first = 0; first < part->gates; first += together) {
        const size_t gates = frnn_min(together, part->gates - first);
        pack_weights(part, itemsize, w, first, gates, &lists, to);
        to += begin[part->blocks] * part->num_delays * gates * FRNN_BLOCK * itemsize;
    }
}
