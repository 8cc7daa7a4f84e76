/* SPDX-License-Identifier: MIT
 *
 * The architecture of a net: the JSON object under the metadata key "fastrnn" of a model file.
 */
#ifndef FRNN_ARCHITECTURE_H
#define FRNN_ARCHITECTURE_H

#include "safetensors.h"

/* Fills in what the model is, from the value of that key as it stands in the file; dtype must be
 * there already. After an error some of it may be filled in. */
frnn_status frnn_architecture_read(frnn_model *model, frnn_span architecture);

#endif
