// Every unit with its exact size in the base unit of its kind, and the names it goes by.
import { Fraction } from "./fraction.js";

// size, name, plural, then other names; `_` is a space, `=` before a name: only in this very case.
const TABLE = `
length metre
  1 metre metres meter =m
  1/1000 millimetre millimetres millimeter =mm
  1/100 centimetre centimetres centimeter =cm
  1/10 decimetre decimetres decimeter =dm
  1000 kilometre kilometres kilometer =km klick
  1e-6 micrometre micrometres micrometer micron µm =um
  1e-9 nanometre nanometres nanometer =nm
  0.0254 inch inches in
  0.3048 foot feet ft
  0.9144 yard yards yd
  1609.344 mile miles mi
  1852 nautical_mile nautical_miles nmi sea_mile
  1.8288 fathom fathoms
  20.1168 chain chains
  201.168 furlong furlongs
  0.0000254 thou thou mil mils
  149597870700 astronomical_unit astronomical_units =au =AU
  9460730472580800 light_year light_years lightyear =ly
mass kilogram
  1 kilogram kilograms kg kilo kilos kilogramme
  1/1000 gram grams =g gramme
  1e-6 milligram milligrams mg
  1e-9 microgram micrograms µg mcg
  1000 tonne tonnes metric_ton metric_tons =t
  0.45359237 pound pounds lb lbs
  0.028349523125 ounce ounces oz
  6.35029318 stone stone stones =st
  907.18474 short_ton short_tons us_ton ton tons
  1016.0469088 long_ton long_tons imperial_ton
  0.0002 carat carats =ct
  0.00006479891 grain grains
  0.0311034768 troy_ounce troy_ounces =ozt
time second
  1 second seconds =s sec secs
  1e-3 millisecond milliseconds ms
  1e-6 microsecond microseconds µs
  1e-9 nanosecond nanoseconds ns
  60 minute minutes min mins
  3600 hour hours =h hr hrs
  86400 day days =d
  604800 week weeks wk wks
  1209600 fortnight fortnights
  2629746 month months
  31556952 year years yr yrs
  315569520 decade decades
  3155695200 century centuries
area square_metre
  10000 hectare hectares =ha
  100 are ares
  4046.8564224 acre acres =ac
volume cubic_metre
  1/1000 litre litres liter =l =L
  1e-6 millilitre millilitres milliliter ml cc
  1e-5 centilitre centilitres centiliter =cl
  1e-4 decilitre decilitres deciliter =dl
  1/10 hectolitre hectolitres hectoliter =hl
  0.003785411784 gallon gallons gal us_gallon us_gallons
  0.000946352946 quart quarts qt
  0.000473176473 pint pints pt us_pint us_pints
  0.0002365882365 cup cups
  0.0000295735295625 fluid_ounce fluid_ounces fl_oz floz
  0.00001478676478125 tablespoon tablespoons tbsp
  0.00000492892159375 teaspoon teaspoons tsp
  0.00454609 imperial_gallon imperial_gallons uk_gallon uk_gallons
  0.00056826125 imperial_pint imperial_pints uk_pint uk_pints
  0.158987294928 barrel barrels bbl
speed metre_per_second
  0.44704 mile_per_hour miles_per_hour mph
  1/3.6 kilometre_per_hour kilometres_per_hour kph kmh
  463/900 knot knots kt kts
  299792458 speed_of_light speeds_of_light
data bit
  1 bit bits
  8 byte bytes =B
  1e3 kilobit kilobits kbit =kb
  1e6 megabit megabits mbit =Mb
  1e9 gigabit gigabits gbit =Gb
  8e3 kilobyte kilobytes =kB =KB
  8e6 megabyte megabytes =MB meg
  8e9 gigabyte gigabytes =GB gig gigs
  8e12 terabyte terabytes =TB
  8e15 petabyte petabytes =PB
  8192 kibibyte kibibytes kib
  8388608 mebibyte mebibytes mib
  8589934592 gibibyte gibibytes gib
  8796093022208 tebibyte tebibytes tib
data_rate bit_per_second
  1 bit_per_second bits_per_second bps
  1e3 kilobit_per_second kilobits_per_second kbps
  1e6 megabit_per_second megabits_per_second mbps
  1e9 gigabit_per_second gigabits_per_second gbps
energy joule
  1 joule joules =J
  1000 kilojoule kilojoules =kJ
  4.184 calorie calories =cal
  4184 kilocalorie kilocalories kcal
  3600 watt_hour watt_hours =Wh
  3600000 kilowatt_hour kilowatt_hours kwh
  1055.05585262 btu btus british_thermal_unit
power watt
  1 watt watts =W
  1000 kilowatt kilowatts kw
  1e6 megawatt megawatts =MW
  745.69987158227022 horsepower horsepower hp
  735.49875 metric_horsepower metric_horsepower =PS
pressure pascal
  1 pascal pascals =Pa
  100 hectopascal hectopascals =hPa
  1000 kilopascal kilopascals kpa
  100000 bar bars
  100 millibar millibars mbar
  101325 atmosphere atmospheres atm
  8896443230521/1290320000 pound_per_square_inch pounds_per_square_inch psi
  101325/760 torr torr mmhg
frequency hertz
  1 hertz hertz hz
  1e3 kilohertz kilohertz khz
  1e6 megahertz megahertz mhz
  1e9 gigahertz gigahertz ghz
  1/60 revolution_per_minute revolutions_per_minute rpm
angle degree
  1 degree degrees ° deg
  1/60 arcminute arcminutes
  1/3600 arcsecond arcseconds
  360 turn turns revolution
  0.9 gradian gradians gon
  ~57.295779513082320876798154814105 radian radians rad
temperature kelvin
  1 kelvin kelvins =K
`;

