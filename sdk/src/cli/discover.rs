//! `discover`: what is found, as manifests.

use bus::twin::{DeviceConfig, DeviceId, Json};
use bus::{Name, ValueType};
use serde_json::{Value, json};

use super::args::DiscoverArgs;
use super::stop::Stop;
use super::{Failure, say};
use crate::plan::Plan;
use crate::{Error, Found, FoundProperty, Mapper};

pub(super) async fn discover<M: Mapper>(
    mapper: Name,
    args: DiscoverArgs,
    mut stop: Stop,
) -> Result<(), Failure> {
    if !M::manifest().discovers {
        return Err(Failure::Other(format!(
            "{mapper} cannot look for devices: write their manifests by hand"
        )));
    }
    let connection = connection::<M>(&args)?;
    let found = tokio::select! {
        found = M::discover(&connection) => found.map_err(|error| Failure::Other(error.to_string()))?,
        () = stop.requested() => return Err(Failure::Other("interrupted; nothing is printed".to_owned())),
    };
    if found.is_empty() {
        return Err(Failure::Other("nothing was found".to_owned()));
    }
    let documents =
        found.iter().map(|found| manifests(&mapper, &args, found)).collect::<Result<Vec<_>, _>>()?;
    say(&documents.concat())
}

/// What was typed, in the mapper's own type.
fn connection<M: Mapper>(args: &DiscoverArgs) -> Result<M::Config, Failure> {
    let usage = |why: String| {
        Failure::Usage(format!("{}: {why}; the command schema shows what a connection is", args.connection))
    };
    let connection: Json =
        serde_saphyr::from_str(&args.connection).map_err(|error| usage(error.to_string()))?;
    let device = DeviceId { namespace: args.namespace.clone(), name: args.namespace.clone() };
    let plan = Plan::<M>::new(&DeviceConfig { device, connection, properties: Vec::new() });
    plan.map(|plan| plan.connection).map_err(|error| usage(error.to_string()))
}

/// A model and a device, as YAML documents.
fn manifests(mapper: &Name, args: &DiscoverArgs, found: &Found) -> Result<String, Failure> {
    let Found { name, about, connection, properties } = found;
    let name = Name::new(name).map_err(|why| Failure::Other(Error::Bug(why.to_string()).to_string()))?;
    let head = |kind: &str| {
        json!({
            "apiVersion": "devices.kubeedge.io/v1beta1",
            "kind": kind,
            "metadata": { "name": name, "namespace": args.namespace },
        })
    };
    let of_model = properties.iter().map(of_model).collect::<Result<Vec<_>, _>>()?;
    let of_device: Vec<Value> = properties.iter().map(|property| of_device(mapper, property)).collect();
    let mut model = head("DeviceModel");
    model["spec"] = json!({ "protocol": mapper, "properties": of_model });
    let mut device = head("Device");
    device["spec"] = json!({
        "deviceModelRef": { "name": name },
        "protocol": { "protocolName": mapper, "configData": connection },
        "properties": of_device,
    });
    match &args.node {
        Some(node) => device["spec"]["nodeName"] = json!(node),
        None => eprintln!("{name}: say with --node which edge it is wired to, or add spec.nodeName by hand"),
    }
    let yaml =
        |value: &Value| serde_saphyr::to_string(value).map_err(|error| Failure::Other(error.to_string()));
    Ok(format!("---\n{}{}---\n{}", comment(about), yaml(&model)?, yaml(&device)?))
}

/// A device may say anything of itself.
fn comment(about: &str) -> String {
    let line: String = about.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if line.trim().is_empty() { String::new() } else { format!("# {}\n", line.trim()) }
}

fn of_model(
    FoundProperty { name, value_type, writable, address: _ }: &FoundProperty,
) -> Result<Value, Failure> {
    let kind = match value_type {
        ValueType::Int => "INT",
        ValueType::Float => "DOUBLE",
        ValueType::String => "STRING",
        ValueType::Bool => "BOOLEAN",
        ValueType::Bytes => "BYTES",
        ValueType::Struct => {
            let why = format!("{name}: no DeviceModel holds a struct; find its fields as properties");
            return Err(Failure::Other(Error::Bug(why).to_string()));
        }
    };
    let access = if *writable { "ReadWrite" } else { "ReadOnly" };
    Ok(json!({ "name": name, "type": kind, "accessMode": access }))
}

fn of_device(mapper: &Name, FoundProperty { name, address, .. }: &FoundProperty) -> Value {
    json!({ "name": name, "visitors": { "protocolName": mapper, "configData": address } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: DiscoverArgs,
    }

    #[test]
    fn what_is_found_is_told_as_manifests() {
        let args = Typed::parse_from(["m", "--namespace", "hall", "--node", "a"]).args;
        let found = Found {
            name: "pump-3".into(),
            about: "ACME\npump".into(),
            connection: json!({ "tcp": "10.0.0.5:502" }),
            properties: vec![FoundProperty {
                name: "speed".into(),
                value_type: ValueType::Float,
                writable: true,
                address: json!({ "holding": 40 }),
            }],
        };
        let mapper = Name::new("modbus").unwrap();
        let told = manifests(&mapper, &args, &found).unwrap();
        assert!(told.starts_with("---\n# ACME pump\n"), "{told}");
        let [model, device]: [Value; 2] =
            serde_saphyr::from_multiple(&told).unwrap().try_into().expect("two documents");
        assert_eq!(
            model,
            json!({
                "apiVersion": "devices.kubeedge.io/v1beta1",
                "kind": "DeviceModel",
                "metadata": { "name": "pump-3", "namespace": "hall" },
                "spec": {
                    "protocol": "modbus",
                    "properties": [{ "name": "speed", "type": "DOUBLE", "accessMode": "ReadWrite" }],
                },
            })
        );
        assert_eq!(device["spec"]["nodeName"], "a");
        assert_eq!(device["spec"]["protocol"]["configData"], found.connection);
        assert_eq!(device["spec"]["properties"][0]["visitors"]["configData"], found.properties[0].address);
        let nameless = Found { name: "Pump 3".into(), ..found };
        assert!(manifests(&mapper, &args, &nameless).unwrap_err().to_string().starts_with("driver: "));
    }
}
