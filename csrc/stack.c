/* SPDX-License-Identifier: MIT
 *
 * Layers and directions: how large the buffers of a net are and how they are carved, the state
 * between calls, and the order in which the parts run.
 */
#include "internal.h"

/* ---- Layout ------------------------------------------------------------------------------- */

/* Elements of the recurrent matrices of a part. */
static int recurrent_elements(const frnn_config *net, const frnn_part *part, size_t *elements) {
    frnn_group groups[FRNN_MAX_GROUPS];
    const size_t count = frnn_groups_get(net, groups);
    size_t all = part->mask_blocks > 0 ? part->mask_blocks : part->width;
    size_t columns = part->mask_blocks > 0 ? FRNN_BLOCK : part->output_size;
    *elements = 0;
    if (!part->recurrent)
        return 1;
    if (count > 0)
        columns = part->width;
    if (!frnn_mul(&all, columns) || !frnn_mul(&all, part->gates) ||
        !frnn_mul(&all, part->num_delays))
        return 0;
    if (count > 0) /* less than the whole, which fits */
        for (size_t i = all = 0; i < count; i++)
            all += groups[i].blocks * FRNN_BLOCK * frnn_group_k(groups, i) * part->gates;
    *elements = all;
    return 1;
}

/* Appends one part to the buffers that end at *packed and *state. */
static int append_part(const frnn_config *net, size_t steps, size_t batch, size_t layer, void *to,
                       size_t *packed, size_t *state) {
    frnn_part *part = to;
    (void)steps;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const size_t itemsize = frnn_itemsize(net->dtype);
    frnn_part_fill(net, layer, part);
    const int clocks = part->groups > 0;
    const size_t ring = cell->gates > 0 && !clocks ? part->ring : 1;
    const size_t projected = part->projected ? part->output_blocks * FRNN_BLOCK : 0;
    const size_t lists = part->mask_blocks > 0;
    size_t recurrent;
    if (part->mask_blocks > UINT32_MAX || !recurrent_elements(net, part, &recurrent))
        return 0;
    return frnn_append(packed, &part->w_ih, part->input_size, part->gates, part->width, itemsize) &&
           frnn_append(packed, &part->w_hh, recurrent, 1, 1, itemsize) &&
           frnn_append(packed, &part->bias, part->gates, part->width, 1, itemsize) &&
           frnn_append(packed, &part->vector, part->vectors, part->width, 1, itemsize) &&
           frnn_append(packed, &part->w_hr, part->hidden_size, projected, 1, itemsize) &&
           frnn_append(packed, &part->zeros, projected, 1, 1, itemsize) &&
           frnn_append(packed, &part->list_begin, lists, part->blocks + 2, 1, sizeof(uint32_t)) &&
           frnn_append(packed, &part->list_k, part->mask_blocks, 2, 1, sizeof(uint32_t)) &&
           frnn_append(packed, &part->list_units, lists * 2, part->width, 1, sizeof(uint16_t)) &&
           frnn_append(state, &part->h, ring, batch, part->h_ld, itemsize) &&
           frnn_append(state, &part->c, cell->memory != 0 ? part->c_ring : 0, batch, part->ld,
                       itemsize) &&
           frnn_append(state, &part->kept, clocks, part->groups + 1, 1, sizeof(uint64_t)) &&
           frnn_append(state, &part->kept_sums, part->kept_elements, batch, 1, itemsize);
}

/* The sizes of the whole net; 0 on overflow. */
static int total(const frnn_config *net, size_t batch, size_t *packed_size, size_t *state_size) {
    frnn_part unused;
    size_t parts = net->num_layers;
    return frnn_mul(&parts, net->num_directions) &&
           frnn_layout(net, 0, batch, parts, append_part, &unused, packed_size, state_size);
}

frnn_part frnn_part_get(const frnn_config *net, size_t batch, size_t index) {
    frnn_part part; /* laid out in any case: the sizes of the net fit */
    size_t packed, state;
    frnn_layout(net, 0, batch, index, append_part, &part, &packed, &state);
    return part;
}

frnn_status frnn_packed_size(const frnn_config *net, size_t *size) {
    size_t packed, state;
    if (frnn_config_check(net) != FRNN_OK || size == NULL)
        return FRNN_E_ARG;
    if (!total(net, 0, &packed, &state))
        return FRNN_E_SIZE;
    *size = packed;
    return FRNN_OK;
}

/* Clocks of all rows lie at the end of a state. */
static int append_clocks(const frnn_config *net, size_t batch, size_t *state, size_t *clocks) {
    return frnn_append(state, clocks, net->num_groups > 0, batch, 1, sizeof(uint64_t));
}

