//! [`Store`] in etcd, for a cloud that runs in several replicas: one of them leads, the others stand by.
//!
//! Below the prefix lie one key a row, and
//!
//! | key | what |
//! |---|---|
//! | `leader` | who leads, under a lease: the key goes when the leader does |
//! | `head` | which commit was the last |
//! | `redo`, `redo/..` | a commit that is too large for one transaction |
//! | `file/..` | what replicas share besides rows |
//!
//! Every transaction compares `leader`, so that a leader which lost its place changes nothing any more, however late
//! its words arrive; and `head`, so that a transaction whose answer got lost can be sent again: it is done once.
//!
//! ```text
//!           fits one transaction: rows + head
//!   commit -----------------------------------------------> durable
//!      |                                                       ^
//!      | else: redo/0.. (nobody looks)     redo + head         |
//!      +------------------------------> . -------------> committed --> rows, then no redo
//!                                       crash: dropped   crash: `load` finishes it
//! ```

mod lead;
mod members;
mod rows;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, Txn, TxnOp};
use tokio::runtime::Runtime;

use self::lead::{Election, Lead, decode_head, holder, leader_and_head, term_of};
use self::members::Members;
use self::rows::{Change, Head, Keys, Mark};
use crate::key::Commit;
use crate::store::{Row, Store, StoreError};

pub use self::lead::Turn;

/// Rows read at once: with values of the largest size some 128 MiB, usually 20 KiB.
const PAGE: usize = 128;

/// How long the last word to etcd may take when the store is dropped.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where etcd is, and who asks.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// `http://10.0.0.1:2379`, of all members; one that is gone is passed over.
    pub endpoints: Vec<String>,
    pub tls: Option<EtcdTls>,
    /// Everything lies below this; ends with '/'.
    pub prefix: String,
    /// Who this is, for the people at the other replicas.
    pub me: String,
    /// The same from start to start: see [`EtcdStore::last_writer`].
    pub writer: u64,
    /// Differs from start to start.
    pub run: u64,
}

/// What https needs. All in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Who signed etcd's certificates.
    pub ca: Vec<u8>,
    /// Certificate and key by which etcd knows this cloud.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTls").finish_non_exhaustive()
    }
}

/// A cloud's rows in etcd. It reads and writes once [`Self::stand`] said that the turn is ours.
///
/// All methods wait for etcd: call them where blocking is allowed, outside of tokio's context.
pub struct EtcdStore {
    /// Taken when it is dropped. Its one thread keeps the lease while nothing is asked.
    runtime: Option<Runtime>,
    core: Core,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").field("members", &self.core.members.names).finish_non_exhaustive()
    }
}

/// What became of a write.
enum Wrote {
    Done,
    /// An earlier one, whose answer got lost, was carried out instead: try again.
    AfterAnother,
}

/// The async side.
struct Core {
    members: Members,
    keys: Keys,
    me: String,
    /// As written last, or as the next one will be but for its number.
    head: Head,
    /// Whose head was found when the turn became ours.
    found: Option<Head>,
    lead: Option<Lead>,
    /// A redo record may be committed and not yet carried out.
    has_redo: bool,
}

impl EtcdStore {
    /// Connects to nobody yet.
    pub fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("etcd").enable_all().build();
        let runtime = runtime.map_err(|source| StoreError::Unreachable {
            place: format!("etcd at {}", config.endpoints.join(", ")),
            doing: "start to talk to",
            source: source.into(),
        })?;
        let core = Core {
            members: runtime.block_on(Members::new(config))?,
            keys: Keys::below(&config.prefix),
            me: config.me.clone(),
            head: Head { writer: config.writer, run: config.run, attempt: 0 },
            found: None,
            lead: None,
            has_redo: true,
        };
        Ok(Self { runtime: Some(runtime), core })
    }

    /// Asks once to lead. While another replica does, ask again, every second or so.
    pub fn stand(&mut self) -> Result<Turn, StoreError> {
        self.play(async |core| core.stand().await)
    }

    /// Ends another's leadership, of a replica that is silent: its lease would last for up to 10 s. It does no harm if it
    /// lives: every write compares who leads.
    pub fn depose(&mut self, term: u64) -> Result<(), StoreError> {
        self.play(async |core| lead::depose(&mut core.members, &core.keys, term).await)
    }

    /// Of our leadership, as [`Turn::Held`] tells others.
    pub fn term(&self) -> Option<u64> {
        self.core.lead.as_ref().map(|lead| lead.created.unsigned_abs())
    }

    /// Who wrote the last commit when the turn became ours, as [`EtcdConfig::writer`] called it: whoever keeps
    /// something beside etcd knows by it whether others wrote in between.
    pub fn last_writer(&self) -> Option<u64> {
        self.core.found.map(|head| head.writer)
    }

    /// What was [shared](Self::share), by name.
    pub fn shared(&mut self) -> Result<Vec<(String, Bytes)>, StoreError> {
        self.play(async |core| core.shared().await)
    }

    /// Keeps small files for all replicas: all of them in one transaction.
    pub fn share(&mut self, files: &[(String, Bytes)]) -> Result<(), StoreError> {
        self.play(async |core| core.share(files).await)
    }

    fn play<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Core) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let runtime = self.runtime.as_ref().ok_or_else(|| self.core.fenced("nobody"))?;
        runtime.block_on(work(&mut self.core))
    }
}

