//! Whether one topic filter lies within another.

use bus::Filter;

/// Whether every topic that `wanted` matches is matched by `allowed`, by the rules of [`Filter::matches`]
/// (MQTT 5.0 §4.7).
///
/// ```
/// use bus::Filter;
/// use device_twin::gate::access::cover::covers;
/// let filter = |text| Filter::new(text).unwrap();
/// assert!(covers(&filter("plant/#"), &filter("plant/+/level")));
/// assert!(!covers(&filter("plant/+"), &filter("plant/#")));
/// ```
pub fn covers(allowed: &Filter, wanted: &Filter) -> bool {
    let (allowed, wanted) = (allowed.as_str(), wanted.as_str());
    // A wildcard at the start does not reach topics that begin with '$'.
    if wanted.starts_with('$') && allowed.starts_with(['+', '#']) {
        return false;
    }
    // No topic is empty: '#' alone matches what '+/#' matches, and '/#' what '/+/#' does.
    let wanted = match wanted {
        "#" => "+/#",
        "/#" => "/+/#",
        other => other,
    };
    let mut wanted = wanted.split('/');
    for level in allowed.split('/') {
        match (level, wanted.next()) {
            ("#", _) => return true,
            ("+", Some(other)) if other != "#" => {}
            (level, Some(other)) if level == other && level != "+" => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use bus::Topic;
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::new(text).unwrap()
    }

    #[test]
    fn a_filter_covers_what_is_no_wider_than_itself() {
        let table = [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a", "a/b", false),
            ("a/b", "a", false),
            ("#", "#", true),
            ("#", "+", true),
            ("#", "a/+/#", true),
            ("#", "$SYS/#", false),
            ("+/#", "#", true),
            ("+/+/#", "#", false),
            ("+/+/#", "/#", true),
            ("+/b", "$SYS/b", false),
            ("$SYS/#", "$SYS/#", true),
            ("+", "#", false),
            ("+", "a", true),
            ("a", "+", false),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/#", "#", false),
            ("a/#", "+/b", false),
            ("a/+", "a/#", false),
            ("a/+/#", "a/#", false),
            ("a/+/#", "a/b", true),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/+/c", true),
            ("a/b/c", "a/+/c", false),
            ("a/+", "a/", true),
        ];
        for (allowed, wanted, expected) in table {
            assert_eq!(covers(&filter(allowed), &filter(wanted)), expected, "{allowed} covers {wanted}");
        }
    }

    fn any_filter() -> impl Strategy<Value = Filter> {
        let level = prop::sample::select(vec!["a", "b", "+", "", "$s"]);
        (prop::collection::vec(level, 0..4), any::<bool>()).prop_filter_map("empty", |(mut levels, rest)| {
            levels.extend(rest.then_some("#"));
            Filter::new(&levels.join("/")).ok()
        })
    }

    /// All topics of up to four levels over an alphabet that has a name the filters do not know.
    fn topics() -> Vec<Topic> {
        let mut texts: Vec<String> = ["a", "b", "z", "", "$s"].map(str::to_owned).into();
        let mut all = texts.clone();
        for _ in 0..3 {
            texts = texts
                .iter()
                .flat_map(|text| ["a", "b", "z", "", "$s"].map(|level| format!("{text}/{level}")))
                .collect();
            all.extend(texts.iter().cloned());
        }
        all.iter().filter_map(|text| Topic::new(text).ok()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// Filters have up to four levels with '#', so that topics of four tell any two of them apart.
        #[test]
        fn covering_is_matching_whatever_the_other_matches(allowed in any_filter(), wanted in any_filter()) {
            let within = topics().iter().all(|topic| !wanted.matches(topic) || allowed.matches(topic));
            prop_assert_eq!(covers(&allowed, &wanted), within, "{} covers {}", allowed, wanted);
        }
    }
}
