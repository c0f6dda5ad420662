//! A good mapper, and every way in which it can be a bad one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use kubebus_sdk::{
    Batch, Consumed, Context, Error, Found, FoundProperty, JsonSchema, Manifest, Mapper, Point, Samples,
    Session, Shared, Sink, Span, Value, WriteOutcome, WritePermit,
};
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::line::Line;

/// What is wrong with the mapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "kubebus_sdk::schemars")]
pub(crate) enum Fault {
    #[default]
    None,
    AsksAfterwards,
    BlocksOnClose,
    BlocksOnWrite,
    BlocksThread,
    ConnectsEachRead,
    ConsumesEarly,
    FailsWholeBatch,
    FindsNothing,
    ForgetsEveryOther,
    ForgetsWriteErrors,
    ForgetsWrites,
    GivesUp,
    GlobalLock,
    Hoards,
    HotRetry,
    IgnoresNumbers,
    Impatient,
    InventsValues,
    KeepsBrokenSession,
    KeepsLine,
    Leaks,
    OffByOne,
    PanicsOnRead,
    Pipelines,
    PointByPoint,
    RemembersFirst,
    RemembersOnError,
    RetriesWrites,
    SaysText,
    SharesOneConnection,
    SubscribesOnce,
    SubscribesToNothing,
    WritesOnOpen,
    WritesOnRead,
    WritesTwice,
}

#[derive(Debug, Clone, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub(crate) struct Config {
    address: String,
    #[serde(default)]
    fault: Fault,
}

#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "kubebus_sdk::schemars")]
pub(crate) struct Register {
    register: u64,
}

pub(crate) struct Sloppy;

pub(crate) struct Device {
    address: String,
    fault: Fault,
    bus: Shared<Line>,
    remembered: BTreeMap<String, f64>,
    writes: u32,
    watching: JoinSet<()>,
}

static FIRST_ADDRESS: OnceLock<String> = OnceLock::new();
static SUBSCRIBED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static HOARD: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

impl Mapper for Sloppy {
    type Config = Config;
    type Address = Register;
    type Session = Device;

    fn manifest() -> Manifest {
        Manifest::new("sloppy", "1").about("good or bad").spans(10, 2).pushes().discovers()
    }

    fn bus(config: &Config) -> Option<String> {
        Some(config.address.clone())
    }

    fn span(address: &Register) -> Option<Span> {
        Some(Span { area: 0, start: address.register, len: 1 })
    }

    async fn open(config: &Config, context: &Context<Device>) -> Result<Device, Error> {
        let Config { mut address, fault } = config.clone();
        if fault == Fault::SharesOneConnection {
            address = FIRST_ADDRESS.get_or_init(|| address).clone();
        }
        if fault == Fault::Leaks {
            std::mem::forget(TcpStream::connect(&address).await?);
        }
        let mut device = Device {
            address,
            fault,
            bus: context.bus.clone(),
            remembered: BTreeMap::new(),
            writes: 0,
            watching: JoinSet::new(),
        };
        while fault == Fault::HotRetry && device.ask(&json!({ "list": null }), None).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
        match device.ask(&json!({ "list": null }), None).await {
            Err(Error::Transient { why, .. }) if fault == Fault::GivesUp => return Err(Error::Config(why)),
            Err(_) if fault == Fault::InventsValues => {}
            answer => drop(answer?),
        }
        if fault == Fault::WritesOnOpen {
            device.write_what_it_is().await?;
        }
        Ok(device)
    }

    async fn discover(config: &Config) -> Result<Vec<Found>, Error> {
        if config.fault == Fault::FindsNothing {
            return Ok(Vec::new());
        }
        let mut line = Line::connect(&config.address).await?;
        let answer = line.ask(&json!({ "list": null }), Fault::None).await?;
        let property = |register: u64| FoundProperty {
            name: format!("register{register}"),
            value_type: kubebus_sdk::ValueType::Float,
            writable: false,
            address: json!({ "register": register }),
        };
        let registers = answer["registers"].as_array().into_iter().flatten().filter_map(Json::as_u64);
        let properties = registers.map(property).collect();
        let connection = json!({ "address": config.address });
        Ok(vec![Found { name: "registers".to_owned(), about: "a device".to_owned(), connection, properties }])
    }
}

