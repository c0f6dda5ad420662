//! The page for people to look at, served by the node itself.
//!
//! | request | means |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /page/<file>` | what it consists of: nothing comes from anywhere else |
//! | `GET /page/stream[?device=..&device=..\|?q=..&from=..]` | what it shows, live, as server-sent events: [`stream`] |

mod assets;
mod fleet;
mod stream;

use controller::role::Asker;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::api::{AnswerBody, Desk, refusal};

/// Answers `/` and what is under `/page/`.
pub(super) async fn answer(desk: &Desk, asker: &Asker, parts: &Parts) -> Response<AnswerBody> {
    if ![Method::GET, Method::HEAD].contains(&parts.method) {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "the page is read only: use GET");
    }
    match parts.uri.path() {
        "/page/stream" => stream::open(desk, asker, parts.uri.query().unwrap_or_default()).await,
        path => assets::answer(path, &parts.headers),
    }
}
