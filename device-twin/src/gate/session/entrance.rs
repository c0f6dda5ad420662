//! Who comes in, before anything else of its CONNECT is looked at; and what it may say then.

use bus::{Filter, Mono, Topic};
use mqtt_protocol_core::mqtt::packet::Packet;

use super::{Output, Session, State};
use crate::gate::access::{Admission, Claim, NotAdmitted, Permit, Who};
use crate::gate::{Refusal, Route, route};

/// A CONNECT whose password is being checked.
#[derive(Debug)]
pub(super) struct Waiting {
    connect: Packet,
    /// What the client said right after it, not waiting for the CONNACK (MQTT 5.0 §3.1.4): the rest of one read.
    held: Vec<u8>,
}

/// What is known of the client by now.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) who: Who,
    pub(super) permit: Permit,
}

impl Session {
    /// Who the client is; anonymous until it is let in.
    pub fn who(&self) -> &Who {
        &self.admitted.who
    }

    pub(super) fn handle_connect(&mut self, connect: Packet) {
        let (user, password) = credentials(&connect);
        match self.guard.admit(user, password) {
            Admission::As(who) => self.let_in(who, &connect),
            Admission::Check(claim) => self.check(claim, connect),
            Admission::Refused(why) => self.turn_away(&connect, why),
        }
    }

    fn check(&mut self, claim: Claim, connect: Packet) {
        self.waiting = Some(Waiting { connect, held: Vec::new() });
        self.outputs.push_back(Output::Check(claim));
    }

