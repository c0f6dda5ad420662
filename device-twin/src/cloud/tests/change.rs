//! Changes of several properties, patches and conditions.

use bus::twin::Json;

use super::*;
use crate::condition::Condition;
use crate::twin::Group;

const PAIR: &str = "{apiVersion: devices.kubeedge.io/v1beta1, kind: DeviceModel, metadata: {name: valve, namespace: water}, spec: {properties: [
    {name: position, type: FLOAT, accessMode: ReadWrite, minimum: '0', maximum: '100', unit: percent},
    {name: mode, type: STRING, accessMode: ReadWrite},
    {name: flow, type: FLOAT, accessMode: ReadOnly}]}}";

const DRAIN: &str = "/c/resource/device/water/drain";

fn id(text: &str) -> PropertyId {
    PropertyId::parse(&format!("water/{text}")).unwrap()
}

fn wish(property: &str, value: impl Into<Option<f64>>) -> Wish {
    Wish { id: id(property), value: value.into().map(|value| Value::Float(value).into()), if_version: None }
}

fn condition(text: &str) -> Condition {
    text.parse().unwrap()
}

type Taken = Result<Vec<(PropertyId, Option<DesiredVersion>)>, String>;

impl World {
    /// With a second valve, `drain`, and a mode at each.
    fn pair() -> Self {
        let mut world = Self::new();
        world.apply(MANIFESTS[0].0, PAIR);
        world.apply(DRAIN, &MANIFESTS[1].1.replace("name: valve, namespace", "name: drain, namespace"));
        world.commits.clear();
        world.seen.clear();
        world
    }

    fn change(&mut self, wishes: Vec<Wish>, when: Vec<Condition>) -> Taken {
        let change = Wishes { wishes, when, by: "ann".to_owned() };
        let taken = self.twins.change(&change, &mut self.ks, self.now);
        self.drain();
        taken.map_err(|why| why.to_string())
    }

    fn patch(&mut self, patch: &str) -> Taken {
        let patch: Json = serde_json::from_str(patch).unwrap();
        let valve = position().device;
        let taken = self.twins.patch(&valve, &patch, "ann", &mut self.ks, self.now);
        self.drain();
        taken.map_err(|why| why.to_string())
    }

    fn row(&self, property: &str) -> Option<Desired> {
        self.desired(&format!("/e/pump-house/desired/water/{property}"))
    }

    /// Keys in the scope of the edge that each commit touched.
    fn edge_commits(&mut self) -> Vec<Vec<String>> {
        let commits = std::mem::take(&mut self.commits).into_iter();
        let keys =
            commits.map(|commit| commit.writes.iter().map(|write| write.key.to_string()).collect::<Vec<_>>());
        let of_edge =
            keys.map(|keys| keys.into_iter().filter(|key| key.starts_with("/e/")).collect::<Vec<_>>());
        of_edge.filter(|keys| !keys.is_empty()).collect()
    }
}

fn taken(all: &[(&str, Option<DesiredVersion>)]) -> Taken {
    Ok(all.iter().map(|(property, version)| (id(property), *version)).collect())
}

#[test]
fn several_wishes_are_one_revision_and_one_group() {
    let mut world = World::pair();
    let done = world.change(vec![wish("valve/position", 0.0), wish("drain/position", 100.0)], vec![]);
    assert_eq!(
        done,
        taken(&[("valve/position", Some(version(0, 1))), ("drain/position", Some(version(0, 1)))])
    );
    let keys = ["/e/pump-house/desired/water/drain/position", "/e/pump-house/desired/water/valve/position"];
    assert_eq!(world.edge_commits(), [keys.map(str::to_owned)]);
    let members = vec!["water/valve/position".to_owned(), "water/drain/position".to_owned()];
    let group = Some(Group { id: "water/valve/position@0.1".to_owned(), members });
    assert_eq!(
        (world.row("valve/position").unwrap().group, world.row("drain/position").unwrap().group),
        (group.clone(), group)
    );
    world.change(vec![wish("valve/position", 10.0)], vec![]).unwrap();
    assert_eq!(world.row("valve/position").unwrap().group, None, "one by itself is none");
}

#[test]
fn what_cannot_be_changed_as_one_changes_nothing() {
    let mut world = World::pair();
    world.apply(
        DRAIN,
        &MANIFESTS[1]
            .1
            .replace("name: valve, namespace", "name: drain, namespace")
            .replace("pump-house", "hill"),
    );
    world.commits.clear();
    let (a, b) = (wish("valve/position", 0.0), wish("drain/position", 100.0));
    let many: Vec<Wish> = (0..=MAX_GROUP).map(|n| wish(&format!("v{n}/position"), 0.0)).collect();
    for (wishes, why) in [
        (vec![], "nothing is wished"),
        (
            vec![a.clone(), b],
            "water/valve/position and water/drain/position are at different edges, and cannot be changed as one",
        ),
        (vec![a.clone(), a.clone()], "water/valve/position is there twice"),
        (vec![a.clone(), wish("valve/flow", 1.0)], "water/valve/flow cannot be set to this"),
        (vec![a, wish("valve/colour", 1.0)], "device water/valve has no property 'colour'"),
        (many, "more than 100 properties at a time"),
    ] {
        assert_eq!(world.change(wishes, vec![]), Err(why.to_owned()));
    }
    assert_eq!((world.commits.len(), world.seen.len()), (0, 0));
}

