/* SPDX-License-Identifier: MIT
 *
 * Random nets: what they are made of, their options and their time structures.
 */
#ifndef FRNN_NET_CHECK_H
#define FRNN_NET_CHECK_H

#include "check.h"
#include "fastrnn.h"

/* ---- Nets ----------------------------------------------------------------------------------- */

/* The arrays of frnn_weights and frnn_gradients, in their order; from DELAYED on the matrices of
 * the delays after the first. */
enum { WEIGHT_IH, WEIGHT_HH, BIAS_IH, BIAS_HH, ALPHA, WEIGHT_HR, PEEPHOLE, DELAYED, PARTS = 4 };
enum { KINDS = DELAYED + FRNN_MAX_DELAYS - 1 };

static inline frnn_weights weights_of(void *const at[KINDS], const unsigned char *mask) {
    frnn_weights w = {.weight_ih = at[WEIGHT_IH], .weight_hh = at[WEIGHT_HH]};
    w.bias_ih = at[BIAS_IH], w.bias_hh = at[BIAS_HH], w.alpha = at[ALPHA];
    w.weight_hr = at[WEIGHT_HR], w.peephole = at[PEEPHOLE], w.mask = mask;
    for (size_t i = 0; i < FRNN_MAX_DELAYS - 1; i++)
        w.delayed[i] = at[DELAYED + i];
    return w;
}

static inline frnn_gradients gradients_of(void *const at[KINDS]) {
    frnn_gradients g = {.weight_ih = at[WEIGHT_IH], .weight_hh = at[WEIGHT_HH]};
    g.bias_ih = at[BIAS_IH], g.bias_hh = at[BIAS_HH], g.alpha = at[ALPHA];
    g.weight_hr = at[WEIGHT_HR], g.peephole = at[PEEPHOLE];
    for (size_t i = 0; i < FRNN_MAX_DELAYS - 1; i++)
        g.delayed[i] = at[DELAYED + i];
    return g;
}

static inline int is_lstm(const frnn_config *net) {
    return net->cell == FRNN_CELL_LSTM || net->cell == FRNN_CELL_LSTM_COUPLED;
}

static inline int is_gru(const frnn_config *net) {
    return net->cell == FRNN_CELL_GRU || net->cell == FRNN_CELL_GRU_RESET_BEFORE;
}

/* Values of h, and of a state array: h (or u), c. */
static inline size_t output_size(const frnn_config *net) {
    return net->proj_size > 0 ? net->proj_size : net->hidden_size;
}

static inline size_t state_width(const frnn_config *net, size_t index) {
    return index == 0 ? output_size(net) : net->hidden_size;
}

static inline size_t part_input(const frnn_config *net, size_t part) {
    return part < net->num_directions ? net->input_size : net->num_directions * output_size(net);
}

/* ---- Time structures of nets ----------------------------------------------------------------- */

/* Delays of a layer, of which there is at least one. */
static inline size_t delay_count(const frnn_config *net) {
    return net->dilated || net->num_delays == 0 ? 1 : net->num_delays;
}

static inline size_t delay_of(const frnn_config *net, size_t layer, size_t i) {
    return net->num_delays == 0 ? 1 : net->delays[net->dilated ? layer : i];
}

static inline double fraction_of(const frnn_config *net, size_t layer, size_t i) {
    return net->fractions[net->dilated ? layer : i];
}

/* Steps that go side by side: a stretch of a backward has a multiple of them. */
static inline size_t span_of(const frnn_config *net, size_t layer) {
    const size_t shortest = delay_of(net, layer, 0);
    for (size_t i = 0; i < delay_count(net); i++)
        if (delay_of(net, layer, i) % shortest != 0 || fraction_of(net, layer, i) > 0)
            return 1;
    return shortest;
}

/* Steps of a layer that an array of a state holds; those of all layers and directions, and to which
 * of these one belongs. */
static inline size_t part_slots(const frnn_config *net, size_t part, size_t index) {
    const size_t layer = part / net->num_directions, i = index == 0 ? delay_count(net) - 1 : 0;
    return delay_of(net, layer, i) + (fraction_of(net, layer, i) > 0);
}

