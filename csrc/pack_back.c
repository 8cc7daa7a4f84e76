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
        const source input = {w->weight_ih, part->gates, H, &groups[j], 1, I, 0, I};
        const source readers = {w->weight_hh,   part->gates,   H, &groups[first], count - first, H,
                                groups[j].unit, groups[j].size};
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
        const source all = {
            i == 0 ? w->weight_hh : w->delayed[i - 1], part->gates, H, NULL, 0, O, 0, O};
        pack_transposed(&all, H, itemsize, to);
        to += part->gates * H * part->output_blocks * FRNN_BLOCK * itemsize;
    }
}

void frnn_pack_back_part(const frnn_config *net, const frnn_part *part, const frnn_packed_back *at,
                         const frnn_weights *w, char *base) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    const size_t H = part->hidden_size, I = part->input_size;
    const source input = {w->weight_ih, part->gates, H, NULL, 0, I, 0, I};
    const source projection = {w->weight_hr, 1, 0, NULL, 0, H, 0, H};
    if (part->groups > 0)
        pack_groups(net, part, w, base + at->w_ih, base + at->w_hh);
    else if (part->gates > 0)
        pack_transposed(&input, H, itemsize, base + at->w_ih);
    if (part->mask_blocks > 0)
        frnn_pack_lists(part, itemsize, w, base + at->w_hh, base + at->list_begin,
                        base + at->list_k, NULL);
    else if (part->recurrent && part->groups == 0)
        pack_recurrent(part, itemsize, w, base + at->w_hh);
    if (net->mask_blocks > 0)
        memcpy(base + at->mask, w->mask, H * part->output_size);
    if (part->projected)
        pack_transposed(&projection, part->output_size, itemsize, base + at->w_hr);
    frnn_pack_vectors(net, part, w, base + at->vectors);
}
