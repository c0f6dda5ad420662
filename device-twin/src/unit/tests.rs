use proptest::prelude::*;

use super::*;

fn unit(code: &str) -> Unit {
    Unit::parse(code).unwrap_or_else(|why| panic!("{code}: {why}"))
}

fn convert(value: f64, from: &str, to: &str) -> f64 {
    unit(from).to(&unit(to)).unwrap().apply(value)
}

fn error(code: &str) -> String {
    Unit::parse(code).unwrap_err().to_string()
}

/// Figures of standards and handbooks, not of our own arithmetic.
#[test]
fn well_known_conversions() {
    for (value, from, to, expected) in [
        (1.0, "[psi]", "Pa", 6_894.757_293_168_4),
        (1.0, "m[H2O]", "kPa", 9.80665),
        (86.5, "m3/h", "L/s", 24.027_777_777_778),
        (20.0, "Cel", "[degF]", 68.0),
        (-40.0, "[degF]", "Cel", -40.0),
        (0.0, "Cel", "K", 273.15),
        (32.0, "[degF]", "Cel", 0.0),
        (1.0, "K", "[degR]", 1.8),
        (215.0, "dCel", "Cel", 21.5),
        (1.0, "bar", "kPa", 100.0),
        (8.63, "bar", "kPa", 863.0),
        (3.2, "bar", "m[H2O]", 32.630_918_815_294),
        (760.0, "mm[Hg]", "Pa", 101_324.72),
        (1.0, "atm", "Pa", 101_325.0),
        (1.0, "[in_i'Hg]", "Pa", 3386.3788),
        (1.0, "[in_i'H2O]", "Pa", 249.088_91),
        (1.0, "kW.h", "MJ", 3.6),
        (1.0, "[Btu_IT]", "kJ", 1.055_055_852_62),
        (1.0, "[HP]", "W", 745.699_871_582_3),
        (1.0, "[gal_us]", "L", 3.785_411_784),
        (1.0, "[gal_us]/min", "m3/h", 0.227_124_707_04),
        (1.0, "[cft_i]/s", "L/s", 28.316_846_592),
        (1.0, "[lb_av]", "kg", 0.453_592_37),
        (1.0, "[ft_i]", "m", 0.3048),
        (1.0, "[mi_i]/h", "km/h", 1.609_344),
        (1.0, "[kn_i]", "m/s", 0.514_444_444_444_44),
        (1.0, "har", "m2", 10_000.0),
        (1.0, "t", "kg", 1000.0),
        (1.0, "wk", "h", 168.0),
        (180.0, "deg", "rad", std::f64::consts::PI),
        (90.0, "'", "deg", 1.5),
        (50.0, "%", "1", 0.5),
        (1.0, "[ppth]", "[ppm]", 1000.0),
        (1500.0, "{rev}/min", "Hz", 25.0),
        (1.0, "m3.h-1", "m3/h", 1.0),
        (3.0, "/s", "Hz", 3.0),
        (1.0, "kg.m/s2", "N", 1.0),
        (1.0, "J/(s.m2)", "W/m2", 1.0),
        (1.0, "V.A", "W", 1.0),
        (1.0, "100.m", "m", 100.0),
        (1.0, "mS/cm", "S/m", 0.1),
        (4.0, "mA", "A", 0.004),
        (1.0, "mol/m3", "mmol/L", 1.0),
        (7.0, "{count}", "1", 7.0),
        (7.0, "kW.h{electric}", "kW.h", 7.0),
        (1.0, "lm/m2", "lx", 1.0),
        (1.0, "cd.sr", "lm", 1.0),
        (1.0, "T", "Wb/m2", 1.0),
        (1.0, "Ohm", "V/A", 1.0),
        (1.0, "Ohm", "S-1", 1.0),
        (1.0, "F", "C/V", 1.0),
        (1.0, "H", "Wb/A", 1.0),
    ] {
        let got = convert(value, from, to);
        let slack = expected.abs() * 1e-13;
        assert!((got - expected).abs() <= slack, "{value} {from} is {got} {to}, not {expected}");
    }
}

