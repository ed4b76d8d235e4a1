// Home Assistant by its REST API: things are found by their names, and switched, set or asked.
import { ActionFailed, bytes, serve, text } from "./loom.js";

/** What `home.set` does with a number, by domain: service, its field, and the field's value. */
const SETTERS = {
  climate: ["set_temperature", "temperature", (value) => value],
  cover: ["set_cover_position", "position", percent],
  fan: ["set_percentage", "percentage", percent],
  humidifier: ["set_humidity", "humidity", percent],
  input_number: ["set_value", "value", (value) => value],
  light: ["turn_on", "brightness_pct", percent],
  media_player: ["volume_set", "volume_level", (value) => percent(value) / 100],
  number: ["set_value", "value", (value) => value],
  water_heater: ["set_temperature", "temperature", (value) => value],
};
/** Domains whose things open and close, and have no turn_on. */
const SWITCHERS = { cover: ["open_cover", "close_cover"] };
const FILLERS = new Set(["the", "my", "our", "a", "an", "in", "of", "on", "to"]);

function percent(value) {
  if (value >= 0 && value <= 100) return value;
  throw new ActionFailed(`${value} is not from 0 to 100 percent`, "VALUE_OUT_OF_RANGE");
}

/** One request; the JSON of its answer. */
function ask(ctx, method, path, body) {
  const answer = ctx.http(method, `${ctx.config.base_url.replace(/\/+$/, "")}/api/${path}`, {
    headers: {
      Authorization: `Bearer ${ctx.secret("home_assistant_token")}`,
      "Content-Type": "application/json",
    },
    body: body === undefined ? undefined : bytes(JSON.stringify(body)),
    timeoutMs: ctx.config.timeout_ms,
  });
  if (answer.status === 401) {
    throw new ActionFailed(
      "Home Assistant does not know the token: make a long-lived one on its profile page, and " +
        "let [secrets.home_assistant_token] name where it is",
      "HOME_UNAUTHORIZED",
    );
  }
  if (answer.status === 404) return undefined;
  try {
    if (answer.status === 200) return JSON.parse(text(answer.body));
  } catch {
    // told below
  }
  const told = text(answer.body).slice(0, 200);
  throw new ActionFailed(`Home Assistant answers ${answer.status}: ${told}`, "HOME_ERROR");
}

// Not \p{L}: the sandbox's JavaScript has no tables of Unicode.
const words = (name) =>
  name.toLowerCase().split(/[\s_.,;:!?'"()/-]+/).filter((word) => word && !FILLERS.has(word));

const domainOf = (thing) => thing.entity_id.split(".")[0];
const called = (thing) => thing.attributes?.friendly_name ?? thing.entity_id;

/** The one thing of a name or entity id, among the domains that the settings open. */
function thingOf(ctx, name) {
  if (/^[a-z_]+\.[a-z0-9_]+$/.test(name)) {
    const thing = ask(ctx, "GET", `states/${name}`);
    if (thing && ctx.config.domains.includes(domainOf(thing))) return thing;
    throw new ActionFailed(`there is no ${name} that may be used here`, "DEVICE_NOT_FOUND");
  }
  const states = ask(ctx, "GET", "states");
  if (!Array.isArray(states)) throw new ActionFailed("no list of states", "HOME_ERROR");
  const things = states.filter((thing) => ctx.config.domains.includes(domainOf(thing)));
  const found = best(things, words(name));
  if (found.length === 1) return found[0];
  const names = (found.length ? found : things).map(called).sort().slice(0, 10).join(", ");
  throw found.length
    ? new ActionFailed(`${JSON.stringify(name)} may be: ${names}`, "DEVICE_AMBIGUOUS")
    : new ActionFailed(`nothing is called ${JSON.stringify(name)}; there is: ${names}`, "DEVICE_NOT_FOUND");
}

/** Those of exactly these words, else those that have all of them, "light" also as a domain. */
function best(things, wanted) {
  if (wanted.length === 0) return [];
  const named = things.map((thing) => ({ thing, has: words(called(thing)) }));
  const exact = named.filter(({ has }) => has.length === wanted.length && covers(has, wanted));
  const wide = named.filter(({ thing, has }) => covers([...has, domainOf(thing)], wanted));
  return (exact.length ? exact : wide).map(({ thing }) => thing);
}

const covers = (has, wanted) => wanted.every((word) => has.some((own) => same(own, word)));
const same = (one, other) => one === other || `${one}s` === other || one === `${other}s`;

/** Calls a service for a thing; the thing's name. */
function act(ctx, thing, domain, service, data = {}) {
  const done = ask(ctx, "POST", `services/${domain}/${service}`, {
    entity_id: thing.entity_id,
    ...data,
  });
  if (done === undefined) {
    throw new ActionFailed(`Home Assistant has no ${domain}.${service}`, "HOME_ERROR");
  }
  return called(thing);
}

function turn(ctx, name, on) {
  const thing = thingOf(ctx, name);
  const own = SWITCHERS[domainOf(thing)];
  const service = own ? own[on ? 0 : 1] : on ? "turn_on" : "turn_off";
  const title = act(ctx, thing, own ? domainOf(thing) : "homeassistant", service);
  return { entity_id: thing.entity_id, speech: `${title} is ${on ? "on" : "off"}.` };
}

function set({ name, value }, ctx) {
  const thing = thingOf(ctx, name);
  const setter = SETTERS[domainOf(thing)];
  if (!setter) {
    throw new ActionFailed(`${called(thing)} has nothing to set to a number`, "NOT_SETTABLE");
  }
  const [service, field, valueOf] = setter;
  const title = act(ctx, thing, domainOf(thing), service, { [field]: valueOf(value) });
  return { entity_id: thing.entity_id, speech: `${title} is set to ${value}.` };
}

function state({ name }, ctx) {
  const thing = thingOf(ctx, name);
  const unit = thing.attributes?.unit_of_measurement ?? "";
  const value = `${thing.state}${unit && ` ${unit}`}`;
  return { entity_id: thing.entity_id, state: thing.state, unit, speech: `${called(thing)} is ${value}.` };
}

export const plugin = serve({
  capabilities: {
    "home.turn_on": ({ name }, ctx) => turn(ctx, name, true),
    "home.turn_off": ({ name }, ctx) => turn(ctx, name, false),
    "home.set": set,
    "home.state": state,
  },
});