#[test]
fn a_change_is_made_only_if_the_version_is_the_one_that_was_seen() {
    let mut world = World::pair();
    let seen =
        |at: DesiredVersion, value: f64| Wish { if_version: Some(at), ..wish("valve/position", value) };
    assert_eq!(
        world.change(vec![seen(version(0, 1), 1.0)], vec![]),
        Err("water/valve/position is at version 0.0, not 0.1: look at it again".to_owned())
    );
    assert!(world.change(vec![seen(version(0, 0), 1.0)], vec![]).is_ok(), "nothing is desired yet");
    let both = vec![wish("drain/position", 3.0), seen(version(0, 0), 2.0)];
    assert_eq!(
        world.change(both, vec![]),
        Err("water/valve/position is at version 0.1, not 0.0: look at it again".to_owned())
    );
    assert_eq!(world.row("drain/position"), None, "none of them");
    let null = Wish { value: None, ..seen(version(0, 1), 0.0) };
    assert_eq!(world.change(vec![null], vec![]), taken(&[("valve/position", None)]));
}

#[test]
fn a_change_is_made_only_if_its_conditions_hold() {
    let mut world = World::pair();
    let late =
        Condition { max_age: Some(crate::model::Span(Duration::from_secs(30))), ..condition("position<50") };
    let try_it =
        |world: &mut World, when: Condition| world.change(vec![wish("valve/mode", None)], vec![when]);
    let untold = |text: &str| {
        Err(format!("nothing was changed: whether '{text}' holds cannot be told: no good and recent value"))
    };
    assert_eq!(try_it(&mut world, condition("position<50")), untold("position<50"));
    world.now.wall = UnixMillis(10);
    world.report(9, 1, 40.0, None);
    assert!(try_it(&mut world, condition("position<50")).is_ok());
    assert!(try_it(&mut world, condition("water/valve/position<50")).is_ok());
    assert_eq!(try_it(&mut world, condition("water/drain/position<50")), untold("water/drain/position<50"));
    assert_eq!(
        try_it(&mut world, condition("position>=50")),
        Err("nothing was changed: 'position>=50' does not hold: it is 40".to_owned())
    );
    assert!(try_it(&mut world, late.clone()).is_ok());
    world.pass(31);
    assert_eq!(try_it(&mut world, late.clone()), untold("position<50"), "too old by now");
    world.report(9, 2, 41.0, None);
    assert_eq!(try_it(&mut world, late), untold("position<50"), "heard just now, and read before");
    let views = world.twins.view(&"water/valve".parse().unwrap(), world.now);
    let ages = views.iter().filter(|view| view.property == "position").map(|view| view.age_ms);
    assert!(ages.eq([Some(31_007)]), "people are told the same: {views:?}");
}

#[test]
fn a_patch_is_one_change_and_null_takes_a_wish_back() {
    let mut world = World::pair();
    let done = world.patch(r#"{"position": 40, "mode": "auto"}"#);
    assert_eq!(done, taken(&[("valve/mode", Some(version(0, 1))), ("valve/position", Some(version(0, 1)))]));
    assert_eq!(world.edge_commits().len(), 1);
    let done = world.patch(r#"{"position": 41, "mode": null}"#);
    assert_eq!(done, taken(&[("valve/mode", None), ("valve/position", Some(version(0, 2)))]));
    assert_eq!(world.edge_commits().len(), 1);
    assert_eq!((world.row("valve/mode"), world.row("valve/position").unwrap().group), (None, None));
    for (patch, why) in [
        ("[1]", r#"a patch is an object by property: {"position": 40, "mode": null}"#),
        ("{}", "nothing is wished"),
        (r#"{"position": 40, "colour": 1}"#, "device water/valve has no property 'colour'"),
        (r#"{"position": [40]}"#, "position: an array is no value of a property"),
        (r#"{"position": 101, "mode": null}"#, "water/valve/position cannot be set to this"),
        (r#"{"position": {"value": 40}}"#, "water/valve/position cannot be set to this"),
    ] {
        assert_eq!(world.patch(patch), Err(why.to_owned()));
    }
    assert_eq!(world.edge_commits().len(), 0);
}

/// Once a change was carried out, what is left of it does not depend on the rest: else a later wish for one property
/// would keep the others from an edge whose disk was replaced.
#[test]
fn what_was_carried_out_as_one_is_taken_apart_when_one_of_it_is_wished_anew() {
    for is_done in [true, false] {
        let mut world = World::pair();
        world.patch(r#"{"position": 40, "mode": "auto"}"#).unwrap();
        let acked = if is_done { Outcome::Succeeded } else { Outcome::Expired };
        world.report(9, 1, 40.0, ack(1, acked));
        let before = world.row("valve/position").unwrap();
        world.patch(r#"{"mode": "hand"}"#).unwrap();
        let expected = if is_done { Desired { group: None, ..before } } else { before };
        assert_eq!(world.row("valve/position"), Some(expected));
        assert_eq!(world.edge_commits().len(), 2, "in one revision");
    }
}
