//! What devices on one bus share.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

/// A place for the one connection of a bus: the open serial port, the gateway's socket. Empty until a driver puts something
/// there.
///
/// The SDK makes one call at a time on a bus, so nobody waits for the lock. A call may be dropped in the middle of a
/// request, whose answer would then be taken for that of the next one: take the connection out, and put it back when
/// the answer has come.
///
/// ```
/// # async fn ask(bus: &kubebus_sdk::Shared<tokio::net::TcpStream>) -> std::io::Result<()> {
/// let mut place = bus.lock().await;
/// let connection = match place.take() {
///     Some(connection) => connection,
///     None => tokio::net::TcpStream::connect("10.0.0.7:502").await?,
/// };
/// // ask, and hear the answer
/// *place = Some(connection);
/// # Ok(())
/// # }
/// ```
pub struct Shared<T>(Arc<Mutex<Option<T>>>);

impl<T> Shared<T> {
    /// The place, for the length of one request.
    pub async fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.0.lock().await
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
