//! What is common to all clients of the broker: their names, subscriptions, and what is retained.
//!
//! Every message gets a number when it comes in. A subscription is given the number reached when it came in: what
//! is retained tells it of all before, the router of all after, and no message is heard twice or out of order
//! because it was on its way in between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bus::{Filter, Mono, Topic};
use mqtt_protocol_core::mqtt::packet::RetainHandling;

use super::policy;
use super::retained::Retained;
use super::subscriptions::{FilterId, Subscription, Subscriptions};
use super::{ConnId, Delivery, Message, Numbered, Qos};

/// What the hub wants done, in this order.
#[derive(Debug, Clone)]
pub enum Output {
    /// Take the message through the router.
    Carry(Numbered),
    /// The router is to say which messages match this filter.
    Watch { id: FilterId, filter: Filter },
    /// No longer.
    Unwatch { id: FilterId, filter: Filter },
    /// One live message.
    Deliver { to: ConnId, delivery: Delivery },
    /// What was retained, to a new subscription.
    Replay { to: ConnId, deliveries: Vec<Delivery> },
    /// Close this connection: its client has come back on another one.
    TakeOver { old: ConnId },
    /// What other sites or the node say under this filter is wanted (no more).
    Interest { filter: Filter, wanted: bool },
}

/// A client's wish to subscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub filter: Filter,
    pub qos: Qos,
    pub no_local: bool,
    pub as_published: bool,
    pub retained: RetainHandling,
    pub identifier: Option<u32>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub clients: u64,
    pub filters: u64,
    pub retained: u64,
    pub retained_bytes: u64,
    /// Messages not retained because the store was full.
    pub retained_refused: u64,
}

/// The hub of one broker.
#[derive(Debug, Default)]
pub struct Hub {
    names: BTreeMap<String, ConnId>,
    clients: BTreeMap<ConnId, String>,
    table: Subscriptions,
    retained: Retained,
    /// The last number given out.
    number: u64,
    retained_refused: u64,
    outputs: VecDeque<Output>,
}

