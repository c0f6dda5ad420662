//! One connection to a broker, which devices with the same access share: MQTT 5, a clean session, a client of its own per
//! connection. When it breaks it is over: nothing that waited is sent later, and the SDK opens the sessions anew.
//!
//! Two tasks, both ended with the link: one keeps the connection, the other sends what the exchange asks for.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kubebus_sdk::{Consumed, Error, UnixMillis, WritePermit};
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, Filter, LastWill, Packet, PubAck, PubAckReason, PublishProperties, SubAck,
    SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::Access;
use crate::exchange::{Exchange, Request};
use crate::shape::Command;
use crate::sparkplug::topic;

/// Largest message from a broker, in bytes; a device's state is some hundred, a Sparkplug birth some ten thousand. The
/// broker is told, and keeps larger ones to itself.
const MAX_PACKET: u32 = 1024 * 1024;

/// A dead broker is noticed after two of these at most.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long the broker may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that wait for the connection; when full the sender looks again after `BUSY`.
const REQUESTS: usize = 256;
const BUSY: Duration = Duration::from_millis(50);

/// What became of a publication.
pub(crate) type Receipt = Result<(), Error>;

/// See the module's page.
pub(crate) struct Link {
    pub(crate) exchange: Mutex<Exchange>,
    client: AsyncClient,
    post: Mutex<Post>,
    /// Told when the exchange has something to send.
    wake: Notify,
    /// Told of everything that happens, for those who wait for something.
    happenings: watch::Sender<u64>,
}

/// A link with the tasks that keep it. They end with the last session on it.
pub(crate) struct Kept {
    pub(crate) link: Arc<Link>,
    _tasks: JoinSet<()>,
}

/// Publications and subscriptions on their way. rumqttc keeps their order and tells their packet ids when they leave.
#[derive(Default)]
struct Post {
    unsent_at_most_once: VecDeque<Option<oneshot::Sender<Receipt>>>,
    unsent_at_least_once: VecDeque<Option<oneshot::Sender<Receipt>>>,
    unacked: BTreeMap<u16, oneshot::Sender<Receipt>>,
    unsent_filters: VecDeque<Vec<String>>,
    unanswered_filters: BTreeMap<u16, Vec<String>>,
}

