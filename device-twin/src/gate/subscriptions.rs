//! Who subscribed to what: a tree of topic levels, so that a message costs what its own levels cost, however many
//! filters there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bus::{Filter, Topic};

use super::{Qos, SessionId};

/// How one session subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    pub qos: Qos,
    /// Own messages are not wanted back.
    pub no_local: bool,
    /// The retain flag is to be passed on as the publisher set it.
    pub as_published: bool,
    pub identifier: Option<u32>,
}

/// A filter as its subscriber wrote it: alone, or with a group that shares the messages (MQTT 5.0 §4.8.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    pub group: Option<Box<str>>,
    pub filter: Filter,
}

/// What a message is to look like to one session that several of its subscriptions may want it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    pub session: SessionId,
    pub qos: Qos,
    pub as_published: bool,
    pub identifiers: Vec<u32>,
}

/// The members of one group at one filter; messages go round.
#[derive(Debug, Default)]
struct Group {
    members: BTreeMap<SessionId, Subscription>,
    last: Option<SessionId>,
}

impl Group {
    /// The next member in turn that is there; if none is, the next that will be.
    fn next(&mut self, is_there: &impl Fn(SessionId) -> bool) -> Option<(SessionId, Subscription)> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.members.range((after, Bound::Unbounded));
        let turn = || rest.clone().chain(self.members.iter());
        let (id, how) = turn().find(|(id, _)| is_there(**id)).or_else(|| turn().next())?;
        let chosen = (*id, *how);
        self.last = Some(chosen.0);
        Some(chosen)
    }
}

/// Who wants what comes to one place of the tree.
#[derive(Debug, Default)]
struct Wishes {
    alone: BTreeMap<SessionId, Subscription>,
    shared: BTreeMap<Box<str>, Group>,
}

impl Wishes {
    fn is_empty(&self) -> bool {
        self.alone.is_empty() && self.shared.is_empty()
    }

    /// Whether it replaced one.
    fn insert(&mut self, session: SessionId, group: Option<Box<str>>, how: Subscription) -> bool {
        match group {
            None => self.alone.insert(session, how).is_some(),
            Some(group) => self.shared.entry(group).or_default().members.insert(session, how).is_some(),
        }
    }

    fn remove(&mut self, session: SessionId, group: Option<&str>) {
        match group {
            None => drop(self.alone.remove(&session)),
            Some(name) => {
                if let Some(group) = self.shared.get_mut(name) {
                    group.members.remove(&session);
                    if group.members.is_empty() {
                        self.shared.remove(name);
                    }
                }
            }
        }
    }

    fn collect(&mut self, from: Option<SessionId>, is_there: &impl Fn(SessionId) -> bool, out: &mut Found) {
        out.places += usize::from(!self.is_empty());
        for (id, how) in &self.alone {
            if !(how.no_local && from == Some(*id)) {
                out.matches.push(found(*id, *how));
            }
        }
        for group in self.shared.values_mut() {
            out.matches.extend(group.next(is_there).map(|(id, how)| found(id, how)));
        }
    }
}

fn found(session: SessionId, how: Subscription) -> Match {
    let Subscription { qos, no_local: _, as_published, identifier } = how;
    Match { session, qos, as_published, identifiers: identifier.into_iter().collect() }
}

#[derive(Default)]
struct Found {
    matches: Vec<Match>,
    /// Places of the tree that gave any: with one, no session is in it twice unless by a group.
    places: usize,
}

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, Self>,
    /// Below `+`.
    any: Option<Box<Self>>,
    /// The filter ends here.
    here: Wishes,
    /// The filter ends here with `#`.
    rest: Wishes,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    fn place<'a>(&mut self, mut levels: impl Iterator<Item = &'a str>) -> &mut Wishes {
        match levels.next() {
            None => &mut self.here,
            Some("#") => &mut self.rest,
            Some("+") => self.any.get_or_insert_default().place(levels),
            Some(level) => self.children.entry(level.into()).or_default().place(levels),
        }
    }

    /// Takes the branch away with its last wish.
    fn remove<'a>(
        &mut self,
        mut levels: impl Iterator<Item = &'a str>,
        session: SessionId,
        group: Option<&str>,
    ) {
        match levels.next() {
            None => self.here.remove(session, group),
            Some("#") => self.rest.remove(session, group),
            Some("+") => {
                if let Some(any) = &mut self.any {
                    any.remove(levels, session, group);
                    self.any.take_if(|any| any.is_empty());
                }
            }
            Some(level) => {
                if let Some(child) = self.children.get_mut(level) {
                    child.remove(levels, session, group);
                    if child.is_empty() {
                        self.children.remove(level);
                    }
                }
            }
        }
    }

    fn collect<'a>(
        &mut self,
        mut levels: impl Iterator<Item = &'a str> + Clone,
        from: Option<SessionId>,
        is_there: &impl Fn(SessionId) -> bool,
        out: &mut Found,
    ) {
        self.rest.collect(from, is_there, out);
        let Some(level) = levels.next() else { return self.here.collect(from, is_there, out) };
        if let Some(any) = &mut self.any {
            any.collect(levels.clone(), from, is_there, out);
        }
        if let Some(child) = self.children.get_mut(level) {
            child.collect(levels, from, is_there, out);
        }
    }
}

