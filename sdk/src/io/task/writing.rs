//! One write, under a permit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bus::io::Clock;
use bus::twin::Outcome;

use super::{Attendant, DeviceEvent};
use crate::desk::{Order, Target};
use crate::permit::{self, WritePermit, outcome_of};
use crate::{Error, Mapper, Session, WriteOutcome};

impl<M: Mapper> Attendant<M> {
    pub(super) async fn write(&mut self, order: Order) {
        if self.configs.has_changed().is_ok_and(|changed| changed) {
            self.reconfigure().await;
        }
        let Order { request, .. } = &order;
        tracing::info!(device = %self.device, property = request.property, value = %request.value, cause = request.cause, "write");
        let (id, property) = (request.id.clone(), request.property.clone());
        let (outcome, detail) = match self.try_write(order).await {
            Ok(done) => {
                let detail = if done.pending { "accepted, under way" } else { "" };
                self.core.handle_written(&property, done.readback, self.clock.now());
                (Outcome::Succeeded, detail.to_owned())
            }
            Err((outcome, detail)) => (outcome, detail),
        };
        self.tell(DeviceEvent::Written { id, outcome, detail }).await;
    }

    /// Hands the write to the driver, under a permit and within its time.
    async fn try_write(&mut self, order: Order) -> Result<WriteOutcome, (Outcome, String)> {
        let Order { request, deadline, target } = order;
        if self.configs.has_changed().is_err() {
            return Err((Outcome::Rejected, "the device is no longer served".to_owned()));
        }
        // Range, type and place were those of another configuration.
        if Target::of(&self.config, &request.property).as_ref() != Some(&target) {
            return Err((Outcome::Rejected, "the configuration changed meanwhile; send it again".to_owned()));
        }
        if deadline.is_over(self.clock.now()) {
            return Err((Outcome::Expired, "its turn came too late".to_owned()));
        }
        if let Some(why) = self.core.unreachable() {
            return Err((Outcome::Failed, format!("not connected: {why}")));
        }
        let (Some(plan), Some(session)) = (&self.plan, &mut self.session) else {
            return Err((Outcome::Failed, "not connected".to_owned()));
        };
        let Some(point) = plan.points.get(&request.property) else {
            return Err((
                Outcome::Rejected,
                "the property's address makes no sense to the mapper".to_owned(),
            ));
        };
        let raw = match point.scale.write(request.value, point.value_type) {
            Ok(raw) => raw,
            Err(wrong) => return Err((Outcome::Rejected, format!("in the device's own numbers: {wrong}"))),
        };
        // Rounded to what the device counts in, it may be another than was checked.
        if let Some(why) =
            point.scale.read(raw.clone(), point.value_type).ok().and_then(|held| target.beyond(&held))
        {
            return Err((
                Outcome::Rejected,
                format!("the nearest that the device can hold is out of range: {why}"),
            ));
        }
        let left = deadline.left(self.clock.now());
        let Some(_turn) = self.inbox.during(self.clock.timeout(left, self.bus.turn())).await else {
            return Err((Outcome::Expired, "the bus was busy until it was too old".to_owned()));
        };
        let (permit, consumed) = WritePermit::grant(request.cause, deadline, permits(self.clock));
        self.core.handle_write();
        let writing = self.clock.timeout(permit.left(), session.write(point, raw, permit));
        let result =
            self.inbox.during(writing).await.unwrap_or_else(|| Err(Error::Timeout("write".to_owned())));
        let (scale, value_type) = (point.scale, point.value_type);
        let scaled = |raw| scale.read(raw, value_type).ok();
        let result = result.map(|done| WriteOutcome { readback: done.readback.and_then(scaled), ..done });
        result.map_err(|error| {
            let consumed = consumed.load(Ordering::SeqCst);
            let end = ended(&error, consumed, deadline.is_over(self.clock.now()));
            if !error.keeps_session() {
                self.lost(&error);
            }
            (end, error.to_string())
        })
    }
}

/// The clock that permits look at.
fn permits(clock: Clock) -> permit::Clock {
    permit::Clock(Arc::new(move || clock.now()))
}

/// A driver that was still waiting when the time was over has moved nothing.
fn ended(error: &Error, consumed: bool, over: bool) -> Outcome {
    if matches!(error, Error::Timeout(_)) && over && !consumed {
        return Outcome::Expired;
    }
    outcome_of(error, consumed)
}
