//! One agent, asked and written to.

use std::collections::VecDeque;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::Range;

use async_snmp::{Client, ClientBuilder, Error as Snmp, ErrorStatus, Oid, UdpTransport, Value, WalkOptions};
use kubebus_sdk::{Error, WriteOutcome, WritePermit};

use crate::config::{Config, config};
use crate::fault;
use crate::gate::{Gate, Passage};

/// Objects of one request: some 800 bytes, which every agent's datagram takes. Fewer if the agent says that its answer
/// would be too big.
const OBJECTS_PER_REQUEST: usize = 32;

/// Longest answer that is heard, in bytes; a version 3 agent is told. Enough for a request full of long texts.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Port of an agent that names none.
const PORT: u16 = 161;

/// What every agent has (RFC 3418).
const SYS_UP_TIME: [u32; 9] = [1, 3, 6, 1, 2, 1, 1, 3, 0];

/// Number of rows that one walk reads at most.
const WALK_LIMIT: usize = 512;

/// An agent and what it lets us do.
pub(crate) struct Agent {
    client: Client<Gate>,
    gate: Gate,
    /// Learnt from the agent.
    per_request: usize,
}

/// What became of one object: a value (which may be an exception such as `noSuchObject`), or what the agent said instead.
pub(crate) type Answer = Result<Value, ErrorStatus>;

impl Agent {
    /// Talks to this agent once, to see that it is there and lets us in.
    pub(crate) async fn open(settings: &Config) -> Result<Self, Error> {
        let mut agent = Self::connect(settings, false).await?;
        match agent.greet().await {
            Ok(()) => Ok(agent),
            Err(silence @ Error::Timeout(_)) if agent.gate.has_heard() => {
                Err(Self::why_silent(settings).await.unwrap_or(silence))
            }
            Err(error) => Err(error),
        }
    }

    /// What an agent of version 3 says to somebody whom it does not know, which it cannot sign: so it counts for nothing
    /// but this, the reason that a person is told.
    async fn why_silent(settings: &Config) -> Option<Error> {
        let settings = Config { retries: 0, ..settings.clone() };
        let mut agent = Self::connect(&settings, true).await.ok()?;
        agent.greet().await.err().filter(|error| matches!(error, Error::Auth(_)))
    }

    /// A socket for this agent; nothing is sent.
    async fn connect(settings: &Config, hear_unsigned: bool) -> Result<Self, Error> {
        let auth = settings.auth()?;
        let (timeout, retry) = settings.patience()?;
        let target = resolve(&settings.agent).await?;
        let local = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpTransport::builder().bind(local).receive_capacity(LONGEST_ANSWER).build().await;
        let handle = socket.and_then(|socket| socket.handle(target)).map_err(Error::transient)?;
        let gate = Gate::new(handle.strict_source(true));
        let client = ClientBuilder::new(auth)
            .request_timeout(timeout)
            .retry(retry)
            .max_oids_per_request(OBJECTS_PER_REQUEST)
            .allow_unauthenticated_v3_time_correction(hear_unsigned)
            .build_with_transport(gate.clone())
            .map_err(config)?;
        Ok(Self { client, gate, per_request: OBJECTS_PER_REQUEST })
    }

    /// Any answer will do, also that there is no such object.
    pub(crate) async fn greet(&mut self) -> Result<(), Error> {
        self.get(&[Oid::from(SYS_UP_TIME)]).await.map(drop)
    }