/// What a subscribe changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribed {
    pub first_of_filter: bool,
    pub replaced: bool,
}

/// The table of subscriptions.
#[derive(Debug, Default)]
pub struct Subscriptions {
    root: Node,
    /// Below it hang the topics that begin with `$`, which no wildcard at the start matches (MQTT 5.0 §4.7.2).
    system: Node,
    /// How many subscriptions each filter has.
    filters: BTreeMap<Filter, usize>,
    by_session: BTreeMap<SessionId, BTreeMap<Wanted, Subscription>>,
}

impl Subscriptions {
    /// Different filters in use.
    pub fn count(&self) -> usize {
        self.filters.len()
    }

    pub fn of(&self, session: SessionId) -> impl Iterator<Item = (&Wanted, &Subscription)> {
        self.by_session.get(&session).into_iter().flatten()
    }

    fn side(&mut self, text: &str) -> &mut Node {
        if text.starts_with('$') { &mut self.system } else { &mut self.root }
    }

    pub fn subscribe(&mut self, session: SessionId, wanted: Wanted, how: Subscription) -> Subscribed {
        let text = wanted.filter.as_str();
        let place = self.side(text).place(text.split('/'));
        let replaced = place.insert(session, wanted.group.clone(), how);
        let count = self.filters.entry(wanted.filter.clone()).or_default();
        let first_of_filter = *count == 0;
        *count += usize::from(!replaced);
        self.by_session.entry(session).or_default().insert(wanted, how);
        Subscribed { first_of_filter, replaced }
    }

    /// The filter, if this was its last subscription.
    pub fn unsubscribe(&mut self, session: SessionId, wanted: &Wanted) -> Option<Filter> {
        let own = self.by_session.get_mut(&session)?;
        own.remove(wanted)?;
        if own.is_empty() {
            self.by_session.remove(&session);
        }
        self.take_out(session, wanted)
    }

    /// Filters that nobody subscribes to any more.
    pub fn remove_session(&mut self, session: SessionId) -> Vec<Filter> {
        let own: BTreeSet<Wanted> =
            self.by_session.remove(&session).unwrap_or_default().into_keys().collect();
        own.iter().filter_map(|wanted| self.take_out(session, wanted)).collect()
    }

    fn take_out(&mut self, session: SessionId, wanted: &Wanted) -> Option<Filter> {
        let text = wanted.filter.as_str();
        self.side(text).remove(text.split('/'), session, wanted.group.as_deref());
        let count = self.filters.get_mut(&wanted.filter)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.filters.remove(&wanted.filter);
        Some(wanted.filter.clone())
    }

    /// Who gets a message on this topic, each session once: at the highest QoS of its subscriptions that match, with
    /// the identifiers of all (MQTT 5.0 §3.3.4). Of a group one gets it, if possible one that `is_there`.
    pub fn matching(
        &mut self,
        topic: &Topic,
        from: Option<SessionId>,
        is_there: impl Fn(SessionId) -> bool,
    ) -> Vec<Match> {
        let text = topic.as_str();
        let mut out = Found::default();
        self.side(text).collect(text.split('/'), from, &is_there, &mut out);
        if out.places > 1 || out.matches.windows(2).any(|pair| pair[0].session >= pair[1].session) {
            merge(&mut out.matches);
        }
        out.matches
    }
}

