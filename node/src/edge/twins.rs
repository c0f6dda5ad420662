//! What an edge's twins say.

use bus::twin::TwinTopic;
use bus::{Message, Now};
use device_twin::Publish;
use device_twin::edge::Output as FromTwins;

use super::Edge;
use crate::seam::{Output, Record};

impl Edge {
    pub(super) fn on_twins(&mut self, output: FromTwins, now: Now) {
        self.hear(&output, now);
        match output {
            FromTwins::Publish(publish) if self.is_for_dmi(&publish, now) => {}
            FromTwins::Publish(Publish { topic, payload, retain, expiry }) => {
                if let Some(TwinTopic::Reported { .. }) = TwinTopic::parse(&topic) {
                    let message =
                        Message::new(topic.clone(), payload.clone(), retain, self.identity.node.clone());
                    self.bus.publish(message, now);
                }
                self.said.push_back(Output::Publish(Publish { topic, payload, retain, expiry }.into()));
            }
            FromTwins::Reply(announcement) => self.said.push_back(Output::Publish(announcement)),
            FromTwins::Up { class, key, payload } => self.tell_cloud(class, key, payload, now),
            FromTwins::Accept(ticket) => {
                self.said.promise(Output::Accept(ticket), Some(Output::Unkept(ticket)));
            }
            FromTwins::Reject(ticket, why) => self.said.push_back(Output::Reject(ticket, why)),
            FromTwins::Sample { id, sample } => {
                self.said.push_back(Output::Record(Record::Sample { id, sample }));
            }
            FromTwins::Audit(entry) => self.said.push_back(Output::Record(Record::Audit(entry))),
            FromTwins::Watch(filter) => self.interest.change(&filter, true, &mut self.bus),
            FromTwins::Unwatch(filter) => self.interest.change(&filter, false, &mut self.bus),
            FromTwins::RuleLog(line) => self.said.push_back(Output::Record(Record::Rule(line))),
            FromTwins::RuleHeads(lines) => self.said.push_back(Output::Record(Record::RuleHeads(lines))),
        }
    }

    /// What of it is an event.
    fn hear(&mut self, output: &FromTwins, now: Now) {
        let (herald, catalog, ks) = (&mut self.herald, self.twins.catalog(), &mut self.keyspace);
        match output {
            FromTwins::Publish(publish) => herald.handle_publish(publish, catalog, ks, now),
            FromTwins::Audit(entry) => herald.handle_audit(entry, ks, now),
            FromTwins::Up { key, payload, .. } if key.starts_with("rule/") => {
                if let Ok(view) = minicbor::decode(payload) {
                    herald.handle_rule(&view, ks, now);
                }
            }
            FromTwins::Up { .. }
            | FromTwins::Reply(_)
            | FromTwins::Accept(_)
            | FromTwins::Reject(..)
            | FromTwins::Sample { .. }
            | FromTwins::Watch(_)
            | FromTwins::Unwatch(_)
            | FromTwins::RuleLog(_)
            | FromTwins::RuleHeads(_) => {}
        }
    }
}
