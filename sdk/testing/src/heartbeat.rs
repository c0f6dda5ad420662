//! Whether a driver lets its thread do other things while it waits.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{interval, timeout};

/// How often the thread is asked for a sign of life.
const BEAT: Duration = Duration::from_millis(20);

/// The longest that a call may keep its thread.
const LIMIT: Duration = Duration::from_secs(4);

/// Runs a call on a thread with nothing else but a heart; how often that has beaten when the call ended, or when it has
/// taken too long.
pub(crate) async fn beside(call: impl Future<Output = ()> + Send + 'static) -> u32 {
    let beats = Arc::<AtomicU32>::default();
    let counted = Arc::clone(&beats);
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let heart = async {
                let mut beat = interval(BEAT);
                loop {
                    beat.tick().await;
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            };
            tokio::select! {
                () = call => {}
                () = heart => {}
            }
        });
        let _ = ended.send(()); // nobody may wait any more
    });
    drop(timeout(LIMIT, end).await);
    beats.load(Ordering::Relaxed)
}
