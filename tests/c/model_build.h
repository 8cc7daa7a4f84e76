/* SPDX-License-Identifier: MIT
 *
 * Builds model files in memory, for their tests and fuzz_model.c.
 */
#ifndef FRNN_MODEL_BUILD_H
#define FRNN_MODEL_BUILD_H

#include "fastrnn.h"

#include <stdio.h>
#include <string.h>

/* Text of a header, from string literals. */
#define ENTRY(dtype, shape, begin, end)                                                            \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"
#define TENSOR(name, dtype, shape, begin, end) "\"" name "\":" ENTRY(dtype, shape, begin, end)

/* Text that grows at the end of a buffer which is large enough. */
#define PUT(text, ...) ((void)sprintf((text) + strlen(text), __VA_ARGS__))

/* Writes a file of that header and data; returns its size. The data are floats, or doubles, in
 * [0, 1], so that any of it may be a retention. */
static inline size_t build_file(unsigned char *file, const char *header, size_t data_size) {
    static const unsigned char half[] = {0x00, 0x00, 0x00, 0x3f};
    const size_t size = strlen(header);
    for (size_t i = 0; i < 8; i++)
        file[i] = (unsigned char)((unsigned long long)size >> 8 * i);
    memcpy(file + 8, header, size);
    for (size_t i = 0; i < data_size; i++)
        file[8 + size + i] = half[i % sizeof half];
    return 8 + size + data_size;
}

/* A header with the metadata key "fastrnn" and the entries of the tensors. */
static inline void build_header(char *header, const char *architecture, const char *tensors) {
    strcpy(header, "{\"__metadata__\":{\"fastrnn\":\"");
    char *at = header + strlen(header);
    for (; *architecture != '\0'; architecture++) {
        if (*architecture == '"' || *architecture == '\\' || *architecture == '\n')
            *at++ = '\\';
        *at++ = *architecture == '\n' ? 'n' : *architecture;
    }
    strcpy(at, tensors[0] == '\0' ? "\"}" : "\"},");
    strcat(at, tensors);
    strcat(at, "}");
}

/* The number as it stands in a file. */
static inline void put_real(char *text, double number) {
    char hex[40];
    sprintf(hex, "%a", number); /* without a point if the fraction is 0 */
    const char *const exponent = strchr(hex, 'p');
    PUT(text, "%.*s%s%s", (int)(exponent - hex), hex, strchr(hex, '.') == NULL ? ".0" : "",
        exponent);
}

/* Names of activations and the number of their parameters. */
static const struct {
    const char *name;
    int parameters;
} functions[FRNN_ACTIVATION_COUNT] = {
    {"tanh", 0},         {"relu", 0},   {"identity", 0},   {"sigmoid", 0},
    {"hard_sigmoid", 2}, {"affine", 2}, {"leaky_relu", 1}, {"thresholded_relu", 1},
    {"scaled_tanh", 2},  {"elu", 1},    {"softsign", 0},   {"softplus", 0}};

static inline void put_function(char *text, const char *key, const frnn_function *function) {
    const int parameters = functions[function->kind].parameters;
    PUT(text, ", \"%s\": \"%s", key, functions[function->kind].name);
    for (int i = 0; i < parameters; i++) {
        PUT(text, i == 0 ? "(" : ", ");
        put_real(text, i == 0 ? function->alpha : function->beta);
    }
    PUT(text, parameters > 0 ? ")\"" : "\"");
}

static inline void put_numbers(char *text, const char *key, const size_t *numbers, size_t count) {
    PUT(text, ", \"%s\": ", key);
    for (size_t i = 0; i < count; i++)
        PUT(text, "%s%zu", i == 0 ? "[" : ", ", numbers[i]);
    PUT(text, "]");
}

/* Keys that the net does not use are left out. */
static inline void put_structure(char *text, const frnn_config *net) {
    for (size_t i = 0; i < net->num_delays; i++) {
        PUT(text, i == 0 ? ", \"delays\": [" : ", ");
        if (net->fractions[i] > 0) {
            PUT(text, "\"");
            put_real(text, (double)net->delays[i] + net->fractions[i]);
            PUT(text, "\"");
        } else
            PUT(text, "%zu", net->delays[i]);
    }
    if (net->num_delays > 0)
        PUT(text, "], \"dilated\": %s", net->dilated ? "true" : "false");
    if (net->num_groups > 0) {
        put_numbers(text, "periods", net->periods, net->num_groups);
        put_numbers(text, "group_sizes", net->group_sizes, net->num_groups);
        PUT(text, ", \"connectivity\": \"%s\"", net->full ? "full" : "slower");
    }
}

