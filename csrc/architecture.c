/* SPDX-License-Identifier: MIT */
#include "architecture.h"

#include "internal.h"

enum { ARCHITECTURE_ROOM = 1024 }; /* characters of JSON, escapes resolved */

/* ---- Keys --------------------------------------------------------------------------------- */

/* Options come last. */
enum key {
    KEY_FORMAT,
    KEY_CELL,
    KEY_INPUT_SIZE,
    KEY_HIDDEN_SIZE,
    KEY_NUM_LAYERS,
    KEY_BIDIRECTIONAL,
    KEY_BIAS,
    KEY_BATCH_FIRST,
    KEY_GO_BACKWARDS,
    KEY_PROJ_SIZE,
    KEY_PEEPHOLE,
    KEY_CLIP,
    KEY_CELL_CLIP,
    KEY_ACTIVATION,
    KEY_GATE_ACTIVATION,
    KEY_OUTPUT_ACTIVATION,
    KEY_COUNT,
    KEY_OPTIONS = KEY_PROJ_SIZE
};

static const struct {
    const char *name;
    enum { NUMBER, BOOL, CELL, REAL, FUNCTION } type;
    int required;
    size_t fallback; /* of numbers and truths; options are those of the cell */
} keys[KEY_COUNT] = {
    [KEY_FORMAT] = {"format", NUMBER, 1, 0},
    [KEY_CELL] = {"cell", CELL, 1, 0},
    [KEY_INPUT_SIZE] = {"input_size", NUMBER, 1, 0},
    [KEY_HIDDEN_SIZE] = {"hidden_size", NUMBER, 1, 0},
    [KEY_NUM_LAYERS] = {"num_layers", NUMBER, 0, 1},
    [KEY_BIDIRECTIONAL] = {"bidirectional", BOOL, 0, 0},
    [KEY_BIAS] = {"bias", BOOL, 0, 1},
    [KEY_BATCH_FIRST] = {"batch_first", BOOL, 0, 0},
    [KEY_GO_BACKWARDS] = {"go_backwards", BOOL, 0, 0},
    [KEY_PROJ_SIZE] = {"proj_size", NUMBER, 0, 0},
    [KEY_PEEPHOLE] = {"peephole", BOOL, 0, 0},
    [KEY_CLIP] = {"clip", REAL, 0, 0},
    [KEY_CELL_CLIP] = {"cell_clip", REAL, 0, 0},
    [KEY_ACTIVATION] = {"activation", FUNCTION, 0, 0},
    [KEY_GATE_ACTIVATION] = {"gate_activation", FUNCTION, 0, 0},
    [KEY_OUTPUT_ACTIVATION] = {"output_activation", FUNCTION, 0, 0},
};

/* The value of a key, in the member of its type. */
typedef struct value {
    size_t number; /* also truth, 0 or 1, and the enumerator of a cell */
    double real;
    frnn_function function;
    frnn_span text; /* as it stands in the JSON, strings without quotes; at == NULL: it does not */
} value;

/* ---- Values ------------------------------------------------------------------------------- */

static frnn_status refuse_value(char *message, enum key key, frnn_span text, const char *why) {
    return frnn_refuse(message, "fastrnn metadata: '%s' is %q%s", keys[key].name, text, why);
}

static frnn_status read_cell(char *message, value *v) {
    v->number = 0;
    while (!frnn_span_is(v->text, frnn_cell_get((frnn_cell)v->number)->name)) {
        if (++v->number == FRNN_CELL_COUNT)
            return refuse_value(message, KEY_CELL, v->text, ", which is not known");
    }
    return FRNN_OK;
}

static frnn_status read_real(char *message, enum key key, value *v) {
    frnn_json text = frnn_json_begin(v->text.at, v->text.size);
    if (frnn_json_hex(&text, &v->real) && text.at == text.end)
        return FRNN_OK;
    return refuse_value(message, key, v->text, ", expected a number like 0x1.8p+1");
}

/* A name, followed by its parameters in parentheses if it has any. */
static frnn_status read_function(char *message, enum key key, value *v) {
    static const char *const why[] = {", expected no parameters",
                                      ", expected one parameter like (0x1.8p+1)",
                                      ", expected two parameters like (0x1.8p+1, 0x0.0p+0)"};
    frnn_span name = {v->text.at, 0};
    double parameters[2] = {0, 0};
    int kind = 0;
    while (name.size < v->text.size && name.at[name.size] != '(')
        name.size++;
    while (!frnn_span_is(name, frnn_activation_get((frnn_activation)kind)->name)) {
        if (++kind == FRNN_ACTIVATION_COUNT)
            return refuse_value(message, key, v->text, ", which is no activation");
    }
    const size_t count = frnn_activation_get((frnn_activation)kind)->parameters;
    frnn_json rest = frnn_json_begin(name.at + name.size, v->text.size - name.size);
    if (!frnn_json_parameters(&rest, parameters, count) || rest.at != rest.end)
        return refuse_value(message, key, v->text, why[count]);
    v->function = (frnn_function){(frnn_activation)kind, parameters[0], parameters[1]};
    return FRNN_OK;
}

