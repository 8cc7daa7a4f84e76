/* SPDX-License-Identifier: MIT
 *
 * Time structures in model files: what their tensors may hold, and that none is missing. No
 * arguments; the exit code is 0 if all is well.
 */
#include "model_check.h"

static char header[ROOM], tensors[ROOM];

static unsigned char *data_of(const char *name, size_t size) {
    frnn_model model;
    frnn_tensor tensor;
    CHECK(frnn_model_open_tensors(&model, file, size) == FRNN_OK, "%s", model.message);
    for (size_t i = 0; frnn_model_tensor(&model, i, &tensor) == FRNN_OK; i++) {
        if (tensor.name_size == strlen(name) && memcmp(tensor.name, name, tensor.name_size) == 0)
            return file + ((const unsigned char *)tensor.data - file);
    }
    CHECK(0, "there is no %s", name);
    return file;
}

/* A recurrent weight must be 0 where there is no connection, and may be anything elsewhere. */
static void check_zeros(const frnn_config *net) {
    const size_t size = build_model(file, header, tensors, net, 0, NULL);
    const size_t itemsize = net->dtype == FRNN_F32 ? 4 : 8, parts = net->num_layers * 2;
    for (size_t part = 0; part < parts; part++) {
        shape shapes[SHAPES];
        shapes_of(net, 0, part / 2, shapes);
        for (size_t i = 0; i < SHAPES; i++) {
            const size_t columns = shapes[i].columns;
            char name[64], expected[192], held[8];
            if (shapes[i].role != RECURRENT || shapes[i].rows == 0)
                continue;
            name_of(net, part, &shapes[i], name);
            unsigned char *at = data_of(name, size);
            for (size_t e = 0; e < shapes[i].rows * columns; e++, at += itemsize) {
                const size_t unit = e / columns % net->hidden_size, output = e % columns;
                const int outside = net->mask_blocks > 0 && !in_mask(net, part, unit, output);
                sprintf(expected, "'%s': element [%zu, %zu] is not 0, but %s", name, e / columns,
                        output,
                        outside ? "outside the mask" : "would connect a group to a faster one");
                memcpy(held, at, itemsize);
                memset(at, 0, itemsize);
                at[0] = 1; /* the smallest of all */
                check_open(frnn_model_open, name, size,
                           connected(net, part, unit, output) ? NULL : expected);
                memset(at, 0xff, itemsize); /* a NaN */
                check_open(frnn_model_open, name, size,
                           connected(net, part, unit, output) ? NULL : expected);
                memset(at, 0, itemsize);
                at[itemsize - 1] = 0x80; /* -0 */
                check_open(frnn_model_open, name, size, NULL);
                memcpy(at, held, itemsize);
            }
        }
    }
}

static void test_zeros(void) {
    for (size_t number = 0; number < STRUCTURES; number++) {
        frnn_config net = FRNN_CONFIG(number % 2 ? FRNN_CELL_GRU : FRNN_CELL_LEAKY_POTENTIAL, 1, 5);
        net.dtype = number % 4 < 2 ? FRNN_F32 : FRNN_F64;
        net.num_layers = net.num_directions = 2;
        set_structure(&net, number);
        check_zeros(&net);
    }
    frnn_config net = FRNN_CONFIG(FRNN_CELL_LSTM, 1, 6);
    net.num_directions = 2;
    net.proj_size = 2;
    set_structure(&net, 11);
    check_zeros(&net);
}

/* What a mask may hold. */
static void test_masks(void) {
    static const char *const names[] = {"recurrent_mask_l0", "recurrent_mask_l0_reverse",
                                        "recurrent_mask_l1", "recurrent_mask_l1_reverse"};
    static const char *const matrices[] = {"weight_hh_l0", "weight_hh_l0_reverse", "weight_hh_l1",
                                           "weight_hh_l1_reverse"};
    enum { H = 3 };
    char expected[128];
    for (int c = 0; c < 2; c++) {
        frnn_config net = FRNN_CONFIG(c == 0 ? FRNN_CELL_RNN : FRNN_CELL_LEAKY_RATE, 1, H);
        net.num_layers = net.num_directions = 2;
        net.mask_blocks = 1;
        const size_t size = build_model(file, header, tensors, &net, 1, NULL);
        for (size_t part = 0; part < 4; part++) {
            unsigned char *const mask = data_of(names[part], size);
            unsigned char *const matrix = data_of(matrices[part], size), held[H * H];
            float weights[H * H];
            memcpy(held, mask, sizeof held);
            memcpy(weights, matrix, sizeof weights);
            for (size_t i = 0; i < H * H; i++) {
                for (unsigned value = 2; value < 256; value += 127) {
                    mask[i] = (unsigned char)value;
                    sprintf(expected, "'%s': value %zu is not 0 or 1", names[part], i);
                    check_open(frnn_model_open, "mask", size, expected);
                }
                mask[i] = 1; /* one connection more, of weight 0 */
                check_open(frnn_model_open, "mask", size, NULL);
                mask[i] = held[i];
            }
            for (size_t unit = 0; unit < H; unit++) {
                memset(mask + unit * H, 0, H);
                memset(matrix + unit * H * sizeof *weights, 0, H * sizeof *weights);
                sprintf(expected, "'%s': unit %zu reads no unit", names[part], unit);
                check_open(frnn_model_open, "row", size, c == 0 ? expected : NULL);
                memcpy(mask, held, sizeof held);
                memcpy(matrix, weights, sizeof weights);
            }
            memset(mask, 0, sizeof held);
            memset(matrix, 0, sizeof weights);
            sprintf(expected, "'%s': no unit reads any", names[part]);
            check_open(frnn_model_open, "all", size, expected);
            memcpy(mask, held, sizeof held);
            memcpy(matrix, weights, sizeof weights);
        }
        check_open(frnn_model_open, "as it was", size, NULL);
    }
}