/* Where the clocks of a state lie, whose sizes have been found to fit; NULL if there are none. */
static uint64_t *clocks_at(const frnn_config *net, size_t batch, void *state) {
    size_t packed, at;
    if (net->num_groups == 0)
        return NULL;
    total(net, batch, &packed, &at);
    return (uint64_t *)(void *)((char *)state + at);
}

frnn_status frnn_state_size(const frnn_config *net, size_t batch, size_t *size) {
    size_t packed, state, clocks;
    if (frnn_config_check(net) != FRNN_OK || size == NULL)
        return FRNN_E_ARG;
    if (!total(net, batch, &packed, &state) || !append_clocks(net, batch, &state, &clocks))
        return FRNN_E_SIZE;
    *size = state;
    return FRNN_OK;
}

/* ---- State -------------------------------------------------------------------------------- */

/* Where the state of the caller is c alone, h follows from it. */
static int is_derived(const frnn_config *net) {
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    return cell->memory && cell->states == 1;
}

size_t frnn_ring_slot(const frnn_part *part, uint64_t position, int c, size_t slot) {
    const size_t ring = c ? part->c_ring : part->ring, history = part->history[c && !part->derived];
    if (part->groups > 0 || part->gates == 0)
        return 0;
    if (!part->structured) /* the plain loop begins with the second slot */
        return c ? 0 : (size_t)(position % ring);
    return (size_t)((position % ring + 2 * ring - history + slot) % ring);
}

static void derive_h(const frnn_config *net, const frnn_kernels *kernels, size_t batch,
                     const frnn_header *header, char *state) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    for (size_t p = 0; p < net->num_layers * net->num_directions; p++) {
        const frnn_part part = frnn_part_get(net, batch, p);
        const size_t bytes = batch * part.ld * itemsize;
        for (size_t slot = 0; slot < part.history[0]; slot++)
            kernels->activate(
                &net->activation,
                state + part.c + frnn_ring_slot(&part, header->position, 1, slot) * bytes,
                state + part.h + frnn_ring_slot(&part, header->position, 0, slot) * bytes,
                batch * part.ld);
    }
}

/* Sums that are kept of a state do not fit another one. */
static void forget_sums(const frnn_config *net, size_t batch, char *state) {
    for (size_t p = 0; net->num_groups > 0 && p < net->num_layers * net->num_directions; p++) {
        const frnn_part part = frnn_part_get(net, batch, p);
        memset(state + part.kept, 0, (part.groups + 1) * sizeof(uint64_t));
    }
}

frnn_status frnn_state_reset(const frnn_config *net, size_t batch, void *state, size_t state_size) {
    size_t needed;
    frnn_status status = frnn_state_size(net, batch, &needed);
    if (status == FRNN_OK)
        status = frnn_buffer_check(state, state_size, needed);
    if (status != FRNN_OK)
        return status;
    const frnn_header header = {
        .magic = FRNN_MAGIC_STATE, .key = frnn_config_key(net), .batch = batch};
    const frnn_kernels *kernels = is_derived(net) ? frnn_kernels_active(net->dtype) : NULL;
    if (is_derived(net) && kernels == NULL)
        return FRNN_E_ISA;
    memset(state, 0, needed);
    memcpy(state, &header, sizeof header);
    if (kernels != NULL)
        derive_h(net, kernels, batch, &header, state);
    return FRNN_OK;
}

/* Whether a state of `needed` bytes was reset for this net and batch; its header goes to *header.
 */
static frnn_status check_header(const frnn_config *net, size_t batch, const void *state,
                                size_t state_size, size_t needed, frnn_header *header) {
    const frnn_status status = frnn_buffer_check(state, state_size, needed);
    if (status != FRNN_OK)
        return status;
    memcpy(header, state, sizeof *header);
    return header->magic == FRNN_MAGIC_STATE && header->key == frnn_config_key(net) &&
                   header->batch == batch
               ? FRNN_OK
               : FRNN_E_ARG;
}

static frnn_status check_state(const frnn_config *net, size_t batch, const void *state,
                               size_t state_size, frnn_header *header) {
    size_t needed;
    const frnn_status status = frnn_state_size(net, batch, &needed);
    return status != FRNN_OK ? status : check_header(net, batch, state, state_size, needed, header);
}

