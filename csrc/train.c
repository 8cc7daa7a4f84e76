/* SPDX-License-Identifier: MIT
 *
 * Training: what a forward saves, the weights as the backward reads them, the gradient of the state
 * between calls, and the order in which the parts run backwards.
 */
#include "back.h"

/* ---- Layout ------------------------------------------------------------------------------- */

int frnn_saved_layout(const frnn_config *net, size_t steps, size_t batch, frnn_saved *saved) {
    const frnn_part part = frnn_part_shape(net, 0);
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const size_t itemsize = frnn_itemsize(net->dtype);
    const size_t kept = part.gates > 0 ? steps : steps / FRNN_SCAN_PIECE + 1;
    size_t h_steps = 0, c_steps = 0;
    for (size_t layer = 0; layer < (net->dilated ? net->num_layers : 1); layer++) {
        const frnn_part each = frnn_part_shape(net, layer);
        h_steps = frnn_max(h_steps, each.history[0]);
        c_steps = frnn_max(c_steps, each.c_ring);
    }
    saved->size = 0;
    return frnn_append(&saved->size, &saved->h0, h_steps, batch, part.h_ld, itemsize) &&
           frnn_append(&saved->size, &saved->c0, cell->memory != 0 ? c_steps : 0, batch, part.ld,
                       itemsize) &&
           frnn_append(&saved->size, &saved->gates, part.gates > 0 ? steps : 0, batch,
                       frnn_gates_row(&part), itemsize) &&
           frnn_append(&saved->size, &saved->c, cell->history ? kept : 0, batch, part.ld,
                       itemsize) &&
           frnn_append(&saved->size, &saved->h, part.projected ? steps : 0, batch, part.h_ld,
                       itemsize) &&
           frnn_append(&saved->size, &saved->clocks, part.groups > 0, batch, 1, sizeof(uint64_t));
}

frnn_status frnn_saved_size(const frnn_config *net, size_t steps, size_t batch, size_t *size) {
    frnn_saved saved;
    if (frnn_config_check(net) != FRNN_OK || size == NULL)
        return FRNN_E_ARG;
    if (frnn_blocks(net) > SIZE_MAX / 64 / FRNN_BLOCK || net->proj_size > SIZE_MAX / 64 ||
        !frnn_saved_layout(net, steps, batch, &saved))
        return FRNN_E_SIZE;
    size_t whole = saved.size;
    if (!frnn_mul(&whole, net->num_layers) || !frnn_mul(&whole, net->num_directions) ||
        !frnn_add(&whole, FRNN_HEADER_SIZE) || whole > PTRDIFF_MAX)
        return FRNN_E_SIZE;
    *size = whole;
    return FRNN_OK;
}

typedef struct train_part {
    frnn_packed_back packed;
    /* Of the adjoint: what arrives at a step, and sums over those that were visited. */
    size_t dh, carry, dvectors, total_bias, total_vectors;
    size_t dz_past, windows; /* of time structures */
    size_t sums;             /* whether there are some that are not summed at once: then */
    size_t sum_ih, sum_hh, sum_hr;
} train_part;

/* Columns with their padding. */
static size_t padded(size_t columns) {
    return columns / FRNN_BLOCK * FRNN_BLOCK + FRNN_BLOCK;
}

/* Elements of the recurrent matrices as the backward reads them. */
static int recurrent_elements(const frnn_part *part, size_t *elements) {
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = frnn_groups_get(part->net, groups);
    const int lists = part->mask_blocks > 0 && !frnn_back_many(part, part->mask_blocks);
    size_t all = lists ? part->mask_blocks : part->hidden_size;
    size_t columns = lists ? FRNN_BLOCK : padded(part->output_size);
    *elements = 0;
    if (!part->recurrent)
        return 1;
    if (count > 0)
        all = columns = part->width;
    if (!frnn_mul(&all, columns) || !frnn_mul(&all, part->gates) ||
        !frnn_mul(&all, part->num_delays))
        return 0;
    if (count > 0) /* of each group those that read it: less than the whole, which fits */
        for (size_t j = all = 0; j < count; j++)
            all += groups[j].blocks * FRNN_BLOCK * part->gates *
                   (part->width - groups[groups[j].readers].block * FRNN_BLOCK);
    *elements = all;
    return 1;
}

