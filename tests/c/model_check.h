/* SPDX-License-Identifier: MIT
 *
 * What test_safetensors.c and test_model.c have in common: counted checks, and files that are
 * opened to be accepted or refused.
 */
#ifndef FRNN_MODEL_CHECK_H
#define FRNN_MODEL_CHECK_H

#include "model_build.h"

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
static char long_text[ROOM];
static unsigned char file[2 * ROOM];

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

static inline int report(void) {
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}

#endif
