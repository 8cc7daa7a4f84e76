/* SPDX-License-Identifier: MIT
 *
 * Layers and directions: how large the buffers of a net are and how they are carved, the state
 * between calls, and the order in which the parts run.
 */
#include "internal.h"

/* ---- Layout ------------------------------------------------------------------------------- */

/* Appends one part to the buffers that end at *packed and *state. */
static int append_part(const frnn_config *net, size_t steps, size_t batch, size_t layer, void *to,
                       size_t *packed, size_t *state) {
    frnn_part *part = to;
    (void)steps;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const size_t itemsize = frnn_itemsize(net->dtype);
    const size_t ring = cell->gates > 0 ? 2 : 1;
    *part = frnn_part_shape(net, layer);
    const size_t recurrent = part->recurrent ? part->output_size : 0;
    const size_t projected = part->projected ? part->output_blocks * FRNN_BLOCK : 0;
    return frnn_append(packed, &part->w_ih, part->input_size, part->gates, part->width, itemsize) &&
           frnn_append(packed, &part->w_hh, recurrent, part->gates, part->width, itemsize) &&
           frnn_append(packed, &part->bias, part->gates, part->width, 1, itemsize) &&
           frnn_append(packed, &part->vector, part->vectors, part->width, 1, itemsize) &&
           frnn_append(packed, &part->w_hr, part->hidden_size, projected, 1, itemsize) &&
           frnn_append(packed, &part->zeros, projected, 1, 1, itemsize) &&
           frnn_append(state, &part->h, ring, batch, part->h_ld, itemsize) &&
           frnn_append(state, &part->c, cell->memory != 0, batch, part->ld, itemsize);
}

/* The sizes of the whole net; 0 on overflow. */
static int total(const frnn_config *net, size_t batch, size_t *packed_size, size_t *state_size) {
    frnn_part unused;
    size_t parts = net->num_layers;
    return frnn_mul(&parts, net->num_directions) &&
           frnn_layout(net, 0, batch, parts, append_part, &unused, packed_size, state_size);
}

frnn_part frnn_part_get(const frnn_config *net, size_t batch, size_t index) {
    frnn_part part = {0};
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

frnn_status frnn_state_size(const frnn_config *net, size_t batch, size_t *size) {
    size_t packed, state;
    if (frnn_config_check(net) != FRNN_OK || size == NULL)
        return FRNN_E_ARG;
    if (!total(net, batch, &packed, &state))
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

static void derive_h(const frnn_config *net, const frnn_kernels *kernels, size_t batch,
                     const frnn_header *header, char *state) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    for (size_t p = 0; p < net->num_layers * net->num_directions; p++) {
        const frnn_part part = frnn_part_get(net, batch, p);
        kernels->activate(&net->activation, state + part.c,
                          state + part.h + header->position % 2 * batch * part.ld * itemsize,
                          batch * part.ld);
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

/* An array of a part of a state, which the caller knows by `index`. */
typedef struct state_array {
    size_t at;        /* bytes from the start of the state */
    size_t size, row; /* bytes of a row, and from row to row */
} state_array;

static state_array state_array_get(const frnn_config *net, const frnn_part *part,
                                   const frnn_header *header, size_t index) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    if (index == 1 || is_derived(net)) {
        const state_array c = {part->c, part->hidden_size * itemsize, part->ld * itemsize};
        return c;
    }
    const size_t slot = part->gates > 0 ? header->position % 2 : 0;
    const state_array h = {part->h + slot * header->batch * part->h_ld * itemsize,
                           part->output_size * itemsize, part->h_ld * itemsize};
    return h;
}

/* Copies one array between a checked state ([part][batch]) and the caller's ([part, batch, size]).
 */
static frnn_status exchange(const frnn_config *net, const frnn_header *header, char *state,
                            size_t index, void *to, const void *from) {
    const size_t batch = (size_t)header->batch;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    if (index >= cell->states || (to == NULL && from == NULL && batch > 0))
        return FRNN_E_ARG;
    size_t at = 0;
    for (size_t p = 0; p < net->num_layers * net->num_directions; p++) {
        const frnn_part part = frnn_part_get(net, batch, p);
        const state_array array = state_array_get(net, &part, header, index);
        char *values = state + array.at;
        for (size_t b = 0; b < batch; b++, values += array.row, at += array.size) {
            if (to != NULL)
                memcpy((char *)to + at, values, array.size);
            else
                memcpy(values, (const char *)from + at, array.size);
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
    return status;
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
        const int whole = ragged || net->num_directions == 2;
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
    for (size_t layer = 0; layer < frnn_min(net->num_layers, 2); layer++) {
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
    size_t packed_needed, state_needed;
    frnn_header header;
    if (frnn_config_check(net) != FRNN_OK || run == NULL || run->struct_size != sizeof *run)
        return FRNN_E_ARG;
    if (!total(net, run->batch, &packed_needed, &state_needed) ||
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
}

frnn_status frnn_forward(const frnn_config *net, const void *packed, size_t packed_size,
                         const frnn_run *run) {
    frnn_header header;
    frnn_saved layout;
    plan p;
    frnn_status status = check_run(net, packed, packed_size, run, &header, &layout, &p);
    if (status != FRNN_OK)
        return status;
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
