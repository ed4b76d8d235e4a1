//! Loom plugins in Zig, for the wasm tier: the functions of `sdk/c/loom.h` with slices and errors.
//!
//! A plugin is one file, named by `entry = "main.zig"`, that declares what it needs of:
//!
//!     pub fn init(start: loom.Start) !void
//!     pub fn invoke(call: loom.Call) !loom.Result
//!     pub fn handleEvent(event: loom.Event) !void
//!     pub fn health() []const u8
//!     pub fn shutdown() void
//!
//! What the host hands over and what `allocator` gives is freed when the function has returned.
const std = @import("std");

/// A text or binary as the component model lays it out.
pub const Str = extern struct {
    data: ?[*]const u8 = null,
    size: usize = 0,

    pub fn of(text: []const u8) Str {
        return if (text.len == 0) .{} else .{ .data = text.ptr, .size = text.len };
    }
    pub fn slice(self: Str) []const u8 {
        return if (self.data) |data| data[0..self.size] else "";
    }
};

pub const Pair = extern struct { name: Str, value: Str };

fn List(comptime Item: type) type {
    return extern struct {
        data: ?[*]const Item = null,
        size: usize = 0,

        pub fn of(items: []const Item) @This() {
            return if (items.len == 0) .{} else .{ .data = items.ptr, .size = items.len };
        }
        pub fn slice(self: @This()) []const Item {
            return if (self.data) |data| data[0..self.size] else &.{};
        }
    };
}

pub const Pairs = List(Pair);
pub const Strs = List(Str);

pub const Event = extern struct {
    id: Str = .{},
    type: Str,
    timestamp_ms: i64 = 0,
    source: Str = .{},
    metadata: Pairs = .{},
    payload: Str = .{},
    confidence: f32 = 1,
    tags: Strs = .{},
    priority: u32 = 50,
    topic: Str,
    traceparent: Str = .{},
    delivery_attempt: u32 = 0,

    /// Empty where there is none.
    pub fn label(self: *const Event, name: []const u8) []const u8 {
        for (self.metadata.slice()) |pair| {
            if (std.mem.eql(u8, pair.name.slice(), name)) return pair.value.slice();
        }
        return "";
    }
};

pub const Call = extern struct {
    id: Str,
    capability: Str,
    version: Str,
    /// JSON object, checked against the capability's schema.
    arguments: Str,
    payload: Str,
    content_type: Str,
    remaining_ms: i64,
    traceparent: Str,
    parent_call_id: Str,

    pub fn is(self: *const Call, capability: []const u8) bool {
        return std.mem.eql(u8, self.capability.slice(), capability);
    }
};

pub const Result = extern struct {
    /// JSON; empty is null.
    output: Str = .{},
    payload: Str = .{},
    content_type: Str = .{},
    elapsed_us: i64 = 0,
};

pub const Start = extern struct { plugin_id: Str, config: Str, grants: Strs };

/// The call is refused; `fail` or the host has said why.
pub const Refused = error{Refused};

const c = struct {
    extern fn loom_fail_with(code: Str, message: Str) bool;
    extern fn loom_publish(event: *const Event) bool;
    extern fn loom_call_capability(name: Str, arguments: Str, payload: Str, to: *Result) bool;
    extern fn loom_emit(output: Str, payload: Str, content_type: Str) bool;
    extern fn loom_log_text(level: Str, message: Str) void;
    extern fn loom_secret(name: Str, value: *Str) bool;
    extern fn loom_kv_get(key: Str, value: *Str, found: *bool) bool;
    extern fn loom_kv_put(key: Str, value: Str) bool;
    extern fn loom_kv_delete(key: Str) bool;
    extern fn loom_kv_list(prefix: Str, keys: *Strs) bool;
    extern fn loom_http(call: *const HttpCall, reply: *HttpReply) bool;
    extern fn loom_now_us() u64;
    extern fn loom_alloc(size: usize) *anyopaque;
    extern fn loom_error_code() Str;
};

fn checked(good: bool) Refused!void {
    if (!good) return error.Refused;
}

