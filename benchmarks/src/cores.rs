//! The metadata service's two cores in one thread, without sockets and disks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use bus::frame::{Channel, Frame};
use bus::{Mono, Name, Now, UnixMillis};
use bytes::{Bytes, BytesMut};
use metadata::{Feed, FeedOutput, Key, Keyspace, Replica, ReplicaOutput};

/// Nothing here waits for time.
const NOW: Now = Now { mono: Mono(1), wall: UnixMillis(1_700_000_000_000) };

#[derive(Debug)]
struct Edge {
    name: Name,
    keyspace: Keyspace,
    replica: Replica,
}

/// A cloud and its edges, all in step.
#[derive(Debug)]
pub(crate) struct Cores {
    keyspace: Keyspace,
    feed: Feed,
    edges: Vec<Edge>,
    numbers: BTreeMap<Name, usize>,
    /// Edges that may have something to say.
    awake: BTreeSet<usize>,
    /// What the cloud handed to its streams.
    pub(crate) sent: u64,
}

pub(crate) fn edge_name(number: usize) -> String {
    format!("edge-{number:04}")
}

impl Cores {
    pub(crate) fn start(edges: usize) -> Result<Self> {
        let mut keyspace = Keyspace::new();
        let feed = Feed::load(&mut keyspace, 7);
        let mut cores = Self {
            keyspace,
            feed,
            edges: Vec::new(),
            numbers: BTreeMap::new(),
            awake: BTreeSet::new(),
            sent: 0,
        };
        for number in 0..edges {
            let name = Name::new(&edge_name(number)).context("an edge's name")?;
            let mut keyspace = Keyspace::new();
            let replica = Replica::load(&mut keyspace, number as u64 + 1);
            cores.numbers.insert(name.clone(), number);
            cores.edges.push(Edge { name, keyspace, replica });
            cores.connect(number);
        }
        cores.run()?;
        Ok(cores)
    }

    fn connect(&mut self, number: usize) {
        let edge = &mut self.edges[number];
        self.feed.handle_edge_up(&edge.name, NOW);
        edge.replica.handle_link_up(&edge.keyspace, NOW);
        self.awake.insert(number);
    }

    pub(crate) fn put(&mut self, key: &str, value: Bytes) -> Result<()> {
        self.keyspace.put(Key::new(key).context("a key")?, value);
        Ok(())
    }

    /// Ends the cloud's cycle and passes on what is said until all are silent.
    pub(crate) fn run(&mut self) -> Result<()> {
        loop {
            if self.keyspace.seal().is_some() {
                self.feed.handle_commit(&self.keyspace, NOW);
            }
            if self.feed.poll_timeout().is_some_and(|(at, _)| at <= NOW.mono) {
                self.feed.handle_timeout(&self.keyspace, NOW);
            }
            let down = self.tell_edges()?;
            if !self.tell_cloud()? && !down {
                return Ok(());
            }
        }
    }

    fn tell_edges(&mut self) -> Result<bool> {
        let mut said = false;
        while let Some(output) = self.feed.poll_output() {
            said = true;
            match output {
                FeedOutput::Send { edge, payload, .. } => {
                    self.sent += frame_len(&payload);
                    let number = *self.numbers.get(&edge).context("an edge that nobody knows")?;
                    let Edge { keyspace, replica, .. } = &mut self.edges[number];
                    replica.handle_frame(&payload, keyspace, NOW);
                    keyspace.seal();
                    self.awake.insert(number);
                }
                FeedOutput::NewIncarnation { .. } => {}
                other => bail!("the cloud says {other:?}"),
            }
        }
        Ok(said)
    }

    fn tell_cloud(&mut self) -> Result<bool> {
        let mut said = false;
        for number in std::mem::take(&mut self.awake) {
            let Edge { name, replica, .. } = &mut self.edges[number];
            while let Some(output) = replica.poll_output() {
                said = true;
                if let ReplicaOutput::Send { payload, .. } = output {
                    self.feed.handle_frame(name, &payload, &mut self.keyspace, NOW);
                }
            }
        }
        Ok(said)
    }

    /// Whether every edge holds this under the names that it is told.
    pub(crate) fn all_hold(&self, name: &str, value: &Bytes) -> bool {
        self.edges.iter().all(|edge| edge.keyspace.get(&format!("/m/{name}")) == Some(value))
    }
}

/// Bytes of a frame on its stream.
fn frame_len(payload: &Bytes) -> u64 {
    let mut out = BytesMut::new();
    Frame::new(Channel::Metadata, payload.clone()).encode(&mut out);
    out.len() as u64
}
