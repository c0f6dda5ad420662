//! What people do with the authority over a device, with commands and with several wishes at once: at the cloud, and
//! at sites whether the cloud hears of it or not.

use std::collections::VecDeque;
use std::time::Duration;

use bus::Value;
use bus::twin::{DeviceId, TwinTopic};
use device_twin::cloud::{Wish, Wishes};
use device_twin::command::{CommandId, Order, SET};
use device_twin::{Authority, PropertyId};
use node::Input;
use node::admin::{AdminRequest, AuthorityChange};
use serde_json::json;

use crate::host::{About, Question};
use crate::machine::{Machine, Seat};
use crate::manifests::{self, ACTUATOR, SENSOR, SETTING};
use crate::world::{Event, World};

/// Orders that somebody may send once more: the last few, as whoever got no answer would.
const REMEMBERED: usize = 6;

/// Good for so long at most: all of them are over when the world is looked at.
const LONGEST_TTL: Duration = Duration::from_secs(1200);

/// Orders that were given, to be given again.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    orders: VecDeque<(Machine, DeviceId, Order)>,
    given: u64,
}

impl World {
    /// Somebody does something; not when the world is to come to rest.
    pub(crate) fn deed(&mut self) {
        if self.quiet {
            return;
        }
        let next = self.chance.skewed(Duration::from_secs(4), Duration::from_secs(400));
        self.agenda.at(self.now + next, Event::Deed);
        let devices = self.people.devices();
        let Some((site, device)) = self.chance.pick(&devices).cloned() else { return };
        let edge = Machine::edge(site);
        match self.chance.between(0, 19) {
            0..=2 => self.take_at_edge(edge, &device),
            3 | 4 => self.hand_back(edge, &device),
            5 => self.take_at_cloud(&device),
            6..=9 => self.set_at_edge(Seat::of(site), &device),
            10..=12 => self.order(Machine::Cloud, &device),
            13 | 14 => self.order(edge, &device),
            15 => self.order_again(),
            16 => self.guard(&device),
            _ => self.change(site, &device),
        }
    }

    fn ask(&mut self, machine: Machine, request: AdminRequest, about: About) {
        let id = self.number();
        self.trace.say(self.now, format_args!("somebody asks {machine} ({id}): {request:?}"));
        self.tell_about(machine, Input::Admin { id, request }, about);
    }

    fn take_at_edge(&mut self, edge: Machine, device: &DeviceId) {
        let (short, long) = (Duration::from_secs(20), LONGEST_TTL);
        let lasting = self.chance.one_in(2).then(|| self.chance.skewed(short, long));
        let change = AuthorityChange::Take { reason: "maintenance".to_owned(), lasting };
        self.ask(edge, AdminRequest::Authority { device: device.clone(), change }, About::Nothing);
    }

    fn hand_back(&mut self, edge: Machine, device: &DeviceId) {
        let change = AuthorityChange::HandBack { reason: "done".to_owned() };
        self.ask(edge, AdminRequest::Authority { device: device.clone(), change }, About::Nothing);
    }

    /// Also while the edge is cut off: then its wishes and the cloud's meet later.
    fn take_at_cloud(&mut self, device: &DeviceId) {
        let change = AuthorityChange::Take { reason: "the site left".to_owned(), lasting: None };
        self.ask(Machine::Cloud, AdminRequest::Authority { device: device.clone(), change }, About::Nothing);
    }

    /// A wish where the edge holds the authority, else an operator's set of the actuator. People at the panel know
    /// which it is.
    fn set_at_edge(&mut self, seat: Seat, device: &DeviceId) {
        let machine = Machine::Edge(seat);
        let holds = self
            .value_at(machine, &format!("/t/authority/{device}"))
            .and_then(|bytes| minicbor::decode::<Authority>(&bytes).ok())
            .is_some_and(|authority| authority.epoch % 2 == 1);
        let property = if holds && self.chance.one_in(2) { SETTING } else { ACTUATOR };
        let (id, value) = (manifests::property(device, property), self.chance.between(0, 100) as f64);
        let request = AdminRequest::SetTwin {
            device: device.clone(),
            property: property.to_owned(),
            value: Value::Float(value),
        };
        self.ask(machine, request, About::Operator { seat, id, value });
    }

    /// A command for the device, by the console of a node or, at an edge, by an app.
    fn order(&mut self, machine: Machine, device: &DeviceId) {
        let order = self.new_order();
        let deeds = self.people.deeds();
        deeds.orders.push_back((machine, device.clone(), order.clone()));
        if deeds.orders.len() > REMEMBERED {
            deeds.orders.pop_front();
        }
        self.give(machine, device, order);
    }

