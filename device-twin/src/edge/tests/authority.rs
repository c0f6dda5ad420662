//! The edge takes the authority over the valve, and loses it.

use bus::twin::DeviceId;

use super::super::AuthorityError;
use super::super::property::{Owner, Who as Holding};
use super::*;
use crate::Authority;
use crate::arbiter::{Entry, Slot};
use crate::authority::Holder;
use crate::twin::{Outranked, Reported, cbor};

const OPERATOR: (&str, &str) = ("bob", "the main bursts");
const NONE: [(String, f64); 0] = [];

impl World {
    /// A world whose valve may be taken.
    fn overridable() -> Self {
        let mut world = Self::new();
        world.govern("localOverride: true");
        world.seen.clear();
        world
    }

    /// One whose valve is taken.
    fn taken() -> Self {
        let mut world = Self::overridable();
        world.take(None).unwrap();
        world
    }

    fn take(&mut self, lasting: Option<Duration>) -> Result<u64, AuthorityError> {
        let now = self.now();
        let taken = self.twins.take_authority(&valve(), OPERATOR, lasting, &mut self.ks, now);
        self.drain();
        taken.map(|authority| authority.epoch)
    }

    fn hand_back(&mut self) -> Result<u64, AuthorityError> {
        let now = self.now();
        let back = self.twins.hand_back(&valve(), OPERATOR, &mut self.ks, now);
        self.drain();
        back.map(|authority| authority.epoch)
    }

    fn epoch(&self) -> u64 {
        self.twins.authority(&valve()).unwrap().epoch
    }

    fn set(&mut self, property: &str, value: f64) -> Result<Option<DesiredVersion>, String> {
        let now = self.now();
        let id = id(&format!("valve/{property}"));
        let done = self.twins.set(&id, Value::Float(value), "bob", &mut self.ks, now);
        self.drain();
        done
    }

    /// The cloud wishes under `epoch`, just now.
    pub(super) fn wish(&mut self, property: &str, value: f64, epoch: u64, seq: u64) {
        let row = self.row(value, epoch, seq);
        self.put(&format!("/m/desired/water/valve/{property}"), row);
    }

    fn row(&self, value: f64, epoch: u64, seq: u64) -> Bytes {
        let (issued, version) = (self.now().wall.shifted(AHEAD), DesiredVersion { epoch, seq });
        cbor(&Desired { value: Value::Float(value), version, issued, by: "ann".to_owned(), group: None })
    }

    /// The cloud says who holds the authority.
    fn tell(&mut self, epoch: u64) {
        let told = Authority { epoch, by: "ann".to_owned(), ..Authority::default() };
        self.put("/m/authority/water/valve", cbor(&told));
    }

    /// What is desired of a property, and how the newest wish that was decided on ended.
    fn view(&self, property: &str) -> (Option<f64>, String, Option<Outcome>) {
        let views = self.twins.view(&valve(), self.now());
        assert_eq!(self.twins.gist(&valve()), crate::view::Gist::of(&views));
        let view = views.into_iter().find(|view| view.property == property).unwrap();
        let version = view.version.map(|version| version.to_string()).unwrap_or_default();
        let ack = view.ack.filter(|ack| Some(ack.version) == view.version).map(|ack| ack.outcome);
        (view.desired.and_then(|value| value.as_f64()), version, ack)
    }

    /// What the cloud was told last to be in force here.
    fn told_own(&self, property: &str) -> Option<Desired> {
        self.told::<Option<Desired>>(&format!("desired/water/valve/{property}")).unwrap()
    }

    /// The cloud wishes nothing any more, up to this version.
    fn withdraw(&mut self, property: &str, epoch: u64, seq: u64) {
        let version = DesiredVersion { epoch, seq };
        self.put(&format!("/m/withdrawn/water/valve/{property}"), cbor(&version));
    }

    fn start_again(&mut self) {
        self.restart();
        self.mapper("online");
        self.clock(true);
    }
}

fn version(epoch: u64, seq: u64) -> DesiredVersion {
    DesiredVersion { epoch, seq }
}

