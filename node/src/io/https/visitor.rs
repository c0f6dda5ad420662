//! One connection: who is at its other end, and whether he may be there still.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bus::{Identity, KeyHash, Name, NodeId};
use controller::role::{Asker, paths};
use controller::user::NotLetIn;
use hyper::body::Incoming;
use hyper::header::{COOKIE, HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::api::{self, AnswerBody, Desk, Origin};
use super::hall::Slot;
use super::login;
use crate::sessions::SecretHash;

/// Requests of one stranger's connection: the page's files and a log-in. Then it has to come again.
const STRANGERS_REQUESTS: u32 = 64;

/// Why somebody is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Unknown {
    #[error(
        "who are you? Use a client certificate ('kubebus kubeconfig' writes one), or log in with 'kubebus page'"
    )]
    NoProof,
    #[error("the certificate is of cluster {0}, not of this one")]
    OtherCluster(Name),
    #[error(transparent)]
    NotLetIn(#[from] NotLetIn),
    #[error("this log-in has ended; get another link with 'kubebus page'")]
    NoSession,
    #[error("the node is starting; try again")]
    Starting,
}

/// By what somebody is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    Certificate,
    Session(SecretHash),
}

/// Room for one connection: in the hall, and from when its client is known, in the house.
#[derive(Debug)]
pub(super) struct Place {
    hall: Option<Slot>,
    house: Arc<Semaphore>,
    inside: Option<OwnedSemaphorePermit>,
    requests: u32,
}

impl Place {
    pub(super) fn new(hall: Slot, house: Arc<Semaphore>) -> Self {
        Self { hall: Some(hall), house, inside: None, requests: 0 }
    }

    /// False: the house is full.
    fn enter(&mut self) -> bool {
        if self.inside.is_none() {
            self.inside = Arc::clone(&self.house).try_acquire_owned().ok();
        }
        if self.inside.is_some() {
            self.hall = None;
        }
        self.inside.is_some()
    }
}

/// One connection, in the view of its requests.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) desk: Desk,
    pub(super) cluster: Name,
    pub(super) from: SocketAddr,
    /// What the handshake verified.
    pub(super) shown: Option<(Identity, KeyHash)>,
    /// `false`: without TLS, on loopback.
    pub(super) is_secure: bool,
    pub(super) port: u16,
    pub(super) place: Mutex<Place>,
    /// As whom the last request was answered.
    pub(super) last: Mutex<Option<Known>>,
}

/// Somebody who was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    proof: Proof,
    asker: Asker,
}

impl Visitor {
    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if login::is_for(&path) {
            return Ok(self.log_in(request).await);
        }
        let known = match self.known(request.headers()) {
            Ok(known) => known,
            Err(_) if paths::is_open(method.as_str(), &path) => return self.answer_stranger(request).await,
            Err(why) => return Ok(self.turn_away(&path, &why)),
        };
        if !self.lock_place().enter() {
            return Ok(busy(&path));
        }
        let is_session = known.proof != Proof::Certificate;
        if !is_from_here(&method, request.headers(), is_session) {
            let why = "asked by a page of another site: open this node's own page, or use a client that is no browser";
            return Ok(api::turned_away(&path, StatusCode::FORBIDDEN, why));
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        request.extensions_mut().insert(Origin::Address(self.from));
        api::answer(&self.desk, &known.asker, request).await
    }