static int append_train_part(const frnn_config *net, size_t steps, size_t batch, size_t layer,
                             void *to, size_t *packed, size_t *adjoint) {
    train_part *t = to;
    const frnn_part part = frnn_part_shape(net, layer);
    const size_t itemsize = frnn_itemsize(net->dtype), H = net->hidden_size;
    const size_t rows = part.gates * H, outputs = part.output_size;
    const size_t recurrent = part.recurrent ? part.gates : 0;
    const size_t projected = part.projected ? outputs : 0;
    const size_t lists = part.mask_blocks > 0, masked = net->mask_blocks > 0;
    const size_t reach = part.structured && part.groups == 0 ? frnn_back_reach(&part) : 0;
    size_t visit = batch, matrices; /* rows that are summed side by side */
    if (!frnn_mul(&visit, part.span) || !recurrent_elements(&part, &matrices))
        return 0;
    t->sums = part.gates > 0 && steps > 0 &&
              (frnn_back_many(&part, part.mask_blocks) ||
               (steps - 1) / part.span >= frnn_super_steps(visit));
    const size_t summed = t->sums * recurrent * part.num_delays;
    return frnn_append(packed, &t->packed.w_ih, part.gates * padded(part.input_size), H, 1,
                       itemsize) &&
           frnn_append(packed, &t->packed.w_hh, matrices, 1, 1, itemsize) &&
           frnn_append(packed, &t->packed.w_hr, projected, padded(H), 1, itemsize) &&
           frnn_append(packed, &t->packed.vectors, part.vectors, part.width, 1, itemsize) &&
           frnn_append(packed, &t->packed.list_begin, lists, part.blocks + 2, 1,
                       sizeof(uint32_t)) &&
           frnn_append(packed, &t->packed.list_k, part.mask_blocks, 1, 1, sizeof(uint32_t)) &&
           frnn_append(packed, &t->packed.whole, lists, 1, 1, sizeof(uint32_t)) &&
           frnn_append(packed, &t->packed.mask, masked * H, outputs, 1, 1) &&
           frnn_append(adjoint, &t->dh, part.history[0], batch, part.h_ld, itemsize) &&
           frnn_append(adjoint, &t->carry, part.history[1], batch, part.ld, itemsize) &&
           frnn_append(adjoint, &t->dvectors, part.sums * visit, part.ld, 1, itemsize) &&
           frnn_append(adjoint, &t->total_bias, part.back_slots * part.dz_units, 1, 1,
                       sizeof(double)) &&
           frnn_append(adjoint, &t->total_vectors, part.sums * part.dz_units, 1, 1,
                       sizeof(double)) &&
           frnn_append(adjoint, &t->dz_past, reach, visit, frnn_dz_row(&part), itemsize) &&
           frnn_append(adjoint, &t->windows, part.window_elements, batch, 1, itemsize) &&
           frnn_append(adjoint, &t->sum_ih, t->sums * rows, part.input_size, 1, itemsize) &&
           frnn_append(adjoint, &t->sum_hh, summed * H, outputs, 1, itemsize) &&
           frnn_append(adjoint, &t->sum_hr, t->sums * projected, H, 1, itemsize);
}

/* The sizes of the whole net; 0 on overflow. */
static int total(const frnn_config *net, size_t steps, size_t batch, size_t *packed,
                 size_t *adjoint) {
    train_part unused;
    size_t parts = net->num_layers;
    if (net->input_size > SIZE_MAX / 64)
        return 0;
    return frnn_mul(&parts, net->num_directions) &&
           frnn_layout(net, steps, batch, parts, append_train_part, &unused, packed, adjoint);
}

