//! The mapper for devices that speak HTTP: they are read and written, or call a webhook.
//!
//! | connection | property address |
//! |---|---|
//! | `{"url": "http://10.0.0.4/api"}` | `{"path": "/status", "pointer": "/sensors/0/temp"}` |
//! | `{.., "user": "u", "password": "p"}` | `{"path": "/relay", "write": {"body": "{\"on\": ${value}}"}}` |
//! | `{"webhook": {"listen": "0.0.0.0:8090", "path": "/door", "secret": ".."}}` | `{"pointer": "/open"}` |
//!
//! A reading asks once for each path. A write is sent once, over a connection of its own; without an answer its outcome is
//! unknown. Redirects are not followed. Inside: `answer` says what a status means, `client` sends, `webhook`
//! listens and `proof` looks whose call it is.

mod answer;
mod client;
pub mod config;
mod proof;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use kubebus_sdk::{
    Batch, Context, Error, Manifest, Mapper, Point, Quality, Samples, Session, Sink, Value, WriteOutcome,
    WritePermit,
};
use mapper_payload::{Body, Sought, json_of};

use crate::answer::{Answer, ReadFault};
use crate::client::{Client, Message};
pub use crate::config::{Address, Config};
use crate::webhook::{Audience, Listening, Place};

/// See the crate's page.
#[derive(Debug)]
pub struct HttpMapper;

/// One device.
pub struct HttpSession {
    client: Option<Client>,
    webhook: Option<Place>,
    /// Paths that have had values in this session.
    known: BTreeSet<String>,
}

impl std::fmt::Debug for HttpSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSession").finish_non_exhaustive()
    }
}

impl Mapper for HttpMapper {
    type Config = Config;
    type Address = Address;
    type Session = HttpSession;

    fn manifest() -> Manifest {
        Manifest::new("http", env!("CARGO_PKG_VERSION"))
            .about("HTTP devices: read and written, or calling a webhook")
            .pushes()
    }

    async fn open(config: &Config, _: &Context<HttpSession>) -> Result<HttpSession, Error> {
        if config.url.is_none() && config.webhook.is_none() {
            return Err(config::wrong("url", "is needed, or a webhook"));
        }
        let client = match config.target()? {
            Some(target) => Some(Client::connect(target).await?),
            None => None,
        };
        let webhook = match &config.webhook {
            Some(webhook) => Some(Place::take(webhook).await?),
            None => None,
        };
        Ok(HttpSession { client, webhook, known: BTreeSet::new() })
    }
}

impl Session for HttpSession {
    type Address = Address;
    type Bus = ();

