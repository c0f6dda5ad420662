//! A load of MQTT 3.1.1 on a broker, in a process of its own: raw packets over sockets that one thread serves, so that
//! what is measured is the broker. The same for every broker.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll;

use crate::table::percentile;

/// Bytes of a payload.
const PAYLOAD: usize = 64;

/// What one read of a socket takes at most.
const READ: usize = 256 * 1024;

/// Counted after this, so that caches and windows are warm.
const WARM_UP: Duration = Duration::from_millis(500);

/// Of one measurement.
const TIME: Duration = Duration::from_secs(3);

/// For anything else that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages a second, and how many, where the time that they take is measured.
const STEADY_RATE: u32 = 1000;
const STEADY_MESSAGES: usize = 4000;

/// What is published, by whom, and who listens.
#[derive(Debug)]
struct Plan {
    publishers: usize,
    subscribers: usize,
    qos: u8,
    filter: &'static str,
    /// Of each publisher, in turn.
    topics: Vec<String>,
    /// Messages of one publisher that may be unacknowledged (QoS 1).
    window: u64,
    /// Messages that may be on their way to the slowest half of the subscribers: below every broker's queues, so that
    /// none is dropped.
    lag: u64,
    /// Ends after this many; by [`TIME`] otherwise.
    messages: Option<u64>,
}

/// Runs what `name` says and prints two numbers: messages delivered a second and 0, or two latencies in microseconds.
pub(crate) fn measure(broker: &str, name: &str) -> Result<()> {
    if let Some((here, there)) = broker.split_once(',') {
        let qos = if name == "across-qos1" { 1 } else { 0 };
        let parse = |text: &str| text.parse().context("a broker's address");
        let (median, tail) = across(parse(here)?, parse(there)?, qos)?;
        println!("{median} {tail}");
        return Ok(());
    }
    let broker = broker.parse().context("the broker's address")?;
    let one = |subscribers, qos, lag| Plan {
        publishers: 1,
        subscribers,
        qos,
        filter: "bench/one",
        topics: vec!["bench/one".to_owned()],
        window: 500,
        lag,
        messages: None,
    };
    let (first, second) = match name {
        "one-qos1" => (Load::start(broker, one(1, 1, 500))?.run()?, 0.0),
        "fan-qos0" => (Load::start(broker, one(100, 0, 100))?.run()?, 0.0),
        "fan-qos1" => (Load::start(broker, one(100, 1, 100))?.run()?, 0.0),
        "steady" => steady(broker)?,
        "reported" => (Load::start(broker, reports("twin/plant/+/reported/+"))?.run()?, 0.0),
        "relayed" => (Load::start(broker, reports("twin/plant/+/report/+"))?.run()?, 0.0),
        _ => bail!("no load is called {name}"),
    };
    println!("{first} {second}");
    Ok(())
}

/// Devices and properties that are reported in turn.
pub(crate) const DEVICES: usize = 100;
pub(crate) const PROPERTIES: usize = 10;

/// Reports of one measurement.
pub(crate) const REPORTS: u64 = 100_000;

/// Mappers at a time.
const MAPPERS: usize = 4;

fn reports(filter: &'static str) -> Plan {
    let topic = |n: usize| {
        format!("twin/plant/{}/report/value-{:02}", crate::manifests::device(n / PROPERTIES), n % PROPERTIES)
    };
    Plan {
        publishers: MAPPERS,
        subscribers: 1,
        qos: 1,
        filter,
        topics: (0..DEVICES * PROPERTIES).map(topic).collect(),
        window: 500,
        lag: 4000,
        messages: Some(REPORTS),
    }
}

/// One connection.
struct Client {
    stream: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    sent: u64,
    acknowledged: u64,
}

