//! What a node answers over HTTP, to people at its admin socket and wherever else it is asked.
//!
//! | request | means |
//! |---|---|
//! | `GET /healthz` | 200 while the owner loop answers |
//! | `GET /metrics` | metrics of this node and of those that it knows, in Prometheus' text format |
//! | `GET /kubebus/v1/fleet` | how all nodes are, and what to do where one is not well: [`Fleet`], or some: [`Part`] |
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
//! | `GET /kubebus/v1/users` | who is known, and as what |
//! | `PUT /kubebus/v1/users/<name>` | let one in: [`UserOrder`](crate::users::UserOrder) |
//! | `PUT /kubebus/v1/users/<name>/role` | give one another role: `{"role": ..}` |
//! | `POST /kubebus/v1/users/<name>/revoke` | let one in no more |
//! | `DELETE /kubebus/v1/users/<name>` | forget one |
//! | `GET /kubebus/v1/clients` | certificates of mappers and apps |
//! | `PUT /kubebus/v1/clients/<mapper or user>/<name>` | one more on the list: [`ClientOrder`](crate::clients::ClientOrder) |
//! | `POST /kubebus/v1/clients/<mapper or user>/<name>/revoke` | let in no more: [`RevokeOrder`](crate::clients::RevokeOrder) |
//! | `POST /kubebus/v1/nodes/<name>/checks` | an edge looks at itself: [`Examined`](crate::checkup::Examined) |
//! | `GET /kubebus/v1/upstream` | what an edge's cloud sees of it: [`Looked`](crate::checkup::Looked) |
//! | `GET /kubebus/v1/whoami` | who asks, and as what |
//! | `POST /kubebus/v1/page/links` | a one-time link to the page: `{"role": ..}` |
//!
//! | `/api`, `/apis`, `/openapi`, `/version` | the resource API: `resources` |
//! | `/`, `/page/..` | the page for people to look at: `super::page` |
//!
//! and what `super::records` answers.

mod access;
mod body;
mod intake;
mod orders;
mod resources;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bus::NodeId;
use bytes::Bytes;
use controller::api::index::Moved;
use controller::role::{self, Asker};
#[cfg(doc)]
use device_twin::command::Order;
use device_twin::io::recorder;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub(super) use self::access::{forbidden, turned_away};
pub(super) use self::body::{AnswerBody, document, failure, plain, refusal};
pub(super) use self::intake::Intake;
pub use self::orders::{AuthorityOrder, ChangeOrder, LabelOrder, WishOrder};
pub use self::resources::Shared;
use super::session::Doorkeeper;
use super::{audit, backup, page, records};
#[cfg(doc)]
use crate::admin::TokenOrder;
use crate::admin::{AdminError, AdminRequest, AdminResponse, Snapshot, describe};
use crate::checkup;
use crate::health::{Fleet, Part, prometheus};
use crate::resources::{ApiAnswer, ApiRequest};
use crate::veil;
#[cfg(doc)]
use crate::wireguard::WireguardOrder;

/// How long the owner loop may take to answer before the client hears 503.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The same where another node's answer is waited for.
const EXAMINE_TIMEOUT: Duration = checkup::asking::DEADLINE.saturating_add(Duration::from_secs(2));

/// A request on its way to the owner loop.
#[derive(Debug)]
pub struct Asked {
    pub question: Question,
    pub reply: oneshot::Sender<Reply>,
}

/// What is asked of the owner loop.
#[derive(Debug)]
pub enum Question {
    Document(AdminRequest),
    /// By somebody who is not at the node's own console.
    Order {
        who: NodeId,
        request: AdminRequest,
    },
    Api(ApiRequest),
    Backup,
    Fleet,
    /// Whether the owner loop goes round.
    Alive,
}

impl Question {
    pub(super) fn of(asker: &Asker, request: AdminRequest) -> Self {
        match asker.is_console() {
            true => Self::Document(request),
            false => Self::Order { who: asker.who.clone(), request },
        }
    }

    fn patience(&self) -> Duration {
        match self {
            Self::Document(AdminRequest::Examine { .. })
            | Self::Order { request: AdminRequest::Examine { .. }, .. } => EXAMINE_TIMEOUT,
            Self::Document(_)
            | Self::Order { .. }
            | Self::Api(_)
            | Self::Backup
            | Self::Fleet
            | Self::Alive => ANSWER_TIMEOUT,
        }
    }
}

