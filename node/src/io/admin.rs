//! The admin socket: HTTP on a Unix socket in the data directory, mode 0600, and its client.
//!
//! | request | means |
//! |---|---|
//! | `GET /healthz` | 200 while the owner loop answers |
//! | `GET /metrics` | counters in Prometheus' text format |
//! | `GET /kubebus/v1/status` | links, sync, queues |
//! | `GET /kubebus/v1/backup` | all that the cloud is, its keys included, as [`super::backup::format`] has it |
//! | `GET /kubebus/v1/nodes` | who joined |
//! | `DELETE /kubebus/v1/nodes/<name>` | forget one |
//! | `POST /kubebus/v1/tokens` | a join token for the [`TokenOrder`] in the body |
//! | `GET /kubebus/v1/tokens` | the tokens, without their secrets |
//! | `DELETE /kubebus/v1/tokens/<id>` | revoke one; the beginning of its id will do |
//! | `POST /kubebus/v1/resources` | apply the manifest in the body; refused for a `field` of it and perhaps `more` |
//! | `GET /kubebus/v1/resources/<kind>` | all of a kind |
//! | `DELETE /kubebus/v1/resources/<kind>/<namespace>/<name>` | delete one |
//! | `GET /kubebus/v1/twins[/<namespace>/<device>]` | desired and reported |
//! | `PUT /kubebus/v1/twins/<namespace>/<device>/desired/<property>` | set desired to the JSON value in the body |
//! | `PATCH /kubebus/v1/twins/<namespace>/<device>/desired` | JSON merge patch (RFC 7396), one change |
//! | `POST /kubebus/v1/changes` | several wishes as one: [`ChangeOrder`] |
//! | `POST /kubebus/v1/twins/<namespace>/<device>/commands/<name>` | a command: [`Order`] |
//! | `GET /kubebus/v1/commands[/<namespace>/<device>[/<id>]]` | what became of commands |
//! | `GET /kubebus/v1/rules` | what rules do, and why |
//! | `POST /kubebus/v1/policy/test` | whether one may reach another: [`PolicyTest`](crate::policy_test::PolicyTest) |
//! | `GET /kubebus/v1/routes` | which prefix lies behind which node |
//! | `POST /kubebus/v1/routes/approve`, `../revoke` | what may lie behind an edge: [`LanOrder`](crate::admin::LanOrder) |
//! | `GET /kubebus/v1/labels/<site or edge>/<name>` | its labels |
//! | `POST /kubebus/v1/labels/<site or edge>/<name>` | change them: [`LabelOrder`] |
//! | `POST /kubebus/v1/route` | how packets from here get to one address: [`RouteQuery`](crate::route_query::RouteQuery) |
//! | `GET /kubebus/v1/wireguard` | WireGuard clients, and how their tunnels are |
//! | `POST /kubebus/v1/wireguard` | let one in: [`WireguardOrder`] |
//! | `PUT /kubebus/v1/wireguard/<name>/keys` | give one other keys: [`WireguardKeys`](crate::wireguard::WireguardKeys) |
//! | `DELETE /kubebus/v1/wireguard/<name>` | let one in no more |
//! | `PUT /kubebus/v1/twins/<namespace>/<device>/authority` | take it: [`AuthorityOrder`] |
//! | `DELETE /kubebus/v1/twins/<namespace>/<device>/authority` | hand it back |
//!
//! and what `super::records` answers.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bus::twin::{DesiredVersion, DeviceId};
use bus::{Name, Value};
use bytes::Bytes;
use controller::label::{Change, InvalidLabel, Labelled, Labels};
use device_twin::PropertyId;
use device_twin::cloud::{Wish, Wishes};
use device_twin::command::CommandId;
#[cfg(doc)]
use device_twin::command::Order;
use device_twin::condition::Condition;
use device_twin::io::recorder;
use device_twin::twin::SetBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::{backup, records};
use crate::admin::{
    AdminError, AdminRequest, AdminResponse, AuthorityChange, Fault, Snapshot, TokenOrder, describe,
};
use crate::wireguard::WireguardOrder;

