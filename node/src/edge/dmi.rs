//! KubeEdge's mappers at an edge, where they are served.

use bus::Now;
use bus::twin::MapperTopic;
use device_twin::Publish;
use device_twin::dmi::{self, Dmi};
use device_twin::gate::access::Who;
use device_twin::twin::Said;

use super::Edge;
use crate::seam::Output;

impl Edge {
    /// Serves KubeEdge's mappers from now on, those of the process before this too.
    pub fn serve_dmi(&mut self, now: Now) {
        let me = self.identity.node.name.clone();
        self.dmi = Some(Dmi::load(me, self.twins.catalog(), &self.keyspace, now.mono));
    }

    /// Whether a DMI mapper took it: a write goes to one mapper alone.
    pub(super) fn is_for_dmi(&mut self, publish: &Publish, now: Now) -> bool {
        let (Some(dmi), Some(topic)) = (&mut self.dmi, MapperTopic::parse(&publish.topic)) else {
            return false;
        };
        let is_its = matches!(topic, MapperTopic::Write { .. }) && dmi.serves(topic.mapper());
        if is_its {
            dmi.handle_write(topic.mapper(), &publish.payload, publish.expiry, now.mono);
        }
        is_its
    }

    pub(super) fn poll_dmi(&mut self, now: Now) -> Option<dmi::Output> {
        let dmi = self.dmi.as_mut()?;
        dmi.poll_output().or_else(|| {
            dmi.drive(&mut self.keyspace, now.mono);
            dmi.poll_output()
        })
    }

    pub(super) fn on_dmi(&mut self, output: dmi::Output, now: Now) {
        match output {
            dmi::Output::Call(call) => self.said.push_back(Output::Call(call)),
            dmi::Output::Registered(ticket, reply) => self.said.push_back(Output::Registered(ticket, reply)),
            dmi::Output::Reject(ticket, why) => self.said.push_back(Output::Reject(ticket, why)),
            dmi::Output::Note(text) => self.said.push_back(Output::Note(text)),
            dmi::Output::Say(ticket, topic, payload) => {
                // Whoever may open the socket speaks for every device here.
                let who = Who::Anonymous;
                self.twins.handle_publish(
                    ticket,
                    &who,
                    &topic,
                    Said::plain(&payload),
                    &mut self.keyspace,
                    now,
                );
            }
            dmi::Output::State(ticket, device, state) => {
                self.said.push_back(match self.twins.handle_device_state(&device, &state) {
                    Ok(()) => Output::Accept(ticket),
                    Err(why) => Output::Reject(ticket, why),
                });
            }
        }
    }
}