impl Hub {
    pub fn stats(&self) -> Stats {
        Stats {
            clients: self.clients.len() as u64,
            filters: self.table.count() as u64,
            retained: self.retained.len() as u64,
            retained_bytes: self.retained.bytes() as u64,
            retained_refused: self.retained_refused,
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// A client was let in.
    pub fn handle_opened(&mut self, client: ConnId, name: String) {
        if let Some(old) = self.names.insert(name.clone(), client) {
            self.forget(old);
            self.outputs.push_back(Output::TakeOver { old });
        }
        self.clients.insert(client, name);
    }

    /// A client is gone. Its will, if any, came before.
    pub fn handle_gone(&mut self, client: ConnId) {
        let Some(name) = self.clients.get(&client).cloned() else { return };
        self.names.remove(&name);
        self.forget(client);
    }

    fn forget(&mut self, client: ConnId) {
        self.clients.remove(&client);
        for (id, filter) in self.table.remove_client(client) {
            self.unwatch(id, filter);
        }
    }

    fn unwatch(&mut self, id: FilterId, filter: Filter) {
        if policy::concerns_node(&filter) {
            self.outputs.push_back(Output::Interest { filter: filter.clone(), wanted: false });
        }
        self.outputs.push_back(Output::Unwatch { id, filter });
    }

    /// A client or the node published.
    pub fn handle_publish(&mut self, message: Message, now: Mono) {
        let message = Arc::new(message);
        if message.retain {
            self.retained_refused += u64::from(self.retained.store(&message, now).is_err());
        }
        self.number += 1;
        if self.table.may_want(&message.topic) {
            self.outputs.push_back(Output::Carry(Numbered { number: self.number, message }));
        }
    }

    /// The router found that a message matches a filter.
    pub fn handle_carried(&mut self, id: FilterId, carried: &Numbered, now: Mono) {
        let Numbered { number, message } = carried;
        if message.is_expired(now) {
            return;
        }
        for (to, how) in self.table.subscribers(id) {
            let echo = how.no_local && message.from == Some(to);
            if how.after >= *number || echo {
                continue;
            }
            let delivery = Delivery {
                message: Arc::clone(message),
                qos: how.qos.min(message.qos),
                retain: message.retain && how.as_published,
                subscription: how.identifier,
            };
            self.outputs.push_back(Output::Deliver { to, delivery });
        }
    }

    /// The filters that match a topic, for a message that the router cannot carry.
    pub fn matching(&self, topic: &Topic) -> Vec<FilterId> {
        self.table.matching(topic)
    }

    /// All filters in use, for a new router.
    pub fn filters(&self) -> impl Iterator<Item = (FilterId, &Filter)> {
        self.table.filters()
    }

    pub fn handle_subscribe(&mut self, client: ConnId, wish: Wish, now: Mono) {
        if !self.clients.contains_key(&client) {
            return;
        }
        let Wish { filter, qos, no_local, as_published, retained, identifier } = wish;
        let how = Subscription { qos, no_local, as_published, identifier, after: self.number };
        let done = self.table.subscribe(client, filter.clone(), how);
        if done.first_of_filter {
            if policy::concerns_node(&filter) {
                self.outputs.push_back(Output::Interest { filter: filter.clone(), wanted: true });
            }
            self.outputs.push_back(Output::Watch { id: done.id, filter: filter.clone() });
        }
        let replay = match retained {
            RetainHandling::SendRetained => true,
            RetainHandling::SendRetainedIfNotExists => !done.replaced,
            RetainHandling::DoNotSendRetained => false,
        };
        if replay {
            self.replay(client, &filter, qos, identifier, now);
        }
    }

    fn replay(&mut self, to: ConnId, filter: &Filter, qos: Qos, subscription: Option<u32>, now: Mono) {
        let deliveries: Vec<Delivery> = self
            .retained
            .matching(filter, now)
            .map(|message| Delivery { qos: qos.min(message.qos), message, retain: true, subscription })
            .collect();
        if !deliveries.is_empty() {
            self.outputs.push_back(Output::Replay { to, deliveries });
        }
    }

    pub fn handle_unsubscribe(&mut self, client: ConnId, filter: &Filter) {
        if let Some((id, filter)) = self.table.unsubscribe(client, filter) {
            self.unwatch(id, filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);

    fn wish(filter: &str) -> Wish {
        Wish {
            filter: Filter::new(filter).unwrap(),
            qos: Qos::AtLeastOnce,
            no_local: false,
            as_published: false,
            retained: RetainHandling::SendRetained,
            identifier: None,
        }
    }

    fn message(topic: &str, payload: &'static str, retain: bool, from: Option<ConnId>) -> Message {
        Message {
            topic: Topic::new(topic).unwrap(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: Qos::ExactlyOnce,
            retain,
            expires: None,
            properties: vec![],
            from,
        }
    }

    /// Outputs as text, short enough to read; carried messages come straight back.
    fn drain(hub: &mut Hub) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(output) = hub.poll_output() {
            lines.extend(match output {
                Output::Carry(carried) => {
                    for id in hub.matching(&carried.message.topic) {
                        hub.handle_carried(id, &carried, Mono::ZERO);
                    }
                    None
                }
                Output::Watch { id, filter } => Some(format!("watch {} {filter}", id.0)),
                Output::Unwatch { id, filter } => Some(format!("unwatch {} {filter}", id.0)),
                Output::Deliver { to, delivery } => Some(format!("deliver {} {}", to.0, show(&delivery))),
                Output::Replay { to, deliveries } => {
                    let all: Vec<_> = deliveries.iter().map(show).collect();
                    Some(format!("replay {} {}", to.0, all.join(" ")))
                }
                Output::TakeOver { old } => Some(format!("take over {}", old.0)),
                Output::Interest { filter, wanted } => Some(format!("interest {filter} {wanted}")),
            });
        }
        lines
    }

    fn show(delivery: &Delivery) -> String {
        let Delivery { message, qos, retain, .. } = delivery;
        let text = std::str::from_utf8(&message.payload).unwrap();
        format!("{}={text}/{}{}", message.topic, *qos as u8, if *retain { "r" } else { "" })
    }

    #[test]
    fn a_subscriber_hears_what_is_retained_and_then_what_is_new() {
        let mut hub = Hub::default();
        hub.handle_opened(A, "a".into());
        hub.handle_publish(message("t/1", "old", true, None), Mono::ZERO);
        hub.handle_subscribe(A, wish("t/#"), Mono::ZERO);
        hub.handle_publish(message("t/1", "new", true, None), Mono::ZERO);
        assert_eq!(drain(&mut hub), ["watch 1 t/#", "replay 1 t/1=old/1r", "deliver 1 t/1=new/1"]);
    }

    #[test]
    fn what_no_filter_matches_is_not_carried_while_filters_are_few() {
        let mut hub = Hub::default();
        hub.handle_opened(A, "a".into());
        let mut carried = |filter: &str| {
            hub.handle_subscribe(A, wish(filter), Mono::ZERO);
            hub.handle_publish(message("t/1", "x", true, None), Mono::ZERO);
            std::iter::from_fn(|| hub.poll_output())
                .filter(|output| matches!(output, Output::Carry(_)))
                .count()
        };
        for few in 0..super::super::subscriptions::FEW {
            assert_eq!(carried(&format!("other/{few}")), 0);
        }
        assert_eq!(carried("one/more"), 1);
        assert_eq!(carried("t/#"), 1);
    }

    #[test]
    fn a_message_still_on_its_way_is_not_heard_after_its_successor() {
        let mut hub = Hub::default();
        hub.handle_opened(A, "a".into());
        hub.handle_opened(B, "b".into());
        hub.handle_subscribe(A, wish("t"), Mono::ZERO);
        hub.handle_publish(message("t", "1", true, None), Mono::ZERO);
        hub.handle_publish(message("t", "2", true, None), Mono::ZERO);
        hub.handle_subscribe(B, wish("t"), Mono::ZERO);
        assert_eq!(drain(&mut hub), ["watch 1 t", "replay 2 t=2/1r", "deliver 1 t=1/1", "deliver 1 t=2/1"]);
    }

    #[test]
    fn the_first_subscriber_of_a_filter_is_an_interest_and_the_last_ends_it() {
        let mut hub = Hub::default();
        hub.handle_opened(A, "a".into());
        hub.handle_opened(B, "b".into());
        hub.handle_subscribe(A, wish("mesh/x"), Mono::ZERO);
        hub.handle_subscribe(B, wish("mesh/x"), Mono::ZERO);
        hub.handle_subscribe(B, wish("own"), Mono::ZERO);
        assert_eq!(drain(&mut hub), ["interest mesh/x true", "watch 1 mesh/x", "watch 2 own"]);
        hub.handle_unsubscribe(A, &Filter::new("mesh/x").unwrap());
        assert_eq!(drain(&mut hub), [""; 0]);
        hub.handle_gone(B);
        assert_eq!(drain(&mut hub), ["interest mesh/x false", "unwatch 1 mesh/x", "unwatch 2 own"]);
    }

    #[test]
    fn a_client_that_comes_back_takes_over_from_its_old_connection() {
        let mut hub = Hub::default();
        hub.handle_opened(A, "same".into());
        hub.handle_subscribe(A, wish("x"), Mono::ZERO);
        hub.handle_opened(B, "same".into());
        assert_eq!(drain(&mut hub), ["watch 1 x", "unwatch 1 x", "take over 1"]);
        hub.handle_gone(A);
        assert_eq!(hub.stats().clients, 1);
        hub.handle_gone(B);
        assert_eq!(hub.stats().clients, 0);
    }

    #[test]
    fn options_of_a_subscription_are_kept() {
        let mut hub = Hub::default();
        hub.handle_opened(A, "a".into());
        hub.handle_subscribe(A, Wish { no_local: true, ..wish("t") }, Mono::ZERO);
        hub.handle_publish(message("t", "own", false, Some(A)), Mono::ZERO);
        hub.handle_publish(message("t", "other", true, Some(B)), Mono::ZERO);
        let again = Wish {
            as_published: true,
            qos: Qos::AtMostOnce,
            retained: RetainHandling::SendRetainedIfNotExists,
            ..wish("t")
        };
        assert_eq!(drain(&mut hub), ["watch 1 t", "deliver 1 t=other/1"]);
        hub.handle_subscribe(A, again, Mono::ZERO);
        hub.handle_publish(message("t", "kept", true, Some(B)), Mono::ZERO);
        assert_eq!(drain(&mut hub), ["deliver 1 t=kept/0r"]);
    }

    #[test]
    fn an_expired_message_reaches_nobody() {
        let mut hub = Hub::default();
        hub.handle_opened(A, "a".into());
        hub.handle_subscribe(A, wish("t"), Mono::ZERO);
        let stale = Message { expires: Some(Mono(5)), ..message("t", "x", false, None) };
        let carried = Numbered { number: 1, message: Arc::new(stale) };
        assert_eq!(drain(&mut hub), ["watch 1 t"]);
        hub.handle_carried(FilterId(1), &carried, Mono(5));
        assert_eq!(drain(&mut hub), [""; 0]);
        hub.handle_carried(FilterId(1), &carried, Mono(4));
        assert_eq!(drain(&mut hub), ["deliver 1 t=x/1"]);
    }
}