    /// Asks for all of these, in as few requests as the agent allows. An answer belongs to an object by its OID, whatever
    /// its place is.
    pub(crate) async fn get(&mut self, oids: &[Oid]) -> Result<Vec<Answer>, Error> {
        let mut answers: Vec<Answer> = vec![Err(ErrorStatus::GenErr); oids.len()];
        let mut waiting: VecDeque<Range<usize>> = self.requests(oids.len()).collect();
        while let Some(range) = waiting.pop_front() {
            let (done, refused) = self.ask(&oids[range.clone()]).await?;
            let answered = range.start..range.start + done.objects;
            for (oid, answer) in oids[answered.clone()].iter().zip(&mut answers[answered.clone()]) {
                let found = done.values.iter().find(|(of, _)| of == oid);
                *answer = found.map(|(_, value)| value.clone()).ok_or(ErrorStatus::GenErr);
            }
            let Some(Refused { objects, status }) = refused else { continue };
            let refused = range.start + objects.start..range.start + objects.end;
            let mut again = vec![answered.end..refused.start, refused.end..range.end];
            if refused.len() == 1 {
                answers[refused.start] = Err(status);
            } else {
                let middle = refused.start + refused.len() / 2;
                again.extend([refused.start..middle, middle..refused.end]);
            }
            waiting.extend(again.into_iter().filter(|range| !range.is_empty()));
        }
        Ok(answers)
    }

    fn requests(&self, objects: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let size = self.per_request;
        (0..objects).step_by(size).map(move |start| start..objects.min(start + size))
    }

    /// One request. When its answer would be too big, the library halves it until the parts fit; the largest that did is
    /// what the agent is asked next time.
    async fn ask(&mut self, oids: &[Oid]) -> Result<(Done, Option<Refused>), Error> {
        let mut parts = self.client.get_many_chunks(oids).map_err(|e| self.fault(&e))?;
        let (mut done, mut largest) = (Done::default(), 0);
        while let Some(part) = parts.next().await {
            match part {
                Ok(part) => {
                    done.objects = part.request_range.end;
                    largest = part.request_range.len().max(largest);
                    done.values.extend(part.response.varbinds.into_iter().map(|v| (v.oid, v.value)));
                }
                Err(failed) => {
                    let refused = refused(&failed.source, failed.failed_request_range);
                    return refused
                        .map(|refused| (done, Some(refused)))
                        .ok_or_else(|| self.fault(&failed.source));
                }
            }
        }
        if (1..oids.len()).contains(&largest) {
            self.per_request = self.per_request.min(largest);
        }
        Ok((done, None))
    }

    fn fault(&self, error: &Snmp) -> Error {
        fault::of_exchange(error, self.client.version())
    }

    /// Sends one SET with one object, once.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library may learn more errors: they are none of these"
    )]
    pub(crate) async fn set(
        &mut self,
        oid: &Oid,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        self.gate.arm(permit);
        let answer = self.client.set(oid, value).await;
        match (self.gate.disarm(), answer) {
            (Passage::Expired, _) => Err(Error::Expired),
            // What a SET's answer repeats is what was asked for, not what the device has now (RFC 3416 §4.2.5).
            (Passage::Sent(consumed), Ok(_)) => Ok(consumed.applied()),
            (Passage::Sent(_), Err(error)) => Err(match error.exchange_source() {
                Snmp::Snmp { status, .. } => fault::of_write(*status),
                other => self.fault(other),
            }),
            (Passage::TurnedDown, _) => Err(Error::Device(
                "the agent's clock is another than before (has it restarted?), so it took no message: write again".to_owned(),
            )),
            (Passage::Unanswered, _) => Err(Error::Timeout("the agent did not answer the write".to_owned())),
            (Passage::Unused, Err(error)) => Err(self.fault(&error)),
            (Passage::Unused, Ok(_)) => Err(Error::Bug("a write that did not leave was answered".to_owned())),
        }
    }

    /// All below `root`, as far as it goes in [`WALK_LIMIT`] objects.
    pub(crate) async fn walk(&mut self, root: Oid) -> Result<Vec<(Oid, Value)>, Error> {
        let options = WalkOptions { result_limit: Some(WALK_LIMIT), ..WalkOptions::default() };
        let mut walk = self.client.walk_with(root, options).map_err(|e| self.fault(&e))?;
        let mut found = Vec::new();
        while let Some(next) = walk.next().await {
            match next {
                Ok(object) => found.push((object.oid, object.value)),
                Err(error) if matches!(error.exchange_source(), Snmp::WalkAborted { .. }) => break,
                Err(error) => return Err(self.fault(&error)),
            }
        }
        Ok(found)
    }
}

