//! An edge's lines to its cloud: the one that it follows, and one to a replica that stands by.
//!
//! A line is a bus lane and a packets lane to one endpoint. Which end of which line leads is for the other side to say:
//!
//! ```text
//!            bus lane up         Leads, or what only a leader says
//!   Nothing ------------> Nothing ---------------------------------> Leads
//!                            | Standby                                 ^
//!                            +---------> StandsBy ---------------------+
//!                                                     Leads
//! ```
//! 1. Of two lines that lead the one with the higher term is followed; the other is let go of.
//! 2. The second line is dialled only while the first stands, and only to a cloud of several replicas.
//! 3. A standby is kept for as long as another line is followed. While none is, and there are further endpoints, the
//!    second line goes on to them: the one that leads may be there.
//! 4. Packets take the line that is followed. A lane that stands by is there, and nothing of it counts yet.

use std::collections::VecDeque;
use std::time::Duration;

use bus::Mono;
use bus::bus::LinkId;
use router::dial::Dialer;

use crate::seam::{DialLane, Line};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    Dial {
        line: Line,
        lane: DialLane,
        attempt: u64,
    },
    /// The cloud is at the other end of this bus lane from now on.
    Follow(LinkId),
    /// Packets take this lane from now on.
    Admit(LinkId),
    Close(LinkId, &'static str),
}

/// What the other end of a bus lane has said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Nothing,
    StandsBy,
    Leads { term: u64 },
}

/// A lane, kept dialled.
#[derive(Debug)]
struct Lane {
    dialer: Dialer,
    link: Option<(LinkId, u64)>,
}

impl Lane {
    fn new(index: u32, seed: u64) -> Self {
        let mut dialer = Dialer::new(index, seed);
        dialer.handle_start();
        Self { dialer, link: None }
    }

    fn id(&self) -> Option<LinkId> {
        self.link.map(|(link, _)| link)
    }

    /// The link in whose place this one is.
    fn handle_up(&mut self, link: LinkId, attempt: u64, now: Mono) -> Option<LinkId> {
        self.dialer.handle_up(attempt, now);
        self.link.replace((link, attempt)).map(|(stale, _)| stale)
    }

    fn handle_down(&mut self, link: LinkId, now: Mono) -> bool {
        let gone = self.link.take_if(|(up, _)| *up == link);
        if let Some((_, attempt)) = gone {
            self.dialer.handle_down(attempt, now);
        }
        gone.is_some()
    }
}

#[derive(Debug)]
struct OneLine {
    bus: Lane,
    packets: Lane,
    says: Says,
}

/// Why a link ends when there is one in its place that was made with the next certificate.
const RENEWED: &str = "made anew with another certificate";

/// Dialers of these numbers: 2 is the neighbours'.
const FIRST: (u32, u32) = (0, 1);
const SECOND: (u32, u32) = (3, 4);

/// Both lines.
#[derive(Debug)]
pub(super) struct Lines {
    lines: [OneLine; 2],
    /// Was followed last, whether or not it stands.
    followed: Option<Line>,
    /// Whether a second line is wanted at all.
    keeps_standby: bool,
    /// The cloud has said that it runs in several replicas.
    has_replicas: bool,
    /// Endpoints that the cloud has told.
    told: usize,
    outputs: VecDeque<Output>,
}

impl Lines {
    pub(super) fn new(seed: u64, keeps_standby: bool) -> Self {
        let line = |(bus, packets): (u32, u32)| OneLine {
            bus: Lane::new(bus, seed.rotate_left(8 * bus)),
            packets: Lane::new(packets, seed.rotate_left(32 + 8 * packets)),
            says: Says::Nothing,
        };
        Self {
            lines: [line(FIRST), line(SECOND)],
            followed: None,
            keeps_standby,
            has_replicas: false,
            told: 0,
            outputs: VecDeque::new(),
        }
    }

    fn line(&self, line: Line) -> &OneLine {
        match line {
            Line::First => &self.lines[0],
            Line::Second => &self.lines[1],
        }
    }

    fn line_mut(&mut self, line: Line) -> &mut OneLine {
        match line {
            Line::First => &mut self.lines[0],
            Line::Second => &mut self.lines[1],
        }
    }

    fn of_bus(&self, link: LinkId) -> Option<Line> {
        Line::BOTH.into_iter().find(|line| self.line(*line).bus.id() == Some(link))
    }

    fn lane_of(&mut self, attempt: u64) -> Option<(Line, &mut Lane)> {
        let [first, second] = &mut self.lines;
        let all = [
            (Line::First, &mut first.bus),
            (Line::First, &mut first.packets),
            (Line::Second, &mut second.bus),
            (Line::Second, &mut second.packets),
        ];
        all.into_iter().find(|(_, lane)| lane.dialer.owns(attempt))
    }

    /// The followed line's packets lane, if it stands.
    pub(super) fn packets(&self) -> Option<LinkId> {
        self.line(self.followed?).packets.id()
    }

