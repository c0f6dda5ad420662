//! Queries and answers as bytes (RFC 1035, RFC 2308, RFC 6891).

use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::message_builder::{AnswerBuilder, AuthorityBuilder, PushError};
use domain::base::{Message, MessageBuilder, Name as DnsName, ParsedName, Serial, StaticCompressor, Ttl};
use domain::rdata::{A, Aaaa, Ns, Ptr, Soa};

use super::Names;
use super::zone::{Data, Found};

/// How long others may keep an answer: a LAN that is renumbered, a host that moves.
const KEEP: Ttl = Ttl::from_secs(30);

/// How long they may keep that there is none: who has just named a host asks for it at once.
const KEEP_NOTHING: Ttl = Ttl::from_secs(10);

/// Of our datagrams, and what we tell that we take: fits every path (RFC 9715).
const LARGEST: u16 = 1232;

/// Without EDNS (RFC 1035 §4.2.1).
const PLAIN: u16 = 512;

/// The record with which EDNS is answered.
const OPT_LEN: usize = 11;

/// A query as it came.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub query: &'a [u8],
    pub from: IpAddr,
    pub over: Over,
    /// Whether somebody else is asked for other names.
    pub forwards: bool,
}

/// What carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Udp,
    Tcp,
}

/// What becomes of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Answer(Vec<u8>),
    /// Asked the wrong one, or of a stranger.
    Refused(Vec<u8>),
    /// Somebody else knows.
    Forward,
    /// It is no query.
    Silence,
}

/// What EDNS says of the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edns {
    version: u8,
    size: u16,
}

/// The part of a query that counts.
struct Query<'a> {
    name: ParsedName<&'a [u8]>,
    wanted: Rtype,
    class: Class,
    edns: Option<Edns>,
}

impl Names {
    /// In this order:
    /// 1. what is no query is not answered;
    /// 2. who lies behind no node of the cluster is refused everything;
    /// 3. other operations than queries are not implemented; what cannot be read is a format error;
    /// 4. a version of EDNS that is not 0 is told;
    /// 5. other classes and transfers of zones are refused;
    /// 6. names of ours are answered;
    /// 7. other names are for somebody else, if that is wished and we have one, and refused otherwise.
    pub fn answer(&self, asked: Asked<'_>) -> Reply {
        let Ok(message) = Message::from_octets(asked.query) else { return Reply::Silence };
        if message.header().qr() {
            return Reply::Silence;
        }
        let plain = Draft { asked, edns: None };
        let Some(asker) = self.site_of(asked.from) else {
            return Reply::Refused(plain.error(&message, Rcode::REFUSED));
        };
        if message.header().opcode() != Opcode::QUERY {
            return Reply::Refused(plain.error(&message, Rcode::NOTIMP));
        }
        let Some(query) = read(&message) else {
            return Reply::Refused(plain.error(&message, Rcode::FORMERR));
        };
        let draft = Draft { edns: query.edns, ..plain };
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return Reply::Refused(draft.error(&message, Rcode::NOERROR));
        }
        let is_transfer = matches!(query.wanted, Rtype::AXFR | Rtype::IXFR);
        if query.class != Class::IN || is_transfer {
            return Reply::Refused(draft.error(&message, Rcode::REFUSED));
        }
        match self.look_up(&labels(&query.name), query.wanted, asker) {
            Some(found) => Reply::Answer(draft.found(&message, &query.name, &found, self)),
            None if asked.forwards && message.header().rd() => Reply::Forward,
            None => Reply::Refused(draft.error(&message, Rcode::REFUSED)),
        }
    }

    fn authority(&self) -> Soa<DnsName<Vec<u8>>> {
        let person = dns_name(&format!("hostmaster.{}", self.apex));
        let (refresh, retry, expire) = (Ttl::from_secs(3600), Ttl::from_secs(600), Ttl::from_secs(86_400));
        let serial = Serial::from(self.serial);
        Soa::new(dns_name(&self.server), person, serial, refresh, retry, expire, KEEP_NOTHING)
    }
}

fn dns_name(text: &str) -> DnsName<Vec<u8>> {
    text.parse().expect("three of our names and what is above them fit into a name")
}

/// `None`: it does not follow the rules.
fn read<'a>(message: &Message<&'a [u8]>) -> Option<Query<'a>> {
    let question = message.sole_question().ok()?;
    let mut edns = None;
    for record in message.additional().ok()? {
        let record = record.ok()?;
        if record.rtype() == Rtype::OPT && edns.replace(read_edns(message)?).is_some() {
            return None;
        }
    }
    let (wanted, class) = (question.qtype(), question.qclass());
    Some(Query { name: question.into_qname(), wanted, class, edns })
}

fn read_edns(message: &Message<&[u8]>) -> Option<Edns> {
    let opt = message.opt()?;
    Some(Edns { version: opt.version(), size: opt.udp_payload_size() })
}

/// In lower case, from the left, without the root's.
fn labels(name: &ParsedName<&[u8]>) -> Vec<String> {
    let shown = |label: &[u8]| String::from_utf8_lossy(label).to_ascii_lowercase();
    name.iter().filter(|label| !label.is_root()).map(|label| shown(label.as_slice())).collect()
}

