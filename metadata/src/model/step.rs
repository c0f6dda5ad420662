//! What each action does: the cores are called as a node calls them.

use std::collections::VecDeque;
use std::sync::Arc;

use bus::{Class, Mono};
use bytes::Bytes;

use super::action::{Action, Side, Wish};
use super::oracle::{Broken, PAIR, PAIRED, record_key, still_owed};
use super::plant::{Plant, each_part_a_batch};
use super::state::{Accepted, Cloud, Edge, Other, Spare, State, edge_name};
use crate::cursor::PART_BYTES;
use crate::epoch;
use crate::{FeedOutput, Key, Keyspace, MemoryStore, ReplicaOutput, Revision, Store};

impl State {
    pub(super) fn after(&self, action: Action) -> Self {
        let mut next = self.clone();
        next.left.spend(action);
        next.take(action);
        next.look_at_queues();
        if !Arc::ptr_eq(&self.cloud, &next.cloud) {
            next.cloud_mut().take_print();
        }
        if !Arc::ptr_eq(&self.edge, &next.edge) {
            next.edge_mut().take_print();
        }
        next
    }

    pub(super) fn cloud_mut(&mut self) -> &mut Cloud {
        Arc::make_mut(&mut self.cloud)
    }

    pub(super) fn edge_mut(&mut self) -> &mut Edge {
        Arc::make_mut(&mut self.edge)
    }

    pub(super) fn take(&mut self, action: Action) {
        match action {
            Action::Write(wish) => self.write(wish),
            Action::Push(class) => self.push(class),
            Action::Persist(Side::Cloud) => self.persist_cloud(),
            Action::Persist(Side::Edge) => self.persist_edge(),
            Action::Deliver { to, at } => self.deliver(to, at),
            Action::Duplicate { to } => {
                let queue = self.queue_mut(to);
                queue.extend(queue.front().cloned());
            }
            Action::Drop { to } => drop(self.queue_mut(to).pop_front()),
            Action::Connect => self.connect(),
            Action::Cut { noticed } => self.cut(noticed),
            Action::Crash { side: Side::Cloud, landed } => {
                let disk = self.cloud.host.clone().crash(landed);
                self.start_cloud(disk, self.cloud.line, false);
            }
            Action::Crash { side: Side::Edge, landed } => self.crash_edge(landed),
            Action::Wipe => self.start_edge(MemoryStore::default(), Vec::new()),
            Action::CopyDisk => self.spare = Some(Arc::new(self.disk_of_edge(0))),
            Action::ExchangeDisks => self.exchange_disks(),
            Action::Backup => self.other = Some(Arc::new(self.disk_of_cloud(false))),
            Action::Restore | Action::ReturnCloud => self.exchange_clouds(),
            Action::Compact => self.compact(),
            Action::Wait => self.wait(),
        }
    }

    fn queue_mut(&mut self, to: Side) -> &mut VecDeque<Bytes> {
        let link = self.link.get_or_insert_default();
        match to {
            Side::Cloud => &mut link.up,
            Side::Edge => &mut link.down,
        }
    }

    fn write(&mut self, wish: Wish) {
        let own = PAIR.map(|name| Key::literal(&format!("/e/{}/{name}", edge_name())));
        let all = Key::literal(&format!("/all/{}", PAIR[0]));
        self.values[0] += 1;
        let [paired, single] = [PAIRED, b'x'].map(|kind| vec![kind, self.values[0]]);
        let ks = &mut self.cloud_mut().host.ks;
        match wish {
            Wish::Pair => own.into_iter().for_each(|key| ks.put(key, paired.clone().into())),
            Wish::LargePair => {
                let mut large = paired.clone();
                large.resize(PART_BYTES, 0);
                let values = [large, paired].map(Bytes::from);
                own.into_iter().zip(values).for_each(|(key, value)| ks.put(key, value));
            }
            Wish::NoPair => own.iter().for_each(|key| ks.delete(key)),
            Wish::ForAll => ks.put(all, single.into()),
            Wish::NoneForAll => ks.delete(&all),
        }
        self.end_cloud_cycle();
    }

