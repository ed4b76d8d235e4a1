/* JSON for loom.h. The host sends valid JSON; what is not valid ends early and is never overrun. */
#include "loom.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static const char *skip_space(const char *at, const char *end) {
    while (at < end && is_space(*at)) at++;
    return at;
}

/* The end of the string that begins at `at`, behind its closing quote. */
static const char *skip_string(const char *at, const char *end) {
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\' && at + 1 < end) at++;
    return at < end ? at + 1 : end;
}

/* The end of the value that begins at `at`. Counts brackets, so depth costs no stack. */
static const char *skip_value(const char *at, const char *end) {
    size_t depth = 0;
    while (at < end) {
        if (*at == '"') {
            at = skip_string(at, end);
        } else if (*at == '{' || *at == '[') {
            depth++, at++;
        } else if (*at == '}' || *at == ']' || *at == ',') {
            if (depth == 0) return at;
            depth -= *at != ',';
            at++;
        } else if (depth == 0 && (*at == ':' || is_space(*at))) {
            return at;
        } else {
            at++;
            continue;
        }
        if (depth == 0) return at;
    }
    return end;
}

/* The next value of an array or object whose cursor is behind `[`, `{` or a value. */
static bool next_value(const char **cursor, const char *end, loom_str *value) {
    const char *at = skip_space(*cursor, end);
    if (at < end && (*at == ',' || *at == ':')) at = skip_space(at + 1, end);
    if (at >= end || *at == ']' || *at == '}') return false;
    const char *stop = skip_value(at, end);
    *value = (loom_str){at, (size_t)(stop - at)};
    *cursor = stop;
    return stop > at;
}

static bool enter(loom_str container, char bracket, const char **cursor, const char **end) {
    *end = container.data + container.size;
    const char *at = skip_space(container.data, *end);
    *cursor = at + 1;
    return at < *end && *at == bracket;
}

bool loom_json_member(loom_str object, const char *name, loom_str *value) {
    const char *cursor, *end;
    loom_str key, found;
    if (!enter(object, '{', &cursor, &end)) return false;
    while (next_value(&cursor, end, &key) && next_value(&cursor, end, &found)) {
        if (!loom_equals(loom_json_unescape(key), name)) continue;
        *value = found;
        return true;
    }
    return false;
}

bool loom_json_item(loom_str array, size_t index, loom_str *value) {
    const char *cursor, *end;
    loom_str found;
    if (!enter(array, '[', &cursor, &end)) return false;
    while (next_value(&cursor, end, &found)) {
        if (index-- > 0) continue;
        *value = found;
        return true;
    }
    return false;
}

bool loom_json_string(loom_str object, const char *name, loom_str *value) {
    loom_str found;
    if (!loom_json_member(object, name, &found) || found.data[0] != '"') return false;
    *value = loom_json_unescape(found);
    return true;
}

double loom_json_number(loom_str object, const char *name, double otherwise) {
    loom_str found;
    char digits[64] = {0};
    if (!loom_json_member(object, name, &found) || found.size >= sizeof digits) return otherwise;
    memcpy(digits, found.data, found.size);
    char *stop = digits;
    double value = strtod(digits, &stop);
    return stop == digits ? otherwise : value;
}

bool loom_json_bool(loom_str object, const char *name, bool otherwise) {
    loom_str found;
    return loom_json_member(object, name, &found) ? loom_equals(found, "true") : otherwise;
}

static uint32_t hex4(const char *at, const char *end) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at + i < end ? at[i] : '0';
        value = value * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value & 0xFFFF;
}

static char *put_utf8(char *out, uint32_t scalar) {
    if (scalar < 0x80) {
        *out++ = (char)scalar;
        return out;
    }
    int more = scalar < 0x800 ? 1 : scalar < 0x10000 ? 2 : 3;
    *out++ = (char)((0xF0 << (3 - more)) | (scalar >> (6 * more)));
    while (more-- > 0) *out++ = (char)(0x80 | ((scalar >> (6 * more)) & 0x3F));
    return out;
}

