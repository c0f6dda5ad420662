//! The units that others are made of, and the metric prefixes.
//!
//! Values: UCUM 2.2, tables 4 to 13 (<https://ucum.org/ucum>), resolved to base units.

use std::f64::consts::PI;

use super::dimension::Dimension;

/// One row of UCUM's tables.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Atom {
    pub(super) code: &'static str,
    /// Whether it takes prefixes.
    pub(super) is_metric: bool,
    pub(super) factor: f64,
    /// Not zero: the scale has a zero of its own (UCUM's *special* units).
    pub(super) offset: f64,
    pub(super) dimension: Dimension,
}

const fn metric(code: &'static str, factor: f64, dimension: [i8; 8]) -> Atom {
    Atom { code, is_metric: true, factor, offset: 0.0, dimension: Dimension(dimension) }
}

const fn plain(code: &'static str, factor: f64, dimension: [i8; 8]) -> Atom {
    Atom { code, is_metric: false, factor, offset: 0.0, dimension: Dimension(dimension) }
}

//                            m   s   g rad  K   A  cd mol
const ONE: [i8; 8] = [0; 8];
const LENGTH: [i8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
const AREA: [i8; 8] = [2, 0, 0, 0, 0, 0, 0, 0];
const VOLUME: [i8; 8] = [3, 0, 0, 0, 0, 0, 0, 0];
const TIME: [i8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
const RATE: [i8; 8] = [0, -1, 0, 0, 0, 0, 0, 0];
const SPEED: [i8; 8] = [1, -1, 0, 0, 0, 0, 0, 0];
const ACCELERATION: [i8; 8] = [1, -2, 0, 0, 0, 0, 0, 0];
const MASS: [i8; 8] = [0, 0, 1, 0, 0, 0, 0, 0];
const ANGLE: [i8; 8] = [0, 0, 0, 1, 0, 0, 0, 0];
const SOLID_ANGLE: [i8; 8] = [0, 0, 0, 2, 0, 0, 0, 0];
const TEMPERATURE: [i8; 8] = [0, 0, 0, 0, 1, 0, 0, 0];
const CURRENT: [i8; 8] = [0, 0, 0, 0, 0, 1, 0, 0];
const CHARGE: [i8; 8] = [0, 1, 0, 0, 0, 1, 0, 0];
const LIGHT: [i8; 8] = [0, 0, 0, 0, 0, 0, 1, 0];
const LIGHT_FLUX: [i8; 8] = [0, 0, 0, 2, 0, 0, 1, 0];
const ILLUMINANCE: [i8; 8] = [-2, 0, 0, 2, 0, 0, 1, 0];
const AMOUNT: [i8; 8] = [0, 0, 0, 0, 0, 0, 0, 1];
const FORCE: [i8; 8] = [1, -2, 1, 0, 0, 0, 0, 0];
const PRESSURE: [i8; 8] = [-1, -2, 1, 0, 0, 0, 0, 0];
const ENERGY: [i8; 8] = [2, -2, 1, 0, 0, 0, 0, 0];
const POWER: [i8; 8] = [2, -3, 1, 0, 0, 0, 0, 0];
const VOLTAGE: [i8; 8] = [2, -3, 1, 0, 0, -1, 0, 0];
const RESISTANCE: [i8; 8] = [2, -3, 1, 0, 0, -2, 0, 0];
const CONDUCTANCE: [i8; 8] = [-2, 3, -1, 0, 0, 2, 0, 0];
const CAPACITY: [i8; 8] = [-2, 4, -1, 0, 0, 2, 0, 0];
const INDUCTANCE: [i8; 8] = [2, -2, 1, 0, 0, -2, 0, 0];
const MAGNETIC_FLUX: [i8; 8] = [2, -2, 1, 0, 0, -1, 0, 0];
const FLUX_DENSITY: [i8; 8] = [0, -2, 1, 0, 0, -1, 0, 0];

/// Grams in a kilogram: the SI's derived units rest on the one, UCUM's base is the other.
const KG: f64 = 1000.0;
const INCH: f64 = 0.0254;
const FOOT: f64 = 12.0 * INCH;
const MILE: f64 = 5280.0 * FOOT;
/// m/s2, by definition.
const GRAVITY: f64 = 9.80665;
const POUND: f64 = 453.59237;
const POUND_FORCE: f64 = POUND * GRAVITY;

/// Every atom.
pub(super) const ATOMS: &[Atom] = &[
    // Base units.
    metric("m", 1.0, LENGTH),
    metric("s", 1.0, TIME),
    metric("g", 1.0, MASS),
    metric("rad", 1.0, ANGLE),
    metric("K", 1.0, TEMPERATURE),
    metric("A", 1.0, CURRENT),
    metric("cd", 1.0, LIGHT),
    metric("mol", 1.0, AMOUNT),
    // Numbers.
    plain("%", 1e-2, ONE),
    plain("[ppth]", 1e-3, ONE),
    plain("[ppm]", 1e-6, ONE),
    plain("[ppb]", 1e-9, ONE),
    // The SI's derived units.
    metric("Hz", 1.0, RATE),
    metric("N", KG, FORCE),
    metric("Pa", KG, PRESSURE),
    metric("J", KG, ENERGY),
    metric("W", KG, POWER),
    metric("C", 1.0, CHARGE),
    metric("V", KG, VOLTAGE),
    metric("F", 1.0 / KG, CAPACITY),
    metric("Ohm", KG, RESISTANCE),
    metric("S", 1.0 / KG, CONDUCTANCE),
    metric("Wb", KG, MAGNETIC_FLUX),
    metric("T", KG, FLUX_DENSITY),
    metric("H", KG, INDUCTANCE),
    metric("sr", 1.0, SOLID_ANGLE),
    metric("lm", 1.0, LIGHT_FLUX),
    metric("lx", 1.0, ILLUMINANCE),
    metric("Bq", 1.0, RATE),
    Atom { code: "Cel", is_metric: true, factor: 1.0, offset: 273.15, dimension: Dimension(TEMPERATURE) },
    // Used with the SI.
    metric("l", 1e-3, VOLUME),
    metric("L", 1e-3, VOLUME),
    metric("ar", 100.0, AREA),
    metric("t", 1e6, MASS),
    metric("bar", 1e5 * KG, PRESSURE),
    plain("atm", 101_325.0 * KG, PRESSURE),
    plain("min", 60.0, TIME),
    plain("h", 3600.0, TIME),
    plain("d", 86_400.0, TIME),
    plain("wk", 604_800.0, TIME),
    plain("deg", PI / 180.0, ANGLE),
    plain("'", PI / 10_800.0, ANGLE),
    plain("''", PI / 648_000.0, ANGLE),
    metric("cal", 4.184 * KG, ENERGY),
    metric("[g]", GRAVITY, ACCELERATION),
    // Columns of liquid.
    metric("m[H2O]", 9806.65 * KG, PRESSURE),
    metric("m[Hg]", 133_322.0 * KG, PRESSURE),
    plain("[in_i'H2O]", 9806.65 * KG * INCH, PRESSURE),
    plain("[in_i'Hg]", 133_322.0 * KG * INCH, PRESSURE),
    // International and US customary units.
    plain("[in_i]", INCH, LENGTH),
    plain("[ft_i]", FOOT, LENGTH),
    plain("[yd_i]", 3.0 * FOOT, LENGTH),
    plain("[mi_i]", MILE, LENGTH),
    plain("[nmi_i]", 1852.0, LENGTH),
    plain("[kn_i]", 1852.0 / 3600.0, SPEED),
    plain("[sin_i]", INCH * INCH, AREA),
    plain("[sft_i]", FOOT * FOOT, AREA),
    plain("[cin_i]", INCH * INCH * INCH, VOLUME),
    plain("[cft_i]", FOOT * FOOT * FOOT, VOLUME),
    plain("[gal_us]", 231.0 * INCH * INCH * INCH, VOLUME),
    plain("[gal_br]", 4.54609e-3, VOLUME),
    plain("[oz_av]", POUND / 16.0, MASS),
    plain("[lb_av]", POUND, MASS),
    plain("[lbf_av]", POUND_FORCE, FORCE),
    plain("[psi]", POUND_FORCE / (INCH * INCH), PRESSURE),
    plain("[Btu_IT]", 1_055.055_852_62 * KG, ENERGY),
    plain("[HP]", 550.0 * FOOT * POUND_FORCE, POWER),
    Atom {
        code: "[degF]",
        is_metric: false,
        factor: 5.0 / 9.0,
        offset: 459.67,
        dimension: Dimension(TEMPERATURE),
    },
    plain("[degR]", 5.0 / 9.0, TEMPERATURE),
];

/// UCUM table 1.
pub(super) const PREFIXES: &[(&str, f64)] = &[
    ("Y", 1e24),
    ("Z", 1e21),
    ("E", 1e18),
    ("P", 1e15),
    ("T", 1e12),
    ("G", 1e9),
    ("M", 1e6),
    ("k", 1e3),
    ("h", 1e2),
    ("da", 1e1),
    ("d", 1e-1),
    ("c", 1e-2),
    ("m", 1e-3),
    ("u", 1e-6),
    ("n", 1e-9),
    ("p", 1e-12),
    ("f", 1e-15),
    ("a", 1e-18),
    ("z", 1e-21),
    ("y", 1e-24),
];

/// The unit of this symbol: an atom, or a prefix before one that takes prefixes. An atom goes first, so `cd` is a
/// candela.
pub(super) fn find(symbol: &str) -> Option<Atom> {
    let whole = ATOMS.iter().find(|atom| atom.code == symbol);
    whole.copied().or_else(|| PREFIXES.iter().find_map(|prefix| prefixed(*prefix, symbol)))
}

fn prefixed((prefix, scale): (&str, f64), symbol: &str) -> Option<Atom> {
    let rest = symbol.strip_prefix(prefix)?;
    let atom = ATOMS.iter().find(|atom| atom.is_metric && atom.code == rest)?;
    // Dividing by a power of ten keeps the last bit where multiplying by its inverse does not.
    let factor = if scale < 1.0 { atom.factor / (1.0 / scale).round() } else { atom.factor * scale };
    Some(Atom { factor, offset: atom.offset / scale, ..*atom })
}
