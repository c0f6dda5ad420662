//! MQTT topic names and filters (MQTT 5.0 §4.7), checked once.

use std::borrow::Borrow;
use std::fmt;

use minicbor::{Decode, Encode};
use thiserror::Error;

/// Longest topic or filter in bytes; the standard allows 65,535, deep trees only cost others time.
pub const MAX_TOPIC_LEN: usize = 1024;

/// Most levels of a topic or filter; bounds the work of one match.
pub const MAX_TOPIC_LEVELS: usize = 64;

/// Why a text is no topic or filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidTopic {
    #[error("empty")]
    Empty,
    #[error("longer than {MAX_TOPIC_LEN} bytes or {MAX_TOPIC_LEVELS} levels")]
    TooLong,
    #[error("contains a NUL or control character")]
    Control,
    #[error("'+' and '#' are for subscriptions only")]
    Wildcard,
    #[error("'+' stands for a whole level, '#' for the whole rest at the end")]
    Misplaced,
}

fn check(text: &str) -> Result<(), InvalidTopic> {
    if text.is_empty() {
        return Err(InvalidTopic::Empty);
    }
    if text.len() > MAX_TOPIC_LEN || text.bytes().filter(|b| *b == b'/').count() >= MAX_TOPIC_LEVELS {
        return Err(InvalidTopic::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidTopic::Control);
    }
    Ok(())
}

/// A topic name: what a message is published to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Box<str>);

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Topic {
    pub fn new(text: &str) -> Result<Self, InvalidTopic> {
        check(text)?;
        if text.contains(['+', '#']) {
            return Err(InvalidTopic::Wildcard);
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A topic filter: what a subscriber asks for. Shared subscriptions are the broker's affair and not known here.
///
/// ```
/// use bus::{Filter, Topic};
/// let filter = Filter::new("twin/+/tank/#")?;
/// assert!(filter.matches(&Topic::new("twin/water/tank/reported/level")?));
/// assert!(!filter.matches(&Topic::new("twin/water/valve/reported/position")?));
/// # Ok::<(), bus::topic::InvalidTopic>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter(Box<str>);

impl Filter {
    pub fn new(text: &str) -> Result<Self, InvalidTopic> {
        check(text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let whole = matches!(level, "+" | "#");
            if (level.contains(['+', '#']) && !whole) || (level == "#" && levels.peek().is_some()) {
                return Err(InvalidTopic::Misplaced);
            }
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// MQTT 5.0 §4.7.1 and §4.7.2: a wildcard at the start does not match a topic that begins with `$`.
    pub fn matches(&self, topic: &Topic) -> bool {
        if topic.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.0.split('/');
        for level in self.0.split('/') {
            match (level, names.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

macro_rules! text_newtype {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::str::FromStr for $type {
            type Err = InvalidTopic;
            fn from_str(text: &str) -> Result<Self, InvalidTopic> {
                Self::new(text)
            }
        }
        impl<C> Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::new(d.str()?).map_err(minicbor::decode::Error::custom)
            }
        }
    };
}
text_newtype!(Topic);
text_newtype!(Filter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        let table = [
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
        ];
        for (filter, topic, expected) in table {
            let (f, t) = (Filter::new(filter).unwrap(), Topic::new(topic).unwrap());
            assert_eq!(f.matches(&t), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn malformed_filters_and_topics_are_refused() {
        for bad in ["#/a", "a#", "+a", "a/b#", "a/#/b", "", "a\0b"] {
            assert!(Filter::new(bad).is_err(), "{bad:?}");
        }
        for bad in ["a/+", "#", "", "a\0", &"/".repeat(64), &"x".repeat(1025)] {
            assert!(Topic::new(bad).is_err(), "{bad:?}");
        }
        assert!(Topic::new("größe/ünïcode").is_ok());
    }
}
