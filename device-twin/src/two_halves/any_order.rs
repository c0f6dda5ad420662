//! Whatever is wished, ordered, taken, cut and restarted in whatever order.

use proptest::prelude::*;

use super::*;
use crate::command::State;

#[derive(Debug, Clone)]
enum Step {
    SetPoint(u8),
    Position(u8),
    /// Both valves as one.
    Both(u8, u8),
    TakeBack(&'static str),
    Take(Option<u64>),
    HandBack,
    TakeAtCloud,
    /// At the edge: a setting only while it has the authority, as an operator's would hide what is desired.
    SetHere(&'static str, u8),
    Order {
        at_cloud: bool,
        id: u8,
        position: u8,
        ttl_s: u64,
    },
    Cut,
    Link,
    RestartEdge,
    RestartCloud,
    /// The edge copies its metadata anew when it comes next.
    Compact,
    Mapper(bool),
    Works(Outcome),
    Pass(u64),
}

const PROPERTIES: [&str; 2] = ["valve/position", "valve/setPoint"];

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![4 => Just(Outcome::Succeeded), 1 => Just(Outcome::Failed)];
    prop_oneof![
        3 => (0u8..100).prop_map(Step::SetPoint),
        3 => (0u8..100).prop_map(Step::Position),
        2 => (0u8..100, 0u8..100).prop_map(|(valve, drain)| Step::Both(valve, drain)),
        1 => prop::sample::select(&PROPERTIES[..]).prop_map(Step::TakeBack),
        2 => prop::option::of(1u64..300).prop_map(Step::Take),
        1 => Just(Step::HandBack),
        1 => Just(Step::TakeAtCloud),
        3 => (prop::sample::select(&PROPERTIES[..]), 0u8..100).prop_map(|(what, value)| Step::SetHere(what, value)),
        3 => (any::<bool>(), 0u8..6, 0u8..3, 1u64..90).prop_map(|(at_cloud, id, position, ttl_s)| Step::Order {
            at_cloud,
            id,
            position,
            ttl_s: if id < 3 { 30 } else { ttl_s },
        }),
        2 => Just(Step::Cut),
        3 => Just(Step::Link),
        1 => Just(Step::RestartEdge),
        1 => Just(Step::RestartCloud),
        1 => Just(Step::Compact),
        2 => any::<bool>().prop_map(Step::Mapper),
        3 => outcome.prop_map(Step::Works),
        3 => (0u64..90).prop_map(Step::Pass),
    ]
}

/// When commands were ordered, and until when they were good, by id.
type Orders = BTreeMap<String, Vec<(u64, u64)>>;

fn perform(world: &mut World, step: &Step, orders: &mut Orders) {
    let float = |value: &u8| f64::from(*value);
    // What an edge holds is refused here, and what has no wish of the cloud cannot be taken back.
    match step {
        Step::SetPoint(value) => drop(world.wish(&[("valve/setPoint", Some(float(value)))])),
        Step::Position(value) => drop(world.wish(&[("valve/position", Some(float(value)))])),
        Step::Both(valve, drain) => {
            drop(
                world.wish(&[("valve/position", Some(float(valve))), ("drain/position", Some(float(drain)))]),
            );
        }
        Step::TakeBack(property) => drop(world.wish(&[(property, None)])),
        Step::Take(lasting) => world.take(lasting.map(Duration::from_secs)),
        Step::HandBack => world.hand_back(),
        Step::TakeAtCloud => world.take_at_cloud(),
        Step::SetHere(property, value) => {
            let has_authority =
                world.edge.authority(&valve()).is_some_and(|authority| authority.epoch % 2 == 1);
            if has_authority || *property == "valve/position" {
                world.set_here(property, float(value));
            }
        }
        Step::Order { at_cloud, id, position, ttl_s } => {
            let id = format!("{}{id}", if *at_cloud { "c" } else { "l" });
            orders.entry(id.clone()).or_default().push((world.ms, world.ms + ttl_s * 1000));
            world.order(*at_cloud, &id, float(position), ttl_s * 1000);
        }
        Step::Cut => world.cut(),
        Step::Link => world.link(),
        Step::RestartEdge => world.restart_edge(),
        Step::RestartCloud => world.restart_cloud(),
        Step::Compact => world.compact(),
        Step::Mapper(true) => world.say("mapper/virtual/state", "online"),
        Step::Mapper(false) => world.say("mapper/virtual/state", "offline"),
        Step::Works(outcome) => world.mapper_works(*outcome),
        Step::Pass(seconds) => world.pass(Duration::from_secs(*seconds)),
    }
}

/// Writes for commands, by id.
fn commanded(world: &World) -> BTreeMap<String, Vec<u64>> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (at, request) in &world.writes {
        if let Some(rest) = request.cause.strip_prefix("command ") {
            all.entry(rest.split(' ').next().unwrap().to_owned()).or_default().push(*at);
        }
    }
    all
}

