use super::*;
use serde_json::{Value, json};

fn read(settings: Value) -> Result<Config, String> {
    serde_json::from_value(settings).map_err(|e| e.to_string())
}

fn tcp(address: &str) -> Link {
    Link::Tcp { address: address.into(), framing: Framing::Tcp }
}

fn serial(path: &str, baud: u32, parity: Parity, stop_bits: u8) -> Link {
    Link::Serial { path: path.into(), speed: Speed { baud, parity, data_bits: 8, stop_bits } }
}

#[test]
fn our_settings_are_read_as_documented() {
    let config = read(json!({"tcp": "10.0.0.5:1502", "unit": 7, "timeout_ms": 300})).unwrap();
    let peer = Peer { unit: 7, timeout: Duration::from_millis(300), echo: true };
    assert_eq!(config, Config { link: tcp("10.0.0.5:1502"), peer });
    assert_eq!(read(json!({"tcp": "plc.local"})).unwrap().link, tcp("plc.local:502"));
    assert_eq!(read(json!({"tcp": "[::1]"})).unwrap().link, tcp("[::1]:502"));
    assert_eq!(read(json!({"tcp": "[::1]:503"})).unwrap().link, tcp("[::1]:503"));
    let over = Link::Tcp { address: "gateway:4001".into(), framing: Framing::Rtu };
    assert_eq!(read(json!({"rtu_over_tcp": "gateway:4001"})).unwrap().link, over);
    let config =
        read(json!({"serial": "/dev/ttyUSB0", "baud": 19200, "parity": "none", "echo": false})).unwrap();
    assert_eq!(config.link, serial("/dev/ttyUSB0", 19200, Parity::None, 2));
    assert!(!config.peer.echo);
    assert_eq!(
        read(json!({"serial": "/dev/ttyS0"})).unwrap().link,
        serial("/dev/ttyS0", 9600, Parity::Even, 1),
        "the specification's own"
    );
}

#[test]
fn kubeedges_settings_are_read_as_they_are() {
    let config =
        read(json!({"communicateMode": "TCP", "ip": "10.244.1.13", "port": "5502", "slaveID": 1})).unwrap();
    assert_eq!((config.link, config.peer.unit), (tcp("10.244.1.13:5502"), 1));
    let config = read(json!({"ip": "172.17.0.3", "port": 1502})).unwrap();
    assert_eq!(config.link, tcp("172.17.0.3:1502"));
    let config = read(json!({
        "communicateMode": "RTU", "serialPort": "/dev/ttyS0", "baudRate": "115200", "dataBits": 8, "parity": "even",
        "stopBits": "1", "slaveID": "3", "timeout": 5, "serialType": "RS485"
    }));
    let config = config.unwrap();
    assert_eq!(config.link, serial("/dev/ttyS0", 115_200, Parity::Even, 1));
    assert_eq!(config.peer, Peer { unit: 3, timeout: Duration::from_secs(5), echo: true });
    let both =
        read(json!({"communicateMode": "RTU", "serialName": "/dev/ttyS1", "parity": "N", "ip": "10.0.0.1"}));
    assert_eq!(both.unwrap().link, serial("/dev/ttyS1", 9600, Parity::None, 2));
    assert_eq!(
        read(json!({"ip": "10.0.0.1", "timeout": 2000})).unwrap().peer.timeout,
        Duration::from_secs(2)
    );
}

#[test]
fn an_error_names_the_field() {
    let table = [
        (json!({}), "where is the device?"),
        (json!({"tcp": "10.0.0.5", "serial": "/dev/ttyS0"}), "serial, tcp: only one"),
        (json!({"tcp": "10.0.0.5:x"}), "tcp: '10.0.0.5:x'"),
        (json!({"tcp": "10.0.0.5:70000"}), "tcp: "),
        (json!({"tcp": ""}), "tcp: "),
        (json!({"tcp": "::1"}), "tcp: "),
        (json!({"tcp": "10.0.0.5", "port": -1}), "-1 is out of range"),
        (json!({"tcp": "10.0.0.5:502", "port": 503}), "port: "),
        (json!({"tcp": "10.0.0.5", "unit": 256}), "256 is out of range"),
        (json!({"tcp": "10.0.0.5", "unit": "one"}), "'one' is not a number"),
        (json!({"tcp": "10.0.0.5", "unit": 1, "slaveID": 2}), "unit, slaveID"),
        (json!({"tcp": "10.0.0.5", "timeout_ms": 5}), "timeout_ms: 10 to 8000"),
        (json!({"tcp": "10.0.0.5", "units": 1}), "unknown field `units`"),
        (json!({"serial": "/dev/ttyS0", "unit": 0}), "unit: "),
        (json!({"serial": "/dev/ttyS0", "unit": 248}), "unit: "),
        (json!({"serial": "/dev/ttyS0", "parity": "mark"}), "parity: "),
        (json!({"serial": "/dev/ttyS0", "stop_bits": 3}), "stop_bits: "),
        (json!({"serial": "/dev/ttyS0", "data_bits": 9}), "data_bits: "),
        (json!({"serial": "/dev/ttyS0", "baud": 1}), "baud: "),
        (json!({"communicateMode": "UDP", "ip": "10.0.0.1"}), "communicateMode: "),
        (json!({"communicateMode": "RTU", "ip": "10.0.0.1"}), "communicateMode: RTU needs"),
        (json!({"communicateMode": "TCP", "serialPort": "/dev/ttyS0"}), "communicateMode: TCP needs"),
    ];
    for (settings, expected) in table {
        let error = read(settings.clone()).unwrap_err();
        assert!(error.contains(expected), "{settings}: {error}");
    }
}
