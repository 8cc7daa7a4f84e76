/* SPDX-License-Identifier: MIT
 *
 * Nets in model files: that each is read as it was written, and its weights found where they lie.
 * No arguments; the exit code is 0 if all is well.
 */
#include "model_check.h"

static char header[ROOM], tensors[ROOM];

/* Every weight of a valid file is found where it lies; `step`: bytes between the lengths to which
 * it is cut. */
static void check_net(const frnn_config *net, int bias, size_t step) {
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const size_t size = build_model(file, header, tensors, net, bias, NULL);
    frnn_model model;
    check_open(frnn_model_open, cell->name, size, NULL);
    if (frnn_model_open(&model, file, size) != FRNN_OK)
        return;
    CHECK(same_config(&model.config, net), "%s: config", cell->name);
    CHECK(model.bias == (bias && cell->gates > 0) && model.batch_first == 1 &&
              model.go_backwards == (net->num_directions == 1),
          "%s", cell->name);
    CHECK(model.bytes == file && model.size == size, "%s", cell->name);

    frnn_weights weights[16];
    const char *at = (const char *)file + 8 + strlen(header);
    for (size_t i = 0; i < net->num_layers * net->num_directions; i++) {
        const size_t layer = i / net->num_directions, direction = i % net->num_directions;
        const frnn_weights *const w = &weights[i];
        shape shapes[SHAPES];
        shapes_of(net, bias, layer, shapes);
        CHECK(frnn_model_weights(&model, layer, direction, &weights[i]) == FRNN_OK, "part %zu", i);
        const void *pointers[SHAPES] = {w->weight_ih, w->weight_hh, w->bias_ih, w->bias_hh,
                                        w->alpha,     w->weight_hr, w->peephole};
        memcpy(pointers + PLAIN_SHAPES, w->delayed, sizeof w->delayed);
        pointers[SHAPES - 1] = w->mask;
        for (size_t k = 0; k < SHAPES; k++) {
            const int present = shapes[k].rows > 0;
            const size_t columns = shapes[k].columns > 0 ? shapes[k].columns : 1;
            CHECK(pointers[k] == (present ? at : NULL), "%s part %zu %s %zu", cell->name, i,
                  shapes[k].stem, shapes[k].delay);
            if (present)
                at += shapes[k].rows * columns * itemsize_of(net, &shapes[k]);
        }
    }
    frnn_weights ignored;
    CHECK(frnn_model_weights(&model, net->num_layers, 0, &ignored) == FRNN_E_ARG, "layer");
    CHECK(frnn_model_weights(&model, 0, net->num_directions, &ignored) == FRNN_E_ARG, "direction");
    CHECK(frnn_model_weights(&model, 0, 0, NULL) == FRNN_E_ARG, "no weights");

    size_t packed_size;
    CHECK(frnn_packed_size(net, &packed_size) == FRNN_OK, "%s", cell->name);
    char *packed = aligned_alloc(FRNN_ALIGN, 2 * packed_size);
    memset(packed, 0x55, 2 * packed_size);
    CHECK(frnn_pack(net, weights, packed, packed_size) == FRNN_OK, "%s", cell->name);
    CHECK(frnn_model_pack(&model, packed + packed_size, packed_size) == FRNN_OK, "%s", cell->name);
    CHECK(memcmp(packed, packed + packed_size, packed_size) == 0, "%s: packed", cell->name);
    CHECK(frnn_model_pack(&model, packed, packed_size - 1) == FRNN_E_SPACE, "%s", cell->name);
    free(packed);

    for (size_t i = 0; i < size; i += step)
        check_open(frnn_model_open, "cut", i, "");
}

