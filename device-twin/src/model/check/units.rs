//! In which units a rule counts.

use crate::model::Property;
use crate::rule::{Input, Predicate};
use crate::unit::{Unit, UnitError};

/// The unit in which the rule's document counts an input, if it says so.
pub(super) fn of_input(input: &Input) -> Option<&str> {
    input.unit.as_deref()
}

/// The unit of a predicate's threshold and margin, if the document says so.
pub(super) fn of_threshold(predicate: &Predicate) -> Option<&str> {
    predicate.unit.as_deref()
}

/// Whether a predicate compares an input's value itself, and not how far that has come in some time.
pub(super) fn is_about_value(predicate: &Predicate) -> bool {
    predicate.over().is_none()
}

/// The unit in which a rule sees an input's numbers: what its document states, else the property's. `None`: not known.
///
/// # Errors
/// What is stated is no unit, or none that the property's values can be converted to.
pub(super) fn seen(stated: Option<&str>, property: &Property) -> Result<Option<Unit>, String> {
    let Some(code) = stated else { return Ok(property.ucum.clone()) };
    let unit = Unit::parse(code).map_err(|why: UnitError| why.to_string())?;
    property.conversion_from(code).map_err(|why| why.to_string())?;
    Ok(Some(unit))
}

/// Why numbers counted in the one must not be compared with numbers counted in the other; `None` if they may, or if
/// nobody knows.
pub(super) fn mismatch(
    (a_name, a): (&str, Option<&Unit>),
    (b_name, b): (&str, Option<&Unit>),
) -> Option<String> {
    let (a, b) = (a?, b?);
    if a.is_same(b) {
        return None;
    }
    let both = format!("{a_name} counts in {a}, {b_name} in {b}");
    Some(if a.is_commensurable(b) {
        format!("{both}: one of them needs the other's unit")
    } else {
        format!("{both}, which measure different things")
    })
}
