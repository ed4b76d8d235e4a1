//! The test plugin of tests/polyglot in Zig.
const std = @import("std");
const loom = @import("loom");

var config: []const u8 = "{}";
var count: i64 = 0;

pub fn init(start: loom.Start) !void {
    config = try std.heap.c_allocator.dupe(u8, start.config.slice());
}

pub fn invoke(call: loom.Call) !loom.Result {
    if (call.is("poly.echo")) return echo(call);
    if (call.is("poly.fail")) return refuse(call);
    if (call.is("poly.store")) return store(call);
    if (call.is("poly.stream")) return stream(call);
    if (call.is("poly.nested")) return nested(call);
    if (call.is("poly.config")) return .{ .output = loom.Str.of(config) };
    if (call.is("poly.count")) {
        count += 1;
        return .{ .output = try loom.json(count) };
    }
    if (call.is("poly.log")) {
        const arguments = try loom.parse(struct { message: []const u8 }, call.arguments);
        loom.log("warning", arguments.message);
        return .{};
    }
    if (call.is("poly.spin")) {
        var turn: u32 = 0;
        while (true) @as(*volatile u32, &turn).* +%= 1;
    }
    return loom.fail("CAPABILITY_NOT_FOUND", "no such capability");
}

fn echo(call: loom.Call) !loom.Result {
    const Arguments = struct { value: std.json.Value = .null };
    const arguments = try loom.parse(Arguments, call.arguments);
    return .{
        .output = try loom.json(arguments),
        .payload = call.payload,
        .content_type = call.content_type,
    };
}

fn refuse(call: loom.Call) !loom.Result {
    const Arguments = struct { code: []const u8, message: []const u8 };
    const arguments = try loom.parse(Arguments, call.arguments);
    return loom.fail(arguments.code, arguments.message);
}

fn store(call: loom.Call) !loom.Result {
    const Arguments = struct { key: []const u8, value: []const u8 };
    const arguments = try loom.parse(Arguments, call.arguments);
    const had = try loom.kv.get(arguments.key) != null;
    try loom.kv.put(arguments.key, arguments.value);
    const after = try loom.kv.get(arguments.key);
    const listed = try loom.kv.list(arguments.key);
    const keys = try loom.allocator.alloc([]const u8, listed.len);
    for (listed, keys) |from, *to| to.* = from.slice();
    try loom.kv.delete(arguments.key);
    const left = (try loom.kv.list(arguments.key)).len;
    const output = .{ .had = had, .after = after, .keys = keys, .left = left };
    return .{ .output = try loom.json(output) };
}

fn stream(call: loom.Call) !loom.Result {
    const arguments = try loom.parse(struct { items: u32 }, call.arguments);
    for (0..arguments.items) |index| {
        const item = try loom.json(.{ .index = index });
        try loom.emit(item.slice(), "xxx", "text/plain");
    }
    return .{ .output = loom.Str.of("\"done\"") };
}

fn nested(call: loom.Call) !loom.Result {
    const nothing = std.json.Value{ .object = .empty };
    const Arguments = struct { name: []const u8, arguments: std.json.Value = nothing };
    const given = try loom.parse(Arguments, call.arguments);
    const passed = try loom.json(given.arguments);
    return loom.call(given.name, passed.slice(), call.payload.slice());
}

pub fn handleEvent(event: loom.Event) !void {
    if (std.mem.eql(u8, event.payload.slice(), "poison")) {
        return loom.fail("POISONED", "will not eat that");
    }
    const labels = [_]loom.Pair{
        .{ .name = loom.Str.of("n"), .value = loom.Str.of(event.label("n")) },
        .{ .name = loom.Str.of("topic"), .value = event.topic },
    };
    try loom.publish(.{
        .topic = loom.Str.of("notes"),
        .type = loom.Str.of("heard"),
        .payload = event.payload,
        .metadata = loom.Pairs.of(&labels),
    });
}
