/* SPDX-License-Identifier: MIT
 *
 * Model files: which tensor of a safetensors file is which weight of the net that its metadata
 * describes. A part is one layer in one direction.
 */
#include "architecture.h"
#include "internal.h"

/* ---- Which tensor is which weight --------------------------------------------------------- */

/* Which pointer of a frnn_weights: first those that FRNN_WEIGHT_COUNT counts, then the matrices of
 * the delays after the first, then the mask. */
enum {
    ROLE_DELAYED = FRNN_WEIGHT_COUNT,
    ROLE_MASK = ROLE_DELAYED + FRNN_MAX_DELAYS - 1,
    ROLE_COUNT
};

/* The name of a tensor is that of its role, the number of the layer, in the second direction
 * _reverse, and of a delay after the first _d and its whole part. */
static const char *const stems[ROLE_COUNT] = {
    [FRNN_WEIGHT_IH] = "weight_ih_l", [FRNN_WEIGHT_HH] = "weight_hh_l",
    [FRNN_BIAS_IH] = "bias_ih_l",     [FRNN_BIAS_HH] = "bias_hh_l",
    [FRNN_ALPHA] = "alpha_l",         [FRNN_WEIGHT_HR] = "weight_hr_l",
    [FRNN_PEEPHOLE] = "peephole_l",   [ROLE_MASK] = "recurrent_mask_l"};

static int is_delayed(int role) {
    return role >= ROLE_DELAYED && role < ROLE_MASK;
}

static const char *stem_of(int role) {
    return stems[is_delayed(role) ? FRNN_WEIGHT_HH : role];
}

static size_t delay_of(const frnn_config *net, int role) {
    return net->delays[role - ROLE_DELAYED + 1];
}

/* A weight of the net: one pointer in the frnn_weights of one part. */
typedef struct weight_id {
    int role;
    size_t layer, direction;
} weight_id;

static int has_role(const frnn_model *model, int role) {
    const frnn_config *net = &model->config;
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const int gated = cell->gates > 0, recurrent = gated && net->cell != FRNN_CELL_MINGRU;
    switch (role) {
    case FRNN_WEIGHT_IH:
        return gated;
    case FRNN_WEIGHT_HH:
        return recurrent;
    case FRNN_BIAS_IH:
        return gated && model->bias;
    case FRNN_BIAS_HH:
        return recurrent && model->bias;
    case FRNN_ALPHA:
        return cell->alpha;
    case FRNN_WEIGHT_HR:
        return net->proj_size > 0;
    case FRNN_PEEPHOLE:
        return net->peephole;
    case ROLE_MASK:
        return recurrent && net->mask_blocks > 0;
    default:
        return recurrent && !net->dilated && (size_t)(role - ROLE_DELAYED) + 1 < net->num_delays;
    }
}

/* The weights of each part are numbered in the order of the roles that it has. */
static size_t count_roles(const frnn_model *model, int end) {
    size_t count = 0;
    for (int role = 0; role < end; role++)
        count += has_role(model, role) != 0;
    return count;
}

/* 1 if the net has a weight of that name. */
static int weight_named(const frnn_model *model, frnn_span name, weight_id *id) {
    const frnn_config *net = &model->config;
    id->layer = id->direction = 0;
    if (frnn_cell_get(net->cell)->gates == 0) {
        id->role = FRNN_ALPHA;
        return frnn_span_is(name, "alpha");
    }
    for (int role = 0; role < ROLE_COUNT; role++) {
        frnn_json rest = frnn_json_begin(name.at, name.size);
        size_t delay;
        if (!has_role(model, role) || !frnn_json_word(&rest, stem_of(role)) ||
            !frnn_json_digits(&rest, &id->layer))
            continue;
        id->role = role;
        id->direction = (size_t)frnn_json_word(&rest, "_reverse");
        if (is_delayed(role) && (!frnn_json_word(&rest, "_d") || !frnn_json_digits(&rest, &delay) ||
                                 delay != delay_of(net, role)))
            continue;
        if (rest.at == rest.end)
            return id->layer < net->num_layers && id->direction < net->num_directions;
    }
    return 0;
}

