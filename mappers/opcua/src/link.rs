//! One connection to a server: opened once, never again. Whatever ends it ends the session; the SDK opens the next one.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kubebus_sdk::Error;
use opcua::client::transport::{
    Connector, ConnectorBuilder, RequestRecv, SecureChannelState, TcpConnector, TcpTransport,
    TransportConfiguration,
};
use opcua::client::{
    ClientBuilder, ClientConfig, ConnectionSource, IdentityToken, Password, Session, SessionActivity,
    SessionBuilder, SessionPollResult, SubscriptionActivity,
};
use opcua::crypto::CertificateStore;
use opcua::sync::RwLock;
use opcua::types::{EndpointDescription, StatusCode};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Settings;
use crate::endpoint;
use crate::identity::Identity;
use crate::status;
use crate::trust::Trust;

/// How often the library reads the server's state: what tells of a server that has frozen while nothing is read.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a server keeps a session of ours that broke off; it asks for some of its memory.
const SESSION_TIMEOUT_MS: u32 = 30_000;
/// How long one set of keys is used. Longer is fewer renewals, each of which holds other requests up.
const CHANNEL_LIFETIME_MS: u32 = 600_000;
/// Largest answers: a thousand values of a few hundred bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
const MAX_CHUNKS: usize = 64;
const MAX_ARRAY: usize = 10_000;

/// What has become of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    Opening,
    Up,
    Down(Error),
}

/// What the server said last of subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// There is one, and it is alive.
    Alive,
    /// It has none of ours.
    Nothing,
}

pub(crate) struct Link {
    pub(crate) session: Arc<Session>,
    pub(crate) endpoint: EndpointDescription,
    /// What the server is given for an answer.
    pub(crate) timeout: Duration,
    /// The channel below, for its keys' age.
    channel: Arc<OnceLock<Arc<SecureChannelState>>>,
    state: watch::Receiver<State>,
    heard: watch::Receiver<Heard>,
    _driver: JoinSet<()>,
}

impl Link {
    pub(crate) async fn open(settings: &Settings) -> Result<Self, Error> {
        let identity = if settings.is_secure() { Some(Identity::of(settings).await?) } else { None };
        let config = client_config(settings, identity.as_ref());
        let endpoint = endpoint::choose(&config, settings).await?;
        if let Some(identity) = &identity {
            trust(settings, identity).check(endpoint.server_certificate.as_ref())?;
        }
        let channel = Arc::new(OnceLock::new());
        let (session, events) = SessionBuilder::new(&config)
            .connect_to_endpoint_directly(endpoint.clone())
            .map_err(|error| status::call(&error))?
            .user_identity_token(token(settings))
            .with_connector(Source(Arc::clone(&channel)))
            .build(Arc::new(RwLock::new(certificates(identity.as_ref()))))
            .map_err(|error| status::call(&error))?;
        let (state_tx, state) = watch::channel(State::Opening);
        let (heard_tx, heard) = watch::channel(Heard::Nothing);
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let end = drive(events.enter(), &state_tx, &heard_tx).await;
            drop(state_tx.send(State::Down(end)));
        });
        let mut link =
            Self { session, endpoint, timeout: settings.timeout, channel, state, heard, _driver: driver };
        link.up().await.map_err(|error| refused(error, identity.as_ref()))?;
        Ok(link)
    }

    async fn up(&mut self) -> Result<(), Error> {
        let state = self.state.wait_for(|state| *state != State::Opening).await;
        match state.as_deref() {
            Ok(State::Up | State::Opening) => Ok(()),
            Ok(State::Down(error)) => Err(error.clone()),
            Err(_) => Err(Error::Bug("the connection's task is gone".to_owned())),
        }
    }

    /// Waits for the end of the connection.
    pub(crate) fn end(&self) -> impl Future<Output = Error> + Send + use<> {
        let mut state = self.state.clone();
        async move {
            match state.wait_for(|state| matches!(state, State::Down(_))).await.as_deref() {
                Ok(State::Down(error)) => error.clone(),
                _ => Error::transient("the connection has ended"),
            }
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.state.borrow() == State::Up
    }

    /// What the server says of subscriptions from now on.
    pub(crate) fn heard(&self) -> watch::Receiver<Heard> {
        let mut heard = self.heard.clone();
        heard.mark_unchanged();
        heard
    }

    /// Whether the next request would have to wait for new keys.
    pub(crate) fn keys_are_old(&self) -> bool {
        self.channel
            .get()
            .is_some_and(|channel| channel.secure_channel().read().should_renew_security_token())
    }
}

