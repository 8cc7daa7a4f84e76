/* SPDX-License-Identifier: MIT
 *
 * Model files: the net that the metadata of a safetensors file describes, and which of its tensors
 * is which id. A part is one layer in one direction.
 */
#include "internal.h"
#include "safetensors.h"

/* ---- The architecture --------------------------------------------------------------------- */

enum { ARCHITECTURE_ROOM = 1024 }; /* characters of JSON, escapes resolved */

enum key {
    KEY_FORMAT,
    KEY_CELL,
    KEY_ACTIVATION,
    KEY_INPUT_SIZE,
    KEY_HIDDEN_SIZE,
    KEY_NUM_LAYERS,
    KEY_BIDIRECTIONAL,
    KEY_BIAS,
    KEY_BATCH_FIRST,
    KEY_COUNT
};

static const struct {
    const char *name;
    enum { NUMBER, BOOL, CELL, ACTIVATION } type;
    int required;
    size_t fallback;
} keys[KEY_COUNT] = {
    [KEY_FORMAT] = {"format", NUMBER, 1, 0},
    [KEY_CELL] = {"cell", CELL, 1, 0},
    [KEY_ACTIVATION] = {"activation", ACTIVATION, 0, FRNN_TANH},
    [KEY_INPUT_SIZE] = {"input_size", NUMBER, 1, 0},
    [KEY_HIDDEN_SIZE] = {"hidden_size", NUMBER, 1, 0},
    [KEY_NUM_LAYERS] = {"num_layers", NUMBER, 0, 1},
    [KEY_BIDIRECTIONAL] = {"bidirectional", BOOL, 0, 0},
    [KEY_BIAS] = {"bias", BOOL, 0, 1},
    [KEY_BATCH_FIRST] = {"batch_first", BOOL, 0, 0},
};

static const char *const activations[FRNN_ACTIVATION_COUNT] = {
    [FRNN_TANH] = "tanh",
    [FRNN_RELU] = "relu",
    [FRNN_IDENTITY] = "identity",
};

/* The enumerator of a cell or an activation, or their number if there is none of that name. */
static size_t cell_named(frnn_span name) {
    size_t cell = 0;
    while (cell < FRNN_CELL_COUNT && !frnn_span_is(name, frnn_cell_get((frnn_cell)cell)->name))
        cell++;
    return cell;
}

static size_t activation_named(frnn_span name) {
    size_t activation = 0;
    while (activation < FRNN_ACTIVATION_COUNT && !frnn_span_is(name, activations[activation]))
        activation++;
    return activation;
}

/* Reads the value of a key; names become enumerators, truth 0 or 1. */
static frnn_status read_value(char *message, frnn_json *json, enum key key, size_t *value) {
    frnn_span name;
    switch (keys[key].type) {
    case NUMBER:
        frnn_json_number(json, value);
        break;
    case BOOL:
        frnn_json_bool(json, value);
        break;
    case CELL:
        if (frnn_json_string(json, &name, 0) && (*value = cell_named(name)) == FRNN_CELL_COUNT)
            return frnn_refuse(message, "fastrnn metadata: 'cell' is %q, which is not known", name);
        break;
    case ACTIVATION:
        if (frnn_json_string(json, &name, 0) &&
            (*value = activation_named(name)) == FRNN_ACTIVATION_COUNT)
            return frnn_refuse(message,
                               "fastrnn metadata: 'activation' is %q, expected "
                               "'tanh', 'relu' or 'identity'",
                               name);
    }
    if (json->why != NULL)
        return frnn_refuse(message, "fastrnn metadata: '%s': %s at byte %z", keys[key].name,
                           json->why, (size_t)(json->at - json->begin));
    return FRNN_OK;
}

/* The values of all keys, from the JSON of the architecture. */
static frnn_status read_values(char *message, frnn_json json, size_t *values) {
    frnn_span name;
    unsigned seen = 0;
    frnn_json_open(&json);
    while (json.why == NULL && frnn_json_key(&json, &name)) {
        unsigned key = 0;
        while (key < KEY_COUNT && !frnn_span_is(name, keys[key].name))
            key++;
        if (key == KEY_COUNT)
            return frnn_refuse(message, "fastrnn metadata: the key %q is not known", name);
        if ((seen >> key & 1) != 0)
            return frnn_refuse(message, "fastrnn metadata: the key %q appears twice", name);
        seen |= 1u << key;
        if (read_value(message, &json, (enum key)key, &values[key]) != FRNN_OK)
            return FRNN_E_FILE;
    }
    if (json.why == NULL)
        frnn_json_end(&json);
    if (json.why != NULL)
        return frnn_refuse(message, "fastrnn metadata, byte %z: %s", (size_t)(json.at - json.begin),
                           json.why);
    for (unsigned key = 0; key < KEY_COUNT; key++) {
        if ((seen >> key & 1) == 0 && keys[key].required)
            return frnn_refuse(message, "fastrnn metadata: the key '%s' is missing",
                               keys[key].name);
        if ((seen >> key & 1) == 0)
            values[key] = keys[key].fallback;
    }
    return FRNN_OK;
}

