//! What the page for people is told of twins and rules: as much as it shows, whatever the size of the fleet.

#[cfg(feature = "io")]
mod changes;
#[cfg(feature = "io")]
mod look;
#[cfg(feature = "io")]
mod tables;

use bus::twin::DeviceId;
use bus::{NodeId, Now};
use device_twin::rule::RuleView;
use device_twin::twin::{Availability, DeviceState};
use device_twin::{Gist, PropertyId, TwinView};
use serde_json::{Value, json};

#[cfg(feature = "io")]
pub(crate) use self::{
    changes::Sent,
    look::Look,
    tables::{Nodes, tables},
};
use crate::admin::{AdminError, AdminResponse, document};

/// Devices that one page shows: more fit no screen, and nobody reads them. The rest is a search or the next page away.
pub(crate) const MAX_DEVICES: usize = 100;

/// Rules that a page shows, those with something to say first; a site has tens.
pub(crate) const MAX_RULES: usize = 500;

/// Devices that one search for `is:..` looks into, some milliseconds of the owner loop, as it serves others meanwhile.
/// Where it ended is said.
const MAX_LOOKED_INTO: usize = 10_000;

/// Words of a search, each of which must be found.
const MAX_WORDS: usize = 8;

/// What a page asks of its node. All of it but the devices comes anyway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// These devices, as far as there are any.
    Named(Vec<DeviceId>),
    Search(Search),
}

/// Devices that a page looks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Search {
    /// In lower case.
    words: Vec<String>,
    state: Option<StateWord>,
    /// How many of those found are left out before the first.
    from: usize,
}

/// `is:..` in a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateWord {
    /// Online, all of it.
    Online,
    /// Not.
    Offline,
    /// A wish is not answered yet.
    Pending,
    /// A wish came to nothing.
    Failed,
}

/// What a node has, for a page to be cut out of.
pub(crate) trait Fleet {
    /// In the order of their names.
    fn devices(&self) -> impl Iterator<Item = &DeviceId>;
    fn views(&self, device: &DeviceId, now: Now) -> Vec<TwinView>;
    /// What a search for `is:..` asks, without all of that.
    fn gist(&self, device: &DeviceId) -> Gist;
    /// Where a device runs, or what it waits for.
    fn place(&self, device: &DeviceId) -> Place;
    /// The first `most` of them, those that tripped before those that miss an input, those before the rest; and how many
    /// there are.
    fn rules(&self, most: usize, now: Now) -> (Vec<RuleView>, usize);
}

/// Which of a page's rules come first.
pub(crate) fn rank(rule: &RuleView) -> (bool, bool) {
    (rule.tripped.is_none(), rule.unknown.is_empty())
}

/// Where a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    At(NodeId),
    Waits(String),
}

impl Query {
    /// `device=<namespace>/<device>&device=..`, or `q=<words>&from=<number>`, or nothing: no devices.
    pub fn parse(query: &str) -> Result<Self, AdminError> {
        let (mut named, mut search) = (Vec::new(), None::<Search>);
        for (key, value) in query.split('&').filter_map(|word| word.split_once('=')) {
            let value = decoded(value);
            match key {
                "device" if named.len() < MAX_DEVICES => named.push(value.parse().map_err(|error| {
                    AdminError::Invalid(format!("device: {error}; write device=<namespace>/<name>"))
                })?),
                "device" => {
                    return Err(AdminError::Invalid(format!("device: at most {MAX_DEVICES} of them")));
                }
                "q" => search.get_or_insert_default().look_for(&value),
                "from" => {
                    search.get_or_insert_default().from =
                        value.parse().map_err(|_| AdminError::Invalid("from: no number".to_owned()))?;
                }
                _ => {}
            }
        }
        Ok(search.map_or(Self::Named(named), Self::Search))
    }
}

impl Search {
    fn look_for(&mut self, text: &str) {
        for word in text.split_whitespace().take(MAX_WORDS) {
            match word {
                "is:online" => self.state = Some(StateWord::Online),
                "is:offline" => self.state = Some(StateWord::Offline),
                "is:pending" => self.state = Some(StateWord::Pending),
                "is:failed" => self.state = Some(StateWord::Failed),
                _ => self.words.push(word.to_lowercase()),
            }
        }
    }

    /// Whether the words are in its name, or in that of its node.
    fn names(&self, device: &DeviceId, fleet: &impl Fleet) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let name = format!("{device} {}", fleet.place(device).text());
        self.words.iter().all(|word| name.contains(word))
    }

    fn fits(&self, device: &DeviceId, fleet: &impl Fleet) -> bool {
        self.state.is_none_or(|state| state.is_of(fleet.gist(device)))
    }
}

impl StateWord {
    fn is_of(self, gist: Gist) -> bool {
        match self {
            Self::Online => gist.online,
            Self::Offline => !gist.online,
            Self::Pending => gist.pending,
            Self::Failed => gist.failed,
        }
    }
}

