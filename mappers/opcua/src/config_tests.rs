//! Which settings make sense.

use super::*;

fn settings(json: &str) -> Result<Settings, String> {
    let config: Config = serde_json::from_str(json).map_err(|e| e.to_string())?;
    Settings::of(&config).map_err(|e| e.to_string())
}

#[test]
fn kubeedges_keys_and_ours_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let file = file.display();
    let ours = format!(
        r#"{{"url":"opc.tcp://h:1","security":"sign","policy":"Basic256Sha256","user":"u","password-file":"{file}",
        "certificate":"/c.der","private-key":"/k.pem","timeout":3}}"#
    );
    let kubeedges = format!(
        r#"{{"url":"opc.tcp://h:1","securityMode":"Sign","securityPolicy":"Basic256Sha256","userName":"u","password":"{file}",
        "certificate":"/c.der","privateKey":"/k.pem","timeout":3}}"#
    );
    for json in [ours, kubeedges] {
        let settings = settings(&json).unwrap();
        assert_eq!(
            (settings.mode, settings.policy),
            (MessageSecurityMode::Sign, SecurityPolicy::Basic256Sha256)
        );
        assert_eq!(settings.user, Some(("u".to_owned(), Secret("hunter2".to_owned()))));
        assert_eq!(settings.own, Some(("/c.der".into(), "/k.pem".into())));
        assert_eq!(settings.timeout, Duration::from_secs(3));
    }
}

#[test]
fn half_of_the_security_settings_implies_the_safe_other_half() {
    use MessageSecurityMode as Mode;
    let table = [
        ("", Mode::None, SecurityPolicy::None),
        (r#","security":"none""#, Mode::None, SecurityPolicy::None),
        (r#","policy":"None""#, Mode::None, SecurityPolicy::None),
        (r#","security":"sign""#, Mode::Sign, SecurityPolicy::Basic256Sha256),
        (r#","policy":"Aes256Sha256RsaPss""#, Mode::SignAndEncrypt, SecurityPolicy::Aes256Sha256RsaPss),
    ];
    for (keys, mode, policy) in table {
        let settings = settings(&format!(r#"{{"url":"opc.tcp://h:1"{keys}}}"#)).unwrap();
        assert_eq!((settings.mode, settings.policy), (mode, policy), "{keys}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_the_name_of_its_key() {
    let table = [
        ("{}", "url"),
        (r#"{"url":"http://h"}"#, "opc.tcp://10.0.0.9:4840"),
        (r#"{"url":"opc.tcp://"}"#, "url"),
        (r#"{"url":"opc.tcp://h","securty":"sign"}"#, "securty"),
        (r#"{"url":"opc.tcp://h","security":"sign","policy":"None"}"#, "contradict"),
        (r#"{"url":"opc.tcp://h","security":"none","policy":"Basic256Sha256"}"#, "contradict"),
        (r#"{"url":"opc.tcp://h","policy":"Basic256"}"#, "Basic256Sha256"),
        (r#"{"url":"opc.tcp://h","user":"u"}"#, "password"),
        (r#"{"url":"opc.tcp://h","password":"p"}"#, "user"),
        (r#"{"url":"opc.tcp://h","user":"u","password":"p","password-file":"/f"}"#, "password-file"),
        (r#"{"url":"opc.tcp://h","user":"u","password":"/no/such/file"}"#, "password-file /no/such/file"),
        (r#"{"url":"opc.tcp://h","certificate":"/c.der"}"#, "private-key"),
        (r#"{"url":"opc.tcp://h","timeout":0}"#, "timeout"),
        (r#"{"url":"opc.tcp://h","timeout":10}"#, "timeout"),
        (r#"{"url":"opc.tcp://h","trust":"sha256:abc"}"#, "trust"),
    ];
    for (json, named) in table {
        let error = settings(json).unwrap_err();
        assert!(error.contains(named), "{json}: {error}");
    }
}

#[test]
fn the_schema_knows_every_key_by_each_of_its_names() {
    let schema = kubebus_sdk::schemars::schema_for!(Config);
    assert_eq!(schema.get("additionalProperties"), Some(&false.into()));
    for (key, alias) in ALIASES {
        let property = schema.pointer(&format!("/properties/{key}"));
        assert!(property.is_some(), "{key}");
        assert_eq!(schema.pointer(&format!("/properties/{alias}")), property, "{alias}");
    }
}

#[test]
fn a_password_is_not_shown() {
    let config: Config =
        serde_json::from_str(r#"{"url":"opc.tcp://h","user":"u","password":"hunter2"}"#).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}
