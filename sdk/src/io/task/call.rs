//! One call to a driver.

use std::future::Future;
use std::time::Duration;

use bus::twin::DeviceConfig;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::Error;
use crate::io::buses::Bus;
use crate::io::inbox::Inbox;

/// A call to the driver: in its turn on the bus, and no longer than it may take.
pub(super) struct Call<'a, T> {
    pub(super) bus: &'a Bus<T>,
    pub(super) configs: &'a watch::Receiver<DeviceConfig>,
    pub(super) name: &'static str,
    pub(super) limit: Duration,
}

impl<T> Call<'_, T> {
    /// `None` if the hub has let go of the device: the call was dropped at any point.
    pub(super) async fn make<R>(
        &self,
        inbox: &mut Inbox,
        call: impl Future<Output = Result<R, Error>>,
    ) -> Option<Result<R, Error>> {
        let made = async {
            let _turn = self.bus.turn().await;
            timeout(self.limit, call).await
        };
        tokio::select! {
            made = inbox.during(made) => {
                Some(made.unwrap_or_else(|_| Err(Error::Timeout(self.name.to_owned()))))
            }
            () = abandoned(self.configs.clone()) => None,
        }
    }
}

/// Comes true when the hub has let go of the device.
async fn abandoned(mut configs: watch::Receiver<DeviceConfig>) {
    while configs.changed().await.is_ok() {}
}
