//! `kubebus get` of kinds that only the resource API knows: sites, routes, events, ..

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;

use super::{AS_TABLE, full_name, helped, known, path_of};
use crate::io::admin::{AskError, ask_stream};
use crate::io::cli::{AskArgs, Format, Kind};
use crate::io::commands::{fetch, read_config, say, show};
use crate::io::table::{any, cell, rows, table};

/// What `kubebus get` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GetKind {
    /// Answered as it was before there was a resource API.
    Known(Kind),
    Api(controller::api::Kind),
}

impl GetKind {
    pub(in crate::io) fn parser() -> impl TypedValueParser<Value = Self> {
        let before = Kind::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let is_new = |kind: &controller::api::Kind| Kind::from_str(kind.info().plural, true).is_err();
        let more = controller::api::Kind::ALL.into_iter().filter(is_new).map(|kind| {
            let info = kind.info();
            // 'nodes' are listed as before.
            clap::builder::PossibleValue::new(info.plural).alias(info.singular).aliases(info.short)
        });
        PossibleValuesParser::new(before.chain(more)).try_map(|text| Self::of(&text))
    }

    fn of(text: &str) -> Result<Self, AskError> {
        match Kind::from_str(text, true) {
            Ok(kind) => Ok(Self::Known(kind)),
            Err(_) => Ok(Self::Api(known(text)?)),
        }
    }
}

pub(in crate::io) async fn get(kind: controller::api::Kind, ask: &AskArgs) -> Result<()> {
    let path = path_of(kind);
    if !matches!(ask.output, Format::Table | Format::Wide) {
        let list = fetch(&ask.place, &path).await.map_err(|error| helped(error, kind))?;
        return show(&list["items"], ask.output, any);
    }
    let config = read_config(&ask.place)?;
    let mut text = Vec::new();
    let keep = |piece: &[u8]| {
        text.extend_from_slice(piece);
        Ok(())
    };
    ask_stream(ask.place.data_dir(&config), &path, AS_TABLE, keep).await?;
    say(&told(&serde_json::from_slice(&text)?, ask.output == Format::Wide))
}

/// The columns that the API makes, names with their namespaces.
fn told(list: &Value, is_wide: bool) -> String {
    let columns = list["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_shown = |column: &Value| is_wide || column["priority"] == 0;
    let chosen: Vec<(usize, &Value)> =
        columns.iter().enumerate().filter(|(_, column)| is_shown(column)).collect();
    let heads: Vec<String> = chosen.iter().map(|(_, column)| cell(&column["name"]).to_uppercase()).collect();
    let row = |row: &Value| {
        let value = |(index, column): &(usize, &Value)| match column["format"] == "name" {
            true => full_name(&row["object"]),
            false => cell(&row["cells"][*index]),
        };
        chosen.iter().map(value).collect()
    };
    table(&heads.iter().map(String::as_str).collect::<Vec<_>>(), &rows(&list["rows"], row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_listed_before_is_listed_as_before() {
        assert_eq!(GetKind::of("nodes").unwrap(), GetKind::Known(Kind::Nodes));
        assert_eq!(GetKind::of("device").unwrap(), GetKind::Known(Kind::Devices));
        assert_eq!(GetKind::of("sites").unwrap(), GetKind::Api(controller::api::Kind::Site));
        assert!(GetKind::of("pods").is_err());
    }

    #[test]
    fn a_table_of_the_api_has_its_columns() {
        let list = json!({
            "columnDefinitions": [{ "name": "Name", "format": "name", "priority": 0 },
                                  { "name": "Site", "priority": 0 }, { "name": "Why", "priority": 1 }],
            "rows": [{ "cells": ["a", "plant", "x"], "object": { "metadata": { "name": "a", "namespace": "n" } } }],
        });
        assert_eq!(told(&list, false), "NAME   SITE\nn/a    plant");
        assert_eq!(told(&list, true), "NAME   SITE    WHY\nn/a    plant   x");
    }
}