/* The shape that a weight must have: its rank, or 0 if it does not fit in size_t. */
static size_t weight_shape(const frnn_config *net, const weight_id *id, size_t *shape) {
    const size_t output = frnn_output_size(net);
    size_t rows = frnn_cell_get(net->cell)->gates, input = net->num_directions;
    if (id->role == FRNN_PEEPHOLE)
        rows--; /* all but the candidate's */
    if (id->layer == 0)
        input = net->input_size;
    else if (!frnn_mul(&input, output))
        return 0;
    if (!frnn_mul(&rows, net->hidden_size))
        return 0;
    shape[0] = rows;
    switch (id->role) {
    case FRNN_WEIGHT_IH:
        shape[1] = input;
        return 2;
    case FRNN_ALPHA:
        shape[0] = net->hidden_size;
        return 1;
    case FRNN_WEIGHT_HR:
        shape[0] = output;
        shape[1] = net->hidden_size;
        return 2;
    case ROLE_MASK:
        shape[0] = net->hidden_size;
        shape[1] = output;
        return 2;
    case FRNN_BIAS_IH:
    case FRNN_BIAS_HH:
    case FRNN_PEEPHOLE:
        return 1;
    default: /* weight_hh, of any delay */
        shape[1] = output;
        return 2;
    }
}

static const char *const dtypes[FRNN_DTYPE_COUNT] = {[FRNN_F32] = "F32", [FRNN_F64] = "F64"};

static int is_mask(const frnn_tensor *tensor) {
    frnn_json name = frnn_json_begin(tensor->name, tensor->name_size);
    return frnn_json_word(&name, stems[ROLE_MASK]);
}

/* The dtype of the net is that of its first tensor that is no mask; without one, weights are
 * missing anyway. */
static frnn_status read_dtype(frnn_model *model) {
    frnn_walk walk;
    frnn_tensor tensor;
    if (frnn_walk_begin(&walk, model->bytes, model->size, model->message) != FRNN_OK)
        return FRNN_E_FILE;
    do {
        if (frnn_walk_next(&walk, &tensor) <= 0)
            return FRNN_OK;
    } while (is_mask(&tensor));
    for (size_t i = 0; i < FRNN_DTYPE_COUNT; i++) {
        if (frnn_span_is(frnn_tensor_dtype(&tensor), dtypes[i])) {
            model->config.dtype = (frnn_dtype)i;
            return FRNN_OK;
        }
    }
    return frnn_refuse(model->message, "tensor %q has dtype %q, expected 'F32' or 'F64'",
                       frnn_tensor_name(&tensor), frnn_tensor_dtype(&tensor));
}

/* One mask means that there are all: mask_blocks is 1 until their blocks have been counted. */
static frnn_status find_masks(frnn_model *model) {
    frnn_walk walk;
    frnn_tensor tensor;
    if (frnn_walk_begin(&walk, model->bytes, model->size, model->message) != FRNN_OK)
        return FRNN_E_FILE;
    while (frnn_walk_next(&walk, &tensor) > 0)
        model->config.mask_blocks |= (size_t)is_mask(&tensor);
    return FRNN_OK;
}

/* Says which weight a tensor is, if it is one and has the dtype and shape of that. */
static frnn_status check_tensor(const frnn_model *model, char *message, const frnn_tensor *tensor,
                                weight_id *id) {
    const frnn_config *net = &model->config;
    frnn_span name = frnn_tensor_name(tensor);
    size_t shape[2];
    if (!weight_named(model, name, id))
        return frnn_refuse(message, "tensor %q does not belong to the net", name);
    const int mask = id->role == ROLE_MASK;
    const char *const dtype = mask ? "BOOL" : dtypes[net->dtype];
    if (!frnn_span_is(frnn_tensor_dtype(tensor), dtype))
        return frnn_refuse(message, "tensor %q has dtype %q, expected '%s'%s", name,
                           frnn_tensor_dtype(tensor), dtype, mask ? "" : " like the first weight");
    size_t rank = weight_shape(net, id, shape);
    if (rank == 0)
        return frnn_refuse(message, "tensor %q: 'hidden_size' %z or 'proj_size' %z is too large",
                           name, net->hidden_size, net->proj_size);
    if (tensor->rank != rank || memcmp(tensor->shape, shape, rank * sizeof *shape) != 0)
        return frnn_refuse(message, "tensor %q has shape %v, expected %v", name, tensor->shape,
                           tensor->rank, shape, rank);
    return FRNN_OK;
}

/* ---- The weights of a part ---------------------------------------------------------------- */

