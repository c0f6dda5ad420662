//! A device simulated from its properties: the same values for the same seed and time.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::time::Duration;

use bus::backoff::Jitter;
use kubebus_sdk::{Value, ValueType};

use crate::fixture::{Property, Write};

/// Writes that are remembered; a case makes a handful.
const MAX_WRITES: usize = 10_000;

/// How a number moves, within its property's range (0 to 100 without one).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Wave {
    /// As it was set or written.
    #[default]
    Still,
    Sine {
        period: Duration,
    },
    /// Up, and back to the lower end at once.
    Ramp {
        period: Duration,
    },
    Square {
        period: Duration,
    },
}

/// How one property behaves, good and bad.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Behaviour {
    pub wave: Wave,
    /// Added evenly between minus and plus this.
    pub noise: f64,
    /// Added with time.
    pub drift_per_hour: f64,
    /// From this time on the value stays what it was.
    pub stuck_after: Option<Duration>,
    /// Share of readings, 0 to 1, that find no value.
    pub dropout: f64,
}

/// See the module's page. How its values reach a mapper is the fixture's business.
#[derive(Debug)]
pub struct SimulatedDevice {
    properties: BTreeMap<String, (Property, Behaviour)>,
    held: BTreeMap<String, Value>,
    writes: Vec<Write>,
    seed: u64,
}

impl SimulatedDevice {
    /// Still values, each property's own.
    pub fn from_properties(properties: &[Property], seed: u64) -> Self {
        let held = (0u32..).zip(properties).map(|(i, p)| (p.name.clone(), p.value(i * 3)));
        let named = properties.iter().map(|p| (p.name.clone(), (p.clone(), Behaviour::default())));
        Self { held: held.collect(), properties: named.collect(), writes: Vec::new(), seed }
    }

    #[must_use]
    pub fn behaving(mut self, property: &str, behaviour: Behaviour) -> Self {
        if let Some((_, old)) = self.properties.get_mut(property) {
            *old = behaviour;
        }
        self
    }

    /// What it tells so long after its start; `None` for a reading that drops out, or an unknown property.
    pub fn value(&self, property: &str, after: Duration) -> Option<Value> {
        let (model, behaviour) = self.properties.get(property)?;
        let held = self.held.get(property)?;
        let mut chance = self.chance(property, after);
        if chance() < behaviour.dropout {
            return None;
        }
        let time = behaviour.stuck_after.map_or(after, |stuck| stuck.min(after));
        let mut chance = self.chance(property, time);
        let noise = behaviour.noise * (chance() * 2.0 - 1.0);
        let drift = behaviour.drift_per_hour * time.as_secs_f64() / 3600.0;
        if behaviour.wave == Wave::Still && noise == 0.0 && drift == 0.0 {
            return Some(held.clone());
        }
        let number = behaviour.wave.at(time, model).or_else(|| held.as_f64())?;
        Some(of_type(model.value_type, number + noise + drift).unwrap_or_else(|| held.clone()))
    }

