//! What goes wrong, and when: all of it from the seed.

use std::time::Duration;

use bus::Mono;

use crate::dice::Dice;
use crate::links::End;
use crate::machine::{Machine, Seat};

/// Longer partitions are counted by themselves.
const LONG: Duration = Duration::from_secs(3600);

/// One thing that goes wrong. Those with a length end by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing gets through towards `towards`; `inside`: between the edge and its NAT.
    Partition {
        seat: Seat,
        towards: Vec<End>,
        inside: bool,
        lasts: Duration,
    },
    Loss {
        seat: Seat,
        per_mille: u64,
        lasts: Duration,
    },
    NatRestart {
        seat: Seat,
    },
    /// The process ends without a word, and comes back.
    Crash {
        machine: Machine,
        away: Duration,
    },
    /// The same, at a moment of its next commit.
    CrashInCommit {
        machine: Machine,
        moment: Moment,
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
    /// The cloud's disk is copied.
    BackUp,
    /// The cloud comes back with its disk as it was last copied: restored under a new epoch, or (not `raised`) put back
    /// by somebody who knows of none.
    PutCloudBack {
        raised: bool,
        away: Duration,
    },
    /// A second machine runs on a copy of an edge's disk, under its name; `old`: as the disk was when its process
    /// last started. In the end one of the disks goes: the copy, or if it `survives` the one that it was made of.
    Clone {
        site: usize,
        old: bool,
        survives: bool,
        lasts: Duration,
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
    /// An edge's disk refuses writes, until somebody makes room.
    DiskFull {
        site: usize,
        lasts: Duration,
    },
    MapperCrash {
        seat: Seat,
        away: Duration,
    },
}

/// Where on a commit's way from the node to the disk and back the process ends.
///
/// ```text
/// node --Sealed--> waits --Waiting--> is written --Writing--> is durable --Synced--> the node knows --Said--> outputs
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The node has sealed it; the disk did not get it.
    Sealed,
    /// It waits for the disk to be done with an earlier one.
    Waiting,
    /// Of what is being written some whole transactions land.
    Writing,
    /// It is durable; the node did not get to know.
    Synced,
    /// The node knows; of the outputs that waited for it only the first are out.
    Said,
}

impl Moment {
    const ALL: [Self; 5] = [Self::Sealed, Self::Waiting, Self::Writing, Self::Synced, Self::Said];

    /// The name that the report counts it under.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Sealed => "crash in commit: sealed, not handed to the disk",
            Self::Waiting => "crash in commit: waiting for the disk",
            Self::Writing => "crash in commit: being written",
            Self::Synced => "crash in commit: durable, the node not told",
            Self::Said => "crash in commit: outputs only partly out",
        }
    }
}

