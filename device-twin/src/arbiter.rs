//! Who moves an actuator: a 16-slot priority array, after BACnet's (ANSI/ASHRAE 135 §19.2).
//!
//! Everybody who has something to say holds one slot; the lowest number that is filled and not expired wins; when
//! nobody says anything, the fail-safe value holds (BACnet's relinquish default).
//!
//! | slot | who |
//! |---|---|
//! | 1 | manual emergency |
//! | 2 | automatic safety interlock |
//! | 5 | equipment protection |
//! | 8 | local operator |
//! | 10 | local rule |
//! | 12 | command |
//! | 14 | desired value |
//! | 16 | schedule |

use std::fmt;

use bus::{Mono, Value};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A place in the array, 1 (strongest) to 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Slot(u8);

/// A number that is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} is no slot: 1 (strongest) to 16")]
pub struct InvalidSlot(u8);

impl Slot {
    /// The last of those that move an actuator without regard to its minimum times.
    pub const PROTECTION: Self = Self(5);
    pub const LOCAL_OPERATOR: Self = Self(8);
    pub const LOCAL_RULE: Self = Self(10);
    pub const COMMAND: Self = Self(12);
    pub const DESIRED: Self = Self(14);

    pub fn new(number: u8) -> Result<Self, InvalidSlot> {
        if (1..=16).contains(&number) { Ok(Self(number)) } else { Err(InvalidSlot(number)) }
    }

    /// Whose slot this is, if no rule may fill it: it would let go of what they put there.
    pub fn reserved(self) -> Option<&'static str> {
        match self {
            Self::LOCAL_OPERATOR => Some("the local operator"),
            Self::COMMAND => Some("commands"),
            Self::DESIRED => Some("desired values"),
            _ => None,
        }
    }
}

impl TryFrom<u8> for Slot {
    type Error = InvalidSlot;
    fn try_from(number: u8) -> Result<Self, InvalidSlot> {
        Self::new(number)
    }
}

impl From<Slot> for u8 {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// What one slot says.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<Owner> {
    pub value: Value,
    pub owner: Owner,
    /// From then on the slot is empty. `None`: until relinquished.
    pub expires: Option<Mono>,
}

/// The winner.
#[derive(Debug, PartialEq)]
pub enum Effective<'a, Owner> {
    Slot(Slot, &'a Entry<Owner>),
    /// Nobody says anything.
    FailSafe(&'a Value),
}

impl<Owner> Effective<'_, Owner> {
    pub fn value(&self) -> &Value {
        match self {
            Self::Slot(_, entry) => &entry.value,
            Self::FailSafe(value) => value,
        }
    }
}

/// The slots of one property that are filled, strongest first. `Owner` says who filled a slot and why. Most properties
/// have none filled, and one that is empty costs nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct PriorityArray<Owner> {
    filled: Vec<(Slot, Entry<Owner>)>,
}

impl<Owner> Default for PriorityArray<Owner> {
    fn default() -> Self {
        Self { filled: Vec::new() }
    }
}

impl<Owner> PriorityArray<Owner> {
    /// Fills `slot`; what was in it is gone.
    pub fn set(&mut self, slot: Slot, entry: Entry<Owner>) {
        match self.find(slot) {
            Ok(at) => self.filled[at].1 = entry,
            Err(at) => self.filled.insert(at, (slot, entry)),
        }
    }

    /// Empties `slot` and gives back what was in it.
    pub fn relinquish(&mut self, slot: Slot) -> Option<Entry<Owner>> {
        let at = self.find(slot).ok()?;
        Some(self.filled.remove(at).1)
    }

    /// Lets what is in `slot` hold at least until `until`.
    pub fn prolong(&mut self, slot: Slot, until: Mono) {
        if let Ok(at) = self.find(slot) {
            let expires = &mut self.filled[at].1.expires;
            *expires = expires.map(|expires| expires.max(until));
        }
    }

    pub fn get(&self, slot: Slot) -> Option<&Entry<Owner>> {
        self.find(slot).ok().map(|at| &self.filled[at].1)
    }

    fn find(&self, slot: Slot) -> Result<usize, usize> {
        self.filled.binary_search_by_key(&slot, |(slot, _)| *slot)
    }

    /// Empties every slot whose time is over, strongest first.
    pub fn expire(&mut self, now: Mono) -> Vec<(Slot, Entry<Owner>)> {
        self.filled.extract_if(.., |(_, entry)| entry.expires.is_some_and(|at| at <= now)).collect()
    }

