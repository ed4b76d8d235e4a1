/* Tools that read texts as bytes: hash and base64. */
#include "tools.h"

#include <string.h>

/* ---- SHA-256, FIPS 180-4 -------------------------------------------------------------------- */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turned(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void sha256_block(uint32_t state[8], const uint8_t *block) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (turned(x, 7) ^ turned(x, 18) ^ x >> 3) + w[i - 7] +
               (turned(y, 17) ^ turned(y, 19) ^ y >> 10);
    }
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t e = v[4], a = v[0];
        uint32_t one = v[7] + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) +
                       ((e & v[5]) ^ (~e & v[6])) + K[i] + w[i];
        uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) +
                       ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

static void sha256(loom_str text, uint8_t digest[32]) {
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    size_t rest = text.size % 64, whole = text.size - rest;
    uint8_t last[128] = {0};
    for (size_t at = 0; at < whole; at += 64)
        sha256_block(state, (const uint8_t *)text.data + at);
    if (rest > 0) memcpy(last, text.data + whole, rest);
    last[rest] = 0x80;
    size_t size = rest < 56 ? 64 : 128;
    uint64_t bits = (uint64_t)text.size * 8;
    for (int i = 0; i < 8; i++) last[size - 1 - i] = (uint8_t)(bits >> (8 * i));
    for (size_t at = 0; at < size; at += 64) sha256_block(state, last + at);
    for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

/* ---- CRC-32, ISO 3309, as zlib has it -------------------------------------------------------- */

static uint32_t crc32(loom_str text) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < text.size; i++) {
        crc ^= (uint8_t)text.data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static void write_hex(loom_writer *out, const uint8_t *data, size_t size) {
    static const char digits[] = "0123456789abcdef";
    char text[3] = {0};
    for (size_t i = 0; i < size; i++) {
        text[0] = digits[data[i] >> 4], text[1] = digits[data[i] & 15];
        loom_write(out, text);
    }
}

bool hash_tool(const loom_call *call, loom_writer *out) {
    loom_str text = text_of(call), algorithm = loom_text("sha256");
    loom_json_string(call->arguments, "algorithm", &algorithm);
    uint8_t digest[32];
    size_t size = 32;
    if (loom_equals(algorithm, "sha256")) {
        sha256(text, digest);
    } else {
        uint32_t crc = crc32(text);
        for (size = 0; size < 4; size++) digest[size] = (uint8_t)(crc >> (24 - 8 * size));
    }
    loom_write(out, "{\"hash\": \"");
    write_hex(out, digest, size);
    loom_write(out, "\"}");
    return true;
}

/* ---- Base64, RFC 4648 ------------------------------------------------------------------------ */

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static loom_str encoded(loom_str text) {
    char *made = loom_alloc((text.size + 2) / 3 * 4 + 1), *to = made;
    for (size_t i = 0; i < text.size; i += 3) {
        size_t left = text.size - i;
        uint32_t group = (uint32_t)(uint8_t)text.data[i] << 16;
        if (left > 1) group |= (uint32_t)(uint8_t)text.data[i + 1] << 8;
        if (left > 2) group |= (uint8_t)text.data[i + 2];
        *to++ = ALPHABET[group >> 18];
        *to++ = ALPHABET[group >> 12 & 63];
        *to++ = left > 1 ? ALPHABET[group >> 6 & 63] : '=';
        *to++ = left > 2 ? ALPHABET[group & 63] : '=';
    }
    return (loom_str){made, (size_t)(to - made)};
}

/* Both alphabets, with or without padding. */
static bool decoded(loom_str text, loom_str *bytes) {
    char *made = loom_alloc(text.size + 1), *to = made;
    uint32_t group = 0;
    int bits = 0;
    while (text.size > 0 && text.data[text.size - 1] == '=') text.size--;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i] == '-' ? '+' : text.data[i] == '_' ? '/' : text.data[i];
        const char *found = c == 0 ? NULL : strchr(ALPHABET, c);
        if (found == NULL) return false;
        group = group << 6 | (uint32_t)(found - ALPHABET);
        if ((bits += 6) >= 8) *to++ = (char)(group >> (bits -= 8));
    }
    *bytes = (loom_str){made, (size_t)(to - made)};
    return bits < 6;
}

static bool is_utf8(loom_str text) {
    const char *at = text.data, *end = at + text.size;
    while (at < end) {
        const char *from = at;
        char again[4];
        uint32_t c = next_scalar(&at, end);
        size_t size = put_scalar(again, c);
        bool surrogate = c >= 0xD800 && c < 0xE000;
        if (surrogate || c > 0x10FFFF || size != (size_t)(at - from) ||
            memcmp(from, again, size) != 0)
            return false;
    }
    return true;
}

bool base64_tool(const loom_call *call, loom_writer *out) {
    loom_str text = text_of(call), to = loom_text("encode"), made;
    loom_json_string(call->arguments, "to", &to);
    if (loom_equals(to, "encode")) {
        made = encoded(text);
    } else {
        if (!decoded(text, &made))
            return loom_fail("NOT_BASE64", "the text is not base64: it has other characters in it");
        if (!is_utf8(made))
            return loom_fail("NOT_TEXT", "the base64 holds binary, not a text in UTF-8");
    }
    loom_write(out, "{\"text\": ");
    loom_write_string(out, made);
    loom_write(out, "}");
    return true;
}
