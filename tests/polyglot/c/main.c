/* The test plugin of tests/polyglot in C. */
#include "loom.h"

static loom_str config;
static int64_t count;

bool loom_init(const loom_start *start) {
    config = loom_keep(start->config);
    return true;
}

static bool answer(loom_result *result, const loom_writer *out) {
    result->output = loom_written(out);
    return true;
}

static bool echo(const loom_call *call, loom_result *result) {
    loom_writer out = {0};
    loom_str value = loom_text("null");
    loom_json_member(call->arguments, "value", &value);
    loom_write(&out, "{\"value\": ");
    loom_write_text(&out, value);
    loom_write(&out, "}");
    result->payload = call->payload;
    result->content_type = call->content_type;
    return answer(result, &out);
}

static bool fail(const loom_call *call) {
    loom_str code = {0}, message = {0};
    loom_json_string(call->arguments, "code", &code);
    loom_json_string(call->arguments, "message", &message);
    return loom_fail_with(code, message);
}

static bool store(const loom_call *call, loom_result *result) {
    loom_str key = {0}, value = {0};
    loom_bytes before, after;
    loom_strs keys, left;
    bool had, has;
    loom_json_string(call->arguments, "key", &key);
    loom_json_string(call->arguments, "value", &value);
    if (!loom_kv_get(key, &before, &had) ||
        !loom_kv_put(key, (loom_bytes){(const uint8_t *)value.data, value.size}) ||
        !loom_kv_get(key, &after, &has) || !loom_kv_list(key, &keys) || !loom_kv_delete(key) ||
        !loom_kv_list(key, &left))
        return false;
    loom_writer out = {0};
    loom_write(&out, had ? "{\"had\": true, \"after\": " : "{\"had\": false, \"after\": ");
    loom_write_string(&out, (loom_str){(const char *)after.data, after.size});
    loom_write(&out, ", \"keys\": [");
    for (size_t i = 0; i < keys.size; i++) loom_write_string(&out, keys.data[i]);
    loom_write(&out, "], \"left\": ");
    loom_write_integer(&out, (int64_t)left.size);
    loom_write(&out, "}");
    return answer(result, &out);
}

static bool stream(const loom_call *call, loom_result *result) {
    int items = (int)loom_json_number(call->arguments, "items", 0);
    for (int i = 0; i < items; i++) {
        loom_writer out = {0};
        loom_write(&out, "{\"index\": ");
        loom_write_integer(&out, i);
        loom_write(&out, "}");
        loom_bytes payload = {(const uint8_t *)"xxx", 3};
        if (!loom_emit(loom_written(&out), payload, loom_text("text/plain"))) return false;
    }
    result->output = loom_text("\"done\"");
    return true;
}

static bool nested(const loom_call *call, loom_result *result) {
    loom_str name = {0}, arguments = loom_text("{}");
    loom_json_string(call->arguments, "name", &name);
    loom_json_member(call->arguments, "arguments", &arguments);
    return loom_call_capability(name, arguments, call->payload, result);
}

bool loom_invoke(const loom_call *call, loom_result *result) {
    if (loom_equals(call->capability, "poly.echo")) return echo(call, result);
    if (loom_equals(call->capability, "poly.fail")) return fail(call);
    if (loom_equals(call->capability, "poly.store")) return store(call, result);
    if (loom_equals(call->capability, "poly.stream")) return stream(call, result);
    if (loom_equals(call->capability, "poly.nested")) return nested(call, result);
    if (loom_equals(call->capability, "poly.config")) {
        result->output = config;
        return true;
    }
    if (loom_equals(call->capability, "poly.count")) {
        loom_writer out = {0};
        loom_write_integer(&out, ++count);
        return answer(result, &out);
    }
    if (loom_equals(call->capability, "poly.log")) {
        loom_str message = {0};
        loom_json_string(call->arguments, "message", &message);
        loom_log_text(loom_text("warning"), message);
        return true;
    }
    if (loom_equals(call->capability, "poly.spin"))
        for (volatile int turn = 0;; turn++) {}
    return loom_fail("CAPABILITY_NOT_FOUND", "no such capability");
}

bool loom_handle_event(const loom_event *event) {
    loom_str text = {(const char *)event->payload.data, event->payload.size};
    if (loom_equals(text, "poison")) return loom_fail("POISONED", "will not eat that");
    loom_event note = loom_new_event(loom_text("notes"), loom_text("heard"), event->payload);
    loom_pair labels[] = {
        {loom_text("n"), loom_metadata(event, "n")},
        {loom_text("topic"), event->topic},
    };
    note.metadata = (loom_pairs){labels, 2};
    return loom_publish(&note);
}