impl Drop for EtcdStore {
    /// Gives the turn up, so that a standby need not wait for the lease to end.
    fn drop(&mut self) {
        let (Some(runtime), lead) = (self.runtime.take(), self.core.lead.take()) else { return };
        let mut members = self.core.members.patient(FAREWELL);
        // A thread of its own: dropped in tokio's context, nothing could be waited for here.
        let farewell = std::thread::spawn(move || {
            if let Some(lease) = lead.as_ref().map(|lead| lead.lease) {
                let _ = runtime
                    .block_on(async { tokio::time::timeout(FAREWELL, lead::end(&mut members, lease)).await });
            }
        });
        let _ = farewell.join();
    }
}

impl Store for EtcdStore {
    fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        self.play(async |core| core.load().await)
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<(), StoreError> {
        let changes = rows::fold(commits, &self.core.keys);
        self.play(async |core| core.commit(&changes).await)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        match self.core.lead()?.is_sure() {
            true => Ok(()),
            // Asks etcd who leads, and writes nothing.
            false => self.play(async |core| core.write_led(None, Vec::new()).await),
        }
    }
}

impl Core {
    async fn stand(&mut self) -> Result<Turn, StoreError> {
        match lead::stand(&mut self.members, &self.keys, &self.me).await? {
            Election::Won(lead, found) => {
                (self.lead, self.found, self.has_redo) = (Some(lead), found, true);
                Ok(Turn::Ours)
            }
            Election::Lost { to: Some(to) } => Ok(Turn::Held { by: holder(&to), term: term_of(&to) }),
            Election::Lost { to: None } => Ok(Turn::Lost),
        }
    }

    fn place(&self) -> String {
        format!("etcd at {}", self.members.names)
    }

    fn fenced(&self, by: &str) -> StoreError {
        StoreError::Fenced { place: self.place(), by: by.to_owned() }
    }

    fn foreign(&self, found: String) -> StoreError {
        StoreError::Foreign { place: self.place(), found }
    }

    fn lead(&self) -> Result<&Lead, StoreError> {
        self.lead.as_ref().ok_or_else(|| self.fenced("nobody"))
    }

    /// The lease has ended (this machine slept, or could not reach etcd): goes on only if nobody wrote since.
    async fn regain(&mut self) -> Result<(), StoreError> {
        let run = self.head.run;
        let is_fresh = self.lead()?.head == 0;
        match self.stand().await? {
            Turn::Held { by, .. } => Err(self.fenced(&by)),
            // Whoever it was is gone again, and may have written.
            Turn::Lost => Err(self.fenced("one that is gone again")),
            Turn::Ours if self.found.map_or(is_fresh, |head| head.run == run) => Ok(()),
            Turn::Ours => {
                if let Some(lead) = self.lead.take() {
                    lead::end(&mut self.members, lead.lease).await;
                }
                Err(self.fenced("one that is gone again"))
            }
        }
    }

    /// Does `ops` once, and moves the head on.
    async fn write(&mut self, ops: Vec<TxnOp>) -> Result<Wrote, StoreError> {
        self.head.attempt += 1;
        let head = minicbor::to_vec(self.head).unwrap_or_default();
        let ops = [ops, vec![TxnOp::put(self.keys.head.as_str(), head, None)]].concat();
        loop {
            let Lead { created, head: known, .. } = *self.lead()?;
            let (leader, found) = match self.send(self.next(ops.clone())?).await? {
                Ok(revision) => return self.moved(revision, Wrote::Done),
                Err(found) => found,
            };
            if leader.as_ref().map(KeyValue::create_revision) != Some(created) {
                self.lost_to(leader.as_ref()).await?;
            }
            let Some(found) = found.filter(|head| head.mod_revision() != known) else { continue };
            // What nobody else can have moved, since we led: a try whose answer got lost was carried out after all.
            match decode_head(&found) {
                Some(head) if head == self.head => return self.moved(found.mod_revision(), Wrote::Done),
                Some(head) if head.run == self.head.run => {
                    return self.moved(found.mod_revision(), Wrote::AfterAnother);
                }
                _ => return Err(self.foreign(self.keys.head.clone())),
            }
        }
    }