void frnn_exchange_row(const frnn_config *net, size_t size, char *values, char *to,
                       const char *from) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    frnn_group groups[FRNN_MAX_GROUPS];
    size_t count = frnn_groups_get(net, groups);
    if (count == 0) {
        groups[0] = (frnn_group){.size = size};
        count = 1;
    }
    for (size_t i = 0; i < count; i++) {
        const size_t unit = groups[i].unit * itemsize, bytes = groups[i].size * itemsize;
        char *const units = values + groups[i].block * FRNN_BLOCK * itemsize;
        if (to != NULL)
            memcpy(to + unit, units, bytes);
        else
            memcpy(units, from + unit, bytes);
    }
}

/* Copies one array between a checked state ([part][ring][batch]) and the caller's ([part, steps,
 * batch, size]). */
static frnn_status exchange(const frnn_config *net, const frnn_header *header, char *state,
                            size_t index, void *to, const void *from) {
    const size_t batch = (size_t)header->batch, itemsize = frnn_itemsize(net->dtype);
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const int c = index == 1 || is_derived(net);
    if (index >= cell->states || (to == NULL && from == NULL && batch > 0))
        return FRNN_E_ARG;
    size_t at = 0;
    for (size_t p = 0; p < net->num_layers * net->num_directions; p++) {
        const frnn_part part = frnn_part_get(net, batch, p);
        const size_t size = c ? part.hidden_size : part.output_size;
        const size_t row = (c ? part.ld : part.h_ld) * itemsize;
        for (size_t slot = 0; slot < part.history[index]; slot++) {
            char *values = state + (c ? part.c : part.h) +
                           frnn_ring_slot(&part, header->position, c, slot) * batch * row;
            for (size_t b = 0; b < batch; b++, values += row, at += size * itemsize)
                frnn_exchange_row(net, size, values, to == NULL ? NULL : (char *)to + at,
                                  from == NULL ? NULL : (const char *)from + at);
        }
    }
    return FRNN_OK;
}

frnn_status frnn_state_get(const frnn_config *net, size_t batch, const void *state,
                           size_t state_size, size_t index, void *values) {
    frnn_header header;
    const frnn_status status = check_state(net, batch, state, state_size, &header);
    if (status != FRNN_OK)
        return status;
    /* the cast is safe: nothing is written to the state when `to` is given */
    return exchange(net, &header, (char *)(uintptr_t)state, index, values, NULL);
}

frnn_status frnn_state_set(const frnn_config *net, size_t batch, void *state, size_t state_size,
                           size_t index, const void *values) {
    frnn_header header;
    frnn_status status = check_state(net, batch, state, state_size, &header);
    if (status != FRNN_OK)
        return status;
    const frnn_kernels *kernels = frnn_kernels_active(net->dtype);
    const int derived = is_derived(net);
    if (derived && kernels == NULL)
        return FRNN_E_ISA;
    status = exchange(net, &header, state, index, NULL, values);
    if (status == FRNN_OK && derived)
        derive_h(net, kernels, batch, &header, state);
    if (status == FRNN_OK)
        forget_sums(net, batch, state);
    return status;
}

/* Checks that there are clocks to read or write. */
static frnn_status check_clocks(const frnn_config *net, size_t batch, const void *state,
                                size_t state_size, const void *clock) {
    frnn_header header;
    const frnn_status status = check_state(net, batch, state, state_size, &header);
    if (status != FRNN_OK)
        return status;
    return net->num_groups == 0 || (clock == NULL && batch > 0) ? FRNN_E_ARG : FRNN_OK;
}

frnn_status frnn_state_get_clock(const frnn_config *net, size_t batch, const void *state,
                                 size_t state_size, unsigned long long *clock) {
    const frnn_status status = check_clocks(net, batch, state, state_size, clock);
    if (status != FRNN_OK)
        return status;
    const uint64_t *clocks = clocks_at(net, batch, (char *)(uintptr_t)state);
    for (size_t b = 0; b < batch; b++)
        clock[b] = clocks[b];
    return FRNN_OK;
}

frnn_status frnn_state_set_clock(const frnn_config *net, size_t batch, void *state,
                                 size_t state_size, const unsigned long long *clock) {
    const frnn_status status = check_clocks(net, batch, state, state_size, clock);
    if (status != FRNN_OK)
        return status;
    uint64_t *clocks = clocks_at(net, batch, state);
    for (size_t b = 0; b < batch; b++)
        clocks[b] = clock[b];
    forget_sums(net, batch, state);
    return FRNN_OK;
}

/* ---- Running ------------------------------------------------------------------------------ */

/* Layers hand their output on in scratch: two buffers in turn, of as many steps as pass through
 * all layers together. Layers of one direction need a chunk of time only; a reverse direction needs
 * all of it. */
typedef struct plan {
    size_t chunk;   /* steps that go through all layers at a time */
    size_t between; /* bytes of one buffer between layers, 0 for a single layer */
    size_t part;    /* bytes of scratch of a part */
    size_t ragged;  /* bytes that tell of a ragged batch */
    size_t total;
} plan;

