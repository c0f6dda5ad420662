//! Who gets what a client publishes, and what it may subscribe to.

use bus::twin::{MapperTopic, TwinTopic};
use bus::{Filter, Topic};
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, PubackReasonCode, PubrecReasonCode, SubackReasonCode,
};
use thiserror::Error;

use super::subscriptions::Wanted;
use crate::kubeedge::{self, HwTopic};

/// Who gets a client's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Subscribers of this broker; acknowledged at once.
    Local,
    /// The node alone; acknowledged when the node has it safe.
    Node,
    /// Both; acknowledged when the node has it safe.
    Both,
}

impl Route {
    pub fn reaches_node(self) -> bool {
        matches!(self, Self::Node | Self::Both)
    }

    pub fn reaches_subscribers(self) -> bool {
        matches!(self, Self::Local | Self::Both)
    }
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Refusal {
    #[error("only nodes publish here")]
    NodesOnly,
    #[error("no such topic below twin/ or mapper/")]
    UnknownShape,
    #[error("this client has no right to this topic")]
    NotAllowed,
    #[error("of topics that begin with '$' only KubeEdge's are served")]
    System,
    #[error("no topic of KubeEdge's that is served here")]
    UnknownKubeEdge,
    #[error("nothing is forwarded to KubeEdge's cloud; publish below mesh/ for other sites")]
    Upload,
    #[error("a wish or command must not be retained: it would act again long after it was meant")]
    RetainedWish,
    #[error("this broker holds as much as it may")]
    Quota,
    #[error("the node could not read the payload")]
    Payload,
    #[error("the node's disk refuses writes: what was published may be forgotten")]
    Disk,
}

impl Refusal {
    /// MQTT 5.0 §3.4.2.1.
    pub fn puback(self) -> PubackReasonCode {
        match self {
            Self::NodesOnly | Self::NotAllowed | Self::System => PubackReasonCode::NotAuthorized,
            Self::UnknownShape | Self::UnknownKubeEdge | Self::Upload => PubackReasonCode::TopicNameInvalid,
            Self::RetainedWish | Self::Disk => PubackReasonCode::ImplementationSpecificError,
            Self::Quota => PubackReasonCode::QuotaExceeded,
            Self::Payload => PubackReasonCode::PayloadFormatInvalid,
        }
    }

    /// MQTT 5.0 §3.5.2.1.
    pub fn pubrec(self) -> PubrecReasonCode {
        match self {
            Self::NodesOnly | Self::NotAllowed | Self::System => PubrecReasonCode::NotAuthorized,
            Self::UnknownShape | Self::UnknownKubeEdge | Self::Upload => PubrecReasonCode::TopicNameInvalid,
            Self::RetainedWish | Self::Disk => PubrecReasonCode::ImplementationSpecificError,
            Self::Quota => PubrecReasonCode::QuotaExceeded,
            Self::Payload => PubrecReasonCode::PayloadFormatInvalid,
        }
    }

