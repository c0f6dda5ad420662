//! Times in whole microseconds, as the rule log writes them.

/// Points on the monotonic clock.
pub(super) mod mono {
    use bus::Mono;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::rule) fn serialize<S: Serializer>(at: &Option<Mono>, to: S) -> Result<S::Ok, S::Error> {
        at.map(|at| at.0).serialize(to)
    }

    pub(in crate::rule) fn deserialize<'de, D>(from: D) -> Result<Option<Mono>, D::Error>
    where
        D: Deserializer<'de>,
    {
        Ok(Option::<u64>::deserialize(from)?.map(Mono))
    }
}

/// Lengths of time; of those beyond half a million years only that they are long.
pub(super) mod span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::rule) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        span.map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX)).serialize(to)
    }

    pub(in crate::rule) fn deserialize<'de, D>(from: D) -> Result<Option<Duration>, D::Error>
    where
        D: Deserializer<'de>,
    {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_micros))
    }
}