static frnn_status read_value(char *message, frnn_json *json, enum key key, value *v) {
    const char *begin = json->at;
    switch (keys[key].type) {
    case NUMBER:
        frnn_json_number(json, &v->number);
        break;
    case BOOL:
        frnn_json_bool(json, &v->number);
        break;
    default:
        frnn_json_string(json, &v->text, 0);
    }
    if (json->why != NULL)
        return frnn_refuse(message, "fastrnn metadata: '%s': %s at byte %z", keys[key].name,
                           json->why, (size_t)(json->at - json->begin));
    switch (keys[key].type) {
    case CELL:
        return read_cell(message, v);
    case REAL:
        return read_real(message, key, v);
    case FUNCTION:
        return read_function(message, key, v);
    default: /* words and numbers, which spaces may precede */
        while (*begin <= ' ')
            begin++;
        v->text = (frnn_span){begin, (size_t)(json->at - begin)};
        return FRNN_OK;
    }
}

/* The values of all keys, from the JSON of the architecture. */
static frnn_status read_values(char *message, frnn_json json, value *values) {
    frnn_span name;
    memset(values, 0, KEY_COUNT * sizeof *values);
    frnn_json_open(&json);
    while (json.why == NULL && frnn_json_key(&json, &name)) {
        unsigned key = 0;
        while (key < KEY_COUNT && !frnn_span_is(name, keys[key].name))
            key++;
        if (key == KEY_COUNT)
            return frnn_refuse(message, "fastrnn metadata: the key %q is not known", name);
        if (values[key].text.at != NULL)
            return frnn_refuse(message, "fastrnn metadata: the key %q appears twice", name);
        if (read_value(message, &json, (enum key)key, &values[key]) != FRNN_OK)
            return FRNN_E_FILE;
    }
    if (json.why == NULL)
        frnn_json_end(&json);
    if (json.why != NULL)
        return frnn_refuse(message, "fastrnn metadata, byte %z: %s", (size_t)(json.at - json.begin),
                           json.why);
    for (unsigned key = 0; key < KEY_COUNT; key++) {
        if (values[key].text.at != NULL)
            continue;
        if (keys[key].required)
            return frnn_refuse(message, "fastrnn metadata: the key '%s' is missing",
                               keys[key].name);
        values[key].number = keys[key].fallback;
    }
    return FRNN_OK;
}

/* ---- The net ------------------------------------------------------------------------------ */

static void set_option(frnn_config *net, enum key key, const value *v) {
    switch (key) {
    case KEY_PROJ_SIZE:
        net->proj_size = v->number;
        break;
    case KEY_PEEPHOLE:
        net->peephole = (int)v->number;
        break;
    case KEY_CLIP:
        net->clip = v->real;
        break;
    case KEY_CELL_CLIP:
        net->cell_clip = v->real;
        break;
    case KEY_ACTIVATION:
        net->activation = v->function;
        break;
    case KEY_GATE_ACTIVATION:
        net->gate_activation = v->function;
        break;
    default:
        net->output_activation = v->function;
    }
}

/* Options are set one by one, to see which of them no net of that cell has. */
static frnn_status set_config(frnn_model *model, const value *values) {
    const frnn_cell cell = (frnn_cell)values[KEY_CELL].number;
    frnn_config net =
        FRNN_CONFIG(cell, values[KEY_INPUT_SIZE].number, values[KEY_HIDDEN_SIZE].number);
    net.dtype = model->config.dtype;
    net.num_layers = values[KEY_NUM_LAYERS].number;
    net.num_directions = values[KEY_BIDIRECTIONAL].number ? 2 : 1;
    if (frnn_config_check(&net) != FRNN_OK)
        return frnn_refuse(model->message,
                           "fastrnn metadata: no net has 'cell' %s, 'input_size' %z, "
                           "'hidden_size' %z, 'num_layers' %z, 'bidirectional' %s",
                           frnn_cell_get(cell)->name, net.input_size, net.hidden_size,
                           net.num_layers, net.num_directions == 2 ? "true" : "false");
    for (unsigned key = KEY_OPTIONS; key < KEY_COUNT; key++) {
        if (values[key].text.at == NULL)
            continue;
        set_option(&net, (enum key)key, &values[key]);
        if (frnn_config_check(&net) != FRNN_OK)
            return frnn_refuse(model->message, "fastrnn metadata: '%s' is %q, which no %s net has",
                               keys[key].name, values[key].text, frnn_cell_get(cell)->name);
    }
    model->config = net;
    return FRNN_OK;
}

frnn_status frnn_architecture_read(frnn_model *model, frnn_span architecture) {
    char text[ARCHITECTURE_ROOM];
    size_t size;
    value values[KEY_COUNT];
    if (architecture.at == NULL)
        return frnn_refuse(model->message, "the file has no metadata key 'fastrnn'");
    if (!frnn_json_unescape(architecture, text, sizeof text, &size))
        return frnn_refuse(model->message, "fastrnn metadata: more than %z characters",
                           sizeof text);
    if (read_values(model->message, frnn_json_begin(text, size), values) != FRNN_OK)
        return FRNN_E_FILE;
    if (values[KEY_FORMAT].number != 1)
        return frnn_refuse(model->message, "fastrnn metadata: 'format' is %z, expected 1",
                           values[KEY_FORMAT].number);
    if (set_config(model, values) != FRNN_OK)
        return FRNN_E_FILE;
    model->bias = values[KEY_BIAS].number && frnn_cell_get(model->config.cell)->gates > 0;
    model->batch_first = (int)values[KEY_BATCH_FIRST].number;
    model->go_backwards = (int)values[KEY_GO_BACKWARDS].number;
    if (model->go_backwards && model->config.num_directions == 2)
        return frnn_refuse(model->message,
                           "fastrnn metadata: both 'go_backwards' and 'bidirectional' are true");
    return FRNN_OK;
}
