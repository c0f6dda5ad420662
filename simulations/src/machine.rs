//! The machines of the world.

use std::fmt;
use std::ops::{Index, IndexMut};

/// A machine of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    Cloud,
    Edge(Seat),
}

/// Where an edge's disk runs: the machine that joined, or one with a copy of its disk and the same name and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    pub site: usize,
    pub is_clone: bool,
}

impl Seat {
    /// The machine that joined at this site.
    pub fn of(site: usize) -> Self {
        Self { site, is_clone: false }
    }

    pub fn clone_of(site: usize) -> Self {
        Self { site, is_clone: true }
    }
}

impl Machine {
    /// The machine that joined at this site.
    pub fn edge(site: usize) -> Self {
        Self::Edge(Seat::of(site))
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "edge-{}{}", self.site, if self.is_clone { "'" } else { "" })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cloud => f.write_str("cloud"),
            Self::Edge(seat) => seat.fmt(f),
        }
    }
}

/// One of something for each seat of some sites.
#[derive(Debug)]
pub struct PerSeat<T>(Vec<[T; 2]>);

impl<T> PerSeat<T> {
    pub fn new(sites: usize, mut make: impl FnMut(Seat) -> T) -> Self {
        Self((0..sites).map(|site| [make(Seat::of(site)), make(Seat::clone_of(site))]).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }

    pub fn sites(&self) -> usize {
        self.0.len()
    }
}

impl<T> Index<Seat> for PerSeat<T> {
    type Output = T;

    fn index(&self, seat: Seat) -> &T {
        &self.0[seat.site][usize::from(seat.is_clone)]
    }
}

impl<T> IndexMut<Seat> for PerSeat<T> {
    fn index_mut(&mut self, seat: Seat) -> &mut T {
        &mut self.0[seat.site][usize::from(seat.is_clone)]
    }
}
