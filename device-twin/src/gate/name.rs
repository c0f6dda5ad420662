//! Topics as names for rumqttd's router.
//!
//! rumqttd 0.20 panics on a topic whose first character is not ASCII, and refuses or skips those that begin with
//! `$`. So each level is percent-encoded down to printable ASCII without `$` and `%`, and all hang below two roots.
//! Wildcards stay: a filter's name matches a topic's name exactly if the filter matches the topic.

use std::fmt::Write;

use bus::{Filter, Topic};

/// Where clients' topics hang.
const ROOT: &str = "m/";

/// Where those hang that begin with `$`: a wildcard at the start of a filter does not match them (MQTT 5.0 §4.7.2).
const SYSTEM_ROOT: &str = "s/";

/// The topic on which the broker itself marks the end of a batch; outside the roots, so that no client hears it.
pub const MARKER: &str = "k";

pub fn of_topic(topic: &Topic) -> String {
    encode(topic.as_str())
}

pub fn of_filter(filter: &Filter) -> String {
    encode(filter.as_str())
}

fn encode(text: &str) -> String {
    let root = if text.starts_with('$') { SYSTEM_ROOT } else { ROOT };
    let mut name = String::with_capacity(root.len() + text.len());
    name.push_str(root);
    for byte in text.bytes() {
        match byte {
            b'%' | b'$' | 0..=0x1f | 0x7f..=0xff => {
                let _ = write!(name, "%{byte:02X}");
            }
            plain => name.push(char::from(plain)),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_plain_ascii() {
        let name = of_topic(&Topic::new("$größe/100%/a b").unwrap());
        assert_eq!(name, "s/%24gr%C3%B6%C3%9Fe/100%25/a b");
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[a-c$%ä]{1,2}", Just("%24".into()), Just("日本".into())]
    }

    proptest! {
        #[test]
        fn two_topics_have_two_names(
            a in proptest::collection::vec(level(), 1..4),
            b in proptest::collection::vec(level(), 1..4),
        ) {
            let (Ok(a), Ok(b)) = (Topic::new(&a.join("/")), Topic::new(&b.join("/"))) else { return Ok(()) };
            prop_assert_eq!(a == b, of_topic(&a) == of_topic(&b));
        }
    }

    #[cfg(feature = "io")]
    proptest! {
        #[test]
        fn the_router_matches_names_as_the_standard_matches_topics(
            topic in proptest::collection::vec(level(), 1..5),
            filter in proptest::collection::vec(prop_oneof![level(), Just("+".into())], 0..5),
            rest in any::<bool>(),
        ) {
            let mut filter = filter;
            if rest { filter.push("#".into()); }
            let (Ok(topic), Ok(filter)) = (Topic::new(&topic.join("/")), Filter::new(&filter.join("/"))) else {
                return Ok(());
            };
            prop_assert_eq!(
                rumqttd::protocol::matches(&of_topic(&topic), &of_filter(&filter)),
                filter.matches(&topic)
            );
        }
    }
}
