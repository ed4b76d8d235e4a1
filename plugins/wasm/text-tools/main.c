/* Small tools on texts, so that a model need not count letters. */
#include "tools.h"

static const struct { const char *capability; tool *answer; } TOOLS[] = {
    {"text.count", count_tool},   {"text.case", case_tool},       {"text.slug", slug_tool},
    {"text.hash", hash_tool},     {"text.base64", base64_tool},   {"text.reverse", reverse_tool},
    {"text.distance", distance_tool},
};

loom_str text_of(const loom_call *call) {
    loom_str text = {0};
    loom_json_string(call->arguments, "text", &text);
    return text;
}

bool loom_invoke(const loom_call *call, loom_result *result) {
    for (size_t i = 0; i < sizeof TOOLS / sizeof *TOOLS; i++) {
        if (!loom_equals(call->capability, TOOLS[i].capability)) continue;
        loom_writer out = {0};
        if (!TOOLS[i].answer(call, &out)) return false;
        result->output = loom_written(&out);
        return true;
    }
    return loom_fail("CAPABILITY_NOT_FOUND", "text-tools does not offer this capability");
}
