//! `kubebus join`: one request, one answer, straight-line talk.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bus::io::Clock;
use bus::{Channel, Class, Frame, JoinToken, Name, Route};
use bytes::Bytes;
use controller::io::{csr_for, new_key_and_csr};
use controller::join::{JoinReply, JoinRequest, RefusalCode};
use router::io::shard::{
    self, Command, Credentials, DialError, Event, Expect, Lane, ShardConfig, SpawnError,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use thiserror::Error;

use super::identity::{self, EdgeIdentity, IdentityError, Membership};
use super::upstream;

/// A handshake and one durable write at the cloud, over a slow link.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a node did not join.
#[derive(Debug, Error)]
pub enum JoinError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot find {host}")]
    Resolve {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    #[error("cannot open a UDP socket")]
    Socket(#[source] SpawnError),
    #[error("{address}: {why}")]
    Dial { address: SocketAddr, why: DialError },
    #[error("the cloud closed the connection: {0}")]
    Closed(String),
    #[error("no answer from {0} within {PATIENCE:?}: is its UDP port open?")]
    NoAnswer(SocketAddr),
    #[error("the cloud's answer makes no sense: is it a newer version?")]
    Answer,
    #[error("{message}")]
    Refused { code: RefusalCode, message: String },
}

/// What a node that joined knows.
#[derive(Debug)]
pub struct Joined {
    pub membership: Membership,
    /// How the overlay knows what lies behind it.
    pub lans: Vec<Route>,
}

/// Joins as `name` and stores the identity in `data_dir`.
pub async fn join(
    (host, port): (&str, u16),
    token: &JoinToken,
    name: &Name,
    data_dir: &Path,
) -> Result<Joined, JoinError> {
    identity::check_vacant(data_dir, name, Clock::start().now().wall)?;
    identity::create_data_dir(data_dir)?;
    let address = resolve(host, port).await?;
    // The key outlives a failed try: a cloud that took us in but whose answer was lost knows us by it.
    let (key, csr_der) = key_and_csr(data_dir)?;
    let request = JoinRequest { secret: token.secret().to_vec(), name: name.clone(), csr_der };
    let welcome = match ask(address, token, &request).await? {
        JoinReply::Welcome(welcome) => welcome,
        JoinReply::Refused { code, message } => return Err(JoinError::Refused { code, message }),
    };
    let endpoints = match welcome.endpoints {
        told if told.is_empty() => vec![upstream::format(&(host.to_owned(), port))],
        told => told,
    };
    let membership =
        Membership { cluster: welcome.cluster, name: name.clone(), cloud: welcome.cloud, endpoints };
    let stored = EdgeIdentity {
        membership: membership.clone(),
        certificate: welcome.certificate_der,
        key,
        ca: welcome.ca_der,
    };
    identity::save(data_dir, &stored)?;
    Ok(Joined { membership, lans: welcome.lans })
}

/// The node's key, made at the first call, and a request for a certificate of it.
pub fn key_and_csr(data_dir: &Path) -> Result<(Vec<u8>, Vec<u8>), JoinError> {
    if let Some(key) = identity::load_key(data_dir)? {
        let csr = csr_for(&PrivatePkcs8KeyDer::from(key.as_slice())).map_err(JoinError::Key)?;
        return Ok((key, csr));
    }
    let (key, csr) = new_key_and_csr().map_err(JoinError::Key)?;
    let key = key.secret_pkcs8_der().to_vec();
    identity::save_key(data_dir, &key)?;
    Ok((key, csr))
}

/// Looks a host up; the first address counts.
pub async fn resolve(host: &str, port: u16) -> Result<SocketAddr, JoinError> {
    let mut found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|source| JoinError::Resolve { host: host.to_owned(), source })?;
    found.next().ok_or_else(|| JoinError::NoAddress(host.to_owned()))
}

async fn ask(address: SocketAddr, token: &JoinToken, request: &JoinRequest) -> Result<JoinReply, JoinError> {
    let whom = (Expect::CaHash(token.ca), Lane::Join);
    let answer = exchange(address, None, whom, request.to_bytes()).await?;
    JoinReply::from_bytes(&answer).map_err(|_| JoinError::Answer)
}

/// One request and its answer, over a link of its own.
pub(super) async fn exchange(
    address: SocketAddr,
    credentials: Option<Credentials>,
    (expect, lane): (Expect, Lane),
    request: Vec<u8>,
) -> Result<Bytes, JoinError> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let Ok(listen) = any.parse() else { return Err(JoinError::Answer) };
    let (shard, mut events) =
        shard::spawn(ShardConfig::new(listen, credentials)).map_err(JoinError::Socket)?;
    let request = Bytes::from(request);
    let dial = Command::Dial { attempt: 0, address, expect, lane, in_reserve: false };
    let _ = shard.send(dial);
    let talk = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Up { link, .. } => {
                    let frame = Frame::new(Channel::Join, request.clone());
                    let _ = shard.send(Command::Send { link, class: Class::Control, frame });
                }
                Event::Failed { why, .. } => return Err(JoinError::Dial { address, why }),
                Event::Down { why, .. } => return Err(JoinError::Closed(why)),
                Event::Frame { frame, .. } => return Ok(frame.payload),
                Event::Moved { .. } | Event::Talk { .. } | Event::Report { .. } => {}
            }
        }
        Err(JoinError::Answer)
    };
    let answer = tokio::time::timeout(PATIENCE, talk).await.unwrap_or(Err(JoinError::NoAnswer(address)));
    let _ = shard.send(Command::Stop);
    answer
}