/// An answer in the making.
#[derive(Debug, Clone, Copy)]
struct Draft<'a> {
    asked: Asked<'a>,
    edns: Option<Edns>,
}

type Target = StaticCompressor<Vec<u8>>;
type Builder = AnswerBuilder<Target>;

impl Draft<'_> {
    fn limit(&self) -> usize {
        limit(self.asked.over, self.edns)
    }

    fn start(&self, message: &Message<&[u8]>, rcode: Rcode) -> Builder {
        let target = StaticCompressor::new(Vec::new());
        let mut builder = MessageBuilder::from_target(target).expect("a Vec takes every byte");
        builder.set_push_limit(self.limit() - if self.edns.is_some() { OPT_LEN } else { 0 });
        let mut answer = builder.start_error(message, rcode);
        answer.header_mut().set_ra(self.asked.forwards);
        answer
    }

    fn finish(&self, authority: AuthorityBuilder<Target>) -> Vec<u8> {
        let mut additional = authority.additional();
        additional.clear_push_limit();
        if let Some(Edns { version, .. }) = self.edns {
            let pushed = additional.opt(|opt| {
                opt.set_udp_payload_size(LARGEST);
                if version != 0 {
                    opt.set_rcode(OptRcode::BADVERS);
                }
                Ok(())
            });
            debug_assert!(pushed.is_ok(), "room was kept for it");
        }
        additional.finish().into_target()
    }

    fn error(&self, message: &Message<&[u8]>, rcode: Rcode) -> Vec<u8> {
        self.finish(self.start(message, rcode).authority())
    }

    fn found(
        &self,
        message: &Message<&[u8]>,
        owner: &ParsedName<&[u8]>,
        found: &Found,
        names: &Names,
    ) -> Vec<u8> {
        let rcode = if let Found::NoName { .. } = found { Rcode::NXDOMAIN } else { Rcode::NOERROR };
        let mut answer = self.start(message, rcode);
        answer.header_mut().set_aa(true);
        match found {
            Found::Records(records) => {
                let pushed = records.iter().try_for_each(|data| push(&mut answer, owner, data, names));
                if pushed.is_err() {
                    answer = answer.tc_rewind_into();
                }
                self.finish(answer.authority())
            }
            // How long that there is nothing may be kept follows from the zone's own record (RFC 2308 §3).
            Found::NoData { zone } | Found::NoName { zone } => {
                let mut authority = answer.authority();
                if authority.push((dns_name(zone), KEEP_NOTHING, names.authority())).is_err() {
                    authority = authority.tc_rewind_into();
                }
                self.finish(authority)
            }
        }
    }
}

fn push(
    answer: &mut Builder,
    owner: &ParsedName<&[u8]>,
    data: &Data,
    names: &Names,
) -> Result<(), PushError> {
    match data {
        Data::Address(IpAddr::V4(address)) => answer.push((owner, KEEP, A::new(*address))),
        Data::Address(IpAddr::V6(address)) => answer.push((owner, KEEP, Aaaa::new(*address))),
        Data::Pointer(name) => answer.push((owner, KEEP, Ptr::new(dns_name(name)))),
        Data::Server => answer.push((owner, KEEP, Ns::new(dns_name(&names.server)))),
        Data::Authority => answer.push((owner, KEEP, names.authority())),
    }
}

/// How long an answer may be.
fn limit(over: Over, edns: Option<Edns>) -> usize {
    match (over, edns) {
        (Over::Tcp, _) => usize::from(u16::MAX),
        (Over::Udp, Some(edns)) => edns.size.clamp(PLAIN, LARGEST).into(),
        (Over::Udp, None) => PLAIN.into(),
    }
}

/// Nobody whom we could ask answered.
pub fn failed(asked: Asked<'_>) -> Option<Vec<u8>> {
    let message = Message::from_octets(asked.query).ok()?;
    let edns = read(&message).and_then(|query| query.edns);
    Some(Draft { asked, edns }.error(&message, Rcode::SERVFAIL))
}

/// The same message under another number.
pub fn numbered(message: &[u8], id: [u8; 2]) -> Vec<u8> {
    let mut message = message.to_vec();
    message.iter_mut().zip(id).for_each(|(byte, id)| *byte = id);
    message
}

/// Whether bytes answer what was asked of somebody else.
pub fn is_answer(query: &[u8], answer: &[u8]) -> bool {
    let read = (Message::from_octets(query), Message::from_octets(answer));
    matches!(read, (Ok(query), Ok(answer)) if answer.is_answer(&query))
}

/// Somebody else's answer, for who asked: under his number, and no longer than he takes.
pub fn passed_on(asked: Asked<'_>, answer: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_octets(asked.query).ok()?;
    let edns = read(&message).and_then(|query| query.edns);
    if answer.len() <= limit(asked.over, edns) {
        return Some(numbered(answer, message.header().id().to_be_bytes()));
    }
    let draft = Draft { asked, edns };
    Some(draft.finish(draft.start(&message, Rcode::NOERROR).tc_rewind_into().authority()))
}