fn merge(matches: &mut Vec<Match>) {
    matches.sort_by_key(|found| found.session);
    matches.dedup_by(|next, kept| {
        let same = next.session == kept.session;
        if same {
            kept.qos = kept.qos.max(next.qos);
            kept.as_published |= next.as_published;
            kept.identifiers.append(&mut next.identifiers);
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOW: Subscription =
        Subscription { qos: Qos::AtLeastOnce, no_local: false, as_published: false, identifier: None };

    fn alone(filter: &str) -> Wanted {
        Wanted { group: None, filter: Filter::new(filter).unwrap() }
    }

    fn shared(group: &str, filter: &str) -> Wanted {
        Wanted { group: Some(group.into()), ..alone(filter) }
    }

    fn who(table: &mut Subscriptions, topic: &str) -> Vec<u64> {
        let topic = Topic::new(topic).unwrap();
        table.matching(&topic, None, |_| true).into_iter().map(|found| found.session.0).collect()
    }

    #[test]
    fn one_message_serves_all_subscriptions_of_a_session() {
        let mut table = Subscriptions::default();
        let how = |qos, identifier| Subscription { qos, identifier: Some(identifier), ..HOW };
        table.subscribe(SessionId(1), alone("a/#"), how(Qos::AtMostOnce, 7));
        table.subscribe(SessionId(1), alone("a/+"), how(Qos::ExactlyOnce, 8));
        let topic = Topic::new("a/b").unwrap();
        let [found] = &table.matching(&topic, None, |_| true)[..] else { panic!() };
        assert_eq!((found.qos, &found.identifiers[..]), (Qos::ExactlyOnce, &[7, 8][..]));
    }

    #[test]
    fn a_group_takes_turns_among_those_who_are_there() {
        let mut table = Subscriptions::default();
        for id in [1, 2, 3] {
            table.subscribe(SessionId(id), shared("g", "a"), HOW);
        }
        let mut next = |there: &[u64]| {
            let found = table.matching(&Topic::new("a").unwrap(), None, |id| there.contains(&id.0));
            found.into_iter().map(|found| found.session.0).collect::<Vec<_>>()
        };
        assert_eq!(
            [next(&[1, 2, 3]), next(&[1, 2, 3]), next(&[1, 2, 3]), next(&[1, 2, 3])].concat(),
            [1, 2, 3, 1]
        );
        assert_eq!([next(&[1, 3]), next(&[1, 3]), next(&[])].concat(), [3, 1, 2]);
    }

    #[test]
    fn a_filter_ends_with_its_last_subscription_and_leaves_nothing_behind() {
        let mut table = Subscriptions::default();
        assert!(table.subscribe(SessionId(1), alone("a/+/#"), HOW).first_of_filter);
        assert!(!table.subscribe(SessionId(2), shared("g", "a/+/#"), HOW).first_of_filter);
        assert!(table.subscribe(SessionId(2), shared("g", "a/+/#"), HOW).replaced);
        assert_eq!(table.unsubscribe(SessionId(1), &shared("g", "a/+/#")), None);
        assert_eq!(table.unsubscribe(SessionId(1), &alone("a/+/#")), None);
        assert_eq!(table.remove_session(SessionId(2)), [Filter::new("a/+/#").unwrap()]);
        assert!(table.root.is_empty() && table.by_session.is_empty() && table.filters.is_empty());
    }

    #[test]
    fn own_messages_come_back_unless_all_subscriptions_refuse_them() {
        let mut table = Subscriptions::default();
        table.subscribe(SessionId(1), alone("a"), Subscription { no_local: true, ..HOW });
        let topic = Topic::new("a").unwrap();
        assert_eq!(table.matching(&topic, Some(SessionId(1)), |_| true), []);
        table.subscribe(SessionId(1), alone("#"), HOW);
        assert_eq!(table.matching(&topic, Some(SessionId(1)), |_| true).len(), 1);
    }

    #[test]
    fn wildcards_at_the_start_do_not_match_system_topics() {
        let mut table = Subscriptions::default();
        table.subscribe(SessionId(1), alone("#"), HOW);
        table.subscribe(SessionId(2), alone("+/x"), HOW);
        table.subscribe(SessionId(3), alone("$hw/#"), HOW);
        assert_eq!(who(&mut table, "$hw/x"), [3]);
        assert_eq!(who(&mut table, "hw/x"), [1, 2]);
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[a-c$ä]{1,2}"]
    }

    proptest! {
        #[test]
        fn the_tree_matches_as_the_standard_does(
            topics in proptest::collection::vec(proptest::collection::vec(level(), 1..5), 1..6),
            filters in proptest::collection::vec(
                (proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+".into())], 0..5), any::<bool>()),
                1..12,
            ),
        ) {
            let mut table = Subscriptions::default();
            let mut all = Vec::new();
            for (id, (mut levels, rest)) in (1..).zip(filters) {
                if rest { levels.push("#".into()); }
                let Ok(filter) = Filter::new(&levels.join("/")) else { continue };
                table.subscribe(SessionId(id), Wanted { group: None, filter: filter.clone() }, HOW);
                all.push((id, filter));
            }
            for levels in topics {
                let Ok(topic) = Topic::new(&levels.join("/")) else { continue };
                let expected: Vec<u64> =
                    all.iter().filter(|(_, filter)| filter.matches(&topic)).map(|(id, _)| *id).collect();
                prop_assert_eq!(who(&mut table, topic.as_str()), expected);
            }
            for (id, _) in all {
                table.remove_session(SessionId(id));
            }
            prop_assert!(table.root.is_empty() && table.system.is_empty());
        }
    }
}