#[test]
fn what_is_converted_has_no_noise_in_its_last_digits() {
    assert_eq!(convert(20.0, "Cel", "[degF]"), 68.0);
    assert_eq!(convert(32.0, "[degF]", "Cel"), 0.0);
    assert_eq!(convert(8.63, "bar", "kPa"), 863.0);
    assert_eq!(convert(0.1, "m", "mm"), 100.0);
    assert_eq!(convert(1_760_000_000_123.0, "ms", "s"), 1_760_000_000.123);
    assert_eq!(convert(0.0, "Pa", "bar"), 0.0);
    assert!(convert(f64::INFINITY, "Pa", "bar").is_infinite());
    assert!(convert(f64::NAN, "Pa", "bar").is_nan());
}

#[test]
fn a_conversion_is_a_straight_line_with_a_way_back() {
    let to_fahrenheit = unit("Cel").to(&unit("[degF]")).unwrap();
    assert_eq!((to_fahrenheit.factor(), to_fahrenheit.offset()), (1.8, 32.0));
    assert_eq!(to_fahrenheit.reversed().apply(68.0), 20.0);
}

#[test]
fn only_like_converts_to_like() {
    let why = unit("bar").to(&unit("m")).unwrap_err();
    assert_eq!(why.to_string(), "bar cannot be converted to m: the one counts m-1.s-2.g, the other m");
    for (a, b) in [("Hz", "rad/s"), ("mol/L", "1/L"), ("Cel", "%"), ("N.m", "N"), ("m3", "m2"), ("lm", "cd")]
    {
        assert!(!unit(a).is_commensurable(&unit(b)), "{a} {b}");
    }
}

#[test]
fn two_codes_of_one_unit_are_the_same() {
    for (a, b) in
        [("kW.h", "h.kW"), ("L", "l"), ("L", "dm3"), ("m3/h", "m3.h-1"), ("kPa", "mN/mm2"), ("1", "{x}")]
    {
        assert!(unit(a).is_same(&unit(b)), "{a} {b}");
    }
    for (a, b) in [("K", "Cel"), ("m", "cm"), ("bar", "atm"), ("m", "s")] {
        assert!(!unit(a).is_same(&unit(b)), "{a} {b}");
    }
}

#[test]
fn errors_say_what_was_not_understood_and_what_is_near() {
    for (code, expected) in [
        ("", "a unit is missing; what is just a number has the unit '1'"),
        ("degC", "'degC' is no UCUM unit; did you mean 'Cel'?"),
        ("degree celsius", "'degree celsius' is no UCUM unit; did you mean 'Cel'?"),
        ("psi", "'psi' is no UCUM unit; did you mean '[psi]'?"),
        ("KW", "'KW' is no UCUM unit; did you mean 'kW'?"),
        ("kpa", "'kpa' is no UCUM unit; did you mean 'kPa'?"),
        ("ha", "'ha' is no UCUM unit; did you mean 'har'?"),
        ("m3/hr", "'hr' is no UCUM unit; did you mean 'h'?"),
        ("m^3", "'m^3' is no UCUM unit; did you mean 'm3'?"),
        ("gal_us", "'gal_us' is no UCUM unit; did you mean '[gal_us]'?"),
        ("[in]", "'[in]' is no UCUM unit; did you mean '[in_i]'?"),
        ("kmin", "'kmin' is no UCUM unit; did you mean 'min'?"),
        ("flurbs", "'flurbs' is no UCUM unit"),
        ("m//s", "'m//s': a unit is expected at character 3"),
        ("m/", "'m/': a unit is expected at character 3"),
        ("(m", "'(m': ')' is expected at character 3"),
        ("m)", "'m)': '.', '/' or the end is expected at character 2"),
        ("m{x", "'m{x': '}' is expected at character 4"),
        ("0.m", "'0.m': a number above zero is expected before this at character 2"),
        ("Cel/h", "'Cel' has a zero of its own and must stand alone; differences are counted in K"),
        ("Cel2", "'Cel' has a zero of its own and must stand alone; differences are counted in K"),
        ("/[degF]", "'[degF]' has a zero of its own and must stand alone; differences are counted in K"),
        ("m200", "'m200' has an exponent that no quantity has"),
        ("m99.m99", "'m99.m99' has an exponent that no quantity has"),
        ("Ym99", "'Ym99' has an exponent that no quantity has"),
    ] {
        assert_eq!(error(code), expected, "{code}");
    }
    assert_eq!(Unit::parse(&"m.".repeat(40)), Err(UnitError::TooLong(80)));
}