impl Client {
    fn connect(broker: SocketAddr, name: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(broker).context("connect")?;
        stream.set_nodelay(true).context("a socket")?;
        stream.set_read_timeout(Some(PATIENCE)).context("a socket")?;
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
        put_text(&mut body, name);
        stream.write_all(&packet(0x10, &body)).context("CONNECT")?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).context("CONNACK")?;
        ensure!(connack == [0x20, 2, 0, 0], "the broker refuses {name}: {connack:?}");
        Ok(Self { stream, inbox: Vec::new(), outbox: Vec::new(), sent: 0, acknowledged: 0 })
    }

    fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let mut body = vec![0, 1];
        put_text(&mut body, filter);
        body.push(qos);
        self.stream.write_all(&packet(0x82, &body)).context("SUBSCRIBE")?;
        let mut suback = [0; 5];
        self.stream.read_exact(&mut suback).context("SUBACK")?;
        ensure!(suback == [0x90, 3, 0, 1, qos], "the broker refuses {filter}: {suback:?}");
        Ok(())
    }

    /// Appends the next message to what is to be written.
    fn publish(&mut self, topic: &str, qos: u8) {
        self.sent += 1;
        let id = u16::try_from(self.sent % 60_000 + 1).unwrap_or(1).to_be_bytes();
        let id = if qos == 0 { &[][..] } else { &id[..] };
        // A JSON number that changes from one message on a topic to the next, padded with spaces to its size: a report
        // as well as any other payload.
        let payload = format!("{:<PAYLOAD$}", self.sent % 999);
        self.outbox.push(0x30 | (qos << 1));
        put_length(&mut self.outbox, 2 + topic.len() + id.len() + payload.len());
        put_text(&mut self.outbox, topic);
        self.outbox.extend_from_slice(id);
        self.outbox.extend_from_slice(payload.as_bytes());
    }

    /// Writes as much as the socket takes.
    fn flush(&mut self) -> Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("write"),
            }
        }
        Ok(())
    }

    /// Reads what there is; counts and acknowledges. Returns messages that came.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<u64> {
        let read = match self.stream.read(buffer) {
            Ok(0) => bail!("the broker closed a connection"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error).context("read"),
        };
        let mut all = std::mem::take(&mut self.inbox);
        all.extend_from_slice(&buffer[..read]);
        let (mut rest, mut messages) = (all.as_slice(), 0);
        while let Some((first, body, after)) = split(rest) {
            match first >> 4 {
                3 => {
                    messages += 1;
                    self.acknowledge(first, body);
                }
                4 => self.acknowledged += 1,
                _ => bail!("a packet of kind {}", first >> 4),
            }
            rest = after;
        }
        self.inbox = rest.to_vec();
        Ok(messages)
    }

    fn acknowledge(&mut self, first: u8, body: &[u8]) {
        if first & 0b0110 != 0 {
            let at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
            self.outbox.extend_from_slice(&[0x40, 2, body[at], body[at + 1]]);
        }
    }
}

/// The first whole packet: its first byte, its body, and what follows.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (mut length, mut used) = (0, 0);
    loop {
        let byte = rest.get(used)?;
        length |= usize::from(byte & 0x7f) << (7 * used);
        used += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let body = rest.get(used..used + length)?;
    Some((*first, body, &rest[used + length..]))
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    put_length(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes
}

fn put_length(to: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        to.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return;
        }
    }
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(&(text.len() as u16).to_be_bytes());
    to.extend_from_slice(text.as_bytes());
}

/// Publishers and subscribers of a plan, connected.
struct Load {
    plan: Plan,
    clients: Vec<Client>,
    epoll: rustix::fd::OwnedFd,
    delivered: u64,
}

