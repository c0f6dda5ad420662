//! The site's rules: who may publish and subscribe to what.

use bus::{Filter, Name, Topic};
use thiserror::Error;

use super::Who;
use super::cover::covers;

/// Most rules of a site: they are read again for each client that comes.
pub const MAX_RULES: usize = 1024;

/// The name in a rule's filter for who the client is, and for its client id; each is a whole level's text or a part
/// of it. mosquitto's `%u` and `%c`.
const NAME: &str = "{name}";
const CLIENT: &str = "{client}";

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Anonymous,
    User(Box<str>),
    AnyUser,
    Mapper(Name),
    AnyMapper,
    /// Everybody that is let in.
    Anybody,
}

impl Pattern {
    /// `anonymous`, `user/alice`, `user/*`, `mapper/modbus`, `mapper/*` or `*`.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let unknown = || RuleError::Who(text.to_owned());
        match text {
            "anonymous" => return Ok(Self::Anonymous),
            "user/*" => return Ok(Self::AnyUser),
            "mapper/*" => return Ok(Self::AnyMapper),
            "*" => return Ok(Self::Anybody),
            _ => {}
        }
        match text.split_once('/').ok_or_else(unknown)? {
            ("user", name) if !name.is_empty() => Ok(Self::User(name.into())),
            ("mapper", name) => Name::new(name).map(Self::Mapper).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }

    fn is(&self, who: &Who) -> bool {
        match (self, who) {
            (Self::Anybody, _)
            | (Self::Anonymous, Who::Anonymous)
            | (Self::AnyUser, Who::User(_))
            | (Self::AnyMapper, Who::Mapper(_)) => true,
            (Self::User(named), Who::User(name)) => **named == **name,
            (Self::Mapper(named), Who::Mapper(name)) => named == name,
            _ => false,
        }
    }
}

/// One rule as it is written: filters may have placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    who: Pattern,
    publish: Vec<String>,
    subscribe: Vec<String>,
}

/// Why a rule makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    #[error("'{0}' is nobody: write anonymous, user/<name>, user/*, mapper/<name>, mapper/* or *")]
    Who(String),
    #[error("'{filter}' is no topic filter: {why}")]
    Filter { filter: String, why: bus::topic::InvalidTopic },
    #[error("'{0}' has a placeholder that is not {NAME} or {CLIENT}")]
    Placeholder(String),
    #[error("more than {MAX_RULES} rules")]
    TooMany,
}

impl Rule {
    pub fn new(who: &str, publish: Vec<String>, subscribe: Vec<String>) -> Result<Self, RuleError> {
        publish.iter().chain(&subscribe).try_for_each(|filter| check(filter))?;
        Ok(Self { who: Pattern::parse(who)?, publish, subscribe })
    }
}

/// With the placeholders filled in it must be a filter, and hold no other braces: a mistyped placeholder would be
/// a right to nothing, without a word.
fn check(filter: &str) -> Result<(), RuleError> {
    let filled = filter.replace(NAME, "n").replace(CLIENT, "c");
    if filled.contains(['{', '}']) {
        return Err(RuleError::Placeholder(filter.to_owned()));
    }
    let checked = Filter::new(&filled).map(drop);
    checked.map_err(|why| RuleError::Filter { filter: filter.to_owned(), why })
}

/// All rules of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    rules: Option<Vec<Rule>>,
}

/// What one client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// Whatever the broker's own policy allows everybody.
    All,
    Only {
        publish: Vec<Filter>,
        subscribe: Vec<Filter>,
    },
}

/// What a mapper needs: its own topics and reports. Whether a device is its own, the node knows, and refuses a report
/// that is not (`edge/mqtt.rs`).
const OF_MAPPERS: ([&str; 3], [&str; 1]) =
    (["mapper/{name}/#", "twin/+/+/report", "twin/+/+/report/+"], ["mapper/{name}/#"]);

impl Rights {
    pub fn new(rules: Vec<Rule>) -> Result<Self, RuleError> {
        if rules.len() > MAX_RULES {
            return Err(RuleError::TooMany);
        }
        Ok(Self { rules: (!rules.is_empty()).then_some(rules) })
    }

    /// What this client may do:
    /// 1. what all rules about it allow together;
    /// 2. a mapper that no rule is about: its own topics, and reports;
    /// 3. anybody else: everything, unless there are rules; then nothing.
    pub fn permit(&self, who: &Who, client: &str) -> Permit {
        let rules = self.rules.as_deref().unwrap_or_default();
        let mut about = rules.iter().filter(|rule| rule.who.is(who)).peekable();
        if about.peek().is_some() {
            let (mut publish, mut subscribe) = (Vec::new(), Vec::new());
            for rule in about {
                publish.extend(rule.publish.iter().filter_map(|text| fill(text, who, client)));
                subscribe.extend(rule.subscribe.iter().filter_map(|text| fill(text, who, client)));
            }
            return Permit::Only { publish, subscribe };
        }
        match who {
            Who::Mapper(_) => {
                let (publish, subscribe) = OF_MAPPERS;
                let filled =
                    |texts: &[&str]| texts.iter().filter_map(|text| fill(text, who, client)).collect();
                Permit::Only { publish: filled(&publish), subscribe: filled(&subscribe) }
            }
            Who::Anonymous | Who::User(_) if self.rules.is_none() => Permit::All,
            Who::Anonymous | Who::User(_) => Permit::Only { publish: vec![], subscribe: vec![] },
        }
    }
}