static inline size_t state_slots(const frnn_config *net, size_t index) {
    size_t slots = 0;
    for (size_t i = 0; i < net->num_layers * net->num_directions; i++)
        slots += part_slots(net, i, index);
    return slots;
}

static inline size_t slot_part(const frnn_config *net, size_t index, size_t slot) {
    size_t part = 0;
    for (; slot >= part_slots(net, part, index); part++)
        slot -= part_slots(net, part, index);
    return part;
}

/* The period of a unit; 1 without clocks. */
static inline size_t period_of(const frnn_config *net, size_t unit) {
    size_t end = 0;
    for (size_t i = 0; i < net->num_groups; i++)
        if (unit < (end += net->group_sizes[i]))
            return net->periods[i];
    return 1;
}

/* Whether clocks let a unit read an output. */
static inline int clocks_connect(const frnn_config *net, size_t unit, size_t output) {
    return net->num_groups == 0 || net->full || period_of(net, output) >= period_of(net, unit);
}

/* ---- Sizes of nets ----------------------------------------------------------------------------
 */

/* Elements of a parameter; 0 if the net does not have it. */
static inline size_t param_count(const frnn_config *net, size_t part, size_t kind) {
    const frnn_cell_info *const cell = frnn_cell_get(net->cell);
    const size_t H = net->hidden_size, rows = cell->gates * H;
    const size_t recurrent = net->cell == FRNN_CELL_MINGRU ? 0 : rows;
    const size_t counts[DELAYED] = {rows * part_input(net, part),
                                    recurrent * output_size(net),
                                    rows,
                                    recurrent,
                                    cell->alpha ? H : 0,
                                    net->proj_size * H,
                                    net->peephole ? rows - H : 0};
    if (kind < DELAYED)
        return counts[kind];
    return kind - DELAYED + 1 < delay_count(net) ? counts[WEIGHT_HH] : 0;
}

/* Multiplications of a forward, about; and what it takes to handle a state. */
static inline double work(const frnn_config *net, size_t steps, size_t batch) {
    const double H = (double)net->hidden_size, D = (double)net->num_directions;
    const double inputs = (double)net->input_size + (double)(net->num_layers - 1) * (D + 1) * H;
    const double G = (double)frnn_cell_get(net->cell)->gates, d = (double)delay_count(net);
    const double slots = net->num_delays > 0 ? (double)state_slots(net, 0) : 0;
    return (double)(steps * batch) * D * H * (4 + G * (inputs + d * H) + (double)net->proj_size) +
           (double)batch * slots * (H + 16) * 16;
}

/* ---- Options ----------------------------------------------------------------------------------
 */

/* Parameters at which slopes are 1 at most. */
static inline frnn_function function_of(size_t number) {
    static const double parameters[FRNN_ACTIVATION_COUNT][2] = {
        [FRNN_HARD_SIGMOID] = {0.2, 0.5},  [FRNN_AFFINE] = {-0.75, 0.25},
        [FRNN_LEAKY_RELU] = {0.125, 0},    [FRNN_THRESHOLDED_RELU] = {0.25, 0},
        [FRNN_SCALED_TANH] = {1.5, 0.625}, [FRNN_ELU] = {0.5, 0}};
    const frnn_activation kind = (frnn_activation)(number % FRNN_ACTIVATION_COUNT);
    return (frnn_function){kind, parameters[kind][0], parameters[kind][1]};
}

static inline frnn_function any_function(void) {
    return function_of(below(FRNN_ACTIVATION_COUNT));
}

/* Whether a gate may leave [0, 1]: then a state may grow from step to step, and so does what it
 * differs by from another computation of it. */
static inline int is_wild(const frnn_config *net) {
    const frnn_activation gate = net->gate_activation.kind;
    return (is_lstm(net) || is_gru(net)) && gate != FRNN_SIGMOID && gate != FRNN_HARD_SIGMOID;
}

/* Some of the options that the cell has, or none. Gates that may leave [0, 1] go with limits: if a
 * state multiplied itself step by step, no error would have a bound. */
