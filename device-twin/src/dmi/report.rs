//! What a mapper reports, as the twins hear it from everybody.

use std::collections::BTreeMap;

use bus::twin::{DeviceId, ReportBody, TwinTopic};
use bus::{Name, Quality, Topic, UnixMillis, Value, ValueType};
use bytes::Bytes;
use thiserror::Error;

use super::api::{ReportDeviceStatesRequest, ReportDeviceStatusRequest, TwinProperty};
use crate::model::{Catalog, Property};
use crate::twin;

/// Why a report is none; the first two in KubeEdge's words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidReport {
    #[error("ReportDeviceStatusRequest does not have twin data")]
    NoTwins,
    #[error("ReportDeviceStatesRequest is invalid data")]
    NoState,
    #[error("no device has this name")]
    Device(#[from] bus::id::InvalidName),
}

/// KubeEdge's mappers before 1.16 know no namespaces.
fn device_id(namespace: &str, name: &str) -> Result<DeviceId, InvalidReport> {
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    Ok(DeviceId { namespace: Name::new(namespace)?, name: Name::new(name)? })
}

/// The report of the twins that have a value. What a mapper believes is desired of them is no wish of anybody, and not
/// passed on.
pub(super) fn of_status(
    request: &ReportDeviceStatusRequest,
    catalog: &Catalog,
) -> Result<(DeviceId, Topic, Bytes), InvalidReport> {
    let device = device_id(&request.device_namespace, &request.device_name)?;
    let twins = request.reported_device.iter().flat_map(|status| &status.twins);
    let reported: BTreeMap<&str, ReportBody> = twins
        .filter_map(|twin| Some((twin.property_name.as_str(), twin.reported.as_ref()?)))
        .map(|(name, reported)| (name, body(reported, catalog.property(&device, name).ok())))
        .collect();
    if request.reported_device.as_ref().is_none_or(|status| status.twins.is_empty()) {
        return Err(InvalidReport::NoTwins);
    }
    let topic = TwinTopic::ReportMany { device: device.clone() }.topic();
    Ok((device, topic, twin::json(&reported)))
}

/// The device and its state, in lower case.
pub(super) fn of_states(request: &ReportDeviceStatesRequest) -> Result<(DeviceId, String), InvalidReport> {
    if request.state.is_empty() || request.device_name.is_empty() {
        return Err(InvalidReport::NoState);
    }
    let device = device_id(&request.device_namespace, &request.device_name)?;
    Ok((device, request.state.to_ascii_lowercase()))
}

fn body(reported: &TwinProperty, property: Option<&Property>) -> ReportBody {
    let time = reported.metadata.get("timestamp").and_then(|text| text.parse().ok()).filter(|ms| *ms > 0);
    ReportBody::Full {
        value: value(&reported.value, property),
        time: time.map(UnixMillis),
        quality: Quality::Good,
        unit: None,
    }
}

/// KubeEdge writes every value as text. What cannot be read as the property's type stays one, and the twin refuses it
/// in its own words.
fn value(text: &str, property: Option<&Property>) -> Value {
    let read = property.and_then(|property| match property.value_type {
        ValueType::Bool => boolean(text).map(Value::Bool),
        // A mapper that reads a register as a float says 25.0 of a whole number.
        ValueType::Int => text.parse().map(Value::Int).ok().or_else(|| number(text)),
        ValueType::Float => number(text),
        ValueType::String | ValueType::Bytes => None,
        ValueType::Struct => serde_json::from_str(text).ok(),
    });
    read.unwrap_or_else(|| Value::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Value> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float)
}

/// What Go's `strconv.ParseBool` takes, of which mappers are made.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
