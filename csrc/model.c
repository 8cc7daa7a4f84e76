/* SPDX-License-Identifier: MIT
 *
 * Model files: which tensor of a safetensors file is which weight of the net that its metadata
 * describes. A part is one layer in one direction.
 */
#include "architecture.h"
#include "internal.h"

/* ---- Which tensor is which weight --------------------------------------------------------- */

/* Numbered as in frnn_weights; followed by the number of the layer and, in the second direction, by
 * _reverse. */
static const char *const stems[FRNN_WEIGHT_COUNT] = {
    [FRNN_WEIGHT_IH] = "weight_ih_l", [FRNN_WEIGHT_HH] = "weight_hh_l",
    [FRNN_BIAS_IH] = "bias_ih_l",     [FRNN_BIAS_HH] = "bias_hh_l",
    [FRNN_ALPHA] = "alpha_l",         [FRNN_WEIGHT_HR] = "weight_hr_l",
    [FRNN_PEEPHOLE] = "peephole_l"};

/* A weight of the net: the pointer number `role` in the frnn_weights of one part. */
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
    default:
        return net->peephole;
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
    for (int role = 0; role < FRNN_WEIGHT_COUNT; role++) {
        size_t stem = 0;
        while (stem < name.size && stems[role][stem] != '\0' && name.at[stem] == stems[role][stem])
            stem++;
        if (stems[role][stem] != '\0' || !has_role(model, role))
            continue;
        frnn_json rest = frnn_json_begin(name.at + stem, name.size - stem);
        if (!frnn_json_digits(&rest, &id->layer))
            return 0;
        frnn_span suffix = {rest.at, (size_t)(rest.end - rest.at)};
        id->role = role;
        id->direction = suffix.size > 0;
        return (suffix.size == 0 || frnn_span_is(suffix, "_reverse")) &&
               id->layer < net->num_layers && id->direction < net->num_directions;
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
    case FRNN_WEIGHT_HH:
        shape[1] = output;
        return 2;
    case FRNN_ALPHA:
        shape[0] = net->hidden_size;
        return 1;
    case FRNN_WEIGHT_HR:
        shape[0] = output;
        shape[1] = net->hidden_size;
        return 2;
    default:
        return 1;
    }
}

static const char *const dtypes[FRNN_DTYPE_COUNT] = {[FRNN_F32] = "F32", [FRNN_F64] = "F64"};

/* The dtype of the net is that of its first tensor; without one, weights are missing anyway. */
static frnn_status read_dtype(frnn_model *model) {
    frnn_tensor tensor;
    if (frnn_model_tensor(model, 0, &tensor) != FRNN_OK)
        return FRNN_OK;
    for (size_t i = 0; i < FRNN_DTYPE_COUNT; i++) {
        if (frnn_span_is(frnn_tensor_dtype(&tensor), dtypes[i])) {
            model->config.dtype = (frnn_dtype)i;
            return FRNN_OK;
        }
    }
    return frnn_refuse(model->message, "tensor %q has dtype %q, expected 'F32' or 'F64'",
                       frnn_tensor_name(&tensor), frnn_tensor_dtype(&tensor));
}

/* Says which weight a tensor is, if it is one and has the dtype and shape of that. */
static frnn_status check_tensor(const frnn_model *model, char *message, const frnn_tensor *tensor,
                                weight_id *id) {
    const frnn_config *net = &model->config;
    frnn_span name = frnn_tensor_name(tensor);
    size_t shape[2];
    if (!weight_named(model, name, id))
        return frnn_refuse(message, "tensor %q does not belong to the net", name);
    if (!frnn_span_is(frnn_tensor_dtype(tensor), dtypes[net->dtype]))
        return frnn_refuse(message, "tensor %q has dtype %q, expected '%s' like the first tensor",
                           name, frnn_tensor_dtype(tensor), dtypes[net->dtype]);
    size_t rank = weight_shape(net, id, shape);
    if (rank == 0)
        return frnn_refuse(message, "tensor %q: 'hidden_size' %z or 'proj_size' %z is too large",
                           name, net->hidden_size, net->proj_size);
    if (tensor->rank != rank || memcmp(tensor->shape, shape, rank * sizeof *shape) != 0)
        return frnn_refuse(message, "tensor %q has shape %v, expected %v", name, tensor->shape,
                           tensor->rank, shape, rank);
    return FRNN_OK;
}