/* All the options that the cell has. */
static void set_options(frnn_config *net, unsigned number) {
    if (net->cell == FRNN_CELL_LEAKY)
        return;
    net->activation = some_function(number);
    if (net->cell != FRNN_CELL_LEAKY_POTENTIAL)
        net->clip = 0.1 * (1 + number);
    if (is_lstm(net->cell) || net->cell == FRNN_CELL_GRU || net->cell == FRNN_CELL_GRU_RESET_BEFORE)
        net->gate_activation = some_function(5 * number + 4);
    if (!is_lstm(net->cell))
        return;
    net->proj_size = number % 3;
    net->peephole = number % 2 == 0;
    net->cell_clip = 7.1 * (number % 4);
    net->output_activation = some_function(7 * number + 2);
}

static void test_nets(void) {
    for (size_t c = 0; c < FRNN_CELL_COUNT; c++) {
        for (unsigned bits = 0; bits < 64; bits++) {
            frnn_config net = FRNN_CONFIG((frnn_cell)c, 3, 5);
            const frnn_cell_info *cell = frnn_cell_get(net.cell);
            net.dtype = bits & 1 ? FRNN_F64 : FRNN_F32;
            if (cell->gates == 0)
                net.input_size = net.hidden_size;
            else {
                net.num_layers = bits & 4 ? 3 : 1;
                net.num_directions = bits & 8 ? 2 : 1;
            }
            if (bits >= 16)
                set_options(&net, bits);
            check_net(&net, (bits & 2) == 0, bits % 48 == 0 ? 1 : 61);
        }
    }
}

/* Every structure of every cell that has it. */
static void test_structures(void) {
    size_t nets = 0;
    for (size_t c = 0; c < FRNN_CELL_COUNT; c++) {
        for (size_t number = 0; number < STRUCTURES; number++) {
            for (unsigned bits = 0; bits < 16; bits++) {
                frnn_config net = FRNN_CONFIG((frnn_cell)c, 3, bits & 8 ? 18 : 5);
                net.dtype = bits & 1 ? FRNN_F64 : FRNN_F32;
                net.num_layers = bits & 2 ? 3 : 1;
                net.num_directions = bits & 4 ? 2 : 1;
                if (bits >= 8)
                    set_options(&net, bits);
                set_structure(&net, number);
                if (frnn_config_check(&net) != FRNN_OK)
                    continue;
                check_net(&net, bits % 3 > 0, bits == 0 ? 1 : 997);
                nets++;
            }
        }
    }
    CHECK(nets > 1000, "%zu nets", nets);
}

/* The largest number of layers that fits, and what frnn_model_pack makes of it. */
static void test_deep_net(void) {
    frnn_config net = FRNN_CONFIG(FRNN_CELL_RNN, 1, 1);
    frnn_model model;
    net.num_layers = 256;
    net.num_directions = 2;
    const size_t data_size = build_net(header, tensors, &net, 0);
    const size_t size = build_file(file, header, data_size);
    CHECK(frnn_model_open(&model, file, size) == FRNN_OK, "%s", model.message);
    size_t packed_size;
    CHECK(frnn_packed_size(&net, &packed_size) == FRNN_OK, "deep net");
    void *packed = aligned_alloc(FRNN_ALIGN, packed_size);
    CHECK(frnn_model_pack(&model, packed, packed_size) == FRNN_OK, "deep net");
    free(packed);
}

