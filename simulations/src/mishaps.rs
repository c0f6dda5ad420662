//! Faults as they happen.

use std::time::Duration;

use crate::disk::Disk;
use crate::faults::{Fault, Moment};
use crate::links::End;
use crate::machine::{Machine, Seat};
use crate::world::{Event, World};

impl World {
    pub(crate) fn begin_fault(&mut self, number: usize) {
        let fault = self.faults[number].1.clone();
        self.trace.say(self.now, format_args!("fault {number} {fault:?}"));
        if let Some(kind) = fault.kind() {
            self.count(kind);
        }
        match fault {
            Fault::Partition { seat, towards, inside, lasts } => {
                self.links.path(seat).0.cut(&towards, inside, true);
                self.end_after(number, lasts);
            }
            Fault::Loss { seat, per_mille, lasts } => {
                self.links.path(seat).0.loss_per_mille += per_mille;
                self.end_after(number, lasts);
            }
            Fault::NatRestart { seat } => {
                let (path, dice) = self.links.path(seat);
                path.restart_nat(seat, dice);
            }
            Fault::Crash { machine, away } => {
                let kind = if machine == Machine::Cloud { "cloud crash" } else { "edge crash" };
                self.crash_as(kind, machine, away);
            }
            Fault::CrashInCommit { machine, moment, away } => self.host(machine).armed = Some((moment, away)),
            Fault::Wipe { site, away } => self.wipe(site, away),
            Fault::OldDisk { site, away } => self.put_old_disk_back(site, away),
            Fault::BackUp => self.back_up(),
            Fault::PutCloudBack { raised, away } => self.put_cloud_back(raised, away),
            Fault::Clone { site, old, lasts, .. } => self.clone_disk(number, site, old, lasts),
            Fault::WallJump { machine, by_ms } => {
                self.host(machine).wall_offset_ms += by_ms;
                self.oracle.on_wall_jump(machine, self.now);
            }
            Fault::DiskStuck { machine, lasts } => {
                self.host(machine).stuck_until = (self.now + lasts).min(self.quiet_from());
            }
            Fault::DiskFull { site, lasts } => {
                self.host(Machine::edge(site)).full_until = (self.now + lasts).min(self.quiet_from());
            }
            Fault::MapperCrash { seat, away } => {
                self.mapper_crashes(seat);
                self.end_after(number, away);
            }
        }
    }

    fn end_after(&mut self, number: usize, lasts: Duration) {
        self.agenda.at((self.now + lasts).min(self.quiet_from()), Event::FaultEnds(number));
    }

    pub(crate) fn end_fault(&mut self, number: usize) {
        self.trace.say(self.now, format_args!("fault {number} ends"));
        match self.faults[number].1.clone() {
            Fault::Partition { seat, towards, inside, .. } => {
                self.links.path(seat).0.cut(&towards, inside, false)
            }
            Fault::Loss { seat, per_mille, .. } => self.links.path(seat).0.loss_per_mille -= per_mille,
            Fault::MapperCrash { seat, .. } => {
                self.mappers[seat].running = true;
                let life = self.hosts[&Machine::Edge(seat)].life;
                self.agenda.at(self.now, Event::MapperConnects { seat, life });
            }
            Fault::Clone { site, survives, .. } => self.end_clone(number, site, survives),
            Fault::NatRestart { .. }
            | Fault::Crash { .. }
            | Fault::CrashInCommit { .. }
            | Fault::Wipe { .. }
            | Fault::OldDisk { .. }
            | Fault::BackUp
            | Fault::PutCloudBack { .. }
            | Fault::WallJump { .. }
            | Fault::DiskStuck { .. }
            | Fault::DiskFull { .. } => {}
        }
    }

    /// The cloud has forgotten deletions.
    pub(crate) fn count_compaction(&mut self) {
        let is_cut = self.links.has_outage();
        self.count(if is_cut { "compaction during a partition" } else { "compaction" });
    }

    fn count(&mut self, kind: &'static str) {
        *self.done.entry(kind).or_default() += 1;
    }

    /// Crashes a machine that waits to crash at this moment.
    pub(crate) fn crash_if_armed(&mut self, machine: Machine, moment: Moment) -> bool {
        let armed = self.hosts[&machine].armed.filter(|(at, _)| *at == moment);
        if let Some((moment, away)) = armed {
            self.crash_as(moment.kind(), machine, away);
        }
        armed.is_some()
    }

    /// Crashes a machine that runs, and counts that under `kind`; false if it did not run.
    fn crash_as(&mut self, kind: &'static str, machine: Machine, away: Duration) -> bool {
        let runs = self.hosts[&machine].running.is_some();
        if runs {
            self.count(kind);
            self.crash(machine, away);
        }
        runs
    }

