//! A small cluster: a CA, nodes with certificates, and shards on the loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bus::bus::LinkId;
use bus::{Channel, Class, Frame, Identity, NodeId};
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use router::io::shard::{
    Command, Credentials, DialError, Event, Expect, Lane, ShardConfig, ShardHandle, Stats, spawn,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc::Receiver;

/// Longer than anything here takes on a busy machine; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn identity(text: &str) -> Identity {
    format!("spiffe://{text}").parse().unwrap()
}

pub(crate) fn frame(payload: impl Into<Bytes>) -> Frame {
    Frame::new(Channel::Bus, payload)
}

/// A certificate authority.
pub(crate) struct Ca {
    pub(crate) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Credentials of `cluster/kind/name`.
    pub(crate) fn issue(&self, name: &str) -> Credentials {
        self.issue_with_uris(name, &[&format!("spiffe://{name}")])
    }

    /// Credentials whose certificate says `uris`, whatever they claim to be.
    pub(crate) fn issue_with_uris(&self, name: &str, uris: &[&str]) -> Credentials {
        self.sign(name, uris, CertificateParams::default())
    }

    /// Credentials that were good in 2025.
    pub(crate) fn issue_expired(&self, name: &str) -> Credentials {
        self.issue_for_year(name, 2025)
    }

    /// Credentials that are good in this year only.
    pub(crate) fn issue_for_year(&self, name: &str, year: i32) -> Credentials {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(year, 1, 1), date_time_ymd(year, 12, 31));
        self.sign(name, &[&format!("spiffe://{name}")], params)
    }

    /// Credentials that are good until so many seconds from now, and were so for a year.
    pub(crate) fn issue_until(&self, name: &str, seconds: i64) -> Credentials {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let at = |seconds: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds as u64);
        let mut params = CertificateParams::default();
        params.not_after = at(now + seconds);
        params.not_before = at(now + seconds - 365 * 24 * 3600);
        self.sign(name, &[&format!("spiffe://{name}")], params)
    }

    fn sign(&self, name: &str, uris: &[&str], mut params: CertificateParams) -> Credentials {
        let key = KeyPair::generate().unwrap();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Credentials {
            chain: vec![certificate],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            ca: self.certificate.clone(),
            identity: identity(name),
        }
    }
}

/// A shard and what it has said so far that nobody asked for yet.
pub(crate) struct Node {
    pub(crate) shard: ShardHandle,
    pub(crate) events: Receiver<Event>,
    pub(crate) id: Option<Identity>,
    /// With whom the hosts behind it talked, as it said.
    pub(crate) talk: Vec<(NodeId, u64)>,
}

impl Node {
    pub(crate) fn start(config: ShardConfig) -> Self {
        let id = config.credentials.as_ref().map(|own| own.identity.clone());
        let (shard, events) = spawn(config).unwrap();
        Self { shard, events, id, talk: Vec::new() }
    }

    pub(crate) fn cloud(credentials: Credentials) -> Self {
        Self::start(ShardConfig { accept: true, ..ShardConfig::new(loopback(), Some(credentials)) })
    }

    pub(crate) fn edge(credentials: Credentials) -> Self {
        Self::start(ShardConfig::new(loopback(), Some(credentials)))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shard.local_addr()
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id.clone().unwrap().node
    }

    pub(crate) fn send(&self, link: LinkId, class: Class, frame: Frame) {
        self.shard.send(Command::Send { link, class, frame }).unwrap();
    }

    pub(crate) fn dial(&self, attempt: u64, address: SocketAddr, expect: Expect, lane: Lane) {
        self.shard.send(Command::Dial { attempt, address, expect, lane, in_reserve: false }).unwrap();
    }

    /// Lets the packets of a link in.
    pub(crate) fn admit(&self, link: LinkId) {
        self.shard.send(Command::Admit { link }).unwrap();
    }

    /// The next event but talk, within [`PATIENCE`].
    pub(crate) fn next(&mut self) -> Event {
        let patience = Instant::now() + PATIENCE;
        loop {
            match self.events.try_recv() {
                Ok(Event::Talk { peers }) => self.talk.extend(peers),
                Ok(event) => return event,
                Err(error) => assert!(Instant::now() < patience, "no event: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The counters, once `done` likes them: they are copied out at the end of a turn, events leave in its middle.
    pub(crate) fn wait_for(&self, done: impl Fn(&Stats) -> bool) {
        let patience = Instant::now() + PATIENCE;
        while !done(&self.shard.stats()) {
            assert!(Instant::now() < patience, "{:?}", self.shard.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn next_frame(&mut self) -> Frame {
        let event = self.next();
        let Event::Frame { frame, .. } = event else { panic!("{event:?}") };
        frame
    }

    pub(crate) fn next_down(&mut self) -> String {
        let event = self.next();
        let Event::Down { why, .. } = event else { panic!("{event:?}") };
        why
    }

    /// Dials and waits for the refusal.
    pub(crate) fn fail(&mut self, address: SocketAddr, expect: Expect, lane: Lane) -> DialError {
        self.dial(99, address, expect, lane);
        let event = self.next();
        let Event::Failed { attempt: 99, why } = event else { panic!("{event:?}") };
        why
    }
}

/// Dials and waits for both ends: (the dialler's link, the other's).
pub(crate) fn connect(from: &mut Node, to: &mut Node, lane: Lane) -> (LinkId, LinkId) {
    let expect = Expect::Node(to.id.clone().unwrap());
    from.dial(7, to.address(), expect, lane);
    (up(from, Some(7), Some(to.id()), lane), up(to, None, Some(from.id()), lane))
}

/// Waits for a link of exactly this kind.
pub(crate) fn up(node: &mut Node, attempt: Option<u64>, peer: Option<NodeId>, lane: Lane) -> LinkId {
    let event = node.next();
    let Event::Up { link, attempt: by, peer: named, lane: on, .. } = &event else { panic!("{event:?}") };
    let named = named.as_ref().map(|(node, _)| node.clone());
    assert_eq!((*by, named, *on), (attempt, peer, lane), "{event:?}");
    if attempt.is_none() && lane == Lane::Packets {
        node.admit(*link);
    }
    *link
}
