//! Starting a node: `kubebus cloud` and `kubebus edge`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bus::io::Clock;
use bus::{Identity, Name, NodeId, NodeKind};
use bytes::Bytes;
use controller::api::index::Moved;
use controller::io::CertificateAuthority;
use controller::token::MAX_LANS;
use controller::{CloudSubnets, Cluster, Lan, Plan};
use device_twin::gate::row::ROOT;
use device_twin::io::dmi::{DmiEvent, DmiHandle};
use device_twin::io::recorder::{Limits, Recorder};
use device_twin::io::{BrokerConfig, external, start as start_broker};
use ipnet::IpNet;
use metadata::io::RedbStore;
use metadata::{Key, Keyspace, Store, StoreError};
use router::io::device::Overlay;
use router::io::shard::{self, Credentials, Event, Replica, ShardConfig, ShardHandle};
use router::queue::LinkRate;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::admin;
use super::api::{Asked, Desk, Keeper, Shared};
use super::cloud_store::{Begun, Granted};
use super::damage::{self, DamageError};
use super::debug::examiner::Examiner;
use super::driver::{Driver, State};
use super::otlp::Telemetry;
use super::renew::{Own, Papers, check_validity};
use super::session::{Doorkeeper, UsersSender};
use super::shutdown::Shutdown;
use super::store::StoreThread;
use super::upstream::{Upstream, parse_endpoints};
use super::wireguard::Wireguard;
use super::{audit, dns, https, identity, join, mqtt};
use crate::cloud::{Cloud, CloudSettings};
use crate::config::{self, CloudStore, Config, DmiSocket, EtcdPlace};
use crate::edge::{Edge, EdgeSettings};
use crate::renewal::News;
use crate::seam::{Input, Node};

/// Page cache of the store. An edge's whole state is in memory anyway: the cache only saves reads of inner pages
/// while committing.
const EDGE_CACHE: usize = 2 << 20;
pub(super) const CLOUD_CACHE: usize = 32 << 20;

/// Questions of the admin socket on their way to the owner loop; further ones wait.
const QUESTIONS: usize = 16;

/// News of the store thread, which waits while the owner loop is busy.
const STORE_EVENTS: usize = 64;

/// Runs the cloud until it is told to stop.
pub async fn run_cloud(config: &Config, data_dir: &Path) -> Result<()> {
    let mut shutdown = Shutdown::listen().context("listen for signals")?;
    identity::create_data_dir(data_dir)?;
    if let Err(why) = parse_endpoints(&config.cloud.endpoints) {
        bail!("cloud.endpoints: {why}");
    }
    check_validity(config.cloud.certificate_validity)?;
    let clock = Clock::start();
    let me =
        Identity { cluster: config.cloud.cluster.clone(), node: NodeId::cloud(config.cloud.name.clone()) };
    identity::claim_for_cloud(data_dir, &me)?;
    let telemetry = Telemetry::start(&config.telemetry, &me.node)?;
    let start = CloudStart { config, data_dir, me: &me, clock };
    let Some(mut granted) = Granted::wait(&start, &mut shutdown).await? else {
        telemetry.finish().await;
        return Ok(());
    };
    let (begun, term) = (granted.begun(), granted.term());
    // The store first: it keeps two processes out of one directory. What makes this cloud that cloud is shared with it.
    let (Begun { equipment, lanes, inputs }, (store, keyspace)) = match begun {
        Some(begun) => (begun, granted.open(data_dir).await?),
        None => {
            let proof = prove(&start)?;
            let opened = granted.open(data_dir).await?;
            (Begun::new(equip(&start, proof)?), opened)
        }
    };
    let Equipment { proof: Proof { authority, papers }, overlay, sockets } = equipment;
    let plan = Plan::new(config.overlay.pool, &me.cluster, &authority.hash()).context("overlay.pool")?;
    let settings = CloudSettings {
        cluster: Cluster {
            name: me.cluster.clone(),
            cloud: config.cloud.name.clone(),
            ca_der: authority.ca_der().to_vec(),
            endpoints: config.cloud.endpoints.clone(),
            plan,
        },
        subnets: CloudSubnets {
            vms: config.cloud.vm_subnets.clone(),
            containers: config.cloud.container_subnets.clone(),
        },
        ca: authority.hash(),
        seed: seed()?,
        term,
    };
    let validity = config.cloud.certificate_validity;
    let sign =
        move |csr: &[u8], identity: &Identity| authority.issue(csr, identity, clock.now().wall, validity);
    let kept = kept_for_broker(&keyspace);
    let cloud = Cloud::new(settings, Box::new(sign), keyspace, clock.now())
        .context("the address plan does not fit what was given out")?;
    let parts = Parts {
        me: me.node,
        node: Node::Cloud(Box::new(cloud)),
        upstream: None,
        papers,
        sockets,
        store,
        overlay,
        clock,
        kept,
        dmi: None,
        telemetry,
        state: State::with_lanes(lanes),
        inputs,
    };
    info!(cluster = %me.cluster, listen = %config.cloud.listen, "cloud starts");
    // Nobody makes a cloud check.
    play(parts, Examiner::new(None, data_dir, config), config, data_dir, shutdown).await
}

