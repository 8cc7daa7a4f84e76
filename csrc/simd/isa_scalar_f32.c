/* SPDX-License-Identifier: MIT */
#define FRNN_ISA_SCALAR
#define FRNN_REAL_F32
#define FRNN_ISA_NAME "scalar"
#define FRNN_TABLE    frnn_kernels_scalar_f32
#include "kernels.h"
