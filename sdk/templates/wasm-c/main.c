#include "loom.h"

bool loom_invoke(const loom_call *call, loom_result *result) {
    loom_str name;
    loom_writer out = {0};
    if (!loom_json_string(call->arguments, "name", &name))
        return loom_fail("NO_NAME", "give a name to greet");
    loom_write(&out, "{\"greeting\": ");
    loom_write_string(&out, name);
    loom_write(&out, "}");
    result->output = loom_written(&out);
    return true;
}
