/* SPDX-License-Identifier: MIT */
#define FRNN_ISA_SCALAR
#define FRNN_REAL_F64
#define FRNN_ISA_NAME "scalar"
#define FRNN_TABLE    frnn_kernels_scalar_f64
#include "kernels.h"
