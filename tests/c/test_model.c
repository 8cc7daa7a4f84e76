/* SPDX-License-Identifier: MIT
 *
 * Nets in model files: which are read, and which are refused with which words. No arguments; the
 * exit code is 0 if all is well.
 */
#include "model_check.h"

#include <math.h>

static char header[ROOM], tensors[ROOM];

/* Field by field: the padding between them holds anything. */
static int same_config(const frnn_config *a, const frnn_config *b) {
    return a->struct_size == b->struct_size && a->cell == b->cell &&
           a->activation == b->activation && a->dtype == b->dtype &&
           a->input_size == b->input_size && a->hidden_size == b->hidden_size &&
           a->num_layers == b->num_layers && a->num_directions == b->num_directions;
}

/* Every weight of a valid file is found where it lies. */
static void check_net(const frnn_config *net, int bias) {
    const frnn_cell_info *cell = frnn_cell_get(net->cell);
    const size_t H = net->hidden_size, rows = cell->gates * H;
    const size_t itemsize = net->dtype == FRNN_F32 ? 4 : 8;
    const size_t data_size = build_net(header, tensors, net, bias);
    const size_t size = build_file(file, header, data_size);
    frnn_model model;
    check_open(frnn_model_open, cell->name, size, NULL);
    if (frnn_model_open(&model, file, size) != FRNN_OK)
        return;
    CHECK(same_config(&model.config, net), "%s: config", cell->name);
    CHECK(model.bias == (bias && cell->gates > 0) && model.batch_first == 1, "%s", cell->name);
    CHECK(model.bytes == file && model.size == size, "%s", cell->name);

    frnn_weights weights[16];
    const char *at = (const char *)file + size - data_size;
    for (size_t i = 0; i < net->num_layers * net->num_directions; i++) {
        const size_t layer = i / net->num_directions, direction = i % net->num_directions;
        const size_t input = layer == 0 ? net->input_size : net->num_directions * H;
        const struct {
            const void *pointer;
            int present;
            size_t count;
        } expected[] = {{&weights[i].weight_ih, cell->gates > 0, rows * input},
                        {&weights[i].weight_hh, cell->gates > 0, rows * H},
                        {&weights[i].bias_ih, cell->gates > 0 && bias, rows},
                        {&weights[i].bias_hh, cell->gates > 0 && bias, rows},
                        {&weights[i].alpha, cell->alpha, H}};
        CHECK(frnn_model_weights(&model, layer, direction, &weights[i]) == FRNN_OK, "part %zu", i);
        for (size_t w = 0; w < sizeof expected / sizeof *expected; w++) {
            const char *pointer = *(const void *const *)expected[w].pointer;
            CHECK(pointer == (expected[w].present ? at : NULL), "%s part %zu weight %zu",
                  cell->name, i, w);
            if (expected[w].present)
                at += expected[w].count * itemsize;
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

    for (size_t i = 0; i < size; i += size < 4096 ? 1 : 61)
        check_open(frnn_model_open, "cut", i, "");
}

static void test_nets(void) {
    for (size_t c = 0; c < FRNN_CELL_COUNT; c++) {
        for (unsigned bits = 0; bits < 16; bits++) {
            frnn_config net = FRNN_CONFIG((frnn_cell)c, 3, 5);
            const frnn_cell_info *cell = frnn_cell_get(net.cell);
            net.dtype = bits & 1 ? FRNN_F64 : FRNN_F32;
            if (cell->gates == 1 && (bits & 2) != 0)
                net.activation = cell->alpha ? FRNN_IDENTITY : FRNN_RELU;
            if (cell->gates == 0)
                net.input_size = net.hidden_size;
            else {
                net.num_layers = bits & 4 ? 3 : 1;
                net.num_directions = bits & 8 ? 2 : 1;
            }
            check_net(&net, (bits & 2) == 0);
        }
    }
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

/* A net of one small layer, and what may be wrong with it. */
#define REQUIRED     "\"format\":1,\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":2"
#define ARCHITECTURE "{" REQUIRED "}"
#define BIASES                                                                                     \
    TENSOR("bias_ih_l0", "F32", "[2]", 40, 48) "," TENSOR("bias_hh_l0", "F32", "[2]", 48, 56)
#define WEIGHTS                                                                                    \
    TENSOR("weight_ih_l0", "F32", "[2,3]", 0, 24)                                                  \
    "," TENSOR("weight_hh_l0", "F32", "[2,2]", 24, 40)
#define TENSORS   WEIGHTS "," BIASES
#define LEAKY_NET "{\"format\":1,\"cell\":\"leaky\",\"input_size\":2,\"hidden_size\":2"

static const struct {
    const char *what, *architecture, *tensors;
    size_t data_size;
    const char *message;
} nets[] = {
    {"defaults", ARCHITECTURE, TENSORS, 56, NULL},
    {"all keys, in another order",
     " {\"batch_first\":true , \"hidden_size\": "
     "2,\"bias\":true,\"input_size\":3,\n\"cell\":\"rnn\","
     "\"bidirectional\":false,\"num_layers\":1,\"activation\":\"relu\",\"format\":1} ",
     TENSORS, 56, NULL},
    {"no bias", "{" REQUIRED ",\"bias\":false}", WEIGHTS, 40, NULL},
    {"other order of tensors", ARCHITECTURE, BIASES "," WEIGHTS, 56, NULL},
    {"leaky", LEAKY_NET "}", TENSOR("alpha", "F64", "[2]", 0, 16), 16, NULL},

    {"no JSON", "rnn", TENSORS, 56, "fastrnn metadata, byte 0: '{' is expected"},
    {"nothing", "", TENSORS, 56, "fastrnn metadata, byte 0: '{' is expected"},
    {"a list", "[]", TENSORS, 56, "fastrnn metadata, byte 0: '{' is expected"},
    {"an open object", "{" REQUIRED, TENSORS, 56, "',' or '}' is expected"},
    {"more than an object", ARCHITECTURE "1", TENSORS, 56, "nothing may follow"},
    {"no format", "{\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":2}", TENSORS, 56,
     "the key 'format' is missing"},
    {"no cell", "{\"format\":1,\"input_size\":3,\"hidden_size\":2}", TENSORS, 56,
     "the key 'cell' is missing"},
    {"no input_size", "{\"format\":1,\"cell\":\"rnn\",\"hidden_size\":2}", TENSORS, 56,
     "the key 'input_size' is missing"},
    {"no hidden_size", "{\"format\":1,\"cell\":\"rnn\",\"input_size\":3}", TENSORS, 56,
     "the key 'hidden_size' is missing"},
    {"an empty object", "{}", TENSORS, 56, "the key 'format' is missing"},
    {"format 2", "{\"format\":2,\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":2}", TENSORS, 56,
     "'format' is 2, expected 1"},
    {"format \"1\"", "{\"format\":\"1\"}", TENSORS, 56, "'format': a whole number"},
    {"an unknown cell", "{\"format\":1,\"cell\":\"gru\",\"input_size\":3,\"hidden_size\":2}",
     TENSORS, 56, "'cell' is 'gru'"},
    {"a cell in capitals", "{\"format\":1,\"cell\":\"RNN\"}", TENSORS, 56, "'cell' is 'RNN'"},
    {"a cell that is a number", "{\"cell\":1}", TENSORS, 56, "'cell': a string is expected"},
    {"a cell with an escape", "{\"cell\":\"\\u0072nn\"}", TENSORS, 56, "'cell': an escape"},
    {"an unknown activation", "{" REQUIRED ",\"activation\":\"gelu\"}", TENSORS, 56,
     "'activation' is 'gelu', expected 'tanh', 'relu' or 'identity'"},
    {"an activation that the cell has not", "{" REQUIRED ",\"activation\":\"identity\"}", TENSORS,
     56, "no net has 'cell' rnn, 'activation' identity"},
    {"an unknown key", "{" REQUIRED ",\"proj_size\":0}", TENSORS, 56, "the key 'proj_size' is not"},
    {"a key twice", "{" REQUIRED ",\"cell\":\"rnn\"}", TENSORS, 56, "the key 'cell' appears twice"},
    {"a size that is a string", "{\"input_size\":\"3\"}", TENSORS, 56, "'input_size': a whole"},
    {"a negative size", "{\"input_size\":-3}", TENSORS, 56, "'input_size': a whole number"},
    {"a size with a fraction", "{\"input_size\":3.5}", TENSORS, 56, "',' or '}' is expected"},
    {"a size that does not fit", "{\"input_size\":99999999999999999999}", TENSORS, 56,
     "'input_size': a number that is too large"},
    {"a size of 0", "{\"format\":1,\"cell\":\"rnn\",\"input_size\":0,\"hidden_size\":2}", TENSORS,
     56, "no net has 'cell' rnn, 'activation' tanh, 'input_size' 0"},
    {"no layers", "{" REQUIRED ",\"num_layers\":0}", TENSORS, 56, "'num_layers' 0"},
    {"bias that is a number", "{\"bias\":1}", TENSORS, 56, "'bias': true or false is expected"},
    {"bias that is a word", "{\"bias\":falsehood}", TENSORS, 56, "',' or '}' is expected"},
    {"bias cut short", "{\"bias\":tru", TENSORS, 56, "'bias': true or false is expected"},
    {"batch_first null", "{\"batch_first\":null}", TENSORS, 56, "'batch_first': true or false"},
    {"a leaky net of two layers", LEAKY_NET ",\"num_layers\":2}",
     TENSOR("alpha", "F32", "[2]", 0, 8), 8, "no net has 'cell' leaky"},
    {"leaky alpha of a layer", LEAKY_NET "}", TENSOR("alpha_l0", "F32", "[2]", 0, 8), 8,
     "'alpha_l0' does not belong"},
    {"leaky without alpha", LEAKY_NET "}", "", 0, "tensor 'alpha' is missing"},
    {"leaky alpha of a wrong shape", LEAKY_NET "}", TENSOR("alpha", "F32", "[2,1]", 0, 8), 8,
     "'alpha' has shape [2, 1], expected [2]"},

    {"no tensors", ARCHITECTURE, "", 0, "tensor 'weight_ih_l0' is missing"},
    {"no bias tensors", ARCHITECTURE, WEIGHTS, 40, "tensor 'bias_ih_l0' is missing"},
    {"unwanted biases", "{" REQUIRED ",\"bias\":false}", TENSORS, 56,
     "'bias_ih_l0' does not belong"},
    {"an alpha", ARCHITECTURE, TENSORS "," TENSOR("alpha_l0", "F32", "[2]", 56, 64), 64,
     "'alpha_l0' does not belong"},
    {"an extra tensor", ARCHITECTURE, TENSORS "," TENSOR("scale", "F32", "[]", 56, 60), 60,
     "'scale' does not belong"},
    {"an empty extra tensor", ARCHITECTURE, TENSORS "," TENSOR("weight", "F32", "[0]", 56, 56), 56,
     "'weight' does not belong"},
    {"a layer too many", ARCHITECTURE, TENSORS "," TENSOR("weight_ih_l1", "F32", "[2,2]", 56, 72),
     72, "'weight_ih_l1' does not belong"},
    {"a direction too many", ARCHITECTURE,
     TENSORS "," TENSOR("weight_ih_l0_reverse", "F32", "[2,3]", 56, 80), 80,
     "'weight_ih_l0_reverse' does not belong"},
    {"another name for layer 0", ARCHITECTURE,
     TENSORS "," TENSOR("weight_ih_l00", "F32", "[2,3]", 56, 80), 80, "'weight_ih_l00' does not"},
    {"a space before the layer", ARCHITECTURE,
     TENSORS "," TENSOR("weight_ih_l 0", "F32", "[2,3]", 56, 80), 80, "'weight_ih_l 0' does not"},
    {"a stem alone", ARCHITECTURE, TENSORS "," TENSOR("weight_ih_l", "F32", "[2,3]", 56, 80), 80,
     "'weight_ih_l' does not belong"},
    {"half a stem", ARCHITECTURE, TENSORS "," TENSOR("weight_i", "F32", "[2,3]", 56, 80), 80,
     "'weight_i' does not belong"},
    {"another suffix", ARCHITECTURE,
     TENSORS "," TENSOR("weight_ih_l0_reversed", "F32", "[2,3]", 56, 80), 80,
     "'weight_ih_l0_reversed' does not belong"},
    {"a missing layer", "{" REQUIRED ",\"num_layers\":2}", TENSORS, 56,
     "'weight_ih_l1' is missing"},
    {"2^60 layers", "{" REQUIRED ",\"num_layers\":1152921504606846976}", TENSORS, 56,
     "'weight_ih_l1' is missing"},
    {"a far layer", "{" REQUIRED ",\"num_layers\":1152921504606846976}",
     TENSORS "," TENSOR("weight_ih_l1152921504606846975", "F32", "[2,2]", 56, 72), 72,
     "'weight_ih_l1' is missing"},
    {"a layer between", "{" REQUIRED ",\"num_layers\":1152921504606846976}",
     TENSORS "," TENSOR("weight_ih_l1024", "F32", "[2,2]", 56, 72), 72,
     "'weight_ih_l1' is missing"},
    {"a layer whose number wraps", "{" REQUIRED ",\"num_layers\":4611686018427387905}",
     TENSOR("weight_ih_l4611686018427387904", "F32", "[2,2]", 0, 16) "," TENSOR(
         "weight_hh_l0", "F32", "[2,2]", 16, 32) "," TENSOR("bias_ih_l0", "F32", "[2]", 32, 40),
     40, "'weight_ih_l0' is missing"},
    {"a missing direction", "{" REQUIRED ",\"bidirectional\":true}", TENSORS, 56,
     "'weight_ih_l0_reverse' is missing"},
    {"another suffix where there are two directions", "{" REQUIRED ",\"bidirectional\":true}",
     TENSORS "," TENSOR("weight_ih_l0_backward", "F32", "[2,3]", 56, 80), 80,
     "'weight_ih_l0_backward' does not belong"},
    {"a hidden_size whose products do not fit",
     "{\"format\":1,\"cell\":\"lstm\",\"input_size\":3,\"hidden_size\":18446744073709551615}",
     TENSORS, 56, "18446744073709551615"},
    {"a hidden_size whose double does not fit",
     "{\"format\":1,\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":9223372036854775808,"
     "\"num_layers\":2,\"bidirectional\":true}",
     TENSOR("weight_ih_l1", "F32", "[2,3]", 0, 24), 24, "'hidden_size' 9223372036854775808"},
    {"another hidden_size", "{\"format\":1,\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":3}",
     TENSORS, 56, "'weight_ih_l0' has shape [2, 3], expected [3, 3]"},
    {"another cell", "{\"format\":1,\"cell\":\"lstm\",\"input_size\":3,\"hidden_size\":2}", TENSORS,
     56, "'weight_ih_l0' has shape [2, 3], expected [8, 3]"},
    {"another input_size", "{\"format\":1,\"cell\":\"rnn\",\"input_size\":2,\"hidden_size\":2}",
     TENSORS, 56, "'weight_ih_l0' has shape [2, 3], expected [2, 2]"},
    {"a vector as matrix", ARCHITECTURE,
     WEIGHTS "," TENSOR("bias_ih_l0", "F32", "[2,1]", 40, 48) "," TENSOR("bias_hh_l0", "F32", "[2]",
                                                                         48, 56),
     56, "'bias_ih_l0' has shape [2, 1], expected [2]"},
    {"integers", ARCHITECTURE, TENSOR("weight_ih_l0", "I32", "[2,3]", 0, 24), 24,
     "'weight_ih_l0' has dtype 'I32', expected 'F32' or 'F64'"},
    {"mixed dtypes", "{" REQUIRED ",\"bias\":false}",
     TENSOR("weight_ih_l0", "F32", "[2,3]", 0, 24) "," TENSOR("weight_hh_l0", "F64", "[2,2]", 24,
                                                              56),
     56, "'weight_hh_l0' has dtype 'F64', expected 'F32' like the first"},
};

