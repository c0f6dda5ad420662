//! Time that a test makes, for processes that were built with the feature `virtual-clock` and find a file named by
//! [`FILE`]. What ships is built without: nothing can shift its clocks.
//!
//! The file is how one machine sees time. It holds a map from the machine's real clock to a virtual one, which the test
//! runs as fast as it likes, and how far the wall clock is from that:
//!
//! ```text
//!  virtual = then + (real - since) * factor          wall = virtual + wall_at_zero
//!
//!   0            8       16     24       32             40
//!   | generation | since | then | factor | wall_at_zero |      little endian; microseconds, f64, milliseconds
//! ```
//!
//! The generation is odd while the test changes the map. A reader looks at it before and after it reads the real clock,
//! and the test reads the real clock for the change in between, so that no moment is read by the old map that the new
//! one already rules: virtual time neither jumps nor goes back when the factor changes.
//!
//! Virtual is what twins and rules mean by time: ages, lifetimes, schedules, and how long something waits before it tries
//! again. Real is what machines, disks and networks take, since they become no faster: QUIC and TLS, MQTT sessions
//! (whose other ends ping by real time), a disk's patience, a driver's calls.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use super::clock::machine;
use crate::{Mono, UnixMillis};

/// The environment variable that names the file.
pub const FILE: &str = "KUBEBUS_TEST_CLOCK";

/// Longest real sleep before the map is looked at again: so late a change of the factor is noticed at most.
const LONGEST_NAP: Duration = Duration::from_millis(20);

/// How long a reader waits for a change of the map to be over: two writes to a file in memory.
const PATIENCE: Duration = Duration::from_micros(50);

const SIZE: usize = 40;

/// From the real clock to the virtual ones.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Map {
    since: Mono,
    then: Mono,
    factor: f64,
    wall_at_zero: UnixMillis,
}

impl Map {
    fn at(&self, real: Mono) -> Mono {
        let passed = real.0.saturating_sub(self.since.0) as f64 * self.factor;
        Mono(self.then.0 + passed as u64)
    }

    fn wall(&self, at: Mono) -> UnixMillis {
        UnixMillis(self.wall_at_zero.0 + at.0 / 1000)
    }

    /// The same time, from `real` on by another factor.
    fn turned(self, real: Mono, factor: f64) -> Self {
        Self { since: real, then: self.at(real), factor, ..self }
    }

    fn to_bytes(self, generation: u64) -> [u8; SIZE] {
        let Self { since, then, factor, wall_at_zero } = self;
        let words = [generation, since.0, then.0, factor.to_bits(), wall_at_zero.0];
        let mut bytes = [0; SIZE];
        let places = bytes.chunks_exact_mut(8);
        places.zip(words).for_each(|(place, word)| place.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    fn from_bytes(bytes: &[u8; SIZE]) -> Self {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * at + byte]));
        let (since, then) = (Mono(word(1)), Mono(word(2)));
        Self { since, then, factor: f64::from_bits(word(3)), wall_at_zero: UnixMillis(word(4)) }
    }
}

/// A machine's time as its processes read it.
#[derive(Debug)]
struct Dial(File);

impl Dial {
    /// The map and a reading of the real clock that it rules.
    fn read(&self) -> io::Result<(Map, Mono)> {
        loop {
            let before = self.generation()?;
            let map = self.map()?;
            let (real, _) = machine::read();
            if before % 2 == 0 && self.generation()? == before {
                return Ok((map, real));
            }
            std::thread::sleep(PATIENCE);
        }
    }

    /// How long to sleep before looking again: the factor may change meanwhile.
    fn nap(&self, left: Duration) -> Duration {
        let factor = self.map().map_or(1.0, |map| map.factor);
        LONGEST_NAP.min(Duration::try_from_secs_f64(left.as_secs_f64() / factor).unwrap_or(LONGEST_NAP))
    }