static inline void draw_options(frnn_config *net) {
    static const double limits[] = {0.25, 0.5, 0.75};
    if (net->cell == FRNN_CELL_LEAKY || below(3) == 0)
        return;
    if (below(2) == 0)
        net->activation = any_function();
    if (below(4) == 0 && net->cell != FRNN_CELL_LEAKY_POTENTIAL)
        net->clip = limits[below(3)];
    if (!is_lstm(net) && !is_gru(net))
        return;
    if (below(3) == 0)
        net->gate_activation = any_function();
    const int wild = is_wild(net);
    if (wild)
        net->clip = limits[below(3)];
    if (is_gru(net))
        return;
    net->proj_size = below(2) * (1 + below(net->hidden_size + 2));
    net->peephole = below(2) > 0;
    net->cell_clip = wild || below(3) == 0 ? limits[below(3)] : 0;
    if (below(3) == 0)
        net->output_activation = any_function();
}

/* Delays of a net whose layers are set: multiples of the shortest, or not; some longer than most
 * sequences. A dilated net has up to PARTS of its own layers. */
static inline void draw_delays(frnn_config *net, int fractions) {
    static const size_t steps[] = {1, 1, 2, 2, 3, 4, 5, 7, 8, 12, 16, 19, 33, 70};
    const size_t how = below(4), shortest = steps[below(sizeof steps / sizeof *steps)];
    net->dilated = how == 0;
    if (net->dilated)
        net->num_layers = 1 + below(PARTS / net->num_directions);
    const size_t several = how > 1 && net->cell != FRNN_CELL_MINGRU ? 1 + below(4) : 1;
    net->num_delays = net->dilated ? net->num_layers : several;
    for (size_t i = 0; i < net->num_delays; i++) {
        const size_t more = how == 2 ? shortest * (1 + below(3)) : 1 + below(9);
        net->delays[i] = net->dilated ? steps[below(9)]
                         : i == 0     ? shortest
                                      : net->delays[i - 1] + more;
        net->fractions[i] = fractions ? (double)below(4) / 4 : 0;
    }
}

/* Groups of any sizes, in any order. */
static inline void draw_groups(frnn_config *net) {
    const size_t H = net->hidden_size, most = H < 20 ? H : 20;
    const size_t count = 1 + below(below(16) > 0 && most > 5 ? 5 : most), how = below(3);
    size_t left = H;
    net->num_groups = count;
    net->full = below(3) == 0;
    for (size_t i = 0; i < count; i++) {
        const size_t others = count - 1 - i, most_units = left - others;
        net->group_sizes[i] = others == 0 ? left : 1 + below(2 * most_units / (others + 2) + 1);
        if (net->group_sizes[i] > most_units)
            net->group_sizes[i] = most_units;
        left -= net->group_sizes[i];
        net->periods[i] = how == 0   ? (size_t)1 << i % 8
                          : how == 1 ? (size_t)1 << below(6)
                                     : 1 + below(9);
    }
}

/* A time structure that the cell can have, or none, of a net that has everything else. With a mask
 * problem_new() draws what it looks like. */
static inline void draw_structure(frnn_config *net, int fractions) {
    const int clocks = net->proj_size == 0 && net->cell != FRNN_CELL_GRU_RESET_BEFORE;
    if (net->cell == FRNN_CELL_LEAKY || below(2) == 0)
        return;
    const size_t which = below(7);
    if (which < 3 && clocks)
        draw_groups(net);
    else if (which < 6)
        draw_delays(net, fractions && below(2) == 0);
    net->mask_blocks = net->cell != FRNN_CELL_MINGRU && (which == 6 || below(3) == 0);
}

/* A small net in which function number `first` is the activation, and those after it what else the
 * cell has. */
static inline frnn_config net_of_functions(frnn_cell cell, frnn_dtype dtype, size_t first) {
    frnn_config net = FRNN_CONFIG(cell, 3, 2 + below(20));
    net.dtype = dtype;
    net.num_directions = 1 + below(2);
    net.activation = function_of(first);
    if (is_lstm(&net) || is_gru(&net)) {
        net.gate_activation = function_of(first + 1);
        net.clip = 0.75;
    }
    if (is_lstm(&net)) {
        net.cell_clip = 0.75;
        net.peephole = (int)below(2);
        net.output_activation = function_of(first + 2);
    }
    return net;
}

