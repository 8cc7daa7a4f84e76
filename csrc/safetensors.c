/* SPDX-License-Identifier: MIT */
#include "safetensors.h"

#include "internal.h"

#include <stdarg.h>

/* ---- Messages ----------------------------------------------------------------------------- */

/* What is written, and the room that is left besides the final zero. */
typedef struct line {
    char *at;
    size_t room;
} line;

static void put(line *out, const char *text, size_t size) {
    size = frnn_min(size, out->room);
    memcpy(out->at, text, size);
    out->at += size;
    out->room -= size;
}

static void put_text(line *out, const char *text) {
    while (*text != '\0')
        put(out, text++, 1);
}

static void put_number(line *out, size_t number) {
    char digits[3 * sizeof number], *at = digits + sizeof digits;
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    put(out, at, (size_t)(digits + sizeof digits - at));
}

static void put_name(line *out, frnn_span name) {
    enum { SHOWN = 48 };
    put(out, "'", 1);
    for (size_t i = 0; i < name.size && i < SHOWN; i++)
        put(out, name.at[i] >= ' ' && name.at[i] <= '~' ? &name.at[i] : "?", 1);
    put_text(out, name.size > SHOWN ? "...'" : "'");
}

static void put_shape(line *out, const size_t *shape, size_t rank) {
    put(out, "[", 1);
    for (size_t i = 0; i < rank; i++) {
        put_text(out, i > 0 ? ", " : "");
        put_number(out, shape[i]);
    }
    put(out, "]", 1);
}

frnn_status frnn_refuse(char *message, const char *format, ...) {
    if (message == NULL)
        return FRNN_E_FILE;
    line out = {message, FRNN_MESSAGE_SIZE - 1};
    va_list values;
    va_start(values, format);
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(&out, format, 1);
            continue;
        }
        switch (*++format) {
        case 's':
            put_text(&out, va_arg(values, const char *));
            break;
        case 'q':
            put_name(&out, va_arg(values, frnn_span));
            break;
        case 'z':
            put_number(&out, va_arg(values, size_t));
            break;
        default: { /* v */
            const size_t *shape = va_arg(values, const size_t *);
            put_shape(&out, shape, va_arg(values, size_t));
        }
        }
    }
    va_end(values);
    *out.at = '\0';
    return FRNN_E_FILE;
}

/* ---- One entry ---------------------------------------------------------------------------- */

/* Bytes of an element, or 0 if there is no such dtype. */
static size_t dtype_size(frnn_span dtype) {
    static const struct {
        char name[8];
        size_t size;
    } dtypes[] = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
        {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
        {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8},
    };
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (frnn_span_is(dtype, dtypes[i].name))
            return dtypes[i].size;
    }
    return 0;
}

/* What the reader found wrong, in the header or in the entry of that kind and name. */
static int refuse_syntax(const frnn_walk *walk, const char *kind, const frnn_span *name) {
    size_t position = (size_t)(walk->json.at - walk->json.begin);
    if (name == NULL)
        frnn_refuse(walk->message, "header, byte %z: %s", position, walk->json.why);
    else
        frnn_refuse(walk->message, "%s %q: %s at byte %z of the header", kind, *name,
                    walk->json.why, position);
    return -1;
}

/* Bytes of a tensor of that shape. The dimensions besides zeros must be an array that could be
 * in memory, so that readers need not fear the product of a few of them. */
static int shape_size(const size_t *shape, size_t rank, size_t itemsize, size_t *size) {
    int empty = 0;
    *size = itemsize;
    for (size_t i = 0; i < rank; i++) {
        if (shape[i] == 0)
            empty = 1;
        else if (!frnn_mul(size, shape[i]) || *size > PTRDIFF_MAX)
            return 0;
    }
    if (empty)
        *size = 0;
    return 1;
}

/* The place of a tensor whose shape and dtype are known. */
static int read_place(const frnn_walk *walk, frnn_tensor *tensor, const size_t *offsets,
                      size_t count) {
    frnn_span name = frnn_tensor_name(tensor), dtype = frnn_tensor_dtype(tensor);
    size_t itemsize = dtype_size(dtype), size = 0;
    if (itemsize == 0)
        frnn_refuse(walk->message, "tensor %q has the unknown dtype %q", name, dtype);
    else if (!shape_size(tensor->shape, tensor->rank, itemsize, &size))
        frnn_refuse(walk->message, "tensor %q of shape %v is too large", name, tensor->shape,
                    tensor->rank);
    else if (count != 2)
        frnn_refuse(walk->message, "tensor %q has %z data_offsets, expected 2", name, count);
    else if (offsets[0] > offsets[1])
        frnn_refuse(walk->message, "tensor %q ends at byte %z, before its begin %z", name,
                    offsets[1], offsets[0]);
    else if (offsets[1] > walk->data_size)
        frnn_refuse(walk->message, "tensor %q ends at byte %z, but the file has %z bytes of data",
                    name, offsets[1], walk->data_size);
    else if (offsets[1] - offsets[0] != size)
        frnn_refuse(walk->message, "tensor %q has %z bytes of data, but its shape %v needs %z",
                    name, offsets[1] - offsets[0], tensor->shape, tensor->rank, size);
    else {
        tensor->data = walk->data + offsets[0];
        tensor->data_size = size;
        return 1;
    }
    return -1;
}