static size_t part_of(const frnn_model *model, const weight_id *id) {
    return id->layer * model->config.num_directions + id->direction;
}

static void set_weight(frnn_weights *weights, int role, const void *data) {
    switch (role) {
    case FRNN_WEIGHT_IH:
        weights->weight_ih = data;
        break;
    case FRNN_WEIGHT_HH:
        weights->weight_hh = data;
        break;
    case FRNN_BIAS_IH:
        weights->bias_ih = data;
        break;
    case FRNN_BIAS_HH:
        weights->bias_hh = data;
        break;
    case FRNN_ALPHA:
        weights->alpha = data;
        break;
    case FRNN_WEIGHT_HR:
        weights->weight_hr = data;
        break;
    case FRNN_PEEPHOLE:
        weights->peephole = data;
        break;
    case ROLE_MASK:
        weights->mask = data;
        break;
    default:
        weights->delayed[role - ROLE_DELAYED] = data;
    }
}

/* Those of part number `index`. */
static frnn_status find_weights(const frnn_model *model, size_t index, frnn_weights *weights) {
    frnn_walk walk;
    frnn_tensor tensor;
    weight_id id;
    uint32_t found = 0; /* a bit for each role */
    if (frnn_walk_begin(&walk, model->bytes, model->size, NULL) != FRNN_OK)
        return FRNN_E_FILE;
    memset(weights, 0, sizeof *weights);
    while (frnn_walk_next(&walk, &tensor) > 0) {
        if (check_tensor(model, NULL, &tensor, &id) != FRNN_OK)
            return FRNN_E_FILE;
        if (part_of(model, &id) == index) {
            set_weight(weights, id.role, tensor.data);
            found |= (uint32_t)1 << id.role;
        }
    }
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (has_role(model, role) && (found >> role & 1) == 0)
            return FRNN_E_FILE;
    }
    return FRNN_OK;
}

/* ---- What weights may hold ---------------------------------------------------------------- */

static double element(const frnn_tensor *tensor, frnn_dtype dtype, size_t i) {
    const char *at = (const char *)tensor->data + i * frnn_itemsize(dtype);
    float single;
    double number;
    if (dtype == FRNN_F64) {
        memcpy(&number, at, sizeof number);
        return number;
    }
    memcpy(&single, at, sizeof single);
    return single;
}

/* Every retention must be in [0, 1]. */
static frnn_status check_alpha(frnn_model *model, const frnn_tensor *tensor) {
    for (size_t i = 0; i < tensor->shape[0]; i++) {
        const double alpha = element(tensor, model->config.dtype, i);
        if (!(alpha >= 0 && alpha <= 1)) /* so that NaN is refused */
            return frnn_refuse(model->message, "tensor %q: value %z is not in [0, 1]",
                               frnn_tensor_name(tensor), i);
    }
    return FRNN_OK;
}

/* Every value of a mask must be 0 or 1, and some of them 1: of RNN, whose units have no other
 * memory, one for each unit. Counts the blocks. */
static frnn_status check_mask(frnn_model *model, const frnn_tensor *tensor) {
    frnn_config *net = &model->config;
    const frnn_span name = frnn_tensor_name(tensor);
    const unsigned char *at = tensor->data;
    const size_t units = tensor->shape[0], outputs = tensor->shape[1];
    const size_t blocks = frnn_mask_blocks(at, units, outputs);
    for (size_t i = 0; i < tensor->data_size; i++) {
        if (at[i] > 1)
            return frnn_refuse(model->message, "tensor %q: value %z is not 0 or 1", name, i);
    }
    if (blocks == 0)
        return frnn_refuse(model->message, "tensor %q: no unit reads any", name);
    for (size_t unit = 0; net->cell == FRNN_CELL_RNN && unit < units; unit++, at += outputs) {
        if (frnn_mask_blocks(at, 1, outputs) == 0)
            return frnn_refuse(model->message, "tensor %q: unit %z reads no unit", name, unit);
    }
    net->mask_blocks = frnn_max(net->mask_blocks, blocks);
    return FRNN_OK;
}

/* The period of a unit. */
static size_t period_of(const frnn_config *net, size_t unit) {
    size_t group = 0;
    while (group + 1 < net->num_groups && unit >= net->group_sizes[group])
        unit -= net->group_sizes[group++];
    return net->periods[group];
}

