/* SPDX-License-Identifier: MIT
 *
 * Builds model files in memory for test_safetensors.c, test_architecture.c, test_model.c
 * and fuzz_model.c.
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

static inline void build_tensor(char *tensors, const frnn_config *net, const char *name,
                                size_t rows, size_t columns, size_t *end) {
    const size_t size = rows * (columns > 0 ? columns : 1) * (net->dtype == FRNN_F32 ? 4 : 8);
    PUT(tensors, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu", tensors[0] == '\0' ? "" : ",", name,
        net->dtype == FRNN_F32 ? "F32" : "F64", rows);
    if (columns > 0)
        PUT(tensors, ",%zu", columns);
    PUT(tensors, "],\"data_offsets\":[%zu,%zu]}", *end, *end + size);
    *end += size;
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
    PUT(text, "}");
}

typedef struct shape {
    const char *stem;
    size_t rows, columns; /* 0 rows: the net has none; 0 columns: a vector */
} shape;

enum { SHAPES = 7 };

/* The weights of a layer in the order of frnn_weights. */
static inline void shapes_of(const frnn_config *net, int bias, size_t layer, shape *to) {
    const frnn_cell_info *const cell = frnn_cell_get(net->cell);
    const int recurrent = net->cell != FRNN_CELL_MINGRU;
    const size_t H = net->hidden_size, rows = cell->gates * H;
    const size_t P = net->proj_size > 0 ? net->proj_size : H;
    const size_t peepholes = net->cell == FRNN_CELL_LSTM ? 3 * H : 2 * H;
    const shape shapes[SHAPES] = {
        {"weight_ih", rows, layer == 0 ? net->input_size : net->num_directions * P},
        {"weight_hh", recurrent ? rows : 0, P},
        {"bias_ih", bias ? rows : 0, 0},
        {"bias_hh", bias && recurrent ? rows : 0, 0},
        {"alpha", cell->alpha ? H : 0, 0},
        {"weight_hr", net->proj_size, H},
        {"peephole", net->peephole ? peepholes : 0, 0}};
    memcpy(to, shapes, sizeof shapes);
}

/* The header of a valid file with every weight of the net, part by part in the order of
 * frnn_weights; returns the size of its data. */
static inline size_t build_net(char *header, char *tensors, const frnn_config *net, int bias) {
    static const char *const directions[] = {"", "_reverse"};
    char architecture[1024] = "", name[64];
    size_t end = 0;
    put_architecture(architecture, net, bias);
    tensors[0] = '\0';
    for (size_t layer = 0; layer < net->num_layers; layer++) {
        for (size_t direction = 0; direction < net->num_directions; direction++) {
            shape shapes[SHAPES];
            shapes_of(net, bias, layer, shapes);
            for (size_t i = 0; i < SHAPES; i++) {
                if (shapes[i].rows == 0)
                    continue;
                sprintf(name, "%s", shapes[i].stem);
                if (frnn_cell_get(net->cell)->gates > 0)
                    PUT(name, "_l%zu%s", layer, directions[direction]);
                build_tensor(tensors, net, name, shapes[i].rows, shapes[i].columns, &end);
            }
        }
    }
    build_header(header, architecture, tensors);
    return end;
}

#endif
