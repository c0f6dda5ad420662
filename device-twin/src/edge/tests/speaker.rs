//! Who may say what, of those whom the broker knows by name.

use super::*;
use crate::twin::Said;

/// What comes of it: the refusal, or nothing.
fn said(world: &mut World, who: &str, topic: &str, payload: &str) -> Option<String> {
    let (from, now) = (world.seen.len(), world.now());
    let who = if who.is_empty() { Who::Anonymous } else { Who::of_login(who).unwrap() };
    let topic = Topic::new(topic).unwrap();
    world.twins.handle_publish(
        Some(Ticket(7)),
        &who,
        &topic,
        Said::plain(payload.as_bytes()),
        &mut world.ks,
        now,
    );
    world.drain();
    let refusals = world.seen[from..].iter().filter_map(|output| {
        if let Output::Reject(Ticket(7), why) = output { Some(why.clone()) } else { None }
    });
    refusals.last()
}

#[test]
fn a_mapper_known_by_name_speaks_for_its_own_devices_alone() {
    let mut world = World::new();
    let reports = [
        ("", "valve", None),
        ("alice", "valve", None),
        ("mapper/virtual", "valve", None),
        ("mapper/other", "valve", Some("device water/valve is of mapper virtual, not other")),
        ("mapper/other", "tank", Some("device water/tank is not of mapper other")),
    ];
    for (who, device, refused) in reports {
        for (topic, payload) in [("report", r#"{"position": 40}"#), ("report/position", "40")] {
            let topic = format!("twin/water/{device}/{topic}");
            assert_eq!(said(&mut world, who, &topic, payload).as_deref(), refused, "{who} {topic}");
        }
    }
    let foreign = Some("mapper other does not speak for mapper virtual");
    assert_eq!(said(&mut world, "mapper/other", "mapper/virtual/state", "offline").as_deref(), foreign);
    assert_eq!(said(&mut world, "mapper/virtual", "mapper/virtual/state", "online"), None);
    assert!(world.twins.is_online(&valve()), "another mapper has put this one offline");
}

#[test]
fn what_a_user_wishes_bears_its_name() {
    let mut world = World::new();
    assert_eq!(said(&mut world, "alice", "twin/water/valve/set/position", "40"), None);
    world.carry_out();
    let order = r#"{"id": "c1", "args": {"position": 50}, "ttlMs": 60000}"#;
    let refused = said(&mut world, "bob", "twin/water/valve/command/set", order);
    assert_eq!(refused, None);
    assert_eq!(world.results(), ["c1 Superseded: position: slot 8 (local operator: user/alice) holds it"]);
}
