// Exact numbers: a fraction of two BigInts in lowest terms, the denominator positive.

/** Digits of a number, and its power of ten: what is made of them stays a number of 64 bits. */
const MAX_SIZE = 250;

const gcd = (a, b) => {
  while (b) [a, b] = [b, a % b];
  return a < 0n ? -a : a;
};

export class Fraction {
  constructor(over, under = 1n) {
    const shared = (gcd(over, under) || 1n) * (under < 0n ? -1n : 1n);
    this.over = over / shared;
    this.under = under / shared;
    Object.freeze(this);
  }

  /** "-1,234.5e-3" or "5/9" as the fraction that it says. Throws RangeError. */
  static of(text) {
    const [over, under] = text.replaceAll(",", "").split("/");
    const value = decimal(over);
    return under === undefined ? value : value.over2(decimal(under));
  }

  plus(other) {
    return new Fraction(
      this.over * other.under + other.over * this.under, this.under * other.under,
    );
  }

  minus(other) {
    return this.plus(new Fraction(-other.over, other.under));
  }

  times(other) {
    return new Fraction(this.over * other.over, this.under * other.under);
  }

  /** Divided by. Throws RangeError for zero. */
  over2(other) {
    if (other.over === 0n) throw new RangeError("division by zero");
    return new Fraction(this.over * other.under, this.under * other.over);
  }

  equals(other) {
    return this.over === other.over && this.under === other.under;
  }

  /** The nearest number of 64 bits. */
  toNumber() {
    return Number(this.toDigits(20).text);
  }

  /** Whether a decimal writes it out in full. */
  get ends() {
    let rest = this.under;
    for (const prime of [2n, 5n]) while (rest % prime === 0n) rest /= prime;
    return rest === 1n;
  }

  /** Written out in full where that ends, else as "over/under". */
  toString() {
    if (!this.ends) return `${this.over}/${this.under}`;
    let [places, scaled, under] = [0, this.over, this.under];
    for (; under > 1n && (scaled % under) !== 0n; places++) scaled *= 10n;
    return placed(scaled / under, places);
  }

  /**
   * Rounded half away from zero to `digits` significant ones; `exact` when that loses nothing.
   * `whole`: how many digits stand before the point, below 1 minus the zeros behind it.
   */
  toDigits(digits) {
    if (this.over === 0n) return { text: "0", exact: true, whole: 1 };
    const size = this.over < 0n ? -this.over : this.over;
    const whole = size < this.under ? 1 - leading(size, this.under) : `${size / this.under}`.length;
    const places = digits - whole;
    const scale = (n) => (places >= 0 ? n * 10n ** BigInt(places) : n);
    const under = places >= 0 ? this.under : this.under * 10n ** BigInt(-places);
    const rounded = (2n * scale(size) + under) / (2n * under);
    const ten = 10n ** BigInt(Math.abs(places));
    const value = places >= 0 ? new Fraction(rounded, ten) : new Fraction(rounded * ten);
    const signed = this.over < 0n ? new Fraction(-value.over, value.under) : value;
    return { text: signed.toString(), exact: signed.equals(this), whole };
  }
}

/** One more than the zeros between the point and the first digit, of a fraction below 1. */
function leading(size, under) {
  let zeros = 1;
  for (let rest = size * 10n; rest < under; rest *= 10n) zeros++;
  return zeros;
}

function placed(scaled, places) {
  if (places === 0) return `${scaled}`;
  const sign = scaled < 0n ? "-" : "";
  const digits = `${scaled < 0n ? -scaled : scaled}`.padStart(places + 1, "0");
  return `${sign}${digits.slice(0, -places)}.${digits.slice(-places)}`.replace(/\.?0+$/, "");
}

function decimal(text) {
  const found = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,3}))?$/.exec(text.trim());
  if (!found || !(found[2] || found[3])) throw new RangeError(`'${text}' is no number`);
  const [, sign, whole, part = "", power = "0"] = found;
  if (Math.max(whole.length + part.length, Math.abs(Number(power))) > MAX_SIZE) {
    throw new RangeError(`'${text}' is too large`);
  }
  const shift = Number(power) - part.length;
  const digits = BigInt(`${sign}${whole}${part}`.replace("+", "") || 0);
  const ten = 10n ** BigInt(Math.abs(shift));
  return shift >= 0 ? new Fraction(digits * ten) : new Fraction(digits, ten);
}
