/* SPDX-License-Identifier: MIT
 *
 * What all tests of the library have in common: counted checks, random numbers, and memory between
 * guards.
 *
 * Every buffer has exactly the size that the library asks for and lies between two pages without
 * access, against one or the other. What may only be read is write-protected meanwhile. Define
 * _DEFAULT_SOURCE, for mmap, before the first include.
 */
#ifndef FRNN_CHECK_H
#define FRNN_CHECK_H

#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A slow build, as with sanitizers, may draw a part of the nets only. */
#if !defined(NETS_PART)
#define NETS_PART 1
#endif

static int failures, checks;
static char where[1024]; /* what is being tested */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        checks++;                                                                                  \
        if (!(condition) && failures++ < 40)                                                       \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, where, #condition);                      \
    } while (0)

/* The library, which faults, uses no stdio: it is safe here. */
static inline void on_fault(int number) {
    printf("%s: access outside a buffer, signal %d\n", where, number);
    exit(1);
}

/* ---- Random numbers and memory -------------------------------------------------------------- */

static uint64_t seed = 1;

static inline uint64_t random_bits(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed ^ seed >> 33) * 0xff51afd7ed558ccdu >> 11; /* 53 bits */
}

static inline size_t below(size_t n) {
    return (size_t)(random_bits() % n);
}

/* Memory that lives until the end of a case. */
static void *allocated[1 << 16];
static size_t allocations;

static inline void *memory(size_t size) {
    void *bytes = allocations < sizeof allocated / sizeof *allocated ? malloc(size + 1) : NULL;
    if (bytes == NULL)
        abort();
    return allocated[allocations++] = bytes;
}

static inline void memory_free(void) {
    while (allocations > 0)
        free(allocated[--allocations]);
}

#define FILL 0xff /* what is not written yet: NaN in either dtype */

typedef struct frame {
    unsigned char *at, *map;
    size_t size, room;
} frame;

static size_t page;

static inline int filled(const unsigned char *bytes, size_t size) {
    return size == 0 || (bytes[0] == FILL && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static inline void frame_protect(const frame *f, int access) {
    if (f->room > 0 && mprotect(f->map + page, f->room, access) != 0)
        abort();
}

static inline frame frame_new(size_t size, size_t align) {
    frame f = {.size = size, .room = (size + page - 1) / page * page};
    f.map = mmap(NULL, f.room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f.map == MAP_FAILED)
        abort();
    frame_protect(&f, PROT_READ | PROT_WRITE);
    memset(f.map + page, FILL, f.room);
    f.at = f.map + page + (below(3) > 0 ? (f.room - size) / align * align : 0);
    return f;
}

static inline void frame_free(const frame *f) {
    const size_t before = (size_t)(f->at - f->map) - page;
    CHECK(filled(f->map + page, before));
    CHECK(filled(f->at + f->size, f->room - before - f->size));
    munmap(f->map, f->room + 2 * page);
}

static inline void prepare(void) {
    page = (size_t)sysconf(_SC_PAGESIZE);
    signal(SIGSEGV, on_fault);
}

static inline int report(void) {
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}

#endif
