//! All connections of a shard, by quinn's handle and by the names the owner and the packets use.

use std::collections::{BTreeMap, VecDeque};

use bus::NodeId;
use bus::bus::LinkId;
use quinn_proto::ConnectionHandle;

use super::Lane;
use super::link::{Link, Phase};

/// Connections, and the list of those to turn to. Quinn's handles are small numbers, used again.
#[derive(Default)]
pub(super) struct Links {
    slots: Vec<Option<Box<Link>>>,
    by_id: BTreeMap<LinkId, ConnectionHandle>,
    /// The links that are up of each node and lane, the newest last: one that the owner turns away hides no other. Of
    /// packets lanes only the one that it let in last.
    by_node: BTreeMap<Lane, BTreeMap<NodeId, Vec<ConnectionHandle>>>,
    queue: VecDeque<ConnectionHandle>,
    last_id: u64,
    generation: u64,
}

impl Links {
    /// A number never used before in this process.
    pub(super) fn next_id(&mut self) -> LinkId {
        self.last_id += 1;
        LinkId(self.last_id)
    }

    pub(super) fn insert(&mut self, link: Link) {
        self.by_id.insert(link.id, link.handle);
        let handle = link.handle;
        self.put_back(Box::new(link));
        self.enqueue(handle);
    }

    /// Takes a link out, so that the others can be reached while it is worked on.
    pub(super) fn take(&mut self, handle: ConnectionHandle) -> Option<Box<Link>> {
        self.slots.get_mut(handle.0)?.take()
    }

    pub(super) fn put_back(&mut self, link: Box<Link>) {
        let index = link.handle.0;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(link);
        }
    }

    /// The link, unless it is taken out.
    pub(super) fn get_mut(&mut self, handle: ConnectionHandle) -> Option<&mut Link> {
        self.slots.get_mut(handle.0)?.as_deref_mut()
    }

    pub(super) fn handle_of(&self, id: LinkId) -> Option<ConnectionHandle> {
        self.by_id.get(&id).copied()
    }

    /// `link`, taken out, is not to come back.
    pub(super) fn forget(&mut self, link: &Link) {
        self.by_id.remove(&link.id);
    }

    pub(super) fn handle_of_node(&self, lane: Lane, node: &NodeId) -> Option<ConnectionHandle> {
        self.by_node.get(&lane)?.get(node)?.last().copied()
    }

    pub(super) fn carries_packets(&self, handle: ConnectionHandle) -> bool {
        self.slots.get(handle.0).and_then(Option::as_ref).is_some_and(|link| link.packets.is_some())
    }

    /// Changes whenever a node gets or loses a link.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// `handle` is now the link of `node` on `lane`.
    pub(super) fn name(&mut self, lane: Lane, node: NodeId, handle: ConnectionHandle) {
        self.generation += 1;
        let named = self.by_node.entry(lane).or_default().entry(node).or_default();
        named.retain(|other| lane != Lane::Packets && *other != handle);
        named.push(handle);
    }

    /// `handle` is down.
    pub(super) fn unname(&mut self, lane: Lane, node: &NodeId, handle: ConnectionHandle) {
        let Some(of_lane) = self.by_node.get_mut(&lane) else { return };
        let Some(named) = of_lane.get_mut(node).filter(|named| named.contains(&handle)) else { return };
        self.generation += 1;
        named.retain(|other| *other != handle);
        if named.is_empty() {
            of_lane.remove(node);
        }
    }

    /// Turn to this connection in this turn of the loop.
    pub(super) fn enqueue(&mut self, handle: ConnectionHandle) {
        let Some(link) = self.get_mut(handle) else { return };
        if !link.queued {
            link.queued = true;
            self.queue.push_back(handle);
        }
    }

    pub(super) fn pop_queued(&mut self) -> Option<ConnectionHandle> {
        self.queue.pop_front()
    }

    /// Whether the owner has been told of every connection's end.
    pub(super) fn are_gone(&self) -> bool {
        self.iter().all(|link| matches!(link.phase, Phase::Gone))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.slots.iter().flatten().map(Box::as_ref)
    }

    pub(super) fn handles(&self) -> Vec<ConnectionHandle> {
        self.iter().map(|link| link.handle).collect()
    }
}
