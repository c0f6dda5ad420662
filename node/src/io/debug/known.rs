//! What a node knows of others: nodes and devices, by its own console.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::facts::Questions;
use super::hosts;
use crate::diagnose::{Device, Peer, Role};

/// At a cloud: the edge that is asked about, or that has the device.
pub(super) async fn edge_of(
    questions: &Questions<'_>,
    role: Option<Role>,
    about: Option<&str>,
) -> Option<String> {
    let about = about.filter(|_| role == Some(Role::Cloud))?;
    let edge = about.strip_prefix("edge/").unwrap_or(about);
    if !edge.contains('/') {
        return Some(edge.to_owned());
    }
    let devices = questions.get("/kubebus/v1/resources/device").await;
    places(&devices).get(&about.split_once('/')?).map(|edge| (*edge).to_owned())
}

/// Nodes and devices; a cloud's copy of a device says nothing while the device's edge is away.
pub(super) async fn known(questions: &Questions<'_>, role: Option<Role>) -> (Vec<Peer>, Vec<Device>) {
    if role != Some(Role::Cloud) {
        let mut devices = devices(&questions.get("/kubebus/v1/twins").await);
        if devices.iter().any(hosts::is_silent) {
            hosts::look_up(&questions.get(hosts::MANIFESTS).await, &mut devices).await;
        }
        return (Vec::new(), devices);
    }
    let (twins, nodes, fleet, placed) = tokio::join!(
        questions.get("/kubebus/v1/twins"),
        questions.get("/kubebus/v1/nodes"),
        questions.get("/kubebus/v1/fleet"),
        questions.get("/kubebus/v1/resources/device"),
    );
    let mut devices = devices(&twins);
    let told: BTreeMap<&str, &Value> = by_name(&fleet["nodes"], |node| node["node"].as_str());
    let peers = list(&nodes, |node| peer(node, &told));
    let present: BTreeSet<&str> = peers
        .iter()
        .filter(|peer| peer.connected)
        .filter_map(|peer| peer.node.strip_prefix("edge/"))
        .collect();
    let places = places(&placed);
    devices.retain(|device| {
        let place = device.id.split_once('/').and_then(|id| places.get(&id));
        place.is_some_and(|node| present.contains(node))
    });
    (peers, devices)
}

/// Which edge each device is at, by namespace and name.
fn places(devices: &Value) -> BTreeMap<(&str, &str), &str> {
    let by_name = by_name(devices, |resource| {
        let meta = &resource["metadata"];
        meta["namespace"].as_str().zip(meta["name"].as_str())
    });
    by_name.into_iter().filter_map(|(id, device)| Some((id, device["spec"]["nodeName"].as_str()?))).collect()
}

fn by_name<'a, K: Ord>(list: &'a Value, name: impl Fn(&'a Value) -> Option<K>) -> BTreeMap<K, &'a Value> {
    list.as_array().into_iter().flatten().filter_map(|item| Some((name(item)?, item))).collect()
}

fn peer(node: &Value, fleet: &BTreeMap<&str, &Value>) -> Peer {
    let name = format!("edge/{}", words(&node["name"]));
    let told = fleet.get(name.as_str()).copied().unwrap_or(&Value::Null);
    Peer {
        connected: node["connected"] == true,
        last_error: told.pointer("/last_error/text").and_then(Value::as_str).map(str::to_owned),
        disk: told["disk"].as_str().and_then(|disk| disk.strip_prefix("degraded")).map(str::to_owned),
        clock_offset_ms: told["clock_offset_ms"].as_i64(),
        node: name,
    }
}

/// One row a device, out of one a property.
fn devices(twins: &Value) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for twin in twins.as_array().into_iter().flatten() {
        let id = words(&twin["device"]);
        if devices.last().is_none_or(|last| last.id != id) {
            let [state, reason] = ["state", "reason"].map(|field| words(&twin["state"][field]));
            devices.push(Device { id, state, reason, ..Device::default() });
        }
        if let Some(device) = devices.last_mut() {
            device.is_heard |= !twin["reported"].is_null();
            device.refused.extend(refusal(twin));
        }
    }
    devices
}

/// Of the wish that stands, as it was answered.
fn refusal(twin: &Value) -> Option<String> {
    let (ack, outcome) = (&twin["ack"], twin["ack"]["outcome"].as_str()?);
    let is_bad = matches!(outcome, "failed" | "rejected" | "expired" | "unknown");
    let is_present = !twin["desired"].is_null() && ack["version"] == twin["version"];
    (is_bad && is_present).then(|| {
        let detail = ack["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("{} was {outcome}{detail}", words(&twin["property"]))
    })
}

pub(super) fn list<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(read).collect()
}

pub(super) fn words(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