    /// The process ends without a word, and begins anew after a while.
    fn crash(&mut self, machine: Machine, away: Duration) {
        let luck = self.disks.number();
        let host = self.host(machine);
        host.running = None;
        host.life += 1;
        host.armed = None;
        host.refused = false;
        host.mapper_config = None;
        let pending = host.disk.pending();
        let landed = host.disk.crash(luck);
        self.trace
            .say(self.now, format_args!("{machine} crashes; {landed} of {pending} commits under way landed"));
        self.oracle.on_crash(machine, self.hosts[&machine].disk.durable(), self.now);
        match machine {
            Machine::Cloud => {
                self.links.cloud_runs = false;
                self.links.crash(End::Cloud, None);
            }
            Machine::Edge(seat) => {
                self.links.crash(End::Edge, Some(seat));
                self.mappers[seat].connected = false;
            }
        }
        let away = away.min(self.until_quiet()).max(Duration::from_millis(500));
        self.agenda.at(self.now + away, Event::Boot { machine });
    }

    fn wipe(&mut self, site: usize, away: Duration) {
        let machine = Machine::edge(site);
        if self.crash_as("wiped disk", machine, away) {
            self.host(machine).disk.wipe();
            self.oracle.on_wipe(Seat::of(site));
        }
    }

    fn put_old_disk_back(&mut self, site: usize, away: Duration) {
        let machine = Machine::edge(site);
        if self.crash_as("old disk put back", machine, away) {
            let copy = self.hosts[&machine].copy.clone();
            self.change_disk(Seat::of(site), copy);
        }
    }

    /// A copy of the cloud's disk as a crash at this instant would leave it.
    fn back_up(&mut self) {
        let luck = self.disks.number();
        let mut copy = self.hosts[&Machine::Cloud].disk.clone();
        copy.crash(luck);
        self.backup = Some(copy);
    }

    fn put_cloud_back(&mut self, raised: bool, away: Duration) {
        let Some(mut disk) = self.backup.clone() else { return };
        let epoch = self.hosts[&Machine::Cloud].disk.epoch();
        // Edges refuse a cloud of a lower epoch than they followed, until somebody raises it.
        let raised = raised || disk.epoch() < epoch;
        let kind = if raised { "cloud restored from a backup" } else { "cloud's disk silently put back" };
        if !self.crash_as(kind, Machine::Cloud, away) {
            return;
        }
        self.oracle.on_cloud_put_back(disk.durable());
        if raised {
            disk.restore(epoch + 1);
        }
        self.host(Machine::Cloud).disk = disk;
        self.people_start_over();
    }

    fn change_disk(&mut self, seat: Seat, disk: Disk) {
        let machine = Machine::Edge(seat);
        self.host(machine).disk = disk;
        self.oracle.on_other_disk(seat, self.hosts[&machine].disk.durable());
    }

    /// A second machine of the same name begins.
    fn clone_disk(&mut self, number: usize, site: usize, old: bool, lasts: Duration) {
        let (original, seat) = (Machine::edge(site), Seat::clone_of(site));
        let machine = Machine::Edge(seat);
        if self.hosts[&original].running.is_none() || self.hosts[&machine].made_by.is_some() {
            return;
        }
        self.count(if old { "cloned old disk" } else { "cloned disk" });
        let luck = self.disks.number();
        let of = &self.hosts[&original];
        let mut copy = if old { of.copy.clone() } else { of.disk.clone() };
        copy.crash(luck);
        self.host(machine).made_by = Some(number);
        self.oracle.on_clone(site);
        self.change_disk(seat, copy);
        let starts = self.disks.skewed(Duration::from_secs(1), Duration::from_secs(300));
        self.agenda.at((self.now + starts).min(self.quiet_from()), Event::Boot { machine });
        self.end_after(number, starts + lasts);
    }

    /// One of two disks goes, its machine or the one that it was made of with it.
    fn end_clone(&mut self, number: usize, site: usize, survives: bool) {
        let (original, clone) = (Machine::edge(site), Machine::Edge(Seat::clone_of(site)));
        if self.hosts[&clone].made_by != Some(number) {
            return;
        }
        self.stop(clone);
        let disk = self.hosts[&clone].disk.clone();
        self.host(clone).made_by = None;
        if survives {
            self.stop(original);
            self.change_disk(Seat::of(site), disk);
            self.oracle.on_clone_survives(site);
        }
    }

    fn stop(&mut self, machine: Machine) {
        if self.hosts[&machine].running.is_some() {
            self.crash(machine, Duration::ZERO);
        }
    }
}