    /// Numbers of 0 to 1, always the same for one property and moment.
    fn chance(&self, property: &str, after: Duration) -> impl FnMut() -> f64 {
        let named =
            property.bytes().fold(self.seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let mut jitter = Jitter::new(named ^ u64::try_from(after.as_micros()).unwrap_or(0));
        move || (jitter.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Changes a value past the mapper.
    pub fn set(&mut self, property: &str, value: Value) -> bool {
        match self.held.get_mut(property) {
            Some(held) => {
                *held = value;
                true
            }
            None => false,
        }
    }

    /// Carries out a mapper's write; why not otherwise.
    pub fn write(&mut self, property: &str, value: Value) -> Result<(), &'static str> {
        let (model, _) = self.properties.get(property).ok_or("no such property")?;
        if !model.writable {
            return Err("read only");
        }
        let value = value.coerce(model.value_type).map_err(|_| "wrong type")?;
        if self.writes.len() == MAX_WRITES {
            return Err("worn out");
        }
        self.writes.push(Write { property: property.to_owned(), value: value.clone() });
        self.set(property, value);
        Ok(())
    }

    /// Everything that was written.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }
}

impl Wave {
    /// `None` for one that does not move.
    fn at(self, time: Duration, model: &Property) -> Option<f64> {
        let (low, high) = (model.minimum.unwrap_or(0.0), model.maximum.unwrap_or(100.0));
        let phase = |period: Duration| (time.as_secs_f64() / period.as_secs_f64().max(1e-6)).fract();
        let share = match self {
            Self::Still => return None,
            Self::Sine { period } => 0.5 + 0.5 * (phase(period) * TAU).sin(),
            Self::Ramp { period } => phase(period),
            Self::Square { period } => f64::from(u8::from(phase(period) >= 0.5)),
        };
        Some(low + share * (high - low))
    }
}

/// `None` for a type that no number fits.
fn of_type(value_type: ValueType, number: f64) -> Option<Value> {
    match value_type {
        ValueType::Bool => Some(Value::Bool(number >= 0.5)),
        ValueType::Int => Some(Value::Int(number.round() as i64)),
        ValueType::Float => Some(Value::Float(number)),
        ValueType::String | ValueType::Bytes | ValueType::Struct => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level() -> Property {
        Property::new("level", ValueType::Float, serde_json::Value::Null).range(0.0, 10.0).writable()
    }

    fn device(behaviour: Behaviour) -> SimulatedDevice {
        SimulatedDevice::from_properties(&[level()], 7).behaving("level", behaviour)
    }

    fn numbers(device: &SimulatedDevice, seconds: &[u64]) -> Vec<f64> {
        let at = |s: &u64| device.value("level", Duration::from_secs(*s)).unwrap().as_f64().unwrap();
        seconds.iter().map(at).collect()
    }

    #[test]
    fn waves_have_their_shapes() {
        let period = Duration::from_secs(8);
        let wave = |wave| device(Behaviour { wave, ..Behaviour::default() });
        assert_eq!(numbers(&wave(Wave::Ramp { period }), &[0, 2, 8]), [0.0, 2.5, 0.0]);
        assert_eq!(numbers(&wave(Wave::Square { period }), &[0, 3, 4, 7]), [0.0, 0.0, 10.0, 10.0]);
        assert_eq!(numbers(&wave(Wave::Sine { period }), &[0, 2, 6]), [5.0, 10.0, 0.0]);
    }

    #[test]
    fn faults_are_the_same_for_the_same_seed() {
        let noisy = Behaviour { noise: 1.0, dropout: 0.3, ..Behaviour::default() };
        let told = |seed| {
            let device = SimulatedDevice::from_properties(&[level()], seed).behaving("level", noisy);
            (0..100).map(|s| device.value("level", Duration::from_secs(s))).collect::<Vec<_>>()
        };
        assert_eq!(told(1), told(1));
        assert_ne!(told(1), told(2));
        let dropped = told(1).iter().filter(|value| value.is_none()).count();
        assert!((15..45).contains(&dropped), "{dropped} of 100");
    }

    #[test]
    fn a_stuck_sensor_stays_and_a_drifting_one_does_not() {
        let wave = Wave::Ramp { period: Duration::from_secs(10) };
        let stuck = Behaviour { wave, stuck_after: Some(Duration::from_secs(3)), ..Behaviour::default() };
        assert_eq!(numbers(&device(stuck), &[1, 3, 4, 99]), [1.0, 3.0, 3.0, 3.0]);
        let drifting = Behaviour { drift_per_hour: 2.0, ..Behaviour::default() };
        assert_eq!(numbers(&device(drifting), &[0, 3600]), [0.0, 2.0]);
    }

    #[test]
    fn what_is_written_is_held_and_counted() {
        let mut device = device(Behaviour::default());
        assert_eq!(device.write("level", Value::Int(4)), Ok(()));
        assert_eq!(device.value("level", Duration::ZERO), Some(Value::Float(4.0)));
        assert_eq!(device.writes(), [Write { property: "level".into(), value: Value::Float(4.0) }]);
        assert!(device.set("level", Value::Float(5.0)) && device.writes().len() == 1);
        assert_eq!(device.write("level", Value::Text("x".into())), Err("wrong type"));
        assert_eq!(device.write("nothing", Value::Int(1)), Err("no such property"));
    }
}