/// Largest request body: a manifest of Kubernetes' own limit fits.
const MAX_BODY: usize = 1 << 20;

/// Connections served at once; further ones wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 16;

/// How long the owner loop may take to answer before the client hears 503.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A request on its way to the owner loop.
#[derive(Debug)]
pub struct Asked {
    pub question: Question,
    pub reply: oneshot::Sender<Reply>,
}

/// What is asked of the owner loop.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and moved once")]
pub enum Question {
    Document(AdminRequest),
    Backup,
}

/// What it answers.
#[derive(Debug)]
pub enum Reply {
    Document(AdminResponse),
    Backup(Snapshot),
}

/// Binds the socket, replacing one that a crashed process left.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `ask`'s receiver is gone. `data_dir` holds the keys that belong to a backup.
pub async fn serve(
    listener: UnixListener,
    ask: mpsc::Sender<Asked>,
    data_dir: PathBuf,
    recorder: recorder::Handle,
) {
    let data_dir: Arc<Path> = data_dir.into();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ask.closed() => return,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors: a moment later there may be some.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (ask, data_dir, recorder) = (ask.clone(), Arc::clone(&data_dir), recorder.clone());
        connections.spawn(async move {
            let service =
                hyper::service::service_fn(|request| answer(request, ask.clone(), &data_dir, &recorder));
            // A client that hangs up in mid-request is its own affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(slot);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    ask: mpsc::Sender<Asked>,
    data_dir: &Path,
    recorder: &recorder::Handle,
) -> Result<Response<AnswerBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(refusal(StatusCode::PAYLOAD_TOO_LARGE, "body over 1 MiB")),
    };
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    if let Some(wanted) = records::parse(path, query).filter(|_| parts.method == Method::GET) {
        return Ok(recorded(wanted, recorder).await);
    }
    let (question, text) = match (&parts.method, path) {
        (_, "/healthz" | "/metrics") => (Ok(Question::Document(AdminRequest::Status)), true),
        (&Method::GET, BACKUP) => (Ok(Question::Backup), false),
        _ => (parse(&parts.method, path, &body).map(Question::Document), false),
    };
    let question = match question {
        Ok(question) => question,
        Err(error) => return Ok(failure(&error)),
    };
    let answered = forward(question, &ask).await;
    Ok(match answered {
        Some(Reply::Document(Ok(_))) if path == "/healthz" => plain("ok\n".to_owned()),
        Some(Reply::Document(Ok(status))) if text => plain(super::metrics::render(&status)),
        Some(Reply::Document(Ok(value))) => document(StatusCode::OK, &value),
        Some(Reply::Document(Err(error))) => failure(&error),
        Some(Reply::Backup(snapshot)) => backed_up(snapshot, data_dir),
        None => refusal(StatusCode::SERVICE_UNAVAILABLE, "the node is busy or stopping; try again"),
    })
}

async fn recorded(
    wanted: Result<records::Wanted, AdminError>,
    recorder: &recorder::Handle,
) -> Response<AnswerBody> {
    let answer = match wanted {
        Ok(wanted) => records::answer(wanted, recorder).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(value) => document(StatusCode::OK, &value),
        Err(error) => failure(&error),
    }
}

/// The backup is encoded as fast as it is read: of its bytes no more than a piece is in memory.
fn backed_up(snapshot: Snapshot, data_dir: &Path) -> Response<AnswerBody> {
    match backup::encode(snapshot, data_dir) {
        Ok(pieces) => Response::new(AnswerBody::Backup(Box::new(pieces))),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &describe(&error)),
    }
}

/// What an answer consists of.
enum AnswerBody {
    Whole(Full<Bytes>),
    Backup(Box<backup::format::Encoder>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Backup(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Backup(_) => SizeHint::default(),
        }
    }
}

async fn forward(question: Question, ask: &mpsc::Sender<Asked>) -> Option<Reply> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        ask.send(Asked { question, reply }).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.ok().flatten()
}