    /// The strongest entry that holds at `now`, else the fail-safe value, else nothing.
    pub fn effective<'a>(&'a self, fail_safe: Option<&'a Value>, now: Mono) -> Option<Effective<'a, Owner>> {
        match self.filled.iter().find(|(_, entry)| entry.expires.is_none_or(|at| at > now)) {
            Some((slot, entry)) => Some(Effective::Slot(*slot, entry)),
            None => fail_safe.map(Effective::FailSafe),
        }
    }

    /// When the next entry expires.
    pub fn next_expiry(&self) -> Option<Mono> {
        self.filled.iter().filter_map(|(_, entry)| entry.expires).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(value: i64, expires: Option<u64>) -> Entry<&'static str> {
        Entry { value: Value::Int(value), owner: "test", expires: expires.map(Mono) }
    }

    fn slot(number: u8) -> Slot {
        Slot::new(number).unwrap()
    }

    #[test]
    fn the_lowest_slot_wins_and_relinquishing_gives_way() {
        let mut array = PriorityArray::default();
        array.set(slot(14), entry(1, None));
        array.set(slot(2), entry(2, None));
        assert_eq!(array.effective(None, Mono(0)), Some(Effective::Slot(slot(2), &entry(2, None))));
        assert_eq!(array.relinquish(slot(2)), Some(entry(2, None)));
        assert_eq!(array.effective(None, Mono(0)), Some(Effective::Slot(slot(14), &entry(1, None))));
    }

    #[test]
    fn an_expired_entry_says_nothing_even_before_it_is_swept() {
        let mut array = PriorityArray::default();
        array.set(slot(10), entry(1, Some(5)));
        let safe = Value::Int(100);
        assert_eq!(array.effective(Some(&safe), Mono(4)).map(|e| e.value().clone()), Some(Value::Int(1)));
        assert_eq!(array.effective(Some(&safe), Mono(5)), Some(Effective::FailSafe(&safe)));
        assert_eq!(array.next_expiry(), Some(Mono(5)));
        assert_eq!(array.expire(Mono(5)), [(slot(10), entry(1, Some(5)))]);
        assert_eq!(array, PriorityArray::default());
    }

    #[test]
    fn there_are_sixteen_slots() {
        assert_eq!(Slot::new(0), Err(InvalidSlot(0)));
        assert_eq!(Slot::new(17), Err(InvalidSlot(17)));
        assert_eq!(serde_json::from_str::<Slot>("10").unwrap(), Slot::LOCAL_RULE);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set { slot: u8, value: i64, expires: Option<u64> },
        Relinquish(u8),
        Expire,
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u8..=16, 0i64..5, prop::option::of(0u64..60)).prop_map(|(slot, value, expires)| Step::Set {
                slot,
                value,
                expires
            }),
            (1u8..=16).prop_map(Step::Relinquish),
            Just(Step::Expire),
            (0u64..10).prop_map(Step::Pass),
        ]
    }

    /// The reference: a list of all that was ever said, read from the end.
    #[derive(Default)]
    struct Naive(Vec<(u8, Said)>);

    /// A value and its expiry, or nothing.
    type Said = Option<(i64, Option<u64>)>;

    impl Naive {
        fn effective(&self, now: u64) -> Option<(u8, i64)> {
            (1..=16).find_map(|slot| {
                let (_, last) = self.0.iter().rev().find(|(s, _)| *s == slot)?;
                let (value, expires) = (*last)?;
                expires.is_none_or(|at| at > now).then_some((slot, value))
            })
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_naive_reading_of_history(steps in prop::collection::vec(step(), 0..60)) {
            let (mut array, mut naive, mut now) = (PriorityArray::default(), Naive::default(), 0);
            let safe = Value::Int(-1);
            for step in steps {
                match step {
                    Step::Set { slot: s, value, expires } => {
                        array.set(slot(s), entry(value, expires));
                        naive.0.push((s, Some((value, expires))));
                    }
                    Step::Relinquish(s) => {
                        array.relinquish(slot(s));
                        naive.0.push((s, None));
                    }
                    Step::Expire => {
                        array.expire(Mono(now));
                    }
                    Step::Pass(by) => now += by,
                }
                let expected = naive.effective(now).map_or((0, -1), |(s, v)| (s, v));
                let got = match array.effective(Some(&safe), Mono(now)) {
                    Some(Effective::Slot(s, e)) => (u8::from(s), e.value.as_f64().unwrap() as i64),
                    Some(Effective::FailSafe(_)) => (0, -1),
                    None => panic!("a fail-safe is given"),
                };
                prop_assert_eq!(got, expected);
            }
        }
    }
}
