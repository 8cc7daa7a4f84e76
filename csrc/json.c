/* SPDX-License-Identifier: MIT */
#include "json.h"

#include <stdint.h>
#include <string.h>

int frnn_span_is(frnn_span span, const char *text) {
    size_t i;
    for (i = 0; i < span.size && text[i] != '\0'; i++) {
        if (span.at[i] != text[i])
            return 0;
    }
    return i == span.size && text[i] == '\0';
}

frnn_json frnn_json_begin(const char *text, size_t size) {
    frnn_json json = {text, text, text + size, NULL, 0};
    return json;
}

static int refuse(frnn_json *json, const char *why) {
    json->why = why;
    return 0;
}

static void skip_space(frnn_json *json) {
    while (json->at < json->end &&
           (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r'))
        json->at++;
}

/* Moves past the character if that comes next. */
static int take_next(frnn_json *json, char c) {
    if (json->at == json->end || *json->at != c)
        return 0;
    json->at++;
    return 1;
}

/* The same, past spaces. */
static int take(frnn_json *json, char c) {
    skip_space(json);
    return take_next(json, c);
}

int frnn_json_word(frnn_json *json, const char *word) {
    const char *at = json->at;
    for (; *word != '\0'; word++, at++)
        if (at == json->end || *at != *word)
            return 0;
    json->at = at;
    return 1;
}

/* ---- Objects ------------------------------------------------------------------------------ */

int frnn_json_open(frnn_json *json) {
    json->first = 1;
    return take(json, '{') || refuse(json, "'{' is expected");
}

int frnn_json_key(frnn_json *json, frnn_span *key) {
    int first = json->first;
    json->first = 0;
    if (take(json, '}'))
        return 0;
    if (!first && !take(json, ','))
        return refuse(json, "',' or '}' is expected");
    if (!frnn_json_string(json, key, 0))
        return 0;
    return take(json, ':') || refuse(json, "':' is expected");
}

int frnn_json_end(frnn_json *json) {
    while (json->at < json->end && *json->at == ' ')
        json->at++;
    return json->at == json->end || refuse(json, "nothing may follow the last '}'");
}

/* ---- Strings ------------------------------------------------------------------------------ */

/* Bytes of the UTF-8 character at `at`, which is not ASCII; 0 if it is none: cut short, longer
 * than it need be, a surrogate, or above U+10FFFF. */
static size_t utf8_size(const unsigned char *at, size_t left) {
    unsigned char lead = at[0];
    size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || size > left)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((lead == 0xe0 && at[1] < 0xa0) || (lead == 0xed && at[1] > 0x9f) ||
        (lead == 0xf0 && at[1] < 0x90) || (lead == 0xf4 && at[1] > 0x8f))
        return 0;
    return size;
}

/* The value of a hexadecimal digit, or 16. */
static unsigned hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a') + 10;
    if (c >= 'A' && c <= 'F')
        return (unsigned)(c - 'A') + 10;
    return 16;
}

/* Bytes of the escape at `at`, which is a backslash, and the character that it stands for; 0 if
 * there is none or it is not ASCII. */
static size_t escape_size(const char *at, size_t left, char *character) {
    static const char letters[] = "\"\\/bfnrt", characters[] = "\"\\/\b\f\n\r\t";
    if (left < 2)
        return 0;
    for (size_t i = 0; letters[i] != '\0'; i++) {
        if (at[1] == letters[i]) {
            *character = characters[i];
            return 2;
        }
    }
    if (at[1] != 'u' || left < 6 || at[2] != '0' || at[3] != '0')
        return 0;
    unsigned high = hex_digit(at[4]), low = hex_digit(at[5]);
    if (high > 7 || low > 15)
        return 0;
    *character = (char)(16 * high + low);
    return 6;
}

/* Bytes of the character at `at`, as it may stand in a string, or 0 and what is wrong with it. */
static size_t character_size(const char *at, size_t left, int escapes, const char **why) {
    const unsigned char c = (unsigned char)*at;
    size_t size = 1;
    char ignored;
    if (c >= 0x80) {
        size = utf8_size((const unsigned char *)at, left);
        *why = "bytes that are not UTF-8";
    } else if (c == '\\' && escapes) {
        size = escape_size(at, left, &ignored);
        *why = "an escape that is no ASCII character";
    } else if (c == '\\') {
        size = 0;
        *why = "an escape in a name";
    } else if (c < 0x20 || !escapes) { /* DEL, only the values of metadata may have it */
        size = 0;
        *why = "a control character";
    }
    return size;
}

int frnn_json_string(frnn_json *json, frnn_span *string, int escapes) {
    const char *why = NULL;
    if (!take(json, '"'))
        return refuse(json, "a string is expected");
    const char *at = json->at, *const begin = at, *const end = json->end;
    while (at < end && *at != '"') {
        size_t size = 1;
        if (*at < ' ' || *at > '~' || *at == '\\') /* also true above 7 bits, signed or not */
            size = character_size(at, (size_t)(end - at), escapes, &why);
        if (size == 0) {
            json->at = at;
            return refuse(json, why);
        }
        at += size;
    }
    json->at = at;
    if (at == end)
        return refuse(json, "a string without end");
    *string = (frnn_span){begin, (size_t)(at - begin)};
    json->at++;
    return 1;
}