#[test]
fn taking_and_handing_back_moves_nothing() {
    let mut world = World::overridable();
    world.wish("position", 40.0, 0, 1);
    world.wish("setPoint", 3.0, 0, 1);
    assert_eq!(world.carry_out(), [position(40.0), set_point(3.0)]);
    for (epoch, holder) in [(1, Holder::Edge), (3, Holder::Edge)] {
        assert_eq!((world.take(None), Holder::of(world.epoch())), (Ok(epoch), holder));
        assert_eq!(world.told::<Authority>("authority/water/valve").map(|told| told.epoch), Some(epoch));
        world.seconds(5);
        assert_eq!(world.hand_back(), Ok(epoch + 1));
        assert_eq!(world.told::<Authority>("authority/water/valve").map(|told| told.epoch), Some(epoch + 1));
        world.seconds(5);
    }
    assert_eq!(world.view("position"), (Some(40.0), "0.1".to_owned(), Some(Outcome::Succeeded)));
    assert_eq!(world.view("setPoint"), (Some(3.0), "0.1".to_owned(), Some(Outcome::Succeeded)));
    assert_eq!((world.results(), world.written()), (vec![], vec![]));
}

#[test]
fn what_may_not_be_taken_is_not() {
    let mut world = World::new();
    assert_eq!(world.take(None), Err(AuthorityError::NotAllowed(valve())));
    assert_eq!(world.hand_back(), Err(AuthorityError::NotHeld(valve())));
    let tank: DeviceId = "water/tank".parse().unwrap();
    let now = world.now();
    let elsewhere = world.twins.take_authority(&tank, OPERATOR, None, &mut world.ks, now);
    assert_eq!(elsewhere, Err(AuthorityError::NotHere(tank)));
    assert_eq!((world.epoch(), world.seen.len()), (0, 0));
}

#[test]
fn a_wish_under_an_authority_that_is_over_is_answered_once_and_never_carried_out() {
    let mut world = World::taken();
    for property in ["position", "setPoint"] {
        world.wish(property, 9.0, 0, 1);
        let told = "0.1 Superseded: the edge holds the authority, taken by bob: the main bursts";
        assert_eq!(world.results(), [format!("{property} {told}")]);
        assert_eq!(world.view(property), (None, String::new(), None), "nothing is desired");
        assert_eq!(world.written(), NONE);
    }
    world.changed(&Key::new("/m/desired/water/valve/position").unwrap());
    world.set("setPoint", 4.0).unwrap();
    assert_eq!(world.carry_out(), [set_point(4.0)]);
    for _ in 0..2 {
        world.seen.clear();
        world.start_again();
        world.seconds(700);
        world.changed(&Key::new("/m/desired/water/valve/setPoint").unwrap());
        assert_eq!(world.results(), Vec::<String>::new(), "exactly once");
        assert_eq!(world.written(), NONE);
    }
    assert_eq!(world.view("setPoint"), (Some(4.0), "1.1".to_owned(), Some(Outcome::Succeeded)));
    world.hand_back().unwrap();
    world.start_again();
    world.seconds(700);
    assert_eq!((world.results(), world.written()), (vec![], vec![]), "nor later");
}

#[test]
fn a_refused_wish_leaves_what_was_desired_before_it_in_force() {
    let mut world = World::overridable();
    world.wish("setPoint", 3.0, 0, 1);
    assert_eq!(world.carry_out(), [set_point(3.0)]);
    world.take(None).unwrap();
    world.wish("setPoint", 9.0, 0, 2);
    let outranked = Outranked { version: version(0, 2), fresh: false };
    assert_eq!(world.told("outranked/water/valve/setPoint"), Some(outranked));
    let kept = world.told_own("setPoint").unwrap();
    assert_eq!(
        (kept.version, kept.value),
        (version(0, 1), Value::Float(3.0)),
        "the cloud has only the new one"
    );
    for _ in 0..2 {
        assert_eq!(world.view("setPoint"), (Some(3.0), "0.1".to_owned(), Some(Outcome::Succeeded)));
        world.start_again();
    }
    assert_eq!(world.written(), NONE);
    world.hand_back().unwrap();
    world.take_back("/m/desired/water/valve/setPoint");
    assert_eq!(world.view("setPoint").0, Some(3.0), "the cloud takes the refused one away");
    world.say("twin/water/valve/set/setPoint", "5");
    world.carry_out();
    world.say("twin/water/valve/set/setPoint", "");
    assert_eq!(world.carry_out(), [set_point(3.0)], "what an operator overrides for a while comes back");
    world.wish("setPoint", 4.0, 2, 1);
    assert_eq!(world.carry_out(), [set_point(4.0)]);
    world.take_back("/m/desired/water/valve/setPoint");
    world.start_again();
    assert_eq!(world.view("setPoint").0, None, "and is gone once something newer came");
}