/* A recurrent matrix must be 0 where there is no connection, so that readers that look at the mask
 * and the clocks and readers that do not cannot differ. mask may be NULL. */
static frnn_status check_connections(frnn_model *model, const frnn_tensor *tensor,
                                     const unsigned char *mask) {
    const frnn_config *net = &model->config;
    const size_t outputs = tensor->shape[1];
    for (size_t row = 0; row < tensor->shape[0]; row++) {
        const size_t unit = row % net->hidden_size;
        const size_t period = net->full ? 0 : period_of(net, unit);
        size_t group = 0, end = net->group_sizes[0];
        for (size_t column = 0; column < outputs; column++) {
            if (column == end && group + 1 < net->num_groups)
                end += net->group_sizes[++group];
            const int masked = mask != NULL && !mask[unit * outputs + column];
            if (!masked && net->periods[group] >= period)
                continue;
            if (element(tensor, net->dtype, row * outputs + column) != 0) { /* also a NaN */
                const size_t place[] = {row, column};
                return frnn_refuse(model->message, "tensor %q: element %v is not 0, but %s",
                                   frnn_tensor_name(tensor), place, (size_t)2,
                                   masked ? "outside the mask"
                                          : "would connect a group to a faster one");
            }
        }
    }
    return FRNN_OK;
}

/* The same for all recurrent matrices. The weights are known to be there. */
static frnn_status check_structure(frnn_model *model) {
    const frnn_config *net = &model->config;
    const int clocks = net->num_groups > 0 && !net->full;
    if (!clocks && net->mask_blocks == 0)
        return FRNN_OK;
    for (size_t part = 0; part < net->num_layers * net->num_directions; part++) {
        frnn_weights weights;
        frnn_walk walk;
        frnn_tensor tensor;
        weight_id id;
        if (find_weights(model, part, &weights) != FRNN_OK ||
            frnn_walk_begin(&walk, model->bytes, model->size, model->message) != FRNN_OK)
            return FRNN_E_FILE;
        while (frnn_walk_next(&walk, &tensor) > 0) {
            if (weight_named(model, frnn_tensor_name(&tensor), &id) &&
                part_of(model, &id) == part && (id.role == FRNN_WEIGHT_HH || is_delayed(id.role)) &&
                check_connections(model, &tensor, weights.mask) != FRNN_OK)
                return FRNN_E_FILE;
        }
    }
    return FRNN_OK;
}

/* ---- All the weights ---------------------------------------------------------------------- */

/* Checks that the tensors are exactly the weights of the net. Names are distinct, so each tensor
 * that is a weight is another one, and of FRNN_MODEL_MAX_TENSORS + 1 weights one is missing if
 * any is: a bit for each of those tells which, whatever num_layers says. */
static frnn_status check_weights(frnn_model *model) {
    const frnn_config *net = &model->config;
    unsigned char found[FRNN_MODEL_MAX_TENSORS / 8 + 1] = {0};
    size_t per_part = count_roles(model, ROLE_COUNT), first = 0;
    frnn_walk walk;
    frnn_tensor tensor;
    weight_id id;
    if (frnn_walk_begin(&walk, model->bytes, model->size, model->message) != FRNN_OK)
        return FRNN_E_FILE;
    while (frnn_walk_next(&walk, &tensor) > 0) {
        if (check_tensor(model, model->message, &tensor, &id) != FRNN_OK)
            return FRNN_E_FILE;
        if ((id.role == FRNN_ALPHA && check_alpha(model, &tensor) != FRNN_OK) ||
            (id.role == ROLE_MASK && check_mask(model, &tensor) != FRNN_OK))
            return FRNN_E_FILE;
        if (id.layer > FRNN_MODEL_MAX_TENSORS)
            continue;
        size_t number = part_of(model, &id) * per_part + count_roles(model, id.role);
        if (number <= FRNN_MODEL_MAX_TENSORS)
            found[number / 8] |= (unsigned char)(1u << number % 8);
    }
    while (found[first / 8] >> first % 8 & 1)
        first++;
    id.layer = first / per_part / net->num_directions;
    id.direction = first / per_part % net->num_directions;
    if (id.layer == net->num_layers)
        return FRNN_OK;
    if (frnn_cell_get(net->cell)->gates == 0)
        return frnn_refuse(model->message, "tensor 'alpha' is missing");
    id.role = 0;
    while (!has_role(model, id.role) || count_roles(model, id.role) < first % per_part)
        id.role++;
    const char *const suffix = id.direction > 0 ? "_reverse" : "";
    if (is_delayed(id.role))
        return frnn_refuse(model->message, "tensor '%s%z%s_d%z' is missing", stem_of(id.role),
                           id.layer, suffix, delay_of(net, id.role));
    return frnn_refuse(model->message, "tensor '%s%z%s' is missing", stem_of(id.role), id.layer,
                       suffix);
}

