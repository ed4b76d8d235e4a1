// The unit that somebody means: symbols, names, plurals, compounds, and slips of the keyboard.
import { UNITS, raised, ratio } from "./units.js";

const EXACT = new Map(); // in this very case
const FOLDED = new Map(); // in any case

for (const unit of UNITS) {
  for (const name of [unit.name, unit.plural, ...unit.names]) {
    if (name.startsWith("=")) EXACT.set(name.slice(1), unit);
    else if (!FOLDED.has(fold(name))) FOLDED.set(fold(name), unit);
  }
}

function fold(name) {
  return name.toLowerCase().replaceAll(/[-._]+/g, " ").replaceAll(/\s+/g, " ").trim();
}

/** The unit of that name, or undefined. */
export function unitNamed(name) {
  return EXACT.get(name.trim()) ?? folded(fold(name)) ?? compound(fold(name));
}

function folded(name) {
  const bare = name.replace(/^(degrees?|deg|°) ?(?=[cfkr])/, "");
  for (const tried of [name, bare, ...singulars(name)]) {
    if (FOLDED.has(tried)) return FOLDED.get(tried);
  }
  // A lone letter is a symbol where no other unit has it in another case: 5 KM, 20 c.
  const upper = bare.toUpperCase();
  if (bare.length <= 2) return EXACT.get(bare) ?? EXACT.get(upper);
  return undefined;
}

const singulars = (name) => [name.replace(/s$/, ""), name.replace(/es$/, "")];

function compound(name) {
  const parts = name.split(/ per | an? (?=hour$|second$|minute$|day$)|\//);
  if (parts.length === 2) {
    const [over, under] = parts.map((part) => unitNamed(part));
    return over && under && ratio(over, under);
  }
  const found = /^(?:(square|sq|cubic|cu) (.+)|(.+?) ?(squared|cubed|\^?2|\^?3|²|³))$/.exec(name);
  if (!found) return undefined;
  const [, before, first, second, after] = found;
  const unit = unitNamed(first ?? second);
  const cubic = /cu|3|³/.test(before ?? after);
  return unit && raised(unit, cubic ? 3 : 2);
}

/** The unit whose name is nearest: one slip from four letters on, two from eight on. */
export function unitMeant(name) {
  const known = unitNamed(name);
  if (known) return known;
  const wanted = fold(name);
  const [best, second] = nearest(wanted);
  const allowed = wanted.length >= 8 ? 2 : wanted.length >= 4 ? 1 : 0;
  if (!best || best.slips > allowed) return undefined;
  return second && second.slips === best.slips && second.unit !== best.unit ? undefined : best.unit;
}

/** Names like the given one, for a message. */
export const suggestions = (name) => nearest(fold(name)).slice(0, 3).map(({ unit }) => unit.name);

/** One entry per unit, the nearest first. */
function nearest(wanted) {
  const found = new Map();
  for (const [name, unit] of FOLDED) {
    const slips = distance(wanted, name);
    if (slips < (found.get(unit) ?? Infinity)) found.set(unit, slips);
  }
  return [...found].map(([unit, slips]) => ({ unit, slips })).sort((a, b) => a.slips - b.slips);
}

/** Letters to change, add, drop or swap with a neighbour (optimal string alignment). */
export function distance(one, other) {
  let [before, row] = [[], Array.from({ length: other.length + 1 }, (_, index) => index)];
  for (let i = 1; i <= one.length; i++) {
    const next = [i];
    for (let j = 1; j <= other.length; j++) {
      const cost = one[i - 1] === other[j - 1] ? 0 : 1;
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + cost);
      const swapped = i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1];
      if (swapped) next[j] = Math.min(next[j], before[j - 2] + 1);
    }
    [before, row] = [row, next];
  }
  return row[other.length];
}
