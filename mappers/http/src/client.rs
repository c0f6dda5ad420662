//! Our side of HTTP/1.1: readings over a connection that is kept, writes over one of their own.
//!
//! hyper's client has no pool and repeats nothing by itself here: what is sent once is sent once.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::Uri;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use kubebus_sdk::{Consumed, Error, WritePermit};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::answer::Answer;
use crate::config::Target;

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Readings and writes of one device.
pub(crate) struct Client {
    target: Target,
    kept: Option<Line>,
}

/// One connection. It ends when this is dropped.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

/// What is written.
pub(crate) struct Message {
    pub(crate) method: Method,
    pub(crate) path: Uri,
    pub(crate) content_type: String,
    pub(crate) body: Option<String>,
}

impl Client {
    /// Connects, and asks nothing.
    pub(crate) async fn connect(target: Target) -> Result<Self, Error> {
        let kept = Some(Line::connect(&target).await?);
        Ok(Self { target, kept })
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Whether somebody is there.
    pub(crate) async fn probe(&mut self) -> Result<(), Error> {
        if self.kept.as_ref().is_none_or(|line| line.sender.is_closed()) {
            self.kept = Some(Line::connect(&self.target).await?);
        }
        Ok(())
    }

    /// Reads a path. A kept connection that turns out to be closed is replaced once: reading twice changes nothing.
    pub(crate) async fn get(&mut self, path: &Uri) -> Result<Answer, Error> {
        let kept = self.kept.take().filter(|line| !line.sender.is_closed());
        if let Some(mut line) = kept {
            match within(self.target.timeout, path, line.ask(self.reading(path))).await {
                Ok(answer) => {
                    self.kept = Some(line);
                    return Ok(answer);
                }
                Err(Error::Transient { .. }) => {} // it was closed while nothing was going on
                Err(error) => return Err(error),
            }
        }
        let mut line = Line::connect(&self.target).await?;
        let answer = within(self.target.timeout, path, line.ask(self.reading(path))).await?;
        self.kept = Some(line);
        Ok(answer)
    }

    fn reading(&self, path: &Uri) -> Request<Full<Bytes>> {
        self.request(Method::GET, path, Bytes::new())
    }

    fn request(&self, method: Method, path: &Uri, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut()) = (method, path.clone());
        *request.headers_mut() = self.target.headers.clone();
        request
    }

    /// Sends a write, once, over a connection of its own. The permit is consumed when the connection stands.
    pub(crate) async fn write(
        &self,
        message: Message,
        permit: WritePermit,
    ) -> Result<(Consumed, Answer), Error> {
        let Message { method, path, content_type, body } = message;
        let has_body = body.is_some();
        let mut request = self.request(method, &path, Bytes::from(body.unwrap_or_default()));
        request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        if has_body {
            let named = content_type
                .parse()
                .map_err(|_| Error::Unsupported("write.content_type: no media type".into()))?;
            request.headers_mut().insert(header::CONTENT_TYPE, named);
        }
        let stream = dial(&self.target).await?;
        // Else the kernel goes on sending a write that was given up when this is closed.
        stream.set_zero_linger()?;
        let mut line = Line::over(stream).await?;
        line.sender.ready().await.map_err(broken)?;
        let consumed = permit.consume()?;
        let answer = within(self.target.timeout, &path, line.ask(request)).await?;
        Ok((consumed, answer))
    }
}

impl Line {
    async fn connect(target: &Target) -> Result<Self, Error> {
        Self::over(dial(target).await?).await
    }

    async fn over(stream: TcpStream) -> Result<Self, Error> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) }); // who asks is told
        Ok(Self { sender, _connection: tasks })
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        self.sender.ready().await.map_err(broken)?;
        let response = self.sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| Error::transient(format!("the answer's body: {error}")))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

async fn dial(target: &Target) -> Result<TcpStream, Error> {
    let (host, port) = (target.host.as_str(), target.port);
    let place = || format!("{host}:{port}");
    let dialled = timeout(target.timeout, TcpStream::connect((host, port))).await;
    let stream = dialled
        .map_err(|_| Error::Timeout(format!("connect to {}", place())))?
        .map_err(|error| Error::transient(format!("{}: {error}", place())))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn within<T>(
    limit: Duration,
    path: &Uri,
    asked: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, asked).await.unwrap_or_else(|_| Err(Error::Timeout(path.to_string())))
}

fn broken(error: hyper::Error) -> Error {
    Error::transient(format!("the connection broke: {error}"))
}
