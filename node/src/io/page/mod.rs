//! The page for people to look at, served by the node itself.

use controller::role::Asker;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::api::{AnswerBody, Desk, refusal};

/// Answers `/` and what is under `/page/`.
pub(super) async fn answer(_desk: &Desk, _asker: &Asker, _parts: &Parts) -> Response<AnswerBody> {
    std::future::ready(refusal(StatusCode::NOT_FOUND, "not served yet")).await
}
