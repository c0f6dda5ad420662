//! The edge takes the authority, tells of it, and the cloud takes it back.

use super::*;
use crate::Authority;
use crate::authority::Holder;
use crate::twin::Outranked;

const ROW: &str = "/e/pump-house/authority/water/valve";
const HILL_DESIRED: &str = "/e/hill/desired/water/valve/position";

fn valve() -> DeviceId {
    position().device
}

impl World {
    /// One whose edge holds the authority.
    fn taken() -> Self {
        let mut world = Self::new();
        world.tell_epoch(1);
        world.seen.clear();
        world
    }

    fn tell_epoch(&mut self, epoch: u64) {
        let told =
            Authority { epoch, by: "bob".to_owned(), reason: "repairs".to_owned(), ..Authority::default() };
        self.up("pump-house", LIFE, "authority/water/valve", &cbor(&told));
    }

    /// Somebody at the edge wished it, or it is in force there.
    fn tell_desired(&mut self, life: u64, value: f64, version: DesiredVersion) {
        let (value, by) = (Value::Float(value), "bob".to_owned());
        let told = Some(Desired { value, version, issued: UnixMillis(7), by, group: None });
        self.up("pump-house", Incarnation(life), "desired/water/valve/position", &cbor(&told));
    }

    fn tell_nothing_desired(&mut self) {
        self.up("pump-house", LIFE, "desired/water/valve/position", &cbor(&None::<Desired>));
    }

    fn withdrawn(&self) -> Option<DesiredVersion> {
        decode(self.ks.get("/e/pump-house/withdrawn/water/valve/position")?)
    }

    /// `fresh`: by an edge whose disk may be a new one.
    fn tell_outranked(&mut self, version: DesiredVersion, fresh: bool) {
        let outranked = Outranked { version, fresh };
        self.up("pump-house", LIFE, "outranked/water/valve/position", &cbor(&outranked));
    }

    fn take(&mut self) -> Result<u64, SetError> {
        let taken = self.twins.take_authority(&valve(), ("ann", "night shift"), &mut self.ks, self.now);
        self.drain();
        taken.map(|authority| authority.epoch)
    }

    fn take_wish_back(&mut self) -> Result<(), SetError> {
        let wish = Wish { id: position(), value: None, if_version: None };
        let change = Wishes { wishes: vec![wish], ..Wishes::default() };
        let done = self.twins.change(&change, &mut self.ks, self.now);
        self.drain();
        done.map(drop)
    }

    fn epoch(&self) -> u64 {
        self.twins.authority(&valve()).map_or(0, |authority| authority.epoch)
    }

    fn now_desired(&self) -> Option<(f64, DesiredVersion)> {
        let view = self.view();
        Some((view.desired?.as_f64()?, view.version?))
    }

    fn retained_desired(&self) -> Option<f64> {
        self.retained("twin/water/valve/desired/position").and_then(|body| body["value"].as_f64())
    }
}

#[test]
fn while_the_edge_holds_the_authority_a_wish_is_refused_and_told_what_to_do() {
    let mut world = World::taken();
    let refused = world.set(Value::Int(40)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "water/valve: the edge holds the authority, taken by bob: repairs; 'kubebus twin take water/valve' takes it back"
    );
    assert_eq!((world.desired(DESIRED), world.seen.len()), (None, 0));
    world.restart();
    assert_eq!(world.set(Value::Int(40)), Err(refused));
    assert_eq!(world.take(), Ok(2));
    assert_eq!(world.set(Value::Int(40)), Ok(version(2, 1)));
    let row: Authority = decode(world.ks.get(ROW).unwrap()).unwrap();
    assert_eq!((row.epoch, row.holder(), row.by.as_str()), (2, Holder::Cloud, "ann"));
}

#[test]
fn an_authority_does_not_go_back_and_is_told_by_the_devices_own_edge() {
    let mut world = World::taken();
    world.take().unwrap();
    world.tell_epoch(1);
    assert_eq!((world.epoch(), world.twins.stats().repeated), (2, 1), "it was on its way");
    let told = Authority { epoch: 3, ..Authority::default() };
    world.up("hill", LIFE, "authority/water/valve", &cbor(&told));
    assert_eq!((world.epoch(), world.twins.stats().foreign), (2, 1));
    world.tell_epoch(3);
    assert_eq!(world.epoch(), 3);
    world.tell_epoch(4);
    assert_eq!(world.twins.authority(&valve()).unwrap().holder(), Holder::Cloud);
    assert_eq!(world.set(Value::Int(40)), Ok(version(4, 1)));
}

