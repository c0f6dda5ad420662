//! Where devices call us: listeners, each shared by the devices whose settings name its address.
//!
//! A call is bounded in size and time, proves whose it is, and is answered when its values are with the SDK.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kubebus_sdk::{Error, Quality, Sink, ValueType};
use mapper_payload::{Body, Sought};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Webhook, wrong};
use crate::proof::Proof;

/// Largest call, in bytes.
const MAX_CALL: usize = 256 * 1024;

/// How long a call may take, from its connection to our answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Calls at once on one listener; further ones wait in the kernel's queue.
const CALLS_AT_ONCE: usize = 64;

/// Listeners by address. Not in `Context::bus`: devices that share a listener would wait for each other's readings.
static LISTENERS: LazyLock<Mutex<BTreeMap<SocketAddr, Weak<Listener>>>> = LazyLock::new(Mutex::default);

/// An open port. It closes when the last device on it has gone.
struct Listener {
    hooks: Arc<Hooks>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Hooks(Mutex<BTreeMap<String, Arc<Hook>>>);

/// What one device's calls are taken for.
struct Hook {
    proof: Proof,
    /// Who listens. Calls of one device are taken one after the other, so that the last one counts.
    audience: tokio::sync::Mutex<Option<Audience>>,
}

/// Points that are looked for in each call.
pub(crate) struct Audience {
    pub(crate) points: Vec<Listening>,
    pub(crate) sink: Sink,
}

pub(crate) struct Listening {
    pub(crate) name: String,
    pub(crate) value_type: ValueType,
    pub(crate) sought: Sought,
}

/// A device's place at a listener.
pub(crate) struct Place {
    listener: Arc<Listener>,
    path: String,
    hook: Arc<Hook>,
}

impl Place {
    pub(crate) async fn take(webhook: &Webhook) -> Result<Self, Error> {
        let Webhook { listen, path, .. } = webhook;
        let address = listen.parse().map_err(|_| wrong("webhook.listen", "looks like 0.0.0.0:8090"))?;
        if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
            return Err(wrong("webhook.path", "begins with / and has no query"));
        }
        let hook = Hook { proof: Proof::new(webhook)?, audience: tokio::sync::Mutex::default() };
        let (listener, hook) = (Listener::at(address).await?, Arc::new(hook));
        let mut hooks = listener.hooks.lock();
        if hooks.contains_key(path) {
            // By one that is about to leave, it may be.
            return Err(Error::transient("webhook.path: is taken by another device on this address"));
        }
        hooks.insert(path.clone(), Arc::clone(&hook));
        drop(hooks);
        Ok(Self { listener, path: path.clone(), hook })
    }

    /// From now on calls are for this audience.
    pub(crate) async fn listen(&self, audience: Audience) {
        *self.hook.audience.lock().await = Some(audience);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.listener.hooks.lock().remove(&self.path);
    }
}

impl Hooks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Hook>>> {
        // A map is whole between any two calls, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    async fn at(address: SocketAddr) -> Result<Arc<Self>, Error> {
        let known = || LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = known().get(&address).and_then(Weak::upgrade) {
            return Ok(listener);
        }
        let bound = TcpListener::bind(address).await;
        let socket =
            bound.map_err(|error| Error::transient(format!("webhook.listen: {address}: {error}")))?;
        let hooks = Arc::<Hooks>::default();
        let mut task = JoinSet::new();
        task.spawn(accept(socket, Arc::clone(&hooks)));
        let listener = Arc::new(Self { hooks, _task: task });
        let mut known = known();
        known.retain(|_, listener| listener.strong_count() > 0);
        known.insert(address, Arc::downgrade(&listener));
        Ok(listener)
    }
}

async fn accept(socket: TcpListener, hooks: Arc<Hooks>) {
    let free = Arc::new(Semaphore::new(CALLS_AT_ONCE));
    let mut calls = JoinSet::new();
    loop {
        while calls.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => {
                let hooks = Arc::clone(&hooks);
                calls.spawn(async move {
                    serve(stream, hooks).await;
                    drop(place);
                });
            }
            // Too many open files: the next try comes when some may have been closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// One call on one connection.
async fn serve(stream: TcpStream, hooks: Arc<Hooks>) {
    let service = service_fn(|request| answer(request, &hooks));
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(CALL_TIMEOUT);
    let served = timeout(CALL_TIMEOUT, http.serve_connection(TokioIo::new(stream), service)).await;
    if let Ok(Err(error)) = served {
        tracing::debug!(%error, "a webhook's call broke");
    }
}

async fn answer(request: Request<Incoming>, hooks: &Hooks) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, why) = match taken(request, hooks).await {
        Ok(()) => (StatusCode::NO_CONTENT, String::new()),
        Err(refused) => refused,
    };
    let mut response = Response::new(Full::new(Bytes::from(why)));
    *response.status_mut() = status;
    Ok(response)
}

type Refused = (StatusCode, String);

fn refused(status: StatusCode, why: &str) -> Refused {
    (status, format!("{why}\n"))
}

async fn taken(request: Request<Incoming>, hooks: &Hooks) -> Result<(), Refused> {
    let hook = hooks.lock().get(request.uri().path()).cloned();
    let hook = hook.ok_or_else(|| refused(StatusCode::NOT_FOUND, "no device calls this path"))?;
    if request.method() != Method::POST && request.method() != Method::PUT {
        return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "POST or PUT"));
    }
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_CALL).collect().await;
    let body = body.map_err(|_| refused(StatusCode::PAYLOAD_TOO_LARGE, "at most 256 KiB"))?.to_bytes();
    if !hook.proof.holds(&head.headers, &body) {
        return Err(refused(StatusCode::UNAUTHORIZED, "the token or signature is not right"));
    }
    let body = Body::parse(&body).ok_or_else(|| refused(StatusCode::BAD_REQUEST, "neither JSON nor text"))?;
    let audience = hook.audience.lock().await;
    let Some(audience) = audience.as_ref().filter(|audience| !audience.sink.is_closed()) else {
        return Err(refused(StatusCode::SERVICE_UNAVAILABLE, "nobody listens yet"));
    };
    audience.hear(&body).await
}

impl Audience {
    /// A call that speaks of none of the points is fine; one that gets a value wrong is told.
    async fn hear(&self, body: &Body) -> Result<(), Refused> {
        let mut wrong_values = Vec::new();
        for Listening { name, value_type, sought } in &self.points {
            match sought.pick(body, *value_type) {
                None => {}
                Some(Ok(picked)) => self.sink.push(name, picked.value, Quality::Good, picked.time).await,
                Some(Err(fault)) => {
                    wrong_values.push(format!("{name}: {fault}"));
                    self.sink.failed(name, Error::Device(fault.to_string())).await;
                }
            }
        }
        if wrong_values.is_empty() {
            return Ok(());
        }
        Err(refused(StatusCode::UNPROCESSABLE_ENTITY, &wrong_values.join(", ")))
    }
}
