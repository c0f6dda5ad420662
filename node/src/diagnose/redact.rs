//! Taking secrets out of what leaves the site for somebody else to read.
//!
//! What is not known to be harmless goes: fields by their names, and in text whatever looks like a key, wherever it
//! stands. That a hash or an id goes with it is no harm; a key that stays is.

use serde_json::{Map, Value};

/// What stands in the place of a secret.
pub const REMOVED: &str = "(removed)";

/// Parts of field names that say that a value is secret, in lower case and without `-` and `_`.
const SECRET_NAMES: [&str; 15] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "privatekey",
    "psk",
    "presharedkey",
    "apikey",
    "authorization",
    "cookie",
    "community",
    "pin",
];

/// Of these the whole name counts: `hash` is secret, `hashrate` is not.
const SECRET_WHOLE: [&str; 1] = ["hash"];

/// Of these the last word counts: `authPass` and `basicAuth` are secret, `authMode` and `keyspace` are not.
const SECRET_LAST: [&str; 4] = ["key", "keys", "pass", "auth"];

/// Last words of names that only say where something is, or how much of it there is: `tokenFile`, `key_count`.
const HARMLESS_LAST: [&str; 8] = ["file", "path", "socket", "count", "total", "len", "age", "ms"];

/// `privPass`, `priv_pass` and `PRIV-PASS` are of two words.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (c.is_ascii_uppercase() && was_small) {
            words.push(String::new());
        }
        was_small = c.is_ascii_lowercase() || c.is_ascii_digit();
        if let Some(word) = words.last_mut().filter(|_| c.is_ascii_alphanumeric()) {
            word.push(c.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

pub(crate) fn is_secret_name(name: &str) -> bool {
    let words = words_of(name);
    let Some(last) = words.last().map(String::as_str) else { return false };
    let plain = words.concat();
    let is_pin = |part: &&&str| **part != "pin" || plain.ends_with("pin") || plain.ends_with("pincode");
    let is_named = SECRET_NAMES.iter().filter(is_pin).any(|part| plain.contains(part))
        || SECRET_WHOLE.contains(&plain.as_str())
        || SECRET_LAST.contains(&last)
        || plain.ends_with("key");
    is_named && !(words.len() > 1 && HARMLESS_LAST.contains(&last))
}

/// Fields that say what the others of their object are about: `{"name": "password", "value": ..}`.
const NAMING: [&str; 3] = ["name", "key", "property"];

fn is_about_a_secret(fields: &Map<String, Value>) -> bool {
    let names = NAMING.iter().filter_map(|naming| fields.get(*naming)?.as_str());
    names.into_iter().any(is_secret_name)
}

/// Removes secrets from a document, in fields and in texts.
pub fn document(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_about = is_about_a_secret(fields);
            for (name, field) in fields.iter_mut() {
                let is_secret = is_secret_name(name) || (is_about && !NAMING.contains(&name.as_str()));
                if is_secret && !field.is_null() && !field.is_boolean() {
                    *field = REMOVED.into();
                } else {
                    document(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(document),
        Value::String(words) => *words = text(words),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Removes secrets from lines of text: logs, configuration that could not be read as such.
pub fn text(input: &str) -> String {
    let (mut is_in_pem, mut block) = (false, None);
    let lines = input.split('\n').map(|one| {
        if one.contains("-----BEGIN ") {
            is_in_pem = true;
        }
        let was_in_pem = is_in_pem;
        if one.contains("-----END ") {
            is_in_pem = false;
        }
        if block.is_some_and(|indent| is_in_block(one, indent)) {
            return REMOVED.to_owned();
        }
        block = block_of(one);
        if was_in_pem { REMOVED.to_owned() } else { line(&without_hashes(one)) }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

/// How deep a line is indented whose secret is in the lines below it: `password: |`, or nothing behind the colon.
fn block_of(line: &str) -> Option<usize> {
    let (before, after) = line.rsplit_once(':')?;
    let is_below = after.trim().is_empty() || after.trim_start().starts_with(['|', '>']);
    (is_below && is_secret_name(last_word(before))).then(|| indent_of(line))
}

/// What is indented more, and the items of a list that YAML lets stand as deep as its name.
fn is_in_block(line: &str, indent: usize) -> bool {
    let depth = indent_of(line);
    line.trim().is_empty() || depth > indent || (depth == indent && line[depth..].starts_with("- "))
}

/// How password hashes begin, as crypt(5) and mosquitto write them: `$7$101$salt$hash`.
const HASHES: [&str; 7] = ["$5$", "$6$", "$7$", "$2a$", "$2b$", "$2y$", "$argon2"];

/// Each goes up to the next space or quote: what is in it may look like anything.
fn without_hashes(line: &str) -> String {
    let mut line = line.to_owned();
    while let Some(at) = HASHES.iter().filter_map(|start| line.find(start)).min() {
        let end = line[at..].find([' ', '"', '\'', ',', '\t']).map_or(line.len(), |len| at + len);
        line.replace_range(at..end, REMOVED);
    }
    line
}

/// `name: value`, `name=value`, `"name":"value"`, then words that look like keys.
fn line(input: &str) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find([':', '=']) {
        let (before, after) = rest.split_at(at);
        let name = last_word(before);
        out.push_str(&words(before));
        out.push_str(&after[..1]);
        let after = &after[1..];
        rest = after;
        if is_secret_name(name) || is_login(before, after) {
            let (start, end) = secret_in(after, name);
            out.push_str(&after[..start]);
            if end > start {
                out.push_str(REMOVED);
            }
            rest = &after[end..];
        }
    }
    out.push_str(&words(rest));
    out
}

fn last_word(before: &str) -> &str {
    let trimmed = before.trim_end_matches([' ', '"', '\'', '\\']);
    trimmed.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).next().unwrap_or_default()
}

/// `//user:password@host`, `//:password@host`: what stands between the colon and the at sign.
fn is_login(before: &str, after: &str) -> bool {
    let is_after_scheme = before.rfind("//").is_some_and(|at| !before[at + 2..].contains(['/', ' ']));
    let end = after.find([' ', '"']).unwrap_or(after.len());
    is_after_scheme && after[..end].contains('@')
}

/// From where to where a secret goes: between its quotes, which may be escaped as in JSON within JSON; else to the end of
/// the line where a space is before it, as in YAML and behind a header's name, and up to a space or quote where none is.
fn secret_in(after: &str, name: &str) -> (usize, usize) {
    let lead = after.len() - after.trim_start_matches(' ').len();
    let value = &after[lead..];
    if let Some(quote) = quote_of(value) {
        let start = lead + quote.len();
        return (start, start + quoted_len(&value[quote.len()..], quote));
    }
    if lead > 0 || name.eq_ignore_ascii_case("authorization") {
        return (lead, after.len());
    }
    (0, value.find([' ', '\t', '"', '\'']).unwrap_or(value.len()))
}

/// `"`, `'`, `\"`, `\\\"`.
fn quote_of(value: &str) -> Option<&str> {
    let len = value.len() - value.trim_start_matches('\\').len();
    value[len..].starts_with(['"', '\'']).then(|| &value[..=len])
}

/// Up to the quote that closes: one with more backslashes before it is of the secret itself.
fn quoted_len(value: &str, quote: &str) -> usize {
    let closes = |at: &usize| *at == 0 || value.as_bytes()[at - 1] != b'\\';
    value.match_indices(quote).map(|(at, _)| at).find(closes).unwrap_or(value.len())
}

/// Shorter runs are names, addresses and numbers.
const KEY_LEN: usize = 32;

/// Replaces words that look like keys: join tokens, password hashes, and long runs of letters with digits among them.
fn words(input: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-' | '.' | '$');
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while !rest.is_empty() {
        let len = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(len);
        out.push_str(if is_key(word) { REMOVED } else { word });
        let gap = after.find(is_of_word).unwrap_or(after.len());
        out.push_str(&after[..gap]);
        rest = &after[gap..];
    }
    out
}

fn is_key(word: &str) -> bool {
    if ["kb1.", "eyJ"].iter().any(|start| word.contains(start)) && word.len() > 8 {
        return true;
    }
    word.split(['.', '/', '-', '_']).any(is_run) || (word.len() >= KEY_LEN && is_base64_like(word))
}

/// One run of letters and digits, as hex and base32 are.
fn is_run(run: &str) -> bool {
    let has = |is: fn(&char) -> bool| run.chars().any(|c| is(&c));
    run.len() >= KEY_LEN && has(char::is_ascii_digit) && has(char::is_ascii_alphabetic)
}

/// Base64 has capital and small letters, digits, and few separators; paths and names have words.
fn is_base64_like(word: &str) -> bool {
    let count = |is: fn(&char) -> bool| word.chars().filter(&is).count();
    let (capitals, digits) = (count(char::is_ascii_uppercase), count(char::is_ascii_digit));
    capitals * 6 >= word.len() && digits * 20 >= word.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_go_and_what_helps_stays() {
        let cases = [
            ("join with kb1.mfrggzdfmztwq2lk.nbswy3dpeb3w64tmmq", "join with (removed)"),
            (
                "connecting as alice password=hunter2 to 10.0.0.1:1883",
                "connecting as alice password=(removed) to 10.0.0.1:1883",
            ),
            (r#"{"token":"abc","node":"edge/a"}"#, r#"{"token":"(removed)","node":"edge/a"}"#),
            ("  password: two words", "  password: (removed)"),
            ("Authorization: Bearer abc.def", "Authorization: (removed)"),
            ("mqtt://alice:hunter2@broker:1883/x", "mqtt://alice:(removed)"),
            ("redis://:hunter2@broker:6379 is away", "redis://:(removed) is away"),
            ("redis://u:hun/ter2@broker", "redis://u:(removed)"),
            (r#"sent {\"password\":\"x\",\"a\":1}"#, r#"sent {\"password\":\"(removed)\",\"a\":1}"#),
            (r#"{"a":"{\\\"pwd\\\": \\\"x\\\"}"}"#, r#"{"a":"{\\\"pwd\\\": \\\"(removed)\\\"}"}"#),
            (r#"{"password":"a\"b","x":1}"#, r#"{"password":"(removed)","x":1}"#),
            ("  password: a,b}c", "  password: (removed)"),
            ("password=a,b;c next", "password=(removed) next"),
            ("password: |\n  hunter2\n  more\nuser: x", "password: (removed)\n(removed)\n(removed)\nuser: x"),
            ("snmp:\n  privPass:\n    hunter2\n  port: 1", "snmp:\n  privPass:\n(removed)\n  port: 1"),
            ("tokens:\n- a\n- b\nport: 1", "tokens:\n(removed)\n(removed)\nport: 1"),
            ("PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", "PrivateKey = (removed)"),
            ("peer xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg= is away", "peer (removed)= is away"),
            ("alice:$7$101$c2FsdA==$aGFzaA==", "alice:(removed)"),
            ("password-file: /etc/kubebus/mqtt-password", "password-file: /etc/kubebus/mqtt-password"),
            (
                "2026-11-30T09:00:00Z  INFO node: cannot reach the cloud why=no answer",
                "2026-11-30T09:00:00Z  INFO node: cannot reach the cloud why=no answer",
            ),
            (
                "spiffe://water/edge/plant-a-pump-house-number-3",
                "spiffe://water/edge/plant-a-pump-house-number-3",
            ),
            ("/var/lib/kubebus/records/history", "/var/lib/kubebus/records/history"),
        ];
        for (input, expected) in cases {
            assert_eq!(text(input), expected, "{input}");
        }
    }

    #[test]
    fn names_are_read_word_by_word() {
        let secret = [
            "authPass",
            "privPass",
            "priv_pass",
            "basicAuth",
            "auth",
            "pass",
            "secretMessage",
            "passwordMessage",
            "apiKey",
            "API_KEY",
            "TLSKey",
            "keys",
            "tokenStorage",
            "dbPasswd",
            "pin",
            "pinCode",
            "hash",
            "profilekey",
            "clientSecretProfile",
        ];
        for name in secret {
            assert!(is_secret_name(name), "{name}");
        }
        let harmless = [
            "passwordFile",
            "password-file",
            "key_path",
            "tokenCount",
            "token_total",
            "keyAge",
            "authMode",
            "keyspace",
            "message",
            "pinned",
            "position",
            "",
        ];
        for name in harmless {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn objects_that_are_about_a_secret_lose_what_they_say_of_it() {
        let mut value = json!([
            { "name": "password", "value": "x", "secret": true },
            { "property": "authPass", "desired": 7, "reported": [1, 2] },
            { "name": "speed", "value": 3 },
        ]);
        document(&mut value);
        let expected = json!([
            { "name": "password", "value": REMOVED, "secret": true },
            { "property": "authPass", "desired": REMOVED, "reported": REMOVED },
            { "name": "speed", "value": 3 },
        ]);
        assert_eq!(value, expected);
    }

    #[test]
    fn keys_in_pem_go_whole() {
        let input = "before\n-----BEGIN PRIVATE KEY-----\nMIGH\nAgEA\n-----END PRIVATE KEY-----\nafter";
        assert_eq!(text(input), "before\n(removed)\n(removed)\n(removed)\n(removed)\nafter");
    }

    #[test]
    fn documents_lose_secret_fields_at_any_depth() {
        let mut value = json!({
            "spec": { "protocol": { "configData": { "password": "p", "url": "opc.tcp://u:secret@host", "port": 502 } } },
            "tokens": [{ "secret": "s" }], "mqtt": { "passwordFile": "/etc/p", "anonymous": true, "pin": 7, "spin": 3 },
            "keyspace": 3, "preshared_key": "k", "pinned": "x",
        });
        document(&mut value);
        let expected = json!({
            "spec": { "protocol": { "configData": { "password": REMOVED, "url": "opc.tcp://u:(removed)", "port": 502 } } },
            "tokens": REMOVED, "mqtt": { "passwordFile": "/etc/p", "anonymous": true, "pin": REMOVED, "spin": REMOVED },
            "keyspace": 3, "preshared_key": REMOVED, "pinned": "x",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn no_input_is_too_strange() {
        for input in [
            "",
            ":",
            "=",
            "password:",
            "password=\"",
            "password:\\",
            "pwd=\\\"",
            "key:\té",
            "//:@",
            "ä:ö=ü",
            "key=ä\"",
            "-----BEGIN ",
        ] {
            let _ = text(input);
        }
    }
}
