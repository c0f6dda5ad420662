//! The resource API over HTTP, with Kubernetes' conventions.
//!
//! The owner loop hands out items and takes writes ([`crate::resources`]); everything else is done here, in the client's
//! own task, by the pure functions of [`controller::api`]. An answer that has more than one page, and a watch, are written
//! as fast as the client reads: each holds a page and no more.

mod aside;
mod feeds;
mod watching;

pub use self::feeds::Shared;
pub(super) use self::watching::spawn;

use std::time::{SystemTime, UNIX_EPOCH};

use bus::UnixMillis;
use bytes::Bytes;
use controller::api::call::{Form, Listing, Options, Write};
use controller::api::list::{Lister, one, shown};
use controller::api::look::Look;
use controller::api::part::table;
use controller::api::read::{Found, Page, Read};
use controller::api::watch::too_old;
use controller::api::{
    Call, Kind, Layout, Method, Part, Refusal, Request, Verb, allowed, discovery, object, openapi, protobuf,
    size,
};
use controller::role::{self, Asker};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WARNING};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use metadata::Revision;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{AnswerBody, Desk, Question, Reply, document};
use crate::resources::{ApiAnswer, ApiRequest, Order, Outcome, Written};
use crate::steering::{Steered, Steering};
use crate::veil;

/// Pieces of one answer that wait for its client.
const PIECES: usize = 2;

/// Answers under `/api`, `/apis`, `/openapi` and `/version`.
pub(super) async fn answer(desk: &Desk, asker: &Asker, parts: &Parts, body: Bytes) -> Response<AnswerBody> {
    match reply(desk, asker, parts, body).await {
        Ok(response) => response,
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            json_answer(status, &refusal.status())
        }
    }
}

async fn reply(
    desk: &Desk,
    asker: &Asker,
    parts: &Parts,
    body: Bytes,
) -> Result<Response<AnswerBody>, Refusal> {
    let header = |name: HeaderName| header(&parts.headers, &name);
    let request = Request {
        method: method(&parts.method)?,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        accept: header(hyper::header::ACCEPT),
        content_type: header(CONTENT_TYPE),
        user_agent: header(hyper::header::USER_AGENT),
    };
    let call = Call::parse(&request)?;
    let layout = desk.layout().await?;
    if let Some(needs) = call.needs() {
        check(layout, asker, needs)?;
    }
    let ok = |value: &Value| Ok(json_answer(StatusCode::OK, value));
    match call {
        Call::Version => ok(&discovery::version(env!("CARGO_PKG_VERSION"))),
        Call::Groups { core, aggregated: Some(version) } => {
            let mut response = json_answer(StatusCode::OK, &discovery::aggregated(layout, core, version));
            let media =
                format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
            if let Ok(media) = HeaderValue::from_str(&media) {
                response.headers_mut().insert(CONTENT_TYPE, media);
            }
            Ok(response)
        }
        Call::Groups { core: true, aggregated: None } => ok(&discovery::core()),
        Call::Groups { core: false, aggregated: None } => ok(&discovery::all()),
        Call::Group { group } => ok(&discovery::group(&group).ok_or_else(Refusal::no_such_path)?),
        Call::Resources { group, version } => {
            ok(&discovery::resources(layout, &group, &version).ok_or_else(Refusal::no_such_path)?)
        }
        Call::OpenApi => ok(&openapi::index(layout)),
        Call::OpenApiOf { group, version } => {
            ok(&openapi::document(layout, &group, &version).ok_or_else(Refusal::no_such_path)?)
        }
        Call::WhoAmI => Ok(json_answer(StatusCode::CREATED, &whoami(asker))),
        Call::MayI => Ok(json_answer(StatusCode::CREATED, &may(layout, asker, &review(&body)?))),
        Call::Get { kind, id, form } => match desk.find(Read::Get { kind, id: id.clone() }).await? {
            Found::Item(item) => ok(&one(kind, &id, item, look(asker, form), now())?),
            Found::Page(_) | Found::Changes(_) | Found::Expired { .. } => Err(busy()),
        },
        Call::List { kind, of, form } => list(desk, Lister::new(kind, of, look(asker, form), now())).await,
        Call::Watch { kind, of, form, watch } => {
            Ok(watching::begin(desk, kind, of, look(asker, form), watch))
        }
        Call::Write(write) if write.verb == Verb::DeleteCollection => {
            delete_all(desk, asker, write.with_options(&read_body(&body)?)?).await
        }
        Call::Write(write) => {
            let (look, kind, verb) = (look(asker, write.form), write.kind, write.verb);
            let body = size::fitting(aside::body(body).await?)?;
            let written = desk.write(asker, write.with_options(&body)?, body).await?;
            Ok(written_answer(kind, verb, look, written))
        }
        Call::Steer(call) => {
            let body = size::fitting(aside::body(body).await?)?;
            let (part, form) = (call.part, call.form);
            let Steered { is_new, object, warnings } =
                desk.steer(Steering { call, body, asker: asker.clone() }).await?;
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            Ok(warned(json_answer(status, &table::shown(part, object, form)), warnings))
        }
    }
}

