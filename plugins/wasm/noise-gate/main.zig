//! A noise gate: frames of the microphone in, the same frames with the quiet ones turned down out.
//!
//! The gate opens when a frame's level reaches `open_db` and closes when it has stayed below
//! `close_db` for `hold_ms`; between the two it stays as it is. The gain moves in a straight line,
//! up within `attack_ms` and down within `release_ms`, so that neither edge clicks.
const std = @import("std");
const loom = @import("loom");

const Settings = struct {
    open_db: f32 = -45,
    close_db: f32 = -50,
    attack_ms: f32 = 5,
    hold_ms: f32 = 250,
    release_ms: f32 = 100,
    range_db: f32 = 40,
};

/// What is remembered of one stream. The stream unheard for longest makes room for a new one.
const Gate = struct {
    name: [64]u8 = undefined,
    name_len: usize = 0,
    heard: u64 = 0,
    open: bool = false,
    gain: f32 = 0,
    quiet_samples: f32 = 0,
    level_db: f32 = silence_db,
    frames: u64 = 0,
    opened: u64 = 0,

    fn is(self: *const Gate, name: []const u8) bool {
        return self.heard > 0 and std.mem.eql(u8, self.name[0..self.name_len], name);
    }
};

const silence_db: f32 = -120;
var settings = Settings{};
var gates: [16]Gate = @splat(.{});
var clock: u64 = 0;

pub fn init(start: loom.Start) !void {
    settings = try loom.parse(Settings, start.config);
    if (settings.close_db > settings.open_db) {
        return loom.fail("CONFIG_ERROR", "close_db must not be above open_db: lower close_db");
    }
}

pub fn handleEvent(event: loom.Event) !void {
    const stream = event.label("stream_id");
    var out = event;
    out.topic = loom.Str.of("audio.gated");
    if (std.mem.eql(u8, event.type.slice(), "audio_end")) {
        if (find(stream)) |gate| gate.* = .{};
    } else if (rateOf(&event)) |rate| {
        out.payload = loom.Str.of(try gated(gateOf(stream), event.payload.slice(), rate));
    }
    try loom.publish(out);
}

/// Samples per second of a frame that can be gated: mono pcm_s16le. Others pass as they are.
fn rateOf(event: *const loom.Event) ?f32 {
    const encoding = event.label("encoding");
    const channels = event.label("channels");
    const known = (encoding.len == 0 or std.mem.eql(u8, encoding, "pcm_s16le")) and
        (channels.len == 0 or std.mem.eql(u8, channels, "1"));
    const rate = std.fmt.parseInt(u32, event.label("sample_rate"), 10) catch 16_000;
    return if (known and rate > 0 and event.payload.size % 2 == 0) @floatFromInt(rate) else null;
}

fn find(stream: []const u8) ?*Gate {
    const name = stream[0..@min(stream.len, 64)];
    for (&gates) |*gate| if (gate.is(name)) return gate;
    return null;
}

fn gateOf(stream: []const u8) *Gate {
    clock += 1;
    const gate = find(stream) orelse fresh: {
        var oldest = &gates[0];
        for (&gates) |*other| {
            if (other.heard < oldest.heard) oldest = other;
        }
        oldest.* = .{ .gain = closedGain() };
        oldest.name_len = @min(stream.len, oldest.name.len);
        @memcpy(oldest.name[0..oldest.name_len], stream[0..oldest.name_len]);
        break :fresh oldest;
    };
    gate.heard = clock;
    return gate;
}

fn closedGain() f32 {
    return std.math.pow(f32, 10, -settings.range_db / 20);
}

fn gated(gate: *Gate, pcm: []const u8, rate: f32) ![]u8 {
    const samples: f32 = @floatFromInt(pcm.len / 2);
    gate.level_db = levelOf(pcm);
    gate.frames += 1;
    if (gate.level_db >= settings.open_db) {
        gate.open = true;
        gate.quiet_samples = 0;
    } else if (gate.level_db < settings.close_db) {
        gate.quiet_samples += samples;
        if (gate.quiet_samples > settings.hold_ms * rate / 1000) gate.open = false;
    } else {
        gate.quiet_samples = 0;
    }
    if (gate.open) gate.opened += 1;
    return ramped(gate, pcm, rate);
}

/// The frame times the gain on its way to where the gate wants it.
fn ramped(gate: *Gate, pcm: []const u8, rate: f32) ![]u8 {
    const out = try loom.allocator.alloc(u8, pcm.len);
    const low = closedGain();
    const target: f32 = if (gate.open) 1 else low;
    const time_ms = if (gate.open) settings.attack_ms else settings.release_ms;
    const step = (1 - low) / @max(1, time_ms * rate / 1000);
    var at: usize = 0;
    while (at + 1 < pcm.len) : (at += 2) {
        const away = target - gate.gain;
        gate.gain += std.math.clamp(away, -step, step);
        const sample: f32 = @floatFromInt(std.mem.readInt(i16, pcm[at..][0..2], .little));
        const scaled: i16 = @intFromFloat(@round(sample * gate.gain));
        std.mem.writeInt(i16, out[at..][0..2], scaled, .little);
    }
    return out;
}

/// Root mean square in dB below full scale.
fn levelOf(pcm: []const u8) f32 {
    if (pcm.len < 2) return silence_db;
    var sum: f64 = 0;
    var at: usize = 0;
    while (at + 1 < pcm.len) : (at += 2) {
        const sample: f64 = @floatFromInt(std.mem.readInt(i16, pcm[at..][0..2], .little));
        sum += sample * sample;
    }
    const mean = sum / @as(f64, @floatFromInt(pcm.len / 2));
    const level = 10 * std.math.log10(@max(mean / (32768.0 * 32768.0), 1e-12));
    return @floatCast(level);
}

const State = struct {
    stream_id: []const u8,
    open: bool,
    level_db: f32,
    frames: u64,
    frames_open: u64,
};

pub fn invoke(call: loom.Call) !loom.Result {
    if (!call.is("noise-gate.state")) {
        return loom.fail("CAPABILITY_NOT_FOUND", "the noise gate offers noise-gate.state alone");
    }
    var states: [gates.len]State = undefined;
    var known: usize = 0;
    for (&gates) |*gate| {
        if (gate.heard == 0) continue;
        states[known] = .{
            .stream_id = gate.name[0..gate.name_len],
            .open = gate.open,
            .level_db = @round(gate.level_db * 10) / 10,
            .frames = gate.frames,
            .frames_open = gate.opened,
        };
        known += 1;
    }
    return .{ .output = try loom.json(.{ .streams = states[0..known] }) };
}