/* ---- Opening ------------------------------------------------------------------------------ */

static int is_little_endian(void) {
    const uint16_t one = 1;
    unsigned char first;
    memcpy(&first, &one, 1);
    return first == 1;
}

static frnn_status open_tensors(frnn_model *model, const void *bytes, size_t size,
                                frnn_span *architecture) {
    if (model == NULL)
        return FRNN_E_ARG;
    memset(model, 0, sizeof *model);
    if (bytes == NULL) {
        frnn_refuse(model->message, "there is no file: bytes is NULL");
        return FRNN_E_ARG;
    }
    if (!is_little_endian())
        return frnn_refuse(model->message, "model files need a little-endian machine");
    if (frnn_safetensors_check(bytes, size, model->message, &model->num_tensors, architecture) !=
        FRNN_OK)
        return FRNN_E_FILE;
    model->bytes = bytes;
    model->size = size;
    return FRNN_OK;
}

frnn_status frnn_model_open_tensors(frnn_model *model, const void *bytes, size_t size) {
    frnn_span ignored;
    return open_tensors(model, bytes, size, &ignored);
}

/* Leaves nothing but the message of a model that was refused, so that it cannot be used. */
static frnn_status close_refused(frnn_model *model) {
    char message[FRNN_MESSAGE_SIZE];
    memcpy(message, model->message, sizeof message);
    memset(model, 0, sizeof *model);
    memcpy(model->message, message, sizeof message);
    return FRNN_E_FILE;
}

frnn_status frnn_model_open(frnn_model *model, const void *bytes, size_t size) {
    frnn_span architecture;
    frnn_status status = open_tensors(model, bytes, size, &architecture);
    if (status != FRNN_OK)
        return status;
    if (read_dtype(model) != FRNN_OK || frnn_architecture_read(model, architecture) != FRNN_OK ||
        find_masks(model) != FRNN_OK || check_weights(model) != FRNN_OK ||
        check_structure(model) != FRNN_OK)
        return close_refused(model);
    return FRNN_OK;
}

/* ---- Using -------------------------------------------------------------------------------- */

frnn_status frnn_model_tensor(const frnn_model *model, size_t index, frnn_tensor *tensor) {
    frnn_walk walk;
    if (model == NULL || tensor == NULL || index >= model->num_tensors)
        return FRNN_E_ARG;
    if (frnn_walk_begin(&walk, model->bytes, model->size, NULL) != FRNN_OK)
        return FRNN_E_FILE;
    do {
        if (frnn_walk_next(&walk, tensor) <= 0)
            return FRNN_E_FILE;
    } while (index-- > 0);
    return FRNN_OK;
}

frnn_status frnn_model_weights(const frnn_model *model, size_t layer, size_t direction,
                               frnn_weights *weights) {
    if (model == NULL || weights == NULL || frnn_config_check(&model->config) != FRNN_OK ||
        layer >= model->config.num_layers || direction >= model->config.num_directions)
        return FRNN_E_ARG;
    return find_weights(model, layer * model->config.num_directions + direction, weights);
}

frnn_status frnn_model_pack(const frnn_model *model, void *packed, size_t packed_size) {
    if (model == NULL)
        return FRNN_E_ARG;
    const frnn_config *net = &model->config;
    frnn_status status = frnn_pack_begin(net, packed, packed_size);
    if (status != FRNN_OK)
        return status;
    for (size_t i = 0; i < net->num_layers * net->num_directions; i++) {
        frnn_weights weights;
        status = find_weights(model, i, &weights);
        if (status == FRNN_OK)
            status = frnn_pack_part(net, i, &weights, packed);
        if (status != FRNN_OK)
            return status;
    }
    frnn_pack_end(net, packed);
    return FRNN_OK;
}
