/* SPDX-License-Identifier: MIT
 *
 * Runs a model file on a stream of float32 frames, step by step; see README.md. All memory is
 * static: on a device the model would be a constant array, and read() a sensor.
 */
#include "fastrnn.h"

#include <stdio.h>
#include <stdlib.h>

#define MODEL_BYTES (4 << 20)
#define FRAME       4096 /* the most values of a frame */

static _Alignas(FRNN_ALIGN) unsigned char file[MODEL_BYTES];
static _Alignas(FRNN_ALIGN) unsigned char packed[MODEL_BYTES];
static _Alignas(FRNN_ALIGN) unsigned char state[1 << 20];
static _Alignas(FRNN_ALIGN) unsigned char scratch[1 << 20];
static float x[FRAME], y[FRAME];

static void check(frnn_status status, const char *what) {
    if (status != FRNN_OK) {
        fprintf(stderr, "embed: %s: %s\n", what, frnn_strerror(status));
        exit(1);
    }
}

int main(int argc, char **argv) {
    FILE *input = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (input == NULL) {
        fprintf(stderr, "usage: embed MODEL.safetensors < input.f32 > output.f32\n");
        return 2;
    }
    size_t size = fread(file, 1, sizeof file, input);
    fclose(input);

    frnn_model model;
    if (frnn_model_open(&model, file, size) != FRNN_OK) {
        fprintf(stderr, "embed: %s: %s\n", argv[1], model.message);
        return 1;
    }
    const frnn_config *net = &model.config;
    size_t output_size = net->proj_size > 0 ? net->proj_size : net->hidden_size;
    if (net->dtype != FRNN_F32 || net->num_directions != 1 || model.go_backwards ||
        net->input_size > FRAME || output_size > FRAME) {
        fprintf(stderr, "embed: expected a float32 net that runs forward and frames up to %d\n",
                FRAME);
        return 1;
    }
    check(frnn_model_pack(&model, packed, sizeof packed), "weights");
    check(frnn_state_reset(net, 1, state, sizeof state), "state");

    frnn_run step = FRNN_RUN(net, 1, 1, x, y, state, sizeof state, scratch, sizeof scratch);
    while (fread(x, sizeof *x, net->input_size, stdin) == net->input_size) {
        check(frnn_forward(net, packed, sizeof packed, &step), "step");
        if (fwrite(y, sizeof *y, output_size, stdout) != output_size)
            return 1;
    }
    return 0;
}