/// Follows the library's events until the connection ends. It is not asked for more after that, so that it never connects
/// a second time.
async fn drive(
    events: impl Stream<Item = Result<SessionPollResult, StatusCode>>,
    state: &watch::Sender<State>,
    heard: &watch::Sender<Heard>,
) -> Error {
    let mut events = pin!(events);
    loop {
        match events.next().await {
            Some(Ok(SessionPollResult::Reconnected(_))) => drop(state.send_replace(State::Up)),
            Some(Ok(SessionPollResult::Subscription(SubscriptionActivity::Publish))) => {
                heard.send_replace(Heard::Alive);
            }
            Some(Ok(SessionPollResult::Subscription(SubscriptionActivity::PublishFailed(
                StatusCode::BadNoSubscription,
            )))) => {
                heard.send_replace(Heard::Nothing);
            }
            Some(Ok(
                SessionPollResult::ConnectionLost(why)
                | SessionPollResult::ReconnectFailed(why)
                | SessionPollResult::Subscription(SubscriptionActivity::FatalFailure(why)),
            ))
            | Some(Err(why)) => return status::of(why),
            // A server that is there and says that it is not running may still be read: each value has its status.
            Some(Ok(SessionPollResult::SessionActivity(SessionActivity::KeepAliveFailed(why))))
                if why != StatusCode::BadServerHalted && why != StatusCode::BadUnknownResponse =>
            {
                return status::of(why);
            }
            Some(Ok(_)) => {}
            None => return Error::transient("the connection was closed"),
        }
    }
}

/// A server that does not know us says so in many ways, seldom in words.
fn refused(error: Error, identity: Option<&Identity>) -> Error {
    match (error, identity) {
        (Error::Auth(why), Some(identity)) => Error::Auth(format!(
            "{why}; perhaps the server has to be told to trust this mapper's certificate {} ({})",
            identity.certificate.display(),
            identity.fingerprint
        )),
        (error, _) => error,
    }
}

fn trust(settings: &Settings, identity: &Identity) -> Trust {
    settings.trust.clone().unwrap_or_else(|| Trust::Path(identity.home.join("trusted")))
}

fn token(settings: &Settings) -> IdentityToken {
    match &settings.user {
        Some((user, password)) => IdentityToken::UserName(user.clone(), Password::new(password.0.as_str())),
        None => IdentityToken::Anonymous,
    }
}

/// Nothing that connects again or repeats a request.
fn client_config(settings: &Settings, identity: Option<&Identity>) -> ClientConfig {
    ClientBuilder::new()
        .application_name("KubeBus OPC UA mapper")
        .application_uri(identity.map_or("urn:kubebus:mapper:opcua", |identity| identity.uri.as_str()))
        .session_name("kubebus")
        .session_retry_limit(0)
        .recreate_subscriptions(false)
        .session_timeout(SESSION_TIMEOUT_MS)
        .channel_lifetime(CHANNEL_LIFETIME_MS)
        .keep_alive_interval(KEEP_ALIVE)
        .request_timeout(settings.timeout)
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_chunk_count(MAX_CHUNKS)
        .max_array_length(MAX_ARRAY)
        .into_config()
}

/// What the library looks at. The server's certificate has been checked by then, and the library sees to it that the one
/// of the session is the same.
fn certificates(identity: Option<&Identity>) -> CertificateStore {
    let Some(identity) = identity else { return CertificateStore::new("".as_ref()) };
    let (mut store, ..) = CertificateStore::new_with_x509_data::<opcua::crypto::X509Data>(
        &identity.home.join("accepted"),
        false,
        Some(&identity.certificate),
        Some(&identity.key),
        None,
    );
    store.set_skip_verify_certs(true);
    store.set_trust_unknown_certs(true);
    store
}

/// The library's TCP, from which the channel's state is taken.
struct Source(Arc<OnceLock<Arc<SecureChannelState>>>);

impl ConnectionSource for Source {
    type Builder = Tcp;

    fn get_connector(&self, endpoint: &EndpointDescription) -> Result<Tcp, opcua::types::Error> {
        Ok(Tcp { channel: Arc::clone(&self.0), inner: endpoint.endpoint_url.as_ref().build()? })
    }
}

struct Tcp {
    channel: Arc<OnceLock<Arc<SecureChannelState>>>,
    inner: TcpConnector,
}

impl Connector for Tcp {
    type Transport = TcpTransport;

    async fn connect(
        &self,
        channel: Arc<SecureChannelState>,
        requests: RequestRecv,
        config: TransportConfiguration,
    ) -> Result<TcpTransport, opcua::types::Error> {
        drop(self.channel.set(Arc::clone(&channel)));
        self.inner.connect(channel, requests, config).await
    }

    fn default_endpoint(&self) -> EndpointDescription {
        self.inner.default_endpoint()
    }
}