    /// For people: how far the line to a replica that stands by has come, if the cloud has replicas.
    pub(super) fn standby(&self) -> Option<&'static str> {
        let found = self.lines.iter().find(|line| line.says == Says::StandsBy);
        let state = match found.map(|line| line.packets.id()) {
            Some(Some(_)) => "ready",
            Some(None) => "ready, but for packets",
            None if self.keeps_standby => "none found",
            None => "off (link.standby)",
        };
        self.has_replicas.then_some(state)
    }

    /// The cloud has told so many endpoints.
    pub(super) fn handle_endpoints(&mut self, told: usize) {
        self.told = told;
    }

    pub(super) fn handle_bus_up(&mut self, link: LinkId, attempt: u64, now: Mono) {
        let Some((line, lane)) = self.lane_of(attempt) else { return };
        let stale = lane.handle_up(link, attempt, now);
        let said = std::mem::replace(&mut self.line_mut(line).says, Says::Nothing);
        // The bus goes on with one that it follows, until the new one has said that it leads, and closes it then.
        if let Some(stale) = stale.filter(|_| !matches!(said, Says::Leads { .. })) {
            self.outputs.push_back(Output::Close(stale, RENEWED));
        }
    }

    pub(super) fn handle_packets_up(&mut self, link: LinkId, attempt: u64, now: Mono) {
        let Some((line, lane)) = self.lane_of(attempt) else { return };
        let stale = lane.handle_up(link, attempt, now);
        if self.followed == Some(line) {
            self.admit(line);
        }
        self.outputs.extend(stale.map(|stale| Output::Close(stale, RENEWED)));
    }

    pub(super) fn handle_down(&mut self, link: LinkId, now: Mono) {
        for line in &mut self.lines {
            if line.bus.handle_down(link, now) {
                line.says = Says::Nothing;
            }
            line.packets.handle_down(link, now);
        }
    }

    /// All lanes are made anew, since this node shows another certificate; what stands is kept until then.
    pub(super) fn handle_renewed(&mut self) {
        for line in &mut self.lines {
            line.bus.dialer.handle_stale();
            line.packets.dialer.handle_stale();
        }
    }

    /// Which of the two leads to the cloud, or led.
    pub(super) fn followed(&self) -> Line {
        self.followed.unwrap_or(Line::First)
    }

    pub(super) fn handle_failed(&mut self, attempt: u64, retry_after: Option<Duration>, now: Mono) {
        if let Some((_, lane)) = self.lane_of(attempt) {
            lane.dialer.handle_failed(attempt, retry_after, now);
        }
    }

    /// The other end of a bus lane waits for its turn.
    pub(super) fn handle_standby(&mut self, link: LinkId) {
        // It says so before anything else; what comes later was overtaken by what followed.
        let Some(line) = self.of_bus(link).filter(|line| self.line(*line).says == Says::Nothing) else {
            return;
        };
        self.has_replicas = true;
        self.line_mut(line).says = Says::StandsBy;
        let is_one_of_two = self.line(line.other()).says == Says::StandsBy;
        if !self.keeps_standby || (is_one_of_two && !self.is_led() && self.told > 2) {
            self.outputs
                .push_back(Output::Close(link, "this replica stands by, and none that leads is known"));
        }
    }

    /// The other end of a bus lane leads; `None` if it is no replica, and so has no term.
    pub(super) fn handle_leads(&mut self, link: LinkId, term: Option<u64>) {
        let Some(line) = self.of_bus(link) else { return };
        self.has_replicas |= term.is_some();
        let term = term.unwrap_or_default();
        let known = self.followed.map(|followed| (followed, self.line(followed).says));
        match known {
            Some((followed, Says::Leads { .. })) if followed == line => {}
            Some((_, Says::Leads { term: known })) if known >= term => {
                let why =
                    if known == term { "the same cloud at another address" } else { "another cloud leads" };
                self.outputs.push_back(Output::Close(link, why));
            }
            Some(_) | None => {
                self.line_mut(line).says = Says::Leads { term };
                self.follow(line, link);
            }
        }
    }

    /// Whether the other end of this bus lane has not said what it is.
    pub(super) fn is_silent(&self, link: LinkId) -> bool {
        self.of_bus(link).is_some_and(|line| self.line(line).says == Says::Nothing)
    }

    fn is_led(&self) -> bool {
        self.followed.is_some_and(|line| matches!(self.line(line).says, Says::Leads { .. }))
    }

    fn follow(&mut self, line: Line, link: LinkId) {
        self.followed = Some(line);
        self.outputs.push_back(Output::Follow(link));
        // The bus closes one that it followed.
        self.admit(line);
    }

    /// The lane of the other line goes when there is one in its place.
    fn admit(&mut self, line: Line) {
        let Some(link) = self.line(line).packets.id() else { return };
        self.outputs.push_back(Output::Admit(link));
        let other = self.line(line.other());
        if let Some(old) = other.packets.id().filter(|_| other.says != Says::StandsBy) {
            self.outputs.push_back(Output::Close(old, "packets go to another replica"));
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Mono) {
        for line in &mut self.lines {
            line.bus.dialer.handle_timeout(now);
            line.packets.dialer.handle_timeout(now);
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let wants_second = self.keeps_standby && self.has_replicas && self.lines[0].bus.link.is_some();
        let followed = self.followed.unwrap_or(Line::First);
        Line::BOTH.into_iter().find_map(|line| {
            let OneLine { bus, packets, says } = self.line_mut(line);
            if (line == Line::First || wants_second)
                && let Some(dial) = bus.dialer.poll_output()
            {
                return Some(Output::Dial { line, lane: DialLane::Bus, attempt: dial.attempt });
            }
            // To any other end it would take the place of the lane that packets go by.
            let may = line == followed || *says == Says::StandsBy;
            let dial = may.then(|| packets.dialer.poll_output()).flatten()?;
            Some(Output::Dial { line, lane: DialLane::Packets, attempt: dial.attempt })
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<(Mono, &'static str)> {
        let dialers = self.lines.iter().flat_map(|line| [&line.bus.dialer, &line.packets.dialer]);
        dialers.filter_map(Dialer::poll_timeout).min()
    }
}

#[cfg(test)]
mod tests;
