//! The root of every Zig guest: what loom.c calls, passed on to the author's file.
const std = @import("std");
const loom = @import("loom");
const plugin = @import("plugin");

/// A panic is a trap: there is no terminal to print to.
pub const panic = std.debug.no_panic;

fn good(outcome: anyerror!void) bool {
    outcome catch |failure| {
        if (failure != error.Refused) loom.fail("CAPABILITY_ERROR", @errorName(failure)) catch {};
        return false;
    };
    return true;
}

fn init(start: *const loom.Start) callconv(.c) bool {
    return good(plugin.init(start.*));
}

fn invoke(call: *const loom.Call, result: *loom.Result) callconv(.c) bool {
    result.* = plugin.invoke(call.*) catch |failure| return good(failure);
    return true;
}

fn handleEvent(event: *const loom.Event) callconv(.c) bool {
    return good(plugin.handleEvent(event.*));
}

fn health() callconv(.c) loom.Str {
    return loom.Str.of(plugin.health());
}

fn shutdown() callconv(.c) void {
    plugin.shutdown();
}

comptime {
    if (@hasDecl(plugin, "init")) @export(&init, .{ .name = "loom_init" });
    if (@hasDecl(plugin, "invoke")) @export(&invoke, .{ .name = "loom_invoke" });
    if (@hasDecl(plugin, "handleEvent")) @export(&handleEvent, .{ .name = "loom_handle_event" });
    if (@hasDecl(plugin, "health")) @export(&health, .{ .name = "loom_health" });
    if (@hasDecl(plugin, "shutdown")) @export(&shutdown, .{ .name = "loom_shutdown" });
}