/// Versions of wishes in the order in which they were written.
fn versions(world: &World, id: &PropertyId) -> Vec<DesiredVersion> {
    let of_property =
        world.writes.iter().filter(|(_, w)| w.device == id.device && *w.property == *id.property);
    let version = |cause: &str| {
        let (_, rest) = cause.split_once(" desired ")?;
        DesiredVersion::try_from(rest.split(' ').next()?.to_owned()).ok()
    };
    of_property.filter_map(|(_, request)| version(&request.cause)).collect()
}

/// Both halves say the same, and what is desired of the setting is what the device was set to.
fn agree(world: &World) -> Result<(), TestCaseError> {
    for device in [valve(), drain()] {
        let [cloud, edge] = world.both(&device);
        prop_assert_eq!(cloud, edge);
    }
    let setting = world.view("valve/setPoint");
    prop_assert!(setting.converged, "{:?}", setting);
    if setting.desired.is_some() {
        prop_assert_eq!(&setting.desired, &world.device.get(&id("valve/setPoint")).cloned());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn both_halves_agree_in_the_end(
        policy in prop::sample::select(&["", ", writeInterval: 7s"][..]),
        steps in prop::collection::vec(step(), 1..50),
    ) {
        let mut world = World::running(policy);
        let mut orders = Orders::new();
        steps.iter().for_each(|step| perform(&mut world, step, &mut orders));
        heal(&mut world);
        agree(&world)?;
        for property in ["valve/position", "drain/position"] {
            let position = world.view(property);
            let answered = position.ack.map(|ack| ack.version);
            if position.version.is_some() {
                prop_assert_eq!(answered, position.version, "each wish for an actuator ends, one way or another");
            }
            let versions = versions(&world, &id(property));
            prop_assert!(versions.is_sorted(), "{:?}", versions);
        }
        for (id, writes) in commanded(&world) {
            let of = |write: u64| orders[&id].iter().filter(move |(at, until)| (*at..*until).contains(&write));
            for write in &writes {
                prop_assert!(of(*write).count() > 0, "{} was written after its time", id);
            }
            for pair in writes.windows(2) {
                let first_ends = of(pair[0]).map(|(_, until)| *until).min();
                let second_begins = of(pair[1]).map(|(at, _)| *at).max();
                prop_assert!(first_ends <= second_begins, "{} was carried out more than once", id);
            }
        }
        for command in world.commands() {
            prop_assert_eq!(command.state, State::Ended, "{:?}", command);
        }
    }

    /// An edge that lost its disk has forgotten what it did, and what was wished there.
    #[test]
    fn both_halves_agree_in_the_end_also_after_a_new_disk(
        policy in prop::sample::select(&["", ", writeInterval: 7s", ", slew: 20"][..]),
        before in prop::collection::vec(step(), 1..20),
        after in prop::collection::vec(step(), 1..20),
    ) {
        let mut world = World::running(policy);
        let mut orders = Orders::new();
        before.iter().for_each(|step| perform(&mut world, step, &mut orders));
        world.wipe_edge();
        after.iter().for_each(|step| perform(&mut world, step, &mut orders));
        heal(&mut world);
        for device in ["valve", "drain"] {
            world.say(&format!("twin/water/{device}/report"), r#"{"position": 1, "setPoint": 2}"#);
        }
        agree(&world)?;
    }
}
