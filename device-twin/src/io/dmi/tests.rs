//! Over real sockets: h2 at the other end, or bytes as grpc-go sends them.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use bus::Mono;
use h2::server;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;
use crate::dmi::Method;
use crate::dmi::api::{MapperInfo, MapperRegisterRequest, ReportDeviceStatesRequest};

/// Many times what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn on_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() });
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A whole call, as a client sends it that names a path for an authority.
fn called(authority: &str, path: &str, message: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        hpack::encode(name.as_bytes(), value.as_bytes(), &mut fields);
    }
    let parts = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 4, 1, &fields),
        frame(0, 1, 1, &grpc::framed(message)),
    ];
    parts.concat()
}

/// The data and the headers of a stream, until it ends.
async fn answered(connection: &mut UnixStream) -> (Vec<u8>, Vec<(String, String)>) {
    let (mut data, mut fields, mut decoder) = (Vec::new(), Vec::new(), hpack::Decoder::default());
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        connection.read_exact(&mut payload).await.unwrap();
        match kind {
            0 => data.extend(payload),
            1 => {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                let list = decoder.decode(&payload).unwrap().into_iter();
                fields.extend(list.map(|(name, value)| (text(name), text(value))));
            }
            _ => continue,
        }
        if flags & 1 != 0 {
            return (data, fields);
        }
    }
}

/// A desk in a room of its own, and what the node would hear of it.
fn desk() -> (TempDir, PathBuf, DmiHandle, mpsc::Receiver<DmiEvent>) {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("edge/dmi.sock");
    let (handle, events) = start(&path, Clock::start()).unwrap();
    (room, path, handle, events)
}

fn field<'f>(fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn a_call_for_an_authority_that_is_a_path_is_answered() {
    on_runtime(async {
        let (_room, path, _handle, mut events) = desk();
        let info = MapperInfo { name: "m".to_owned(), ..MapperInfo::default() };
        let register = MapperRegisterRequest { with_data: true, mapper: Some(info) };
        for authority in ["/etc/kubeedge/dmi.sock", "%2Fetc%2Fkubeedge%2Fdmi.sock", "localhost"] {
            let mut connection = UnixStream::connect(&path).await.unwrap();
            let name = "/v1beta1.DeviceManagerService/MapperRegister";
            connection.write_all(&called(authority, name, &register.encode_to_vec())).await.unwrap();
            let Some(DmiEvent::Request(request, answer)) = events.recv().await else { panic!("a request") };
            assert_eq!(request, Request::Register(register.clone()));
            answer.done(Bytes::from("reply"));
            let (data, fields) = answered(&mut connection).await;
            assert_eq!(data, grpc::framed(b"reply"), "{authority}");
            assert_eq!(field(&fields, "grpc-status"), Some("0"));
        }
    });
}

#[test]
fn what_is_refused_has_its_reason() {
    on_runtime(async {
        let (_room, path, _handle, mut events) = desk();
        let states = ReportDeviceStatesRequest { device_name: "d".to_owned(), ..Default::default() };
        let states = states.encode_to_vec();
        let name = "/v1beta1.DeviceManagerService/ReportDeviceStates";
        for (refuse, code, why) in [
            ((|answer| answer.refused("no such device".to_owned())) as fn(Answered), "2", "no such device"),
            (Answered::unkept, "14", "the disk refuses writes"),
            (drop, "14", "the edge is stopping"),
        ] {
            let mut connection = UnixStream::connect(&path).await.unwrap();
            connection.write_all(&called("/dmi.sock", name, &states)).await.unwrap();
            let Some(DmiEvent::Request(_, answer)) = events.recv().await else { panic!("a request") };
            refuse(answer);
            let (data, fields) = answered(&mut connection).await;
            let status = (field(&fields, "grpc-status"), field(&fields, "grpc-message"));
            assert_eq!((data.len(), status), (0, (Some(code), Some(why))));
        }
        for (name, message, code) in [
            ("/v1beta1.DeviceManagerService/Reflect", &states[..], "12"),
            ("/grpc.health.v1.Health/Check", &[], "12"),
            ("/v1beta1.DeviceManagerService/MapperRegister", &[0xff], "3"),
        ] {
            let mut connection = UnixStream::connect(&path).await.unwrap();
            connection.write_all(&called("/dmi.sock", name, message)).await.unwrap();
            assert_eq!(field(&answered(&mut connection).await.1, "grpc-status"), Some(code), "{name}");
        }
    });
}