    /// Does `ops` if we lead, and nothing was written since we last knew: never, if it arrives late.
    fn next(&self, ops: Vec<TxnOp>) -> Result<Txn, StoreError> {
        let lead = self.lead()?;
        let is_next = Compare::mod_revision(self.keys.head.as_str(), CompareOp::Equal, lead.head);
        Ok(Txn::new().when([lead.holds(&self.keys), is_next]).and_then(ops))
    }

    fn moved(&mut self, head: i64, wrote: Wrote) -> Result<Wrote, StoreError> {
        match &mut self.lead {
            Some(lead) => {
                lead.head = head;
                Ok(wrote)
            }
            None => Err(self.fenced("nobody")),
        }
    }

    /// Another leader, or none: then the place is ours again, if nobody wrote.
    async fn lost_to(&mut self, leader: Option<&KeyValue>) -> Result<(), StoreError> {
        match leader {
            Some(leader) => Err(self.fenced(&holder(leader))),
            None => self.regain().await,
        }
    }

    /// The revision of a transaction, or leader and head if what it compares is not so.
    async fn send(
        &mut self,
        txn: Txn,
    ) -> Result<Result<i64, (Option<KeyValue>, Option<KeyValue>)>, StoreError> {
        let look = [&self.keys.leader, &self.keys.head].map(|at| TxnOp::get(at.as_str(), None));
        let answer = self.members.txn("write to", txn.or_else(look)).await?;
        Ok(match answer.succeeded() {
            true => Ok(answer.header().map_or(0, etcd_client::ResponseHeader::revision)),
            false => Err(leader_and_head(&answer)),
        })
    }

