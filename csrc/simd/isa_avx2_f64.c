/* SPDX-License-Identifier: MIT */
#if defined(__x86_64__) || defined(_M_X64)
#define FRNN_ISA_AVX2
#define FRNN_REAL_F64
#define FRNN_TARGET   "avx2,fma"
#define FRNN_ISA_NAME "avx2"
#define FRNN_TABLE    frnn_kernels_avx2_f64
#include "kernels.h"
#else
typedef int frnn_not_for_this_machine; /* ISO C wants a declaration */
#endif