/// What one request brought: the first so many objects are answered.
#[derive(Default)]
struct Done {
    objects: usize,
    values: Vec<(Oid, Value)>,
}

/// The agent has answered, but not with values of these objects.
struct Refused {
    objects: Range<usize>,
    status: ErrorStatus,
}

/// Which object is to blame, if the agent says; all of them otherwise. `None` for what is no answer.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may learn more errors: they are none of these"
)]
fn refused(error: &Snmp, asked: Range<usize>) -> Option<Refused> {
    match error.exchange_source() {
        Snmp::Snmp { status, index, .. } => {
            let blamed = usize::try_from(*index).ok()?.checked_sub(1).map(|at| asked.start + at);
            let objects = match blamed.filter(|at| asked.contains(at)) {
                Some(at) => at..at + 1,
                None => asked,
            };
            Some(Refused { objects, status: *status })
        }
        Snmp::OutboundMessageTooLarge { .. } => Some(Refused { objects: asked, status: ErrorStatus::TooBig }),
        _ => None,
    }
}

/// The address of `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
async fn resolve(agent: &str) -> Result<SocketAddr, Error> {
    let (host, port) = host_and_port(agent).ok_or_else(|| {
        config(format!(
            "agent is '{}': it looks like 10.0.0.8 or 10.0.0.8:161",
            agent.chars().take(80).collect::<String>()
        ))
    })?;
    let mut found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|e| Error::transient(format!("agent {host}: {e}")))?;
    found.next().ok_or_else(|| Error::transient(format!("agent {host} has no address")))
}

fn host_and_port(agent: &str) -> Option<(&str, u16)> {
    if agent.parse::<Ipv6Addr>().is_ok() {
        return Some((agent, PORT));
    }
    let (host, port) = match agent.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port| *port != 0)?),
        Some(_) | None => (agent, PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty() && !host.contains(['/', ' ', '[', ']'])).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_a_host_with_or_without_a_port() {
        let table = [
            ("10.0.0.8", Some(("10.0.0.8", 161))),
            ("10.0.0.8:1161", Some(("10.0.0.8", 1161))),
            ("switch.example:161", Some(("switch.example", 161))),
            ("[::1]:161", Some(("::1", 161))),
            ("[::1]", Some(("::1", 161))),
            ("::1", Some(("::1", 161))),
            ("", None),
            (":161", None),
            ("host:0", None),
            ("host:snmp", None),
            ("10.0.0.0/28", None),
        ];
        for (agent, expected) in table {
            assert_eq!(host_and_port(agent), expected, "{agent}");
        }
    }

    fn error(status: ErrorStatus, index: u32) -> Snmp {
        let target = SocketAddr::from(([127, 0, 0, 1], 161));
        Snmp::Snmp { target, status, index, oid: None, metadata: Box::default() }
    }

    #[test]
    fn an_object_is_blamed_only_if_it_was_asked_for() {
        let table = [(1, 4..5), (3, 6..7), (4, 4..7), (0, 4..7), (u32::MAX, 4..7)];
        for (index, expected) in table {
            let refused = refused(&error(ErrorStatus::NoSuchName, index), 4..7).unwrap();
            assert_eq!((refused.objects, refused.status), (expected, ErrorStatus::NoSuchName), "{index}");
        }
        let too_large = Snmp::OutboundMessageTooLarge { size: 9, limit: 1 };
        assert_eq!(refused(&too_large, 0..2).unwrap().objects, 0..2);
        assert!(refused(&Snmp::Config("x".into()), 0..2).is_none());
    }
}
