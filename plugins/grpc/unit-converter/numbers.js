// Numbers as digits or as English words: "2 1/2", "five million", "one hundred and five point two".
import { Fraction } from "./fraction.js";

const ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen " +
  "fourteen fifteen sixteen seventeen eighteen nineteen";
const TENS = "twenty thirty forty fifty sixty seventy eighty ninety";
const SMALL = new Map([
  ...ONES.split(" ").map((word, index) => [word, index]),
  ...TENS.split(" ").map((word, index) => [word, 20 + 10 * index]),
]);
const SCALES = new Map([
  ["hundred", 100n], ["thousand", 1000n], ["million", 10n ** 6n], ["billion", 10n ** 9n],
  ["trillion", 10n ** 12n], ["dozen", 12n],
]);
const PARTS = new Map([
  ["half", 2n], ["halves", 2n], ["third", 3n], ["thirds", 3n], ["quarter", 4n], ["quarters", 4n],
  ["fifth", 5n], ["fifths", 5n], ["tenth", 10n], ["tenths", 10n],
]);
const WRITTEN = /^[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const ONE = new Fraction(1n);

/** [the number that begins at `at`, the index after it], or undefined where none does. */
export function readNumber(words, at) {
  if (words[at] === "minus" || words[at] === "negative") {
    const found = readNumber(words, at + 1);
    return found && [new Fraction(-found[0].over, found[0].under), found[1]];
  }
  return readPart(words, at, ONE) ?? mixed(readWhole(words, at), words);
}

/** "half a", "a quarter of a", "three quarters of an": parts of one. */
function readPart(words, at, times) {
  const article = words[at] === "a" || words[at] === "an";
  const first = article ? at + 1 : at;
  const counted = SMALL.has(words[first]) && PARTS.has(words[first + 1]);
  const index = counted ? first + 1 : first;
  if (!PARTS.has(words[index])) return undefined;
  const count = counted ? BigInt(SMALL.get(words[first])) : 1n;
  let next = index + 1;
  if (words[next] === "of") next += 1;
  if (words[next] === "a" || words[next] === "an") next += 1;
  return [new Fraction(count, PARTS.get(words[index])).times(times), next];
}

function readWhole(words, at) {
  if (words[at] === "a" || words[at] === "an") {
    const scale = SCALES.get(words[at + 1]);
    return scale ? [new Fraction(scale), at + 2] : [ONE, at + 1];
  }
  return WRITTEN.test(words[at] ?? "") || /^\d+\/\d+$/.test(words[at] ?? "")
    ? readWritten(words, at) : readWords(words, at);
}

function readWritten(words, at) {
  let value = Fraction.of(words[at]);
  let next = at + 1;
  if (/^[1-9]\d*\/[1-9]\d*$/.test(words[next] ?? "")) value = value.plus(Fraction.of(words[next++]));
  while (SCALES.has(words[next])) value = value.times(new Fraction(SCALES.get(words[next++])));
  return [value, next];
}

function readWords(words, at) {
  if (!SMALL.has(words[at])) return undefined;
  let [total, current, next] = [0n, 0n, at];
  for (; next < words.length; next++) {
    const word = words[next];
    if (SMALL.has(word)) current += BigInt(SMALL.get(word));
    else if (word === "hundred" || word === "dozen") current *= SCALES.get(word);
    else if (SCALES.has(word)) [total, current] = [total + current * SCALES.get(word), 0n];
    else if (word !== "and" || !SMALL.has(words[next + 1])) break;
  }
  const value = new Fraction(total + current);
  return words[next] === "point" ? pointed(value, words, next + 1) : [value, next];
}

function pointed(value, words, at) {
  let [digits, next] = ["", at];
  for (; next < words.length && (SMALL.get(words[next]) ?? 10) < 10; next++) {
    digits += SMALL.get(words[next]);
  }
  return digits ? [value.plus(Fraction.of(`0.${digits}`)), next] : [value, at - 1];
}

/** "two and a half": a part that follows. */
function mixed(found, words) {
  if (!found || words[found[1]] !== "and") return found;
  const part = readPart(words, found[1] + 1, ONE);
  return part ? [found[0].plus(part[0]), part[1]] : found;
}
