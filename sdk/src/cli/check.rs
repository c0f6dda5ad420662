//! `check`: manifests read as the running mapper would read them.

use std::path::PathBuf;

use bus::Name;

use super::Failure;
use super::manifests::{self, Listed, Listing};
use crate::Mapper;
use crate::plan::Plan;

/// What was read, a line each device.
///
/// # Errors
/// A line for each thing that makes no sense, with file, device and field.
pub(super) fn check<M: Mapper>(mapper: &Name, files: &[PathBuf]) -> Result<String, Failure> {
    let listing = manifests::read(files, mapper)?;
    let (lines, faults) = told::<M>(&listing);
    if !faults.is_empty() {
        return Err(Failure::Manifests(faults));
    }
    if lines.is_empty() {
        return Err(Failure::Usage(none_here(mapper, &listing)));
    }
    Ok(lines.join("\n"))
}

/// A line for each device that is right, and one for each fault.
fn told<M: Mapper>(listing: &Listing) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut faults) = (Vec::new(), listing.faults.clone());
    for listed in &listing.devices {
        let Listed { file, config } = listed;
        let of_device = faults_of::<M>(listed);
        if of_device.is_empty() {
            let number = config.properties.len();
            let noun = if number == 1 { "property" } else { "properties" };
            lines.push(format!("{}: {}: {number} {noun}", file.display(), config.device));
        }
        faults.extend(of_device);
    }
    (lines, faults)
}

/// What the mapper cannot make sense of.
pub(super) fn faults_of<M: Mapper>(Listed { file, config }: &Listed) -> Vec<String> {
    let faults = match Plan::<M>::new(config) {
        Ok(plan) => plan.faults.into_iter().map(|(_, fault)| fault).collect(),
        Err(error) => vec![error],
    };
    faults.into_iter().map(|fault| format!("{}: {}: {fault}", file.display(), config.device)).collect()
}

pub(super) fn none_here(mapper: &Name, listing: &Listing) -> String {
    let others: Vec<&str> = listing.others.iter().map(String::as_str).collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!(", only of {}", others.join(", ")),
    };
    format!(
        "no device of {mapper} is in these files{others}: its spec.protocol.protocolName says '{mapper}', or --name \
         another"
    )
}