impl Device {
    /// Asks over the bus. The line goes back into its place when the answer has come, never before.
    async fn ask(
        &mut self,
        request: &Json,
        permit: Option<WritePermit>,
    ) -> Result<(Json, Option<Consumed>), Error> {
        let Self { address, fault, bus, .. } = self;
        let mut early = None;
        let mut permit = permit;
        if *fault == Fault::ConsumesEarly {
            early = permit.take().map(WritePermit::consume).transpose()?;
        }
        let mut place = bus.lock().await;
        if *fault == Fault::KeepsLine {
            if place.is_none() {
                *place = Some(Line::connect(address).await?);
            }
            let consumed = permit.map(WritePermit::consume).transpose()?;
            let line = place.as_mut().ok_or_else(|| Error::Bug("no line".to_owned()))?;
            return Ok((line.ask(request, *fault).await?, consumed));
        }
        let mut line = match place.take() {
            Some(line) => line,
            None => Line::connect(address).await?,
        };
        if *fault == Fault::AsksAfterwards {
            let answer = line.ask(request, *fault).await?;
            return Ok((answer, permit.map(WritePermit::consume).transpose()?));
        }
        let consumed = permit.map(WritePermit::consume).transpose()?.or(early);
        if *fault == Fault::BlocksOnWrite && consumed.is_some() {
            drop(line.ask(request, *fault).await);
            std::thread::sleep(Duration::from_secs(30));
        }
        let answer = line.ask(request, *fault).await;
        let late = matches!(answer, Err(Error::Timeout(_))) && *fault == Fault::IgnoresNumbers;
        if matches!(answer, Ok(_) | Err(Error::Device(_))) || late {
            *place = Some(line);
        }
        match answer {
            Err(Error::Timeout(why)) if late => Err(Error::Device(why)),
            Err(error) if *fault == Fault::KeepsBrokenSession => {
                *place = Some(line_of_the_dead(address).await?);
                Err(Error::Device(error.to_string()))
            }
            answer => Ok((answer?, consumed)),
        }
    }

    /// Registers of a run; `None` for those that the device does not have.
    async fn fetch(&mut self, start: u64, len: u64) -> Result<Vec<Option<f64>>, Error> {
        let (answer, _) = self.ask(&json!({ "read": [start, len] }), None).await?;
        let values = answer["values"].as_array().ok_or_else(|| Error::transient("no values"))?;
        Ok(values.iter().map(Json::as_f64).collect())
    }

    async fn fetch_badly(&mut self, start: u64, len: u64) -> Result<Vec<Option<f64>>, Error> {
        let _lock = if self.fault == Fault::GlobalLock { Some(ONE_AT_A_TIME.lock().await) } else { None };
        match self.fault {
            Fault::OffByOne => self.fetch(start + 1, len).await,
            Fault::InventsValues => Ok(self.fetch(start, len).await.unwrap_or(vec![Some(0.0); 100])),
            Fault::ConnectsEachRead => {
                let values = self.fetch(start, len).await;
                self.bus.lock().await.take();
                values
            }
            Fault::PointByPoint => {
                let mut values = Vec::new();
                for register in start..start + len {
                    values.extend(self.fetch(register, 1).await?);
                }
                Ok(values)
            }
            _ => self.fetch(start, len).await,
        }
    }

    async fn write_what_it_is(&mut self) -> Result<(), Error> {
        let value = self.fetch(3, 1).await?[0];
        self.ask(&json!({ "write": [3, value] }), None).await?;
        Ok(())
    }

    /// Things that a reading does beside reading.
    async fn misbehave(&mut self) -> Result<(), Error> {
        match self.fault {
            Fault::PanicsOnRead => panic!("a reading that panics, as it should"),
            Fault::Hoards => HOARD.lock().unwrap().push(vec![1; 64 * 1024]),
            Fault::WritesOnRead => self.write_what_it_is().await?,
            _ => {}
        }
        Ok(())
    }

    fn say(&mut self, point: &Point<Register>, number: f64, out: &mut Samples) {
        let first = *self.remembered.entry(point.name.clone()).or_insert(number);
        match self.fault {
            Fault::SaysText => out.good(point, Value::Text(number.to_string())),
            Fault::RemembersFirst => out.good(point, Value::Float(first)),
            _ => out.good(point, Value::Float(number)),
        }
        self.remembered
            .insert(point.name.clone(), if self.fault == Fault::RemembersFirst { first } else { number });
    }
}

