//! `schema`: what a mapper's connections and addresses look like, for editors and checkers.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::Failure;
use crate::{Manifest, Mapper};

/// What the SDK takes out of an address before the mapper sees it.
const SCALING: [(&str, &str); 2] = [
    ("scale", "The property is raw * scale + shift; not 0, 1 if absent"),
    ("shift", "The property is raw * scale + shift; 0 if absent"),
];

/// One JSON document: the manifest, and two schemas of draft 2020-12.
pub(super) fn of<M: Mapper>() -> Result<String, Failure> {
    let Manifest { protocol, version, about, spans, pushes, discovers, .. } = M::manifest();
    let document = json!({
        "protocol": protocol,
        "version": version,
        "about": about,
        "spans": spans.map(|limits| json!({ "longest": limits.longest, "gap": limits.gap })),
        "pushes": pushes,
        "discovers": discovers,
        "connection": schema_of::<M::Config>(),
        "address": with_scaling(schema_of::<M::Address>()),
    });
    serde_json::to_string_pretty(&document).map_err(|error| Failure::Other(error.to_string()))
}

/// Without references where possible, so that each variant of an address can be given the SDK's keys.
fn schema_of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

fn with_scaling(mut schema: Schema) -> Schema {
    if let Some(object) = schema.as_object_mut() {
        add_scaling(object);
    }
    schema
}

/// To every object that an address can be; what is no object has no place for them.
fn add_scaling(schema: &mut Map<String, Value>) {
    if schema.get("type").is_some_and(|kind| kind == "object") {
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        for (key, about) in SCALING {
            properties[key] = json!({ "type": "number", "description": about });
        }
        return;
    }
    for key in ["anyOf", "oneOf"] {
        let variants = schema.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten();
        variants.filter_map(Value::as_object_mut).for_each(add_scaling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "its schema is what is looked at")]
    enum Address {
        Register(Register),
        Name(String),
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "its schema is what is looked at")]
    struct Register {
        register: u16,
    }

    #[test]
    fn each_object_that_an_address_can_be_takes_the_sdks_keys() {
        let schema = with_scaling(schema_of::<Address>()).to_value();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let [register, name] = schema["anyOf"].as_array().unwrap().as_slice() else { panic!("{schema}") };
        assert_eq!(register["additionalProperties"], false);
        let keys: Vec<&str> =
            register["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["register", "scale", "shift"]);
        assert_eq!(name, &json!({ "type": "string" }));
    }
}