    fn generation(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn map(&self) -> io::Result<Map> {
        let mut bytes = [0; SIZE];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(Map::from_bytes(&bytes))
    }
}

/// The dial of this process, if it has one. A file that is named and cannot be read ends the process: it must not go on
/// by another time than its test.
fn dial() -> Option<&'static Dial> {
    static DIAL: OnceLock<Option<Dial>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os(FILE)?;
        Some(Dial(File::open(&path).unwrap_or_else(|error| panic!("{FILE}={}: {error}", path.display()))))
    };
    DIAL.get_or_init(open).as_ref()
}

/// Time since some moment before the process's start, and the wall clock.
pub(super) fn read() -> (Mono, UnixMillis) {
    let Some(dial) = dial() else { return machine::read() };
    let (map, real) = dial.read().unwrap_or_else(|error| panic!("the test's clock: {error}"));
    let at = map.at(real);
    (at, map.wall(at))
}

/// How long to sleep before looking again.
pub(super) fn nap(left: Duration) -> Duration {
    dial().map_or(left, |dial| dial.nap(left))
}

/// Who makes the time: a test, for all its machines at once.
#[derive(Debug)]
pub struct Maker {
    map: Map,
    generation: u64,
    machines: Vec<Machine>,
}

#[derive(Debug)]
struct Machine {
    file: File,
    wall_error_ms: i64,
}

/// One of a [`Maker`]'s machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineId(usize);

impl Maker {
    /// Virtual time begins now, as fast as real time; the wall clocks then show `wall`.
    pub fn start(wall: UnixMillis) -> Self {
        let (since, _) = machine::read();
        let map = Map { since, then: Mono::ZERO, factor: 1.0, wall_at_zero: wall };
        Self { map, generation: 0, machines: Vec::new() }
    }

