/* SPDX-License-Identifier: MIT */
#include "architecture.h"

#include "internal.h"

enum { ARCHITECTURE_ROOM = 4096 }; /* characters of JSON, escapes resolved */

/* ---- Keys --------------------------------------------------------------------------------- */

/* Options come after the others, and the keys of time structures last. */
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
    KEY_DELAYS,
    KEY_DILATED,
    KEY_PERIODS,
    KEY_GROUP_SIZES,
    KEY_CONNECTIVITY,
    KEY_COUNT,
    KEY_OPTIONS = KEY_PROJ_SIZE,
    KEY_STRUCTURES = KEY_DELAYS
};

static const struct {
    const char *name;
    enum { NUMBER, BOOL, CELL, REAL, FUNCTION, DELAYS, NUMBERS, CONNECTIVITY } type;
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
    [KEY_DELAYS] = {"delays", DELAYS, 0, 0},
    [KEY_DILATED] = {"dilated", BOOL, 0, 0},
    [KEY_PERIODS] = {"periods", NUMBERS, 0, 0},
    [KEY_GROUP_SIZES] = {"group_sizes", NUMBERS, 0, 0},
    [KEY_CONNECTIVITY] = {"connectivity", CONNECTIVITY, 0, 0},
};

/* The value of a key, in the member of its type. */
typedef struct value {
    size_t number; /* also truth, 0 or 1, the enumerator of a cell, the length of a list */
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

static frnn_status read_connectivity(char *message, value *v) {
    v->number = frnn_span_is(v->text, "full");
    if (v->number || frnn_span_is(v->text, "slower"))
        return FRNN_OK;
    return refuse_value(message, KEY_CONNECTIVITY, v->text, ", expected 'slower' or 'full'");
}

/* A list has no number below 1, and one number at least. */
static frnn_status check_list(char *message, enum key key, const value *v, const size_t *numbers) {
    if (v->number == 0)
        return refuse_value(message, key, v->text, ", expected at least one number");
    for (size_t i = 0; i < v->number; i++) {
        if (numbers[i] < 1)
            return refuse_value(message, key, v->text, ", expected numbers from 1 on");
    }
    return FRNN_OK;
}

static frnn_status read_value(char *message, frnn_json *json, enum key key, value *v) {
    const char *begin = json->at;
    size_t list[FRNN_MAX_GROUPS]; /* read once more when it is known what to do with it */
    double fractions[FRNN_MAX_DELAYS];
    switch (keys[key].type) {
    case NUMBER:
        frnn_json_number(json, &v->number);
        break;
    case BOOL:
        frnn_json_bool(json, &v->number);
        break;
    case DELAYS:
        frnn_json_mixed(json, list, fractions, FRNN_MAX_DELAYS, &v->number);
        break;
    case NUMBERS:
        frnn_json_numbers(json, list, FRNN_MAX_GROUPS, &v->number);
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
    case CONNECTIVITY:
        return read_connectivity(message, v);
    default: /* words, numbers and lists, which spaces may precede */
        while (*begin <= ' ')
            begin++;
        v->text = (frnn_span){begin, (size_t)(json->at - begin)};
    }
    if (keys[key].type == DELAYS || keys[key].type == NUMBERS)
        return check_list(message, key, v, list);
    return FRNN_OK;
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

static frnn_status refuse_option(char *message, const frnn_config *net, enum key key,
                                 const value *v) {
    const char *beside = "";
    if (key == KEY_PERIODS && net->num_delays > 0)
        beside = " beside 'delays'";
    else if (key == KEY_PERIODS && net->proj_size > 0)
        beside = " beside 'proj_size'";
    return frnn_refuse(message, "fastrnn metadata: '%s' is %q, which no %s net has%s",
                       keys[key].name, v->text, frnn_cell_get(net->cell)->name, beside);
}

/* Whole parts name the tensors of delays, so that they must differ. */
static frnn_status set_delays(char *message, frnn_config *net, const value *values) {
    const frnn_span text = values[KEY_DELAYS].text, dilated = values[KEY_DILATED].text;
    net->dilated = (int)values[KEY_DILATED].number;
    if (text.at == NULL) {
        if (net->dilated)
            return refuse_value(message, KEY_DILATED, dilated, ", but there are no 'delays'");
        return FRNN_OK;
    }
    frnn_json json = frnn_json_begin(text.at, text.size);
    frnn_json_mixed(&json, net->delays, net->fractions, FRNN_MAX_DELAYS, &net->num_delays);
    if (net->dilated) {
        if (net->num_delays != net->num_layers)
            return refuse_value(message, KEY_DELAYS, text,
                                ", expected as many numbers as there are layers");
        return FRNN_OK;
    }
    for (size_t i = 1; i < net->num_delays; i++) {
        if (net->delays[i] <= net->delays[i - 1])
            return refuse_value(message, KEY_DELAYS, text,
                                ", expected numbers whose whole parts ascend");
    }
    if (net->num_delays == 1 && net->delays[0] == 1 && net->fractions[0] == 0)
        net->num_delays = net->delays[0] = 0; /* what every net has */
    return FRNN_OK;
}

static frnn_status set_groups(char *message, frnn_config *net, const value *values) {
    static const char no_periods[] = ", but there are no 'periods'";
    const frnn_span periods = values[KEY_PERIODS].text, sizes = values[KEY_GROUP_SIZES].text;
    size_t count;
    net->full = (int)values[KEY_CONNECTIVITY].number;
    if (periods.at == NULL) {
        if (sizes.at != NULL)
            return refuse_value(message, KEY_GROUP_SIZES, sizes, no_periods);
        if (net->full)
            return refuse_value(message, KEY_CONNECTIVITY, values[KEY_CONNECTIVITY].text,
                                no_periods);
        return FRNN_OK;
    }
    if (sizes.at == NULL)
        return refuse_value(message, KEY_PERIODS, periods, ", but there are no 'group_sizes'");
    frnn_json json = frnn_json_begin(periods.at, periods.size);
    frnn_json_numbers(&json, net->periods, FRNN_MAX_GROUPS, &net->num_groups);
    json = frnn_json_begin(sizes.at, sizes.size);
    frnn_json_numbers(&json, net->group_sizes, FRNN_MAX_GROUPS, &count);
    if (count != net->num_groups)
        return refuse_value(message, KEY_GROUP_SIZES, sizes,
                            ", expected as many numbers as there are 'periods'");
    size_t left = net->hidden_size, i = 0;
    for (; i < count && net->group_sizes[i] <= left; i++)
        left -= net->group_sizes[i];
    if (i < count || left > 0)
        return refuse_value(message, KEY_GROUP_SIZES, sizes,
                            ", expected numbers whose sum is 'hidden_size'");
    return FRNN_OK;
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
    for (unsigned key = KEY_OPTIONS; key < KEY_STRUCTURES; key++) {
        if (values[key].text.at == NULL)
            continue;
        set_option(&net, (enum key)key, &values[key]);
        if (frnn_config_check(&net) != FRNN_OK)
            return refuse_option(model->message, &net, (enum key)key, &values[key]);
    }
    if (set_delays(model->message, &net, values) != FRNN_OK)
        return FRNN_E_FILE;
    if (frnn_config_check(&net) != FRNN_OK)
        return refuse_option(model->message, &net, KEY_DELAYS, &values[KEY_DELAYS]);
    if (set_groups(model->message, &net, values) != FRNN_OK)
        return FRNN_E_FILE;
    if (frnn_config_check(&net) != FRNN_OK)
        return refuse_option(model->message, &net, KEY_PERIODS, &values[KEY_PERIODS]);
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