#[test]
fn the_word_of_a_holder_at_the_edge_is_what_is_desired() {
    let mut world = World::new();
    world.set(Value::Int(40)).unwrap();
    world.tell_epoch(1);
    world.tell_desired(9, 50.0, version(1, 1));
    assert_eq!((world.now_desired(), world.retained_desired()), (Some((50.0, version(1, 1))), Some(50.0)));
    assert!(
        world.desired(DESIRED).is_some(),
        "the edge may not know of the wish before, and has to answer to it"
    );
    world.tell_outranked(version(0, 1), false);
    assert_eq!(world.desired(DESIRED), None);
    world.tell_desired(9, 50.0, version(1, 1));
    assert_eq!(world.twins.stats().repeated, 1);
    world.restart();
    assert_eq!((world.now_desired(), world.retained_desired()), (Some((50.0, version(1, 1))), Some(50.0)));
    world.tell_epoch(2);
    assert_eq!(world.now_desired(), Some((50.0, version(1, 1))), "handing back changes nothing");
    world.set(Value::Int(60)).unwrap();
    assert_eq!(world.now_desired(), Some((60.0, version(2, 1))));
    world.tell_nothing_desired();
    assert_eq!(world.now_desired(), Some((60.0, version(2, 1))), "the edge has taken it on");
}

#[test]
fn a_wish_of_the_edge_is_taken_back_by_version_as_it_lies_in_no_row() {
    for (newer, withdrawn) in [(false, version(2, 1)), (true, version(2, 2))] {
        let mut world = World::taken();
        world.tell_desired(9, 50.0, version(1, 1));
        world.tell_epoch(2);
        if newer {
            world.set(Value::Int(60)).unwrap();
        }
        world.take_wish_back().unwrap();
        assert_eq!((world.now_desired(), world.retained_desired()), (None, None));
        assert_eq!((world.desired(DESIRED), world.withdrawn()), (None, Some(withdrawn)));
        world.restart();
        assert_eq!((world.now_desired(), world.withdrawn()), (None, Some(withdrawn)));
        let revision = world.ks.revision();
        world.take_wish_back().unwrap();
        assert_eq!(world.ks.revision(), revision, "nothing is wished");
        world.tell_nothing_desired();
        world.tell_outranked(withdrawn, false);
        assert_eq!((world.now_desired(), world.withdrawn()), (None, None), "the edge has heard of it");
        let next = DesiredVersion { seq: withdrawn.seq + 1, ..withdrawn };
        assert_eq!(world.set(Value::Int(70)), Ok(next));
    }
}

#[test]
fn what_the_edge_keeps_in_force_against_a_withdrawal_is_desired() {
    let mut world = World::new();
    world.set(Value::Int(40)).unwrap();
    world.take_wish_back().unwrap();
    assert_eq!(world.withdrawn(), Some(version(0, 2)));
    world.tell_epoch(1);
    world.tell_desired(9, 40.0, version(0, 1));
    world.tell_outranked(version(0, 2), false);
    assert_eq!((world.now_desired(), world.withdrawn()), (Some((40.0, version(0, 1))), None));
}

#[test]
fn a_wish_that_the_edge_refused_is_desired_no_more() {
    let mut world = World::new();
    world.set(Value::Int(40)).unwrap();
    world.set(Value::Int(50)).unwrap();
    world.tell_outranked(version(0, 2), true);
    world.tell_desired(9, 40.0, version(0, 1));
    world.tell_epoch(1);
    assert_eq!(world.now_desired(), Some((40.0, version(0, 1))), "what is in force");
    assert_eq!((world.retained_desired(), world.desired(DESIRED)), (Some(40.0), None));
    world.tell_epoch(2);
    world.set(Value::Int(60)).unwrap();
    world.tell_outranked(version(0, 2), false);
    assert_eq!(world.now_desired(), Some((60.0, version(2, 1))), "a newer one stands");
}

#[test]
fn a_wish_that_was_carried_out_once_and_that_a_wiped_edge_refuses_is_made_again() {
    for (fresh, holder, again) in [(true, 2, true), (false, 2, false), (true, 3, false)] {
        let mut world = World::new();
        world.set(Value::Int(40)).unwrap();
        world.report(9, 1, 40.0, ack(1, Outcome::Succeeded));
        world.tell_epoch(1);
        world.tell_epoch(holder);
        let before = world.desired(DESIRED).unwrap();
        world.now.wall = UnixMillis(9_000_000);
        world.tell_outranked(version(0, 1), fresh);
        let as_old_as_it_is = again.then_some(Desired { version: version(2, 1), ..before });
        assert_eq!(world.desired(DESIRED), as_old_as_it_is, "{fresh} {holder}");
        world.tell_epoch(4);
        assert_eq!(world.set(Value::Int(1)), Ok(version(4, 1)));
    }
}