static train_part train_part_get(const frnn_config *net, size_t steps, size_t batch, size_t index) {
    train_part part = {0};
    size_t packed, adjoint;
    frnn_layout(net, steps, batch, index, append_train_part, &part, &packed, &adjoint);
    return part;
}

frnn_status frnn_header_check(const void *memory, uint32_t magic, const frnn_config *net,
                              size_t batch, size_t steps, frnn_header *header) {
    memcpy(header, memory, sizeof *header);
    return header->magic == magic && header->key == frnn_config_key(net) &&
                   header->batch == batch && header->steps == steps
               ? FRNN_OK
               : FRNN_E_ARG;
}

/* ---- Weights ------------------------------------------------------------------------------ */

frnn_status frnn_packed_back_size(const frnn_config *net, size_t *size) {
    size_t packed, adjoint;
    if (frnn_config_check(net) != FRNN_OK || size == NULL)
        return FRNN_E_ARG;
    if (!total(net, 0, 0, &packed, &adjoint))
        return FRNN_E_SIZE;
    *size = packed;
    return FRNN_OK;
}

frnn_status frnn_pack_back(const frnn_config *net, const frnn_weights *weights, void *packed,
                           size_t packed_size) {
    size_t needed;
    frnn_status status = frnn_packed_back_size(net, &needed);
    if (status == FRNN_OK && weights == NULL)
        status = FRNN_E_ARG;
    if (status == FRNN_OK)
        status = frnn_buffer_check(packed, packed_size, needed);
    if (status != FRNN_OK)
        return status;
    memset(packed, 0, FRNN_HEADER_SIZE);
    char *const base = packed;
    for (size_t i = 0; i < net->num_layers * net->num_directions; i++) {
        const frnn_part part = frnn_part_shape(net, i / net->num_directions);
        const train_part t = train_part_get(net, 0, 0, i);
        status = frnn_weights_check(net, &weights[i]);
        if (status != FRNN_OK)
            return status;
        frnn_pack_back_part(net, &part, &t.packed, &weights[i], base);
    }
    const frnn_header header = {.magic = FRNN_MAGIC_PACKED_BACK, .key = frnn_config_key(net)};
    memcpy(packed, &header, sizeof header);
    return FRNN_OK;
}

/* ---- Adjoint ------------------------------------------------------------------------------ */

frnn_status frnn_adjoint_size(const frnn_config *net, size_t steps, size_t batch, size_t *size) {
    size_t packed, adjoint;
    if (frnn_config_check(net) != FRNN_OK || size == NULL)
        return FRNN_E_ARG;
    if (!total(net, steps, batch, &packed, &adjoint))
        return FRNN_E_SIZE;
    *size = adjoint;
    return FRNN_OK;
}

frnn_status frnn_adjoint_reset(const frnn_config *net, size_t steps, size_t batch, void *adjoint,
                               size_t adjoint_size) {
    size_t needed;
    frnn_status status = frnn_adjoint_size(net, steps, batch, &needed);
    if (status == FRNN_OK)
        status = frnn_buffer_check(adjoint, adjoint_size, needed);
    if (status != FRNN_OK)
        return status;
    const frnn_header header = {
        .magic = FRNN_MAGIC_ADJOINT, .key = frnn_config_key(net), .batch = batch, .steps = steps};
    memset(adjoint, 0, needed);
    memcpy(adjoint, &header, sizeof header);
    return FRNN_OK;
}

