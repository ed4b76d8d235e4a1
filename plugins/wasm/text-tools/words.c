/* Tools that read texts as Unicode: count, case, slug, reverse, distance. */
#include "tools.h"

#include <string.h>
#include <wctype.h>

enum { DISTANCE_MAX = 2000 }; /* scalars; the work grows with the product of both lengths */

uint32_t next_scalar(const char **at, const char *end) {
    unsigned char lead = (unsigned char)*(*at)++;
    int more = lead < 0xC0 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    uint32_t scalar = more == 0 ? lead : lead & (0x3Fu >> more);
    while (more-- > 0 && *at < end) scalar = scalar << 6 | ((unsigned char)*(*at)++ & 0x3F);
    return scalar;
}

size_t put_scalar(char *out, uint32_t scalar) {
    if (scalar < 0x80) return out[0] = (char)scalar, 1;
    int more = scalar < 0x800 ? 1 : scalar < 0x10000 ? 2 : 3;
    out[0] = (char)(0xF0 << (3 - more) | scalar >> (6 * more));
    for (int i = 1; i <= more; i++) out[i] = (char)(0x80 | (scalar >> (6 * (more - i)) & 0x3F));
    return (size_t)more + 1;
}

static bool is_blank(uint32_t c) { return iswspace((wint_t)c) || c == 0xA0; }

/* A letter or digit of any script, a mark that joins one, or an apostrophe inside a word. */
static bool is_word(uint32_t c) {
    return iswalnum((wint_t)c) || (c >= 0x300 && c < 0x370) || c == '\'' || c == 0x2019;
}

bool count_tool(const loom_call *call, loom_writer *out) {
    loom_str text = text_of(call);
    const char *at = text.data, *end = text.data + text.size;
    int64_t characters = 0, letters = 0, words = 0, sentences = 0;
    int64_t lines = text.size > 0;
    bool inside = false, open = false; /* a word; a sentence */
    while (at < end) {
        uint32_t c = next_scalar(&at, end);
        characters++;
        letters += iswalpha((wint_t)c) != 0;
        lines += c == '\n' && at < end;
        if (is_word(c) && !inside) words++, open = true;
        bool point = (c == '.' || c == ',') && at < end && *at >= '0' && *at <= '9';
        inside = is_word(c) || (inside && point);
        bool stop = (c == '.' || c == '!' || c == '?' || c == 0x3002) &&
                    (at == end || is_blank((unsigned char)*at) || c == 0x3002);
        if (stop && open) sentences++, open = false;
    }
    sentences += open;
    const struct { const char *name; int64_t value; } counts[] = {
        {"{\"characters\": ", characters}, {", \"letters\": ", letters}, {", \"words\": ", words},
        {", \"sentences\": ", sentences},  {", \"lines\": ", lines},
        {", \"bytes\": ", (int64_t)text.size},
    };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        loom_write(out, counts[i].name);
        loom_write_integer(out, counts[i].value);
    }
    loom_write(out, ", \"speech\": \"");
    loom_write_integer(out, words);
    loom_write(out, words == 1 ? " word and " : " words and ");
    loom_write_integer(out, characters);
    loom_write(out, characters == 1 ? " character.\"}" : " characters.\"}");
    return true;
}

static bool answer_text(loom_writer *out, const char *data, size_t size) {
    loom_write(out, "{\"text\": ");
    loom_write_string(out, (loom_str){data, size});
    loom_write(out, "}");
    return true;
}

bool case_tool(const loom_call *call, loom_writer *out) {
    loom_str text = text_of(call), mode = {0};
    loom_json_string(call->arguments, "to", &mode);
    bool upper = loom_equals(mode, "upper"), title = loom_equals(mode, "title");
    bool sentence = loom_equals(mode, "sentence"), start = true;
    char *made = loom_alloc(text.size * 2 + 4), *to = made;
    for (const char *at = text.data, *end = at + text.size; at < end;) {
        uint32_t c = next_scalar(&at, end);
        bool raise = upper || ((title || sentence) && start);
        to += put_scalar(to, (uint32_t)(raise ? towupper((wint_t)c) : towlower((wint_t)c)));
        if (title) start = !is_word(c);
        else if (is_word(c)) start = false;
        else if (c == '.' || c == '!' || c == '?') start = true;
    }
    return answer_text(out, made, (size_t)(to - made));
}

