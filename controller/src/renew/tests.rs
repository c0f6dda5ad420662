//! Renewals against a signer that takes a request at its word: a request is the key's name as text.

use super::*;
use crate::join::Signed;
use bus::UnixMillis;
use bus::token::TokenId;

const DAY: u64 = 24 * 3_600_000;
const UNTIL: u64 = 90 * DAY;

fn at(ms: u64) -> Now {
    Now { mono: Mono(ms * 1000), wall: UnixMillis(ms) }
}

fn name() -> Name {
    Name::new("pump-house").unwrap()
}

fn key(text: &str) -> KeyHash {
    KeyHash::of_spki(text.as_bytes())
}

fn sign(csr: &[u8], identity: &Identity) -> Result<Signed, CsrError> {
    match csr {
        b"garbage" => Err(CsrError::Malformed),
        b"cloud/hub" => Err(CsrError::OtherIdentity("spiffe://water/cloud/hub".to_owned())),
        b"no entropy" => Err(CsrError::Authority("no entropy".into())),
        key => Ok(Signed {
            certificate_der: [identity.to_string().as_bytes(), b" ", key].concat(),
            public_key: KeyHash::of_spki(key),
            serial: vec![7],
            not_after: UnixMillis(2 * UNTIL),
        }),
    }
}

/// A register with one edge, whose certificate for the key `k1` ends at [`UNTIL`].
struct Register {
    ks: Keyspace,
    rate: Rate,
}

impl Register {
    fn new() -> Self {
        let mut ks = Keyspace::new();
        let signed = Signed {
            certificate_der: Vec::new(),
            public_key: key("k1"),
            serial: vec![1],
            not_after: UnixMillis(UNTIL),
        };
        let node = NodeRecord::new(name(), name(), TokenId([0; 32]), &signed, UnixMillis(0));
        nodes::put(&node, &mut ks);
        Self { ks, rate: Rate::default() }
    }

    fn ask(&mut self, shown: &str, csr: &str, now: Now) -> Result<String, RenewRefusal> {
        let request = RenewRequest { csr_der: csr.as_bytes().to_vec() }.to_bytes();
        self.say(shown, &request, now)
    }

    fn say(&mut self, shown: &str, request: &[u8], now: Now) -> Result<String, RenewRefusal> {
        let water = Name::new("water").unwrap();
        let edge = name();
        let asker = Asker { name: &edge, key: key(shown) };
        let Self { ks, rate } = self;
        match handle_renew(&water, asker, request, ks, now, rate, &mut sign) {
            RenewReply::Renewed { certificate_der } => Ok(String::from_utf8(certificate_der).unwrap()),
            RenewReply::Refused { code, .. } => Err(code),
        }
    }

    fn record(&self) -> NodeRecord {
        nodes::get(&name(), &self.ks).unwrap().unwrap()
    }

    fn is_member(&self, shown: &str) -> bool {
        self.record().until(key(shown)).is_some()
    }
}

#[test]
fn a_member_gets_its_own_identity_for_a_new_key_and_the_old_one_counts_until_that_is_used() {
    let mut register = Register::new();
    assert_eq!(register.ask("k1", "k2", at(60 * DAY)), Ok("spiffe://water/edge/pump-house k2".to_owned()));
    assert!(register.is_member("k1") && register.is_member("k2"));
    assert_eq!(register.record().not_after, UnixMillis(UNTIL));
    nodes::promote(&name(), key("k1"), &mut register.ks).unwrap();
    assert!(register.is_member("k1") && register.is_member("k2"), "the old one is no proof of the new one");
    nodes::promote(&name(), key("k2"), &mut register.ks).unwrap();
    assert!(!register.is_member("k1") && register.is_member("k2"));
    assert_eq!(register.record().not_after, UnixMillis(2 * UNTIL));
    assert_eq!(register.ask("k1", "k3", at(61 * DAY)), Err(RenewRefusal::Superseded));
}

#[test]
fn an_edge_that_lost_the_answer_asks_again_with_another_key() {
    let mut register = Register::new();
    register.ask("k1", "k2", at(60 * DAY)).unwrap();
    register.ask("k1", "k3", at(61 * DAY)).unwrap();
    assert!(register.is_member("k1") && register.is_member("k3") && !register.is_member("k2"));
    // Asked with the newest, that is used by then.
    register.ask("k3", "k4", at(120 * DAY)).unwrap();
    assert!(!register.is_member("k1") && register.is_member("k3") && register.is_member("k4"));
}

#[test]
fn a_certificate_can_be_renewed_for_90_days_after_its_end_and_not_for_91() {
    let mut register = Register::new();
    register.ask("k1", "k2", at(UNTIL + 10 * DAY)).unwrap();
    register.ask("k1", "k2", at(UNTIL + 90 * DAY)).unwrap();
    assert_eq!(register.ask("k1", "k2", at(UNTIL + 91 * DAY)), Err(RenewRefusal::TooLate));
}

#[test]
fn a_revoked_edge_and_a_former_one_of_that_name_get_none() {
    let mut register = Register::new();
    assert_eq!(register.ask("stranger", "k2", at(0)), Err(RenewRefusal::Superseded));
    register.ks = Keyspace::new();
    assert_eq!(register.ask("k1", "k2", at(0)), Err(RenewRefusal::NotMember));
}

#[test]
fn hostile_requests_change_nothing() {
    let mut register = Register::new();
    let before = register.record();
    assert_eq!(register.ask("k1", "cloud/hub", at(0)), Err(RenewRefusal::InvalidCsr));
    assert_eq!(register.ask("k1", "garbage", at(0)), Err(RenewRefusal::InvalidCsr));
    assert_eq!(register.ask("k1", "no entropy", at(0)), Err(RenewRefusal::Internal));
    assert_eq!(register.say("k1", b"\xff\xff", at(0)), Err(RenewRefusal::Malformed));
    let long = RenewRequest { csr_der: vec![0; 1 << 20] }.to_bytes();
    assert_eq!(register.say("k1", &long, at(0)), Err(RenewRefusal::Malformed));
    assert_eq!(register.record(), before);
}

#[test]
fn nobody_gets_certificates_without_end() {
    let mut register = Register::new();
    for _ in 0..OF_ONE {
        register.ask("k1", "k2", at(0)).unwrap();
    }
    assert_eq!(register.ask("k1", "k2", at(9_999)), Err(RenewRefusal::Busy));
    register.ask("k1", "k2", at(10_000)).unwrap();
    let mut rate = Rate::default();
    let other = |number: usize| Name::new(&format!("e{number}")).unwrap();
    assert!((0..PER_SECOND).all(|number| rate.take(&other(number), Mono(5))));
    assert!(!rate.take(&name(), Mono(6)));
    assert!(rate.take(&name(), Mono(1_000_005)));
    assert!((0..100_000).all(|number| rate.take(&other(number), Mono(2_000_000 + number as u64 * 10_000))));
    assert!(rate.0.len() <= PER_SECOND * MEMORY.as_secs() as usize);
}