/* Every retention must be in [0, 1]. */
static frnn_status check_alpha(frnn_model *model, const frnn_tensor *tensor) {
    size_t itemsize = frnn_itemsize(model->config.dtype);
    const char *at = tensor->data;
    for (size_t i = 0; i < tensor->data_size / itemsize; i++, at += itemsize) {
        float single;
        double alpha;
        if (itemsize == sizeof single) {
            memcpy(&single, at, sizeof single);
            alpha = single;
        } else
            memcpy(&alpha, at, sizeof alpha);
        if (!(alpha >= 0 && alpha <= 1)) /* so that NaN is refused */
            return frnn_refuse(model->message, "tensor %q: value %z is not in [0, 1]",
                               frnn_tensor_name(tensor), i);
    }
    return FRNN_OK;
}

/* Checks that the tensors are exactly the weights of the net. Names are distinct, so each tensor
 * that is a weight is another one, and of FRNN_MODEL_MAX_TENSORS + 1 weights one is missing if
 * any is: a bit for each of those tells which, whatever num_layers says. */
static frnn_status check_weights(frnn_model *model) {
    const frnn_config *net = &model->config;
    unsigned char found[FRNN_MODEL_MAX_TENSORS / 8 + 1] = {0};
    size_t per_part = count_roles(model, FRNN_WEIGHT_COUNT), first = 0;
    frnn_walk walk;
    frnn_tensor tensor;
    weight_id id;
    if (frnn_walk_begin(&walk, model->bytes, model->size, model->message) != FRNN_OK)
        return FRNN_E_FILE;
    while (frnn_walk_next(&walk, &tensor) > 0) {
        if (check_tensor(model, model->message, &tensor, &id) != FRNN_OK)
            return FRNN_E_FILE;
        if (id.role == FRNN_ALPHA && check_alpha(model, &tensor) != FRNN_OK)
            return FRNN_E_FILE;
        if (id.layer > FRNN_MODEL_MAX_TENSORS)
            continue;
        size_t number = (id.layer * net->num_directions + id.direction) * per_part +
                        count_roles(model, id.role);
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
    return frnn_refuse(model->message, "tensor '%s%z%s' is missing", stems[id.role], id.layer,
                       id.direction > 0 ? "_reverse" : "");
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
        check_weights(model) != FRNN_OK)
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

static const void **weight_pointer(frnn_weights *weights, int role) {
    switch (role) {
    case FRNN_WEIGHT_IH:
        return &weights->weight_ih;
    case FRNN_WEIGHT_HH:
        return &weights->weight_hh;
    case FRNN_BIAS_IH:
        return &weights->bias_ih;
    case FRNN_BIAS_HH:
        return &weights->bias_hh;
    case FRNN_ALPHA:
        return &weights->alpha;
    case FRNN_WEIGHT_HR:
        return &weights->weight_hr;
    default:
        return &weights->peephole;
    }
}

/* The weights of part number `index`. */
static frnn_status find_weights(const frnn_model *model, size_t index, frnn_weights *weights) {
    frnn_walk walk;
    frnn_tensor tensor;
    weight_id id;
    if (frnn_walk_begin(&walk, model->bytes, model->size, NULL) != FRNN_OK)
        return FRNN_E_FILE;
    memset(weights, 0, sizeof *weights);
    while (frnn_walk_next(&walk, &tensor) > 0) {
        if (check_tensor(model, NULL, &tensor, &id) != FRNN_OK)
            return FRNN_E_FILE;
        if (id.layer * model->config.num_directions + id.direction == index)
            *weight_pointer(weights, id.role) = tensor.data;
    }
    for (int role = 0; role < FRNN_WEIGHT_COUNT; role++) {
        if (has_role(model, role) && *weight_pointer(weights, role) == NULL)
            return FRNN_E_FILE;
    }
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