impl Kept {
    /// Connects, and is let in or not.
    pub(crate) async fn connect(access: &Access) -> Result<Self, Error> {
        let begun = unix_now();
        let (client, mut connection) = AsyncClient::new(options(access, begun), REQUESTS);
        let entry = async {
            loop {
                if let Event::Incoming(Packet::ConnAck(_)) = connection.poll().await.map_err(refusal)? {
                    return Ok::<(), Error>(());
                }
            }
        };
        let too_late =
            || Error::Timeout(format!("the broker {}:{} does not answer", access.host, access.port));
        timeout(CONNECT_TIMEOUT, entry).await.map_err(|_| too_late())??;
        let link = Arc::new(Link {
            exchange: Mutex::default(),
            client,
            post: Mutex::default(),
            wake: Notify::new(),
            happenings: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(Arc::clone(&link), connection));
        tasks.spawn(pump(Arc::clone(&link)));
        if let Some(host_id) = &access.host_id {
            link.announce(host_id, begun)?;
        }
        Ok(Self { link, _tasks: tasks })
    }
}

fn options(access: &Access, begun: UnixMillis) -> MqttOptions {
    let id = format!("kubebus-{:016x}", RandomState::new().hash_one(std::process::id()));
    let mut options = MqttOptions::new(id, access.host.clone(), access.port);
    options
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_max_packet_size(Some(MAX_PACKET));
    if let Some((user, password)) = &access.credentials {
        options.set_credentials(user, password);
    }
    if let Some(host_id) = &access.host_id {
        let offline = state_payload(false, begun);
        options.set_last_will(LastWill::new(topic::state(host_id), offline, QoS::AtLeastOnce, true, None));
    }
    options
}

/// A host application's word about itself (Sparkplug 3.0.0 §6.4.27). A connection's birth and will have one timestamp, by
/// which nodes tell that the will is that birth's.
fn state_payload(online: bool, begun: UnixMillis) -> String {
    format!(r#"{{"online":{online},"timestamp":{}}}"#, begun.0)
}

pub(crate) fn unix_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn refusal(error: ConnectionError) -> Error {
    let code = if let ConnectionError::ConnectionRefused(code)
    | ConnectionError::MqttState(StateError::ConnFail { reason: code }) = &error
    {
        Some(*code)
    } else {
        None
    };
    match code {
        Some(ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized) => {
            Error::Auth("the broker refuses this user and password".to_owned())
        }
        Some(ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion) => {
            Error::Config("broker: it does not speak MQTT 5".to_owned())
        }
        Some(_) | None => Error::transient(format!("broker: {error}")),
    }
}

/// Keeps the connection until it breaks, or somebody finds it useless: what waits in it must not leave any more, also when
/// the broker takes nothing for now.
async fn keep(link: Arc<Link>, mut connection: EventLoop) {
    let ended = link.when(|exchange| exchange.ended().map(drop));
    tokio::pin!(ended);
    loop {
        let event = tokio::select! {
            biased;
            () = &mut ended => return,
            event = connection.poll() => event,
        };
        match event {
            Ok(event) => link.handle(event),
            Err(error) => return link.end(refusal(error)),
        }
    }
}

/// Sends what the exchange asks for.
async fn pump(link: Arc<Link>) {
    loop {
        let (request, next) = {
            let mut exchange = link.exchange();
            if exchange.ended().is_some() {
                return;
            }
            (exchange.poll_request(std::time::Instant::now(), unix_now()), exchange.next_request())
        };
        match request {
            Some(request) => link.carry_out(request).await,
            None => {
                tokio::select! {
                    () = link.wake.notified() => {}
                    () = until(next) => {}
                }
            }
        }
    }
}

async fn until(next: Option<std::time::Instant>) {
    match next {
        Some(next) => sleep_until(Instant::from_std(next)).await,
        None => std::future::pending().await,
    }
}

impl Link {
    pub(crate) fn exchange(&self) -> MutexGuard<'_, Exchange> {
        // Whole between any two calls, whoever panicked.
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exchange has something to send.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn end(&self, why: Error) {
        self.exchange().end(why);
        *self.post() = Post::default(); // nobody will be answered
        self.happened();
        self.wake();
    }

    fn happened(&self) {
        self.happenings.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits until something is so.
    pub(crate) async fn when<T>(&self, mut look: impl FnMut(&mut Exchange) -> Option<T>) -> T {
        let mut happenings = self.happenings.subscribe();
        loop {
            happenings.mark_unchanged();
            if let Some(found) = look(&mut self.exchange()) {
                return found;
            }
            drop(happenings.changed().await); // the sender is ours: it cannot be gone
        }
    }

    fn handle(&self, event: Event) {
        match event {
            Event::Incoming(Packet::Publish(publish)) => {
                let Ok(topic) = std::str::from_utf8(&publish.topic) else { return };
                self.exchange().handle_message(topic, &publish.payload, publish.retain, unix_now());
                self.wake();
            }
            Event::Incoming(Packet::SubAck(ack)) => self.subscribed(&ack),
            Event::Incoming(Packet::PubAck(ack)) => self.post().acked(&ack),
            Event::Outgoing(Outgoing::Publish(id)) => return self.post().published(id),
            Event::Outgoing(Outgoing::Subscribe(id)) => return self.post().subscribing(id),
            Event::Incoming(_) | Event::Outgoing(_) => return,
        }
        self.happened();
    }

    fn subscribed(&self, ack: &SubAck) {
        let filters = self.post().unanswered_filters.remove(&ack.pkid).unwrap_or_default();
        let mut exchange = self.exchange();
        for (filter, code) in filters.iter().zip(&ack.return_codes) {
            let granted = matches!(code, SubscribeReasonCode::Success(_));
            exchange.handle_granted(filter, (!granted).then(|| format!("{code:?}")));
        }
    }

    async fn carry_out(&self, request: Request) {
        let mut tried = self.request(request);
        while let Err(request) = tried {
            sleep(BUSY).await;
            tried = self.request(request);
        }
    }

    /// Gives it back while the connection is busy.
    fn request(&self, request: Request) -> Result<(), Request> {
        let mut post = self.post();
        let sent = match &request {
            Request::Subscribe(names) => {
                let filters: Vec<_> =
                    names.iter().map(|name| Filter::new(name.clone(), QoS::AtLeastOnce)).collect();
                post.unsent_filters.push_back(names.clone());
                let sent = self.client.try_subscribe_many(filters);
                if sent.is_err() {
                    post.unsent_filters.pop_back();
                }
                sent
            }
            Request::Unsubscribe(name) => self.client.try_unsubscribe(name.clone()),
            Request::Publish { topic, payload } => {
                let sent = self.client.try_publish(topic.clone(), QoS::AtMostOnce, false, payload.clone());
                if sent.is_ok() {
                    post.unsent_at_most_once.push_back(None);
                }
                sent
            }
        };
        sent.map_err(|_| request)
    }

    /// The primary host says that it is there.
    fn announce(&self, host_id: &str, begun: UnixMillis) -> Result<(), Error> {
        let mut post = self.post();
        self.client
            .try_publish(topic::state(host_id), QoS::AtLeastOnce, true, state_payload(true, begun))
            .map_err(Error::transient)?;
        post.unsent_at_least_once.push_back(None);
        Ok(())
    }

    /// Publishes a command: this is where the permit is consumed. It is not retained, and the broker is told for how
    /// many whole seconds it may keep it for a device that is away.
    pub(crate) fn publish(
        &self,
        command: &Command,
        qos: QoS,
        permit: WritePermit,
    ) -> Result<(Consumed, oneshot::Receiver<Receipt>), Error> {
        let (sender, receipt) = oneshot::channel();
        let mut post = self.post();
        let expiry = expiry(permit.left())?;
        let properties =
            PublishProperties { message_expiry_interval: Some(expiry), ..PublishProperties::default() };
        let consumed = permit.consume()?;
        self.client
            .try_publish_with_properties(
                command.topic.clone(),
                qos,
                false,
                command.payload.clone(),
                properties,
            )
            .map_err(|error| Error::Device(format!("nothing was sent: {error}")))?;
        match qos {
            QoS::AtMostOnce => post.unsent_at_most_once.push_back(Some(sender)),
            QoS::AtLeastOnce | QoS::ExactlyOnce => post.unsent_at_least_once.push_back(Some(sender)),
        }
        Ok((consumed, receipt))
    }
}

/// MQTT counts in whole seconds: with less than one left the broker could deliver when it is over.
fn expiry(left: Duration) -> Result<u32, Error> {
    match left.as_secs() {
        0 => Err(Error::Expired),
        seconds => Ok(u32::try_from(seconds).unwrap_or(u32::MAX)),
    }
}

impl Post {
    /// It has left; at QoS 0 that is all there is to know.
    fn published(&mut self, id: u16) {
        if id == 0 {
            if let Some(Some(waiting)) = self.unsent_at_most_once.pop_front() {
                drop(waiting.send(Ok(())));
            }
        } else if let Some(Some(waiting)) = self.unsent_at_least_once.pop_front() {
            self.unacked.insert(id, waiting);
        }
    }

    fn subscribing(&mut self, id: u16) {
        if let Some(filters) = self.unsent_filters.pop_front() {
            self.unanswered_filters.insert(id, filters);
        }
    }

    fn acked(&mut self, ack: &PubAck) {
        let Some(waiting) = self.unacked.remove(&ack.pkid) else { return };
        let receipt = if ack.reason == PubAckReason::Success {
            Ok(())
        } else if ack.reason == PubAckReason::NoMatchingSubscribers {
            Err(Error::Device("nobody listens to this topic: is the device connected?".to_owned()))
        } else {
            Err(Error::Device(format!("the broker refuses the command: {:?}", ack.reason)))
        };
        drop(waiting.send(receipt));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const CONNACK: [u8; 5] = [0x20, 3, 0, 0, 0];

    async fn listen(host_id: Option<&str>) -> (TcpListener, Access) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host_id = host_id.map(str::to_owned);
        (listener, Access { host: "127.0.0.1".to_owned(), port, credentials: None, host_id })
    }

    #[tokio::test]
    async fn a_hosts_birth_and_will_have_the_same_timestamp() {
        let (listener, access) = listen(Some("host")).await;
        let broker = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            sleep(Duration::from_millis(20)).await; // so that the clock goes on before the birth
            stream.write_all(&CONNACK).await.unwrap();
            stream
        };
        let (kept, mut stream) = tokio::join!(Kept::connect(&access), broker);
        let _kept = kept.unwrap();
        let (mut bytes, mut heard) = (Vec::new(), String::new());
        let stamp = |heard: &str, online: &str| {
            let (_, rest) = heard.split_once(&format!(r#"{{"online":{online},"timestamp":"#))?;
            rest.split_once('}').map(|(stamp, _)| stamp.to_owned())
        };
        while stamp(&heard, "true").is_none() {
            let read = timeout(Duration::from_secs(5), stream.read_buf(&mut bytes)).await;
            assert_ne!(read.unwrap().unwrap(), 0);
            heard = String::from_utf8_lossy(&bytes).into_owned();
        }
        assert_eq!(stamp(&heard, "false"), stamp(&heard, "true"));
    }

    #[tokio::test]
    async fn what_a_busy_broker_has_not_taken_dies_with_the_link() {
        const MORE_THAN_BUFFERS_HOLD: usize = 64 * 1024 * 1024;
        let (listener, access) = listen(None).await;
        let broker = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&CONNACK).await.unwrap();
            stream
        };
        let (kept, mut stream) = tokio::join!(Kept::connect(&access), broker);
        let kept = kept.unwrap();
        let payload = vec![0; MORE_THAN_BUFFERS_HOLD];
        kept.link.request(Request::Publish { topic: "x".to_owned(), payload }).unwrap();
        sleep(Duration::from_millis(300)).await;
        kept.link.end(Error::transient("useless"));
        let (mut buffer, mut taken) = (vec![0; 64 * 1024], 0);
        let drained = async {
            while let Ok(some @ 1..) = stream.read(&mut buffer).await {
                taken += some;
            }
        };
        timeout(Duration::from_secs(10), drained).await.unwrap();
        assert!(taken < MORE_THAN_BUFFERS_HOLD, "{taken}");
    }

    #[test]
    fn a_broker_keeps_a_command_for_no_longer_than_is_left() {
        let table = [
            (0, Err(Error::Expired)),
            (999, Err(Error::Expired)),
            (1000, Ok(1)),
            (2999, Ok(2)),
            (u64::MAX, Ok(u32::MAX)),
        ];
        for (left, seconds) in table {
            assert_eq!(expiry(Duration::from_millis(left)), seconds, "{left} ms");
        }
    }
}