/// What a cloud is started with.
pub(super) struct CloudStart<'a> {
    pub(super) config: &'a Config,
    pub(super) data_dir: &'a Path,
    pub(super) me: &'a Identity,
    pub(super) clock: Clock,
}

/// By what a cloud is known, and knows others.
pub(super) struct Proof {
    pub(super) authority: Arc<CertificateAuthority>,
    pub(super) papers: Papers,
}

/// Makes the authority and the cloud's key if there are none.
pub(super) fn prove(start: &CloudStart<'_>) -> Result<Proof> {
    let CloudStart { data_dir, me, clock, .. } = start;
    let now = clock.now().wall;
    let authority = CertificateAuthority::open_or_create(&data_dir.join("ca"), &me.cluster, now)
        .context("the cluster's certificate authority")?;
    // The key stays the same from start to start: edges know by it that a cloud which lost their links is theirs.
    let (key, csr) = join::key_and_csr(data_dir).context("the cloud's key")?;
    let (hosts, validity) = (api_hosts(start.config), start.config.cloud.certificate_validity);
    let authority = Arc::new(authority);
    let own = Own { authority: Arc::clone(&authority), csr, hosts, validity };
    let credentials = Credentials {
        chain: vec![CertificateDer::from(own.sign(me, now).context("the cloud's certificate")?)],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)),
        ca: authority.ca_der().clone(),
        identity: (*me).clone(),
    };
    let papers = Papers::of_cloud(credentials, own).context("the cloud's certificate")?;
    Ok(Proof { authority, papers })
}

/// By what hosts the cloud's API is asked, as far as the configuration tells.
fn api_hosts(config: &Config) -> Vec<String> {
    let dialled = parse_endpoints(&config.cloud.endpoints).unwrap_or_default();
    let listened = config.api.listen.iter().map(|address| address.ip());
    let listened = listened.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let here = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    dialled.into_iter().map(|(host, _)| host).chain(listened).chain(here).collect()
}

/// What a cloud has besides its store.
pub(super) struct Equipment {
    pub(super) proof: Proof,
    pub(super) overlay: Option<Overlay>,
    pub(super) sockets: Sockets,
}

pub(super) fn equip(start: &CloudStart<'_>, proof: Proof) -> Result<Equipment> {
    let config = start.config;
    let overlay = open_overlay(config)?;
    let shard = ShardConfig {
        accept: true,
        replica: replica_of(&config.cloud.store)?,
        tun: overlay.as_ref().map(Overlay::tun).transpose().context("share the TUN")?,
        ..shard_config(config, config.cloud.listen, proof.papers.credentials().clone())
    };
    Ok(Equipment { proof, overlay, sockets: Sockets::Closed(Box::new(shard)) })
}

/// A replica that waits has opened them before it is a cloud.
pub(super) enum Sockets {
    Closed(Box<ShardConfig>),
    #[cfg_attr(not(feature = "etcd"), expect(dead_code, reason = "nobody else waits"))]
    Open(Box<Open>),
}

impl Sockets {
    pub(super) fn open(self, data_dir: &Path, me: NodeKind) -> Result<Open> {
        match self {
            Self::Open(open) => Ok(*open),
            Self::Closed(shard) => {
                let (shard, shard_events) = shard::spawn(*shard).context("the QUIC endpoint")?;
                Ok(Open { shard, shard_events, console: Console::open(data_dir, me)? })
            }
        }
    }
}

