//! A call to a mapper: a connection of its own, as KubeEdge does it.

use std::time::Duration;

use bus::io::Clock;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, client};
use http::{Method as HttpMethod, Request, Response};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::grpc::{self, Code};
use crate::dmi::api::MAPPER;
use crate::dmi::{Answer, Call, Method};

/// How long a mapper may take to be reached, and then to answer: as with KubeEdge.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the call. Once its time is over nothing of it is sent any more.
pub(super) async fn perform(call: &Call, clock: Clock) -> Answer {
    // Ends with this call: nothing of it is left in a socket that the mapper reads later.
    let mut connection = JoinSet::new();
    let reached = clock.timeout(PATIENCE, reach(call, &mut connection)).await;
    let requests = match reached.unwrap_or_else(|| Err("it does not answer".to_owned())) {
        Ok(requests) => requests,
        Err(why) => return Answer::Unreachable(why),
    };
    if call.method == Method::Probe {
        return Answer::Taken;
    }
    // The last look before it is said.
    if call.expires.is_some_and(|expires| clock.now().mono >= expires) {
        return Answer::Late;
    }
    let asked = clock.timeout(PATIENCE, ask(call, requests)).await;
    asked.unwrap_or_else(|| Answer::Lost(format!("no answer within {PATIENCE:?}")))
}

/// A connection to a mapper that runs: a stopped one has a socket too, and would read what is sent whenever it is let
/// on, so it has to answer a ping first.
async fn reach(call: &Call, connections: &mut JoinSet<()>) -> Result<SendRequest<Bytes>, String> {
    let socket = UnixStream::connect(&call.address).await.map_err(|why| why.to_string())?;
    let (requests, mut connection) = client::handshake(socket).await.map_err(|why| why.to_string())?;
    let ping = connection.ping_pong();
    connections.spawn(async move {
        // That it broke shows at the call.
        let _ = connection.await;
    });
    if let Some(mut ping) = ping {
        ping.ping(Ping::opaque()).await.map_err(|why| why.to_string())?;
    }
    requests.ready().await.map_err(|why| why.to_string())
}

async fn ask(call: &Call, mut requests: SendRequest<Bytes>) -> Answer {
    let request = Request::builder()
        .method(HttpMethod::POST)
        .uri(format!("http://localhost/{MAPPER}/{}", call.method.as_str()))
        .header("te", "trailers")
        .header("content-type", grpc::CONTENT_TYPE)
        .header("grpc-timeout", format!("{}S", PATIENCE.as_secs()))
        .body(());
    let Ok(request) = request else { return Answer::Unreachable("no such method".to_owned()) };
    let lost = |why: h2::Error| Answer::Lost(why.to_string());
    match requests.send_request(request, false) {
        Err(why) => lost(why),
        Ok((response, mut body)) => {
            if let Err(why) = body.send_data(grpc::framed(&call.body), true) {
                return lost(why);
            }
            match response.await {
                Ok(response) => answer(response).await.unwrap_or_else(Answer::Lost),
                Err(why) => lost(why),
            }
        }
    }
}

/// What the mapper's status says; the message before it holds nothing that is needed.
async fn answer(response: Response<h2::RecvStream>) -> Result<Answer, String> {
    let (head, mut body) = response.into_parts();
    if !head.status.is_success() {
        return Ok(Answer::Refused(format!("HTTP status {}", head.status)));
    }
    if let Some(status) = grpc::status_of(&head.headers) {
        return Ok(judged(status));
    }
    // A call that failed has no message.
    if let Err(why) = grpc::message(&mut body).await
        && why.code != Code::Internal
    {
        return Err(why.message);
    }
    let trailers = body.trailers().await.map_err(|why| why.to_string())?;
    let status = trailers.as_ref().and_then(grpc::status_of);
    Ok(judged(status.ok_or("the mapper's answer has no status")?))
}

/// A mapper that was too slow for its own deadline may have done it.
fn judged((code, message): (u32, String)) -> Answer {
    let is = |wanted: Code| code == wanted as u32;
    if is(Code::Ok) {
        Answer::Taken
    } else if is(Code::Cancelled) || is(Code::DeadlineExceeded) {
        Answer::Lost(message)
    } else if message.is_empty() {
        Answer::Refused(format!("gRPC status {code}"))
    } else {
        Answer::Refused(message)
    }
}