static inline void put_architecture(char *text, const frnn_config *net, int bias) {
    PUT(text,
        "{\"format\": 1, \"cell\": \"%s\", \"input_size\": %zu, \"hidden_size\": %zu, "
        "\"num_layers\": %zu, \"bidirectional\": %s, \"bias\": %s, \"batch_first\": true, "
        "\"go_backwards\": %s, \"proj_size\": %zu, \"peephole\": %s, \"clip\": \"",
        frnn_cell_get(net->cell)->name, net->input_size, net->hidden_size, net->num_layers,
        net->num_directions == 2 ? "true" : "false", bias ? "true" : "false",
        net->num_directions == 1 ? "true" : "false", net->proj_size,
        net->peephole ? "true" : "false");
    put_real(text, net->clip);
    PUT(text, "\", \"cell_clip\": \"");
    put_real(text, net->cell_clip);
    PUT(text, "\"");
    put_function(text, "activation", &net->activation);
    put_function(text, "gate_activation", &net->gate_activation);
    put_function(text, "output_activation", &net->output_activation);
    put_structure(text, net);
    PUT(text, "}");
}

/* ---- Tensors -------------------------------------------------------------------------------- */

enum role { WEIGHT, RECURRENT, MASK };

typedef struct shape {
    const char *stem;
    size_t rows, columns; /* 0 rows: the net has none; 0 columns: a vector */
    enum role role;
    size_t delay; /* 0, or what stands in the name */
} shape;

enum { PLAIN_SHAPES = 7, SHAPES = PLAIN_SHAPES + FRNN_MAX_DELAYS };

/* The weights of a layer in the order of frnn_weights. */
static inline void shapes_of(const frnn_config *net, int bias, size_t layer, shape *to) {
    const frnn_cell_info *const cell = frnn_cell_get(net->cell);
    const int recurrent = cell->gates > 0 && net->cell != FRNN_CELL_MINGRU;
    const size_t H = net->hidden_size, rows = cell->gates * H;
    const size_t P = net->proj_size > 0 ? net->proj_size : H;
    const size_t peepholes = net->cell == FRNN_CELL_LSTM ? 3 * H : 2 * H;
    const shape shapes[PLAIN_SHAPES] = {
        {"weight_ih", rows, layer == 0 ? net->input_size : net->num_directions * P, WEIGHT, 0},
        {"weight_hh", recurrent ? rows : 0, P, RECURRENT, 0},
        {"bias_ih", bias ? rows : 0, 0, WEIGHT, 0},
        {"bias_hh", bias && recurrent ? rows : 0, 0, WEIGHT, 0},
        {"alpha", cell->alpha ? H : 0, 0, WEIGHT, 0},
        {"weight_hr", net->proj_size, H, WEIGHT, 0},
        {"peephole", net->peephole ? peepholes : 0, 0, WEIGHT, 0}};
    memset(to, 0, SHAPES * sizeof *to);
    memcpy(to, shapes, sizeof shapes);
    for (size_t i = 1; i < net->num_delays && !net->dilated && recurrent; i++)
        to[PLAIN_SHAPES + i - 1] = (shape){"weight_hh", rows, P, RECURRENT, net->delays[i]};
    if (net->mask_blocks > 0 && recurrent)
        to[SHAPES - 1] = (shape){"recurrent_mask", H, P, MASK, 0};
}

/* Whether a unit of a part reads an output by the mask: at least one. */
static inline int in_mask(const frnn_config *net, size_t part, size_t unit, size_t output) {
    const size_t outputs = net->proj_size > 0 ? net->proj_size : net->hidden_size;
    return output == unit % outputs || (unit + 2 * output + part) % 5 == 0;
}

static inline size_t period_of(const frnn_config *net, size_t unit) {
    size_t group = 0;
    for (size_t end = net->group_sizes[0]; unit >= end; end += net->group_sizes[group])
        group++;
    return net->periods[group];
}

