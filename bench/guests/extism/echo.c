/* The echo of bench/guests/echo for Extism, in its kernel's words of 8 bytes. */
#include <stdint.h>

#define HOST(name) __attribute__((import_module("extism:host/env"), import_name(name)))

HOST("input_length") uint64_t input_length(void);
HOST("input_load_u8") uint8_t input_load_u8(uint64_t);
HOST("input_load_u64") uint64_t input_load_u64(uint64_t);
HOST("alloc") uint64_t host_alloc(uint64_t);
HOST("store_u8") void store_u8(uint64_t, uint8_t);
HOST("store_u64") void store_u64(uint64_t, uint64_t);
HOST("output_set") void output_set(uint64_t, uint64_t);

static uint8_t text[65536];

__attribute__((export_name("echo"))) int32_t echo(void) {
    uint64_t size = input_length(), at = 0;
    if (size > sizeof text) return 1;
    for (; at + 8 <= size; at += 8) *(uint64_t *)(text + at) = input_load_u64(at);
    for (; at < size; at++) text[at] = input_load_u8(at);
    uint64_t out = host_alloc(size);
    for (at = 0; at + 8 <= size; at += 8) store_u64(out + at, *(uint64_t *)(text + at));
    for (; at < size; at++) store_u8(out + at, text[at]);
    output_set(out, size);
    return 0;
}