    fn push(&mut self, class: Class) {
        self.values[1] += 1;
        let payload = Bytes::from(vec![b'u', self.values[1]]);
        let now = self.now();
        let host = &mut self.edge_mut().host;
        host.core.push(class, "k", payload.clone(), &mut host.ks, now).unwrap();
        self.end_edge_cycle();
        let edge = self.edge_mut();
        let revision = edge.host.ks.revision();
        edge.accepted.push(Accepted { revision, class, payload });
    }

    fn deliver(&mut self, to: Side, at: usize) {
        let Some(frame) = self.queue_mut(to).remove(at) else { return };
        let now = self.now();
        match to {
            Side::Cloud => {
                let host = &mut self.cloud_mut().host;
                host.core.handle_frame(&edge_name(), &frame, &mut host.ks, now);
                self.end_cloud_cycle();
            }
            Side::Edge => {
                let plant = self.plant;
                let host = &mut self.edge_mut().host;
                let frame = match plant {
                    Some(Plant::AppliesParts) => each_part_a_batch(&frame),
                    _ => frame,
                };
                host.core.handle_frame(&frame, &mut host.ks, now);
                self.end_edge_cycle();
            }
        }
    }

    fn connect(&mut self) {
        let now = self.now();
        self.link = Some(Default::default());
        self.cloud_mut().host.core.handle_edge_up(&edge_name(), now);
        let host = &mut self.edge_mut().host;
        host.core.handle_link_up(&host.ks, now);
        self.end_cloud_cycle();
        self.end_edge_cycle();
    }

    fn cut(&mut self, noticed: bool) {
        self.link = None;
        if noticed {
            let now = self.now();
            self.cloud_mut().host.core.handle_edge_down(&edge_name(), now);
            self.edge_mut().host.core.handle_link_down();
            self.end_cloud_cycle();
            self.end_edge_cycle();
        }
    }

    fn compact(&mut self) {
        let ks = &mut self.cloud_mut().host.ks;
        ks.compact(Revision(ks.revision().0 + 1));
        self.end_cloud_cycle();
    }

    fn wait(&mut self) {
        if let Some(due) = self.next_timer() {
            self.mono = self.mono.max(due);
        }
        if self.plant == Some(Plant::StopsClocks) {
            return;
        }
        let now = self.now();
        let is_due = |timer: Option<(Mono, &str)>| timer.is_some_and(|(due, _)| due <= now.mono);
        if is_due(self.cloud.host.core.poll_timeout()) {
            let host = &mut self.cloud_mut().host;
            host.core.handle_timeout(&host.ks, now);
            self.end_cloud_cycle();
        }
        if is_due(self.edge.host.core.poll_timeout()) {
            let host = &mut self.edge_mut().host;
            host.core.handle_timeout(&host.ks, now);
            self.end_edge_cycle();
        }
    }
}

/// Disks.
impl State {
    fn persist_cloud(&mut self) {
        self.cloud_mut().host.store.sync();
        self.speak_cloud();
    }

    fn persist_edge(&mut self) {
        self.edge_mut().host.store.sync();
        self.speak_edge();
    }

    /// What waited for the disk goes out, on whichever link stands now.
    fn speak_cloud(&mut self) {
        let frames = self.cloud_mut().host.release();
        if let Some(link) = &mut self.link {
            link.down.extend(frames);
        }
    }

    fn speak_edge(&mut self) {
        let frames = self.edge_mut().host.release();
        if let Some(link) = &mut self.link {
            link.up.extend(frames);
        }
    }

    /// The edge's disk when `landed` of the transactions under way are on it, and what it accepted.
    fn disk_of_edge(&self, landed: usize) -> Spare {
        let mut disk = self.edge.host.clone().crash(landed);
        let revision = Keyspace::load(disk.load().unwrap()).revision();
        let accepted = self.edge.accepted.iter().filter(|entry| entry.revision <= revision);
        Spare { accepted: accepted.cloned().collect(), disk }
    }

    fn crash_edge(&mut self, landed: usize) {
        let Spare { disk, accepted } = self.disk_of_edge(landed);
        self.start_edge(disk, accepted);
    }

    fn exchange_disks(&mut self) {
        let present = Arc::new(self.disk_of_edge(0));
        self.went_back = true;
        if let Some(spare) = self.spare.replace(present) {
            self.start_edge(spare.disk.clone(), spare.accepted.clone());
        }
    }