/* One array between an adjoint ([part][steps][batch][ld]) and the caller's. */
static frnn_status exchange(const frnn_config *net, size_t steps, size_t batch, char *adjoint,
                            size_t adjoint_size, size_t index, void *to, const void *from) {
    frnn_header header;
    size_t needed;
    frnn_status status = frnn_adjoint_size(net, steps, batch, &needed);
    if (status != FRNN_OK)
        return status;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    status = frnn_buffer_check(adjoint, adjoint_size, needed);
    if (status == FRNN_OK)
        status = frnn_header_check(adjoint, FRNN_MAGIC_ADJOINT, net, batch, steps, &header);
    if (status == FRNN_OK && (index >= cell->states || (to == NULL && from == NULL && batch > 0)))
        status = FRNN_E_ARG;
    if (status != FRNN_OK)
        return status;
    /* with delays the gradient of a state has more steps than what goes on by itself */
    const int carried = index == 1 || (cell->direct && net->num_delays == 0);
    const size_t itemsize = frnn_itemsize(net->dtype);
    size_t at = 0;
    for (size_t p = 0; p < net->num_layers * net->num_directions; p++) {
        const frnn_part shape = frnn_part_shape(net, p / net->num_directions);
        const size_t size = index == 1 ? shape.hidden_size : shape.output_size;
        const size_t ld = (carried ? shape.ld : shape.h_ld) * itemsize;
        const train_part part = train_part_get(net, steps, batch, p);
        char *values = adjoint + (carried ? part.carry : part.dh);
        for (size_t row = 0; row < shape.history[index] * batch; row++, values += ld) {
            frnn_exchange_row(net, size, values, to == NULL ? NULL : (char *)to + at,
                              from == NULL ? NULL : (const char *)from + at);
            at += size * itemsize;
        }
    }
    return FRNN_OK;
}

frnn_status frnn_adjoint_get(const frnn_config *net, size_t steps, size_t batch,
                             const void *adjoint, size_t adjoint_size, size_t index, void *values) {
    /* the cast is safe: nothing is written to the adjoint when `to` is given */
    return exchange(net, steps, batch, (char *)(uintptr_t)adjoint, adjoint_size, index, values,
                    NULL);
}

frnn_status frnn_adjoint_set(const frnn_config *net, size_t steps, size_t batch, void *adjoint,
                             size_t adjoint_size, size_t index, const void *values) {
    return exchange(net, steps, batch, adjoint, adjoint_size, index, NULL, values);
}

/* ---- Running ------------------------------------------------------------------------------ */

/* Gradients of the outputs of inner layers: two buffers in turn, then the scratch of a part. */
typedef struct plan {
    size_t between; /* bytes of a buffer, 0 for a single layer */
    size_t ragged;  /* bytes that tell of a ragged batch */
    size_t total;
} plan;

static int make_plan(const frnn_config *net, size_t steps, size_t batch, int ragged, plan *p) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    size_t part_size = 0, at;
    p->between = p->ragged = 0;
    for (size_t layer = 0; layer < frnn_kinds(net); layer++) {
        const frnn_part part = frnn_part_shape(net, layer);
        size_t size;
        if (!frnn_part_back_scratch(&part, itemsize, steps, batch, ragged, &size))
            return 0;
        part_size = frnn_max(part_size, size);
    }
    size_t rows = steps;
    if (net->num_layers > 1 &&
        (!frnn_mul(&rows, batch) || !frnn_append(&p->between, &at, rows, net->num_directions,
                                                 frnn_output_size(net), itemsize)))
        return 0;
    if (ragged && !frnn_ragged_size(steps, batch, &p->ragged))
        return 0;
    p->total = p->between;
    return frnn_mul(&p->total, 2) && frnn_add(&p->total, part_size) &&
           frnn_add(&p->total, p->ragged) && p->total <= PTRDIFF_MAX;
}

static frnn_status scratch_size(const frnn_config *net, size_t steps, size_t batch, int ragged,
                                size_t *size) {
    size_t packed, adjoint;
    plan p;
    if (frnn_config_check(net) != FRNN_OK || size == NULL)
        return FRNN_E_ARG;
    if (!total(net, steps, batch, &packed, &adjoint) || !make_plan(net, steps, batch, ragged, &p))
        return FRNN_E_SIZE;
    *size = p.total;
    return FRNN_OK;
}