/* Latin letters with marks as plain ones: U+00C0 to U+017F, two letters each where it needs. */
static const char *plain(uint32_t c) {
    static const char *const LATIN[] = {
        "a", "a", "a", "a", "ae", "a", "ae", "c", "e", "e", "e", "e", "i", "i", "i", "i",
        "d", "n", "o", "o", "o", "o", "oe", "",  "o", "u", "u", "u", "ue", "y", "th", "ss",
    };
    static const char EXTENDED[] =
        "aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiiijjjjkkklllllllllln"
        "nnnnnnnnoooooooorrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs";
    static char one[2];
    if (c == 0xFF) return "y";
    if (c >= 0xC0 && c < 0x100) return LATIN[(c - 0xC0) % 32];
    if (c < 0x100 || c >= 0x180) return "";
    return one[0] = EXTENDED[c - 0x100], one;
}

bool slug_tool(const loom_call *call, loom_writer *out) {
    loom_str text = text_of(call);
    char *made = loom_alloc(text.size * 2 + 4), *to = made;
    bool dash = false;
    for (const char *at = text.data, *end = at + text.size; at < end;) {
        uint32_t c = next_scalar(&at, end);
        char small[2] = {c < 0x80 ? (char)towlower((wint_t)c) : 0};
        bool keeps = (small[0] >= 'a' && small[0] <= 'z') || (small[0] >= '0' && small[0] <= '9');
        const char *letters = keeps ? small : plain(c);
        if (letters[0] == 0) {
            dash = dash || c != '\'';
            continue;
        }
        if (dash && to > made) *to++ = '-';
        dash = false;
        while (*letters != 0) *to++ = *letters++;
    }
    return answer_text(out, made, (size_t)(to - made));
}

/* By scalars, with the marks that follow one kept behind it. */
bool reverse_tool(const loom_call *call, loom_writer *out) {
    loom_str text = text_of(call);
    char *made = loom_alloc(text.size + 1), *to = made + text.size;
    for (const char *at = text.data, *end = at + text.size; at < end;) {
        const char *from = at;
        next_scalar(&at, end);
        while (at < end) {
            const char *peek = at;
            uint32_t next = next_scalar(&peek, end);
            if (!((next >= 0x300 && next < 0x370) || (next >= 0xFE00 && next < 0xFE10))) break;
            at = peek;
        }
        to -= at - from;
        memcpy(to, from, (size_t)(at - from));
    }
    return answer_text(out, made, text.size);
}

static size_t scalars_of(loom_str text, uint32_t *scalars) {
    size_t size = 0;
    for (const char *at = text.data, *end = at + text.size; at < end;) {
        uint32_t c = next_scalar(&at, end);
        if (size < DISTANCE_MAX) scalars[size] = c;
        size++;
    }
    return size;
}

/* Levenshtein, one row at a time. */
bool distance_tool(const loom_call *call, loom_writer *out) {
    static uint32_t a[DISTANCE_MAX], b[DISTANCE_MAX], row[DISTANCE_MAX + 1];
    loom_str other = {0};
    loom_json_string(call->arguments, "other", &other);
    size_t m = scalars_of(text_of(call), a), n = scalars_of(other, b);
    if (m > DISTANCE_MAX || n > DISTANCE_MAX)
        return loom_fail("TOO_LONG", "text.distance compares texts of at most 2000 characters");
    for (size_t j = 0; j <= n; j++) row[j] = (uint32_t)j;
    for (size_t i = 1; i <= m; i++) {
        uint32_t diagonal = row[0];
        row[0] = (uint32_t)i;
        for (size_t j = 1; j <= n; j++) {
            uint32_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            uint32_t changed = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replaced < changed ? replaced : changed;
        }
    }
    size_t longer = m > n ? m : n;
    loom_write(out, "{\"distance\": ");
    loom_write_integer(out, row[n]);
    loom_write(out, ", \"similarity\": ");
    loom_write_number(out, longer == 0 ? 1 : 1 - (double)row[n] / (double)longer);
    loom_write(out, "}");
    return true;
}
