/* SPDX-License-Identifier: MIT
 *
 * safetensors files, whatever they hold: what is read, and what is refused with which words. No
 * arguments; the exit code is 0 if all is well.
 */
#include "model_check.h"

static char long_text[ROOM];

#define A         TENSOR("a", "F32", "[2]", 0, 8)
#define B         TENSOR("b", "F64", "[1]", 8, 16)
#define EMPTY(at) TENSOR("empty at " #at, "F32", "[3,0]", at, at)

static const struct {
    const char *what, *header;
    size_t data_size;
    const char *message;
} files[] = {
    {"no tensors", "{}", 0, NULL},
    {"two tensors", "{" A "," B "}", 16, NULL},
    {"not in the order of the data", "{" B "," A "}", 16, NULL},
    {"padding", "{" A "}      ", 8, NULL},
    {"space everywhere",
     "{ \n\"a\"\t:\r{ \"shape\" : [ 2 ] , \"data_offsets\": [ 0 , 8 ], \"dtype\" :\"F32\" } }", 8,
     NULL},
    {"metadata", "{\"__metadata__\":{\"a\":\"\",\"b\":\"x\"}," A "}", 8, NULL},
    {"metadata last", "{" A ",\"__metadata__\":{\"format\":\"pt\"}}", 8, NULL},
    {"empty metadata", "{\"__metadata__\":{}," A "}", 8, NULL},
    {"escapes in metadata",
     "{\"__metadata__\":{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u006A\\u007f\\u0000\"}}", 0, NULL},
    {"names and values in UTF-8",
     "{\"__metadata__\":{\"\xc3\xa9\":\"\xe2\x82\xac \xf0\x9f\x8e\xb5\"},"
     "\"\xce\xb1\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\":" ENTRY("U8", "[]", 0, 1) "}",
     1, NULL},
    {"an empty name", "{\"\":" ENTRY("F32", "[2]", 0, 8) "}", 8, NULL},
    {"rank 0 and 8",
     "{" TENSOR("a", "F32", "[]", 0, 4) "," TENSOR("b", "F32", "[1,1,1,1,1,1,1,1]", 4, 8) "}", 8,
     NULL},
    {"empty tensors at the edges", "{" EMPTY(0) "," A "," EMPTY(8) "," B "," EMPTY(16) "}", 16,
     NULL},
    {"an empty tensor and no data", "{" TENSOR("x", "F32", "[0]", 0, 0) "}", 0, NULL},

    {"no object", "[]", 0, "begin with '{'"},
    {"space before the object", " {}", 0, "begin with '{'"},
    {"no header", "", 0, "begin with '{'"},
    {"an open header", "{", 0, "byte 1: a string is expected"},
    {"an open tensor", "{\"a\":", 0, "'a': '{' is expected"},
    {"an open name", "{\"a", 0, "a string without end"},
    {"text after the object", "{} x", 0, "byte 3: nothing may follow"},
    {"a line feed after the object", "{}\n", 0, "nothing may follow"},
    {"two objects", "{}{}", 0, "nothing may follow"},
    {"a comma at the end", "{" A ",}", 8, "a string is expected"},
    {"a comma at the beginning", "{," A "}", 8, "a string is expected"},
    {"no comma", "{" A B "}", 16, "',' or '}' is expected"},
    {"no colon", "{\"a\"{}}", 0, "':' is expected"},
    {"a tensor that is a number", "{\"abc\":1}", 0, "tensor 'abc': '{' is expected at byte 7"},
    {"a tensor that is null", "{\"abc\":null}", 0, "tensor 'abc': '{' is expected"},
    {"a comment", "{/**/" A "}", 8, "a string is expected"},

    {"an escape in a name", "{\"a\\u0062\":" ENTRY("F32", "[2]", 0, 8) "}", 8, "an escape"},
    {"a control character in a name", "{\"a\x1f\":" ENTRY("F32", "[2]", 0, 8) "}", 8, "control"},
    {"DEL in a name", "{\"a\x7f\":" ENTRY("F32", "[2]", 0, 8) "}", 8, "a control character"},
    {"a stray continuation", "{\"\x80\":1}", 0, "not UTF-8"},
    {"a long form of 7 bits", "{\"\xc1\xbf\":1}", 0, "not UTF-8"},
    {"a long form of 11 bits", "{\"\xe0\x9f\xbf\":1}", 0, "not UTF-8"},
    {"a long form of 16 bits", "{\"\xf0\x8f\xbf\xbf\":1}", 0, "not UTF-8"},
    {"a surrogate", "{\"\xed\xa0\x80\":1}", 0, "not UTF-8"},
    {"above U+10FFFF", "{\"\xf4\x90\x80\x80\":1}", 0, "not UTF-8"},
    {"a lead byte f5", "{\"\xf5\x80\x80\x80\":1}", 0, "not UTF-8"},
    {"a character cut by a quote", "{\"\xe2\x82\":1}", 0, "not UTF-8"},
    {"a character cut by the end", "{\"\xf0\x9f", 0, "not UTF-8"},
    {"a character cut one byte short by the end", "{\"\xe2\x82", 0, "not UTF-8"},
    {"invalid UTF-8 in metadata", "{\"__metadata__\":{\"key\":\"\xff\"}}", 0,
     "'key': bytes that are not UTF-8"},

    {"a name twice", "{" A "," TENSOR("a", "F64", "[1]", 8, 16) "}", 16, "'a' appears twice"},
    {"an empty name twice",
     "{\"\":" ENTRY("F32", "[2]", 0, 8) ",\"\":" ENTRY("F32", "[2]", 8, 16) "}", 16,
     "'' appears twice"},
    {"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' twice"},
    {"a metadata key twice", "{\"__metadata__\":{\"k\":\"\",\"l\":\"\",\"k\":\"\"}}", 0,
     "metadata key 'k' appears twice"},
    {"metadata that is a string", "{\"__metadata__\":\"\"}", 0, "'{' is expected"},
    {"metadata that is a tensor", "{\"__metadata__\":" ENTRY("F32", "[2]", 0, 8) "}", 8,
     "metadata key 'shape': a string is expected"},
    {"a metadata value that is a number", "{\"__metadata__\":{\"key\":1}}", 0,
     "metadata key 'key': a string is expected"},
    {"an escape in a metadata key", "{\"__metadata__\":{\"\\n\":\"\"}}", 0,
     "header, byte 18: an escape"},
    {"an unknown escape", "{\"__metadata__\":{\"key\":\"\\x\"}}", 0, "'key': an escape that"},
    {"an escape above ASCII", "{\"__metadata__\":{\"key\":\"\\u0080\"}}", 0, "an escape that"},
    {"an escape far above ASCII", "{\"__metadata__\":{\"key\":\"\\u1000\"}}", 0, "an escape that"},
    {"an escape with a bad digit", "{\"__metadata__\":{\"key\":\"\\u000g\"}}", 0, "an escape that"},
    {"an escape cut by the end", "{\"__metadata__\":{\"key\":\"\\u00", 0, "an escape that"},
    {"a backslash at the end", "{\"__metadata__\":{\"key\":\"\\", 0, "an escape that"},
    {"a line feed in metadata", "{\"__metadata__\":{\"key\":\"\n\"}}", 0, "a control character"},

    {"an empty tensor entry", "{\"abc\":{}}", 0, "'abc' has no dtype"},
    {"no dtype", "{\"abc\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "'abc' has no dtype"},
    {"no shape", "{\"abc\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "'abc' has no shape"},
    {"no offsets", "{\"abc\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "'abc' has no data_offsets"},
    {"an unknown key", "{\"abc\":{\"dtype\":\"F32\",\"strides\":[2]}}", 8,
     "'abc' has the key 'strides' that"},
    {"a key twice", "{\"abc\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 8, "'dtype' twice"},
    {"a dtype that is a number", "{\"abc\":{\"dtype\":32}}", 8, "'abc': a string is expected"},
    {"an unknown dtype", "{" TENSOR("abc", "F31", "[2]", 0, 8) "}", 8, "unknown dtype 'F31'"},
    {"a dtype in lower case", "{" TENSOR("abc", "f32", "[2]", 0, 8) "}", 8, "unknown dtype 'f32'"},
    {"a longer dtype", "{" TENSOR("abc", "F320", "[2]", 0, 8) "}", 8, "unknown dtype 'F320'"},
    {"a shorter dtype", "{" TENSOR("abc", "F3", "[2]", 0, 8) "}", 8, "unknown dtype 'F3'"},
    {"an empty dtype", "{" TENSOR("abc", "", "[2]", 0, 8) "}", 8, "unknown dtype ''"},
    {"a shape that is a number", "{" TENSOR("abc", "F32", "2", 0, 8) "}", 8, "'[' is expected"},
    {"rank 9", "{" TENSOR("abc", "F32", "[2,1,1,1,1,1,1,1,1]", 0, 8) "}", 8, "too many numbers"},
    {"an open shape", "{" TENSOR("abc", "F32", "[2", 0, 8) "}", 8, "number from 0 is expected"},
    {"a comma in a shape", "{" TENSOR("abc", "F32", "[2,]", 0, 8) "}", 8, "number from 0 is"},
    {"a shape of strings", "{" TENSOR("abc", "F32", "[\"2\"]", 0, 8) "}", 8, "number from 0 is"},
    {"a nested shape", "{" TENSOR("abc", "F32", "[[2]]", 0, 8) "}", 8, "number from 0 is expected"},
    {"a negative number", "{" TENSOR("abc", "F32", "[-2]", 0, 8) "}", 8, "number from 0 is"},
    {"minus zero", "{" TENSOR("abc", "F32", "[-0]", 0, 0) "}", 0, "number from 0 is expected"},
    {"a plus sign", "{" TENSOR("abc", "F32", "[+2]", 0, 8) "}", 8, "number from 0 is expected"},
    {"a leading zero", "{" TENSOR("abc", "F32", "[02]", 0, 8) "}", 8, "a leading zero"},
    {"two zeros", "{" TENSOR("abc", "F32", "[00]", 0, 0) "}", 0, "a leading zero"},
    {"a fraction", "{" TENSOR("abc", "F32", "[2.0]", 0, 8) "}", 8, "',' or ']' is expected"},
    {"an exponent", "{" TENSOR("abc", "F32", "[2e0]", 0, 8) "}", 8, "',' or ']' is expected"},
    {"a number of 33 digits",
     "{" TENSOR("abc", "F32", "[100000000000000000000000000000002]", 0, 8) "}", 8, "too large"},
    {"2^64 + 2", "{" TENSOR("abc", "F32", "[18446744073709551618]", 0, 8) "}", 8, "too large"},
    {"2^64 - 1", "{" TENSOR("abc", "F32", "[18446744073709551615]", 0, 8) "}", 8, "too large"},
    {"2^32 * 2^32 * 2", "{" TENSOR("abc", "F32", "[4294967296,4294967296,2]", 0, 8) "}", 8,
     "too large"},
    {"2^62 + 2 floats, which wraps to 8",
     "{" TENSOR("abc", "F32", "[4611686018427387906]", 0, 8) "}", 8, "too large"},
    {"an empty tensor of a large shape",
     "{" TENSOR("abc", "F32", "[0,4294967296,4294967296]", 0, 0) "}", 0, "too large"},

    {"an empty tensor of 2^63 bytes",
     "{" TENSOR("abc", "F32", "[0,4294967296,536870912]", 0, 0) "}", 0, "too large"},

    {"one offset", "{\"abc\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8]}}", 8,
     "1 data_offsets, expected 2"},
    {"three offsets", "{\"abc\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8,
     "too many numbers"},
    {"offsets turned round", "{" TENSOR("abc", "F32", "[2]", 8, 0) "}", 8, "before its begin"},
    {"data missing", "{" TENSOR("abc", "F32", "[2]", 0, 8) "}", 7, "file has 7 bytes of data"},
    {"too small for the shape", "{" TENSOR("abc", "F32", "[2]", 0, 7) "}", 7,
     "'abc' has 7 bytes of data, but its shape [2] needs 8"},
    {"too large for the shape", "{" TENSOR("abc", "F32", "[1, 2]", 0, 12) "}", 12,
     "'abc' has 12 bytes of data, but its shape [1, 2] needs 8"},
    {"empty with data", "{" TENSOR("abc", "F32", "[0]", 0, 4) "}", 4, "its shape [0] needs 0"},
    {"trailing bytes", "{" A "}", 11, "3 bytes after the last tensor"},
    {"data of no tensor", "{}", 1, "1 bytes after the last tensor"},
    {"a hole at the beginning", "{" B "}", 16, "8 bytes between the tensors"},
    {"a hole in the middle", "{" A "," TENSOR("c", "F32", "[1]", 12, 16) "}", 16,
     "4 bytes between the tensors"},
    {"the same place", "{" A "," TENSOR("c", "F32", "[2]", 0, 8) "}", 8, "'a' and 'c' overlap"},
    {"the same place and a hole", "{" A "," TENSOR("c", "F32", "[2]", 0, 8) "}", 16,
     "'a' and 'c' overlap"},
    {"an overlap of one byte", "{" A "," TENSOR("c", "F32", "[2]", 7, 15) "}", 15,
     "'a' and 'c' overlap"},
    {"an overlap of one byte, the later tensor first",
     "{" TENSOR("c", "F32", "[2]", 7, 15) "," A "}", 15, "'c' and 'a' overlap"},
    {"an overlap that makes up for a hole",
     "{" TENSOR("a", "F32", "[2]", 0, 8) "," TENSOR("b", "F32", "[2]", 4,
                                                    12) "," TENSOR("c", "F32", "[1]", 16, 20) "}",
     20, "'a' and 'b' overlap"},
    {"one tensor inside another",
     "{" TENSOR("c", "F32", "[1]", 4, 8) "," TENSOR("d", "F32", "[4]", 0, 16) "}", 16,
     "'c' and 'd' overlap"},
    {"an empty tensor inside another", "{" A "," TENSOR("e", "F32", "[0]", 4, 4) "}", 8,
     "'a' and 'e' overlap"},
    {"an empty tensor past the end", "{" A "," TENSOR("e", "F32", "[0]", 9, 9) "}", 8,
     "'e' ends at byte 9"},
    {"a name that cannot be printed", "{\"\xce\xb1 b\":1}", 0, "'?? b'"},
};

static void test_files(void) {
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        check_open(frnn_model_open_tensors, files[i].what,
                   build_file(file, files[i].header, files[i].data_size), files[i].message);
}

static void test_dtypes(void) {
    static const struct {
        const char *name;
        size_t size;
    } dtypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
                  {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                  {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        const size_t size = 3 * dtypes[i].size;
        sprintf(long_text, "{\"a\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}",
                dtypes[i].name, size);
        check_open(frnn_model_open_tensors, dtypes[i].name, build_file(file, long_text, size),
                   NULL);
    }
}

static void test_tensors(void) {
    frnn_model model;
    frnn_tensor tensor;
    const size_t size = build_file(
        file, "{" TENSOR("bb", "F64", "[]", 24, 32) "," TENSOR("a", "F32", "[2,3]", 0, 24) "}", 32);
    CHECK(frnn_model_open_tensors(&model, file, size) == FRNN_OK, "%s", model.message);
    CHECK(model.num_tensors == 2 && model.message[0] == '\0', "%s", model.message);
    CHECK(frnn_model_tensor(&model, 0, &tensor) == FRNN_OK, "first");
    CHECK(tensor.name_size == 2 && memcmp(tensor.name, "bb", 2) == 0, "name");
    CHECK(tensor.dtype_size == 3 && memcmp(tensor.dtype, "F64", 3) == 0, "dtype");
    CHECK(tensor.rank == 0 && tensor.data_size == 8, "rank %zu", tensor.rank);
    CHECK(tensor.data == file + size - 8, "data");
    CHECK(frnn_model_tensor(&model, 1, &tensor) == FRNN_OK, "second");
    CHECK(tensor.name_size == 1 && tensor.name[0] == 'a', "name");
    CHECK(tensor.rank == 2 && tensor.shape[0] == 2 && tensor.shape[1] == 3, "shape");
    CHECK(tensor.data == file + size - 32 && tensor.data_size == 24, "data");

    frnn_weights weights;
    CHECK(frnn_model_tensor(&model, 2, &tensor) == FRNN_E_ARG, "past the end");
    CHECK(frnn_model_tensor(&model, (size_t)-1, &tensor) == FRNN_E_ARG, "past the end");
    CHECK(frnn_model_tensor(NULL, 0, &tensor) == FRNN_E_ARG, "no model");
    CHECK(frnn_model_tensor(&model, 0, NULL) == FRNN_E_ARG, "no tensor");
    CHECK(frnn_model_weights(&model, 0, 0, &weights) == FRNN_E_ARG, "bare tensors have no net");
    CHECK(frnn_model_pack(&model, file, sizeof file) == FRNN_E_ARG, "bare tensors have no net");
    CHECK(frnn_model_open_tensors(NULL, file, size) == FRNN_E_ARG, "no model");
    CHECK(frnn_model_open(NULL, file, size) == FRNN_E_ARG, "no model");
    CHECK(frnn_model_open(&model, NULL, 0) == FRNN_E_ARG && model.message[0] != '\0', "no file");
    CHECK(frnn_model_pack(NULL, file, sizeof file) == FRNN_E_ARG, "no model");
}

static void test_header_length(void) {
    size_t size = build_file(file, "{" A "}", 8);
    for (size_t i = 0; i < size; i++)
        check_open(frnn_model_open_tensors, "cut", i, "");
    for (size_t i = 0; i < 8; i++) { /* 2^63 and such */
        build_file(file, "{" A "}", 8);
        file[i] |= 0x80;
        check_open(frnn_model_open_tensors, "header length", size, "the header says");
    }
    build_file(file, "{" A "}", 8);
    memset(file, 0xff, 8);
    check_open(frnn_model_open_tensors, "header length", size, "the header says");

    memset(long_text, 0, sizeof long_text);
    strcpy(long_text, "{" A "}");
    memset(long_text + strlen(long_text), ' ', FRNN_MODEL_MAX_HEADER - strlen(long_text));
    size = build_file(file, long_text, 8);
    check_open(frnn_model_open_tensors, "the largest header", size, NULL);
    strcat(long_text, " ");
    size = build_file(file, long_text, 8);
    check_open(frnn_model_open_tensors, "a larger header", size, "but the limit is 262144");
}

/* Headers with many entries; `last` comes after them. */
static size_t build_many(size_t count, const char *last) {
    char *at = long_text;
    at += sprintf(at, "{");
    for (size_t i = 0; i < count; i++)
        at += sprintf(at,
                      "%s\"tensor %zu\":{\"dtype\":\"U8\",\"shape\":[3],"
                      "\"data_offsets\":[%zu,%zu]}",
                      i > 0 ? "," : "", i, 3 * i, 3 * i + 3);
    sprintf(at, "%s}", last);
    return build_file(file, long_text, 3 * count);
}

static size_t build_many_keys(size_t count, const char *last) {
    char *at = long_text;
    at += sprintf(at, "{\"__metadata__\":{");
    for (size_t i = 0; i < count; i++)
        at += sprintf(at, "%s\"key %zu\":\"\"", i > 0 ? "," : "", i);
    sprintf(at, "%s}}", last);
    return build_file(file, long_text, 0);
}

static void test_many(void) {
    open_function *open = frnn_model_open_tensors;
    check_open(open, "1024 tensors", build_many(1024, ""), NULL);
    check_open(open, "1025 tensors", build_many(1025, ""), "more than 1024 tensors");
    for (size_t count = 31; count <= 66; count++) { /* around what is compared at a time */
        check_open(open, "many tensors", build_many(count, ""), NULL);
        check_open(open, "many tensors and the first again",
                   build_many(count, "," TENSOR("tensor 0", "U8", "[0]", 0, 0)),
                   "'tensor 0' appears twice");
        check_open(open, "many tensors and an overlap",
                   build_many(count, "," TENSOR("x", "U8", "[1]", 91, 92)),
                   "'tensor 30' and 'x' overlap");
    }
    check_open(open, "1024 tensors, the last again",
               build_many(1023, "," TENSOR("tensor 1022", "U8", "[0]", 0, 0)),
               "'tensor 1022' appears twice");
    check_open(open, "1024 metadata keys", build_many_keys(1024, ""), NULL);
    check_open(open, "1025 metadata keys", build_many_keys(1025, ""), "more than 1024 keys");
    check_open(open, "a late metadata key twice", build_many_keys(1000, ",\"key 999\":\"\""),
               "metadata key 'key 999' appears twice");
}

static void test_long_messages(void) {
    char name[201];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    sprintf(long_text,
            "{\"%s\":" ENTRY("F32", "[2]", 0, 8) ",\"%s\":" ENTRY("F32", "[2]", 0, 8) "}", name,
            name + 1);
    check_open(frnn_model_open_tensors, "long names", build_file(file, long_text, 8),
               "nnnn...' and 'nnn");
    sprintf(long_text,
            "{\"%s\":" ENTRY("F32",
                             "[3000000000,2000000000,1000000000,4000000000,"
                             "3000000000,2000000000,1000000000,4000000000]",
                             0, 8) "}",
            name);
    check_open(frnn_model_open_tensors, "a long shape", build_file(file, long_text, 8),
               "of shape [3000000000, 2000000000, ");
    sprintf(long_text, "{\"%s\":" ENTRY("U8", "[256,1,1,256,1,1,1,1]", 0, 18446744073709551615) "}",
            name);
    check_open(frnn_model_open_tensors, "large numbers", build_file(file, long_text, 8),
               "18446744073709551615");
}

int main(void) {
    test_files();
    test_dtypes();
    test_tensors();
    test_header_length();
    test_many();
    test_long_messages();
    return report();
}
