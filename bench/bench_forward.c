/* SPDX-License-Identifier: MIT
 *
 * Time of frnn_forward through the public header, float32, one layer, one thread:
 *
 *     bench_forward [-c CELL] [-p PROJ_SIZE] [-k PEEPHOLE] [-s SECONDS] I,H,B,T ...
 *
 * CELL is a name of the table of cells (default lstm), PROJ_SIZE (default 0: no projection) and
 * PEEPHOLE (0 or 1) are of LSTMs, SECONDS is the time to spend on each shape (default 0.2). The
 * shapes that everything measures: $(python fastrnn/bench/shapes.py).
 */
#include "layer.h"

static void run_forward(void *context) {
    layer *l = context;
    check(frnn_forward(&l->net, l->packed, l->packed_size, &l->run));
}

static void measure(layer *l, double seconds) {
    layer_print(l, timing_run(run_forward, l, seconds), l->flops);
}

int main(int argc, char **argv) {
    return layer_main(argc, argv, "forward", measure);
}