static int read_tensor(frnn_walk *walk, frnn_tensor *tensor) {
    enum { DTYPE, SHAPE, OFFSETS, KEYS };
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    frnn_json *json = &walk->json;
    frnn_span name = frnn_tensor_name(tensor), key, dtype = {NULL, 0};
    size_t offsets[2], count = 0;
    unsigned seen = 0;
    frnn_json_open(json);
    while (json->why == NULL && frnn_json_key(json, &key)) {
        unsigned k = 0;
        while (k < KEYS && !frnn_span_is(key, keys[k]))
            k++;
        if (k == KEYS || (seen >> k & 1) != 0) {
            frnn_refuse(walk->message, "tensor %q has the key %q %s", name, key,
                        k == KEYS ? "that is not known" : "twice");
            return -1;
        }
        seen |= 1u << k;
        if (k == DTYPE)
            frnn_json_string(json, &dtype, 0);
        else if (k == SHAPE)
            frnn_json_numbers(json, tensor->shape, FRNN_MODEL_MAX_RANK, &tensor->rank);
        else
            frnn_json_numbers(json, offsets, 2, &count);
    }
    if (json->why != NULL)
        return refuse_syntax(walk, "tensor", &name);
    for (unsigned k = 0; k < KEYS; k++) {
        if ((seen >> k & 1) == 0) {
            frnn_refuse(walk->message, "tensor %q has no %s", name, keys[k]);
            return -1;
        }
    }
    tensor->dtype = dtype.at;
    tensor->dtype_size = dtype.size;
    return read_place(walk, tensor, offsets, count);
}

/* ---- Walks -------------------------------------------------------------------------------- */

frnn_status frnn_walk_begin(frnn_walk *walk, const void *bytes, size_t size, char *message) {
    const unsigned char *at = bytes;
    const size_t prefix = 8;
    uint64_t header = 0;
    if (size < prefix)
        return frnn_refuse(message, "the file has %z bytes, expected %z for the header's length",
                           size, prefix);
    for (size_t i = prefix; i-- > 0;)
        header = header << 8 | at[i];
    size_t limit = frnn_min(FRNN_MODEL_MAX_HEADER, size - prefix);
    if (header > limit)
        return frnn_refuse(message, "the header says it has %z bytes, but %s %z",
                           (size_t)(header > SIZE_MAX / 2 ? SIZE_MAX / 2 : header),
                           limit < FRNN_MODEL_MAX_HEADER ? "the file ends after" : "the limit is",
                           limit);
    if (header == 0 || at[prefix] != '{')
        return frnn_refuse(message, "the header does not begin with '{'");
    memset(walk, 0, sizeof *walk);
    walk->json = frnn_json_begin((const char *)bytes + prefix, (size_t)header);
    walk->data = walk->json.end;
    walk->data_size = size - prefix - (size_t)header;
    walk->message = message;
    frnn_json_open(&walk->json);
    return FRNN_OK;
}

/* A next function for the metadata, which is in walk->json then: fills in nothing but the name. */
static int next_metadata(frnn_walk *walk, frnn_tensor *tensor) {
    frnn_span key = {NULL, 0}, value;
    if (frnn_json_key(&walk->json, &key) && frnn_json_string(&walk->json, &value, 1)) {
        if (frnn_span_is(key, "fastrnn"))
            walk->architecture = value;
        memset(tensor, 0, sizeof *tensor);
        tensor->name = key.at;
        tensor->name_size = key.size;
        tensor->data = walk->data;
        return 1;
    }
    if (walk->json.why == NULL)
        return 0;
    return refuse_syntax(walk, "metadata key", key.at == NULL ? NULL : &key);
}