frnn_status frnn_backward_scratch_size(const frnn_config *net, size_t steps, size_t batch,
                                       size_t *size) {
    return scratch_size(net, steps, batch, 0, size);
}

frnn_status frnn_ragged_backward_scratch_size(const frnn_config *net, size_t steps, size_t batch,
                                              size_t *size) {
    return scratch_size(net, steps, batch, 1, size);
}

static int is_ragged(const frnn_back *back) {
    return back->lengths != NULL || back->reset != NULL;
}

/* Whether a sequence may be gone through in stretches, of which this is one: of nets with delays
 * whole visits, unless it is the last one. */
static int divisible(const frnn_config *net, const frnn_back *back, const frnn_header *adjoint) {
    if (net->num_directions != 1 || frnn_cell_get(net->cell)->gates == 0)
        return 0;
    for (size_t layer = 0; layer < (net->dilated ? net->num_layers : 1); layer++) {
        const frnn_part part = frnn_part_shape(net, layer);
        if (back->steps % part.span != 0 && back->steps != back->total_steps - adjoint->position)
            return 0;
    }
    return 1;
}

/* All that frnn_backward() is given; *adjoint is then its header. */
static frnn_status check_back(const frnn_config *net, const void *packed, size_t packed_size,
                              const frnn_back *back, frnn_header *adjoint, plan *p) {
    size_t packed_needed, adjoint_needed, saved_needed;
    frnn_header header;
    if (frnn_config_check(net) != FRNN_OK || back == NULL || back->struct_size != sizeof *back ||
        back->steps > back->total_steps || back->dy_begin > back->steps ||
        (back->steps != back->total_steps && is_ragged(back)) ||
        !frnn_ragged_legal(back->lengths, back->steps, back->batch))
        return FRNN_E_ARG;
    if (!total(net, back->total_steps, back->batch, &packed_needed, &adjoint_needed) ||
        !make_plan(net, back->steps, back->batch, is_ragged(back), p))
        return FRNN_E_SIZE;
    frnn_status status = frnn_saved_size(net, back->steps, back->batch, &saved_needed);
    if (status == FRNN_OK)
        status = frnn_buffer_check(packed, packed_size, packed_needed);
    if (status == FRNN_OK)
        status = frnn_header_check(packed, FRNN_MAGIC_PACKED_BACK, net, 0, 0, &header);
    if (status == FRNN_OK)
        status = frnn_buffer_check(back->saved, back->saved_size, saved_needed);
    if (status == FRNN_OK)
        status = frnn_header_check(back->saved, FRNN_MAGIC_SAVED, net, back->batch, back->steps,
                                   &header);
    if (status == FRNN_OK)
        status = frnn_buffer_check(back->adjoint, back->adjoint_size, adjoint_needed);
    if (status == FRNN_OK)
        status = frnn_header_check(back->adjoint, FRNN_MAGIC_ADJOINT, net, back->batch,
                                   back->total_steps, adjoint);
    if (status == FRNN_OK && back->steps > back->total_steps - adjoint->position)
        status = FRNN_E_ARG;
    if (status == FRNN_OK && back->steps != back->total_steps && !divisible(net, back, adjoint))
        status = FRNN_E_ARG;
    for (size_t i = 0; status == FRNN_OK && i < net->num_delays; i++)
        if (net->fractions[i] > 0)
            status = FRNN_E_ARG;
    if (status == FRNN_OK && p->total > 0)
        status = frnn_buffer_check(back->scratch, back->scratch_size, p->total);
    if (status == FRNN_OK && back->steps > 0 && back->batch > 0 && back->x == NULL)
        status = FRNN_E_ARG;
    return status;
}

