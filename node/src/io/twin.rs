//! `kubebus twin`: what people do with device twins.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bus::Value;
use bus::twin::DeviceId;
use device_twin::PropertyId;
use device_twin::history::{Row, csv};
use hyper::Method;
use serde_json::json;

use super::api::{AuthorityOrder, ChangeOrder, WishOrder};
use super::cli::{
    AskArgs, CommandArgs, Format, HistoryArgs, Moment, Place, SetArgs, TwinCommand, parse_value,
};
use super::commands::{Usage, call, fetch, post, say, show, text};
use super::table;

/// Between two looks at a command that has not ended.
const LOOK: Duration = Duration::from_millis(200);

/// How long after a command's expiry its end is waited for: a write that began in time has its own time to end.
const LATE: Duration = Duration::from_secs(15);

pub(super) async fn carry_out(command: TwinCommand) -> Result<()> {
    match command {
        TwinCommand::Get { device, ask } => {
            let path = device.map_or("/kubebus/v1/twins".to_owned(), |d| format!("/kubebus/v1/twins/{d}"));
            show(&fetch(&ask.place, &path).await?, ask.output, table::twins)
        }
        TwinCommand::Set(args) => set(args).await,
        TwinCommand::Patch { device, patch, place } => {
            let patch: serde_json::Value =
                serde_json::from_str(&patch).map_err(|error| Usage(anyhow!("the patch: {error}")))?;
            let path = format!("/kubebus/v1/twins/{device}/desired");
            let answer = call(&place, Method::PATCH, &path, Some(&patch)).await?;
            say_changed(&answer)
        }
        TwinCommand::Command(args) => order(args).await,
        TwinCommand::Commands { device, ask } => {
            let path =
                device.map_or("/kubebus/v1/commands".to_owned(), |d| format!("/kubebus/v1/commands/{d}"));
            show(&fetch(&ask.place, &path).await?, ask.output, table::commands)
        }
        TwinCommand::History(args) => history(args).await,
        TwinCommand::Audit { device, since, until, ask } => {
            let place = device.map_or(String::new(), |device| format!("/{device}"));
            let path = format!("/kubebus/v1/audit{place}?{}", span(since, until));
            let answer = fetch(&ask.place, &path).await?;
            show(&answer["decisions"], ask.output, table::decisions)
        }
        TwinCommand::Take { device, reason, lasting, place } => take(&device, reason, lasting, &place).await,
        TwinCommand::HandBack { device, place } => {
            let path = format!("/kubebus/v1/twins/{device}/authority");
            let answer = call(&place, Method::DELETE, &path, None).await?;
            say(&format!("{device} is under the cloud's authority, epoch {}", answer["authority"]["epoch"]))
        }
    }
}

async fn set(args: SetArgs) -> Result<()> {
    let SetArgs { wishes, unit, if_version, when, place } = args;
    let if_version = if_version.map(|version| version.try_into().map_err(|why| Usage(anyhow!("{why}"))));
    let if_version = if_version.transpose()?;
    let mut orders = Vec::new();
    for wish in wishes.chunks(3) {
        let [device, property, value] = wish else {
            return Err(Usage(anyhow!("give device, property and value for each")).into());
        };
        let device: DeviceId = device.parse().map_err(|error| Usage(anyhow!("{error}")))?;
        let Ok(value) = parse_value(value);
        orders.push((device, property.clone(), value));
    }
    let is_plain = if_version.is_none() && unit.is_none() && when.is_empty();
    if let ([(device, property, value)], true) = (&orders[..], is_plain) {
        return set_one(device, property, value, &place).await;
    }
    let wish = |(device, property, value): (DeviceId, String, Value)| WishOrder {
        device: device.to_string(),
        property,
        value: Some(value),
        unit: unit.clone(),
        if_version,
    };
    let order = ChangeOrder { wishes: orders.into_iter().map(wish).collect(), when };
    say_changed(&post(&place, "/kubebus/v1/changes", &serde_json::to_value(&order)?).await?)
}

async fn set_one(device: &DeviceId, property: &str, value: &Value, place: &Place) -> Result<()> {
    let path = format!("/kubebus/v1/twins/{device}/desired/{property}");
    let answer = call(place, Method::PUT, &path, Some(&serde_json::to_value(value)?)).await?;
    if answer["version"].is_null() {
        return say(&format!("{device} {property} set to {value} by the local operator, for ten minutes"));
    }
    say(&format!("{device} {property} desired {value}, version {}", text(&answer["version"])))
}