impl Fault {
    /// The name that the report counts it under as it begins; `None`: it is counted when it happens.
    pub fn kind(&self) -> Option<&'static str> {
        Some(match self {
            Self::Partition { lasts, .. } if *lasts >= LONG => "partition of an hour or more",
            Self::Partition { towards, .. } if towards.len() == 1 => "one-way partition",
            Self::Partition { .. } => "partition",
            Self::Loss { .. } => "loss",
            Self::NatRestart { .. } => "nat restart",
            Self::WallJump { .. } => "wall clock jump",
            Self::DiskStuck { .. } => "stuck disk",
            Self::DiskFull { .. } => "full disk",
            Self::MapperCrash { .. } => "mapper crash",
            Self::Crash { .. }
            | Self::CrashInCommit { .. }
            | Self::Wipe { .. }
            | Self::OldDisk { .. }
            | Self::BackUp
            | Self::PutCloudBack { .. }
            | Self::Clone { .. } => return None,
        })
    }

    fn draw(site: usize, dice: &mut Dice) -> Self {
        let secs = Duration::from_secs;
        let seat = Seat { site, is_clone: dice.one_in(CLONE_HIT) };
        let machine = if dice.one_in(3) { Machine::Cloud } else { Machine::Edge(seat) };
        let away = dice.skewed(secs(1), secs(900));
        match dice.between(0, 19) {
            0..=3 => Self::partition(seat, dice),
            4 => {
                let per_mille = dice.between(50, 500);
                Self::Loss { seat, per_mille, lasts: dice.skewed(secs(10), secs(1800)) }
            }
            5 => Self::NatRestart { seat },
            6 | 7 => Self::Crash { machine, away },
            8..=12 => {
                let moment = Moment::ALL[dice.between(0, 4) as usize];
                Self::CrashInCommit { machine, moment, away }
            }
            13 => Self::Wipe { site, away },
            14 => {
                let by = dice.skewed(Duration::from_millis(500), secs(86_400)).as_millis() as i64;
                Self::WallJump { machine, by_ms: if dice.one_in(2) { by } else { -by } }
            }
            15 => Self::DiskStuck { machine, lasts: dice.skewed(secs(1), secs(60)) },
            16 => Self::OldDisk { site, away },
            17 => Self::DiskFull { site, lasts: dice.skewed(secs(1), secs(1800)) },
            _ => Self::MapperCrash { seat, away: dice.skewed(secs(1), secs(120)) },
        }
    }

    fn partition(seat: Seat, dice: &mut Dice) -> Self {
        let towards = match dice.between(0, 4) {
            0 => vec![End::Edge],
            1 => vec![End::Cloud],
            _ => vec![End::Edge, End::Cloud],
        };
        let inside = towards.len() == 2 && dice.one_in(2);
        let lasts = dice.skewed(Duration::from_secs(2), Duration::from_secs(6 * 3600));
        Self::Partition { seat, towards, inside, lasts }
    }

    fn clone(site: usize, dice: &mut Dice) -> Self {
        let lasts = dice.skewed(Duration::from_secs(60), Duration::from_secs(1800));
        Self::Clone { site, old: dice.one_in(2), survives: dice.one_in(3), lasts }
    }
}

/// One fault in so many falls on the clone of a site, if there is one then.
const CLONE_HIT: u64 = 12;
/// One cluster of faults in so many is about a cloned disk.
const CLONES: u64 = 10;
/// One cluster of faults in so many is about a cloud put back to a copy.
const BACKUPS: u64 = 12;

/// The faults of one run, in order of time. They come in clusters: most failures are failures of two things at once.
pub fn draw(sites: usize, from: Mono, until: Mono, dice: &mut Dice) -> Vec<(Mono, Fault)> {
    let mut all = Vec::new();
    for _ in 0..dice.between(2, 12) {
        let centre = from + dice.span(Duration::ZERO, until.since(from));
        let site = dice.between(0, sites as u64 - 1) as usize;
        if dice.one_in(CLONES) {
            all.push((centre, Fault::clone(site, dice)));
            for _ in 0..dice.between(0, 3) {
                let at = centre + dice.skewed(Duration::from_secs(1), Duration::from_secs(600));
                let seat = Seat { site, is_clone: dice.one_in(2) };
                all.push((at.min(until), Fault::partition(seat, dice)));
            }
        }
        if dice.one_in(BACKUPS) {
            let age = dice.skewed(Duration::from_secs(1), Duration::from_secs(7200));
            all.push((Mono(centre.0.saturating_sub(age.as_micros() as u64)).max(from), Fault::BackUp));
            let away = dice.skewed(Duration::from_secs(1), Duration::from_secs(900));
            all.push((centre, Fault::PutCloudBack { raised: !dice.one_in(3), away }));
        }
        for _ in 0..dice.between(1, 4) {
            let site = if dice.one_in(2) { site } else { dice.between(0, sites as u64 - 1) as usize };
            let at = centre + dice.skewed(Duration::from_millis(10), Duration::from_secs(120));
            all.push((at.min(until), Fault::draw(site, dice)));
        }
    }
    all.sort_by_key(|(at, _)| *at);
    all
}
