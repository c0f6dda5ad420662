//! The admin socket: HTTP on a Unix socket in the data directory, mode 0600. Who may open it is an administrator.

mod client;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use controller::role::Asker;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use self::client::{AskError, ask, ask_for_backup, terminate};
use super::api::{self, Desk, Origin};

/// Connections served at once; further ones wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 16;

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";

/// Binds the socket, replacing one that a crashed process left.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the owner loop is gone.
pub async fn serve(listener: UnixListener, desk: Desk) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = desk.ask.closed() => return,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors: a moment later there may be some.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let desk = desk.clone();
        connections.spawn(async move {
            let asker = Asker::console();
            let origin = Origin::Console { uid: stream.peer_cred().ok().map(|peer| peer.uid()) };
            let service = hyper::service::service_fn(|mut request| {
                request.extensions_mut().insert(origin);
                api::answer(&desk, &asker, request)
            });
            // A client that hangs up in mid-request is its own affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(slot);
        });
    }
}
