//! The bridge in virtual time: no socket, and a mapper that answers what a test lets it.

mod lifecycle;
mod messages;
mod reports;
mod writes;

use std::time::Duration;

use bus::twin::{DeviceId, Outcome, WriteRequest, WriteResult};
use bus::{Mono, Name, UnixMillis, Value};
use metadata::Keyspace;
use prost::Message;
use serde_json::json;

use super::*;
use crate::model::{Kind, Layout};

/// An edge with DMI, and its keyspace.
struct World {
    dmi: Dmi,
    ks: Keyspace,
    catalog: Catalog,
    now: Mono,
    tickets: u64,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn device(text: &str) -> DeviceId {
    format!("plant/{text}").parse().unwrap()
}

/// A model of a valve: a position that is written, a pressure that is not, and a label.
fn model() -> serde_json::Value {
    json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel",
        "metadata": { "name": "valve", "namespace": "plant" },
        "spec": { "protocol": "modbus", "protocolConfigData": { "baud": 9600, "mode": "RTU" }, "properties": [
            { "name": "position", "description": "how far", "type": "INT", "accessMode": "ReadWrite",
              "minimum": "0", "maximum": "100", "unit": "%",
              "visitors": { "protocolName": "modbus", "configData": { "register": "Holding", "offset": 1 } } },
            { "name": "pressure", "type": "DOUBLE", "accessMode": "ReadOnly" },
            { "name": "label", "type": "STRING", "accessMode": "ReadWrite" }] } })
}

fn valve(named: &str) -> serde_json::Value {
    json!({ "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
        "metadata": { "name": named, "namespace": "plant" },
        "spec": { "deviceModelRef": { "name": "valve" }, "nodeName": "pump-house",
            "protocol": { "protocolName": "modbus", "configData": { "mode": "TCP", "slaveID": 1 } },
            "properties": [
                { "name": "position", "collectCycle": 1000, "desired": { "value": "30" },
                  "visitors": { "configData": { "offset": 2 } } },
                { "name": "pressure", "reportToCloud": false, "reportCycle": 500 },
                { "name": "label" }] } })
}

impl World {
    fn new() -> Self {
        let (ks, catalog) = (Keyspace::new(), Catalog::default());
        let dmi = Dmi::load(name("pump-house"), &catalog, &ks, Mono::ZERO);
        Self { dmi, ks, catalog, now: Mono::ZERO, tickets: 0 }
    }

    /// One valve and its model, and a mapper that has them.
    fn registered() -> Self {
        let mut world = Self::new();
        world.put(Kind::Model, "valve", Some(model()));
        world.put(Kind::Device, "v1", Some(valve("v1")));
        world.register();
        world.outputs();
        world.pass(GAP);
        world
    }

    /// The edge's process ends and begins anew.
    fn restart(&mut self) {
        self.dmi = Dmi::load(name("pump-house"), &self.catalog, &self.ks, self.now);
    }

    fn put(&mut self, kind: Kind, named: &str, manifest: Option<serde_json::Value>) {
        let id = device(named);
        let key = Key::new(&format!("{}{id}", kind.prefix(Layout::Edge))).unwrap();
        let json = manifest.map(|manifest| Bytes::from(manifest.to_string()));
        match &json {
            Some(json) => self.ks.put(key.clone(), json.clone()),
            None => self.ks.delete(&key),
        }
        self.catalog.put(kind, &id, json.as_ref());
        self.dmi.handle_changed(&[key], &self.catalog, &self.ks);
    }

    fn ask(&mut self, request: &Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.dmi.handle_request(ticket, request, &self.catalog, &mut self.ks, self.now);
        ticket
    }

    fn register(&mut self) -> Ticket {
        self.ask(&registration("modbus", "/run/modbus.sock"))
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.dmi.drive(&mut self.ks, self.now);
        std::iter::from_fn(|| self.dmi.poll_output()).collect()
    }

    /// The one call that is asked for, with all that is said beside it.
    #[track_caller]
    fn call(&mut self) -> (Call, Vec<Output>) {
        let mut outputs = self.outputs();
        let at = outputs.iter().position(|output| matches!(output, Output::Call(_)));
        let Some(Output::Call(call)) = at.map(|at| outputs.remove(at)) else {
            panic!("no call: {outputs:?}")
        };
        (call, outputs)
    }

    #[track_caller]
    fn quiet(&mut self) {
        assert_eq!(self.outputs(), []);
    }

    /// The mapper takes the call that is asked for; which that was.
    #[track_caller]
    fn takes(&mut self) -> (Method, Bytes) {
        let (call, _) = self.call();
        self.answer(&call, Answer::Taken);
        (call.method, call.body)
    }

    fn answer(&mut self, call: &Call, answer: Answer) {
        self.dmi.handle_answer(call.id, &answer, &mut self.ks, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn write(&mut self, id: &str, property: &str, value: Value, ttl: Duration) {
        self.write_to("v1", id, property, value, ttl);
    }

    fn write_to(&mut self, named: &str, id: &str, property: &str, value: Value, ttl: Duration) {
        let request = WriteRequest {
            id: id.to_owned(),
            device: device(named),
            property: property.to_owned(),
            value,
            sent: UnixMillis(0),
            ttl_ms: twin::millis(ttl),
            cause: "rule".to_owned(),
        };
        self.dmi.handle_write(&name("modbus"), &twin::json(&request), Some(Expiry(ttl)), self.now);
    }
}

const GAP: Duration = mapper::GAP;
const TTL: Duration = Duration::from_secs(10);

fn registration(protocol: &str, address: &str) -> Request {
    Request::Register(MapperRegisterRequest {
        with_data: true,
        mapper: Some(MapperInfo {
            name: "modbus-mapper".to_owned(),
            version: "v1.13.0".to_owned(),
            api_version: "v1.0.0".to_owned(),
            protocol: protocol.to_owned(),
            address: Bytes::copy_from_slice(address.as_bytes()),
            state: "OK".to_owned(),
        }),
    })
}

/// What the twins are told of a write's end.
fn ended(id: &str, property: &str, outcome: Outcome, detail: &str) -> Output {
    let result = WriteResult {
        id: id.to_owned(),
        device: device("v1"),
        property: property.to_owned(),
        outcome,
        detail: detail.to_owned(),
    };
    Output::Say(None, Topic::new("mapper/modbus/result").unwrap(), twin::json(&result))
}

fn state(online: &str) -> Output {
    Output::Say(None, Topic::new("mapper/modbus/state").unwrap(), Bytes::copy_from_slice(online.as_bytes()))
}

/// `property: accessMode` of a model that the mapper is told.
fn access(body: &Bytes) -> Vec<(String, String)> {
    let model = api::ModelRequest::decode(body.clone()).unwrap().model.unwrap();
    model.spec.unwrap().properties.into_iter().map(|p| (p.name, p.access_mode)).collect()
}

/// `property: desired` of a device that the mapper is told.
fn desired(body: &Bytes) -> Vec<(String, String)> {
    let device = api::DeviceRequest::decode(body.clone()).unwrap().device.unwrap();
    desired_of(&device)
}

fn desired_of(device: &api::Device) -> Vec<(String, String)> {
    let properties = &device.spec.as_ref().unwrap().properties;
    properties.iter().map(|p| (p.name.clone(), p.desired.as_ref().unwrap().value.clone())).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const SHUT: [(&str, &str); 3] = [("position", "ReadOnly"), ("pressure", "ReadOnly"), ("label", "ReadOnly")];
const NO_WISH: [(&str, &str); 3] = [("position", ""), ("pressure", ""), ("label", "")];
