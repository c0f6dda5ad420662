//! Units as people write them in KubeEdge's models, and the codes that they mean.

/// What a free text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Code(&'static str),
    /// Two units are written so, and a wrong guess would convert wrongly.
    Unclear,
    /// No spelling that is known here: it may be a code itself.
    PerhapsCode,
}

/// Spellings in lower case, without blanks at their ends.
pub(super) const SPELLINGS: &[(&str, &[&str])] = &[
    (
        "Cel",
        &[
            "celsius",
            "degree celsius",
            "degrees celsius",
            "degc",
            "deg c",
            "deg_c",
            "deg.c",
            "°c",
            "° c",
            "\u{2103}",
        ],
    ),
    ("[degF]", &["fahrenheit", "degree fahrenheit", "degrees fahrenheit", "degf", "deg f", "°f", "\u{2109}"]),
    ("K", &["kelvin"]),
    ("%", &["percent", "percentage", "per cent", "pct", "%rh", "% rh"]),
    ("[ppth]", &["permille", "‰"]),
    ("[ppm]", &["ppm"]),
    ("[ppb]", &["ppb"]),
    ("m", &["meter", "meters", "metre", "metres"]),
    ("mm", &["millimeter", "millimeters", "millimetre", "millimetres"]),
    ("cm", &["centimeter", "centimeters", "centimetre", "centimetres"]),
    ("km", &["kilometer", "kilometers", "kilometre", "kilometres"]),
    ("[in_i]", &["in", "inch", "inches"]),
    ("[ft_i]", &["ft", "foot", "feet"]),
    ("m2", &["m²", "m^2", "square meter", "square meters", "sqm"]),
    ("har", &["ha", "hectare", "hectares"]),
    ("m3", &["m³", "m^3", "cubic meter", "cubic meters", "cubic metre", "cubic metres", "cbm"]),
    ("L", &["liter", "liters", "litre", "litres", "ltr"]),
    ("mL", &["milliliter", "milliliters", "millilitre", "millilitres"]),
    ("[gal_us]", &["gal", "gallon", "gallons"]),
    ("m3/h", &["m³/h", "m^3/h", "m3/hr", "m³/hr", "cubic meters per hour", "cubic metres per hour", "cmh"]),
    ("m3/s", &["m³/s", "m^3/s", "m3/sec"]),
    ("L/s", &["l/sec", "lps", "liters per second", "litres per second"]),
    ("L/min", &["lpm", "liters per minute", "litres per minute"]),
    ("[gal_us]/min", &["gpm", "gal/min"]),
    ("s", &["sec", "secs", "second", "seconds"]),
    ("ms", &["millisecond", "milliseconds", "msec"]),
    ("min", &["mins", "minute", "minutes"]),
    ("h", &["hr", "hrs", "hour", "hours"]),
    ("d", &["day", "days"]),
    ("wk", &["week", "weeks"]),
    ("m/s", &["meters per second", "metres per second", "mps"]),
    ("km/h", &["kmh", "kph", "km/hr"]),
    ("[mi_i]/h", &["mph"]),
    ("g", &["gram", "grams"]),
    ("kg", &["kilogram", "kilograms", "kilo", "kgs"]),
    ("t", &["tonne", "tonnes"]),
    ("[lb_av]", &["lb", "lbs", "pound", "pounds"]),
    ("N", &["newton", "newtons"]),
    ("Pa", &["pascal", "pascals"]),
    ("hPa", &["hectopascal", "hectopascals"]),
    ("kPa", &["kilopascal", "kilopascals"]),
    ("mbar", &["millibar", "millibars"]),
    ("bar", &["bars"]),
    ("[psi]", &["psi"]),
    ("mm[Hg]", &["mmhg"]),
    ("J", &["joule", "joules"]),
    ("kW.h", &["kwh", "kw·h", "kw h", "kilowatt hour", "kilowatt hours", "kilowatt-hour", "kilowatt-hours"]),
    ("W.h", &["wh", "watt hour", "watt hours"]),
    ("W", &["watt", "watts"]),
    ("kW", &["kilowatt", "kilowatts"]),
    ("V", &["volt", "volts"]),
    ("mV", &["millivolt", "millivolts"]),
    ("A", &["amp", "amps", "ampere", "amperes"]),
    ("mA", &["milliamp", "milliamps", "milliampere", "milliamperes"]),
    ("Ohm", &["ohm", "ohms", "ω"]),
    ("V.A", &["va"]),
    ("Hz", &["hertz"]),
    ("{rev}/min", &["rpm", "1/min", "rev/min", "r/min"]),
    ("lx", &["lux"]),
    ("lm", &["lumen", "lumens"]),
    ("rad", &["radian", "radians"]),
];

/// `C` is UCUM's coulomb and most people's Celsius, `F` its farad and their Fahrenheit; degrees are of angle or of
/// temperature.
const UNCLEAR: &[&str] = &["c", "f", "°", "degree", "degrees"];

/// What `text` means, in any case and with blanks around it.
pub(super) fn code_of(text: &str) -> Meaning {
    let text = text.trim().to_lowercase();
    if UNCLEAR.contains(&text.as_str()) {
        return Meaning::Unclear;
    }
    let found = SPELLINGS.iter().find(|(_, spellings)| spellings.contains(&text.as_str()));
    found.map_or(Meaning::PerhapsCode, |(code, _)| Meaning::Code(code))
}