int frnn_json_unescape(frnn_span string, char *to, size_t room, size_t *size) {
    size_t used = 0;
    for (size_t i = 0; i < string.size; used++) {
        char c = string.at[i];
        size_t step = c == '\\' ? escape_size(string.at + i, string.size - i, &c) : 1;
        if (step == 0 || used == room)
            return 0;
        to[used] = c;
        i += step;
    }
    *size = used;
    return 1;
}

/* ---- Numbers and truth -------------------------------------------------------------------- */

static int is_digit(const frnn_json *json) {
    return json->at < json->end && *json->at >= '0' && *json->at <= '9';
}

int frnn_json_digits(frnn_json *json, size_t *number) {
    const char *begin = json->at;
    size_t value = 0;
    if (!is_digit(json))
        return refuse(json, "a whole number from 0 is expected");
    for (; is_digit(json); json->at++) {
        size_t digit = (size_t)(*json->at - '0');
        if (json->at > begin && *begin == '0')
            return refuse(json, "a number with a leading zero");
        if (value > (SIZE_MAX - digit) / 10)
            return refuse(json, "a number that is too large");
        value = 10 * value + digit;
    }
    *number = value;
    return 1;
}

int frnn_json_number(frnn_json *json, size_t *number) {
    skip_space(json);
    return frnn_json_digits(json, number);
}

int frnn_json_bool(frnn_json *json, size_t *value) {
    skip_space(json);
    *value = (size_t)frnn_json_word(json, "true");
    return *value == 1 || frnn_json_word(json, "false") ||
           refuse(json, "true or false is expected");
}

/* ---- Fractions in strings ----------------------------------------------------------------- */

/* The digits of the fraction, as the 52 low bits of a double; 0 if there are none. */
static int take_fraction(frnn_json *json, uint64_t *fraction) {
    size_t digits = 0;
    *fraction = 0;
    for (; json->at < json->end && digits < 13; json->at++, digits++) {
        const unsigned digit = hex_digit(*json->at);
        if (digit > 15 || (*json->at >= 'A' && *json->at <= 'F'))
            break;
        *fraction = *fraction << 4 | digit;
    }
    *fraction <<= 4 * (13 - digits);
    return digits > 0;
}

int frnn_json_hex(frnn_json *json, double *number) {
    static const char why[] = "a number like 0x1.8p+1 is expected";
    uint64_t bits, sign = take_next(json, '-') ? (uint64_t)1 << 63 : 0;
    size_t exponent;
    if (!take_next(json, '0') || !take_next(json, 'x'))
        return refuse(json, why);
    const int normal = take_next(json, '1');
    if ((!normal && !take_next(json, '0')) || !take_next(json, '.') ||
        !take_fraction(json, &bits) || !take_next(json, 'p'))
        return refuse(json, why);
    const int small = take_next(json, '-');
    if ((!small && !take_next(json, '+')) || !frnn_json_digits(json, &exponent))
        return refuse(json, why);
    /* Each double has one exponent. */
    if (normal) {
        if (small ? exponent == 0 || exponent > 1022 : exponent > 1023)
            return refuse(json, why);
        bits |= (uint64_t)(small ? 1023 - exponent : 1023 + exponent) << 52;
    } else if (bits == 0 ? small || exponent != 0 : !small || exponent != 1022)
        return refuse(json, why);
    bits |= sign;
    memcpy(number, &bits, sizeof *number);
    return 1;
}

int frnn_json_parameters(frnn_json *json, double *numbers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!take_next(json, i == 0 ? '(' : ','))
            return refuse(json, "'(' or ',' is expected");
        if (i > 0)
            skip_space(json);
        if (!frnn_json_hex(json, &numbers[i]))
            return 0;
    }
    return count == 0 || take_next(json, ')') || refuse(json, "')' is expected");
}

/* ---- Lists -------------------------------------------------------------------------------- */

/* A number, or a string of one that is split. */
static int read_mixed(frnn_json *json, size_t *whole, double *fraction) {
    double number;
    *fraction = 0;
    if (!take(json, '"'))
        return frnn_json_number(json, whole);
    if (!frnn_json_hex(json, &number))
        return 0;
    if (!take_next(json, '"'))
        return refuse(json, "'\"' is expected");
    if (!(number >= 0 && number < (double)SIZE_MAX))
        return refuse(json, "a number that is negative or too large");
    *whole = (size_t)number;
    *fraction = number - (double)*whole;
    return 1;
}

/* fractions: NULL where all numbers are whole. */
static int read_list(frnn_json *json, size_t *whole, double *fractions, size_t room,
                     size_t *count) {
    *count = 0;
    if (!take(json, '['))
        return refuse(json, "'[' is expected");
    if (take(json, ']'))
        return 1;
    do {
        const size_t i = *count;
        if (i == room)
            return refuse(json, "a list with too many numbers");
        if (!(fractions == NULL ? frnn_json_number(json, &whole[i])
                                : read_mixed(json, &whole[i], &fractions[i])))
            return 0;
        ++*count;
    } while (take(json, ','));
    return take(json, ']') || refuse(json, "',' or ']' is expected");
}

int frnn_json_numbers(frnn_json *json, size_t *numbers, size_t room, size_t *count) {
    return read_list(json, numbers, NULL, room, count);
}

int frnn_json_mixed(frnn_json *json, size_t *whole, double *fractions, size_t room, size_t *count) {
    return read_list(json, whole, fractions, room, count);
}
