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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Context, Manifest, Samples, Session, WriteOutcome, WritePermit};
    use bus::{Value, ValueType};

    struct Never;

    #[derive(Debug, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default)]
    struct Settings {
        port: u16,
    }

    impl Mapper for Never {
        type Config = Settings;
        type Address = u16;
        type Session = Self;
        fn manifest() -> Manifest {
            Manifest::new("never", "0")
        }
        async fn open(_: &Settings, _: &Context<Self>) -> Result<Self, Error> {
            Err(Error::Unsupported("opening".into()))
        }
    }

    impl Session for Never {
        type Address = u16;
        type Bus = ();
        async fn read(&mut self, _: &Batch<'_, u16>, _: &mut Samples) -> Result<(), Error> {
            Err(Error::Unsupported("reading".into()))
        }
        async fn write(&mut self, _: &Point<u16>, _: Value, _: WritePermit) -> Result<WriteOutcome, Error> {
            Err(Error::Unsupported("writing".into()))
        }
    }

    fn config(connection: Json, addresses: &[Json]) -> DeviceConfig {
        let properties = addresses.iter().enumerate().map(|(i, address)| PropertyConfig {
            name: format!("p{i}"),
            value_type: ValueType::Int,
            writable: false,
            address: address.clone(),
            poll_ms: 1000,
            minimum: None,
            maximum: None,
            unit: None,
        });
        let properties = properties.collect();
        DeviceConfig { device: "test/a".parse().unwrap(), connection, properties }
    }

    #[test]
    fn settings_and_addresses_come_in_the_mappers_own_types() {
        let port = Json::Object([("port".to_owned(), Json::Int(502))].into());
        let plan = Plan::<Never>::new(&config(port, &[Json::Int(40)])).unwrap();
        assert_eq!(plan.connection, Settings { port: 502 });
        let point = Point { name: "p0".into(), value_type: ValueType::Int, address: 40 };
        assert_eq!((plan.points, plan.faults), ([("p0".to_owned(), point)].into(), vec![]));
        assert_eq!(Plan::<Never>::new(&config(Json::Null, &[])).unwrap().connection, Settings::default());
    }

    #[test]
    fn a_senseless_address_costs_one_property_and_senseless_settings_the_device() {
        let plan = Plan::<Never>::new(&config(Json::Null, &[Json::Int(1), Json::Int(-1)])).unwrap();
        assert_eq!(plan.points.keys().collect::<Vec<_>>(), ["p0"]);
        assert!(matches!(&plan.faults[..], [Error::BadAddress { point, .. }] if point == "p1"));
        let senseless = Json::Object([("port".to_owned(), Json::Text("high".into()))].into());
        assert!(matches!(Plan::<Never>::new(&config(senseless, &[])), Err(Error::Config(_))));
    }
}
