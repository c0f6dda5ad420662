//! Looking around: what an agent, or each agent of a network, has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use async_snmp::{Oid, Value};
use ipnet::Ipv4Net;
use kubebus_sdk::{Error, Found, FoundProperty, ValueType};
use serde_json::json;
use tokio::task::JoinSet;

use crate::address::{ObjectId, named};
use crate::agent::{Agent, Answer};
use crate::config::{Config, config};

/// Addresses of a network that is looked through.
const MOST_ADDRESSES: usize = 256;

/// Agents that are asked at the same time.
const AT_ONCE: usize = 32;

/// Interfaces of one agent that are listed.
const MOST_INTERFACES: usize = 64;

/// Scalars that are listed if the agent has them.
const SCALARS: [(&str, &str, ValueType); 5] = [
    ("description", "sysDescr.0", ValueType::String),
    ("up-time", "sysUpTime.0", ValueType::Int),
    ("contact", "sysContact.0", ValueType::String),
    ("name", "sysName.0", ValueType::String),
    ("location", "sysLocation.0", ValueType::String),
];

/// Columns that are listed for each interface, the wide counter instead of the narrow one where there are both.
const COLUMNS: [(&str, Option<&str>); 6] = [
    ("ifAdminStatus", None),
    ("ifOperStatus", None),
    ("ifHCInOctets", Some("ifInOctets")),
    ("ifHCOutOctets", Some("ifOutOctets")),
    ("ifInErrors", None),
    ("ifOutErrors", None),
];

/// The agent of these settings; where they name a network, all agents in it that let us in.
pub(crate) async fn discover(settings: &Config) -> Result<Vec<Found>, Error> {
    let Some((network, port)) = network(&settings.agent)? else {
        return Ok(vec![look_at(settings.clone()).await?]);
    };
    let mut waiting: Vec<Config> = network.hosts().map(|host| at(settings, host, port)).collect();
    waiting.reverse();
    let (mut looking, mut found) = (JoinSet::new(), Vec::new());
    loop {
        while looking.len() < AT_ONCE
            && let Some(settings) = waiting.pop()
        {
            looking.spawn(look_at(settings));
        }
        match looking.join_next().await {
            Some(Ok(Ok(agent))) => found.push(agent),
            Some(_) => {} // nobody there, or nobody who knows us
            None => break,
        }
    }
    found.sort_by(|a: &Found, b: &Found| a.name.cmp(&b.name));
    Ok(found)
}

fn at(settings: &Config, host: Ipv4Addr, port: Option<&str>) -> Config {
    let agent = match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    };
    Config { agent, ..settings.clone() }
}

/// `10.0.0.0/28` or `10.0.0.0/28:1161`; `None` for what names one agent.
fn network(agent: &str) -> Result<Option<(Ipv4Net, Option<&str>)>, Error> {
    if !agent.contains('/') {
        return Ok(None);
    }
    let (network, port) = match agent.split_once(':') {
        Some((network, port)) => (network, Some(port)),
        None => (agent, None),
    };
    let network: Ipv4Net = network
        .parse()
        .map_err(|_| config("agent is no network: it looks like 10.0.0.0/28 or 10.0.0.0/28:161"))?;
    if network.hosts().take(MOST_ADDRESSES + 1).count() > MOST_ADDRESSES {
        return Err(config(format!(
            "agent is a network of more than {MOST_ADDRESSES} addresses: look through parts of it"
        )));
    }
    Ok(Some((network.trunc(), port)))
}

async fn look_at(settings: Config) -> Result<Found, Error> {
    let mut agent = Agent::open(&settings).await?;
    let oids: Vec<Oid> = SCALARS.iter().filter_map(|(_, address, _)| scalar(address)).collect();
    let answers = agent.get(&oids).await?;
    let has: Vec<_> =
        SCALARS.iter().zip(&answers).filter_map(|(scalar, answer)| Some((scalar, there(answer)?))).collect();
    let text = |label: &str| {
        let value = has.iter().find(|((name, _, _), _)| *name == label).and_then(|(_, value)| value.as_str());
        value.unwrap_or_default().to_owned()
    };
    let mut properties: Vec<_> =
        has.iter().map(|((label, address, value_type), _)| property(label, *value_type, address)).collect();
    properties.extend(interfaces(&mut agent).await?);
    let connection = serde_json::to_value(&settings).map_err(|e| Error::Bug(e.to_string()))?;
    let name = device_name(&text("name"), &settings.agent);
    Ok(Found { name, about: text("description"), connection, properties })
}