#[test]
fn what_is_no_http2_ends_its_connection_and_no_other() {
    on_runtime(async {
        let (_room, path, _handle, mut events) = desk();
        for bytes in [&b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..], &[0xff; 100]] {
            let mut connection = UnixStream::connect(&path).await.unwrap();
            connection.write_all(bytes).await.unwrap();
            // What h2 says first may still come, then the end.
            let mut rest = Vec::new();
            match connection.read_to_end(&mut rest).await {
                Err(why) => assert_eq!(why.kind(), ErrorKind::ConnectionReset),
                Ok(_) => assert!(rest.len() < 1000),
            }
        }
        let mut connection = UnixStream::connect(&path).await.unwrap();
        let name = "/v1beta1.DeviceManagerService/ReportDeviceStates";
        connection.write_all(&called("/dmi.sock", name, &[])).await.unwrap();
        assert!(matches!(events.recv().await, Some(DmiEvent::Request(Request::States(_), _))));
    });
}

#[test]
fn a_socket_is_taken_over_from_the_dead_and_from_nobody_else() {
    on_runtime(async {
        let (room, path, handle, events) = desk();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let second = start(&path, Clock::start()).unwrap_err();
        assert_eq!(second.source.kind(), ErrorKind::AddrInUse);
        drop((handle, events));
        while path.exists() {
            tokio::task::yield_now().await;
        }
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left by a process that was killed");
        drop(start(&path, Clock::start()).unwrap());
        let file = room.path().join("a-file");
        std::fs::write(&file, "precious").unwrap();
        let refused = start(&file, Clock::start()).unwrap_err();
        assert_eq!(refused.source.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    });
}

fn call(address: &Path, expires: Option<Mono>) -> Call {
    let address = address.to_str().unwrap().to_owned();
    Call { id: 7, address, method: Method::UpdateDevice, body: Bytes::from("device"), expires }
}

/// A mapper that answers each call with this status; the paths it was called by.
fn mapper(path: &Path, status: &'static str, message: &'static str) -> mpsc::Receiver<String> {
    let listener = UnixListener::bind(path).unwrap();
    let (tell, told) = mpsc::channel(16);
    tokio::task::spawn_local(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = server::handshake(socket).await.unwrap();
            while let Some(Ok((request, mut response))) = connection.accept().await {
                tell.send(request.uri().path().to_owned()).await.unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(status));
                trailers.insert("grpc-message", HeaderValue::from_static(message));
                let mut body = response.send_response(Response::new(()), false).unwrap();
                body.send_data(grpc::framed(&[]), false).unwrap();
                body.send_trailers(trailers).unwrap();
            }
        }
    });
    told
}

#[test]
fn a_call_ends_as_the_mapper_says_and_is_not_sent_when_it_is_late() {
    on_runtime(async {
        let room = tempfile::tempdir().unwrap();
        let (path, clock) = (room.path().join("m.sock"), Clock::start());
        let gone = client::perform(&call(&path, None), clock).await;
        assert!(matches!(gone, Answer::Unreachable(_)), "{gone:?}");
        tokio::task::LocalSet::new()
            .run_until(async {
                for (status, message, expected) in [
                    ("0", "", Answer::Taken),
                    ("2", "no%20line", Answer::Refused("no line".to_owned())),
                    ("12", "", Answer::Refused("gRPC status 12".to_owned())),
                    ("4", "too slow", Answer::Lost("too slow".to_owned())),
                ] {
                    let path = room.path().join(status);
                    let mut told = mapper(&path, status, message);
                    assert_eq!(client::perform(&call(&path, Some(Mono(0))), clock).await, Answer::Late);
                    let expires = Some(clock.now().mono + PATIENCE);
                    assert_eq!(client::perform(&call(&path, expires), clock).await, expected);
                    let name = told.recv().await.unwrap();
                    assert_eq!(name, "/v1beta1.DeviceMapperService/UpdateDevice");
                    assert!(told.try_recv().is_err(), "the late one was not sent");
                }
            })
            .await;
    });
}

/// A stopped process: its socket takes connections, and would read what is sent when it goes on.
#[test]
fn nothing_is_sent_to_a_mapper_that_does_not_answer_a_ping() {
    on_runtime(async {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("m.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answer = client::perform(&call(&path, None), Clock::start()).await;
        assert_eq!(answer, Answer::Unreachable("it does not answer".to_owned()));
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        connection.read_to_end(&mut read).await.unwrap();
        assert!(!read.windows(6).any(|part| part == b"device"), "the request is not in the socket");
    });
}