/// How `asker` sees objects.
fn look(asker: &Asker, form: Form) -> Look {
    Look { form, veil: veil::of(asker.role) }
}

/// A body that is longer than anybody's may be.
pub(super) fn too_large(limit: usize) -> Response<AnswerBody> {
    let refusal =
        Refusal::too_large(format!("the body is longer than {} KiB, the most that is read", limit >> 10));
    json_answer(StatusCode::PAYLOAD_TOO_LARGE, &refusal.status())
}

/// Who may not see a kind does not hear whether it is there.
fn check(
    layout: Layout,
    asker: &Asker,
    (verb, kind, part): (Verb, Kind, &'static str),
) -> Result<(), Refusal> {
    let info = kind.info();
    if !kind.is_served(layout) {
        return Err(Refusal::no_such_path());
    }
    if !allowed(asker.role, verb, kind, part) {
        return Err(Refusal::forbidden(format!(
            "{} is forbidden: User \"{}\" with the role {} cannot {verb} resource \"{}\" in API group \"{}\"",
            info.plural, asker.who, asker.role, info.plural, info.group
        )));
    }
    // A path names no part with a verb that it does not have.
    if !part.is_empty() || kind.offers(verb) {
        return Ok(());
    }
    Err(Refusal::not_allowed(format!(
        "{} of {} makes no sense: they follow from other records",
        verb, info.plural
    )))
}

fn method(method: &hyper::Method) -> Result<Method, Refusal> {
    Ok(match *method {
        hyper::Method::GET => Method::Get,
        hyper::Method::POST => Method::Post,
        hyper::Method::PUT => Method::Put,
        hyper::Method::PATCH => Method::Patch,
        hyper::Method::DELETE => Method::Delete,
        _ => {
            return Err(Refusal::not_allowed(
                "the server does not allow this method on the requested resource",
            ));
        }
    })
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// JSON, or YAML as `kubectl apply --server-side` may send it. Nothing at all means nothing.
fn read_body(body: &[u8]) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let error = match serde_json::from_slice(body) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let as_yaml = std::str::from_utf8(body).ok().and_then(|text| serde_saphyr::from_str::<Value>(text).ok());
    let as_yaml = as_yaml.filter(Value::is_object);
    as_yaml.ok_or_else(|| Refusal::bad_request(format!("the body is neither JSON nor YAML: {error}")))
}

/// kubectl asks what it may in protobuf.
fn review(body: &[u8]) -> Result<Value, Refusal> {
    protobuf::access_review(body).map_or_else(|| read_body(body), Ok)
}

/// For the ages that a table shows.
fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn busy() -> Refusal {
    Refusal::new(503, "ServiceUnavailable", "the node is busy or stopping; try again")
}

fn json_answer(status: StatusCode, value: &Value) -> Response<AnswerBody> {
    typed(document(status, value))
}

fn typed(mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Desk {
    async fn layout(&self) -> Result<Layout, Refusal> {
        if let Some(layout) = self.shared.layout().get() {
            return Ok(*layout);
        }
        match self.api(ApiRequest::Layout).await? {
            ApiAnswer::Layout(layout) => Ok(*self.shared.layout().get_or_init(|| layout)),
            ApiAnswer::Written(Err(refusal)) => Err(refusal),
            ApiAnswer::Found(_) | ApiAnswer::Written(Ok(_)) | ApiAnswer::Steered(_) => Err(busy()),
        }
    }

    async fn api(&self, request: ApiRequest) -> Result<ApiAnswer, Refusal> {
        match self.forward(Question::Api(request)).await {
            Some(Reply::Api(answer)) => Ok(answer),
            Some(Reply::Document(_) | Reply::Backup(_) | Reply::Fleet(_) | Reply::Alive) | None => {
                Err(busy())
            }
        }
    }

    async fn find(&self, read: Read) -> Result<Found, Refusal> {
        match self.api(ApiRequest::Read(read)).await? {
            ApiAnswer::Found(found) => Ok(found),
            ApiAnswer::Written(Err(refusal)) => Err(refusal),
            ApiAnswer::Layout(_) | ApiAnswer::Written(Ok(_)) | ApiAnswer::Steered(_) => Err(busy()),
        }
    }

    async fn page(&self, read: Read) -> Result<Page, Refusal> {
        let since =
            if let Read::Page { since, .. } = &read { since.unwrap_or_default() } else { Revision::ZERO };
        match self.find(read).await? {
            Found::Page(page) => Ok(page),
            Found::Expired { compacted } => Err(too_old(since, compacted)),
            Found::Item(_) | Found::Changes(_) => Err(busy()),
        }
    }

    async fn write(&self, asker: &Asker, write: Write, body: Value) -> Result<Written, Refusal> {
        let mut secret = [0; bus::JoinToken::SECRET_LEN];
        getrandom::fill(&mut secret).map_err(|why| Refusal::new(500, "InternalError", why.to_string()))?;
        let order = Order { write, body, asker: asker.clone(), secret };
        match self.api(ApiRequest::Write(Box::new(order))).await? {
            ApiAnswer::Written(done) => done,
            ApiAnswer::Found(_) | ApiAnswer::Layout(_) | ApiAnswer::Steered(_) => Err(busy()),
        }
    }

    async fn steer(&self, steering: Steering) -> Result<Steered, Refusal> {
        match self.api(ApiRequest::Steer(Box::new(steering))).await? {
            ApiAnswer::Steered(done) => done,
            ApiAnswer::Written(Err(refusal)) => Err(refusal),
            ApiAnswer::Found(_) | ApiAnswer::Layout(_) | ApiAnswer::Written(Ok(_)) => Err(busy()),
        }
    }
}

/// A continue token is good as long as a watch from its revision is.
async fn list(desk: &Desk, lister: Lister) -> Result<Response<AnswerBody>, Refusal> {
    let page = desk.page(lister.wants()).await?;
    lister.check(&page)?;
    let (mut lister, mut piece) = aside::select(lister, page).await?;
    if lister.is_done() {
        let bytes = aside::write(piece).await?;
        return Ok(typed(Response::new(AnswerBody::Whole(Full::new(bytes.into())))));
    }
    let (pieces, answer) = mpsc::channel(PIECES);
    let desk = desk.clone();
    spawn("list", async move {
        // A client that hangs up, or a node that stops, leaves the answer unfinished: no client takes that for a list.
        while !lister.is_done() {
            let (bytes, page) = tokio::join!(aside::write(piece), desk.page(lister.wants()));
            let (Ok(bytes), Ok(page)) = (bytes, page) else { return };
            if pieces.send(bytes.into()).await.is_err() {
                return;
            }
            let Ok(selected) = aside::select(lister, page).await else { return };
            (lister, piece) = selected;
        }
        if let Ok(bytes) = aside::write(piece).await {
            // Whoever hung up needs no last piece.
            let _ = pieces.send(bytes.into()).await;
        }
    });
    Ok(typed(Response::new(AnswerBody::Pieces(answer))))
}

fn written_answer(kind: Kind, verb: Verb, look: Look, written: Written) -> Response<AnswerBody> {
    let Written { is_new, outcome, warnings } = written;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let response = match outcome {
        Outcome::Gone(item) if verb == Verb::Delete => {
            json_answer(StatusCode::OK, &gone(kind, &object::render(kind, *item)))
        }
        Outcome::Item(item) | Outcome::Gone(item) => json_answer(status, &shown(kind, *item, look, now())),
    };
    warned(response, warnings)
}

fn warned(mut response: Response<AnswerBody>, warnings: Vec<String>) -> Response<AnswerBody> {
    for warning in warnings {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

fn gone(kind: Kind, object: &Value) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {
            "name": object["metadata"]["name"], "group": kind.info().group, "kind": kind.info().plural,
            "uid": object["metadata"]["uid"],
        },
    })
}

/// One by one: what is deleted when it fails halfway stays deleted, as in Kubernetes.
async fn delete_all(desk: &Desk, asker: &Asker, write: Write) -> Result<Response<AnswerBody>, Refusal> {
    let of = Listing {
        namespace: write.namespace.clone(),
        selectors: write.selectors.clone(),
        limit: None,
        proceed: None,
        version: None,
    };
    let mut lister = Lister::new(write.kind, of, Look::whole(Form::Object), now());
    while !lister.is_done() {
        for id in lister.handle_names(desk.page(lister.wants()).await?) {
            let one = Write {
                verb: Verb::Delete,
                name: Some(id.name().to_owned()),
                namespace: id.namespace().map(str::to_owned),
                options: Options { ..write.options.clone() },
                ..write.clone()
            };
            match desk.write(asker, one, Value::Null).await {
                Err(refusal) if refusal.code != 404 => return Err(refusal),
                Ok(_) | Err(_) => {}
            }
        }
    }
    let done = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": { "group": write.kind.info().group, "kind": write.kind.info().plural },
    });
    Ok(json_answer(StatusCode::OK, &done))
}

