//! What goes wrong, and when: all of it from the seed.

use std::fmt;
use std::time::Duration;

use bus::Mono;

use crate::dice::Dice;
use crate::links::End;

/// A machine of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    Cloud,
    Edge(usize),
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cloud => f.write_str("cloud"),
            Self::Edge(site) => write!(f, "edge-{site}"),
        }
    }
}

/// Old copies of edges' disks: off until reports survive them (seed 114 with this on).
const OLD_DISKS_ARE_PUT_BACK: bool = false;

/// One thing that goes wrong. Those with a length end by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing gets through towards `towards`; `inside`: between the edge and its NAT.
    Partition {
        site: usize,
        towards: Vec<End>,
        inside: bool,
        lasts: Duration,
    },
    Loss {
        site: usize,
        per_mille: u64,
        lasts: Duration,
    },
    NatRestart {
        site: usize,
    },
    /// The process ends without a word, and comes back.
    Crash {
        machine: Machine,
        away: Duration,
    },
    /// The same, the moment that its disk has begun to write.
    CrashInCommit {
        machine: Machine,
        away: Duration,
    },
    /// An edge comes back with an empty disk.
    Wipe {
        site: usize,
        away: Duration,
    },
    /// An edge comes back with the disk as it was when its process last started: somebody put an old copy back.
    OldDisk {
        site: usize,
        away: Duration,
    },
    /// The wall clock is set.
    WallJump {
        machine: Machine,
        by_ms: i64,
    },
    /// The disk takes this long for everything.
    DiskStuck {
        machine: Machine,
        lasts: Duration,
    },
    MapperCrash {
        site: usize,
        away: Duration,
    },
}

impl Fault {
    /// The name that the report counts it under.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Partition { towards, .. } if towards.len() == 1 => "one-way partition",
            Self::Partition { .. } => "partition",
            Self::Loss { .. } => "loss",
            Self::NatRestart { .. } => "nat restart",
            Self::Crash { machine: Machine::Cloud, .. } => "cloud crash",
            Self::Crash { .. } => "edge crash",
            Self::CrashInCommit { .. } => "crash in commit",
            Self::Wipe { .. } => "wiped disk",
            Self::OldDisk { .. } => "old disk put back",
            Self::WallJump { .. } => "wall clock jump",
            Self::DiskStuck { .. } => "stuck disk",
            Self::MapperCrash { .. } => "mapper crash",
        }
    }

    fn draw(sites: usize, dice: &mut Dice) -> Self {
        let secs = Duration::from_secs;
        let site = dice.between(0, sites as u64 - 1) as usize;
        let machine = if dice.one_in(3) { Machine::Cloud } else { Machine::Edge(site) };
        let away = dice.skewed(secs(1), secs(900));
        match dice.between(0, 16) {
            0..=3 => {
                let towards = match dice.between(0, 4) {
                    0 => vec![End::Edge],
                    1 => vec![End::Cloud],
                    _ => vec![End::Edge, End::Cloud],
                };
                let inside = towards.len() == 2 && dice.one_in(2);
                Self::Partition { site, towards, inside, lasts: dice.skewed(secs(2), secs(7200)) }
            }
            4 => {
                let per_mille = dice.between(50, 500);
                Self::Loss { site, per_mille, lasts: dice.skewed(secs(10), secs(1800)) }
            }
            5 => Self::NatRestart { site },
            6 | 7 => Self::Crash { machine, away },
            8..=10 => Self::CrashInCommit { machine, away },
            11 => Self::Wipe { site, away },
            12 => {
                let by = dice.skewed(Duration::from_millis(500), secs(86_400)).as_millis() as i64;
                Self::WallJump { machine, by_ms: if dice.one_in(2) { by } else { -by } }
            }
            13 => Self::DiskStuck { machine, lasts: dice.skewed(secs(1), secs(60)) },
            14 if OLD_DISKS_ARE_PUT_BACK => Self::OldDisk { site, away },
            _ => Self::MapperCrash { site, away: dice.skewed(secs(1), secs(120)) },
        }
    }
}

/// The faults of one run, in order of time. They come in clusters: most failures are failures of two things at once.
pub fn draw(sites: usize, from: Mono, until: Mono, dice: &mut Dice) -> Vec<(Mono, Fault)> {
    let mut all = Vec::new();
    for _ in 0..dice.between(2, 12) {
        let centre = from + dice.span(Duration::ZERO, until.since(from));
        for _ in 0..dice.between(1, 4) {
            let at = centre + dice.skewed(Duration::from_millis(10), Duration::from_secs(120));
            all.push((at.min(until), Fault::draw(sites, dice)));
        }
    }
    all.sort_by_key(|(at, _)| *at);
    all
}