impl Place {
    fn text(&self) -> String {
        match self {
            Self::At(node) => node.to_string(),
            Self::Waits(why) => why.clone(),
        }
    }
}

/// The answer: `{"time", "devices": [..], "found", "looked_into", "total", "rules": [..], "rules_total", "plants": [..]}`.
pub(crate) fn answer(query: &Query, fleet: &impl Fleet, now: Now) -> AdminResponse {
    let Found { shown, found, looked_into } = match query {
        Query::Named(devices) => {
            Found { shown: devices.iter().collect(), found: devices.len(), looked_into: None }
        }
        Query::Search(search) => found(search, fleet),
    };
    let (rules, rules_total) = fleet.rules(MAX_RULES, now);
    Ok(json!({
        "time": now.wall,
        "devices": shown.iter().map(|id| device(id, fleet, now)).collect::<Result<Vec<_>, _>>()?,
        "found": found,
        "looked_into": looked_into,
        "total": fleet.devices().count(),
        "rules": rules.iter().map(|view| rule(view, fleet)).collect::<Result<Vec<_>, _>>()?,
        "rules_total": rules_total,
        "plants": plants(fleet, now),
    }))
}

/// What a search came to.
struct Found<'a> {
    shown: Vec<&'a DeviceId>,
    found: usize,
    /// After how many devices the search ended, if not with the last one.
    looked_into: Option<usize>,
}

fn found<'a>(search: &Search, fleet: &'a impl Fleet) -> Found<'a> {
    let mut all = Found { shown: Vec::new(), found: 0, looked_into: None };
    let named = fleet.devices().filter(|id| search.names(id, fleet));
    for (looked_into, device) in named.enumerate() {
        if search.state.is_some() && looked_into == MAX_LOOKED_INTO {
            all.looked_into = Some(looked_into);
            break;
        }
        if !search.fits(device, fleet) {
            continue;
        }
        if all.found >= search.from && all.shown.len() < MAX_DEVICES {
            all.shown.push(device);
        }
        all.found += 1;
    }
    all
}

/// What all properties share stands once.
fn device(id: &DeviceId, fleet: &impl Fleet, now: Now) -> AdminResponse {
    let views = fleet.views(id, now);
    let first = views.first();
    // That it is there is what counts: when exactly it was heard would be news each second.
    let seen = |state: &DeviceState| state.last_seen.filter(|_| state.state != Availability::Online);
    let state = first.and_then(|view| view.state.clone());
    let state = state.map(|state| DeviceState { last_seen: seen(&state), ..state });
    let authority = first.map(|view| &view.authority);
    let (node, waits) = match fleet.place(id) {
        Place::At(node) => (Some(node.to_string()), None),
        Place::Waits(why) => (None, Some(why)),
    };
    Ok(json!({
        "device": id.to_string(), "node": node, "waits": waits,
        "state": document(&state)?,
        "authority": document(&authority)?,
        "holder": document(&authority.map(device_twin::Authority::holder))?,
        "properties": views.iter().map(property).collect::<Result<Vec<_>, _>>()?,
    }))
}

fn property(view: &TwinView) -> AdminResponse {
    let mut value = document(view)?;
    if let Some(fields) = value.as_object_mut() {
        for shared in ["device", "state", "authority"] {
            fields.remove(shared);
        }
    }
    Ok(value)
}

/// With the node at which it runs: that of its output.
fn rule(view: &RuleView, fleet: &impl Fleet) -> AdminResponse {
    let mut value = document(view)?;
    if let Some(Place::At(node)) = PropertyId::parse(&view.output).map(|output| fleet.place(&output.device)) {
        value["node"] = node.to_string().into();
    }
    Ok(value)
}

/// Namespaces with a tank and a valve of the water works' kind, for which the page has a drawing.
fn plants(fleet: &impl Fleet, now: Now) -> Vec<Value> {
    let has = |device: &DeviceId, property: &str| {
        fleet.views(device, now).iter().any(|view| view.property == property)
    };
    let tanks = fleet.devices().filter(|id| id.name.as_str() == "tank" && has(id, "level"));
    let with_valve = tanks.filter(|tank| {
        let valve = format!("{}/valve", tank.namespace).parse();
        valve.is_ok_and(|valve| has(&valve, "position"))
    });
    with_valve.take(MAX_DEVICES).map(|tank| tank.namespace.to_string().into()).collect()
}

/// What a browser wrote as `%20` and `+`. A word that is none is left as it stands: nothing will be found.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let (byte, after) = match (first, after.split_at_checked(2)) {
            (b'%', Some((digits, after))) if digits.iter().all(u8::is_ascii_hexdigit) => {
                (hex(digits).unwrap_or(b'%'), after)
            }
            (b'+', _) => (b' ', after),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
