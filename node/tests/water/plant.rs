//! The physical world: the utility, stepped by the test's time, its devices behind Unix sockets.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use water::{Command, Device, Fault, Snapshot, Utility, UtilityConfig};

use crate::time::Time;

/// Between two steps, in real time.
const TICK: Duration = Duration::from_millis(5);

/// Longest step of the simulation in seconds, however fast time runs.
const LONGEST_STEP: f64 = 2.0;

/// Of all noise.
pub(crate) const SEED: u64 = 7;

/// Its sockets. The gauge is the pressure sensor ahead of the valve: a device of its own, so that it can fail alone.
/// `valve2` answers where the utility has a second valve.
const SOCKETS: [(&str, Device); 4] =
    [("tank", Device::Tank), ("valve", Device::Valve), ("gauge", Device::Valve), ("valve2", Device::Valve2)];

/// The running plant. Ends with the handle.
#[derive(Debug)]
pub(crate) struct Plant {
    world: Arc<World>,
    dir: PathBuf,
}

#[derive(Debug)]
struct World {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    utility: Utility,
    /// All that the valve was told: the utility itself keeps the last ones.
    commands: Vec<Command>,
    levels: Levels,
    faults: Faults,
    is_over: bool,
}

/// The true extremes of the tank's level, in metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Levels {
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Levels {
    pub(crate) const NONE: Self = Self { lowest: f64::INFINITY, highest: f64::NEG_INFINITY };

    pub(crate) fn see(&mut self, level: f64) {
        self.lowest = self.lowest.min(level);
        self.highest = self.highest.max(level);
    }
}

/// What is wrong with the devices, by the names of their sockets.
#[derive(Debug, Default)]
struct Faults {
    /// `socket/register`: no longer there when read.
    missing: BTreeSet<String>,
    /// Carry out what they are asked, and do not answer.
    mute: BTreeSet<&'static str>,
    /// The same, of writes only.
    mute_to_writes: BTreeSet<&'static str>,
}

impl Plant {
    /// Serves `tank.sock`, `valve.sock`, `valve2.sock` and `gauge.sock` in `dir`.
    pub(crate) fn start(dir: &Path, config: UtilityConfig, time: Time) -> Self {
        let utility = Utility::new(config, SEED);
        let state = State {
            utility,
            commands: Vec::new(),
            levels: Levels::NONE,
            faults: Faults::default(),
            is_over: false,
        };
        let world = Arc::new(World { state: Mutex::new(state), changed: Condvar::new() });
        for (name, device) in SOCKETS {
            let listener = UnixListener::bind(socket(dir, name)).unwrap();
            let world = Arc::clone(&world);
            std::thread::spawn(move || {
                for line in listener.incoming().map_while(Result::ok) {
                    let world = Arc::clone(&world);
                    std::thread::spawn(move || world.serve(&line, name, device));
                }
            });
        }
        let stepped = Arc::clone(&world);
        std::thread::spawn(move || stepped.run(&time));
        Self { world, dir: dir.to_owned() }
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        socket(&self.dir, name)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.world.lock().utility.snapshot()
    }

    /// Extremes since the last call, or since the start.
    pub(crate) fn take_levels(&self) -> Levels {
        std::mem::replace(&mut self.world.lock().levels, Levels::NONE)
    }

    /// All that the valve was told so far, and when.
    pub(crate) fn commands(&self) -> Vec<Command> {
        self.world.lock().commands.clone()
    }

    /// The positions that the valve was told so far, in order.
    pub(crate) fn positions(&self) -> Vec<f64> {
        self.commands().iter().map(|command| command.percent).collect()
    }

    /// The positions that the second valve was told so far, in order.
    pub(crate) fn positions2(&self) -> Vec<f64> {
        self.world.lock().utility.commands2().map(|command| command.percent).collect()
    }

    /// Something breaks in the utility itself.
    #[track_caller]
    pub(crate) fn inject(&self, fault: Fault) {
        self.world.lock().utility.inject(fault).unwrap();
    }

    /// And is repaired.
    pub(crate) fn repair(&self, fault: Fault) {
        self.world.lock().utility.repair(fault);
    }

    /// A sensor is unplugged: `socket/register` is not there any more.
    pub(crate) fn unplug(&self, register: &str) {
        self.fail(|faults| {
            faults.missing.insert(register.to_owned());
        });
    }

    /// A device hears and does, and says nothing.
    pub(crate) fn mute(&self, name: &'static str) {
        self.fail(|faults| {
            faults.mute.insert(name);
        });
    }

    /// A device still answers when it is read, and takes writes without a word.
    pub(crate) fn mute_to_writes(&self, name: &'static str) {
        self.fail(|faults| {
            faults.mute_to_writes.insert(name);
        });
    }

    /// All faults are over; answers that were held back come now.
    pub(crate) fn heal(&self) {
        self.fail(|faults| *faults = Faults::default());
    }

    fn fail(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.world.lock().faults);
        self.world.changed.notify_all();
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        self.world.lock().is_over = true;
        self.world.changed.notify_all();
    }
}

fn socket(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Follows the time, however late a look comes.
    fn run(&self, time: &Time) {
        loop {
            std::thread::sleep(TICK);
            let mut state = self.lock();
            if state.is_over {
                return;
            }
            state.follow(time.now().as_secs_f64());
        }
    }

    /// Ends with the connection.
    fn serve(&self, line: &UnixStream, name: &'static str, device: Device) {
        for request in BufReader::new(line).lines().map_while(Result::ok) {
            let mut state = self.lock();
            let answer = state.handle_line(device, &request);
            let is_write = request.contains("\"write\"");
            let state = self.changed.wait_while(state, |state| state.is_mute(name, is_write)).unwrap();
            let answer = state.faults.garble(name, &answer);
            drop(state);
            // A mapper that gave up waiting ends its own connection only.
            if writeln!(&mut &*line, "{answer}").is_err() {
                return;
            }
        }
    }
}

impl State {
    fn handle_line(&mut self, device: Device, request: &str) -> String {
        let answer = water::handle_line(&mut self.utility, device, request);
        if self.utility.snapshot().commands > self.commands.len() as u64 {
            self.commands.extend(self.utility.commands().last());
        }
        answer
    }

    fn follow(&mut self, now: f64) {
        loop {
            let left = now - self.utility.snapshot().time_s;
            if left <= 0.0 {
                return;
            }
            self.utility.step(left.min(LONGEST_STEP));
            self.levels.see(self.utility.snapshot().level_m);
        }
    }

    fn is_mute(&self, name: &str, is_write: bool) -> bool {
        let Faults { mute, mute_to_writes, .. } = &self.faults;
        !self.is_over && (mute.contains(name) || is_write && mute_to_writes.contains(name))
    }
}

impl Faults {
    fn garble(&self, name: &str, answer: &str) -> String {
        let mut answer: Value = serde_json::from_str(answer).unwrap();
        if let Some(values) = answer.get_mut("values").and_then(Value::as_object_mut) {
            values.retain(|register, _| !self.missing.contains(&format!("{name}/{register}")));
        }
        answer.to_string()
    }
}