/// Where links and people's questions come in.
pub(super) struct Open {
    pub(super) shard: ShardHandle,
    pub(super) shard_events: mpsc::Receiver<Event>,
    pub(super) console: Console,
}

/// Quicker than this, a replica would be taken over from because of one lost packet.
const SHORTEST_SILENCE: Duration = Duration::from_millis(200);

fn replica_of(store: &CloudStore) -> Result<Option<Replica>> {
    let CloudStore::Etcd(EtcdPlace { takeover_after: silence, .. }) = *store else { return Ok(None) };
    if !silence.is_zero() && silence < SHORTEST_SILENCE {
        bail!("cloud.store.etcd.takeover-after: write 0s, or {SHORTEST_SILENCE:?} at least");
    }
    Ok(Some(Replica { silence }))
}

/// Where people ask, and what is written down for them.
pub(super) struct Console {
    pub(super) asked: mpsc::Receiver<Asked>,
    desk: Desk,
    users: UsersSender,
    moved: watch::Sender<Moved>,
    tasks: JoinSet<()>,
    pub(super) recorder: Recorder,
}

impl Console {
    fn open(data_dir: &Path, me: NodeKind) -> Result<Self> {
        let (ask, asked) = mpsc::channel(QUESTIONS);
        let socket = data_dir.join(admin::SOCKET);
        let listener =
            admin::bind(&socket).with_context(|| format!("the admin socket {}", socket.display()))?;
        let mut tasks = JoinSet::new();
        let recorder = Recorder::start(&data_dir.join(RECORDS), Limits::default()).context("the recorder")?;
        let clock = Clock::start();
        let (doorkeeper, users) = Doorkeeper::new(clock);
        let audit = audit::start(&data_dir.join(AUDIT), clock).context("the audit log")?;
        let (moved, watched) = watch::channel(Moved::default());
        let recording = recorder.handle().clone();
        let history = if me == NodeKind::Cloud { Keeper::Edges } else { Keeper::Recorder };
        let desk = Desk {
            ask,
            data_dir: data_dir.into(),
            recorder: recording,
            history,
            doorkeeper,
            moved: watched,
            audit,
            shared: Shared::default(),
        };
        tasks.spawn(admin::serve(listener, desk.clone()));
        Ok(Self { asked, desk, users, moved, tasks, recorder })
    }
}

/// Runs the edge that joined into `data_dir`. If its store is damaged or gone, `renew` lets it start with a new one.
pub(super) async fn run_edge(
    config: &Config,
    data_dir: &Path,
    renew: bool,
    examiner: Examiner,
) -> Result<()> {
    let shutdown = Shutdown::listen().context("listen for signals")?;
    let clock = Clock::start();
    let stored = identity::load(data_dir)?;
    let me = stored.identity();
    let telemetry = Telemetry::start(&config.telemetry, &me.node)?;
    let membership = stored.membership.clone();
    let endpoints = match parse_endpoints(&membership.endpoints) {
        Ok(endpoints) if !endpoints.is_empty() => endpoints,
        Ok(_) => bail!("{} names no endpoint of the cloud: join again", data_dir.display()),
        Err(why) => bail!("{}: {why}", data_dir.display()),
    };
    let papers = Papers::of_edge(stored, data_dir).context("this edge's certificate")?;
    let (store, keyspace) = open_edge_store(data_dir, renew || config.edge.renew_damaged_store)?;
    let overlay = open_overlay(config)?;
    let shard = ShardConfig {
        tun: overlay.as_ref().map(Overlay::tun).transpose().context("share the TUN")?,
        neighbours: config.link.direct,
        limits: shard::Limits::NEIGHBOURS,
        ..shard_config(config, any_like(&endpoints), papers.credentials().clone())
    };
    let cloud = Identity { cluster: me.cluster.clone(), node: NodeId::cloud(membership.cloud) };
    let settings = EdgeSettings {
        identity: me.clone(),
        cloud: cloud.node.clone(),
        seed: seed()?,
        direct: config.link.direct,
        lans: named_lans(&config.edge.lans).context("edge.lans")?,
        standby: config.link.standby,
        damaged_stores: damage::set_aside_before(data_dir),
    };
    let kept = kept_for_broker(&keyspace);
    let mut edge = Edge::new(settings, keyspace, clock.now());
    let dmi = serve_dmi(config, &mut edge, clock)?;
    let upstream = Some(Upstream::new(cloud, endpoints));
    let node = Node::Edge(Box::new(edge));
    let parts = Parts {
        me: me.node.clone(),
        node,
        upstream,
        papers,
        sockets: Sockets::Closed(Box::new(shard)),
        store,
        overlay,
        clock,
        kept,
        dmi,
        telemetry,
        state: State::default(),
        inputs: Vec::new(),
    };
    info!(identity = %me, "edge starts");
    play(parts, examiner, config, data_dir, shutdown).await
}

