//! One congestion controller type for all lanes: cubic until a connection turns out to carry packets, and its window is
//! lifted.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use quinn_proto::congestion::{Controller, ControllerFactory, CubicConfig};
use quinn_proto::{Connection, RttEstimator};

/// More than any path holds; above `u32::MAX` quinn also stops pacing. TCP inside the tunnel paces itself.
const UNLIMITED: u64 = 1 << 40;

/// Makes [`LaneController`]s.
#[derive(Debug)]
pub(super) struct LaneControllers;

impl ControllerFactory for LaneControllers {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::new(CubicConfig::default()).build(now, current_mtu);
        Box::new(LaneController { cubic, unlimited: Arc::default(), acknowledged: Arc::default() })
    }
}

/// Cubic, unless told that its connection carries packets (or says goodbye). The accepting side learns the lane only with the
/// handshake, when the controller is long in use: the switch is shared by all copies of one controller.
struct LaneController {
    cubic: Box<dyn Controller>,
    unlimited: Arc<AtomicBool>,
    acknowledged: Arc<Acknowledged>,
}

/// What a path has acknowledged, which quinn counts nowhere.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    bytes: AtomicU64,
    packets: AtomicU64,
}

impl Acknowledged {
    /// UDP payload bytes, and QUIC packets.
    pub(super) fn count(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.packets.load(Ordering::Relaxed))
    }
}

/// Lifts the congestion window of `connection`'s present path. A move to another address may bring a new controller:
/// call it again then. Returns where that path counts.
pub(super) fn lift_window(connection: &Connection) -> Option<Arc<Acknowledged>> {
    let controller = controller(connection)?;
    controller.unlimited.store(true, Ordering::Relaxed);
    Some(controller.acknowledged)
}

/// Where the present path counts, with its window as it is.
pub(super) fn acknowledged(connection: &Connection) -> Option<Arc<Acknowledged>> {
    Some(controller(connection)?.acknowledged)
}

/// Takes [`lift_window`] back.
pub(super) fn restore_window(connection: &Connection) {
    if let Some(controller) = controller(connection) {
        controller.unlimited.store(false, Ordering::Relaxed);
    }
}

/// A copy, which shares what may be changed.
fn controller(connection: &Connection) -> Option<LaneController> {
    let copy = connection.congestion_state().clone_box().into_any();
    copy.downcast().ok().map(|controller| *controller)
}

impl Controller for LaneController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.acknowledged.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.acknowledged.packets.fetch_add(1, Ordering::Relaxed);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.cubic.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.unlimited.load(Ordering::Relaxed) { UNLIMITED } else { self.cubic.window() }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            unlimited: self.unlimited.clone(),
            acknowledged: self.acknowledged.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
