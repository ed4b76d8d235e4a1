/* The component model's side of loom.h: exports, imports, and the memory of one call. */
#include "loom.h"

#include <stdlib.h>
#include <string.h>

#define HOST(name) __attribute__((import_module("loom:plugin/host@1.0.0"), import_name(name)))
#define PLUGIN(name) __attribute__((export_name("loom:plugin/plugin@1.0.0#" name)))
#define AFTER(name) __attribute__((export_name("cabi_post_loom:plugin/plugin@1.0.0#" name)))

typedef struct { loom_str code, message, details; } action_error;

/* `result` of the WIT: a tag, 0 for ok, and one of the two values. */
#define RESULT(ok_type) struct { uint8_t failed; union { ok_type ok; action_error error; }; }

typedef RESULT(uint8_t) plain_result;
typedef RESULT(uint32_t) count_result;
typedef RESULT(int64_t) time_result;
typedef RESULT(loom_result) call_result;
typedef RESULT(loom_str) text_result;
typedef RESULT(loom_strs) texts_result;
typedef RESULT(loom_http_reply) http_result;
typedef struct { uint8_t some; loom_bytes value; } maybe_bytes;
typedef RESULT(maybe_bytes) maybe_result;
typedef struct {
    loom_str api_version;
    struct { const void *data; size_t size; } capabilities, subscriptions; /* as in plugin.toml */
} init_response;
typedef RESULT(init_response) init_result;
typedef struct { uint8_t healthy; loom_str message; int64_t memory_bytes; } health_status;

HOST("publish") void host_publish(const loom_event *, count_result *);
HOST("invoke") void host_invoke(const loom_call *, call_result *);
HOST("emit") void host_emit(const char *, size_t, const uint8_t *, size_t, const char *, size_t,
                            plain_result *);
HOST("kv-get") void host_kv_get(const char *, size_t, maybe_result *);
HOST("kv-put") void host_kv_put(const char *, size_t, const uint8_t *, size_t, plain_result *);
HOST("kv-delete") void host_kv_delete(const char *, size_t, plain_result *);
HOST("kv-list") void host_kv_list(const char *, size_t, texts_result *);
HOST("http-request") void host_http(const char *, size_t, const char *, size_t, const void *,
                                    size_t, const uint8_t *, size_t, int64_t, http_result *);
HOST("log") void host_log(const char *, size_t, const char *, size_t, const void *, size_t);
HOST("get-secret") void host_get_secret(const char *, size_t, text_result *);

__attribute__((import_module("wasi:clocks/monotonic-clock@0.2.0"), import_name("now")))
uint64_t clock_now_ns(void);

/* ---- Memory of one call: one kept block, and further ones where it is not enough ------------ */

enum { BLOCK = 64 * 1024 };

static _Alignas(16) uint8_t first_block[BLOCK];
static size_t used;
static struct extra { struct extra *next; uint64_t align[1]; } *extras;

