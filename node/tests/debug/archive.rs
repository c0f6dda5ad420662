//! `debug collect`: secrets are planted wherever a node has words, and none may come out.

use std::path::Path;
use std::process::Command;

use crate::harness::Cluster;
use crate::harness::process::run;

/// Each is a secret in the place that its name says.
const CANARIES: [&str; 9] = [
    "canary-in-a-comment",
    "canary-in-a-password",
    "canary-in-an-address",
    "canary-of-a-device",
    "canary-in-a-log",
    "canary-in-a-header",
    "Y2FuYXJ5IG9mIGEgcGFzc3dvcmQ",
    "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk",
    "MC4CAQAwBQYDK2VwBCIEIJ",
];

const DEVICE: &str = "\
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: plc, namespace: water}
spec:
  properties:
    - {name: level, type: INT, accessMode: ReadOnly}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: plc, namespace: water}
spec:
  deviceModelRef: {name: plc}
  nodeName: a
  protocol:
    protocolName: opcua
    configData: {url: 'opc.tcp://operator:canary-in-an-address@10.0.0.7:4840', password: canary-of-a-device}
";

const LOG: &str = "\
2026-11-30T09:00:00Z INFO a line that helps
2026-11-30T09:00:01Z INFO joining with --token kb1.mfrggzdfmztwq2lkmfrggzdfmztwq2lk.canary-in-a-log
password=canary-in-a-log&user=alice
Authorization: Bearer canary-in-a-header
alice:$7$101$c2FsdHNhbHQ=$Y2FuYXJ5IG9mIGEgcGFzc3dvcmQ=
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ
-----END PRIVATE KEY-----
";

pub(crate) fn has_what_helps_and_no_secret() {
    let cluster = Cluster::start();
    let a = cluster.edge("a");
    cluster.apply(DEVICE);
    let token = cluster.token();
    cluster.cloud.say(&["wireguard", "list"]);
    let log = cluster.file("log", &format!("{LOG}{token}\n"));
    let with_comment = format!("# canary-in-a-comment\n{}", std::fs::read_to_string(a.config()).unwrap());
    std::fs::write(a.config(), with_comment).unwrap();

    for (node, config) in [(&cluster.cloud, None), (&a, None), (&a, Some("password: canary-in-a-password\n"))]
    {
        if let Some(config) = config {
            std::fs::write(node.config(), config).unwrap();
        }
        let file = cluster.path("help.tar.gz");
        let args = ["debug", "collect", "-o", file.to_str().unwrap(), "--log-file", log.to_str().unwrap()];
        let said = node.say(&args);
        assert!(said.contains("help.tar.gz: ") && said.contains("look at it before you send it"), "{said}");
        let text = unpacked(&file);
        // A file that is there is never overwritten.
        node.run(&args).refused(1, &["name a file that is not there with --output"]);
        std::fs::remove_file(&file).unwrap();
        let secrets = CANARIES.iter().copied().chain([token.as_str()]);
        let found: Vec<&str> = secrets.filter(|secret| text.contains(secret)).collect();
        assert!(found.is_empty(), "{found:?} in the archive of {}", node.name);
        assert_no_key(&text, &node.data_dir().join("node.key.der"));
        for help in [
            "a line that helps",
            "Start with diagnose.json",
            "\"version\"",
            "--- /proc/net/dev",
            "node.key.der",
        ] {
            assert!(text.contains(help), "no '{help}' in the archive of {}", node.name);
        }
        if config.is_none() {
            let parts =
                ["status.json", "diagnose.json", "check.json", "metrics.txt", "config.yaml", "log.txt"];
            parts.iter().for_each(|part| assert!(said.contains(part), "{said}"));
            assert!(text.contains("127."), "addresses stay");
        }
    }

    // The log of a running node is found by itself: the harness sends it to a file.
    let file = cluster.path("own.tar.gz");
    let said = cluster.cloud.say(&["debug", "collect", "-o", file.to_str().unwrap()]);
    assert!(said.contains("log.txt"), "{said}");
    assert!(unpacked(&file).contains("cloud starts"));
}

/// All files of an archive, one after the other, as everybody's tar unpacks them.
fn unpacked(archive: &Path) -> String {
    let mut tar = Command::new("tar");
    tar.arg("-xzOf").arg(archive);
    run(tar).expect(0).stdout
}

/// Neither as hexadecimal nor as base64, whatever part of three bytes it begins at.
fn assert_no_key(text: &str, key: &Path) {
    let key = std::fs::read(key).unwrap();
    let middle = &key[key.len() / 2..key.len() / 2 + 18];
    let hex: String = middle.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!text.to_lowercase().contains(&hex));
    for start in 0..3 {
        let base64 = data_encoding::BASE64_NOPAD.encode(&middle[start..start + 15]);
        assert!(!text.contains(&base64));
    }
}
