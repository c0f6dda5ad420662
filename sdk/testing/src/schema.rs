//! As much of JSON Schema (draft 2020-12) as schemas of settings need: enough to see that a schema refuses what its mapper
//! takes. Keywords that are not here constrain nothing.

use serde_json::Value as Json;

/// Schemas within schemas that are followed: one that refers to itself has no end.
const MAX_DEPTH: usize = 64;

/// An error names the place in the value and the keyword.
pub(crate) fn check(schema: &Json, value: &Json) -> Result<(), String> {
    Checker { root: schema }.check(schema, value, MAX_DEPTH)
}

struct Checker<'a> {
    root: &'a Json,
}

impl Checker<'_> {
    fn check(&self, schema: &Json, value: &Json, depth: usize) -> Result<(), String> {
        let Some(depth) = depth.checked_sub(1) else { return Err("the schema has no end".to_owned()) };
        let keywords = match schema {
            Json::Bool(false) => return Err(format!("{value} is not allowed")),
            Json::Object(keywords) => keywords,
            Json::Bool(true) | Json::Null | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                return Ok(());
            }
        };
        for (keyword, rule) in keywords {
            self.keyword(keyword, rule, value, depth)?;
        }
        self.fields(schema, value, depth)
    }

    fn keyword(&self, keyword: &str, rule: &Json, value: &Json, depth: usize) -> Result<(), String> {
        let all = rule.as_array().map_or(&[][..], Vec::as_slice);
        let fitting = || all.iter().filter(|schema| self.check(schema, value, depth).is_ok()).count();
        let fits = match keyword {
            "$ref" => {
                let target = rule.as_str().and_then(|at| self.root.pointer(at.strip_prefix('#')?));
                return self.check(target.ok_or_else(|| format!("{rule} leads nowhere"))?, value, depth);
            }
            "allOf" => return all.iter().try_for_each(|schema| self.check(schema, value, depth)),
            "anyOf" => fitting() > 0,
            "oneOf" => fitting() == 1,
            "not" => self.check(rule, value, depth).is_err(),
            "const" => rule == value,
            "enum" => all.contains(value),
            "type" => rule
                .as_array()
                .map_or_else(|| is_type(rule, value), |any| any.iter().any(|t| is_type(t, value))),
            "minimum" => compare(value, rule, |value, limit| value >= limit),
            "maximum" => compare(value, rule, |value, limit| value <= limit),
            "minLength" => {
                value.as_str().is_none_or(|t| rule.as_u64().is_none_or(|n| t.chars().count() as u64 >= n))
            }
            "items" => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                return items.iter().try_for_each(|item| self.check(rule, item, depth));
            }
            _ => true,
        };
        if fits { Ok(()) } else { Err(format!("{value} does not fit {keyword} {rule}")) }
    }

    fn fields(&self, schema: &Json, value: &Json, depth: usize) -> Result<(), String> {
        let Json::Object(fields) = value else { return Ok(()) };
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(missing) =
            required.iter().filter_map(Json::as_str).find(|name| !fields.contains_key(*name))
        {
            return Err(format!("'{missing}' is missing"));
        }
        for (name, field) in fields {
            let rule = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
            if let Some(rule) = rule {
                self.check(rule, field, depth).map_err(|why| format!("{name}: {why}"))?;
            }
        }
        Ok(())
    }
}

fn is_type(name: &Json, value: &Json) -> bool {
    match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => true,
    }
}

fn compare(value: &Json, limit: &Json, holds: impl Fn(f64, f64) -> bool) -> bool {
    value.as_f64().zip(limit.as_f64()).is_none_or(|(value, limit)| holds(value, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_fits_and_what_does_not() {
        let schema = json!({
            "type": "object", "required": ["port"], "additionalProperties": false,
            "properties": {
                "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                "parity": {"$ref": "#/$defs/Parity"},
                "hosts": {"type": ["array", "null"], "items": {"type": "string"}}
            },
            "$defs": {"Parity": {"oneOf": [{"const": "even"}, {"enum": ["odd", "none"]}]}}
        });
        for good in [
            json!({"port": 502}),
            json!({"port": 1, "parity": "odd", "hosts": ["a"]}),
            json!({"port": 1, "hosts": null}),
        ] {
            assert_eq!(check(&schema, &good), Ok(()), "{good}");
        }
        let table = [
            (json!({}), "'port' is missing"),
            (json!({"port": 0}), "port: 0 does not fit minimum 1"),
            (json!({"port": 1.5}), "port: 1.5 does not fit type \"integer\""),
            (json!({"port": 1, "hosts": [3]}), "hosts: 3 does not fit type \"string\""),
            (json!({"port": 1, "unknown": 1}), "unknown: 1 is not allowed"),
            (json!([]), "[] does not fit type \"object\""),
        ];
        for (bad, why) in table {
            assert_eq!(check(&schema, &bad).unwrap_err(), why);
        }
        let parity = check(&schema, &json!({"port": 1, "parity": "x"})).unwrap_err();
        assert!(parity.starts_with("parity: \"x\" does not fit oneOf"), "{parity}");
        let endless = json!({"$ref": "#"});
        assert_eq!(check(&endless, &json!(1)).unwrap_err(), "the schema has no end");
    }
}