#[test]
fn a_wish_that_waits_for_the_clock_when_the_edge_takes_over_is_superseded() {
    let mut world = World::cold();
    world.govern("localOverride: true");
    world.mapper("online");
    world.wish("position", 40.0, 0, 1);
    world.take(None).unwrap();
    let told = "position 0.1 Superseded: the edge holds the authority, taken by bob: the main bursts";
    assert_eq!(world.results(), [told]);
    world.clock(true);
    world.seconds(20);
    assert_eq!(world.written(), NONE);
    assert_eq!(world.ack("valve/position"), Some((1, Outcome::Superseded)));
}

#[test]
fn who_holds_the_authority_wishes_and_does_not_just_override() {
    let mut world = World::taken();
    assert_eq!(world.set("setPoint", 4.0), Ok(Some(version(1, 1))));
    assert_eq!(world.set("setPoint", 5.0), Ok(Some(version(1, 2))));
    let told = world.told_own("setPoint").unwrap();
    assert_eq!((told.version, told.value, told.by), (version(1, 2), Value::Float(5.0), "bob".to_owned()));
    let writes = world.writes();
    assert_eq!(writes[1].cause, "local desired 1.2 by bob");
    world.answer(&writes[1], Outcome::Succeeded);
    let reported: Reported = world.told("reported/water/valve/setPoint").unwrap();
    let ack = reported.ack.unwrap();
    assert_eq!((ack.version, ack.outcome), (version(1, 2), Outcome::Succeeded));
    assert_eq!(world.set("position", 101.0), Err("101 is outside 0 to 100".to_owned()));
    world.seconds(700);
    assert_eq!(world.written(), NONE, "it does not end after ten minutes");
    world.start_again();
    assert_eq!(world.set("setPoint", 6.0), Ok(Some(version(1, 3))), "numbers go on after a restart");
}

#[test]
fn a_local_wish_outlives_a_restart_if_it_is_a_setting_and_moves_no_actuator_again() {
    let mut world = World::taken();
    world.set("setPoint", 4.0).unwrap();
    world.set("position", 40.0).unwrap();
    assert_eq!(world.carry_out(), [set_point(4.0), position(40.0)]);
    world.set("setPoint", 5.0).unwrap();
    assert_eq!(world.written(), [set_point(5.0)]);
    world.start_again();
    assert_eq!(world.carry_out(), [set_point(5.0)], "it was in mid-write");
    world.start_again();
    world.seconds(700);
    assert_eq!(world.written(), NONE);
    assert_eq!(world.view("setPoint"), (Some(5.0), "1.2".to_owned(), Some(Outcome::Succeeded)));
    assert_eq!(world.view("position"), (Some(40.0), "1.1".to_owned(), Some(Outcome::Succeeded)));
}

#[test]
fn a_local_wish_is_stopped_by_what_stops_one_of_the_cloud() {
    let mut world = World::taken();
    world.say("twin/water/valve/set/position", "40");
    world.carry_out();
    world.mapper("offline");
    assert_eq!(world.set("position", 50.0), Ok(Some(version(1, 2))));
    assert_eq!(world.results(), ["position 1.2 Failed: the device is offline; set it again"]);
    world.mapper("online");
    world.seconds(100);
    assert_eq!(world.written(), NONE);
    world.hand_back().unwrap();
    world.say("twin/water/valve/set/position", "70");
    world.carry_out();
    world.take(None).unwrap();
    assert_eq!(world.set("position", 60.0), Ok(Some(version(3, 1))));
    let told = "slot 8 (local operator: local app) holds it; set it again later";
    assert_eq!(world.results(), [format!("position 3.1 Superseded: {told}")]);
}