/// What it answers.
#[derive(Debug)]
pub enum Reply {
    Document(AdminResponse),
    Api(ApiAnswer),
    Backup(Snapshot),
    Fleet(Box<Fleet>),
    Alive,
}

/// Where a backup is had.
pub(super) const BACKUP: &str = "/kubebus/v1/backup";

/// How all nodes are, as a document and as metrics.
const FLEET: &str = "/kubebus/v1/fleet";
const METRICS: &str = "/metrics";

/// What a page shows, live.
const STREAM: &str = "/page/stream";

/// Live pages of one client, of the 16 that a node serves.
pub(super) const PAGES_OF_ONE: usize = 4;

/// What answers are made of.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The way to the owner loop.
    pub ask: mpsc::Sender<Asked>,
    /// Holds the keys that belong to a backup.
    pub data_dir: Arc<Path>,
    pub recorder: recorder::Handle,
    pub history: Keeper,
    pub doorkeeper: Doorkeeper,
    /// The newest durable revision that concerns each kind of resource.
    pub moved: watch::Receiver<Moved>,
    pub audit: audit::Handle,
    /// What requests to the resource API have in common.
    pub shared: Shared,
}

/// Who keeps the history of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// This node's recorder.
    Recorder,
    /// The edges of this cloud: the owner loop asks them.
    Edges,
}

/// Where a request comes from: an extension of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The admin socket, opened by this user of the machine.
    Console {
        uid: Option<u32>,
    },
    Address(SocketAddr),
    /// The page at this address, which one was let into by a link.
    Page(SocketAddr),
}

/// Answers one request of somebody who is known, if his role may have that. Nothing is answered to him elsewhere.
pub(super) async fn answer(
    desk: &Desk,
    asker: &Asker,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let now = desk.doorkeeper.clock.now().wall;
    let audited = audit::begin(asker, parts.extensions.get(), head(&parts), now);
    let read = match access::may(asker, &parts) {
        true => desk.doorkeeper.intake.read(asker, head(&parts), body).await,
        false => Err(forbidden(asker, head(&parts))),
    };
    let (desk, asker) = (desk.clone(), asker.clone());
    Ok(match (audited, read) {
        (None, Ok((body, _room))) => dispatch(&desk, &asker, &parts, body).await,
        (None, Err(refused)) => refused,
        (Some(audited), Err(refused)) => audited.end(&desk.audit, refused).await,
        (Some(mut audited), Ok((body, room))) => {
            audited.note(parts.uri.path(), &body);
            carried_out(async move {
                let response = dispatch(&desk, &asker, &parts, body).await;
                drop(room);
                audited.end(&desk.audit, response).await
            })
            .await
        }
    })
}