    async fn read(&mut self, batch: &Batch<'_, Address>, out: &mut Samples) -> Result<(), Error> {
        let mut paths: BTreeMap<&str, Vec<&Point<Address>>> = BTreeMap::new();
        for point in batch {
            paths.entry(point.address.path.as_deref().unwrap_or_default()).or_default().push(point);
        }
        let Some(client) = &mut self.client else {
            batch.iter().for_each(|point| out.failed(point, bad(point, NO_URL)));
            return Ok(());
        };
        for (path, points) in paths {
            let answer = read_path(client, path).await;
            match answer.map_err(|fault| fault.of_path(self.known.contains(path))) {
                Ok(body) => {
                    if !self.known.contains(path) {
                        self.known.insert(path.to_owned());
                    }
                    points.iter().for_each(|point| pick(point, &body, out));
                }
                Err(ReadFault::Device(error)) => return Err(error),
                Err(ReadFault::Path(error)) => {
                    points.iter().for_each(|point| out.failed(point, error.clone()))
                }
                Err(ReadFault::Address(why)) => {
                    points.iter().for_each(|point| out.failed(point, bad(point, &why)))
                }
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        point: &Point<Address>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let (Some(client), Some(write)) = (&self.client, &point.address.write) else {
            let why = if self.client.is_none() { NO_URL } else { "write: says how it is written" };
            return Err(bad(point, why));
        };
        let message = message(client, point, write, &value)?;
        let (consumed, answer) = client.write(message, permit).await?;
        answer.written(&write.expect)?;
        if let Some(readback) = read_back(point, write, &answer) {
            return Ok(consumed.read_back(readback));
        }
        let is_under_way = answer.status == hyper::StatusCode::ACCEPTED;
        Ok(if is_under_way { consumed.accepted() } else { consumed.applied() })
    }

    async fn subscribe(&mut self, points: &[&Point<Address>], sink: Sink) -> Result<(), Error> {
        let Some(webhook) = &self.webhook else {
            return Err(Error::Unsupported(
                "pushing without a webhook: give the property a collectCycle".to_owned(),
            ));
        };
        let listening = |point: &&Point<Address>| Listening {
            name: point.name.clone(),
            value_type: point.value_type,
            sought: point.address.sought(),
        };
        webhook.listen(Audience { points: points.iter().map(listening).collect(), sink }).await;
        Ok(())
    }

    async fn probe(&mut self) -> Result<(), Error> {
        match &mut self.client {
            Some(client) => client.probe().await,
            None => Ok(()),
        }
    }
}

const NO_URL: &str = "path: the device has no url, it only calls";

fn bad(point: &Point<Address>, why: impl ToString) -> Error {
    Error::BadAddress { point: point.name.clone(), why: why.to_string() }
}

async fn read_path(client: &mut Client, path: &str) -> Result<Body, ReadFault> {
    let uri = client.target().path(path).map_err(ReadFault::Address)?;
    let answer = client.get(&uri).await.map_err(ReadFault::Device)?;
    let body = answer.read()?;
    Body::parse(body).ok_or_else(|| ReadFault::Path(Error::Device(format!("{uri} is neither JSON nor text"))))
}

fn pick(point: &Point<Address>, body: &Body, out: &mut Samples) {
    match point.address.sought().pick(body, point.value_type) {
        Some(Ok(picked)) => out.push(point, picked.value, Quality::Good, picked.time),
        Some(Err(fault)) => out.failed(point, Error::Device(fault.to_string())),
        None => out.failed(point, Error::Device("the answer has nothing at this pointer".to_owned())),
    }
}

fn message(
    client: &Client,
    point: &Point<Address>,
    write: &config::Write,
    value: &Value,
) -> Result<Message, Error> {
    let words = point.address.words();
    let path = match &write.path {
        Some(path) => path.render_with(value, &words, |text| percent(&text)),
        None => point.address.path.clone().unwrap_or_default(),
    };
    let path = client.target().path(&path).map_err(|why| bad(point, format!("write.{why}")))?;
    let method = match write.method {
        config::Method::Put => Method::PUT,
        config::Method::Post => Method::POST,
        config::Method::Patch => Method::PATCH,
        config::Method::Get => Method::GET,
    };
    let body = match &write.body {
        Some(template) => Some(template.render(value, &words)),
        None if method == Method::GET => None,
        None => Some(json_of(value, &words).to_string()),
    };
    let content_type = write.content_type.clone().unwrap_or_else(|| "application/json".to_owned());
    Ok(Message { method, path, content_type, body })
}

/// What RFC 3986 §2.3 calls unreserved stays; a value cannot become a part of the path's structure.
fn percent(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}

/// What the device's answer to a write says that it now holds.
fn read_back(point: &Point<Address>, write: &config::Write, answer: &Answer) -> Option<Value> {
    let sought = Sought { pointer: Some(write.readback.clone()?), ..point.address.sought() };
    let picked = sought.pick(&Body::parse(&answer.body)?, point.value_type)?;
    picked.ok().map(|picked| picked.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_path_stays_a_value() {
        assert_eq!(percent("21.5"), "21.5");
        assert_eq!(percent("a/../b?x=1#y é"), "a%2F..%2Fb%3Fx%3D1%23y%20%C3%A9");
    }
}
