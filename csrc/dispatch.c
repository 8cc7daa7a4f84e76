/* SPDX-License-Identifier: MIT
 *
 * Which instruction set runs: what the processor has, what the operating system saves on a switch
 * of context, and what FASTRNN_ISA asks for. The answer is found once and kept in one pointer.
 */
#include "internal.h"

#if !defined(FRNN_FREESTANDING)
#include <stdlib.h>
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define FRNN_X86
#include <cpuid.h>
#endif

typedef struct isa {
    const char *name;
    unsigned needs; /* features, below */
    const frnn_kernels *kernels[FRNN_DTYPE_COUNT];
} isa;

enum { HAS_AVX2 = 1, HAS_AVX512 = 2 };

/* Best first. */
static const isa isas[] = {
#if defined(FRNN_X86)
    {"avx512", HAS_AVX512, {&frnn_kernels_avx512_f32, &frnn_kernels_avx512_f64}},
    {"avx2", HAS_AVX2, {&frnn_kernels_avx2_f32, &frnn_kernels_avx2_f64}},
#endif
    {"scalar", 0, {&frnn_kernels_scalar_f32, &frnn_kernels_scalar_f64}},
};
enum { ISA_COUNT = sizeof isas / sizeof isas[0] };

#if defined(FRNN_X86)
/* The registers whose state the operating system saves: XCR0. */
static unsigned long long saved_registers(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (unsigned long long)high << 32 | low;
}

static unsigned features(void) {
    enum { FMA = 1u << 12, OSXSAVE = 1u << 27, AVX = 1u << 28 };         /* leaf 1, ecx */
    enum { AVX2 = 1u << 5, F = 1u << 16, DQ = 1u << 17, BW = 1u << 30 }; /* leaf 7, ebx */
    const unsigned VL = 1u << 31;
    const unsigned long long YMM = 0x6, ZMM = 0xe6;
    unsigned a, b, c, d, has = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (FMA | OSXSAVE | AVX)) != (FMA | OSXSAVE | AVX))
        return 0;
    const unsigned long long saved = saved_registers();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (saved & YMM) != YMM)
        return 0;
    if (b & AVX2)
        has |= HAS_AVX2;
    const unsigned avx512 = F | DQ | BW | VL;
    if ((b & AVX2) && (b & avx512) == avx512 && (saved & ZMM) == ZMM)
        has |= HAS_AVX512;
    return has;
}
#else
static unsigned features(void) {
    return 0;
}
#endif

static int same(const char *a, const char *b) {
    while (*a != '\0' && *a == *b)
        a++, b++;
    return *a == *b;
}

static int available(const isa *candidate) {
    return (candidate->needs & ~features()) == 0;
}

/* NULL if there is none of that name. */
static const isa *find(const char *name) {
    for (size_t i = 0; i < ISA_COUNT; i++)
        if (same(isas[i].name, name) && available(&isas[i]))
            return &isas[i];
    return NULL;
}

static const isa *choose(void) {
#if !defined(FRNN_FREESTANDING)
    const char *name = getenv("FASTRNN_ISA");
    if (name != NULL && *name != '\0')
        return find(name);
#endif
    for (size_t i = 0; i < ISA_COUNT; i++)
        if (available(&isas[i]))
            return &isas[i];
    return NULL;
}

/* Threads may race to write it; all of them write the same value. */
static const isa *volatile active;

static const isa *get_active(void) {
    const isa *now = active;
    if (now == NULL)
        active = now = choose();
    return now;
}

const frnn_kernels *frnn_kernels_active(frnn_dtype dtype) {
    const isa *now = get_active();
    return now == NULL ? NULL : now->kernels[dtype];
}

const frnn_kernels *frnn_kernels_get(const char *name, frnn_dtype dtype) {
    const isa *found = find(name);
    return found == NULL ? NULL : found->kernels[dtype];
}

const char *frnn_isa_available(size_t index) {
    for (size_t i = 0; i < ISA_COUNT; i++)
        if (available(&isas[i]) && index-- == 0)
            return isas[i].name;
    return NULL;
}

const char *frnn_isa(void) {
    const isa *now = get_active();
    return now == NULL ? NULL : now->name;
}

frnn_status frnn_isa_set(const char *name) {
    const isa *found = name == NULL ? NULL : find(name);
    if (found == NULL)
        return FRNN_E_ISA;
    active = found;
    return FRNN_OK;
}
