/* SPDX-License-Identifier: MIT
 *
 * A reader for the JSON of model files: it moves over bytes that nobody has checked, never past
 * their end, stores nothing and does not recurse. It knows objects, strings, lists of numbers, true
 * and false, and fractions inside strings; whoever calls it says what must come next.
 */
#ifndef FRNN_JSON_H
#define FRNN_JSON_H

#include <stddef.h>

/* A piece of a text, not terminated. */
typedef struct frnn_span {
    const char *at;
    size_t size;
} frnn_span;

int frnn_span_is(frnn_span span, const char *text);

/* Every function returns 1 if it read what it was asked for. Otherwise it returns 0, `why` says
 * what is wrong and `at` stays where it is wrong; nothing can be read after that. */
typedef struct frnn_json {
    const char *begin, *at, *end;
    const char *why; /* NULL as long as all is well */
    int first;       /* no key of the object just opened was read yet */
} frnn_json;

frnn_json frnn_json_begin(const char *text, size_t size);

/* Moves past the word if that comes next, without space before it; if not, nothing is wrong. */
int frnn_json_word(frnn_json *json, const char *word);

/* Reads '{'; then one key and its ':' per call, the value being the caller's to read; at '}'
 * returns 0 with why == NULL. A key is as it stands in the text: it has no escapes. */
int frnn_json_open(frnn_json *json);
int frnn_json_key(frnn_json *json, frnn_span *key);

/* Nothing but spaces may follow. */
int frnn_json_end(frnn_json *json);

/* A string in UTF-8 without control characters, quotes not included. With `escapes` it may have
 * the escapes that stand for an ASCII character and is given as it stands in the text. */
int frnn_json_string(frnn_json *json, frnn_span *string, int escapes);

/* The characters that an escaped string stands for; 0 if they are more than `room`. */
int frnn_json_unescape(frnn_span string, char *to, size_t room, size_t *size);

/* A whole number in its shortest form that fits in size_t; digits: without space before it. */
int frnn_json_digits(frnn_json *json, size_t *number);
int frnn_json_number(frnn_json *json, size_t *number);

/* A list of `room` numbers at most. */
int frnn_json_numbers(frnn_json *json, size_t *numbers, size_t room, size_t *count);

/* The same, where some may be strings, as frnn_json_hex() reads them: each in two parts, the whole
 * one, which fits in size_t, and what is left. No number is negative. */
int frnn_json_mixed(frnn_json *json, size_t *whole, double *fractions, size_t room, size_t *count);

/* true as 1, false as 0. */
int frnn_json_bool(frnn_json *json, size_t *value);

/* JSON's own fractions would be rounded on their way through decimals; these are strings. A double
 * as Python's float.hex() writes it, exactly: 0x1. and 1 to 13 digits, p and the exponent with its
 * sign; likewise 0x0.0p+0, and 0x0. with p-1022. No space before it; not infinite, not a NaN. */
int frnn_json_hex(frnn_json *json, double *number);

/* So many of them in parentheses, "(0x1.8p+1, 0x0.0p+0)"; for a count of 0 nothing. */
int frnn_json_parameters(frnn_json *json, double *numbers, size_t count);

#endif
