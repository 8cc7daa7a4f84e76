/* SPDX-License-Identifier: MIT
 *
 * Builds model files in memory for test_safetensors.c, test_model.c and fuzz_model.c.
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

/* The header of a valid file with every weight of the net; returns the size of its data. The
 * tensors lie in the order of the parts: weight_ih, weight_hh, bias_ih, bias_hh, alpha. */
static inline size_t build_net(char *header, char *tensors, const frnn_config *net, int bias) {
    static const char *const activations[] = {"tanh", "relu", "identity"};
    static const char *const directions[] = {"", "_reverse"};
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const size_t H = net->hidden_size, rows = cell->gates * H;
    char architecture[512] = "", name[64];
    size_t end = 0;
    PUT(architecture,
        "{\"format\": 1, \"cell\": \"%s\", \"activation\": \"%s\", \"input_size\": %zu, "
        "\"hidden_size\": %zu, \"num_layers\": %zu, \"bidirectional\": %s, \"bias\": %s, "
        "\"batch_first\": true}",
        cell->name, activations[net->activation], net->input_size, H, net->num_layers,
        net->num_directions == 2 ? "true" : "false", bias ? "true" : "false");
    tensors[0] = '\0';
    for (size_t layer = 0; layer < net->num_layers; layer++) {
        for (size_t direction = 0; direction < net->num_directions; direction++) {
            const size_t input = layer == 0 ? net->input_size : net->num_directions * H;
            const struct {
                const char *stem;
                int present;
                size_t rows, columns;
            } weights[] = {{"weight_ih", cell->gates > 0, rows, input},
                           {"weight_hh", cell->gates > 0, rows, H},
                           {"bias_ih", cell->gates > 0 && bias, rows, 0},
                           {"bias_hh", cell->gates > 0 && bias, rows, 0},
                           {"alpha", cell->alpha, H, 0}};
            for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
                if (!weights[i].present)
                    continue;
                sprintf(name, "%s", weights[i].stem);
                if (cell->gates > 0)
                    PUT(name, "_l%zu%s", layer, directions[direction]);
                build_tensor(tensors, net, name, weights[i].rows, weights[i].columns, &end);
            }
        }
    }
    build_header(header, architecture, tensors);
    return end;
}

#endif