    fn new_order(&mut self) -> Order {
        let deeds = self.people.deeds();
        deeds.given += 1;
        let id = CommandId::new(&format!("order-{}", deeds.given)).ok();
        let mut args = std::collections::BTreeMap::new();
        let which = self.chance.between(0, 3);
        if which != 0 {
            args.insert(ACTUATOR.to_owned(), Value::Float(self.chance.between(0, 100) as f64));
        }
        if which <= 1 {
            args.insert(SETTING.to_owned(), Value::Float(self.chance.between(0, 100) as f64));
        }
        let ttl = self.chance.skewed(Duration::from_millis(500), LONGEST_TTL);
        // What a command sets of a setting would else hold until the next one.
        let hold_ms = (which <= 1 || self.chance.one_in(3)).then(|| self.chance.between(1_000, 120_000));
        let text = format!("{SENSOR}<{}", self.chance.between(3, 9));
        let when = if self.chance.one_in(3) { text.parse().ok().into_iter().collect() } else { vec![] };
        Order { id, args, ttl_ms: Some(ttl.as_millis() as u64), sent: None, hold_ms, when, reply: None }
    }

    fn give(&mut self, machine: Machine, device: &DeviceId, order: Order) {
        if machine != Machine::Cloud && self.chance.one_in(2) {
            let topic = TwinTopic::Command { device: device.clone(), name: SET.to_owned() }.topic();
            self.trace.say(self.now, format_args!("an app at {machine} orders {device}: {order:?}"));
            let payload = json!(order).to_string().into();
            let input = Input::mqtt(None, topic, payload, false);
            return self.tell(machine, input);
        }
        let place = order.id.as_ref().map(|id| format!("{device}/{id}"));
        let id = self.asked.next + 1;
        self.asked.orders.extend(place.filter(|_| machine == Machine::Cloud).map(|place| (id, place)));
        let request = AdminRequest::Command { device: device.clone(), name: SET.to_owned(), order };
        self.ask(machine, request, About::Nothing);
    }

    /// Somebody who got no answer sends it again; sometimes it is another order under the same id.
    fn order_again(&mut self) {
        let orders: Vec<_> = self.people.deeds().orders.iter().cloned().collect();
        let Some((machine, device, mut order)) = self.chance.pick(&orders).cloned() else { return };
        if self.chance.one_in(4) {
            order.args.insert(ACTUATOR.to_owned(), Value::Float(self.chance.between(0, 100) as f64));
        }
        self.give(machine, &device, order);
    }

    /// An interlock comes or goes.
    fn guard(&mut self, device: &DeviceId) {
        let request = if self.chance.one_in(3) {
            AdminRequest::Delete { kind: "rule".to_owned(), device: manifests::guard(device) }
        } else {
            AdminRequest::Apply { manifest: manifests::guard_manifest(device) }
        };
        self.ask(Machine::Cloud, request, About::Nothing);
    }

    /// Two properties of a device, or one each of two devices of a site, as one.
    fn change(&mut self, site: usize, device: &DeviceId) {
        let others: Vec<DeviceId> =
            self.people.devices().into_iter().filter(|(of, _)| *of == site).map(|(_, d)| d).collect();
        let other = self.chance.pick(&others).cloned().unwrap_or_else(|| device.clone());
        let mut ids = vec![manifests::property(device, ACTUATOR)];
        let second = if other == *device || self.chance.one_in(3) { SETTING } else { ACTUATOR };
        ids.push(manifests::property(&other, second));
        let wish = |id: &PropertyId, value: u64| Wish {
            id: id.clone(),
            value: Some(Value::Float(value as f64).into()),
            if_version: None,
        };
        let wishes = ids.iter().map(|id| wish(id, self.chance.between(0, 100))).collect();
        let wishes = Wishes { wishes, when: Vec::new(), by: "people".to_owned() };
        let question = Question::Admin(self.asked.next + 1);
        let about = About::Wish { question, ids, valid: true };
        self.ask(Machine::Cloud, AdminRequest::Change { wishes }, about);
    }

    /// The cloud answered to a command.
    pub(crate) fn order_answered(&mut self, id: u64, taken: bool) {
        let Some(place) = self.asked.orders.remove(&id).filter(|_| taken) else { return };
        let durable = self.hosts[&Machine::Cloud].disk.durable();
        self.oracle.on_order_accepted(&place, durable, self.now);
    }
}
