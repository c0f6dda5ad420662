//! What a device says by itself, and whether it still says anything.

use super::Attendant;
use super::call::Call;
use crate::io::inbox::Inbox;
use crate::samples::Reading;
use crate::sink::Pushed;
use crate::{Mapper, Session};

impl<M: Mapper> Attendant<M> {
    /// Asks for what is to be pushed. The former subscription is heard until the new one stands.
    pub(super) async fn subscribe(&mut self) {
        let (Some(plan), Some(session)) = (&self.plan, &mut self.session) else { return };
        let sources = self.core.pushed().clone();
        let points: Vec<_> = sources.keys().filter_map(|name| plan.points.get(name)).collect();
        let (sink, mut inbox) = Inbox::open(sources, self.clock);
        let call =
            Call { limit: self.manifest.timeout, bus: &self.bus, configs: &self.configs, name: "subscribe" };
        let asked = call.make(&mut inbox, session.subscribe(&points, sink));
        match self.inbox.during(asked).await {
            Some(Ok(())) => {
                let last = self.inbox.close();
                self.pass_on(last);
                if self.session.is_none() {
                    return; // its end was among what was said last
                }
                self.inbox = inbox;
                self.core.handle_subscribed(self.mono());
            }
            Some(Err(error)) if error.keeps_session() => {
                tracing::warn!(device = %self.device, %error, "pushes nothing");
                self.core.handle_unsubscribed(&error, self.mono());
            }
            Some(Err(error)) => self.lost(&error),
            None => self.session = None,
        }
    }

    /// Passes on what the device has said by itself. What was said of a property that is another by now says nothing.
    pub(super) fn pass_on(&mut self, heard: Vec<Pushed>) {
        for pushed in heard {
            let mut now = self.clock.now();
            let (name, reading) = match pushed {
                Pushed::Lost(error) => return self.lost(&error),
                Pushed::Failed { point, error } => (point, Reading::Failed(error)),
                Pushed::Value { point, value, quality, time, at } => {
                    now = at; // however long it waited here
                    let Some(known) = self.plan.as_ref().and_then(|plan| plan.points.get(&point)) else {
                        continue;
                    };
                    let reading = Reading::of(known, value, quality, time);
                    (point, reading)
                }
            };
            let source = self.core.pushed().get(&name);
            if source.is_none() || source != self.inbox.sources.get(&name) {
                continue;
            }
            if let Some(error) = self.core.handle_reading(&name, reading, now) {
                tracing::warn!(device = %self.device, property = name, %error, "not pushed");
            }
        }
    }

    /// Asks a device that has been silent whether it is there.
    pub(super) async fn probe(&mut self) {
        let Some(session) = &mut self.session else { return };
        let call =
            Call { limit: self.manifest.timeout, bus: &self.bus, configs: &self.configs, name: "probe" };
        match call.make(&mut self.inbox, session.probe()).await {
            Some(Ok(())) => self.core.handle_answered(self.mono()),
            Some(Err(error)) if error.keeps_session() => {
                tracing::warn!(device = %self.device, %error, "probed");
                self.core.handle_answered(self.mono());
            }
            Some(Err(error)) => self.lost(&error),
            None => self.session = None,
        }
    }
}