#[test]
fn the_cloud_takes_it_back_and_what_the_edge_wished_stands_until_it_wishes_otherwise() {
    let mut world = World::taken();
    world.set("setPoint", 4.0).unwrap();
    world.carry_out();
    world.tell(2);
    assert_eq!((world.epoch(), world.results(), world.written()), (2, vec![], vec![]));
    world.start_again();
    assert_eq!((world.epoch(), world.view("setPoint").0), (2, Some(4.0)));
    assert_eq!(world.set("setPoint", 5.0), Ok(None), "an operator's, for a while");
    assert_eq!(world.carry_out(), [set_point(5.0)]);
    world.say("twin/water/valve/set/setPoint", "");
    assert_eq!(world.carry_out(), [set_point(4.0)]);
    world.wish("setPoint", 7.0, 2, 1);
    assert_eq!(world.carry_out(), [set_point(7.0)]);
    assert_eq!(world.take(None), Ok(3));
    assert_eq!(world.set("setPoint", 8.0), Ok(Some(version(3, 1))));
}

#[test]
fn authority_and_wish_of_the_cloud_that_come_together_are_heeded_in_this_order() {
    let mut world = World::taken();
    let told = Authority { epoch: 2, by: "ann".to_owned(), ..Authority::default() };
    let rows = [
        ("/m/authority/water/valve".to_owned(), cbor(&told)),
        ("/m/desired/water/valve/position".to_owned(), world.row(40.0, 2, 1)),
        ("/m/desired/water/valve/setPoint".to_owned(), world.row(9.0, 0, 7)),
    ];
    world.put_all(rows);
    let told = "0.7 Superseded: made under an authority that is over, ended by ann";
    assert_eq!(world.results(), [format!("setPoint {told}")]);
    assert_eq!(world.written(), [position(40.0)]);
}

#[test]
fn it_is_handed_back_when_its_time_is_over_also_over_a_restart() {
    for (runs, is_off) in [(300, 0), (100, 100), (299, 101)] {
        let mut world = World::overridable();
        world.take(Some(Duration::from_secs(300))).unwrap();
        world.seconds(runs - 1);
        assert_eq!(world.epoch(), 1);
        world.ms += is_off * 1000;
        if is_off > 0 {
            world.restart();
        }
        world.seconds(300_u64.saturating_sub(runs + is_off) + 1);
        let authority = world.twins.authority(&valve()).unwrap().clone();
        assert_eq!((authority.epoch, authority.by.as_str()), (2, "the edge"), "{runs} {is_off}");
        assert_eq!(authority.reason, "its time is over");
        assert_eq!(world.told::<Authority>("authority/water/valve"), Some(authority));
        world.seconds(1000);
        assert_eq!(world.epoch(), 2);
    }
}

#[test]
fn taken_again_it_lasts_anew_and_handed_back_by_hand_it_does_not_end_twice() {
    let mut world = World::overridable();
    world.take(Some(Duration::from_secs(300))).unwrap();
    world.seconds(200);
    assert_eq!(world.take(Some(Duration::from_secs(300))), Ok(1), "one authority");
    world.seconds(200);
    assert_eq!(world.epoch(), 1);
    world.hand_back().unwrap();
    world.take(None).unwrap();
    world.seconds(1000);
    assert_eq!(world.epoch(), 3);
}

#[test]
fn a_wiped_edge_learns_of_its_authority_from_the_cloud() {
    let mut world = World::overridable();
    world.tell(1);
    assert_eq!(world.epoch(), 3, "its numbers under the one before are lost");
    assert_eq!(world.set("setPoint", 4.0), Ok(Some(version(3, 1))));
    assert_eq!(world.carry_out(), [set_point(4.0)]);
    world.wish("setPoint", 9.0, 0, 3);
    assert_eq!(world.written(), NONE);
    assert_eq!(world.hand_back(), Ok(4));
}

