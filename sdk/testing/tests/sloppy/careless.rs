//! A mapper that takes any settings and addresses for good, and exports schemas that nothing fits.

use std::borrow::Cow;

use kubebus_sdk::schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use kubebus_sdk::{
    Batch, Context, Error, Manifest, Mapper, Point, Samples, Session, Value, WriteOutcome, WritePermit,
};
use serde_json::{Value as Json, json};

use crate::line::Line;
use crate::mapper::Fault;

/// Anything at all.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Anything(Json);

impl JsonSchema for Anything {
    fn schema_name() -> Cow<'static, str> {
        "Anything".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// With a manifest that is of use, or not.
pub(crate) struct Careless<const SOUND: bool>;

pub(crate) struct Device(Line);

impl<const SOUND: bool> Mapper for Careless<SOUND> {
    type Config = Anything;
    type Address = Anything;
    type Session = Device;

    fn manifest() -> Manifest {
        Manifest::new(if SOUND { "careless" } else { "Careless Mapper" }, "1")
    }

    async fn open(config: &Anything, _: &Context<Device>) -> Result<Device, Error> {
        Ok(Device(Line::connect(config.0["address"].as_str().unwrap_or_default()).await?))
    }
}

impl Session for Device {
    type Address = Anything;
    type Bus = ();

    async fn read(&mut self, batch: &Batch<'_, Anything>, out: &mut Samples) -> Result<(), Error> {
        for point in batch {
            let register = point.address.0["register"].as_u64().expect("a register is a number");
            let answer = self.0.ask(&json!({ "read": [register, 1] }), Fault::None).await?;
            out.good(point, Value::Float(answer["values"][0].as_f64().unwrap_or_default()));
        }
        Ok(())
    }

    async fn write(&mut self, _: &Point<Anything>, _: Value, _: WritePermit) -> Result<WriteOutcome, Error> {
        Err(Error::Unsupported("writing".to_owned()))
    }
}
