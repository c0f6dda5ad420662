//! The proxy before real sockets and terminals, and what it has recorded played back.

#![expect(clippy::unwrap_used, reason = "helpers of tests: whatever is not as expected fails the test")]

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use kubebus_sdk_testing::{Counts, Endpoint, Fault, Garbage, Mode, Port, Proxy, Recording, Replay};
use rustix::pty::OpenptFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(15);

/// Long enough to see that nothing comes.
const QUIET: Duration = Duration::from_millis(300);

/// Answers four bytes with the same four, each one larger.
fn echo(port: &Port) -> JoinSet<()> {
    let listener = port.listen().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut lines = JoinSet::new();
        while let Ok((mut line, _)) = listener.accept().await {
            lines.spawn(async move {
                let mut four = [0; 4];
                while line.read_exact(&mut four).await.is_ok() {
                    line.write_all(&four.map(|byte| byte + 1)).await.unwrap();
                }
            });
        }
    });
    tasks
}

async fn before_echo() -> (Proxy, SocketAddr, JoinSet<()>) {
    let port = Port::reserve().unwrap();
    let device = echo(&port);
    let proxy = Proxy::before(&Endpoint::Tcp(port.address().unwrap())).await.unwrap();
    let Endpoint::Tcp(at) = *proxy.at() else { panic!("before TCP is TCP") };
    (proxy, at, device)
}