/* Every option that the cell has, of a net of five units. */
static inline void set_options(frnn_config *net) {
    if (net->cell == FRNN_CELL_LEAKY)
        return;
    net->activation = (frnn_function){FRNN_ELU, 0.5, 0};
    if (net->cell != FRNN_CELL_LEAKY_POTENTIAL)
        net->clip = 0.75;
    if (is_lstm(net) || is_gru(net))
        net->gate_activation = (frnn_function){FRNN_HARD_SIGMOID, 0.2, 0.5};
    if (!is_lstm(net))
        return;
    net->proj_size = 3;
    net->peephole = 1;
    net->cell_clip = 0.5;
    net->output_activation = (frnn_function){FRNN_SOFTSIGN, 0, 0};
}

/* Delays, or clocks where the cell can have them, and a mask where it can: of a net of five units
 * that has no options. */
static inline void set_structure(frnn_config *net, int delays) {
    const int recurrent = net->cell != FRNN_CELL_MINGRU;
    if (net->cell == FRNN_CELL_LEAKY)
        return;
    net->mask_blocks = recurrent;
    if (delays || net->cell == FRNN_CELL_GRU_RESET_BEFORE) {
        net->num_delays = recurrent ? 2 : 1;
        net->delays[0] = 1;
        net->delays[1] = recurrent ? 3 : 0;
        return;
    }
    net->num_groups = 2;
    net->periods[0] = 1, net->periods[1] = 2;
    net->group_sizes[0] = 2, net->group_sizes[1] = 3;
}

/* Nets with the options that set_options() sets, but for one; 0 if there is no such number. */
static inline int other_options(frnn_config *net, int number) {
    const int lstm = is_lstm(net), gates = lstm || is_gru(net);
    const int gated = net->cell != FRNN_CELL_LEAKY;
    const struct {
        int there;
        double *real;
        frnn_activation *kind;
    } options[] = {{gated, &net->activation.alpha, NULL},
                   {gated && net->cell != FRNN_CELL_LEAKY_POTENTIAL, &net->clip, NULL},
                   {gates, &net->gate_activation.alpha, NULL},
                   {gates, &net->gate_activation.beta, NULL},
                   {lstm, &net->cell_clip, NULL},
                   {gated, NULL, &net->activation.kind},
                   {gates, NULL, &net->gate_activation.kind},
                   {lstm, NULL, &net->output_activation.kind}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (!options[i].there || number-- > 0)
            continue;
        if (options[i].real != NULL)
            *options[i].real += 0.125;
        else /* one that has the same parameters */
            *options[i].kind = *options[i].kind == FRNN_ELU            ? FRNN_LEAKY_RELU
                               : *options[i].kind == FRNN_HARD_SIGMOID ? FRNN_AFFINE
                                                                       : FRNN_RELU;
        return 1;
    }
    net->proj_size += 1;
    return lstm && number == 0;
}

/* What is being tested: the net and the call, after the name of the instruction set. */
static inline int say_net(const frnn_config *net, size_t steps, size_t batch, const char *isa) {
    const frnn_function *const f = &net->activation;
    int n =
        snprintf(where, sizeof where,
                 "%s %s f%d I %zu H %zu P %zu L %zu D %zu T %zu B %zu f() %d s() %d e() %d "
                 "peephole %d clip %g cell_clip %g",
                 isa, frnn_cell_get(net->cell)->name, net->dtype == FRNN_F32 ? 32 : 64,
                 net->input_size, net->hidden_size, net->proj_size, net->num_layers,
                 net->num_directions, steps, batch, (int)f->kind, (int)net->gate_activation.kind,
                 (int)net->output_activation.kind, net->peephole, net->clip, net->cell_clip);
    for (size_t i = 0; i < net->num_delays; i++)
        n += snprintf(where + n, sizeof where - (size_t)n, "%s%g",
                      i > 0          ? ","
                      : net->dilated ? " dilations "
                                     : " delays ",
                      (double)net->delays[i] + net->fractions[i]);
    for (size_t i = 0; i < net->num_groups && i < 16; i++)
        n += snprintf(where + n, sizeof where - (size_t)n, "%s%zu x %zu",
                      i > 0       ? ","
                      : net->full ? " full clocks "
                                  : " clocks ",
                      net->group_sizes[i], net->periods[i]);
    return n + snprintf(where + n, sizeof where - (size_t)n, net->mask_blocks > 0 ? " mask" : "");
}

#endif
