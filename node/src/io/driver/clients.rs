//! Clients of the broker, and KubeEdge's mappers.

use bytes::Bytes;
use device_twin::gate::Refusal;
use device_twin::io::dmi::{Answered, DmiEvent};
use device_twin::io::{BrokerEvent, Ticket as BrokerTicket};
use device_twin::{Expiry, Ticket};
use tracing::debug;

use super::Driver;
use crate::seam::Input;

/// Who waits for what a ticket stands for.
#[derive(Debug)]
pub(super) enum Asker {
    Client(BrokerTicket),
    Mapper(Answered),
}

impl Driver {
    pub(super) fn on_broker(&mut self, event: BrokerEvent) {
        match event {
            BrokerEvent::Publish {
                ticket,
                client: _,
                who,
                topic,
                payload,
                qos,
                retain,
                expiry,
                properties,
                rows,
            } => {
                let ticket = ticket.map(|ticket| self.ticket(Asker::Client(ticket)));
                let expiry = expiry.map(Expiry);
                self.handle(Input::Mqtt {
                    ticket,
                    who,
                    topic,
                    payload,
                    qos,
                    retain,
                    expiry,
                    properties,
                    rows,
                });
            }
            BrokerEvent::Keep { ticket, rows, receipt } => {
                let ticket = ticket.map(|ticket| self.ticket(Asker::Client(ticket)));
                self.handle(Input::Keep { ticket, rows, receipt });
            }
            BrokerEvent::Interest { filter, wanted } => self.handle(Input::Interest { filter, wanted }),
            BrokerEvent::Restored => self.handle(Input::Restored),
        }
    }

    pub(super) fn on_dmi(&mut self, event: DmiEvent) {
        match event {
            DmiEvent::Request(request, asker) => {
                let ticket = self.ticket(Asker::Mapper(asker));
                self.handle(Input::Dmi { ticket, request });
            }
            DmiEvent::Answer(call, answer) => self.handle(Input::DmiAnswer { call, answer }),
        }
    }

    fn ticket(&mut self, asker: Asker) -> Ticket {
        self.state.next_ticket += 1;
        self.state.tickets.insert(self.state.next_ticket, asker);
        Ticket(self.state.next_ticket)
    }

    /// A mapper gets the reply; a client of the broker needs none.
    pub(super) fn accept(&mut self, ticket: Ticket, reply: Bytes) {
        match self.state.tickets.remove(&ticket.0) {
            Some(Asker::Client(ticket)) => self.broker.accept(ticket),
            Some(Asker::Mapper(asker)) => asker.done(reply),
            None => {}
        }
    }

    pub(super) fn reject(&mut self, ticket: Ticket, why: String) {
        debug!(why, "refused a message");
        match self.state.tickets.remove(&ticket.0) {
            Some(Asker::Client(ticket)) => self.broker.reject(ticket, Refusal::Payload),
            Some(Asker::Mapper(asker)) => asker.refused(why),
            None => {}
        }
    }
}