fn parse(method: &Method, path: &str, body: &[u8]) -> Result<AdminRequest, AdminError> {
    let unknown = || AdminError::NotFound(format!("no such path: {method} {path}"));
    let rest = path.strip_prefix("/kubebus/v1/").ok_or_else(unknown)?;
    let levels: Vec<&str> = rest.split('/').collect();
    Ok(match (method.as_str(), levels.as_slice()) {
        ("GET", ["status"]) => AdminRequest::Status,
        ("GET", ["nodes"]) => AdminRequest::ListNodes,
        ("DELETE", ["nodes", node]) => AdminRequest::DeleteNode { name: name(node)? },
        ("POST", ["tokens"]) => create_token(body)?,
        ("GET", ["tokens"]) => AdminRequest::ListTokens,
        ("DELETE", ["tokens", id]) => AdminRequest::RevokeToken { id: (*id).to_owned() },
        ("POST", ["resources"]) => AdminRequest::Apply { manifest: json_body(body)? },
        ("GET", ["resources", kind]) => AdminRequest::List { kind: (*kind).to_owned() },
        ("DELETE", ["resources", kind, namespace, name]) => {
            AdminRequest::Delete { kind: (*kind).to_owned(), device: device(namespace, name)? }
        }
        ("GET", ["twins"]) => AdminRequest::Twins { device: None },
        ("GET", ["twins", namespace, name]) => AdminRequest::Twins { device: Some(device(namespace, name)?) },
        ("PUT", ["twins", namespace, name, "desired", property]) => AdminRequest::SetTwin {
            device: device(namespace, name)?,
            property: (*property).to_owned(),
            value: json_body(body)?,
        },
        ("PATCH", ["twins", namespace, name, "desired"]) => {
            AdminRequest::PatchTwin { device: device(namespace, name)?, patch: json_body(body)? }
        }
        ("POST", ["changes"]) => {
            AdminRequest::Change { wishes: json_body::<ChangeOrder>(body)?.into_wishes()? }
        }
        ("POST", ["twins", namespace, name, "commands", command]) => AdminRequest::Command {
            device: device(namespace, name)?,
            name: (*command).to_owned(),
            order: json_body(body)?,
        },
        ("GET", ["rules"]) => AdminRequest::Rules,
        ("POST", ["policy", "test"]) => AdminRequest::PolicyTest(json_body(body)?),
        ("GET", ["routes"]) => AdminRequest::Routes,
        ("POST", ["routes", "approve"]) => AdminRequest::ApproveLan(json_body(body)?),
        ("POST", ["routes", "revoke"]) => AdminRequest::RevokeLan(json_body(body)?),
        ("GET", ["labels", kind, name]) => AdminRequest::Labels { of: labelled(kind, name)? },
        ("POST", ["labels", kind, name]) => {
            let LabelOrder { set, remove } = json_body(body)?;
            AdminRequest::Label { of: labelled(kind, name)?, change: Change { set, remove } }
        }
        ("POST", ["route"]) => AdminRequest::Route(json_body(body)?),
        ("GET", ["wireguard"]) => AdminRequest::ListWireguard,
        ("POST", ["wireguard"]) => AdminRequest::AddWireguard(json_body::<WireguardOrder>(body)?),
        ("PUT", ["wireguard", client, "keys"]) => {
            AdminRequest::RotateWireguard { name: name(client)?, keys: json_body(body)? }
        }
        ("DELETE", ["wireguard", client]) => AdminRequest::RemoveWireguard { name: name(client)? },
        ("GET", ["commands"]) => AdminRequest::Commands { device: None, id: None },
        ("GET", ["commands", namespace, name]) => {
            AdminRequest::Commands { device: Some(device(namespace, name)?), id: None }
        }
        ("GET", ["commands", namespace, name, id]) => {
            AdminRequest::Commands { device: Some(device(namespace, name)?), id: Some(command_id(id)?) }
        }
        ("PUT", ["twins", namespace, name, "authority"]) => AdminRequest::Authority {
            device: device(namespace, name)?,
            change: json_body::<AuthorityOrder>(body)?.into_change(),
        },
        ("DELETE", ["twins", namespace, name, "authority"]) => AdminRequest::Authority {
            device: device(namespace, name)?,
            change: AuthorityChange::HandBack { reason: String::new() },
        },
        _ => return Err(unknown()),
    })
}

