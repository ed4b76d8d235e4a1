/* The tools of text-tools: each answers one capability. */
#ifndef TOOLS_H
#define TOOLS_H

#include "loom.h"

typedef bool tool(const loom_call *call, loom_writer *out);

tool count_tool, case_tool, slug_tool, reverse_tool, distance_tool;
tool hash_tool, base64_tool;

/* Unicode: the next scalar of well-formed UTF-8, and a scalar as UTF-8. */
uint32_t next_scalar(const char **at, const char *end);
size_t put_scalar(char *out, uint32_t scalar);

/* The member `text` of the arguments; the schema has made sure that it is there. */
loom_str text_of(const loom_call *call);

#endif
