const loom = @import("loom");

pub fn invoke(call: loom.Call) !loom.Result {
    const arguments = try loom.parse(struct { name: []const u8 }, call.arguments);
    return .{ .output = try loom.json(.{ .greeting = arguments.name }) };
}
