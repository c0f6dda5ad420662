//! Bodies of requests: how long they may be, how long they may take, and how many bytes of them are here at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use controller::role::{Asker, Request, Role, request};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{AnswerBody, refusal, resources};

/// An administrator's: a manifest of Kubernetes' own limit fits.
const OF_ADMINS: usize = 1 << 20;

/// Of all others, who wish and command: a value takes 64 KiB at most.
const OF_OTHERS: usize = 128 << 10;

/// Of questions that have a body.
const OF_QUESTIONS: usize = 16 << 10;

/// How long a body may take: a manifest of 1 MiB takes 3 s at 3 Mbit/s.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is counted at once, in bytes. Each body counts for one at least, so that bodies are 2048 at most.
const PIECE: usize = 4 << 10;

/// Bodies that are here at a time, 8 MiB in all: one more waits until another was answered, then hears 503. One client who
/// is no administrator has 32 connections of 128 KiB, which is half of it.
const PIECES: usize = (8 << 20) / PIECE;

/// Shared by all who come in over HTTPS. The admin socket has 16 connections of its own, and waits for nobody.
#[derive(Debug, Clone)]
pub(in crate::io) struct Intake(Arc<Semaphore>);

impl Default for Intake {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PIECES)))
    }
}

/// Until it is dropped, a body counts as being here.
pub(super) type Room = Option<OwnedSemaphorePermit>;

fn limit(asker: &Asker, asked: Request<'_>) -> usize {
    match asker.role {
        _ if request::only_reads(asked) => OF_QUESTIONS,
        Role::Admin => OF_ADMINS,
        Role::Operator | Role::Viewer | Role::Mapper | Role::App => OF_OTHERS,
    }
}

impl Intake {
    pub(super) async fn read(
        &self,
        asker: &Asker,
        asked: Request<'_>,
        body: Incoming,
    ) -> Result<(Bytes, Room), Response<AnswerBody>> {
        let limit = limit(asker, asked);
        let is_api = matches!(asked.path.split('/').nth(1), Some("api" | "apis"));
        let too_long = || match is_api {
            true => resources::too_large(limit),
            false => refusal(StatusCode::PAYLOAD_TOO_LARGE, &format!("body over {} KiB", limit >> 10)),
        };
        let said = body.size_hint().upper().map_or(limit, |len| usize::try_from(len).unwrap_or(usize::MAX));
        if said > limit {
            return Err(too_long());
        }
        let read = async {
            let room = if asker.is_console() { None } else { Some(self.room(said).await) };
            (Limited::new(body, limit).collect().await, room)
        };
        match timeout(PATIENCE, read).await {
            Ok((Ok(body), room)) => Ok((body.to_bytes(), room.flatten())),
            Ok((Err(_), _)) => Err(too_long()),
            Err(_) => Err(refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come within 30 s")),
        }
    }

    async fn room(&self, bytes: usize) -> Room {
        let pieces = u32::try_from(bytes.div_ceil(PIECE).max(1)).unwrap_or(u32::MAX);
        // It is never closed.
        Arc::clone(&self.0).acquire_many_owned(pieces).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_send_less_is_held_to_it() {
        let alice = |role| Asker { who: "user/alice".parse().unwrap(), role };
        let ask = |method, path| Request { method, path, query: "" };
        for (role, method, path, expected) in [
            (Role::Admin, "POST", "/kubebus/v1/resources", OF_ADMINS),
            (Role::Admin, "POST", "/kubebus/v1/policy/test", OF_QUESTIONS),
            (Role::App, "POST", "/kubebus/v1/changes", OF_OTHERS),
            (Role::Viewer, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", OF_QUESTIONS),
            (Role::Viewer, "GET", "/kubebus/v1/twins", OF_QUESTIONS),
        ] {
            assert_eq!(limit(&alice(role), ask(method, path)), expected, "{role} {method} {path}");
        }
    }
}