// Scales of temperature: kelvin = (value + shift) * size.
const SCALES = [
  ["degree Celsius", "degrees Celsius", "1", "273.15", ["celsius", "centigrade", "=C", "=°C"]],
  ["degree Fahrenheit", "degrees Fahrenheit", "5/9", "459.67", ["fahrenheit", "=F", "=°F"]],
  ["degree Rankine", "degrees Rankine", "5/9", "0", ["rankine", "=°R"]],
];
const ZERO = new Fraction(0n);

/** One unit. `exact`: whether its size is more than a good approximation. */
export class Unit {
  constructor(kind, name, plural, size, { shift = ZERO, exact = true, names = [] } = {}) {
    Object.assign(this, { kind, name, plural, size, shift, exact, names });
    Object.freeze(this);
  }

  toBase(value) {
    return value.plus(this.shift).times(this.size);
  }

  fromBase(value) {
    return value.over2(this.size).minus(this.shift);
  }
}

/** All units, in the order of the table. */
export const UNITS = [...fromTable(), ...scales()];

function* fromTable() {
  let kind;
  for (const line of TABLE.trim().split("\n")) {
    const words = line.trim().split(" ");
    if (!line.startsWith(" ")) {
      kind = words[0].replace("_", " ");
      continue;
    }
    const [size, ...rest] = words;
    const [name, plural, ...names] = rest.map((word) => word.replaceAll("_", " "));
    const exact = !size.startsWith("~");
    yield new Unit(kind, name, plural, Fraction.of(size.replace("~", "")), { exact, names });
  }
}

function* scales() {
  for (const [name, plural, size, shift, names] of SCALES) {
    const fraction = Fraction.of(size);
    yield new Unit("temperature", name, plural, fraction, { shift: Fraction.of(shift), names });
  }
}

// Kinds that are made of others: `square mile`, `mile per hour`.
const POWERS = { 2: ["area", "square"], 3: ["volume", "cubic"] };
const RATIOS = { "length/time": "speed", "data/time": "data rate", "volume/time": "flow" };

/** The unit squared or cubed; undefined for what is no length. */
export function raised(unit, power) {
  if (unit.kind !== "length") return undefined;
  const [kind, word] = POWERS[power];
  let size = unit.size;
  for (let count = 1; count < power; count++) size = size.times(unit.size);
  return new Unit(kind, `${word} ${unit.name}`, `${word} ${unit.plural}`, size);
}

/** One unit per another; undefined where nothing is measured so. */
export function ratio(over, under) {
  const kind = RATIOS[`${over.kind}/${under.kind}`];
  if (kind === undefined) return undefined;
  const per = `per ${under.name}`;
  return new Unit(kind, `${over.name} ${per}`, `${over.plural} ${per}`, over.size.over2(under.size));
}
