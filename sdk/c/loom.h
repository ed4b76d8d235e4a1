/* Loom plugins in C, for the wasm tier.
 *
 * Write the functions of the first part; call the functions of the second. Build with
 * `loom plugin build FOLDER`, where plugin.toml says tier = "wasm" and entry = "main.c".
 *
 * Texts are UTF-8 with a length, not ended by a zero. Whatever the host hands over, and whatever
 * loom_alloc gives, is freed when the function of the first part has returned: copy with
 * loom_keep what must live longer. A guest runs one call at a time.
 *
 * The structs are those of sdk/wit/plugin.wit: in wasm32 the component model's layout of a record
 * is C's layout of a struct with the same fields.
 */
#ifndef LOOM_H
#define LOOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { const char *data; size_t size; } loom_str;
typedef struct { const uint8_t *data; size_t size; } loom_bytes;
typedef struct { const loom_str *data; size_t size; } loom_strs;
typedef struct { loom_str name, value; } loom_pair;
typedef struct { const loom_pair *data; size_t size; } loom_pairs;

typedef struct {
    loom_str id, type;
    int64_t timestamp_ms; /* Unix time */
    loom_str source;      /* set by the host */
    loom_pairs metadata;
    loom_bytes payload;
    float confidence;
    loom_strs tags;
    uint32_t priority;    /* 0 to 100, 50 is usual */
    loom_str topic, traceparent;
    uint32_t delivery_attempt;
} loom_event;

typedef struct {
    loom_str id, capability, version;
    loom_str arguments;   /* JSON object, checked against the capability's schema */
    loom_bytes payload;
    loom_str content_type;
    int64_t remaining_ms;
    loom_str traceparent, parent_call_id;
} loom_call;

typedef struct {
    loom_str output;      /* JSON; empty is null */
    loom_bytes payload;
    loom_str content_type;
    int64_t elapsed_us;   /* measured where left 0 */
} loom_result;

typedef struct {
    loom_str plugin_id;
    loom_str config;      /* JSON object */
    loom_strs grants;     /* such as "publish:notes" */
} loom_start;

/* ---- What an author writes. All but loom_invoke may be left out. ----------------------------
 * False refuses: `return loom_fail("CODE", "what is wrong and what to do")`. */

bool loom_init(const loom_start *start);
bool loom_invoke(const loom_call *call, loom_result *result);
bool loom_handle_event(const loom_event *event); /* true acknowledges the event */
loom_str loom_health(void);                      /* empty when healthy */
void loom_shutdown(void);

/* ---- What an author calls. False: the host refused, and the error is set; returning false
 * passes it on, loom_error_code tells what it is. ------------------------------------------- */

bool loom_fail(const char *code, const char *message); /* always false */
bool loom_fail_with(loom_str code, loom_str message);
loom_str loom_error_code(void);

/* An event to publish: a topic, a type and a payload; set other fields before publishing. */
loom_event loom_new_event(loom_str topic, loom_str type, loom_bytes payload);
bool loom_publish(const loom_event *event);
bool loom_call_capability(loom_str capability, loom_str arguments, loom_bytes payload,
                          loom_result *result);
bool loom_emit(loom_str output, loom_bytes payload, loom_str content_type);
void loom_log(const char *level, const char *message); /* debug, info, warning, error */
void loom_log_text(loom_str level, loom_str message);
bool loom_secret(loom_str name, loom_str *value);

bool loom_kv_get(loom_str key, loom_bytes *value, bool *found);
bool loom_kv_put(loom_str key, loom_bytes value);
bool loom_kv_delete(loom_str key);
bool loom_kv_list(loom_str prefix, loom_strs *keys);

typedef struct {
    loom_str method, url;
    loom_pairs headers;
    loom_bytes body;
    int64_t timeout_ms;
} loom_http_call;

typedef struct {
    uint32_t status;
    loom_pairs headers;
    loom_bytes body;
} loom_http_reply;

bool loom_http(const loom_http_call *call, loom_http_reply *reply);

uint64_t loom_now_us(void);              /* a clock that only goes forward */
void *loom_alloc(size_t size);           /* zeroed, freed after this call; traps when it is full */
loom_str loom_keep(loom_str text);       /* a copy that lives on; free() its data */

/* ---- Texts -------------------------------------------------------------------------------- */

loom_str loom_text(const char *zero_ended);
bool loom_equals(loom_str text, const char *zero_ended);
loom_str loom_metadata(const loom_event *event, const char *name); /* empty where there is none */

#define LOOM_NONE ((loom_bytes){0})

/* ---- JSON: reading what the host has checked, and writing. False: there is no such member, and
 * `value` is as it was. --------------------------------------------------------------------- */

bool loom_json_member(loom_str object, const char *name, loom_str *value); /* as JSON text */
bool loom_json_item(loom_str array, size_t index, loom_str *value);        /* as JSON text */
bool loom_json_string(loom_str object, const char *name, loom_str *value); /* unescaped */
double loom_json_number(loom_str object, const char *name, double otherwise);
bool loom_json_bool(loom_str object, const char *name, bool otherwise);
loom_str loom_json_unescape(loom_str quoted);

typedef struct { char *data; size_t size, room; } loom_writer; /* begin with {0} */

void loom_write(loom_writer *out, const char *zero_ended);
void loom_write_text(loom_writer *out, loom_str text);
void loom_write_string(loom_writer *out, loom_str text); /* quoted and escaped */
void loom_write_integer(loom_writer *out, int64_t value);
void loom_write_number(loom_writer *out, double value);  /* null where it is not finite */
loom_str loom_written(const loom_writer *out);

#endif
