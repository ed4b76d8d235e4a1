/* What bench/wasm_tier.py calls: echoes its arguments, computes, takes events. */
#include "loom.h"

static bool work(const loom_call *call, loom_result *result) {
    uint32_t turns = (uint32_t)loom_json_number(call->arguments, "turns", 0);
    volatile uint32_t x = 1;
    for (uint32_t i = 0; i < turns; i++) x = x * 1664525u + 1013904223u;
    loom_writer out = {0};
    loom_write_integer(&out, x);
    result->output = loom_written(&out);
    return true;
}

bool loom_invoke(const loom_call *call, loom_result *result) {
    if (loom_equals(call->capability, "bench.work")) return work(call, result);
    result->output = call->arguments;
    return true;
}

bool loom_handle_event(const loom_event *event) { return event->payload.size > 0; }
