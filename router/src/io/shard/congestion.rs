//! One congestion controller type for all lanes: cubic until a connection turns out to carry packets.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
        Box::new(LaneController { cubic, unlimited: Arc::default() })
    }
}

/// Cubic, unless told that its connection carries packets (or says goodbye). The accepting side learns the lane only with the
/// handshake, when the controller is long in use: the switch is shared by all copies of one controller.
struct LaneController {
    cubic: Box<dyn Controller>,
    unlimited: Arc<AtomicBool>,
}

/// Lifts the congestion window of `connection`'s present path. A move to another address may bring a new controller:
/// call it again then.
pub(super) fn lift_window(connection: &Connection) {
    set_unlimited(connection, true);
}

/// Takes [`lift_window`] back.
pub(super) fn restore_window(connection: &Connection) {
    set_unlimited(connection, false);
}

fn set_unlimited(connection: &Connection, unlimited: bool) {
    let copy = connection.congestion_state().clone_box().into_any();
    if let Ok(controller) = copy.downcast::<LaneController>() {
        controller.unlimited.store(unlimited, Ordering::Relaxed);
    }
}

impl Controller for LaneController {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
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
        Box::new(Self { cubic: self.cubic.clone_box(), unlimited: self.unlimited.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