/* Returns 0 if a size does not fit. */
static int make_plan(const frnn_config *net, size_t steps, size_t batch, int ragged, plan *p) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    const frnn_part part = frnn_part_shape(net, 0); /* of the outputs, which all layers share */
    p->chunk = steps;
    p->between = p->ragged = 0;
    size_t rows = steps;
    if (!frnn_mul(&rows, batch))
        return 0;
    if (net->num_layers > 1) {
        const int whole = ragged || net->num_directions == 2 || net->num_groups > 0;
        if (!whole)
            p->chunk = frnn_min(steps, frnn_part_chunk(&part, itemsize, batch));
        /* rows that are held at a time; rounded so that the size never falls with batch */
        if (!whole)
            rows = frnn_min(rows, frnn_max(batch, frnn_part_chunk(&part, itemsize, 1)));
        size_t end = 0, at;
        if (!frnn_append(&end, &at, rows, net->num_directions, part.output_size, itemsize))
            return 0;
        p->between = end;
    }
    if (ragged && !frnn_ragged_size(steps, batch, &p->ragged))
        return 0;
    p->part = 0;
    for (size_t layer = 0; layer < frnn_kinds(net); layer++) {
        const frnn_part part = frnn_part_shape(net, layer);
        size_t size;
        if (!frnn_part_scratch(&part, itemsize, steps, batch, ragged, &size))
            return 0;
        p->part = frnn_max(p->part, size);
    }
    p->total = p->between;
    return frnn_mul(&p->total, 2) && frnn_add(&p->total, p->part) &&
           frnn_add(&p->total, p->ragged) && p->total <= PTRDIFF_MAX;
}

static frnn_status scratch_size(const frnn_config *net, size_t steps, size_t batch, int ragged,
                                size_t *size) {
    size_t packed, state;
    plan p;
    if (frnn_config_check(net) != FRNN_OK || size == NULL)
        return FRNN_E_ARG;
    if (!total(net, batch, &packed, &state) || !make_plan(net, steps, batch, ragged, &p))
        return FRNN_E_SIZE;
    *size = p.total;
    return FRNN_OK;
}

frnn_status frnn_scratch_size(const frnn_config *net, size_t steps, size_t batch, size_t *size) {
    return scratch_size(net, steps, batch, 0, size);
}

frnn_status frnn_ragged_scratch_size(const frnn_config *net, size_t steps, size_t batch,
                                     size_t *size) {
    return scratch_size(net, steps, batch, 1, size);
}

/* What a training run writes; *saved is then its layout. */
static frnn_status check_saved(const frnn_config *net, const frnn_run *run, frnn_saved *saved) {
    size_t needed;
    const frnn_status status = frnn_saved_size(net, run->steps, run->batch, &needed);
    if (status != FRNN_OK)
        return status;
    frnn_saved_layout(net, run->steps, run->batch, saved);
    return frnn_buffer_check(run->saved, run->saved_size, needed);
}

static int is_ragged(const frnn_run *run) {
    return run->lengths != NULL || run->reset != NULL;
}

/* All that frnn_forward() is given; *state is then the header of the state. */
static frnn_status check_run(const frnn_config *net, const void *packed, size_t packed_size,
                             const frnn_run *run, frnn_header *state, frnn_saved *saved, plan *p) {
    size_t packed_needed, state_needed, clocks;
    frnn_header header;
    if (frnn_config_check(net) != FRNN_OK || run == NULL || run->struct_size != sizeof *run)
        return FRNN_E_ARG;
    if (!total(net, run->batch, &packed_needed, &state_needed) ||
        !append_clocks(net, run->batch, &state_needed, &clocks) ||
        !make_plan(net, run->steps, run->batch, is_ragged(run), p))
        return FRNN_E_SIZE;
    if (!frnn_ragged_legal(run->lengths, run->steps, run->batch))
        return FRNN_E_ARG;
    frnn_status status = frnn_buffer_check(packed, packed_size, packed_needed);
    if (status != FRNN_OK)
        return status;
    memcpy(&header, packed, sizeof header);
    if (header.magic != FRNN_MAGIC_PACKED || header.key != frnn_config_key(net))
        return FRNN_E_ARG;
    status = check_header(net, run->batch, run->state, run->state_size, state_needed, state);
    if (status == FRNN_OK && p->total > 0)
        status = frnn_buffer_check(run->scratch, run->scratch_size, p->total);
    if (status == FRNN_OK && run->saved != NULL)
        status = check_saved(net, run, saved);
    if (status == FRNN_OK && run->steps > 0 && run->batch > 0 && (run->x == NULL || run->y == NULL))
        status = FRNN_E_ARG;
    return status;
}