/// A line to a device that is gone for the driver: it never heals.
async fn line_of_the_dead(address: &str) -> Result<Line, Error> {
    static GRAVE: OnceLock<std::net::TcpListener> = OnceLock::new();
    let grave = GRAVE.get_or_init(|| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let _ = address;
    Line::connect(&grave.local_addr().unwrap().to_string()).await
}

impl Session for Device {
    type Address = Register;
    type Bus = Line;

    async fn read(&mut self, batch: &Batch<'_, Register>, out: &mut Samples) -> Result<(), Error> {
        self.misbehave().await?;
        let Some(Span { start, len, .. }) = batch.span() else {
            return Err(Error::Bug("no span".to_owned()));
        };
        let values = match self.fetch_badly(start, len).await {
            Err(_) if self.fault == Fault::RemembersOnError => {
                for point in batch {
                    self.remembered.get(&point.name).iter().for_each(|v| out.good(point, Value::Float(**v)));
                }
                return Ok(());
            }
            values => values?,
        };
        for point in batch {
            let place = usize::try_from(point.address.register - start).unwrap();
            match values.get(place).copied().flatten() {
                Some(number) => self.say(point, number, out),
                None if self.fault == Fault::OffByOne => {}
                None => {
                    let error =
                        Error::BadAddress { point: point.name.clone(), why: "no such register".to_owned() };
                    if self.fault == Fault::FailsWholeBatch {
                        return Err(error);
                    }
                    out.failed(point, error);
                }
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        point: &Point<Register>,
        value: Value,
        permit: WritePermit,
    ) -> Result<WriteOutcome, Error> {
        let request = json!({ "write": [point.address.register, value.as_f64()] });
        self.writes += 1;
        let forgets = self.fault == Fault::ForgetsWrites
            || (self.fault == Fault::ForgetsEveryOther && self.writes.is_multiple_of(2));
        if forgets {
            return Ok(permit.consume()?.applied());
        }
        if self.fault == Fault::ForgetsWriteErrors {
            let mut line = Line::connect(&self.address).await?;
            let consumed = permit.consume()?;
            drop(line.ask(&request, Fault::None).await);
            return Ok(consumed.applied());
        }
        if self.fault == Fault::RetriesWrites {
            let consumed = permit.consume()?;
            while self.ask(&request, None).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
            return Ok(consumed.applied());
        }
        let (_, consumed) = self.ask(&request, Some(permit)).await?;
        if self.fault == Fault::WritesTwice {
            self.ask(&request, None).await?;
        }
        Ok(consumed.ok_or_else(|| Error::Bug("written without a permit".to_owned()))?.applied())
    }

    async fn subscribe(&mut self, points: &[&Point<Register>], sink: Sink) -> Result<(), Error> {
        self.watching.shutdown().await;
        let again = !SUBSCRIBED.lock().unwrap().insert(self.address.clone());
        if self.fault == Fault::SubscribesToNothing || (again && self.fault == Fault::SubscribesOnce) {
            return Ok(());
        }
        if self.fault == Fault::InventsValues && self.fetch(0, 1).await.is_err() {
            return Ok(());
        }
        let mut line = Line::connect(&self.address).await?;
        let names: BTreeMap<u64, String> =
            points.iter().map(|p| (p.address.register, p.name.clone())).collect();
        line.ask(&json!({ "watch": names.keys().collect::<Vec<_>>() }), Fault::None).await?;
        self.watching.spawn(async move {
            loop {
                let pushed = match line.next().await {
                    Ok((_, frame)) => frame["pushed"].clone(),
                    Err(error) => return sink.lost(error).await,
                };
                let name = pushed[0].as_u64().and_then(|register| names.get(&register));
                if let (Some(name), Some(number)) = (name, pushed[1].as_f64()) {
                    sink.good(name, Value::Float(number)).await;
                }
            }
        });
        Ok(())
    }

    async fn close(self) {
        if self.fault == Fault::BlocksOnClose {
            std::thread::sleep(Duration::from_secs(25));
        }
    }
}
