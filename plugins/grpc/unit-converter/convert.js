// The answer to a question: exact where the definitions are, and as somebody would say it.
import { ActionFailed } from "#loom-sdk";
import { Fraction } from "./fraction.js";
import { suggestions } from "./names.js";
import { understand } from "./question.js";

const LONGEST = 60;
/** Digits before the point, and zeros behind it, beyond which a power of ten is said. */
const [MANY, FEW] = [15, 5];

/** { value, exact, unit, speech }. Throws ActionFailed that says what was not understood. */
export function convert(question, digits) {
  const { amounts, target } = understood(question);
  const kinds = new Set([...amounts.map(([, unit]) => unit.kind), target.kind]);
  if (kinds.size > 1) throw incompatible(amounts, target);
  if (amounts.length > 1 && target.kind === "temperature") throw notUnderstood(question);
  const base = amounts.map(([value, unit]) => unit.toBase(value)).reduce((a, b) => a.plus(b));
  if (target.kind === "temperature" && base.over < 0n) throw tooCold(question);
  const result = target.fromBase(base);
  const exact = target.exact && amounts.every(([, unit]) => unit.exact);
  return answer(amounts, target, result, exact, digits);
}

function answer(amounts, target, result, exact, digits) {
  const from = amounts.map(([value, unit]) => said(value, unit, digits).text).join(" ");
  const to = said(result, target, digits);
  const about = exact && to.exact ? "" : "about ";
  const written = result.toString();
  return {
    value: result.toNumber(),
    ...(exact && written.length <= LONGEST ? { exact: written } : {}),
    unit: target.name,
    speech: `${from} is ${about}${to.text}.`,
  };
}

const one = (value) => value.under === 1n && (value.over === 1n || value.over === -1n);

function said(value, unit, digits) {
  const { text, exact, whole } = value.toDigits(digits);
  const number = whole > MANY || whole < -FEW ? power(value, digits, whole - 1) : text;
  return { text: `${number} ${one(value) ? unit.name : unit.plural}`, exact };
}

function power(value, digits, exponent) {
  const ten = new Fraction(10n ** BigInt(Math.abs(exponent)));
  const { text } = (exponent > 0 ? value.over2(ten) : value.times(ten)).toDigits(digits);
  return `${text} times 10 to the power of ${exponent}`;
}

function understood(question) {
  const found = read(question);
  if (found === undefined) throw notUnderstood(question);
  if (found.unknown === undefined) return found;
  const near = suggestions(found.unknown).join(", ");
  throw new ActionFailed(
    `there is no unit '${found.unknown}'; near it: ${near}; units.list names them all`,
    "UNKNOWN_UNIT",
  );
}

function read(question) {
  try {
    return understand(question);
  } catch (error) {
    if (error instanceof RangeError) throw new ActionFailed(error.message, "NOT_UNDERSTOOD");
    throw error;
  }
}

const tooCold = (question) =>
  new ActionFailed(`'${question}' is below absolute zero`, "BELOW_ABSOLUTE_ZERO");

const notUnderstood = (question) =>
  new ActionFailed(
    `'${question}' is no conversion: say it like '5 miles in kilometres'`, "NOT_UNDERSTOOD",
  );

function incompatible(amounts, target) {
  const [, unit] = amounts.find(([, candidate]) => candidate.kind !== target.kind) ?? amounts[0];
  return new ActionFailed(
    `${unit.plural} measure ${unit.kind}, ${target.plural} measure ${target.kind}: ` +
      "one cannot be the other",
    "INCOMPATIBLE_UNITS",
  );
}
