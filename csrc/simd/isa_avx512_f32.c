/* SPDX-License-Identifier: MIT */
#if defined(__x86_64__) || defined(_M_X64)
#define FRNN_ISA_AVX512
#define FRNN_REAL_F32
#define FRNN_TARGET   "avx512f,avx512vl,avx512bw,avx512dq,fma"
#define FRNN_ISA_NAME "avx512"
#define FRNN_TABLE    frnn_kernels_avx512_f32
#include "kernels.h"
#else
typedef int frnn_not_for_this_machine; /* ISO C wants a declaration */
#endif
