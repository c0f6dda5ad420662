//! The resource API over HTTP, with Kubernetes' conventions.

use bytes::Bytes;
use controller::role::Asker;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::{AnswerBody, Desk, refusal};

/// Answers under `/api`, `/apis`, `/openapi` and `/version`.
pub(super) async fn answer(
    _desk: &Desk,
    _asker: &Asker,
    _parts: &Parts,
    _body: Bytes,
) -> Response<AnswerBody> {
    std::future::ready(refusal(StatusCode::NOT_FOUND, "not served yet")).await
}
