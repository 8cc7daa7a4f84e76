/* SPDX-License-Identifier: MIT
 *
 * Nets with given time structures, of 20 units: two blocks.
 */
#ifndef FRNN_STRUCTURE_CHECK_H
#define FRNN_STRUCTURE_CHECK_H

#include "train_check.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static inline frnn_config net_new(frnn_cell cell) {
    frnn_config net = FRNN_CONFIG(cell, 3, 20);
    net.input_size = frnn_cell_get(cell)->gates > 0 ? 3 : 20;
    return net;
}

static inline frnn_config with_delays(frnn_cell cell, size_t count, const size_t *delays) {
    frnn_config net = net_new(cell);
    net.num_delays = count;
    for (size_t i = 0; i < count; i++)
        net.delays[i] = delays[i];
    return net;
}

static inline frnn_config with_clocks(frnn_cell cell) {
    frnn_config net = net_new(cell);
    net.num_groups = 3;
    net.periods[0] = 1, net.periods[1] = 3, net.periods[2] = 2;
    net.group_sizes[0] = 5, net.group_sizes[1] = 8, net.group_sizes[2] = 7;
    return net;
}

#endif
