//! The sync under a model checker: every order of events within a budget, with the cores themselves.
//!
//! A state is a cloud and an edge as [`crate::Feed`] and [`crate::Replica`] run in a node (keyspace, disk, what waits
//! for the disk), the messages under way, and how many faults may still happen ([`action::Budget`]). From the first
//! state on, the checker takes every action that is possible, in every order, and looks at each state once.
//!
//! | always | looked at in |
//! |---|---|
//! | the applied position never goes back within one history of the cloud | [`oracle`] |
//! | the edge's copy is what the cloud said at the applied position: the fold of its commits | |
//! | what was written in one commit is never seen apart | |
//! | what the cloud took is never taken again, nor out of order | |
//! | a cloud of a lower epoch is not followed, no copy needs to be mended, a disk that is no copy keeps its life | |
//! | queues are bounded | |
//! | neither side takes the other for a liar | |
//! | once faults and writes end, both sides agree within a bound of steps | [`drain`] |
//!
//! Time stands still but for [`action::Action::Wait`]; randomness is the number of starts, so that equal states merge.
//! What the budgets are too small for, the simulation of `two_parties` goes through by chance.

mod action;
mod courses;
mod drain;
mod oracle;
mod plant;
mod print;
mod state;
mod step;

use std::io::Write as _;

use bus::Class;
use stateright::{Checker, HasDiscoveries, Model, Property};

use self::action::{Action, Budget, Wish, possible};
use self::courses::Course;
use self::drain::Ways;
use self::oracle::Broken;
use self::plant::Plant;
use self::state::State;

/// A course with one of its budgets.
#[derive(Debug)]
struct Sync {
    name: &'static str,
    wishes: &'static [Wish],
    classes: &'static [Class],
    pipeline: usize,
    budget: Budget,
    plant: Option<Plant>,
    ways: Ways,
}

impl Sync {
    fn new(course: &Course, budget: Budget, plant: Option<Plant>) -> Self {
        let Course { name, wishes, classes, pipeline, .. } = *course;
        Self { name, wishes, classes, pipeline, budget, plant, ways: Ways::default() }
    }
}

impl Model for Sync {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.budget, self.pipeline, self.plant)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_none() {
            actions.extend(possible(state, self.wishes, self.classes));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        Some(state.after(action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(FORWARD, |_: &Self, state: &State| state.broken != Some(Broken::WentBack)),
            Property::always(FOLD, |_: &Self, state: &State| state.broken != Some(Broken::NotTheFold)),
            Property::always(WHOLE, |_: &Self, state: &State| state.broken != Some(Broken::SeenApart)),
            Property::always(ONCE, |_: &Self, state: &State| state.broken != Some(Broken::TakenTwice)),
            Property::always(EPOCH, |_: &Self, state: &State| state.broken != Some(Broken::LowerEpoch)),
            Property::always(SOUND, |_: &Self, state: &State| state.broken != Some(Broken::Damaged)),
            Property::always(KEPT, |_: &Self, state: &State| state.broken != Some(Broken::Renewed)),
            Property::always(BOUNDED, |_: &Self, state: &State| state.broken != Some(Broken::Unbounded)),
            Property::always(HONEST, |_: &Self, state: &State| state.broken != Some(Broken::Blamed)),
            Property::always(AGREE, |sync: &Self, state: &State| {
                state.broken.is_some() || sync.ways.ends(state)
            }),
        ]
    }
}

const FORWARD: &str = "the applied position never goes back";
const FOLD: &str = "the copy is the fold of the cloud's commits";
const WHOLE: &str = "what was written together is seen together";
const ONCE: &str = "what was taken is not taken again";
const EPOCH: &str = "no cloud of a lower epoch is followed";
const SOUND: &str = "no copy needs to be mended";
const KEPT: &str = "a disk that is no copy keeps its incarnation";
const BOUNDED: &str = "queues are bounded";
const HONEST: &str = "nobody is taken for a liar";
const AGREE: &str = "once faults end, both sides agree";

/// Looks at every state within the budget, or the nearest `limit`, and says how far it came; a property that is not
/// held is shown with the events that lead there.
fn check(course: &Course, budget: Budget, limit: usize) {
    let checker = Sync::new(course, budget, None).checker().finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.target_state_count(limit).spawn_bfs().join();
    let (sync, states, found) = (checker.model(), checker.state_count(), checker.discoveries());
    let line = format!(
        "model, {}: {} {states} states, {} unique, depth {}, {} properties hold, agreed after at most {} steps\n",
        sync.name,
        if states < limit { "all" } else { "the nearest" },
        checker.unique_state_count(),
        checker.max_depth(),
        sync.properties().len() - found.len(),
        sync.ways.longest(),
    );
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    if let Some((property, path)) = found.into_iter().next() {
        panic!("not held: {property}, after {:?}", path.into_actions());
    }
}
