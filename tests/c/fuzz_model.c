/* SPDX-License-Identifier: MIT
 *
 * Fuzzing of model files: opens the input in both ways and uses all that came out of it.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -Icsrc tests/c/fuzz_model.c csrc/[*].c ...
 *     gcc -g -O1 -fsanitize=address,undefined -DSTANDALONE -Icsrc tests/c/fuzz_model.c ...
 *
 * The second has a main of its own, that mutates valid files: [number of inputs [seed]].
 */
#include "model_build.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Must hold. Unlike an assert it stays in every build. */
static void need(int condition) {
    if (!condition)
        abort();
}

static _Alignas(FRNN_ALIGN) char packed[1 << 20];

static void use_tensors(const frnn_model *model, const uint8_t *bytes, size_t size) {
    frnn_tensor tensor;
    size_t total = 0;
    for (size_t i = 0; i < model->num_tensors; i++) {
        need(frnn_model_tensor(model, i, &tensor) == FRNN_OK);
        const uint8_t *data = tensor.data, *name = (const uint8_t *)tensor.name;
        need(name >= bytes + 8 && tensor.name_size < size);
        need(data >= name + tensor.name_size && data <= bytes + size);
        need(tensor.data_size <= (size_t)(bytes + size - data));
        need(tensor.rank <= FRNN_MODEL_MAX_RANK && tensor.dtype_size <= 8);
        total += tensor.data_size;
    }
    need(frnn_model_tensor(model, model->num_tensors, &tensor) == FRNN_E_ARG);
    need(total < size);
}

static void use_net(const frnn_model *model) {
    const frnn_config *net = &model->config;
    size_t packed_size;
    frnn_weights weights;
    need(frnn_config_check(net) == FRNN_OK);
    need(net->num_layers * net->num_directions <= model->num_tensors);
    for (size_t layer = 0; layer < net->num_layers; layer++)
        for (size_t direction = 0; direction < net->num_directions; direction++) {
            need(frnn_model_weights(model, layer, direction, &weights) == FRNN_OK);
            need((weights.mask != NULL) == (net->mask_blocks > 0));
            for (size_t i = 1; i < FRNN_MAX_DELAYS; i++)
                need((weights.delayed[i - 1] != NULL) == (!net->dilated && i < net->num_delays));
        }
    need(frnn_packed_size(net, &packed_size) == FRNN_OK);
    if (packed_size <= sizeof packed)
        need(frnn_model_pack(model, packed, packed_size) == FRNN_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    frnn_model model;
    if (bytes == NULL)
        return 0;
    const frnn_status tensors = frnn_model_open_tensors(&model, bytes, size);
    need(tensors == FRNN_OK || (tensors == FRNN_E_FILE && model.message[0] != '\0'));
    use_tensors(&model, bytes, tensors == FRNN_OK ? size : 1);
    const frnn_status net = frnn_model_open(&model, bytes, size);
    need(net == FRNN_OK || (net == FRNN_E_FILE && model.message[0] != '\0'));
    if (net == FRNN_OK) {
        need(tensors == FRNN_OK);
        use_net(&model);
    }
    return 0;
}

#ifdef STANDALONE

static uint64_t random_state;

/* xorshift64 */
static size_t random_below(size_t limit) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)((random_state >> 11) % limit);
}

enum { ROOM = 1 << 14 };

typedef struct input {
    size_t size, header_size;
    unsigned char bytes[ROOM];
} input;

static void replace(input *input, size_t at, size_t count, const char *text, size_t size) {
    if (at + count > input->size || input->size - count + size > ROOM)
        return;
    memmove(input->bytes + at + size, input->bytes + at + count, input->size - at - count);
    memcpy(input->bytes + at, text, size);
    input->size = input->size - count + size;
}