fn say_changed(answer: &serde_json::Value) -> Result<()> {
    for row in answer.as_array().into_iter().flatten() {
        let what = match row["version"].as_str() {
            Some(version) => format!("version {version}"),
            None => "taken back".to_owned(),
        };
        say(&format!("{} {} {what}", text(&row["device"]), text(&row["property"])))?;
    }
    Ok(())
}

async fn take(device: &DeviceId, reason: String, lasting: Option<Duration>, place: &Place) -> Result<()> {
    let lasting_ms = lasting.map(millis);
    let order = serde_json::to_value(AuthorityOrder { reason, lasting_ms })?;
    let path = format!("/kubebus/v1/twins/{device}/authority");
    let answer = call(place, Method::PUT, &path, Some(&order)).await?;
    let (holder, epoch) = (text(&answer["holder"]), &answer["authority"]["epoch"]);
    say(&format!("{device} is under the authority of the {holder}, epoch {epoch}"))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn span(since: Option<Moment>, until: Option<Moment>) -> String {
    let words = [("since", since), ("until", until)];
    let given = words.into_iter().filter_map(|(name, at)| Some(format!("{name}={}", at?.0)));
    given.collect::<Vec<_>>().join("&")
}

async fn history(args: HistoryArgs) -> Result<()> {
    let HistoryArgs { device, property, since, until, limit, csv, ask } = args;
    let property = property.map_or(String::new(), |property| format!("/{property}"));
    let path = format!("/kubebus/v1/history/{device}{property}?{}", span(since, until));
    if csv {
        return export(&path, &ask).await;
    }
    let mut rows = Vec::new();
    let mut next = String::new();
    loop {
        let left = limit.saturating_sub(rows.len());
        let mut page = fetch(&ask.place, &format!("{path}&limit={left}{next}")).await?;
        let Some(more) = page["rows"].as_array_mut() else { break };
        rows.append(more);
        match page["next"].as_str().filter(|_| rows.len() < limit) {
            Some(place) => next = format!("&next={place}"),
            None => break,
        }
    }
    show(&rows.into(), ask.output, table::samples)
}

/// Page after page, so that neither side holds all of it.
async fn export(path: &str, ask: &AskArgs) -> Result<()> {
    say(csv::HEADER.trim_end())?;
    let mut next = String::new();
    loop {
        let page = fetch(&ask.place, &format!("{path}&order=oldest{next}")).await?;
        let rows = page["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows: Vec<Row> = rows.iter().filter_map(row).collect();
        let mut text = String::new();
        csv::write(&rows, &mut text);
        if !text.is_empty() {
            say(text.trim_end())?;
        }
        match page["next"].as_str() {
            Some(place) => next = format!("&next={place}"),
            None => return Ok(()),
        }
    }
}

fn row(row: &serde_json::Value) -> Option<Row> {
    let device: DeviceId = row["device"].as_str()?.parse().ok()?;
    let sample = serde_json::from_value(row.clone()).ok()?;
    let stored = serde_json::from_value(row["stored"].clone()).ok()?;
    Some(Row { id: PropertyId::new(&device, row["property"].as_str()?), sample, stored })
}

async fn order(args: CommandArgs) -> Result<()> {
    let CommandArgs { device, name, args, expires, hold, when, id, no_wait, ask } = args;
    let args: serde_json::Map<String, serde_json::Value> = args
        .into_iter()
        .map(|(name, value)| Ok((name, serde_json::to_value(value)?)))
        .collect::<Result<_>>()?;
    let order = json!({
        "id": id, "args": args, "ttlMs": millis(expires), "holdMs": hold.map(millis), "when": when,
    });
    let path = format!("/kubebus/v1/twins/{device}/commands/{name}");
    let answer = post(&ask.place, &path, &order).await?;
    if no_wait {
        return show_command(&answer, &ask);
    }
    let path = format!("/kubebus/v1/commands/{device}/{}", text(&answer["id"]));
    let end = Instant::now() + expires + LATE;
    let mut seen = answer;
    while seen["state"] != "ended" && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
        seen = fetch(&ask.place, &path).await?;
    }
    show_command(&seen, &ask)?;
    if seen["outcome"] == "succeeded" {
        return Ok(());
    }
    Err(anyhow!("the command was not carried out, or nobody can tell: see above"))
}

fn show_command(command: &serde_json::Value, ask: &AskArgs) -> Result<()> {
    match ask.output {
        format @ (Format::Table | Format::Wide | Format::Name) => {
            show(&json!([command]), format, table::commands)
        }
        format @ (Format::Json | Format::Yaml) => show(command, format, table::any),
    }
}
