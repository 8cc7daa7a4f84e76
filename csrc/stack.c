/* SPDX-License-Identifier: MIT
 *
 * Layers and directions: what a net is, how large its buffers are and how they are carved, the
 * state between calls, and the order in which the parts run.
 */
#include "internal.h"

/* ---- Nets --------------------------------------------------------------------------------- */

static const frnn_cell_info cells[] = {
#define FRNN_CELL(ENUM, name, gates, states, memory, alpha, history)                               \
    {#name, gates, states, memory, alpha, history},
#include "cells.def"
#undef FRNN_CELL
};

const frnn_cell_info *frnn_cell_get(frnn_cell cell) {
    return (unsigned)cell < FRNN_CELL_COUNT ? &cells[cell] : NULL;
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

static int activation_legal(const frnn_config *net, const frnn_cell_info *cell) {
    switch (net->activation) {
    case FRNN_TANH:
        return 1;
    case FRNN_RELU:
        return cell->gates == 1;
    case FRNN_IDENTITY:
        return cell->gates == 1 && cell->alpha;
    default:
        return 0;
    }
}

frnn_status frnn_config_check(const frnn_config *net) {
    if (net == NULL || net->struct_size != sizeof *net)
        return FRNN_E_ARG;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    if (cell == NULL || (unsigned)net->dtype >= FRNN_DTYPE_COUNT || !activation_legal(net, cell) ||
        net->input_size < 1 || net->hidden_size < 1 || net->num_layers < 1 ||
        net->num_directions < 1 || net->num_directions > 2)
        return FRNN_E_ARG;
    if (cell->gates == 0 &&
        (net->input_size != net->hidden_size || net->num_layers != 1 || net->num_directions != 1))
        return FRNN_E_ARG;
    return FRNN_OK;
}

uint32_t frnn_config_key(const frnn_config *net) {
    const size_t fields[] = {(size_t)net->cell,  (size_t)net->activation, (size_t)net->dtype,
                             net->input_size,    net->hidden_size,        net->num_layers,
                             net->num_directions};
    uint64_t key = 0;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        key = (key ^ fields[i]) * 0x9e3779b97f4a7c15u; /* odd: no field is lost */
    return (uint32_t)(key >> 32);
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
    if (!frnn_mul(&bytes, b) || !frnn_mul(&bytes, c) || !frnn_mul(&bytes, itemsize) ||
        !frnn_add(&bytes, FRNN_ALIGN - 1))
        return 0;
    return frnn_add(end, bytes / FRNN_ALIGN * FRNN_ALIGN) && *end <= PTRDIFF_MAX;
}

frnn_part frnn_part_shape(const frnn_config *net, size_t layer) {
    const frnn_part part = {
        .input_size = frnn_layer_input(net, layer),
        .hidden_size = net->hidden_size,
        .blocks = frnn_blocks(net),
        .gates = frnn_cell_get(net->cell)->gates,
        .width = frnn_blocks(net) * FRNN_BLOCK,
        .ld = frnn_blocks(net) * FRNN_BLOCK + FRNN_STAGGER,
    };
    return part;
}

/* Appends one part to the buffers that end at *packed and *state. */
static int append_part(const frnn_config *net, size_t steps, size_t batch, size_t layer, void *to,
                       size_t *packed, size_t *state) {
    frnn_part *part = to;
    (void)steps;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const size_t itemsize = frnn_itemsize(net->dtype);
    const size_t ring = cell->gates > 0 ? 2 : 1;
    *part = frnn_part_shape(net, layer);
    return frnn_append(packed, &part->w_ih, part->input_size, part->gates, part->width, itemsize) &&
           frnn_append(packed, &part->w_hh, part->hidden_size, part->gates, part->width,
                       itemsize) &&
           frnn_append(packed, &part->bias, part->gates, part->width, 1, itemsize) &&
           frnn_append(packed, &part->alpha, cell->alpha != 0, part->width, 1, itemsize) &&
           frnn_append(state, &part->h, ring, batch, part->ld, itemsize) &&
           frnn_append(state, &part->c, cell->memory != 0, batch, part->ld, itemsize);
}

static int advance(size_t *end, size_t count, size_t size) {
    return frnn_mul(&size, count) && frnn_add(end, size) && *end <= PTRDIFF_MAX;
}

int frnn_layout(const frnn_config *net, size_t steps, size_t batch, size_t index,
                frnn_append_part append, void *part, size_t *end, size_t *other_end) {
    const size_t D = net->num_directions, first = frnn_min(index, D), rest = index - first;
    *end = *other_end = FRNN_HEADER_SIZE;
    /* Sizes that are multiplied below stay within size_t: D is at most 2. */
    if (net->hidden_size > SIZE_MAX / 64)
        return 0;
    /* All parts of layer 0 have one size, all others another. */
    for (size_t layer = 0; layer < (rest > 0 ? 2 : 1); layer++) {
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

frnn_status frnn_state_reset(const frnn_config *net, size_t batch, void *state, size_t state_size) {
    size_t needed;
    frnn_status status = frnn_state_size(net, batch, &needed);
    if (status == FRNN_OK)
        status = frnn_buffer_check(state, state_size, needed);
    if (status != FRNN_OK)
        return status;
    const frnn_header header = {
        .magic = FRNN_MAGIC_STATE, .key = frnn_config_key(net), .batch = batch};
    memset(state, 0, needed);
    memcpy(state, &header, sizeof header);
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

/* Bytes from the start of the state to the array that the caller knows by `index`. */
static size_t state_array(const frnn_config *net, const frnn_part *part, const frnn_header *header,
                          size_t index) {
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    if (index == 1 || (cell->memory && cell->states == 1))
        return part->c;
    const size_t slot = part->gates > 0 ? header->position % 2 : 0;
    return part->h + slot * header->batch * part->ld * frnn_itemsize(net->dtype);
}

/* Copies one array between a checked state ([part][batch][ld]) and the caller's ([part, batch, H]).
 */
static frnn_status exchange(const frnn_config *net, const frnn_header *header, char *state,
                            size_t index, void *to, const void *from) {
    const size_t batch = (size_t)header->batch;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    if (index >= cell->states || (to == NULL && from == NULL && batch > 0))
        return FRNN_E_ARG;
    const size_t itemsize = frnn_itemsize(net->dtype), row = net->hidden_size * itemsize;
    size_t at = 0;
    for (size_t p = 0; p < net->num_layers * net->num_directions; p++) {
        const frnn_part part = frnn_part_get(net, batch, p);
        char *values = state + state_array(net, &part, header, index);
        for (size_t b = 0; b < batch; b++, values += part.ld * itemsize, at += row) {
            if (to != NULL)
                memcpy((char *)to + at, values, row);
            else
                memcpy(values, (const char *)from + at, row);
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

/* Where the state of the caller is c alone, h follows from it. */
static void derive_h(const frnn_config *net, const frnn_kernels *kernels, size_t batch,
                     const frnn_header *header, char *state) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    for (size_t p = 0; p < net->num_layers * net->num_directions; p++) {
        const frnn_part part = frnn_part_get(net, batch, p);
        kernels->activate(net->activation, state + part.c,
                          state + part.h + header->position % 2 * batch * part.ld * itemsize,
                          batch * part.ld);
    }
}

frnn_status frnn_state_set(const frnn_config *net, size_t batch, void *state, size_t state_size,
                           size_t index, const void *values) {
    frnn_header header;
    frnn_status status = check_state(net, batch, state, state_size, &header);
    if (status != FRNN_OK)
        return status;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const frnn_kernels *kernels = frnn_kernels_active(net->dtype);
    const int derived = cell->memory && cell->states == 1;
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
    size_t total;
} plan;

/* Returns 0 if a size does not fit. */
static int make_plan(const frnn_config *net, size_t steps, size_t batch, plan *p) {
    const size_t itemsize = frnn_itemsize(net->dtype);
    /* Layers differ in their input only, which scratch does not hold: any part will do. */
    const frnn_part part = frnn_part_shape(net, 0);
    p->chunk = steps;
    p->between = 0;
    size_t rows = steps;
    if (!frnn_mul(&rows, batch))
        return 0;
    if (net->num_layers > 1) {
        if (net->num_directions == 1)
            p->chunk = frnn_min(steps, frnn_part_chunk(&part, itemsize, batch));
        /* rows that are held at a time; rounded so that the size never falls with batch */
        rows = net->num_directions == 1
                   ? frnn_min(rows, frnn_max(batch, frnn_part_chunk(&part, itemsize, 1)))
                   : rows;
        size_t end = 0, at;
        if (!frnn_append(&end, &at, rows, net->num_directions, net->hidden_size, itemsize))
            return 0;
        p->between = end;
    }
    p->total = p->between;
    return frnn_part_scratch(&part, itemsize, steps, batch, &p->part) && frnn_mul(&p->total, 2) &&
           frnn_add(&p->total, p->part) && p->total <= PTRDIFF_MAX;
}

frnn_status frnn_scratch_size(const frnn_config *net, size_t steps, size_t batch, size_t *size) {
    size_t packed, state;
    plan p;
    if (frnn_config_check(net) != FRNN_OK || size == NULL)
        return FRNN_E_ARG;
    if (!total(net, batch, &packed, &state) || !make_plan(net, steps, batch, &p))
        return FRNN_E_SIZE;
    *size = p.total;
    return FRNN_OK;
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

/* All that frnn_forward() is given; *state is then the header of the state. */
static frnn_status check_run(const frnn_config *net, const void *packed, size_t packed_size,
                             const frnn_run *run, frnn_header *state, frnn_saved *saved, plan *p) {
    size_t packed_needed, state_needed;
    frnn_header header;
    if (frnn_config_check(net) != FRNN_OK || run == NULL || run->struct_size != sizeof *run)
        return FRNN_E_ARG;
    if (!total(net, run->batch, &packed_needed, &state_needed) ||
        !make_plan(net, run->steps, run->batch, p))
        return FRNN_E_SIZE;
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
    const ptrdiff_t width = (ptrdiff_t)(D * net->hidden_size);
    part_run->steps = steps;
    part_run->begin = begin;
    part_run->x = (const char *)run->x + (ptrdiff_t)begin * run->x_step * itemsize;
    part_run->x_step = run->x_step;
    part_run->x_row = run->x_row;
    for (size_t layer = 0; layer < L; layer++) {
        char *output;
        if (layer < L - 1) {
            output = (char *)run->scratch + p->part + (layer % 2) * p->between;
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
            part_run->y = output + direction * net->hidden_size * part_run->itemsize;
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
        .cell = net->cell,
        .activation = net->activation,
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
    for (size_t begin = 0; begin < run->steps; begin += p.chunk)
        run_layers(net, &p, run, begin, frnn_min(p.chunk, run->steps - begin), &part_run);
    header.position = part_run.position;
    memcpy(run->state, &header, sizeof header);
    return FRNN_OK;
}