/* What was changed after it was opened is refused, not followed. */
static void test_changed(void) {
    frnn_config net = FRNN_CONFIG(FRNN_CELL_RNN, 1, 1);
    frnn_model model;
    frnn_tensor tensor;
    frnn_weights weights;
    static _Alignas(FRNN_ALIGN) char packed[4096];
    const size_t data_size = build_net(header, tensors, &net, 1);
    const size_t size = build_file(file, header, data_size);
    CHECK(frnn_model_open(&model, file, size) == FRNN_OK, "%s", model.message);

    model.config.num_layers = 2;
    CHECK(frnn_model_weights(&model, 1, 0, &weights) == FRNN_E_FILE, "no such layer");
    CHECK(frnn_model_pack(&model, packed, sizeof packed) == FRNN_E_FILE, "no such layer");
    model.config.num_layers = FRNN_MODEL_MAX_TENSORS / 2 + 1;
    CHECK(frnn_model_pack(&model, packed, sizeof packed) == FRNN_E_SPACE, "more layers");
    model.config.num_layers = (size_t)-1;
    model.config.num_directions = 2;
    CHECK(frnn_model_pack(&model, packed, sizeof packed) == FRNN_E_SIZE, "many layers");
    model.config = net;
    model.config.hidden_size = 2;
    CHECK(frnn_model_weights(&model, 0, 0, &weights) == FRNN_E_FILE, "other shapes");
    model.config = net;
    model.config.num_delays = 2;
    model.config.delays[0] = 1, model.config.delays[1] = 2;
    CHECK(frnn_model_weights(&model, 0, 0, &weights) == FRNN_E_FILE, "other delays");
    model.config = net;
    model.config.mask_blocks = 1;
    CHECK(frnn_model_weights(&model, 0, 0, &weights) == FRNN_E_FILE, "a mask");
    model.config = net;

    char *shape = strstr((char *)file + 8, "[1]");
    shape[1] = '2';
    CHECK(frnn_model_weights(&model, 0, 0, &weights) == FRNN_E_FILE, "other shape");
    CHECK(frnn_model_tensor(&model, 0, &tensor) == FRNN_OK, "before it");
    CHECK(frnn_model_tensor(&model, 2, &tensor) == FRNN_E_FILE, "other shape");
    shape[1] = '1';
    CHECK(frnn_model_pack(&model, packed, sizeof packed) == FRNN_OK, "as it was");
    file[7] = 1;
    CHECK(frnn_model_tensor(&model, 0, &tensor) == FRNN_E_FILE, "other header length");
    CHECK(frnn_model_weights(&model, 0, 0, &weights) == FRNN_E_FILE, "other header length");
}

/* Of all weights only a retention has bounds. */
static void test_alpha(void) {
    static const double values[] = {0,         -0.0, 1,  0.5, 1e-300,  -1e-30,
                                    1.0000002, 2,    -1, NAN, INFINITY};
    frnn_config net = FRNN_CONFIG(FRNN_CELL_LEAKY_RATE, 1, 3);
    for (unsigned bits = 0; bits < 8; bits++) {
        net.dtype = bits & 1 ? FRNN_F64 : FRNN_F32;
        net.num_directions = bits & 2 ? 2 : 1;
        net.num_layers = bits & 4 ? 2 : 1;
        const size_t itemsize = bits & 1 ? 8 : 4, count = 3;
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            for (size_t i = 0; i < count; i++) {
                const size_t data_size = build_net(header, tensors, &net, 1);
                const size_t size = build_file(file, header, data_size);
                unsigned char *at = file + size - (count - i) * itemsize;
                const float single = (float)values[v];
                char expected[96];
                memcpy(at, itemsize == 4 ? (const void *)&single : (const void *)&values[v],
                       itemsize);
                sprintf(expected, "'alpha_l%zu%s': value %zu is not in [0, 1]", net.num_layers - 1,
                        net.num_directions == 2 ? "_reverse" : "", i);
                check_open(frnn_model_open, "alpha", size,
                           values[v] >= 0 && values[v] <= 1 ? NULL : expected);
            }
        }
    }
    const double nan = NAN;
    net = (frnn_config)FRNN_CONFIG(FRNN_CELL_RNN, 1, 3);
    net.dtype = FRNN_F64;
    const size_t data_size = build_net(header, tensors, &net, 1);
    const size_t size = build_file(file, header, data_size);
    memcpy(file + size - 8, &nan, 8);
    check_open(frnn_model_open, "a bias that is NaN", size, NULL);
}

int main(void) {
    test_nets();
    test_structures();
    test_deep_net();
    test_changed();
    test_alpha();
    return report();
}