    /// For a will that would be refused (MQTT 5.0 §3.2.2.2).
    pub fn connack(self) -> ConnectReasonCode {
        match self {
            Self::NodesOnly | Self::NotAllowed | Self::System => ConnectReasonCode::NotAuthorized,
            Self::UnknownShape | Self::UnknownKubeEdge | Self::Upload => ConnectReasonCode::TopicNameInvalid,
            Self::RetainedWish | Self::Disk => ConnectReasonCode::ImplementationSpecificError,
            Self::Quota => ConnectReasonCode::QuotaExceeded,
            Self::Payload => ConnectReasonCode::PayloadFormatInvalid,
        }
    }
}

/// The rules, first match wins:
/// 1. of what begins with `$`, KubeEdge's questions and reports go to the node alone and its mappers' `$ke/../data/update`
///    to subscribers here; the rest is refused;
/// 2. below `twin/`: unknown shapes are refused, then what only nodes may say, then retained `set` and `command`;
///    the rest goes to the node alone, which publishes what becomes of it;
/// 3. below `mapper/`: unknown shapes and what only nodes may say are refused; a `result` goes to the node alone,
///    a `state` to both, a `health` stays in this broker;
/// 4. `mesh/...` goes to both;
/// 5. everything else stays in this broker.
pub fn route(topic: &Topic, retain: bool) -> Result<Route, Refusal> {
    match topic.as_str().split('/').next().unwrap_or_default() {
        "$hw" => route_kubeedge(topic),
        "$ke" if kubeedge::is_data_update(topic) => Ok(Route::Local),
        "$ke" => Err(Refusal::UnknownKubeEdge),
        system if system.starts_with('$') => Err(Refusal::System),
        "twin" => route_twin(&TwinTopic::parse(topic).ok_or(Refusal::UnknownShape)?, retain),
        "mapper" => route_mapper(&MapperTopic::parse(topic).ok_or(Refusal::UnknownShape)?),
        "mesh" => Ok(Route::Both),
        _ => Ok(Route::Local),
    }
}

fn route_kubeedge(topic: &Topic) -> Result<Route, Refusal> {
    match HwTopic::parse(topic.as_str()) {
        Some(topic) if topic.answer().is_some() => Ok(Route::Node),
        Some(_) => Err(Refusal::NodesOnly),
        None if topic.as_str().starts_with("$hw/events/upload/") => Err(Refusal::Upload),
        None => Err(Refusal::UnknownKubeEdge),
    }
}

fn route_twin(topic: &TwinTopic, retain: bool) -> Result<Route, Refusal> {
    let wish = matches!(topic, TwinTopic::Set { .. } | TwinTopic::Command { .. });
    match (topic.is_nodes_only(), wish && retain) {
        (true, _) => Err(Refusal::NodesOnly),
        (false, true) => Err(Refusal::RetainedWish),
        (false, false) => Ok(Route::Node),
    }
}

fn route_mapper(topic: &MapperTopic) -> Result<Route, Refusal> {
    match topic {
        MapperTopic::Config { .. } | MapperTopic::Write { .. } => Err(Refusal::NodesOnly),
        MapperTopic::Result { .. } => Ok(Route::Node),
        MapperTopic::State { .. } => Ok(Route::Both),
        MapperTopic::Health { .. } => Ok(Route::Local),
    }
}

/// What begins with `$` and can be subscribed to. Nothing is published below `$SYS`: brokers mostly have it, and clients
/// ask for it.
const SYSTEM_TREES: [&str; 3] = ["$hw", "$ke", "$SYS"];

/// Checks what a client wants to subscribe to (MQTT 5.0 §3.9.3 for the codes).
pub fn subscribable(text: &str) -> Result<Wanted, SubackReasonCode> {
    let (group, text) = match text.strip_prefix("$share/") {
        None => (None, text),
        Some(rest) => {
            let (group, filter) = rest.split_once('/').ok_or(SubackReasonCode::TopicFilterInvalid)?;
            if group.is_empty() || group.contains(['+', '#']) {
                return Err(SubackReasonCode::TopicFilterInvalid);
            }
            (Some(group.into()), filter)
        }
    };
    let first = text.split('/').next().unwrap_or_default();
    if text.starts_with('$') && !SYSTEM_TREES.contains(&first) {
        return Err(SubackReasonCode::NotAuthorized);
    }
    let filter = Filter::new(text).map_err(|_| SubackReasonCode::TopicFilterInvalid)?;
    Ok(Wanted { group, filter })
}

/// Whether the node wants to know of this filter: other sites may have something for it, or it is one of KubeEdge's.
pub fn concerns_node(filter: &Filter) -> bool {
    concerns_other_sites(filter) || kubeedge::is_served(filter.as_str())
}

/// Whether other sites may have something for this filter: it can match below `twin/` or `mesh/`.
pub fn concerns_other_sites(filter: &Filter) -> bool {
    let first = filter.as_str().split('/').next().unwrap_or_default();
    matches!(first, "twin" | "mesh" | "+" | "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_topic_has_its_route() {
        let table = [
            ("plain/topic", true, Ok(Route::Local)),
            ("größe", false, Ok(Route::Local)),
            ("mesh/x", true, Ok(Route::Both)),
            ("twin/w/tank/set/level", false, Ok(Route::Node)),
            ("twin/w/tank/set/level", true, Err(Refusal::RetainedWish)),
            ("twin/w/tank/command/reset", true, Err(Refusal::RetainedWish)),
            ("twin/w/tank/report/level", true, Ok(Route::Node)),
            ("twin/w/tank/report", false, Ok(Route::Node)),
            ("twin/w/tank/reported/level", false, Err(Refusal::NodesOnly)),
            ("twin/w/tank/desired/level", true, Err(Refusal::NodesOnly)),
            ("twin/w/tank/result", false, Err(Refusal::NodesOnly)),
            ("twin/w/tank/state", false, Err(Refusal::NodesOnly)),
            ("twin/w", false, Err(Refusal::UnknownShape)),
            ("twin", false, Err(Refusal::UnknownShape)),
            ("mapper/m/config", false, Err(Refusal::NodesOnly)),
            ("mapper/m/write", false, Err(Refusal::NodesOnly)),
            ("mapper/m/result", false, Ok(Route::Node)),
            ("mapper/m/state", true, Ok(Route::Both)),
            ("mapper/m/health", true, Ok(Route::Local)),
            ("mapper/m/other", false, Err(Refusal::UnknownShape)),
            ("$SYS/x", false, Err(Refusal::System)),
            ("$hw/events/device/a/twin/update", false, Ok(Route::Node)),
            ("$hw/events/device/ns/a/twin/get", false, Ok(Route::Node)),
            ("$hw/events/device/ns/a/state/update", false, Ok(Route::Node)),
            ("$hw/events/node/n/membership/get", false, Ok(Route::Node)),
            ("$hw/events/device/ns/a/twin/update/delta", false, Err(Refusal::NodesOnly)),
            ("$hw/events/device/ns/a/twin/cloud_updated", false, Err(Refusal::NodesOnly)),
            ("$hw/events/device/a/state/get", false, Err(Refusal::UnknownKubeEdge)),
            ("$hw/events/upload/x", false, Err(Refusal::Upload)),
            ("$hw", false, Err(Refusal::UnknownKubeEdge)),
            ("$ke/events/device/ns/a/data/update", false, Ok(Route::Local)),
            ("$ke/events/device/a/data/update", false, Ok(Route::Local)),
            ("$ke/events/device/a/b/c/data/update", false, Err(Refusal::UnknownKubeEdge)),
            ("$share/g/a", false, Err(Refusal::System)),
        ];
        for (topic, retain, expected) in table {
            assert_eq!(route(&Topic::new(topic).unwrap(), retain), expected, "{topic} retain={retain}");
        }
    }

    #[test]
    fn only_valid_plain_filters_are_subscribable() {
        use SubackReasonCode as Code;
        for (filter, code) in [
            ("#/a", Code::TopicFilterInvalid),
            ("a#", Code::TopicFilterInvalid),
            ("+a", Code::TopicFilterInvalid),
            ("", Code::TopicFilterInvalid),
            ("$hwx/#", Code::NotAuthorized),
            ("$other", Code::NotAuthorized),
            ("$share/g", Code::TopicFilterInvalid),
            ("$share//a", Code::TopicFilterInvalid),
            ("$share/g+/a", Code::TopicFilterInvalid),
            ("$share/g/", Code::TopicFilterInvalid),
        ] {
            assert_eq!(subscribable(filter), Err(code), "{filter}");
        }
        for text in ["a/+/#", "$hw/#", "$ke/events/device/+/+/data/update", "$SYS/#"] {
            let filter = Filter::new(text).unwrap();
            assert_eq!(subscribable(text), Ok(Wanted { group: None, filter: filter.clone() }));
            let shared = subscribable(&format!("$share/g/{text}"));
            assert_eq!(shared, Ok(Wanted { group: Some("g".into()), filter }));
        }
    }

    #[test]
    fn only_twin_and_mesh_concern_other_sites() {
        let concern: Vec<bool> = ["#", "+/a", "twin/#", "mesh/x", "mapper/#", "a"]
            .map(|text| concerns_other_sites(&Filter::new(text).unwrap()))
            .into();
        assert_eq!(concern, [true, true, true, true, false, false]);
        assert!(concerns_node(&Filter::new("$hw/events/+/x").unwrap()));
        assert!(!concerns_node(&Filter::new("$ke/events/x").unwrap()));
    }
}
