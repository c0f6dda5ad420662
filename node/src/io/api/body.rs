//! Answers to HTTP requests: whole, or piece by piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;

use super::super::backup;
use super::super::shares::Share;
use crate::admin::{AdminError, Fault};

/// What an answer consists of.
pub(in crate::io) enum AnswerBody {
    Whole(Full<Bytes>),
    /// As its task has something to say; it ends when the sender is dropped, and the sender sees when the client is gone.
    Pieces(mpsc::Receiver<Bytes>),
    /// The same, which takes somebody's share as long as it lasts.
    Shared {
        pieces: mpsc::Receiver<Bytes>,
        _share: Share,
    },
    Backup(Box<backup::format::Encoder>),
}

impl AnswerBody {
    /// What is whole is over at once, and needs no share.
    pub(super) fn with(self, share: Share) -> Self {
        match self {
            Self::Pieces(pieces) => Self::Shared { pieces, _share: share },
            other @ (Self::Whole(_) | Self::Shared { .. } | Self::Backup(_)) => other,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Pieces(pieces) | Self::Shared { pieces, _share: _ } => {
                pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
            Self::Backup(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Pieces(_) | Self::Shared { .. } | Self::Backup(_) => SizeHint::default(),
        }
    }
}

pub(in crate::io) fn failure(error: &AdminError) -> Response<AnswerBody> {
    let status = match error {
        AdminError::Manifest(faults) => return document(StatusCode::BAD_REQUEST, &faulty(faults)),
        AdminError::Invalid(_) => StatusCode::BAD_REQUEST,
        AdminError::NotFound(_) => StatusCode::NOT_FOUND,
        AdminError::Conflict(_) => StatusCode::CONFLICT,
        AdminError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
        AdminError::CloudOnly | AdminError::Standby(_) => StatusCode::MISDIRECTED_REQUEST,
        AdminError::Degraded(_) | AdminError::Unkept => StatusCode::INSUFFICIENT_STORAGE,
    };
    refusal(status, &error.to_string())
}

/// `{"error": .., "field": .., "more": [{"error": .., "field": ..}]}`.
fn faulty(faults: &[Fault]) -> serde_json::Value {
    match faults.split_first() {
        Some((Fault { message, field }, more)) => json!({ "error": message, "field": field, "more": more }),
        None => json!({ "error": "the manifest is refused" }),
    }
}

pub(in crate::io) fn refusal(status: StatusCode, message: &str) -> Response<AnswerBody> {
    document(status, &json!({ "error": message }))
}

pub(in crate::io) fn document(status: StatusCode, value: &serde_json::Value) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(Full::new(Bytes::from(value.to_string()))));
    *response.status_mut() = status;
    response
}

pub(in crate::io) fn plain(text: String) -> Response<AnswerBody> {
    Response::new(AnswerBody::Whole(Full::new(Bytes::from(text))))
}