#[test]
fn common_spellings_are_recognised_and_unclear_ones_are_not() {
    for (text, code) in [
        ("degree celsius", "Cel"),
        ("Celsius", "Cel"),
        ("°C", "Cel"),
        (" percent ", "%"),
        ("Pa", "Pa"),
        ("kWh", "kW.h"),
        ("psi", "[psi]"),
        ("m³/h", "m3/h"),
        ("ft", "[ft_i]"),
        ("m3/h", "m3/h"),
    ] {
        assert_eq!(Unit::of_text(text).map(|unit| unit.code), Some(code.to_owned()), "{text}");
    }
    for text in ["C", "F", "degrees", "furlongs", "pieces", "", "  ", "ON/OFF"] {
        assert_eq!(Unit::of_text(text), None, "{text}");
    }
}

#[test]
fn every_spelling_means_a_code() {
    for (code, spellings) in spelling::SPELLINGS {
        unit(code);
        for text in *spellings {
            assert_eq!(spelling::code_of(text), spelling::Meaning::Code(code), "{text} stands there twice");
            assert_eq!(*text, text.trim().to_lowercase(), "what is compared is in lower case");
        }
    }
}

#[test]
fn every_prefix_goes_with_every_metric_atom_and_hides_none() {
    for atom in atom::ATOMS {
        assert_eq!(atom::find(atom.code), Some(*atom), "the code stands there once");
        for (prefix, scale) in atom::PREFIXES {
            let code = format!("{prefix}{}", atom.code);
            let found = atom::find(&code);
            if atom::ATOMS.iter().any(|other| other.code == code) {
                continue;
            }
            assert_eq!(found.is_some(), atom.is_metric, "{code}");
            if let Some(found) = found {
                assert!((found.factor / atom.factor / scale - 1.0).abs() < 1e-15, "{code} is {found:?}");
            }
        }
    }
}

fn code() -> impl Strategy<Value = String> {
    let codes =
        vec!["m", "cm", "kPa", "bar", "[psi]", "L", "m3", "h-1", "s2", "%", "kW", "{x}", "t", "[ft_i]", "10"];
    let leaf = prop::sample::select(codes).prop_map(str::to_owned);
    leaf.prop_recursive(3, 6, 3, |inner| {
        (inner.clone(), prop::sample::select(vec![".", "/"]), inner)
            .prop_map(|(a, op, b)| format!("{a}{op}({b})"))
    })
}

proptest! {
    #[test]
    fn there_and_back_is_where_it_began(value in -1e9..1e9f64, from in code(), scale in prop::sample::select(vec!["", "1000."])) {
        prop_assume!(from.len() < 50);
        let from = unit(&from);
        let to = unit(&format!("{scale}{}", from.code()));
        let there = from.to(&to).unwrap().apply(value);
        let back = to.to(&from).unwrap().apply(there);
        prop_assert!((back - value).abs() <= value.abs() * 1e-12, "{from} {to}: {value} {there} {back}");
    }

    #[test]
    fn temperatures_come_back_too(value in -500.0..5000.0f64,
        from in prop::sample::select(vec!["Cel", "K", "[degF]", "[degR]", "dCel"]),
        to in prop::sample::select(vec!["Cel", "K", "[degF]", "[degR]", "mCel"]),
    ) {
        let back = convert(convert(value, from, to), to, from);
        prop_assert!((back - value).abs() <= 1e-8, "{from} {to}: {value} {back}");
    }

    #[test]
    fn no_bytes_end_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = (Unit::parse(&text), Unit::of_text(&text));
    }

    #[test]
    fn nothing_that_looks_like_a_code_ends_it_either(text in "[mskPCel0-9./(){}\\[\\]'%+\\-]{0,40}") {
        if let Ok(unit) = Unit::parse(&text) {
            prop_assert!(unit.factor > 0.0 && unit.factor.is_finite());
            prop_assert!(unit.to(&unit).unwrap().apply(1.0) == 1.0);
        }
    }
}