/* Fills in config, bias and batch_first; config.dtype must be there. */
static frnn_status read_architecture(frnn_model *model, frnn_span architecture) {
    char text[ARCHITECTURE_ROOM];
    size_t size, values[KEY_COUNT];
    frnn_config *net = &model->config;
    if (architecture.at == NULL)
        return frnn_refuse(model->message, "the file has no metadata key 'fastrnn'");
    if (!frnn_json_unescape(architecture, text, sizeof text, &size))
        return frnn_refuse(model->message, "fastrnn metadata: more than %z characters",
                           sizeof text);
    if (read_values(model->message, frnn_json_begin(text, size), values) != FRNN_OK)
        return FRNN_E_FILE;
    if (values[KEY_FORMAT] != 1)
        return frnn_refuse(model->message, "fastrnn metadata: 'format' is %z, expected 1",
                           values[KEY_FORMAT]);
    net->struct_size = sizeof *net;
    net->cell = (frnn_cell)values[KEY_CELL];
    net->activation = (frnn_activation)values[KEY_ACTIVATION];
    net->input_size = values[KEY_INPUT_SIZE];
    net->hidden_size = values[KEY_HIDDEN_SIZE];
    net->num_layers = values[KEY_NUM_LAYERS];
    net->num_directions = values[KEY_BIDIRECTIONAL] ? 2 : 1;
    model->bias = values[KEY_BIAS] && frnn_cell_get(net->cell)->gates > 0;
    model->batch_first = (int)values[KEY_BATCH_FIRST];
    if (frnn_config_check(net) != FRNN_OK)
        return frnn_refuse(model->message,
                           "fastrnn metadata: no net has 'cell' %s, 'activation' %s, 'input_size' "
                           "%z, 'hidden_size' %z, 'num_layers' %z, 'bidirectional' %s",
                           frnn_cell_get(net->cell)->name, activations[net->activation],
                           net->input_size, net->hidden_size, net->num_layers,
                           net->num_directions == 2 ? "true" : "false");
    return FRNN_OK;
}

/* ---- Which tensor is which weight --------------------------------------------------------- */

typedef enum role { WEIGHT_IH, WEIGHT_HH, BIAS_IH, BIAS_HH, ALPHA, ROLE_COUNT } role;

/* Followed by the number of the layer and, in the second direction, by _reverse. */
static const char *const stems[ROLE_COUNT] = {"weight_ih_l", "weight_hh_l", "bias_ih_l",
                                              "bias_hh_l", "alpha_l"};

/* A weight of the net: the pointer number `role` in the frnn_weights of one part. */
typedef struct weight_id {
    role role;
    size_t layer, direction;
} weight_id;

static int has_role(const frnn_model *model, role r) {
    const frnn_cell_info *cell = frnn_cell_get(model->config.cell);
    if (r == ALPHA)
        return cell->alpha;
    return cell->gates > 0 && (r < BIAS_IH || model->bias);
}

/* The weights of each part are numbered in the order of the roles that it has. */
static size_t count_roles(const frnn_model *model, role end) {
    size_t count = 0;
    for (role r = 0; r < end; r++)
        count += has_role(model, r) != 0;
    return count;
}

/* 1 if the net has a weight of that name. */
static int weight_named(const frnn_model *model, frnn_span name, weight_id *id) {
    const frnn_config *net = &model->config;
    id->layer = id->direction = 0;
    if (frnn_cell_get(net->cell)->gates == 0) {
        id->role = ALPHA;
        return frnn_span_is(name, "alpha");
    }
    for (role r = 0; r < ROLE_COUNT; r++) {
        size_t stem = 0;
        while (stem < name.size && stems[r][stem] != '\0' && name.at[stem] == stems[r][stem])
            stem++;
        if (stems[r][stem] != '\0' || !has_role(model, r))
            continue;
        frnn_json rest = frnn_json_begin(name.at + stem, name.size - stem);
        if (!frnn_json_digits(&rest, &id->layer))
            return 0;
        frnn_span suffix = {rest.at, (size_t)(rest.end - rest.at)};
        id->role = r;
        id->direction = suffix.size > 0;
        return (suffix.size == 0 || frnn_span_is(suffix, "_reverse")) &&
               id->layer < net->num_layers && id->direction < net->num_directions;
    }
    return 0;
}

/* The shape that a weight must have: its rank, or 0 if it does not fit in size_t. */
static size_t weight_shape(const frnn_config *net, const weight_id *id, size_t *shape) {
    shape[0] = net->hidden_size;
    if (id->role == ALPHA)
        return 1;
    if (!frnn_mul(&shape[0], frnn_cell_get(net->cell)->gates))
        return 0;
    shape[1] = net->hidden_size;
    if (id->role == WEIGHT_HH)
        return 2;
    if (id->role != WEIGHT_IH)
        return 1;
    if (id->layer == 0)
        shape[1] = net->input_size;
    else if (!frnn_mul(&shape[1], net->num_directions))
        return 0;
    return 2;
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
        return frnn_refuse(message, "tensor %q: 'hidden_size' %z is too large", name,
                           net->hidden_size);
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
    size_t per_part = count_roles(model, ROLE_COUNT), first = 0;
    frnn_walk walk;
    frnn_tensor tensor;
    weight_id id;
    if (frnn_walk_begin(&walk, model->bytes, model->size, model->message) != FRNN_OK)
        return FRNN_E_FILE;
    while (frnn_walk_next(&walk, &tensor) > 0) {
        if (check_tensor(model, model->message, &tensor, &id) != FRNN_OK)
            return FRNN_E_FILE;
        if (id.role == ALPHA && check_alpha(model, &tensor) != FRNN_OK)
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
    if (read_dtype(model) != FRNN_OK || read_architecture(model, architecture) != FRNN_OK ||
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

static const void **weight_pointer(frnn_weights *weights, role r) {
    switch (r) {
    case WEIGHT_IH:
        return &weights->weight_ih;
    case WEIGHT_HH:
        return &weights->weight_hh;
    case BIAS_IH:
        return &weights->bias_ih;
    case BIAS_HH:
        return &weights->bias_hh;
    default:
        return &weights->alpha;
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
    for (role r = 0; r < ROLE_COUNT; r++) {
        if (has_role(model, r) && *weight_pointer(weights, r) == NULL)
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