#[test]
fn an_epoch_does_not_go_back_when_the_cloud_has_forgotten_it() {
    let mut world = World::taken();
    world.set("setPoint", 4.0).unwrap();
    world.carry_out();
    world.tell(2);
    world.wish("setPoint", 7.0, 2, 1);
    world.carry_out();
    world.take_back("/m/authority/water/valve");
    assert_eq!(world.epoch(), 2);
    world.start_again();
    assert_eq!(world.epoch(), 2);
    assert_eq!(world.set("setPoint", 5.0), Ok(None), "the authority is the cloud's");
    let now = world.now();
    world.seen.clear();
    world.twins.handle_resynced(Incarnation(9), &mut world.ks, now);
    world.drain();
    assert_eq!(world.told::<Authority>("authority/water/valve").map(|told| told.epoch), Some(2));
}

#[test]
fn a_cloud_that_wishes_under_a_later_epoch_has_the_authority() {
    let mut world = World::taken();
    world.set("setPoint", 4.0).unwrap();
    world.carry_out();
    world.wish("setPoint", 7.0, 2, 1);
    assert_eq!(world.epoch(), 2, "restored from a backup, it did not know that the edge held it");
    assert_eq!(world.told::<Authority>("authority/water/valve").map(|told| told.epoch), Some(2));
    assert_eq!(world.carry_out(), [set_point(7.0)]);
    assert_eq!(world.set("setPoint", 5.0), Ok(None));
    world.start_again();
    assert_eq!((world.epoch(), world.view("setPoint").0), (2, Some(7.0)));
}

#[test]
fn a_property_that_went_and_came_back_does_not_number_its_wishes_anew() {
    let mut world = World::taken();
    world.set("setPoint", 4.0).unwrap();
    world.carry_out();
    let (key, model) = MANIFESTS[0];
    let without = model.replace("{name: setPoint, type: FLOAT, accessMode: ReadWrite, unit: m}", "");
    world.put(key, json(&without));
    world.put(key, json(model));
    assert_eq!(world.set("setPoint", 5.0), Ok(Some(version(1, 2))));
}

#[test]
fn a_device_that_was_made_again_answers_a_wish_that_its_old_self_outranks() {
    let mut world = World::taken();
    world.set("setPoint", 4.0).unwrap();
    world.carry_out();
    world.take_back(MANIFESTS[2].0);
    world.put(MANIFESTS[2].0, json(MANIFESTS[2].1));
    assert_eq!(world.epoch(), 0);
    let reported: Reported = world.told("reported/water/valve/setPoint").unwrap();
    assert_eq!(
        reported.ack.map(|ack| ack.version),
        Some(version(1, 1)),
        "so that the cloud counts on from it"
    );
    world.wish("setPoint", 7.0, 0, 2);
    assert_eq!(
        world.results(),
        ["setPoint 0.2 Superseded: version 1.1 of a later authority is known here; set it again"]
    );
    assert_eq!(world.written(), NONE);
    world.wish("setPoint", 7.0, 2, 1);
    assert_eq!(world.written(), [set_point(7.0)]);
}

#[test]
fn what_the_cloud_takes_back_under_an_authority_that_is_over_stays() {
    let mut world = World::overridable();
    world.wish("setPoint", 3.0, 0, 1);
    world.carry_out();
    world.take(None).unwrap();
    world.take_back("/m/desired/water/valve/setPoint");
    let kept = world.told_own("setPoint").unwrap();
    assert_eq!(kept.version, version(0, 1));
    for _ in 0..2 {
        assert_eq!(world.view("setPoint").0, Some(3.0));
        world.start_again();
    }
    assert_eq!(world.written(), NONE);
}

