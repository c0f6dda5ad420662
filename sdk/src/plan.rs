//! A device's configuration in the mapper's own types.

use std::collections::BTreeMap;

use bus::twin::{DeviceConfig, Json, PropertyConfig};
use serde::de::DeserializeOwned;

use crate::scale::Scale;
use crate::{Error, Mapper, Point};

/// What a mapper needs to serve a device, checked once. A property whose address makes no sense is left out and
/// named in `faults`; the others are served.
pub(crate) struct Plan<M: Mapper> {
    pub(crate) connection: M::Config,
    pub(crate) points: BTreeMap<String, Point<M::Address>>,
    pub(crate) faults: Vec<(String, Error)>,
}

impl<M: Mapper> Plan<M> {
    pub(crate) fn new(config: &DeviceConfig) -> Result<Self, Error> {
        let connection =
            typed(config.connection.clone()).map_err(|e| Error::Config(format!("connection{e}")))?;
        let mut plan = Self { connection, points: BTreeMap::new(), faults: Vec::new() };
        for property in &config.properties {
            match point(property) {
                Ok(point) => drop(plan.points.insert(property.name.clone(), point)),
                Err(fault) => plan.faults.push((property.name.clone(), fault)),
            }
        }
        Ok(plan)
    }
}

fn point<A: DeserializeOwned>(property: &PropertyConfig) -> Result<Point<A>, Error> {
    let bad = |why: String| Error::BadAddress { point: property.name.clone(), why };
    let (name, value_type, mut address) =
        (property.name.clone(), property.value_type, property.address.clone());
    let scale = Scale::take_from(&mut address, value_type).map_err(bad)?;
    let address = typed(address).map_err(|why| bad(why.trim_start_matches(": ").to_owned()))?;
    Ok(Point { name, value_type, address, scale })
}

/// Nothing at all counts as an empty object, so that settings with defaults need not be there. The error begins with the
/// field, as in `.port: expected ..`.
fn typed<T: DeserializeOwned>(json: Json) -> Result<T, String> {
    let json = if json == Json::Null { Json::Object(BTreeMap::new()) } else { json };
    let json = serde_json::to_value(json).map_err(|e| format!(": {e}"))?;
    serde_path_to_error::deserialize(json).map_err(|e| match e.path().to_string().as_str() {
        "." => format!(": {}", e.inner()),
        path if path.starts_with('[') => format!("{path}: {}", e.inner()),
        path => format!(".{path}: {}", e.inner()),
    })
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

    #[derive(Debug, PartialEq, serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Cell {
        register: u16,
    }

    impl Mapper for Never {
        type Config = Settings;
        type Address = Cell;
        type Session = Self;
        fn manifest() -> Manifest {
            Manifest::new("never", "0")
        }
        async fn open(_: &Settings, _: &Context<Self>) -> Result<Self, Error> {
            Err(Error::Unsupported("opening".into()))
        }
    }

    impl Session for Never {
        type Address = Cell;
        type Bus = ();
        async fn read(&mut self, _: &Batch<'_, Cell>, _: &mut Samples) -> Result<(), Error> {
            Err(Error::Unsupported("reading".into()))
        }
        async fn write(&mut self, _: &Point<Cell>, _: Value, _: WritePermit) -> Result<WriteOutcome, Error> {
            Err(Error::Unsupported("writing".into()))
        }
    }

    fn object<const N: usize>(fields: [(&str, Json); N]) -> Json {
        Json::Object(fields.into_iter().map(|(key, json)| (key.to_owned(), json)).collect())
    }

    fn cell(register: i64) -> Json {
        object([("register", Json::Int(register))])
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
            deadband: None,
            max_age_ms: None,
        });
        let properties = properties.collect();
        DeviceConfig { device: "test/a".parse().unwrap(), connection, properties }
    }

    #[test]
    fn settings_and_addresses_come_in_the_mappers_own_types() {
        let port = object([("port", Json::Int(502))]);
        let scaled = object([("register", Json::Int(40)), ("scale", Json::Float(0.1))]);
        let plan = Plan::<Never>::new(&config(port, &[scaled])).unwrap();
        assert_eq!(plan.connection, Settings { port: 502 });
        let scale = Scale::take_from(&mut object([("scale", Json::Float(0.1))]), ValueType::Int).unwrap();
        let point =
            Point { name: "p0".into(), value_type: ValueType::Int, address: Cell { register: 40 }, scale };
        assert_eq!((plan.points, plan.faults), ([("p0".to_owned(), point)].into(), vec![]));
        assert_eq!(Plan::<Never>::new(&config(Json::Null, &[])).unwrap().connection, Settings::default());
    }

    #[test]
    fn a_senseless_address_costs_one_property_and_senseless_settings_the_device() {
        let plan = Plan::<Never>::new(&config(Json::Null, &[cell(1), cell(-1)])).unwrap();
        assert_eq!(plan.points.keys().collect::<Vec<_>>(), ["p0"]);
        assert!(
            matches!(&plan.faults[..], [(name, Error::BadAddress { point, .. })] if name == "p1" && point == "p1")
        );
        let senseless = object([("port", Json::Text("high".into()))]);
        assert!(matches!(Plan::<Never>::new(&config(senseless, &[])), Err(Error::Config(_))));
    }

    #[test]
    fn an_error_names_its_field() {
        let senseless = object([("port", Json::Text("high".into()))]);
        let Err(error) = Plan::<Never>::new(&config(senseless, &[])) else { panic!("it makes no sense") };
        let text = error.to_string();
        assert!(text.starts_with("configuration: connection.port: invalid type: string \"high\""), "{text}");

        let unknown = object([("register", Json::Int(1)), ("scales", Json::Int(2))]);
        let zero = object([("register", Json::Int(1)), ("scale", Json::Int(0))]);
        let plan = Plan::<Never>::new(&config(Json::Null, &[cell(-1), unknown, zero, Json::Null])).unwrap();
        let beginnings = [
            "properties.p0.address.register: invalid value: integer `-1`",
            "properties.p1.address.scales: unknown field `scales`",
            "properties.p2.address.scale: 0 makes every value the same",
            "properties.p3.address: missing field `register`",
        ];
        assert_eq!(plan.faults.len(), beginnings.len());
        for ((_, fault), beginning) in plan.faults.iter().zip(beginnings) {
            assert!(fault.to_string().starts_with(beginning), "{fault}");
        }
    }
}
