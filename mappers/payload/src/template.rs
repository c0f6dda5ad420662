//! What a device is told, with the value in it.

use std::borrow::Cow;

use kubebus_sdk::schemars::{Schema, SchemaGenerator, json_schema};
use kubebus_sdk::{JsonSchema, Value};
use serde::Deserialize;
use thiserror::Error;

use crate::{Words, json_of, text_of};

/// Longest template, in bytes; it comes from a manifest.
const MAX_LEN: usize = 16 * 1024;

/// A text with places for the value: `${value}` is the value as JSON (a text in quotes, with its escapes: nothing in it
/// can break out of the document), `${text}` the value as plain text.
///
/// ```
/// use kubebus_sdk::Value;
/// use mapper_payload::{Template, Words};
/// let template: Template = r#"{"state": ${value}}"#.parse().unwrap();
/// assert_eq!(template.render(&Value::Text("a\"b".into()), &Words::default()), r#"{"state": "a\"b"}"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Json,
    Text,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadTemplate {
    #[error("a template has at most {MAX_LEN} bytes")]
    TooLong,
    #[error("'${{' without '}}'")]
    Open,
    #[error("'${{{0}}}' is not known: there are ${{value}} (as JSON) and ${{text}}")]
    Unknown(String),
}

impl Template {
    pub fn render(&self, value: &Value, words: &Words) -> String {
        self.render_with(value, words, |text| text)
    }

    /// As [`render`](Self::render), each value put in through `escape`.
    pub fn render_with(&self, value: &Value, words: &Words, escape: impl Fn(String) -> String) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Json => escape(json_of(value, words).to_string()),
            Piece::Text => escape(text_of(value, words)),
        };
        self.0.iter().map(piece).collect()
    }
}

impl std::str::FromStr for Template {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<Self, BadTemplate> {
        if text.len() > MAX_LEN {
            return Err(BadTemplate::TooLong);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or(BadTemplate::Open)?;
            pieces.push(Piece::Literal(literal.to_owned()));
            pieces.push(match name {
                "value" => Piece::Json,
                "text" => Piece::Text,
                other => return Err(BadTemplate::Unknown(other.to_owned())),
            });
            rest = after;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        Ok(Self(pieces))
    }
}

impl TryFrom<String> for Template {
    type Error = BadTemplate;

    fn try_from(text: String) -> Result<Self, BadTemplate> {
        text.parse()
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": MAX_LEN,
            "description": "Text in which ${value} is the value as JSON and ${text} the value as plain text",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_comes_where_it_should() {
        let words = Words { on: Some("ON".into()), off: Some("OFF".into()) };
        let render = |template: &str, value| template.parse::<Template>().unwrap().render(&value, &words);
        assert_eq!(render("${text}", Value::Bool(true)), "ON");
        assert_eq!(render(r#"{"a":${value},"b":"x"}"#, Value::Bool(false)), r#"{"a":"OFF","b":"x"}"#);
        assert_eq!(render("<${value}|${text}>", Value::Float(21.5)), "<21.5|21.5>");
        assert_eq!(render("toggle", Value::Bool(true)), "toggle");
    }

    #[test]
    fn what_is_no_template_says_why() {
        let error = |text: &str| text.parse::<Template>().unwrap_err();
        assert_eq!(error("${value"), BadTemplate::Open);
        assert_eq!(error("${wert}"), BadTemplate::Unknown("wert".into()));
        assert_eq!(error(&"x".repeat(20_000)), BadTemplate::TooLong);
    }
}