/* `at` is behind `\u`; a pair of surrogates is one scalar, a lone one is U+FFFD. */
static char *put_escape(char *out, const char **at, const char *end) {
    uint32_t unit = hex4(*at, end);
    *at += 4;
    if (unit >= 0xD800 && unit < 0xDC00 && *at + 6 <= end && (*at)[0] == '\\' && (*at)[1] == 'u') {
        uint32_t low = hex4(*at + 2, end);
        if (low >= 0xDC00 && low < 0xE000) {
            *at += 6;
            return put_utf8(out, 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00));
        }
    }
    return put_utf8(out, unit >= 0xD800 && unit < 0xE000 ? 0xFFFD : unit);
}

loom_str loom_json_unescape(loom_str quoted) {
    if (quoted.size < 2 || quoted.data[0] != '"') return quoted;
    const char *at = quoted.data + 1, *end = quoted.data + quoted.size - 1;
    if (memchr(at, '\\', (size_t)(end - at)) == NULL) return (loom_str){at, (size_t)(end - at)};
    char *text = loom_alloc(quoted.size), *out = text;
    while (at < end) {
        char c = *at++;
        if (c != '\\' || at >= end) {
            *out++ = c;
            continue;
        }
        c = *at++;
        if (c == 'u') {
            out = put_escape(out, &at, end);
        } else {
            static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
            const char *found = strchr(from, c);
            *out++ = found != NULL && c != 0 ? to[found - from] : c;
        }
    }
    return (loom_str){text, (size_t)(out - text)};
}

/* ---- Writing -------------------------------------------------------------------------------- */

static void write_bytes(loom_writer *out, const char *data, size_t size) {
    if (size > out->room - out->size) {
        size_t room = out->room * 2 + size + 256;
        char *grown = loom_alloc(room);
        if (out->size > 0) memcpy(grown, out->data, out->size);
        out->data = grown, out->room = room;
    }
    if (size > 0) memcpy(out->data + out->size, data, size);
    out->size += size;
}

void loom_write(loom_writer *out, const char *zero_ended) {
    write_bytes(out, zero_ended, strlen(zero_ended));
}

void loom_write_text(loom_writer *out, loom_str text) { write_bytes(out, text.data, text.size); }

void loom_write_string(loom_writer *out, loom_str text) {
    static const char digits[] = "0123456789abcdef";
    write_bytes(out, "\"", 1);
    for (size_t i = 0; i < text.size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        char escape[6] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};
        if (c == '"' || c == '\\') write_bytes(out, (char[]){'\\', (char)c}, 2);
        else if (c < 0x20) write_bytes(out, escape, 6);
        else write_bytes(out, text.data + i, 1);
    }
    write_bytes(out, "\"", 1);
}

void loom_write_integer(loom_writer *out, int64_t value) {
    char digits[24], *at = digits + sizeof digits;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do *--at = (char)('0' + rest % 10); while ((rest /= 10) > 0);
    if (value < 0) *--at = '-';
    write_bytes(out, at, (size_t)(digits + sizeof digits - at));
}

/* At most 6 decimal places, without the weight of printf. */
void loom_write_number(loom_writer *out, double value) {
    if (!isfinite(value) || fabs(value) >= 9e12) {
        loom_write(out, "null");
        return;
    }
    int64_t millionths = (int64_t)llround(value * 1e6);
    if (millionths < 0) loom_write(out, "-");
    uint64_t rest = (uint64_t)llabs(millionths);
    loom_write_integer(out, (int64_t)(rest / 1000000));
    if ((rest %= 1000000) == 0) return;
    char places[7] = {'.'};
    int size = 7;
    for (int i = 6; i > 0; i--, rest /= 10) places[i] = (char)('0' + rest % 10);
    while (places[size - 1] == '0') size--;
    write_bytes(out, places, (size_t)size);
}

loom_str loom_written(const loom_writer *out) { return (loom_str){out->data, out->size}; }