/// What comes within a moment.
async fn hear(line: &mut TcpStream) -> Vec<u8> {
    let mut heard = vec![0; 64];
    match timeout(QUIET, line.read(&mut heard)).await {
        Ok(Ok(n)) => heard[..n].to_vec(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

async fn exactly<const N: usize>(line: &mut TcpStream) -> [u8; N] {
    let mut heard = [0; N];
    timeout(PATIENCE, line.read_exact(&mut heard)).await.expect("nothing comes").unwrap();
    heard
}

#[tokio::test]
async fn bytes_pass_and_are_counted() {
    let (proxy, at, _device) = before_echo().await;
    let mut line = TcpStream::connect(at).await.unwrap();
    line.write_all(b"1234").await.unwrap();
    assert_eq!(exactly(&mut line).await, *b"2345");
    let one = Counts {
        connections: 1,
        open: 1,
        requests: 1,
        answers: 1,
        bytes_to_device: 4,
        bytes_to_mapper: 4,
        overlaps: 0,
    };
    assert_eq!(proxy.counts(), one);
    drop(line);
    assert!(proxy.reaches(PATIENCE, |counts| counts.open == 0).await);
}

#[tokio::test]
async fn a_refused_connection_is_refused_and_the_port_comes_back() {
    let (proxy, at, _device) = before_echo().await;
    let mut line = TcpStream::connect(at).await.unwrap();
    line.write_all(b"1234").await.unwrap();
    exactly::<4>(&mut line).await;
    proxy.set(Mode::Refuse);
    assert_eq!(timeout(PATIENCE, line.read(&mut [0])).await.unwrap().unwrap_or(0), 0, "the old one ends");
    let refused = async {
        while TcpStream::connect(at).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    proxy.set(Mode::Pass);
    let again = async {
        loop {
            if let Ok(line) = TcpStream::connect(at).await {
                return line;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let mut line = timeout(PATIENCE, again).await.unwrap();
    line.write_all(b"1234").await.unwrap();
    assert_eq!(exactly(&mut line).await, *b"2345");
}

#[tokio::test]
async fn each_fault_does_to_a_line_what_it_is_called() {
    let (proxy, at, _device) = before_echo().await;
    let ask = async |fault: Fault| {
        proxy.arm(fault);
        let mut line = TcpStream::connect(at).await.unwrap();
        line.write_all(b"1234").await.unwrap();
        assert!(fault == Fault::LateAnswer || proxy.struck(PATIENCE).await, "{fault:?}");
        line
    };
    assert_eq!(exactly(&mut ask(Fault::CutAnswer).await).await, *b"23");
    assert_eq!(hear(&mut ask(Fault::CutRequest).await).await, b"");
    assert_eq!(hear(&mut ask(Fault::CutAfterRequest).await).await, b"");
    assert_eq!(exactly(&mut ask(Fault::Garbage(Garbage::Byte(9))).await).await, [9; 4]);
    let mut line = ask(Fault::LateAnswer).await;
    assert_eq!(hear(&mut line).await, b"");
    line.write_all(b"5678").await.unwrap();
    assert_eq!(exactly(&mut line).await, *b"23456789");
}

#[tokio::test]
async fn a_frozen_line_holds_what_it_has_and_a_half_open_one_swallows_it() {
    let (proxy, at, _device) = before_echo().await;
    let mut line = TcpStream::connect(at).await.unwrap();
    for (mode, later) in [(Mode::Freeze, true), (Mode::HalfOpen, false), (Mode::Mute, false)] {
        proxy.set(mode);
        line.write_all(b"1234").await.unwrap();
        assert_eq!(hear(&mut line).await, b"", "{mode:?}");
        proxy.set(Mode::Pass);
        if later {
            assert_eq!(exactly(&mut line).await, *b"2345");
        }
        line.write_all(b"5678").await.unwrap();
        assert_eq!(exactly(&mut line).await, *b"6789", "{mode:?}");
    }
}

#[tokio::test]
async fn datagrams_pass_and_get_lost_and_come_late() {
    let device = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::before(&Endpoint::Udp(device.local_addr().unwrap())).await.unwrap();
    let Endpoint::Udp(at) = *proxy.at() else { panic!("before UDP is UDP") };
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut datagram = [0; 64];
        while let Ok((n, from)) = device.recv_from(&mut datagram).await {
            device.send_to(&datagram[..n], from).await.unwrap();
        }
    });
    let mapper = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    mapper.connect(at).await.unwrap();
    let hear = async |limit| {
        let mut datagram = [0; 64];
        let n = timeout(limit, mapper.recv(&mut datagram)).await.ok()?.unwrap();
        Some(datagram[..n].to_vec())
    };
    mapper.send(b"one").await.unwrap();
    assert_eq!(hear(PATIENCE).await.unwrap(), b"one");
    proxy.set(Mode::Mute);
    mapper.send(b"lost").await.unwrap();
    assert_eq!(hear(QUIET).await, None);
    proxy.set(Mode::Pass);
    proxy.arm(Fault::LateAnswer);
    mapper.send(b"late").await.unwrap();
    assert_eq!(hear(QUIET).await, None);
    mapper.send(b"next").await.unwrap();
    assert_eq!(
        (hear(PATIENCE).await.unwrap(), hear(PATIENCE).await.unwrap()),
        (b"late".to_vec(), b"next".to_vec())
    );
}

/// Reads so many bytes from a terminal that does not block.
async fn from_terminal(terminal: &OwnedFd, count: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    let come = async {
        while heard.len() < count {
            let mut some = [0; 64];
            match rustix::io::read(terminal, &mut some) {
                Ok(n) => heard.extend_from_slice(&some[..n]),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, come).await.expect("nothing comes");
    heard
}

#[tokio::test]
async fn a_serial_line_passes_every_byte_as_it_is() {
    let device = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&device).unwrap();
    rustix::pty::unlockpt(&device).unwrap();
    rustix::fs::fcntl_setfl(&device, rustix::fs::OFlags::NONBLOCK).unwrap();
    let path = rustix::pty::ptsname(&device, Vec::new()).unwrap().into_string().unwrap();
    let proxy = Proxy::before(&Endpoint::Serial(path.into())).await.unwrap();
    let Endpoint::Serial(at) = proxy.at() else { panic!("before a serial line is a serial line") };
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
    let mapper = rustix::fs::open(at, flags, rustix::fs::Mode::empty()).unwrap();

    let every: Vec<u8> = (0..=255).collect();
    rustix::io::write(&mapper, &every).unwrap();
    assert_eq!(from_terminal(&device, 256).await, every);
    rustix::io::write(&device, &every).unwrap();
    assert_eq!(from_terminal(&mapper, 256).await, every);
    assert_eq!(proxy.counts().bytes_to_mapper, 256);
}

#[tokio::test]
async fn a_recording_plays_the_device_and_tells_what_is_asked_instead() {
    let (proxy, at, _device) = before_echo().await;
    proxy.record();
    let mut line = TcpStream::connect(at).await.unwrap();
    for ask in [b"1234", b"abcd"] {
        line.write_all(ask).await.unwrap();
        exactly::<4>(&mut line).await;
    }
    let recording: Recording = proxy.recorded().to_string().parse().unwrap();
    assert_eq!(recording.entries().len(), 4);

    for (second, end) in
        [(b"abcd", Ok(())), (b"abce", Err("line 3: the mapper asked [61, 62, 63, 65]".to_owned()))]
    {
        let replay = Replay::start(recording.clone()).await.unwrap();
        let Endpoint::Tcp(at) = *replay.at() else { panic!("a replay speaks TCP") };
        let mut line = TcpStream::connect(at).await.unwrap();
        line.write_all(b"1234").await.unwrap();
        assert_eq!(exactly(&mut line).await, *b"2345");
        line.write_all(second).await.unwrap();
        drop(hear(&mut line).await);
        assert_eq!(timeout(PATIENCE, replay.end()).await.unwrap(), end);
    }
}
