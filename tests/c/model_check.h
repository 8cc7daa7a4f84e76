/* SPDX-License-Identifier: MIT
 *
 * What the tests of model files have in common: counted checks, configurations, and files that are
 * opened to be accepted or refused.
 */
#ifndef FRNN_MODEL_CHECK_H
#define FRNN_MODEL_CHECK_H

#include "model_build.h"

#include <math.h>
#include <stdlib.h>

static int failures, checks;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        checks++;                                                                                  \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                 \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

/* Room for the largest headers of these tests and their data. */
enum { ROOM = 2 * FRNN_MODEL_MAX_HEADER };
static unsigned char file[2 * ROOM];

/* ---- Files ---------------------------------------------------------------------------------- */

typedef frnn_status open_function(frnn_model *model, const void *bytes, size_t size);

/* Opens a copy of a file, of exactly its size and at an odd address, for the sanitizer to see
 * what is read beside it; then the model is only good for its message. */
static inline frnn_status open_copy(open_function *open, frnn_model *model, size_t size) {
    unsigned char *copy = malloc(size + 1);
    memcpy(copy + 1, file, size);
    const frnn_status status = open(model, copy + 1, size);
    for (size_t i = 0; i < model->num_tensors; i++) {
        frnn_tensor tensor;
        CHECK(frnn_model_tensor(model, i, &tensor) == FRNN_OK, "tensor %zu", i);
    }
    free(copy);
    return status;
}

/* expected: a part of the message, or NULL if the file is valid. */
static inline void check_open(open_function *open, const char *what, size_t size,
                              const char *expected) {
    frnn_model model;
    memset(&model, 0x55, sizeof model);
    const frnn_status status = open_copy(open, &model, size);
    if (expected == NULL) {
        CHECK(status == FRNN_OK, "%s: %s", what, model.message);
        return;
    }
    CHECK(status == FRNN_E_FILE, "%s: status %d", what, status);
    CHECK(memchr(model.message, '\0', sizeof model.message) != NULL, "%s", what);
    CHECK(strstr(model.message, expected) != NULL, "%s: \"%s\" should have \"%s\"", what,
          model.message, expected);
    CHECK(model.num_tensors == 0 && model.bytes == NULL, "%s", what);
}

/* ---- Configurations ------------------------------------------------------------------------- */

/* In every bit. */
static inline int same_double(double a, double b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

static inline int same_function(const frnn_function *a, const frnn_function *b) {
    return a->kind == b->kind && same_double(a->alpha, b->alpha) && same_double(a->beta, b->beta);
}

/* Field by field: the padding between them holds anything. */
static inline int same_config(const frnn_config *a, const frnn_config *b) {
    return a->struct_size == b->struct_size && a->cell == b->cell && a->dtype == b->dtype &&
           a->input_size == b->input_size && a->hidden_size == b->hidden_size &&
           a->num_layers == b->num_layers && a->num_directions == b->num_directions &&
           a->proj_size == b->proj_size && a->peephole == b->peephole &&
           same_double(a->clip, b->clip) && same_double(a->cell_clip, b->cell_clip) &&
           same_function(&a->activation, &b->activation) &&
           same_function(&a->gate_activation, &b->gate_activation) &&
           same_function(&a->output_activation, &b->output_activation) &&
           a->num_delays == b->num_delays && memcmp(a->delays, b->delays, sizeof a->delays) == 0 &&
           memcmp(a->fractions, b->fractions, sizeof a->fractions) == 0 &&
           a->dilated == b->dilated && a->num_groups == b->num_groups &&
           memcmp(a->periods, b->periods, sizeof a->periods) == 0 &&
           memcmp(a->group_sizes, b->group_sizes, sizeof a->group_sizes) == 0 &&
           a->full == b->full && a->mask_blocks == b->mask_blocks;
}

static inline int is_lstm(frnn_cell cell) {
    return cell == FRNN_CELL_LSTM || cell == FRNN_CELL_LSTM_COUPLED;
}

/* An activation of some kind, with parameters that are no short fractions. */
static inline frnn_function some_function(unsigned number) {
    frnn_function function = {(frnn_activation)(number % FRNN_ACTIVATION_COUNT), 0, 0};
    const int parameters = functions[function.kind].parameters;
    function.alpha = parameters > 0 ? 1 / (3.0 + number) : 0;
    function.beta = parameters > 1 ? -1 / (7.0 + number) : 0;
    return function;
}

/* ---- Time structures ------------------------------------------------------------------------ */

/* The largest number of columns that are not all 0 within 16 rows of a mask. */
static inline size_t count_blocks(const frnn_config *net) {
    const size_t outputs = net->proj_size > 0 ? net->proj_size : net->hidden_size;
    size_t most = 0;
    for (size_t part = 0; part < net->num_layers * net->num_directions; part++) {
        size_t count = 0;
        for (size_t block = 0; block < net->hidden_size; block += 16)
            for (size_t output = 0; output < outputs; output++) {
                int any = 0;
                for (size_t unit = block; unit < block + 16 && unit < net->hidden_size; unit++)
                    any |= in_mask(net, part, unit, output);
                count += any != 0;
            }
        most = count > most ? count : most;
    }
    return most;
}

enum { STRUCTURES = 14 };

/* One of several time structures, on a net of at least 5 units that has none so far. */
static inline void set_structure(frnn_config *net, size_t number) {
    static const struct {
        size_t num_delays, delays[3];
        double fractions[3];
        int dilated;
        size_t num_groups, periods[3];
        int full, mask;
    } structures[STRUCTURES] = {
        {1, {7}, {0}, 0, 0, {0}, 0, 0},
        {2, {1, 8}, {0}, 0, 0, {0}, 0, 0},
        {3, {2, 3, 1000}, {0}, 0, 0, {0}, 0, 0},
        {1, {1}, {0.125}, 0, 0, {0}, 0, 0},
        {3, {1, 2, 4294967295}, {0.5, 7 / 3.0 - 2, 0x1p-20}, 0, 0, {0}, 0, 0},
        {3, {8, 1, 8}, {0}, 1, 0, {0}, 0, 0},
        {3, {3, 2, 1}, {0, 0.75, 0}, 1, 0, {0}, 0, 0},
        {0, {0}, {0}, 0, 1, {3}, 0, 0},
        {0, {0}, {0}, 0, 3, {1, 8, 2}, 0, 0},
        {0, {0}, {0}, 0, 3, {16, 4, 4}, 1, 0},
        {0, {0}, {0}, 0, 0, {0}, 0, 1},
        {2, {1, 3}, {0}, 0, 0, {0}, 0, 1},
        {3, {1, 5, 2}, {0}, 1, 0, {0}, 0, 1},
        {0, {0}, {0}, 0, 3, {4, 1, 2}, 0, 1},
    };
    net->num_delays = structures[number].num_delays;
    net->dilated = structures[number].dilated;
    if (net->dilated)
        net->num_delays = net->num_layers;
    net->num_groups = structures[number].num_groups;
    net->full = structures[number].full;
    for (size_t i = 0; i < net->num_delays; i++) {
        net->delays[i] = structures[number].delays[i];
        net->fractions[i] = structures[number].fractions[i];
    }
    for (size_t i = 0; i < net->num_groups; i++) {
        net->periods[i] = structures[number].periods[i];
        net->group_sizes[i] = i < 2 ? i + 1 : net->hidden_size - 3;
    }
    if (net->num_groups == 1)
        net->group_sizes[0] = net->hidden_size;
    net->mask_blocks = structures[number].mask ? count_blocks(net) : 0;
}

static inline int report(void) {
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}

#endif
