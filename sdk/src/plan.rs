//! A device's configuration in the mapper's own types.

use std::collections::BTreeMap;

use bus::twin::{DeviceConfig, Json, PropertyConfig};
use serde::de::DeserializeOwned;

use crate::{Error, Mapper, Point};

/// What a mapper needs to serve a device, checked once. A property whose address makes no sense is left out and
/// named in `faults`; the others are served.
pub(crate) struct Plan<M: Mapper> {
    pub(crate) connection: M::Config,
    pub(crate) points: BTreeMap<String, Point<M::Address>>,
    pub(crate) faults: Vec<Error>,
}

impl<M: Mapper> Plan<M> {
    pub(crate) fn new(config: &DeviceConfig) -> Result<Self, Error> {
        let connection = typed(&config.connection).map_err(|e| Error::Config(e.to_string()))?;
        let mut plan = Self { connection, points: BTreeMap::new(), faults: Vec::new() };
        for property in &config.properties {
            match point(property) {
                Ok(point) => drop(plan.points.insert(property.name.clone(), point)),
                Err(fault) => plan.faults.push(fault),
            }
        }
        Ok(plan)
    }
}

fn point<A: DeserializeOwned>(property: &PropertyConfig) -> Result<Point<A>, Error> {
    let bad = |e: serde_json::Error| Error::BadAddress { point: property.name.clone(), why: e.to_string() };
    let address = typed(&property.address).map_err(bad)?;
    Ok(Point { name: property.name.clone(), value_type: property.value_type, address })
}

/// Nothing at all counts as an empty object, so that settings with defaults need not be there.
fn typed<T: DeserializeOwned>(json: &Json) -> Result<T, serde_json::Error> {
    let json = if *json == Json::Null { &Json::Object(BTreeMap::new()) } else { json };
    serde_json::from_value(serde_json::to_value(json)?)
}