    async fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let groups = rows::cut(changes);
        loop {
            self.finish_redo().await?;
            let wrote = match groups.as_slice() {
                [] => return Ok(()),
                [one] => self.write(one.iter().map(op).collect()).await?,
                many => self.write_redo(many).await?,
            };
            match wrote {
                Wrote::Done => return self.finish_redo().await,
                // It may have been a redo record.
                Wrote::AfterAnother => self.has_redo = true,
            }
        }
    }

    async fn write_redo(&mut self, groups: &[&[Change]]) -> Result<Wrote, StoreError> {
        let mark = self.write_chunks(groups).await?;
        self.has_redo = true;
        let encoded = minicbor::to_vec(&mark).unwrap_or_default();
        self.write(vec![TxnOp::put(self.keys.mark.as_str(), encoded, None)]).await
    }

    async fn write_chunks(&mut self, groups: &[&[Change]]) -> Result<Mark, StoreError> {
        let chunks = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        let mark = Mark { run: self.head.run, attempt: self.head.attempt + 1, chunks };
        for (number, group) in (0..).zip(groups) {
            let chunk = minicbor::to_vec(group).unwrap_or_default();
            let op = TxnOp::put(self.keys.chunk(&mark, number), chunk, None);
            self.write_led(None, vec![op]).await?;
        }
        Ok(mark)
    }

    /// Carries out a committed redo record. The chunks of one that is not committed stay: it may be on its way still.
    async fn finish_redo(&mut self) -> Result<(), StoreError> {
        while self.has_redo {
            let Some(found) = self.get(&self.keys.mark.clone()).await? else {
                self.has_redo = false;
                return Ok(());
            };
            let revision = found.mod_revision();
            let mark: Mark =
                minicbor::decode(found.value()).map_err(|_| self.foreign(self.keys.mark.clone()))?;
            let mut number = 0;
            while number < mark.chunks && self.carry_out(&mark, revision, number).await? {
                number += 1;
            }
            if number < mark.chunks {
                continue;
            }
            let done = vec![TxnOp::delete(self.keys.mark.as_str(), None), self.no_chunks()];
            self.write_led(Some(revision), done).await?;
        }
        Ok(())
    }

    fn no_chunks(&self) -> TxnOp {
        TxnOp::delete(self.keys.chunks.as_str(), Some(DeleteOptions::new().with_prefix()))
    }

    /// What former leaders left: nothing of theirs is carried out any more. Our own chunks stay: these words may arrive
    /// late, when a redo record of ours is on its way.
    async fn forget_former_chunks(&mut self) -> Result<(), StoreError> {
        let others = self.keys.chunks_of_others(self.head.run);
        let delete = |(from, to)| TxnOp::delete(from, Some(DeleteOptions::new().with_range(to)));
        self.write_led(Some(0), others.map(delete).to_vec()).await
    }

    /// False if the redo record has gone meanwhile: an earlier word of ours that it is carried out arrived late, and took
    /// the chunks along.
    async fn carry_out(&mut self, mark: &Mark, revision: i64, number: u32) -> Result<bool, StoreError> {
        let at = self.keys.chunk(mark, number);
        let Some(chunk) = self.get(&at).await? else {
            let found = self.get(&self.keys.mark.clone()).await?;
            return match found.is_some_and(|mark| mark.mod_revision() == revision) {
                true => Err(self.foreign(at)),
                false => Ok(false),
            };
        };
        let changes: Vec<Change> = minicbor::decode(chunk.value()).map_err(|_| self.foreign(at))?;
        self.write_led(Some(revision), changes.iter().map(op).collect()).await?;
        Ok(true)
    }

    /// Does what may be done twice, as long as we lead and, if given, the redo record has this revision (0: there is
    /// none). If it has not, an earlier try whose answer got lost has carried it out already.
    async fn write_led(&mut self, redo: Option<i64>, ops: Vec<TxnOp>) -> Result<(), StoreError> {
        loop {
            let lead = self.lead()?;
            let redo = redo.map(|is| Compare::mod_revision(self.keys.mark.as_str(), CompareOp::Equal, is));
            let when: Vec<Compare> = [Some(lead.holds(&self.keys)), redo].into_iter().flatten().collect();
            let Err((leader, _)) = self.send(Txn::new().when(when).and_then(ops.clone())).await? else {
                return Ok(());
            };
            if leader.as_ref().map(KeyValue::create_revision) == Some(self.lead()?.created) {
                return Ok(());
            }
            self.lost_to(leader.as_ref()).await?;
        }
    }

    async fn get(&mut self, at: &str) -> Result<Option<KeyValue>, StoreError> {
        let found =
            self.members.ask("read", |mut member| async move { member.kv.get(at, None).await }).await?;
        Ok(found.kvs().first().cloned())
    }

    /// Reads page after page, all as they were at one revision.
    async fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        self.lead()?;
        self.finish_redo().await?;
        self.forget_former_chunks().await?;
        let keys = self.keys.clone();
        let end = format!("{}0", keys.rows.trim_end_matches('/')); // '0' follows '/'
        let (mut rows, mut from, mut revision) = (Vec::new(), keys.rows.clone().into_bytes(), 0);
        loop {
            let page =
                GetOptions::new().with_range(end.as_str()).with_limit(PAGE as i64).with_revision(revision);
            let (start, page) = (&from, &page);
            let found =
                self.members
                    .ask("read", |mut member| async move {
                        member.kv.get(start.as_slice(), Some(page.clone())).await
                    })
                    .await?;
            for kv in found.kvs() {
                let row = rows::decode_row(&keys, kv.key(), kv.value());
                let name = || String::from_utf8_lossy(kv.key()).into_owned();
                rows.push(row.ok_or_else(|| self.foreign(name()))?);
            }
            let Some(last) = found.kvs().last().filter(|_| found.more()) else { return Ok(rows) };
            revision = found.header().map_or(0, etcd_client::ResponseHeader::revision).max(revision);
            from = [last.key(), b"\0"].concat();
        }
    }

    async fn shared(&mut self) -> Result<Vec<(String, Bytes)>, StoreError> {
        let below = self.keys.files.clone();
        let at = below.as_str();
        let all = || Some(GetOptions::new().with_prefix());
        let found =
            self.members.ask("read", |mut member| async move { member.kv.get(at, all()).await }).await?;
        let file = |kv: &KeyValue| {
            let name = String::from_utf8_lossy(kv.key().get(at.len()..).unwrap_or_default()).into_owned();
            (name, Bytes::copy_from_slice(kv.value()))
        };
        Ok(found.kvs().iter().map(file).collect())
    }

    async fn share(&mut self, files: &[(String, Bytes)]) -> Result<(), StoreError> {
        let put = |(name, file): &(String, Bytes)| {
            TxnOp::put(format!("{}{name}", self.keys.files), file.as_ref(), None)
        };
        let ops = files.iter().map(put).collect();
        self.write_led(None, ops).await
    }
}

fn op(Change { at, row }: &Change) -> TxnOp {
    match row {
        Some(row) => TxnOp::put(at.as_str(), row.as_slice(), None),
        None => TxnOp::delete(at.as_str(), None),
    }
}

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod tests;