/* The arrays of a set of gradients, in the order of the enumeration. */
static void gradient_arrays(const frnn_gradients *g, void **arrays) {
    arrays[FRNN_WEIGHT_IH] = g->weight_ih;
    arrays[FRNN_WEIGHT_HH] = g->weight_hh;
    arrays[FRNN_BIAS_IH] = g->bias_ih;
    arrays[FRNN_BIAS_HH] = g->bias_hh;
    arrays[FRNN_ALPHA] = g->alpha;
    arrays[FRNN_WEIGHT_HR] = g->weight_hr;
    arrays[FRNN_PEEPHOLE] = g->peephole;
    for (size_t i = 0; i < FRNN_MAX_DELAYS - 1; i++)
        arrays[FRNN_WEIGHT_COUNT + i] = g->delayed[i];
}

/* Gradients of a sequence without steps or rows. */
static void zero_gradients(const frnn_config *net, const frnn_gradients *gradients) {
    for (size_t i = 0; i < net->num_layers * net->num_directions; i++) {
        void *arrays[FRNN_WEIGHT_COUNT + FRNN_MAX_DELAYS - 1];
        gradient_arrays(&gradients[i], arrays);
        for (int which = 0; which < FRNN_WEIGHT_COUNT + FRNN_MAX_DELAYS - 1; which++)
            if (arrays[which] != NULL)
                memset(arrays[which], 0,
                       frnn_weight_elements(net, i / net->num_directions, which) *
                           frnn_itemsize(net->dtype));
    }
}

/* dx of steps that a row does not have. */
static void clear_padding(const frnn_config *net, const frnn_back *back) {
    const ptrdiff_t itemsize = (ptrdiff_t)frnn_itemsize(net->dtype);
    if (back->dx == NULL || back->lengths == NULL)
        return;
    for (size_t b = 0; b < back->batch; b++)
        for (size_t t = back->lengths[b]; t < back->steps; t++)
            memset((char *)back->dx +
                       ((ptrdiff_t)t * back->dx_step + (ptrdiff_t)b * back->dx_row) * itemsize,
                   0, net->input_size * (size_t)itemsize);
}

static void run_part(const frnn_config *net, const char *packed, const frnn_back *back,
                     size_t index, frnn_part_back *run) {
    frnn_part part = frnn_part_shape(net, index / net->num_directions);
    const train_part t = train_part_get(net, back->total_steps, back->batch, index);
    char *const adjoint = back->adjoint;
    run->part = &part;
    run->reverse = index % net->num_directions == 1;
    run->w_ih = packed + t.packed.w_ih;
    run->w_hh = packed + t.packed.w_hh;
    run->w_hr = packed + t.packed.w_hr;
    run->vectors = packed + t.packed.vectors;
    run->saved = (const char *)back->saved + FRNN_HEADER_SIZE + index * run->layout->size;
    run->dh = adjoint + t.dh;
    run->carry = adjoint + t.carry;
    run->gradients = back->gradients == NULL ? NULL : &back->gradients[index];
    run->total_bias = (double *)(void *)(adjoint + t.total_bias);
    run->total_vectors = (double *)(void *)(adjoint + t.total_vectors);
    if (part.mask_blocks > 0 && *(const uint32_t *)(const void *)(packed + t.packed.whole))
        part.mask_blocks = 0;
    if (part.mask_blocks > 0)
        run->lists =
            frnn_lists_at(&part, packed + t.packed.list_begin, packed + t.packed.list_k, NULL);
    run->mask = net->mask_blocks == 0 ? NULL : (const unsigned char *)packed + t.packed.mask;
    run->dz_past = adjoint + t.dz_past;
    run->windows = adjoint + t.windows;
    run->dvectors = NULL;
    memset(&run->sums, 0, sizeof run->sums);
    if (run->gradients != NULL) {
        const frnn_gradients *g = run->gradients;
        if (g->alpha != NULL || g->peephole != NULL)
            run->dvectors = adjoint + t.dvectors;
        run->sums.weight_ih = g->weight_ih == NULL ? NULL : adjoint + t.sum_ih;
        run->sums.weight_hh = g->weight_hh == NULL ? NULL : adjoint + t.sum_hh;
        run->sums.weight_hr = g->weight_hr == NULL ? NULL : adjoint + t.sum_hr;
        for (size_t i = 0; i + 1 < part.num_delays; i++)
            run->sums.delayed[i] = g->delayed[i] == NULL
                                       ? NULL
                                       : adjoint + t.sum_hh +
                                             (i + 1) * part.gates * part.hidden_size *
                                                 part.output_size * run->itemsize;
    }
    if (part.gates > 0)
        frnn_part_backward(run);
    else
        frnn_part_scan_back(run);
}