static void test_architectures(void) {
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        build_header(header, nets[i].architecture, nets[i].tensors);
        check_open(frnn_model_open, nets[i].what, build_file(file, header, nets[i].data_size),
                   nets[i].message);
    }
    check_open(frnn_model_open, "no metadata", build_file(file, "{" TENSORS "}", 56),
               "no metadata key 'fastrnn'");
    check_open(frnn_model_open, "other metadata",
               build_file(file, "{\"__metadata__\":{\"format\":\"pt\"}," TENSORS "}", 56),
               "no metadata key 'fastrnn'");

    /* An architecture of 1024 characters, and one more. */
    memset(long_text, 0, sizeof long_text);
    strcpy(long_text, ARCHITECTURE);
    memset(long_text + strlen(long_text), ' ', 1024 - strlen(long_text));
    build_header(header, long_text, TENSORS);
    check_open(frnn_model_open, "1024 characters", build_file(file, header, 56), NULL);
    strcat(long_text, " ");
    build_header(header, long_text, TENSORS);
    check_open(frnn_model_open, "1025 characters", build_file(file, header, 56),
               "more than 1024 characters");
    sprintf(long_text, "{\"bias\":%1016s", "tru");
    build_header(header, long_text, TENSORS);
    check_open(frnn_model_open, "1024 characters, cut short", build_file(file, header, 56),
               "'bias': true or false is expected at byte 1021");
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
    test_deep_net();
    test_changed();
    test_architectures();
    test_alpha();
    return report();
}