/* The number of blocks is that of the part that has most of them. */
static void test_mask_blocks(void) {
    frnn_config net = FRNN_CONFIG(FRNN_CELL_LEAKY_RATE, 1, 18);
    frnn_model model;
    net.num_layers = 3;
    net.mask_blocks = 1;
    const size_t size = build_model(file, header, tensors, &net, 0, NULL);
    for (size_t most = 0; most < 3; most++) {
        for (size_t layer = 0; layer < 3; layer++) {
            char name[64];
            sprintf(name, "weight_hh_l%zu", layer);
            memset(data_of(name, size), 0, 18 * 18 * 4);
            sprintf(name, "recurrent_mask_l%zu", layer);
            unsigned char *const mask = data_of(name, size);
            memset(mask, 0, 18 * 18);
            mask[17 * 18 + 2] = mask[16 * 18 + 2] = mask[5] = 1;
            mask[15 * 18 + 3] = layer == most;
        }
        CHECK(frnn_model_open(&model, file, size) == FRNN_OK, "%s", model.message);
        CHECK(model.config.mask_blocks == 3, "%zu", model.config.mask_blocks);
    }
}

/* Without any one of its tensors the file is not valid. But a net with a single mask that is gone
 * is a net without masks. */
static void test_missing(void) {
    for (size_t number = 0; number < STRUCTURES; number++) {
        frnn_config net = FRNN_CONFIG(FRNN_CELL_LSTM, 2, 5);
        net.num_layers = number % 3 + 1;
        net.num_directions = number % 2 + 1;
        net.peephole = 1;
        set_structure(&net, number);
        const size_t parts = net.num_layers * net.num_directions;
        for (size_t part = 0; part < parts; part++) {
            shape shapes[SHAPES];
            shapes_of(&net, 1, part / net.num_directions, shapes);
            for (size_t i = 0; i < SHAPES; i++) {
                char name[64], expected[96];
                if (shapes[i].rows == 0)
                    continue;
                name_of(&net, part, &shapes[i], name);
                sprintf(expected, "tensor '%s' is missing", name);
                const size_t size = build_model(file, header, tensors, &net, 1, name);
                check_open(frnn_model_open, name, size,
                           shapes[i].role == MASK && parts == 1 ? NULL : expected);
            }
        }
    }
}

/* As many tensors as fit, of parts that have as many as there can be. */
static void test_many_tensors(void) {
    static const char *const some[] = {"weight_ih_l0",    "weight_hh_l55_d16",
                                       "weight_hh_l7_d2", "recurrent_mask_l55",
                                       "weight_hh_l28",   "weight_hh_l55_d15"};
    frnn_config net = FRNN_CONFIG(FRNN_CELL_RNN, 1, 1);
    char expected[96];
    net.num_layers = 56; /* of 18 tensors each */
    net.num_delays = FRNN_MAX_DELAYS;
    for (size_t i = 0; i < FRNN_MAX_DELAYS; i++)
        net.delays[i] = i + 1;
    net.mask_blocks = 1;
    check_open(frnn_model_open, "many", build_model(file, header, tensors, &net, 0, NULL), NULL);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        sprintf(expected, "tensor '%s' is missing", some[i]);
        check_open(frnn_model_open, some[i], build_model(file, header, tensors, &net, 0, some[i]),
                   expected);
    }
    const size_t size = build_model(file, header, tensors, &net, 0, NULL);
    char *const layers = strstr((char *)file + 8, "num_layers\\\": 56");
    memcpy(layers + 14, "57", 2);
    check_open(frnn_model_open, "a layer more", size, "tensor 'weight_ih_l56' is missing");
    memcpy(layers + 14, "55", 2);
    check_open(frnn_model_open, "a layer less", size, "'weight_ih_l55' does not belong");
}

/* Masks may come first: the dtype is that of the weights. */
static void test_order(void) {
    for (int wide = 0; wide < 2; wide++) {
        const size_t item = wide ? 8 : 4, matrix = 4 * item;
        frnn_model model;
        sprintf(tensors,
                "\"recurrent_mask_l0\":{\"dtype\":\"BOOL\",\"shape\":[2,2],"
                "\"data_offsets\":[0,4]},\"weight_hh_l0\":{\"dtype\":\"%s\",\"shape\":[2,2],"
                "\"data_offsets\":[4,%zu]},\"weight_ih_l0\":{\"dtype\":\"%s\",\"shape\":[2,1],"
                "\"data_offsets\":[%zu,%zu]}",
                wide ? "F64" : "F32", 4 + matrix, wide ? "F64" : "F32", 4 + matrix,
                4 + matrix + 2 * item);
        build_header(header,
                     "{\"format\":1,\"cell\":\"rnn\",\"input_size\":1,\"hidden_size\":2,"
                     "\"bias\":false}",
                     tensors);
        const size_t size = build_file(file, header, 4 + matrix + 2 * item);
        memcpy(data_of("recurrent_mask_l0", size), "\1\0\1\1", 4);
        memset(data_of("weight_hh_l0", size) + item, 0, item);
        CHECK(frnn_model_open(&model, file, size) == FRNN_OK, "%s", model.message);
        CHECK(model.config.dtype == (wide ? FRNN_F64 : FRNN_F32), "dtype");
        CHECK(model.config.mask_blocks == 2, "%zu blocks", model.config.mask_blocks);
    }
}

int main(void) {
    test_zeros();
    test_masks();
    test_mask_blocks();
    test_missing();
    test_many_tensors();
    test_order();
    return report();
}