#[test]
fn what_an_earlier_life_of_the_edges_disk_wished_is_forgotten_with_it() {
    let mut world = World::taken();
    world.tell_desired(9, 50.0, version(1, 5));
    world.report(9, 1, 50.0, None);
    world.report(9, 2, 51.0, None);
    assert_eq!(world.now_desired(), Some((50.0, version(1, 5))));
    world.report(10, 1, 50.0, None);
    assert_eq!((world.now_desired(), world.retained_desired()), (None, None), "the edge does not know it");
    world.tell_desired(10, 60.0, version(1, 1));
    assert_eq!(world.now_desired(), Some((60.0, version(1, 1))));
    world.tell_desired(11, 70.0, version(1, 1));
    world.report(11, 1, 70.0, None);
    assert_eq!(world.now_desired(), Some((70.0, version(1, 1))), "in any order");
}

#[test]
fn nonsense_epochs_of_an_edge_lock_nobody_out() {
    let mut world = World::new();
    let far = version(u64::MAX, u64::MAX);
    world.tell_epoch(u64::MAX);
    world.tell_desired(9, 50.0, far);
    world.tell_outranked(far, true);
    assert_eq!(world.twins.stats().malformed, 3);
    let nonsense = Ack { version: far, outcome: Outcome::Succeeded, detail: String::new() };
    world.report(9, 1, 50.0, Some(nonsense));
    world.tell_desired(9, 50.0, version(1, u64::MAX));
    assert_eq!(world.take(), Ok(2));
    assert_eq!(world.set(Value::Int(40)), Ok(version(2, 1)));
    world.tell_epoch((1 << 20) + 1);
    assert_eq!(world.epoch(), (1 << 20) + 1, "as far as it may leap");
    world.tell_desired(9, 50.0, version((1 << 20) + 1, u64::MAX));
    assert_eq!(world.take(), Ok((1 << 20) + 2));
    assert_eq!(world.set(Value::Int(40)), Ok(version((1 << 20) + 2, 1)));
}

#[test]
fn a_device_that_moves_is_under_the_clouds_authority_with_what_was_desired() {
    let mut world = World::taken();
    world.tell_desired(9, 50.0, version(1, 3));
    world.apply(VALVE, &MANIFESTS[1].1.replace("pump-house", "hill"));
    assert_eq!((world.epoch(), world.ks.get(ROW)), (2, None));
    let row: Authority = decode(world.ks.get("/e/hill/authority/water/valve").unwrap()).unwrap();
    assert_eq!((row.epoch, row.reason.as_str()), (2, "the device moved to another edge"));
    let moved = world.desired(HILL_DESIRED).unwrap();
    let as_wished = (Value::Float(50.0), version(2, 1), UnixMillis(7), "bob");
    assert_eq!((moved.value, moved.version, moved.issued, moved.by.as_str()), as_wished);
    assert_eq!(world.now_desired(), Some((50.0, version(2, 1))));
    world.tell_desired(9, 99.0, version(1, 4));
    assert_eq!(world.now_desired(), Some((50.0, version(2, 1))), "the old edge has no say");
    assert_eq!(world.set(Value::Int(40)), Ok(version(2, 2)));
}

#[test]
fn what_was_wished_before_the_edge_ever_took_over_moves_with_the_device_too() {
    let mut world = World::new();
    world.set(Value::Int(40)).unwrap();
    world.report(9, 1, 40.0, ack(1, Outcome::Succeeded));
    world.tell_epoch(1);
    world.tell_epoch(2);
    world.apply(VALVE, &MANIFESTS[1].1.replace("pump-house", "hill"));
    assert_eq!(
        world.desired(HILL_DESIRED).map(|desired| desired.version),
        Some(version(2, 1)),
        "or hill refuses it"
    );
    assert_eq!(world.desired(DESIRED), None);
}

#[test]
fn a_device_that_was_unbound_for_a_while_is_nobodys_prisoner() {
    for restarts in [false, true] {
        let mut world = World::taken();
        world.tell_desired(9, 50.0, version(1, 3));
        world.apply(VALVE, &MANIFESTS[1].1.replace("nodeName: pump-house,", ""));
        assert_eq!(world.ks.get(ROW), None);
        if restarts {
            world.restart();
        }
        world.apply(VALVE, MANIFESTS[1].1);
        assert_eq!(world.set(Value::Int(40)), Ok(version(2, 1)), "{restarts}");
    }
}

#[test]
fn a_device_that_was_deleted_and_made_again_goes_on_above_its_edges_epochs() {
    let mut world = World::taken();
    world.tell_desired(9, 50.0, version(1, 3));
    world.delete(VALVE);
    assert_eq!((world.ks.get(ROW), world.ks.get("/c/desired/water/valve/position")), (None, None));
    world.apply(VALVE, MANIFESTS[1].1);
    assert_eq!(world.set(Value::Int(40)), Ok(version(2, 1)));
}
