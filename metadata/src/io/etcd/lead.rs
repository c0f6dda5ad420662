//! Leadership: one cloud at a time writes, the one whose lease holds the leader's key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, Error, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use rustix::time::{ClockId, Timespec, clock_gettime};
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
    /// Another one, as it calls itself. Each leadership has a higher term than those before it.
    Held { by: String, term: u64 },
    /// Another one's for a moment: ask again.
    Lost,
}

/// Our leadership.
#[derive(Debug)]
pub(super) struct Lead {
    pub(super) lease: i64,
    /// The revision that made the leader's key: another leadership has another one.
    pub(super) created: i64,
    /// The revision of the head as we know it; 0: there is none.
    pub(super) head: i64,
    kept: Arc<Kept>,
    keeper: JoinHandle<()>,
}

/// What the lease's keeper knows of it.
#[derive(Debug)]
struct Kept {
    /// The lease has ended, as etcd says.
    is_over: AtomicBool,
    /// When what renewed it last was sent, by [`since_boot`] in milliseconds.
    renewed: AtomicU64,
}

/// Goes on while the machine sleeps, and so do etcd's leases.
fn since_boot() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Boottime);
    tv_sec.unsigned_abs() * 1000 + tv_nsec.unsigned_abs() / 1_000_000
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Lead {
    /// The lease has not ended for sure: etcd counts from when it heard the renewal, which is later than it was sent.
    pub(super) fn is_sure(&self) -> bool {
        let age = since_boot().saturating_sub(self.kept.renewed.load(Ordering::Relaxed));
        Duration::from_millis(age) < LEASE && !self.kept.is_over.load(Ordering::Relaxed)
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
    Lost { to: Option<KeyValue> },
}

/// Stands for leader once.
pub(super) async fn stand(members: &mut Members, keys: &Keys, me: &str) -> Result<Election, StoreError> {
    let at = keys.leader.as_str();
    let answer = members.ask("read", |mut member| async move { member.kv.get(at, None).await }).await?;
    if let Some(leader) = answer.kvs().first() {
        return Ok(Election::Lost { to: Some(leader.clone()) });
    }
    let seconds = i64::try_from(LEASE.as_secs()).unwrap_or(i64::MAX);
    let asked = since_boot();
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
            Ok(Election::Won(lead(members, lease, asked, leader.create_revision(), revision), decoded))
        }
        other => {
            end(members, lease).await;
            Ok(Election::Lost { to: other })
        }
    }
}

/// Ends the leadership of that term, if it lasts: what its leader writes from then on changes nothing.
pub(super) async fn depose(members: &mut Members, keys: &Keys, term: u64) -> Result<(), StoreError> {
    let at = keys.leader.as_str();
    let answer = members.ask("read", |mut member| async move { member.kv.get(at, None).await }).await?;
    if let Some(leader) = answer.kvs().first().filter(|leader| term_of(leader) == term) {
        end(members, leader.lease()).await;
    }
    Ok(())
}

/// Gives the place up at once, as far as etcd is reached; otherwise the lease ends by itself.
pub(super) async fn end(members: &mut Members, lease: i64) {
    let _ = members.ask("write", |mut member| async move { member.lease.revoke(lease).await }).await;
}

fn lead(members: &Members, lease: i64, asked: u64, created: i64, head: i64) -> Lead {
    let kept = Arc::new(Kept { is_over: AtomicBool::new(false), renewed: AtomicU64::new(asked) });
    let keeper = Handle::current().spawn(keep(members.patient(RENEWAL_PATIENCE), lease, Arc::clone(&kept)));
    Lead { lease, created, head, kept, keeper }
}

/// Renews the lease until it has ended.
async fn keep(mut members: Members, lease: i64, kept: Arc<Kept>) {
    loop {
        sleep(RENEWAL).await;
        let renewed = members
            .ask("write", |mut member| async move {
                let sent = since_boot();
                match member.lease.keep_alive(lease).await {
                    Ok(_) => Ok(Some(sent)),
                    Err(Error::LeaseKeepAliveError(_)) => Ok(None),
                    Err(other) => Err(other),
                }
            })
            .await;
        match renewed {
            Ok(Some(sent)) => kept.renewed.store(sent, Ordering::Relaxed),
            Ok(None) => return kept.is_over.store(true, Ordering::Relaxed),
            // Tried again.
            Err(_) => {}
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

/// A revision of etcd's is never used twice, and never falls.
pub(super) fn term_of(leader: &KeyValue) -> u64 {
    leader.create_revision().unsigned_abs()
}

pub(super) fn holder(leader: &KeyValue) -> String {
    String::from_utf8_lossy(leader.value()).into_owned()
}
