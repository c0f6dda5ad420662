//! The physical world of the demo: the water utility, stepped in real time, its devices behind Unix sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use water::{Device, Snapshot, Utility, UtilityConfig};

/// Simulated seconds per second: an hour of the utility passes in half a minute, so that one watches the level move.
pub(super) const TIME_FACTOR: f64 = 120.0;

/// Steps of the simulation: ten a second, each 12 simulated seconds, a fifth of the valve's travel time.
const STEP: Duration = Duration::from_millis(100);

/// Longest request line; see `water::device`.
const MAX_LINE: u64 = 4096;

/// The running plant. Ends with the handle.
#[derive(Debug)]
pub(super) struct Plant {
    utility: Arc<Mutex<Utility>>,
    stop: Arc<AtomicBool>,
    dir: PathBuf,
}

impl Plant {
    /// Serves `tank.sock` and `valve.sock` in `dir`.
    pub(super) fn start(dir: &Path, seed: u64) -> std::io::Result<Self> {
        let utility = Arc::new(Mutex::new(Utility::new(UtilityConfig::default(), seed)));
        let stop = Arc::new(AtomicBool::new(false));
        for (name, device) in [("tank", Device::Tank), ("valve", Device::Valve)] {
            let listener = UnixListener::bind(socket(dir, name))?;
            let utility = Arc::clone(&utility);
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || accept(&listener, device, &utility))?;
        }
        let (stepped, stopped) = (Arc::clone(&utility), Arc::clone(&stop));
        std::thread::Builder::new().name("plant".to_owned()).spawn(move || run(&stepped, &stopped))?;
        Ok(Self { utility, stop, dir: dir.to_owned() })
    }

    pub(super) fn socket(&self, device: &str) -> PathBuf {
        socket(&self.dir, device)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        lock(&self.utility).snapshot()
    }

    /// Every speed that the mixer was ever told, in order.
    pub(super) fn mixer_commands(&self) -> Vec<f64> {
        lock(&self.utility).mixer_commands().map(|c| c.percent).collect()
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn socket(dir: &Path, device: &str) -> PathBuf {
    dir.join(format!("{device}.sock"))
}

fn lock(utility: &Mutex<Utility>) -> MutexGuard<'_, Utility> {
    utility.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows the clock, however late a step comes.
fn run(utility: &Mutex<Utility>, stop: &AtomicBool) {
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(STEP);
        let now = Instant::now();
        lock(utility).step(now.duration_since(last).as_secs_f64() * TIME_FACTOR);
        last = now;
    }
}

fn accept(listener: &UnixListener, device: Device, utility: &Arc<Mutex<Utility>>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { return };
        let utility = Arc::clone(utility);
        let served = std::thread::Builder::new().name("device".to_owned()).spawn(move || {
            // A mapper that hangs up ends its own connection only.
            let _ = serve(&stream, device, &utility);
        });
        if served.is_err() {
            return;
        }
    }
}

fn serve(stream: &UnixStream, device: Device, utility: &Mutex<Utility>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if (&mut reader).take(MAX_LINE).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut answer = water::handle_line(&mut lock(utility), device, line.trim_end());
        answer.push('\n');
        writer.write_all(answer.as_bytes())?;
    }
}