/* The host finds arguments and results here too. */
__attribute__((export_name("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    size_t at = (used + align - 1) / align * align;
    void *memory;
    if (size <= BLOCK && at <= BLOCK - size) {
        memory = first_block + at;
        used = at + size;
    } else {
        struct extra *block = size < SIZE_MAX - 32 ? malloc(sizeof *block + size) : NULL;
        if (block == NULL) __builtin_trap();
        block->next = extras;
        extras = block;
        memory = block + 1;
    }
    if (old != NULL && old_size > 0) memcpy(memory, old, old_size < size ? old_size : size);
    return memory;
}

static void free_call(void) {
    used = 0;
    while (extras != NULL) {
        struct extra *next = extras->next;
        free(extras);
        extras = next;
    }
}

void *loom_alloc(size_t size) {
    return memset(cabi_realloc(NULL, 0, 16, size), 0, size);
}

loom_str loom_keep(loom_str text) {
    char *copy = malloc(text.size + 1);
    if (copy == NULL) __builtin_trap();
    if (text.size > 0) memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    return (loom_str){copy, text.size};
}

/* ---- Errors --------------------------------------------------------------------------------- */

static action_error failure;

bool loom_fail_with(loom_str code, loom_str message) {
    failure = (action_error){code, message, loom_text("{}")};
    return false;
}

bool loom_fail(const char *code, const char *message) {
    return loom_fail_with(loom_text(code), loom_text(message));
}

loom_str loom_error_code(void) { return failure.code; }

static action_error taken_failure(void) {
    action_error error = failure;
    failure = (action_error){0};
    if (error.code.size == 0) error.code = loom_text("CAPABILITY_ERROR");
    if (error.message.size == 0) error.message = loom_text("the plugin refused and gave no reason");
    return error;
}

/* What a result holds, and whether it is the good side. */
#define GOOD(result) ((result).failed ? (failure = (result).error, false) : true)

/* ---- Exports -------------------------------------------------------------------------------- */

__attribute__((weak)) bool loom_init(const loom_start *start) { return (void)start, true; }
__attribute__((weak)) bool loom_handle_event(const loom_event *event) { return (void)event, true; }
__attribute__((weak)) loom_str loom_health(void) { return (loom_str){0}; }
__attribute__((weak)) void loom_shutdown(void) {}
__attribute__((weak)) bool loom_invoke(const loom_call *call, loom_result *result) {
    (void)call, (void)result;
    return loom_fail("CAPABILITY_NOT_FOUND", "this plugin offers nothing");
}

PLUGIN("init")
init_result *export_init(const loom_str *versions, size_t version_count, const char *id,
                         size_t id_size, const char *config, size_t config_size,
                         const loom_str *grants, size_t grant_count, const void *quotas,
                         size_t quota_count) {
    (void)quotas, (void)quota_count;
    init_result *answer = loom_alloc(sizeof *answer);
    bool spoken = false;
    for (size_t i = 0; i < version_count; i++) spoken |= loom_equals(versions[i], "1");
    loom_start start = {{id, id_size}, {config, config_size}, {grants, grant_count}};
    if (!spoken) loom_fail("PROTOCOL_MISMATCH", "the plugin speaks api 1 alone: build it anew");
    answer->failed = !spoken || !loom_init(&start);
    if (answer->failed)
        answer->error = taken_failure();
    else
        answer->ok.api_version = loom_text("1");
    return answer;
}

PLUGIN("invoke")
call_result *export_invoke(const loom_call *call) {
    uint64_t began = loom_now_us();
    call_result *answer = loom_alloc(sizeof *answer);
    loom_result result = {0};
    answer->failed = !loom_invoke(call, &result);
    if (answer->failed) {
        answer->error = taken_failure();
    } else {
        if (result.elapsed_us == 0) result.elapsed_us = (int64_t)(loom_now_us() - began);
        answer->ok = result;
    }
    return answer;
}

PLUGIN("handle-event")
time_result *export_handle_event(const loom_event *event) {
    uint64_t began = loom_now_us();
    time_result *answer = loom_alloc(sizeof *answer);
    answer->failed = !loom_handle_event(event);
    if (answer->failed)
        answer->error = taken_failure();
    else
        answer->ok = (int64_t)(loom_now_us() - began);
    return answer;
}

PLUGIN("health")
health_status *export_health(void) {
    health_status *answer = loom_alloc(sizeof *answer);
    answer->message = loom_health();
    answer->healthy = answer->message.size == 0;
    return answer;
}

PLUGIN("shutdown") void export_shutdown(void) { loom_shutdown(); }

AFTER("init") void after_init(init_result *answer) { (void)answer, free_call(); }
AFTER("invoke") void after_invoke(call_result *answer) { (void)answer, free_call(); }
AFTER("handle-event") void after_event(time_result *answer) { (void)answer, free_call(); }
AFTER("health") void after_health(health_status *answer) { (void)answer, free_call(); }

/* ---- Imports -------------------------------------------------------------------------------- */

loom_event loom_new_event(loom_str topic, loom_str type, loom_bytes payload) {
    return (loom_event){
        .topic = topic, .type = type, .payload = payload, .confidence = 1.0f, .priority = 50};
}

bool loom_publish(const loom_event *event) {
    count_result answer;
    host_publish(event, &answer);
    return GOOD(answer);
}

bool loom_call_capability(loom_str capability, loom_str arguments, loom_bytes payload,
                          loom_result *result) {
    loom_call call = {.capability = capability, .arguments = arguments, .payload = payload,
                      .remaining_ms = 30000};
    call_result answer;
    host_invoke(&call, &answer);
    if (!answer.failed) *result = answer.ok;
    return GOOD(answer);
}

bool loom_emit(loom_str output, loom_bytes payload, loom_str content_type) {
    plain_result answer;
    host_emit(output.data, output.size, payload.data, payload.size, content_type.data,
              content_type.size, &answer);
    return GOOD(answer);
}

void loom_log_text(loom_str level, loom_str message) {
    host_log(level.data, level.size, message.data, message.size, NULL, 0);
}

void loom_log(const char *level, const char *message) {
    loom_log_text(loom_text(level), loom_text(message));
}

bool loom_secret(loom_str name, loom_str *value) {
    text_result answer;
    host_get_secret(name.data, name.size, &answer);
    if (!answer.failed) *value = answer.ok;
    return GOOD(answer);
}

bool loom_kv_get(loom_str key, loom_bytes *value, bool *found) {
    maybe_result answer;
    host_kv_get(key.data, key.size, &answer);
    if (!answer.failed) {
        *found = answer.ok.some;
        *value = answer.ok.some ? answer.ok.value : LOOM_NONE;
    }
    return GOOD(answer);
}

bool loom_kv_put(loom_str key, loom_bytes value) {
    plain_result answer;
    host_kv_put(key.data, key.size, value.data, value.size, &answer);
    return GOOD(answer);
}

bool loom_kv_delete(loom_str key) {
    plain_result answer;
    host_kv_delete(key.data, key.size, &answer);
    return GOOD(answer);
}

bool loom_kv_list(loom_str prefix, loom_strs *keys) {
    texts_result answer;
    host_kv_list(prefix.data, prefix.size, &answer);
    if (!answer.failed) *keys = answer.ok;
    return GOOD(answer);
}

bool loom_http(const loom_http_call *call, loom_http_reply *reply) {
    http_result answer;
    host_http(call->method.data, call->method.size, call->url.data, call->url.size,
              call->headers.data, call->headers.size, call->body.data, call->body.size,
              call->timeout_ms, &answer);
    if (!answer.failed) *reply = answer.ok;
    return GOOD(answer);
}

uint64_t loom_now_us(void) { return clock_now_ns() / 1000; }

/* ---- Texts ---------------------------------------------------------------------------------- */

loom_str loom_text(const char *zero_ended) { return (loom_str){zero_ended, strlen(zero_ended)}; }

bool loom_equals(loom_str text, const char *zero_ended) {
    return text.size == strlen(zero_ended) && memcmp(text.data, zero_ended, text.size) == 0;
}

loom_str loom_metadata(const loom_event *event, const char *name) {
    for (size_t i = 0; i < event->metadata.size; i++)
        if (loom_equals(event->metadata.data[i].name, name)) return event->metadata.data[i].value;
    return (loom_str){0};
}
