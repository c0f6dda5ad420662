//! Any order of messages, cuts and crashes: each message whose publisher was told that it is safe comes to each other site
//! once, and in the order of its site.

use std::collections::BTreeMap;
use std::time::Duration;

use device_twin::Ticket;
use proptest::prelude::*;

use super::world::{Answer, CLOUD, World};

const EDGES: [&str; 3] = ["a", "b", "c"];
const ALL: [&str; 4] = ["a", "b", "c", CLOUD];

#[derive(Debug, Clone)]
enum Event {
    Publish { at: usize, count: usize },
    Sync { at: usize },
    Take { at: usize, count: usize },
    Carry { edge: usize, way: usize, count: usize },
    Cut { edge: usize },
    Mend { edge: usize },
    Crash { at: usize },
    Sleep { seconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let (at, edge) = (0..ALL.len(), 0..EDGES.len());
    prop_oneof![
        8 => (at.clone(), 1..40_usize).prop_map(|(at, count)| Event::Publish { at, count }),
        12 => at.clone().prop_map(|at| Event::Sync { at }),
        8 => (at.clone(), 1..40_usize).prop_map(|(at, count)| Event::Take { at, count }),
        16 => (edge.clone(), 0..2_usize, 1..8_usize)
            .prop_map(|(edge, way, count)| Event::Carry { edge, way, count }),
        2 => edge.clone().prop_map(|edge| Event::Cut { edge }),
        4 => edge.prop_map(|edge| Event::Mend { edge }),
        2 => at.prop_map(|at| Event::Crash { at }),
        1 => (1..100_u64).prop_map(|seconds| Event::Sleep { seconds }),
    ]
}

/// A run of the world, with what was published.
struct Run {
    world: World,
    /// By site; in order.
    published: BTreeMap<&'static str, Vec<(Ticket, usize)>>,
    count: usize,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new(&EDGES);
        for at in ALL {
            world.subscribe(at, "mesh/#");
        }
        world.run();
        for at in ALL {
            (world.machine(at).is_slow, world.machine(at).takes) = (true, false);
        }
        Self { world, published: BTreeMap::new(), count: 0 }
    }

    fn play(&mut self, event: &Event) {
        let world = &mut self.world;
        match *event {
            Event::Publish { at, count } => {
                for _ in 0..count {
                    self.count += 1;
                    let at = ALL[at];
                    let ticket = world.publish(at, &format!("mesh/{at}"), &self.count.to_string());
                    self.published.entry(at).or_default().push((ticket, self.count));
                }
            }
            Event::Sync { at } => {
                world.sync(ALL[at]);
            }
            Event::Take { at, count } => {
                for _ in 0..count {
                    world.take(ALL[at]);
                }
            }
            Event::Carry { edge, way, count } => {
                for _ in 0..count {
                    world.carry(EDGES[edge], way);
                }
            }
            Event::Cut { edge } => world.cut(EDGES[edge]),
            Event::Mend { edge } => world.mend(EDGES[edge]),
            Event::Crash { at } => world.crash(ALL[at]),
            Event::Sleep { seconds } => world.sleep(Duration::from_secs(seconds)),
        }
    }

    /// All is well again, for long.
    fn end(&mut self) {
        for at in ALL {
            (self.world.machine(at).is_slow, self.world.machine(at).takes) = (false, true);
        }
        for _ in 0..4 {
            EDGES.into_iter().for_each(|edge| self.world.mend(edge));
            self.world.run();
            self.world.sleep(Duration::from_secs(31));
        }
        self.world.run();
    }

    /// What `to` heard of `from`.
    fn heard(&self, from: &str, to: &str) -> Vec<usize> {
        let prefix = format!("mesh/{from}=");
        self.world.heard(to).iter().filter_map(|text| text.strip_prefix(&prefix)?.parse().ok()).collect()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for from in ALL {
            let published = self.published.get(from).into_iter().flatten();
            let is_safe = |ticket| self.world.answer(from, ticket) == Some(Answer::Accepted);
            let safe: Vec<usize> =
                published.filter(|(ticket, _)| is_safe(*ticket)).map(|(_, number)| *number).collect();
            for to in ALL.into_iter().filter(|to| *to != from) {
                let heard = self.heard(from, to);
                prop_assert!(heard.is_sorted_by(|a, b| a < b), "{from} to {to}: {heard:?}");
                let missed: Vec<&usize> = safe.iter().filter(|number| !heard.contains(number)).collect();
                prop_assert!(missed.is_empty(), "{from} to {to}: {missed:?} missed of {heard:?}");
            }
            prop_assert_eq!(self.heard(from, from), Vec::<usize>::new());
        }
        prop_assert_eq!(self.world.keyspace(CLOUD).range("/c/mesh/log/").count(), 0, "nothing waits");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn each_acknowledged_message_comes_to_each_site_once_and_in_order(
        events in prop::collection::vec(event(), 0..300),
    ) {
        let mut run = Run::new();
        for event in &events {
            run.play(event);
        }
        run.end();
        run.check()?;
    }
}
