//! One connection: who is at its other end, and whether he may be there still.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bus::{Name, NodeId};
use controller::role::{self, Asker, paths};
use controller::user::NotLetIn;
use hyper::body::Incoming;
use hyper::header::{COOKIE, HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::api::{self, AnswerBody, Desk, Origin};
use super::super::shares::{Share, Shares};
use super::hall::{Hall, Slot};
use super::login::{self, Way};
use super::tls::Shown;
use crate::sessions::{NoHost, SecretHash};

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
    #[error("the certificate of {0} has expired: get another")]
    Expired(NodeId),
    #[error(transparent)]
    NoHost(#[from] NoHost),
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

/// The rooms of those who are known.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    all: Arc<Semaphore>,
    of_one: Shares,
}

impl Rooms {
    pub(super) fn new(all: usize, of_one: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), of_one: Shares::new(of_one) }
    }

    fn take(&self, who: &NodeId) -> Option<Room> {
        let share = self.of_one.take(who)?;
        Some(Room { _share: share, _room: Arc::clone(&self.all).try_acquire_owned().ok()? })
    }
}

#[derive(Debug)]
struct Room {
    _share: Share,
    _room: OwnedSemaphorePermit,
}

/// Room for one connection: in the hall, and from when its client is known, in the house.
#[derive(Debug)]
pub(super) struct Place {
    hall: Option<Slot>,
    rooms: Rooms,
    inside: Option<Room>,
    requests: u32,
    /// A change of his is being made.
    changes: bool,
}

impl Place {
    pub(super) fn new(rooms: Rooms) -> Self {
        Self { hall: None, rooms, inside: None, requests: 0, changes: false }
    }

    /// False: the house is full, or he has his share of it.
    fn enter(&mut self, who: &NodeId) -> bool {
        if self.inside.is_none() {
            self.inside = self.rooms.take(who);
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
    pub(super) shown: Option<Shown>,
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
    /// After the handshake: whose certificate lets him in has a room at once, all others wait in the hall. False: it is
    /// full.
    pub(super) fn settle(&self, hall: &Hall) -> bool {
        let known = self.known(&HeaderMap::new());
        if known.is_ok_and(|known| self.lock_place().enter(&known.asker.who)) {
            return true;
        }
        let slot = hall.enter(self.from.ip());
        let has_slot = slot.is_some();
        self.lock_place().hall = slot;
        has_slot
    }

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
        if !self.lock_place().enter(&known.asker.who) {
            return Ok(busy(&path));
        }
        let is_session = known.proof != Proof::Certificate;
        if !is_from_here(&method, request.headers(), is_session) {
            let why = "asked by a page of another site: open this node's own page, or use a client that is no browser";
            return Ok(api::turned_away(&path, StatusCode::FORBIDDEN, why));
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        request.extensions_mut().insert(match is_session {
            true => Origin::Page(self.from),
            false => Origin::Address(self.from),
        });
        let query = request.uri().query().unwrap_or_default();
        let asked = role::Request { method: method.as_str(), path: &path, query };
        self.lock_place().changes = !role::request::only_reads(asked);
        let answer = api::answer(&self.desk, &known.asker, request).await;
        self.lock_place().changes = false;
        answer
    }

    /// Whether his last request is a change that is still being made: nothing else is answered to him meanwhile.
    pub(super) fn is_changing(&self) -> bool {
        self.lock_place().changes
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
                let Shown { identity, key, not_after } = self.shown.as_ref().ok_or(Unknown::NoProof)?;
                if identity.cluster != self.cluster {
                    return Err(Unknown::OtherCluster(identity.cluster.clone()));
                }
                let role = users.role_of(&identity.node, *key, now.wall)?;
                // Of a user the row says it too, of a mapper nothing else.
                if *not_after <= now.wall {
                    return Err(Unknown::Expired(identity.node.clone()));
                }
                Ok(Asker { who: identity.node.clone(), role })
            }
            Proof::Session(token) => {
                let guest = doorkeeper.sessions().find(token, now.mono).cloned().ok_or(Unknown::NoSession)?;
                guest.host.check(guest.asker.role, &users, now.wall)?;
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
        let way = Way { from: self.from, is_secure: self.is_secure, port: self.port };
        login::answer(&self.desk, request, token, way).await
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
            Unknown::NotLetIn(_) | Unknown::NoHost(_) | Unknown::Expired(_) | Unknown::OtherCluster(_) => {
                StatusCode::FORBIDDEN
            }
            Unknown::Starting => StatusCode::SERVICE_UNAVAILABLE,
        };
        api::turned_away(path, status, &why.to_string())
    }

    /// Whom the certificate names.
    pub(super) fn name(&self) -> Option<&NodeId> {
        self.shown.as_ref().map(|shown| &shown.identity.node)
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
