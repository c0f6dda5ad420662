//! Asking a node by its admin socket.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::SOCKET;
use crate::admin::Fault;
use crate::io::api::BACKUP;

/// Why a question to the node's admin socket got no answer.
#[derive(Debug, Error)]
pub enum AskError {
    #[error("no kubebus runs under {path}: start 'kubebus cloud' or 'kubebus edge', or name its --data-dir")]
    NotRunning { path: String },
    #[error("the admin socket {path} needs the user that runs the node")]
    Forbidden { path: String },
    #[error("{message}")]
    Refused { status: u16, message: String, faults: Vec<Fault> },
    #[error("the node stopped in mid-answer")]
    Broken(#[source] hyper::Error),
    #[error("connect to the admin socket")]
    Connect(#[source] std::io::Error),
    #[error("cannot stop the node")]
    Terminate(#[source] std::io::Error),
    #[error("cannot keep the answer")]
    Keep(#[source] std::io::Error),
}

/// What answers are made of, if nothing else is asked for.
const JSON: &str = "application/json";

/// Asks the node whose data directory is `data_dir`.
pub async fn ask(
    data_dir: &Path,
    method: Method,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<String, AskError> {
    let mut driver = JoinSet::new();
    let response = request(data_dir, (method, path), body, JSON, &mut driver).await?;
    let bytes = response.into_body().collect().await.map_err(AskError::Broken)?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Asks the cloud for a backup and hands it to `keep`, piece by piece.
pub async fn ask_for_backup(
    data_dir: &Path,
    keep: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), AskError> {
    ask_stream(data_dir, BACKUP, JSON, keep).await
}

/// Asks for what comes piece by piece, to its end; `accept` is the form that is wanted.
pub async fn ask_stream(
    data_dir: &Path,
    path: &str,
    accept: &'static str,
    mut keep: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), AskError> {
    let mut driver = JoinSet::new();
    let mut body = request(data_dir, (Method::GET, path), None, accept, &mut driver).await?.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(AskError::Broken)?.into_data() {
            keep(&piece).map_err(AskError::Keep)?;
        }
    }
    Ok(())
}

/// Tells the node to end, as a service manager does.
pub async fn terminate(data_dir: &Path) -> Result<(), AskError> {
    let stream = connect(&data_dir.join(SOCKET)).await?;
    let told = stream.peer_cred().and_then(|peer| {
        let pid = peer.pid().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| std::io::Error::other("it runs in another container: stop it there"))?;
        Ok(kill_process(pid, Signal::TERM)?)
    });
    told.map_err(AskError::Terminate)
}

/// The process that answers at the socket, as far as it can be seen from here.
pub async fn process_of(data_dir: &Path) -> Option<i32> {
    connect(&data_dir.join(SOCKET)).await.ok()?.peer_cred().ok()?.pid()
}

/// Sends a request and waits for the head of its answer, which says yes. `driver` drives the socket as long as it is
/// kept.
async fn request(
    data_dir: &Path,
    (method, path): (Method, &str),
    body: Option<&serde_json::Value>,
    accept: &'static str,
    driver: &mut JoinSet<hyper::Result<()>>,
) -> Result<Response<Incoming>, AskError> {
    let stream = connect(&data_dir.join(SOCKET)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(AskError::Broken)?;
    let body = body.map(ToString::to_string).unwrap_or_default();
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
    *request.uri_mut() = path.parse().map_err(|_| AskError::Refused {
        status: 400,
        message: format!("'{path}' holds characters that no name has"),
        faults: Vec::new(),
    })?;
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(AskError::Broken)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = response.into_body().collect().await.map_err(AskError::Broken)?.to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let parsed: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let faults = parsed.as_ref().map(faults).unwrap_or_default();
    // The resource API says it as Kubernetes does.
    let said = |field| parsed.as_ref()?.get(field)?.as_str().map(str::to_owned);
    let message = said("error").or_else(|| said("message")).unwrap_or(text);
    Err(AskError::Refused { status: status.as_u16(), message, faults })
}

async fn connect(path: &Path) -> Result<UnixStream, AskError> {
    UnixStream::connect(path).await.map_err(|error| {
        use std::io::ErrorKind;
        let is_any = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
        if is_any(&[ErrorKind::NotFound, ErrorKind::ConnectionRefused]) {
            AskError::NotRunning { path: path.parent().unwrap_or(path).display().to_string() }
        } else if is_any(&[ErrorKind::PermissionDenied]) {
            AskError::Forbidden { path: path.display().to_string() }
        } else {
            AskError::Connect(error)
        }
    })
}

/// What names the fields of a refused manifest; empty for other answers.
fn faults(answer: &serde_json::Value) -> Vec<Fault> {
    let read = |value: &serde_json::Value| Fault::deserialize(value).ok();
    let Some(first) = answer.get("field").and_then(|_| read(answer)) else { return Vec::new() };
    let more = answer["more"].as_array().into_iter().flatten().filter_map(read);
    [first].into_iter().chain(more).collect()
}
