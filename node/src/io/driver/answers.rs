//! What is asked of a node, and what its parts add to the answer.

use router::io::shard::{Command, LinkReport};
use serde_json::json;

use super::Driver;
use crate::admin::AdminResponse;
use crate::io::api::{Asked, Question, Reply};
use crate::io::debug::dials;
use crate::io::{metrics, status};
use crate::seam::Input;
use crate::wireguard::CLIENTS;

pub(super) type Document = serde_json::Map<String, serde_json::Value>;

impl Driver {
    pub(super) fn on_admin(&mut self, asked: Asked) {
        // Who asked was told that the node is busy: what he wished then must not happen now.
        if asked.reply.is_closed() {
            return;
        }
        if matches!(asked.question, Question::Alive) {
            // Who asked may have hung up.
            return drop(asked.reply.send(Reply::Alive));
        }
        self.state.next_question += 1;
        self.state.questions.insert(self.state.next_question, asked.reply);
        let id = self.state.next_question;
        self.handle(match asked.question {
            Question::Document(request) => Input::Admin { id, request },
            Question::Order { who, request } => Input::Order { id, who, request },
            Question::Api(request) => Input::Api { id, request },
            Question::Backup => Input::Backup { id },
            // Once it is measured.
            Question::Fleet => return self.measure(Some(id)),
            // It was answered.
            Question::Alive => return,
        });
    }

    pub(super) fn answer(&mut self, id: u64, response: AdminResponse) {
        match response {
            Ok(serde_json::Value::Object(mut status)) if status.contains_key("node") => {
                self.describe_parts(&mut status);
                self.state.waiting_status.insert(id, status);
                self.command(Command::Report { id });
            }
            Ok(mut document) if document.get(CLIENTS).is_some() => {
                self.reply(id, Reply::Document(Ok(self.wireguard.with_tunnels(document[CLIENTS].take()))));
            }
            response => self.reply(id, Reply::Document(response)),
        }
    }

    pub(super) fn reply(&mut self, id: u64, reply: Reply) {
        if let Some(asked) = self.state.questions.remove(&id) {
            // Who asked may have hung up.
            let _ = asked.send(reply);
        }
    }

    /// What the parts of this process say of themselves. The shard's word comes later, in [`Self::on_report`].
    fn describe_parts(&self, status: &mut Document) {
        status
            .insert("overlay".to_owned(), status::overlay(self.overlay.as_ref(), self.state.lease.as_ref()));
        status.insert("wireguard".to_owned(), self.wireguard.status());
        if let Some(upstream) = &self.upstream {
            status.insert("upstream".to_owned(), dials::describe(upstream, &self.state.failures));
        }
        let mut counters = status::counters(
            &self.shard.stats(),
            &self.broker.stats(),
            &self.store.stats(),
            &self.recorder.handle().stats(),
        );
        if let Some(dns) = &self.dns {
            counters["dns_queries"] = dns.counters();
        }
        status.insert("counters".to_owned(), counters);
        if let Some(state) = self.broker.external_state() {
            status.insert("mqtt".to_owned(), json!({ "external": state }));
        }
    }

    /// Goes on with [`Self::on_measured`].
    pub(super) fn measure(&mut self, asked: Option<u64>) {
        self.state.next_question += 1;
        let id = self.state.next_question;
        self.state.measures.insert(id, asked);
        self.command(Command::Report { id });
    }

    fn on_measured(&mut self, asked: Option<u64>, links: &[LinkReport]) {
        let parts = metrics::Parts {
            shard: self.shard.stats(),
            broker: self.broker.stats(),
            store: self.store.stats(),
            recorder: self.recorder.handle().stats(),
            overlay: self.overlay.as_ref(),
            trouble: self.state.trouble.clone(),
        };
        self.handle(Input::Measured(Box::new(metrics::measured(parts, links))));
        if let Some(id) = asked {
            self.handle(Input::Fleet { id });
        }
    }

    pub(super) fn on_report(&mut self, id: u64, links: &[LinkReport]) {
        if let Some(asked) = self.state.measures.remove(&id) {
            return self.on_measured(asked, links);
        }
        let Some(mut status) = self.state.waiting_status.remove(&id) else { return };
        status.insert("links".to_owned(), status::links(links));
        self.reply(id, Reply::Document(Ok(status.into())));
    }
}