static int read_metadata(frnn_walk *walk) {
    frnn_tensor ignored;
    if (walk->metadata.begin != NULL) {
        frnn_refuse(walk->message, "the header has '__metadata__' twice");
        return -1;
    }
    if (!frnn_json_open(&walk->json))
        return refuse_syntax(walk, NULL, NULL);
    walk->metadata = walk->json;
    for (size_t count = 0;; count++) {
        int more = next_metadata(walk, &ignored);
        if (more <= 0)
            return more;
        if (count == FRNN_SAFETENSORS_MAX_METADATA) {
            frnn_refuse(walk->message, "the metadata has more than %z keys", count);
            return -1;
        }
    }
}

int frnn_walk_next(frnn_walk *walk, frnn_tensor *tensor) {
    frnn_json *json = &walk->json;
    frnn_span name;
    while (frnn_json_key(json, &name)) {
        if (frnn_span_is(name, "__metadata__")) {
            if (read_metadata(walk) < 0)
                return -1;
            continue;
        }
        memset(tensor, 0, sizeof *tensor);
        tensor->name = name.at;
        tensor->name_size = name.size;
        return read_tensor(walk, tensor);
    }
    if (json->why == NULL && frnn_json_end(json))
        return 0;
    return refuse_syntax(walk, NULL, NULL);
}

/* ---- The whole file ----------------------------------------------------------------------- */

typedef int next_entry(frnn_walk *walk, frnn_tensor *entry);

/* What two entries are compared by: an empty one lies at `begin`. */
typedef struct mark {
    frnn_span name;
    const char *begin, *end;
} mark;

static frnn_status check_new(const frnn_walk *walk, const char *kind, const mark *held,
                             size_t count, const frnn_tensor *entry, mark *new) {
    const char *begin = entry->data;
    *new = (mark){frnn_tensor_name(entry), begin, begin + entry->data_size};
    for (size_t i = 0; i < count; i++) {
        const mark *old = &held[i];
        if (old->name.size == new->name.size &&
            memcmp(old->name.at, new->name.at, old->name.size) == 0)
            return frnn_refuse(walk->message, "%s %q appears twice", kind, old->name);
        if (old->begin < new->end && new->begin < old->end)
            return frnn_refuse(walk->message, "tensors %q and %q overlap", old->name, new->name);
    }
    return FRNN_OK;
}

/* No name twice, no byte in two tensors. Some entries are held and all that follow are compared to
 * them, then the next some: that needs little stack, and reads a header at its limits 32 times. */
static frnn_status check_distinct(frnn_walk walk, const char *kind, next_entry *next) {
    enum { HELD = 32 };
    mark held[HELD], new;
    for (;;) {
        size_t count = 0;
        frnn_tensor entry;
        while (count < HELD && next(&walk, &entry) > 0) {
            if (check_new(&walk, kind, held, count, &entry, &held[count]) != FRNN_OK)
                return FRNN_E_FILE;
            count++;
        }
        if (count < HELD)
            return FRNN_OK;
        frnn_walk rest = walk;
        while (next(&rest, &entry) > 0) {
            if (check_new(&walk, kind, held, count, &entry, &new) != FRNN_OK)
                return FRNN_E_FILE;
        }
    }
}

frnn_status frnn_safetensors_check(const void *bytes, size_t size, char *message,
                                   size_t *num_tensors, frnn_span *architecture) {
    frnn_walk begin, walk;
    frnn_tensor tensor;
    size_t count = 0, covered = 0, last = 0;
    int more;
    if (frnn_walk_begin(&begin, bytes, size, message) != FRNN_OK)
        return FRNN_E_FILE;
    for (walk = begin; (more = frnn_walk_next(&walk, &tensor)) > 0; count++) {
        if (count == FRNN_MODEL_MAX_TENSORS)
            return frnn_refuse(message, "the file has more than %z tensors", count);
        /* A sum above the size of the data means an overlap, which is found below. */
        covered += frnn_min(tensor.data_size, walk.data_size - covered);
        last = frnn_max(last, (size_t)((const char *)tensor.data - walk.data) + tensor.data_size);
    }
    if (more < 0 || check_distinct(begin, "tensor", frnn_walk_next) != FRNN_OK)
        return FRNN_E_FILE;
    if (last < walk.data_size)
        return frnn_refuse(message, "the file has %z bytes after the last tensor",
                           walk.data_size - last);
    /* Tensors that do not overlap and are as large together as the data leave no hole. */
    if (covered < walk.data_size)
        return frnn_refuse(message, "the data has %z bytes between the tensors that are in none",
                           walk.data_size - covered);
    if (walk.metadata.begin != NULL) {
        begin.json = walk.metadata;
        if (check_distinct(begin, "metadata key", next_metadata) != FRNN_OK)
            return FRNN_E_FILE;
    }
    *num_tensors = count;
    *architecture = walk.architecture;
    return FRNN_OK;
}
