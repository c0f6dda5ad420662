//! Who answers on a line.

use std::time::Duration;

use kubebus_sdk::{Error, Found, FoundProperty, ValueType};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::{Config, Link, Peer};
use crate::frame::Framing;
use crate::line::Line;
use crate::pdu::{Answer, Exception, Request, Table};

/// How long an address may take to answer: with 247 of them most of a minute on a silent line.
const ANSWER: Duration = Duration::from_millis(200);

/// Longest search.
const SEARCH: Duration = Duration::from_secs(90);

/// Asks every address, and those that answer which of their tables have a first place.
pub(crate) async fn discover(config: &Config) -> Result<Vec<Found>, Error> {
    let mut line = Line::new(config.link.clone().into());
    let until = Instant::now() + SEARCH;
    let mut found = Vec::new();
    for unit in 1..=247 {
        if Instant::now() > until {
            break;
        }
        let peer = Peer { unit, timeout: config.peer.timeout.min(ANSWER), echo: true };
        if is_there(&mut line, peer).await? {
            found.push(describe(&mut line, peer, config).await?);
        }
    }
    Ok(found)
}

/// Some gateways say for every address who they are themselves, but none makes up a register.
async fn is_there(line: &mut Line, peer: Peer) -> Result<bool, Error> {
    match ask(line, peer, &first(Table::Holding)).await {
        Ok(Answer::Refused(Exception::NO_ANSWER | Exception::NO_PATH)) | Err(Error::Timeout(_)) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) => Err(error),
    }
}

async fn ask(line: &mut Line, peer: Peer, request: &Request) -> Result<Answer, Error> {
    line.prepare(peer).await?;
    line.exchange(peer, request).await
}

async fn describe(line: &mut Line, peer: Peer, config: &Config) -> Result<Found, Error> {
    let about = match ask(line, peer, &Request::Identify).await {
        Ok(Answer::Identity(objects)) => objects.join(" ").trim().to_owned(),
        Ok(_) | Err(Error::Timeout(_)) => String::new(),
        Err(error) => return Err(error),
    };
    let mut properties = Vec::new();
    for table in Table::ALL {
        match ask(line, peer, &first(table)).await {
            Ok(Answer::Words(_)) => properties.push(first_of(table)),
            Ok(_) | Err(Error::Timeout(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Found {
        name: format!("modbus-{}", peer.unit),
        about: if about.is_empty() { format!("Modbus unit {}", peer.unit) } else { about },
        connection: connection(config, peer.unit),
        properties,
    })
}

fn first(table: Table) -> Request {
    Request::Read { table, start: 0, count: 1 }
}

fn first_of(table: Table) -> FoundProperty {
    FoundProperty {
        name: format!("{}0", table.key()),
        value_type: if table.has_bits() { ValueType::Bool } else { ValueType::Int },
        writable: false,
        address: json!({ table.key(): 0 }),
    }
}

/// The settings of one of the devices found.
fn connection(config: &Config, unit: u8) -> Value {
    let timeout_ms = u64::try_from(config.peer.timeout.as_millis()).unwrap_or(u64::MAX);
    let mut settings = match &config.link {
        Link::Tcp { address, framing: Framing::Tcp } => json!({ "tcp": address }),
        Link::Tcp { address, framing: Framing::Rtu } => json!({ "rtu_over_tcp": address }),
        Link::Serial { path, speed } => json!({
            "serial": path,
            "baud": speed.baud,
            "parity": speed.parity.key(),
            "data_bits": speed.data_bits,
            "stop_bits": speed.stop_bits,
        }),
    };
    settings["unit"] = json!(unit);
    settings["timeout_ms"] = json!(timeout_ms);
    settings
}
