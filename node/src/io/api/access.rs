//! Who asks, and what those hear who may not.

use bytes::Bytes;
use controller::role::{Asker, Request, Role, paths, request};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::json;

use super::orders::RoleOrder;
use super::{AnswerBody, Desk, Origin, document, failure, head, refusal};
use crate::admin::AdminError;
use crate::io::https::{LOGIN, show_secret};
use crate::sessions::{Host, LINK_LIFE};
use crate::users::read_role;

/// Where links to the page are had.
const LINKS: &str = "/kubebus/v1/page/links";

/// What is answered beside the owner loop: it knows nothing of the page's guests. `None`: something else is asked.
pub(super) fn answer(desk: &Desk, asker: &Asker, parts: &Parts, body: &[u8]) -> Option<Response<AnswerBody>> {
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/kubebus/v1/whoami") => Some(document(
            StatusCode::OK,
            &json!({ "who": asker.who.to_string(), "role": asker.role.as_str() }),
        )),
        (&Method::POST, LINKS) => Some(match link(desk, asker, body) {
            Ok(link) => document(StatusCode::OK, &link),
            Err(error) => failure(&error),
        }),
        _ => None,
    }
}

fn link(desk: &Desk, asker: &Asker, body: &[u8]) -> Result<serde_json::Value, AdminError> {
    let order: RoleOrder =
        serde_json::from_slice(body).map_err(|error| AdminError::Invalid(format!("body: {error}")))?;
    let role = read_role(&order.role)?;
    if ![Role::Admin, Role::Operator, Role::Viewer].contains(&role) {
        return Err(AdminError::Invalid(format!("role: the page is no place for '{role}'")));
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| AdminError::Invalid(format!("no randomness: {error}")))?;
    let host = host(desk, asker)?;
    desk.doorkeeper.sessions().offer(&secret, role, host, desk.doorkeeper.clock.now().mono);
    let path = format!("{LOGIN}#{}", show_secret(&secret));
    Ok(
        json!({ "path": path, "servers": desk.doorkeeper.listens(), "role": role.as_str(), "seconds": LINK_LIFE.as_secs() }),
    )
}

fn host(desk: &Desk, asker: &Asker) -> Result<Host, AdminError> {
    if asker.is_console() {
        return Ok(Host::console());
    }
    let users = desk.doorkeeper.users().unwrap_or_default();
    let known = users.role_now(&asker.who.name, desk.doorkeeper.clock.now().wall);
    let (_, key) = known.map_err(|why| AdminError::Invalid(why.to_string()))?;
    Ok(Host { who: asker.who.clone(), key: Some(key) })
}

/// To somebody whose role is too little.
pub(in crate::io) fn forbidden(asker: &Asker, asked: Request<'_>) -> Response<AnswerBody> {
    let Request { method, path, .. } = asked;
    if path == LINKS && asker.role == Role::Admin {
        let why = format!(
            "{} is {} by a link, and may not {method} {path}: that takes a certificate",
            asker.who, asker.role
        );
        return turned_away(path, StatusCode::FORBIDDEN, &why);
    }
    let may: Vec<_> =
        Role::ALL.into_iter().filter(|role| request::may(*role, asked)).map(Role::as_str).collect();
    let why = format!(
        "{} is {}, and may not {method} {path}: that takes the role {}",
        asker.who,
        asker.role,
        may.join(" or ")
    );
    turned_away(path, StatusCode::FORBIDDEN, &why)
}

/// The resource API's clients read a `Status`, all others an `error`.
pub(in crate::io) fn turned_away(path: &str, status: StatusCode, why: &str) -> Response<AnswerBody> {
    let mut response = match request::is_resource_api(path) {
        true => kubernetes_status(status, why),
        false => refusal(status, why),
    };
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Mutual"));
    }
    response
}

fn kubernetes_status(status: StatusCode, why: &str) -> Response<AnswerBody> {
    let reason = match status {
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        _ => "ServiceUnavailable",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": why, "reason": reason, "code": status.as_u16(),
    });
    let mut response = Response::new(AnswerBody::Whole(Full::new(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What nobody has to be known for is served to anybody who is known.
pub(super) fn may(asker: &Asker, parts: &Parts) -> bool {
    let asked = head(parts);
    // A guest has no guests: his link ends with his host's, and his session when it is over.
    let is_guest = matches!(parts.extensions.get(), Some(Origin::Page(_)));
    if is_guest && asked.path == LINKS {
        return false;
    }
    request::may(asker.role, asked) || paths::is_open(asked.method, asked.path)
}
