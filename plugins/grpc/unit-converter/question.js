// "How many feet are in two metres?" -> how much of which unit, and the unit that is wanted.
import { Fraction } from "./fraction.js";
import { unitMeant, unitNamed } from "./names.js";
import { readNumber } from "./numbers.js";

const BETWEEN = new Set(["to", "in", "into", "as", "=", "->", "equals", "is", "are", "make", "than"]);
const FILLER = new Set(
  ("how many much convert what whats is are the there of please me tell equal equals make does do " +
    "it can you express expressed converted measured change turn be would be will contain have to in a").split(" "),
);
const ONE = new Fraction(1n);

/** Words of a question: numbers apart from the letters that follow, 5km as 5 and km. */
export function wordsOf(question) {
  const text = question
    .replaceAll(/[’′]/g, "'").replaceAll(/[″”]/g, '"')
    .replaceAll(/(\d)\s*'\s*(?=\d|$|\s)/g, "$1 feet ").replaceAll(/(\d)\s*"/g, "$1 inches ")
    .replaceAll("'s", "s").replaceAll(/[?!;:"()]|[.,](?=\s|$)/g, " ")
    .replaceAll(/(\d)(?=[a-zµ°](?!\d))/gi, "$1 ").replaceAll(/(\d)\s*[-–]\s*(?=[a-z])/gi, "$1 ")
    .replaceAll(/([a-z])-(?=[a-z])/gi, "$1 ").replaceAll(/→|=>/g, "->");
  return text.split(/\s+/).filter(Boolean);
}

/**
 * { amounts: [[Fraction, Unit], ...], target: Unit }, or { unknown } with a name that is no unit,
 * or undefined where nothing in it looks like a conversion.
 */
export function understand(question) {
  const words = wordsOf(question);
  const asked = /^how many\b/i.test(question.trim()); // then what is wanted comes first
  let unknown;
  for (let at = words.length - 1; at > 0; at--) {
    if (!BETWEEN.has(words[at].toLowerCase())) continue;
    const [left, right] = [words.slice(0, at), words.slice(at + 1)];
    const sides = asked ? [[right, left], [left, right]] : [[left, right], [right, left]];
    for (const [amount, target] of sides) {
      const found = both(amount, target);
      if (found?.target) return found;
      unknown ??= found?.unknown;
    }
  }
  return apart(words) ?? (unknown === undefined ? undefined : { unknown });
}

/** "It weighs 3 kilos, what is that in pounds?": an amount, and elsewhere a unit of its kind. */
function apart(words) {
  const lower = words.map((word) => word.toLowerCase());
  for (let at = 0; at < words.length; at++) {
    const number = readNumber(lower, at);
    const unit = number && unitAt(words, number[1]);
    if (!unit) continue;
    for (let other = words.length - 1; other > 0; other--) {
      const inside = other >= at && other < number[1] + unit.count;
      const target = inside || !/^(in|into|to|many|much)$/.test(lower[other - 1])
        ? undefined : unitAt(words, other);
      if (target && target.unit !== unit.unit && target.unit.kind === unit.unit.kind) {
        return { amounts: [[number[0], unit.unit]], target: target.unit };
      }
    }
  }
  return undefined;
}

/** The unit with the longest name that begins there, as { unit, count } with its words. */
function unitAt(words, at) {
  for (let count = Math.min(3, words.length - at); count > 0; count--) {
    const unit = unitNamed(words.slice(at, at + count).join(" "));
    if (unit) return { unit, count };
  }
  return undefined;
}

function both(amount, target) {
  const amounts = amountsOf(stripped(amount));
  const name = stripped(target).join(" ");
  if (!amounts || !name || /(^| )[-+.]?\d/.test(name)) return undefined; // a unit, no quantity
  if (amounts.unknown !== undefined) return amounts;
  const unit = unitMeant(name);
  return unit ? { amounts, target: unit } : { unknown: name };
}

/** Without what people say around it; one word is left alone, `in` may be the inch. */
function stripped(words) {
  let [first, last] = [0, words.length];
  const filler = (word) => FILLER.has(word.toLowerCase());
  while (last - first > 1 && filler(words[first]) && !startsAmount(words, first)) first++;
  while (last - first > 1 && filler(words[last - 1]) && !unitNamed(words[last - 1])) last--;
  return words.slice(first, last);
}

const startsAmount = (words, at) => /^an?$/i.test(words[at]) && words.length > at + 1;

/** Quantities in a row, "5 feet 11 inches"; undefined where there is no number. */
function amountsOf(words) {
  const lower = words.map((word) => word.toLowerCase());
  const amounts = [];
  for (let at = 0; at < words.length;) {
    if (amounts.length > 0 && lower[at] === "and") at++;
    const found = readNumber(lower, at) ?? (amounts.length === 0 ? implied(words) : undefined);
    if (!found) return undefined;
    let next = found[1];
    const first = next;
    while (next < words.length && !(lower[next] === "and" || next > first && readNumber(lower, next)
      && !/^an?$/.test(lower[next]))) next++;
    const name = words.slice(lower[first] === "of" ? first + 1 : first, next).join(" ");
    const inches = name === "" && amounts.at(-1)?.[1].name === "foot";
    const unit = inches ? unitNamed("inch") : unitMeant(name);
    if (!unit) return name ? { unknown: name } : undefined;
    amounts.push([found[0], unit]);
    at = next;
  }
  return amounts.length > 0 ? amounts : undefined;
}

/** "mile in kilometres" means one mile. */
const implied = (words) => (unitNamed(words.join(" ")) ? [ONE, 0] : undefined);