/// Several wishes as one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeOrder {
    pub wishes: Vec<WishOrder>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Condition>,
}

/// One of them; without a value the present wish is taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WishOrder {
    /// `<namespace>/<name>`.
    pub device: String,
    pub property: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// UCUM code of what the value is counted in; absent: the property's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<DesiredVersion>,
}

impl ChangeOrder {
    fn into_wishes(self) -> Result<Wishes, AdminError> {
        let wish = |WishOrder { device, property, value, unit, if_version }| {
            let value = value.map(|value| SetBody::Full { value, unit });
            let device = device.parse().map_err(|error| AdminError::Invalid(format!("{error}")))?;
            Ok(Wish { id: PropertyId::new(&device, &property), value, if_version })
        };
        let wishes = self.wishes.into_iter().map(wish).collect::<Result<_, AdminError>>()?;
        Ok(Wishes { wishes, when: self.when, by: "kubebus twin set".to_owned() })
    }
}

/// Which labels are to be other ones.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelOrder {
    #[serde(default)]
    pub set: Labels,
    #[serde(default)]
    pub remove: Vec<String>,
}

fn labelled(kind: &str, name: &str) -> Result<Labelled, AdminError> {
    format!("{kind}/{name}").parse().map_err(|error: InvalidLabel| AdminError::Invalid(error.to_string()))
}

/// Why the authority is taken, and for how long.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorityOrder {
    #[serde(default)]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasting_ms: Option<u64>,
}

impl AuthorityOrder {
    fn into_change(self) -> AuthorityChange {
        let lasting = self.lasting_ms.map(Duration::from_millis);
        AuthorityChange::Take { reason: self.reason, lasting }
    }
}

fn command_id(text: &str) -> Result<CommandId, AdminError> {
    CommandId::new(text).map_err(|error| AdminError::Invalid(error.to_string()))
}

fn create_token(body: &[u8]) -> Result<AdminRequest, AdminError> {
    let order: TokenOrder = json_body(body)?;
    let mut secret = [0; bus::JoinToken::SECRET_LEN];
    getrandom::fill(&mut secret).map_err(|e| AdminError::Invalid(format!("no randomness: {e}")))?;
    Ok(AdminRequest::CreateToken { order, secret })
}

fn json_body<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(body).map_err(|e| AdminError::Invalid(format!("body: {e}")))
}

fn name(text: &str) -> Result<Name, AdminError> {
    Name::new(text).map_err(|error| AdminError::Invalid(error.to_string()))
}

fn device(namespace: &str, device: &str) -> Result<DeviceId, AdminError> {
    Ok(DeviceId { namespace: name(namespace)?, name: name(device)? })
}

fn failure(error: &AdminError) -> Response<AnswerBody> {
    let status = match error {
        AdminError::Manifest(faults) => return document(StatusCode::BAD_REQUEST, &faulty(faults)),
        AdminError::Invalid(_) => StatusCode::BAD_REQUEST,
        AdminError::NotFound(_) => StatusCode::NOT_FOUND,
        AdminError::Conflict(_) => StatusCode::CONFLICT,
        AdminError::CloudOnly | AdminError::Standby(_) => StatusCode::MISDIRECTED_REQUEST,
        AdminError::Degraded(_) | AdminError::Unkept => StatusCode::INSUFFICIENT_STORAGE,
    };
    refusal(status, &error.to_string())
}

/// `{"error": .., "field": .., "more": [{"error": .., "field": ..}]}`.
fn faulty(faults: &[Fault]) -> serde_json::Value {
    match faults.split_first() {
        Some((Fault { message, field }, more)) => json!({ "error": message, "field": field, "more": more }),
        None => json!({ "error": "the manifest is refused" }),
    }
}

/// What [`faulty`] wrote; empty for other answers.
fn faults(answer: &serde_json::Value) -> Vec<Fault> {
    let read = |value: &serde_json::Value| Fault::deserialize(value).ok();
    let Some(first) = answer.get("field").and_then(|_| read(answer)) else { return Vec::new() };
    let more = answer["more"].as_array().into_iter().flatten().filter_map(read);
    [first].into_iter().chain(more).collect()
}

