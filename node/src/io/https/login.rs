//! The page's log-in: a one-time link becomes a cookie.
//!
//! | request | means |
//! |---|---|
//! | `GET /page/login` | a page that takes the secret out of the link's fragment, which browsers send to nobody |
//! | `POST /page/session` | `{"secret": ..}` uses the link up; the answer sets the cookie |
//! | `DELETE /page/session` | logs out |

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use controller::role;
use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tracing::info;

use super::super::api::{AnswerBody, Desk, Origin, carried_out, document, refusal};
use super::super::audit;
use crate::sessions::{Guest, SESSION_LIFE, Secret, SecretHash};

/// Where links lead.
pub(in crate::io) const LOGIN: &str = "/page/login";
const SCRIPT: &str = "/page/login.js";
const SESSION: &str = "/page/session";

/// A secret in JSON takes 57 bytes.
const MAX_BODY: usize = 1024;

/// How long it may take to send it.
const PATIENCE: Duration = Duration::from_secs(10);

const POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) fn is_for(path: &str) -> bool {
    [LOGIN, SCRIPT, SESSION].contains(&path)
}

/// Cookies are a host's, whatever the port: two nodes of one machine must not overwrite each other's.
pub(super) fn cookie_name(is_secure: bool, port: u16) -> String {
    let prefix = if is_secure { "__Host-" } else { "" };
    format!("{prefix}kubebus-{port}")
}

pub(super) fn read_secret(text: &str) -> Option<Secret> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

pub(in crate::io) fn show_secret(secret: &Secret) -> String {
    BASE64URL_NOPAD.encode(secret)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    secret: String,
}

/// How somebody came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) from: SocketAddr,
    pub(super) is_secure: bool,
    pub(super) port: u16,
}

pub(super) async fn answer(
    desk: &Desk,
    request: Request<Incoming>,
    token: Option<SecretHash>,
    way: Way,
) -> Response<AnswerBody> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, LOGIN) => file("text/html; charset=utf-8", include_str!("login.html")),
        (&Method::GET, SCRIPT) => file("text/javascript; charset=utf-8", include_str!("login.js")),
        (&Method::POST, SESSION) => begin(desk, request, way).await,
        (&Method::DELETE, SESSION) => {
            let guest = token.and_then(|token| desk.doorkeeper.sessions().leave(token));
            let answer = with_cookie(&json!({}), "", Duration::ZERO, way);
            match guest {
                Some(guest) => noted(desk, &guest, "DELETE", way, answer).await,
                None => answer,
            }
        }
        _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "POST logs in, DELETE logs out"),
    }
}

/// Who comes by a link, and when he goes, is in the audit log.
async fn noted(
    desk: &Desk,
    guest: &Guest,
    method: &str,
    way: Way,
    answer: Response<AnswerBody>,
) -> Response<AnswerBody> {
    let asked = role::Request { method, path: SESSION, query: "" };
    let now = desk.doorkeeper.clock.now().wall;
    match audit::begin(&guest.asker, Some(&Origin::Page(way.from)), asked, now) {
        Some(audited) => {
            carried_out({
                let log = desk.audit.clone();
                async move { audited.end(&log, answer).await }
            })
            .await
        }
        None => answer,
    }
}

async fn begin(desk: &Desk, request: Request<Incoming>, way: Way) -> Response<AnswerBody> {
    let doorkeeper = &desk.doorkeeper;
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let Ok(Ok(body)) = timeout(PATIENCE, body).await else {
        return refusal(StatusCode::BAD_REQUEST, "send {\"secret\": ..} as JSON, at once");
    };
    let order = serde_json::from_slice::<Order>(&body.to_bytes()).ok();
    let Some(secret) = order.and_then(|order| read_secret(&order.secret)) else {
        return refusal(StatusCode::BAD_REQUEST, "secret: it is the part of the link behind '#'");
    };
    let mut token = [0; 32];
    if let Err(error) = getrandom::fill(&mut token) {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, &format!("no randomness: {error}"));
    }
    let now = doorkeeper.clock.now().mono;
    let guest = doorkeeper.sessions().redeem(&secret, &token, now);
    let Some(guest) = guest else {
        desk.audit.count_stranger(&way.from);
        let why = "this link was used, or is older than five minutes; get another with 'kubebus page'";
        return refusal(StatusCode::FORBIDDEN, why);
    };
    info!(who = %guest.asker.who, role = %guest.asker.role, "logged in at the page");
    let told = json!({ "who": guest.asker.who.to_string(), "role": guest.asker.role.as_str() });
    let answer = with_cookie(&told, &show_secret(&token), SESSION_LIFE, way);
    noted(desk, &guest, "POST", way, answer).await
}

fn with_cookie(
    told: &serde_json::Value,
    value: &str,
    life: Duration,
    Way { is_secure, port, .. }: Way,
) -> Response<AnswerBody> {
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!(
        "{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}",
        cookie_name(is_secure, port),
        life.as_secs()
    );
    let mut response = document(StatusCode::OK, told);
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn file(kind: &'static str, text: &'static str) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(Full::new(Bytes::from_static(text.as_bytes()))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
