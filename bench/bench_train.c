/* SPDX-License-Identifier: MIT
 *
 * Time of a training step through the public header: a forward that saves, and the backward with
 * the gradients of x, of the initial state and of all parameters, overwritten each time. Options
 * as of bench_forward. GFLOP/s count three times the forward.
 */
#include "layer.h"

typedef struct train {
    layer *l;
    frnn_back back;
    void *packed;
    size_t packed_size;
} train;

static void run_step(void *context) {
    train *s = context;
    const layer *l = s->l;
    const frnn_run *run = &l->run;
    frnn_back *back = &s->back;
    check(frnn_state_reset(&l->net, run->batch, run->state, run->state_size));
    check(frnn_forward(&l->net, l->packed, l->packed_size, run));
    check(frnn_adjoint_reset(&l->net, run->steps, run->batch, back->adjoint, back->adjoint_size));
    check(frnn_backward(&l->net, s->packed, s->packed_size, back));
}

static void measure(layer *l, double seconds) {
    const frnn_config *net = &l->net;
    frnn_run *run = &l->run;
    size_t steps = run->steps, batch = run->batch, rows = steps * batch;
    train s = {.l = l};
    frnn_weights weights = layer_weights(l);
    check(frnn_packed_back_size(net, &s.packed_size));
    s.packed = timing_alloc(s.packed_size);
    check(frnn_pack_back(net, &weights, s.packed, s.packed_size));

    size_t adjoint_size, scratch_size, sizes[LAYER_WEIGHTS];
    check(frnn_saved_size(net, steps, batch, &run->saved_size));
    check(frnn_adjoint_size(net, steps, batch, &adjoint_size));
    check(frnn_backward_scratch_size(net, steps, batch, &scratch_size));
    run->saved = timing_alloc(run->saved_size);
    void *adjoint = timing_alloc(adjoint_size), *scratch = timing_alloc(scratch_size);
    float *dx = timing_alloc(rows * net->input_size * sizeof *dx);
    float *dy = timing_random_f32(rows * layer_output_size(l), 1.0);
    float *arrays[LAYER_WEIGHTS];
    layer_weight_sizes(l, sizes);
    for (int i = 0; i < LAYER_WEIGHTS; i++)
        arrays[i] = sizes[i] != 0 ? timing_alloc(sizes[i] * sizeof(float)) : NULL;
    frnn_gradients gradients = {arrays[0], arrays[1], arrays[2], arrays[3],
                                arrays[4], arrays[5], arrays[6], {NULL}};
    frnn_back back = FRNN_BACK(net, steps, batch, l->x, dy, dx, run->saved, run->saved_size,
                               adjoint, adjoint_size, scratch, scratch_size);
    back.gradients = &gradients;
    s.back = back;

    layer_print(l, timing_run(run_step, &s, seconds), 3.0 * l->flops);
    for (int i = 0; i < LAYER_WEIGHTS; i++)
        free(arrays[i]);
    free(dx);
    free(dy);
    free(adjoint);
    free(scratch);
    free(run->saved);
    free(s.packed);
}

int main(int argc, char **argv) {
    return layer_main(argc, argv, "forward + backward", measure);
}