/// `return loom.fail("CODE", "what is wrong and what to do")`.
pub fn fail(code: []const u8, message: []const u8) Refused {
    _ = c.loom_fail_with(Str.of(code), Str.of(message));
    return error.Refused;
}

/// The code of the last refusal.
pub fn errorCode() []const u8 {
    return c.loom_error_code().slice();
}

pub fn publish(event: Event) Refused!void {
    try checked(c.loom_publish(&event));
}

pub fn call(capability: []const u8, arguments: []const u8, payload: []const u8) Refused!Result {
    var result = Result{};
    const name, const given = .{ Str.of(capability), Str.of(arguments) };
    try checked(c.loom_call_capability(name, given, Str.of(payload), &result));
    return result;
}

pub fn emit(output: []const u8, payload: []const u8, content_type: []const u8) Refused!void {
    try checked(c.loom_emit(Str.of(output), Str.of(payload), Str.of(content_type)));
}

pub fn log(level: []const u8, message: []const u8) void {
    c.loom_log_text(Str.of(level), Str.of(message));
}

pub fn secret(name: []const u8) Refused![]const u8 {
    var value = Str{};
    try checked(c.loom_secret(Str.of(name), &value));
    return value.slice();
}

pub const kv = struct {
    pub fn get(key: []const u8) Refused!?[]const u8 {
        var value = Str{};
        var found = false;
        try checked(c.loom_kv_get(Str.of(key), &value, &found));
        return if (found) value.slice() else null;
    }
    pub fn put(key: []const u8, value: []const u8) Refused!void {
        try checked(c.loom_kv_put(Str.of(key), Str.of(value)));
    }
    pub fn delete(key: []const u8) Refused!void {
        try checked(c.loom_kv_delete(Str.of(key)));
    }
    pub fn list(prefix: []const u8) Refused![]const Str {
        var keys = Strs{};
        try checked(c.loom_kv_list(Str.of(prefix), &keys));
        return keys.slice();
    }
};

pub const HttpCall = extern struct {
    method: Str,
    url: Str,
    headers: Pairs = .{},
    body: Str = .{},
    timeout_ms: i64 = 30_000,
};
pub const HttpReply = extern struct { status: u32 = 0, headers: Pairs = .{}, body: Str = .{} };

pub fn http(request: HttpCall) Refused!HttpReply {
    var reply = HttpReply{};
    try checked(c.loom_http(&request, &reply));
    return reply;
}

/// A clock that only goes forward.
pub fn nowUs() u64 {
    return c.loom_now_us();
}

/// Memory of this call: nothing needs to be freed. What lives longer: `std.heap.c_allocator`.
pub const allocator = std.mem.Allocator{ .ptr = undefined, .vtable = &.{
    .alloc = alloc,
    .resize = resize,
    .remap = remap,
    .free = free,
} };

fn alloc(_: *anyopaque, size: usize, _: std.mem.Alignment, _: usize) ?[*]u8 {
    return @ptrCast(c.loom_alloc(size)); // aligned to 16, which is all that wasm32 asks for
}
fn resize(_: *anyopaque, memory: []u8, _: std.mem.Alignment, size: usize, _: usize) bool {
    return size <= memory.len;
}
fn remap(_: *anyopaque, memory: []u8, _: std.mem.Alignment, size: usize, _: usize) ?[*]u8 {
    return if (size <= memory.len) memory.ptr else null;
}
fn free(_: *anyopaque, _: []u8, _: std.mem.Alignment, _: usize) void {}

/// JSON as a value of `T`; members that `T` does not name are ignored.
pub fn parse(comptime T: type, text: Str) (Refused || std.mem.Allocator.Error)!T {
    const given = if (text.size == 0) "null" else text.slice();
    return std.json.parseFromSliceLeaky(T, allocator, given, .{
        .ignore_unknown_fields = true,
        .allocate = .alloc_always,
    }) catch |failure| fail("INVALID_ARGUMENTS", @errorName(failure));
}

/// Any value as JSON text.
pub fn json(value: anytype) std.mem.Allocator.Error!Str {
    return Str.of(try std.json.Stringify.valueAlloc(allocator, value, .{}));
}