    /// Keeps what came before the password was checked.
    pub(super) fn hold(&mut self, bytes: &[u8]) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        waiting.held.extend_from_slice(bytes);
        true
    }

    /// What came out of [`Output::Check`].
    pub fn handle_checked(&mut self, outcome: Result<Who, NotAdmitted>, now: Mono) {
        let Some(Waiting { connect, held }) = self.waiting.take() else { return };
        if !matches!(self.state, State::Greeting) {
            return;
        }
        self.now = now;
        match outcome {
            Ok(who) => self.let_in(who, &connect),
            Err(why) => self.turn_away(&connect, why),
        }
        self.handle_bytes(&held, now);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "called with a CONNECT")]
    fn let_in(&mut self, who: Who, connect: &Packet) {
        let client = client_id(connect).filter(|id| !id.is_empty());
        let client = client.map_or_else(|| self.assigned_name(), str::to_owned);
        let permit = self.guard.permit(&who, &client);
        self.admitted = Admitted { who, permit };
        match connect {
            Packet::V3_1_1Connect(connect) => self.handle_connect_3(connect),
            Packet::V5_0Connect(connect) => self.handle_connect_5(connect),
            _ => {}
        }
    }

    fn turn_away(&mut self, connect: &Packet, why: NotAdmitted) {
        self.stats.not_admitted += 1;
        if matches!(connect, Packet::V5_0Connect(_)) {
            self.refuse_5(why.code_5());
        } else {
            self.refuse_3(why.code_3());
        }
    }

    /// Who gets what the client publishes, or leaves as its will: first what it may say, then what anybody may.
    pub(super) fn route(&self, topic: &Topic, retain: bool) -> Result<Route, Refusal> {
        if !self.admitted.permit.may_publish(topic) {
            return Err(Refusal::NotAllowed);
        }
        route(topic, retain)
    }

    /// Whether the client has the right to all that this filter matches. What comes out of a stored session is to be
    /// asked about again: rights may be others by now.
    pub fn may_subscribe(&self, filter: &Filter) -> bool {
        self.admitted.permit.may_subscribe(filter)
    }

    pub(super) fn is_being_checked(&self) -> bool {
        matches!(self.state, State::Greeting) && self.waiting.is_some()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other packet has any")]
fn credentials(connect: &Packet) -> (Option<&str>, Option<&[u8]>) {
    match connect {
        Packet::V3_1_1Connect(connect) => (connect.user_name(), connect.password()),
        Packet::V5_0Connect(connect) => (connect.user_name(), connect.password()),
        _ => (None, None),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other packet has one")]
fn client_id(connect: &Packet) -> Option<&str> {
    match connect {
        Packet::V3_1_1Connect(connect) => Some(connect.client_id()),
        Packet::V5_0Connect(connect) => Some(connect.client_id()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mqtt_protocol_core::mqtt::packet::{Qos, v3_1_1, v5_0};

    use super::super::{CloseReason, ConnId, SessionId, Stats, Terms};
    use super::*;
    use crate::gate::access::{Guard, Rights, Rule};
    use crate::gate::hub::Opened;

    const NOW: Mono = Mono::ZERO;

    fn guard(rules: Vec<Rule>) -> Guard {
        let rights = Arc::new(Rights::new(rules).unwrap());
        Guard { known: None, anonymous: false, passwords: true, rights }
    }

    fn rule(who: &str, publish: &str, subscribe: &str) -> Rule {
        Rule::new(who, vec![publish.to_owned()], vec![subscribe.to_owned()]).unwrap()
    }

    fn session(guard: Guard) -> Session {
        let terms = Terms { max_packet: 1024, max_keep_alive: 0, start: 0 };
        Session::guarded(ConnId(7), guard, terms, NOW)
    }

    /// Opens the session that is asked for, and says what it goes by.
    fn open(session: &mut Session) -> String {
        let client = std::iter::from_fn(|| session.poll_output())
            .find_map(|output| if let Output::Open(open) = output { Some(open.client) } else { None });
        let (received, filters) = Default::default();
        let (conn, id) = (ConnId(7), SessionId(1));
        let opened = Opened { conn, session: id, kept: false, present: false, received, filters };
        session.handle_opened(opened, &[], NOW);
        client.expect("a session that is asked for")
    }

    fn alice() -> Who {
        Who::of_login("alice").unwrap()
    }

    fn connect_3() -> Vec<u8> {
        let connect = v3_1_1::Connect::builder().client_id("c").unwrap().clean_session(true);
        let connect = connect.user_name("alice").unwrap().password(b"right").unwrap();
        connect.build().unwrap().to_continuous_buffer()
    }

    fn connect_5(will: Option<&str>) -> Vec<u8> {
        let connect = v5_0::Connect::builder().client_id("c").unwrap().clean_start(true);
        let connect = match will {
            Some(topic) => connect.will_message(topic, b"gone", Qos::AtLeastOnce, false).unwrap(),
            None => connect,
        };
        let connect = connect.user_name("alice").unwrap().password(b"right").unwrap();
        connect.build().unwrap().to_continuous_buffer()
    }

    fn drain(session: &mut Session) -> (Vec<Output>, Vec<u8>) {
        (std::iter::from_fn(|| session.poll_output()).collect(), session.take_bytes())
    }

    fn asked() -> Output {
        Output::Check(Claim { user: "alice".to_owned(), password: b"right".to_vec() })
    }

    #[test]
    fn who_waits_for_its_password_is_not_read_from_and_what_it_said_meanwhile_comes_after() {
        for connect in [connect_3(), connect_5(None)] {
            let mut session = session(guard(vec![]));
            let at_once = [&connect[..], &[0xc0, 0]].concat();
            session.handle_bytes(&at_once, NOW);
            assert_eq!(drain(&mut session), (vec![asked()], vec![]));
            assert_eq!((session.wants_bytes(), session.poll_timeout()), (false, None));
            session.handle_checked(Ok(alice()), NOW);
            assert_eq!(open(&mut session), "user/alice\0c");
            let (_, bytes) = drain(&mut session);
            assert_eq!((bytes[0], bytes.ends_with(&[0xd0, 0])), (0x20, true));
            assert_eq!((session.who(), session.wants_bytes()), (&alice(), true));
        }
    }

    #[test]
    fn each_reason_not_to_be_let_in_has_its_code_in_both_versions() {
        for (why, code_3, code_5) in [
            (NotAdmitted::Credentials, 4, 0x86),
            (NotAdmitted::Anonymous, 5, 0x87),
            (NotAdmitted::Busy, 3, 0x89),
        ] {
            let mut old = session(guard(vec![]));
            old.handle_bytes(&connect_3(), NOW);
            old.handle_checked(Err(why), NOW);
            let closed = Output::Close(CloseReason::Refused);
            assert_eq!(drain(&mut old), (vec![asked(), closed.clone()], vec![0x20, 2, 0, code_3]));
            let mut new = session(guard(vec![]));
            new.handle_bytes(&connect_5(None), NOW);
            new.handle_checked(Err(why), NOW);
            assert_eq!(drain(&mut new), (vec![asked(), closed], vec![0x20, 3, 0, code_5, 0]));
            assert_eq!(new.stats(), Stats { not_admitted: 1, ..Stats::default() });
        }
    }

    #[test]
    fn a_password_that_is_right_too_late_opens_nothing() {
        let mut session = session(guard(vec![]));
        session.handle_bytes(&connect_3(), NOW);
        session.close(CloseReason::Shutdown, NOW);
        session.handle_checked(Ok(alice()), NOW);
        assert_eq!(drain(&mut session), (vec![asked(), Output::Close(CloseReason::Shutdown)], vec![]));
    }

    #[test]
    fn a_will_that_may_not_be_said_is_refused_at_the_door() {
        for (topic, answer) in [("own/x", None), ("other/x", Some(vec![0x20, 3, 0, 0x87, 0]))] {
            let mut session = session(guard(vec![rule("user/alice", "own/#", "own/#")]));
            session.handle_bytes(&connect_5(Some(topic)), NOW);
            session.handle_checked(Ok(alice()), NOW);
            match answer {
                None => assert_eq!(open(&mut session), "user/alice\0c", "{topic}"),
                Some(refused) => assert_eq!(drain(&mut session).1, refused, "{topic}"),
            }
        }
    }

    /// SUBSCRIBE of `own/#`, `#` and `other` at QoS 1, PUBLISH to `own/a` and `other` at QoS 0, 1 and 2.
    fn words(is_5: bool) -> Vec<u8> {
        let none: &[u8] = if is_5 { &[0] } else { &[] };
        let subscribe = [&[0, 1], none, b"\x00\x05own/#\x01\x00\x01#\x01\x00\x05other\x01"].concat();
        let mut bytes = vec![0x82, u8::try_from(subscribe.len()).unwrap()];
        bytes.extend(subscribe);
        for (qos, topic) in [(0, "own/a"), (0, "other"), (1, "own/a"), (1, "other"), (2, "other")] {
            let id: &[u8] = if qos == 0 { &[] } else { &[0, qos] };
            let publish = [&[0, 5], topic.as_bytes(), id, none, b"x"].concat();
            bytes.extend([0x30 | qos << 1, u8::try_from(publish.len()).unwrap()]);
            bytes.extend(publish);
        }
        bytes
    }

    #[test]
    fn without_a_right_every_packet_is_answered_and_nothing_is_done() {
        let answers_3 = [&[0x90, 5, 0, 1, 1, 0x80, 0x80][..], &[0x40, 2, 0, 1, 0x40, 2, 0, 1, 0x50, 2, 0, 2]];
        let answers_5 = [&[0x90, 6, 0, 1, 0, 1, 0x87, 0x87][..], &[0x40, 3, 0, 1, 0]];
        for (connect, is_5, answers) in [(connect_3(), false, answers_3), (connect_5(None), true, answers_5)]
        {
            let mut session = session(guard(vec![rule("*", "own/#", "own/#")]));
            session.handle_bytes(&connect, NOW);
            session.handle_checked(Ok(alice()), NOW);
            open(&mut session);
            drain(&mut session);
            session.handle_bytes(&words(is_5), NOW);
            let (outputs, mut bytes) = drain(&mut session);
            let mut done = Vec::new();
            let mut later = Vec::new();
            for output in outputs {
                match output.clone() {
                    Output::Subscribe { wishes, answer } => {
                        done.extend(wishes.iter().map(|wish| wish.wanted.filter.to_string()));
                        session.handle_answer(answer, Ok(()), NOW);
                        later.extend(session.take_bytes());
                    }
                    Output::Publish { message, answer, .. } => {
                        done.push(message.topic.to_string());
                        answer.into_iter().for_each(|answer| session.handle_answer(answer, Ok(()), NOW));
                        later.extend(session.take_bytes());
                    }
                    Output::Check(_)
                    | Output::Open(_)
                    | Output::Unsubscribe { .. }
                    | Output::Finished { .. }
                    | Output::Received { .. }
                    | Output::Forget { .. }
                    | Output::Close(_) => panic!("{output:?}"),
                }
            }
            // What is done is answered when that stands, what is refused at once.
            bytes = [later, bytes].concat();
            assert_eq!(done, ["own/#", "own/a", "own/a"], "5.0: {is_5}");
            assert!(bytes.starts_with(&answers.concat()), "5.0: {is_5}, {bytes:x?}");
            assert_eq!(session.stats().refused, 3, "5.0: {is_5}");
            let not_authorized = bytes.iter().filter(|byte| **byte == 0x87).count();
            assert_eq!(not_authorized, if is_5 { 4 } else { 0 });
        }
    }
}