fn scalar(address: &str) -> Option<Oid> {
    let id = ObjectId::try_from(address.to_owned()).ok()?;
    Some(id.as_oid().clone())
}

fn there(answer: &Answer) -> Option<&Value> {
    answer.as_ref().ok().filter(|value| !value.is_exception())
}

async fn interfaces(agent: &mut Agent) -> Result<Vec<FoundProperty>, Error> {
    let mut columns = BTreeMap::new();
    for (name, other) in COLUMNS {
        columns.insert(name, rows(agent, name).await?);
        if let Some(other) = other {
            columns.insert(other, rows(agent, other).await?);
        }
    }
    Ok(listed(&columns))
}

/// The indices of a column.
async fn rows(agent: &mut Agent, column: &str) -> Result<BTreeSet<u32>, Error> {
    let Some(root) = named(column) else { return Ok(BTreeSet::new()) };
    let rows = agent.walk(root).await?;
    Ok(rows.iter().filter_map(|(oid, _)| oid.arcs().last().copied()).collect())
}

/// By interface, then by column; `columns` has the indices of each.
fn listed(columns: &BTreeMap<&str, BTreeSet<u32>>) -> Vec<FoundProperty> {
    let has = |name: &str, index: u32| columns.get(name).is_some_and(|indices| indices.contains(&index));
    let all: BTreeSet<u32> = columns.values().flatten().copied().collect();
    let mut properties = Vec::new();
    for index in all.into_iter().take(MOST_INTERFACES) {
        for (name, other) in COLUMNS {
            let column =
                Some(name).filter(|name| has(name, index)).or(other.filter(|other| has(other, index)));
            if let Some(column) = column {
                let label = kebab(name.trim_start_matches("if").trim_start_matches("HC"));
                properties.push(property(
                    &format!("if{index}-{label}"),
                    ValueType::Int,
                    &format!("{column}.{index}"),
                ));
            }
        }
    }
    properties
}

/// Nothing is offered for writing: that an agent would let us is no reason to.
fn property(name: &str, value_type: ValueType, oid: &str) -> FoundProperty {
    FoundProperty { name: name.to_owned(), value_type, writable: false, address: json!({ "oid": oid }) }
}

/// `InOctets` as `in-octets`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The agent's own name, else its address, in the letters of a device's name.
fn device_name(own: &str, address: &str) -> String {
    let words = |text: &str| {
        let letters: String = text
            .chars()
            .take(60)
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        letters.trim_matches('-').to_owned()
    };
    match words(own) {
        name if name.is_empty() => format!("agent-{}", words(address)),
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_named_by_its_length_and_is_not_too_large() {
        let of = |agent: &str| {
            network(agent)
                .map(|found| found.map(|(network, port)| (network.to_string(), port.map(str::to_owned))))
        };
        assert_eq!(of("10.0.0.8:161"), Ok(None));
        assert_eq!(of("10.0.0.5/30"), Ok(Some(("10.0.0.4/30".into(), None))));
        assert_eq!(of("10.0.0.0/24:1161"), Ok(Some(("10.0.0.0/24".into(), Some("1161".into())))));
        for wrong in ["10.0.0.0/16", "10.0.0.0/33", "host/3", "0.0.0.0/0", "/"] {
            assert!(matches!(of(wrong), Err(Error::Config(why)) if why.starts_with("agent is")), "{wrong}");
        }
    }

    #[test]
    fn an_interface_shows_its_wide_counters_if_it_has_them() {
        let columns = [
            ("ifOperStatus", BTreeSet::from([1, 2])),
            ("ifInOctets", BTreeSet::from([1, 2])),
            ("ifHCInOctets", BTreeSet::from([2])),
        ];
        let listed = listed(&BTreeMap::from(columns));
        let listed: Vec<_> =
            listed.iter().map(|p| (p.name.as_str(), p.address["oid"].as_str().unwrap())).collect();
        let expected = [
            ("if1-oper-status", "ifOperStatus.1"),
            ("if1-in-octets", "ifInOctets.1"),
            ("if2-oper-status", "ifOperStatus.2"),
            ("if2-in-octets", "ifHCInOctets.2"),
        ];
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_device_is_called_by_its_own_name_or_its_address() {
        assert_eq!(device_name("Core Switch_1.", "10.0.0.8"), "core-switch-1");
        assert_eq!(device_name("", "10.0.0.8:161"), "agent-10-0-0-8-161");
        assert_eq!(device_name("...", "[::1]"), "agent-1");
    }
}