/* Changes the header, mostly so that it stays nearly valid. */
static void mutate(input *input) {
    static const char metadata[] = "\"__metadata__\":{},";
    static const char empty[] = TENSOR("x", "F32", "[0]", 0, 0) ",";
    static const char large[] = "18446744073709551615", wraps[] = "4611686018427387904";
    static const char clocks[] = ", \\\"periods\\\": [1, 2], \\\"group_sizes\\\": [1, 1]";
    static const char dilated[] = ", \\\"dilated\\\": true", mask[] = "recurrent_mask_l0";
    static const char *const pieces[] = {
        "\"",        "{",         "}",          "[",       "]",         ",",        ":",
        "\\",        "\\\"",      "0",          "1",       "8",         "-",        " ",
        "true",      "false",     "F32",        "F64",     "I64",       "\x01",     "e9",
        "_l0",       "_l1",       "_reverse",   "lstm",    "gru",       "mingru",   "leaky",
        "_coupled",  "\\u0041",   "\xc3\xa9",   "relu",    "elu",       "BF16",     "alpha",
        "\xed\xa0",  "weight_hr", "peephole",   "clip",    "proj_size", "_before",  "0x1.8p+1",
        "-0x0.0p+0", "(",         "0x1.8p-999", "affine",  "p+1023",    ")",        ", 0x1.0p+0",
        "_d2",       "_d",        "delays",     "periods", "_sizes",    "slower",   "full",
        "BOOL",      ", 1",       ", 2]",       "[1, ",    "dilated",   "0x1.1p+1", "_mask",
        metadata,    empty,       large,        wraps,     clocks,      dilated,    mask};
    if (input->header_size > input->size - 8)
        input->header_size = input->size - 8;
    if (input->header_size == 0)
        return;
    const size_t before = input->size, at = 8 + random_below(input->header_size);
    const char *piece = pieces[random_below(sizeof pieces / sizeof *pieces)];
    switch (random_below(7)) {
    case 0:
        input->bytes[random_below(input->size)] ^= (unsigned char)(1u << random_below(8));
        break;
    case 1:
        input->bytes[at] = (unsigned char)('0' + random_below(10));
        break;
    case 2:
        replace(input, at, 0, piece, strlen(piece));
        break;
    case 3:
        replace(input, at, strlen(piece), piece, strlen(piece));
        break;
    case 4:
        replace(input, at, 1 + random_below(16), "", 0);
        break;
    case 5: { /* a stretch of the header once more, elsewhere */
        char stretch[128];
        const size_t size = 1 + random_below(sizeof stretch);
        const size_t from = 8 + random_below(input->header_size);
        if (from + size > input->size)
            return;
        memcpy(stretch, input->bytes + from, size);
        replace(input, at, 0, stretch, size);
        break;
    }
    default: /* data more or less */
        input->size = 8 + random_below(input->size - 8);
        return;
    }
    input->header_size += input->size - before;
    if (random_below(64) > 0) /* the length follows what was inserted */
        for (size_t i = 0; i < 8; i++)
            input->bytes[i] = (unsigned char)((uint64_t)input->header_size >> 8 * i);
}

/* A time structure, if the cell has it. */
static void seed_structure(frnn_config *net) {
    const frnn_config plain = *net;
    switch (random_below(4)) {
    case 0:
        net->num_delays = 1 + random_below(4);
        for (size_t i = 0, delay = 0; i < net->num_delays; i++) {
            net->delays[i] = delay += 1 + random_below(3);
            net->fractions[i] = random_below(4) > 0 ? 0 : 0.75;
        }
        break;
    case 1:
        net->dilated = 1;
        net->num_delays = net->num_layers;
        for (size_t i = 0; i < net->num_delays; i++)
            net->delays[i] = 1 + random_below(9);
        break;
    case 2:
        net->num_groups = 1 + random_below(2);
        for (size_t i = 0; i < net->num_groups; i++) {
            net->periods[i] = 1 + random_below(9);
            net->group_sizes[i] = 2 / net->num_groups;
        }
        net->full = (int)random_below(2);
        break;
    default:
        break;
    }
    net->mask_blocks = random_below(3) == 0;
    if (frnn_config_check(net) != FRNN_OK)
        *net = plain;
}

static void seed(input *input) {
    static char header[ROOM], tensors[ROOM];
    const frnn_cell cell = (frnn_cell)random_below(FRNN_CELL_COUNT);
    frnn_config net = FRNN_CONFIG(cell, 2, 2);
    net.dtype = (frnn_dtype)random_below(FRNN_DTYPE_COUNT);
    if (frnn_cell_get(net.cell)->gates > 0) {
        net.num_layers = 1 + random_below(3);
        net.num_directions = 1 + random_below(2);
        net.activation.kind = random_below(2) ? FRNN_RELU : net.activation.kind;
        if (net.cell != FRNN_CELL_LEAKY_POTENTIAL)
            net.clip = random_below(2) ? 0.1 : 0;
    }
    if (net.cell == FRNN_CELL_LSTM || net.cell == FRNN_CELL_LSTM_COUPLED) {
        net.proj_size = random_below(4);
        net.peephole = (int)random_below(2);
        net.cell_clip = random_below(2) ? 7.1 : 0;
        net.gate_activation = (frnn_function){FRNN_HARD_SIGMOID, 1 / 6.0, 0.5};
        net.output_activation = (frnn_function){FRNN_ELU, 0.1, 0};
    }
    if (random_below(2))
        seed_structure(&net);
    input->size = build_model(input->bytes, header, tensors, &net, (int)random_below(2), NULL);
    input->header_size = strlen(header);
}

int main(int argc, char **argv) {
    const unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    random_state = argc > 2 ? strtoull(argv[2], NULL, 10) | 1 : 1;
    unsigned long opened = 0;
    static input input;
    for (unsigned long i = 0; i < count; i++) {
        frnn_model model;
        seed(&input);
        for (size_t mutations = random_below(4); mutations > 0; mutations--)
            mutate(&input);
        /* A copy of exactly that size, so that the sanitizer sees what is read behind it. */
        uint8_t *bytes = malloc(input.size + 1);
        memcpy(bytes + 1, input.bytes, input.size);
        LLVMFuzzerTestOneInput(bytes + 1, input.size);
        opened += frnn_model_open(&model, bytes + 1, input.size) == FRNN_OK;
        free(bytes);
    }
    printf("%lu inputs, %lu of them valid nets\n", count, opened);
    return 0;
}

#endif
