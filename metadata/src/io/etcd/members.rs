//! Asking etcd: one member at a time, the next one when it fails.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, Identity, KvClient, LeaseClient, TlsOptions, Txn, TxnResponse,
};
use tokio::time::{Instant, sleep, timeout};

use super::EtcdConfig;
use crate::store::StoreError;

/// How long all members together may take before the store says that it cannot: longer than etcd takes to elect
/// another leader, about 2 s, so that this is not even noticed.
const PATIENCE: Duration = Duration::from_secs(8);

/// Before the next member is asked, so that members which refuse at once are not asked without pause.
const PAUSE: Duration = Duration::from_millis(100);

/// A member that does not take a connection within this is passed over.
const CONNECT: Duration = Duration::from_secs(1);

/// A silent connection is tested this often (etcd allows every 5 s) and given up after the next as long.
const PROBE: Duration = Duration::from_secs(10);

/// Bound of an answer: a page of rows with each the largest value there can be.
const MAX_ANSWER: usize = super::PAGE * (2 << 20);

/// A connection to one member, made at its first use and again when it breaks.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) kv: KvClient,
    pub(super) lease: LeaseClient,
}

/// All members that the configuration names.
#[derive(Clone)]
pub(super) struct Members {
    /// For people.
    pub(super) names: Arc<str>,
    members: Arc<[Member]>,
    /// The one that answered last.
    at: usize,
    /// How long one of them may take.
    patience: Duration,
}

impl Members {
    /// Connects to nothing yet. Needs tokio's context.
    pub(super) async fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let names: Arc<str> = config.endpoints.join(", ").into();
        let bad = |source| StoreError::Refused {
            place: format!("etcd at {}", config.endpoints.join(", ")),
            doing: "connect to",
            advice: "check the endpoints and certificates of cloud.store in the configuration",
            source: Box::new(source),
        };
        if config.endpoints.is_empty() {
            return Err(bad(Error::InvalidArgs("no endpoint is given".into())));
        }
        let mut members = Vec::new();
        for endpoint in &config.endpoints {
            let client = Client::connect([endpoint], Some(options(config))).await.map_err(bad)?;
            let kv = client.kv_client().max_decoding_message_size(MAX_ANSWER);
            members.push(Member { kv, lease: client.lease_client() });
        }
        Ok(Self { names, members: members.into(), at: 0, patience: Duration::from_secs(3) })
    }

    /// The same members, asked with another patience.
    pub(super) fn patient(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// Asks until somebody answers. What is asked may so be done more than once.
    pub(super) async fn ask<T, R>(
        &mut self,
        doing: &'static str,
        request: impl Fn(Member) -> R,
    ) -> Result<T, StoreError>
    where
        R: Future<Output = Result<T, Error>>,
    {
        let end = Instant::now() + PATIENCE;
        loop {
            let why = match timeout(self.patience, request(self.members[self.at].clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(why)) => why,
                Err(_) => Error::Internal(format!("no answer within {} s", self.patience.as_secs())),
            };
            if let Some(advice) = advice(&why) {
                let place = format!("etcd at {}", self.names);
                return Err(StoreError::Refused { place, doing, advice, source: Box::new(why) });
            }
            self.at = (self.at + 1) % self.members.len();
            if Instant::now() >= end {
                return Err(StoreError::Unreachable {
                    place: format!("etcd at {}", self.names),
                    doing,
                    source: Box::new(why),
                });
            }
            sleep(PAUSE).await;
        }
    }

    pub(super) async fn txn(&mut self, doing: &'static str, txn: Txn) -> Result<TxnResponse, StoreError> {
        self.ask(doing, |mut member| {
            let txn = txn.clone();
            async move { member.kv.txn(txn).await }
        })
        .await
    }
}

fn options(config: &EtcdConfig) -> ConnectOptions {
    let options = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_keep_alive(PROBE, PROBE)
        .with_keep_alive_while_idle(true)
        // A member that is cut off from the others says so, instead of waiting for them.
        .with_require_leader(true);
    match &config.tls {
        None => options,
        Some(tls) => {
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                with = with.identity(Identity::from_pem(certificate, key));
            }
            options.with_tls(with)
        }
    }
}

const LIMITS: &str = "no value may be over 1.4 MiB, and its --max-request-bytes (1.5 MiB) and --max-txn-ops (128) must \
                      not be below their defaults";

/// What to do, if asking another member will not help.
fn advice(why: &Error) -> Option<&'static str> {
    // tonic, which defines the codes, is not ours to name: by number (grpc.io, status codes).
    let Error::GRpcStatus(status) = why else { return None };
    match status.code() as i32 {
        3 => Some(LIMITS),
        8 if status.message().contains("larger than max") => Some(LIMITS),
        7 | 16 => Some("let this cloud's certificate read and write everything below the prefix"),
        8 if status.message().contains("space") => {
            Some("its space is used up: compact and defragment it, then disarm the alarm (etcdctl)")
        }
        _ => None,
    }
}
