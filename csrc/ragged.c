/* SPDX-License-Identifier: MIT
 *
 * Ragged batches: rows of different lengths, and rows that start anew. Sorted by length, those that
 * take part in a visit are always the first ones, whichever end a direction starts from.
 */
#include "internal.h"

int frnn_ragged_size(size_t steps, size_t batch, size_t *size) {
    size_t order, length, offset;
    *size = 0;
    return frnn_append(size, &order, batch, 1, 1, sizeof(size_t)) &&
           frnn_append(size, &length, batch, 1, 1, sizeof(size_t)) && frnn_add(&steps, 1) &&
           frnn_append(size, &offset, steps, 1, 1, sizeof(size_t));
}

int frnn_ragged_legal(const size_t *lengths, size_t steps, size_t batch) {
    for (size_t b = 0; lengths != NULL && b < batch; b++)
        if (lengths[b] > steps)
            return 0;
    return 1;
}

/* The longest first, rows of one length in their order (Shell 1959). */
static void sort(const size_t *lengths, size_t *order, size_t batch) {
    size_t gap = 1;
    while (gap < batch / 3)
        gap = 3 * gap + 1;
    for (; gap > 0; gap /= 3)
        for (size_t i = gap; i < batch; i++) {
            const size_t row = order[i];
            size_t j = i;
            for (; j >= gap; j -= gap) {
                const size_t other = order[j - gap];
                if (lengths[other] > lengths[row] ||
                    (lengths[other] == lengths[row] && other < row))
                    break;
                order[j] = other;
            }
            order[j] = row;
        }
}

frnn_ragged frnn_ragged_begin(void *memory, size_t steps, size_t batch, const size_t *lengths,
                              const unsigned char *reset) {
    size_t end = 0, at[3];
    frnn_append(&end, &at[0], batch, 1, 1, sizeof(size_t));
    frnn_append(&end, &at[1], batch, 1, 1, sizeof(size_t));
    frnn_append(&end, &at[2], steps + 1, 1, 1, sizeof(size_t));
    size_t *const order = (size_t *)(void *)((char *)memory + at[0]);
    size_t *const length = (size_t *)(void *)((char *)memory + at[1]);
    size_t *const offset = (size_t *)(void *)((char *)memory + at[2]);
    for (size_t b = 0; b < batch; b++)
        order[b] = b;
    if (lengths != NULL)
        sort(lengths, order, batch);
    for (size_t b = 0; b < batch; b++)
        length[b] = lengths != NULL ? lengths[order[b]] : steps;
    size_t rows = batch;
    offset[0] = 0;
    for (size_t visit = 0; visit < steps; visit++) {
        while (rows > 0 && length[rows - 1] <= visit)
            rows--;
        offset[visit + 1] = offset[visit] + rows;
    }
    const frnn_ragged ragged = {
        .steps = steps,
        .batch = batch,
        .visits = batch > 0 ? length[0] : 0,
        .order = order,
        .length = length,
        .offset = offset,
        .lengths = lengths,
        .reset = reset,
    };
    return ragged;
}

int frnn_ragged_restarts(const frnn_ragged *ragged, size_t row, size_t visit, int reverse) {
    if (ragged->reset == NULL || visit == 0)
        return 0;
    /* in reverse the cut lies between the step of the visit and the one above it */
    const size_t step = frnn_ragged_time(ragged, row, visit, reverse) + (reverse != 0);
    return ragged->reset[step * ragged->batch + ragged->order[row]] != 0;
}

int frnn_ragged_any_restart(const frnn_ragged *ragged, size_t visit, int reverse) {
    if (ragged->reset == NULL || visit == 0)
        return 0;
    for (size_t row = 0; row < frnn_ragged_rows(ragged, visit); row++)
        if (frnn_ragged_restarts(ragged, row, visit, reverse))
            return 1;
    return 0;
}

void frnn_ragged_sort(const frnn_ragged *ragged, const char *from, char *to, size_t bytes) {
    for (size_t row = 0; row < ragged->batch; row++)
        memcpy(to + row * bytes, from + ragged->order[row] * bytes, bytes);
}

void frnn_ragged_unsort(const frnn_ragged *ragged, const char *from, char *to, size_t bytes) {
    for (size_t row = 0; row < ragged->batch; row++)
        memcpy(to + ragged->order[row] * bytes, from + row * bytes, bytes);
}