fn refusal(status: StatusCode, message: &str) -> Response<AnswerBody> {
    document(status, &json!({ "error": message }))
}

fn document(status: StatusCode, value: &serde_json::Value) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(Full::new(Bytes::from(value.to_string()))));
    *response.status_mut() = status;
    response
}

fn plain(text: String) -> Response<AnswerBody> {
    Response::new(AnswerBody::Whole(Full::new(Bytes::from(text))))
}

/// Why a question to the node's admin socket got no answer.
#[derive(Debug, Error)]
pub enum AskError {
    #[error("no kubebus runs under {path}: start 'kubebus cloud' or 'kubebus edge', or name its --data-dir")]
    NotRunning { path: String },
    #[error("the admin socket {path} needs the user that runs the node")]
    Forbidden { path: String },
    #[error("{message}")]
    Refused { status: u16, message: String, faults: Vec<Fault> },
    #[error("the node stopped in mid-answer")]
    Broken(#[source] hyper::Error),
    #[error("connect to the admin socket")]
    Connect(#[source] std::io::Error),
    #[error("cannot stop the node")]
    Terminate(#[source] std::io::Error),
    #[error("cannot keep the answer")]
    Keep(#[source] std::io::Error),
}

/// Asks the node whose data directory is `data_dir`.
pub async fn ask(
    data_dir: &Path,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<String, AskError> {
    let mut driver = JoinSet::new();
    let response = request(data_dir, method, path, body, &mut driver).await?;
    let bytes = response.into_body().collect().await.map_err(AskError::Broken)?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Asks the cloud for a backup and hands it to `keep`, piece by piece.
pub async fn ask_for_backup(
    data_dir: &Path,
    mut keep: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), AskError> {
    let mut driver = JoinSet::new();
    let mut body = request(data_dir, Method::GET, BACKUP, None, &mut driver).await?.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(AskError::Broken)?.into_data() {
            keep(&piece).map_err(AskError::Keep)?;
        }
    }
    Ok(())
}

/// Tells the node to end, as a service manager does.
pub async fn terminate(data_dir: &Path) -> Result<(), AskError> {
    let stream = connect(&data_dir.join(SOCKET)).await?;
    let told = stream.peer_cred().and_then(|peer| {
        let pid = peer.pid().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| std::io::Error::other("it runs in another container: stop it there"))?;
        Ok(kill_process(pid, Signal::TERM)?)
    });
    told.map_err(AskError::Terminate)
}

/// Sends a request and waits for the head of its answer, which says yes. `driver` drives the socket as long as it is
/// kept.
async fn request(
    data_dir: &Path,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
    driver: &mut JoinSet<hyper::Result<()>>,
) -> Result<Response<Incoming>, AskError> {
    let stream = connect(&data_dir.join(SOCKET)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(AskError::Broken)?;
    let body = body.map(ToString::to_string).unwrap_or_default();
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(|_| AskError::Refused {
        status: 400,
        message: format!("'{path}' holds characters that no name has"),
        faults: Vec::new(),
    })?;
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(AskError::Broken)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = response.into_body().collect().await.map_err(AskError::Broken)?.to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let parsed: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let faults = parsed.as_ref().map(faults).unwrap_or_default();
    let message = parsed.and_then(|v| v.get("error")?.as_str().map(str::to_owned)).unwrap_or(text);
    Err(AskError::Refused { status: status.as_u16(), message, faults })
}

/// Where a backup is had.
const BACKUP: &str = "/kubebus/v1/backup";

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";

async fn connect(path: &Path) -> Result<UnixStream, AskError> {
    UnixStream::connect(path).await.map_err(|error| {
        use std::io::ErrorKind;
        let is_any = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
        if is_any(&[ErrorKind::NotFound, ErrorKind::ConnectionRefused]) {
            AskError::NotRunning { path: path.parent().unwrap_or(path).display().to_string() }
        } else if is_any(&[ErrorKind::PermissionDenied]) {
            AskError::Forbidden { path: path.display().to_string() }
        } else {
            AskError::Connect(error)
        }
    })
}
