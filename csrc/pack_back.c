/* SPDX-License-Identifier: MIT
 *
 * Plain weights as the backward reads them: transposed, see kernel.h.
 */
#include "back.h"

/* Rows of a weight matrix, `gate_rows` from gate to gate, and a stretch of its columns. */
typedef struct source {
    const char *from;
    size_t gates, gate_rows;
    const frnn_group *groups; /* rows of each gate: units of these, with the padding of their */
    size_t num_groups;        /* blocks if there are several; NULL: all rows */
    size_t row, column, columns;
    const unsigned char *mask; /* of one gate, or NULL: what is 0 is packed as 0 */
} source;

/* A row of `source`, or NULL for one of the padding. */
static const char *row_at(const source *s, size_t gate, size_t k, size_t itemsize) {
    const size_t row = s->row * itemsize, first = s->groups == NULL ? 0 : s->groups[0].block;
    size_t unit = k;
    for (size_t i = 0; s->groups != NULL && i < s->num_groups; i++) {
        const frnn_group *g = &s->groups[i];
        const size_t at = (g->block - first) * FRNN_BLOCK;
        if (k < at || k >= at + g->blocks * FRNN_BLOCK)
            continue;
        if (k - at >= g->size)
            return NULL;
        unit = g->unit + (k - at);
    }
    return s->from + (gate * s->gate_rows + unit) * row + s->column * itemsize;
}

/* For each gate, blocks of 16 columns of `rows` rows, zeros in the padding: as long as there are
 * four, four together to[k][4][16], the rest to[k][16]. */
static void pack_transposed(const source *s, size_t rows, size_t itemsize, char *to) {
    const size_t bytes = s->columns * itemsize, panel = FRNN_BLOCK * itemsize;
    const size_t blocks = (s->columns - 1) / FRNN_BLOCK + 1;
    for (size_t gate = 0; gate < s->gates; gate++)
        for (size_t block = 0, width; block < blocks; block += width) {
            width = blocks - block < 4 ? 1 : 4;
            const size_t at = block * panel, used = frnn_min(width * panel, bytes - at);
            for (size_t k = 0; k < rows; k++, to += width * panel) {
                const char *from = row_at(s, gate, k, itemsize);
                if (from != NULL)
                    memcpy(to, from + at, used);
                else
                    memset(to, 0, used);
                if (s->mask != NULL)
                    frnn_back_clear(to, s->mask + k * s->row + at / itemsize, used / itemsize,
                                    itemsize);
                memset(to + used, 0, width * panel - used);
            }
        }
}

/* Of a net with clocks: of each group the input's rows, and the columns of its readers. */
static void pack_groups(const frnn_config *net, const frnn_part *part, const frnn_weights *w,
                        char *w_ih, char *w_hh) {
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = frnn_groups_get(net, groups), itemsize = frnn_itemsize(net->dtype);
    const size_t H = part->hidden_size, I = part->input_size;
    for (size_t j = 0; j < count; j++) {
        const size_t first = groups[j].readers, block = groups[first].block;
        const size_t rows = part->width - block * FRNN_BLOCK;
        const source input = {w->weight_ih, part->gates, H, &groups[j], 1, I, 0, I, NULL};
        const source readers = {w->weight_hh,   part->gates,    H,
                                &groups[first], count - first,  H,
                                groups[j].unit, groups[j].size, NULL};
        pack_transposed(&input, groups[j].size, itemsize, w_ih);
        w_ih += part->gates * groups[j].size * frnn_blocks_of(I) * FRNN_BLOCK * itemsize;
        if (!part->recurrent)
            continue;
        pack_transposed(&readers, rows, itemsize, w_hh);
        w_hh += part->gates * rows * groups[j].blocks * FRNN_BLOCK * itemsize;
    }
}

/* The recurrent matrix of each delay. */
static void pack_recurrent(const frnn_part *part, size_t itemsize, const frnn_weights *w,
                           char *to) {
    const size_t H = part->hidden_size, O = part->output_size;
    for (size_t i = 0; i < part->num_delays; i++) {
        const char *from = i == 0 ? w->weight_hh : w->delayed[i - 1];
        const source all = {from, part->gates, H, NULL, 0, O, 0, O, w->mask};
        pack_transposed(&all, H, itemsize, to);
        to += part->gates * H * part->output_blocks * FRNN_BLOCK * itemsize;
    }
}

/* A whole matrix is read for several rows at once; gates share what an entry of a list costs. */
int frnn_back_many(const frnn_part *part, size_t mask_blocks) {
    const size_t fifths = part->gates > 2 ? 2 : 1;
    return mask_blocks > 0 && (mask_blocks - 1) / part->blocks >= part->output_size / 5 * fifths;
}

/* A masked matrix, whole or as lists. It depends on its own mask alone which of the two it is: the
 * same layer is to give the same bits in another net. */
static void pack_masked(const frnn_part *part, size_t itemsize, const frnn_packed_back *at,
                        const frnn_weights *w, char *base) {
    const size_t blocks = frnn_mask_blocks(w->mask, part->hidden_size, part->output_size);
    const uint32_t whole = (uint32_t)frnn_back_many(part, blocks);
    memcpy(base + at->whole, &whole, sizeof whole);
    if (whole)
        pack_recurrent(part, itemsize, w, base + at->w_hh);
    else
        frnn_pack_lists(part, itemsize, w, base + at->w_hh, base + at->list_begin,
                        base + at->list_k, NULL);
}

void frnn_pack_back_part(const frnn_config *net, const frnn_part *part, const frnn_packed_back *at,
                         const frnn_weights *w, char *base) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    const size_t H = part->hidden_size, I = part->input_size;
    const source input = {w->weight_ih, part->gates, H, NULL, 0, I, 0, I, NULL};
    const source projection = {w->weight_hr, 1, 0, NULL, 0, H, 0, H, NULL};
    if (part->groups > 0)
        pack_groups(net, part, w, base + at->w_ih, base + at->w_hh);
    else if (part->gates > 0)
        pack_transposed(&input, H, itemsize, base + at->w_ih);
    if (part->mask_blocks > 0)
        pack_masked(part, itemsize, at, w, base);
    else if (part->recurrent && part->groups == 0)
        pack_recurrent(part, itemsize, w, base + at->w_hh);
    if (net->mask_blocks > 0)
        memcpy(base + at->mask, w->mask, H * part->output_size);
    if (part->projected)
        pack_transposed(&projection, part->output_size, itemsize, base + at->w_hr);
    frnn_pack_vectors(net, part, w, base + at->vectors);
}