    fn start_edge(&mut self, disk: MemoryStore, accepted: Vec<Accepted>) {
        self.link = None;
        self.edge = Arc::new(Edge::start(disk, self.starts[1], accepted));
        self.starts[1] += 1;
        self.look_at_copy();
    }

    fn disk_of_cloud(&self, is_ahead: bool) -> Other {
        Other { disk: self.cloud.host.clone().crash(0), line: self.cloud.line, is_ahead }
    }

    fn start_cloud(&mut self, disk: MemoryStore, line: u8, restored: bool) {
        let plant = self.plant;
        let cloud = Cloud::start(disk, self.starts[0], |ks| {
            if restored {
                epoch::set(ks, epoch::get(ks) + 1);
            }
            if plant == Some(Plant::ForgetsInbox) {
                ks.delete(&Key::literal(&format!("/sync/in/{}", edge_name())));
            }
        });
        self.link = None;
        self.starts[0] += 1;
        self.cloud = Arc::new(cloud.after(&self.cloud, line));
        self.cloud_mut().remember();
        self.end_cloud_cycle();
    }

    fn exchange_clouds(&mut self) {
        let present = Arc::new(self.disk_of_cloud(true));
        let Some(other) = self.other.replace(present) else { return };
        let line = if other.is_ahead { other.line } else { self.cloud.line + 1 };
        self.went_back = true;
        self.start_cloud(other.disk.clone(), line, !other.is_ahead);
        let owed = still_owed(&self.edge.accepted, &self.cloud, &self.edge);
        self.edge_mut().accepted = owed;
    }

    /// One side found that the other is not to be talked with.
    fn hang_up(&mut self) {
        self.refusals += 1;
        self.link = None;
        let now = self.now();
        self.cloud_mut().host.core.handle_edge_down(&edge_name(), now);
        self.edge_mut().host.core.handle_link_down();
    }
}

/// Cycles.
impl State {
    fn end_cloud_cycle(&mut self) {
        loop {
            while let Some(output) = self.cloud_mut().host.core.poll_output() {
                self.heed_cloud(output);
            }
            if !self.cloud_mut().host.seal() {
                break;
            }
            let now = self.now();
            let cloud = self.cloud_mut();
            cloud.remember();
            cloud.host.core.handle_commit(&cloud.host.ks, now);
        }
        if self.under_way(Side::Cloud) == 0 || self.plant == Some(Plant::SpeaksEarly) {
            self.speak_cloud();
        }
    }

    fn heed_cloud(&mut self, output: FeedOutput) {
        match output {
            FeedOutput::Up { incarnation, entry, .. } => {
                if !self.may_take(incarnation, entry.lane.class(), &entry.payload) {
                    self.note(Broken::TakenTwice);
                }
                let record = record_key(incarnation, entry.lane.class(), entry.seq);
                self.cloud_mut().host.ks.put(record, entry.payload);
            }
            FeedOutput::Differed { .. } => self.note(Broken::Damaged),
            FeedOutput::NewIncarnation { .. } | FeedOutput::Gap { .. } => {}
            FeedOutput::Superseded { .. } => self.hang_up(),
            FeedOutput::Misbehaved { .. } | FeedOutput::Oversized { .. } => self.note(Broken::Blamed),
            FeedOutput::Send { payload, .. } => self.cloud_mut().host.hold(payload),
        }
    }

    fn end_edge_cycle(&mut self) {
        while let Some(output) = self.edge_mut().host.core.poll_output() {
            match output {
                ReplicaOutput::Outdated { .. } => self.hang_up(),
                ReplicaOutput::Misbehaved(_) => self.note(Broken::Blamed),
                ReplicaOutput::Repaired => self.note(Broken::Damaged),
                ReplicaOutput::Resynced | ReplicaOutput::Changed(_) => {}
                ReplicaOutput::Send { payload, .. } => self.edge_mut().host.hold(payload),
            }
        }
        self.edge_mut().host.seal();
        self.look_at_copy();
        if self.under_way(Side::Edge) == 0 || self.plant == Some(Plant::SpeaksEarly) {
            self.speak_edge();
        }
    }
}
