//! Leadership: one cloud at a time writes, the one whose lease holds the leader's key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, Error, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::members::Members;
use super::rows::{Head, Keys};
use crate::store::StoreError;

/// A leader that is not heard of for this long has lost its place. Long enough for two lost renewals and for etcd to
/// elect another leader (2 s); short enough that a standby has taken over before edges give up the old one
/// (`link.idle`, 45 s).
const LEASE: Duration = Duration::from_secs(10);

/// The lease is renewed this often.
const RENEWAL: Duration = Duration::from_secs(3);

/// How long one member may take to renew it: two are asked before it ends.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(2);

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// This process.
    Ours,
    /// Another one, as it calls itself.
    Held { by: String },
}

/// Our leadership.
#[derive(Debug)]
pub(super) struct Lead {
    pub(super) lease: i64,
    /// The revision that made the leader's key: another leadership has another one.
    pub(super) created: i64,
    /// The revision of the head as we know it; 0: there is none.
    pub(super) head: i64,
    /// The lease has ended, as its keeper found.
    lost: Arc<AtomicBool>,
    keeper: JoinHandle<()>,
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Lead {
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// As if the machine stood still.
    #[cfg(test)]
    pub(super) fn keeper_dies(&self) {
        self.keeper.abort();
    }

    /// True while we lead.
    pub(super) fn holds(&self, keys: &Keys) -> Compare {
        Compare::create_revision(keys.leader.as_str(), CompareOp::Equal, self.created)
    }
}

/// What became of standing for leader.
pub(super) enum Election {
    Won(Lead, Option<Head>),
    Lost { to: String },
}

/// Stands for leader once.
pub(super) async fn stand(members: &mut Members, keys: &Keys, me: &str) -> Result<Election, StoreError> {
    let at = keys.leader.as_str();
    let answer = members.ask("read", |mut member| async move { member.kv.get(at, None).await }).await?;
    if let Some(leader) = answer.kvs().first() {
        return Ok(Election::Lost { to: holder(leader) });
    }
    let seconds = i64::try_from(LEASE.as_secs()).unwrap_or(i64::MAX);
    let granted =
        members.ask("write", |mut member| async move { member.lease.grant(seconds, None).await }).await?;
    let lease = granted.id();
    let claim = TxnOp::put(at, me, Some(PutOptions::new().with_lease(lease)));
    let look = || [TxnOp::get(at, None), TxnOp::get(keys.head.as_str(), None)];
    let txn = Txn::new()
        .when([Compare::create_revision(at, CompareOp::Equal, 0)])
        .and_then([[claim].as_slice(), &look()].concat())
        .or_else(look());
    let (leader, head) = leader_and_head(&members.txn("write", txn).await?);
    match leader {
        // Also when an earlier answer to this got lost.
        Some(leader) if leader.lease() == lease => {
            let (decoded, revision) =
                (head.as_ref().and_then(decode_head), head.map_or(0, |h| h.mod_revision()));
            Ok(Election::Won(lead(members, lease, leader.create_revision(), revision), decoded))
        }
        other => {
            end(members, lease).await;
            Ok(Election::Lost { to: other.as_ref().map_or_else(|| "nobody".to_owned(), holder) })
        }
    }
}

/// Gives the place up at once, as far as etcd is reached; otherwise the lease ends by itself.
pub(super) async fn end(members: &mut Members, lease: i64) {
    let _ = members.ask("write", |mut member| async move { member.lease.revoke(lease).await }).await;
}

fn lead(members: &Members, lease: i64, created: i64, head: i64) -> Lead {
    let lost = Arc::new(AtomicBool::new(false));
    let keeper = Handle::current().spawn(keep(members.patient(RENEWAL_PATIENCE), lease, Arc::clone(&lost)));
    Lead { lease, created, head, lost, keeper }
}

/// Renews the lease until it has ended.
async fn keep(mut members: Members, lease: i64, lost: Arc<AtomicBool>) {
    loop {
        sleep(RENEWAL).await;
        let renewed = members
            .ask("write", |mut member| async move {
                match member.lease.keep_alive(lease).await {
                    Ok(_) => Ok(true),
                    Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                    Err(other) => Err(other),
                }
            })
            .await;
        if matches!(renewed, Ok(false)) {
            lost.store(true, Ordering::Relaxed);
            return;
        }
    }
}

/// The last two answers of a transaction, which are those about leader and head.
pub(super) fn leader_and_head(answer: &TxnResponse) -> (Option<KeyValue>, Option<KeyValue>) {
    let mut found = answer.op_responses().into_iter().rev().map(|answer| match answer {
        TxnOpResponse::Get(get) => get.kvs().first().cloned(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    let head = found.next().flatten();
    (found.next().flatten(), head)
}

pub(super) fn decode_head(head: &KeyValue) -> Option<Head> {
    minicbor::decode(head.value()).ok()
}

pub(super) fn holder(leader: &KeyValue) -> String {
    String::from_utf8_lossy(leader.value()).into_owned()
}