/* Whether it does by all that there is. */
static inline int connected(const frnn_config *net, size_t part, size_t unit, size_t output) {
    if (net->mask_blocks > 0 && !in_mask(net, part, unit, output))
        return 0;
    return net->num_groups == 0 || net->full || period_of(net, output) >= period_of(net, unit);
}

static inline size_t itemsize_of(const frnn_config *net, const shape *shape) {
    return shape->role == MASK ? 1 : net->dtype == FRNN_F32 ? 4 : 8;
}

static inline void name_of(const frnn_config *net, size_t part, const shape *shape, char *name) {
    sprintf(name, "%s", shape->stem);
    if (frnn_cell_get(net->cell)->gates > 0)
        PUT(name, "_l%zu%s", part / net->num_directions,
            part % net->num_directions > 0 ? "_reverse" : "");
    if (shape->delay > 0)
        PUT(name, "_d%zu", shape->delay);
}

/* Writes the entry of a tensor, and moves to the ends of the text and of the data. */
static inline void build_tensor(char **text, const frnn_config *net, const char *name,
                                const shape *shape, size_t *end) {
    const size_t columns = shape->columns > 0 ? shape->columns : 1;
    const size_t size = shape->rows * columns * itemsize_of(net, shape);
    const char *const dtype = net->dtype == FRNN_F32 ? "F32" : "F64";
    *text += sprintf(*text, "\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu", name,
                     shape->role == MASK ? "BOOL" : dtype, shape->rows);
    if (shape->columns > 0)
        *text += sprintf(*text, ",%zu", shape->columns);
    *text += sprintf(*text, "],\"data_offsets\":[%zu,%zu]}", *end, *end + size);
    *end += size;
}

/* The header of a valid file with every weight of the net, part by part in the order of
 * frnn_weights, unless one is named that it is to be without; returns the size of its data. */
static inline size_t build_net_without(char *header, char *tensors, const frnn_config *net,
                                       int bias, const char *without) {
    char architecture[4096] = "", name[64], *text = tensors;
    size_t end = 0;
    put_architecture(architecture, net, bias);
    tensors[0] = '\0';
    for (size_t part = 0; part < net->num_layers * net->num_directions; part++) {
        shape shapes[SHAPES];
        shapes_of(net, bias, part / net->num_directions, shapes);
        for (size_t i = 0; i < SHAPES; i++) {
            if (shapes[i].rows == 0)
                continue;
            name_of(net, part, &shapes[i], name);
            if (without != NULL && strcmp(name, without) == 0)
                continue;
            if (text > tensors)
                *text++ = ',';
            build_tensor(&text, net, name, &shapes[i], &end);
        }
    }
    build_header(header, architecture, tensors);
    return end;
}

static inline size_t build_net(char *header, char *tensors, const frnn_config *net, int bias) {
    return build_net_without(header, tensors, net, bias, NULL);
}

/* Fills in the masks in the data of such a file, and 0 for the weights of what is not connected. */
static inline void fill_structure(unsigned char *data, const frnn_config *net, int bias,
                                  const char *without) {
    char name[64];
    for (size_t part = 0; part < net->num_layers * net->num_directions; part++) {
        shape shapes[SHAPES];
        shapes_of(net, bias, part / net->num_directions, shapes);
        for (size_t i = 0; i < SHAPES; i++) {
            const size_t columns = shapes[i].columns > 0 ? shapes[i].columns : 1;
            const size_t itemsize = itemsize_of(net, &shapes[i]);
            if (shapes[i].rows == 0)
                continue;
            name_of(net, part, &shapes[i], name);
            if (without != NULL && strcmp(name, without) == 0)
                continue;
            for (size_t at = 0; at < shapes[i].rows * columns; at++, data += itemsize) {
                const size_t unit = at / columns % net->hidden_size, output = at % columns;
                if (shapes[i].role == MASK)
                    *data = (unsigned char)in_mask(net, part, unit, output);
                else if (shapes[i].role == RECURRENT && !connected(net, part, unit, output))
                    memset(data, 0, itemsize);
            }
        }
    }
}

/* All of that in one; returns the size of the file. */
static inline size_t build_model(unsigned char *file, char *header, char *tensors,
                                 const frnn_config *net, int bias, const char *without) {
    const size_t data_size = build_net_without(header, tensors, net, bias, without);
    const size_t size = build_file(file, header, data_size);
    fill_structure(file + size - data_size, net, bias, without);
    return size;
}

#endif