    /// A machine whose processes find `path` in [`FILE`]. Its wall clock is ahead of the others' by `wall_error_ms`.
    pub fn add_machine(&mut self, path: &Path, wall_error_ms: i64) -> io::Result<MachineId> {
        let machine = Machine { file: File::create_new(path)?, wall_error_ms };
        machine.write(self.map, self.generation)?;
        self.machines.push(machine);
        Ok(MachineId(self.machines.len() - 1))
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Mono {
        self.map.at(machine::read().0)
    }

    /// From now on virtual time is `factor` times as fast as real time; 0 stops it.
    pub fn set_factor(&mut self, factor: f64) -> io::Result<()> {
        self.change(|maker, real| maker.map = maker.map.turned(real, factor))
    }

    /// Sets the wall clock of one machine, as a time server or a battery that died would.
    pub fn set_wall_error(&mut self, machine: MachineId, wall_error_ms: i64) -> io::Result<()> {
        self.change(|maker, _| maker.machines[machine.0].wall_error_ms = wall_error_ms)
    }

    /// Two machines that change together never disagree, since both change at the same real moment.
    fn change(&mut self, change: impl FnOnce(&mut Self, Mono)) -> io::Result<()> {
        self.generation += 1;
        self.write()?;
        change(self, machine::read().0);
        self.write()?; // The new map, still under the odd generation: no reader takes half of it.
        self.generation += 1;
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        self.machines.iter().try_for_each(|machine| machine.write(self.map, self.generation))
    }
}

impl Machine {
    fn write(&self, map: Map, generation: u64) -> io::Result<()> {
        let wall_at_zero = UnixMillis(map.wall_at_zero.0.saturating_add_signed(self.wall_error_ms));
        self.file.write_all_at(&Map { wall_at_zero, ..map }.to_bytes(generation), 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const MINUTE: u64 = 60_000_000;

    #[test]
    fn a_map_goes_on_where_it_was_when_the_factor_changes() {
        let start =
            Map { since: Mono(7), then: Mono::ZERO, factor: 1.0, wall_at_zero: UnixMillis(1_000_000) };
        let fast = start.turned(Mono(7 + MINUTE), 600.0);
        let slow = fast.turned(Mono(7 + 2 * MINUTE), 0.5);
        let stopped = slow.turned(Mono(7 + 4 * MINUTE), 0.0);
        let minutes =
            [(start, 0), (start, 1), (fast, 1), (fast, 2), (slow, 2), (slow, 4), (stopped, 4), (stopped, 9)];
        let read = minutes.map(|(map, real)| map.at(Mono(7 + real * MINUTE)).0 / MINUTE);
        assert_eq!(read, [0, 1, 1, 601, 601, 602, 602, 602]);
        assert_eq!(stopped.wall(stopped.at(Mono(u64::MAX))), UnixMillis(1_000_000 + 602 * 60_000));
        assert_eq!(start.at(Mono::ZERO), Mono::ZERO, "nothing is before the start");
    }

    #[test]
    fn a_map_never_goes_back_over_any_changes_of_its_factor() {
        let mut map = Map { since: Mono(3), then: Mono(5), factor: 1.0, wall_at_zero: UnixMillis(0) };
        let (mut real, mut last) = (Mono(3), Mono(5));
        for step in 0..10_000_u64 {
            real = Mono(real.0 + step * 7919 % 1009);
            assert!(map.at(real) >= last, "{map:?} at {real:?}");
            last = map.at(real);
            map = map.turned(real, [0.0, 0.3, 1.0, 59.9, 600.0][(step % 5) as usize]);
            assert_eq!(map.at(real), last, "{map:?}");
        }
    }

    #[test]
    fn a_map_is_read_as_it_was_written() {
        let map = Map { since: Mono(1), then: Mono(2), factor: 0.25, wall_at_zero: UnixMillis(u64::MAX) };
        assert_eq!(Map::from_bytes(&map.to_bytes(9)), map);
        assert_eq!(map.to_bytes(9)[..8], [9, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn readers_see_no_step_back_while_the_factor_changes_under_them() {
        let room = tempfile::tempdir().unwrap();
        let mut maker = Maker::start(UnixMillis(0));
        let paths = ["a", "b"].map(|name| room.path().join(name));
        for path in &paths {
            maker.add_machine(path, 0).unwrap();
        }
        let dials = paths.map(|path| Dial(File::open(path).unwrap()));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut last = Mono::ZERO;
                // Both machines' dials in turn: they are one time.
                for dial in dials.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                    let (map, real) = dial.read().unwrap();
                    assert!(map.at(real) >= last, "{map:?} at {real:?}");
                    last = map.at(real);
                }
            });
            for factor in [600.0, 0.0, 1.0, 60.0].into_iter().cycle().take(2000) {
                maker.set_factor(factor).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_nap_is_as_short_as_time_is_fast_and_never_long() {
        let room = tempfile::tempdir().unwrap();
        let mut maker = Maker::start(UnixMillis(0));
        maker.add_machine(&room.path().join("a"), 0).unwrap();
        let dial = Dial(File::open(room.path().join("a")).unwrap());
        let mut nap = |factor, left_ms| {
            maker.set_factor(factor).unwrap();
            dial.nap(Duration::from_millis(left_ms))
        };
        let naps =
            [nap(1.0, 7), nap(1.0, 21), nap(600.0, 3000), nap(600.0, 60_000), nap(0.0, 1), nap(0.5, 3)];
        assert_eq!(naps, [7, 20, 5, 20, 20, 6].map(Duration::from_millis));
    }

    #[test]
    fn a_wall_clock_may_be_wrong_and_be_set() {
        let room = tempfile::tempdir().unwrap();
        let mut maker = Maker::start(UnixMillis(10_000_000));
        let machine = maker.add_machine(&room.path().join("a"), -2_000_000).unwrap();
        let dial = Dial(File::open(room.path().join("a")).unwrap());
        assert_eq!(dial.map().unwrap().wall(Mono(5_000)), UnixMillis(8_000_005));
        maker.set_wall_error(machine, 3).unwrap();
        assert_eq!(dial.map().unwrap().wall(Mono(5_000)), UnixMillis(10_000_008));
    }
}