fn whoami(asker: &Asker) -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {},
        "status": { "userInfo": { "username": asker.who.to_string(), "groups": [asker.role.as_str()] } },
    })
}

/// `kubectl auth can-i`.
fn may(layout: Layout, asker: &Asker, review: &Value) -> Value {
    let asked = &review["spec"]["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().unwrap_or_default();
    let verbs: Vec<Verb> = Verb::ALL
        .into_iter()
        .filter(|verb| matches!(text("verb"), "*" | "") || verb.as_str() == text("verb"))
        .collect();
    let is_meant = |kind: &Kind| {
        let info = kind.info();
        kind.is_served(layout)
            && matches!(text("group"), group if group == "*" || group == info.group)
            && matches!(text("resource"), resource if resource == "*" || resource == info.plural)
            && match text("subresource") {
                "" => true,
                "status" => info.has_status && text("verb") == "get",
                part => Part::of(*kind, part).is_some(),
            }
    };
    let part = text("subresource");
    let offers = |kind: Kind, verb: Verb| match Part::of(kind, part) {
        Some(part) => part.verbs().contains(&verb),
        None => kind.offers(verb),
    };
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(is_meant).collect();
    let may = |kind: &Kind| {
        verbs.iter().all(|verb| {
            allowed(asker.role, *verb, *kind, part) && (text("verb") == "*" || offers(*kind, *verb))
        })
    };
    let path = review["spec"].get("nonResourceAttributes").filter(|path| !path.is_null());
    let may_path = path.is_some_and(|asked| {
        let text = |field: &str| asked[field].as_str().unwrap_or_default();
        let method = text("verb").to_ascii_uppercase();
        role::may(asker.role, role::Request { method: &method, path: text("path"), query: "" })
    });
    let is_allowed =
        may_path || (path.is_none() && !kinds.is_empty() && !verbs.is_empty() && kinds.iter().all(may));
    let reason = if is_allowed { format!("the role {}", asker.role) } else { String::new() };
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
        "spec": review["spec"], "status": { "allowed": is_allowed, "reason": reason },
    })
}
