//! The mapper for OPC UA servers (OPC 10000).
//!
//! | connection | property address | pushes |
//! |---|---|---|
//! | `{"url": "opc.tcp://10.0.0.9:4840", "security": "sign-and-encrypt", "trust": "sha256:.."}` | `{"nodeID": "ns=2;s=Line1.Pressure"}` | properties without a period |
//!
//! A batch is one Read call, a property without a period one monitored item, a write one Write call in the type that the node
//! has. The connection is opened once: whatever ends it is told to the SDK, which opens the next one. The library is never
//! let to connect again or to repeat a request by itself.
//!
//! `link` is the connection, `endpoint` how it is chosen, `trust` and `identity` whose certificate counts, `read`,
//! `write`, `push` and `browse` the four services, `value` and `status` the two vocabularies. docs/mappers/opcua.md is for
//! people who use it.

mod address;
mod browse;
mod config;
mod endpoint;
mod identity;
mod link;
mod push;
mod read;
mod status;
mod trust;
mod value;
mod write;

use std::collections::HashSet;

use kubebus_sdk::{
    Batch, Context, Error, Found, Manifest, Mapper, Point, Samples, Session, Sink, Value, WriteOutcome,
    WritePermit,
};
use opcua::types::{NodeId, ReadValueId};

pub use address::{Address, InvalidNode, Node};
pub use config::{Config, Policy, Secret, Security};
pub use trust::Fingerprint;

use config::Settings;
use link::Link;
use push::Pushing;
use read::Server;
use write::Types;

/// See the crate's page.
#[derive(Debug)]
pub struct OpcUaMapper;

/// A session with one server.
pub struct OpcUaSession {
    link: Link,
    server: Server,
    types: Types,
    /// Nodes that have had a value in this session.
    known: HashSet<NodeId>,
    pushing: Option<Pushing>,
}

impl std::fmt::Debug for OpcUaSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpcUaSession").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Mapper for OpcUaMapper {
    type Config = Config;
    type Address = Address;
    type Session = OpcUaSession;

    fn manifest() -> Manifest {
        Manifest::new("opcua", env!("CARGO_PKG_VERSION")).about("OPC UA servers").pushes().discovers()
    }

    async fn open(config: &Config, _: &Context<OpcUaSession>) -> Result<OpcUaSession, Error> {
        OpcUaSession::open(config).await
    }

    async fn discover(config: &Config) -> Result<Vec<Found>, Error> {
        let session = OpcUaSession::open(config).await?;
        let found = browse::device(&session.link, &session.server, config).await;
        session.close().await;
        found.map(|device| vec![device])
    }
}

impl OpcUaSession {
    async fn open(config: &Config) -> Result<Self, Error> {
        let link = Link::open(&Settings::of(config)?).await?;
        let server = Server::ask(&link).await?;
        Ok(Self { link, server, types: Types::default(), known: HashSet::new(), pushing: None })
    }

    fn node(&self, point: &Point<Address>) -> Result<NodeId, Error> {
        let node = &point.address.node;
        node.on(&self.server.namespaces).ok_or_else(|| Error::BadAddress {
            point: point.name.clone(),
            why: format!("the server has no namespace {}", node.namespace_uri()),
        })
    }
}

impl Session for OpcUaSession {
    type Address = Address;
    type Bus = ();

    async fn read(&mut self, batch: &Batch<'_, Address>, out: &mut Samples) -> Result<(), Error> {
        let mut nodes = Vec::with_capacity(batch.len());
        for point in batch {
            match self.node(point) {
                Ok(node) => nodes.push((*point, node)),
                Err(error) => out.failed(point, error),
            }
        }
        for portion in nodes.chunks(self.server.nodes_per_read) {
            let wanted = portion.iter().map(|(_, node)| ReadValueId::new_value(node.clone())).collect();
            let values = read::read(&self.link, wanted).await?;
            for ((point, node), value) in portion.iter().zip(values) {
                match value::reading(point, &node.to_string(), &value, self.known.contains(node)) {
                    Ok((value, quality, time)) => {
                        self.known.insert(node.clone());
                        out.push(point, value, quality, time);
                    }
                    Err(error) => out.failed(point, error),
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
        let node = self.node(point)?;
        write::write(&self.link, &mut self.types, &node, &value, permit).await
    }

    /// The new subscription before the old one's end, so that the server is never without.
    async fn subscribe(&mut self, points: &[&Point<Address>], sink: Sink) -> Result<(), Error> {
        let before = self.pushing.take();
        if !points.is_empty() {
            let (mut nodes, mut refused) = (Vec::with_capacity(points.len()), Vec::new());
            for point in points {
                match self.node(point) {
                    Ok(node) => nodes.push((Point::clone(point), node)),
                    Err(error) => refused.push((point.name.clone(), error)),
                }
            }
            let per_call = self.server.items_per_call;
            self.pushing = Some(Pushing::begin(&self.link, nodes, refused, per_call, sink).await?);
        }
        match before {
            Some(before) => before.end(&self.link).await,
            None => Ok(()),
        }
    }

    async fn probe(&mut self) -> Result<(), Error> {
        Server::ask(&self.link).await.map(drop)
    }

    async fn close(self) {
        if self.link.is_up()
            && let Err(error) = self.link.session.disconnect().await
        {
            tracing::debug!(%error, "the goodbye was not heard");
        }
    }
}