impl Load {
    fn start(broker: SocketAddr, plan: Plan) -> Result<Self> {
        let all = plan.publishers + plan.subscribers;
        let name = |n: usize| format!("load-{}-{n}", std::process::id());
        let mut clients: Vec<Client> =
            (0..all).map(|n| Client::connect(broker, &name(n))).collect::<Result<_>>()?;
        for subscriber in &mut clients[plan.publishers..] {
            subscriber.subscribe(plan.filter, plan.qos)?;
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
        for (number, client) in (0..).zip(&clients) {
            client.stream.set_nonblocking(true).context("a socket")?;
            let data = epoll::EventData::new_u64(number);
            epoll::add(&epoll, &client.stream, data, epoll::EventFlags::IN).context("epoll")?;
        }
        Ok(Self { plan, clients, epoll, delivered: 0 })
    }

    /// Messages delivered a second: over [`TIME`], or until all of a plan's are delivered and acknowledged.
    fn run(&mut self) -> Result<f64> {
        let start = Instant::now();
        let mut counted = (start, 0);
        let mut buffer = vec![0; READ];
        loop {
            let now = Instant::now();
            if self.plan.messages.is_none() {
                if counted.0 == start && now - start > WARM_UP {
                    counted = (now, self.delivered);
                }
                if now - start > WARM_UP + TIME {
                    break;
                }
            } else if self.is_done() {
                break;
            }
            ensure!(now - start < PATIENCE, "{} messages were delivered, and no more", self.delivered);
            self.publish()?;
            self.wait(&mut buffer)?;
        }
        Ok((self.delivered - counted.1) as f64 / counted.0.elapsed().as_secs_f64())
    }

    fn is_done(&self) -> bool {
        let all = self.plan.messages.unwrap_or(u64::MAX);
        let acknowledged: u64 = self.clients.iter().map(|client| client.acknowledged).sum();
        self.delivered >= all && acknowledged >= all
    }

    /// Each publisher says as much as it may.
    fn publish(&mut self) -> Result<()> {
        let plan = &self.plan;
        let mut sent: u64 = self.clients[..plan.publishers].iter().map(|client| client.sent).sum();
        let most = plan.messages.unwrap_or(u64::MAX).min(self.delivered / plan.subscribers as u64 + plan.lag);
        for (number, client) in self.clients[..plan.publishers].iter_mut().enumerate() {
            while sent < most
                && client.outbox.is_empty()
                && (plan.qos == 0 || client.sent - client.acknowledged < plan.window)
            {
                // A batch is what may be sent now, in one write; at most 64.
                let may =
                    if plan.qos == 0 { u64::MAX } else { plan.window - (client.sent - client.acknowledged) };
                for _ in 0..may.min(most - sent).min(64) {
                    // Each publisher has topics of its own, so that values of one topic come in order.
                    let own = client.sent as usize * plan.publishers + number;
                    client.publish(&plan.topics[own % plan.topics.len()], plan.qos);
                    sent += 1;
                }
                client.flush()?;
            }
            client.flush()?;
        }
        Ok(())
    }

    fn wait(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 128];
        let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let (ready, _) = epoll::wait(&self.epoll, &mut events, Some(&pause)).context("epoll")?;
        for event in ready {
            let client = self.clients.get_mut(event.data.u64() as usize).context("a client")?;
            self.delivered += client.receive(buffer)?;
            client.flush()?;
        }
        Ok(())
    }
}

/// The median and the 99th of a hundred of the times, in microseconds, that messages with QoS 1 take at a rate far below
/// saturation, from just before the write to just after the read.
fn steady(broker: SocketAddr) -> Result<(f64, f64)> {
    let mut publisher = Client::connect(broker, "steady-publisher")?;
    let mut subscriber = Client::connect(broker, "steady-subscriber")?;
    subscriber.subscribe("bench/steady", 1)?;
    let listening = std::thread::spawn(move || listen(&mut subscriber, STEADY_MESSAGES));
    let mut acknowledgements = publisher.stream.try_clone().context("a socket")?;
    let draining = std::thread::spawn(move || std::io::copy(&mut acknowledgements, &mut std::io::sink()));
    let (start, mut said) = (Instant::now(), Vec::with_capacity(STEADY_MESSAGES));
    for number in 0..STEADY_MESSAGES {
        let due = start + Duration::from_secs(1) / STEADY_RATE * u32::try_from(number).context("a number")?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        publisher.publish("bench/steady", 1);
        said.push(Instant::now());
        publisher.stream.write_all(&publisher.outbox).context("publish")?;
        publisher.outbox.clear();
    }
    let heard = listening.join().map_err(|_| anyhow::anyhow!("the listener failed"))??;
    publisher.stream.shutdown(std::net::Shutdown::Both).context("end")?;
    let _ = draining.join();
    Ok(middle_and_tail(&said, &heard))
}