/// A change is made, and written down, though its client hangs up meanwhile: the request's own future ends with the
/// connection. Such tasks are bounded by the room that their bodies have, and by [`ANSWER_TIMEOUT`].
pub(super) async fn carried_out(
    change: impl Future<Output = Response<AnswerBody>> + Send + 'static,
) -> Response<AnswerBody> {
    let (tell, told) = oneshot::channel();
    resources::spawn("change", async move {
        // The client may be gone; what came of it is in the audit log.
        let _ = tell.send(change.await);
    });
    told.await.unwrap_or_else(|_| refusal(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping"))
}

/// Answers what strangers may have: [`role::paths::is_open`] was asked before.
pub(super) async fn answer_stranger(
    desk: &Desk,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let (parts, _) = request.into_parts();
    Ok(dispatch(desk, &Asker::stranger(), &parts, Bytes::new()).await)
}

fn head(parts: &Parts) -> role::Request<'_> {
    let query = parts.uri.query().unwrap_or_default();
    role::Request { method: parts.method.as_str(), path: parts.uri.path(), query }
}

async fn dispatch(desk: &Desk, asker: &Asker, parts: &Parts, body: Bytes) -> Response<AnswerBody> {
    let path = parts.uri.path();
    let first = path.split('/').nth(1).unwrap_or_default();
    match first {
        "api" | "apis" | "openapi" | "version" => resources::answer(desk, asker, parts, body).await,
        "" | "page" => paged(desk, asker, parts).await,
        _ => {
            let query = parts.uri.query().unwrap_or_default();
            match records::parse(path, query).filter(|_| parts.method == Method::GET) {
                Some(wanted) => recorded(wanted, desk, asker).await,
                None => match access::answer(desk, asker, parts, &body) {
                    Some(answer) => answer,
                    None => ordered(desk, asker, (&parts.method, path, query), &body).await,
                },
            }
        }
    }
}

/// One who looks has so many streams, however many browsers he has: the others are for others.
async fn paged(desk: &Desk, asker: &Asker, parts: &Parts) -> Response<AnswerBody> {
    if parts.uri.path() != STREAM || asker.is_console() {
        return page::answer(desk, asker, parts).await;
    }
    let Some(share) = desk.doorkeeper.pages.take(&asker.who) else {
        let why = format!("{} has {PAGES_OF_ONE} pages open, the most for one: close one", asker.who);
        return refusal(StatusCode::SERVICE_UNAVAILABLE, &why);
    };
    page::answer(desk, asker, parts).await.map(|body| body.with(share))
}

async fn ordered(
    desk: &Desk,
    asker: &Asker,
    (method, path, query): (&Method, &str, &str),
    body: &[u8],
) -> Response<AnswerBody> {
    let question = match (method, path) {
        (_, "/healthz") => Ok(Question::Alive),
        (&Method::GET, METRICS | FLEET) => match Part::parse(query) {
            Ok(_) => Ok(Question::Fleet),
            Err(error) => Err(AdminError::Invalid(error.to_string())),
        },
        (&Method::GET, BACKUP) => Ok(Question::Backup),
        _ => orders::parse(method, path, body).map(|request| Question::of(asker, request)),
    };
    let question = match question {
        Ok(question) => question,
        Err(error) => return failure(&error),
    };
    match desk.forward(question).await {
        Some(Reply::Alive) => plain("ok\n".to_owned()),
        Some(Reply::Document(Ok(mut value))) => {
            veil::over(asker.role, &mut value);
            document(StatusCode::OK, &value)
        }
        Some(Reply::Document(Err(error))) => failure(&error),
        Some(Reply::Fleet(fleet)) => {
            let part = Part::parse(query).unwrap_or_default();
            if path == METRICS { scraped(fleet, part).await } else { fleet_document(fleet, part).await }
        }
        Some(Reply::Backup(snapshot)) => backed_up(snapshot, &desk.data_dir),
        Some(Reply::Api(_)) | None => busy(),
    }
}

fn busy() -> Response<AnswerBody> {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "the node is busy or stopping; try again")
}

/// Of a large fleet that takes a while, in which the owner loop goes on.
async fn fleet_document(fleet: Box<Fleet>, part: Part) -> Response<AnswerBody> {
    let made = tokio::task::spawn_blocking(move || serde_json::to_string(&fleet.view(&part))).await;
    match made {
        Ok(Ok(text)) => plain(text),
        Ok(Err(_)) | Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the fleet cannot be shown"),
    }
}

async fn scraped(fleet: Box<Fleet>, part: Part) -> Response<AnswerBody> {
    let Ok(text) = tokio::task::spawn_blocking(move || prometheus::render(&fleet, &part)).await else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be shown");
    };
    let mut response = plain(text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(prometheus::CONTENT_TYPE));
    response
}

impl Desk {
    /// What the owner loop answers; `None` if it is too busy, or stopping.
    pub(super) async fn forward(&self, question: Question) -> Option<Reply> {
        let (reply, answer) = oneshot::channel();
        let patience = question.patience();
        let asked = async {
            self.ask.send(Asked { question, reply }).await.ok()?;
            answer.await.ok()
        };
        timeout(patience, asked).await.ok().flatten()
    }
}

async fn recorded(
    wanted: Result<records::Wanted, AdminError>,
    desk: &Desk,
    asker: &Asker,
) -> Response<AnswerBody> {
    let answer = match wanted {
        Ok(records::Wanted::History(question)) if desk.history == Keeper::Edges => {
            match desk.forward(Question::of(asker, AdminRequest::History(question))).await {
                Some(Reply::Document(answer)) => answer,
                Some(_) | None => return busy(),
            }
        }
        Ok(wanted) => records::answer(wanted, &desk.recorder, &desk.audit).await,
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
