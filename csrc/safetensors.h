/* SPDX-License-Identifier: MIT
 *
 * safetensors files in memory, whatever they hold: the length N of the header in 8 bytes, N bytes
 * of JSON that say for each name its dtype, shape and place, and the data. What the tensors mean
 * is the business of model.c.
 */
#ifndef FRNN_SAFETENSORS_H
#define FRNN_SAFETENSORS_H

#include "fastrnn.h"
#include "json.h"

#define FRNN_SAFETENSORS_MAX_METADATA 1024 /* keys */

/* Writes a sentence into a message of FRNN_MESSAGE_SIZE bytes, cut where it does not fit, unless
 * message is NULL. Always returns FRNN_E_FILE. In the format
 *
 *   %s  const char *, as it is
 *   %q  frnn_span from the file: quoted, shortened, '?' for what is not printable ASCII
 *   %z  size_t
 *   %v  const size_t *, size_t: a shape and its rank
 */
#define FRNN_MESSAGE_SIZE sizeof(((frnn_model *)0)->message)
frnn_status frnn_refuse(char *message, const char *format, ...);

static inline frnn_span frnn_tensor_name(const frnn_tensor *tensor) {
    return (frnn_span){tensor->name, tensor->name_size};
}

static inline frnn_span frnn_tensor_dtype(const frnn_tensor *tensor) {
    return (frnn_span){tensor->dtype, tensor->dtype_size};
}

/* A walk over the tensors of a file, in the order of the header. It checks all that can be seen
 * in one entry, so that a walk is safe also over bytes that were never checked. */
typedef struct frnn_walk {
    frnn_json json;
    const char *data;
    size_t data_size;
    frnn_json metadata;     /* before its first key; begin == NULL: there is none so far */
    frnn_span architecture; /* value of the metadata key "fastrnn"; at == NULL: none so far */
    char *message;
} frnn_walk;

/* message may be NULL. */
frnn_status frnn_walk_begin(frnn_walk *walk, const void *bytes, size_t size, char *message);

/* 1 and a tensor; 0 after the last one; -1 and a message if the header is not valid. Only 1 may
 * be followed by another call. */
int frnn_walk_next(frnn_walk *walk, frnn_tensor *tensor);

/* Checks a whole file: each entry, that no name appears twice, and that the tensors cover the
 * data without holes and overlaps. Fills in the number of tensors and the architecture. */
frnn_status frnn_safetensors_check(const void *bytes, size_t size, char *message,
                                   size_t *num_tensors, frnn_span *architecture);

#endif