/// Without the first tenth, in which caches warm up.
fn middle_and_tail(said: &[Instant], heard: &[Instant]) -> (f64, f64) {
    let both = said.iter().zip(heard).skip(said.len() / 10);
    let mut took: Vec<f64> = both.map(|(said, heard)| (*heard - *said).as_secs_f64() * 1e6).collect();
    took.sort_by(f64::total_cmp);
    (percentile(&took, 50), percentile(&took, 99))
}

/// Messages a second, and how many, from one site to another.
const ACROSS_RATE: u32 = 100;
const ACROSS_MESSAGES: usize = 500;

/// How often a first message is said until the way to the other site is known.
const PROBE: Duration = Duration::from_millis(100);

/// As [`steady`], between clients of two brokers.
fn across(here: SocketAddr, there: SocketAddr, qos: u8) -> Result<(f64, f64)> {
    let topic = format!("mesh/bench/{}", std::process::id());
    let mut publisher = Client::connect(here, "across-publisher")?;
    let mut subscriber = Client::connect(there, "across-subscriber")?;
    subscriber.subscribe(&topic, qos)?;
    let mut acknowledgements = publisher.stream.try_clone().context("a socket")?;
    let draining = std::thread::spawn(move || std::io::copy(&mut acknowledgements, &mut std::io::sink()));
    let mut buffer = vec![0; READ];
    let start = Instant::now();
    subscriber.stream.set_read_timeout(Some(PROBE)).context("a socket")?;
    loop {
        ensure!(start.elapsed() < PATIENCE, "nothing comes from {here} to {there}");
        publisher.publish(&topic, qos);
        publisher.stream.write_all(&std::mem::take(&mut publisher.outbox)).context("publish")?;
        if subscriber.receive(&mut buffer)? > 0 {
            break;
        }
    }
    // What was said besides the one that came is on its way still.
    let quiet = Instant::now();
    while quiet.elapsed() < 10 * PROBE {
        subscriber.receive(&mut buffer)?;
        subscriber.flush()?;
    }
    subscriber.stream.set_read_timeout(Some(PATIENCE)).context("a socket")?;
    let listening = std::thread::spawn(move || listen(&mut subscriber, ACROSS_MESSAGES));
    let (start, mut said) = (Instant::now(), Vec::with_capacity(ACROSS_MESSAGES));
    for number in 0..ACROSS_MESSAGES {
        let due = start + Duration::from_secs(1) / ACROSS_RATE * u32::try_from(number).context("a number")?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        publisher.publish(&topic, qos);
        said.push(Instant::now());
        publisher.stream.write_all(&std::mem::take(&mut publisher.outbox)).context("publish")?;
    }
    let heard = listening.join().map_err(|_| anyhow::anyhow!("the listener failed"))??;
    publisher.stream.shutdown(std::net::Shutdown::Both).context("end")?;
    let _ = draining.join();
    Ok(middle_and_tail(&said, &heard))
}

/// When each message came.
fn listen(subscriber: &mut Client, messages: usize) -> Result<Vec<Instant>> {
    let (mut heard, mut buffer) = (Vec::with_capacity(messages), vec![0; READ]);
    while heard.len() < messages {
        let messages = subscriber.receive(&mut buffer)?;
        let now = Instant::now();
        heard.extend((0..messages).map(|_| now));
        subscriber.flush()?;
    }
    Ok(heard)
}