    /// Whether the last request would still be answered as it was; so is one that is being answered.
    pub(super) fn is_still_let_in(&self) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.is_none_or(|known| self.asker(known.proof.clone()).is_ok_and(|asker| asker == known.asker))
    }

    pub(super) fn is_stranger(&self) -> bool {
        self.lock_place().hall.is_some()
    }

    fn lock_place(&self) -> std::sync::MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A certificate counts before a cookie.
    fn known(&self, headers: &HeaderMap) -> Result<Known, Unknown> {
        let proof = match (&self.shown, self.token(headers)) {
            (Some(_), _) => Proof::Certificate,
            (None, Some(token)) => Proof::Session(token),
            (None, None) => return Err(Unknown::NoProof),
        };
        Ok(Known { asker: self.asker(proof.clone())?, proof })
    }

    fn asker(&self, proof: Proof) -> Result<Asker, Unknown> {
        let doorkeeper = &self.desk.doorkeeper;
        let now = doorkeeper.clock.now();
        let users = doorkeeper.users().ok_or(Unknown::Starting)?;
        match proof {
            Proof::Certificate => {
                let (identity, key) = self.shown.as_ref().ok_or(Unknown::NoProof)?;
                if identity.cluster != self.cluster {
                    return Err(Unknown::OtherCluster(identity.cluster.clone()));
                }
                let role = users.role_of(&identity.node, *key, now.wall)?;
                Ok(Asker { who: identity.node.clone(), role })
            }
            Proof::Session(token) => {
                let guest = doorkeeper.sessions().find(token, now.mono).cloned().ok_or(Unknown::NoSession)?;
                if guest.host != Asker::console().who {
                    users.role_now(&guest.host.name, now.wall)?;
                }
                Ok(guest.asker)
            }
        }
    }

    fn token(&self, headers: &HeaderMap) -> Option<SecretHash> {
        let name = login::cookie_name(self.is_secure, self.port);
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|text| text.split("; ")).filter_map(|pair| pair.split_once('='));
        let (_, secret) = pairs.find(|(key, _)| *key == name)?;
        login::read_secret(secret).map(|secret| SecretHash::of(&secret))
    }

    async fn log_in(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        if !is_from_here(request.method(), request.headers(), true) {
            let why = "asked by a page of another site: open the link itself";
            return api::turned_away("", StatusCode::FORBIDDEN, why);
        }
        let token = self.token(request.headers());
        login::answer(&self.desk.doorkeeper, request, token, (self.is_secure, self.port)).await
    }

    async fn answer_stranger(
        &self,
        mut request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let count = {
            let mut place = self.lock_place();
            place.requests += 1;
            place.requests
        };
        if count > STRANGERS_REQUESTS {
            return Ok(busy(""));
        }
        request.extensions_mut().insert(Origin::Address(self.from));
        api::answer_stranger(&self.desk, request).await
    }

    fn turn_away(&self, path: &str, why: &Unknown) -> Response<AnswerBody> {
        self.desk.audit.count_stranger(&self.from);
        let status = match why {
            Unknown::NoProof | Unknown::NoSession => StatusCode::UNAUTHORIZED,
            Unknown::NotLetIn(_) | Unknown::OtherCluster(_) => StatusCode::FORBIDDEN,
            Unknown::Starting => StatusCode::SERVICE_UNAVAILABLE,
        };
        api::turned_away(path, status, &why.to_string())
    }

    /// Whom the certificate names.
    pub(super) fn name(&self) -> Option<&NodeId> {
        self.shown.as_ref().map(|(identity, _)| &identity.node)
    }
}

fn busy(path: &str) -> Response<AnswerBody> {
    let why = "too many connections are open; close some, or try again";
    let mut response = api::turned_away(path, StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// Whether a request that may change something was not made by another site's page in the browser of somebody who is
/// known here. Browsers say whose page asks; what is no browser says nothing, and has no cookie by itself.
fn is_from_here(method: &Method, headers: &HeaderMap, is_session: bool) -> bool {
    if matches!(*method, Method::GET | Method::HEAD) {
        return true;
    }
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    match (headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()), headers.get(HOST)) {
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, origin)| origin.as_bytes() == host.as_bytes())
        }
        _ => !is_session && headers.get(ORIGIN).is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pair = |&(name, value): &(&'static str, &'static str)| {
                (name.parse().unwrap(), HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect()
        };
        let host = ("host", "10.0.0.1:10443");
        for (pairs, is_session, expected) in [
            (&[host][..], false, true),
            (&[host], true, false),
            (&[host, ("origin", "https://10.0.0.1:10443")], true, true),
            (&[host, ("origin", "https://evil.example")], true, false),
            (&[host, ("origin", "https://evil.example")], false, false),
            (&[host, ("origin", "null")], false, false),
            (&[host, ("sec-fetch-site", "same-origin")], true, true),
            (&[host, ("sec-fetch-site", "same-site"), ("origin", "https://10.0.0.1:10443")], true, false),
            (&[host, ("sec-fetch-site", "none")], true, false),
        ] {
            assert_eq!(is_from_here(&Method::PUT, &headers(pairs), is_session), expected, "{pairs:?}");
            assert!(is_from_here(&Method::GET, &headers(pairs), is_session));
        }
    }
}