#[test]
fn a_local_wish_that_the_cloud_takes_back_lets_go_of_its_slot() {
    let mut world = World::taken();
    world.set("position", 40.0).unwrap();
    world.set("setPoint", 4.0).unwrap();
    world.carry_out();
    world.tell(2);
    world.withdraw("position", 2, 1);
    assert_eq!(world.told_own("position"), None);
    assert_eq!(
        world.told("outranked/water/valve/position"),
        Some(Outranked { version: version(2, 1), fresh: false })
    );
    assert_eq!(world.carry_out(), [position(100.0)]);
    world.withdraw("setPoint", 2, 1);
    for _ in 0..2 {
        assert_eq!((world.view("position").0, world.view("setPoint").0), (None, None));
        world.start_again();
    }
    assert_eq!(world.written(), NONE);
    world.wish("setPoint", 5.0, 2, 2);
    assert_eq!(world.carry_out(), [set_point(5.0)]);
    world.changed(&Key::new("/m/withdrawn/water/valve/setPoint").unwrap());
    assert_eq!(world.view("setPoint").0, Some(5.0), "that was before");
}

#[test]
fn a_withdrawal_under_an_authority_that_is_over_is_refused_like_a_wish() {
    let mut world = World::overridable();
    world.wish("setPoint", 3.0, 0, 1);
    world.carry_out();
    world.take(None).unwrap();
    world.withdraw("setPoint", 0, 2);
    let told = "setPoint 0.2 Superseded: the edge holds the authority, taken by bob: the main bursts";
    assert_eq!(world.results(), [told]);
    assert_eq!(world.told_own("setPoint").map(|own| own.version), Some(version(0, 1)));
    assert_eq!((world.view("setPoint").0, world.written()), (Some(3.0), vec![]));
    world.start_again();
    assert_eq!((world.view("setPoint").0, world.results()), (Some(3.0), vec![]));
}

#[test]
fn a_cloud_that_may_have_forgotten_is_told_who_holds_the_authority_and_what_is_wished() {
    let mut world = World::overridable();
    world.wish("setPoint", 3.0, 0, 1);
    world.carry_out();
    world.take(None).unwrap();
    world.set("position", 40.0).unwrap();
    world.wish("setPoint", 9.0, 0, 2);
    let all = [
        "authority/water/valve",
        "desired/water/valve/position",
        "desired/water/valve/setPoint",
        "outranked/water/valve/setPoint",
    ];
    for restarts in [false, true] {
        if restarts {
            world.start_again();
        }
        for from_outbox in [false, true] {
            let now = world.now();
            world.seen.clear();
            if from_outbox {
                world.twins.tell_again(|key| all.contains(&key), &world.ks);
            } else {
                world.twins.handle_resynced(Incarnation(9), &mut world.ks, now);
            }
            world.drain();
            let keys = world.seen.iter().filter_map(|output| {
                let Output::Up { key, .. } = output else { return None };
                all.contains(&key.as_str()).then_some(key.as_str())
            });
            assert_eq!(
                keys.collect::<std::collections::BTreeSet<_>>(),
                all.into(),
                "{restarts} {from_outbox}"
            );
        }
    }
}

#[test]
fn a_wish_takes_the_place_of_what_is_desired_under_the_edges_authority_and_else_of_what_it_can_end() {
    let mut world = World::overridable();
    world.wish("position", 40.0, 0, 1);
    let id = id("valve/position");
    let hold = |world: &mut World, slot, value| {
        let owner = Owner { who: Holding::Operator, cause: "bob".to_owned(), since: None };
        let entry = Entry { value: Value::Float(value), owner, expires: None };
        world.twins.twins.get_mut(&id).unwrap().slots.set(slot, entry);
    };
    let shown = |world: &World| {
        let now = world.now().mono;
        let float = |value: Option<&Value>| value.and_then(Value::as_f64);
        (float(world.twins.replaced(&id, now)), float(world.twins.held_to(&id, now)))
    };
    hold(&mut world, Slot::LOCAL_OPERATOR, 7.0);
    assert_eq!(shown(&world), (Some(7.0), Some(7.0)));
    hold(&mut world, Slot::new(2).unwrap(), 0.0);
    assert_eq!(shown(&world), (Some(40.0), Some(0.0)), "no operator ends an interlock");
    world.take(None).unwrap();
    world.twins.twins.get_mut(&id).unwrap().slots.relinquish(Slot::new(2).unwrap());
    hold(&mut world, Slot::LOCAL_OPERATOR, 7.0);
    assert_eq!(shown(&world), (Some(40.0), Some(7.0)));
}