static void run_layers(const frnn_config *net, const char *packed, const plan *p,
                       const frnn_back *back, frnn_part_back *run) {
    const size_t L = net->num_layers, D = net->num_directions;
    const size_t outputs = frnn_output_size(net),
                 width = outputs * run->itemsize; /* a direction's */
    char *const between = back->scratch;
    const char *dy = back->dy;
    for (size_t layer = L; layer-- > 0;) {
        char *const dx = layer == 0 ? back->dx : between + layer % 2 * p->between;
        for (size_t direction = 0; direction < D; direction++) {
            const size_t index = layer * D + direction;
            run->dy = dy == NULL ? NULL : dy + direction * width;
            run->dx = dx;
            run->dx_add = direction == 1;
            run->dx_row = layer == 0 ? back->dx_row : (ptrdiff_t)(D * outputs);
            run->dx_step = layer == 0 ? back->dx_step : (ptrdiff_t)back->batch * run->dx_row;
            for (size_t d = 0; d < 2; d++)
                run->below[d] = layer > 0 && d < D ? (const char *)back->saved + FRNN_HEADER_SIZE +
                                                         ((layer - 1) * D + d) * run->layout->size
                                                   : NULL;
            run_part(net, packed, back, index, run);
        }
        dy = dx;
        run->dy_step = run->dx_step;
        run->dy_row = run->dx_row;
        run->dy_begin = 0;
    }
}

frnn_status frnn_backward(const frnn_config *net, const void *packed, size_t packed_size,
                          const frnn_back *back) {
    frnn_header header;
    frnn_saved layout;
    plan p;
    frnn_status status = check_back(net, packed, packed_size, back, &header, &p);
    if (status != FRNN_OK)
        return status;
    frnn_saved_layout(net, back->steps, back->batch, &layout);
    frnn_part_back run = {
        .kernels = frnn_kernels_active(net->dtype),
        .layout = &layout,
        .net = net,
        .plain = frnn_config_plain(net),
        .itemsize = frnn_itemsize(net->dtype),
        .steps = back->steps,
        .batch = back->batch,
        .x = back->x,
        .x_step = back->x_step,
        .x_row = back->x_row,
        .dy_step = back->dy_step,
        .dy_row = back->dy_row,
        .dy_begin = back->dy_begin,
        .accumulate = back->accumulate,
        .parallel_time = back->parallel_time,
        .position = header.position,
        .last = header.position + back->steps == back->total_steps,
        .scratch = p.total > 0 ? (char *)back->scratch + 2 * p.between : NULL,
    };
    if (run.kernels == NULL)
        return FRNN_E_ISA;
    frnn_ragged ragged;
    if (is_ragged(back) && back->batch > 0) {
        char *const memory = (char *)back->scratch + p.total - p.ragged;
        ragged = frnn_ragged_begin(memory, back->steps, back->batch, back->lengths, back->reset);
        run.ragged = &ragged;
        run.steps = ragged.visits;
        clear_padding(net, back);
    }
    if (back->batch > 0 && run.steps > 0)
        run_layers(net, packed, &p, back, &run);
    else if (back->gradients != NULL && !back->accumulate && header.position == 0)
        zero_gradients(net, back->gradients);
    header.position += back->steps;
    memcpy(back->adjoint, &header, sizeof header);
    return FRNN_OK;
}