/// The networks that the configuration names.
fn named_lans(nets: &[IpNet]) -> Result<Vec<Lan>> {
    if nets.len() > MAX_LANS {
        bail!("an edge names at most {MAX_LANS} LANs: name a wider prefix for several");
    }
    Ok(nets.iter().map(|net| Lan::new(*net)).collect::<Result<_, _>>()?)
}

/// Where history, audit and the rules' log are, in the data directory.
const RECORDS: &str = "records";

/// Where it is written down who changed what, in the data directory.
const AUDIT: &str = "audit";

/// What the last process's broker had kept.
fn kept_for_broker(keyspace: &Keyspace) -> Vec<(Key, Bytes)> {
    keyspace.range(ROOT).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What the two kinds of node differ in.
struct Parts {
    me: NodeId,
    node: Node,
    upstream: Option<Upstream>,
    papers: Papers,
    sockets: Sockets,
    store: Box<dyn Store + Send>,
    overlay: Option<Overlay>,
    clock: Clock,
    /// What the broker had kept.
    kept: Vec<(Key, Bytes)>,
    dmi: Option<DmiParts>,
    telemetry: Telemetry,
    state: State,
    /// What happened before the node was there.
    inputs: Vec<Input>,
}

/// Where KubeEdge's mappers are served.
type DmiParts = (DmiHandle, mpsc::Receiver<DmiEvent>);

fn serve_dmi(config: &Config, edge: &mut Edge, clock: Clock) -> Result<Option<DmiParts>> {
    let DmiSocket::At(path) = &config.kubeedge.dmi_socket else { return Ok(None) };
    let parts = device_twin::io::dmi::start(path, clock).context("kubeedge.dmi-socket")?;
    edge.serve_dmi(clock.now());
    info!(socket = %path.display(), "KubeEdge's mappers are served");
    Ok(Some(parts))
}

async fn play(
    parts: Parts,
    examiner: Examiner,
    config: &Config,
    data_dir: &Path,
    shutdown: Shutdown,
) -> Result<()> {
    let Parts { me, node, upstream, papers, sockets, store, overlay, clock, kept, dmi, .. } = parts;
    let Parts { telemetry, state, mut inputs, .. } = parts;
    let (client_keys, register) = watch::channel(Arc::default());
    let external = mqtt::external(&config.mqtt, &me.name, seed()?).context("the site's MQTT broker")?;
    let (broker, broker_events) = match external {
        Some(external) => external::start(external),
        None => {
            let broker = mqtt::broker(&config.mqtt, papers.served()).context("the MQTT broker")?;
            let broker = BrokerConfig { kept, ..broker }.with_register(&register);
            start_broker(broker).await.context("the MQTT broker (mqtt.listen)")?
        }
    };
    let (told, store_events) = mpsc::channel(STORE_EVENTS);
    let store = StoreThread::start(store, told).context("the store thread")?;
    let Open { shard, shard_events, console } = sockets.open(data_dir, me.kind)?;
    // Its tasks end with it.
    let Console { asked, desk, users, moved, mut tasks, recorder } = console;
    telemetry.send_metrics(&desk, &mut tasks);
    let doorkeeper = desk.doorkeeper.clone();
    let listens = https::start(&config.api, papers.served(), desk, &mut tasks).await.context("the API")?;
    doorkeeper.set_listens(listens);
    let dns = dns::start(&config.dns, &mut tasks);
    let wireguard = Wireguard::start(&config.wireguard, data_dir, overlay.as_ref().map(Overlay::name))?;
    inputs.push(Input::Certificate(News::Shown(papers.certificate())));
    let driver = Driver {
        node,
        me,
        papers,
        upstream,
        shard,
        shard_events,
        broker,
        broker_events,
        dmi,
        store,
        store_events,
        admin: asked,
        moved,
        overlay,
        dns,
        wireguard,
        examiner,
        recorder,
        users,
        client_keys,
        clock,
        state,
    };
    let ran = driver.run(inputs, shutdown).await;
    telemetry.finish().await;
    ran?;
    Ok(())
}

/// A store and all that is in it.
type Opened = (Box<dyn Store + Send>, Keyspace);

pub(super) fn open_store(data_dir: &Path, cache: usize) -> Result<Opened, StoreError> {
    let path: PathBuf = data_dir.join(damage::STORE);
    if !path.exists() {
        info!(path = %path.display(), "there is no store yet: a new one is made");
    }
    let mut store = RedbStore::open(&path, cache)?;
    let rows = store.load()?;
    // A disk that has no room for it is no reason not to start.
    if let Err(error) = damage::mark(data_dir) {
        warn!(%error, "cannot note that the store is there: should it go missing, a start makes a new one");
    }
    Ok((Box::new(store), Keyspace::load(rows)))
}

/// A new store has no incarnation yet, so the cloud knows it by a new one and sends everything.
fn open_edge_store(data_dir: &Path, renew: bool) -> Result<Opened> {
    if damage::is_gone(data_dir) {
        return make_edge_store(data_dir, renew);
    }
    let error = match open_store(data_dir, EDGE_CACHE) {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    if !renew || !damage::is_damage(&error) {
        return Err(DamageError::of_edge(error).into());
    }
    let kept = damage::set_aside(data_dir)?;
    warn!(
        why = %error, kept = %kept.display(),
        "the store was damaged, and a new one is made: what waited to go up, except for samples, and what rules had \
         latched is lost; twins and metadata come from the cloud again"
    );
    Ok(open_store(data_dir, EDGE_CACHE)?)
}

/// In the place of one that is gone.
fn make_edge_store(data_dir: &Path, renew: bool) -> Result<Opened> {
    if !renew {
        return Err(DamageError::of_edge_without(data_dir).into());
    }
    warn!(
        "the store was gone, and a new one is made: what waited to go up, except for samples, and what rules had \
         latched is lost; twins and metadata come from the cloud again"
    );
    Ok(open_store(data_dir, EDGE_CACHE)?)
}

fn open_overlay(config: &Config) -> Result<Option<Overlay>> {
    if !config.overlay.enabled {
        warn!("overlay.enabled is false: twins and messages only, no packets");
        return Ok(None);
    }
    let opened = Overlay::open(&config.overlay.interface);
    let overlay = opened.context("the overlay interface (overlay.enabled: false runs without it)")?;
    router::io::sysctl::enable_forwarding()
        .context("forward packets between the overlay and this node's networks")?;
    Ok(Some(overlay))
}

fn shard_config(config: &Config, listen: SocketAddr, credentials: Credentials) -> ShardConfig {
    ShardConfig {
        keepalive: config.link.keepalive,
        idle: config.link.idle,
        rate: config.link.rate.map_or(LinkRate::Measured, LinkRate::Configured),
        congestion: match config.link.congestion {
            config::Congestion::None => shard::Congestion::None,
            config::Congestion::Cubic => shard::Congestion::Cubic,
        },
        ..ShardConfig::new(listen, Some(credentials))
    }
}

/// Any port of the family that the endpoints are written in; names are looked up as IPv4.
fn any_like(endpoints: &[(String, u16)]) -> SocketAddr {
    let is_v6 = endpoints.iter().all(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
    let any = if is_v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(any, 0)
}

pub(super) fn seed() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("the system's randomness")?;
    Ok(u64::from_le_bytes(bytes))
}

/// This machine's name as a node's name, as far as it can be one.
pub fn host_name() -> Option<Name> {
    let full = rustix::system::uname().nodename().to_str().ok()?.to_ascii_lowercase();
    Name::new(full.split('.').next()?).ok()
}