/// A rule's filter for one client. `None`: what would be filled in is no plain part of a level, and would say more
/// than the rule does.
fn fill(text: &str, who: &Who, client: &str) -> Option<Filter> {
    let mut filled = text.to_owned();
    for (placeholder, value) in [(NAME, who.name()), (CLIENT, Some(client))] {
        if text.contains(placeholder) {
            let plain = value.filter(|value| !value.is_empty() && !value.contains(['+', '#', '/', '{']))?;
            filled = filled.replace(placeholder, plain);
        }
    }
    Filter::new(&filled).ok()
}

impl Permit {
    pub fn may_publish(&self, topic: &Topic) -> bool {
        match self {
            Self::All => true,
            Self::Only { publish, .. } => publish.iter().any(|filter| filter.matches(topic)),
        }
    }

    /// Whether all that the filter can match lies within one allowed filter.
    pub fn may_subscribe(&self, wanted: &Filter) -> bool {
        match self {
            Self::All => true,
            Self::Only { subscribe, .. } => subscribe.iter().any(|allowed| covers(allowed, wanted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(who: &str, publish: &[&str], subscribe: &[&str]) -> Rule {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Rule::new(who, texts(publish), texts(subscribe)).unwrap()
    }

    fn who(text: &str) -> Who {
        match text {
            "anonymous" => Who::Anonymous,
            _ => Who::of_login(text).unwrap(),
        }
    }

    fn publishes(rights: &Rights, name: &str, topic: &str) -> bool {
        rights.permit(&who(name), "panel-1").may_publish(&Topic::new(topic).unwrap())
    }

    fn subscribes(rights: &Rights, name: &str, filter: &str) -> bool {
        rights.permit(&who(name), "panel-1").may_subscribe(&Filter::new(filter).unwrap())
    }

    #[test]
    fn without_rules_all_may_all_but_a_mapper_keeps_to_its_own() {
        let none = Rights::default();
        for name in ["anonymous", "alice"] {
            assert!(publishes(&none, name, "twin/w/tank/set/level") && subscribes(&none, name, "#"));
        }
        let table = [
            ("mapper/modbus/state", true),
            ("mapper/modbus/health", true),
            ("mapper/other/state", false),
            ("mapper/other/health", false),
            ("twin/w/tank/report/level", true),
            ("twin/w/tank/report", true),
            ("twin/w/tank/set/level", false),
            ("twin/w/tank/command/reset", false),
            ("mesh/x", false),
        ];
        for (topic, may) in table {
            assert_eq!(publishes(&none, "mapper/modbus", topic), may, "{topic}");
        }
        for (filter, may) in [
            ("mapper/modbus/#", true),
            ("mapper/modbus/write", true),
            ("mapper/+/write", false),
            ("#", false),
        ] {
            assert_eq!(subscribes(&none, "mapper/modbus", filter), may, "{filter}");
        }
    }

    #[test]
    fn with_rules_who_is_in_none_may_nothing() {
        let rights = Rights::new(vec![
            rule("user/alice", &["twin/+/+/set/#"], &["twin/#"]),
            rule("user/*", &["notes/{name}/{client}"], &["notes/{name}/#"]),
            rule("mapper/special", &["special/#"], &[]),
        ])
        .unwrap();
        let may_publish = [
            ("alice", "twin/w/tank/set/level", true),
            ("alice", "notes/alice/panel-1", true),
            ("alice", "notes/bob/panel-1", false),
            ("bob", "twin/w/tank/set/level", false),
            ("bob", "notes/bob/panel-1", true),
            ("bob", "notes/bob/panel-2", false),
            ("anonymous", "notes/anonymous/panel-1", false),
            ("anonymous", "a", false),
            ("mapper/modbus", "mapper/modbus/state", true),
            ("mapper/special", "special/x", true),
            ("mapper/special", "mapper/special/state", false),
        ];
        for (name, topic, may) in may_publish {
            assert_eq!(publishes(&rights, name, topic), may, "{name} {topic}");
        }
        let may_subscribe = [
            ("alice", "twin/w/#", true),
            ("alice", "#", false),
            ("alice", "notes/alice/+", true),
            ("alice", "notes/+/x", false),
            ("bob", "twin/#", false),
            ("anonymous", "a", false),
        ];
        for (name, filter, may) in may_subscribe {
            assert_eq!(subscribes(&rights, name, filter), may, "{name} {filter}");
        }
    }

    #[test]
    fn a_name_that_is_a_wildcard_widens_no_right() {
        let rights = Rights::new(vec![rule("*", &["to/{client}"], &["of/{name}/#"])]).unwrap();
        for name in ["+", "#", "a/b", "{client}"] {
            assert!(!subscribes(&rights, name, "of/alice/x"), "{name}");
            let permit = rights.permit(&Who::User(name.into()), name);
            assert_eq!(permit, Permit::Only { publish: vec![], subscribe: vec![] }, "{name}");
        }
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused() {
        for (who, filter, told) in [
            (
                "alice",
                "a",
                "'alice' is nobody: write anonymous, user/<name>, user/*, mapper/<name>, mapper/* or *",
            ),
            (
                "user/",
                "a",
                "'user/' is nobody: write anonymous, user/<name>, user/*, mapper/<name>, mapper/* or *",
            ),
            (
                "*",
                "a/#/b",
                "'a/#/b' is no topic filter: '+' stands for a whole level, '#' for the whole rest at the end",
            ),
            ("*", "a/%u", ""),
            ("*", "a/{user}", "'a/{user}' has a placeholder that is not {name} or {client}"),
        ] {
            let refused = Rule::new(who, vec![filter.to_owned()], vec![]).err().map(|why| why.to_string());
            assert_eq!(refused.unwrap_or_default(), told, "{who} {filter}");
        }
    }
}