/* Steps by which the clock of a row has moved: to its end, from where it last started anew. */
static size_t row_steps(const frnn_run *run, size_t begin, size_t steps, size_t b) {
    if (!is_ragged(run))
        return steps;
    const size_t length = run->lengths != NULL ? run->lengths[b] : steps;
    size_t t = length;
    while (run->reset != NULL && t > 1 && run->reset[(begin + t - 1) * run->batch + b] == 0)
        t--;
    return run->reset != NULL && t > 1 ? length - (t - 1) : length;
}

/* One stretch of time through all layers. The strides of part.x and part.y are the caller's; the
 * buffers between layers are contiguous. */
static void run_layers(const frnn_config *net, const plan *p, const frnn_run *run, size_t begin,
                       size_t steps, frnn_part_run *part_run) {
    const size_t L = net->num_layers, D = net->num_directions;
    const ptrdiff_t itemsize = (ptrdiff_t)part_run->itemsize;
    const ptrdiff_t width = (ptrdiff_t)(D * frnn_output_size(net));
    part_run->steps = steps;
    part_run->begin = begin;
    part_run->x = (const char *)run->x + (ptrdiff_t)begin * run->x_step * itemsize;
    part_run->x_step = run->x_step;
    part_run->x_row = run->x_row;
    for (size_t layer = 0; layer < L; layer++) {
        char *output;
        if (layer < L - 1) {
            output = part_run->scratch + p->part + (layer % 2) * p->between;
            part_run->y_step = width * (ptrdiff_t)run->batch;
            part_run->y_row = width;
        } else {
            output = (char *)run->y + (ptrdiff_t)begin * run->y_step * itemsize;
            part_run->y_step = run->y_step;
            part_run->y_row = run->y_row;
        }
        for (size_t direction = 0; direction < D; direction++) {
            const frnn_part part = frnn_part_get(net, run->batch, layer * D + direction);
            part_run->part = &part;
            part_run->index = layer * D + direction;
            part_run->reverse = direction == 1;
            part_run->y = output + direction * part.output_size * part_run->itemsize;
            if (part.gates > 0)
                frnn_part_forward(part_run);
            else
                frnn_part_scan(part_run);
        }
        part_run->x = output;
        part_run->x_step = part_run->y_step;
        part_run->x_row = part_run->y_row;
    }
    part_run->position += steps;
    for (size_t b = 0; part_run->clocks != NULL && b < run->batch; b++)
        part_run->clocks[b] += row_steps(run, begin, steps, b);
}

frnn_status frnn_forward(const frnn_config *net, const void *packed, size_t packed_size,
                         const frnn_run *run) {
    frnn_header header, packed_header;
    frnn_saved layout;
    plan p;
    frnn_status status = check_run(net, packed, packed_size, run, &header, &layout, &p);
    if (status != FRNN_OK)
        return status;
    memcpy(&packed_header, packed, sizeof packed_header);
    frnn_part_run part_run = {
        .kernels = frnn_kernels_active(net->dtype),
        .net = net,
        .plain = frnn_config_plain(net),
        .itemsize = frnn_itemsize(net->dtype),
        .batch = run->batch,
        .packed = packed,
        .state = run->state,
        .position = header.position,
        .scratch = run->scratch,
        .parallel_time = run->parallel_time,
        .saved = run->saved,
        .layout = &layout,
        .stamp = packed_header.position,
        .clocks = clocks_at(net, run->batch, run->state),
    };
    if (part_run.kernels == NULL)
        return FRNN_E_ISA;
    if (run->saved != NULL) {
        const frnn_header saved = {.magic = FRNN_MAGIC_SAVED,
                                   .key = frnn_config_key(net),
                                   .batch = run->batch,
                                   .steps = run->steps};
        memcpy(run->saved, &saved, sizeof saved);
    }
    if (run->batch == 0)
        return FRNN_OK;
    frnn_ragged ragged;
    if (is_ragged(run)) {
        ragged = frnn_ragged_begin(run->scratch, run->steps, run->batch, run->lengths, run->reset);
        part_run.ragged = &ragged;
        part_run.scratch += p.ragged;
    }
    for (size_t begin = 0; begin < run->steps; begin += p.chunk)
        run_layers(net, &p, run, begin, frnn_min(p.chunk, run->steps - begin), &part_run);
    header.position = part_run.position;
    memcpy(run->state, &header, sizeof header);
    return FRNN_OK;
}
