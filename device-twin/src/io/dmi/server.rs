//! One mapper's connection, and the calls on it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, server};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use prost::Message;
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::authority::Rewriter;
use super::grpc::{self, Code, Status};
use super::hpack::MAX_LIST;
use super::{Answered, DmiEvent, Reply};
use crate::dmi::Request as Said;
use crate::dmi::api::MANAGER;

/// Calls at a time on one connection: a mapper of KubeEdge's makes one. Further ones wait at the mapper.
const MAX_STREAMS: u32 = 16;

/// A connection without calls is closed after this time; gRPC's clients open another when they need one.
const IDLE: Duration = Duration::from_secs(300);

/// How long a call may take to arrive whole.
const ARRIVAL: Duration = Duration::from_secs(10);

/// How long the node may take over a call: a slow disk. Mappers give up after a second, and may say it again.
const DECISION: Duration = Duration::from_secs(30);

/// Bytes read at a time.
const READ: usize = 8 * 1024;

/// Serves one connection to its end.
pub(super) async fn serve(socket: UnixStream, ask: mpsc::Sender<DmiEvent>) -> Result<(), h2::Error> {
    let mut settings = Builder::new();
    settings.max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_LIST as u32);
    let handshake = settings.handshake(Fit::new(socket));
    let Ok(connection) = tokio::time::timeout(ARRIVAL, handshake).await else { return Ok(()) };
    let mut connection: server::Connection<_, Bytes> = connection?;
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            called = tokio::time::timeout(IDLE, connection.accept()) => match called {
                Ok(Some(called)) => {
                    let (request, response) = called?;
                    calls.spawn(answer(request, response, ask.clone()));
                }
                Ok(None) => return Ok(()),
                Err(_) if calls.is_empty() => connection.graceful_shutdown(),
                Err(_) => {}
            },
            Some(_) = calls.join_next() => {}
        }
    }
}

async fn answer(request: Request<RecvStream>, response: SendResponse<Bytes>, ask: mpsc::Sender<DmiEvent>) {
    // A client that is gone is told nothing.
    let _ = match decide(request, ask).await {
        Ok(reply) => say(response, &reply),
        Err(status) => refuse(response, &status),
    };
}

async fn decide(request: Request<RecvStream>, ask: mpsc::Sender<DmiEvent>) -> Result<Bytes, Status> {
    let (head, mut body) = request.into_parts();
    if head.method != Method::POST {
        return Err(Status::new(Code::Unimplemented, "gRPC calls are POST"));
    }
    let message = tokio::time::timeout(ARRIVAL, grpc::message(&mut body)).await;
    let message = message.map_err(|_| Status::new(Code::DeadlineExceeded, "the call did not arrive"))??;
    let said = read(head.uri.path(), message)?;
    let (reply, replied) = oneshot::channel();
    let unavailable = |why: &str| Status::new(Code::Unavailable, why);
    let asked = ask.send(DmiEvent::Request(said, Answered(reply))).await;
    asked.map_err(|_| unavailable("the edge is stopping"))?;
    match tokio::time::timeout(DECISION, replied).await {
        Ok(Ok(Reply::Done(message))) => Ok(message),
        Ok(Ok(Reply::Refused(why))) => Err(Status::new(Code::Unknown, why)),
        Ok(Ok(Reply::Unkept)) => Err(unavailable("the disk refuses writes")),
        Ok(Err(_)) => Err(unavailable("the edge is stopping")),
        Err(_) => Err(unavailable("the edge is busy")),
    }
}

/// The request of a method.
fn read(path: &str, message: Bytes) -> Result<Said, Status> {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(MANAGER)?.strip_prefix('/'));
    let decoded = match method {
        Some("MapperRegister") => Message::decode(message).map(Said::Register),
        Some("ReportDeviceStatus") => Message::decode(message).map(Said::Status),
        Some("ReportDeviceStates") => Message::decode(message).map(Said::States),
        Some(_) | None => return Err(Status::new(Code::Unimplemented, format!("there is no method {path}"))),
    };
    decoded.map_err(|why| Status::new(Code::InvalidArgument, why.to_string()))
}

fn head() -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::OK;
    head.headers_mut().insert("content-type", HeaderValue::from_static(grpc::CONTENT_TYPE));
    head
}

fn say(mut response: SendResponse<Bytes>, message: &Bytes) -> Result<(), h2::Error> {
    let mut body = response.send_response(head(), false)?;
    body.send_data(grpc::framed(message), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert(grpc::STATUS, HeaderValue::from_static("0"));
    body.send_trailers(trailers)
}

fn refuse(mut response: SendResponse<Bytes>, status: &Status) -> Result<(), h2::Error> {
    let mut head = head();
    head.headers_mut().insert(grpc::STATUS, HeaderValue::from(status.code as u16));
    if let Ok(message) = HeaderValue::from_str(&grpc::percent_encoded(&status.message)) {
        head.headers_mut().insert(grpc::MESSAGE, message);
    }
    response.send_response(head, true).map(drop)
}

/// A connection whose requests h2 can read.
struct Fit {
    socket: UnixStream,
    rewriter: Rewriter,
    /// Fit, and not yet taken from `taken` on: what one read and one header block make at most.
    ready: Vec<u8>,
    taken: usize,
}

impl Fit {
    fn new(socket: UnixStream) -> Self {
        Self { socket, rewriter: Rewriter::default(), ready: Vec::new(), taken: 0 }
    }
}

impl AsyncRead for Fit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.taken == this.ready.len() {
            let mut bytes = [0; READ];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.taken = 0;
            let fed = this.rewriter.feed(read.filled(), &mut this.ready);
            fed.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        }
        let rest = &this.ready[this.taken..];
        let now = &rest[..rest.len().min(buffer.remaining())];
        buffer.put_slice(now);
        this.taken += now.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Fit {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
